//! What traces show of a guest's connections: records made by the host itself, and some that no host of ours makes.

#[path = "support/peer.rs"]
mod peer;
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use peer::{INET4, INET6, Peer, STREAM, UNIX, http_conversation, records_of};
use proptest::prelude::*;
use support::{assert_golden, begin, log_config};
use timecraft_engine::recorder::{CALL_START, Head, OwnedRecord, Sink};
use timecraft_engine::timemachine::connections::DESCRIPTORS_MAX;
use timecraft_engine::timemachine::form::{Form, Stamp};
use timecraft_engine::timemachine::protocol::Side;
use timecraft_engine::timemachine::requests::KEPT_BYTES_MAX;
use timecraft_engine::timemachine::{Filter, Layer, Options, Tracker, Traffic, Window};
use timecraft_engine::{Call, End, Errno};
use timecraft_log::{Compression, LogConfig, LogReader, Output};

fn options(form: Form, verbose: bool) -> Options {
    Options { form, verbose, ..Options::default() }
}

fn shown_in(records: &[OwnedRecord], layer: Layer, options: Options, window: Window) -> String {
    let mut tracker = Tracker::new(layer, options, window);
    let mut text = String::new();
    for record in records {
        if !tracker.observe(&record) {
            break;
        }
    }
    text += &tracker.finish();
    assert_eq!(tracker.kept_bytes(), 0, "what was kept is given back");
    text
}

fn shown(records: &[OwnedRecord], layer: Layer) -> Vec<String> {
    let options = Options { stamp: Stamp::None, ..Options::default() };
    shown_in(records, layer, options, Window::default()).lines().map(str::to_owned).collect()
}

// ---- golden

/// Both ends of connections of all kinds.
fn all_kinds() -> Vec<OwnedRecord> {
    records_of(|guest| {
        let refused = guest.socket(INET4, STREAM);
        assert_eq!(guest.connect(refused, INET4, 1), Errno::Connrefused);
        guest.close(refused);
        let outside = guest.socket(INET4, STREAM);
        assert_eq!(guest.connect_to(outside, &[8, 8, 8, 8], 53), Errno::Acces);
        guest.close(outside);
        guest.tcp();
        guest.unix();
        guest.tcp_of_version_1();
        guest.udp();
        http_conversation(guest);
    })
}

#[test]
fn traces_look_as_they_should() {
    let records = all_kinds();
    for (layer, name) in [(Layer::Network, "network"), (Layer::Request, "request")] {
        for (form, verbose, file) in [
            (Form::Text, false, "txt"),
            (Form::Text, true, "verbose.txt"),
            (Form::Json, false, "jsonl"),
            (Form::Json, true, "verbose.jsonl"),
            (Form::Yaml, true, "verbose.yaml"),
        ] {
            let text = shown_in(&records, layer, options(form, verbose), Window::default());
            assert_golden(&format!("traces/{name}.{file}"), &text);
            assert!(!text.chars().any(|char| char.is_control() && char != '\n'));
        }
    }
}

