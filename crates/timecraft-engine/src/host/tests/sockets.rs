//! Sockets on the guest's own loopback, and beyond it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use super::*;
use crate::abi::{filetype, socket as abi};
use crate::host::HostLimits;
use crate::network::{
    Address, Answer, Arrivals, Bound, Connection, Dial, Listen, Listening, Network, Promise, Resolve, Secure, Ticket,
};
use crate::recorder::{MemorySink, MemorySource, Recorder};
use crate::replayer::{Options, Replayer};
use crate::restore::{Descriptor, DescriptorKind, Restored, RestoredSocket, SocketRole};
use crate::{Kill, network::Transport};

mod errors;
mod flows;
mod outside;
mod paths;
mod preopened;
mod tls;
mod unruly;

const INET4: u64 = abi::FAMILY_INET4 as u64;
const INET6: u64 = abi::FAMILY_INET6 as u64;
const UNIX: u64 = abi::FAMILY_UNIX as u64;
const STREAM: u64 = abi::TYPE_STREAM as u64;
const DGRAM: u64 = abi::TYPE_DGRAM as u64;
const READ: u8 = event::FD_READ;
const WRITE: u8 = event::FD_WRITE;
const NONBLOCK: u64 = fdflags::NONBLOCK as u64;
const PEEK: u64 = 1;
const WAITALL: u64 = 2;

/// The address of a test, in the second version's form.
fn tagged(family: u64, address: &[u8]) -> Vec<u8> {
    let mut bytes = [(family as u16).to_le_bytes().as_slice(), address].concat();
    bytes.resize(128, 0);
    bytes
}

fn loopback(family: u64) -> Vec<u8> {
    match family {
        INET4 => vec![127, 0, 0, 1],
        INET6 => Ipv6Addr::LOCALHOST.octets().to_vec(),
        _ => tagged(UNIX, b"/run/app.sock"),
    }
}

fn done(errno: Errno) -> Result<(), Errno> {
    if errno == Errno::Success { Ok(()) } else { Err(errno) }
}

impl Guest {
    fn socket(&mut self, family: u64, kind: u64) -> u64 {
        assert_eq!(self.call(Call::SockOpen, &[family, kind, OUT.into()]), Errno::Success);
        self.u32(OUT).into()
    }

    fn nonblock(&mut self, fd: u64) -> u64 {
        assert_eq!(self.call(Call::FdFdstatSetFlags, &[fd, NONBLOCK]), Errno::Success);
        fd
    }

    /// `{buf, len}` of an address in memory.
    fn address(&mut self, bytes: &[u8]) -> u64 {
        let (ptr, len) = self.put(bytes);
        self.put(&[ptr as u32, len as u32].map(u32::to_le_bytes).concat()).0
    }

    fn bind(&mut self, fd: u64, address: &[u8], port: u64) -> Result<(), Errno> {
        let address = self.address(address);
        done(self.call(Call::SockBind, &[fd, address, port]))
    }

    fn connect(&mut self, fd: u64, address: &[u8], port: u64) -> Result<(), Errno> {
        let address = self.address(address);
        done(self.call(Call::SockConnect, &[fd, address, port]))
    }

    fn listen(&mut self, fd: u64, backlog: u64) -> Result<(), Errno> {
        done(self.call(Call::SockListen, &[fd, backlog]))
    }

    /// A listener on loopback that doesn't wait, and its port.
    fn listener(&mut self, family: u64, backlog: u64) -> (u64, u64) {
        let fd = self.socket(family, STREAM);
        self.bind(fd, &loopback(family), 0).unwrap();
        self.listen(fd, backlog).unwrap();
        let (_, port) = self.local(fd).unwrap();
        (self.nonblock(fd), port)
    }

    fn accept(&mut self, fd: u64) -> Result<u64, Errno> {
        done(self.call(Call::SockAccept, &[fd, 0, OUT.into()]))?;
        Ok(self.u32(OUT).into())
    }

