"""`trace network` and `trace request`: what a guest's connections carried, from its record alone."""

import json
import re
import signal
import socket
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from tests.e2e.cli import BUILT, Cli, guest, kill9, wait_for
from tests.e2e.test_sandbox_cli import CONTROL, Terminal

REFUSED = 125
STAMP = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}"
ENDPOINT = r"(?:\?|8\.8\.8\.8:53|127\.0\.0\.1:\d+|\[::1\]:\d+|unix:\S*)"
EXCHANGE = re.compile(
    rf"({STAMP}) HTTP ({ENDPOINT}) > ({ENDPOINT}): (\S+) (\S+) => (\d+) (.+) "
    r"\((\d+) bytes in (\d+\.\d{3}) ms, first after (\d+\.\d{3}) ms(, served)?\)"
)
EVENT = re.compile(
    rf"{STAMP} (TCP|UDP|UNIX) {ENDPOINT}(?: > {ENDPOINT})?: "
    r"(?:(?:CONN|ACCEPT|LISTEN|BIND|CLOSE|SHUT WR) OK|(?:SEND|RECV) OK \d+|RECV EOF|(?:CONN|RECV|SEND) E[A-Z]+)"
)


def requests(cli: Cli, *args: str, code: int = 0) -> str:
    """A process that asked itself something."""
    return cli.run(guest("requests"), *args, code=code)[0]


def data(cli: Cli, layer: str, process: str, *flags: str) -> list[dict]:
    """A trace as JSON lines."""
    return [json.loads(line) for line in cli("trace", layer, process, "-o", "json", *flags).out.splitlines()]


def test_each_of_401_requests_is_one_exchange_with_its_own_time(cli: Cli):
    """On one kept-alive connection, over several blocks, from both sides."""
    process, _ = cli.run("--record-batch-size", "4096", guest("requests"), "-n", "401")
    assert json.loads(cli("describe", "process", process, "-o", "json").out)["log"]["blocks"] > 20
    for side, served in (("client", None), ("server", ", served")):
        lines = cli("trace", "request", process, "--side", side).out.splitlines()
        found = [EXCHANGE.fullmatch(line) for line in lines]
        assert all(found), [line for line, match in zip(lines, found, strict=True) if not match][:3]
        stamps = [match[1] for match in found]
        assert len(stamps) == 401
        assert stamps == sorted(stamps)
        assert len(set(stamps)) == 401
        assert [match[5] for match in found] == [f"/hello?0.{number}" for number in range(401)]
        assert len({(match[2], match[3]) for match in found}) == 1, "one connection"
        assert all(float(match[10]) <= float(match[9]) for match in found)
        assert {match[11] for match in found} == {served}


def test_several_connections_at_once(cli: Cli):
    """Each connection's exchanges are in order, none is lost, and the lines are in the order of time."""
    process = requests(cli, "-n", "60", "-c", "5")
    exchanges = data(cli, "request", process, "--side", "client")
    assert len(exchanges) == 300
    by_socket: dict[int, list[str]] = {}
    for exchange in exchanges:
        by_socket.setdefault(exchange["socket"], []).append(exchange["request"]["target"])
        assert exchange["time_ns"] - exchange["began"]["time_ns"] == exchange["latency_ns"] > 0
        assert 0 < exchange["first_byte_ns"] <= exchange["latency_ns"]
        assert exchange["response"]["status"] == 200
    assert [exchange["time_ns"] for exchange in exchanges] == sorted(exchange["time_ns"] for exchange in exchanges)
    everything = sorted(target for targets in by_socket.values() for target in targets)
    assert everything == sorted(f"/hello?{of}.{number}" for of in range(5) for number in range(60))


