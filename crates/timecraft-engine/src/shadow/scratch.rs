//! Bytes that a guest wrote, kept outside memory: one unlinked file holds those of all files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};

use super::ShadowError;

/// Unit in which files take room in the scratch file. The scratch file is sparse, so a small file takes a page of disk
/// and not a whole chunk.
const CHUNK_BYTES: u64 = 64 * 1024;

/// A set of disjoint byte ranges that don't touch: start to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(BTreeMap<u64, u64>);

impl Extents {
    /// Adds a range and returns how many bytes of it are new.
    pub(super) fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let (mut low, mut high, mut covered) = (start, end, 0);
        let touching: Vec<u64> =
            self.0.range(..=end).rev().take_while(|(_, to)| **to >= start).map(|(from, _)| *from).collect();
        for from in touching {
            let to = self.0.remove(&from).unwrap_or(from);
            covered += to.min(end).saturating_sub(from.max(start));
            low = low.min(from);
            high = high.max(to);
        }
        self.0.insert(low, high);
        end - start - covered
    }

    /// Forgets everything from `size` on and returns how many bytes that were.
    pub(super) fn clip(&mut self, size: u64) -> u64 {
        let mut removed: u64 = self.0.split_off(&size).iter().map(|(from, to)| to - from).sum();
        if let Some((_, to)) = self.0.range_mut(..size).next_back()
            && *to > size
        {
            removed += *to - size;
            *to = size;
        }
        removed
    }

    /// Whether every byte of the range is in the set.
    pub(super) fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.0.range(..=start).next_back().is_some_and(|(_, to)| *to >= end)
    }

    /// The ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    /// The ranges between those of the set, from 0 to `size`.
    pub(super) fn gaps(&self, size: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (from, to) in self.iter().take_while(|(from, _)| *from < size) {
            if at < from {
                gaps.push((at, from));
            }
            at = to;
        }
        if at < size {
            gaps.push((at, size));
        }
        gaps
    }
}

/// The file that holds what guests wrote.
#[derive(Debug)]
pub(super) struct Scratch {
    file: File,
    next_chunk: u64,
    free: Vec<u64>,
    used_bytes: u64,
    max_bytes: u64,
}

impl Scratch {
    pub(super) fn create(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        Ok(Scratch { file: unlinked_file(dir)?, next_chunk: 0, free: Vec::new(), used_bytes: 0, max_bytes })
    }

    fn take_chunk(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.next_chunk += 1;
            (self.next_chunk - 1) * CHUNK_BYTES
        })
    }

    fn give_back(&mut self, chunk: u64) {
        // Where the file system can't punch holes the chunk is still reused; only its disk space stays taken.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&self.file, flags, chunk, CHUNK_BYTES);
        self.free.push(chunk);
    }
}

/// What is known of one file's bytes.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    /// Chunk number in the file to position in the scratch file.
    chunks: BTreeMap<u64, u64>,
    known: Extents,
}

impl Bytes {
    pub(super) fn known(&self) -> &Extents {
        &self.known
    }

    pub(super) fn write(&mut self, scratch: &mut Scratch, offset: u64, data: &[u8]) -> Result<(), ShadowError> {
        let end = offset.checked_add(data.len() as u64).ok_or(ShadowError::ScratchFull { max: scratch.max_bytes })?;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = at % CHUNK_BYTES;
            let count = (data.len() - done).min((CHUNK_BYTES - within) as usize);
            let chunk = *self.chunks.entry(at / CHUNK_BYTES).or_insert_with(|| scratch.take_chunk());
            scratch.file.write_all_at(&data[done..done + count], chunk + within)?;
            done += count;
        }
        scratch.used_bytes += self.known.insert(offset, end);
        if scratch.used_bytes > scratch.max_bytes {
            return Err(ShadowError::ScratchFull { max: scratch.max_bytes });
        }
        Ok(())
    }

    /// Reads bytes that are known.
    pub(super) fn read(&self, scratch: &Scratch, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        debug_assert!(self.known.covers(offset, offset + buffer.len() as u64));
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at % CHUNK_BYTES;
            let count = (buffer.len() - done).min((CHUNK_BYTES - within) as usize);
            let chunk = self.chunks.get(&(at / CHUNK_BYTES)).ok_or(io::ErrorKind::InvalidData)?;
            scratch.file.read_exact_at(&mut buffer[done..done + count], chunk + within)?;
            done += count;
        }
        Ok(())
    }

    /// Forgets everything from `size` on.
    pub(super) fn clip(&mut self, scratch: &mut Scratch, size: u64) {
        scratch.used_bytes -= self.known.clip(size);
        for chunk in self.chunks.split_off(&size.div_ceil(CHUNK_BYTES)).into_values() {
            scratch.give_back(chunk);
        }
    }
}

