//! A ring takes the memory that its guest needs, and makes do with what there is, on a tmpfs smaller than the ring.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{PROCESS, Record, no_regions, read_log, sample, samples, start};
use timecraft_log::{AppendError, Head, LogConfig, LogError, LogWriterHandle, OnFull, RingWriter};

const DIR_VARIABLE: &str = "TIMECRAFT_LOG_MEMORY_DIR";
const RING_BYTES: usize = 8 << 20;
const ENOSPC: u64 = 28;
/// Mounts a tmpfs that only this process and its children see.
const IN_LITTLE_MEMORY: &str = r#"mount -t tmpfs -o size=1m none "$0"; exec "$@""#;

fn config(dir: &Path, on_full: OnFull) -> LogConfig {
    let ring_path = Some(dir.join("memory").join("ring"));
    LogConfig { ring_path, ring_bytes: RING_BYTES, on_full, ..LogConfig::new(dir.join("log"), PROCESS) }
}

fn append_large(ring: &mut RingWriter, len: usize) -> Result<u64, AppendError> {
    let data = vec![7; len];
    ring.append(&Head { call: 1, errno: 0, time_ns: 0 }, &[], no_regions(), [(0, &data[..])].into_iter())
}

#[test]
fn a_ring_has_memory_where_its_guest_has_been() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(dir.path().join("memory")).unwrap();
    let (mut ring, handle) = start(config(dir.path(), OnFull::Stop));
    let file = std::fs::metadata(dir.path().join("memory/ring")).unwrap();
    assert_eq!(file.len(), (RING_BYTES + (64 << 10)) as u64);
    let taken = || std::fs::metadata(dir.path().join("memory/ring")).unwrap().blocks() * 512;
    append_large(&mut ring, 64 << 10).unwrap();
    while handle.stats().next_seq_written == 0 {
        std::thread::yield_now();
    }
    assert!(taken() <= 320 << 10, "{}", taken());
    for _ in 0..10 {
        append_large(&mut ring, 3 << 20).unwrap();
    }
    assert!(taken() >= RING_BYTES as u64, "{}", taken());
    assert_eq!(handle.finish().unwrap().last_seq, Some(10));
}

/// Runs a test of this file with a tmpfs of 1 MiB in place of `memory`.
fn run_in_little_memory(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let memory = dir.path().join("memory");
    std::fs::create_dir(&memory).unwrap();
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-euc", IN_LITTLE_MEMORY])
        .arg(&memory)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(DIR_VARIABLE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "failed, or unshare(1) may not make a mount namespace here: {said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test of that name");
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIR_VARIABLE).map(PathBuf::from)
}

#[test]
fn a_ring_goes_on_with_the_memory_it_has() {
    run_in_little_memory("goes_on_with_the_memory_it_has");
}

#[test]
#[ignore = "run by the other test as a process"]
fn goes_on_with_the_memory_it_has() {
    let Some(dir) = directory() else { return };
    let (mut ring, handle) = start(config(&dir, OnFull::Stop));
    let count = 200_000;
    for i in 0..count {
        assert_eq!(sample(i).append_to(&mut ring), Ok(i), "{:?}", handle.failure());
    }
    let summary = handle.finish().unwrap();
    assert!(summary.stats.bytes_raw > 2 * RING_BYTES as u64, "twice around: {}", summary.stats.bytes_raw);
    assert!(read_log(&dir.join("log")) == samples(count));
}

#[test]
fn without_memory_for_a_record_the_guest_waits_or_stops() {
    run_in_little_memory("waits_or_stops");
}

#[test]
#[ignore = "run by the other test as a process"]
fn waits_or_stops() {
    let Some(dir) = directory() else { return };
    let other = dir.join("memory").join("other");
    std::fs::write(&other, vec![1; 512 << 10]).unwrap();
    let (mut ring, handle) = start(config(&dir, OnFull::Stop));
    assert_eq!(append_large(&mut ring, 1000), Ok(0));
    assert_eq!(append_large(&mut ring, 700 << 10), Err(AppendError::WriterFailed));
    assert_full(&handle);
    drop(handle); // what was appended is recovered
    drop(ring);
    let (mut ring, handle) = start(config(&dir, OnFull::Wait));
    assert_eq!(ring.next_seq(), 1);
    let guest = std::thread::spawn(move || append_large(&mut ring, 700 << 10));
    while handle.stats().fault_errno != ENOSPC {
        std::thread::yield_now();
    }
    std::fs::remove_file(other).unwrap();
    assert_eq!(guest.join().unwrap(), Ok(1));
    assert_eq!(handle.finish().unwrap().stats.fault_errno, 0);
    let sizes: Vec<usize> = read_log(&dir.join("log")).iter().map(|record: &Record| record.sent[0].1.len()).collect();
    assert_eq!(sizes, [1000, 700 << 10]);
}

fn assert_full(handle: &LogWriterHandle) {
    let failure = handle.failure().unwrap();
    assert!(matches!(failure, LogError::Io { op: "allocate", .. }) && failure.is_full(), "{failure}");
}
