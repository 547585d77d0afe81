//! Gives a guest the world that a log tells of.
//!
//! [`Replayer`] answers each call with the next record's results and touches nothing else. It checks on the way that
//! the guest asks what it asked when it was recorded, and stops at the first difference.

mod divergence;
mod inputs;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use divergence::{Actual, Divergence, DivergenceKind, Expected};

use crate::abi::size;
use crate::calls::Kind;
pub use crate::recorder::Source;
use crate::recorder::{CALL_END, CALL_START, End, Record, SourceError};
use crate::{Call, Errno, Halt, Kill, KillSwitch, Memory, System};

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to stop early.
    pub until: Option<Until>,
    /// Compare arguments and inputs. Without it only the sequence of calls is checked.
    pub verify: bool,
    /// Overwrite result structures before each successful call's results are applied, so that a byte which the host
    /// wrote but nobody recorded makes a difference that tests notice.
    pub poison: bool,
    /// Thrown in place of a halt when the guest is to be killed right behind a call that returned to it. The call then
    /// returns first, as it did when it was recorded.
    pub kill_switch: Option<Arc<KillSwitch>>,
}

impl Default for Options {
    fn default() -> Self {
        Options { until: None, verify: true, poison: false, kill_switch: None }
    }
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// This record is the last to be delivered.
    Seq(u64),
    /// Records later than this are not delivered, nanoseconds since the process began.
    TimeNs(u64),
}

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    /// As the process did.
    Complete(End),
    /// The guest did something else than the log says.
    Diverged(Box<Divergence>),
    /// The log just ends: its process lives, or its host died.
    LogEnded { last_seq: Option<u64> },
    /// The log is damaged behind `last_seq`.
    LogDamaged { error: String, last_seq: Option<u64> },
    /// A file that the record behind `last_seq` refers to is not what it was.
    InputLost { error: String, last_seq: Option<u64> },
    /// [`Options::until`] was reached; `next_seq` is the record not delivered.
    Until { next_seq: u64 },
    /// Somebody outside ended the replay, and not where the process was ended.
    Interrupted { kill: Kill, last_seq: Option<u64> },
}

impl ReplayEnd {
    fn at_error(error: SourceError, last_seq: Option<u64>) -> Self {
        match error {
            SourceError::Log(error) => ReplayEnd::LogDamaged { error, last_seq },
            SourceError::Input(error) => ReplayEnd::InputLost { error, last_seq },
        }
    }
}

/// The world according to a log.
#[derive(Debug)]
pub struct Replayer<R> {
    source: R,
    options: Options,
    /// Bounds from [`Options::until`]: the last record and time to be delivered.
    seq_max: u64,
    time_max_ns: u64,
    /// The record behind which the guest is killed, and how. Known from the start, so that a guest which was killed
    /// while it computed doesn't compute for ever in a replay.
    kill: Option<(u64, Kill)>,
    last_seq: Option<u64>,
    /// The guest's `proc_exit` was delivered: its end is known, even if its host died before it could be recorded.
    has_exited: bool,
    is_over: bool,
    report: Report,
}

/// What there is to say about a replay once it is over. The replayer itself may be deep in a stack of decorators then.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<Mutex<Option<ReplayEnd>>>);

impl Report {
    /// How the replay ended, once it has.
    pub fn end(&self) -> Option<ReplayEnd> {
        self.lock().clone()
    }

    /// Where the guest was when it diverged, if it did.
    pub fn set_backtrace(&self, backtrace: &str) {
        if let Some(ReplayEnd::Diverged(divergence)) = &mut *self.lock() {
            divergence.backtrace = Some(backtrace.to_owned());
        }
    }

