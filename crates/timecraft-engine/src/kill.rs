//! How a guest is ended from outside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::system::Kill;

/// Shared between a guest's thread and whoever may end it. Host calls that block poll [`KillSwitch::descriptor`] beside
/// what they wait for; the trampoline looks at [`KillSwitch::is_requested`] after each call.
#[derive(Debug)]
pub struct KillSwitch {
    requested: AtomicBool,
    reason: Mutex<Option<Kill>>,
    event: OwnedFd,
}

impl KillSwitch {
    /// A switch that nobody has thrown.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(KillSwitch { requested: AtomicBool::new(false), reason: Mutex::new(None), event })
    }

    /// Asks for the guest's end. The first reason stands.
    pub fn request(&self, reason: Kill) {
        let mut slot = self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert(reason);
        self.requested.store(true, Ordering::Release);
        // A full counter still polls as readable, so a failed write loses nothing.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Whether the guest's end was asked for. One relaxed load: this is on the path of every host call.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The reason, once requested.
    pub fn reason(&self) -> Option<Kill> {
        self.reason.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Waits until the guest's end is asked for, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        let mut polled = [PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // A wait cut short by a signal only makes the guest a little faster.
        let _ = poll(&mut polled, Some(&timeout));
    }

    /// Readable once the guest's end was asked for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
