//! The one gate between a guest and the world.

use crate::{Call, Errno, Memory};

/// Why a guest ends. Everything but a return to the guest is one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The guest called `proc_exit`.
    Exit(u32),
    /// Somebody outside ended it.
    Killed(Kill),
    /// A replay can't go on; the replayer holds the reason.
    Replay,
    /// The log can't take the record of a call that has taken effect; the reason, for the user.
    Log(String),
}

/// Why a guest was ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kill {
    /// A signal's number, as in `timecraft kill -s`; the exit code is 128 + n.
    Signal(u8),
    /// A limit was exceeded: which, and the limit with its unit.
    Limit(String),
}

/// How a process ended, for good: the last thing that passes the gate. A log without it belongs to a process that
/// lives, or whose host died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest called `proc_exit`, or returned (code 0).
    Exit(u32),
    /// The guest trapped; the message has its backtrace, a frame a line.
    Trap { message: String },
    /// Somebody outside ended it.
    Killed(Kill),
}

/// Everything that a guest can reach.
///
/// There is one method and not one a call: a host call is data (an id, raw arguments, and the guest memory that it
/// reads and writes), so a decorator is a dozen lines and treats all calls alike, those of future ABIs too. The typed
/// face of each call is inside [`crate::host::Host`]; [`crate::calls::CALLS`] describes them for everybody else.
pub trait System: Send {
    /// Performs one host call.
    ///
    /// `args` are the raw wasm arguments, i32 zero-extended to u64, as many as [`crate::calls::Spec::types`] says.
    /// Guest memory is only touched through `memory`, which notes each region read as input and each region written:
    /// these notes are what gets recorded, so an effect on the guest that bypasses them would be lost in replay.
    /// Implementations validate every pointer, length and right before any effect.
    ///
    /// # Errors
    /// [`Halt`] ends the guest: nothing returns to it.
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt>;

    /// Learns how the process ended; no call comes after. Decorators pass it on to what they decorate.
    ///
    /// # Errors
    /// [`Halt::Log`] if the end can't be recorded, [`Halt::Replay`] if it isn't the recorded end.
    fn end(&mut self, _end: &End) -> Result<(), Halt> {
        Ok(())
    }
}

impl<S: System + ?Sized> System for Box<S> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        (**self).call(call, args, memory)
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        (**self).end(end)
    }
}
