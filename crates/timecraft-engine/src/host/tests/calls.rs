//! All calls with valid arguments.

use super::*;
use crate::calls::CALLS;

/// Valid arguments for a call in a fresh world, in which descriptor 5 is `rw/file`, open for all, and 6 is `rw/dir`.
pub(super) fn valid(call: Call, guest: &mut Guest) -> Vec<u64> {
    let out = [u64::from(OUT), u64::from(OUT2)];
    let (buffer, big) = (u64::from(BUFFER), u64::from(BUFFER_BYTES));
    let file = guest.put(b"file");
    let link = guest.put(b"link");
    let new = guest.put(b"new");
    let empty = guest.put(b"empty");
    let data = guest.put(b"data");
    let write = guest.iovecs(&[data, data]);
    let read = guest.iovecs(&[(buffer, 3), (buffer + 8, 100)]);
    let loopback = guest.put(&[127, 0, 0, 1]).0 as u32;
    let address = guest.put(&[loopback, 4].map(u32::to_le_bytes).concat());
    let out_address = guest.put(&[buffer as u32 + 512, 128].map(u32::to_le_bytes).concat());
    match call {
        Call::ArgsGet | Call::EnvironGet => vec![buffer, buffer + 64],
        Call::ArgsSizesGet | Call::EnvironSizesGet => out.to_vec(),
        Call::ClockResGet => vec![1, out[0]],
        Call::ClockTimeGet => vec![1, 0, out[0]],
        Call::FdAdvise => vec![5, 0, 10, 0],
        Call::FdAllocate => vec![5, 0, 100],
        Call::FdClose | Call::FdDatasync | Call::FdSync => vec![5],
        Call::FdFdstatGet | Call::FdFilestatGet | Call::FdTell | Call::SockAcceptV1 => vec![5, out[0]],
        Call::FdFdstatSetFlags => vec![5, fdflags::APPEND.into()],
        Call::FdFdstatSetRights => vec![5, rights::FD_READ, 0],
        Call::FdFilestatSetSize | Call::SockShutdown => vec![5, 3],
        Call::FdFilestatSetTimes => vec![5, 1, 2, 5],
        Call::FdPread => vec![5, read.0, read.1, 2, out[0]],
        Call::FdPrestatGet => vec![3, out[0]],
        Call::FdPrestatDirName => vec![3, buffer, 3],
        Call::FdPwrite => vec![5, write.0, write.1, 2, out[0]],
        Call::FdRead => vec![5, read.0, read.1, out[0]],
        Call::FdReaddir => vec![6, buffer, big, 0, out[0]],
        Call::FdRenumber => vec![5, 6],
        Call::FdSeek => vec![5, 1, 0, out[0]],
        Call::FdWrite => vec![5, write.0, write.1, out[0]],
        Call::PathCreateDirectory => vec![3, new.0, new.1],
        Call::PathFilestatGet => vec![3, FOLLOW, file.0, file.1, out[0]],
        Call::PathFilestatSetTimes => vec![3, FOLLOW, file.0, file.1, 1, 2, 5],
        Call::PathLink => vec![3, 0, file.0, file.1, 6, new.0, new.1],
        Call::PathOpen => vec![3, FOLLOW, new.0, new.1, oflags::CREAT.into(), ALL, ALL, 0, out[0]],
        Call::PathReadlink => vec![3, link.0, link.1, buffer, big, out[0]],
        Call::PathRemoveDirectory => vec![3, empty.0, empty.1],
        Call::PathRename => vec![3, file.0, file.1, 3, new.0, new.1],
        Call::PathSymlink => vec![file.0, file.1, 3, new.0, new.1],
        Call::PathUnlinkFile => vec![3, file.0, file.1],
        Call::PollOneoff => {
            let mut subscription = [0; event::SUBSCRIPTION_BYTES as usize];
            subscription[16] = 1;
            let (ptr, _) = guest.put(&subscription);
            vec![ptr, buffer, 1, out[0]]
        }
        Call::ProcExit | Call::ProcRaise => vec![0],
        Call::SchedYield => vec![],
        Call::RandomGet => vec![buffer, 32],
        Call::SockAccept => vec![5, 0, out[0]],
        Call::SockRecv => vec![5, read.0, read.1, 0, out[0], out[1]],
        Call::SockSend => vec![5, write.0, write.1, 0, out[0]],
        Call::SockOpen => vec![1, 2, out[0]],
        Call::SockBind | Call::SockConnect => vec![5, address.0, 8080],
        Call::SockListen => vec![5, 1],
        Call::SockGetsockopt | Call::SockSetsockopt => vec![5, 0, 0, data.0, 4],
        Call::SockSendTo => vec![5, write.0, write.1, address.0, 8080, 0, out[0]],
        Call::SockGetaddrinfo => {
            let sockaddr = [0, 26, buffer as u32].map(u32::to_le_bytes).concat();
            let sockaddr = guest.put(&sockaddr).0 as u32;
            let info = guest.put(&[0, 0, 0, sockaddr, 0, 0, 0].map(u32::to_le_bytes).concat()).0 as u32;
            let (res, hints) = (guest.put(&info.to_le_bytes()).0, guest.put(&[0; 28]).0);
            let (node, service) = (guest.put(b"localhost"), guest.put(b"80"));
            vec![node.0, node.1, service.0, service.1, hints, res, 1, out[0]]
        }
        Call::SockRecvFromV1 => vec![5, read.0, read.1, out_address.0, 0, out[0], out[1]],
        Call::SockRecvFrom => vec![5, read.0, read.1, out_address.0, 0, out[0] + 8, out[0], out[1]],
        Call::SockGetlocaladdrV1 | Call::SockGetpeeraddrV1 => vec![5, out_address.0, out[0], out[1]],
        Call::SockGetlocaladdr | Call::SockGetpeeraddr => vec![5, out_address.0, out[0]],
    }
}