    fn name(&mut self, call: Call, fd: u64) -> Result<(Vec<u8>, u64), Errno> {
        let out = self.put(&[BUFFER, 128].map(u32::to_le_bytes).concat()).0;
        done(self.call(call, &[fd, out, OUT.into()]))?;
        let raw = self.buffer(128);
        let address = match raw[0] {
            1 => raw[2..6].to_vec(),
            2 => raw[2..18].to_vec(),
            _ => raw[2..].split(|byte| *byte == 0).next().unwrap().to_vec(),
        };
        Ok((address, self.u32(OUT).into()))
    }

    fn local(&mut self, fd: u64) -> Result<(Vec<u8>, u64), Errno> {
        self.name(Call::SockGetlocaladdr, fd)
    }

    fn peer(&mut self, fd: u64) -> Result<(Vec<u8>, u64), Errno> {
        self.name(Call::SockGetpeeraddr, fd)
    }

    fn option(&mut self, fd: u64, level: u64, name: u32) -> Result<i32, Errno> {
        done(self.call(Call::SockGetsockopt, &[fd, level, name.into(), OUT.into(), 4]))?;
        Ok(self.u32(OUT) as i32)
    }

    fn error(&mut self, fd: u64) -> i32 {
        self.option(fd, 0, abi::OPTION_ERROR).unwrap()
    }

    fn set_option(&mut self, fd: u64, level: u64, name: u32, value: &[u8]) -> Result<(), Errno> {
        let (ptr, len) = self.put(value);
        done(self.call(Call::SockSetsockopt, &[fd, level, name.into(), ptr, len]))
    }

    fn receive(&mut self, fd: u64, len: u32, flags: u64) -> Result<(Vec<u8>, u16), Errno> {
        let (list, count) = self.iovecs(&[(BUFFER.into(), len.into())]);
        done(self.call(Call::SockRecv, &[fd, list, count, flags, OUT.into(), OUT2.into()]))?;
        Ok((self.buffer(self.u32(OUT)).to_vec(), self.u32(OUT2) as u16))
    }

    fn send_to(&mut self, fd: u64, bytes: &[u8], address: &[u8], port: u64) -> Result<u32, Errno> {
        let (data, address) = (self.put(bytes), self.address(address));
        let (list, count) = self.iovecs(&[data]);
        done(self.call(Call::SockSendTo, &[fd, list, count, address, port, 0, OUT.into()]))?;
        Ok(self.u32(OUT))
    }

    /// What came, and the port that it came from.
    fn receive_from(&mut self, fd: u64, len: u32) -> Result<(Vec<u8>, u64), Errno> {
        let (list, count) = self.iovecs(&[(BUFFER.into(), len.into())]);
        let address = self.put(&[BUFFER + 0x8000, 128].map(u32::to_le_bytes).concat()).0;
        let out = u64::from(OUT);
        done(self.call(Call::SockRecvFrom, &[fd, list, count, address, 0, out + 8, out, OUT2.into()]))?;
        Ok((self.buffer(self.u32(OUT)).to_vec(), self.u32(OUT + 8).into()))
    }

    fn shutdown(&mut self, fd: u64, how: u64) -> Result<(), Errno> {
        done(self.call(Call::SockShutdown, &[fd, how]))
    }

    /// Who is ready among the given, at once: (type, bytes, flags), or nothing.
    fn ready(&mut self, fd: u64, tag: u8) -> Option<(u64, u16)> {
        let mut raw = vec![0u8; 96];
        (raw[8], raw[16]) = (tag, fd as u8);
        raw[17] = (fd >> 8) as u8;
        raw[56] = event::CLOCK;
        raw[64] = 1;
        let (ptr, _) = self.put(&raw);
        assert_eq!(self.call(Call::PollOneoff, &[ptr, BUFFER.into(), 2, OUT.into()]), Errno::Success);
        let first = self.buffer(32);
        assert_eq!(first[8], 0, "error {}", first[8]);
        (first[10] == tag).then(|| (self.u64(BUFFER + 16), u16::from_le_bytes([first[24], first[25]])))
    }

