//! Sockets: preview 1's calls on them, and the two versions of `WasmEdge`'s extension.
//!
//! A guest's own loopback always works, and is all in this process ([`loopback`]). Beyond it the host asks a
//! [`Network`](crate::network::Network), whose answers are real sockets that the calls here then use.

pub(crate) mod address;
mod addrinfo;
mod datagrams;
pub(super) mod flows;
mod loopback;
pub(crate) mod named;
mod options;
mod preopened;
pub(super) mod restored;
pub(super) mod socket;
mod streams;

use std::time::Duration;

use rustix::event::PollFlags;

use self::address::Version;
pub use self::named::SocketDirectory;
pub(crate) use self::preopened::PREOPENED_FLAGS;
pub(super) use self::socket::{Family, Net, Received, Socket};
use super::arguments::Arguments;
use super::poll::block_on;
use super::table::{Entry, Kind, Table};
use super::transfer::{gather, iovecs, scatter};
use super::{Host, Outcome, Stop};
use crate::abi::bounds::TRANSFER_BYTES_MAX;
use crate::abi::{fdflags, rights, socket as abi};
use crate::network::{Address, Transport};
use crate::{Errno, KillSwitch, Memory};

/// What a guest may do with a socket.
pub(crate) const SOCKET_RIGHTS: u64 = rights::FD_READ
    | rights::FD_WRITE
    | rights::FD_FDSTAT_SET_FLAGS
    | rights::FD_FILESTAT_GET
    | rights::POLL_FD_READWRITE
    | rights::SOCK_SHUTDOWN
    | rights::SOCK_ACCEPT;

/// `riflags`.
const RECV_PEEK: u32 = 1;
const RECV_WAITALL: u32 = 2;
/// `roflags`.
const RECV_DATA_TRUNCATED: u16 = 1;
/// `sdflags`.
const SHUTDOWN_RD: u32 = 1;
const SHUTDOWN_WR: u32 = 2;

pub(super) fn entry(socket: Socket, rights_base: u64, flags: u16) -> Entry {
    Entry { kind: Kind::Socket(Box::new(socket)), rights_base, rights_inheriting: SOCKET_RIGHTS, flags }
}

impl Entry {
    fn socket_mut(&mut self) -> Result<&mut Socket, Errno> {
        match &mut self.kind {
            Kind::Socket(socket) => Ok(socket),
            _ => Err(Errno::Notsock),
        }
    }

    pub(super) fn is_socket(&self) -> bool {
        matches!(self.kind, Kind::Socket(_))
    }
}

/// Does what a socket must wait for, if the guest waits.
fn awaited<T>(
    table: &mut Table,
    kill: &KillSwitch,
    fd: u32,
    interest: PollFlags,
    mut operation: impl FnMut(&mut Socket) -> Result<T, Errno>,
) -> Result<T, Stop> {
    loop {
        let entry = table.get_mut(fd)?;
        let nonblock = entry.flags & fdflags::NONBLOCK != 0;
        let socket = entry.socket_mut()?;
        let timeout = timeout(socket, interest);
        match operation(socket) {
            Err(Errno::Again) if !nonblock => block_on(table, kill, fd, interest, timeout)?,
            done => return Ok(done?),
        }
    }
}

fn timeout(socket: &Socket, interest: PollFlags) -> Option<Duration> {
    if interest == PollFlags::IN { socket.options.receive_timeout } else { socket.options.send_timeout }
}

/// Where `sock_recv_from` and its like put what.
struct Cells {
    address: Option<(address::Buffer, Version)>,
    family: Option<u32>,
    port: Option<u32>,
}

impl Cells {
    fn check(&self, memory: &Memory<'_>) -> Result<(), Errno> {
        if let Some((buffer, version)) = self.address {
            buffer.check(memory, version)?;
        }
        let words = [self.family, self.port];
        words.into_iter().flatten().try_for_each(|ptr| memory.check(ptr, 4))
    }

    fn write(&self, memory: &mut Memory<'_>, address: &Address) -> Result<(), Errno> {
        if let Some((buffer, version)) = self.address {
            buffer.write(memory, address, version)?;
        }
        if let Some(ptr) = self.family {
            memory.write_u32(ptr, address::family_v1(address))?;
        }
        if let Some(ptr) = self.port {
            memory.write_u32(ptr, u32::from(address.port()))?;
        }
        Ok(())
    }
}

impl Host {
    fn socket_mut(&mut self, fd: u32) -> Result<&mut Socket, Errno> {
        self.table.get_mut(fd)?.socket_mut()
    }

