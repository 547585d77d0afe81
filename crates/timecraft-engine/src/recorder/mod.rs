//! Writes down what passes between a guest and its world.
//!
//! [`Recorder`] lets each call through and then appends one record: what the guest asked for, what came back, and when.
//! It runs on the guest's thread, so it allocates nothing and takes no lock.

mod end;
mod record;

use std::fmt;
use std::sync::Arc;

pub use crate::system::End;
pub use record::{
    CALL_END, CALL_START, CONTROL_BASE, Head, MemorySink, MemorySource, OwnedRecord, Record, Sink, SinkError, Source,
    SourceError,
};

use crate::abi::clockid;
use crate::clock::Clock;
use crate::reference::REFERRING;
use crate::{Call, Errno, Halt, Memory, System};

/// Records every call of `inner` in `sink`.
pub struct Recorder<S, W> {
    inner: S,
    sink: W,
    timeline: Timeline,
}

impl<S: System, W: Sink> Recorder<S, W> {
    /// `time_zero_ns` is the reading of the monotonic clock that is time 0 of the log. For a process that resumes at
    /// time t of its log that is t before now, wrapping around if need be.
    pub fn new(inner: S, sink: W, clock: Arc<dyn Clock>, time_zero_ns: u64) -> Self {
        Recorder { inner, sink, timeline: Timeline::new(clock, time_zero_ns) }
    }

    /// The decorated system.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The decorated system.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The log, for records that aren't calls.
    pub fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Takes the recorder apart.
    pub fn into_parts(self) -> (S, W) {
        (self.inner, self.sink)
    }
}

impl<S: System, W: Sink> System for Recorder<S, W> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        if call.is_output(args) {
            self.sink.before_output().map_err(|error| Halt::Log(error.0))?;
        }
        let outcome = self.inner.call(call, args, memory);
        let errno = match outcome {
            Ok(errno) => errno,
            // The guest's own end is a call like others; any other halt has no result that a replay could deliver.
            Err(Halt::Exit(_)) => Errno::Success,
            Err(_) => return outcome,
        };
        let time_ns = self.timeline.time_of(call, args, errno, memory);
        let head = Head { call: call as u16, errno: errno as u16, time_ns };
        let appended = match memory.reference() {
            None => self.sink.append(&head, args, memory.written(), memory.inputs()),
            Some(reference) => {
                let head = Head { call: head.call | REFERRING, ..head };
                let written = memory.written().enumerate();
                let written = written.map(|(at, (ptr, bytes))| (ptr, if at == 0 { reference } else { bytes }));
                self.sink.append(&head, args, written, memory.inputs())
            }
        };
        match appended {
            Ok(_) => outcome,
            Err(error) => Err(Halt::Log(error.0)),
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.inner.end(end)?;
        let time_ns = self.timeline.now_ns();
        end.append_to(&mut self.sink, time_ns).map(|_| ()).map_err(|error| Halt::Log(error.0))
    }
}

impl<S: fmt::Debug, W: fmt::Debug> fmt::Debug for Recorder<S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("inner", &self.inner).field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// A derived time further than this ahead of the last record is not believed, nanoseconds.
const LEAP_MAX_NS: u64 = 1_000_000_000;
/// A guest's monotonic reading this close behind ours comes from the same clock, nanoseconds.
const SAME_CLOCK_MAX_NS: u64 = 10_000_000;

/// The times of records. They never decrease.
///
/// Reading the clock is a large part of the cost of a record, and guests read it more than anything else: where the
/// result of the call is itself a time, the record's time is derived from it.
struct Timeline {
    clock: Arc<dyn Clock>,
    zero_ns: u64,
    last_ns: u64,
    /// What to add to a guest's reading to get a record's time (wrapping), by clock id: realtime, monotonic.
    offsets: [Option<u64>; 2],
}

impl Timeline {
    fn new(clock: Arc<dyn Clock>, zero_ns: u64) -> Self {
        Timeline { clock, zero_ns, last_ns: 0, offsets: [None; 2] }
    }

    #[inline]
    fn time_of(&mut self, call: Call, args: &[u64], errno: Errno, memory: &Memory<'_>) -> u64 {
        if call == Call::ClockTimeGet
            && errno == Errno::Success
            && let Some((clock, reading_ns)) = guest_reading(args, memory)
        {
            return self.derive(clock, reading_ns);
        }
        self.now_ns()
    }

