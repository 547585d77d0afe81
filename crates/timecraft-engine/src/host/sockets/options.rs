//! Socket options: kept here, and told to the kernel where it has a socket that they mean something to.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::sockopt;

use super::socket::{Net, Socket};
use crate::Errno;
use crate::abi::socket as abi;
use crate::network::Transport;

/// What a socket buffers unless told otherwise, and at most, bytes.
const BUFFER_BYTES: i32 = super::loopback::INBOX_BYTES as i32;
const BUFFER_BYTES_MIN: i32 = 2048;
const BUFFER_BYTES_MAX: i32 = 4 << 20;

/// The options that a guest has set.
#[derive(Clone, Debug, Default)]
pub(in crate::host) struct Options {
    /// Those that are one number, by level and name.
    numbers: BTreeMap<(u32, u32), i32>,
    /// Seconds; `None` is off.
    linger: Option<u32>,
    pub receive_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    /// What is offered with TLS (ALPN), in order of preference.
    pub protocols: Vec<String>,
}

impl Options {
    fn number(&self, level: u32, name: u32) -> Option<i32> {
        self.numbers.get(&(level, name)).copied()
    }

    /// Whether small writes are sent at once. They are until the guest says otherwise: languages that have it so
    /// (Go's) can't ask for it here, and would wait for the peer's delayed acknowledgements.
    fn nodelay(&self) -> bool {
        self.number(abi::LEVEL_TCP, abi::TCP_NODELAY) != Some(0)
    }

    /// Tells the kernel. A socket pair knows few of these, so that refusals mean nothing.
    pub fn apply(&self, socket: BorrowedFd<'_>) {
        let set = |level, name| self.number(level, name);
        if let Some(bytes) = set(abi::LEVEL_SOCKET, abi::OPTION_SNDBUF) {
            let _ = sockopt::set_socket_send_buffer_size(socket, bytes as usize);
        }
        if let Some(bytes) = set(abi::LEVEL_SOCKET, abi::OPTION_RCVBUF) {
            let _ = sockopt::set_socket_recv_buffer_size(socket, bytes as usize);
        }
        if let Some(on) = set(abi::LEVEL_SOCKET, abi::OPTION_KEEPALIVE) {
            let _ = sockopt::set_socket_keepalive(socket, on != 0);
        }
        let _ = sockopt::set_tcp_nodelay(socket, self.nodelay());
        if let Some(seconds) = self.linger {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::from_secs(u64::from(seconds))));
        }
    }
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A `timeval` of two words of 32 or of 64 bits; zero is no limit.
fn timeval(bytes: &[u8]) -> Result<Option<Duration>, Errno> {
    let words = match bytes.len() {
        8 => i32_at(bytes, 0).map(i64::from).zip(i32_at(bytes, 4).map(i64::from)),
        16 => i64_at(bytes, 0).zip(i64_at(bytes, 8)),
        _ => None,
    };
    let (seconds, micros) = words.ok_or(Errno::Inval)?;
    let seconds = u64::try_from(seconds).map_err(|_| Errno::Dom)?;
    let micros = u32::try_from(micros).ok().filter(|micros| *micros < 1_000_000).ok_or(Errno::Dom)?;
    let time = Duration::new(seconds, micros * 1000);
    Ok((!time.is_zero()).then_some(time))
}

fn timeval_bytes(time: Option<Duration>, room: u32) -> Vec<u8> {
    let time = time.unwrap_or_default();
    let (seconds, micros) = (time.as_secs() as i64, i64::from(time.subsec_micros()));
    if room < 16 {
        return [(seconds as i32).to_le_bytes(), (micros as i32).to_le_bytes()].concat();
    }
    [seconds.to_le_bytes(), micros.to_le_bytes()].concat()
}

/// Text that ends where the value does, or at a NUL.
fn text(value: &[u8]) -> Result<&str, Errno> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).map_err(|_| Errno::Inval)
}

