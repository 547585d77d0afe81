//! A process that is killed at any moment: what it reported as appended is in its log.

mod support;

use std::io::Write as _;
use std::path::Path;
use support::{read_log, run_and_kill, sample, small_config, start};
use timecraft_log::recover;

const DIR_VARIABLE: &str = "TIMECRAFT_LOG_KILL_DIR";
const KILLS: u64 = 25;

/// Not a test of its own: the process that `a_killed_process_loses_no_record` kills.
#[test]
#[ignore = "run by the other test as a process"]
fn appends_for_ever() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let (mut ring, _handle) = start(small_config(Path::new(&dir)));
    let mut out = std::io::stdout().lock();
    loop {
        let seq = sample(ring.next_seq()).append_to(&mut ring).expect("appended");
        writeln!(out, "\nseq {seq}").expect("reported");
    }
}

#[test]
fn a_killed_process_loses_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 42u64;
    for kill in 0..KILLS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let reported = run_and_kill("appends_for_ever", DIR_VARIABLE, dir.path(), 1 + (state >> 33) % 2_000);
        let report = recover(dir.path()).unwrap();
        assert!(report.last_seq >= Some(reported), "kill {kill}: {report:?}, reported {reported}");
        assert!(!report.ring_records_unusable, "kill {kill}");
    }
    let records = read_log(dir.path());
    assert!(records.iter().zip(0..).all(|(record, i)| *record == sample(i)));
}
