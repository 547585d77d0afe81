//! A process goes on where its log ends.
//!
//! [`Resumer`] replays first. When the log is at its end (and not the process), the guest's next call makes it go
//! live: the caller's closure turns the [`Shadow`] of the log into a real host, and from that call on everything goes
//! there. The guest notices nothing: it is the same instance, and the call that found the log at its end returns from
//! the host.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::recorder::{CALL_END, CONTROL_BASE, End, OwnedRecord, Record, Source, SourceError};
use crate::replayer::{Options, ReplayEnd, Replayer, Report};
use crate::shadow::{Shadow, ShadowError};
use crate::{Call, Errno, Halt, Memory, System};

/// What the source tells the resumer.
#[derive(Debug, Default)]
struct Progress {
    /// Taken when the process goes live.
    shadow: Option<Shadow>,
    error: Option<ShadowError>,
    /// Whether the last record was an end. A record behind it begins a new epoch.
    has_ended: bool,
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Feeds a shadow with each record that a replayer takes from `inner`.
#[derive(Debug)]
pub struct ShadowingSource<R> {
    inner: R,
    progress: Arc<Mutex<Progress>>,
}

impl Progress {
    fn follow(&mut self, record: &impl Record) -> Result<(), SourceError> {
        self.has_ended = record.call() == CALL_END;
        if record.call() >= CONTROL_BASE {
            return Ok(());
        }
        let refused = |what: String| SourceError::Log(format!("record {}: {what}", record.seq()));
        let call = Call::from_id(record.call()).ok_or_else(|| refused("unknown call".into()))?;
        let errno = Errno::from_raw(record.errno()).ok_or_else(|| refused("unknown error number".into()))?;
        let Some(shadow) = &mut self.shadow else { return Ok(()) };
        let applied = shadow.apply(call, record.args(), errno, record.written(), record.inputs());
        applied.map_err(|error| {
            let message = error.to_string();
            self.error = Some(error);
            refused(message)
        })
    }
}

impl<R: Source> Source for ShadowingSource<R> {
    type Record<'a>
        = R::Record<'a>
    where
        Self: 'a;

    fn next(&mut self) -> Result<Option<R::Record<'_>>, SourceError> {
        let record = self.inner.next()?;
        if let Some(record) = &record {
            lock(&self.progress).follow(record)?;
        }
        Ok(record)
    }

    fn last(&mut self) -> Result<Option<OwnedRecord>, SourceError> {
        self.inner.last()
    }
}

/// Makes the shadow of a log real: verifies it ([`Shadow::finish`]), restores a host, and has a recorder begin a new
/// epoch of the log. The error is for the user.
pub type GoLive<L> = Box<dyn FnOnce(Shadow) -> Result<L, String> + Send>;

enum Phase<R, L> {
    Replaying { replayer: Replayer<ShadowingSource<R>>, go_live: Option<GoLive<L>> },
    Live(L),
}

/// The world of a process that is being resumed.
pub struct Resumer<R, L> {
    phase: Phase<R, L>,
    progress: Arc<Mutex<Progress>>,
    report: Report,
    failure: Option<String>,
}

impl<R: Source, L: System> Resumer<R, L> {
    /// `shadow` is that of a process at its start, and `source` at its first record.
    pub fn new(source: R, options: Options, shadow: Shadow, go_live: GoLive<L>) -> Self {
        let progress = Arc::new(Mutex::new(Progress { shadow: Some(shadow), ..Progress::default() }));
        let source = ShadowingSource { inner: source, progress: Arc::clone(&progress) };
        let replayer = Replayer::new(source, options);
        let report = replayer.report();
        Resumer { phase: Phase::Replaying { replayer, go_live: Some(go_live) }, progress, report, failure: None }
    }

    /// Whether the log is over and the guest's calls reach the world.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    /// The live world, once there is one.
    pub fn live(&self) -> Option<&L> {
        if let Phase::Live(live) = &self.phase { Some(live) } else { None }
    }

    /// The live world, once there is one.
    pub fn live_mut(&mut self) -> Option<&mut L> {
        if let Phase::Live(live) = &mut self.phase { Some(live) } else { None }
    }

