"""The control process's side of its workers: starting, finding again, choosing, losing."""

from __future__ import annotations

import asyncio
import contextvars
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from timecraftd.errors import EngineError, TimecraftError, WorkerLostError
from timecraftd.supervisor.channel import Directory, Peer, once, peer_credentials
from timecraftd.supervisor.tasks import OwnedTasks

START_S_MAX = 20.0
CONNECT_POLL_S = 0.01
HELLO_S_MAX = 10.0
"""A worker that says nothing for so long is ended."""
END_S_MAX = 5.0

OnEnd = Callable[["WorkerHandle", dict[str, Any]], None]
OnLost = Callable[["WorkerHandle"], Awaitable[None]]


class WorkerHandle:
    """A worker process."""

    def __init__(self, name: str, peer: Peer, pid: int, version: str, processes: set[str]) -> None:
        self.name = name
        self.peer = peer
        self.pid = pid
        self.version = version
        self.processes = processes
        """Guests that it hosts, those that it is about to begin included."""
        self.retiring = False
        self.held = False
        """Its guests were told to wait once their rings are full."""

    @property
    def isolated(self) -> bool:
        """Whether it is for one guest only."""
        return self.name.startswith("i-")


class WorkerPool:
    """All workers of a node."""

    def __init__(
        self,
        home: str,
        *,
        config_file: str,
        processes_max: int,
        version: str,
        on_end: OnEnd,
        on_lost: OnLost,
        log: Callable[..., None],
    ) -> None:
        """`processes_max` is for each shared worker; workers of another `version` get no new processes.

        Workers read `config_file` too, unless it is empty.
        """
        self.workers: dict[str, WorkerHandle] = {}
        self._home = home
        self._environ = os.environ | ({"TIMECRAFT_CONFIG": config_file} if config_file else {})
        self._processes_max = processes_max
        self._version = version
        self._on_end = on_end
        self._on_lost = on_lost
        self._log = log
        self._directory = Directory(os.path.join(home, "workers"))
        self._tasks = OwnedTasks(log)
        self._starting: asyncio.Lock = asyncio.Lock()
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._closing = False

    async def adopt(self) -> list[WorkerHandle]:
        """Connects to workers that an earlier control process has left."""
        for name in self._directory.names():
            if name.endswith(".log"):
                continue
            try:
                await self._connect(name)
            except (OSError, WorkerLostError):
                self._directory.remove(name)  # its worker is dead
        return list(self.workers.values())

    async def acquire(self, process: str, *, isolated: bool) -> WorkerHandle:
        """A worker with room, in which a place is now taken for the process. Raises EngineError."""
        if isolated:
            worker = await self._start(f"i-{secrets.token_hex(4)}")
        else:
            async with self._starting:  # many at once share the one that is being started
                worker = self._with_room() or await self._start(f"s-{secrets.token_hex(4)}")
                worker.processes.add(process)
        worker.processes.add(process)
        return worker

    async def for_views(self) -> WorkerHandle:
        """The worker that replays: a module that breaks the engine takes no guest with it. Raises EngineError."""
        async with self._starting:
            found = next((worker for worker in self.workers.values() if worker.name.startswith("v-")), None)
            return found or await self._start(f"v-{secrets.token_hex(4)}")

    async def prepare(self) -> None:
        """Starts a shared worker ahead of need. Raises EngineError."""
        async with self._starting:
            if self._with_room() is None:
                await self._start(f"s-{secrets.token_hex(4)}")

    def release(self, worker: WorkerHandle, process: str) -> None:
        """The process runs there no more."""
        worker.processes.discard(process)
        if (worker.isolated or worker.version != self._version) and not worker.processes:
            self._retire(worker)

    async def hold(self, *, held: bool) -> None:
        """Has all guests wait once their rings are full, or go on; for those that come it is to be called again."""
        for worker in [worker for worker in self.workers.values() if worker.held != held]:
            with suppress(TimecraftError):
                await worker.peer.call("hold", held=held)
                worker.held = held

    async def close(self, *, abandon: bool) -> None:
        """Hangs up. Idle workers end; others too if they are abandoned, else they go on alone."""
        self._closing = True
        for worker in list(self.workers.values()):
            with suppress(TimecraftError):
                await worker.peer.call("abandon" if abandon else "retire")
        if abandon:
            await asyncio.gather(*(child.wait() for child in self._children.values()))
        for worker in list(self.workers.values()):
            worker.peer.close()
        await self._tasks.cancel()  # those who wait for children that go on
        self._directory.close()

    def _with_room(self) -> WorkerHandle | None:
        usable = [
            worker
            for worker in self.workers.values()
            if worker.name.startswith("s-")
            and not worker.retiring
            and worker.version == self._version
            and len(worker.processes) < self._processes_max
        ]
        return min(usable, key=lambda worker: len(worker.processes), default=None)

    def _retire(self, worker: WorkerHandle) -> None:
        if not worker.retiring:
            worker.retiring = True
            self._own(self._ask_to_retire(worker))

    async def _ask_to_retire(self, worker: WorkerHandle) -> None:
        with suppress(TimecraftError):
            await worker.peer.call("retire")

    async def _start(self, name: str) -> WorkerHandle:
        path = os.path.join(self._directory.path, f"{name}.log")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "timecraftd.worker",
                "--home",
                self._home,
                "--name",
                name,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environ,
                start_new_session=True,  # it outlives us
            )
        finally:
            os.close(descriptor)
        self._children[name] = child
        self._own(self._reap(name, child))
        try:
            async with asyncio.timeout(START_S_MAX):
                while True:
                    try:
                        return await self._connect(name)
                    except OSError:
                        if child.returncode is not None:
                            break
                    await asyncio.sleep(CONNECT_POLL_S)
        except TimeoutError:
            child.kill()
        raise EngineError(f"worker {name}: didn't start", f"see {path}")

    async def _reap(self, name: str, child: asyncio.subprocess.Process) -> None:
        code = await child.wait()
        if code != 0:
            self._log("worker ended", level="warning", worker=name, pid=child.pid, code=code)
        self._children.pop(name, None)
        remove_log(os.path.join(self._directory.path, f"{name}.log"), failed=code != 0)

    async def _connect(self, name: str) -> WorkerHandle:
        connection = self._directory.connect(name)

        def tell(event: str, arguments: dict[str, Any]) -> None:
            if event == "ended":
                self._on_end(worker, arguments)

        peer = Peer(connection, tell=tell)
        serving = self._own(peer.serve())
        try:
            async with asyncio.timeout(HELLO_S_MAX):
                answer = await peer.call("hello")
        except TimeoutError:
            pid, _, _ = peer_credentials(connection)
            self._log("worker doesn't answer", level="error", worker=name, pid=pid)
            await end_process(pid)
            raise WorkerLostError(f"worker {name}: doesn't answer", "its processes are settled") from None
        worker = WorkerHandle(name, peer, answer["pid"], answer["version"], set(answer["processes"]))
        self.workers[name] = worker
        self._own(self._lost(worker, serving))
        return worker

    async def _lost(self, worker: WorkerHandle, serving: asyncio.Task[None]) -> None:
        await asyncio.wait([serving])
        self.workers.pop(worker.name, None)
        self._directory.remove(worker.name)
        if not self._closing:
            await self._on_lost(worker)

    def _own(self, work: Any) -> asyncio.Task[None]:
        # It serves whoever comes: the identity and the request of the call that began it aren't its own.
        return self._tasks.start(work, contextvars.Context())


async def end_process(pid: int) -> None:
    """Kills a process, and waits until it is gone: its locks are then, too. The kernel may keep one for longer."""
    loop = asyncio.get_running_loop()
    with suppress(ProcessLookupError, TimeoutError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            gone: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, once(gone))
            async with asyncio.timeout(END_S_MAX):
                await gone
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def remove_log(path: str, *, failed: bool) -> None:
    """Removes what a worker wrote, unless it may say why it failed."""
    with suppress(FileNotFoundError):
        if not failed or os.path.getsize(path) == 0:
            os.unlink(path)
