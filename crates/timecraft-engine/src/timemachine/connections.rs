//! Follows a guest's sockets through its calls: what is connected to what, and what passes.
//!
//! Descriptors are followed from the call that opens them to the one that closes them, in both versions of `WasmEdge`'s
//! ABI, in preview 1, and as paths. Sockets that the guest had from its start are told by who knows the configuration,
//! or show themselves by their first socket call. Waiting (`poll_oneoff`) is no traffic; it only tells when a
//! connection that was begun may be asked how it ended.

use crate::abi::{event, fdflags, filetype, size, socket as abi};
use crate::host::SocketDirectory;
use crate::host::sockets::address;
use crate::network::{Address, Transport};
use crate::recorder::Record;
use crate::{Call, Errno};

use super::protocol::{Direction, Side};

/// Descriptors from this number on are not followed: a guest that opens the lowest free one needs as many open at once.
pub const DESCRIPTORS_MAX: usize = 65_536;

/// `riflags`: what is received stays to be received.
const RECV_PEEK: u32 = 1;
const SHUTDOWN_RD: u32 = 1;
const SHUTDOWN_WR: u32 = 2;

/// One end of a connection, as far as the log tells.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    pub address: Option<Address>,
    /// The address as text, or a name and port; empty if neither is known.
    name: String,
}

impl Endpoint {
    /// An address, or a name and port.
    fn named(name: &str) -> Self {
        Endpoint { address: name.parse().ok().map(Address::Inet), name: name.to_owned() }
    }

    /// The address, or name and port, if they are known.
    pub fn known(&self) -> Option<&str> {
        (!self.name.is_empty()).then_some(&self.name)
    }

    /// The same, or `?`.
    pub fn name(&self) -> &str {
        self.known().unwrap_or("?")
    }

    /// Takes an address; true if it is news.
    fn set(&mut self, address: Address) -> bool {
        if self.address.as_ref() == Some(&address) {
            return false;
        }
        self.name = address.to_string();
        self.address = Some(address);
        true
    }
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Open,
    Listening,
    /// A connection was begun. `ready`: the guest was told that it may ask how that ended.
    Connecting {
        ready: bool,
    },
    Connected,
}

/// One socket of the guest's, from its opening to its closing.
#[derive(Clone, Debug)]
pub struct Socket<S> {
    /// Number of the socket in its log, from 1.
    pub id: u64,
    pub transport: Transport,
    pub is_unix: bool,
    pub stage: Stage,
    pub side: Side,
    pub local: Endpoint,
    pub peer: Endpoint,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// What the watcher keeps with it.
    pub state: S,
}

impl<S: Default> Socket<S> {
    fn new(id: u64, transport: Transport, is_unix: bool) -> Self {
        Socket {
            id,
            transport,
            is_unix,
            stage: Stage::Open,
            side: Side::Client,
            local: Endpoint::default(),
            peer: Endpoint::default(),
            sent_bytes: 0,
            received_bytes: 0,
            state: S::default(),
        }
    }
}

impl<S> Socket<S> {
    /// `TCP`, `UDP` or `UNIX`.
    pub fn label(&self) -> &'static str {
        match (self.is_unix, self.transport) {
            (true, _) => "UNIX",
            (false, Transport::Stream) => "TCP",
            (false, Transport::Datagram) => "UDP",
        }
    }
}

/// A socket that the guest had from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub fd: u32,
    /// A listener, or else a connection.
    pub listens: bool,
    /// Where it listens, or is connected to: an address, or a name and port.
    pub name: String,
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bind,
    Listen,
    /// A connection to a peer, begun or done.
    Connect,
    Accept,
    Data(Direction),
    /// No more is received, or sent, or both.
    Shutdown {
        receive: bool,
        send: bool,
    },
    /// The host does TLS on the connection from here on.
    Tls,
    /// The socket was told of an error by `SO_ERROR`.
    Fault,
    Close,
    /// An address was learned that earlier events did not have. Nothing has happened.
    Learned,
}

