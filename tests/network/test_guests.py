"""Guests at the real gateway: everything but the command line."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
import trustme

from tests.e2e.guests import BUILT, Bench, Case
from timecraftd.config import NetworkConfig
from timecraftd.engine.runtime import Engine
from timecraftd.network.gateway import GuestNetwork
from timecraftd.network.neighbours import GuestDirectory
from timecraftd.network.publish import Publication
from timecraftd.network.rules import parse_policy
from timecraftd.network.thread import GatewayThread

GUEST = BUILT / "outside.wasm"
TLS_GUEST = BUILT / "tls.wasm"
WAIT_S = 60


@pytest.fixture
def directory(tmp_path):
    return GuestDirectory(str(tmp_path / "guests"))


@pytest.fixture
def thread(directory):
    thread = GatewayThread(neighbours=directory)
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def server():
    """Answers one line of one connection; its port on the host's loopback."""

    def echo():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"echo " + connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        serving = threading.Thread(target=echo)
        serving.start()
        yield listener.getsockname()[1]
        serving.join()


def attach(thread, directory, name, *rules, published=()):
    """(port, the guest as it is served) of a guest that has joined its neighbours."""
    member = directory.join(name)
    ipv4, ipv6 = directory.network.addresses(member.number)
    port = Engine().network_port(str(ipv4), str(ipv6))
    return port, thread.add(port, GuestNetwork(name, parse_policy(rules), tuple(published), member))


def test_a_guest_dials_and_is_reached(bench, tmp_path, thread, directory, server):
    published = [Publication("127.0.0.1", 0, 8080)]
    port, guest = attach(thread, directory, "web", f"host:{server}", published=published)
    callers = [socket.create_connection(("127.0.0.1", guest.published[0].host_port)) for _ in range(20)]
    for number, caller in enumerate(callers):
        caller.sendall(b"%d\n" % number)
    ran = bench.run(Case("outside", GUEST, args=[f"host.internal:{server}", "20"]), tmp_path, network=port)
    assert ran.outcome.code == 0, ran.stdout
    lines = ran.stdout.decode().splitlines()
    assert lines[0] == f"dialled 10.86.0.1:{server}: echo hello"
    assert lines[1].startswith("refused: ")
    assert lines[2:] == ["listening", "served 20"]
    assert [caller.recv(100) for caller in callers] == [b"you said %d\n" % number for number in range(20)]
    for caller in callers:
        caller.close()
    snapshot = guest.snapshot()
    assert [entry["subject"] for entry in snapshot["refused"]] == ["tcp 192.0.2.1:81"]
    assert snapshot["totals"]["granted"] >= 22
    assert bench.replay(GUEST).end == ran.end
    del port


def test_guests_reach_each_other(bench, tmp_path, thread, directory, server):
    def call():
        while not Path(directory.directory_of(2), "8080").exists():
            time.sleep(0.01)
        called.append(other.run(Case("outside", GUEST, args=["web:8080", "0"]), tmp_path, network=client))

    called: list = []
    (tmp_path / "other").mkdir()
    other = Bench(tmp_path / "other", bench.artifacts)
    web, web_at = attach(thread, directory, "web", f"host:{server}")
    client, client_at = attach(thread, directory, "client", "guest:web:8080")
    calling = threading.Thread(target=call)
    calling.start()
    ran = bench.run(Case("outside", GUEST, args=[f"host.internal:{server}", "1"]), tmp_path, network=web)
    calling.join()
    assert (ran.outcome.code, called[0].outcome.code) == (0, 0), (ran.stdout, called[0].stdout)
    assert called[0].stdout.startswith(b"dialled 10.86.0.2:8080: you said hello\n")
    assert "tcp 10.86.0.3 (guest:client) to port 8080" in [entry["subject"] for entry in web_at.snapshot()["granted"]]
    assert client_at.snapshot()["rules"][0]["count"] >= 1
    for each, run in ((bench, ran), (other, called[0])):
        assert each.replay(GUEST).end == run.end


@contextlib.contextmanager
def tls_server(context):
    """Answers a line, and the client's end; its port on the host's loopback."""

    def serve():
        raw, _ = listener.accept()
        raw.settimeout(WAIT_S)
        with raw, contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(raw, True) as tls:
            tls.sendall(b"echo " + tls.recv(100))
            assert tls.recv(100) == b""
            tls.sendall(b"goodbye")
            tls.unwrap()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        serving.join()


@pytest.mark.parametrize(
    ("server", "protocols", "prints"),
    [
        ("a.example", ["h2,http/1.1"], 'echo hello\nagreed upon "http/1.1"\nand then goodbye\n'),
        ("a.example", [], 'echo hello\nagreed upon ""\nand then goodbye\n'),
        ("b.example", [], "fd_write: Connection aborted\n"),
    ],
)
def test_the_host_does_tls(bench, tmp_path, directory, server, protocols, prints):
    """The record holds clear text: a replay needs neither server nor certificates."""
    authority, ca_file = trustme.CA(), str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert("a.example").configure_cert(context)
    thread = GatewayThread(NetworkConfig(ca_file=ca_file), neighbours=directory)
    thread.start()
    with tls_server(context) as number:
        port, guest = attach(thread, directory, "client", f"host:{number}")
        case = Case("tls", TLS_GUEST, args=[f"host.internal:{number}", server, *protocols])
        ran = bench.run(case, tmp_path, network=port)
    thread.stop()
    said = ran.stdout.decode()
    if server == "a.example":
        assert (ran.outcome.code, said) == (0, f"10.86.0.1:{number} says {prints}")
        assert guest.snapshot()["failed"] == []
    else:
        assert ran.outcome.code == 1
        assert said.endswith(prints)
        (entry,) = guest.snapshot()["failed"]
        assert "isn't for b.example" in entry["reason"]
    assert bench.replay(TLS_GUEST).end == ran.end
