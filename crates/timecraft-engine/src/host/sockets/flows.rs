//! Ways of a datagram socket to peers outside: one connected socket each, so that nobody else can send through it.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno as Os;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketType, sockopt};

use crate::Errno;
use crate::host::poll::{Meaning, Watch};
use crate::host::transfer::retry;

/// Peers outside to which a socket keeps a way open; the oldest gives way.
pub(super) const FLOWS_MAX: usize = 64;
/// What is sent before each datagram of a framed flow: it makes an empty one differ from the end.
const FRAME: [u8; 1] = [0];

/// A way to one peer.
#[derive(Debug)]
pub(super) struct Flow {
    pub to: SocketAddr,
    socket: OwnedFd,
    /// A Unix socket that keeps messages apart and tells of the peer's end; otherwise it is the kernel's UDP.
    framed: bool,
    /// Whether anything went through it.
    used: bool,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Done,
    /// The other end is closed, since it was last used.
    Ended,
}

impl Flow {
    /// A flow over a socket that is connected to its peer; `used` if it is the peer who has opened it.
    pub fn new(to: SocketAddr, socket: OwnedFd, used: bool) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let framed = sockopt::socket_type(&socket)? == SocketType::SEQPACKET;
        Ok(Flow { to, socket, framed, used })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<Sent, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if !self.framed {
            retry(|| rustix::net::send(&self.socket, bytes, flags))?;
            return Ok(Sent::Done);
        }
        let parts = [IoSlice::new(&FRAME), IoSlice::new(bytes)];
        match retry(|| rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags)) {
            Err(Os::PIPE | Os::CONNRESET) if self.used => return Ok(Sent::Ended),
            // Who doesn't take them, and who has refused the flow, loses datagrams.
            Ok(_) | Err(Os::AGAIN | Os::PIPE | Os::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
        self.used = true;
        Ok(Sent::Done)
    }

    /// Length of what was copied, and whether that was all of the datagram.
    fn receive(&self, bytes: &mut [u8], peek: bool) -> Result<(usize, bool), Errno> {
        // TRUNC makes the kernel tell the datagram's whole length.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | if peek { RecvFlags::PEEK } else { RecvFlags::empty() };
        let room = bytes.len();
        let whole = if self.framed {
            let mut frame = FRAME;
            let mut parts = [IoSliceMut::new(&mut frame), IoSliceMut::new(bytes)];
            let mut receive = || {
                let mut none = RecvAncillaryBuffer::default();
                retry(|| rustix::net::recvmsg(&self.socket, &mut parts, &mut none, flags)).map(|done| done.bytes)
            };
            // That the peer has closed without having read everything comes before what it has sent.
            let done = receive().or_else(|error| if error == Os::CONNRESET { receive() } else { Err(error) })?;
            done.checked_sub(FRAME.len()).ok_or(Errno::Again)?
        } else {
            retry(|| rustix::net::recv(&self.socket, &mut *bytes, flags))?.1
        };
        Ok((whole.min(room), whole <= room))
    }

    /// Length of the next datagram, bytes.
    fn next_bytes(&self) -> u64 {
        if self.framed {
            return peek(self.socket.as_fd()).map_or(0, |whole| whole.saturating_sub(FRAME.len()) as u64);
        }
        rustix::io::ioctl_fionread(&self.socket).unwrap_or(0)
    }
}

/// The flows of one socket.
#[derive(Debug, Default)]
pub(super) struct Flows {
    list: VecDeque<Flow>,
    /// Who is heard first: each has its turn, so that none can drown the others.
    turn: usize,
}

impl Flows {
    pub fn insert(&mut self, flow: Flow) {
        if self.list.len() >= FLOWS_MAX {
            self.list.pop_front();
        }
        self.list.push_back(flow);
    }

    /// Leaves flows to one peer only.
    pub fn keep(&mut self, to: SocketAddr) {
        self.list.retain(|flow| flow.to == to);
    }

    pub fn has(&self, to: SocketAddr) -> bool {
        self.list.iter().any(|flow| flow.to == to)
    }

    /// Sends by the newest flow to the peer; `None` if there is none, or it has ended.
    pub fn send(&mut self, bytes: &[u8], to: SocketAddr) -> Option<Result<(), Errno>> {
        while let Some(at) = self.list.iter().rposition(|flow| flow.to == to) {
            match self.list[at].send(bytes) {
                Ok(Sent::Ended) => drop(self.list.remove(at)),
                sent => return Some(sent.map(|_| ())),
            }
        }
        None
    }

    /// The next datagram: how much of it was copied, whether that was all, and from whom.
    pub fn receive(&mut self, bytes: &mut [u8], peek: bool) -> Result<(usize, bool, SocketAddr), Errno> {
        let count = self.list.len();
        for at in (0..count).map(|offset| (self.turn + offset) % count) {
            match self.list[at].receive(bytes, peek) {
                Err(Errno::Again) => {}
                received => {
                    self.turn = if peek { at } else { at + 1 };
                    return received.map(|(length, whole)| (length, whole, self.list[at].to));
                }
            }
        }
        Err(Errno::Again)
    }

    /// Forgets flows that have ended, once they have nothing more to tell.
    pub fn prune(&mut self) {
        self.list.retain(|flow| !(flow.framed && has_ended(flow.socket.as_fd())));
    }

    pub fn watch<'a>(&'a self, watch: &mut Watch<'a>) {
        for flow in &self.list {
            let meaning = if flow.framed { Meaning::Messages } else { Meaning::Itself };
            watch.push(flow.socket.as_fd(), PollFlags::IN, meaning);
        }
    }

    /// Length of the next datagram, bytes; 0 if there is none, or it is empty.
    pub fn next_bytes(&self) -> u64 {
        self.list.iter().map(Flow::next_bytes).find(|bytes| *bytes > 0).unwrap_or(0)
    }
}

/// Length of the next message, its frame included; 0 at the end.
fn peek(socket: BorrowedFd<'_>) -> Option<usize> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | RecvFlags::PEEK;
    let peek = || retry(|| rustix::net::recv(socket, &mut [0; 0][..], flags));
    peek().or_else(|error| if error == Os::CONNRESET { peek() } else { Err(error) }).ok().map(|(_, whole)| whole)
}

/// Whether nothing but the end is left of a framed flow's socket.
pub(in crate::host) fn has_ended(socket: BorrowedFd<'_>) -> bool {
    peek(socket) == Some(0)
}
