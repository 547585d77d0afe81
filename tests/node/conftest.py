"""A real daemon process, and what a client needs to speak with it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.cli import artifacts_folder
from timecraftd.api.v1 import (
    module_pb2,
    module_pb2_grpc,
    node_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
    record_pb2_grpc,
    view_pb2,
    view_pb2_grpc,
)
from timecraftd.recorder.ring import remove_ring

GUESTS = Path(__file__).parent.parent / "guests"
READY_S = 30.0
PIECE_BYTES = 1 << 20


class Node:
    """A daemon with a state directory of its own."""

    def __init__(self, directory: Path, config: str = "", env: dict[str, str] | None = None) -> None:
        self.home = directory / "home"
        self.home.mkdir()
        (self.home / "artifacts").symlink_to(artifacts_folder())
        self.config = directory / "node.toml"
        self.config.write_text(f'home = "{self.home}"\n[node]\nname = "test"\n{config}')
        self.log = directory / "log"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(directory)} | (env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: grpc.Channel | None = None

    def start(self, *wrapper: str, connect_to: str = "", **options: object) -> Node:
        """Starts the daemon, by a command that executes it if one is given, and waits until it is ready."""
        begun = len(self.told("ready"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", "timecraftd", "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, **options,
            )  # fmt: skip
        wait_until(lambda: len(self.told("ready")) > begun or self.process.poll() is not None, READY_S)
        assert self.process.poll() is None, self.log.read_text()
        self.connect(connect_to or self.socket)
        return self

    def connect(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        """Speaks with the daemon there from now on."""
        if self.channel is not None:
            self.channel.close()
        options = [("grpc.max_reconnect_backoff_ms", 100)]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.processes = process_pb2_grpc.ProcessServiceStub(self.channel)
        self.modules = module_pb2_grpc.ModuleServiceStub(self.channel)
        self.node = node_pb2_grpc.NodeServiceStub(self.channel)
        self.views = view_pb2_grpc.ViewServiceStub(self.channel)
        self.records = record_pb2_grpc.RecordServiceStub(self.channel)

    def told(self, event: str) -> list[str]:
        """Lines of the daemon's log that begin with an event."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(event)]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Ends the daemon; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def worker_pids(self) -> list[int]:
        """Processes of the host that are workers of this node."""
        mark = str(self.home).encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    command = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"timecraftd.worker" in command and mark in command:
                    found.append(int(entry))
        return found

    def close(self) -> None:
        """Leaves nothing behind."""
        if self.channel is not None:
            self.channel.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGKILL)
        for log_dir in self.home.glob("processes/*/log"):
            remove_ring(str(log_dir))  # of guests that were killed with their worker: it lies in shared memory

    @property
    def socket(self) -> str:
        """Address of the Unix socket."""
        return f"unix:{self.home}/node.sock"

    def empty(self) -> None:
        """Removes all processes, and what they needed."""
        for process in self.processes.List(process_pb2.ListRequest(page_size=1000)).processes:
            self.processes.Remove(process_pb2.RemoveRequest(id=process.id, force=True), timeout=READY_S)
        self.views.Prune(view_pb2.PruneRequest(), timeout=READY_S)

    # ---- a client

    def upload(self, source: Path | bytes, name: str = "") -> str:
        """Uploads a module; its digest."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        name = name or (source.name if isinstance(source, Path) else "module.wasm")

        def pieces() -> Iterator[module_pb2.UploadRequest]:
            digest = hashlib.sha256(data).hexdigest()
            yield module_pb2.UploadRequest(digest=digest, size_bytes=len(data), name=name)
            for at in range(0, len(data), PIECE_BYTES):
                yield module_pb2.UploadRequest(data=data[at : at + PIECE_BYTES])

        return self.modules.Upload(pieces()).module.digest

    def run(self, module: str, **spec: object) -> process_pb2.Process:
        """Starts a process that nobody is attached to."""
        return self.processes.Run(process_pb2.RunRequest(spec=process_pb2.ProcessSpec(module=module, **spec))).process

    def get(self, reference: str) -> process_pb2.Process:
        """A process as it is now."""
        return self.processes.Get(process_pb2.GetRequest(id=reference)).process

    def wait(self, reference: str, timeout_s: float = 60.0) -> process_pb2.Process:
        """A process when it has ended."""
        return self.processes.Wait(process_pb2.WaitRequest(id=reference), timeout=timeout_s).process

    def attach(
        self, module: str, stdin: bytes | None = None, *, trace: bool = False, **spec: object
    ) -> tuple[dict[str, bytes], process_pb2.AttachResponse.Ended]:
        """Runs a process to its end: what came of each stream, and its end."""
        start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=module, **spec))
        requests = [process_pb2.AttachRequest(start=start, with_stdin=stdin is not None, trace=trace)]
        data = stdin or b""
        pieces = (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
        requests += [process_pb2.AttachRequest(stdin=piece) for piece in pieces]
        requests.append(process_pb2.AttachRequest(stdin_eof=True))
        came = {"stdout": b"", "stderr": b"", "trace": b""}
        for response in self.processes.Attach(iter(requests)):
            kind = response.WhichOneof("message")
            if kind in came:
                came[kind] += getattr(response, kind)
            elif kind == "ended":
                return came, response.ended
        raise AssertionError("the stream ended before the process")

    def logs(self, reference: str) -> bytes:
        """What a process wrote to its standard output."""
        answers = self.processes.Logs(process_pb2.LogsRequest(id=reference))
        return b"".join(output.data for answer in answers for output in answer.outputs if output.stream == 1)


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it didn't come about in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A daemon for all tests of a file."""
    node = Node(tmp_path_factory.mktemp("node"))
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes daemons that a test may break; each is started by the test."""
    made: list[Node] = []

    def make(config: str = "", env: dict[str, str] | None = None) -> Node:
        directory = tmp_path / f"node{len(made)}"
        directory.mkdir()
        made.append(Node(directory, config, env))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def guests() -> Path:
    """Directory of the test guests."""
    return GUESTS


@pytest.fixture
def hello(node: Node) -> str:
    """A module that says hello."""
    return node.upload(GUESTS / "hello.wat")
