//! Logs whose segments are stored elsewhere, all or some.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use support::{PROCESS, read_all, sample, samples, small_config, write_log};
use timecraft_log::{
    FetchError, LogConfig, LogError, LogReader, LogSource, Reason, SEGMENT_FOOTER_LEN, SegmentReader, SegmentStore,
    StoredSegment,
};

/// Another directory, and what was fetched from it: segment, offset, length.
#[derive(Debug)]
struct Elsewhere {
    dir: PathBuf,
    known: Vec<StoredSegment>,
    fetched: Mutex<Vec<(u32, u64, usize)>>,
    lists: Mutex<usize>,
}

impl Elsewhere {
    fn of(dir: &Path) -> Arc<Self> {
        let reader = LogReader::open(dir).unwrap();
        let known = reader.segments().iter().map(|info| StoredSegment {
            start: info.start,
            len: info.len,
            index_offset: info.index_offset,
            next_seq: info.next_seq,
            last_time_ns: info.last_time_ns,
        });
        Self::knowing(dir, known.collect())
    }

    fn knowing(dir: &Path, known: Vec<StoredSegment>) -> Arc<Self> {
        Arc::new(Self { dir: dir.to_owned(), known, fetched: Mutex::default(), lists: Mutex::default() })
    }

    fn source(self: &Arc<Self>, dir: &Path) -> LogSource {
        let store = Some(Arc::clone(self) as Arc<dyn SegmentStore>);
        LogSource { dir: dir.to_owned(), store, next_seq: self.known.last().map(|last| last.next_seq) }
    }

    fn take_fetched(&self) -> Vec<(u32, u64, usize)> {
        std::mem::take(&mut self.fetched.lock().unwrap())
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:06}.tcl"))
    }
}

impl SegmentStore for Elsewhere {
    fn segments(&self) -> Result<Vec<StoredSegment>, FetchError> {
        *self.lists.lock().unwrap() += 1;
        Ok(self.known.clone())
    }

    fn fetch(&self, number: u32, offset: u64, len: usize) -> Result<Vec<u8>, FetchError> {
        self.fetched.lock().unwrap().push((number, offset, len));
        let bytes = fs::read(self.path(number)).map_err(|error| Arc::new(error) as FetchError)?;
        Ok(bytes.into_iter().skip(offset as usize).take(len).collect())
    }

    fn name(&self, number: u32) -> String {
        format!("store:{number}")
    }
}

/// A log of 5,000 records in many segments, and a directory without any of it.
fn stored_log() -> (tempfile::TempDir, tempfile::TempDir, Arc<Elsewhere>) {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_log(small_config(there.path()), &samples(5_000));
    let store = Elsewhere::of(there.path());
    assert!(store.known.len() > 5);
    (there, here, store)
}

#[test]
fn a_stored_log_is_read_as_one_of_files() {
    let (_there, here, store) = stored_log();
    for dir in [here.path(), Path::new("/nonexistent")] {
        let mut reader = LogReader::open(store.source(dir)).unwrap();
        let (found, error) = read_all(&mut reader);
        assert!(error.is_none() && found.len() == 5_000);
        assert!(found.iter().all(|(seq, record)| *record == sample(*seq)));
        assert_eq!(reader.last_seq().unwrap(), Some(4_999));
    }
}

#[test]
fn a_record_is_found_with_two_fetches() {
    let (_there, here, store) = stored_log();
    for seq in (0..5_000).step_by(61) {
        let mut reader = LogReader::open(store.source(here.path())).unwrap();
        reader.seek(seq).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().seq(), seq);
        let fetched = store.take_fetched();
        assert!(fetched.len() == 2, "{fetched:?}");

        let mut reader = LogReader::open(store.source(here.path())).unwrap();
        reader.seek_time((seq * 1_000).saturating_sub(999)).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().seq(), seq);
        let fetched = store.take_fetched();
        assert!(fetched.len() == 2, "{fetched:?}");
    }
}

#[test]
fn who_reads_on_fetches_more_at_once() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = LogConfig { compression: timecraft_log::Compression::None, ..LogConfig::new(there.path(), PROCESS) };
    let mut records = samples(20_000);
    for record in &mut records {
        record.written = vec![(0, vec![7; 600])];
    }
    write_log(config, &records);
    let store = Elsewhere::of(there.path());
    let mut reader = LogReader::open(store.source(here.path())).unwrap();
    assert_eq!(read_all(&mut reader).0.len(), 20_000);
    let fetched = store.take_fetched();
    let (stored, all): (u64, usize) = (store.known[0].len, fetched.iter().map(|(_, _, len)| len).sum());
    assert!(all as u64 <= stored + (160 << 10), "{all} of {stored} bytes");
    assert!(fetched.len() as u64 <= stored / (1 << 20) + 6 && stored > 10 << 20, "{fetched:?}");
    assert!(fetched.iter().all(|(_, _, len)| *len <= 1 << 20));
}

