"""Bad input of every kind gets a message that names the thing and the reason, and the right exit code."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cli import COMMAND, Cli, Done, guest
from tests.e2e.guests import contents

BAD, MISSING, REFUSED = 126, 127, 125
UNKNOWN_IMPORTS = """(module
  (import "wasi_snapshot_preview1" "fd_wrote" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "env" "something" (func))
  (memory (export "memory") 1)
  (func (export "_start")))"""


def said(done: Done, *parts: str) -> None:
    """The last line of standard error has these parts; it is one message of ours, with its code."""
    message = done.stderr.strip().rpartition("timecraft: ")[2]
    assert message.endswith("]"), done.shown
    assert "[TC00" in message, done.shown
    assert "[TC0001]" not in message, done.shown
    for part in parts:
        assert part in message, done.shown


def refused(cli: Cli, path: Path, *parts: str, code: int = BAD) -> None:
    """A file is refused as a module, and no process is left."""
    done = cli("run", path, code=code)
    said(done, path.name, *parts)
    assert done.stdout == b""
    assert cli("ps", "-aq").out == ""
    assert not any((cli.home / "processes").iterdir())


NOT_WASM = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello\n", "not a WebAssembly module"),
    "elf": (b"\x7fELF" + bytes(100), "not a WebAssembly module"),
    "half a magic": (b"\0as", "not a WebAssembly module"),
    "only the magic": (b"\0asm", "truncated"),
    "other version": (b"\0asm\x02\0\0\0", "unknown binary version"),
    "component": (bytes.fromhex("0061736d0d000100"), "component (preview 2)"),
    "bad text format": (b"(module (func", "text format"),
    "bad utf-8": (b"(module \xff\xfe)", "not a WebAssembly module"),
    "unknown imports": (UNKNOWN_IMPORTS.encode(), "fd_wrote (closest known: wasi_snapshot_preview1.fd_write)"),
}


@pytest.mark.parametrize("kind", NOT_WASM)
def test_what_is_no_module(kind: str, cli: Cli, tmp_path: Path):
    """A file that is no core module of preview 1 is told to be what it is."""
    data, reason = NOT_WASM[kind]
    path = tmp_path / "given.bin"
    path.write_bytes(data)
    refused(cli, path, reason)


def test_all_unknown_imports_are_listed(cli: Cli, tmp_path: Path):
    """One message names all imports that are unknown."""
    path = tmp_path / "unknown.wat"
    path.write_text(UNKNOWN_IMPORTS)
    refused(cli, path, "fd_wrote", "wasi_unstable.fd_write", "env.something")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.9, 0.9999])
def test_truncated(share: float, cli: Cli, tmp_path: Path):
    """A module that was cut anywhere is refused as truncated or damaged."""
    wasm = guest("panic").read_bytes()
    path = tmp_path / "cut.wasm"
    path.write_bytes(wasm[: int(len(wasm) * share)])
    refused(cli, path, "truncated or damaged", "copy or build it again")


def test_paths_of_modules(cli: Cli, tmp_path: Path):
    """A missing module is 127, a directory is told apart."""
    refused(cli, tmp_path / "missing.wasm", "there is no such file", code=MISSING)
    refused(cli, tmp_path, "Is a directory")
    done = cli("run", "-", code=BAD, stdin=b"")
    said(done, "the file is empty")
    assert cli("run", "-q", "-", stdin=guest("hello").read_bytes()).stdout


def test_entry_functions(cli: Cli):
    """A module without the function to call names those it has; with -f it runs."""
    module = guest("no_start")
    said(cli("run", module, code=BAD), 'no function "_start"', "run", "-f")
    said(cli("run", "-f", "nope", module, code=BAD), 'no function "nope"', "run")
    said(cli("run", "-f", "memory", module, code=BAD), '"memory"')
    assert cli.run("-f", "run", module)[1].out == "ran\n"


def test_limits(cli: Cli):
    """Memory beyond the limit is refused with both sizes; nonsensical limits are usage errors."""
    done = cli("run", "--memory", "1GiB", guest("big_memory"), code=BAD)
    said(done, "big_memory.wat: needs 2GiB of memory to start, the limit is 1GiB", "--memory 2GiB")
    for flags in (["--memory", "1"], ["--memory", "9GiB"], ["--memory", "x"], ["--cpu", "-1"], ["--stack", "1"]):
        said(cli("run", *flags, guest("hello"), code=REFUSED), flags[0])


def test_mounts(cli: Cli, tmp_path: Path):
    """A directory to mount that is missing, a file, or not given is named."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    for host, reason in (
        ("missing", "there is no such directory"),
        ("file", "is not a directory"),
        ("dangling", "is not a directory"),
        ("file/below", "there is no such directory"),
    ):
        done = cli("run", "--dir", f"{tmp_path / host}:/data", guest("hello"), code=REFUSED)
        said(done, f"mount {tmp_path / host}: {reason}", "correct --dir")
    for text in ("", ":", ":/data", f"{tmp_path}:/a:ro:rw", f"{tmp_path}:"):
        said(cli("run", "--dir", text, guest("hello"), code=REFUSED), "isn't HOST[:GUEST[:MODE]]")


