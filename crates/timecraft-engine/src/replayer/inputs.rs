//! What a call reads from guest memory, found out without making it.
//!
//! The host notes inputs in the order of parameters, and a list before what it points to (`Memory::sent`); a gather
//! list and its data come last. Reports and digests follow it here.

use timecraft_log::digest_sent;

use crate::abi::bounds::IOVECS_MAX;
use crate::abi::{event, size, socket as abi};
use crate::calls::Kind;
use crate::memory::Region;
use crate::{Call, Memory};

/// Bytes of one input that a report keeps, at most: enough to see what a difference is about.
const REPORT_BYTES_MAX: u32 = 4096;

/// The inputs of a call, for reports: each cut, and silent about what lies out of bounds.
pub(super) fn excerpts(call: Call, args: &[u64], memory: &Memory<'_>) -> Vec<(u32, Vec<u8>)> {
    let excerpt = |region: Region| {
        let bytes = memory.peek(region.ptr, region.len.min(REPORT_BYTES_MAX)).ok()?;
        Some((region.ptr, bytes.to_vec()))
    };
    regions(call, args, memory).into_iter().filter_map(excerpt).collect()
}

/// Whether the call's inputs behind the first `kept` are those of which only the digest was recorded, `total` bytes of
/// them. Notes them, as the recorded call did.
pub(super) fn match_digest(
    call: Call,
    args: &[u64],
    memory: &mut Memory<'_>,
    kept: usize,
    total: u32,
    digest: &[u8],
) -> bool {
    let mut inputs = Vec::new();
    let mut rest = total;
    for region in regions(call, args, memory).into_iter().skip(kept) {
        // The host takes a part of what is too much for one call.
        let len = region.len.min(rest);
        if len > 0 || region.len == 0 {
            inputs.push(Region { ptr: region.ptr, len });
        }
        rest -= len;
    }
    if rest > 0 || inputs.iter().any(|region| memory.check(region.ptr, region.len).is_err()) {
        return false;
    }
    let bytes = inputs.iter().filter_map(|region| Some((region.ptr, memory.peek(region.ptr, region.len).ok()?)));
    if digest_sent(bytes).0 != digest {
        return false;
    }
    inputs.iter().all(|region| memory.sent(region.ptr, region.len).is_ok())
}

fn regions(call: Call, args: &[u64], memory: &Memory<'_>) -> Vec<Region> {
    let mut regions = Vec::new();
    // Data that may be cut come last, behind all that is read as a whole.
    let mut data = Vec::new();
    let mut at = 0;
    for param in call.spec().params {
        let arg = |index: usize| args.get(at + index).copied().unwrap_or(0) as u32;
        match param.kind {
            Kind::Path | Kind::OptionValue => regions.push(Region { ptr: arg(0), len: arg(1) }),
            Kind::IovecsOut | Kind::IovecsIn => {
                let list = Region { ptr: arg(0), len: arg(1).min(IOVECS_MAX) * size::IOVEC };
                if param.kind == Kind::IovecsOut {
                    data.push(list);
                    push_buffers(memory.peek(list.ptr, list.len).unwrap_or_default(), &mut data);
                } else {
                    regions.push(list);
                }
            }
            Kind::Address => {
                let buffer = Region { ptr: arg(0), len: abi::BUFFER_BYTES };
                regions.push(buffer);
                regions.extend(behind(buffer, memory));
            }
            Kind::OutAddress => regions.push(Region { ptr: arg(0), len: abi::BUFFER_BYTES }),
            Kind::OutOption if arg(1) > abi::OPTION_BYTES_MAX => regions.push(Region { ptr: arg(1), len: 4 }),
            Kind::Hints if arg(0) != 0 => regions.push(Region { ptr: arg(0), len: abi::ADDRINFO_BYTES }),
            // The count is the next parameter.
            Kind::OutAddresses => push_addresses(arg(0), arg(1), memory, &mut regions),
            // The count is the parameter after the next.
            Kind::Subscriptions => {
                regions.push(Region { ptr: arg(0), len: arg(2).saturating_mul(event::SUBSCRIPTION_BYTES) });
            }
            _ => {}
        }
        at += param.kind.types().len();
    }
    regions.append(&mut data);
    regions
}

fn word(memory: &Memory<'_>, ptr: u32) -> Option<u32> {
    let bytes = memory.peek(ptr, 4).ok()?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// What a `{buf, len}` describes.
fn behind(buffer: Region, memory: &Memory<'_>) -> Option<Region> {
    let ptr = word(memory, buffer.ptr)?;
    let len = word(memory, buffer.ptr.checked_add(4)?)?;
    Some(Region { ptr, len })
}

/// The chain that `sock_getaddrinfo` fills: its beginning, and the two structures of each entry.
fn push_addresses(ptr: u32, count: u32, memory: &Memory<'_>, regions: &mut Vec<Region>) {
    regions.push(Region { ptr, len: 4 });
    let mut info = word(memory, ptr).unwrap_or(0);
    for _ in 0..count.min(abi::ADDRESSES_MAX) {
        let field = |at: u32| info.checked_add(at).and_then(|ptr| word(memory, ptr));
        let (Some(sockaddr), Some(next)) = (field(12), field(24)) else { break };
        if info == 0 {
            break;
        }
        regions.push(Region { ptr: info, len: abi::ADDRINFO_BYTES });
        regions.push(Region { ptr: sockaddr, len: abi::SOCKADDR_BYTES });
        info = next;
    }
}

/// The buffers of a list. Of several, the host leaves out the empty ones.
fn push_buffers(list: &[u8], regions: &mut Vec<Region>) {
    let (words, _) = list.as_chunks::<4>();
    let (iovecs, _) = words.as_chunks::<2>();
    for [ptr, len] in iovecs {
        let region = Region { ptr: u32::from_le_bytes(*ptr), len: u32::from_le_bytes(*len) };
        if region.len > 0 || iovecs.len() == 1 {
            regions.push(region);
        }
    }
}
