//! A network that somebody else is: a queue of what a guest asks for, and of what it asks for no more, with an eventfd
//! that tells of it. The guest's thread never waits for who answers.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};

use super::{
    Answer, Arrivals, Bound, Change, Connection, Dial, Listen, Listening, Network, Promise, Reply, Resolve, Secure,
    Ticket, lock,
};
use crate::Errno;

/// Unanswered requests of one guest, unless its port is made for others.
pub const REQUESTS_MAX: usize = 4096;

/// Something that a guest asks of the network, or has stopped asking. Each request has a number of its own.
#[derive(Debug)]
pub enum Event {
    Dial(u64, Dial),
    Listen(u64, Listen),
    Resolve(u64, Resolve),
    Secure(u64, Secure),
    /// Nobody waits for the answer to the request any more, or the guest has closed the listener.
    Closed(u64),
    /// The listener, which had refused a connection, has room again.
    Room(u64),
    /// The guest is gone: all its requests are withdrawn, and nothing more comes.
    Ended,
}

impl Event {
    /// The request; 0 if it is about none.
    pub fn id(&self) -> u64 {
        match self {
            Event::Dial(id, _)
            | Event::Listen(id, _)
            | Event::Resolve(id, _)
            | Event::Secure(id, _)
            | Event::Closed(id)
            | Event::Room(id) => *id,
            Event::Ended => 0,
        }
    }
}

/// What an answer must know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listen { backlog: usize },
    Secure,
    Other,
}

/// The end of who answers. Dropped, it leaves the guest without a network.
pub struct Port(Arc<Shared>);

/// The guest's end. Dropped, it ends the port.
pub struct PortNetwork(Arc<Shared>);

struct Shared {
    own: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    requests_max: usize,
    /// Readable while there are events.
    signal: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bounded by what the guest can have: unanswered requests, and two for each of its listeners.
    events: VecDeque<Event>,
    pending: HashMap<u64, (Kind, Promise)>,
    /// The guest's listeners outside, and its bound datagram sockets.
    listeners: HashMap<u64, Arc<Arrivals>>,
    last_id: u64,
    attached: bool,
    /// Either side is gone.
    over: bool,
}

impl Port {
    /// A port for a guest with these addresses of its own, and at most so many unanswered requests.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn new(own: (Option<Ipv4Addr>, Option<Ipv6Addr>), requests_max: usize) -> std::io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Port(Arc::new(Shared { own, requests_max, signal, state: Mutex::default() })))
    }

    /// The guest's end; `None` if it was taken before.
    pub fn attach(&self) -> Option<PortNetwork> {
        let was_attached = std::mem::replace(&mut lock(&self.0.state).attached, true);
        (!was_attached).then(|| PortNetwork(Arc::clone(&self.0)))
    }

    /// Readable while there is something to take.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.signal.as_fd()
    }

    /// All that has come since it was last asked.
    pub fn take(&self) -> VecDeque<Event> {
        let mut state = lock(&self.0.state);
        self.0.lower();
        std::mem::take(&mut state.events)
    }

    /// Refuses a request. Returns whether anybody still waited; so do all answers, and drop what nobody waits for.
    pub fn refuse(&self, id: u64, errno: Errno) -> bool {
        self.answer(id, |_| Err(errno))
    }

    /// Answers a dial, or a request for TLS with the protocol that was agreed upon (empty: none).
    pub fn connected(&self, id: u64, connection: Connection, protocol: String) -> bool {
        self.answer(id, |kind| match kind {
            Kind::Secure => Ok(Answer::Secured(connection, protocol)),
            _ => Ok(Answer::Connected(connection)),
        })
    }

    /// Answers a resolution.
    pub fn addresses(&self, id: u64, addresses: Vec<IpAddr>) -> bool {
        self.answer(id, |_| Ok(Answer::Addresses(addresses)))
    }

    /// Answers a request to listen for streams: connections will be delivered.
    pub fn listening(&self, id: u64) -> bool {
        self.listen(id, |arrivals| Answer::Listening(Listening::Arrivals(arrivals)))
    }

    /// Answers a request to listen for datagrams: flows will be delivered, and strangers may send to the socket.
    pub fn bound(&self, id: u64, socket: Option<OwnedFd>) -> bool {
        self.listen(id, |arrivals| Answer::Bound(Bound { socket, arrivals }))
    }

    /// Hands a connection or a flow to a listener, or back: its backlog is full ([`Event::Room`] follows), or it is
    /// closed.
    ///
    /// # Errors
    /// The connection itself.
    pub fn deliver(&self, id: u64, connection: Connection) -> Result<(), Connection> {
        let arrivals = lock(&self.0.state).listeners.get(&id).cloned();
        match arrivals {
            Some(arrivals) => arrivals.push(connection),
            None => Err(connection),
        }
    }

    fn answer(&self, id: u64, reply: impl FnOnce(Kind) -> Reply) -> bool {
        let request = lock(&self.0.state).pending.remove(&id);
        request.is_some_and(|(kind, promise)| promise.offer(reply(kind)).is_ok())
    }

    /// Answers with a listener, which is known from before the guest can close it.
    fn listen(&self, id: u64, answer: impl FnOnce(Arc<Arrivals>) -> Answer) -> bool {
        let Some((kind, promise)) = lock(&self.0.state).pending.remove(&id) else { return false };
        let shared = Arc::downgrade(&self.0);
        let watcher = move |change| {
            if let Some(shared) = shared.upgrade() {
                shared.changed(id, change);
            }
        };
        let backlog = if let Kind::Listen { backlog } = kind { backlog } else { 1 };
        let Ok(arrivals) = Arrivals::new(backlog) else {
            promise.complete(Err(Errno::Mfile));
            return false;
        };
        let arrivals = Arc::new(arrivals.watched(Box::new(watcher)));
        lock(&self.0.state).listeners.insert(id, Arc::clone(&arrivals));
        let answer = answer(arrivals);
        let unwanted = promise.offer(Ok(answer)).err();
        if unwanted.is_some() {
            // First forgotten, then closed: nobody need be told.
            let forgotten = lock(&self.0.state).listeners.remove(&id);
            drop(forgotten);
        }
        unwanted.is_none()
    }
}

