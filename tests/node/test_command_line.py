"""The command line against a node: what it has beyond the embedded one. tests/cli runs the rest both ways."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from tests.faults.test_damage import damage_second_block
from tests.node.conftest import GUESTS, Node, wait_until
from timecraftd.api.client import NodeClient, parse_endpoint
from timecraftd.api.v1 import module_pb2
from timecraftd.errors import ModuleError, UsageError

TOKEN = "a-token-for-tests"
TIMEOUT_S = 60


class Command:
    """`timecraft`, for a user with a configuration directory of their own."""

    def __init__(self, directory: Path, **env: str) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TIMECRAFT_HOME": str(directory / "state"),
        } | env
        self.contexts = directory / ".config" / "timecraft" / "contexts.toml"

    def __call__(self, *args: object, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        argv = [sys.executable, "-m", "timecraftd.cli", *map(str, args)]
        done = subprocess.run(argv, input=stdin, capture_output=True, env=self.env | env, timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: object, **streams: object) -> subprocess.Popen[bytes]:
        """Starts a command with pipes for its streams."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [sys.executable, "-m", "timecraftd.cli", *map(str, args)], env=self.env, **pipes | streams
        )


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """The command, for no node yet."""
    return Command(tmp_path)


@pytest.fixture
def at_node(node: Node, tmp_path: Path) -> Command:
    """The command, for the node of this file."""
    return Command(tmp_path, TIMECRAFT_NODE=node.socket)


def first_line(process: subprocess.Popen[bytes]) -> str:
    """The process id that `run` tells."""
    assert process.stderr is not None
    return process.stderr.readline().decode().strip()


def test_contexts(command: Command, node: Node) -> None:
    """They are made, chosen, listed without their tokens, and removed; only their user may read them."""
    assert command("context", "set", "here", "--node", f"{node.home}/node.sock").returncode == 0
    assert (
        command("context", "set", "far", "--node", "node.example:7443", "--token", "-", stdin=b"secret\n").returncode
        == 0
    )
    assert command.contexts.stat().st_mode & 0o777 == 0o600
    assert "secret" in command.contexts.read_text()
    for form in ("text", "json", "yaml"):
        assert "secret" not in command("context", "list", "-o", form).stdout
    listed = {item["name"]: item for item in json.loads(command("context", "list", "-o", "json").stdout)}
    assert listed["far"] == {"name": "far", "current": False, "node": "node.example:7443", "token": "***"}
    assert listed["embedded"]["current"]
    assert json.loads(command("ps", "-a", "-o", "json").stdout) == []
    assert command("context", "use", "here").returncode == 0
    assert "node test" in command("version").stdout
    assert "node test" not in command("--context", "embedded", "version").stdout
    assert "node test" not in command("version", "--node", "embedded").stdout
    assert "node test" in command("version", TIMECRAFT_CONTEXT="here").stdout
    assert command("context", "rm", "here").returncode == 0
    assert "node test" not in command("version").stdout
    assert command("context", "use", "here").returncode == 127


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("set", "x"), "context x: has no node; give --node ADDRESS"),
        (("set", "x", "--node", "nowhere"), "isn't an address"),
        (("set", "embedded", "--node", "./x"), "isn't a name"),
        (("set", "x", "--node", "x:1", "--cert", "c.pem"), "a certificate and its key go together"),
        (("set", "x", "--node", "x:1", "--token", "a\tb"), "has characters that no token has"),
        (("use",), "names no context"),
        (("rm", "x"), "there is no such context"),
    ],
)
def test_wrong_contexts(command: Command, args: tuple[str, ...], says: str) -> None:
    """A line with what to do, and nothing is changed."""
    done = command("context", *args)
    assert done.returncode in (125, 127)
    assert says in done.stderr
    assert not command.contexts.exists()


