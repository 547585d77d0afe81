//! Segments: files of blocks, with an index and a footer once they are sealed.

use crate::FORMAT_VERSION;
use crate::block::{BLOCK_HEADER_LEN, BLOCK_LENS, BlockInfo, EncodedBlock, FLAG_END};
use crate::bulk::Bulk;
use crate::bytes::{put, u16_at, u32_at, u64_at};
use crate::error::{LogError, Reason};
use crate::source::{Bytes, SegmentStore, Stored};
use crate::storage::{DIRECT_ALIGN, SegmentFile, Storage, write_all, write_all_at};
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Length of a segment's header, in bytes.
pub const SEGMENT_HEADER_LEN: usize = 64;
/// Length of a segment's footer, in bytes.
pub const SEGMENT_FOOTER_LEN: usize = 64;
/// Length of an entry of the index, in bytes.
pub const INDEX_ENTRY_LEN: usize = 32;

const HEADER_MAGIC: &[u8; 4] = b"TCL1";
const INDEX_MAGIC: &[u8; 4] = b"TCLI";
const FOOTER_MAGIC: &[u8; 4] = b"TCLF";
type Footer = [u8; SEGMENT_FOOTER_LEN];
/// Magic and number of entries.
const INDEX_HEADER_LEN: usize = 8;
const EXTENSION: &str = "tcl";

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStart {
    /// Identity of the process.
    pub process: [u8; 16],
    /// Number of the segment within its log, from 0.
    pub number: u32,
    /// Epoch in which the segment was begun.
    pub epoch: u32,
    /// Sequence number of the first record.
    pub base_seq: u64,
    /// Time of the first record.
    pub base_time_ns: u64,
    /// Rolling hash over all records before.
    pub chain: u64,
}

impl SegmentStart {
    fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        put(&mut out, 0, HEADER_MAGIC);
        put(&mut out, 4, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 6, &(SEGMENT_HEADER_LEN as u16).to_le_bytes());
        put(&mut out, 8, &self.process);
        put(&mut out, 24, &self.number.to_le_bytes());
        put(&mut out, 28, &self.epoch.to_le_bytes());
        put(&mut out, 32, &self.base_seq.to_le_bytes());
        put(&mut out, 40, &self.base_time_ns.to_le_bytes());
        put(&mut out, 48, &self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        put(&mut out, 60, &crc.to_le_bytes());
        out
    }

    fn parse(path: &Path, bytes: &[u8; SEGMENT_HEADER_LEN]) -> Result<Self, LogError> {
        if &bytes[..4] != HEADER_MAGIC {
            return Err(LogError::corrupt(path, 0, None, Reason::BadMagic));
        }
        let found = u16_at(bytes, 4);
        if found > FORMAT_VERSION {
            let (path, supported) = (path.to_owned(), FORMAT_VERSION);
            return Err(LogError::VersionNewer { path, found, supported });
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(LogError::corrupt(path, 0, None, Reason::CorruptCrc));
        }
        if usize::from(u16_at(bytes, 6)) != SEGMENT_HEADER_LEN {
            return Err(LogError::corrupt(path, 6, None, Reason::Malformed("header length")));
        }
        Ok(Self {
            process: bytes[8..24].try_into().expect("16 bytes"),
            number: u32_at(bytes, 24),
            epoch: u32_at(bytes, 28),
            base_seq: u64_at(bytes, 32),
            base_time_ns: u64_at(bytes, 40),
            chain: u64_at(bytes, 48),
        })
    }
}

/// Where a block lies, and what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of the block's header in the file, in bytes.
    pub offset: u64,
    /// Sequence number of the first record.
    pub base_seq: u64,
    /// Time of the first record.
    pub first_time_ns: u64,
    /// Length of the block with its header, in bytes.
    pub len: u32,
    /// Flags of the block.
    pub flags: u32,
}

