//! HTTP/1.0 and 1.1: requests and what is answered, on kept-alive and pipelined connections, from either side.

mod content;
mod message;
mod show;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;

use memchr::memchr;

pub use message::{BODY_BYTES_MAX, CHUNK_LINE_BYTES_MAX, HEAD_BYTES_MAX};
use message::{Framing, Keep, Message, Progress, Reader, Stop, framing, is_token};

use super::form::Moment;
use super::protocol::{Close, Direction, Opening, Protocol, Scope, Side, Spec, Verdict};
use crate::Errno;

/// Exchanges of one connection that are not complete, at most: requests are sent ahead of their answers.
pub const PIPELINED_MAX: usize = 1024;
/// Interim answers of one exchange that are shown, at most.
const INTERIM_MAX: usize = 16;
const METHOD_BYTES_MAX: usize = 24;
/// Known, so that it is told and not passed over in silence.
const OTHER_VERSION: Stop = Stop::Beyond("it is in another version of HTTP");
const NOT_IN_LOG: &str = "not in the log, which was recorded with record.output = digest";

pub const SPEC: Spec = Spec { name: "http1", detect, open: |opening| Box::new(Http1::new(opening)) };

fn detect(opening: &Opening<'_>) -> Verdict {
    let verdicts = [opening.sent, opening.received].map(|bytes| match (is_request(bytes), is_response(bytes)) {
        (Verdict::No, Verdict::No) => Verdict::No,
        (Verdict::Yes, _) | (_, Verdict::Yes) => Verdict::Yes,
        _ => Verdict::Maybe,
    });
    match verdicts {
        [Verdict::Yes, _] | [_, Verdict::Yes] => Verdict::Yes,
        [Verdict::No, _] | [_, Verdict::No] => Verdict::No,
        _ => Verdict::Maybe,
    }
}

/// Whether bytes begin with the first line of a request.
fn is_request(bytes: &[u8]) -> Verdict {
    let method_end = bytes.iter().take(METHOD_BYTES_MAX + 1).position(|byte| *byte == b' ');
    let method = &bytes[..method_end.unwrap_or(bytes.len().min(METHOD_BYTES_MAX + 1))];
    let is_method = method.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'-' | b'_'));
    if !is_method || method.len() > METHOD_BYTES_MAX || method_end == Some(0) {
        return Verdict::No;
    }
    match memchr(b'\n', bytes) {
        None => Verdict::Maybe,
        Some(end) => match request_line(&bytes[..=end]) {
            Ok(_) | Err(OTHER_VERSION) => Verdict::Yes,
            Err(_) => Verdict::No,
        },
    }
}

/// Whether bytes begin as a response does.
fn is_response(bytes: &[u8]) -> Verdict {
    let pattern = b"HTTP/1.# ###";
    let fits = |(byte, pattern): (&u8, &u8)| match pattern {
        b'#' => byte.is_ascii_digit(),
        _ => byte == pattern,
    };
    if !bytes.iter().zip(pattern).all(fits) {
        return Verdict::No;
    }
    match bytes.get(pattern.len()) {
        None => Verdict::Maybe,
        Some(b' ' | b'\r' | b'\n') => Verdict::Yes,
        Some(_) => Verdict::No,
    }
}

type Parts = [std::ops::Range<usize>; 3];

/// Method, target and version in the line that `head` begins with.
fn request_line(head: &[u8]) -> Result<Parts, Stop> {
    let end = memchr(b'\n', head).unwrap_or(head.len());
    let line = head[..end].trim_ascii_end();
    let method_end = memchr(b' ', line).ok_or(Stop::Malformed("a request without a target"))?;
    let target_end = line.iter().rposition(|byte| *byte == b' ').unwrap_or(0);
    if target_end <= method_end + 1 || !is_token(&line[..method_end]) {
        return Err(Stop::Malformed("a request's first line that is none"));
    }
    let version = target_end + 1..line.len();
    match &line[version.clone()] {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] => {
            Ok([0..method_end, method_end + 1..target_end, version])
        }
        [b'H', b'T', b'T', b'P', b'/', ..] => Err(OTHER_VERSION),
        _ => Err(Stop::Malformed("a request's first line that is none")),
    }
}

/// Version, status and reason in the line that `head` begins with.
fn status_line(head: &[u8]) -> Result<Parts, Stop> {
    if is_response(head) != Verdict::Yes {
        return Err(Stop::Malformed("a response's first line that is none"));
    }
    let end = memchr(b'\n', head).unwrap_or(head.len());
    let end = head[..end].trim_ascii_end().len();
    Ok([0..8, 9..12, 13.min(end)..end])
}

