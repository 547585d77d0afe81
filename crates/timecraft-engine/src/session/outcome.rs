//! How a session ended, in the terms of its users.

use timecraft_log::LogStats;

use super::{Replayed, Written};
use crate::replayer::ReplayEnd;
use crate::runtime::{ArtifactSource, Ending, Finished};
use crate::system::{End, Halt, Kill};

/// Kinds of ends. The first four are the guest's own, live or as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    Exit,
    Trap,
    Killed,
    Limit,
    Diverged,
    LogEnded,
    LogDamaged,
    InputLost,
    LogFailed,
    Until,
}

impl OutcomeKind {
    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            OutcomeKind::Exit => "exit",
            OutcomeKind::Trap => "trap",
            OutcomeKind::Killed => "killed",
            OutcomeKind::Limit => "limit",
            OutcomeKind::Diverged => "diverged",
            OutcomeKind::LogEnded => "log_ended",
            OutcomeKind::LogDamaged => "log_damaged",
            OutcomeKind::InputLost => "input_lost",
            OutcomeKind::LogFailed => "log_failed",
            OutcomeKind::Until => "until",
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub kind: OutcomeKind,
    /// As a shell would see it: the guest's own, 128 + n for a signal, 134 for a trap, 137 for a limit, else 125.
    pub code: u32,
    /// For people; empty for an exit.
    pub message: String,
    /// Guest frames, innermost first.
    pub backtrace: Vec<String>,
    /// The last record written or replayed.
    pub last_seq: Option<u64>,
    pub memory_digest: String,
    pub artifact: ArtifactSource,
    /// Counters, units in the names.
    pub stats: Vec<(&'static str, u64)>,
}

/// Exit codes of docker and shells.
const CODE_RUNTIME_ERROR: u32 = 125;
const CODE_ABORTED: u32 = 134;
const CODE_KILLED: u32 = 137;
const CODE_SIGNAL_BASE: u32 = 128;

pub(super) fn of(finished: &Finished, written: &Written, replayed: &Replayed) -> Outcome {
    let (kind, code, message) = judge(finished, written, replayed);
    Outcome {
        kind,
        code,
        message,
        backtrace: finished.backtrace.clone(),
        last_seq: written.last_seq.or(replayed.last_seq),
        memory_digest: finished.memory_digest.clone(),
        artifact: finished.artifact,
        stats: stats(finished, written),
    }
}

fn judge(finished: &Finished, written: &Written, replayed: &Replayed) -> (OutcomeKind, u32, String) {
    if let Some(failure) = &replayed.failure {
        return (OutcomeKind::LogFailed, CODE_RUNTIME_ERROR, failure.clone());
    }
    if let Some(end) = &replayed.end {
        return of_replay(end);
    }
    match &finished.ending {
        Ending::End(end) => match &written.failure {
            Some(failure) => (OutcomeKind::LogFailed, CODE_RUNTIME_ERROR, failure.clone()),
            None => of_end(end),
        },
        Ending::Halt(Halt::Log(reason)) => {
            let reason = written.failure.as_ref().unwrap_or(reason);
            (OutcomeKind::LogFailed, CODE_RUNTIME_ERROR, reason.clone())
        }
        Ending::Halt(Halt::Exit(code)) => of_end(&End::Exit(*code)),
        Ending::Halt(Halt::Killed(kill)) => of_end(&End::Killed(kill.clone())),
        Ending::Halt(Halt::Replay) => {
            (OutcomeKind::LogFailed, CODE_RUNTIME_ERROR, "the replay stopped without saying why".into())
        }
    }
}

fn of_end(end: &End) -> (OutcomeKind, u32, String) {
    match end {
        End::Exit(code) => (OutcomeKind::Exit, *code, String::new()),
        End::Trap { message } => (OutcomeKind::Trap, CODE_ABORTED, message.clone()),
        End::Killed(Kill::Signal(signal)) => {
            (OutcomeKind::Killed, CODE_SIGNAL_BASE + u32::from(*signal), format!("killed by signal {signal}"))
        }
        End::Killed(Kill::Limit(reason)) => (OutcomeKind::Limit, CODE_KILLED, reason.clone()),
    }
}

fn of_replay(end: &ReplayEnd) -> (OutcomeKind, u32, String) {
    let so_far =
        |last: &Option<u64>| last.map_or("before the first record".into(), |seq| format!("after record {seq}"));
    match end {
        ReplayEnd::Complete(end) => of_end(end),
        ReplayEnd::Diverged(divergence) => (OutcomeKind::Diverged, CODE_RUNTIME_ERROR, divergence.to_string()),
        ReplayEnd::LogEnded { last_seq } => {
            let message = format!("the log ends {}: the process lives, or its host died", so_far(last_seq));
            (OutcomeKind::LogEnded, CODE_RUNTIME_ERROR, message)
        }
        ReplayEnd::LogDamaged { error, last_seq } => {
            let message = format!("the log is damaged {}: {error}", so_far(last_seq));
            (OutcomeKind::LogDamaged, CODE_RUNTIME_ERROR, message)
        }
        ReplayEnd::InputLost { error, .. } => (OutcomeKind::InputLost, CODE_RUNTIME_ERROR, error.clone()),
        ReplayEnd::Interrupted { kill, .. } => of_end(&End::Killed(kill.clone())),
        ReplayEnd::Until { next_seq } => (OutcomeKind::Until, 0, format!("stopped before record {next_seq}")),
    }
}

fn stats(finished: &Finished, written: &Written) -> Vec<(&'static str, u64)> {
    let compiled = finished.artifact != ArtifactSource::Cached;
    let mut stats = vec![
        ("load_ns", if compiled { 0 } else { finished.load_ns }),
        ("compile_ns", if compiled { finished.load_ns } else { 0 }),
        ("instantiate_ns", finished.instantiate_ns),
        ("run_ns", finished.run_ns),
        ("cpu_ns", finished.cpu_ns),
        ("calls", finished.calls),
        ("memory_bytes_peak", finished.memory_bytes_peak),
    ];
    stats.extend(finished.operators.map(|count| ("operators", count)));
    stats.extend(log_stats(&written.stats));
    stats
}

pub(super) fn log_stats(log: &LogStats) -> [(&'static str, u64); 13] {
    [
        ("records", log.records),
        ("log_bytes_raw", log.bytes_raw),
        ("log_bytes_stored", log.bytes_stored),
        ("ring_stalls", log.stalls),
        ("ring_stalled_ns", log.stalled_ns),
        ("records_lost", log.records_lost),
        ("log_syncs", log.syncs),
        ("log_sync_waited_ns", log.sync_waited_ns),
        ("log_faults", log.faults),
        ("log_faulted_ns", log.faulted_ns),
        ("log_fault_errno", log.fault_errno),
        ("log_flushes", log.flushes),
        ("log_flush_ns", log.flush_ns),
    ]
}
