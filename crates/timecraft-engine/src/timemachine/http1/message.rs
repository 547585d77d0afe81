//! One direction of a connection: messages out of bytes, in pieces of any size (RFC 9112).

use std::ops::Range;

use memchr::memchr;

use crate::timemachine::form::Moment;
use crate::timemachine::protocol::Budget;

/// A message's start line and headers, or its trailers, at most, bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// What is kept of one body for `-v`, at most, bytes, as it was sent.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// The line before a chunk, with its extensions, at most, bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// Why a connection is followed no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Not wrong, but more than a trace can take.
    #[error("not followed: {0}")]
    Beyond(&'static str),
}

/// A request or a response.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// When its first byte passed.
    pub began: Moment,
    /// The start line and the headers, as they came, with the empty line behind them.
    pub head: Vec<u8>,
    /// Where the three parts of the start line are in `head`; empty as long as it isn't there.
    pub parts: [Range<usize>; 3],
    /// The beginning of the body, without the marks of its chunks; empty unless bodies are kept.
    pub body: Vec<u8>,
    /// Length of the whole body so far, bytes, without the marks of its chunks.
    pub body_bytes: u64,
    /// Bytes of the body that the log doesn't have.
    pub missing_bytes: u64,
    /// The headers behind a chunked body, as they came.
    pub trailers: Vec<u8>,
    pub is_complete: bool,
}

impl Message {
    /// Part of the start line: method, target, version; or version, status, reason.
    pub fn part(&self, index: usize) -> &[u8] {
        &self.head[self.parts[index].clone()]
    }

    /// Whether the start line and the headers are there.
    pub fn has_head(&self) -> bool {
        self.parts[0].end > 0
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.part(1).iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
    }

    /// Names and values of the headers.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let first_line = memchr(b'\n', &self.head).map_or(self.head.len(), |end| end + 1);
        fields(&self.head[first_line..])
    }

    /// The headers behind the body.
    pub fn trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        fields(&self.trailers)
    }

    /// The value of the last header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).last().map(|(_, value)| value)
    }

    /// What the message has of the budget, bytes.
    pub fn kept_bytes(&self) -> usize {
        self.head.len() + self.body.len() + self.trailers.len()
    }
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// To the end of the connection.
    UntilEnd,
}

/// What the headers say of the length of the body, nothing if they don't; and whether they say it twice.
///
/// # Errors
/// What is wrong with the headers.
pub fn framing(message: &Message) -> Result<(Option<Framing>, bool), Stop> {
    let mut length = None;
    let mut codings = None;
    let first_line = memchr(b'\n', &message.head).map_or(message.head.len(), |end| end + 1);
    for line in lines(&message.head[first_line..]) {
        // A line that begins with a blank goes on with the header before it.
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            continue;
        }
        let colon = memchr(b':', line).ok_or(Stop::Malformed("a header without a colon"))?;
        let name = &line[..colon];
        if !is_token(name) {
            return Err(Stop::Malformed("a header's name that is none"));
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for value in line[colon + 1..].split(|byte| *byte == b',') {
                    let value =
                        decimal(value.trim_ascii()).ok_or(Stop::Malformed("a Content-Length that is no number"))?;
                    if length.is_some_and(|length| length != value) {
                        return Err(Stop::Malformed("several Content-Lengths"));
                    }
                    length = Some(value);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => codings = Some(line[colon + 1..].trim_ascii()),
            _ => {}
        }
    }
    let Some(codings) = codings else { return Ok((length.map(Framing::Length), false)) };
    let last = codings.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let framing = if last.eq_ignore_ascii_case(b"chunked") { Framing::Chunked } else { Framing::UntilEnd };
    // The coding holds, but not all servers know.
    Ok((Some(framing), length.is_some()))
}

/// How far [`Reader::feed`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All bytes are used up.
    More,
    /// The head is there: [`Reader::begin_body`] comes next.
    Head,
    /// The message is complete.
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Between messages.
    #[default]
    Idle,
    Head,
    /// So many bytes of the body, or of a chunk, are still to come.
    Length(u64),
    Chunk(u64),
    ChunkLine,
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers,
    UntilEnd,
}

