//! Reading a log: all its segments in a row.

use crate::block::{BLOCK_HEADER_LEN, BlockDecoder, BlockInfo};
use crate::dir;
use crate::error::{LogError, Reason};
use crate::record::RecordView;
use crate::segment::{SegmentInfo, SegmentReader, segment_name};
use crate::source::LogSource;

/// Which blocks a reader may skip: those without any call, or any first argument, of interest.
///
/// A hint: the records of a block that is not skipped are all returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFilter {
    /// Bits as in [`BlockInfo::call_filter`].
    pub calls: u64,
    /// Bits as in [`BlockInfo::fd_filter`].
    pub fds: u64,
}

impl BlockFilter {
    /// Keeps blocks that may hold one of `calls`.
    pub fn of_calls(calls: &[u16]) -> Self {
        Self { calls: calls.iter().fold(0, |bits, call| bits | 1 << (call % 64)), fds: u64::MAX }
    }

    /// Keeps blocks that may hold a call with one of `fds` as first argument.
    pub fn of_fds(fds: &[u64]) -> Self {
        Self { calls: u64::MAX, fds: fds.iter().fold(0, |bits, fd| bits | 1 << (fd % 64)) }
    }

    fn keeps(self, block: &BlockInfo) -> bool {
        // A block whose calls have no arguments at all has no bit set, and cannot match a fd.
        block.call_filter & self.calls != 0 && (self.fds == u64::MAX || block.fd_filter & self.fds != 0)
    }
}

/// Reader of a log, which may still be written to its directory.
///
/// Of a live log it sees what is in segments: records reach them at the latest after
/// `LogConfig::flush_interval`. Of a log whose host died it sees the same; what is still in the
/// ring comes with [`recover`](crate::recover).
#[derive(Debug)]
pub struct LogReader {
    source: LogSource,
    segments: Vec<SegmentInfo>,
    current: SegmentReader,
    /// Next block of the current segment.
    next_block: usize,
    decoder: BlockDecoder,
    buffer: Vec<u8>,
    filter: Option<BlockFilter>,
    /// What was left out so far, if damage is to be skipped.
    gaps: Option<Vec<Gap>>,
    /// Record at which reading failed.
    failed_at: u64,
    /// All behind here is damaged.
    is_over: bool,
}

/// Records that are damaged, and were left out.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Number of the first one.
    pub first_seq: u64,
    /// Number behind the last one. `None`: nothing that can be read comes behind them.
    pub next_seq: Option<u64>,
    /// What is wrong.
    pub error: LogError,
}

impl LogReader {
    /// Opens a log of which parts are damaged: reading goes on behind them, and [`gaps`](Self::gaps) tells of them.
    pub fn open_damaged(source: impl Into<LogSource>) -> Result<Self, LogError> {
        let source = source.into();
        let (segments, lost) = source.readable_segments()?;
        if let (true, Some(error)) = (segments.is_empty(), &lost) {
            return Err(error.clone());
        }
        let first_seq = segments.first().map_or(0, |first| first.start.base_seq);
        let gap = lost.filter(|_| segments.first().is_some_and(|first| first.start.number > 0));
        let gap = gap.filter(|_| first_seq > 0).map(|error| Gap { first_seq: 0, next_seq: Some(first_seq), error });
        Ok(Self { gaps: Some(gap.into_iter().collect()), ..Self::with_segments(source, segments)? })
    }

    /// Size of the segments and blocks that were passed, in bytes.
    pub(crate) fn bytes_passed(&self) -> u64 {
        let current = self.current.info();
        let before = self.segments.iter().take_while(|segment| segment.start.number < current.start.number);
        let here = self.current.entries().get(self.next_block).map_or(current.len, |entry| entry.offset);
        before.map(|segment| segment.len).sum::<u64>() + here
    }

    /// What was left out so far, in order.
    pub fn gaps(&self) -> &[Gap] {
        self.gaps.as_deref().unwrap_or_default()
    }

    /// Goes on behind what could not be read, if that is wanted.
    #[cold]
    fn skip(&mut self, error: LogError) -> Result<(), LogError> {
        if self.gaps.is_none() || !matches!(error, LogError::Corrupt { .. } | LogError::Io { .. }) {
            return Err(error);
        }
        let first_seq = self.failed_at;
        self.decoder.clear();
        let next_seq = loop {
            if let Some(entry) = self.current.entries().get(self.next_block) {
                break Some(entry.base_seq);
            }
            let number = self.current.info().start.number;
            let Some(next) = self.segments.iter().position(|next| next.start.number > number) else {
                self.is_over = true;
                break None;
            };
            if self.enter(next).is_err() {
                self.segments.remove(next);
            }
        };
        if let Some(gaps) = &mut self.gaps {
            gaps.push(Gap { first_seq, next_seq, error });
        }
        Ok(())
    }

