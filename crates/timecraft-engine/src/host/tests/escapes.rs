//! Attempts to leave a mount: each row of the table of path vulnerabilities that other hosts have had, and more.

use super::*;

/// A world with links that lead out of `rw`.
fn world() -> World {
    let world = World::new();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, world.path(name)).unwrap();
    link("../secret", "rw/out");
    link("../new", "rw/out_new");
    link(world.path("secret").to_str().unwrap(), "rw/absolute");
    link("..", "rw/up");
    link("../", "rw/up_slash");
    link("/", "rw/root");
    link("/proc/self/root", "rw/proc");
    link("/proc/self/fd", "rw/fds");
    link("up", "rw/chain");
    link("../file", "rw/dir/within");
    link("loop", "rw/loop");
    world
}

const OUTSIDE: &[&str] = &[
    "..",
    "../",
    "../.",
    "../secret",
    "./../secret",
    "dir/../../secret",
    "dir/../..",
    "..//secret",
    "/",
    "//",
    "/etc/passwd",
    "/proc/self/root",
    "out",
    "out/",
    "absolute",
    "absolute/",
    "up",
    "up/",
    "up/.",
    "up/..",
    "up/secret",
    "up//secret",
    "up_slash",
    "up_slash/",
    "up_slash/secret",
    "root",
    "root/",
    "root/etc/passwd",
    "proc",
    "proc/etc/passwd",
    "fds/0",
    "chain/secret",
    "chain/",
    "file/../../secret",
    "dir/within/../../secret",
];

#[test]
fn no_path_leads_out() {
    let mut world = world();
    let before = world.snapshot();
    let secret = std::fs::canonicalize(world.path("secret")).unwrap();
    let mut paths: Vec<String> = OUTSIDE.iter().map(|path| (*path).to_owned()).collect();
    paths.push(secret.to_str().unwrap().to_owned());
    paths.push("../".repeat(64) + "etc/passwd");
    let guest = &mut world.guest;
    for path in &paths {
        let bytes = path.as_bytes();
        for flags in [0, oflags::TRUNC, oflags::CREAT, oflags::DIRECTORY] {
            for rights in [0, rights::FD_READ, rights::FD_WRITE] {
                assert!(guest.open_with(RW, path, flags, (rights, 0), 0).is_err(), "open {path} {flags} {rights}");
            }
        }
        assert_ne!(guest.stat(RW, FOLLOW, bytes), Errno::Success, "stat {path}");
        assert_ne!(guest.set_times(RW, bytes), Errno::Success, "set times of {path}");
        assert_ne!(guest.link_with(FOLLOW, (RW, bytes), (RW, b"stolen")), Errno::Success, "link {path}");
    }
    assert_eq!(world.snapshot(), before);
}

#[test]
fn escapes_are_eperm() {
    let mut world = world();
    for path in ["..", "../secret", "/etc/passwd", "out", "up/secret", "absolute", "root", "dir/../../secret"] {
        assert_eq!(world.guest.open(RW, path), Err(Errno::Perm), "{path}");
    }
}

#[test]
fn nothing_is_made_or_removed_outside() {
    let mut world = world();
    let before = world.snapshot();
    let guest = &mut world.guest;
    for parent in ["..", "up", "up/", "up_slash", "chain", "dir/../..", "root/tmp", "/tmp"] {
        let new = format!("{parent}/new").into_bytes();
        let secret = format!("{parent}/secret").into_bytes();
        let rw = format!("{parent}/rw").into_bytes();
        assert_ne!(guest.at(Call::PathCreateDirectory, RW, &new), Errno::Success);
        assert_ne!(guest.symlink(b"file", RW, &new), Errno::Success);
        assert_ne!(guest.link((RW, b"file"), (RW, &new)), Errno::Success);
        assert_ne!(guest.link((RW, &secret), (RW, b"stolen")), Errno::Success);
        assert_ne!(guest.rename((RW, b"file"), (RW, &new)), Errno::Success);
        assert_ne!(guest.rename((RW, &secret), (RW, b"stolen")), Errno::Success);
        assert_ne!(guest.at(Call::PathUnlinkFile, RW, &secret), Errno::Success);
        assert_ne!(guest.at(Call::PathRemoveDirectory, RW, &rw), Errno::Success);
        assert!(guest.readlink(RW, &secret).is_err());
    }
    assert_eq!(world.snapshot(), before);
}