    /// The first end stands.
    fn set(&self, end: ReplayEnd) -> ReplayEnd {
        self.lock().get_or_insert(end).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ReplayEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Source> Replayer<R> {
    /// A replay of `source` from its next record on.
    pub fn new(mut source: R, options: Options) -> Self {
        // What is wrong with the tail is told when the replay gets there.
        let last = source.last().ok().flatten();
        let kill = last.and_then(|record| match End::of(&&record)? {
            End::Killed(kill) => Some((record.seq, kill)),
            _ => None,
        });
        let (seq_max, time_max_ns) = match options.until {
            None => (u64::MAX, u64::MAX),
            Some(Until::Seq(seq)) => (seq, u64::MAX),
            Some(Until::TimeNs(time_ns)) => (u64::MAX, time_ns),
        };
        Replayer {
            source,
            options,
            seq_max,
            time_max_ns,
            kill,
            last_seq: None,
            has_exited: false,
            is_over: false,
            report: Report::default(),
        }
    }

    /// Tells how the replay ended, once it has, wherever the replayer is then.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// The number of the last record that was delivered.
    pub fn last_seq(&self) -> Option<u64> {
        self.last_seq
    }

    /// Whether the guest was killed before its next call returned. To be asked before a guest starts: it may have been
    /// killed before its first call, and nothing would stop it now.
    pub fn expects_end(&self) -> bool {
        let Some((end_seq, _)) = &self.kill else { return false };
        // Record 0 begins the epoch, it is no call.
        *end_seq == self.last_seq.map_or(0, |seq| seq.wrapping_add(1)) || (self.last_seq.is_none() && *end_seq == 1)
    }

    /// How the guest is killed in the end, if it is.
    pub fn recorded_kill(&self) -> Option<Kill> {
        self.kill.as_ref().map(|(_, kill)| kill.clone())
    }

    /// Compares the guest's end with the log's. To be called when the guest has returned, trapped or been stopped;
    /// what has ended the replay before stands.
    pub fn finish(&mut self, actual: &End) -> ReplayEnd {
        if let Some(end) = self.report.end() {
            return end;
        }
        self.is_over = true;
        let end = self.compare_end(actual);
        self.report.set(end)
    }

    fn compare_end(&mut self, actual: &End) -> ReplayEnd {
        loop {
            let record = match self.source.next() {
                Ok(Some(record)) => record,
                Ok(None) if self.has_exited => return ReplayEnd::Complete(actual.clone()),
                Ok(None) => return ReplayEnd::LogEnded { last_seq: self.last_seq },
                Err(error) => return ReplayEnd::at_error(error, self.last_seq),
            };
            if record.call() == CALL_START {
                continue;
            }
            let (expected, kind) = match End::of(&record) {
                Some(end) if end.agrees_with(actual) => return ReplayEnd::Complete(end),
                _ if let End::Killed(kill) = actual => {
                    return ReplayEnd::Interrupted { kill: kill.clone(), last_seq: self.last_seq };
                }
                Some(end) => (Expected::End(end), DivergenceKind::DifferentEnd),
                None => (Expected::Call(crate::recorder::OwnedRecord::copy_of(&record)), DivergenceKind::UnexpectedEnd),
            };
            let actual = Actual::End(actual.clone());
            let divergence = Divergence { seq: record.seq(), expected, actual, kind, backtrace: None };
            return ReplayEnd::Diverged(Box::new(divergence));
        }
    }

    /// Ends the replay; the guest halts.
    #[cold]
    fn stop(&mut self, end: ReplayEnd) -> Halt {
        let halt = match &end {
            ReplayEnd::Complete(End::Killed(kill)) => Halt::Killed(kill.clone()),
            _ => Halt::Replay,
        };
        self.is_over = true;
        self.report.set(end);
        halt
    }

    /// What follows an end record that the guest has made a call at: a resumption, or nothing.
    #[cold]
    fn at_end(&mut self, seq: u64, end: Option<End>, call: Call, args: &[u64], memory: &Memory<'_>) -> Option<Halt> {
        let last_seq = self.last_seq;
        let damaged = |error: String| ReplayEnd::LogDamaged { error, last_seq };
        let next = self.source.next().map(|next| next.map(|record| (record.call(), record.seq())));
        let outcome = match (next, end) {
            (Ok(Some((CALL_START, start_seq))), _) => {
                self.last_seq = Some(start_seq);
                return None;
            }
            (Ok(Some(_)), _) => damaged(format!("record {seq} is an end, but records follow")),
            (Err(error), _) => ReplayEnd::at_error(error, last_seq),
            (Ok(None), None) => damaged(format!("record {seq} is an end of unknown kind")),
            (Ok(None), Some(End::Killed(kill))) => ReplayEnd::Complete(End::Killed(kill)),
            (Ok(None), Some(end)) => ReplayEnd::Diverged(Divergence::at_end(seq, end, call, args, memory)),
        };
        Some(self.stop(outcome))
    }

    /// Halts the guest where it was killed, behind a call that returned to it.
    #[cold]
    fn killed(&mut self, errno: Errno) -> Result<Errno, Halt> {
        let Some((_, kill)) = self.kill.clone() else { return Ok(errno) };
        let halt = self.stop(ReplayEnd::Complete(End::Killed(kill.clone())));
        match &self.options.kill_switch {
            Some(switch) => {
                switch.request(kill);
                Ok(errno)
            }
            None => Err(halt),
        }
    }
}

impl<R: Source> System for Replayer<R> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        if self.is_over {
            return Err(Halt::Replay);
        }
        loop {
            match self.step(call, args, memory) {
                Step::Delivered(seq, errno) => {
                    self.last_seq = Some(seq);
                    return self.delivered(seq, call, args, errno);
                }
                Step::Epoch(seq) => self.last_seq = Some(seq),
                Step::End(seq, end) => {
                    if let Some(halt) = self.at_end(seq, end, call, args, memory) {
                        return Err(halt);
                    }
                }
                Step::Stopped(end) => return Err(self.stop(end)),
            }
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        match self.finish(end) {
            ReplayEnd::Complete(_) => Ok(()),
            _ => Err(Halt::Replay),
        }
    }
}

/// What the next record means for a call.
enum Step {
    /// The call's results are in guest memory.
    Delivered(u64, Errno),
    /// An epoch begins; the call's record comes later.
    Epoch(u64),
    /// The process ended here when it was recorded.
    End(u64, Option<End>),
    Stopped(ReplayEnd),
}

impl<R: Source> Replayer<R> {
    #[inline]
    fn step(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Step {
        let last_seq = self.last_seq;
        let record = match self.source.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Step::Stopped(ReplayEnd::LogEnded { last_seq }),
            Err(error) => return Step::Stopped(ReplayEnd::at_error(error, last_seq)),
        };
        let seq = record.seq();
        if let Some(last) = last_seq
            && seq != last.wrapping_add(1)
        {
            let error = format!("record {seq} follows record {last}: those between are missing");
            return Step::Stopped(ReplayEnd::LogDamaged { error, last_seq });
        }
        match record.call() {
            CALL_START => return Step::Epoch(seq),
            CALL_END => return Step::End(seq, End::of(&record)),
            _ => {}
        }
        if seq > self.seq_max || record.time_ns() > self.time_max_ns {
            return Step::Stopped(ReplayEnd::Until { next_seq: seq });
        }
        match deliver(&record, &self.options, call, args, memory) {
            Ok(errno) => Step::Delivered(seq, errno),
            Err(Refusal::Damaged(error)) => Step::Stopped(ReplayEnd::LogDamaged { error, last_seq }),
            Err(Refusal::Diverged(kind)) => {
                let divergence = Divergence::at_call(&record, kind, call, args, memory);
                Step::Stopped(ReplayEnd::Diverged(divergence))
            }
        }
    }

