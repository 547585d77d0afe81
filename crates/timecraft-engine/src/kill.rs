//! How a guest is ended, or interrupted, from outside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::system::Kill;

/// Shared between a guest's thread and whoever may end it. Host calls that block poll [`KillSwitch::descriptor`] beside
/// what they wait for; the trampoline looks at [`KillSwitch::is_requested`] after each call.
///
/// An interrupt is for guests that ask for it: a call that waits fails with `EINTR`, once, and `sched_yield` fails so
/// until the guest has been told by it, so that one that computes can find out too. Both are results of calls like any
/// other, so that a replay has the interrupt where it was.
#[derive(Debug)]
pub struct KillSwitch {
    requested: AtomicBool,
    /// [`NONE`], [`ASKED`] or [`SHOWN`]. Changed while `reason` is locked.
    interrupt: AtomicU8,
    reason: Mutex<Option<Kill>>,
    ended: OwnedFd,
    woken: OwnedFd,
    /// Set with `requested`, for those who know of no switch.
    cancelled: Arc<AtomicBool>,
}

/// There is no interrupt.
const NONE: u8 = 0;
/// The next call that waits shall fail.
const ASKED: u8 = 1;
/// One has failed, and the guest hasn't asked why yet.
const SHOWN: u8 = 2;

impl KillSwitch {
    /// A switch that nobody has thrown.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(KillSwitch {
            requested: AtomicBool::new(false),
            interrupt: AtomicU8::new(NONE),
            reason: Mutex::new(None),
            ended: event()?,
            woken: event()?,
            cancelled: Arc::default(),
        })
    }

    /// A flag that is set once the guest's end is asked for.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Asks for the guest's end. The first reason stands.
    pub fn request(&self, reason: Kill) {
        let mut slot = self.lock();
        slot.get_or_insert(reason);
        self.requested.store(true, Ordering::Release);
        self.cancelled.store(true, Ordering::Release);
        raise(&self.ended);
        raise(&self.woken);
    }

    /// Interrupts the guest. False if it hasn't noticed the last time yet.
    pub fn interrupt(&self) -> bool {
        let _changing = self.lock();
        let is_new = self.interrupt.load(Ordering::Relaxed) == NONE;
        if is_new {
            self.interrupt.store(ASKED, Ordering::Relaxed);
            raise(&self.woken);
        }
        is_new
    }

    /// Whether a call that waits must fail because the guest was interrupted: once.
    #[inline]
    pub(crate) fn show_interrupt(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed) == ASKED && self.settle_interrupt(SHOWN)
    }

    /// Whether the guest was interrupted since it last asked.
    #[inline]
    pub(crate) fn take_interrupt(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed) != NONE && self.settle_interrupt(NONE)
    }

    #[cold]
    fn settle_interrupt(&self, state: u8) -> bool {
        let reason = self.lock();
        self.interrupt.store(state, Ordering::Relaxed);
        if reason.is_none() {
            let _ = rustix::io::read(&self.woken, &mut [0; 8]);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kill>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the guest's end was asked for. One relaxed load: this is on the path of every host call.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The reason, once requested.
    pub fn reason(&self) -> Option<Kill> {
        self.lock().clone()
    }

    /// Waits until the guest's end is asked for, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut polled = [PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // A wait cut short by a signal only makes the guest a little faster.
        let _ = poll(&mut polled, Some(&timeout));
    }

    /// Readable once the guest's end was asked for, for those who only want to know of that.
    pub(crate) fn end_descriptor(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Readable once the guest's end was asked for, or a call that waits must fail.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// Makes a descriptor readable. A full counter is readable as well, so that a failed write loses nothing.
fn raise(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn an_interrupt_fails_one_wait_and_lasts_until_the_guest_asks() {
        let switch = KillSwitch::new().unwrap();
        assert!(!switch.show_interrupt() && !switch.take_interrupt());
        assert!(switch.interrupt() && !switch.interrupt());
        assert!(is_readable(switch.descriptor()) && !is_readable(switch.end_descriptor()));
        assert!(switch.show_interrupt() && !switch.show_interrupt());
        assert!(!is_readable(switch.descriptor()) && !switch.interrupt());
        assert!(switch.take_interrupt() && !switch.take_interrupt());
        assert!(switch.interrupt() && switch.take_interrupt() && !switch.show_interrupt());
        assert!(!is_readable(switch.descriptor()));
    }

    #[test]
    fn an_interrupt_does_not_hide_the_end() {
        let switch = KillSwitch::new().unwrap();
        switch.interrupt();
        switch.request(Kill::Signal(15));
        assert!(switch.show_interrupt() && switch.take_interrupt());
        assert!(is_readable(switch.descriptor()) && is_readable(switch.end_descriptor()));
    }
}
