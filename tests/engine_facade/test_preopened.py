"""Sockets that a guest has from its start."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import replace

import pytest

from tests.e2e.guests import GUESTS, Bench, Case, Pipe
from timecraftd.engine.runtime import Engine
from timecraftd.engine.spec import LimitSpec, LogSpec, ResumeSpec, RunSpec, SocketSpec
from timecraftd.errors import EngineError

GUEST = GUESTS / "preopened.wat"
RUN = """
import sys
from timecraftd.engine.runtime import Engine
from timecraftd.engine.spec import *
Engine().run(eval(sys.argv[1])).wait()
"""


@pytest.fixture
def listener():
    """Listens on the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def connection():
    """A connection, and its far end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        far.settimeout(60)
        yield near, far


def listener_spec(server: socket.socket) -> SocketSpec:
    return SocketSpec(server.fileno(), "tcp://127.0.0.1:0", server.getsockname())


def dial_spec(near: socket.socket) -> SocketSpec:
    return SocketSpec(near.fileno(), "tcp://far", near.getsockname(), near.getpeername())


def ask(at: tuple[str, int], text: bytes) -> bytes:
    """What the guest answers a client; nothing asks it to end."""
    with socket.create_connection(at, timeout=60) as client:
        if text:
            client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            return answer.read()


def test_a_server_without_an_extension(bench: Bench, tmp_path, listener, connection):
    """Its calls are preview 1's alone; the replay opens nothing."""
    near, far = connection
    answers = []

    def clients(_guest) -> None:
        for text in (b"one", b"two"):
            thread = threading.Thread(target=lambda text=text: answers.append(ask(listener.getsockname(), text)))
            thread.start()
            assert far.recv(9) == text
            far.sendall(b"answer to " + text + b"\n")
            thread.join()
        ask(listener.getsockname(), b"")

    given = {"listeners": (listener_spec(listener),), "dials": (dial_spec(near),)}
    module = replace(bench.module_spec(GUEST), sockets="none")
    ran = bench.run(
        Case("preopened", GUEST), tmp_path, lambda guest: (guest.begin(), clients(guest)), module=module, **given
    )
    assert ran.end == ("exit", 0, b"answer to one\nanswer to two\n", b"")
    assert answers == [b"answer to one\n", b"answer to two\n"]
    assert bench.replay(GUEST).end == ran.end


def test_resumed(bench: Bench, listener, connection):
    """With another listener; the connection has died with its host."""
    near, far = connection
    (bench.work / "log").mkdir()
    spec = RunSpec(
        bench.module_spec(GUEST),
        log=LogSpec(str(bench.work / "log"), str(uuid.uuid4()), b"{}"),
        listeners=(listener_spec(listener),),
        dials=(dial_spec(near),),
    )
    inherited = (listener.fileno(), near.fileno())
    with subprocess.Popen([sys.executable, "-c", RUN, repr(spec)], pass_fds=inherited) as host:
        near.close()
        at = listener.getsockname()
        far.sendall(b"first")
        assert ask(at, b"to far") == b"first"
        host.kill()
    listener.close()
    with socket.create_server(("127.0.0.1", 0)) as anew:
        stdout = Pipe()
        spec = replace(
            spec,
            log=replace(spec.log, epoch=1),
            listeners=(listener_spec(anew),),
            dials=(replace(spec.dials[0], fd=-1),),
            stdout_fd=stdout.write_end,
        )
        guest = Engine().resume(ResumeSpec(spec, str(bench.work)))
        guest.begin()
        assert ask(anew.getsockname(), b"again") == b"EP"
        ask(anew.getsockname(), b"")
        outcome = guest.wait(60)
        del guest
        assert stdout.finish() == b"EP"
    assert (outcome.kind, outcome.code) == ("exit", 0), outcome
    assert bench.replay(GUEST).stdout == b"firstEP"


def test_too_many(bench: Bench, listener):
    """The limit on sockets counts them."""
    spec = RunSpec(bench.module_spec(GUEST), limits=LimitSpec(sockets=0), listeners=(listener_spec(listener),))
    with pytest.raises(EngineError, match="sockets: the limit of 0 is below the 1"):
        Engine().run(spec)


def test_the_same_address_twice(bench: Bench, listener):
    """It is a port of the guest's loopback too."""
    spec = RunSpec(bench.module_spec(GUEST), listeners=(listener_spec(listener), listener_spec(listener)))
    with pytest.raises(EngineError, match="EADDRINUSE"):
        Engine().run(spec)