/// A request and its answer, as far as they are there.
#[derive(Debug)]
struct Exchange {
    side: Side,
    began: Moment,
    /// None if what is there is an answer alone.
    request: Option<Message>,
    response: Option<Message>,
    /// Statuses of answers before the final one.
    interim: Vec<u16>,
    /// When the answer was complete.
    ended: Option<Moment>,
    /// The connection went on in another protocol.
    is_upgrade: bool,
    problem: Option<Cow<'static, str>>,
}

impl Exchange {
    fn new(side: Side, began: Moment, request: Option<Message>) -> Self {
        let (response, interim, ended) = (None, Vec::new(), None);
        Exchange { side, began, request, response, interim, ended, is_upgrade: false, problem: None }
    }

    fn is_asked(&self) -> bool {
        self.request.as_ref().is_none_or(|request| request.is_complete)
    }

    fn is_answered(&self) -> bool {
        self.response.as_ref().is_some_and(|response| response.is_complete)
    }

    fn has_method(&self, method: &[u8]) -> bool {
        self.request.as_ref().is_some_and(|request| request.has_head() && request.part(0) == method)
    }

    fn kept_bytes(&self) -> usize {
        [&self.request, &self.response].into_iter().flatten().map(Message::kept_bytes).sum()
    }
}

/// HTTP on one connection.
#[derive(Debug)]
struct Http1 {
    side: Side,
    requests: Reader,
    responses: Reader,
    /// In the order of the requests, which is that of the answers. Only the last can be without the end of its
    /// request, only the first with a part of its answer.
    exchanges: VecDeque<Exchange>,
    /// Why the requests, or the answers, can't be told apart any more.
    lost: [Option<&'static str>; 2],
    is_over: bool,
}

impl Http1 {
    fn new(opening: &Opening<'_>) -> Self {
        let asks = is_request(opening.sent) == Verdict::Yes || is_response(opening.received) == Verdict::Yes;
        Http1 {
            side: if asks { Side::Client } else { Side::Server },
            requests: Reader::default(),
            responses: Reader::default(),
            exchanges: VecDeque::new(),
            lost: [None; 2],
            is_over: false,
        }
    }

    fn is_request(&self, direction: Direction) -> bool {
        (direction == Direction::Sent) == (self.side == Side::Client)
    }

    /// Takes bytes of requests.
    fn requested(&mut self, mut bytes: &[u8], scope: &mut Scope<'_>) -> Result<(), Stop> {
        while !self.is_over {
            if self.requests.is_idle() {
                // Some clients send a line end too many.
                let line_ends = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                bytes = &bytes[line_ends..];
                if bytes.is_empty() {
                    break;
                }
                if self.exchanges.len() >= PIPELINED_MAX {
                    return Err(Stop::Beyond("more than 1024 requests without an answer"));
                }
                let request = Message { began: scope.at, ..Message::default() };
                self.exchanges.push_back(Exchange::new(self.side, scope.at, Some(request)));
                self.requests.begin();
            }
            let Some(exchange) = self.exchanges.back_mut() else { break };
            let Some(request) = &mut exchange.request else { break };
            let mut keep = Keep { budget: scope.budget, bodies: scope.bodies };
            let is_done = match self.requests.feed(&mut bytes, request, &mut keep)? {
                Progress::More => break,
                Progress::Done => true,
                Progress::Head => {
                    request.parts = request_line(&request.head)?;
                    let (body, is_twice) = framing(request)?;
                    if body == Some(Framing::UntilEnd) {
                        return Err(Stop::Malformed("a Transfer-Encoding that doesn't end with chunked"));
                    }
                    if is_twice {
                        exchange.problem = Some("both Content-Length and Transfer-Encoding".into());
                    }
                    self.requests.begin_body(body.unwrap_or(Framing::Length(0)))
                }
            };
            if is_done {
                request.is_complete = true;
                self.asked(scope);
            }
        }
        Ok(())
    }

    /// The last request is complete.
    fn asked(&mut self, scope: &mut Scope<'_>) {
        if let (Some(reason), Some(exchange)) = (self.lost[1], self.exchanges.back_mut()) {
            exchange.problem = Some(Cow::Borrowed(reason));
            self.emit_first(scope);
        }
        self.emit_complete(scope);
    }

