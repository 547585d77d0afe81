//! The world's network, as a guest's host sees it.
//!
//! What lies beyond the guest's own loopback is decided elsewhere: policy, names, dialling, listening and TLS are the
//! business of whoever implements [`Network`]. The host asks, goes on, and looks at its [`Ticket`] when the guest wants
//! to know; what it gets are descriptors that the guest's calls then use directly.

pub mod port;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::SocketFlags;

use crate::Errno;

/// Where a socket is, or its peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Inet(SocketAddr),
    /// A name in the guest's own space of Unix sockets; empty for a socket without one.
    Unix(Vec<u8>),
}

impl Address {
    /// The port; 0 where there is none.
    pub fn port(&self) -> u16 {
        match self {
            Address::Inet(address) => address.port(),
            Address::Unix(_) => 0,
        }
    }

    /// The IP address, unless it is a Unix socket's.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Inet(address) => Some(address.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Address::Inet(address) => Address::Inet(SocketAddr::new(address.ip(), port)),
            Address::Unix(name) => Address::Unix(name.clone()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(name) => write!(f, "unix:{}", name.escape_ascii()),
        }
    }
}

/// Kinds of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Stream,
    Datagram,
}

/// A guest wants a connection, or for datagrams a flow to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    pub transport: Transport,
    pub to: SocketAddr,
    /// What the guest has bound the socket to, as far as it has.
    pub from: Option<SocketAddr>,
}

/// A guest has begun to listen (or, for datagrams, has bound) where others could reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub transport: Transport,
    /// The address that the guest sees. Its port is the guest's; what it is outside is not the host's concern.
    pub at: SocketAddr,
    /// Connections, or flows of datagrams, that wait for the guest at most.
    pub backlog: u32,
}

/// A guest wants the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    pub name: String,
    pub ipv4: bool,
    pub ipv6: bool,
}

/// A guest wants TLS on a connection of its own. The socket is the guest's: the answer replaces it by one with the
/// clear text.
#[derive(Debug)]
pub struct Secure {
    pub socket: OwnedFd,
    /// The peer's name, which its certificate must bear.
    pub name: String,
    /// Protocols that the guest offers (ALPN), in order of preference.
    pub protocols: Vec<String>,
}

/// A connection that is there, as the guest shall see it.
#[derive(Debug)]
pub struct Connection {
    /// A connected socket of the right type; the host makes it non-blocking.
    pub socket: OwnedFd,
    pub local: Address,
    pub peer: Address,
}

/// What the network has to say to a request.
#[derive(Debug)]
pub enum Answer {
    /// To [`Dial`] and [`Secure`]. Datagrams flow through a UDP socket, or through a Unix socket of type SEQPACKET:
    /// each of its messages is one byte and a datagram.
    Connected(Connection),
    /// To [`Secure`]: with the protocol that both sides speak (ALPN).
    Secured(Connection, String),
    /// To [`Listen`] for streams.
    Listening(Listening),
    /// To [`Listen`] for datagrams. The guest can send to those who have sent to it; others it must dial.
    Bound(Bound),
    /// To [`Resolve`]: in order of preference, and not empty.
    Addresses(Vec<IpAddr>),
}

/// What becomes of a listener that the network may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It had refused a connection for want of room, and now has some.
    Room,
    /// The guest has closed it.
    Closed,
}

/// Is told of changes, on the guest's thread.
pub type Watcher = Box<dyn Fn(Change) + Send + Sync>;

/// What comes to a port of datagrams. Dropped when the guest closes its socket.
#[derive(Debug)]
pub struct Bound {
    /// An unconnected socket that anybody can send to.
    pub socket: Option<OwnedFd>,
    /// Flows that others have opened to it, each by a socket as [`Answer::Connected`] has them.
    pub arrivals: Arc<Arrivals>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.arrivals.close();
    }
}

/// Where connections from outside come from.
#[derive(Debug)]
pub enum Listening {
    /// A listening socket: the guest's `sock_accept` is the kernel's, and peers are what the kernel says.
    Kernel(OwnedFd),
    /// Connections that somebody else has accepted and looked at.
    Arrivals(Arc<Arrivals>),
}

/// The world's network. Nothing here may wait: the guest's thread calls it. A request is withdrawn by dropping its
/// ticket.
pub trait Network: Send {
    /// The guest's own addresses beside loopback, where others may find it.
    fn addresses(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (None, None)
    }

    /// Asks for a connection; the answer is [`Answer::Connected`], or why not: [`Errno::Acces`] if policy forbids it.
    fn dial(&mut self, request: Dial) -> Ticket;

