"""CPython's own tests: what is expected of them, a part of them, and all."""

from pathlib import Path

import pytest

from tests.e2e.cli import Cli, Done
from tests.python_suite.run import DOCUMENT, HERE, Module, document, execute, execute_all, judge, read_suite

SUITE = read_suite((HERE / "suite.toml").read_text())
TEXT = """
[modules]
test_a = { overlays = ["termios"], subset = true }
test_b = {}

[[expected]]
reason = "No threads."
message = "no thread"
tests = { "test_a.One" = "test_x test_y" }
"""
ENOUGH = '\x1e["test_a.One.test_x", "failed", "no thread"]\nnoise\x1e["test_a.One.test_y", "failed", "no thread"]\n'
END = '\x1e["", "", ""]\n'


def problems(told: str, code: int = 0) -> list[str]:
    """What is wrong with output of `test_a`."""
    return list(judge(read_suite(TEXT)[0], Done(code, told.encode(), "")).problems)


def test_the_table_is_read():
    """A name belongs to the module it begins with; names of no module are refused."""
    a, b = read_suite(TEXT)
    assert (a.overlays, a.in_subset) == (("termios",), True)
    assert list(a.expected) == ["test_a.One.test_x", "test_a.One.test_y"]
    assert b == Module("test_b")
    with pytest.raises(ValueError, match=r"test_c\.One: of no module"):
        read_suite(TEXT.replace("test_a.One", "test_c.One"))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (ENOUGH + '\x1e["test_a.One.test_z", "failed", "why"]\n' + END, "test_z: failed\nwhy"),
        (ENOUGH.replace('x", "failed"', 'x", "passed"') + END, "test_x: passed, and is expected to fail"),
        (ENOUGH.replace('x", "failed"', 'x", "skipped"') + END, "test_x: skipped, and is expected to fail"),
        (ENOUGH.replace("no thread", "no luck", 1) + END, "test_x: failed, but not by 'no thread'"),
        (END, "test_x: is expected to fail, and there is no such test"),
        (ENOUGH, "test_a: didn't come to its end"),
    ],
)
def test_what_is_wrong_is_told(told: str, message: str):
    """An unexpected failure, an unexpected pass, another failure than expected, and what wasn't run."""
    assert problems(ENOUGH + '\x1e["test_a.One.test_z", "skipped", "why"]\n' + END) == []
    assert message in "\n".join(problems(told))


def test_a_module_that_is_cut_short_is_told():
    """By its exit code too."""
    assert "didn't come to its end: exit 134" in problems(ENOUGH + END, 134)[0]


@pytest.mark.parametrize("module", [module for module in SUITE if module.in_subset], ids=lambda module: module.name)
def test_a_part(module: Module, cli: Cli, tmp_path: Path):
    """Modules chosen for breadth, recorded and replayed."""
    report = execute(module, cli, tmp_path / "root")
    assert not report.problems, "\n".join(report.problems)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all(tmp_path: Path):
    """Every module; and the document tells what came of them."""
    reports = execute_all(SUITE, tmp_path)
    assert not any(report.problems for report in reports)
    assert document(reports) == DOCUMENT.read_text(), "make python-suite"
