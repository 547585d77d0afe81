//! The dataclasses of `timecraftd/engine/spec.py`, read by name, and what they mean for the engine.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use timecraft_engine::calls::SocketAbi;
use timecraft_engine::clock::{SystemClock, SystemRandom};
use timecraft_engine::host::{HostConfig, HostLimits, Mount, PreopenedDial, PreopenedListener, Stdio};
use timecraft_engine::network::NoNetwork;
use timecraft_engine::reference::Trees;
use timecraft_engine::replayer::Until;
use timecraft_engine::runtime::{ArtifactCache, Compiler, GuestConfig, Instrument, Limits, Nans};
use timecraft_engine::session::{LogOptions, ReplayConfig, ResumeConfig, RunConfig};
use timecraft_log::{Compression, LogConfig, OnFull, Output};

use crate::error;
use crate::network::{Endpoint, NetworkPort, socket_address};
use crate::source::LogPlace;

#[derive(FromPyObject)]
struct MountSpec {
    host: String,
    guest: String,
    read_only: bool,
    tree: Option<String>,
}

#[derive(FromPyObject)]
struct SocketSpec {
    fd: i32,
    address: String,
    local: Endpoint,
    peer: Option<Endpoint>,
}

#[derive(FromPyObject)]
struct LimitSpec {
    memory_bytes: u64,
    stack_bytes: usize,
    open_files: u32,
    sockets: u32,
    disk_bytes: Option<u64>,
    cpu_ns: Option<u64>,
    wall_ns: Option<u64>,
    log_bytes_per_s: Option<u64>,
}

#[derive(FromPyObject)]
struct LogSpec {
    dir: String,
    process_id: String,
    manifest: Vec<u8>,
    epoch: u32,
    ring_path: Option<String>,
    ring_bytes: usize,
    block_bytes_max: usize,
    segment_bytes_max: u64,
    seal_age_ns: Option<u64>,
    compression: String,
    output: String,
    on_full: String,
    wait_ns_max: Option<u64>,
    log_bytes_max: Option<u64>,
    durability: String,
    flush_ns: u64,
}

#[derive(FromPyObject)]
struct ModuleSpec {
    path: String,
    digest: String,
    artifact_dir: String,
    artifact_bytes_max: u64,
    function: Option<String>,
    nans: String,
    sockets: String,
}

#[derive(FromPyObject)]
pub(crate) struct RunSpec {
    module: ModuleSpec,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    mounts: Vec<MountSpec>,
    stdin_fd: Option<i32>,
    stdout_fd: Option<i32>,
    stderr_fd: Option<i32>,
    limits: LimitSpec,
    log: Option<LogSpec>,
    network: Option<Py<NetworkPort>>,
    listeners: Vec<SocketSpec>,
    dials: Vec<SocketSpec>,
    trace_fd: Option<i32>,
    chaos_ratio: f64,
    chaos_seed: u64,
    memory_digest: bool,
}

#[derive(FromPyObject)]
pub(crate) struct ReplaySpec {
    module: ModuleSpec,
    log: LogPlace,
    trees: Vec<Option<PathBuf>>,
    limits: LimitSpec,
    stdout_fd: Option<i32>,
    stderr_fd: Option<i32>,
    trace_fd: Option<i32>,
    until_seq: Option<u64>,
    until_time_ns: Option<u64>,
    poison: bool,
    count: bool,
    memory_digest: bool,
}

#[derive(FromPyObject)]
pub(crate) struct ResumeSpec {
    run: RunSpec,
    scratch_dir: String,
}

fn guest(module: ModuleSpec, limits: &LimitSpec, instrument: Instrument, memory_digest: bool) -> PyResult<GuestConfig> {
    let nans = crate::module::nans(&module.nans)?;
    let sockets: SocketAbi = module.sockets.parse().map_err(|reason: String| error::argument(reason))?;
    if nans == Nans::Native && instrument != Instrument::None {
        return Err(error::argument("a log with native NaNs can only be replayed by the code that made it"));
    }
    Ok(GuestConfig {
        wasm: PathBuf::from(module.path),
        digest: module.digest,
        cache: ArtifactCache::new(module.artifact_dir, module.artifact_bytes_max),
        function: module.function.unwrap_or_else(|| "_start".into()),
        limits: Limits {
            memory_bytes: limits.memory_bytes,
            stack_bytes: limits.stack_bytes,
            cpu_ns: limits.cpu_ns,
            wall_ns: limits.wall_ns,
        },
        compiler: Compiler { instrument, nans },
        sockets,
        memory_digest,
    })
}

/// A descriptor of the caller's, duplicated: ours to keep and to close.
#[allow(unsafe_code)]
fn duplicate(fd: i32) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(error::argument(format!("{fd} is no descriptor")));
    }
    // SAFETY: borrowed for the length of dup alone, which fails with EBADF if the caller was wrong about it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(borrowed.try_clone_to_owned()?)
}

fn stream(fd: Option<i32>) -> PyResult<Stdio> {
    fd.map_or(Ok(Stdio::Null), |fd| Ok(Stdio::Descriptor(duplicate(fd)?)))
}

