"""Messages that are malformed, too big, too many or never end; a node that has no room on its disk."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time

import grpc
import pytest
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tests.node.conftest import Node, wait_until
from tests.node.test_processes import FLOOD, details, refused
from timecraftd.api.v1 import module_pb2, node_pb2, process_pb2, record_pb2, view_pb2

METHODS = {
    f"/{service.full_name}/{method.name}": GetMessageClass(method.input_type)
    for module in (process_pb2, module_pb2, record_pb2, view_pb2, node_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def alive(node: Node) -> bool:
    """Whether the daemon answers."""
    return node.node.GetNode(node_pb2.GetNodeRequest(), timeout=20).name == "test"


@pytest.mark.parametrize("method", METHODS)
def test_malformed_messages_are_refused(node, method):
    """Random bytes to every method: an error each time, and the daemon goes on."""
    chance = random.Random(method)
    call = node.channel.stream_stream(method, None, None)
    sent = 0
    while sent < 10:
        data = chance.randbytes(chance.choice((1, 7, 100, 5000)))
        try:
            METHODS[method].FromString(data)
        except DecodeError:
            error = refused(lambda data=data: list(call(iter([data]), timeout=5)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert details(error).reason == "TC0002"
            sent += 1
    assert alive(node)


def test_bytes_that_are_no_grpc(node):
    for data in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(4096),
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{node.home}/node.sock")
            connection.sendall(data)
    assert alive(node)


def test_many_connections_at_once(node):
    connections = []
    for _ in range(300):
        connections.append(socket.socket(socket.AF_UNIX))
        connections[-1].connect(f"{node.home}/node.sock")
    assert alive(node)
    for connection in connections:
        connection.close()
    assert alive(node)


def test_a_stream_that_says_nothing_is_no_burden(node):
    """Its first message never comes; the deadline ends it."""
    never = threading.Event()

    def silent():
        never.wait(5)
        yield process_pb2.AttachRequest()

    call = node.processes.Attach(silent(), timeout=0.5)
    assert refused(lambda: list(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    never.set()
    assert alive(node)


def test_an_upload_of_more_than_was_announced(node):
    pieces = [module_pb2.UploadRequest(digest="1" * 64, size_bytes=2, data=b"\0")]
    pieces += [module_pb2.UploadRequest(data=b"\0" * 1000)] * 3
    assert refused(node.modules.Upload, iter(pieces)).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_uploads_have_a_bound(make_node):
    node = make_node('uploads_bytes_max = "1MiB"').start()
    first = module_pb2.UploadRequest(digest="2" * 64, size_bytes=2 << 20, data=b"\0")
    error = refused(node.modules.Upload, iter([first]))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


SMALL_DISK = 'mount -t tmpfs -o size=48m none "$0"; exec "$@"'


@pytest.fixture
def small_node(make_node):
    """Starts a node with a small disk, on which logs are filled as they are told to be."""

    def start(on_full: str):
        probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
        if probe.returncode:
            pytest.skip("no user namespaces here: a full disk can't be made")
        node = make_node()
        outside = node.config.with_name("node.sock")  # the state directory is seen by the daemon alone
        record = f'[record]\nring_bytes = "4MiB"\ncompression = "none"\non_full = "{on_full}"\n'
        node.config.write_text(node.config.read_text() + f'socket = "{outside}"\n{record}')
        return node.start("unshare", "-rm", "sh", "-euc", SMALL_DISK, str(node.home), connect_to=f"unix:{outside}")

    return start


def test_a_full_disk_ends_guests_and_not_the_node(small_node):
    """Their ends say why; when there is room again, all is as before."""
    node = small_node("stop")
    module = node.upload(FLOOD, "flood.wat")
    process = node.run(module)
    ended = node.wait(process.id)
    assert ended.state == process_pb2.PROCESS_STATE_FAILED
    assert "No space left" in ended.message
    assert alive(node)
    node.processes.Remove(process_pb2.RemoveRequest(id=process.id))
    runs_on(node, module)


def test_a_full_disk_keeps_guests_waiting_and_not_the_node(small_node):
    """They can be removed while they wait, and what they took is room for others."""
    node = small_node("wait")
    module = node.upload(FLOOD, "flood.wat")
    process = node.run(module)
    sizes = [0]

    def no_longer_grows() -> bool:
        time.sleep(0.5)
        sizes.append(node.get(process.id).log_bytes)
        return sizes[-1] > 16 << 20 and sizes[-1] == sizes[-2]

    wait_until(no_longer_grows)
    assert node.get(process.id).state == process_pb2.PROCESS_STATE_RUNNING
    assert alive(node)
    node.processes.Remove(process_pb2.RemoveRequest(id=process.id, force=True))
    runs_on(node, module)


def runs_on(node, module) -> None:
    """There is room for a process again."""
    again = node.run(module)
    wait_until(lambda: node.get(again.id).log_bytes > 1 << 20)
    node.processes.Stop(process_pb2.StopRequest(id=again.id))
