//! The host: WASI preview 1 on Linux, the real effects beneath all decorators.
//!
//! Every call validates all pointers, lengths and rights before any effect, and no check is separate from the use it
//! guards: paths are resolved by the kernel (`openat2`, beneath a descriptor), limits apply where the effect happens.

mod arguments;
mod config;
mod directories;
mod environment;
mod files;
pub(crate) mod path;
mod paths;
mod poll;
mod quota;
mod reservation;
mod restore;
pub(crate) mod sockets;
mod stat;
mod streams;
mod table;
#[cfg(test)]
mod tests;
mod transfer;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use self::arguments::Arguments;
pub use self::config::{HostConfig, HostError, HostLimits, Mount, PreopenedDial, PreopenedListener, Stdio};
use self::environment::Strings;
use self::quota::Quota;
use self::reservation::Reservation;
use self::restore::Resumption;
use self::sockets::Net;
pub use self::sockets::SocketDirectory;
use self::stat::stream_rights;
use self::streams::Stream;
use self::table::{Directory, Entry, Kind, Table};
use crate::clock::{Clock, Random};
use crate::memory::Region;
use crate::restore::{MOUNT_RIGHTS_BASE, MOUNT_RIGHTS_INHERITING};
use crate::{Call, Errno, Halt, KillSwitch, Memory, System};

/// The guest's world, for real.
pub struct Host {
    args: Strings,
    env: Strings,
    mounts: Vec<MountRoot>,
    table: Table,
    net: Net,
    /// Whether sockets are paths.
    socket_paths: bool,
    quota: Quota,
    clock: Arc<dyn Clock>,
    /// Added to the kernel's monotonic clock: positive after a resume on a machine that booted later.
    monotonic_offset_ns: u64,
    random: Box<dyn Random>,
    kill: Arc<KillSwitch>,
    /// What the first calls after a resume must treat with care; empty otherwise.
    resumption: Resumption,
    /// Reused from call to call, so that the hot calls allocate nothing.
    scratch: Scratch,
    _reservation: Reservation,
}

#[derive(Default)]
struct Scratch {
    regions: Vec<Region>,
    bytes: Vec<u8>,
}

/// A mount as the host keeps it.
#[derive(Debug)]
struct MountRoot {
    config: Mount,
    root: OwnedFd,
    /// Path of the root without symbolic links, if the mount is immutable.
    immutable: Option<Vec<u8>>,
}

impl MountRoot {
    /// The path of what was opened beneath, if the mount is immutable.
    fn path_within(&self, fd: &OwnedFd) -> Option<Vec<u8>> {
        let root = self.immutable.as_ref()?;
        let path = files::path_of(fd.as_fd())?;
        Some(path.strip_prefix(root.as_slice())?.strip_prefix(b"/")?.to_vec())
    }
}

/// What `Host::descriptors` tells of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorInfo {
    pub fd: u32,
    /// `abi::filetype`.
    pub filetype: u8,
    pub rights_base: u64,
    pub rights_inheriting: u64,
    /// `abi::fdflags`.
    pub flags: u16,
    /// Index of the mount that it lies in; none for standard streams.
    pub mount: Option<usize>,
    pub preopen: bool,
}

/// Why a call doesn't succeed: an error that the guest sees, or its end.
#[derive(Debug)]
enum Stop {
    Errno(Errno),
    Halt(Halt),
}

impl From<Errno> for Stop {
    #[inline]
    fn from(errno: Errno) -> Self {
        Stop::Errno(errno)
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Stop::Errno(error.into())
    }
}

type Outcome = Result<(), Stop>;

