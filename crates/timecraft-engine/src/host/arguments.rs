//! Raw arguments of a call, by position.

/// i32 arguments come zero-extended. A position that isn't there reads as 0: the table of calls says how many there
/// are, so that only a caller that breaks the contract sees it.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a>(pub &'a [u64]);

impl Arguments<'_> {
    #[inline]
    pub fn u64(self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    #[inline]
    pub fn u32(self, index: usize) -> u32 {
        self.u64(index) as u32
    }

    /// A flags argument that is 16 bits wide. What lies beyond is an unknown flag, so it must not be cut off unseen.
    #[inline]
    pub fn flags(self, index: usize) -> Result<u16, crate::Errno> {
        u16::try_from(self.u32(index)).map_err(|_| crate::Errno::Inval)
    }
}
