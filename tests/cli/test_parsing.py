"""What flags are read as."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timecraftd.cli import run_verb
from timecraftd.cli.context import Context
from timecraftd.cli.run import parse_mount, read_env
from timecraftd.config import Config, RestartConfig
from timecraftd.embedded import Runtime
from timecraftd.engine.spec import MountSpec
from timecraftd.errors import NotFoundError, UsageError
from timecraftd.supervisor.restarts import RestartPolicy, parse_restart
from timecraftd.units import (
    format_ago,
    format_duration_exact,
    format_size,
    format_size_exact,
    parse_duration_ns,
    parse_size,
    parse_time_ns,
    rfc3339,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64MiB", 64 << 20), ("64m", 64 << 20), ("64MB", 64_000_000), ("1.5G", 3 << 29)],
)
def test_sizes(text, size):
    """Binary unless written MB."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "MiB", "1 2", "99999999999999999999T", "nan"])
def test_wrong_sizes(text):
    """Told, not guessed."""
    with pytest.raises(ValueError, match=r"size|big"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "ns"), [("1.5s", 1_500_000_000), ("200ms", 200_000_000), ("1h30m", 5400 * 10**9), ("2", 2 * 10**9)]
)
def test_durations(text, ns):
    """A bare number counts seconds."""
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "s", "1y", "1s2", "-1s", "1 s"])
def test_wrong_durations(text):
    """Told, not guessed."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration_ns(text)


@given(st.integers(0, 1 << 50))
def test_exact_forms_read_back(number):
    """What `config` prints is what it read."""
    assert parse_size(format_size_exact(number)) == number
    assert parse_duration_ns(format_duration_exact(number)) == number


def test_shown_forms():
    """Short, with units."""
    assert [format_size(n) for n in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    assert [format_ago(s * 10**9) for s in (0, 1, 120, 7200)] == [
        "just now",
        "1 second ago",
        "2 minutes ago",
        "2 hours ago",
    ]


def test_times():
    """RFC 3339, or so long ago."""
    assert parse_time_ns("2026-05-04T03:02:01.5Z", 0) == parse_time_ns("2026-05-04T05:02:01.5+02:00", 0)
    assert rfc3339(parse_time_ns("2026-05-04T03:02:01.5Z", 0)) == "2026-05-04T03:02:01.500Z"
    assert parse_time_ns("10s", 60 * 10**9) == 50 * 10**9


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", MountSpec("/a", "/a")),
        ("/a:/b", MountSpec("/a", "/b")),
        ("/a:/b:ro", MountSpec("/a", "/b", read_only=True)),
        ("/a:ro", MountSpec("/a", "/a", read_only=True)),
        ("/a:/b:rw", MountSpec("/a", "/b")),
        ("/a:/b:immutable", MountSpec("/a", "/b", read_only=True, tree="")),
        ("/a:immutable", MountSpec("/a", "/a", read_only=True, tree="")),
        (".", MountSpec(os.getcwd(), ".")),
    ],
)
def test_mounts(text, mount):
    """HOST[:GUEST[:MODE]]."""
    assert parse_mount(text) == mount


@pytest.mark.parametrize("text", ["", ":/b", "/a:", "/a:/b:/c", "/a:/b:ro:ro"])
def test_wrong_mounts(text):
    """Told, not guessed."""
    with pytest.raises(UsageError, match=r"isn't HOST"):
        parse_mount(text)


def test_env_files(tmp_path):
    """A line each, comments left out; flags win."""
    path = tmp_path / "env"
    path.write_text("# comment\nA=1\n\nB=x y\n")
    assert read_env([str(path)], ["A=2"]) == {"A": "2", "B": "x y"}


def test_restart_waits_longer_each_time():
    """Bounded, and over when the retries are used up."""
    config = RestartConfig()
    policy = parse_restart("on-failure:20", "--restart")
    delays = [policy.delay_s(count, failed=True, ran_s=0, config=config) for count in range(20)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60
    assert policy.delay_s(20, failed=True, ran_s=0, config=config) is None
    assert policy.delay_s(0, failed=False, ran_s=0, config=config) is None
    assert parse_restart("always", "--restart").delay_s(9, failed=False, ran_s=99, config=config) == 0.1
    assert parse_restart("no", "--restart") == RestartPolicy()


@pytest.mark.parametrize("flags", [["a", "b", "-o", "json"], ["-o", "json", "a", "b"], ["a", "-o", "json", "b"]])
def test_flags_go_anywhere(flags, tmp_path):
    """As with git and kubectl; argparse itself doesn't take back a list that it thinks is over."""
    with pytest.raises(NotFoundError, match="'a'"):
        run_verb("timecraft", "get", "", ["process", *flags], Context(Runtime(Config(home=str(tmp_path)))))
