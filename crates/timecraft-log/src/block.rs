//! Blocks: a header with all that is needed to find and check records, then the records, compressed.
//!
//! A block decodes alone: nothing in it refers to another one.

use crate::FORMAT_VERSION;
use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::codec::{RecordDecoder, RecordEncoder, verbatim};
use crate::config::Compression;
use crate::error::Reason;
use crate::record::{CALL_END, CALL_START, RECORD_BYTES_MAX, RecordView};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::ops::RangeInclusive;

/// Length of a block's header, in bytes.
pub const BLOCK_HEADER_LEN: usize = 80;

pub(crate) const BLOCK_MAGIC: &[u8; 4] = b"TCB1";
const CODEC_RAW: u8 = 0;
const CODEC_LZ4: u8 = 1;
/// The block holds a `CALL_START` record.
pub(crate) const FLAG_START: u8 = 1;
/// The block holds a `CALL_END` record.
pub(crate) const FLAG_END: u8 = 2;

/// Uncompressed length of a block, at most: the largest record, or the largest `block_bytes_max`
/// and a record just below it, each with room for codes longer than what they stand for.
const RAW_LEN_MAX: usize = RECORD_BYTES_MAX + (64 << 10);
/// Lengths that a block with its header can have, in bytes.
pub(crate) const BLOCK_LENS: RangeInclusive<usize> = BLOCK_HEADER_LEN..=BLOCK_HEADER_LEN + RAW_LEN_MAX;
pub(crate) const BLOCK_BYTES_MIN: usize = 1 << 10;
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Bodies below this are compressed without taking a sample first.
const SAMPLE_OVER: usize = 32 << 10;
const SAMPLE_LEN: usize = 4 << 10;

/// The header of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockInfo {
    /// Number of the segment that holds the block. Not stored; set by readers.
    pub segment: u32,
    /// Offset of the header in the segment's file, in bytes. Not stored; set by readers.
    pub offset: u64,
    /// 0: raw, 1: LZ4 block.
    pub codec: u8,
    /// Bit 0: holds a start record; bit 1: holds an end record.
    pub flags: u8,
    /// Bytes behind the header.
    pub stored_len: u32,
    /// The same, uncompressed.
    pub raw_len: u32,
    /// Sequence number of the first record.
    pub base_seq: u64,
    /// Number of records, at least 1.
    pub record_count: u32,
    /// Length of the previous block in the segment, with its header; 0 for the first.
    pub prev_block_len: u32,
    /// Time of the first record.
    pub first_time_ns: u64,
    /// Time of the last record.
    pub last_time_ns: u64,
    /// Bit `call % 64` is set for each record's call.
    pub call_filter: u64,
    /// Bit `args[0] % 64` is set for each record that has arguments.
    pub fd_filter: u64,
    /// Rolling hash over the contents of all records of the log up to the last one of the block.
    pub chain: u64,
    /// CRC-32C of the bytes behind the header.
    pub stored_crc: u32,
}

impl BlockInfo {
    /// Sequence number of the last record.
    pub fn last_seq(&self) -> u64 {
        self.base_seq + u64::from(self.record_count) - 1
    }