EACH = [
    ("GET", "/hello?1", 200, 8),
    ("POST", "/echo", 200, 22),
    ("PUT", "/echo", 200, 9),
    ("POST", "/echo", 200, 13),
    ("GET", "/gzip", 200, None),
    ("HEAD", "/hello?2", 200, 0),
    ("GET", "/status?204", 204, 0),
    ("GET", "/status?304", 304, 0),
    ("GET", "/none", 404, 19),
    ("GET", "/hello?3", 200, 8),
    ("GET", "/hello?4", 200, 8),
    ("GET", "/hello?5", 200, 8),
    ("GET", "/hello?6", 200, 8),
    ("GET", "/upgrade", 101, 0),
    ("GET", "/bad", 400, None),
]


@pytest.mark.parametrize("side", ["client", "server"])
def test_all_kinds_of_exchanges(cli: Cli, side: str):
    """Lengths, chunks, trailers, interim answers, compression, pipelining, upgrades, HTTP/1.0, malformed requests."""
    process = requests(cli)
    documents = list(yaml.safe_load_all(cli("trace", "request", process, "--side", side, "-v", "-o", "yaml").out))
    seen = [(it["request"]["method"], it["request"]["target"], it["response"]["status"]) for it in documents]
    assert seen == [expected[:3] for expected in EACH]
    for document, (*_, length) in zip(documents, EACH, strict=True):
        assert length in (None, document["response"]["body_bytes"])
        is_bad = document["request"]["target"] == "/bad"
        assert document["problem"] == ("malformed: a header without a colon" if is_bad else None)
        assert document["client"].startswith("127.0.0.1:")
        assert document["server"] == "127.0.0.1:8080"
    _, posted, put, waited, zipped, *_ = documents
    assert posted["request"]["body"]["text"] == posted["response"]["body"]["text"] == "a body of known length"
    assert put["request"]["body"]["text"] == "in chunks"
    assert put["response"]["trailers"] == [{"name": "X-Bytes", "value": "9"}]
    assert waited["interim"] == [100]
    assert zipped["response"]["body"]["text"] == "compressed \x1b[31mtext\n" * 20
    assert zipped["response"]["body"]["decoded_from"] == "gzip"
    assert documents[13]["upgrade"] == "echo"
    assert sorted({it["socket"] for it in documents[9:12]}) == [documents[9]["socket"]], "pipelined on one connection"
    text = cli("trace", "request", process, "--side", side, "-v").out
    assert "\n> Expect: 100-continue\n" in text
    assert "\n< HTTP/1.1 100\n< HTTP/1.1 200 OK\n" in text
    assert "\n  compressed \\x1b[31mtext\n" in text
    assert not set(text.encode()) & CONTROL


def test_a_program_that_nobody_wrote_for_this(cli: Cli):
    """Of a Go program's own HTTP tests, large bodies, streams and cancellation, nothing is taken for malformed."""
    process, _ = cli.run(BUILT / "net" / "http.wasm")
    exchanges = data(cli, "request", process, "-v")
    assert sum(it["problem"] is None for it in exchanges) > 150
    assert {it["problem"] for it in exchanges} - {None} <= {
        "no answer: the connection was closed",
        "no answer: EPIPE",
        "no answer: ECONNRESET",
        "not followed: it is in another version of HTTP",
    }
    asked = Counter(it["side"] for it in exchanges if it["request"] and it["problem"] is None)
    assert asked["client"] == asked["server"]


