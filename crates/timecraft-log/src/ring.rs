//! The ring: a memory-mapped file that carries records from the guest's thread to the writer's.
//!
//! One producer, one consumer. The data area is mapped twice in a row, so that every record is
//! contiguous. `head` and `tail` count bytes since creation and never wrap. A record exists from
//! the moment the producer stores `head` behind it (`Release`, after all its bytes); its room is
//! free again when the consumer stores `tail` behind it, which it does once the block with the
//! record is written to a segment. So whatever kills the process, each record is in the file of the
//! ring, in a segment, or in both; recovery drops doubles by sequence number.

use crate::bytes::{put, u16_at, u32_at, u64_at, words_as_bytes_mut};
use crate::error::{AppendError, LogError, Reason};
use crate::record::{
    ARGS_MAX, Head, PROLOGUE_WORDS, RECORD_BYTES_MAX, REGIONS_MAX, RecordView, counts_word, pack_region,
};
use rustix::fs::{self, FallocateFlags};
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::thread::futex;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MAGIC: &[u8; 4] = b"TCR1";
const VERSION: u16 = 2;
const FLAG_DIGEST: u16 = 1;
/// Room for the header: a page on every supported target.
const HEADER_LEN: usize = 64 << 10;
/// Data of a new ring that is in memory before the guest starts, in bytes. Touching all of it takes longer than many a
/// guest runs.
const TOUCHED_FIRST: usize = 256 << 10;
/// How far ahead of the guest pages are touched, in bytes.
const TOUCHED_AHEAD: u64 = 1 << 20;
/// Fixed part of the header, before the positions.
const FIXED_LEN: usize = 64;
const CAPACITY_MIN: usize = 64 << 10;
const CAPACITY_MAX: usize = 1 << 30;
/// Each position has a cache line (and its prefetched neighbour) for itself.
const HEAD_AT: usize = 128;
const TAIL_AT: usize = 256;
const STATE_AT: usize = 264;
const CONSUMER_ASLEEP_AT: usize = 268;
const FAULT_AT: usize = 272;
const PRODUCER_ASLEEP_AT: usize = 384;

/// Longest sleep of a producer that waits for room: bounds the delay of a cancellation.
const PRODUCER_SLEEP_MAX: Duration = Duration::from_millis(2);
/// How long a producer that is cancelled still waits for room, unless the consumer can't write anyway: a disk that is
/// slow is no reason to lose the end of a guest that is killed.
const CANCELLED_PATIENCE: Duration = Duration::from_millis(500);

/// What the consumer does with records, as the producer sees it.
mod state {
    pub const OPEN: u32 = 0;
    pub const FAILED: u32 = 1;
    pub const DISCARDING: u32 = 2;
}

/// Whose records a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingIdentity {
    /// Identity of the process.
    pub process: [u8; 16],
    /// Epoch of the process.
    pub epoch: u32,
    /// Whether the writer replaces sent bytes by digests, so that recovery does alike.
    pub digest: bool,
}

/// A ring that was created and not yet split into its two ends.
#[derive(Debug)]
pub struct Ring {
    map: Arc<Mapping>,
}

