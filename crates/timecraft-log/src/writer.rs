//! The writer thread: from the ring to segments.

use crate::block::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BlockEncoder, EncodedBlock};
use crate::bulk::Bulk;
use crate::config::{Compression, LogConfig, OnFull, Output};
use crate::dir::{self, Lock};
use crate::error::LogError;
use crate::fault::Faults;
use crate::record::{DIGEST_LEN, DIGEST_OVER, KEEP_ALL, RecordView, digest_sent, pack_region};
use crate::recovery::recover_locked;
use crate::ring::{ConsumerWaker, Ring, RingIdentity, RingReader, RingWriter};
use crate::segment::{SegmentStart, SegmentWriter, segment_name};
use crate::stats::{LogBacklog, LogStats, Shared};
use crate::storage::{DirStorage, Storage};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Sleep of the thread while records keep coming.
const SLEEP_ACTIVE: Duration = Duration::from_millis(5);
/// Sleep of the thread while none come.
const SLEEP_IDLE: Duration = Duration::from_millis(20);
/// Records between two looks at the clock.
const BATCH_RECORDS: usize = 1024;

/// A log that was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// Last record in the log, if any.
    pub last_seq: Option<u64>,
    /// First record that is missing from the log, if any is.
    pub first_lost_seq: Option<u64>,
    /// Final counters.
    pub stats: LogStats,
}

/// Starts to write the log that `config` describes, and the thread that does so.
///
/// An existing log of the same process in the directory is recovered first and then continued. A
/// guest that waits for room in the ring gives up once `cancel` is set.
pub fn start(config: LogConfig, cancel: Arc<AtomicBool>) -> Result<(RingWriter, LogWriterHandle), LogError> {
    start_with_storage(config, cancel, Box::new(DirStorage))
}

/// As [`start`], with segments in `storage`.
pub fn start_with_storage(
    config: LogConfig,
    cancel: Arc<AtomicBool>,
    mut storage: Box<dyn Storage>,
) -> Result<(RingWriter, LogWriterHandle), LogError> {
    if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&config.block_bytes_max) {
        return Err(LogError::Config("block_bytes_max must be 1 KiB to 1 MiB"));
    }
    std::fs::create_dir_all(&config.dir).map_err(LogError::io(&config.dir, "create"))?;
    let lock = Lock::take(&config.dir)?;
    let past = recover_locked(&config.dir, storage.as_mut())?;
    if past.process.is_some_and(|process| process != config.process) {
        return Err(LogError::OtherProcess(config.dir));
    }
    dir::prepare_lost_mark(&config.dir)?;
    let ring_path = place_ring(&config)?;
    let digest = config.output == Output::Digest;
    let identity = RingIdentity { process: config.process, epoch: config.epoch, digest };
    let ring = Ring::create(&ring_path, config.ring_bytes, &identity)?;
    ring.note_log(&std::path::absolute(&config.dir).map_err(LogError::io(&config.dir, "resolve"))?);
    let (mut ring_writer, ring_reader) = ring.split(past.next_seq, Arc::clone(&cancel));
    if config.sync_before_output {
        ring_writer.sync_outputs();
    }
    if digest {
        ring_writer.mark_kept(config.kept);
    }
    let shared = Arc::new(Shared::new(past.next_seq, Arc::clone(ring_reader.stats())));
    let waker = ring_reader.waker();
    let files = LogFiles {
        dir: config.dir.clone(),
        process: config.process,
        epoch: config.epoch,
        segment_bytes_max: config.segment_bytes_max,
        bytes_left: config.log_bytes_max.unwrap_or(u64::MAX),
        bytes_max: config.log_bytes_max.unwrap_or(u64::MAX),
        next_number: past.next_number,
        chain: past.chain,
        segment: None,
        bulk: Bulk::new(config.ring_bytes),
        shared: Arc::clone(&shared),
        named: false,
    };
    let writer = Writer {
        ring: ring_reader,
        ring_path: ring_path.clone(),
        encoder: BlockEncoder::new(config.compression, config.block_bytes_max, past.next_seq, past.chain),
        compression: config.compression,
        block_bytes_max: config.block_bytes_max,
        counted: 0,
        files,
        storage,
        digester: Digester::new(digest),
        seal_age: config.seal_age,
        flush_interval: config.flush_interval,
        fsync_interval: config.fsync_interval,
        on_full: config.on_full,
        faults: Faults::new(config.wait_max, cancel),
        pending_since: None,
        unsynced_since: None,
        stored: VecDeque::new(),
        shared: Arc::clone(&shared),
    };
    let thread = thread::Builder::new()
        .name("timecraft-log".into())
        .spawn(move || writer.run())
        .map_err(LogError::io(&config.dir, "start a thread for"))?;
    let handle = LogWriterHandle { dir: config.dir, ring_path, thread: Some(thread), waker, shared, _lock: lock };
    Ok((ring_writer, handle))
}

