//! What the host's descriptors and the guest's files would be, told from the log alone.
//!
//! While a process is replayed to be resumed, a [`Shadow`] follows its records, with no effect on real files: the
//! table of descriptors with their offsets, the names of files, and the bytes that the guest wrote. At the end of the
//! log [`Shadow::finish`] compares the real files with that and says what the host must restore.
//!
//! The host may have died between a call's effect and its record. The guest makes that very call next, so the call is
//! known ([`Shadow::expect_in_flight`]) and so is each trace that it can have left: those are accepted, and any other
//! difference is a [`Mismatch`]. A call that would fail if done twice is found out where the log tells enough
//! ([`FirstCall`](crate::restore::FirstCall)): it knew that the name was (or wasn't) there, and now it isn't (or is).
//!
//! Files that are opened for appending have a size that the log doesn't tell until a result does (`fd_filestat_get`,
//! `fd_tell`, `fd_seek`). Until then appended bytes are kept as a tail of their own, and at the end looked for at the
//! end of the real file. If it can't be told whether the append in flight is there (the file's end looks the same
//! with and without it), that is a mismatch too: guessing would lose or double a line.

mod scratch;
mod sockets;
mod tree;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use self::scratch::Scratch;
use self::sockets::{SocketId, Sockets};
use self::tree::{FileId, Kind, Landed, Name, Tree};
use crate::abi::bounds::{IOVECS_MAX, PATH_BYTES_MAX, TRANSFER_BYTES_MAX};
use crate::abi::{clockid, fdflags, filetype, lookupflags, oflags, rights, size, whence};
use crate::calls;
use crate::host::SocketDirectory;
use crate::host::sockets::{PREOPENED_FLAGS, SOCKET_RIGHTS};
use crate::restore::{
    MOUNT_RIGHTS_BASE, MOUNT_RIGHTS_INHERITING, RestoredSocket, SOCKET_DIRECTORY_RIGHTS, UNRESTRICTED,
};
use crate::{Call, Errno, Memory};

pub use self::sockets::preopened_sockets;
pub use self::verify::Mismatch;

/// Bytes written by a guest that a shadow keeps unless told otherwise.
pub const SCRATCH_BYTES_MAX: u64 = 8 << 30;

/// A directory of the host that the guest sees, as in the configuration of the recorded run.
#[derive(Clone, Debug)]
pub struct ShadowMount {
    pub host: PathBuf,
    pub guest: String,
    pub read_only: bool,
}

/// What a shadow must know of the recorded run, and where it may keep bytes.
#[derive(Clone, Debug)]
pub struct ShadowConfig {
    pub mounts: Vec<ShadowMount>,
    /// Whether the guest found sockets as paths.
    pub socket_paths: bool,
    /// The sockets that the guest had from its start, in their order.
    pub sockets: Vec<RestoredSocket>,
    /// Directory for files without a name: what the guest wrote, and what is rebuilt of it.
    pub scratch: PathBuf,
    /// Limit on what of the guest's output is kept, bytes ([`SCRATCH_BYTES_MAX`]).
    pub scratch_bytes_max: u64,
    /// When the process began, nanoseconds since the Unix epoch: a file born later had no content before it.
    pub started_unix_ns: u64,
}

/// Why a log can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    #[error("{}: the log uses descriptor {fd}, which it never opened", call.name())]
    UnknownDescriptor { call: Call, fd: u32 },
    #[error("{}: the record can't be: {what}", call.name())]
    Malformed { call: Call, what: &'static str },
    #[error("{}: the log has only a digest of what the guest wrote: record with record.output = inline", call.name())]
    OutputNotInLog { call: Call },
    #[error("the guest wrote more than the {max} bytes that may be kept to check its files: raise the limit")]
    ScratchFull { max: u64 },
    #[error("scratch file: {0}")]
    Io(#[from] io::Error),
}

/// A descriptor's place in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offset {
    At(u64),
    /// From the start of the file's tail.
    Tail(u64),
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Stdio(u8),
    Mount(usize),
    Node(FileId),
    Socket(SocketId),
    SocketDirectory(SocketDirectory),
}

#[derive(Clone, Debug)]
struct Open {
    target: Target,
    offset: Offset,
    rights_base: u64,
    rights_inheriting: u64,
    flags: u16,
}

