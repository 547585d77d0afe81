//! How a process ended, as the log's last record says it.

use std::fmt;

use super::record::{CALL_END, Head, Record, Sink, SinkError};
use crate::system::{End, Kill};

/// Kinds on the wire: part of the log format.
const EXIT: u64 = 0;
const TRAP: u64 = 1;
const SIGNAL: u64 = 2;
const LIMIT: u64 = 3;

impl End {
    /// The record's arguments (kind and code) and the message that it carries as sent bytes.
    pub fn encode(&self) -> ([u64; 2], &str) {
        match self {
            End::Exit(code) => ([EXIT, u64::from(*code)], ""),
            End::Trap { message } => ([TRAP, 0], message),
            End::Killed(Kill::Signal(number)) => ([SIGNAL, u64::from(*number)], ""),
            End::Killed(Kill::Limit(reason)) => ([LIMIT, 0], reason),
        }
    }

    /// The inverse of [`End::encode`]; `None` for what this build doesn't know.
    pub fn decode(args: &[u64], message: &[u8]) -> Option<Self> {
        let text = || String::from_utf8_lossy(message).into_owned();
        match *args {
            [EXIT, code] => Some(End::Exit(u32::try_from(code).ok()?)),
            [TRAP, 0] => Some(End::Trap { message: text() }),
            [SIGNAL, number] => Some(End::Killed(Kill::Signal(u8::try_from(number).ok()?))),
            [LIMIT, 0] => Some(End::Killed(Kill::Limit(text()))),
            _ => None,
        }
    }

    /// The end that a record tells of, `None` if it is no end record or not one that this build knows.
    pub fn of(record: &impl Record) -> Option<Self> {
        if record.call() != CALL_END {
            return None;
        }
        let message = record.sent().next().map_or(&[][..], |(_, bytes)| bytes);
        End::decode(record.args(), message)
    }

    /// Appends the end record. To be called by the run's owner, once nothing can follow.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn append_to(&self, sink: &mut impl Sink, time_ns: u64) -> Result<u64, SinkError> {
        let (args, message) = self.encode();
        let sent = (!message.is_empty()).then_some((0, message.as_bytes())).into_iter();
        sink.append(&Head { call: CALL_END, errno: 0, time_ns }, &args, std::iter::empty(), sent)
    }

    /// Whether both ends are of one kind with one code. Messages may differ: they are for people.
    pub fn agrees_with(&self, other: &End) -> bool {
        self.encode().0 == other.encode().0
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exit(code) => write!(f, "exit with code {code}"),
            End::Trap { message } => write!(f, "trap: {}", message.lines().next().unwrap_or("unknown")),
            End::Killed(Kill::Signal(number)) => write!(f, "killed by signal {number}"),
            End::Killed(Kill::Limit(reason)) => write!(f, "killed: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::MemorySink;

    #[test]
    fn ends_survive_the_log() {
        let ends = [
            End::Exit(0),
            End::Exit(u32::MAX),
            End::Trap { message: "unreachable\n  at main.main".into() },
            End::Trap { message: String::new() },
            End::Killed(Kill::Signal(9)),
            End::Killed(Kill::Limit("memory limit of 64 MiB".into())),
        ];
        for end in ends {
            let mut sink = MemorySink::default();
            end.append_to(&mut sink, 5).unwrap();
            assert_eq!(End::of(&&sink.records[0]), Some(end));
        }
    }

    #[test]
    fn unknown_ends_are_not_guessed() {
        assert_eq!(End::decode(&[], b""), None);
        assert_eq!(End::decode(&[9, 0], b""), None);
        assert_eq!(End::decode(&[EXIT, 1 << 32], b""), None);
        assert_eq!(End::decode(&[SIGNAL, 256], b""), None);
    }
}
