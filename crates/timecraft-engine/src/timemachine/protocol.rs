//! What an application protocol is to a trace. A further one is a file like `http1`, and a line in [`PROTOCOLS`].

use std::fmt;

use super::form::{Fields, Moment};
use super::http1;

/// The protocols that are known, in the order in which a connection's first bytes are offered to them.
pub const PROTOCOLS: &[Spec] = &[http1::SPEC];

/// First bytes of a connection that are kept in each direction until a protocol knows them, at most.
pub const OPENING_BYTES_MAX: usize = 16 << 10;

/// Which way bytes went, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Sent,
    Received,
}

impl Direction {
    #[must_use]
    pub fn reversed(self) -> Self {
        if self == Direction::Sent { Direction::Received } else { Direction::Sent }
    }
}

/// What the guest is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub fn name(self) -> &'static str {
        if self == Side::Client { "client" } else { "server" }
    }
}

/// How a connection ended, or the trace before it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The guest has closed it. The number of the last error on it, 0 if there was none.
    Closed { errno: u16 },
    /// The process ended with it open.
    ProcessEnded,
    /// It goes on, but the trace does not.
    TraceEnded,
}

/// One protocol.
#[derive(Debug)]
pub struct Spec {
    pub name: &'static str,
    /// Whether a connection that begins like this speaks the protocol.
    pub detect: fn(&Opening<'_>) -> Verdict,
    /// Begins to follow a connection. What its opening holds comes again, as data.
    pub open: fn(&Opening<'_>) -> Box<dyn Protocol>,
}

/// The first bytes of a connection in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub sent: &'a [u8],
    pub received: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    No,
    /// It takes more bytes to tell.
    Maybe,
    Yes,
}

/// A protocol on one connection: takes bytes as they pass, in pieces of any size, and hands exchanges to its scope.
/// Nothing that is in the bytes may make it panic, or keep more than it takes from the scope's budget.
pub trait Protocol: Send + fmt::Debug {
    /// Bytes that passed.
    fn data(&mut self, direction: Direction, bytes: &[u8], scope: &mut Scope<'_>);

    /// Bytes passed which the log doesn't have (`record.output = digest`).
    fn missing(&mut self, direction: Direction, bytes: u64, scope: &mut Scope<'_>);

    /// No more comes from there.
    fn end(&mut self, direction: Direction, scope: &mut Scope<'_>);

    /// Nothing more happens: hands over what is unfinished, and gives back what it had of the budget.
    fn close(&mut self, close: Close, scope: &mut Scope<'_>);

    /// Whether what comes from here on is of no interest. Nothing unfinished is left then.
    fn is_over(&self) -> bool;
}

/// What a protocol works with.
pub struct Scope<'a> {
    /// When what is being told happened.
    pub at: Moment,
    /// Whether bodies are to be kept.
    pub bodies: bool,
    pub budget: &'a mut Budget,
    /// Takes what is finished.
    pub emit: &'a mut dyn FnMut(&dyn Exchange),
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("at", &self.at).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// A request and what came of it.
pub trait Exchange {
    /// The name that stands before it: `HTTP`.
    fn label(&self) -> &'static str;

    /// The first byte of the request, or if that is not known, of the response.
    fn began(&self) -> Moment;

    fn side(&self) -> Side;

    /// Appends it as the rest of a line; with `color`, in colours.
    fn summary(&self, out: &mut String, color: bool);

    /// Appends all there is to see of it, in lines.
    fn details(&self, out: &mut String);

    /// Writes it as data; `verbose` with all there is to see.
    fn fields(&self, fields: &mut Fields<'_>, verbose: bool);
}

/// Memory that all connections of a trace share, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    used: usize,
    max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Budget { used: 0, max: bytes_max }
    }

    /// What is in use, bytes.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes `bytes` if they are there.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.max - self.used;
        self.used += if fits { bytes } else { 0 };
        fits
    }

    pub fn give_back(&mut self, bytes: usize) {
        self.used -= bytes;
    }
}

/// What is said on one connection.
#[derive(Debug)]
pub enum Conversation {
    /// It is not known yet in which protocol.
    Undecided(Option<Box<Prefixes>>),
    Known(Box<dyn Protocol>),
    /// In none that is known.
    Opaque,
}

impl Default for Conversation {
    fn default() -> Self {
        Conversation::Undecided(None)
    }
}

/// The beginnings of both directions, while it takes more to tell what they are.
#[derive(Debug, Default)]
pub struct Prefixes {
    sent: Prefix,
    received: Prefix,
}

#[derive(Debug, Default)]
struct Prefix {
    bytes: Vec<u8>,
    began: Moment,
    /// Bytes behind `bytes` that the log doesn't have, and all behind those.
    missing: u64,
}

impl Prefixes {
    fn of(&mut self, direction: Direction) -> &mut Prefix {
        if direction == Direction::Sent { &mut self.sent } else { &mut self.received }
    }

    fn opening(&self) -> Opening<'_> {
        Opening { sent: &self.sent.bytes, received: &self.received.bytes }
    }
}

impl Conversation {
    /// Bytes that passed.
    pub fn data(&mut self, direction: Direction, bytes: &[u8], scope: &mut Scope<'_>) {
        match self {
            Conversation::Opaque => {}
            Conversation::Known(protocol) => {
                protocol.data(direction, bytes, scope);
                self.drop_if_over();
            }
            Conversation::Undecided(prefixes) => {
                let opening = match (&prefixes, direction) {
                    (None, Direction::Sent) => Opening { sent: bytes, received: &[] },
                    (None, Direction::Received) => Opening { sent: &[], received: bytes },
                    _ => return self.more_of_opening(direction, bytes, scope),
                };
                match detect(&opening) {
                    Some((Verdict::Yes, spec)) => {
                        *self = Conversation::Known((spec.open)(&opening));
                        self.data(direction, bytes, scope);
                    }
                    Some(_) => self.more_of_opening(direction, bytes, scope),
                    None => *self = Conversation::Opaque,
                }
            }
        }
    }

