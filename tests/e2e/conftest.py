"""Fixtures of the end-to-end tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import artifacts_folder
from tests.e2e.guests import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Runs and replays guests in this process."""
    (tmp_path / "bench").mkdir()
    yield Bench(tmp_path / "bench", artifacts_folder())
    shutil.rmtree(tmp_path / "bench")
