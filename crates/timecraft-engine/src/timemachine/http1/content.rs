//! Bodies as they were before they were compressed.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

/// What is shown of a decompressed body, at most, bytes.
pub const DECODED_BYTES_MAX: usize = 1 << 20;
/// Codings of one body, at most. One is what is used.
const CODINGS_MAX: usize = 4;
/// The window of a zstd frame, at most, bytes: what RFC 9659 has for HTTP. The decoder takes as much memory.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// A body without its codings, as much of it as can be had, at most [`DECODED_BYTES_MAX`]; nothing if one of the
/// codings in the header's value isn't known.
pub fn decoded(codings: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let codings: Vec<_> = codings.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).take(CODINGS_MAX + 1).collect();
    if codings.len() > CODINGS_MAX {
        return None;
    }
    // The last coding was applied last.
    let mut bytes = body.to_vec();
    for coding in codings.iter().rev() {
        bytes = match coding.to_ascii_lowercase().as_slice() {
            b"identity" => bytes,
            b"gzip" | b"x-gzip" => begin_of(MultiGzDecoder::new(bytes.as_slice())),
            // Some servers leave out zlib's header.
            b"deflate" if is_zlib(&bytes) => begin_of(ZlibDecoder::new(bytes.as_slice())),
            b"deflate" => begin_of(DeflateDecoder::new(bytes.as_slice())),
            b"zstd" if zstd_window(&bytes).is_some_and(|window| window <= ZSTD_WINDOW_BYTES_MAX) => {
                StreamingDecoder::new(bytes.as_slice()).map(begin_of).unwrap_or_default()
            }
            _ => return None,
        };
    }
    Some(bytes)
}

/// What can be read, at most [`DECODED_BYTES_MAX`]: a body that was cut off ends with an error.
fn begin_of(reader: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = reader.take(DECODED_BYTES_MAX as u64).read_to_end(&mut bytes);
    bytes
}

fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [method, flags, ..] if method & 15 == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// The window that the first frame asks for, bytes (RFC 8878, section 3.1.1.1).
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = frame else { return None };
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window is the content, whose size comes behind the dictionary's id.
    let size = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let (len, offset) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    Some(size.get(..len)?.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)) + offset)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn known_codings_are_undone_the_last_one_first() {
        let text = b"hello, hello, hello, hello".as_slice();
        assert_eq!(decoded(b"gzip", &gzip(text)).unwrap(), text);
        assert_eq!(decoded(b"X-GZIP", &gzip(text)).unwrap(), text);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let zlib = zlib.finish().unwrap();
        assert_eq!(decoded(b"deflate", &zlib).unwrap(), text);
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(text).unwrap();
        assert_eq!(decoded(b"deflate", &raw.finish().unwrap()).unwrap(), text);
        let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(decoded(b"zstd", &zstd).unwrap(), text);
        assert_eq!(decoded(b"deflate, identity , gzip", &gzip(&zlib)).unwrap(), text);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(decoded(b"br", b"abc"), None);
        assert_eq!(decoded(b"gzip, br", b"abc"), None);
        assert_eq!(decoded(b"gzip, gzip, gzip, gzip, gzip", b"abc"), None, "too many");
    }

    #[test]
    fn of_a_body_that_is_cut_off_there_is_what_there_is() {
        let text: Vec<u8> = (0..100_000u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
        let whole = gzip(&text);
        let part = decoded(b"gzip", &whole[..whole.len() / 2]).unwrap();
        assert!(!part.is_empty() && part.len() < text.len() && text.starts_with(&part));
        assert_eq!(decoded(b"gzip", b"").unwrap(), b"");
        assert_eq!(decoded(b"gzip", b"this is no gzip").unwrap(), b"");
    }

    #[test]
    fn bombs_are_cut_at_the_limit() {
        let bomb = gzip(&gzip(&vec![0; 64 << 20]));
        assert_eq!(decoded(b"gzip, gzip", &bomb).unwrap().len(), DECODED_BYTES_MAX);
        let zstd =
            ruzstd::encoding::compress_to_vec(vec![0; 4 << 20].as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(decoded(b"zstd", &zstd).unwrap().len(), DECODED_BYTES_MAX);
    }

    #[test]
    fn zstd_with_a_window_beyond_the_limit_is_not_decoded() {
        // A window of 2 to the 31st, and one segment of 16 MiB.
        assert_eq!(zstd_window(&[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3]), Some(1 << 31));
        assert_eq!(zstd_window(&[0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 1]), Some(16 << 20));
        assert_eq!(zstd_window(&[0x28, 0xb5, 0x2f, 0xfd, 0x60, 0, 0]), Some(256));
        assert_eq!(decoded(b"zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 0, 0, 0]), None);
        for cut in 0..6 {
            assert_eq!(decoded(b"zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0x20][..cut.min(5)]), None);
        }
    }
}
