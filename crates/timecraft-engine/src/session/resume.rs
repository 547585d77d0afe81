//! Resumption: a process whose host died replays its log, and goes on live.

use std::path::PathBuf;
use std::sync::Arc;

use timecraft_log::LogReader;

use super::live::{LogOptions, open_log, recorded, unruly};
use super::{Replayed, RunConfig, Session, SessionError, Shared, kill_switch, start};
use crate::System;
use crate::chaos::Chaos;
use crate::host::{Host, HostConfig};
use crate::kill::KillSwitch;
use crate::meter::Metered;
use crate::reference::{Trees, WholeSource};
use crate::replayer::Options;
use crate::resumer::Resumer;
use crate::runtime::Prepared;
use crate::shadow::{SCRATCH_BYTES_MAX, Shadow, ShadowConfig, ShadowMount, preopened_sockets};

/// A process whose host died, to go on.
#[derive(Debug)]
pub struct ResumeConfig {
    /// As for the first run; the log is the existing one, with the next epoch.
    pub run: RunConfig,
    /// Where temporary files go that check what the guest had written.
    pub scratch_dir: PathBuf,
}

/// Replays a process to its last record, then lets the same instance go on live.
///
/// What it wrote to its standard streams before is not written again.
///
/// # Errors
/// [`SessionError`], before anything ran. What stands in the way of going live is the outcome's message.
pub fn resume(config: ResumeConfig) -> Result<Session, SessionError> {
    let ResumeConfig { run, scratch_dir } = config;
    let Some(log) = run.log else { return Err(SessionError::NotRecorded) };
    let prepared = Prepared::new(run.guest)?;
    let kill = kill_switch()?;
    let shared = Arc::new(Shared::default());
    if let Some(seq) = timecraft_log::recover(&log.config.dir)?.first_lost_seq {
        // What it did behind its last record would be done again.
        return Err(SessionError::RecordsLost(seq));
    }
    let summary = crate::view::summarize(&log.config.dir)?;
    let trees = run.host.mounts.iter().map(|mount| mount.immutable.then(|| mount.host.clone()));
    let reader = WholeSource::new(LogReader::open(&log.config.dir)?, Trees::new(trees));
    let shadow = Shadow::new(shadow_config(&run.host, scratch_dir, summary.start_unix_ns))?;
    let live = GoLive {
        host: run.host,
        log,
        chaos: run.chaos,
        trace: run.trace,
        last_time_ns: summary.last_time_ns,
        kill: Arc::clone(&kill),
        shared: Arc::clone(&shared),
    };
    let resumer = Resumer::new(reader, Options::default(), shadow, Box::new(|shadow| live.with(shadow)));
    start(prepared, resumer, kill, shared, |resumer, finished| {
        let report = resumer.report();
        report.set_backtrace(&finished.backtrace.join("\n"));
        let end = if resumer.is_live() { None } else { report.end() };
        Replayed { end, last_seq: None, failure: resumer.failure() }
    })
}

fn shadow_config(host: &HostConfig, scratch: PathBuf, started_unix_ns: u64) -> ShadowConfig {
    let mounts = host.mounts.iter();
    let mounts = mounts.map(|mount| ShadowMount {
        host: mount.host.clone(),
        guest: mount.guest.clone(),
        read_only: mount.read_only,
    });
    ShadowConfig {
        mounts: mounts.collect(),
        socket_paths: host.socket_paths,
        sockets: preopened_sockets(host),
        scratch,
        scratch_bytes_max: SCRATCH_BYTES_MAX,
        started_unix_ns,
    }
}

/// What the live world is made of, when the log is over.
struct GoLive {
    host: HostConfig,
    log: LogOptions,
    chaos: Option<(f64, u64)>,
    trace: Option<std::os::fd::OwnedFd>,
    last_time_ns: u64,
    kill: Arc<KillSwitch>,
    shared: Arc<Shared>,
}

impl GoLive {
    fn with(self, shadow: Shadow) -> Result<Box<dyn System>, String> {
        let restored = shadow.finish().map_err(|mismatch| mismatch.to_string())?;
        let clock = Arc::clone(&self.host.clock);
        let mut host = Host::new(self.host, Arc::clone(&self.kill)).map_err(|error| error.to_string())?;
        host.restore(restored).map_err(|error| error.to_string())?;
        let bytes_per_s_max = self.log.bytes_per_s_max;
        let ring = open_log(self.log, &self.shared, &*clock, self.last_time_ns, &self.kill);
        let ring = ring.map_err(|error| error.to_string())?;
        let zero_ns = clock.monotonic_ns().wrapping_sub(self.last_time_ns);
        let world = unruly(host, self.chaos, &self.kill, Chaos::sparing_next);
        let system = recorded(world, ring, bytes_per_s_max, Arc::clone(&clock), zero_ns, self.kill, self.trace);
        Ok(Box::new(Metered::new(system, Arc::clone(&self.shared.meter), clock)))
    }
}