    /// How the replay ended. [`ReplayEnd::LogEnded`] is where the process goes live.
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Why the process couldn't be resumed, for the user. A divergence is in the report.
    pub fn failure(&self) -> Option<String> {
        self.failure.clone().or_else(|| lock(&self.progress).error.as_ref().map(ToString::to_string))
    }

    #[cold]
    fn go_live(&mut self, in_flight: Option<(Call, &[u64], &Memory<'_>)>) -> Result<&mut L, Halt> {
        let Phase::Replaying { go_live, .. } = &mut self.phase else { return Err(Halt::Replay) };
        let shadow = lock(&self.progress).shadow.take();
        let (Some(go_live), Some(mut shadow)) = (go_live.take(), shadow) else { return Err(Halt::Replay) };
        if let Some((call, args, memory)) = in_flight {
            shadow.expect_in_flight(call, args, memory);
        }
        match go_live(shadow) {
            Ok(live) => self.phase = Phase::Live(live),
            Err(reason) => {
                self.failure = Some(reason.clone());
                return Err(Halt::Log(reason));
            }
        }
        self.live_mut().ok_or(Halt::Replay)
    }

    fn log_ended(&self) -> bool {
        matches!(self.report.end(), Some(ReplayEnd::LogEnded { .. }))
    }
}

impl<R: Source, L: System> System for Resumer<R, L> {
    #[inline]
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        match &mut self.phase {
            Phase::Live(live) => live.call(call, args, memory),
            Phase::Replaying { replayer, .. } => match replayer.call(call, args, memory) {
                Err(Halt::Replay) if self.log_ended() => {
                    self.go_live(Some((call, args, memory)))?.call(call, args, memory)
                }
                outcome => outcome,
            },
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        match &mut self.phase {
            Phase::Live(live) => live.end(end),
            Phase::Replaying { replayer, .. } => {
                let outcome = replayer.end(end);
                let is_open = outcome.is_ok() || self.log_ended();
                if is_open && !lock(&self.progress).has_ended {
                    // The host died between the guest's last call and the record of its end: that is all that's left.
                    return self.go_live(None)?.end(end);
                }
                outcome
            }
        }
    }
}

impl<R, L> fmt::Debug for Resumer<R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_live = matches!(self.phase, Phase::Live(_));
        f.debug_struct("Resumer").field("is_live", &is_live).field("failure", &self.failure).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::abi::oflags;
    use crate::clock::SystemClock;
    use crate::host::{Host, HostConfig, Mount};
    use crate::memory::Notes;
    use crate::recorder::{MemorySink, MemorySource, Recorder};
    use crate::restore::DescriptorKind;
    use crate::shadow::{SCRATCH_BYTES_MAX, ShadowConfig, ShadowMount};

    /// A world that answers any call, and keeps what it was asked.
    #[derive(Default)]
    struct Answering(Vec<(Call, Vec<u64>)>, Option<End>);

    impl System for Answering {
        fn call(&mut self, call: Call, args: &[u64], _memory: &mut Memory<'_>) -> Result<Errno, Halt> {
            self.0.push((call, args.to_vec()));
            Ok(Errno::Nosys)
        }

        fn end(&mut self, end: &End) -> Result<(), Halt> {
            self.1 = Some(end.clone());
            Ok(())
        }
    }

    fn record(seq: u64, call: u16, args: &[u64], written: Vec<(u32, Vec<u8>)>) -> OwnedRecord {
        OwnedRecord { seq, call, args: args.to_vec(), written, ..OwnedRecord::default() }
    }

    fn log() -> Vec<OwnedRecord> {
        vec![
            record(0, crate::recorder::CALL_START, &[0, 0], vec![]),
            record(1, Call::ClockTimeGet as u16, &[1, 0, 8], vec![(8, 55u64.to_le_bytes().to_vec())]),
            record(2, Call::FdClose as u16, &[0], vec![]),
        ]
    }

