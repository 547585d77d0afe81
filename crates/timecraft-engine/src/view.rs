//! Views of a log that need neither the module nor a replay: summary, trace, output.

use std::path::Path;

use timecraft_log::{LogError, LogReader};

use crate::output::Output;
use crate::recorder::{CALL_END, CALL_START, End, Source};
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
    pub bytes_raw: u64,
    /// Wall-clock time of the log's time 0, nanoseconds since the Unix epoch; 0 if the log is empty.
    pub start_unix_ns: u64,
    /// Time of the last record, nanoseconds since the start.
    pub last_time_ns: u64,
    pub epochs: u64,
    pub end: Option<End>,
    /// First record that was not written (`OnFull::Continue`).
    pub incomplete_from: Option<u64>,
}

/// Summarises the log in `dir` from its block headers, its beginning and its end.
///
/// # Errors
/// [`LogError`] if it can't be read, or is damaged in these places.
pub fn summarize(dir: &Path) -> Result<LogSummary, LogError> {
    let mut reader = LogReader::open(dir)?;
    let mut summary = LogSummary {
        incomplete_from: reader.first_lost_seq()?,
        last_seq: reader.last_seq()?,
        segments: reader.segments().len() as u64,
        ..LogSummary::default()
    };
    if let Some(first) = reader.next()?
        && first.call() == CALL_START
    {
        summary.start_unix_ns = first.args().get(1).copied().unwrap_or(0);
    }
    for block in reader.blocks() {
        let block = block?;
        summary.blocks += 1;
        summary.records += u64::from(block.record_count);
        summary.bytes_stored += u64::from(block.stored_len);
        summary.bytes_raw += u64::from(block.raw_len);
        summary.last_time_ns = block.last_time_ns;
    }
    summary.epochs = reader.segments().last().map_or(0, |last| u64::from(last.start.epoch) + 1);
    if let Ok(Some(record)) = reader.last() {
        summary.end = End::of(&&record);
    }
    Ok(summary)
}

/// A log as lines of text or pieces of output, in batches; also one that is still being written.
#[derive(Debug)]
pub struct LogView {
    reader: LogReader,
    output: Output,
    start_unix_ns: u64,
    ended: bool,
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
    /// Opens the log in `dir` at its first record.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let mut view =
            LogView { reader: LogReader::open(dir)?, output: Output::default(), start_unix_ns: 0, ended: false };
        if let Some(first) = view.reader.next()?
            && first.call() == CALL_START
        {
            view.start_unix_ns = first.args().get(1).copied().unwrap_or(0);
        }
        view.reader.seek(0)?;
        Ok(view)
    }

    /// The log's reader, for seeking.
    pub fn reader(&mut self) -> &mut LogReader {
        &mut self.reader
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
        if options.absolute {
            strace.timestamps = Timestamps::Absolute { zero_ns: self.start_unix_ns };
        }
        let mut lines = Vec::new();
        while lines.len() < records_max {
            let Some(record) = self.reader.next()? else { break };
            if options.until_time_ns.is_some_and(|until| record.time_ns() > until) {
                break;
            }
            self.ended |= record.call() == CALL_END;
            if options.calls.is_empty() || options.calls.contains(&record.call()) {
                lines.push(if options.json {
                    strace::record_json(&record, &strace)
                } else {
                    strace::record_line(&record, &strace)
                });
            }
        }
        Ok(lines)
    }

    /// The next output of the guest, until about `bytes_max` bytes are there. Empty at the end of what there is now.
    ///
    /// # Errors
    /// [`LogError`] where the log is damaged; what is before it was returned.
    pub fn output(&mut self, bytes_max: usize) -> Result<Vec<Piece>, LogError> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(record) = self.reader.next()? else { break };
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
        Ok(pieces)
    }
}
