//! Every error of this crate.

use crate::source::FetchError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a record was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record exceeds [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX) or the ring.
    #[error("a record of {bytes} bytes exceeds the maximum of {bytes_max}")]
    TooLarge {
        /// Size of the record.
        bytes: usize,
        /// Size that would have been taken.
        bytes_max: usize,
    },
    /// More than [`ARGS_MAX`](crate::ARGS_MAX) arguments.
    #[error("a record has {0} arguments, more than {max}", max = crate::ARGS_MAX)]
    TooManyArgs(usize),
    /// More than [`REGIONS_MAX`](crate::REGIONS_MAX) regions in one direction.
    #[error("a record has {0} regions, more than {max}", max = crate::REGIONS_MAX)]
    TooManyRegions(usize),
    /// An iterator of regions gave other regions the second time.
    #[error("the regions of a record changed while it was appended")]
    UnstableRegions,
    /// The writer thread failed: see [`LogWriterHandle::failure`](crate::LogWriterHandle::failure).
    #[error("the log's writer failed, the record was not written")]
    WriterFailed,
    /// Cancelled while waiting for room.
    #[error("cancelled while waiting for room in the ring")]
    Cancelled,
}

/// What is wrong with bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The file ends in the middle of something.
    Truncated,
    /// A checksum does not match.
    CorruptCrc,
    /// The bytes are not what the format has in this place.
    BadMagic,
    /// Checksums match, but the content breaks a rule of the format.
    Malformed(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::CorruptCrc => f.write_str("corrupt crc"),
            Self::BadMagic => f.write_str("bad magic"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

/// Why a log could not be written, read or recovered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        op: &'static str,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// The bytes of a file are not a valid log.
    #[error("{} at offset {offset}: {reason} (good up to record {})", path.display(), Seq(*seq))]
    Corrupt {
        /// File.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// Last good record before it, if any.
        seq: Option<u64>,
        /// What is wrong.
        reason: Reason,
    },
    /// Written by a newer version of this software.
    #[error("{}: format version {found} is newer than {supported}, upgrade to read it",
        path.display())]
    VersionNewer {
        /// File.
        path: PathBuf,
        /// Version of the file.
        found: u16,
        /// Newest version this build reads.
        supported: u16,
    },
    /// Another writer or a recovery holds the log.
    #[error("{}: the log is in use by a writer", .0.display())]
    Busy(PathBuf),
    /// The log reached `log_bytes_max`.
    #[error("the log reached its limit of {0} bytes")]
    LogFull(u64),
    /// The log of another process lies in this directory.
    #[error("{}: the log belongs to another process", .0.display())]
    OtherProcess(PathBuf),
    /// The mark of loss is damaged.
    #[error("{}: damaged, so that it isn't known whether records are missing behind the last one; if that process \
        never ran on with a full disk, remove the file", .0.display())]
    LostMark(PathBuf),
    /// The directory holds no log.
    #[error("{}: no log here", .0.display())]
    NoLog(PathBuf),
    /// A segment that is stored elsewhere could not be had; the reason names it.
    #[error("{0}")]
    Fetch(FetchError),
    /// A configuration that cannot work.
    #[error("log configuration: {0}")]
    Config(&'static str),
    /// The writer thread panicked.
    #[error("the log's writer thread panicked")]
    WriterPanicked,
}

impl LogError {
    pub(crate) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, op, source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, seq: Option<u64>, reason: Reason) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, seq, reason }
    }

    /// Whether what failed may succeed if it is tried again: the operating system refused, for whatever reason.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// The system's number of the reason; `EIO` where it gave none.
    pub(crate) fn errno(&self) -> u32 {
        let errno = if let Self::Io { source, .. } = self { source.raw_os_error() } else { None };
        errno.map_or(rustix::io::Errno::IO.raw_os_error(), |errno| errno).unsigned_abs()
    }

    /// Whether there was no room: a full disk, quota, file size limit, or `log_bytes_max`.
    pub fn is_full(&self) -> bool {
        match self {
            Self::LogFull(_) => true,
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
            ),
            _ => false,
        }
    }
}

struct Seq(Option<u64>);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seq) => seq.fmt(f),
            None => f.write_str("none"),
        }
    }
}
