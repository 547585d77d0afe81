//! Records as decorators see them, and the two small interfaces to whatever keeps them.
//!
//! [`Sink`] takes what a recorder writes, [`Source`] gives what a replayer reads. The log on disk implements them, and
//! so does memory ([`MemorySink`], [`MemorySource`]), which tests and simulation use.

pub use timecraft_log::{CALL_END, CALL_START, CONTROL_BASE, Head};
use timecraft_log::{LogError, LogReader, RecordView, RingWriter};

use crate::reference::Reference;

/// One record, however it is kept.
pub trait Record {
    /// The record's number, from 0.
    fn seq(&self) -> u64;
    fn call(&self) -> u16;
    fn errno(&self) -> u16;
    fn time_ns(&self) -> u64;
    /// The raw arguments.
    fn args(&self) -> &[u64];
    /// Regions of guest memory that the call wrote, in order.
    fn written(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone;
    /// Regions of guest memory that the call read as input, in order.
    fn sent(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone;
    /// Whether the last region of `sent` stands for the data that the guest sent: its pointer is their size, its bytes
    /// are their digest.
    fn digested(&self) -> bool {
        false
    }

    /// The regions of `sent` that are there, without the one that is a digest.
    fn inputs(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.sent().take(if self.digested() { self.sent().count().saturating_sub(1) } else { usize::MAX })
    }

    /// What the first written region really holds, if it couldn't be had.
    fn reference(&self) -> Option<Reference<'_>> {
        None
    }
}

/// Why a sink couldn't take a record, for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Why a source can't give its next record, for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The log is damaged here.
    #[error("{0}")]
    Log(String),
    /// The log is whole, but a file that it refers to is not what it was.
    #[error("{0}")]
    Input(String),
}

/// Where records go.
pub trait Sink: Send {
    /// Appends a record and returns its number.
    ///
    /// # Errors
    /// When the record is not kept, and no later one will be.
    fn append<'m>(
        &mut self,
        head: &Head,
        args: &[u64],
        written: impl Iterator<Item = (u32, &'m [u8])> + Clone,
        sent: impl Iterator<Item = (u32, &'m [u8])> + Clone,
    ) -> Result<u64, SinkError>;

    /// Comes before each call that others can see an effect of. A sink that promises that nothing which led to an
    /// output is ever lost returns once all that was appended is safe.
    ///
    /// # Errors
    /// As for `append`; the call isn't made then.
    fn before_output(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Where records come from, in order.
pub trait Source: Send {
    type Record<'a>: Record
    where
        Self: 'a;

    /// The next record, `None` behind the last.
    ///
    /// # Errors
    /// When the log is damaged here. The error stands: later calls return it again.
    fn next(&mut self) -> Result<Option<Self::Record<'_>>, SourceError>;

    /// The last record if it is the process's end ([`CALL_END`]), without moving. A replay asks once, at its start.
    ///
    /// # Errors
    /// When the log's tail can't be read.
    fn last(&mut self) -> Result<Option<OwnedRecord>, SourceError>;
}

/// A record with its own memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    pub seq: u64,
    pub call: u16,
    pub errno: u16,
    pub time_ns: u64,
    pub args: Vec<u64>,
    pub written: Vec<(u32, Vec<u8>)>,
    pub sent: Vec<(u32, Vec<u8>)>,
}

impl OwnedRecord {
    /// A copy of any record.
    pub fn copy_of(record: &impl Record) -> Self {
        OwnedRecord {
            seq: record.seq(),
            call: record.call(),
            errno: record.errno(),
            time_ns: record.time_ns(),
            args: record.args().to_vec(),
            written: record.written().map(|(ptr, bytes)| (ptr, bytes.to_vec())).collect(),
            sent: record.sent().map(|(ptr, bytes)| (ptr, bytes.to_vec())).collect(),
        }
    }
}

impl Record for &OwnedRecord {
    fn seq(&self) -> u64 {
        self.seq
    }

    fn call(&self) -> u16 {
        self.call
    }

    fn errno(&self) -> u16 {
        self.errno
    }

    fn time_ns(&self) -> u64 {
        self.time_ns
    }

    fn args(&self) -> &[u64] {
        &self.args
    }

    fn written(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.written.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice()))
    }

    fn sent(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.sent.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice()))
    }
}

