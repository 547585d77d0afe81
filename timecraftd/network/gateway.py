"""The gateway between guests and the network: one event loop for any number of guests.

Guests ask through their ports (`port.py`), policy decides (`policy.py`), and what is granted is made here and handed
over as descriptors. Bytes pass through only for TLS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from timecraftd.config import NetworkConfig
from timecraftd.network.attachment import Attachment, Services
from timecraftd.network.decisions import Decisions
from timecraftd.network.guest import Guest
from timecraftd.network.lookups import Lookup, Lookups, system_lookup
from timecraftd.network.neighbours import Member, Neighbours
from timecraftd.network.policy import Policy
from timecraftd.network.port import NetworkPort
from timecraftd.network.publish import Publication, publish
from timecraftd.network.tls import Contexts
from timecraftd.network.virtual import GUEST_NUMBER_MIN, VirtualNetwork

LINGER_S = 5.0
"""How long TLS connections of a guest that has ended may take to send what they hold."""
LOOKUPS_SHARED_MAX = 64


DENY_ALL = Policy()


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """What one guest gets."""

    label: str
    """Names the guest in logs."""
    policy: Policy = DENY_ALL
    published: tuple[Publication, ...] = ()
    member: Member | None = None
    """Its place among its neighbours, if it has joined them; the gateway lets it leave."""


class Gateway:
    """Serves guests on the running event loop."""

    def __init__(
        self,
        config: NetworkConfig | None = None,
        *,
        lookup: Lookup = system_lookup,
        neighbours: Neighbours | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises NetworkError if the configuration can't be used."""
        config = config or NetworkConfig()
        self._network = VirtualNetwork.of(config.guests_ipv4, config.guests_ipv6)
        self._neighbours = neighbours
        self._now_ns = now_ns
        contexts = Contexts(config.ca_file)
        contexts.check()
        lookups = Lookups(lookup, per_guest_max=config.lookups_max, shared_max=LOOKUPS_SHARED_MAX)
        self._services = Services(config, lookups, contexts, asyncio.Semaphore(config.dials_max), monotonic)
        self._serving: dict[Attachment, asyncio.Task[None]] = {}

    def add(self, port: NetworkPort, asked: GuestNetwork) -> Attachment:
        """Serves a guest until it ends. Raises NetworkError if a port can't be published; the member has left then."""
        try:
            published = publish(asked.published, asked.policy)
        except BaseException:
            if asked.member is not None:
                asked.member.leave()
            raise
        network = self._neighbours.network if self._neighbours else self._network
        guest = Guest(
            port=port,
            policy=asked.policy,
            decisions=Decisions(asked.label, asked.policy, self._now_ns),
            network=network,
            number=asked.member.number if asked.member else GUEST_NUMBER_MIN,
            member=asked.member,
            neighbours=self._neighbours if asked.member else None,
        )
        attachment = Attachment(guest, self._services, published)
        self._serving[attachment] = asyncio.get_running_loop().create_task(self._serve(attachment))
        return attachment

    async def close(self, linger_s: float = LINGER_S) -> None:
        """Takes leave of all guests."""
        serving = dict(self._serving)
        for attachment in serving:
            attachment.ended.set()
        if serving:
            await asyncio.wait(serving.values(), timeout=linger_s)
        for attachment in serving:
            attachment.hurry.set()
        await asyncio.gather(*serving.values())

    async def _serve(self, attachment: Attachment) -> None:
        try:
            await attachment.ended.wait()
        finally:
            await attachment.close(LINGER_S)
            del self._serving[attachment]
