//! Room for guests' descriptors in this process: its soft limit is raised as guests come.

use std::sync::{Mutex, PoisonError};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::HostLimits;

/// Descriptors that belong to no guest: logs, caches, the caller's own.
const OWN_DESCRIPTORS: u64 = 512;

/// What is reserved for all guests. The limit is the whole process's, and so is this.
static RESERVED: Mutex<u64> = Mutex::new(0);

/// Room for one guest's descriptors, for as long as this lives.
#[derive(Debug)]
pub(super) struct Reservation(u64);

impl Reservation {
    /// Raises the soft limit if need be. If the hard one forbids it, the guest will get EMFILE sooner.
    pub fn new(limits: &HostLimits) -> Self {
        // A socket may have two more beside its own: an event that tells of what it waits for, and the other end of a
        // loopback connection that nobody has accepted yet.
        let count = u64::from(limits.open_files) + 2 * u64::from(limits.sockets.min(limits.open_files));
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved += count;
        let mut limit = getrlimit(Resource::Nofile);
        let needed = limit.maximum.unwrap_or(u64::MAX).min(*reserved + OWN_DESCRIPTORS);
        if limit.current.is_some_and(|current| current < needed) {
            limit.current = Some(needed);
            let _ = setrlimit(Resource::Nofile, limit);
        }
        Reservation(count)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *RESERVED.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
    }
}
