//! The table of all host calls: at least one telling case each.

use timecraft_engine::abi::{filetype, rights};
use timecraft_engine::{Call, Errno, Halt};

use crate::support::Case;

/// Little-endian fields in a row.
macro_rules! bytes {
    ($($field:expr),* $(,)?) => {{
        let mut bytes = Vec::new();
        $(bytes.extend_from_slice(&$field.to_le_bytes());)*
        bytes
    }};
}

fn iovecs(list: &[(u32, u32)]) -> Vec<u8> {
    list.iter().flat_map(|(ptr, len)| bytes![*ptr, *len]).collect()
}

fn fdstat(filetype: u8, flags: u16, base: u64, inheriting: u64) -> Vec<u8> {
    bytes![filetype, 0u8, flags, 0u32, base, inheriting]
}

fn filestat(ino: u64, filetype: u8, size: u64) -> Vec<u8> {
    let time: u64 = 1_700_000_000_123_456_789;
    bytes![2049u64, ino, u64::from(filetype), 1u64, size, time, time + 1, time + 2]
}

fn dirent(next: u64, ino: u64, filetype: u8, name: &[u8]) -> Vec<u8> {
    let mut entry = bytes![next, ino, name.len() as u32, u32::from(filetype)];
    entry.extend_from_slice(name);
    entry
}

fn clock_subscription(userdata: u64, clock: u32, timeout_ns: u64, flags: u16) -> Vec<u8> {
    bytes![userdata, 0u64, clock, 0u32, timeout_ns, 1u64, u64::from(flags)]
}

fn fd_subscription(userdata: u64, tag: u8, fd: u32) -> Vec<u8> {
    bytes![userdata, u64::from(tag), fd, 0u32, 0u64, 0u64, 0u64]
}

fn event(userdata: u64, errno: u16, tag: u8, nbytes: u64, flags: u16) -> Vec<u8> {
    bytes![userdata, errno, tag, 0u8, 0u32, nbytes, u64::from(flags)]
}

/// Where cases keep things in guest memory.
const LIST: u32 = 0x100;
const DATA: u32 = 0x1000;
const MORE: u32 = 0x2000;
const OUT: u32 = 0x8000;
const COUNT: u32 = 0x9000;

const L: u64 = LIST as u64;
const D: u64 = DATA as u64;
const M: u64 = MORE as u64;
const O: u64 = OUT as u64;
const C: u64 = COUNT as u64;

/// All calls, by their ids.
pub fn table() -> Vec<Case> {
    let mut cases = process();
    cases.extend(descriptors());
    cases.extend(transfers());
    cases.extend(paths());
    cases.extend(rest());
    cases.extend(sockets());
    cases.extend(addresses());
    // Stable: the cases of one call keep their order.
    cases.sort_by_key(|case| case.call);
    cases
}

fn process() -> Vec<Case> {
    vec![
        Case::new(Call::ArgsGet, &[O, D])
            .output(OUT, &bytes![DATA, DATA + 5, DATA + 8])
            .output(DATA, b"prog\0-v\0two words\0"),
        Case::new(Call::ArgsGet, &[u64::from(u32::MAX), 0]).fails(Errno::Fault),
        Case::new(Call::ArgsSizesGet, &[O, C]).output(OUT, &bytes![3u32]).output(COUNT, &bytes![18u32]),
        Case::new(Call::EnvironGet, &[O, D])
            .output(OUT, &bytes![DATA, DATA + 7])
            .output(DATA, b"HOME=/\0ESC=\x1b[2J\0"),
        Case::new(Call::EnvironGet, &[O, D]),
        Case::new(Call::EnvironSizesGet, &[O, C]).output(OUT, &bytes![2u32]).output(COUNT, &bytes![16u32]),
        Case::new(Call::ClockResGet, &[1, O]).output(OUT, &bytes![1u64]),
        Case::new(Call::ClockTimeGet, &[1, 1, O]).output(OUT, &bytes![12_345_678_901u64]),
        Case::new(Call::ClockTimeGet, &[0, 1_000, O]).output(OUT, &bytes![1_700_000_000_000_000_001u64]),
        Case::new(Call::ClockTimeGet, &[9, 1, O]).fails(Errno::Inval),
        Case::new(Call::ProcExit, &[3]).halts(Halt::Exit(3)),
        Case::new(Call::ProcRaise, &[16]),
        Case::new(Call::ProcRaise, &[99]).fails(Errno::Inval),
        Case::new(Call::SchedYield, &[]),
        Case::new(Call::RandomGet, &[D, 8]).output(DATA, &[0, 1, 2, 0x1b, 0x7f, 0x80, 0xff, b'7']),
        Case::new(Call::RandomGet, &[D, 0]),
    ]
}

