//! Records as differences to the previous record of the same call, within one block.

use crate::bytes::{Cursor, put_varint, unzigzag, zigzag};
use crate::record::{ARGS_MAX, Head, RECORD_BYTES_MAX, REGIONS_MAX, RecordView, pack_region, region_len, region_ptr};

/// Bits of a record's first byte.
mod tag {
    /// The template is the one that the previous record used: no slot follows.
    pub const SAME_SLOT: u8 = 0x01;
    /// All arguments are the template's.
    pub const SAME_ARGS: u8 = 0x02;
    /// All regions lie where the template's do, and are as long.
    pub const SAME_LAYOUT: u8 = 0x04;
    /// Number regions are coded as differences to the template's.
    pub const NUMBERS: u8 = 0x08;
    /// The first number grew by as much as the time did, and is left out.
    pub const CLOCK: u8 = 0x10;
    /// The last sent region is a digest.
    pub const DIGESTED: u8 = 0x20;
    pub const KNOWN: u8 = 0x3f;
}

/// Differences of more bits than this are no numbers but text or random bytes, left to LZ4.
const NUMBER_BITS_MAX: u32 = 40;

/// The previous record of one call with one outcome.
#[derive(Debug, Default)]
struct Template {
    call: u16,
    errno: u16,
    time_ns: u64,
    args: Vec<u64>,
    regions: Vec<u64>,
    written_count: usize,
    /// By region, the value of the latest number region in this place; 0 if there was none.
    numbers: Vec<u64>,
    payload_len: usize,
}

impl Template {
    fn reset(&mut self, call: u16, errno: u16, time_ns: u64) {
        self.call = call;
        self.errno = errno;
        self.time_ns = time_ns;
        self.args.clear();
        self.regions.clear();
        self.numbers.clear();
        self.written_count = 0;
        self.payload_len = 0;
    }
}

/// Whether a region may be coded as a number, judging by its length.
#[inline]
const fn is_number(region: u64) -> bool {
    matches!(region_len(region), 4 | 8)
}

/// The number in `bytes`, which are 4 or 8.
#[inline]
fn load_number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => u64::from_le_bytes(bytes.try_into().expect("a number has 4 or 8 bytes")),
    }
}

/// `to - from` as a signed difference of numbers of `len` bytes.
#[inline]
const fn number_delta(from: u64, to: u64, len: u32) -> u64 {
    let delta = to.wrapping_sub(from);
    if len == 4 { delta as u32 as i32 as u64 } else { delta }
}

#[inline]
const fn delta_u32(from: u32, to: u32) -> u64 {
    zigzag(number_delta(from as u64, to as u64, 4))
}

/// Templates of a block, and what else both directions keep between records.
#[derive(Debug, Default)]
struct State {
    /// The first `used` belong to this block; the rest keep their memory for later ones.
    templates: Vec<Template>,
    used: usize,
    last_slot: usize,
    time_ns: u64,
    first_time_ns: u64,
}

impl State {
    fn begin(&mut self, first_time_ns: u64) {
        self.used = 0;
        self.last_slot = usize::MAX;
        self.time_ns = first_time_ns;
        self.first_time_ns = first_time_ns;
    }

    fn add(&mut self, call: u16, errno: u16) {
        self.last_slot = self.used;
        self.used += 1;
        if self.templates.len() < self.used {
            self.templates.push(Template::default());
        }
        self.templates[self.last_slot].reset(call, errno, self.first_time_ns);
    }
}

/// Encodes the records of one block after the other.
#[derive(Debug, Default)]
pub(crate) struct RecordEncoder {
    state: State,
}

impl RecordEncoder {
    /// Starts a block whose first record has this time.
    pub fn begin(&mut self, first_time_ns: u64) {
        self.state.begin(first_time_ns);
    }

    /// Appends `record` to `out`, but for its verbatim bytes, which go behind: those are the
    /// regions that are no numbers if this returns true, and all regions otherwise.
    #[inline]
    pub fn encode(&mut self, record: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
        let at = out.len();
        out.push(0);
        let mut tag = self.encode_slot(record.head.call, record.head.errno, out);
        let time_ns = record.head.time_ns;
        put_varint(out, time_ns.wrapping_sub(self.state.time_ns));
        self.state.time_ns = time_ns;
        let template = &mut self.state.templates[self.state.last_slot];
        if template.args == record.args {
            tag |= tag::SAME_ARGS;
        } else {
            encode_args(&template.args, record.args, out);
            template.args.clear();
            template.args.extend_from_slice(record.args);
        }
        if template.written_count == record.written_count && template.regions == record.regions {
            tag |= tag::SAME_LAYOUT;
        } else {
            encode_layout(template, record, out);
            template.regions.clear();
            template.regions.extend_from_slice(record.regions);
            template.written_count = record.written_count;
            template.numbers.resize(record.regions.len(), 0);
        }
        if record.digested {
            tag |= tag::DIGESTED;
        }
        let time_delta = time_ns.wrapping_sub(template.time_ns);
        template.time_ns = time_ns;
        let numbers = encode_numbers(template, record, time_delta, out);
        out[at] = tag | numbers;
        numbers & tag::NUMBERS != 0
    }

