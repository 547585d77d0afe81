//! Views of a log that need neither the module nor a replay: summary, trace, output.

use timecraft_log::{BLOCK_HEADER_LEN, LogError, LogReader, LogSource, SEGMENT_HEADER_LEN};

use crate::output::Output;
use crate::recorder::{CALL_END, CALL_START, End, Record, Source};
use crate::reference::{Trees, WholeRecord};
use crate::strace::{self, Timestamps};
use crate::{Call, Errno};

/// What there is to know about a log without reading all of it.
#[derive(Clone, Debug, Default)]
pub struct LogSummary {
    pub records: u64,
    pub last_seq: Option<u64>,
    pub segments: u64,
    pub blocks: u64,
    pub bytes_stored: u64,
    /// Before compression; unknown of a log of which a part is stored elsewhere, where only its blocks would tell.
    pub bytes_raw: Option<u64>,
    /// Wall-clock time of the log's time 0, nanoseconds since the Unix epoch; 0 if the log is empty.
    pub start_unix_ns: u64,
    /// Time of the last record, nanoseconds since the start.
    pub last_time_ns: u64,
    pub epochs: u64,
    pub end: Option<End>,
    /// First record that was not written (`OnFull::Continue`).
    pub incomplete_from: Option<u64>,
}

/// Summarises a log from its block headers (of stored segments from what is told of them), its beginning and its end.
///
/// # Errors
/// [`LogError`] if it can't be read, or is damaged in these places.
pub fn summarize(source: impl Into<LogSource>) -> Result<LogSummary, LogError> {
    let mut reader = LogReader::open(source)?;
    let mut summary = LogSummary {
        incomplete_from: reader.first_lost_seq()?,
        last_seq: reader.last_seq()?,
        segments: reader.segments().len() as u64,
        ..LogSummary::default()
    };
    if let Some(first) = reader.next()? {
        summary.start_unix_ns = start_of(&first);
    }
    let (stored, files): (Vec<_>, Vec<_>) = reader.segments().iter().cloned().partition(|segment| segment.stored);
    summary.last_time_ns = reader.segments().last().map_or(0, |last| last.last_time_ns);
    summary.bytes_raw = stored.is_empty().then_some(0);
    for segment in &stored {
        let blocks = segment.blocks_sealed();
        let headers = SEGMENT_HEADER_LEN as u64 + blocks * BLOCK_HEADER_LEN as u64;
        summary.blocks += blocks;
        summary.records += segment.next_seq - segment.start.base_seq;
        summary.bytes_stored += segment.index_offset.saturating_sub(headers);
    }
    for block in reader.blocks_of(files) {
        let block = block?;
        summary.blocks += 1;
        summary.records += u64::from(block.record_count);
        summary.bytes_stored += u64::from(block.stored_len);
        summary.bytes_raw = summary.bytes_raw.map(|bytes| bytes + u64::from(block.raw_len));
        summary.last_time_ns = summary.last_time_ns.max(block.last_time_ns);
    }
    summary.epochs = reader.segments().last().map_or(0, |last| u64::from(last.start.epoch) + 1);
    if let Ok(Some(record)) = reader.last() {
        summary.end = End::of(&&record);
    }
    Ok(summary)
}

/// The wall-clock time that a log's first record tells of.
fn start_of(first: &impl Record) -> u64 {
    if first.call() == CALL_START { first.args().get(1).copied().unwrap_or(0) } else { 0 }
}

/// Where a process was started, or resumed. Time goes on from epoch to epoch, the clock of the day jumps.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    first_seq: u64,
    first_time_ns: u64,
    zero_unix_ns: u64,
}

