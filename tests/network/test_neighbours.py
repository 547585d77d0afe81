"""Guests of one node, at gateways of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.network.fakes import FakePort, in_loop
from timecraftd.config import NetworkConfig
from timecraftd.errors import NetworkError
from timecraftd.network.gateway import Gateway, GuestNetwork
from timecraftd.network.neighbours import Caller, GuestDirectory, Neighbour, short_path
from timecraftd.network.rules import parse_policy
from timecraftd.network.virtual import VirtualNetwork


@pytest.fixture
def directory(tmp_path):
    """Deep enough for paths that no Unix socket takes."""
    return GuestDirectory(str(tmp_path / ("d" * 120) / "guests"))


@contextlib.asynccontextmanager
async def guests(directory, **rules):
    """A guest per name, each at its own gateway: (port, attachment) of each, in their order."""
    gateways, served = [], []
    try:
        for name, policy in rules.items():
            gateway = Gateway(NetworkConfig(), lookup=nobody, neighbours=GuestDirectory(directory._path))
            port, member = FakePort(), directory.join(name)
            gateways.append(gateway)
            asked = GuestNetwork(name, parse_policy(policy), member=member)
            served.append((port, gateway.add(port, asked)))
        yield served
    finally:
        for gateway in gateways:
            await gateway.close()
        for port, _ in served:
            port.dispose()


def nobody(*_):
    raise socket.gaierror(socket.EAI_NONAME, "unknown")


@in_loop
async def test_guests_reach_each_other_by_name_and_address(directory):
    async with guests(directory, web=[], client=["guest:web:80"]) as ((web, web_at), (client, client_at)):
        ipv4 = web.listen(80)
        await web.answer(ipv4)
        for name in ("web", "Web.", "web.guest.internal"):
            answer = await client.answer(client.ask("resolve", name=name))
            assert answer.addresses == ["10.86.0.2", "fd74:696d:6563::2"]
        for address, source in [("10.86.0.2", None), ("10.86.0.2", ("0.0.0.0", 4444)), ("fd74:696d:6563::2", None)]:
            answer = await client.answer(client.dial(address, 80, source=source))
            arrival = await web.arrival(ipv4)
            with answer.connection, arrival.connection:
                assert answer.peer == (address, 80)
                assert arrival.local == ("10.86.0.2", 80)
                assert arrival.peer == ("10.86.0.3", answer.local[1]), "both sides see the same"
                assert source is None or answer.local[1] == 4444
                answer.connection.send(b"ping")
                assert await asyncio.get_running_loop().sock_recv(arrival.connection, 99) == b"ping"
        assert web_at.snapshot()["granted"][0]["subject"] == "tcp fd74:696d:6563::3 (guest:client) to port 80"
        assert client_at.snapshot()["rules"][0]["count"] == 9
        assert (await client.answer(client.dial("10.86.0.2", 81))).errno == "EACCES"


@in_loop
async def test_only_what_a_rule_names_is_reached(directory):
    rules = {"web": [], "db": [], "client": ["guest:web", "all", "10.0.0.0/8"], "other": []}
    async with guests(directory, **rules) as ((web, _), (db, _), (client, client_at), (other, _)):
        for port in (web, db):
            await port.answer(port.listen(80))
        assert (await client.answer(client.dial("10.86.0.3", 80))).errno == "EACCES"
        assert (await client.answer(client.ask("resolve", name="db.guest.internal"))).errno == "EACCES"
        assert (await client.answer(client.ask("resolve", name="nobody.guest.internal"))).errno == "EACCES"
        assert (await client.answer(client.ask("resolve", name="db"))).errno == "ENOENT", "it might be a host's"
        assert (await other.answer(other.ask("resolve", name="web"))).errno == "EACCES"
        assert (await other.answer(other.dial("10.86.0.2", 80))).errno == "EACCES"
        assert (await client.answer(client.dial("10.86.0.2", 81))).errno == "ECONNREFUSED"
        assert (await client.answer(client.dial("10.86.0.2", 80, "udp"))).errno == "ECONNREFUSED"
        assert (await client.answer(client.dial("10.86.99.9", 80))).errno == "EACCES"
        assert any(entry["rule"] == "" for entry in client_at.snapshot()["refused"])


@in_loop
async def test_guests_that_have_not_joined_neither_see_nor_are_seen(directory):
    gateway, port = Gateway(NetworkConfig(), lookup=nobody, neighbours=directory), FakePort()
    gateway.add(port, GuestNetwork("alone", parse_policy(["guest:*"])))
    async with guests(directory, web=[], client=["guest:*"]) as ((web, _), (client, _)):
        await web.answer(web.listen(80))
        assert (await port.answer(port.ask("resolve", name="web"))).errno == "EACCES"
        assert (await port.answer(port.ask("resolve", name="web.guest.internal"))).errno == "EACCES"
        assert (await port.answer(port.dial("10.86.0.2", 80))).errno == "EACCES"
        assert (await client.answer(client.ask("resolve", name="alone.guest.internal"))).errno == "ENOENT"
        assert (await client.answer(client.dial("10.86.0.9", 80))).errno == "EHOSTUNREACH"
    await gateway.close()
    port.dispose()


@in_loop
async def test_the_called_guest_decides_too(directory):
    async with guests(directory, web=["deny in guest:client"], client=["guest:*"]) as ((web, web_at), (client, _)):
        await web.answer(web.listen(80))
        answer = await client.answer(client.dial("10.86.0.2", 80))
        with answer.connection as connection:
            assert await asyncio.get_running_loop().sock_recv(connection, 9) == b""
        assert web_at.snapshot()["refused"][0]["rule"] == "deny in guest:client"


@in_loop
async def test_connections_wait_for_room_and_are_closed_with_the_listener(directory):
    async with guests(directory, web=[], client=["guest:*"]) as ((web, _), (client, _)):
        listener = web.listen(80)
        await web.answer(listener)
        web.listeners[listener] = 1
        calls = [(await client.answer(client.dial("10.86.0.2", 80))).connection for _ in range(3)]
        first = await web.arrival(listener)
        web.make_room(listener, 1)
        second = await web.arrival(listener)
        web.close(listener)
        assert await asyncio.get_running_loop().sock_recv(calls[2], 9) == b""
        assert (await client.answer(client.dial("10.86.0.2", 80))).errno == "ECONNREFUSED"
        for connection in [*calls, first.connection, second.connection]:
            connection.close()


@in_loop
async def test_a_full_backlog_makes_callers_wait(directory):
    member = directory.join("web")
    listener = member.listen(80, "tcp")
    listener.listen(0)
    web, caller = Neighbour(member.number, "web"), Caller(9, 4444, 4)
    first = await directory.connect(web, 80, "tcp", caller)
    second = asyncio.create_task(directory.connect(web, 80, "tcp", caller))
    await asyncio.sleep(0.01)
    assert not second.done()
    third = asyncio.create_task(directory.connect(web, 80, "tcp", caller))
    for _ in range(3):
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        accepted.close()
    for connection in (first, await second, await third):
        connection.close()
    listener.close()
    member.leave()


@in_loop
async def test_callers_without_a_preamble_are_turned_away(directory):
    async with guests(directory, web=[], client=["guest:*"]) as ((web, web_at), (client, _)):
        listener = web.listen(80)
        await web.answer(listener)
        for first in (b"", b"GET / HTTP/1.1\r\n"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.setblocking(False)
                with short_path(directory.directory_of(2), "80") as path:
                    stranger.connect(path)
                stranger.send(first)
                stranger.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(stranger, 9) == b""
        (await client.answer(client.dial("10.86.0.2", 80))).connection.close()
        (await web.arrival(listener)).connection.close()
        assert len(web_at.snapshot()["granted"]) == 1


def test_numbers_are_unique_and_not_used_again_at_once(directory):
    first, second = directory.join("a"), directory.join("a")
    assert (first.number, second.number) == (2, 3)
    assert directory.find("a") == [Neighbour(3, "a"), Neighbour(2, "a")]
    first.leave()
    first.leave()
    third = directory.join("A")
    assert third.number == 4
    again = directory.join("b", number=2)
    assert again.number == 2
    other = directory.join("b", number=3)
    assert other.number == 5, "it is taken"
    assert os.stat(directory._path).st_mode & 0o777 == 0o700
    for member in (second, third, again, other):
        member.leave()
    assert os.listdir(directory._path) == ["lock"]


def test_the_number_of_guests_is_bounded(tmp_path):
    directory = GuestDirectory(str(tmp_path / "guests"), VirtualNetwork.of("10.9.0.0/28", "fd00::/64"))
    members = [directory.join(f"g{number}") for number in range(13)]
    assert {member.number for member in members} == set(range(2, 15))
    with pytest.raises(NetworkError, match="all 13 addresses are taken"):
        directory.join("one more")
    members[4].leave()
    last = directory.join("one more")
    assert last.number == members[4].number
    for member in (*members, last):
        member.leave()


@pytest.mark.parametrize(
    ("ipv4", "ipv6"),
    [("10.0.0.0/29", "fd00::/64"), ("10.0.0.1/8", "fd00::/64"), ("x", "fd00::/64"), ("10.0.0.0/8", "fd00::/97")],
)
def test_wrong_ranges(ipv4, ipv6):
    with pytest.raises(NetworkError, match="guests' addresses"):
        VirtualNetwork.of(ipv4, ipv6)


def test_what_a_dead_host_left_is_removed(directory):
    script = (
        "import sys; from timecraftd.network.neighbours import GuestDirectory;"
        "member = GuestDirectory(sys.argv[1]).join('web'); keep = member.listen(80, 'tcp');"
        "print(member.number, flush=True); sys.stdin.read()"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", script, directory._path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert host.stdout.readline() == "2\n"
    assert directory.find("web") == [Neighbour(2, "web")]
    host.send_signal(signal.SIGKILL)
    host.communicate()
    assert directory.find("web") == []
    assert directory.at(2) is None
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(directory.connect(Neighbour(2, "web"), 80, "tcp", Caller(3, 1, 4)))
    assert sorted(os.listdir(directory._path)) == ["2", "lock"]
    member = directory.join("other")
    assert sorted(os.listdir(directory._path)) == ["3", "lock"]
    member.leave()


def test_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NetworkError, match=r"Not a directory|File exists"):
        GuestDirectory(str(tmp_path / "file")).join("a")