    /// Length of the block with its header, in bytes.
    pub fn len_with_header(&self) -> u64 {
        BLOCK_HEADER_LEN as u64 + u64::from(self.stored_len)
    }

    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER_LEN] {
        let mut out = [0; BLOCK_HEADER_LEN];
        put(&mut out, 0, BLOCK_MAGIC);
        put(&mut out, 4, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 6, &[self.codec, self.flags]);
        put(&mut out, 8, &self.stored_len.to_le_bytes());
        put(&mut out, 12, &self.raw_len.to_le_bytes());
        put(&mut out, 16, &self.base_seq.to_le_bytes());
        put(&mut out, 24, &self.record_count.to_le_bytes());
        put(&mut out, 28, &self.prev_block_len.to_le_bytes());
        put(&mut out, 32, &self.first_time_ns.to_le_bytes());
        put(&mut out, 40, &self.last_time_ns.to_le_bytes());
        put(&mut out, 48, &self.call_filter.to_le_bytes());
        put(&mut out, 56, &self.fd_filter.to_le_bytes());
        put(&mut out, 64, &self.chain.to_le_bytes());
        put(&mut out, 72, &self.stored_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..76]);
        put(&mut out, 76, &crc.to_le_bytes());
        out
    }

    /// Reads and checks the header at the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reason> {
        let Some(bytes) = bytes.get(..BLOCK_HEADER_LEN) else { return Err(Reason::Truncated) };
        if &bytes[..4] != BLOCK_MAGIC {
            return Err(Reason::BadMagic);
        }
        if crc32c::crc32c(&bytes[..76]) != u32_at(bytes, 76) {
            return Err(Reason::CorruptCrc);
        }
        let info = Self {
            segment: 0,
            offset: 0,
            codec: bytes[6],
            flags: bytes[7],
            stored_len: u32_at(bytes, 8),
            raw_len: u32_at(bytes, 12),
            base_seq: u64_at(bytes, 16),
            record_count: u32_at(bytes, 24),
            prev_block_len: u32_at(bytes, 28),
            first_time_ns: u64_at(bytes, 32),
            last_time_ns: u64_at(bytes, 40),
            call_filter: u64_at(bytes, 48),
            fd_filter: u64_at(bytes, 56),
            chain: u64_at(bytes, 64),
            stored_crc: u32_at(bytes, 72),
        };
        let lengths_agree = match info.codec {
            CODEC_RAW => info.stored_len == info.raw_len,
            CODEC_LZ4 => info.stored_len < info.raw_len,
            _ => return Err(Reason::Malformed("codec")),
        };
        if !(1..=FORMAT_VERSION).contains(&u16_at(bytes, 4)) {
            Err(Reason::Malformed("version of a block"))
        } else if !lengths_agree || info.raw_len as usize > RAW_LEN_MAX {
            Err(Reason::Malformed("length of a block"))
        } else if info.record_count == 0
            || info.record_count > info.raw_len
            || info.base_seq.checked_add(u64::from(info.record_count)).is_none()
        {
            Err(Reason::Malformed("records of a block"))
        } else {
            Ok(info)
        }
    }
}