USAGE = {
    "unknown verb": ["rum", "x"],
    "no verb": ["--frobnicate"],
    "unknown flag": ["run", "--frobnicate", "x.wasm"],
    "no module": ["run"],
    "no id": ["replay"],
    "env without name": ["run", "-e", "=x", "x.wasm"],
    "env that the host lacks": ["run", "-e", "NO_SUCH_VARIABLE", "x.wasm"],
    "chaos beyond 1": ["run", "-C", "2", "x.wasm"],
    "restart": ["run", "--restart", "sometimes", "x.wasm"],
    "name": ["run", "--name", "a b", "x.wasm"],
    "on-log-full": ["run", "--on-log-full", "explode", "x.wasm"],
    "compression": ["run", "--record-compression", "zip", "x.wasm"],
    "seed": ["run", "--seed", "-1", "x.wasm"],
    "sockets": ["run", "-S", "v3", "x.wasm"],
    "detached and unrecorded": ["run", "--detach", "--no-record", "x.wasm"],
    "later verb": ["graph", "submit"],
    "half a port": ["run", "-p", "80", "x.wasm"],
    "format": ["ps", "-o", "xml"],
    "filter": ["ps", "--filter", "colour=red"],
    "layer": ["trace", "thoughts", "1234"],
}


@pytest.mark.parametrize("what", USAGE)
def test_usage(what: str, cli: Cli):
    """A command line that makes no sense is told why, in one message."""
    done = cli(*USAGE[what], code=REFUSED)
    said(done)
    assert done.stdout == b""


@pytest.mark.parametrize("verb", ["replay", "resume", "logs", "wait", "stop", "kill", "rm", "trace syscall"])
def test_ids(verb: str, cli: Cli):
    """Ids that are unknown, too short, empty or odd are 127."""
    cli.run(guest("hello"))
    for reference in ("deadbeef", "0", "", "../../x", "%", "*", "a'b", "\N{SNOWMAN}"):
        said(cli(*verb.split(), reference, code=MISSING), "there is no such process")


def test_ambiguous_ids(cli: Cli):
    """A prefix that fits several processes is told to, and the unique one works."""
    first, _ = cli.run(guest("hello"))
    second, _ = cli.run(guest("hello"))
    common = next(at for at in range(len(first)) if first[at] != second[at])
    assert common >= 4, "ids begin with the time"
    said(cli("replay", first[:common], code=REFUSED), first[:common])
    assert cli.replay(first[: common + 1]).out == "hello, world\n"


# ---- the state directory


def test_state_is_no_directory(tmp_path: Path, cli: Cli):
    """A file, or something beneath one, in place of the state directory is named."""
    (tmp_path / "file").write_text("")
    for path in ("file", "file/below", "/proc/nowhere"):
        done = cli("run", guest("hello"), code=REFUSED, TIMECRAFT_HOME=str(tmp_path / path))
        said(done, f"state directory {(tmp_path / path).parent}", "TIMECRAFT_HOME")


