//! Taking over from a replay: descriptors, the clock, and the one call that may have taken effect without its record.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SeekFrom, fstat};

use super::path::open_beneath;
use super::paths::OpenRequest;
use super::table::{Directory, Entry, Kind, OpenFile};
use super::transfer::retry;
use super::{Host, HostError, Stop, sockets};
use crate::Errno;
use crate::abi::{fdflags, filetype, oflags};
use crate::restore::{Descriptor, DescriptorKind, FirstCall, Restored, RestoredSocket, SocketRole, TornAppend};

/// What the first calls after a resume must treat with care.
///
/// A process that dies between a call's effect and its record does the call again when it is resumed. Reading, or
/// writing at an offset, is harmless twice. Of the others, the replay has found out from the log and from what is
/// there now whether they took effect; appends are recognised here, by the bytes that they have left behind.
#[derive(Debug, Default)]
pub(super) struct Resumption {
    first_call: FirstCall,
    torn: Vec<Torn>,
}

/// A file whose tail may be an append that the guest will do again.
#[derive(Debug)]
struct Torn {
    file: OwnedFd,
    device: u64,
    inode: u64,
    size: u64,
}

impl Resumption {
    /// Whether no append is left to be careful about.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.torn.is_empty()
    }

    /// Whether the call that is being made took effect before, so that it has succeeded already.
    pub fn is_done(&self) -> bool {
        self.first_call == FirstCall::AlreadyDone
    }

    /// Whether the file that is being made was made by this very call before, so that its being there is no error.
    pub fn is_created(&self) -> bool {
        self.first_call == FirstCall::AlreadyCreated
    }

    /// Notes that a call is over.
    #[inline]
    pub fn note_call(&mut self) {
        self.first_call = FirstCall::Redo;
    }

    /// How many of the bytes that the guest appends are there already, from an append without a record.
    pub fn append_done(&mut self, file: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Stop> {
        let stat = fstat(file)?;
        let same = |torn: &Torn| torn.device == stat.st_dev && torn.inode == stat.st_ino;
        let Some(index) = self.torn.iter().position(same) else { return Ok(0) };
        let torn = self.torn.swap_remove(index);
        let len = usize::try_from((stat.st_size as u64).saturating_sub(torn.size)).unwrap_or(usize::MAX);
        if len > bytes.len() {
            return Ok(0);
        }
        let mut tail = vec![0; len];
        let mut read = 0;
        while read < len {
            match retry(|| rustix::io::pread(&torn.file, &mut tail[read..], torn.size + read as u64))? {
                0 => return Ok(0),
                count => read += count,
            }
        }
        Ok(if bytes.starts_with(&tail) { len } else { 0 })
    }
}

/// What only the start of a process gives.
#[derive(Debug, Default)]
struct Given {
    streams: Vec<Option<Entry>>,
    listeners: Vec<Option<Entry>>,
}

impl Host {
    /// Takes over from a replay: makes the descriptors what they would be if the process had lived on, and lets the
    /// guest's monotonic clock go on from where it stood. To be called before the first call.
    ///
    /// # Errors
    /// When a file is not there any more, or is another thing.
    pub fn restore(&mut self, restored: Restored) -> Result<(), HostError> {
        let mut given = self.given(&restored);
        let mut table = self.table.emptied();
        for descriptor in restored.descriptors {
            let fd = descriptor.fd;
            let entry = self.reopen(descriptor, &mut given)?;
            table.insert_at(fd, entry).map_err(|errno| HostError::Restore {
                fd,
                path: String::new(),
                reason: format!("the number can't be had ({})", errno.name()),
                next: "resume with the same limit on open files",
            })?;
        }
        self.table = table;
        for torn in restored.torn_appends {
            self.resumption.torn.extend(self.torn(&torn)?);
        }
        self.resumption.first_call = restored.first_call;
        self.monotonic_offset_ns = restored.monotonic_ns.saturating_sub(self.clock.monotonic_ns());
        Ok(())
    }

    /// Takes what only the start of a process gives: standard streams, and the listeners that it still has. The ports
    /// of the others are free for whom the process has given them to.
    fn given(&mut self, restored: &Restored) -> Given {
        let is_held = |index: usize| {
            let holds = |descriptor: &Descriptor| match &descriptor.kind {
                DescriptorKind::Socket(socket) => socket.role == SocketRole::Preopened(index),
                _ => false,
            };
            restored.descriptors.iter().any(holds)
        };
        let mut given = Given::default();
        let numbers: Vec<u32> = self.table.iter().map(|(fd, _)| fd).collect();
        for fd in numbers {
            let Ok(entry) = self.table.remove(fd) else { continue };
            match &entry.kind {
                Kind::Stream(_) => given.streams.push(Some(entry)),
                Kind::Socket(_) => given.listeners.push(is_held(given.listeners.len()).then_some(entry)),
                Kind::Directory(_) | Kind::File(_) | Kind::SocketDirectory(_) => {}
            }
        }
        given
    }