    fn more_of_opening(&mut self, direction: Direction, bytes: &[u8], scope: &mut Scope<'_>) {
        let Conversation::Undecided(prefixes) = self else { return };
        let prefixes = prefixes.get_or_insert_default();
        let prefix = prefixes.of(direction);
        if prefix.missing > 0 {
            prefix.missing += bytes.len() as u64;
            return;
        }
        let before = prefix.bytes.len();
        if before + bytes.len() > OPENING_BYTES_MAX || !scope.budget.take(bytes.len()) {
            return self.give_up(scope);
        }
        if before == 0 {
            prefix.began = scope.at;
        }
        prefix.bytes.extend_from_slice(bytes);
        match detect(&prefixes.opening()) {
            None => self.give_up(scope),
            Some((Verdict::Yes, spec)) => self.decided(spec, direction, before, scope),
            Some(_) => {}
        }
    }

    /// Tells the protocol what was kept: what came last at the time it came, the rest at its own.
    fn decided(&mut self, spec: &Spec, last: Direction, before: usize, scope: &mut Scope<'_>) {
        let Conversation::Undecided(Some(prefixes)) = std::mem::take(self) else { return };
        let mut protocol = (spec.open)(&prefixes.opening());
        let (mut prefixes, now) = (prefixes, scope.at);
        let kept = prefixes.sent.bytes.len() + prefixes.received.bytes.len();
        scope.budget.give_back(kept);
        let newest = prefixes.of(last).bytes.split_off(before);
        for direction in [last.reversed(), last] {
            let prefix = prefixes.of(direction);
            scope.at = prefix.began;
            if !prefix.bytes.is_empty() {
                protocol.data(direction, &prefix.bytes, scope);
            }
            scope.at = now;
            if prefix.missing > 0 {
                protocol.missing(direction, prefix.missing, scope);
            }
        }
        *self = Conversation::Known(protocol);
        self.data(last, &newest, scope);
    }

    fn give_up(&mut self, scope: &mut Scope<'_>) {
        if let Conversation::Undecided(Some(prefixes)) = self {
            scope.budget.give_back(prefixes.sent.bytes.len() + prefixes.received.bytes.len());
        }
        *self = Conversation::Opaque;
    }

    /// Bytes passed which the log doesn't have.
    pub fn missing(&mut self, direction: Direction, bytes: u64, scope: &mut Scope<'_>) {
        match self {
            Conversation::Opaque => {}
            Conversation::Undecided(prefixes) => prefixes.get_or_insert_default().of(direction).missing += bytes,
            Conversation::Known(protocol) => {
                protocol.missing(direction, bytes, scope);
                self.drop_if_over();
            }
        }
    }

    /// No more comes from there.
    pub fn end(&mut self, direction: Direction, scope: &mut Scope<'_>) {
        if let Conversation::Known(protocol) = self {
            protocol.end(direction, scope);
            self.drop_if_over();
        }
    }

    /// Nothing more happens.
    pub fn close(&mut self, close: Close, scope: &mut Scope<'_>) {
        if let Conversation::Known(protocol) = self {
            protocol.close(close, scope);
        }
        self.give_up(scope);
    }

    fn drop_if_over(&mut self) {
        if matches!(self, Conversation::Known(protocol) if protocol.is_over()) {
            *self = Conversation::Opaque;
        }
    }
}

/// The first protocol that a connection speaks for sure, or else the first that it may speak.
fn detect(opening: &Opening<'_>) -> Option<(Verdict, &'static Spec)> {
    let verdicts = || PROTOCOLS.iter().map(|spec| ((spec.detect)(opening), spec));
    let sure = verdicts().find(|(verdict, _)| *verdict == Verdict::Yes);
    sure.or_else(|| verdicts().find(|(verdict, _)| *verdict == Verdict::Maybe))
}
