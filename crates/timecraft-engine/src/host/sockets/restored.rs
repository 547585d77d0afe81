//! Sockets of a process that is resumed.
//!
//! Connections have died with the process; who uses one learns that it was reset. Everything else is as it was:
//! listeners and datagram sockets have their ports again, as far as the log tells these.

use super::loopback::{self, is_wildcard};
use super::socket::{Family, Net, Socket, State};
use crate::Errno;
use crate::network::{Address, Transport};
use crate::restore::{RestoredSocket, SocketRole};

/// Makes the socket again.
pub(in crate::host) fn restored(socket: &RestoredSocket, net: &mut Net) -> Result<Socket, Errno> {
    let family = match socket.family {
        1 => Family::Inet4,
        2 => Family::Inet6,
        3 => Family::Unix,
        _ => return Err(Errno::Afnosupport),
    };
    // A datagram socket whose peer had a name is lost, too: the name may mean another peer by now.
    let is_lost = socket.transport == Transport::Stream || socket.peer.is_none();
    if socket.role == SocketRole::Connected && is_lost {
        return Ok(Socket::lost(family, socket.transport, socket.local.clone(), socket.peer.clone()));
    }
    let mut made = Socket::open(family, socket.transport)?;
    if let State::Datagrams(datagrams) = &mut made.state {
        datagrams.resumed = true;
    }
    if let Some(local) = &socket.local {
        match made.bind(local, net) {
            // It was no binding's address: that of a connection whose error the guest has seen.
            Err(Errno::Addrnotavail) if socket.role == SocketRole::Idle => {
                return Ok(Socket::lost(family, socket.transport, socket.local.clone(), None));
            }
            done => done?,
        }
    }
    match &socket.role {
        SocketRole::Listening { backlog } => made.listen(*backlog, net)?,
        SocketRole::Connected => made.connect_again(socket.peer.as_ref(), net),
        SocketRole::Idle | SocketRole::Preopened(_) => {}
    }
    Ok(made)
}

impl Socket {
    /// Sets the peer of a datagram socket. If it is gone, whoever sends learns that.
    fn connect_again(&mut self, peer: Option<&Address>, net: &mut Net) {
        let Some(peer) = peer else { return };
        let to = loopback::reached(peer);
        if is_wildcard(&self.local_address()) && net.is_local(&to) {
            let port = self.local_address().port();
            self.local = Some(to.with_port(port));
        }
        let State::Datagrams(datagrams) = &mut self.state else { return };
        if let Err(errno) = datagrams.connect(to, net) {
            self.error = Some(errno);
        }
    }
}
