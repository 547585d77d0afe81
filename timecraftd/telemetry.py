"""What a node tells of itself: its log, and its metrics."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from typing import IO, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

VALUE_CHARS_MAX = 4096
LEVELS = {"info": 6, "warning": 4, "error": 3}
"""Levels of events, with syslog's numbers of them."""
CALL_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SCRAPES_MAX = 16
"""At one time; more are hung up on."""
SCRAPE_IDLE_S = 5.0

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the call that is being served."""


class EventLog:
    """Events, a line each, plain or as JSON objects. Thread-safe; never fails."""

    def __init__(
        self,
        *,
        form: str = "plain",
        stream: IO[str] | None = None,
        now_s: Callable[[], float] = time.time,
        prefixed: bool = False,
    ) -> None:
        """`prefixed`: plain lines begin with their level as the journal reads it, such as `<4>`."""
        self.form = form
        self._stream = stream or sys.stderr
        self._now_s = now_s
        self._prefixed = prefixed
        self._lock = threading.Lock()

    def __call__(self, event: str, *, level: str = "info", **values: object) -> None:
        """Writes an event with what there is to know of it, the request that it belongs to included."""
        values.setdefault("request", request_id.get())
        shown = {name: _shown(value) for name, value in values.items() if value not in (None, "")}
        if self.form == "json":
            line = json.dumps({"time": round(self._now_s(), 6), "level": level, "event": event, **shown})
        else:
            prefix = f"<{LEVELS[level]}>" if self._prefixed else ""
            line = prefix + " ".join([event, *(f"{name}={_plain(value)}" for name, value in shown.items())])
        try:
            with self._lock:
                self._stream.write(f"{line}\n")
                self._stream.flush()
        except (OSError, ValueError):
            return  # nobody listens, and there is nobody else to tell


def _shown(value: object) -> object:
    if isinstance(value, bool | int | float):
        return value
    return str(value)[:VALUE_CHARS_MAX]


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else json.dumps(text)


@dataclass(frozen=True, slots=True)
class Sample:
    """A node at one moment."""

    taken_s: float
    """By the clock that the metrics were given."""
    processes: Mapping[str, int] = field(default_factory=dict)
    """By state; of ended ones, all that the catalogue has."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """By kind."""
    workers_silent: int = 0
    """Of them, those that didn't answer lately."""
    gauges: Mapping[str, float] = field(default_factory=dict)
    """Names of GAUGES."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Names of TOTALS, of DECISIONS as `network_NAME`, of ENDS as `ended_STATE`, and those of `_native.count_calls`."""


