"""Sizes and durations as people write them, and times as people read them."""

from __future__ import annotations

import re
import time

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS |= {_letter: 1024**_power, f"{_letter}ib": 1024**_power, f"{_letter}b": 1000**_power}

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_DURATION_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
_NS_MAX = 1 << 62
_BYTES_MAX = 1 << 62


def parse_size(text: str) -> int:
    """Bytes in `64MiB`, `64M` (also binary), `64MB` (decimal), `1.5g` or `4096`. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} isn't a size; write it like 64MiB, 1.5G or 4096")
    size = int(match[1]) * unit if "." not in match[1] else round(float(match[1]) * unit)
    if size > _BYTES_MAX:
        raise ValueError(f"{text!r} is too big")
    return size


def parse_duration_ns(text: str) -> int:
    """Nanoseconds in `1.5s`, `200ms`, `1h30m`; a bare number counts seconds. Raises ValueError."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        stripped += "s"
    parts = _DURATION_PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} isn't a duration; write it like 1.5s, 200ms or 1h30m")
    total = sum(round(float(number) * _DURATION_UNITS_NS[unit]) for number, unit in parts)
    if total > _NS_MAX:
        raise ValueError(f"{text!r} is too long")
    return total


def format_size(size: int) -> str:
    """`1.5 MiB`; whole bytes below 1 KiB."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"


def format_size_exact(size: int) -> str:
    """The shortest form that `parse_size` reads back as the same number."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(ns: int) -> str:
    """`1.50 s`, `12.3 ms`, `3 min 5 s`: about three digits."""
    if ns >= 3600 * 10**9:
        return f"{ns // (3600 * 10**9)} h {ns // (60 * 10**9) % 60} min"
    if ns >= 60 * 10**9:
        return f"{ns // (60 * 10**9)} min {ns // 10**9 % 60} s"
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns} ns"


def format_duration_exact(ns: int) -> str:
    """The shortest form that `parse_duration_ns` reads back as the same number."""
    for unit, factor in reversed(_DURATION_UNITS_NS.items()):
        if ns and ns % factor == 0:
            return f"{ns // factor}{unit}"
    return "0s"


def format_ago(ns: int) -> str:
    """A past span in one word and a unit: `2 minutes ago`."""
    seconds = max(ns, 0) // 10**9
    if seconds < 1:
        return "just now"
    for unit, factor in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= factor:
            count = seconds // factor
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    raise AssertionError("seconds is at least 1")


def format_span(ns: int) -> str:
    """A running span: `Up` takes it, as in `3 minutes`."""
    ago = format_ago(ns)
    return ago.removesuffix(" ago") if ago != "just now" else "less than a second"


def rfc3339(unix_ns: int, digits: int = 3) -> str:
    """A time in UTC, such as `2026-05-04T03:02:01.123Z`."""
    seconds, rest_ns = divmod(unix_ns, 10**9)
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{base}.{f'{rest_ns:09d}'[:digits]}Z" if digits else f"{base}Z"


def parse_time_ns(text: str, now_ns: int) -> int:
    """Unix time in ns of an RFC 3339 time, or of a duration before now (`10m`). Raises ValueError."""
    if "T" in text or text.count("-") >= 2:
        from datetime import UTC, datetime

        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} isn't a time; write it like 2026-05-04T03:02:01Z or 10m") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000) * 1000
    return now_ns - parse_duration_ns(text)
