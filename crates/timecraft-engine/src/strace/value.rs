//! Decoded values, and how they print: for people as strace does, for programs as JSON.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::Options;

/// A decoded argument or result.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Bool(bool),
    /// An address in guest memory, for what is not known or not worth showing.
    Pointer(u32),
    /// A name, or several joined by `|`.
    Symbol(Cow<'static, str>),
    /// Nanoseconds, shown as seconds.
    Time(u64),
    /// Text or not. `total` is its whole length, bytes, of which `bytes` may be the beginning.
    Bytes {
        bytes: Vec<u8>,
        total: usize,
    },
    /// A guest's buffer: its content and its capacity, bytes.
    Buffer {
        content: Box<Value>,
        capacity: u32,
    },
    List(Vec<Value>),
    Struct(Vec<(&'static str, Value)>),
    /// A result cell.
    Cell(Box<Value>),
    /// People and programs see different things.
    Split {
        text: String,
        fields: Vec<(&'static str, Value)>,
    },
}

impl Value {
    pub fn symbol(name: &'static str) -> Self {
        Value::Symbol(Cow::Borrowed(name))
    }

    pub fn cell(value: Value) -> Self {
        Value::Cell(Box::new(value))
    }

    /// Appends the value as people read it.
    pub fn write_text(&self, out: &mut String, options: &Options) {
        // Writing to a string can't fail.
        let _ = match self {
            Value::Unsigned(value) => write!(out, "{value}"),
            Value::Signed(value) => write!(out, "{value}"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Pointer(ptr) => write!(out, "{ptr:#x}"),
            Value::Symbol(name) => write!(out, "{name}"),
            Value::Time(ns) => write!(out, "{}", Seconds(*ns)),
            Value::Split { text, .. } => write!(out, "{text}"),
            Value::Bytes { bytes, total } => {
                write_quoted(out, bytes, *total, options);
                Ok(())
            }
            Value::Buffer { content, capacity } => {
                out.push('{');
                content.write_text(out, options);
                write!(out, ", {capacity}}}")
            }
            Value::Cell(value) => {
                out.push('[');
                value.write_text(out, options);
                out.write_char(']')
            }
            Value::List(values) => {
                write_list(out, values, options);
                Ok(())
            }
            Value::Struct(fields) => {
                out.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    let _ = write!(out, "{}{name}=", if index == 0 { "" } else { ", " });
                    value.write_text(out, options);
                }
                out.write_char('}')
            }
        };
    }

    /// Appends the value as JSON. Nothing is cut but what `options` says of strings.
    pub fn write_json(&self, out: &mut String, options: &Options) {
        match self {
            Value::Unsigned(value) | Value::Time(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Signed(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Bool(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Pointer(ptr) => {
                let _ = write!(out, "{{\"ptr\":{ptr}}}");
            }
            Value::Symbol(name) => write_json_string(out, name),
            Value::Bytes { bytes, total } => write_json_bytes(out, bytes, *total, options),
            Value::Cell(value) => value.write_json(out, options),
            Value::Buffer { content, capacity } => {
                let _ = write!(out, "{{\"capacity\":{capacity},\"content\":");
                content.write_json(out, options);
                out.push('}');
            }
            Value::List(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    value.write_json(out, options);
                }
                out.push(']');
            }
            Value::Struct(fields) | Value::Split { fields, .. } => {
                write_json_object(out, fields.iter().map(|(name, value)| (*name, value)), options);
            }
        }
    }
}

/// Appends a JSON object.
pub(super) fn write_json_object<'v>(
    out: &mut String,
    fields: impl Iterator<Item = (&'v str, &'v Value)>,
    options: &Options,
) {
    out.push('{');
    for (index, (name, value)) in fields.enumerate() {
        out.push_str(if index == 0 { "" } else { "," });
        write_json_string(out, name);
        out.push(':');
        value.write_json(out, options);
    }
    out.push('}');
}

/// Appends a JSON string of ASCII alone, so that neither a terminal nor a wrong decoder can be fooled by it.
pub(crate) fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        out.push_str(text);
        out.push('"');
        return;
    }
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'"') => out.push_str("\\\""),
            Ok(b'\\') => out.push_str("\\\\"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(byte @ b' '..=b'~') => out.push(byte as char),
            _ => {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.push('"');
}

/// Whole UTF-8 text is a string; all else says what it is.
fn write_json_bytes(out: &mut String, bytes: &[u8], total: usize, options: &Options) {
    let bytes = &bytes[..bytes.len().min(options.string_bytes_max)];
    let whole = bytes.len() == total;
    // A cut may go through a character, which doesn't make the text before it less of a text.
    let text = str::from_utf8(bytes).or_else(|error| match error.error_len() {
        None if !whole => str::from_utf8(&bytes[..error.valid_up_to()]),
        _ => Err(error),
    });
    match (text, whole) {
        (Ok(text), true) => return write_json_string(out, text),
        (Ok(text), false) => {
            let _ = write!(out, "{{\"bytes\":{total},\"text\":");
            write_json_string(out, text);
        }
        (Err(_), _) => {
            let _ = write!(out, "{{\"bytes\":{total},\"hex\":\"");
            for byte in bytes {
                let _ = write!(out, "{byte:02x}");
            }
            out.push('"');
        }
    }
    out.push('}');
}

fn write_list(out: &mut String, values: &[Value], options: &Options) {
    out.push('[');
    for (index, value) in values.iter().enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        if index == options.entries_max {
            out.push_str("...");
            break;
        }
        value.write_text(out, options);
    }
    out.push(']');
}

/// Appends a string as strace does: C escapes, octal for the rest, dots for what is missing. All of it is printable
/// ASCII, whatever the guest has put in there for the reader's terminal.
fn write_quoted(out: &mut String, bytes: &[u8], total: usize, options: &Options) {
    let shown = &bytes[..bytes.len().min(options.string_bytes_max)];
    out.push('"');
    for (index, byte) in shown.iter().enumerate() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => out.push(*byte as char),
            // A digit behind it would be taken for a part of a short escape.
            _ if shown.get(index + 1).is_some_and(u8::is_ascii_digit) => {
                let _ = write!(out, "\\{byte:03o}");
            }
            _ => {
                let _ = write!(out, "\\{byte:o}");
            }
        }
    }
    out.push('"');
    if shown.len() < total {
        out.push_str("...");
    }
}

/// Nanoseconds as seconds.
pub(super) struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Nanoseconds in the largest unit that needs no fraction.
pub(super) struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            ns if ns % 1_000_000_000 == 0 => write!(f, "{}s", ns / 1_000_000_000),
            ns if ns % 1_000_000 == 0 => write!(f, "{}ms", ns / 1_000_000),
            ns if ns % 1_000 == 0 => write!(f, "{}us", ns / 1_000),
            ns => write!(f, "{ns}ns"),
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
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        const TEXT: usize = 60;
        let mut line = *b"00000000                                                   |                |";
        for (index, digit) in line[..8].iter_mut().enumerate() {
            *digit = DIGITS[self.base >> (28 - 4 * index) & 15];
        }
        let row = &self.bytes[..self.bytes.len().min(16)];
        for (column, byte) in row.iter().enumerate() {
            let at = 10 + 3 * column;
            (line[at], line[at + 1]) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
            line[TEXT + column] = if matches!(byte, b' '..=b'~') { *byte } else { b'.' };
        }
        line[TEXT + row.len()] = b'|';
        f.write_str(str::from_utf8(&line[..=TEXT + row.len()]).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: &[u8], total: usize) -> String {
        let mut out = String::new();
        write_quoted(&mut out, bytes, total, &Options::default());
        out
    }

    #[test]
    fn strings_are_escaped_as_strace_does() {
        assert_eq!(quoted(b"a\"b\\c\n\t\r", 8), r#""a\"b\\c\n\t\r""#);
        assert_eq!(quoted(b"\x1b[2J\0", 5), r#""\33[2J\0""#);
        assert_eq!(quoted(b"\x011\x01a", 4), r#""\0011\1a""#);
        assert_eq!(quoted("é\u{202e}".as_bytes(), 5), r#""\303\251\342\200\256""#);
        assert_eq!(quoted(&[b'x'; 40], 40), format!("\"{}\"...", "x".repeat(32)));
        assert_eq!(quoted(b"", 7), "\"\"...");
    }

    #[test]
    fn no_byte_prints_raw_unless_it_is_printable_ascii() {
        let all: Vec<u8> = (0..=255).collect();
        let options = Options { string_bytes_max: usize::MAX, ..Options::default() };
        let (mut text, mut json) = (String::new(), String::new());
        let value = Value::Bytes { bytes: all, total: 256 };
        value.write_text(&mut text, &options);
        value.write_json(&mut json, &options);
        write_json_string(&mut json, "\0\u{1b}\u{7f}\u{9b}\u{202e}\u{1f600}");
        assert!(text.chars().chain(json.chars()).all(|c| (' '..='~').contains(&c)), "{text} {json}");
    }

    #[test]
    fn json_strings_escape_what_json_must() {
        let mut out = String::new();
        write_json_string(&mut out, "a\"\\\n\u{1}\u{1f600}");
        assert_eq!(out, r#""a\"\\\n\u0001\ud83d\ude00""#);
    }

    #[test]
    fn dumps_have_a_line_for_sixteen_bytes() {
        let bytes = b"GET / HTTP/1.1\r\n";
        let line = "01234560  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|";
        assert_eq!(Hexdump { base: 0x0123_4560, bytes }.to_string(), line);
        let line = "00000010  1b 7e 80                                         |.~.|";
        assert_eq!(Hexdump { base: 16, bytes: b"\x1b~\x80" }.to_string(), line);
    }

    #[test]
    fn durations_are_exact_and_short() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500_000_000, "1500ms"),
            (100_000_000, "100ms"),
            (3_000, "3us"),
            (1_001, "1001ns"),
        ];
        for (ns, text) in cases {
            assert_eq!(Duration(ns).to_string(), text);
        }
    }
}
