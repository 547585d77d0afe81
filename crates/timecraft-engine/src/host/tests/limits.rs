//! Limits that a guest runs into.

use super::*;

#[test]
fn open_files_are_limited() {
    let mut world = World::with(|config| config.limits.open_files = 7);
    let guest = &mut world.guest;
    assert_eq!((guest.open(RW, "file"), guest.open(RW, "dir")), (Ok(5), Ok(6)));
    assert_eq!(guest.create(RW, "new"), Err(Errno::Mfile));
    assert_eq!(guest.close(2), Errno::Success);
    assert_eq!(guest.open(RW, "file"), Ok(2));
    assert_eq!(guest.call(Call::FdRenumber, &[5, 6]), Errno::Success);
    assert_eq!((guest.open(RW, "file"), guest.open(RW, "file")), (Ok(5), Err(Errno::Mfile)));
    assert!(!world.path("rw/new").exists(), "refused after the file was made");
}

#[test]
fn a_limit_below_what_the_mounts_take_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mount = Mount { host: folder.path().into(), guest: "/".into(), read_only: false, immutable: false };
    let mut config = HostConfig { mounts: vec![mount], ..HostConfig::default() };
    config.limits.open_files = 3;
    let error = Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "open files: the limit of 3 is below the 4 that streams, mounts and sockets take: raise it"
    );
}

#[test]
fn arguments_and_environment_fit_into_a_record_each() {
    let host = |config: HostConfig| Host::new(config, Arc::new(KillSwitch::new().unwrap()));
    let longest = timecraft_log::RECORD_BYTES_MAX - 4096 - 4 - 1;
    for (len, fits) in [(longest, true), (longest + 1, false)] {
        let text = vec![b'x'; len];
        let errors = [
            host(HostConfig { args: vec![text.clone()], ..HostConfig::default() }).err(),
            host(HostConfig { env: vec![text], ..HostConfig::default() }).err(),
        ];
        assert!(errors.iter().all(|error| error.is_none() == fits), "{len}: {errors:?}");
    }
    // Short strings cost their pointers.
    let many = host(HostConfig { args: vec![Vec::new(); 1 << 20], ..HostConfig::default() }).unwrap_err();
    assert_eq!(many.to_string(), "argument: 5242880 bytes, the limit is 4190208 bytes: pass less, or a file");
}

#[test]
fn growth_of_files_is_limited() {
    let mut world = World::with(|config| config.limits.disk_bytes = Some(100));
    let guest = &mut world.guest;
    let fd = guest.create(RW, "new").unwrap();
    assert_eq!(guest.write(fd, &[1; 101]), Err(Errno::Dquot));
    assert_eq!(guest.write(fd, &[1; 60]), Ok(60));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, &[2; 60]), Ok(60), "overwriting is no growth");
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[fd, 101]), Errno::Dquot);
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[fd, 70]), Errno::Success);
    assert_eq!(guest.call(Call::FdAllocate, &[fd, 70, 31]), Errno::Dquot);
    assert_eq!(guest.call(Call::FdAllocate, &[fd, 0, 80]), Errno::Success);
    let data = guest.put(&[3; 10]);
    let (list, count) = guest.iovecs(&[data]);
    assert_eq!(guest.call(Call::FdPwrite, &[fd, list, count, 1 << 40, OUT.into()]), Errno::Dquot);
    assert_eq!(guest.call(Call::FdPwrite, &[fd, list, count, 80, OUT.into()]), Errno::Success);
    let append = guest.open_with(RW, "new", 0, (rights::FD_WRITE, 0), fdflags::APPEND).unwrap();
    assert_eq!(guest.write(append, &[4; 11]), Err(Errno::Dquot));
    assert_eq!(guest.write(append, &[4; 10]), Ok(10));
    assert_eq!(guest.at(Call::PathUnlinkFile, RW, b"new"), Errno::Success);
    let again = guest.create(RW, "again").unwrap();
    assert_eq!(guest.write(again, b"x"), Err(Errno::Dquot), "what is removed does not come back");
    assert_eq!(guest.write(1, &[0; 1000]), Ok(1000), "streams are no files");
}
