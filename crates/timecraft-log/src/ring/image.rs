//! What is left in the file of a ring.

use super::header::{
    FIXED_LEN, FLAG_DIGEST, HEAD_AT, HEAD_CHECK_AT, HEADER_LEN, MAGIC, RingIdentity, STATE_AT, TAIL_AT, VERSION,
    VERSION_HEAD_CHECK, boot_id, state,
};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{LogError, Reason};
use crate::record::{RECORD_BYTES_MAX, RecordView};
use std::path::{Path, PathBuf};

/// The records left in the file of a ring whose process is gone.
#[derive(Debug)]
pub struct RingImage {
    identity: RingIdentity,
    discarding: bool,
    words: Vec<u64>,
    damaged: bool,
}

impl RingImage {
    /// `None`: its process died while it made the ring.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, LogError> {
        let bytes = std::fs::read(path).map_err(LogError::io(path, "read"))?;
        let corrupt = |at, reason| LogError::corrupt(path, at, None, reason);
        if bytes.iter().take(FIXED_LEN).all(|byte| *byte == 0) {
            return Ok(None);
        }
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
        let discarding = u32_at(&bytes, STATE_AT) == state::DISCARDING;
        if bytes[32..48] != boot_id() {
            // Written under another boot: memory and medium need not agree.
            return Ok(Some(Self { identity, discarding, words: Vec::new(), damaged: false }));
        }
        let mask = capacity - 1;
        let mut words: Vec<u64> = (0..used / 8).map(|word| u64_at(data, ((tail + word * 8) & mask) as usize)).collect();
        let (good, last_len) = walk(&words);
        let check = (version >= VERSION_HEAD_CHECK).then(|| u64_at(&bytes, HEAD_CHECK_AT));
        let damaged = good < words.len() || check.is_some_and(|check| !agrees(check, head, last_len));
        words.truncate(good);
        Ok(Some(Self { identity, discarding, words, damaged }))
    }

    /// Whether not all that was appended is in [`records`](Self::records), or what is there may be more than that.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whose records these are.
    pub fn identity(&self) -> &RingIdentity {
        &self.identity
    }

    /// Whether the writer had given up, and the guest ran on unrecorded.
    pub fn was_discarding(&self) -> bool {
        self.discarding
    }

    /// The records, oldest first, up to anything that is not the next one.
    pub fn records(&self) -> impl Iterator<Item = RecordView<'_>> {
        let mut rest = self.words.as_slice();
        std::iter::from_fn(move || {
            let (record, len) = RecordView::parse(rest)?;
            rest = &rest[len..];
            Some(record)
        })
    }
}

/// How many words are records in a row, and how many bytes the last one takes.
fn walk(words: &[u64]) -> (usize, u64) {
    let (mut good, mut last_len, mut next_seq) = (0, 0, None);
    while let Some((record, len)) = RecordView::parse(&words[good..]) {
        if next_seq.is_some_and(|seq| seq != record.seq()) {
            break;
        }
        next_seq = Some(record.seq().wrapping_add(1));
        last_len = len as u64 * 8;
        good += len;
    }
    (good, last_len)
}

/// Whether the word behind `head` belongs to it, or to where it was before the last record: the producer may have died
/// between the two stores. `last_len` is that record's size, in bytes; 0 if it was released meanwhile.
fn agrees(check: u64, head: u64, last_len: u64) -> bool {
    let behind = head.wrapping_sub(!check);
    match (head, check) {
        (0, 0) => true, // no record yet
        _ if last_len == 0 => behind <= RECORD_BYTES_MAX as u64,
        _ => behind == 0 || behind == last_len,
    }
}