/// Where the ring will lie, noted in the log's directory.
fn place_ring(config: &LogConfig) -> Result<PathBuf, LogError> {
    let path = config.ring_path.clone().unwrap_or_else(|| config.dir.join("ring.buf"));
    let path = std::path::absolute(&path).map_err(LogError::io(&path, "resolve"))?;
    dir::write_ring_pointer(&config.dir, &path)?;
    Ok(path)
}

/// Handle of a log that is being written.
///
/// Dropping it without [`finish`](Self::finish) stops the thread and leaves ring and segment as if
/// the process had been killed: recovery takes it from there.
#[derive(Debug)]
pub struct LogWriterHandle {
    dir: PathBuf,
    ring_path: PathBuf,
    thread: Option<JoinHandle<Result<(), LogError>>>,
    waker: ConsumerWaker,
    shared: Arc<Shared>,
    _lock: Lock,
}

impl LogWriterHandle {
    /// Stores what is in the ring, seals the segment, makes all durable, and removes the ring.
    ///
    /// To be called when the guest has ended: an append after this fails. If the writer failed,
    /// returns its error and leaves the ring to recovery, except under [`OnFull::Continue`].
    pub fn finish(mut self) -> Result<LogSummary, LogError> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.join()?;
        dir::remove_ring(&self.dir, &self.ring_path)?;
        let stats = self.shared.stats();
        Ok(LogSummary {
            last_seq: stats.next_seq_written.checked_sub(1),
            first_lost_seq: dir::read_lost_mark(&self.dir)?,
            stats,
        })
    }

    /// Counters as of now.
    pub fn stats(&self) -> LogStats {
        self.shared.stats()
    }

    /// What waits to be stored and sealed, as of now.
    pub fn backlog(&self) -> LogBacklog {
        let (ring_waiting_bytes, ring_bytes) = self.waker.depth();
        LogBacklog { ring_waiting_bytes, ring_bytes, unsealed: self.shared.unsealed() }
    }

    /// Leaves records in the ring from now on, or goes on. The guest waits once the ring is full; nothing is lost.
    /// [`finish`](Self::finish) stores all.
    pub fn hold(&self, held: bool) {
        self.shared.hold.store(held, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Ends a hold for good: a guest that is to end must not wait.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Why the writer failed, if it did. Under [`OnFull::Continue`] the guest runs on.
    pub fn failure(&self) -> Option<LogError> {
        self.shared.failure()
    }

    fn join(&mut self) -> Result<(), LogError> {
        self.waker.wake();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(LogError::WriterPanicked),
            None => Ok(()),
        }
    }
}

impl Drop for LogWriterHandle {
    fn drop(&mut self) {
        self.shared.abandon.store(true, Ordering::SeqCst);
        // The error, if any, could be had from `failure` and `finish`.
        let _ = self.join();
    }
}

/// Segments in a row, within the bounds of a log.
pub(crate) struct LogFiles {
    pub dir: PathBuf,
    pub process: [u8; 16],
    pub epoch: u32,
    pub segment_bytes_max: u64,
    pub bytes_left: u64,
    pub bytes_max: u64,
    pub next_number: u32,
    pub chain: u64,
    pub segment: Option<SegmentWriter>,
    pub bulk: Bulk,
    pub shared: Arc<Shared>,
    /// The names of the directory and of the one that it is in are durable.
    pub named: bool,
}

