//! What a resumed guest's descriptors must become.
//!
//! `crate::shadow::Shadow` derives this table from the records of a log; `crate::host::Host::restore` makes it real.

use std::fs::File;

use crate::abi::rights;
use crate::host::SocketDirectory;
use crate::network::{Address, Transport};

/// Rights of a mount's descriptor, read-only mounts included: the kernel denies what those don't allow, and with an
/// error that says why.
pub const MOUNT_RIGHTS_BASE: u64 = rights::FD_DATASYNC
    | rights::FD_FDSTAT_SET_FLAGS
    | rights::FD_SYNC
    | rights::PATH_CREATE_DIRECTORY
    | rights::PATH_CREATE_FILE
    | rights::PATH_LINK_SOURCE
    | rights::PATH_LINK_TARGET
    | rights::PATH_OPEN
    | rights::FD_READDIR
    | rights::PATH_READLINK
    | rights::PATH_RENAME_SOURCE
    | rights::PATH_RENAME_TARGET
    | rights::PATH_FILESTAT_GET
    | rights::PATH_FILESTAT_SET_SIZE
    | rights::PATH_FILESTAT_SET_TIMES
    | rights::FD_FILESTAT_GET
    | rights::FD_FILESTAT_SET_TIMES
    | rights::PATH_SYMLINK
    | rights::PATH_REMOVE_DIRECTORY
    | rights::PATH_UNLINK_FILE
    | rights::POLL_FD_READWRITE;

/// Rights that descriptors opened beneath a mount can have.
pub const MOUNT_RIGHTS_INHERITING: u64 = rights::ALL;

/// Rights of a directory of sockets: its names can be opened, as programs open files that they write, too.
pub const SOCKET_DIRECTORY_RIGHTS: u64 = rights::PATH_OPEN | rights::PATH_CREATE_FILE | rights::PATH_FILESTAT_SET_SIZE;

/// Rights that a file's descriptor can have.
pub const FILE_RIGHTS: u64 = rights::FD_DATASYNC
    | rights::FD_READ
    | rights::FD_SEEK
    | rights::FD_FDSTAT_SET_FLAGS
    | rights::FD_SYNC
    | rights::FD_TELL
    | rights::FD_WRITE
    | rights::FD_ADVISE
    | rights::FD_ALLOCATE
    | rights::FD_FILESTAT_GET
    | rights::FD_FILESTAT_SET_SIZE
    | rights::FD_FILESTAT_SET_TIMES
    | rights::POLL_FD_READWRITE;

/// Rights (base, inheriting) of a descriptor that `path_open` made, as far as its type can have what was asked for.
pub const fn opened_rights(is_directory: bool, base: u64, inheriting: u64) -> (u64, u64) {
    if is_directory { (base & MOUNT_RIGHTS_BASE, inheriting) } else { (base & FILE_RIGHTS, 0) }
}

/// One descriptor as it would be if the process had lived on.
#[derive(Debug)]
pub struct Descriptor {
    pub fd: u32,
    pub kind: DescriptorKind,
    /// Rights of the descriptor, and those that descriptors opened beneath it can have (`abi::rights`). A standard
    /// stream's rights depend on where it leads, which no log says: [`UNRESTRICTED`] if the guest hasn't cut them, and
    /// the host intersects them with those that it gives.
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
    Mount {
        mount: usize,
    },
    /// A directory, `path` relative to the mount's root (empty: the root itself).
    Directory {
        mount: usize,
        path: Vec<u8>,
    },
    /// A file, and its offset in bytes.
    File {
        mount: usize,
        path: Vec<u8>,
        offset: u64,
    },
    /// A file without a name any more, rebuilt from the log.
    Rebuilt {
        file: File,
        offset: u64,
    },
    Socket(RestoredSocket),
    SocketDirectory(SocketDirectory),
}

/// A socket, as far as a log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSocket {
    /// `abi::socket`: the family that it was opened with; any for a connection by name.
    pub family: u32,
    pub transport: Transport,
    /// What it was bound to; port 0 if the log doesn't tell the port that it was given.
    pub local: Option<Address>,
    pub peer: Option<Address>,
    pub role: SocketRole,
}

/// What a socket was in the middle of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketRole {
    Idle,
    Listening {
        backlog: u32,
    },
    /// Connected, or about to be. A stream's connection has died with the process.
    Connected,
    /// One of the listeners that the process is given at its start, by number, and anew when it is resumed.
    Preopened(usize),
}

/// An append to a file that may have taken effect without its record: the process died in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornAppend {
    pub mount: usize,
    pub path: Vec<u8>,
    /// The file's size as the log knows it, bytes. What lies beyond may be the append that the guest will do again.
    pub size: u64,
}

/// Rights of a standard stream that the guest hasn't cut.
pub const UNRESTRICTED: u64 = u64::MAX;

/// What the host must know of the first call after the resumption: the one that may have taken effect already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FirstCall {
    /// It is done (again) as if nothing had been: it took no effect, or doing it twice is harmless.
    #[default]
    Redo,
    /// It took effect, and a second time would fail (`path_create_directory`, `path_rename`, ...): it succeeds without.
    AlreadyDone,
    /// `path_open` with EXCL which has created its (empty) file: EXCL doesn't count.
    AlreadyCreated,
}

/// The state that a host takes over from a replay.
#[derive(Debug, Default)]
pub struct Restored {
    pub descriptors: Vec<Descriptor>,
    pub torn_appends: Vec<TornAppend>,
    /// The last monotonic time that the guest saw, nanoseconds: its clock goes on from there.
    pub monotonic_ns: u64,
    pub first_call: FirstCall,
}
