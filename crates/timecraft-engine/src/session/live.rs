//! Live runs, from the start or from where a log ends.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use timecraft_log::{LogConfig, LogReader, LogWriterHandle, RingWriter};

use super::{Replayed, Session, SessionError, Shared, kill_switch, lock, start};
use crate::chaos::Chaos;
use crate::clock::Clock;
use crate::host::{Host, HostConfig};
use crate::output::Output;
use crate::recorder::{CALL_START, Head, Recorder, Sink};
use crate::replayer::{Options, Replayer};
use crate::runtime::{Finished, GuestConfig, Prepared};
use crate::tracer::Tracer;
use crate::{KillSwitch, System};

/// How a run is recorded.
#[derive(Debug)]
pub struct LogOptions {
    pub config: LogConfig,
    /// JSON; goes into the first record of each epoch.
    pub manifest: Vec<u8>,
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
    let ring = match config.log {
        Some(options) => Some(open_log(options, &shared, &*clock, 0)?),
        None => None,
    };
    match (ring, config.chaos, config.trace) {
        // The two that matter for speed are compiled for their exact types.
        (None, None, None) => start(prepared, host, kill, shared, nothing_replayed),
        (Some(ring), None, None) => {
            let zero_ns = clock.monotonic_ns();
            start(prepared, Recorder::new(host, ring, clock, zero_ns), kill, shared, nothing_replayed)
        }
        (ring, chaos, trace) => {
            let mut system: Box<dyn System> = Box::new(host);
            if let Some((ratio, seed)) = chaos {
                system = Box::new(Chaos::new(system, ratio, seed));
            }
            if let Some(ring) = ring {
                let zero_ns = clock.monotonic_ns();
                system = Box::new(Recorder::new(system, ring, Arc::clone(&clock), zero_ns));
            }
            if let Some(trace) = trace {
                system = Box::new(Tracer::new(system, std::fs::File::from(trace)));
            }
            start(prepared, system, kill, shared, nothing_replayed)
        }
    }
}

fn nothing_replayed<S>(_system: S, _finished: &mut Finished) -> Replayed {
    Replayed::default()
}

/// Opens the log for a new epoch and writes the epoch's first record.
fn open_log(options: LogOptions, shared: &Shared, clock: &dyn Clock, time_ns: u64) -> Result<RingWriter, SessionError> {
    let epoch = u64::from(options.config.epoch);
    let (mut ring, handle) = timecraft_log::start(options.config, Arc::new(AtomicBool::new(false)))?;
    let wall_ns = clock.realtime_ns().saturating_sub(time_ns);
    let head = Head { call: CALL_START, errno: 0, time_ns };
    let manifest = std::iter::once((0, options.manifest.as_slice()));
    let appended = Sink::append(&mut ring, &head, &[epoch, wall_ns], std::iter::empty(), manifest);
    appended.map_err(|error| std::io::Error::other(error.0))?;
    *lock(&shared.log) = Some(handle);
    Ok(ring)
}
