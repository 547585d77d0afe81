//! Sockets that a guest has from its start.

use std::net::{TcpStream, ToSocketAddrs};

use super::outside::resumed;
use super::*;
use crate::host::{HostError, PreopenedDial, PreopenedListener};

/// A listener for a guest.
fn listener(at: &str) -> PreopenedListener {
    let socket = TcpListener::bind(at).unwrap();
    let local = socket.local_addr().unwrap();
    PreopenedListener { name: format!("tcp://{at}"), socket: socket.into(), local }
}

/// A connection for a guest, and its far end.
fn dial() -> (PreopenedDial, TcpStream) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (local, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
    (PreopenedDial { name: "tcp://far".into(), socket: Some(near.into()), local, peer }, server.accept().unwrap().0)
}

fn connect(to: impl ToSocketAddrs) -> TcpStream {
    TcpStream::connect(to).unwrap()
}

#[test]
fn listeners_come_before_dials_and_work_without_an_extension() {
    let (first, (dial, mut far)) = (listener("127.0.0.1:0"), dial());
    let (at, here) = (first.local, dial.local);
    let listeners = vec![first, listener("127.0.0.1:0")];
    let mut guest = Guest::new(HostConfig { listeners, dials: vec![dial], ..HostConfig::default() });
    for fd in 3..6 {
        assert_eq!(guest.call(Call::FdFdstatGet, &[fd, OUT.into()]), Errno::Success);
        let stat = guest.memory[OUT as usize..][..4].to_vec();
        assert_eq!(stat, [filetype::SOCKET_STREAM, 0, fdflags::NONBLOCK as u8, 0]);
        assert_eq!(guest.call(Call::FdPrestatGet, &[fd, OUT.into()]), Errno::Badf, "no directory");
    }
    assert_eq!((guest.accept(3), guest.ready(3, READ)), (Err(Errno::Again), None));
    let mut client = connect(at);
    assert_eq!(guest.ready(3, READ), Some((1, 0)));
    let server = guest.accept(3).unwrap();
    client.write_all(b"hello").unwrap();
    assert_eq!((server, guest.receive(server, 9, 0)), (6, Ok((b"hello".to_vec(), 0))));
    assert_eq!(guest.write(server, b"bye"), Ok(3));
    assert_eq!(guest.call(Call::SockShutdown, &[server, 2]), Errno::Success);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "bye");
    let port = u64::from(at.port());
    assert_eq!((guest.local(3), guest.local(server)), (Ok((vec![127, 0, 0, 1], port)), Ok((vec![127, 0, 0, 1], port))));
    assert_eq!(guest.peer(server).unwrap().1, u64::from(client.local_addr().unwrap().port()));
    // The connection.
    assert_eq!(guest.read(5, 9), Err(Errno::Again));
    far.write_all(b"from afar").unwrap();
    assert_eq!(guest.read(5, 9), Ok(b"from afar".to_vec()));
    assert_eq!(guest.local(5).unwrap().1, u64::from(here.port()));
    assert_eq!(guest.accept(5), Err(Errno::Inval));
    // The port is one of the guest's own loopback too, until it closes the listener.
    let own = guest.socket(INET4, STREAM);
    assert_eq!(guest.bind(own, &[127, 0, 0, 1], port), Err(Errno::Addrinuse));
    assert_eq!(guest.connect(own, &[127, 0, 0, 1], port), Ok(()));
    assert!(guest.accept(3).is_ok());
    assert_eq!(guest.close(3), Errno::Success);
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn a_connection_to_a_wildcard_has_an_address() {
    let any = listener("0.0.0.0:0");
    let port = any.local.port();
    let mut guest = Guest::new(HostConfig { listeners: vec![any], ..HostConfig::default() });
    let _client = connect(("127.0.0.1", port));
    assert_eq!(guest.ready(3, READ), Some((1, 0)));
    let server = guest.accept(3).unwrap();
    assert_eq!(guest.local(server), Ok((vec![127, 0, 0, 1], port.into())));
}

