//! Guest memory as host calls see it: bounds-checked, and every access noted.
//!
//! A host call reads its inputs through [`Memory::sent`] and writes its results through [`Memory::write`] or into
//! buffers from [`Memory::buffer`]. Both leave a note, and the notes are all that a recorder needs: what the guest
//! handed over, and exactly which bytes of it the host changed.

use crate::Errno;
use crate::abi::bounds::TRANSFER_BYTES_MAX;
use crate::reference::Reference;

/// A region of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    pub ptr: u32,
    /// Bytes.
    pub len: u32,
}

impl Region {
    fn overlaps(self, other: Region) -> bool {
        let (a, b) = (u64::from(self.ptr), u64::from(other.ptr));
        a < b + u64::from(other.len) && b < a + u64::from(self.len)
    }
}

/// What a host call read from and wrote to guest memory. Owned by the caller and reused from call to call, so that
/// noting allocates nothing once it is warm.
#[derive(Debug, Default)]
pub struct Notes {
    written: Vec<Region>,
    sent: Vec<Region>,
    /// Copies of inputs that the call went on to overwrite, by index into `sent`. Rare: only guests that let input
    /// and output overlap cause it.
    saved: Vec<(usize, Vec<u8>)>,
    /// An encoded [`Reference`] that stands for the first written region; empty if there is none.
    reference: Vec<u8>,
}

impl Notes {
    /// Forgets the previous call.
    #[inline]
    pub fn clear(&mut self) {
        self.written.clear();
        self.sent.clear();
        self.reference.clear();
        if !self.saved.is_empty() {
            self.saved.clear();
        }
    }
}

/// Guest memory during one host call.
#[derive(Debug)]
pub struct Memory<'a> {
    bytes: &'a mut [u8],
    notes: &'a mut Notes,
    transfer_max: u32,
}

impl<'a> Memory<'a> {
    /// Wraps the guest's linear memory for one call; `notes` starts empty.
    #[inline]
    pub fn new(bytes: &'a mut [u8], notes: &'a mut Notes) -> Self {
        notes.clear();
        Memory { bytes, notes, transfer_max: TRANSFER_BYTES_MAX }
    }

    /// How many bytes the call may read or write for the guest.
    #[inline]
    pub fn transfer_max(&self) -> u32 {
        self.transfer_max
    }

    /// Has the call read or write no more than so many bytes for the guest, where a short count is legal.
    pub fn limit_transfer(&mut self, bytes: u32) {
        self.transfer_max = bytes.min(TRANSFER_BYTES_MAX);
    }

    /// Checks that `len` bytes at `ptr` lie in guest memory. To be called for every result pointer before any effect.
    ///
    /// # Errors
    /// [`Errno::Fault`] if they don't.
    #[inline]
    pub fn check(&self, ptr: u32, len: u32) -> Result<(), Errno> {
        if u64::from(ptr) + u64::from(len) <= self.bytes.len() as u64 { Ok(()) } else { Err(Errno::Fault) }
    }

    /// Reads bytes without noting them: for looking at what is (or will be) noted otherwise.
    #[inline]
    pub fn peek(&self, ptr: u32, len: u32) -> Result<&[u8], Errno> {
        self.check(ptr, len)?;
        Ok(&self.bytes[ptr as usize..ptr as usize + len as usize])
    }

    /// Reads an input of the call and notes it as sent.
    #[inline]
    pub fn sent(&mut self, ptr: u32, len: u32) -> Result<&[u8], Errno> {
        self.check(ptr, len)?;
        self.notes.sent.push(Region { ptr, len });
        Ok(&self.bytes[ptr as usize..ptr as usize + len as usize])
    }

