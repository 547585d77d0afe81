//! Sockets beyond loopback: against a scripted network, in replays, and after a resumption.

use super::*;
use crate::recorder::{CALL_START, OwnedRecord};
use crate::resumer::Resumer;
use crate::shadow::{SCRATCH_BYTES_MAX, Shadow, ShadowConfig, preopened_sockets};

/// A network that answers when the test says so.
#[derive(Clone, Default)]
pub(super) struct Scripted(Arc<Mutex<Vec<(Asked, Promise)>>>);

#[derive(Debug)]
pub(super) enum Asked {
    Dial(Dial),
    Listen(Listen),
    Resolve(Resolve),
    Secure(Secure),
}

impl Scripted {
    fn ask(&self, asked: Asked) -> Ticket {
        let (ticket, promise) = Ticket::new(None).unwrap();
        self.0.lock().unwrap().push((asked, promise));
        ticket
    }

    pub(super) fn take(&self) -> (Asked, Promise) {
        self.0.lock().unwrap().remove(0)
    }

    /// What the guest asks next, once it does.
    pub fn awaited(&self) -> (Asked, Promise) {
        while self.0.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        self.take()
    }
}

impl Network for Scripted {
    fn addresses(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (Some(Ipv4Addr::new(10, 1, 2, 3)), None)
    }

    fn dial(&mut self, request: Dial) -> Ticket {
        self.ask(Asked::Dial(request))
    }

    fn listen(&mut self, request: Listen) -> Ticket {
        self.ask(Asked::Listen(request))
    }

    fn resolve(&mut self, request: Resolve) -> Ticket {
        match request.name.as_str() {
            "db.internal" => {
                let addresses = vec![[10, 0, 0, 9].into(), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                Ticket::answered(Ok(Answer::Addresses(addresses)))
            }
            "slow.internal" => self.ask(Asked::Resolve(request)),
            _ => Ticket::answered(Err(Errno::Noent)),
        }
    }

    fn secure(&mut self, request: Secure) -> Ticket {
        self.ask(Asked::Secure(request))
    }
}

pub(super) fn networked() -> (Guest, Scripted) {
    let network = Scripted::default();
    let config = HostConfig { network: Box::new(network.clone()), ..HostConfig::default() };
    (Guest::new(config), network)
}

pub(super) fn connection(socket: impl Into<OwnedFd>, local: &str, peer: &str) -> Connection {
    let inet = |text: &str| Address::Inet(text.parse().unwrap());
    Connection { socket: socket.into(), local: inet(local), peer: inet(peer) }
}

/// A port of datagrams, and where flows to it are put.
pub(super) fn bound(socket: Option<OwnedFd>) -> (Bound, Arc<Arrivals>) {
    let arrivals = Arc::new(Arrivals::new(4).unwrap());
    (Bound { socket, arrivals: Arc::clone(&arrivals) }, arrivals)
}

#[test]
fn a_dial_is_answered_later_by_a_real_socket() {
    let (mut guest, network) = networked();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = guest.socket(INET4, STREAM);
    guest.nonblock(client);
    assert_eq!(guest.connect(client, &[93, 184, 216, 34], 80), Err(Errno::Inprogress));
    assert_eq!((guest.ready(client, WRITE), guest.error(client)), (None, 0));
    assert_eq!(guest.peer(client), Err(Errno::Notconn));
    let (asked, promise) = network.take();
    let to: SocketAddr = "93.184.216.34:80".parse().unwrap();
    assert!(matches!(asked, Asked::Dial(Dial { transport: Transport::Stream, to: asked, from: None }) if asked == to));
    let socket = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (mut far, _) = server.accept().unwrap();
    // The guest waits in its poll, and the answer wakes it.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let answer = Answer::Connected(connection(socket, "10.1.2.3:50000", "93.184.216.34:80"));
            promise.complete(Ok(answer));
        });
        let mut raw = [0u8; 48];
        (raw[8], raw[16]) = (WRITE, client as u8);
        let (ptr, _) = guest.put(&raw);
        assert_eq!(guest.call(Call::PollOneoff, &[ptr, BUFFER.into(), 1, OUT.into()]), Errno::Success);
        assert_eq!(guest.u32(OUT), 1);
    });
    assert_eq!(guest.error(client), 0);
    assert_eq!(guest.peer(client), Ok((vec![93, 184, 216, 34], 80)));
    assert_eq!(guest.local(client), Ok((vec![10, 1, 2, 3], 50_000)));
    assert_eq!(guest.write(client, b"GET /"), Ok(5));
    let mut bytes = [0; 5];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"GET /");
    // TLS: the network takes the socket, and gives another.
    assert_eq!(guest.set_option(client, abi::LEVEL_HOST.into(), abi::HOST_TLS, b"example.com\0"), Ok(()));
    assert_eq!((guest.ready(client, WRITE), guest.read(client, 9)), (None, Err(Errno::Again)));
    let (asked, promise) = network.take();
    assert!(matches!(asked, Asked::Secure(Secure { name, .. }) if name == "example.com"));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    promise.complete(Ok(Answer::Secured(connection(theirs, "10.1.2.3:50000", "93.184.216.34:80"), String::new())));
    (&ours).write_all(b"clear text").unwrap();
    assert_eq!(guest.read(client, 99), Ok(b"clear text".to_vec()));
}

