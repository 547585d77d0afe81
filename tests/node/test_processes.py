"""Processes of a node, over gRPC, by a real daemon."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from tests.node.conftest import wait_until
from timecraftd.api.v1 import module_pb2, process_pb2, record_pb2, view_pb2

EXITED, KILLED, TRAPPED, CRASHED = (
    process_pb2.PROCESS_STATE_EXITED,
    process_pb2.PROCESS_STATE_KILLED,
    process_pb2.PROCESS_STATE_TRAPPED,
    process_pb2.PROCESS_STATE_CRASHED,
)
RUNNING = process_pb2.PROCESS_STATE_RUNNING


FLOOD = b"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\\10\\00\\00\\00\\00\\00\\01\\00")
  (func (export "_start")
    (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))))
"""
"""Writes 64 KiB at a time to its standard output, for ever."""


def refused(call, *args, **kwargs) -> grpc.RpcError:
    """The error that a call ends with."""

    def whole():
        answer = call(*args, **kwargs)
        return list(answer) if hasattr(answer, "__iter__") else answer

    with pytest.raises(grpc.RpcError) as caught:
        whole()
    return caught.value


def details(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """What an error says of itself beyond its message."""
    status = status_pb2.Status()
    status.ParseFromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_an_attached_process_gives_its_output_and_its_end(node, hello):
    came, ended = node.attach(hello)
    assert came == {"stdout": b"hello, world\n", "stderr": b"", "trace": b""}
    assert (ended.process.state, ended.process.exit_code) == (EXITED, 0)
    assert ended.stats["records"] >= 2
    assert not ended.restarts


def test_standard_input_is_carried(node, guests):
    data = os.urandom(3 << 20)
    came, ended = node.attach(node.upload(guests / "stdin_cat.wat"), data)
    assert came["stdout"] == data
    assert ended.process.exit_code == 0


def test_trace_comes_beside(node, hello):
    came, _ = node.attach(hello, trace=True)
    assert b"fd_write(1" in came["trace"]


def test_a_trap_has_its_backtrace(node, guests):
    _, ended = node.attach(node.upload(guests / "trap_unreachable.wat"))
    assert ended.process.state == TRAPPED
    assert ended.process.exit_code == 134
    assert ended.backtrace


def test_what_nobody_is_attached_to_is_in_the_log(node, hello):
    process = node.run(hello, name="detached")
    assert node.wait("detached").id == process.id
    assert node.logs("detached") == b"hello, world\n"
    assert node.get(process.id[:13]).exit_code == 0


def test_everything_given_reaches_the_guest(node, guests):
    module = node.upload(guests / "args_env.wat")
    env = [process_pb2.EnvVar(name="A", value=b"1")]
    came, _ = node.attach(module, args=[b"prog", b"x y"], env=env)
    assert b"x y" in came["stdout"]
    assert b"A=1" in came["stdout"]


def test_signals_end_guests(node, guests):
    process = node.run(node.upload(guests / "spin.wat"))
    node.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=signal.SIGTERM))
    ended = node.wait(process.id)
    assert (ended.state, ended.exit_code) == (KILLED, 143)


def test_stop_waits_for_the_end(node, guests):
    process = node.run(node.upload(guests / "sleep_forever.wat"))
    assert node.processes.Stop(process_pb2.StopRequest(id=process.id)).process.state == KILLED


def test_remove(node, guests):
    process = node.run(node.upload(guests / "sleep_forever.wat"))
    error = refused(node.processes.Remove, process_pb2.RemoveRequest(id=process.id))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(error).reason == "TC0012"
    node.processes.Remove(process_pb2.RemoveRequest(id=process.id, force=True))
    error = refused(node.get, process.id)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert details(error).metadata["class"] == "NotFoundError"


def test_a_client_that_vanishes_leaves_the_process(node, guests):
    module = node.upload(guests / "spin_output.wat")
    start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=module))
    call = node.processes.Attach(iter([process_pb2.AttachRequest(start=start)]))
    process = next(call).started.process
    call.cancel()
    time.sleep(0.3)
    before = node.get(process.id)
    assert before.state == RUNNING
    stats = node.views.Describe(view_pb2.DescribeRequest(kind=view_pb2.OBJECT_KIND_LOG, id=process.id))
    node.processes.Stop(process_pb2.StopRequest(id=process.id))
    assert stats.json


