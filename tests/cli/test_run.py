"""The command for real: engine, recorder and registry together."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

BOTH_WAYS = pytest.mark.parametrize("timecraft", ["embedded", "node"], indirect=True)
"""Against the runtime in the command, and against a node."""


def wait_for_start(process: subprocess.Popen[str]) -> str:
    """The id of a run in the background, once the guest runs."""
    assert process.stderr is not None
    return process.stderr.readline().strip()


@BOTH_WAYS
def test_run_replay_logs(timecraft, guests):
    """A guest's output comes again, from replay and from the record."""
    run = timecraft("run", "--name", "hello", guests / "hello.wat")
    assert (run.returncode, run.stdout) == (0, "hello, world\n")
    replay = timecraft("replay", run.stderr.strip())
    assert (replay.returncode, replay.stdout, replay.stderr) == (0, run.stdout, "")
    assert timecraft("logs", "hello").stdout == run.stdout
    assert "the same to the end" in timecraft("replay", "--verify", "hello").stdout


@BOTH_WAYS
def test_ps_watches(timecraft, guests):
    """What there is, then each change, the end too, a line each; until Ctrl-C."""
    watching = timecraft.start("ps", "-w", "-o", "json", "--filter", "name=seen*")
    assert watching.stdout is not None
    process = timecraft.start("run", "-q", "--name", "seen", guests / "spin.wat")
    assert json.loads(watching.stdout.readline())["name"] == "seen"
    table = timecraft.start("ps", "-w", "--filter", "name=seen*")
    assert table.stdout is not None
    assert table.stdout.readline().split() == ["ID", "NAME", "MODULE", "STATUS", "CREATED", "SIZE"]
    assert table.stdout.readline().split()[1:4] == ["seen", "spin.wat", "Up"]
    timecraft("run", "-q", "--name", "other", guests / "hello.wat")
    timecraft("kill", "seen")
    process.communicate(timeout=60)
    assert process.returncode == 137
    states: list[str] = []
    while "killed" not in states:
        told = json.loads(watching.stdout.readline())
        assert told["name"] == "seen"
        states.append(told["state"])
    while "Killed (137)" not in table.stdout.readline():
        pass
    for each in (watching, table):
        each.send_signal(signal.SIGINT)
        each.communicate(timeout=60)
        assert each.returncode == 130


@BOTH_WAYS
def test_exit_codes(timecraft, guests):
    """The guest's own, and it is replayed too."""
    assert timecraft("run", "--name", "e", guests / "exit_code.wat").returncode == 42
    assert timecraft("replay", "e").returncode == 42


@BOTH_WAYS
def test_trap(timecraft, guests):
    """134 with the reason and frames, live and in replay."""
    run = timecraft("run", "-q", "--name", "t", guests / "div_zero.wat")
    assert run.returncode == 134
    assert "div_zero.wat: trap: integer divide by zero\n    at inner" in run.stderr
    assert timecraft("replay", "t").returncode == 134


@BOTH_WAYS
@pytest.mark.parametrize(
    ("guest", "says"),
    [
        ("unknown_import.wat", "closest known: wasi_snapshot_preview1.fd_write"),
        ("no_start.wat", "choose one with -f"),
        ("shared_memory.wat", "needs threads"),
    ],
)
def test_modules_that_can_not_run(timecraft, guests, guest, says):
    """126, the module named first, no process left."""
    run = timecraft("run", guests / guest)
    assert run.returncode == 126
    assert run.stderr.startswith(f"timecraft: {guest}: ")
    assert says in run.stderr
    assert json.loads(timecraft("ps", "-a", "-o", "json").stdout) == []


@BOTH_WAYS
def test_what_is_no_module(timecraft, tmp_path):
    """Neither wasm nor text."""
    for data in (b"\x7fELF", b"", b"\0asm", b"\0asm\x0d\0\x01\0"):
        path = tmp_path / "x.wasm"
        path.write_bytes(data)
        run = timecraft("run", path)
        assert run.returncode == 126, data
        assert run.stderr.startswith("timecraft: x.wasm: ")


@BOTH_WAYS
def test_module_from_standard_input(timecraft, guests):
    """`-` reads it."""
    run = timecraft("run", "-q", "-", stdin=(guests / "hello.wat").read_bytes())
    assert (run.returncode, run.stdout) == (0, "hello, world\n")