    /// A connected pair on loopback, neither of which waits.
    fn pair(&mut self, family: u64) -> (u64, u64) {
        let (listener, port) = self.listener(family, 8);
        let client = self.socket(family, STREAM);
        self.nonblock(client);
        self.connect(client, &loopback(family), port).unwrap();
        let server = self.accept(listener).unwrap();
        assert_eq!(self.close(listener), Errno::Success);
        (client, self.nonblock(server))
    }
}

fn guest() -> Guest {
    Guest::new(HostConfig::default())
}

#[test]
fn tcp_echo_over_loopback_in_each_family() {
    for family in [INET4, INET6, UNIX] {
        let mut guest = guest();
        let (listener, port) = guest.listener(family, 8);
        assert_eq!(guest.accept(listener), Err(Errno::Again));
        let client = guest.socket(family, STREAM);
        guest.connect(client, &loopback(family), port).unwrap();
        let server = guest.accept(listener).unwrap();
        assert_eq!(guest.write(client, b"ping"), Ok(4));
        assert_eq!(guest.read(server, 100), Ok(b"ping".to_vec()));
        assert_eq!(guest.write(server, b"pong!"), Ok(5));
        assert_eq!(guest.receive(client, 2, PEEK).unwrap().0, b"po");
        assert_eq!(guest.receive(client, 5, WAITALL).unwrap().0, b"pong!");
        assert_eq!(guest.local(client), guest.peer(server));
        assert_eq!(guest.peer(client), guest.local(server));
        if family != UNIX {
            assert!(guest.local(client).unwrap().1 >= 49152 && port >= 49152);
        }
        let info = &guest.host.descriptors()[server as usize];
        assert_eq!((info.filetype, info.flags), (filetype::SOCKET_STREAM, 0));
        assert_eq!(guest.close(client), Errno::Success);
        assert_eq!(guest.read(server, 100), Ok(vec![]), "the end");
        assert_eq!(guest.write(server, b"x"), Err(Errno::Pipe));
    }
}

#[test]
fn udp_echo_over_loopback_in_each_family() {
    for family in [INET4, INET6] {
        let mut guest = guest();
        let (server, client) = (guest.socket(family, DGRAM), guest.socket(family, DGRAM));
        guest.nonblock(server);
        guest.bind(server, &loopback(family), 5353).unwrap();
        assert_eq!(guest.receive_from(server, 10), Err(Errno::Again));
        assert_eq!(guest.ready(server, READ), None);
        assert_eq!(guest.ready(server, WRITE), Some((1, 0)));
        assert_eq!(guest.send_to(client, b"query", &loopback(family), 5353), Ok(5));
        assert_eq!(guest.ready(server, READ), Some((5, 0)));
        let (data, port) = guest.receive_from(server, 10).unwrap();
        assert_eq!(data, b"query");
        assert_eq!(guest.send_to(server, b"answer", &tagged(family, &loopback(family)), port), Ok(6));
        assert_eq!(guest.receive_from(client, 3), Ok((b"ans".to_vec(), 5353)));
        assert_eq!(guest.u32(OUT2) as u16, 1, "truncated");
        assert_eq!(guest.send_to(server, b"", &loopback(family), port), Ok(0));
        assert_eq!(guest.receive_from(client, 3), Ok((vec![], 5353)), "datagrams may be empty");
        // Connected: others are not heard, and a port without an owner answers later.
        guest.connect(client, &loopback(family), 9).unwrap();
        assert_eq!(guest.peer(client).unwrap().1, 9);
        assert_eq!(guest.send_to(server, b"x", &loopback(family), port), Ok(1));
        assert_eq!(guest.ready(client, READ), None);
        assert_eq!(guest.write(client, b"x"), Ok(1));
        assert_eq!(guest.write(client, b"x"), Err(Errno::Connrefused));
        assert_eq!(guest.write(server, b"x"), Err(Errno::Destaddrreq));
        assert_eq!(guest.shutdown(server, 1), Ok(()));
        assert_eq!(guest.receive(server, 10, 0).unwrap().0, b"");
    }
}