impl IndexEntry {
    fn of(block: &BlockInfo, offset: u64) -> Self {
        Self {
            offset,
            base_seq: block.base_seq,
            first_time_ns: block.first_time_ns,
            len: block.len_with_header() as u32,
            flags: u32::from(block.flags),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.base_seq.to_le_bytes());
        out.extend_from_slice(&self.first_time_ns.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
    }

    fn parse(bytes: &[u8]) -> Self {
        Self {
            offset: u64_at(bytes, 0),
            base_seq: u64_at(bytes, 8),
            first_time_ns: u64_at(bytes, 16),
            len: u32_at(bytes, 24),
            flags: u32_at(bytes, 28),
        }
    }
}

/// The blocks of a segment, as its writer and its scanner come to know them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockList {
    pub entries: Vec<IndexEntry>,
    /// Header of the last block.
    pub last: Option<BlockInfo>,
}

impl BlockList {
    fn push(&mut self, block: BlockInfo, offset: u64) {
        self.entries.push(IndexEntry::of(&block, offset));
        self.last = Some(block);
    }

    /// Offset behind the last block.
    fn end(&self) -> u64 {
        self.entries.last().map_or(SEGMENT_HEADER_LEN as u64, |last| last.offset + u64::from(last.len))
    }
}

/// Whether these can be the blocks of a segment with records `seqs`: one behind the other, from the segment's header to
/// `end`. Checksums keep accidents out; this keeps a made-up index from deciding how much a reader allocates.
fn are_in_a_row(entries: &[IndexEntry], end: u64, seqs: Range<u64>) -> bool {
    let (mut offset, mut seq_min) = (SEGMENT_HEADER_LEN as u64, seqs.start);
    let is_next = |entry: &IndexEntry| {
        let fits = entry.offset == offset && BLOCK_LENS.contains(&(entry.len as usize));
        let numbered = entry.base_seq >= seq_min && entry.base_seq < seqs.end;
        offset += u64::from(entry.len);
        seq_min = entry.base_seq.saturating_add(1);
        fits && numbered
    };
    entries.iter().all(is_next) && offset == end && entries.first().is_none_or(|first| first.base_seq == seqs.start)
}

/// File name of the segment with this number.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:06}.{EXTENSION}")
}

