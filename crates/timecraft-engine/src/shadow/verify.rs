//! The end of the log: are the real files as it says, and what must the host restore?

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, StatxFlags, statx};

use super::scratch::{Bytes, Scratch, unlinked_file};
use super::tree::{FileId, Kind, Name, Node, Size, Tail};
use super::{InFlight, Offset, Open, Shadow, Target, follows};
use crate::Call;
use crate::abi::{fdflags, oflags};
use crate::restore::{Descriptor, DescriptorKind, FirstCall, Restored, TornAppend, opened_rights};

/// Unit in which files are compared.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that a mismatch shows of either side.
const SHOWN_BYTES: usize = 16;
/// Attempts to open a path while others rename things around it (`openat2` says EAGAIN then).
const OPEN_ATTEMPTS: usize = 16;

/// How a real file differs from what the log says. Files are named as the guest and as the host know them.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error("{file}: the process had it, and it isn't there any more: put it back to resume")]
    Missing { file: String },
    #[error("{file}: it is {actual}, and the process had {expected}")]
    Type { file: String, expected: &'static str, actual: &'static str },
    #[error("{file}: the log says that it has {expected} bytes, and it has {actual}")]
    Size { file: String, expected: u64, actual: u64 },
    #[error("{file}: at offset {offset} the log says {}, and the file has {}", hex(expected), hex(actual))]
    Content { file: String, offset: u64, expected: Vec<u8>, actual: Vec<u8> },
    #[error("{file}: what the process appended is not at the file's end")]
    Tail { file: String },
    #[error(
        "{file}: the file's end looks the same whether the last append took effect or not, and the log doesn't tell \
         the size: the process can't be resumed without losing or doubling it"
    )]
    UnclearAppend { file: String },
    #[error("{file}: its content can't be told from the log: {reason}")]
    Unclear { file: String, reason: &'static str },
    #[error("descriptor {fd}: a file was deleted while open, and its content isn't in the log")]
    Deleted { fd: u32 },
    #[error("{file}: its offset in descriptor {fd} can't be told from the log")]
    OffsetUnknown { file: String, fd: u32 },
    #[error("{file} and {other} are the same file, which the log doesn't tell: its content can't be checked")]
    Aliased { file: String, other: String },
    #[error("{file}: {error}")]
    Io { file: String, error: io::Error },
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".into();
    }
    bytes.iter().enumerate().fold(String::new(), |mut text, (index, byte)| {
        let gap = if index == 0 { "" } else { " " };
        let _ = write!(text, "{gap}{byte:02x}");
        text
    })
}

/// The write that the guest makes next, which may be in the file already, or a part of it.
#[derive(Debug)]
struct PendingWrite {
    node: FileId,
    /// `None`: at the file's end.
    at: Option<u64>,
    data: Vec<u8>,
}

impl PendingWrite {
    /// Whether the difference at `offset` is the write's doing.
    fn explains(&self, offset: u64, actual: u8) -> bool {
        let index = self.at.and_then(|at| offset.checked_sub(at));
        index.is_some_and(|index| self.data.get(index as usize) == Some(&actual))
    }
}

/// What the real files told.
#[derive(Debug, Default)]
struct Found {
    torn_appends: Vec<TornAppend>,
    /// Where the tails of files began.
    bases: BTreeMap<FileId, u64>,
}

/// When a file was made, nanoseconds since the Unix epoch, if its file system knows.
fn born_unix_ns(file: &File) -> Option<u64> {
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    known.then(|| stat.stx_btime.tv_sec as u64 * 1_000_000_000 + u64::from(stat.stx_btime.tv_nsec))
}

/// One file under comparison.
struct Comparison<'s> {
    scratch: &'s Scratch,
    file: File,
    label: String,
    real_size: u64,
    /// The file was made while the process ran.
    is_new: bool,
    pending: Option<&'s PendingWrite>,
}