#[test]
fn halves_of_a_real_connection_are_closed_one_by_one() {
    let (mut guest, network) = networked();
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = TcpListener::bind(at).unwrap();
        let family = if at.starts_with('[') { INET6 } else { INET4 };
        let client = guest.socket(family, STREAM);
        guest.nonblock(client);
        let to = if family == INET6 { vec![0xfd; 16] } else { vec![10, 0, 0, 1] };
        assert_eq!(guest.connect(client, &to, 80), Err(Errno::Inprogress));
        let socket = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (mut far, _) = server.accept().unwrap();
        network.take().1.complete(Ok(Answer::Connected(connection(socket, "10.1.2.3:50000", "10.0.0.1:80"))));
        assert_eq!((guest.write(client, b"request"), guest.shutdown(client, 2)), (Ok(7), Ok(())));
        let mut request = Vec::new();
        far.read_to_end(&mut request).unwrap();
        assert_eq!(request, b"request");
        far.write_all(b"answer").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        while guest.ready(client, READ).is_none_or(|(bytes, _)| bytes < 6) {}
        assert_eq!(
            (guest.receive(client, 9, WAITALL).unwrap().0, guest.read(client, 9)),
            (b"answer".to_vec(), Ok(vec![]))
        );
        assert_eq!((guest.write(client, b"x"), guest.close(client)), (Err(Errno::Pipe), Errno::Success));
    }
}

#[test]
fn a_peer_that_goes_is_a_reset() {
    let (mut guest, network) = networked();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = guest.socket(INET4, STREAM);
    guest.nonblock(client);
    let _ = guest.connect(client, &[10, 0, 0, 1], 80);
    let socket = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (far, _) = server.accept().unwrap();
    network.take().1.complete(Ok(Answer::Connected(connection(socket, "10.1.2.3:50000", "10.0.0.1:80"))));
    rustix::net::sockopt::set_socket_linger(&far, Some(std::time::Duration::ZERO)).unwrap();
    drop(far);
    while guest.ready(client, READ).is_none() {}
    assert_eq!(guest.ready(client, READ).unwrap().1, event::FD_READWRITE_HANGUP);
    assert_eq!((guest.read(client, 9), guest.read(client, 9)), (Err(Errno::Connreset), Ok(vec![])));
    assert_eq!(guest.write(client, b"x"), Err(Errno::Pipe));
}

