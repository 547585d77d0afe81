"""Fixtures that the end-to-end tests share with those of faults."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, artifacts_folder
from tests.e2e.guests import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Runs and replays guests in this process."""
    (tmp_path / "bench").mkdir()
    yield Bench(tmp_path / "bench", artifacts_folder())
    shutil.rmtree(tmp_path / "bench")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """What a guest may be given a part of."""
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line, with a state directory of its own."""
    cli = Cli(tmp_path / "home")
    yield cli
    cli.close()


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Chance, from `--fault-seed`; a failing test prints its seed."""
    seed = request.config.getoption("--fault-seed")
    print(f"--fault-seed {seed}")
    return Random(f"{seed} {request.node.name}")
