//! The ring: a memory-mapped file that carries records from the guest's thread to the writer's.
//!
//! One producer, one consumer. The data area is mapped twice in a row, so that every record is
//! contiguous. `head` and `tail` count bytes since creation and never wrap. A record exists from
//! the moment the producer stores `head` behind it (`Release`, after all its bytes); its room is
//! free again when the consumer stores `tail` behind it, which it does once the block with the
//! record is written to a segment. So whatever kills the process, each record is in the file of the
//! ring, in a segment, or in both; recovery drops doubles by sequence number.

mod header;
mod image;
mod mapping;

pub use self::header::RingIdentity;
pub use self::image::RingImage;

use self::header::{CAPACITY_MAX, CAPACITY_MIN, encode_fixed, encode_log, state};
use self::mapping::{BACKED_FIRST, Mapping};
use crate::bytes::words_as_bytes_mut;
use crate::error::{AppendError, LogError};
use crate::record::{
    ARGS_MAX, Head, PROLOGUE_WORDS, RECORD_BYTES_MAX, REGIONS_MAX, RecordView, counts_word, pack_region,
};
use rustix::io::Errno;
use rustix::thread::futex;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How far ahead of the guest there is memory, in bytes, if the writer keeps up.
const BACKED_AHEAD: u64 = 1 << 20;
/// With less memory than this ahead of it, in bytes, the guest calls the writer.
const BACKED_LOW: u64 = BACKED_FIRST as u64 / 2;
/// Longest sleep of a producer that waits for room: bounds the delay of a cancellation.
const PRODUCER_SLEEP_MAX: Duration = Duration::from_millis(2);
/// How long a producer that is cancelled still waits for room, unless the consumer can't write anyway: a disk that is
/// slow is no reason to lose the end of a guest that is killed.
const CANCELLED_PATIENCE: Duration = Duration::from_millis(500);

/// A ring that was created and not yet split into its two ends.
#[derive(Debug)]
pub struct Ring {
    map: Arc<Mapping>,
}

impl Ring {
    /// Creates the file at `path` with `capacity` bytes of data, and maps it.
    ///
    /// A first part of the data gets memory now, so that neither a full file system nor a page fault can hit the
    /// guest's thread; the rest before the guest gets there. `capacity` must be a power of two of at least 64 KiB and
    /// at most 1 GiB. An existing file is replaced.
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
        let map = Mapping::new(file, capacity)
            .inspect_err(|_| drop(std::fs::remove_file(path)))
            .map_err(|error| LogError::io(path, "allocate")(error.into()))?;
        map.write_fixed(&encode_fixed(capacity, identity));
        Ok(Self { map: Arc::new(map) })
    }

    /// Notes in the file that the ring belongs to the log in `dir`, an absolute path: should that directory be gone
    /// one day, nobody needs the ring any more.
    pub fn note_log(&self, dir: &Path) {
        self.map.write_log(&encode_log(dir));
    }

    /// Reads the ring at `path`, which nobody may be writing, as a copy in memory. `None`: it was never done.
    pub fn open(path: &Path) -> Result<Option<RingImage>, LogError> {
        RingImage::read(path)
    }

    /// The two ends. The first record gets number `next_seq`; a producer that waits for room
    /// gives up once `cancel` is set.
    pub fn split(self, next_seq: u64, cancel: Arc<AtomicBool>) -> (RingWriter, RingReader) {
        let capacity = self.map.capacity as u64;
        let writer = RingWriter {
            head: 0,
            limit: 0,
            nudge_at: 0,
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
        (writer, RingReader { pos: 0, map: self.map, stats })
    }
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
    /// Position up to which the producer waits for memory; 0 if it doesn't wait.
    pub memory_wanted: AtomicU64,
}

/// The producing end of a ring, for the guest's thread.
#[derive(Debug)]
pub struct RingWriter {
    head: u64,
    /// The position up to which there was room when last looked: at most the real one.
    limit: u64,
    /// The position from which the consumer has to hurry, when last looked.
    nudge_at: u64,
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
        let room = self.head + len <= self.limit;
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
        self.map.head_check().store(!self.head, Ordering::Release);
        if self.head > self.nudge_at {
            self.nudge();
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Wakes a sleeping consumer if the ring is really more than half full, or needs memory soon.
    #[cold]
    fn nudge(&mut self) {
        self.look();
        if self.head > self.nudge_at {
            wake(self.map.consumer_asleep());
        }
    }

    /// Finds out how far it may go; returns the consumer's position.
    fn look(&mut self) -> u64 {
        let backed = self.map.backed();
        let tail = self.map.tail().load(Ordering::Acquire);
        self.limit = backed.min(tail + self.capacity);
        self.nudge_at = backed.saturating_sub(BACKED_LOW).min(tail + self.capacity / 2);
        tail
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
            let tail = self.look();
            let end = self.head + len;
            if end <= self.limit {
                break Ok(true);
            }
            // The consumer is behind with memory: no reason to wait for it, unless there is none.
            if end <= tail + self.capacity && self.map.back(end).is_ok() && end <= self.map.backed() {
                continue;
            }
            self.stats.memory_wanted.store(end, Ordering::SeqCst);
            // Counted when it begins, so that it shows while it lasts.
            let since = *stalled_since.get_or_insert_with(|| {
                self.stats.stalls.fetch_add(1, Ordering::Relaxed);
                Instant::now()
            });
            if self.gives_up(since) {
                break Err(AppendError::Cancelled);
            }
            wake(self.map.consumer_asleep());
            sleep(self.map.producer_asleep(), PRODUCER_SLEEP_MAX, || {
                self.map.tail().load(Ordering::SeqCst) == tail && self.map.state().load(Ordering::SeqCst) == state::OPEN
            });
        };
        if let Some(since) = stalled_since {
            let ns = since.elapsed().as_nanos() as u64;
            self.stats.stalled_ns.fetch_add(ns, Ordering::Relaxed);
            // What nobody waits for any more is no fault of the writer's.
            self.stats.memory_wanted.store(0, Ordering::SeqCst);
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
    map: Arc<Mapping>,
    stats: Arc<ProducerStats>,
}

impl RingReader {
    /// Gives memory to what the guest will soon write for the first time. Fails if there is none, and the guest can't
    /// go on without.
    pub fn back_ahead(&self) -> Result<(), Errno> {
        let (head, wanted) = (self.map.head().load(Ordering::Acquire), self.stats.memory_wanted.load(Ordering::SeqCst));
        // Many a guest needs no more than the first part.
        let ahead = if head < BACKED_LOW { wanted } else { wanted.max(head + BACKED_AHEAD) };
        if ahead <= self.map.backed() {
            return Ok(());
        }
        let backed = self.map.back(ahead);
        let waits_for_all = wanted > self.map.backed() && self.map.tail().load(Ordering::Relaxed) == head;
        if waits_for_all { backed } else { Ok(()) }
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

    /// Bytes that are taken by records, and the size of the data area.
    pub fn depth(&self) -> (u64, u64) {
        // In this order: head never falls behind tail.
        let tail = self.map.tail().load(Ordering::Acquire);
        let capacity = self.map.capacity as u64;
        ((self.map.head().load(Ordering::Acquire) - tail).min(capacity), capacity)
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
