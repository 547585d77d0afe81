"""Verbs against a node."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from timecraftd.api import convert
from timecraftd.api.client import PIECE_BYTES, Credentials, NodeClient, idempotency_key, pages, parse_endpoint
from timecraftd.api.v1 import node_pb2, process_pb2, view_pb2
from timecraftd.cli.attached import Attachment
from timecraftd.cli.context import Context
from timecraftd.cli.contexts import NodeContext
from timecraftd.cli.spec import process_spec
from timecraftd.cli.supervise import Interrupts
from timecraftd.cli.target import Replay, Resume, Run, TraceText
from timecraftd.cli.terminal import write_all
from timecraftd.engine.spec import MountSpec
from timecraftd.errors import NodeError, ProcessStateError
from timecraftd.model import Digest, ProcessId, ProcessRecord, ProcessState
from timecraftd.recorder.logs import CAUGHT_UP, Output
from timecraftd.recorder.retention import RetentionPolicy
from timecraftd.registry.trees import survey
from timecraftd.units import parse_time_ns
from timecraftd.views import ReplayEnd, TraceOptions, matches

if TYPE_CHECKING:
    from timecraftd.api.client import Stream

PAGE_SIZE = 1000
STOP_MARGIN_S = 30.0
"""Beyond the patience of `stop`."""
LAYERS = {
    "syscall": view_pb2.TraceRequest.LAYER_SYSCALL,
    "network": view_pb2.TraceRequest.LAYER_NETWORK,
    "request": view_pb2.TraceRequest.LAYER_REQUEST,
}


class NodeTarget:
    """A node, asked over gRPC. See Target for what the methods do."""

    def __init__(self, context: Context, node: NodeContext) -> None:
        """Raises UsageError, NotFoundError."""
        endpoint = parse_endpoint(node.node)
        credentials = Credentials(node.ca_file, node.cert_file, node.key_file, node.token)
        self.client = NodeClient(endpoint, credentials)
        self.node = endpoint.address
        self.is_local = endpoint.is_local
        self._context = context
        self._short_ids: dict[str, str] = {}

    def close(self) -> None:
        """See Target."""
        self.client.close()

    def about(self) -> dict[str, object]:
        """What the node is, and who we are to it."""
        node = self.client.call(self.client.node.GetNode, node_pb2.GetNodeRequest())
        me = self.client.call(self.client.node.WhoAmI, node_pb2.WhoAmIRequest())
        capacity = node.capacity
        return {
            "address": self.node,
            "name": node.name,
            "identity": me.identity,
            "role": me.role,
            "state": "draining" if node.draining else "ready",
            "started_at": convert.unix_ns(node.started_at),
            "capacity": {name: getattr(capacity, name) for name in capacity.DESCRIPTOR.fields_by_name},
            "workers": [
                {name: getattr(worker, name) for name in worker.DESCRIPTOR.fields_by_name} for worker in node.workers
            ],
            "build": dict(sorted(node.build.items())),
        }

    def drain(self, *, cancel: bool, stop_after_ns: int | None) -> None:
        """Empties the node, or ends that."""
        request = node_pb2.DrainRequest(cancel=cancel, idempotency_key=idempotency_key())
        if stop_after_ns is not None:
            request.stop_after.CopyFrom(convert.duration(stop_after_ns))
        self.client.call(self.client.node.Drain, request, None)

    # ---- processes

    def process(self, reference: str) -> ProcessRecord:
        """See Target."""
        request = process_pb2.GetRequest(id=reference)
        return self._record(self.client.call(self.client.processes.Get, request).process)

    def processes(
        self, *, alive: bool = False, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> list[ProcessRecord]:
        """See Target."""
        wanted = _filter(filters)
        if alive:
            wanted.states.extend(convert.state_number(state) for state in ProcessState if state.is_alive)
        return list(self._listed(process_pb2.ListRequest(filter=wanted), filters, last))

    def remote_processes(
        self, *, filters: Sequence[tuple[str, str]] = (), last: int | None = None
    ) -> Iterator[ProcessRecord]:
        """See Target."""
        return self._listed(process_pb2.ListRequest(filter=_filter(filters), remote=True), filters, last)

    def _listed(
        self, request: process_pb2.ListRequest, filters: Sequence[tuple[str, str]], last: int | None
    ) -> Iterator[ProcessRecord]:
        request.page_size = min(last or PAGE_SIZE, PAGE_SIZE)

        def page(token: str) -> process_pb2.ListResponse:
            request.page_token = token
            response: process_pb2.ListResponse = self.client.call(self.client.processes.List, request)
            return response

        records = map(self._record, pages(page, lambda response: response.processes))
        fits = (process for process in records if all(matches(process, *item) for item in filters))
        return itertools.islice(fits, last)

    def watch(self, *, alive: bool, filters: Sequence[tuple[str, str]]) -> Iterator[list[ProcessRecord]]:
        """See Target."""
        first: list[ProcessRecord] | None = []
        for response in self.client.stream(
            self.client.processes.Watch, process_pb2.WatchRequest(filter=_filter(filters))
        ):
            if response.synced and first is not None:
                yield first[::-1]
                first = None
                continue
            process = self._record(response.process)
            if response.removed or not all(matches(process, *item) for item in filters):
                continue
            if first is None:
                yield [process]
            elif not alive or process.state.is_alive:
                first.append(process)

    def short_id(self, process_id: ProcessId) -> str:
        """See Target. Of a process that the node has told of."""
        return self._short_ids.get(process_id) or process_id

    def wait(self, process: ProcessRecord) -> ProcessRecord:
        """See Target."""
        request = process_pb2.WaitRequest(id=process.id)
        return self._record(self.client.call(self.client.processes.Wait, request, None).process)

    def kill(self, process: ProcessRecord, number: int) -> None:
        """See Target."""
        request = process_pb2.SignalRequest(id=process.id, signal=number, idempotency_key=idempotency_key())
        if not process.state.is_alive:
            raise ProcessStateError(f"process {process.id}: it doesn't run", "`timecraft ps` lists those that do")
        self.client.call(self.client.processes.Signal, request)

    def stop(self, process: ProcessRecord, patience_ns: int) -> None:
        """See Target."""
        patience = convert.duration(patience_ns)
        request = process_pb2.StopRequest(id=process.id, patience=patience, idempotency_key=idempotency_key())
        self.client.call(self.client.processes.Stop, request, patience_ns / 1e9 + STOP_MARGIN_S)

    def remove(self, process: ProcessRecord, *, force: bool) -> None:
        """See Target."""
        request = process_pb2.RemoveRequest(id=process.id, force=force, idempotency_key=idempotency_key())
        self.client.call(self.client.processes.Remove, request)

    def remove_stored(self, reference: str, *, force: bool, now: bool) -> None:
        """See Target."""
        request = process_pb2.RemoveRequest(
            id=reference, force=force, remote=True, now=now, idempotency_key=idempotency_key()
        )
        self.client.call(self.client.processes.Remove, request, None)

    def relabel(self, process: ProcessRecord, added: Mapping[str, str], removed: Sequence[str]) -> ProcessRecord:
        """See Target."""
        request = process_pb2.LabelRequest(id=process.id, labels=added, removed=removed)
        return self._record(self.client.call(self.client.processes.Label, request).process)

    def prune(self, policy: RetentionPolicy | None, *, dry_run: bool) -> list[dict[str, object]]:
        """See Target."""
        return self._prune(policy, view_pb2.PruneRequest(dry_run=dry_run))

    def prune_stored(self, policy: RetentionPolicy | None, *, dry_run: bool, now: bool) -> list[dict[str, object]]:
        """See Target."""
        return self._prune(policy, view_pb2.PruneRequest(dry_run=dry_run, remote=True, now=now))

    def _prune(self, policy: RetentionPolicy | None, request: view_pb2.PruneRequest) -> list[dict[str, object]]:
        request.idempotency_key = idempotency_key()
        if policy is not None:
            if policy.by_age_and_number:
                request.keep = policy.keep_newest
            request.crashed = not policy.keep_crashed
            request.states.extend(map(convert.state_number, sorted(policy.states or ())))
            request.exit_codes.extend(sorted(policy.exit_codes))
            request.exit_nonzero = policy.exit_nonzero
            if policy.bytes_max is not None:
                request.max_size_bytes = policy.bytes_max
            if policy.age_ns_max is not None:
                request.older_than.CopyFrom(convert.duration(policy.age_ns_max))
        removed = self.client.call(self.client.views.Prune, request, None).removed
        return [{"kind": each.kind, "id": each.id, "bytes": each.size_bytes} for each in removed]

    # ---- what there is

    def listing(self, kind: str, references: Sequence[str]) -> Iterator[dict[str, object]]:
        """See Target."""
        request = view_pb2.ListObjectsRequest(kind=_kind(kind), ids=references, page_size=PAGE_SIZE)
        if kind == "log":
            self.processes()  # knows their short ids

        def page(token: str) -> view_pb2.ListObjectsResponse:
            request.page_token = token
            response: view_pb2.ListObjectsResponse = self.client.call(self.client.views.ListObjects, request)
            return response

        return map(json.loads, pages(page, lambda response: response.json))

    def describe(self, kind: str, reference: str) -> dict[str, object]:
        """See Target."""
        request = view_pb2.DescribeRequest(kind=_kind(kind), id=reference)
        data: dict[str, object] = json.loads(self.client.call(self.client.views.Describe, request).json)
        return data

    def output(
        self, process: ProcessRecord, since_unix_ns: int | None, *, follow: bool
    ) -> tuple[int, Iterator[Output]]:
        """See Target."""
        request = process_pb2.LogsRequest(id=process.id, follow=follow)
        if since_unix_ns is not None:
            request.since.CopyFrom(convert.timestamp(max(since_unix_ns, 0)))
        stream = self.client.stream(self.client.processes.Logs, request)
        start_ns = convert.unix_ns(next(stream).start_at)

        def pieces() -> Iterator[Output]:
            for response in stream:
                for each in response.outputs:
                    yield Output(convert.duration_ns(each.time, "time"), each.stream, each.data)
                if response.caught_up:
                    yield CAUGHT_UP

        return start_ns, pieces()

    def trace(self, process: ProcessRecord, options: TraceOptions, *, follow: bool) -> TraceText:
        """See Target."""
        request = view_pb2.TraceRequest(
            id=process.id,
            layer=LAYERS[options.layer],
            form=options.form,
            timestamps=options.timestamps or "",
            verbose=options.verbose,
            color=options.color,
            follow=follow,
            calls=options.calls,
            host=options.host or "",
            port=options.port or 0,
            side=options.side or "",
            skip_damaged=options.skip_damaged,
        )
        if options.start_ns is not None and options.start_is_unix:
            request.start_at.CopyFrom(convert.timestamp(options.start_ns))
        elif options.start_ns is not None:
            request.start_offset.CopyFrom(convert.duration(options.start_ns))
        if options.duration_ns is not None:
            request.duration.CopyFrom(convert.duration(options.duration_ns))
        return _Trace(self.client.stream(self.client.views.Trace, request))

    # ---- in and out

    def exporter(
        self, kind: str, reference: str, *, compress: bool, gap: Callable[[str], object] | None = None
    ) -> Callable[[IO[bytes]], None]:
        """See Target."""
        request = view_pb2.ExportRequest(
            kind=_kind(kind), id=reference, compress=compress, skip_damaged=gap is not None
        )
        stream = self.client.stream(self.client.views.Export, request)
        first = list(itertools.islice(stream, 1))  # raises what can be known before

        def export(file: IO[bytes]) -> None:
            for response in itertools.chain(first, stream):
                file.write(response.data)
                if gap is not None:
                    for note in response.notes:
                        gap(note)

        return export

    def import_process(self, source: IO[bytes], name: str) -> ProcessId:
        """See Target."""

        def pieces() -> Iterator[view_pb2.ImportRequest]:
            yield view_pb2.ImportRequest(name=name)
            while data := source.read(PIECE_BYTES):
                yield view_pb2.ImportRequest(data=data)

        return ProcessId(self.client.call(self.client.views.Import, pieces(), None).id)

    def import_module(self, module: tuple[bytes, str]) -> Digest:
        """See Target."""
        return Digest(self.client.upload(*module).digest)

    # ---- running

    def epochs(self, process: ProcessRecord) -> list[tuple[int, int]]:
        """See Target."""
        began: Any = self.describe("log", process.id)["began"]
        return [(epoch["time_ns"], parse_time_ns(epoch["at"], 0)) for epoch in began]

    def replay(self, process: ProcessRecord, asked: Replay, interrupts: Interrupts) -> ReplayEnd | None:
        """See Target."""
        request = view_pb2.ReplayRequest(
            id=process.id, until_seq=asked.until_seq, trace=asked.trace_fd is not None, verify=asked.stdout_fd is None
        )
        if asked.until_time_ns is not None:
            request.until_time.CopyFrom(convert.duration(asked.until_time_ns))
        if asked.other_module is not None:
            request.other_module = self.client.upload(*asked.other_module).digest
        stream = self.client.stream(self.client.views.Replay, request)
        interrupts.attach(_Cancel(stream))
        descriptors = {"stdout": asked.stdout_fd, "stderr": asked.stderr_fd, "trace": asked.trace_fd}
        try:
            for response in stream:
                kind = response.WhichOneof("message")
                if kind == "ended":
                    return _replay_end(response.ended)
                descriptor = descriptors[kind]
                if descriptor is not None:
                    write_all(descriptor, getattr(response, kind))
        except NodeError:
            if interrupts.came:
                return None
            raise
        finally:
            interrupts.detach()
            stream.cancel()
        raise NodeError(f"node {self.node}: ended a replay without saying how", "see the node's log")

    def mounted(self, mount: MountSpec, is_left_out: Callable[[str], bool] | None = None) -> MountSpec:
        """See Target. Another machine gets it as a tree, as it is now."""
        if self.is_local:
            return mount
        manifest, files = survey(mount.host, is_left_out)
        return replace(mount, read_only=True, tree=self.client.upload_tree(manifest, files))

    def run(self, asked: Run) -> int:
        """See Target."""
        spec = process_spec(asked, self._upload(asked), is_local=self.is_local)
        start = process_pb2.AttachRequest.Start(spec=spec, idempotency_key=idempotency_key())
        first = process_pb2.AttachRequest(start=start, with_stdin=asked.streams.stdin is not None, trace=asked.trace)
        interruptible = asked.request.interruptible
        return Attachment(self._context, self, asked.streams, quiet=asked.quiet, interruptible=interruptible).run(first)

    def run_detached(self, asked: Run) -> tuple[str, Sequence[str]]:
        """See Target."""
        spec = process_spec(asked, self._upload(asked), is_local=self.is_local)
        request = process_pb2.RunRequest(spec=spec, idempotency_key=idempotency_key())
        response = self.client.call(self.client.processes.Run, request)
        return response.process.id, list(response.published)

    def resume(self, asked: Resume) -> int:
        """See Target."""
        resume = process_pb2.AttachRequest.Resume(id=asked.reference, trust=asked.trusted)
        first = process_pb2.AttachRequest(resume=resume, with_stdin=asked.streams.stdin is not None, trace=asked.trace)
        return Attachment(self._context, self, asked.streams, quiet=asked.quiet).run(first)

    def signal_quietly(self, process_id: ProcessId, number: int) -> None:
        """Sends a signal; one to a process that is over, or over a connection that broke, is lost."""
        from contextlib import suppress

        with suppress(NodeError, ProcessStateError):
            request = process_pb2.SignalRequest(id=process_id, signal=number, idempotency_key=idempotency_key())
            self.client.call(self.client.processes.Signal, request)

    def _upload(self, asked: Run) -> str:
        digest: str = self.client.upload(*asked.module).digest
        return digest

    def _record(self, message: process_pb2.Process) -> ProcessRecord:
        if message.short_id:
            self._short_ids[message.id] = message.short_id
        return convert.process_record(message)


class _Trace:
    """What comes of a trace."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.notes: Sequence[str] = ()

    def text(self) -> Iterator[bytes]:
        for response in self._stream:
            if response.text:
                yield response.text
            if response.notes:
                self.notes = list(response.notes)


class _Cancel:
    """Ends a call when a signal comes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def kill(self, _number: int) -> None:
        self._stream.cancel()


def _kind(kind: str) -> view_pb2.ObjectKind:
    return getattr(view_pb2, f"OBJECT_KIND_{kind.upper()}")  # type: ignore[no-any-return]


def _replay_end(ended: Any) -> ReplayEnd:
    last_seq = ended.last_seq if ended.HasField("last_seq") else None
    return ReplayEnd(ended.kind, ended.code, ended.message, tuple(ended.backtrace), last_seq, ended.log_incomplete)


def _filter(filters: Sequence[tuple[str, str]]) -> process_pb2.ProcessFilter:
    """As much of `ps`'s filters as a node takes."""
    wanted = process_pb2.ProcessFilter()
    # Patterns of one kind are alternatives to the node: of several of a kind it gets one, and we look at the rest.
    for key, pattern in {key: pattern for key, pattern in reversed(filters) if key != "state"}.items():
        getattr(wanted, f"{key}s").append(pattern)
    return wanted