#[test]
fn files_go_before_the_store_which_is_not_asked_for_what_is_here() {
    let (_there, here, store) = stored_log();
    let here_too = |number: u32| here.path().join(format!("{number:06}.tcl"));
    let last = store.known.len() as u32 - 1;
    for kept in [vec![last], vec![0, 2], (0..=last).collect()] {
        for number in &kept {
            fs::copy(store.path(*number), here_too(*number)).unwrap();
        }
        let (found, error) = read_all(&mut LogReader::open(store.source(here.path())).unwrap());
        assert!(error.is_none() && found.len() == 5_000);
        assert!(store.take_fetched().iter().all(|(number, _, _)| !kept.contains(number)));
    }
    assert_eq!(*store.lists.lock().unwrap(), 2);

    // What was a file when the log was opened, and is stored when it is read.
    let mut reader = LogReader::open(store.source(here.path())).unwrap();
    (1..=last).for_each(|number| fs::remove_file(here_too(number)).unwrap());
    assert_eq!(read_all(&mut reader).0.len(), 5_000);
}

#[test]
fn a_damaged_file_is_replaced_by_what_is_stored() {
    let (_there, here, store) = stored_log();
    for number in 0..store.known.len() as u32 {
        fs::copy(store.path(number), here.path().join(format!("{number:06}.tcl"))).unwrap();
    }
    for cut in [10, 500] {
        let file = fs::File::options().write(true).open(here.path().join("000002.tcl")).unwrap();
        file.set_len(cut).unwrap();
        let (found, error) = read_all(&mut LogReader::open(store.source(here.path())).unwrap());
        assert!(error.is_none() && found.len() == 5_000, "{error:?}");
    }
}

#[test]
fn what_is_neither_here_nor_there_is_told() {
    let (there, here, store) = stored_log();
    fs::remove_file(store.path(3)).unwrap();
    let (found, error) = read_all(&mut LogReader::open(store.source(here.path())).unwrap());
    assert_eq!(found.len() as u64, store.known[3].start.base_seq);
    assert!(matches!(error, Some(LogError::Fetch(_))));

    // The store doesn't know of the last segment: without a word of it, the log would look like a shorter one.
    let mut known = store.known.clone();
    known.pop();
    let shorter = Elsewhere::knowing(there.path(), known);
    let source = LogSource { next_seq: Some(5_000), ..shorter.source(here.path()) };
    let mut reader = LogReader::open(source).unwrap();
    reader.seek(shorter.known[4].start.base_seq).unwrap();
    let (found, error) = read_all(&mut reader);
    assert!(!found.is_empty() && matches!(error, Some(LogError::Corrupt { reason: Reason::Truncated, .. })));

    let empty = Elsewhere::knowing(there.path(), Vec::new());
    assert!(matches!(LogReader::open(empty.source(here.path())), Err(LogError::NoLog(_))));
}

#[test]
fn what_is_fetched_is_not_believed() {
    let (_there, here, store) = stored_log();
    let whole = fs::read(store.path(1)).unwrap();
    let mut index_broken = whole.clone();
    index_broken[whole.len() - SEGMENT_FOOTER_LEN - 20] ^= 1;
    fs::write(store.path(1), &index_broken).unwrap();
    let (found, error) = read_all(&mut LogReader::open(store.source(here.path())).unwrap());
    assert!(error.is_none() && found.len() == 5_000, "blocks are found without the index");

    let mut block_broken = whole.clone();
    block_broken[200] ^= 1;
    fs::write(store.path(1), &block_broken).unwrap();
    let (found, error) = read_all(&mut LogReader::open(store.source(here.path())).unwrap());
    assert_eq!(found.len() as u64, store.known[1].start.base_seq);
    assert!(matches!(error, Some(LogError::Corrupt { reason: Reason::CorruptCrc, .. })), "{error:?}");

    // Another segment in its place, with checksums that are all right.
    fs::write(store.path(1), fs::read(store.path(2)).unwrap()).unwrap();
    let mut reader = LogReader::open(store.source(here.path())).unwrap();
    let (found, error) = read_all(&mut reader);
    assert!(found.len() as u64 == store.known[1].start.base_seq && error.is_some());
    assert!(SegmentReader::open(&store.path(1)).is_ok());
}
