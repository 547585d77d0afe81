//! `trace network`: what happens on the guest's sockets, an event a line.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::connections::{Event, Kind, Socket, Stage, Watcher};
use super::form::{Fields, Form, Moment, Times, push_hexdump, push_number};
use super::protocol::Direction;
use super::{Filter, Options};
use crate::Errno;
use crate::network::{Address, Transport};

/// Records after the one of a connection in which its addresses may come up, and still appear with it. Guests ask for
/// them as soon as there is a connection.
const LOOK_AHEAD_RECORDS: u64 = 32;
/// Events that wait for addresses, at most.
const HELD_MAX: usize = 64;
/// Output that waits with them, at most, bytes: more is handed over as it is.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Writes events.
#[derive(Debug)]
pub struct NetworkTrace {
    options: Options,
    times: Times,
    out: String,
    at: Moment,
    /// Whether what happens now is to be shown.
    is_shown: bool,
    /// Events whose socket had an address that wasn't known, oldest first.
    held: VecDeque<Held>,
    missing: u64,
}

/// An event that is written again when its addresses are known.
#[derive(Clone, Debug)]
struct Held {
    socket: u64,
    at: Moment,
    kind: Kind,
    errno: u16,
    /// Where it is in the output.
    start: usize,
    end: usize,
    records_left: u64,
}

impl NetworkTrace {
    pub fn new(options: Options) -> Self {
        NetworkTrace {
            options,
            times: Times::default(),
            out: String::new(),
            at: Moment::default(),
            is_shown: true,
            held: VecDeque::new(),
            missing: 0,
        }
    }

    /// Says when what comes next happens, and whether it is to be shown.
    pub fn begin(&mut self, at: Moment, is_shown: bool) {
        (self.at, self.is_shown) = (at, is_shown);
        if !self.held.is_empty() {
            self.held.iter_mut().for_each(|held| held.records_left -= 1);
            while self.held.front().is_some_and(|held| held.records_left == 0) {
                self.held.pop_front();
            }
        }
    }

    /// Sends whose bytes are not in the log.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether nothing of what there is to take may change.
    pub fn is_settled(&self) -> bool {
        self.held.is_empty() || self.out.len() >= HELD_BYTES_MAX
    }

    /// Length of what there is to take.
    pub fn ready_bytes(&self) -> usize {
        self.out.len()
    }

    /// Takes what was written.
    pub fn take(&mut self) -> String {
        self.held.clear();
        std::mem::take(&mut self.out)
    }

    fn write<S>(&mut self, socket: &Socket<S>, event: &Event<'_>, at: Moment) {
        let line = Line { options: &self.options, socket, event, at };
        match self.options.form {
            Form::Text => line.text(&mut self.out, &mut self.times),
            form => Fields::document(&mut self.out, &mut self.times, form, |fields| line.fields(fields)),
        }
    }

    /// Writes the socket's events again that were held.
    fn learned<S>(&mut self, socket: &Socket<S>) {
        for index in 0..self.held.len() {
            if self.held[index].socket != socket.id {
                continue;
            }
            let Held { at, kind, errno, start, end, .. } = self.held[index];
            let rest = self.out.split_off(end);
            self.out.truncate(start);
            if self.options.filter.keeps(socket, None) {
                self.write(socket, &Event::of(kind, errno), at);
            }
            let new_end = self.out.len();
            self.out.push_str(&rest);
            self.held[index].end = new_end;
            for later in self.held.iter_mut().skip(index + 1) {
                later.start = later.start - end + new_end;
                later.end = later.end - end + new_end;
            }
        }
    }
}

impl Watcher for NetworkTrace {
    type State = ();

    fn event(&mut self, socket: &mut Socket<()>, event: &Event<'_>) {
        self.missing += u64::from(event.missing);
        if event.kind == Kind::Learned {
            return self.learned(socket);
        }
        let is_of_interest = match event.kind {
            // Where a socket is shows when it listens or connects; datagrams come without either.
            Kind::Bind => event.errno != 0 || socket.transport == Transport::Datagram,
            Kind::Close => socket.stage != Stage::Open || socket.sent_bytes + socket.received_bytes > 0,
            _ => true,
        };
        if !is_of_interest || !self.is_shown {
            return;
        }
        let start = self.out.len();
        if self.options.filter.keeps(socket, event.peer) {
            self.write(socket, event, self.at);
        }
        let has_no_data = !matches!(event.kind, Kind::Data(_));
        let is_unknown = socket.local.known().is_none() || socket.peer.known().is_none();
        if has_no_data && is_unknown && self.held.len() < HELD_MAX && event.kind != Kind::Close {
            self.held.push_back(Held {
                socket: socket.id,
                at: self.at,
                kind: event.kind,
                errno: event.errno,
                start,
                end: self.out.len(),
                records_left: LOOK_AHEAD_RECORDS,
            });
        }
    }
}

/// One event, to be written.
struct Line<'a, S> {
    options: &'a Options,
    socket: &'a Socket<S>,
    event: &'a Event<'a>,
    at: Moment,
}

