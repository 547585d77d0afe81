//! Files: contents, positions, sizes, times, flags, the table.

use super::*;

const SET: u64 = 0;
const CUR: u64 = 1;
const END: u64 = 2;

#[test]
fn what_is_written_is_read() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.create(RW, "new").unwrap();
    assert_eq!(guest.write(fd, b"0123456789"), Ok(10));
    assert_eq!(guest.seek(fd, -4, END), Ok(6));
    assert_eq!(guest.read(fd, 100), Ok(b"6789".to_vec()));
    assert_eq!(guest.read(fd, 100), Ok(vec![]));
    assert_eq!(guest.seek(fd, 100, SET), Ok(100));
    assert_eq!(guest.seek(fd, -101, CUR), Err(Errno::Inval));
    assert_eq!(guest.call(Call::FdTell, &[fd, OUT.into()]), Errno::Success);
    assert_eq!(guest.u64(OUT), 100);
    assert_eq!(std::fs::read(world.path("rw/new")).unwrap(), b"0123456789");
}

#[test]
fn lists_of_buffers_are_gathered_and_scattered() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.create(RW, "new").unwrap();
    let parts = [guest.put(b"ab"), guest.put(b""), guest.put(b"cde"), guest.put(b"f")];
    let (list, count) = guest.iovecs(&parts);
    assert_eq!(guest.call(Call::FdWrite, &[fd, list, count, OUT.into()]), Errno::Success);
    assert_eq!(guest.u32(OUT), 6);
    let base = u64::from(BUFFER);
    let (list, count) = guest.iovecs(&[(base, 1), (base + 8, 0), (base + 16, 3), (base + 24, 100)]);
    assert_eq!(guest.call(Call::FdPread, &[fd, list, count, 1, OUT.into()]), Errno::Success);
    assert_eq!(guest.u32(OUT), 5);
    let mut expected = [POISON; 32];
    (expected[0], expected[24]) = (b'b', b'f');
    expected[16..19].copy_from_slice(b"cde");
    assert_eq!(guest.buffer(32), expected);
    let (list, count) = guest.iovecs(&[]);
    assert_eq!(guest.call(Call::FdWrite, &[fd, list, count, OUT.into()]), Errno::Success);
    assert_eq!(guest.u32(OUT), 0);
    assert_eq!(guest.call(Call::FdRead, &[fd, list, count, OUT.into()]), Errno::Success);
}

#[test]
fn inputs_are_noted_for_the_record() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let parts = [guest.put(b"ab"), guest.put(b"cd")];
    let (list, count) = guest.iovecs(&parts);
    assert_eq!(guest.call(Call::FdWrite, &[1, list, count, OUT.into()]), Errno::Success);
    let mut notes = std::mem::take(&mut guest.notes);
    let mut memory = Memory::new(&mut guest.memory, &mut notes);
    guest.host.call(Call::FdWrite, &[1, list, count, OUT.into()], &mut memory).unwrap();
    let inputs: Vec<_> = memory.inputs().map(|(ptr, bytes)| (u64::from(ptr), bytes.len())).collect();
    assert_eq!(inputs, [(list, 16), (parts[0].0, 2), (parts[1].0, 2)]);
    assert_eq!(memory.written().collect::<Vec<_>>(), [(OUT, 4u32.to_le_bytes().as_slice())]);
}

#[test]
fn appending_is_at_the_end() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.open_with(RW, "log", oflags::CREAT, (ALL, 0), fdflags::APPEND).unwrap();
    assert_eq!(guest.write(fd, b"one"), Ok(3));
    assert_eq!(guest.seek(fd, 0, SET), Ok(0));
    assert_eq!(guest.write(fd, b"two"), Ok(3));
    let data = guest.put(b"X");
    let (list, count) = guest.iovecs(&[data]);
    assert_eq!(guest.call(Call::FdPwrite, &[fd, list, count, 1, OUT.into()]), Errno::Success);
    assert_eq!(guest.write(fd, b"three"), Ok(5));
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[fd, 0]), Errno::Success);
    assert_eq!(guest.seek(fd, 0, SET), Ok(0));
    assert_eq!(guest.write(fd, b"O"), Ok(1));
    assert_eq!(std::fs::read(world.path("rw/log")).unwrap(), b"OXetwothree");
}

#[test]
fn flags_are_kept_and_changed() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let flags = fdflags::APPEND | fdflags::SYNC;
    let fd = guest.open_with(RW, "log", oflags::CREAT, (ALL, 0), flags).unwrap();
    assert_eq!(guest.call(Call::FdFdstatGet, &[fd, OUT.into()]), Errno::Success);
    assert_eq!(guest.u32(OUT), 4 | u32::from(flags) << 16);
    let set = |guest: &mut Guest, flags: u16| guest.call(Call::FdFdstatSetFlags, &[fd, flags.into()]);
    assert_eq!(set(guest, fdflags::NONBLOCK), Errno::Notsup, "synchronisation can't be changed");
    assert_eq!(set(guest, fdflags::NONBLOCK | fdflags::SYNC), Errno::Success);
    assert_eq!(guest.host.descriptors()[5].flags, fdflags::NONBLOCK | fdflags::SYNC);
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[1, fdflags::APPEND.into()]), Errno::Notsup, "others' too");
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[1, fdflags::NONBLOCK.into()]), Errno::Success);
}

