//! Counts host calls and how long they take, for whoever looks on while the guest runs.
//!
//! [`Metered`] goes around everything else, so a call takes as long here as it does for the guest, its record included.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::calls::CALLS;
use crate::clock::Clock;
use crate::recorder::End;
use crate::{Call, Errno, Halt, Memory, System};

/// What calls are about; latencies are kept for each of these and not for each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Clock,
    Environment,
    File,
    Path,
    Poll,
    Process,
    Random,
    Read,
    Socket,
    SocketData,
    Sync,
    Write,
}

/// Their names, in their order.
const KINDS: [&str; 12] = [
    "clock",
    "environment",
    "file",
    "path",
    "poll",
    "process",
    "random",
    "read",
    "socket",
    "socket_data",
    "sync",
    "write",
];

/// Powers of two of nanoseconds: each bucket ends at one of these, and one more is for what takes longer.
const BUCKET_MIN: u32 = 8;
const BUCKET_MAX: u32 = 34;
const BUCKETS: usize = (BUCKET_MAX - BUCKET_MIN) as usize + 2;

/// Of the calls that don't wait by their nature one in this many is timed: two readings of the clock take longer than
/// the shortest calls.
const TIMED_ONE_IN: u64 = 64;

/// What a guest's thread has counted. It alone writes, so nothing needs more than a relaxed store.
#[derive(Debug)]
pub struct Meter {
    /// Calls that are over, and of them those that failed.
    calls: [AtomicU64; CALLS.len()],
    again: [AtomicU64; CALLS.len()],
    errors: [AtomicU64; CALLS.len()],
    kinds: [Latencies; KINDS.len()],
}

#[derive(Debug, Default)]
struct Latencies {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::default());
        Meter { calls: zeros(), again: zeros(), errors: zeros(), kinds: Default::default() }
    }
}

#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Meter {
    /// Adds what was counted to `sums`, by name: `call:NAME:ok`, `:again` and `:error` as far as they occurred,
    /// `took:KIND:N` for timed calls of up to 2^N nanoseconds (`inf` for those beyond), and `took_ns:KIND`, which is
    /// there for all kinds.
    pub fn add_to(&self, sums: &mut BTreeMap<String, u64>) {
        let mut note = |name: String, count: u64| *sums.entry(name).or_default() += count;
        for (at, spec) in CALLS.iter().enumerate() {
            let counters = [&self.calls[at], &self.again[at], &self.errors[at]];
            let [calls, again, error] = counters.map(|counter| counter.load(Relaxed));
            let ok = calls.saturating_sub(again + error);
            for (outcome, count) in [("ok", ok), ("again", again), ("error", error)] {
                if count > 0 {
                    note(format!("call:{}:{outcome}", spec.name), count);
                }
            }
        }
        for (kind, latencies) in KINDS.iter().zip(&self.kinds) {
            note(format!("took_ns:{kind}"), latencies.sum_ns.load(Relaxed));
            for (exponent, count) in (BUCKET_MIN..).zip(&latencies.buckets) {
                match count.load(Relaxed) {
                    0 => {}
                    count if exponent > BUCKET_MAX => note(format!("took:{kind}:inf"), count),
                    count => note(format!("took:{kind}:{exponent}"), count),
                }
            }
        }
    }

    #[cold]
    fn failed(&self, call: Call, errno: Errno) {
        let counters = if errno == Errno::Again { &self.again } else { &self.errors };
        add(&counters[call as usize], 1);
        add(&self.calls[call as usize], 1);
    }

    fn time(&self, call: Call, took_ns: u64) {
        let latencies = &self.kinds[kind(call) as usize];
        add(&latencies.buckets[bucket(took_ns)], 1);
        add(&latencies.sum_ns, took_ns);
    }
}

/// The bucket whose bound is the least power of two that is not below.
fn bucket(took_ns: u64) -> usize {
    let exponent = u64::BITS - took_ns.saturating_sub(1).leading_zeros();
    (exponent.clamp(BUCKET_MIN, BUCKET_MAX + 1) - BUCKET_MIN) as usize
}

/// What a call is about.
fn kind(call: Call) -> Kind {
    match call {
        Call::ClockResGet | Call::ClockTimeGet => Kind::Clock,
        Call::ArgsGet | Call::ArgsSizesGet | Call::EnvironGet | Call::EnvironSizesGet => Kind::Environment,
        Call::RandomGet => Kind::Random,
        Call::PollOneoff => Kind::Poll,
        Call::ProcExit | Call::ProcRaise | Call::SchedYield => Kind::Process,
        Call::FdRead | Call::FdPread | Call::FdReaddir => Kind::Read,
        Call::FdWrite | Call::FdPwrite => Kind::Write,
        Call::FdSync | Call::FdDatasync => Kind::Sync,
        Call::SockRecv | Call::SockSend | Call::SockSendTo | Call::SockRecvFrom | Call::SockRecvFromV1 => {
            Kind::SocketData
        }
        call if call >= Call::SockAccept => Kind::Socket,
        call if (Call::PathCreateDirectory..=Call::PathUnlinkFile).contains(&call) => Kind::Path,
        _ => Kind::File,
    }
}