#[test]
fn a_thousand_connections_outside_at_once() {
    let network = Scripted::default();
    raise_descriptors();
    let limits = HostLimits { open_files: 4096, sockets: 4096, ..HostLimits::default() };
    let config = HostConfig { network: Box::new(network.clone()), limits, ..HostConfig::default() };
    let mut guest = Guest::new(config);
    let clients: Vec<u64> = (0..1000)
        .map(|index| {
            let client = guest.socket(INET4, STREAM);
            guest.nonblock(client);
            assert_eq!(guest.connect(client, &[10, 0, (index >> 8) as u8, index as u8], 80), Err(Errno::Inprogress));
            client
        })
        .collect();
    // All are asked for at once, and answered in another order.
    let mut asked: Vec<_> = (0..1000).map(|_| network.take()).collect();
    let mut far = Vec::new();
    while let Some((Asked::Dial(dial), promise)) = asked.pop() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        promise.complete(Ok(Answer::Connected(connection(theirs, "10.1.2.3:50000", &dial.to.to_string()))));
        far.push(ours);
    }
    for (client, mut far) in clients.iter().zip(far.into_iter().rev()) {
        assert_eq!((guest.error(*client), guest.ready(*client, WRITE)), (0, Some((1, 0))));
        far.write_all(&client.to_le_bytes()).unwrap();
        assert_eq!(guest.read(*client, 100), Ok(client.to_le_bytes().to_vec()));
        assert_eq!(guest.close(*client), Errno::Success);
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn refusals_come_through_so_error_and_closing_withdraws() {
    let (mut guest, network) = networked();
    let client = guest.socket(INET4, STREAM);
    guest.nonblock(client);
    assert_eq!(guest.connect(client, &[10, 0, 0, 1], 80), Err(Errno::Inprogress));
    network.take().1.complete(Err(Errno::Hostunreach));
    assert_eq!(guest.ready(client, WRITE), Some((1, event::FD_READWRITE_HANGUP)));
    assert_eq!((guest.error(client), guest.error(client)), (Errno::Hostunreach as i32, 0));
    assert_eq!(guest.connect(client, &[10, 0, 0, 1], 80), Err(Errno::Inprogress), "another try");
    let (_, promise) = network.take();
    assert!(!promise.is_withdrawn());
    assert_eq!(guest.close(client), Errno::Success);
    assert!(promise.is_withdrawn());
    // A guest that waits.
    let client = guest.socket(INET4, STREAM);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            network.take().1.complete(Err(Errno::Timedout));
        });
        assert_eq!(guest.connect(client, &[10, 0, 0, 1], 80), Err(Errno::Timedout));
    });
}

#[test]
fn listeners_are_reached_from_outside_and_from_inside() {
    let (mut guest, network) = networked();
    let listener = guest.socket(INET4, STREAM);
    guest.nonblock(listener);
    guest.bind(listener, &[0, 0, 0, 0], 8080).unwrap();
    guest.listen(listener, 16).unwrap();
    let (asked, promise) = network.take();
    assert!(matches!(asked, Asked::Listen(Listen { backlog: 16, at, .. }) if at.port() == 8080));
    let client = guest.socket(INET4, STREAM);
    guest.connect(client, &[10, 1, 2, 3], 8080).unwrap();
    assert!(guest.accept(listener).is_ok(), "its own address is its own");
    let arrivals = Arc::new(Arrivals::new(4).unwrap());
    promise.complete(Ok(Answer::Listening(Listening::Arrivals(Arc::clone(&arrivals)))));
    assert_eq!(guest.ready(listener, READ), None);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    arrivals.push(connection(theirs, "10.1.2.3:8080", "10.1.2.4:40000")).unwrap();
    assert_eq!(guest.ready(listener, READ), Some((1, 0)));
    let server = guest.accept(listener).unwrap();
    assert_eq!(guest.peer(server), Ok((vec![10, 1, 2, 4], 40_000)));
    drop(ours);
    assert_eq!(guest.read(server, 9), Ok(vec![]));
    assert_eq!(guest.close(listener), Errno::Success);
    assert!(arrivals.is_closed());
    // A kernel's listener.
    let (listener, real) = (guest.socket(INET4, STREAM), TcpListener::bind("127.0.0.1:0").unwrap());
    guest.nonblock(listener);
    guest.bind(listener, &[10, 1, 2, 3], 8080).unwrap();
    guest.listen(listener, 16).unwrap();
    let outside = real.local_addr().unwrap();
    network.take().1.complete(Ok(Answer::Listening(Listening::Kernel(real.into()))));
    assert_eq!(guest.accept(listener), Err(Errno::Again));
    let far = std::net::TcpStream::connect(outside).unwrap();
    assert_eq!(guest.ready(listener, READ), Some((1, 0)));
    let server = guest.accept(listener).unwrap();
    assert_eq!(guest.peer(server).unwrap().1, u64::from(far.local_addr().unwrap().port()));
    assert_eq!(guest.local(server), Ok((vec![10, 1, 2, 3], 8080)));
}

