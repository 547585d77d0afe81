//! The guest's own loopback: a space of ports, listeners and datagram queues that no other process shares.
//!
//! Connections are socket pairs, so that buffers, readiness and half-close are the kernel's. Datagrams lie in queues of
//! ours, bounded, and are dropped when a queue is full, as UDP does. Nothing here depends on chance or time: ports are
//! handed out in order, so that a guest's run is as repeatable as it can be.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::Errno;
use crate::network::{Address, Answer, Connection, Promise, Ticket, Transport};

/// The first port that is handed out to who doesn't ask for one (RFC 6335).
const EPHEMERAL_FIRST: u16 = 49152;
/// What a datagram socket keeps for its guest, bytes and datagrams.
pub(super) const INBOX_BYTES: usize = 208 << 10;
const INBOX_DATAGRAMS_MAX: usize = 1024;
/// What a datagram counts beside its bytes: otherwise empty ones would be free.
const DATAGRAM_OVERHEAD_BYTES: usize = 64;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address with a wildcard replaced by the loopback of its family: where a connection to a wildcard leads.
pub(super) fn reached(address: &Address) -> Address {
    match address.ip() {
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => Address::Inet((Ipv4Addr::LOCALHOST, address.port()).into()),
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Address::Inet((Ipv6Addr::LOCALHOST, address.port()).into()),
        _ => address.clone(),
    }
}

/// The wildcard address of the same family.
pub(super) fn wildcard(address: &Address, port: u16) -> Address {
    match address.ip() {
        Some(IpAddr::V4(_)) => Address::Inet((Ipv4Addr::UNSPECIFIED, port).into()),
        Some(IpAddr::V6(_)) => Address::Inet((Ipv6Addr::UNSPECIFIED, port).into()),
        None => address.clone(),
    }
}

pub(super) fn is_wildcard(address: &Address) -> bool {
    address.ip().is_some_and(|ip| ip.is_unspecified())
}

/// Who has which port.
#[derive(Debug, Default)]
pub(super) struct Ports {
    bound: BTreeMap<(Transport, Address), Endpoint>,
    /// Ports handed out so far: the next search begins behind the last.
    handed_out: u16,
}

#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    /// Bound, and nobody answers.
    Silent,
    Listener(Arc<Queue>),
    Datagrams(Arc<Inbox>),
}

/// A port that a socket holds for as long as this lives.
#[derive(Debug)]
pub(super) struct Binding {
    ports: Arc<Mutex<Ports>>,
    transport: Transport,
    pub address: Address,
}

impl Ports {
    /// Whether the address clashes with one that is bound. A wildcard clashes with all of its family.
    fn clashes(&self, transport: Transport, address: &Address) -> bool {
        let same_port = |other: &Address| {
            let families = (other.ip().map(|ip| ip.is_ipv4()), address.ip().map(|ip| ip.is_ipv4()));
            other.port() == address.port() && families.0 == families.1
        };
        let clash = |other: &Address| {
            other == address || other.ip().is_some() && same_port(other) && (is_wildcard(other) || is_wildcard(address))
        };
        self.bound.keys().any(|(of, other)| *of == transport && clash(other))
    }

    fn free_port(&mut self, transport: Transport, address: &Address) -> Option<Address> {
        let count = u16::MAX - EPHEMERAL_FIRST + 1;
        (0..count).find_map(|_| {
            let port = EPHEMERAL_FIRST + self.handed_out % count;
            self.handed_out = (self.handed_out + 1) % count;
            let address = address.with_port(port);
            (!self.clashes(transport, &address)).then_some(address)
        })
    }

    /// Who answers at the address.
    pub fn find(&self, transport: Transport, address: &Address) -> Option<Endpoint> {
        let exact = self.bound.get(&(transport, address.clone()));
        exact.or_else(|| self.bound.get(&(transport, wildcard(address, address.port())))).cloned()
    }
}

impl Binding {
    /// Takes an address; port 0 is the next free one.
    pub fn take(ports: &Arc<Mutex<Ports>>, transport: Transport, address: &Address) -> Result<Self, Errno> {
        let mut space = lock(ports);
        let address = match address {
            Address::Inet(inet) if inet.port() == 0 => space.free_port(transport, address).ok_or(Errno::Addrinuse)?,
            _ if space.clashes(transport, address) => return Err(Errno::Addrinuse),
            _ => address.clone(),
        };
        space.bound.insert((transport, address.clone()), Endpoint::Silent);
        drop(space);
        Ok(Binding { ports: Arc::clone(ports), transport, address })
    }

    /// Sets who answers.
    pub fn answer(&self, endpoint: Endpoint) {
        lock(&self.ports).bound.insert((self.transport, self.address.clone()), endpoint);
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let removed = lock(&self.ports).bound.remove(&(self.transport, self.address.clone()));
        // What it refers to is dropped without the lock.
        drop(removed);
    }
}

pub(super) fn find(ports: &Arc<Mutex<Ports>>, transport: Transport, address: &Address) -> Option<Endpoint> {
    lock(ports).find(transport, address)
}

/// An event counter that polls as readable while something is there.
#[derive(Debug)]
struct Signal(OwnedFd);

