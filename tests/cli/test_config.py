"""Configuration from defaults, file and environment."""

from __future__ import annotations

import tomllib

import pytest

from timecraftd.config import Config, load_config, to_table, to_toml
from timecraftd.errors import ConfigError, TimecraftError


def load(tmp_path, text="", **env):
    """The configuration of a file and variables."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config({"HOME": str(tmp_path), "TIMECRAFT_CONFIG": str(path), **env})


def test_environment_wins_over_file_over_default(tmp_path):
    """In this order."""
    text = 'home = "/a"\n[limits]\nmemory_bytes_max = "1GiB"\nopen_files_max = 10\n'
    config = load(tmp_path, text, TIMECRAFT_HOME="/b", TIMECRAFT_LIMITS_OPEN_FILES_MAX="20")
    assert (config.home, config.limits.memory_bytes_max, config.limits.open_files_max) == ("/b", 1 << 30, 20)
    assert config.limits.stack_bytes_max == Config().limits.stack_bytes_max


def test_home_follows_xdg(tmp_path):
    """Only absolute ones, as the specification says."""
    assert load_config({"HOME": "/h"}).home == "/h/.local/state/timecraft"
    assert load_config({"HOME": "/h", "XDG_STATE_HOME": "/x"}).home == "/x/timecraft"
    assert load_config({"HOME": "/h", "XDG_STATE_HOME": "x"}).home == "/h/.local/state/timecraft"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# one\nx = 1", "toml:2: unknown key 'x'"),
        ("[limits]\nx = 1", "toml:2: limits.x: no such key"),
        ("[limits]\n[record] # two\n\n'x' = 1", "toml:4: record.x: no such key"),
        ("[nowhere]\nx = 1", "toml:1: unknown key 'nowhere'"),
        ("limits.x = 1", "toml: limits.x: no such key"),
        ('[limits]\nmemory_bytes_max = "much"', "isn't a size"),
        ("[limits]\nmemory_bytes_max = true", "isn't a number"),
        ('[record]\ncompression = "zstd"', "isn't one of lz4, none"),
        ('[record]\nring_bytes = "12MiB"', "isn't a power of two"),
        ('[record]\nring_bytes = "2MiB"', "isn't between 4MiB and 1GiB"),
        ('[record]\nblock_bytes_max = "2MiB"', "isn't between 4KiB and 1MiB"),
        ("=", "Invalid"),
    ],
)
def test_wrong_files(tmp_path, text, says):
    """Told with file, line and key."""
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, text)


def test_a_file_that_was_named_must_exist(tmp_path):
    """One that wasn't needn't."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config({"HOME": str(tmp_path), "TIMECRAFT_CONFIG": "/nowhere"})
    assert load_config({"HOME": str(tmp_path)}).source == ""


def test_what_is_printed_makes_the_same(tmp_path):
    """`timecraft config` is a configuration file."""
    config = load(tmp_path, '[limits]\ncpu_s_max = "1.5s"\nlog_bytes_per_s_max = "1MiB"')
    assert tomllib.loads(to_toml(config))["limits"]["cpu_s_max"] == "1500ms"
    assert to_table(load(tmp_path, to_toml(config))) == to_table(config)


def test_every_error_has_its_own_code_and_sentence():
    """docs/errors.md goes by them."""

    def tree(kind):
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]

    kinds = [kind for kind in tree(TimecraftError) if kind.__module__ == "timecraftd.errors"]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all("code" in vars(kind) and kind.__doc__.endswith(".") for kind in kinds)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TIMECRAFT_LIMITS_NOSUCH", "1", "TIMECRAFT_LIMITS_NOSUCH: no such key"),
        ("TIMECRAFT_LIMITS_CPU_S_MAX", "0", "isn't above zero"),
        ("TIMECRAFT_IMPORTS_MEMBERS_MAX", "-5", "'-5' isn't a whole number"),
        ("TIMECRAFT_IMPORTS_MEMBERS_MAX", "x", "'x' isn't a whole number"),
    ],
)
def test_wrong_variables(tmp_path, name, value, says):
    """Named, not ignored."""
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, **{name: value})


def test_other_variables_of_the_prefix_are_left_alone(tmp_path):
    """They may be another program's."""
    load(tmp_path, TIMECRAFT_VERSION="1", TIMECRAFT_X_Y="2", TIMECRAFT_LIMITS="3")


def test_a_user_without_a_directory(monkeypatch):
    """Asked for a place, not given one below the current directory."""
    monkeypatch.setattr("timecraftd.config._user_directory", str)
    with pytest.raises(ConfigError, match="HOME isn't set; set TIMECRAFT_HOME"):
        load_config({})
    assert load_config({"TIMECRAFT_HOME": "/a"}).home == "/a"
    assert load_config({"XDG_STATE_HOME": "/x"}).home == "/x/timecraft"
