"""A process of a node, run as if it were here: its streams are ours, our signals are its, its exit code is ours."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from timecraftd.api import convert
from timecraftd.api.client import idempotency_key
from timecraftd.api.v1 import process_pb2
from timecraftd.cli.context import Context, tell, tell_id, tell_published
from timecraftd.cli.supervise import Interrupts, tell_run_end
from timecraftd.cli.terminal import write_all
from timecraftd.errors import NodeError, NotFoundError
from timecraftd.model import STATE_OF_END, ProcessId, ProcessRecord, ProcessState

if TYPE_CHECKING:
    from timecraftd.api.client import NodeClient
    from timecraftd.running import Streams

STDIN_PIECE_BYTES = 256 << 10
STDIN_AHEAD_MAX = 4
"""Pieces that were read and the node hasn't taken."""
EXIT_UNKNOWN = 125
_KINDS = {state: kind for kind, state in STATE_OF_END.items()}


class Node(Protocol):
    """What an attachment needs of a target."""

    node: str
    client: NodeClient

    def signal_quietly(self, process_id: ProcessId, number: int) -> None:
        """Sends a signal, which may be lost."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; the fields are those of `Outcome`."""

    kind: str
    code: int
    message: str
    backtrace: list[str]
    stats: dict[str, int]


class Attachment:
    """One `run` or `resume`, with the restarts that follow."""

    def __init__(
        self, context: Context, node: Node, streams: Streams, *, quiet: bool, interruptible: bool = False
    ) -> None:
        self._context = context
        self._interruptible = interruptible
        self._node = node
        self._quiet = quiet
        self._stdin = _Stdin(streams.stdin)
        self._outputs = {"stdout": streams.stdout, "stderr": streams.stderr, "trace": 2}
        self._process: ProcessRecord | None = None

    def run(self, first: process_pb2.AttachRequest) -> int:
        """Starts or resumes what the first message says; returns the exit code. Raises what the node does."""
        with Interrupts() as interrupts:
            ended = self._attach(self._stdin.requests(first), interrupts)
            code = self._tell_end(ended)
            while ended.restarts:
                successor = None if interrupts.came else self._successor(ended, interrupts)
                if successor is None:
                    self._call_off(ended.process)
                    return interrupts.exit_code
                ended = self._attach(iter([successor]), interrupts)
                code = self._tell_end(ended)
            return code

    def _attach(
        self, requests: Iterator[process_pb2.AttachRequest], interrupts: Interrupts
    ) -> process_pb2.AttachResponse.Ended:
        """Carries streams and signals until the end."""
        self._process = None
        stream = self._node.client.stream(self._node.client.processes.Attach, requests)
        try:
            for response in stream:
                kind = response.WhichOneof("message")
                if kind == "ended":
                    ended: process_pb2.AttachResponse.Ended = response.ended
                    return ended
                if kind == "started":
                    self._started(response.started, interrupts)
                elif kind is not None:
                    self._write(kind, getattr(response, kind))
        except NodeError as error:
            raise self._broken(error.message) from None
        finally:
            interrupts.detach()
            stream.cancel()
        raise self._broken(f"node {self._node.node}: said nothing of the end")

    def _started(self, started: process_pb2.AttachResponse.Started, interrupts: Interrupts) -> None:
        process = convert.process_record(started.process)
        if self._process is None:
            signals = _Signals(self._node, process.id)
            interrupts.attach(signals, interrupt=signals.interrupt if self._interruptible else None)
            tell_id(process.id, quiet=self._quiet)
            if process.state is ProcessState.QUEUED and not self._quiet:
                tell("queued: the node has no room for it now")
        self._process = process
        tell_published(started.published)

    def _write(self, stream: str, data: bytes) -> None:
        descriptor = self._outputs[stream]
        if descriptor is None:
            return
        try:
            write_all(descriptor, data)
        except OSError:
            # A guest here would find that nobody reads. That one is told by the signal that programs get for it.
            self._outputs[stream] = None
            assert self._process is not None, "output comes after the start"
            _Signals(self._node, self._process.id).kill(signal.SIGPIPE)

    def _tell_end(self, ended: process_pb2.AttachResponse.Ended) -> int:
        process = convert.process_record(ended.process)
        if process.state is ProcessState.CRASHED:
            again = "; the node resumes it" if ended.restarts else f"; go on with `timecraft resume {process.id}`"
            self._context.complain(f"{process.module_name}: {process.message or 'its host died'}{again}")
            return EXIT_UNKNOWN
        code = EXIT_UNKNOWN if process.exit_code is None else process.exit_code
        kind = _KINDS.get(process.state, "exit")
        outcome = Ended(kind, code, process.message, list(ended.backtrace), dict(ended.stats))
        tell_run_end(self._context, process, outcome, lambda: ended.process.short_id or process.id)
        return code

    def _successor(
        self, ended: process_pb2.AttachResponse.Ended, interrupts: Interrupts
    ) -> process_pb2.AttachRequest | None:
        """How to take hold of the process that takes this one's place, or of this one again; None if a signal came."""
        before = ended.process
        wanted = process_pb2.ProcessFilter(modules=[before.module])
        client = self._node.client
        changes = client.stream(client.processes.Watch, process_pb2.WatchRequest(filter=wanted))
        interrupts.attach(_Call(changes.cancel))
        try:
            for change in changes:
                process = change.process
                if change.removed or process.state == process_pb2.PROCESS_STATE_QUEUED:
                    continue
                if process.restart_of == before.id:
                    since = process.created_at
                elif process.id == before.id and process.epoch > before.epoch:
                    since = before.ended_at
                else:
                    continue
                existing = process_pb2.AttachRequest.Existing(id=process.id, since=since)
                return process_pb2.AttachRequest(existing=existing)
        except NodeError as error:
            if interrupts.came:
                return None
            raise NodeError(error.message, f"what it restarts shows `timecraft ps --node {self._node.node}`") from None
        finally:
            interrupts.detach()
            changes.cancel()
        return None

    def _call_off(self, ended: process_pb2.Process) -> None:
        """A process that is to be started again is so no more, and what took its place already ends too."""
        client, identity = self._node.client, ended.id
        fellows = process_pb2.ListRequest(filter=process_pb2.ProcessFilter(modules=[ended.module]))
        while identity:
            stop = process_pb2.StopRequest(id=identity, idempotency_key=idempotency_key())
            with suppress(NotFoundError):
                client.call(client.processes.Stop, stop)
            newest = client.call(client.processes.List, fellows).processes
            identity = next((each.id for each in newest if each.restart_of == identity), "")

    def _broken(self, reason: str) -> NodeError:
        if self._process is None:
            return NodeError(reason, "`timecraft ps -a` shows whether it was started")
        identity = self._process.id
        return NodeError(
            f"node {self._node.node}: the connection broke; process {identity} goes on",
            f"`timecraft logs -f {identity}` shows what it writes, `timecraft stop {identity}` ends it",
        )


