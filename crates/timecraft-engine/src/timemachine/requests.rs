//! `trace request`: what is asked and answered on the guest's connections, an exchange a line, in the order in which
//! they end.

use super::connections::{Connections, Event, Kind, Socket, Watcher};
use super::form::{Fields, Form, Moment, Times};
use super::protocol::{Budget, Close, Conversation, Direction, Exchange, Scope, Side};
use super::{Filter, Options};
use crate::network::Transport;

/// What all conversations keep at once, at most, bytes.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Writes exchanges.
#[derive(Debug)]
pub struct RequestTrace {
    writer: Writer,
    budget: Budget,
    missing: u64,
}

/// What is kept with a socket.
#[derive(Debug, Default)]
pub struct Talk {
    conversation: Conversation,
    /// The last error on the connection, 0 if there was none.
    errno: u16,
}

impl RequestTrace {
    pub fn new(options: Options) -> Self {
        let at = Moment::default();
        let writer = Writer { options, times: Times::default(), out: String::new(), at, is_shown: true };
        RequestTrace { writer, budget: Budget::new(KEPT_BYTES_MAX), missing: 0 }
    }

    /// Says when what comes next happens, and whether what ends then is to be shown.
    pub fn begin(&mut self, at: Moment, is_shown: bool) {
        (self.writer.at, self.writer.is_shown) = (at, is_shown);
    }

    /// Sends whose bytes are not in the log.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Length of what there is to take.
    pub fn ready_bytes(&self) -> usize {
        self.writer.out.len()
    }

    /// Takes what was written.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.writer.out)
    }

    /// What conversations keep, bytes.
    pub fn kept_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Writes what is unfinished: nothing more happens.
    pub fn close(&mut self, connections: &mut Connections<Talk>, close: Close) {
        for socket in connections.open() {
            self.tell(socket, |conversation, scope| conversation.close(close, scope));
        }
    }

    fn tell(&mut self, socket: &mut Socket<Talk>, tell: impl FnOnce(&mut Conversation, &mut Scope<'_>)) {
        let mut conversation = std::mem::take(&mut socket.state.conversation);
        let (at, bodies) = (self.writer.at, self.writer.options.verbose);
        let mut emit = |exchange: &dyn Exchange| self.writer.write(socket, exchange);
        let mut scope = Scope { at, bodies, budget: &mut self.budget, emit: &mut emit };
        tell(&mut conversation, &mut scope);
        socket.state.conversation = conversation;
    }
}

impl Watcher for RequestTrace {
    type State = Talk;

    fn event(&mut self, socket: &mut Socket<Talk>, event: &Event<'_>) {
        self.missing += u64::from(event.missing);
        if socket.transport != Transport::Stream {
            return;
        }
        match event.kind {
            Kind::Data(_) | Kind::Fault if event.errno != 0 => socket.state.errno = event.errno,
            Kind::Data(_) if event.peeked || matches!(socket.state.conversation, Conversation::Opaque) => {}
            Kind::Data(direction) if event.is_end => self.tell(socket, |talk, scope| talk.end(direction, scope)),
            Kind::Data(direction) if event.missing => {
                self.tell(socket, |talk, scope| talk.missing(direction, event.bytes, scope));
            }
            Kind::Data(direction) => self.tell(socket, |talk, scope| {
                for piece in event.pieces.iter().filter(|piece| !piece.is_empty()) {
                    talk.data(direction, piece, scope);
                }
            }),
            Kind::Shutdown { send: true, .. } if event.errno == 0 => {
                self.tell(socket, |talk, scope| talk.end(Direction::Sent, scope));
            }
            Kind::Close => {
                let close = Close::Closed { errno: socket.state.errno };
                self.tell(socket, |talk, scope| talk.close(close, scope));
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Writer {
    options: Options,
    times: Times,
    out: String,
    at: Moment,
    is_shown: bool,
}

impl Writer {
    fn write(&mut self, socket: &Socket<Talk>, exchange: &dyn Exchange) {
        let side = exchange.side();
        let filter = &self.options.filter;
        // A socket's side is who began the connection; an exchange's who asked.
        let is_kept = filter.side.is_none_or(|wanted| wanted == side)
            && Filter { side: None, ..filter.clone() }.keeps(socket, None);
        if !self.is_shown || !is_kept {
            return;
        }
        let (client, server) = match side {
            Side::Client => (&socket.local, &socket.peer),
            Side::Server => (&socket.peer, &socket.local),
        };
        if self.options.form != Form::Text {
            let form = self.options.form;
            return Fields::document(&mut self.out, &mut self.times, form, |fields| {
                fields.moment(self.at);
                fields.object("began", |fields| fields.moment(exchange.began()));
                fields.number("socket", socket.id);
                fields.text("protocol", &exchange.label().to_ascii_lowercase());
                fields.text("side", side.name());
                fields.optional("client", client.known());
                fields.optional("server", server.known());
                exchange.fields(fields, self.options.verbose);
            });
        }
        self.times.stamp(&mut self.out, self.at, self.options.stamp);
        for part in [exchange.label(), " ", client.name(), " > ", server.name(), ": "] {
            self.out.push_str(part);
        }
        exchange.summary(&mut self.out, self.options.color);
        self.out.push('\n');
        if self.options.verbose {
            exchange.details(&mut self.out);
        }
    }
}
