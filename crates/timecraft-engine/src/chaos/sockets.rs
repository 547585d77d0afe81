//! What chaos knows of a guest's sockets: all of it is told by calls that passed.

use std::collections::BTreeMap;

use crate::abi::{fdflags, filetype, size, socket as abi};
use crate::{Call, Errno, Memory};

/// Sockets that are known at a time; others have no faults but errors that pass.
const SOCKETS_MAX: usize = 1024;

/// Directories whose names are sockets, and whether these are streams. Guests that open sockets as paths look up the
/// names of their preopens first.
const DIRECTORIES: [(&[u8], bool); 2] = [(b"/dev/tcp", true), (b"/dev/udp", false)];

/// The open sockets, by descriptor.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeMap<u32, Socket>,
    /// The descriptors of [`DIRECTORIES`].
    directories: [Option<u32>; DIRECTORIES.len()],
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    is_stream: bool,
    nonblock: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected, or not known to be.
    Idle,
    /// Not connected, for a reason that the guest is yet to learn.
    Refused(Errno),
    Connected,
    /// Reset.
    Dead,
}

/// Whether the call reads or writes what a socket transfers.
pub(super) fn is_transfer(call: Call) -> bool {
    sends(call) || matches!(call, Call::FdRead | Call::SockRecv | Call::SockRecvFrom | Call::SockRecvFromV1)
}

fn sends(call: Call) -> bool {
    matches!(call, Call::FdWrite | Call::SockSend | Call::SockSendTo)
}

fn asks_for_error(call: Call, args: &[u64]) -> bool {
    call == Call::SockGetsockopt && args[1] as u32 == abi::LEVEL_SOCKET && args[2] as u32 == abi::OPTION_ERROR
}

