//! What a guest is given: everything that is not in here does not exist for it.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::network::{Network, NoNetwork};

/// The guest's world at its start. The default is empty: no arguments, no environment, no directory, null streams.
pub struct HostConfig {
    pub args: Vec<Vec<u8>>,
    /// `KEY=VALUE` each.
    pub env: Vec<Vec<u8>>,
    /// Directories, which become descriptors 3 and up in this order.
    pub mounts: Vec<Mount>,
    /// Sockets that listen already: the descriptors behind those of directories, with `nonblock` set.
    pub listeners: Vec<PreopenedListener>,
    /// Connections that are there already: the descriptors behind those of listeners, with `nonblock` set.
    pub dials: Vec<PreopenedDial>,
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
    pub limits: HostLimits,
    pub clock: Arc<dyn Clock>,
    pub random: Box<dyn Random>,
    /// What lies beyond the guest's own loopback.
    pub network: Box<dyn Network>,
    /// Whether the guest finds sockets as paths ([`SocketDirectory`](super::SocketDirectory)).
    pub socket_paths: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            args: Vec::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            listeners: Vec::new(),
            dials: Vec::new(),
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Null,
            limits: HostLimits::default(),
            clock: Arc::new(SystemClock),
            random: Box::new(SystemRandom),
            network: Box::new(NoNetwork),
            socket_paths: false,
        }
    }
}

impl fmt::Debug for HostConfig {
    /// Without the values of the environment, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("args", &self.args.len())
            .field("env", &self.env.len())
            .field("mounts", &self.mounts)
            .field("listeners", &self.listeners)
            .field("dials", &self.dials)
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("limits", &self.limits)
            .field("socket_paths", &self.socket_paths)
            .finish_non_exhaustive()
    }
}

/// A host directory that the guest sees, or the null device: then its name for the guest is that of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub host: PathBuf,
    /// Its name for the guest, as its libc's preopens show it.
    pub guest: String,
    pub read_only: bool,
    /// Its files never change, and are kept as long as the log: what is read from them is not copied into it. Implies
    /// `read_only`.
    pub immutable: bool,
}

/// A listening TCP socket for the guest.
#[derive(Debug)]
pub struct PreopenedListener {
    /// What the user calls it, for errors.
    pub name: String,
    pub socket: OwnedFd,
    /// Where it listens, as the guest sees it: a port of its own loopback too.
    pub local: SocketAddr,
}

/// A TCP connection for the guest.
#[derive(Debug)]
pub struct PreopenedDial {
    /// What the user calls it, for errors.
    pub name: String,
    /// `None`: the connection has died, as those of a resumed process have.
    pub socket: Option<OwnedFd>,
    pub local: SocketAddr,
    pub peer: SocketAddr,
}

/// Where a standard stream leads.
#[derive(Debug)]
pub enum Stdio {
    /// Reads end at once, writes vanish.
    Null,
    /// Attached, piped or captured: all are descriptors. A terminal is detected.
    Descriptor(OwnedFd),
}

/// Limits of one guest on what its host keeps for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// Open descriptors, preopened ones included.
    pub open_files: u32,
    /// Bytes by which the guest may grow files in its mounts, in all.
    pub disk_bytes: Option<u64>,
    /// Open sockets, which are descriptors too.
    pub sockets: u32,
}

impl Default for HostLimits {
    fn default() -> Self {
        HostLimits { open_files: 1024, disk_bytes: None, sockets: 1024 }
    }
}

/// Why a host can't be made, or can't take over from a replay.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("mount \"{}\": {reason}: {next}", host.display())]
    Mount { host: PathBuf, reason: String, next: &'static str },
    #[error("{what}: contains a NUL byte, which a guest can't be given: remove it")]
    Nul { what: String },
    #[error("{what}: {bytes} bytes, the limit is {limit} bytes: pass less, or a file")]
    TooLong { what: &'static str, bytes: usize, limit: usize },
    #[error("open files: the limit of {limit} is below the {needed} that streams, mounts and sockets take: raise it")]
    OpenFiles { limit: u32, needed: usize },
    #[error("sockets: the limit of {limit} is below the {needed} that the guest begins with: raise it")]
    Sockets { limit: u32, needed: usize },
    #[error("{name}: {reason}: {next}")]
    Socket { name: String, reason: String, next: &'static str },
    #[error("{what}: {source}: {next}")]
    System { what: String, source: std::io::Error, next: &'static str },
    #[error("descriptor {fd}, {path}: {reason}: {next}")]
    Restore { fd: u32, path: String, reason: String, next: &'static str },
}
