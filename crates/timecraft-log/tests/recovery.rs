//! Logs whose host died, whose disk is full, or whose bytes were damaged.

mod support;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{PROCESS, Record, read_all, read_log, sample, samples, small_config, start, write_log};
use timecraft_log::{
    AppendError, CALL_END, Compression, DirStorage, KEEP_ALL, LogConfig, LogError, LogReader, LogWriterHandle, OnFull,
    Output, Reason, RingWriter, SegmentFile, Storage, digest_sent, recover, start_with_storage, verify,
};

/// Leaves a log as a killed process would: with `count` records somewhere.
fn leave_log(config: LogConfig, count: u64) {
    let (mut ring, handle) = start(config);
    for i in 0..count {
        assert_eq!(sample(i).append_to(&mut ring), Ok(i));
    }
    drop(handle);
}

#[test]
fn what_was_appended_survives_the_writer() {
    for count in [0, 1, 100, 3_000] {
        let dir = tempfile::tempdir().unwrap();
        leave_log(small_config(dir.path()), count);
        let report = recover(dir.path()).unwrap();
        assert_eq!(report.last_seq, count.checked_sub(1));
        assert!(!report.ended && !report.ring_records_unusable);
        let again = recover(dir.path()).unwrap();
        assert_eq!((again.records_from_ring, again.bytes_cut), (0, 0));
        assert_eq!(again.last_seq, report.last_seq);
        assert!(!dir.path().join("ring").exists() && !dir.path().join("ring.buf").exists());
        if count > 0 {
            assert!(read_log(dir.path()) == samples(count));
        }
    }
}

#[test]
fn what_is_recovered_is_digested_alike() {
    let records: Vec<Record> =
        (0..3).map(|call| Record { call, sent: vec![(8, vec![1; 100]), (300, vec![2; 100])], ..sample(0) }).collect();
    // The first is all payload, the second keeps a region, the third keeps all.
    let kept = |call| [0, 1, KEEP_ALL][usize::from(call)];
    let mut found = Vec::new();
    for flush_interval in [Duration::from_millis(1), Duration::from_secs(9)] {
        let dir = tempfile::tempdir().unwrap();
        let config = LogConfig { output: Output::Digest, kept, flush_interval, ..small_config(dir.path()) };
        let (mut ring, handle) = start(config);
        for record in &records {
            record.append_to(&mut ring).unwrap();
        }
        if flush_interval < Duration::from_secs(1) {
            handle.finish().unwrap();
        } else {
            drop(handle);
        }
        recover(dir.path()).unwrap();
        found.push(read_log(dir.path()));
    }
    assert_eq!(found[0], found[1]);
    let sent: Vec<_> = found[0].iter().map(|record| record.sent.clone()).collect();
    let digest = |sent: &[(u32, Vec<u8>)]| {
        let (digest, bytes) = digest_sent(sent.iter().map(|(ptr, bytes)| (*ptr, &bytes[..])));
        (bytes as u32, digest.to_vec())
    };
    let whole = &records[0].sent;
    assert_eq!(sent, [vec![digest(whole)], vec![whole[0].clone(), digest(&whole[1..])], whole.clone()]);
}

#[test]
fn a_restart_recovers_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for from in [0, 500, 1_000] {
        let (mut ring, handle) = start(small_config(dir.path()));
        for i in from..from + 500 {
            assert_eq!(sample(i).append_to(&mut ring), Ok(i));
        }
        drop(handle);
    }
    recover(dir.path()).unwrap();
    assert!(read_log(dir.path()) == samples(1_500));
}

#[test]
fn an_end_record_tells_an_exit_from_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, handle) = start(small_config(dir.path()));
    sample(0).append_to(&mut ring).unwrap();
    Record { call: CALL_END, ..sample(1) }.append_to(&mut ring).unwrap();
    drop(handle);
    assert!(recover(dir.path()).unwrap().ended);
    assert!(recover(dir.path()).unwrap().ended);
    write_log(small_config(dir.path()), &[sample(2)]);
    assert!(!recover(dir.path()).unwrap().ended, "another epoch came after");
}

