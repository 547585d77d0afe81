//! Datagram sockets: a queue of the guest's own loopback, and beyond it one connected socket a peer.
//!
//! Each peer outside is dialled, so that policy sees it, and has a socket that the kernel connected to it: nobody else
//! can send to the guest through that. Only who is bound to a port that others may reach (`Answer::Bound`) hears more:
//! other guests, who come with a flow of theirs, and strangers if the port is published, and may answer both.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::flows::{Flow, Flows};
use super::loopback::{self, Binding, Endpoint, Inbox};
use super::socket::{Net, Received, remember};
use crate::Errno;
use crate::host::poll::{Meaning, Watch};
use crate::host::transfer::retry;
use crate::network::{Address, Answer, Bound, Dial, Ticket, Transport};

/// One datagram, bytes: what UDP over IPv4 carries.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Strangers whom a published socket may answer, and callers that are remembered.
const STRANGERS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Datagrams {
    pub inbox: Arc<Inbox>,
    pub binding: Option<Binding>,
    pub peer: Option<Address>,
    /// The request to be reachable from outside.
    pub asked: Option<Ticket>,
    outside: Option<Bound>,
    strangers: VecDeque<SocketAddr>,
    /// Who has opened a flow. Answers to those who are gone are lost and no errors: nobody may end a server by going.
    callers: VecDeque<SocketAddr>,
    /// Whether the process was resumed, so that anybody may be such a caller from before.
    pub resumed: bool,
    flows: Flows,
    dialling: Option<(SocketAddr, Ticket)>,
    /// A peer that isn't there: the datagram that it was dialled for is lost, as UDP loses it.
    absent: Option<SocketAddr>,
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
            outside: None,
            strangers: VecDeque::new(),
            callers: VecDeque::new(),
            resumed: false,
            flows: Flows::default(),
            dialling: None,
            absent: None,
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
                if let Some(socket) = &bound.socket {
                    rustix::io::ioctl_fionbio(socket, true)?;
                }
                self.outside = Some(bound);
            }
        }
        self.take_arrivals()?;
        let Some(reply) = self.dialling.as_ref().and_then(|(_, ticket)| ticket.poll()) else { return Ok(()) };
        let Some((to, _)) = self.dialling.take() else { return Ok(()) };
        match reply {
            Ok(Answer::Connected(connection)) => {
                self.flows.insert(Flow::new(to, connection.socket, false)?);
                Ok(())
            }
            Ok(_) => Err(Errno::Proto),
            Err(errno) if self.is_loss(to, errno) => {
                self.absent = Some(to);
                Ok(())
            }
            // Having too many requests under way isn't what `EAGAIN` says of a datagram socket: that it would wait.
            Err(Errno::Again) => Err(Errno::Nobufs),
            Err(errno) => Err(errno),
        }
    }

    /// Whether a datagram for a peer that can't be dialled is lost, as UDP loses it, and no error to the guest.
    fn is_loss(&self, to: SocketAddr, errno: Errno) -> bool {
        let has_called = self.callers.contains(&to) || self.resumed && errno == Errno::Acces;
        let is_gone = matches!(errno, Errno::Connrefused | Errno::Hostunreach) || has_called;
        is_gone && self.peer.as_ref() != Some(&Address::Inet(to))
    }

    /// Takes in flows that other guests have opened.
    fn take_arrivals(&mut self) -> Result<(), Errno> {
        while let Some(connection) = self.outside.as_ref().and_then(|bound| bound.arrivals.pop()) {
            if let Address::Inet(from) = connection.peer
                && self.peer.as_ref().is_none_or(|peer| *peer == connection.peer)
            {
                self.flows.insert(Flow::new(from, connection.socket, true)?);
                if !self.callers.contains(&from) {
                    remember(&mut self.callers, STRANGERS_MAX, from);
                }
            }
        }
        Ok(())
    }

    /// Forgets flows that have ended.
    pub fn prune(&mut self) {
        self.flows.prune();
    }

    /// Sets the peer. One outside is dialled at once, so that a refusal comes early.
    pub fn connect(&mut self, to: Address, net: &mut Net) -> Result<(), Errno> {
        if let Address::Inet(inet) = to
            && !net.is_local(&to)
        {
            self.flows.keep(inet);
            if !self.flows.has(inet) {
                self.dial(inet, net)?;
            }
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
        if let Some(socket) = self.outside.as_ref().and_then(|bound| bound.socket.as_ref())
            && self.strangers.contains(&to)
        {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return Ok(retry(|| rustix::net::sendto(socket, bytes, flags, &to))?);
        }
        if let Some(sent) = self.flows.send(bytes, to) {
            return sent.map(|()| bytes.len());
        }
        if self.dialling.is_none() && self.absent != Some(to) {
            self.dial(to, net)?;
        }
        match self.flows.send(bytes, to) {
            Some(sent) => sent.map(|()| bytes.len()),
            None if self.absent.take_if(|absent| *absent == to).is_some() => Ok(bytes.len()),
            None => Err(Errno::Again),
        }
    }

    pub fn receive(&mut self, bytes: &mut [u8], peek: bool) -> Result<Received, Errno> {
        match self.inbox.receive(bytes, peek) {
            Ok((count, whole, from)) => return Ok(Received { count, truncated: whole > count, from: Some(from) }),
            Err(Errno::Again) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(socket) = self.outside.as_ref().and_then(|bound| bound.socket.as_ref()) {
            match receive(socket, bytes, peek) {
                Ok((count, truncated, Some(from))) => {
                    if !self.strangers.contains(&from) {
                        remember(&mut self.strangers, STRANGERS_MAX, from);
                    }
                    return Ok(Received { count, truncated, from: Some(Address::Inet(from)) });
                }
                Ok(_) | Err(Errno::Again) => {}
                Err(errno) => return Err(errno),
            }
        }
        let (count, whole, from) = self.flows.receive(bytes, peek)?;
        Ok(Received { count, truncated: !whole, from: Some(Address::Inet(from)) })
    }

    pub fn watch<'a>(&'a self, interest: PollFlags, watch: &mut Watch<'a>) {
        if interest.contains(PollFlags::IN) {
            watch.push(self.inbox.descriptor(), PollFlags::IN, Meaning::Itself);
            if let Some(bound) = &self.outside {
                watch.push(bound.arrivals.descriptor(), PollFlags::IN, Meaning::Again);
                if let Some(socket) = &bound.socket {
                    watch.push(socket.as_fd(), PollFlags::IN, Meaning::Itself);
                }
            }
            self.flows.watch(watch);
            watch.ticket(self.asked.as_ref());
        }
        // Until a peer has been dialled, nothing can be sent.
        watch.ticket(self.dialling.as_ref().map(|(_, ticket)| ticket));
        if self.dialling.is_none() {
            watch.ready |= PollFlags::OUT;
        }
    }

    pub fn next_bytes(&self) -> u64 {
        let published = self.outside.as_ref().and_then(|bound| bound.socket.as_ref());
        match self.inbox.next_bytes() as u64 {
            0 => match published.map_or(0, |socket| rustix::io::ioctl_fionread(socket).unwrap_or(0)) {
                0 => self.flows.next_bytes(),
                bytes => bytes,
            },
            bytes => bytes,
        }
    }
}
