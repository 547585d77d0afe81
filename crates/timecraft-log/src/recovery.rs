//! Repair of the log of a process whose host died.

use crate::block::{BLOCK_HEADER_LEN, BlockDecoder, BlockEncoder};
use crate::bulk::Bulk;
use crate::config::{Compression, LogConfig};
use crate::dir::{self, Lock};
use crate::error::{LogError, Reason};
use crate::record::CALL_END;
use crate::ring::{Ring, RingImage};
use crate::segment::{SegmentReader, SegmentWriter, list_segments};
use crate::stats::Shared;
use crate::storage::{DirStorage, Storage};
use crate::writer::{Digester, LogFiles};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a recovery found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records that were only in the ring, and are now in a segment.
    pub records_from_ring: u64,
    /// Not all that was in the ring could be used: it was damaged, or doesn't follow on what the segments hold. The log
    /// is marked then: what comes behind it is missing.
    pub ring_records_unusable: bool,
    /// Bytes cut from the end of the last segment.
    pub bytes_cut: u64,
    /// Last record in the log, if any.
    pub last_seq: Option<u64>,
    /// Whether the last record is the end of the process; if not, it crashed.
    pub ended: bool,
    /// First record that was lost, for want of room or by damage of the ring, if any was.
    pub first_lost_seq: Option<u64>,
}

/// Repairs the log in `dir`: cuts a torn tail at the last good block, stores what a leftover ring
/// holds, and seals the last segment.
///
/// Idempotent: a log in order is left as it is, and a recovery that was killed is done anew by the
/// next. Fails with [`LogError::Busy`] while the log has a writer.
pub fn recover(dir: &Path) -> Result<RecoveryReport, LogError> {
    if !dir.is_dir() {
        return Err(LogError::NoLog(dir.to_owned()));
    }
    let _lock = Lock::take(dir)?;
    recover_locked(dir, &mut DirStorage).map(|past| past.report)
}

/// What a writer needs to know to continue a log.
#[derive(Debug)]
pub(crate) struct Past {
    pub report: RecoveryReport,
    pub process: Option<[u8; 16]>,
    pub next_seq: u64,
    pub next_number: u32,
    pub chain: u64,
}

pub(crate) fn recover_locked(dir: &Path, storage: &mut dyn Storage) -> Result<Past, LogError> {
    let mut past = Past {
        report: RecoveryReport {
            records_from_ring: 0,
            ring_records_unusable: false,
            bytes_cut: 0,
            last_seq: None,
            ended: false,
            first_lost_seq: None,
        },
        process: None,
        next_seq: 0,
        next_number: 0,
        chain: 0,
    };
    let open = check_segments(dir, &mut past)?;
    let ring_path = dir::read_ring_pointer(dir)?;
    let image = ring_path.as_deref().map_or(Ok(None), |path| open_ring(dir, path, &mut past.report))?;
    if let Some(image) = &image {
        let process = past.process.get_or_insert(image.identity().process);
        if *process != image.identity().process {
            return Err(LogError::OtherProcess(dir.to_owned()));
        }
    }
    complete(dir, storage, &mut past, open, image.as_ref())?;
    past.report.last_seq = past.next_seq.checked_sub(1);
    if past.report.ring_records_unusable {
        dir::prepare_lost_mark(dir)?;
        dir::mark_lost(dir, past.next_seq)?;
    }
    if let Some(path) = &ring_path {
        dir::remove_ring(dir, path)?;
    }
    // Last: that it can't be told is no reason to leave records in the ring.
    past.report.first_lost_seq = dir::read_lost_mark(dir)?;
    past.report.ended = ends_with_end(dir)?;
    Ok(past)
}

