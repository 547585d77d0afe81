//! The file of a ring in memory, and which part of it has memory.

use super::header::{
    CONSUMER_ASLEEP_AT, FAULT_AT, FIXED_LEN, HEAD_AT, HEAD_CHECK_AT, HEADER_LEN, HEADER_USED, LOG_AT,
    PRODUCER_ASLEEP_AT, STATE_AT, TAIL_AT,
};
use rustix::fs::{self, FallocateFlags, FlockOperation};
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{self, MapFlags, ProtFlags};
use std::fs::File;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Data of a new ring that has memory, in bytes. Many a process ends before it has written that much, and to make all
/// of the ring takes longer than it runs.
pub(super) const BACKED_FIRST: usize = 256 << 10;
/// Memory is added and taken away in pieces of this size, in bytes: a page on every supported target.
const PIECE: u64 = 64 << 10;

/// Header, data, and data again.
///
/// The file is as long as it will ever be, with holes: a position has memory once the guest gets near it. A page
/// without memory is never touched, so that a file system without room is no SIGBUS.
#[derive(Debug)]
pub(super) struct Mapping {
    base: *mut u8,
    pub capacity: usize,
    /// Its lock tells others that the ring is in use.
    file: File,
    /// Positions below this have memory, down to `low`; `u64::MAX` once all of the ring has.
    backed: AtomicU64,
    /// Also the right to change what has memory.
    low: Mutex<u64>,
}

