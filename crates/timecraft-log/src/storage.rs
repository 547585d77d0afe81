//! Where segments are written: files, or what a test puts in their place to make them fail.

use rustix::fs::{self, FallocateFlags, OFlags};
use std::fs::File;
use std::io::{self, IoSlice, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// Alignment of direct writes, in the file and in memory.
pub const DIRECT_ALIGN: usize = 4096;
/// Type of the file systems that are page cache and nothing else.
const TMPFS: u64 = 0x0102_1994;

/// A segment's file, open for appending.
pub trait SegmentFile: Send {
    /// Appends as much of `parts` as the system takes at once; returns the number of bytes.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Writes as much of `bytes` as the system takes at once over what is at `offset`.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts the file to `len` bytes; the next write goes there.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Waits until the file's content is on the medium.
    fn sync_data(&mut self) -> io::Result<()>;
    /// A way past the page cache, with room allocated for `room` bytes from `offset` on, of which the file's length
    /// says nothing; `truncate` takes it back. `None` where there is no such way, or it would not help.
    fn direct(&mut self, _offset: u64, _room: u64) -> Option<Arc<dyn DirectFile>> {
        None
    }
}

/// The same file for writes past the page cache.
pub trait DirectFile: Send + Sync {
    /// Writes as much of `bytes` as the system takes at once, all aligned to [`DIRECT_ALIGN`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
}

impl DirectFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }
}

/// Segment files, and the directory that they are in.
pub trait Storage: Send {
    /// Creates the file at `path`, which must not exist.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens the file at `path`, to append behind its first `len` bytes.
    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>>;
    /// Removes the file at `path`.
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    /// Makes the names in the directory at `path` durable.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Files in directories.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirStorage;

impl Storage for DirStorage {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(File::options().write(true).create_new(true).open(path)?))
    }

    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut file = File::options().write(true).open(path)?;
        file.seek(SeekFrom::Start(len))?;
        Ok(Box::new(file))
    }
}

impl SegmentFile for File {
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        io::Write::write_vectored(self, parts)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(SeekFrom::Start(len)).map(drop)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn direct(&mut self, offset: u64, room: u64) -> Option<Arc<dyn DirectFile>> {
        if fs::fstatfs(&*self).ok()?.f_type as u64 == TMPFS {
            return None;
        }
        // Opened anew: the flag would otherwise hold for this descriptor's writes too.
        let path = format!("/proc/self/fd/{}", self.as_raw_fd());
        let flags = OFlags::DIRECT.bits() as i32;
        let direct = File::options().write(true).custom_flags(flags).open(path).ok()?;
        fs::fallocate(&direct, FallocateFlags::KEEP_SIZE, offset, room).ok()?;
        Some(Arc::new(direct))
    }
}

/// Writes all of `parts`, however many writes it takes.
pub(crate) fn write_all(file: &mut dyn SegmentFile, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0); // skips empty parts
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(IOV_MAX)];
        match file.write_vectored(batch) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Parts that one write takes, on Linux.
const IOV_MAX: usize = 1024;

/// Writes all of `bytes` over what is at `offset`, however many writes it takes.
pub(crate) fn write_all_at(file: &mut dyn SegmentFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
