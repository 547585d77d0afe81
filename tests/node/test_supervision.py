"""What becomes of processes when workers, the control process or the node end; room and restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.node.conftest import wait_until
from tests.node.test_processes import CRASHED, EXITED, KILLED, RUNNING, details, refused
from timecraftd.api.v1 import node_pb2, process_pb2
from timecraftd.registry.home import ProcessLock

QUEUED = process_pb2.PROCESS_STATE_QUEUED
Policy = process_pb2.RestartPolicy
TICKER = b"""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00")
  (data (i32.const 16) "tick\\n")
  (func (export "_start")
    (i32.store8 (i32.const 72) (i32.const 0))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 20000000))
    (loop
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
      (br 0))))
"""
"""Writes a line each 20 ms."""


def ticks(node, process) -> int:
    """Lines that a process has written."""
    return node.logs(process.id).count(b"tick\n")


@pytest.fixture
def ticker(make_node):
    """A daemon, and a module that writes lines for ever."""
    node = make_node().start()
    return node, node.upload(TICKER, "ticker.wat")


def test_guests_outlive_the_control_process(ticker):
    node, module = ticker
    process = node.run(module)
    wait_until(lambda: ticks(node, process) > 2)
    node.stop(signal.SIGKILL)
    time.sleep(0.5)
    node.start()
    again = node.get(process.id)
    assert (again.state, again.epoch, again.pid) == (RUNNING, 0, process.pid)
    before = ticks(node, process)
    assert before > 15  # it went on in between
    wait_until(lambda: ticks(node, process) > before)
    node.processes.Stop(process_pb2.StopRequest(id=process.id))
    assert node.get(process.id).state == KILLED


def test_a_guest_whose_reader_died_with_the_control_process_goes_on(ticker):
    node, module = ticker
    start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=module))
    call = node.processes.Attach(iter([process_pb2.AttachRequest(start=start, with_stdin=True)]))
    process = next(call).started.process
    assert next(call).stdout
    node.stop(signal.SIGKILL)
    assert refused(lambda: list(call)).code() is grpc.StatusCode.UNAVAILABLE
    node.start()
    before = ticks(node, process)
    wait_until(lambda: ticks(node, process) > before)


def test_a_process_whose_worker_is_just_dying_is_taken_up_when_it_is_dead(ticker):
    """Its lock is held a moment longer than its worker answers."""
    node, module = ticker
    kept = node.run(module, restart=Policy(mode=Policy.MODE_RESUME))
    wait_until(lambda: ticks(node, kept) > 2)
    (worker,) = node.worker_pids()
    node.stop(signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    lock = ProcessLock(str(node.home / "processes" / kept.id))
    lock.acquire(wait=True)
    node.start()
    wait_until(lambda: node.told("another host runs the process"))
    assert node.get(kept.id).epoch == 0
    lock.release()
    wait_until(lambda: node.get(kept.id).epoch == 1 and node.get(kept.id).state == RUNNING)


def test_a_worker_that_dies_costs_its_guests_a_resume(ticker):
    node, module = ticker
    kept = node.run(module, restart=Policy(mode=Policy.MODE_RESUME))
    node.run(module, name="lost")
    wait_until(lambda: ticks(node, kept) > 2)
    before = ticks(node, kept)
    (pid,) = node.worker_pids()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: node.get(kept.id).epoch == 1 and node.get(kept.id).state == RUNNING)
    assert node.get("lost").state == CRASHED
    assert "host died" in node.get("lost").message
    wait_until(lambda: ticks(node, kept) > before)
    resumed = node.processes.Resume(process_pb2.ResumeRequest(id="lost"))
    assert resumed.process.state == RUNNING


@pytest.mark.parametrize("policy", ["checkpoint", "leave"])
def test_stopping_the_node_loses_nothing(make_node, policy):
    node = make_node(f'on_stop = "{policy}"').start()
    process = node.run(node.upload(TICKER, "ticker.wat"))
    wait_until(lambda: ticks(node, process) > 2)
    assert node.stop() == 0
    assert len(node.worker_pids()) == (policy == "leave")
    node.start()
    wait_until(lambda: node.get(process.id).state == RUNNING)
    before = ticks(node, process)
    wait_until(lambda: ticks(node, process) > before)
    assert node.get(process.id).epoch == (policy == "checkpoint")


def test_stopping_ends_processes_if_that_is_the_policy(make_node):
    node = make_node('on_stop = "stop"').start()
    process = node.run(node.upload(TICKER, "ticker.wat"))
    assert node.stop() == 0
    node.start()
    assert node.get(process.id).state == KILLED


def test_stopping_ends_what_is_queued_and_starts_none_of_it(make_node, guests):
    node = make_node('on_stop = "stop"\nprocesses_max = 4').start()
    module = node.upload(guests / "sleep_forever.wat")
    ids = [node.run(module).id for _ in range(40)]
    assert node.stop() == 0
    assert not node.told("processes didn't end in time")
    node.start()
    assert {node.get(process).exit_code for process in ids} == {128 + signal.SIGTERM}


def test_stopping_may_wait_for_the_end(make_node, guests):
    node = make_node('on_stop = "finish"').start()
    process = node.run(node.upload(guests / "sleep.wat"))
    assert node.stop() == 0
    node.start()
    assert node.get(process.id).state == EXITED


def test_retention_leaves_what_is_to_be_restarted(make_node, guests):
    config = '[restart]\nbackoff_s_min = "500ms"\n[retention]\nprocesses_max = 0\nevery_s = "10ms"\n'
    node = make_node(config).start()
    module = node.upload(guests / "trap_unreachable.wat")
    node.run(module, restart=Policy(mode=Policy.MODE_ON_FAILURE, retries_max=1))
    wait_until(lambda: len(node.told("retention: removed")) == 2)
    assert len(node.told("process restarted")) == 1
    assert not node.told("restart failed")


def test_restarts_by_policy(make_node, guests):
    node = make_node('[restart]\nbackoff_s_min = "1ms"').start()
    module = node.upload(guests / "trap_unreachable.wat")
    first = node.run(module, restart=Policy(mode=Policy.MODE_ON_FAILURE, retries_max=2))
    wait_until(lambda: len(node.processes.List(process_pb2.ListRequest()).processes) == 3)
    time.sleep(0.2)
    found = node.processes.List(process_pb2.ListRequest()).processes
    assert [each.restart_of for each in found] == [found[1].id, first.id, ""]


def test_always_ends_with_stop(make_node, guests):
    node = make_node('[restart]\nbackoff_s_min = "1ms"\nbackoff_s_max = "10ms"').start()
    node.run(node.upload(guests / "sleep.wat"), name="again", restart=Policy(mode=Policy.MODE_ALWAYS))
    wait_until(lambda: len(node.processes.List(process_pb2.ListRequest()).processes) >= 3)
    node.run(node.upload(guests / "sleep_forever.wat"), name="other", restart=Policy(mode=Policy.MODE_ALWAYS))
    node.processes.Stop(process_pb2.StopRequest(id="other"))
    time.sleep(0.2)
    assert node.get("other").state == KILLED


def test_those_without_room_wait_and_the_queue_is_bounded(make_node):
    node = make_node("processes_max = 1\nqueue_max = 1").start()
    module = node.upload(TICKER, "ticker.wat")
    first, second = node.run(module), node.run(module)
    assert (first.state, second.state) == (RUNNING, QUEUED)
    error = refused(node.run, module)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(error).reason == "TC0027"
    node.processes.Stop(process_pb2.StopRequest(id=first.id))
    wait_until(lambda: node.get(second.id).state == RUNNING)


def test_what_is_queued_outlives_the_control_process_and_may_be_stopped(make_node):
    node = make_node("processes_max = 1").start()
    module = node.upload(TICKER, "ticker.wat")
    running, queued, stopped = node.run(module), node.run(module), node.run(module)
    node.stop(signal.SIGKILL)
    node.start()
    assert node.get(queued.id).state == QUEUED
    assert node.processes.Stop(process_pb2.StopRequest(id=stopped.id)).process.state == KILLED
    node.processes.Stop(process_pb2.StopRequest(id=running.id))
    wait_until(lambda: node.get(queued.id).state == RUNNING)


def test_a_queued_process_may_be_attached(make_node, guests):
    node = make_node("processes_max = 1").start()
    first = node.run(node.upload(TICKER, "ticker.wat"))
    start = process_pb2.AttachRequest.Start(spec=process_pb2.ProcessSpec(module=node.upload(guests / "hello.wat")))
    call = node.processes.Attach(iter([process_pb2.AttachRequest(start=start)]))
    assert next(call).started.process.state == QUEUED
    node.processes.Stop(process_pb2.StopRequest(id=first.id))
    assert next(call).started.process.state in (RUNNING, EXITED)
    rest = list(call)
    assert b"".join(each.stdout for each in rest) == b"hello, world\n"
    assert rest[-1].ended.process.exit_code == 0


def test_memory_is_promised_to_so_many(make_node):
    node = make_node('memory_bytes_max = "100MiB"\nmemory_bytes_reckoned = "60MiB"').start()
    module = node.upload(TICKER, "ticker.wat")
    assert [node.run(module).state for _ in range(2)] == [RUNNING, QUEUED]
    small = process_pb2.Limits(memory_bytes=1 << 20)
    assert node.run(module, limits=small).state == QUEUED  # those who came first go first


def test_draining_takes_nothing_and_waits(ticker):
    node, module = ticker
    node.run(module)
    drained = threading.Event()

    def drain():
        node.node.Drain(node_pb2.DrainRequest(stop_after=Duration(seconds=1)))
        drained.set()

    thread = threading.Thread(target=drain)
    thread.start()
    wait_until(lambda: node.node.GetNode(node_pb2.GetNodeRequest()).draining)
    assert refused(node.run, module).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    thread.join(20)
    assert drained.is_set()
    node.node.Drain(node_pb2.DrainRequest(cancel=True))
    assert node.run(module).state == RUNNING


def test_isolated_processes_have_a_worker_each(ticker):
    node, module = ticker
    shared, alone = node.run(module), node.run(module, isolated=True)
    assert shared.pid != alone.pid
    os.kill(alone.pid, signal.SIGKILL)
    wait_until(lambda: node.get(alone.id).state == CRASHED)
    assert node.get(shared.id).state == RUNNING
    another = node.run(module, isolated=True)
    node.processes.Stop(process_pb2.StopRequest(id=another.id))
    wait_until(lambda: another.pid not in node.worker_pids())


def test_one_daemon_has_a_state_directory(ticker):
    node, _ = ticker
    second = subprocess.run(
        [sys.executable, "-m", "timecraftd", "--config", str(node.config)],
        capture_output=True, text=True, env=node.env, timeout=30, check=False,
    )  # fmt: skip
    assert second.returncode == 125
    assert f"a node daemon (pid {node.process.pid}) has it" in second.stderr
    assert node.node.GetNode(node_pb2.GetNodeRequest()).name == "test"


def test_idle_workers_end_when_nobody_controls_them(ticker):
    node, _ = ticker
    assert node.stop() == 0
    wait_until(lambda: not node.worker_pids())


def test_many_one_after_another(make_node, guests):
    node = make_node('[record]\nring_bytes = "4MiB"').start()
    module = node.upload(guests / "hello.wat")
    ids = [node.run(module).id for _ in range(100)]
    assert {node.wait(each).exit_code for each in ids} == {0}


def test_five_hundred_at_once(make_node, guests):
    """Asked for and ended by several clients, in as many workers as it takes."""
    node = make_node('memory_bytes_reckoned = "1MiB"\n[record]\nring_bytes = "4MiB"').start()
    module = node.upload(guests / "sleep_forever.wat")
    with ThreadPoolExecutor(8) as clients:
        processes = list(clients.map(lambda _: node.run(module), range(500)))
        about = node.node.GetNode(node_pb2.GetNodeRequest())
        assert (about.capacity.processes, len(about.workers)) == (500, 2)
        assert all(clients.map(lambda each: node.get(each.id).state == RUNNING, processes))

        def end(process):
            node.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=9))
            return node.wait(process.id).state

        assert set(clients.map(end, processes)) == {KILLED}


def test_workers_are_confined(ticker):
    """What they have given up is gone for good; their guests don't miss it."""
    node, module = ticker
    process = node.run(module, network=process_pb2.Network(rules=["allow out tcp 127.0.0.1"]))
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    wait_until(lambda: ticks(node, process) > 2)


def test_what_a_confined_process_can_not_do():
    code = (
        "import os, threading\n"
        "from timecraftd.engine.runtime import Engine\n"
        "Engine().confine()\n"
        "def fails(what):\n"
        "    try: what()\n"
        "    except PermissionError: return True\n"
        "thread = threading.Thread(target=print, args=['threads'])\n"
        "thread.start(); thread.join()\n"
        "print([fails(lambda: os.execv('/bin/true', ['true'])), fails(os.fork), fails(lambda: os.kill(1, 0)),\n"
        "       fails(lambda: os.chroot('/')), fails(lambda: os.setuid(0)), fails(lambda: os.mknod('/tmp/x'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"threads\n{[True] * 6}\n", done.stderr