#[test]
fn datagrams_are_bounded_and_dropped() {
    let mut guest = guest();
    let (server, client) = (guest.socket(INET4, DGRAM), guest.socket(INET4, DGRAM));
    guest.nonblock(server);
    guest.bind(server, &[0, 0, 0, 0], 53).unwrap();
    guest.memory.resize(1 << 20, POISON);
    let address = guest.address(&[127, 0, 0, 1]);
    let send = |guest: &mut Guest, len: u64| {
        let (list, count) = guest.iovecs(&[(0x4_0000, len)]);
        guest.call(Call::SockSendTo, &[client, list, count, address, 53, 0, OUT.into()])
    };
    assert_eq!(send(&mut guest, 65_508), Errno::Msgsize);
    for _ in 0..10 {
        assert_eq!(send(&mut guest, 65_507), Errno::Success);
    }
    let mut count = 0;
    while guest.receive_from(server, 10).is_ok() {
        count += 1;
    }
    assert_eq!(count, 3, "208 KiB");
    for _ in 0..3000 {
        assert_eq!(send(&mut guest, 0), Errno::Success);
    }
    while guest.receive_from(server, 10).is_ok() {
        count += 1;
    }
    assert_eq!(count, 3 + 1024);
}

#[test]
fn halves_are_closed_one_by_one() {
    let mut guest = guest();
    let (client, server) = guest.pair(INET4);
    assert_eq!(guest.write(client, b"last words"), Ok(10));
    assert_eq!(guest.shutdown(client, 2), Ok(()));
    assert_eq!(guest.write(client, b"x"), Err(Errno::Pipe));
    assert_eq!(guest.read(server, 100), Ok(b"last words".to_vec()));
    assert_eq!(guest.read(server, 100), Ok(vec![]));
    assert_eq!(guest.ready(server, READ), Some((0, 0)));
    assert_eq!(guest.write(server, b"still heard"), Ok(11));
    assert_eq!(guest.read(client, 100), Ok(b"still heard".to_vec()));
    // Who doesn't read any more is no error to who writes.
    assert_eq!(guest.read(client, 100), Err(Errno::Again));
    assert_eq!(guest.shutdown(client, 1), Ok(()));
    assert_eq!(guest.read(client, 100), Ok(vec![]));
    assert_eq!(guest.write(server, b"unheard"), Ok(7));
    for (how, errno) in [(0, Errno::Inval), (4, Errno::Inval)] {
        assert_eq!(guest.shutdown(server, how), Err(errno));
    }
    let idle = guest.socket(INET4, STREAM);
    assert_eq!(guest.shutdown(idle, 3), Err(Errno::Notconn));
    // Who waits for room is not left waiting.
    let (client, _server) = guest.pair(INET4);
    while guest.write(client, &[7; 0x4000]).is_ok() {}
    assert_eq!((guest.ready(client, WRITE), guest.shutdown(client, 2)), (None, Ok(())));
    assert_eq!((guest.ready(client, WRITE), guest.write(client, b"x")), (Some((1, 0)), Err(Errno::Pipe)));
}