impl Ring {
    /// Creates the file at `path` with `capacity` bytes of data, and maps it.
    ///
    /// The room is allocated and the pages are touched now, so that neither a full file system nor
    /// a page fault can hit the guest's thread. `capacity` must be a power of two of at least
    /// 64 KiB and at most 1 GiB. An existing file is replaced.
    pub fn create(path: &Path, capacity: usize, identity: &RingIdentity) -> Result<Self, LogError> {
        if !capacity.is_power_of_two() || !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity) {
            return Err(LogError::Config("ring_bytes must be a power of two, 64 KiB to 1 GiB"));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LogError::io(path, "remove")(error));
            }
            _ => {}
        }
        let file =
            File::options().read(true).write(true).create_new(true).open(path).map_err(LogError::io(path, "create"))?;
        let fail = |error: rustix::io::Errno| LogError::io(path, "allocate")(error.into());
        let allocated = fs::fallocate(&file, FallocateFlags::empty(), 0, (HEADER_LEN + capacity) as u64);
        let map = allocated
            .and_then(|()| Mapping::new(&file, capacity))
            .inspect_err(|_| drop(std::fs::remove_file(path)))
            .map_err(fail)?;
        let fixed = encode_fixed(capacity, identity);
        map.write_fixed(&fixed);
        Ok(Self { map: Arc::new(map) })
    }

    /// Reads the ring at `path`, which nobody may be writing, as a copy in memory.
    pub fn open(path: &Path) -> Result<RingImage, LogError> {
        RingImage::read(path)
    }

    /// The two ends. The first record gets number `next_seq`; a producer that waits for room
    /// gives up once `cancel` is set.
    pub fn split(self, next_seq: u64, cancel: Arc<AtomicBool>) -> (RingWriter, RingReader) {
        let capacity = self.map.capacity as u64;
        let writer = RingWriter {
            head: 0,
            tail_seen: 0,
            record_bytes_max: RECORD_BYTES_MAX.min(self.map.capacity),
            capacity,
            next_seq,
            kept: None,
            sync_outputs: false,
            stats: Arc::new(ProducerStats::default()),
            cancel,
            map: Arc::clone(&self.map),
        };
        let stats = Arc::clone(&writer.stats);
        stats.next_seq_synced.store(next_seq, Ordering::Relaxed);
        let touched = self.map.capacity.min(TOUCHED_FIRST);
        (writer, RingReader { pos: 0, touched, map: self.map, stats })
    }
}

fn encode_fixed(capacity: usize, identity: &RingIdentity) -> [u8; FIXED_LEN] {
    let mut fixed = [0; FIXED_LEN];
    put(&mut fixed, 0, MAGIC);
    put(&mut fixed, 4, &VERSION.to_le_bytes());
    put(&mut fixed, 6, &(if identity.digest { FLAG_DIGEST } else { 0 }).to_le_bytes());
    put(&mut fixed, 8, &(capacity as u64).to_le_bytes());
    put(&mut fixed, 16, &identity.process);
    put(&mut fixed, 32, &boot_id());
    put(&mut fixed, 48, &identity.epoch.to_le_bytes());
    let crc = crc32c::crc32c(&fixed[..60]);
    put(&mut fixed, 60, &crc.to_le_bytes());
    fixed
}

/// Identity of the running kernel: a ring from before a reboot may be torn. Zero if unknown.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).map_or([0; 16], u128::to_be_bytes)
}

/// What the two ends tell each other beside the records, and counters of the producer, readable from any thread.
#[derive(Debug, Default)]
pub(crate) struct ProducerStats {
    /// Records before this number shall be on the medium as soon as possible.
    pub sync_wanted: AtomicU64,
    /// Records before this number survive a power cut.
    pub next_seq_synced: AtomicU64,
    /// Times the producer waited for the medium, and how long in all.
    pub syncs: AtomicU64,
    pub sync_waited_ns: AtomicU64,
    pub stalls: AtomicU64,
    pub stalled_ns: AtomicU64,
    pub records_lost: AtomicU64,
}

/// The producing end of a ring, for the guest's thread.
#[derive(Debug)]
pub struct RingWriter {
    head: u64,
    /// The consumer's position when last looked: at most the real one.
    tail_seen: u64,
    capacity: u64,
    record_bytes_max: usize,
    next_seq: u64,
    /// See `LogConfig::kept`; none where nothing is digested.
    kept: Option<fn(u16) -> u8>,
    sync_outputs: bool,
    map: Arc<Mapping>,
    stats: Arc<ProducerStats>,
    cancel: Arc<AtomicBool>,
}