#[test]
fn small_writes_are_sent_at_once_unless_the_guest_says_otherwise() {
    let real = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = || {
        let socket = std::net::TcpStream::connect(real.local_addr().unwrap()).unwrap();
        (socket.try_clone().unwrap(), connection(socket, "10.1.2.3:8080", "10.1.2.4:8080"))
    };
    for (set, expected) in [(None, true), (Some(0u32), false)] {
        let (mut guest, network) = networked();
        let [client, listener] = [guest.socket(INET4, STREAM), guest.socket(INET4, STREAM)];
        for fd in [client, listener] {
            guest.nonblock(fd);
            if let Some(value) = set {
                guest.set_option(fd, abi::LEVEL_TCP.into(), abi::TCP_NODELAY, &value.to_le_bytes()).unwrap();
            }
        }
        assert_eq!(guest.connect(client, &[10, 1, 2, 4], 8080), Err(Errno::Inprogress));
        let (kernel, dialled) = connected();
        network.take().1.complete(Ok(Answer::Connected(dialled)));
        assert_eq!((guest.error(client), kernel.nodelay().unwrap()), (0, expected));
        guest.bind(listener, &[10, 1, 2, 3], 8080).unwrap();
        guest.listen(listener, 16).unwrap();
        let arrivals = Arc::new(Arrivals::new(4).unwrap());
        network.take().1.complete(Ok(Answer::Listening(Listening::Arrivals(Arc::clone(&arrivals)))));
        let (kernel, arrived) = connected();
        arrivals.push(arrived).unwrap();
        let server = guest.accept(listener).unwrap();
        assert_eq!(kernel.nodelay().unwrap(), expected, "as its listener");
        for fd in [client, server] {
            assert_eq!(guest.option(fd, abi::LEVEL_TCP.into(), abi::TCP_NODELAY), Ok(i32::from(expected)));
        }
    }
}

#[test]
fn datagrams_go_out_by_a_dialled_flow_each() {
    let (mut guest, network) = networked();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let fd = guest.socket(INET4, DGRAM);
    guest.nonblock(fd);
    assert_eq!(guest.send_to(fd, b"query", &[8, 8, 8, 8], 53), Err(Errno::Again));
    assert_eq!(guest.ready(fd, WRITE), None);
    let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
    flow.connect(far.local_addr().unwrap()).unwrap();
    let from = flow.local_addr().unwrap();
    network.take().1.complete(Ok(Answer::Connected(connection(flow, "10.1.2.3:5000", "8.8.8.8:53"))));
    assert_eq!(guest.ready(fd, WRITE), Some((1, 0)));
    assert_eq!(guest.send_to(fd, b"query", &[8, 8, 8, 8], 53), Ok(5));
    let mut bytes = [0; 9];
    assert_eq!(far.recv_from(&mut bytes).unwrap(), (5, from));
    far.send_to(b"answer", from).unwrap();
    assert_eq!(guest.ready(fd, READ), Some((6, 0)));
    assert_eq!(guest.receive_from(fd, 3), Ok((b"ans".to_vec(), 53)));
    assert_eq!(guest.u32(OUT2) as u16, 1, "truncated");
    // Published: strangers are heard, and can be answered.
    let (fd, socket) = (guest.socket(INET4, DGRAM), UdpSocket::bind("127.0.0.1:0").unwrap());
    guest.nonblock(fd);
    guest.bind(fd, &[0, 0, 0, 0], 53).unwrap();
    let outside = socket.local_addr().unwrap();
    network.take().1.complete(Ok(Answer::Bound(bound(Some(socket.into())).0)));
    far.send_to(b"hello", outside).unwrap();
    let stranger = u64::from(far.local_addr().unwrap().port());
    assert_eq!(guest.receive_from(fd, 9), Ok((b"hello".to_vec(), stranger)));
}

