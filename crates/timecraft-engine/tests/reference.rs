//! What a guest reads from an immutable mount is referred to, not recorded, and comes back when the log is read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use timecraft_engine::clock::SystemClock;
use timecraft_engine::host::{Host, HostConfig, Mount};
use timecraft_engine::memory::Notes;
use timecraft_engine::recorder::{MemorySink, MemorySource, OwnedRecord, Record, Recorder, Source, SourceError};
use timecraft_engine::reference::{REFERRING, Reference, Trees, WholeRecord, WholeSource};
use timecraft_engine::replayer::{Options, ReplayEnd, Replayer};
use timecraft_engine::strace::{self, record_json, record_line};
use timecraft_engine::{Call, Errno, KillSwitch, Memory, System};

const MEMORY_BYTES: usize = 16 << 10;
const FILE_BYTES: usize = 10_000;
/// Guest addresses: a path, a list of buffers, results, and what is read.
const PATH: u32 = 0;
const IOVECS: u32 = 64;
const RESULT: u32 = 128;
const BUFFER: u32 = 256;
/// Reading and seeking.
const RIGHTS: u64 = 1 << 1 | 1 << 2;

fn tree(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lib")).unwrap();
    let content: Vec<u8> = (0..FILE_BYTES).map(|at| (at * 7 + at / 251) as u8).collect();
    fs::write(dir.path().join("lib").join(name), content).unwrap();
    symlink("lib", dir.path().join("alias")).unwrap();
    dir
}

fn recorder(dir: &Path, immutable: bool) -> Recorder<Host, MemorySink> {
    let mount = Mount { host: dir.into(), guest: "/lib".into(), read_only: true, immutable };
    let config = HostConfig { mounts: vec![mount], ..HostConfig::default() };
    let host = Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap();
    Recorder::new(host, MemorySink::default(), Arc::new(SystemClock), 0)
}

/// What a guest does to its open file.
#[derive(Clone, Debug)]
enum Step {
    Read(Vec<u32>),
    ReadAt(u32, u64),
    Seek(i64, u64),
    Renumber,
}

/// Runs a guest that opens a file and does these steps; returns its memory after each.
fn run(system: &mut impl System, path: &[u8], steps: &[Step]) -> Vec<Vec<u8>> {
    let mut memory = vec![0; MEMORY_BYTES];
    let mut call = |memory: &mut Vec<u8>, call: Call, args: &[u64]| {
        let outcome = system.call(call, args, &mut Memory::new(memory, &mut Notes::default()));
        assert_eq!(outcome, Ok(Errno::Success), "{}", call.name());
    };
    let open = [3, 1, u64::from(PATH), path.len() as u64, 0, RIGHTS, 0, 0, u64::from(RESULT)];
    for _ in 0..2 {
        memory[..path.len()].copy_from_slice(path);
        call(&mut memory, Call::PathOpen, &open);
    }
    let mut fd = 4;
    let mut after = Vec::new();
    for step in steps {
        let (result, iovecs) = (u64::from(RESULT), u64::from(IOVECS));
        match step {
            Step::Read(lens) => {
                put_iovecs(&mut memory, lens);
                call(&mut memory, Call::FdRead, &[fd, iovecs, lens.len() as u64, result]);
            }
            Step::ReadAt(len, offset) => {
                put_iovecs(&mut memory, &[*len]);
                call(&mut memory, Call::FdPread, &[fd, iovecs, 1, *offset, result]);
            }
            Step::Seek(to, whence) => call(&mut memory, Call::FdSeek, &[fd, *to as u64, *whence, result]),
            Step::Renumber => {
                let other = 9 - fd;
                call(&mut memory, Call::FdRenumber, &[fd, other]);
                memory[..path.len()].copy_from_slice(path);
                call(&mut memory, Call::PathOpen, &open);
                fd = other;
            }
        }
        after.push(memory.clone());
    }
    after
}

fn put_iovecs(memory: &mut [u8], lens: &[u32]) {
    let mut ptr = BUFFER;
    for (index, len) in lens.iter().enumerate() {
        let at = IOVECS as usize + index * 8;
        memory[at..at + 4].copy_from_slice(&ptr.to_le_bytes());
        memory[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
        ptr += len;
    }
}

fn recorded(dir: &Path, steps: &[Step]) -> (Vec<OwnedRecord>, Vec<Vec<u8>>) {
    let mut recorder = recorder(dir, true);
    let after = run(&mut recorder, b"alias/data", steps);
    (std::mem::take(&mut recorder.sink_mut().records), after)
}

fn whole(records: &[OwnedRecord], dir: &Path) -> WholeSource<MemorySource> {
    WholeSource::new(MemorySource::new(records.to_vec()), Trees::new([Some(dir.to_owned())]))
}

fn written_bytes(records: &[OwnedRecord]) -> usize {
    records.iter().flat_map(|record| &record.written).map(|(_, bytes)| bytes.len()).sum()
}

fn any_step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..100u32, 0..6000u32];
    prop_oneof![
        4 => proptest::collection::vec(len.clone(), 0..3).prop_map(Step::Read),
        2 => (len, 0..12_000u64).prop_map(|(len, offset)| Step::ReadAt(len, offset)),
        1 => (0..12_000i64).prop_map(|to| Step::Seek(to, 0)),
        1 => (0..100i64).prop_map(|by| Step::Seek(by, 1)),
        1 => Just(Step::Renumber),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_replay_reads_what_the_guest_read(steps in proptest::collection::vec(any_step(), 0..20), poison: bool) {
        let (dir, elsewhere) = (tree("data"), tree("data"));
        let (records, live) = recorded(dir.path(), &steps);
        drop(dir);
        let options = Options { poison, ..Options::default() };
        let mut replayer = Replayer::new(whole(&records, elsewhere.path()), options);
        prop_assert_eq!(run(&mut replayer, b"alias/data", &steps), live);
    }

    #[test]
    fn no_reference_leads_out_of_a_tree(
        mount in 0..3u32,
        offset in prop_oneof![0..20u64, any::<u64>()],
        len in prop_oneof![0..200u32, any::<u32>()],
        path in "[a-d./\0]{0,12}|alias/data|up/etc/passwd|/etc/passwd|lib",
        cut in 0..40usize,
    ) {
        let dir = tree("data");
        symlink("/", dir.path().join("up")).unwrap();
        let mut bytes = [&mount.to_le_bytes()[..], &offset.to_le_bytes(), &len.to_le_bytes(), &[0; 4]].concat();
        bytes.extend(path.bytes());
        bytes.truncate(cut.max(path.len()));
        let call = Call::FdRead as u16 | REFERRING;
        let record = OwnedRecord { call, written: vec![(8, bytes)], ..OwnedRecord::default() };
        let mut trees = Trees::new([Some(dir.path().to_owned()), None]);
        // The checksum of nothing is 0.
        prop_assert!(len == 0 || trees.complete(&record).is_err());
        prop_assert!(record_line(&WholeRecord::unread(&record), &strace::Options::default()).starts_with("fd_read("));
    }
}

