//! Names that only traces need.

use crate::Errno;

/// `advice`, by wire value.
pub(super) const ADVICE: [&str; 6] = ["NORMAL", "SEQUENTIAL", "RANDOM", "WILLNEED", "DONTNEED", "NOREUSE"];

/// `eventtype`, by wire value.
pub(super) const EVENTS: [&str; 3] = ["clock", "fd_read", "fd_write"];

/// `riflags`, `roflags` and `sdflags`, by bit.
pub(super) const RECV_FLAGS: [&str; 2] = ["RECV_PEEK", "RECV_WAITALL"];
pub(super) const RECV_RESULTS: [&str; 1] = ["RECV_DATA_TRUNCATED"];
pub(super) const SHUTDOWN: [&str; 2] = ["RD", "WR"];

/// Protocols of `sock_getaddrinfo`, by wire value.
pub(super) const PROTOCOLS: [&str; 3] = ["IP", "TCP", "UDP"];

/// `signal`, by wire value: WASI's numbers are not those of Linux from 16 on.
pub(super) const SIGNALS: [&str; 31] = [
    "NONE",
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGPOLL",
    "SIGPWR",
    "SIGSYS",
];

/// What an error number means, as Linux says it.
pub(super) fn message(errno: Errno) -> &'static str {
    MESSAGES[errno as usize]
}

const MESSAGES: [&str; 77] = [
    "Success",
    "Argument list too long",
    "Permission denied",
    "Address already in use",
    "Cannot assign requested address",
    "Address family not supported by protocol",
    "Resource temporarily unavailable",
    "Operation already in progress",
    "Bad file descriptor",
    "Bad message",
    "Device or resource busy",
    "Operation canceled",
    "No child processes",
    "Software caused connection abort",
    "Connection refused",
    "Connection reset by peer",
    "Resource deadlock avoided",
    "Destination address required",
    "Numerical argument out of domain",
    "Disk quota exceeded",
    "File exists",
    "Bad address",
    "File too large",
    "No route to host",
    "Identifier removed",
    "Invalid or incomplete multibyte or wide character",
    "Operation now in progress",
    "Interrupted system call",
    "Invalid argument",
    "Input/output error",
    "Transport endpoint is already connected",
    "Is a directory",
    "Too many levels of symbolic links",
    "Too many open files",
    "Too many links",
    "Message too long",
    "Multihop attempted",
    "File name too long",
    "Network is down",
    "Network dropped connection on reset",
    "Network is unreachable",
    "Too many open files in system",
    "No buffer space available",
    "No such device",
    "No such file or directory",
    "Exec format error",
    "No locks available",
    "Link has been severed",
    "Cannot allocate memory",
    "No message of desired type",
    "Protocol not available",
    "No space left on device",
    "Function not implemented",
    "Transport endpoint is not connected",
    "Not a directory",
    "Directory not empty",
    "State not recoverable",
    "Socket operation on non-socket",
    "Operation not supported",
    "Inappropriate ioctl for device",
    "No such device or address",
    "Value too large for defined data type",
    "Owner died",
    "Operation not permitted",
    "Broken pipe",
    "Protocol error",
    "Protocol not supported",
    "Protocol wrong type for socket",
    "Numerical result out of range",
    "Read-only file system",
    "Illegal seek",
    "No such process",
    "Stale file handle",
    "Connection timed out",
    "Text file busy",
    "Invalid cross-device link",
    "Capabilities insufficient",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stand_at_their_numbers() {
        let cases = [
            (Errno::Noent, "No such file or directory"),
            (Errno::Intr, "Interrupted system call"),
            (Errno::Mfile, "Too many open files"),
            (Errno::Pipe, "Broken pipe"),
            (Errno::Timedout, "Connection timed out"),
            (Errno::Notcapable, "Capabilities insufficient"),
        ];
        for (errno, text) in cases {
            assert_eq!(message(errno), text);
        }
    }
}
