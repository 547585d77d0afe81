//! What lies in a log's directory beside the segments: lock, pointer to the ring, mark of loss.

use crate::bytes::{put, u32_at, u64_at};
use crate::error::LogError;
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";
const RING_POINTER_FILE: &str = "ring";
const LOST_FILE: &str = "lost";
const LOST_MAGIC: &[u8; 4] = b"TCLL";
const LOST_LEN: usize = 16;

/// Sole right to write in a log's directory; ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the right, or fails at once.
    pub fn take(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(LOCK_FILE);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LogError::io(&path, "open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LogError::Busy(dir.to_owned())),
            Err(error) => Err(LogError::io(&path, "lock")(error.into())),
        }
    }
}

/// Says in `dir` where the ring is.
///
/// Not synced: a ring is of no use after a reboot, and neither is what points to it.
pub fn write_ring_pointer(dir: &Path, ring: &Path) -> Result<(), LogError> {
    let path = dir.join(RING_POINTER_FILE);
    let draft = dir.join("ring.new");
    std::fs::write(&draft, ring.as_os_str().as_bytes())
        .and_then(|()| std::fs::rename(&draft, &path))
        .map_err(LogError::io(&path, "write"))
}

/// Where the ring is, if the log was left with one.
pub fn read_ring_pointer(dir: &Path) -> Result<Option<PathBuf>, LogError> {
    let path = dir.join(RING_POINTER_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(PathBuf::from(OsString::from_vec(bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::io(&path, "read")(error)),
    }
}

/// Removes the ring, then the pointer to it: all its records are in segments, durably.
pub fn remove_ring(dir: &Path, ring: &Path) -> Result<(), LogError> {
    remove_if_there(ring)?;
    remove_if_there(&dir.join(RING_POINTER_FILE))
}

/// Removes a file that may be gone already.
pub fn remove_if_there(path: &Path) -> Result<(), LogError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

/// Allocates the mark of loss, so that it can be set when the disk is full.
pub fn prepare_lost_mark(dir: &Path) -> Result<(), LogError> {
    let path = dir.join(LOST_FILE);
    match File::options().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(&[0; LOST_LEN]).map_err(LogError::io(&path, "write")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(LogError::io(&path, "create")(error)),
    }
}

/// Notes that records from `first_lost_seq` on are missing. A note of an earlier loss stays.
pub fn mark_lost(dir: &Path, first_lost_seq: u64) -> Result<(), LogError> {
    if read_lost_mark(dir)?.is_some() {
        return Ok(());
    }
    let path = dir.join(LOST_FILE);
    let mut mark = [0; LOST_LEN];
    put(&mut mark, 0, LOST_MAGIC);
    put(&mut mark, 8, &first_lost_seq.to_le_bytes());
    let crc = crc32c::crc32c(&mark[8..]);
    put(&mut mark, 4, &crc.to_le_bytes());
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.write_all_at(&mark, 0).and_then(|()| file.sync_data()))
        .map_err(LogError::io(&path, "write"))
}

/// First record that is missing from the log in `dir`, if it was marked so. Whoever made the file may have died before
/// its zeros were there.
pub fn read_lost_mark(dir: &Path) -> Result<Option<u64>, LogError> {
    let path = dir.join(LOST_FILE);
    let mark = match std::fs::read(&path) {
        Ok(mark) => mark,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io(&path, "read")(error)),
    };
    if mark.len() <= LOST_LEN && mark.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if mark.len() == LOST_LEN && mark.starts_with(LOST_MAGIC) && crc32c::crc32c(&mark[8..]) == u32_at(&mark, 4) {
        return Ok(Some(u64_at(&mark, 8)));
    }
    Err(LogError::LostMark(path))
}
