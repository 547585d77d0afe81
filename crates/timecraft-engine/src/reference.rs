//! Records that refer to files which never change, instead of holding a copy of what was read from them.
//!
//! A mount may be immutable: its directory is a *tree*, content-addressed and kept as long as logs refer to it. What
//! a guest reads there is in the tree already. [`Reference`] is what the record has in its place, and [`WholeSource`]
//! puts the bytes back when a log is read, so that nobody above knows the difference.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::Errno;
use crate::abi::bounds::{PATH_BYTES_MAX, TRANSFER_BYTES_MAX};
use crate::host::path::open_beneath;
use crate::recorder::{CONTROL_BASE, OwnedRecord, Record, Source, SourceError};

/// Set in a record's call id if its first written region is a [`Reference`]: part of the log format. Never set for
/// calls themselves, of which there are few. Control records have it too, and mean something else by it.
pub const REFERRING: u16 = 0x4000;

/// Bytes of a guest's read below which it is not worth a reference.
const READ_BYTES_MIN: usize = 64;

/// Where bytes that a guest has read are to be found. As bytes: the fields in this order, numbers little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Number of the immutable mount.
    pub mount: u32,
    /// Where in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// CRC-32C of the bytes.
    pub crc: u32,
    /// Of the file, relative to the mount, without symbolic links.
    pub path: &'a [u8],
}

impl<'a> Reference<'a> {
    /// Bytes of all fields but the path.
    const NUMBERS_BYTES: usize = 20;

    /// Appends a reference to `out` that stands for `data`, if that saves room.
    pub fn encode(mount: u32, offset: u64, path: &[u8], data: &[u8], out: &mut Vec<u8>) {
        if data.len() < READ_BYTES_MIN.max(Self::NUMBERS_BYTES + path.len()) {
            return;
        }
        out.extend_from_slice(&mount.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
        out.extend_from_slice(path);
    }

    /// The inverse of [`Reference::encode`]; `None` for what it never makes.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (mount, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (crc, path) = rest.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        let is_sane = len <= TRANSFER_BYTES_MAX && path.len() <= PATH_BYTES_MAX as usize;
        is_sane.then_some(Reference {
            mount: u32::from_le_bytes(*mount),
            offset: u64::from_le_bytes(*offset),
            len,
            crc: u32::from_le_bytes(*crc),
            path,
        })
    }

    /// What a record has in place of bytes.
    fn of(record: &'a impl Record) -> Option<Self> {
        record.written().next().and_then(|(_, bytes)| Reference::decode(bytes))
    }
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}+{}>", String::from_utf8_lossy(self.path).escape_debug(), self.offset)
    }
}

/// Whether the record has a reference in place of its first written region.
#[inline]
fn refers(record: &impl Record) -> bool {
    record.call() & REFERRING != 0 && record.call() < CONTROL_BASE
}

/// The trees of a process's immutable mounts, from which its records are made whole.
#[derive(Debug, Default)]
pub struct Trees {
    roots: Vec<Option<Root>>,
    /// The file that was read last: the next read is mostly of the same.
    last: Option<(u32, Vec<u8>, File)>,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Root {
    directory: PathBuf,
    fd: Option<OwnedFd>,
}

impl Trees {
    /// `directories` has an entry for each mount, in order: where its tree is, if it has one. Nothing is opened yet.
    pub fn new(directories: impl IntoIterator<Item = Option<PathBuf>>) -> Self {
        let root = |directory: Option<PathBuf>| directory.map(|directory| Root { directory, fd: None });
        Trees { roots: directories.into_iter().map(root).collect(), ..Trees::default() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.roots.iter().all(Option::is_none)
    }

    /// The record with the bytes that it refers to, if it refers to any.
    ///
    /// # Errors
    /// For the user, if they can't be had.
    #[inline]
    pub fn complete<R: Record>(&mut self, record: R) -> Result<WholeRecord<'_, R>, String> {
        if !refers(&record) {
            return Ok(WholeRecord { record, first: None });
        }
        let first = self.read(&record)?;
        Ok(WholeRecord { record, first: Some(first) })
    }

