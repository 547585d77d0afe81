//! A disk that fails on demand, and remembers what a power cut would leave of it.
//!
//! Files are real, so that readers see what they would see in the page cache; what is on the medium is worked out from
//! the journal of all operations. A sync that failed makes nothing durable, and neither does a later one that finds
//! nothing new to write: as on Linux, the pages are clean by then.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use timecraft_log::{DirStorage, SegmentFile, Storage};

const PAGE: usize = 4096;

/// What was done, in order.
#[derive(Clone, Debug)]
pub enum Op {
    Create(PathBuf),
    Remove(PathBuf),
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        len: u64,
    },
    /// Of a file, and whether it succeeded.
    Sync(PathBuf, bool),
    /// Of a directory.
    SyncDir,
    /// Records before this number were told to be safe.
    Promise(u64),
}

/// Which operations fail: those from number `first` on, `count` of them.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub first: usize,
    pub count: usize,
    pub errno: i32,
    /// What is written before a write fails.
    pub torn: usize,
    /// Only syncs fail.
    pub syncs_only: bool,
}

impl Plan {
    pub fn new(first: usize, count: usize, errno: i32) -> Self {
        Self { first, count, errno, torn: 0, syncs_only: false }
    }
}

#[derive(Debug, Default)]
struct State {
    journal: Vec<Op>,
    plan: Option<Plan>,
    done: usize,
    failed: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub fn failing(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(State { plan: Some(plan), ..State::default() })))
    }

    pub fn journal(&self) -> Vec<Op> {
        self.0.lock().unwrap().journal.clone()
    }

    /// Operations so far, and how many of them failed.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.0.lock().unwrap();
        (state.done, state.failed)
    }

    /// No operation fails from now on.
    pub fn mend(&self) {
        self.0.lock().unwrap().plan = None;
    }

    pub fn note(&self, op: Op) {
        self.0.lock().unwrap().journal.push(op);
    }

    /// Counts an operation; what is to be its error, and how much of a write is done before.
    fn step(&self) -> Option<(io::Error, usize)> {
        self.step_of(false)
    }

    fn step_of(&self, is_sync: bool) -> Option<(io::Error, usize)> {
        let mut state = self.0.lock().unwrap();
        let number = state.done;
        state.done += 1;
        let plan = state.plan.filter(|plan| (plan.first..plan.first.saturating_add(plan.count)).contains(&number))?;
        if plan.syncs_only && !is_sync {
            return None;
        }
        state.failed += 1;
        Some((io::Error::from_raw_os_error(plan.errno), plan.torn))
    }
}

impl Storage for Disk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        if let Some((error, _)) = self.step() {
            return Err(error);
        }
        let inner = DirStorage.create(path)?;
        self.note(Op::Create(path.to_owned()));
        Ok(Box::new(DiskFile { inner, path: path.to_owned(), end: 0, disk: self.clone() }))
    }

    fn open(&mut self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let inner = DirStorage.open(path, len)?;
        Ok(Box::new(DiskFile { inner, path: path.to_owned(), end: len, disk: self.clone() }))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        if let Some((error, _)) = self.step() {
            return Err(error);
        }
        DirStorage.remove(path)?;
        self.note(Op::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&mut self, _path: &Path) -> io::Result<()> {
        if let Some((error, _)) = self.step() {
            return Err(error);
        }
        self.note(Op::SyncDir);
        Ok(())
    }
}

struct DiskFile {
    inner: Box<dyn SegmentFile>,
    path: PathBuf,
    end: u64,
    disk: Disk,
}

impl DiskFile {
    fn note_write(&self, offset: u64, bytes: &[u8]) {
        self.disk.note(Op::Write { path: self.path.clone(), offset, bytes: bytes.to_vec() });
    }
}

