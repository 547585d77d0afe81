//! Guest paths: what they may look like, and how they are resolved.
//!
//! Resolution is the kernel's alone, by `openat2` with `RESOLVE_BENEATH`: no component, symlink or rename in between
//! leads out of the directory that a path starts at. Calls that make or remove a name resolve its parent so, and pass
//! the name itself to the `*at` call, which never follows it. A library or a check of our own would have to be right
//! about every corner (trailing slashes, dangling symlinks, races); the kernel is.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno as Os;

use crate::abi::bounds::PATH_BYTES_MAX;
use crate::{Errno, Memory};

/// How often a resolution is tried again that a rename elsewhere on the system has disturbed.
const RACES_MAX: usize = 64;

/// Takes a path from the guest: relative, not empty, UTF-8 without NUL.
pub(super) fn take(memory: &mut Memory<'_>, ptr: u32, len: u32) -> Result<CString, Errno> {
    if len > PATH_BYTES_MAX {
        memory.check(ptr, len)?;
        return Err(Errno::Nametoolong);
    }
    let bytes = memory.sent(ptr, len)?;
    match bytes.first() {
        None => return Err(Errno::Noent),
        // Preview 1 has no absolute paths. Escapes are EPERM, as in other hosts, and what the WASI test suite accepts.
        Some(b'/') => return Err(Errno::Perm),
        Some(_) => {}
    }
    if std::str::from_utf8(bytes).is_err() {
        return Err(Errno::Ilseq);
    }
    CString::new(bytes).map_err(|_| Errno::Inval)
}

/// Opens a path that must not lead out of `directory`, which may be a mount that is a device.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES_MAX {
        match openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Ok(fd) => return Ok(fd),
            // EAGAIN: a rename or mount elsewhere may have led a `..` astray, so that the kernel can't vouch for it.
            Err(Os::AGAIN | Os::INTR) => {}
            Err(Os::XDEV) => return Err(Errno::Perm),
            // No directory is an error for `.`, so that this is a device. Its own descriptor leads to it.
            Err(Os::NOTDIR) if path == c"." && !flags.contains(OFlags::DIRECTORY) => {
                let flags = flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC;
                return Ok(rustix::fs::open(format!("/proc/self/fd/{}", directory.as_raw_fd()), flags, mode)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::Again)
}

/// The parent directory of a path.
pub(super) enum Parent<'a> {
    /// The directory that the path starts at.
    Start(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Start(fd) => *fd,
            Parent::Opened(fd) => fd.as_fd(),
        }
    }
}

/// A name within its parent, for calls that make or remove it.
pub(super) struct Place<'a> {
    pub parent: Parent<'a>,
    /// The last component, with the slashes behind it: calls that make or remove a name heed them, and follow nothing.
    pub name: CString,
    /// Whether slashes follow the name, which then must be a directory's.
    pub trailing_slash: bool,
}

impl Place<'_> {
    /// The name alone.
    pub fn bare_name(&self) -> CString {
        let bytes = self.name.as_bytes();
        let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        CString::new(&bytes[..end]).unwrap_or_default()
    }

    /// Whether the name is `.` or `..`, which name no entry of their own.
    pub fn is_dots(&self) -> bool {
        matches!(self.bare_name().as_bytes(), b"." | b"..")
    }

    /// The metadata of what bears the name now, not followed.
    pub fn stat(&self) -> rustix::io::Result<rustix::fs::Stat> {
        rustix::fs::statat(&self.parent, self.bare_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Resolves all but the last component.
pub(super) fn place<'a>(directory: BorrowedFd<'a>, path: &CStr) -> Result<Place<'a>, Errno> {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let name = CString::new(&bytes[start..]).map_err(|_| Errno::Inval)?;
    let parent = if start == 0 {
        Parent::Start(directory)
    } else {
        let parent = CString::new(&bytes[..start]).map_err(|_| Errno::Inval)?;
        Parent::Opened(open_beneath(directory, &parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?)
    };
    Ok(Place { parent, name, trailing_slash: end < bytes.len() })
}