#[test]
fn too_many_and_unusable_ones_are_errors() {
    let make = |config: HostConfig| Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap_err();
    let limits = HostLimits { sockets: 1, ..HostLimits::default() };
    let listeners = || vec![listener("127.0.0.1:0"), listener("127.0.0.1:0")];
    let error = make(HostConfig { listeners: listeners(), limits, ..HostConfig::default() });
    assert!(matches!(error, HostError::Sockets { limit: 1, needed: 2 }), "{error}");
    let limits = HostLimits { open_files: 4, ..HostLimits::default() };
    let error = make(HostConfig { listeners: listeners(), limits, ..HostConfig::default() });
    assert!(matches!(error, HostError::OpenFiles { limit: 4, needed: 5 }), "{error}");
    let mut twice = listeners();
    twice[1].local = twice[0].local;
    let error = make(HostConfig { listeners: twice, ..HostConfig::default() });
    assert_eq!(error.to_string(), "tcp://127.0.0.1:0: EADDRINUSE: give each listener an address of its own");
}

/// Does what a guest does from call `from` to `to` with a listener (3) where somebody waits, and a connection (4).
fn servant(system: &mut dyn System, calls: std::ops::Range<usize>) -> Vec<Errno> {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 16], Notes::default());
    bytes[0x70..0x78].copy_from_slice(&[0, 0x20, 0, 0, 9, 0, 0, 0]);
    let script: [(Call, &[u64]); 9] = [
        (Call::FdFdstatGet, &[3, 0x100]),
        (Call::SockListen, &[3, 8]),
        (Call::SockAccept, &[3, NONBLOCK, 0x100]),
        (Call::FdRead, &[5, 0x70, 1, 0x100]),
        (Call::FdRead, &[4, 0x70, 1, 0x100]),
        (Call::SockAccept, &[3, NONBLOCK, 0x100]),
        (Call::FdRead, &[5, 0x70, 1, 0x100]),
        (Call::SockShutdown, &[3, 1]),
        (Call::SockAccept, &[3, NONBLOCK, 0x100]),
    ];
    let call = |(call, args): &(Call, &[u64])| system.call(*call, args, &mut Memory::new(&mut bytes, &mut notes));
    script[calls].iter().map(call).map(Result::unwrap).collect()
}

#[test]
fn a_resumed_process_gets_its_listeners_anew_and_its_connections_are_dead() {
    for cut in 0..9 {
        let (given, (connection, _far)) = (listener("127.0.0.1:0"), dial());
        let _client = connect(given.local);
        let dials = vec![connection];
        let host = Guest::new(HostConfig { listeners: vec![given], dials, ..HostConfig::default() }).host;
        let mut recorder = Recorder::new(host, MemorySink::default(), Arc::new(crate::clock::SystemClock), 0);
        let before = servant(&mut recorder, 0..cut);
        let records = std::mem::take(&mut recorder.sink_mut().records);
        drop(recorder);

        let (anew, (mut connection, _far)) = (listener("127.0.0.1:0"), dial());
        let _client = connect(anew.local);
        connection.socket = None;
        let config = HostConfig { listeners: vec![anew], dials: vec![connection], ..HostConfig::default() };
        let errors = servant(&mut resumed(records, config), 0..9);
        assert_eq!(errors[..cut], before);
        let reset = if cut > 2 { Errno::Connreset } else { Errno::Again };
        let again = |call: usize, errno| if call < cut { Errno::Again } else { errno };
        let ok = Errno::Success;
        let first = [ok, ok, ok, again(3, reset), again(4, Errno::Connreset)];
        assert_eq!(errors[..5], first, "cut at {cut}");
        // Somebody waits at the new listener, unless he was accepted behind the cut.
        let second = if (3..=5).contains(&cut) { ok } else { Errno::Again };
        assert_eq!(errors[5..], [second, again(6, reset), ok, Errno::Inval], "cut at {cut}");
    }
}

#[test]
fn the_port_of_a_closed_listener_stays_free() {
    let given = listener("127.0.0.1:0");
    let (at, port) = (given.local, u64::from(given.local.port()));
    let mut guest = Guest::new(HostConfig { listeners: vec![given], ..HostConfig::default() });
    guest.host.restore(Restored::default()).unwrap();
    assert!(TcpStream::connect(at).is_err());
    while guest.socket(INET4, STREAM) < 2 {}
    assert_eq!(guest.bind(2, &[127, 0, 0, 1], port), Ok(()));
}
