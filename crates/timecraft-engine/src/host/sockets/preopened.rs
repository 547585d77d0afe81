//! Sockets that a guest has from its start.

use super::options::Options;
use super::socket::{Family, Socket};
use super::{SOCKET_RIGHTS, entry};
use crate::Errno;
use crate::abi::fdflags;
use crate::host::{Host, HostError, PreopenedDial, PreopenedListener};
use crate::network::{Address, Connection, Transport};

/// Flags of their descriptors: guests wait with `poll_oneoff`.
pub(crate) const PREOPENED_FLAGS: u16 = fdflags::NONBLOCK;

impl Host {
    /// Puts sockets into the table, listeners first.
    pub(in crate::host) fn preopen_sockets(
        &mut self,
        listeners: Vec<PreopenedListener>,
        dials: Vec<PreopenedDial>,
    ) -> Result<(), HostError> {
        for PreopenedListener { name, socket, local } in listeners {
            let made = Socket::listening(socket, local, &mut self.net);
            self.preopen_socket(made, name, "give each listener an address of its own")?;
        }
        for PreopenedDial { name, socket, local, peer } in dials {
            let (local, peer) = (Address::Inet(local), Address::Inet(peer));
            let made = match socket {
                Some(socket) => {
                    Socket::accepted(Family::of(&local), Connection { socket, local, peer }, Options::default())
                }
                None => Ok(Socket::lost(Family::of(&local), Transport::Stream, Some(local), Some(peer))),
            };
            self.preopen_socket(made, name, "give a connected socket")?;
        }
        Ok(())
    }

    fn preopen_socket(
        &mut self,
        made: Result<Socket, Errno>,
        name: String,
        next: &'static str,
    ) -> Result<(), HostError> {
        let inserted = made.and_then(|socket| self.table.insert(entry(socket, SOCKET_RIGHTS, PREOPENED_FLAGS)));
        match inserted {
            Ok(_) => Ok(()),
            Err(errno) => Err(HostError::Socket { name, reason: errno.name().into(), next }),
        }
    }
}
