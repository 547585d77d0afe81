"""When a process is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from timecraftd.config import RestartConfig
from timecraftd.errors import UsageError

Mode = Literal["no", "on-failure", "always", "resume"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a guest is started again, or, if its host died, resumed."""

    mode: Mode = "no"
    retries_max: int | None = None

    def delay_s(self, restarts: int, failed: bool, ran_s: float, config: RestartConfig) -> float | None:
        """How long to wait before the next start; None for no more. `restarts` counts since the last healthy run."""
        if self.mode in ("no", "resume") or (self.mode == "on-failure" and not failed):
            return None
        return self._wait_s(restarts, ran_s, config)

    def resume_delay_s(self, resumes: int, ran_s: float, config: RestartConfig) -> float | None:
        """The same for a process whose host died and that is to be resumed."""
        return self._wait_s(resumes, ran_s, config) if self.mode == "resume" else None

    def _wait_s(self, restarts: int, ran_s: float, config: RestartConfig) -> float | None:
        if self.retries_max is not None and restarts >= self.retries_max:
            return None
        if ran_s >= config.healthy_s:
            restarts = 0
        return min(config.backoff_s_min * 2.0 ** min(restarts, 32), config.backoff_s_max)

    def __str__(self) -> str:
        return self.mode if self.retries_max is None else f"{self.mode}:{self.retries_max}"


def parse_restart(text: str, where: str) -> RestartPolicy:
    """A policy from `no`, `on-failure[:N]`, `always` or `resume[:N]`. Raises UsageError."""
    mode, colon, count = text.partition(":")
    counted = colon == "" or (count.isascii() and count.isdigit())
    if mode in ("on-failure", "resume") and counted:
        return RestartPolicy("on-failure" if mode == "on-failure" else "resume", int(count) if count else None)
    if text == "always":
        return RestartPolicy("always")
    if text == "no":
        return RestartPolicy()
    raise UsageError(f"{where} {text!r}: isn't a policy", "use no, on-failure, on-failure:3, always or resume")
