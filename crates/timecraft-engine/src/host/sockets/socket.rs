//! One socket: what state it is in, and what each operation does in it. Nothing here waits; an operation that would is
//! [`Errno::Again`], and `poll::block_on` waits for guests that want it to.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::datagrams::Datagrams;
use super::flows::FLOWS_MAX;
use super::loopback::{self, Attempt, Binding, Endpoint, Inbox, Ports, Queue, is_wildcard, lock, reached};
use super::named::Candidates;
use super::options::Options;
use crate::Errno;
use crate::abi::filetype;
use crate::host::poll::{Meaning, Watch};
use crate::host::transfer::retry;
use crate::network::{Address, Answer, Connection, Dial, Listen, Listening, Network, Secure, Ticket, Transport};

/// Connections that wait for a listener, at most.
pub(super) const BACKLOG_MAX: u32 = 1024;

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Family {
    Inet4,
    Inet6,
    Unix,
}

impl Family {
    pub fn of(address: &Address) -> Self {
        match address {
            Address::Inet(SocketAddr::V4(_)) => Family::Inet4,
            Address::Inet(SocketAddr::V6(_)) => Family::Inet6,
            Address::Unix(_) => Family::Unix,
        }
    }

    /// The address of a socket that has none yet.
    pub fn unnamed(self) -> Address {
        match self {
            Family::Inet4 => Address::Inet((Ipv4Addr::UNSPECIFIED, 0).into()),
            Family::Inet6 => Address::Inet((Ipv6Addr::UNSPECIFIED, 0).into()),
            Family::Unix => Address::Unix(Vec::new()),
        }
    }
}

/// What sockets share: the guest's loopback, and what lies beyond.
#[derive(Clone)]
pub(in crate::host) struct Net {
    pub(super) ports: Arc<Mutex<Ports>>,
    network: Arc<Mutex<Box<dyn Network>>>,
    own: (Option<Ipv4Addr>, Option<Ipv6Addr>),
}

impl Net {
    pub fn new(network: Box<dyn Network>) -> Self {
        let own = network.addresses();
        Net { ports: Arc::default(), network: Arc::new(Mutex::new(network)), own }
    }