/// Overwrites a field in the header of the ring's file.
fn patch_ring(path: &Path, at: usize, field: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

const RING_BOOT_ID_AT: usize = 32;
const RING_TAIL_AT: usize = 256;

fn wait_until_written(handle: &LogWriterHandle, next_seq: u64) {
    while handle.stats().next_seq_written < next_seq {
        std::thread::yield_now();
    }
}

#[test]
fn records_both_in_a_segment_and_in_the_ring_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let flush_interval = Duration::ZERO;
    let (mut ring, handle) = start(LogConfig { flush_interval, ..small_config(dir.path()) });
    for i in 0..100 {
        sample(i).append_to(&mut ring).unwrap();
    }
    wait_until_written(&handle, 100);
    drop(handle);
    // As if it had been killed between the write and the release.
    patch_ring(&dir.path().join("ring.buf"), RING_TAIL_AT, &[0; 8]);
    let report = recover(dir.path()).unwrap();
    assert_eq!((report.records_from_ring, report.last_seq), (0, Some(99)));
    assert_eq!(read_log(dir.path()), samples(100));
}

#[test]
fn a_ring_from_before_a_reboot_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    leave_log(LogConfig { flush_interval: Duration::from_secs(9), ..small_config(dir.path()) }, 3);
    patch_ring(&dir.path().join("ring.buf"), RING_BOOT_ID_AT, &[9; 16]);
    assert_eq!(recover(dir.path()).unwrap().last_seq, None);
}

#[test]
fn a_missing_or_torn_ring_is_no_obstacle() {
    for torn in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        write_log(small_config(dir.path()), &samples(10));
        let ring = dir.path().join("ring.buf");
        std::fs::write(dir.path().join("ring"), ring.as_os_str().as_encoded_bytes()).unwrap();
        if torn {
            std::fs::write(&ring, [0; 100]).unwrap();
        }
        assert_eq!(recover(dir.path()).unwrap().last_seq, Some(9));
        assert!(!ring.exists());
    }
}

/// A directory with the one segment `bytes`.
fn dir_with(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(dir.path().join("000000.tcl"), bytes).unwrap();
    dir
}

fn small_segment(compression: Compression, count: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write_log(LogConfig { compression, ..small_config(dir.path()) }, &samples(count));
    std::fs::read(dir.path().join("000000.tcl")).unwrap()
}

fn assert_prefix(found: &[(u64, Record)], of: &[Record], context: &str) {
    assert!(found.len() <= of.len(), "{context}");
    for ((seq, record), i) in found.iter().zip(0..) {
        assert_eq!((*seq, record), (i, &of[i as usize]), "{context}");
    }
}

#[test]
fn a_flipped_bit_is_detected_or_harmless() {
    let count = 60;
    let bytes = small_segment(Compression::Lz4, count);
    let records = samples(count);
    let mut detected = 0;
    let dir = dir_with(&bytes);
    for bit in 0..bytes.len() * 8 {
        let (at, mut damaged) = (bit / 8, bytes.clone());
        damaged[at] ^= 1 << (bit % 8);
        std::fs::write(dir.path().join("000000.tcl"), damaged).unwrap();
        let context = format!("bit {} of byte {at} of {}", bit % 8, bytes.len());
        let Ok(mut reader) = LogReader::open(dir.path()) else {
            detected += 1;
            continue;
        };
        let (found, error) = read_all(&mut reader);
        assert_prefix(&found, &records, &context);
        assert!(error.is_some() || found.len() == records.len(), "{context}: silently short");
        detected += usize::from(error.is_some());
    }
    // All but those in index and footer, which a scan replaces.
    let tail = 8 + LogReader::open(dir_with(&bytes).path()).unwrap().blocks().count() * 32 + 64;
    assert!(detected >= (bytes.len() - tail) * 8, "{detected} of {}", bytes.len() * 8);
}

