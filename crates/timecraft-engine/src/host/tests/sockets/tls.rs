//! TLS by the host: the network has the socket, and gives back one with the clear text.

use std::os::unix::net::UnixStream;

use super::outside::{Asked, Scripted, connection, networked, resumed};
use super::*;

const HOST: u64 = abi::LEVEL_HOST as u64;

/// A connection to a server outside.
fn connected(guest: &mut Guest, network: &Scripted) -> u64 {
    let fd = guest.socket(INET4, STREAM);
    guest.nonblock(fd);
    assert_eq!(guest.connect(fd, &[93, 184, 216, 34], 443), Err(Errno::Inprogress));
    let (near, far) = UnixStream::pair().unwrap();
    let answer = Answer::Connected(connection(near, "10.1.2.3:50000", "93.184.216.34:443"));
    network.take().1.complete(Ok(answer));
    assert_eq!(guest.error(fd), 0);
    drop(far);
    fd
}

/// The clear text's socket as the network gives it, whose addresses mean nothing, and its other end.
fn clear() -> (Connection, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (connection(near, "0.0.0.0:0", "0.0.0.0:0"), far)
}

fn negotiated(guest: &mut Guest, fd: u64) -> Result<String, Errno> {
    done(guest.call(Call::SockGetsockopt, &[fd, HOST, abi::HOST_ALPN.into(), OUT.into(), 64]))?;
    let bytes = &guest.memory[OUT as usize..][..64];
    Ok(String::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap())
}

#[test]
fn a_connection_is_ready_when_the_handshake_is_over() {
    let (mut guest, network) = networked();
    let fd = connected(&mut guest, &network);
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_ALPN, b"h2,http/1.1\0"), Ok(()));
    assert_eq!(negotiated(&mut guest, fd), Err(Errno::Notconn));
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Ok(()));
    let (asked, promise) = network.take();
    let Asked::Secure(Secure { name, protocols, .. }) = asked else { panic!("{asked:?}") };
    assert_eq!((name.as_str(), protocols.join(" ").as_str()), ("example.com", "h2 http/1.1"));
    assert_eq!((guest.ready(fd, READ), guest.ready(fd, WRITE)), (None, None));
    assert_eq!((guest.read(fd, 1), guest.write(fd, b"x")), (Err(Errno::Again), Err(Errno::Again)));
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Err(Errno::Already));
    assert_eq!((guest.error(fd), negotiated(&mut guest, fd)), (0, Err(Errno::Notconn)));
    assert_eq!(guest.peer(fd), Ok((vec![93, 184, 216, 34], 443)));
    let (socket, mut far) = clear();
    promise.complete(Ok(Answer::Secured(socket, "h2".into())));
    assert_eq!((guest.ready(fd, WRITE), guest.error(fd)), (Some((1, 0)), 0));
    assert_eq!(guest.ready(fd, READ), None);
    assert_eq!(negotiated(&mut guest, fd), Ok("h2".into()));
    assert_eq!(guest.peer(fd), Ok((vec![93, 184, 216, 34], 443)));
    assert_eq!(guest.local(fd), Ok((vec![10, 1, 2, 3], 50_000)));
    far.write_all(b"clear text").unwrap();
    assert_eq!(guest.read(fd, 99), Ok(b"clear text".to_vec()));
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Err(Errno::Isconn), "once");
    // The length as the address of one; what lies behind the text is not touched.
    let len = guest.put(&64u32.to_le_bytes()).0;
    guest.memory[OUT as usize..][..4].copy_from_slice(b"????");
    let args = [fd, HOST, abi::HOST_ALPN.into(), OUT.into(), len];
    assert_eq!(guest.call(Call::SockGetsockopt, &args), Errno::Success);
    assert_eq!((&guest.memory[OUT as usize..][..4], guest.u32(len as u32)), (b"h2??".as_slice(), 2));
}

#[test]
fn a_handshake_that_fails_is_told_through_so_error() {
    let (mut guest, network) = networked();
    let fd = connected(&mut guest, &network);
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Ok(()));
    network.take().1.complete(Err(Errno::Connaborted));
    assert_eq!(guest.ready(fd, WRITE), Some((1, event::FD_READWRITE_HANGUP)));
    assert_eq!(guest.error(fd), Errno::Connaborted as i32);
    assert_eq!((guest.read(fd, 1), guest.write(fd, b"x")), (Err(Errno::Connreset), Err(Errno::Connreset)));
    // A guest that waits, and learns of it by what it does.
    let fd = connected(&mut guest, &network);
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[fd, 0]), Errno::Success);
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Ok(()));
    let (_, promise) = network.take();
    std::thread::scope(|scope| {
        scope.spawn(|| promise.complete(Err(Errno::Proto)));
        assert_eq!(guest.write(fd, b"x"), Err(Errno::Proto));
    });
    // Closing gives up.
    let fd = connected(&mut guest, &network);
    assert_eq!(guest.set_option(fd, HOST, abi::HOST_TLS, b"example.com"), Ok(()));
    let (_, promise) = network.take();
    assert_eq!(guest.close(fd), Errno::Success);
    assert!(promise.is_withdrawn());
}