impl Record for RecordView<'_> {
    #[inline]
    fn seq(&self) -> u64 {
        self.seq()
    }

    #[inline]
    fn call(&self) -> u16 {
        self.call()
    }

    #[inline]
    fn errno(&self) -> u16 {
        self.errno()
    }

    #[inline]
    fn time_ns(&self) -> u64 {
        self.time_ns()
    }

    #[inline]
    fn args(&self) -> &[u64] {
        self.args()
    }

    #[inline]
    fn written(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.written()
    }

    #[inline]
    fn sent(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.sent()
    }

    #[inline]
    fn digested(&self) -> bool {
        self.digested()
    }
}

impl Sink for RingWriter {
    #[inline]
    fn append<'m>(
        &mut self,
        head: &Head,
        args: &[u64],
        written: impl Iterator<Item = (u32, &'m [u8])> + Clone,
        sent: impl Iterator<Item = (u32, &'m [u8])> + Clone,
    ) -> Result<u64, SinkError> {
        self.append(head, args, written, sent).map_err(|error| SinkError(error.to_string()))
    }

    #[inline]
    fn before_output(&mut self) -> Result<(), SinkError> {
        self.sync_before_output().map_err(|error| SinkError(error.to_string()))
    }
}

impl Source for LogReader {
    type Record<'a> = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Result<Option<RecordView<'_>>, SourceError> {
        self.next().map_err(|error| SourceError::Log(error.to_string()))
    }

    fn last(&mut self) -> Result<Option<OwnedRecord>, SourceError> {
        // A reader of its own, because this one's place in the log is the replay's.
        last_end(self).map_err(|error| SourceError::Log(error.to_string()))
    }
}

fn last_end(reader: &LogReader) -> Result<Option<OwnedRecord>, LogError> {
    let mut reader = reader.reopen()?;
    let Some(seq) = reader.last_seq()? else { return Ok(None) };
    reader.seek(seq)?;
    let last = reader.next()?.filter(|record| record.call() == CALL_END);
    Ok(last.map(|record| OwnedRecord::copy_of(&record)))
}

/// A log in memory.
#[derive(Clone, Debug)]
pub struct MemorySink {
    pub records: Vec<OwnedRecord>,
    records_max: usize,
}

impl Default for MemorySink {
    fn default() -> Self {
        MemorySink { records: Vec::new(), records_max: usize::MAX }
    }
}

impl MemorySink {
    /// A log that refuses all records beyond the first `records_max`, as a full disk would.
    pub fn with_limit(records_max: usize) -> Self {
        MemorySink { records: Vec::new(), records_max }
    }
}

impl Sink for MemorySink {
    fn append<'m>(
        &mut self,
        head: &Head,
        args: &[u64],
        written: impl Iterator<Item = (u32, &'m [u8])> + Clone,
        sent: impl Iterator<Item = (u32, &'m [u8])> + Clone,
    ) -> Result<u64, SinkError> {
        if self.records.len() >= self.records_max {
            return Err(SinkError(format!("the log is full ({} records)", self.records_max)));
        }
        let seq = self.records.len() as u64;
        self.records.push(OwnedRecord {
            seq,
            call: head.call,
            errno: head.errno,
            time_ns: head.time_ns,
            args: args.to_vec(),
            written: written.map(|(ptr, bytes)| (ptr, bytes.to_vec())).collect(),
            sent: sent.map(|(ptr, bytes)| (ptr, bytes.to_vec())).collect(),
        });
        Ok(seq)
    }
}

/// Reads records from memory, and can be told to fail where a damaged log would.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    records: Vec<OwnedRecord>,
    next: usize,
    damage: Option<SourceError>,
}

impl MemorySource {
    pub fn new(records: Vec<OwnedRecord>) -> Self {
        MemorySource { records, next: 0, damage: None }
    }

    /// The same, with damage behind the last record.
    pub fn damaged(records: Vec<OwnedRecord>, error: &str) -> Self {
        MemorySource { records, next: 0, damage: Some(SourceError::Log(error.to_owned())) }
    }
}

impl Source for MemorySource {
    type Record<'a> = &'a OwnedRecord;

    fn next(&mut self) -> Result<Option<&OwnedRecord>, SourceError> {
        let Some(record) = self.records.get(self.next) else {
            return self.damage.clone().map_or(Ok(None), Err);
        };
        self.next += 1;
        Ok(Some(record))
    }

    fn last(&mut self) -> Result<Option<OwnedRecord>, SourceError> {
        match &self.damage {
            Some(error) => Err(error.clone()),
            None => Ok(self.records.last().filter(|record| record.call == CALL_END).cloned()),
        }
    }
}