#[test]
fn a_truncated_segment_yields_its_prefix_and_can_be_continued() {
    let count = 60;
    let bytes = small_segment(Compression::None, count);
    let records = samples(count);
    let mut last_len = 0;
    for len in 0..bytes.len() {
        let dir = dir_with(&bytes[..len]);
        let context = format!("{len} bytes of {}", bytes.len());
        if len >= 64 {
            let (found, error) = read_all(&mut LogReader::open(dir.path()).unwrap());
            assert!(error.is_none(), "{context}: {error:?}");
            assert_prefix(&found, &records, &context);
            assert!(found.len() >= last_len, "{context}");
            last_len = found.len();
        }
        if len % 7 == 0 {
            let report = recover(dir.path()).unwrap();
            let left = report.last_seq.map_or(0, |seq| seq + 1);
            assert_eq!(left as usize, last_len, "{context}");
            write_log(small_config(dir.path()), &records[last_len..]);
            assert_eq!(read_log(dir.path()), records, "{context}");
        }
    }
    assert_eq!(last_len, records.len());
}

/// Number of the first record that is left out, and of the one behind the last.
type Gap = (u64, Option<u64>);

/// What is left out, and what is left.
fn read_around(dir: &Path) -> (Vec<Gap>, Vec<(u64, Record)>) {
    let mut reader = LogReader::open_damaged(dir).unwrap();
    let (found, error) = read_all(&mut reader);
    assert!(error.is_none(), "{error:?}");
    let verified = verify(dir, |done, all| done <= all).unwrap();
    assert_eq!(verified.records, found.len() as u64);
    let gaps = reader.gaps().iter().map(|gap| (gap.first_seq, gap.next_seq)).collect();
    assert_eq!(verified.gaps.iter().map(|gap| (gap.first_seq, gap.next_seq)).collect::<Vec<_>>(), gaps);
    (gaps, found)
}

#[test]
fn damage_can_be_skipped_and_what_is_left_out_is_told() {
    let whole = tempfile::tempdir().unwrap();
    write_log(small_config(whole.path()), &samples(3_000));
    let blocks: Vec<_> = LogReader::open(whole.path()).unwrap().blocks().map(Result::unwrap).collect();
    let segments: Vec<_> = LogReader::open(whole.path()).unwrap().segments().to_vec();
    assert!(segments.len() > 3 && blocks.len() > 20);
    assert_eq!(read_around(whole.path()).0, []);
    let name = |segment: u32| format!("{segment:06}.tcl");
    let last = blocks.len() - 1;
    for at in [0, 1, 2, last / 2, last - 1, last] {
        for byte in [3, 30, 90] {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            for segment in &segments {
                std::fs::copy(&segment.path, dir.path().join(segment.path.file_name().unwrap())).unwrap();
            }
            let block = &blocks[at];
            let path = dir.path().join(name(block.segment));
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[block.offset as usize + byte] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            let next_seq = (at < last).then(|| block.last_seq() + 1);
            let (gaps, found) = read_around(dir.path());
            assert_eq!(gaps, [(block.base_seq, next_seq)], "block {at}, byte {byte}");
            let is_left = |seq: u64| !(block.base_seq..=block.last_seq()).contains(&seq);
            let expected: Vec<_> = (0..3_000).filter(|seq| is_left(*seq)).map(|seq| (seq, sample(seq))).collect();
            assert!(found == expected, "block {at}, byte {byte}");
        }
    }
    // A segment that is gone, one whose header is damaged, and one that is cut off.
    for gone in 0..2u32 {
        for how in 0..3 {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            for segment in &segments {
                let bytes = std::fs::read(&segment.path).unwrap();
                let target = dir.path().join(segment.path.file_name().unwrap());
                match how {
                    _ if segment.start.number != gone => std::fs::write(target, bytes).unwrap(),
                    0 => {}
                    1 => std::fs::write(target, [&[0; 64], &bytes[64..]].concat()).unwrap(),
                    _ => std::fs::write(target, &bytes[..bytes.len() / 2]).unwrap(),
                }
            }
            let (gaps, found) = read_around(dir.path());
            let (first, next) = (&segments[gone as usize].start, segments[gone as usize + 1].start.base_seq);
            if gone == 0 && how == 0 {
                assert_eq!((gaps, found[0].0), (vec![], next), "old segments may have been deleted");
                continue;
            }
            assert_eq!(gaps.len(), 1, "{gaps:?}");
            assert!(gaps[0].0 >= first.base_seq && gaps[0].1 == Some(next), "{gaps:?}");
            assert!(how == 2 || gaps[0].0 == first.base_seq, "{gaps:?}");
            assert!(found.iter().all(|(seq, record)| *record == sample(*seq)));
        }
    }
}