pub(super) fn world() -> World {
    let mut world = World::new();
    std::os::unix::fs::symlink("file", world.path("rw/link")).unwrap();
    assert_eq!(world.guest.create(RW, "file"), Ok(5));
    assert_eq!(world.guest.open(RW, "dir"), Ok(6));
    world
}

#[test]
fn every_call_takes_valid_arguments() {
    for spec in CALLS {
        let mut world = world();
        let args = valid(spec.call, &mut world.guest);
        let done = world.guest.try_call(spec.call, &args);
        let expected = match spec.call {
            Call::ProcExit => Err(Halt::Exit(0)),
            Call::SockOpen | Call::SockGetaddrinfo => Ok(Errno::Success),
            call if call.name().starts_with("sock_") => Ok(Errno::Notsock),
            _ => Ok(Errno::Success),
        };
        assert_eq!(done, expected, "{}", spec.name);
    }
}

#[test]
fn a_closed_descriptor_is_badf_for_every_call() {
    for spec in CALLS {
        let mut world = world();
        let mut args = valid(spec.call, &mut world.guest);
        let before = world.snapshot();
        let mut at = 0;
        for param in spec.params {
            if matches!(param.kind, crate::calls::Kind::Fd) {
                let kept = std::mem::replace(&mut args[at], 99);
                assert_eq!(world.guest.call(spec.call, &args), Errno::Badf, "{}", spec.name);
                args[at] = kept;
            }
            at += param.kind.types().len();
        }
        assert_eq!(world.snapshot(), before, "{}", spec.name);
    }
}

#[test]
fn arguments_and_environment_arrive() {
    let mut world = World::new();
    let guest = &mut world.guest;
    assert_eq!(guest.call(Call::ArgsSizesGet, &[OUT.into(), OUT2.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT2)), (2, 15));
    assert_eq!(guest.call(Call::ArgsGet, &[OUT.into(), BUFFER.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT + 4)), (BUFFER, BUFFER + 6));
    assert_eq!(guest.buffer(16), b"guest\0argument\0\xaa");
    assert_eq!(guest.call(Call::EnvironSizesGet, &[OUT.into(), OUT2.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT2)), (1, 10));
    assert_eq!(guest.call(Call::EnvironGet, &[OUT.into(), BUFFER.into()]), Errno::Success);
    assert_eq!(guest.buffer(10), b"KEY=value\0");
}