#[test]
fn readiness_in_all_states() {
    let mut guest = guest();
    let hangup = event::FD_READWRITE_HANGUP;
    let idle = guest.socket(INET4, STREAM);
    assert_eq!(guest.ready(idle, WRITE), Some((1, hangup)));
    let (listener, port) = guest.listener(INET4, 8);
    assert_eq!((guest.ready(listener, READ), guest.ready(listener, WRITE)), (None, None));
    guest.connect(idle, &[127, 0, 0, 1], port).unwrap();
    assert_eq!(guest.ready(listener, READ), Some((1, 0)));
    let server = guest.accept(listener).unwrap();
    assert_eq!(guest.ready(listener, READ), None);
    assert_eq!((guest.ready(server, READ), guest.ready(server, WRITE)), (None, Some((1, 0))));
    assert_eq!(guest.write(idle, b"abc"), Ok(3));
    assert_eq!(guest.ready(server, READ), Some((3, 0)));
    // A buffer that is full is not ready, and is again once it is read.
    guest.nonblock(server);
    guest.nonblock(idle);
    let chunk = vec![7; 0x8000];
    while guest.write(server, &chunk).is_ok() {}
    assert_eq!(guest.write(server, b"x"), Err(Errno::Again));
    assert_eq!(guest.ready(server, WRITE), None);
    while guest.read(idle, BUFFER_BYTES).is_ok() {}
    assert_eq!(guest.ready(server, WRITE), Some((1, 0)));
    assert_eq!(guest.close(idle), Errno::Success);
    assert_eq!(guest.read(server, 10), Ok(b"abc".to_vec()));
    assert_eq!(guest.ready(server, READ), Some((0, hangup)));
    assert_eq!(guest.shutdown(listener, 1), Ok(()));
    assert_eq!(guest.ready(listener, READ), Some((1, hangup)));
    assert_eq!(guest.accept(listener), Err(Errno::Inval), "accept after shutdown");
    let late = guest.socket(INET4, STREAM);
    assert_eq!(guest.connect(late, &[127, 0, 0, 1], port), Err(Errno::Connrefused));
}

#[test]
fn a_full_backlog_makes_who_comes_wait() {
    let mut guest = guest();
    let (listener, port) = guest.listener(INET4, 2);
    let mut clients: Vec<u64> = Vec::new();
    for index in 0..5 {
        let client = guest.socket(INET4, STREAM);
        guest.nonblock(client);
        let expected = if index < 2 { Ok(()) } else { Err(Errno::Inprogress) };
        assert_eq!(guest.connect(client, &[127, 0, 0, 1], port), expected);
        clients.push(client);
    }
    assert_eq!(guest.connect(clients[2], &[127, 0, 0, 1], port), Err(Errno::Already));
    assert_eq!(guest.connect(clients[0], &[127, 0, 0, 1], port), Err(Errno::Isconn));
    assert_eq!((guest.error(clients[2]), guest.peer(clients[2])), (0, Err(Errno::Notconn)));
    assert_eq!((guest.ready(clients[2], WRITE), guest.write(clients[2], b"x")), (None, Err(Errno::Again)));
    let patient = guest.socket(INET4, STREAM);
    assert_eq!(guest.connect(patient, &[127, 0, 0, 1], port), Err(Errno::Timedout), "nobody else could accept");
    // Who gives up is forgotten, and the others move up.
    assert_eq!((guest.close(clients[3]), guest.close(patient)), (Errno::Success, Errno::Success));
    let first = guest.accept(listener).unwrap();
    assert_eq!(guest.ready(clients[2], WRITE), Some((1, 0)));
    assert_eq!((guest.error(clients[2]), guest.write(clients[2], b"x")), (0, Ok(1)));
    assert_eq!(guest.local(clients[0]), guest.peer(first));
    assert_eq!(guest.ready(clients[4], WRITE), None);
    assert_eq!(guest.close(listener), Errno::Success);
    assert_eq!(guest.ready(clients[4], WRITE), Some((1, event::FD_READWRITE_HANGUP)));
    assert_eq!((guest.error(clients[4]), guest.error(clients[4])), (Errno::Connrefused as i32, 0));
    assert_eq!(guest.read(clients[1], 10), Ok(vec![]), "never accepted");
}

/// Lets this process have as many descriptors as it may.
fn raise_descriptors() {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, maximum: limits.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
}

#[test]
fn a_thousand_connections_at_once() {
    raise_descriptors();
    let limits = HostLimits { open_files: 4096, sockets: 4096, ..HostLimits::default() };
    let mut guest = Guest::new(HostConfig { limits, ..HostConfig::default() });
    let (listener, port) = guest.listener(INET4, 64);
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let client = guest.socket(INET4, STREAM);
        guest.nonblock(client);
        assert!(matches!(guest.connect(client, &[127, 0, 0, 1], port), Ok(()) | Err(Errno::Inprogress)));
        clients.push(client);
    }
    let servers: Vec<u64> = (0..1000).map(|_| guest.accept(listener).unwrap()).collect();
    assert_eq!(guest.accept(listener), Err(Errno::Again));
    for (client, server) in clients.iter().zip(&servers) {
        assert_eq!(guest.error(*client), 0);
        assert_eq!(guest.write(*client, &client.to_le_bytes()), Ok(8));
        assert_eq!(guest.read(*server, 100), Ok(client.to_le_bytes().to_vec()));
    }
    assert_eq!(clients.iter().chain(&servers).filter(|fd| guest.close(**fd) != Errno::Success).count(), 0);
}

