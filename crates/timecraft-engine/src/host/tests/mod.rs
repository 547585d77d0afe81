//! Host calls, driven as a guest would: raw arguments, a memory, and nothing else.

mod attenuation;
mod calls;
mod directories;
mod escapes;
mod files;
mod hostile;
mod limits;
mod mounts;
mod polling;
mod races;
mod restoring;
mod sockets;
mod streams;

use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::{Host, HostConfig, Mount, Stdio};
use crate::abi::{event, fdflags, lookupflags, oflags, rights};
use crate::memory::Notes;
use crate::{Call, Errno, Halt, KillSwitch, Memory, System};

const MEMORY_BYTES: usize = 256 << 10;
/// Where results go: below, `put` never reaches.
const OUT: u32 = 0x100;
const OUT2: u32 = 0x180;
/// A buffer for the host to fill.
const BUFFER: u32 = 0x2_0000;
const BUFFER_BYTES: u32 = 0x1_0000;
/// Where inputs are put.
const ARENA: u32 = 0x1000;
const ARENA_END: u32 = BUFFER;
/// What memory holds before anything is written: a host that leaves padding shows.
const POISON: u8 = 0xaa;
const ALL: u64 = rights::ALL;
const FOLLOW: u64 = lookupflags::SYMLINK_FOLLOW as u64;
const RW: u64 = 3;
const RO: u64 = 4;

/// A guest's memory around a host. Every call is audited: what it changes in memory, it must have noted.
struct Guest {
    host: Host,
    memory: Vec<u8>,
    notes: Notes,
    kill: Arc<KillSwitch>,
    next: u32,
}

impl Guest {
    fn new(config: HostConfig) -> Self {
        let kill = Arc::new(KillSwitch::new().unwrap());
        let host = Host::new(config, Arc::clone(&kill)).unwrap();
        Guest { host, memory: vec![POISON; MEMORY_BYTES], notes: Notes::default(), kill, next: ARENA }
    }

    /// Makes a call that returns.
    fn call(&mut self, call: Call, args: &[u64]) -> Errno {
        self.try_call(call, args).unwrap()
    }

    fn try_call(&mut self, call: Call, args: &[u64]) -> Result<Errno, Halt> {
        assert_eq!(args.len(), call.spec().types().len(), "{}", call.name());
        let before = self.memory.clone();
        let mut memory = Memory::new(&mut self.memory, &mut self.notes);
        let done = self.host.call(call, args, &mut memory);
        let mut expected = before;
        for (ptr, bytes) in memory.written() {
            expected[ptr as usize..ptr as usize + bytes.len()].copy_from_slice(bytes);
        }
        assert!(expected == self.memory, "{} changed memory without a note", call.name());
        done
    }

    /// Puts an input into memory.
    fn put(&mut self, bytes: &[u8]) -> (u64, u64) {
        if self.next as usize + bytes.len() > ARENA_END as usize {
            self.next = ARENA;
        }
        let ptr = self.next;
        self.memory[ptr as usize..ptr as usize + bytes.len()].copy_from_slice(bytes);
        self.next = (ptr + bytes.len() as u32).next_multiple_of(8);
        (u64::from(ptr), bytes.len() as u64)
    }

    /// Puts a list of buffers into memory, and returns where and how many.
    fn iovecs(&mut self, buffers: &[(u64, u64)]) -> (u64, u64) {
        let list: Vec<u8> = buffers
            .iter()
            .flat_map(|(ptr, len)| [(*ptr as u32).to_le_bytes(), (*len as u32).to_le_bytes()].concat())
            .collect();
        (self.put(&list).0, buffers.len() as u64)
    }

    fn u32(&self, ptr: u32) -> u32 {
        u32::from_le_bytes(self.memory[ptr as usize..ptr as usize + 4].try_into().unwrap())
    }

    fn u64(&self, ptr: u32) -> u64 {
        u64::from_le_bytes(self.memory[ptr as usize..ptr as usize + 8].try_into().unwrap())
    }

    fn buffer(&self, len: u32) -> &[u8] {
        &self.memory[BUFFER as usize..BUFFER as usize + len as usize]
    }

    fn open_with(&mut self, dir: u64, path: &str, oflags: u16, rights: (u64, u64), flags: u16) -> Result<u64, Errno> {
        self.open_at(dir, FOLLOW, path.as_bytes(), oflags, rights, flags)
    }

    fn open_at(
        &mut self,
        dir: u64,
        lookup: u64,
        path: &[u8],
        oflags: u16,
        (base, inheriting): (u64, u64),
        flags: u16,
    ) -> Result<u64, Errno> {
        let (ptr, len) = self.put(path);
        let args = [dir, lookup, ptr, len, oflags.into(), base, inheriting, flags.into(), OUT.into()];
        match self.call(Call::PathOpen, &args) {
            Errno::Success => Ok(self.u32(OUT).into()),
            errno => Err(errno),
        }
    }

    /// Opens for reading.
    fn open(&mut self, dir: u64, path: &str) -> Result<u64, Errno> {
        self.open_with(dir, path, 0, (ALL & !rights::FD_WRITE, ALL), 0)
    }

