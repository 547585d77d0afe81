use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::timemachine::form::{Fields, Form, Times};
use crate::timemachine::protocol::{Budget, Conversation, OPENING_BYTES_MAX};
use crate::timemachine::requests::KEPT_BYTES_MAX;
use Direction::{Received, Sent};

/// One connection, and what came of it.
struct Talk {
    conversation: Conversation,
    budget: Budget,
    at: Moment,
    lines: Vec<String>,
    /// The same as data, with headers and bodies, but without times.
    data: Vec<String>,
    details: String,
}

impl Talk {
    fn new() -> Self {
        Talk::with_budget(KEPT_BYTES_MAX)
    }

    fn with_budget(bytes: usize) -> Self {
        let (conversation, at) = (Conversation::default(), Moment::default());
        let (lines, data, details) = (Vec::new(), Vec::new(), String::new());
        Talk { conversation, budget: Budget::new(bytes), at, lines, data, details }
    }

    fn tell(&mut self, tell: impl FnOnce(&mut Conversation, &mut Scope<'_>)) {
        let mut emit = |exchange: &dyn crate::timemachine::protocol::Exchange| {
            let (mut line, mut data) = (String::new(), String::new());
            exchange.summary(&mut line, false);
            exchange.details(&mut self.details);
            Fields::document(&mut data, &mut Times::default(), Form::Json, |fields| exchange.fields(fields, true));
            self.lines.push(line);
            self.data.push(data);
        };
        let mut scope = Scope { at: self.at, bodies: true, budget: &mut self.budget, emit: &mut emit };
        tell(&mut self.conversation, &mut scope);
    }

    fn pass(&mut self, direction: Direction, bytes: &[u8]) -> &mut Self {
        self.tell(|talk, scope| talk.data(direction, bytes, scope));
        self
    }

    /// The same at a time, microseconds.
    fn pass_at(&mut self, us: u64, direction: Direction, bytes: &[u8]) -> &mut Self {
        self.at = Moment { seq: us, time_ns: us * 1_000, unix_ns: us * 1_000 };
        self.pass(direction, bytes)
    }

    fn missing(&mut self, direction: Direction, bytes: u64) -> &mut Self {
        self.tell(|talk, scope| talk.missing(direction, bytes, scope));
        self
    }

    fn end(&mut self, direction: Direction) -> &mut Self {
        self.tell(|talk, scope| talk.end(direction, scope));
        self
    }

    fn close(&mut self, close: Close) -> &mut Self {
        self.tell(|talk, scope| talk.close(close, scope));
        assert_eq!(self.budget.used(), 0, "what was taken is given back");
        self
    }

    fn closed(&mut self) -> &mut Self {
        self.close(Close::Closed { errno: 0 })
    }

    /// The exchanges so far, without how long they took.
    fn shown(&mut self) -> Vec<String> {
        let without = |line: &String| line.replace(" in 0.000 ms, first after 0.000 ms", "");
        std::mem::take(&mut self.lines).iter().map(without).collect()
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a client sees of one request and one answer.
fn answered(request: &[u8], response: &[u8]) -> Vec<String> {
    Talk::new().pass(Sent, request).pass(Received, response).shown()
}

#[test]
fn requests_and_answers_are_matched_from_both_sides() {
    assert_eq!(answered(b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n", OK), ["GET /x?y=1 => 200 OK (2 bytes)"]);
    let mut server = Talk::new();
    server.pass(Received, b"GET / HTTP/1.0\n\n").pass(Sent, b"HTTP/1.0 404\r\nContent-Length: 1\r\n\r\n.");
    assert_eq!(server.shown(), ["GET / => 404 (1 byte, served)"]);
    assert_eq!(server.closed().shown(), [""; 0]);
}

#[test]
fn a_kept_alive_connection_has_an_exchange_each_with_its_own_times() {
    let mut talk = Talk::new();
    for number in 1..=3 {
        let at = number * 1_000;
        talk.pass_at(at, Sent, b"GET / HT").pass_at(at + 1, Sent, b"TP/1.1\r\n\r\n");
        talk.pass_at(at + 10 * number, Received, &OK[..20]).pass_at(at + 100 * number, Received, &OK[20..]);
    }
    assert_eq!(
        talk.lines,
        [
            "GET / => 200 OK (2 bytes in 0.100 ms, first after 0.010 ms)",
            "GET / => 200 OK (2 bytes in 0.200 ms, first after 0.020 ms)",
            "GET / => 200 OK (2 bytes in 0.300 ms, first after 0.030 ms)",
        ]
    );
}

#[test]
fn times_are_right_even_while_it_is_not_known_yet_what_is_spoken() {
    let mut talk = Talk::new();
    talk.pass_at(1_000, Sent, b"GE").pass_at(2_000, Sent, b"T / HTTP/1.1\r\n\r\n");
    talk.pass_at(3_000, Received, b"HT").pass_at(4_000, Received, &OK[2..]);
    assert_eq!(talk.lines, ["GET / => 200 OK (2 bytes in 3.000 ms, first after 2.000 ms)"]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut talk = Talk::new();
    talk.pass(Sent, b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n\r\n");
    talk.pass(Received, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(talk.shown(), ["GET /1 => 200 OK (1 byte)", "HEAD /2 => 200 OK (0 bytes)"]);
    assert_eq!(talk.pass(Received, OK).shown(), ["GET /3 => 200 OK (2 bytes)"]);
}

#[test]
fn bodies_have_the_length_that_their_framing_says() {
    let cases: &[(&[u8], &[u8], &str)] = &[
        (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", "HEAD / => 200 OK (0 bytes)"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", "GET / => 204 No Content (0 bytes)"),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "GET / => 304 Not Modified (0 bytes)",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n5;x=y\r\nhello\r\n00A \r\n, world!!!\r\n0\r\n\r\n",
            "GET / => 200 OK (15 bytes)",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
            "POST / => 200 OK (0 bytes)",
        ),
        (
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 201\r\nContent-Length: 0, 0\r\nContent-Length: 0\r\n\r\n",
            "PUT / => 201 (0 bytes)",
        ),
    ];
    for (request, response, line) in cases {
        let mut talk = Talk::new();
        talk.pass(Sent, request).pass(Received, response).pass(Sent, request).pass(Received, response);
        assert_eq!(talk.shown(), [*line; 2]);
        assert_eq!(talk.closed().shown(), [""; 0]);
    }
}

#[test]
fn a_body_until_the_end_ends_with_the_connection() {
    let begin = |talk: &mut Talk| {
        talk.pass(Sent, b"GET / HTTP/1.0\r\n\r\n")
            .pass(Received, b"HTTP/1.0 200 OK\r\n\r\nall ")
            .pass(Received, b"of it");
        assert_eq!(talk.shown(), [""; 0]);
    };
    let mut whole = Talk::new();
    begin(&mut whole);
    assert_eq!(whole.end(Received).shown(), ["GET / => 200 OK (9 bytes)"]);
    let mut part = Talk::new();
    begin(&mut part);
    assert!(part.closed().shown()[0].contains("; the answer was cut off: the connection was closed"));
    let mut server = Talk::new();
    server.pass(Received, b"GET / HTTP/1.0\r\n\r\n").pass(Sent, b"HTTP/1.0 200 OK\r\n\r\nall");
    assert_eq!(server.closed().shown(), ["GET / => 200 OK (3 bytes, served)"]);
    let mut half_closed = Talk::new();
    half_closed.pass(Received, b"GET / HTTP/1.0\r\n\r\n").end(Received).pass(Sent, b"HTTP/1.0 200 OK\r\n\r\nall");
    assert_eq!(half_closed.end(Sent).shown(), ["GET / => 200 OK (3 bytes, served)"]);
}

#[test]
fn interim_answers_are_not_the_answer() {
    let mut talk = Talk::new();
    talk.pass_at(0, Sent, b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    talk.pass_at(1_000, Received, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
    talk.pass_at(2_000, Sent, b"hi").pass_at(3_000, Received, OK);
    assert_eq!(talk.lines, ["POST / => 200 OK (2 bytes in 3.000 ms, first after 3.000 ms)"]);
    assert!(talk.data[0].contains("\"interim\":[100, 103]"));
    assert!(talk.details.contains("< HTTP/1.1 100\n< HTTP/1.1 103\n< HTTP/1.1 200 OK\n"));
    let mut many = Talk::new();
    many.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    (0..1_000).for_each(|_| drop(many.pass(Received, b"HTTP/1.1 100 Continue\r\n\r\n").shown()));
    many.pass(Received, OK);
    assert_eq!(many.data[0].matches("100").count(), INTERIM_MAX);
    many.closed();
}

#[test]
fn upgraded_connections_and_tunnels_are_followed_up_to_there() {
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello";
    let mut upgrade = Talk::new();
    upgrade.pass(Sent, b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\nGET / and more").pass(Received, switch);
    assert_eq!(upgrade.shown(), ["GET /ws => 101 Switching Protocols (0 bytes, went on as websocket)"]);
    assert_eq!(upgrade.pass(Sent, b"\0\xff").pass(Received, OK).closed().shown(), [""; 0]);
    let mut tunnel = Talk::new();
    tunnel.pass(Sent, b"CONNECT a:443 HTTP/1.1\r\n\r\n").pass(Received, b"HTTP/1.1 200 OK\r\n\r\n\x16\x03");
    assert_eq!(tunnel.shown(), ["CONNECT a:443 => 200 OK (0 bytes, went on as a tunnel)"]);
    assert_eq!(tunnel.pass(Sent, b"\x16\x03").closed().shown(), [""; 0]);
    let refused = answered(b"CONNECT a:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(refused, ["CONNECT a:443 => 403 No (2 bytes)"]);
}

#[test]
fn an_answer_before_the_end_of_its_request_waits_for_it() {
    let mut talk = Talk::new();
    talk.pass(Sent, b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").pass(Received, OK);
    assert_eq!(talk.shown(), [""; 0]);
    assert_eq!(talk.pass(Sent, b"cd").shown(), ["POST / => 200 OK (2 bytes)"]);
    talk.pass(Sent, b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab").pass(Received, OK);
    let cut_off = "POST / => 200 OK (2 bytes; the request was cut off: the connection was closed)";
    assert_eq!(talk.closed().shown(), [cut_off]);
}

#[test]
fn what_is_unfinished_says_why() {
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let cases = [
        (Close::Closed { errno: 0 }, "no answer: the connection was closed"),
        (Close::Closed { errno: Errno::Connreset as u16 }, "no answer: ECONNRESET"),
        (Close::Closed { errno: 9_999 }, "no answer: an unknown error"),
        (Close::ProcessEnded, "no answer: the process ended"),
        (Close::TraceEnded, "no answer: the trace ends here"),
    ];
    for (close, why) in cases {
        assert_eq!(Talk::new().pass(Sent, request).close(close).shown(), [format!("GET / => ? ({why})")]);
    }
    let mut partial = Talk::new();
    partial.pass(Sent, request).pass(Received, &OK[..OK.len() - 1]).end(Received);
    assert_eq!(
        partial.shown(),
        ["GET / => 200 OK (1 byte, first after 0.000 ms; the answer was cut off: the connection was closed)"]
    );
    let mut cut = Talk::new();
    cut.pass(Sent, b"GET / HTTP/1.1\r\nHost");
    assert_eq!(cut.closed().shown(), ["GET / HTTP/1.1 => ? (the request was cut off: the connection was closed)"]);
    let mut timed_out = Talk::new();
    timed_out.pass(Received, request).pass(Sent, OK).pass(Sent, b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(timed_out.shown()[1], "? => 408 Timeout (0 bytes in 0.000 ms, served)");
}

#[test]
fn only_what_begins_like_http_is_taken_for_it() {
    let silent: &[&[u8]] = &[
        b"\x16\x03\x01\x02\0",
        b"SSH-2.0-OpenSSH\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"EHLO example.com\r\n",
        b"GET key\r\n",
        b"GET  HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"A-METHOD-THAT-IS-MUCH-TOO-LONG / HTTP/1.1\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1200 OK\r\n",
        b"RTSP/1.0 200 OK\r\n",
    ];
    for bytes in silent {
        for direction in [Sent, Received] {
            let mut talk = Talk::new();
            talk.pass(direction, bytes).pass(direction.reversed(), OK);
            assert!(matches!(talk.conversation, Conversation::Opaque), "{}", bytes.escape_ascii());
            assert_eq!(talk.closed().shown(), [""; 0]);
        }
    }
    let mut http2 = Talk::new();
    http2.pass(Sent, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0");
    assert_eq!(http2.closed().shown(), ["PRI * HTTP/2.0 => ? (not followed: it is in another version of HTTP)"]);
    let mut answer_alone = Talk::new();
    answer_alone.pass(Received, OK);
    assert_eq!(answer_alone.closed().shown(), ["? => 200 OK (2 bytes in 0.000 ms)"]);
}

#[test]
fn malformed_messages_are_reported_and_what_can_be_followed_is() {
    let requests: &[(&[u8], &str)] = &[
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "a header without a colon"),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", "a header's name that is none"),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "a Content-Length that is no number"),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n", "several Content-Lengths"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "a Content-Length that is no number"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "a Transfer-Encoding that doesn't end with chunked"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "a chunk's length that is no number"),
        (
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11112222333344445\r\n",
            "a chunk's length that is no number",
        ),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "a chunk that is longer than it says"),
    ];
    for (request, why) in requests {
        let mut talk = Talk::new();
        talk.pass(Received, request).pass(Received, b"GET /2 HTTP/1.1\r\n\r\n").pass(Sent, OK).closed();
        assert_eq!(talk.shown(), [format!("GET / => 200 OK (2 bytes, served; malformed: {why})")]);
    }
    let responses: &[(&[u8], &str)] = &[
        (
            b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            "200 OK (0 bytes, first after 0.000 ms; malformed: a header's name that is none)",
        ),
        (b"FTP/1.1 200 OK\r\n\r\n", "FTP/1.1 200 OK (malformed: a response's first line that is none)"),
        (b"\x1b[2Jhello\n\n", "\\x1b[2Jhello (malformed: a response's first line that is none)"),
    ];
    for (response, line) in responses {
        let mut talk = Talk::new();
        talk.pass(Sent, b"GET / HTTP/1.1\r\n\r\n").pass(Sent, b"GET /2 HTTP/1.1\r\n\r\n").pass(Received, response);
        let expected = [
            "GET / => ".to_owned() + line,
            "GET /2 => ? (no answer: the connection was followed no further)".to_owned(),
        ];
        assert_eq!(talk.shown(), expected);
        assert_eq!(talk.closed().shown(), [""; 0]);
    }
    let twice = answered(
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    );
    assert_eq!(twice, ["GET / => 200 OK (1 byte; both Content-Length and Transfer-Encoding)"]);
}

#[test]
fn heads_are_bounded() {
    let head = |len: usize| {
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(len - 4, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    for pieces in [1, 1_000, HEAD_BYTES_MAX] {
        let pass = |head: &[u8]| {
            let mut talk = Talk::new();
            talk.pass(Sent, b"GET /first HTTP/1.1\r\n\r\n").pass(Received, OK).shown();
            head.chunks(pieces).for_each(|piece| {
                talk.pass(Sent, piece);
            });
            talk.pass(Received, OK).closed().shown()
        };
        assert_eq!(pass(&head(HEAD_BYTES_MAX)), ["GET / => 200 OK (2 bytes)"]);
        let why = "GET / HTTP/1.1 => ? (not followed: a head of more than 65536 bytes)";
        assert_eq!(pass(&head(HEAD_BYTES_MAX + 1)), [why]);
    }
}

#[test]
fn openings_are_bounded() {
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(len - 18)).into_bytes();
    for (len, is_known) in [(OPENING_BYTES_MAX, true), (OPENING_BYTES_MAX + 1, false)] {
        let mut talk = Talk::new();
        let line = line(len);
        talk.pass(Sent, &line[..len - 3]).pass(Sent, &line[len - 3..]).pass(Received, OK);
        assert_eq!(talk.closed().lines.len(), usize::from(is_known));
    }
}

#[test]
fn lines_of_chunks_and_trailers_are_bounded() {
    let begin = b"GET / HTTP/1.1\r\n\r\n".as_slice();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let pass = |rest: &[u8], pieces: usize| {
        let mut talk = Talk::new();
        talk.pass(Sent, begin).pass(Received, chunked);
        rest.chunks(pieces).for_each(|piece| {
            talk.pass(Received, piece);
        });
        talk.closed().shown().remove(0)
    };
    for pieces in [1, 100_000] {
        let line = |len: usize| [b"1;".as_slice(), &vec![b'x'; len - 4], b"\r\na\r\n0\r\n\r\n"].concat();
        assert_eq!(pass(&line(CHUNK_LINE_BYTES_MAX), pieces), "GET / => 200 OK (1 byte)");
        let why = "GET / => 200 OK (0 bytes, first after 0.000 ms; not followed: a chunk's line that is too long)";
        assert_eq!(pass(&line(CHUNK_LINE_BYTES_MAX + 1), pieces), why);
        let trailers = |len: usize| [b"0\r\nA: ".as_slice(), &vec![b'x'; len - 7], b"\r\n\r\n"].concat();
        assert_eq!(pass(&trailers(HEAD_BYTES_MAX), pieces), "GET / => 200 OK (0 bytes)");
        let why = "GET / => 200 OK (0 bytes, first after 0.000 ms; not followed: trailers of more than 65536 bytes)";
        assert_eq!(pass(&trailers(HEAD_BYTES_MAX + 1), pieces), why);
    }
}

#[test]
fn requests_without_an_answer_are_bounded() {
    let mut talk = Talk::new();
    (0..PIPELINED_MAX).for_each(|_| {
        talk.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    });
    assert_eq!(talk.lines.len(), 0);
    talk.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(talk.lines.len(), PIPELINED_MAX);
    assert_eq!(talk.shown()[PIPELINED_MAX - 1], "GET / => ? (not followed: more than 1024 requests without an answer)");
    talk.closed();
}

#[test]
fn of_a_body_the_beginning_is_kept() {
    let length = BODY_BYTES_MAX + 1_000;
    let mut talk = Talk::new();
    talk.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    talk.pass(Received, format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
    let chunk = vec![b'x'; 100_000];
    (0..length / chunk.len()).for_each(|_| {
        talk.pass(Received, &chunk);
    });
    assert!(talk.budget.used() <= BODY_BYTES_MAX + 200);
    talk.pass(Received, &chunk[..length % chunk.len()]);
    assert_eq!(talk.shown(), [format!("GET / => 200 OK ({length} bytes)")]);
    assert!(talk.details.ends_with("x\n  [1000 more bytes]\n"));
    assert!(talk.data[0].contains(&format!("\"body_bytes\":{length}")));
    assert!(talk.data[0].contains(&format!("\"kept_bytes\":{BODY_BYTES_MAX}")));
}

#[test]
fn all_connections_share_one_budget() {
    let mut bodies = Talk::with_budget(100);
    bodies.pass(Sent, b"GET / HTTP/1.1\r\n\r\n").pass(Received, b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n");
    bodies.pass(Received, &[b'x'; 30]).pass(Received, &[b'x'; 60]);
    assert_eq!(bodies.shown(), ["GET / => 200 OK (90 bytes)"]);
    assert!(bodies.data[0].contains("\"kept_bytes\":30,"));
    let mut heads = Talk::with_budget(30);
    heads.pass(Sent, b"GET / HTTP/1.1\r\n\r\n").pass(Received, OK).closed();
    assert_eq!(heads.shown(), ["GET / => ? (not followed: more at once than a trace keeps)"]);
    let mut openings = Talk::with_budget(10);
    openings.pass(Sent, b"GET /aaaaaaaaaaaaa").pass(Sent, b" HTTP/1.1\r\n\r\n").pass(Received, OK).closed();
    assert_eq!(openings.shown(), [""; 0]);
}

#[test]
fn compressed_bodies_are_shown_as_they_were() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"line 1\nline \x1b[31m2\n").unwrap();
    let body = gzip.finish().unwrap();
    let mut talk = Talk::new();
    talk.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    talk.pass(Received, head.as_bytes()).pass(Received, &body);
    let shown = format!("<\n  [gzip: {} bytes, 19 decoded]\n  line 1\n  line \\x1b[31m2\n", body.len());
    assert!(talk.details.ends_with(&shown), "{}", talk.details);
    assert!(talk.data[0].contains("\"text\":\"line 1\\nline \\u001b[31m2\\n\",\"decoded_from\":\"gzip\""));
    let mut unknown = Talk::new();
    unknown.pass(Sent, b"GET / HTTP/1.1\r\n\r\n");
    unknown.pass(Received, b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\n\x8b\0\x80");
    assert!(unknown.details.ends_with("<\n  00000000  8b 00 80                                         |...|\n"));
}

#[test]
fn nothing_in_messages_reaches_a_terminal_as_it_is() {
    let mut talk = Talk::new();
    talk.pass(Sent, b"GET /\x1b[2J\x9b HTTP/1.1\r\nA\x1b: \x07\r\n\r\n");
    talk.pass(Sent, b"GET /\x1b[2J\x9b HTTP/1.1\r\nA: \x1b]0;x\x07\r\nContent-Length: 5\r\n\r\n\x1b[0m\n");
    talk.pass(Received, b"HTTP/1.1 200 \x1b[31mOK\r\nContent-Length: 3\r\nA: \xe2\x80\xae\r\n\r\n\x00\x1b\x7f")
        .closed();
    let shown = talk.lines.concat() + &talk.details.replace('\n', "") + &talk.data.concat().replace('\n', "");
    assert!(!shown.chars().any(|char| char.is_control() || char == '\u{202e}'), "{shown:?}");
}

#[test]
fn what_the_log_has_digests_of_is_said_to_be_missing() {
    let request = b"GET /1 HTTP/1.1\r\n\r\n";
    let mut server = Talk::new();
    server.pass(Received, request).missing(Sent, 500).pass(Received, request).missing(Sent, 500).pass(Sent, OK);
    let why = "GET /1 => ? (served; not in the log, which was recorded with record.output = digest)";
    assert_eq!(server.shown(), [why; 2]);
    let mut client = Talk::new();
    client.missing(Sent, 100).pass(Received, OK).missing(Sent, 100).pass(Received, OK);
    let why = "? => 200 OK (2 bytes in 0.000 ms; not in the log, which was recorded with record.output = digest)";
    assert_eq!(client.shown(), [why; 2]);
    let mut body = Talk::new();
    body.pass(Sent, b"PUT / HTTP/1.1\r\nContent-Length: 100\r\n\r\n").missing(Sent, 70).pass(Sent, &[b'x'; 30]);
    assert_eq!(body.pass(Received, OK).shown(), ["PUT / => 200 OK (2 bytes)"]);
    assert!(body.details.contains("\n  [70 bytes are not in the log]\n  [30 more bytes]\n"), "{}", body.details);
    let mut both = Talk::new();
    both.pass(Sent, request).missing(Sent, 9).missing(Received, 9);
    let why = "GET /1 => ? (no answer: not in the log, which was recorded with record.output = digest)";
    assert_eq!(both.closed().shown(), [why]);
}

// ---- any split of any conversation

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

impl Body {
    fn write(&self, head: &mut Vec<u8>) {
        match self {
            Body::None => head.extend_from_slice(b"\r\n"),
            Body::Length(bytes) => {
                write!(head, "Content-Length: {}\r\n\r\n", bytes.len()).unwrap();
                head.extend_from_slice(bytes);
            }
            Body::Chunks(chunks) => {
                head.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    write!(head, "{:x}\r\n", chunk.len()).unwrap();
                    head.extend_from_slice(chunk);
                    head.extend_from_slice(b"\r\n");
                }
                head.extend_from_slice(b"0\r\nT: 1\r\n\r\n");
            }
        }
    }
}

fn any_body() -> impl Strategy<Value = Body> {
    let bytes = || prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..40);
    prop_oneof![
        Just(Body::None),
        bytes().prop_map(Body::Length),
        prop::collection::vec(bytes(), 0..4).prop_map(Body::Chunks)
    ]
}

fn any_exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("M-SEARCH")];
    let status = prop_oneof![Just(200u16), Just(204), Just(304), Just(500)];
    (method, any_body(), any::<bool>(), status, any_body()).prop_map(|(method, asked, interim, status, answered)| {
        let mut request = format!("{method} /path HTTP/1.1\r\nHost: a\r\n").into_bytes();
        asked.write(&mut request);
        let mut response = if interim { b"HTTP/1.1 100 Continue\r\n\r\n".to_vec() } else { Vec::new() };
        write!(response, "HTTP/1.1 {status} Reason\r\n").unwrap();
        let has_body = method != "HEAD" && !matches!(status, 204 | 304);
        match answered {
            Body::None if has_body => Body::Length(Vec::new()).write(&mut response),
            _ if !has_body => Body::None.write(&mut response),
            body => body.write(&mut response),
        }
        (request, response)
    })
}

/// Both directions of a conversation, in turns: direction and bytes.
fn turns(exchanges: &[(Vec<u8>, Vec<u8>)], pipelined: bool) -> Vec<(Direction, Vec<u8>)> {
    if pipelined {
        let (requests, responses): (Vec<_>, Vec<_>) = exchanges.iter().cloned().unzip();
        return vec![(Sent, requests.concat()), (Received, responses.concat())];
    }
    exchanges.iter().cloned().flat_map(|(request, response)| [(Sent, request), (Received, response)]).collect()
}

fn all_of(talk: &mut Talk) -> (Vec<String>, Vec<String>) {
    talk.closed();
    (std::mem::take(&mut talk.lines), std::mem::take(&mut talk.data))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn splits_make_no_difference(
        exchanges in prop::collection::vec(any_exchange(), 1..5),
        pipelined: bool,
        from_server: bool,
        cuts in prop::collection::vec(1usize..50, 1..30),
    ) {
        let mut turns = turns(&exchanges, pipelined);
        if from_server {
            for (direction, _) in &mut turns {
                *direction = direction.reversed();
            }
        }
        let mut whole = Talk::new();
        for (direction, bytes) in &turns {
            whole.pass(*direction, bytes);
        }
        let mut split = Talk::new();
        let mut cuts = cuts.iter().cycle();
        for (direction, bytes) in &turns {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                split.pass(*direction, piece);
                rest = more;
            }
        }
        let whole = all_of(&mut whole);
        prop_assert_eq!(whole.0.len(), exchanges.len());
        prop_assert!(whole.0.iter().all(|line| !line.contains('?')));
        prop_assert_eq!(all_of(&mut split), whole);
    }

    #[test]
    fn any_bytes_are_borne(
        pieces in prop::collection::vec(
            (any::<bool>(), prop_oneof![
                prop::collection::vec(any::<u8>(), 0..30),
                Just(b"GET / HTTP/1.1\r\n".to_vec()),
                Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
                Just(b"Transfer-Encoding: chunked\r\n\r\n".to_vec()),
                Just(b"Content-Length: 5\r\n\r\n".to_vec()),
                Just(b"\r\n\r\n".to_vec()),
                Just(b"0\r\n".to_vec()),
            ], 0u8..12),
            0..40,
        ),
    ) {
        let mut talk = Talk::new();
        for (sent, bytes, what) in &pieces {
            let direction = if *sent { Sent } else { Received };
            match what {
                0 => talk.end(direction),
                1 => talk.missing(direction, bytes.len() as u64),
                _ => talk.pass(direction, bytes),
            };
        }
        talk.closed();
    }
}
