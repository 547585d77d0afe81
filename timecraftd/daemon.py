"""The control process of a node: configuration, services, ordered start and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from timecraftd.api.access import NodeAccess, role_of
from timecraftd.api.door import Door
from timecraftd.api.module import ModuleService
from timecraftd.api.node import NodeService
from timecraftd.api.process import ProcessService
from timecraftd.api.record import RecordService
from timecraftd.api.server import Certificates, Server, Services
from timecraftd.api.tree import TreeService
from timecraftd.api.view import ViewService
from timecraftd.config import SECTIONS, Config, NodeConfig, to_table
from timecraftd.embedded import Runtime
from timecraftd.errors import ConfigError, StateBusyError
from timecraftd.monitor import Monitor
from timecraftd.recorder.remote import parse_url
from timecraftd.recorder.ring import sweep_rings
from timecraftd.registry.home import state_errors
from timecraftd.retention import Retention
from timecraftd.supervisor.channel import Directory
from timecraftd.supervisor.journal import Journal
from timecraftd.supervisor.restarts import parse_restart
from timecraftd.supervisor.supervisor import Supervisor
from timecraftd.systemd import Notifier, Systemd, control_socket, is_journal, take_over
from timecraftd.telemetry import EventLog, MetricsServer
from timecraftd.uploads import Uploads

THREADS_MAX = 32
"""What blocks is done in so many threads."""
MEMORY_PART = 0.8
CALLS_GRACE_S = 2.0
RELOADED = {"node.log_format"}
"""Keys whose new values SIGHUP brings; of files that are named, it brings the new contents."""
NO_SYSTEMD = Systemd()
_SOCKET_NAME = "node.sock"


class Daemon:
    """One node. `run` is its whole life."""

    def __init__(
        self, config: Config, log: EventLog, *, reload: Callable[[], Config], systemd: Systemd = NO_SYSTEMD
    ) -> None:
        """`reload` reads the configuration again."""
        self._config = config
        self._log = log
        self._reload = reload
        self._stop = asyncio.Event()
        self._runtime = Runtime(config)
        self._loop = asyncio.get_running_loop()
        self._access: NodeAccess | None = None
        self._server: Server | None = None
        self._systemd = systemd
        self._notifier = Notifier(systemd.address)

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises ConfigError, StateError; nothing is left then."""
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS_MAX, "timecraft"))
        async with contextlib.AsyncExitStack() as stack:
            home = self._runtime.registry.home.path
            stack.callback(self._runtime.close)
            stack.enter_context(node_lock(home))
            journal = Journal(os.path.join(home, "node.db"))
            stack.callback(journal.close)
            supervisor = Supervisor(
                self._runtime, journal, self._config, memory_bytes_max=memory_bytes_max(self._config), log=self._log
            )
            uploads = self._uploads(supervisor, stack)
            retention = Retention(supervisor, self._runtime, self._config, log=self._log)
            monitor = Monitor(
                supervisor, self._runtime, self._config,
                notifier=self._notifier, watchdog_s=self._systemd.watchdog_s, log=self._log, uploads=uploads,
                retention=retention,
            )  # fmt: skip
            for path, size in await asyncio.to_thread(lambda: list(sweep_rings())):
                self._log("removed a ring whose log is gone", path=path, bytes=size)
            server, door = self._edge(supervisor, monitor, journal, home, stack)
            given = control_socket(self._systemd)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop.set)
            self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            self._serve_metrics(monitor, stack)
            async with monitor.patience():
                await supervisor.start()
            if uploads is not None:
                uploads.start()
            await server.start()
            if door is not None:
                door.open(given)
            watching = self._loop.create_task(monitor.run())
            watching.add_done_callback(lambda _: self._stop.set())  # a node that nobody watches over fails
            retention.start()
            self._log("ready", node=self._config.node_name, home=home, processes=supervisor.running)
            monitor.tell_status()
            self._notifier.ready()
            await self._stop.wait()
            self._notifier.stopping()
            async with monitor.patience():
                await retention.close()
                await self._shut_down(supervisor, server, door)
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    def _uploads(self, supervisor: Supervisor, stack: contextlib.AsyncExitStack) -> Uploads | None:
        if not self._config.remote.url:
            return None

        def hold(full: bool) -> None:
            asyncio.run_coroutine_threadsafe(supervisor.workers.hold(held=full), self._loop)

        uploads = Uploads(self._runtime, node=self._config.node_name, log=self._log, on_full=hold)
        stack.callback(uploads.close)
        return uploads

    def _serve_metrics(self, monitor: Monitor, stack: contextlib.AsyncExitStack) -> None:
        address = self._config.node.metrics_listen
        if not address:
            return
        host, _, port = address.rpartition(":")
        try:
            server = MetricsServer(host.strip("[]"), int(port), monitor.metrics.registry)
        except OSError as error:
            raise ConfigError(
                f"node.metrics_listen {address}: {error.strerror or error}", "choose an address and port that are free"
            ) from None
        stack.callback(server.close)
        self._log("metrics", address=f"{host}:{server.port}")

    def _edge(
        self, supervisor: Supervisor, monitor: Monitor, journal: Journal, home: str, stack: contextlib.AsyncExitStack
    ) -> tuple[Server, Door | None]:
        """The control plane, listening but not serving yet."""
        node = self._config.node
        run_dir = Directory(os.path.join(home, "run"))
        stack.callback(run_dir.close)
        inner = run_dir.address("grpc.sock")
        path = node.socket or os.path.join(home, _SOCKET_NAME)
        door = None
        if path != "none" or self._systemd.sockets:
            door = Door(
                path, inner, mode=socket_mode(node.socket_mode), group=group_id(node.socket_group), log=self._log
            )
        self._access = NodeAccess(
            node.identities_file or os.path.join(home, "identities.toml"),
            required=bool(node.identities_file),
            socket_role=role_of(node.socket_role),
            door_peer=(lambda _: None) if door is None else door.peer,
            own_uid=os.getuid(),
            now_s=lambda: self._runtime.now_ns() / 1e9,
        )
        server = Server(
            Services(
                ProcessService(supervisor, self._runtime, journal, self._config),
                ModuleService(self._runtime, uploads_bytes_max=node.uploads_bytes_max),
                NodeService(supervisor, self._runtime, self._config, name=self._config.node_name),
                RecordService(supervisor, self._runtime),
                ViewService(supervisor, self._runtime),
                TreeService(self._runtime, uploads_bytes_max=node.uploads_bytes_max),
            ),
            self._access,
            monitor.metrics,
            self._log,
            message_bytes_max=node.message_bytes_max,
            calls_max=node.calls_max,
        )
        self._server = server
        run_dir.remove("grpc.sock")
        server.listen_inside(inner)
        if node.listen:
            port = server.listen_tls(node.listen, read_certificates(node))
            self._log("listening", address=f"{node.listen.rpartition(':')[0]}:{port}")
        return server, door

    async def _shut_down(self, supervisor: Supervisor, server: Server, door: Door | None) -> None:
        policy, patience_s = self._config.node.on_stop, self._config.node.stop_s_max
        self._log("stopping", on_stop=policy, processes=supervisor.running)
        supervisor.draining = True
        await server.refuse()
        if policy in ("finish", "stop"):
            try:
                async with asyncio.timeout(patience_s / 2):
                    if policy == "stop":
                        await supervisor.signal_all(signal.SIGTERM)
                    await supervisor.drain()
            except TimeoutError:
                self._log("processes didn't end in time", level="warning", processes=supervisor.running)
                await supervisor.signal_all(signal.SIGKILL if policy == "stop" else signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s / 4):
                        await supervisor.drain()
        if door is not None:
            await door.close()
        await server.stop(CALLS_GRACE_S)
        await supervisor.close(abandon=policy != "leave")
        self._log("stopped")

    def _on_hangup(self) -> None:
        if self._stop.is_set():
            return
        self._notifier.reloading()
        try:
            config = self._reload()
            certificates = read_certificates(self._config.node) if self._config.node.listen else None
            assert self._access is not None, "it serves"
            self._access.reload()
        except ConfigError as error:
            self._log("reload failed, all stays as it was", level="error", error=str(error))
        else:
            if certificates is not None and self._server is not None:
                self._server.renew(certificates)
            self._log.form = config.node.log_format
            fixed = changed_keys(self._config, config) - RELOADED
            self._log("reloaded", needs_restart=",".join(sorted(fixed)))
        self._notifier.ready()


