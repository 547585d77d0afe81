//! What each call on sockets says to what it can't do: wrong descriptors, pointers, lengths, families and states.

use super::*;
use crate::calls::{CALLS, Kind};

/// The calls that take a socket, both versions of them.
fn calls() -> impl Iterator<Item = Call> {
    let with_fd = |params: &[crate::calls::Param]| params.first().is_some_and(|param| param.kind == Kind::Fd);
    CALLS.iter().filter(move |spec| spec.name.starts_with("sock_") && with_fd(spec.params)).map(|spec| spec.call)
}

/// A world in which the sockets have something to do: see [`Busy::args`].
struct Busy {
    guest: Guest,
    idle: u64,
    listener: u64,
    port: u64,
    client: u64,
    server: u64,
    datagrams: u64,
}

impl Busy {
    fn new() -> Self {
        let mut guest = guest();
        let (listener, port) = guest.listener(INET4, 8);
        let (idle, client, datagrams) =
            (guest.socket(INET4, STREAM), guest.socket(INET4, STREAM), guest.socket(INET4, DGRAM));
        guest.connect(client, &loopback(INET4), port).unwrap();
        let server = guest.accept(listener).unwrap();
        // One that waits to be accepted, and data of both kinds that wait to be read.
        let waiting = guest.socket(INET4, STREAM);
        guest.connect(waiting, &loopback(INET4), port).unwrap();
        guest.bind(datagrams, &loopback(INET4), 53).unwrap();
        guest.send_to(datagrams, b"datagram", &loopback(INET4), 53).unwrap();
        guest.write(client, b"stream").unwrap();
        for fd in [idle, server, datagrams] {
            guest.nonblock(fd);
        }
        Busy { guest, idle, listener, port, client, server, datagrams }
    }

    /// Valid arguments of a call that would have an effect.
    fn args(&mut self, call: Call) -> Vec<u64> {
        let (out, out2, buffer) = (u64::from(OUT), u64::from(OUT2), u64::from(BUFFER));
        let guest = &mut self.guest;
        let address = guest.address(&loopback(INET4));
        let room = guest.put(&[BUFFER + 512, 128].map(u32::to_le_bytes).concat()).0;
        let (data, flag) = (guest.put(b"data"), guest.put(&1u32.to_le_bytes()).0);
        let (write, count) = guest.iovecs(&[data, data]);
        let (read, _) = guest.iovecs(&[(buffer, 3), (buffer + 8, 100)]);
        match call {
            Call::SockAccept => vec![self.listener, 0, out],
            Call::SockAcceptV1 => vec![self.listener, out],
            Call::SockBind => vec![self.idle, address, 8080],
            Call::SockConnect => vec![self.idle, address, self.port],
            Call::SockListen => vec![self.idle, 8],
            Call::SockShutdown => vec![self.client, 3],
            Call::SockRecv => vec![self.server, read, count, 0, out, out2],
            Call::SockSend => vec![self.client, write, count, 0, out],
            Call::SockSendTo => vec![self.datagrams, write, count, address, 53, 0, out],
            Call::SockRecvFromV1 => vec![self.datagrams, read, count, room, 0, out, out2],
            Call::SockRecvFrom => vec![self.datagrams, read, count, room, 0, out + 8, out, out2],
            Call::SockGetsockopt => vec![self.client, 0, abi::OPTION_KEEPALIVE.into(), out, 4],
            Call::SockSetsockopt => vec![self.client, 0, abi::OPTION_KEEPALIVE.into(), flag, 4],
            Call::SockGetlocaladdrV1 | Call::SockGetpeeraddrV1 => vec![self.client, room, out, out2],
            Call::SockGetlocaladdr | Call::SockGetpeeraddr => vec![self.client, room, out],
            _ => unreachable!("{} is no call on a socket", call.name()),
        }
    }

    /// Fails unless all is as it was at the start.
    fn check_untouched(&mut self, what: &str) {
        let guest = &mut self.guest;
        assert_eq!(guest.host.descriptors().len(), 3 + 6, "{what}");
        assert_eq!(guest.option(self.client, 0, abi::OPTION_KEEPALIVE), Ok(0), "{what}");
        assert_eq!(guest.read(self.server, 100), Ok(b"stream".to_vec()), "{what}");
        assert_eq!(guest.read(self.server, 100), Err(Errno::Again), "{what}");
        assert_eq!(guest.receive_from(self.datagrams, 100).unwrap().0, b"datagram", "{what}");
        assert_eq!(guest.receive_from(self.datagrams, 100), Err(Errno::Again), "{what}");
        assert_eq!(guest.local(self.idle), Ok((vec![0; 4], 0)), "{what}");
        assert_eq!(guest.write(self.client, b"x"), Ok(1), "{what}");
        assert!(guest.accept(self.listener).is_ok(), "{what}");
        assert_eq!(guest.accept(self.listener), Err(Errno::Again), "{what}");
    }
}

