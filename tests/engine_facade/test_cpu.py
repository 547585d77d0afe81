"""CPU time of guests that run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.e2e.cli import wait_for
from timecraftd.engine.cpu import GuestClock, thread_clock


def test_the_clock_of_a_thread_is_that_threads():
    own = time.clock_gettime_ns(thread_clock(threading.get_native_id()))
    assert own <= time.thread_time_ns() <= own + 10**9


def test_threads_count_once_they_are_named_as_guests():
    clock = GuestClock()
    named, over = threading.Event(), threading.Event()

    def guest() -> None:
        Path("/proc/thread-self/comm").write_text("timecraft-guest")
        total = 0
        while time.thread_time_ns() < 20_000_000:
            total += 1
        named.set()
        over.wait(20)

    before = clock.ns()
    thread = threading.Thread(target=guest)
    thread.start()
    named.wait(20)
    assert before == 0
    assert 20_000_000 <= clock.ns() < 10**9
    over.set()
    thread.join()
    wait_for(lambda: clock.ns() == 0, "the thread is gone: the kernel lists it a little longer than Python does")
