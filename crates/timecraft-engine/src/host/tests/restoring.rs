//! Taking over from a replay.

use super::*;
use crate::restore::{Descriptor, DescriptorKind, FirstCall, Restored, TornAppend, UNRESTRICTED};

fn stdio(number: u8, fd: u32) -> Descriptor {
    let kind = DescriptorKind::Stdio(number);
    Descriptor { fd, kind, rights_base: UNRESTRICTED, rights_inheriting: UNRESTRICTED, flags: 0 }
}

fn file(fd: u32, path: &str, offset: u64, rights_base: u64, flags: u16) -> Descriptor {
    let kind = DescriptorKind::File { mount: 0, path: path.into(), offset };
    Descriptor { fd, kind, rights_base, rights_inheriting: 0, flags }
}

fn restored(descriptors: Vec<Descriptor>) -> Restored {
    Restored { descriptors, ..Restored::default() }
}

#[test]
fn the_table_is_as_it_would_be() {
    let mut world = World::new();
    let gone = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&gone, b"gone", 0).unwrap();
    let mount = Descriptor {
        fd: 3,
        kind: DescriptorKind::Mount { mount: 0 },
        rights_base: rights::PATH_OPEN,
        rights_inheriting: rights::FD_READ,
        flags: 0,
    };
    let directory = Descriptor {
        fd: 9,
        kind: DescriptorKind::Directory { mount: 1, path: b"dir".to_vec() },
        rights_base: rights::FD_READDIR,
        rights_inheriting: 0,
        flags: 0,
    };
    let rebuilt = Descriptor {
        fd: 2,
        kind: DescriptorKind::Rebuilt { file: gone, offset: 4 },
        rights_base: ALL,
        rights_inheriting: 0,
        flags: fdflags::APPEND,
    };
    let rw = rights::FD_READ | rights::FD_WRITE | rights::FD_SEEK;
    let table = vec![stdio(1, 7), mount, directory, file(5, "file", 5, rw, fdflags::APPEND), rebuilt];
    world.guest.host.restore(restored(table)).unwrap();
    let guest = &mut world.guest;
    let infos = guest.host.descriptors();
    let seen: Vec<_> = infos.iter().map(|info| (info.fd, info.filetype, info.mount, info.preopen)).collect();
    let expected = [
        (2, 4, None, false),
        (3, 3, Some(0), true),
        (5, 4, Some(0), false),
        (7, 2, None, false),
        (9, 3, Some(1), false),
    ];
    assert_eq!(seen, expected);
    assert_eq!((infos[1].rights_base, infos[1].rights_inheriting), (rights::PATH_OPEN, rights::FD_READ));
    assert_eq!(infos[3].rights_base & rights::FD_READ, 0, "a stream gets no right that it doesn't have");
    assert_eq!(guest.seek(5, 0, 1), Ok(5));
    assert_eq!(guest.read(5, 100), Ok(b"is rw/file\n".to_vec()));
    assert_eq!(guest.seek(5, 0, 0), Ok(0));
    assert_eq!(guest.write(5, b"end"), Ok(3));
    assert_eq!((guest.write(2, b"!"), guest.seek(2, 0, 0), guest.read(2, 9)), (Ok(1), Ok(0), Ok(b"gone!".to_vec())));
    assert_eq!(guest.write(7, b"out"), Ok(3));
    assert_eq!(guest.open(9, "x"), Err(Errno::Notcapable));
    assert_eq!(guest.open_with(3, "file", 0, (0, 0), 0), Ok(0), "the lowest free number");
    assert_eq!(std::fs::read(world.path("rw/file")).unwrap(), b"this is rw/file\nend");
}

#[test]
fn what_is_gone_is_named() {
    for (path, reason) in [("missing", "ENOENT"), ("dir", "no file any more"), ("../secret", "EPERM")] {
        let mut world = World::new();
        let table = vec![file(5, path, 0, rights::FD_READ, 0)];
        let error = world.guest.host.restore(restored(table)).unwrap_err().to_string();
        assert!(error.starts_with("descriptor 5,") && error.contains(path) && error.contains(reason), "{error}");
    }
}