/// One event. What it is about beyond the socket itself depends on its kind.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub kind: Kind,
    pub errno: u16,
    /// Data: how many bytes passed.
    pub bytes: u64,
    /// Data: the bytes themselves, empty if [`missing`](Self::missing).
    pub pieces: &'a [&'a [u8]],
    /// Data: the log has a digest in place of the bytes.
    pub missing: bool,
    /// Data: what was received is still there to be received.
    pub peeked: bool,
    /// Data: the peer has ended the stream.
    pub is_end: bool,
    /// Data: a datagram's peer, where it isn't the socket's.
    pub peer: Option<&'a Address>,
}

impl Event<'_> {
    pub fn of(kind: Kind, errno: u16) -> Self {
        Event { kind, errno, bytes: 0, pieces: &[], missing: false, peeked: false, is_end: false, peer: None }
    }
}

/// Whoever wants to know of events.
pub trait Watcher {
    /// What is kept with each socket.
    type State: Default;

    fn event(&mut self, socket: &mut Socket<Self::State>, event: &Event<'_>);
}

/// The guest's sockets.
#[derive(Debug)]
pub struct Connections<S> {
    sockets: Vec<Option<Box<Socket<S>>>>,
    opened: u64,
    /// Descriptors beneath which paths are sockets.
    directories: Vec<(u32, SocketDirectory)>,
    not_followed: u64,
}

impl<S> Default for Connections<S> {
    fn default() -> Self {
        Connections { sockets: Vec::new(), opened: 0, directories: Vec::new(), not_followed: 0 }
    }
}

/// The calls that [`Connections::observe`] looks at.
pub const CALLS: &[Call] = &[
    Call::FdClose,
    Call::FdFdstatGet,
    Call::FdPrestatDirName,
    Call::FdRead,
    Call::FdRenumber,
    Call::FdWrite,
    Call::PathOpen,
    Call::PollOneoff,
    Call::SockAccept,
    Call::SockAcceptV1,
    Call::SockBind,
    Call::SockConnect,
    Call::SockGetlocaladdr,
    Call::SockGetlocaladdrV1,
    Call::SockGetpeeraddr,
    Call::SockGetpeeraddrV1,
    Call::SockGetsockopt,
    Call::SockListen,
    Call::SockOpen,
    Call::SockRecv,
    Call::SockRecvFrom,
    Call::SockRecvFromV1,
    Call::SockSend,
    Call::SockSendTo,
    Call::SockSetsockopt,
    Call::SockShutdown,
];

impl<S: Default> Connections<S> {
    /// The sockets that the guest has before its first call.
    pub fn with_given(given: &[Given]) -> Self {
        let mut connections = Connections::default();
        for Given { fd, listens, name } in given {
            if let Some(socket) = connections.insert(*fd, Transport::Stream, false) {
                let endpoint = Endpoint::named(name);
                if *listens {
                    (socket.stage, socket.side, socket.local) = (Stage::Listening, Side::Server, endpoint);
                } else {
                    (socket.stage, socket.peer) = (Stage::Connected, endpoint);
                }
            }
        }
        connections
    }

    /// Sockets that were not followed because their descriptors' numbers were too high.
    pub fn not_followed(&self) -> u64 {
        self.not_followed
    }

    /// The open sockets.
    pub fn open(&mut self) -> impl Iterator<Item = &mut Socket<S>> {
        self.sockets.iter_mut().flatten().map(|socket| &mut **socket)
    }

