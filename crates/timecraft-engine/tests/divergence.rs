//! Replays that don't go as recorded: each kind of divergence, and each way for a log to end.

mod support;

use std::sync::Arc;

use support::{Case, Scripted, StepClock, disk_log, end_record, log_config, memory_log};
use timecraft_engine::recorder::{CALL_START, End, MemorySource, OwnedRecord, Recorder, Source};
use timecraft_engine::replayer::{Divergence, DivergenceKind, Options, ReplayEnd, Replayer, Until};
use timecraft_engine::{Call, Errno, Halt, Kill, KillSwitch, System};
use timecraft_log::{LogConfig, Output};

fn write_case(text: &[u8]) -> Case {
    let mut iovec = 0x1000u32.to_le_bytes().to_vec();
    iovec.extend_from_slice(&(text.len() as u32).to_le_bytes());
    Case::new(Call::FdWrite, &[1, 0x100, 1, 0x200])
        .input(0x100, &iovec)
        .input(0x1000, text)
        .output(0x200, &(text.len() as u32).to_le_bytes())
}

fn clock_case() -> Case {
    Case::new(Call::ClockTimeGet, &[1, 1, 0x300]).output(0x300, &7u64.to_le_bytes())
}

/// The records of a run, the first of which begins the log.
fn recorded(cases: &[Case]) -> Vec<OwnedRecord> {
    let mut source = memory_log(|sink| {
        let world = Scripted::default();
        let mut recorder = Recorder::new(world.clone(), sink, Arc::new(StepClock::default()), 0);
        for case in cases {
            world.set(case);
            let _ = case.run(&mut recorder);
        }
        recorder.into_parts().1
    });
    let mut records = Vec::new();
    while let Some(record) = source.next().unwrap() {
        records.push(record.clone());
    }
    records
}

fn replayer(records: Vec<OwnedRecord>) -> Replayer<MemorySource> {
    Replayer::new(MemorySource::new(records), Options::default())
}

/// How the replay of `records` ends at the last of `cases`, all others of which are as recorded.
fn end_of(records: Vec<OwnedRecord>, cases: &[Case]) -> ReplayEnd {
    let mut replayer = replayer(records);
    let (last, before) = cases.split_last().unwrap();
    for case in before {
        assert_eq!(case.run(&mut replayer).0, case.outcome);
    }
    let before = last.memory();
    let (outcome, after) = last.run(&mut replayer);
    assert_eq!(outcome, Err(Halt::Replay));
    assert!(before == after, "a call that diverges changes nothing");
    assert_eq!(last.run(&mut replayer).0, Err(Halt::Replay), "a replay that is over stays so");
    replayer.report().end().unwrap()
}

fn divergence(end: ReplayEnd) -> Divergence {
    let ReplayEnd::Diverged(divergence) = end else { panic!("{end:?}") };
    *divergence
}

#[test]
fn another_call() {
    let end =
        end_of(recorded(&[clock_case(), write_case(b"hello\n")]), &[clock_case(), Case::new(Call::FdClose, &[4])]);
    let divergence = divergence(end);
    assert_eq!(divergence.kind, DivergenceKind::UnexpectedCall);
    assert_eq!(
        divergence.to_string(),
        r#"the replay diverged from the log at record 2 (fd_write)
  recorded: fd_write(1, [{"hello\n", 6}], [6]) = 0
  replayed: fd_close(4)
  differs:  the guest called fd_close, not fd_write"#
    );
}

#[test]
fn another_argument() {
    let path = |fd, path: &[u8]| {
        Case::new(Call::PathRename, &[3, 0x1000, 3, fd, 0x2000, path.len() as u64])
            .input(0x1000, b"old")
            .input(0x2000, path)
    };
    let end = end_of(recorded(&[path(3, b"new")]), &[path(4, b"new")]);
    assert_eq!(
        divergence(end).to_string(),
        r#"the replay diverged from the log at record 1 (path_rename)
  recorded: path_rename(3, "old", 3, "new") = 0
  replayed: path_rename(3, "old", 4, "new")
  differs:  argument new_fd is 0x4, not 0x3"#
    );
    let divergence = divergence(end_of(recorded(&[path(3, b"new")]), &[path(3, b"newer")]));
    assert_eq!(divergence.kind, DivergenceKind::UnexpectedArgument { index: 5 });
    assert!(divergence.to_string().ends_with("argument new_path_len is 0x5, not 0x3"), "{divergence}");
}

