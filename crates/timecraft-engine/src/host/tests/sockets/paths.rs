//! Sockets that are opened as paths.

use super::outside::{Asked, Scripted, begun, connection, resumed};
use super::*;
use crate::host::HostError;
use crate::restore::SOCKET_DIRECTORY_RIGHTS;

/// The directories' descriptors where nothing is mounted.
const TCP: u64 = 3;
const UDP: u64 = 4;
const LISTEN: u64 = 5;

fn pathed() -> Guest {
    Guest::new(HostConfig { socket_paths: true, ..HostConfig::default() })
}

fn networked() -> (Guest, Scripted) {
    let network = Scripted::default();
    let config = HostConfig { network: Box::new(network.clone()), socket_paths: true, ..HostConfig::default() };
    (Guest::new(config), network)
}

impl Guest {
    /// Opens a socket as programs open files: with rights that files can have.
    fn dev(&mut self, dir: u64, path: &str, flags: u16) -> Result<u64, Errno> {
        let asked = crate::restore::FILE_RIGHTS;
        self.open_with(dir, path, 0, (asked, asked), flags)
    }

    /// Reads the descriptor of a listener's next connection.
    fn accepted(&mut self, listener: u64) -> Result<u64, Errno> {
        let line = self.read(listener, 16)?;
        Ok(String::from_utf8(line).unwrap().strip_suffix('\n').unwrap().parse().unwrap())
    }
}

#[test]
fn directories_of_sockets_are_preopened_behind_the_mounts() {
    let mut world = World::with(|config| {
        config.socket_paths = true;
        config.mounts[0].guest = "/".into();
        config.mounts[1].guest = "/dev".into();
    });
    for (fd, name) in [(5, "/dev/tcp"), (6, "/dev/udp"), (7, "/dev/listen")] {
        let guest = &mut world.guest;
        assert_eq!(guest.call(Call::FdPrestatGet, &[fd, OUT.into()]), Errno::Success);
        let len = u64::from(guest.u32(OUT + 4));
        assert_eq!(guest.call(Call::FdPrestatDirName, &[fd, BUFFER.into(), len]), Errno::Success);
        assert_eq!(guest.buffer(len as u32), name.as_bytes());
        let info = &guest.host.descriptors()[fd as usize];
        assert_eq!((info.filetype, info.preopen), (filetype::DIRECTORY, true));
        assert_eq!((info.rights_base, info.rights_inheriting), (SOCKET_DIRECTORY_RIGHTS, ALL));
        // They can be opened, and nothing else.
        assert_eq!(guest.stat(fd, 0, b"localhost/80"), Errno::Notcapable);
        assert_eq!(guest.at(Call::PathUnlinkFile, fd, b"localhost/80"), Errno::Notcapable);
        assert_eq!(guest.call(Call::FdReaddir, &[fd, BUFFER.into(), 99, 0, OUT.into()]), Errno::Notcapable);
        assert_eq!(guest.call(Call::FdFilestatGet, &[fd, OUT.into()]), Errno::Notcapable);
        assert_eq!((guest.read(fd, 1), guest.write(fd, b"x")), (Err(Errno::Isdir), Err(Errno::Badf)));
    }
    assert!(world.guest.open(3, "file").is_ok(), "the mounts are as ever");
    let plain = guest();
    assert_eq!(plain.host.descriptors().len(), 3, "not unless asked for");
}