/// The epochs of a log, but for those whose beginning is damaged.
fn epochs_of(reader: &LogReader) -> Result<Vec<Epoch>, LogError> {
    let segments = reader.segments();
    let begins = |index: &usize| *index == 0 || segments[*index].start.epoch != segments[*index - 1].start.epoch;
    let mut beginning = reader.reopen()?;
    let mut epochs = Vec::new();
    for index in (0..segments.len()).filter(begins) {
        let found = beginning.seek(segments[index].start.base_seq).and_then(|()| beginning.next());
        match found {
            Ok(Some(first)) if first.call() == CALL_START => epochs.push(Epoch {
                first_seq: first.seq(),
                first_time_ns: first.time_ns(),
                zero_unix_ns: start_of(&first),
            }),
            Ok(_) | Err(LogError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(epochs)
}

/// The epoch that the clock of the day was in then, and the next one, if there are any.
fn epoch_at(epochs: &[Epoch], unix_ns: u64) -> (Option<Epoch>, Option<Epoch>) {
    let begun = |epoch: &Epoch| epoch.zero_unix_ns.saturating_add(epoch.first_time_ns) <= unix_ns;
    match epochs.iter().rposition(begun) {
        Some(at) => (Some(epochs[at]), epochs.get(at + 1).copied()),
        None => (None, epochs.first().copied()),
    }
}

/// A log as lines of text or pieces of output, in batches; also one that is still being written.
#[derive(Debug)]
pub struct LogView {
    reader: LogReader,
    trees: Trees,
    output: Output,
    /// Wall-clock time of time 0 in the epoch that the reader is in; found out when it is needed.
    zero_unix_ns: Option<u64>,
    ended: bool,
    /// Where the log is damaged, once the reader got there.
    damage: Option<LogError>,
}

/// Which records a trace shows, and how.
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    pub json: bool,
    pub strace: strace::Options,
    /// Times in UTC instead of the ones that [`strace::Options`] asks for.
    pub absolute: bool,
    /// Only these calls; empty means all.
    pub calls: Vec<u16>,
    /// Only records up to this time.
    pub until_time_ns: Option<u64>,
}

/// A piece of output: time in nanoseconds since the start, stream (1 or 2), bytes.
pub type Piece = (u64, u8, Vec<u8>);

impl LogView {
    /// Opens a log at its first record; `trees` are those of its process's immutable mounts.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(source: impl Into<LogSource>, trees: Trees) -> Result<Self, LogError> {
        Ok(Self::with_reader(LogReader::open(source)?, trees))
    }

    /// The same for a log of which parts are damaged: these are left out.
    ///
    /// # Errors
    /// [`LogError`] if nothing can be read.
    pub fn open_damaged(source: impl Into<LogSource>, trees: Trees) -> Result<Self, LogError> {
        let mut view = Self::with_reader(LogReader::open_damaged(source)?, trees);
        view.zero_unix_ns = Some(view.reader.next()?.map_or(0, |first| start_of(&first)));
        view.reader.rewind()?;
        Ok(view)
    }

    fn with_reader(reader: LogReader, trees: Trees) -> Self {
        LogView { reader, trees, output: Output::default(), zero_unix_ns: None, ended: false, damage: None }
    }

    /// The log's reader, for seeking.
    pub fn reader(&mut self) -> &mut LogReader {
        (self.damage, self.zero_unix_ns) = (None, None);
        &mut self.reader
    }

    /// Moves so that the first record of that time of the day or later is the next one, or to the end.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn seek_unix_time(&mut self, unix_ns: u64) -> Result<(), LogError> {
        let (epoch, next) = epoch_at(&epochs_of(&self.reader)?, unix_ns);
        let time_ns = epoch.map(|epoch| unix_ns - epoch.zero_unix_ns);
        match (time_ns, next) {
            (Some(time_ns), Some(next)) if time_ns > next.first_time_ns => self.reader().seek(next.first_seq),
            (Some(time_ns), _) => self.reader().seek_time(time_ns),
            (None, _) => self.reader().rewind(),
        }
    }

    /// The log's time at a time of the day; while no host ran the process, that of its resumption.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn time_at(&mut self, unix_ns: u64) -> Result<u64, LogError> {
        let (epoch, next) = epoch_at(&epochs_of(&self.reader)?, unix_ns);
        let time_ns = epoch.map_or(0, |epoch| unix_ns - epoch.zero_unix_ns);
        Ok(next.map_or(time_ns, |next| time_ns.min(next.first_time_ns)))
    }

    /// For each epoch the log's time at its beginning, and the time of the day (Unix, ns) of time 0 by its clock.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn clock(&mut self) -> Result<Vec<(u64, u64)>, LogError> {
        let epochs = epochs_of(&self.reader)?;
        Ok(epochs.iter().map(|epoch| (epoch.first_time_ns, epoch.zero_unix_ns)).collect())
    }

    /// Whether the record of the process's end was passed.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next records, at most `records_max`, as lines. Empty at the end of what there is now.
    ///
    /// # Errors
    /// [`LogError`] where the log is damaged; what is before it was returned.
    pub fn trace(&mut self, records_max: usize, options: &TraceOptions) -> Result<Vec<String>, LogError> {
        let mut strace = options.strace;
        let mut zero_unix_ns = if options.absolute { self.zero_unix_ns()? } else { 0 };
        let mut lines = Vec::new();
        while lines.len() < records_max && self.damage.is_none() {
            let record = match self.reader.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    self.damage = Some(error);
                    break;
                }
            };
            if options.until_time_ns.is_some_and(|until| record.time_ns() > until) {
                break;
            }
            self.ended |= record.call() == CALL_END;
            if record.call() == CALL_START {
                zero_unix_ns = start_of(&record);
                self.zero_unix_ns = Some(zero_unix_ns);
            }
            if options.absolute {
                strace.timestamps = Timestamps::Absolute { zero_ns: zero_unix_ns };
            }
            // Without its tree, a record shows where its bytes were.
            let record = self.trees.complete(record).unwrap_or_else(|_| WholeRecord::unread(record));
            if options.calls.is_empty() || options.calls.contains(&record.call()) {
                lines.push(if options.json {
                    strace::record_json(&record, &strace)
                } else {
                    strace::record_line(&record, &strace)
                });
            }
        }
        self.or_damage(lines)
    }

    fn zero_unix_ns(&mut self) -> Result<u64, LogError> {
        if let Some(known) = self.zero_unix_ns {
            return Ok(known);
        }
        // The next record is of the epoch, or begins it.
        let next_seq = self.reader.next()?.map(|record| record.seq());
        if let Some(seq) = next_seq {
            self.reader.seek(seq)?;
        }
        let epochs = epochs_of(&self.reader)?;
        let of_next = |epoch: &&Epoch| next_seq.is_none_or(|seq| epoch.first_seq <= seq);
        let found = epochs.iter().rfind(of_next).map(|epoch| epoch.zero_unix_ns);
        self.zero_unix_ns = found;
        Ok(found.unwrap_or(0))
    }

    /// The next output of the guest, until about `bytes_max` bytes are there. Empty at the end of what there is now.
    ///
    /// # Errors
    /// [`LogError`] where the log is damaged; what is before it was returned.
    pub fn output(&mut self, bytes_max: usize) -> Result<Vec<Piece>, LogError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && self.damage.is_none() {
            let record = match self.reader.next() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    self.damage = Some(error);
                    break;
                }
            };
            self.ended |= record.call() == CALL_END;
            let (Some(call), Some(errno)) = (Call::from_id(record.call()), Errno::from_raw(record.errno())) else {
                continue;
            };
            if record.digested() {
                continue;
            }
            let time_ns = record.time_ns();
            self.output.observe(call, record.args(), errno, record.written(), record.sent(), |stream, data| {
                bytes += data.len();
                pieces.push((time_ns, stream, data.to_vec()));
            });
        }
        self.or_damage(pieces)
    }

    /// What was read before the damage, and once that is out, the damage: it stands until the reader is moved.
    fn or_damage<T>(&self, found: Vec<T>) -> Result<Vec<T>, LogError> {
        match &self.damage {
            Some(error) if found.is_empty() => Err(error.clone()),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use timecraft_log::{Head, LogConfig};

    use super::*;

    /// A log of writes to standard output, a number a line and a block every few.
    fn log_of_lines(dir: &Path, lines: u32) {
        let config = LogConfig { block_bytes_max: 1 << 10, ..LogConfig::new(dir, [1; 16]) };
        let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).unwrap();
        for number in 0..lines {
            let text = format!("{number}\n");
            let list = [64u32.to_le_bytes(), (text.len() as u32).to_le_bytes()].concat();
            let taken = (text.len() as u32).to_le_bytes();
            let head = Head { call: Call::FdWrite as u16, errno: 0, time_ns: u64::from(number) };
            let written = std::iter::once((32, taken.as_slice()));
            let sent = [(8, list.as_slice()), (64, text.as_bytes())].into_iter();
            ring.append(&head, &[1, 8, 1, 32], written, sent).unwrap();
        }
        handle.finish().unwrap();
    }

    #[test]
    fn what_is_before_the_damage_is_shown_and_nothing_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        log_of_lines(dir.path(), 1_000);
        let path = dir.path().join("000000.tcl");
        let blocks: Vec<_> = LogReader::open(dir.path()).unwrap().blocks().map(Result::unwrap).collect();
        let bad = blocks[blocks.len() / 2];
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[bad.offset as usize + 100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        for batch in [1, 7, 10_000] {
            let mut view = LogView::open(dir.path(), Trees::default()).unwrap();
            let mut lines = 0;
            let error = loop {
                match view.trace(batch, &TraceOptions::default()) {
                    Ok(more) if more.is_empty() => panic!("the damage was not told"),
                    Ok(more) => lines += more.len() as u64,
                    Err(error) => break error.to_string(),
                }
            };
            assert_eq!(lines, bad.base_seq, "in batches of {batch}");
            assert_eq!(view.trace(batch, &TraceOptions::default()).unwrap_err().to_string(), error, "it stands");
            view.reader().seek(0).unwrap();
            let mut output = Vec::new();
            while let Ok(pieces) = view.output(batch) {
                output.extend(pieces.into_iter().flat_map(|(_, _, bytes)| bytes));
            }
            let expected = (0..bad.base_seq).map(|number| format!("{number}\n")).collect::<Vec<_>>();
            assert_eq!(String::from_utf8(output).unwrap(), expected.concat(), "in batches of {batch}");
        }
    }
}
