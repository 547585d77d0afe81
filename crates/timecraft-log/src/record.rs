//! One record: the effect of one host call on the guest.

use crate::bytes::words_as_bytes;
use sha2::{Digest as _, Sha256};
use std::slice;

/// Calls with this id or above are control records, written by the host and not by a guest's call.
pub const CONTROL_BASE: u16 = 0xff00;
/// First record of each epoch: `args = [epoch, wall clock in ns at time zero]`, `sent[0]` the
/// manifest (JSON).
pub const CALL_START: u16 = 0xff00;
/// End of the process: `args = [kind, code]`, `sent[0]` a message in UTF-8. Its absence is a crash.
pub const CALL_END: u16 = 0xff01;

/// Arguments of a record, at most.
pub const ARGS_MAX: usize = 16;
/// Regions of a record in each direction, at most: an `iovec` list of 1024 and some company.
pub const REGIONS_MAX: usize = 1088;
/// Size of a record in the ring, at most, in bytes.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Length of the digest that replaces sent bytes under `Output::Digest`: SHA-256.
pub const DIGEST_LEN: usize = 32;
/// Sent data of a record up to this total are kept even under `Output::Digest`, bytes.
pub const DIGEST_OVER: usize = 64;
/// All that a record sends is kept, whatever its size.
pub const KEEP_ALL: u8 = 0x7f;

/// Words before the arguments: length, call and errno; seq; time; counts.
pub(crate) const PROLOGUE_WORDS: usize = 4;
const DIGESTED: u64 = 1 << 8;
const KEPT_SHIFT: u32 = 9;

/// The fixed part of a record, as the guest's thread hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Id of the host call.
    pub call: u16,
    /// What the call returned, 0 for success.
    pub errno: u16,
    /// Nanoseconds since the start of the process; continues over epochs.
    pub time_ns: u64,
}

/// Packs a region's place in guest memory.
#[inline]
pub(crate) const fn pack_region(ptr: u32, len: u32) -> u64 {
    ptr as u64 | (len as u64) << 32
}

#[inline]
pub(crate) const fn region_ptr(region: u64) -> u32 {
    region as u32
}

#[inline]
pub(crate) const fn region_len(region: u64) -> u32 {
    (region >> 32) as u32
}

/// The word of a record that holds its counts and flags.
#[inline]
pub(crate) const fn counts_word(args: usize, written: usize, sent: usize, digested: bool, kept: u8) -> u64 {
    let flags = if digested { DIGESTED } else { 0 } | ((kept & KEEP_ALL) as u64) << KEPT_SHIFT;
    args as u64 | flags | (written as u64) << 16 | (sent as u64) << 32
}

