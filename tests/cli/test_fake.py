"""Verbs against the fake extension: exit codes, messages, output."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.testing import FakeGuest, FakeOutcome, module
from timecraftd.cli.supervise import Interrupts
from timecraftd.errors import NotFoundError, ReplayRefusedError, TimecraftError
from timecraftd.model import ModuleFile, ObjectKind
from timecraftd.registry.objects import digest_of

VERBS = [
    "run",
    "replay",
    "resume",
    "ps",
    "logs",
    "wait",
    "stop",
    "kill",
    "rm",
    "prune",
    "get",
    "describe",
    "export",
    "import",
    "trace",
    "catalogue",
    "node",
    "context",
    "config",
    "doctor",
    "version",
]


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A module that writes and exits with 3."""
    path = tmp_path / "hello.wasm"
    path.write_bytes(module(stdout="hello\n", code=3))
    return path


def test_run_returns_the_guests_code_and_prints_the_id_first(command, hello, capfd):
    """The first line on standard error is the process id."""
    assert command("run", hello) == 3
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert err.splitlines() == ["01a3185c-5000-7000-8000-000000000001"]


def test_arguments_after_the_module_are_the_guests(command, hello, native):
    """Flags after MODULE, and `--`, go to the guest."""
    command("run", "-q", hello, "-q", "--", "--name=x")
    assert native.specs[0].args == (b"hello.wasm", b"-q", b"--", b"--name=x")


def test_nothing_is_inherited(command, hello, native, monkeypatch):
    """No variable and no directory reaches a guest unless it was named."""
    monkeypatch.setenv("SECRET", "x")
    command("run", "-q", hello)
    assert (native.specs[0].env, native.specs[0].mounts) == ((), ())
    command("run", "-q", "-e", "SECRET", "-e", "A=b=c", hello)
    assert native.specs[1].env == (b"SECRET=x", b"A=b=c")


def test_restrict_withholds_standard_input(command, hello, native):
    """`--restrict` gives /dev/null for standard input."""
    command("run", "-q", "--restrict", hello)
    assert native.specs[0].stdin_fd is None


def test_trap_shows_message_and_backtrace(command, tmp_path, capfd):
    """A trap is 134, with what happened and where."""
    path = tmp_path / "trap.wasm"
    path.write_bytes(module(kind="trap", code=134, message="unreachable\n  at x", backtrace=["main.main (m+0x1)"]))
    assert command("run", "-q", path) == 134
    assert capfd.readouterr().err == "timecraft: trap.wasm: trap: unreachable\n    at main.main (m+0x1)\n"