fn descriptors() -> Vec<Case> {
    let base = rights::FD_READ | rights::FD_SEEK;
    vec![
        Case::new(Call::FdAdvise, &[4, 0, 4096, 1]),
        Case::new(Call::FdAdvise, &[4, u64::MAX, u64::MAX, 6]).fails(Errno::Inval),
        Case::new(Call::FdAllocate, &[4, 0, 1 << 40]).fails(Errno::Nospc),
        Case::new(Call::FdClose, &[4]),
        Case::new(Call::FdClose, &[u64::from(u32::MAX)]).fails(Errno::Badf),
        Case::new(Call::FdDatasync, &[4]),
        Case::new(Call::FdFdstatGet, &[4, O]).output(OUT, &fdstat(filetype::REGULAR_FILE, 5, base, 0)),
        Case::new(Call::FdFdstatGet, &[3, O])
            .output(OUT, &fdstat(filetype::DIRECTORY, 0, rights::ALL & !rights::SOCK_ACCEPT, rights::ALL)),
        Case::new(Call::FdFdstatSetFlags, &[4, 4]),
        Case::new(Call::FdFdstatSetRights, &[4, base, 0]),
        Case::new(Call::FdFilestatGet, &[4, O]).output(OUT, &filestat(77, filetype::REGULAR_FILE, 4096)),
        Case::new(Call::FdFilestatSetSize, &[4, 1 << 20]),
        Case::new(Call::FdFilestatSetTimes, &[4, 1_500_000_000, 0, 1 | 8]),
        Case::new(Call::FdPrestatGet, &[3, O]).output(OUT, &bytes![0u32, 4u32]),
        Case::new(Call::FdPrestatGet, &[5, O]).fails(Errno::Badf),
        Case::new(Call::FdPrestatDirName, &[3, D, 4]).output(DATA, b"/tmp"),
        Case::new(Call::FdReaddir, &[3, D, 84, 0, C])
            .output(
                DATA,
                &[
                    dirent(1, 7, filetype::DIRECTORY, b"."),
                    dirent(2, 8, filetype::REGULAR_FILE, b"new\nline"),
                    // Cut off by the end of the buffer, in its name.
                    dirent(3, 9, filetype::SYMBOLIC_LINK, b"a long name")[..27].to_vec(),
                ]
                .concat(),
            )
            .output(COUNT, &bytes![84u32]),
        Case::new(Call::FdRenumber, &[5, 4]),
        Case::new(Call::FdSeek, &[4, -16i64 as u64, 2, O]).output(OUT, &bytes![4080u64]),
        Case::new(Call::FdSync, &[4]).fails(Errno::Io),
        Case::new(Call::FdTell, &[4, O]).output(OUT, &bytes![u64::MAX]),
    ]
}