impl RingWriter {
    /// Appends one record: what the host `written` to guest memory and what the guest `sent`.
    ///
    /// Returns the record's sequence number once the record survives the death of this process.
    /// Copies, and nothing else, unless the ring is full: then it waits for the writer, which is
    /// counted ([`LogStats::stalls`](crate::LogStats::stalls)). Both iterators are walked twice and
    /// must give the same regions each time. After an error nothing was appended.
    #[inline]
    pub fn append<'a, W, S>(&mut self, head: &Head, args: &[u64], written: W, sent: S) -> Result<u64, AppendError>
    where
        W: Iterator<Item = (u32, &'a [u8])> + Clone,
        S: Iterator<Item = (u32, &'a [u8])> + Clone,
    {
        let (written_count, written_bytes) = measure(written.clone());
        let (sent_count, sent_bytes) = measure(sent.clone());
        let payload_bytes = written_bytes.saturating_add(sent_bytes);
        let words =
            (PROLOGUE_WORDS + args.len() + written_count + sent_count).saturating_add(payload_bytes.div_ceil(8));
        let fits = args.len() <= ARGS_MAX
            && written_count.max(sent_count) <= REGIONS_MAX
            && words <= self.record_bytes_max / 8;
        if !fits {
            return Err(self.refusal(args.len(), written_count.max(sent_count), words));
        }
        let len = words as u64 * 8;
        let room = self.head + len - self.tail_seen <= self.capacity;
        if (!room || self.map.state().load(Ordering::Relaxed) != state::OPEN) && !self.make_room(len)? {
            return Ok(self.lose());
        }
        let out = self.map.free_words(self.head, words);
        out[0] = len | u64::from(head.call) << 32 | u64::from(head.errno) << 48;
        out[1] = self.next_seq;
        out[2] = head.time_ns;
        let kept = self.kept.map_or(0, |kept| kept(head.call));
        out[3] = counts_word(args.len(), written_count, sent_count, false, kept);
        let (args_out, out) = out[PROLOGUE_WORDS..].split_at_mut(args.len());
        args_out.copy_from_slice(args);
        let (table, payload) = out.split_at_mut(written_count + sent_count);
        if !fill(table, payload, payload_bytes, written.chain(sent)) {
            return Err(AppendError::UnstableRegions);
        }
        Ok(self.commit(len))
    }

    /// Has records say how many of the first regions that their calls send are no data.
    pub(crate) fn mark_kept(&mut self, kept: fn(u16) -> u8) {
        self.kept = Some(kept);
    }

    /// Has `sync_before_output` wait.
    pub(crate) fn sync_outputs(&mut self) {
        self.sync_outputs = true;
    }

    /// To be called before the guest does what others can see. With `LogConfig::sync_before_output` it returns once
    /// all that was appended is on the medium; without, at once.
    #[inline]
    pub fn sync_before_output(&mut self) -> Result<(), AppendError> {
        let is_due = self.sync_outputs && self.stats.next_seq_synced.load(Ordering::Acquire) < self.next_seq;
        if is_due { self.wait_for_sync() } else { Ok(()) }
    }

    #[cold]
    fn wait_for_sync(&mut self) -> Result<(), AppendError> {
        let since = Instant::now();
        let stats = Arc::clone(&self.stats);
        stats.syncs.fetch_add(1, Ordering::Relaxed);
        stats.sync_wanted.store(self.next_seq, Ordering::SeqCst);
        let result = loop {
            match self.map.state().load(Ordering::Acquire) {
                state::OPEN => {}
                state::DISCARDING => break Ok(()),
                _ => break Err(AppendError::WriterFailed),
            }
            if stats.next_seq_synced.load(Ordering::Acquire) >= self.next_seq {
                break Ok(());
            }
            if self.gives_up(since) {
                break Err(AppendError::Cancelled);
            }
            wake(self.map.consumer_asleep());
            sleep(self.map.producer_asleep(), PRODUCER_SLEEP_MAX, || {
                stats.next_seq_synced.load(Ordering::SeqCst) < self.next_seq
                    && self.map.state().load(Ordering::SeqCst) == state::OPEN
            });
        };
        stats.sync_waited_ns.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }

    /// Whether a wait that began at `since` is to end without what it waits for.
    fn gives_up(&self, since: Instant) -> bool {
        self.cancel.load(Ordering::Relaxed)
            && (self.map.fault().load(Ordering::Relaxed) != 0 || since.elapsed() >= CANCELLED_PATIENCE)
    }

    /// Number that the next record will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    #[inline]
    fn commit(&mut self, len: u64) -> u64 {
        self.head += len;
        self.map.head().store(self.head, Ordering::Release);
        if self.head - self.tail_seen > self.capacity / 2 {
            self.nudge();
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Wakes a sleeping consumer if the ring is really more than half full.
    #[cold]
    fn nudge(&mut self) {
        self.tail_seen = self.map.tail().load(Ordering::Acquire);
        if self.head - self.tail_seen > self.capacity / 2 {
            wake(self.map.consumer_asleep());
        }
    }

    #[cold]
    fn lose(&mut self) -> u64 {
        self.stats.records_lost.fetch_add(1, Ordering::Relaxed);
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Waits until `len` bytes are free; `false` if records are being discarded.
    #[cold]
    fn make_room(&mut self, len: u64) -> Result<bool, AppendError> {
        let mut stalled_since = None;
        let result = loop {
            match self.map.state().load(Ordering::Acquire) {
                state::OPEN => {}
                state::DISCARDING => break Ok(false),
                _ => break Err(AppendError::WriterFailed),
            }
            self.tail_seen = self.map.tail().load(Ordering::Acquire);
            if self.head + len - self.tail_seen <= self.capacity {
                break Ok(true);
            }
            // Counted when it begins, so that it shows while it lasts.
            let since = *stalled_since.get_or_insert_with(|| {
                self.stats.stalls.fetch_add(1, Ordering::Relaxed);
                Instant::now()
            });
            if self.gives_up(since) {
                break Err(AppendError::Cancelled);
            }
            wake(self.map.consumer_asleep());
            let full_at = self.tail_seen;
            sleep(self.map.producer_asleep(), PRODUCER_SLEEP_MAX, || {
                self.map.tail().load(Ordering::SeqCst) == full_at
                    && self.map.state().load(Ordering::SeqCst) == state::OPEN
            });
        };
        if let Some(since) = stalled_since {
            let ns = since.elapsed().as_nanos() as u64;
            self.stats.stalled_ns.fetch_add(ns, Ordering::Relaxed);
        }
        result
    }

    #[cold]
    fn refusal(&self, args: usize, regions: usize, words: usize) -> AppendError {
        if args > ARGS_MAX {
            AppendError::TooManyArgs(args)
        } else if regions > REGIONS_MAX {
            AppendError::TooManyRegions(regions)
        } else {
            let bytes = words.saturating_mul(8);
            AppendError::TooLarge { bytes, bytes_max: self.record_bytes_max }
        }
    }
}

/// Number of regions and sum of their sizes.
#[inline]
fn measure<'a>(regions: impl Iterator<Item = (u32, &'a [u8])>) -> (usize, usize) {
    regions.fold((0, 0), |(count, bytes), (_, region)| (count + 1, usize::saturating_add(bytes, region.len())))
}

/// Writes the table and the bytes of `regions`; `false` if they are not as measured.
#[inline]
fn fill<'a>(
    table: &mut [u64],
    payload: &mut [u64],
    payload_bytes: usize,
    regions: impl Iterator<Item = (u32, &'a [u8])>,
) -> bool {
    if let Some(last) = payload.last_mut() {
        *last = 0; // the padding behind the bytes
    }
    let mut rest = &mut words_as_bytes_mut(payload)[..payload_bytes];
    let mut slots = table.iter_mut();
    for (ptr, bytes) in regions {
        let Some(slot) = slots.next() else { return false };
        let Some((place, after)) = rest.split_at_mut_checked(bytes.len()) else { return false };
        *slot = pack_region(ptr, bytes.len() as u32);
        place.copy_from_slice(bytes);
        rest = after;
    }
    rest.is_empty() && slots.next().is_none()
}

/// The consuming end of a ring, for the writer thread.
#[derive(Debug)]
pub struct RingReader {
    /// Position behind the last record that [`RingReader::next`] gave.
    pos: u64,
    /// Bytes of data, from the start, whose pages are in memory.
    touched: usize,
    map: Arc<Mapping>,
    stats: Arc<ProducerStats>,
}

impl RingReader {
    /// Touches pages that the guest will soon write for the first time.
    pub fn touch_ahead(&mut self) {
        let capacity = self.map.capacity;
        if self.touched == capacity {
            return;
        }
        let ahead = self.map.head().load(Ordering::Acquire).saturating_add(TOUCHED_AHEAD);
        let to = usize::try_from(ahead).map_or(capacity, |ahead| ahead.next_multiple_of(64 << 10).min(capacity));
        if to > self.touched {
            self.map.touch(HEADER_LEN + self.touched, HEADER_LEN + to);
            self.touched = to;
        }
    }

    /// The next record, or `None` if there is none yet. Its room stays taken until released.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    pub fn next(&mut self) -> Option<RecordView<'_>> {
        let head = self.map.head().load(Ordering::Acquire);
        if self.pos == head {
            return None;
        }
        let words = self.map.committed_words(self.pos, head);
        let (record, len) = RecordView::parse(words).expect("the producer's own record");
        self.pos += len as u64 * 8;
        Some(record)
    }

    /// Position behind the last record that [`RingReader::next`] gave, in bytes since creation.
    pub fn position(&self) -> u64 {
        self.pos
    }

    /// Frees the room of all records before `position`, which are safe elsewhere.
    pub fn release(&mut self, position: u64) {
        assert!(position <= self.pos, "only what was read can be released");
        self.map.tail().store(position, Ordering::SeqCst);
        wake(self.map.producer_asleep());
    }

    /// Goes back to the first record that was not released.
    pub(crate) fn rewind(&mut self) {
        self.pos = self.map.tail().load(Ordering::Relaxed);
    }

    /// Bytes that were read and not yet released.
    pub fn unreleased(&self) -> u64 {
        self.pos - self.map.tail().load(Ordering::Relaxed)
    }

    /// Bytes that were appended and not yet read.
    pub(crate) fn backlog(&self) -> u64 {
        self.map.head().load(Ordering::Relaxed) - self.pos
    }

    /// Size of the data area, in bytes.
    pub fn capacity(&self) -> u64 {
        self.map.capacity as u64
    }

    /// Whether the producer waits for room.
    pub fn producer_waits(&self) -> bool {
        self.map.producer_asleep().load(Ordering::Relaxed) != 0
    }

    /// Whether the producer waits for records to be on the medium that aren't.
    pub(crate) fn wants_sync(&self) -> bool {
        self.stats.sync_wanted.load(Ordering::SeqCst) > self.stats.next_seq_synced.load(Ordering::Relaxed)
    }

    /// Records before `next_seq` are on the medium.
    pub(crate) fn note_synced(&self, next_seq: u64) {
        self.stats.next_seq_synced.store(next_seq, Ordering::SeqCst);
        wake(self.map.producer_asleep());
    }

    /// Shows, to whoever looks at the ring's file, the number of the error because of which nothing is written; 0 for
    /// none.
    pub(crate) fn show_fault(&self, errno: u32) {
        self.map.fault().store(errno, Ordering::SeqCst);
    }

    /// Sleeps until the producer or a [`ConsumerWaker`] calls, at most for `time_max`; not at all
    /// if `idle` turns false.
    pub(crate) fn wait(&self, time_max: Duration, idle: impl FnOnce() -> bool) {
        sleep(self.map.consumer_asleep(), time_max, || {
            self.map.head().load(Ordering::SeqCst) - self.pos < self.capacity() / 2 && !self.wants_sync() && idle()
        });
    }

    pub(crate) fn waker(&self) -> ConsumerWaker {
        ConsumerWaker { map: Arc::clone(&self.map) }
    }

    pub(crate) fn stats(&self) -> &Arc<ProducerStats> {
        &self.stats
    }

    /// Makes every further append fail, and a waiting one too.
    pub(crate) fn fail(&self) {
        self.set_state(state::FAILED);
    }

    /// Makes every further append a no-op that succeeds.
    pub(crate) fn discard(&self) {
        self.set_state(state::DISCARDING);
    }

    fn set_state(&self, state: u32) {
        self.map.state().store(state, Ordering::SeqCst);
        wake(self.map.producer_asleep());
    }
}

/// Wakes the consumer of a ring from any thread.
#[derive(Debug)]
pub(crate) struct ConsumerWaker {
    map: Arc<Mapping>,
}

impl ConsumerWaker {
    pub fn wake(&self) {
        wake(self.map.consumer_asleep());
    }
}

/// The records left in the file of a ring whose process is gone.
#[derive(Debug)]
pub struct RingImage {
    identity: RingIdentity,
    discarding: bool,
    words: Vec<u64>,
}

impl RingImage {
    fn read(path: &Path) -> Result<Self, LogError> {
        let bytes = std::fs::read(path).map_err(LogError::io(path, "read"))?;
        let corrupt = |at, reason| LogError::corrupt(path, at, None, reason);
        if bytes.len() < HEADER_LEN {
            return Err(corrupt(bytes.len() as u64, Reason::Truncated));
        }
        if &bytes[..4] != MAGIC {
            return Err(corrupt(0, Reason::BadMagic));
        }
        let version = u16_at(&bytes, 4);
        if version > VERSION {
            let (path, supported) = (PathBuf::from(path), VERSION);
            return Err(LogError::VersionNewer { path, found: version, supported });
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(&bytes, 60) {
            return Err(corrupt(0, Reason::CorruptCrc));
        }
        let identity = RingIdentity {
            process: bytes[16..32].try_into().expect("16 bytes"),
            epoch: u32_at(&bytes, 48),
            digest: u16_at(&bytes, 6) & FLAG_DIGEST != 0,
        };
        let capacity = u64_at(&bytes, 8);
        let data = &bytes[HEADER_LEN..];
        let (head, tail) = (u64_at(&bytes, HEAD_AT), u64_at(&bytes, TAIL_AT));
        if data.len() as u64 != capacity || !capacity.is_power_of_two() {
            return Err(corrupt(8, Reason::Malformed("size and capacity differ")));
        }
        let used = head.checked_sub(tail).filter(|&used| used <= capacity);
        let Some(used) = used.filter(|_| head % 8 == 0 && tail % 8 == 0) else {
            return Err(corrupt(HEAD_AT as u64, Reason::Malformed("positions")));
        };
        let words = if bytes[32..48] == boot_id() {
            let mask = capacity - 1;
            (0..used / 8).map(|word| u64_at(data, ((tail + word * 8) & mask) as usize)).collect()
        } else {
            Vec::new() // written under another boot: memory and medium need not agree
        };
        let discarding = u32_at(&bytes, STATE_AT) == state::DISCARDING;
        Ok(Self { identity, discarding, words })
    }

    /// Whose records these are.
    pub fn identity(&self) -> &RingIdentity {
        &self.identity
    }

    /// Whether the writer had given up, and the guest ran on unrecorded.
    pub fn was_discarding(&self) -> bool {
        self.discarding
    }

    /// The records, oldest first. Ends early at anything that is not a record.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        let mut rest = self.words.as_slice();
        std::iter::from_fn(move || {
            let (record, len) = RecordView::parse(rest)?;
            rest = &rest[len..];
            Some(record)
        })
    }
}

/// The file of a ring in memory: header, data, and data again.
#[derive(Debug)]
struct Mapping {
    base: *mut u8,
    capacity: usize,
}

// SAFETY: the memory is shared between threads by design. All access goes through atomics, and to
// the data area through `free_words` and `committed_words`, whose callers keep to disjoint parts.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, capacity: usize) -> rustix::io::Result<Self> {
        let len = HEADER_LEN + 2 * capacity;
        // SAFETY: a fresh anonymous mapping replaces nothing.
        #[allow(unsafe_code)]
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE)? };
        // From here on, dropping unmaps.
        let map = Self { base: base.cast(), capacity };
        map.overlay(file, 0, HEADER_LEN + capacity, 0)?;
        map.overlay(file, HEADER_LEN + capacity, capacity, HEADER_LEN as u64)?;
        map.touch(0, HEADER_LEN + capacity.min(TOUCHED_FIRST));
        Ok(map)
    }

    /// Maps `len` bytes of the file from `offset` over the reserved addresses at `at`.
    fn overlay(&self, file: &File, at: usize, len: usize, offset: u64) -> rustix::io::Result<()> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `at..at + len` lies within the addresses reserved in `new`, which nobody uses
        // yet. The file is as long as the mapping, was just created by us, and never shrinks.
        #[allow(unsafe_code)]
        unsafe {
            mm::mmap(self.base.add(at).cast(), len, access, flags, file, offset)?;
        }
        Ok(())
    }

    /// Maps pages of the header and the data, `from..to` bytes from the start of the file, for writing: the guest's
    /// thread is not to fault on them. Kernels before 5.14 do so at the first write.
    fn touch(&self, from: usize, to: usize) {
        debug_assert!(from <= to && to <= HEADER_LEN + self.capacity);
        // SAFETY: the pages lie within the mapping, and their content stays as it is.
        #[allow(unsafe_code)]
        let _ = unsafe { mm::madvise(self.base.add(from).cast(), to - from, mm::Advice::LinuxPopulateWrite) };
    }

    fn write_fixed(&self, fixed: &[u8; FIXED_LEN]) {
        // SAFETY: the mapping is longer than `fixed`, and the ring was not handed out yet.
        #[allow(unsafe_code)]
        unsafe {
            ptr::copy_nonoverlapping(fixed.as_ptr(), self.base, FIXED_LEN);
        }
    }

    fn head(&self) -> &AtomicU64 {
        self.atomic(HEAD_AT)
    }

    fn tail(&self) -> &AtomicU64 {
        self.atomic(TAIL_AT)
    }

    fn state(&self) -> &AtomicU32 {
        self.atomic(STATE_AT)
    }

    fn consumer_asleep(&self) -> &AtomicU32 {
        self.atomic(CONSUMER_ASLEEP_AT)
    }

    fn fault(&self) -> &AtomicU32 {
        self.atomic(FAULT_AT)
    }

    fn producer_asleep(&self) -> &AtomicU32 {
        self.atomic(PRODUCER_ASLEEP_AT)
    }

    /// The atomic at `at` of the header; `A` is `AtomicU32` or `AtomicU64`.
    fn atomic<A>(&self, at: usize) -> &A {
        debug_assert!(at + 8 <= HEADER_LEN && at.is_multiple_of(size_of::<A>()));
        // SAFETY: within the header, aligned (the base is page-aligned), zero-initialised by the
        // file system, and only ever accessed as this atomic.
        #[allow(unsafe_code)]
        unsafe {
            &*self.base.add(at).cast::<A>()
        }
    }

    /// `count` words from position `from`, for the producer to fill.
    #[allow(clippy::mut_from_ref)] // the single producer owns the free part of the ring
    fn free_words(&self, from: u64, count: usize) -> &mut [u64] {
        assert!(count * 8 <= self.capacity);
        let at = HEADER_LEN + (from as usize & (self.capacity - 1));
        // SAFETY: the double mapping makes `capacity` bytes from any position contiguous, and
        // positions are multiples of 8. Only the producer calls this, for room it has found free
        // (`tail` loaded with Acquire), where the consumer holds no view.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts_mut(self.base.add(at).cast(), count)
        }
    }

    /// The words between two positions, both committed and not released.
    fn committed_words(&self, from: u64, to: u64) -> &[u64] {
        let len = (to - from) as usize;
        assert!(len <= self.capacity);
        let at = HEADER_LEN + (from as usize & (self.capacity - 1));
        // SAFETY: as in `free_words`; the producer writes here only after `tail` has passed `to`,
        // and `RingReader::release` needs exclusive access, so no view is alive by then.
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

/// Wakes whoever sleeps on `flag`; a plain load if nobody does.
fn wake(flag: &AtomicU32) {
    if flag.load(Ordering::SeqCst) != 0 && flag.swap(0, Ordering::SeqCst) != 0 {
        // Cannot fail on a mapped address; a lost wake-up costs a bounded sleep.
        let _ = futex::wake(flag, futex::Flags::PRIVATE, 1);
    }
}

/// Sleeps on `flag` unless `still_needed` turns false after the flag is up.
fn sleep(flag: &AtomicU32, time_max: Duration, still_needed: impl FnOnce() -> bool) {
    flag.store(1, Ordering::SeqCst);
    if still_needed() {
        let timeout =
            futex::Timespec { tv_sec: time_max.as_secs() as i64, tv_nsec: i64::from(time_max.subsec_nanos()) };
        // Woken, timed out, interrupted or too late: the caller looks again in every case.
        let _ = futex::wait(flag, futex::Flags::PRIVATE, 1, Some(&timeout));
    }
    flag.store(0, Ordering::SeqCst);
}