fn u32_at(memory: &Memory<'_>, ptr: u64) -> Option<u32> {
    let bytes = memory.peek(ptr as u32, 4).ok()?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

impl Sockets {
    /// Whether a path that is opened there is a connection; if so, whether it is a stream.
    pub fn is_stream_beneath(&self, args: &[u64]) -> Option<bool> {
        let fd = *args.first()? as u32;
        let found = self.directories.iter().zip(DIRECTORIES).find(|(directory, _)| **directory == Some(fd));
        found.map(|(_, (_, is_stream))| is_stream)
    }

    /// The socket that a call is about: its first argument, for all calls that matter here.
    fn of(&self, args: &[u64]) -> Option<&Socket> {
        self.open.get(&(*args.first()? as u32))
    }

    fn of_mut(&mut self, args: &[u64]) -> Option<&mut Socket> {
        self.open.get_mut(&(*args.first()? as u32))
    }

    fn add(&mut self, fd: Option<u32>, socket: Socket) {
        if let Some(fd) = fd
            && (self.open.len() < SOCKETS_MAX || self.open.contains_key(&fd))
        {
            self.open.insert(fd, socket);
        }
    }

    pub fn is_socket(&self, args: &[u64]) -> bool {
        self.of(args).is_some()
    }

    pub fn is_connected(&self, args: &[u64]) -> bool {
        self.of(args).is_some_and(|socket| socket.state == State::Connected)
    }

    /// Whether a connection of the socket may be on its way while the guest goes on.
    pub fn may_connect_later(&self, args: &[u64]) -> bool {
        self.of(args).is_some_and(|socket| socket.is_stream && socket.nonblock && socket.state == State::Idle)
    }

    /// Resets the connection, for good.
    pub fn reset(&mut self, args: &[u64]) {
        if let Some(socket) = self.of_mut(args) {
            socket.state = State::Dead;
        }
    }

    /// Has the socket tell later that its connection didn't come about.
    pub fn refuse(&mut self, args: &[u64], errno: Errno) {
        if let Some(socket) = self.of_mut(args) {
            socket.state = State::Refused(errno);
        }
    }

    /// What a call must return because of an earlier fault.
    pub fn verdict(&mut self, call: Call, args: &[u64]) -> Option<Errno> {
        let socket = self.of_mut(args)?;
        match (socket.state, call) {
            (State::Dead, call) if is_transfer(call) => Some(Errno::Connreset),
            (State::Dead, Call::SockShutdown | Call::SockGetpeeraddr | Call::SockGetpeeraddrV1) => Some(Errno::Notconn),
            (State::Refused(errno), call) if is_transfer(call) => {
                socket.state = State::Idle;
                Some(errno)
            }
            _ => None,
        }
    }

    /// Learns from a call that passed. What it tells of errors is put right.
    pub fn observe(&mut self, call: Call, args: &[u64], errno: Errno, memory: &mut Memory<'_>) {
        match (call, errno) {
            (Call::SockConnect, Errno::Success | Errno::Inprogress) => self.set_connected(args),
            (_, Errno::Success) => self.observe_success(call, args, memory),
            _ => {}
        }
    }

    fn set_connected(&mut self, args: &[u64]) {
        if let Some(socket) = self.of_mut(args).filter(|socket| socket.is_stream) {
            socket.state = State::Connected;
        }
    }

    fn observe_success(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) {
        let accepted = |nonblock| Socket { is_stream: true, nonblock, state: State::Connected };
        match call {
            Call::SockOpen => {
                let is_stream = args[1] as u32 == abi::TYPE_STREAM;
                self.add(u32_at(memory, args[2]), Socket { is_stream, nonblock: false, state: State::Idle });
            }
            Call::SockAccept => self.add(u32_at(memory, args[2]), accepted(is_nonblock(args[1] as u16))),
            Call::SockAcceptV1 => self.add(u32_at(memory, args[1]), accepted(false)),
            Call::FdPrestatDirName => {
                let name = memory.peek(args[1] as u32, args[2] as u32).unwrap_or_default();
                let found = DIRECTORIES
                    .iter()
                    .position(|(directory, _)| name.strip_suffix(b"\0").unwrap_or(name) == *directory);
                if let Some(index) = found {
                    self.directories[index] = Some(args[0] as u32);
                }
            }
            Call::PathOpen => {
                if let Some(is_stream) = self.is_stream_beneath(args) {
                    let state = if is_stream { State::Connected } else { State::Idle };
                    let nonblock = is_nonblock(args[7] as u16);
                    self.add(u32_at(memory, args[8]), Socket { is_stream, nonblock, state });
                }
            }
            Call::FdFdstatGet => self.learn(args, memory),
            Call::FdFdstatSetFlags => {
                if let Some(socket) = self.of_mut(args) {
                    socket.nonblock = is_nonblock(args[1] as u16);
                }
            }
            Call::FdClose => {
                let fd = args[0] as u32;
                self.open.remove(&fd);
                self.directories.iter_mut().filter(|directory| **directory == Some(fd)).for_each(|gone| *gone = None);
            }
            Call::FdRenumber if args[0] != args[1] => {
                let (moved, to) = (self.open.remove(&(args[0] as u32)), args[1] as u32);
                self.open.remove(&to);
                self.open.extend(moved.map(|socket| (to, socket)));
            }
            // Only who is connected can.
            _ if sends(call) => self.set_connected(args),
            _ if asks_for_error(call, args) => {
                if let Some(errno) = self.take_error(args) {
                    // It lies where the true answer does.
                    let _ = memory.write_u32(args[3] as u32, errno as u32);
                }
            }
            _ => {}
        }
    }

    /// A descriptor that the guest was given, or has opened as a path, may prove to be a socket.
    fn learn(&mut self, args: &[u64], memory: &Memory<'_>) {
        let Ok(stat) = memory.peek(args[1] as u32, size::FDSTAT) else { return };
        let is_stream = stat[0] == filetype::SOCKET_STREAM;
        let nonblock = is_nonblock(u16::from_le_bytes([stat[2], stat[3]]));
        if is_stream || stat[0] == filetype::SOCKET_DGRAM {
            let state = self.of(args).map_or(State::Idle, |socket| socket.state);
            self.add(Some(args[0] as u32), Socket { is_stream, nonblock, state });
        }
    }

    fn take_error(&mut self, args: &[u64]) -> Option<Errno> {
        let socket = self.of_mut(args)?;
        match socket.state {
            State::Refused(errno) => {
                socket.state = State::Idle;
                Some(errno)
            }
            State::Dead => Some(Errno::Connreset),
            State::Idle | State::Connected => None,
        }
    }
}

fn is_nonblock(flags: u16) -> bool {
    flags & fdflags::NONBLOCK != 0
}
