//! Disks that fail at any operation, and power that is cut after any.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::disk::{Disk, Op, Plan, cut_power, promised};
use support::{Record, read_all, read_log, sample, samples, small_config};
use timecraft_log::{
    AppendError, LogConfig, LogError, LogReader, LogSummary, LogWriterHandle, OnFull, RingWriter, recover,
    start_with_storage,
};

const COUNT: u64 = 220;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// In memory: only what `Disk` says is on the medium counts.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn start(config: LogConfig, disk: &Disk) -> (RingWriter, LogWriterHandle) {
    start_with_storage(config, Arc::default(), Box::new(disk.clone())).unwrap()
}

/// Syncs whenever there is something to sync, and waits for what it can't write.
fn eager(dir: &Path) -> LogConfig {
    LogConfig {
        fsync_interval: Some(Duration::ZERO),
        on_full: OnFull::Wait,
        wait_max: Some(Duration::from_mins(1)),
        ..small_config(dir)
    }
}

/// Writes a log of `COUNT` records, in turns with the writer; the last of each ten is an output.
fn write(config: LogConfig, disk: &Disk) -> (LogSummary, u64) {
    let (mut ring, handle) = start(config, disk);
    let mut faults = 0;
    for i in 0..COUNT {
        if i % 10 == 9 {
            ring.sync_before_output().unwrap();
            disk.note(Op::Promise(handle.stats().next_seq_synced));
        }
        sample(i).append_to(&mut ring).unwrap();
        faults = handle.stats().faults;
    }
    let summary = handle.finish().unwrap();
    assert_eq!(summary.stats.next_seq_synced, COUNT);
    disk.note(Op::Promise(COUNT));
    (summary, faults)
}

fn assert_whole(dir: &Path) {
    assert!(read_log(dir) == samples(COUNT));
}

