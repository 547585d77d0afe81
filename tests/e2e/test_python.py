"""Python programs as guests, as their authors run them: files, modules, code, packages; replayed and resumed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tempfile
import time
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e.cli import COMMAND, Cli, kill9, wait_for

LINES = 400
LOG_BYTES_MAX = 256 << 10

ECHO = """
    import asyncio, sys

    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(b"echo " + line)
            await writer.drain()
        writer.close()

    async def ask(port, count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            writer.write(b"%d\\n" % number)
            assert await reader.readline() == b"echo %d\\n" % number
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(*(ask(port, 20) for _ in range(50)))
        print("answered", await asyncio.to_thread(len, "1000"))

    asyncio.run(main())
"""
COUNT = """
    import sys, time

    with open("/data/out", "w", buffering=1) as out:
        for number in range(1, int(sys.argv[1]) + 1):
            out.write(f"{number:08}\\n")
            time.sleep(0.001)
    print("counted to", number)
"""


def program(folder: Path, source: str, name: str = "app.py") -> Path:
    """A Python file."""
    path = folder / name
    path.write_text(dedent(source))
    return path


def test_a_file_with_its_modules(cli: Cli, scratch: Path):
    """A program finds the modules beside it, its arguments and its standard input, and its exit code is the run's."""
    program(scratch, "NAME = 'helper'\n", "helper.py")
    app = program(scratch, "import helper, sys\nprint(helper.NAME, sys.argv[1:], input())\nsys.exit(3)\n")
    process, done = cli.run(app, "a", "--flag", stdin=b"typed\n", code=3)
    assert done.out == "helper ['a', '--flag'] typed\n"
    assert cli.replay(process, code=3).out == done.out
    assert cli.process(process)["module_name"] == "app.py"


def test_what_the_interpreter_imports_is_not_in_the_log(cli: Cli, scratch: Path):
    """The standard library is an input by its content, however much of it is read."""
    app = program(
        scratch, "import asyncio, json, sqlite3, ssl, http.client, email.message, unittest\nprint('imported')\n"
    )
    process, done = cli.run(app)
    assert done.out == "imported\n"
    assert cli.process(process)["size_bytes"] < LOG_BYTES_MAX


def test_a_traceback_is_as_everywhere(cli: Cli, scratch: Path):
    """An error shows the program's own path, and the exit code is 1."""
    app = program(scratch, "def broken():\n    return 1 / 0\n\nbroken()\n")
    host = cli.start("run", app)
    _, stderr = host.communicate(timeout=100)
    assert host.returncode == 1
    assert f'File "{app}", line 4, in <module>' in stderr.decode()
    assert "ZeroDivisionError: division by zero" in stderr.decode()


def test_modules_code_and_standard_input(cli: Cli, scratch: Path):
    """`-m`, `-c` and `-` are the interpreter's, with all that follows."""
    _, done = cli.run("-m", "json.tool", "--compact", stdin=b'{"a": [1, 2]}')
    assert done.out == '{"a":[1,2]}\n'
    _, done = cli.run("-c", "import sys; print(sys.argv)", "-q", "x")
    assert done.out == "['-c', '-q', 'x']\n"
    _, done = cli.run("-", "x", stdin=b"import sys\nprint(sys.argv[1:], __name__)\n")
    assert done.out == "['x'] __main__\n"


def test_typed_on_a_terminal(cli: Cli):
    """`-` on a terminal is the interpreter that one types to."""
    ours, theirs = pty.openpty()
    host = subprocess.Popen(
        [COMMAND, "run", "-q", "-"], stdin=theirs, stdout=theirs, stderr=theirs, env=cli.environment
    )
    os.close(theirs)
    seen = b""
    os.write(ours, b"print(6 * 7)\nexit(5)\n")
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert host.wait(100) == 5, seen
    assert b">>> " in seen
    assert b"42" in seen
    os.close(ours)


def test_asyncio_on_the_own_loopback(cli: Cli, scratch: Path):
    """Servers and clients of asyncio run on the guest's loopback, and are replayed."""
    process, done = cli.run(program(scratch, ECHO))
    assert done.out == "answered 4\n", done.shown
    assert "the same to the end" in cli("replay", "--verify", process).out


def test_a_program_that_lies_in_tmp_itself(cli: Cli):
    """It is found there, and temporary files go elsewhere."""
    with tempfile.NamedTemporaryFile("w", dir="/tmp", suffix=".py") as app:
        app.write("import tempfile\nprint(__file__, tempfile.gettempdir())\n")
        app.flush()
        _, done = cli.run(app.name)
    assert done.out == f"{app.name} /var/tmp\n", done.shown


def test_the_files_that_a_program_sees(cli: Cli, scratch: Path):
    """It begins where the command is run, if it sees that; it has a `/tmp` of its own, bounded, and else nothing."""
    app = program(
        scratch,
        """
        import os, sys, tempfile

        print(os.getcwd(), sorted(os.listdir("/")), len(os.listdir("/tmp")))
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 100_000)
        os.makedirs("/tmp/a/b")
        for path in ("/etc/passwd", "new"):
            try:
                open(path, "r" if path == "/etc/passwd" else "w")
            except OSError as error:
                print(path, type(error).__name__)
        print(open("note").read() if os.path.exists("note") else "no note")
        """,
    )
    (scratch / "note").write_text("a note")
    roots = sorted({"dev", "usr", "tmp", scratch.parts[1]})
    here, elsewhere = scratch, scratch.parent
    process, done = cli.run(app, cwd=here)
    assert done.out.splitlines()[0].startswith(f"{here} {roots}"), done.shown
    assert done.out.splitlines()[1:] == ["/etc/passwd FileNotFoundError", "new OSError", "a note"]
    assert cli.replay(process).out == done.out
    assert not (cli.process_dir(process) / "root").exists()
    _, done = cli.run(app, cwd=elsewhere)
    assert done.out.splitlines()[0].startswith("/ ")
    assert done.out.splitlines()[-1] == "no note"
    _, done = cli.run("--dir", f"{here}:/here", app, cwd=here)
    assert done.out.splitlines()[0].startswith("/here ")
    assert (here / "new").exists()
    limits = json.loads(cli("describe", "process", process, "-o", "json").stdout)["limits"]
    assert limits["disk_bytes"] == 1 << 30


def test_the_interpreter_is_compiled_before_it_is_needed(cli: Cli):
    """`doctor --warm` stores and compiles it; `doctor` tells."""
    assert ", compiled\n" in cli("doctor", "--warm").out
    assert ", compiled\n" in cli("doctor").out
    assert "python.wasm" in cli("get", "module").out


def test_what_a_guest_has_not(cli: Cli, scratch: Path):
    """Processes and threads are missing, and say so at once."""
    app = program(
        scratch,
        """
        import subprocess, threading
        for attempt in (lambda: subprocess.run(["ls"]), threading.Thread(target=print).start):
            try:
                attempt()
            except (OSError, RuntimeError) as error:
                print(type(error).__name__, error)
        """,
    )
    _, done = cli.run(app)
    assert len(done.out.splitlines()) == 2, done.shown
    assert "thread" in done.out


def test_a_virtual_environment(cli: Cli, scratch: Path):
    """Packages are found; those which need native extensions are named before anything runs."""
    packages = scratch / "venv" / "lib" / "python3.11" / "site-packages"
    (packages / "pure").mkdir(parents=True)
    (scratch / "venv" / "pyvenv.cfg").touch()
    (packages / "pure" / "__init__.py").write_text("import importlib.resources\nVALUE = 7\n")
    (packages / "pure" / "data.txt").write_text("of the package\n")
    app = program(
        scratch,
        """
        from importlib.resources import files
        import pure
        print(pure.VALUE, files(pure).joinpath("data.txt").read_text())
        """,
    )
    process, done = cli.run("--venv", scratch / "venv", app)
    assert done.out == "7 of the package\n\n"
    (packages / "pure" / "__init__.py").write_text("VALUE = 8\n")
    assert cli.replay(process).out == done.out
    (packages / "fast").mkdir()
    (packages / "fast" / "__init__.py").write_text("from . import _speed\n")
    (packages / "fast" / "_speed.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    app.write_text("import fast\n")
    refused = cli("run", "--venv", scratch / "venv", app, code=125)
    assert "fast (fast/_speed.cpython-311" in refused.stderr
    assert "pure-Python" in refused.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["missing.py"], 127, "missing.py: there is no such file"),
        (["--venv", "nowhere", "-c", "1"], 125, "isn't a virtual environment"),
        (["--requirements", "nowhere.txt", "-c", "1"], 125, "nowhere.txt: No such file"),
        (["--venv", "a", "--requirements", "b", "-c", "1"], 125, "exclude each other"),
        (["-m"], 125, "-m names nothing to run"),
        ([], 125, "names no module"),
    ],
)
def test_what_makes_no_sense(args: list[str], code: int, message: str, cli: Cli):
    """What, why, what next; and nothing is left of the process."""
    done = cli("run", *args, code=code)
    assert message in done.stderr, done.shown
    assert cli("ps", "-aq").out == ""


