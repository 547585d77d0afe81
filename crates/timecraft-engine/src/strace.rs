//! Calls as people read them.

use std::fmt;

use crate::recorder::Record;
use crate::{Call, Errno};

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Strings longer than this are cut, bytes.
    pub string_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { string_bytes_max: 32 }
    }
}

/// One call, and what it read and wrote.
#[derive(Clone, Copy, Debug)]
pub struct CallView<'a> {
    pub call: Call,
    pub args: &'a [u64],
    /// What the call returned; `None` if it hasn't.
    pub outcome: Option<Errno>,
    pub written: &'a [(u32, &'a [u8])],
    pub sent: &'a [(u32, &'a [u8])],
}

/// The line of a call.
pub fn line(view: &CallView<'_>, _options: &Options) -> String {
    let args: Vec<_> = view.args.iter().map(|arg| format!("{arg:#x}")).collect();
    format!("{}({})", view.call.name(), args.join(", "))
}

/// The line of a record.
pub fn record_line(record: &impl Record, options: &Options) -> String {
    let (written, sent): (Vec<_>, Vec<_>) = (record.written().collect(), record.sent().collect());
    match Call::from_id(record.call()) {
        None => format!("call {}", record.call()),
        Some(call) => {
            let outcome = Errno::from_raw(record.errno());
            line(&CallView { call, args: record.args(), outcome, written: &written, sent: &sent }, options)
        }
    }
}

/// One line of bytes, in hexadecimal and as text.
#[derive(Debug)]
pub struct Hexdump<'a> {
    /// Offset of the first byte, printed before it.
    pub base: usize,
    /// At most 16 bytes.
    pub bytes: &'a [u8],
}

impl fmt::Display for Hexdump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x} ", self.base)?;
        for index in 0..16 {
            match self.bytes.get(index) {
                Some(byte) => write!(f, " {byte:02x}")?,
                None => f.write_str("   ")?,
            }
        }
        f.write_str("  |")?;
        for byte in self.bytes.iter().take(16) {
            write!(f, "{}", if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' })?;
        }
        f.write_str("|")
    }
}