/// Names of protocols, separated by commas; none is as good as not offering any.
fn protocols(value: &[u8]) -> Result<Vec<String>, Errno> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = text.split(',').map(str::to_owned).collect();
    let is_name = |name: &String| {
        (1..=abi::PROTOCOL_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if names.len() <= abi::PROTOCOLS_MAX && names.iter().all(is_name) { Ok(names) } else { Err(Errno::Inval) }
}

impl Socket {
    /// The value of an option, for a buffer of `room` bytes.
    pub fn option(&mut self, level: u32, name: u32, room: u32) -> Result<Vec<u8>, Errno> {
        let stored = self.options.number(level, name);
        let flag = || stored.unwrap_or(0);
        let number = match (level, name) {
            (abi::LEVEL_SOCKET, abi::OPTION_ERROR) => self.take_error().map_or(0, |errno| errno as i32),
            (abi::LEVEL_SOCKET, abi::OPTION_TYPE) => match self.transport {
                Transport::Stream => abi::TYPE_STREAM as i32,
                Transport::Datagram => abi::TYPE_DGRAM as i32,
            },
            (abi::LEVEL_SOCKET, abi::OPTION_ACCEPTCONN) => i32::from(self.is_listening()),
            (abi::LEVEL_SOCKET, abi::OPTION_SNDBUF | abi::OPTION_RCVBUF) => stored.unwrap_or(BUFFER_BYTES),
            (abi::LEVEL_SOCKET, abi::OPTION_RCVLOWAT) => stored.unwrap_or(1),
            (abi::LEVEL_SOCKET, abi::OPTION_LINGER) => {
                let linger = self.options.linger;
                let words = [i32::from(linger.is_some()), linger.unwrap_or(0) as i32];
                return Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect());
            }
            (abi::LEVEL_SOCKET, abi::OPTION_RCVTIMEO) => return Ok(timeval_bytes(self.options.receive_timeout, room)),
            (abi::LEVEL_SOCKET, abi::OPTION_SNDTIMEO) => return Ok(timeval_bytes(self.options.send_timeout, room)),
            (abi::LEVEL_TCP, abi::TCP_NODELAY) => i32::from(self.options.nodelay()),
            (abi::LEVEL_IPV6, abi::IPV6_V6ONLY) => 1,
            (abi::LEVEL_HOST, abi::HOST_ALPN) => return Ok(self.negotiated()?.as_bytes().to_vec()),
            _ if is_flag(level, name) => flag(),
            _ => return Err(Errno::Noprotoopt),
        };
        Ok(number.to_le_bytes().to_vec())
    }

    pub fn set_option(&mut self, level: u32, name: u32, value: &[u8], net: &mut Net) -> Result<(), Errno> {
        let number = || i32_at(value, 0).filter(|_| value.len() == 4).ok_or(Errno::Inval);
        let number = match (level, name) {
            (abi::LEVEL_HOST, abi::HOST_TLS) => {
                let name = text(value)?;
                return if name.is_empty() { Err(Errno::Inval) } else { self.secure(name.to_owned(), net) };
            }
            (abi::LEVEL_HOST, abi::HOST_ALPN) => {
                self.options.protocols = protocols(value)?;
                return Ok(());
            }
            (abi::LEVEL_SOCKET, abi::OPTION_LINGER) => {
                let (on, seconds) = i32_at(value, 0).zip(i32_at(value, 4)).ok_or(Errno::Inval)?;
                self.options.linger = (on != 0).then_some(seconds.max(0) as u32);
                0
            }
            (abi::LEVEL_SOCKET, abi::OPTION_RCVTIMEO) => {
                self.options.receive_timeout = timeval(value)?;
                return Ok(());
            }
            (abi::LEVEL_SOCKET, abi::OPTION_SNDTIMEO) => {
                self.options.send_timeout = timeval(value)?;
                return Ok(());
            }
            (abi::LEVEL_SOCKET, abi::OPTION_SNDBUF | abi::OPTION_RCVBUF) => {
                number()?.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX)
            }
            (abi::LEVEL_SOCKET, abi::OPTION_RCVLOWAT) => number()?.max(1),
            // There are no sockets of both families here.
            (abi::LEVEL_IPV6, abi::IPV6_V6ONLY) if number()? == 0 => return Err(Errno::Notsup),
            (abi::LEVEL_IPV6, abi::IPV6_V6ONLY) => 1,
            _ if is_flag(level, name) => i32::from(number()? != 0),
            _ => return Err(Errno::Noprotoopt),
        };
        self.options.numbers.insert((level, name), number);
        if let (abi::LEVEL_SOCKET, abi::OPTION_RCVBUF, Some(inbox)) = (level, name, self.inbox()) {
            inbox.set_bytes_max(number as usize);
        }
        if let Some(socket) = self.kernel_socket() {
            self.options.apply(socket);
        }
        Ok(())
    }
}

fn is_flag(level: u32, name: u32) -> bool {
    match level {
        abi::LEVEL_SOCKET => {
            let flags = [
                abi::OPTION_REUSEADDR,
                abi::OPTION_DONTROUTE,
                abi::OPTION_BROADCAST,
                abi::OPTION_KEEPALIVE,
                abi::OPTION_OOBINLINE,
            ];
            flags.contains(&name)
        }
        abi::LEVEL_TCP => name == abi::TCP_NODELAY,
        _ => false,
    }
}
