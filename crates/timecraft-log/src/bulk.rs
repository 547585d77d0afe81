//! Bulk writes: past the page cache, in large aligned pieces, on a thread of their own.
//!
//! A page of the cache that the system has to make anew costs more than all else the writer does with it, and on a
//! virtual machine several times more. So while large blocks arrive faster than they are written, they are gathered in
//! buffers, and each full buffer is written directly. One write is under way at a time, in the order of the file, and
//! the file ends behind the last complete one: a reader never sees a hole, and a process that is killed leaves a
//! prefix. What is not written yet is still in the ring.

use crate::storage::{DIRECT_ALIGN, DirectFile, SegmentFile, write_all};
use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// Size of a buffer, at most: a write of this size keeps a fast disk busy.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Size of a buffer below which direct writes do not pay.
const BUFFER_BYTES_MIN: usize = 64 << 10;
/// One is filled, one is written, one waits to be written.
const BUFFERS: usize = 3;

#[derive(Clone)]
#[repr(C, align(4096))]
#[allow(dead_code)] // the bytes are read as a whole
struct Page([u8; DIRECT_ALIGN]);

/// Aligned bytes, of which `len` are in use.
struct Buffer {
    pages: Vec<Page>,
    len: usize,
}

impl Buffer {
    fn new(bytes: usize) -> Self {
        Self { pages: vec![Page([0; DIRECT_ALIGN]); bytes / DIRECT_ALIGN], len: 0 }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: pages are initialised bytes without padding, `fill` keeps `len` within them, and the borrow is
        // carried over.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.pages.as_ptr().cast(), self.len)
        }
    }

    /// Takes bytes from the front of `bytes` until it is full; returns the others.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(size_of_val(self.pages.as_slice()) - self.len));
        // SAFETY: as in `bytes`; every byte pattern is a valid page.
        #[allow(unsafe_code)]
        let all = unsafe {
            slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast::<u8>(), size_of_val(self.pages.as_slice()))
        };
        all[self.len..self.len + now.len()].copy_from_slice(now);
        self.len += now.len();
        later
    }

    fn is_full(&self) -> bool {
        self.len == size_of_val(self.pages.as_slice())
    }
}

/// A full buffer, on its way to the file.
struct Job {
    file: Arc<dyn DirectFile>,
    buffer: Buffer,
    offset: u64,
}

/// The thread that writes, and what leads to it and back.
struct Lane {
    jobs: Sender<Job>,
    done: Receiver<(Buffer, io::Result<()>)>,
    thread: JoinHandle<()>,
}