/// Which calls of each are timed: those with a number that has none of these bits.
const UNTIMED: [u64; CALLS.len()] = {
    let mut untimed = [TIMED_ONE_IN - 1; CALLS.len()];
    // Beside what these wait for, two readings of a clock are nothing.
    let waiting = [Call::PollOneoff, Call::FdSync, Call::FdDatasync, Call::SockConnect, Call::SockGetaddrinfo];
    let mut at = 0;
    while at < waiting.len() {
        untimed[waiting[at] as usize] = 0;
        at += 1;
    }
    untimed
};

/// Counts every call of `inner`, and times some.
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
    clock: Arc<dyn Clock>,
}

impl<S: System> Metered<S> {
    /// Counts in `meter`, and takes times from `clock`.
    pub fn new(inner: S, meter: Arc<Meter>, clock: Arc<dyn Clock>) -> Self {
        Metered { inner, meter, clock }
    }

    #[cold]
    fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    #[cold]
    fn time(&self, call: Call, begun_ns: u64) {
        self.meter.time(call, self.clock.monotonic_ns().saturating_sub(begun_ns));
    }
}

impl<S: System> System for Metered<S> {
    #[inline]
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let at = call as usize;
        let begun = self.meter.calls[at].load(Relaxed);
        let begun_ns = (begun & UNTIMED[at] == 0).then(|| self.now_ns());
        let outcome = self.inner.call(call, args, memory);
        if let Some(begun_ns) = begun_ns {
            self.time(call, begun_ns);
        }
        match &outcome {
            Ok(Errno::Success) | Err(Halt::Exit(_)) => self.meter.calls[at].store(begun + 1, Relaxed),
            Ok(errno) => self.meter.failed(call, *errno),
            // It has no result.
            Err(_) => {}
        }
        outcome
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.inner.end(end)
    }
}

impl<S: fmt::Debug> fmt::Debug for Metered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Notes;

    /// Each reading is a microsecond after the one before.
    #[derive(Default)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn monotonic_ns(&self) -> u64 {
            self.0.fetch_add(1_000, Relaxed)
        }

        fn realtime_ns(&self) -> u64 {
            unreachable!("latencies are of monotonic time")
        }

        fn thread_cpu_ns(&self) -> u64 {
            unreachable!("latencies are of monotonic time")
        }
    }

    struct Answers(Result<Errno, Halt>);

    impl System for Answers {
        fn call(&mut self, _: Call, _: &[u64], _: &mut Memory<'_>) -> Result<Errno, Halt> {
            self.0.clone()
        }
    }

    /// What a meter says after so many calls of each kind, and how often the clock was read.
    fn counted(calls: &[(Call, Result<Errno, Halt>, usize)]) -> (BTreeMap<String, u64>, u64) {
        let (meter, clock) = (Arc::new(Meter::default()), Arc::new(Ticking::default()));
        let mut metered = Metered::new(Answers(Ok(Errno::Success)), Arc::clone(&meter), clock.clone());
        for (call, answer, count) in calls {
            metered.inner.0 = answer.clone();
            for _ in 0..*count {
                let mut notes = Notes::default();
                assert_eq!(metered.call(*call, &[], &mut Memory::new(&mut [], &mut notes)), *answer);
            }
        }
        let mut sums = BTreeMap::new();
        meter.add_to(&mut sums);
        sums.retain(|_, count| *count > 0);
        (sums, clock.0.load(Relaxed) / 1_000)
    }

    fn sums(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
        expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn calls_are_counted_by_outcome() {
        let (found, _) = counted(&[
            (Call::FdRead, Ok(Errno::Success), 3),
            (Call::FdRead, Ok(Errno::Again), 2),
            (Call::FdRead, Ok(Errno::Io), 1),
            (Call::ProcExit, Err(Halt::Exit(1)), 1),
        ]);
        let expected = [("call:fd_read:ok", 3), ("call:fd_read:again", 2), ("call:fd_read:error", 1)];
        let timed = [("took:read:10", 1), ("took_ns:read", 1_000), ("took:process:10", 1), ("took_ns:process", 1_000)];
        assert_eq!(found, sums(&[&expected[..], &timed, &[("call:proc_exit:ok", 1)]].concat()));
    }

    #[test]
    fn one_call_in_some_is_timed_and_each_that_waits() {
        let (found, readings) = counted(&[(Call::ClockTimeGet, Ok(Errno::Success), 129)]);
        assert_eq!((found["took:clock:10"], readings), (3, 6));
        let (found, readings) = counted(&[(Call::PollOneoff, Ok(Errno::Success), 129)]);
        assert_eq!((found["took:poll:10"], readings), (129, 258));
    }

    #[test]
    fn calls_without_a_result_are_timed_alone() {
        let (found, _) = counted(&[(Call::PollOneoff, Err(Halt::Killed(crate::Kill::Signal(9))), 1)]);
        assert_eq!(found, sums(&[("took:poll:10", 1), ("took_ns:poll", 1_000)]));
    }

    #[test]
    fn buckets_end_at_powers_of_two() {
        for (took_ns, exponent) in [(0, 8), (256, 8), (257, 9), (512, 9), (513, 10), (1 << 34, 34)] {
            assert_eq!(bucket(took_ns) as u32 + BUCKET_MIN, exponent, "{took_ns}");
        }
        assert_eq!(bucket((1 << 34) + 1), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn each_kind_has_a_call_and_each_call_a_kind() {
        let mut found: Vec<_> = CALLS.iter().map(|spec| kind(spec.call)).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.iter().map(|kind| *kind as usize).collect::<Vec<_>>(), (0..KINDS.len()).collect::<Vec<_>>());
    }
}