    /// What lies beyond loopback, for a request.
    pub fn network(&self) -> MutexGuard<'_, Box<dyn Network>> {
        lock(&self.network)
    }

    /// Whether the address is the guest itself.
    pub fn is_local(&self, address: &Address) -> bool {
        match address.ip() {
            None => true,
            Some(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified() || self.own.0 == Some(ip),
            Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified() || self.own.1 == Some(ip),
        }
    }

    /// Whether others could reach a socket that is bound there.
    pub fn is_public(&self, address: &Address) -> Option<SocketAddr> {
        match address {
            Address::Inet(inet) if self.is_local(address) && !inet.ip().is_loopback() => Some(*inet),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A socket of the guest.
#[derive(Debug)]
pub(in crate::host) struct Socket {
    pub family: Family,
    pub transport: Transport,
    pub options: Options,
    /// What `SO_ERROR` or the next operation tells, once.
    pub(super) error: Option<Errno>,
    pub(super) state: State,
    pub(super) local: Option<Address>,
    /// Halves that the guest has shut down. Reading is shut down here alone: a kernel's socket pair would turn it into
    /// an error for the peer, which TCP doesn't.
    read_shut: bool,
    write_shut: bool,
    /// Where else it may connect to, if the first address doesn't answer.
    pub(super) candidates: Option<Box<Candidates>>,
}

#[derive(Debug)]
pub(super) enum State {
    /// A stream socket that is neither connected nor listening.
    Idle(Option<Binding>),
    Listening(Listener),
    Connecting(Connecting),
    Connected(Connected),
    Datagrams(Datagrams),
    /// Its connection died with the process that is resumed.
    Lost(Option<Address>),
}

#[derive(Debug)]
pub(super) struct Listener {
    pub binding: Binding,
    pub queue: Arc<Queue>,
    outside: Option<Listening>,
    asked: Option<Ticket>,
    shut: bool,
}

#[derive(Debug)]
pub(super) struct Connecting {
    ticket: Ticket,
    binding: Option<Binding>,
    /// The peer of a connection that is there and gets TLS: it has its addresses, and there is no way back.
    secures: Option<Address>,
}

#[derive(Debug)]
pub(super) struct Connected {
    pub socket: OwnedFd,
    pub peer: Address,
    /// The port of the connection's beginning.
    binding: Option<Binding>,
    /// What TLS has settled on (ALPN), empty for nothing; `None` without TLS.
    protocol: Option<String>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What an operation received.
#[derive(Debug)]
pub(in crate::host) struct Received {
    pub count: usize,
    /// A datagram was longer than the buffer.
    pub truncated: bool,
    /// `None` for streams.
    pub from: Option<Address>,
}

impl Socket {
    pub fn open(family: Family, transport: Transport) -> Result<Self, Errno> {
        let state = match transport {
            Transport::Stream => State::Idle(None),
            Transport::Datagram => State::Datagrams(Datagrams::new()?),
        };
        Ok(Socket::with(family, transport, state))
    }

    fn with(family: Family, transport: Transport, state: State) -> Self {
        let (read_shut, write_shut) = (false, false);
        Socket {
            family,
            transport,
            options: Options::default(),
            error: None,
            state,
            local: None,
            read_shut,
            write_shut,
            candidates: None,
        }
    }

    /// A socket whose connection died with the process that is resumed.
    pub fn lost(family: Family, transport: Transport, local: Option<Address>, peer: Option<Address>) -> Self {
        Socket { local, ..Socket::with(family, transport, State::Lost(peer)) }
    }

    /// A listener that somebody else has opened.
    pub fn listening(kernel: OwnedFd, local: SocketAddr, net: &mut Net) -> Result<Self, Errno> {
        let local = Address::Inet(local);
        rustix::io::ioctl_fionbio(&kernel, true)?;
        let binding = Binding::take(&net.ports, Transport::Stream, &local)?;
        let queue = Queue::new(BACKLOG_MAX as usize)?;
        binding.answer(Endpoint::Listener(Arc::clone(&queue)));
        let outside = Some(Listening::Kernel(kernel));
        let state = State::Listening(Listener { binding, queue, outside, asked: None, shut: false });
        let family = Family::of(&local);
        Ok(Socket { local: Some(local), ..Socket::with(family, Transport::Stream, state) })
    }

    /// A connection that somebody else has made. Options are those of the listener, if it came through one.
    pub fn accepted(family: Family, connection: Connection, options: Options) -> Result<Self, Errno> {
        let Connection { socket, local, peer } = connection;
        rustix::io::ioctl_fionbio(&socket, true)?;
        options.apply(socket.as_fd());
        let connected = Connected { socket, peer, binding: None, protocol: None };
        let state = State::Connected(connected);
        Ok(Socket { local: Some(local), options, ..Socket::with(family, Transport::Stream, state) })
    }

    pub fn filetype(&self) -> u8 {
        match self.transport {
            Transport::Stream => filetype::SOCKET_STREAM,
            Transport::Datagram => filetype::SOCKET_DGRAM,
        }
    }

    /// Takes in what the network has answered meanwhile.
    pub fn settle(&mut self) {
        match &mut self.state {
            State::Connecting(connecting) => {
                if let Some(reply) = connecting.ticket.poll() {
                    self.connected(reply);
                }
            }
            State::Listening(listener) => match listener.asked.as_ref().and_then(Ticket::poll) {
                Some(Ok(Answer::Listening(outside))) => {
                    if let Listening::Kernel(socket) = &outside {
                        let _ = rustix::io::ioctl_fionbio(socket, true);
                    }
                    (listener.outside, listener.asked) = (Some(outside), None);
                }
                Some(_) => listener.asked = None,
                None => {}
            },
            State::Datagrams(datagrams) => {
                if let Err(errno) = datagrams.settle() {
                    self.error = Some(errno);
                }
            }
            State::Idle(_) | State::Connected(_) | State::Lost(_) => {}
        }
    }

    /// Forgets what its peers have ended, before it is polled.
    pub fn prune(&mut self) {
        if let State::Datagrams(datagrams) = &mut self.state {
            datagrams.prune();
        }
    }

    fn connected(&mut self, reply: Result<Answer, Errno>) {
        let State::Connecting(Connecting { binding, secures, .. }) =
            std::mem::replace(&mut self.state, State::Idle(None))
        else {
            return;
        };
        let connection = match (reply, &secures) {
            (Ok(Answer::Connected(connection)), None) => Ok((connection, None)),
            (Ok(Answer::Secured(connection, protocol)), Some(_)) => Ok((connection, Some(protocol))),
            (Ok(Answer::Addresses(addresses)), None) => return self.try_candidates(addresses, Errno::Noent),
            (Ok(_), _) => Err(Errno::Proto),
            (Err(errno), _) => Err(errno),
        };
        let ready = connection.and_then(|connection| {
            rustix::io::ioctl_fionbio(&connection.0.socket, true)?;
            Ok(connection)
        });
        match (ready, secures) {
            (Ok((Connection { socket, local, peer }, protocol)), secured) => {
                self.options.apply(socket.as_fd());
                if secured.is_none() {
                    self.local = Some(local);
                }
                let peer = secured.unwrap_or(peer);
                self.state = State::Connected(Connected { socket, peer, binding, protocol });
                self.candidates = None;
            }
            (Err(errno), None) if self.candidates.is_some() => self.try_candidates(Vec::new(), errno),
            (Err(errno), secured) => {
                self.error = Some(errno);
                self.state = if secured.is_some() { State::Lost(secured) } else { State::Idle(binding) };
            }
        }
    }

    fn check_address(&self, address: &Address) -> Result<(), Errno> {
        if Family::of(address) != self.family {
            return Err(Errno::Afnosupport);
        }
        Ok(())
    }

    pub fn bind(&mut self, address: &Address, net: &mut Net) -> Result<(), Errno> {
        self.check_address(address)?;
        match (&self.state, address) {
            (State::Idle(None), _) => {}
            (State::Datagrams(datagrams), _) if datagrams.binding.is_none() => {}
            _ => return Err(Errno::Inval),
        }
        match address {
            Address::Unix(name) if name.is_empty() => return Err(Errno::Inval),
            _ if !net.is_local(address) => return Err(Errno::Addrnotavail),
            _ => {}
        }
        self.take_port(address, net)?;
        let public = self.local.as_ref().and_then(|local| net.is_public(local));
        if let (State::Datagrams(datagrams), Some(at)) = (&mut self.state, public) {
            let request = Listen { transport: Transport::Datagram, at, backlog: FLOWS_MAX as u32 };
            datagrams.asked = Some(net.network().listen(request));
            self.settle();
        }
        Ok(())
    }

    /// Binds to an address that is right, or to the next free port of it.
    fn take_port(&mut self, address: &Address, net: &mut Net) -> Result<(), Errno> {
        let binding = Binding::take(&net.ports, self.transport, address)?;
        self.local = Some(binding.address.clone());
        match &mut self.state {
            State::Datagrams(datagrams) => datagrams.bind(binding),
            state => *state = State::Idle(Some(binding)),
        }
        Ok(())
    }

    pub fn listen(&mut self, backlog: u32, net: &mut Net) -> Result<(), Errno> {
        let backlog = backlog.clamp(1, BACKLOG_MAX);
        if let State::Listening(listener) = &self.state {
            listener.queue.set_backlog(backlog as usize);
            return if listener.shut { Err(Errno::Inval) } else { Ok(()) };
        }
        match &self.state {
            State::Datagrams(_) => return Err(Errno::Notsup),
            State::Idle(None) if self.family == Family::Unix => return Err(Errno::Inval),
            State::Idle(None) => self.take_port(&self.family.unnamed(), net)?,
            State::Idle(Some(_)) => {}
            _ => return Err(Errno::Inval),
        }
        let queue = Queue::new(backlog as usize)?;
        let State::Idle(binding) = &mut self.state else { return Err(Errno::Inval) };
        let Some(binding) = binding.take() else { return Err(Errno::Inval) };
        binding.answer(Endpoint::Listener(Arc::clone(&queue)));
        let request = |at| Listen { transport: Transport::Stream, at, backlog };
        let asked = net.is_public(&binding.address).map(|at| net.network().listen(request(at)));
        self.state = State::Listening(Listener { binding, queue, outside: None, asked, shut: false });
        self.settle();
        Ok(())
    }

    pub fn accept(&mut self) -> Result<Socket, Errno> {
        self.settle();
        let State::Listening(listener) = &self.state else {
            return Err(if self.transport == Transport::Datagram { Errno::Notsup } else { Errno::Inval });
        };
        let connection = match (listener.queue.accept(), &listener.outside) {
            (Err(Errno::Again), Some(outside)) => outside.accept(&listener.binding.address),
            (accepted, _) => accepted,
        };
        Socket::accepted(self.family, connection?, self.options.clone())
    }

    pub fn connect(&mut self, address: &Address, net: &mut Net) -> Result<(), Errno> {
        self.check_address(address)?;
        self.settle();
        if matches!(address.ip(), Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some()) {
            return Err(Errno::Netunreach);
        }
        let to = reached(address);
        match &self.state {
            State::Datagrams(_) => return self.connect_datagrams(to, net),
            State::Connecting(_) => return Err(Errno::Already),
            State::Connected(_) | State::Listening(_) | State::Lost(_) => return Err(Errno::Isconn),
            State::Idle(_) => {}
        }
        self.error = None;
        match &to {
            Address::Inet(inet) if !net.is_local(&to) => {
                let from = self.local.as_ref().and_then(|local| net.is_public(local));
                let request = Dial { transport: Transport::Stream, to: *inet, from };
                let ticket = net.network().dial(request);
                self.wait_for(ticket)
            }
            _ => self.connect_loopback(to, net),
        }
    }

    /// Waits for the ticket, which may be answered already.
    pub(super) fn wait_for(&mut self, ticket: Ticket) -> Result<(), Errno> {
        let binding = if let State::Idle(binding) = &mut self.state { binding.take() } else { None };
        self.state = State::Connecting(Connecting { ticket, binding, secures: None });
        self.settle();
        match (&self.state, self.error.take()) {
            (State::Connecting(_), _) => Err(Errno::Inprogress),
            (_, Some(errno)) => Err(errno),
            (_, None) => Ok(()),
        }
    }

    fn connect_loopback(&mut self, to: Address, net: &mut Net) -> Result<(), Errno> {
        let queue = match loopback::find(&net.ports, Transport::Stream, &to) {
            Some(Endpoint::Listener(queue)) => queue,
            None if self.family == Family::Unix => return Err(Errno::Noent),
            _ => return Err(Errno::Connrefused),
        };
        if matches!(&self.state, State::Idle(None)) && self.family != Family::Unix {
            let binding = Binding::take(&net.ports, Transport::Stream, &to.with_port(0))?;
            self.local = Some(binding.address.clone());
            self.state = State::Idle(Some(binding));
        }
        // Whoever is bound to a wildcard speaks from the address that it speaks to.
        let from = match &self.local {
            Some(local) if is_wildcard(local) => to.with_port(local.port()),
            Some(local) => local.clone(),
            None => self.family.unnamed(),
        };
        match queue.connect(from.clone(), to.clone())? {
            Attempt::Waiting(ticket) => self.wait_for(ticket),
            Attempt::Established(socket) => {
                let binding = if let State::Idle(binding) = &mut self.state { binding.take() } else { None };
                self.options.apply(socket.as_fd());
                self.local = Some(from);
                self.state = State::Connected(Connected { socket, peer: to, binding, protocol: None });
                Ok(())
            }
        }
    }

    fn connect_datagrams(&mut self, to: Address, net: &mut Net) -> Result<(), Errno> {
        if self.family == Family::Unix && loopback::find(&net.ports, Transport::Datagram, &to).is_none() {
            return Err(Errno::Noent);
        }
        self.bind_datagrams(&to, net)?;
        let local = self.local.clone().unwrap_or_else(|| self.family.unnamed());
        if is_wildcard(&local) && net.is_local(&to) {
            self.local = Some(to.with_port(local.port()));
        }
        let State::Datagrams(datagrams) = &mut self.state else { return Err(Errno::Inval) };
        datagrams.connect(to, net)
    }

    /// Gives a datagram socket a port, if it has none.
    fn bind_datagrams(&mut self, to: &Address, net: &mut Net) -> Result<(), Errno> {
        match &self.state {
            State::Datagrams(datagrams) if datagrams.binding.is_none() && self.family != Family::Unix => {
                self.take_port(&loopback::wildcard(to, 0), net)
            }
            _ => Ok(()),
        }
    }

    /// Hands the connection to the network for TLS with the peer of that name.
    pub fn secure(&mut self, name: String, net: &mut Net) -> Result<(), Errno> {
        self.settle();
        let socket = match &self.state {
            State::Connected(Connected { socket, protocol: None, .. }) => rustix::io::fcntl_dupfd_cloexec(socket, 0)?,
            State::Connected(_) => return Err(Errno::Isconn),
            State::Connecting(Connecting { secures: Some(_), .. }) => return Err(Errno::Already),
            _ => return Err(Errno::Notconn),
        };
        let ticket = net.network().secure(Secure { socket, name, protocols: self.options.protocols.clone() });
        if ticket.descriptor().is_none()
            && let Some(Err(errno)) = ticket.poll()
        {
            // Refused before anything was said to the peer: the connection is as it was.
            return Err(errno);
        }
        if let State::Connected(Connected { peer, binding, .. }) = std::mem::replace(&mut self.state, State::Lost(None))
        {
            self.state = State::Connecting(Connecting { ticket, binding, secures: Some(peer) });
        }
        self.settle();
        Ok(())
    }

    /// The protocol that TLS has settled on (ALPN); empty if on none.
    pub fn negotiated(&mut self) -> Result<&str, Errno> {
        self.settle();
        match &self.state {
            State::Connected(Connected { protocol: Some(protocol), .. }) => Ok(protocol),
            _ => Err(Errno::Notconn),
        }
    }

    /// Receives what is there, up to the buffer.
    pub fn receive(&mut self, bytes: &mut [u8], peek: bool) -> Result<Received, Errno> {
        self.settle();
        if let Some(errno) = self.error.take() {
            return Err(errno);
        }
        let received = match &mut self.state {
            State::Idle(_) | State::Listening(_) => Err(Errno::Notconn),
            State::Connecting(_) => Err(Errno::Again),
            State::Lost(_) => Err(Errno::Connreset),
            State::Datagrams(datagrams) => datagrams.receive(bytes, peek),
            State::Connected(connected) => {
                let flags = RecvFlags::DONTWAIT | if peek { RecvFlags::PEEK } else { RecvFlags::empty() };
                let done = retry(|| rustix::net::recv(&connected.socket, &mut *bytes, flags));
                done.map(|(count, _)| Received { count, truncated: false, from: None }).map_err(Errno::from)
            }
        };
        match received {
            // Nothing comes any more.
            Err(Errno::Again) if self.read_shut => Ok(Received { count: 0, truncated: false, from: None }),
            received => received,
        }
    }

    /// Sends as much as there is room for.
    pub fn send(&mut self, bytes: &[u8], to: Option<&Address>, net: &mut Net) -> Result<usize, Errno> {
        self.settle();
        if let Some(errno) = self.error.take() {
            return Err(errno);
        }
        if self.write_shut {
            return Err(Errno::Pipe);
        }
        if let (Some(to), State::Datagrams(_)) = (to, &self.state) {
            self.check_address(to)?;
            let to = reached(to);
            self.bind_datagrams(&to, net)?;
            return self.send_datagram(bytes, Some(&to), net);
        }
        match &self.state {
            State::Datagrams(_) => self.send_datagram(bytes, None, net),
            State::Idle(_) | State::Listening(_) => Err(Errno::Notconn),
            State::Connecting(_) => Err(Errno::Again),
            State::Lost(_) => Err(Errno::Connreset),
            State::Connected(connected) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(retry(|| rustix::net::send(&connected.socket, bytes, flags))?)
            }
        }
    }

    fn send_datagram(&mut self, bytes: &[u8], to: Option<&Address>, net: &mut Net) -> Result<usize, Errno> {
        let from = self.local.clone().unwrap_or_else(|| self.family.unnamed());
        let State::Datagrams(datagrams) = &mut self.state else { return Err(Errno::Inval) };
        let sent = datagrams.send(bytes, &from, to, net);
        if let (Err(Errno::Connrefused), None, true) = (&sent, to, self.family != Family::Unix) {
            // As the answer of an unreachable port: it comes later.
            self.error = Some(Errno::Connrefused);
            return Ok(bytes.len());
        }
        sent
    }

    pub fn shutdown(&mut self, read: bool, write: bool) -> Result<(), Errno> {
        self.settle();
        match &mut self.state {
            State::Connected(connected) => {
                if write && !self.write_shut {
                    retry(|| rustix::net::shutdown(&connected.socket, Shutdown::Write))?;
                }
            }
            State::Listening(listener) if read => {
                listener.queue.close();
                listener.binding.answer(Endpoint::Silent);
                (listener.outside, listener.asked, listener.shut) = (None, None, true);
                return Ok(());
            }
            State::Datagrams(_) => {}
            _ => return Err(Errno::Notconn),
        }
        self.read_shut |= read;
        self.write_shut |= write;
        Ok(())
    }

    pub fn local_address(&self) -> Address {
        self.local.clone().unwrap_or_else(|| self.family.unnamed())
    }

    pub fn peer_address(&mut self) -> Result<Address, Errno> {
        self.settle();
        match &self.state {
            State::Connected(Connected { peer, .. })
            | State::Connecting(Connecting { secures: Some(peer), .. })
            | State::Lost(Some(peer)) => Ok(peer.clone()),
            State::Datagrams(datagrams) => datagrams.peer.clone().ok_or(Errno::Notconn),
            _ => Err(Errno::Notconn),
        }
    }

    /// `SO_ERROR`: what went wrong since it was last asked for.
    pub fn take_error(&mut self) -> Option<Errno> {
        self.settle();
        let kernel = |socket: BorrowedFd<'_>| rustix::net::sockopt::socket_error(socket).ok()?.err().map(Errno::from);
        self.error.take().or_else(|| match &self.state {
            State::Connected(connected) => kernel(connected.socket.as_fd()),
            State::Lost(_) => Some(Errno::Connreset),
            _ => None,
        })
    }

    pub fn is_listening(&self) -> bool {
        matches!(&self.state, State::Listening(listener) if !listener.shut)
    }

    /// The kernel's socket behind a connection.
    pub fn kernel_socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Connected(connected) => Some(connected.socket.as_fd()),
            _ => None,
        }
    }

    pub(super) fn inbox(&self) -> Option<&Inbox> {
        match &self.state {
            State::Datagrams(datagrams) => Some(&datagrams.inbox),
            _ => None,
        }
    }

    /// What to poll to learn of the socket's readiness.
    pub fn watch<'a>(&'a self, interest: PollFlags, watch: &mut Watch<'a>) {
        if self.error.is_some() {
            watch.ready |= PollFlags::IN | PollFlags::OUT | PollFlags::ERR;
        }
        if self.read_shut {
            watch.ready |= PollFlags::IN;
        }
        // It fails at once.
        if self.write_shut {
            watch.ready |= PollFlags::OUT;
        }
        match &self.state {
            State::Idle(_) => watch.ready |= PollFlags::OUT | PollFlags::HUP,
            State::Lost(_) => watch.ready |= PollFlags::IN | PollFlags::OUT | PollFlags::ERR | PollFlags::HUP,
            State::Connecting(connecting) => watch.ticket(Some(&connecting.ticket)),
            State::Connected(connected) => watch.push(connected.socket.as_fd(), interest, Meaning::Itself),
            State::Listening(listener) if listener.shut => watch.ready |= PollFlags::IN | PollFlags::HUP,
            State::Listening(listener) if interest.contains(PollFlags::IN) => {
                watch.push(listener.queue.descriptor(), PollFlags::IN, Meaning::Itself);
                if let Some(outside) = &listener.outside {
                    watch.push(outside.descriptor(), PollFlags::IN, Meaning::Itself);
                }
                watch.ticket(listener.asked.as_ref());
            }
            State::Listening(_) => {}
            State::Datagrams(datagrams) => datagrams.watch(interest, watch),
        }
    }

    /// How much there is to read, bytes; for a listener, whether there is.
    pub fn readable_bytes(&self) -> u64 {
        match &self.state {
            State::Connected(connected) => rustix::io::ioctl_fionread(&connected.socket).unwrap_or(0),
            State::Datagrams(datagrams) => datagrams.next_bytes(),
            State::Listening(_) => 1,
            _ => 0,
        }
    }
}

/// Destinations that a datagram socket remembers, oldest first.
pub(super) fn remember<T>(list: &mut VecDeque<T>, max: usize, item: T) {
    if list.len() >= max {
        list.pop_front();
    }
    list.push_back(item);
}
