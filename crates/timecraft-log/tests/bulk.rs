//! Large records that arrive faster than they are written: bulk writes past the page cache.

mod support;

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use support::{PROCESS, Record, read_log, run_and_kill, sample, start};
use timecraft_log::{
    AppendError, DIRECT_ALIGN, DirStorage, DirectFile, LogConfig, LogError, LogReader, LogWriterHandle, OnFull,
    RecoveryReport, RingWriter, SegmentFile, SegmentReader, Storage, recover, start_with_storage,
};

const DIR_VARIABLE: &str = "TIMECRAFT_LOG_BULK_KILL_DIR";
const KILLS: u64 = 12;
/// Records that the process which is killed writes again and again.
const LOOP: u64 = 60;

fn config(dir: &Path) -> LogConfig {
    LogConfig { ring_bytes: 1 << 20, segment_bytes_max: 3_000_000, ..LogConfig::new(dir, PROCESS) }
}

/// The `i`th of a sequence of records, most of them large, of any length, and incompressible.
fn large(i: u64) -> Record {
    if i % 5 == 4 {
        return sample(i);
    }
    let mut state = i;
    let words = (0..8_192 + i * 37 % 1_100).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ state >> 29).to_le_bytes()
    });
    let mut noise: Vec<u8> = words.collect();
    noise.extend(std::iter::repeat_n(1, (i % 9) as usize));
    Record { written: vec![(4096, noise), (64, vec![1, 0, 0, 0])], ..sample(i) }
}

fn append(ring: &mut RingWriter, range: std::ops::Range<u64>) {
    for i in range {
        assert_eq!(large(i).append_to(ring), Ok(i));
    }
}

fn assert_log(dir: &Path, count: u64) {
    let records = read_log(dir);
    assert_eq!(records.len() as u64, count);
    assert!(records.iter().zip(0..).all(|(record, i)| *record == large(i)));
}

/// Files with slow ordinary writes, so that records pile up, and direct ones that check what they are given.
#[derive(Clone)]
struct BulkStorage {
    /// Bytes until a write fails, of either kind.
    bytes_left: Arc<AtomicU64>,
    /// Bytes until a direct write fails.
    direct_left: Arc<AtomicU64>,
    error: io::ErrorKind,
    direct_bytes: Arc<AtomicU64>,
    /// Whether direct writes are the file's own, where it has any.
    real: bool,
}

impl BulkStorage {
    fn new(bytes_left: u64, direct_left: u64, error: io::ErrorKind) -> Self {
        let count = |count| Arc::new(AtomicU64::new(count));
        Self {
            bytes_left: count(bytes_left),
            direct_left: count(direct_left),
            error,
            direct_bytes: count(0),
            real: false,
        }
    }

    fn take(&self, counter: &AtomicU64, wanted: usize) -> io::Result<usize> {
        let left = counter.load(Ordering::SeqCst) as usize;
        if left == 0 {
            return Err(self.error.into());
        }
        counter.fetch_sub(left.min(wanted) as u64, Ordering::SeqCst);
        Ok(left.min(wanted))
    }

    fn file(&self, path: &Path, inner: Box<dyn SegmentFile>) -> Box<dyn SegmentFile> {
        Box::new(BulkFile { inner, path: path.to_owned(), storage: self.clone() })
    }
}

impl Storage for BulkStorage {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(self.file(path, DirStorage.create(path)?))
    }

    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(self.file(path, DirStorage.open(path, len)?))
    }
}

struct BulkFile {
    inner: Box<dyn SegmentFile>,
    path: PathBuf,
    storage: BulkStorage,
}

impl SegmentFile for BulkFile {
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        thread::sleep(Duration::from_millis(1));
        let first = parts.iter().find(|part| !part.is_empty()).unwrap();
        let len = self.storage.take(&self.storage.bytes_left, first.len())?;
        self.inner.write_vectored(&[IoSlice::new(&first[..len])])
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn direct(&mut self, offset: u64, room: u64) -> Option<Arc<dyn DirectFile>> {
        assert!(offset.is_multiple_of(DIRECT_ALIGN as u64) && room > 0);
        if let (true, Some(direct)) = (self.storage.real, self.inner.direct(offset, room)) {
            return Some(direct);
        }
        let file = File::options().write(true).open(&self.path).unwrap();
        Some(Arc::new(CheckedDirect(file, self.storage.clone())))
    }
}

