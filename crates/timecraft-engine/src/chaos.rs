//! Makes the world worse than it is, so that a guest shows how it copes.
//!
//! Faults are decided before the call takes place: a call that fails has had no effect. A recorder above records them
//! like anything else, so that a replay has the same faults without any chaos.

use crate::abi::size;
use crate::recorder::End;
use crate::{Call, Errno, Halt, Memory, System};

/// Fails calls of `inner` now and then, with errors that the call could have had, and cuts reads and writes short.
#[derive(Debug)]
pub struct Chaos<S> {
    inner: S,
    /// A call is spared if its draw is at least this; draws have 53 bits.
    threshold: u64,
    random: SplitMix64,
    faults: u64,
    /// The next call passes whatever is drawn.
    spares_next: bool,
}

/// Bits of a draw that decide: as many as an f64 can tell apart.
const DRAW_BITS: u32 = 53;

impl<S: System> Chaos<S> {
    /// Faults come with probability `ratio` per call that can have any; the same seed gives the same faults to the same
    /// calls. Ratios beyond 0 to 1 count as the nearest, no number as 0.
    pub fn new(inner: S, ratio: f64, seed: u64) -> Self {
        // The conversion saturates, and takes no number for 0.
        let threshold = (ratio.clamp(0.0, 1.0) * f64::from(DRAW_BITS).exp2()) as u64;
        Chaos { inner, threshold, random: SplitMix64(seed), faults: 0, spares_next: false }
    }

    /// Lets the next call pass. The first one of a resumed process may have taken effect already: the host beneath is
    /// ready for that one, and must see it.
    #[must_use]
    pub fn sparing_next(self) -> Self {
        Chaos { spares_next: true, ..self }
    }

    /// Calls that were failed or cut short so far.
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

    fn decide(&mut self, call: Call, args: &[u64], memory: &Memory<'_>) -> Option<Fault> {
        let errors = errors_of(call);
        if errors.is_empty() || self.random.next() >> (u64::BITS - DRAW_BITS) >= self.threshold {
            return None;
        }
        // Drawn always, so that what a guest's buffers look like doesn't shift the faults after it.
        let choice = self.random.next() % (errors.len() as u64 + 1);
        match errors.get(choice as usize) {
            Some(error) => Some(Fault::Error(*error)),
            None if can_be_short(call, args, memory) => Some(Fault::Short),
            None => Some(Fault::Error(errors[0])),
        }
    }
}

impl<S: System> System for Chaos<S> {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        let spares = std::mem::take(&mut self.spares_next);
        let fault = self.decide(call, args, memory).filter(|_| !spares);
        let Some(fault) = fault else { return self.inner.call(call, args, memory) };
        self.faults += 1;
        match fault {
            Fault::Error(error) => Ok(error),
            Fault::Short => {
                let mut short = [0; ARGS_MAX];
                let short = &mut short[..args.len()];
                short.copy_from_slice(args);
                short[IOVEC_COUNT] = 1;
                self.inner.call(call, short, memory)
            }
        }
    }

    fn end(&mut self, end: &End) -> Result<(), Halt> {
        self.inner.end(end)
    }
}

enum Fault {
    Error(Errno),
    /// Only the first of several buffers is passed on. The guest's own list can't be cut: its memory is not ours to
    /// change.
    Short,
}

/// Position of the count of buffers among the raw arguments of each call that has such a list; the list is before it.
const IOVEC_COUNT: usize = 2;
/// Raw arguments of a call with a list of buffers, at most.
const ARGS_MAX: usize = 8;

/// Whether a read or write has several buffers of which the first has room: nothing read or written at all would mean
/// something else.
fn can_be_short(call: Call, args: &[u64], memory: &Memory<'_>) -> bool {
    let has_list =
        matches!(call, Call::FdRead | Call::FdPread | Call::FdWrite | Call::FdPwrite | Call::SockRecv | Call::SockSend);
    if !has_list || args.len() > ARGS_MAX || args.get(IOVEC_COUNT).is_none_or(|count| *count < 2) {
        return false;
    }
    let first = memory.peek(args[IOVEC_COUNT - 1] as u32, size::IOVEC);
    first.is_ok_and(|iovec| iovec[4..] != [0; 4])
}