    /// Opens for reading and writing, made if need be.
    fn create(&mut self, dir: u64, path: &str) -> Result<u64, Errno> {
        self.open_with(dir, path, oflags::CREAT, (ALL, ALL), 0)
    }

    fn close(&mut self, fd: u64) -> Errno {
        self.call(Call::FdClose, &[fd])
    }

    fn write(&mut self, fd: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let data = self.put(bytes);
        let (iovecs, count) = self.iovecs(&[data]);
        match self.call(Call::FdWrite, &[fd, iovecs, count, OUT.into()]) {
            Errno::Success => Ok(self.u32(OUT)),
            errno => Err(errno),
        }
    }

    fn read(&mut self, fd: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let (iovecs, count) = self.iovecs(&[(BUFFER.into(), len.into())]);
        match self.call(Call::FdRead, &[fd, iovecs, count, OUT.into()]) {
            Errno::Success => Ok(self.buffer(self.u32(OUT)).to_vec()),
            errno => Err(errno),
        }
    }

    /// A call on one path: descriptor, pointer, length.
    fn at(&mut self, call: Call, dir: u64, path: &[u8]) -> Errno {
        let (ptr, len) = self.put(path);
        self.call(call, &[dir, ptr, len])
    }

    fn stat(&mut self, dir: u64, flags: u64, path: &[u8]) -> Errno {
        let (ptr, len) = self.put(path);
        self.call(Call::PathFilestatGet, &[dir, flags, ptr, len, OUT.into()])
    }

    fn symlink(&mut self, target: &[u8], dir: u64, path: &[u8]) -> Errno {
        let (target, path) = (self.put(target), self.put(path));
        self.call(Call::PathSymlink, &[target.0, target.1, dir, path.0, path.1])
    }

    fn link(&mut self, old: (u64, &[u8]), new: (u64, &[u8])) -> Errno {
        self.link_with(0, old, new)
    }

    fn link_with(&mut self, flags: u64, old: (u64, &[u8]), new: (u64, &[u8])) -> Errno {
        let (from, to) = (self.put(old.1), self.put(new.1));
        self.call(Call::PathLink, &[old.0, flags, from.0, from.1, new.0, to.0, to.1])
    }

    fn rename(&mut self, old: (u64, &[u8]), new: (u64, &[u8])) -> Errno {
        let (from, to) = (self.put(old.1), self.put(new.1));
        self.call(Call::PathRename, &[old.0, from.0, from.1, new.0, to.0, to.1])
    }

    fn set_times(&mut self, dir: u64, path: &[u8]) -> Errno {
        let (ptr, len) = self.put(path);
        self.call(Call::PathFilestatSetTimes, &[dir, FOLLOW, ptr, len, 1, 1, 5])
    }

    fn readlink(&mut self, dir: u64, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let (ptr, len) = self.put(path);
        let args = [dir, ptr, len, BUFFER.into(), BUFFER_BYTES.into(), OUT.into()];
        match self.call(Call::PathReadlink, &args) {
            Errno::Success => Ok(self.buffer(self.u32(OUT)).to_vec()),
            errno => Err(errno),
        }
    }

    fn seek(&mut self, fd: u64, offset: i64, whence: u64) -> Result<u64, Errno> {
        match self.call(Call::FdSeek, &[fd, offset as u64, whence, OUT.into()]) {
            Errno::Success => Ok(self.u64(OUT)),
            errno => Err(errno),
        }
    }
}

/// Two mounts, `rw` (descriptor 3) and `ro` (4), in a folder with a secret beside them.
struct World {
    guest: Guest,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut HostConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for dir in ["rw", "ro", "rw/dir", "ro/dir", "rw/empty"] {
            std::fs::create_dir(folder.path().join(dir)).unwrap();
        }
        for file in ["secret", "rw/file", "ro/file", "rw/dir/inner"] {
            std::fs::write(folder.path().join(file), format!("this is {file}\n")).unwrap();
        }
        let mut config = config(folder.path());
        change(&mut config);
        World { guest: Guest::new(config), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// All that is in the folder: names, types, contents, and times of change.
    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.folder.path().to_owned()];
        while let Some(path) = left.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let of = (meta.mode(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), meta.size(), content);
            if meta.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            found.insert(path, format!("{of:?}"));
        }
        found
    }
}

fn config(folder: &Path) -> HostConfig {
    let mount = |name: &str, read_only| Mount {
        host: folder.join(name),
        guest: format!("/{name}"),
        read_only,
        immutable: false,
    };
    HostConfig {
        args: vec![b"guest".to_vec(), b"argument".to_vec()],
        env: vec![b"KEY=value".to_vec()],
        mounts: vec![mount("rw", false), mount("ro", true)],
        ..HostConfig::default()
    }
}

/// A guest whose standard input is a pipe that the test writes to.
fn with_stdin() -> (Guest, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Guest::new(HostConfig { stdin: Stdio::Descriptor(reader.into()), ..HostConfig::default() }), writer)
}

/// A guest whose standard output is a pipe that the test reads from.
fn with_stdout() -> (Guest, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Guest::new(HostConfig { stdout: Stdio::Descriptor(writer.into()), ..HostConfig::default() }), reader)
}