    /// Looks at one record, and tells `watcher` what it says of sockets.
    pub fn observe<R: Record>(&mut self, record: &R, watcher: &mut impl Watcher<State = S>) {
        let Some(call) = Call::from_id(record.call()) else { return };
        // The guest tries again: nothing has happened.
        if record.errno() == Errno::Again as u16 {
            return;
        }
        let seen = Seen { record, call };
        match call {
            Call::FdRead | Call::FdWrite if self.get(seen.fd()).is_none() => {}
            Call::FdRead
            | Call::FdWrite
            | Call::SockRecv
            | Call::SockRecvFrom
            | Call::SockRecvFromV1
            | Call::SockSend
            | Call::SockSendTo => {
                let Some(socket) = self.get_or_given(&seen, None) else { return };
                if call == Call::FdRead && socket.stage == Stage::Listening {
                    return self.accepted(&seen, watcher);
                }
                seen.data(socket, watcher);
            }
            _ => self.observe_control(&seen, watcher),
        }
    }

    fn observe_control<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        match seen.call {
            Call::SockOpen => self.opened_by(seen, watcher),
            Call::SockAccept | Call::SockAcceptV1 => self.accepted(seen, watcher),
            Call::PathOpen => self.opened_as_path(seen, watcher),
            Call::FdPrestatDirName if seen.succeeded() => {
                let is_name = |directory: &SocketDirectory| seen.written_is(directory.guest_path());
                // No guest asks more than once.
                if let Some(directory) = SocketDirectory::ALL.into_iter().find(is_name)
                    && self.directories.len() < SocketDirectory::ALL.len()
                {
                    self.directories.push((seen.fd(), directory));
                }
            }
            Call::SockConnect => self.connect(seen, watcher),
            Call::FdClose if seen.succeeded() => self.close(seen.fd(), watcher),
            Call::FdRenumber if seen.succeeded() => self.renumber(seen, watcher),
            Call::PollOneoff if seen.succeeded() => self.polled(seen),
            Call::SockGetsockopt if seen.succeeded() => self.asked_for_error(seen, watcher),
            Call::SockGetlocaladdr | Call::SockGetlocaladdrV1 | Call::SockGetpeeraddr | Call::SockGetpeeraddrV1
                if seen.succeeded() =>
            {
                self.learned(seen, watcher);
            }
            Call::FdFdstatGet if seen.succeeded() => {
                if let Some(transport) = seen.socket_type() {
                    self.get_or_given(seen, Some(transport));
                }
            }
            Call::SockBind | Call::SockListen | Call::SockShutdown | Call::SockSetsockopt => {
                if let Some(socket) = self.get_or_given(seen, None) {
                    seen.control(socket, watcher);
                }
            }
            _ => {}
        }
    }

    fn get(&mut self, fd: u32) -> Option<&mut Socket<S>> {
        self.sockets.get_mut(fd as usize)?.as_deref_mut()
    }

    /// The socket of the first argument. One that isn't known, and for which a socket call has worked, was given to
    /// the guest.
    fn get_or_given<R: Record>(&mut self, seen: &Seen<'_, R>, transport: Option<Transport>) -> Option<&mut Socket<S>> {
        let fd = seen.fd();
        if self.get(fd).is_none() {
            if !seen.succeeded() || fd as usize >= DESCRIPTORS_MAX {
                return None;
            }
            let is_datagram = matches!(seen.call, Call::SockRecvFrom | Call::SockRecvFromV1 | Call::SockSendTo);
            let transport = transport.unwrap_or(if is_datagram { Transport::Datagram } else { Transport::Stream });
            let socket = self.insert(fd, transport, false)?;
            socket.stage = Stage::Connected;
        }
        self.get(fd)
    }

    /// A new socket, where none is open.
    fn insert(&mut self, fd: u32, transport: Transport, is_unix: bool) -> Option<&mut Socket<S>> {
        let at = fd as usize;
        self.opened += 1;
        if at >= DESCRIPTORS_MAX {
            self.not_followed += 1;
            return None;
        }
        if at >= self.sockets.len() {
            self.sockets.resize_with(at + 1, || None);
        }
        self.sockets[at] = Some(Box::new(Socket::new(self.opened, transport, is_unix)));
        self.sockets[at].as_deref_mut()
    }