impl Host {
    /// Opens the guest's mounts and streams.
    ///
    /// # Errors
    /// When the configuration asks for what isn't there or can't be.
    pub fn new(config: HostConfig, kill: Arc<KillSwitch>) -> Result<Self, HostError> {
        let sockets = config.listeners.len() + config.dials.len();
        let directories: &[SocketDirectory] = if config.socket_paths { &SocketDirectory::ALL } else { &[] };
        let needed = 3 + config.mounts.len() + directories.len() + sockets;
        if (config.limits.open_files as usize) < needed {
            return Err(HostError::OpenFiles { limit: config.limits.open_files, needed });
        }
        if (config.limits.sockets as usize) < sockets {
            return Err(HostError::Sockets { limit: config.limits.sockets, needed: sockets });
        }
        let mut host = Host {
            args: Strings::new("argument", &config.args)?,
            env: Strings::new("environment variable", &config.env)?,
            mounts: config.mounts.into_iter().map(open_mount).collect::<Result<_, _>>()?,
            table: Table::new(config.limits.open_files, config.limits.sockets),
            net: Net::new(config.network),
            socket_paths: config.socket_paths,
            quota: Quota::new(config.limits.disk_bytes),
            clock: config.clock,
            monotonic_offset_ns: 0,
            random: config.random,
            kill,
            resumption: Resumption::default(),
            scratch: Scratch::default(),
            _reservation: Reservation::new(&config.limits),
        };
        for (number, stdio) in [config.stdin, config.stdout, config.stderr].into_iter().enumerate() {
            let entry = stream_entry(number as u8, stdio)?;
            host.table.insert(entry).map_err(|_| HostError::OpenFiles { limit: config.limits.open_files, needed })?;
        }
        for mount in 0..host.mounts.len() {
            let entry = host.preopen_entry(mount)?;
            host.table.insert(entry).map_err(|_| HostError::OpenFiles { limit: config.limits.open_files, needed })?;
        }
        host.preopen_directories(directories)?;
        host.preopen_sockets(config.listeners, config.dials)?;
        Ok(host)
    }

    /// The guest's open descriptors, in order of number.
    pub fn descriptors(&self) -> Vec<DescriptorInfo> {
        let info = |(fd, entry): (u32, &Entry)| DescriptorInfo {
            fd,
            filetype: entry.filetype(),
            rights_base: entry.rights_base,
            rights_inheriting: entry.rights_inheriting,
            flags: entry.flags,
            mount: entry.mount(),
            preopen: entry.is_preopen(),
        };
        self.table.iter().map(info).collect()
    }

    fn preopen_entry(&self, mount: usize) -> Result<Entry, HostError> {
        let root = &self.mounts[mount];
        let fd = root.root.try_clone().map_err(|source| HostError::System {
            what: format!("mount \"{}\"", root.config.host.display()),
            source,
            next: "close other descriptors, or raise the limit (ulimit -n)",
        })?;
        Ok(Entry {
            kind: Kind::Directory(Directory { fd, mount, preopen: true, listing: None }),
            rights_base: MOUNT_RIGHTS_BASE,
            rights_inheriting: MOUNT_RIGHTS_INHERITING,
            flags: 0,
        })
    }

    #[inline]
    fn dispatch(&mut self, call: Call, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        match call {
            Call::ClockTimeGet => self.clock_time_get(args, memory),
            Call::FdWrite => self.fd_write(args, memory),
            Call::FdRead => self.fd_read(args, memory),
            Call::ArgsGet => self.args_get(args, memory),
            Call::ArgsSizesGet => self.args_sizes_get(args, memory),
            Call::EnvironGet => self.environ_get(args, memory),
            Call::EnvironSizesGet => self.environ_sizes_get(args, memory),
            Call::ClockResGet => environment::clock_res_get(args, memory),
            Call::FdAdvise => self.fd_advise(args),
            Call::FdAllocate => self.fd_allocate(args),
            Call::FdClose => self.fd_close(args),
            Call::FdDatasync => self.fd_datasync(args),
            Call::FdFdstatGet => self.fd_fdstat_get(args, memory),
            Call::FdFdstatSetFlags => self.fd_fdstat_set_flags(args),
            Call::FdFdstatSetRights => self.fd_fdstat_set_rights(args),
            Call::FdFilestatGet => self.fd_filestat_get(args, memory),
            Call::FdFilestatSetSize => self.fd_filestat_set_size(args),
            Call::FdFilestatSetTimes => self.fd_filestat_set_times(args),
            Call::FdPread => self.fd_pread(args, memory),
            Call::FdPrestatGet => self.fd_prestat_get(args, memory),
            Call::FdPrestatDirName => self.fd_prestat_dir_name(args, memory),
            Call::FdPwrite => self.fd_pwrite(args, memory),
            Call::FdReaddir => self.fd_readdir(args, memory),
            Call::FdRenumber => self.fd_renumber(args),
            Call::FdSeek => self.fd_seek(args, memory),
            Call::FdSync => self.fd_sync(args),
            Call::FdTell => self.fd_tell(args, memory),
            Call::PathCreateDirectory => self.path_create_directory(args, memory),
            Call::PathFilestatGet => self.path_filestat_get(args, memory),
            Call::PathFilestatSetTimes => self.path_filestat_set_times(args, memory),
            Call::PathLink => self.path_link(args, memory),
            Call::PathOpen => self.path_open(args, memory),
            Call::PathReadlink => self.path_readlink(args, memory),
            Call::PathRemoveDirectory => self.path_remove_directory(args, memory),
            Call::PathRename => self.path_rename(args, memory),
            Call::PathSymlink => self.path_symlink(args, memory),
            Call::PathUnlinkFile => self.path_unlink_file(args, memory),
            Call::PollOneoff => self.poll_oneoff(args, memory),
            Call::ProcExit => Err(Stop::Halt(Halt::Exit(args.u32(0)))),
            Call::ProcRaise => environment::proc_raise(args),
            Call::SchedYield => environment::sched_yield(&self.kill),
            Call::RandomGet => self.random_get(args, memory),
            Call::SockAccept => self.sock_accept(args, memory),
            Call::SockRecv => self.sock_recv(args, memory),
            Call::SockSend => self.sock_send(args, memory),
            Call::SockShutdown => self.sock_shutdown(args),
            Call::SockOpen => self.sock_open(args, memory),
            Call::SockBind => self.sock_bind(args, memory),
            Call::SockListen => self.sock_listen(args),
            Call::SockConnect => self.sock_connect(args, memory),
            Call::SockGetsockopt => self.sock_getsockopt(args, memory),
            Call::SockSetsockopt => self.sock_setsockopt(args, memory),
            Call::SockSendTo => self.sock_send_to(args, memory),
            Call::SockGetaddrinfo => self.sock_getaddrinfo(args, memory),
            Call::SockAcceptV1 => self.sock_accept_v1(args, memory),
            Call::SockRecvFromV1 => self.sock_recv_from_v1(args, memory),
            Call::SockGetlocaladdrV1 => self.sock_getlocaladdr_v1(args, memory),
            Call::SockGetpeeraddrV1 => self.sock_getpeeraddr_v1(args, memory),
            Call::SockRecvFrom => self.sock_recv_from(args, memory),
            Call::SockGetlocaladdr => self.sock_getlocaladdr(args, memory),
            Call::SockGetpeeraddr => self.sock_getpeeraddr(args, memory),
        }
    }
}