/// The segments in `dir` by number.
pub(crate) fn list_segments(dir: &Path) -> Result<Vec<(u32, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LogError::io(dir, "list"))? {
        let path = entry.map_err(LogError::io(dir, "list"))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_segment = path.extension().is_some_and(|extension| extension == EXTENSION);
        if let (true, Ok(number)) = (is_segment, stem.parse()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A segment that is being written.
pub struct SegmentWriter {
    path: PathBuf,
    file: Box<dyn SegmentFile>,
    start: SegmentStart,
    pub(crate) begun: Instant,
    /// The blocks that are in the file.
    blocks: BlockList,
    /// Blocks behind them that are gathered for a bulk write, and their offsets.
    gathered: VecDeque<(BlockInfo, u64)>,
    /// Offset behind the last block, gathered or not, and the length of that block.
    end: u64,
    last_len: u32,
    /// What was written and not yet asked for.
    news: Written,
    unsynced: bool,
    /// The file is on the medium up to here, in bytes.
    synced_end: u64,
    /// A sync failed: what lies behind `synced_end` may be on the medium or not, whatever a later sync says.
    doubtful: bool,
}

/// What reached a segment's file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub records: u64,
    pub blocks: u64,
    pub bytes: u64,
    /// Sequence number behind the last record, if there are any.
    pub next_seq: u64,
}

/// Room that is allocated ahead of bulk writes, at most, in bytes.
const ROOM_MAX: u64 = 64 << 20;
/// Length of the block that may begin a bulk write, at least: it reaches over the next aligned offset.
const BULK_BLOCK_MIN: u64 = 16 << 10;

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SegmentWriter {
    /// Creates the segment's file in `dir`, and makes its header and name durable.
    pub fn create(storage: &mut dyn Storage, dir: &Path, start: SegmentStart) -> Result<Self, LogError> {
        let path = dir.join(segment_name(start.number));
        let mut file = storage.create(&path).map_err(LogError::io(&path, "create"))?;
        write_all(file.as_mut(), &[&start.encode()])
            .and_then(|()| file.sync_data())
            .and_then(|()| storage.sync_dir(dir))
            .map_err(|error| {
                // Without a header it is no segment; if even this fails, a repair or a recovery removes it.
                let _ = storage.remove(&path);
                LogError::io(&path, "write header of")(error)
            })?;
        Ok(Self { synced_end: SEGMENT_HEADER_LEN as u64, ..Self::new(path, file, start, BlockList::default()) })
    }

    /// Continues an unsealed segment behind `blocks`; what lies behind them is cut off.
    pub(crate) fn resume(
        storage: &mut dyn Storage,
        path: &Path,
        start: SegmentStart,
        blocks: BlockList,
    ) -> Result<Self, LogError> {
        let end = blocks.end();
        let mut file = storage.open(path, end).map_err(LogError::io(path, "open"))?;
        file.truncate(end).map_err(LogError::io(path, "truncate"))?;
        Ok(Self { unsynced: true, ..Self::new(path.to_owned(), file, start, blocks) })
    }

    fn new(path: PathBuf, file: Box<dyn SegmentFile>, start: SegmentStart, blocks: BlockList) -> Self {
        let end = blocks.end();
        let last_len = blocks.entries.last().map_or(0, |last| last.len);
        let (gathered, news) = (VecDeque::new(), Written::default());
        let (unsynced, synced_end, doubtful) = (false, 0, false);
        let begun = Instant::now();
        Self { path, file, start, begun, blocks, gathered, end, last_len, news, unsynced, synced_end, doubtful }
    }

    /// Appends a block. If that fails, the segment is as it was before, if at all possible.
    ///
    /// With `bulk_room`, a bulk write of about that many bytes may begin. While there is one, blocks are gathered, and
    /// are in the file once [`take_news`](Self::take_news) tells of them.
    pub(crate) fn append(
        &mut self,
        block: &EncodedBlock<'_>,
        bulk: &mut Bulk,
        bulk_room: Option<u64>,
    ) -> Result<(), LogError> {
        let offset = self.end;
        let mut info = block.info;
        info.prev_block_len = self.last_len;
        let header = info.encode();
        let mut parts = Vec::with_capacity(block.parts.len() + 1);
        parts.push(header.as_slice());
        parts.extend_from_slice(&block.parts);
        if let Some(room) = bulk_room.filter(|_| !bulk.is_active() && info.len_with_header() >= BULK_BLOCK_MIN) {
            self.begin_bulk(bulk, room, &mut parts)?;
        }
        if !bulk.is_active() {
            self.write(&parts)?;
        }
        for part in parts {
            bulk.push(part);
        }
        self.gathered.push_back((info, offset));
        self.end = offset + info.len_with_header();
        self.last_len = info.len_with_header() as u32;
        self.poll_bulk(bulk)
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), LogError> {
        write_all(self.file.as_mut(), parts).map_err(|error| {
            // A torn block that stays is cut off by recovery.
            let _ = self.file.truncate(self.end);
            LogError::io(&self.path, "write")(error)
        })
    }

    /// Begins a bulk write if the file allows it: writes the front of `parts`, up to an aligned offset, and leaves the
    /// others there.
    fn begin_bulk(&mut self, bulk: &mut Bulk, room: u64, parts: &mut [&[u8]]) -> Result<(), LogError> {
        let aligned = self.end.next_multiple_of(DIRECT_ALIGN as u64);
        let Some(direct) = self.file.direct(aligned, room.min(ROOM_MAX)) else { return Ok(()) };
        let mut gap = (aligned - self.end) as usize;
        let mut fronts = Vec::with_capacity(parts.len());
        for part in parts {
            let (front, rest) = part.split_at(gap.min(part.len()));
            gap -= front.len();
            fronts.push(front);
            *part = rest;
        }
        self.write(&fronts)?;
        bulk.begin(direct, aligned);
        Ok(())
    }

    /// Takes note of what the bulk write has completed; ends it if it failed.
    pub(crate) fn poll_bulk(&mut self, bulk: &mut Bulk) -> Result<(), LogError> {
        match bulk.poll() {
            Some((_, true)) => return self.end_bulk(bulk),
            Some((written, false)) => self.settle(written),
            None => self.settle(self.end),
        }
        Ok(())
    }

    /// Ends the bulk write, if there is one: all blocks are in the file. If that fails, the segment ends behind the
    /// last block that is.
    pub(crate) fn end_bulk(&mut self, bulk: &mut Bulk) -> Result<(), LogError> {
        let result = bulk.end(self.file.as_mut());
        self.settle(result.as_ref().map_or_else(|(written, _)| *written, |()| self.end));
        result.map_err(|(_, error)| {
            self.gathered.clear();
            self.end = self.blocks.end();
            self.last_len = self.blocks.entries.last().map_or(0, |last| last.len);
            let _ = self.file.truncate(self.end);
            LogError::io(&self.path, "write")(error)
        })
    }

    /// The file is good up to `written`.
    fn settle(&mut self, written: u64) {
        while let Some((info, offset)) = self.gathered.front().copied() {
            if offset + info.len_with_header() > written {
                break;
            }
            self.gathered.pop_front();
            self.blocks.push(info, offset);
            self.news.records += u64::from(info.record_count);
            self.news.blocks += 1;
            self.news.bytes += info.len_with_header();
            self.news.next_seq = info.last_seq() + 1;
            self.unsynced = true;
        }
    }

    /// What reached the file since the last call.
    pub(crate) fn take_news(&mut self) -> Written {
        std::mem::take(&mut self.news)
    }

    /// Makes all appended blocks durable. Once that has failed, only [`repair`](Self::repair) helps.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.unsynced {
            let written = self.blocks.end();
            self.file.sync_data().map_err(|error| {
                self.doubtful = true;
                LogError::io(&self.path, "sync")(error)
            })?;
            self.unsynced = false;
            self.synced_end = written;
        }
        Ok(())
    }

    /// Writes index and footer, and makes the segment durable. Returns the file's length. No bulk write is under way.
    /// If that fails, the segment is as it was before, or can be repaired.
    pub fn seal(&mut self) -> Result<u64, LogError> {
        debug_assert!(self.gathered.is_empty());
        // The blocks first: after a power cut, a footer stands for all that lies before it.
        self.sync()?;
        let end = self.blocks.end();
        let tail = encode_tail(&self.start, &self.blocks);
        let written = write_all(self.file.as_mut(), &[&tail]).map_err(LogError::io(&self.path, "seal"));
        self.unsynced = true;
        if let Err(error) = written.and_then(|()| self.sync()) {
            let _ = self.file.truncate(end);
            return Err(error);
        }
        Ok(end + tail.len() as u64)
    }

    /// Makes the segment fit to go on after an error: cuts off what is torn, and where a sync has failed, writes anew
    /// what it was to make durable. The kernel may have dropped that after the failure, or keep it in memory as if it
    /// were written: so it is read back, held against its checksums, and made to be written once more.
    ///
    /// # Errors
    /// May be repeated, unless it is [`LogError::Corrupt`]: then what was read back is not what was written.
    pub(crate) fn repair(&mut self) -> Result<(), LogError> {
        debug_assert!(self.gathered.is_empty());
        self.file.truncate(self.end).map_err(LogError::io(&self.path, "truncate"))?;
        if !self.doubtful {
            return Ok(());
        }
        let reader = File::open(&self.path).map_err(LogError::io(&self.path, "open"))?;
        let mut buffer = Vec::new();
        if self.synced_end < SEGMENT_HEADER_LEN as u64 {
            buffer.resize(SEGMENT_HEADER_LEN, 0);
            reader.read_exact_at(&mut buffer, 0).map_err(LogError::io(&self.path, "read back"))?;
            SegmentStart::parse(&self.path, buffer.as_slice().try_into().expect("resized"))?;
            write_all_at(self.file.as_mut(), &buffer, 0).map_err(LogError::io(&self.path, "write anew"))?;
        }
        for entry in self.blocks.entries.iter().filter(|entry| entry.offset >= self.synced_end) {
            buffer.resize(entry.len as usize, 0);
            reader.read_exact_at(&mut buffer, entry.offset).map_err(LogError::io(&self.path, "read back"))?;
            let lost = |reason| LogError::corrupt(&self.path, entry.offset, entry.base_seq.checked_sub(1), reason);
            let block = BlockInfo::parse(&buffer).map_err(lost)?;
            if crc32c::crc32c(&buffer[BLOCK_HEADER_LEN..]) != block.stored_crc {
                return Err(lost(Reason::CorruptCrc));
            }
            write_all_at(self.file.as_mut(), &buffer, entry.offset).map_err(LogError::io(&self.path, "write anew"))?;
        }
        self.doubtful = false;
        self.unsynced = true;
        Ok(())
    }

    /// Rolling hash over all records up to the last one in the file.
    pub(crate) fn chain(&self) -> u64 {
        self.blocks.last.as_ref().map_or(self.start.chain, |last| last.chain)
    }

    /// Length of the file so far, with what is gathered, in bytes.
    pub fn len(&self) -> u64 {
        self.end
    }

    /// Whether there are no blocks yet.
    pub fn is_empty(&self) -> bool {
        self.last_len == 0
    }
}

