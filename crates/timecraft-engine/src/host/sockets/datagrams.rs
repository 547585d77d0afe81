//! Datagram sockets: a queue of the guest's own loopback, and beyond it one connected socket a peer.
//!
//! Each peer outside is dialled, so that policy sees it, and has a socket that the kernel connected to it: nobody else
//! can send to the guest through that. Only who is published (`Answer::Bound`) hears strangers, and may answer them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::loopback::{self, Binding, Endpoint, Inbox};
use super::socket::{Net, Received, remember};
use crate::Errno;
use crate::host::poll::{Meaning, Watch};
use crate::host::transfer::retry;
use crate::network::{Address, Answer, Bound, Dial, Ticket, Transport};

/// One datagram, bytes: what UDP over IPv4 carries.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Peers outside to which a socket keeps a way open.
const FLOWS_MAX: usize = 64;
/// Strangers whom a published socket may answer.
const STRANGERS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Datagrams {
    pub inbox: Arc<Inbox>,
    pub binding: Option<Binding>,
    pub peer: Option<Address>,
    /// The request to be reachable from outside.
    pub asked: Option<Ticket>,
    published: Option<Published>,
    flows: VecDeque<Flow>,
    dialling: Option<(SocketAddr, Ticket)>,
}

#[derive(Debug)]
struct Published {
    bound: Bound,
    strangers: VecDeque<SocketAddr>,
}

/// A way to one peer.
#[derive(Debug)]
struct Flow {
    to: SocketAddr,
    socket: OwnedFd,
}

fn receive(socket: &OwnedFd, bytes: &mut [u8], peek: bool) -> Result<(usize, bool, Option<SocketAddr>), Errno> {
    // TRUNC makes the kernel tell the datagram's whole length.
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | if peek { RecvFlags::PEEK } else { RecvFlags::empty() };
    let room = bytes.len();
    let (_, whole, from) = retry(|| rustix::net::recvfrom(socket, &mut *bytes, flags))?;
    Ok((whole.min(room), whole > room, from.and_then(|from| SocketAddr::try_from(from).ok())))
}

impl Datagrams {
    pub fn new() -> Result<Self, Errno> {
        Ok(Datagrams {
            inbox: Inbox::new()?,
            binding: None,
            peer: None,
            asked: None,
            published: None,
            flows: VecDeque::new(),
            dialling: None,
        })
    }

    pub fn bind(&mut self, binding: Binding) {
        binding.answer(Endpoint::Datagrams(Arc::clone(&self.inbox)));
        self.binding = Some(binding);
    }

    /// Takes in what the network has answered. The error is that of a peer that can't be reached.
    pub fn settle(&mut self) -> Result<(), Errno> {
        if let Some(reply) = self.asked.as_ref().and_then(Ticket::poll) {
            self.asked = None;
            if let Ok(Answer::Bound(bound)) = reply {
                rustix::io::ioctl_fionbio(&bound.socket, true)?;
                self.published = Some(Published { bound, strangers: VecDeque::new() });
            }
        }
        let Some(reply) = self.dialling.as_ref().and_then(|(_, ticket)| ticket.poll()) else { return Ok(()) };
        let Some((to, _)) = self.dialling.take() else { return Ok(()) };
        // Having too many requests under way isn't what `EAGAIN` says of a datagram socket: that it would wait.
        match reply.map_err(|errno| if errno == Errno::Again { Errno::Nobufs } else { errno })? {
            Answer::Connected(connection) => {
                rustix::io::ioctl_fionbio(&connection.socket, true)?;
                remember(&mut self.flows, FLOWS_MAX, Flow { to, socket: connection.socket });
                Ok(())
            }
            _ => Err(Errno::Proto),
        }
    }

    /// Sets the peer. One outside is dialled at once, so that a refusal comes early.
    pub fn connect(&mut self, to: Address, net: &mut Net) -> Result<(), Errno> {
        if let Address::Inet(inet) = to
            && !net.is_local(&to)
        {
            self.dial(inet, net)?;
        }
        self.inbox.set_peer(&to);
        self.peer = Some(to);
        Ok(())
    }

