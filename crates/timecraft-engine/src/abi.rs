//! Types and constants of WASI preview 1 (`wasi_snapshot_preview1.witx`), with the names that traces print.

/// Error numbers of WASI preview 1. `repr` is the wire value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Errno {
    Success = 0,
    Toobig = 1,
    Acces = 2,
    Addrinuse = 3,
    Addrnotavail = 4,
    Afnosupport = 5,
    Again = 6,
    Already = 7,
    Badf = 8,
    Badmsg = 9,
    Busy = 10,
    Canceled = 11,
    Child = 12,
    Connaborted = 13,
    Connrefused = 14,
    Connreset = 15,
    Deadlk = 16,
    Destaddrreq = 17,
    Dom = 18,
    Dquot = 19,
    Exist = 20,
    Fault = 21,
    Fbig = 22,
    Hostunreach = 23,
    Idrm = 24,
    Ilseq = 25,
    Inprogress = 26,
    Intr = 27,
    Inval = 28,
    Io = 29,
    Isconn = 30,
    Isdir = 31,
    Loop = 32,
    Mfile = 33,
    Mlink = 34,
    Msgsize = 35,
    Multihop = 36,
    Nametoolong = 37,
    Netdown = 38,
    Netreset = 39,
    Netunreach = 40,
    Nfile = 41,
    Nobufs = 42,
    Nodev = 43,
    Noent = 44,
    Noexec = 45,
    Nolck = 46,
    Nolink = 47,
    Nomem = 48,
    Nomsg = 49,
    Noprotoopt = 50,
    Nospc = 51,
    Nosys = 52,
    Notconn = 53,
    Notdir = 54,
    Notempty = 55,
    Notrecoverable = 56,
    Notsock = 57,
    Notsup = 58,
    Notty = 59,
    Nxio = 60,
    Overflow = 61,
    Ownerdead = 62,
    Perm = 63,
    Pipe = 64,
    Proto = 65,
    Protonosupport = 66,
    Prototype = 67,
    Range = 68,
    Rofs = 69,
    Spipe = 70,
    Srch = 71,
    Stale = 72,
    Timedout = 73,
    Txtbsy = 74,
    Xdev = 75,
    Notcapable = 76,
}

