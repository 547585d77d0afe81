"""Host names, in the one form in which rules and requests are compared."""

from __future__ import annotations

import re

NAME_CHARACTERS_MAX = 253
HOST_NAME = "host.internal"
"""By which guests reach the host's own loopback."""
GUEST_SUFFIX = "guest.internal"
"""Below which guests find each other."""

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEVIATIONS = "\u00df\u1e9e\u03c2\u200c\u200d"
"""Sharp s, final sigma and joiners: what IDNA 2003 maps away and IDNA 2008 keeps. They could name two domains."""


def normalise_name(text: str) -> str:
    """A host name in lower-case ASCII (IDNA) without the final dot. Raises ValueError with the reason."""
    name = text
    if len(name) > NAME_CHARACTERS_MAX + 1:
        raise ValueError(f"is longer than {NAME_CHARACTERS_MAX} characters")
    if not name.isascii():
        name = _to_ascii(name)
    name = name.lower().removesuffix(".")
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"is longer than {NAME_CHARACTERS_MAX} characters")
    for label in name.split("."):
        if not _LABEL.fullmatch(label):
            raise ValueError(f"has the label {label!r}, which isn't 1 to 63 letters, digits, hyphens or underscores")
    # As in the WHATWG's URL standard: resolvers would read 2130706433 or 0x7f.1 as an address.
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("ends in a number, but isn't an IP address")
    return name


def printable(text: str) -> str:
    """A name as a guest has sent it, for people: bounded, and without control characters."""
    return ascii(text[:NAME_CHARACTERS_MAX])[1:-1]


def is_below(name: str, suffix: str) -> bool:
    """Whether a normalised name is a proper subdomain."""
    return name.endswith("." + suffix)


def _to_ascii(name: str) -> str:
    if any(character in _DEVIATIONS for character in name):
        raise ValueError("has a character that old and new IDNA encode differently; write its ASCII form (xn--...)")
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"can't be encoded by IDNA ({error}); write its ASCII form (xn--...)") from None
