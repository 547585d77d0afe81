//! Properties: whatever passes the gate survives log and replay, and no log, however hostile, brings us down.

mod support;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use support::{Case, MEMORY_BYTES, Scripted, StepClock, disk_log, log_config, memory_log};
use timecraft_engine::calls::CALLS;
use timecraft_engine::recorder::{MemorySource, OwnedRecord, Recorder, Sink, Source};
use timecraft_engine::replayer::{Options, Replayer};
use timecraft_engine::strace::{self, record_json, record_line};
use timecraft_engine::{Call, End, Errno, Halt};

/// Regions of guest memory, close together so that they overlap at times.
fn regions() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    vec((0..256u32, vec(any::<u8>(), 0..64)), 0..4)
}

prop_compose! {
    /// Any call with any arguments that reads and writes anything.
    fn any_case()(
        id in 0..CALLS.len() as u16,
        args in vec(prop_oneof![0..512u64, any::<u64>()], 16),
        inputs in regions(),
        outputs in regions(),
        errno in 0..77u16,
    ) -> Case {
        let call = Call::from_id(id).unwrap();
        let args = &args[..call.spec().types().len()];
        let outcome = match call {
            Call::ProcExit => Err(Halt::Exit(args[0] as u32)),
            _ => Ok(Errno::from_raw(errno).unwrap()),
        };
        Case { call, args: args.to_vec(), inputs, outputs, outcome }
    }
}

prop_compose! {
    /// Records as no recorder writes them, but often of known calls with plausible pointers.
    fn any_record()(
        call in prop_oneof![4 => 0..50u16, 1 => any::<u16>(), 1 => 0xff00..=0xff02u16],
        errno in prop_oneof![4 => Just(0u16), 1 => any::<u16>()],
        args in vec(prop_oneof![0..4u64, 0..512u64, any::<u64>()], 0..16),
        written in regions(),
        sent in regions(),
        far in any::<Option<u32>>(),
    ) -> OwnedRecord {
        let mut record = OwnedRecord { call, errno, args, written, sent, ..OwnedRecord::default() };
        if let (Some(ptr), Some(region)) = (far, record.written.first_mut()) {
            region.0 = ptr;
        }
        record
    }
}

/// What came of each call, and the memory at the end.
type Run = (Vec<Result<Errno, Halt>>, Vec<u8>);

/// Runs the cases on one memory, as a guest would.
fn run(cases: &[Case], system: &mut dyn timecraft_engine::System, before: impl Fn(&Case)) -> Run {
    let mut memory = vec![0; MEMORY_BYTES];
    let mut outcomes = Vec::new();
    for case in cases {
        before(case);
        for (ptr, bytes) in &case.inputs {
            memory[*ptr as usize..*ptr as usize + bytes.len()].copy_from_slice(bytes);
        }
        let (outcome, after) = case.run_with(system, memory);
        outcomes.push(outcome);
        memory = after;
    }
    (outcomes, memory)
}

fn record<W: Sink>(cases: &[Case], sink: W) -> (Run, W) {
    let world = Scripted::default();
    let mut recorder = Recorder::new(world.clone(), sink, Arc::new(StepClock::default()), 0);
    let outcome = run(cases, &mut recorder, |case| world.set(case));
    (outcome, recorder.into_parts().1)
}

fn replay(cases: &[Case], source: impl Source) -> Run {
    run(cases, &mut Replayer::new(source, Options::default()), |_| {})
}

proptest! {
    #[test]
    fn what_passes_the_gate_is_replayed(cases in vec(any_case(), 1..40)) {
        let mut live = None;
        let source = memory_log(|sink| {
            let (outcome, sink) = record(&cases, sink);
            live = Some(outcome);
            sink
        });
        prop_assert_eq!(live.unwrap(), replay(&cases, source));
    }

    #[test]
    fn hostile_logs_are_refused_calmly(records in vec(any_record(), 1..20), cases in vec(any_case(), 20)) {
        let number = |(seq, record)| OwnedRecord { seq: seq as u64, ..record };
        let records: Vec<_> = records.into_iter().enumerate().map(number).collect();
        for record in &records {
            let line = record_line(&record, &strace::Options::default());
            let json = record_json(&record, &strace::Options::unabridged());
            let lines = [line, json];
            prop_assert!(lines.concat().chars().all(|c| (' '..='~').contains(&c)), "{:?}", lines);
        }
        for verify in [true, false] {
            let options = Options { verify, poison: !verify, ..Options::default() };
            let mut replayer = Replayer::new(MemorySource::new(records.clone()), options);
            for (record, case) in records.iter().zip(&cases) {
                // The recorded call and arguments, so that replay gets as far as the regions.
                let call = Call::from_id(record.call).unwrap_or(case.call);
                let case = Case { call, args: record.args.clone(), ..case.clone() };
                let _ = case.run(&mut replayer);
            }
            if let Some(end) = replayer.report().end() {
                let _ = format!("{end:?}");
                if let timecraft_engine::replayer::ReplayEnd::Diverged(divergence) = end {
                    let _ = divergence.to_string();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_passes_the_gate_survives_the_disk(cases in vec(any_case(), 1..200)) {
        let dir = tempfile::tempdir().unwrap();
        let mut live = None;
        let source = disk_log(log_config(dir.path()), |ring| {
            let (outcome, ring) = record(&cases, ring);
            live = Some(outcome);
            ring
        });
        prop_assert_eq!(live.unwrap(), replay(&cases, source));
    }
}

#[test]
fn a_traps_message_prints_harmlessly() {
    let end = End::Trap { message: "\x7f\x1b[2J\u{9b} \"odd\" \\".to_owned() };
    let line = record_line(&&support::end_record(1, &end), &strace::Options::default());
    assert_eq!(line, "+++ trap: \\u{7f}\\u{1b}[2J\\u{9b} \"odd\" \\ +++");
}
