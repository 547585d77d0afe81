//! Arguments, environment, clocks, randomness, and the guest's own end.

use super::arguments::Arguments;
use super::{Host, HostError, Outcome, Stop};
use crate::abi::clockid;
use crate::{Errno, Halt, Kill, KillSwitch, Memory};

/// All arguments together, and all environment variables together, bytes. A guest gets them in one call, which must fit
/// into one record with what else is in it.
const STRINGS_BYTES_MAX: usize = timecraft_log::RECORD_BYTES_MAX - (4 << 10);
/// One `random_get`, bytes. The guest's length must not decide how long the host is busy.
const RANDOM_BYTES_MAX: u32 = 1 << 20;
/// The kernel's clocks count nanoseconds.
const CLOCK_RESOLUTION_NS: u64 = 1;

/// A list of NUL-terminated strings, packed as guests want it.
#[derive(Debug)]
pub(super) struct Strings {
    packed: Vec<u8>,
    /// Where each string begins in `packed`, bytes.
    offsets: Vec<u32>,
}

impl Strings {
    pub fn new(what: &'static str, strings: &[Vec<u8>]) -> Result<Self, HostError> {
        let (mut packed, mut offsets) = (Vec::new(), Vec::with_capacity(strings.len()));
        for (index, string) in strings.iter().enumerate() {
            if string.contains(&0) {
                return Err(HostError::Nul { what: format!("{what} {index}") });
            }
            offsets.push(packed.len() as u32);
            packed.extend_from_slice(string);
            packed.push(0);
        }
        let bytes = packed.len() + 4 * offsets.len();
        if bytes > STRINGS_BYTES_MAX {
            return Err(HostError::TooLong { what, bytes, limit: STRINGS_BYTES_MAX });
        }
        Ok(Strings { packed, offsets })
    }

    fn sizes_get(&self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(0), 4)?;
        memory.check(args.u32(1), 4)?;
        memory.write_u32(args.u32(0), self.offsets.len() as u32)?;
        memory.write_u32(args.u32(1), self.packed.len() as u32)?;
        Ok(())
    }

    fn get(&self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (pointers, buffer) = (args.u32(0), args.u32(1));
        memory.check(pointers, 4 * self.offsets.len() as u32)?;
        memory.check(buffer, self.packed.len() as u32)?;
        let cells: Vec<u8> = self.offsets.iter().flat_map(|offset| (buffer + offset).to_le_bytes()).collect();
        memory.write(pointers, &cells)?;
        memory.write(buffer, &self.packed)?;
        Ok(())
    }
}

impl Host {
    pub(super) fn args_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.args.get(args, memory)
    }

    pub(super) fn args_sizes_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.args.sizes_get(args, memory)
    }

    pub(super) fn environ_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.env.get(args, memory)
    }

    pub(super) fn environ_sizes_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        self.env.sizes_get(args, memory)
    }

    #[inline]
    pub(super) fn clock_time_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(2), 8)?;
        let now = self.now(args.u32(0))?;
        memory.write_u64(args.u32(2), now)?;
        Ok(())
    }

    /// The guest's clock, nanoseconds.
    #[inline]
    pub(super) fn now(&self, clock: u32) -> Result<u64, Errno> {
        match clock {
            clockid::REALTIME => Ok(self.clock.realtime_ns()),
            clockid::MONOTONIC => Ok(self.clock.monotonic_ns().saturating_add(self.monotonic_offset_ns)),
            // A guest is one thread, so its process' time is that thread's.
            clockid::PROCESS_CPUTIME | clockid::THREAD_CPUTIME => Ok(self.clock.thread_cpu_ns()),
            _ => Err(Errno::Inval),
        }
    }

    pub(super) fn random_get(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (ptr, len) = (args.u32(0), args.u32(1));
        if len > RANDOM_BYTES_MAX {
            return Err(Errno::Inval.into());
        }
        self.random.fill(memory.buffer(ptr, len)?);
        memory.filled(ptr, len);
        Ok(())
    }
}

pub(super) fn clock_res_get(args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
    if args.u32(0) > clockid::THREAD_CPUTIME {
        return Err(Errno::Inval.into());
    }
    memory.write_u64(args.u32(1), CLOCK_RESOLUTION_NS)?;
    Ok(())
}

/// What a WASI signal (`signal` in witx, in order) does by default.
enum Action {
    Ignore,
    /// Ends the guest, as Linux's signal of this number.
    End(u8),
}

const SIGNALS: [Action; 31] = [
    Action::Ignore,  // none
    Action::End(1),  // hup
    Action::End(2),  // int
    Action::End(3),  // quit
    Action::End(4),  // ill
    Action::End(5),  // trap
    Action::End(6),  // abrt
    Action::End(7),  // bus
    Action::End(8),  // fpe
    Action::End(9),  // kill
    Action::End(10), // usr1
    Action::End(11), // segv
    Action::End(12), // usr2
    Action::End(13), // pipe
    Action::End(14), // alrm
    Action::End(15), // term
    Action::Ignore,  // chld
    Action::Ignore,  // cont
    // A stopped guest could be continued by nobody, so that stopping itself does nothing.
    Action::Ignore,  // stop
    Action::Ignore,  // tstp
    Action::Ignore,  // ttin
    Action::Ignore,  // ttou
    Action::Ignore,  // urg
    Action::End(24), // xcpu
    Action::End(25), // xfsz
    Action::End(26), // vtalrm
    Action::End(27), // prof
    Action::Ignore,  // winch
    Action::End(29), // poll
    Action::End(30), // pwr
    Action::End(31), // sys
];

pub(super) fn proc_raise(args: Arguments<'_>) -> Outcome {
    match SIGNALS.get(args.u32(0) as usize) {
        None => Err(Errno::Inval.into()),
        Some(Action::Ignore) => Ok(()),
        Some(Action::End(signal)) => Err(Stop::Halt(Halt::Killed(Kill::Signal(*signal)))),
    }
}

/// Fails with [`Errno::Intr`] if the guest was interrupted since it last called it.
pub(super) fn sched_yield(kill: &KillSwitch) -> Outcome {
    if kill.take_interrupt() {
        return Err(Errno::Intr.into());
    }
    rustix::thread::sched_yield();
    Ok(())
}
