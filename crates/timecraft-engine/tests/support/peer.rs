//! A guest that talks to itself: socket calls on the host's loopback, recorded.

use std::sync::Arc;

use timecraft_engine::host::{Host, HostConfig};
use timecraft_engine::memory::Notes;
use timecraft_engine::recorder::{MemorySink, OwnedRecord, Recorder, Sink};
use timecraft_engine::{Call, Errno, KillSwitch, Memory, System};

use crate::support::{StepClock, begin};

pub const INET4: u64 = 1;
pub const INET6: u64 = 2;
pub const UNIX: u64 = 3;
pub const DGRAM: u64 = 1;
pub const STREAM: u64 = 2;

/// Places in guest memory.
const OUT: u32 = 8;
const OUT2: u32 = 16;
const OUT3: u32 = 24;
const LIST: u32 = 64;
const DESCRIPTION: u32 = 128;
const ADDRESS: u32 = 256;
const DATA: u32 = 1_024;
const ROOM: u32 = 4_096;

/// A guest, its host, and where its records go.
pub struct Peer<W> {
    pub recorder: Recorder<Host, W>,
    memory: Vec<u8>,
    notes: Notes,
}

/// The records of what a guest does.
pub fn records_of(act: impl FnOnce(&mut Peer<MemorySink>)) -> Vec<OwnedRecord> {
    let mut sink = MemorySink::default();
    begin(&mut sink);
    let mut guest = Peer::new(sink);
    act(&mut guest);
    guest.recorder.into_parts().1.records
}

