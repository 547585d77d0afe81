"""/metrics of a real node, and the parts that it is made of."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.node.conftest import Node, wait_until
from timecraftd.api.v1 import process_pb2
from timecraftd.supervisor.totals import Totals
from timecraftd.telemetry import CALL_KINDS, CALL_TOOK_LOG2_NS, ENDS, SCRAPES_MAX, Metrics, MetricsServer, Sample

BUILD = {"version": "1.2.3", "profile": "debug", "engine": "fake", "engine_version": "1", "cpu_features": "many"}


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name to label values, in the order of the labels' names, to value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return parsed(answer.read().decode())


def metrics_port(node: Node) -> int:
    return int(node.told("metrics")[-1].rpartition(":")[2])


@pytest.fixture
def observed(make_node) -> Node:
    """A node with metrics."""
    return make_node('metrics_listen = "127.0.0.1:0"\n').start()


def test_totals_only_grow_when_workers_come_and_go():
    totals = Totals()
    totals.note("a", {"calls": 10})
    totals.note("a", {"calls": 7})  # an answer that was overtaken
    totals.note("b", {"calls": 5})
    assert totals.sums["calls"] == 15
    totals.forget("a")
    totals.note("b", {"calls": 6})
    assert totals.sums["calls"] == 16


def test_what_an_earlier_control_process_counted_is_not_counted_again():
    totals = Totals()
    totals.begin("a", {"calls": 1000})
    totals.note("a", {"calls": 1001})
    assert totals.sums["calls"] == 1


def test_metrics_have_units_and_help_and_no_more_series_than_the_code_names():
    sample = Sample(10.0, {"running": 3}, {"shared": 1}, 0, {"queue_length": 2}, {"cpu_ns": 2_500_000_000})
    metrics = Metrics(BUILD, lambda: sample, monotonic=lambda: 12.0)
    for number in range(50):
        metrics.called("/timecraft.v1.ProcessService/Run", "OK", number / 1000)
    server = MetricsServer("127.0.0.1", 0, metrics.registry)
    try:
        found = scrape(server.port)
    finally:
        server.close()
    assert found["timecraft_guest_cpu_seconds_total"] == {(): 2.5}
    assert found["timecraft_processes"] == {("running",): 3}
    assert found["timecraft_sample_age_seconds"] == {(): 2.0}
    assert found["timecraft_grpc_calls_total"] == {("OK", "/timecraft.v1.ProcessService/Run"): 50}
    assert list(found["timecraft_build_info"]) == [("fake", "1", "debug", "1.2.3")]
    assert {state for (state,) in found["timecraft_process_ends_total"]} == set(ENDS)
    latencies = sum(len(samples) for name, samples in found.items() if name.startswith("timecraft_host_call_seconds"))
    assert latencies == len(CALL_KINDS) * (len(CALL_TOOK_LOG2_NS) + 3), "buckets, that without a bound, count and sum"
    assert sum(map(len, found.values())) - latencies < 150


def test_a_daemon_gets_the_port_of_the_one_before():
    """Though the kernel remembers its connections for a minute."""
    port = 0
    for _ in range(2):
        server = MetricsServer("127.0.0.1", port, Metrics(BUILD, lambda: Sample(0.0)).registry)
        port = server.port
        with socket.create_connection(("127.0.0.1", port)) as scrape_of_old:
            scrape_of_old.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            while scrape_of_old.recv(1 << 16):
                pass  # until the server hangs up, so that it is the one who has to remember
        server.close()


def test_calls_are_told_by_name_and_outcome_and_latencies_by_kind():
    totals = {
        "call:fd_read:ok": 7,
        "call:fd_read:again": 1,
        "took:read:10": 2,
        "took:read:inf": 1,
        "took_ns:read": 2000,
    }
    server = MetricsServer("127.0.0.1", 0, Metrics(BUILD, lambda: Sample(0.0, totals=totals)).registry)
    try:
        found = scrape(server.port)
    finally:
        server.close()
    assert found["timecraft_host_calls_by_name_total"] == {("fd_read", "ok"): 7, ("fd_read", "again"): 1}
    buckets = {
        float(bound): count
        for (kind, bound), count in found["timecraft_host_call_seconds_bucket"].items()
        if kind == "read"
    }
    assert buckets[2**9 / 1e9] == 0
    assert buckets[2**10 / 1e9] == buckets[2**34 / 1e9] == 2
    assert buckets[math.inf] == 3
    assert found["timecraft_host_call_seconds_sum"]["read",] == 2e-6


def test_scrapes_at_one_time_are_bounded():
    blocked = threading.Event()

    def sample() -> Sample:
        blocked.wait(20)
        return Sample(0.0)

    server = MetricsServer("127.0.0.1", 0, Metrics(BUILD, sample).registry)
    many = []
    try:
        for _ in range(SCRAPES_MAX):
            many.append(socket.create_connection(("127.0.0.1", server.port), 10))
            many[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with socket.create_connection(("127.0.0.1", server.port), 10) as late:
            assert late.recv(1) == b"", "one more is hung up on"
    finally:
        blocked.set()
        for each in many:
            each.close()
        server.close()


def test_a_node_tells_of_processes_calls_and_logs(observed, guests):
    module = observed.upload(guests / "hello.wat")
    for _ in range(3):
        observed.wait(observed.run(module).id)
    wait_until(lambda: scrape(metrics_port(observed))["timecraft_processes"]["exited",] == 3)
    wait_until(lambda: scrape(metrics_port(observed))["timecraft_event_loop_lag_seconds_count"][()] > 0)
    found = scrape(metrics_port(observed))
    assert found["timecraft_process_ends_total"]["exited",] == 3
    assert found["timecraft_processes"]["running",] == 0
    assert found["timecraft_host_calls_total"][()] >= 3
    assert found["timecraft_host_calls_by_name_total"]["fd_write", "ok"] == 3
    assert {kind for (kind,) in found["timecraft_host_call_seconds_sum"]} == set(CALL_KINDS)
    assert found["timecraft_host_call_seconds_count"]["write",] == 3, "each process's first call is timed"
    assert found["timecraft_log_records_total"][()] >= 3
    assert found["timecraft_log_stored_bytes_total"][()] > 0
    assert found["timecraft_log_ring_waiting_bytes"][()] == 0
    assert found["timecraft_log_seal_lag_seconds"][()] == 0, "there is no store"
    assert found["timecraft_guest_cpu_seconds_total"][()] > 0
    assert found["timecraft_workers"]["shared",] == 1
    assert found["timecraft_grpc_calls_total"]["OK", "/timecraft.v1.ProcessService/Run"] == 3
    assert found["timecraft_grpc_call_seconds_count"]["/timecraft.v1.ProcessService/Run",] == 3
    assert found["timecraft_state_free_bytes"][()] > 0


def test_guests_that_run_are_counted_too(observed, guests):
    process = observed.run(observed.upload(guests / "spin.wat"))
    wait_until(lambda: scrape(metrics_port(observed))["timecraft_guest_cpu_seconds_total"][()] > 0.05)
    found = scrape(metrics_port(observed))
    assert found["timecraft_processes"]["running",] == 1
    assert found["timecraft_guest_memory_bytes"][()] >= 0
    assert found["timecraft_memory_promised_bytes"][()] > 0
    observed.processes.Signal(process_pb2.SignalRequest(id=process.id, signal=9))
    wait_until(lambda: scrape(metrics_port(observed))["timecraft_process_ends_total"]["killed",] == 1)


def test_a_worker_that_hangs_does_not_keep_the_rest_from_being_told(observed):
    port = metrics_port(observed)
    assert scrape(port)["timecraft_worker_memory_bytes"][()] > 0
    (worker,) = observed.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_until(lambda: scrape(port)["timecraft_worker_memory_bytes"][()] == 0)
        assert scrape(port)["timecraft_workers"]["shared",] == 1
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: scrape(port)["timecraft_worker_memory_bytes"][()] > 0)


DIALS = b"""(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "192.0.2.1/80")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 12) (i32.const 0)
      (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 64)))))"""
"""Opens a connection, as a file."""


def test_what_guests_are_refused_of_the_network_is_counted(observed):
    module = observed.upload(DIALS)
    network = process_pb2.Network(rules=["deny 192.0.2.0/24"])
    for _ in range(2):
        observed.wait(observed.run(module, sockets="path", network=network).id)
    wait_until(lambda: scrape(metrics_port(observed))["timecraft_network_decisions_total"]["refused",] == 2)
    assert scrape(metrics_port(observed))["timecraft_network_decisions_total"]["granted",] == 0


def test_a_new_daemon_counts_from_where_it_finds_its_workers(make_node, guests):
    node = make_node('metrics_listen = "127.0.0.1:0"\non_stop = "leave"\n').start()
    for _ in range(3):
        node.wait(node.run(node.upload(guests / "hello.wat")).id)
    node.run(node.upload(guests / "sleep_forever.wat"))
    wait_until(lambda: scrape(metrics_port(node))["timecraft_host_calls_total"][()] >= 3)
    assert node.stop() == 0
    node.start()
    wait_until(lambda: scrape(metrics_port(node))["timecraft_processes"]["running",] == 1)
    found = scrape(metrics_port(node))
    assert found["timecraft_host_calls_total"][()] == 0
    assert found["timecraft_processes"]["exited",] == 3, "the catalogue remembers"
