"""Hides the values of variables that were named secret from those who look at processes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

MASK = "***"


def mask_env(env: Iterable[str], secrets: Collection[str]) -> list[str]:
    """`NAME=VALUE` texts, the values of secret names hidden."""
    return [f"{name}={MASK}" if (name := item.partition("=")[0]) in secrets else item for item in env]


def mask_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config object as it may be shown."""
    secrets = config.get("secrets", ())
    return config | {"env": mask_env(config["env"], secrets)} if secrets else config


class TraceMask:
    """Hides secret values where a trace shows how a guest was told of its environment."""

    def __init__(self, secrets: Collection[str]) -> None:
        names = "|".join(map(re.escape, sorted(secrets)))
        self._pattern = re.compile(rf'"({names})=(?:[^"\\]|\\.)*"') if secrets else None
        self._begun = b""

    def line(self, text: str) -> str:
        """A line of a trace, as text or JSON."""
        if self._pattern is None or "environ_get" not in text:
            return text
        return self._pattern.sub(rf'"\1={MASK}"', text)

    def feed(self, data: bytes) -> bytes:
        """Whole lines out of bytes that come in pieces; what follows the last of them comes with the next piece."""
        if self._pattern is None:
            return data
        whole, newline, self._begun = (self._begun + data).rpartition(b"\n")
        lines = whole.decode("utf-8", "surrogateescape").split("\n")
        return "\n".join(map(self.line, lines)).encode("utf-8", "surrogateescape") + newline if newline else b""

    def rest(self) -> bytes:
        """What came after the last whole line."""
        begun, self._begun = self._begun, b""
        return self.line(begun.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
