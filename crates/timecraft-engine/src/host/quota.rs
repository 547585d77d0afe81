//! How much a guest may still grow its files.

use crate::Errno;

/// Bytes by which files in mounts may grow, in all. What is deleted does not come back: the limit protects the host
/// from being written full, and accounting for names and links would be a race.
#[derive(Debug)]
pub(super) struct Quota {
    left: Option<u64>,
}

impl Quota {
    pub fn new(bytes: Option<u64>) -> Self {
        Quota { left: bytes }
    }

    /// Whether growth needs to be known at all.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.left.is_some()
    }

    /// Fails if files may not grow by that much.
    pub fn check(&self, bytes: u64) -> Result<(), Errno> {
        if self.left.is_some_and(|left| bytes > left) { Err(Errno::Dquot) } else { Ok(()) }
    }

    /// Counts growth that has happened.
    pub fn charge(&mut self, bytes: u64) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes);
        }
    }
}