impl Lane {
    fn start() -> io::Result<Self> {
        let (jobs, to_do) = channel::<Job>();
        let (report, done) = channel();
        let run = move || {
            let mut failed = false;
            for job in to_do {
                // Behind a failed write there must be none: it would leave a hole.
                let result = if failed { Err(io::ErrorKind::Other.into()) } else { write(&job) };
                failed |= result.is_err();
                if report.send((job.buffer, result)).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("timecraft-bulk".into()).spawn(run)?;
        Ok(Self { jobs, done, thread })
    }
}

fn write(job: &Job) -> io::Result<()> {
    let (mut rest, mut offset) = (job.buffer.bytes(), job.offset);
    while !rest.is_empty() {
        match job.file.write_at(rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = &rest[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is gathered for one file, from an aligned offset on.
struct Gathered {
    file: Arc<dyn DirectFile>,
    /// End of the file: offset behind the last completed write.
    written: u64,
    /// Offset behind the last write that was asked for.
    asked: u64,
    in_flight: usize,
    filling: Buffer,
    /// What could not be written, from `written` on, in order.
    failed: Vec<Buffer>,
}

/// Bulk writes of a log. Costs nothing until the first one.
pub(crate) struct Bulk {
    buffer_bytes: usize,
    /// Direct writes failed once, or have no thread: there will be none.
    refused: bool,
    lane: Option<Lane>,
    free: Vec<Buffer>,
    gathered: Option<Gathered>,
}

impl Bulk {
    /// For a ring of this capacity, of which the buffers must stay a lesser part: its room is taken until they are
    /// written. None for a small ring.
    pub fn new(ring_bytes: usize) -> Self {
        let buffer_bytes = (ring_bytes / 8).min(BUFFER_BYTES_MAX);
        let refused = buffer_bytes < BUFFER_BYTES_MIN;
        Self { buffer_bytes, refused, lane: None, free: Vec::new(), gathered: None }
    }

    /// For a log that is written at leisure.
    pub fn none() -> Self {
        Self::new(0)
    }

    /// Bytes that must wait in the ring for bulk writes to begin; `None` if there are to be none.
    pub fn backlog_min(&self) -> Option<u64> {
        (!self.refused).then_some(self.buffer_bytes as u64)
    }

    pub fn is_active(&self) -> bool {
        self.gathered.is_some()
    }

    /// Begins to gather what lies behind `offset`, the end of `file`, which is aligned.
    pub fn begin(&mut self, file: Arc<dyn DirectFile>, offset: u64) {
        debug_assert!(offset.is_multiple_of(DIRECT_ALIGN as u64) && !self.is_active());
        if self.lane.is_none() {
            self.lane = Lane::start().ok();
            self.free = (0..BUFFERS).map(|_| Buffer::new(self.buffer_bytes)).collect();
        }
        self.refused = self.lane.is_none();
        if let (false, Some(filling)) = (self.refused, self.free.pop()) {
            let failed = Vec::new();
            self.gathered = Some(Gathered { file, written: offset, asked: offset, in_flight: 0, filling, failed });
        }
    }

    /// Gathers `bytes`; waits for a write if all buffers are taken.
    pub fn push(&mut self, mut bytes: &[u8]) {
        loop {
            let Some(gathered) = &mut self.gathered else { return };
            bytes = gathered.filling.fill(bytes);
            if bytes.is_empty() {
                return;
            }
            self.submit();
        }
    }

    /// Hands the full buffer over, and puts an empty one in its place.
    fn submit(&mut self) {
        while self.free.is_empty() && self.wait_for_one() {}
        let empty = self.free.pop().unwrap_or_else(|| Buffer::new(self.buffer_bytes));
        let (Some(gathered), Some(lane)) = (&mut self.gathered, &self.lane) else { return };
        let buffer = std::mem::replace(&mut gathered.filling, empty);
        debug_assert!(buffer.is_full(), "only whole buffers are aligned");
        let job = Job { file: Arc::clone(&gathered.file), offset: gathered.asked, buffer };
        gathered.asked += job.buffer.len as u64;
        match lane.jobs.send(job) {
            Ok(()) => gathered.in_flight += 1,
            Err(refused) => gathered.failed.push(refused.0.buffer),
        }
    }

    /// Waits for the oldest write that is under way; false if there is none.
    fn wait_for_one(&mut self) -> bool {
        let (Some(gathered), Some(lane)) = (&self.gathered, &self.lane) else { return false };
        if gathered.in_flight == 0 {
            return false;
        }
        let done = lane.done.recv().expect("the thread ends after its last report");
        self.note(done);
        true
    }

    fn note(&mut self, (mut buffer, result): (Buffer, io::Result<()>)) {
        let Some(gathered) = &mut self.gathered else { return };
        gathered.in_flight -= 1;
        if result.is_err() {
            gathered.failed.push(buffer);
            return;
        }
        gathered.written += buffer.len as u64;
        buffer.len = 0;
        self.free.push(buffer);
    }

    /// Looks for completed writes; returns the end of the file, and whether a write failed.
    pub fn poll(&mut self) -> Option<(u64, bool)> {
        while let Some(done) = self.lane.as_ref().and_then(|lane| lane.done.try_recv().ok()) {
            self.note(done);
        }
        self.gathered.as_ref().map(|gathered| (gathered.written, !gathered.failed.is_empty()))
    }

    /// Writes all that is gathered, the rest of it to the page cache, and ends the bulk write.
    ///
    /// What a direct write refused is written that way too, so that whatever the reason was, it is met again or gone.
    /// On failure, gives the offset up to which the file is good.
    pub fn end(&mut self, file: &mut dyn SegmentFile) -> Result<(), (u64, io::Error)> {
        while self.wait_for_one() {}
        let Some(gathered) = self.gathered.take() else { return Ok(()) };
        self.refused |= !gathered.failed.is_empty();
        let rest: Vec<&[u8]> = gathered.failed.iter().chain([&gathered.filling]).map(Buffer::bytes).collect();
        // Also gives back what was allocated ahead.
        let result = file.truncate(gathered.written).and_then(|()| write_all(file, &rest));
        self.free.extend(gathered.failed.into_iter().chain([gathered.filling]).take(BUFFERS));
        self.free.iter_mut().for_each(|buffer| buffer.len = 0);
        result.map_err(|error| (gathered.written, error))
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        if let Some(Lane { jobs, done, thread }) = self.lane.take() {
            drop(jobs);
            // Nothing may write to the log once its lock is free. A panic there was reported by the thread.
            let _ = thread.join();
            drop(done);
        }
    }
}