    fn opened_by<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let Some(fd) = seen.result_u32(2).filter(|_| seen.succeeded()) else { return };
        let transport = if seen.arg(1) == abi::TYPE_DGRAM { Transport::Datagram } else { Transport::Stream };
        // A log with a gap may lack the close of what was there.
        self.close(fd, watcher);
        self.insert(fd, transport, seen.arg(0) == abi::FAMILY_UNIX);
    }

    /// A path was opened: beneath a directory of sockets, one of these.
    fn opened_as_path<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let fd = seen.result_u32(8).filter(|_| seen.succeeded());
        if let Some(fd) = fd {
            // Whatever was opened, a log with a gap may lack the close of what was there.
            self.close(fd, watcher);
        }
        let Some((_, directory)) = self.directories.iter().find(|(fd, _)| *fd == seen.fd()) else { return };
        let path = seen.sent().next().map_or(&[][..], |(_, path)| path);
        let Ok(named) = directory.named(path) else { return };
        let errno = seen.record.errno();
        let waits = named.listens || seen.arg(7) & u32::from(fdflags::NONBLOCK) == 0;
        let (stage, outcome) = match (errno, named.listens) {
            (0, true) => (Stage::Listening, 0),
            (0, false) if waits => (Stage::Connected, 0),
            (0, false) => (Stage::Connecting { ready: false }, Errno::Inprogress as u16),
            _ => (Stage::Open, errno),
        };
        let at = match if named.listens { named.own().ok() } else { named.literal() } {
            Some(address) => Endpoint { name: address.to_string(), address: Some(address) },
            None => Endpoint::named(&format!("{}:{}", named.host.escape_debug(), named.port)),
        };
        let fill = |socket: &mut Socket<S>| {
            socket.stage = stage;
            if named.listens {
                (socket.side, socket.local) = (Side::Server, at);
            } else {
                socket.peer = at;
            }
        };
        let event = Event::of(if named.listens { Kind::Listen } else { Kind::Connect }, outcome);
        if let Some(fd) = fd {
            let Some(socket) = self.insert(fd, named.transport, false) else { return };
            fill(socket);
            watcher.event(socket, &event);
        } else {
            self.opened += 1;
            let mut failed = Socket::new(self.opened, named.transport, false);
            fill(&mut failed);
            watcher.event(&mut failed, &event);
        }
    }

    fn accepted<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let Some(listener) = self.get_or_given(seen, None) else { return };
        if !seen.succeeded() {
            return watcher.event(listener, &Event::of(Kind::Accept, seen.record.errno()));
        }
        if listener.stage != Stage::Listening {
            listener.stage = Stage::Listening;
            listener.side = Side::Server;
        }
        let (transport, is_unix, local) = (listener.transport, listener.is_unix, listener.local.clone());
        let Some(fd) = seen.accepted_fd() else { return };
        self.close(fd, watcher);
        let Some(socket) = self.insert(fd, transport, is_unix) else { return };
        socket.stage = Stage::Connected;
        socket.side = Side::Server;
        socket.local = local;
        watcher.event(socket, &Event::of(Kind::Accept, 0));
    }

    fn connect<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let errno = seen.record.errno();
        let Some(socket) = self.get_or_given(seen, None) else { return };
        if let Some(peer) = seen.address(0, 2) {
            socket.peer.set(peer);
        }
        let stage = match Errno::from_raw(errno) {
            Some(Errno::Success | Errno::Isconn) => Stage::Connected,
            Some(Errno::Inprogress | Errno::Intr) => Stage::Connecting { ready: false },
            Some(Errno::Already) => return,
            _ => Stage::Open,
        };
        let before = std::mem::replace(&mut socket.stage, stage);
        let outcome = if errno == Errno::Isconn as u16 { 0 } else { errno };
        if before != Stage::Connected || errno == outcome {
            watcher.event(socket, &Event::of(Kind::Connect, outcome));
        }
    }

    /// Tells of the end of the socket that is open there, if one is.
    fn close(&mut self, fd: u32, watcher: &mut impl Watcher<State = S>) {
        self.directories.retain(|(directory, _)| *directory != fd);
        if let Some(mut socket) = self.sockets.get_mut(fd as usize).and_then(Option::take) {
            watcher.event(&mut socket, &Event::of(Kind::Close, 0));
        }
    }

    fn renumber<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let (from, to) = (seen.fd(), seen.arg(1));
        if from == to {
            return;
        }
        self.close(to, watcher);
        if self.get(from).is_none() {
            return;
        }
        if to as usize >= DESCRIPTORS_MAX {
            self.not_followed += 1;
            return self.close(from, watcher);
        }
        if to as usize >= self.sockets.len() {
            self.sockets.resize_with(to as usize + 1, || None);
        }
        self.sockets[to as usize] = self.sockets[from as usize].take();
    }

    /// Marks those of which the guest learned that they are writable, or have failed.
    fn polled<R: Record>(&mut self, seen: &Seen<'_, R>) {
        let events = seen.record.written().next().map_or(&[][..], |(_, bytes)| bytes);
        let subscriptions = seen.sent().next().map_or(&[][..], |(_, bytes)| bytes);
        // Events come in the order of what was asked for.
        let mut subscriptions = subscriptions.chunks_exact(event::SUBSCRIPTION_BYTES as usize);
        for happened in events.chunks_exact(event::EVENT_BYTES as usize) {
            if happened[10] != event::FD_WRITE {
                continue;
            }
            let asked = |asked: &&[u8]| asked[..8] == happened[..8] && asked[8] == event::FD_WRITE;
            let found = subscriptions.find(asked);
            let Some(fd) = found.and_then(|subscription| u32_at(subscription, 16)) else { continue };
            if let Some(socket) = self.get(fd)
                && let Stage::Connecting { ready } = &mut socket.stage
            {
                *ready = true;
            }
        }
    }

    /// `SO_ERROR` tells how a connection ended that was begun, and of errors later.
    fn asked_for_error<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        if (seen.arg(1), seen.arg(2)) != (abi::LEVEL_SOCKET, abi::OPTION_ERROR) {
            return;
        }
        let Some(error) = seen.result_u32(3) else { return };
        let Some(socket) = self.get(seen.fd()) else { return };
        let errno = u16::try_from(error).unwrap_or(u16::MAX);
        let kind = match socket.stage {
            Stage::Connecting { ready: true } if errno == 0 => Kind::Connect,
            Stage::Connecting { .. } if errno != 0 => Kind::Connect,
            _ if errno != 0 => Kind::Fault,
            _ => return,
        };
        if kind == Kind::Connect {
            socket.stage = if errno == 0 { Stage::Connected } else { Stage::Open };
        }
        watcher.event(socket, &Event::of(kind, errno));
    }

    fn learned<R: Record>(&mut self, seen: &Seen<'_, R>, watcher: &mut impl Watcher<State = S>) {
        let (port, is_peer) = match seen.call {
            Call::SockGetlocaladdr => (2, false),
            Call::SockGetlocaladdrV1 => (3, false),
            Call::SockGetpeeraddr => (2, true),
            _ => (3, true),
        };
        let Some(address) = seen.told_address(1, Some(port)) else { return };
        let Some(socket) = self.get_or_given(seen, None) else { return };
        socket.is_unix |= matches!(address, Address::Unix(_));
        let endpoint = if is_peer { &mut socket.peer } else { &mut socket.local };
        if endpoint.set(address) {
            watcher.event(socket, &Event::of(Kind::Learned, 0));
        }
        if is_peer && matches!(socket.stage, Stage::Connecting { .. }) {
            // Only what is connected has a peer.
            socket.stage = Stage::Connected;
            watcher.event(socket, &Event::of(Kind::Connect, 0));
        }
    }
}

