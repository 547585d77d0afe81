//! What keeps a writer from writing, for as long as it may last.

use crate::error::LogError;
use crate::stats::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Wait before writing is tried again: doubled each time, up to the maximum.
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How soon the end of a wait is noticed.
const STEP: Duration = Duration::from_millis(20);

/// A writer's troubles with its files.
#[derive(Debug)]
pub(crate) struct Faults {
    /// How long one may last. `None`: for ever.
    time_max: Option<Duration>,
    /// Ends a wait, and the writer with it.
    cancel: Arc<AtomicBool>,
    /// Since when nothing can be written, how much of that was told, and the next wait.
    on: Option<(Instant, Duration, Duration)>,
}

impl Faults {
    pub fn new(time_max: Option<Duration>, cancel: Arc<AtomicBool>) -> Self {
        Self { time_max, cancel, on: None }
    }

    /// Whether nothing can be written, as far as is known.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Waits before the next try, or gives `error` back if there is to be none.
    pub fn wait(&mut self, error: LogError, shared: &Shared) -> Result<(), LogError> {
        let (since, _, wait) = *self.on.get_or_insert_with(|| (Instant::now(), Duration::ZERO, WAIT_MIN));
        shared.faults.fetch_add(1, Ordering::Relaxed);
        shared.fault_errno.store(u64::from(error.errno()), Ordering::Relaxed);
        let until = Instant::now() + wait;
        loop {
            self.tell(shared);
            let too_long = self.time_max.is_some_and(|time_max| since.elapsed() >= time_max);
            if too_long || self.cancel.load(Ordering::Relaxed) {
                return Err(error);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || shared.abandoned() {
                break;
            }
            thread::sleep(left.min(STEP));
        }
        if let Some((_, _, next)) = &mut self.on {
            *next = (wait * 2).min(WAIT_MAX);
        }
        Ok(())
    }

    /// What was written is on the medium.
    pub fn end(&mut self, shared: &Shared) {
        self.tell(shared);
        shared.fault_errno.store(0, Ordering::Relaxed);
        self.on = None;
    }

    /// Counts the time that has passed.
    fn tell(&mut self, shared: &Shared) {
        if let Some((since, told, _)) = &mut self.on {
            let lasted = since.elapsed();
            shared.faulted_ns.fetch_add(lasted.saturating_sub(*told).as_nanos() as u64, Ordering::Relaxed);
            *told = lasted;
        }
    }
}