def test_a_file_of_contexts_that_others_may_read_is_refused(command: Command) -> None:
    """It may hold tokens."""
    assert command("context", "set", "x", "--node", "./x").returncode == 0
    command.contexts.chmod(0o644)
    assert "others may read it, and it may hold tokens; chmod 600" in command("ps").stderr
    command.contexts.chmod(0o600)
    command.contexts.write_text("[context.x]\n")
    assert "context 'x' has no node; correct it, or remove it" in command("ps").stderr


def test_a_node_that_is_not_there(command: Command, tmp_path: Path) -> None:
    """Says where it was looked for."""
    done = command("--node", tmp_path / "none.sock", "ps")
    assert done.returncode == 125
    assert f"node unix:{tmp_path}/none.sock: can't be reached: No such file or directory; see that" in done.stderr
    assert "[TC0025]" in done.stderr
    assert "Connection refused" in command("ps", "--node", "127.0.0.1:1").stderr
    listed = json.loads(command("--node", "127.0.0.1:1", "node", "list", "-o", "json").stdout)
    assert [item["state"] for item in listed] == ["unreachable"]
    findings = json.loads(command("--node", "127.0.0.1:1", "doctor", "-o", "json").stdout)
    assert findings[-1]["check"] == "node"
    assert findings[-1]["level"] == "fail"


def test_node_verbs(at_node: Command) -> None:
    """What the node is, who we are to it; drained it takes nothing."""
    info = json.loads(at_node("node", "info", "-o", "json").stdout)
    assert (info["name"], info["role"], info["state"]) == ("test", "operator", "ready")
    assert "you are:" in at_node("node", "info").stdout
    assert at_node("node", "drain").returncode == 0
    refused = at_node("run", GUESTS / "hello.wat")
    assert (refused.returncode, "[TC0027]" in refused.stderr) == (125, True), refused.stderr
    assert at_node("node", "drain", "--cancel").returncode == 0
    assert at_node("run", "-q", GUESTS / "hello.wat").stdout == "hello, world\n"


def test_tls_and_tokens(make_node: Callable[..., Node], command: Command, tmp_path: Path) -> None:
    """The node's certificate must be one that we trust, and our token one that it knows; roles bound what we may."""
    from timecraftd.api.access import hash_of

    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "stranger.pem")
    identities = tmp_path / "identities.toml"
    entries = [("ci", TOKEN, "runner"), ("eyes", "another-token", "viewer")]
    identities.write_text(
        "".join(
            f'[[token]]\nname = "{name}"\nsha256 = "{hash_of(token)}"\nrole = "{role}"\n'
            for name, token, role in entries
        )
    )
    identities.chmod(0o600)
    with_port = free_port()
    make_node(
        f'listen = "localhost:{with_port}"\ntls_cert_file = "{tmp_path}/cert.pem"\n'
        f'tls_key_file = "{tmp_path}/key.pem"\nidentities_file = "{identities}"\n'
    ).start()
    set_far = ("context", "set", "far", "--node", f"localhost:{with_port}")
    assert command(*set_far, "--ca", tmp_path / "ca.pem", "--token", TOKEN).returncode == 0
    assert command("context", "use", "far").returncode == 0

    assert command("run", "-q", GUESTS / "hello.wat").stdout == "hello, world\n"
    assert "token:ci, runner" in command("node", "info").stdout
    assert "isn't an absolute path" in command("run", "--dir", "data", GUESTS / "hello.wat").stderr
    viewer = command("run", GUESTS / "hello.wat", TIMECRAFT_TOKEN="another-token")
    assert (viewer.returncode, "[TC0028]" in viewer.stderr) == (125, True)
    assert "takes runner" in viewer.stderr
    unknown = command("ps", TIMECRAFT_TOKEN="nonsense")
    assert "is not known here; give a valid token" in unknown.stderr
    assert "[TC0028]" in unknown.stderr
    assert "can't be reached" in command("ps", TIMECRAFT_CA_FILE=str(tmp_path / "stranger.pem")).stderr
    assert "nothing.pem: No such file" in command("ps", TIMECRAFT_CA_FILE=str(tmp_path / "nothing.pem")).stderr