def test_a_module_can_not_write_escapes_through_messages(command, tmp_path, capfd):
    """Names from a module are printed harmlessly."""
    path = tmp_path / "trap.wasm"
    path.write_bytes(module(kind="trap", code=134, message="x", backtrace=["\x1b]0;owned\x07"]))
    command("run", "-q", path)
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["run", "missing.wasm"], 127, "missing.wasm: there is no such file; give the path of a .wasm or .wat file"),
        (["run", "app.py"], 127, "app.py: there is no such file; give the path of a .py file"),
        (["run", "-p", "80", "x.wasm"], 125, "isn't [IP:]HOST:GUEST[/udp]"),
        (["run", "--net", "http://x", "x.wasm"], 125, "is a URL; give a name and a port"),
        (["run", "--memory", "lots", "x.wasm"], 125, "'lots' isn't a size"),
        (["run", "--memory", "1K", "x.wasm"], 125, "--memory: 1KiB isn't between 64KiB and 4GiB"),
        (["run", "--timeout", "soon", "x.wasm"], 125, "'soon' isn't a duration"),
        (["run", "--record-compression", "zstd", "x.wasm"], 125, "use lz4 or none"),
        (["run", "--restart", "maybe", "x.wasm"], 125, "use no, on-failure, on-failure:3, always or resume"),
        (["run", "--name", "../x", "x.wasm"], 125, "isn't a name"),
        (["run", "-e", "=x", "x.wasm"], 125, "isn't a variable"),
        (["run", "-e", "NOT_SET_ANYWHERE", "x.wasm"], 125, "the host has no variable"),
        (["run", "--env-file", "nowhere", "x.wasm"], 127, "--env-file nowhere"),
        (["run", "-d", "--no-record", "x.wasm"], 125, "would drop the output"),
        (["run"], 125, "run: names no module; give a .wasm, .wat or .py file"),
        (["rnu"], 125, "did you mean `timecraft run`?"),
        (["profile", "x"], 125, "come in a later version"),
        (["--quiet"], 125, "flags come after the verb"),
        (["run", "--restart", "resume", "x.wasm"], 125, "nobody outlives this command to do it"),
        (["node", "info"], 125, "node: none is named; give `timecraft --node ADDRESS`"),
        (["replay", "abc"], 127, "a shortened id has at least 4 characters"),
        (["replay", "beef"], 127, "there is no such process"),
        (["describe", "module", "beef"], 127, "there is no such module"),
        (["get", "cats"], 125, "invalid choice: 'cats'"),
        (["kill", "-s", "NOPE", "beef"], 125, "isn't a signal"),
        (["ps", "--filter", "x=y"], 125, "keys are name, module, state, id"),
        (["ps", "--filter", "state=tired"], 125, "no such state"),
        (["trace", "network", "beef"], 127, "there is no such process"),
        (["import", "nowhere.tar"], 127, "nowhere.tar: No such file"),
        (["completion", "elvish"], 125, "invalid choice"),
    ],
)
def test_wrong_arguments(command, capsys, args, code, says):
    """Each is told with a reason and a next step, without a traceback."""
    assert command(*args) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("timecraft: ")
    assert "Traceback" not in err
    assert err.endswith("]\n")


def test_a_missing_directory_is_told_before_anything_runs(command, hello, native, capsys):
    """A mount that doesn't exist is an error, and leaves no process."""
    assert command("run", "--dir", "/no/such/directory:/data", hello) == 125
    assert "mount /no/such/directory: there is no such directory" in capsys.readouterr().err
    assert native.specs == []


def test_memory_that_does_not_fit_is_told_before_anything_runs(command, tmp_path, native, capsys):
    """A module whose first memory exceeds the limit doesn't start."""
    path = tmp_path / "big.wasm"
    path.write_bytes(module(memory_min_bytes=1 << 20))
    assert command("run", "--memory", "512KiB", path) == 126
    assert "needs 1MiB of memory to start, the limit is 512KiB; raise it with --memory 1MiB" in capsys.readouterr().err
    assert native.specs == []


def test_a_run_that_fails_to_start_leaves_no_process(command, hello, native, runtime):
    """Neither row nor directory stays."""
    native.fail_run = TimecraftError("no")
    assert command("run", hello) == 125
    assert runtime.processes() == []
    assert os.listdir(runtime.registry.home.processes_dir) == []


def test_an_interrupt_ends_only_guests_that_do_not_notice_it():
    """Ctrl-C is shown to a guest that understands it; if it notices nothing, the next one ends it. Others it ends."""
    with Interrupts() as interrupts:
        understands, other = FakeGuest(None, lambda _: None), FakeGuest(None, lambda _: None)
        interrupts.attach(understands, interrupt=understands.interrupt)
        os.kill(os.getpid(), signal.SIGINT)
        assert (understands.interrupts, understands.wait(0)) == (1, None)
        understands.interrupts = 0
        os.kill(os.getpid(), signal.SIGINT)
        assert understands.wait(0) is None
        os.kill(os.getpid(), signal.SIGINT)
        assert understands.wait(0).code == 130
        interrupts.detach()
    with Interrupts() as interrupts:
        interrupts.attach(other)
        os.kill(os.getpid(), signal.SIGINT)
        assert (other.interrupts, other.wait(0).code) == (0, 130)
        interrupts.detach()