/// A record, borrowed from a ring or from a decoded block.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub(crate) head: Head,
    pub(crate) seq: u64,
    pub(crate) args: &'a [u64],
    /// Written regions, then sent ones.
    pub(crate) regions: &'a [u64],
    pub(crate) written_count: usize,
    /// The bytes of all regions, in order, without gaps.
    pub(crate) payload: &'a [u8],
    pub(crate) digested: bool,
    /// In a ring: how many of the first sent regions are never digested.
    pub(crate) kept: u8,
    /// Counts, arguments, table and payload as they lie in a row in a ring: what is hashed. Empty for a record from
    /// elsewhere.
    pub(crate) image: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Number of the record within its process, from 0.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Id of the host call, or of a control record ([`CONTROL_BASE`] and above).
    pub fn call(&self) -> u16 {
        self.head.call
    }

    /// What the call returned, 0 for success.
    pub fn errno(&self) -> u16 {
        self.head.errno
    }

    /// Nanoseconds since the start of the process.
    pub fn time_ns(&self) -> u64 {
        self.head.time_ns
    }

    /// Raw arguments of the call.
    pub fn args(&self) -> &'a [u64] {
        self.args
    }

    /// Regions of guest memory that the host wrote: guest address and bytes.
    pub fn written(&self) -> Regions<'a> {
        let len = self.written_bytes();
        Regions { table: self.regions[..self.written_count].iter(), payload: &self.payload[..len] }
    }

    /// Bytes that the guest handed to the host: guest address and bytes.
    ///
    /// If [`digested`](Self::digested), the last region stands for the data: its address is the number of
    /// their bytes, and its bytes are their digest (see [`digest_sent`]).
    pub fn sent(&self) -> Regions<'a> {
        let len = self.written_bytes();
        Regions { table: self.regions[self.written_count..].iter(), payload: &self.payload[len..] }
    }

    /// Whether [`sent`](Self::sent) ends with a digest in place of the data.
    pub fn digested(&self) -> bool {
        self.digested
    }

    /// Size the record has in a ring, in bytes.
    pub fn ring_bytes(&self) -> usize {
        let words = PROLOGUE_WORDS + self.args.len() + self.regions.len();
        (words + self.payload.len().div_ceil(8)) * 8
    }

    /// CRC-32C over all that a faithful replay reproduces: everything but sequence and time.
    pub(crate) fn content_hash(&self) -> u32 {
        let seed = u32::from(self.head.call) | u32::from(self.head.errno) << 16;
        if !self.image.is_empty() {
            return crc32c::crc32c_append(seed, self.image);
        }
        let sent = self.regions.len() - self.written_count;
        let counts = counts_word(self.args.len(), self.written_count, sent, self.digested, self.kept);
        let hash = crc32c::crc32c_append(seed, &counts.to_le_bytes());
        let hash = crc32c::crc32c_append(hash, words_as_bytes(self.args));
        let hash = crc32c::crc32c_append(hash, words_as_bytes(self.regions));
        crc32c::crc32c_append(hash, self.payload)
    }

    fn written_bytes(&self) -> usize {
        self.regions[..self.written_count].iter().map(|&region| region_len(region) as usize).sum()
    }

    /// Reads the record at the front of `words` as it lies in a ring.
    ///
    /// Returns the record and its length in words, or `None` if it is not a whole, valid record:
    /// `words` may hold anything.
    pub(crate) fn parse(words: &'a [u64]) -> Option<(Self, usize)> {
        let [first, seq, time_ns, counts, ..] = *words else { return None };
        let len = (first & 0xffff_ffff) as usize;
        if len > RECORD_BYTES_MAX || !len.is_multiple_of(8) {
            return None;
        }
        let body = words.get(PROLOGUE_WORDS..len / 8)?;
        let args_count = (counts & 0xff) as usize;
        let written_count = (counts >> 16 & 0xffff) as usize;
        let sent_count = (counts >> 32 & 0xffff) as usize;
        let digested = counts & DIGESTED != 0;
        let kept = (counts >> KEPT_SHIFT) as u8 & KEEP_ALL;
        let exact = counts == counts_word(args_count, written_count, sent_count, digested, kept);
        if !exact || args_count > ARGS_MAX || written_count.max(sent_count) > REGIONS_MAX {
            return None;
        }
        let (args, rest) = body.split_at_checked(args_count)?;
        let (regions, rest) = rest.split_at_checked(written_count + sent_count)?;
        let payload_len: usize = regions.iter().map(|&region| region_len(region) as usize).sum();
        if payload_len.div_ceil(8) != rest.len() {
            return None;
        }
        let head = Head { call: (first >> 32) as u16, errno: (first >> 48) as u16, time_ns };
        let payload = &words_as_bytes(rest)[..payload_len];
        let padding = rest.len() * 8 - payload_len;
        let image = words_as_bytes(&words[PROLOGUE_WORDS - 1..len / 8]);
        let image = &image[..image.len() - padding];
        let view = Self { head, seq, args, regions, written_count, payload, digested, kept, image };
        Some((view, len / 8))
    }
}

/// Regions of guest memory: an iterator of address and bytes.
#[derive(Clone, Debug)]
pub struct Regions<'a> {
    table: slice::Iter<'a, u64>,
    payload: &'a [u8],
}

impl<'a> Iterator for Regions<'a> {
    type Item = (u32, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let region = *self.table.next()?;
        let (bytes, rest) = self.payload.split_at(region_len(region) as usize);
        self.payload = rest;
        Some((region_ptr(region), bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.table.size_hint()
    }
}

impl ExactSizeIterator for Regions<'_> {}

/// Digest of sent regions: SHA-256 over each region's address and length (`u32`, little-endian)
/// and bytes, in order. Returns the digest and the total number of bytes.
pub fn digest_sent<'a>(sent: impl Iterator<Item = (u32, &'a [u8])>) -> ([u8; DIGEST_LEN], usize) {
    let mut hash = Sha256::new();
    let mut total = 0;
    for (ptr, bytes) in sent {
        hash.update(ptr.to_le_bytes());
        hash.update((bytes.len() as u32).to_le_bytes());
        hash.update(bytes);
        total += bytes.len();
    }
    (hash.finalize().into(), total)
}

#[cfg(test)]
mod tests {
    use super::{RecordView, counts_word, pack_region};

    #[test]
    fn the_hash_of_an_image_is_that_of_its_parts() {
        for payload_len in 0..20_u32 {
            let payload_words = payload_len.div_ceil(8) as usize;
            let mut words = vec![0, 5, 6, counts_word(2, 1, 1, false, 3), 7, 8];
            words.extend([pack_region(64, payload_len), pack_region(9, 0)]);
            words.extend((0..payload_words as u64).map(|i| i.wrapping_mul(0x0123_4567_89ab_cdef)));
            words[0] = (words.len() as u64 * 8) | (3 << 32) | (1 << 48);
            let (record, _) = RecordView::parse(&words).unwrap();
            assert_eq!(record.content_hash(), RecordView { image: &[], ..record }.content_hash());
        }
    }
}
