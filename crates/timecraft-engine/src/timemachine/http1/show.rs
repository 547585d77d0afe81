//! How exchanges look.

use std::fmt::Write as _;

use super::content::decoded;
use super::message::Message;
use super::{Exchange, Side};
use crate::timemachine::form::{Fields, Moment, is_text, push_harmless, push_hexdump, push_ms, push_number};
use crate::timemachine::protocol;

/// What is shown of a first line that can't be told apart, bytes.
const FIRST_LINE_BYTES_MAX: usize = 80;
/// Bytes and lines of bodies stand apart from what the trace says.
const INDENT: &str = "  ";

impl Exchange {
    /// From the first byte of the request to the last of the answer, nanoseconds.
    fn latency_ns(&self) -> Option<u64> {
        Some(self.ended?.time_ns.saturating_sub(self.began.time_ns))
    }

    /// From the first byte of the request to the first of the answer, nanoseconds.
    fn first_byte_ns(&self) -> Option<u64> {
        let response = self.response.as_ref().filter(|_| self.request.is_some())?;
        Some(response.began.time_ns.saturating_sub(self.began.time_ns))
    }

    /// What the connection went on with.
    fn upgrade(&self) -> Option<&[u8]> {
        let response = self.response.as_ref().filter(|_| self.is_upgrade)?;
        Some(response.header("upgrade").unwrap_or(b"a tunnel"))
    }

    fn facts(&self, out: &mut String) {
        out.push_str(" (");
        let start = out.len();
        if let Some(response) = self.response.as_ref().filter(|response| response.has_head()) {
            push_number(out, response.body_bytes);
            out.push_str(if response.body_bytes == 1 { " byte" } else { " bytes" });
            if let Some(latency_ns) = self.latency_ns() {
                out.push_str(" in ");
                push_ms(out, latency_ns);
            }
            if let Some(first_byte_ns) = self.first_byte_ns() {
                out.push_str(", first after ");
                push_ms(out, first_byte_ns);
            }
        }
        if let Some(protocol) = self.upgrade() {
            out.push_str(", went on as ");
            push_harmless(out, protocol);
        }
        if self.side == Side::Server {
            out.push_str(if out.len() == start { "served" } else { ", served" });
        }
        if let Some(problem) = &self.problem {
            out.push_str(if out.len() == start { "" } else { "; " });
            out.push_str(problem);
        }
        out.push(')');
    }
}

impl protocol::Exchange for Exchange {
    fn label(&self) -> &'static str {
        "HTTP"
    }

    fn began(&self) -> Moment {
        self.began
    }

    fn side(&self) -> Side {
        self.side
    }

    fn summary(&self, out: &mut String, color: bool) {
        match &self.request {
            Some(request) if request.has_head() => {
                push_harmless(out, request.part(0));
                out.push(' ');
                push_harmless(out, request.part(1));
            }
            Some(request) => push_first_line(out, &request.head),
            None => out.push('?'),
        }
        out.push_str(" => ");
        let status = self.response.as_ref().filter(|response| response.has_head()).map(Message::status);
        if color {
            let number = match status {
                Some(100..=299) => "32",
                Some(300..=399) => "36",
                Some(400..=499) => "33",
                _ => "31",
            };
            let _ = write!(out, "\x1b[{number}m");
        }
        match &self.response {
            Some(response) if response.has_head() => {
                push_harmless(out, response.part(1));
                if !response.part(2).is_empty() {
                    out.push(' ');
                    push_harmless(out, response.part(2));
                }
            }
            Some(response) => push_first_line(out, &response.head),
            None => out.push('?'),
        }
        out.push_str(if color { "\x1b[0m" } else { "" });
        self.facts(out);
    }

    fn details(&self, out: &mut String) {
        if let Some(request) = &self.request {
            push_message(out, "> ", request);
        }
        for status in &self.interim {
            let _ = writeln!(out, "< HTTP/1.1 {status}");
        }
        if let Some(response) = &self.response {
            push_message(out, "< ", response);
        }
    }

    fn fields(&self, fields: &mut Fields<'_>, verbose: bool) {
        for (name, ns) in [("latency_ns", self.latency_ns()), ("first_byte_ns", self.first_byte_ns())] {
            match ns {
                Some(ns) => fields.number(name, ns),
                None => fields.none(name),
            }
        }
        match &self.request {
            Some(request) if request.has_head() => fields.object("request", |fields| {
                fields.text_bytes("method", request.part(0));
                fields.text_bytes("target", request.part(1));
                message_fields(fields, request, request.part(2), verbose);
            }),
            _ => fields.none("request"),
        }
        fields.numbers("interim", &self.interim);
        match &self.response {
            Some(response) if response.has_head() => fields.object("response", |fields| {
                fields.number("status", u64::from(response.status()));
                fields.text_bytes("reason", response.part(2));
                message_fields(fields, response, response.part(0), verbose);
            }),
            _ => fields.none("response"),
        }
        match self.upgrade() {
            Some(protocol) => fields.text_bytes("upgrade", protocol),
            None => fields.none("upgrade"),
        }
        fields.optional("problem", self.problem.as_deref());
    }
}

