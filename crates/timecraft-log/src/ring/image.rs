//! What is left in the file of a ring.

use super::header::{
    FLAG_DIGEST, HEAD_AT, HEADER_LEN, MAGIC, RingIdentity, STATE_AT, TAIL_AT, VERSION, boot_id, state,
};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::{LogError, Reason};
use crate::record::RecordView;
use std::path::{Path, PathBuf};

/// The records left in the file of a ring whose process is gone.
#[derive(Debug)]
pub struct RingImage {
    identity: RingIdentity,
    discarding: bool,
    words: Vec<u64>,
}

impl RingImage {
    pub(super) fn read(path: &Path) -> Result<Self, LogError> {
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
