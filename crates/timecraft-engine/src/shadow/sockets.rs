//! What the log tells of sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Offset, Open, Record, Shadow, ShadowError, Target, u32_at};
use crate::Call;
use crate::abi::{rights, socket as abi};
use crate::host::sockets::{SOCKET_RIGHTS, address, named};
use crate::host::{HostConfig, SocketDirectory};
use crate::network::{Address, Transport};
use crate::restore::{RestoredSocket, SocketRole};

fn abi_family(address: &Address) -> u32 {
    if address.ip().is_some_and(|ip| ip.is_ipv6()) { abi::FAMILY_INET6 } else { abi::FAMILY_INET4 }
}

/// A socket's number, never given twice.
pub(super) type SocketId = u64;

/// The open sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeMap<SocketId, RestoredSocket>,
    /// Those whose connection is known to have come about: what goes wrong afterwards is its end.
    established: BTreeSet<SocketId>,
    next: SocketId,
}

impl Sockets {
    fn insert(&mut self, socket: RestoredSocket) -> SocketId {
        self.next += 1;
        self.open.insert(self.next, socket);
        self.next
    }

    /// Adds one that is there from the start.
    pub fn insert_preopened(&mut self, socket: RestoredSocket) -> SocketId {
        let id = self.insert(socket);
        self.established.insert(id);
        id
    }

    pub fn remove(&mut self, id: SocketId) {
        self.open.remove(&id);
        self.established.remove(&id);
    }

    pub fn get(&self, id: SocketId) -> &RestoredSocket {
        &self.open[&id]
    }
}

/// What the process had from its start: listeners, which it is given anew, and connections, which are dead.
pub fn preopened_sockets(host: &HostConfig) -> Vec<RestoredSocket> {
    let socket = |local: SocketAddr, peer: Option<SocketAddr>, role| RestoredSocket {
        family: if local.is_ipv4() { abi::FAMILY_INET4 } else { abi::FAMILY_INET6 },
        transport: Transport::Stream,
        local: Some(Address::Inet(local)),
        peer: peer.map(Address::Inet),
        role,
    };
    let listeners = host.listeners.iter().enumerate();
    let listeners = listeners.map(|(index, listener)| socket(listener.local, None, SocketRole::Preopened(index)));
    let dials = host.dials.iter().map(|dial| socket(dial.local, Some(dial.peer), SocketRole::Connected));
    listeners.chain(dials).collect()
}

impl Record<'_> {
    /// The buffer of an address, `{buf, len}` behind the argument.
    fn address_buffer(&self, index: usize) -> Result<(u32, u32), ShadowError> {
        let ptr = self.arg(index)? as u32;
        let region = self.sent.iter().find(|(at, bytes)| *at == ptr && bytes.len() == abi::BUFFER_BYTES as usize);
        let (_, bytes) = region.ok_or(ShadowError::OutputNotInLog { call: self.call })?;
        Ok((u32_at(bytes, 0), u32_at(bytes, 4)))
    }

    /// The address and port that the guest handed over in two arguments.
    fn address(&self, index: usize) -> Result<Address, ShadowError> {
        let (ptr, len) = self.address_buffer(index)?;
        let region = self.sent.iter().find(|(at, bytes)| *at == ptr && bytes.len() == len as usize);
        let (_, bytes) = region.ok_or(ShadowError::OutputNotInLog { call: self.call })?;
        address::decode(bytes, self.arg(index + 1)? as u32).map_err(|_| self.malformed("there is no such address"))
    }
}

impl Shadow {
    /// The socket behind the first argument; `None` for a standard stream that is one.
    fn socket(&mut self, record: &Record<'_>) -> Result<Option<&mut RestoredSocket>, ShadowError> {
        match self.held(record, 0)?.target {
            Target::Socket(id) => Ok(self.sockets.open.get_mut(&id)),
            _ => Ok(None),
        }
    }

    fn add_socket(
        &mut self,
        record: &Record<'_>,
        fd: u32,
        socket: RestoredSocket,
        rights_base: u64,
        flags: u16,
    ) -> Result<(), ShadowError> {
        if self.open.contains_key(&fd) {
            return Err(record.malformed("the opened descriptor was open already"));
        }
        let target = Target::Socket(self.sockets.insert(socket));
        let (offset, rights_inheriting) = (Offset::Unknown, SOCKET_RIGHTS);
        self.open.insert(fd, Open { target, offset, rights_base, rights_inheriting, flags });
        Ok(())
    }

    pub(super) fn sock_open(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let transport = match record.arg(1)? as u32 {
            abi::TYPE_STREAM => Transport::Stream,
            abi::TYPE_DGRAM => Transport::Datagram,
            _ => return Err(record.malformed("there is no such type of socket")),
        };
        let family = record.arg(0)? as u32;
        let socket = RestoredSocket { family, transport, local: None, peer: None, role: SocketRole::Idle };
        self.add_socket(record, record.result_u32(2)?, socket, SOCKET_RIGHTS, 0)
    }

