"""No test of the network leaves a descriptor open."""

from __future__ import annotations

import gc
import os
import time

import pytest

CLOSED_S_MAX = 5.0


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    """Counted before and after each test. A real guest's thread may still be closing its own behind its end."""
    before = open_descriptors()
    yield
    gc.collect()
    deadline = time.monotonic() + CLOSED_S_MAX
    while open_descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_descriptors() <= before


def open_descriptors() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/fd"))