/// A record, and what its call's arguments mean.
struct Seen<'r, R> {
    record: &'r R,
    call: Call,
}

impl<'r, R: Record> Seen<'r, R> {
    fn succeeded(&self) -> bool {
        self.record.errno() == Errno::Success as u16
    }

    fn arg(&self, index: usize) -> u32 {
        self.record.args().get(index).map_or(u32::MAX, |arg| *arg as u32)
    }

    fn fd(&self) -> u32 {
        self.arg(0)
    }

    /// What the guest handed over, without that of which only a digest is left.
    fn sent(&self) -> impl Iterator<Item = (u32, &'r [u8])> + Clone {
        self.record.inputs()
    }

    /// The number in a result cell, given the index of the argument that points to it.
    fn result_u32(&self, index: usize) -> Option<u32> {
        let ptr = self.arg(index);
        let cell = self.record.written().filter(|(at, bytes)| *at == ptr && bytes.len() == 4).last();
        cell.and_then(|(_, bytes)| u32_at(bytes, 0))
    }

    /// The descriptor of a connection that was accepted; a listener that is read tells it as a line.
    fn accepted_fd(&self) -> Option<u32> {
        match self.call {
            Call::SockAccept => self.result_u32(2),
            Call::SockAcceptV1 => self.result_u32(1),
            _ => {
                let mut line = None;
                with_pieces(self.record.written(), self.result_u32(3)?, |pieces| line = Some(pieces.concat()));
                std::str::from_utf8(&line?).ok()?.trim_end().parse().ok()
            }
        }
    }