    /// Takes bytes of answers.
    fn answered(&mut self, mut bytes: &[u8], scope: &mut Scope<'_>) -> Result<(), Stop> {
        while !self.is_over {
            if self.responses.is_idle() {
                if bytes.is_empty() {
                    break;
                }
                self.begin_response(scope)?;
            }
            let Some(exchange) = self.exchanges.front_mut() else { break };
            let Some(response) = &mut exchange.response else { break };
            let mut keep = Keep { budget: scope.budget, bodies: scope.bodies };
            let is_done = match self.responses.feed(&mut bytes, response, &mut keep)? {
                Progress::More => break,
                Progress::Done => true,
                Progress::Head => {
                    response.parts = status_line(&response.head)?;
                    if self.is_interim(scope) {
                        continue;
                    }
                    self.begin_response_body()?
                }
            };
            if is_done {
                self.response_done(scope);
            }
        }
        Ok(())
    }

    fn begin_response(&mut self, scope: &Scope<'_>) -> Result<(), Stop> {
        let response = Message { began: scope.at, ..Message::default() };
        match self.exchanges.front_mut() {
            Some(exchange) if exchange.response.is_some() => {
                return Err(Stop::Malformed("an answer that nobody asked for"));
            }
            Some(exchange) => exchange.response = Some(response),
            None => {
                let mut exchange = Exchange::new(self.side, scope.at, None);
                exchange.problem = self.lost[0].map(Cow::Borrowed);
                exchange.response = Some(response);
                self.exchanges.push_back(exchange);
            }
        }
        self.responses.begin();
        Ok(())
    }

    /// Whether the answer whose head is there is one before the final one; it is put aside then.
    fn is_interim(&mut self, scope: &mut Scope<'_>) -> bool {
        let Some(exchange) = self.exchanges.front_mut() else { return false };
        let Some(response) = exchange.response.take_if(|response| matches!(response.status(), 100 | 102..=199)) else {
            return false;
        };
        scope.budget.give_back(response.kept_bytes());
        if exchange.interim.len() < INTERIM_MAX {
            exchange.interim.push(response.status());
        }
        self.responses.finish();
        true
    }

    /// Begins the body of the answer whose head is there; true if there is none.
    fn begin_response_body(&mut self) -> Result<bool, Stop> {
        let Some(exchange) = self.exchanges.front_mut() else { return Ok(true) };
        let (is_head, is_connect) = (exchange.has_method(b"HEAD"), exchange.has_method(b"CONNECT"));
        let Some(response) = &mut exchange.response else { return Ok(true) };
        let (body, is_twice) = framing(response)?;
        if is_twice {
            exchange.problem = Some("both Content-Length and Transfer-Encoding".into());
        }
        let status = response.status();
        exchange.is_upgrade = status == 101 || is_connect && status / 100 == 2;
        let has_none = is_head || exchange.is_upgrade || matches!(status, 204 | 304);
        let body = if has_none { Framing::Length(0) } else { body.unwrap_or(Framing::UntilEnd) };
        Ok(self.responses.begin_body(body))
    }

    /// The first exchange's answer is complete.
    fn response_done(&mut self, scope: &mut Scope<'_>) {
        self.responses.finish();
        let Some(exchange) = self.exchanges.front_mut() else { return };
        exchange.ended = Some(scope.at);
        if let Some(response) = &mut exchange.response {
            response.is_complete = true;
        }
        if exchange.is_upgrade {
            // What was sent ahead is in the other protocol too.
            while self.exchanges.len() > 1 && self.exchanges.back().is_some_and(|last| !last.is_asked()) {
                self.forget_last(scope);
            }
            self.give_up("the connection went on in another protocol", scope);
        } else {
            self.emit_complete(scope);
        }
    }

    /// Hands over what is complete, in order.
    fn emit_complete(&mut self, scope: &mut Scope<'_>) {
        while self.exchanges.front().is_some_and(|exchange| exchange.is_asked() && exchange.is_answered()) {
            self.emit_first(scope);
        }
    }

    fn emit_first(&mut self, scope: &mut Scope<'_>) {
        if let Some(exchange) = self.exchanges.pop_front() {
            (scope.emit)(&exchange);
            scope.budget.give_back(exchange.kept_bytes());
        }
    }

    fn forget_last(&mut self, scope: &mut Scope<'_>) {
        if let Some(exchange) = self.exchanges.pop_back() {
            scope.budget.give_back(exchange.kept_bytes());
        }
    }

    /// Hands over all that is there, with what became of it, and follows the connection no further.
    fn give_up(&mut self, why: &str, scope: &mut Scope<'_>) {
        while let Some(exchange) = self.exchanges.front_mut() {
            let what = match &exchange.response {
                Some(response) if response.is_complete => "the request was cut off",
                Some(_) => "the answer was cut off",
                None if exchange.is_asked() => "no answer",
                None => "the request was cut off",
            };
            if exchange.problem.is_none() && !(exchange.is_asked() && exchange.is_answered()) {
                exchange.problem = Some(format!("{what}: {why}").into());
            }
            self.emit_first(scope);
        }
        self.requests.finish();
        self.responses.finish();
        self.is_over = true;
    }