#[test]
fn mounts_and_sockets_keep_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (path, clash) in [
        ("/dev/tcp", true),
        ("dev//udp/", true),
        ("./dev/listen/tcp/80", true),
        ("/dev", false),
        ("/dev/tcpdump", false),
        ("/", false),
    ] {
        let mounts = vec![Mount { host: folder.path().into(), guest: path.into(), read_only: false, immutable: false }];
        let config = HostConfig { mounts, socket_paths: true, ..HostConfig::default() };
        match Host::new(config, Arc::new(KillSwitch::new().unwrap())) {
            Ok(_) => assert!(!clash, "{path}"),
            Err(error @ HostError::Mount { .. }) => {
                assert!(clash && error.to_string().contains("is where sockets are"), "{path}: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    let limits = HostLimits { open_files: 5, ..HostLimits::default() };
    let config = HostConfig { socket_paths: true, limits, ..HostConfig::default() };
    let refused = Host::new(config, Arc::new(KillSwitch::new().unwrap()));
    assert!(matches!(refused, Err(HostError::OpenFiles { limit: 5, needed: 6 })));
}

#[test]
fn a_listener_and_its_connections_are_files() {
    for (at, places) in [
        ("tcp/8080", ["localhost/8080", "127.0.0.1/8080", "0.0.0.0/8080"]),
        ("tcp/127.1.2.3/http", ["127.1.2.3/80", "./127.1.2.3//http", "127.1.2.3/0080"]),
        ("tcp/[::]/8080", ["::1/8080", "[::1]/8080", "Printer.LocalHost./8080"]),
    ] {
        let mut guest = pathed();
        let listener = guest.dev(LISTEN, at, fdflags::NONBLOCK | fdflags::APPEND | fdflags::SYNC).unwrap();
        assert_eq!(guest.host.descriptors()[listener as usize].flags, fdflags::NONBLOCK);
        assert_eq!((guest.accepted(listener), guest.ready(listener, READ)), (Err(Errno::Again), None));
        for place in places {
            // As a shell's redirection opens a file.
            let client = guest.open_with(TCP, place, oflags::CREAT | oflags::TRUNC, (ALL, ALL), 0).unwrap();
            assert_eq!(guest.ready(listener, READ), Some((1, 0)));
            assert_eq!(guest.read(listener, 10), Err(Errno::Inval), "no room for any number");
            let server = guest.accepted(listener).unwrap();
            let info = &guest.host.descriptors()[server as usize];
            assert_eq!((info.filetype, info.flags), (filetype::SOCKET_STREAM, fdflags::NONBLOCK));
            assert_eq!((guest.write(client, b"ping"), guest.read(server, 9)), (Ok(4), Ok(b"ping".to_vec())));
            assert_eq!((guest.write(server, b"pong"), guest.read(client, 9)), (Ok(4), Ok(b"pong".to_vec())));
            assert_eq!(guest.shutdown(client, 2), Ok(()));
            assert_eq!((guest.read(server, 9), guest.close(server)), (Ok(vec![]), Errno::Success));
            assert_eq!((guest.read(client, 9), guest.close(client)), (Ok(vec![]), Errno::Success));
        }
        let client = guest.dev(TCP, places[0], 0).unwrap();
        assert!(guest.accept(listener).is_ok(), "sock_accept does as well");
        assert_eq!(guest.call(Call::FdFilestatGet, &[client, OUT.into()]), Errno::Success);
        assert_eq!(guest.memory[OUT as usize + 16], filetype::SOCKET_STREAM);
        assert_eq!(guest.dev(LISTEN, at, 0), Err(Errno::Addrinuse));
        assert_eq!(guest.close(listener), Errno::Success);
        assert_eq!(guest.dev(TCP, places[0], 0), Err(Errno::Connrefused));
        assert_eq!(guest.dev(TCP, places[0], fdflags::NONBLOCK), Err(Errno::Connrefused));
    }
}

#[test]
fn what_is_no_socket_is_no_path() {
    let mut guest = pathed();
    let long = format!("{}/80", "a".repeat(257));
    for (dir, path, errno) in [
        (TCP, "localhost", Errno::Noent),
        (TCP, ".", Errno::Noent),
        (TCP, "", Errno::Noent),
        (TCP, "localhost/80/more", Errno::Noent),
        (TCP, "localhost/no-service", Errno::Noent),
        (TCP, "localhost/65536", Errno::Noent),
        (TCP, "localhost/-1", Errno::Noent),
        (TCP, "../80", Errno::Perm),
        (TCP, "/localhost/80", Errno::Perm),
        (TCP, &long, Errno::Nametoolong),
        (TCP, "no.such.name/80", Errno::Noent),
        (TCP, "10.0.0.1/80", Errno::Acces),
        (TCP, "[fe80::1]/80", Errno::Acces),
        (TCP, "::ffff:127.0.0.1/80", Errno::Netunreach),
        (UDP, "10.0.0.1/53", Errno::Acces),
        (UDP, "no.such.name/53", Errno::Noent),
        (LISTEN, "8080", Errno::Noent),
        (LISTEN, "udp/8080", Errno::Noent),
        (LISTEN, "tcp/10.0.0.1/8080", Errno::Addrnotavail),
        (LISTEN, "tcp/no.such.name/8080", Errno::Addrnotavail),
    ] {
        assert_eq!(guest.dev(dir, path, 0), Err(errno), "{path}");
        assert_eq!(guest.dev(dir, path, fdflags::NONBLOCK), Err(errno), "{path}");
    }
    for (flags, errno) in [(oflags::DIRECTORY, Errno::Notdir), (oflags::CREAT | oflags::EXCL, Errno::Exist)] {
        assert_eq!(guest.open_with(LISTEN, "tcp/80", flags, (ALL, ALL), 0), Err(errno));
    }
    assert_eq!(guest.host.descriptors().len(), 6, "nothing stays open");
    // Rights are those that were asked for, as far as sockets have them.
    let listener = guest.dev(LISTEN, "tcp/80", 0).unwrap();
    let reader = guest.open_with(TCP, "localhost/80", 0, (rights::FD_READ | rights::FD_SEEK, ALL), 0).unwrap();
    assert_eq!((guest.write(reader, b"x"), guest.seek(reader, 0, 0)), (Err(Errno::Badf), Err(Errno::Spipe)));
    assert_eq!(guest.call(Call::FdFdstatSetRights, &[TCP, 0, ALL]), Errno::Success);
    assert_eq!(guest.dev(TCP, "localhost/80", 0), Err(Errno::Notcapable));
    assert_eq!(
        guest.call(Call::FdFdstatSetRights, &[LISTEN, SOCKET_DIRECTORY_RIGHTS, rights::FD_READ]),
        Errno::Success
    );
    assert_eq!(guest.dev(LISTEN, "tcp/81", 0), Err(Errno::Notcapable));
    assert_eq!((guest.close(TCP), guest.dev(TCP, "localhost/80", 0)), (Errno::Success, Err(Errno::Badf)));
    assert!(guest.accepted(listener).is_ok());
}

#[test]
fn sockets_of_paths_are_limited() {
    let limits = HostLimits { sockets: 3, ..HostLimits::default() };
    let mut guest = Guest::new(HostConfig { limits, socket_paths: true, ..HostConfig::default() });
    let listener = guest.dev(LISTEN, "tcp/80", fdflags::NONBLOCK).unwrap();
    let (first, _second) = (guest.dev(TCP, "localhost/80", 0).unwrap(), guest.dev(TCP, "localhost/80", 0).unwrap());
    assert_eq!(guest.dev(TCP, "localhost/80", 0), Err(Errno::Mfile));
    assert_eq!(guest.dev(LISTEN, "tcp/81", 0), Err(Errno::Mfile));
    assert_eq!(guest.dev(UDP, "localhost/53", 0), Err(Errno::Mfile));
    assert_eq!(guest.accepted(listener), Err(Errno::Mfile));
    assert_eq!(guest.close(first), Errno::Success);
    assert!(guest.accepted(listener).is_ok(), "it was left in the queue");
    // Whoever waits for room in a backlog of its own would wait for ever.
    let mut guest = pathed();
    guest.dev(LISTEN, "tcp/80", 0).unwrap();
    for _ in 0..128 {
        guest.dev(TCP, "localhost/80", 0).unwrap();
    }
    assert_eq!(
        guest.dev(TCP, "localhost/80", 0),
        Err(Errno::Connrefused),
        "nobody listens at ::1, the last to be tried"
    );
    assert_eq!(guest.dev(TCP, "127.0.0.1/80", 0), Err(Errno::Timedout));
    let late = guest.dev(TCP, "127.0.0.1/80", fdflags::NONBLOCK).unwrap();
    assert_eq!((guest.ready(late, WRITE), guest.write(late, b"x")), (None, Err(Errno::Again)));
}

#[test]
fn opening_waits_for_the_network() {
    let (mut guest, network) = networked();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (mut far, _) = server.accept().unwrap();
    let at = |last| SocketAddr::from(([10, 0, 0, last], 443));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (asked, promise) = network.awaited();
            assert!(
                matches!(asked, Asked::Resolve(Resolve { name, ipv4: true, ipv6: true }) if name == "slow.internal")
            );
            promise.complete(Ok(Answer::Addresses(vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()])));
            let (asked, promise) = network.awaited();
            assert!(matches!(asked, Asked::Dial(Dial { to, from: None, .. }) if to == at(8)));
            promise.complete(Err(Errno::Hostunreach));
            let (asked, promise) = network.awaited();
            assert!(matches!(asked, Asked::Dial(Dial { to, .. }) if to == at(9)));
            promise.complete(Ok(Answer::Connected(connection(socket, "10.1.2.3:5000", "10.0.0.9:443"))));
        });
        let fd = guest.dev(TCP, "slow.internal/443", 0).unwrap();
        assert_eq!(guest.write(fd, b"hello"), Ok(5));
        assert_eq!(guest.peer(fd), Ok((vec![10, 0, 0, 9], 443)));
    });
    let mut bytes = [0; 5];
    far.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    let open = guest.host.descriptors().len();
    for (path, errno) in [("slow.internal/80", Errno::Noent), ("10.0.0.1/80", Errno::Timedout)] {
        std::thread::scope(|scope| {
            scope.spawn(|| network.awaited().1.complete(Err(errno)));
            assert_eq!(guest.dev(TCP, path, 0), Err(errno));
        });
    }
    assert_eq!(guest.host.descriptors().len(), open);
    let kill = Arc::clone(&guest.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _unanswered = network.awaited();
            kill.request(Kill::Signal(15));
        });
        let (path, len) = guest.put(b"slow.internal/80");
        let args = [TCP, 0, path, len, 0, ALL, ALL, 0, OUT.into()];
        assert_eq!(guest.try_call(Call::PathOpen, &args), Err(Halt::Killed(Kill::Signal(15))));
    });
}

