//! What a writer counts and shows to others.

use crate::error::LogError;
use crate::ring::ProducerStats;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters of a log that is being written. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records stored in segments.
    pub records: u64,
    /// Blocks stored.
    pub blocks: u64,
    /// Segments begun.
    pub segments: u64,
    /// Size of the stored records as they were in the ring.
    pub bytes_raw: u64,
    /// Size of the stored blocks with their headers.
    pub bytes_stored: u64,
    /// Times the guest had to wait for room in the ring.
    pub stalls: u64,
    /// How long it waited in all, in nanoseconds.
    pub stalled_ns: u64,
    /// Records lost under [`OnFull::Continue`].
    pub records_lost: u64,
    /// Sequence number behind the last record in a segment.
    pub next_seq_written: u64,
    /// Sequence number behind the last record that survives a power cut.
    pub next_seq_synced: u64,
    /// Times the guest waited for the medium before an output, and how long in all, in nanoseconds.
    pub syncs: u64,
    pub sync_waited_ns: u64,
    /// Times writing failed and was tried again, how long it has not been possible in all, in nanoseconds, and the
    /// system's number of the error while it lasts, else 0.
    pub faults: u64,
    pub faulted_ns: u64,
    pub fault_errno: u64,
    /// Times that what was written was made durable, and how long that took in all, in nanoseconds.
    pub flushes: u64,
    pub flush_ns: u64,
}

/// What of a log isn't where it is to be yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBacklog {
    /// Of the ring, what holds records that aren't in a segment's file, in bytes.
    pub ring_waiting_bytes: u64,
    /// Size of the ring, in bytes.
    pub ring_bytes: u64,
    /// Age of the oldest record that isn't in a sealed segment; zero if there is none.
    pub unsealed: Duration,
}

/// What the writer thread shows to others.
#[derive(Debug)]
pub(crate) struct Shared {
    pub stop: AtomicBool,
    /// Stop without sealing, as if killed.
    pub abandon: AtomicBool,
    /// Leave records in the ring, so that the guest waits once it is full.
    pub hold: AtomicBool,
    /// Nobody may hold any more.
    pub released: AtomicBool,
    pub records: AtomicU64,
    pub blocks: AtomicU64,
    pub segments: AtomicU64,
    pub bytes_raw: AtomicU64,
    pub bytes_stored: AtomicU64,
    pub records_discarded: AtomicU64,
    pub next_seq_written: AtomicU64,
    pub faults: AtomicU64,
    pub faulted_ns: AtomicU64,
    pub fault_errno: AtomicU64,
    flushes: AtomicU64,
    flush_ns: AtomicU64,
    /// Since when there is a record that isn't in a sealed segment, as nanoseconds since `began`; 0 if there is none.
    unsealed_since_ns: AtomicU64,
    began: Instant,
    producer: Arc<ProducerStats>,
    failure: Mutex<Option<LogError>>,
}

impl Shared {
    pub fn new(next_seq: u64, producer: Arc<ProducerStats>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            hold: AtomicBool::new(false),
            released: AtomicBool::new(false),
            records: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            segments: AtomicU64::new(0),
            bytes_raw: AtomicU64::new(0),
            bytes_stored: AtomicU64::new(0),
            records_discarded: AtomicU64::new(0),
            next_seq_written: AtomicU64::new(next_seq),
            faults: AtomicU64::new(0),
            faulted_ns: AtomicU64::new(0),
            fault_errno: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            flush_ns: AtomicU64::new(0),
            unsealed_since_ns: AtomicU64::new(0),
            began: Instant::now(),
            producer,
            failure: Mutex::new(None),
        }
    }

    pub fn stats(&self) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            records: get(&self.records),
            blocks: get(&self.blocks),
            segments: get(&self.segments),
            bytes_raw: get(&self.bytes_raw),
            bytes_stored: get(&self.bytes_stored),
            stalls: get(&self.producer.stalls),
            stalled_ns: get(&self.producer.stalled_ns),
            records_lost: get(&self.producer.records_lost) + get(&self.records_discarded),
            next_seq_written: get(&self.next_seq_written),
            next_seq_synced: get(&self.producer.next_seq_synced),
            syncs: get(&self.producer.syncs),
            sync_waited_ns: get(&self.producer.sync_waited_ns),
            faults: get(&self.faults),
            faulted_ns: get(&self.faulted_ns),
            fault_errno: get(&self.fault_errno),
            flushes: get(&self.flushes),
            flush_ns: get(&self.flush_ns),
        }
    }

    /// There is a record that isn't in a sealed segment.
    pub fn note_unsealed(&self) {
        if self.unsealed_since_ns.load(Ordering::Relaxed) == 0 {
            let now_ns = self.began.elapsed().as_nanos() as u64;
            self.unsealed_since_ns.store(now_ns.max(1), Ordering::Relaxed);
        }
    }

    /// All that was taken from the ring is in sealed segments.
    pub fn note_sealed(&self) {
        self.unsealed_since_ns.store(0, Ordering::Relaxed);
    }

    /// Age of the oldest record that isn't in a sealed segment.
    pub fn unsealed(&self) -> Duration {
        match self.unsealed_since_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ns => self.began.elapsed().saturating_sub(Duration::from_nanos(since_ns)),
        }
    }

    /// What was written has been made durable, and that took so long.
    pub fn note_flush(&self, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn abandoned(&self) -> bool {
        self.abandon.load(Ordering::SeqCst)
    }

    pub fn is_held(&self) -> bool {
        self.hold.load(Ordering::Relaxed) && !self.released.load(Ordering::Relaxed)
    }

    /// Sequentially consistent, as the flag of a sleeper is: one of the two is seen.
    pub fn told_to_end(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.abandon.load(Ordering::SeqCst)
    }

    pub fn failure(&self) -> Option<LogError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_failure(&self, error: LogError) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