#[test]
fn colours_are_there_if_they_are_asked_for() {
    for layer in [Layer::Network, Layer::Request] {
        let text = shown_in(&all_kinds(), layer, Options { color: true, ..Options::default() }, Window::default());
        assert!(text.contains("\x1b[3") && text.contains("\x1b[0m"));
        let plain = text.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[0m", "");
        assert_eq!(plain, shown_in(&all_kinds(), layer, Options::default(), Window::default()));
    }
}

// ---- connections that no host of ours makes at once

fn record(seq: u64, call: Call, args: &[u64]) -> OwnedRecord {
    OwnedRecord { seq, call: call as u16, args: args.to_vec(), time_ns: seq * 1_000, ..OwnedRecord::default() }
}

fn cell(ptr: u32, value: u32) -> (u32, Vec<u8>) {
    (ptr, value.to_le_bytes().to_vec())
}

fn opened(fd: u32) -> OwnedRecord {
    let open = record(1, Call::SockOpen, &[1, 2, 8]);
    OwnedRecord { written: vec![cell(8, fd)], ..open }
}

fn connecting(fd: u64, errno: Errno) -> OwnedRecord {
    let connect = record(2, Call::SockConnect, &[fd, 16, 443]);
    let description = [32u32, 4].map(u32::to_le_bytes).concat();
    OwnedRecord { errno: errno as u16, sent: vec![(16, description), (32, vec![10, 0, 0, 1])], ..connect }
}

/// The guest was told that it can write to a descriptor.
fn writable(fd: u32) -> OwnedRecord {
    let mut subscription = vec![0; 48];
    subscription[0] = 7;
    subscription[8] = 2;
    subscription[16..20].copy_from_slice(&fd.to_le_bytes());
    let mut event = vec![0; 32];
    event[0] = 7;
    event[10] = 2;
    let poll = record(3, Call::PollOneoff, &[64, 128, 1, 256]);
    OwnedRecord { sent: vec![(64, subscription)], written: vec![(128, event), cell(256, 1)], ..poll }
}

fn so_error(fd: u64, error: u32) -> OwnedRecord {
    OwnedRecord { written: vec![cell(8, error)], ..record(4, Call::SockGetsockopt, &[fd, 0, 2, 8, 4]) }
}

fn local_is(fd: u64, port: u32) -> OwnedRecord {
    let told = record(5, Call::SockGetlocaladdr, &[fd, 16, 8]);
    let description = [32u32, 128].map(u32::to_le_bytes).concat();
    OwnedRecord { sent: vec![(16, description)], written: vec![(32, vec![1, 0, 10, 0, 0, 9]), cell(8, port)], ..told }
}

fn wrote(fd: u64, bytes: &[u8]) -> OwnedRecord {
    let write = record(6, Call::FdWrite, &[fd, 8, 1, 24]);
    let list = [64u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
    OwnedRecord { sent: vec![(8, list), (64, bytes.to_vec())], written: vec![cell(24, bytes.len() as u32)], ..write }
}

fn closed(fd: u64) -> OwnedRecord {
    record(7, Call::FdClose, &[fd])
}

#[test]
fn a_connection_that_takes_its_time_is_there_when_the_guest_learns_it() {
    let begun = [opened(3), connecting(3, Errno::Inprogress)];
    let with = |rest: &[OwnedRecord]| shown(&[&begun, rest].concat(), Layer::Network);
    let attempt = "TCP ? > 10.0.0.1:443: CONN EINPROGRESS";
    assert_eq!(with(&[so_error(3, 0)]), [attempt], "asked too early");
    assert_eq!(with(&[writable(4), so_error(3, 0)]), [attempt], "another descriptor");
    assert_eq!(with(&[writable(3), so_error(3, 0)]), [attempt, "TCP ? > 10.0.0.1:443: CONN OK"]);
    assert_eq!(
        with(&[so_error(3, Errno::Connrefused as u32), closed(3)]),
        [attempt, "TCP ? > 10.0.0.1:443: CONN ECONNREFUSED"]
    );
    assert_eq!(
        with(&[wrote(3, b"x"), so_error(3, Errno::Connreset as u32), closed(3)]),
        [
            attempt,
            "TCP ? > 10.0.0.1:443: CONN OK",
            "TCP ? > 10.0.0.1:443: SEND OK 1",
            "TCP ? > 10.0.0.1:443: ERROR ECONNRESET",
            "TCP ? > 10.0.0.1:443: CLOSE OK",
        ]
    );
}

#[test]
fn addresses_that_are_learned_soon_appear_from_the_start() {
    let mut records = vec![opened(3), connecting(3, Errno::Inprogress), opened(4), connecting(4, Errno::Success)];
    records.extend([writable(3), so_error(3, 0), local_is(4, 50), local_is(3, 49)]);
    assert_eq!(
        shown(&records, Layer::Network),
        [
            "TCP 10.0.0.9:49 > 10.0.0.1:443: CONN EINPROGRESS",
            "TCP 10.0.0.9:50 > 10.0.0.1:443: CONN OK",
            "TCP 10.0.0.9:49 > 10.0.0.1:443: CONN OK",
        ]
    );
    let port = |port| Options { filter: Filter { port: Some(port), ..Filter::default() }, ..Options::default() };
    assert_eq!(shown_in(&records, Layer::Network, port(50), Window::default()).lines().count(), 1);
    assert_eq!(shown_in(&records, Layer::Network, port(443), Window::default()).lines().count(), 3);
    let waited = record(6, Call::SchedYield, &[]);
    let late: Vec<_> = records[..2].iter().cloned().chain(vec![waited; 40]).chain([local_is(3, 49)]).collect();
    assert_eq!(shown(&late, Layer::Network), ["TCP ? > 10.0.0.1:443: CONN EINPROGRESS"]);
}

#[test]
fn sockets_that_the_guest_was_given_show_by_their_use() {
    let mut stat = vec![0; 24];
    stat[0] = 6;
    let asked = OwnedRecord { written: vec![(8, stat)], ..record(1, Call::FdFdstatGet, &[5, 8]) };
    assert_eq!(shown(&[wrote(5, b"x")], Layer::Network), [""; 0], "it may be a file");
    assert_eq!(shown(&[asked, wrote(5, b"x")], Layer::Network), ["TCP ? > ?: SEND OK 1"]);
    let accepted = OwnedRecord { written: vec![cell(8, 6)], ..record(1, Call::SockAccept, &[3, 0, 8]) };
    let told = [accepted, local_is(6, 80), wrote(6, b"x"), closed(6), closed(3)];
    assert_eq!(
        shown(&told, Layer::Network),
        [
            "TCP ? > 10.0.0.9:80: ACCEPT OK",
            "TCP 10.0.0.9:80 > ?: SEND OK 1",
            "TCP 10.0.0.9:80 > ?: CLOSE OK",
            "TCP ?: CLOSE OK",
        ]
    );
}

#[test]
fn a_descriptor_that_is_opened_again_was_closed_meanwhile() {
    let request = wrote(3, b"GET / HTTP/1.1\r\n\r\n");
    let connected = [opened(3), connecting(3, Errno::Success), request.clone()];
    let listened = record(7, Call::SockListen, &[3, 1]);
    let accepted = OwnedRecord { written: vec![cell(8, 3)], ..record(8, Call::SockAccept, &[4, 0, 8]) };
    for between in [opened(3), accepted, listened] {
        let lines = shown(&[&connected[..], &[between, request.clone(), closed(3)]].concat(), Layer::Request);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines.iter().all(|line| line.contains("GET / => ? (no answer: ")));
    }
}

#[test]
fn renumbered_descriptors_are_followed() {
    let records = records_of(|guest| {
        let listener = guest.listener(INET4, 8080);
        let (server, client) = guest.connected(listener, INET4, 8080);
        let (other, _) = guest.connected(listener, INET4, 8080);
        assert_eq!(guest.call(Call::FdRenumber, &[client, other]), Errno::Success);
        guest.send(other, b"x");
        guest.receive(server);
        guest.close(other);
    });
    let lines = shown(&records, Layer::Network);
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "TCP 127.0.0.1:8080 > 127.0.0.1:49153: CLOSE OK",
            "TCP 127.0.0.1:49152 > 127.0.0.1:8080: SEND OK 1",
            "TCP 127.0.0.1:49152 > 127.0.0.1:8080: RECV OK 1",
            "TCP 127.0.0.1:49152 > 127.0.0.1:8080: CLOSE OK",
        ]
    );
    let far = [opened(3), record(2, Call::FdRenumber, &[3, 60_000]), wrote(60_000, b"x"), closed(60_000)];
    assert_eq!(shown(&far, Layer::Network).len(), 2);
}