#[test]
fn opening_without_waiting_is_polled() {
    let (mut guest, network) = networked();
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (dir, transport) in [(TCP, Transport::Stream), (UDP, Transport::Datagram)] {
        let fd = guest.dev(dir, "slow.internal/53", fdflags::NONBLOCK).unwrap();
        assert_eq!((guest.ready(fd, WRITE), guest.write(fd, b"x")), (None, Err(Errno::Again)));
        let addresses = Answer::Addresses(vec![IpAddr::V6(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, 1))]);
        network.awaited().1.complete(Ok(addresses));
        assert_eq!((guest.ready(fd, WRITE), guest.read(fd, 1)), (None, Err(Errno::Again)));
        let (asked, promise) = network.awaited();
        assert!(matches!(asked, Asked::Dial(dial) if dial.transport == transport && dial.to.is_ipv6()));
        let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
        flow.connect(far.local_addr().unwrap()).unwrap();
        promise.complete(Ok(Answer::Connected(connection(flow, "[fd::2]:5000", "[fd::1]:53"))));
        assert_eq!(guest.ready(fd, WRITE), Some((1, 0)));
        assert_eq!(guest.write(fd, b"query"), Ok(5));
        let mut bytes = [0; 9];
        let (count, from) = far.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"query");
        far.send_to(b"answer", from).unwrap();
        assert_eq!(guest.read(fd, 9), Ok(b"answer".to_vec()));
    }
    // What goes wrong is told by the first use.
    let fd = guest.dev(TCP, "slow.internal/80", fdflags::NONBLOCK).unwrap();
    network.awaited().1.complete(Ok(Answer::Addresses(vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()])));
    assert_eq!(guest.ready(fd, WRITE), None);
    network.awaited().1.complete(Err(Errno::Hostunreach));
    assert_eq!(guest.ready(fd, WRITE), None);
    network.awaited().1.complete(Err(Errno::Connrefused));
    assert_eq!(guest.ready(fd, WRITE), Some((1, event::FD_READWRITE_HANGUP)));
    assert_eq!((guest.write(fd, b"x"), guest.write(fd, b"x")), (Err(Errno::Connrefused), Err(Errno::Notconn)));
    // Closing withdraws.
    let fd = guest.dev(TCP, "slow.internal/80", fdflags::NONBLOCK).unwrap();
    let (_, promise) = network.awaited();
    assert_eq!(guest.close(fd), Errno::Success);
    assert!(promise.is_withdrawn());
}