    fn reopen(&mut self, descriptor: Descriptor, given: &mut Given) -> Result<Entry, HostError> {
        let Descriptor { fd, kind, rights_base, rights_inheriting, flags } = descriptor;
        let entry = match kind {
            DescriptorKind::Stdio(number) => {
                let slot = given.streams.get_mut(usize::from(number)).and_then(Option::take);
                let entry = slot.ok_or_else(|| failed(fd, &[], "no such stream", "report this as a bug"))?;
                let rights_base = rights_base & entry.rights_base;
                return Ok(Entry { rights_base, flags, ..entry });
            }
            DescriptorKind::Mount { mount } => {
                self.root(fd, mount)?;
                self.preopen_entry(mount)?
            }
            DescriptorKind::Directory { mount, path } => {
                let request = request(oflags::DIRECTORY, 0, rights_base, rights_inheriting);
                let opened = self.open_again(fd, mount, &path, request)?;
                let directory = Directory { fd: opened, mount, preopen: false, listing: None };
                Entry { kind: Kind::Directory(directory), rights_base, rights_inheriting, flags }
            }
            DescriptorKind::File { mount, path, offset } => {
                let request = request(0, flags, rights_base, rights_inheriting);
                let opened = self.open_again(fd, mount, &path, request)?;
                let entry = request
                    .entry(opened, mount, &self.mounts[mount])
                    .map_err(|errno| failed(fd, &path, errno.name(), CHANGED))?;
                if !matches!(entry.kind, Kind::File(_)) {
                    return Err(failed(fd, &path, "is no file any more", CHANGED));
                }
                let file = entry.fd().map_err(|errno| failed(fd, &path, errno.name(), CHANGED))?;
                seek(fd, &path, file, offset)?;
                if let Some(input) = entry.input() {
                    input.moved_to(offset);
                }
                entry
            }
            DescriptorKind::Socket(RestoredSocket { role: SocketRole::Preopened(index), .. }) => {
                let slot = given.listeners.get_mut(index).and_then(Option::take);
                slot.ok_or_else(|| failed(fd, b"socket", "its listener is not given", LISTENERS))?
            }
            DescriptorKind::SocketDirectory(directory) => directory.entry(),
            DescriptorKind::Socket(socket) => {
                let made = sockets::restored::restored(&socket, &mut self.net);
                let made = made.map_err(|errno| failed(fd, b"socket", errno.name(), "report this as a bug"))?;
                sockets::entry(made, rights_base, flags)
            }
            DescriptorKind::Rebuilt { file, offset } => {
                let file = OpenFile { fd: file.into(), mount: None, filetype: filetype::REGULAR_FILE, input: None };
                append_mode(&file.fd, flags).map_err(|error| failed(fd, &[], &error.to_string(), CHANGED))?;
                seek(fd, &[], file.fd.as_fd(), offset)?;
                Entry { kind: Kind::File(file), rights_base, rights_inheriting, flags }
            }
        };
        Ok(Entry { rights_base, rights_inheriting, flags, ..entry })
    }

    fn root(&self, fd: u32, mount: usize) -> Result<BorrowedFd<'_>, HostError> {
        let mount = self.mounts.get(mount);
        mount.map(|mount| mount.root.as_fd()).ok_or_else(|| failed(fd, &[], "its mount is not given", MOUNTS))
    }

    fn open_again(&self, fd: u32, mount: usize, path: &[u8], request: OpenRequest) -> Result<OwnedFd, HostError> {
        let root = self.root(fd, mount)?;
        let name = if path.is_empty() { b".".as_slice() } else { path };
        let opened = CString::new(name).map_err(|_| Errno::Inval).and_then(|name| request.open(root, &name));
        opened.map_err(|errno| failed(fd, path, errno.name(), CHANGED))
    }

    /// Notes a file that an append may have been torn in. One that is gone can't be appended to again either.
    fn torn(&self, torn: &TornAppend) -> Result<Option<Torn>, HostError> {
        let root = self.root(0, torn.mount)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = CString::new(torn.path.clone())
            .map_err(|_| Errno::Inval)
            .and_then(|path| open_beneath(root, &path, flags, Mode::empty()));
        let file = match opened {
            Ok(file) => file,
            Err(Errno::Noent) => return Ok(None),
            Err(errno) => return Err(failed(0, &torn.path, errno.name(), "make it readable")),
        };
        let stat = fstat(&file).map_err(|error| failed(0, &torn.path, &error.to_string(), CHANGED))?;
        Ok(Some(Torn { file, device: stat.st_dev, inode: stat.st_ino, size: torn.size }))
    }
}

const CHANGED: &str = "put the file back as the process left it, or start the process anew";
const LISTENERS: &str = "resume with as many listeners as the process was started with";
const MOUNTS: &str = "resume with the mounts that the process was started with";

fn request(oflags: u16, fdflags: u16, rights_base: u64, rights_inheriting: u64) -> OpenRequest {
    OpenRequest { follow: true, oflags, fdflags, rights_base, rights_inheriting }
}

fn seek(fd: u32, path: &[u8], file: BorrowedFd<'_>, offset: u64) -> Result<(), HostError> {
    match rustix::fs::seek(file, SeekFrom::Start(offset)) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(fd, path, &error.to_string(), CHANGED)),
    }
}

fn append_mode(file: &OwnedFd, flags: u16) -> rustix::io::Result<()> {
    let mut status = rustix::fs::fcntl_getfl(file)?;
    status.set(OFlags::APPEND, flags & fdflags::APPEND != 0);
    rustix::fs::fcntl_setfl(file, status)
}

fn failed(fd: u32, path: &[u8], reason: &str, next: &'static str) -> HostError {
    HostError::Restore { fd, path: String::from_utf8_lossy(path).into_owned(), reason: reason.into(), next }
}
