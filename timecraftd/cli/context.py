"""What a verb works with: configuration, runtime, terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, cast

from timecraftd.config import ClientConfig, Config, load_client_config, load_config
from timecraftd.errors import UsageError

if TYPE_CHECKING:
    from timecraftd.cli.remote import NodeTarget
    from timecraftd.cli.target import Target
    from timecraftd.embedded import Runtime
    from timecraftd.model import ModuleRecord

SLOW_MODULE_BYTES = 2 << 20
"""A module of this size takes about a second to compile."""


class Context:
    """Made once per command; tests pass their own runtime."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.node_flag: str | None = None
        """What `--node` says."""
        self.context_flag: str | None = None
        """What `--context` says."""
        if runtime is not None:
            from timecraftd.cli.target import EmbeddedTarget

            self.__dict__["runtime"] = runtime
            self.__dict__["config"] = runtime.config
            self.__dict__["target"] = EmbeddedTarget(self)

    @cached_property
    def config(self) -> Config:
        """The effective configuration."""
        return load_config()

    @cached_property
    def runtime(self) -> Runtime:
        """The embedded runtime, on the configured state directory."""
        from timecraftd.embedded import Runtime

        return Runtime(self.config, compiling=tell_compiling)

    @cached_property
    def target(self) -> Target:
        """Where processes live: a node if one was chosen, else the embedded runtime.

        Raises UsageError, NotFoundError, ConfigError.
        """
        from timecraftd.cli.contexts import chosen
        from timecraftd.cli.target import EmbeddedTarget

        node = chosen(self.client_config, self.node_flag, self.context_flag)
        if node is None:
            return EmbeddedTarget(self)
        from timecraftd.cli.remote import NodeTarget

        return NodeTarget(self, node)

    @cached_property
    def client_config(self) -> ClientConfig:
        """What the environment says of nodes."""
        return load_client_config()

    def node(self) -> NodeTarget:
        """The node that was chosen. Raises UsageError if none was."""
        from timecraftd.cli.target import EmbeddedTarget

        target = self.target
        if isinstance(target, EmbeddedTarget):
            raise UsageError("node: none is named", "give `timecraft --node ADDRESS`, or choose a context")
        return cast("NodeTarget", target)

    def now_ns(self) -> int:
        """The time here, Unix ns; the runtime's own if it was opened."""
        return self.runtime.now_ns() if "runtime" in self.__dict__ else time.time_ns()

    @property
    def debug(self) -> bool:
        """Whether errors show tracebacks; false as long as there is no configuration."""
        config = self.__dict__.get("config")
        return config is not None and config.debug

    @property
    def color(self) -> bool:
        """Whether standard output takes colours."""
        return self.config.color and sys.stdout.isatty()

    def complain(self, message: str) -> None:
        """One line, or several, on standard error."""
        from timecraftd.cli.terminal import printable_lines

        tell(f"timecraft: {printable_lines(message)}")

    def forget_runtime(self) -> None:
        """Lets a child after fork open its own: databases don't cross a fork."""
        self.__dict__.pop("runtime", None)

    def close(self) -> None:
        """Closes what was opened."""
        if "target" in self.__dict__:
            self.target.close()
        if "runtime" in self.__dict__:
            self.runtime.close()


def tell(text: str) -> None:
    """A line on standard error, lost if nobody listens: a guest that runs must not end because of it."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - else what is left in its buffer fails again at exit


def tell_id(process_id: str, *, quiet: bool) -> None:
    """The first line of a run: which process it is."""
    if not quiet:
        tell(process_id)


def tell_published(ports: Iterable[str]) -> None:
    """The ports that a guest published, a line each."""
    for port in ports:
        tell(f"published {port}")


def tell_compiling(module: ModuleRecord | None) -> None:
    """Says on a terminal why a run doesn't begin at once, if that takes more than a moment."""
    if module is not None and module.size_bytes >= SLOW_MODULE_BYTES and is_terminal(2):
        tell(f"timecraft: compiling {module.size_bytes >> 20} MiB of WebAssembly, once: it takes some seconds")


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor of ours is a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