def test_a_script_goes_on_after_its_host_died(cli: Cli, scratch: Path):
    """A batch script that was killed with -9 is resumed, and its file ends complete."""
    (scratch / "data").mkdir()
    out = scratch / "data" / "out"
    host = cli.start("run", "--dir", f"{scratch}/data:/data", program(scratch, COUNT), str(LINES))
    process = host.stderr.readline().decode().strip()
    for _ in range(3):
        size = out.stat().st_size if out.exists() else 0
        wait_for(lambda size=size: out.exists() and out.stat().st_size > size + 200, "some lines")
        kill9(host)
        host = cli.start("resume", process)
        time.sleep(0.2)
    stdout, stderr = host.communicate(timeout=100)
    assert (host.returncode, stdout) == (0, f"counted to {LINES}\n".encode()), stderr
    assert out.read_text() == "".join(f"{number:08}\n" for number in range(1, LINES + 1))
    assert "the same to the end" in cli("replay", "--verify", process).out


NULL = """
    import os, stat, time

    null = open(os.devnull, "w", buffering=1)
    for number in range(100):
        null.write("nothing\\n" * 1000)
        print(number, flush=True)
        time.sleep(0.01)
    with open(os.devnull, "rb") as again:
        print(again.read(), again.isatty(), stat.S_ISCHR(os.stat(os.devnull).st_mode), null.tell() >= 0)
    for name in ("/dev/zero", "/dev/null/../zero"):
        print(os.path.exists(name))
    for change in (os.remove, os.utime):
        try:
            change(os.devnull)
        except OSError as error:
            print(error.strerror)
"""


def test_the_null_device_is_there_and_no_other(cli: Cli, scratch: Path):
    """It takes what is written, beyond the limit on the disk and after a resume, and can't be changed."""
    before = os.stat(os.devnull)
    host = cli.start("run", "--disk", "64KiB", program(scratch, NULL))
    process = host.stderr.readline().decode().strip()
    wait_for(lambda: host.stdout.readline() == b"9\n", "it writes")
    kill9(host)
    done = cli("resume", process)
    said = "b'' False True True\nFalse\nFalse\nNot a directory\nOperation not permitted\n"
    assert done.out.endswith(f"99\n{said}"), done.shown
    assert "the same to the end" in cli("replay", "--verify", process).out
    assert os.stat(os.devnull).st_mtime_ns == before.st_mtime_ns