/// A descriptor as the shadow knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub fd: u32,
    /// Mount and path; `None` for standard streams and for files that have no name any more.
    pub name: Option<(usize, Vec<u8>)>,
    /// `None` if the log doesn't tell.
    pub offset: Option<u64>,
    pub rights_base: u64,
    pub rights_inheriting: u64,
    pub flags: u16,
}

/// One record, its regions at hand.
struct Record<'r> {
    call: Call,
    args: &'r [u64],
    written: Vec<(u32, &'r [u8])>,
    sent: Vec<(u32, &'r [u8])>,
}

impl<'r> Record<'r> {
    fn malformed(&self, what: &'static str) -> ShadowError {
        ShadowError::Malformed { call: self.call, what }
    }

    fn arg(&self, index: usize) -> Result<u64, ShadowError> {
        self.args.get(index).copied().ok_or_else(|| self.malformed("an argument is missing"))
    }

    fn fd(&self, index: usize) -> Result<u32, ShadowError> {
        Ok(self.arg(index)? as u32)
    }

    /// The result that the argument points to. The last write counts: a hostile guest may let results overlap.
    fn result(&self, index: usize, len: u32) -> Result<&'r [u8], ShadowError> {
        let ptr = self.arg(index)? as u32;
        let cell = self.written.iter().rev().find(|(at, bytes)| *at == ptr && bytes.len() == len as usize);
        cell.map(|(_, bytes)| *bytes).ok_or_else(|| self.malformed("a result is missing"))
    }

    fn result_u32(&self, index: usize) -> Result<u32, ShadowError> {
        Ok(u32_at(self.result(index, 4)?, 0))
    }

    fn result_u64(&self, index: usize) -> Result<u64, ShadowError> {
        Ok(u64_at(self.result(index, 8)?, 0))
    }

    /// The path whose pointer and length are arguments `index` and `index + 1`.
    fn path(&self, index: usize) -> Result<&'r [u8], ShadowError> {
        let (ptr, len) = (self.arg(index)? as u32, self.arg(index + 1)?);
        let region = self.sent.iter().find(|(at, bytes)| *at == ptr && bytes.len() as u64 == len);
        region.map(|(_, bytes)| *bytes).ok_or(ShadowError::OutputNotInLog { call: self.call })
    }

    /// The pieces that the guest handed over, cut to the bytes that were taken. The first region is the list of pieces.
    fn data(&self, taken: u32) -> Result<Vec<&'r [u8]>, ShadowError> {
        let mut rest = taken as usize;
        let mut pieces = Vec::new();
        for (_, bytes) in self.sent.iter().skip(1) {
            let count = bytes.len().min(rest);
            pieces.push(&bytes[..count]);
            rest -= count;
        }
        if rest == 0 { Ok(pieces) } else { Err(ShadowError::OutputNotInLog { call: self.call }) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The call that the guest makes next, and what it hands over.
#[derive(Clone, Debug)]
struct InFlight {
    call: Call,
    args: Vec<u64>,
    sent: Vec<(u32, Vec<u8>)>,
}

impl InFlight {
    fn record(&self) -> Record<'_> {
        let sent = self.sent.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice())).collect();
        Record { call: self.call, args: &self.args, written: Vec::new(), sent }
    }
}

/// The state of a recorded process's descriptors and files, as its records tell it.
#[derive(Debug)]
pub struct Shadow {
    config: ShadowConfig,
    scratch: Scratch,
    tree: Tree,
    open: BTreeMap<u32, Open>,
    sockets: Sockets,
    monotonic_ns: u64,
    in_flight: Option<InFlight>,
}

impl Shadow {
    /// The state at a process's start.
    ///
    /// # Errors
    /// When the scratch directory can't hold a file.
    pub fn new(config: ShadowConfig) -> io::Result<Self> {
        let scratch = Scratch::create(&config.scratch, config.scratch_bytes_max)?;
        let mut open = BTreeMap::new();
        let at_start = |target, rights_base, rights_inheriting| Open {
            target,
            offset: Offset::At(0),
            rights_base,
            rights_inheriting,
            flags: 0,
        };
        for number in 0..3u8 {
            open.insert(u32::from(number), at_start(Target::Stdio(number), UNRESTRICTED, 0));
        }
        for mount in 0..config.mounts.len() {
            let entry = at_start(Target::Mount(mount), MOUNT_RIGHTS_BASE, MOUNT_RIGHTS_INHERITING);
            open.insert(3 + mount as u32, entry);
        }
        for directory in SocketDirectory::ALL.into_iter().filter(|_| config.socket_paths) {
            let target = Target::SocketDirectory(directory);
            open.insert(open.len() as u32, at_start(target, SOCKET_DIRECTORY_RIGHTS, MOUNT_RIGHTS_INHERITING));
        }
        let (tree, mut sockets) = (Tree::default(), Sockets::default());
        for socket in config.sockets.clone() {
            let target = Target::Socket(sockets.insert_preopened(socket));
            let entry = Open { flags: PREOPENED_FLAGS, ..at_start(target, SOCKET_RIGHTS, SOCKET_RIGHTS) };
            open.insert(open.len() as u32, entry);
        }
        Ok(Shadow { config, scratch, tree, open, sockets, monotonic_ns: 0, in_flight: None })
    }

