"""The gateway in a thread of its own."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from tests.network.fakes import FakePort, listener
from timecraftd.config import NetworkConfig
from timecraftd.errors import NetworkError
from timecraftd.network.gateway import GuestNetwork
from timecraftd.network.publish import Publication
from timecraftd.network.rules import parse_policy
from timecraftd.network.thread import GatewayThread


def test_serves_guests_of_hosts_without_a_loop():
    thread, port = GatewayThread(lookup=lambda *_: ["192.0.2.1"]), FakePort()
    thread.start()
    with listener() as (_, number):
        guest = thread.add(
            port, GuestNetwork("a", parse_policy([f"host:{number}"]), (Publication("127.0.0.1", 0, 80),))
        )
        answer = port.answer_now(port.dial("10.86.0.1", number))
        answer.connection.close()
        request = port.listen(80)
        assert not port.answer_now(request).errno
        with socket.create_connection(("127.0.0.1", guest.published[0].host_port)):
            while port.delivered[request].empty():
                threading.Event().wait(0.001)
            port.delivered[request].get_nowait().connection.close()
    port.end()
    thread.stop()
    thread.stop()
    snapshot = json.loads(json.dumps(guest.snapshot()))
    assert snapshot["totals"] == {"granted": 2, "refused": 0, "failed": 0}
    assert snapshot["published"] == [f"127.0.0.1:{guest.published[0].host_port}:80"]
    assert snapshot["addresses"] == ["10.86.0.2", "fd74:696d:6563::2"]
    port.dispose()


def test_errors_come_to_who_asks():
    with pytest.raises(NetworkError, match="guests' addresses"):
        GatewayThread(NetworkConfig(guests_ipv4="x")).start()
    thread, port = GatewayThread(), FakePort()
    thread.start()
    with pytest.raises(NetworkError, match="-p 192"):
        thread.add(port, GuestNetwork("a", published=(Publication("192.0.2.250", 0, 80),)))
    thread.stop()
    port.dispose()


def test_ending_waits_for_no_guest_and_no_name():
    release = threading.Event()
    thread, port = GatewayThread(lookup=lambda *_: release.wait(30)), FakePort()
    thread.start()
    thread.add(port, GuestNetwork("a", parse_policy(["all"])))
    port.ask("resolve", name="slow.example")
    while not any(each.name == "timecraft-lookup" for each in threading.enumerate()):
        threading.Event().wait(0.001)
    thread.stop()
    assert not any(each.name == "timecraft-gateway" for each in threading.enumerate())
    release.set()
    for each in threading.enumerate():
        if each.name == "timecraft-lookup":
            each.join(10)
    port.dispose()


def test_many_starts_and_stops_leave_nothing():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        thread = GatewayThread()
        thread.start()
        thread.stop()
    assert len(os.listdir("/proc/self/fd")) == before