    pub(super) fn sock_open(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(2), 4)?;
        let family = match args.u32(0) {
            abi::FAMILY_INET4 => Family::Inet4,
            abi::FAMILY_INET6 => Family::Inet6,
            abi::FAMILY_UNIX => Family::Unix,
            _ => return Err(Errno::Afnosupport.into()),
        };
        let transport = match args.u32(1) {
            abi::TYPE_STREAM => Transport::Stream,
            abi::TYPE_DGRAM => Transport::Datagram,
            _ => return Err(Errno::Inval.into()),
        };
        self.table.check_room_for_socket()?;
        let fd = self.table.insert(entry(Socket::open(family, transport)?, SOCKET_RIGHTS, 0))?;
        memory.write_u32(args.u32(2), fd)?;
        Ok(())
    }

    pub(super) fn sock_bind(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let socket = self.table.get_mut(args.u32(0))?.socket_mut()?;
        let address = address::read(memory, args.u32(1), args.u32(2))?;
        Ok(socket.bind(&address, &mut self.net)?)
    }

    pub(super) fn sock_listen(&mut self, args: Arguments<'_>) -> Outcome {
        let socket = self.table.get_mut(args.u32(0))?.socket_mut()?;
        Ok(socket.listen(args.u32(1), &mut self.net)?)
    }

    pub(super) fn sock_connect(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let fd = args.u32(0);
        let entry = self.table.get_mut(fd)?;
        let nonblock = entry.flags & fdflags::NONBLOCK != 0;
        let socket = entry.socket_mut()?;
        let address = address::read(memory, args.u32(1), args.u32(2))?;
        match socket.connect(&address, &mut self.net) {
            // Only this guest could make room in its own listener's backlog, and it would be waiting here.
            Err(Errno::Inprogress) if !nonblock && self.net.is_local(&address) => Err(Errno::Timedout.into()),
            Err(Errno::Inprogress) if !nonblock => self.await_connection(fd),
            done => Ok(done?),
        }
    }

    fn await_connection(&mut self, fd: u32) -> Outcome {
        let timeout = self.socket_mut(fd)?.options.send_timeout;
        match block_on(&mut self.table, &self.kill, fd, PollFlags::OUT, timeout) {
            // It goes on without the guest.
            Err(Stop::Errno(Errno::Again)) => Err(Errno::Inprogress.into()),
            Err(stop) => Err(stop),
            Ok(()) => match self.socket_mut(fd)?.take_error() {
                Some(errno) => Err(errno.into()),
                None => Ok(()),
            },
        }
    }

    pub(super) fn sock_accept(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        if let Kind::Stream(_) = self.table.get(args.u32(0))?.kind {
            return self.stream_accept(args, memory);
        }
        let flags = args.flags(1)?;
        if flags & !fdflags::NONBLOCK != 0 {
            return Err(Errno::Inval.into());
        }
        self.accept(args.u32(0), flags, args.u32(2), memory)
    }

    pub(super) fn sock_accept_v1(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.accept(args.u32(0), 0, args.u32(1), memory)
    }

    fn accept(&mut self, fd: u32, flags: u16, out: u32, memory: &mut Memory<'_>) -> Outcome {
        memory.check(out, 4)?;
        let listener = self.table.get_mut(fd)?;
        listener.socket_mut()?;
        listener.require(rights::SOCK_ACCEPT)?;
        let rights_base = listener.rights_inheriting;
        self.table.check_room_for_socket()?;
        let socket = awaited(&mut self.table, &self.kill, fd, PollFlags::IN, Socket::accept)?;
        let accepted = self.table.insert(entry(socket, rights_base, flags))?;
        memory.write_u32(out, accepted)?;
        Ok(())
    }

    pub(super) fn sock_shutdown(&mut self, args: Arguments<'_>) -> Outcome {
        let entry = self.table.get_mut(args.u32(0))?;
        if let Kind::Stream(_) = entry.kind {
            return self.stream_shutdown(args);
        }
        let how = args.u32(1);
        entry.socket_mut()?;
        if how == 0 || how & !(SHUTDOWN_RD | SHUTDOWN_WR) != 0 {
            return Err(Errno::Inval.into());
        }
        entry.require(rights::SOCK_SHUTDOWN)?;
        Ok(entry.socket_mut()?.shutdown(how & SHUTDOWN_RD != 0, how & SHUTDOWN_WR != 0)?)
    }

    pub(super) fn sock_recv(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        if let Kind::Stream(_) = self.table.get(args.u32(0))?.kind {
            return self.stream_recv(args, memory);
        }
        memory.check(args.u32(4), 4)?;
        memory.check(args.u32(5), 2)?;
        let received = self.receive(args.u32(0), (args.u32(1), args.u32(2)), args.u32(3), memory, |_, _| Ok(()))?;
        memory.write_u32(args.u32(4), received.count as u32)?;
        memory.write(args.u32(5), &roflags(&received).to_le_bytes())?;
        Ok(())
    }

    /// `fd_read` on a socket.
    pub(super) fn socket_read(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        if self.socket_paths && self.socket_mut(args.u32(0))?.is_listening() {
            return self.read_accepted(args, memory);
        }
        if self.socket_mut(args.u32(0))?.transport == Transport::Datagram {
            // Nothing would tell that it was cut.
            memory.limit_transfer(TRANSFER_BYTES_MAX);
        }
        let received = self.receive(args.u32(0), (args.u32(1), args.u32(2)), 0, memory, |_, _| Ok(()))?;
        memory.write_u32(args.u32(3), received.count as u32)?;
        Ok(())
    }

    pub(super) fn sock_recv_from(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.receive_from(args, memory, Version::V2, Some(args.u32(5)), (args.u32(6), args.u32(7)))
    }

    pub(super) fn sock_recv_from_v1(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.receive_from(args, memory, Version::V1, None, (args.u32(5), args.u32(6)))
    }

    fn receive_from(
        &mut self,
        args: Arguments<'_>,
        memory: &mut Memory<'_>,
        version: Version,
        port: Option<u32>,
        (count, flags): (u32, u32),
    ) -> Outcome {
        memory.check(count, 4)?;
        memory.check(flags, 2)?;
        let mut cells = Cells { address: None, family: None, port };
        let buffers = (args.u32(1), args.u32(2));
        let received = self.receive(args.u32(0), buffers, args.u32(4), memory, |memory, socket| {
            let buffer = address::buffer(memory, args.u32(3))?;
            cells.address = Some((buffer, version));
            cells.check(memory)?;
            // A stream's peer is known; a datagram's has the socket's own family.
            match (socket.family, version) {
                (Family::Unix, Version::V1) => Err(Errno::Afnosupport),
                (Family::Inet6, Version::V1) if buffer.is_ipv4() => Err(Errno::Inval),
                _ => Ok(()),
            }
        })?;
        let from = match &received.from {
            Some(from) => Some(from.clone()),
            None => self.socket_mut(args.u32(0))?.peer_address().ok(),
        };
        if let Some(from) = from {
            cells.write(memory, &from)?;
        }
        memory.write_u32(count, received.count as u32)?;
        memory.write(flags, &roflags(&received).to_le_bytes())?;
        Ok(())
    }

    /// Receives into the guest's buffers. `check` looks at its other pointers, behind the list of buffers.
    fn receive(
        &mut self,
        fd: u32,
        (list, count): (u32, u32),
        flags: u32,
        memory: &mut Memory<'_>,
        check: impl FnOnce(&mut Memory<'_>, &Socket) -> Result<(), Errno>,
    ) -> Result<Received, Stop> {
        let entry = self.table.get_mut(fd)?;
        let socket = entry.socket_mut()?;
        let is_stream = socket.transport == Transport::Stream;
        entry.require(rights::FD_READ)?;
        if flags & !(RECV_PEEK | RECV_WAITALL) != 0 {
            return Err(Errno::Inval.into());
        }
        let total = iovecs(list, count, memory, &mut self.scratch.regions)?;
        check(memory, self.table.get_mut(fd)?.socket_mut()?)?;
        let peek = flags & RECV_PEEK != 0;
        let nonblock = self.table.get(fd)?.flags & fdflags::NONBLOCK != 0;
        let whole = flags & RECV_WAITALL != 0 && is_stream && !peek && !nonblock;
        let (table, kill) = (&mut self.table, &self.kill);
        let mut received = Received { count: 0, truncated: false, from: None };
        let done = scatter(memory, &mut self.scratch, total, |bytes| {
            loop {
                let at = received.count;
                let more = awaited(table, kill, fd, PollFlags::IN, |socket| socket.receive(&mut bytes[at..], peek));
                match more {
                    Ok(more) => {
                        let count = at + more.count;
                        let is_over = !whole || more.count == 0 || count == bytes.len();
                        received = Received { count, ..more };
                        if is_over {
                            return Ok(count);
                        }
                    }
                    // What was received before counts.
                    Err(Stop::Errno(_)) if at > 0 => return Ok(at),
                    Err(stop) => return Err(stop),
                }
            }
        });
        done?;
        Ok(received)
    }

    pub(super) fn sock_send(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        if let Kind::Stream(_) = self.table.get(args.u32(0))?.kind {
            return self.stream_send(args, memory);
        }
        self.send(args.u32(0), (args.u32(1), args.u32(2)), None, args.u32(3), args.u32(4), memory)
    }

    /// `fd_write` on a socket.
    pub(super) fn socket_write(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.send(args.u32(0), (args.u32(1), args.u32(2)), None, 0, args.u32(3), memory)
    }

    pub(super) fn sock_send_to(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let to = Some((args.u32(3), args.u32(4)));
        self.send(args.u32(0), (args.u32(1), args.u32(2)), to, args.u32(5), args.u32(6), memory)
    }

    fn send(
        &mut self,
        fd: u32,
        (list, count): (u32, u32),
        to: Option<(u32, u32)>,
        flags: u32,
        out: u32,
        memory: &mut Memory<'_>,
    ) -> Outcome {
        memory.check(out, 4)?;
        let entry = self.table.get_mut(fd)?;
        let is_datagram = entry.socket_mut()?.transport == Transport::Datagram;
        entry.require(rights::FD_WRITE)?;
        if flags != 0 {
            return Err(Errno::Inval.into());
        }
        if is_datagram {
            // Whole or not at all.
            memory.limit_transfer(TRANSFER_BYTES_MAX);
        }
        // Before the data: it is not cut where those are.
        let to = to.map(|(ptr, port)| address::read(memory, ptr, port)).transpose()?;
        let total = iovecs(list, count, memory, &mut self.scratch.regions)?;
        if is_datagram && total as usize > datagrams::DATAGRAM_BYTES_MAX {
            return Err(Errno::Msgsize.into());
        }
        let (table, kill, net) = (&mut self.table, &self.kill, &mut self.net);
        let count = gather(memory, &mut self.scratch, |bytes| {
            awaited(table, kill, fd, PollFlags::OUT, |socket| socket.send(bytes, to.as_ref(), net))
        })?;
        memory.write_u32(out, count as u32)?;
        Ok(())
    }

    pub(super) fn sock_getlocaladdr(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.tell_address(args, memory, Version::V2, |socket| Ok(socket.local_address()))
    }

    pub(super) fn sock_getpeeraddr(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.tell_address(args, memory, Version::V2, Socket::peer_address)
    }

    pub(super) fn sock_getlocaladdr_v1(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.tell_address(args, memory, Version::V1, |socket| Ok(socket.local_address()))
    }

    pub(super) fn sock_getpeeraddr_v1(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.tell_address(args, memory, Version::V1, Socket::peer_address)
    }

    fn tell_address(
        &mut self,
        args: Arguments<'_>,
        memory: &mut Memory<'_>,
        version: Version,
        address: impl FnOnce(&mut Socket) -> Result<Address, Errno>,
    ) -> Outcome {
        let socket = self.table.get_mut(args.u32(0))?.socket_mut()?;
        socket.settle();
        let buffer = address::buffer(memory, args.u32(1))?;
        let (family, port) = match version {
            Version::V1 => (Some(args.u32(2)), args.u32(3)),
            Version::V2 => (None, args.u32(2)),
        };
        let cells = Cells { address: Some((buffer, version)), family, port: Some(port) };
        cells.check(memory)?;
        cells.write(memory, &address(socket)?)?;
        Ok(())
    }

    pub(super) fn sock_getsockopt(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let socket = self.table.get_mut(args.u32(0))?.socket_mut()?;
        let (level, name, value, len) = (args.u32(1), args.u32(2), args.u32(3), args.u32(4));
        let (room, out_len) = if len <= abi::OPTION_BYTES_MAX {
            (len, None)
        } else {
            let bytes = memory.sent(len, 4)?;
            (u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), Some(len))
        };
        memory.check(value, room)?;
        // What needs most; asking for an error must not lose it.
        if room < 4 || name == abi::OPTION_LINGER && level == abi::LEVEL_SOCKET && room < 8 {
            return Err(Errno::Inval.into());
        }
        let bytes = socket.option(level, name, room)?;
        if bytes.len() > room as usize {
            return Err(Errno::Inval.into());
        }
        memory.write(value, &bytes)?;
        match out_len {
            Some(ptr) => memory.write_u32(ptr, bytes.len() as u32)?,
            // Who isn't told the length of a text is told its end.
            None if (level, name) == (abi::LEVEL_HOST, abi::HOST_ALPN) && (bytes.len() as u32) < room => {
                memory.write(value + bytes.len() as u32, &[0])?;
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn sock_setsockopt(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let socket = self.table.get_mut(args.u32(0))?.socket_mut()?;
        let (level, name, len) = (args.u32(1), args.u32(2), args.u32(4));
        if len > abi::OPTION_BYTES_MAX {
            memory.check(args.u32(3), len)?;
            return Err(Errno::Inval.into());
        }
        let value = memory.sent(args.u32(3), len)?;
        Ok(socket.set_option(level, name, value, &mut self.net)?)
    }
}

fn roflags(received: &Received) -> u16 {
    if received.truncated { RECV_DATA_TRUNCATED } else { 0 }
}
