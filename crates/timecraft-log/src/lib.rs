//! The log of execution of a WebAssembly guest: what every host call did to the guest, in order.
//!
//! The guest's thread appends raw records to a [`Ring`]; a writer thread ([`start`]) drains the
//! ring into delta-coded, compressed, checksummed blocks within segment files; [`LogReader`] reads
//! them back; [`recover`] repairs the log of a process whose host died. The layout of everything
//! on disk is specified in `docs/log-format.md`.
//!
//! Nothing in here knows of WASI or of a WebAssembly engine: calls are `u16` ids, arguments `u64`.

#[cfg(target_endian = "big")]
compile_error!("rings and records are memory images in little-endian byte order");

mod block;
mod bulk;
mod bytes;
mod codec;
mod config;
mod dir;
mod error;
mod fault;
mod log;
mod record;
mod recovery;
mod ring;
mod segment;
mod source;
mod stats;
mod storage;
mod verify;
mod writer;

pub use block::{BLOCK_HEADER_LEN, BlockDecoder, BlockEncoder, BlockInfo, decode_block};
pub use config::{Compression, LogConfig, OnFull, Output};
pub use error::{AppendError, LogError, Reason};
pub use log::{BlockFilter, Blocks, Gap, LogReader};
pub use record::{
    ARGS_MAX, CALL_END, CALL_START, CONTROL_BASE, DIGEST_LEN, DIGEST_OVER, Head, KEEP_ALL, RECORD_BYTES_MAX,
    REGIONS_MAX, RecordView, Regions, digest_sent,
};
pub use recovery::{RecoveryReport, recover};
pub use ring::{Ring, RingIdentity, RingImage, RingReader, RingWriter};
pub use segment::{
    INDEX_ENTRY_LEN, IndexEntry, SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentInfo, SegmentReader, SegmentStart,
    SegmentWriter,
};
pub use source::{FetchError, LogSource, SegmentStore, StoredSegment};
pub use stats::{LogBacklog, LogStats};
pub use storage::{DIRECT_ALIGN, DirStorage, DirectFile, SegmentFile, Storage};
pub use verify::{Verified, verify};
pub use writer::{LogSummary, LogWriterHandle, start, start_with_storage};

/// Version of the segment and block formats this crate writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 2;
