//! What a guest wrote to its standard streams, out of its calls.

use crate::{Call, Errno};

/// Follows the descriptors that are standard output and standard error.
///
/// A guest may close or renumber them, so the number alone doesn't tell.
#[derive(Clone, Debug)]
pub struct Output {
    /// (descriptor, stream 1 or 2). At most a handful: only renumbering adds.
    streams: Vec<(u32, u8)>,
}

impl Default for Output {
    fn default() -> Self {
        Output { streams: vec![(1, 1), (2, 2)] }
    }
}

impl Output {
    /// Looks at one call. If it wrote to a standard stream, `write` gets the stream's number (1 or 2) and the bytes,
    /// piece by piece.
    ///
    /// `written` and `sent` are the regions of its record: for a write, the iovec array and then one region an iovec,
    /// and the count of bytes that were taken.
    pub fn observe<'m>(
        &mut self,
        call: Call,
        args: &[u64],
        errno: Errno,
        written: impl Iterator<Item = (u32, &'m [u8])>,
        sent: impl Iterator<Item = (u32, &'m [u8])>,
        mut write: impl FnMut(u8, &'m [u8]),
    ) {
        if !matches!(call, Call::FdWrite | Call::FdClose | Call::FdRenumber) || errno != Errno::Success {
            return;
        }
        let fd = args.first().map_or(u32::MAX, |fd| *fd as u32);
        let stream = self.streams.iter().find(|(known, _)| *known == fd).map(|(_, stream)| *stream);
        match (call, stream) {
            (Call::FdWrite, Some(stream)) => {
                let mut left = count(args, written);
                for (_, bytes) in sent.skip(1) {
                    let taken = bytes.len().min(left);
                    left -= taken;
                    if taken > 0 {
                        write(stream, &bytes[..taken]);
                    }
                }
            }
            (Call::FdClose, _) => self.streams.retain(|(known, _)| *known != fd),
            (Call::FdRenumber, _) => {
                let to = args.get(1).map_or(u32::MAX, |fd| *fd as u32);
                self.streams.retain(|(known, _)| *known != fd && *known != to);
                self.streams.extend(stream.map(|stream| (to, stream)));
            }
            _ => {}
        }
    }
}

/// The number of bytes that a write took: its last result cell.
fn count<'m>(args: &[u64], written: impl Iterator<Item = (u32, &'m [u8])>) -> usize {
    let cell = args.last().map_or(u32::MAX, |ptr| *ptr as u32);
    let bytes = written.filter(|(ptr, bytes)| *ptr == cell && bytes.len() == 4).last().map(|(_, bytes)| bytes);
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(output: &mut Output, call: Call, args: &[u64], taken: u32, data: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut pieces = Vec::new();
        let taken = taken.to_le_bytes();
        let sent = std::iter::once((0, [].as_slice())).chain(data.iter().map(|bytes| (64, *bytes)));
        let written = std::iter::once((*args.last().unwrap() as u32, taken.as_slice()));
        output
            .observe(call, args, Errno::Success, written, sent, |stream, bytes| pieces.push((stream, bytes.to_vec())));
        pieces
    }

    #[test]
    fn only_what_was_taken_counts() {
        let mut output = Output::default();
        let pieces = seen(&mut output, Call::FdWrite, &[1, 0, 2, 8], 7, &[b"hello", b" world"]);
        assert_eq!(pieces, [(1, b"hello".to_vec()), (1, b" w".to_vec())]);
        assert_eq!(seen(&mut output, Call::FdWrite, &[3, 0, 1, 8], 2, &[b"no"]), []);
    }

    #[test]
    fn streams_are_followed_through_close_and_renumber() {
        let mut output = Output::default();
        seen(&mut output, Call::FdRenumber, &[2, 5], 0, &[]);
        assert_eq!(seen(&mut output, Call::FdWrite, &[5, 0, 1, 8], 1, &[b"e"]), [(2, b"e".to_vec())]);
        assert_eq!(seen(&mut output, Call::FdWrite, &[2, 0, 1, 8], 1, &[b"x"]), []);
        seen(&mut output, Call::FdRenumber, &[4, 5], 0, &[]);
        seen(&mut output, Call::FdClose, &[1], 0, &[]);
        assert_eq!(seen(&mut output, Call::FdWrite, &[5, 0, 1, 8], 1, &[b"x"]), []);
        assert_eq!(seen(&mut output, Call::FdWrite, &[1, 0, 1, 8], 1, &[b"x"]), []);
    }
}
