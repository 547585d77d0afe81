"""A node whose logs go to a real S3 server: as they grow, through crashes and outages, and within a budget."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from tests.node.conftest import wait_until
from tests.node.test_supervision import TICKER, ticks
from tests.s3 import BUILD_S, ENVIRONMENT, serving
from timecraftd.api.v1 import process_pb2, view_pb2
from timecraftd.recorder.manifest import decode_manifest
from timecraftd.recorder.reader import read_log

pytestmark = pytest.mark.timeout(BUILD_S + 120)
FLOOD = b"""(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop
      (drop (call $random (i32.const 0) (i32.const 65536)))
      (br 0))))
"""
"""Fills its log as fast as it can, with what can't be compressed."""
MIB = 1 << 20


@pytest.fixture
def s3(tmp_path):
    """A server of the test's own, which it may stop."""
    with serving(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def start(make_node, s3):
    """Starts a node that sends its logs to the server."""

    def start(config="seal_age_s = '200ms'\n", rest=""):
        metrics = "metrics_listen = '127.0.0.1:0'\n"
        return make_node(f"{metrics}{s3.config('logs')}{config}{rest}", ENVIRONMENT).start()

    return start


def manifest(s3, process):
    """What the bucket says of a process; None if it says nothing yet."""
    path = s3.bucket / "logs" / "manifests" / f"{process.id}.json"
    return decode_manifest(path.read_bytes(), process.id) if path.exists() else None


def is_complete(s3, process) -> bool:
    """Whether all of a process is there."""
    found = manifest(s3, process)
    return found is not None and found.complete


def check(node, s3, process) -> list[bytes]:
    """What a process wrote to its standard output, from the bucket; all that is there is what is on the disk."""
    wait_until(lambda: is_complete(s3, process), 30)
    stored, local = s3.bucket / "logs" / "logs" / process.id, node.home / "processes" / process.id / "log"
    names = [path.name for path in sorted(local.glob("*.tcl"))]
    assert [path.name for path in sorted(stored.glob("*.tcl"))] == names
    for name in names:
        assert (stored / name).read_bytes() == (local / name).read_bytes()
    found = manifest(s3, process)
    for kind, digest, size in found.objects:
        assert (s3.bucket / "logs" / "objects" / kind / digest[:2] / digest).stat().st_size == size
    records = list(read_log(stored))
    assert all(after.seq == before.seq + 1 for before, after in pairwise(records))
    return [data for record in records for _, data in record.sent]


def metric(node, name: str) -> float:
    """A metric's value now."""
    import urllib.request

    address = node.told("metrics")[-1].partition("address=")[2]
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"timecraft_{name} "))


def test_a_short_process_is_in_the_store(start, s3, guests):
    node = start()
    module = node.upload(guests / "hello.wat")
    for _ in range(3):  # of which some begin and end between two looks
        process = node.run(module)
        node.wait(process.id)
        assert b"hello, world\n" in check(node, s3, process)
    found = manifest(s3, process)
    assert (found.node, found.process.state, found.process.exit_code) == ("test", "exited", 0)
    wait_until(lambda: metric(node, "upload_waiting_processes") == 0)
    assert metric(node, "uploaded_segments_total") == 3
    assert metric(node, "uploaded_objects_total") == 3, "what processes share goes once"
    assert node.stop() == 0


def test_a_node_reads_what_is_in_its_store(start, s3, guests):
    """It lists it in pages, and reads logs whose files are gone."""
    node = start()
    module = node.upload(guests / "hello.wat")
    ended = [node.wait(node.run(module).id) for _ in range(3)]
    for process in ended:
        wait_until(lambda process=process: is_complete(s3, process), 30)
    first = node.processes.List(process_pb2.ListRequest(remote=True, page_size=2))
    second = process_pb2.ListRequest(remote=True, page_size=2, page_token=first.next_page_token)
    pages = [first, node.processes.List(second)]
    assert [each.id for page in pages for each in page.processes] == sorted((each.id for each in ended), reverse=True)
    assert not pages[1].next_page_token
    for path in node.home.glob("processes/*/log/*.tcl"):
        path.unlink()
    for process in ended:
        answers = node.processes.Logs(process_pb2.LogsRequest(id=process.id))
        assert b"hello, world\n" in [output.data for answer in answers for output in answer.outputs]
    assert node.stop() == 0


