//! Calls as people read them (lines in the style of strace) and as programs do (JSON).
//!
//! Everything comes from the record alone: raw arguments, and the regions of guest memory that the call read and wrote.
//! A trace of what has happened needs neither the guest nor its memory.

mod decode;
mod names;
mod time;
mod value;

use std::fmt::Write as _;

pub(crate) use time::{write_timestamp, write_utc};
pub use value::Hexdump;
pub(crate) use value::write_json_string;

use crate::recorder::{CALL_END, CALL_START, End, Record};
use crate::reference::Reference;
use crate::{Call, Errno, Kill};
use decode::decode;
use value::Value;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Strings longer than this are cut, bytes.
    pub string_bytes_max: usize,
    /// Lists longer than this are cut. JSON has all entries.
    pub entries_max: usize,
    pub timestamps: Timestamps,
}

/// What stands before a record's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    #[default]
    None,
    /// Seconds since the process began.
    Relative,
    /// UTC; the process began at this time, nanoseconds since the Unix epoch.
    Absolute { zero_ns: u64 },
}

impl Default for Options {
    fn default() -> Self {
        Options { string_bytes_max: 32, entries_max: 32, timestamps: Timestamps::None }
    }
}

impl Options {
    /// Cuts nothing.
    pub fn unabridged() -> Self {
        Options { string_bytes_max: usize::MAX, entries_max: usize::MAX, timestamps: Timestamps::None }
    }
}

/// One call, and what it read and wrote.
#[derive(Clone, Copy, Debug)]
pub struct CallView<'a> {
    pub call: Call,
    pub args: &'a [u64],
    /// What the call returned; `None` if it hasn't, or never does.
    pub outcome: Option<Errno>,
    pub written: &'a [(u32, &'a [u8])],
    pub sent: &'a [(u32, &'a [u8])],
    /// Stands for what the call has read, if that is not at hand.
    pub reference: Option<Reference<'a>>,
}

impl CallView<'_> {
    /// The call as a line, e.g. `fd_write(1, [{"hello\n", 6}], [6]) = 0`.
    pub fn line(&self, options: &Options) -> String {
        let mut out = format!("{}(", self.call.name());
        for (index, decoded) in decode(self).iter().enumerate() {
            out.push_str(if index == 0 { "" } else { ", " });
            decoded.value.write_text(&mut out, options);
        }
        out.push(')');
        match self.outcome {
            _ if !self.call.spec().returns => {}
            None => {}
            Some(Errno::Success) => out.push_str(" = 0"),
            Some(errno) => {
                let _ = write!(out, " = {} ({})", errno.name(), names::message(errno));
            }
        }
        out
    }

    /// The members of the call's JSON object: `call`, `args`, `errno` and `result`, without braces.
    fn write_json(&self, out: &mut String, options: &Options) {
        let decoded = decode(self);
        let _ = write!(out, "\"call\":\"{}\",\"args\":", self.call.name());
        let inputs = decoded.iter().filter(|decoded| !decoded.is_result).map(|decoded| (decoded.name, &decoded.value));
        value::write_json_object(out, inputs, options);
        match self.outcome.filter(|_| self.call.spec().returns) {
            Some(errno) => {
                let _ = write!(out, ",\"errno\":\"{}\"", errno.name());
            }
            None => out.push_str(",\"errno\":null"),
        }
        out.push_str(",\"result\":");
        let results = decoded.iter().filter(|decoded| decoded.is_result && !decoded.is_address);
        value::write_json_object(out, results.map(|decoded| (decoded.name, &decoded.value)), options);
    }
}