    /// Whether the first thing that the host wrote is this text.
    fn written_is(&self, text: &str) -> bool {
        self.record.written().next().is_some_and(|(_, bytes)| bytes == text.as_bytes())
    }

    /// The address that the guest handed over as region `index + 1`, behind its description; its port is an argument.
    fn address(&self, index: usize, port: usize) -> Option<Address> {
        let (_, bytes) = self.sent().nth(index + 1)?;
        address::decode(bytes, self.arg(port)).ok()
    }

    /// The address that the host wrote where argument `index` says.
    fn told_address(&self, index: usize, port: Option<usize>) -> Option<Address> {
        let description = self.arg(index);
        let (_, buffer) =
            self.sent().find(|(at, bytes)| *at == description && bytes.len() == abi::BUFFER_BYTES as usize)?;
        let (ptr, room) = (u32_at(buffer, 0)?, u32_at(buffer, 4)?);
        let (_, bytes) = self.record.written().filter(|(at, _)| *at == ptr).last()?;
        let port = port.map_or(Some(0), |port| self.result_u32(port))?;
        if room != abi::TAGGED_BYTES {
            return address::decode(bytes, port).ok();
        }
        // What lies behind the address is not written.
        let mut tagged = [0; abi::TAGGED_BYTES as usize];
        let len = bytes.len().min(tagged.len());
        tagged[..len].copy_from_slice(&bytes[..len]);
        address::decode(&tagged, port).ok()
    }

    /// The kind of socket that `fd_fdstat_get` found, if it is one.
    fn socket_type(&self) -> Option<Transport> {
        let ptr = self.arg(1);
        let (_, stat) = self.record.written().find(|(at, bytes)| *at == ptr && bytes.len() == size::FDSTAT as usize)?;
        match stat[0] {
            filetype::SOCKET_DGRAM => Some(Transport::Datagram),
            filetype::SOCKET_STREAM => Some(Transport::Stream),
            _ => None,
        }
    }

    fn control<S: Default>(&self, socket: &mut Socket<S>, watcher: &mut impl Watcher<State = S>) {
        let errno = self.record.errno();
        let kind = match self.call {
            Call::SockBind => {
                if let Some(address) = self.address(0, 2).filter(|_| errno == 0) {
                    socket.local.set(address);
                }
                Kind::Bind
            }
            Call::SockListen => {
                if errno == 0 {
                    (socket.stage, socket.side) = (Stage::Listening, Side::Server);
                }
                Kind::Listen
            }
            Call::SockShutdown => {
                let how = self.arg(1);
                Kind::Shutdown { receive: how & SHUTDOWN_RD != 0, send: how & SHUTDOWN_WR != 0 }
            }
            _ if (self.arg(1), self.arg(2)) == (abi::LEVEL_HOST, abi::HOST_TLS) => Kind::Tls,
            _ => return,
        };
        watcher.event(socket, &Event::of(kind, errno));
    }