impl LogFiles {
    /// Appends a block to the current segment, or to a new one. With `in_bulk`, this and what follows may be gathered
    /// for a bulk write.
    pub fn store(
        &mut self,
        storage: &mut dyn Storage,
        block: &EncodedBlock<'_>,
        in_bulk: bool,
    ) -> Result<(), LogError> {
        let len = block.info.len_with_header();
        if len > self.bytes_left {
            self.flush()?;
            return Err(LogError::LogFull(self.bytes_max));
        }
        let full = |segment: &SegmentWriter| !segment.is_empty() && segment.len() + len > self.segment_bytes_max;
        if self.segment.as_ref().is_some_and(full) {
            self.seal()?;
        }
        if self.segment.is_none() {
            let start = SegmentStart {
                process: self.process,
                number: self.next_number,
                epoch: self.epoch,
                base_seq: block.info.base_seq,
                base_time_ns: block.info.first_time_ns,
                chain: self.chain,
            };
            self.segment = Some(SegmentWriter::create(storage, &self.dir, start)?);
            if !self.named {
                // The directory may be as new as the segment.
                for above in self.dir.ancestors().skip(1).take(2).filter(|above| above.is_dir()) {
                    storage.sync_dir(above).map_err(LogError::io(above, "sync"))?;
                }
                self.named = true;
            }
            self.next_number += 1;
            self.shared.note_unsealed();
            self.shared.segments.fetch_add(1, Ordering::Relaxed);
        }
        let segment = self.segment.as_mut().expect("made above");
        let room = self.segment_bytes_max.saturating_sub(segment.len()).min(self.bytes_left).max(len);
        let appended = segment.append(block, &mut self.bulk, in_bulk.then_some(room));
        self.note_written();
        appended?;
        self.bytes_left -= len;
        self.chain = block.info.chain;
        Ok(())
    }

    /// Whether there is a segment that was begun so long ago.
    fn is_old(&self, age: Duration) -> bool {
        self.segment.as_ref().is_some_and(|segment| segment.begun.elapsed() >= age)
    }

    /// Writes the blocks that are gathered.
    pub fn flush(&mut self) -> Result<(), LogError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let flushed = segment.end_bulk(&mut self.bulk);
        self.note_written();
        flushed
    }

    /// Takes note of the blocks that were written meanwhile.
    pub fn poll(&mut self) -> Result<(), LogError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let polled = segment.poll_bulk(&mut self.bulk);
        self.note_written();
        polled
    }

    /// Whether large blocks should be gathered, with this many bytes waiting behind them.
    pub fn wants_bulk(&self, backlog: u64) -> bool {
        self.bulk.backlog_min().is_some_and(|least| backlog >= least)
    }

    fn note_written(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        let news = segment.take_news();
        if news.blocks > 0 {
            let shared = &self.shared;
            shared.records.fetch_add(news.records, Ordering::Relaxed);
            shared.blocks.fetch_add(news.blocks, Ordering::Relaxed);
            shared.bytes_stored.fetch_add(news.bytes, Ordering::Relaxed);
            shared.next_seq_written.store(news.next_seq, Ordering::Release);
        }
    }

    /// Makes all blocks that are written durable.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if let Some(segment) = &mut self.segment {
            let begun = Instant::now();
            segment.sync()?;
            self.shared.note_flush(begun.elapsed());
        }
        Ok(())
    }

    /// Seals the current segment, if there is one.
    pub fn seal(&mut self) -> Result<(), LogError> {
        self.flush()?;
        if let Some(segment) = &mut self.segment {
            segment.seal()?;
            self.chain = segment.chain();
            self.segment = None;
            self.shared.note_sealed();
        }
        Ok(())
    }

    /// Makes the files fit to go on after an error, behind the last record that is in them. May be repeated.
    fn repair(&mut self, storage: &mut dyn Storage) -> Result<(), LogError> {
        self.flush()?;
        if let Some(segment) = &mut self.segment {
            segment.repair()?;
            self.chain = segment.chain();
        } else {
            let path = self.dir.join(segment_name(self.next_number));
            match storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(LogError::io(&path, "remove")(error));
                }
                _ => {}
            }
        }
        let stored = self.shared.bytes_stored.load(Ordering::Relaxed);
        self.bytes_left = self.bytes_max.saturating_sub(stored);
        Ok(())
    }
}