@contextlib.contextmanager
def node_lock(home: str) -> Any:
    """Held by the one control process of a state directory. Raises StateBusyError."""
    path = os.path.join(home, "node.lock")
    with state_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise StateBusyError(
                f"state directory {home}: a node daemon (pid {holder}) has it", "stop that one, or set TIMECRAFT_HOME"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def check(config: Config) -> None:
    """Whether a node could start with a configuration. Raises ConfigError."""
    node = config.node
    parse_restart(node.restart, "node.restart")
    if config.remote.url:
        parse_url(config.remote.url)
    socket_mode(node.socket_mode)
    group_id(node.socket_group)
    if node.socket == "none" and not node.listen:
        raise ConfigError("node: listens nowhere", "set node.listen, or leave node.socket")
    if node.listen:
        _endpoint(node.listen, "listen")
        read_certificates(node)
    if node.metrics_listen:
        _endpoint(node.metrics_listen, "metrics_listen")


def read_certificates(node: NodeConfig) -> Certificates:
    """What the TLS listener shows and asks for. Raises ConfigError, also for a key of another certificate."""
    import ssl

    found = Certificates(
        _read(node.tls_cert_file, "tls_cert_file"),
        _read(node.tls_key_file, "tls_key_file"),
        _read(node.tls_client_ca_file, "tls_client_ca_file") if node.tls_client_ca_file else None,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(node.tls_cert_file, node.tls_key_file, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"node.tls_cert_file {node.tls_cert_file}: doesn't go with {node.tls_key_file}: {error}",
            "give a certificate and its own key, as PEM without a password",
        ) from None
    try:
        if found.client_ca is not None:
            context.load_verify_locations(cadata=found.client_ca.decode())
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"node.tls_client_ca_file {node.tls_client_ca_file}: {error}", "give certificates of authorities, as PEM"
        ) from None
    return found


def changed_keys(before: Config, after: Config) -> set[str]:
    """Keys of the configuration whose values differ, such as `node.listen`."""
    old, new = to_table(before), to_table(after)
    changed = {"home"} if before.home != after.home else set()
    for section in SECTIONS:
        had, has = old[section], new[section]
        assert isinstance(had, dict), "it is a section"
        assert isinstance(has, dict), "it is a section"
        changed |= {f"{section}.{key}" for key in has if has[key] != had[key]}
    return changed


def memory_bytes_max(config: Config) -> int:
    """Linear memory that a node may promise."""
    if config.node.memory_bytes_max is not None:
        return config.node.memory_bytes_max
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_PART)


def socket_mode(text: str) -> int:
    """Permissions from octal digits. Raises ConfigError."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigError(f"node.socket_mode {text!r}: isn't a mode", "write it like 0660")
    return mode


def group_id(name: str) -> int | None:
    """A group's number. Raises ConfigError."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"node.socket_group {name!r}: there is no such group", "create it, or leave it empty"
        ) from None


def _endpoint(text: str, key: str) -> None:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"node.{key} {text!r}: isn't HOST:PORT", "write it like 0.0.0.0:7464 or [::]:7464")


def _read(path: str, key: str) -> bytes:
    if not path:
        raise ConfigError(f"node.{key}: is missing", "node.listen needs a certificate and its key (PEM)")
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"node.{key} {path}: {error.strerror}", "give a file that the daemon may read") from None


async def serve(config: Config, reload: Callable[[], Config]) -> None:
    """The whole life of a node."""
    journal = is_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr.fileno())
    log = EventLog(form=config.node.log_format, stream=sys.stderr, prefixed=journal)
    await Daemon(config, log, reload=reload, systemd=take_over(os.environ)).run()