/// Opens, by calls `calls` of a script: a listener, a connection to it, and a datagram socket.
fn servant(system: &mut dyn System, calls: std::ops::Range<usize>) -> Vec<Errno> {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 16], Notes::default());
    bytes[0x200..0x208].copy_from_slice(b"tcp/8080");
    bytes[0x210..0x21e].copy_from_slice(b"localhost/8080");
    bytes[0x220..0x22c].copy_from_slice(b"127.0.0.1/53");
    bytes[0x230..0x23c].copy_from_slice(b"localhost/53");
    bytes[0x240..0x248].copy_from_slice(&[0, 0x10, 0, 0, 16, 0, 0, 0]);
    let script: [(Call, &[u64]); 11] = [
        (Call::PathOpen, &[LISTEN, 0, 0x200, 8, 0, ALL, ALL, 4, 0x100]),
        (Call::PathOpen, &[TCP, 0, 0x210, 14, 0, ALL, ALL, 4, 0x104]),
        (Call::FdRead, &[6, 0x240, 1, 0x108]),
        (Call::PathOpen, &[UDP, 0, 0x220, 12, 0, ALL, ALL, 4, 0x10c]),
        (Call::PathOpen, &[UDP, 0, 0x230, 12, 0, ALL, ALL, 4, 0x110]),
        (Call::FdRead, &[8, 0x240, 1, 0x114]),
        (Call::FdRead, &[9, 0x240, 1, 0x114]),
        (Call::FdRead, &[10, 0x240, 1, 0x114]),
        (Call::FdRead, &[6, 0x240, 1, 0x114]),
        (Call::PathOpen, &[TCP, 0, 0x210, 14, 0, ALL, ALL, 4, 0x118]),
        (Call::FdRead, &[6, 0x240, 1, 0x114]),
    ];
    script[calls]
        .iter()
        .map(|(call, args)| system.call(*call, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap())
        .collect()
}