const ERRNOS: [(Errno, &str); 77] = [
    (Errno::Success, "ESUCCESS"),
    (Errno::Toobig, "E2BIG"),
    (Errno::Acces, "EACCES"),
    (Errno::Addrinuse, "EADDRINUSE"),
    (Errno::Addrnotavail, "EADDRNOTAVAIL"),
    (Errno::Afnosupport, "EAFNOSUPPORT"),
    (Errno::Again, "EAGAIN"),
    (Errno::Already, "EALREADY"),
    (Errno::Badf, "EBADF"),
    (Errno::Badmsg, "EBADMSG"),
    (Errno::Busy, "EBUSY"),
    (Errno::Canceled, "ECANCELED"),
    (Errno::Child, "ECHILD"),
    (Errno::Connaborted, "ECONNABORTED"),
    (Errno::Connrefused, "ECONNREFUSED"),
    (Errno::Connreset, "ECONNRESET"),
    (Errno::Deadlk, "EDEADLK"),
    (Errno::Destaddrreq, "EDESTADDRREQ"),
    (Errno::Dom, "EDOM"),
    (Errno::Dquot, "EDQUOT"),
    (Errno::Exist, "EEXIST"),
    (Errno::Fault, "EFAULT"),
    (Errno::Fbig, "EFBIG"),
    (Errno::Hostunreach, "EHOSTUNREACH"),
    (Errno::Idrm, "EIDRM"),
    (Errno::Ilseq, "EILSEQ"),
    (Errno::Inprogress, "EINPROGRESS"),
    (Errno::Intr, "EINTR"),
    (Errno::Inval, "EINVAL"),
    (Errno::Io, "EIO"),
    (Errno::Isconn, "EISCONN"),
    (Errno::Isdir, "EISDIR"),
    (Errno::Loop, "ELOOP"),
    (Errno::Mfile, "EMFILE"),
    (Errno::Mlink, "EMLINK"),
    (Errno::Msgsize, "EMSGSIZE"),
    (Errno::Multihop, "EMULTIHOP"),
    (Errno::Nametoolong, "ENAMETOOLONG"),
    (Errno::Netdown, "ENETDOWN"),
    (Errno::Netreset, "ENETRESET"),
    (Errno::Netunreach, "ENETUNREACH"),
    (Errno::Nfile, "ENFILE"),
    (Errno::Nobufs, "ENOBUFS"),
    (Errno::Nodev, "ENODEV"),
    (Errno::Noent, "ENOENT"),
    (Errno::Noexec, "ENOEXEC"),
    (Errno::Nolck, "ENOLCK"),
    (Errno::Nolink, "ENOLINK"),
    (Errno::Nomem, "ENOMEM"),
    (Errno::Nomsg, "ENOMSG"),
    (Errno::Noprotoopt, "ENOPROTOOPT"),
    (Errno::Nospc, "ENOSPC"),
    (Errno::Nosys, "ENOSYS"),
    (Errno::Notconn, "ENOTCONN"),
    (Errno::Notdir, "ENOTDIR"),
    (Errno::Notempty, "ENOTEMPTY"),
    (Errno::Notrecoverable, "ENOTRECOVERABLE"),
    (Errno::Notsock, "ENOTSOCK"),
    (Errno::Notsup, "ENOTSUP"),
    (Errno::Notty, "ENOTTY"),
    (Errno::Nxio, "ENXIO"),
    (Errno::Overflow, "EOVERFLOW"),
    (Errno::Ownerdead, "EOWNERDEAD"),
    (Errno::Perm, "EPERM"),
    (Errno::Pipe, "EPIPE"),
    (Errno::Proto, "EPROTO"),
    (Errno::Protonosupport, "EPROTONOSUPPORT"),
    (Errno::Prototype, "EPROTOTYPE"),
    (Errno::Range, "ERANGE"),
    (Errno::Rofs, "EROFS"),
    (Errno::Spipe, "ESPIPE"),
    (Errno::Srch, "ESRCH"),
    (Errno::Stale, "ESTALE"),
    (Errno::Timedout, "ETIMEDOUT"),
    (Errno::Txtbsy, "ETXTBSY"),
    (Errno::Xdev, "EXDEV"),
    (Errno::Notcapable, "ENOTCAPABLE"),
];

impl Errno {
    /// The symbol as strace prints it, e.g. `ENOENT`.
    pub fn name(self) -> &'static str {
        ERRNOS[self as usize].1
    }

    /// The error for a wire value, `None` if WASI defines no such number.
    pub fn from_raw(raw: u16) -> Option<Self> {
        ERRNOS.get(usize::from(raw)).map(|entry| entry.0)
    }

    /// The error of that symbol, `None` if WASI has none.
    pub fn from_name(name: &str) -> Option<Self> {
        ERRNOS.iter().find(|(errno, of)| *of == name && *errno != Errno::Success).map(|(errno, _)| *errno)
    }
}

