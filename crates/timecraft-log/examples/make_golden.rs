//! Writes the golden logs of the current format version: `make_golden DIRECTORY`.
//!
//! To be run once per format version; what it wrote is committed and never written again. Each case
//! is a directory with segments, and beside it a dump of its records, one a line:
//! `seq time_ns call errno args written sent digested`, numbers in decimal, lists joined by `,` or
//! `-` if empty, regions as `address:hex`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use timecraft_log::{
    CALL_END, CALL_START, Compression, Head, LogConfig, LogReader, LogSummary, Output, RecordView, Regions, RingWriter,
};

type Region<'a> = (u32, &'a [u8]);
/// Appends the records of a case.
type Case = fn(&mut RingWriter);

fn append(
    ring: &mut RingWriter,
    call: u16,
    errno: u16,
    time_ns: u64,
    args: &[u64],
    w: &[Region<'_>],
    s: &[Region<'_>],
) {
    let head = Head { call, errno, time_ns };
    ring.append(&head, args, w.iter().copied(), s.iter().copied()).expect("appended");
}

/// Every shape of record that the format codes in a way of its own.
fn shapes(ring: &mut RingWriter) {
    append(ring, CALL_START, 0, 0, &[1, 1_700_000_000_000_000_000], &[], &[(0, br#"{"module":"golden"}"#)]);
    for i in 0..200u64 {
        let time_ns = 1_000 + i * 113 + i % 7;
        let clock = (1_700_000_000_000_000_000 + time_ns).to_le_bytes();
        let four = (i as u32 * 3).to_le_bytes();
        let text = format!("line {i} of the guest's output, number {i}\n");
        let noise = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        match i % 8 {
            0 => append(ring, 5, 0, time_ns, &[1, 0, 4096], &[(4096, &clock)], &[]),
            1 => append(ring, 5, 28, time_ns, &[9, 0, 4096], &[], &[]),
            2 => append(ring, 35, 0, time_ns, &[3, 64, 1, 72], &[(72, &four)], &[(8192, text.as_bytes())]),
            3 => append(ring, 33, 0, time_ns, &[4, 64, 1, 72], &[(9000, &[7; 33]), (72, &four)], &[(64, &noise)]),
            4 => append(ring, 44, 0, time_ns, &[100, 8], &[(100, &noise)], &[]),
            5 => append(ring, 1000 + i as u16, i as u16, time_ns - 50, &[u64::MAX, i, 0, 5], &[], &[]),
            6 => append(ring, 5, 0, time_ns, &[1, 0, 4096], &[(4096, &(time_ns + i).to_le_bytes())], &[]),
            _ => append(ring, 40, 0, time_ns, &[], &[(0, &[]), (u32::MAX, b"x")], &[(1, &[]), (2, &four)]),
        }
    }
    append(ring, CALL_END, 0, 99_999, &[0, 3], &[], &[(0, "exit, with \u{e9}".as_bytes())]);
}

/// A record above the size of a block, compressible and not.
fn large(ring: &mut RingWriter) {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..5_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    append(ring, 33, 0, 10, &[3], &[(4096, &noise), (64, &5_000u32.to_le_bytes())], &[]);
    append(ring, 33, 0, 20, &[3], &[(4096, &[b'a'; 5_000]), (64, &5_000u32.to_le_bytes())], &[]);
    append(ring, 33, 0, 30, &[3], &[], &[(4096, &noise[..200])]);
}

/// Data with addresses before them, of calls that keep none, two, and all of what they send.
fn addressed(ring: &mut RingWriter) {
    let (address, data) = ([7u8; 128], [b'd'; 100]);
    for call in [33, 52, 49] {
        append(
            ring,
            call,
            0,
            u64::from(call),
            &[3],
            &[],
            &[(8, &[1; 8]), (4096, &address), (64, &[2; 8]), (9000, &data)],
        );
    }
    append(ring, 52, 0, 60, &[3], &[], &[(8, &[1; 8]), (4096, &address), (64, &[2; 8]), (9000, &data[..50])]);
}

fn kept(call: u16) -> u8 {
    match call {
        52 => 2,
        49 => timecraft_log::KEEP_ALL,
        _ => 0,
    }
}

fn write(dir: &Path, config: LogConfig, records: fn(&mut RingWriter)) -> LogSummary {
    let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).expect("started");
    records(&mut ring);
    let summary = handle.finish().expect("finished");
    for rest in ["lock", "lost"] {
        std::fs::remove_file(dir.join(rest)).expect("removed");
    }
    summary
}

fn list(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".into() } else { joined }
}

fn regions(regions: Regions<'_>) -> String {
    list(regions.map(|(ptr, bytes)| {
        bytes.iter().fold(format!("{ptr}:"), |mut text, byte| {
            write!(text, "{byte:02x}").expect("to a string");
            text
        })
    }))
}

/// The line of a record in a dump.
pub fn dump_line(record: &RecordView<'_>) -> String {
    format!(
        "{} {} {} {} {} {} {} {}",
        record.seq(),
        record.time_ns(),
        record.call(),
        record.errno(),
        list(record.args().iter().map(u64::to_string)),
        regions(record.written()),
        regions(record.sent()),
        u8::from(record.digested()),
    )
}

/// The dump of the log in `dir`.
pub fn dump(dir: &Path) -> String {
    let mut reader = LogReader::open(dir).expect("a log");
    let mut text = String::new();
    while let Some(record) = reader.next().expect("a good log") {
        text.push_str(&dump_line(&record));
        text.push('\n');
    }
    text
}

/// Writes all cases to `root`.
pub fn make(root: &Path) {
    let process = *b"golden log v2 \0\xff";
    let small = |name: &str| LogConfig { block_bytes_max: 1 << 10, ..LogConfig::new(root.join(name), process) };
    let cases: [(&str, LogConfig, Case); 5] = [
        ("raw", LogConfig { compression: Compression::None, ..small("raw") }, shapes),
        ("lz4_segments", LogConfig { segment_bytes_max: 2 << 10, ..small("lz4_segments") }, shapes),
        ("large", small("large"), large),
        ("digest", LogConfig { output: Output::Digest, epoch: 2, ..small("digest") }, large),
        ("kept", LogConfig { output: Output::Digest, kept, ..small("kept") }, addressed),
    ];
    for (name, config, records) in cases {
        write(&root.join(name), config, records);
        std::fs::write(root.join(format!("{name}.txt")), dump(&root.join(name))).expect("dumped");
    }
}

#[allow(dead_code)] // the test that includes this file has its own
fn main() {
    let root = std::env::args().nth(1).expect("usage: make_golden DIRECTORY");
    make(Path::new(&root));
}