/// What may be kept.
#[derive(Debug)]
pub struct Keep<'b> {
    pub budget: &'b mut Budget,
    pub bodies: bool,
}

/// Where in a message a direction is.
#[derive(Debug, Default)]
pub struct Reader {
    stage: Stage,
    /// The part of a chunk's line that is there.
    line: Vec<u8>,
}

impl Reader {
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Whether only the end of the connection ends the message.
    pub fn is_until_end(&self) -> bool {
        self.stage == Stage::UntilEnd
    }

    /// Begins a message.
    pub fn begin(&mut self) {
        self.stage = Stage::Head;
    }

    /// Says how long the body is of the message whose head is there; true if there is none.
    pub fn begin_body(&mut self, framing: Framing) -> bool {
        self.stage = match framing {
            Framing::Length(0) => Stage::Idle,
            Framing::Length(length) => Stage::Length(length),
            Framing::Chunked => Stage::ChunkLine,
            Framing::UntilEnd => Stage::UntilEnd,
        };
        self.is_idle()
    }

    /// The message is over, whatever it was in.
    pub fn finish(&mut self) {
        *self = Reader::default();
    }

    /// Takes bytes from the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn feed(&mut self, bytes: &mut &[u8], message: &mut Message, keep: &mut Keep<'_>) -> Result<Progress, Stop> {
        while !bytes.is_empty() {
            match self.stage {
                Stage::Idle => return Ok(Progress::Done),
                Stage::Head => {
                    if !head(bytes, message, keep)? {
                        return Ok(Progress::More);
                    }
                    return Ok(Progress::Head);
                }
                Stage::Length(left) => {
                    let left = left - take_body(bytes, left, message, keep);
                    self.stage = if left == 0 { Stage::Idle } else { Stage::Length(left) };
                }
                Stage::UntilEnd => {
                    take_body(bytes, u64::MAX, message, keep);
                }
                Stage::ChunkLine => {
                    if let Some(length) = self.chunk_line(bytes)? {
                        self.stage = if length == 0 { Stage::Trailers } else { Stage::Chunk(length) };
                    }
                }
                Stage::Chunk(left) => {
                    let left = left - take_body(bytes, left, message, keep);
                    self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::Chunk(left) };
                }
                Stage::ChunkEnd => match bytes[0] {
                    b'\r' if self.line.is_empty() => {
                        self.line.push(b'\r');
                        *bytes = &bytes[1..];
                    }
                    b'\n' => {
                        self.line.clear();
                        *bytes = &bytes[1..];
                        self.stage = Stage::ChunkLine;
                    }
                    _ => return Err(Stop::Malformed("a chunk that is longer than it says")),
                },
                Stage::Trailers => {
                    if trailers(bytes, message, keep)? {
                        self.stage = Stage::Idle;
                    }
                }
            }
            if self.stage == Stage::Idle {
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    /// Skips bytes that the log doesn't have; true if they are the rest of the message. Nothing if they can't all be of
    /// one body: it isn't known any more what is where.
    pub fn skip(&mut self, bytes: u64, message: &mut Message) -> Option<bool> {
        let left = match &mut self.stage {
            Stage::Length(left) | Stage::Chunk(left) if bytes <= *left => {
                *left -= bytes;
                *left
            }
            Stage::UntilEnd => u64::MAX,
            _ => return None,
        };
        message.body_bytes += bytes;
        message.missing_bytes += bytes;
        match self.stage {
            Stage::Length(_) if left == 0 => self.stage = Stage::Idle,
            Stage::Chunk(_) if left == 0 => self.stage = Stage::ChunkEnd,
            _ => {}
        }
        Some(self.is_idle())
    }

    /// The length that a chunk's line says, once it is there.
    fn chunk_line(&mut self, bytes: &mut &[u8]) -> Result<Option<u64>, Stop> {
        let end = memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = rest;
        if self.line.len() + part.len() > CHUNK_LINE_BYTES_MAX {
            return Err(Stop::Beyond("a chunk's line that is too long"));
        }
        if end.is_some() && self.line.is_empty() {
            return chunk_length(part).map(Some);
        }
        self.line.extend_from_slice(part);
        if end.is_none() {
            return Ok(None);
        }
        let length = chunk_length(&self.line)?;
        self.line.clear();
        Ok(Some(length))
    }
}

/// Takes bytes of a head; true if it is there.
fn head(bytes: &mut &[u8], message: &mut Message, keep: &mut Keep<'_>) -> Result<bool, Stop> {
    let before = message.head.len();
    let end = if before == 0 {
        end_of_head(bytes, 0)
    } else {
        // What has come may hold all but the last bytes of the empty line.
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(before).min(bytes.len());
        message.head.extend_from_slice(&bytes[..room]);
        let end = end_of_head(&message.head, before.saturating_sub(2));
        message.head.truncate(before);
        end.map(|end| end - before)
    };
    let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    if before + part.len() > HEAD_BYTES_MAX {
        return Err(Stop::Beyond("a head of more than 65536 bytes"));
    }
    if !keep.budget.take(part.len()) {
        return Err(Stop::Beyond("more at once than a trace keeps"));
    }
    message.head.extend_from_slice(part);
    *bytes = rest;
    Ok(end.is_some())
}

/// Where the empty line ends, looked for from `from` on.
fn end_of_head(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr(b'\n', &bytes[from..])? + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => from = at,
        }
    }
}