#[test]
fn damage_is_reported_with_its_place() {
    let bytes = small_segment(Compression::None, 60);
    let second_block = 64 + 80 + u32::from_le_bytes(bytes[72..76].try_into().unwrap()) as usize;
    let mut damaged = bytes.clone();
    damaged[second_block + 100] ^= 1;
    let dir = dir_with(&damaged);
    let (found, error) = read_all(&mut LogReader::open(dir.path()).unwrap());
    let Some(LogError::Corrupt { path, offset, seq, reason }) = error else { panic!("{error:?}") };
    assert_eq!(path, dir.path().join("000000.tcl"));
    assert_eq!((offset, reason), (second_block as u64, Reason::CorruptCrc));
    assert_eq!(seq, found.last().map(|(seq, _)| *seq));
    let message = LogError::Corrupt { path, offset, seq, reason }.to_string();
    assert!(message.contains("000000.tcl at offset") && message.contains("corrupt crc"), "{message}");
}

/// Overwrites a field in a segment's index or footer, and makes the checksums match.
fn forge_tail(bytes: &mut [u8], at: usize, field: &[u8]) {
    let footer = bytes.len() - 64;
    let index = u64::from_le_bytes(bytes[footer + 8..footer + 16].try_into().unwrap()) as usize;
    let at = index + at;
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c::crc32c(&bytes[index..footer]);
    bytes[footer + 20..footer + 24].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[footer..footer + 60]);
    bytes[footer + 60..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_made_up_index_is_not_believed() {
    let good = small_segment(Compression::None, 60);
    let footer_at = good.len() - 64 - u64::from_le_bytes(good[good.len() - 56..][..8].try_into().unwrap()) as usize;
    // Offset, number and length of the first entry; offset of the second; number behind the last record.
    for (at, field) in [(8, 65), (16, 1), (32, u64::from(u32::MAX)), (40, 0), (footer_at + 32, 0)] {
        let mut bytes = good.clone();
        let len = if at == 32 { 4 } else { 8 };
        forge_tail(&mut bytes, at, &field.to_le_bytes()[..len]);
        let dir = dir_with(&bytes);
        assert!(read_log(dir.path()) == samples(60), "{at}");
    }
}

#[test]
fn segments_with_wrong_numbers_lead_nobody_in_circles() {
    for (name, number) in [("000000.tcl", u32::MAX), ("000001.tcl", 0), ("000001.tcl", 2)] {
        let dir = tempfile::tempdir().unwrap();
        write_log(small_config(dir.path()), &samples(1_000));
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24..28].copy_from_slice(&number.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let wrong = |error: Option<LogError>| {
            matches!(error, Some(LogError::Corrupt { reason: Reason::Malformed("number of a segment"), .. }))
        };
        assert!(wrong(LogReader::open(dir.path()).err()) && wrong(recover(dir.path()).err()), "{name} says {number}");
    }
}

#[test]
fn a_truncated_segment_in_the_middle_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write_log(small_config(dir.path()), &samples(1_000));
    let first = dir.path().join("000000.tcl");
    let bytes = std::fs::read(&first).unwrap();
    std::fs::write(&first, &bytes[..bytes.len() / 2]).unwrap();
    let (_, error) = read_all(&mut LogReader::open(dir.path()).unwrap());
    assert!(matches!(error, Some(LogError::Corrupt { reason: Reason::Truncated, .. })), "{error:?}");
    assert!(recover(dir.path()).is_err());
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = small_segment(Compression::Lz4, 3);
    bytes[4] = 3;
    let dir = dir_with(&bytes);
    let refused = LogReader::open(dir.path());
    assert!(matches!(refused, Err(LogError::VersionNewer { found: 3, supported: 2, .. })), "{refused:?}");
    assert!(matches!(recover(dir.path()), Err(LogError::VersionNewer { .. })));
}

#[test]
fn a_directory_without_a_log_is_said_to_have_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(LogReader::open(dir.path()), Err(LogError::NoLog(_))));
    assert!(matches!(recover(&dir.path().join("absent")), Err(LogError::NoLog(_))));
    assert_eq!(recover(dir.path()).unwrap().last_seq, None);
}