#[test]
fn valid_arguments_are_taken() {
    for call in calls() {
        let mut busy = Busy::new();
        let args = busy.args(call);
        assert_eq!(busy.guest.call(call, &args), Errno::Success, "{}", call.name());
    }
}

#[test]
fn the_wrong_descriptor_is_told() {
    let mut world = World::new();
    let mut busy = Busy::new();
    let file = world.guest.create(RW, "file").unwrap();
    for call in calls() {
        let mut args = busy.args(call);
        for fd in [99, u64::from(u32::MAX), 1 << 20] {
            args[0] = fd;
            assert_eq!(busy.guest.call(call, &args), Errno::Badf, "{} {fd}", call.name());
        }
        // A null stream, a directory, a file: their memory is another, but nothing of it is looked at.
        for fd in [0, 1, RW, file] {
            args[0] = fd;
            assert_eq!(world.guest.call(call, &args), Errno::Notsock, "{} {fd}", call.name());
        }
    }
    busy.check_untouched("calls on what isn't there");
    let Busy { mut guest, idle, .. } = busy;
    assert_eq!(guest.close(idle), Errno::Success);
    assert_eq!(guest.call(Call::SockListen, &[idle, 8]), Errno::Badf, "closed");
}

#[test]
fn bad_pointers_have_no_effect_on_sockets() {
    for call in calls() {
        let mut at = 0;
        for param in call.spec().params {
            let (first, width) = (at, param.kind.types().len());
            at += width;
            let is_pointer = matches!(
                param.kind,
                Kind::Address | Kind::IovecsOut | Kind::IovecsIn | Kind::OptionValue | Kind::OutAddress
            ) || matches!(param.kind, Kind::OutU32 | Kind::OutFd | Kind::OutFlags | Kind::OutOption);
            for bad in [0xffff_fff0, u64::from(u32::MAX), MEMORY_BYTES as u64 + 1, MEMORY_BYTES as u64 - 1] {
                if is_pointer {
                    let mut busy = Busy::new();
                    let mut args = busy.args(call);
                    args[first] = bad;
                    let what = format!("{} {}={bad:#x}", call.name(), param.name);
                    assert_eq!(busy.guest.call(call, &args), Errno::Fault, "{what}");
                    busy.check_untouched(&what);
                }
            }
        }
    }
}

#[test]
fn bad_buffers_behind_good_pointers_have_no_effect_on_sockets() {
    let far = |len: u32| [0xffff_fff0, len];
    for (call, at, raw, errno) in [
        (Call::SockBind, 1, far(4), Errno::Fault),
        (Call::SockConnect, 1, far(128), Errno::Fault),
        (Call::SockSendTo, 3, far(4), Errno::Fault),
        (Call::SockSendTo, 3, [BUFFER, 5], Errno::Inval),
        (Call::SockRecvFrom, 3, far(128), Errno::Fault),
        (Call::SockRecvFrom, 3, [BUFFER, 16], Errno::Inval),
        (Call::SockRecvFromV1, 3, far(16), Errno::Fault),
        (Call::SockRecvFromV1, 3, [BUFFER, 5], Errno::Inval),
        (Call::SockGetlocaladdr, 1, far(128), Errno::Fault),
        (Call::SockGetlocaladdr, 1, [BUFFER, 127], Errno::Inval),
        (Call::SockGetpeeraddrV1, 1, far(4), Errno::Fault),
        (Call::SockGetpeeraddrV1, 1, [BUFFER, 3], Errno::Inval),
        (Call::SockSend, 1, far(1), Errno::Fault),
        (Call::SockSendTo, 1, far(1), Errno::Fault),
        (Call::SockRecv, 1, far(100), Errno::Fault),
        (Call::SockRecvFrom, 1, [0, u32::MAX], Errno::Fault),
    ] {
        let mut busy = Busy::new();
        let mut args = busy.args(call);
        args[at] = busy.guest.put(&raw.map(u32::to_le_bytes).concat()).0;
        if at == 1 && call.spec().params[1].kind != Kind::Address && args.len() > 3 && args[2] == 2 {
            args[2] = 1;
        }
        let what = format!("{} {raw:x?}", call.name());
        assert_eq!(busy.guest.call(call, &args), errno, "{what}");
        busy.check_untouched(&what);
    }
}