impl Shadow {
    /// Compares the real files with the log and says what the host must restore. Real files are only read.
    ///
    /// # Errors
    /// The first difference that the call in flight doesn't explain, or what the log can't tell.
    pub fn finish(mut self) -> Result<Restored, Mismatch> {
        let in_flight = self.in_flight.take();
        let Some(in_flight) = in_flight else { return self.restored(None, FirstCall::Redo) };
        if let Some(first_call) = self.took_effect(&in_flight) {
            // The state after the call is the one to find and to restore. It can't fail: its names are resolved.
            if first_call == FirstCall::AlreadyDone {
                let _ = self.succeeded(&in_flight.record());
            }
            return self.restored(None, first_call);
        }
        let pending = self.pending_write(&in_flight);
        match self.restored(pending.as_ref(), FirstCall::Redo) {
            // A resize in flight leaves the file in one of two states, and doing it again is harmless.
            Err(mismatch) if self.resize_in_flight(&in_flight) => {
                self.restored(None, FirstCall::Redo).map_err(|_| mismatch)
            }
            done => done,
        }
    }

    /// How to treat the call in flight, if it can be told that it took effect and would fail if done again.
    fn took_effect(&mut self, in_flight: &InFlight) -> Option<FirstCall> {
        let record = in_flight.record();
        // What must have been there before, and what after.
        let (before, after, first) = match in_flight.call {
            Call::PathCreateDirectory => (None, self.name(&record, 0, 1, false).ok()?, FirstCall::AlreadyDone),
            Call::PathSymlink => (None, self.name(&record, 2, 3, false).ok()?, FirstCall::AlreadyDone),
            Call::PathLink => (None, self.name(&record, 4, 5, false).ok()?, FirstCall::AlreadyDone),
            Call::PathOpen => {
                let both = u64::from(oflags::CREAT | oflags::EXCL);
                let name = self.name(&record, 0, 2, false).ok()?;
                return (record.arg(4).ok()? & both == both && self.appeared(&name, Call::PathOpen))
                    .then_some(FirstCall::AlreadyCreated);
            }
            Call::PathUnlinkFile | Call::PathRemoveDirectory => {
                let name = self.name(&record, 0, 1, false).ok()?;
                return self.vanished(&name).then_some(FirstCall::AlreadyDone);
            }
            Call::PathRename => {
                let old = self.name(&record, 0, 1, false).ok()?;
                (Some(old), self.name(&record, 3, 4, false).ok()?, FirstCall::AlreadyDone)
            }
            _ => return None,
        };
        let done = match before {
            Some(old) => self.vanished(&old) && self.stat(&after).is_some(),
            None => self.appeared(&after, in_flight.call),
        };
        done.then_some(first)
    }

    /// The guest knew that the name was free, and now there is what the call makes.
    fn appeared(&self, name: &Name, call: Call) -> bool {
        let Some(stat) = self.stat(name) else { return false };
        let fits = match call {
            Call::PathCreateDirectory => file_type(&stat) == FileType::Directory,
            Call::PathSymlink => file_type(&stat) == FileType::Symlink,
            Call::PathOpen => file_type(&stat) == FileType::RegularFile && stat.st_size == 0,
            _ => true,
        };
        fits && self.tree.seen(name) == Some(false)
    }

    /// The guest knew that the name was taken, and now it is free.
    fn vanished(&self, name: &Name) -> bool {
        self.tree.seen(name) == Some(true) && self.stat(name).is_none()
    }