/// A file that no name leads to, so that nothing is left behind however the process ends.
pub(super) fn unlinked_file(dir: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        return Ok(File::from(file));
    }
    // Not every file system knows O_TMPFILE.
    for attempt in 0..100u32 {
        let path = dir.join(format!(".timecraft-scratch-{}-{attempt}", std::process::id()));
        match rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                rustix::fs::unlinkat(CWD, &path, AtFlags::empty())?;
                return Ok(File::from(file));
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(extents: &Extents) -> Vec<(u64, u64)> {
        extents.iter().collect()
    }

    #[test]
    fn extents_merge_what_touches_and_count_what_is_new() {
        let mut extents = Extents::default();
        assert_eq!(extents.insert(10, 20), 10);
        assert_eq!(extents.insert(30, 40), 10);
        assert_eq!(extents.insert(20, 25), 5);
        assert_eq!(ranges(&extents), [(10, 25), (30, 40)]);
        assert_eq!(extents.insert(5, 50), 20);
        assert_eq!(ranges(&extents), [(5, 50)]);
        assert!(extents.covers(5, 50) && !extents.covers(4, 6) && extents.covers(99, 99));
        assert_eq!(extents.gaps(60), [(0, 5), (50, 60)]);
        assert_eq!(extents.clip(20), 30);
        assert_eq!(ranges(&extents), [(5, 20)]);
        assert_eq!(extents.clip(0), 15);
        assert_eq!(ranges(&extents), []);
    }

    #[test]
    fn extents_equal_a_model_of_single_bytes() {
        let mut extents = Extents::default();
        let mut model = std::collections::BTreeSet::new();
        let mut state = 7u64;
        for _ in 0..2000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (start, len) = ((state >> 33) % 64, (state >> 48) % 12);
            if (state >> 60) == 0 {
                let before = model.len();
                model.retain(|at| *at < start);
                assert_eq!(extents.clip(start), (before - model.len()) as u64);
            } else {
                let before = model.len();
                model.extend(start..start + len);
                assert_eq!(extents.insert(start, start + len), (model.len() - before) as u64);
            }
            let flat: Vec<u64> = extents.iter().flat_map(|(from, to)| from..to).collect();
            assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn bytes_survive_chunk_borders_clips_and_reuse() {
        let dir = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::create(dir.path(), 1 << 20).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut bytes = Bytes::default();
        bytes.write(&mut scratch, 1000, &data).unwrap();
        bytes.clip(&mut scratch, 65_536 + 10);
        bytes.write(&mut scratch, 65_546, b"tail").unwrap();
        let mut back = vec![0; 65_550 - 1000];
        bytes.read(&scratch, 1000, &mut back).unwrap();
        assert_eq!(back[..64_546], data[..64_546]);
        assert_eq!(&back[64_546..], b"tail");
        assert_eq!(scratch.used_bytes, 64_550);
        let full = bytes.write(&mut scratch, 1 << 30, &vec![0; 1 << 20]);
        assert!(matches!(full, Err(ShadowError::ScratchFull { .. })));
    }
}
