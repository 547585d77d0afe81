//! Sockets as paths, for guests that know files and no sockets: `/dev/tcp/HOST/PORT` and `/dev/udp/HOST/PORT` are
//! connections, `/dev/listen/tcp/PORT` and `/dev/listen/tcp/HOST/PORT` are listeners.
//!
//! Each directory is a preopen of its own: a guest's libc starts at the preopen with the longest name that a path
//! begins with, so that no mount hides sockets, and they hide nothing of a mount.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use rustix::event::PollFlags;

use super::addrinfo::{self, known};
use super::socket::State;
use super::{Family, Net, SOCKET_RIGHTS, Socket, awaited, entry};
use crate::abi::bounds::TRANSFER_BYTES_MAX;
use crate::abi::{fdflags, oflags, rights};
use crate::host::arguments::Arguments;
use crate::host::path::take;
use crate::host::paths::OpenRequest;
use crate::host::poll::block_on;
use crate::host::table::{Entry, Kind};
use crate::host::transfer::{iovecs, scatter};
use crate::host::{Host, HostError, Outcome};
use crate::network::{Address, Resolve, Transport};
use crate::restore::{MOUNT_RIGHTS_INHERITING, SOCKET_DIRECTORY_RIGHTS};
use crate::{Errno, Memory};

/// Connections that wait for a listener that was opened as a path.
pub(crate) const BACKLOG: u32 = 128;
/// What a read of a listener must have room for, bytes: any descriptor's number and the end of a line.
const ACCEPTED_BYTES_MAX: u32 = 11;

/// A directory whose names are sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketDirectory {
    Tcp,
    Udp,
    Listen,
}

/// What a path beneath such a directory asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub transport: Transport,
    pub listens: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl SocketDirectory {
    /// In the order of their descriptors.
    pub const ALL: [SocketDirectory; 3] = [SocketDirectory::Tcp, SocketDirectory::Udp, SocketDirectory::Listen];

    /// Its path for the guest.
    pub fn guest_path(self) -> &'static str {
        match self {
            SocketDirectory::Tcp => "/dev/tcp",
            SocketDirectory::Udp => "/dev/udp",
            SocketDirectory::Listen => "/dev/listen",
        }
    }

    /// Whether a guest's path is the directory or beneath it, as libcs understand paths.
    pub(crate) fn holds(self, path: &str) -> bool {
        let names = |path| str::split(path, '/').filter(|name| !matches!(*name, "" | "."));
        let mut path = names(path);
        names(self.guest_path()).all(|name| path.next() == Some(name))
    }

    /// Its descriptor.
    pub(in crate::host) fn entry(self) -> Entry {
        let (rights_base, rights_inheriting) = (SOCKET_DIRECTORY_RIGHTS, MOUNT_RIGHTS_INHERITING);
        Entry { kind: Kind::SocketDirectory(self), rights_base, rights_inheriting, flags: 0 }
    }

    /// What a path from here asks for.
    ///
    /// # Errors
    /// [`Errno::Noent`] if it is no name of a socket, [`Errno::Perm`] if it leads out.
    pub(crate) fn named(self, path: &[u8]) -> Result<Named, Errno> {
        let path = std::str::from_utf8(path).map_err(|_| Errno::Ilseq)?;
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let (host, port) = match (self, &names[..]) {
            (_, names) if names.contains(&"..") => return Err(Errno::Perm),
            (SocketDirectory::Listen, ["tcp", port]) => ("0.0.0.0", *port),
            (SocketDirectory::Listen, ["tcp", host, port])
            | (SocketDirectory::Tcp | SocketDirectory::Udp, [host, port]) => (*host, *port),
            _ => return Err(Errno::Noent),
        };
        if host.len() > addrinfo::NAME_BYTES_MAX as usize {
            return Err(Errno::Nametoolong);
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let transport = if self == SocketDirectory::Udp { Transport::Datagram } else { Transport::Stream };
        let (listens, port) = (self == SocketDirectory::Listen, addrinfo::port(port, 0)?);
        Ok(Named { transport, listens, host: bare.to_owned(), port })
    }
}