@BOTH_WAYS
def test_limits(timecraft, guests):
    """137 with the reason, which is recorded."""
    run = timecraft("run", "-q", "--name", "s", "--timeout", "200ms", guests / "spin.wat")
    assert run.returncode == 137
    assert "--timeout" in run.stderr
    assert "Limit (137)" in timecraft("ps", "-a").stdout


@BOTH_WAYS
def test_the_limit_on_sockets_is_kept(timecraft, guests):
    """As what the process was given."""
    assert timecraft("run", "-q", "--name", "few", "--max-sockets", "7", guests / "hello.wat").returncode == 0
    limits = json.loads(timecraft("describe", "process", "few", "-o", "json").stdout)
    assert '"sockets": 7' in json.dumps(limits)


@BOTH_WAYS
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_signals_end_the_guest_and_keep_the_log(timecraft, guests, number, code):
    """With a hint how to replay it."""
    process = timecraft.start("run", guests / "spin.wat")
    process_id = wait_for_start(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert f"replay it with: timecraft replay {process_id[:13]}" in err
    (row,) = json.loads(timecraft("ps", "-a", "-o", "json").stdout)
    assert (row["state"], row["exit_code"]) == ("killed", code)


@BOTH_WAYS
def test_detached(timecraft, guests):
    """Runs in the background, listed, stopped, waited for, removed."""
    started = timecraft("run", "-d", "--name", "bg", guests / "sleep_forever.wat")
    assert started.returncode == 0
    assert started.stdout.strip() in timecraft("ps", "--no-trunc").stdout
    assert "it runs" in timecraft("rm", "bg").stderr
    assert "it still runs" in timecraft("replay", "bg").stderr
    assert "it runs" in timecraft("export", "process", "bg", "-o", "x.tar").stderr
    assert timecraft("prune", "--all", "--crashed").returncode == 0
    assert timecraft("stop", "bg").stdout == "bg\n"
    assert timecraft("wait", "bg").stdout == "143\n"
    assert timecraft("kill", "bg").returncode == 125
    assert timecraft("rm", "bg").returncode == 0
    assert timecraft("ps", "-aq").stdout == ""


@BOTH_WAYS
def test_prune_selects(timecraft, guests):
    """By how processes ended, and by what their logs take."""
    for name in ("hello", "exit_code", "div_zero", "spin"):
        timecraft("run", "-q", "--name", name, "--timeout", "100ms", guests / f"{name}.wat")

    def pruned(*args: object) -> list[str]:
        gone = json.loads(timecraft("prune", "-o", "json", *args).stdout)
        return sorted(names[item["id"]] for item in gone if item["kind"] == "process")

    names = {item["id"]: item["name"] for item in json.loads(timecraft("ps", "-a", "-o", "json").stdout)}
    assert pruned("--dry-run") == []
    assert pruned("--dry-run", "--all") == sorted(names.values())
    assert pruned("--dry-run", "--state", "exited") == ["exit_code", "hello"]
    assert pruned("--dry-run", "--exit-code", "nonzero", "--state", "exited") == ["exit_code"]
    assert pruned("--dry-run", "--max-size", "1GiB") == []
    assert pruned("--dry-run", "--max-size", "0", "--exit-code", "0") == ["hello"]
    assert pruned("--dry-run", "--older-than", "1h", "--exit-code", "nonzero") == []
    assert pruned("--exit-code", "nonzero") == ["div_zero", "exit_code", "spin"]
    assert [item["name"] for item in json.loads(timecraft("ps", "-a", "-o", "json").stdout)] == ["hello"]


@BOTH_WAYS
def test_labels_find_processes_and_a_hold_keeps_them(timecraft, guests):
    """Whoever removes, and by force too; a restart keeps labels."""
    timecraft("run", "-q", "--name", "web", "--label", "team=blue", "--label", "beta", guests / "hello.wat")
    timecraft("run", "-q", "--name", "db", "--label", "team=red", "--restart", "on-failure:1", guests / "trap_oob.wat")
    while timecraft("ps", "-a", "-q", "--filter", "label=team=r*").stdout.count("\n") < 2:
        continue
    named = json.loads(timecraft("ps", "-a", "--filter", "label=beta", "-o", "json").stdout)
    assert [(each["name"], each["labels"]) for each in named] == [("web", {"beta": "", "team": "blue"})]
    assert timecraft("label", "web", "hold=case 42", "beta-").stdout == "hold=case 42\nteam=blue\n"
    assert timecraft("label", "web").stdout == "hold=case 42\nteam=blue\n"
    assert json.loads(timecraft("describe", "process", "web", "-o", "json").stdout)["labels"]["hold"] == "case 42"
    for flags in ((), ("-f",)):
        refused = timecraft("rm", *flags, "web")
        assert (refused.returncode, "is held: case 42; `timecraft label " in refused.stderr) == (125, True)
    timecraft("run", "-d", "--name", "runs", "--label", "hold", guests / "sleep_forever.wat")
    assert "is held; " in timecraft("rm", "-f", "runs").stderr
    assert timecraft("ps", "--filter", "label=hold", "-q").stdout.count("\n") == 1, "it wasn't killed"
    timecraft("label", "runs", "hold-")
    assert timecraft("rm", "-f", "runs").returncode == 0
    timecraft("prune", "--all")
    assert json.loads(timecraft("ps", "-a", "-o", "json").stdout)[0]["name"] == "web"
    assert timecraft("replay", "web").stdout == "hello, world\n"
    timecraft("label", "web", "hold-")
    assert timecraft("rm", "web").returncode == 0
    assert "isn't a key" in timecraft("run", "--label", "x-=1", guests / "hello.wat").stderr


@BOTH_WAYS
def test_detached_kill_is_recorded(timecraft, guests):
    """SIGKILL reaches the guest, not its host: the log has an end."""
    timecraft("run", "-d", "--name", "bg", guests / "spin.wat")
    assert timecraft("kill", "bg").returncode == 0
    assert timecraft("wait", "bg").stdout == "137\n"
    assert "killed" in timecraft("describe", "log", "bg").stdout
    timecraft("run", "-d", "--name", "bg", guests / "spin.wat")
    assert timecraft("rm", "-f", "bg").returncode == 0


@BOTH_WAYS
def test_detached_errors_are_told(timecraft, guests):
    """As if it hadn't been detached."""
    run = timecraft("run", "-d", guests / "unknown_import.wat")
    assert run.returncode == 126
    assert "closest known" in run.stderr


def test_a_killed_host(timecraft, guests):
    """Nothing that was recorded is lost; the process is seen as crashed."""
    process = timecraft.start("run", "--name", "c", guests / "spin_output.wat")
    wait_for_start(process)
    assert process.stdout is not None
    process.stdout.read(600)
    process.kill()
    process.communicate(timeout=20)
    assert "Crashed" in timecraft("ps", "-a").stdout
    # The last call may have had its effect without its record.
    assert len(timecraft("logs", "c").stdout) >= 600 - len("again\n")
    replay = timecraft("replay", "c")
    assert replay.returncode == 125
    assert "go on with `timecraft resume" in replay.stderr
    assert timecraft("replay", "--verify", "c").returncode == 0


def test_two_hosts_can_not_have_one_process(timecraft, guests):
    """The second is told who has it."""
    process = timecraft.start("run", "--name", "one", guests / "spin.wat")
    wait_for_start(process)
    resumed = timecraft("resume", "one")
    assert resumed.returncode == 125
    assert f"in use by process {process.pid} of the host" in resumed.stderr
    process.terminate()
    process.communicate(timeout=20)


@BOTH_WAYS
def test_restarts(timecraft, guests):
    """Each is a process of its own that knows what it replaced."""
    env = {"TIMECRAFT_RESTART_BACKOFF_S_MIN": "1ms"}
    run = timecraft("run", "--restart", "on-failure:2", "--name", "r", guests / "exit_code.wat", **env)
    assert run.returncode == 42
    rows = json.loads(timecraft("ps", "-a", "-o", "json").stdout)
    assert [row["restart_of"] for row in rows] == [rows[1]["id"], rows[2]["id"], None]
    assert run.stderr.split() == [row["id"] for row in reversed(rows)]


@BOTH_WAYS
def test_trace(timecraft, guests):
    """The same calls live, in replay and from the record."""
    live = timecraft("run", "-q", "-T", "--name", "t", guests / "hello.wat").stderr
    assert 'fd_write(1, [{"hello, world\\n", 13}], [13]) = 0' in live
    assert timecraft("replay", "--trace", "t").stderr == live
    assert "fd_write(1" in timecraft("trace", "syscall", "t").stdout
    lines = timecraft("trace", "syscall", "t", "-o", "json", "--call", "fd_write").stdout.splitlines()
    assert [json.loads(line)["call"] for line in lines] == ["fd_write"]
    lines = timecraft("export", "log", "t").stdout.splitlines()
    assert "fd_write" in [json.loads(line)["call"] for line in lines]


@BOTH_WAYS
def test_an_exported_process_replays_elsewhere(timecraft, guests, tmp_path):
    """One file, another state directory."""
    timecraft("run", "-q", "--name", "x", guests / "hello.wat")
    assert timecraft("export", "process", "x", "-o", tmp_path / "x.tar.gz").returncode == 0
    other = {"TIMECRAFT_HOME": str(tmp_path / "other"), "TIMECRAFT_NODE": "embedded"}
    assert timecraft("import", tmp_path / "x.tar.gz", **other).returncode == 0
    assert timecraft("replay", "x", **other).stdout == "hello, world\n"


@BOTH_WAYS
def test_mounts(timecraft, tmp_path, guests):
    """What is mounted read-only stays as it is, whatever a guest tries; without mounts there is nothing."""
    (tmp_path / "data").mkdir()
    assert timecraft("run", "-q", "--dir", f"{tmp_path}/data:/data:ro", guests / "hello.wat").returncode == 0
    assert os.listdir(tmp_path / "data") == []


@BOTH_WAYS
def test_output_on_a_terminal_is_filtered(timecraft, guests):
    """Replay and logs don't let a guest drive the terminal, unless they are told to."""
    timecraft("run", "-q", "--name", "esc", guests / "terminal_escapes.wat")
    assert "\x1b" in timecraft("replay", "esc").stdout
    for verb in ("replay", "logs"):
        assert b"\x1b" not in on_terminal(timecraft, verb, "esc")
        assert b"\x1b" in on_terminal(timecraft, verb, "--raw", "esc")


def on_terminal(timecraft, *args: object) -> bytes:
    """What a command writes to a terminal."""
    main, secondary = pty.openpty()
    process = subprocess.Popen(
        timecraft.argv(*args), stdin=secondary, stdout=secondary, stderr=secondary, env=timecraft.env
    )
    os.close(secondary)
    output = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:  # the other side is closed
            chunk = b""
        if not chunk:
            break
        output += chunk
    process.wait(timeout=20)
    os.close(main)
    return output


@BOTH_WAYS
def test_a_reader_that_leaves_is_no_error(timecraft, guests):
    """Like `| head`."""
    timecraft("run", "-q", "--name", "x", guests / "hello.wat")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        timecraft.argv("trace", "syscall", "x"), stdout=write, stderr=subprocess.PIPE, env=timecraft.env, check=False
    )
    os.close(write)
    assert done.stderr == b""


