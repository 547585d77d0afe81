//! Measures the log's hot paths; prints one JSON object per line.

#![allow(clippy::cast_precision_loss)] // measurements have three digits

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::iter::{empty, once};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use timecraft_log::{BLOCK_HEADER_LEN, Head, LogConfig, LogReader, LogSummary, Ring, RingIdentity, RingWriter};

/// Values of a small linear congruential generator: jitter that repeats from run to run.
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn report(name: &str, value: f64, unit: &str) {
    println!("{{\"name\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\"}}");
}

/// CPU seconds of all threads but the calling one, which plays the guest: what the writer took.
/// On a machine that others share, this says more than the time on the wall.
fn writer_cpu() -> f64 {
    let seconds = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    seconds(ClockId::ProcessCPUTime) - seconds(ClockId::ThreadCPUTime)
}

/// Best of three: the machine is shared.
fn best(mut run: impl FnMut() -> f64, better: fn(f64, f64) -> f64) -> f64 {
    let first = run();
    (0..2).fold(first, |best, _| better(best, run()))
}

/// Rings belong on tmpfs.
fn ring_path() -> PathBuf {
    PathBuf::from(format!("/dev/shm/timecraft-bench-{}.ring", std::process::id()))
}

fn write(dir: &Path, append: impl FnOnce(&mut RingWriter)) -> LogSummary {
    let config = LogConfig { ring_path: Some(ring_path()), ..LogConfig::new(dir, [7; 16]) };
    let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).expect("log");
    append(&mut ring);
    handle.finish().expect("finish")
}

/// A clock read in a loop.
fn clock_loop(ring: &mut RingWriter, count: u64) {
    let mut jitter = Jitter(1);
    let mut time_ns = 0;
    for _ in 0..count {
        time_ns += 70 + jitter.next() % 61;
        let clock = (1_700_000_000_000_000_000 + time_ns).to_le_bytes();
        let head = Head { call: 5, errno: 0, time_ns };
        ring.append(&head, &[1, 0, 4096], once((4096, clock.as_slice())), empty()).expect("room");
    }
}

/// Requests of a small server: poll, read, clock, write.
fn call_mix(ring: &mut RingWriter, count: u64) {
    let mut jitter = Jitter(2);
    let mut time_ns = 0;
    let request = b"GET /items/000 HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n";
    for i in 0..count {
        time_ns += 500 + jitter.next() % 2000;
        let head = Head { call: 20 + (i % 4) as u16, errno: 0, time_ns };
        let four = (request.len() as u32).to_le_bytes();
        let clock = (1_700_000_000_000_000_000 + time_ns).to_le_bytes();
        let fd = 5 + jitter.next() % 8;
        let mut text = *request;
        text[11..14].copy_from_slice(format!("{:03}", jitter.next() % 1000).as_bytes());
        let none = empty::<(u32, &[u8])>();
        match i % 4 {
            0 => ring.append(&head, &[1024, 2048, 1, 64], [(2048, &clock[..]), (64, &four[..])].into_iter(), none),
            1 => ring.append(&head, &[fd, 512, 1, 64], [(9000, &text[..]), (64, &four[..])].into_iter(), none),
            2 => ring.append(&head, &[1, 0, 4096], once((4096, &clock[..])), none),
            _ => ring.append(&head, &[fd, 512, 1, 64], once((64, &four[..])), once((9200, &text[..]))),
        }
        .expect("room");
    }
}

/// The cost on the guest's thread: a ring of the default size, emptied outside the measured time.
fn bench_append() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("directory");
    let ring_bytes = 8 << 20;
    let identity = RingIdentity { process: [7; 16], epoch: 0, digest: false };
    let ring = Ring::create(&dir.path().join("ring"), ring_bytes, &identity).expect("ring");
    let (mut ring, mut reader) = ring.split(0, Arc::new(AtomicBool::new(false)));
    let payload = [1u8; 32];
    let batch = ring_bytes / 96 / 3;
    let mut append_batch = || {
        let begin = Instant::now();
        for i in 0..batch as u64 {
            let head = Head { call: 3, errno: 0, time_ns: i };
            let written = once((4096, black_box(&payload[..])));
            ring.append(&head, black_box(&[1, 2, 3]), written, empty()).expect("room");
        }
        let ns = begin.elapsed().as_nanos() as f64 / batch as f64;
        while reader.next().is_some() {}
        reader.release(reader.position());
        ns
    };
    let mut runs: Vec<f64> = (0..60).map(|_| append_batch()).collect();
    runs.sort_by(f64::total_cmp);
    report("ring_append_96B", runs[runs.len() / 2], "ns");
}

