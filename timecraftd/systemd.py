"""What systemd and a service tell each other: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

from timecraftd.errors import ConfigError

LISTEN_FDS_START = 3
VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Systemd:
    """What it told at the start; all empty if it didn't start us."""

    address: str = ""
    """Where it listens; one that begins with @ is abstract."""
    watchdog_s: float | None = None
    """It wants to hear from us at least so often."""
    sockets: tuple[tuple[str, socket.socket], ...] = ()
    """Those that it opened, with their names."""


class Notifier:
    """Tells systemd where the service is in its life. Does nothing without systemd; never fails, never waits."""

    def __init__(self, address: str, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._monotonic_ns = monotonic_ns
        self._status = ""

    def ready(self) -> None:
        """The service serves."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads its configuration anew; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It has begun to end."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Feeds the watchdog."""
        self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """A line for people; told if it isn't what was told before."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")

    def extend(self, seconds: float) -> None:
        """Starting, reloading or stopping takes up to so long from now on."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            try:
                channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                return  # nobody listens, or not fast enough: there is nobody else to tell


def take_over(environ: MutableMapping[str, str]) -> Systemd:
    """Takes what systemd gave out of an environment, so that no child takes it for its own. Raises ConfigError."""
    given = {name: environ.pop(name, "") for name in VARIABLES}
    own = str(os.getpid())
    watchdog_s = None
    if given["WATCHDOG_USEC"] and given["WATCHDOG_PID"] in ("", own):
        watchdog_s = _number("WATCHDOG_USEC", given["WATCHDOG_USEC"]) / 1e6 or None
    sockets = []
    if given["LISTEN_FDS"] and given["LISTEN_PID"] == own:
        count = _number("LISTEN_FDS", given["LISTEN_FDS"])
        names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
        for number in range(count):
            descriptor = LISTEN_FDS_START + number
            os.set_inheritable(descriptor, False)
            sockets.append((names[number] if number < len(names) else "unknown", socket.socket(fileno=descriptor)))
    return Systemd(given["NOTIFY_SOCKET"], watchdog_s, tuple(sockets))


def control_socket(given: Systemd) -> socket.socket | None:
    """The listening Unix socket among what was given; None if nothing was. Raises ConfigError."""
    if not given.sockets:
        return None
    name, found = given.sockets[0]
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if len(given.sockets) > 1 or found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        raise ConfigError(
            f"socket {name}: isn't the one listening Unix stream socket that a node takes from systemd",
            "see timecraftd.socket; TCP is set by node.listen",
        )
    return found


def is_journal(journal_stream: str, descriptor: int) -> bool:
    """Whether a descriptor is what $JOURNAL_STREAM says the journal reads (systemd.exec(5))."""
    device, _, inode = journal_stream.partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"{name} {text!r}: isn't a number", "systemd sets it; leave it alone")
    return int(text)
