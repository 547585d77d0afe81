"""Datagrams between guests of one node, at gateways of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.network.fakes import in_loop, until
from tests.network.test_neighbours import guests
from timecraftd.network.neighbours import GuestDirectory
from timecraftd.network.publish import Publication, publish
from timecraftd.network.rules import parse_policy


@pytest.fixture
def directory(tmp_path):
    return GuestDirectory(str(tmp_path / "guests"))


async def received(connection):
    """The next message."""
    return await asyncio.get_running_loop().sock_recv(connection, 99)


@in_loop
async def test_a_flow_leads_from_one_guests_port_to_anothers(directory):
    async with guests(directory, dns=[], client=["udp guest:dns:53"]) as ((dns, dns_at), (client, client_at)):
        ipv4 = dns.listen(53, transport="udp", backlog=64)
        await dns.answer(ipv4)
        for address, source in [("10.86.0.2", ("0.0.0.0", 4444)), ("fd74:696d:6563::2", None)]:
            answer = await client.answer(client.dial(address, 53, "udp", source))
            arrival = await dns.arrival(ipv4)
            with answer.connection, arrival.connection:
                assert (answer.peer, arrival.local) == ((address, 53), ("10.86.0.2", 53))
                assert arrival.peer == ("10.86.0.3", answer.local[1]), "both sides see the same"
                assert source is None or answer.local[1] == 4444
                for data in (b"\0ping", b"\0", b"\0pong"):
                    answer.connection.send(data)
                assert [await received(arrival.connection) for _ in range(3)] == [b"\0ping", b"\0", b"\0pong"]
                arrival.connection.send(b"\0answer")
                assert await received(answer.connection) == b"\0answer"
        granted = [entry["subject"] for entry in dns_at.snapshot()["granted"]]
        assert granted == [f"udp {each} (guest:client) to port 53" for each in ("fd74:696d:6563::3", "10.86.0.3")]
        assert client_at.snapshot()["granted"][1]["subject"] == "udp 10.86.0.2:53 (guest:dns)"
        # TCP has ports of its own, and a rule for one transport is none for the other.
        assert (await client.answer(client.dial("10.86.0.2", 53))).errno == "EACCES"
        dns.close(ipv4)
        await until(lambda: not Path(directory.directory_of(2), "53.udp").exists())
        assert (await client.answer(client.dial("10.86.0.2", 53, "udp"))).errno == "ECONNREFUSED"


@in_loop
async def test_nothing_flows_without_a_rule_or_against_one(directory):
    rules = {"dns": ["deny in udp guest:client:53"], "client": ["guest:dns"], "other": ["tcp guest:dns"]}
    async with guests(directory, **rules) as ((dns, dns_at), (client, _), (other, other_at)):
        await dns.answer(dns.listen(53, transport="udp", backlog=64))
        answer = await client.answer(client.dial("10.86.0.2", 53, "udp"))
        with answer.connection as flow:
            assert await received(flow) == b"", "the called guest decides, too"
        assert dns_at.snapshot()["refused"][0]["rule"] == "deny in udp guest:client:53"
        assert (await other.answer(other.dial("10.86.0.2", 53, "udp"))).errno == "EACCES"
        assert other_at.snapshot()["refused"][0]["subject"] == "udp 10.86.0.2:53 (guest:dns)"
        assert (await client.answer(client.dial("10.86.99.9", 53, "udp"))).errno == "EACCES"
        assert (await dns.answer(dns.dial("10.86.0.3", 53, "udp"))).errno == "EACCES", "it has no rule for anybody"


@in_loop
async def test_flows_without_room_are_closed(directory):
    async with guests(directory, dns=[], client=["guest:dns"]) as ((dns, _), (client, _)):
        request = dns.listen(53, transport="udp", backlog=64)
        await dns.answer(request)
        dns.listeners[request] = 1
        first = await client.answer(client.dial("10.86.0.2", 53, "udp"))
        second = await client.answer(client.dial("10.86.0.2", 53, "udp"))
        arrival = await dns.arrival(request)
        with first.connection, second.connection, arrival.connection:
            first.connection.send(b"\0kept")
            assert await received(arrival.connection) == b"\0kept"
            assert await received(second.connection) == b""


@in_loop
async def test_guests_take_the_same_port_without_a_clash(directory):
    async with guests(directory, one=[], two=[], client=["guest:*"]) as ((one, _), (two, _), (client, _)):
        for number, port in ((2, one), (3, two)):
            request = port.listen(53, transport="udp", backlog=64)
            await port.answer(request)
            answer = await client.answer(client.dial(f"10.86.0.{number}", 53, "udp"))
            arrival = await port.arrival(request)
            with answer.connection, arrival.connection:
                assert arrival.local == (f"10.86.0.{number}", 53)
        assert one.delivered[1].empty()


def test_rules_about_guests_are_held_on_a_published_port_too():
    datagrams = Publication("127.0.0.1", 0, 53, "udp")
    (published,) = publish([datagrams], parse_policy(["deny in guest:client", "in guest:*"]))
    published.close()