impl Shared {
    fn push(&self, state: &mut State, event: Event) {
        if state.events.is_empty() {
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
        state.events.push_back(event);
    }

    fn lower(&self) {
        let _ = rustix::io::read(&self.signal, &mut [0; 8]);
    }

    fn ask(self: &Arc<Self>, kind: Kind, event: impl FnOnce(u64) -> Event) -> Ticket {
        let mut state = lock(&self.state);
        if state.over {
            return Ticket::answered(Err(Errno::Netdown));
        }
        if state.pending.len() >= self.requests_max {
            return Ticket::answered(Err(Errno::Again));
        }
        state.last_id += 1;
        let id = state.last_id;
        let shared = Arc::downgrade(self);
        let withdraw = move || {
            if let Some(shared) = shared.upgrade() {
                shared.withdraw(id);
            }
        };
        let Ok((ticket, promise)) = Ticket::new(Some(Box::new(withdraw))) else {
            return Ticket::answered(Err(Errno::Mfile));
        };
        state.pending.insert(id, (kind, promise));
        self.push(&mut state, event(id));
        ticket
    }

    /// Forgets a request. Who has not taken it yet will not hear of it at all, so that the queue stays bounded.
    fn withdraw(&self, id: u64) {
        let mut state = lock(&self.state);
        let Some(request) = state.pending.remove(&id) else { return };
        let untaken = state.events.iter().rposition(|event| event.id() == id);
        let untaken = untaken.and_then(|at| state.events.remove(at));
        if untaken.is_none() {
            self.push(&mut state, Event::Closed(id));
        } else if state.events.is_empty() {
            self.lower();
        }
        drop(state);
        drop((request, untaken));
    }

    /// Tells of what has become of a listener.
    fn changed(&self, id: u64, change: Change) {
        let mut state = lock(&self.state);
        let (event, closed) = match change {
            Change::Room if state.listeners.contains_key(&id) => (Event::Room(id), None),
            Change::Closed => match state.listeners.remove(&id) {
                Some(listener) => (Event::Closed(id), Some(listener)),
                None => return,
            },
            Change::Room => return,
        };
        self.push(&mut state, event);
        drop(state);
        drop(closed);
    }

    /// One side is gone. What it leaves behind is closed without the lock.
    fn end(&self, last: Option<Event>) {
        let mut state = lock(&self.state);
        if state.over {
            return;
        }
        let (pending, listeners) = (std::mem::take(&mut state.pending), std::mem::take(&mut state.listeners));
        let events = std::mem::take(&mut state.events);
        state.over = true;
        match last {
            Some(event) => state.events.push_back(event),
            None => self.lower(),
        }
        if !state.events.is_empty() {
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
        drop(state);
        drop((pending, listeners, events));
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl Drop for PortNetwork {
    fn drop(&mut self) {
        self.0.end(Some(Event::Ended));
    }
}

impl Network for PortNetwork {
    fn addresses(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        self.0.own
    }

    fn dial(&mut self, request: Dial) -> Ticket {
        self.0.ask(Kind::Other, |id| Event::Dial(id, request))
    }

    fn listen(&mut self, request: Listen) -> Ticket {
        let kind = Kind::Listen { backlog: request.backlog as usize };
        self.0.ask(kind, |id| Event::Listen(id, request))
    }

    fn resolve(&mut self, request: Resolve) -> Ticket {
        self.0.ask(Kind::Other, |id| Event::Resolve(id, request))
    }

    fn secure(&mut self, request: Secure) -> Ticket {
        self.0.ask(Kind::Secure, |id| Event::Secure(id, request))
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0.state);
        f.debug_struct("Port").field("pending", &state.pending.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PortNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortNetwork").field("own", &self.0.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