def test_a_long_process_goes_as_it_grows_whatever_dies(start, s3):
    """The daemon is killed and comes back; the guest and its log go on."""
    node = start()
    process = node.run(node.upload(TICKER, "ticker.wat"))
    wait_until(lambda: (found := manifest(s3, process)) and len(found.segments) > 1)
    node.stop(signal.SIGKILL)
    before = ticks_in(s3, process)
    node.start()
    wait_until(lambda: len(manifest(s3, process).segments) > before)
    node.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=signal.SIGTERM))
    node.wait(process.id)
    assert check(node, s3, process).count(b"tick\n") == ticks(node, process)


def ticks_in(s3, process) -> int:
    """Segments of a process that are in the store."""
    return len(manifest(s3, process).segments)


def test_an_outage_holds_guests_when_the_budget_is_used_up(start, s3):
    """And loses nothing; a guest that is held can be ended."""
    s3.stop()
    node = start("seal_age_s = '200ms'\nlocal_bytes_max = '64MiB'\nrequest_s_max = '2s'\n")
    flood = node.upload(FLOOD, "flood.wat")
    process, other = node.run(flood), node.run(flood)
    wait_until(lambda: node.told("uploads: the budget"), 60)
    wait_until(lambda: is_still(node, process) and is_still(node, other), 60)
    assert metric(node, "upload_held") == 1
    assert metric(node, "upload_waiting_bytes") > 64 * MIB
    assert metric(node, "log_flushes_total") > 0
    wait_until(lambda: metric(node, "log_ring_taken_max_ratio") > 0.9)
    assert metric(node, "log_ring_waiting_bytes") > MIB
    lag_s = metric(node, "log_seal_lag_seconds")
    wait_until(lambda: metric(node, "log_seal_lag_seconds") > lag_s)
    node.processes.Signal(process_pb2.SignalRequest(id=other.id, signal=signal.SIGKILL))
    node.wait(other.id, 10)
    s3.start()
    before = log_bytes(node, process)
    wait_until(lambda: log_bytes(node, process) > before + 16 * MIB, 100)
    node.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=signal.SIGKILL))
    node.wait(process.id)
    for each in (process, other):
        check(node, s3, each)
    wait_until(lambda: metric(node, "upload_held") == 0)
    wait_until(lambda: metric(node, "log_seal_lag_seconds") == 0 == metric(node, "log_ring_waiting_bytes"))


def log_bytes(node, process) -> int:
    """Size of a process's log on the disk."""
    return sum(path.stat().st_size for path in (node.home / "processes" / process.id / "log").glob("*.tcl"))


def is_still(node, process) -> bool:
    """Whether a log doesn't grow any more, in ten looks."""
    import time

    before = log_bytes(node, process)
    time.sleep(0.3)
    return log_bytes(node, process) == before


def test_a_restart_sends_nothing_again(start, s3, guests):
    node = start()
    process = node.run(node.upload(guests / "hello.wat"))
    node.wait(process.id)
    wait_until(lambda: is_complete(s3, process))
    state = Path(node.home / "processes" / process.id / "upload.json")
    wait_until(lambda: state.exists() and json.loads(json.loads(state.read_text())["manifest"])["complete"])
    node.stop()
    node.start()
    wait_until(lambda: metric(node, "sample_age_seconds") < 1)
    assert metric(node, "uploaded_bytes_total") == 0


def test_what_is_wrong_with_the_store_is_told(start, s3, guests):
    node = start(rest="[limits]\n")
    s3.bucket.rename(s3.bucket.with_name("elsewhere"))
    process = node.run(node.upload(guests / "hello.wat"))
    assert node.wait(process.id).exit_code == 0
    wait_until(lambda: node.told("uploads: failed"))
    assert "there is no such bucket" in node.told("uploads: failed")[0]
    wait_until(lambda: metric(node, "upload_failing") == 1)
    s3.bucket.with_name("elsewhere").rename(s3.bucket)
    check(node, s3, process)


