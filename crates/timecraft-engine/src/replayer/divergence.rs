//! The first place where a guest did something else than the log says.

use std::fmt;

use super::inputs;
use crate::recorder::{End, OwnedRecord, Record};
use crate::strace::{self, CallView, Hexdump};
use crate::{Call, Errno, Memory};

/// Where and how a replay and its log part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Number of the record that was due.
    pub seq: u64,
    /// What the log says comes here.
    pub expected: Expected,
    /// What the guest did.
    pub actual: Actual,
    pub kind: DivergenceKind,
    /// Where in its code the guest was. The engine fills it in: only it can walk the guest's stack.
    pub backtrace: Option<String>,
}

/// The log's side of a divergence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Call(OwnedRecord),
    End(End),
}

/// The guest's side of a divergence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actual {
    Call {
        call: Call,
        args: Vec<u64>,
        /// What the call would have read from guest memory, as far as it lies there.
        inputs: Vec<(u32, Vec<u8>)>,
    },
    End(End),
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DivergenceKind {
    /// The guest made another call.
    UnexpectedCall,
    /// The same call with another argument; `index` counts raw arguments.
    UnexpectedArgument { index: usize },
    /// The same arguments, but they point to other bytes: the first difference is `offset` bytes into the recorded
    /// region number `region`. The excerpts begin at a multiple of 16 bytes into it, at or before `offset`.
    UnexpectedInput { region: usize, ptr: u32, offset: usize, expected: Vec<u8>, actual: Vec<u8> },
    /// Only a digest of the input was recorded, and the guest's input has another one.
    UnexpectedDigest,
    /// A recorded region lies outside of the guest's memory.
    OutOfMemory { ptr: u32, len: u32, memory_bytes: usize },
    /// The guest ended where the log has a call.
    UnexpectedEnd,
    /// The guest ended as the log says, but otherwise.
    DifferentEnd,
    /// The guest made a call where the log has its end.
    UnexpectedContinuation,
}

impl Divergence {
    #[cold]
    pub(super) fn at_call(
        record: &impl Record,
        kind: DivergenceKind,
        call: Call,
        args: &[u64],
        memory: &Memory<'_>,
    ) -> Box<Self> {
        Box::new(Divergence {
            seq: record.seq(),
            expected: Expected::Call(OwnedRecord::copy_of(record)),
            actual: Actual::of(call, args, memory),
            kind,
            backtrace: None,
        })
    }

    #[cold]
    pub(super) fn at_end(seq: u64, end: End, call: Call, args: &[u64], memory: &Memory<'_>) -> Box<Self> {
        Box::new(Divergence {
            seq,
            expected: Expected::End(end),
            actual: Actual::of(call, args, memory),
            kind: DivergenceKind::UnexpectedContinuation,
            backtrace: None,
        })
    }

    /// What differs, in a sentence.
    fn difference(&self) -> String {
        match &self.kind {
            DivergenceKind::UnexpectedCall => match (&self.expected, &self.actual) {
                (Expected::Call(record), Actual::Call { call, .. }) => {
                    format!("the guest called {}, not {}", call.name(), name_of(record.call))
                }
                _ => "the guest made another call".into(),
            },
            DivergenceKind::UnexpectedArgument { index } => self.argument_difference(*index),
            DivergenceKind::UnexpectedInput { ptr, offset, .. } => {
                format!("input at {:#x}, from byte {offset} of the region at {ptr:#x}", *ptr as usize + offset)
            }
            DivergenceKind::UnexpectedDigest => "the bytes sent have another digest".into(),
            DivergenceKind::OutOfMemory { ptr, len, memory_bytes } => {
                format!("{len} recorded bytes at {ptr:#x} lie outside of the guest's memory of {memory_bytes} bytes")
            }
            DivergenceKind::UnexpectedEnd => "the guest ended where the log has a call".into(),
            DivergenceKind::DifferentEnd => "the guest ended otherwise".into(),
            DivergenceKind::UnexpectedContinuation => "the guest went on where the log ends".into(),
        }
    }

    fn argument_difference(&self, index: usize) -> String {
        let (Expected::Call(record), Actual::Call { call, args, .. }) = (&self.expected, &self.actual) else {
            return format!("argument {index}");
        };
        let value = |args: &[u64]| args.get(index).map_or_else(|| "absent".to_owned(), |value| format!("{value:#x}"));
        format!("argument {} is {}, not {}", argument_name(*call, index), value(args), value(&record.args))
    }
}

impl Actual {
    fn of(call: Call, args: &[u64], memory: &Memory<'_>) -> Self {
        Actual::Call { call, args: args.to_vec(), inputs: inputs::excerpts(call, args, memory) }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (&self.expected, &self.actual) {
            (Expected::Call(record), _) => name_of(record.call),
            (Expected::End(_), _) => "the end".to_owned(),
        };
        writeln!(f, "the replay diverged from the log at record {} ({name})", self.seq)?;
        writeln!(f, "  recorded: {}", self.expected)?;
        writeln!(f, "  replayed: {}", self.actual)?;
        write!(f, "  differs:  {}", self.difference())?;
        if let DivergenceKind::UnexpectedInput { offset, expected, actual, .. } = &self.kind {
            let base = offset - offset % 16;
            write!(f, "\n    recorded  {}", Hexdump { base, bytes: expected })?;
            write!(f, "\n    replayed  {}", Hexdump { base, bytes: actual })?;
        }
        if let Some(backtrace) = &self.backtrace {
            write!(f, "\n  guest backtrace:")?;
            for line in backtrace.lines() {
                write!(f, "\n    {}", line.trim())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Call(record) => f.write_str(&strace::record_line(&record, &strace::Options::default())),
            Expected::End(end) => end.fmt(f),
        }
    }
}

impl fmt::Display for Actual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actual::Call { call, args, inputs } => {
                let sent: Vec<_> = inputs.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice())).collect();
                let view = CallView { call: *call, args, outcome: None, written: &[], sent: &sent, reference: None };
                f.write_str(&view.line(&strace::Options::default()))
            }
            Actual::End(end) => end.fmt(f),
        }
    }
}

/// The name of a recorded call, also of one that only a newer build knows.
fn name_of(id: u16) -> String {
    Call::from_id(id).map_or_else(|| format!("call {id}"), |call| call.name().to_owned())
}

/// The name of raw argument `index`, e.g. `path` and `path_len` for the two of a path.
fn argument_name(call: Call, index: usize) -> String {
    let mut first = 0;
    for param in call.spec().params {
        let count = param.kind.types().len();
        if index < first + count {
            return if index == first { param.name.to_owned() } else { format!("{}_len", param.name) };
        }
        first += count;
    }
    format!("{index}")
}

/// The error number that a record holds.
pub(super) fn errno_of(record: &impl Record) -> Result<Errno, String> {
    let raw = record.errno();
    Errno::from_raw(raw).ok_or_else(|| format!("record {} has the unknown error number {raw}", record.seq()))
}