impl System for Host {
    #[inline]
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let done = self.dispatch(call, Arguments(args), memory);
        self.resumption.note_call();
        match done {
            Ok(()) => Ok(Errno::Success),
            Err(Stop::Errno(errno)) => Ok(errno),
            Err(Stop::Halt(halt)) => Err(halt),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("mounts", &self.mounts).field("table", &self.table).finish_non_exhaustive()
    }
}

fn open_mount(mut config: Mount) -> Result<MountRoot, HostError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(&config.host, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOTDIR) if !config.immutable => open_null(&config),
        opened => opened,
    };
    match opened {
        Ok(root) => {
            config.read_only |= config.immutable;
            let immutable = if config.immutable { files::path_of(root.as_fd()) } else { None };
            Ok(MountRoot { config, root, immutable })
        }
        Err(error) => {
            let (reason, next) = match error {
                rustix::io::Errno::NOENT => ("no such directory", "create it, or correct --dir"),
                rustix::io::Errno::NOTDIR => ("not a directory", "give the directory that holds it in --dir"),
                rustix::io::Errno::ACCESS => ("permission denied", "grant read and search permission on it"),
                _ => return Err(mount_error(config, std::io::Error::from(error).to_string())),
            };
            Err(HostError::Mount { host: config.host, reason: reason.into(), next })
        }
    }
}

/// The null device, which may be mounted as if it were a directory: what it contains is itself, as `.`.
fn open_null(config: &Mount) -> rustix::io::Result<OwnedFd> {
    let device = rustix::fs::open(&config.host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&device)?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null { Ok(device) } else { Err(rustix::io::Errno::NOTDIR) }
}

fn mount_error(config: Mount, reason: String) -> HostError {
    HostError::Mount { host: config.host, reason, next: "correct --dir" }
}

fn stream_entry(number: u8, stdio: Stdio) -> Result<Entry, HostError> {
    let name = ["stdin", "stdout", "stderr"][usize::from(number)];
    let failed = |error: rustix::io::Errno| HostError::System {
        what: name.into(),
        source: error.into(),
        next: "give an open descriptor, or a null stream",
    };
    let fd = match stdio {
        Stdio::Descriptor(fd) => fd,
        Stdio::Null => rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?,
    };
    let stream = Stream::new(fd, number).map_err(failed)?;
    let rights_base = stream_rights(&stream);
    Ok(Entry { kind: Kind::Stream(stream), rights_base, rights_inheriting: 0, flags: 0 })
}
