//! Pointers, lengths and flags that no honest guest passes: an error, no panic, no effect.

use super::calls::{valid, world};
use super::*;
use crate::calls::{CALLS, Kind};

const FAR: u64 = 0xffff_fff0;

fn is_pointer(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Fd
            | Kind::U32
            | Kind::U64
            | Kind::I64
            | Kind::Time
            | Kind::Clock
            | Kind::Whence
            | Kind::Advice
            | Kind::Signal
            | Kind::OpenFlags
            | Kind::LookupFlags
            | Kind::FdFlags
            | Kind::FstFlags
            | Kind::Rights
            | Kind::SocketFlags
            | Kind::Family
            | Kind::SocketType
            | Kind::OptionLevel
            | Kind::OptionName
            | Kind::ExitCode
    )
}

/// Positions of pointers among a call's arguments.
fn pointers(call: Call) -> Vec<usize> {
    let mut at = 0;
    let mut found = Vec::new();
    for param in call.spec().params {
        if is_pointer(param.kind) {
            found.push(at);
        }
        at += param.kind.types().len();
    }
    found
}

fn refused(call: Call, change: impl Fn(&mut Guest, &mut Vec<u64>)) {
    let mut world = world();
    let mut args = valid(call, &mut world.guest);
    change(&mut world.guest, &mut args);
    let before = (world.snapshot(), world.guest.host.descriptors(), world.guest.memory.clone());
    let errno = world.guest.call(call, &args);
    assert_ne!(errno, Errno::Success, "{} {args:x?}", call.name());
    let after = (world.snapshot(), world.guest.host.descriptors(), world.guest.memory.clone());
    assert!(before == after, "{} had an effect: {args:x?} {errno:?}", call.name());
    assert_eq!(world.guest.seek(5, 0, 1), Ok(0), "{} moved the file's position", call.name());
}

#[test]
fn pointers_out_of_bounds_have_no_effect() {
    for spec in CALLS {
        for at in pointers(spec.call) {
            for bad in [FAR, u64::from(u32::MAX), MEMORY_BYTES as u64 + 1, MEMORY_BYTES as u64 - 1] {
                // One byte before the end is a valid place for a path of one byte only; none here is that short.
                refused(spec.call, |_, args| args[at] = bad);
            }
        }
    }
}

#[test]
fn lengths_out_of_bounds_have_no_effect() {
    for spec in CALLS {
        let mut at = 0;
        for param in spec.params {
            if matches!(param.kind, Kind::Path | Kind::IovecsIn | Kind::IovecsOut | Kind::Buffer) {
                for bad in [u64::from(u32::MAX), 0x8000_0000, MEMORY_BYTES as u64 + 1] {
                    refused(spec.call, |_, args| args[at + 1] = bad);
                }
            }
            at += param.kind.types().len();
        }
    }
}

#[test]
fn one_bad_buffer_in_a_list_spoils_all() {
    let far = |at: u64, len| (at, len);
    for call in [Call::FdRead, Call::FdPread, Call::FdWrite, Call::FdPwrite] {
        for bad in [far(FAR, 0x100), far(0, u64::from(u32::MAX)), far(FAR, 0), far(MEMORY_BYTES as u64 - 1, 2)] {
            refused(call, |guest, args| {
                let (list, count) = guest.iovecs(&[(BUFFER.into(), 4), bad]);
                (args[1], args[2]) = (list, count);
            });
        }
    }
}

#[test]
fn a_buffer_beyond_the_cut_is_still_checked() {
    let mut world = World::new();
    let fd = world.guest.create(RW, "new").unwrap();
    let half = (0, MEMORY_BYTES as u64);
    let (list, count) = world.guest.iovecs(&[half, half, half, half, half, (FAR, 100)]);
    assert_eq!(world.guest.call(Call::FdWrite, &[fd, list, count, OUT.into()]), Errno::Fault);
    let (list, count) = world.guest.iovecs(&[half, half, half, half, half]);
    assert_eq!(world.guest.call(Call::FdWrite, &[fd, list, count, OUT.into()]), Errno::Success);
    assert_eq!(world.guest.u32(OUT), 1 << 20);
}

