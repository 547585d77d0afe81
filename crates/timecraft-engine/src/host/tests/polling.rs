//! `poll_oneoff`.

use std::io::Write;
use std::time::{Duration, Instant};

use super::*;
use crate::Kill;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const MILLISECOND: u64 = 1_000_000;

fn clock(userdata: u64, id: u32, timeout: u64, flags: u16) -> Vec<u8> {
    let mut raw = vec![POISON; 48];
    raw[0..8].copy_from_slice(&userdata.to_le_bytes());
    raw[8] = event::CLOCK;
    raw[16..20].copy_from_slice(&id.to_le_bytes());
    raw[24..32].copy_from_slice(&timeout.to_le_bytes());
    raw[32..40].copy_from_slice(&0u64.to_le_bytes());
    raw[40..42].copy_from_slice(&flags.to_le_bytes());
    raw
}

fn ready(userdata: u64, tag: u8, fd: u32) -> Vec<u8> {
    let mut raw = vec![POISON; 48];
    raw[0..8].copy_from_slice(&userdata.to_le_bytes());
    raw[8] = tag;
    raw[16..20].copy_from_slice(&fd.to_le_bytes());
    raw
}

#[derive(Debug, PartialEq, Eq)]
struct Event {
    userdata: u64,
    errno: u16,
    tag: u8,
    bytes: u64,
    flags: u16,
}

fn happened(userdata: u64, tag: u8) -> Event {
    Event { userdata, errno: 0, tag, bytes: 0, flags: 0 }
}

fn poll(guest: &mut Guest, subscriptions: &[Vec<u8>]) -> Result<Vec<Event>, Halt> {
    let (ptr, _) = guest.put(&subscriptions.concat());
    let args = [ptr, BUFFER.into(), subscriptions.len() as u64, OUT.into()];
    assert_eq!(guest.try_call(Call::PollOneoff, &args)?, Errno::Success);
    let events = guest.buffer(guest.u32(OUT) * event::EVENT_BYTES).chunks_exact(event::EVENT_BYTES as usize);
    Ok(events
        .map(|raw| {
            let u64_at = |at: usize| u64::from_le_bytes(raw[at..at + 8].try_into().unwrap());
            assert!(raw[11..16].iter().chain(&raw[26..32]).all(|byte| *byte == 0), "padding: {raw:?}");
            Event {
                userdata: u64_at(0),
                errno: u64_at(8) as u16,
                tag: raw[10],
                bytes: u64_at(16),
                flags: u64_at(24) as u16,
            }
        })
        .collect())
}

#[test]
fn clocks_wait_as_long_as_they_should() {
    let mut guest = Guest::new(HostConfig::default());
    for id in [REALTIME, MONOTONIC] {
        let now = guest.host.now(id).unwrap();
        for (timeout, flags) in [(20 * MILLISECOND, 0), (now + 50 * MILLISECOND, event::SUBCLOCK_ABSTIME)] {
            let begin = Instant::now();
            assert_eq!(poll(&mut guest, &[clock(7, id, timeout, flags)]).unwrap(), [happened(7, event::CLOCK)]);
            assert!(begin.elapsed() >= Duration::from_millis(15), "{id} {flags}");
        }
        // In the past already.
        let past = [clock(8, id, 1, event::SUBCLOCK_ABSTIME), clock(9, id, 0, 0)];
        assert_eq!(poll(&mut guest, &past).unwrap(), [happened(8, event::CLOCK), happened(9, event::CLOCK)]);
    }
}

#[test]
fn only_the_earliest_clock_fires() {
    let mut guest = Guest::new(HostConfig::default());
    let subscriptions = [
        clock(1, MONOTONIC, u64::MAX, 0),
        clock(2, MONOTONIC, MILLISECOND, 0),
        clock(3, REALTIME, 60_000 * MILLISECOND, 0),
    ];
    assert_eq!(poll(&mut guest, &subscriptions).unwrap(), [happened(2, event::CLOCK)]);
}

#[test]
fn errors_are_events() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let bare = guest.open_with(RW, "file", 0, (0, 0), 0).unwrap();
    let subscriptions = [
        ready(1, event::FD_READ, 99),
        ready(2, event::FD_WRITE, u32::MAX),
        ready(3, event::FD_READ, RW as u32),
        ready(4, event::FD_READ, bare as u32),
        clock(5, 2, 0, 0),
        clock(6, 99, 0, 0),
        clock(7, MONOTONIC, 0, 2),
        clock(8, MONOTONIC, 60_000 * MILLISECOND, 0),
    ];
    let events = poll(guest, &subscriptions).unwrap();
    let errors: Vec<_> = events.iter().map(|event| (event.userdata, event.tag, event.errno)).collect();
    let [badf, notcapable] = [Errno::Badf as u16, Errno::Notcapable as u16];
    let [notsup, inval] = [Errno::Notsup as u16, Errno::Inval as u16];
    assert_eq!(
        errors,
        [(1, 1, badf), (2, 2, badf), (3, 1, badf), (4, 1, notcapable), (5, 0, notsup), (6, 0, inval), (7, 0, inval)]
    );
    let (ptr, _) = guest.put(&ready(1, 3, 0));
    assert_eq!(guest.call(Call::PollOneoff, &[ptr, BUFFER.into(), 1, OUT.into()]), Errno::Inval);
}