    #[inline]
    fn encode_slot(&mut self, call: u16, errno: u16, out: &mut Vec<u8>) -> u8 {
        let state = &mut self.state;
        let fits = |template: &Template| template.call == call && template.errno == errno;
        if state.templates.get(state.last_slot).is_some_and(fits) {
            return tag::SAME_SLOT;
        }
        if let Some(slot) = state.templates[..state.used].iter().position(fits) {
            put_varint(out, slot as u64);
            state.last_slot = slot;
        } else {
            put_varint(out, state.used as u64);
            put_varint(out, u64::from(call));
            put_varint(out, u64::from(errno));
            state.add(call, errno);
        }
        0
    }
}

fn encode_args(old: &[u64], new: &[u64], out: &mut Vec<u8>) {
    if old.len() != new.len() {
        put_varint(out, (new.len() as u64) << 1 | 1);
        for &arg in new {
            put_varint(out, arg);
        }
        return;
    }
    let changed = || old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
    let mask = changed().fold(0u64, |mask, (i, _)| mask | 1 << i);
    put_varint(out, mask << 1);
    for (_, (old, new)) in changed() {
        put_varint(out, zigzag(new.wrapping_sub(*old)));
    }
}

fn encode_layout(template: &Template, record: &RecordView<'_>, out: &mut Vec<u8>) {
    let same_counts = template.written_count == record.written_count && template.regions.len() == record.regions.len();
    if same_counts {
        out.push(0);
    } else {
        put_varint(out, record.written_count as u64 + 1);
        put_varint(out, (record.regions.len() - record.written_count) as u64);
    }
    for (i, &region) in record.regions.iter().enumerate() {
        let old = template.regions.get(i).copied().unwrap_or(0);
        put_varint(out, delta_u32(region_ptr(old), region_ptr(region)));
        put_varint(out, delta_u32(region_len(old), region_len(region)));
    }
}

/// Codes number regions as differences if all are small; remembers their values in any case.
fn encode_numbers(template: &mut Template, record: &RecordView<'_>, time_delta: u64, out: &mut Vec<u8>) -> u8 {
    let at = out.len();
    let mut tag = 0;
    let mut all_small = true;
    let mut payload = record.payload;
    for (&region, known) in record.regions.iter().zip(&mut template.numbers) {
        let len = region_len(region);
        let (bytes, rest) = payload.split_at(len as usize);
        payload = rest;
        if !is_number(region) {
            *known = 0;
            continue;
        }
        let number = load_number(bytes);
        let delta = number_delta(*known, number, len);
        *known = number;
        let code = zigzag(delta);
        all_small &= code >> NUMBER_BITS_MAX == 0;
        if tag == 0 && len == 8 && delta == time_delta {
            tag = tag::NUMBERS | tag::CLOCK;
            continue;
        }
        tag |= tag::NUMBERS;
        put_varint(out, code);
    }
    if !all_small {
        out.truncate(at);
        return 0;
    }
    tag
}

/// The parts of `record` that go verbatim behind what [`RecordEncoder::encode`] wrote.
pub(crate) fn verbatim<'a>(record: &RecordView<'a>, numbers: bool, mut part: impl FnMut(&'a [u8])) {
    if !numbers {
        return part(record.payload);
    }
    let mut payload = record.payload;
    for &region in record.regions {
        let (bytes, rest) = payload.split_at(region_len(region) as usize);
        payload = rest;
        if !is_number(region) {
            part(bytes);
        }
    }
}

/// Decodes the records of one block after the other. Never panics, whatever the bytes.
#[derive(Debug, Default)]
pub(crate) struct RecordDecoder {
    state: State,
    /// Bytes of the current record's regions, where they had to be put together.
    payload: Vec<u8>,
}

impl RecordDecoder {
    /// Starts a block whose first record has this time.
    pub fn begin(&mut self, first_time_ns: u64) {
        self.state.begin(first_time_ns);
    }

