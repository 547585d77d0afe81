//! Standard streams: pipes, terminals, sockets, files; and guests that wait on them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;

use super::*;
use crate::Kill;
use crate::abi::filetype;

fn nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn pipes_carry_bytes_and_have_no_position() {
    let (mut guest, mut writer) = with_stdin();
    writer.write_all(b"input").unwrap();
    assert_eq!(guest.read(0, 3), Ok(b"inp".to_vec()));
    assert_eq!(guest.read(0, 100), Ok(b"ut".to_vec()));
    drop(writer);
    assert_eq!(guest.read(0, 100), Ok(vec![]));
    assert_eq!(guest.seek(0, 0, 0), Err(Errno::Spipe));
    assert_eq!(guest.call(Call::FdTell, &[0, OUT.into()]), Errno::Spipe);
    assert_eq!(guest.call(Call::FdAdvise, &[0, 0, 0, 0]), Errno::Spipe);
    assert_eq!(guest.write(0, b"x"), Err(Errno::Badf));

    let (mut guest, mut reader) = with_stdout();
    assert_eq!(guest.write(1, b"output"), Ok(6));
    let mut bytes = [0; 6];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"output");
    drop(reader);
    assert_eq!(guest.write(1, b"x"), Err(Errno::Pipe));
    assert_eq!(guest.read(1, 1), Err(Errno::Badf));
}

#[test]
fn a_shared_description_stays_blocking() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let ours: OwnedFd = reader.try_clone().unwrap().into();
    let mut guest = Guest::new(HostConfig { stdin: Stdio::Descriptor(reader.into()), ..HostConfig::default() });
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[0, fdflags::NONBLOCK.into()]), Errno::Success);
    assert_eq!(guest.read(0, 1), Err(Errno::Again));
    assert!(!nonblocking(&ours), "O_NONBLOCK was set on a description that others share");
}

#[test]
fn a_full_pipe_takes_what_it_can() {
    let (mut guest, mut reader) = with_stdout();
    let all = vec![7; 0x1_0000];
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[1, fdflags::NONBLOCK.into()]), Errno::Success);
    let mut written = 0;
    let error = loop {
        match guest.write(1, &all) {
            Ok(count) => written += count as usize,
            Err(errno) => break errno,
        }
    };
    assert_eq!(error, Errno::Again);
    let mut drained = vec![0; written];
    reader.read_exact(&mut drained).unwrap();
    assert_eq!(guest.write(1, b"x"), Ok(1));
}

#[test]
fn a_guest_that_waits_can_be_killed() {
    let reason = Kill::Limit("wall time of 1 s".into());
    let (mut reads, _writer) = with_stdin();
    let kill = Arc::clone(&reads.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| kill.request(reason.clone()));
        let (list, count) = reads.iovecs(&[(BUFFER.into(), 10)]);
        let done = reads.try_call(Call::FdRead, &[0, list, count, OUT.into()]);
        assert_eq!(done, Err(Halt::Killed(reason.clone())));
    });
    let (mut writes, _reader) = with_stdout();
    let kill = Arc::clone(&writes.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            kill.request(Kill::Signal(9));
        });
        let data = writes.put(&vec![0; 0x8000]);
        let (list, count) = writes.iovecs(&[data]);
        let halt = loop {
            if let Err(halt) = writes.try_call(Call::FdWrite, &[1, list, count, OUT.into()]) {
                break halt;
            }
        };
        assert_eq!(halt, Halt::Killed(Kill::Signal(9)));
    });
}

#[test]
fn a_guest_that_waits_for_input_can_be_interrupted() {
    let (mut guest, mut writer) = with_stdin();
    let kill = Arc::clone(&guest.kill);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(kill.interrupt()));
        assert_eq!(guest.read(0, 10), Err(Errno::Intr));
    });
    writer.write_all(b"x").unwrap();
    assert_eq!(guest.read(0, 10), Ok(b"x".to_vec()));
    assert_eq!(guest.call(Call::SchedYield, &[]), Errno::Intr);
}