#[test]
fn sockets_are_limited() {
    let limits = HostLimits { sockets: 3, ..HostLimits::default() };
    let mut guest = Guest::new(HostConfig { limits, ..HostConfig::default() });
    let (listener, port) = guest.listener(INET4, 8);
    let client = guest.socket(INET4, STREAM);
    guest.connect(client, &[127, 0, 0, 1], port).unwrap();
    let third = guest.socket(INET4, DGRAM);
    assert_eq!(guest.call(Call::SockOpen, &[INET4, STREAM, OUT.into()]), Errno::Mfile);
    assert_eq!(guest.accept(listener), Err(Errno::Mfile));
    assert_eq!(guest.call(Call::FdRenumber, &[third, client]), Errno::Success);
    assert!(guest.accept(listener).is_ok());
    assert_eq!(guest.call(Call::SockOpen, &[INET4, STREAM, OUT.into()]), Errno::Mfile);
}

#[test]
fn ports_are_held_and_given_back() {
    let mut guest = guest();
    let first = guest.socket(INET4, STREAM);
    guest.bind(first, &[0, 0, 0, 0], 8080).unwrap();
    assert_eq!(guest.bind(first, &[0, 0, 0, 0], 8081), Err(Errno::Inval), "bound already");
    let second = guest.socket(INET4, STREAM);
    assert_eq!(guest.bind(second, &[127, 0, 0, 1], 8080), Err(Errno::Addrinuse));
    assert_eq!(guest.connect(second, &[127, 0, 0, 1], 8080), Err(Errno::Connrefused), "nobody listens");
    assert_eq!(guest.error(second), 0);
    let (sixth, datagram) = (guest.socket(INET6, STREAM), guest.socket(INET4, DGRAM));
    assert_eq!(guest.bind(sixth, &[0; 16], 8080), Ok(()), "IPv6 alone");
    assert_eq!(guest.bind(datagram, &[127, 0, 0, 1], 8080), Ok(()), "UDP has ports of its own");
    guest.listen(first, 0).unwrap();
    assert_eq!(guest.connect(second, &[0, 0, 0, 0], 8080), Ok(()), "the wildcard is loopback");
    assert_eq!(guest.peer(second), Ok((vec![127, 0, 0, 1], 8080)));
    assert_eq!(guest.close(first), Errno::Success);
    let third = guest.socket(INET4, STREAM);
    assert_eq!(guest.bind(third, &[127, 1, 2, 3], 8080), Ok(()));
    let errors = [
        (guest.bind(datagram, &[127, 0, 0, 1], 1), Errno::Inval),
        (guest.connect(third, &[127, 0, 0, 1], 1), Errno::Connrefused),
        (guest.listen(datagram, 1), Errno::Notsup),
        (guest.listen(second, 1), Errno::Inval),
        (guest.accept(third).map(|_| ()), Errno::Inval),
        (guest.accept(datagram).map(|_| ()), Errno::Notsup),
        (guest.peer(third).map(|_| ()), Errno::Notconn),
        (guest.read(third, 1).map(|_| ()), Errno::Notconn),
        (guest.write(third, b"x").map(|_| ()), Errno::Notconn),
    ];
    for (index, (result, errno)) in errors.into_iter().enumerate() {
        assert_eq!(result, Err(errno), "{index}");
    }
}