    /// A transfer.
    fn data<S: Default>(&self, socket: &mut Socket<S>, watcher: &mut impl Watcher<State = S>) {
        let (direction, result) = match self.call {
            Call::FdRead => (Direction::Received, 3),
            Call::FdWrite => (Direction::Sent, 3),
            Call::SockRecv | Call::SockSend => {
                (if self.call == Call::SockRecv { Direction::Received } else { Direction::Sent }, 4)
            }
            Call::SockRecvFromV1 => (Direction::Received, 5),
            Call::SockRecvFrom => (Direction::Received, 6),
            _ => (Direction::Sent, 6),
        };
        let kind = Kind::Data(direction);
        if !self.succeeded() {
            return watcher.event(socket, &Event::of(kind, self.record.errno()));
        }
        if matches!(socket.stage, Stage::Connecting { .. }) {
            // What transfers is connected.
            socket.stage = Stage::Connected;
            watcher.event(socket, &Event::of(Kind::Connect, 0));
        }
        let bytes = self.result_u32(result).unwrap_or(0);
        let peer = match self.call {
            _ if socket.transport == Transport::Stream => None,
            Call::SockSendTo => self.address(0, 4),
            Call::SockRecvFrom => self.told_address(3, Some(5)),
            // It tells no port.
            Call::SockRecvFromV1 if socket.peer.address.is_none() => self.told_address(3, None),
            _ => None,
        };
        let mut event = Event { bytes: u64::from(bytes), peer: peer.as_ref(), ..Event::of(kind, 0) };
        match direction {
            Direction::Received => {
                event.peeked = self.call != Call::FdRead && self.receive_flags() & RECV_PEEK != 0;
                event.is_end = bytes == 0 && socket.transport == Transport::Stream && self.had_room();
                socket.received_bytes += if event.peeked { 0 } else { event.bytes };
                with_pieces(self.record.written(), bytes, |pieces| watcher.event(socket, &Event { pieces, ..event }));
            }
            Direction::Sent => {
                event.missing = self.record.digested() && bytes > 0;
                socket.sent_bytes += event.bytes;
                // Behind the list of buffers, and behind an address before it.
                let before = if self.call == Call::SockSendTo { 3 } else { 1 };
                with_pieces(self.sent().skip(before), bytes, |pieces| {
                    watcher.event(socket, &Event { pieces, ..event });
                });
            }
        }
    }

    fn receive_flags(&self) -> u32 {
        self.arg(if self.call == Call::SockRecv { 3 } else { 4 })
    }

    /// Whether the guest's buffers could have taken anything.
    fn had_room(&self) -> bool {
        let mut lists = self.sent();
        let Some((_, list)) = lists.next() else { return true };
        list.chunks_exact(size::IOVEC as usize).any(|iovec| u32_at(iovec, 4) != Some(0))
    }
}

/// Hands over the first `bytes` of some regions, without copies.
fn with_pieces<'r>(regions: impl Iterator<Item = (u32, &'r [u8])> + Clone, bytes: u32, then: impl FnOnce(&[&'r [u8]])) {
    let mut left = bytes as usize;
    let mut pieces = regions.map_while(|(_, region)| {
        let piece = &region[..region.len().min(left)];
        left -= piece.len();
        (left > 0 || !piece.is_empty()).then_some(piece)
    });
    match pieces.next() {
        None => then(&[]),
        Some(only) if only.len() == bytes as usize => then(&[only]),
        Some(first) => then(&std::iter::once(first).chain(pieces).collect::<Vec<_>>()),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
