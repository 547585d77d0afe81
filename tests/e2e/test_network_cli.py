"""Guests on the network by the command line: granted, refused, published, told of, replayed and resumed."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.cli import Cli, guest, kill9, wait_for

WAIT_S = 60


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server on the host's loopback that answers each line with the same line."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                stream.write(b"echo " + stream.readline())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(WAIT_S)


def published_port(host) -> int:
    """The port that a running `timecraft run -p` chose."""
    line = host.stderr.readline().decode()
    found = re.fullmatch(r"published (?:\S+:)?(\d+):8080\n", line)
    assert found, line
    return int(found[1])


def ask(port: int, text: str) -> str:
    """One exchange with a guest's published port."""
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as connection, connection.makefile("rw") as stream:
        stream.write(f"{text}\n")
        stream.flush()
        return stream.readline()


def test_granted_and_refused(cli: Cli, echo: int):
    """A guest reaches what a rule allows and nothing else, is reached at its published port, and describe tells."""
    command = ["--net", f"host:{echo}", "-p", "127.0.0.1:0:8080", guest("outside"), f"host.internal:{echo}", "2"]
    host = cli.start("run", *command)
    process = host.stderr.readline().decode().strip()
    port = published_port(host)
    wait_for(lambda: host.stdout.readline() == b"listening\n", "the guest listens")
    assert [ask(port, "one"), ask(port, "two")] == ["you said one\n", "you said two\n"]
    out, _ = host.communicate(timeout=WAIT_S)
    assert (host.returncode, out) == (0, b"served 2\n")
    network = json.loads(cli("describe", "process", process, "-o", "json").out)["network"]
    assert network["published"] == [f"127.0.0.1:{port}:8080"]
    assert [(rule["rule"], rule["count"] > 0) for rule in network["rules"]] == [(f"allow host:{echo}", True)]
    assert any("host" in entry["subject"] for entry in network["granted"])
    (refused,) = [entry for entry in network["refused"] if entry["what"] == "dial"]
    assert "192.0.2.1:81" in refused["subject"]
    assert "192.0.2.1:81" in cli("describe", "process", process).out
    replayed = cli("replay", process)
    assert replayed.out.endswith("listening\nserved 2\n")
    assert "the same to the end" in cli("replay", "--verify", process).out


def test_paths_lead_outside(cli: Cli, echo: int):
    """With `-S path` names of the network are paths, under the same rules, and a published port leads to a file."""
    target, program = f"/dev/tcp/host.internal/{echo}", guest("c/paths_outside")
    _, denied = cli.run("-S", "path", program, target, code=1)
    assert "No such file or directory" in denied.stderr, denied.shown
    command = ["-S", "path", "--net", f"host:{echo}", "-p", "127.0.0.1:0:8080", program, target]
    host = cli.start("run", *command)
    process = host.stderr.readline().decode().strip()
    port = published_port(host)
    said = host.stdout.readline()
    wait_for(lambda: host.stdout.readline() == b"listening\n", "the guest listens")
    assert ask(port, "one") == "you said one\n"
    out, _ = host.communicate(timeout=WAIT_S)
    assert (host.returncode, said, out) == (0, b"echo hello\n", b"served\n")
    assert cli("replay", process).out == "echo hello\nlistening\nserved\n"


def test_nothing_is_reached_by_default(cli: Cli, echo: int):
    """Without a rule neither names nor addresses lead anywhere."""
    for target in (f"host.internal:{echo}", f"127.0.0.1:{echo}", f"10.86.0.1:{echo}"):
        _, done = cli.run(guest("outside"), target, "0", code=1)
        assert "error: " in done.out, done.shown


def test_guests_find_each_other_by_name(cli: Cli, echo: int):
    """A guest that has joined is found by its name, by those only whom a rule allows to."""
    command = ["--name", "db", "--net", f"host:{echo}", "--net", "in guest:*", guest("outside")]
    server = cli.start("run", *command, f"host.internal:{echo}", "1")
    wait_for(lambda: server.stdout.readline() == b"listening\n", "the guest listens")
    _, denied = cli.run("--net", "guest:other", guest("outside"), "db:8080", "0", code=1)
    assert "error: " in denied.out
    process, done = cli.run("--net", "guest:db", guest("outside"), "db:8080", "0")
    assert "you said hello\n" in done.out, done.shown
    server.communicate(timeout=WAIT_S)
    assert server.returncode == 0
    assert cli.replay(process).out == done.out