impl Named {
    /// The addresses that the host's name means without asking anybody; `None` if somebody must be asked.
    pub fn known(&self) -> Option<Vec<IpAddr>> {
        known(&self.host, 0)
    }

    /// The address, if it is one and no name.
    pub fn literal(&self) -> Option<Address> {
        Some(Address::Inet(SocketAddr::new(self.host.parse().ok()?, self.port)))
    }

    /// Where it listens; names that aren't the guest's own mean nothing there.
    pub fn own(&self) -> Result<Address, Errno> {
        let ip = self.known().and_then(|addresses| addresses.first().copied()).ok_or(Errno::Addrnotavail)?;
        Ok(Address::Inet(SocketAddr::new(ip, self.port)))
    }
}

/// Rights and flags of a socket that was opened with these: no libc asks to accept from a file, or to shut it down.
pub(crate) fn opened(rights_base: u64, flags: u16) -> (u64, u16) {
    (rights_base & SOCKET_RIGHTS | rights::SOCK_ACCEPT | rights::SOCK_SHUTDOWN, flags & fdflags::NONBLOCK)
}

impl Host {
    /// Puts directories of sockets into the table.
    pub(in crate::host) fn preopen_directories(&mut self, directories: &[SocketDirectory]) -> Result<(), HostError> {
        for directory in directories {
            if let Some(mount) = self.mounts.iter().find(|mount| directory.holds(&mount.config.guest)) {
                return Err(HostError::Mount {
                    host: mount.config.host.clone(),
                    reason: format!("{} is where sockets are", mount.config.guest),
                    next: "mount it elsewhere, or run without -S path",
                });
            }
            let inserted = self.table.insert(directory.entry());
            inserted.map_err(|errno| HostError::Socket {
                name: directory.guest_path().into(),
                reason: errno.name().into(),
                next: "raise the limit on open files",
            })?;
        }
        Ok(())
    }

    /// `path_open` beneath a directory of sockets.
    pub(in crate::host) fn open_socket(
        &mut self,
        directory: SocketDirectory,
        request: OpenRequest,
        args: Arguments<'_>,
        memory: &mut Memory<'_>,
    ) -> Outcome {
        let from = self.table.get(args.u32(0))?;
        from.require(rights::PATH_OPEN)?;
        request.check(from, false)?;
        let named = directory.named(take(memory, args.u32(2), args.u32(3))?.to_bytes())?;
        if request.oflags & oflags::DIRECTORY != 0 {
            return Err(Errno::Notdir.into());
        }
        if request.oflags & oflags::EXCL != 0 {
            return Err(Errno::Exist.into());
        }
        self.table.check_room_for_socket()?;
        let (rights_base, flags) = opened(request.rights_base, request.fdflags);
        let waits = !named.listens && flags & fdflags::NONBLOCK == 0;
        let socket = if named.listens {
            Socket::listening_at(&named.own()?, &mut self.net)?
        } else {
            Socket::dialling(&named, &self.net, waits)?
        };
        let fd = self.table.insert(entry(socket, rights_base, flags))?;
        if waits && let Err(stop) = self.await_dialled(fd) {
            self.table.remove(fd)?;
            return Err(stop);
        }
        memory.write_u32(args.u32(8), fd)?;
        Ok(())
    }

    /// Waits until a socket is connected, or has failed.
    fn await_dialled(&mut self, fd: u32) -> Outcome {
        block_on(&mut self.table, &self.kill, fd, PollFlags::OUT, None)?;
        self.socket_mut(fd)?.take_error().map_or(Ok(()), |errno| Err(errno.into()))
    }