    /// Reports what is the matter with bytes that came from there.
    fn stop(&mut self, is_request: bool, stop: Stop, scope: &mut Scope<'_>) {
        let problem = Some(Cow::Owned(stop.to_string()));
        if is_request
            && matches!(stop, Stop::Malformed(_))
            && let Some(exchange) = self.exchanges.back_mut()
        {
            exchange.problem = problem;
            return self.lose(true, "the requests were followed no further", scope);
        }
        let exchange = if is_request { self.exchanges.back_mut() } else { self.exchanges.front_mut() };
        if let Some(exchange) = exchange {
            exchange.problem = problem;
        } else {
            let exchange = Exchange { problem, ..Exchange::new(self.side, scope.at, None) };
            self.exchanges.push_back(exchange);
        }
        self.give_up("the connection was followed no further", scope);
    }

    /// Where the next message begins that comes from there is not known, for a reason.
    fn lose(&mut self, is_request: bool, reason: &'static str, scope: &mut Scope<'_>) {
        self.lost[usize::from(!is_request)] = Some(reason);
        if self.lost.iter().all(Option::is_some) {
            return self.give_up(reason, scope);
        }
        if is_request {
            self.requests.finish();
            // What is there of the last request may be answered all the same.
            if let Some(Exchange { request: Some(request), problem, .. }) = self.exchanges.back_mut()
                && !request.is_complete
            {
                request.is_complete = true;
                problem.get_or_insert(Cow::Borrowed(reason));
            }
        } else {
            self.responses.finish();
            while self.exchanges.front().is_some_and(Exchange::is_asked) {
                self.exchanges[0].problem = Some(Cow::Borrowed(reason));
                self.emit_first(scope);
            }
        }
        self.emit_complete(scope);
    }
}

impl Protocol for Http1 {
    fn data(&mut self, direction: Direction, bytes: &[u8], scope: &mut Scope<'_>) {
        let is_request = self.is_request(direction);
        if self.is_over || self.lost[usize::from(!is_request)].is_some() {
            return;
        }
        let done = if is_request { self.requested(bytes, scope) } else { self.answered(bytes, scope) };
        if let Err(stop) = done {
            self.stop(is_request, stop, scope);
        }
    }

    fn missing(&mut self, direction: Direction, bytes: u64, scope: &mut Scope<'_>) {
        let is_request = self.is_request(direction);
        if self.is_over || self.lost[usize::from(!is_request)].is_some() {
            return;
        }
        let (reader, message) = if is_request {
            (&mut self.requests, self.exchanges.back_mut().and_then(|exchange| exchange.request.as_mut()))
        } else {
            (&mut self.responses, self.exchanges.front_mut().and_then(|exchange| exchange.response.as_mut()))
        };
        let skipped = message.and_then(|message| Some((reader.skip(bytes, message)?, message)));
        match skipped {
            None => self.lose(is_request, NOT_IN_LOG, scope),
            Some((false, _)) => {}
            Some((true, message)) if is_request => {
                message.is_complete = true;
                self.asked(scope);
            }
            Some((true, _)) => self.response_done(scope),
        }
    }

    fn end(&mut self, direction: Direction, scope: &mut Scope<'_>) {
        if self.is_request(direction) {
            if !self.requests.is_idle()
                && let Some(Exchange { request: Some(request), problem, .. }) = self.exchanges.back_mut()
            {
                // What is there of it may be answered all the same.
                request.is_complete = true;
                *problem = Some("the request was cut off".into());
                self.requests.finish();
                self.emit_complete(scope);
            }
            return;
        }
        if self.responses.is_until_end() {
            self.response_done(scope);
        }
        self.give_up("the connection was closed", scope);
    }

    fn close(&mut self, close: Close, scope: &mut Scope<'_>) {
        // A server that closes has said all; a client doesn't know.
        if self.responses.is_until_end() && self.side == Side::Server && close == (Close::Closed { errno: 0 }) {
            self.response_done(scope);
        }
        let why = match close {
            Close::Closed { errno: 0 } => "the connection was closed",
            Close::Closed { errno } => Errno::from_raw(errno).map_or("an unknown error", Errno::name),
            Close::ProcessEnded => "the process ended",
            Close::TraceEnded => "the trace ends here",
        };
        self.give_up(why, scope);
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}