/// CVE-2024-38358: a symlink that points outside was followed when a file was to be made.
#[test]
fn creating_does_not_follow_out() {
    let mut world = world();
    let before = world.snapshot();
    for name in ["out_new", "out_new/", "out", "absolute"] {
        for flags in [oflags::CREAT, oflags::CREAT | oflags::TRUNC, oflags::CREAT | oflags::EXCL] {
            for lookup in [0, FOLLOW] {
                let opened = world.guest.open_at(RW, lookup, name.as_bytes(), flags, (ALL, 0), fdflags::APPEND);
                assert!(opened.is_err(), "{name} {flags} {lookup}");
            }
        }
    }
    assert_eq!(world.snapshot(), before);
}

/// The same, through links that the guest has made itself.
#[test]
fn a_link_of_the_guest_own_leads_nowhere() {
    let mut world = world();
    let guest = &mut world.guest;
    assert_eq!(guest.symlink(b"../secret", RW, b"mine"), Errno::Success);
    assert_eq!(guest.symlink(b"..", RW, b"dir/mine"), Errno::Success);
    assert_eq!(guest.symlink(b"/etc/passwd", RW, b"never"), Errno::Perm);
    for path in ["mine", "mine/", "dir/mine/../secret", "dir/mine/../../secret"] {
        assert!(guest.open(RW, path).is_err(), "{path}");
    }
    assert_eq!(guest.open(RW, "dir/mine/file").map(drop), Ok(()));
}

/// RUSTSEC-2026-0269: a slash behind a path or a symlink had it followed.
#[test]
fn a_trailing_slash_follows_nothing_out() {
    let mut world = world();
    let before = world.snapshot();
    let guest = &mut world.guest;
    for path in ["up/", "up//", "up/.", "up_slash/", "up_slash//", "chain/", "root/", "out/", "out_new/"] {
        let bytes = path.as_bytes();
        assert_eq!(guest.open(RW, path), Err(Errno::Perm), "open {path}");
        assert_eq!(guest.stat(RW, 0, bytes), Errno::Perm, "stat {path}");
        assert_eq!(guest.readlink(RW, bytes), Err(Errno::Perm), "readlink {path}");
        assert_eq!(guest.link((RW, bytes), (RW, b"stolen")), Errno::Perm, "link {path}");
        assert_ne!(guest.link((RW, b"file"), (RW, bytes)), Errno::Success, "link to {path}");
        assert_ne!(guest.symlink(b"file", RW, bytes), Errno::Success, "symlink {path}");
        assert_ne!(guest.at(Call::PathUnlinkFile, RW, bytes), Errno::Success, "unlink {path}");
        assert_ne!(guest.at(Call::PathRemoveDirectory, RW, bytes), Errno::Success, "rmdir {path}");
        assert_ne!(guest.at(Call::PathCreateDirectory, RW, bytes), Errno::Success, "mkdir {path}");
        assert_ne!(guest.rename((RW, b"empty"), (RW, bytes)), Errno::Success, "rename to {path}");
        assert_ne!(guest.rename((RW, bytes), (RW, b"new")), Errno::Success, "rename {path}");
    }
    assert_eq!(world.snapshot(), before);
}