fn log(spec: LogSpec, limits: &LimitSpec) -> PyResult<LogOptions> {
    let mut config = LogConfig::new(spec.dir, process(&spec.process_id)?);
    config.epoch = spec.epoch;
    config.ring_path = spec.ring_path.map(PathBuf::from);
    config.ring_bytes = spec.ring_bytes;
    config.block_bytes_max = spec.block_bytes_max;
    config.segment_bytes_max = spec.segment_bytes_max;
    config.seal_age = spec.seal_age_ns.map(Duration::from_nanos);
    config.log_bytes_max = spec.log_bytes_max;
    config.compression = match spec.compression.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        other => return Err(error::argument(format!("unknown compression {other:?}"))),
    };
    config.output = match spec.output.as_str() {
        "inline" => Output::Inline,
        "digest" => Output::Digest,
        other => return Err(error::argument(format!("unknown output mode {other:?}"))),
    };
    config.on_full = match spec.on_full.as_str() {
        "stop" => OnFull::Stop,
        "wait" => OnFull::Wait,
        "continue" => OnFull::Continue,
        other => return Err(error::argument(format!("unknown policy {other:?}"))),
    };
    config.wait_max = spec.wait_ns_max.map(Duration::from_nanos);
    config.fsync_interval = Some(Duration::from_nanos(spec.flush_ns));
    config.sync_before_output = match spec.durability.as_str() {
        "flush" => false,
        "sync" => true,
        other => return Err(error::argument(format!("unknown durability {other:?}"))),
    };
    Ok(LogOptions { config, manifest: spec.manifest, bytes_per_s_max: limits.log_bytes_per_s })
}

/// The 16 bytes of a UUID.
pub(crate) fn process(id: &str) -> PyResult<[u8; 16]> {
    let digits: String = id.chars().filter(|digit| *digit != '-').collect();
    let value = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    value.map(u128::to_be_bytes).ok_or_else(|| error::argument(format!("{id:?} is no UUID")))
}

impl SocketSpec {
    fn into_listener(self) -> PyResult<PreopenedListener> {
        let (socket, local) = (duplicate(self.fd)?, socket_address(&self.local)?);
        Ok(PreopenedListener { name: self.address, socket, local })
    }

    fn into_dial(self) -> PyResult<PreopenedDial> {
        let peer = self.peer.ok_or_else(|| error::argument(format!("{}: has no peer", self.address)))?;
        // None is left of a connection of a process that is resumed.
        let socket = if self.fd == -1 { None } else { Some(duplicate(self.fd)?) };
        let (local, peer) = (socket_address(&self.local)?, socket_address(&peer)?);
        Ok(PreopenedDial { name: self.address, socket, local, peer })
    }
}

impl RunSpec {
    pub(crate) fn into_config(self) -> PyResult<RunConfig> {
        let recorded = self.log.is_some();
        let mounts = self.mounts.into_iter().map(|mount| Mount {
            host: mount.host.into(),
            guest: mount.guest,
            read_only: mount.read_only,
            // What a record would refer to is not worth finding out without one.
            immutable: recorded && mount.tree.is_some(),
        });
        let guest = guest(self.module, &self.limits, Instrument::None, self.memory_digest)?;
        let host = HostConfig {
            args: self.args,
            env: self.env,
            mounts: mounts.collect(),
            listeners: self.listeners.into_iter().map(SocketSpec::into_listener).collect::<PyResult<_>>()?,
            dials: self.dials.into_iter().map(SocketSpec::into_dial).collect::<PyResult<_>>()?,
            stdin: stream(self.stdin_fd)?,
            stdout: stream(self.stdout_fd)?,
            stderr: stream(self.stderr_fd)?,
            limits: HostLimits {
                open_files: self.limits.open_files,
                disk_bytes: self.limits.disk_bytes,
                sockets: self.limits.sockets,
            },
            clock: Arc::new(SystemClock),
            random: Box::new(SystemRandom),
            network: match self.network {
                Some(port) => Box::new(port.get().attach()?),
                None => Box::new(NoNetwork),
            },
            socket_paths: guest.sockets == SocketAbi::Path,
        };
        Ok(RunConfig {
            guest,
            host,
            log: self.log.map(|spec| log(spec, &self.limits)).transpose()?,
            trace: self.trace_fd.map(duplicate).transpose()?,
            chaos: (self.chaos_ratio > 0.0).then_some((self.chaos_ratio, self.chaos_seed)),
        })
    }
}

impl ReplaySpec {
    pub(crate) fn into_config(self) -> PyResult<ReplayConfig> {
        let instrument = if self.count { Instrument::Count } else { Instrument::None };
        let until = match (self.until_seq, self.until_time_ns) {
            (Some(seq), _) => Some(Until::Seq(seq)),
            (None, time_ns) => time_ns.map(Until::TimeNs),
        };
        Ok(ReplayConfig {
            guest: guest(self.module, &self.limits, instrument, self.memory_digest)?,
            log: self.log.into_source()?,
            trees: Trees::new(self.trees),
            stdout: self.stdout_fd.map(duplicate).transpose()?,
            stderr: self.stderr_fd.map(duplicate).transpose()?,
            trace: self.trace_fd.map(duplicate).transpose()?,
            until,
            poison: self.poison,
        })
    }
}

impl ResumeSpec {
    pub(crate) fn into_config(self) -> PyResult<ResumeConfig> {
        Ok(ResumeConfig { run: self.run.into_config()?, scratch_dir: self.scratch_dir.into() })
    }
}