/// The ring at `path`, if there are records in it to be used.
fn open_ring(dir: &Path, path: &Path, report: &mut RecoveryReport) -> Result<Option<RingImage>, LogError> {
    match Ring::open(path) {
        // What a full disk cost stays lost: the guest ran on, and later records are missing. It was marked before.
        Ok(Some(image)) if image.was_discarding() && !matches!(dir::read_lost_mark(dir), Ok(None)) => Ok(None),
        Ok(image) => {
            report.ring_records_unusable = image.as_ref().is_some_and(RingImage::is_damaged);
            Ok(image)
        }
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(LogError::Corrupt { .. }) => {
            report.ring_records_unusable = true;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Walks the segments; returns the last one if it has to be completed.
fn check_segments(dir: &Path, past: &mut Past) -> Result<Option<SegmentReader>, LogError> {
    let segments = list_segments(dir)?;
    let last_number = segments.last().map(|(number, _)| *number);
    let mut open = None;
    let mut begun = false;
    for (number, path) in segments {
        let is_last = Some(number) == last_number;
        let mut reader = match SegmentReader::open_numbered(&path, number) {
            Err(LogError::Corrupt { offset, reason: Reason::Truncated, .. }) if is_last => {
                // Killed between the creation of the file and its header.
                dir::remove_if_there(&path)?;
                past.report.bytes_cut += offset;
                continue;
            }
            // The same, by a power cut.
            Err(LogError::Corrupt { reason: Reason::BadMagic, .. }) if is_last && is_blank(&path)? => {
                dir::remove_if_there(&path)?;
                continue;
            }
            other => other?,
        };
        past.process.get_or_insert(reader.info().start.process);
        if begun && reader.info().start.base_seq != past.next_seq {
            let reason = Reason::Malformed("records are missing before this segment");
            return Err(LogError::corrupt(&path, 0, past.next_seq.checked_sub(1), reason));
        }
        begun = true;
        if reader.info().sealed || !is_last {
            if let Some(damage) = reader.damage() {
                return Err(damage);
            }
            note_segment(past, &reader)?;
            continue;
        }
        drop_bad_blocks(&mut reader)?;
        note_segment(past, &reader)?;
        if reader.entries().is_empty() {
            past.report.bytes_cut += reader.info().len;
            past.next_number = number;
            dir::remove_if_there(&path)?;
        } else {
            past.report.bytes_cut += reader.info().len - reader.blocks_end();
            open = Some(reader);
        }
    }
    Ok(open)
}

/// Whether the file at `path` holds nothing but zeros, as one does whose first bytes never reached the medium.
fn is_blank(path: &Path) -> Result<bool, LogError> {
    let bytes = std::fs::read(path).map_err(LogError::io(path, "read"))?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

fn note_segment(past: &mut Past, reader: &SegmentReader) -> Result<(), LogError> {
    let info = reader.info();
    past.next_seq = info.next_seq;
    past.next_number = info.start.number.saturating_add(1);
    past.chain = match reader.entries().last() {
        Some(last) => reader.block_info(last)?.chain,
        None => info.start.chain,
    };
    Ok(())
}

/// Forgets all from the first bad block on.
fn drop_bad_blocks(reader: &mut SegmentReader) -> Result<(), LogError> {
    let mut buffer = Vec::new();
    let mut good = 0;
    for entry in reader.entries() {
        let block = reader.read_block(entry, &mut buffer)?;
        if crc32c::crc32c(&buffer[BLOCK_HEADER_LEN..]) != block.stored_crc {
            break;
        }
        good += 1;
    }
    reader.cut(good)
}

/// Stores the records that only the ring has, and seals.
fn complete(
    dir: &Path,
    storage: &mut dyn Storage,
    past: &mut Past,
    open: Option<SegmentReader>,
    image: Option<&RingImage>,
) -> Result<(), LogError> {
    let missing = |past: &Past| {
        let next_seq = past.next_seq;
        image.into_iter().flat_map(RingImage::records).filter(move |r| r.seq() >= next_seq)
    };
    let segment = match open {
        Some(reader) => {
            let info = reader.info();
            let blocks = reader.blocks.clone();
            Some(SegmentWriter::resume(storage, &info.path, info.start, blocks)?)
        }
        None => None,
    };
    let identity = image.map(RingImage::identity);
    let mut files = LogFiles {
        dir: dir.to_owned(),
        process: past.process.unwrap_or_default(),
        epoch: identity.map_or(0, |identity| identity.epoch),
        segment_bytes_max: u64::MAX,
        bytes_left: u64::MAX,
        bytes_max: u64::MAX,
        next_number: past.next_number,
        chain: past.chain,
        segment,
        bulk: Bulk::none(),
        shared: Arc::new(Shared::new(past.next_seq, Arc::default())),
        named: false,
    };
    let mut digester = Digester::new(identity.is_some_and(|identity| identity.digest));
    let bytes_max = LogConfig::new(dir, files.process).block_bytes_max;
    let mut encoder = BlockEncoder::new(Compression::Lz4, bytes_max, past.next_seq, past.chain);
    for record in missing(past) {
        if record.seq() != encoder.next_seq() {
            past.report.ring_records_unusable = true;
            break;
        }
        let record = digester.apply(record);
        if encoder.is_full_for(&record) {
            store(&mut encoder, &mut files, storage)?;
        }
        encoder.push(&record);
    }
    store(&mut encoder, &mut files, storage)?;
    past.report.records_from_ring = encoder.next_seq() - past.next_seq;
    past.next_seq = encoder.next_seq();
    files.seal()?;
    past.next_number = files.next_number;
    past.chain = files.chain;
    Ok(())
}

fn store(encoder: &mut BlockEncoder, files: &mut LogFiles, storage: &mut dyn Storage) -> Result<(), LogError> {
    encoder.finish_parts().map_or(Ok(()), |block| files.store(storage, &block, false))
}

/// Whether the last record of the log in `dir` is the end of the process.
fn ends_with_end(dir: &Path) -> Result<bool, LogError> {
    let Some((_, path)) = list_segments(dir)?.pop() else { return Ok(false) };
    let reader = SegmentReader::open(&path)?;
    let Some(entry) = reader.entries().last() else { return Ok(false) };
    let mut buffer = Vec::new();
    let block = reader.read_block(entry, &mut buffer)?;
    let corrupt = |reason| reader.corrupt(entry.offset, entry.base_seq, reason);
    let mut decoder = BlockDecoder::default();
    decoder.begin(&block, &buffer[BLOCK_HEADER_LEN..]).map_err(corrupt)?;
    let mut ended = false;
    while let Some(record) = decoder.next().map_err(corrupt)? {
        ended = record.call() == CALL_END;
    }
    Ok(ended)
}