    /// Asks for what comes from outside to a listener; the answer is [`Answer::Listening`] or [`Answer::Bound`]. An
    /// error leaves the guest with its loopback, and is none to it.
    fn listen(&mut self, request: Listen) -> Ticket;

    /// Asks for a name's addresses; the answer is [`Answer::Addresses`], or [`Errno::Noent`] if it has none.
    fn resolve(&mut self, request: Resolve) -> Ticket;

    /// Asks for TLS; the answer is [`Answer::Connected`], or why not.
    fn secure(&mut self, _request: Secure) -> Ticket {
        Ticket::answered(Err(Errno::Notsup))
    }
}

/// Nothing but the guest's own loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn dial(&mut self, _request: Dial) -> Ticket {
        Ticket::answered(Err(Errno::Acces))
    }

    fn listen(&mut self, _request: Listen) -> Ticket {
        Ticket::answered(Err(Errno::Acces))
    }

    fn resolve(&mut self, _request: Resolve) -> Ticket {
        Ticket::answered(Err(Errno::Noent))
    }
}

/// What the network answers, once.
pub type Reply = Result<Answer, Errno>;

/// What both ends of a request share.
struct Exchange {
    state: Mutex<State>,
    /// Readable once there is an answer; `None` if there was one from the start, or no descriptor was left.
    event: Option<OwnedFd>,
}

#[derive(Default)]
struct State {
    reply: Option<Reply>,
    done: bool,
    withdrawn: bool,
    on_withdrawal: Option<Box<dyn FnOnce() + Send>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host's end of a request. Dropped before the answer, it withdraws the request.
pub struct Ticket(Arc<Exchange>);

/// The network's end of a request. Dropped without an answer, it answers that the connection was aborted.
pub struct Promise(Arc<Exchange>);

impl Ticket {
    /// A request and the promise to answer it. `on_withdrawal` is called, on the guest's thread, if the guest loses
    /// interest before it is answered.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn new(on_withdrawal: Option<Box<dyn FnOnce() + Send>>) -> std::io::Result<(Ticket, Promise)> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = Mutex::new(State { on_withdrawal, ..State::default() });
        let exchange = Arc::new(Exchange { state, event: Some(event) });
        Ok((Ticket(Arc::clone(&exchange)), Promise(exchange)))
    }

    /// A request that is answered already.
    pub fn answered(reply: Reply) -> Ticket {
        let state = State { reply: Some(reply), done: true, ..State::default() };
        Ticket(Arc::new(Exchange { state: Mutex::new(state), event: None }))
    }

    /// The answer, once there is one; `None` also if it was taken.
    pub fn poll(&self) -> Option<Reply> {
        lock(&self.0.state).reply.take()
    }

    /// Whether there is an answer.
    pub fn is_done(&self) -> bool {
        lock(&self.0.state).done
    }

    /// Readable once there is an answer; `None` if there was one from the start.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.event.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.withdrawn = true;
        // An answer that nobody takes is closed here, not when the network lets go of its end.
        let (unread, callback, done) = (state.reply.take(), state.on_withdrawal.take(), state.done);
        drop(state);
        drop(unread);
        if let Some(callback) = callback.filter(|_| !done) {
            callback();
        }
    }
}

impl Promise {
    /// Answers. An answer to a request that was withdrawn is dropped, and its descriptors with it.
    pub fn complete(self, reply: Reply) {
        let _ = self.offer(reply);
    }

