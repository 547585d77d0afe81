//! What the tests share: records with known content, and whole logs of them.

#![allow(dead_code)] // each test binary uses its part

pub mod disk;

use proptest::prelude::*;
use std::io::{BufRead as _, BufReader};
use std::iter;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use timecraft_log::{AppendError, Head, LogConfig, LogError, LogReader, LogWriterHandle, RecordView, RingWriter};

pub const PROCESS: [u8; 16] = *b"0123456789abcdef";

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub call: u16,
    pub errno: u16,
    pub time_ns: u64,
    pub args: Vec<u64>,
    pub written: Vec<(u32, Vec<u8>)>,
    pub sent: Vec<(u32, Vec<u8>)>,
}

impl Record {
    pub fn append_to(&self, ring: &mut RingWriter) -> Result<u64, AppendError> {
        let head = Head { call: self.call, errno: self.errno, time_ns: self.time_ns };
        ring.append(&head, &self.args, borrow(&self.written), borrow(&self.sent))
    }

    pub fn of(view: &RecordView<'_>) -> Self {
        let own = |(ptr, bytes): (u32, &[u8])| (ptr, bytes.to_vec());
        Self {
            call: view.call(),
            errno: view.errno(),
            time_ns: view.time_ns(),
            args: view.args().to_vec(),
            written: view.written().map(own).collect(),
            sent: view.sent().map(own).collect(),
        }
    }
}

fn borrow(regions: &[(u32, Vec<u8>)]) -> impl Iterator<Item = (u32, &[u8])> + Clone {
    regions.iter().map(|(ptr, bytes)| (*ptr, bytes.as_slice()))
}

/// The `i`th of a sequence of records of many shapes, reproducible.
pub fn sample(i: u64) -> Record {
    let byte = (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let clock = (1_700_000_000_000_000_000 + i * 1_000).to_le_bytes().to_vec();
    let data = vec![byte; usize::from(byte) * 3 % 200];
    let (call, written, sent) = match i % 4 {
        0 => (20, vec![(4096, clock)], vec![]),
        1 => (30, vec![(8192, data), (64, vec![byte, 0, 0, 0])], vec![(32, clock)]),
        2 => (31, vec![(64, vec![byte, 0, 0, 0])], vec![(9000, data)]),
        _ => (40, vec![], vec![]),
    };
    Record { call, errno: u16::from(byte < 16), time_ns: i * 1_000, args: vec![i % 7, i, 4096], written, sent }
}

pub fn samples(count: u64) -> Vec<Record> {
    (0..count).map(sample).collect()
}

/// A configuration with everything small, so that every edge is met often.
pub fn small_config(dir: &Path) -> LogConfig {
    LogConfig {
        ring_bytes: 64 << 10,
        block_bytes_max: 1 << 10,
        segment_bytes_max: 8 << 10,
        ..LogConfig::new(dir, PROCESS)
    }
}

pub fn start(config: LogConfig) -> (RingWriter, LogWriterHandle) {
    timecraft_log::start(config, Arc::new(AtomicBool::new(false))).expect("a log")
}

/// Writes a finished log.
pub fn write_log(config: LogConfig, records: &[Record]) {
    let (mut ring, handle) = start(config);
    for record in records {
        record.append_to(&mut ring).expect("room");
    }
    handle.finish().expect("finished");
}

/// All that a reader gives until the end, and the error it ended with, if any.
pub fn read_all(reader: &mut LogReader) -> (Vec<(u64, Record)>, Option<LogError>) {
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(view)) => found.push((view.seq(), Record::of(&view))),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

pub fn read_log(dir: &Path) -> Vec<Record> {
    let mut reader = LogReader::open(dir).expect("a log");
    let (found, error) = read_all(&mut reader);
    assert!(error.is_none(), "{error:?}");
    assert!(found.iter().zip(0..).all(|((seq, _), i)| *seq == i), "numbered without gaps");
    found.into_iter().map(|(_, record)| record).collect()
}

pub fn no_regions<'a>() -> iter::Empty<(u32, &'a [u8])> {
    iter::empty()
}

fn regions(count_max: usize, len_max: usize) -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let len = prop_oneof![Just(0), Just(4), Just(8), 0..len_max];
    let bytes = len.prop_flat_map(|len| prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], len));
    prop::collection::vec((prop_oneof![Just(64u32), any::<u32>()], bytes), 0..count_max)
}

/// Any record, with a bias to what is alike from one to the next.
pub fn any_record(len_max: usize) -> impl Strategy<Value = Record> {
    let number = prop_oneof![0u64..4, any::<u64>()];
    let call = prop_oneof![0u16..3, any::<u16>()];
    let errno = prop_oneof![Just(0u16), Just(6), any::<u16>()];
    let args = prop::collection::vec(number, 0..=timecraft_log::ARGS_MAX);
    let time = prop_oneof![0u64..1_000_000, any::<u64>()];
    (call, errno, time, args, regions(4, len_max), regions(3, len_max))
        .prop_map(|(call, errno, time_ns, args, written, sent)| Record { call, errno, time_ns, args, written, sent })
}

/// Starts the ignored test `writer` as a process with `variable` set to `dir`, and kills it when it has reported
/// `count` records as appended, one `seq N` a line; returns the last one.
pub fn run_and_kill(writer: &str, variable: &str, dir: &Path, count: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", writer, "--ignored", "--nocapture"])
        .env(variable, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut last, mut seen) = (None, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        if let Some(seq) = line.strip_prefix("seq ").and_then(|seq| seq.parse::<u64>().ok()) {
            // The last line may be cut off by the kill; its number is then smaller than the one before.
            last = last.max(Some(seq));
            seen += 1;
            if seen == count {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    last.expect("the process appended")
}