def test_the_network_as_a_guest_sees_it(cli: Cli):
    """What one end sends the other receives; connections open and close; TCP, UDP and Unix sockets."""
    process, _ = cli.run(guest("loopback"))
    lines = cli("trace", "network", process).out.splitlines()
    odd = [line for line in lines if not EVENT.fullmatch(line)]
    assert not odd, odd[:5]
    events = data(cli, "network", process)
    assert len(events) == len(lines)
    streams = [event for event in events if event["transport"] in ("tcp", "unix")]
    passed = Counter()
    for event in streams:
        if event["event"] in ("send", "receive"):
            passed[event["event"]] += event["bytes"]
    assert passed["send"] == passed["receive"] > 5_000
    opened = Counter(event["event"] for event in streams if event["errno"] is None)
    assert opened["connect"] == opened["accept"] > 600
    assert opened["listen"] == 4
    assert {event["errno"] for event in streams} >= {"ECONNREFUSED", "EACCES"}
    datagrams = [event for event in events if event["transport"] == "udp" and event.get("bytes") == 4]
    assert [event["event"] for event in datagrams] == ["send", "receive", "send", "receive"]
    assert all(event["peer"] and event["local"] for event in datagrams)
    hexdump = cli("trace", "network", process, "-v", "--port", "8080").out
    assert "00000000  47 45 54 20 2f 78 20 48 54 54 50 2f 31 2e 31 0d  |GET /x HTTP/1.1.|\n" in hexdump
    verbose = data(cli, "network", process, "-v", "--port", "8080")
    sent = b"".join(event["data"]["text"].encode() for event in verbose if event["event"] == "send")
    assert sent.count(b"GET /x HTTP/1.1\r\n") == sent.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_sockets_that_were_open_from_the_start(cli: Cli):
    """The configuration tells where they lead: requests to a listener of the host's, passed on to a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as free:
        upstream, listening = (f"127.0.0.1:{each.getsockname()[1]}" for each in (server, free))
        free.close()
        host = cli.start("run", "-L", listening, "-D", f"tcp://{upstream}", guest("preopened"))
        process = host.stderr.readline().decode().strip()
        connection, _ = server.accept()
        with connection:
            for request in (b"GET /over HTTP/1.1\r\n\r\n", b""):
                with socket.create_connection(("127.0.0.1", int(listening.rpartition(":")[2]))) as client:
                    client.sendall(request)
                    client.shutdown(socket.SHUT_WR)
                    if request:
                        assert connection.recv(1000) == request
                        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    client.recv(1000)
            host.wait(100)
    exchanges = data(cli, "request", process)
    seen = [(it["side"], it["request"]["target"], it["response"]["status"], it["server"]) for it in exchanges]
    assert sorted(seen) == [("client", "/over", 204, upstream), ("server", "/over", 204, listening)]
    network = cli("trace", "network", process).out
    assert f" TCP ? > {listening}: ACCEPT OK\n" in network
    assert f" TCP ? > {upstream}: SEND OK 22\n" in network


def test_sockets_that_are_paths(cli: Cli):
    """`-S path`: listeners, connections, what was accepted, and what was refused."""
    process, _ = cli.run("-S", "path", guest("paths"))
    events = data(cli, "network", process)
    done = Counter((event["event"], event["errno"]) for event in events)
    assert (done["listen", None], done["connect", None], done["accept", None]) == (2, 51, 51)
    refused = [(event["transport"], event["peer"], event["errno"]) for event in events if event["errno"]]
    assert refused == [
        ("tcp", "127.0.0.1:9", "ECONNREFUSED"),
        ("tcp", "10.0.0.1:80", "EACCES"),
        ("tcp", "no.such.name:80", "ENOENT"),
        ("udp", "10.0.0.1:53", "EACCES"),
    ]
    passed = Counter()
    for event in events:
        passed[event["event"]] += event.get("bytes", 0)
    assert passed["send"] == passed["receive"] > 2_000_000


def test_windows(cli: Cli):
    """From when, and for how long: relative, and in RFC 3339."""
    process = requests(cli, "-n", "50")
    exchanges = data(cli, "request", process)
    middle, last = exchanges[40], exchanges[-1]
    start, duration = middle["time_ns"], last["time_ns"] - middle["time_ns"]
    assert data(cli, "request", process, "-t", f"{start}ns") == exchanges[40:]
    assert data(cli, "request", process, "-t", f"{start}ns", "-d", f"{duration}ns") == exchanges[40:]
    until = [it for it in data(cli, "request", process, "-d", f"{start}ns") if not it["problem"]]
    assert until == exchanges[:41]
    since = data(cli, "network", process, "-t", middle["time"])
    assert 0 < len(since) < len(data(cli, "network", process))
    assert data(cli, "network", process, "-t", "2100-01-01T00:00:00Z") == []


TICKS = """
    import time
    for number in range(40):
        print(number, time.time_ns(), flush=True)
        time.sleep(0.02)
