//! A bound on how fast a guest fills its log.

use std::sync::Arc;
use std::time::Duration;

use crate::KillSwitch;
use crate::clock::Clock;
use crate::recorder::{Head, Sink, SinkError};

/// A sink that makes the guest wait so that no more than a given number of bytes a second is recorded, with a second's
/// worth of burst. Nothing is dropped.
pub(super) struct Throttle<W> {
    inner: W,
    bytes_per_s: u64,
    clock: Arc<dyn Clock>,
    kill: Arc<KillSwitch>,
    /// When what has been recorded so far is paid for, monotonic nanoseconds.
    paid_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;
/// Size of a record beside its bytes, about: its header and its arguments.
const RECORD_BYTES: u64 = 64;

impl<W: Sink> Throttle<W> {
    pub(super) fn new(inner: W, bytes_per_s: u64, clock: Arc<dyn Clock>, kill: Arc<KillSwitch>) -> Self {
        Throttle { inner, bytes_per_s: bytes_per_s.max(1), clock, kill, paid_ns: 0 }
    }
}

impl<W: Sink> Sink for Throttle<W> {
    fn append<'m>(
        &mut self,
        head: &Head,
        args: &[u64],
        written: impl Iterator<Item = (u32, &'m [u8])> + Clone,
        sent: impl Iterator<Item = (u32, &'m [u8])> + Clone,
    ) -> Result<u64, SinkError> {
        let bytes: u64 = written.clone().chain(sent.clone()).map(|(_, bytes)| bytes.len() as u64).sum();
        let seq = self.inner.append(head, args, written, sent)?;
        let now_ns = self.clock.monotonic_ns();
        let cost_ns = (bytes + RECORD_BYTES).saturating_mul(SECOND_NS) / self.bytes_per_s;
        self.paid_ns = self.paid_ns.max(now_ns).saturating_add(cost_ns);
        let debt_ns = self.paid_ns.saturating_sub(now_ns + SECOND_NS);
        if debt_ns > 0 {
            // Waits on the switch, so that a guest that is being slowed down can still be ended at once.
            self.kill.wait(Duration::from_nanos(debt_ns));
        }
        Ok(seq)
    }

    fn before_output(&mut self) -> Result<(), SinkError> {
        self.inner.before_output()
    }
}