#[test]
fn descriptors_are_bounded() {
    let max = DESCRIPTORS_MAX as u32;
    let mut tracker = Tracker::new(Layer::Network, Options::default(), Window::default());
    for fd in [max - 1, max, u32::MAX] {
        tracker.observe(&&opened(fd));
        tracker.observe(&&connecting(u64::from(fd), Errno::Success));
    }
    tracker.observe(&&opened(3));
    tracker.observe(&&record(8, Call::FdRenumber, &[3, u64::from(max)]));
    assert_eq!(tracker.take().lines().count(), 1);
    assert_eq!(tracker.notes(), ["3 sockets were not followed: their descriptors were 65536 or higher"]);
}

#[test]
fn what_conversations_keep_is_bounded() {
    let mut tracker = Tracker::new(Layer::Request, Options::default(), Window::default());
    let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &vec![b'a'; 60_000]].concat();
    for fd in 3..2_003u32 {
        tracker.observe(&&opened(fd));
        tracker.observe(&&connecting(u64::from(fd), Errno::Success));
        tracker.observe(&&wrote(u64::from(fd), &head));
        assert!(tracker.kept_bytes() <= KEPT_BYTES_MAX);
    }
    assert!(tracker.kept_bytes() > KEPT_BYTES_MAX - head.len());
    let beyond = tracker.take();
    assert!(beyond.lines().count() > 800 && beyond.contains("(not followed: more at once than a trace keeps)"));
    assert!(tracker.finish().lines().count() > 1_000);
    assert_eq!(tracker.kept_bytes(), 0);
}