    fn stat(&self, name: &Name) -> Option<Stat> {
        let fd = self.open_beneath(name, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        rustix::fs::fstat(fd).ok()
    }

    fn pending_write(&self, in_flight: &InFlight) -> Option<PendingWrite> {
        let open = self.open.get(&(*in_flight.args.first()? as u32))?;
        let Target::Node(node) = open.target else { return None };
        let append = open.flags & fdflags::APPEND != 0;
        let at = match (in_flight.call, open.offset) {
            (Call::FdWrite, _) if append => None,
            (Call::FdWrite, Offset::At(at)) => Some(at),
            (Call::FdWrite, offset) if self.is_at_tail(node, offset) => None,
            (Call::FdPwrite, _) => Some(*in_flight.args.get(3)?),
            _ => return None,
        };
        let data: Vec<u8> = in_flight.sent.iter().skip(1).flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let at = match (self.tree.node(node).size, at) {
            (Size::Exact(size), None) => Some(size),
            (_, at) => at,
        };
        Some(PendingWrite { node, at, data })
    }

    /// Applies a resize that may have taken effect. Whether there was one.
    fn resize_in_flight(&mut self, in_flight: &InFlight) -> bool {
        let record = in_flight.record();
        match in_flight.call {
            Call::FdFilestatSetSize | Call::FdAllocate => self.succeeded(&record).is_ok(),
            Call::PathOpen if record.arg(4).is_ok_and(|flags| flags & u64::from(oflags::TRUNC) != 0) => {
                let Ok(follow) = follows(&record) else { return false };
                let Ok(name) = self.name(&record, 0, 2, follow) else { return false };
                let Some(id) = self.tree.find(&name) else { return false };
                self.tree.node_mut(id).resize(&mut self.scratch, 0);
                true
            }
            _ => false,
        }
    }

    fn restored(&self, pending: Option<&PendingWrite>, first_call: FirstCall) -> Result<Restored, Mismatch> {
        let found = self.compare_files(pending)?;
        let mut descriptors = Vec::new();
        let mut rebuilt = HashMap::new();
        for (fd, open) in &self.open {
            let kind = self.descriptor_kind(*fd, open, &found, &mut rebuilt)?;
            let (rights_base, rights_inheriting) = match kind {
                DescriptorKind::Stdio(_)
                | DescriptorKind::Mount { .. }
                | DescriptorKind::Socket(_)
                | DescriptorKind::SocketDirectory(_) => (open.rights_base, open.rights_inheriting),
                _ => {
                    let is_directory = matches!(kind, DescriptorKind::Directory { .. });
                    opened_rights(is_directory, open.rights_base, open.rights_inheriting)
                }
            };
            descriptors.push(Descriptor { fd: *fd, kind, rights_base, rights_inheriting, flags: open.flags });
        }
        Ok(Restored { descriptors, torn_appends: found.torn_appends, monotonic_ns: self.monotonic_ns, first_call })
    }

    fn compare_files(&self, pending: Option<&PendingWrite>) -> Result<Found, Mismatch> {
        let mut found = Found::default();
        let mut inodes: HashMap<(u64, u64), String> = HashMap::new();
        for (id, node) in self.tree.nodes() {
            let pending = pending.filter(|pending| pending.node == id);
            let first_append = pending.is_some_and(|pending| pending.at.is_none());
            if !(node.written || first_append) {
                continue;
            }
            for (index, name) in node.names.iter().enumerate() {
                let label = self.label(name);
                let file = self.open_real(name, &label)?;
                let stat = rustix::fs::fstat(&file).map_err(|error| io_error(&label, error))?;
                if file_type(&stat) != FileType::RegularFile {
                    if node.kind == Kind::Regular || file_type(&stat) == FileType::Directory {
                        return Err(Mismatch::Type { file: label, expected: "a file", actual: describe(&stat) });
                    }
                    continue;
                }
                if index > 0 {
                    continue;
                }
                if let Some(other) = inodes.insert((stat.st_dev, stat.st_ino), label.clone()) {
                    return Err(Mismatch::Aliased { file: label, other });
                }
                let real_size = stat.st_size as u64;
                let is_new = born_unix_ns(&file).is_some_and(|born_ns| born_ns >= self.config.started_unix_ns);
                let comparison = Comparison { scratch: &self.scratch, file, label, real_size, is_new, pending };
                comparison.run(id, node, name, &mut found)?;
            }
        }
        Ok(found)
    }

    fn descriptor_kind(
        &self,
        fd: u32,
        open: &Open,
        found: &Found,
        rebuilt: &mut HashMap<FileId, File>,
    ) -> Result<DescriptorKind, Mismatch> {
        let id = match open.target {
            Target::Stdio(number) => return Ok(DescriptorKind::Stdio(number)),
            Target::Mount(mount) => return Ok(DescriptorKind::Mount { mount }),
            Target::SocketDirectory(directory) => return Ok(DescriptorKind::SocketDirectory(directory)),
            Target::Socket(socket) => return Ok(DescriptorKind::Socket(self.sockets.get(socket).clone())),
            Target::Node(id) => id,
        };
        let node = self.tree.node(id);
        let offset = |label: &str| match open.offset {
            Offset::At(at) => Ok(at),
            Offset::Tail(at) if found.bases.contains_key(&id) => Ok(found.bases[&id] + at),
            Offset::Tail(_) | Offset::Unknown if node.kind == Kind::Special => Ok(0),
            Offset::Tail(_) | Offset::Unknown => Err(Mismatch::OffsetUnknown { file: label.into(), fd }),
        };
        let Some(name) = node.names.first() else {
            let offset = offset("a deleted file")?;
            return Ok(DescriptorKind::Rebuilt { file: self.rebuild(fd, id, node, rebuilt)?, offset });
        };
        let label = self.label(name);
        let real = self.open_beneath(name, OFlags::PATH).map_err(|error| missing(&label, error))?;
        let stat = rustix::fs::fstat(&real).map_err(|error| io_error(&label, error))?;
        let is_directory = file_type(&stat) == FileType::Directory;
        let (mount, path) = (name.mount, name.path.clone());
        match (node.kind, is_directory) {
            (Kind::Directory, false) => {
                Err(Mismatch::Type { file: label, expected: "a directory", actual: describe(&stat) })
            }
            (Kind::Regular | Kind::Special, true) => {
                Err(Mismatch::Type { file: label, expected: "a file", actual: describe(&stat) })
            }
            (_, true) => Ok(DescriptorKind::Directory { mount, path }),
            (_, false) => Ok(DescriptorKind::File { mount, path, offset: offset(&label)? }),
        }
    }

    /// A deleted file made anew. All descriptors of one share the file, each with an offset of its own.
    fn rebuild(&self, fd: u32, id: FileId, node: &Node, rebuilt: &mut HashMap<FileId, File>) -> Result<File, Mismatch> {
        let failed = |error| Mismatch::Io { file: format!("descriptor {fd}, rebuilding a deleted file"), error };
        if let Entry::Vacant(slot) = rebuilt.entry(id) {
            let size = node.rebuildable().ok_or(Mismatch::Deleted { fd })?;
            slot.insert(self.write_anew(node, size).map_err(failed)?);
        }
        let again = format!("/proc/self/fd/{}", rebuilt[&id].as_raw_fd());
        File::options().read(true).write(true).open(again).map_err(failed)
    }

    fn write_anew(&self, node: &Node, size: u64) -> io::Result<File> {
        let file = unlinked_file(&self.config.scratch)?;
        file.set_len(size)?;
        let mut buffer = vec![0; PIECE_BYTES];
        for (start, count) in node.body.known().iter().flat_map(|(start, end)| pieces(start, end)) {
            node.body.read(&self.scratch, start, &mut buffer[..count])?;
            file.write_all_at(&buffer[..count], start)?;
        }
        Ok(file)
    }

    fn label(&self, name: &Name) -> String {
        let mount = &self.config.mounts[name.mount];
        let path = String::from_utf8_lossy(&name.path);
        let guest = format!("{}/{path}", mount.guest.trim_end_matches('/'));
        let host = mount.host.join(&*path);
        // Names come from the guest: escape codes must not reach a terminal.
        format!("{} ({})", guest.escape_debug(), host.to_string_lossy().escape_debug())
    }

    fn open_real(&self, name: &Name, label: &str) -> Result<File, Mismatch> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open_beneath(name, flags).map_err(|error| missing(label, error))?;
        Ok(File::from(file))
    }

