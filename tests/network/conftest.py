"""No test of the network leaves a descriptor open."""

from __future__ import annotations

import gc
import os

import pytest


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    """Counted before and after each test."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