/// Files that write few bytes at once, and fail once `bytes_left` are written.
#[derive(Clone)]
struct FaultyStorage {
    bytes_left: Arc<AtomicU64>,
    error: io::ErrorKind,
    write_max: usize,
    fail_sync: bool,
}

impl FaultyStorage {
    fn new(bytes_left: u64, error: io::ErrorKind) -> Self {
        Self { bytes_left: Arc::new(AtomicU64::new(bytes_left)), error, write_max: 333, fail_sync: false }
    }
}

struct FaultyFile(Box<dyn SegmentFile>, FaultyStorage);

impl Storage for FaultyStorage {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile(DirStorage.create(path)?, self.clone())))
    }

    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(FaultyFile(DirStorage.open(path, len)?, self.clone())))
    }
}

impl SegmentFile for FaultyFile {
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self(file, faults) = self;
        let left = faults.bytes_left.load(Ordering::Relaxed) as usize;
        let first = parts.iter().find(|part| !part.is_empty()).unwrap();
        let len = first.len().min(faults.write_max).min(left);
        if len == 0 {
            return Err(faults.error.into());
        }
        faults.bytes_left.fetch_sub(len as u64, Ordering::Relaxed);
        file.write_vectored(&[IoSlice::new(&first[..len])])
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.1.fail_sync {
            return Err(self.1.error.into());
        }
        self.0.sync_data()
    }
}

fn start_faulty(config: LogConfig, storage: FaultyStorage) -> (RingWriter, LogWriterHandle) {
    start_with_storage(config, Arc::default(), Box::new(storage)).unwrap()
}

/// Appends until the writer has failed; returns how many appends succeeded.
fn append_until_failure(ring: &mut RingWriter) -> u64 {
    for i in 0.. {
        match sample(i).append_to(ring) {
            Ok(seq) => assert_eq!(seq, i),
            Err(error) => {
                assert_eq!(error, AppendError::WriterFailed);
                return i;
            }
        }
    }
    unreachable!()
}

#[test]
fn short_writes_make_a_whole_log() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FaultyStorage { write_max: 7, ..FaultyStorage::new(u64::MAX / 2, io::ErrorKind::Other) };
    let (mut ring, handle) = start_faulty(small_config(dir.path()), storage);
    for i in 0..500 {
        sample(i).append_to(&mut ring).unwrap();
    }
    handle.finish().unwrap();
    assert_eq!(read_log(dir.path()), samples(500));
}

#[test]
fn a_full_disk_stops_the_guest_and_loses_nothing() {
    for bytes_left in [0, 50, 64, 700, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let storage = FaultyStorage::new(bytes_left, io::ErrorKind::StorageFull);
        let (mut ring, handle) = start_faulty(small_config(dir.path()), storage);
        let count = append_until_failure(&mut ring);
        assert!(handle.failure().unwrap().is_full());
        assert!(handle.finish().unwrap_err().is_full());
        // Once there is room again:
        let report = recover(dir.path()).unwrap();
        assert_eq!(report.last_seq, count.checked_sub(1));
        assert!(read_log(dir.path()) == samples(count));
    }
}

#[test]
fn an_io_error_stops_the_guest_whatever_the_policy() {
    for fail_sync in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let storage = FaultyStorage { fail_sync, ..FaultyStorage::new(9_000, io::ErrorKind::Other) };
        let (mut ring, handle) =
            start_faulty(LogConfig { on_full: OnFull::Continue, ..small_config(dir.path()) }, storage);
        append_until_failure(&mut ring);
        let failure = handle.failure().unwrap();
        assert!(matches!(failure, LogError::Io { .. }) && !failure.is_full(), "{failure}");
    }
}

#[test]
fn a_full_disk_may_let_the_guest_run_on_with_the_loss_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FaultyStorage::new(20_000, io::ErrorKind::StorageFull);
    let (mut ring, handle) = start_faulty(LogConfig { on_full: OnFull::Continue, ..small_config(dir.path()) }, storage);
    let mut count = 0;
    while handle.failure().is_none() || count < 5_000 {
        assert_eq!(sample(count).append_to(&mut ring), Ok(count));
        count += 1;
    }
    assert!(handle.failure().unwrap().is_full());
    let summary = handle.finish().unwrap();
    let kept = summary.first_lost_seq.unwrap();
    assert_eq!(summary.last_seq, Some(kept - 1));
    assert_eq!(summary.stats.records_lost, count - kept);
    assert!(read_log(dir.path()) == samples(kept));
    assert_eq!(LogReader::open(dir.path()).unwrap().first_lost_seq().unwrap(), Some(kept));
    assert_eq!(recover(dir.path()).unwrap().first_lost_seq, Some(kept));
}