#[test]
fn the_log_holds_no_copy() {
    let dir = tree("data");
    let steps = [Step::Read(vec![4096]), Step::Read(vec![4096]), Step::ReadAt(4096, 5)];
    let (records, _) = recorded(dir.path(), &steps);
    assert!(written_bytes(&records) < 200, "{records:?}");
    let reference = Reference::decode(&records[3].written[0].1).unwrap();
    assert_eq!(
        (records[3].call, reference.offset, reference.path),
        (Call::FdRead as u16 | REFERRING, 4096, &b"lib/data"[..])
    );

    let mut inline = recorder(dir.path(), false);
    run(&mut inline, b"alias/data", &steps);
    assert!(written_bytes(&inline.sink_mut().records) > 12_000);
}

#[test]
fn small_reads_and_several_buffers_are_recorded_as_they_are() {
    let dir = tree("data");
    let (records, _) =
        recorded(dir.path(), &[Step::Read(vec![63]), Step::Read(vec![100, 100]), Step::Read(vec![100, 0])]);
    let referring: Vec<_> = records.iter().map(|record| record.call & REFERRING != 0).collect();
    assert_eq!(referring, [false, false, false, false, true]);
}

/// The error with which a log can't be read on.
fn lost(records: &[OwnedRecord], trees: Trees) -> String {
    let mut source = WholeSource::new(MemorySource::new(records.to_vec()), trees);
    loop {
        match source.next() {
            Ok(record) => assert!(record.is_some(), "nothing is lost"),
            Err(SourceError::Input(reason)) => return reason,
            Err(SourceError::Log(reason)) => panic!("{reason}"),
        }
    }
}

#[test]
fn what_is_lost_or_changed_is_named() {
    let dir = tree("data");
    let steps = [Step::Read(vec![64]), Step::Read(vec![4096])];
    let (records, _) = recorded(dir.path(), &steps);
    let path = dir.path().join("lib/data");
    let trees = || Trees::new([Some(dir.path().to_owned())]);

    let mut content = fs::read(&path).unwrap();
    content[1000] ^= 1;
    fs::write(&path, &content).unwrap();
    assert_eq!(
        lost(&records, trees()),
        format!("record 3 refers to {}: has changed since the guest read it", path.display())
    );
    let mut replayer = Replayer::new(whole(&records, dir.path()), Options::default());
    let report = replayer.report();
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut replayer, b"alias/data", &steps))).is_err()
    );
    assert!(matches!(report.end(), Some(ReplayEnd::InputLost { last_seq: Some(2), .. })));

    fs::write(&path, &content[..100]).unwrap();
    assert!(lost(&records, trees()).ends_with("has changed since the guest read it"));
    fs::remove_file(&path).unwrap();
    assert!(lost(&records, trees()).ends_with("lib/data: there is no such file"));
    fs::create_dir(&path).unwrap();
    assert!(lost(&records, trees()).ends_with("lib/data: is no file"));
    assert!(
        lost(&records, Trees::new([Some("/no/such/tree".into())])).contains("/no/such/tree/lib/data: No such file")
    );
    assert!(lost(&records, Trees::default()).ends_with("refers to mount 0, which is not immutable"));
}

#[test]
fn a_trace_shows_bytes_or_where_they_were() {
    let dir = tree("data");
    let (records, _) = recorded(dir.path(), &[Step::Read(vec![4096]), Step::Read(vec![4096])]);
    let options = strace::Options::default();
    let mut trees = Trees::new([Some(dir.path().to_owned())]);
    let line = record_line(&trees.complete(&records[3]).unwrap(), &options);
    assert!(line.starts_with("fd_read(4, [{\"") && line.ends_with("..., 4096}], [4096]) = 0"), "{line}");
    let unread = WholeRecord::unread(&records[3]);
    assert_eq!(record_line(&unread, &options), "fd_read(4, [{<lib/data+4096>, 4096}], [4096]) = 0");
    assert!(record_json(&unread, &options).contains("\"content\":\"<lib/data+4096>\""));
    let control = OwnedRecord { call: 0xff00, ..OwnedRecord::default() };
    assert_eq!(WholeRecord::unread(&control).call(), 0xff00);
}
