//! Where a log's segments are: files in its directory, and copies of sealed ones that are stored elsewhere.

use crate::error::{LogError, Reason};
use crate::segment::{SegmentInfo, SegmentReader, SegmentStart, list_segments};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are fetched at once at least, and, when a reader goes on, at most; a larger block is fetched whole. The
/// least is more than two blocks of the usual size: where a time lies on their border, both are needed.
const FETCH_BYTES_MIN: usize = 160 << 10;
const FETCH_BYTES_MAX: usize = 1 << 20;

/// What is known of a stored segment before any of it is fetched. Its index is the first thing to prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// As in the segment's header, but for the rolling hash, which is 0.
    pub start: SegmentStart,
    /// Length of the file, in bytes.
    pub len: u64,
    /// Offset of the index in the file, in bytes.
    pub index_offset: u64,
    /// Sequence number behind the last record.
    pub next_seq: u64,
    /// Time of the last record.
    pub last_time_ns: u64,
}

/// Why something stored could not be had; its text names what.
pub type FetchError = Arc<dyn std::error::Error + Send + Sync>;

/// Copies of a log's sealed segments that are stored elsewhere.
///
/// Nothing that it says is believed: what is fetched is checked as files are. Both may take their time.
pub trait SegmentStore: fmt::Debug + Send + Sync {
    /// The segments that are there now, by number. None at all if there is no such log.
    fn segments(&self) -> Result<Vec<StoredSegment>, FetchError>;
    /// `len` bytes of a segment from `offset` on.
    fn fetch(&self, number: u32, offset: u64, len: usize) -> Result<Vec<u8>, FetchError>;
    /// What a segment is called in messages.
    fn name(&self, number: u32) -> String;
}

/// Where a log is: in a directory, and what is missing there, in a store.
#[derive(Clone, Debug)]
pub struct LogSource {
    /// The log's directory, there or not.
    pub dir: PathBuf,
    /// Where segments are that the directory lacks; not asked while it lacks none.
    pub store: Option<Arc<dyn SegmentStore>>,
    /// Sequence number behind the log's last record, if that is known: without it, a log whose last segments are gone
    /// looks like one whose host died.
    pub next_seq: Option<u64>,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for LogSource {
    fn from(dir: &P) -> Self {
        Self { dir: dir.as_ref().to_owned(), store: None, next_seq: None }
    }
}

impl LogSource {
    /// The log's segments by number: files where there are any, stored ones for the others.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentInfo>, LogError> {
        let (found, lost) = self.readable_segments()?;
        lost.map_or(Ok(found), Err)
    }

    /// The same without those that can't be read, and why the first of them can't.
    pub(crate) fn readable_segments(&self) -> Result<(Vec<SegmentInfo>, Option<LogError>), LogError> {
        let files = match list_segments(&self.dir) {
            Err(LogError::Io { source, .. }) if self.store.is_some() && is_missing(&source) => Vec::new(),
            files => files?,
        };
        let mut found: Vec<SegmentInfo> = Vec::new();
        let mut unreadable = Vec::new();
        for (number, path) in files {
            match SegmentReader::open_numbered(&path, number) {
                Ok(reader) => found.push(reader.info().clone()),
                // The writer has just created it.
                Err(LogError::Corrupt { reason: Reason::Truncated, .. }) if !found.is_empty() => {}
                Err(error) => unreadable.push((number, error)),
            }
        }
        if let Some(store) = &self.store
            && (!unreadable.is_empty() || !self.is_whole(&found))
        {
            merge(&mut found, store.as_ref())?;
        }
        let lost = unreadable.into_iter().find(|(number, _)| !found.iter().any(|it| it.start.number == *number));
        Ok((found, lost.map(|(_, error)| error)))
    }

    /// Whether these are all segments of the log, as far as can be known without a look into the store.
    fn is_whole(&self, found: &[SegmentInfo]) -> bool {
        let follows = |pair: &[SegmentInfo]| pair[0].sealed && pair[1].start.base_seq == pair[0].next_seq;
        let (Some(first), Some(last)) = (found.first(), found.last()) else { return false };
        first.start.number == 0
            && found.windows(2).all(follows)
            && self.next_seq.is_none_or(|next| last.next_seq >= next)
    }

    /// A segment that is in the store by now: the log may still grow elsewhere.
    pub(crate) fn stored(&self, number: u32) -> Result<Option<SegmentInfo>, LogError> {
        let mut found = Vec::new();
        if let Some(store) = &self.store {
            merge(&mut found, store.as_ref())?;
        }
        Ok(found.into_iter().find(|it| it.start.number == number))
    }