impl<S> Line<'_, S> {
    fn word(&self) -> &'static str {
        match self.event.kind {
            Kind::Bind => "BIND",
            Kind::Listen => "LISTEN",
            Kind::Connect => "CONN",
            Kind::Accept => "ACCEPT",
            Kind::Data(Direction::Sent) => "SEND",
            Kind::Data(Direction::Received) if self.event.peeked => "PEEK",
            Kind::Data(Direction::Received) => "RECV",
            Kind::Shutdown { receive: true, send: true } => "SHUT RDWR",
            Kind::Shutdown { receive: true, .. } => "SHUT RD",
            Kind::Shutdown { .. } => "SHUT WR",
            Kind::Tls => "TLS",
            Kind::Fault => "ERROR",
            Kind::Close => "CLOSE",
            Kind::Learned => "",
        }
    }

    fn text(&self, out: &mut String, times: &mut Times) {
        times.stamp(out, self.at, self.options.stamp);
        out.push_str(self.socket.label());
        out.push(' ');
        self.route(out);
        out.push_str(": ");
        out.push_str(self.word());
        out.push(' ');
        let event = self.event;
        if event.errno == 0 {
            out.push_str(if event.is_end { "EOF" } else { "OK" });
        } else {
            out.push_str(if self.options.color { "\x1b[31m" } else { "" });
            push_errno(out, event.errno);
            out.push_str(if self.options.color { "\x1b[0m" } else { "" });
        }
        if matches!(event.kind, Kind::Data(_)) && event.errno == 0 && !event.is_end {
            out.push(' ');
            push_number(out, event.bytes);
        }
        out.push('\n');
        if !self.options.verbose {
            return;
        }
        match event.pieces {
            [] if event.missing => out.push_str("  [the bytes are not in the log: record.output = digest]\n"),
            [only] => push_hexdump(out, "", only),
            pieces => push_hexdump(out, "", &pieces.concat()),
        }
    }

    /// From where to where; of a socket without a peer, where it is.
    fn route(&self, out: &mut String) {
        let (local, peer) = (&self.socket.local, &self.socket.peer);
        let is_alone = match self.event.kind {
            Kind::Bind | Kind::Listen => true,
            Kind::Accept => self.socket.stage == Stage::Listening,
            Kind::Data(_) | Kind::Connect => false,
            _ => peer.known().is_none() && self.socket.stage != Stage::Connected,
        };
        let is_inbound = matches!(self.event.kind, Kind::Data(Direction::Received) | Kind::Accept);
        let push_peer = |out: &mut String| match self.event.peer {
            Some(peer) => {
                let _ = write!(out, "{peer}");
            }
            None => out.push_str(peer.name()),
        };
        match (is_alone, is_inbound) {
            (true, _) => out.push_str(local.name()),
            (false, true) => {
                push_peer(out);
                out.push_str(" > ");
                out.push_str(local.name());
            }
            (false, false) => {
                out.push_str(local.name());
                out.push_str(" > ");
                push_peer(out);
            }
        }
    }

    fn fields(&self, fields: &mut Fields<'_>) {
        let (socket, event) = (self.socket, self.event);
        fields.moment(self.at);
        fields.number("socket", socket.id);
        fields.text(
            "transport",
            match (socket.is_unix, socket.transport) {
                (true, _) => "unix",
                (false, Transport::Stream) => "tcp",
                (false, Transport::Datagram) => "udp",
            },
        );
        fields.text(
            "event",
            match event.kind {
                Kind::Bind => "bind",
                Kind::Listen => "listen",
                Kind::Connect => "connect",
                Kind::Accept => "accept",
                Kind::Data(Direction::Sent) => "send",
                Kind::Data(Direction::Received) if event.peeked => "peek",
                Kind::Data(Direction::Received) => "receive",
                Kind::Shutdown { receive: true, send: true } => "shutdown",
                Kind::Shutdown { receive: true, .. } => "shutdown_receive",
                Kind::Shutdown { .. } => "shutdown_send",
                Kind::Tls => "tls",
                Kind::Fault => "error",
                Kind::Close => "close",
                Kind::Learned => "",
            },
        );
        fields.optional("local", socket.local.known());
        match event.peer {
            Some(peer) => fields.text("peer", &peer.to_string()),
            None => fields.optional("peer", socket.peer.known()),
        }
        if event.errno == 0 {
            fields.none("errno");
        } else {
            let mut name = String::new();
            push_errno(&mut name, event.errno);
            fields.text("errno", &name);
        }
        match event.kind {
            Kind::Data(_) if event.errno == 0 => {
                fields.number("bytes", event.bytes);
                fields.flag("end", event.is_end);
                fields.flag("missing", event.missing);
                if self.options.verbose {
                    fields.object("data", |fields| fields.bytes(&event.pieces.concat()));
                }
            }
            Kind::Close => {
                fields.number("sent_bytes", socket.sent_bytes);
                fields.number("received_bytes", socket.received_bytes);
            }
            _ => {}
        }
    }
}

/// Appends an error's name; a number that WASI doesn't have as it is.
fn push_errno(out: &mut String, errno: u16) {
    match Errno::from_raw(errno) {
        Some(errno) => out.push_str(errno.name()),
        None => push_number(out, u64::from(errno)),
    }
}

impl Filter {
    /// Whether what concerns a socket, and a datagram's peer, is to be shown.
    pub fn keeps<S>(&self, socket: &Socket<S>, peer: Option<&Address>) -> bool {
        let ends = || [socket.local.address.as_ref(), peer.or(socket.peer.address.as_ref())].into_iter().flatten();
        self.host.is_none_or(|host| ends().any(|end| end.ip() == Some(host)))
            && self.port.is_none_or(|port| ends().any(|end| end.port() == port))
            && self.side.is_none_or(|side| side == socket.side)
    }
}