#[test]
fn other_bytes() {
    let text = b"a line that is the same for a while: 1\n";
    let mut other = text.to_vec();
    other[37] = b'2';
    let mut replayer = replayer(recorded(&[write_case(text)]));
    let _ = write_case(&other).run(&mut replayer);
    replayer.report().set_backtrace("main.main (main.go:7)\n_start");
    let divergence = divergence(replayer.report().end().unwrap());
    assert_eq!(
        divergence.to_string(),
        r#"the replay diverged from the log at record 1 (fd_write)
  recorded: fd_write(1, [{"a line that is the same for a wh"..., 39}], [39]) = 0
  replayed: fd_write(1, [{"a line that is the same for a wh"..., 39}], 0x200)
  differs:  input at 0x1025, from byte 37 of the region at 0x1000
    recorded  00000020  69 6c 65 3a 20 31 0a                             |ile: 1.|
    replayed  00000020  69 6c 65 3a 20 32 0a                             |ile: 2.|
  guest backtrace:
    main.main (main.go:7)
    _start"#
    );
}

#[test]
fn other_bytes_of_which_only_the_digest_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { output: Output::Digest, ..log_config(dir.path()) };
    let source = disk_log(config, |ring| {
        let world = Scripted::default();
        let mut recorder = Recorder::new(world.clone(), ring, Arc::new(StepClock::default()), 0);
        for _ in 0..2 {
            world.set(&write_case(&[b'a'; 100]));
            assert_eq!(write_case(&[b'a'; 100]).run(&mut recorder).0, Ok(Errno::Success));
        }
        recorder.into_parts().1
    });
    let mut replayer = Replayer::new(source, Options::default());
    assert_eq!(write_case(&[b'a'; 100]).run(&mut replayer).0, Ok(Errno::Success));
    assert_eq!(write_case(&[b'b'; 100]).run(&mut replayer).0, Err(Halt::Replay));
    let divergence = divergence(replayer.report().end().unwrap());
    assert_eq!(divergence.kind, DivergenceKind::UnexpectedDigest);
    assert_eq!(
        divergence.to_string(),
        r#"the replay diverged from the log at record 2 (fd_write)
  recorded: fd_write(1, 0x100, 1, [100]) = 0
  replayed: fd_write(1, [{"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"..., 100}], 0x200)
  differs:  the bytes sent have another digest"#
    );
}

#[test]
fn regions_beyond_the_guests_memory() {
    for is_input in [true, false] {
        let mut records = recorded(&[clock_case()]);
        let regions = if is_input { &mut records[1].sent } else { &mut records[1].written };
        *regions = vec![(0xffff, vec![0; 2])];
        let divergence = divergence(end_of(records, &[clock_case()]));
        assert_eq!(divergence.kind, DivergenceKind::OutOfMemory { ptr: 0xffff, len: 2, memory_bytes: 1 << 16 });
        let text = "differs:  2 recorded bytes at 0xffff lie outside of the guest's memory of 65536 bytes";
        assert!(divergence.to_string().ends_with(text), "{divergence}");
    }
}

#[test]
fn going_on_where_the_log_has_the_end() {
    let mut records = recorded(&[clock_case()]);
    records.push(end_record(2, &End::Trap { message: "unreachable\n  at main.main".into() }));
    assert_eq!(
        divergence(end_of(records, &[clock_case(), clock_case()])).to_string(),
        "the replay diverged from the log at record 2 (the end)
  recorded: trap: unreachable
  replayed: clock_time_get(MONOTONIC, 1, 0x300)
  differs:  the guest went on where the log ends"
    );
}

#[test]
fn ending_where_the_log_goes_on() {
    let mut replayer = replayer(recorded(&[write_case(b"hello\n")]));
    let end = replayer.finish(&End::Exit(0));
    assert_eq!(
        divergence(end).to_string(),
        r#"the replay diverged from the log at record 1 (fd_write)
  recorded: fd_write(1, [{"hello\n", 6}], [6]) = 0
  replayed: exit with code 0
  differs:  the guest ended where the log has a call"#
    );
}

