//! Datagrams between guests: flows through sockets that keep messages apart.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::outside::{Asked, Scripted, bound, connection, networked};
use super::*;

const US: &str = "10.1.2.3:53";

/// A flow: our end, and the other's.
fn flow() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// A guest's socket that others can reach at port 53.
fn reachable(guest: &mut Guest, network: &Scripted) -> (u64, Arc<Arrivals>) {
    let fd = guest.socket(INET4, DGRAM);
    guest.nonblock(fd);
    guest.bind(fd, &[0, 0, 0, 0], 53).unwrap();
    let (asked, promise) = network.take();
    assert!(matches!(asked, Asked::Listen(Listen { transport: Transport::Datagram, at, .. }) if at.port() == 53));
    let (answer, arrivals) = bound(None);
    promise.complete(Ok(Answer::Bound(answer)));
    (fd, arrivals)
}

/// Another guest opens a flow from its port; the other end.
fn arrive(arrivals: &Arrivals, from: &str) -> OwnedFd {
    let (ours, theirs) = flow();
    arrivals.push(connection(ours, US, from)).unwrap();
    theirs
}

fn hear(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = [0; 100];
    let (count, _) = recv(socket, &mut bytes, RecvFlags::DONTWAIT).unwrap();
    bytes[..count].to_vec()
}

fn tell(socket: &OwnedFd, bytes: &[u8]) {
    send(socket, &[&[0], bytes].concat(), SendFlags::DONTWAIT).unwrap();
}

#[test]
fn other_guests_are_heard_and_answered() {
    let (mut guest, network) = networked();
    let (fd, arrivals) = reachable(&mut guest, &network);
    let [one, two] = ["10.1.2.4:5000", "10.1.2.5:5000"].map(|from| arrive(&arrivals, from));
    assert_eq!(guest.ready(fd, READ), None, "a flow is no datagram");
    tell(&one, b"hello");
    tell(&one, b"");
    tell(&two, b"good day");
    assert_eq!(guest.ready(fd, READ), Some((5, 0)));
    assert_eq!(guest.receive_from(fd, 9), Ok((b"hello".to_vec(), 5000)));
    assert_eq!(guest.receive_from(fd, 4), Ok((b"good".to_vec(), 5000)), "each has its turn");
    assert_eq!(guest.u32(OUT2) as u16, 1, "truncated");
    assert_eq!(guest.receive_from(fd, 9), Ok((vec![], 5000)), "an empty one is one");
    assert_eq!(guest.receive_from(fd, 9), Err(Errno::Again));
    assert_eq!(guest.send_to(fd, b"to two", &[10, 1, 2, 5], 5000), Ok(6));
    assert_eq!(guest.send_to(fd, b"", &[10, 1, 2, 4], 5000), Ok(0));
    assert_eq!((hear(&two), hear(&one)), (b"\0to two".to_vec(), vec![0]));
}

#[test]
fn the_end_of_a_flow_is_nothing_to_the_guest() {
    let (mut guest, network) = networked();
    let (fd, arrivals) = reachable(&mut guest, &network);
    let one = arrive(&arrivals, "10.1.2.4:5000");
    tell(&one, b"last");
    drop(one);
    assert_eq!(guest.ready(fd, READ), Some((4, 0)));
    assert_eq!(guest.receive_from(fd, 9), Ok((b"last".to_vec(), 5000)));
    assert_eq!(guest.ready(fd, READ), None);
    // A peer that closes what it hasn't read.
    let one = arrive(&arrivals, "10.1.2.4:5000");
    assert_eq!(guest.ready(fd, READ), None);
    assert_eq!(guest.send_to(fd, b"unread", &[10, 1, 2, 4], 5000), Ok(6));
    tell(&one, b"last");
    drop(one);
    assert_eq!(guest.receive_from(fd, 9), Ok((b"last".to_vec(), 5000)));
    assert_eq!(guest.receive_from(fd, 9), Err(Errno::Again));
    // A flow that was used and has ended is dialled anew: somebody may be there again.
    assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 4], 5000), Err(Errno::Again));
    let (asked, promise) = network.take();
    assert!(matches!(asked, Asked::Dial(Dial { from: Some(from), .. }) if from.port() == 53));
    promise.complete(Err(Errno::Acces));
    assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 4], 5000), Ok(1), "who has called and gone makes no error");
    for (errno, seen) in [(Errno::Connrefused, Ok(1)), (Errno::Hostunreach, Ok(1)), (Errno::Acces, Err(Errno::Acces))] {
        assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 9], 5000), Err(Errno::Again));
        network.take().1.complete(Err(errno));
        assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 9], 5000), seen, "{errno:?}");
    }
    assert_eq!(guest.error(fd), 0);
    assert_eq!(guest.close(fd), Errno::Success);
    assert!(arrivals.is_closed());
}

#[test]
fn who_does_not_read_loses_datagrams_and_who_refuses_a_flow_all() {
    let (mut guest, network) = networked();
    for is_refused in [true, false] {
        let fd = guest.socket(INET4, DGRAM);
        guest.nonblock(fd);
        assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 4], 53), Err(Errno::Again));
        let (ours, theirs) = flow();
        network.take().1.complete(Ok(Answer::Connected(connection(ours, "10.1.2.3:49152", "10.1.2.4:53"))));
        let theirs = (!is_refused).then_some(theirs);
        assert_eq!(guest.send_to(fd, b"x", &[10, 1, 2, 4], 53), Ok(1));
        if let Some(theirs) = theirs {
            for _ in 0..5000 {
                assert_eq!(guest.send_to(fd, &[7; 1000], &[10, 1, 2, 4], 53), Ok(1000));
            }
            let mut kept = 0;
            while recv(&theirs, &mut [0; 2000], RecvFlags::DONTWAIT).is_ok() {
                kept += 1;
            }
            assert!((2..1000).contains(&kept), "{kept}");
        }
    }
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let (mut guest, network) = networked();
    let (fd, arrivals) = reachable(&mut guest, &network);
    let [one, two] = ["10.1.2.4:5000", "10.1.2.5:5000"].map(|from| arrive(&arrivals, from));
    tell(&one, b"one");
    tell(&two, b"two");
    assert_eq!(guest.ready(fd, READ), Some((3, 0)));
    guest.connect(fd, &[10, 1, 2, 5], 5000).unwrap();
    let three = arrive(&arrivals, "10.1.2.6:5000");
    tell(&three, b"three");
    assert_eq!(guest.receive_from(fd, 9), Ok((b"two".to_vec(), 5000)));
    assert_eq!(guest.receive_from(fd, 9), Err(Errno::Again));
    assert_eq!(guest.write(fd, b"answer"), Ok(6));
    assert_eq!(hear(&two), b"\0answer");
    // It learns that its peer is there no more.
    drop(two);
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Again));
    network.take().1.complete(Err(Errno::Connrefused));
    assert_eq!(guest.write(fd, b"x"), Err(Errno::Connrefused));
}