#[test]
fn without_a_network_nothing_happens() {
    let mut guest = guest();
    let (client, server) = guest.pair(INET4);
    assert_eq!(guest.set_option(client, HOST, abi::HOST_TLS, b"example.com"), Err(Errno::Notsup));
    assert_eq!((guest.write(client, b"still"), guest.read(server, 9)), (Ok(5), Ok(b"still".to_vec())));
    for (wrong, errno) in [(b"".as_slice(), Errno::Inval), (b"\xff", Errno::Inval)] {
        assert_eq!(guest.set_option(client, HOST, abi::HOST_TLS, wrong), Err(errno));
    }
    let (long, many) = (vec![b'a'; 256], b"a,".repeat(16));
    for wrong in [b"h2,".as_slice(), b"h2,,h3", b"a b", b"\xff", &long, &[many.as_slice(), b"a"].concat()] {
        assert_eq!(
            guest.set_option(client, HOST, abi::HOST_ALPN, wrong),
            Err(Errno::Inval),
            "{}",
            wrong.escape_ascii()
        );
    }
    assert_eq!(guest.set_option(client, HOST, abi::HOST_ALPN, b""), Ok(()));
    let idle = guest.socket(INET4, STREAM);
    assert_eq!(guest.set_option(idle, HOST, abi::HOST_TLS, b"example.com"), Err(Errno::Notconn));
}

/// Grants all, at once; the handshake ends as the name says.
struct Immediate;

impl Network for Immediate {
    fn dial(&mut self, _request: Dial) -> Ticket {
        Ticket::answered(Ok(Answer::Connected(connection(clear().1, "10.1.2.3:50000", "192.0.2.1:443"))))
    }

    fn listen(&mut self, _request: Listen) -> Ticket {
        Ticket::answered(Err(Errno::Acces))
    }

    fn resolve(&mut self, _request: Resolve) -> Ticket {
        Ticket::answered(Err(Errno::Noent))
    }

    fn secure(&mut self, request: Secure) -> Ticket {
        let (ticket, promise) = Ticket::new(None).unwrap();
        let (near, far) = clear();
        std::mem::forget(far);
        promise.complete(if request.name == "good" {
            Ok(Answer::Secured(near, "h2".into()))
        } else {
            Err(Errno::Proto)
        });
        ticket
    }
}

fn host() -> HostConfig {
    HostConfig { network: Box::new(Immediate), ..HostConfig::default() }
}

/// Calls `calls` of a guest with two connections: one gets TLS, the other does not.
fn session(system: &mut dyn System, calls: std::ops::Range<usize>) -> Vec<(Errno, Vec<u8>)> {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 16], Notes::default());
    bytes[0x40..0x44].copy_from_slice(&[192, 0, 2, 1]);
    bytes[0x50..0x58].copy_from_slice(&[0x40, 0, 0, 0, 4, 0, 0, 0]);
    bytes[0x60..0x68].copy_from_slice(&[0, 0x20, 0, 0, 1, 0, 0, 0]);
    bytes[0x70..0x7b].copy_from_slice(b"goodbadh2,x");
    let script: [(Call, &[u64]); 14] = [
        (Call::SockOpen, &[INET4, STREAM, 0x100]),
        (Call::SockOpen, &[INET4, STREAM, 0x100]),
        (Call::SockConnect, &[3, 0x50, 443]),
        (Call::SockConnect, &[4, 0x50, 443]),
        (Call::FdFdstatSetFlags, &[3, NONBLOCK]),
        (Call::SockSetsockopt, &[3, HOST, 2, 0x77, 4]),
        (Call::SockSetsockopt, &[3, HOST, 1, 0x70, 4]),
        (Call::SockSetsockopt, &[4, HOST, 1, 0x74, 3]),
        (Call::SockGetsockopt, &[3, HOST, 2, 0x110, 8]),
        (Call::SockGetsockopt, &[3, 0, 2, 0x100, 4]),
        (Call::SockGetsockopt, &[4, 0, 2, 0x100, 4]),
        (Call::FdRead, &[3, 0x60, 1, 0x100]),
        (Call::FdRead, &[4, 0x60, 1, 0x100]),
        (Call::SockSetsockopt, &[3, HOST, 1, 0x70, 4]),
    ];
    let mut seen = Vec::new();
    for (call, args) in &script[calls] {
        let errno = system.call(*call, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap();
        seen.push((errno, bytes[0x100..0x120].to_vec()));
    }
    seen
}

fn recorded(calls: std::ops::Range<usize>) -> (Vec<(Errno, Vec<u8>)>, Vec<crate::recorder::OwnedRecord>) {
    let host = Host::new(host(), Arc::new(KillSwitch::new().unwrap())).unwrap();
    let mut recorder = Recorder::new(host, MemorySink::default(), Arc::new(crate::clock::SystemClock), 0);
    let seen = session(&mut recorder, calls);
    (seen, std::mem::take(&mut recorder.sink_mut().records))
}

#[test]
fn replayed_and_resumed() {
    let errors = |seen: &[(Errno, Vec<u8>)]| seen.iter().map(|(errno, _)| *errno).collect::<Vec<_>>();
    let (live, records) = recorded(0..14);
    assert_eq!(
        errors(&live)[8..],
        [Errno::Success, Errno::Success, Errno::Success, Errno::Again, Errno::Connreset, Errno::Isconn]
    );
    assert_eq!((&live[8].1[16..19], live[10].1[0]), (b"h2\0".as_slice(), Errno::Proto as u8));
    // Nobody is there who could open a socket.
    let mut replayer = resumed(records, HostConfig::default());
    assert!(session(&mut replayer, 0..14) == live && !replayer.is_live());
    for cut in 4..14 {
        let (before, records) = recorded(0..cut);
        let mut resumer = resumed(records, host());
        let seen = session(&mut resumer, 0..14);
        assert!(resumer.is_live(), "{:?}", resumer.failure());
        assert!(seen[..cut] == before);
        let after = errors(&seen)[11.max(cut)..].to_vec();
        let reset = [Errno::Connreset, Errno::Connreset, Errno::Notconn];
        assert_eq!(after, reset[11.max(cut) - 11..], "cut at {cut}");
    }
}