    fn open_beneath(&self, name: &Name, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (host, flags) = (&self.config.mounts[name.mount].host, flags | OFlags::CLOEXEC);
        let root = match rustix::fs::open(host, directory, Mode::empty()) {
            // A mount that is a device.
            Err(rustix::io::Errno::NOTDIR) if name.path.is_empty() => {
                return rustix::fs::open(host, flags, Mode::empty());
            }
            root => root?,
        };
        let path: &[u8] = if name.path.is_empty() { b"." } else { &name.path };
        for _ in 1..OPEN_ATTEMPTS {
            match rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH) {
                Err(rustix::io::Errno::AGAIN) => {}
                done => return done,
            }
        }
        rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH)
    }
}

impl Comparison<'_> {
    fn run(&self, id: FileId, node: &Node, name: &Name, found: &mut Found) -> Result<(), Mismatch> {
        if let Some(reason) = node.doubt {
            return Err(Mismatch::Unclear { file: self.label.clone(), reason });
        }
        let torn = |size| TornAppend { mount: name.mount, path: name.path.clone(), size };
        match (&node.tail, node.size) {
            (None, Size::Exact(size)) => {
                if self.check_size(size)? && self.pending.is_some_and(|pending| pending.at == Some(size)) {
                    found.torn_appends.push(torn(size));
                }
                if node.complete {
                    for (start, end) in node.body.known().gaps(size) {
                        self.compare_zeros(start, end)?;
                    }
                }
            }
            (tail, Size::AtLeast(least) | Size::Exact(least)) => {
                if self.real_size < least {
                    return Err(self.size_mismatch(least));
                }
                let nothing = Tail::default();
                let tail = tail.as_ref().unwrap_or(&nothing);
                if tail.len > 0 || self.pending.is_some_and(|pending| pending.at.is_none()) {
                    let base = self.find_tail(tail, least)?;
                    found.bases.insert(id, base);
                    if base + tail.len < self.real_size {
                        found.torn_appends.push(torn(base + tail.len));
                    }
                }
            }
        }
        self.compare(&node.body, 0)
    }

    fn size_mismatch(&self, expected: u64) -> Mismatch {
        Mismatch::Size { file: self.label.clone(), expected, actual: self.real_size }
    }

    /// Checks a size that is known but for the write in flight. Whether the file is longer, by that write.
    fn check_size(&self, size: u64) -> Result<bool, Mismatch> {
        if self.real_size == size {
            return Ok(false);
        }
        let Some((pending, at)) = self.pending.and_then(|pending| Some((pending, pending.at?))) else {
            return Err(self.size_mismatch(size));
        };
        let end = at.saturating_add(pending.data.len() as u64);
        if self.real_size < size || self.real_size > end {
            return Err(self.size_mismatch(size));
        }
        let start = at.max(size);
        let expected = &pending.data[(start - at) as usize..(self.real_size - at) as usize];
        let mut actual = vec![0; expected.len()];
        self.read(start, &mut actual)?;
        if actual == expected { Ok(true) } else { Err(self.size_mismatch(size)) }
    }

    /// Where the tail starts in the real file: it is at the end, but for the append in flight.
    fn find_tail(&self, tail: &Tail, least: u64) -> Result<u64, Mismatch> {
        let data = self.pending.filter(|pending| pending.at.is_none()).map_or(&[][..], |pending| &pending.data);
        let mut end = vec![0; self.real_size.min(data.len() as u64) as usize];
        self.read(self.real_size - end.len() as u64, &mut end)?;
        // A write is cut short only where the kernel goes from page to page; anything else is there fully or not.
        let partial = if self.real_size.is_multiple_of(4096) { 1..data.len() } else { 0..0 };
        let fits = |landed: usize| {
            let base = self.real_size.checked_sub(tail.len + landed as u64).filter(|base| *base >= least)?;
            let is_there = end.ends_with(&data[..landed]) && self.compare(&tail.bytes, base).is_ok();
            is_there.then_some(base)
        };
        let full = (!data.is_empty()).then_some(data.len());
        let mut found = [0].into_iter().chain(partial.clone()).chain(full).filter_map(fits);
        match (found.next(), found.next()) {
            (Some(base), None) => return Ok(base),
            (None, _) => return Err(Mismatch::Tail { file: self.label.clone() }),
            _ => {}
        }
        // Several readings fit the bytes; a file that the guest made holds nothing but what it appended.
        let all = usize::try_from(self.real_size.saturating_sub(tail.len)).unwrap_or(usize::MAX);
        let possible = all == 0 || all == data.len() || partial.contains(&all);
        if self.is_new && possible && fits(all) == Some(0) {
            return Ok(0);
        }
        Err(Mismatch::UnclearAppend { file: self.label.clone() })
    }

    /// Compares all known bytes with the file, where they start at `base`.
    fn compare(&self, bytes: &Bytes, base: u64) -> Result<(), Mismatch> {
        let mut expected = vec![0; PIECE_BYTES];
        let mut actual = vec![0; PIECE_BYTES];
        for (start, count) in bytes.known().iter().flat_map(|(start, end)| pieces(start, end)) {
            let (expected, actual) = (&mut expected[..count], &mut actual[..count]);
            bytes.read(self.scratch, start, expected).map_err(|error| self.io(error))?;
            self.read(base + start, actual)?;
            self.differ(base + start, expected, actual)?;
        }
        Ok(())
    }

    /// Checks that a range that was never written is zero. Holes are skipped: a file may have terabytes of them.
    fn compare_zeros(&self, start: u64, end: u64) -> Result<(), Mismatch> {
        let zeros = vec![0; PIECE_BYTES];
        let mut actual = vec![0; PIECE_BYTES];
        let mut at = start;
        while at < end {
            match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => at = data,
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(self.io(error.into())),
            }
            let Some((_, count)) = pieces(at, end).next() else { return Ok(()) };
            self.read(at, &mut actual[..count])?;
            self.differ(at, &zeros[..count], &actual[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    fn differ(&self, start: u64, expected: &[u8], actual: &[u8]) -> Result<(), Mismatch> {
        if expected == actual {
            return Ok(());
        }
        let explained = |at: usize| self.pending.is_some_and(|pending| pending.explains(start + at as u64, actual[at]));
        let Some(at) = (0..expected.len()).find(|at| expected[*at] != actual[*at] && !explained(*at)) else {
            return Ok(());
        };
        let shown = at..(at + SHOWN_BYTES).min(expected.len());
        Err(Mismatch::Content {
            file: self.label.clone(),
            offset: start + at as u64,
            expected: expected[shown.clone()].to_vec(),
            actual: actual[shown].to_vec(),
        })
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Mismatch> {
        self.file.read_exact_at(buffer, offset).map_err(|error| self.io(error))
    }

    fn io(&self, error: io::Error) -> Mismatch {
        Mismatch::Io { file: self.label.clone(), error }
    }
}

fn pieces(start: u64, end: u64) -> impl Iterator<Item = (u64, usize)> {
    (start..end).step_by(PIECE_BYTES).map(move |at| (at, (end - at).min(PIECE_BYTES as u64) as usize))
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn describe(stat: &Stat) -> &'static str {
    match file_type(stat) {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        _ => "a special file",
    }
}

fn missing(label: &str, error: rustix::io::Errno) -> Mismatch {
    match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => Mismatch::Missing { file: label.into() },
        _ => io_error(label, error),
    }
}

fn io_error(label: &str, error: rustix::io::Errno) -> Mismatch {
    Mismatch::Io { file: label.into(), error: error.into() }
}