    /// Opens the log in a directory, or wherever else its segments are, at its first record.
    pub fn open(source: impl Into<LogSource>) -> Result<Self, LogError> {
        let source = source.into();
        let segments = source.segments()?;
        Self::with_segments(source, segments)
    }

    /// Another reader of the same log, at its first record.
    pub fn reopen(&self) -> Result<Self, LogError> {
        Self::with_segments(self.source.clone(), self.segments.clone())
    }

    fn with_segments(source: LogSource, segments: Vec<SegmentInfo>) -> Result<Self, LogError> {
        let Some(first) = segments.first() else { return Err(LogError::NoLog(source.dir)) };
        let current = source.open(first)?;
        Ok(Self {
            source,
            segments,
            current,
            next_block: 0,
            decoder: BlockDecoder::default(),
            buffer: Vec::new(),
            filter: None,
            gaps: None,
            failed_at: 0,
            is_over: false,
        })
    }

    /// The next record; `None` at the end. May be called again when a live log has grown.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    #[inline]
    pub fn next(&mut self) -> Result<Option<RecordView<'_>>, LogError> {
        while self.decoder.next_seq().is_none() {
            match self.load_block() {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => self.skip(error)?,
            }
        }
        let next_seq = self.decoder.next_seq().unwrap_or_default();
        let (current, block) = (&self.current, self.next_block - 1);
        self.decoder.next().map_err(|reason| current.corrupt(current.entries()[block].offset, next_seq, reason))
    }

    /// Skips blocks that cannot hold what `filter` asks for, from the next block on.
    pub fn set_filter(&mut self, filter: Option<BlockFilter>) {
        self.filter = filter;
    }

    /// Moves to the first record that there is.
    pub fn rewind(&mut self) -> Result<(), LogError> {
        if let Some(gaps) = &mut self.gaps {
            let begin = self.segments[0].start.base_seq;
            gaps.retain(|gap| gap.next_seq == Some(begin));
        }
        match self.enter(0) {
            Err(error) => self.skip(error),
            Ok(()) => Ok(()),
        }
    }

    /// Moves so that record `seq` is the next one: or the first that there is, or the end.
    pub fn seek(&mut self, seq: u64) -> Result<(), LogError> {
        self.refresh()?;
        let segment = self.segments.partition_point(|segment| segment.start.base_seq <= seq);
        self.enter(segment.saturating_sub(1))?;
        let blocks = self.current.entries();
        self.next_block = blocks.partition_point(|block| block.base_seq <= seq).saturating_sub(1);
        self.skip_records(seq)
    }

    /// Moves so that the first record at or after `time_ns` is the next one, or to the end.
    pub fn seek_time(&mut self, time_ns: u64) -> Result<(), LogError> {
        self.refresh()?;
        let segment = self.segments.partition_point(|segment| segment.last_time_ns < time_ns);
        self.enter(segment.min(self.segments.len() - 1))?;
        let blocks = self.current.entries();
        let block = blocks.partition_point(|block| block.first_time_ns < time_ns);
        self.next_block = block.saturating_sub(1);
        let filter = self.filter.take();
        let found = loop {
            match self.next() {
                Ok(Some(record)) if record.time_ns() < time_ns => {}
                Ok(record) => break Ok(record.map(|record| record.seq())),
                Err(error) => break Err(error),
            }
        };
        self.filter = filter;
        match found? {
            Some(seq) => self.seek(seq),
            None => Ok(()),
        }
    }

    /// Last record that is in a segment now, if any.
    pub fn last_seq(&mut self) -> Result<Option<u64>, LogError> {
        self.refresh()?;
        let last = self.segments.last().filter(|last| last.next_seq > self.segments[0].start.base_seq);
        Ok(last.map(|last| last.next_seq - 1))
    }

    /// The segments, in order, as of the last look.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// First record that the log's writer had no room for, if it ran out.
    pub fn first_lost_seq(&self) -> Result<Option<u64>, LogError> {
        dir::read_lost_mark(&self.source.dir)
    }

    /// The headers of all blocks in order, without decompressing any.
    pub fn blocks(&self) -> Blocks {
        self.blocks_of(self.segments.clone())
    }

    /// The same for some segments of this log.
    pub fn blocks_of(&self, segments: Vec<SegmentInfo>) -> Blocks {
        Blocks { source: self.source.clone(), segments: segments.into_iter(), current: None }
    }

    /// Takes note of what the writer added.
    fn refresh(&mut self) -> Result<(), LogError> {
        loop {
            let last = self.segments.last_mut().expect("a log has a segment");
            let Some(number) = last.start.number.checked_add(1) else { return Ok(()) };
            let next_path = self.source.dir.join(segment_name(number));
            // Looked for before the last segment is read: that one is complete if this is there.
            let next = match SegmentReader::open_numbered(&next_path, number) {
                Ok(reader) => Some(reader.info().clone()),
                Err(LogError::Corrupt { reason: Reason::Truncated, .. }) => None,
                Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let next = match next {
                None if last.stored && self.source.next_seq.is_none() => self.source.stored(number)?,
                next => next,
            };
            if last.stored {
                // It is what it is.
            } else if last.path == self.current.info().path {
                self.current.refresh()?;
                *last = self.current.info().clone();
            } else if !last.sealed {
                *last = self.source.open(last)?.info().clone();
            }
            match next {
                Some(next) => self.segments.push(next),
                None => return Ok(()),
            }
        }
    }

    /// Makes segment `index` the current one, at its first block.
    fn enter(&mut self, index: usize) -> Result<(), LogError> {
        let segment = &self.segments[index];
        if segment.path != self.current.info().path {
            self.current = self.source.open(segment)?;
        }
        self.current.load()?;
        self.next_block = 0;
        self.is_over = false;
        self.decoder.clear();
        Ok(())
    }

    /// Decodes up to record `seq`, in the next block.
    fn skip_records(&mut self, seq: u64) -> Result<(), LogError> {
        let filter = self.filter.take();
        let mut result = self.load_block().map(drop);
        while result.is_ok() && self.decoder.next_seq().is_some_and(|next| next < seq) {
            result = self.next().map(drop);
        }
        self.filter = filter;
        result.or_else(|error| self.skip(error))
    }

    /// Starts on the next block that the filter keeps; false at the end of the log.
    fn load_block(&mut self) -> Result<bool, LogError> {
        if self.is_over {
            return Ok(false);
        }
        self.failed_at = self.current.info().start.base_seq;
        self.current.load()?;
        loop {
            let Some(&entry) = self.current.entries().get(self.next_block) else {
                if !self.advance()? {
                    return Ok(false);
                }
                continue;
            };
            self.failed_at = entry.base_seq;
            self.next_block += 1;
            if let Some(filter) = self.filter {
                let block = self.current.block_info(&entry)?;
                if !filter.keeps(&block) {
                    continue;
                }
            }
            let block = self.current.read_block(&entry, &mut self.buffer)?;
            self.decoder
                .begin(&block, &self.buffer[BLOCK_HEADER_LEN..])
                .map_err(|reason| self.current.corrupt(entry.offset, entry.base_seq, reason))?;
            return Ok(true);
        }
    }

    /// Finds more blocks, here or in the next segment; false if there are none now.
    fn advance(&mut self) -> Result<bool, LogError> {
        self.refresh()?;
        self.current.refresh()?;
        if self.next_block < self.current.entries().len() {
            return Ok(true);
        }
        let info = self.current.info();
        self.failed_at = info.next_seq;
        let number = info.start.number;
        let Some(next) = self.segments.iter().position(|next| next.start.number > number) else {
            let is_short = self.source.next_seq.is_some_and(|next_seq| info.next_seq < next_seq);
            let truncated = || self.current.corrupt(info.len, info.next_seq, Reason::Truncated);
            return self.current.damage().or_else(|| is_short.then(truncated)).map_or(Ok(false), Err);
        };
        if self.segments[next].start.base_seq != info.next_seq {
            let truncated = || self.current.corrupt(info.len, info.next_seq, Reason::Truncated);
            return Err(self.current.damage().unwrap_or_else(truncated));
        }
        self.enter(next)?;
        Ok(true)
    }
}

/// The headers of a log's blocks, in order.
#[derive(Debug)]
pub struct Blocks {
    source: LogSource,
    segments: std::vec::IntoIter<SegmentInfo>,
    current: Option<(SegmentReader, usize)>,
}

impl Blocks {
    fn begin(&self, segment: &SegmentInfo) -> Result<SegmentReader, LogError> {
        let mut reader = self.source.open(segment)?;
        reader.load()?;
        Ok(reader)
    }
}

impl Iterator for Blocks {
    type Item = Result<BlockInfo, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((reader, next)) = &mut self.current
                && let Some(entry) = reader.entries().get(*next)
            {
                *next += 1;
                return Some(reader.block_info(entry));
            }
            if let Some(damage) = self.current.take().and_then(|(reader, _)| reader.damage()) {
                return Some(Err(damage));
            }
            let segment = self.segments.next()?;
            match self.begin(&segment) {
                Ok(reader) => self.current = Some((reader, 0)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