fn lookup(
    guest: &mut Guest,
    node: &[u8],
    service: &[u8],
    hints: [u8; 8],
    room: u32,
) -> Result<Vec<(u8, Vec<u8>)>, Errno> {
    let mut next = 0;
    for _ in 0..room {
        let data = guest.put(&[0; 26]).0 as u32;
        let sockaddr = guest.put(&[0, 26, data].map(u32::to_le_bytes).concat()).0 as u32;
        next = guest.put(&[0, 0, 12, sockaddr, 0, 0, next].map(u32::to_le_bytes).concat()).0 as u32;
    }
    let (node, service, res) = (guest.put(node), guest.put(service), guest.put(&next.to_le_bytes()).0);
    let hints = guest.put(&[hints.as_slice(), &[0; 20]].concat()).0;
    let args = [node.0, node.1, service.0, service.1, hints, res, room.into(), OUT.into()];
    done(guest.call(Call::SockGetaddrinfo, &args))?;
    let mut found = Vec::new();
    for _ in 0..guest.u32(OUT) {
        let sockaddr = guest.u32(next + 12);
        let (len, data) = (guest.u32(sockaddr + 4) as usize, guest.u32(sockaddr + 8) as usize);
        found.push((guest.memory[next as usize + 3], guest.memory[data..data + len].to_vec()));
        next = guest.u32(next + 24);
    }
    Ok(found)
}

#[test]
fn names_are_looked_up() {
    let (mut guest, _network) = networked();
    let guest = &mut guest;
    let tcp4 = [0, 0, 1, 2, 0, 0, 0, 0];
    assert_eq!(lookup(guest, b"localhost\0", b"http\0", tcp4, 8), Ok(vec![(2, vec![0, 80, 127, 0, 0, 1])]));
    let any = lookup(guest, b"localhost", b"53", [0; 8], 8).unwrap();
    assert_eq!(
        any.iter().map(|(kind, data)| (*kind, data.len())).collect::<Vec<_>>(),
        [(2, 6), (1, 6), (2, 18), (1, 18)]
    );
    assert_eq!(lookup(guest, b"localhost", b"53", [0; 8], 1).unwrap().len(), 1);
    assert_eq!(lookup(guest, b"", b"80", [1, 0, 1, 2, 0, 0, 0, 0], 8), Ok(vec![(2, vec![0, 80, 0, 0, 0, 0])]));
    assert_eq!(lookup(guest, b"10.9.8.7", b"", tcp4, 8), Ok(vec![(2, vec![0, 0, 10, 9, 8, 7])]));
    assert_eq!(lookup(guest, b"db.internal", b"postgresql", tcp4, 8), Ok(vec![(2, vec![21, 56, 10, 0, 0, 9])]));
    for (node, service, hints, errno) in [
        (b"no.such".as_slice(), b"80".as_slice(), tcp4, Errno::Noent),
        (b"localhost", b"no-such-service", tcp4, Errno::Noent),
        (b"localhost", b"65536", tcp4, Errno::Noent),
        (b"", b"", tcp4, Errno::Noent),
        (b"::1", b"80", tcp4, Errno::Noent),
        (b"db.internal", b"80", [4, 0, 1, 2, 0, 0, 0, 0], Errno::Noent),
        (b"localhost", b"80", [4, 0, 1, 2, 0, 0, 0, 0], Errno::Noent),
        (b"localhost", b"80", [0, 1, 1, 2, 0, 0, 0, 0], Errno::Inval),
        (b"localhost", b"80", [0, 0, 3, 2, 0, 0, 0, 0], Errno::Afnosupport),
        (b"localhost", b"80", [0, 0, 1, 2, 2, 0, 0, 0], Errno::Inval),
        (b"\xff", b"80", tcp4, Errno::Ilseq),
        (&[b'a'; 300], b"80", tcp4, Errno::Nametoolong),
    ] {
        assert_eq!(lookup(guest, node, service, hints, 8), Err(errno), "{}", node.escape_ascii());
    }
    assert_eq!(lookup(guest, b"localhost", b"80", tcp4, 0), Err(Errno::Inval));
}