fn transfers() -> Vec<Case> {
    let big = [b'x'; 4096];
    vec![
        Case::new(Call::FdPread, &[4, L, 1, 512, C])
            .input(LIST, &iovecs(&[(DATA, 16)]))
            .output(DATA, b"at offset")
            .output(COUNT, &bytes![9u32]),
        Case::new(Call::FdPwrite, &[4, L, 1, 1 << 33, C])
            .input(LIST, &iovecs(&[(DATA, 3)]))
            .input(DATA, b"abc")
            .output(COUNT, &bytes![3u32]),
        Case::new(Call::FdRead, &[4, L, 1, C])
            .input(LIST, &iovecs(&[(DATA, 4096)]))
            .output(DATA, &big)
            .output(COUNT, &bytes![4096u32]),
        Case::new(Call::FdRead, &[0, L, 3, C])
            .input(LIST, &iovecs(&[(DATA, 4), (MORE, 8), (OUT, 8)]))
            .output(DATA, b"1234")
            .output(MORE, b"56\n")
            .output(COUNT, &bytes![7u32]),
        Case::new(Call::FdRead, &[0, L, 1, C]).input(LIST, &iovecs(&[(DATA, 4)])).output(COUNT, &bytes![0u32]),
        Case::new(Call::FdRead, &[9, L, 1, C]).fails(Errno::Badf),
        // A guest may have its buffers wherever it wants: here the data overwrite the list.
        Case::new(Call::FdRead, &[4, L, 1, C])
            .input(LIST, &iovecs(&[(LIST, 8)]))
            .output(LIST, b"overlap!")
            .output(COUNT, &bytes![8u32]),
        Case::new(Call::FdWrite, &[1, L, 1, C])
            .input(LIST, &iovecs(&[(DATA, 6)]))
            .input(DATA, b"hello\n")
            .output(COUNT, &bytes![6u32]),
        Case::new(Call::FdWrite, &[2, L, 3, C])
            .input(LIST, &iovecs(&[(DATA, 9), (MORE, 0), (MORE, 40)]))
            .input(DATA, b"\"quoted\"\t")
            .input(MORE, &[b'y'; 40])
            .output(COUNT, &bytes![20u32]),
        Case::new(Call::FdWrite, &[1, L, 1, C]).fails(Errno::Badf),
        Case::new(Call::SockRecv, &[5, L, 1, 1, C, O])
            .input(LIST, &iovecs(&[(DATA, 1024)]))
            .output(DATA, b"GET / HTTP/1.1\r\n\r\n")
            .output(COUNT, &bytes![18u32])
            .output(OUT, &bytes![1u16]),
        Case::new(Call::SockSend, &[5, L, 1, 0, C])
            .input(LIST, &iovecs(&[(DATA, 17)]))
            .input(DATA, b"HTTP/1.1 200 OK\r\n")
            .output(COUNT, &bytes![17u32]),
        Case::new(Call::SockSend, &[5, L, 0, 0x8000, C]).fails(Errno::Pipe),
    ]
}

fn paths() -> Vec<Case> {
    let long = [b'p'; 100];
    vec![
        Case::new(Call::PathCreateDirectory, &[3, D, 3]).input(DATA, b"dir"),
        Case::new(Call::PathFilestatGet, &[3, 1, D, 8, O])
            .input(DATA, b"dir/file")
            .output(OUT, &filestat(78, filetype::SYMBOLIC_LINK, 5)),
        Case::new(Call::PathFilestatGet, &[3, 0, D, 7, O]).input(DATA, b"missing").fails(Errno::Noent),
        Case::new(Call::PathFilestatSetTimes, &[3, 1, D, 4, 0, 1_000_000_001, 4 | 2]).input(DATA, b"file"),
        Case::new(Call::PathLink, &[3, 1, D, 3, 4, M, 3]).input(DATA, b"old").input(MORE, b"new").fails(Errno::Xdev),
        Case::new(Call::PathOpen, &[3, 1, D, 12, 9, rights::FD_READ | rights::FD_WRITE, 0, 0, O])
            .input(DATA, b"dir/file.txt")
            .output(OUT, &bytes![4u32]),
        Case::new(Call::PathOpen, &[3, 0, D, 13, 2, rights::ALL, rights::ALL, 4, O])
            .input(DATA, b"../etc/passwd")
            .fails(Errno::Perm),
        Case::new(Call::PathOpen, &[3, 0, D, 100, 0xfff0, 1 << 63, 0, 0x20, O]).input(DATA, &long).fails(Errno::Inval),
        Case::new(Call::PathReadlink, &[3, D, 4, M, 128, C])
            .input(DATA, b"link")
            .output(MORE, b"target")
            .output(COUNT, &bytes![6u32]),
        Case::new(Call::PathRemoveDirectory, &[3, D, 3]).input(DATA, b"dir").fails(Errno::Notempty),
        Case::new(Call::PathRename, &[3, D, 3, 3, M, 3]).input(DATA, b"old").input(MORE, b"new"),
        Case::new(Call::PathSymlink, &[D, 6, 3, M, 4]).input(DATA, b"target").input(MORE, b"link"),
        Case::new(Call::PathUnlinkFile, &[3, D, 5]).input(DATA, "naïf".as_bytes()).fails(Errno::Rofs),
    ]
}

