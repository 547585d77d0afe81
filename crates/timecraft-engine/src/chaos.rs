//! Makes the world worse than it is, so that a guest shows how it copes.
//!
//! Faults are decided before the call takes place: a call that fails has had no effect, but for a connection that is
//! reset, which stays dead. A recorder above records them like anything else, so that a replay has the same faults
//! without any chaos.

mod sockets;

use std::fmt;
use std::time::Duration;

use self::sockets::Sockets;
use crate::abi::bounds::IOVECS_MAX;
use crate::abi::size;
use crate::recorder::End;
use crate::{Call, Errno, Halt, Memory, System};

/// How long a call is delayed, at most.
const DELAY_MAX: Duration = Duration::from_millis(20);
/// `sdflags`: both halves.
const SHUTDOWN_BOTH: u64 = 3;

/// Fails calls of `inner` now and then, with errors that the call could have had; cuts reads and writes short, delays
/// calls to the network, resets connections, and has none come about.
pub struct Chaos<S> {
    inner: S,
    /// A call is spared if its draw is at least this; draws have 53 bits.
    threshold: u64,
    random: SplitMix64,
    faults: u64,
    /// The next call passes whatever is drawn.
    spares_next: bool,
    sockets: Sockets,
    wait: Box<dyn FnMut(Duration) + Send>,
}

/// Bits of a draw that decide: as many as an f64 can tell apart.
const DRAW_BITS: u32 = 53;

impl<S: System> Chaos<S> {
    /// Faults come with probability `ratio` per call that can have any; the same seed gives the same faults to the same
    /// calls. Ratios beyond 0 to 1 count as the nearest, no number as 0. `wait` lets time pass, for delays.
    pub fn new(inner: S, ratio: f64, seed: u64, wait: impl FnMut(Duration) + Send + 'static) -> Self {
        // The conversion saturates, and takes no number for 0.
        let threshold = (ratio.clamp(0.0, 1.0) * f64::from(DRAW_BITS).exp2()) as u64;
        let (random, sockets, wait) = (SplitMix64(seed), Sockets::default(), Box::new(wait));
        Chaos { inner, threshold, random, faults: 0, spares_next: false, sockets, wait }
    }

    /// Lets the next call pass. The first one of a resumed process may have taken effect already: the host beneath is
    /// ready for that one, and must see it.
    #[must_use]
    pub fn sparing_next(self) -> Self {
        Chaos { spares_next: true, ..self }
    }

    /// Calls that were failed, cut short or delayed so far.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// The decorated system.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The decorated system.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The decorated system.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn decide(&mut self, call: Call, args: &[u64], memory: &Memory<'_>) -> Option<Decision> {
        let faults = match call {
            Call::PathOpen if self.sockets.is_stream_beneath(args).is_some() => PATH_FAULTS,
            call => faults_of(call, self.sockets.is_socket(args)),
        };
        let first = faults.first()?;
        if self.random.next() >> (u64::BITS - DRAW_BITS) >= self.threshold {
            return None;
        }
        // Drawn always, so that what a guest's buffers look like doesn't shift the faults after it.
        let (choice, amount) = (self.random.next(), self.random.next());
        let chosen = faults[(choice % faults.len() as u64) as usize];
        let decision = |fault| match fault {
            Fault::Short => {
                let bytes = u64::from(transfer_bytes(call, args, memory));
                (bytes > 1).then(|| Decision::Short((1 + amount % (bytes - 1)) as u32))
            }
            Fault::Delay => Some(Decision::Delay(Duration::from_nanos(amount % DELAY_MAX.as_nanos() as u64))),
            Fault::Reset => self.sockets.is_connected(args).then_some(Decision::Reset),
            Fault::Refuse(errno) if amount % 2 == 0 && self.sockets.may_connect_later(args) => {
                Some(Decision::RefuseLater(errno))
            }
            Fault::Error(errno) | Fault::Refuse(errno) => Some(Decision::Error(errno)),
        };
        decision(chosen).or_else(|| decision(*first))
    }

    fn pass(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let errno = self.inner.call(call, args, memory)?;
        self.sockets.observe(call, args, errno, memory);
        Ok(errno)
    }
}

impl<S: System> System for Chaos<S> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        if let Some(errno) = self.sockets.verdict(call, args) {
            return Ok(errno);
        }
        let spares = std::mem::take(&mut self.spares_next);
        let decision = self.decide(call, args, memory).filter(|_| !spares);
        self.faults += u64::from(decision.is_some());
        match decision {
            None => self.pass(call, args, memory),
            Some(Decision::Error(errno)) => Ok(errno),
            Some(Decision::Short(bytes)) => {
                memory.limit_transfer(bytes);
                self.pass(call, args, memory)
            }
            Some(Decision::Delay(time)) => {
                (self.wait)(time);
                self.pass(call, args, memory)
            }
            Some(Decision::Reset) => {
                self.sockets.reset(args);
                // So that it polls as ready, and the other end learns that nothing more comes.
                self.inner.call(Call::SockShutdown, &[args[0], SHUTDOWN_BOTH], memory)?;
                Ok(Errno::Connreset)
            }
            Some(Decision::RefuseLater(errno)) => {
                self.sockets.refuse(args, errno);
                Ok(Errno::Inprogress)
            }
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.inner.end(end)
    }
}

impl<S: fmt::Debug> fmt::Debug for Chaos<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("inner", &self.inner).field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// What can happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Error(Errno),
    /// Less is transferred than there is room for.
    Short,
    Delay,
    /// The connection is reset, if there is one.
    Reset,
    /// The connection doesn't come about. Who doesn't wait for it may learn so later.
    Refuse(Errno),
}