// SAFETY: the memory is shared between threads by design. All access goes through atomics, and to
// the data area through `free_words` and `committed_words`, whose callers keep to disjoint parts.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Makes the empty `file` a ring with `capacity` bytes of data, and locks it for as long as this lives.
    pub fn new(file: File, capacity: usize) -> rustix::io::Result<Self> {
        fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        fs::ftruncate(&file, (HEADER_LEN + capacity) as u64)?;
        let len = HEADER_LEN + 2 * capacity;
        // SAFETY: a fresh anonymous mapping replaces nothing.
        #[allow(unsafe_code)]
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)? };
        // From here on, dropping unmaps.
        let (backed, low) = (AtomicU64::new(0), Mutex::new(0));
        let map = Self { base: base.cast(), capacity, file, backed, low };
        map.overlay(0, HEADER_LEN + capacity, 0)?;
        map.overlay(HEADER_LEN + capacity, capacity, HEADER_LEN as u64)?;
        map.allocate(0..HEADER_USED)?;
        map.back(capacity.min(BACKED_FIRST) as u64)?;
        Ok(map)
    }

    /// Maps `len` bytes of the file from `offset` over the reserved addresses at `at`.
    fn overlay(&self, at: usize, len: usize, offset: u64) -> rustix::io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `at..at + len` lies within the addresses reserved in `new`, which nobody uses
        // yet. The file is as long as the mapping, was just created by us, and never shrinks.
        #[allow(unsafe_code)]
        unsafe {
            mm::mmap(self.base.add(at).cast(), len, access, flags, &self.file, offset)?;
        }
        Ok(())
    }

    /// The position below which all that is not released has memory.
    pub fn backed(&self) -> u64 {
        self.backed.load(Ordering::Acquire)
    }

    /// Gives memory to the data up to position `to`, or as far as the ring goes.
    ///
    /// Where the file system has no more, what was released gives its own: the ring goes on with the memory it has.
    /// After an error it may have a little more than before.
    pub fn back(&self, to: u64) -> rustix::io::Result<()> {
        let capacity = self.capacity as u64;
        let mut low = self.low.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.backed.load(Ordering::Relaxed);
        let mut to = to.next_multiple_of(PIECE).min(*low + capacity);
        if to <= from {
            return Ok(());
        }
        if let Err(error) = self.allocate_data(from, to) {
            let released = self.tail().load(Ordering::Acquire) / PIECE * PIECE;
            if error != Errno::NOSPC || released <= *low {
                return Err(error);
            }
            let freed = std::mem::replace(&mut *low, released)..released;
            for part in self.parts(freed.start, freed.end) {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fs::fallocate(&self.file, hole, part.start as u64, part.len() as u64)?;
            }
            to = to.min(from + (freed.end - freed.start));
            self.allocate_data(from, to)?;
        }
        self.backed.store(if to == *low + capacity { u64::MAX } else { to }, Ordering::Release);
        Ok(())
    }

    fn allocate_data(&self, from: u64, to: u64) -> rustix::io::Result<()> {
        self.parts(from, to).into_iter().try_for_each(|part| self.allocate(part))
    }

    /// Where in the file the data between two positions lie, not further apart than the capacity; the second part may
    /// be empty.
    fn parts(&self, from: u64, to: u64) -> impl Iterator<Item = Range<usize>> {
        let len = (to - from) as usize;
        let at = from as usize & (self.capacity - 1);
        let before_end = len.min(self.capacity - at);
        let parts = [HEADER_LEN + at..HEADER_LEN + at + before_end, HEADER_LEN..HEADER_LEN + len - before_end];
        parts.into_iter().filter(|part| !part.is_empty())
    }

    /// Allocates these bytes of the file, and maps their pages for writing: the guest's thread is not to fault on
    /// them. Kernels before 5.14 do so at the first write.
    fn allocate(&self, part: Range<usize>) -> rustix::io::Result<()> {
        let (from, len) = (part.start as u64, part.len() as u64);
        retry_on_intr(|| fs::fallocate(&self.file, FallocateFlags::empty(), from, len))?;
        // SAFETY: the pages lie within the mapping, and their content stays as it is.
        #[allow(unsafe_code)]
        let _ = unsafe { mm::madvise(self.base.add(part.start).cast(), part.len(), mm::Advice::LinuxPopulateWrite) };
        Ok(())
    }

    pub fn write_fixed(&self, fixed: &[u8; FIXED_LEN]) {
        self.write_header(0, fixed);
    }

    /// Says whose log the ring belongs to.
    pub fn write_log(&self, log: &[u8]) {
        self.write_header(LOG_AT, log);
    }

    fn write_header(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= HEADER_USED);
        // SAFETY: within the part of the header that has memory, and the ring was not handed out yet.
        #[allow(unsafe_code)]
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at), bytes.len());
        }
    }

    pub fn head(&self) -> &AtomicU64 {
        self.atomic(HEAD_AT)
    }

    pub fn head_check(&self) -> &AtomicU64 {
        self.atomic(HEAD_CHECK_AT)
    }

    pub fn tail(&self) -> &AtomicU64 {
        self.atomic(TAIL_AT)
    }

    pub fn state(&self) -> &AtomicU32 {
        self.atomic(STATE_AT)
    }

    pub fn consumer_asleep(&self) -> &AtomicU32 {
        self.atomic(CONSUMER_ASLEEP_AT)
    }

    pub fn fault(&self) -> &AtomicU32 {
        self.atomic(FAULT_AT)
    }

    pub fn producer_asleep(&self) -> &AtomicU32 {
        self.atomic(PRODUCER_ASLEEP_AT)
    }

    /// The atomic at `at` of the header; `A` is `AtomicU32` or `AtomicU64`.
    fn atomic<A>(&self, at: usize) -> &A {
        debug_assert!(at + 8 <= LOG_AT && at.is_multiple_of(size_of::<A>()));
        // SAFETY: within the header, aligned (the base is page-aligned), zero-initialised by the
        // file system, and only ever accessed as this atomic.
        #[allow(unsafe_code)]
        unsafe {
            &*self.base.add(at).cast::<A>()
        }
    }

    /// `count` words from position `from`, for the producer to fill.
    #[allow(clippy::mut_from_ref)] // the single producer owns the free part of the ring
    pub fn free_words(&self, from: u64, count: usize) -> &mut [u64] {
        assert!(count * 8 <= self.capacity);
        let at = HEADER_LEN + (from as usize & (self.capacity - 1));
        // SAFETY: the double mapping makes `capacity` bytes from any position contiguous, and
        // positions are multiples of 8. Only the producer calls this, for room it has found free
        // (`tail` loaded with Acquire) and backed, where the consumer holds no view.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts_mut(self.base.add(at).cast(), count)
        }
    }

    /// The words between two positions, both committed and not released.
    pub fn committed_words(&self, from: u64, to: u64) -> &[u64] {
        let len = (to - from) as usize;
        assert!(len <= self.capacity);
        let at = HEADER_LEN + (from as usize & (self.capacity - 1));
        // SAFETY: as in `free_words`; the producer writes here only after `tail` has passed `to`,
        // and `RingReader::release` needs exclusive access, so no view is alive by then. What is not
        // released keeps its memory.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.base.add(at).cast(), len / 8)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the addresses reserved in `new`; borrows of them cannot outlive `self`.
        #[allow(unsafe_code)]
        let unmapped = unsafe { mm::munmap(self.base.cast(), HEADER_LEN + 2 * self.capacity) };
        debug_assert!(unmapped.is_ok());
    }
}