/// Requests and answers on one connection, and its end.
pub fn http_conversation<W: Sink>(guest: &mut Peer<W>) {
    let (server, client) = guest.pair();
    guest.send(client, b"GET /first?x=1 HTTP/1.1\r\nHost: a\r\n");
    guest.receive(server);
    guest.send(client, b"X-Escape: \x1b[31m\r\n\r\n");
    guest.receive(server);
    guest.send(server, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\n");
    guest.send(server, b"hello\nworld");
    guest.receive(client);
    guest.write(client, b"POST /second HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    guest.read(server);
    guest.write(server, b"HTTP/1.1 100 Continue\r\n\r\n");
    guest.read(client);
    guest.write(client, b"5\r\nab\0\xff\x80\r\n0\r\nX-Sum: 7\r\n\r\n");
    guest.read(server);
    guest.write(server, b"HTTP/1.1 404 Not Found\r\n\r\ngone");
    guest.read(client);
    guest.call(Call::SockShutdown, &[server, 2]);
    guest.read(client);
    guest.close(client);
    guest.read(server);
    guest.close(server);
}

impl<W: Sink> Peer<W> {
    pub fn new(sink: W) -> Self {
        let kill = Arc::new(KillSwitch::new().unwrap());
        let host = Host::new(HostConfig::default(), kill).unwrap();
        let recorder = Recorder::new(host, sink, Arc::new(StepClock::default()), 0);
        Peer { recorder, memory: vec![0; 1 << 16], notes: Notes::default() }
    }

    pub fn call(&mut self, call: Call, args: &[u64]) -> Errno {
        self.recorder.call(call, args, &mut Memory::new(&mut self.memory, &mut self.notes)).unwrap()
    }

    fn put(&mut self, ptr: u32, bytes: &[u8]) {
        self.memory[ptr as usize..ptr as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn out(&self, ptr: u32) -> u64 {
        let bytes = self.memory[ptr as usize..ptr as usize + 4].try_into().unwrap();
        u64::from(u32::from_le_bytes(bytes))
    }

    fn describe(&mut self, bytes: &[u8]) -> u64 {
        self.put(ADDRESS, bytes);
        self.put(DESCRIPTION, &[ADDRESS, bytes.len() as u32].map(u32::to_le_bytes).concat());
        DESCRIPTION.into()
    }

    fn list(&mut self, len: usize) -> [u64; 2] {
        self.put(LIST, &[DATA, len as u32].map(u32::to_le_bytes).concat());
        [LIST.into(), 1]
    }

    fn loopback(family: u64) -> Vec<u8> {
        match family {
            INET4 => vec![127, 0, 0, 1],
            INET6 => [[0; 15].as_slice(), &[1]].concat(),
            _ => {
                let mut bytes = [[3, 0].as_slice(), b"/run/app.sock"].concat();
                bytes.resize(128, 0);
                bytes
            }
        }
    }

    pub fn socket(&mut self, family: u64, kind: u64) -> u64 {
        assert_eq!(self.call(Call::SockOpen, &[family, kind, OUT.into()]), Errno::Success);
        self.out(OUT)
    }

    pub fn connect(&mut self, fd: u64, family: u64, port: u64) -> Errno {
        self.connect_to(fd, &Self::loopback(family), port)
    }

    pub fn connect_to(&mut self, fd: u64, address: &[u8], port: u64) -> Errno {
        let address = self.describe(address);
        self.call(Call::SockConnect, &[fd, address, port])
    }

    pub fn bind(&mut self, fd: u64, family: u64, port: u64) {
        let address = self.describe(&Self::loopback(family));
        assert_eq!(self.call(Call::SockBind, &[fd, address, port]), Errno::Success);
    }

    pub fn listener(&mut self, family: u64, port: u64) -> u64 {
        let fd = self.socket(family, STREAM);
        self.bind(fd, family, port);
        assert_eq!(self.call(Call::SockListen, &[fd, 8]), Errno::Success);
        fd
    }

    /// Asks for both addresses of a socket.
    fn names(&mut self, fd: u64) {
        for call in [Call::SockGetlocaladdr, Call::SockGetpeeraddr] {
            let address = self.describe(&[0; 128]);
            assert_eq!(self.call(call, &[fd, address, OUT.into()]), Errno::Success);
        }
    }

    /// Both ends of a new connection: the server's, the client's.
    pub fn connected(&mut self, listener: u64, family: u64, port: u64) -> (u64, u64) {
        let client = self.socket(family, STREAM);
        assert_eq!(self.connect(client, family, port), Errno::Success);
        self.names(client);
        assert_eq!(self.call(Call::SockAccept, &[listener, 0, OUT.into()]), Errno::Success);
        let server = self.out(OUT);
        self.names(server);
        (server, client)
    }

    /// The same, with a listener of its own.
    pub fn pair(&mut self) -> (u64, u64) {
        let listener = self.listener(INET4, 8080);
        self.connected(listener, INET4, 8080)
    }

    pub fn send(&mut self, fd: u64, bytes: &[u8]) {
        self.put(DATA, bytes);
        let [list, count] = self.list(bytes.len());
        assert_eq!(self.call(Call::SockSend, &[fd, list, count, 0, OUT.into()]), Errno::Success);
    }

    pub fn receive(&mut self, fd: u64) {
        let [list, count] = self.list(ROOM as usize);
        assert_eq!(self.call(Call::SockRecv, &[fd, list, count, 0, OUT.into(), OUT2.into()]), Errno::Success);
    }

    pub fn write(&mut self, fd: u64, bytes: &[u8]) {
        // In two pieces, as a list.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        self.put(DATA, head);
        self.put(DATA + ROOM, tail);
        let list = [DATA, head.len() as u32, DATA + ROOM, tail.len() as u32].map(u32::to_le_bytes).concat();
        self.put(LIST, &list);
        assert_eq!(self.call(Call::FdWrite, &[fd, LIST.into(), 2, OUT.into()]), Errno::Success);
    }

    pub fn read(&mut self, fd: u64) {
        self.put(LIST, &[DATA, 10, DATA + ROOM, ROOM].map(u32::to_le_bytes).concat());
        assert_eq!(self.call(Call::FdRead, &[fd, LIST.into(), 2, OUT.into()]), Errno::Success);
    }

    pub fn close(&mut self, fd: u64) {
        assert_eq!(self.call(Call::FdClose, &[fd]), Errno::Success);
    }

    /// One request and its answer.
    pub fn exchange(&mut self, client: u64, server: u64, path: &str) {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: a test\r\nAccept: */*\r\n\r\n");
        self.send(client, request.as_bytes());
        self.receive(server);
        self.send(
            server,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: a test\r\nContent-Length: 2\r\n\r\nok",
        );
        self.receive(client);
    }

    /// A connection that is refused nothing: peeked at, closed on one side, then on the other.
    pub fn tcp(&mut self) {
        let listener = self.listener(INET4, 7000);
        let (server, client) = self.connected(listener, INET4, 7000);
        self.send(client, b"a line that is longer than sixteen bytes\n");
        let [list, count] = self.list(ROOM as usize);
        self.call(Call::SockRecv, &[server, list, count, 1, OUT.into(), OUT2.into()]);
        self.receive(server);
        self.call(Call::SockShutdown, &[client, 2]);
        self.receive(server);
        self.close(server);
        self.put(DATA, b"x");
        let [list, count] = self.list(1);
        assert_eq!(self.call(Call::SockSend, &[client, list, count, 0, OUT.into()]), Errno::Pipe);
        self.close(client);
        self.close(listener);
    }

    pub fn unix(&mut self) {
        let listener = self.listener(UNIX, 0);
        let client = self.socket(UNIX, STREAM);
        assert_eq!(self.connect(client, UNIX, 0), Errno::Success);
        assert_eq!(self.call(Call::SockAccept, &[listener, 0, OUT.into()]), Errno::Success);
        let server = self.out(OUT);
        self.send(client, b"hi");
        self.receive(server);
        for fd in [client, server, listener] {
            self.close(fd);
        }
    }

    /// IPv6, by the first version of the calls.
    pub fn tcp_of_version_1(&mut self) {
        let listener = self.listener(INET6, 9000);
        let client = self.socket(INET6, STREAM);
        assert_eq!(self.connect(client, INET6, 9000), Errno::Success);
        assert_eq!(self.call(Call::SockAcceptV1, &[listener, OUT.into()]), Errno::Success);
        let server = self.out(OUT);
        for fd in [client, server] {
            for call in [Call::SockGetlocaladdrV1, Call::SockGetpeeraddrV1] {
                let address = self.describe(&[0; 16]);
                let args = [fd, address, OUT.into(), OUT2.into()];
                assert_eq!(self.call(call, &args), Errno::Success);
            }
        }
        self.send(server, b"hi");
        self.receive(client);
        for fd in [client, server, listener] {
            self.close(fd);
        }
    }

    pub fn udp(&mut self) {
        let (bound, other) = (self.socket(INET4, DGRAM), self.socket(INET4, DGRAM));
        self.bind(bound, INET4, 5353);
        for bytes in [b"first".as_slice(), b"second"] {
            self.put(DATA, bytes);
            let [list, count] = self.list(bytes.len());
            let address = self.describe(&Self::loopback(INET4));
            let args = [other, list, count, address, 5353, 0, OUT.into()];
            assert_eq!(self.call(Call::SockSendTo, &args), Errno::Success);
        }
        let [list, count] = self.list(ROOM as usize);
        let address = self.describe(&[0; 128]);
        let outs = [OUT, OUT2, OUT3].map(u64::from);
        let args = [bound, list, count, address, 0, outs[0], outs[1], outs[2]];
        assert_eq!(self.call(Call::SockRecvFrom, &args), Errno::Success);
        let port = self.out(OUT);
        let [list, count] = self.list(ROOM as usize);
        let address = self.describe(&[0; 4]);
        let args = [bound, list, count, address, 0, outs[0], outs[1]];
        assert_eq!(self.call(Call::SockRecvFromV1, &args), Errno::Success);
        self.connect(bound, INET4, port);
        self.write(bound, b"answer");
        self.receive(other);
        for fd in [bound, other] {
            self.close(fd);
        }
    }
}
