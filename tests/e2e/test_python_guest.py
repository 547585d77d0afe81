"""The Python guest: what ships is what was pinned, and its programs run, recorded and replayed."""

import hashlib
import importlib.util
import lzma
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import timecraft_python_guest as guest

from tests.e2e.cli import Cli, Done

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "guest-python"
PROGRAMS = ROOT / "tests" / "guests" / "python"
FLAGS = ("--dir", f"{Path(guest.stdlib()).parent}:{guest.LIBRARY_MOUNT}:immutable", "-e", "PYTHONHOME=/usr")
CALLS_MAX = 100
"""Host calls from start to the end of `print(1)`."""


def run_and_replay(cli: Cli, *args: str | Path, stdin: bytes = b"", code: int = 0) -> Done:
    """Runs Python with flags of `timecraft run` before the bar in `args`; a replay must do the same."""
    bar = args.index("|")
    process, done = cli.run(*FLAGS, *args[:bar], guest.module(), *args[bar + 1 :], stdin=stdin, code=code)
    again = cli.replay(process, code=code)
    assert (again.stdout, again.stderr) == (done.stdout, done.stderr)
    return done


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_pin_is_of_what_is_in_the_repository():
    """Who changes what the guest is made of runs `make python-guest`, and commits what comes out."""
    spec = importlib.util.spec_from_file_location("recipe", FOLDER / "recipe" / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(FOLDER / "recipe"))
    try:
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
    finally:
        sys.path.remove(str(FOLDER / "recipe"))
    pinned = recipe.pinned()
    assert pinned["inputs"] == recipe.inputs(), "make python-guest"
    for name in recipe.RESULTS:
        packed = FOLDER / "artifacts" / f"{name}.xz"
        assert digest(lzma.decompress(packed.read_bytes())) == pinned[name], name


def test_the_package_holds_what_is_pinned():
    """Read in place, with the licences of all that is inside."""
    digests = guest.digests()
    assert digests["python.wasm"] == digest(Path(guest.module()).read_bytes())
    assert digests["python311.zip"] == digest(Path(guest.stdlib()).read_bytes())
    assert (FOLDER / "timecraft_python_guest" / "pin.txt").read_text().split() == [
        word for name, digest_of in digests.items() for word in (digest_of, name)
    ]
    installed = distribution("timecraft-python-guest")
    assert installed.version.startswith(guest.VERSION + ".")
    licences = {Path(file).name for file in installed.files or () if "licences" in str(file)}
    assert licences == {path.name for path in (FOLDER / "licences").iterdir()} != set()


@pytest.mark.parametrize("name", ["library", "limits", "streams"])
def test_programs(name: str, cli: Cli):
    """Programs that check themselves, with nothing granted but their own folder."""
    done = run_and_replay(cli, "--dir", f"{PROGRAMS}:/app:ro", "|", f"/app/{name}.py")
    assert done.out.endswith("ok\n"), done.shown


def test_tls(cli: Cli):
    """By OpenSSL in the guest, on its own loopback."""
    done = run_and_replay(cli, "--dir", f"{PROGRAMS}:/app:ro", "|", "/app/tls.py", "/app/cert.pem", "/app/key.pem")
    assert done.out == (
        "TLSv1.3 TLS_AES_256_GCM_SHA384\n"
        "Hostname mismatch, certificate is not valid for 'elsewhere'.\n"
        "self-signed certificate\n"
        "200 b'hi'\n"
        "ok\n"
    )


def test_sqlite_on_mounted_files(cli: Cli, scratch: Path):
    """Locks hold between connections; what was deleted stays so; and a replay finds the same without the files."""
    mounts = ("--dir", f"{PROGRAMS}:/app:ro", "--dir", f"{scratch}:/data")
    done = run_and_replay(cli, *mounts, "|", "/app/sqlite.py", "/data")
    assert done.out == "delete database is locked\nwal database is locked\nok\n"
    assert not list(scratch.iterdir())


def test_files(cli: Cli, scratch: Path):
    """What programs do with files, and that nothing is left."""
    done = run_and_replay(
        cli, "--dir", f"{PROGRAMS}:/app:ro", "--dir", f"{scratch}:/data", "|", "/app/files.py", "/data"
    )
    assert done.out.endswith("ok\n"), done.shown
    assert not list(scratch.iterdir())


def test_a_start_makes_few_host_calls(cli: Cli):
    """No search of folders, no reading of what is not imported; and no word on standard error."""
    done = run_and_replay(cli, "|", "-c", "print(1)")
    assert (done.out, done.stderr) == ("1\n", "")
    (process,) = cli("ps", "-a", "-q", "--no-trunc").out.split()
    assert 0 < len(cli("trace", "syscall", process).out.splitlines()) < CALLS_MAX


def test_ways_to_start(cli: Cli, scratch: Path):
    """A program from standard input, a module, arguments, packages on a path, exit codes, and a traceback's lines."""
    assert run_and_replay(cli, "|", "-", "a", stdin=b"import sys; print(sys.argv)").out == "['-', 'a']\n"
    assert run_and_replay(cli, "|", "-m", "json.tool", stdin=b"[1]").out == "[\n    1\n]\n"
    assert run_and_replay(cli, "|", "-c", "raise SystemExit(3)", code=3).out == ""
    (scratch / "package").mkdir()
    (scratch / "package" / "__init__.py").write_text("def fails():\n    return 1 / 0\n")
    (scratch / "main.py").write_text(
        "import traceback, package\n"
        "try:\n    package.fails()\nexcept ZeroDivisionError:\n    print(traceback.format_exc())\n"
    )
    mounts = ("--dir", f"{scratch}:/app:ro", "-e", "PYTHONPATH=/app")
    done = run_and_replay(cli, *mounts, "|", "/app/main.py")
    assert 'File "/app/package/__init__.py", line 2, in fails\n    return 1 / 0\n' in done.out