GAUGES = {
    "processes_max": "Processes that may run at one time.",
    "queue_length": "Processes that wait for room.",
    "queue_max": "Processes that may wait.",
    "guest_memory_bytes": "Linear memory of running guests.",
    "log_ring_waiting_bytes": "Of running guests' rings, what holds records that aren't in a file.",
    "log_ring_taken_max_ratio": "Share of the fullest ring that does.",
    "log_seal_lag_seconds": "Age of the oldest record that isn't in a sealed segment; 0 without a store (remote.url).",
    "memory_promised_bytes": "Linear memory that running processes are promised.",
    "memory_max_bytes": "Linear memory that may be promised.",
    "worker_memory_bytes": "Resident memory of worker processes, guests included.",
    "state_free_bytes": "Room on the file system of the state directory.",
    "draining": "1 while the node takes no processes.",
    "upload_waiting_processes": "Processes of which something isn't in the store.",
    "upload_waiting_segments": "Segments that aren't in the store, those that are being written included.",
    "upload_waiting_bytes": "Their size.",
    "upload_waiting_max_bytes": "Bound of that; 0 without a store (remote.url).",
    "upload_lag_seconds": "Age of the oldest sealed segment that isn't in the store.",
    "upload_sending": "Processes of which something is being sent.",
    "upload_failing": "Processes whose last attempt failed.",
    "retention_kept_back": "Processes that retention would remove, but that aren't wholly in the store.",
    "upload_held": "1 while guests wait because the bound of what isn't in the store is reached.",
}
TOTALS = {
    "cpu_ns": ("guest_cpu_seconds", "CPU time of guests.", 1e9),
    "calls": ("host_calls", "Host calls of guests.", 1),
    "records": ("log_records", "Records written to logs.", 1),
    "log_bytes_raw": ("log_raw_bytes", "Bytes of records before compression.", 1),
    "log_bytes_stored": ("log_stored_bytes", "Bytes written to segments.", 1),
    "ring_stalls": ("log_ring_stalls", "Times that a guest waited because its ring was full.", 1),
    "ring_stalled_ns": ("log_ring_stalled_seconds", "Time that guests waited for room in their rings.", 1e9),
    "records_lost": ("log_records_lost", "Records that a log couldn't take (record.on_full = continue).", 1),
    "log_syncs": ("log_syncs", "Times that a guest waited for the disk before an output.", 1),
    "log_sync_waited_ns": ("log_sync_waited_seconds", "Time that guests waited for the disk before outputs.", 1e9),
    "log_flushes": ("log_flushes", "Times that what was written to a log was made durable.", 1),
    "log_flush_ns": ("log_flush_seconds", "Time that took.", 1e9),
    "log_faults": ("log_faults", "Times that a log couldn't be written and it was tried again.", 1),
    "log_faulted_ns": ("log_faulted_seconds", "Time that logs could not be written.", 1e9),
    "uploaded_segments": ("uploaded_segments", "Segments that were sent to the store.", 1),
    "uploaded_bytes": ("uploaded_bytes", "Bytes that were sent to the store.", 1),
    "uploaded_objects": ("uploaded_objects", "Modules, configs and files that were sent to the store.", 1),
    "upload_retries": ("upload_retries", "Requests to the store that were made again.", 1),
    "upload_failures": ("upload_failures", "Attempts to send something of a process that failed.", 1),
    "upload_conflicts": ("upload_conflicts", "Times that the store held something else of a process.", 1),
    "retention_processes": ("retention_removed_processes", "Processes that retention removed.", 1),
    "retention_evicted": ("retention_evicted_bytes", "Of logs that went from the disk, and are in the store.", 1),
    "retention_bytes": ("retention_removed_bytes", "What their logs took on the disk.", 1),
    "restarts": ("process_restarts", "Processes restarted or resumed by policy.", 1),
    "workers_lost": ("workers_lost", "Workers that ended with guests in them, or were ended for not answering.", 1),
}
"""Key of a sample to name, help and units in one second or byte."""
DECISIONS = ("granted", "refused", "failed")
CALL_KINDS = (
    "clock", "environment", "file", "path", "poll", "process", "random", "read", "socket", "socket_data", "sync",
    "write",
)  # fmt: skip
"""What host calls are about, as the engine sorts them."""
CALL_TOOK_LOG2_NS = range(8, 35)
"""Bounds of the engine's buckets of latencies, as powers of two of nanoseconds."""
ENDS = ("exited", "trapped", "killed", "limit", "crashed", "failed")


