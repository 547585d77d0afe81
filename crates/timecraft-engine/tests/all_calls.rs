//! One table of all host calls, driven through record, codec, replay, trace, chaos and host.

mod support;
#[path = "support/table.rs"]
mod table;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use support::{Case, Scripted, StepClock, disk_log, log_config, memory_log, records};
use table::table;
use timecraft_engine::calls::{CALLS, ValType};
use timecraft_engine::chaos::Chaos;
use timecraft_engine::host::{Host, HostConfig, Mount};
use timecraft_engine::recorder::{End, Recorder, Sink, Source};
use timecraft_engine::replayer::{Options, ReplayEnd, Replayer};
use timecraft_engine::tracer::Tracer;
use timecraft_engine::{Call, Errno, Halt, KillSwitch, System, strace};
use timecraft_log::{LogConfig, Output};

/// The table, and for each call also all arguments zero, all at their maximum, and each error number.
fn cases() -> Vec<Case> {
    let mut cases = table();
    for spec in CALLS.iter().filter(|spec| spec.call != Call::ProcExit) {
        let types = spec.types();
        let max = |kind: &ValType| if *kind == ValType::I32 { u64::from(u32::MAX) } else { u64::MAX };
        cases.push(Case::new(spec.call, &vec![0; types.len()]));
        cases.push(Case::new(spec.call, &types.iter().map(max).collect::<Vec<_>>()).fails(Errno::Fault));
    }
    cases.extend((0..77).map(|raw| Case::new(Call::SchedYield, &[]).fails(Errno::from_raw(raw).unwrap())));
    cases
}

type Outcomes = Vec<(Result<Errno, Halt>, Vec<u8>)>;

/// Runs all cases in the scripted world that `system` decorates.
fn run(cases: &[Case], world: &Scripted, system: &mut dyn System) -> Outcomes {
    let run = |case: &Case| {
        world.set(case);
        case.run(system)
    };
    cases.iter().map(run).collect()
}

fn record<W: Sink>(cases: &[Case], sink: W) -> (Outcomes, W) {
    let world = Scripted::default();
    let mut recorder = Recorder::new(world.clone(), sink, Arc::new(StepClock::default()), 0);
    let outcomes = run(cases, &world, &mut recorder);
    recorder.end(&End::Exit(3)).unwrap();
    (outcomes, recorder.into_parts().1)
}

fn replay(cases: &[Case], source: impl Source, options: Options) -> Outcomes {
    let mut replayer = Replayer::new(source, options);
    let outcomes = cases.iter().map(|case| case.run(&mut replayer)).collect();
    assert_eq!(replayer.finish(&End::Exit(3)), ReplayEnd::Complete(End::Exit(3)));
    outcomes
}

fn assert_same(cases: &[Case], live: &Outcomes, replayed: &Outcomes) {
    for (case, (live, replayed)) in cases.iter().zip(live.iter().zip(replayed)) {
        assert_eq!(live.0, replayed.0, "outcome of {case:?}");
        assert!(live.1 == replayed.1, "memory after {case:?}");
    }
}

#[test]
fn the_table_has_every_call() {
    let mut calls: Vec<_> = table().iter().map(|case| case.call).collect();
    calls.dedup();
    assert_eq!(calls, CALLS.iter().map(|spec| spec.call).collect::<Vec<_>>());
    for case in table() {
        assert_eq!(case.args.len(), case.call.spec().types().len(), "{case:?}");
    }
}

#[test]
fn what_was_recorded_is_replayed() {
    let cases = cases();
    let mut live = Vec::new();
    let source = memory_log(|sink| {
        let (outcomes, sink) = record(&cases, sink);
        live = outcomes;
        sink
    });
    assert_same(&cases, &live, &replay(&cases, source.clone(), Options::default()));
    let poisoned = Options { poison: true, ..Options::default() };
    // Not those with all arguments zero: they claim success without having written a result.
    let whole = |case: &&Case| !case.outputs.is_empty() || case.outcome != Ok(Errno::Success);
    let whole: Vec<_> = cases.iter().filter(whole).cloned().collect();
    let mut live = Vec::new();
    let source = memory_log(|sink| {
        let (outcomes, sink) = record(&whole, sink);
        live = outcomes;
        sink
    });
    assert_same(&whole, &live, &replay(&whole, source, poisoned));
}

#[test]
fn the_log_on_disk_is_no_different() {
    let (dir, cases) = (tempfile::tempdir().unwrap(), cases());
    let mut live = Vec::new();
    let mut disk = disk_log(log_config(dir.path()), |ring| {
        let (outcomes, ring) = record(&cases, ring);
        live = outcomes;
        ring
    });
    let mut memory = memory_log(|sink| record(&cases, sink).1);
    assert_eq!(records(&mut disk), records(&mut memory));
    disk.seek(0).unwrap();
    assert_same(&cases, &live, &replay(&cases, disk, Options::default()));
}

#[test]
fn digests_of_inputs_are_checked_in_their_place() {
    // Data alone; and in logs of version 1 poll_oneoff, a long path, addresses with family, a chain of addrinfo.
    for (kept, expected) in [(timecraft_engine::calls::kept as fn(u16) -> u8, 2), (|_| 0, 7)] {
        let (dir, cases) = (tempfile::tempdir().unwrap(), cases());
        let config = LogConfig { output: Output::Digest, kept, ..log_config(dir.path()) };
        let mut live = Vec::new();
        let mut disk = disk_log(config, |ring| {
            let (outcomes, ring) = record(&cases, ring);
            live = outcomes;
            ring
        });
        let mut digested = Vec::new();
        while let Some(record) = disk.next().unwrap() {
            if record.digested() {
                digested.push(strace::record_line(&record, &strace::Options::default()));
            }
        }
        assert_eq!(digested.len(), expected);
        let to = digested.iter().find(|line| line.starts_with("sock_send_to")).unwrap();
        assert_eq!(to.contains("[::1]:53"), expected == 2, "addresses can still be read: {to}");
        disk.seek(0).unwrap();
        assert_same(&cases, &live, &replay(&cases, disk, Options::default()));
    }
}

