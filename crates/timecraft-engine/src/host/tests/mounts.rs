//! Read-only mounts, and what passes between mounts.

use super::*;
use crate::abi::filetype;
use crate::host::HostLimits;

#[test]
fn a_read_only_mount_is_read_only() {
    let mut world = World::new();
    std::os::unix::fs::symlink("file", world.path("ro/link")).unwrap();
    let before = world.snapshot();
    let guest = &mut world.guest;
    for path in ["file", "link", "dir/../file", "missing"] {
        for (flags, rights, fdflags) in [
            (0, rights::FD_WRITE, 0),
            (0, ALL, 0),
            (0, rights::FD_WRITE, fdflags::APPEND),
            (oflags::TRUNC, 0, 0),
            (oflags::TRUNC, rights::FD_READ, 0),
            (oflags::CREAT, 0, 0),
            (oflags::CREAT | oflags::EXCL, rights::FD_READ, 0),
        ] {
            assert_eq!(guest.open_with(RO, path, flags, (rights, 0), fdflags), Err(Errno::Rofs), "{path}");
        }
    }
    assert_eq!(guest.at(Call::PathCreateDirectory, RO, b"new"), Errno::Rofs);
    assert_eq!(guest.at(Call::PathRemoveDirectory, RO, b"dir"), Errno::Rofs);
    assert_eq!(guest.at(Call::PathUnlinkFile, RO, b"file"), Errno::Rofs);
    assert_eq!(guest.symlink(b"file", RO, b"new"), Errno::Rofs);
    assert_eq!(guest.set_times(RO, b"file"), Errno::Rofs);
    assert_eq!(guest.link((RO, b"file"), (RO, b"new")), Errno::Rofs);
    assert_eq!(guest.rename((RO, b"file"), (RO, b"new")), Errno::Rofs);
    let fd = guest.open(RO, "file").unwrap();
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Badf));
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[fd, 0]), Errno::Rofs);
    assert_eq!(guest.call(Call::FdAllocate, &[fd, 0, 100]), Errno::Rofs);
    assert_eq!(guest.call(Call::FdFilestatSetTimes, &[fd, 1, 1, 5]), Errno::Rofs);
    let dir = guest.open(RO, "dir").unwrap();
    assert_eq!(guest.call(Call::FdFilestatSetTimes, &[dir, 1, 1, 5]), Errno::Rofs);
    assert_eq!(guest.create(dir, "new"), Err(Errno::Rofs));
    assert_eq!(guest.read(fd, 100), Ok(b"this is ro/file\n".to_vec()));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn an_immutable_mount_is_read_only_whatever_else_is_said() {
    let world = World::new();
    let mount = Mount { host: world.path("rw"), guest: "/lib".into(), read_only: false, immutable: true };
    let mut guest = Guest::new(HostConfig { mounts: vec![mount], ..HostConfig::default() });
    assert_eq!(guest.create(RW, "new"), Err(Errno::Rofs));
    assert_eq!(guest.open_with(RW, "file", 0, (rights::FD_WRITE, 0), 0), Err(Errno::Rofs));
    assert!(guest.open(RW, "file").is_ok());
}

/// RUSTSEC-2026-0188: a read-only file was linked or moved to where it could be written.
#[test]
fn nothing_passes_between_unequal_mounts() {
    let mut world = World::new();
    let before = world.snapshot();
    let guest = &mut world.guest;
    for (from, to) in [(RO, RW), (RW, RO)] {
        assert_eq!(guest.link((from, b"file"), (to, b"stolen")), Errno::Rofs);
        assert_eq!(guest.link_with(FOLLOW, (from, b"file"), (to, b"stolen")), Errno::Inval);
        assert_eq!(guest.rename((from, b"file"), (to, b"stolen")), Errno::Rofs);
    }
    // Renumbering moves a descriptor, never its rights.
    let (read, write) = (guest.open(RO, "file").unwrap(), guest.create(RW, "file").unwrap());
    assert_eq!(guest.call(Call::FdRenumber, &[read, write]), Errno::Success);
    assert_eq!(guest.write(write, b"x"), Err(Errno::Badf));
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[write, 0]), Errno::Rofs);
    assert_eq!(guest.call(Call::FdRenumber, &[RO, RW]), Errno::Success);
    assert_eq!(guest.create(RW, "new"), Err(Errno::Rofs));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn files_pass_between_equal_mounts_but_to_no_more_rights() {
    let mut world = World::with(|config| config.mounts[1].read_only = false);
    let guest = &mut world.guest;
    assert_eq!(guest.link((RO, b"file"), (RW, b"linked")), Errno::Success);
    assert_eq!(guest.rename((RO, b"file"), (RW, b"moved")), Errno::Success);
    assert_eq!(guest.call(Call::FdFdstatSetRights, &[RO, ALL & 0x7fd_fff8, rights::FD_READ]), Errno::Notcapable);
    let base = guest.host.descriptors()[4].rights_base;
    assert_eq!(guest.call(Call::FdFdstatSetRights, &[RO, base, rights::FD_READ]), Errno::Success);
    assert_eq!(guest.rename((RO, b"dir"), (RW, b"gained")), Errno::Xdev);
    assert_eq!(guest.link((RO, b"dir/inner"), (RW, b"gained")), Errno::Xdev);
    assert_eq!(guest.rename((RW, b"moved"), (RO, b"lowered")), Errno::Success);
}

