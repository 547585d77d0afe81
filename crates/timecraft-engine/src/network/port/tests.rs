use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::network::{Address, Transport};

fn port(requests_max: usize) -> (Port, PortNetwork) {
    let port = Port::new((Some(Ipv4Addr::new(10, 1, 2, 3)), None), requests_max).unwrap();
    let network = port.attach().unwrap();
    assert!(port.attach().is_none(), "one guest");
    (port, network)
}

fn dial(network: &mut PortNetwork) -> Ticket {
    network.dial(Dial { transport: Transport::Stream, to: ([192, 0, 2, 1], 80).into(), from: None })
}

fn listen(network: &mut PortNetwork, transport: Transport, backlog: u32) -> Ticket {
    network.listen(Listen { transport, at: ([0, 0, 0, 0], 80).into(), backlog })
}

/// A connection, and its far end.
fn connection() -> (Connection, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let unnamed = || Address::Unix(Vec::new());
    (Connection { socket: near.into(), local: unnamed(), peer: unnamed() }, far)
}

fn is_closed(mut far: &UnixStream) -> bool {
    far.set_nonblocking(true).unwrap();
    matches!(far.read(&mut [0]), Ok(0))
}

fn is_readable(port: &Port) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(port.descriptor(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

fn listening(ticket: &Ticket) -> Listening {
    match ticket.poll() {
        Some(Ok(Answer::Listening(listening))) => listening,
        other => panic!("{other:?}"),
    }
}

fn names(port: &Port) -> Vec<(&'static str, u64)> {
    let name = |event: &Event| match event {
        Event::Dial(..) => "dial",
        Event::Listen(..) => "listen",
        Event::Resolve(..) => "resolve",
        Event::Secure(..) => "secure",
        Event::Closed(_) => "closed",
        Event::Room(_) => "room",
        Event::Ended => "ended",
    };
    port.take().iter().map(|event| (name(event), event.id())).collect()
}

#[test]
fn requests_are_told_and_answered_across_threads() {
    let (port, mut network) = port(REQUESTS_MAX);
    assert_eq!(network.addresses(), (Some(Ipv4Addr::new(10, 1, 2, 3)), None));
    let guest = std::thread::spawn(move || {
        for _ in 0..200 {
            let dialled = dial(&mut network);
            let resolved = network.resolve(Resolve { name: "db".into(), ipv4: true, ipv6: false });
            for ticket in [&dialled, &resolved] {
                let mut fds = [PollFd::from_borrowed_fd(ticket.descriptor().unwrap(), PollFlags::IN)];
                assert_eq!(poll(&mut fds, None).unwrap(), 1);
            }
            let Some(Ok(Answer::Connected(Connection { socket, .. }))) = dialled.poll() else { panic!() };
            UnixStream::from(socket).write_all(b"hello").unwrap();
            assert!(matches!(resolved.poll(), Some(Err(Errno::Noent))));
        }
    });
    let (mut far_ends, mut ids) = (Vec::new(), Vec::new());
    let mut ended = false;
    while !ended {
        let mut fds = [PollFd::from_borrowed_fd(port.descriptor(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
        for event in port.take() {
            ids.push(event.id());
            match event {
                Event::Dial(id, request) => {
                    assert_eq!(request.to, std::net::SocketAddr::from(([192, 0, 2, 1], 80)));
                    let (near, far) = connection();
                    assert!(port.connected(id, near, String::new()));
                    assert!(!port.refuse(id, Errno::Acces), "it is answered");
                    far_ends.push(far);
                }
                Event::Resolve(id, _) => assert!(port.refuse(id, Errno::Noent)),
                Event::Ended => ended = true,
                other => panic!("{other:?}"),
            }
        }
    }
    guest.join().unwrap();
    assert_eq!((far_ends.len(), ids.len()), (200, 401));
    assert!(ids[..400].is_sorted_by(|a, b| a < b));
    let mut text = String::new();
    far_ends[7].read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn withdrawn_requests_are_told_unless_nobody_knew_them() {
    let (port, mut network) = port(REQUESTS_MAX);
    drop(dial(&mut network));
    assert!(!is_readable(&port) && port.take().is_empty(), "come and gone");
    let (first, second) = (dial(&mut network), dial(&mut network));
    drop(first);
    assert_eq!(names(&port), [("dial", 3)]);
    assert!(!is_readable(&port));
    drop(second);
    assert!(is_readable(&port));
    assert_eq!(names(&port), [("closed", 3)]);
    let (near, far) = connection();
    assert!(!port.connected(3, near, String::new()));
    assert!(is_closed(&far));
    // TLS that nobody began leaves no socket behind.
    let (near, far) = connection();
    let request = Secure { socket: near.socket, name: "example.com".into(), protocols: vec!["h2".into()] };
    drop(network.secure(request));
    assert!(is_closed(&far) && port.take().is_empty());
}

#[test]
fn too_many_requests_are_refused() {
    let (port, mut network) = port(2);
    let tickets = [dial(&mut network), dial(&mut network), dial(&mut network)];
    assert!(matches!(tickets[2].poll(), Some(Err(Errno::Again))));
    assert_eq!(names(&port).len(), 2);
    assert!(port.refuse(1, Errno::Connrefused));
    assert!(!dial(&mut network).is_done(), "there is room again");
    assert!(matches!(tickets[0].poll(), Some(Err(Errno::Connrefused))));
}

#[test]
fn tls_tells_the_protocol() {
    let (port, mut network) = port(REQUESTS_MAX);
    let (near, far) = connection();
    let protocols = vec!["h2".to_owned(), "http/1.1".to_owned()];
    let ticket = network.secure(Secure { socket: near.socket, name: "example.com".into(), protocols });
    let event = port.take().pop_front();
    let Some(Event::Secure(id, Secure { socket, name, protocols })) = event else { panic!("{event:?}") };
    assert_eq!((name.as_str(), protocols.len()), ("example.com", 2));
    assert!(port.connected(id, connection().0, "h2".into()));
    assert!(matches!(ticket.poll(), Some(Ok(Answer::Secured(_, protocol))) if protocol == "h2"));
    assert!(!is_closed(&far));
    drop(socket);
    assert!(is_closed(&far), "it was the taker's");
}

#[test]
fn deliveries_stop_at_the_backlog_and_go_on_when_there_is_room() {
    let (port, mut network) = port(REQUESTS_MAX);
    let ticket = listen(&mut network, Transport::Stream, 2);
    assert_eq!(names(&port), [("listen", 1)]);
    assert!(port.deliver(1, connection().0).is_err(), "it isn't listening yet");
    assert!(port.listening(1));
    let listener = listening(&ticket);
    let at = Address::Unix(Vec::new());
    let far_ends: Vec<_> = (0..2)
        .map(|_| {
            let (near, far) = connection();
            port.deliver(1, near).unwrap();
            far
        })
        .collect();
    let (near, far) = connection();
    let back = port.deliver(1, near).unwrap_err();
    assert!(!is_closed(&far) && port.take().is_empty());
    drop(listener.accept(&at).unwrap());
    drop(listener.accept(&at).unwrap());
    assert_eq!(names(&port), [("room", 1)], "once");
    port.deliver(1, back).unwrap();
    drop(listener);
    assert_eq!(names(&port), [("closed", 1)]);
    assert!(port.deliver(1, connection().0).is_err());
    assert!(far_ends.iter().chain([&far]).all(is_closed));
}

#[test]
fn listeners_that_nobody_wants_are_not_heard_of() {
    let (port, mut network) = port(REQUESTS_MAX);
    for transport in [Transport::Stream, Transport::Datagram] {
        let ticket = listen(&mut network, transport, 1);
        let id = port.take()[0].id();
        drop(ticket);
        assert_eq!(names(&port), [("closed", id)]);
        let (near, far) = connection();
        assert!(!port.listening(id) && !port.bound(id, Some(near.socket)));
        assert!(is_closed(&far) && port.take().is_empty());
    }
    // An answer that the guest never looked at.
    let ticket = listen(&mut network, Transport::Datagram, 0);
    assert_eq!(names(&port), [("listen", 3)]);
    let (near, far) = connection();
    assert!(port.bound(3, Some(near.socket)));
    drop(ticket);
    assert_eq!(names(&port), [("closed", 3)]);
    assert!(is_closed(&far));
}

#[test]
fn the_end_of_the_guest_is_the_last_event() {
    let (port, mut network) = port(REQUESTS_MAX);
    let (dialled, ticket) = (dial(&mut network), listen(&mut network, Transport::Stream, 1));
    assert!(port.listening(2));
    let listener = listening(&ticket);
    drop(network);
    drop((dialled, listener, ticket));
    assert_eq!(names(&port), [("ended", 0)]);
    assert!(!port.refuse(1, Errno::Acces) && port.deliver(2, connection().0).is_err());
    assert!(!is_readable(&port) && port.take().is_empty());
}

#[test]
fn without_who_answers_there_is_no_network() {
    let (port, mut network) = port(REQUESTS_MAX);
    let ticket = dial(&mut network);
    drop(port);
    assert!(matches!(ticket.poll(), Some(Err(Errno::Connaborted))));
    assert!(matches!(dial(&mut network).poll(), Some(Err(Errno::Netdown))));
}