def test_resumed_on_the_network(cli: Cli, echo: int):
    """A served guest whose host died listens again at a port, and its old connections are dead."""
    command = ["--net", f"host:{echo}", "-p", "127.0.0.1:0:8080", guest("outside"), f"host.internal:{echo}", "2"]
    host = cli.start("run", *command)
    process = host.stderr.readline().decode().strip()
    port = published_port(host)
    wait_for(lambda: host.stdout.readline() == b"listening\n", "the guest listens")
    assert ask(port, "one") == "you said one\n"
    kill9(host)
    resumed = cli.start("resume", process)
    assert resumed.stderr.readline().decode().strip() == process
    assert ask(published_port(resumed), "two") == "you said two\n"
    out, _ = resumed.communicate(timeout=WAIT_S)
    assert (resumed.returncode, out) == (0, b"served 2\n")
    assert "the same to the end" in cli("replay", "--verify", process).out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--net", "allow example.com:99999"], "99999"),
        (["--net", "allow 10.0.0.1/8"], "10.0.0.0/8"),
        (["--net", "nowhere.toml"], "nowhere.toml: No such file"),
        (["-p", "80"], "[IP:]HOST:GUEST"),
        (["-p", "192.0.2.1:8080:80"], "isn't this host's"),
        (["-L", "somewhere"], "isn't HOST:PORT"),
        (["-D", "127.0.0.1:1"], "refused"),
        (["--net", "all", "--tls-ca", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_guest_runs(flags: list[str], message: str, cli: Cli):
    """Bad rules, addresses and ports: what, why, what next; and nothing is left of the process."""
    done = cli("run", *flags, guest("hello"), code=125)
    assert message in done.stderr, done.shown
    assert cli("ps", "-aq").out == ""


def test_policy_files_name_line_and_column(cli: Cli, tmp_path):
    """A mistake in a file is found by whoever wrote it."""
    path = tmp_path / "policy.toml"
    path.write_text('rules = [\n  "allow example.com:443",\n  "allow example.com:0",\n]\n')
    done = cli("run", "--net", path, guest("hello"), code=125)
    assert f"{path}:3:" in done.stderr, done.shown


def test_a_port_in_use(cli: Cli, echo: int):
    """Publishing a port that something else has is refused before the guest runs."""
    done = cli("run", "-p", f"127.0.0.1:{echo}:80", guest("hello"), code=125)
    assert "in use" in done.stderr
    assert "; " in done.stderr
    assert cli("ps", "-aq").out == ""


def test_sockets_that_are_open_from_the_start(cli: Cli, echo: int):
    """A guest without socket calls of its own serves at -L and speaks through -D; resumed, the connection is dead."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host = cli.start("run", "-L", f"127.0.0.1:{port}", "-D", f"tcp://127.0.0.1:{echo}", guest("preopened"))
    process = host.stderr.readline().decode().strip()
    wait_for(lambda: is_listening(port), "the guest's listener")
    assert ask(port, "one") == "echo one\n"
    kill9(host)
    resumed = cli.start("resume", process)
    wait_for(lambda: is_listening(port), "the resumed guest's listener")
    assert ask(port, "two").startswith("E")
    with socket.create_connection(("127.0.0.1", port), WAIT_S):
        pass
    resumed.communicate(timeout=WAIT_S)
    assert resumed.returncode == 0
    network = json.loads(cli("describe", "process", process, "-o", "json").out)["network"]
    assert (network["listen"], network["dial"]) == ([f"127.0.0.1:{port}"], [f"tcp://127.0.0.1:{echo}"])
    assert "the same to the end" in cli("replay", "--verify", process).out


def is_listening(port: int) -> bool:
    """Whether somebody listens on the host's loopback, found out without a connection."""
    with open("/proc/net/tcp") as file:
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in file)
