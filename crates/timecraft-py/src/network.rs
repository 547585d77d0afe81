//! A guest's end of the gateway: `NetworkPort`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use pyo3::prelude::*;
use timecraft_engine::Errno;
use timecraft_engine::network::port::{Event, Port, PortNetwork};
use timecraft_engine::network::{Address, Connection, Transport};

use crate::error;

pub(crate) type Endpoint = (String, u16);

#[pyclass(frozen, get_all, module = "timecraftd._native")]
pub(crate) struct NetworkEvent {
    kind: &'static str,
    id: u64,
    transport: &'static str,
    address: Option<Endpoint>,
    source: Option<Endpoint>,
    backlog: u32,
    name: String,
    ipv4: bool,
    ipv6: bool,
    protocols: Vec<String>,
    fd: RawFd,
}

impl NetworkEvent {
    fn new(kind: &'static str, id: u64) -> Self {
        NetworkEvent {
            kind,
            id,
            transport: "tcp",
            address: None,
            source: None,
            backlog: 0,
            name: String::new(),
            ipv4: false,
            ipv6: false,
            protocols: Vec::new(),
            fd: -1,
        }
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    (address.ip().to_string(), address.port())
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Stream => "tcp",
        Transport::Datagram => "udp",
    }
}

impl From<Event> for NetworkEvent {
    fn from(event: Event) -> Self {
        let plain = NetworkEvent::new;
        match event {
            Event::Dial(id, dial) => NetworkEvent {
                transport: transport(dial.transport),
                address: Some(endpoint(dial.to)),
                source: dial.from.map(endpoint),
                ..plain("dial", id)
            },
            Event::Listen(id, listen) => NetworkEvent {
                transport: transport(listen.transport),
                address: Some(endpoint(listen.at)),
                backlog: listen.backlog,
                ..plain("listen", id)
            },
            Event::Resolve(id, resolve) => {
                let (ipv4, ipv6) = (resolve.ipv4, resolve.ipv6);
                NetworkEvent { name: resolve.name, ipv4, ipv6, ..plain("resolve", id) }
            }
            Event::Secure(id, secure) => {
                let (name, protocols, fd) = (secure.name, secure.protocols, secure.socket.into_raw_fd());
                NetworkEvent { name, protocols, fd, ..plain("secure", id) }
            }
            Event::Closed(id) => plain("closed", id),
            Event::Room(id) => plain("room", id),
            Event::Ended => plain("ended", 0),
        }
    }
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct NetworkPort(Port);

fn ip<T: std::str::FromStr>(text: &str) -> PyResult<T> {
    text.parse().map_err(|_| error::argument(format!("{text:?} is no such IP address")))
}

pub(crate) fn socket_address((host, port): &Endpoint) -> PyResult<SocketAddr> {
    Ok(SocketAddr::new(ip::<IpAddr>(host)?, *port))
}

/// A descriptor that the caller gives away.
#[allow(unsafe_code)]
fn owned(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(error::argument(format!("{fd} is no descriptor")));
    }
    // SAFETY: the caller owned it, and by calling has given it away.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn connection(fd: RawFd, local: &Endpoint, peer: &Endpoint) -> PyResult<Connection> {
    let (local, peer) = (Address::Inet(socket_address(local)?), Address::Inet(socket_address(peer)?));
    Ok(Connection { socket: owned(fd)?, local, peer })
}

impl NetworkPort {
    /// The guest's end, for the one guest that is served.
    pub(crate) fn attach(&self) -> PyResult<PortNetwork> {
        self.0.attach().ok_or_else(|| error::argument("the network port serves a guest already"))
    }
}

#[pymethods]
#[allow(clippy::needless_pass_by_value)] // Python's arguments arrive as values
impl NetworkPort {
    #[new]
    #[pyo3(signature = (ipv4=None, ipv6=None, *, requests_max=4096))]
    fn new(ipv4: Option<&str>, ipv6: Option<&str>, requests_max: usize) -> PyResult<Self> {
        let own = (ipv4.map(ip).transpose()?, ipv6.map(ip).transpose()?);
        Ok(NetworkPort(Port::new(own, requests_max)?))
    }

    fn fileno(&self) -> RawFd {
        self.0.descriptor().as_raw_fd()
    }

    fn take(&self) -> Vec<NetworkEvent> {
        self.0.take().into_iter().map(NetworkEvent::from).collect()
    }

    fn refuse(&self, id: u64, errno: &str) -> PyResult<bool> {
        let errno = Errno::from_name(errno).ok_or_else(|| error::argument(format!("WASI has no error {errno:?}")))?;
        Ok(self.0.refuse(id, errno))
    }

    #[pyo3(signature = (id, fd, local, peer, protocol=""))]
    fn connected(&self, id: u64, fd: RawFd, local: Endpoint, peer: Endpoint, protocol: &str) -> PyResult<bool> {
        Ok(self.0.connected(id, connection(fd, &local, &peer)?, protocol.to_owned()))
    }

    fn listening(&self, id: u64) -> bool {
        self.0.listening(id)
    }

    fn deliver(&self, id: u64, fd: RawFd, local: Endpoint, peer: Endpoint) -> PyResult<bool> {
        match self.0.deliver(id, connection(fd, &local, &peer)?) {
            Ok(()) => Ok(true),
            Err(connection) => {
                // It stays the caller's.
                let _ = connection.socket.into_raw_fd();
                Ok(false)
            }
        }
    }

    fn bound(&self, id: u64, fd: Option<RawFd>) -> PyResult<bool> {
        Ok(self.0.bound(id, fd.map(owned).transpose()?))
    }

    fn addresses(&self, id: u64, addresses: Vec<String>) -> PyResult<bool> {
        if addresses.is_empty() {
            return Err(error::argument("no addresses: refuse with ENOENT"));
        }
        let addresses = addresses.iter().map(|address| ip(address)).collect::<PyResult<_>>()?;
        Ok(self.0.addresses(id, addresses))
    }
}
