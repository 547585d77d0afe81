//! The cache of machine code: one file per module and compiler, safe to share between processes.
//!
//! Machine code from the cache is executed without further checks. So the directory is made with mode 0700, a file that
//! others own or may write is not used, and each file carries a checksum: what is damaged or not ours is compiled anew.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use sha2::{Digest, Sha256};
use wasmer::{Engine, Module};

use super::engine::Compiler;
use super::guest::hex;
use super::module::ModuleError;

const MAGIC: &[u8; 8] = b"TCMC\x01\0\0\0";
/// Magic, CRC-32C of the body, padding. A multiple of 16 because the body's structures are read in place.
const HEADER_BYTES: usize = 16;
/// Permissions of group and others to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Writers of this process so far.
static WRITERS: AtomicU64 = AtomicU64::new(0);

/// Where a module's machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactSource {
    Cached,
    Compiled,
    /// The cached file was damaged, or others could have written it.
    Recompiled,
}

/// A directory of artifacts with a bound on its size.
#[derive(Clone, Debug)]
pub struct ArtifactCache {
    dir: PathBuf,
    bytes_max: u64,
}

impl ArtifactCache {
    /// A cache in `dir`, made when first needed, of at most `bytes_max` bytes: beyond, the longest unused files go.
    pub fn new(dir: impl Into<PathBuf>, bytes_max: u64) -> Self {
        ArtifactCache { dir: dir.into(), bytes_max }
    }

    /// Loads the machine code of a module, compiling it if need be. `digest` is the SHA-256 of `wasm`, hex; `wasm` is
    /// only called for when there is something to compile.
    ///
    /// # Errors
    /// [`ModuleError::Compile`]. A cache that can't be written costs speed only, and is no error.
    pub(super) fn load(
        &self,
        engine: &Engine,
        compiler: Compiler,
        digest: &str,
        wasm: impl FnOnce() -> Result<Vec<u8>, ModuleError>,
    ) -> Result<(Module, ArtifactSource), ModuleError> {
        let path = self.path(compiler, digest);
        let mut source = ArtifactSource::Compiled;
        match Mapped::open(&path) {
            Ok(bytes) => {
                if let Some(module) = deserialize(engine, bytes) {
                    // The time of last use is what eviction goes by.
                    let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                    return Ok((module, ArtifactSource::Cached));
                }
                source = ArtifactSource::Recompiled;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => source = ArtifactSource::Recompiled,
        }
        let module = Module::from_binary(engine, &wasm()?).map_err(|error| ModuleError::Compile(error.to_string()))?;
        if let Ok(body) = module.serialize() {
            let _ = self.store(&path, &body);
        }
        Ok((module, source))
    }

    /// Whether there is machine code of a module, sound or not.
    pub fn has(&self, compiler: Compiler, digest: &str) -> bool {
        self.path(compiler, digest).exists()
    }

    fn path(&self, compiler: Compiler, digest: &str) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(compiler.key());
        let key = hex(&hash.finalize()[..8]);
        self.dir.join(format!("{digest}-{key}.artifact"))
    }

    /// Writes beside and renames: readers see the whole file or none, and of two writers the last wins.
    fn store(&self, path: &Path, body: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // A name of its own for each writer, in this process too: a file that was renamed must never be written again.
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{writer}.tmp", std::process::id()));
        let created = File::options().write(true).create(true).truncate(true).mode(0o644).open(&temporary);
        let written = created.and_then(|mut file| {
            file.write_all(MAGIC)?;
            file.write_all(&crc32c::crc32c(body).to_le_bytes())?;
            file.write_all(&[0; 4])?;
            file.write_all(body)
        });
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.evict(path)
    }

    fn evict(&self, keep: &Path) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total <= self.bytes_max {
                break;
            }
            if path != keep && fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
        Ok(())
    }
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, file: Mapped) -> Option<Module> {
    let bytes = Bytes::from_owner(file);
    let header = bytes.get(..HEADER_BYTES)?;
    let body = bytes.slice(HEADER_BYTES..);
    let sum = u32::from_le_bytes(header[8..12].try_into().ok()?);
    if &header[..8] != MAGIC || crc32c::crc32c(&body) != sum {
        return None;
    }
    // SAFETY: the body is what this engine's `serialize` returned: the name holds the digest of module, engine and
    // flags, the checksum was right, and nobody but its owner (we, or root) can have written the file.
    unsafe { Module::deserialize_unchecked(engine, body) }.ok()
}

/// A file in memory without a copy of it: reading ten megabytes into fresh memory is most of the time that a warm start
/// would take.
struct Mapped {
    at: NonNull<u8>,
    len: usize,
}

impl Mapped {
    #[allow(unsafe_code)]
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let owned = metadata.uid() == rustix::process::geteuid().as_raw() || metadata.uid() == 0;
        if !owned || metadata.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let len = usize::try_from(metadata.len()).unwrap_or(0);
        if len < HEADER_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a new private mapping. Artifacts are replaced by renaming and never written in place, so that what is
        // mapped stays.
        let at = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE | MapFlags::POPULATE, &file, 0)?
        };
        NonNull::new(at.cast()).map(|at| Mapped { at, len }).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsRef<[u8]> for Mapped {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is `len` bytes long and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more. Failing to unmap leaks address space only.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}

#[allow(unsafe_code)]
// SAFETY: the mapping is read-only and belongs to no thread.
unsafe impl Send for Mapped {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Mapped {}