/// A record as a line, with its time if the options say so.
pub fn record_line(record: &impl Record, options: &Options) -> String {
    let mut out = String::new();
    time::write_timestamp(&mut out, record.time_ns(), options.timestamps);
    let (written, sent) = regions(record);
    let Some(call) = Call::from_id(record.call()) else {
        write_control(&mut out, record);
        return out;
    };
    let outcome = Errno::from_raw(record.errno());
    let view =
        CallView { call, args: record.args(), outcome, written: &written, sent: &sent, reference: record.reference() };
    out.push_str(&view.line(options));
    if outcome.is_none() {
        let _ = write!(out, " = error {}", record.errno());
    }
    out
}

/// A record as one JSON object: `{"seq", "time_ns", "call", "args": {name: value}, "errno", "result": {name: value}}`.
///
/// Flags are their names joined by `|`; times are nanoseconds; bytes are a string if they are UTF-8 and whole, else an
/// object of their length and what there is of them, as `text` or `hex`.
pub fn record_json(record: &impl Record, options: &Options) -> String {
    let mut out = format!("{{\"seq\":{},\"time_ns\":{},", record.seq(), record.time_ns());
    let (written, sent) = regions(record);
    match Call::from_id(record.call()) {
        Some(call) => {
            let outcome = Errno::from_raw(record.errno());
            let view = CallView {
                call,
                args: record.args(),
                outcome,
                written: &written,
                sent: &sent,
                reference: record.reference(),
            };
            view.write_json(&mut out, options);
        }
        None => write_control_json(&mut out, record, options),
    }
    out.push('}');
    out
}

type RegionList<'a> = Vec<(u32, &'a [u8])>;

/// The record's regions, written and sent. A digest says nothing about the data that it stands for.
fn regions(record: &impl Record) -> (RegionList<'_>, RegionList<'_>) {
    (record.written().collect(), record.inputs().collect())
}

fn write_control(out: &mut String, record: &impl Record) {
    let _ = match (record.call(), End::of(record), record.args()) {
        (_, Some(end), _) => {
            out.push_str("+++ ");
            // A trap's message is the guest's in part.
            for char in end.to_string().chars() {
                let printable = (' '..='~').contains(&char);
                let _ = if printable { out.write_char(char) } else { write!(out, "{}", char.escape_default()) };
            }
            write!(out, " +++")
        }
        (CALL_START, _, [epoch, realtime_ns]) => {
            let _ = write!(out, "+++ epoch {epoch} begins, time 0 is ");
            time::write_utc(out, *realtime_ns);
            write!(out, " +++")
        }
        (id, _, args) => write!(out, "+++ record of kind {id:#x} {args:?} +++"),
    };
}

fn write_control_json(out: &mut String, record: &impl Record, options: &Options) {
    let name = match record.call() {
        CALL_START => "start".to_owned(),
        CALL_END => "end".to_owned(),
        id => format!("{id}"),
    };
    let _ = write!(out, "\"call\":\"{name}\",\"args\":");
    let text = |text: &str| Value::Symbol(text.to_owned().into());
    let fields = match (record.call(), End::of(record), record.args()) {
        (_, Some(End::Exit(code)), _) => vec![("kind", text("exit")), ("code", Value::Unsigned(u64::from(code)))],
        (_, Some(End::Trap { message }), _) => vec![("kind", text("trap")), ("message", text(&message))],
        (_, Some(End::Killed(Kill::Signal(number))), _) => {
            vec![("kind", text("signal")), ("signal", Value::Unsigned(u64::from(number)))]
        }
        (_, Some(End::Killed(Kill::Limit(reason))), _) => vec![("kind", text("limit")), ("message", text(&reason))],
        (CALL_START, _, [epoch, realtime_ns]) => {
            vec![("epoch", Value::Unsigned(*epoch)), ("realtime_ns", Value::Unsigned(*realtime_ns))]
        }
        (_, _, args) => vec![("raw", Value::List(args.iter().map(|arg| Value::Unsigned(*arg)).collect()))],
    };
    value::write_json_object(out, fields.iter().map(|(name, value)| (*name, value)), options);
    out.push_str(",\"errno\":null,\"result\":{}");
}