def test_a_module_that_never_changes_is_read_once(runtime, tmp_path, native):
    """It is known by its digest; it is read again if the store lacks it, or has something else."""
    wasm = b"\0asm {}"
    file = tmp_path / "module.wasm"
    file.write_bytes(wasm)
    source = ModuleFile(str(file), digest_of(wasm))
    assert not runtime.is_compiled(source)
    runtime.compile(source, "m")
    assert runtime.is_compiled(source)
    file.unlink()
    assert runtime.store_module(source, "m").digest == source.digest
    stored = Path(runtime.registry.objects.path(ObjectKind.MODULE, source.digest))
    stored.write_bytes(b"cut")
    with pytest.raises(NotFoundError, match=r"module\.wasm"):
        runtime.store_module(source, "m")
    file.write_bytes(wasm)
    runtime.store_module(source, "m")
    assert stored.read_bytes() == wasm


def test_replay_repeats_output_and_exit_code(command, hello, capfd):
    """By name, as by id."""
    command("run", "-q", "--name", "web", hello)
    capfd.readouterr()
    assert command("replay", "web") == 3
    assert capfd.readouterr().out == "hello\n"
    assert command("replay", "--verify", "web") == 0
    assert "the same to the end" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (
            FakeOutcome("diverged", 125, "record 5: clock_time_get, expected fd_write"),
            125,
            ": record 5: clock_time_get",
        ),
        (FakeOutcome("log_damaged", 125, "bad checksum"), 125, "the log is damaged after record 7: bad checksum"),
        (FakeOutcome("input_lost", 125, "record 8 refers to x"), 125, ": record 8 refers to x; import it again"),
        (FakeOutcome("log_ended", 125, ""), 125, "its log ends with record 7, where its host died"),
        (FakeOutcome("until", 0, ""), 0, ""),
    ],
)
def test_replays_that_do_not_reach_the_end(command, hello, native, capfd, outcome, code, says):
    """Each says how far it got."""
    command("run", "-q", "--name", "web", hello)
    capfd.readouterr()
    native.replay_outcome = outcome
    assert command("replay", "web") == code
    assert says in capfd.readouterr().err


def test_replay_refuses_another_engine(command, hello, native, capfd):
    """With both versions named."""
    command("run", "-q", "--name", "web", hello)
    native.info["engine_version"] = "2.0"
    assert command("replay", "web") == ReplayRefusedError.exit_code
    assert "it was recorded with engine version '1.0', this is '2.0'; use Timecraft 0.1.0" in capfd.readouterr().err


def test_replay_refuses_what_was_not_recorded(command, hello, capfd):
    """There is nothing to replay."""
    command("run", "-q", "--fly-blind", "--name", "web", hello)
    assert command("replay", "web") == 125
    assert "was run without recording" in capfd.readouterr().err


def test_replay_of_a_damaged_module_is_refused(command, hello, runtime, capfd):
    """The object's digest is checked; another run of the same file puts it right."""
    command("run", "-q", "--name", "web", hello)
    process = runtime.process("web")
    path = Path(runtime.registry.objects.path("module", process.module))
    path.chmod(0o600)
    path.write_bytes(b"\0asm{}")
    assert command("replay", "web") == 125
    assert "don't match the digest" in capfd.readouterr().err
    command("run", "-q", hello)
    assert command("replay", "web") == 3


def test_ps_shows_what_ended_only_when_asked(command, hello, capsys):
    """As in docker."""
    command("run", "-q", "--name", "web", hello)
    capsys.readouterr()
    command("ps")
    assert capsys.readouterr().out.splitlines() == ["ID   NAME   MODULE   STATUS   CREATED   SIZE"]
    command("ps", "-a")
    assert "Exited (3) just now" in capsys.readouterr().out
    command("ps", "-aq", "--no-trunc", "--filter", "name=w*")
    assert capsys.readouterr().out == "01a3185c-5000-7000-8000-000000000001\n"


