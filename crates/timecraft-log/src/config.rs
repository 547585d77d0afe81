//! How a log is written.

use std::path::PathBuf;
use std::time::Duration;

/// Compression of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Blocks are stored as encoded.
    None,
    /// LZ4 block format, where it gains at least 5 %.
    #[default]
    Lz4,
}

/// What is kept of the bytes a guest sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// All bytes.
    #[default]
    Inline,
    /// A digest where a record sends more than [`DIGEST_OVER`](crate::DIGEST_OVER) bytes of data.
    Digest,
}

/// What happens to the guest when its log can't be written: no room, or an error of the medium.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Its next append fails: nothing runs unrecorded.
    #[default]
    Stop,
    /// The writer tries again until it can write; once the ring is full, the guest waits. After `LogConfig::wait_max`
    /// it is as with `Stop`.
    Wait,
    /// It runs on if there is no room, the log is marked incomplete, and what is lost is counted. After other errors
    /// it is as with `Stop`.
    Continue,
}

/// Configuration of a log that is to be written. All sizes are in bytes.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Directory of the log; created if absent.
    pub dir: PathBuf,
    /// Identity of the process; must be equal over all epochs.
    pub process: [u8; 16],
    /// Epoch, for the headers of segments.
    pub epoch: u32,
    /// File of the ring, best on tmpfs. `None`: `ring.buf` in `dir`.
    pub ring_path: Option<PathBuf>,
    /// Capacity of the ring: a power of two, 64 KiB to 1 GiB. A record must fit, so that what runs guests needs
    /// [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX) at least.
    pub ring_bytes: usize,
    /// A block is closed when its encoded, uncompressed records reach this size (1 KiB to 1 MiB).
    pub block_bytes_max: usize,
    /// A segment is sealed when it reaches this size.
    pub segment_bytes_max: u64,
    /// A segment with records in it is sealed when it is so old. `None`: by size only.
    pub seal_age: Option<Duration>,
    /// Compression of blocks.
    pub compression: Compression,
    /// Records reach the medium at the latest after this time, and that of one sync. `None`: at the seal only.
    pub fsync_interval: Option<Duration>,
    /// [`RingWriter::sync_before_output`](crate::RingWriter::sync_before_output) waits for the medium.
    pub sync_before_output: bool,
    /// A partial block is written at the latest after this time, so that followers see it.
    pub flush_interval: Duration,
    /// Bound of what this writer stores, over all segments. `None`: the disk.
    pub log_bytes_max: Option<u64>,
    /// What happens when the log can't be written, or `log_bytes_max` is reached.
    pub on_full: OnFull,
    /// How long the writer tries again under [`OnFull::Wait`]. `None`: for ever.
    pub wait_max: Option<Duration>,
    /// What is kept of the bytes a guest sends.
    pub output: Output,
    /// How many of the first regions that a call with this id sends are no data, and kept in any case: addresses and
    /// such. [`KEEP_ALL`](crate::KEEP_ALL): the call sends no data.
    pub kept: fn(u16) -> u8,
}

impl LogConfig {
    /// The defaults, for the log of `process` in `dir`.
    pub fn new(dir: impl Into<PathBuf>, process: [u8; 16]) -> Self {
        Self {
            dir: dir.into(),
            process,
            epoch: 0,
            ring_path: None,
            ring_bytes: 8 << 20,
            block_bytes_max: 64 << 10,
            segment_bytes_max: 64 << 20,
            seal_age: None,
            compression: Compression::default(),
            fsync_interval: Some(Duration::from_millis(100)),
            sync_before_output: false,
            flush_interval: Duration::from_millis(200),
            log_bytes_max: None,
            on_full: OnFull::default(),
            wait_max: None,
            output: Output::default(),
            kept: |_| 0,
        }
    }
}