struct CheckedDirect(File, BulkStorage);

impl DirectFile for CheckedDirect {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let Self(file, storage) = self;
        assert!(offset.is_multiple_of(DIRECT_ALIGN as u64), "{offset}");
        assert!(bytes.len().is_multiple_of(DIRECT_ALIGN), "{}", bytes.len());
        assert!(bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGN));
        assert_eq!(file.metadata()?.len(), offset, "neither a hole nor a byte twice");
        storage.take(&storage.direct_left, bytes.len())?;
        let len = storage.take(&storage.bytes_left, bytes.len())?;
        let len = if len == bytes.len() { len.min(32 << 10) } else { len & !(DIRECT_ALIGN - 1) };
        storage.direct_bytes.fetch_add(len as u64, Ordering::SeqCst);
        FileExt::write_at(file, &bytes[..len], offset)
    }
}

fn start_bulk(config: LogConfig, storage: &BulkStorage) -> (RingWriter, LogWriterHandle) {
    start_with_storage(config, Arc::default(), Box::new(storage.clone())).unwrap()
}

const NO_LIMIT: u64 = u64::MAX / 2;

/// Recovers a log that nobody writes any more. Between fork and exec, a child that another test starts holds all
/// descriptors of this process, the lock among them: that passes.
fn recovered(dir: &Path) -> RecoveryReport {
    loop {
        match recover(dir) {
            Err(LogError::Busy(_)) => thread::yield_now(),
            report => return report.unwrap(),
        }
    }
}

#[test]
fn large_and_small_records_of_every_alignment_go_in_bulk() {
    let dir = tempfile::tempdir().unwrap();
    let storage = BulkStorage::new(NO_LIMIT, NO_LIMIT, io::ErrorKind::Other);
    let (mut ring, handle) = start_bulk(config(dir.path()), &storage);
    append(&mut ring, 0..400);
    let summary = handle.finish().unwrap();
    assert_eq!((summary.last_seq, summary.stats.records), (Some(399), 400));
    assert!(storage.direct_bytes.load(Ordering::SeqCst) > summary.stats.bytes_stored / 2);
    assert_log(dir.path(), 400);
    let reader = LogReader::open(dir.path()).unwrap();
    assert!(reader.segments().len() > 5);
    for info in reader.segments() {
        // Footers are found from the end of the file: nothing that was allocated ahead is left.
        assert!(SegmentReader::open(&info.path).unwrap().info().sealed);
    }
}

#[test]
fn files_take_bulk_writes_or_refuse_them() {
    for parent in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let (mut ring, handle) = start(config(dir.path()));
        append(&mut ring, 0..300);
        handle.finish().unwrap();
        assert_log(dir.path(), 300);
        assert_eq!(recovered(dir.path()).bytes_cut, 0);
    }
}

#[test]
fn what_a_direct_write_refuses_is_written_otherwise() {
    for (direct_left, error) in [(0, io::ErrorKind::InvalidInput), (400_000, io::ErrorKind::Other)] {
        let dir = tempfile::tempdir().unwrap();
        let storage = BulkStorage::new(NO_LIMIT, direct_left, error);
        let (mut ring, handle) = start_bulk(config(dir.path()), &storage);
        append(&mut ring, 0..150);
        assert_eq!(handle.finish().unwrap().last_seq, Some(149));
        assert_log(dir.path(), 150);
    }
}

#[test]
fn a_disk_that_fills_in_bulk_stops_the_guest_and_loses_nothing() {
    for bytes_left in [300_000, 1_234_567, 5_000_001] {
        let dir = tempfile::tempdir().unwrap();
        let storage = BulkStorage::new(bytes_left, NO_LIMIT, io::ErrorKind::StorageFull);
        let (mut ring, handle) = start_bulk(config(dir.path()), &storage);
        let result = (0..).find_map(|i| large(i).append_to(&mut ring).err().map(|error| (i, error)));
        let (count, error) = result.unwrap();
        assert_eq!(error, AppendError::WriterFailed);
        assert!(handle.finish().unwrap_err().is_full());
        let report = recovered(dir.path());
        assert_eq!((report.last_seq, report.ring_records_unusable), (count.checked_sub(1), false));
        assert_log(dir.path(), count);
    }
}

