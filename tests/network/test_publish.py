"""What comes in through published ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tests.network.fakes import FakePort, in_loop, serve
from timecraftd.config import NetworkConfig
from timecraftd.errors import NetworkError, UsageError
from timecraftd.network.gateway import Gateway, GuestNetwork
from timecraftd.network.neighbours import GuestDirectory
from timecraftd.network.policy import Policy
from timecraftd.network.publish import Publication, parse_publication, publish
from timecraftd.network.rules import parse_policy

LOCAL = Publication("127.0.0.1", 0, 80)


@pytest.mark.parametrize(
    ("text", "publication"),
    [
        ("8080:80", Publication("", 8080, 80)),
        ("0:80", Publication("", 0, 80)),
        ("8080:80/tcp", Publication("", 8080, 80)),
        ("53:53/udp", Publication("", 53, 53, "udp")),
        ("127.0.0.1:8080:80", Publication("127.0.0.1", 8080, 80)),
        ("[::1]:8080:80/udp", Publication("::1", 8080, 80, "udp")),
    ],
)
def test_publications_have_a_text(text, publication):
    assert parse_publication(text) == publication
    assert parse_publication(str(publication)) == publication


@pytest.mark.parametrize(
    "text",
    ["", "80", "8080:", ":80", "a:80:80", "localhost:80:80", "::1:80:80", "[::1:80:80", "65536:80", "80:0", "80:65536",
     "80:80/sctp", "80:80/", "1:2:3:4", "127.0.0.1:80", "[fe80::1%1]:80:80"],
)  # fmt: skip
def test_wrong_publications(text):
    with pytest.raises(UsageError) as refused:
        parse_publication(text)
    assert refused.value.next_step


def test_a_port_in_use_is_an_error_before_the_guest_runs():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(NetworkError, match=f"-p 127.0.0.1:{number}:80: can't bind .* the port is in use; end what"):
            publish([LOCAL, Publication("127.0.0.1", number, 80)], Policy())
        with pytest.raises(NetworkError, match="in use"):
            publish([Publication("", number, 80)], Policy())
    for transport in ("tcp", "udp"):
        with contextlib.ExitStack() as stack:
            (first,) = publish([Publication("127.0.0.1", 0, 80, transport)], Policy())
            stack.callback(first.close)
            with pytest.raises(NetworkError, match="in use"):
                publish([first.publication], Policy())


def test_addresses_that_are_not_the_hosts():
    with pytest.raises(NetworkError, match="the address isn't this host's"):
        publish([Publication("192.0.2.250", 0, 80)], Policy())


def test_all_addresses_have_one_port():
    """IPv4 and IPv6 are sockets of their own, on the same port."""
    (each,) = publish([Publication("", 0, 80)], Policy())
    ports = {bound.getsockname()[1] for bound in each.sockets.values()}
    assert ports == {each.publication.host_port}
    assert set(each.sockets) == {4, 6}
    each.close()


def test_datagrams_are_published_only_if_the_policy_can_be_held():
    datagrams = Publication("127.0.0.1", 0, 53, "udp")
    for rules in (["deny in 10.0.0.0/8"], ["in 10.0.0.0/8", "deny in *"], ["deny in *"], ["deny in udp *:50-60"]):
        with pytest.raises(NetworkError, match=r"deny in|allow in"):
            publish([datagrams], parse_policy(rules))
    for rules in (["deny in tcp *"], ["deny in *:80"], ["in *", "deny in *"], ["deny *"]):
        (each,) = publish([datagrams], parse_policy(rules))
        each.close()
    with pytest.raises(NetworkError, match="is published twice"):
        publish([datagrams, datagrams], Policy())


@contextlib.asynccontextmanager
async def call(attachment, host="127.0.0.1"):
    """A connection from the host to a published port."""
    number = attachment.published[0].publication.host_port
    reader, writer = await asyncio.open_connection(host, number)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@in_loop
async def test_connections_are_handed_to_the_guest():
    async with serve(published=(LOCAL,)) as (port, attachment):
        listener = port.listen(80)
        assert not (await port.answer(listener)).errno
        async with call(attachment) as (reader, writer):
            arrival = await port.arrival(listener)
            assert arrival.local == ("10.86.0.2", 80)
            number = writer.get_extra_info("sockname")[1]
            assert arrival.peer == ("10.86.0.1", number), "the host's loopback isn't the guest's"
            arrival.connection.sendall(b"hello")
            arrival.connection.close()
            assert await reader.read() == b"hello"
        assert attachment.snapshot()["granted"][0]["subject"] == "tcp 127.0.0.1 (host) to port 80"
        other = port.listen(81)
        assert (await port.answer(other)).errno == "EADDRNOTAVAIL", "nobody could reach it"


@in_loop
async def test_connections_wait_until_the_guest_listens():
    async with serve(published=(LOCAL,)) as (port, attachment):
        async with call(attachment), call(attachment):
            listener = port.listen(80)
            for _ in range(2):
                (await port.arrival(listener)).connection.close()
        port.close(listener)
        async with call(attachment):
            again = port.listen(80)
            (await port.arrival(again)).connection.close()


@in_loop
async def test_one_connection_is_held_while_the_backlog_is_full():
    async with serve(published=(LOCAL,)) as (port, attachment):
        listener = port.listen(80)
        await port.answer(listener)
        port.listeners[listener] = 1
        async with call(attachment), call(attachment), call(attachment):
            first = await port.arrival(listener)
            await turn()
            assert port.delivered[listener].empty()
            port.make_room(listener, 2)
            for arrival in [first, await port.arrival(listener), await port.arrival(listener)]:
                arrival.connection.close()


async def turn():
    """Lets the loop do all that it can."""
    for _ in range(50):
        await asyncio.sleep(0)


@in_loop
async def test_what_nobody_takes_is_reset_at_the_guests_end():
    async with serve(published=(LOCAL,)) as (port, attachment):
        listener = port.listen(80)
        await port.answer(listener)
        port.listeners[listener] = 0
        async with call(attachment) as (held, _), call(attachment) as (waiting, _):
            await turn()
            port.end()
            for reader in (held, waiting):
                with pytest.raises(ConnectionResetError):
                    await reader.read()
        with pytest.raises(ConnectionRefusedError):
            async with call(attachment):
                pass


@in_loop
async def test_what_the_policy_denies_is_reset():
    async with serve("deny in host:80", published=(LOCAL,)) as (port, attachment):
        await port.answer(port.listen(80))
        async with call(attachment) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        (entry,) = attachment.snapshot()["refused"]
        assert (entry["subject"], entry["rule"]) == ("tcp 127.0.0.1 (host) to port 80", "deny in host:80")


@in_loop
async def test_versions_of_ip_find_their_listeners():
    async with serve(published=(Publication("", 0, 80),)) as (port, attachment):
        ipv4 = port.listen(80)
        await port.answer(ipv4)
        async with call(attachment, "::1") as (_, writer):
            arrival = await port.arrival(ipv4)
            arrival.connection.close()
            assert arrival.peer == ("10.86.0.1", writer.get_extra_info("sockname")[1])
        ipv6 = port.listen(80, "::")
        await port.answer(ipv6)
        async with call(attachment, "::1"):
            arrival = await port.arrival(ipv6)
            arrival.connection.close()
            assert arrival.local == ("fd74:696d:6563::2", 80)
        port.close(ipv4)
        async with call(attachment, "127.0.0.1"):
            arrival = await port.arrival(ipv6)
            arrival.connection.close()
            assert arrival.peer[0] == "fd74:696d:6563::1"


@in_loop
async def test_datagrams_are_the_guests_own():
    async with serve(published=(Publication("127.0.0.1", 0, 53, "udp"),)) as (port, attachment):
        number = attachment.published[0].publication.host_port
        assert (await port.answer(port.listen(53, "::", "udp"))).errno == "EADDRNOTAVAIL"
        for _ in range(2):  # it may close the socket and bind another
            request = port.listen(53, transport="udp")
            with (await port.answer(request)).connection as bound, socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"ping", ("127.0.0.1", number))
                assert await asyncio.get_running_loop().sock_recv(bound, 9) == b"ping"
                assert bound.getsockname() == ("127.0.0.1", number)
            port.close(request)


@in_loop
async def test_a_guest_that_cannot_publish_leaves_its_neighbours(tmp_path):
    directory = GuestDirectory(str(tmp_path / "guests"))
    gateway, port = Gateway(NetworkConfig(), neighbours=directory), FakePort()
    member = directory.join("web")
    with pytest.raises(NetworkError):
        gateway.add(port, GuestNetwork("web", published=(Publication("192.0.2.250", 0, 80),), member=member))
    assert directory.find("web") == []
    await gateway.close()
    port.dispose()
