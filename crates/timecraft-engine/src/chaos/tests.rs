use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::abi::bounds::TRANSFER_BYTES_MAX;
use crate::abi::{fdflags, filetype, socket as abi};
use crate::calls::CALLS;
use crate::memory::Notes;

/// The socket of most tests, and who accepts it.
const FD: u64 = 5;
const LISTENER: u64 = 4;
/// Where the world puts descriptors and values.
const OUT: u64 = 0x30;
const STREAM: u64 = abi::TYPE_STREAM as u64;
const DGRAM: u64 = abi::TYPE_DGRAM as u64;
const NONBLOCK: u64 = fdflags::NONBLOCK as u64;
const SO_ERROR: u64 = abi::OPTION_ERROR as u64;

/// A world in which all goes well. Notes each call that gets through, and how much it may transfer.
#[derive(Default)]
struct Calm(Vec<(Call, Vec<u64>, u32)>);

impl System for Calm {
    fn call(&mut self, call: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        self.0.push((call, args.to_vec(), memory.transfer_max()));
        match call {
            Call::SockOpen | Call::SockAccept => memory.write_u32(args[2] as u32, FD as u32).unwrap(),
            Call::PathOpen => memory.write_u32(args[8] as u32, FD as u32).unwrap(),
            Call::SockAcceptV1 => memory.write_u32(args[1] as u32, FD as u32).unwrap(),
            Call::SockGetsockopt => memory.write_u32(args[3] as u32, 0).unwrap(),
            Call::FdFdstatGet => memory.write(args[1] as u32, &[filetype::SOCKET_STREAM, 0, 4, 0]).unwrap(),
            _ => {}
        }
        Ok(Errno::Success)
    }
}