#[test]
fn flags_lengths_and_families_that_there_are_not() {
    for (call, at, bad, errno) in [
        (Call::SockAccept, 1, 1, Errno::Inval),
        (Call::SockAccept, 1, 0x1_0004, Errno::Inval),
        (Call::SockRecv, 3, 4, Errno::Inval),
        (Call::SockRecvFrom, 4, 8, Errno::Inval),
        (Call::SockRecvFromV1, 4, 1 << 31, Errno::Inval),
        (Call::SockSend, 3, 1, Errno::Inval),
        (Call::SockSendTo, 5, 1, Errno::Inval),
        (Call::SockSend, 2, 1025, Errno::Inval),
        (Call::SockRecv, 2, 1025, Errno::Inval),
        (Call::SockShutdown, 1, 0, Errno::Inval),
        (Call::SockShutdown, 1, 4, Errno::Inval),
        (Call::SockBind, 2, 65_536, Errno::Inval),
        (Call::SockConnect, 2, 65_536, Errno::Inval),
        (Call::SockSendTo, 4, 65_536, Errno::Inval),
        (Call::SockSendTo, 4, 0, Errno::Inval),
        (Call::SockGetsockopt, 1, 7, Errno::Noprotoopt),
        (Call::SockGetsockopt, 2, 14, Errno::Noprotoopt),
        (Call::SockGetsockopt, 4, 3, Errno::Inval),
        (Call::SockSetsockopt, 1, 7, Errno::Noprotoopt),
        (Call::SockSetsockopt, 2, abi::OPTION_TYPE.into(), Errno::Noprotoopt),
        (Call::SockSetsockopt, 4, 3, Errno::Inval),
        (Call::SockSetsockopt, 4, 1024, Errno::Inval),
    ] {
        let mut busy = Busy::new();
        let mut args = busy.args(call);
        args[at] = bad;
        let what = format!("{} {at}: {bad}", call.name());
        assert_eq!(busy.guest.call(call, &args), errno, "{what}");
        busy.check_untouched(&what);
    }
    let mut guest = guest();
    for (family, kind, errno) in [
        (0, STREAM, Errno::Afnosupport),
        (4, STREAM, Errno::Afnosupport),
        (u64::from(u32::MAX), DGRAM, Errno::Afnosupport),
        (INET4, 0, Errno::Inval),
        (INET6, 3, Errno::Inval),
    ] {
        assert_eq!(guest.call(Call::SockOpen, &[family, kind, OUT.into()]), errno, "{family} {kind}");
    }
    assert_eq!(guest.call(Call::SockOpen, &[INET4, STREAM, MEMORY_BYTES as u64 - 3]), Errno::Fault);
    assert_eq!(guest.host.descriptors().len(), 3);
}

#[test]
fn families_do_not_mix() {
    let mut guest = guest();
    let bytes = |family| match family {
        UNIX => loopback(UNIX),
        family => tagged(family, &loopback(family)),
    };
    for own in [INET4, INET6, UNIX] {
        for other in [INET4, INET6, UNIX].into_iter().filter(|other| *other != own) {
            let (stream, datagrams) = (guest.socket(own, STREAM), guest.socket(own, DGRAM));
            assert_eq!(guest.bind(stream, &bytes(other), 80), Err(Errno::Afnosupport));
            assert_eq!(guest.connect(stream, &bytes(other), 80), Err(Errno::Afnosupport));
            assert_eq!(guest.connect(datagrams, &bytes(other), 80), Err(Errno::Afnosupport));
            assert_eq!(guest.send_to(datagrams, b"x", &bytes(other), 80), Err(Errno::Afnosupport));
        }
        // The first version of addresses of 4 and 16 bytes has no place for names.
        let fd = guest.socket(own, STREAM);
        let short = guest.put(&[BUFFER, 16].map(u32::to_le_bytes).concat()).0;
        let told = guest.call(Call::SockGetlocaladdrV1, &[fd, short, OUT.into(), OUT2.into()]);
        assert_eq!(told, if own == UNIX { Errno::Inval } else { Errno::Success });
        if own == UNIX {
            let datagrams = guest.socket(UNIX, DGRAM);
            let (list, count) = guest.iovecs(&[(BUFFER.into(), 9)]);
            let args = [datagrams, list, count, short, 0, OUT.into(), OUT2.into()];
            assert_eq!(guest.call(Call::SockRecvFromV1, &args), Errno::Afnosupport);
        }
    }
}

