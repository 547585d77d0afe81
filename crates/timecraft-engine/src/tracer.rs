//! Prints calls as they happen.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::clock::Clock;
use crate::recorder::End;
use crate::strace::{CallView, Options};
use crate::{Call, Errno, Halt, Memory, System};

/// Hands a line for each call of `inner` to `output`, without a newline, when the call is over. `proc_exit` is never
/// over, so its line comes first.
pub struct Tracer<S, O> {
    inner: S,
    output: O,
    options: Options,
    /// The clock of time stamps, and its reading at time 0, nanoseconds.
    clock: Option<(Arc<dyn Clock>, u64)>,
}

impl<S: System, O: FnMut(&str) + Send> Tracer<S, O> {
    /// A tracer without time stamps.
    pub fn new(inner: S, output: O, options: Options) -> Self {
        Tracer { inner, output, options, clock: None }
    }

    /// Puts the seconds since now before each line.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        let zero_ns = clock.monotonic_ns();
        self.clock = Some((clock, zero_ns));
        self
    }

    /// The decorated system.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The decorated system.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The decorated system.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn print(&mut self, line: &str) {
        let Some((clock, zero_ns)) = &self.clock else { return (self.output)(line) };
        let us = clock.monotonic_ns().saturating_sub(*zero_ns) / 1_000;
        (self.output)(&format!("{:6}.{:06} {line}", us / 1_000_000, us % 1_000_000));
    }

    fn print_call(&mut self, call: Call, args: &[u64], outcome: Option<Errno>, memory: &Memory<'_>) {
        let (written, sent): (Vec<_>, Vec<_>) = (memory.written().collect(), memory.inputs().collect());
        let view = CallView { call, args, outcome, written: &written, sent: &sent, reference: None };
        let mut line = view.line(&self.options);
        if outcome.is_none() && call.spec().returns {
            let _ = write!(line, " = ?");
        }
        self.print(&line);
    }
}

impl<S: System, O: FnMut(&str) + Send> System for Tracer<S, O> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        if !call.spec().returns {
            self.print_call(call, args, None, memory);
            return self.inner.call(call, args, memory);
        }
        let outcome = self.inner.call(call, args, memory);
        self.print_call(call, args, outcome.as_ref().ok().copied(), memory);
        outcome
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.print(&format!("+++ {end} +++"));
        self.inner.end(end)
    }
}

impl<S: std::fmt::Debug, O> std::fmt::Debug for Tracer<S, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("inner", &self.inner).field("options", &self.options).finish_non_exhaustive()
    }
}