    #[inline]
    fn derive(&mut self, clock: usize, reading_ns: u64) -> u64 {
        if let Some(offset) = self.offsets[clock] {
            let time_ns = reading_ns.wrapping_add(offset);
            if time_ns >= self.last_ns && time_ns - self.last_ns <= LEAP_MAX_NS {
                self.last_ns = time_ns;
                return time_ns;
            }
        }
        let now_ns = self.now_ns();
        let since_zero_ns = reading_ns.wrapping_sub(self.zero_ns);
        let same_clock =
            clock == clockid::MONOTONIC as usize && now_ns.wrapping_sub(since_zero_ns) <= SAME_CLOCK_MAX_NS;
        let at_ns = if same_clock { since_zero_ns } else { now_ns };
        self.offsets[clock] = Some(at_ns.wrapping_sub(reading_ns));
        now_ns
    }

    fn now_ns(&mut self) -> u64 {
        let now_ns = self.clock.monotonic_ns().wrapping_sub(self.zero_ns);
        // Signed, so that a clock a little before time 0 is behind and not at the end of time.
        if (now_ns as i64) < self.last_ns as i64 {
            // Derived times have run ahead, because somebody set the clock: derive anew.
            self.offsets = [None; 2];
            return self.last_ns;
        }
        self.last_ns = now_ns;
        now_ns
    }
}

