//! Time and randomness as the host takes them in, so that tests and simulation can replace them.

use rustix::time::{ClockId, clock_gettime};

/// The clocks that host calls and records read.
pub trait Clock: Send + Sync {
    /// Nanoseconds since an arbitrary point, never going back.
    fn monotonic_ns(&self) -> u64;
    /// Nanoseconds since the Unix epoch.
    fn realtime_ns(&self) -> u64;
    /// CPU time of the guest's thread, nanoseconds.
    fn thread_cpu_ns(&self) -> u64;
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

fn read(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Clock for SystemClock {
    #[inline]
    fn monotonic_ns(&self) -> u64 {
        read(ClockId::Monotonic)
    }

    #[inline]
    fn realtime_ns(&self) -> u64 {
        read(ClockId::Realtime)
    }

    fn thread_cpu_ns(&self) -> u64 {
        read(ClockId::ThreadCPUTime)
    }
}

/// Where random bytes come from.
pub trait Random: Send {
    /// Fills the buffer.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The kernel's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            // getrandom fails only with EINTR once the pool is initialised; a retry is all there is to do.
            if let Ok(count) = rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
                done += count;
            }
        }
    }
}