    fn resumer(records: Vec<OwnedRecord>, go_live: GoLive<Answering>) -> Resumer<MemorySource, Answering> {
        let config = ShadowConfig {
            mounts: vec![],
            socket_paths: false,
            sockets: vec![],
            scratch: std::env::temp_dir(),
            scratch_bytes_max: SCRATCH_BYTES_MAX,
            started_unix_ns: u64::MAX,
        };
        Resumer::new(MemorySource::new(records), Options::default(), Shadow::new(config).unwrap(), go_live)
    }

    fn call<S: System>(system: &mut S, call: Call, args: &[u64]) -> (Result<Errno, Halt>, Vec<u8>) {
        let mut bytes = vec![0; 64];
        let outcome = system.call(call, args, &mut Memory::new(&mut bytes, &mut Notes::default()));
        (outcome, bytes)
    }

    fn verified() -> GoLive<Answering> {
        Box::new(|shadow| {
            let restored = shadow.finish().map_err(|mismatch| mismatch.to_string())?;
            assert_eq!(restored.monotonic_ns, 55);
            let kinds: Vec<_> = restored.descriptors.iter().map(|descriptor| &descriptor.kind).collect();
            assert!(matches!(kinds[..], [DescriptorKind::Stdio(1), DescriptorKind::Stdio(2)]));
            Ok(Answering::default())
        })
    }

    #[test]
    fn the_call_behind_the_last_record_reaches_the_world() {
        let mut resumer = resumer(log(), verified());
        let (outcome, bytes) = call(&mut resumer, Call::ClockTimeGet, &[1, 0, 8]);
        assert_eq!((outcome, bytes[8]), (Ok(Errno::Success), 55));
        assert_eq!(call(&mut resumer, Call::FdClose, &[0]).0, Ok(Errno::Success));
        assert!(!resumer.is_live());
        assert_eq!(call(&mut resumer, Call::SchedYield, &[]).0, Ok(Errno::Nosys));
        assert_eq!(call(&mut resumer, Call::FdClose, &[1]).0, Ok(Errno::Nosys));
        assert!(resumer.is_live());
        resumer.end(&End::Exit(3)).unwrap();
        let live = resumer.live().unwrap();
        assert_eq!(live.0, [(Call::SchedYield, vec![]), (Call::FdClose, vec![1])]);
        assert_eq!(live.1, Some(End::Exit(3)));
    }

    #[test]
    fn a_guest_that_ends_without_another_call_has_its_end_recorded() {
        let mut resumer = resumer(log(), verified());
        let _ = call(&mut resumer, Call::ClockTimeGet, &[1, 0, 8]);
        let _ = call(&mut resumer, Call::FdClose, &[0]);
        resumer.end(&End::Exit(0)).unwrap();
        assert_eq!(resumer.live().unwrap().1, Some(End::Exit(0)));
    }

    #[test]
    fn what_keeps_a_process_from_going_on_is_told() {
        let mut refused = resumer(log(), Box::new(|_| Err("the file differs".into())));
        let _ = call(&mut refused, Call::ClockTimeGet, &[1, 0, 8]);
        let _ = call(&mut refused, Call::FdClose, &[0]);
        let (outcome, _) = call(&mut refused, Call::SchedYield, &[]);
        assert_eq!(outcome, Err(Halt::Log("the file differs".into())));
        assert_eq!(refused.failure().as_deref(), Some("the file differs"));
        assert_eq!(call(&mut refused, Call::SchedYield, &[]).0, Err(Halt::Replay));

        let mut diverged = resumer(log(), verified());
        assert_eq!(call(&mut diverged, Call::SchedYield, &[]).0, Err(Halt::Replay));
        assert!(!diverged.is_live() && matches!(diverged.report().end(), Some(ReplayEnd::Diverged(_))));

        let unknown = vec![record(0, Call::FdClose as u16, &[77], vec![])];
        let mut unfollowed = resumer(unknown, verified());
        assert_eq!(call(&mut unfollowed, Call::FdClose, &[77]).0, Err(Halt::Replay));
        assert!(unfollowed.failure().unwrap().contains("descriptor 77"));
    }

