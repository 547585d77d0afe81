"""Blocking look-ups of names in threads of their own, so that one guest's slow names never keep another's waiting."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence

Lookup = Callable[[str, bool, bool], Sequence[str]]
"""(normalised name, whether IPv4 is wanted, whether IPv6 is) to addresses in order of preference.

It may block. It raises socket.gaierror or OSError.
"""

_GAI_ERRNO = {
    socket.EAI_NONAME: "ENOENT",
    socket.EAI_NODATA: "ENOENT",
    socket.EAI_ADDRFAMILY: "ENOENT",
    socket.EAI_AGAIN: "ETIMEDOUT",  # no server answered; EAGAIN would mean something else to a guest
    socket.EAI_MEMORY: "ENOMEM",
    socket.EAI_FAMILY: "EAFNOSUPPORT",
}


def system_lookup(name: str, ipv4: bool, ipv6: bool) -> list[str]:
    """What the host's resolver says."""
    family = socket.AF_UNSPEC if ipv4 and ipv6 else socket.AF_INET if ipv4 else socket.AF_INET6
    infos = socket.getaddrinfo(name.encode(), None, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def gai_errno(error: socket.gaierror) -> str:
    """WASI's name for a failed look-up."""
    return _GAI_ERRNO.get(error.args[0] if error.args else 0, "EIO")


class Lookups:
    """Threads for look-ups. Each guest may have one at any time; more, as far as all guests' shared number allows.

    Threads are daemons and made for one look-up: a resolver can't be interrupted, and must not keep the host from
    ending. The thread of a look-up that nobody waits for any more still counts as its guest's.
    """

    def __init__(self, lookup: Lookup, *, per_guest_max: int, shared_max: int) -> None:
        self._lookup = lookup
        self._per_guest_max = per_guest_max
        self._shared_max = shared_max
        self._busy: Counter[object] = Counter()
        self._waiting: dict[object, deque[_Job]] = {}

    async def run(self, guest: object, name: str, ipv4: bool, ipv6: bool) -> Sequence[str]:
        """Looks up a name for a guest, in its turn. Raises what the look-up raises."""
        job = _Job(name, ipv4, ipv6, asyncio.get_running_loop())
        self._waiting.setdefault(guest, deque()).append(job)
        self._start(guest)
        try:
            return await job.answer
        except asyncio.CancelledError:
            jobs = self._waiting.get(guest, deque())
            if job in jobs:
                jobs.remove(job)
                self._start(guest)
            raise

    def _may_start(self, guest: object) -> bool:
        busy = self._busy[guest]
        shared = sum(count - 1 for count in self._busy.values() if count > 0)
        return busy == 0 or (busy < self._per_guest_max and shared < self._shared_max)

    def _start(self, guest: object) -> None:
        jobs = self._waiting[guest]
        while jobs and self._may_start(guest):
            job = jobs.popleft()
            self._busy[guest] += 1
            try:
                threading.Thread(target=self._work, args=(guest, job), name="timecraft-lookup", daemon=True).start()
            except RuntimeError:
                self._busy[guest] -= 1
                job.finish(None, OSError(errno.ENOMEM, "no more threads"))
        if not jobs:
            del self._waiting[guest]

    def _work(self, guest: object, job: _Job) -> None:
        """In the thread."""
        result: Sequence[str] | None = None
        error: Exception | None = None
        try:
            result = self._lookup(job.name, job.ipv4, job.ipv6)
        except Exception as caught:  # noqa: BLE001 (it is raised where it is waited for)
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed
            job.loop.call_soon_threadsafe(self._finish, guest, job, result, error)

    def _finish(self, guest: object, job: _Job, result: Sequence[str] | None, error: Exception | None) -> None:
        self._busy[guest] -= 1
        if not self._busy[guest]:
            del self._busy[guest]
        job.finish(result, error)
        for waiting in list(self._waiting):
            self._start(waiting)


class _Job:
    """One look-up, and who waits for it."""

    def __init__(self, name: str, ipv4: bool, ipv6: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.loop = loop
        self.answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def finish(self, result: Sequence[str] | None, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            assert result is not None, "there is a result or an error"
            self.answer.set_result(result)