    /// Writes a result and notes it. Nothing is written if the region is out of bounds.
    #[inline]
    pub fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), Errno> {
        self.check(ptr, bytes.len() as u32)?;
        self.note_written(Region { ptr, len: bytes.len() as u32 });
        self.bytes[ptr as usize..ptr as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    #[inline]
    pub fn write_u32(&mut self, ptr: u32, value: u32) -> Result<(), Errno> {
        self.write(ptr, &value.to_le_bytes())
    }

    #[inline]
    pub fn write_u64(&mut self, ptr: u32, value: u64) -> Result<(), Errno> {
        self.write(ptr, &value.to_le_bytes())
    }

    /// A buffer for the host to fill in place. Inputs that it overlaps are saved first. What was really filled must
    /// be told by [`Memory::filled`]; the rest of the buffer must be left as it was.
    #[inline]
    pub fn buffer(&mut self, ptr: u32, len: u32) -> Result<&mut [u8], Errno> {
        self.check(ptr, len)?;
        self.save_overlapped(Region { ptr, len });
        Ok(&mut self.bytes[ptr as usize..ptr as usize + len as usize])
    }

    /// Notes that the host filled `len` bytes at `ptr` of a buffer it had from [`Memory::buffer`].
    #[inline]
    pub fn filled(&mut self, ptr: u32, len: u32) {
        debug_assert!(self.check(ptr, len).is_ok());
        if len > 0 {
            self.notes.written.push(Region { ptr, len });
        }
    }

    /// Notes where the bytes are to be found that the host has just filled one buffer with: at `offset` of a file in
    /// an immutable mount. Of several buffers, there is no such note.
    pub fn refer(&mut self, mount: u32, offset: u64, path: &[u8]) {
        if let [Region { ptr, len }] = self.notes.written[..] {
            let data = &self.bytes[ptr as usize..ptr as usize + len as usize];
            Reference::encode(mount, offset, path, data, &mut self.notes.reference);
        }
    }

    /// The encoded reference that stands for the first written region, if there is one.
    #[inline]
    pub fn reference(&self) -> Option<&[u8]> {
        if self.notes.reference.is_empty() { None } else { Some(&self.notes.reference) }
    }

    /// Regions the call has written so far, in order.
    #[inline]
    pub fn written(&self) -> impl ExactSizeIterator<Item = (u32, &[u8])> + Clone {
        self.notes.written.iter().map(|region| (region.ptr, self.region(*region)))
    }

    /// Inputs of the call, in order, as they were when the call began.
    #[inline]
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = (u32, &[u8])> + Clone {
        self.notes.sent.iter().enumerate().map(|(index, region)| {
            if self.notes.saved.is_empty() {
                return (region.ptr, self.region(*region));
            }
            let saved = self.notes.saved.iter().find(|(at, _)| *at == index);
            (region.ptr, saved.map_or_else(|| self.region(*region), |(_, bytes)| bytes.as_slice()))
        })
    }

    /// Size of guest memory, bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn region(&self, region: Region) -> &[u8] {
        &self.bytes[region.ptr as usize..region.ptr as usize + region.len as usize]
    }

    #[inline]
    fn note_written(&mut self, region: Region) {
        self.save_overlapped(region);
        if region.len > 0 {
            self.notes.written.push(region);
        }
    }

    #[inline]
    fn save_overlapped(&mut self, target: Region) {
        for index in 0..self.notes.sent.len() {
            if self.notes.sent[index].overlaps(target) {
                self.save(index);
            }
        }
    }

    #[cold]
    fn save(&mut self, index: usize) {
        if self.notes.saved.iter().all(|(at, _)| *at != index) {
            let bytes = self.region(self.notes.sent[index]).to_vec();
            self.notes.saved.push((index, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_as_they_were_when_the_call_began() {
        let mut bytes = b"hello world".to_vec();
        let mut notes = Notes::default();
        let mut memory = Memory::new(&mut bytes, &mut notes);
        memory.sent(0, 11).unwrap();
        memory.write_u32(2, 0).unwrap();
        memory.write(0, b"J").unwrap();
        assert_eq!(memory.inputs().collect::<Vec<_>>(), [(0, b"hello world".as_slice())]);
        let written: Vec<_> = memory.written().collect();
        assert_eq!(written, [(2, [0u8; 4].as_slice()), (0, b"J".as_slice())]);
    }

    #[test]
    fn out_of_bounds_is_a_fault_and_changes_nothing() {
        let mut bytes = vec![7u8; 16];
        let mut notes = Notes::default();
        let mut memory = Memory::new(&mut bytes, &mut notes);
        assert_eq!(memory.write_u64(9, 1), Err(Errno::Fault));
        assert_eq!(memory.sent(u32::MAX, 2), Err(Errno::Fault));
        assert_eq!(memory.buffer(16, 1).map(|_| ()), Err(Errno::Fault));
        assert!(memory.buffer(16, 0).is_ok());
        assert_eq!(memory.written().count(), 0);
        assert_eq!(bytes, [7u8; 16]);
    }
}