#[test]
fn hostile_addresses_are_refused() {
    let mut guest = guest();
    let fd = guest.socket(INET4, STREAM);
    let unspecified = tagged(0, &[127, 0, 0, 1]);
    let cases: [(&[u8], u64, Errno); 8] = [
        (&[], 80, Errno::Inval),
        (&[127, 0, 0], 80, Errno::Inval),
        (&[0; 17], 80, Errno::Inval),
        (&[127, 0, 0, 1], 65_536, Errno::Inval),
        (&[0; 16], 80, Errno::Afnosupport),
        (&unspecified, 80, Errno::Afnosupport),
        (&[10, 0, 0, 1], 80, Errno::Addrnotavail),
        (&[255, 255, 255, 255], 80, Errno::Addrnotavail),
    ];
    for (address, port, errno) in cases {
        assert_eq!(guest.bind(fd, address, port), Err(errno), "{address:?}");
    }
    for raw in [[BUFFER, u32::MAX], [u32::MAX, 4], [MEMORY_BYTES as u32 - 3, 4], [0, 128 + 1]] {
        let (ptr, _) = guest.put(&raw.map(u32::to_le_bytes).concat());
        assert_ne!(guest.call(Call::SockBind, &[fd, ptr, 80]), Errno::Success);
        assert_ne!(guest.call(Call::SockConnect, &[fd, ptr, 80]), Errno::Success);
        assert_ne!(guest.call(Call::SockGetlocaladdr, &[fd, ptr, OUT.into()]), Errno::Success);
    }
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    let sixth = guest.socket(INET6, STREAM);
    assert_eq!(guest.connect(sixth, &mapped, 80), Err(Errno::Netunreach), "IPv6 alone");
    assert_eq!(guest.connect(fd, &[10, 0, 0, 1], 80), Err(Errno::Acces), "no network");
    assert_eq!(guest.connect(fd, &[169, 254, 169, 254], 80), Err(Errno::Acces));
    let datagram = guest.socket(INET4, DGRAM);
    assert_eq!(guest.send_to(datagram, b"x", &[8, 8, 8, 8], 53), Err(Errno::Acces));
    assert_eq!(guest.send_to(datagram, b"x", &[0; 16], 53), Err(Errno::Afnosupport));
    assert_eq!(guest.send_to(datagram, b"x", &[127, 0, 0, 1], 0), Err(Errno::Inval));
    // Of the second version alone is the length that holds all, and a pointer must be one before data is taken.
    let (client, server) = guest.pair(INET4);
    guest.write(client, b"kept").unwrap();
    let (list, count) = guest.iovecs(&[(BUFFER.into(), 9)]);
    let short = guest.put(&[BUFFER, 16].map(u32::to_le_bytes).concat()).0;
    let out = u64::from(OUT);
    let args = [server, list, count, short, 0, out + 8, out, OUT2.into()];
    assert_eq!(guest.call(Call::SockRecvFrom, &args), Errno::Inval);
    assert_eq!(guest.call(Call::SockRecvFromV1, &[server, list, count, short, 4, out, OUT2.into()]), Errno::Inval);
    assert_eq!(guest.call(Call::SockRecvFromV1, &[server, list, count, short, 0, out, OUT2.into()]), Errno::Success);
    assert_eq!(guest.buffer(4), [127, 0, 0, 1], "the address lands on the data, as the guest asked");
    assert_eq!(guest.call(Call::SockGetpeeraddrV1, &[server, short, out, OUT2.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT2)), (4, guest.local(client).unwrap().1 as u32));
    assert_eq!(guest.call(Call::SockAcceptV1, &[server, out]), Errno::Inval);
}

