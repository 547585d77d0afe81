//! What recording and replay cost per call. Not a test of anything: `--ignored --nocapture`, in release.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{disk_log, log_config};
use timecraft_engine::clock::{Clock, SystemClock};
use timecraft_engine::memory::Notes;
use timecraft_engine::recorder::Recorder;
use timecraft_engine::replayer::{Options, Replayer};
use timecraft_engine::{Call, Errno, Halt, Memory, System};

/// A host of two calls, as cheap as they come.
struct Tiny;

impl System for Tiny {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let done = match call {
            Call::ClockTimeGet => memory.write_u64(args[2] as u32, SystemClock.monotonic_ns()),
            _ => memory
                .sent(args[1] as u32, 8)
                .and(Ok(()))
                .and_then(|()| memory.sent(64, 16).and(Ok(())))
                .and_then(|()| memory.write_u32(args[3] as u32, 16)),
        };
        Ok(done.err().unwrap_or(Errno::Success))
    }
}

const BATCHES: u32 = 200;
const BATCH_CALLS: u32 = 10_000;

/// Nanoseconds per operation in the best batch: the machine has other things to do.
fn best(mut operation: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH_CALLS {
            operation();
        }
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9 / f64::from(BATCH_CALLS)
}

fn measure(system: &mut impl System, call: Call, args: &[u64]) -> f64 {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 16], Notes::default());
    bytes[8..16].copy_from_slice(&[64, 0, 0, 0, 16, 0, 0, 0]);
    best(|| {
        let outcome = system.call(call, std::hint::black_box(args), &mut Memory::new(&mut bytes, &mut notes));
        assert_eq!(outcome, Ok(Errno::Success));
    })
}

#[test]
#[ignore = "a measurement"]
fn nanoseconds_per_call() {
    let calls: [(Call, &[u64]); 2] = [(Call::ClockTimeGet, &[1, 1, 128]), (Call::FdWrite, &[1, 8, 1, 128])];
    for (call, args) in calls {
        let dir = tempfile::tempdir().unwrap();
        let host = measure(&mut Tiny, call, args);
        let mut live = 0.0;
        let mut log = disk_log(log_config(dir.path()), |ring| {
            let mut recorder = Recorder::new(Tiny, ring, Arc::new(SystemClock), SystemClock.monotonic_ns());
            live = measure(&mut recorder, call, args);
            recorder.into_parts().1
        });
        let read = best(|| assert!(log.next().unwrap().is_some()));
        log.seek(0).unwrap();
        let replay = measure(&mut Replayer::new(log, Options::default()), call, args);
        let name = call.name();
        println!("{name}: host {host:.1} ns, recorded {live:.1} ns, read {read:.1} ns, replayed {replay:.1} ns");
    }
}
