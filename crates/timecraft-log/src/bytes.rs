//! Little-endian fields, variable-length integers, and views of words as bytes.

/// The bytes of `words` in memory order, which is little-endian on every supported target.
pub fn words_as_bytes(words: &[u64]) -> &[u8] {
    // SAFETY: any initialised u64 is eight initialised bytes; the length covers the same memory,
    // u8 has no alignment, and the borrow is carried over.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8)
    }
}

/// The bytes of `words`, writable.
pub fn words_as_bytes_mut(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: as in `words_as_bytes`; every byte pattern is a valid u64.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), words.len() * 8)
    }
}

/// Appends `value` as LEB128: seven bits a byte, least significant first.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps a difference to an unsigned number, small in either direction.
#[inline]
pub const fn zigzag(delta: u64) -> u64 {
    (delta << 1) ^ ((delta as i64) >> 63) as u64
}

/// Inverse of [`zigzag`].
#[inline]
pub const fn unzigzag(code: u64) -> u64 {
    (code >> 1) ^ (code & 1).wrapping_neg()
}

/// Reads fields off the front of a byte string; every method returns `None` past the end.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub const fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos }
    }

    pub const fn pos(&self) -> usize {
        self.pos
    }

    #[inline]
    pub fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.pos)?;
        self.pos += 1;
        Some(byte)
    }

    /// A LEB128 number; `None` also if it does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.pos.checked_add(len)?;
        let bytes = self.bytes.get(self.pos..end)?;
        self.pos = end;
        Some(bytes)
    }
}

/// The little-endian `u16` at `at`. The caller has checked the length of `bytes`.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The little-endian `u32` at `at`. The caller has checked the length of `bytes`.
#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian `u64` at `at`. The caller has checked the length of `bytes`.
#[inline]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Overwrites `bytes[at..]` with `field`.
#[inline]
pub fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

#[cfg(test)]
mod tests {
    use super::{Cursor, put_varint, unzigzag, zigzag};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varint_and_zigzag_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, zigzag(value));
            let mut cursor = Cursor::new(&out, 0);
            prop_assert_eq!(cursor.varint().map(unzigzag), Some(value));
            prop_assert_eq!(cursor.pos(), out.len());
        }
    }

    #[test]
    fn varint_refuses_overflow_and_truncation() {
        assert_eq!(Cursor::new(&[0x80], 0).varint(), None);
        assert_eq!(Cursor::new(&[0xff; 11], 0).varint(), None);
        let too_big = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Cursor::new(&too_big, 0).varint(), None);
    }
}