    type Recorded = Recorder<Host, MemorySink>;

    fn host(dir: &Path) -> Host {
        let mounts = vec![Mount { host: dir.into(), guest: "/data".into(), read_only: false, immutable: false }];
        let config = HostConfig { mounts, ..HostConfig::default() };
        Host::new(config, Arc::new(crate::KillSwitch::new().unwrap())).unwrap()
    }

    /// The guest: opens two files, appends to one and overwrites the other, `calls` calls in all.
    fn guest(system: &mut impl System, calls: std::ops::Range<u32>) {
        const ALL: u64 = crate::abi::rights::ALL;
        let mut bytes = vec![0; 256];
        bytes[..6].copy_from_slice(b"loglog");
        bytes[6] = b'f';
        for number in calls {
            bytes[40..49].copy_from_slice(format!("{number:08}\n").as_bytes());
            bytes[64..72].copy_from_slice(&[40, 0, 0, 0, 9, 0, 0, 0]);
            let args: &[u64] = match number {
                0 => &[3, 1, 0, 3, u64::from(oflags::CREAT), ALL, ALL, 1, 128],
                1 => &[3, 1, 6, 1, u64::from(oflags::CREAT), ALL, ALL, 0, 128],
                number if number % 2 == 0 => &[4, 64, 1, 128],
                _ => &[5, 64, 1, 128],
            };
            let call = if number < 2 { Call::PathOpen } else { Call::FdWrite };
            let outcome = system.call(call, args, &mut Memory::new(&mut bytes, &mut Notes::default()));
            assert_eq!(outcome, Ok(Errno::Success), "call {number}");
        }
    }

    fn resumed(dir: &Path, records: Vec<OwnedRecord>) -> Resumer<MemorySource, Recorded> {
        let mounts = vec![ShadowMount { host: dir.into(), guest: "/data".into(), read_only: false }];
        let scratch = std::env::temp_dir();
        let shadow = Shadow::new(ShadowConfig {
            mounts,
            socket_paths: false,
            sockets: vec![],
            scratch,
            scratch_bytes_max: SCRATCH_BYTES_MAX,
            started_unix_ns: u64::MAX,
        })
        .unwrap();
        let root = dir.to_owned();
        let go_live = move |shadow: Shadow| {
            let restored = shadow.finish().map_err(|mismatch| mismatch.to_string())?;
            let mut host = host(&root);
            host.restore(restored).map_err(|error| error.to_string())?;
            Ok(Recorder::new(host, MemorySink::default(), Arc::new(SystemClock), 0))
        };
        Resumer::new(MemorySource::new(records), Options::default(), shadow, Box::new(go_live))
    }

    #[test]
    fn files_are_the_same_wherever_the_host_died() {
        let unbroken = tempfile::tempdir().unwrap();
        let mut uncut = host(unbroken.path());
        guest(&mut uncut, 0..20);
        // Cut between any two calls, with and without the effect of the call behind the cut.
        for (cut, extra) in (0..20).flat_map(|cut| [(cut, 0), (cut, 1)]) {
            let dir = tempfile::tempdir().unwrap();
            let mut first = Recorder::new(host(dir.path()), MemorySink::default(), Arc::new(SystemClock), 0);
            guest(&mut first, 0..cut + extra);
            let mut records = std::mem::take(&mut first.sink_mut().records);
            drop(first);
            records.truncate(cut as usize);
            let mut resumer = resumed(dir.path(), records);
            // The first append to a file of unknown size is the one case that can't be told: it is refused.
            if (cut, extra) == (2, 1) {
                let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guest(&mut resumer, 0..20)));
                assert!(failure.is_err() && resumer.failure().unwrap().contains("looks the same"));
                continue;
            }
            guest(&mut resumer, 0..20);
            for name in ["log", "f"] {
                let content = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
                assert_eq!(content(dir.path()), content(unbroken.path()), "{name}, cut at {cut}, {extra} more");
            }
            let live = resumer.live().unwrap().inner();
            assert_eq!(live.descriptors(), uncut.descriptors(), "cut at {cut}");
        }
    }
}