/// Index and footer.
fn encode_tail(start: &SegmentStart, blocks: &BlockList) -> Vec<u8> {
    let mut tail = Vec::with_capacity(INDEX_HEADER_LEN + blocks.entries.len() * INDEX_ENTRY_LEN + SEGMENT_FOOTER_LEN);
    tail.extend_from_slice(INDEX_MAGIC);
    tail.extend_from_slice(&(blocks.entries.len() as u32).to_le_bytes());
    blocks.entries.iter().for_each(|entry| entry.encode(&mut tail));
    let mut footer = [0; SEGMENT_FOOTER_LEN];
    let flags = blocks.entries.iter().fold(0, |flags, entry| flags | entry.flags) as u16;
    let first = blocks.entries.first();
    let last = blocks.last.as_ref();
    let first_seq = first.map_or(start.base_seq, |first| first.base_seq);
    let next_seq = last.map_or(first_seq, |last| last.last_seq() + 1);
    put(&mut footer, 0, FOOTER_MAGIC);
    put(&mut footer, 4, &FORMAT_VERSION.to_le_bytes());
    put(&mut footer, 6, &flags.to_le_bytes());
    put(&mut footer, 8, &blocks.end().to_le_bytes());
    put(&mut footer, 16, &(tail.len() as u32).to_le_bytes());
    put(&mut footer, 20, &crc32c::crc32c(&tail).to_le_bytes());
    put(&mut footer, 24, &first_seq.to_le_bytes());
    put(&mut footer, 32, &next_seq.to_le_bytes());
    put(&mut footer, 40, &first.map_or(0, |first| first.first_time_ns).to_le_bytes());
    put(&mut footer, 48, &last.map_or(0, |last| last.last_time_ns).to_le_bytes());
    put(&mut footer, 56, &((next_seq - first_seq) as u32).to_le_bytes());
    let crc = crc32c::crc32c(&footer[..60]);
    put(&mut footer, 60, &crc.to_le_bytes());
    tail.extend_from_slice(&footer);
    tail
}

