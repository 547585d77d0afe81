"""What all tests share: skips are loud, the user's own state is out of reach, the command line is at hand."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random, randrange

import pytest

from tests.e2e.cli import Cli, artifacts_folder

# Tests must see neither the user's state nor settings.
for name in [name for name in os.environ if name.startswith("TIMECRAFT_")]:
    del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def state_directory(tmp_path_factory):
    """A test that forgets to choose a state directory gets a temporary one, not the user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("xdg-state"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("xdg-config"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """What a guest may be given a part of."""
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def bench(tmp_path: Path):
    """Runs and replays guests in this process."""
    from tests.e2e.guests import Bench  # needs the extension, which few tests do

    (tmp_path / "bench").mkdir()
    yield Bench(tmp_path / "bench", artifacts_folder())
    shutil.rmtree(tmp_path / "bench")


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


def pytest_addoption(parser):
    parser.addoption("--fault-seed", default=str(randrange(1 << 32)), help="seed of the points where tests kill hosts")


def pytest_collection_modifyitems(config, items):
    """`-m soak` runs what takes minutes; without -m it is left out."""
    if not config.option.markexpr:
        soak = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in soak]
        config.hook.pytest_deselected(items=soak)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """In CI a skipped test is a failure: what didn't run proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\nerror: {len(skipped)} skipped tests count as failures in CI")