fn bench_blocks() {
    let dir = tempfile::tempdir().expect("directory");
    let count = 2_000_000;
    let begin = Instant::now();
    let cpu = writer_cpu();
    let summary = write(dir.path(), |ring| call_mix(ring, count));
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), writer_cpu() - cpu);
    report("block_compress", summary.stats.bytes_raw as f64 / seconds / 1e9, "GB/s");
    report("block_compress_cpu", summary.stats.bytes_raw as f64 / cpu / 1e9, "GB/CPU s");
    report("call_mix_stored", summary.stats.bytes_stored as f64 / count as f64, "B/record");
    report("call_mix_rate", count as f64 / seconds / 1e6, "M records/s");
    report("call_mix_decode", best(|| decode_rate(dir.path()), f64::max), "M records/s");
}

fn decode_rate(dir: &Path) -> f64 {
    let mut reader = LogReader::open(dir).expect("log");
    let begin = Instant::now();
    let (mut count, mut sum) = (0u64, 0u64);
    while let Some(record) = reader.next().expect("good log") {
        count += 1;
        sum = sum.wrapping_add(record.time_ns()).wrapping_add(record.args()[0]);
    }
    black_box(sum);
    count as f64 / begin.elapsed().as_secs_f64() / 1e6
}

fn bench_clock_loop() {
    let dir = tempfile::tempdir().expect("directory");
    let count = 4_000_000;
    let summary = write(dir.path(), |ring| clock_loop(ring, count));
    report("clock_loop_stored", summary.stats.bytes_stored as f64 / count as f64, "B/record");
    report("decode", best(|| decode_rate(dir.path()), f64::max), "M records/s");
}

/// Incompressible reads of 64 KiB, to the page cache.
fn bench_bulk() {
    let rate = |dir: &Path, cpu_only: bool| {
        let mut jitter = Jitter(3);
        let data: Vec<u8> = (0..64 << 10).map(|_| jitter.next() as u8).collect();
        let count = 16_000_u64; // 1 GiB
        let (begin, cpu) = (Instant::now(), writer_cpu());
        let config = LogConfig { fsync_interval: None, ring_path: Some(ring_path()), ..LogConfig::new(dir, [7; 16]) };
        let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).expect("log");
        for i in 0..count {
            let head = Head { call: 3, errno: 0, time_ns: i };
            ring.append(&head, &[1, 2, 3], once((65536, data.as_slice())), empty()).expect("room");
        }
        while handle.stats().next_seq_written < count {
            std::thread::sleep(Duration::from_micros(100));
        }
        let wall = begin.elapsed().as_secs_f64();
        let seconds = if cpu_only { writer_cpu() - cpu } else { wall };
        drop(handle);
        std::fs::remove_file(ring_path()).expect("the ring is left");
        (count as usize * (data.len() + BLOCK_HEADER_LEN)) as f64 / seconds / 1e9
    };
    let disk = || tempfile::tempdir().expect("directory");
    let tmpfs = || tempfile::tempdir_in("/dev/shm").expect("directory");
    report("bulk_64KiB", best(|| rate(disk().path(), false), f64::max), "GB/s");
    report("bulk_64KiB_tmpfs", best(|| rate(tmpfs().path(), false), f64::max), "GB/s");
    report("bulk_64KiB_tmpfs_cpu", best(|| rate(tmpfs().path(), true), f64::max), "GB/CPU s");
}

/// From nothing to a record anywhere in a log of 1 GiB: the median of a hundred.
fn bench_open() {
    let dir = tempfile::tempdir().expect("directory");
    let mut jitter = Jitter(4);
    let data: Vec<u8> = (0..64 << 10).map(|_| jitter.next() as u8).collect();
    let count = 16_000_u64;
    write(dir.path(), |ring| {
        for i in 0..count {
            let head = Head { call: 3, errno: 0, time_ns: i };
            ring.append(&head, &[1, 2, 3], once((65536, data.as_slice())), empty()).expect("room");
        }
    });
    let mut open = || {
        let seq = jitter.next() % count;
        let begin = Instant::now();
        let mut reader = LogReader::open(dir.path()).expect("log");
        reader.seek(seq).expect("good log");
        assert_eq!(reader.next().expect("good log").expect("a record").seq(), seq);
        begin.elapsed().as_secs_f64() * 1e3
    };
    let mut runs: Vec<f64> = (0..100).map(|_| open()).collect();
    runs.sort_by(f64::total_cmp);
    report("open_1GiB", runs[runs.len() / 2], "ms");
}

/// Runs all, or those whose names contain an argument.
fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all: [(&str, fn()); 5] = [
        ("append", bench_append),
        ("blocks", bench_blocks),
        ("clock_loop", bench_clock_loop),
        ("bulk", bench_bulk),
        ("open", bench_open),
    ];
    for (name, run) in all {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted)) {
            run();
        }
    }
}