impl SegmentFile for DiskFile {
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let fault = self.disk.step();
        let len = fault.as_ref().map_or(bytes.len(), |(_, torn)| bytes.len().min(*torn));
        if len > 0 {
            let written = self.inner.write_vectored(&[IoSlice::new(&bytes[..len])])?;
            assert_eq!(written, len, "there is room in memory");
            self.note_write(self.end, &bytes[..len]);
            self.end += len as u64;
        }
        fault.map_or(Ok(len), |(error, _)| Err(error))
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let Some((error, _)) = self.disk.step() {
            return Err(error);
        }
        let written = self.inner.write_at(bytes, offset)?;
        self.note_write(offset, &bytes[..written]);
        Ok(written)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if let Some((error, _)) = self.disk.step() {
            return Err(error);
        }
        self.inner.truncate(len)?;
        self.end = len;
        self.disk.note(Op::Truncate { path: self.path.clone(), len });
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let fault = self.disk.step_of(true);
        self.disk.note(Op::Sync(self.path.clone(), fault.is_none()));
        fault.map_or(Ok(()), |(error, _)| Err(error))
    }
}

/// What is on the medium of one file, and what is not yet.
#[derive(Clone, Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    dirty: Vec<Op>,
    /// The name is on the medium.
    named: bool,
    removed: bool,
}

impl Medium {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { offset, bytes, .. } => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if self.bytes.len() < to {
                    self.bytes.resize(to, 0);
                }
                self.bytes[from..to].copy_from_slice(bytes);
            }
            Op::Truncate { len, .. } => self.bytes.resize(*len as usize, 0),
            _ => unreachable!("not kept as dirty"),
        }
    }

    /// What a power cut leaves: of each write, any of its pages; of names, any.
    fn cut(mut self, random: &mut impl FnMut() -> u64) -> Option<Vec<u8>> {
        let is_there = if self.named {
            !self.removed || random().is_multiple_of(2)
        } else {
            !self.removed && random().is_multiple_of(2)
        };
        for op in std::mem::take(&mut self.dirty) {
            let Op::Write { path, offset, bytes } = &op else {
                if random().is_multiple_of(2) {
                    self.apply(&op);
                }
                continue;
            };
            let mut at = 0;
            while at < bytes.len() {
                let len = (PAGE - (*offset as usize + at) % PAGE).min(bytes.len() - at);
                if random().is_multiple_of(2) {
                    let bytes = bytes[at..at + len].to_vec();
                    self.apply(&Op::Write { path: path.clone(), offset: offset + at as u64, bytes });
                } else if random().is_multiple_of(2) && self.bytes.len() < *offset as usize + at + len {
                    // The length went to the medium, the bytes did not.
                    self.bytes.resize(*offset as usize + at + len, 0);
                }
                at += len;
            }
        }
        is_there.then_some(self.bytes)
    }
}

/// A generator of numbers, the same for the same seed.
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

/// The files that are left in `dir` if the power is cut after the operations of `journal`.
pub fn cut_power(journal: &[Op], seed: u64, dir: &Path) {
    let mut random = random(seed);
    let mut files: BTreeMap<PathBuf, Medium> = BTreeMap::new();
    for op in journal {
        match op {
            Op::Create(path) => drop(files.insert(path.clone(), Medium::default())),
            Op::Remove(path) => files.get_mut(path).unwrap().removed = true,
            Op::Write { path, .. } | Op::Truncate { path, .. } => files.get_mut(path).unwrap().dirty.push(op.clone()),
            Op::Sync(path, true) => {
                let file = files.get_mut(path).unwrap();
                for op in std::mem::take(&mut file.dirty) {
                    file.apply(&op);
                }
            }
            Op::Sync(path, false) => {
                // Bytes that are never written out; the length of the file is another matter.
                let file = files.get_mut(path).unwrap();
                for op in std::mem::take(&mut file.dirty) {
                    match op {
                        Op::Write { offset, bytes, .. } if file.bytes.len() < offset as usize + bytes.len() => {
                            file.bytes.resize(offset as usize + bytes.len(), 0);
                        }
                        Op::Truncate { len, .. } => file.bytes.resize(len as usize, 0),
                        _ => {}
                    }
                }
            }
            Op::SyncDir => {
                files.retain(|_, file| !file.removed);
                for file in files.values_mut() {
                    file.named = true;
                }
            }
            Op::Promise(_) => {}
        }
    }
    for (path, file) in files {
        if let Some(bytes) = file.cut(&mut random) {
            std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}

/// Number behind the last record that was told to be safe.
pub fn promised(journal: &[Op]) -> u64 {
    journal.iter().filter_map(|op| if let Op::Promise(seq) = op { Some(*seq) } else { None }).max().unwrap_or(0)
}
