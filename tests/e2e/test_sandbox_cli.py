"""The sandbox and the terminal, as a user meets them on the command line."""

import contextlib
import hashlib
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import COMMAND, Cli, guest, kill9, wait_for
from tests.e2e.guests import CASES, contents, prepare

REFUSED = 125
CONTROL = {code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F}


class Terminal:
    """A command with a terminal of its own as standard streams."""

    def __init__(self, cli: Cli, *args: str | Path) -> None:
        self.master, slave = pty.openpty()
        settings = termios.tcgetattr(slave)
        settings[1] &= ~termios.OPOST  # no \r before \n
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self.process = subprocess.Popen(
            [COMMAND, *args], stdin=slave, stdout=slave, stderr=slave, env=cli.environment, start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # noqa: PLW1509 - Ctrl-C needs it
        )  # fmt: skip
        os.close(slave)
        self.screen = b""

    def read(self, timeout_s: float = 0.05) -> bytes:
        """What is on the screen by now."""
        if select.select([self.master], [], [], timeout_s)[0]:
            with contextlib.suppress(OSError):  # the other side is closed
                self.screen += os.read(self.master, 1 << 16)
        return self.screen

    def type(self, text: bytes) -> None:
        """Presses keys."""
        os.write(self.master, text)

    def wait(self) -> int:
        """The exit code, with all of the screen read."""
        wait_for(lambda: (self.read(), self.process.poll() is not None)[1], "the end")
        while self.screen != self.read():
            pass
        os.close(self.master)
        return self.process.returncode


@pytest.fixture
def terminal(cli: Cli) -> Iterator[type[Terminal]]:
    """Makes terminals."""
    made: list[Terminal] = []

    def make(*args: str | Path) -> Terminal:
        made.append(Terminal(cli, *args))
        return made[-1]

    yield make
    for one in made:
        kill9(one.process)


# ---- nothing unless granted


def test_nothing_is_granted_by_default(cli: Cli):
    """Without flags a guest has its name, no environment, no directory; the host's variables aren't seen."""
    done = cli("run", "-q", guest("no_grants"), SECRET="x", HOME="/root")
    assert done.out == "00000001\n00000000\n08\n08\n"


def test_what_is_granted(cli: Cli, tmp_path: Path):
    """Arguments, variables from flags and files, in the order of their precedence."""
    (tmp_path / "env").write_text("# comment\nA=file\nB=file\n\nEMPTY=\n")
    done = cli("run", "-q", "--env-file", tmp_path / "env", "-e", "A=flag", "-e", "HOSTS", guest("args_env"), "-x",
               "--", "",
               HOSTS="host's")  # fmt: skip
    words = done.stdout.split(b"\0")[:-1]
    assert words[:3] == [b"-x", b"--", b""]
    assert sorted(words[3:]) == [b"A=flag", b"B=file", b"EMPTY=", b"HOSTS=host's"]


def test_escapes_by_command_line(cli: Cli, scratch: Path):
    """The program that tries all known ways out of its mounts finds none, live or replayed."""
    case = prepare(CASES["escape"], scratch)
    before = {name: contents(scratch)[name] for name in case.unchanged}
    flags = [f"--dir={scratch}/{mount}" for mount in case.mounts]
    process, done = cli.run(*flags, case.module, *case.args)
    assert done.out.endswith("MISFIRED: 0\nODD: 0\nESCAPED: 0\n"), done.out[-3000:]
    assert {name: contents(scratch)[name] for name in case.unchanged} == before
    assert cli.replay(process).stdout == done.stdout


def test_read_only_mounts(cli: Cli, scratch: Path):
    """Nothing below a read-only mount can be made or changed; without :ro the same program succeeds."""
    (scratch / "out").write_text("kept\n")
    before = contents(scratch)
    _, done = cli.run("--dir", f"{scratch}:/data:ro", guest("counter"), "-n", "3", "/data/out", code=1)
    assert "counter:" in done.stderr
    assert contents(scratch) == before
    _, done = cli.run("--dir", f"{scratch}:/data:ro", guest("counter"), "-n", "3", "/data/new", code=1)
    assert contents(scratch) == before
    cli.run("--dir", f"{scratch}:/data", guest("counter"), "-n", "3", "/data/out")
    assert (scratch / "out").read_text() == "00000001\n00000002\n00000003\n"