#[test]
fn opening_makes_truncates_and_refuses() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let excl = oflags::CREAT | oflags::EXCL;
    assert_eq!(guest.open_with(RW, "file", excl, (ALL, 0), 0), Err(Errno::Exist));
    assert!(guest.open_with(RW, "new", excl, (0, 0), 0).is_ok());
    assert!(guest.open_with(RW, "file", oflags::TRUNC, (0, 0), 0).is_ok());
    assert_eq!(guest.open_with(RW, "file", oflags::DIRECTORY, (0, 0), 0), Err(Errno::Notdir));
    assert_eq!(guest.open_with(RW, "dir", oflags::DIRECTORY, (rights::FD_WRITE, 0), 0), Err(Errno::Isdir));
    assert_eq!(guest.open_with(RW, "d", oflags::CREAT | oflags::DIRECTORY, (0, 0), 0), Err(Errno::Inval));
    assert_eq!(guest.symlink(b"file", RW, b"link"), Errno::Success);
    assert_eq!(guest.open_at(RW, 0, b"link", 0, (0, 0), 0), Err(Errno::Loop));
    assert_eq!(guest.open_at(RW, 0, b"link", oflags::DIRECTORY, (0, 0), 0), Err(Errno::Notdir));
    assert!(guest.open_at(RW, FOLLOW, b"link", 0, (0, 0), 0).is_ok());
    assert_eq!(guest.open(1, "file"), Err(Errno::Notdir));
    assert_eq!(std::fs::metadata(world.path("rw/file")).unwrap().len(), 0);
}

#[test]
fn directories_are_no_files() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let dir = guest.open(RW, "dir").unwrap();
    assert_eq!(guest.read(dir, 10), Err(Errno::Isdir));
    assert_eq!(guest.write(dir, b"x"), Err(Errno::Badf));
    assert_eq!(guest.seek(dir, 0, CUR), Err(Errno::Badf));
    assert_eq!(guest.call(Call::FdTell, &[dir, OUT.into()]), Errno::Badf);
    assert_eq!(guest.call(Call::FdAllocate, &[dir, 0, 0]), Errno::Badf);
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[dir, 0]), Errno::Badf);
    assert_eq!(guest.call(Call::FdAdvise, &[dir, 0, 0, 0]), Errno::Badf);
    assert_eq!(guest.call(Call::FdSync, &[dir]), Errno::Success);
}

#[test]
fn stats_tell_all_and_leave_no_padding() {
    let mut world = World::new();
    let meta = std::fs::metadata(world.path("rw/file")).unwrap();
    let guest = &mut world.guest;
    let fd = guest.open(RW, "file").unwrap();
    let (ptr, len) = guest.put(b"file");
    for (call, args) in
        [(Call::FdFilestatGet, vec![fd, OUT.into()]), (Call::PathFilestatGet, vec![RW, 0, ptr, len, OUT.into()])]
    {
        guest.memory[OUT as usize..OUT as usize + 64].fill(POISON);
        assert_eq!(guest.call(call, &args), Errno::Success);
        assert_eq!((guest.u64(OUT), guest.u64(OUT + 8)), (meta.dev(), meta.ino()));
        assert_eq!((guest.u64(OUT + 16), guest.u64(OUT + 24), guest.u64(OUT + 32)), (4, 1, meta.len()));
        assert_eq!(guest.u64(OUT + 48), meta.mtime() as u64 * 1_000_000_000 + meta.mtime_nsec() as u64);
        assert_eq!(guest.u64(OUT + 64), u64::from_le_bytes([POISON; 8]));
    }
    assert_eq!(guest.symlink(b"file", RW, b"link"), Errno::Success);
    assert_eq!(guest.stat(RW, 0, b"link"), Errno::Success);
    assert_eq!(guest.u64(OUT + 16), 7);
    assert_eq!(guest.stat(RW, FOLLOW, b"link"), Errno::Success);
    assert_eq!(guest.u64(OUT + 16), 4);
}

#[test]
fn sizes_and_times_are_set() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.create(RW, "new").unwrap();
    assert_eq!(guest.call(Call::FdAllocate, &[fd, 10, 90]), Errno::Success);
    assert_eq!(guest.call(Call::FdAllocate, &[fd, 0, 10]), Errno::Success);
    assert_eq!(guest.call(Call::FdFilestatSetTimes, &[fd, 7, 1_000_000_001, 4]), Errno::Success);
    let (ptr, len) = guest.put(b"new");
    assert_eq!(guest.call(Call::PathFilestatSetTimes, &[RW, 0, ptr, len, 5_000_000_000, 7, 1]), Errno::Success);
    let meta = std::fs::metadata(world.path("rw/new")).unwrap();
    assert_eq!((meta.len(), meta.mtime(), meta.mtime_nsec(), meta.atime()), (100, 1, 1, 5));
    assert_eq!(world.guest.call(Call::FdFilestatSetTimes, &[fd, 0, 0, 8]), Errno::Success);
    assert!(std::fs::metadata(world.path("rw/new")).unwrap().mtime() > 1_000_000_000);
    assert_eq!(world.guest.call(Call::FdFilestatSetSize, &[fd, 3]), Errno::Success);
    assert_eq!(std::fs::metadata(world.path("rw/new")).unwrap().len(), 3);
}