def test_state_is_a_stranger(tmp_path: Path, cli: Cli):
    """A directory that holds other things isn't taken over."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    before = contents(tmp_path / "photos")
    done = cli("run", guest("hello"), code=REFUSED, TIMECRAFT_HOME=str(tmp_path / "photos"))
    said(done, "holds other things (cat.jpg", "empty or new directory")
    assert contents(tmp_path / "photos") == before


@pytest.mark.parametrize("version", ["2", "999999"])
def test_state_from_a_newer_version(version: str, cli: Cli):
    """A newer layout is refused by every verb, and left alone."""
    cli.run(guest("hello"))
    (cli.home / "VERSION").write_text(version)
    for verb in (["ps"], ["run", guest("hello")], ["prune", "--all"]):
        said(cli(*verb, code=REFUSED), f"has version {version}, this Timecraft knows 1", "newer Timecraft")
    (cli.home / "VERSION").write_text("one")
    said(cli("ps", code=REFUSED), "isn't a version number")


def test_catalogue_that_is_garbage(cli: Cli):
    """A catalogue that isn't a database is an error of the state directory, with its path."""
    cli.run(guest("hello"))
    for path in cli.home.glob("catalogue.db*"):
        path.write_bytes(b"garbage" * 1000)
    said(cli("ps", "-a", code=REFUSED), "catalogue")


def in_namespace(script: str, cli: Cli, *args: str | Path) -> Done:
    """Runs a shell script as root of a mount namespace of its own. Skips where that is not allowed."""
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip("no user namespaces here: a full or read-only disk can't be made")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-euc", script, "sh", *args],
        env=cli.environment | {"TIMECRAFT": str(COMMAND)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
    )
    ended = Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "internal error" not in ended.stderr, ended.stderr
    return ended


def test_read_only_state(cli: Cli):
    """A state directory on a read-only file system is told to be that; nothing runs."""
    cli.run(guest("hello"))
    script = 'H="$TIMECRAFT_HOME"; mount --bind "$H" "$H"; mount -o remount,ro,bind "$H"; exec "$TIMECRAFT" "$@"'
    for verb in (["run", guest("hello")], ["ps", "-a"]):
        done = in_namespace(script, cli, *verb)
        assert done.code == REFUSED, done.shown
        said(done, "state directory")
        assert done.stdout == b""


def test_two_hosts_of_one_process(cli: Cli):
    """What another host works on isn't removed, resumed or replayed, and the message names it."""
    process = cli.detach(guest("sleep_forever"))
    said(cli("rm", process, code=REFUSED), "it runs", "rm -f")
    said(cli("resume", process, code=REFUSED), process)
    said(cli("replay", process, code=REFUSED), "it still runs")
    assert process not in cli("prune", "--all", "--crashed").out
    assert cli.process(process)["state"] == "running"


def test_many_runs_share_a_state_directory(cli: Cli):
    """Runs at the same time in one state directory don't disturb each other."""
    hosts = [cli.start("run", guest("args_env"), str(number)) for number in range(6)]
    for number, host in enumerate(hosts):
        out, err = host.communicate(timeout=100)
        assert host.returncode == 0, err
        assert cli.replay(err.decode().split("\n")[0]).stdout == out == f"{number}\0".encode()


# ---- no space for the log

SMALL = 'mount -t tmpfs -o size="$1" none "$TIMECRAFT_HOME"; shift; '


def test_no_space_to_begin(cli: Cli):
    """On a full disk a run is refused before it begins, and says what is full."""
    script = SMALL + 'head -c 1m /dev/zero > "$TIMECRAFT_HOME/.filler" || true; exec "$TIMECRAFT" "$@"'
    done = in_namespace(script, cli, "200k", "run", guest("hello"))
    assert done.code == REFUSED, done.shown
    assert done.stdout == b""
    assert "No space left" in done.stderr or "full" in done.stderr, done.shown