def test_limits_end_guests(cli: Cli):
    """A guest beyond its CPU time or wall time is ended with the reason, and its log replays to that end."""
    for flag, module in (("--cpu", "spin"), ("--timeout", "sleep_forever"), ("--timeout", "spin_calls")):
        process, done = cli.run(flag, "300ms", guest(module), code=137)
        assert "stopped at a limit" in done.stderr
        again = cli.replay(process, code=137)
        assert "stopped at a limit" in again.stderr
        assert cli.process(process)["state"] == "limit"


def test_stdin(cli: Cli):
    """Standard input is the command's own, recorded, and withheld by --restrict; a replay reads none."""
    process, done = cli.run(guest("stdin_cat"), stdin=b"first line\nsecond line\n")
    assert done.out == "first line\nsecond line\n"
    assert cli("replay", process, stdin=b"something else\n").out == done.out
    assert cli.run("--restrict", guest("stdin_cat"), stdin=b"secret\n")[1].stdout == b""
    big = os.urandom(300_000)
    process, done = cli.run(guest("stdin_cat"), stdin=big)
    assert cli.replay(process).stdout == done.stdout == big


def test_traces_of_live_processes_end(cli: Cli):
    """Without -f, a trace shows what there is when it starts, however fast the guest goes on."""
    process = cli.detach(guest("spin_output"))
    assert cli("trace", "syscall", process).out