#[test]
fn a_loss_ends_with_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FaultyStorage::new(3_000, io::ErrorKind::StorageFull);
    let (mut ring, handle) = start_faulty(LogConfig { on_full: OnFull::Continue, ..small_config(dir.path()) }, storage);
    let mut count = 0;
    while handle.failure().is_none() {
        count = sample(count).append_to(&mut ring).unwrap() + 1;
    }
    drop(handle);
    let kept = recover(dir.path()).unwrap().first_lost_seq.unwrap();
    // There is room again; what follows is recorded, and survives a crash.
    let (mut ring, handle) = start(small_config(dir.path()));
    for i in kept..kept + 5 {
        assert_eq!(sample(i).append_to(&mut ring), Ok(i));
    }
    drop(handle);
    let report = recover(dir.path()).unwrap();
    assert_eq!((report.last_seq, report.first_lost_seq), (Some(kept + 4), Some(kept)));
}

#[test]
fn a_log_keeps_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, handle) = start(LogConfig { log_bytes_max: Some(5_000), ..small_config(dir.path()) });
    append_until_failure(&mut ring);
    assert!(matches!(handle.failure(), Some(LogError::LogFull(5_000))));
    assert!(handle.stats().bytes_stored <= 5_000);
}

/// Files whose writes wait for a message.
struct GatedStorage(Arc<Mutex<Receiver<()>>>);

struct GatedFile(Box<dyn SegmentFile>, Arc<Mutex<Receiver<()>>>);

impl Storage for GatedStorage {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(GatedFile(DirStorage.create(path)?, Arc::clone(&self.0))))
    }

    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(GatedFile(DirStorage.open(path, len)?, Arc::clone(&self.0))))
    }
}

impl SegmentFile for GatedFile {
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // A gate that is gone is open.
        let _ = self.1.lock().unwrap().recv();
        self.0.write_vectored(parts)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[test]
fn a_stalled_disk_makes_the_guest_wait_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let (gate, gated) = channel();
    let storage = Box::new(GatedStorage(Arc::new(Mutex::new(gated))));
    let (mut ring, handle) = start_with_storage(small_config(dir.path()), Arc::clone(&cancel), storage).unwrap();
    let guest = std::thread::spawn(move || {
        let mut count = 0;
        let error = loop {
            match sample(count).append_to(&mut ring) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        (ring, count, error)
    });
    // Nothing is written, so the ring fills and the guest waits, until it is cancelled.
    while handle.stats().stalls == 0 {
        std::thread::yield_now();
    }
    cancel.store(true, Ordering::Relaxed);
    let (mut ring, count, error) = guest.join().unwrap();
    assert_eq!(error, AppendError::Cancelled);
    cancel.store(false, Ordering::Relaxed);
    let guest = std::thread::spawn(move || sample(count).append_to(&mut ring));
    drop(gate);
    assert_eq!(guest.join().unwrap(), Ok(count));
    let summary = handle.finish().unwrap();
    assert!(summary.stats.stalls >= 1, "{:?}", summary.stats);
    assert_eq!(summary.last_seq, Some(count));
    assert!(read_log(dir.path()) == samples(count + 1));
}

#[test]
fn a_ring_elsewhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let fast = tempfile::tempdir_in("/dev/shm").unwrap();
    let ring_path: PathBuf = fast.path().join("ring");
    leave_log(LogConfig { ring_path: Some(ring_path.clone()), ..LogConfig::new(dir.path(), PROCESS) }, 50);
    assert!(ring_path.exists());
    assert_eq!(recover(dir.path()).unwrap().records_from_ring, 50);
    assert!(!ring_path.exists());
    assert_eq!(read_log(dir.path()), samples(50));
}
