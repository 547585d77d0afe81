//! A writer that seals by age, and one that is told to wait.

mod support;

use std::path::Path;
use std::time::Duration;
use support::{read_log, sample, samples, small_config, start};
use timecraft_log::LogConfig;

fn is_sealed(dir: &Path, number: u32) -> bool {
    let bytes = std::fs::read(dir.join(format!("{number:06}.tcl"))).unwrap_or_default();
    bytes.len() > 64 && bytes[bytes.len() - 64..].starts_with(b"TCLF")
}

fn wait_for(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_segment_with_records_is_sealed_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { seal_age: Some(Duration::from_millis(50)), ..small_config(dir.path()) };
    let (mut ring, handle) = start(config);
    for number in 0..3 {
        sample(u64::from(number)).append_to(&mut ring).unwrap();
        wait_for(|| is_sealed(dir.path(), number));
    }
    assert_eq!(handle.stats().segments, 3, "nothing is sealed that nothing is in");
    drop(ring);
    handle.finish().unwrap();
    assert!(read_log(dir.path()) == samples(3));
}

#[test]
fn a_segment_without_a_bound_on_its_age_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, handle) = start(LogConfig { flush_interval: Duration::from_millis(1), ..small_config(dir.path()) });
    sample(0).append_to(&mut ring).unwrap();
    wait_for(|| handle.stats().records == 1);
    assert!(!is_sealed(dir.path(), 0));
    handle.finish().unwrap();
    assert!(is_sealed(dir.path(), 0));
}

/// A guest that appends until its ring is full, while the writer is held.
fn held_guest(dir: &Path, count: u64) -> (timecraft_log::LogWriterHandle, std::thread::JoinHandle<()>) {
    let (mut ring, handle) = start(small_config(dir));
    handle.hold(true);
    let guest = std::thread::spawn(move || {
        for number in 0..count {
            sample(number).append_to(&mut ring).unwrap();
        }
    });
    wait_for(|| handle.stats().stalls > 0);
    (handle, guest)
}

#[test]
fn a_held_writer_makes_the_guest_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, guest) = held_guest(dir.path(), 5000);
    let before = handle.stats().records;
    assert!(!guest.is_finished());
    handle.hold(false);
    guest.join().unwrap();
    assert!(before < 5000);
    handle.finish().unwrap();
    assert!(read_log(dir.path()) == samples(5000));
}

#[test]
fn a_guest_that_is_to_end_is_not_held() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, guest) = held_guest(dir.path(), 5000);
    handle.release();
    handle.hold(true);
    guest.join().unwrap();
    handle.finish().unwrap();
    assert!(read_log(dir.path()) == samples(5000));
}

#[test]
fn the_end_of_a_log_is_not_held() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, handle) = start(small_config(dir.path()));
    handle.hold(true);
    for record in samples(10) {
        record.append_to(&mut ring).unwrap();
    }
    drop(ring);
    handle.finish().unwrap();
    assert!(read_log(dir.path()) == samples(10));
}