/// What does happen to it.
enum Decision {
    Error(Errno),
    /// So many bytes are transferred, at most.
    Short(u32),
    Delay(Duration),
    Reset,
    RefuseLater(Errno),
}

/// The faults of a socket that is opened as a path.
const PATH_FAULTS: &[Fault] = &[
    Fault::Error(Errno::Connrefused),
    Fault::Error(Errno::Timedout),
    Fault::Error(Errno::Hostunreach),
    Fault::Error(Errno::Netunreach),
    Fault::Error(Errno::Noent),
    Fault::Error(Errno::Mfile),
    Fault::Delay,
];

/// How many bytes a read or write could transfer; 0 for other calls. The list of buffers is the second argument of each
/// call that has one.
fn transfer_bytes(call: Call, args: &[u64], memory: &Memory<'_>) -> u32 {
    let (true, &[_, list, count, ..]) = (is_transfer(call), args) else { return 0 };
    let list = memory.peek(list as u32, (count as u32).min(IOVECS_MAX) * size::IOVEC).unwrap_or_default();
    let len = |iovec: &[u8]| u32::from_le_bytes([iovec[4], iovec[5], iovec[6], iovec[7]]);
    list.chunks_exact(size::IOVEC as usize).map(len).fold(0, u32::saturating_add)
}

fn is_transfer(call: Call) -> bool {
    matches!(call, Call::FdPread | Call::FdPwrite) || sockets::is_transfer(call)
}

/// The faults that chaos may give a call: such as a guest must expect of a healthy file system or network on a bad day.
/// The first is an error, which stands in for those that can't be.
///
/// Start-up (arguments, environment, prestats), clocks, randomness and the guest's own end have none: language runtimes
/// give up at once there, which tells nothing about the program. Nor have calls that only change the host's memory.
fn faults_of(call: Call, is_socket: bool) -> &'static [Fault] {
    use Errno::{
        Acces, Addrinuse, Again, Busy, Connaborted, Connrefused, Hostunreach, Intr, Io, Mfile, Netunreach, Nfile,
        Nobufs, Noent, Nomem, Nospc, Notconn, Timedout,
    };
    use Fault::{Delay, Error, Refuse, Reset, Short};
    match call {
        Call::SockRecv | Call::SockRecvFrom | Call::SockRecvFromV1 | Call::SockSend | Call::SockSendTo => {
            &[Error(Intr), Error(Again), Reset, Short, Delay]
        }
        Call::FdRead | Call::FdWrite if is_socket => &[Error(Intr), Error(Again), Reset, Short, Delay],
        Call::FdRead => &[Error(Intr), Error(Io), Error(Again), Short],
        Call::FdPread => &[Error(Intr), Error(Io), Short],
        Call::FdWrite => &[Error(Intr), Error(Io), Error(Again), Error(Nospc), Short],
        Call::FdPwrite => &[Error(Intr), Error(Io), Error(Nospc), Short],
        Call::FdAllocate | Call::FdFilestatSetSize => &[Error(Io), Error(Nospc)],
        Call::FdReaddir => &[Error(Io), Error(Nomem)],
        Call::FdClose | Call::FdDatasync | Call::FdSync | Call::FdFilestatGet | Call::FdFilestatSetTimes => {
            &[Error(Io)]
        }
        Call::PathOpen => &[Error(Intr), Error(Mfile), Error(Nfile), Error(Acces), Error(Io)],
        Call::PathFilestatGet | Call::PathFilestatSetTimes | Call::PathReadlink => &[Error(Acces), Error(Io)],
        Call::PathCreateDirectory | Call::PathLink | Call::PathSymlink | Call::PathRename => {
            &[Error(Acces), Error(Nospc), Error(Io)]
        }
        Call::PathRemoveDirectory | Call::PathUnlinkFile => &[Error(Acces), Error(Busy), Error(Io)],
        Call::PollOneoff => &[Error(Intr), Delay],
        Call::SockAccept | Call::SockAcceptV1 => &[Error(Again), Error(Connaborted), Error(Mfile), Delay],
        Call::SockOpen => &[Error(Mfile), Error(Nfile), Error(Nobufs)],
        Call::SockBind | Call::SockListen => &[Error(Addrinuse)],
        Call::SockConnect => &[Refuse(Connrefused), Refuse(Timedout), Refuse(Hostunreach), Refuse(Netunreach), Delay],
        Call::SockGetaddrinfo => &[Error(Noent), Error(Again), Delay],
        Call::SockShutdown => &[Error(Notconn)],
        Call::ArgsGet
        | Call::ArgsSizesGet
        | Call::EnvironGet
        | Call::EnvironSizesGet
        | Call::ClockResGet
        | Call::ClockTimeGet
        | Call::FdAdvise
        | Call::FdFdstatGet
        | Call::FdFdstatSetFlags
        | Call::FdFdstatSetRights
        | Call::FdPrestatGet
        | Call::FdPrestatDirName
        | Call::FdRenumber
        | Call::FdSeek
        | Call::FdTell
        | Call::SockGetsockopt
        | Call::SockSetsockopt
        | Call::SockGetlocaladdr
        | Call::SockGetlocaladdrV1
        | Call::SockGetpeeraddr
        | Call::SockGetpeeraddrV1
        | Call::ProcExit
        | Call::ProcRaise
        | Call::SchedYield
        | Call::RandomGet => &[],
    }
}

/// Steele, Lea and Flood's `SplitMix64` ("Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): a counter and
/// a hash. Small, and the same on every machine for ever, so that a seed in a bug report stays good.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
