//! Flipped bits in what lies beside the segments: the header of a ring that was left, and the mark of loss.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Record, read_log, sample, samples, small_config, start, write_log};
use timecraft_log::{LogConfig, LogError, Ring, recover, verify};

const COUNT: u64 = 60;
/// What is read of a header when a log is recovered; behind it, up to a page, is where the log lies.
const HEADER_READ: usize = 512;
const HEADER_USED: usize = 4096;
const VERSION_AT: usize = 4;
const HEAD_CHECK_AT: usize = 136;

/// The files of a log that was left with its first records in a segment, and the last ones in its ring alone.
fn left_behind() -> (tempfile::TempDir, Vec<(PathBuf, Vec<u8>)>) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (mut ring, handle) = start(LogConfig { flush_interval: Duration::from_secs(9), ..small_config(dir.path()) });
    for i in 0..COUNT {
        sample(i).append_to(&mut ring).unwrap();
    }
    while handle.stats().next_seq_written == 0 {
        std::thread::yield_now();
    }
    drop(handle);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        files.push((path.clone(), std::fs::read(path).unwrap()));
    }
    (dir, files)
}

fn restore(dir: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for entry in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (path, bytes) in files {
        std::fs::write(path, bytes).unwrap();
    }
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_of_a_ring_is_told_or_harmless() {
    let (dir, files) = left_behind();
    let ring = dir.path().join("ring.buf");
    let expected = samples(COUNT);
    let mut told = 0;
    for bit in 0..HEADER_READ * 8 {
        restore(dir.path(), &files);
        flip(&ring, bit);
        let context = format!("bit {} of byte {}", bit % 8, bit / 8);
        let Ok(report) = recover(dir.path()) else {
            told += 1;
            assert!(ring.exists(), "{context}: what couldn't be read is left");
            continue;
        };
        let found = read_log(dir.path());
        assert!(found[..] == expected[..found.len()], "{context}");
        let lost_seq = report.ring_records_unusable.then_some(found.len() as u64);
        assert_eq!(report.first_lost_seq, lost_seq, "{context}");
        assert!(found.len() == expected.len() || lost_seq.is_some(), "{context}: silently short");
        told += usize::from(lost_seq.is_some());
    }
    assert!(told >= (64 - 8 + 8) * 8, "at least those of the fixed part and of the position: {told}");
}

#[test]
fn the_rest_of_a_header_is_not_looked_at() {
    let (dir, files) = left_behind();
    let ring = dir.path().join("ring.buf");
    let left = |image: &timecraft_log::RingImage| image.records().map(|view| Record::of(&view)).collect::<Vec<_>>();
    let expected = left(&Ring::open(&ring).unwrap().unwrap());
    for bit in (HEADER_READ * 8..HEADER_USED * 8).step_by(37) {
        restore(dir.path(), &files);
        flip(&ring, bit);
        let image = Ring::open(&ring).unwrap().unwrap();
        assert!(!image.is_damaged() && left(&image) == expected, "bit {bit}");
    }
}

#[test]
fn a_ring_of_the_version_before_is_read() {
    let (dir, files) = left_behind();
    let ring = dir.path().join("ring.buf");
    restore(dir.path(), &files);
    let mut bytes = std::fs::read(&ring).unwrap();
    bytes[VERSION_AT] = 2;
    bytes[HEAD_CHECK_AT..HEAD_CHECK_AT + 8].fill(0);
    bytes[HEADER_READ..HEADER_USED].fill(0);
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&ring, bytes).unwrap();
    let report = recover(dir.path()).unwrap();
    assert!(!report.ring_records_unusable);
    assert!(read_log(dir.path()) == samples(COUNT));
}

#[test]
fn a_producer_that_died_between_its_two_stores_did_no_damage() {
    let (dir, files) = left_behind();
    let ring = dir.path().join("ring.buf");
    let last = Ring::open(&ring).unwrap().unwrap().records().last().map(|view| view.seq());
    assert_eq!(last, Some(COUNT - 1));
    let last_len = sample_len(COUNT - 1);
    restore(dir.path(), &files);
    let mut bytes = std::fs::read(&ring).unwrap();
    let check = u64::from_le_bytes(bytes[HEAD_CHECK_AT..HEAD_CHECK_AT + 8].try_into().unwrap());
    bytes[HEAD_CHECK_AT..HEAD_CHECK_AT + 8].copy_from_slice(&(!(!check - last_len)).to_le_bytes());
    std::fs::write(&ring, bytes).unwrap();
    assert!(!recover(dir.path()).unwrap().ring_records_unusable);
    assert!(read_log(dir.path()) == samples(COUNT));
}

/// What a sample takes in a ring, in bytes: prologue, arguments, a word for each region, and the bytes of all.
fn sample_len(i: u64) -> u64 {
    let record = sample(i);
    let regions = || record.written.iter().chain(&record.sent);
    let bytes: usize = regions().map(|(_, bytes)| bytes.len()).sum();
    ((4 + record.args.len() + regions().count()) * 8 + bytes.next_multiple_of(8)) as u64
}

#[test]
fn a_flipped_bit_of_the_mark_of_loss_is_told() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    write_log(small_config(dir.path()), &samples(10));
    let mark = dir.path().join("lost");
    let blank = std::fs::read(&mark).unwrap();
    let mut set = [b"TCLL", &[0; 4][..], &7u64.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&set[8..]);
    set[4..8].copy_from_slice(&crc.to_le_bytes());
    for (bytes, lost_seq) in [(blank, None), (set, Some(7))] {
        std::fs::write(&mark, &bytes).unwrap();
        assert_eq!(recover(dir.path()).unwrap().first_lost_seq, lost_seq);
        for bit in 0..bytes.len() * 8 {
            std::fs::write(&mark, &bytes).unwrap();
            flip(&mark, bit);
            assert!(matches!(recover(dir.path()), Err(LogError::LostMark(_))), "bit {bit}");
            let found = verify(dir.path(), |_, _| true).unwrap();
            assert_eq!((found.records, found.first_lost_seq), (10, None));
            let gaps: Vec<_> = found.gaps.iter().map(|gap| (gap.first_seq, gap.next_seq)).collect();
            assert_eq!(gaps, [(10, None)], "bit {bit}");
        }
        assert!(read_log(dir.path()) == samples(10), "what is there is good");
    }
}
