//! Placeholder while the resumer lands.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{RunConfig, Session, SessionError};

/// A process whose host died, to go on.
#[derive(Debug)]
pub struct ResumeConfig {
    /// As for the first run; the log is the existing one, with the next epoch.
    pub run: RunConfig,
    /// Where temporary files go that check what the guest had written.
    pub scratch_dir: PathBuf,
    /// Where output that was recorded before the crash goes again; `None` drops it.
    pub replayed_stdout: Option<OwnedFd>,
}

/// Replays a process to its last record, then lets it go on live.
pub fn resume(_config: ResumeConfig) -> Result<Session, SessionError> {
    Err(SessionError::System(std::io::Error::other("not yet")))
}
