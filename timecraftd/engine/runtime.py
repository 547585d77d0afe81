"""Runs and replays guests: a facade over the extension."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from timecraftd.engine.native import load_native

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from timecraftd._native import Guest as Guest  # noqa: PLC0414
    from timecraftd._native import ModuleInfo as ModuleInfo  # noqa: PLC0414
    from timecraftd._native import NetworkEvent as NetworkEvent  # noqa: PLC0414
    from timecraftd._native import NetworkPort as NetworkPort  # noqa: PLC0414
    from timecraftd._native import Outcome as Outcome  # noqa: PLC0414
    from timecraftd.engine.spec import ModuleSpec, Nans, ReplaySpec, ResumeSpec, RunSpec


class Engine:
    """The engine of this process of the host. The extension is loaded at the first use."""

    def __init__(self, load: Callable[[], ModuleType] = load_native) -> None:
        self._load = load
        self._loaded: ModuleType | None = None

    def build_info(self, nans: Nans = "canonical") -> dict[str, str]:
        """What decides whether logs are compatible, and what people want to know of a build."""
        info: dict[str, str] = self._native.build_info(nans)
        return info

    def confine(self) -> None:
        """Takes from this process of the host what no guest's work needs; it can start no programs then.

        Raises EngineError.
        """
        self._native.confine()

    def assemble(self, source: bytes) -> bytes:
        """Wasm bytes of wasm or of its text format. Raises ModuleError."""
        wasm: bytes = self._native.to_wasm(source)
        return wasm

    def inspect(self, wasm: bytes) -> ModuleInfo:
        """Validates and describes a module. Raises ModuleError."""
        info: ModuleInfo = self._native.inspect_module(wasm)
        return info

    def is_compiled(self, module: ModuleSpec) -> bool:
        """Whether a module's machine code is in its cache; if not, a run begins by compiling it."""
        found: bool = self._native.is_compiled(module.digest, module.artifact_dir, module.nans)
        return found

    def compile(self, module: ModuleSpec) -> None:
        """Puts a module's machine code into its cache. Raises ModuleError, EngineError."""
        self._native.compile_module(module.path, module.digest, module.artifact_dir, module.artifact_bytes_max)

    def network_port(self, ipv4: str | None = None, ipv6: str | None = None) -> NetworkPort:
        """The end of the network that one guest gets, with the guest's own addresses. Raises OSError."""
        port: NetworkPort = self._native.NetworkPort(ipv4, ipv6)
        return port

    def run(self, spec: RunSpec) -> Guest:
        """Starts a guest. Raises ModuleError, MountError, LogError, EngineError before anything ran."""
        guest: Guest = self._native.run(spec)
        return guest

    def replay(self, spec: ReplaySpec) -> Guest:
        """Starts a replay. Raises ModuleError, LogError."""
        guest: Guest = self._native.replay(spec)
        return guest

    def resume(self, spec: ResumeSpec) -> Guest:
        """Replays a crashed process, then lets it go on. Raises ModuleError, LogError, ReplayRefusedError."""
        guest: Guest = self._native.resume(spec)
        return guest

    def count_calls(self, guests: Sequence[Guest]) -> dict[str, int]:
        """Live host calls of guests, together, and how long they took; by name, see `_native.count_calls`."""
        counts: dict[str, int] = self._native.count_calls(guests)
        return counts

    @property
    def _native(self) -> ModuleType:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded
