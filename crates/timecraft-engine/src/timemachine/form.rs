//! How traces look: times, harmless text, dumps of bytes, and data as JSON or YAML.

use std::fmt::Write as _;

use crate::strace::{Hexdump, Timestamps, write_json_string, write_timestamp, write_utc};

/// What a trace consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    #[default]
    Text,
    /// An object a line.
    Json,
    /// A document each.
    Yaml,
}

/// What stands before a line of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamp {
    None,
    /// Seconds since the process began.
    Relative,
    /// Date and time in UTC.
    #[default]
    Absolute,
}

/// A record's place in the log and in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub seq: u64,
    /// Since the start of the process, nanoseconds.
    pub time_ns: u64,
    /// Since the Unix epoch, nanoseconds.
    pub unix_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

/// Writes times. Most lines are of the same second as the one before.
#[derive(Clone, Debug, Default)]
pub struct Times {
    second: u64,
    /// `2023-06-30T08:13:20.`
    prefix: String,
}

impl Times {
    /// Appends what stands before a line, with a space behind it.
    pub fn stamp(&mut self, out: &mut String, moment: Moment, stamp: Stamp) {
        match stamp {
            Stamp::None => {}
            Stamp::Relative => write_timestamp(out, moment.time_ns, Timestamps::Relative),
            Stamp::Absolute => {
                let at = out.len();
                self.write(out, moment.unix_ns);
                out.truncate(out.len() - 1);
                out.replace_range(at + 4..at + 5, "/");
                out.replace_range(at + 7..at + 8, "/");
                out.replace_range(at + 10..at + 11, " ");
                out.push(' ');
            }
        }
    }

    /// Appends a time as RFC 3339 has it, in UTC and to the microsecond.
    fn write(&mut self, out: &mut String, unix_ns: u64) {
        let second = unix_ns / SECOND_NS;
        if second != self.second || self.prefix.is_empty() {
            self.second = second;
            self.prefix.clear();
            write_utc(&mut self.prefix, second * SECOND_NS);
            self.prefix.truncate(self.prefix.len() - "000000Z".len());
        }
        out.push_str(&self.prefix);
        push_padded(out, unix_ns % SECOND_NS / 1_000, 6);
        out.push('Z');
    }
}

/// Appends a number.
pub fn push_number(out: &mut String, number: u64) {
    let digits = number.checked_ilog10().unwrap_or(0) + 1;
    push_padded(out, number, digits as usize);
}

/// Appends a number's last digits: what `write!` does, several times as fast.
fn push_padded(out: &mut String, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    for digit in text[..digits].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.push_str(str::from_utf8(&text[..digits]).unwrap_or_default());
}

/// Appends nanoseconds as milliseconds: `3379.123 ms`.
pub fn push_ms(out: &mut String, ns: u64) {
    push_number(out, ns / 1_000_000);
    out.push('.');
    push_padded(out, ns % 1_000_000 / 1_000, 3);
    out.push_str(" ms");
}

