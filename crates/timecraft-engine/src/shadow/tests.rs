//! A small real host that also writes records: what it does to files, a shadow must find in its records.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Memory;
use crate::memory::Notes;
use crate::restore::{DescriptorKind, FirstCall, Restored};

const ROOT: u32 = 3;
/// Where results land in guest memory; inputs are elsewhere.
const OUT: u64 = 8;
const PATH: u64 = 100;
const PATH2: u64 = 300;
const LIST: u64 = 600;
const DATA: u64 = 700;

struct Handle {
    file: File,
    append: bool,
}

/// Does what calls do to real files, and tells a shadow.
struct World {
    mount: TempDir,
    scratch: TempDir,
    shadow: Shadow,
    handles: BTreeMap<u32, Handle>,
}

type Sent<'a> = Vec<(u32, &'a [u8])>;

fn filestat(filetype: u8, size: u64) -> Vec<u8> {
    let mut stat = vec![0; 64];
    stat[16] = filetype;
    stat[32..40].copy_from_slice(&size.to_le_bytes());
    stat
}

impl World {
    fn new() -> Self {
        Self::with_limit(SCRATCH_BYTES_MAX)
    }

    fn with_limit(scratch_bytes_max: u64) -> Self {
        let (mount, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounts = vec![ShadowMount { host: mount.path().into(), guest: "/data".into(), read_only: false }];
        let config = ShadowConfig {
            mounts,
            socket_paths: false,
            sockets: vec![],
            scratch: scratch.path().into(),
            scratch_bytes_max,
            started_unix_ns: u64::MAX,
        };
        World { mount, scratch, shadow: Shadow::new(config).unwrap(), handles: BTreeMap::new() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.mount.path().join(path)
    }

    fn tell(&mut self, call: Call, args: &[u64], written: &[u8], sent: Sent<'_>) -> Result<(), ShadowError> {
        let written = (!written.is_empty()).then_some((OUT as u32, written));
        self.shadow.apply(call, args, Errno::Success, written.into_iter(), sent.into_iter())
    }

    fn args_of_open(path: &str, flags: u16, fdflags: u16) -> [u64; 9] {
        let all = rights::ALL;
        let fd = u64::from(ROOT);
        [fd, 1, PATH, path.len() as u64, u64::from(flags), all, all, u64::from(fdflags), OUT]
    }

    fn tell_open(&mut self, fd: u32, path: &str, flags: u16, fdflags: u16) {
        let args = Self::args_of_open(path, flags, fdflags);
        self.tell(Call::PathOpen, &args, &fd.to_le_bytes(), vec![(PATH as u32, path.as_bytes())]).unwrap();
    }

    fn open(&mut self, fd: u32, path: &str, flags: u16, fdflags: u16) {
        let create = flags & oflags::CREAT != 0;
        let file = File::options()
            .read(true)
            .write(true)
            .create(create)
            .create_new(create && flags & oflags::EXCL != 0)
            .truncate(flags & oflags::TRUNC != 0)
            .open(self.path(path))
            .unwrap();
        self.handles.insert(fd, Handle { file, append: fdflags & fdflags::APPEND != 0 });
        self.tell_open(fd, path, flags, fdflags);
    }

    fn tell_write(&mut self, fd: u32, data: &[u8]) -> Result<(), ShadowError> {
        let count = (data.len() as u32).to_le_bytes();
        let list = [0; 16];
        let (one, two) = data.split_at(data.len() / 3);
        let sent = vec![(LIST as u32, &list[..]), (DATA as u32, one), (DATA as u32, two)];
        self.tell(Call::FdWrite, &[u64::from(fd), LIST, 2, OUT], &count, sent)
    }

    fn write(&mut self, fd: u32, data: &[u8]) {
        self.really_write(fd, data);
        self.tell_write(fd, data).unwrap();
    }

    fn really_write(&mut self, fd: u32, data: &[u8]) {
        let handle = self.handles.get_mut(&fd).unwrap();
        if handle.append {
            handle.file.seek(SeekFrom::End(0)).unwrap();
        }
        handle.file.write_all(data).unwrap();
    }

    fn pwrite(&mut self, fd: u32, data: &[u8], offset: u64) {
        self.handles[&fd].file.write_all_at(data, offset).unwrap();
        let count = (data.len() as u32).to_le_bytes();
        let list = [0; 8];
        let sent = vec![(LIST as u32, &list[..]), (DATA as u32, data)];
        self.tell(Call::FdPwrite, &[u64::from(fd), LIST, 1, offset, OUT], &count, sent).unwrap();
    }

    fn read(&mut self, fd: u32, len: usize) {
        let mut buffer = vec![0; len];
        let count = self.handles.get_mut(&fd).unwrap().file.read(&mut buffer).unwrap() as u32;
        self.tell(Call::FdRead, &[u64::from(fd), LIST, 1, OUT], &count.to_le_bytes(), vec![]).unwrap();
    }

    fn seek(&mut self, fd: u32, to: SeekFrom) {
        let Ok(now) = self.handles.get_mut(&fd).unwrap().file.seek(to) else { return };
        let (delta, whence) = match to {
            SeekFrom::Start(at) => (at as i64, whence::SET),
            SeekFrom::Current(delta) => (delta, whence::CUR),
            SeekFrom::End(delta) => (delta, whence::END),
        };
        let args = [u64::from(fd), delta as u64, u64::from(whence), OUT];
        self.tell(Call::FdSeek, &args, &now.to_le_bytes(), vec![]).unwrap();
    }

    fn tell_offset(&mut self, fd: u32) {
        let now = self.handles.get_mut(&fd).unwrap().file.stream_position().unwrap();
        self.tell(Call::FdTell, &[u64::from(fd), OUT], &now.to_le_bytes(), vec![]).unwrap();
    }

    fn stat(&mut self, fd: u32) {
        let size = self.handles[&fd].file.metadata().unwrap().len();
        let stat = filestat(filetype::REGULAR_FILE, size);
        self.tell(Call::FdFilestatGet, &[u64::from(fd), OUT], &stat, vec![]).unwrap();
    }

    fn set_size(&mut self, fd: u32, size: u64) {
        self.handles[&fd].file.set_len(size).unwrap();
        self.tell(Call::FdFilestatSetSize, &[u64::from(fd), size], &[], vec![]).unwrap();
    }

    fn close(&mut self, fd: u32) {
        self.handles.remove(&fd).unwrap();
        self.tell(Call::FdClose, &[u64::from(fd)], &[], vec![]).unwrap();
    }

    fn renumber(&mut self, from: u32, to: u32) {
        let handle = self.handles.remove(&from).unwrap();
        self.handles.insert(to, handle);
        self.tell(Call::FdRenumber, &[u64::from(from), u64::from(to)], &[], vec![]).unwrap();
    }

    fn one_path(&mut self, call: Call, path: &str) {
        let args = [u64::from(ROOT), PATH, path.len() as u64];
        self.tell(call, &args, &[], vec![(PATH as u32, path.as_bytes())]).unwrap();
    }

    fn mkdir(&mut self, path: &str) {
        fs::create_dir(self.path(path)).unwrap();
        self.one_path(Call::PathCreateDirectory, path);
    }

    fn unlink(&mut self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
        self.one_path(Call::PathUnlinkFile, path);
    }

    fn args_of_rename(old: &str, new: &str) -> [u64; 6] {
        let fd = u64::from(ROOT);
        [fd, PATH, old.len() as u64, fd, PATH2, new.len() as u64]
    }

    fn rename(&mut self, old: &str, new: &str) {
        fs::rename(self.path(old), self.path(new)).unwrap();
        let sent = vec![(PATH as u32, old.as_bytes()), (PATH2 as u32, new.as_bytes())];
        self.tell(Call::PathRename, &Self::args_of_rename(old, new), &[], sent).unwrap();
    }

    fn link(&mut self, old: &str, new: &str) {
        fs::hard_link(self.path(old), self.path(new)).unwrap();
        let fd = u64::from(ROOT);
        let args = [fd, 0, PATH, old.len() as u64, fd, PATH2, new.len() as u64];
        let sent = vec![(PATH as u32, old.as_bytes()), (PATH2 as u32, new.as_bytes())];
        self.tell(Call::PathLink, &args, &[], sent).unwrap();
    }

    fn symlink(&mut self, target: &str, name: &str) {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
        let args = [PATH, target.len() as u64, u64::from(ROOT), PATH2, name.len() as u64];
        let sent = vec![(PATH as u32, target.as_bytes()), (PATH2 as u32, name.as_bytes())];
        self.tell(Call::PathSymlink, &args, &[], sent).unwrap();
    }

    /// The guest looked for a name that isn't there.
    fn look_in_vain(&mut self, path: &str) {
        let args = [u64::from(ROOT), 1, PATH, path.len() as u64, OUT];
        let sent = [(PATH as u32, path.as_bytes())];
        let none = std::iter::empty();
        self.shadow.apply(Call::PathFilestatGet, &args, Errno::Noent, none, sent.into_iter()).unwrap();
    }

    /// The guest's next call, with `inputs` at their places in its memory.
    fn in_flight(&mut self, call: Call, args: &[u64], inputs: &[(u64, &[u8])]) {
        let mut bytes = vec![0; 1 << 16];
        for (ptr, input) in inputs {
            bytes[*ptr as usize..*ptr as usize + input.len()].copy_from_slice(input);
        }
        let mut notes = Notes::default();
        self.shadow.expect_in_flight(call, args, &Memory::new(&mut bytes, &mut notes));
    }

    fn write_in_flight(&mut self, fd: u32, data: &[u8]) {
        let list = [(DATA as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        self.in_flight(Call::FdWrite, &[u64::from(fd), LIST, 1, OUT], &[(LIST, &list), (DATA, data)]);
    }

    fn finish(self) -> Result<Restored, Mismatch> {
        self.shadow.finish()
    }
}

fn file_of(restored: &Restored, fd: u32) -> (&[u8], u64) {
    match &restored.descriptors.iter().find(|descriptor| descriptor.fd == fd).unwrap().kind {
        DescriptorKind::File { mount: 0, path, offset } => (path, *offset),
        other => panic!("descriptor {fd} is {other:?}"),
    }
}

const NEW: u16 = oflags::CREAT | oflags::TRUNC;

#[test]
fn streams_and_mounts_are_there_from_the_start() {
    let restored = World::new().finish().unwrap();
    let kinds: Vec<_> = restored.descriptors.iter().map(|descriptor| (descriptor.fd, &descriptor.kind)).collect();
    assert!(matches!(
        kinds[..],
        [
            (0, DescriptorKind::Stdio(0)),
            (1, DescriptorKind::Stdio(1)),
            (2, DescriptorKind::Stdio(2)),
            (3, DescriptorKind::Mount { mount: 0 })
        ]
    ));
    assert_eq!(restored.descriptors[0].rights_base, UNRESTRICTED);
    assert_eq!(restored.descriptors[3].rights_base, MOUNT_RIGHTS_BASE);
    assert_eq!(restored.first_call, FirstCall::Redo);
}

#[test]
fn offsets_flags_and_rights_follow_the_calls() {
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    world.write(4, b"hello world");
    world.seek(4, SeekFrom::Start(2));
    world.read(4, 100);
    world.seek(4, SeekFrom::Current(-4));
    world.tell(Call::FdFdstatSetFlags, &[4, 4], &[], vec![]).unwrap();
    world.tell(Call::FdFdstatSetRights, &[4, rights::FD_READ, 0], &[], vec![]).unwrap();
    world.renumber(4, 9);
    world.tell(Call::ClockTimeGet, &[1, 0, OUT], &77u64.to_le_bytes(), vec![]).unwrap();
    let restored = world.finish().unwrap();
    assert_eq!(file_of(&restored, 9), (b"f".as_slice(), 7));
    assert_eq!(restored.monotonic_ns, 77);
    let last = restored.descriptors.last().unwrap();
    assert_eq!((last.flags, last.rights_base, last.rights_inheriting), (4, rights::FD_READ, 0));
}

#[test]
fn a_changed_byte_is_named() {
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    world.write(4, &vec![7; 3_000_000]);
    world.close(4);
    fs::OpenOptions::new().write(true).open(world.path("f")).unwrap().write_all_at(b"x", 2_345_678).unwrap();
    match world.finish().unwrap_err() {
        Mismatch::Content { file, offset: 2_345_678, expected, actual } => {
            assert!(file.starts_with("/data/f ("), "{file}");
            assert_eq!((expected[0], actual[0]), (7, b'x'));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_that_grew_shrank_or_vanished_is_named() {
    for size in [3, 12] {
        let mut world = World::new();
        world.open(4, "f", NEW, 0);
        world.write(4, b"12345678");
        world.handles[&4].file.set_len(size).unwrap();
        let mismatch = world.finish().unwrap_err();
        assert!(matches!(mismatch, Mismatch::Size { expected: 8, actual, .. } if actual == size), "{mismatch}");
    }
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    fs::remove_file(world.path("f")).unwrap();
    assert!(matches!(world.finish().unwrap_err(), Mismatch::Missing { .. }));
}

#[test]
fn a_write_in_flight_is_accepted_in_part_and_in_full() {
    for landed in 0..=4 {
        for start in [0, 6] {
            let mut world = World::new();
            world.open(4, "f", NEW, 0);
            world.write(4, b"abcdef");
            world.seek(4, SeekFrom::Start(start));
            world.write_in_flight(4, b"WXYZ");
            world.handles[&4].file.write_all_at(&b"WXYZ"[..landed], start).unwrap();
            let restored = world.finish().unwrap();
            assert_eq!(file_of(&restored, 4), (b"f".as_slice(), start));
        }
    }
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    world.write(4, b"abcdef");
    world.write_in_flight(4, b"WXYZ");
    world.really_write(4, b"WXYz");
    assert!(matches!(world.finish().unwrap_err(), Mismatch::Size { expected: 6, actual: 10, .. }));
}

#[test]
fn an_append_in_flight_is_told_to_the_host() {
    let mut world = World::new();
    world.open(4, "log", NEW, fdflags::APPEND);
    world.write(4, b"one\n");
    world.write_in_flight(4, b"two\n");
    world.really_write(4, b"two\n");
    let restored = world.finish().unwrap();
    assert_eq!(restored.torn_appends.len(), 1);
    assert_eq!((restored.torn_appends[0].path.as_slice(), restored.torn_appends[0].size), (b"log".as_slice(), 4));
}

#[test]
fn appends_at_an_unknown_size_are_found_at_the_end() {
    for landed in [0, 4] {
        let mut world = World::new();
        fs::write(world.path("log"), b"from before\n").unwrap();
        world.open(4, "log", oflags::CREAT, fdflags::APPEND);
        world.write(4, b"one\n");
        world.write(4, b"two\n");
        assert_eq!(world.shadow.descriptors()[4].offset, None);
        world.write_in_flight(4, b"tri\n");
        world.really_write(4, &b"tri\n"[..landed]);
        let restored = world.finish().unwrap();
        assert_eq!(file_of(&restored, 4), (b"log".as_slice(), 20));
        let sizes: Vec<_> = restored.torn_appends.iter().map(|torn| torn.size).collect();
        assert_eq!(sizes, if landed > 0 { vec![20] } else { vec![] });
    }
}

#[test]
fn an_append_that_looks_like_those_before_is_not_guessed_at() {
    let mut world = World::new();
    fs::write(world.path("log"), b"tick\ntick\n").unwrap();
    world.open(4, "log", 0, fdflags::APPEND);
    world.write(4, b"tick\n");
    world.write_in_flight(4, b"tick\n");
    assert!(matches!(world.finish().unwrap_err(), Mismatch::UnclearAppend { .. }));
}

#[test]
fn a_large_append_of_equal_bytes_is_judged_at_once() {
    let mut world = World::new();
    let data = vec![b'x'; 1 << 20];
    std::fs::write(world.path("log"), vec![b'x'; 4 << 20]).unwrap();
    world.open(4, "log", 0, fdflags::APPEND);
    let list = [0u32.to_le_bytes(), (1u32 << 20).to_le_bytes()].concat();
    let mut bytes = data;
    bytes.extend_from_slice(&list);
    let args = [4, 1 << 20, 1, OUT];
    world.shadow.expect_in_flight(Call::FdWrite, &args, &Memory::new(&mut bytes, &mut Notes::default()));
    let started = std::time::Instant::now();
    assert!(matches!(world.finish(), Err(Mismatch::UnclearAppend { .. })));
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn results_tell_where_appends_landed() {
    let learn: [fn(&mut World); 4] =
        [|w| w.tell_offset(4), |w| w.stat(4), |w| w.seek(4, SeekFrom::Current(0)), |w| w.seek(4, SeekFrom::End(0))];
    for learn in learn {
        let mut world = World::new();
        fs::write(world.path("log"), b"tick\n").unwrap();
        world.open(4, "log", 0, fdflags::APPEND);
        world.write(4, b"tick\n");
        learn(&mut world);
        assert_eq!(world.shadow.descriptors()[4].offset, Some(10));
        world.write_in_flight(4, b"tick\n");
        world.really_write(4, b"tick\n");
        let restored = world.finish().unwrap();
        assert_eq!(file_of(&restored, 4).1, 10);
        assert_eq!(restored.torn_appends[0].size, 10);
    }
}

#[test]
fn a_file_that_the_guest_knew_to_be_absent_starts_empty() {
    let mut world = World::new();
    world.look_in_vain("log");
    world.open(4, "log", oflags::CREAT, fdflags::APPEND);
    world.write(4, b"tick\n");
    world.write_in_flight(4, b"tick\n");
    world.really_write(4, b"tick\n");
    assert_eq!(world.finish().unwrap().torn_appends[0].size, 5);
}

#[test]
fn an_append_is_not_unclear_in_a_file_that_the_guest_made() {
    for (taken_effect, started_unix_ns, clear) in [(true, 0, true), (false, 0, true), (true, u64::MAX, false)] {
        let mut world = World::new();
        world.shadow.config.started_unix_ns = started_unix_ns;
        world.open(4, "log", oflags::CREAT, fdflags::APPEND);
        world.write_in_flight(4, b"tick\n");
        if taken_effect {
            world.really_write(4, b"tick\n");
        }
        match world.finish() {
            Ok(restored) if taken_effect => assert!(clear && restored.torn_appends[0].size == 0),
            Ok(restored) => assert!(clear && restored.torn_appends.is_empty()),
            Err(error) => assert!(!clear && matches!(error, Mismatch::UnclearAppend { .. }), "{error}"),
        }
    }
}

#[test]
fn a_deleted_open_file_is_rebuilt_or_the_reason_is_given() {
    let mut world = World::new();
    world.open(4, "tmp", NEW, 0);
    world.write(4, b"secret");
    world.seek(4, SeekFrom::Start(100_000));
    world.write(4, b"end");
    world.unlink("tmp");
    world.pwrite(4, b"S", 0);
    let (expected_len, restored) = (100_003, world.finish().unwrap());
    let DescriptorKind::Rebuilt { file, offset } = &restored.descriptors[4].kind else { panic!("not rebuilt") };
    let mut bytes = vec![0; expected_len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((file.metadata().unwrap().len(), *offset), (100_003, 100_003));
    assert_eq!((&bytes[..8], &bytes[100_000..]), (b"Secret\0\0".as_slice(), b"end".as_slice()));

    let mut world = World::new();
    fs::write(world.path("old"), b"not in the log").unwrap();
    world.open(4, "old", 0, 0);
    world.unlink("old");
    assert!(matches!(world.finish().unwrap_err(), Mismatch::Deleted { fd: 4 }));
}

#[test]
fn renamed_directories_take_open_files_along() {
    let mut world = World::new();
    world.mkdir("a");
    world.mkdir("a/b");
    world.open(4, "a/b/f", NEW, 0);
    world.write(4, b"x");
    world.rename("a", "z");
    world.open(5, "z/./b/../b/f", 0, 0);
    world.write(5, b"y");
    world.tell_open(6, "z/b", oflags::DIRECTORY, 0);
    let restored = world.finish().unwrap();
    assert_eq!(file_of(&restored, 4), (b"z/b/f".as_slice(), 1));
    assert_eq!(file_of(&restored, 5), (b"z/b/f".as_slice(), 1));
    let DescriptorKind::Directory { path, .. } = &restored.descriptors[6].kind else { panic!("no directory") };
    assert_eq!(path, b"z/b");
}

#[test]
fn links_of_both_kinds_lead_to_one_file() {
    let mut world = World::new();
    world.mkdir("d");
    world.open(4, "d/f", NEW, 0);
    world.link("d/f", "hard");
    world.symlink("d", "soft");
    world.open(5, "hard", 0, 0);
    world.write(5, b"12");
    world.open(6, "soft/f", 0, 0);
    world.pwrite(6, b"3", 1);
    world.unlink("d/f");
    let restored = world.finish().unwrap();
    assert_eq!(file_of(&restored, 6), (b"hard".as_slice(), 0));
}

#[test]
fn a_file_written_under_two_unrelated_names_is_refused() {
    let mut world = World::new();
    fs::write(world.path("one"), b"").unwrap();
    fs::hard_link(world.path("one"), world.path("two")).unwrap();
    world.open(4, "one", 0, 0);
    world.open(5, "two", 0, 0);
    world.pwrite(4, b"1", 0);
    world.pwrite(5, b"1", 0);
    assert!(matches!(world.finish().unwrap_err(), Mismatch::Aliased { .. }));
}

#[test]
fn calls_that_would_fail_twice_are_recognised() {
    let made = |took_effect: bool| {
        let mut world = World::new();
        world.look_in_vain("d");
        world.in_flight(Call::PathCreateDirectory, &[3, PATH, 1], &[(PATH, b"d")]);
        if took_effect {
            fs::create_dir(world.path("d")).unwrap();
        }
        world.finish().unwrap().first_call
    };
    assert_eq!((made(false), made(true)), (FirstCall::Redo, FirstCall::AlreadyDone));

    let mut world = World::new();
    world.look_in_vain("lock");
    let args = World::args_of_open("lock", oflags::CREAT | oflags::EXCL, 0);
    world.in_flight(Call::PathOpen, &args, &[(PATH, b"lock")]);
    fs::write(world.path("lock"), b"").unwrap();
    assert_eq!(world.finish().unwrap().first_call, FirstCall::AlreadyCreated);

    let mut world = World::new();
    world.open(4, "new", NEW, 0);
    world.write(4, b"content");
    world.in_flight(Call::PathRename, &World::args_of_rename("new", "final"), &[(PATH, b"new"), (PATH2, b"final")]);
    fs::rename(world.path("new"), world.path("final")).unwrap();
    let restored = world.finish().unwrap();
    assert_eq!(restored.first_call, FirstCall::AlreadyDone);
    assert_eq!(file_of(&restored, 4), (b"final".as_slice(), 7));

    let mut world = World::new();
    world.open(4, "tmp", NEW, 0);
    world.in_flight(Call::PathUnlinkFile, &[3, PATH, 3], &[(PATH, b"tmp")]);
    fs::remove_file(world.path("tmp")).unwrap();
    let restored = world.finish().unwrap();
    assert_eq!(restored.first_call, FirstCall::AlreadyDone);
    assert!(matches!(restored.descriptors[4].kind, DescriptorKind::Rebuilt { .. }));
}

#[test]
fn truncations_in_flight_are_accepted() {
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    world.write(4, b"content");
    world.in_flight(Call::FdFilestatSetSize, &[4, 3], &[]);
    world.handles[&4].file.set_len(3).unwrap();
    assert_eq!(file_of(&world.finish().unwrap(), 4).1, 7);

    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    world.write(4, b"content");
    world.close(4);
    world.in_flight(Call::PathOpen, &World::args_of_open("f", NEW, 0), &[(PATH, b"f")]);
    fs::write(world.path("f"), b"").unwrap();
    assert_eq!(world.finish().unwrap().first_call, FirstCall::Redo);
}

#[test]
fn devices_have_no_content() {
    let mut world = World::new();
    std::os::unix::net::UnixListener::bind(world.path("dev")).unwrap();
    world.tell_open(4, "dev", 0, 0);
    let mut stat = vec![0; 24];
    stat[0] = filetype::CHARACTER_DEVICE;
    world.tell(Call::FdFdstatGet, &[4, OUT], &stat, vec![]).unwrap();
    world.tell_write(4, b"gone").unwrap();
    assert_eq!(world.shadow.descriptors()[4].rights_base, 0);
    // A socket can't be opened to be looked at, and a device that the guest wrote isn't to be compared.
    assert!(matches!(world.finish(), Ok(_) | Err(Mismatch::Io { .. })));
}

#[test]
fn what_cannot_be_is_refused_clearly() {
    let mut world = World::new();
    let unknown = world.tell(Call::FdClose, &[44], &[], vec![]).unwrap_err();
    assert_eq!(unknown.to_string(), "fd_close: the log uses descriptor 44, which it never opened");
    let socket = world.tell(Call::SockAccept, &[3, 0, OUT], &4u32.to_le_bytes(), vec![]).unwrap_err();
    assert!(matches!(socket, ShadowError::Malformed { .. }));
    world.open(4, "f", NEW, 0);
    let digest = world.tell(Call::FdWrite, &[4, LIST, 1, OUT], &70u32.to_le_bytes(), vec![(70, &[0; 32])]);
    assert!(matches!(digest.unwrap_err(), ShadowError::OutputNotInLog { .. }));
    assert!(matches!(world.tell(Call::FdTell, &[4, OUT], &[], vec![]), Err(ShadowError::Malformed { .. })));
    let args = World::args_of_open("../f", 0, 0);
    let outside = world.tell(Call::PathOpen, &args, &5u32.to_le_bytes(), vec![(PATH as u32, b"../f")]);
    assert!(matches!(outside, Err(ShadowError::Malformed { .. })));

    let mut world = World::with_limit(10);
    world.open(4, "f", NEW, 0);
    assert!(matches!(world.tell_write(4, &[0; 11]), Err(ShadowError::ScratchFull { max: 10 })));
}

#[test]
fn inputs_of_the_call_in_flight_are_bounded_as_the_host_bounds_them() {
    let mut world = World::new();
    world.open(4, "f", NEW, 0);
    let kept = |world: &World| {
        let sent = &world.shadow.in_flight.as_ref().unwrap().sent;
        (sent.len(), sent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>())
    };
    let mut bytes = vec![0; 4 << 20];
    for iovec in bytes[..8 * 1025].chunks_exact_mut(8) {
        iovec[4..].copy_from_slice(&(3u32 << 20).to_le_bytes());
    }
    let mut notes = Notes::default();
    let memory = Memory::new(&mut bytes, &mut notes);
    world.shadow.expect_in_flight(Call::FdWrite, &[4, 0, 1024, OUT], &memory);
    assert_eq!(kept(&world), (1025, 1024 * 8 + (1 << 20)));
    world.shadow.expect_in_flight(Call::FdWrite, &[4, 0, 1025, OUT], &memory);
    assert_eq!(kept(&world), (0, 0), "the host refuses such a list");
    world.shadow.expect_in_flight(Call::PathUnlinkFile, &[3, 0, 4097], &memory);
    assert_eq!(kept(&world), (0, 0), "and such a path");
}

#[test]
fn every_call_is_decided() {
    for spec in calls::CALLS {
        let mut world = World::new();
        let args = vec![0; spec.types().len()];
        // Whatever a record holds, it is followed or refused, and never a panic.
        let _ = world.tell(spec.call, &args, &[], vec![]);
        world.shadow.apply(spec.call, &args, Errno::Badf, std::iter::empty(), std::iter::empty()).unwrap();
        world.in_flight(spec.call, &args, &[]);
        let _ = world.finish();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open { file: u8, flags: u16, append: bool },
    Write { fd: u8, data: Vec<u8> },
    Pwrite { fd: u8, data: Vec<u8>, offset: u64 },
    Read { fd: u8, len: usize },
    Seek { fd: u8, to: u64, whence: u8 },
    Stat { fd: u8 },
    SetSize { fd: u8, size: u64 },
    Close { fd: u8 },
    Renumber { fd: u8, to: u32 },
    Unlink { file: u8 },
    Rename { old: u8, new: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let data = || prop::collection::vec(any::<u8>(), 1..40);
    let flags = prop::sample::select(vec![oflags::CREAT, NEW]);
    prop_oneof![
        4 => (0..4u8, flags, any::<bool>()).prop_map(|(file, flags, append)| Step::Open { file, flags, append }),
        6 => (any::<u8>(), data()).prop_map(|(fd, data)| Step::Write { fd, data }),
        3 => (any::<u8>(), data(), 0..200u64).prop_map(|(fd, data, offset)| Step::Pwrite { fd, data, offset }),
        2 => (any::<u8>(), 0..50usize).prop_map(|(fd, len)| Step::Read { fd, len }),
        3 => (any::<u8>(), 0..150u64, 0..3u8).prop_map(|(fd, to, whence)| Step::Seek { fd, to, whence }),
        1 => any::<u8>().prop_map(|fd| Step::Stat { fd }),
        1 => (any::<u8>(), 0..200u64).prop_map(|(fd, size)| Step::SetSize { fd, size }),
        1 => any::<u8>().prop_map(|fd| Step::Close { fd }),
        1 => (any::<u8>(), 10..14u32).prop_map(|(fd, to)| Step::Renumber { fd, to }),
        1 => (0..4u8).prop_map(|file| Step::Unlink { file }),
        1 => (0..4u8, 0..4u8).prop_map(|(old, new)| Step::Rename { old, new }),
    ]
}

impl World {
    fn pick(&self, number: u8) -> Option<u32> {
        let count = self.handles.len();
        if count == 0 { None } else { self.handles.keys().nth(usize::from(number) % count).copied() }
    }

    fn take(&mut self, step: &Step) {
        let name = |file: &u8| format!("f{file}");
        let fd = match step {
            Step::Write { fd, .. }
            | Step::Pwrite { fd, .. }
            | Step::Read { fd, .. }
            | Step::Seek { fd, .. }
            | Step::Stat { fd }
            | Step::SetSize { fd, .. }
            | Step::Close { fd }
            | Step::Renumber { fd, .. } => match self.pick(*fd) {
                Some(fd) => fd,
                None => return,
            },
            _ => (4..=u32::MAX).find(|fd| !self.handles.contains_key(fd)).unwrap(),
        };
        match step {
            Step::Open { file, flags, append } => {
                self.open(fd, &name(file), *flags, if *append { fdflags::APPEND } else { 0 });
            }
            Step::Write { data, .. } => self.write(fd, data),
            Step::Pwrite { data, offset, .. } => self.pwrite(fd, data, *offset),
            Step::Read { len, .. } => self.read(fd, *len),
            Step::Seek { to, whence: whence::SET, .. } => self.seek(fd, SeekFrom::Start(*to)),
            Step::Seek { to, whence: whence::CUR, .. } => self.seek(fd, SeekFrom::Current(*to as i64 - 75)),
            Step::Seek { to, .. } => self.seek(fd, SeekFrom::End(*to as i64 - 75)),
            Step::Stat { .. } => self.stat(fd),
            Step::SetSize { size, .. } => self.set_size(fd, *size),
            Step::Close { .. } => self.close(fd),
            Step::Renumber { to, .. } => self.renumber(fd, *to),
            Step::Unlink { file } if self.path(&name(file)).exists() => self.unlink(&name(file)),
            Step::Rename { old, new } if self.path(&name(old)).exists() => self.rename(&name(old), &name(new)),
            Step::Unlink { .. } | Step::Rename { .. } => {}
        }
    }
}

/// Whether a descriptor is what the real one is.
fn agrees(restored: &crate::restore::Descriptor, handle: &mut Handle, mount: &std::path::Path) {
    use std::os::unix::fs::MetadataExt as _;
    let offset = handle.file.stream_position().unwrap();
    match &restored.kind {
        DescriptorKind::File { path, offset: found, .. } => {
            let real = fs::metadata(mount.join(std::str::from_utf8(path).unwrap())).unwrap();
            assert_eq!(real.ino(), handle.file.metadata().unwrap().ino());
            assert_eq!(*found, offset);
        }
        DescriptorKind::Rebuilt { file, offset: found } => {
            let content = |file: &File| {
                let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            assert_eq!(content(file), content(&handle.file));
            assert_eq!(*found, offset);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_files_the_shadow_agrees(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        // Names that exist before, with content that the log doesn't tell.
        fs::write(world.path("f0"), b"something that was there before").unwrap();
        for step in &steps {
            world.take(step);
        }
        let World { mount, scratch, shadow, mut handles } = world;
        match shadow.finish() {
            Ok(restored) => {
                prop_assert_eq!(restored.descriptors.len(), 4 + handles.len());
                for descriptor in &restored.descriptors[4..] {
                    agrees(descriptor, handles.get_mut(&descriptor.fd).unwrap(), mount.path());
                }
                prop_assert!(restored.torn_appends.is_empty());
            }
            // What the log can't tell is said so, and nothing else is wrong: nobody has touched the files.
            Err(Mismatch::Unclear { .. } | Mismatch::OffsetUnknown { .. } | Mismatch::Deleted { .. }) => {}
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        prop_assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_flipped_byte_is_found(
        data in prop::collection::vec(any::<u8>(), 1..5000),
        at in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        world.open(4, "f", NEW, 0);
        for piece in data.chunks(97) {
            world.write(4, piece);
        }
        let at = at.index(data.len());
        world.handles[&4].file.write_all_at(&[!data[at]], at as u64).unwrap();
        let mismatch = world.finish().unwrap_err();
        prop_assert!(matches!(mismatch, Mismatch::Content { offset, .. } if offset == at as u64), "{}", mismatch);
    }
}