/// A session that touches every call; returns what the guest saw.
fn session(system: &mut dyn System) -> Vec<(Errno, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut bytes = vec![0u8; 1 << 16];
    let mut notes = Notes::default();
    bytes[0x40..0x44].copy_from_slice(&[127, 0, 0, 1]);
    bytes[0x50..0x58].copy_from_slice(&[0x40, 0, 0, 0, 4, 0, 0, 0]);
    bytes[0x60..0x68].copy_from_slice(&[0, 0x10, 0, 0, 128, 0, 0, 0]);
    bytes[0x70..0x78].copy_from_slice(&[0, 0x20, 0, 0, 9, 0, 0, 0]);
    bytes[0x80..0x86].copy_from_slice(b"hello!");
    bytes[0x90..0x98].copy_from_slice(&[0x80, 0, 0, 0, 6, 0, 0, 0]);
    let mut call = |call: Call, args: &[u64]| {
        let errno = system.call(call, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap();
        seen.push((errno, bytes.clone()));
    };
    call(Call::SockOpen, &[1, 2, 0x100]);
    call(Call::SockBind, &[3, 0x50, 8080]);
    call(Call::SockListen, &[3, 8]);
    call(Call::SockOpen, &[1, 2, 0x104]);
    call(Call::SockSetsockopt, &[4, 6, 1, 0x80, 4]);
    call(Call::SockConnect, &[4, 0x50, 8080]);
    call(Call::SockAccept, &[3, 4, 0x108]);
    call(Call::SockSendTo, &[4, 0x90, 1, 0x50, 8080, 0, 0x110]);
    call(Call::SockRecvFrom, &[5, 0x70, 1, 0x60, 0, 0x114, 0x118, 0x11c]);
    call(Call::SockRecv, &[5, 0x70, 1, 0, 0x118, 0x11c]);
    call(Call::SockGetlocaladdr, &[4, 0x60, 0x114]);
    call(Call::SockGetpeeraddrV1, &[4, 0x60, 0x118, 0x114]);
    call(Call::SockGetsockopt, &[4, 0, 2, 0x120, 4]);
    call(Call::SockConnect, &[3, 0x50, 9]);
    call(Call::SockShutdown, &[4, 2]);
    call(Call::FdRead, &[5, 0x70, 1, 0x118]);
    call(Call::FdClose, &[4]);
    seen
}

#[test]
fn a_session_replays_without_a_socket() {
    let host = Host::new(HostConfig::default(), Arc::new(KillSwitch::new().unwrap())).unwrap();
    let clock = Arc::new(crate::clock::SystemClock);
    let mut recorder = Recorder::new(host, MemorySink::default(), clock, 0);
    let live = session(&mut recorder);
    let errors: Vec<_> = live.iter().map(|(errno, _)| *errno).filter(|errno| *errno != Errno::Success).collect();
    assert_eq!(errors, [Errno::Again, Errno::Isconn]);
    let records = begun(std::mem::take(&mut recorder.sink_mut().records));
    let options = Options { poison: true, ..Options::default() };
    assert!(session(&mut Replayer::new(MemorySource::new(records), options)) == live);
}

/// The records behind the beginning of an epoch.
pub(super) fn begun(mut records: Vec<OwnedRecord>) -> Vec<OwnedRecord> {
    records.insert(0, OwnedRecord { call: CALL_START, args: vec![0, 0], ..OwnedRecord::default() });
    for (seq, record) in records.iter_mut().enumerate() {
        record.seq = seq as u64;
    }
    records
}

/// Does what a guest does from call `from` to `to`: a listener with one connection, a datagram socket, a failed dial.
fn servant(system: &mut dyn System, calls: std::ops::Range<usize>) -> Vec<Errno> {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 16], Notes::default());
    bytes[0x40..0x44].copy_from_slice(&[127, 0, 0, 1]);
    bytes[0x50..0x58].copy_from_slice(&[0x40, 0, 0, 0, 4, 0, 0, 0]);
    bytes[0x60..0x68].copy_from_slice(&[0, 0x10, 0, 0, 128, 0, 0, 0]);
    bytes[0x70..0x78].copy_from_slice(&[0, 0x20, 0, 0, 9, 0, 0, 0]);
    let script: [(Call, &[u64]); 15] = [
        (Call::SockOpen, &[1, 2, 0x100]),
        (Call::SockBind, &[3, 0x50, 0]),
        (Call::SockGetlocaladdr, &[3, 0x60, 0x104]),
        (Call::SockListen, &[3, 8]),
        (Call::SockOpen, &[1, 2, 0x100]),
        (Call::SockConnect, &[4, 0x50, 49152]),
        (Call::SockAccept, &[3, 4, 0x100]),
        (Call::SockOpen, &[1, 1, 0x100]),
        (Call::SockBind, &[6, 0x50, 53]),
        (Call::FdFdstatSetFlags, &[6, 4]),
        (Call::FdRead, &[5, 0x70, 1, 0x100]),
        (Call::FdRead, &[6, 0x70, 1, 0x100]),
        (Call::FdFdstatSetFlags, &[3, 4]),
        (Call::SockAccept, &[3, 0, 0x100]),
        (Call::SockGetlocaladdr, &[3, 0x60, 0x104]),
    ];
    let mut errors = Vec::new();
    for (call, args) in &script[calls] {
        errors.push(system.call(*call, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap());
    }
    assert!(bytes[0x104..0x108] == [0; 4] || bytes[0x104..0x106] == 49152u16.to_le_bytes());
    errors
}