#[test]
fn traces_read_well() {
    let world = Scripted::default();
    let lines = Arc::new(Mutex::new(String::new()));
    let output = Arc::clone(&lines);
    let print = move |line: &str| writeln!(output.lock().unwrap(), "{line}").unwrap();
    let mut tracer = Tracer::new(world.clone(), print, strace::Options::default());
    run(&table(), &world, &mut tracer);
    tracer.end(&End::Exit(3)).unwrap();
    let live = lines.lock().unwrap().clone();
    support::assert_golden("all_calls.txt", &live);

    let mut source = memory_log(|sink| record(&table(), sink).1);
    let (mut text, mut json) = (String::new(), String::new());
    let json_options = strace::Options { string_bytes_max: 100, ..strace::Options::unabridged() };
    for record in records(&mut source) {
        writeln!(text, "{}", strace::record_line(&&record, &strace::Options::default())).unwrap();
        writeln!(json, "{}", strace::record_json(&&record, &json_options)).unwrap();
    }
    assert_eq!(text, live, "a record's line is the live one");
    support::assert_golden("all_calls.jsonl", &json);
    assert!(text.chars().chain(json.chars()).all(|c| c == '\n' || (' '..='~').contains(&c)), "printable ASCII alone");
}

#[test]
fn a_replay_traces_as_the_run_did() {
    let mut source = memory_log(|sink| record(&table(), sink).1);
    let lines = Arc::new(Mutex::new(String::new()));
    let output = Arc::clone(&lines);
    let print = move |line: &str| writeln!(output.lock().unwrap(), "{line}").unwrap();
    let replayer = Replayer::new(source.clone(), Options::default());
    let mut tracer = Tracer::new(replayer, print, strace::Options::default());
    for case in table() {
        let _ = case.run(&mut tracer);
    }
    tracer.end(&End::Exit(3)).unwrap();
    let lines = lines.lock().unwrap().clone();
    let live = records(&mut source).iter().fold(String::new(), |mut text, record| {
        writeln!(text, "{}", strace::record_line(&record, &strace::Options::default())).unwrap();
        text
    });
    assert_eq!(lines, live);
}

#[test]
fn recorded_chaos_replays_without_chaos() {
    let cases: Vec<_> = (0..20).flat_map(|_| table()).collect();
    let world = Scripted::default();
    let mut live = Vec::new();
    let source = memory_log(|sink| {
        let chaos = Chaos::new(world.clone(), 0.5, 42, |_| {});
        let mut recorder = Recorder::new(chaos, sink, Arc::new(StepClock::default()), 0);
        live = run(&cases, &world, &mut recorder);
        recorder.end(&End::Exit(3)).unwrap();
        assert!(recorder.inner().faults() > 100);
        recorder.into_parts().1
    });
    let calm = cases.iter().map(|case| &case.outcome).collect::<Vec<_>>();
    assert_ne!(live.iter().map(|(outcome, _)| outcome).collect::<Vec<_>>(), calm);
    assert_same(&cases, &live, &replay(&cases, source, Options::default()));
}

/// A host with a directory in its mount, fresh for each case: cases close descriptors.
fn host(mount: &Path) -> Host {
    let kill = Arc::new(KillSwitch::new().unwrap());
    let mounts = vec![Mount { host: mount.into(), guest: "/".into(), read_only: false, immutable: false }];
    let args = vec![b"prog".to_vec(), b"-v".to_vec()];
    Host::new(HostConfig { mounts, args, ..HostConfig::default() }, kill).unwrap()
}

/// Has the host do what a case says, and compares with a replay of it.
fn host_and_replay<R: Source, W: Sink>(case: &Case, mount: &Path, log: impl FnOnce(&mut dyn FnMut(W) -> W) -> R) {
    let mut live = None;
    let source = log(&mut |sink| {
        let mut recorder = Recorder::new(host(mount), sink, Arc::new(StepClock::default()), 0);
        live = Some(case.run(&mut recorder));
        recorder.into_parts().1
    });
    let (outcome, memory) = live.unwrap();
    let replayed = match outcome {
        // Not recorded: the end of the process would be next.
        Err(Halt::Killed(_)) => return,
        _ => case.run(&mut Replayer::new(source, Options { poison: true, ..Options::default() })),
    };
    assert_eq!(replayed.0, outcome, "outcome of {case:?}");
    assert!(replayed.1 == memory, "memory after {case:?}");
}

#[test]
fn the_real_host_replays_too() {
    let mount = tempfile::tempdir().unwrap();
    std::fs::create_dir(mount.path().join("dir")).unwrap();
    std::fs::write(mount.path().join("dir/file"), b"hello").unwrap();
    for case in cases() {
        host_and_replay(&case, mount.path(), |write| memory_log(write));
    }
    // Digests show whether the host reads its inputs in the order that a replay takes them to be in.
    let sends = |case: &Case| case.inputs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 64;
    for case in table().into_iter().filter(sends) {
        let logs = tempfile::tempdir().unwrap();
        let config = LogConfig { output: Output::Digest, kept: |_| 0, ..log_config(logs.path()) };
        host_and_replay(&case, mount.path(), |write| disk_log(config, write));
    }
}