def test_no_space_stops_the_run(cli: Cli):
    """By default a guest whose log has no room is stopped, and all but its last call can be replayed."""
    script = SMALL + (
        'printed="$1"; shift; code=0; head -c 1m /dev/zero > "$TIMECRAFT_HOME/.filler"; '
        '"$TIMECRAFT" run "$@" > "$printed" || code=$?; echo "$code" $(wc -c < "$printed"); '
        'rm "$TIMECRAFT_HOME/.filler"; '
        'id=$(ls "$TIMECRAFT_HOME/processes"); "$TIMECRAFT" logs "$id" | wc -c; "$TIMECRAFT" replay "$id" | wc -c; '
        '"$TIMECRAFT" replay --verify "$id"; "$TIMECRAFT" ps -a'
    )
    done = in_namespace(script, cli, "3m", cli.home.parent / "printed", "--timeout", "60s", guest("spin_output"))
    assert done.code == 0, done.shown
    code, printed, logged, replayed = map(int, done.out.split()[:4])
    assert code == REFUSED, done.shown
    assert "stopped, because its log can't be written" in done.stderr
    assert "No space left" in done.stderr or "full" in done.stderr, done.shown
    assert 0 <= printed - logged <= len("again\n"), done.shown
    assert replayed == logged
    assert "Failed" in done.out or "Crashed" in done.out


def bounded(cli: Cli, flags: list[str], *command: str | Path) -> tuple[str, Done]:
    return cli.run("--log-max", "64KiB", *flags, *command, code=None)


def test_a_full_log_stops_the_run(cli: Cli):
    """A log at its bound stops the guest; all but its last call is in the log, which replays up to there."""
    process, done = bounded(cli, [], guest("spin_output"))
    assert done.code == REFUSED, done.shown
    assert "stopped, because its log can't be written: the log reached its limit of 65536 bytes" in done.stderr
    logged = cli("logs", process).stdout
    assert 0 <= len(done.stdout) - len(logged) <= len("again\n")
    again = cli.replay(process, code=REFUSED)
    assert again.stdout == logged
    assert "the log reached its limit" in again.stderr
    assert "resume" not in again.stderr
    assert cli.process(process)["state"] == "failed"


def test_a_full_log_lets_the_run_continue(cli: Cli, scratch: Path):
    """With --on-log-full continue the guest ends on its own, and what isn't recorded is told, not hidden."""
    command = ["--dir", f"{scratch}:/data", guest("counter"), "-echo", "-n", "20000", "/data/out"]
    process, done = bounded(cli, ["--on-log-full", "continue"], *command)
    assert done.code == 0, done.shown
    assert done.out.endswith("00020000\ncounted to 20000\n")
    assert "records were not recorded" in done.stderr
    logged = cli("logs", process).stdout
    assert done.stdout.startswith(logged)
    assert len(logged) < len(done.stdout)
    again = cli.replay(process, code=REFUSED)
    assert again.stdout == logged
    assert "what came then was lost" in again.stderr
    described = json.loads(cli("describe", "process", process, "-o", "json").stdout)
    described = described[0] if isinstance(described, list) else described
    assert described["log"]["incomplete_from"] > 0
    said(cli("resume", process, code=REFUSED), process)


def test_modules_that_vanish_or_change_in_the_store(cli: Cli):
    """A stored module that is gone or altered is refused at replay, by digest."""
    process, _ = cli.run(guest("hello"))
    digest = cli.process(process)["module"]
    stored = cli.home / "objects" / "module" / digest[:2] / digest
    wasm = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(wasm[:-1] + bytes([wasm[-1] ^ 1]))
    said(cli.replay(process, code=REFUSED), digest[:12])
    stored.unlink()
    said(cli.replay(process, code=MISSING), "is not in the store")


def test_damaged_machine_code_is_compiled_anew(tmp_path: Path):
    """A cached artifact that was cut or altered costs a compilation, nothing else."""
    cli = Cli(tmp_path / "home", shared_artifacts=False)
    cli.run(guest("hello"))
    (artifact,) = (cli.home / "artifacts").glob("*.artifact")
    good = artifact.read_bytes()
    for damaged in (b"", good[: len(good) // 2], good[:100] + b"\xff" * 100 + good[200:]):
        artifact.chmod(0o600)
        artifact.write_bytes(damaged)
        process, done = cli.run(guest("hello"))
        assert done.out == cli.replay(process).out == "hello, world\n"
