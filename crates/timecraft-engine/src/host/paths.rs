//! Calls on paths.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat};
use rustix::io::Errno as Os;

use super::arguments::Arguments;
use super::files::timestamps;
use super::path::{Place, open_beneath, place, take};
use super::stat::{filestat, filetype_of};
use super::table::{Directory, Entry, Input, Kind, OpenFile};
use super::{Host, MountRoot, Outcome};
use crate::abi::{fdflags, lookupflags, oflags, rights, size};
use crate::restore::opened_rights;
use crate::{Errno, Memory};

/// Longest target of a symlink, bytes: a path.
const TARGET_BYTES_MAX: u32 = 4096;
/// `/dev/null`, `/dev/zero`, `/dev/full`, `/dev/random` and `/dev/urandom`, the devices that a mount may offer: they
/// reach nothing.
const HARMLESS_DEVICES: [(u32, u32); 5] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)];

impl Host {
    /// A directory, by a descriptor with these rights.
    fn directory(&self, fd: u32, rights: u64) -> Result<(&Directory, &Entry), Errno> {
        let entry = self.table.get(fd)?;
        match &entry.kind {
            Kind::Directory(directory) => {
                entry.require(rights)?;
                Ok((directory, entry))
            }
            // Its names can be opened, and nothing else.
            Kind::SocketDirectory(_) => Err(Errno::Notcapable),
            _ => Err(Errno::Notdir),
        }
    }

    /// A directory whose contents may be changed.
    fn writable_directory(&self, fd: u32, rights: u64) -> Result<(&Directory, &Entry), Errno> {
        let (directory, entry) = self.directory(fd, rights)?;
        if self.mounts[directory.mount].config.read_only {
            return Err(Errno::Rofs);
        }
        Ok((directory, entry))
    }

    pub(super) fn path_create_directory(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (directory, _) = self.writable_directory(args.u32(0), rights::PATH_CREATE_DIRECTORY)?;
        let path = take(memory, args.u32(1), args.u32(2))?;
        let at = place(directory.fd.as_fd(), &path)?;
        if self.resumption.is_done() {
            return Ok(());
        }
        Ok(rustix::fs::mkdirat(&at.parent, &at.name, Mode::from_raw_mode(0o777))?)
    }

    pub(super) fn path_remove_directory(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.remove(args, memory, rights::PATH_REMOVE_DIRECTORY, AtFlags::REMOVEDIR)
    }

    pub(super) fn path_unlink_file(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.remove(args, memory, rights::PATH_UNLINK_FILE, AtFlags::empty())
    }

    fn remove(&self, args: Arguments<'_>, memory: &mut Memory<'_>, rights: u64, flags: AtFlags) -> Outcome {
        let (directory, _) = self.writable_directory(args.u32(0), rights)?;
        let path = take(memory, args.u32(1), args.u32(2))?;
        let at = place(directory.fd.as_fd(), &path)?;
        if self.resumption.is_done() {
            return Ok(());
        }
        Ok(rustix::fs::unlinkat(&at.parent, &at.name, flags)?)
    }