/// The errors that chaos may give a call: such as a guest must expect of a healthy file system or network on a bad day.
///
/// Start-up (arguments, environment, prestats), clocks, randomness and the guest's own end have none: language runtimes
/// give up at once there, which tells nothing about the program. Nor have calls that only change the host's memory.
fn errors_of(call: Call) -> &'static [Errno] {
    match call {
        Call::FdRead => &[Errno::Intr, Errno::Io, Errno::Again],
        Call::FdPread => &[Errno::Intr, Errno::Io],
        Call::FdWrite => &[Errno::Intr, Errno::Io, Errno::Again, Errno::Nospc],
        Call::FdPwrite => &[Errno::Intr, Errno::Io, Errno::Nospc],
        Call::FdAllocate | Call::FdFilestatSetSize => &[Errno::Io, Errno::Nospc],
        Call::FdReaddir => &[Errno::Io, Errno::Nomem],
        Call::FdClose | Call::FdDatasync | Call::FdSync | Call::FdFilestatGet | Call::FdFilestatSetTimes => {
            &[Errno::Io]
        }
        Call::PathOpen => &[Errno::Intr, Errno::Mfile, Errno::Nfile, Errno::Acces, Errno::Io],
        Call::PathFilestatGet | Call::PathFilestatSetTimes | Call::PathReadlink => &[Errno::Acces, Errno::Io],
        Call::PathCreateDirectory | Call::PathLink | Call::PathSymlink | Call::PathRename => {
            &[Errno::Acces, Errno::Nospc, Errno::Io]
        }
        Call::PathRemoveDirectory | Call::PathUnlinkFile => &[Errno::Acces, Errno::Busy, Errno::Io],
        Call::PollOneoff => &[Errno::Intr],
        Call::SockAccept | Call::SockAcceptV1 => &[Errno::Again, Errno::Connaborted, Errno::Mfile],
        Call::SockRecv | Call::SockRecvFrom | Call::SockRecvFromV1 => &[Errno::Intr, Errno::Again, Errno::Connreset],
        Call::SockSend | Call::SockSendTo => &[Errno::Intr, Errno::Again, Errno::Connreset, Errno::Pipe],
        Call::SockOpen => &[Errno::Mfile, Errno::Nfile, Errno::Nobufs],
        Call::SockBind | Call::SockListen => &[Errno::Addrinuse],
        Call::SockConnect => &[Errno::Connrefused, Errno::Timedout, Errno::Hostunreach, Errno::Netunreach],
        Call::SockGetaddrinfo => &[Errno::Noent, Errno::Again],
        Call::SockShutdown => &[Errno::Notconn],
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
mod tests {
    use super::*;
    use crate::calls::CALLS;
    use crate::memory::Notes;

    /// Notes the count of buffers of each call that gets through.
    #[derive(Default)]
    struct Calm(Vec<u64>);

    impl System for Calm {
        fn call(&mut self, _: Call, args: &[u64], _: &mut Memory<'_>) -> Result<Errno, Halt> {
            self.0.push(args.get(IOVEC_COUNT).copied().unwrap_or(0));
            Ok(Errno::Success)
        }
    }

    fn write(chaos: &mut Chaos<Calm>, args: &[u64]) -> Errno {
        // Two buffers: 5 bytes at 32, 6 bytes at 37.
        let mut bytes = [0u8; 64];
        for (at, word) in [32u32, 5, 37, 6].into_iter().enumerate() {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        let before = bytes;
        let mut notes = Notes::default();
        let errno = chaos.call(Call::FdWrite, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap();
        assert_eq!(bytes, before, "chaos doesn't touch guest memory");
        errno
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The first values for seed 1234567, as published with the reference implementation's ports.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_seed_gives_the_same_faults_and_another_seed_others() {
        let faults = |seed| {
            let mut chaos = Chaos::new(Calm::default(), 0.3, seed);
            (0..200).map(|_| write(&mut chaos, &[1, 0, 2, 48])).collect::<Vec<_>>()
        };
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
    }

    #[test]
    fn the_ratio_holds() {
        for (ratio, range) in [(0.0, 0..=0), (f64::NAN, 0..=0), (0.1, 900..=1_100), (1.0, 10_000..=10_000)] {
            let mut chaos = Chaos::new(Calm::default(), ratio, 7);
            for _ in 0..10_000 {
                write(&mut chaos, &[1, 0, 2, 48]);
            }
            assert!(range.contains(&chaos.faults()), "{} faults of 10000 at {ratio}", chaos.faults());
        }
    }

    #[test]
    fn writes_are_failed_or_cut_to_their_first_buffer() {
        let mut chaos = Chaos::new(Calm::default(), 1.0, 7);
        for _ in 0..100 {
            write(&mut chaos, &[1, 0, 2, 48]);
        }
        let counts = &chaos.inner().0;
        assert!(!counts.is_empty() && counts.len() < 50 && counts.iter().all(|count| *count == 1), "{counts:?}");
    }

    #[test]
    fn the_first_call_after_a_resume_is_spared() {
        let mut chaos = Chaos::new(Calm::default(), 1.0, 7).sparing_next();
        assert_eq!(write(&mut chaos, &[1, 0, 1, 48]), Errno::Success);
        assert_ne!(write(&mut chaos, &[1, 0, 1, 48]), Errno::Success);
    }

    #[test]
    fn a_single_buffer_is_never_cut() {
        let mut chaos = Chaos::new(Calm::default(), 1.0, 7);
        for _ in 0..100 {
            assert_ne!(write(&mut chaos, &[1, 0, 1, 48]), Errno::Success);
        }
    }

    #[test]
    fn start_up_clocks_and_the_end_are_spared() {
        let mut chaos = Chaos::new(Calm::default(), 1.0, 7);
        let mut spared = Vec::new();
        for spec in CALLS {
            let mut notes = Notes::default();
            let args = vec![0; spec.types().len()];
            if chaos.call(spec.call, &args, &mut Memory::new(&mut [0; 64], &mut notes)) == Ok(Errno::Success) {
                spared.push(spec.name);
            }
        }
        let expected = "args_get args_sizes_get environ_get environ_sizes_get clock_res_get clock_time_get fd_advise \
                        fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights fd_prestat_get fd_prestat_dir_name \
                        fd_renumber fd_seek fd_tell proc_exit proc_raise sched_yield random_get sock_getsockopt \
                        sock_setsockopt sock_getlocaladdr sock_getpeeraddr sock_getlocaladdr sock_getpeeraddr";
        assert_eq!(spared.join(" "), expected);
    }
}