class Metrics(Collector):
    """What Prometheus gets. Nothing in it is per process: its size is bounded."""

    def __init__(
        self, build: Mapping[str, str], sample: Callable[[], Sample], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`sample` is called by each scrape, in its thread."""
        self.registry = CollectorRegistry()
        self._build = {key: build[key] for key in ("version", "profile", "engine", "engine_version") if key in build}
        self._sample = sample
        self._monotonic = monotonic
        self._calls = Counter(
            "timecraft_grpc_calls", "gRPC calls that ended.", ("method", "code"), registry=self.registry
        )
        self._call_s = Histogram(
            "timecraft_grpc_call_seconds",
            "How long gRPC calls took; attached and following ones take as long as somebody listens.",
            ("method",),
            buckets=CALL_S,
            registry=self.registry,
        )
        self._internal = Counter(
            "timecraft_internal_errors", "gRPC calls that failed by the node's own fault.", registry=self.registry
        )
        self._lag_s = Histogram(
            "timecraft_event_loop_lag_seconds",
            "How much later than asked the event loop woke a timer.",
            buckets=LAG_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def called(self, method: str, code: str, seconds: float) -> None:
        """A gRPC call has ended."""
        self._calls.labels(method, code).inc()
        self._call_s.labels(method).observe(seconds)
        if code == "INTERNAL":
            self._internal.inc()

    def lagged(self, seconds: float) -> None:
        """A timer of the event loop was so late."""
        self._lag_s.observe(seconds)

    def describe(self) -> list[Metric]:
        """Nothing: names are known without a sample being taken."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The sample as metrics."""
        sample = self._sample()
        yield InfoMetricFamily("timecraft_build", "What runs.", value=self._build)
        age_s = max(self._monotonic() - sample.taken_s, 0.0)
        yield GaugeMetricFamily("timecraft_sample_age_seconds", "Age of what this scrape tells.", age_s)
        yield _labelled(
            GaugeMetricFamily("timecraft_processes", "Processes by state.", labels=["state"]), sample.processes
        )
        yield _labelled(GaugeMetricFamily("timecraft_workers", "Worker processes.", labels=["kind"]), sample.workers)
        yield GaugeMetricFamily("timecraft_workers_silent", "Workers that don't answer.", sample.workers_silent)
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"timecraft_{name}", text, sample.gauges.get(name, 0))
        for key, (name, text, unit) in TOTALS.items():
            yield CounterMetricFamily(f"timecraft_{name}", text, sample.totals.get(key, 0) / unit)
        decisions = CounterMetricFamily("timecraft_network_decisions", "Of guests' networks.", labels=["outcome"])
        yield _labelled(decisions, {name: sample.totals.get(f"network_{name}", 0) for name in DECISIONS})
        ends = CounterMetricFamily("timecraft_process_ends", "Ends of processes, by state.", labels=["state"])
        yield _labelled(ends, {name: sample.totals.get(f"ended_{name}", 0) for name in ENDS})
        yield _calls(sample.totals)
        yield _call_latencies(sample.totals)


def _calls(totals: Mapping[str, int]) -> Metric:
    """By name and outcome, as far as they occurred: the engine's table bounds the names."""
    family = CounterMetricFamily(
        "timecraft_host_calls_by_name",
        "Live host calls of guests that are over; outcome: ok, again (EAGAIN), error.",
        labels=["call", "outcome"],
    )
    for key in sorted(key for key in totals if key.startswith("call:")):
        _, call, outcome = key.split(":")
        family.add_metric([call, outcome], totals[key])
    return family


def _call_latencies(totals: Mapping[str, int]) -> Metric:
    family = HistogramMetricFamily(
        "timecraft_host_call_seconds",
        "How long live host calls took for guests, recording included. A sample: one call in 64 of each name, but all "
        "of poll_oneoff, fd_sync, fd_datasync, sock_connect and sock_getaddrinfo.",
        labels=["kind"],
    )
    for kind in CALL_KINDS:
        count, buckets = 0, []
        for bound in CALL_TOOK_LOG2_NS:
            count += totals.get(f"took:{kind}:{bound}", 0)
            buckets.append((repr(2**bound / 1e9), count))
        buckets.append(("+Inf", count + totals.get(f"took:{kind}:inf", 0)))
        family.add_metric([kind], buckets, totals.get(f"took_ns:{kind}", 0) / 1e9)
    return family


def _labelled(family: Any, values: Mapping[str, float]) -> Any:
    for label, value in values.items():
        family.add_metric([label], value)
    return family


class MetricsServer:
    """Serves /metrics from threads of its own."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Listens. Raises OSError."""
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self._server = _Server((str(address[0]), int(address[1])), family)
        self._server.set_app(make_wsgi_app(registry))
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="timecraft-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_IDLE_S

    def log_message(self, *_: object) -> None:
        """Scrapes aren't logged."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], family: int) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(SCRAPES_MAX)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without asking the resolver what this host is called."""
        # Scrapes of the daemon before this one are still remembered by the kernel, and mustn't keep the port.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hangs up if there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who scrapes may go away at any time."""