/// Replaces the data that guests sent by their digest.
pub(crate) struct Digester {
    enabled: bool,
    regions: Vec<u64>,
    payload: Vec<u8>,
}

impl Digester {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, regions: Vec::new(), payload: Vec::new() }
    }

    /// `record` as it is to be stored. Control records are left alone.
    pub fn apply<'a>(&'a mut self, record: RecordView<'a>) -> RecordView<'a> {
        if !self.enabled || record.call() >= crate::CONTROL_BASE {
            return record;
        }
        // What the ring's mark says is no part of the record, nor of its hash.
        let (kept, record) = (record.kept, RecordView { kept: 0, image: &[], ..record });
        let count = usize::from(kept);
        let bytes: usize = record.sent().skip(count).map(|(_, bytes)| bytes.len()).sum();
        if kept == KEEP_ALL || bytes <= DIGEST_OVER {
            return record;
        }
        let (digest, _) = digest_sent(record.sent().skip(count));
        self.regions.clear();
        self.regions.extend_from_slice(&record.regions[..record.written_count + count]);
        self.regions.push(pack_region(bytes as u32, DIGEST_LEN as u32));
        self.payload.clear();
        record.written().chain(record.sent().take(count)).for_each(|(_, bytes)| self.payload.extend_from_slice(bytes));
        self.payload.extend_from_slice(&digest);
        RecordView { regions: &self.regions, payload: &self.payload, digested: true, ..record }
    }
}