fn rest() -> Vec<Case> {
    let subscriptions = [
        clock_subscription(1, 1, 100_000_000, 0),
        clock_subscription(2, 0, 1_700_000_000_500_000_000, 1),
        fd_subscription(0, 1, 0),
        fd_subscription(u64::MAX, 2, 1),
        fd_subscription(5, 9, 1),
    ]
    .concat();
    let events = [event(1, 0, 0, 0, 0), event(0, 0, 1, 4096, 1), event(u64::MAX, Errno::Badf as u16, 2, 0, 0)].concat();
    vec![
        Case::new(Call::PollOneoff, &[D, O, 5, C])
            .input(DATA, &subscriptions)
            .output(OUT, &events)
            .output(COUNT, &bytes![3u32]),
        Case::new(Call::PollOneoff, &[D, O, 0, C]).fails(Errno::Inval),
        Case::new(Call::SockAccept, &[3, 4, O]).output(OUT, &bytes![6u32]),
        Case::new(Call::SockAccept, &[3, 4, O]).fails(Errno::Again),
        Case::new(Call::SockShutdown, &[5, 3]),
    ]
}

/// `{buf, len}` at LIST, and the address at MORE.
fn address(case: Case, bytes: &[u8]) -> Case {
    case.input(LIST + 64, &bytes![MORE, bytes.len() as u32]).input(MORE, bytes)
}

fn tagged(family: u16, address: &[u8]) -> Vec<u8> {
    let mut bytes = bytes![family];
    bytes.extend_from_slice(address);
    bytes.resize(128, 0);
    bytes
}

/// The address that most cases name.
const A: u64 = L + 64;