/// A process whose log is these records, to go on with what the configuration gives it.
pub(super) fn resumed(records: Vec<OwnedRecord>, config: HostConfig) -> Resumer<MemorySource, Host> {
    let records = begun(records);
    let shadow = ShadowConfig {
        mounts: Vec::new(),
        socket_paths: config.socket_paths,
        sockets: preopened_sockets(&config),
        scratch: std::env::temp_dir(),
        scratch_bytes_max: SCRATCH_BYTES_MAX,
        started_unix_ns: 0,
    };
    let go_live = move |shadow: Shadow| {
        let restored = shadow.finish().map_err(|mismatch| mismatch.to_string())?;
        let mut live = Host::new(config, Arc::new(KillSwitch::new().unwrap())).map_err(|error| error.to_string())?;
        live.restore(restored).map_err(|error| error.to_string())?;
        Ok(live)
    };
    Resumer::new(MemorySource::new(records), Options::default(), Shadow::new(shadow).unwrap(), Box::new(go_live))
}

#[test]
fn a_process_with_sockets_goes_on_where_its_log_ends() {
    let host = || Host::new(HostConfig::default(), Arc::new(KillSwitch::new().unwrap())).unwrap();
    let clock = Arc::new(crate::clock::SystemClock);
    let calm = servant(&mut host(), 0..15);
    for cut in 1..15 {
        let mut recorder = Recorder::new(host(), MemorySink::default(), clock.clone(), 0);
        servant(&mut recorder, 0..cut);
        let records = std::mem::take(&mut recorder.sink_mut().records);
        drop(recorder);
        let mut resumer = resumed(records, HostConfig::default());
        // Behind the cut the connection is dead, and one that nobody had accepted is gone. Waiting to accept it would
        // be for ever, so that the test leaves that case out.
        if cut == 6 {
            continue;
        }
        let errors = servant(&mut resumer, 0..15);
        assert!(resumer.is_live(), "{:?}", resumer.failure());
        let mut expected = calm.clone();
        if (7..11).contains(&cut) {
            expected[10] = Errno::Connreset;
        }
        assert_eq!(errors, expected, "cut at {cut}");
    }
}

