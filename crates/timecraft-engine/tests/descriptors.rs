//! Descriptors of the whole process, which these tests have for themselves.

mod support;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Resource, getrlimit, setrlimit};
use timecraft_engine::host::{Host, HostConfig, HostLimits};
use timecraft_engine::network::port::{Event, Port, REQUESTS_MAX};
use timecraft_engine::network::{Address, Connection, Dial, Listen, Network, Secure, Transport};
use timecraft_engine::{Call, Errno, KillSwitch};

use support::Case;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn connection() -> Connection {
    let unnamed = || Address::Unix(Vec::new());
    Connection { socket: UnixStream::pair().unwrap().0.into(), local: unnamed(), peer: unnamed() }
}

/// Requests of each kind, given up at all moments, against a thread that answers them.
fn contend(rounds: usize) {
    let port = Port::new((None, None), REQUESTS_MAX).unwrap();
    let mut network = port.attach().unwrap();
    let guest = thread::spawn(move || {
        let mut kept = std::collections::VecDeque::new();
        for round in 0..rounds {
            let ticket = match round % 4 {
                0 => network.dial(Dial { transport: Transport::Stream, to: ([192, 0, 2, 1], 80).into(), from: None }),
                1 => {
                    let protocols = Vec::new();
                    network.secure(Secure { socket: connection().socket, name: "a".into(), protocols })
                }
                kind => {
                    let transport = if kind == 2 { Transport::Stream } else { Transport::Datagram };
                    network.listen(Listen { transport, at: ([0, 0, 0, 0], 80).into(), backlog: 2 })
                }
            };
            let answer = ticket.poll();
            kept.push_back((ticket, answer));
            if round % 3 == 0 || kept.len() > 7 {
                kept.pop_front();
            }
        }
    });
    loop {
        for event in port.take() {
            match event {
                Event::Dial(id, _) => drop(port.connected(id, connection(), String::new())),
                Event::Secure(id, request) if id % 2 == 0 => {
                    drop(request);
                    port.connected(id, connection(), "h2".into());
                }
                Event::Listen(id, request) if request.transport == Transport::Stream => {
                    port.listening(id);
                    for _ in 0..3 {
                        let _ = port.deliver(id, connection());
                    }
                }
                Event::Listen(id, _) => drop(port.bound(id, connection().socket)),
                Event::Ended => return guest.join().unwrap(),
                _ => {}
            }
        }
        thread::yield_now();
    }
}

#[test]
fn a_port_leaves_nothing_open() {
    let _alone = ALONE.lock().unwrap();
    let before = open_descriptors();
    contend(20_000);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_guest_gets_the_descriptors_that_it_may_have() {
    let _alone = ALONE.lock().unwrap();
    let before = getrlimit(Resource::Nofile);
    let mut low = before;
    low.current = Some(128);
    setrlimit(Resource::Nofile, low).unwrap();
    let limits = HostLimits { open_files: 603, sockets: 500, ..HostLimits::default() };
    let kill = Arc::new(KillSwitch::new().unwrap());
    let mut host = Host::new(HostConfig { limits, ..HostConfig::default() }, kill).unwrap();
    let outcome = getrlimit(Resource::Nofile);
    // Datagram sockets on IPv4, each with an event of its own.
    let open = Case::new(Call::SockOpen, &[1, 1, 8]);
    let opened = (0..501).map(|_| open.run(&mut host).0.unwrap()).collect::<Vec<_>>();
    drop(host);
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(outcome.current.is_none_or(|current| current >= 603 + 2 * 500) && outcome.maximum == before.maximum);
    assert_eq!((opened[499], opened[500]), (Errno::Success, Errno::Mfile));
}