fn sockets() -> Vec<Case> {
    let loopback6 = std::net::Ipv6Addr::LOCALHOST.octets();
    vec![
        Case::new(Call::SockOpen, &[1, 2, O]).output(OUT, &bytes![5u32]),
        Case::new(Call::SockOpen, &[2, 1, O]).fails(Errno::Mfile),
        Case::new(Call::SockOpen, &[7, 9, O]).fails(Errno::Afnosupport),
        address(Case::new(Call::SockBind, &[5, A, 8080]), &[127, 0, 0, 1]),
        address(Case::new(Call::SockBind, &[5, A, 0]), &tagged(3, b"/run/app.sock\0")).fails(Errno::Addrinuse),
        Case::new(Call::SockListen, &[5, 128]),
        address(Case::new(Call::SockConnect, &[5, A, 8080]), &[127, 0, 0, 1]).fails(Errno::Inprogress),
        address(Case::new(Call::SockConnect, &[5, A, 443]), &loopback6),
        Case::new(Call::SockConnect, &[5, A, 443]).fails(Errno::Badf),
        Case::new(Call::SockGetsockopt, &[5, 0, 2, O, 4]).output(OUT, &bytes![u32::from(Errno::Connrefused as u16)]),
        Case::new(Call::SockGetsockopt, &[5, 0, 9, O, C])
            .input(COUNT, &bytes![8u32])
            .output(OUT, &bytes![1u32, 30u32])
            .output(COUNT, &bytes![8u32]),
        Case::new(Call::SockGetsockopt, &[5, 6, 99, O, 4]).fails(Errno::Noprotoopt),
        Case::new(Call::SockSetsockopt, &[5, 0, 0, D, 4]).input(DATA, &bytes![1u32]),
        Case::new(Call::SockSetsockopt, &[5, 0x7469_6d65, 1, D, 11]).input(DATA, b"example.com"),
        Case::new(Call::SockSetsockopt, &[5, 6, 1, D, 4]).fails(Errno::Notsock),
        address(Case::new(Call::SockSendTo, &[5, L, 1, A, 53, 0, C]), &tagged(1, &[10, 0, 0, 1]))
            .input(LIST, &iovecs(&[(DATA, 5)]))
            .input(DATA, b"query")
            .output(COUNT, &bytes![5u32]),
        address(Case::new(Call::SockSendTo, &[5, L, 2, A, 53, 0, C]), &tagged(2, &loopback6))
            .input(LIST, &iovecs(&[(DATA, 80), (DATA + 80, 20)]))
            .input(DATA, &[b'q'; 80])
            .input(DATA + 80, &[b'r'; 20])
            .output(COUNT, &bytes![100u32]),
        Case::new(Call::SockAcceptV1, &[5, O]).output(OUT, &bytes![6u32]),
        Case::new(Call::SockRecvFromV1, &[5, L, 1, A, 0, C, O])
            .input(LIST, &iovecs(&[(DATA, 64)]))
            .input(LIST + 64, &bytes![MORE, 16u32])
            .output(DATA, b"answer")
            .output(MORE, &[10, 0, 0, 1])
            .output(COUNT, &bytes![6u32])
            .output(OUT, &bytes![0u16]),
        Case::new(Call::SockRecvFrom, &[5, L, 1, A, 0, O + 8, C, O])
            .input(LIST, &iovecs(&[(DATA, 4)]))
            .input(LIST + 64, &bytes![MORE, 128u32])
            .output(DATA, b"answ")
            .output(MORE, &tagged(2, &loopback6)[..18])
            .output(OUT + 8, &bytes![53u32])
            .output(COUNT, &bytes![4u32])
            .output(OUT, &bytes![1u16]),
        Case::new(Call::SockRecvFrom, &[5, L, 1, A, 0, O + 8, C, O]).fails(Errno::Again),
    ]
}

fn addresses() -> Vec<Case> {
    let hints = bytes![0u16, 1u8, 2u8, 1u32, 0u32, 0u32, 0u32, 0u32, 0u32];
    let info = |next: u32| bytes![0u16, 1u8, 2u8, 1u32, 12u32, OUT + 64, 0u32, 0u32, next];
    vec![
        Case::new(Call::SockGetaddrinfo, &[D, 10, M, 3, L, O, 8, C])
            .input(DATA, b"localhost\0")
            .input(MORE, b"80\0")
            .input(LIST, &hints)
            .input(OUT, &bytes![OUT + 16])
            .input(OUT + 16, &info(0))
            .input(OUT + 64, &bytes![0u32, 26u32, OUT + 96])
            .output(OUT + 96, &[0, 80, 127, 0, 0, 1])
            .output(OUT + 64, &bytes![1u32, 6u32, OUT + 96])
            .output(OUT + 16, &info(0))
            .output(COUNT, &bytes![1u32]),
        Case::new(Call::SockGetaddrinfo, &[D, 7, M, 0, 0, O, 8, C]).input(DATA, b"no.such").fails(Errno::Noent),
        Case::new(Call::SockGetlocaladdrV1, &[5, A, O, C])
            .input(LIST + 64, &bytes![MORE, 16u32])
            .output(MORE, &[127, 0, 0, 1])
            .output(OUT, &bytes![4u32])
            .output(COUNT, &bytes![8080u32]),
        Case::new(Call::SockGetpeeraddrV1, &[5, A, O, C]).fails(Errno::Notconn),
        Case::new(Call::SockGetlocaladdr, &[5, A, C])
            .input(LIST + 64, &bytes![MORE, 128u32])
            .output(MORE, &tagged(1, &[127, 0, 0, 1])[..6])
            .output(COUNT, &bytes![8080u32]),
        Case::new(Call::SockGetpeeraddr, &[5, A, C])
            .input(LIST + 64, &bytes![MORE, 128u32])
            .output(MORE, b"\x03\0/run/app.sock\0")
            .output(COUNT, &bytes![0u32]),
    ]
}