def test_a_client_may_take_its_process_along(node, guests):
    start = process_pb2.AttachRequest.Start(
        spec=process_pb2.ProcessSpec(module=node.upload(guests / "sleep_forever.wat"))
    )
    call = node.processes.Attach(iter([process_pb2.AttachRequest(start=start, kill_on_disconnect=True)]))
    process = next(call).started.process
    call.cancel()
    assert node.wait(process.id).state == KILLED


def test_a_slow_reader_makes_the_guest_wait(node):
    """What is on the way is bounded: pipes, the door, gRPC's windows at both ends."""
    start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=node.upload(FLOOD, "flood.wat")))
    call = node.processes.Attach(iter([process_pb2.AttachRequest(start=start)]))
    process = next(call).started.process

    def records() -> int:
        request = view_pb2.ListObjectsRequest(kind=view_pb2.OBJECT_KIND_LOG, ids=[process.id])
        return json.loads(node.views.ListObjects(request).json[0])["records"]

    wait_until(lambda: records() == (time.sleep(0.5), records())[1])
    assert records() * 65536 < 64 << 20
    call.cancel()
    wait_until(lambda: records() * 65536 > 80 << 20)  # nobody reads any more: it goes on, into its log
    node.processes.Stop(process_pb2.StopRequest(id=process.id))
    node.processes.Remove(process_pb2.RemoveRequest(id=process.id))


def test_attach_to_what_runs_follows_its_log(node, guests):
    process = node.run(node.upload(guests / "spin_output.wat"))
    existing = process_pb2.AttachRequest.Existing(id=process.id)
    call = node.processes.Attach(iter([process_pb2.AttachRequest(existing=existing)]))
    assert next(call).started.process.id == process.id
    assert any(next(call).stdout for _ in range(3))
    node.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=9))
    assert list(call)[-1].ended.process.state == KILLED


def test_the_same_key_starts_one_process(node, hello):
    spec = process_pb2.ProcessSpec(module=hello)
    request = process_pb2.RunRequest(spec=spec, idempotency_key="k1")
    first, second = node.processes.Run(request), node.processes.Run(request)
    assert first.process.id == second.process.id
    request.spec.name = "another"
    error = refused(node.processes.Run, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_attached_start_with_the_same_key_takes_hold_of_what_it_has_started(node, hello, guests):
    """While it runs and when it is over: all of its output comes out of its log."""

    def attach(key: str, module: str, **first: object) -> list[process_pb2.AttachResponse]:
        start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=module), idempotency_key=key)
        return node.processes.Attach(iter([process_pb2.AttachRequest(start=start, **first)]))

    once, again = list(attach("a1", hello)), list(attach("a1", hello, with_stdin=True))
    assert once[0].started.process.id == again[0].started.process.id
    assert b"".join(response.stdout for response in again) == b"hello, world\n"
    assert again[-1].ended.process.exit_code == 0
    error = refused(attach, "a1", hello, trace=True)
    assert "its output went there" in error.details()
    talks = node.upload(guests / "spin_output.wat")
    first = attach("a2", talks)
    process = next(first).started.process.id
    second = attach("a2", talks)
    assert next(second).started.process.id == process
    assert next(response.stdout for response in second if response.stdout).startswith(b"again\n")
    node.processes.Signal(process_pb2.SignalRequest(id=process, signal=9))
    assert list(second)[-1].ended.process.state == KILLED
    first.cancel()


def test_pages_filters_and_fields(node, hello):
    ids = [node.run(hello, name=f"page-{number}").id for number in range(5)]
    wanted = process_pb2.ProcessFilter(names=["page-*"])
    token, found = "", []
    while True:
        request = process_pb2.ListRequest(filter=wanted, page_size=2, page_token=token, fields=FieldMask(paths=["id"]))
        page = node.processes.List(request)
        assert len(page.processes) <= 2
        assert all(not process.module for process in page.processes)
        found += [process.id for process in page.processes]
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(ids, reverse=True)
    bad = process_pb2.ListRequest(fields=FieldMask(paths=["nothing"]))
    assert refused(node.processes.List, bad).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_watch_tells_of_each_change(node, hello):
    call = node.processes.Watch(process_pb2.WatchRequest(filter=process_pb2.ProcessFilter(names=["watched"])))
    seen: list[process_pb2.WatchResponse] = []

    def read():
        try:
            seen.extend(iter(lambda: next(call), None))
        except (grpc.RpcError, StopIteration):
            return

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: any(each.synced for each in seen))
    process = node.run(hello, name="watched")
    node.wait(process.id)
    node.processes.Remove(process_pb2.RemoveRequest(id=process.id))
    wait_until(lambda: any(each.removed for each in seen))
    call.cancel()
    reader.join()
    states = [each.process.state for each in seen if each.process.id == process.id]
    assert RUNNING in states
    assert EXITED in states