"""


def test_dates_of_a_process_that_was_resumed(cli: Cli, scratch: Path):
    """Its time goes on, the clock of the day has jumped: lines have their date, and a date leads to its lines."""
    program = scratch / "ticks.py"
    program.write_text(dedent(TICKS))
    host = cli.start("run", program)
    process = host.stderr.readline().decode().strip()
    wait_for(lambda: host.stdout.readline().startswith(b"5 "), "it ticks")
    kill9(host)
    died_ns = time.time_ns()
    cli("resume", process)
    told = [int(line.split()[1]) for line in cli("logs", process).out.splitlines()]
    flags = ["--timestamps", "absolute", "--call", "fd_write"]
    lines = cli("trace", "syscall", process, *flags).out.splitlines()
    times = [datetime.fromisoformat(line.split()[0]) for line in lines]
    assert len(lines) == len(told) == 40
    # The system may correct its clock meanwhile, by a little.
    for time_ns, next_ns, shown in zip(told, [*told[1:], time.time_ns()], times, strict=True):
        assert time_ns / 1e9 - 0.005 < shown.timestamp() < next_ns / 1e9 + 0.005, (told, lines)
    for number in (2, 37):
        start = times[number].isoformat()
        since = cli("trace", "syscall", process, "-t", start, *flags).out.splitlines()
        assert since == lines[number:], number
        duration = times[number + 1] - times[number] - timedelta(milliseconds=1)
        some = cli("trace", "syscall", process, "-t", start, "-d", f"{duration // timedelta(microseconds=1)}us", *flags)
        assert some.out.splitlines() == lines[number : number + 1], number
    stamped = [datetime.fromisoformat(line.split()[0]) for line in cli("logs", "-t", process).out.splitlines()]
    for stamp, shown in zip(stamped, times, strict=True):
        assert abs(stamp - shown) < timedelta(milliseconds=1), stamped
    assert len(cli("logs", "--since", times[37].isoformat(), process).out.splitlines()) in (2, 3)
    for number in (2, 37):
        middle = times[number] + (times[number + 1] - times[number]) / 2
        assert len(cli("replay", process, "--until", middle.isoformat()).out.splitlines()) == number + 1
    ended = datetime.fromisoformat(json.loads(cli("describe", "process", process, "-o", "json").out)["ended_at"])
    assert ended >= times[-1]
    # Nobody ran it then: what comes next is shown.
    start = datetime.fromtimestamp(died_ns / 1e9, UTC).isoformat()
    resumed = cli("trace", "syscall", process, "-t", start).out.splitlines()
    assert "epoch 1 begins" in resumed[0], resumed[:3]
    assert 0 < len(cli("trace", "syscall", process, "-t", start, *flags).out.splitlines()) < 36
    assert cli("trace", "syscall", process, "-t", "2100-01-01T00:00:00Z").out == ""
    assert len(cli("trace", "syscall", process, "-t", "2001-01-01T00:00:00Z", *flags).out.splitlines()) == 40


def test_a_running_process_is_followed_to_its_end(cli: Cli):
    """With -f what comes is shown as it comes; without, what there is."""
    process = cli.detach(guest("requests"), "-n", "100000000")
    assert cli("trace", "request", process, "--side", "server").out
    follower = cli.start("trace", "request", "-f", process)
    for _ in range(1_000):
        assert EXCHANGE.fullmatch(follower.stdout.readline().decode().rstrip("\n"))
    cli("kill", process)
    rest = follower.stdout.read().decode().splitlines()
    assert follower.wait(timeout=100) == 0
    assert sum("the process ended" in line for line in rest) <= 2, "the requests under way, from both sides"
    assert len(data(cli, "request", process)) == len(rest) + 1_000


@pytest.mark.parametrize("layer", ["network", "request"])
def test_ctrl_c_leaves_a_follower(cli: Cli, layer: str):
    """Without a word."""
    process = cli.detach(guest("requests"), "-n", "100000000")
    follower = cli.start("trace", layer, "-f", process)
    assert follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=100)
    assert (follower.returncode, err) == (130, b"")
    assert cli.process(process)["state"] == "running"


def test_how_far_it_got(cli: Cli):
    """Of a log whose host died, and of a damaged one, all that is good is shown; and where it ends is told."""
    host = cli.start("run", guest("requests"), "-n", "100000000")
    process = host.stderr.readline().decode().strip()
    while not cli("trace", "request", process).out.count("=> 200") > 1_000:
        pass
    kill9(host)
    done = cli("trace", "request", process)
    assert f"its log ends with record {cli.process(process)['last_seq']}, where its host died" in done.stderr
    lines = done.out.splitlines()
    assert len(lines) > 1_000
    segment = cli.segments(process)[0]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    for layer in ("network", "request"):
        done = cli("trace", layer, process, code=REFUSED)
        assert re.search(r"corrupt crc \(good up to record \d+\).*\[TC0018\]", done.stderr), done.stderr
        assert len(done.out.splitlines()) > 100
    assert lines[:100] == cli("trace", "request", process, code=REFUSED).out.splitlines()[:100]


def test_a_log_of_digests_says_so(cli: Cli):
    """What was sent isn't there: the trace tells, on standard error and where it is missing."""
    process, _ = cli.run("--record-output", "digest", guest("requests"), "-n", "3")
    done = cli("trace", "request", process)
    assert re.search(r"digests in place of what was sent \d+ times.*record\.output = digest", done.stderr)
    assert done.out.count("not in the log, which was recorded with record.output = digest") == 6
    network = cli("trace", "network", "-v", process)
    assert "  [the bytes are not in the log: record.output = digest]\n" in network.out
    assert [event["bytes"] for event in data(cli, "network", process) if event["event"] == "send"]