def free_port() -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def test_a_connection_that_breaks(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """The client ends with 125 and says that the process goes on, which it does."""
    node = make_node().start()
    command = Command(tmp_path, TIMECRAFT_NODE=node.socket)
    process = command.start("run", GUESTS / "spin_output.wat")
    identity = first_line(process)
    assert process.stdout is not None
    process.stdout.read(1000)
    assert node.process is not None
    node.process.kill()
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 125
    assert f"the connection broke; process {identity} goes on; `timecraft logs -f {identity}`" in err.decode()
    node.process.wait()
    node.start()
    assert node.get(identity).state == 2
    assert command("stop", identity).returncode == 0


def test_a_client_that_is_killed_leaves_its_process(node: Node, at_node: Command) -> None:
    """Nobody asked for its end."""
    process = at_node.start("run", GUESTS / "sleep_forever.wat")
    identity = first_line(process)
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    assert node.get(identity).state == 2
    assert at_node("rm", "-f", identity).returncode == 0


def test_a_signal_passes_input_that_nobody_reads(at_node: Command, tmp_path: Path) -> None:
    """What waits to be read doesn't hold up the signal."""
    (tmp_path / "big").write_bytes(bytes(32 << 20))
    with (tmp_path / "big").open("rb") as big:
        process = at_node.start("run", GUESTS / "sleep_forever.wat", stdin=big)
        first_line(process)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130


def test_the_third_signal_ends_the_client(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Even if the node doesn't answer."""
    node = make_node().start()
    process = Command(tmp_path, TIMECRAFT_NODE=node.socket).start("run", GUESTS / "sleep_forever.wat")
    first_line(process)
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    process.communicate(timeout=TIMEOUT_S)
    node.process.send_signal(signal.SIGCONT)
    assert process.returncode == 130


def test_a_reader_that_leaves(at_node: Command) -> None:
    """The guest is told by SIGPIPE, like a program whose output nobody reads."""
    process = at_node.start("run", GUESTS / "spin_output.wat", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(TIMEOUT_S) == 128 + signal.SIGPIPE
    process.stderr.close()


def test_input_is_carried_whole(at_node: Command) -> None:
    """Both ways at once, more than all buffers together."""
    data = os.urandom(6 << 20)
    process = at_node.start("run", "-q", GUESTS / "stdin_cat.wat")
    out, err = process.communicate(data, timeout=TIMEOUT_S)
    assert (process.returncode, out == data, err) == (0, True, b"")


def test_a_queued_process(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Whoever is attached is told, and carried on once there is room."""
    node = make_node("processes_max = 1\n").start()
    command = Command(tmp_path, TIMECRAFT_NODE=node.socket)
    assert command("run", "-d", "--name", "first", GUESTS / "sleep_forever.wat").returncode == 0
    process = command.start("run", GUESTS / "hello.wat")
    first_line(process)
    assert first_line(process) == "queued: the node has no room for it now"
    assert "Queued" in command("ps").stdout
    assert command("stop", "first").returncode == 0
    out, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (0, b"hello, world\n")


def test_restarts_are_followed_and_called_off(at_node: Command) -> None:
    """Output of all of them, and the signal that ends the client ends the restarts."""
    process = at_node.start("run", "--restart", "always", GUESTS / "hello.wat")
    assert process.stdout is not None
    assert process.stdout.read(26) == b"hello, world\n" * 2
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (0, 130)  # a guest may be faster than the signal
    time.sleep(1.0)  # longer than the wait before the next start
    (newest,) = json.loads(at_node("ps", "-n", "1", "-o", "json").stdout)
    assert newest["state"] != "running"
    assert newest["id"] in err.decode() or newest["state"] == "killed"  # the one that was being started is ended too
    time.sleep(0.5)
    assert json.loads(at_node("ps", "-n", "1", "-o", "json").stdout)[0]["id"] == newest["id"]


def test_a_worker_that_dies(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Told with how to go on; resumed by policy it is followed."""
    node = make_node().start()
    command = Command(tmp_path, TIMECRAFT_NODE=node.socket)
    process = command.start("run", GUESTS / "sleep_forever.wat")
    identity = first_line(process)
    os.kill(node.get(identity).pid, signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 125
    assert f"its host died; go on with `timecraft resume {identity}`" in err.decode()
    resumed = command.start("resume", identity)
    assert first_line(resumed) == identity
    resumed.send_signal(signal.SIGTERM)
    resumed.communicate(timeout=TIMEOUT_S)
    assert resumed.returncode == 143

    process = command.start("run", "--restart", "resume", GUESTS / "spin_output.wat")
    identity = first_line(process)
    assert process.stdout is not None
    process.stdout.read(100)
    os.kill(node.get(identity).pid, signal.SIGKILL)
    wait_until(lambda: node.get(identity).epoch == 1)
    process.stdout.read(1 << 20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    assert "its host died; the node resumes it" in err.decode()


def test_an_upload_goes_on_where_it_broke(node: Node) -> None:
    """The node has the beginning; only the rest is sent."""
    data = b"\0asm" + os.urandom(3 << 20)
    digest = hashlib.sha256(data).hexdigest()
    client = NodeClient(parse_endpoint(node.socket))

    def beginning():
        yield module_pb2.UploadRequest(digest=digest, size_bytes=len(data), data=data[: 1 << 20])

    with pytest.raises(UsageError, match="ended after"):
        client.call(client.modules.Upload, beginning())
    assert client.call(client.modules.StatUpload, module_pb2.StatUploadRequest(digest=digest)).offset == 1 << 20
    with pytest.raises(ModuleError, match=r"custom\.wasm: "):  # all of it came, and is no module
        client.upload(data, "custom.wasm")
    client.close()


@pytest.mark.parametrize("text", [False, True])
def test_many_upload_the_same_at_once(node: Node, text: bool) -> None:
    """One brings it, the others find it there; a text, found by no digest of its own, comes again."""
    padding = os.urandom(300_000).hex().encode()
    section = b"\1p" + padding
    size = bytes([len(section) & 0x7F | 0x80, len(section) >> 7 & 0x7F | 0x80, len(section) >> 14])
    data = b"(module (;" + padding + b";))" if text else b"\0asm\1\0\0\0\0" + size + section

    def upload(_: int) -> str:
        client = NodeClient(parse_endpoint(node.socket))
        try:
            return client.upload(data, "padded").digest
        finally:
            client.close()

    with ThreadPoolExecutor(12) as pool:
        digests = set(pool.map(upload, range(24)))
    assert len(digests) == 1
    assert list((node.home / "uploads").iterdir()) == []


def test_what_is_left_of_an_upload_goes_in_a_day(node: Node) -> None:
    """Nobody goes on with it any more; one of today stays."""
    client = NodeClient(parse_endpoint(node.socket))
    for digest in ("4" * 64, "5" * 64, "6" * 64):
        piece = module_pb2.UploadRequest(digest=digest, size_bytes=1000, data=b"\0asm")
        with pytest.raises(UsageError, match="ended after"):
            client.call(client.modules.Upload, iter([piece]))
        if digest[0] == "4":
            os.utime(node.home / "uploads" / digest, (1, 1))
    client.close()
    assert {path.name[0] for path in (node.home / "uploads").iterdir()} == {"5", "6"}


def test_python_programs(at_node: Command, tmp_path: Path) -> None:
    """On the node of this machine they find their files as they do without one."""
    (tmp_path / "app.py").write_text("import sys, helper\nprint(helper.greeting, sys.argv[1], sys.stdin.read())\n")
    (tmp_path / "helper.py").write_text("greeting = 'hello'\n")
    done = at_node("run", "-q", tmp_path / "app.py", "you", stdin=b"there")
    assert (done.returncode, done.stdout) == (0, "hello you there\n")


def test_between_here_and_a_node(at_node: Command, tmp_path: Path) -> None:
    """What was recorded on one side replays on the other."""
    assert at_node("run", "-q", "--name", "away", GUESTS / "clocks.wat").returncode == 0
    at_node("export", "process", "away", "-o", tmp_path / "away.tar.gz")
    assert at_node("--node", "embedded", "import", tmp_path / "away.tar.gz").returncode == 0
    assert "the same to the end" in at_node("--node", "embedded", "replay", "--verify", "away").stdout
    assert at_node("--node", "embedded", "run", "-q", "--name", "home", GUESTS / "hello.wat").returncode == 0
    at_node("--node", "embedded", "export", "process", "home", "-o", tmp_path / "home.tar")
    assert at_node("import", tmp_path / "home.tar").returncode == 0
    assert at_node("replay", "home").stdout == "hello, world\n"
    (tmp_path / "bad.tar").write_bytes(b"nonsense")
    bad = at_node("import", tmp_path / "bad.tar")
    assert (bad.returncode, f"{tmp_path}/bad.tar: " in bad.stderr) == (125, True), bad.stderr


def test_a_damaged_log_is_shown_with_what_is_left(node: Node, at_node: Command, tmp_path: Path) -> None:
    """As without a node."""
    at_node(
        "run", "-q", "--timeout", "300ms", "--record-batch-size", "4096", "--name", "hurt", GUESTS / "spin_output.wat"
    )
    process = json.loads(at_node("ps", "-a", "--filter", "name=hurt", "-o", "json").stdout)[0]["id"]
    first, behind = damage_second_block(node.home / "processes" / process / "log" / "000000.tcl")
    left_out = f"records {first} to {behind - 1} left out"
    for command in (["trace", "syscall", "hurt", "-o", "json"], ["export", "log", "hurt"]):
        assert at_node(*command).returncode == 125
        skipped = at_node(*command, "--skip-damaged")
        assert (skipped.returncode, left_out in skipped.stderr) == (0, True), skipped.stderr
        numbers = [json.loads(line)["seq"] for line in skipped.stdout.splitlines()]
        assert numbers == [*range(first), *range(behind, numbers[-1] + 1)]


def test_logs_tail_and_follow(at_node: Command) -> None:
    """`--tail` is told before what comes."""
    at_node("run", "-d", "--name", "talks", GUESTS / "spin_output.wat")
    time.sleep(0.3)
    follow = at_node.start("logs", "-f", "-n", "2", "talks")
    assert follow.stdout is not None
    assert follow.stdout.read(12) == b"again\nagain\n"
    follow.send_signal(signal.SIGINT)
    follow.communicate(timeout=TIMEOUT_S)
    assert follow.returncode == 130
    assert at_node("rm", "-f", "talks").returncode == 0


ECHO = """
import socket
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.bind(("0.0.0.0", 9999))
print("bound", flush=True)
data = b"hello"
while data:
    data, peer = near.recvfrom(9)
    near.sendto(data, peer)
"""
ASK = """
import socket, sys
echo = socket.getaddrinfo("echo", 9999, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
for said in sys.argv[1:]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.sendto(said.encode(), echo)
        assert near.recvfrom(9) == (said.encode(), echo)
"""


def test_datagrams_pass_between_workers(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Each guest has a worker to itself. It keeps nothing of flows that have ended."""
    node = make_node('placement = "isolated"\n').start()
    command = Command(tmp_path, TIMECRAFT_NODE=node.socket)
    for name, source in (("echo.py", ECHO), ("ask.py", ASK)):
        (tmp_path / name).write_text(source)
    process = command("run", "--detach", "--name", "echo", "--net", "in guest:*", tmp_path / "echo.py").stdout.strip()
    wait_until(lambda: command("logs", process).stdout == "bound\n")
    descriptors = Path(f"/proc/{node.get(process).pid}/fd")
    before = len(list(descriptors.iterdir()))
    for said in (range(100), [""]):
        done = command("run", "-q", "--net", "udp guest:echo", tmp_path / "ask.py", *said)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not descriptors.exists() or len(list(descriptors.iterdir())) < before + 10)
    assert command("wait", process).returncode == 0
    for each in json.loads(command("ps", "-a", "-o", "json").stdout):
        assert "the same to the end" in command("replay", "--verify", each["id"]).stdout