// ---- windows, filters, ends

#[test]
fn a_window_shows_a_part_and_knows_the_connections_before_it() {
    let records = records_of(http_conversation);
    let text = shown_in(&records, Layer::Network, Options::default(), Window::default());
    let all: Vec<_> = text.lines().collect();
    let time_of = |line: &str| line[20..26].parse::<u64>().unwrap() * 1_000;
    let (from, until) = (time_of(all[5]), time_of(all[9]));
    let window = Window { from_ns: Some(from), until_ns: Some(until), ..Window::default() };
    let part = shown_in(&records, Layer::Network, Options::default(), window);
    assert_eq!(part.lines().collect::<Vec<_>>(), all[5..=9]);
    let zero = 1_700_000_000_000_000_000;
    let unix = Window { from_ns: Some(zero + from), until_ns: Some(zero + until), is_unix: true, last_ns: None };
    assert_eq!(shown_in(&records, Layer::Network, Options::default(), unix), part);
    let last = Window { last_ns: Some(until), ..Window::default() };
    assert_eq!(shown_in(&records, Layer::Network, Options::default(), last).lines().count(), 10);
    let requests = shown_in(&records, Layer::Request, Options::default(), Window::default());
    let first = requests.lines().next().unwrap();
    let until = Window { until_ns: Some(time_of(first)), ..Window::default() };
    let cut = shown_in(&records, Layer::Request, Options::default(), until);
    assert_eq!(cut.lines().next(), Some(first));
    assert!(cut.lines().nth(1).unwrap().contains("no answer: the trace ends here"), "{cut}");
}

#[test]
fn filters_choose_connections() {
    let records = all_kinds();
    let count = |layer, filter: Filter| {
        shown_in(&records, layer, Options { filter, ..Options::default() }, Window::default()).lines().count()
    };
    let (all, none) = (Filter::default(), Filter { port: Some(9), ..Filter::default() });
    assert_eq!(count(Layer::Network, none.clone()), 0);
    assert_eq!(count(Layer::Request, none), 0);
    let host = |host| Filter { host: Some(host), ..Filter::default() };
    assert_eq!(count(Layer::Network, host(IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)))), 1);
    let side = |side| Filter { side: Some(side), ..Filter::default() };
    for layer in [Layer::Network, Layer::Request] {
        let sides = [Side::Client, Side::Server].map(|of| count(layer, side(of)));
        assert!(sides[0] > 0 && sides[1] > 0);
        assert_eq!(sides[0] + sides[1], count(layer, all.clone()));
    }
}

#[test]
fn the_end_of_the_process_ends_its_connections() {
    let mut records = records_of(|guest| {
        let (_, client) = guest.pair();
        guest.send(client, b"GET / HTTP/1.1\r\n\r\n");
    });
    let unfinished = shown(&records, Layer::Request);
    assert!(unfinished[0].ends_with("(no answer: the trace ends here)"), "{unfinished:?}");
    records.push(support::end_record(records.len() as u64, &End::Exit(0)));
    let ended = shown(&records, Layer::Request);
    assert!(ended[0].ends_with("(no answer: the process ended)"), "{ended:?}");
}