    pub(super) fn path_filestat_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(4), size::FILESTAT)?;
        let follow = follows(args.u32(1))?;
        let (directory, _) = self.directory(args.u32(0), rights::PATH_FILESTAT_GET)?;
        let path = take(memory, args.u32(2), args.u32(3))?;
        let stat = fstat(look_up(directory.fd.as_fd(), &path, follow)?)?;
        memory.write(args.u32(4), &filestat(&stat, filetype_of(FileType::from_raw_mode(stat.st_mode))))?;
        Ok(())
    }

    pub(super) fn path_filestat_set_times(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let follow = follows(args.u32(1))?;
        let times = timestamps(args.u64(4), args.u64(5), args.flags(6)?)?;
        let (directory, _) = self.writable_directory(args.u32(0), rights::PATH_FILESTAT_SET_TIMES)?;
        let path = take(memory, args.u32(2), args.u32(3))?;
        let file = look_up(directory.fd.as_fd(), &path, follow)?;
        // A device is everybody's.
        if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::CharacterDevice {
            return Err(Errno::Perm.into());
        }
        rustix::fs::utimensat(file, c"", &times, AtFlags::EMPTY_PATH)?;
        Ok(())
    }

    pub(super) fn path_readlink(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (buffer, len) = (args.u32(3), args.u32(4));
        memory.check(buffer, len)?;
        memory.check(args.u32(5), 4)?;
        let (directory, _) = self.directory(args.u32(0), rights::PATH_READLINK)?;
        let path = take(memory, args.u32(1), args.u32(2))?;
        let link = look_up(directory.fd.as_fd(), &path, false)?;
        if FileType::from_raw_mode(fstat(&link)?.st_mode) != FileType::Symlink {
            return Err(Errno::Inval.into());
        }
        let mut used = 0;
        if len > 0 {
            let target = memory.buffer(buffer, len.min(TARGET_BYTES_MAX))?;
            used = rustix::fs::readlinkat_raw(&link, c"", target)? as u32;
            memory.filled(buffer, used);
        }
        memory.write_u32(args.u32(5), used)?;
        Ok(())
    }

    pub(super) fn path_symlink(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (directory, _) = self.writable_directory(args.u32(2), rights::PATH_SYMLINK)?;
        // A target leads nowhere but beneath the mount whatever it says; an absolute one could only ever fail.
        let target = take(memory, args.u32(0), args.u32(1))?;
        let path = take(memory, args.u32(3), args.u32(4))?;
        let at = place(directory.fd.as_fd(), &path)?;
        if self.resumption.is_done() {
            return Ok(());
        }
        match rustix::fs::symlinkat(&target, &at.parent, &at.name) {
            Err(Os::EXIST) => Err(occupied(&at).into()),
            done => Ok(done?),
        }
    }

    pub(super) fn path_link(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        // Following is refused, as other hosts do: the kernel can link what was safely resolved only for root.
        if follows(args.u32(1))? {
            return Err(Errno::Inval.into());
        }
        let (old, old_entry) = self.writable_directory(args.u32(0), rights::PATH_LINK_SOURCE)?;
        let (new, new_entry) = self.writable_directory(args.u32(4), rights::PATH_LINK_TARGET)?;
        check_escalation(old, old_entry, new, new_entry)?;
        let old_path = take(memory, args.u32(2), args.u32(3))?;
        let new_path = take(memory, args.u32(5), args.u32(6))?;
        let from = place(old.fd.as_fd(), &old_path)?;
        if from.trailing_slash || from.is_dots() {
            // Such a path names a directory, which can't be linked. The kernel would follow it, out of the mount too.
            open_beneath(old.fd.as_fd(), &old_path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            return Err(Errno::Perm.into());
        }
        let to = place(new.fd.as_fd(), &new_path)?;
        if self.resumption.is_done() {
            return Ok(());
        }
        match rustix::fs::linkat(&from.parent, &from.name, &to.parent, &to.name, AtFlags::empty()) {
            Err(Os::EXIST) => Err(occupied(&to).into()),
            done => Ok(done?),
        }
    }

    pub(super) fn path_rename(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (old, old_entry) = self.writable_directory(args.u32(0), rights::PATH_RENAME_SOURCE)?;
        let (new, new_entry) = self.writable_directory(args.u32(3), rights::PATH_RENAME_TARGET)?;
        check_escalation(old, old_entry, new, new_entry)?;
        let old_path = take(memory, args.u32(1), args.u32(2))?;
        let new_path = take(memory, args.u32(4), args.u32(5))?;
        let from = place(old.fd.as_fd(), &old_path)?;
        let to = place(new.fd.as_fd(), &new_path)?;
        if self.resumption.is_done() {
            return Ok(());
        }
        Ok(rustix::fs::renameat(&from.parent, &from.name, &to.parent, &to.name)?)
    }

    pub(super) fn path_open(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(8), 4)?;
        let mut request = OpenRequest::new(args)?;
        if self.resumption.is_created() {
            request.oflags &= !oflags::EXCL;
        }
        if let Kind::SocketDirectory(directory) = self.table.get(args.u32(0))?.kind {
            return self.open_socket(directory, request, args, memory);
        }
        self.table.check_room()?;
        let (directory, entry) = self.directory(args.u32(0), rights::PATH_OPEN)?;
        let mount = directory.mount;
        request.check(entry, self.mounts[mount].config.read_only)?;
        let path = take(memory, args.u32(2), args.u32(3))?;
        let opened = request.open(directory.fd.as_fd(), &path)?;
        let fd = self.table.insert(request.entry(opened, mount, &self.mounts[mount])?)?;
        memory.write_u32(args.u32(8), fd)?;
        Ok(())
    }
}

/// What `path_open` is asked for.
#[derive(Clone, Copy)]
pub(super) struct OpenRequest {
    pub follow: bool,
    pub oflags: u16,
    pub fdflags: u16,
    pub rights_base: u64,
    pub rights_inheriting: u64,
}

impl OpenRequest {
    fn new(args: Arguments<'_>) -> Result<Self, Errno> {
        let request = OpenRequest {
            follow: follows(args.u32(1))?,
            oflags: args.flags(4)?,
            // Rights that preview 1 doesn't define can't be had; Go asks for all 32.
            rights_base: args.u64(5) & rights::ALL,
            rights_inheriting: args.u64(6) & rights::ALL,
            fdflags: args.flags(7)?,
        };
        let unknown = request.oflags >> oflags::NAMES.len() != 0 || request.fdflags >> fdflags::NAMES.len() != 0;
        // Linux has no way to make a directory by opening it, and old kernels make a file instead.
        let contradictory = oflags::CREAT | oflags::DIRECTORY;
        if unknown || request.oflags & contradictory == contradictory {
            return Err(Errno::Inval);
        }
        Ok(request)
    }