#[test]
fn paths_are_replayed_without_sockets_and_resumed_with_new_ones() {
    let clock = Arc::new(crate::clock::SystemClock);
    let mut recorder = Recorder::new(pathed().host, MemorySink::default(), clock, 0);
    let calm = servant(&mut recorder, 0..11);
    assert_eq!(calm.iter().filter(|errno| **errno != Errno::Success).count(), 4);
    let records = std::mem::take(&mut recorder.sink_mut().records);
    let options = Options { poison: true, ..Options::default() };
    assert_eq!(servant(&mut Replayer::new(MemorySource::new(begun(records.clone())), options), 0..11), calm);
    for cut in 0..11 {
        let config = HostConfig { socket_paths: true, ..HostConfig::default() };
        let mut resumer = resumed(records[..cut].to_vec(), config);
        let errors = servant(&mut resumer, 0..11);
        assert!(resumer.is_live(), "{:?}", resumer.failure());
        let mut expected = calm.clone();
        // The connection that nobody had accepted is gone, and with it all numbers behind it.
        if cut == 2 {
            assert_eq!(errors[2], Errno::Again);
            continue;
        }
        if (3..6).contains(&cut) {
            expected[5] = Errno::Connreset;
        }
        // What a name meant for datagrams isn't in the log.
        if (5..8).contains(&cut) {
            expected[7] = Errno::Connreset;
        }
        if cut == 10 {
            expected[10] = Errno::Again;
        }
        assert_eq!(errors, expected, "cut at {cut}");
    }
}
