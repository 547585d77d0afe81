//! What a resumed guest's descriptors must become.
//!
//! `crate::shadow::Shadow` derives this table from the records of a log; `crate::host::Host::restore` makes it real.

use std::fs::File;

/// One descriptor as it would be if the process had lived on.
#[derive(Debug)]
pub struct Descriptor {
    pub fd: u32,
    pub kind: DescriptorKind,
    /// Rights of the descriptor, and those that descriptors opened beneath it can have (`abi::rights`).
    pub rights_base: u64,
    pub rights_inheriting: u64,
    /// `abi::fdflags`.
    pub flags: u16,
}

/// What a descriptor refers to.
#[derive(Debug)]
pub enum DescriptorKind {
    /// Standard stream 0, 1 or 2 of the resumed process.
    Stdio(u8),
    /// The root of mount number `mount`, in the order of the configuration.
    Mount { mount: usize },
    /// A directory, `path` relative to the mount's root (empty: the root itself).
    Directory { mount: usize, path: Vec<u8> },
    /// A file, and its offset in bytes.
    File { mount: usize, path: Vec<u8>, offset: u64 },
    /// A file without a name any more, rebuilt from the log.
    Rebuilt { file: File, offset: u64 },
}

/// An append to a file that may have taken effect without its record: the process died in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornAppend {
    pub mount: usize,
    pub path: Vec<u8>,
    /// The file's size as the log knows it, bytes. What lies beyond may be the append that the guest will do again.
    pub size: u64,
}

/// The state that a host takes over from a replay.
#[derive(Debug, Default)]
pub struct Restored {
    pub descriptors: Vec<Descriptor>,
    pub torn_appends: Vec<TornAppend>,
    /// The last monotonic time that the guest saw, nanoseconds: its clock goes on from there.
    pub monotonic_ns: u64,
    /// Wall-clock time of the last record, nanoseconds since the epoch; 0 if not known. What was made since then may
    /// be the effect of a call without a record.
    pub realtime_ns: u64,
}