    /// Whether the directory's rights, and its mount, allow it.
    pub fn check(&self, directory: &Entry, read_only: bool) -> Result<(), Errno> {
        if self.oflags & oflags::CREAT != 0 {
            directory.require(rights::PATH_CREATE_FILE)?;
        }
        if self.oflags & oflags::TRUNC != 0 && directory.require(rights::PATH_FILESTAT_SET_SIZE).is_err() {
            // Not ENOTCAPABLE: what the WASI test suite has accepted in all its versions.
            return Err(Errno::Perm);
        }
        if (self.rights_base | self.rights_inheriting) & !directory.rights_inheriting != 0 {
            return Err(Errno::Notcapable);
        }
        let writes = self.rights_base & rights::FD_WRITE != 0 || self.oflags & (oflags::CREAT | oflags::TRUNC) != 0;
        if read_only && writes { Err(Errno::Rofs) } else { Ok(()) }
    }

    /// Opens the path beneath the directory.
    pub fn open(&self, directory: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
        let mut flags = match self.rights_base & (rights::FD_READ | rights::FD_WRITE) {
            rights::FD_WRITE => OFlags::WRONLY,
            both if both & rights::FD_WRITE != 0 => OFlags::RDWR,
            // Linux truncates files that are opened for reading, too.
            _ => OFlags::RDONLY,
        };
        // A FIFO must not make us wait for its other end. Regular files don't care, and others are refused.
        flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
        let creates = self.oflags & oflags::CREAT != 0;
        flags.set(OFlags::NOFOLLOW, !self.follow);
        flags.set(OFlags::CREATE, creates);
        flags.set(OFlags::EXCL, creates && self.oflags & oflags::EXCL != 0);
        flags.set(OFlags::TRUNC, self.oflags & oflags::TRUNC != 0);
        flags.set(OFlags::DIRECTORY, self.oflags & oflags::DIRECTORY != 0);
        flags.set(OFlags::APPEND, self.fdflags & fdflags::APPEND != 0);
        if self.fdflags & (fdflags::DSYNC | fdflags::RSYNC | fdflags::SYNC) != 0 {
            flags |= OFlags::SYNC;
        }
        let mode = if creates { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        open_beneath(directory, path, flags, mode)
    }

    /// The table entry for what was opened, with those of the rights that its type can have.
    pub fn entry(&self, fd: OwnedFd, mount: usize, root: &MountRoot) -> Result<Entry, Errno> {
        let stat = fstat(&fd)?;
        let filetype = FileType::from_raw_mode(stat.st_mode);
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match filetype {
            FileType::Directory => Kind::Directory(Directory { fd, mount, preopen: false, listing: None }),
            FileType::CharacterDevice if !HARMLESS_DEVICES.contains(&device) => return Err(Errno::Nxio),
            FileType::RegularFile | FileType::CharacterDevice => {
                let path = root.path_within(&fd).filter(|_| filetype == FileType::RegularFile);
                let input = path.map(|path| Box::new(Input::new(mount, path)));
                Kind::File(OpenFile { fd, mount: Some(mount), filetype: filetype_of(filetype), input })
            }
            _ => return Err(Errno::Nxio),
        };
        let is_directory = matches!(kind, Kind::Directory(_));
        let (rights_base, rights_inheriting) = opened_rights(is_directory, self.rights_base, self.rights_inheriting);
        Ok(Entry { kind, rights_base, rights_inheriting, flags: self.fdflags })
    }
}

fn follows(flags: u32) -> Result<bool, Errno> {
    if flags & !lookupflags::SYMLINK_FOLLOW == 0 { Ok(flags != 0) } else { Err(Errno::Inval) }
}

/// Resolves a path to what it names, without opening it.
fn look_up(directory: BorrowedFd<'_>, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    open_beneath(directory, path, flags, Mode::empty())
}

/// Refuses to move a file from one mount to where more may be done with it.
fn check_escalation(old: &Directory, old_entry: &Entry, new: &Directory, new_entry: &Entry) -> Result<(), Errno> {
    let more = new_entry.rights_inheriting & !old_entry.rights_inheriting != 0;
    if old.mount != new.mount && more { Err(Errno::Xdev) } else { Ok(()) }
}

/// The error for a name that is taken. One with a slash behind it asked for a directory.
fn occupied(at: &Place<'_>) -> Errno {
    let is_directory = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if at.trailing_slash && !at.stat().is_ok_and(is_directory) { Errno::Notdir } else { Errno::Exist }
}
