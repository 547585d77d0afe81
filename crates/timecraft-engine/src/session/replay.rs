//! Replays: the module runs again, and nothing else happens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use timecraft_log::{LogReader, LogSource};

use super::{Replayed, Session, SessionError, Shared, kill_switch, start};
use crate::output::Output;
use crate::reference::{Trees, WholeSource};
use crate::replayer::{Options, Replayer, Source, Until};
use crate::runtime::{Finished, GuestConfig, Prepared};
use crate::strace;
use crate::tracer::Tracer;
use crate::{Call, End, Errno, Halt, Memory, System};

/// One replay.
#[derive(Debug)]
pub struct ReplayConfig {
    pub guest: GuestConfig,
    pub log: LogSource,
    /// Where the trees of immutable mounts are.
    pub trees: Trees,
    /// Where the guest's output goes again; `None` drops it.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Where strace-like lines go.
    pub trace: Option<OwnedFd>,
    pub until: Option<Until>,
    pub poison: bool,
}

/// Starts a replay.
///
/// # Errors
/// [`SessionError`], before anything ran.
pub fn replay(mut config: ReplayConfig) -> Result<Session, SessionError> {
    let reader = LogReader::open(config.log.clone())?;
    let trees = std::mem::take(&mut config.trees);
    // What matters for speed is compiled for its exact type.
    if trees.is_empty() { replay_from(reader, config) } else { replay_from(WholeSource::new(reader, trees), config) }
}

fn replay_from(source: impl Source + 'static, config: ReplayConfig) -> Result<Session, SessionError> {
    let prepared = Prepared::new(config.guest)?;
    let kill = kill_switch()?;
    let options = Options {
        until: config.until,
        poison: config.poison,
        kill_switch: Some(Arc::clone(&kill)),
        ..Options::default()
    };
    let replayer = Replayer::new(source, options);
    if replayer.expects_end()
        && let Some(reason) = replayer.recorded_kill()
    {
        // Nothing in the log would stop a guest that was killed before its first call.
        kill.request(reason);
    }
    let echo = Echo::new(replayer, config.stdout, config.stderr);
    let shared = Arc::new(Shared::default());
    match config.trace {
        None => start(prepared, echo, kill, shared, |echo, finished| report(&echo.inner, finished)),
        Some(trace) => {
            let mut lines = BufWriter::new(File::from(trace));
            let print = move |line: &str| {
                // A trace that nobody reads any more doesn't stop the replay: it has its own result.
                let _ = writeln!(lines, "{line}");
            };
            let tracer = Tracer::new(echo, print, strace::Options::default());
            start(prepared, tracer, kill, shared, |tracer, finished| report(&tracer.inner().inner, finished))
        }
    }
}

/// What a replayer knows at the end; a divergence gets the guest's backtrace.
pub(super) fn report<R: Source>(replayer: &Replayer<R>, finished: &Finished) -> Replayed {
    let report = replayer.report();
    report.set_backtrace(&finished.backtrace.join("\n"));
    Replayed { end: report.end(), last_seq: replayer.last_seq(), failure: None }
}

/// Writes what the guest writes to its standard streams to ours, out of the calls that the decorated system answers.
#[derive(Debug)]
pub(super) struct Echo<S> {
    pub(super) inner: S,
    output: Output,
    streams: [Option<File>; 2],
}

impl<S> Echo<S> {
    pub(super) fn new(inner: S, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        Echo { inner, output: Output::default(), streams: [stdout.map(File::from), stderr.map(File::from)] }
    }
}

impl<S: System> System for Echo<S> {
    #[inline]
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let errno = self.inner.call(call, args, memory)?;
        if matches!(call, Call::FdWrite | Call::FdClose | Call::FdRenumber) {
            let streams = &mut self.streams;
            self.output.observe(call, args, errno, memory.written(), memory.inputs(), |stream, bytes| {
                if let Some(file) = &mut streams[usize::from(stream) - 1] {
                    // A reader that went away doesn't stop the replay: it has its own result.
                    let _ = file.write_all(bytes);
                }
            });
        }
        Ok(errno)
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.inner.end(end)
    }
}