@BOTH_WAYS
def test_follow(timecraft, guests):
    """`logs -f` ends with the process."""
    timecraft("run", "-d", "--name", "f", guests / "spin_output.wat")
    with timecraft.start("logs", "-f", "f") as follow:
        assert follow.stdout.read(12) == "again\nagain\n"
        timecraft("kill", "f")
        while follow.stdout.read(1 << 20):
            pass
        assert follow.wait(timeout=60) == 0


@BOTH_WAYS
def test_doctor(timecraft):
    """Records and replays a guest of its own."""
    done = timecraft("doctor", "-o", "json")
    findings = {finding["check"]: finding["level"] for finding in json.loads(done.stdout)}
    assert findings["self test"] == findings["python"] == "ok"
    assert done.returncode == 0


def test_state_of_a_newer_version(timecraft, guests):
    """Nothing is touched."""
    timecraft("run", "-q", guests / "hello.wat")
    Path(timecraft.home, "VERSION").write_text("9\n")
    done = timecraft("ps")
    assert done.returncode == 125
    assert "has version 9, this Timecraft knows 1; use the newer Timecraft" in done.stderr


@BOTH_WAYS
def test_many_at_once(timecraft, guests):
    """Several hosts share a state directory."""
    processes = [timecraft.start("run", "-q", guests / "hello.wat") for _ in range(6)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert ended == [("hello, world\n", "", 0)] * 6
    assert len(json.loads(timecraft("ps", "-a", "-o", "json").stdout)) == 6


def test_starts_without_what_it_does_not_need(timecraft):
    """The path to a run stays short: none of these are imported."""
    code = (
        "import sys, timecraftd.cli.run, timecraftd.cli.supervise, timecraftd.embedded, timecraftd.cli.contexts;"
        "print([name for name in ('asyncio', 'grpc', 'importlib.metadata', 'tarfile', 'shutil', 'tempfile', 'yaml',"
        " 'pathlib', 'tomllib', 'subprocess', 'logging', 'timecraftd._native') if name in sys.modules])"
    )
    done = subprocess.run([timecraft.argv()[0], "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_timecraftd_checks_its_configuration(timecraft, tmp_path):
    """It names the key and what would do; with --check nothing is served, and no state directory is made."""
    config = tmp_path / "node.toml"
    argv = [timecraft.argv()[0], "-m", "timecraftd", "--check", "--config", str(config)]

    def check(text: str) -> subprocess.CompletedProcess[str]:
        config.write_text(text)
        return subprocess.run(argv, capture_output=True, text=True, env=timecraft.env, check=False)

    good = check("[node]\nprocesses_max = 10\n")
    assert (good.returncode, good.stdout) == (0, f"{config}: all good\n")
    assert not timecraft.home.exists()
    for text, reason in (
        ("[node]\nplacement = 'anywhere'\n", "node.placement: 'anywhere' isn't one of shared, isolated"),
        ("[node]\nnothing = 1\n", "node.nothing: no such key"),
        ("[node]\nsocket_mode = 'rw'\n", "node.socket_mode 'rw': isn't a mode"),
        ("[node]\nlisten = '0.0.0.0:1'\n", "node.tls_cert_file: is missing"),
        ("[node]\nsocket = 'none'\n", "node: listens nowhere"),
        ("[node]\nrestart = 'maybe'\n", "node.restart 'maybe': isn't a policy"),
    ):
        bad = check(text)
        assert bad.returncode == 125
        assert reason in bad.stderr


@BOTH_WAYS
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_an_export_never_takes_the_place_of_a_pipe_or_device(timecraft, guests, tmp_path, force):
    """What is no regular file is written to, with --force too; the same goes for the end of a link."""
    timecraft("run", "--name", "p", guests / "hello.wat")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert timecraft("export", "log", "p", "-o", pipe, *force).returncode == 0
    assert reader.communicate(timeout=30)[0].startswith(b'{"seq":0')
    assert pipe.is_fifo()


def test_an_export_through_a_link_keeps_the_link(timecraft, guests, tmp_path):
    """The file that it names is replaced."""
    timecraft("run", "--name", "p", guests / "hello.wat")
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    assert timecraft("export", "log", "p", "-o", tmp_path / "link", "--force").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text().startswith('{"seq":0')
    refused = timecraft("export", "log", "p", "-o", tmp_path)
    assert (refused.returncode, "is a directory; give" in refused.stderr) == (125, True)


@pytest.mark.parametrize("args", [("version",), ("--help",), ("run", "--help"), ("config",), ("completion", "bash")])
def test_standard_output_without_space(timecraft, args):
    """Told in one line; the exit code says so."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(timecraft.argv(*args), stdout=full, stderr=subprocess.PIPE, env=timecraft.env, text=True)
    assert done.returncode == 125
    assert done.stderr == "timecraft: standard output: No space left on device; write to another place [TC0001]\n"


@BOTH_WAYS
def test_standard_error_without_space(timecraft, guests):
    """The guest runs on: that its id can't be shown is no reason to end it."""
    argv = timecraft.argv("run", guests / "hello.wat")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=full, env=timecraft.env, text=True)
    assert (done.returncode, done.stdout) == (0, "hello, world\n")
    assert json.loads(timecraft("ps", "-a", "-o", "json").stdout)[0]["state"] == "exited"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("replay", "p", "--until", "9" * 30), ""),
        (("logs", "p", "-n", str((1 << 64) - 1)), ""),
        (("replay", "p", "--until", "2020-01-01T00:00:00Z"), "is before the process started; it started at 20"),
        (("trace", "syscall", "p", "--call", "nosuch"), 'no host call is named "nosuch"; docs/wasi-coverage.md'),
        (("run", "--restart", "on-failure:\u00b2", "x.wat"), "isn't a policy; use no"),
        (("run", "--restart", "on-failure:", "x.wat"), "isn't a policy; use no"),
        (("run", "--timeout", "0", "x.wat"), "'0' isn't above zero; see"),
        (("run", "--log-max", "0", "x.wat"), "'0' isn't above zero; see"),
        (("run", ""), "'': there is no such file; give"),
        (("",), "'': there is no such verb; see"),
        (("--nodes", "x"), "timecraft: --nodes: flags come after the verb; see"),
        (("--node",), "timecraft: --node: names nothing; see"),
        (("--node", "x", "ps"), "node 'x': isn't an address; give HOST:PORT"),
        (("ps", "--node", "x:70000"), "node 'x:70000': isn't an address; give HOST:PORT"),
        (("--node", "./x", "--context", "y", "ps"), "are two nodes; leave out one"),
        (("--context", "y", "ps"), "context 'y': there is no such context; `timecraft context list`"),
        (("profile", "p"), "come in a later version; README.md"),
    ],
)
def test_odd_arguments(timecraft, guests, args, says):
    """A line with what to do, never an internal error."""
    timecraft("run", "--name", "p", guests / "hello.wat")
    done = timecraft(*args)
    assert "internal error" not in done.stderr
    assert says in done.stderr
    assert bool(says) == bool(done.returncode)


