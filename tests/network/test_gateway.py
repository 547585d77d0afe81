"""Dialling and names: what a guest asks for, and what it gets."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
import time

import pytest

from tests.network.fakes import FakeEvent, FakePort, failed, in_loop, listener, refused, serve, until
from timecraftd.config import NetworkConfig
from timecraftd.network import attachment as attachment_module
from timecraftd.network import port as port_module
from timecraftd.network.decisions import LINES_PER_S_MAX, RECENT_MAX, Decisions
from timecraftd.network.gateway import Gateway, GuestNetwork
from timecraftd.network.policy import Decision, Policy
from timecraftd.network.rules import parse_policy


@in_loop
async def test_nothing_is_reachable_by_default():
    async with serve() as (port, attachment):
        for request in [
            port.dial("192.0.2.1", 80),
            port.dial("192.0.2.1", 53, "udp"),
            port.dial("127.0.0.1", 80),
            port.dial("10.86.0.1", 80),
            port.dial("169.254.169.254", 80),
            port.ask("resolve", name="example.com"),
            port.ask("resolve", name="host.internal"),
        ]:
            assert (await port.answer(request)).errno == "EACCES"
        assert (await port.answer(port.listen(80))).errno == "EADDRNOTAVAIL"
        assert len(refused(attachment)) == 8
        assert ("tcp 192.0.2.1:80", "no rule allows it") in refused(attachment)


@pytest.mark.parametrize(
    ("family", "host", "dialled"),
    [
        (socket.AF_INET, "127.0.0.1", "10.86.0.1"),
        (socket.AF_INET6, "::1", "fd74:696d:6563::1"),
        (socket.AF_INET, "127.0.0.1", "::ffff:10.86.0.1"),
    ],
)
@in_loop
async def test_a_guest_dials_the_host(family, host, dialled):
    with listener(family, host) as (server, number):
        async with serve(f"host:{number}") as (port, _):
            answer = await port.answer(port.dial(dialled, number, source=("0.0.0.0", 5555)))
            assert answer.peer == (dialled, number), "as the guest dialled"
            assert answer.local == ("fd74:696d:6563::2" if ":" in dialled else "10.86.0.2", 5555)
            accepted, _ = server.accept()
            with accepted, answer.connection as connection:
                accepted.sendall(b"hello")
                assert await asyncio.get_running_loop().sock_recv(connection, 9) == b"hello"
            other = await port.answer(port.dial(dialled, number + 1))
            assert other.errno == "EACCES"


@in_loop
async def test_a_rule_with_the_loopbacks_own_address_leads_to_the_host():
    with listener() as (_, number):
        async with serve(f"127.0.0.1:{number}") as (port, _):
            answer = await port.answer(port.dial("10.86.0.1", number))
            answer.connection.close()
            assert answer.local[1] >= 1024


@in_loop
async def test_datagrams_flow_to_one_peer():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        number = server.getsockname()[1]
        async with serve(f"udp host:{number}") as (port, _):
            assert (await port.answer(port.dial("10.86.0.1", number))).errno == "EACCES"
            with (await port.answer(port.dial("10.86.0.1", number, "udp"))).connection as flow:
                flow.send(b"ping")
                message, peer = server.recvfrom(9)
                server.sendto(b"pong", peer)
                assert message == b"ping"
                assert await asyncio.get_running_loop().sock_recv(flow, 9) == b"pong"


@in_loop
async def test_errors_of_connecting_reach_the_guest():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        number = unused.getsockname()[1]
        async with serve("all", "host") as (port, attachment):
            assert (await port.answer(port.dial("10.86.0.1", number))).errno == "ECONNREFUSED"
            assert (await port.answer(port.dial("not an address", 1))).errno == "EINVAL"
            assert f"tcp 127.0.0.1:{number} (host)" in dict(failed(attachment))


def test_every_error_has_a_name_that_wasi_knows():
    text = " ".join(port_module.wasi_errno(number) for number in errno.errorcode)
    assert set(text.split()) <= port_module._SAME
    assert port_module.wasi_errno(errno.ECONNREFUSED) == "ECONNREFUSED"
    assert port_module.wasi_errno(errno.EMFILE) == "ENFILE"
    assert port_module.wasi_errno(errno.EKEYEXPIRED) == "EIO"
    assert port_module.wasi_errno(None) == "EIO"


@in_loop
async def test_a_dial_that_nobody_answers_times_out():
    with listener(backlog=0) as (_, number):
        fill = [socket.socket() for _ in range(4)]
        try:
            for each in fill:  # a full backlog drops what else comes
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", number))
            async with serve("host", config=NetworkConfig(connect_s_max=0.1)) as (port, attachment):
                assert (await port.answer(port.dial("10.86.0.1", number))).errno == "ETIMEDOUT"
                assert failed(attachment) == [(f"tcp 127.0.0.1:{number} (host)", "no answer within 0.1 s")]
        finally:
            for each in fill:
                each.close()


@in_loop
async def test_thousands_of_dials_at_once():
    with listener() as (server, number):
        async with serve("host", config=NetworkConfig(dials_max=256)) as (port, attachment):
            server.setblocking(False)
            accepted = asyncio.create_task(accept_all(server, 2000))
            requests = [port.dial("10.86.0.1", number) for _ in range(2000)]
            for request in requests:
                (await port.answer(request)).connection.close()
            assert await accepted == 2000
            (entry,) = attachment.snapshot()["granted"]
            assert (entry["count"], entry["rule"]) == (2000, "allow host")
            assert attachment.snapshot()["rules"][0]["count"] == 2000


async def accept_all(server, count):
    loop = asyncio.get_running_loop()
    for _ in range(count):
        connection, _ = await loop.sock_accept(server)
        connection.close()
    return count


@in_loop
async def test_closed_requests_are_withdrawn():
    with listener(backlog=0) as (_, number):
        fill = [socket.socket() for _ in range(4)]
        for each in fill:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", number))
        async with serve("host") as (port, attachment):
            requests = [port.dial("10.86.0.1", number) for _ in range(50)]
            await until(lambda: len(attachment._requests) == 50)
            for request in requests[:49]:
                port.close(request)
            await until(lambda: len(attachment._requests) == 1)
            port.end()
            await until(lambda: not attachment._requests)
            assert not any(map(port.is_answered, requests))
        for each in fill:
            each.close()


# ---- names


@pytest.fixture
def dialled(monkeypatch):
    """Peers that the gateway has connected to; nothing leaves the machine."""
    peers = []

    async def connect(peer):
        peers.append((str(peer.address), peer.port, sorted(peer.names)))
        return socket.socket()

    monkeypatch.setattr(attachment_module.dial, "connect", connect)
    return peers


async def reach(port, host, number):
    """Whether a dial gets through: 0, or the errno."""
    answer = await port.answer(port.dial(host, number))
    if answer.connection:
        answer.connection.close()
    return answer.errno


@in_loop
async def test_a_rule_with_a_name_admits_what_the_name_meant(dialled):
    names = {"api.example.com": ["192.0.2.7", "2001:db8::7"], "other.example": ["192.0.2.8"]}
    async with serve("*.example.com:443", lookup=names) as (port, _):
        assert await reach(port, "192.0.2.7", 443) == "EACCES"
        answer = await port.answer(port.ask("resolve", name="API.Example.com."))
        assert answer.addresses == ["192.0.2.7", "2001:db8::7"]
        for host in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"):
            assert not await reach(port, host, 443)
        assert await reach(port, "192.0.2.7", 80) == "EACCES"
        assert (await port.answer(port.ask("resolve", name="other.example"))).errno == "EACCES"
        assert await reach(port, "192.0.2.8", 443) == "EACCES"
    assert dialled == [
        ("192.0.2.7", 443, ["api.example.com"]),
        ("2001:db8::7", 443, ["api.example.com"]),
        ("192.0.2.7", 443, ["api.example.com"]),
    ]


@in_loop
async def test_no_name_leads_to_the_host_or_to_guests(dialled):
    names = {"a.example": ["10.86.0.1", "fd74:696d:6563::1"]}
    async with serve("a.example", lookup=names) as (port, _):
        for address in (await port.answer(port.ask("resolve", name="a.example"))).addresses:
            assert await reach(port, address, 80) == "EACCES"
    assert not dialled


@in_loop
async def test_a_redirect_to_what_is_denied_is_refused(dialled):
    """A server that is allowed can only tell the guest to ask for something else."""
    names = {"a.example": ["192.0.2.7"], "b.example": ["192.0.2.8"]}
    async with serve("a.example", lookup=names) as (port, _):
        await port.answer(port.ask("resolve", name="a.example"))
        assert not await reach(port, "192.0.2.7", 80)
        for location in ("192.0.2.8", "169.254.169.254", "10.86.0.1", "10.0.0.1", "64:ff9b::a9fe:a9fe"):
            assert await reach(port, location, 80) == "EACCES"
        assert (await port.answer(port.ask("resolve", name="b.example"))).errno == "EACCES"
    assert len(dialled) == 1


@in_loop
async def test_families_are_those_asked_for():
    names = {"a.example": ["2001:db8::7", "192.0.2.7", "::ffff:192.0.2.9", "fe80::1%eth0", "192.0.2.7"]}
    async with serve("a.example", lookup=names) as (port, _):
        both = await port.answer(port.ask("resolve", name="a.example"))
        assert both.addresses == ["2001:db8::7", "192.0.2.7", "192.0.2.9"]
        ipv6 = await port.answer(port.ask("resolve", name="a.example", ipv4=False))
        assert ipv6.addresses == ["2001:db8::7"]
        names["a.example"] = ["192.0.2.7"]
        none = await port.answer(port.ask("resolve", name="a.example", ipv4=False, ipv6=False))
        assert none.errno == "ENOENT"


@pytest.mark.parametrize("answer", ["169.254.169.254", "127.0.0.1", "::1", "::ffff:169.254.169.254", "fd00:ec2::254"])
@in_loop
async def test_no_name_leads_to_a_special_address(answer):
    """Rebinding: a name that is allowed gets another address."""
    names = {"a.example": ["192.0.2.7"]}
    async with serve("a.example", "all", lookup=names) as (port, attachment):
        assert (await port.answer(port.ask("resolve", name="a.example"))).addresses == ["192.0.2.7"]
        names["a.example"] = [answer]
        attachment._resolver._cache.clear()
        assert (await port.answer(port.ask("resolve", name="a.example"))).errno == "EACCES"
        assert (await port.answer(port.dial(answer, 80))).errno == "EACCES"
        names["a.example"] = ["192.0.2.8", answer]
        assert (await port.answer(port.ask("resolve", name="A.example"))).errno == "EACCES", "cached for a while"
        attachment._resolver._cache.clear()
        assert (await port.answer(port.ask("resolve", name="A.example"))).addresses == ["192.0.2.8"]
        assert any("special" in why for _, why in refused(attachment))


@in_loop
async def test_answers_are_held_against_the_ranges():
    names = {"a.example": ["10.1.2.3", "192.0.2.7"]}
    async with serve("deny 10.0.0.0/8", "a.example", lookup=names) as (port, attachment):
        assert (await port.answer(port.ask("resolve", name="a.example"))).addresses == ["192.0.2.7"]
        assert (await port.answer(port.dial("10.1.2.3", 80))).errno == "EACCES"
        assert refused(attachment) == [
            ("tcp 10.1.2.3:80", "deny 10.0.0.0/8"), ("a.example is 10.1.2.3", "deny 10.0.0.0/8"),
        ]  # fmt: skip


@in_loop
async def test_names_are_forgotten_after_a_time_and_above_a_number():
    clock = [0.0]
    names = {f"{letter}.example": [f"192.0.2.{number}"] for number, letter in enumerate("abc", 1)}
    config = NetworkConfig(names_max=2, names_s_max=10)
    gateway = Gateway(config, lookup=lambda name, *_: names[name], monotonic=lambda: clock[0])
    port = FakePort()
    guest = gateway.add(port, GuestNetwork("test", parse_policy(["*.example"])))
    known = guest._answers
    for letter in "abc":
        await port.answer(port.ask("resolve", name=f"{letter}.example"))
    assert [len(known.names_of(port_address(n))) for n in (1, 2, 3)] == [0, 1, 1]
    clock[0] = 11
    assert [len(known.names_of(port_address(n))) for n in (1, 2, 3)] == [0, 0, 0]
    await gateway.close()
    port.dispose()


def port_address(number):
    from timecraftd.network.addresses import parse_address

    return parse_address(f"192.0.2.{number}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2130706433", "ends in a number"),
        ("0x7f.1", "ends in a number"),
        ("127.1", "ends in a number"),
        ("a..b", "the label ''"),
        ("x" * 64, "1 to 63"),
        ("a.example\n", "1 to 63"),
        ("", "the label ''"),
    ],
)
@in_loop
async def test_what_is_no_name_is_not_looked_up(name, reason):
    def lookup(*_):
        raise AssertionError("nobody asks")

    async with serve("all", lookup=lookup) as (port, attachment):
        assert (await port.answer(port.ask("resolve", name=name))).errno == "ENOENT"
        ((_, why),) = failed(attachment)
        assert reason in why


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "ENOENT"),
        (socket.gaierror(socket.EAI_NODATA, "no address"), "ENOENT"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "ETIMEDOUT"),
        (socket.gaierror(socket.EAI_FAIL, "broken"), "EIO"),
        (OSError(errno.ENFILE, "too many"), "ENFILE"),
    ],
)
@in_loop
async def test_errors_of_look_ups_reach_the_guest(error, expected):
    def lookup(*_):
        raise error

    async with serve("a.example", lookup=lookup) as (port, attachment):
        assert (await port.answer(port.ask("resolve", name="a.example"))).errno == expected
        assert len(failed(attachment)) == 1


@in_loop
async def test_slow_names_of_one_guest_keep_no_other_waiting():
    release = threading.Event()
    asked = []

    def lookup(name, *_):
        asked.append(name)
        if name.startswith("slow"):
            release.wait(30)
        return ["192.0.2.1"]

    gateway = Gateway(NetworkConfig(lookup_s_max=0.2, lookups_max=2), lookup=lookup)
    slow, fast = FakePort(), FakePort()
    try:
        for port in (slow, fast):
            gateway.add(port, GuestNetwork("test", parse_policy(["all"])))
        requests = [slow.ask("resolve", name=f"slow{number}.example") for number in range(5)]
        closed = slow.ask("resolve", name="slow5.example")
        slow.close(closed)
        began = time.monotonic()
        for number in range(20):
            answer = await fast.answer(fast.ask("resolve", name=f"fast{number}.example"))
            assert answer.addresses == ["192.0.2.1"]
        assert time.monotonic() - began < 5
        for request in requests:
            assert (await slow.answer(request)).errno == "ETIMEDOUT"
        assert len([name for name in asked if name.startswith("slow")]) == 2, "it has two threads, and they are stuck"
        assert not gateway._services.lookups._waiting
        release.set()
        await until(lambda: not gateway._services.lookups._busy)
        assert (await slow.answer(slow.ask("resolve", name="slow6.example"))).addresses
    finally:
        release.set()
        await gateway.close()
        slow.dispose()
        fast.dispose()


# ---- decisions


@in_loop
async def test_decisions_are_logged_with_their_rule(caplog):
    with caplog.at_level(logging.INFO, "timecraftd.network"), listener() as (_, number):
        async with serve("deny 192.0.2.0/24", f"host:{number}") as (port, _):
            await port.answer(port.dial("192.0.2.1", 80))
            (await port.answer(port.dial("10.86.0.1", number))).connection.close()
            await port.answer(port.dial("192.0.2.1", 80))
    assert [record.getMessage() for record in caplog.records] == [
        "guest test: refused dial tcp 192.0.2.1:80: 'deny 192.0.2.0/24' (--net)",
        f"guest test: granted dial tcp 127.0.0.1:{number} (host): 'allow host:{number}' (--net)",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_guest_can_flood_neither_log_nor_memory(caplog):
    clock = [0]
    decisions = Decisions("test", Policy(), lambda: clock[0])
    with caplog.at_level(logging.INFO, "timecraftd.network"):
        for number in range(1000):
            decisions.decided("dial", f"tcp {number}", Decision(False, None, "no"))
        assert len(caplog.records) == LINES_PER_S_MAX
        clock[0] += 10**9
        decisions.decided("dial", "tcp later", Decision(False, None, "no"))
        assert len(caplog.records) == LINES_PER_S_MAX + 1
    snapshot = decisions.snapshot()
    assert len(snapshot["refused"]) == RECENT_MAX
    assert snapshot["refused"][0]["subject"] == "tcp later"
    assert snapshot["totals"]["refused"] == 1001
    assert snapshot["without_rule"] == {"granted": 0, "refused": 1001}


@in_loop
async def test_a_bug_in_one_request_costs_no_other(monkeypatch, caplog):
    async with serve("host") as (port, _):
        monkeypatch.setattr(attachment_module.dial, "connect", None)
        assert (await port.answer(port.dial("10.86.0.1", 1))).errno == "EIO"
        monkeypatch.setattr(attachment_module.dial, "route", None)
        assert (await port.answer(port.dial("10.86.0.1", 1))).errno == "EIO"
        assert (await port.answer(port.ask("resolve", name="host.internal"))).addresses
    assert len(caplog.records) == 2


def test_the_fake_keeps_the_contract():
    port = FakePort()
    assert not port.refuse(7, "EIO")
    assert port.take() == []
    request = port.dial("192.0.2.1", 1)
    assert port.take() == [FakeEvent("dial", request, address=("192.0.2.1", 1))]
    port.dispose()


@in_loop
async def test_a_flood_of_requests_leaves_others_their_turn():
    gateway = Gateway(NetworkConfig())
    flood, other = FakePort(), FakePort()
    for port in (flood, other):
        gateway.add(port, GuestNetwork("test"))
    requests = [flood.dial("192.0.2.1", number) for number in range(1, 2001)]
    one = other.dial("192.0.2.1", 1)
    assert (await other.answer(one)).errno == "EACCES"
    assert not flood.is_answered(requests[-1])
    assert [(await flood.answer(request)).errno for request in requests] == ["EACCES"] * 2000
    await gateway.close()
    flood.dispose()
    other.dispose()


@in_loop
async def test_sockets_of_requests_that_were_not_begun_are_closed():
    async with serve() as (port, _):
        for _ in range(200):
            ours, theirs = socket.socketpair()
            ours.close()
            port.ask("secure", fd=theirs.detach(), name="a.example")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