/// The thread's state.
struct Writer {
    ring: RingReader,
    ring_path: PathBuf,
    encoder: BlockEncoder,
    compression: Compression,
    block_bytes_max: usize,
    /// Position in the ring up to which records were counted.
    counted: u64,
    files: LogFiles,
    storage: Box<dyn Storage>,
    digester: Digester,
    seal_age: Option<Duration>,
    flush_interval: Duration,
    fsync_interval: Option<Duration>,
    on_full: OnFull,
    faults: Faults,
    /// Since when records wait in a partial block.
    pending_since: Option<Instant>,
    /// Since when records that were taken from the ring wait to be made durable.
    unsynced_since: Option<Instant>,
    /// What blocks that were stored hold, and may not be in the file yet: sequence number and position in the ring
    /// behind their last record.
    stored: VecDeque<(u64, u64)>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self) -> Result<(), LogError> {
        match self.serve() {
            Ok(()) => {
                self.ring.fail(); // from now on, an append would go nowhere
                Ok(())
            }
            Err(error) if error.is_full() && self.on_full == OnFull::Continue => {
                let first_lost_seq = self.shared.next_seq_written.load(Ordering::Relaxed);
                let marked = dir::mark_lost(&self.files.dir, first_lost_seq);
                self.shared.set_failure(error);
                if let Err(error) = marked {
                    // Loss that nobody could tell of later is not on offer.
                    return Err(self.fail(error));
                }
                self.ring.discard();
                // Without index and footer the segment is still whole.
                let _ = self.files.seal();
                self.discard();
                Ok(())
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: LogError) -> LogError {
        self.shared.set_failure(error.clone());
        self.ring.fail();
        error
    }

    fn serve(&mut self) -> Result<(), LogError> {
        let mut sleep = SLEEP_ACTIVE;
        loop {
            // Looked at before the ring, so that all that was appended before `finish` is seen.
            let stop = self.shared.stop.load(Ordering::Acquire);
            if self.shared.abandon.load(Ordering::Acquire) && !stop {
                return Ok(());
            }
            let drained = match self.turn(stop) {
                Ok(None) => return Ok(()),
                Ok(Some(drained)) => drained,
                Err(error) => {
                    self.endure(error)?;
                    continue;
                }
            };
            if !stop && self.shared.is_held() {
                thread::sleep(SLEEP_IDLE);
                continue;
            }
            if drained == 0 {
                self.ring.wait(self.sleep_max(sleep), || !self.shared.told_to_end());
                sleep = (sleep * 2).min(SLEEP_IDLE);
            } else if drained < BATCH_RECORDS {
                sleep = SLEEP_ACTIVE;
            }
        }
    }

    /// Takes what the ring has and writes what is due; returns how many records it took, `None` once all is sealed.
    fn turn(&mut self, stop: bool) -> Result<Option<usize>, LogError> {
        let retried = self.faults.is_on();
        if retried {
            self.repair()?;
        }
        let held = !stop && self.shared.is_held();
        if self.ring.backlog() > 0 {
            self.shared.note_unsealed();
        }
        self.ring.back_ahead().map_err(|error| LogError::io(&self.ring_path, "allocate")(error.into()))?;
        let drained = if held { 0 } else { self.drain()? };
        if drained == 0 && stop {
            self.flush()?;
            self.files.seal()?;
            self.note_synced();
        } else if retried {
            self.flush()?;
            self.sync()?;
        } else {
            self.flush_and_sync_if_due(drained)?;
        }
        let is_over = drained == 0 && stop;
        // A guest that has ended needs no sign that the fault is over, but its last block and its index do count.
        if retried && (is_over || !stop) {
            self.faults.end(&self.shared);
            self.ring.show_fault(0);
        }
        Ok((!is_over).then_some(drained))
    }

    /// Waits before writing is tried again, where that is wanted and may help.
    fn endure(&mut self, error: LogError) -> Result<(), LogError> {
        if self.on_full != OnFull::Wait || !error.may_pass() {
            return Err(error);
        }
        self.ring.show_fault(error.errno());
        self.faults.wait(error, &self.shared)
    }

    /// Goes back to behind the last record that is in a file.
    fn repair(&mut self) -> Result<(), LogError> {
        self.files.repair(self.storage.as_mut())?;
        self.release_written();
        self.ring.rewind();
        let next_seq = self.shared.next_seq_written.load(Ordering::Relaxed);
        self.encoder = BlockEncoder::new(self.compression, self.block_bytes_max, next_seq, self.files.chain);
        self.stored.clear();
        self.pending_since = None;
        Ok(())
    }

    /// Makes all blocks that are written durable.
    fn sync(&mut self) -> Result<(), LogError> {
        self.files.sync()?;
        self.unsynced_since = None;
        self.note_synced();
        Ok(())
    }

    fn note_synced(&self) {
        self.ring.note_synced(self.shared.next_seq_written.load(Ordering::Relaxed));
    }

    /// Sleep until something is due, at most `idle`.
    fn sleep_max(&self, idle: Duration) -> Duration {
        let until = |since: Option<Instant>, interval: Duration| {
            since.map_or(idle, |since| interval.saturating_sub(since.elapsed()))
        };
        let flush = until(self.pending_since, self.flush_interval);
        let sync = until(self.unsynced_since, self.sync_after().unwrap_or(idle));
        idle.min(flush).min(sync)
    }

    /// How long records may wait to be made durable after they were taken from the ring, where they have waited while
    /// this thread slept.
    fn sync_after(&self) -> Option<Duration> {
        self.fsync_interval.map(|interval| interval.saturating_sub(SLEEP_IDLE))
    }

    /// Takes records from the ring, a batch at most; returns how many.
    fn drain(&mut self) -> Result<usize, LogError> {
        for drained in 0..BATCH_RECORDS {
            if !self.take_record()? {
                return Ok(drained);
            }
        }
        Ok(BATCH_RECORDS)
    }

    /// Moves one record from the ring into a block; false if the ring is empty.
    fn take_record(&mut self) -> Result<bool, LogError> {
        let (before, backlog) = (self.ring.position(), self.ring.backlog());
        let Some(record) = self.ring.next() else { return Ok(false) };
        let seq = record.seq();
        if before >= self.counted {
            self.counted = before + record.ring_bytes() as u64;
            self.shared.bytes_raw.fetch_add(record.ring_bytes() as u64, Ordering::Relaxed);
        }
        if seq < self.encoder.next_seq() {
            return Ok(true); // in a file already: this is the second time
        }
        self.unsynced_since.get_or_insert_with(Instant::now);
        let record = self.digester.apply(record);
        let alone = self.encoder.is_oversize(&record);
        let mut stored_to = None;
        if alone || self.encoder.is_full_for(&record) {
            if let Some(block) = self.encoder.finish_parts() {
                self.files.store(self.storage.as_mut(), &block, false)?;
            }
            stored_to = Some((seq, before));
        }
        if alone {
            let block = self.encoder.encode_alone(&record);
            let in_bulk = self.files.wants_bulk(backlog);
            self.files.store(self.storage.as_mut(), &block, in_bulk)?;
            stored_to = Some((seq + 1, self.ring.position()));
        } else {
            self.encoder.push(&record);
        }
        if let Some((next_seq, position)) = stored_to {
            self.note_stored(next_seq, position);
        }
        let starved = self.ring.unreleased() > self.ring.capacity() / 2;
        if starved {
            self.flush()?;
        } else if self.encoder.is_full() {
            self.store_block()?;
        } else if !self.encoder.is_empty() && self.pending_since.is_none() {
            self.pending_since = Some(Instant::now());
        }
        Ok(true)
    }

    fn flush_and_sync_if_due(&mut self, drained: usize) -> Result<(), LogError> {
        if self.seal_age.is_some_and(|age| self.files.is_old(age)) {
            self.flush()?;
            self.files.seal()?;
        }
        let due = |since: Option<Instant>, interval: Duration| since.is_some_and(|since| since.elapsed() >= interval);
        self.files.poll()?;
        self.release_written();
        let starved = drained == 0 && self.ring.producer_waits();
        let sync = self.ring.wants_sync() || self.sync_after().is_some_and(|after| due(self.unsynced_since, after));
        if sync || starved || due(self.pending_since, self.flush_interval) {
            self.flush()?;
        }
        if sync { self.sync() } else { Ok(()) }
    }

    /// Stores the block in progress, if any, and has all that is stored written.
    fn flush(&mut self) -> Result<(), LogError> {
        self.store_block()?;
        self.files.flush()?;
        self.release_written();
        Ok(())
    }

    /// Stores the block in progress, if any.
    fn store_block(&mut self) -> Result<(), LogError> {
        if let Some(block) = self.encoder.finish_parts() {
            self.files.store(self.storage.as_mut(), &block, false)?;
        }
        self.note_stored(self.encoder.next_seq(), self.ring.position());
        Ok(())
    }

    /// The records before `next_seq`, and before `position` in the ring, are stored.
    fn note_stored(&mut self, next_seq: u64, position: u64) {
        self.stored.push_back((next_seq, position));
        self.pending_since = self.pending_since.filter(|_| self.files.bulk.is_active());
        self.release_written();
    }

    /// Frees the ring up to where its records are in the file of a segment.
    fn release_written(&mut self) {
        let written = self.shared.next_seq_written.load(Ordering::Relaxed);
        let mut position = None;
        while let Some(&(_, behind)) = self.stored.front().filter(|(next_seq, _)| *next_seq <= written) {
            position = Some(behind);
            self.stored.pop_front();
        }
        if let Some(position) = position {
            self.ring.release(position);
        }
        if self.stored.is_empty() && self.encoder.is_empty() {
            self.pending_since = None;
        } else if !self.stored.is_empty() {
            self.pending_since.get_or_insert_with(Instant::now);
        }
    }

    /// Counts away what is not in a segment until told to stop.
    fn discard(&mut self) {
        let next_seq = self.shared.next_seq_written.load(Ordering::Relaxed);
        self.ring.rewind();
        loop {
            let stop = self.shared.told_to_end();
            while let Some(record) = self.ring.next() {
                let lost = u64::from(record.seq() >= next_seq);
                self.shared.records_discarded.fetch_add(lost, Ordering::Relaxed);
            }
            self.ring.release(self.ring.position());
            if stop {
                return;
            }
            self.ring.wait(SLEEP_IDLE, || !self.shared.told_to_end());
        }
    }
}