#[test]
fn ending_otherwise() {
    let mut records = recorded(&[clock_case()]);
    records.push(end_record(2, &End::Exit(0)));
    let mut replayer = replayer(records);
    let _ = clock_case().run(&mut replayer);
    assert_eq!(System::end(&mut replayer, &End::Trap { message: "stack overflow".into() }), Err(Halt::Replay));
    assert_eq!(
        divergence(replayer.report().end().unwrap()).to_string(),
        "the replay diverged from the log at record 2 (the end)
  recorded: exit with code 0
  replayed: trap: stack overflow
  differs:  the guest ended otherwise"
    );
}

#[test]
fn ends_agree_if_their_messages_alone_differ() {
    let mut records = recorded(&[]);
    let trap = |message: &str| End::Trap { message: message.into() };
    records.push(end_record(1, &trap("unreachable\n  at main")));
    let mut replayer = replayer(records);
    assert!(!replayer.expects_end());
    assert_eq!(System::end(&mut replayer, &trap("unreachable")), Ok(()));
}

#[test]
fn without_verification_only_calls_count() {
    let options = Options { verify: false, ..Options::default() };
    let mut replayer = Replayer::new(MemorySource::new(recorded(&[write_case(b"hello\n")])), options);
    assert_eq!(write_case(b"other\n").run(&mut replayer).0, Ok(Errno::Success));
    let mut replayer = self::replayer(recorded(&[write_case(b"hello\n")]));
    assert_eq!(write_case(b"other\n").run(&mut replayer).0, Err(Halt::Replay));
}

#[test]
fn a_log_that_just_ends() {
    let end = end_of(recorded(&[clock_case()]), &[clock_case(), clock_case()]);
    assert_eq!(end, ReplayEnd::LogEnded { last_seq: Some(1) });
    assert_eq!(end_of(Vec::new(), &[clock_case()]), ReplayEnd::LogEnded { last_seq: None });
}

#[test]
fn a_log_that_is_damaged() {
    let source = MemorySource::damaged(recorded(&[clock_case()]), "segment 0: corrupt crc");
    let mut replayer = Replayer::new(source, Options::default());
    assert_eq!(clock_case().run(&mut replayer).0, Ok(Errno::Success));
    assert_eq!(clock_case().run(&mut replayer).0, Err(Halt::Replay));
    let damaged = |error: &str| ReplayEnd::LogDamaged { error: error.into(), last_seq: Some(1) };
    assert_eq!(replayer.report().end(), Some(damaged("segment 0: corrupt crc")));

    let mut records = recorded(&[clock_case(), clock_case(), clock_case()]);
    records.remove(2);
    let missing = damaged("record 3 follows record 1: those between are missing");
    assert_eq!(end_of(records, &[clock_case(), clock_case()]), missing);

    let mut records = recorded(&[clock_case(), clock_case()]);
    records[2].errno = 77;
    let unknown = damaged("record 2 has the unknown error number 77");
    assert_eq!(end_of(records, &[clock_case(), clock_case()]), unknown);

    let mut records = recorded(&[clock_case()]);
    records.push(end_record(2, &End::Exit(0)));
    records.push(OwnedRecord { seq: 3, ..records[1].clone() });
    let follows = damaged("record 2 is an end, but records follow");
    assert_eq!(end_of(records, &[clock_case(), clock_case()]), follows);
}

#[test]
fn a_call_that_this_build_does_not_know() {
    let mut records = recorded(&[clock_case()]);
    records[1].call = 999;
    let divergence = divergence(end_of(records, &[clock_case()]));
    assert!(divergence.to_string().contains("the guest called clock_time_get, not call 999"), "{divergence}");
}

#[test]
fn until_a_record_or_a_time() {
    let mut records = recorded(&[clock_case(), clock_case(), clock_case()]);
    for (index, record) in records.iter_mut().enumerate() {
        record.time_ns = index as u64 * 10;
    }
    for (until, delivered) in [(Until::Seq(2), 2), (Until::Seq(0), 0), (Until::TimeNs(15), 1), (Until::TimeNs(30), 3)] {
        let options = Options { until: Some(until), ..Options::default() };
        let mut replayer = Replayer::new(MemorySource::new(records.clone()), options);
        for _ in 0..delivered {
            assert_eq!(clock_case().run(&mut replayer).0, Ok(Errno::Success));
        }
        assert_eq!(clock_case().run(&mut replayer).0, Err(Halt::Replay));
        let expected = if delivered == 3 {
            ReplayEnd::LogEnded { last_seq: Some(3) }
        } else {
            ReplayEnd::Until { next_seq: delivered + 1 }
        };
        assert_eq!(replayer.report().end(), Some(expected), "{until:?}");
    }
}