/// A terminal's other end, and its name; nothing where the system has no terminals.
#[allow(unsafe_code)]
fn pseudo_terminal() -> Option<(OwnedFd, String)> {
    use rustix::ioctl::{Getter, Setter, ioctl};
    const TIOCSPTLCK: u32 = 0x4004_5431;
    const TIOCGPTN: u32 = 0x8004_5430;
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = rustix::fs::open("/dev/ptmx", flags, rustix::fs::Mode::empty()).ok()?;
    // SAFETY: these requests read and write one int each, which is what they are given.
    let number = unsafe {
        ioctl(&master, Setter::<TIOCSPTLCK, i32>::new(0)).ok()?;
        ioctl(&master, Getter::<TIOCGPTN, u32>::new()).ok()?
    };
    Some((master, format!("/dev/pts/{number}")))
}

#[test]
fn a_terminal_is_one() {
    let Some((master, name)) = pseudo_terminal() else { return };
    let open = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap();
    let (stdin, stdout) = (open(), open());
    let mut guest = Guest::new(HostConfig {
        stdin: Stdio::Descriptor(stdin),
        stdout: Stdio::Descriptor(stdout),
        ..HostConfig::default()
    });
    for info in &guest.host.descriptors()[..2] {
        assert_eq!(info.filetype, filetype::CHARACTER_DEVICE);
        assert_eq!(info.rights_base & (rights::FD_SEEK | rights::FD_TELL), 0);
    }
    assert_eq!(guest.seek(1, 0, 1), Err(Errno::Spipe));
    let mut terminal = std::fs::File::from(master);
    terminal.write_all(b"typed\n").unwrap();
    assert_eq!(guest.read(0, 100), Ok(b"typed\n".to_vec()));
    assert_eq!(guest.write(1, b"shown"), Ok(5));
    // The null device is a character device too, but no terminal.
    assert_ne!(guest.host.descriptors()[2].rights_base & rights::FD_SEEK, 0);
}

#[test]
fn a_file_may_be_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in"), "0123456789").unwrap();
    let stdin = std::fs::File::open(folder.path().join("in")).unwrap();
    let mut guest = Guest::new(HostConfig { stdin: Stdio::Descriptor(stdin.into()), ..HostConfig::default() });
    assert_eq!(guest.host.descriptors()[0].filetype, filetype::REGULAR_FILE);
    assert_eq!(guest.seek(0, 5, 0), Ok(5));
    assert_eq!(guest.read(0, 100), Ok(b"56789".to_vec()));
    assert_eq!(guest.call(Call::FdFilestatGet, &[0, OUT.into()]), Errno::Success);
    assert_eq!(guest.u64(OUT + 32), 10);
    assert_eq!(guest.call(Call::FdFilestatSetSize, &[0, 0]), Errno::Badf);
}

#[test]
fn a_socket_may_be_a_stream() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let shared: OwnedFd = theirs.try_clone().unwrap().into();
    let config = HostConfig { stdin: Stdio::Descriptor(shared), ..HostConfig::default() };
    let mut guest = Guest::new(config);
    (&ours).write_all(b"hello").unwrap();
    let (list, count) = guest.iovecs(&[(BUFFER.into(), 2), (u64::from(BUFFER) + 2, 100)]);
    let receive = |flags| [0, list, count, flags, OUT.into(), OUT2.into()];
    assert_eq!(guest.call(Call::SockRecv, &receive(1)), Errno::Success);
    assert_eq!((guest.u32(OUT), guest.buffer(5)), (5, b"hello".as_slice()), "peeked");
    assert_eq!(guest.call(Call::SockRecv, &receive(2)), Errno::Notsup);
    assert_eq!(guest.call(Call::SockRecv, &receive(4)), Errno::Inval);
    assert_eq!(guest.read(0, 100), Ok(b"hello".to_vec()));
    assert_eq!(guest.call(Call::FdFdstatSetFlags, &[0, fdflags::NONBLOCK.into()]), Errno::Success);
    assert_eq!(guest.call(Call::SockRecv, &receive(0)), Errno::Again);
    assert_eq!(guest.call(Call::SockSend, &[0, list, count, 0, OUT.into()]), Errno::Notcapable, "for reading only");
    assert_eq!(guest.call(Call::SockShutdown, &[0, 4]), Errno::Inval);
    assert_eq!(guest.call(Call::SockShutdown, &[0, 3]), Errno::Success);
    assert_eq!(guest.read(0, 100), Ok(vec![]));
    assert!(!nonblocking(&theirs));
}