class _Call:
    """Does something when a signal comes."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def kill(self, _number: int) -> None:
        self._call()


class _Signals:
    """Sends signals beside the streams: standard input may be waiting for a guest that doesn't read."""

    def __init__(self, node: Node, process_id: ProcessId) -> None:
        self._node = node
        self._process_id = process_id
        self._last: threading.Thread | None = None

    def kill(self, number: int) -> None:
        """Returns at once: a signal handler must not wait."""
        self._last = threading.Thread(target=self._node.signal_quietly, args=(self._process_id, number), daemon=True)
        self._last.start()

    def interrupt(self) -> bool:
        """Shows SIGINT to a guest that understands it; False if the node hasn't taken the one before."""
        if self._last is not None and self._last.is_alive():
            return False
        self.kill(signal.SIGINT)
        return True


class _Stdin:
    """Reads ahead a little of standard input, for the node."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._pieces: queue.Queue[bytes] = queue.Queue(STDIN_AHEAD_MAX)

    def requests(self, first: process_pb2.AttachRequest) -> Iterator[process_pb2.AttachRequest]:
        """The first message, then standard input to its end."""
        yield first
        if self._descriptor is None:
            return
        threading.Thread(target=self._read, args=(self._descriptor,), daemon=True).start()
        while data := self._pieces.get():
            yield process_pb2.AttachRequest(stdin=data)
        yield process_pb2.AttachRequest(stdin_eof=True)

    def _read(self, descriptor: int) -> None:
        data = b"-"
        while data:
            try:
                data = os.read(descriptor, STDIN_PIECE_BYTES)
            except OSError:
                data = b""
            self._pieces.put(data)
