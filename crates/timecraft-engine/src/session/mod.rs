//! Runs, replays and resumed runs as wholes: the engine, the guest's world and the log put together.

mod live;
mod outcome;
mod replay;
mod resume;
mod throttle;

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timecraft_log::{LogBacklog, LogError, LogStats, LogWriterHandle};

pub use live::{LogOptions, RunConfig, run};
pub use outcome::{Outcome, OutcomeKind};
pub use replay::{ReplayConfig, replay};
pub use resume::{ResumeConfig, resume};

use crate::host::HostError;
use crate::kill::KillSwitch;
use crate::meter::Meter;
use crate::replayer::ReplayEnd;
use crate::runtime::{Finished, Guest, ModuleError};
use crate::system::Kill;

/// Why a session can't start. Nothing has run then.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("only a recorded process can be resumed: this one was run without a log")]
    NotRecorded,
    #[error("records from {0} on were lost, and the process had gone on: it can't be resumed, run it again")]
    RecordsLost(u64),
    #[error("the guest can't be started: {0}; free some memory, descriptors or threads")]
    System(#[from] std::io::Error),
}

/// A guest under way, and what it leaves behind.
#[derive(Debug)]
pub struct Session {
    guest: Guest,
    shared: Arc<Shared>,
}

/// What the guest's thread and the session's owner both look at.
#[derive(Debug, Default)]
struct Shared {
    /// The log's writer, while the guest runs.
    log: Mutex<Option<LogWriterHandle>>,
    /// What the writer left, once it is done.
    written: Mutex<Written>,
    /// What the guest did live.
    meter: Arc<Meter>,
    /// How a replay ended, once it did; for a resumed run, its replayed part.
    replayed: Mutex<Replayed>,
}

#[derive(Clone, Debug, Default)]
struct Written {
    stats: LogStats,
    last_seq: Option<u64>,
    failure: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Replayed {
    end: Option<ReplayEnd>,
    last_seq: Option<u64>,
    /// Why a resumed run could not go on.
    failure: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Lets the guest run; until then nothing has happened.
    pub fn begin(&self) {
        self.guest.begin();
    }

    /// Waits until the guest is over and its log is sealed, or for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Outcome> {
        let finished = self.guest.wait(timeout)?;
        let (written, replayed) = (lock(&self.shared.written).clone(), lock(&self.shared.replayed).clone());
        Some(outcome::of(&finished, &written, &replayed))
    }

    /// A descriptor that is readable once `wait` has an outcome.
    pub fn over(&self) -> BorrowedFd<'_> {
        self.guest.over()
    }

    /// Ends the guest within 100 ms, as by a signal. The first reason stands.
    pub fn kill(&self, signal: u8) {
        self.guest.kill(Kill::Signal(signal));
        if let Some(log) = lock(&self.shared.log).as_ref() {
            log.release();
        }
    }

    /// Stores no more of what is recorded, so that the guest waits once its ring is full, or goes on. A guest that is
    /// killed isn't held.
    pub fn hold(&self, held: bool) {
        if let Some(log) = lock(&self.shared.log).as_ref() {
            log.hold(held);
        }
    }

    /// Has a call of the guest that waits fail with `EINTR`. False if the guest hasn't noticed the last time yet.
    pub fn interrupt(&self) -> bool {
        self.guest.interrupt()
    }

    /// Size of linear memory at the last host call, bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.guest.counters().memory_bytes.load(Ordering::Relaxed)
    }

    /// Counts of live host calls so far, and how long they took.
    pub fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// Counters so far, units in the names.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let calls = self.guest.counters().calls.load(Ordering::Relaxed);
        let (log, backlog) = match lock(&self.shared.log).as_ref() {
            Some(handle) => (handle.stats(), handle.backlog()),
            None => (lock(&self.shared.written).stats, LogBacklog::default()),
        };
        let mut stats = vec![("calls", calls), ("memory_bytes", self.memory_bytes())];
        stats.extend(outcome::log_stats(&log));
        stats.push(("ring_waiting_bytes", backlog.ring_waiting_bytes));
        stats.push(("ring_bytes", backlog.ring_bytes));
        stats.push(("log_unsealed_ns", backlog.unsealed.as_nanos() as u64));
        stats
    }
}

/// Seals the log when the guest is over, on the guest's thread.
fn seal(shared: &Shared) {
    let Some(handle) = lock(&shared.log).take() else { return };
    let stats = handle.stats();
    let failure = handle.failure().map(|error| error.to_string());
    let written = match handle.finish() {
        // Under `OnFull::Continue` a failure was no reason to stop: the guest's end is its own.
        Ok(summary) => Written { stats: summary.stats, last_seq: summary.last_seq, failure: None },
        Err(error) => Written { stats, last_seq: None, failure: failure.or_else(|| Some(error.to_string())) },
    };
    *lock(&shared.written) = written;
}

/// A switch that ends the guest when thrown.
fn kill_switch() -> Result<Arc<KillSwitch>, SessionError> {
    Ok(Arc::new(KillSwitch::new()?))
}

/// Starts the guest's thread; the log is sealed behind it, and `report` tells what its world knows at the end.
fn start<S, R>(
    prepared: crate::runtime::Prepared,
    system: S,
    kill: Arc<KillSwitch>,
    shared: Arc<Shared>,
    report: R,
) -> Result<Session, SessionError>
where
    S: crate::System + 'static,
    R: FnOnce(S, &mut Finished) -> Replayed + Send + 'static,
{
    let its = Arc::clone(&shared);
    let guest = Guest::start(prepared, system, kill, move |system, finished| {
        let replayed = report(system, finished);
        *lock(&its.replayed) = replayed;
        seal(&its);
    })?;
    Ok(Session { guest, shared })
}