impl From<rustix::io::Errno> for Errno {
    /// Linux's error numbers as WASI's; what WASI has no number for becomes [`Errno::Io`].
    fn from(error: rustix::io::Errno) -> Self {
        use rustix::io::Errno as Os;
        match error {
            Os::TOOBIG => Self::Toobig,
            Os::ACCESS => Self::Acces,
            Os::ADDRINUSE => Self::Addrinuse,
            Os::ADDRNOTAVAIL => Self::Addrnotavail,
            Os::AFNOSUPPORT => Self::Afnosupport,
            Os::AGAIN => Self::Again,
            Os::ALREADY => Self::Already,
            Os::BADF => Self::Badf,
            Os::BADMSG => Self::Badmsg,
            Os::BUSY => Self::Busy,
            Os::CANCELED => Self::Canceled,
            Os::CHILD => Self::Child,
            Os::CONNABORTED => Self::Connaborted,
            Os::CONNREFUSED => Self::Connrefused,
            Os::CONNRESET => Self::Connreset,
            Os::DEADLK => Self::Deadlk,
            Os::DESTADDRREQ => Self::Destaddrreq,
            Os::DOM => Self::Dom,
            Os::DQUOT => Self::Dquot,
            Os::EXIST => Self::Exist,
            Os::FAULT => Self::Fault,
            Os::FBIG => Self::Fbig,
            Os::HOSTUNREACH => Self::Hostunreach,
            Os::IDRM => Self::Idrm,
            Os::ILSEQ => Self::Ilseq,
            Os::INPROGRESS => Self::Inprogress,
            Os::INTR => Self::Intr,
            Os::INVAL => Self::Inval,
            Os::ISCONN => Self::Isconn,
            Os::ISDIR => Self::Isdir,
            Os::LOOP => Self::Loop,
            Os::MFILE => Self::Mfile,
            Os::MLINK => Self::Mlink,
            Os::MSGSIZE => Self::Msgsize,
            Os::MULTIHOP => Self::Multihop,
            Os::NAMETOOLONG => Self::Nametoolong,
            Os::NETDOWN => Self::Netdown,
            Os::NETRESET => Self::Netreset,
            Os::NETUNREACH => Self::Netunreach,
            Os::NFILE => Self::Nfile,
            Os::NOBUFS => Self::Nobufs,
            Os::NODEV => Self::Nodev,
            Os::NOENT => Self::Noent,
            Os::NOEXEC => Self::Noexec,
            Os::NOLCK => Self::Nolck,
            Os::NOLINK => Self::Nolink,
            Os::NOMEM => Self::Nomem,
            Os::NOMSG => Self::Nomsg,
            Os::NOPROTOOPT => Self::Noprotoopt,
            Os::NOSPC => Self::Nospc,
            Os::NOSYS => Self::Nosys,
            Os::NOTCONN => Self::Notconn,
            Os::NOTDIR => Self::Notdir,
            Os::NOTEMPTY => Self::Notempty,
            Os::NOTRECOVERABLE => Self::Notrecoverable,
            Os::NOTSOCK => Self::Notsock,
            Os::NOTSUP => Self::Notsup,
            Os::NOTTY => Self::Notty,
            Os::NXIO => Self::Nxio,
            Os::OVERFLOW => Self::Overflow,
            Os::OWNERDEAD => Self::Ownerdead,
            Os::PERM => Self::Perm,
            Os::PIPE => Self::Pipe,
            Os::PROTO => Self::Proto,
            Os::PROTONOSUPPORT => Self::Protonosupport,
            Os::PROTOTYPE => Self::Prototype,
            Os::RANGE => Self::Range,
            Os::ROFS => Self::Rofs,
            Os::SPIPE => Self::Spipe,
            Os::SRCH => Self::Srch,
            Os::STALE => Self::Stale,
            Os::TIMEDOUT => Self::Timedout,
            Os::TXTBSY => Self::Txtbsy,
            Os::XDEV => Self::Xdev,
            _ => Self::Io,
        }
    }
}
/// Rights of a descriptor (`rights` in witx): one bit each.
pub mod rights {
    pub const FD_DATASYNC: u64 = 1 << 0;
    pub const FD_READ: u64 = 1 << 1;
    pub const FD_SEEK: u64 = 1 << 2;
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    pub const FD_SYNC: u64 = 1 << 4;
    pub const FD_TELL: u64 = 1 << 5;
    pub const FD_WRITE: u64 = 1 << 6;
    pub const FD_ADVISE: u64 = 1 << 7;
    pub const FD_ALLOCATE: u64 = 1 << 8;
    pub const PATH_CREATE_DIRECTORY: u64 = 1 << 9;
    pub const PATH_CREATE_FILE: u64 = 1 << 10;
    pub const PATH_LINK_SOURCE: u64 = 1 << 11;
    pub const PATH_LINK_TARGET: u64 = 1 << 12;
    pub const PATH_OPEN: u64 = 1 << 13;
    pub const FD_READDIR: u64 = 1 << 14;
    pub const PATH_READLINK: u64 = 1 << 15;
    pub const PATH_RENAME_SOURCE: u64 = 1 << 16;
    pub const PATH_RENAME_TARGET: u64 = 1 << 17;
    pub const PATH_FILESTAT_GET: u64 = 1 << 18;
    pub const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;
    pub const PATH_FILESTAT_SET_TIMES: u64 = 1 << 20;
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    pub const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    pub const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    pub const PATH_SYMLINK: u64 = 1 << 24;
    pub const PATH_REMOVE_DIRECTORY: u64 = 1 << 25;
    pub const PATH_UNLINK_FILE: u64 = 1 << 26;
    pub const POLL_FD_READWRITE: u64 = 1 << 27;
    pub const SOCK_SHUTDOWN: u64 = 1 << 28;
    pub const SOCK_ACCEPT: u64 = 1 << 29;