#[test]
fn each_epoch_has_its_own_clock() {
    let mut records = vec![record(0, Call::SchedYield, &[]), opened(3), connecting(3, Errno::Success), wrote(3, b"x")];
    let start = |epoch, unix_s: u64| OwnedRecord {
        call: CALL_START,
        args: vec![epoch, unix_s * 1_000_000_000],
        ..OwnedRecord::default()
    };
    records[0] = start(0, 1_700_000_000);
    records.extend([start(1, 1_700_003_600), wrote(3, b"xy"), closed(3)]);
    let text = shown_in(&records, Layer::Network, Options::default(), Window::default());
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "2023/11/14 22:13:20.000002 TCP ? > 10.0.0.1:443: CONN OK",
            "2023/11/14 22:13:20.000006 TCP ? > 10.0.0.1:443: SEND OK 1",
            "2023/11/14 23:13:20.000006 TCP ? > 10.0.0.1:443: SEND OK 2",
            "2023/11/14 23:13:20.000007 TCP ? > 10.0.0.1:443: CLOSE OK",
        ]
    );
}

// ---- many connections at once

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Requests on several connections in any order: each connection shows what it would show alone.
    #[test]
    fn connections_do_not_disturb_each_other(order in prop::collection::vec(0usize..4, 1..30)) {
        let records = records_of(|guest| {
            let listener = guest.listener(INET4, 8080);
            let pairs: Vec<_> = (0..4).map(|_| guest.connected(listener, INET4, 8080)).collect();
            for (number, of) in order.iter().enumerate() {
                let (server, client) = pairs[*of];
                guest.exchange(client, server, &format!("/{of}/{number}"));
            }
        });
        let lines = shown(&records, Layer::Request);
        prop_assert_eq!(lines.len(), 2 * order.len());
        for (of, port) in (0..4).zip(49_152..) {
            for side in ["served)", "ms)"] {
                let expected: Vec<_> = (0..order.len()).filter(|number| order[*number] == of).collect();
                let start = format!("HTTP 127.0.0.1:{port} > 127.0.0.1:8080: GET /{of}/");
                let of_side = lines.iter().filter(|line| line.ends_with(side));
                let found = of_side.filter_map(|line| line.strip_prefix(&start)?.split(' ').next());
                let found: Vec<usize> = found.map(|number| number.parse().unwrap()).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}

// ---- logs on disk

const EXCHANGES: usize = 401;

/// A log of requests on one kept-alive connection, over many blocks and segments.
fn log_of_requests(config: LogConfig) {
    let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).unwrap();
    begin(&mut ring);
    let mut guest = Peer::new(ring);
    let (server, client) = guest.pair();
    (0..EXCHANGES).for_each(|number| guest.exchange(client, server, &format!("/{number}")));
    drop(guest);
    handle.finish().unwrap();
}

fn small_blocks(dir: &Path) -> LogConfig {
    let compression = Compression::None;
    LogConfig { block_bytes_max: 1 << 12, segment_bytes_max: 1 << 16, compression, ..log_config(dir) }
}

/// All batches, and the error that ended them if one did.
fn read_all(dir: &Path, layer: Layer, bytes_max: usize) -> (String, Option<String>) {
    let mut traffic = Traffic::open(dir, layer, Options::default(), Window::default()).unwrap();
    let mut text = String::new();
    let error = loop {
        match traffic.read(bytes_max) {
            Ok(Some(more)) => text += &more,
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    text += &traffic.finish();
    (text, error)
}

#[test]
fn all_exchanges_of_a_long_connection_are_there_once_with_rising_times() {
    let dir = tempfile::tempdir().unwrap();
    log_of_requests(small_blocks(dir.path()));
    let reader = LogReader::open(dir.path()).unwrap();
    assert!(reader.segments().len() > 1 && reader.blocks().count() > 20, "{}", reader.blocks().count());
    let (text, error) = read_all(dir.path(), Layer::Request, 1 << 20);
    assert_eq!(error, None);
    for side in ["served)", "ms)"] {
        let lines: Vec<_> = text.lines().filter(|line| line.ends_with(side)).collect();
        assert_eq!(lines.len(), EXCHANGES);
        assert!(lines.windows(2).all(|pair| pair[0][..26] < pair[1][..26]));
        let is_in_order = |(number, line): (usize, &&str)| line.contains(&format!(": GET /{number} => 200 OK"));
        assert!(lines.iter().enumerate().all(is_in_order));
    }
    for layer in [Layer::Request, Layer::Network] {
        let whole = read_all(dir.path(), layer, 1 << 20);
        for bytes_max in [1, 10_000] {
            assert_eq!(read_all(dir.path(), layer, bytes_max), whole, "batches make no difference");
        }
    }
}

#[test]
fn a_damaged_log_shows_what_is_before_the_damage_and_says_how_far_it_is_good() {
    let dir = tempfile::tempdir().unwrap();
    log_of_requests(LogConfig { segment_bytes_max: 1 << 26, ..small_blocks(dir.path()) });
    let (whole, _) = read_all(dir.path(), Layer::Request, 1 << 20);
    let blocks: Vec<_> = LogReader::open(dir.path()).unwrap().blocks().map(Result::unwrap).collect();
    let bad = blocks[blocks.len() / 2];
    let path = dir.path().join("000000.tcl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[bad.offset as usize + 100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (part, error) = read_all(dir.path(), Layer::Request, 1_000);
    assert!(error.unwrap().contains(&format!("good up to record {}", bad.base_seq - 1)));
    let common = part.lines().zip(whole.lines()).take_while(|(part, whole)| part == whole).count();
    assert!(common > EXCHANGES / 2 && part.lines().count() <= common + 2, "and what was unfinished");
    std::fs::write(&path, &bytes[..bad.offset as usize + 50]).unwrap();
    let (torn, error) = read_all(dir.path(), Layer::Request, 1 << 20);
    assert_eq!((torn, error), (part, None), "the end of a log whose writer died");
}

#[test]
fn a_log_of_digests_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    log_of_requests(LogConfig { output: Output::Digest, ..log_config(dir.path()) });
    for layer in [Layer::Network, Layer::Request] {
        let options = options(Form::Text, true);
        let mut traffic = Traffic::open(dir.path(), layer, options, Window::default()).unwrap();
        let mut text = String::new();
        while let Some(more) = traffic.read(1 << 20).unwrap() {
            text += &more;
        }
        text += &traffic.finish();
        let says = if layer == Layer::Network { "[the bytes are not in the log" } else { "not in the log, which was" };
        assert!(text.matches(says).count() >= EXCHANGES, "{}", &text[..2_000]);
        assert_eq!(traffic.notes().len(), 1);
        assert!(traffic.notes()[0].contains("record.output = digest"));
    }
}

#[test]
fn a_log_that_is_being_written_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { flush_interval: std::time::Duration::from_millis(1), ..log_config(dir.path()) };
    let (mut ring, handle) = timecraft_log::start(config, Arc::new(AtomicBool::new(false))).unwrap();
    begin(&mut ring);
    let mut guest = Peer::new(ring);
    let (server, client) = guest.pair();
    let mut traffic = loop {
        match Traffic::open(dir.path(), Layer::Request, Options::default(), Window::default()) {
            Ok(traffic) => break traffic,
            Err(_) => std::thread::yield_now(),
        }
    };
    let mut text = String::new();
    for number in 0..20 {
        guest.exchange(client, server, &format!("/{number}"));
        while text.lines().count() < 2 * (number + 1) {
            text += &traffic.read(1 << 20).unwrap().unwrap_or_default();
        }
        assert!(!traffic.ended());
    }
    let (_, mut ring) = guest.recorder.into_parts();
    let end = support::end_record(0, &End::Exit(0));
    let head = Head { call: end.call, errno: 0, time_ns: u64::MAX >> 1 };
    Sink::append(&mut ring, &head, &end.args, std::iter::empty(), std::iter::empty()).unwrap();
    drop(ring);
    handle.finish().unwrap();
    while !traffic.ended() {
        assert_eq!(traffic.read(1 << 20).unwrap().unwrap_or_default(), "");
    }
    assert_eq!(traffic.read(1 << 20).unwrap(), None);
    assert_eq!(traffic.finish(), "");
}

#[test]
fn both_families_of_addresses_and_names_are_told() {
    let lines = shown(&all_kinds(), Layer::Network);
    for part in ["[::1]:9000: LISTEN OK", "UNIX unix:/run/app.sock: LISTEN OK", "UDP 127.0.0.1:5353: BIND OK"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}");
    }
    assert_eq!((INET6, UNIX), (2, 3));
}