#[test]
fn what_files_can_do_sockets_cannot() {
    let mut guest = guest();
    let (client, _) = guest.pair(INET4);
    let (list, count) = guest.iovecs(&[(BUFFER.into(), 9)]);
    let out = u64::from(OUT);
    assert_eq!(guest.seek(client, 0, 1), Err(Errno::Spipe));
    assert_eq!(guest.call(Call::FdTell, &[client, out]), Errno::Spipe);
    assert_eq!(guest.call(Call::FdPread, &[client, list, count, 0, out]), Errno::Notcapable);
    assert_eq!(guest.call(Call::FdSync, &[client]), Errno::Notcapable);
    assert_eq!(guest.call(Call::FdReaddir, &[client, BUFFER.into(), 9, 0, out]), Errno::Notdir);
    assert_eq!(guest.call(Call::FdFilestatGet, &[client, out]), Errno::Success);
    assert_eq!(guest.memory[OUT as usize + 16], filetype::SOCKET_STREAM);
    assert_eq!(guest.call(Call::FdFdstatSetRights, &[client, rights::FD_WRITE, 0]), Errno::Success);
    assert_eq!((guest.read(client, 1), guest.write(client, b"x")), (Err(Errno::Badf), Ok(1)));
    assert_eq!(guest.receive(client, 1, 0), Err(Errno::Notcapable));
    assert_eq!(guest.shutdown(client, 3), Err(Errno::Notcapable));
}

#[test]
fn options_are_kept() {
    let mut guest = guest();
    let fd = guest.socket(INET4, STREAM);
    let one = 1u32.to_le_bytes();
    for (level, name) in [(0, abi::OPTION_REUSEADDR), (0, abi::OPTION_KEEPALIVE)] {
        assert_eq!(guest.option(fd, level, name), Ok(0));
        assert_eq!(guest.set_option(fd, level, name, &one), Ok(()));
        assert_eq!(guest.option(fd, level, name), Ok(1));
    }
    assert_eq!(guest.option(fd, 0, abi::OPTION_TYPE), Ok(2));
    assert_eq!(guest.option(fd, 41, abi::IPV6_V6ONLY), Ok(1));
    assert_eq!(guest.set_option(fd, 41, abi::IPV6_V6ONLY, &[0; 4]), Err(Errno::Notsup));
    assert_eq!(guest.set_option(fd, 0, abi::OPTION_RCVBUF, &8192u32.to_le_bytes()), Ok(()));
    assert_eq!(guest.option(fd, 0, abi::OPTION_RCVBUF), Ok(8192));
    assert_eq!(guest.set_option(fd, 0, 99, &one), Err(Errno::Noprotoopt));
    assert_eq!(guest.set_option(fd, 0, abi::OPTION_TYPE, &one), Err(Errno::Noprotoopt));
    assert_eq!(guest.set_option(fd, 0, abi::OPTION_REUSEADDR, &[1]), Err(Errno::Inval));
    assert_eq!(guest.set_option(fd, 0, abi::OPTION_LINGER, &[1, 0, 0, 0, 5, 0, 0, 0]), Ok(()));
    // The length as the address of one.
    let len = guest.put(&8u32.to_le_bytes()).0;
    let args = [fd, 0, abi::OPTION_LINGER.into(), OUT.into(), len];
    assert_eq!(guest.call(Call::SockGetsockopt, &args), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT + 4), guest.u32(len as u32)), (1, 5, 8));
    assert_eq!(guest.option(fd, 0, abi::OPTION_LINGER), Err(Errno::Inval), "no room");
    let (client, server) = guest.pair(INET4);
    let time = [0i64.to_le_bytes(), 20_000i64.to_le_bytes()].concat();
    assert_eq!(guest.set_option(client, 0, abi::OPTION_RCVTIMEO, &time), Ok(()));
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[client, 0]), Errno::Success);
    let begin = std::time::Instant::now();
    assert_eq!(guest.read(client, 1), Err(Errno::Again));
    assert!(begin.elapsed().as_millis() >= 20);
    assert_eq!(guest.set_option(server, abi::LEVEL_HOST.into(), 1, b"host"), Err(Errno::Notsup), "no network");
}

#[test]
fn a_guest_that_waits_for_a_socket_can_be_killed() {
    let mut guest = guest();
    let (listener, _) = guest.listener(INET4, 1);
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[listener, 0]), Errno::Success);
    let kill = Arc::clone(&guest.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| kill.request(Kill::Signal(9)));
        let halted = guest.try_call(Call::SockAccept, &[listener, 0, OUT.into()]);
        assert_eq!(halted, Err(Halt::Killed(Kill::Signal(9))));
    });
}