#[test]
fn unix_names_are_the_guests_own() {
    let mut guest = guest();
    let name = |text: &[u8]| tagged(UNIX, text);
    let (listener, datagrams) = (guest.socket(UNIX, STREAM), guest.socket(UNIX, DGRAM));
    guest.nonblock(datagrams);
    assert_eq!(guest.bind(listener, &name(b""), 0), Err(Errno::Inval), "no name");
    assert_eq!(guest.listen(listener, 1), Err(Errno::Inval), "no name, no listener");
    let client = guest.socket(UNIX, STREAM);
    assert_eq!(guest.connect(client, &name(b"/run/a"), 0), Err(Errno::Noent));
    guest.bind(listener, &name(b"/run/a"), 0).unwrap();
    assert_eq!(guest.connect(client, &name(b"/run/a"), 0), Err(Errno::Connrefused), "bound, and nobody listens");
    guest.listen(listener, 1).unwrap();
    let other = guest.socket(UNIX, STREAM);
    assert_eq!(guest.bind(other, &name(b"/run/a"), 0), Err(Errno::Addrinuse));
    guest.bind(datagrams, &name(b"/run/a"), 0).unwrap();
    guest.connect(client, &name(b"/run/a"), 0).unwrap();
    let server = guest.accept(listener).unwrap();
    assert_eq!(guest.peer(client), Ok((b"/run/a".to_vec(), 0)));
    assert_eq!(guest.peer(server), Ok((vec![], 0)), "who connects needs no name");
    let nameless = guest.socket(UNIX, DGRAM);
    assert_eq!(guest.send_to(nameless, b"x", &name(b"/run/b"), 0), Err(Errno::Noent));
    assert_eq!(guest.connect(nameless, &name(b"/run/b"), 0), Err(Errno::Noent));
    assert_eq!(guest.send_to(nameless, b"x", &name(b"/run/a"), 0), Ok(1));
    assert_eq!(guest.receive_from(datagrams, 9), Ok((b"x".to_vec(), 0)));
    assert_eq!((guest.close(listener), guest.connect(other, &name(b"/run/a"), 0)), (Errno::Success, Err(Errno::Noent)));
}

#[test]
fn the_state_of_a_socket_decides_what_it_can() {
    let mut guest = guest();
    let (client, server) = guest.pair(INET6);
    let (listener, port) = guest.listener(INET6, 8);
    let (idle, datagrams) = (guest.socket(INET6, STREAM), guest.socket(INET6, DGRAM));
    let at = loopback(INET6);
    for (what, result, errno) in [
        ("connect again", guest.connect(client, &at, port), Errno::Isconn),
        ("connect what was accepted", guest.connect(server, &at, port), Errno::Isconn),
        ("connect a listener", guest.connect(listener, &at, port), Errno::Isconn),
        ("bind what is connected", guest.bind(client, &at, 8080), Errno::Inval),
        ("bind a listener", guest.bind(listener, &at, 8080), Errno::Inval),
        ("listen on a connection", guest.listen(client, 8), Errno::Inval),
        ("listen for datagrams", guest.listen(datagrams, 8), Errno::Notsup),
        ("accept from a connection", guest.accept(client).map(|_| ()), Errno::Inval),
        ("accept from an idle socket", guest.accept(idle).map(|_| ()), Errno::Inval),
        ("accept datagrams", guest.accept(datagrams).map(|_| ()), Errno::Notsup),
        ("receive from a listener", guest.receive(listener, 9, 0).map(|_| ()), Errno::Notconn),
        ("receive from an idle socket", guest.receive(idle, 9, 0).map(|_| ()), Errno::Notconn),
        ("send on a listener", guest.write(listener, b"x").map(|_| ()), Errno::Notconn),
        ("send on an idle socket", guest.write(idle, b"x").map(|_| ()), Errno::Notconn),
        ("send a datagram nowhere", guest.write(datagrams, b"x").map(|_| ()), Errno::Destaddrreq),
        ("the peer of a listener", guest.peer(listener).map(|_| ()), Errno::Notconn),
        ("the peer of an idle socket", guest.peer(idle).map(|_| ()), Errno::Notconn),
        ("the peer of datagrams", guest.peer(datagrams).map(|_| ()), Errno::Notconn),
        ("shut down an idle socket", guest.shutdown(idle, 3), Errno::Notconn),
        ("shut down sending on a listener", guest.shutdown(listener, 2), Errno::Notconn),
    ] {
        assert_eq!(result, Err(errno), "{what}");
    }
    assert_eq!(guest.shutdown(listener, 1), Ok(()));
    for (what, result, errno) in [
        ("accept after shutdown", guest.accept(listener).map(|_| ()), Errno::Inval),
        ("listen after shutdown", guest.listen(listener, 8), Errno::Inval),
        ("connect to who shut down", guest.connect(idle, &at, port), Errno::Connrefused),
    ] {
        assert_eq!(result, Err(errno), "{what}");
    }
    let late = guest.socket(INET6, STREAM);
    assert_eq!(guest.bind(late, &at, port), Err(Errno::Addrinuse), "the port is held until it is closed");
    assert_eq!((guest.close(listener), guest.bind(late, &at, port)), (Errno::Success, Ok(())));
}
