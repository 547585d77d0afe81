"""Datagrams between Python guests of one state directory, each in a host of its own: recorded, replayed, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e.cli import TIMEOUT_S, Cli, kill9, wait_for

SERVER = """
    import asyncio

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, peer):
            print(peer[0], data.decode(), flush=True)
            self.transport.sendto(b"you said " + data, peer)
            if data == b"stop":
                asyncio.get_running_loop().call_later(0.01, over.set)

    async def main():
        global over
        over = asyncio.Event()
        await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("0.0.0.0", 9999))
        print("bound", flush=True)
        await over.wait()

    asyncio.run(main())
"""
CLIENT = """
    import asyncio, socket, sys

    (_, _, _, _, ipv4), (_, _, _, _, ipv6) = socket.getaddrinfo("echo", 9999, type=socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        for data in (b"hello", b"", b"x" * 60_000):
            near.sendto(data, ipv4)
            answer, peer = near.recvfrom(65_536)
            assert (answer, peer) == (b"you said " + data, ipv4), (len(answer), peer)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as near:
        near.connect(ipv6)
        near.send(b"six")
        print(near.recv(100), near.getpeername() == ipv6)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        print(near.sendto(b"lost", (ipv4[0], 9998)))
        near.connect((ipv4[0], 9998))
        try:
            near.send(b"x")
            near.recv(9)
        except ConnectionRefusedError:
            print("refused")

    class Last(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            transport.sendto(sys.argv[1].encode())

        def datagram_received(self, data, peer):
            print(data)
            over.set()

    async def main():
        global over
        over = asyncio.Event()
        await asyncio.get_running_loop().create_datagram_endpoint(Last, remote_addr=ipv4)
        await over.wait()

    asyncio.run(main())
"""
SAID = "b'you said six' True\n4\nrefused\n"


@pytest.fixture
def programs(scratch: Path) -> tuple[Path, Path]:
    """The server's and the client's file."""
    paths = scratch / "server.py", scratch / "client.py"
    for path, text in zip(paths, (SERVER, CLIENT), strict=True):
        path.write_text(dedent(text))
    return paths


def test_guests_speak_udp_and_go_on_after_a_death(cli: Cli, programs: tuple[Path, Path]):
    """A server is asked, dies, is resumed, and is asked at the same port again; all of it is replayed."""
    server, client = programs
    host = cli.start("run", "--name", "echo", "--net", "in guest:*", server)
    process = host.stderr.readline().decode().strip()
    wait_for(lambda: host.stdout.readline() == b"bound\n", "the server is bound")
    first, done = cli.run("--name", "one", "--net", "udp guest:echo", client, "more")
    assert done.out == SAID + "b'you said more'\n", done.shown
    kill9(host)
    resumed = cli.start("resume", process)
    assert resumed.stderr.readline().decode().strip() == process
    second, done = cli.run("--name", "two", "--net", "udp guest:echo", client, "stop")
    assert done.out == SAID + "b'you said stop'\n", done.shown
    out, err = resumed.communicate(timeout=TIMEOUT_S)
    assert resumed.returncode == 0, err
    assert out.decode().splitlines()[-1].endswith(" stop"), out
    for each in (process, first, second):
        assert "the same to the end" in cli("replay", "--verify", each).out
    decided = json.loads(cli("describe", "process", process, "-o", "json").out)["network"]
    assert any("(guest:two) to port 9999" in entry["subject"] for entry in decided["granted"]), decided


def test_nothing_is_sent_to_a_guest_without_a_rule(cli: Cli, programs: tuple[Path, Path], scratch: Path):
    """Neither an address nor a name leads there, and what isn't heard isn't told."""
    host = cli.start("run", "--name", "echo", "--net", "in guest:*", programs[0])
    process = host.stderr.readline().decode().strip()
    wait_for(lambda: host.stdout.readline() == b"bound\n", "the server is bound")
    number = json.loads((cli.process_dir(process) / "network.json").read_text())["number"]
    intruder = scratch / "intruder.py"
    intruder.write_text(
        dedent(f"""
        import socket
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for own in ("10.86.0.{number}", "10.86.0.1"):
            try:
                near.bind((own, 9999))
            except OSError as error:
                print(error.strerror)
        try:
            near.sendto(b"hello", ("10.86.0.{number}", 9999))
        except OSError as error:
            print(error.strerror)
        """)
    )
    for rule in ("guest:other", "tcp guest:echo", "in guest:*"):
        _, done = cli.run("--net", rule, intruder)
        assert done.out == "Address not available\nAddress not available\nPermission denied\n", done.shown
    assert not json.loads(cli("describe", "process", process, "-o", "json").out)["network"]["granted"]
    kill9(host)