    /// Opens a segment that `segments` has told of. A file that is gone since may have been stored meanwhile.
    pub(crate) fn open(&self, info: &SegmentInfo) -> Result<SegmentReader, LogError> {
        let error = match (&self.store, info.stored) {
            (Some(store), true) => return Ok(SegmentReader::stored(info.clone(), store)),
            (_, _) => match SegmentReader::open_numbered(&info.path, info.start.number) {
                Err(error) => error,
                Ok(reader) => return Ok(reader),
            },
        };
        match (&self.store, self.stored(info.start.number)?) {
            (Some(store), Some(info)) => Ok(SegmentReader::stored(info, store)),
            _ => Err(error),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Adds the stored segments that are missing, or not whole, among files.
fn merge(found: &mut Vec<SegmentInfo>, store: &dyn SegmentStore) -> Result<(), LogError> {
    for stored in store.segments().map_err(LogError::Fetch)? {
        let number = stored.start.number;
        let info = SegmentInfo {
            path: store.name(number).into(),
            start: stored.start,
            sealed: true,
            stored: true,
            len: stored.len,
            index_offset: stored.index_offset,
            next_seq: stored.next_seq,
            last_time_ns: stored.last_time_ns,
            has_end: false,
        };
        match found.binary_search_by_key(&number, |it| it.start.number) {
            Ok(at) if found[at].sealed => {}
            Ok(at) => found[at] = info,
            Err(at) => found.insert(at, info),
        }
    }
    Ok(())
}

/// The bytes of one segment.
#[derive(Debug)]
pub(crate) enum Bytes {
    File(File),
    Stored(Stored),
}

impl Bytes {
    /// Length now, in bytes.
    pub fn len(&self, path: &Path) -> Result<u64, LogError> {
        match self {
            Self::File(file) => Ok(file.metadata().map_err(LogError::io(path, "inspect"))?.len()),
            Self::Stored(stored) => Ok(stored.len),
        }
    }

    /// Fills `buffer` from `offset` on.
    #[inline]
    pub fn read_at(&self, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset).map_err(LogError::io(path, "read")),
            Self::Stored(stored) => stored.read_at(path, buffer, offset),
        }
    }
}

/// One stored segment: what was fetched last, and how much to fetch next.
#[derive(Debug)]
pub(crate) struct Stored {
    store: Arc<dyn SegmentStore>,
    number: u32,
    len: u64,
    window: RefCell<Window>,
}

#[derive(Debug)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// Bytes to fetch at once.
    ahead: usize,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Stored {
    pub fn new(store: &Arc<dyn SegmentStore>, number: u32, len: u64) -> Self {
        let window = Window { start: 0, bytes: Vec::new(), ahead: FETCH_BYTES_MIN };
        Self { store: Arc::clone(store), number, len, window: RefCell::new(window) }
    }

    fn read_at(&self, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len {
            return Err(LogError::corrupt(path, offset, None, Reason::Truncated));
        }
        let mut window = self.window.borrow_mut();
        if offset < window.start || end > window.end() {
            self.slide(&mut window, path, offset, buffer.len())?;
        }
        let at = (offset - window.start) as usize;
        buffer.copy_from_slice(&window.bytes[at..at + buffer.len()]);
        Ok(())
    }

    /// Fetches what a read needs, and more the longer the reads have followed on one another.
    fn slide(&self, window: &mut Window, path: &Path, offset: u64, needed: usize) -> Result<(), LogError> {
        let follows =
            !window.bytes.is_empty() && (window.start..=window.end() + FETCH_BYTES_MAX as u64).contains(&offset);
        window.ahead = if follows { FETCH_BYTES_MAX.min(window.ahead * 2) } else { FETCH_BYTES_MIN };
        // What is left of the last window is not fetched again.
        let kept = if follows { window.end().saturating_sub(offset) as usize } else { 0 };
        let from = offset + kept as u64;
        let left = usize::try_from(self.len - from).unwrap_or(usize::MAX);
        let len = (needed - kept).max(window.ahead).min(left);
        let fetched = self.fetch(path, from, len)?;
        window.bytes.drain(..window.bytes.len() - kept);
        window.bytes.extend_from_slice(&fetched);
        window.start = offset;
        Ok(())
    }

    /// All from `offset` to the end.
    pub fn tail(&self, path: &Path, offset: u64) -> Result<Vec<u8>, LogError> {
        self.fetch(path, offset, usize::try_from(self.len - offset).unwrap_or(usize::MAX))
    }

    fn fetch(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, LogError> {
        let fetched = self.store.fetch(self.number, offset, len).map_err(LogError::Fetch)?;
        if fetched.len() == len { Ok(fetched) } else { Err(LogError::corrupt(path, offset, None, Reason::Truncated)) }
    }
}