/// Takes lines behind the last chunk; true if the empty one was there.
fn trailers(bytes: &mut &[u8], message: &mut Message, keep: &mut Keep<'_>) -> Result<bool, Stop> {
    let end = memchr(b'\n', bytes);
    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
    *bytes = rest;
    if message.trailers.len() + part.len() > HEAD_BYTES_MAX {
        return Err(Stop::Beyond("trailers of more than 65536 bytes"));
    }
    if !keep.budget.take(part.len()) {
        return Err(Stop::Beyond("more at once than a trace keeps"));
    }
    message.trailers.extend_from_slice(part);
    let line_start = |line: &[u8]| line.is_empty() || line.ends_with(b"\n");
    let is_over = match message.trailers.as_slice() {
        [before @ .., b'\r', b'\n'] | [before @ .., b'\n'] => line_start(before),
        _ => false,
    };
    Ok(is_over)
}

/// Takes at most `left` bytes of a body; returns how many.
fn take_body(bytes: &mut &[u8], left: u64, message: &mut Message, keep: &mut Keep<'_>) -> u64 {
    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let (part, rest) = bytes.split_at(count);
    *bytes = rest;
    message.body_bytes += count as u64;
    // A gap in the middle would be read as if it weren't there.
    let is_whole_so_far = message.body.len() as u64 + count as u64 == message.body_bytes;
    if keep.bodies && is_whole_so_far {
        let kept = &part[..count.min(BODY_BYTES_MAX - message.body.len())];
        if keep.budget.take(kept.len()) {
            message.body.extend_from_slice(kept);
        }
    }
    count as u64
}

/// Lines without their ends, up to the empty one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        (!line.is_empty()).then_some(line)
    })
}

fn fields(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(bytes).map(|line| match memchr(b':', line) {
        Some(colon) => (&line[..colon], line[colon + 1..].trim_ascii()),
        None => (&[][..], line.trim_ascii()),
    })
}

/// `token` of RFC 9110.
pub fn is_token(bytes: &[u8]) -> bool {
    let is_token = |byte: &u8| {
        matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#'..=b'\'' | b'*' | b'+')
            || matches!(byte, b'^' | b'`' | b'|' | b'~')
    };
    !bytes.is_empty() && bytes.iter().all(is_token)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn chunk_length(line: &[u8]) -> Result<u64, Stop> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let follows = line[end..].trim_ascii_start().first();
    if end == 0 || end > 16 || !matches!(follows, None | Some(b';')) {
        return Err(Stop::Malformed("a chunk's length that is no number"));
    }
    let digit = |byte: &u8| (*byte as char).to_digit(16).unwrap_or(0);
    Ok(line[..end].iter().fold(0, |number, byte| number << 4 | u64::from(digit(byte))))
}
