//! What descriptors and files are: types, rights, sizes, times.

use rustix::fs::{FileType, Stat};

use super::arguments::Arguments;
use super::streams::Stream;
use super::table::{Entry, Kind};
use super::{Host, Outcome};
use crate::abi::{filetype, rights, size};
use crate::{Errno, Memory};

/// Rights without which a character device is a terminal in the eyes of libc's `isatty`.
const SEEKABLE: u64 = rights::FD_SEEK | rights::FD_TELL;

/// What can be done with a standard stream: in one direction only, and seeking where that makes sense.
pub(super) fn stream_rights(stream: &Stream) -> u64 {
    let direction = if stream.number == 0 { rights::FD_READ } else { rights::FD_WRITE };
    let common = rights::FD_DATASYNC
        | rights::FD_SYNC
        | rights::FD_FDSTAT_SET_FLAGS
        | rights::FD_FILESTAT_GET
        | rights::POLL_FD_READWRITE;
    let special = match stream.filetype {
        filetype::REGULAR_FILE => SEEKABLE | rights::FD_ADVISE,
        _ if stream.is_seekable() => SEEKABLE,
        filetype::SOCKET_STREAM | filetype::SOCKET_DGRAM => rights::SOCK_SHUTDOWN,
        _ => 0,
    };
    direction | common | special
}

/// WASI's type for the kernel's. Pipes have none.
pub(super) fn filetype_of(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => filetype::REGULAR_FILE,
        FileType::Directory => filetype::DIRECTORY,
        FileType::Symlink => filetype::SYMBOLIC_LINK,
        FileType::CharacterDevice => filetype::CHARACTER_DEVICE,
        FileType::BlockDevice => filetype::BLOCK_DEVICE,
        FileType::Socket => filetype::SOCKET_STREAM,
        _ => filetype::UNKNOWN,
    }
}

/// The wire form of `filestat`.
#[allow(clippy::unnecessary_cast)] // how wide the count of links is depends on the machine
pub(super) fn filestat(stat: &Stat, filetype: u8) -> [u8; size::FILESTAT as usize] {
    let mut bytes = [0; size::FILESTAT as usize];
    bytes[0..8].copy_from_slice(&stat.st_dev.to_le_bytes());
    bytes[8..16].copy_from_slice(&stat.st_ino.to_le_bytes());
    bytes[16] = filetype;
    bytes[24..32].copy_from_slice(&(stat.st_nlink as u64).to_le_bytes());
    bytes[32..40].copy_from_slice(&(stat.st_size as u64).to_le_bytes());
    bytes[40..48].copy_from_slice(&nanoseconds(stat.st_atime, stat.st_atime_nsec).to_le_bytes());
    bytes[48..56].copy_from_slice(&nanoseconds(stat.st_mtime, stat.st_mtime_nsec).to_le_bytes());
    bytes[56..64].copy_from_slice(&nanoseconds(stat.st_ctime, stat.st_ctime_nsec).to_le_bytes());
    bytes
}

/// A time stamp as WASI has it: unsigned, so that what lies before 1970 becomes 0.
fn nanoseconds(seconds: i64, nanoseconds: u64) -> u64 {
    u64::try_from(seconds).map_or(0, |seconds| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

impl Entry {
    /// Whether it is there from the start, under a name.
    pub fn is_preopen(&self) -> bool {
        match &self.kind {
            Kind::Directory(directory) => directory.preopen,
            kind => matches!(kind, Kind::SocketDirectory(_)),
        }
    }

    pub fn filetype(&self) -> u8 {
        match &self.kind {
            Kind::Stream(stream) => stream.filetype,
            Kind::Directory(_) | Kind::SocketDirectory(_) => filetype::DIRECTORY,
            Kind::File(file) => file.filetype,
            Kind::Socket(socket) => socket.filetype(),
        }
    }

    /// Index of the mount that it lies in.
    pub fn mount(&self) -> Option<usize> {
        match &self.kind {
            Kind::Stream(_) | Kind::Socket(_) | Kind::SocketDirectory(_) => None,
            Kind::Directory(directory) => Some(directory.mount),
            Kind::File(file) => file.mount,
        }
    }
}

impl Host {
    pub(super) fn fd_fdstat_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let entry = self.table.get(args.u32(0))?;
        let mut bytes = [0; size::FDSTAT as usize];
        bytes[0] = entry.filetype();
        bytes[2..4].copy_from_slice(&entry.flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&entry.rights_base.to_le_bytes());
        bytes[16..24].copy_from_slice(&entry.rights_inheriting.to_le_bytes());
        memory.write(args.u32(1), &bytes)?;
        Ok(())
    }

    pub(super) fn fd_filestat_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(1), size::FILESTAT)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require(rights::FD_FILESTAT_GET)?;
        if entry.is_socket() {
            // Nothing of it is anybody's business: not even whether there is a socket of the kernel's.
            let mut bytes = [0; size::FILESTAT as usize];
            bytes[16] = entry.filetype();
            memory.write(args.u32(1), &bytes)?;
            return Ok(());
        }
        let stat = rustix::fs::fstat(entry.fd()?)?;
        memory.write(args.u32(1), &filestat(&stat, entry.filetype()))?;
        Ok(())
    }

    pub(super) fn fd_prestat_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let name = self.preopen_name(args.u32(0))?;
        let mut bytes = [0; size::PRESTAT as usize];
        bytes[4..8].copy_from_slice(&(name.len() as u32).to_le_bytes());
        memory.write(args.u32(1), &bytes)?;
        Ok(())
    }

    pub(super) fn fd_prestat_dir_name(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(1), args.u32(2))?;
        let name = self.preopen_name(args.u32(0))?;
        if (args.u32(2) as usize) < name.len() {
            return Err(Errno::Nametoolong.into());
        }
        memory.write(args.u32(1), name.as_bytes())?;
        Ok(())
    }

    fn preopen_name(&self, fd: u32) -> Result<&str, Errno> {
        match &self.table.get(fd)?.kind {
            Kind::Directory(directory) if directory.preopen => Ok(&self.mounts[directory.mount].config.guest),
            Kind::SocketDirectory(directory) => Ok(directory.guest_path()),
            _ => Err(Errno::Badf),
        }
    }
}
