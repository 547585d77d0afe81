//! Rights: what a descriptor may do, which can only become less.

use super::*;

#[test]
fn rights_only_shrink() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let some = rights::FD_READ | rights::FD_SEEK;
    let fd = guest.open_with(RW, "file", 0, (some, 0), 0).unwrap();
    let set = |guest: &mut Guest, base, inheriting| guest.call(Call::FdFdstatSetRights, &[fd, base, inheriting]);
    assert_eq!(set(guest, some | rights::FD_WRITE, 0), Errno::Notcapable);
    assert_eq!(set(guest, some, rights::FD_READ), Errno::Notcapable);
    assert_eq!(set(guest, u64::MAX, 0), Errno::Notcapable);
    assert_eq!(set(guest, rights::FD_READ, 0), Errno::Success);
    assert_eq!(set(guest, some, 0), Errno::Notcapable);
    assert_eq!(guest.call(Call::FdFdstatGet, &[fd, OUT.into()]), Errno::Success);
    assert_eq!((guest.u64(OUT + 8), guest.u64(OUT + 16)), (rights::FD_READ, 0));
}

#[test]
fn files_do_nothing_without_the_right() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.open_with(RW, "file", 0, (0, 0), 0).unwrap();
    assert_eq!(guest.read(fd, 1), Err(Errno::Badf));
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Badf));
    for (call, args) in [
        (Call::FdSeek, vec![fd, 1, 0, OUT.into()]),
        (Call::FdTell, vec![fd, OUT.into()]),
        (Call::FdAdvise, vec![fd, 0, 1, 0]),
        (Call::FdAllocate, vec![fd, 0, 1]),
        (Call::FdSync, vec![fd]),
        (Call::FdDatasync, vec![fd]),
        (Call::FdFdstatSetFlags, vec![fd, 0]),
        (Call::FdFilestatGet, vec![fd, OUT.into()]),
        (Call::FdFilestatSetSize, vec![fd, 0]),
        (Call::FdFilestatSetTimes, vec![fd, 0, 0, 0]),
    ] {
        assert_eq!(guest.call(call, &args), Errno::Notcapable, "{}", call.name());
    }
    let unseekable = guest.open_with(RW, "file", 0, (rights::FD_READ | rights::FD_TELL, 0), 0).unwrap();
    let (list, count) = guest.iovecs(&[(BUFFER.into(), 4)]);
    assert_eq!(guest.call(Call::FdPread, &[unseekable, list, count, 0, OUT.into()]), Errno::Notcapable);
    assert_eq!(guest.seek(unseekable, 0, 1), Ok(0), "asking for the position needs the lesser right");
    assert_eq!(guest.seek(unseekable, 0, 0), Err(Errno::Notcapable));
    assert_eq!(guest.close(fd), Errno::Success);
}

#[test]
fn directories_do_nothing_without_the_right() {
    let mut world = World::new();
    let before = world.snapshot();
    let guest = &mut world.guest;
    let dir = guest.open_with(RW, "dir", oflags::DIRECTORY, (0, ALL), 0).unwrap();
    let full = guest.open_with(RW, "dir", oflags::DIRECTORY, (ALL & !rights::FD_WRITE, ALL), 0).unwrap();
    assert_eq!(guest.open(dir, "inner"), Err(Errno::Notcapable));
    assert_eq!(guest.at(Call::PathCreateDirectory, dir, b"x"), Errno::Notcapable);
    assert_eq!(guest.at(Call::PathRemoveDirectory, dir, b"x"), Errno::Notcapable);
    assert_eq!(guest.at(Call::PathUnlinkFile, dir, b"inner"), Errno::Notcapable);
    assert_eq!(guest.symlink(b"x", dir, b"x"), Errno::Notcapable);
    assert_eq!(guest.readlink(dir, b"inner"), Err(Errno::Notcapable));
    assert_eq!(guest.stat(dir, 0, b"inner"), Errno::Notcapable);
    assert_eq!(guest.set_times(dir, b"inner"), Errno::Notcapable);
    for (old, new) in [(dir, full), (full, dir)] {
        assert_eq!(guest.link((old, b"inner"), (new, b"x")), Errno::Notcapable);
        assert_eq!(guest.rename((old, b"inner"), (new, b"x")), Errno::Notcapable);
    }
    let args = [dir, BUFFER.into(), 100, 0, OUT.into()];
    assert_eq!(guest.call(Call::FdReaddir, &args), Errno::Notcapable);
    let args = [dir, 0, 0, 5];
    assert_eq!(guest.call(Call::FdFilestatSetTimes, &args), Errno::Notcapable);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn what_is_opened_inherits() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let base = rights::PATH_OPEN | rights::FD_READDIR;
    let dir = guest.open_with(RW, "dir", oflags::DIRECTORY, (base, rights::FD_READ), 0).unwrap();
    assert_eq!(guest.open_with(dir, "inner", 0, (ALL, 0), 0), Err(Errno::Notcapable));
    assert_eq!(guest.open_with(dir, "inner", 0, (0, ALL), 0), Err(Errno::Notcapable));
    assert_eq!(guest.open_with(dir, "new", oflags::CREAT, (0, 0), 0), Err(Errno::Notcapable));
    assert_eq!(guest.open_with(dir, "inner", oflags::TRUNC, (0, 0), 0), Err(Errno::Perm));
    let fd = guest.open_with(dir, "inner", 0, (rights::FD_READ, 0), 0).unwrap();
    assert_eq!(guest.read(fd, 4), Ok(b"this".to_vec()));
    // Bits that preview 1 doesn't define are ignored: Go asks for all 32.
    assert!(guest.open_with(RW, "file", 0, (u64::from(u32::MAX), u64::MAX), 0).is_ok());
    // A type has only the rights that make sense for it.
    let info = guest.host.descriptors();
    let of = |fd: u64| info.iter().find(|info| u64::from(info.fd) == fd).unwrap();
    assert_eq!((of(dir).rights_base, of(dir).rights_inheriting), (base, rights::FD_READ));
    let fd = guest.open_with(RW, "file", 0, (ALL, ALL), 0).unwrap();
    let info = guest.host.descriptors();
    let of = |fd: u64| info.iter().find(|info| u64::from(info.fd) == fd).unwrap();
    assert_eq!(of(fd).rights_base & (rights::PATH_OPEN | rights::FD_READDIR | rights::SOCK_ACCEPT), 0);
    assert_eq!(of(fd).rights_inheriting, 0);
    assert_eq!(of(RW).rights_base & (rights::FD_READ | rights::FD_SEEK | rights::FD_FILESTAT_SET_SIZE), 0);
}