    /// Decodes the record at `pos` of `raw`; returns it and the position behind it.
    #[inline]
    pub fn decode<'a>(&'a mut self, raw: &'a [u8], pos: usize, seq: u64) -> Option<(RecordView<'a>, usize)> {
        let mut cursor = Cursor::new(raw, pos);
        let tag = cursor.byte()?;
        if tag & !tag::KNOWN != 0 {
            return None;
        }
        self.decode_slot(tag, &mut cursor)?;
        let time_ns = self.state.time_ns.wrapping_add(cursor.varint()?);
        self.state.time_ns = time_ns;
        let template = self.state.templates.get_mut(self.state.last_slot)?;
        let time_delta = time_ns.wrapping_sub(template.time_ns);
        template.time_ns = time_ns;
        if tag & tag::SAME_ARGS == 0 {
            decode_args(&mut template.args, &mut cursor)?;
        }
        if tag & tag::SAME_LAYOUT == 0 {
            decode_layout(template, &mut cursor)?;
        }
        let payload = if tag & tag::NUMBERS == 0 {
            let payload = cursor.take(template.payload_len)?;
            remember_numbers(template, payload);
            payload
        } else {
            let clock = (tag & tag::CLOCK != 0).then_some(time_delta);
            decode_numbers(template, clock, &mut self.payload, &mut cursor)?;
            &self.payload
        };
        let record = RecordView {
            head: Head { call: template.call, errno: template.errno, time_ns },
            seq,
            args: &template.args,
            regions: &template.regions,
            written_count: template.written_count,
            payload,
            digested: tag & tag::DIGESTED != 0,
            kept: 0,
            image: &[],
        };
        Some((record, cursor.pos()))
    }

    #[inline]
    fn decode_slot(&mut self, tag: u8, cursor: &mut Cursor<'_>) -> Option<()> {
        if tag & tag::SAME_SLOT != 0 {
            return Some(());
        }
        let slot = usize::try_from(cursor.varint()?).ok()?;
        if slot > self.state.used {
            return None;
        }
        if slot < self.state.used {
            self.state.last_slot = slot;
        } else {
            let call = u16::try_from(cursor.varint()?).ok()?;
            let errno = u16::try_from(cursor.varint()?).ok()?;
            self.state.add(call, errno);
        }
        Some(())
    }
}

fn decode_args(args: &mut Vec<u64>, cursor: &mut Cursor<'_>) -> Option<()> {
    let code = cursor.varint()?;
    if code & 1 != 0 {
        let count = usize::try_from(code >> 1).ok().filter(|&count| count <= ARGS_MAX)?;
        args.clear();
        for _ in 0..count {
            args.push(cursor.varint()?);
        }
        return Some(());
    }
    let mut mask = code >> 1;
    if mask >> args.len() != 0 {
        return None;
    }
    while mask != 0 {
        let arg = &mut args[mask.trailing_zeros() as usize];
        *arg = arg.wrapping_add(unzigzag(cursor.varint()?));
        mask &= mask - 1;
    }
    Some(())
}

fn decode_layout(template: &mut Template, cursor: &mut Cursor<'_>) -> Option<()> {
    let code = cursor.varint()?;
    if code != 0 {
        let written = usize::try_from(code - 1).ok()?;
        let sent = usize::try_from(cursor.varint()?).ok()?;
        if written.max(sent) > REGIONS_MAX {
            return None;
        }
        template.written_count = written;
        template.regions.resize(written + sent, 0);
        template.numbers.resize(written + sent, 0);
    }
    let mut payload_len = 0;
    for region in &mut template.regions {
        let ptr = region_ptr(*region).wrapping_add(unzigzag(cursor.varint()?) as u32);
        let len = region_len(*region).wrapping_add(unzigzag(cursor.varint()?) as u32);
        *region = pack_region(ptr, len);
        payload_len += len as usize;
    }
    template.payload_len = payload_len;
    (payload_len <= RECORD_BYTES_MAX).then_some(())
}

fn remember_numbers(template: &mut Template, mut payload: &[u8]) {
    for (&region, known) in template.regions.iter().zip(&mut template.numbers) {
        let (bytes, rest) = payload.split_at(region_len(region) as usize);
        payload = rest;
        *known = if is_number(region) { load_number(bytes) } else { 0 };
    }
}

/// Puts together in `payload` the regions of a record that codes its numbers as differences.
fn decode_numbers(
    template: &mut Template,
    mut clock: Option<u64>,
    payload: &mut Vec<u8>,
    cursor: &mut Cursor<'_>,
) -> Option<()> {
    payload.clear();
    for (&region, known) in template.regions.iter().zip(&mut template.numbers) {
        if !is_number(region) {
            *known = 0;
            continue;
        }
        let delta = match clock.take() {
            Some(delta) => delta,
            None => unzigzag(cursor.varint()?),
        };
        *known = known.wrapping_add(delta);
        if region_len(region) == 4 {
            *known = u64::from(*known as u32);
        }
    }
    for (&region, &number) in template.regions.iter().zip(&template.numbers) {
        match region_len(region) {
            8 => payload.extend_from_slice(&number.to_le_bytes()),
            4 => payload.extend_from_slice(&(number as u32).to_le_bytes()),
            len => payload.extend_from_slice(cursor.take(len as usize)?),
        }
    }
    Some(())
}
