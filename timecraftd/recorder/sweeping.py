"""What keeps those who send objects to a store and those who remove them there apart.

Who removes says so in an object, before it looks at what is named and after it is done; who sends looks at that object
before it relies on what is there, and after it has named it. docs/remote.md has the argument.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from timecraftd.errors import LogDamagedError, NotFoundError
from timecraftd.recorder.remote import ConflictError, RemoteStore, TransientError

FLAG = "sweep.json"
FLAG_FORMAT = 1
DEAD_S = 900.0
"""A sweep that says for so long that it is under way isn't any more: it would have given up (`SWEEP_S_MAX`)."""
KNOWN_MAX = 100_000


class SweptError(TransientError):
    """Somebody removes objects from the store: nothing can be relied on until that is over."""


@dataclass(frozen=True, slots=True)
class Flag:
    """The last sweep of a store."""

    mark: str = ""
    """Another one at each beginning and each end; empty if nobody ever swept."""
    running: bool = False
    node: str = ""
    etag: str | None = None


async def read_flag(store: RemoteStore) -> Flag:
    """The flag as it is. Raises RemoteError, LogDamagedError."""
    try:
        data, etag = await store.get_tagged(FLAG)
    except NotFoundError:
        return Flag()
    try:
        table = json.loads(data)
        return Flag(str(table["mark"]), table["running"] is True, str(table["node"]), etag)
    except (ValueError, TypeError, KeyError):
        raise LogDamagedError(f"{store.url}/{FLAG}: isn't one", "remove it, if nobody sweeps the bucket") from None


async def write_flag(store: RemoteStore, before: Flag, *, running: bool, node: str, random: Random) -> Flag:
    """Replaces a flag. Raises ConflictError if it is another one by now, RemoteError."""
    flag = Flag(f"{random.getrandbits(64):016x}", running, node)
    table = {"format": FLAG_FORMAT, "mark": flag.mark, "running": running, "node": node}
    try:
        etag = await store.put(
            FLAG, json.dumps(table).encode(), if_none_match=before.etag is None, if_match=before.etag
        )
    except ConflictError:
        found = await read_flag(store)
        if found.mark != flag.mark:  # else it was our own, whose answer got lost
            raise
        return found
    return replace(flag, etag=etag)


class Presence:
    """What an uploader knows to be in the store; it forgets all of that when somebody sweeps there."""

    def __init__(self, store: RemoteStore, *, node: str, clock: Callable[[], float], random: Random) -> None:
        """`clock` tells seconds, and never goes back."""
        self._store = store
        self._node = node
        self._clock = clock
        self._random = random
        self._flag: Flag | None = None
        self._since_s = 0.0
        """When this flag was first seen,"""
        self._looked_s = 0.0
        """and last."""
        self._known: OrderedDict[str, None] = OrderedDict()

    async def mark(self, age_s_max: float = 0.0) -> str:
        """The flag's mark, as it was so long ago at most. Raises SweptError while somebody sweeps, RemoteError."""
        flag = self._flag
        if flag is None or flag.running or self._clock() - self._looked_s >= age_s_max:
            flag = await self._look()
        if flag.running:
            raise SweptError(f"{self._store.url}: {flag.node or 'somebody'} sweeps it", "wait until that is done")
        return flag.mark

    async def _look(self) -> Flag:
        asked_s = self._clock()
        flag = await read_flag(self._store)
        if self._flag is None or flag.mark != self._flag.mark:
            self._known.clear()
            self._since_s = asked_s
        elif flag.running and asked_s - self._since_s >= DEAD_S:
            flag = await write_flag(self._store, flag, running=False, node=self._node, random=self._random)
            self._known.clear()
        self._flag, self._looked_s = flag, asked_s
        return flag

    def holds(self, key: str, mark: str) -> bool:
        """Whether an object was seen there since a mark."""
        return self._flag is not None and self._flag.mark == mark and key in self._known

    def note(self, key: str, mark: str) -> None:
        """An object was seen there since a mark."""
        if self._flag is not None and self._flag.mark == mark:
            self._known[key] = None
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