fn restored(fd: u32, socket: RestoredSocket) -> Descriptor {
    let (rights_base, rights_inheriting) = (ALL, ALL);
    Descriptor { fd, kind: DescriptorKind::Socket(socket), rights_base, rights_inheriting, flags: fdflags::NONBLOCK }
}

#[test]
fn sockets_of_a_resumed_process() {
    let inet = |text: &str| Some(Address::Inet(text.parse().unwrap()));
    let base = RestoredSocket {
        family: abi::FAMILY_INET4,
        transport: Transport::Stream,
        local: None,
        peer: None,
        role: SocketRole::Idle,
    };
    let listening = SocketRole::Listening { backlog: 8 };
    let listener = RestoredSocket { local: inet("127.0.0.1:8080"), role: listening, ..base.clone() };
    let peer = inet("10.0.0.1:443");
    let dead = RestoredSocket { local: inet("10.1.2.3:5000"), peer, role: SocketRole::Connected, ..base.clone() };
    let datagram = RestoredSocket { transport: Transport::Datagram, local: inet("0.0.0.0:53"), ..base.clone() };
    let table = vec![restored(3, listener), restored(4, dead), restored(5, base), restored(6, datagram)];
    let mut guest = guest();
    guest.host.restore(Restored { descriptors: table, ..Restored::default() }).unwrap();
    assert_eq!((guest.read(4, 1), guest.write(4, b"x")), (Err(Errno::Connreset), Err(Errno::Connreset)));
    assert_eq!(guest.error(4), Errno::Connreset as i32);
    assert_eq!(guest.ready(4, READ), Some((0, event::FD_READWRITE_HANGUP)));
    assert_eq!(guest.peer(4), Ok((vec![10, 0, 0, 1], 443)));
    assert_eq!(guest.accept(3), Err(Errno::Again));
    assert_eq!(guest.connect(5, &[127, 0, 0, 1], 8080), Ok(()));
    assert!(guest.accept(3).is_ok());
    assert_eq!(guest.local(6), Ok((vec![0, 0, 0, 0], 53)));
    assert_eq!(guest.send_to(6, b"self", &[127, 0, 0, 1], 53), Ok(4));
    assert_eq!(guest.receive_from(6, 9), Ok((b"self".to_vec(), 53)));
}

#[test]
fn who_called_before_a_resume_may_be_answered() {
    let (mut guest, network) = networked();
    let socket = RestoredSocket {
        family: abi::FAMILY_INET4,
        transport: Transport::Datagram,
        local: Some(Address::Inet("0.0.0.0:53".parse().unwrap())),
        peer: None,
        role: SocketRole::Idle,
    };
    let descriptors = vec![restored(3, socket)];
    guest.host.restore(Restored { descriptors, ..Restored::default() }).unwrap();
    assert!(matches!(network.take().0, Asked::Listen(_)), "it can be reached again");
    for (errno, seen) in [(Errno::Acces, Ok(6)), (Errno::Nobufs, Err(Errno::Nobufs))] {
        assert_eq!(guest.send_to(3, b"answer", &[10, 1, 2, 4], 5000), Err(Errno::Again));
        network.take().1.complete(Err(errno));
        assert_eq!(guest.send_to(3, b"answer", &[10, 1, 2, 4], 5000), seen);
    }
}
