//! Calls on descriptors that move no data: positions, sizes, times, flags, rights, and the table itself.

use std::ffi::CString;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Advice, FallocateFlags, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::fs::{UTIME_NOW, UTIME_OMIT};

use super::arguments::Arguments;
use super::table::{Entry, Kind, OpenFile};
use super::transfer::{file_offset, retry};
use super::{Host, Outcome};
use crate::abi::{fdflags, filetype, fstflags, rights, whence};
use crate::{Errno, Memory};

/// Advice in the order of witx.
const ADVICE: [Advice; 6] =
    [Advice::Normal, Advice::Sequential, Advice::Random, Advice::WillNeed, Advice::DontNeed, Advice::NoReuse];

impl Entry {
    /// A file, with these rights.
    fn file(&self, rights: u64) -> Result<&OpenFile, Errno> {
        match &self.kind {
            Kind::File(file) => {
                self.require(rights)?;
                Ok(file)
            }
            _ => Err(Errno::Badf),
        }
    }

    /// Fails unless the position may be asked for or changed. What has no position at all says so first.
    fn require_position(&self, rights: u64) -> Result<(), Errno> {
        match &self.kind {
            Kind::Directory(_) | Kind::SocketDirectory(_) => Err(Errno::Badf),
            Kind::Socket(_) => Err(Errno::Spipe),
            Kind::Stream(stream) if !stream.is_seekable() => Err(Errno::Spipe),
            _ => self.require(rights),
        }
    }
}

impl Host {
    /// Fails if the file lies in a read-only mount.
    fn check_writable(&self, mount: Option<usize>) -> Result<(), Errno> {
        if mount.is_some_and(|mount| self.mounts[mount].config.read_only) { Err(Errno::Rofs) } else { Ok(()) }
    }

    pub(super) fn fd_close(&mut self, args: Arguments<'_>) -> Outcome {
        self.table.remove(args.u32(0))?;
        Ok(())
    }

    pub(super) fn fd_renumber(&mut self, args: Arguments<'_>) -> Outcome {
        self.table.renumber(args.u32(0), args.u32(1))?;
        Ok(())
    }

    pub(super) fn fd_advise(&mut self, args: Arguments<'_>) -> Outcome {
        let advice = *ADVICE.get(args.u32(3) as usize).ok_or(Errno::Inval)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require_position(rights::FD_ADVISE)?;
        let (offset, len) = (file_offset(args.u64(1))?, file_offset(args.u64(2))?);
        rustix::fs::fadvise(entry.fd()?, offset, NonZeroU64::new(len), advice)?;
        Ok(())
    }

    pub(super) fn fd_allocate(&mut self, args: Arguments<'_>) -> Outcome {
        let (offset, len) = (args.u64(1), args.u64(2));
        let file = self.table.get(args.u32(0))?.file(rights::FD_ALLOCATE)?;
        self.check_writable(file.mount)?;
        if len == 0 {
            return Err(Errno::Inval.into());
        }
        let end = file_offset(file_offset(offset)?.checked_add(file_offset(len)?).ok_or(Errno::Fbig)?)?;
        let before = if self.quota.is_limited() { rustix::fs::fstat(&file.fd)?.st_size as u64 } else { end };
        self.quota.check(end.saturating_sub(before))?;
        retry(|| rustix::fs::fallocate(&file.fd, FallocateFlags::empty(), offset, len))?;
        self.quota.charge(end.saturating_sub(before));
        Ok(())
    }

    pub(super) fn fd_sync(&mut self, args: Arguments<'_>) -> Outcome {
        let entry = self.table.get(args.u32(0))?;
        entry.require(rights::FD_SYNC)?;
        let fd = entry.fd()?;
        Ok(retry(|| rustix::fs::fsync(fd))?)
    }