    /// Follows one record.
    ///
    /// # Errors
    /// When the record contradicts the log before it, or holds too little. The shadow is of no use afterwards.
    pub fn apply<'r>(
        &mut self,
        call: Call,
        args: &'r [u64],
        errno: Errno,
        written: impl Iterator<Item = (u32, &'r [u8])>,
        sent: impl Iterator<Item = (u32, &'r [u8])>,
    ) -> Result<(), ShadowError> {
        let record = Record { call, args, written: written.collect(), sent: sent.collect() };
        match errno {
            Errno::Success => self.succeeded(&record),
            Errno::Noent => self.found_nothing(&record),
            // The connection comes about without the guest.
            Errno::Inprogress | Errno::Intr if call == Call::SockConnect => self.succeeded(&record),
            _ => Ok(()),
        }
    }

    /// Tells the call that the guest makes next, at the end of the log: it may have taken effect already.
    pub fn expect_in_flight(&mut self, call: Call, args: &[u64], memory: &Memory<'_>) {
        let mut sent = Vec::new();
        let mut index = 0;
        let arg = |index: usize| args.get(index).copied().unwrap_or(0) as u32;
        for param in call.spec().params {
            match param.kind {
                calls::Kind::Path => {
                    if arg(index + 1) <= PATH_BYTES_MAX
                        && let Ok(path) = memory.peek(arg(index), arg(index + 1))
                    {
                        sent.push((arg(index), path.to_vec()));
                    }
                }
                calls::Kind::IovecsOut if arg(index + 1) <= IOVECS_MAX => {
                    if let Ok(list) = memory.peek(arg(index), arg(index + 1) * size::IOVEC) {
                        sent.push((arg(index), list.to_vec()));
                        sent.extend(pieces(list, memory));
                    }
                }
                _ => {}
            }
            index += param.kind.types().len();
        }
        self.in_flight = Some(InFlight { call, args: args.to_vec(), sent });
    }

    /// The open descriptors, in order of number.
    pub fn descriptors(&self) -> Vec<Held> {
        let name = |target| match target {
            Target::Stdio(_) | Target::Socket(_) | Target::SocketDirectory(_) => None,
            Target::Mount(mount) => Some((mount, Vec::new())),
            Target::Node(id) => self.tree.node(id).names.first().map(|name| (name.mount, name.path.clone())),
        };
        let held = |(fd, open): (&u32, &Open)| Held {
            fd: *fd,
            name: name(open.target),
            offset: if let Offset::At(offset) = open.offset { Some(offset) } else { None },
            rights_base: open.rights_base,
            rights_inheriting: open.rights_inheriting,
            flags: open.flags,
        };
        self.open.iter().map(held).collect()
    }

    /// Every call is named here, so that a new one forces a decision.
    fn succeeded(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        match record.call {
            Call::ClockTimeGet => self.clock_time_get(record),
            Call::FdAllocate => self.fd_allocate(record),
            Call::FdClose => self.fd_close(record),
            Call::FdFdstatGet => self.fd_fdstat_get(record),
            Call::FdFdstatSetFlags => {
                self.held(record, 0)?.flags = record.arg(1)? as u16;
                Ok(())
            }
            Call::FdFdstatSetRights => {
                let open = self.held(record, 0)?;
                (open.rights_base, open.rights_inheriting) = (record.arg(1)?, record.arg(2)?);
                Ok(())
            }
            Call::FdFilestatGet => self.fd_filestat_get(record),
            Call::FdFilestatSetSize => self.fd_filestat_set_size(record),
            Call::FdPwrite => self.fd_pwrite(record),
            Call::FdRead => self.fd_read(record),
            Call::FdReaddir => self.learn_kind(record, Kind::Directory),
            Call::FdRenumber => self.fd_renumber(record),
            Call::FdSeek => self.fd_seek(record),
            Call::FdTell => self.fd_tell(record),
            Call::FdWrite => self.fd_write(record),
            Call::PathCreateDirectory => self.path_create_directory(record),
            Call::PathFilestatGet => self.path_filestat_get(record),
            Call::PathLink => self.path_link(record),
            Call::PathOpen => self.path_open(record),
            Call::PathRemoveDirectory | Call::PathUnlinkFile => self.path_removed(record),
            Call::PathRename => self.path_rename(record),
            Call::PathSymlink => self.path_symlink(record),
            Call::SockOpen => self.sock_open(record),
            Call::SockBind => self.sock_bind(record),
            Call::SockListen => self.sock_listen(record),
            Call::SockConnect => self.sock_connect(record),
            Call::SockAccept => self.sock_accept(record, record.arg(1)? as u16, 2),
            Call::SockAcceptV1 => self.sock_accept(record, 0, 1),
            Call::SockShutdown => self.sock_shutdown(record),
            Call::SockGetsockopt => self.sock_getsockopt(record),
            Call::SockSetsockopt => self.sock_setsockopt(record),
            Call::SockGetlocaladdr => self.sock_getlocaladdr(record, 2),
            Call::SockGetlocaladdrV1 => self.sock_getlocaladdr(record, 3),
            // No effect on descriptors, names or content.
            Call::ArgsGet
            | Call::ArgsSizesGet
            | Call::EnvironGet
            | Call::EnvironSizesGet
            | Call::ClockResGet
            | Call::FdAdvise
            | Call::FdDatasync
            | Call::FdFilestatSetTimes
            | Call::FdPread
            | Call::FdPrestatGet
            | Call::FdPrestatDirName
            | Call::FdSync
            | Call::PathFilestatSetTimes
            | Call::PathReadlink
            | Call::PollOneoff
            | Call::ProcExit
            | Call::ProcRaise
            | Call::SchedYield
            | Call::RandomGet
            | Call::SockRecv
            | Call::SockSend
            | Call::SockSendTo
            | Call::SockRecvFrom
            | Call::SockRecvFromV1
            | Call::SockGetpeeraddr
            | Call::SockGetpeeraddrV1
            | Call::SockGetaddrinfo => Ok(()),
        }
    }

    /// A look-up failed, which tells that a name is free.
    fn found_nothing(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let follow = match record.call {
            Call::PathOpen | Call::PathFilestatGet => follows(record)?,
            Call::PathUnlinkFile | Call::PathRemoveDirectory => return self.see_nothing(record, 1, false),
            _ => return Ok(()),
        };
        self.see_nothing(record, 2, follow)
    }

    fn see_nothing(&mut self, record: &Record<'_>, path: usize, follow: bool) -> Result<(), ShadowError> {
        // A failed call may have named anything, so a path that leads nowhere is no contradiction; neither is one that
        // a digest stands for.
        let Ok(path) = record.path(path) else { return Ok(()) };
        if let Some(base) = self.base(record, 0)?
            && let Some(name) = self.tree.resolve(&base, path, follow)
        {
            self.tree.see(&name, false);
        }
        Ok(())
    }

    fn held(&mut self, record: &Record<'_>, index: usize) -> Result<&mut Open, ShadowError> {
        let fd = record.fd(index)?;
        self.open.get_mut(&fd).ok_or(ShadowError::UnknownDescriptor { call: record.call, fd })
    }

    /// The file or directory that the descriptor refers to, `None` for streams and mounts.
    fn node_of(&mut self, record: &Record<'_>) -> Result<Option<FileId>, ShadowError> {
        Ok(if let Target::Node(id) = self.held(record, 0)?.target { Some(id) } else { None })
    }

    /// The directory that paths start from.
    fn base(&mut self, record: &Record<'_>, index: usize) -> Result<Option<Name>, ShadowError> {
        let fd = record.fd(index)?;
        Ok(match self.open.get(&fd).map(|open| open.target) {
            Some(Target::Mount(mount)) => Some(Name { mount, path: Vec::new() }),
            Some(Target::Node(id)) => self.tree.node(id).names.first().cloned(),
            Some(Target::Stdio(_) | Target::Socket(_) | Target::SocketDirectory(_)) | None => None,
        })
    }

    /// The name that a descriptor and a path mean.
    fn name(&mut self, record: &Record<'_>, fd: usize, path: usize, follow: bool) -> Result<Name, ShadowError> {
        let path = record.path(path)?;
        self.held(record, fd)?;
        let base = self.base(record, fd)?.ok_or_else(|| record.malformed("the directory has no name"))?;
        self.tree.resolve(&base, path, follow).ok_or_else(|| record.malformed("the path leaves its mount"))
    }

    fn clock_time_get(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        if record.arg(0)? as u32 == clockid::MONOTONIC {
            self.monotonic_ns = self.monotonic_ns.max(record.result_u64(2)?);
        }
        Ok(())
    }

    fn fd_close(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let fd = record.fd(0)?;
        let open = self.open.remove(&fd).ok_or(ShadowError::UnknownDescriptor { call: record.call, fd })?;
        self.release(&open);
        Ok(())
    }

    fn release(&mut self, open: &Open) {
        match open.target {
            Target::Node(id) => {
                self.tree.node_mut(id).opens -= 1;
                self.tree.collect(&mut self.scratch, id);
            }
            Target::Socket(id) => self.sockets.remove(id),
            Target::Stdio(_) | Target::Mount(_) | Target::SocketDirectory(_) => {}
        }
    }

    fn fd_renumber(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let (from, to) = (record.fd(0)?, record.fd(1)?);
        self.held(record, 0)?;
        if from != to
            && let Some(open) = self.open.remove(&from)
            && let Some(replaced) = self.open.insert(to, open)
        {
            self.release(&replaced);
        }
        Ok(())
    }

    fn learn_kind(&mut self, record: &Record<'_>, kind: Kind) -> Result<(), ShadowError> {
        if let Some(id) = self.node_of(record)? {
            self.set_kind(id, kind);
        }
        Ok(())
    }

    fn set_kind(&mut self, id: FileId, kind: Kind) {
        let node = self.tree.node_mut(id);
        node.kind = kind;
        if kind == Kind::Special && node.written {
            node.resize(&mut self.scratch, 0);
        }
    }

    fn fd_fdstat_get(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let stat = record.result(1, size::FDSTAT)?;
        let open = self.held(record, 0)?;
        open.flags = u16::from_le_bytes([stat[2], stat[3]]);
        if !matches!(open.target, Target::Stdio(_)) {
            (open.rights_base, open.rights_inheriting) = (u64_at(stat, 8), u64_at(stat, 16));
        }
        self.learn_kind(record, kind_of(stat[0]))
    }

    fn fd_filestat_get(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let stat = record.result(1, size::FILESTAT)?;
        match self.node_of(record)? {
            Some(id) => self.learn_stat(id, stat),
            None => Ok(()),
        }
    }

    fn path_filestat_get(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let stat = record.result(4, size::FILESTAT)?;
        let name = self.name(record, 0, 2, follows(record)?)?;
        self.tree.see(&name, true);
        match self.tree.find(&name) {
            Some(id) if stat[16] != filetype::SYMBOLIC_LINK => self.learn_stat(id, stat),
            _ => Ok(()),
        }
    }

    fn learn_stat(&mut self, id: FileId, stat: &[u8]) -> Result<(), ShadowError> {
        self.set_kind(id, kind_of(stat[16]));
        if stat[16] == filetype::REGULAR_FILE { self.learn_size(id, u64_at(stat, 32)) } else { Ok(()) }
    }

    fn learn_size(&mut self, id: FileId, size: u64) -> Result<(), ShadowError> {
        if let Some(base) = self.tree.node_mut(id).learn_size(&mut self.scratch, size)? {
            for open in self.open.values_mut().filter(|open| open.target == Target::Node(id)) {
                if let Offset::Tail(at) = open.offset {
                    open.offset = Offset::At(base + at);
                }
            }
        }
        self.drop_tail_offsets(id);
        Ok(())
    }

    /// Offsets from the start of a tail mean nothing once the tail is gone.
    fn drop_tail_offsets(&mut self, id: FileId) {
        if self.tree.node(id).tail.is_none() {
            for open in self.open.values_mut().filter(|open| open.target == Target::Node(id)) {
                if matches!(open.offset, Offset::Tail(_)) {
                    open.offset = Offset::Unknown;
                }
            }
        }
    }

    fn fd_filestat_set_size(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let size = record.arg(1)?;
        if let Some(id) = self.node_of(record)? {
            self.tree.node_mut(id).resize(&mut self.scratch, size);
            self.drop_tail_offsets(id);
        }
        Ok(())
    }

    fn fd_allocate(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let end = record.arg(1)?.saturating_add(record.arg(2)?);
        if let Some(id) = self.node_of(record)? {
            self.tree.node_mut(id).allocate(&mut self.scratch, end);
            self.drop_tail_offsets(id);
        }
        Ok(())
    }

    fn fd_read(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let count = u64::from(record.result_u32(3)?);
        let open = self.held(record, 0)?;
        if let Target::Socket(id) = open.target {
            return self.socket_read(record, id);
        }
        open.offset = match open.offset {
            Offset::At(offset) => Offset::At(offset + count),
            Offset::Tail(offset) => Offset::Tail(offset + count),
            Offset::Unknown => Offset::Unknown,
        };
        Ok(())
    }

    fn fd_write(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let count = record.result_u32(3)?;
        let open = self.held(record, 0)?;
        let (Target::Node(id), flags, offset) = (open.target, open.flags, open.offset) else { return Ok(()) };
        if count == 0 {
            return Ok(());
        }
        let append = flags & fdflags::APPEND != 0 || self.is_at_tail(id, offset);
        let mut place = if append { None } else { Some(offset) };
        for piece in record.data(count)? {
            place = Some(match place {
                Some(Offset::At(at)) if !append => {
                    self.tree.node_mut(id).write(&mut self.scratch, at, piece)?;
                    Offset::At(at + piece.len() as u64)
                }
                _ if append => self.append(id, piece)?,
                _ => {
                    let why = "it was written at an offset that the log doesn't tell";
                    self.tree.node_mut(id).doubt(&mut self.scratch, why);
                    Offset::Unknown
                }
            });
        }
        self.held(record, 0)?.offset = place.unwrap_or(offset);
        self.drop_tail_offsets(id);
        Ok(())
    }

    /// Whether a write at the offset lands just behind the file's tail, and so is an append.
    fn is_at_tail(&self, id: FileId, offset: Offset) -> bool {
        let tail = self.tree.node(id).tail.as_ref();
        matches!(offset, Offset::Tail(at) if tail.is_some_and(|tail| tail.len == at))
    }

    fn append(&mut self, id: FileId, piece: &[u8]) -> Result<Offset, ShadowError> {
        Ok(match self.tree.node_mut(id).append(&mut self.scratch, piece)? {
            Some(Landed::At(end)) => Offset::At(end),
            Some(Landed::Tail(end)) => Offset::Tail(end),
            None => Offset::Unknown,
        })
    }

    fn fd_pwrite(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let (mut at, count) = (record.arg(3)?, record.result_u32(4)?);
        let open = self.held(record, 0)?;
        let Target::Node(id) = open.target else { return Ok(()) };
        for piece in record.data(count)? {
            // APPEND doesn't count: the host writes at the offset, as POSIX has it.
            self.tree.node_mut(id).write(&mut self.scratch, at, piece)?;
            at += piece.len() as u64;
        }
        self.drop_tail_offsets(id);
        Ok(())
    }

    fn fd_seek(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let delta = record.arg(1)? as i64;
        let whence = record.arg(2)? as u8;
        let now = record.result_u64(3)?;
        let open = self.held(record, 0)?;
        let before = std::mem::replace(&mut open.offset, Offset::At(now));
        let Target::Node(id) = open.target else { return Ok(()) };
        if matches!(self.tree.node(id).kind, Kind::Directory | Kind::Special) {
            return Ok(());
        }
        match (whence, before) {
            (whence::END, _) => self.learn_size(id, now.wrapping_sub(delta as u64)),
            (whence::CUR, Offset::Tail(at)) => self.learn_tail(id, at, now.wrapping_sub(delta as u64)),
            _ => Ok(()),
        }
    }

    fn fd_tell(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let now = record.result_u64(1)?;
        let open = self.held(record, 0)?;
        let before = std::mem::replace(&mut open.offset, Offset::At(now));
        match (open.target, before) {
            (Target::Node(id), Offset::Tail(at)) => self.learn_tail(id, at, now),
            _ => Ok(()),
        }
    }

    /// An offset in the tail proves to be at `absolute` in the file.
    fn learn_tail(&mut self, id: FileId, at: u64, absolute: u64) -> Result<(), ShadowError> {
        let len = self.tree.node(id).tail.as_ref().map_or(0, |tail| tail.len);
        self.learn_size(id, absolute.saturating_sub(at).saturating_add(len))
    }

    fn path_open(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        if let Target::SocketDirectory(directory) = self.held(record, 0)?.target {
            return self.open_socket(record, directory);
        }
        let flags = record.arg(4)? as u16;
        let exclusive = flags & oflags::CREAT != 0 && flags & oflags::EXCL != 0;
        let name = self.name(record, 0, 2, follows(record)? && !exclusive)?;
        let fd = record.result_u32(8)?;
        if self.open.contains_key(&fd) {
            return Err(record.malformed("the opened descriptor was open already"));
        }
        let id = self.opened(&name, flags, exclusive);
        // Those that the type can't have are dropped at the end, when the type is known.
        let (rights_base, rights_inheriting) = (record.arg(5)? & rights::ALL, record.arg(6)? & rights::ALL);
        let flags = record.arg(7)? as u16;
        self.tree.node_mut(id).opens += 1;
        let offset = Offset::At(0);
        self.open.insert(fd, Open { target: Target::Node(id), offset, rights_base, rights_inheriting, flags });
        Ok(())
    }

    fn opened(&mut self, name: &Name, flags: u16, exclusive: bool) -> FileId {
        let absent = self.tree.seen(name) == Some(false) && flags & oflags::CREAT != 0;
        let is_new = exclusive || absent;
        if is_new {
            self.tree.remove(&mut self.scratch, name);
        }
        self.tree.see(name, true);
        let id = self.tree.find_or_insert(name);
        let node = self.tree.node_mut(id);
        if is_new || flags & oflags::TRUNC != 0 {
            node.resize(&mut self.scratch, 0);
            self.drop_tail_offsets(id);
        }
        if flags & oflags::DIRECTORY != 0 {
            self.tree.node_mut(id).kind = Kind::Directory;
        }
        id
    }

    fn path_create_directory(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let name = self.name(record, 0, 1, false)?;
        self.tree.remove(&mut self.scratch, &name);
        self.tree.see(&name, true);
        Ok(())
    }

    fn path_removed(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let name = self.name(record, 0, 1, false)?;
        self.tree.remove(&mut self.scratch, &name);
        Ok(())
    }

    fn path_rename(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let old = self.name(record, 0, 1, false)?;
        let new = self.name(record, 3, 4, false)?;
        self.tree.rename(&mut self.scratch, &old, &new);
        Ok(())
    }

    fn path_link(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let old = self.name(record, 0, 2, record.arg(1)? as u32 & lookupflags::SYMLINK_FOLLOW != 0)?;
        let new = self.name(record, 4, 5, false)?;
        let id = self.tree.find_or_insert(&old);
        self.tree.link(&mut self.scratch, id, &new);
        Ok(())
    }

    fn path_symlink(&mut self, record: &Record<'_>) -> Result<(), ShadowError> {
        let target = record.path(0)?;
        let name = self.name(record, 2, 3, false)?;
        self.tree.symlink(&mut self.scratch, target, &name);
        Ok(())
    }
}

/// The buffers of a list, as much of them as the host takes of one call.
fn pieces(list: &[u8], memory: &Memory<'_>) -> Vec<(u32, Vec<u8>)> {
    let mut left = TRANSFER_BYTES_MAX;
    let iovecs = list.chunks_exact(size::IOVEC as usize).map(|iovec| (u32_at(iovec, 0), u32_at(iovec, 4)));
    let piece = |(ptr, len): (u32, u32)| {
        let bytes = memory.peek(ptr, len.min(left)).ok()?;
        left -= bytes.len() as u32;
        Some((ptr, bytes.to_vec()))
    };
    iovecs.filter_map(piece).collect()
}

/// Whether a look-up follows a symbolic link at the end; its flags are the second argument.
fn follows(record: &Record<'_>) -> Result<bool, ShadowError> {
    Ok(record.arg(1)? as u32 & lookupflags::SYMLINK_FOLLOW != 0)
}

fn kind_of(filetype: u8) -> Kind {
    match filetype {
        filetype::REGULAR_FILE => Kind::Regular,
        filetype::DIRECTORY => Kind::Directory,
        _ => Kind::Special,
    }
}