@pytest.mark.parametrize(("form", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_ps_as_data(command, hello, capsys, form, load):
    """The same fields in both forms."""
    command("run", "-q", "--name", "web", hello)
    capsys.readouterr()
    command("ps", "-a", "-o", form)
    (process,) = load(capsys.readouterr().out)
    assert (process["name"], process["state"], process["exit_code"]) == ("web", "exited", 3)
    assert process["created_at"] == "2027-01-15T08:00:00.000Z"


def test_logs_go_where_they_went(command, tmp_path, capfd):
    """Standard output to standard output, standard error to standard error."""
    path = tmp_path / "both.wasm"
    path.write_bytes(module(stdout="one\ntwo\n", stderr="three\n"))
    command("run", "-q", "--name", "both", path)
    capfd.readouterr()
    command("logs", "both")
    assert capfd.readouterr() == ("one\ntwo\n", "three\n")
    command("logs", "-t", "both")
    assert capfd.readouterr().out.splitlines()[1] == "2027-01-15T08:00:00.000000Z two"
    command("logs", "-n", "2", "both")
    assert capfd.readouterr() == ("two\n", "three\n")


def test_trace_says_what_to_show_and_what_is_missing(command, hello, native, capfd):
    """Flags become a query; notes go to standard error."""
    command("run", "-q", "--name", "web", hello)
    capfd.readouterr()
    assert command("trace", "request", "web", "-v", "-o", "yaml", "-t", "2s", "-d", "1s", "--port", "80") == 0
    out, err = capfd.readouterr()
    assert out == "request as yaml\nunfinished\n"
    assert err.endswith(": a note\n")
    query = native.specs[-1]
    assert (query.verbose, query.timestamps, query.port, query.color) == (True, "absolute", 80, False)
    assert (query.from_ns, query.until_ns, query.is_unix, query.last_ns) == (2 * 10**9, 3 * 10**9, False, None)
    command("trace", "network", "web", "-t", "2027-01-15T08:00:00Z", "--timestamps", "none")
    query = native.specs[-1]
    assert (query.layer, query.from_ns, query.is_unix) == ("network", 1_800_000_000 * 10**9, True)
    assert (query.until_ns, query.timestamps) == (None, "none")


def test_rm_and_prune(command, hello, runtime, capsys):
    """Objects stay until prune, and until the last process that needs them is gone."""
    command("run", "-q", "--name", "a", hello)
    command("run", "-q", "--name", "b", hello)
    command("rm", "a")
    command("prune")
    assert command("replay", "b") == 3
    capsys.readouterr()
    command("prune", "--all", "--dry-run")
    assert capsys.readouterr().out.splitlines()[-1].startswith("would free")
    assert len(runtime.processes()) == 1
    command("prune", "--all")
    assert runtime.processes() == []
    assert not [info for kind in ("module", "config", "runtime") for info in runtime.registry.objects.stored(kind)]


def test_describe_tells_all(command, hello, capsys):
    """Arguments, limits, log, and whether it can be replayed."""
    command("run", "-q", "--name", "web", "--dir", "/tmp:/data:ro", "--memory", "1MiB", hello, "arg")
    capsys.readouterr()
    command("describe", "process", "web")
    out = capsys.readouterr().out
    for text in ("hello.wasm", "/tmp at /data (read-only)", "1.0 MiB", "replayable:", "records:"):
        assert text in out
    command("describe", "module", "hello.wasm", "-o", "json")
    assert json.loads(capsys.readouterr().out)["exports"] == [{"name": "_start", "type": "func ()"}]


def test_trees_are_listed_described_and_pruned(command, hello, runtime, tmp_path, native, capsys):
    """A run with an immutable mount makes one; the config names it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("x" * 2048)
    (data / "link").symlink_to("file")
    command("run", "-q", "--name", "web", "--dir", f"{data}:/data:immutable", hello)
    (mount,) = native.specs[0].mounts
    tree = os.path.basename(mount.host)
    assert (mount.tree, mount.read_only, mount.guest) == (tree, True, "/data")
    capsys.readouterr()
    command("get", "trees")
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == [tree[:12], "1", "2.2"]
    command("get", "tree", tree[:12], "-o", "json")
    assert json.loads(capsys.readouterr().out)[0]["path"] == mount.host
    command("describe", "tree", tree[:12])
    out = capsys.readouterr().out
    for text in ("link file", "file 2048", runtime.processes()[0].id):
        assert text in out
    command("describe", "process", "web")
    assert f"{data} at /data (immutable, tree {tree[:12]})" in capsys.readouterr().out
    assert command("replay", "web") == 3
    assert native.specs[-1].trees == (mount.host,)
    command("prune", "-o", "json")
    assert json.loads(capsys.readouterr().out) == []
    command("rm", "web")
    command("prune", "-o", "json")
    gone = {item["id"]: item for item in json.loads(capsys.readouterr().out.removeprefix("web\n"))}
    assert gone[tree]["kind"] == "tree"
    assert gone[tree]["bytes"] > 2048
    assert not os.path.exists(mount.host)


def test_trees_stay_as_long_as_a_config_is_unreadable(command, hello, runtime, tmp_path, capsys):
    """It may name any of them."""
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        command("run", "-q", "--name", name, "--dir", f"{tmp_path / 'data'}:/{name}:immutable", hello)
        (tmp_path / "data" / name).touch()
    Path(runtime.registry.objects.path(ObjectKind.CONFIG, runtime.process("a").config)).write_text("{}")
    command("rm", "b")
    command("prune")
    assert len(list(runtime.registry.objects.stored(ObjectKind.TREE))) == 2
    command("rm", "a")
    command("prune")
    assert not list(runtime.registry.objects.stored(ObjectKind.TREE))


def test_help_of_every_verb(command, capsys):
    """Each verb explains itself."""
    for verb in VERBS:
        assert command(verb, "--help") == 0
    assert command("--help") == 0
    assert all(verb in capsys.readouterr().out for verb in ("run",))


def test_an_internal_error_is_one_line(command, hello, native, capsys):
    """Whatever happens inside, users get no traceback."""
    native.fail_run = RuntimeError("boom")
    assert command("run", hello) == 125
    assert capsys.readouterr().err.startswith("timecraft: internal error: RuntimeError: boom; set TIMECRAFT_DEBUG=1")


def test_a_dead_host_is_seen(command, hello, runtime):
    """A row that says running, whose lock is free, is recovered and becomes what its log says."""
    command("run", "-q", "--name", "web", hello)
    process = runtime.process("web")
    runtime.registry.catalogue.update(process.id, state="running", exit_code=None, ended_ns=None)
    assert runtime.process("web").state == "exited"
    log = Path(runtime.registry.home.log_dir(process.id), "log.json")
    log.write_text("{}")
    runtime.registry.catalogue.update(process.id, state="running", exit_code=None, ended_ns=None)
    assert runtime.process("web").state == "crashed"


def test_a_host_that_died_before_its_log_began(command, hello, runtime, capsys):
    """Such a process is listed as crashed, and hides no others."""
    command("run", "-q", "--name", "web", hello)
    process = runtime.process("web")
    Path(runtime.registry.home.log_dir(process.id), "log.json").unlink()
    runtime.registry.catalogue.update(process.id, state="running", exit_code=None, ended_ns=None)
    assert command("ps", "-a") == 0
    assert "Crashed" in capsys.readouterr().out
    assert "has no segment" in runtime.process("web").message


def test_resume_of_what_did_not_crash_is_refused(command, hello, capsys):
    """Only a process whose host died goes on."""
    command("run", "-q", "--name", "web", hello)
    assert command("resume", "web") == 125
    assert "only a process whose host died can be resumed" in capsys.readouterr().err


def test_an_imported_process_is_resumed_only_if_trusted(command, hello, runtime, tmp_path, capsys):
    """It would get the directories that somebody else granted."""
    command("run", "-q", "--name", "web", "--dir", f"{tmp_path}:/data", hello)
    process = runtime.process("web")
    Path(runtime.registry.home.log_dir(process.id), "log.json").write_text("{}")
    changes = {"state": "running", "exit_code": None, "ended_ns": None, "imported": True}
    runtime.registry.catalogue.update(process.id, **changes)
    assert runtime.process("web").imported
    assert command("resume", "web") == 125
    error = capsys.readouterr().err
    assert f"was imported, and would get the directories {tmp_path};" in error
    assert "--trust" in error
    command("resume", "--trust", "web")
    assert "was imported" not in capsys.readouterr().err