/// Appends bytes as one line of text, with nothing in it that a terminal would obey, or that reads as what it isn't.
pub fn push_harmless(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            out.push_str(text);
        } else {
            text.chars().for_each(|char| push_harmless_char(out, char));
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

fn push_harmless_char(out: &mut String, char: char) {
    let _ = match char {
        '\t' => write!(out, "\\t"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        _ if char.is_control() => write!(out, "\\x{:02x}", u32::from(char)),
        // What turns the direction of text, or ends a line for some.
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            write!(out, "\\u{:04x}", u32::from(char))
        }
        _ => {
            out.push(char);
            Ok(())
        }
    };
}

/// Whether bytes are text for people: UTF-8, of which the last character may be cut off, with no control characters but
/// those of terminals and printers.
pub fn is_text(bytes: &[u8]) -> bool {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    text.bytes().all(|byte| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r' | 0x08 | 0x0c | 0x1b))
}

/// Appends bytes in hexadecimal and as text, 16 a line.
pub fn push_hexdump(out: &mut String, indent: &str, bytes: &[u8]) {
    for (index, row) in bytes.chunks(16).enumerate() {
        let _ = writeln!(out, "{indent}{}", Hexdump { base: index * 16, bytes: row });
    }
}

/// Writes an object as JSON, or a document as YAML: fields in order, objects and lists within. Text is ASCII alone.
#[derive(Debug)]
pub struct Fields<'o> {
    out: &'o mut String,
    times: &'o mut Times,
    form: Form,
    /// Of objects around this one.
    depth: usize,
    /// Whether a dash of a list stands where the first field's indent would.
    in_list: bool,
    is_empty: bool,
}

impl<'o> Fields<'o> {
    /// Writes what `fill` says as one line of JSON, or one document of YAML. `form` is not text.
    pub fn document(out: &'o mut String, times: &'o mut Times, form: Form, fill: impl FnOnce(&mut Fields<'_>)) {
        debug_assert_ne!(form, Form::Text);
        out.push_str(if form == Form::Json { "{" } else { "---\n" });
        let mut fields = Fields { out, times, form, depth: 0, in_list: false, is_empty: true };
        fill(&mut fields);
        if form == Form::Json {
            out.push_str("}\n");
        }
    }

    fn name(&mut self, name: &str) {
        if self.form == Form::Json {
            self.out.push_str(if self.is_empty { "\"" } else { ",\"" });
            self.out.push_str(name);
            self.out.push_str("\":");
        } else {
            if !(self.in_list && self.is_empty) {
                (0..self.depth).for_each(|_| self.out.push_str("  "));
            }
            self.out.push_str(name);
            self.out.push(':');
        }
        self.is_empty = false;
    }

    /// What comes between a name and a value on its line.
    fn value(&mut self, name: &str) -> &mut String {
        self.name(name);
        if self.form == Form::Yaml {
            self.out.push(' ');
        }
        self.out
    }

    fn end_value(&mut self) {
        if self.form == Form::Yaml {
            self.out.push('\n');
        }
    }

    pub fn none(&mut self, name: &str) {
        self.value(name).push_str("null");
        self.end_value();
    }

    pub fn flag(&mut self, name: &str, flag: bool) {
        self.value(name).push_str(if flag { "true" } else { "false" });
        self.end_value();
    }

    pub fn number(&mut self, name: &str, number: u64) {
        push_number(self.value(name), number);
        self.end_value();
    }

    pub fn text(&mut self, name: &str, text: &str) {
        self.value(name);
        self.string(text);
        self.end_value();
    }

    /// Text, or null.
    pub fn optional(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.none(name),
        }
    }

    pub fn numbers(&mut self, name: &str, numbers: &[u16]) {
        self.value(name).push('[');
        for (index, number) in numbers.iter().enumerate() {
            self.out.push_str(if index == 0 { "" } else { ", " });
            push_number(self.out, u64::from(*number));
        }
        self.out.push(']');
        self.end_value();
    }

    /// When it was: `time`, RFC 3339, and `time_ns`, since the start of the process.
    pub fn moment(&mut self, moment: Moment) {
        self.value("time").push('"');
        self.times.write(self.out, moment.unix_ns);
        self.out.push('"');
        self.end_value();
        self.number("time_ns", moment.time_ns);
        self.number("seq", moment.seq);
    }

    /// Text of a protocol that says nothing of its encoding: UTF-8 if it can be, else Latin-1.
    pub fn text_bytes(&mut self, name: &str, bytes: &[u8]) {
        match str::from_utf8(bytes) {
            Ok(text) => self.text(name, text),
            Err(_) => self.text(name, &bytes.iter().map(|byte| *byte as char).collect::<String>()),
        }
    }

    /// Bytes: `text` if they are UTF-8, but for a last character that is cut off, else `hex`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let text = match str::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() => str::from_utf8(&bytes[..error.valid_up_to()]).ok(),
            Err(_) => None,
        };
        if let Some(text) = text {
            return self.text("text", text);
        }
        self.value("hex").push('"');
        for byte in bytes {
            let _ = write!(self.out, "{byte:02x}");
        }
        self.out.push('"');
        self.end_value();
    }

    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Fields<'_>)) {
        self.name(name);
        self.out.push(if self.form == Form::Json { '{' } else { '\n' });
        let (out, times, form, depth) = (&mut *self.out, &mut *self.times, self.form, self.depth + 1);
        fill(&mut Fields { out, times, form, depth, in_list: false, is_empty: true });
        if self.form == Form::Json {
            self.out.push('}');
        }
    }

    /// A list of objects.
    pub fn list<T>(&mut self, name: &str, items: impl Iterator<Item = T>, fill: impl Fn(&mut Fields<'_>, T)) {
        self.name(name);
        let start = self.out.len();
        for (index, item) in items.enumerate() {
            if self.form == Form::Json {
                self.out.push_str(if index == 0 { "[{" } else { ",{" });
            } else {
                self.out.push_str(if index == 0 { "\n" } else { "" });
                (0..self.depth).for_each(|_| self.out.push_str("  "));
                self.out.push_str("- ");
            }
            let (out, times, form, depth) = (&mut *self.out, &mut *self.times, self.form, self.depth + 1);
            fill(&mut Fields { out, times, form, depth, in_list: true, is_empty: true }, item);
            if self.form == Form::Json {
                self.out.push('}');
            }
        }
        let is_empty = self.out.len() == start;
        self.out.push_str(match (self.form, is_empty) {
            (Form::Json, true) => "[]",
            (Form::Json, false) => "]",
            (_, true) => " []\n",
            (_, false) => "",
        });
    }

    /// A quoted string. JSON's escapes are YAML's too, but for what is beyond 16 bits.
    fn string(&mut self, text: &str) {
        if self.form == Form::Json || text.chars().all(|char| u32::from(char) < 0x1_0000) {
            return write_json_string(self.out, text);
        }
        self.out.push('"');
        for char in text.chars() {
            if u32::from(char) < 0x1_0000 {
                let at = self.out.len();
                write_json_string(self.out, char.encode_utf8(&mut [0; 4]));
                self.out.truncate(self.out.len() - 1);
                self.out.remove(at);
            } else {
                let _ = write!(self.out, "\\U{:08x}", u32::from(char));
            }
        }
        self.out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { seq: 7, time_ns: 12_345_678_901, unix_ns: 1_688_112_800_463_329_000 };

    #[test]
    fn stamps_come_in_three_forms() {
        let stamp = |stamp| {
            let mut out = String::new();
            Times::default().stamp(&mut out, MOMENT, stamp);
            out
        };
        assert_eq!(stamp(Stamp::None), "");
        assert_eq!(stamp(Stamp::Relative), "    12.345678 ");
        assert_eq!(stamp(Stamp::Absolute), "2023/06/30 08:13:20.463329 ");
    }

    #[test]
    fn times_of_other_seconds_are_told_apart() {
        let mut times = Times::default();
        let mut of = |unix_ns| {
            let mut out = String::new();
            times.write(&mut out, unix_ns);
            out
        };
        assert_eq!(of(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(of(999_999), "1970-01-01T00:00:00.000999Z");
        assert_eq!(of(1_000_000_000), "1970-01-01T00:00:01.000000Z");
        assert_eq!(of(5), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn numbers_print_as_they_do_elsewhere() {
        for number in [0, 1, 9, 10, 99, 100, 12_345_678, u64::MAX] {
            let mut out = String::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string());
        }
        let mut out = String::new();
        push_ms(&mut out, 3_379_123_999);
        assert_eq!(out, "3379.123 ms");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let shown = |bytes: &[u8]| {
            let mut out = String::new();
            push_harmless(&mut out, bytes);
            out
        };
        assert_eq!(shown(b"\x1b[2J\r\n\x9b\x7f\0"), "\\x1b[2J\\r\\n\\x9b\\x7f\\x00");
        assert_eq!(shown("h\u{e9}\u{202e}\u{9b}\u{2028}\u{1f600}".as_bytes()), "h\u{e9}\\u202e\\x9b\\u2028\u{1f600}");
        let all: Vec<u8> = (0..=255).collect();
        assert!(!shown(&all).chars().any(char::is_control));
    }

    #[test]
    fn text_is_what_people_read() {
        assert!(is_text(b"") && is_text(b"a\tb\r\n\x1b[0m") && is_text("\u{e9}".as_bytes()));
        assert!(is_text(&"x\u{1f600}".as_bytes()[..3]), "cut within a character");
        assert!(!is_text(b"\0") && !is_text(b"\xff\xfe") && !is_text(b"\xffabc"));
    }

    fn document(form: Form) -> String {
        let (mut out, mut times) = (String::new(), Times::default());
        Fields::document(&mut out, &mut times, form, |fields| {
            fields.moment(MOMENT);
            fields.optional("missing", None);
            fields.text("name", "a\"\u{1b}\u{e9}\u{1f600}");
            fields.numbers("interim", &[100, 103]);
            fields.object("inner", |fields| {
                fields.flag("flag", true);
                fields.bytes(b"\xff\0");
                let pairs = [("A", "1"), ("B", "2")];
                fields.list("pairs", pairs.into_iter(), |fields, (name, value)| {
                    fields.text("name", name);
                    fields.text("value", value);
                });
            });
            fields.list("empty", std::iter::empty::<()>(), |_, ()| {});
            fields.text_bytes("latin", b"caf\xe9");
        });
        out
    }

    #[test]
    fn objects_are_a_line_of_json() {
        assert_eq!(
            document(Form::Json),
            "{\"time\":\"2023-06-30T08:13:20.463329Z\",\"time_ns\":12345678901,\"seq\":7,\"missing\":null,\
             \"name\":\"a\\\"\\u001b\\u00e9\\ud83d\\ude00\",\"interim\":[100, 103],\"inner\":{\"flag\":true,\
             \"hex\":\"ff00\",\"pairs\":[{\"name\":\"A\",\"value\":\"1\"},{\"name\":\"B\",\"value\":\"2\"}]},\
             \"empty\":[],\"latin\":\"caf\\u00e9\"}\n"
        );
    }

    #[test]
    fn objects_are_documents_of_yaml() {
        assert_eq!(
            document(Form::Yaml),
            "---\ntime: \"2023-06-30T08:13:20.463329Z\"\ntime_ns: 12345678901\nseq: 7\nmissing: null\n\
             name: \"a\\\"\\u001b\\u00e9\\U0001f600\"\ninterim: [100, 103]\ninner:\n  flag: true\n  hex: \"ff00\"\n  \
             pairs:\n  - name: \"A\"\n    value: \"1\"\n  - name: \"B\"\n    value: \"2\"\n\
             empty: []\nlatin: \"caf\\u00e9\"\n"
        );
    }
}