    pub(super) fn fd_datasync(&mut self, args: Arguments<'_>) -> Outcome {
        let entry = self.table.get(args.u32(0))?;
        entry.require(rights::FD_DATASYNC)?;
        let fd = entry.fd()?;
        Ok(retry(|| rustix::fs::fdatasync(fd))?)
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, args: Arguments<'_>) -> Outcome {
        let flags = args.flags(1)?;
        if flags >> fdflags::NAMES.len() != 0 {
            return Err(Errno::Inval.into());
        }
        let entry = self.table.get_mut(args.u32(0))?;
        entry.require(rights::FD_FDSTAT_SET_FLAGS)?;
        let changed = flags ^ entry.flags;
        // Linux can't change synchronisation of an open file.
        if changed & (fdflags::DSYNC | fdflags::RSYNC | fdflags::SYNC) != 0 {
            return Err(Errno::Notsup.into());
        }
        if changed & fdflags::APPEND != 0 {
            match &entry.kind {
                Kind::File(file) => {
                    let mut status = rustix::fs::fcntl_getfl(&file.fd)?;
                    status.set(OFlags::APPEND, flags & fdflags::APPEND != 0);
                    rustix::fs::fcntl_setfl(&file.fd, status)?;
                }
                // The description is others' too: their writes must not change places.
                _ => return Err(Errno::Notsup.into()),
            }
        }
        // NONBLOCK is ours alone: streams act on it, and files never wait.
        entry.flags = flags;
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(&mut self, args: Arguments<'_>) -> Outcome {
        let (base, inheriting) = (args.u64(1), args.u64(2));
        let entry = self.table.get_mut(args.u32(0))?;
        if base & !entry.rights_base != 0 || inheriting & !entry.rights_inheriting != 0 {
            return Err(Errno::Notcapable.into());
        }
        entry.rights_base = base;
        entry.rights_inheriting = inheriting;
        Ok(())
    }

    pub(super) fn fd_filestat_set_size(&mut self, args: Arguments<'_>) -> Outcome {
        let file = self.table.get(args.u32(0))?.file(rights::FD_FILESTAT_SET_SIZE)?;
        self.check_writable(file.mount)?;
        let size = file_offset(args.u64(1))?;
        let before = if self.quota.is_limited() { rustix::fs::fstat(&file.fd)?.st_size as u64 } else { size };
        self.quota.check(size.saturating_sub(before))?;
        retry(|| rustix::fs::ftruncate(&file.fd, size))?;
        self.quota.charge(size.saturating_sub(before));
        Ok(())
    }

    pub(super) fn fd_filestat_set_times(&mut self, args: Arguments<'_>) -> Outcome {
        let times = timestamps(args.u64(1), args.u64(2), args.flags(3)?)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require(rights::FD_FILESTAT_SET_TIMES)?;
        self.check_writable(entry.mount())?;
        if entry.filetype() == filetype::CHARACTER_DEVICE {
            return Err(Errno::Perm.into());
        }
        rustix::fs::futimens(entry.fd()?, &times)?;
        Ok(())
    }

    pub(super) fn fd_seek(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(3), 8)?;
        let offset = args.u64(1) as i64;
        let to = match u8::try_from(args.u32(2)) {
            Ok(whence::SET) => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::Inval)?),
            Ok(whence::CUR) => SeekFrom::Current(offset),
            Ok(whence::END) => SeekFrom::End(offset),
            _ => return Err(Errno::Inval.into()),
        };
        let entry = self.table.get(args.u32(0))?;
        // Asking for the position only is what the lesser right allows.
        let asks = matches!(to, SeekFrom::Current(0)) && entry.rights_base & rights::FD_TELL != 0;
        entry.require_position(if asks { rights::FD_TELL } else { rights::FD_SEEK })?;
        let position = rustix::fs::seek(entry.fd()?, to)?;
        if let Some(input) = entry.input() {
            input.moved_to(position);
        }
        memory.write_u64(args.u32(3), position)?;
        Ok(())
    }

    pub(super) fn fd_tell(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(1), 8)?;
        let entry = self.table.get(args.u32(0))?;
        // The right to seek implies this one.
        let seeks = entry.rights_base & rights::FD_SEEK != 0;
        entry.require_position(if seeks { rights::FD_SEEK } else { rights::FD_TELL })?;
        let position = rustix::fs::tell(entry.fd()?)?;
        memory.write_u64(args.u32(1), position)?;
        Ok(())
    }
}

/// The path that a descriptor was opened at, without symbolic links, as far as the kernel knows it.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::readlink(link, Vec::new()).ok().map(CString::into_bytes)
}

/// The kernel's form of two time stamps to set.
pub(super) fn timestamps(atim: u64, mtim: u64, flags: u16) -> Result<Timestamps, Errno> {
    if flags >> fstflags::NAMES.len() != 0 {
        return Err(Errno::Inval);
    }
    let stamp = |nanoseconds: u64, given: u16, now: u16| match (flags & given != 0, flags & now != 0) {
        (true, true) => Err(Errno::Inval),
        (false, true) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
        (false, false) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
        (true, false) => {
            Ok(Timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as i64 })
        }
    };
    Ok(Timestamps {
        last_access: stamp(atim, fstflags::ATIM, fstflags::ATIM_NOW)?,
        last_modification: stamp(mtim, fstflags::MTIM, fstflags::MTIM_NOW)?,
    })
}