    /// Answers, or hands the answer back: nobody waits for it any more.
    ///
    /// # Errors
    /// The answer itself.
    pub fn offer(self, reply: Reply) -> Result<(), Reply> {
        self.answer(reply)
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_withdrawn(&self) -> bool {
        lock(&self.0.state).withdrawn
    }

    fn answer(&self, reply: Reply) -> Result<(), Reply> {
        let mut state = lock(&self.0.state);
        if state.done || state.withdrawn {
            return Err(reply);
        }
        state.done = true;
        state.reply = Some(reply);
        if let Some(event) = &self.0.event {
            // A full counter still polls as readable.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
        Ok(())
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let _ = self.answer(Err(Errno::Connaborted));
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("is_withdrawn", &self.is_withdrawn()).finish_non_exhaustive()
    }
}

/// Connections on their way to a guest that listens.
pub struct Arrivals {
    waiting: Mutex<Waiting>,
    /// Readable while there are any.
    event: OwnedFd,
    watcher: Option<Watcher>,
}

#[derive(Debug)]
struct Waiting {
    connections: VecDeque<Connection>,
    max: usize,
    closed: bool,
    /// Whether one was handed back for want of room, and nobody has been told of room since.
    refused: bool,
}

impl Arrivals {
    /// Room for `max` connections that the guest hasn't accepted yet.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn new(max: usize) -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waiting = Waiting { connections: VecDeque::new(), max, closed: false, refused: false };
        Ok(Arrivals { waiting: Mutex::new(waiting), event, watcher: None })
    }

    /// The same, with somebody who is told of changes.
    #[must_use]
    pub fn watched(self, watcher: Watcher) -> Self {
        Arrivals { watcher: Some(watcher), ..self }
    }

    fn tell(&self, change: Change) {
        if let Some(watcher) = &self.watcher {
            watcher(change);
        }
    }

    /// Hands over a connection, or hands it back: the guest is not listening any more, or has too many waiting.
    ///
    /// # Errors
    /// The connection itself.
    pub fn push(&self, connection: Connection) -> Result<(), Connection> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed || waiting.connections.len() >= waiting.max {
            waiting.refused = true;
            return Err(connection);
        }
        waiting.connections.push_back(connection);
        if waiting.connections.len() == 1 {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Whether the guest has stopped listening.
    pub fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    pub(crate) fn pop(&self) -> Option<Connection> {
        let mut waiting = lock(&self.waiting);
        let connection = waiting.connections.pop_front();
        if connection.is_some() && waiting.connections.is_empty() {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
        let has_room_again = connection.is_some() && std::mem::take(&mut waiting.refused);
        drop(waiting);
        if has_room_again {
            self.tell(Change::Room);
        }
        connection
    }

    pub(crate) fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        waiting.connections.clear();
        drop(waiting);
        self.tell(Change::Closed);
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Listening {
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Listening::Kernel(socket) => socket.as_fd(),
            Listening::Arrivals(arrivals) => arrivals.descriptor(),
        }
    }

    /// The next connection; [`Errno::Again`] if there is none. `at` is where the guest listens, as it sees it.
    pub(crate) fn accept(&self, at: &Address) -> Result<Connection, Errno> {
        match self {
            Listening::Arrivals(arrivals) => arrivals.pop().ok_or(Errno::Again),
            Listening::Kernel(listener) => {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = peer.map_or_else(|| Address::Unix(Vec::new()), Address::Inet);
                // A wildcard is no connection's address; the port is the guest's own.
                let local = match at.ip() {
                    Some(ip) if ip.is_unspecified() => local_address(&socket).map(|local| local.with_port(at.port())),
                    _ => None,
                };
                Ok(Connection { socket, local: local.unwrap_or_else(|| at.clone()), peer })
            }
        }
    }
}

fn local_address(socket: &OwnedFd) -> Option<Address> {
    let address = rustix::net::getsockname(socket).ok()?;
    SocketAddr::try_from(address).ok().map(Address::Inet)
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Listening::Arrivals(arrivals) = self {
            arrivals.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn an_answer_comes_once_and_wakes_the_waiter() {
        let (ticket, promise) = Ticket::new(None).unwrap();
        assert!(ticket.poll().is_none() && !ticket.is_done());
        let answer = std::thread::spawn(|| promise.complete(Ok(Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]))));
        let event = ticket.descriptor().unwrap();
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(event, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut fds, None).unwrap(), 1);
        answer.join().unwrap();
        assert!(matches!(ticket.poll(), Some(Ok(Answer::Addresses(_)))));
        assert!(ticket.poll().is_none() && ticket.is_done());
    }

    #[test]
    fn what_nobody_waits_for_is_withdrawn_and_what_nobody_answers_is_aborted() {
        let count = Arc::new(AtomicU32::new(0));
        let counter = || {
            let count = Arc::clone(&count);
            let callback = move || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            Some(Box::new(callback) as Box<dyn FnOnce() + Send>)
        };
        let (ticket, promise) = Ticket::new(counter()).unwrap();
        drop(ticket);
        assert!(promise.is_withdrawn() && count.load(Ordering::Relaxed) == 1);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (local, peer) = (Address::Unix(vec![]), Address::Unix(vec![]));
        promise.complete(Ok(Answer::Connected(Connection { socket: theirs.into(), local, peer })));
        assert_eq!(std::io::Read::read(&mut &ours, &mut [0; 1]).unwrap(), 0, "the descriptor was closed");
        let (ticket, promise) = Ticket::new(counter()).unwrap();
        drop(promise);
        assert!(matches!(ticket.poll(), Some(Err(Errno::Connaborted))));
        drop(ticket);
        assert_eq!(count.load(Ordering::Relaxed), 1, "it was answered, if badly");
    }
}