    #[inline]
    fn delivered(&mut self, seq: u64, call: Call, args: &[u64], errno: Errno) -> Result<Errno, Halt> {
        if call == Call::ProcExit {
            self.has_exited = true;
            return Err(Halt::Exit(args.first().map_or(0, |code| *code as u32)));
        }
        match &self.kill {
            Some((end_seq, _)) if *end_seq == seq.wrapping_add(1) => self.killed(errno),
            _ => Ok(errno),
        }
    }
}

/// Why a record isn't this call's.
enum Refusal {
    Diverged(DivergenceKind),
    Damaged(String),
}

/// Gives the guest what the record says, if the record is this call's.
#[inline]
fn deliver(
    record: &impl Record,
    options: &Options,
    call: Call,
    args: &[u64],
    memory: &mut Memory<'_>,
) -> Result<Errno, Refusal> {
    if record.call() != call as u16 {
        return Err(Refusal::Diverged(DivergenceKind::UnexpectedCall));
    }
    let errno = divergence::errno_of(record).map_err(Refusal::Damaged)?;
    compare(record, call, args, memory, options.verify).map_err(Refusal::Diverged)?;
    if options.poison && errno == Errno::Success {
        poison(call, args, memory);
    }
    for (ptr, bytes) in record.written() {
        memory.write(ptr, bytes).map_err(|_| Refusal::Diverged(out_of_memory(ptr, bytes, memory)))?;
    }
    Ok(errno)
}

/// Compares what the guest asks with what it asked when it was recorded. Inputs are noted, as they were then, for the
/// decorators above.
#[inline]
fn compare(
    record: &impl Record,
    call: Call,
    args: &[u64],
    memory: &mut Memory<'_>,
    verify: bool,
) -> Result<(), DivergenceKind> {
    if verify && record.args() != args {
        return Err(argument_difference(record.args(), args));
    }
    for (index, (ptr, expected)) in record.inputs().enumerate() {
        match memory.sent(ptr, expected.len() as u32) {
            Ok(actual) if verify && actual != expected => return Err(input_difference(index, ptr, expected, actual)),
            Err(_) if verify => return Err(out_of_memory(ptr, expected, memory)),
            _ => {}
        }
    }
    if record.digested() { compare_digest(record, call, args, memory, verify) } else { Ok(()) }
}

#[cold]
fn compare_digest(
    record: &impl Record,
    call: Call,
    args: &[u64],
    memory: &mut Memory<'_>,
    verify: bool,
) -> Result<(), DivergenceKind> {
    let (total, digest) = record.sent().last().unwrap_or_default();
    let is_same = inputs::match_digest(call, args, memory, record.inputs().count(), total, digest);
    if verify && !is_same { Err(DivergenceKind::UnexpectedDigest) } else { Ok(()) }
}

#[cold]
fn argument_difference(expected: &[u64], actual: &[u64]) -> DivergenceKind {
    let same = expected.iter().zip(actual).take_while(|(a, b)| a == b).count();
    DivergenceKind::UnexpectedArgument { index: same }
}

/// Bytes around a difference that a report shows, a multiple of 16.
const EXCERPT_BYTES: usize = 16;

#[cold]
fn input_difference(region: usize, ptr: u32, expected: &[u8], actual: &[u8]) -> DivergenceKind {
    let offset = expected.iter().zip(actual).take_while(|(a, b)| a == b).count();
    let start = offset - offset % EXCERPT_BYTES;
    let excerpt = |bytes: &[u8]| bytes[start..bytes.len().min(start + EXCERPT_BYTES)].to_vec();
    DivergenceKind::UnexpectedInput { region, ptr, offset, expected: excerpt(expected), actual: excerpt(actual) }
}

#[cold]
fn out_of_memory(ptr: u32, bytes: &[u8], memory: &Memory<'_>) -> DivergenceKind {
    DivergenceKind::OutOfMemory { ptr, len: bytes.len() as u32, memory_bytes: memory.size() }
}

/// What unrecorded bytes of results become.
const POISON: u8 = 0xaa;

/// Overwrites the result cells of a call that all successful calls fill.
#[cold]
fn poison(call: Call, args: &[u64], memory: &mut Memory<'_>) {
    let mut at = 0;
    for param in call.spec().params {
        let len = match param.kind {
            Kind::OutU32 | Kind::OutFd => 4,
            Kind::OutU64 | Kind::OutTime => 8,
            Kind::OutFlags => 2,
            Kind::OutFdstat => size::FDSTAT,
            Kind::OutFilestat => size::FILESTAT,
            Kind::OutPrestat => size::PRESTAT,
            _ => 0,
        };
        let ptr = args.get(at).map_or(0, |ptr| *ptr as u32);
        if let Ok(cell) = memory.buffer(ptr, len) {
            cell.fill(POISON);
        }
        at += param.kind.types().len();
    }
}