impl Signal {
    fn new() -> Result<Self, Errno> {
        Ok(Signal(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    fn raise(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// Connections that wait for a listener's `sock_accept`.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    signal: Signal,
}

#[derive(Debug)]
struct QueueState {
    arrivals: VecDeque<Arrival>,
    backlog: usize,
    open: bool,
}

/// A connection as the listener will have it.
#[derive(Debug)]
struct Arrival {
    connection: Connection,
    /// The other end's connection, if it is beyond the backlog: it is established once there is room.
    beyond: Option<(Promise, Connection)>,
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub(super) enum Attempt {
    Established(OwnedFd),
    /// The backlog is full; it will be established once the listener has accepted others.
    Waiting(Ticket),
}

impl Queue {
    pub fn new(backlog: usize) -> Result<Arc<Self>, Errno> {
        let state = QueueState { arrivals: VecDeque::new(), backlog, open: true };
        Ok(Arc::new(Queue { state: Mutex::new(state), signal: Signal::new()? }))
    }

    /// Readable while there is something to accept.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.signal.0.as_fd()
    }

    pub fn set_backlog(&self, backlog: usize) {
        let mut state = lock(&self.state);
        state.backlog = backlog;
        state.establish();
    }

    /// Connects `from` to `to`, where this queue's listener is.
    pub fn connect(&self, from: Address, to: Address) -> Result<Attempt, Errno> {
        let mut state = lock(&self.state);
        if !state.open {
            return Err(Errno::Connrefused);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let connection = Connection { socket: theirs, local: to.clone(), peer: from.clone() };
        if state.arrivals.len() < state.backlog {
            state.arrivals.push_back(Arrival { connection, beyond: None });
            if state.arrivals.len() == 1 {
                self.signal.raise();
            }
            return Ok(Attempt::Established(ours));
        }
        let (ticket, promise) = Ticket::new(None).map_err(|_| Errno::Mfile)?;
        let other = Connection { socket: ours, local: from, peer: to };
        state.arrivals.push_back(Arrival { connection, beyond: Some((promise, other)) });
        Ok(Attempt::Waiting(ticket))
    }

    /// The next connection.
    pub fn accept(&self) -> Result<Connection, Errno> {
        let mut state = lock(&self.state);
        if !state.open {
            return Err(Errno::Inval);
        }
        let arrival = state.arrivals.pop_front().ok_or(Errno::Again)?;
        state.establish();
        if state.arrivals.is_empty() {
            self.signal.lower();
        }
        Ok(arrival.connection)
    }

    /// Turns away who waits and who comes: the listener is gone.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.open = false;
        for arrival in state.arrivals.drain(..) {
            if let Some((promise, _)) = arrival.beyond {
                promise.complete(Err(Errno::Connrefused));
            }
        }
        self.signal.lower();
    }
}

impl QueueState {
    /// Establishes those who have moved up into the backlog, and forgets those who have given up beyond it.
    fn establish(&mut self) {
        self.arrivals.retain(|arrival| !arrival.beyond.as_ref().is_some_and(|(promise, _)| promise.is_withdrawn()));
        for arrival in self.arrivals.iter_mut().take(self.backlog) {
            if let Some((promise, connection)) = arrival.beyond.take() {
                promise.complete(Ok(Answer::Connected(connection)));
            }
        }
    }
}

/// Datagrams that wait for `sock_recv`.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    signal: Signal,
}

#[derive(Debug, Default)]
struct InboxState {
    datagrams: VecDeque<(Address, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
    /// Who alone may send, if the socket is connected.
    peer: Option<Address>,
}

impl Inbox {
    pub fn new() -> Result<Arc<Self>, Errno> {
        let state = InboxState { bytes_max: INBOX_BYTES, ..InboxState::default() };
        Ok(Arc::new(Inbox { state: Mutex::new(state), signal: Signal::new()? }))
    }

    /// Readable while there is a datagram.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.signal.0.as_fd()
    }

    /// Takes datagrams from one peer only, and forgets those of others.
    pub fn set_peer(&self, peer: &Address) {
        let mut state = lock(&self.state);
        state.datagrams.retain(|(from, _)| from == peer);
        state.bytes = state.datagrams.iter().map(|(_, bytes)| bytes.len() + DATAGRAM_OVERHEAD_BYTES).sum();
        state.peer = Some(peer.clone());
        if state.datagrams.is_empty() {
            self.signal.lower();
        }
    }

    pub fn set_bytes_max(&self, bytes: usize) {
        lock(&self.state).bytes_max = bytes;
    }

    /// Delivers a datagram, or drops it for want of room.
    pub fn deliver(&self, from: &Address, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let size = bytes.len() + DATAGRAM_OVERHEAD_BYTES;
        let is_full = state.bytes + size > state.bytes_max || state.datagrams.len() >= INBOX_DATAGRAMS_MAX;
        if is_full || state.peer.as_ref().is_some_and(|peer| peer != from) {
            return;
        }
        state.bytes += size;
        state.datagrams.push_back((from.clone(), bytes.to_vec()));
        if state.datagrams.len() == 1 {
            self.signal.raise();
        }
    }

    /// Copies the next datagram, cut to the buffer: how much was copied, how long it is, and from whom.
    pub fn receive(&self, buffer: &mut [u8], peek: bool) -> Result<(usize, usize, Address), Errno> {
        let mut state = lock(&self.state);
        let (from, bytes) = state.datagrams.front().ok_or(Errno::Again)?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        let received = (count, bytes.len(), from.clone());
        if !peek {
            state.datagrams.pop_front();
            state.bytes -= received.1 + DATAGRAM_OVERHEAD_BYTES;
            if state.datagrams.is_empty() {
                self.signal.lower();
            }
        }
        Ok(received)
    }

    /// Length of the next datagram, bytes.
    pub fn next_bytes(&self) -> usize {
        lock(&self.state).datagrams.front().map_or(0, |(_, bytes)| bytes.len())
    }
}
