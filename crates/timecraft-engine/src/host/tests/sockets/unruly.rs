//! Sockets in a world with faults.

use super::outside::begun;
use super::*;
use crate::chaos::Chaos;

/// Calls of each try.
const ROUNDS: u64 = 40;
/// Where memory holds lists of two buffers, to send and to receive, and an address.
const SENT: u64 = 0x90;
const RECEIVED: u64 = 0xa0;
const ADDRESS: u64 = 0x50;

/// An exchange over a connection and over datagrams that goes on whatever happens; returns what the guest saw.
fn exchange(system: &mut dyn System) -> Vec<(Errno, Vec<u8>)> {
    let (mut bytes, mut notes) = (vec![0u8; 1 << 14], Notes::default());
    bytes[0x40..0x44].copy_from_slice(&[127, 0, 0, 1]);
    bytes[0x50..0x58].copy_from_slice(&[0x40, 0, 0, 0, 4, 0, 0, 0]);
    bytes[0x60..0x68].copy_from_slice(&[0, 0x30, 0, 0, 128, 0, 0, 0]);
    bytes[0x90..0xa0].copy_from_slice(&[0, 0x10, 0, 0, 9, 0, 0, 0, 9, 0x10, 0, 0, 90, 0, 0, 0]);
    bytes[0xa0..0xb0].copy_from_slice(&[0, 0x20, 0, 0, 7, 0, 0, 0, 7, 0x20, 0, 0, 200, 0, 0, 0]);
    let mut seen = Vec::new();
    let mut call = |call: Call, args: &[u64]| {
        let errno = system.call(call, args, &mut Memory::new(&mut bytes, &mut notes)).unwrap();
        seen.push((errno, bytes.clone()));
        errno
    };
    for (kind, out) in [(STREAM, 0x100), (STREAM, 0x104), (DGRAM, 0x108), (DGRAM, 0x10c)] {
        while call(Call::SockOpen, &[INET4, kind, out]) != Errno::Success {}
    }
    for fd in 3..7 {
        call(Call::FdFdstatSetFlags, &[fd, NONBLOCK]);
    }
    for (fd, port) in [(3, 80), (5, 53)] {
        while call(Call::SockBind, &[fd, ADDRESS, port]) != Errno::Success {}
    }
    while call(Call::SockListen, &[3, 8]) != Errno::Success {}
    // Not before it is: SO_ERROR tells of a connection that didn't come about, once.
    while call(Call::SockConnect, &[4, ADDRESS, 80]) != Errno::Isconn {
        call(Call::SockGetsockopt, &[4, 0, 2, 0x110, 4]);
    }
    while call(Call::SockAccept, &[3, NONBLOCK, 0x114]) != Errno::Success {}
    for _ in 0..ROUNDS {
        call(Call::SockSend, &[4, SENT, 2, 0, 0x118]);
        call(Call::SockRecv, &[7, RECEIVED, 2, 0, 0x11c, 0x120]);
        call(Call::FdWrite, &[7, SENT, 2, 0x118]);
        call(Call::FdRead, &[4, RECEIVED, 2, 0x11c]);
        call(Call::SockSendTo, &[6, SENT, 2, ADDRESS, 53, 0, 0x124]);
        call(Call::SockRecvFrom, &[5, RECEIVED, 2, 0x60, 0, 0x128, 0x12c, 0x120]);
    }
    seen
}

#[test]
fn a_world_with_faults_is_replayed_without() {
    let (mut resets, mut truncated) = (0, 0);
    for seed in 0..40 {
        let host = Host::new(HostConfig::default(), Arc::new(KillSwitch::new().unwrap())).unwrap();
        let clock = Arc::new(crate::clock::SystemClock);
        let mut recorder = Recorder::new(Chaos::new(host, 0.2, seed, |_| {}), MemorySink::default(), clock, 0);
        let live = exchange(&mut recorder);
        let records = begun(std::mem::take(&mut recorder.sink_mut().records));
        let options = Options { poison: true, ..Options::default() };
        assert!(exchange(&mut Replayer::new(MemorySource::new(records.clone()), options)) == live, "seed {seed}");
        resets += u32::from(live.iter().any(|(errno, _)| *errno == Errno::Connreset));
        for record in records.iter().filter(|record| record.errno == 0) {
            // Datagrams go out whole; where one comes in cut, the guest is told.
            if record.call == Call::SockSendTo as u16 {
                assert_eq!(record.written.last().unwrap().1, 99u32.to_le_bytes());
            }
            if record.call == Call::SockRecvFrom as u16 {
                let [.., (_, count), (_, flags)] = &record.written[..] else { panic!("{record:?}") };
                assert_eq!(flags[0] == 1, count[..] != 99u32.to_le_bytes());
                truncated += u32::from(flags[0]);
            }
        }
    }
    assert!(resets > 30 && truncated > 30, "{resets} {truncated}");
}