#[test]
fn the_monotonic_clock_goes_on() {
    let mut guest = Guest::new(HostConfig::default());
    let far = guest.host.now(1).unwrap() + (1 << 60);
    guest.host.restore(Restored { monotonic_ns: far, ..Restored::default() }).unwrap();
    assert_eq!(guest.call(Call::ClockTimeGet, &[1, 0, OUT.into()]), Errno::Success);
    let first = guest.u64(OUT);
    assert!(first >= far);
    assert_eq!(guest.call(Call::ClockTimeGet, &[1, 0, OUT.into()]), Errno::Success);
    assert!(guest.u64(OUT) >= first);
}

#[test]
fn a_torn_append_is_completed_once() {
    let before = b"this is rw/file\n";
    for torn in [&b""[..], b"l", b"line", b"line\n"] {
        let mut world = World::new();
        std::fs::write(world.path("rw/file"), [before, torn].concat()).unwrap();
        let append = file(5, "file", 16, rights::FD_WRITE, fdflags::APPEND);
        let torn = TornAppend { mount: 0, path: b"file".to_vec(), size: 16 };
        let taken = Restored { torn_appends: vec![torn], ..restored(vec![append]) };
        world.guest.host.restore(taken).unwrap();
        assert_eq!(world.guest.write(5, b"line\n"), Ok(5));
        assert_eq!(world.guest.write(5, b"line\n"), Ok(5));
        assert_eq!(std::fs::read(world.path("rw/file")).unwrap(), b"this is rw/file\nline\nline\n");
    }
}

#[test]
fn a_tail_that_is_another_is_left_alone() {
    let mut world = World::new();
    std::fs::write(world.path("rw/file"), "other").unwrap();
    let append = file(5, "file", 0, rights::FD_WRITE, fdflags::APPEND);
    let torn = TornAppend { mount: 0, path: b"file".to_vec(), size: 0 };
    let taken = Restored { torn_appends: vec![torn], ..restored(vec![append]) };
    world.guest.host.restore(taken).unwrap();
    assert_eq!(world.guest.write(5, b"line\n"), Ok(5));
    assert_eq!(std::fs::read(world.path("rw/file")).unwrap(), b"otherline\n");
}

/// A world whose next call took effect before the process died.
fn interrupted(first_call: FirstCall) -> World {
    let mut world = World::new();
    let mount = Descriptor {
        fd: 3,
        kind: DescriptorKind::Mount { mount: 0 },
        rights_base: ALL,
        rights_inheriting: ALL,
        flags: 0,
    };
    world.guest.host.restore(Restored { first_call, ..restored(vec![mount]) }).unwrap();
    world
}

#[test]
fn a_call_that_is_done_is_not_done_again() {
    type Interrupted = (&'static str, fn(&mut Guest) -> Errno);
    let calls: [Interrupted; 6] = [
        ("mkdir", |guest| guest.at(Call::PathCreateDirectory, RW, b"dir")),
        ("symlink", |guest| guest.symlink(b"x", RW, b"file")),
        ("link", |guest| guest.link((RW, b"dir/inner"), (RW, b"file"))),
        ("rename", |guest| guest.rename((RW, b"gone"), (RW, b"file"))),
        ("unlink", |guest| guest.at(Call::PathUnlinkFile, RW, b"gone")),
        ("rmdir", |guest| guest.at(Call::PathRemoveDirectory, RW, b"gone")),
    ];
    for (name, call) in calls {
        let mut world = interrupted(FirstCall::AlreadyDone);
        let before = world.snapshot();
        assert_eq!(call(&mut world.guest), Errno::Success, "{name}");
        assert_eq!(world.snapshot(), before, "{name}");
        assert_ne!(call(&mut world.guest), Errno::Success, "only the first call: {name}");
        let mut world = interrupted(FirstCall::Redo);
        assert_ne!(call(&mut world.guest), Errno::Success, "{name}");
    }
}

#[test]
fn a_file_that_was_made_is_opened() {
    let excl = oflags::CREAT | oflags::EXCL;
    let mut world = interrupted(FirstCall::AlreadyCreated);
    assert!(world.guest.open_with(RW, "file", excl, (ALL, 0), 0).is_ok());
    assert_eq!(world.guest.open_with(RW, "file", excl, (ALL, 0), 0), Err(Errno::Exist));
}