fn push_first_line(out: &mut String, head: &[u8]) {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    push_harmless(out, &line[..line.len().min(FIRST_LINE_BYTES_MAX)]);
    out.push_str(if line.is_empty() || line.len() > FIRST_LINE_BYTES_MAX { "?" } else { "" });
}

fn push_message(out: &mut String, mark: &str, message: &Message) {
    push_lines(out, mark, &message.head);
    push_body(out, message);
    let trailers = message.trailers.strip_suffix(b"\r\n").unwrap_or(&message.trailers);
    if !trailers.is_empty() {
        push_lines(out, mark, trailers);
    }
}

fn push_lines(out: &mut String, mark: &str, bytes: &[u8]) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        out.push_str(if line.is_empty() { mark.trim_ascii_end() } else { mark });
        push_harmless(out, line);
        out.push('\n');
    }
}

/// The body of a message without its coding, if that is known.
fn plain_body(message: &Message) -> Option<(&[u8], Vec<u8>)> {
    let coding = message.header("content-encoding").filter(|_| !message.body.is_empty())?;
    Some((coding, decoded(coding, &message.body)?))
}

fn push_body(out: &mut String, message: &Message) {
    let plain = plain_body(message);
    if let Some((coding, plain)) = &plain {
        let _ = write!(out, "{INDENT}[");
        push_harmless(out, coding);
        let _ = writeln!(out, ": {} bytes, {} decoded]", message.body_bytes, plain.len());
    }
    let body = plain.as_ref().map_or(&message.body, |(_, plain)| plain);
    if is_text(body) {
        push_lines(out, INDENT, body);
    } else {
        push_hexdump(out, INDENT, body);
    }
    if message.missing_bytes > 0 {
        let _ = writeln!(out, "{INDENT}[{} bytes are not in the log]", message.missing_bytes);
    }
    let more = message.body_bytes - message.missing_bytes.min(message.body_bytes) - message.body.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "{INDENT}[{more} more bytes]");
    }
}

fn message_fields(fields: &mut Fields<'_>, message: &Message, version: &[u8], verbose: bool) {
    fields.text_bytes("version", version);
    fields.number("body_bytes", message.body_bytes);
    if !verbose {
        return;
    }
    let pair = |fields: &mut Fields<'_>, (name, value): (&[u8], &[u8])| {
        fields.text_bytes("name", name);
        fields.text_bytes("value", value);
    };
    fields.list("headers", message.headers(), pair);
    if message.body_bytes > 0 {
        let plain = plain_body(message);
        fields.object("body", |fields| {
            fields.number("kept_bytes", message.body.len() as u64);
            fields.number("missing_bytes", message.missing_bytes);
            fields.bytes(plain.as_ref().map_or(&message.body, |(_, plain)| plain));
            match &plain {
                Some((coding, _)) => fields.text_bytes("decoded_from", coding),
                None => fields.none("decoded_from"),
            }
        });
    }
    fields.list("trailers", message.trailers(), pair);
}