/// What is known of a segment without reading its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file, or what a stored one is called.
    pub path: PathBuf,
    /// What the header says, or, of a stored one, should say.
    pub start: SegmentStart,
    /// Whether index and footer are there and good; for a stored one that is yet to be seen.
    pub sealed: bool,
    /// Whether it is no file, but stored elsewhere.
    pub stored: bool,
    /// Length of the file, in bytes.
    pub len: u64,
    /// Where the index begins, in bytes, if it is sealed.
    pub index_offset: u64,
    /// Sequence number behind the last record.
    pub next_seq: u64,
    /// Time of the last record, or of the segment's start if there is none.
    pub last_time_ns: u64,
    /// Whether an end record is in it.
    pub has_end: bool,
}

impl SegmentInfo {
    /// Number of blocks of a sealed segment, by the length of its index.
    pub fn blocks_sealed(&self) -> u64 {
        self.len.saturating_sub(self.index_offset + (INDEX_HEADER_LEN + SEGMENT_FOOTER_LEN) as u64)
            / INDEX_ENTRY_LEN as u64
    }
}

/// Where a scan for blocks stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanEnd {
    /// At the end of the file, or in a block that is not all there (yet).
    File,
    /// At an index.
    Index,
    /// At something that is no block.
    Damage(Reason),
}