    /// Every right that preview 1 defines.
    pub const ALL: u64 = (1 << 30) - 1;

    /// Names in bit order, for traces.
    pub const NAMES: [&str; 30] = [
        "FD_DATASYNC",
        "FD_READ",
        "FD_SEEK",
        "FD_FDSTAT_SET_FLAGS",
        "FD_SYNC",
        "FD_TELL",
        "FD_WRITE",
        "FD_ADVISE",
        "FD_ALLOCATE",
        "PATH_CREATE_DIRECTORY",
        "PATH_CREATE_FILE",
        "PATH_LINK_SOURCE",
        "PATH_LINK_TARGET",
        "PATH_OPEN",
        "FD_READDIR",
        "PATH_READLINK",
        "PATH_RENAME_SOURCE",
        "PATH_RENAME_TARGET",
        "PATH_FILESTAT_GET",
        "PATH_FILESTAT_SET_SIZE",
        "PATH_FILESTAT_SET_TIMES",
        "FD_FILESTAT_GET",
        "FD_FILESTAT_SET_SIZE",
        "FD_FILESTAT_SET_TIMES",
        "PATH_SYMLINK",
        "PATH_REMOVE_DIRECTORY",
        "PATH_UNLINK_FILE",
        "POLL_FD_READWRITE",
        "SOCK_SHUTDOWN",
        "SOCK_ACCEPT",
    ];
}

/// Descriptor flags (`fdflags`).
pub mod fdflags {
    pub const APPEND: u16 = 1;
    pub const DSYNC: u16 = 2;
    pub const NONBLOCK: u16 = 4;
    pub const RSYNC: u16 = 8;
    pub const SYNC: u16 = 16;
    pub const NAMES: [&str; 5] = ["APPEND", "DSYNC", "NONBLOCK", "RSYNC", "SYNC"];
}

/// Flags of `path_open` (`oflags`).
pub mod oflags {
    pub const CREAT: u16 = 1;
    pub const DIRECTORY: u16 = 2;
    pub const EXCL: u16 = 4;
    pub const TRUNC: u16 = 8;
    pub const NAMES: [&str; 4] = ["CREAT", "DIRECTORY", "EXCL", "TRUNC"];
}

/// Flags of path look-ups (`lookupflags`).
pub mod lookupflags {
    pub const SYMLINK_FOLLOW: u32 = 1;
    pub const NAMES: [&str; 1] = ["SYMLINK_FOLLOW"];
}