@pytest.mark.parametrize("layer", ["network", "request"])
def test_colours_are_for_terminals(cli: Cli, layer: str):
    """A terminal gets colours, and no control characters but those."""
    process = requests(cli)
    assert "\x1b" not in cli("trace", layer, process).out
    terminal = Terminal(cli, "trace", layer, "-v", process)
    assert terminal.wait() == 0
    screen = terminal.screen.decode()
    assert layer == "network" or "\x1b[32m200 OK\x1b[0m" in screen
    plain = re.sub(r"\x1b\[(?:3[1-6]|0)m", "", screen)
    assert not set(plain.encode()) & CONTROL
    assert plain == cli("trace", layer, "-v", process).out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["network", "--call", "fd_read"], "trace network: --call is for other layers"),
        (["request", "--raw"], "trace request: --raw is for other layers"),
        (["syscall", "--port", "80"], "trace syscall: --port is for other layers"),
        (["network", "--port", "99999"], "'99999' isn't a port"),
        (["network", "--host", "example.com"], 'trace network: "example.com" is no IP address'),
        (["request", "-t", "yesterday"], "--start: 'yesterday' isn't a duration"),
        (["request", "-d", "long"], "'long' isn't a duration"),
    ],
)
def test_bad_flags(cli: Cli, flags: list[str], says: str):
    """Each says what is wrong."""
    process, _ = cli.run(guest("hello"))
    done = cli("trace", *flags, process, code=REFUSED)
    assert says in done.stderr
    assert done.out == ""


def test_a_process_without_connections_has_nothing_to_show(cli: Cli, tmp_path: Path):
    """No sockets, no lines; and calls as YAML are the same as in JSON."""
    process, _ = cli.run(guest("hello"))
    assert cli("trace", "network", process).out == cli("trace", "request", process).out == ""
    documents = list(yaml.safe_load_all(cli("trace", "syscall", "-o", "yaml", process).out))
    assert documents == data(cli, "syscall", process)
