//! Live runs, from the start or from where a log ends.

use std::convert::identity;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use timecraft_log::{LogConfig, RingWriter};

use super::throttle::Throttle;
use super::{Replayed, Session, SessionError, Shared, kill_switch, lock, start};
use crate::calls::kept;
use crate::chaos::Chaos;
use crate::clock::Clock;
use crate::host::{Host, HostConfig};
use crate::meter::Metered;
use crate::recorder::{CALL_START, Head, Recorder, Sink};
use crate::runtime::{Finished, GuestConfig, Prepared};
use crate::strace;
use crate::tracer::Tracer;
use crate::{KillSwitch, System};

/// How a run is recorded.
#[derive(Debug)]
pub struct LogOptions {
    pub config: LogConfig,
    /// JSON; goes into the first record of each epoch.
    pub manifest: Vec<u8>,
    /// Bound on what is recorded per second, bytes before compression; the guest is slowed down to it.
    pub bytes_per_s_max: Option<u64>,
}

/// One live run.
#[derive(Debug)]
pub struct RunConfig {
    pub guest: GuestConfig,
    pub host: HostConfig,
    /// `None`: not recorded.
    pub log: Option<LogOptions>,
    /// Where strace-like lines go while the guest runs.
    pub trace: Option<OwnedFd>,
    /// Ratio of calls (0 to 1) that get a fault, and the seed that decides which.
    pub chaos: Option<(f64, u64)>,
}

/// Starts a guest.
///
/// # Errors
/// [`SessionError`], before anything ran.
pub fn run(config: RunConfig) -> Result<Session, SessionError> {
    let prepared = Prepared::new(config.guest)?;
    let kill = kill_switch()?;
    let clock = Arc::clone(&config.host.clock);
    let host = Host::new(config.host, Arc::clone(&kill))?;
    let shared = Arc::new(Shared::default());
    let meter = Arc::clone(&shared.meter);
    let Some(options) = config.log else {
        return match (config.chaos, config.trace) {
            // What matters for speed is compiled for its exact type, here and below.
            (None, None) => start(prepared, Metered::new(host, meter, clock), kill, shared, nothing_replayed),
            (chaos, trace) => {
                let world = traced(unruly(host, chaos, &kill, identity), trace);
                start(prepared, Metered::new(world, meter, clock), kill, shared, nothing_replayed)
            }
        };
    };
    let bytes_per_s_max = options.bytes_per_s_max;
    let ring = open_log(options, &shared, &*clock, 0, &kill)?;
    let zero_ns = clock.monotonic_ns();
    match (config.chaos, config.trace, bytes_per_s_max) {
        (None, None, None) => {
            let recorder = Recorder::new(host, ring, Arc::clone(&clock), zero_ns);
            start(prepared, Metered::new(recorder, meter, clock), kill, shared, nothing_replayed)
        }
        (chaos, trace, bytes_per_s_max) => {
            let world = unruly(host, chaos, &kill, identity);
            let its = Arc::clone(&kill);
            let system = recorded(world, ring, bytes_per_s_max, Arc::clone(&clock), zero_ns, its, trace);
            start(prepared, Metered::new(system, meter, clock), kill, shared, nothing_replayed)
        }
    }
}

/// The general form of a recorded world: slowed down if need be, traced if asked for.
pub(super) fn recorded(
    world: impl System + 'static,
    ring: RingWriter,
    bytes_per_s_max: Option<u64>,
    clock: Arc<dyn Clock>,
    zero_ns: u64,
    kill: Arc<KillSwitch>,
    trace: Option<OwnedFd>,
) -> Box<dyn System> {
    match bytes_per_s_max {
        Some(bytes_per_s) => {
            let sink = Throttle::new(ring, bytes_per_s, Arc::clone(&clock), kill);
            traced(Recorder::new(world, sink, clock, zero_ns), trace)
        }
        None => traced(Recorder::new(world, ring, clock, zero_ns), trace),
    }
}

/// The host, with faults if asked for; `begin` says how those begin.
pub(super) fn unruly(
    host: Host,
    chaos: Option<(f64, u64)>,
    kill: &Arc<KillSwitch>,
    begin: impl FnOnce(Chaos<Host>) -> Chaos<Host>,
) -> Box<dyn System> {
    match chaos {
        Some((ratio, seed)) => {
            // On the switch, so that a guest that is being delayed can still be ended at once.
            let kill = Arc::clone(kill);
            Box::new(begin(Chaos::new(host, ratio, seed, move |time| kill.wait(time))))
        }
        None => Box::new(host),
    }
}

fn traced(system: impl System + 'static, trace: Option<OwnedFd>) -> Box<dyn System> {
    match trace {
        Some(trace) => {
            let mut file = std::fs::File::from(trace);
            let print = move |line: &str| {
                // A trace that nobody reads any more doesn't stop the guest.
                let _ = writeln!(file, "{line}");
            };
            Box::new(Tracer::new(system, print, strace::Options::default()))
        }
        None => Box::new(system),
    }
}

fn nothing_replayed<S>(_system: S, _finished: &mut Finished) -> Replayed {
    Replayed::default()
}

/// Opens the log for a new epoch and writes the epoch's first record.
pub(super) fn open_log(
    options: LogOptions,
    shared: &Shared,
    clock: &dyn Clock,
    time_ns: u64,
    kill: &KillSwitch,
) -> Result<RingWriter, SessionError> {
    let epoch = u64::from(options.config.epoch);
    let config = LogConfig { kept, ..options.config };
    let (mut ring, handle) = timecraft_log::start(config, kill.flag())?;
    let wall_ns = clock.realtime_ns().saturating_sub(time_ns);
    let head = Head { call: CALL_START, errno: 0, time_ns };
    let manifest = std::iter::once((0, options.manifest.as_slice()));
    let appended = Sink::append(&mut ring, &head, &[epoch, wall_ns], std::iter::empty(), manifest);
    appended.map_err(|error| std::io::Error::other(error.0))?;
    *lock(&shared.log) = Some(handle);
    Ok(ring)
}
