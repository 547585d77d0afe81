//! What this process's own descriptors have to do with a guest's sockets. In a process of its own, as it counts them.

use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use timecraft_engine::host::{Host, HostConfig};
use timecraft_engine::memory::Notes;
use timecraft_engine::network::{Address, Answer, Connection, Dial, Listen, Listening, Network, Resolve, Ticket};
use timecraft_engine::{Call, Errno, KillSwitch, Memory, System as _};

const INET4: u64 = 1;
const DGRAM: u64 = 1;
const STREAM: u64 = 2;
/// Where a guest's memory holds an address, a list of one buffer of 64 bytes, and results.
const ADDRESS: u64 = 0x50;
const LIST: u64 = 0x60;
const ROOM: u64 = 0x70;
const OUT: u64 = 0x100;
const DATA: usize = 0x200;

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_descriptors() -> usize {
    // The directory itself is one.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Gives each who dials the next of the sockets, and answers nothing else.
#[derive(Clone, Default)]
struct Sockets(Arc<Mutex<Vec<std::os::fd::OwnedFd>>>);

impl Network for Sockets {
    fn dial(&mut self, dial: Dial) -> Ticket {
        let local = Address::Inet(([10, 1, 2, 3], 5000).into());
        match self.0.lock().unwrap().pop() {
            Some(socket) => {
                let connection = Connection { socket, local, peer: Address::Inet(dial.to) };
                Ticket::answered(Ok(Answer::Connected(connection)))
            }
            None => Ticket::new(None).map_or_else(|_| Ticket::answered(Err(Errno::Mfile)), |(ticket, _)| ticket),
        }
    }

    fn listen(&mut self, _: Listen) -> Ticket {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Ticket::answered(Ok(Answer::Listening(Listening::Kernel(listener.into()))))
    }

    fn resolve(&mut self, _: Resolve) -> Ticket {
        Ticket::answered(Err(Errno::Noent))
    }
}

struct Guest {
    host: Host,
    memory: Vec<u8>,
}

impl Guest {
    fn new(network: &Sockets) -> Self {
        let config = HostConfig { network: Box::new(network.clone()), ..HostConfig::default() };
        let mut memory = vec![0; 1 << 16];
        memory[0x40..0x44].copy_from_slice(&[10, 0, 0, 1]);
        memory[0x50..0x58].copy_from_slice(&[0x40, 0, 0, 0, 4, 0, 0, 0]);
        memory[0x60..0x68].copy_from_slice(&[0, 2, 0, 0, 64, 0, 0, 0]);
        memory[0x70..0x78].copy_from_slice(&[0, 3, 0, 0, 128, 0, 0, 0]);
        Guest { host: Host::new(config, Arc::new(KillSwitch::new().unwrap())).unwrap(), memory }
    }

    fn call(&mut self, call: Call, args: &[u64]) -> Errno {
        self.host.call(call, args, &mut Memory::new(&mut self.memory, &mut Notes::default())).unwrap()
    }

    fn result(&self) -> u64 {
        u64::from(u32::from_le_bytes(self.memory[OUT as usize..OUT as usize + 4].try_into().unwrap()))
    }

    fn address(&mut self, ip: [u8; 4]) {
        self.memory[0x40..0x44].copy_from_slice(&ip);
    }

    fn socket(&mut self, kind: u64) -> Result<u64, Errno> {
        match self.call(Call::SockOpen, &[INET4, kind, OUT]) {
            Errno::Success => {
                let fd = self.result();
                assert_eq!(self.call(Call::FdFdstatSetFlags, &[fd, 4]), Errno::Success);
                Ok(fd)
            }
            errno => Err(errno),
        }
    }

    /// What each call that receives gets, in turn.
    fn receive(&mut self, fd: u64, turn: usize) -> Vec<u8> {
        let (call, args): (Call, &[u64]) = match turn % 4 {
            0 => (Call::FdRead, &[fd, LIST, 1, OUT]),
            1 => (Call::SockRecv, &[fd, LIST, 1, 1, OUT, OUT + 8]),
            2 => (Call::SockRecv, &[fd, LIST, 1, 0, OUT, OUT + 8]),
            _ => (Call::SockRecvFrom, &[fd, LIST, 1, ROOM, 0, OUT + 4, OUT, OUT + 8]),
        };
        assert_eq!(self.call(call, args), Errno::Success);
        self.memory[DATA..DATA + self.result() as usize].to_vec()
    }
}

/// Sends bytes, and with them a descriptor.
fn send_with_descriptor(socket: impl std::os::fd::AsFd, bytes: &[u8], descriptor: impl std::os::fd::AsFd) {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn descriptors_that_a_peer_sends_do_not_enter() {
    let _alone = alone();
    let network = Sockets::default();
    let (stream, far_stream) = UnixStream::pair().unwrap();
    let (datagrams, far_datagrams) = UnixDatagram::pair().unwrap();
    network.0.lock().unwrap().extend([datagrams.into(), stream.into()]);
    let mut guest = Guest::new(&network);
    let (connection, flow) = (guest.socket(STREAM).unwrap(), guest.socket(DGRAM).unwrap());
    for fd in [connection, flow] {
        assert_eq!(guest.call(Call::SockConnect, &[fd, ADDRESS, 80]), Errno::Success);
    }
    let before = open_descriptors();
    for turn in 0..8 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        if turn < 4 {
            send_with_descriptor(&far_stream, b"bytes", &writer);
        } else {
            send_with_descriptor(&far_datagrams, b"bytes", &writer);
        }
        drop(writer);
        assert_eq!(guest.receive(if turn < 4 { connection } else { flow }, turn), b"bytes");
        if turn % 4 == 1 {
            // That was a peek: the message is still there.
            assert_eq!(guest.receive(if turn < 4 { connection } else { flow }, 0), b"bytes");
        }
        // Nobody holds the other end any more.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        drop(reader);
        assert_eq!(open_descriptors(), before, "turn {turn}");
    }
    assert_eq!(guest.host.descriptors().len(), 3 + 2);
    (&far_stream).write_all(b"as ever").unwrap();
    assert_eq!(guest.receive(connection, 0), b"as ever");
}

#[test]
fn what_a_guest_closes_is_closed() {
    let _alone = alone();
    let before = open_descriptors();
    let network = Sockets::default();
    let mut guest = Guest::new(&network);
    let empty = open_descriptors();
    for round in 0..3 {
        let mut open = Vec::new();
        let listener = guest.socket(STREAM).unwrap();
        guest.address([0, 0, 0, 0]);
        assert_eq!(guest.call(Call::SockBind, &[listener, ADDRESS, 80]), Errno::Success);
        assert_eq!(guest.call(Call::SockListen, &[listener, 4]), Errno::Success);
        guest.address([127, 0, 0, 1]);
        for _ in 0..8 {
            // Half of them wait beyond the backlog, and two are accepted.
            let client = guest.socket(STREAM).unwrap();
            guest.call(Call::SockConnect, &[client, ADDRESS, 80]);
            open.push(client);
        }
        for _ in 0..2 {
            assert_eq!(guest.call(Call::SockAccept, &[listener, 4, OUT]), Errno::Success);
            open.push(guest.result());
        }
        let datagrams = guest.socket(DGRAM).unwrap();
        assert_eq!(guest.call(Call::SockSendTo, &[datagrams, LIST, 1, ADDRESS, 53, 0, OUT]), Errno::Success);
        guest.address([10, 0, 0, 1]);
        assert_eq!(guest.call(Call::SockSendTo, &[datagrams, LIST, 1, ADDRESS, 53, 0, OUT]), Errno::Connaborted);
        let (near, far) = UnixStream::pair().unwrap();
        network.0.lock().unwrap().push(near.into());
        for expected in [Errno::Success, Errno::Connaborted] {
            let client = guest.socket(STREAM).unwrap();
            assert_eq!(guest.call(Call::SockConnect, &[client, ADDRESS, 80]), expected);
            open.push(client);
        }
        drop(far);
        open.extend([listener, datagrams]);
        assert!(open_descriptors() > empty + 10);
        if round == 2 {
            break;
        }
        for fd in open {
            assert_eq!(guest.call(Call::FdClose, &[fd]), Errno::Success);
        }
        assert_eq!(open_descriptors(), empty, "round {round}");
    }
    drop(guest);
    assert_eq!(open_descriptors(), before, "what it doesn't close goes with it");
}

#[test]
fn a_guest_is_told_when_this_process_has_no_descriptors_left() {
    let _alone = alone();
    let network = Sockets::default();
    let mut guest = Guest::new(&network);
    guest.address([127, 0, 0, 1]);
    let listener = guest.socket(STREAM).unwrap();
    assert_eq!(guest.call(Call::SockBind, &[listener, ADDRESS, 80]), Errno::Success);
    assert_eq!(guest.call(Call::SockListen, &[listener, 64]), Errno::Success);
    let (client, late) = (guest.socket(STREAM).unwrap(), guest.socket(STREAM).unwrap());
    assert_eq!(guest.call(Call::SockConnect, &[client, ADDRESS, 80]), Errno::Success);
    assert_eq!(guest.call(Call::SockAccept, &[listener, 4, OUT]), Errno::Success);
    let server = guest.result();
    let limits = getrlimit(Resource::Nofile);
    // The lowest free number is the next one: that many are taken, or less.
    let next = std::fs::File::open("/dev/null").unwrap();
    let next = u64::from(std::os::fd::AsRawFd::as_raw_fd(&next).unsigned_abs());
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..limits }).unwrap();
    let errors = [
        guest.socket(DGRAM).unwrap_err(),
        guest.call(Call::SockConnect, &[late, ADDRESS, 80]),
        guest.call(Call::SockListen, &[late, 1]),
    ];
    let (sent, received) = (guest.call(Call::FdWrite, &[client, LIST, 1, OUT]), guest.receive(server, 0).len());
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(errors, [Errno::Mfile; 3]);
    assert_eq!((sent, received), (Errno::Success, 64), "what there is goes on");
    assert!(guest.socket(DGRAM).is_ok());
    assert_eq!(guest.call(Call::SockConnect, &[late, ADDRESS, 80]), Errno::Success, "as if nothing had been");
}