def test_retention_removes_from_the_store(start, s3, guests):
    """As configured, and as a client asks."""
    node = start(
        "seal_age_s = '200ms'\ndelete_grace_s = '0s'\n", rest="[retention]\nremote_bytes_max = 0\nevery_s = '100ms'\n"
    )
    process = node.wait(node.run(node.upload(guests / "hello.wat")).id)
    wait_until(lambda: [line for line in node.told("retention: removed from the store") if "kind=log" in line])
    wait_until(lambda: not list((s3.bucket / "logs" / "objects").rglob("?" * 64)))
    assert b"hello, world\n" in node.logs(process.id), "here it stays"
    assert node.stop() == 0


def test_a_node_keeps_no_logs_that_are_in_its_store(start, s3, guests):
    node = start("seal_age_s = '200ms'\nkeep_local_s = '0s'\n", rest="[retention]\nevery_s = '100ms'\n")
    module = node.upload(guests / "hello.wat")
    for expected in (1, 2):
        process = node.wait(node.run(module).id)
        wait_until(lambda expected=expected: len(node.told("retention: log is in the store alone")) == expected)
        assert not list(node.home.glob("processes/*/log/*.tcl"))
        assert b"hello, world\n" in node.logs(process.id)
        assert metric(node, "retention_evicted_bytes_total") > 0
        assert node.stop() == 0
        node.start()
    wait_until(lambda: metric(node, "upload_waiting_processes") == 0)
    assert metric(node, "uploaded_segments_total") == metric(node, "upload_conflicts_total") == 0
    assert len(list((s3.bucket / "logs" / "manifests").iterdir())) == 2


def test_a_client_prunes_the_store_of_a_node(start, guests):
    node = start("seal_age_s = '200ms'\ndelete_grace_s = '0s'\n")
    module = node.upload(guests / "hello.wat")
    processes = [node.wait(node.run(module).id) for _ in range(3)]
    wait_until(lambda: metric(node, "upload_waiting_processes") == 0 < metric(node, "uploaded_segments_total"))

    def prune(**options) -> list[tuple[str, str]]:
        removed = node.views.Prune(view_pb2.PruneRequest(remote=True, **options)).removed
        return [(each.kind, each.id) for each in removed]

    first, second, third = (process.id for process in processes)
    assert prune(keep=2, dry_run=True) == [("process", first)]
    assert prune(keep=2) == [("process", first), ("log", first)]
    node.processes.Remove(process_pb2.RemoveRequest(id=second, remote=True, now=True))
    listed = node.processes.List(process_pb2.ListRequest(remote=True)).processes
    assert [process.id for process in listed] == [third]
    assert prune(keep=0) == [("process", third), ("log", third)]
    assert [kind for kind, _ in prune()] == ["config", "module", "runtime"]
    assert len(node.processes.List(process_pb2.ListRequest()).processes) == 3, "here they stay"


def test_retention_removes_what_is_in_the_store(start, s3, guests):
    """And nothing else, which it tells; what stays in the store is read from there."""
    s3.stop()
    node = start(rest="[retention]\nprocesses_max = 1\nevery_s = '50ms'\n")
    module = node.upload(guests / "hello.wat")
    processes = [node.wait(node.run(module).id) for _ in range(3)]
    wait_until(lambda: metric(node, "retention_kept_back") == 2)
    assert metric(node, "retention_removed_processes_total") == 0
    assert "processes=2" in node.told("retention: kept back, not wholly in the store")[-1]
    s3.start()
    wait_until(lambda: metric(node, "retention_removed_processes_total") == 2)
    assert metric(node, "retention_removed_bytes_total") > 0
    wait_until(lambda: metric(node, "retention_kept_back") == 0)
    listed = node.processes.List(process_pb2.ListRequest()).processes
    assert [process.id for process in listed] == [processes[2].id]
    assert sorted(path.name for path in node.home.glob("processes/*")) == [processes[2].id]
    told = node.told("retention: removed")
    assert [
        process.id in line and "bound=processes_max" in line for process, line in zip(processes, told, strict=False)
    ]
    assert b"hello, world\n" in node.logs(processes[0].id)
    assert node.stop() == 0
