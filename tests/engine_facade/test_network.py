"""A guest's end of the gateway, served by a plain loop of selectors."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.guests import BUILT, Case, Pipe
from timecraftd.engine import spec as specs
from timecraftd.engine.runtime import Engine
from timecraftd.engine.spec import LogSpec, ResumeSpec, RunSpec
from timecraftd.telemetry import CALL_KINDS

GUEST = BUILT / "outside.wasm"
SERVER_IP = "192.0.2.7"
CONNECTIONS = 40
WAIT_S = 60


def open_sockets() -> list[str]:
    """Of this process. A guest's thread may still be closing events of its own behind its end."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(link for link in links if link.startswith("socket:"))


def echo(server: socket.socket) -> None:
    """Answers one line of one connection."""
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"echo " + connection.recv(100))


class Gateway:
    """Answers a guest: one name, one server behind it, and callers for its listener."""

    def __init__(self, port, server: socket.socket, connections: int = CONNECTIONS) -> None:
        self.port = port
        self.server = server
        self.kinds: list[str] = []
        self.callers: list[socket.socket] = []
        self.waiting: list[socket.socket] = []
        self.connections = connections
        self.listener = 0
        self.listens = threading.Event()

    def serve(self) -> None:
        """Until the guest ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.port.fileno(), selectors.EVENT_READ)
            while "ended" not in self.kinds:
                assert selector.select(WAIT_S), "the guest is silent"
                for event in self.port.take():
                    self.kinds.append(event.kind)
                    getattr(self, f"on_{event.kind}", lambda _: None)(event)

    def on_resolve(self, event) -> None:
        assert (event.name, event.ipv4) == ("db.internal", True)
        assert self.port.addresses(event.id, [SERVER_IP])

    def on_dial(self, event) -> None:
        assert (event.transport, event.source, event.fd) == ("tcp", None, -1)
        if event.address != (SERVER_IP, 5432):
            assert self.port.refuse(event.id, "EACCES")
            return
        connection = socket.create_connection(self.server.getsockname())
        assert self.port.connected(event.id, connection.detach(), ("10.0.0.2", 40000), event.address)

    def on_listen(self, event) -> None:
        assert (event.transport, event.address) == ("tcp", ("0.0.0.0", 8080))
        assert event.backlog > 0
        self.listener = event.id
        assert self.port.listening(event.id)
        for number in range(self.connections):
            near, far = socket.socketpair()
            far.sendall(b"%d\n" % number)
            self.callers.append(far)
            self.waiting.append(near)
        self.on_room(event)
        self.listens.set()

    def on_room(self, _event) -> None:
        while self.waiting:
            near = self.waiting[0]
            if not self.port.deliver(self.listener, near.fileno(), ("10.0.0.2", 8080), ("198.51.100.1", 1234)):
                return
            self.waiting.pop(0).detach()


def test_a_guest_on_the_network(bench, tmp_path):
    """It resolves, dials, is refused, listens and is reached; the replay needs nobody."""
    before = open_sockets()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(WAIT_S)
    port = Engine().network_port("10.0.0.2")
    gateway = Gateway(port, server)
    threads = [threading.Thread(target=gateway.serve), threading.Thread(target=echo, args=(server,))]
    case = Case("outside", GUEST, args=["db.internal:5432", str(CONNECTIONS)])
    for thread in threads:
        thread.start()
    ran = bench.run(case, tmp_path, network=port)
    for thread in threads:
        thread.join()
    assert (ran.outcome.kind, ran.outcome.code) == ("exit", 0), ran.stdout
    lines = ran.stdout.decode().splitlines()
    assert lines[0] == f"dialled {SERVER_IP}:5432: echo hello"
    assert lines[1].startswith("refused: ")
    assert lines[2:] == ["listening", f"served {CONNECTIONS}"]
    assert gateway.kinds[:4] == ["resolve", "dial", "dial", "listen"]
    assert set(gateway.kinds[4:]) <= {"room", "closed", "ended"}
    said = [caller.recv(100) for caller in gateway.callers]
    assert said == [b"you said %d\n" % number for number in range(CONNECTIONS)]
    assert bench.replay(GUEST).end == ran.end
    for leftover in (server, *gateway.callers):
        leftover.close()
    assert open_sockets() == before


def serve_one_and_die(run: str) -> None:
    """Runs a guest on the network until it has answered one caller; then its host dies."""
    server = socket.create_server(("127.0.0.1", 0))
    port = Engine().network_port("10.0.0.2")
    gateway = Gateway(port, server, connections=1)
    for target, args in ((gateway.serve, ()), (echo, (server,))):
        threading.Thread(target=target, args=args, daemon=True).start()
    guest = Engine().run(replace(eval(run, dict(vars(specs))), network=port))
    guest.begin()
    assert gateway.listens.wait(WAIT_S)
    with gateway.callers[0].makefile("rb") as answer:
        assert answer.read() == b"you said 0\n"
    os.kill(os.getpid(), signal.SIGKILL)


def test_resumed(bench):
    """A resumed guest listens again, at the gateway that it has then."""
    (bench.work / "log").mkdir()
    log = LogSpec(str(bench.work / "log"), str(uuid.uuid4()), b"{}")
    spec = RunSpec(bench.module_spec(GUEST), (b"outside", b"db.internal:5432", b"2"), log=log)
    command = f"import sys; from {__name__} import serve_one_and_die; serve_one_and_die(sys.argv[1])"
    died = subprocess.run([sys.executable, "-c", command, repr(spec)], cwd=Path(__file__).parents[2], timeout=WAIT_S)
    assert died.returncode == -signal.SIGKILL
    port, stdout = Engine().network_port("10.0.0.2"), Pipe()
    with socket.socket() as unused:
        gateway = Gateway(port, unused, connections=1)
        thread = threading.Thread(target=gateway.serve)
        thread.start()
        run = replace(spec, log=replace(log, epoch=1), network=port, stdout_fd=stdout.write_end)
        guest = Engine().resume(ResumeSpec(run, str(bench.work)))
        outcome = guest.wait(WAIT_S)
        counts = Engine().count_calls([guest])
        del guest
        thread.join()
    assert stdout.finish() == b"served 2\n"
    live = sum(count for name, count in counts.items() if name.startswith("call:"))
    assert 0 < live < outcome.stats["calls"], "what it repeated isn't counted"
    assert {name.removeprefix("took_ns:") for name in counts if name.startswith("took_ns:")} == set(CALL_KINDS)
    assert (outcome.kind, outcome.code) == ("exit", 0), outcome
    assert gateway.kinds in (["listen", "ended"], ["listen", "closed", "ended"])
    assert gateway.callers[0].recv(99) == b"you said 0\n"
    gateway.callers[0].close()


def test_nobody_waits_for_unknown_requests():
    """Then descriptors are closed, except what should be delivered."""
    port = Engine().network_port()
    here, there = ("10.0.0.2", 1), ("10.0.0.3", 2)
    near, far = socket.socketpair()
    with far:
        assert not port.deliver(1, near.fileno(), here, there)
        assert not port.connected(1, near.detach(), here, there)
        assert far.recv(1) == b""
    assert not port.refuse(1, "EACCES")
    assert not port.addresses(1, ["::1"])
    assert not port.listening(1)
    assert port.take() == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda port: port.refuse(1, "ENOTHING"),
        lambda port: port.refuse(1, "ESUCCESS"),
        lambda port: port.addresses(1, []),
        lambda port: port.addresses(1, ["localhost"]),
        lambda port: port.connected(1, -1, ("10.0.0.1", 1), ("10.0.0.1", 1)),
        lambda port: port.connected(1, 0, ("nowhere", 1), ("10.0.0.1", 1)),
        lambda port: type(port)("::1"),
    ],
)
def test_wrong_arguments(wrong):
    """Are told, and nothing has happened."""
    with pytest.raises(ValueError, match=r"."):
        wrong(Engine().network_port())
    os.fstat(0)


def test_a_port_serves_one_guest(bench, tmp_path):
    """The second one is refused."""
    port = Engine().network_port()
    hello = Case("hello", BUILT.parent / "hello.wat")
    bench.run(hello, tmp_path, network=port)
    assert [event.kind for event in port.take()] == ["ended"]
    (bench.work / "log").rename(bench.work / "first")
    with pytest.raises(ValueError, match="serves a guest already"):
        bench.run(hello, tmp_path, network=port)