#[test]
fn unknown_flags_are_refused() {
    for (call, at, bad) in [
        (Call::PathOpen, 1, 2),
        (Call::PathOpen, 4, 16),
        (Call::PathOpen, 4, 0x1_0001),
        (Call::PathOpen, 7, 32),
        (Call::PathOpen, 7, 0x1_0000),
        (Call::PathFilestatGet, 1, 2),
        (Call::PathFilestatSetTimes, 1, 0x8000_0000),
        (Call::PathFilestatSetTimes, 6, 16),
        (Call::PathLink, 1, 1),
        (Call::FdFdstatSetFlags, 1, 32),
        (Call::FdFdstatSetFlags, 1, 0xffff_0000),
        (Call::FdFilestatSetTimes, 3, 3),
        (Call::FdFilestatSetTimes, 3, 12),
        (Call::FdAdvise, 3, 6),
        (Call::FdSeek, 2, 3),
        (Call::FdSeek, 2, 256),
        (Call::FdSeek, 1, u64::MAX),
        (Call::FdFilestatSetSize, 1, u64::MAX),
        (Call::FdAllocate, 2, 0),
        (Call::FdAllocate, 2, u64::MAX),
        (Call::FdAllocate, 1, i64::MAX as u64),
        (Call::FdPread, 3, u64::MAX),
        (Call::FdPwrite, 3, 1 << 63),
    ] {
        refused(call, |_, args| args[at] = bad);
    }
}

#[test]
fn sizes_that_would_keep_the_host_busy_are_refused() {
    let mut world = World::new();
    let guest = &mut world.guest;
    guest.memory.resize(4 << 20, POISON);
    assert_eq!(guest.call(Call::RandomGet, &[0, (1 << 20) + 1]), Errno::Inval);
    assert_eq!(guest.call(Call::RandomGet, &[BUFFER.into(), 1 << 20]), Errno::Success);
    assert_eq!(guest.call(Call::FdRead, &[0, 0, 1025, OUT.into()]), Errno::Inval);
    assert_eq!(guest.call(Call::PollOneoff, &[0, 1 << 20, 0, OUT.into()]), Errno::Inval);
    assert_eq!(guest.call(Call::PollOneoff, &[0, 1 << 20, 16_385, OUT.into()]), Errno::Inval);
    assert_eq!(guest.call(Call::PollOneoff, &[0, 1 << 20, 1_000_000, OUT.into()]), Errno::Inval);
    let long = vec![b'a'; 1 << 20];
    guest.memory[1 << 20..2 << 20].copy_from_slice(&long);
    let (ptr, len) = (1u64 << 20, 1u64 << 20);
    assert_eq!(guest.call(Call::PathCreateDirectory, &[RW, ptr, len]), Errno::Nametoolong);
    assert_eq!(guest.call(Call::PathCreateDirectory, &[RW, ptr, 4097]), Errno::Nametoolong);
    assert_eq!(guest.call(Call::PathCreateDirectory, &[RW, ptr, 4095]), Errno::Nametoolong);
    assert_eq!(guest.call(Call::PathCreateDirectory, &[RW, ptr, 255]), Errno::Success);
}

#[test]
fn results_may_overlap_inputs() {
    let mut world = World::new();
    let guest = &mut world.guest;
    let fd = guest.open(RW, "file").unwrap();
    // The data lands on its own list of buffers, and the count on the data.
    let (list, count) = guest.iovecs(&[(0, 0)]);
    let (iovec, _) = guest.iovecs(&[(list, 8)]);
    guest.memory.copy_within(iovec as usize..iovec as usize + 8, list as usize);
    assert_eq!(guest.call(Call::FdRead, &[fd, list, count, list + 4]), Errno::Success);
    assert_eq!(&guest.memory[list as usize..list as usize + 8], b"this\x08\0\0\0");
    // Events land on their own subscriptions.
    let mut two = [0u8; 96];
    (two[0], two[16], two[48], two[64]) = (7, 1, 9, 1);
    let (ptr, _) = guest.put(&two);
    assert_eq!(guest.call(Call::PollOneoff, &[ptr, ptr, 2, OUT.into()]), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.u64(ptr as u32), guest.u64(ptr as u32 + 32)), (2, 7, 9));
}