/// Reader of one segment: finds its blocks, by index or by scan.
#[derive(Debug)]
pub struct SegmentReader {
    bytes: Bytes,
    /// Whether the index was looked for: a stored segment's is fetched when it is needed.
    loaded: bool,
    info: SegmentInfo,
    pub(crate) blocks: BlockList,
    damage: Option<Reason>,
}

impl SegmentReader {
    /// Opens the segment at `path`: by its footer, or if there is no good one, by a scan of the
    /// headers of its blocks.
    ///
    /// Blocks behind a damaged header are not found: see [`damage`](Self::damage).
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path).map_err(LogError::io(path, "open"))?;
        let len = file.metadata().map_err(LogError::io(path, "inspect"))?.len();
        if len < SEGMENT_HEADER_LEN as u64 {
            return Err(LogError::corrupt(path, len, None, Reason::Truncated));
        }
        let mut header = [0; SEGMENT_HEADER_LEN];
        file.read_exact_at(&mut header, 0).map_err(LogError::io(path, "read"))?;
        let start = SegmentStart::parse(path, &header)?;
        let info = SegmentInfo {
            path: path.to_owned(),
            start,
            sealed: false,
            stored: false,
            len,
            index_offset: 0,
            next_seq: start.base_seq,
            last_time_ns: start.base_time_ns,
            has_end: false,
        };
        let bytes = Bytes::File(file);
        let mut reader = Self { bytes, loaded: false, info, blocks: BlockList::default(), damage: None };
        reader.load()?;
        Ok(reader)
    }

    /// A reader of a stored segment, which fetches nothing before it has to: see [`load`](Self::load).
    pub(crate) fn stored(info: SegmentInfo, store: &Arc<dyn SegmentStore>) -> Self {
        let bytes = Bytes::Stored(Stored::new(store, info.start.number, info.len));
        Self { bytes, loaded: false, info, blocks: BlockList::default(), damage: None }
    }

    /// Finds the blocks, if that wasn't done yet.
    pub(crate) fn load(&mut self) -> Result<(), LogError> {
        if self.loaded {
            return Ok(());
        }
        let told = self.info.clone();
        self.info.sealed = false;
        if !self.load_index()? {
            self.info.next_seq = self.info.start.base_seq;
            self.scan()?;
        }
        if told.stored && self.damage.is_none() && self.info.next_seq != told.next_seq {
            // Another segment than was told of.
            return Err(self.corrupt(0, told.start.base_seq, Reason::Malformed("records of a stored segment")));
        }
        self.loaded = true;
        Ok(())
    }

    /// Opens segment `number` of a log, which is in the file named after it. Readers go from one to the next by number:
    /// a header that says otherwise would lead them in circles.
    pub(crate) fn open_numbered(path: &Path, number: u32) -> Result<Self, LogError> {
        let reader = Self::open(path)?;
        if reader.info.start.number == number {
            Ok(reader)
        } else {
            Err(LogError::corrupt(path, 24, None, Reason::Malformed("number of a segment")))
        }
    }

    /// What the scan for blocks ended at, if that was neither a block nor the end of the file.
    pub fn damage(&self) -> Option<LogError> {
        self.damage.map(|reason| self.corrupt(self.blocks.end(), self.info.next_seq, reason))
    }

    /// What is known of the segment.
    pub fn info(&self) -> &SegmentInfo {
        &self.info
    }

    /// The segment's blocks, in order.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.blocks.entries
    }

    /// Looks for blocks that were appended since; no effect on a sealed segment.
    pub fn refresh(&mut self) -> Result<(), LogError> {
        if self.info.sealed {
            return Ok(());
        }
        let len = self.bytes.len(&self.info.path)?;
        if len == self.info.len {
            return Ok(());
        }
        self.info.len = len;
        if self.scan()? == ScanEnd::Index {
            self.load_index()?;
        }
        Ok(())
    }

    /// Reads the header of a block alone.
    pub fn block_info(&self, entry: &IndexEntry) -> Result<BlockInfo, LogError> {
        let mut header = [0; BLOCK_HEADER_LEN];
        self.read_at(&mut header, entry.offset)?;
        self.parse_block(&header, entry)
    }

    /// Reads a whole block into `buffer`; returns its header. Its stored bytes then begin at
    /// [`BLOCK_HEADER_LEN`] of the buffer.
    pub fn read_block(&self, entry: &IndexEntry, buffer: &mut Vec<u8>) -> Result<BlockInfo, LogError> {
        let len = entry.len as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        buffer.truncate(len);
        self.read_at(buffer, entry.offset)?;
        self.parse_block(buffer, entry)
    }

    /// An error about the bytes at `offset`, where record `next_seq` would be.
    pub(crate) fn corrupt(&self, offset: u64, next_seq: u64, reason: Reason) -> LogError {
        LogError::corrupt(&self.info.path, offset, next_seq.checked_sub(1), reason)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), LogError> {
        self.bytes.read_at(&self.info.path, buffer, offset)
    }

    fn parse_block(&self, bytes: &[u8], entry: &IndexEntry) -> Result<BlockInfo, LogError> {
        let corrupt = |reason| self.corrupt(entry.offset, entry.base_seq, reason);
        let mut info = BlockInfo::parse(bytes).map_err(corrupt)?;
        info.segment = self.info.start.number;
        info.offset = entry.offset;
        if IndexEntry::of(&info, entry.offset) != *entry {
            return Err(corrupt(Reason::Malformed("index and block differ")));
        }
        Ok(info)
    }

    /// Takes the blocks from index and footer; false if these are not there or not good.
    fn load_index(&mut self) -> Result<bool, LogError> {
        let least = (SEGMENT_HEADER_LEN + INDEX_HEADER_LEN + SEGMENT_FOOTER_LEN) as u64;
        if self.info.sealed || self.info.len < least {
            return Ok(self.info.sealed);
        }
        let Some((index, footer)) = self.read_tail()? else { return Ok(false) };
        if crc32c::crc32c(&index) != u32_at(&footer, 20) {
            return Ok(false);
        }
        let found = u16_at(&footer, 4);
        if found > FORMAT_VERSION {
            return Err(LogError::VersionNewer { path: self.info.path.clone(), found, supported: FORMAT_VERSION });
        }
        let entries: Vec<_> = index[INDEX_HEADER_LEN..].chunks_exact(INDEX_ENTRY_LEN).map(IndexEntry::parse).collect();
        let (index_offset, next_seq) = (u64_at(&footer, 8), u64_at(&footer, 32));
        if !are_in_a_row(&entries, index_offset, self.info.start.base_seq..next_seq) {
            return Ok(false);
        }
        self.blocks.last = None;
        self.blocks.entries = entries;
        self.info.sealed = true;
        self.info.index_offset = index_offset;
        self.info.next_seq = next_seq;
        self.info.last_time_ns = u64_at(&footer, 48);
        self.info.has_end = u16_at(&footer, 6) & u16::from(FLAG_END) != 0;
        Ok(true)
    }

    /// Index and footer, the footer checked; `None` if there is no good one. What is stored is fetched at once.
    fn read_tail(&self) -> Result<Option<(Vec<u8>, Footer)>, LogError> {
        let footer_at = self.info.len - SEGMENT_FOOTER_LEN as u64;
        let tail_len = (SEGMENT_FOOTER_LEN + INDEX_HEADER_LEN) as u64;
        let mut tail = match &self.bytes {
            Bytes::Stored(stored) if self.info.index_offset <= self.info.len - tail_len => {
                stored.tail(&self.info.path, self.info.index_offset)?
            }
            _ => Vec::new(),
        };
        let mut footer = [0; SEGMENT_FOOTER_LEN];
        match tail.len().checked_sub(SEGMENT_FOOTER_LEN) {
            Some(index_len) => footer.copy_from_slice(&tail[index_len..]),
            None => self.read_at(&mut footer, footer_at)?,
        }
        let (index_at, index_len) = (u64_at(&footer, 8), u32_at(&footer, 16) as usize);
        let good = &footer[..4] == FOOTER_MAGIC
            && crc32c::crc32c(&footer[..60]) == u32_at(&footer, 60)
            && index_at.checked_add(index_len as u64) == Some(footer_at)
            && index_len >= INDEX_HEADER_LEN;
        if !good {
            return Ok(None);
        }
        if tail.len() == index_len + SEGMENT_FOOTER_LEN {
            tail.truncate(index_len);
        } else {
            tail = vec![0; index_len];
            self.read_at(&mut tail, index_at)?;
        }
        Ok(Some((tail, footer)))
    }

    /// Walks from the last known block to the end of the file, header by header.
    fn scan(&mut self) -> Result<ScanEnd, LogError> {
        let end = loop {
            let offset = self.blocks.end();
            match self.scan_block(offset)? {
                Ok(block) => self.add_block(block, offset),
                Err(end) => break end,
            }
        };
        self.damage = if let ScanEnd::Damage(reason) = end { Some(reason) } else { None };
        Ok(end)
    }

    /// The header of the block at `offset`, if it is the next one and all of the block is there.
    fn scan_block(&self, offset: u64) -> Result<Result<BlockInfo, ScanEnd>, LogError> {
        let left = self.info.len.saturating_sub(offset);
        let mut header = [0; BLOCK_HEADER_LEN];
        let header_len = BLOCK_HEADER_LEN.min(usize::try_from(left).unwrap_or(BLOCK_HEADER_LEN));
        self.read_at(&mut header[..header_len], offset)?;
        if header_len >= INDEX_HEADER_LEN && header.starts_with(INDEX_MAGIC) {
            return Ok(Err(ScanEnd::Index));
        }
        if header_len < BLOCK_HEADER_LEN {
            return Ok(Err(ScanEnd::File));
        }
        let block = match BlockInfo::parse(&header) {
            Ok(block) => block,
            Err(reason) => return Ok(Err(ScanEnd::Damage(reason))),
        };
        let prev_len = self.blocks.entries.last().map_or(0, |last| last.len);
        if block.base_seq != self.info.next_seq || block.prev_block_len != prev_len {
            return Ok(Err(ScanEnd::Damage(Reason::Malformed("sequence of blocks"))));
        }
        Ok(if block.len_with_header() > left { Err(ScanEnd::File) } else { Ok(block) })
    }

    fn add_block(&mut self, block: BlockInfo, offset: u64) {
        self.info.next_seq = block.last_seq() + 1;
        self.info.last_time_ns = block.last_time_ns;
        self.info.has_end |= block.flags & FLAG_END != 0;
        self.blocks.push(block, offset);
    }

    /// Forgets all blocks from index `keep` on.
    pub(crate) fn cut(&mut self, keep: usize) -> Result<(), LogError> {
        let blocks = std::mem::take(&mut self.blocks.entries);
        self.blocks.last = None;
        self.info.next_seq = self.info.start.base_seq;
        self.info.last_time_ns = self.info.start.base_time_ns;
        self.info.has_end = false;
        for entry in &blocks[..keep] {
            let block = self.block_info(entry)?;
            self.add_block(block, entry.offset);
        }
        Ok(())
    }

    /// Offset behind the last block, in bytes.
    pub(crate) fn blocks_end(&self) -> u64 {
        self.blocks.end()
    }
}