    fn dial(&mut self, to: SocketAddr, net: &mut Net) -> Result<(), Errno> {
        let from = self.binding.as_ref().and_then(|binding| net.is_public(&binding.address));
        self.dialling = Some((to, net.network().dial(Dial { transport: Transport::Datagram, to, from })));
        self.settle()
    }

    pub fn send(&mut self, bytes: &[u8], from: &Address, to: Option<&Address>, net: &mut Net) -> Result<usize, Errno> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(Errno::Msgsize);
        }
        let to = to.or(self.peer.as_ref()).ok_or(Errno::Destaddrreq)?.clone();
        if let Address::Inet(inet) = &to
            && inet.port() == 0
        {
            return Err(Errno::Inval);
        }
        if let Address::Inet(inet) = &to
            && !net.is_local(&to)
        {
            return self.send_outside(bytes, *inet, net);
        }
        let from = if loopback::is_wildcard(from) { to.with_port(from.port()) } else { from.clone() };
        match loopback::find(&net.ports, Transport::Datagram, &to) {
            Some(Endpoint::Datagrams(inbox)) => inbox.deliver(&from, bytes),
            None if to.ip().is_none() => return Err(Errno::Noent),
            _ if self.peer.as_ref() == Some(&to) => return Err(Errno::Connrefused),
            _ => {}
        }
        Ok(bytes.len())
    }

    fn send_outside(&mut self, bytes: &[u8], to: SocketAddr, net: &mut Net) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let Some(published) = self.published.as_ref().filter(|published| published.strangers.contains(&to)) {
            return Ok(retry(|| rustix::net::sendto(&published.bound.socket, bytes, flags, &to))?);
        }
        if self.flow(to).is_none() && self.dialling.is_none() {
            self.dial(to, net)?;
        }
        let flow = self.flow(to).ok_or(Errno::Again)?;
        Ok(retry(|| rustix::net::send(&flow.socket, bytes, flags))?)
    }

    fn flow(&self, to: SocketAddr) -> Option<&Flow> {
        self.flows.iter().find(|flow| flow.to == to)
    }

    pub fn receive(&mut self, bytes: &mut [u8], peek: bool) -> Result<Received, Errno> {
        match self.inbox.receive(bytes, peek) {
            Ok((count, whole, from)) => return Ok(Received { count, truncated: whole > count, from: Some(from) }),
            Err(Errno::Again) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(published) = &mut self.published {
            match receive(&published.bound.socket, bytes, peek) {
                Ok((count, truncated, Some(from))) => {
                    if !published.strangers.contains(&from) {
                        remember(&mut published.strangers, STRANGERS_MAX, from);
                    }
                    return Ok(Received { count, truncated, from: Some(Address::Inet(from)) });
                }
                Ok(_) | Err(Errno::Again) => {}
                Err(errno) => return Err(errno),
            }
        }
        for flow in &self.flows {
            match receive(&flow.socket, bytes, peek) {
                Ok((count, truncated, _)) => {
                    return Ok(Received { count, truncated, from: Some(Address::Inet(flow.to)) });
                }
                Err(Errno::Again) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::Again)
    }

    pub fn watch<'a>(&'a self, interest: PollFlags, watch: &mut Watch<'a>) {
        if interest.contains(PollFlags::IN) {
            watch.push(self.inbox.descriptor(), PollFlags::IN, Meaning::Itself);
            if let Some(published) = &self.published {
                watch.push(published.bound.socket.as_fd(), PollFlags::IN, Meaning::Itself);
            }
            for flow in &self.flows {
                watch.push(flow.socket.as_fd(), PollFlags::IN, Meaning::Itself);
            }
            watch.ticket(self.asked.as_ref());
        }
        // Until a peer has been dialled, nothing can be sent.
        watch.ticket(self.dialling.as_ref().map(|(_, ticket)| ticket));
        if self.dialling.is_none() {
            watch.ready |= PollFlags::OUT;
        }
    }

    pub fn next_bytes(&self) -> u64 {
        let outside = self.published.iter().map(|published| &published.bound.socket);
        let outside = outside.chain(self.flows.iter().map(|flow| &flow.socket));
        match self.inbox.next_bytes() as u64 {
            0 => outside
                .map(|socket| rustix::io::ioctl_fionread(socket).unwrap_or(0))
                .find(|bytes| *bytes > 0)
                .unwrap_or(0),
            bytes => bytes,
        }
    }
}