    #[inline(never)]
    fn read(&mut self, record: &impl Record) -> Result<&[u8], String> {
        let reference = Reference::of(record).ok_or("a reference that can't be")?;
        let root = self.roots.get_mut(reference.mount as usize).and_then(Option::as_mut);
        let root = root.ok_or_else(|| format!("refers to mount {}, which is not immutable", reference.mount))?;
        let what = |reason: &dyn fmt::Display, directory: &Path| {
            let path = directory.join(String::from_utf8_lossy(reference.path).as_ref());
            format!("refers to {}: {reason}", path.display())
        };
        let is_it = |(mount, path, _): &(u32, Vec<u8>, File)| *mount == reference.mount && path == reference.path;
        if !self.last.as_ref().is_some_and(is_it) {
            let file = root.open(reference.path).map_err(|error| what(&error, &root.directory))?;
            self.last = Some((reference.mount, reference.path.to_vec(), file));
        }
        let Some((_, _, file)) = &self.last else { return Err("no file".into()) };
        let len = reference.len as usize;
        if self.data.len() < len {
            self.data.resize(len, 0);
        }
        let data = &mut self.data[..len];
        match file.read_exact_at(data, reference.offset) {
            Ok(()) if crc32c::crc32c(data) == reference.crc => Ok(data),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(what(&error, &root.directory)),
            _ => Err(what(&"has changed since the guest read it", &root.directory)),
        }
    }
}

impl Root {
    fn open(&mut self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match self.fd.take() {
            Some(fd) => fd,
            None => rustix::fs::open(&self.directory, flags | OFlags::DIRECTORY, Mode::empty())?,
        };
        let fd = self.fd.insert(fd);
        let path = CString::new(path)?;
        // A log from elsewhere may name what is no file of the tree.
        let file = open_beneath(fd.as_fd(), &path, flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty());
        let file = File::from(file.map_err(|errno| match errno {
            Errno::Noent => io::Error::other("there is no such file"),
            errno => io::Error::other(errno.name()),
        })?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no file")) }
    }
}

/// A record whose first written region may come from elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct WholeRecord<'t, R> {
    record: R,
    first: Option<&'t [u8]>,
}

impl<R: Record> WholeRecord<'_, R> {
    /// A record as it was read, its reference in place of the bytes: to be shown.
    pub fn unread(record: R) -> Self {
        WholeRecord { record, first: None }
    }
}

impl<R: Record> Record for WholeRecord<'_, R> {
    #[inline]
    fn seq(&self) -> u64 {
        self.record.seq()
    }

    #[inline]
    fn call(&self) -> u16 {
        if refers(&self.record) { self.record.call() & !REFERRING } else { self.record.call() }
    }

    #[inline]
    fn errno(&self) -> u16 {
        self.record.errno()
    }

    #[inline]
    fn time_ns(&self) -> u64 {
        self.record.time_ns()
    }

    #[inline]
    fn args(&self) -> &[u64] {
        self.record.args()
    }

    #[inline]
    fn written(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        let mut first = self.first;
        self.record.written().map(move |(ptr, bytes)| (ptr, first.take().unwrap_or(bytes)))
    }

    #[inline]
    fn sent(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.record.sent()
    }

    #[inline]
    fn digested(&self) -> bool {
        self.record.digested()
    }

    fn reference(&self) -> Option<Reference<'_>> {
        if self.first.is_none() && refers(&self.record) { Reference::of(&self.record) } else { None }
    }
}

/// A source whose records are whole.
#[derive(Debug)]
pub struct WholeSource<S> {
    source: S,
    trees: Trees,
}

impl<S> WholeSource<S> {
    pub fn new(source: S, trees: Trees) -> Self {
        WholeSource { source, trees }
    }
}

impl<S: Source> Source for WholeSource<S> {
    type Record<'a>
        = WholeRecord<'a, S::Record<'a>>
    where
        Self: 'a;

    #[inline]
    fn next(&mut self) -> Result<Option<Self::Record<'_>>, SourceError> {
        let Some(record) = self.source.next()? else { return Ok(None) };
        if !refers(&record) {
            return Ok(Some(WholeRecord { record, first: None }));
        }
        let first = self.trees.read(&record);
        let first = first.map_err(|reason| SourceError::Input(format!("record {} {reason}", record.seq())))?;
        Ok(Some(WholeRecord { record, first: Some(first) }))
    }

    fn last(&mut self) -> Result<Option<OwnedRecord>, SourceError> {
        self.source.last()
    }
}