#[test]
fn nothing_is_given_by_default() {
    let mut guest = Guest::new(HostConfig::default());
    assert_eq!(guest.call(Call::ArgsSizesGet, &[OUT.into(), OUT2.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT2)), (0, 0));
    assert_eq!(guest.call(Call::EnvironSizesGet, &[OUT.into(), OUT2.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT2)), (0, 0));
    assert_eq!(guest.call(Call::FdPrestatGet, &[3, OUT.into()]), Errno::Badf);
    assert_eq!(guest.host.descriptors().len(), 3);
    assert_eq!(guest.read(0, 10), Ok(vec![]));
    assert_eq!(guest.write(1, b"into the void"), Ok(13));
}

#[test]
fn clocks_tell_the_time() {
    let mut guest = Guest::new(HostConfig::default());
    for clock in 0..4 {
        assert_eq!(guest.call(Call::ClockTimeGet, &[clock, 0, OUT.into()]), Errno::Success);
        let first = guest.u64(OUT);
        assert_eq!(guest.call(Call::ClockTimeGet, &[clock, 0, OUT.into()]), Errno::Success);
        assert!(first > 0 && guest.u64(OUT) >= first, "clock {clock}");
        assert_eq!(guest.call(Call::ClockResGet, &[clock, OUT.into()]), Errno::Success);
        assert_eq!(guest.u64(OUT), 1);
    }
    assert_eq!(guest.call(Call::ClockTimeGet, &[4, 0, OUT.into()]), Errno::Inval);
    assert_eq!(guest.call(Call::ClockResGet, &[u32::MAX.into(), OUT.into()]), Errno::Inval);
}

#[test]
fn raising_ends_the_guest_or_does_nothing() {
    use crate::Kill;
    let mut guest = Guest::new(HostConfig::default());
    for (signal, linux) in [(1, 1), (2, 2), (6, 6), (9, 9), (15, 15), (23, 24), (30, 31)] {
        assert_eq!(guest.try_call(Call::ProcRaise, &[signal]), Err(Halt::Killed(Kill::Signal(linux))));
    }
    for ignored in [0, 16, 17, 22, 27] {
        assert_eq!(guest.call(Call::ProcRaise, &[ignored]), Errno::Success);
    }
    assert_eq!(guest.call(Call::ProcRaise, &[31]), Errno::Inval);
    assert_eq!(guest.try_call(Call::ProcExit, &[u32::MAX.into()]), Err(Halt::Exit(u32::MAX)));
}

#[test]
fn preopens_tell_their_names() {
    let mut world = World::new();
    let guest = &mut world.guest;
    assert_eq!(guest.call(Call::FdPrestatGet, &[3, OUT.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u32(OUT + 4)), (0, 3));
    assert_eq!(guest.call(Call::FdPrestatDirName, &[3, BUFFER.into(), 2]), Errno::Nametoolong);
    assert_eq!(guest.call(Call::FdPrestatDirName, &[4, BUFFER.into(), 9]), Errno::Success);
    assert_eq!(guest.buffer(4), b"/ro\xaa");
    for not in [0, 1, 5] {
        assert_eq!(guest.call(Call::FdPrestatGet, &[not, OUT.into()]), Errno::Badf);
    }
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let make = |config| Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap_err().to_string();
    let mount = |host: &str| Mount { host: host.into(), guest: "/data".into(), read_only: false, immutable: false };
    let missing = make(HostConfig { mounts: vec![mount("/no/such/place")], ..HostConfig::default() });
    assert_eq!(missing, "mount \"/no/such/place\": no such directory: create it, or correct --dir");
    let file = make(HostConfig { mounts: vec![mount("/etc/passwd")], ..HostConfig::default() });
    assert_eq!(file, "mount \"/etc/passwd\": not a directory: give the directory that holds it in --dir");
    let nul = make(HostConfig { args: vec![vec![], b"a\0b".to_vec()], ..HostConfig::default() });
    assert_eq!(nul, "argument 1: contains a NUL byte, which a guest can't be given: remove it");
    let long = make(HostConfig { env: vec![vec![b'x'; 9 << 20]], ..HostConfig::default() });
    assert!(long.starts_with("environment variable: 9437189 bytes, the limit is"), "{long}");
}
