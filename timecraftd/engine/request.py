"""What a run is asked to be, and the config object that keeps it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from timecraftd.engine.spec import LimitSpec, MountSpec, Nans, Sockets
from timecraftd.errors import MountError, ReplayRefusedError
from timecraftd.labels import Labels

CONFIG_VERSION = 1


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """What a guest may reach beyond its own loopback, and who may reach it. As text, the way it was asked for."""

    rules: tuple[tuple[str, str], ...] = ()
    """Rules of the policy, each with where it was written."""
    publish: tuple[str, ...] = ()
    """`[IP:]HOST:GUEST[/udp]`."""
    listen: tuple[str, ...] = ()
    """`HOST:PORT` of the host; the guest finds listening sockets open."""
    dial: tuple[str, ...] = ()
    """`HOST:PORT` that the host connects to; the guest finds the connections open."""
    ca_file: str = ""
    """PEM file of the authorities that host TLS trusts; empty: the one of the configuration."""

    @property
    def is_empty(self) -> bool:
        """Whether the guest has its own loopback and nothing else."""
        return not (self.rules or self.publish or self.listen or self.dial)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run, and how."""

    args: tuple[bytes, ...] = ()
    """The first one is the program's name."""
    env: tuple[bytes, ...] = ()
    secrets: tuple[str, ...] = ()
    """Names of variables whose values aren't shown."""
    mounts: tuple[MountSpec, ...] = ()
    function: str | None = None
    nans: Nans = "canonical"
    sockets: Sockets = "auto"
    limits: LimitSpec = field(default_factory=LimitSpec)
    network: NetworkRequest = field(default_factory=NetworkRequest)
    name: str = ""
    recorded: bool = True
    compression: str = "lz4"
    output: str = "inline"
    on_full: str = "wait"
    durability: str = "flush"
    block_bytes_max: int = 64 << 10
    log_bytes_max: int | None = None
    chaos_ratio: float = 0.0
    chaos_seed: int = 0
    restart_of: str = ""
    labels: Labels = ()
    interruptible: bool = False
    """Whether the guest understands interrupts: else SIGINT ends it."""

    @property
    def private(self) -> list[str]:
        """Directories that the process has for itself, by the guest's names.

        If it has any, there is one for each mount, so that a list of directories shows it.
        """
        return [mount.guest for mount in self.mounts] if any(not mount.host for mount in self.mounts) else []


def canonical_json(value: object) -> bytes:
    """JSON in the one form that digests are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def encode_config(request: RunRequest) -> bytes:
    """The config object of a run: all that the guest was given. Text that isn't UTF-8 keeps its bytes."""
    limits = request.limits
    secrets = {"secrets": sorted(request.secrets)} if request.secrets else {}
    return canonical_json(
        {
            **secrets,
            "version": CONFIG_VERSION,
            "args": [os.fsdecode(arg) for arg in request.args],
            "env": [os.fsdecode(item) for item in request.env],
            "mounts": [_mount(mount) for mount in request.mounts],
            "function": request.function,
            "nans": request.nans,
            "sockets": request.sockets,
            "limits": {name: getattr(limits, name) for name in LimitSpec.__slots__},
            "network": {name: getattr(request.network, name) for name in NetworkRequest.__slots__},
            "record": {
                "compression": request.compression,
                "output": request.output,
                "on_full": request.on_full,
                "durability": request.durability,
                "block_bytes_max": request.block_bytes_max,
                "log_bytes_max": request.log_bytes_max,
            },
            "chaos": {"ratio": request.chaos_ratio, "seed": request.chaos_seed},
            "interruptible": request.interruptible,
        }
    )


def _mount(mount: MountSpec) -> dict[str, object]:
    value: dict[str, object] = {"host": mount.host, "guest": mount.guest, "read_only": mount.read_only}
    return value | {"tree": mount.tree} if mount.tree is not None else value


def decode_config(data: bytes) -> RunRequest:
    """What `encode_config` wrote. Raises ReplayRefusedError for one of another version."""
    try:
        value = json.loads(data)
        if value["version"] != CONFIG_VERSION:
            raise ReplayRefusedError(
                f"config: has version {value['version']}, this Timecraft knows {CONFIG_VERSION}",
                "use the newer Timecraft",
            )
        return RunRequest(
            args=tuple(os.fsencode(arg) for arg in value["args"]),
            env=tuple(os.fsencode(item) for item in value["env"]),
            secrets=tuple(value.get("secrets", ())),
            mounts=tuple(MountSpec(**mount) for mount in value["mounts"]),
            function=value["function"],
            nans=value["nans"],
            sockets=value["sockets"],
            limits=LimitSpec(**value["limits"]),
            network=_decode_network(value.get("network", {})),
            compression=value["record"]["compression"],
            output=value["record"]["output"],
            on_full=value["record"]["on_full"],
            durability=value["record"].get("durability", "flush"),
            block_bytes_max=value["record"]["block_bytes_max"],
            log_bytes_max=value["record"]["log_bytes_max"],
            chaos_ratio=value["chaos"]["ratio"],
            chaos_seed=value["chaos"]["seed"],
            interruptible=value.get("interruptible", False),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ReplayRefusedError(f"config: isn't what this Timecraft writes ({error!r})") from None


def _decode_network(value: dict[str, Any]) -> NetworkRequest:
    return NetworkRequest(
        rules=tuple((text, origin) for text, origin in value.get("rules", ())),
        publish=tuple(value.get("publish", ())),
        listen=tuple(value.get("listen", ())),
        dial=tuple(value.get("dial", ())),
        ca_file=value.get("ca_file", ""),
    )


def check_mounts(mounts: tuple[MountSpec, ...]) -> None:
    """Whether all that is to be mounted is there; trees are the registry's. Raises MountError."""
    for mount in mounts:
        if mount.host and mount.tree is None and not mount.is_null and not os.path.isdir(mount.host):
            reason = "is not a directory" if os.path.lexists(mount.host) else "there is no such directory"
            raise MountError(f"mount {mount.host}: {reason}", "create it, or correct --dir")


def describe_grants(request: RunRequest) -> str:
    """What a process reaches of this machine, for people."""
    granted = [m for m in request.mounts if m.host and m.tree is None and not m.is_null]
    mounts = [f"{m.host}{' (read-only)' if m.read_only else ''}" for m in granted]
    grants = [f"the directories {', '.join(mounts)}" if mounts else "no directory, but the standard streams"]
    network = request.network
    if not network.is_empty:
        asked = [*(text for text, _ in network.rules), *(f"-p {text}" for text in network.publish)]
        asked += [*(f"-L {text}" for text in network.listen), *(f"-D {text}" for text in network.dial)]
        grants.append(f"the network ({'; '.join(asked)})")
    return " and ".join(grants)
