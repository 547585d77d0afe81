//! Standard streams: descriptors from outside, that others may share.
//!
//! The description behind such a descriptor may be the user's own shell's, so `O_NONBLOCK` is never set on it. Where
//! the kernel lets us open a description of our own for the same pipe or terminal, that one is non-blocking; where
//! not, a wait precedes each transfer. Either way a guest that waits can be killed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno as Os;
use rustix::net::{RecvFlags, SendFlags};

use super::Stop;
use crate::abi::filetype;
use crate::{Errno, Halt, Kill, KillSwitch};

/// What a blocking pipe takes without blocking once it polls as writable (`PIPE_BUF`), bytes.
const SHARED_WRITE_BYTES_MAX: usize = 4096;
/// Major number of Linux's memory devices (`/dev/null`, `/dev/zero`), which never wait.
const MEMORY_DEVICE_MAJOR: u32 = 1;

/// How a stream's descriptor must be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Never waits: regular files, `/dev/null`.
    Direct,
    /// A description of our own, non-blocking.
    Private,
    /// A socket: each transfer can be told not to wait.
    Socket,
    /// Shared and blocking: wait first.
    Shared,
}

/// A standard stream.
#[derive(Debug)]
pub(super) struct Stream {
    fd: OwnedFd,
    pub number: u8,
    pub manner: Manner,
    pub filetype: u8,
    pub terminal: bool,
}

impl Stream {
    pub fn new(fd: OwnedFd, number: u8) -> Result<Self, Os> {
        let stat = fstat(&fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let terminal = rustix::termios::isatty(&fd);
        let manner = match kind {
            FileType::Socket => Manner::Socket,
            FileType::Fifo => Manner::Shared,
            FileType::CharacterDevice if rustix::fs::major(stat.st_rdev) != MEMORY_DEVICE_MAJOR => Manner::Shared,
            _ => Manner::Direct,
        };
        let filetype = match kind {
            FileType::Socket => socket_type(&fd),
            other => super::stat::filetype_of(other),
        };
        let stream = Stream { fd, number, manner, filetype, terminal };
        Ok(if manner == Manner::Shared && (terminal || kind == FileType::Fifo) {
            stream.made_private()
        } else {
            stream
        })
    }

    /// The same stream over a non-blocking description of our own, or as it is where that can't be had.
    fn made_private(self) -> Self {
        let access = if self.number == 0 { OFlags::RDONLY } else { OFlags::WRONLY };
        // No more access than the descriptor has: a name under /proc would give the other end of a pipe, too.
        let had = rustix::fs::fcntl_getfl(&self.fd).map_or(access, |flags| flags & OFlags::RWMODE);
        if had != access && had != OFlags::RDWR {
            return self;
        }
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Stream { fd, manner: Manner::Private, ..self },
            Err(_) => self,
        }
    }

    /// Whether the descriptor has a position. Terminals have none, whatever their kind.
    pub fn is_seekable(&self) -> bool {
        let kinds = [filetype::REGULAR_FILE, filetype::BLOCK_DEVICE, filetype::CHARACTER_DEVICE];
        !self.terminal && kinds.contains(&self.filetype)
    }

    #[inline]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads once something is there, or fails with `EAGAIN` at once if `nonblock`.
    pub fn read(&self, bytes: &mut [u8], nonblock: bool, kill: &KillSwitch) -> Result<usize, Stop> {
        self.receive(bytes, RecvFlags::empty(), nonblock, kill)
    }

    /// Likewise, with flags that only sockets heed.
    pub fn receive(
        &self,
        bytes: &mut [u8],
        flags: RecvFlags,
        nonblock: bool,
        kill: &KillSwitch,
    ) -> Result<usize, Stop> {
        let flags = flags | RecvFlags::DONTWAIT;
        if self.manner == Manner::Shared {
            await_ready(self.fd(), PollFlags::IN, nonblock, kill)?;
        }
        loop {
            let done = match self.manner {
                Manner::Socket => rustix::net::recv(&self.fd, &mut *bytes, flags).map(|(count, _)| count),
                _ => rustix::io::read(&self.fd, &mut *bytes),
            };
            match done {
                Ok(count) => return Ok(count),
                Err(Os::AGAIN) => await_ready(self.fd(), PollFlags::IN, nonblock, kill)?,
                Err(Os::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what there is room for, once there is some, or fails with `EAGAIN` at once if `nonblock`.
    pub fn write(&self, bytes: &[u8], nonblock: bool, kill: &KillSwitch) -> Result<usize, Stop> {
        let mut bytes = bytes;
        if self.manner == Manner::Shared {
            await_ready(self.fd(), PollFlags::OUT, nonblock, kill)?;
            bytes = &bytes[..bytes.len().min(SHARED_WRITE_BYTES_MAX)];
        }
        loop {
            let done = match self.manner {
                Manner::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
                _ => rustix::io::write(&self.fd, bytes),
            };
            match done {
                Ok(count) => return Ok(count),
                Err(Os::AGAIN) => await_ready(self.fd(), PollFlags::OUT, nonblock, kill)?,
                Err(Os::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn socket_type(fd: &OwnedFd) -> u8 {
    match rustix::net::sockopt::socket_type(fd) {
        Ok(rustix::net::SocketType::STREAM) => filetype::SOCKET_STREAM,
        Ok(rustix::net::SocketType::DGRAM) => filetype::SOCKET_DGRAM,
        _ => filetype::UNKNOWN,
    }
}

/// Waits until the descriptor is ready (or has failed, which the transfer will tell), or the guest is killed.
fn await_ready(fd: BorrowedFd<'_>, interest: PollFlags, nonblock: bool, kill: &KillSwitch) -> Result<(), Stop> {
    let event = kill.descriptor();
    let mut fds = [PollFd::from_borrowed_fd(fd, interest), PollFd::from_borrowed_fd(event, PollFlags::IN)];
    let zero = rustix::event::Timespec::default();
    loop {
        let waited = poll(&mut fds, nonblock.then_some(&zero));
        awaited(kill)?;
        match waited {
            Ok(0) if nonblock => return Err(Errno::Again.into()),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(Os::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the guest if its end was asked for.
pub(super) fn killed(kill: &KillSwitch) -> Result<(), Stop> {
    if kill.is_requested() {
        // The reason is stored before the request is visible; the fallback is for the type checker only.
        return Err(Stop::Halt(Halt::Killed(kill.reason().unwrap_or(Kill::Signal(9)))));
    }
    Ok(())
}

/// What becomes of a call that waits: it goes on, or the guest's end was asked for, or it is interrupted.
pub(super) fn awaited(kill: &KillSwitch) -> Result<(), Stop> {
    killed(kill)?;
    if kill.show_interrupt() { Err(Errno::Intr.into()) } else { Ok(()) }
}