/// A guest in a world with faults, which tests switch on and off.
struct Guest {
    chaos: Chaos<Calm>,
    memory: Vec<u8>,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Guest {
    fn new(ratio: f64, seed: u64) -> Self {
        let waits = Arc::<Mutex<Vec<Duration>>>::default();
        let noted = Arc::clone(&waits);
        let chaos = Chaos::new(Calm::default(), ratio, seed, move |time| noted.lock().unwrap().push(time));
        let mut memory = vec![0u8; 128];
        // Two buffers: 5 bytes at 32, 6 bytes at 37.
        for (at, word) in [32u32, 5, 37, 6].into_iter().enumerate() {
            memory[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        Guest { chaos, memory, waits }
    }

    fn try_call(&mut self, call: Call, args: &[u64]) -> Result<Errno, Halt> {
        self.chaos.call(call, args, &mut Memory::new(&mut self.memory, &mut Notes::default()))
    }

    /// Makes a call that may have a fault.
    fn call(&mut self, call: Call, args: &[u64]) -> Errno {
        self.try_call(call, args).unwrap()
    }

    /// Makes a call that has none.
    fn calm(&mut self, call: Call, args: &[u64]) -> Errno {
        let threshold = std::mem::take(&mut self.chaos.threshold);
        let done = self.call(call, args);
        self.chaos.threshold = threshold;
        done
    }

    fn write(&mut self, buffers: u64) -> Errno {
        let before = self.memory.clone();
        let errno = self.call(Call::FdWrite, &[1, 0, buffers, 48]);
        assert_eq!(self.memory, before, "chaos doesn't touch guest memory");
        errno
    }

    /// A socket that is connected, unless it is for datagrams.
    fn with_socket(seed: u64, kind: u64, nonblock: bool, connected: bool) -> Self {
        let mut guest = Guest::new(1.0, seed);
        guest.calm(Call::SockOpen, &[1, kind, OUT]);
        guest.calm(Call::FdFdstatSetFlags, &[FD, if nonblock { NONBLOCK } else { 0 }]);
        if connected {
            guest.calm(Call::SockConnect, &[FD, 0, 80]);
        }
        guest
    }

    /// The first seed from which the call ends so.
    fn where_it(call: Call, args: &[u64], errno: Errno, kind: u64, connected: bool) -> Self {
        let guests = (0..1000).map(|seed| Guest::with_socket(seed, kind, true, connected));
        let mut guest = guests.into_iter().find_map(|mut guest| (guest.call(call, args) == errno).then_some(guest));
        guest.take().expect("no seed does that")
    }

    fn error(&mut self) -> u8 {
        assert_eq!(self.calm(Call::SockGetsockopt, &[FD, 0, SO_ERROR, OUT, 4]), Errno::Success);
        self.memory[OUT as usize]
    }

    fn passed(&self) -> Vec<Call> {
        self.chaos.inner().0.iter().map(|(call, ..)| *call).collect()
    }
}

/// Arguments that are as many as the call has, for the socket, the two buffers, and results out of their way.
fn args_of(call: Call) -> Vec<u64> {
    let mut args = vec![OUT; call.spec().types().len()];
    if let Some(fd) = args.first_mut() {
        *fd = FD;
    }
    if is_transfer(call) {
        (args[1], args[2]) = (0, 2);
    }
    args
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
        let mut guest = Guest::new(0.3, seed);
        let errors: Vec<_> = (0..200).map(|_| guest.write(2)).collect();
        (errors, guest.chaos.into_inner().0)
    };
    assert_eq!(faults(1), faults(1));
    assert_ne!(faults(1), faults(2));
}

#[test]
fn the_ratio_holds() {
    for (ratio, range) in [(0.0, 0..=0), (f64::NAN, 0..=0), (0.1, 900..=1_100), (1.0, 10_000..=10_000)] {
        let mut guest = Guest::new(ratio, 7);
        for _ in 0..10_000 {
            guest.write(2);
        }
        let faults = guest.chaos.faults();
        assert!(range.contains(&faults), "{faults} faults of 10000 at {ratio}");
    }
}

#[test]
fn writes_are_failed_or_cut() {
    let mut guest = Guest::new(1.0, 7);
    let written = (0..1000).filter(|_| guest.write(2) == Errno::Success).count();
    let cuts: BTreeSet<u32> = guest.chaos.inner().0.iter().map(|(.., max)| *max).collect();
    assert!(written > 100 && written < 300, "{written}");
    assert_eq!(cuts, (1..11).collect(), "never nothing, never all");
    // Where there is no room for a cut, there is none.
    for (list, buffers) in [([32, 1], 1), ([32, 0], 1), ([32, 5], 0), ([u32::MAX, 1], 1)] {
        let mut guest = Guest::new(1.0, 7);
        guest.memory[..8].copy_from_slice(&list.map(u32::to_le_bytes).concat());
        assert!((0..100).all(|_| guest.write(buffers) != Errno::Success), "{list:?}");
    }
    let mut guest = Guest::new(1.0, 7);
    assert!((0..100).all(|_| guest.call(Call::FdWrite, &[1, 1 << 31, 2, 48]) != Errno::Success), "out of memory");
}

#[test]
fn the_first_call_after_a_resume_is_spared() {
    let mut guest = Guest::new(1.0, 6);
    guest.chaos = guest.chaos.sparing_next();
    assert_eq!(guest.write(1), Errno::Success);
    assert_ne!(guest.write(1), Errno::Success);
}

#[test]
fn start_up_clocks_and_the_end_are_spared() {
    let spared = CALLS.iter().filter(|spec| faults_of(spec.call, true).is_empty()).map(|spec| spec.name);
    let expected = "args_get args_sizes_get environ_get environ_sizes_get clock_res_get clock_time_get fd_advise \
                    fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights fd_prestat_get fd_prestat_dir_name \
                    fd_renumber fd_seek fd_tell proc_exit proc_raise sched_yield random_get sock_getsockopt \
                    sock_setsockopt sock_getlocaladdr sock_getpeeraddr sock_getlocaladdr sock_getpeeraddr";
    assert_eq!(spared.collect::<Vec<_>>().join(" "), expected);
    for spec in CALLS {
        for is_socket in [false, true] {
            let first = faults_of(spec.call, is_socket).first();
            assert!(matches!(first, None | Some(Fault::Error(_) | Fault::Refuse(_))), "{}", spec.name);
        }
    }
}

/// What becomes of each call on a socket, whatever the seed: on one that doesn't wait, on one that does, for datagrams.
#[test]
fn every_socket_call_has_the_faults_that_it_can_have() {
    let transfer = ["EAGAIN ECONNRESET EINTR ESUCCESS", "EAGAIN ECONNRESET EINTR ESUCCESS", "EAGAIN EINTR ESUCCESS"];
    let accept = ["EAGAIN ECONNABORTED EMFILE ESUCCESS"; 3];
    let refused = "ECONNREFUSED EHOSTUNREACH EINPROGRESS ENETUNREACH ESUCCESS ETIMEDOUT";
    let straight = "ECONNREFUSED EHOSTUNREACH ENETUNREACH ESUCCESS ETIMEDOUT";
    let mut rows = vec![
        (Call::SockAccept, accept),
        (Call::SockAcceptV1, accept),
        (Call::SockOpen, ["EMFILE ENFILE ENOBUFS"; 3]),
        (Call::SockBind, ["EADDRINUSE"; 3]),
        (Call::SockListen, ["EADDRINUSE"; 3]),
        (Call::SockConnect, [refused, straight, straight]),
        (Call::SockGetaddrinfo, ["EAGAIN ENOENT ESUCCESS"; 3]),
        (Call::SockShutdown, ["ENOTCONN"; 3]),
        (Call::PollOneoff, ["EINTR ESUCCESS"; 3]),
    ];
    let transfers = [
        Call::FdRead,
        Call::FdWrite,
        Call::SockRecv,
        Call::SockSend,
        Call::SockSendTo,
        Call::SockRecvFrom,
        Call::SockRecvFromV1,
    ];
    rows.extend(transfers.map(|call| (call, transfer)));
    for spec in CALLS.iter().filter(|spec| spec.name.starts_with("sock_") && !faults_of(spec.call, true).is_empty()) {
        assert!(rows.iter().any(|(call, _)| *call == spec.call), "{} has no row", spec.name);
    }
    for (call, expected) in rows {
        for (expected, (kind, nonblock)) in expected.into_iter().zip([(STREAM, true), (STREAM, false), (DGRAM, true)]) {
            let outcome = |seed| {
                let mut guest = Guest::with_socket(seed, kind, nonblock, call != Call::SockConnect && kind == STREAM);
                guest.call(call, &args_of(call)).name()
            };
            let outcomes: BTreeSet<_> = (0..300).map(outcome).collect();
            assert_eq!(outcomes.into_iter().collect::<Vec<_>>().join(" "), expected, "{call:?} {kind} {nonblock}");
        }
    }
}

#[test]
fn sockets_that_are_paths_have_faults_of_sockets() {
    let mut outcomes = BTreeSet::new();
    let mut resets = 0;
    for seed in 0..300 {
        let mut guest = Guest::new(1.0, seed);
        guest.memory[0x40..0x48].copy_from_slice(b"/dev/tcp");
        guest.calm(Call::FdPrestatDirName, &[3, 0x40, 8]);
        outcomes.insert(guest.call(Call::PathOpen, &[3, 0, 0, 0, 0, 0, 0, 4, OUT]).name());
        guest.calm(Call::PathOpen, &[3, 0, 0, 0, 0, 0, 0, 4, OUT]);
        resets += u32::from(guest.call(Call::FdRead, &args_of(Call::FdRead)) == Errno::Connreset);
        // Elsewhere files are files, and so they are there once it is closed.
        guest.calm(Call::FdClose, &[3]);
        assert_ne!(guest.call(Call::PathOpen, &[3, 0, 0, 0, 0, 0, 0, 4, OUT]), Errno::Connrefused);
    }
    let expected = "ECONNREFUSED EHOSTUNREACH EMFILE ENETUNREACH ENOENT ESUCCESS ETIMEDOUT";
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>().join(" "), expected);
    assert!(resets > 30, "{resets}");
}

#[test]
fn a_connection_that_was_reset_stays_dead() {
    let args = args_of(Call::SockRecv);
    let mut guest = Guest::where_it(Call::SockRecv, &args, Errno::Connreset, STREAM, true);
    assert_eq!(guest.passed()[3..], [Call::SockShutdown], "the world learns of it");
    assert_eq!(guest.chaos.inner().0[3].1, [FD, 3]);
    for _ in 0..2 {
        for spec in CALLS.iter().filter(|spec| sockets::is_transfer(spec.call)) {
            assert_eq!(guest.calm(spec.call, &args_of(spec.call)), Errno::Connreset, "{}", spec.name);
        }
        for call in [Call::SockShutdown, Call::SockGetpeeraddr, Call::SockGetpeeraddrV1] {
            assert_eq!(guest.calm(call, &args_of(call)), Errno::Notconn);
        }
        assert_eq!(guest.error(), Errno::Connreset as u8);
        assert_eq!(guest.calm(Call::PollOneoff, &[0, 0, 1, OUT]), Errno::Success, "the world says that it is ready");
    }
    // Wherever it is moved; other sockets live, and one that later has its number.
    assert_eq!(guest.calm(Call::FdRenumber, &[FD, 9]), Errno::Success);
    assert_eq!(guest.calm(Call::SockRecv, &[9, 0, 2, 0, OUT, OUT]), Errno::Connreset);
    assert_eq!(guest.calm(Call::SockAccept, &[LISTENER, 0, OUT]), Errno::Success);
    assert_eq!(guest.calm(Call::SockRecv, &args), Errno::Success);
    assert_eq!(guest.calm(Call::FdRenumber, &[FD, 9]), Errno::Success);
    assert_eq!(guest.calm(Call::SockRecv, &[9, 0, 2, 0, OUT, OUT]), Errno::Success);
    assert_eq!(guest.calm(Call::FdClose, &[9]), Errno::Success);
    assert!(!guest.chaos.sockets.is_socket(&[9]));
}

#[test]
fn only_connections_are_reset() {
    // A listener that was opened as a path, or given, is a socket that nobody connected.
    for seed in 0..300 {
        let mut guest = Guest::new(1.0, seed);
        guest.calm(Call::FdFdstatGet, &[FD, OUT]);
        assert_ne!(guest.call(Call::FdRead, &args_of(Call::FdRead)), Errno::Connreset);
        assert_ne!(guest.call(Call::FdWrite, &args_of(Call::FdWrite)), Errno::Io, "sockets have no EIO");
    }
    // One that was written to proves to be connected.
    let reset = (0..300).any(|seed| {
        let mut guest = Guest::new(1.0, seed);
        guest.calm(Call::FdFdstatGet, &[FD, OUT]);
        guest.calm(Call::FdWrite, &args_of(Call::FdWrite));
        guest.call(Call::FdRead, &args_of(Call::FdRead)) == Errno::Connreset
    });
    assert!(reset);
}

#[test]
fn a_refusal_may_come_later() {
    let args = args_of(Call::SockConnect);
    let refused = || Guest::where_it(Call::SockConnect, &args, Errno::Inprogress, STREAM, false);
    let mut guest = refused();
    assert!(!guest.passed().contains(&Call::SockConnect), "nothing was tried");
    assert_eq!(guest.calm(Call::PollOneoff, &[0, 0, 1, OUT]), Errno::Success, "the world says that it is ready");
    let errors = [Errno::Connrefused, Errno::Timedout, Errno::Hostunreach, Errno::Netunreach].map(|errno| errno as u8);
    assert!(errors.contains(&guest.error()));
    assert_eq!(guest.error(), 0, "once");
    assert_eq!(guest.calm(Call::SockConnect, &args), Errno::Success, "another try");
    // Who doesn't ask for the error learns it by using the socket.
    let mut guest = refused();
    assert!(errors.contains(&(guest.calm(Call::SockSend, &args_of(Call::SockSend)) as u8)));
    assert_eq!((guest.error(), guest.calm(Call::SockSend, &args_of(Call::SockSend))), (0, Errno::Success));
}

#[test]
fn delays_are_short_and_harmless() {
    let mut waits = Vec::new();
    for seed in 0..1000 {
        let mut guest = Guest::with_socket(seed, STREAM, true, true);
        let errno = guest.call(Call::SockRecv, &args_of(Call::SockRecv));
        let waited = guest.waits.lock().unwrap().clone();
        if !waited.is_empty() {
            assert_eq!((errno, guest.passed().last()), (Errno::Success, Some(&Call::SockRecv)));
            assert_eq!(guest.chaos.inner().0.last().unwrap().2, TRANSFER_BYTES_MAX);
        }
        waits.extend(waited);
    }
    assert!(waits.len() > 100 && waits.iter().all(|wait| *wait < DELAY_MAX), "{}", waits.len());
    assert!(waits.iter().max() > Some(&(DELAY_MAX / 2)) && waits.iter().min() < Some(&(DELAY_MAX / 10)));
}

#[test]
fn what_is_remembered_is_bounded() {
    /// Opens a new descriptor with each call.
    struct Opening(u32);

    impl System for Opening {
        fn call(&mut self, _: Call, args: &[u64], memory: &mut Memory<'_>) -> Result<Errno, Halt> {
            self.0 += 1;
            memory.write_u32(args[2] as u32, self.0).unwrap();
            Ok(Errno::Success)
        }
    }

    let mut chaos = Chaos::new(Opening(0), 0.0, 1, |_| {});
    let mut memory = [0; 64];
    for _ in 0..3000 {
        chaos.call(Call::SockOpen, &[1, 2, 8], &mut Memory::new(&mut memory, &mut Notes::default())).unwrap();
    }
    assert_eq!((1..=3000).filter(|fd| chaos.sockets.is_socket(&[*fd])).count(), 1024);
}