/// Folds the content of one more record into the rolling hash of a log.
pub(crate) fn extend_chain(chain: u64, content_hash: u32) -> u64 {
    (chain.rotate_left(5) ^ u64::from(content_hash)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A block that is ready to be written: its header, and the parts of its stored bytes in order.
#[derive(Debug)]
pub(crate) struct EncodedBlock<'a> {
    pub info: BlockInfo,
    pub parts: Vec<&'a [u8]>,
}

/// Turns records into blocks.
#[derive(Debug)]
pub struct BlockEncoder {
    compression: Compression,
    bytes_max: usize,
    records: RecordEncoder,
    /// Encoded records of the block in progress.
    body: Vec<u8>,
    info: BlockInfo,
    next_seq: u64,
    chain: u64,
    compressor: Compressor,
}

impl BlockEncoder {
    /// An encoder whose first record has number `next_seq`, after records with the hash `chain`.
    pub fn new(compression: Compression, bytes_max: usize, next_seq: u64, chain: u64) -> Self {
        Self {
            compression,
            bytes_max,
            records: RecordEncoder::default(),
            body: Vec::with_capacity(2 * bytes_max),
            info: BlockInfo::default(),
            next_seq,
            chain,
            compressor: Compressor::default(),
        }
    }

    /// Whether no record is waiting in the block in progress.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Whether the block in progress has reached its size.
    pub fn is_full(&self) -> bool {
        self.body.len() >= self.bytes_max
    }

    /// Sequence number of the next record to be added.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether the block in progress should be finished before `record` is added.
    pub fn is_full_for(&self, record: &RecordView<'_>) -> bool {
        !self.is_empty() && self.body.len() + record.payload.len() > self.bytes_max
    }

    /// Whether `record` should become a block of its own.
    pub fn is_oversize(&self, record: &RecordView<'_>) -> bool {
        record.payload.len() >= self.bytes_max
    }

    /// Adds `record` to the block in progress. Its number must be the next one.
    #[inline]
    pub fn push(&mut self, record: &RecordView<'_>) {
        self.note(record);
        let numbers = self.records.encode(record, &mut self.body);
        verbatim(record, numbers, |part| self.body.extend_from_slice(part));
    }

    /// The finished block as header and stored bytes; `None` if there are no records.
    pub fn finish(&mut self) -> Option<(BlockInfo, Vec<u8>)> {
        let block = self.finish_parts()?;
        Some((block.info, block.parts.concat()))
    }

    /// Finishes the block in progress; the next record begins another one.
    pub(crate) fn finish_parts(&mut self) -> Option<EncodedBlock<'_>> {
        if self.body.is_empty() {
            return None;
        }
        let raw_len = self.body.len();
        let compressed_len = match self.compression {
            Compression::Lz4 => self.compressor.compress(&self.body),
            Compression::None => None,
        };
        if compressed_len.is_none() {
            std::mem::swap(&mut self.body, &mut self.compressor.output);
        }
        self.body.clear();
        let codec = if compressed_len.is_some() { CODEC_LZ4 } else { CODEC_RAW };
        let stored = &self.compressor.output[..compressed_len.unwrap_or(raw_len)];
        Some(seal(self.info, codec, raw_len, vec![stored]))
    }

    /// Makes a block of `record` alone, with the bytes left where they are if they would not
    /// compress. There must be no block in progress.
    pub(crate) fn encode_alone<'a>(&'a mut self, record: &RecordView<'a>) -> EncodedBlock<'a> {
        assert!(self.body.is_empty());
        self.note(record);
        let numbers = self.records.encode(record, &mut self.body);
        let compressible = self.compression == Compression::Lz4 && self.compressor.sample(record.payload);
        if compressible {
            verbatim(record, numbers, |part| self.body.extend_from_slice(part));
            return self.finish_parts().expect("one record");
        }
        let head_len = self.body.len();
        std::mem::swap(&mut self.body, &mut self.compressor.output);
        self.body.clear();
        let mut parts = vec![&self.compressor.output[..head_len]];
        verbatim(record, numbers, |part| parts.push(part));
        let raw_len = parts.iter().map(|part| part.len()).sum();
        seal(self.info, CODEC_RAW, raw_len, parts)
    }

    /// Takes `record` into the header of its block.
    #[inline]
    fn note(&mut self, record: &RecordView<'_>) {
        assert_eq!(record.seq, self.next_seq, "records of a log are numbered without gaps");
        if self.body.is_empty() {
            self.records.begin(record.head.time_ns);
            self.info = BlockInfo { base_seq: record.seq, first_time_ns: record.head.time_ns, ..BlockInfo::default() };
        }
        self.next_seq += 1;
        self.chain = extend_chain(self.chain, record.content_hash());
        let info = &mut self.info;
        info.record_count += 1;
        info.last_time_ns = record.head.time_ns;
        info.chain = self.chain;
        info.call_filter |= 1 << (record.head.call % 64);
        if let Some(first) = record.args.first() {
            info.fd_filter |= 1 << (first % 64);
        }
        match record.head.call {
            CALL_START => info.flags |= FLAG_START,
            CALL_END => info.flags |= FLAG_END,
            _ => {}
        }
    }
}

fn seal(info: BlockInfo, codec: u8, raw_len: usize, parts: Vec<&[u8]>) -> EncodedBlock<'_> {
    let stored_len: usize = parts.iter().map(|part| part.len()).sum();
    let stored_crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let (stored_len, raw_len) = (stored_len as u32, raw_len as u32);
    EncodedBlock { info: BlockInfo { codec, stored_len, raw_len, stored_crc, ..info }, parts }
}