#[test]
fn files_are_always_ready() {
    let mut world = World::new();
    let fd = world.guest.create(RW, "file").unwrap();
    world.guest.seek(fd, 5, 0).unwrap();
    let fd = fd as u32;
    let subscriptions = [
        ready(1, event::FD_READ, fd),
        clock(2, MONOTONIC, 60_000 * MILLISECOND, 0),
        ready(3, event::FD_WRITE, fd),
        ready(4, event::FD_WRITE, 1),
    ];
    let events = poll(&mut world.guest, &subscriptions).unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.userdata, event.errno, event.bytes)).collect();
    assert_eq!(seen, [(1, 0, 11), (3, 0, 1), (4, 0, 1)]);
}

#[test]
fn a_pipe_is_ready_when_something_is_there() {
    let (mut guest, mut writer) = with_stdin();
    let both = [ready(1, event::FD_READ, 0), clock(2, MONOTONIC, MILLISECOND, 0)];
    assert_eq!(poll(&mut guest, &both).unwrap(), [happened(2, event::CLOCK)]);
    writer.write_all(b"hello").unwrap();
    let expected = Event { bytes: 5, ..happened(1, event::FD_READ) };
    assert_eq!(poll(&mut guest, &both).unwrap(), [expected]);
    // A clock that is up fires together with what is ready.
    let both = [ready(1, event::FD_READ, 0), clock(2, MONOTONIC, 0, 0), ready(3, event::FD_READ, 0)];
    let events: Vec<u64> = poll(&mut guest, &both).unwrap().iter().map(|event| event.userdata).collect();
    assert_eq!(events, [1, 2, 3]);
    assert_eq!(guest.read(0, 100), Ok(b"hello".to_vec()));
    drop(writer);
    let hangup = Event { flags: event::FD_READWRITE_HANGUP, ..happened(1, event::FD_READ) };
    assert_eq!(poll(&mut guest, &[ready(1, event::FD_READ, 0)]).unwrap(), [hangup]);
}

#[test]
fn a_wait_ends_when_data_comes_or_the_guest_is_killed() {
    let (mut guest, mut writer) = with_stdin();
    let kill = Arc::clone(&guest.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(b"x").unwrap());
        let events = poll(&mut guest, &[ready(1, event::FD_READ, 0)]).unwrap();
        assert_eq!(events, [Event { bytes: 1, ..happened(1, event::FD_READ) }]);
    });
    assert_eq!(guest.read(0, 1), Ok(b"x".to_vec()));
    std::thread::scope(|scope| {
        scope.spawn(|| kill.request(Kill::Signal(15)));
        let waits = [ready(1, event::FD_READ, 0), clock(2, MONOTONIC, u64::MAX, 0)];
        assert_eq!(poll(&mut guest, &waits), Err(Halt::Killed(Kill::Signal(15))));
    });
}

#[test]
fn an_interrupted_wait_fails_once_and_a_yield_tells_of_it() {
    let (mut guest, _writer) = with_stdin();
    let kill = Arc::clone(&guest.kill);
    let forever = |guest: &mut Guest| {
        let (ptr, _) = guest.put(&ready(1, event::FD_READ, 0));
        guest.call(Call::PollOneoff, &[ptr, BUFFER.into(), 1, OUT.into()])
    };
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(kill.interrupt()));
        assert_eq!(forever(&mut guest), Errno::Intr);
    });
    let soon = [clock(2, MONOTONIC, 1, 0)];
    assert_eq!(poll(&mut guest, &soon).unwrap(), [happened(2, event::CLOCK)]);
    assert!(!kill.interrupt(), "the guest hasn't asked yet");
    assert_eq!(guest.call(Call::SchedYield, &[]), Errno::Intr);
    assert_eq!(guest.call(Call::SchedYield, &[]), Errno::Success);
    // One that came before the wait fails it as well, and one that a yield has told of doesn't.
    assert!(kill.interrupt());
    assert_eq!(forever(&mut guest), Errno::Intr);
    assert_eq!(guest.call(Call::SchedYield, &[]), Errno::Intr);
    assert!(kill.interrupt());
    assert_eq!(guest.call(Call::SchedYield, &[]), Errno::Intr);
    assert_eq!(poll(&mut guest, &soon).unwrap(), [happened(2, event::CLOCK)]);
}

#[test]
fn as_many_subscriptions_as_allowed() {
    let mut guest = Guest::new(HostConfig::default());
    guest.memory.resize(4 << 20, POISON);
    let (at, count) = (1 << 20, 16_384usize);
    for index in 0..count {
        let raw = ready(index as u64, event::FD_WRITE, (index % 2) as u32 + 1);
        guest.memory[at + index * 48..at + index * 48 + 48].copy_from_slice(&raw);
    }
    let args = [at as u64, 2 << 20, count as u64, OUT.into()];
    assert_eq!(guest.call(Call::PollOneoff, &args), Errno::Success);
    assert_eq!(guest.u32(OUT), 16_384);
    assert_eq!(guest.call(Call::PollOneoff, &[at as u64, 2 << 20, 0, OUT.into()]), Errno::Inval);
}