def test_deadlines_end_the_waiting_only(node, guests):
    process = node.run(node.upload(guests / "sleep_forever.wat"))
    error = refused(node.wait, process.id, 0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert node.get(process.id).state == RUNNING
    node.processes.Stop(process_pb2.StopRequest(id=process.id))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"name": "no/name"}, "spec.name"),
        ({"nans": "some"}, "spec.nans"),
        ({"chaos_ratio": 2.0}, "spec.chaos_ratio"),
        ({"mounts": [process_pb2.Mount(host="relative", guest="/")]}, "spec.mounts"),
        ({"mounts": [process_pb2.Mount(host="/no/such", guest="/")]}, "mount /no/such"),
        ({"env": [process_pb2.EnvVar(name="A=B")]}, "spec.env"),
        ({"limits": process_pb2.Limits(stack_bytes=1)}, "spec.limits.stack_bytes"),
        ({"function": "none"}, "none"),
        ({"network": process_pb2.Network(rules=["?"])}, "?"),
    ],
)
def test_a_wrong_spec_is_refused_and_leaves_nothing(node, hello, spec, reason):
    count = len(node.processes.List(process_pb2.ListRequest(page_size=1000)).processes)
    error = refused(node.run, hello, **spec)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in error.details()
    assert len(node.processes.List(process_pb2.ListRequest(page_size=1000)).processes) == count


def test_replay_trace_records_and_describe(node, hello):
    process = node.run(hello)
    node.wait(process.id)
    came = list(node.views.Replay(view_pb2.ReplayRequest(id=process.id)))
    assert b"".join(each.stdout for each in came) == b"hello, world\n"
    assert came[-1].ended.kind == "exit"
    trace = node.views.Trace(view_pb2.TraceRequest(id=process.id, layer=view_pb2.TraceRequest.LAYER_SYSCALL))
    assert b"fd_write(1" in b"".join(each.text for each in trace)
    records = [
        record
        for each in node.records.ReadRecords(record_pb2.ReadRecordsRequest(id=process.id, from_seq=1, records_max=1))
        for record in each.records
    ]
    assert len(records) == 1
    assert '"fd_write"' in records[0]


def test_export_and_import(node, make_node, hello):
    process = node.run(hello)
    node.wait(process.id)
    request = view_pb2.ExportRequest(kind=view_pb2.OBJECT_KIND_PROCESS, id=process.id)
    archive = b"".join(each.data for each in node.views.Export(request))
    other = make_node().start()
    assert other.views.Import(iter([view_pb2.ImportRequest(data=archive)])).id == process.id
    came = list(other.views.Replay(view_pb2.ReplayRequest(id=process.id)))
    assert b"".join(each.stdout for each in came) == b"hello, world\n"
    assert other.get(process.id).imported


def test_a_broken_upload_goes_on(node, guests):
    data = (guests / "hello.wat").read_bytes() + b"\n;; " + os.urandom(32).hex().encode() * 100
    digest = hashlib.sha256(data).hexdigest()
    first = module_pb2.UploadRequest(digest=digest, size_bytes=len(data), name="broken", data=data[:1000])
    assert refused(node.modules.Upload, iter([first])).code() is grpc.StatusCode.INVALID_ARGUMENT
    offset = node.modules.StatUpload(module_pb2.StatUploadRequest(digest=digest)).offset
    assert offset == 1000
    rest = module_pb2.UploadRequest(
        digest=digest, size_bytes=len(data), name="broken", offset=offset, data=data[offset:]
    )
    assert node.modules.Upload(iter([rest])).module.name == "broken"


def test_an_upload_is_held_to_its_digest(node):
    request = module_pb2.UploadRequest(digest="0" * 64, size_bytes=4, data=b"\0asm")
    error = refused(node.modules.Upload, iter([request]))
    assert details(error).metadata["class"] == "ModuleError"
    assert node.modules.StatUpload(module_pb2.StatUploadRequest(digest="0" * 64)).offset == 0


def test_what_is_too_big_is_refused(node):
    request = module_pb2.UploadRequest(digest="0" * 64, size_bytes=1 << 40)
    assert refused(node.modules.Upload, iter([request])).code() is grpc.StatusCode.INVALID_ARGUMENT
    huge = process_pb2.GetRequest(id="x" * (5 << 20))
    assert refused(node.processes.Get, huge).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