def test_a_current_directory_that_is_gone(timecraft, guests, tmp_path):
    """An error of the arguments that need it."""
    command = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    argv = ["sh", "-c", command, "sh", *timecraft.argv("run", "--dir", ".", guests / "hello.wat")]
    env = timecraft.env | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, env=env, text=True)
    assert (done.returncode, "the current directory is gone; give" in done.stderr) == (125, True), done.stderr


@pytest.mark.parametrize(
    ("words", "replies"),
    [
        (("re",), ["replay", "resume"]),
        (("run", "--me"), ["--memory"]),
        (("run", "hel"), ["hello.wat"]),
        (("run", "-S", "wasm"), ["wasmedgev1", "wasmedgev2"]),
        (("get", "mod"), ["module"]),
        (("ps", "-o", ""), ["text", "json", "yaml"]),
        (("import", "proc"), ["process"]),
    ],
)
def test_bash_completes(timecraft, guests, words, replies):
    """The script is sourced and its function called, as bash does it."""
    script = """
        source /dev/stdin
        function=$(complete -p timecraft | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(timecraft "$@"); COMP_CWORD=$#; COMPREPLY=()
        "$function" timecraft "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    completion = timecraft("completion", "bash").stdout
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], input=completion, cwd=guests, capture_output=True, text=True
    )
    assert done.stdout.split() == replies, done.stderr


@BOTH_WAYS
def test_bash_completes_ids(timecraft, guests, tmp_path):
    """Of the processes that there are."""
    timecraft("run", guests / "hello.wat")
    (tmp_path / "timecraft").write_text(f'#!/bin/sh\nexec {" ".join(timecraft.argv())} "$@"\n')
    (tmp_path / "timecraft").chmod(0o755)
    completion = timecraft("completion", "bash").stdout
    env = timecraft.env | {"PATH": f"{tmp_path}:{timecraft.env['PATH']}"}
    argv = ["bash", "-c", "source /dev/stdin; _timecraft_ids 0"]
    done = subprocess.run(argv, input=completion, env=env, capture_output=True, text=True)
    assert done.stdout == timecraft("ps", "-a", "-q").stdout


def test_the_daemons_command_meets_users_alike(timecraft):
    """No traceback, whatever its output is, and whatever it is given."""
    daemon = [timecraft.argv()[0], "-m", "timecraftd"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*daemon, "config"], stdout=full, stderr=subprocess.PIPE, env=timecraft.env, text=True)
    assert (done.returncode, "No space left" in done.stderr) == (125, True), done.stderr
    done = subprocess.run([*daemon, "--config", "x"], capture_output=True, env=timecraft.env, text=True)
    assert (done.returncode, "No such file" in done.stderr) == (125, True)
    assert subprocess.run([*daemon, "version", "--help"], capture_output=True, env=timecraft.env).returncode == 0
