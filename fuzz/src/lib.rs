//! Oracles: each takes any bytes, and panics if something is wrong.

mod calls;
mod input;
mod paths;
mod traffic;
mod world;

pub use calls::hostcall_args;
pub use paths::path_resolve;
pub use traffic::traffic;

/// The oracles by name.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("decode_block", decode_block),
    ("hostcall_args", hostcall_args),
    ("path_resolve", path_resolve),
    ("traffic", traffic),
];

/// Decodes bytes as a block of a log: as they are, and as the body of a block whose checksums are right.
pub fn decode_block(data: &[u8]) {
    let _ = timecraft_log::decode_block(data, |_| {});
    let [codec, records, raw_len @ ..] = data.get(..4).unwrap_or(&[0; 4]) else { return };
    let body = data.get(4..).unwrap_or_default();
    let raw_len = if *codec & 1 == 0 { body.len() as u32 } else { u32::from_le_bytes([raw_len[0], raw_len[1], 0, 0]) };
    let mut block = vec![0; timecraft_log::BLOCK_HEADER_LEN];
    block[..4].copy_from_slice(b"TCB1");
    block[4..6].copy_from_slice(&timecraft_log::FORMAT_VERSION.to_le_bytes());
    block[6] = codec & 1;
    block[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    block[12..16].copy_from_slice(&raw_len.to_le_bytes());
    block[24..28].copy_from_slice(&u32::from(*records).to_le_bytes());
    block[72..76].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let header_crc = crc32c::crc32c(&block[..76]);
    block[76..80].copy_from_slice(&header_crc.to_le_bytes());
    block.extend_from_slice(body);
    let mut bytes = 0;
    let _ = timecraft_log::decode_block(&block, |record| {
        bytes += record.written().map(|(_, bytes)| bytes.len()).sum::<usize>();
        bytes += record.sent().map(|(_, bytes)| bytes.len()).sum::<usize>();
    });
    // A short block can't stand for endless records: each refers to bytes that it has, or to few of its predecessor.
    assert!(bytes <= 256 * (raw_len as usize + 1) * 256, "{bytes} bytes out of {raw_len}");
}