#[test]
fn a_loss_in_bulk_is_on_record() {
    for (bytes_left, log_bytes_max) in [(2_222_222, None), (NO_LIMIT, Some(2_222_222))] {
        let dir = tempfile::tempdir().unwrap();
        let storage = BulkStorage::new(bytes_left, NO_LIMIT, io::ErrorKind::StorageFull);
        let config = LogConfig { on_full: OnFull::Continue, log_bytes_max, ..config(dir.path()) };
        let (mut ring, handle) = start_bulk(config, &storage);
        append(&mut ring, 0..200);
        let summary = handle.finish().unwrap();
        let kept = summary.first_lost_seq.unwrap();
        assert_eq!((summary.last_seq, summary.stats.records), (kept.checked_sub(1), kept));
        assert_eq!(summary.stats.records_lost, 200 - kept);
        assert_log(dir.path(), kept);
    }
}

#[test]
fn a_log_can_be_followed_in_bulk() {
    let dir = tempfile::tempdir().unwrap();
    let storage = BulkStorage::new(NO_LIMIT, NO_LIMIT, io::ErrorKind::Other);
    let (mut ring, handle) = start_bulk(config(dir.path()), &storage);
    append(&mut ring, 0..1);
    while handle.stats().next_seq_written < 1 {
        thread::yield_now();
    }
    let mut reader = LogReader::open(dir.path()).unwrap();
    let guest = thread::spawn(move || append(&mut ring, 1..300));
    // Without `finish`: the last ones come by the interval.
    for seen in 0..300 {
        loop {
            if let Some(view) = reader.next().unwrap() {
                assert!(Record::of(&view) == large(seen), "{seen}");
                break;
            }
            thread::yield_now();
        }
    }
    guest.join().unwrap();
    handle.finish().unwrap();
    assert!(storage.direct_bytes.load(Ordering::SeqCst) > 0);
}

#[test]
fn an_abandoned_bulk_write_is_recovered() {
    for count in [10, 40, 100] {
        let dir = tempfile::tempdir().unwrap();
        let storage = BulkStorage::new(NO_LIMIT, NO_LIMIT, io::ErrorKind::Other);
        let (mut ring, handle) = start_bulk(config(dir.path()), &storage);
        append(&mut ring, 0..count);
        drop(handle);
        assert_eq!(recovered(dir.path()).last_seq, Some(count - 1));
        assert_log(dir.path(), count);
    }
}

/// Not a test of its own: the process that `a_process_killed_in_bulk_loses_no_record` kills.
#[test]
#[ignore = "run by the other test as a process"]
fn appends_in_bulk_for_ever() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let storage = BulkStorage { real: true, ..BulkStorage::new(NO_LIMIT, NO_LIMIT, io::ErrorKind::Other) };
    let (mut ring, _handle) = start_bulk(config(Path::new(&dir)), &storage);
    let records: Vec<Record> = (0..LOOP).map(large).collect();
    let mut out = std::io::stdout().lock();
    loop {
        let seq = records[(ring.next_seq() % LOOP) as usize].append_to(&mut ring).expect("appended");
        writeln!(out, "\nseq {seq}").expect("reported");
    }
}

#[test]
fn a_process_killed_in_bulk_loses_no_record() {
    let dir = tempfile::tempdir().unwrap();
    for kill in 0..KILLS {
        let reported = run_and_kill("appends_in_bulk_for_ever", DIR_VARIABLE, dir.path(), 1 + kill * 41 % 150);
        let report = recovered(dir.path());
        assert!(report.last_seq >= Some(reported), "kill {kill}: {report:?}, reported {reported}");
        assert!(!report.ring_records_unusable, "kill {kill}");
    }
    let records: Vec<Record> = (0..LOOP).map(large).collect();
    assert!(read_log(dir.path()).iter().zip(records.iter().cycle()).all(|(found, record)| found == record));
}
