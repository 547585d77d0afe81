//! Records of socket calls with any content, traced in all forms.

use timecraft_engine::Call;
use timecraft_engine::calls::CALLS;
use timecraft_engine::recorder::{CALL_START, OwnedRecord, Record};
use timecraft_engine::timemachine::form::Form;
use timecraft_engine::timemachine::requests::KEPT_BYTES_MAX;
use timecraft_engine::timemachine::{Layer, Options, Tracker, Window};

use crate::input::Input;

const RECORDS_MAX: usize = 256;
/// What HTTP is made of, so that chance gets anywhere.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"HEAD /x HTTP/1.0\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: zstd, deflate\r\n",
    b"\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n",
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"\x28\xb5\x2f\xfd\x04\x58",
    b"\x1b[2J",
];

struct Seen {
    record: OwnedRecord,
    digested: bool,
}

impl Record for Seen {
    fn seq(&self) -> u64 {
        self.record.seq
    }

    fn call(&self) -> u16 {
        self.record.call
    }

    fn errno(&self) -> u16 {
        self.record.errno
    }

    fn time_ns(&self) -> u64 {
        self.record.time_ns
    }

    fn args(&self) -> &[u64] {
        &self.record.args
    }

    fn written(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.record.written.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice()))
    }

    fn sent(&self) -> impl Iterator<Item = (u32, &[u8])> + Clone {
        self.record.sent.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice()))
    }

    fn digested(&self) -> bool {
        self.digested
    }
}

/// Traces records made of bytes; what is shown must be harmless, and what is kept bounded and given back.
pub fn traffic(data: &[u8]) {
    for layer in [Layer::Network, Layer::Request] {
        let mut input = Input::new(data);
        let form = [Form::Text, Form::Json, Form::Yaml][input.below(3)];
        let options = Options { form, verbose: input.byte() % 4 > 0, ..Options::default() };
        let mut tracker = Tracker::new(layer, options, Window::default());
        let mut text = String::new();
        for seq in 0..RECORDS_MAX as u64 {
            if input.is_empty() {
                break;
            }
            let seen = Seen { record: record(&mut input, seq), digested: input.byte() % 16 == 0 };
            tracker.observe(&seen);
            assert!(tracker.kept_bytes() <= KEPT_BYTES_MAX);
            if input.byte() % 4 == 0 {
                text += &tracker.take();
            }
        }
        text += &tracker.finish();
        assert_eq!(tracker.kept_bytes(), 0, "what was kept is given back");
        let harmful = |char: char| char.is_control() && char != '\n';
        assert!(!text.contains(harmful), "a control character gets through");
    }
}

fn record(input: &mut Input<'_>, seq: u64) -> OwnedRecord {
    let fd = 3 + u64::from(input.byte() % 4);
    let errno = if input.byte() % 8 == 0 { u16::from(input.byte()) } else { 0 };
    let mut record = OwnedRecord { seq, errno, time_ns: seq * 1_000, ..OwnedRecord::default() };
    let call = match input.below(12) {
        0 => Call::SockOpen,
        1 => Call::SockConnect,
        2 => Call::SockAccept,
        3 => Call::FdClose,
        4..=9 => {
            let reads = input.byte() % 2 == 0;
            transfer(input, fd, reads, &mut record);
            if reads { Call::FdRead } else { Call::FdWrite }
        }
        10 if input.byte() % 16 == 0 => {
            record.call = CALL_START;
            record.args = vec![input.u64(), input.u64()];
            return record;
        }
        _ => CALLS[input.below(CALLS.len())].call,
    };
    record.call = call as u16;
    if record.args.is_empty() {
        let count = call.spec().types().len();
        record.args = (0..count).map(|index| if index == 0 { fd } else { u64::from(input.byte() % 64) }).collect();
        record.sent = regions(input);
        record.written = regions(input);
        if matches!(call, Call::SockOpen | Call::SockAccept) {
            let fd = 3 + u32::from(input.byte() % 4);
            record.written = vec![(record.args[2] as u32, fd.to_le_bytes().to_vec())];
            record.args[0] = if call == Call::SockOpen { 1 } else { record.args[0] };
        }
    }
    record
}

/// A call that moves bytes: pieces of HTTP, or anything.
fn transfer(input: &mut Input<'_>, fd: u64, reads: bool, record: &mut OwnedRecord) {
    let mut bytes = Vec::new();
    for _ in 0..input.below(6) {
        let len = input.below(12);
        bytes.extend_from_slice(if len < 8 { PIECES[input.below(PIECES.len())] } else { input.take(len) });
    }
    let list = [0u32, 4096].map(u32::to_le_bytes).concat();
    let count = (512, (bytes.len() as u32 + u32::from(input.byte() % 32 == 0)).to_le_bytes().to_vec());
    record.args = vec![fd, 8, 1, 512];
    if reads {
        (record.sent, record.written) = (vec![(8, list)], vec![(64, bytes), count]);
    } else {
        (record.sent, record.written) = (vec![(8, list), (64, bytes)], vec![count]);
    }
}

fn regions(input: &mut Input<'_>) -> Vec<(u32, Vec<u8>)> {
    let lengths = [0, 2, 4, 8, 16, 24, 32, 48, 128];
    let region = |input: &mut Input<'_>| {
        let len = lengths[input.below(lengths.len())];
        let mut bytes = input.take(len).to_vec();
        bytes.resize(len, 0);
        (u32::from(input.byte() % 64), bytes)
    };
    (0..input.below(4)).map(|_| region(input)).collect()
}
