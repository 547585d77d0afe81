"""What a node and systemd tell each other, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.conftest import wait_until
from timecraftd.api.v1 import node_pb2, process_pb2
from timecraftd.config import load_config
from timecraftd.daemon import Daemon
from timecraftd.errors import ConfigError
from timecraftd.monitor import Monitor
from timecraftd.systemd import Notifier, Systemd, control_socket, is_journal, take_over
from timecraftd.telemetry import EventLog

PATIENCE_S = 30.0


class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.told: list[dict[str, str]] = []

    def take(self, patience_s: float = PATIENCE_S) -> dict[str, str]:
        """The next message."""
        ready, _, _ = select.select([self.socket], [], [], patience_s)
        assert ready, f"nothing more came after {self.told}"
        lines = self.socket.recv(4096).decode().splitlines()
        self.told.append(dict(line.split("=", 1) for line in lines))
        return self.told[-1]

    def until(self, key: str) -> dict[str, str]:
        """The next message with a key."""
        while key not in (message := self.take()):
            pass
        return message

    def forget(self) -> None:
        """Drops what has come so far."""
        while select.select([self.socket], [], [], 0)[0]:
            self.socket.recv(4096)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def test_an_abstract_address_is_reached():
    manager = Manager(f"@timecraft-test-{os.getpid()}")
    Notifier(f"@timecraft-test-{os.getpid()}").ready()
    assert manager.take() == {"READY": "1"}
    manager.socket.close()


def test_a_status_is_told_once_and_on_one_line(manager):
    notifier = Notifier(manager.socket.getsockname())
    notifier.status("one\nREADY=1")
    notifier.status("one READY=1")
    notifier.status("two")
    assert [manager.take(), manager.take()] == [{"STATUS": "one READY=1"}, {"STATUS": "two"}]


def test_reloading_carries_the_monotonic_clock_and_patience_its_unit(manager):
    notifier = Notifier(manager.socket.getsockname(), monotonic_ns=lambda: 5_000_000)
    notifier.reloading()
    notifier.extend(1.5)
    assert manager.take() == {"RELOADING": "1", "MONOTONIC_USEC": "5000"}
    assert manager.take() == {"EXTEND_TIMEOUT_USEC": "1500000"}


def test_without_systemd_nothing_happens(tmp_path):
    Notifier("").ready()
    Notifier(str(tmp_path / "nobody")).ready()


def test_what_systemd_gave_is_taken_out_of_the_environment():
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000", "LISTEN_FDS": "1", "LISTEN_PID": "1", "PATH": "p"}
    assert take_over(environ) == Systemd("/run/n", 3.0, ())  # the sockets are for process 1
    assert environ == {"PATH": "p"}
    assert take_over({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    with pytest.raises(ConfigError, match="WATCHDOG_USEC 'soon'"):
        take_over({"WATCHDOG_USEC": "soon"})


def test_only_a_listening_unix_stream_socket_is_taken(tmp_path):
    with socket.socket(socket.AF_UNIX) as plain, socket.socket() as network:
        network.bind(("127.0.0.1", 0))
        network.listen()
        for each in (plain, network):
            with pytest.raises(ConfigError, match=r"socket x: isn't the one listening Unix stream socket"):
                control_socket(Systemd(sockets=(("x", each),)))
        plain.bind(str(tmp_path / "s"))
        plain.listen()
        assert control_socket(Systemd(sockets=(("x", plain),))) is plain
    assert control_socket(Systemd()) is None


def test_the_journal_is_known_by_its_inode(tmp_path):
    with (tmp_path / "file").open("w") as file:
        found = os.fstat(file.fileno())
        assert is_journal(f"{found.st_dev}:{found.st_ino}", file.fileno())
        assert not is_journal(f"{found.st_dev}:{found.st_ino + 1}", file.fileno())
        assert not is_journal("", file.fileno())


def test_a_node_tells_of_its_life(make_node, manager):
    node = make_node(env={"NOTIFY_SOCKET": manager.socket.getsockname()}).start()
    manager.until("READY")
    assert manager.told[-2]["STATUS"] == "0 processes, 0 queued, 1 workers"
    assert any("EXTEND_TIMEOUT_USEC" in message for message in manager.told), "starting may take a while"
    before_us = time.monotonic_ns() // 1000
    node.process.send_signal(signal.SIGHUP)
    assert int(manager.until("RELOADING")["MONOTONIC_USEC"]) >= before_us
    manager.until("READY")
    assert node.told("reloaded")
    node.process.send_signal(signal.SIGTERM)
    manager.until("STOPPING")
    manager.until("EXTEND_TIMEOUT_USEC")
    assert node.process.wait(PATIENCE_S) == 0
    assert "NOTIFY_SOCKET" not in "".join(node.log.read_text())


def test_a_reload_takes_what_it_can_and_says_what_it_can_not(make_node):
    node = make_node().start()
    text = node.config.read_text()
    node.config.write_text(f'{text}log_format = "json"\nqueue_max = 7\n[limits]\nopen_files_max = 77\n')
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: '"event": "reloaded"' in node.log.read_text())
    (line,) = [line for line in node.log.read_text().splitlines() if "reloaded" in line]
    assert json.loads(line)["needs_restart"] == "limits.open_files_max,node.queue_max"


def test_workers_do_not_inherit_what_is_between_the_node_and_systemd(make_node, manager):
    node = make_node(env={"NOTIFY_SOCKET": manager.socket.getsockname(), "WATCHDOG_USEC": "60000000"}).start()
    (worker,) = node.worker_pids()
    environ = Path(f"/proc/{worker}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environ
    assert b"WATCHDOG" not in environ


def test_the_watchdog_is_fed_only_while_workers_answer(make_node, manager, guests):
    node = make_node(env={"NOTIFY_SOCKET": manager.socket.getsockname(), "WATCHDOG_USEC": "4000000"}).start()
    manager.until("WATCHDOG")
    begun = time.monotonic()
    manager.until("WATCHDOG")
    assert time.monotonic() - begun < 4
    process = node.run(node.upload(guests / "sleep_forever.wat"))
    (worker,) = node.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: node.told("worker doesn't answer"), 20)
    manager.forget()
    manager.until("WATCHDOG")  # that worker was ended, and the others answer
    assert node.wait(process.id).state
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text()


def test_a_node_serves_on_the_socket_that_systemd_opened(make_node, tmp_path):
    node = make_node()
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def give() -> None:
            os.dup2(listener.fileno(), 3)

        node.env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "timecraftd.socket"}
        node.start("sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", preexec_fn=give, close_fds=False)
    node.connect(f"unix:{path}")
    assert node.node.WhoAmI(node_pb2.WhoAmIRequest()).identity == f"uid:{os.getuid()}"
    assert not (node.home / "node.sock").exists()
    assert node.stop() == 0
    assert path.exists(), "the socket is systemd's to remove"


def test_lines_for_the_journal_begin_with_their_priority(make_node):
    node = make_node()
    node.log.touch()
    found = node.log.stat()
    node.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    node.told = lambda event: re.findall(rf"(?m)^<\d>{event}.*$", node.log.read_text())
    node.start()
    node.config.write_text("nonsense")
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: node.told("reload failed"))
    assert node.told("ready")[0].startswith("<6>")
    assert node.told("reload failed")[0].startswith("<3>")


def test_a_worker_that_hangs_does_not_keep_a_new_daemon_from_starting(make_node, guests):
    node = make_node('on_stop = "leave"\n').start()
    process = node.run(
        node.upload(guests / "sleep_forever.wat"),
        restart=process_pb2.RestartPolicy(mode=process_pb2.RestartPolicy.MODE_RESUME),
    )
    (worker,) = node.worker_pids()
    assert node.stop() == 0
    os.kill(worker, signal.SIGSTOP)
    node.start()
    assert f"pid={worker}" in node.told("worker doesn't answer")[0]
    wait_until(lambda: node.get(process.id).state == process_pb2.PROCESS_STATE_RUNNING)
    assert worker not in node.worker_pids()


def test_a_node_that_nobody_watches_over_fails_in_order(tmp_path, monkeypatch):
    """systemd starts again what fails, not what ends well."""

    async def broken(_: Monitor) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Monitor, "run", broken)
    told = io.StringIO()
    config = load_config({"TIMECRAFT_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})

    async def run() -> None:
        await Daemon(config, EventLog(stream=told), reload=lambda: config).run()

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(run())
    assert told.getvalue().splitlines()[-1] == "stopped"