/// The clock that a guest read, if its time can be turned into ours, and what it saw.
#[inline]
fn guest_reading(args: &[u64], memory: &Memory<'_>) -> Option<(usize, u64)> {
    let &[clock, _, ptr] = args else { return None };
    if clock > u64::from(clockid::MONOTONIC) {
        return None;
    }
    let bytes = memory.peek(u32::try_from(ptr).ok()?, 8).ok()?;
    Some((clock as usize, u64::from_le_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Notes;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// A clock that tests set, and that counts how often it is read.
    #[derive(Default)]
    struct TestClock {
        monotonic_ns: AtomicU64,
        reads: AtomicU64,
    }

    impl Clock for TestClock {
        fn monotonic_ns(&self) -> u64 {
            self.reads.fetch_add(1, Relaxed);
            self.monotonic_ns.load(Relaxed)
        }

        fn realtime_ns(&self) -> u64 {
            unreachable!("records are stamped with monotonic time")
        }

        fn thread_cpu_ns(&self) -> u64 {
            unreachable!("records are stamped with monotonic time")
        }
    }

    /// Answers `clock_time_get` with the value given, and other calls with success.
    struct Times(u64);

    impl System for Times {
        fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
            match call {
                Call::ClockTimeGet => memory.write_u64(args[2] as u32, self.0).map_err(|_| Halt::Replay)?,
                Call::ProcExit => return Err(Halt::Exit(args[0] as u32)),
                Call::PollOneoff => return Err(Halt::Killed(crate::Kill::Signal(9))),
                _ => {}
            }
            Ok(Errno::Success)
        }
    }

    fn record(recorder: &mut Recorder<Times, MemorySink>, call: Call, args: &[u64]) -> Result<Errno, Halt> {
        let mut bytes = [0u8; 64];
        let mut notes = Notes::default();
        recorder.call(call, args, &mut Memory::new(&mut bytes, &mut notes))
    }

    fn last_time_ns(recorder: &mut Recorder<Times, MemorySink>) -> u64 {
        recorder.sink_mut().records.last().unwrap().time_ns
    }

    #[test]
    fn monotonic_readings_are_the_times_of_their_records() {
        let clock = Arc::new(TestClock::default());
        clock.monotonic_ns.store(5_000, Relaxed);
        let mut recorder = Recorder::new(Times(4_900), MemorySink::default(), clock.clone(), 1_000);
        record(&mut recorder, Call::ClockTimeGet, &[1, 1, 8]).unwrap();
        assert_eq!(last_time_ns(&mut recorder), 4_000);
        recorder.inner_mut().0 = 5_300;
        record(&mut recorder, Call::ClockTimeGet, &[1, 1, 8]).unwrap();
        assert_eq!(last_time_ns(&mut recorder), 4_300);
        assert_eq!(clock.reads.load(Relaxed), 1);
    }

    #[test]
    fn realtime_readings_are_derived_until_somebody_sets_the_clock() {
        let clock = Arc::new(TestClock::default());
        clock.monotonic_ns.store(100, Relaxed);
        let mut recorder = Recorder::new(Times(1_700_000_000_000), MemorySink::default(), clock.clone(), 0);
        record(&mut recorder, Call::ClockTimeGet, &[0, 1, 8]).unwrap();
        recorder.inner_mut().0 += 50;
        record(&mut recorder, Call::ClockTimeGet, &[0, 1, 8]).unwrap();
        assert_eq!((last_time_ns(&mut recorder), clock.reads.load(Relaxed)), (150, 1));
        for set_to in [1_600_000_000_000, 1_800_000_000_000] {
            clock.monotonic_ns.fetch_add(100, Relaxed);
            recorder.inner_mut().0 = set_to;
            record(&mut recorder, Call::ClockTimeGet, &[0, 1, 8]).unwrap();
            assert_eq!(last_time_ns(&mut recorder), clock.monotonic_ns.load(Relaxed));
        }
        assert_eq!(clock.reads.load(Relaxed), 3);
    }

    #[test]
    fn times_never_decrease() {
        let clock = Arc::new(TestClock::default());
        clock.monotonic_ns.store(100, Relaxed);
        let mut recorder = Recorder::new(Times(1_000), MemorySink::default(), clock.clone(), 200);
        record(&mut recorder, Call::SchedYield, &[]).unwrap();
        assert_eq!(last_time_ns(&mut recorder), 0, "before time 0");
        clock.monotonic_ns.store(300, Relaxed);
        record(&mut recorder, Call::ClockTimeGet, &[0, 1, 8]).unwrap();
        recorder.inner_mut().0 += 500;
        record(&mut recorder, Call::ClockTimeGet, &[0, 1, 8]).unwrap();
        record(&mut recorder, Call::SchedYield, &[]).unwrap();
        let times: Vec<_> = recorder.sink_mut().records.iter().map(|record| record.time_ns).collect();
        assert_eq!(times, [0, 100, 600, 600]);
    }

    #[test]
    fn a_resumed_log_goes_on_where_it_stopped_even_after_a_reboot() {
        let clock = Arc::new(TestClock::default());
        clock.monotonic_ns.store(50, Relaxed);
        let zero_ns = 50u64.wrapping_sub(7_000);
        let mut recorder = Recorder::new(Times(0), MemorySink::default(), clock.clone(), zero_ns);
        clock.monotonic_ns.store(60, Relaxed);
        record(&mut recorder, Call::SchedYield, &[]).unwrap();
        assert_eq!(last_time_ns(&mut recorder), 7_010);
    }

    #[test]
    fn exits_are_recorded_and_kills_are_not() {
        let mut recorder = Recorder::new(Times(0), MemorySink::default(), Arc::new(TestClock::default()), 0);
        assert_eq!(record(&mut recorder, Call::PollOneoff, &[0, 0, 0, 0]), Err(Halt::Killed(crate::Kill::Signal(9))));
        assert_eq!(recorder.sink_mut().records, []);
        assert_eq!(record(&mut recorder, Call::ProcExit, &[3]), Err(Halt::Exit(3)));
        assert_eq!(recorder.sink_mut().records[0].args, [3]);
        recorder.end(&End::Exit(3)).unwrap();
        assert_eq!(End::of(&&recorder.sink_mut().records[1]), Some(End::Exit(3)));
    }

    /// A sink that knows how much of it is safe, and calls that must find all of it so.
    #[derive(Default)]
    struct SafeSink(MemorySink, Arc<AtomicU64>);

    impl Sink for SafeSink {
        fn append<'m>(
            &mut self,
            head: &Head,
            args: &[u64],
            written: impl Iterator<Item = (u32, &'m [u8])> + Clone,
            sent: impl Iterator<Item = (u32, &'m [u8])> + Clone,
        ) -> Result<u64, SinkError> {
            self.0.append(head, args, written, sent)
        }

        fn before_output(&mut self) -> Result<(), SinkError> {
            self.1.store(self.0.records.len() as u64, Relaxed);
            Ok(())
        }
    }

    struct Outputs(Arc<AtomicU64>, u64);

    impl System for Outputs {
        fn call(&mut self, call: Call, args: &[u64], _memory: &mut Memory<'_>) -> Result<Errno, Halt> {
            let is_safe = self.0.load(Relaxed) == self.1;
            assert_eq!(call.is_output(args), is_safe, "{}", call.name());
            self.1 += 1;
            Ok(Errno::Success)
        }
    }

    #[test]
    fn an_output_is_made_once_all_that_came_before_is_safe() {
        let safe = Arc::new(AtomicU64::new(u64::MAX));
        let sink = SafeSink(MemorySink::default(), Arc::clone(&safe));
        let mut recorder = Recorder::new(Outputs(safe, 0), sink, Arc::new(TestClock::default()), 0);
        for call in [Call::FdWrite, Call::FdRead, Call::SockSend, Call::RandomGet, Call::PathRename, Call::FdClose] {
            recorder.call(call, &[0; 6], &mut Memory::new(&mut [0u8; 64], &mut Notes::default())).unwrap();
        }
    }

    #[test]
    fn a_log_that_takes_no_record_halts_the_guest() {
        let clock = Arc::new(TestClock::default());
        let mut recorder = Recorder::new(Times(0), MemorySink::with_limit(1), clock, 0);
        record(&mut recorder, Call::SchedYield, &[]).unwrap();
        let reason = "the log is full (1 records)".to_owned();
        assert_eq!(record(&mut recorder, Call::SchedYield, &[]), Err(Halt::Log(reason)));
    }
}
