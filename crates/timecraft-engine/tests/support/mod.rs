//! What the tests of decorators share: a world that does as it is told, guests' memory, logs.

#![allow(dead_code)] // each test uses a part

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use timecraft_engine::calls::kept;
use timecraft_engine::clock::Clock;
use timecraft_engine::memory::Notes;
use timecraft_engine::recorder::{CALL_START, Head, MemorySink, MemorySource, OwnedRecord, Sink, Source};
use timecraft_engine::{Call, End, Errno, Halt, Memory, System};
use timecraft_log::{LogConfig, LogReader, RingWriter};

/// Guest memory in these tests, bytes.
pub const MEMORY_BYTES: usize = 1 << 16;

/// One call, what the guest has in memory then, and what the world does.
#[derive(Clone, Debug)]
pub struct Case {
    pub call: Call,
    pub args: Vec<u64>,
    /// What the guest has put into its memory and the world reads, in this order.
    pub inputs: Vec<(u32, Vec<u8>)>,
    /// What the world writes, in this order.
    pub outputs: Vec<(u32, Vec<u8>)>,
    pub outcome: Result<Errno, Halt>,
}

impl Case {
    pub fn new(call: Call, args: &[u64]) -> Self {
        Case { call, args: args.to_vec(), inputs: Vec::new(), outputs: Vec::new(), outcome: Ok(Errno::Success) }
    }

    pub fn input(mut self, ptr: u32, bytes: &[u8]) -> Self {
        self.inputs.push((ptr, bytes.to_vec()));
        self
    }

    pub fn output(mut self, ptr: u32, bytes: &[u8]) -> Self {
        self.outputs.push((ptr, bytes.to_vec()));
        self
    }

    pub fn fails(mut self, errno: Errno) -> Self {
        self.outcome = Ok(errno);
        self
    }

    pub fn halts(mut self, halt: Halt) -> Self {
        self.outcome = Err(halt);
        self
    }

    /// Guest memory when the call is made.
    pub fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY_BYTES];
        for (ptr, input) in &self.inputs {
            bytes[*ptr as usize..*ptr as usize + input.len()].copy_from_slice(input);
        }
        bytes
    }

    /// Makes the call, and returns what came of it and of guest memory.
    pub fn run(&self, system: &mut dyn System) -> (Result<Errno, Halt>, Vec<u8>) {
        self.run_with(system, self.memory())
    }

    /// Makes the call with other memory.
    pub fn run_with(&self, system: &mut dyn System, mut bytes: Vec<u8>) -> (Result<Errno, Halt>, Vec<u8>) {
        let mut notes = Notes::default();
        let outcome = system.call(self.call, &self.args, &mut Memory::new(&mut bytes, &mut notes));
        (outcome, bytes)
    }
}

/// A world that does what the current case says. Clones share the case.
#[derive(Clone, Debug, Default)]
pub struct Scripted(Arc<Mutex<Option<Case>>>);

impl Scripted {
    pub fn set(&self, case: &Case) {
        *self.0.lock().unwrap() = Some(case.clone());
    }
}

impl System for Scripted {
    fn call(&mut self, call: Call, _args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let case = self.0.lock().unwrap().clone().expect("a case was set");
        if call == Call::SockShutdown && case.call != call {
            // Faults reset connections so.
            return Ok(Errno::Success);
        }
        assert_eq!(call, case.call);
        for (ptr, bytes) in &case.inputs {
            memory.sent(*ptr, bytes.len() as u32).unwrap();
        }
        for (ptr, bytes) in &case.outputs {
            memory.write(*ptr, bytes).unwrap();
        }
        case.outcome
    }
}

/// A clock that goes on by a microsecond at each look.
#[derive(Debug, Default)]
pub struct StepClock(std::sync::atomic::AtomicU64);

impl Clock for StepClock {
    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1_000, std::sync::atomic::Ordering::Relaxed)
    }

    fn realtime_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.monotonic_ns()
    }

    fn thread_cpu_ns(&self) -> u64 {
        self.monotonic_ns()
    }
}

/// Appends the record that begins a log.
pub fn begin(sink: &mut impl Sink) {
    let head = Head { call: CALL_START, errno: 0, time_ns: 0 };
    let manifest: [(u32, &[u8]); 1] = [(0, b"{}")];
    sink.append(&head, &[0, 1_700_000_000_000_000_000], std::iter::empty(), manifest.into_iter()).unwrap();
}

/// Runs `write` on a log in memory and returns a source of it.
pub fn memory_log(write: impl FnOnce(MemorySink) -> MemorySink) -> MemorySource {
    let mut sink = MemorySink::default();
    begin(&mut sink);
    MemorySource::new(write(sink).records)
}

/// The same on disk, through ring, blocks and segments.
pub fn disk_log(config: LogConfig, write: impl FnOnce(RingWriter) -> RingWriter) -> LogReader {
    let dir = config.dir.clone();
    let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).unwrap();
    begin(&mut ring);
    drop(write(ring));
    handle.finish().unwrap();
    LogReader::open(&dir).unwrap()
}

pub fn log_config(dir: &Path) -> LogConfig {
    LogConfig { ring_bytes: 64 << 20, fsync_interval: None, kept, ..LogConfig::new(dir, [7; 16]) }
}

/// All records of a log but the first, which begins it.
pub fn records(source: &mut impl Source) -> Vec<OwnedRecord> {
    let mut records = Vec::new();
    while let Some(record) = source.next().unwrap() {
        records.push(OwnedRecord::copy_of(&record));
    }
    records.remove(0);
    records
}

/// The recorded end of a process, as a record of number `seq`.
pub fn end_record(seq: u64, end: &End) -> OwnedRecord {
    let mut sink = MemorySink::default();
    end.append_to(&mut sink, 0).unwrap();
    OwnedRecord { seq, ..sink.records.remove(0) }
}

/// Compares text with a file beside the tests. `UPDATE_GOLDEN=1` writes the file.
pub fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(actual.lines()).position(|(a, b)| a != b);
    if let Some(line) = differs {
        let (expected, actual) = (expected.lines().nth(line).unwrap(), actual.lines().nth(line).unwrap());
        panic!("{name}:{}: expected\n  {expected}\nis\n  {actual}\n(UPDATE_GOLDEN=1 accepts)", line + 1);
    }
    assert_eq!(expected.lines().count(), actual.lines().count(), "lines of {name} (UPDATE_GOLDEN=1 accepts)");
}