#[test]
fn odd_paths_have_their_errors() {
    let mut world = world();
    let guest = &mut world.guest;
    for (path, errno) in [
        (&b""[..], Errno::Noent),
        (b"\0", Errno::Inval),
        (b"file\0", Errno::Inval),
        (b"fi\0le", Errno::Inval),
        (b"\xff\xfe", Errno::Ilseq),
        (b"file/", Errno::Notdir),
        (b"file///", Errno::Notdir),
        (b"file/.", Errno::Notdir),
        (b"file/..", Errno::Notdir),
        (b"missing", Errno::Noent),
        (b"missing/..", Errno::Noent),
        (b"loop", Errno::Loop),
        (b"loop/x", Errno::Loop),
        (&[b'a'; 256], Errno::Nametoolong),
    ] {
        assert_eq!(guest.open_at(RW, FOLLOW, path, 0, (0, 0), 0), Err(errno), "{path:?}");
        assert_eq!(guest.stat(RW, FOLLOW, path), errno, "{path:?}");
    }
    for path in ["dir/.//../dir/./inner", "dir/../file", "dir/within", "./file", "dir/..", ".", "./"] {
        assert!(guest.open(RW, path).is_ok(), "{path}");
    }
    for (path, errno) in [("new/", Errno::Isdir), (".", Errno::Isdir), ("dir/", Errno::Isdir), ("new/.", Errno::Noent)]
    {
        assert_eq!(guest.create(RW, path), Err(errno), "{path}");
    }
    for (path, errno) in [(".", Errno::Inval), ("..", Errno::Notempty), ("dir/..", Errno::Notempty)] {
        assert_eq!(guest.at(Call::PathRemoveDirectory, RW, path.as_bytes()), errno, "{path}");
        assert_eq!(guest.at(Call::PathUnlinkFile, RW, path.as_bytes()), Errno::Isdir, "{path}");
        assert_eq!(guest.rename((RW, path.as_bytes()), (RW, b"new")), Errno::Busy, "{path}");
        assert_eq!(guest.at(Call::PathCreateDirectory, RW, path.as_bytes()), Errno::Exist, "{path}");
    }
}

/// Wasmer #4267, #3522: the working directory was mounted by default, or the root by any mount.
#[test]
fn without_a_mount_nothing_is_reachable() {
    let mut guest = Guest::new(HostConfig::default());
    for dir in 0..64 {
        let opened = guest.open(dir, ".");
        assert!(matches!(opened, Err(Errno::Badf | Errno::Notdir)), "{dir} {opened:?}");
    }
}

#[test]
fn a_directory_is_as_far_as_its_paths_go() {
    let mut world = world();
    let guest = &mut world.guest;
    let dir = guest.open(RW, "dir").unwrap();
    assert_eq!(guest.open(dir, "../file"), Err(Errno::Perm));
    assert_eq!(guest.open(dir, "within"), Err(Errno::Perm));
    assert_eq!(guest.open(dir, ".."), Err(Errno::Perm));
    // Moved up, its dot-dot must still stop at itself.
    assert_eq!(guest.at(Call::PathCreateDirectory, RW, b"dir/deep"), Errno::Success);
    let deep = guest.open(RW, "dir/deep").unwrap();
    assert_eq!(guest.rename((RW, b"dir/deep"), (RW, b"deep")), Errno::Success);
    for path in ["../secret", "../../secret", "..", "../.."] {
        assert_eq!(guest.open(deep, path), Err(Errno::Perm), "{path}");
    }
}

#[test]
fn special_files_are_not_opened() {
    let mut world = world();
    let fifo = std::ffi::CString::new(world.path("rw/fifo").to_str().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(world.path("rw/socket")).unwrap();
    for name in ["fifo", "socket"] {
        for rights in [rights::FD_READ, rights::FD_WRITE, ALL] {
            assert_eq!(world.guest.open_with(RW, name, 0, (rights, 0), 0), Err(Errno::Nxio), "{name}");
        }
        assert_eq!(world.guest.stat(RW, 0, name.as_bytes()), Errno::Success);
    }
    drop(socket);
    let devices = Mount { host: "/dev".into(), guest: "/dev".into(), read_only: false, immutable: false };
    let mut guest = Guest::new(HostConfig { mounts: vec![devices], ..HostConfig::default() });
    let null = guest.open_with(3, "null", 0, (ALL, 0), 0).unwrap();
    assert_eq!((guest.write(null, b"gone"), guest.read(null, 10)), (Ok(4), Ok(vec![])));
    for device in ["tty", "kmsg", "mem", "ptmx", "console"] {
        assert!(guest.open(3, device).is_err(), "{device}");
    }
}