/// Which time stamps to set (`fstflags`).
pub mod fstflags {
    pub const ATIM: u16 = 1;
    pub const ATIM_NOW: u16 = 2;
    pub const MTIM: u16 = 4;
    pub const MTIM_NOW: u16 = 8;
    pub const NAMES: [&str; 4] = ["ATIM", "ATIM_NOW", "MTIM", "MTIM_NOW"];
}

/// File types (`filetype`), wire values.
pub mod filetype {
    pub const UNKNOWN: u8 = 0;
    pub const BLOCK_DEVICE: u8 = 1;
    pub const CHARACTER_DEVICE: u8 = 2;
    pub const DIRECTORY: u8 = 3;
    pub const REGULAR_FILE: u8 = 4;
    pub const SOCKET_DGRAM: u8 = 5;
    pub const SOCKET_STREAM: u8 = 6;
    pub const SYMBOLIC_LINK: u8 = 7;
    pub const NAMES: [&str; 8] = [
        "UNKNOWN",
        "BLOCK_DEVICE",
        "CHARACTER_DEVICE",
        "DIRECTORY",
        "REGULAR_FILE",
        "SOCKET_DGRAM",
        "SOCKET_STREAM",
        "SYMBOLIC_LINK",
    ];
}

/// Clocks (`clockid`), wire values.
pub mod clockid {
    pub const REALTIME: u32 = 0;
    pub const MONOTONIC: u32 = 1;
    pub const PROCESS_CPUTIME: u32 = 2;
    pub const THREAD_CPUTIME: u32 = 3;
    pub const NAMES: [&str; 4] = ["REALTIME", "MONOTONIC", "PROCESS_CPUTIME", "THREAD_CPUTIME"];
}

/// Origins of `fd_seek` (`whence`), wire values.
pub mod whence {
    pub const SET: u8 = 0;
    pub const CUR: u8 = 1;
    pub const END: u8 = 2;
    pub const NAMES: [&str; 3] = ["SET", "CUR", "END"];
}

/// Event types of `poll_oneoff` (`eventtype`), wire values, and the flags around them.
pub mod event {
    pub const CLOCK: u8 = 0;
    pub const FD_READ: u8 = 1;
    pub const FD_WRITE: u8 = 2;
    /// `subclockflags`: the time-out is a point in time, not a duration.
    pub const SUBCLOCK_ABSTIME: u16 = 1;
    /// `eventrwflags`: the peer has closed.
    pub const FD_READWRITE_HANGUP: u16 = 1;
    /// Size of one `subscription` and one `event`, bytes.
    pub const SUBSCRIPTION_BYTES: u32 = 48;
    pub const EVENT_BYTES: u32 = 32;
}

/// What the host takes of one call, at most. Shared with those who tell from a guest's memory what the host would take.
pub mod bounds {
    /// Buffers in one scatter or gather list, as Linux has it (`IOV_MAX`).
    pub const IOVECS_MAX: u32 = 1024;
    /// One read or write, bytes. Short counts are legal, and bound what a single call keeps busy and what its record
    /// holds.
    pub const TRANSFER_BYTES_MAX: u32 = 1 << 20;
    /// A path, bytes: what Linux takes (`PATH_MAX`).
    pub const PATH_BYTES_MAX: u32 = 4096;
}

/// Sizes of the structures that calls write, bytes.
pub mod size {
    pub const FDSTAT: u32 = 24;
    pub const FILESTAT: u32 = 64;
    pub const PRESTAT: u32 = 8;
    pub const DIRENT: u32 = 24;
    pub const IOVEC: u32 = 8;
}

/// `WasmEdge`'s socket extension: wire values, and names in their order.
pub mod socket {
    pub const FAMILY_INET4: u32 = 1;
    pub const FAMILY_INET6: u32 = 2;
    pub const FAMILY_UNIX: u32 = 3;
    pub const FAMILIES: [&str; 4] = ["UNSPEC", "INET4", "INET6", "UNIX"];