#[derive(Default)]
struct Compressor {
    table: CompressTable,
    output: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Compresses to `output`; returns the length, or `None` unless it is at least 5 % shorter.
    fn compress(&mut self, input: &[u8]) -> Option<usize> {
        if input.len() > SAMPLE_OVER && !self.sample(input) {
            return None;
        }
        let len = self.run(input);
        (len <= input.len() - input.len() / 20 && len < input.len()).then_some(len)
    }

    /// Whether a piece from the middle compresses: bulk data should cost a copy and no more.
    fn sample(&mut self, input: &[u8]) -> bool {
        let at = input.len().saturating_sub(SAMPLE_LEN) / 2;
        let piece = &input[at..input.len().min(at + SAMPLE_LEN)];
        self.run(piece) <= piece.len() - piece.len() / 20
    }

    fn run(&mut self, input: &[u8]) -> usize {
        let room = get_maximum_output_size(input.len());
        if self.output.len() < room {
            self.output.resize(room, 0);
        }
        compress_into_with_table(input, &mut self.output, &mut self.table).expect("room enough")
    }
}

/// Reads the records of one block after the other; keeps its buffers between blocks.
#[derive(Debug, Default)]
pub struct BlockDecoder {
    records: RecordDecoder,
    raw: Vec<u8>,
    raw_len: usize,
    pos: usize,
    next_seq: u64,
    left: u32,
}

impl BlockDecoder {
    /// Checks and decompresses the `stored` bytes of the block with header `info`.
    pub fn begin(&mut self, info: &BlockInfo, stored: &[u8]) -> Result<(), Reason> {
        self.left = 0;
        if stored.len() != info.stored_len as usize {
            return Err(Reason::Truncated);
        }
        if crc32c::crc32c(stored) != info.stored_crc {
            return Err(Reason::CorruptCrc);
        }
        self.raw_len = info.raw_len as usize;
        if self.raw.len() < self.raw_len {
            self.raw.resize(self.raw_len, 0);
        }
        let raw = &mut self.raw[..self.raw_len];
        if info.codec == CODEC_LZ4 {
            let len = decompress_into(stored, raw).map_err(|_| Reason::Malformed("lz4"))?;
            if len != self.raw_len {
                return Err(Reason::Malformed("uncompressed length"));
            }
        } else {
            raw.copy_from_slice(stored);
        }
        self.records.begin(info.first_time_ns);
        self.pos = 0;
        self.next_seq = info.base_seq;
        self.left = info.record_count;
        Ok(())
    }

    /// Sequence number of the next record, if the block has one.
    pub fn next_seq(&self) -> Option<u64> {
        (self.left > 0).then_some(self.next_seq)
    }

    /// Forgets the rest of the block.
    pub fn clear(&mut self) {
        self.left = 0;
    }

    /// The next record of the block; `None` behind the last.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    #[inline]
    pub fn next(&mut self) -> Result<Option<RecordView<'_>>, Reason> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let raw = &self.raw[..self.raw_len];
        let Some((record, pos)) = self.records.decode(raw, self.pos, self.next_seq) else {
            self.left = 0;
            return Err(Reason::Malformed("record"));
        };
        if self.left == 0 && pos != self.raw_len {
            return Err(Reason::Malformed("bytes behind the last record"));
        }
        self.pos = pos;
        self.next_seq += 1;
        Ok(Some(record))
    }
}

/// Decodes the block at the front of `bytes`, which may hold anything, and passes each record to
/// `visit`. Returns the block's header.
pub fn decode_block(bytes: &[u8], mut visit: impl FnMut(&RecordView<'_>)) -> Result<BlockInfo, Reason> {
    let info = BlockInfo::parse(bytes)?;
    let end = BLOCK_HEADER_LEN + info.stored_len as usize;
    let stored = bytes.get(BLOCK_HEADER_LEN..end).ok_or(Reason::Truncated)?;
    let mut decoder = BlockDecoder::default();
    decoder.begin(&info, stored)?;
    while let Some(record) = decoder.next()? {
        visit(&record);
    }
    Ok(info)
}