    /// `path_open` beneath a directory of sockets.
    pub(super) fn open_socket(&mut self, record: &Record<'_>, directory: SocketDirectory) -> Result<(), ShadowError> {
        let no_name = |_| record.malformed("there is no such socket");
        let named = directory.named(record.path(2)?).map_err(no_name)?;
        let address = if named.listens { named.own().ok() } else { named.literal() };
        let family = address.as_ref().map_or(abi::FAMILY_INET4, abi_family);
        let (local, peer, role) = if named.listens {
            (address, None, SocketRole::Listening { backlog: named::BACKLOG })
        } else {
            (None, address, SocketRole::Connected)
        };
        let socket = RestoredSocket { family, transport: named.transport, local, peer, role };
        let (rights_base, flags) = named::opened(record.arg(5)? & rights::ALL, record.arg(7)? as u16);
        self.add_socket(record, record.result_u32(8)?, socket, rights_base, flags)
    }

    /// `fd_read` on a socket. A listener has told the descriptor of the next connection.
    pub(super) fn socket_read(&mut self, record: &Record<'_>, id: SocketId) -> Result<(), ShadowError> {
        let listener = self.sockets.get(id);
        if !matches!(listener.role, SocketRole::Listening { .. } | SocketRole::Preopened(_)) {
            return Ok(());
        }
        let accepted = RestoredSocket { role: SocketRole::Connected, ..listener.clone() };
        let count = record.result_u32(3)? as usize;
        let line: Vec<u8> = record.written.iter().flat_map(|(_, bytes)| *bytes).copied().take(count).collect();
        let fd = std::str::from_utf8(&line).ok().and_then(|line| line.trim_end().parse().ok());
        let fd = fd.ok_or_else(|| record.malformed("a listener has told no descriptor"))?;
        let open = self.held(record, 0)?;
        let (rights_base, flags) = (open.rights_inheriting, open.flags);
        self.add_socket(record, fd, accepted, rights_base, flags)
    }

    pub(super) fn sock_bind(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let address = record.address(1)?;
        if let Some(socket) = self.socket(record)? {
            socket.local = Some(address);
        }
        Ok(())
    }

    pub(super) fn sock_listen(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let backlog = record.arg(1)? as u32;
        if let Some(socket) = self.socket(record)?
            && !matches!(socket.role, SocketRole::Preopened(_))
        {
            socket.role = SocketRole::Listening { backlog };
        }
        Ok(())
    }

    pub(super) fn sock_connect(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let peer = record.address(1)?;
        if let Some(socket) = self.socket(record)? {
            (socket.peer, socket.role) = (Some(peer), SocketRole::Connected);
        }
        Ok(())
    }

    pub(super) fn sock_accept(&mut self, record: &Record<'_>, flags: u16, fd: usize) -> Result<(), ShadowError> {
        let rights_base = self.held(record, 0)?.rights_inheriting;
        let fd = record.result_u32(fd)?;
        let Some(listener) = self.socket(record)? else {
            return Err(record.malformed("a standard stream can't accept"));
        };
        let accepted = RestoredSocket { role: SocketRole::Connected, ..listener.clone() };
        self.add_socket(record, fd, accepted, rights_base, flags)
    }

    pub(super) fn sock_shutdown(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        if let Some(socket) = self.socket(record)? {
            match socket.role {
                SocketRole::Listening { .. } => socket.role = SocketRole::Idle,
                // Its address need not be one that the guest could bind to: it is as dead as a connection.
                SocketRole::Preopened(_) => socket.role = SocketRole::Connected,
                SocketRole::Idle | SocketRole::Connected => {}
            }
        }
        Ok(())
    }

    /// TLS is for connections.
    pub(super) fn sock_setsockopt(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let target = self.held(record, 0)?.target;
        if (record.arg(1)? as u32, record.arg(2)? as u32) == (abi::LEVEL_HOST, abi::HOST_TLS)
            && let Target::Socket(id) = target
        {
            self.sockets.established.insert(id);
        }
        Ok(())
    }

    /// `SO_ERROR` tells of a connection that didn't come about.
    pub(super) fn sock_getsockopt(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let asks = (record.arg(1)? as u32, record.arg(2)? as u32) == (abi::LEVEL_SOCKET, abi::OPTION_ERROR);
        let target = self.held(record, 0)?.target;
        if !asks || matches!(target, Target::Socket(id) if self.sockets.established.contains(&id)) {
            return Ok(());
        }
        if u32_at(record.result(3, 4)?, 0) != 0
            && let Some(socket) = self.socket(record)?
            && socket.transport == Transport::Stream
        {
            (socket.peer, socket.role) = (None, SocketRole::Idle);
        }
        Ok(())
    }

    /// Learns the port that a socket was given.
    pub(super) fn sock_getlocaladdr(&mut self, record: &Record<'_>, port: usize) -> Result<(), ShadowError> {
        let (ptr, len) = record.address_buffer(1)?;
        let port = record.result_u32(port)?;
        let region = record.written.iter().find(|(at, bytes)| *at == ptr && bytes.len() <= len as usize);
        let (_, bytes) = region.ok_or_else(|| record.malformed("a result is missing"))?;
        let mut bytes = bytes.to_vec();
        if record.call == Call::SockGetlocaladdr || bytes.len() > abi::IPV6_BYTES as usize {
            bytes.resize(abi::TAGGED_BYTES as usize, 0);
        }
        // A Unix socket's name is what it was bound to, or none.
        if let (Ok(Address::Inet(address)), Some(socket)) = (address::decode(&bytes, port), self.socket(record)?)
            && address.port() != 0
        {
            socket.local = Some(Address::Inet(address));
        }
        Ok(())
    }
}
