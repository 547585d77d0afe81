//! The header of a ring's file: what it says, and where. `docs/log-format.md`, section 9.

use crate::bytes::put;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

pub(super) const MAGIC: &[u8; 4] = b"TCR1";
pub(super) const VERSION: u16 = 3;
/// Rings before this version have no second position.
pub(super) const VERSION_HEAD_CHECK: u16 = 3;
pub(super) const FLAG_DIGEST: u16 = 1;
/// Room for the header: a page on every supported target.
pub(super) const HEADER_LEN: usize = 64 << 10;
/// What of that room is used, and allocated.
pub(super) const HEADER_USED: usize = 4 << 10;
/// Fixed part of the header, before the positions.
pub(super) const FIXED_LEN: usize = 64;
pub(super) const CAPACITY_MIN: usize = 64 << 10;
pub(super) const CAPACITY_MAX: usize = 1 << 30;
/// Each position has a cache line (and its prefetched neighbour) for itself.
pub(super) const HEAD_AT: usize = 128;
/// The complement of `head`, stored behind it: of two words that belong together, no flipped bit is believed.
pub(super) const HEAD_CHECK_AT: usize = 136;
pub(super) const TAIL_AT: usize = 256;
pub(super) const STATE_AT: usize = 264;
pub(super) const CONSUMER_ASLEEP_AT: usize = 268;
pub(super) const FAULT_AT: usize = 272;
pub(super) const PRODUCER_ASLEEP_AT: usize = 384;
/// Where the log is that the ring belongs to: device, CRC, length and path of its directory.
pub(super) const LOG_AT: usize = 512;
const LOG_FIXED_LEN: usize = 16;

/// What the consumer does with records, as the producer sees it.
pub(super) mod state {
    pub const OPEN: u32 = 0;
    pub const FAILED: u32 = 1;
    pub const DISCARDING: u32 = 2;
}

/// Whose records a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingIdentity {
    /// Identity of the process.
    pub process: [u8; 16],
    /// Epoch of the process.
    pub epoch: u32,
    /// Whether the writer replaces sent bytes by digests, so that recovery does alike.
    pub digest: bool,
}

pub(super) fn encode_fixed(capacity: usize, identity: &RingIdentity) -> [u8; FIXED_LEN] {
    let mut fixed = [0; FIXED_LEN];
    put(&mut fixed, 0, MAGIC);
    put(&mut fixed, 4, &VERSION.to_le_bytes());
    put(&mut fixed, 6, &(if identity.digest { FLAG_DIGEST } else { 0 }).to_le_bytes());
    put(&mut fixed, 8, &(capacity as u64).to_le_bytes());
    put(&mut fixed, 16, &identity.process);
    put(&mut fixed, 32, &boot_id());
    put(&mut fixed, 48, &identity.epoch.to_le_bytes());
    let crc = crc32c::crc32c(&fixed[..60]);
    put(&mut fixed, 60, &crc.to_le_bytes());
    fixed
}

/// What the header says of the log in `dir`; nothing if that path doesn't fit or the directory isn't there.
pub(super) fn encode_log(dir: &Path) -> Vec<u8> {
    let path = dir.as_os_str().as_bytes();
    let Some(device) = std::fs::metadata(dir).ok().map(|metadata| metadata.dev()) else { return Vec::new() };
    if path.len() > HEADER_USED - LOG_AT - LOG_FIXED_LEN {
        return Vec::new();
    }
    let mut out = vec![0; LOG_FIXED_LEN];
    put(&mut out, 4, &(path.len() as u32).to_le_bytes());
    put(&mut out, 8, &device.to_le_bytes());
    out.extend_from_slice(path);
    let crc = crc32c::crc32c(&out[4..]);
    put(&mut out, 0, &crc.to_le_bytes());
    out
}

/// Identity of the running kernel: a ring from before a reboot may be torn. Zero if unknown.
pub(super) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).map_or([0; 16], u128::to_be_bytes)
}