fn assert_prefix_of(dir: &Path, least: u64, context: &str) {
    let report = recover(dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    let next_seq = report.last_seq.map_or(0, |seq| seq + 1);
    assert!(next_seq >= least, "{context}: {next_seq} records are left of {least} that were safe");
    if next_seq > 0 {
        let (found, error) = read_all(&mut LogReader::open(dir).unwrap());
        let found: Vec<Record> = found.into_iter().map(|(_, record)| record).collect();
        assert!(error.is_none() && found == samples(next_seq), "{context}: {error:?}");
    }
}

#[test]
fn each_operation_may_fail_and_nothing_is_lost() {
    let dir = scratch();
    let disk = Disk::default();
    write(LogConfig { sync_before_output: true, ..eager(dir.path()) }, &disk);
    let operations = disk.counts().0;
    assert!(operations > 40, "{operations}");
    for (errno, torn, count) in [(ENOSPC, 0, 1), (ENOSPC, 100, 3), (EIO, 7, 2)] {
        for first in 0..operations {
            let dir = scratch();
            let disk = Disk::failing(Plan { torn, ..Plan::new(first, count, errno) });
            let (summary, _) = write(LogConfig { sync_before_output: true, ..eager(dir.path()) }, &disk);
            let failed = disk.counts().1 as u64;
            let context = format!("operation {first}, error {errno}, {failed} failed: {:?}", summary.stats);
            // What fails on the way back from an error is not told as one more.
            assert!(failed == 0 || (1..=failed).contains(&summary.stats.faults), "{context}");
            assert_eq!(summary.stats.fault_errno, 0, "{context}");
            assert_whole(dir.path());
            let left = scratch();
            cut_power(&disk.journal(), first as u64, left.path());
            assert_prefix_of(left.path(), COUNT, &context);
        }
    }
}

#[test]
fn a_power_cut_leaves_a_prefix_with_all_that_was_told_to_be_safe() {
    let eagerly = Some(Duration::ZERO);
    for (sync_before_output, fsync_interval) in [(true, eagerly), (false, eagerly), (false, None)] {
        let dir = scratch();
        let disk = Disk::default();
        let config = LogConfig { sync_before_output, fsync_interval, segment_bytes_max: 20 << 10, ..eager(dir.path()) };
        write(config, &disk);
        let journal = disk.journal();
        for operations in 0..=journal.len() {
            let journal = &journal[..operations];
            for seed in 0..4 {
                let left = scratch();
                cut_power(journal, operations as u64 * 31 + seed, left.path());
                let context = format!("after {operations} operations, {seed}, last {:?}", journal.last());
                assert_prefix_of(left.path(), promised(journal), &context);
            }
        }
    }
}

#[test]
fn before_an_output_all_that_came_before_is_on_the_medium() {
    let dir = scratch();
    let disk = Disk::default();
    let config = LogConfig {
        sync_before_output: true,
        fsync_interval: Some(Duration::from_hours(1)),
        flush_interval: Duration::from_hours(1),
        ..small_config(dir.path())
    };
    let (mut ring, handle) = start(config, &disk);
    for i in 0..50 {
        sample(i).append_to(&mut ring).unwrap();
        ring.sync_before_output().unwrap();
        let left = scratch();
        cut_power(&disk.journal(), i, left.path());
        assert_prefix_of(left.path(), i + 1, &format!("output {i}"));
        let syncs = handle.stats().syncs;
        ring.sync_before_output().unwrap();
        assert_eq!(handle.stats().syncs, syncs, "nothing new to wait for");
    }
    assert!(handle.stats().sync_waited_ns > 0);
}

#[test]
fn records_are_synced_in_time_without_being_asked_for() {
    let dir = scratch();
    let disk = Disk::default();
    let config = LogConfig { flush_interval: Duration::from_hours(1), ..small_config(dir.path()) };
    let (mut ring, handle) = start(config, &disk);
    for i in 0..3 {
        sample(i).append_to(&mut ring).unwrap();
        while handle.stats().next_seq_synced <= i {
            std::thread::yield_now();
        }
        let left = scratch();
        cut_power(&disk.journal(), i, left.path());
        assert_prefix_of(left.path(), i + 1, "idle");
    }
}

/// Fills the ring while the disk fails; returns the next number, once the guest waits.
fn append_until_waiting(mut ring: RingWriter, handle: &LogWriterHandle) -> std::thread::JoinHandle<(RingWriter, u64)> {
    let guest = std::thread::spawn(move || {
        for i in 0.. {
            match sample(i).append_to(&mut ring) {
                Ok(seq) => assert_eq!(seq, i),
                Err(AppendError::Cancelled | AppendError::WriterFailed) => return (ring, i),
                Err(error) => panic!("{error}"),
            }
            if i == 5_000 {
                return (ring, i + 1);
            }
        }
        unreachable!()
    });
    while handle.stats().stalls == 0 {
        std::thread::yield_now();
    }
    guest
}

#[test]
fn a_guest_waits_while_the_disk_is_full_and_goes_on_when_it_is_not() {
    let dir = scratch();
    let disk = Disk::failing(Plan { torn: 50, ..Plan::new(9, usize::MAX, ENOSPC) });
    let (ring, handle) = start(LogConfig { wait_max: None, ..eager(dir.path()) }, &disk);
    let guest = append_until_waiting(ring, &handle);
    while handle.stats().faulted_ns == 0 || handle.stats().faults < 2 {
        std::thread::yield_now();
    }
    assert_eq!(handle.stats().fault_errno, ENOSPC as u64);
    let ring = std::fs::read(dir.path().join("ring.buf")).unwrap();
    assert_eq!(ring[272..276], ENOSPC.to_le_bytes(), "for all to see");
    disk.mend();
    let (_ring, count) = guest.join().unwrap();
    assert_eq!(count, 5_001);
    let summary = handle.finish().unwrap();
    assert_eq!((summary.last_seq, summary.stats.fault_errno, summary.stats.records_lost), (Some(5_000), 0, 0));
    assert!(read_log(dir.path()) == samples(5_001));
}

#[test]
fn a_disk_that_fails_for_too_long_stops_the_guest() {
    let dir = scratch();
    let disk = Disk::failing(Plan::new(5, usize::MAX, EIO));
    let wait_max = Some(Duration::from_millis(50));
    let (ring, handle) = start(LogConfig { wait_max, ..eager(dir.path()) }, &disk);
    let (_ring, count) = append_until_waiting(ring, &handle).join().unwrap();
    let failure = handle.failure().unwrap().to_string();
    assert!(failure.contains("Input/output error"), "{failure}");
    assert!(handle.finish().is_err());
    // What the ring has is not lost.
    assert_prefix_of(dir.path(), count, "afterwards");
}

#[test]
fn a_guest_that_waits_can_be_ended() {
    let dir = scratch();
    let cancel = Arc::new(AtomicBool::new(false));
    let disk = Disk::failing(Plan::new(5, usize::MAX, ENOSPC));
    let config = LogConfig { wait_max: None, ..eager(dir.path()) };
    let (ring, handle) = start_with_storage(config, Arc::clone(&cancel), Box::new(disk)).unwrap();
    let guest = append_until_waiting(ring, &handle);
    cancel.store(true, Ordering::Relaxed);
    let (_ring, count) = guest.join().unwrap();
    assert!(matches!(handle.finish(), Err(LogError::Io { .. })));
    assert_prefix_of(dir.path(), count, "afterwards");
}

#[test]
fn what_is_lost_with_a_failed_sync_is_noticed() {
    let dir = scratch();
    // Behind those of the header and of the directories.
    let disk = Disk::failing(Plan { syncs_only: true, ..Plan::new(6, usize::MAX, EIO) });
    let (mut ring, handle) = start(eager(dir.path()), &disk);
    for i in 0..40 {
        sample(i).append_to(&mut ring).unwrap();
    }
    while handle.stats().next_seq_written < 40 || handle.stats().fault_errno == 0 {
        std::thread::yield_now();
    }
    // The pages that could not be written are dropped: reads get what the medium has.
    let path = dir.path().join("000000.tcl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    disk.mend();
    let result = handle.finish();
    let Err(LogError::Corrupt { offset: 64, seq: None, .. }) = result else { panic!("{result:?}") };
}