    pub const TYPE_ANY: u32 = 0;
    pub const TYPE_DGRAM: u32 = 1;
    pub const TYPE_STREAM: u32 = 2;
    pub const TYPES: [&str; 3] = ["ANY", "DGRAM", "STREAM"];

    pub const PROTOCOL_TCP: u32 = 1;
    pub const PROTOCOL_UDP: u32 = 2;

    /// Levels of options: sockets in general, TCP, IPv6, and what this host does for guests ("time" in ASCII).
    pub const LEVEL_SOCKET: u32 = 0;
    pub const LEVEL_TCP: u32 = 6;
    pub const LEVEL_IPV6: u32 = 41;
    pub const LEVEL_HOST: u32 = 0x7469_6d65;

    pub const OPTION_REUSEADDR: u32 = 0;
    pub const OPTION_TYPE: u32 = 1;
    pub const OPTION_ERROR: u32 = 2;
    pub const OPTION_DONTROUTE: u32 = 3;
    pub const OPTION_BROADCAST: u32 = 4;
    pub const OPTION_SNDBUF: u32 = 5;
    pub const OPTION_RCVBUF: u32 = 6;
    pub const OPTION_KEEPALIVE: u32 = 7;
    pub const OPTION_OOBINLINE: u32 = 8;
    pub const OPTION_LINGER: u32 = 9;
    pub const OPTION_RCVLOWAT: u32 = 10;
    pub const OPTION_RCVTIMEO: u32 = 11;
    pub const OPTION_SNDTIMEO: u32 = 12;
    pub const OPTION_ACCEPTCONN: u32 = 13;
    pub const OPTIONS: [&str; 15] = [
        "SO_REUSEADDR",
        "SO_TYPE",
        "SO_ERROR",
        "SO_DONTROUTE",
        "SO_BROADCAST",
        "SO_SNDBUF",
        "SO_RCVBUF",
        "SO_KEEPALIVE",
        "SO_OOBINLINE",
        "SO_LINGER",
        "SO_RCVLOWAT",
        "SO_RCVTIMEO",
        "SO_SNDTIMEO",
        "SO_ACCEPTCONN",
        "SO_BINDTODEVICE",
    ];
    /// At the levels of TCP, IPv6 and this host.
    pub const TCP_NODELAY: u32 = 1;
    pub const IPV6_V6ONLY: u32 = 26;
    pub const HOST_TLS: u32 = 1;
    pub const HOST_ALPN: u32 = 2;
    /// Protocols that a guest may offer, at most, and the length of one, bytes (RFC 7301).
    pub const PROTOCOLS_MAX: usize = 16;
    pub const PROTOCOL_BYTES_MAX: usize = 255;

    /// An option's value, at most, bytes. Where a length may also be the address of one, all that is below is a
    /// length: toolchains put nothing into a guest's first KiB.
    pub const OPTION_BYTES_MAX: u32 = 1023;

    /// `{buf, len}`, and the addresses behind it: an IP address alone, or a family of 16 bits and what belongs to it.
    pub const BUFFER_BYTES: u32 = 8;
    pub const IPV4_BYTES: u32 = 4;
    pub const IPV6_BYTES: u32 = 16;
    pub const TAGGED_BYTES: u32 = 128;

    /// `addrinfo` and the `sockaddr` that it points to.
    pub const ADDRINFO_BYTES: u32 = 28;
    pub const SOCKADDR_BYTES: u32 = 12;
    /// Structures in the chain that `sock_getaddrinfo` fills, at most.
    pub const ADDRESSES_MAX: u32 = 64;

    pub const AI_PASSIVE: u16 = 1;
    pub const AI_NUMERICHOST: u16 = 4;
    pub const AI_NUMERICSERV: u16 = 8;
    pub const AI_NAMES: [&str; 7] =
        ["PASSIVE", "CANONNAME", "NUMERICHOST", "NUMERICSERV", "V4MAPPED", "ALL", "ADDRCONFIG"];
}
