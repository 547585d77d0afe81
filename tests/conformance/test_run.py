"""The conformance runner, on a pretended `timecraft`; and on the real one, with our own suite."""

import importlib.util
import json
import stat
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("conformance_run", HERE / "run.py")
run = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = run
spec.loader.exec_module(run)

PRETENDED = """#!{python}
import json, os, sys
from pathlib import Path
log = Path(os.environ["TIMECRAFT_HOME"])
log.mkdir(parents=True, exist_ok=True)
if sys.argv[1] == "run":
    print("0190-abc", file=sys.stderr)
    (log / "argv").write_text(json.dumps(sys.argv))
    mounted = [a for a in sys.argv if a.endswith(":/")]
    print("files:", *(sorted(os.listdir(mounted[0][:-2])) if mounted else []))
else:
    assert sys.argv[2] == "0190-abc"
    print({replayed!r})
sys.exit(3)
"""


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "suite"
    (folder / "tree").mkdir(parents=True)
    (folder / "tree" / "a").write_text("")
    (folder / "one.wasm").write_bytes(b"")
    return folder


def pretend(tmp_path, replayed):
    path = tmp_path / "timecraft"
    path.write_text(PRETENDED.format(python=sys.executable, replayed=replayed))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def describe(suite, **options):
    (suite / "one.json").write_text(json.dumps(options))


def test_a_test_passes_if_run_and_replay_are_as_described(suite, tmp_path, capsys):
    describe(suite, root="tree", exit_code=3, stdout="files: a\n", stderr="")
    assert run.main([str(suite), "--timecraft", pretend(tmp_path, "files: a")]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_a_wrong_exit_code_fails(suite, tmp_path, capsys):
    describe(suite, stdout="files:\n")
    assert run.main([str(suite), "--timecraft", pretend(tmp_path, "files:")]) == 1
    assert "exit code 3, expected 0" in capsys.readouterr().out


def test_a_replay_that_differs_fails_even_where_nothing_is_expected(suite, tmp_path, capsys):
    describe(suite, exit_code=3)
    assert run.main([str(suite), "--timecraft", pretend(tmp_path, "something else")]) == 1
    assert "the replay differs" in capsys.readouterr().out


def test_unknown_keys_and_empty_suites_are_errors(suite, tmp_path, capsys):
    describe(suite, dirs=["x"])
    assert run.main([str(suite)]) == 2
    assert "unknown keys dirs" in capsys.readouterr().err
    assert run.main([str(tmp_path / "nothing")]) == 2


def test_the_fixture_folder_is_left_as_it_was(suite, tmp_path):
    describe(suite, root="tree", exit_code=3)
    run.main([str(suite), "--timecraft", pretend(tmp_path, "files: a")])
    assert [path.name for path in (suite / "tree").iterdir()] == ["a"]


def test_our_own_suite_passes(capsys):
    """tests/conformance/own: what the public suites leave out, in their format."""
    assert run.main([str(HERE / "own"), "-j", "2", "-v"]) == 0, capsys.readouterr().out