fn mounted(host: PathBuf) -> Vec<Mount> {
    vec![Mount { host, guest: "/dev/null".into(), read_only: false, immutable: false }]
}

#[test]
fn the_null_device_can_be_mounted() {
    let limits = HostLimits { disk_bytes: Some(9), ..HostLimits::default() };
    let mounts = mounted("/dev/null".into());
    let mut guest = Guest::new(HostConfig { mounts, limits, ..HostConfig::default() });
    let before = std::fs::metadata("/dev/null").unwrap().modified().unwrap();
    for flags in [0, oflags::CREAT | oflags::TRUNC] {
        let fd = guest.open_with(RW, ".", flags, (ALL, ALL), 0).unwrap();
        assert_eq!(guest.host.descriptors()[fd as usize].filetype, filetype::CHARACTER_DEVICE);
        assert_eq!((guest.write(fd, b"more than the disk"), guest.read(fd, 9)), (Ok(18), Ok(vec![])));
        assert_eq!(guest.call(Call::FdFilestatSetTimes, &[fd, 1, 1, 5]), Errno::Perm);
        assert_eq!(guest.close(fd), Errno::Success);
    }
    for follow in [0, FOLLOW] {
        assert_eq!(guest.stat(RW, follow, b"."), Errno::Success);
        assert_eq!(guest.memory[OUT as usize + 16], filetype::CHARACTER_DEVICE);
    }
    assert_eq!(guest.set_times(RW, b"."), Errno::Perm);
    // It is no way to anywhere.
    for path in ["..", "../zero", "zero", "./zero", "./", "./.", "../null"] {
        assert_eq!(guest.open(RW, path), Err(Errno::Notdir), "{path}");
        assert_eq!(guest.stat(RW, 0, path.as_bytes()), Errno::Notdir, "{path}");
        assert_eq!(guest.at(Call::PathCreateDirectory, RW, path.as_bytes()), Errno::Notdir, "{path}");
        assert_eq!(guest.at(Call::PathUnlinkFile, RW, path.as_bytes()), Errno::Notdir, "{path}");
        assert_eq!(guest.rename((RW, b"."), (RW, path.as_bytes())), Errno::Notdir, "{path}");
        assert_eq!(guest.link((RW, b"."), (RW, path.as_bytes())), Errno::Notdir, "{path}");
        assert_eq!(guest.symlink(b"x", RW, path.as_bytes()), Errno::Notdir, "{path}");
    }
    assert_eq!(guest.open_with(RW, ".", oflags::DIRECTORY, (0, 0), 0), Err(Errno::Notdir));
    assert_eq!(guest.call(Call::FdReaddir, &[RW, BUFFER.into(), 99, 0, OUT.into()]), Errno::Badf);
    assert_eq!(std::fs::metadata("/dev/null").unwrap().modified().unwrap(), before);
}

#[test]
fn no_other_device_or_file_can_be_mounted() {
    let world = World::new();
    for host in ["/dev/zero".into(), "/dev/tty".into(), world.path("rw/file")] {
        let config = HostConfig { mounts: mounted(host), ..HostConfig::default() };
        let refused = Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap_err();
        assert!(refused.to_string().contains("not a directory"), "{refused}");
    }
}
