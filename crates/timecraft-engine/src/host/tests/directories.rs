//! Listing directories.

use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    next: u64,
    inode: u64,
    filetype: u8,
    name: String,
}

/// One `fd_readdir`: the entries that came whole, and whether the listing ended.
fn list(guest: &mut Guest, fd: u64, len: u32, cookie: u64) -> (Vec<Entry>, bool) {
    let args = [fd, BUFFER.into(), len.into(), cookie, OUT.into()];
    assert_eq!(guest.call(Call::FdReaddir, &args), Errno::Success);
    let used = guest.u32(OUT);
    assert!(used <= len);
    let bytes = guest.buffer(used).to_vec();
    let (mut rest, mut entries) = (&bytes[..], Vec::new());
    while rest.len() >= 24 {
        let u64_at = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
        let name_len = u64_at(16) as u32 as usize;
        assert_eq!(&rest[21..24], [0; 3], "padding");
        if rest.len() < 24 + name_len {
            break;
        }
        let name = String::from_utf8(rest[24..24 + name_len].to_vec()).unwrap();
        entries.push(Entry { next: u64_at(0), inode: u64_at(8), filetype: rest[20], name });
        rest = &rest[24 + name_len..];
    }
    (entries, used < len)
}

/// The whole listing, by a buffer of a given size.
fn list_all(guest: &mut Guest, fd: u64, len: u32) -> Vec<String> {
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let (entries, end) = list(guest, fd, len, cookie);
        cookie = entries.last().map_or(cookie, |entry| entry.next);
        names.extend(entries.into_iter().map(|entry| entry.name));
        if end {
            return names;
        }
    }
}

#[test]
fn entries_are_sorted_and_typed() {
    let mut world = World::new();
    std::os::unix::fs::symlink("file", world.path("rw/link")).unwrap();
    let (entries, end) = list(&mut world.guest, RW, 4096, 0);
    assert!(end);
    let seen: Vec<_> = entries.iter().map(|entry| (entry.next, entry.name.as_str(), entry.filetype)).collect();
    assert_eq!(seen, [(1, ".", 3), (2, "..", 3), (3, "dir", 3), (4, "empty", 3), (5, "file", 4), (6, "link", 7)]);
    assert_eq!(entries[0].inode, std::fs::metadata(world.path("rw")).unwrap().ino());
    assert_eq!(entries[1].inode, 0, "what lies above is none of the guest's business");
    assert_eq!(entries[4].inode, std::fs::metadata(world.path("rw/file")).unwrap().ino());
}

#[test]
fn any_buffer_that_holds_an_entry_lists_all() {
    let mut world = World::new();
    let dir = world.guest.open(RW, "empty").unwrap();
    for index in 0..300 {
        std::fs::write(world.path(&format!("rw/empty/{index:03}")), "").unwrap();
    }
    let mut expected = vec![".".to_owned(), "..".to_owned()];
    expected.extend((0..300).map(|index| format!("{index:03}")));
    for len in [27, 28, 51, 64, 100, 255, 4096, BUFFER_BYTES] {
        assert_eq!(list_all(&mut world.guest, dir, len), expected, "{len}");
    }
    // Too small for any entry: filled to the last byte, so that the guest knows.
    for len in [0, 1, 23, 24] {
        let (entries, end) = list(&mut world.guest, dir, len, 0);
        assert_eq!((entries.len(), end), (0, false), "{len}");
    }
}

#[test]
fn a_listing_is_never_more_than_a_record_holds() {
    let mut world = World::new();
    let dir = world.guest.open(RW, "empty").unwrap();
    for index in 0..8000 {
        std::fs::write(world.path(&format!("rw/empty/{index:0>250}")), "").unwrap();
    }
    world.guest.memory.resize(8 << 20, POISON);
    let mut readdir = |len: u32, cookie| {
        let args = [dir, BUFFER.into(), len.into(), cookie, OUT.into()];
        (world.guest.call(Call::FdReaddir, &args), world.guest.u32(OUT))
    };
    assert_eq!(readdir(2 << 20, 0), (Errno::Success, 2 << 20));
    assert_eq!(readdir((2 << 20) + 1, 0).0, Errno::Overflow);
    assert_eq!(readdir(4 << 20, 4002), (Errno::Success, 4000 * 274), "what is left fits");
}

#[test]
fn cookies_stay_when_names_come_and_go() {
    let mut world = World::new();
    let dir = world.guest.open(RW, "empty").unwrap();
    for name in ["b", "d", "f"] {
        std::fs::write(world.path(&format!("rw/empty/{name}")), "").unwrap();
    }
    let (first, _) = list(&mut world.guest, dir, 24 + 1 + 24 + 2 + 24 + 1, 0);
    assert_eq!(first[2].name, "b");
    std::fs::write(world.path("rw/empty/a"), "").unwrap();
    std::fs::remove_file(world.path("rw/empty/b")).unwrap();
    let names = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(list(&mut world.guest, dir, 4096, first[2].next).0), ["d", "f"]);
    assert_eq!(names(list(&mut world.guest, dir, 4096, 0).0), [".", "..", "a", "d", "f"]);
    for beyond in [5, 6, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(list(&mut world.guest, dir, 4096, beyond), (vec![], true));
    }
}

#[test]
fn only_directories_are_listed() {
    let mut world = World::new();
    let file = world.guest.open(RW, "file").unwrap();
    for fd in [file, 1] {
        let args = [fd, BUFFER.into(), 100, 0, OUT.into()];
        assert_eq!(world.guest.call(Call::FdReaddir, &args), Errno::Notdir);
    }
}