def test_closed_streams(cli: Cli):
    """With standard streams closed a guest runs as on /dev/null, and nothing of ours takes their place."""
    done = subprocess.run(
        ["sh", "-c", f"exec {COMMAND} run -q {guest('hello')} <&- >&- 2>&-"],
        env=cli.environment,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    process = cli("ps", "-aq", "--no-trunc").out.strip()
    assert cli.replay(process).out == "hello, world\n"


def test_a_reader_that_leaves(cli: Cli):
    """When nobody reads its output any more a guest sees an error, and the host doesn't die of it."""
    host = cli.start("run", guest("spin_output"))
    process = host.stderr.readline().decode().strip()
    assert host.stdout.read(600)
    host.stdout.close()
    host.send_signal(signal.SIGTERM)
    assert host.wait(60) == 143
    lines = cli("trace", "syscall", "--call", "fd_write", process).out.splitlines()
    assert "[6]) = 0" in lines[10]
    assert "EPIPE" in lines[-1]


def test_a_slow_reader(cli: Cli):
    """Much output through a slow pipe arrives whole, and once."""
    host = cli.start("run", "-q", "--timeout", "1s", guest("spin_output"))
    digest, size = hashlib.sha256(), 0
    while data := os.read(host.stdout.fileno(), 5000):
        digest.update(data)
        size += len(data)
        if size % 11 == 0:
            time.sleep(0.005)
    assert host.wait(60) == 137
    process = cli("ps", "-aq", "--no-trunc").out.strip()
    logged = cli("logs", process).stdout
    assert (hashlib.sha256(logged).digest(), len(logged)) == (digest.digest(), size)


# ---- terminals


def test_terminals_are_seen(cli: Cli, terminal):
    """A guest sees a terminal where there is one, and a pipe where there is none."""
    first, _ = cli.run(CASES["timers"].module)
    piped = cli("trace", "syscall", "--call", "fd_fdstat_get", first).out
    assert "CHARACTER_DEVICE" not in piped.replace("fd_fdstat_get(0", "", 1).split("fd_fdstat_get(1", 1)[1]
    on = terminal("run", CASES["timers"].module)
    assert on.wait() == 0
    second = on.screen.split(b"\n")[0].decode().strip()
    lines = [
        line for line in cli("trace", "syscall", "--call", "fd_fdstat_get", second).out.splitlines() if "(1, " in line
    ]
    assert lines
    assert all("CHARACTER_DEVICE" in line for line in lines)
    assert all("FD_SEEK" not in line and "FD_TELL" not in line for line in lines), "that is how guests know a terminal"
    assert cli.replay(second).stdout


def test_escape_codes_are_filtered_on_terminals(cli: Cli, terminal):
    """logs, replay and trace show a guest's control characters harmlessly on a terminal, and unchanged in a pipe."""
    process, done = cli.run(guest("terminal_escapes"))
    assert b"\x1b" in done.stdout
    for command in (["logs"], ["replay"], ["trace", "syscall"], ["replay", "--trace"], ["describe", "process"]):
        shown = terminal(*command, process)
        assert shown.wait() == 0
        screen = shown.screen
        if command == ["describe", "process"]:
            screen = screen.replace(b"\x1b[1m", b"").replace(b"\x1b[0m", b"")
        assert screen
        assert not CONTROL & set(screen), (command, screen)
        assert b"\x9b" not in screen.replace("\N{LATIN SMALL LETTER AE}".encode(), b""), command
    assert cli("logs", process).stdout == cli.replay(process).stdout == done.stdout
    raw = terminal("logs", "--raw", process)
    assert raw.wait() == 0
    assert b"\x1b" in raw.screen


def test_names_of_modules_are_filtered(cli: Cli, terminal, tmp_path: Path):
    """A module's file name can't send escape codes to the terminal either."""
    nasty = tmp_path / "a\x1b[31mb.wat"
    nasty.write_bytes(guest("div_zero").read_bytes())
    process, done = cli.run(nasty, code=134)
    assert "\x1b" not in done.stderr
    for command in (["ps", "-a"], ["describe", "process", process], ["get", "process"]):
        shown = terminal(*command)
        shown.wait()
        assert b"\x1b[31m" not in shown.screen, command


def test_ctrl_c(cli: Cli, terminal):
    """Ctrl-C on a terminal stops the guest, keeps the log, and says how to replay it."""
    on = terminal("run", guest("sleep_forever"))
    process = wait_for(lambda: on.read().partition(b"\n")[0] if b"\n" in on.read() else b"", "the id").decode().strip()
    wait_for(lambda: cli.process(process)["state"] == "running", "the guest")
    on.type(b"\x03")
    assert on.wait() == 130
    assert b"killed by" in on.screen
    assert f"replay it with: timecraft replay {process[:8]}".encode() in on.screen
    again = cli.replay(process, code=130)
    assert "killed by" in again.stderr
    assert cli.process(process)["state"] == "killed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("module", ["spin", "spin_output", "sleep_forever"])
def test_signals(number: int, module: str, cli: Cli):
    """A signal to the host ends the guest as the signal, whatever it does, and the log replays to there."""
    host = cli.start("run", guest(module), stdout=subprocess.DEVNULL)
    process = host.stderr.readline().decode().strip()
    host.send_signal(number)
    assert host.wait(60) == 128 + number
    assert b"replay it with" in host.stderr.read()
    assert cli("replay", "--verify", process, code=None).code == 0
    assert cli.replay(process, code=128 + number).stdout == cli("logs", process).stdout


def test_traps_show_where(cli: Cli):
    """A trap is told with the guest's frames, live and replayed; the exit code is 134."""
    process, done = cli.run(guest("div_zero"), code=134)
    again = cli.replay(process, code=134)
    for text in (done.stderr, again.stderr):
        assert "div_zero.wat: trap:" in text
        assert "at inner" in text
        assert "at outer" in text
    _, done = cli.run(guest("panic"), code=2)
    assert "goroutine 1" in done.stderr, "Go's own panics are Go's to print"


def test_exit_codes(cli: Cli):
    """The guest's exit code is the command's, those that Timecraft uses itself included."""
    for code in (0, 1, 42, 125, 126, 127, 137, 255):
        process, _ = cli.run(guest("exit_codes"), str(code), code=code)
        assert cli.replay(process, code=None).code == code


def test_trace_while_running(cli: Cli):
    """`run -T` shows the calls as `trace` does afterwards."""
    process, done = cli.run("-T", guest("args_env"), "one")
    live = [line for line in done.stderr.splitlines() if not line.startswith("+++")]
    after = cli("trace", "syscall", "--timestamps", "none", process).out.splitlines()
    assert live == [line for line in after if not line.startswith("+++")]


def test_chaos_is_repeatable(cli: Cli):
    """The same seed makes the same calls fail, and what failed is replayed as it was."""
    runs = [cli.run("-C", "0.5", "--seed", "7", guest("clocks"), code=None) for _ in range(2)]
    calls = [cli("trace", "syscall", "--timestamps", "none", process).out.count(" = E") for process, _ in runs]
    assert calls[0] == calls[1]
    for process, done in runs:
        assert cli.replay(process, code=done.code).stdout == done.stdout


# ---- in the background


def test_detached(cli: Cli):
    """A detached process is followed, waited for and stopped; its log is as of any other."""
    process = cli.detach("--name", "ticker", guest("spin_calls"))
    assert "ticker" in cli("ps").out
    cli("stop", "ticker")
    assert cli("wait", "ticker", code=None).out.strip() == "143"
    assert cli.process(process)["state"] == "killed"
    assert cli("replay", "--verify", process).out


def test_logs_follow(cli: Cli, scratch: Path):
    """`logs -f` shows lines as they come, and ends with the process."""
    process = cli.detach(
        "--dir", f"{scratch}:/data", guest("counter"), "-n", "40", "-pause", "50000", "-echo", "/data/out"
    )
    follower = cli.start("logs", "-f", process)
    assert follower.stdout.readline() == b"00000001\n"
    assert cli.process(process)["state"] == "running", "the first line came before the end"
    rest = follower.stdout.read()
    assert follower.wait(60) == 0
    assert rest.endswith(b"00000040\ncounted to 40\n")
    assert cli("wait", process).out.strip() == "0"


def test_restarts(cli: Cli):
    """A failing process is started again as often as the policy says, each run with a log of its own."""
    done = cli(
        "run", "--restart", "on-failure:2", guest("exit_codes"), "3", code=3, TIMECRAFT_RESTART_BACKOFF_S_MIN="0.01"
    )
    ids = [line for line in done.stderr.splitlines() if len(line) == 36]
    assert len(set(ids)) == 3
    for process in ids:
        cli.replay(process, code=3)


# ---- to another machine


def test_export_and_import(cli: Cli, scratch: Path, tmp_path: Path):
    """An exported process is one file that replays elsewhere, with its module, and keeps its id."""
    case = prepare(CASES["mapdemo"], scratch)
    process, done = cli.run(f"--dir={scratch}/data:/data", case.module)
    exported = tmp_path / "exported.file"
    export(cli, process, exported)
    other = Cli(tmp_path / "other")
    assert other("import", "process", exported).out.strip() == process
    assert other.replay(process).stdout == done.stdout
    assert other("logs", process).stdout == done.stdout
    assert "already" in other("import", "process", exported, code=None).stderr


def export(cli: Cli, process: str, path: Path) -> None:
    with path.open("wb") as file:
        assert cli.start("export", "process", process, stdout=file).wait(60) == 0


def test_imports_of_damaged_files(cli: Cli, tmp_path: Path):
    """A cut, altered or wrong file is refused, and nothing of it stays."""
    process, _ = cli.run(guest("hello"))
    exported = tmp_path / "exported.file"
    export(cli, process, exported)
    whole = exported.read_bytes()
    other = Cli(tmp_path / "other")
    middle = len(whole) // 2
    for data in (
        b"",
        b"hello",
        whole[:100],
        whole[:middle],
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    ):
        exported.write_bytes(data)
        done = other("import", "process", exported, code=REFUSED)
        assert "[TC00" in done.stderr
        assert other("ps", "-aq").out == ""


def test_streams_are_kept_apart(cli: Cli):
    """What went to standard error is logged and replayed there."""
    process, done = cli.run(guest("stderr"))
    assert (done.stdout, done.stderr) == (b"out\n", "err\n")
    for command in ("logs", "replay"):
        again = cli(command, process)
        assert (again.stdout, again.stderr) == (b"out\n", "err\n")