const KILL: Kill = Kill::Signal(9);

fn killed_after(cases: &[Case]) -> Vec<OwnedRecord> {
    let mut records = recorded(cases);
    records.push(end_record(records.len() as u64, &End::Killed(KILL)));
    records
}

#[test]
fn a_guest_that_was_killed_is_killed_behind_its_last_call() {
    // It computed when it was killed, and would go on for ever.
    let mut replayer = replayer(killed_after(&[clock_case()]));
    assert!(!replayer.expects_end());
    assert_eq!(clock_case().run(&mut replayer).0, Err(Halt::Killed(KILL)));
    assert_eq!(replayer.report().end(), Some(ReplayEnd::Complete(End::Killed(KILL))));
    assert_eq!(System::end(&mut replayer, &End::Killed(KILL)), Ok(()));
}

#[test]
fn a_kill_switch_lets_the_last_call_return() {
    let kill = Arc::new(KillSwitch::new().unwrap());
    let options = Options { kill_switch: Some(Arc::clone(&kill)), ..Options::default() };
    let mut replayer = Replayer::new(MemorySource::new(killed_after(&[clock_case(), clock_case()])), options);
    assert_eq!(clock_case().run(&mut replayer).0, Ok(Errno::Success));
    assert!(!kill.is_requested());
    assert_eq!(clock_case().run(&mut replayer).0, Ok(Errno::Success));
    assert_eq!(kill.reason(), Some(KILL));
    assert_eq!(System::end(&mut replayer, &End::Killed(KILL)), Ok(()));
}

#[test]
fn a_guest_that_was_killed_before_its_first_call_makes_none() {
    let mut replayer = replayer(killed_after(&[]));
    assert!(replayer.expects_end());
    assert_eq!(replayer.recorded_kill(), Some(KILL));
    // An engine that doesn't ask finds out at the first call.
    assert_eq!(clock_case().run(&mut replayer).0, Err(Halt::Killed(KILL)));
    assert_eq!(replayer.report().end(), Some(ReplayEnd::Complete(End::Killed(KILL))));
}

#[test]
fn a_replay_that_is_killed_has_not_diverged() {
    let mut replayer = replayer(recorded(&[clock_case(), clock_case()]));
    let _ = clock_case().run(&mut replayer);
    let interrupted = ReplayEnd::Interrupted { kill: KILL, last_seq: Some(1) };
    assert_eq!(replayer.finish(&End::Killed(KILL)), interrupted);
}

#[test]
fn resumed_logs_are_one_world() {
    let mut records = recorded(&[clock_case()]);
    let start = |seq| OwnedRecord { seq, call: CALL_START, args: vec![seq, 0], ..OwnedRecord::default() };
    let clock = |seq| OwnedRecord { seq, ..recorded(&[clock_case()]).remove(1) };
    // The host died after record 1; the resumed process was stopped, resumed again, and ended well.
    records.extend([start(2), clock(3), end_record(4, &End::Killed(KILL)), start(5), clock(6)]);
    records.push(end_record(7, &End::Exit(0)));
    let mut replayer = replayer(records);
    for _ in 0..3 {
        assert_eq!(clock_case().run(&mut replayer).0, Ok(Errno::Success));
    }
    assert_eq!(replayer.finish(&End::Exit(0)), ReplayEnd::Complete(End::Exit(0)));
    assert_eq!(replayer.last_seq(), Some(6));
}

#[test]
fn an_exit_is_known_even_if_the_host_died_right_after() {
    let exit = Case::new(Call::ProcExit, &[3]).halts(Halt::Exit(3));
    let mut replayer = replayer(recorded(std::slice::from_ref(&exit)));
    assert_eq!(exit.run(&mut replayer).0, Err(Halt::Exit(3)));
    assert_eq!(replayer.finish(&End::Exit(3)), ReplayEnd::Complete(End::Exit(3)));
}