    /// `fd_read` on a listener, for guests that can't accept: a line with the number of the next connection's
    /// descriptor, which waits if the listener's does.
    pub(in crate::host) fn read_accepted(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let fd = args.u32(0);
        // Half a number is another number.
        memory.limit_transfer(TRANSFER_BYTES_MAX);
        let total = iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        if total < ACCEPTED_BYTES_MAX {
            return Err(Errno::Inval.into());
        }
        self.table.check_room_for_socket()?;
        let socket = awaited(&mut self.table, &self.kill, fd, PollFlags::IN, Socket::accept)?;
        let listener = self.table.get(fd)?;
        let accepted = entry(socket, listener.rights_inheriting, listener.flags);
        let line = format!("{}\n", self.table.insert(accepted)?);
        let count = scatter(memory, &mut self.scratch, total, |bytes| {
            bytes[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        })?;
        memory.write_u32(args.u32(3), count)?;
        Ok(())
    }
}

/// Where a socket may connect to: addresses that are tried one after the other.
#[derive(Debug)]
pub(super) struct Candidates {
    left: VecDeque<IpAddr>,
    port: u16,
    net: Net,
    /// The guest waits: a listener of its own that has no room won't get any.
    waits: bool,
}

impl Socket {
    /// A listener at one of the guest's own addresses.
    fn listening_at(at: &Address, net: &mut Net) -> Result<Self, Errno> {
        let mut socket = Socket::open(Family::of(at), Transport::Stream)?;
        socket.bind(at, net)?;
        socket.listen(BACKLOG, net)?;
        Ok(socket)
    }

    /// A socket that is connected to a named place, or on its way there. `waits`: nobody else will run meanwhile.
    fn dialling(named: &Named, net: &Net, waits: bool) -> Result<Self, Errno> {
        let mut socket = Socket::open(Family::Inet4, named.transport)?;
        let candidates = |left| Candidates { left, port: named.port, net: net.clone(), waits };
        let begun = if let Some(addresses) = named.known() {
            socket.candidates = Some(Box::new(candidates(addresses.into())));
            socket.next_candidate(Errno::Noent)
        } else {
            socket.candidates = Some(Box::new(candidates(VecDeque::new())));
            let request = Resolve { name: named.host.clone(), ipv4: true, ipv6: true };
            let ticket = net.network().resolve(request);
            socket.wait_for(ticket)
        };
        match begun {
            Ok(()) | Err(Errno::Inprogress) => Ok(socket),
            Err(errno) => Err(errno),
        }
    }

    /// Goes on to the addresses that are left, and to more of them. If none can be connected to, the reason is the last
    /// one's, or `errno` if there were none.
    pub(super) fn try_candidates(&mut self, more: Vec<IpAddr>, errno: Errno) {
        if let Some(candidates) = &mut self.candidates {
            candidates.left.extend(more);
        }
        match self.next_candidate(errno) {
            Ok(()) | Err(Errno::Inprogress) => {}
            Err(errno) => self.error = Some(errno),
        }
    }

    fn next_candidate(&mut self, mut errno: Errno) -> Result<(), Errno> {
        // Taken out, so that a refusal at once comes back to here.
        while let Some(mut candidates) = self.candidates.take() {
            let Some(ip) = candidates.left.pop_front() else { break };
            let to = Address::Inet(SocketAddr::new(ip, candidates.port));
            // All that a socket knows depends on the family.
            *self = Socket::open(Family::of(&to), self.transport)?;
            match self.connect(&to, &mut candidates.net) {
                Err(Errno::Inprogress) if candidates.waits && candidates.net.is_local(&to) => {
                    (self.state, errno) = (State::Idle(None), Errno::Timedout);
                }
                Err(Errno::Inprogress) => {
                    self.candidates = Some(candidates);
                    return Err(Errno::Inprogress);
                }
                Err(refused) => errno = refused,
                Ok(()) => return Ok(()),
            }
            self.candidates = Some(candidates);
        }
        Err(errno)
    }
}