#[test]
fn names_are_made_moved_and_removed() {
    let mut world = World::new();
    let guest = &mut world.guest;
    assert_eq!(guest.at(Call::PathCreateDirectory, RW, b"made/"), Errno::Success);
    assert_eq!(guest.at(Call::PathCreateDirectory, RW, b"made"), Errno::Exist);
    assert_eq!(guest.rename((RW, b"made/"), (RW, b"moved/")), Errno::Success);
    assert_eq!(guest.rename((RW, b"file"), (RW, b"moved/file")), Errno::Success);
    assert_eq!(guest.at(Call::PathRemoveDirectory, RW, b"moved"), Errno::Notempty);
    assert_eq!(guest.at(Call::PathUnlinkFile, RW, b"moved"), Errno::Isdir);
    assert_eq!(guest.at(Call::PathUnlinkFile, RW, b"moved/file/"), Errno::Notdir);
    assert_eq!(guest.at(Call::PathRemoveDirectory, RW, b"moved/file"), Errno::Notdir);
    assert_eq!(guest.link((RW, b"moved/file"), (RW, b"link")), Errno::Success);
    assert_eq!(guest.link((RW, b"moved/file"), (RW, b"link")), Errno::Exist);
    assert_eq!(guest.link((RW, b"moved/file"), (RW, b"other/")), Errno::Noent);
    assert_eq!(guest.link((RW, b"moved/file"), (RW, b"link/")), Errno::Notdir);
    assert_eq!(guest.link((RW, b"moved"), (RW, b"other")), Errno::Perm);
    assert_eq!(guest.symlink(b"x", RW, b"other/"), Errno::Noent);
    assert_eq!(guest.symlink(b"x", RW, b"moved/"), Errno::Exist);
    assert_eq!(guest.symlink(b"x", RW, b"link/"), Errno::Notdir);
    assert_eq!(guest.symlink(b"../dangling", RW, b"sym"), Errno::Success);
    assert_eq!(guest.link((RW, b"sym"), (RW, b"sym2")), Errno::Success);
    assert_eq!(guest.readlink(RW, b"sym2"), Ok(b"../dangling".to_vec()));
    assert_eq!(guest.readlink(RW, b"link"), Err(Errno::Inval));
    let (ptr, len) = guest.put(b"sym");
    let short = [RW, ptr, len, BUFFER.into(), 4, OUT.into()];
    assert_eq!((guest.call(Call::PathReadlink, &short), guest.u32(OUT)), (Errno::Success, 4));
    for path in ["moved/file", "link", "sym", "sym2"] {
        assert_eq!(guest.at(Call::PathUnlinkFile, RW, path.as_bytes()), Errno::Success, "{path}");
    }
    assert_eq!(guest.at(Call::PathRemoveDirectory, RW, b"moved/"), Errno::Success);
    assert_eq!(guest.at(Call::PathUnlinkFile, RW, b"moved"), Errno::Noent);
}

#[test]
fn descriptors_take_the_lowest_free_number() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let numbers = [(); 4].map(|()| guest.open(RW, "file").unwrap());
    assert_eq!(numbers, [5, 6, 7, 8]);
    assert_eq!((guest.close(6), guest.close(5), guest.close(5)), (Errno::Success, Errno::Success, Errno::Badf));
    assert_eq!((guest.open(RW, "dir"), guest.open(RW, "file")), (Ok(5), Ok(6)));
    assert_eq!(guest.call(Call::FdRenumber, &[8, 5]), Errno::Success);
    assert_eq!(guest.read(5, 4), Ok(b"this".to_vec()));
    assert_eq!(guest.call(Call::FdRenumber, &[8, 5]), Errno::Badf);
    assert_eq!(guest.call(Call::FdRenumber, &[5, 100]), Errno::Badf);
    assert_eq!(guest.call(Call::FdRenumber, &[5, 5]), Errno::Success);
    // Standard streams and preopened directories are descriptors like others.
    assert_eq!((guest.close(0), guest.close(3)), (Errno::Success, Errno::Success));
    assert_eq!(guest.call(Call::FdRenumber, &[5, 4]), Errno::Success);
    assert_eq!(guest.call(Call::FdPrestatGet, &[4, OUT.into()]), Errno::Badf);
    let open: Vec<u32> = guest.host.descriptors().iter().map(|info| info.fd).collect();
    assert_eq!(open, [1, 2, 4, 6, 7]);
}
