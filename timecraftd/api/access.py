"""Tells who asks: by the kernel (Unix socket), a certificate (mTLS) or a bearer token."""

# identities.toml:
#   [[token]]        name = "ci"  sha256 = "..."  role = "runner"  expires = 2027-01-01T00:00:00Z   (or never)
#   [[certificate]]  name = "deploy.example.org"  role = "operator"    (common name or DNS name)
#   [[user]]         uid = 1000  role = "viewer"                       (or gid = 50)

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from timecraftd.api.identity import Identity, Role
from timecraftd.errors import AccessError, ConfigError, UsageError
from timecraftd.registry.home import state_errors, write_atomically
from timecraftd.units import rfc3339

FILE_BYTES_MAX = 1 << 20
TOKEN_CHARS_MAX = 512
_NAME = re.compile(r"[a-zA-Z0-9@_.*-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, by its hash: it has 256 random bits, so that one round of SHA-256 keeps it."""

    name: str
    sha256: str
    role: Role
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Identities:
    """Who is known."""

    tokens: tuple[Token, ...] = ()
    certificates: tuple[tuple[str, Role], ...] = ()
    users: tuple[tuple[int, Role], ...] = ()
    groups: tuple[tuple[int, Role], ...] = ()


def load_identities(path: str, *, required: bool) -> Identities:
    """Reads the file. Raises ConfigError, which names the entry."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path}: others may read it", f"chmod 600 {path}")
            table = tomllib.loads(file.read(FILE_BYTES_MAX).decode())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: there is no such file", "correct node.identities_file") from None
        return Identities()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "correct the file") from None
    known = {"token": _token, "certificate": _certificate, "user": _user}
    found: dict[str, list[Any]] = {name: [] for name in known}
    for key, entries in table.items():
        if key not in known or not isinstance(entries, list):
            raise ConfigError(f"{path}: unknown key {key!r}", "use [[token]], [[certificate]] and [[user]]")
        for number, entry in enumerate(entries, start=1):
            try:
                found[key].append(known[key](entry))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"{path}: {key} {number}: {error}", "docs/node.md shows how it is written") from None
    return Identities(
        tuple(found["token"]),
        tuple(found["certificate"]),
        tuple((number, role) for kind, number, role in found["user"] if kind == "uid"),
        tuple((number, role) for kind, number, role in found["user"] if kind == "gid"),
    )


def role_of(text: object) -> Role:
    """A role from its name. Raises ValueError."""
    names = {role.name.lower(): role for role in Role}
    if text not in names:
        raise ValueError(f"role {text!r} isn't one of {', '.join(names)}")
    return names[str(text)]


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def add_token(path: str, name: str, token: str, role: Role, expires_s: float | None) -> None:
    """Adds a token's hash to the file, which is made if it isn't there. Raises ConfigError, UsageError, StateError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"token {name!r}: isn't a name", "use letters, digits, '@', '_', '.', '-'")
    load_identities(path, required=False)
    lines = ["[[token]]", f'name = "{name}"', f'sha256 = "{hash_of(token)}"', f'role = "{role.name.lower()}"']
    if expires_s is not None:
        lines.append(f"expires = {rfc3339(round(expires_s) * 10**9, 0)}")
    with state_errors(path):
        directory = os.path.dirname(os.path.abspath(path))
        os.makedirs(directory, mode=0o700, exist_ok=True)
        owner = os.stat(directory)  # the daemon's user, if that isn't who adds the token
        before = ""
        if os.path.exists(path):
            owner = os.stat(path)
            with open(path, encoding="utf-8") as file:
                before = file.read().rstrip("\n") + "\n\n"
        write_atomically(path, (before + "\n".join(lines) + "\n").encode())
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)


class NodeAccess:
    """Who asks, as gRPC's context shows it."""

    def __init__(
        self,
        path: str,
        *,
        required: bool,
        socket_role: Role,
        door_peer: Callable[[str], tuple[int, int] | None],
        own_uid: int,
        now_s: Callable[[], float],
    ) -> None:
        """Raises ConfigError."""
        self._path = path
        self._required = required
        self._socket_role = socket_role
        self._door_peer = door_peer
        self._own_uid = own_uid
        self._now_s = now_s
        self._identities = load_identities(path, required=required)

    def reload(self) -> None:
        """Reads the file again; if that fails what was known stays. Raises ConfigError."""
        self._identities = load_identities(self._path, required=self._required)

    def identify(self, context: Any) -> Identity:
        """Of a call. Raises AccessError."""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                return self._by_token(value if isinstance(value, str) else value.decode(errors="replace"))
        local = self._door_peer(context.peer())
        if local is not None:
            return self._by_user(*local)
        return self._by_certificate(context.auth_context())

    def _by_token(self, header: str) -> Identity:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and 0 < len(token) <= TOKEN_CHARS_MAX:
            hashed = hash_of(token.strip())
            for known in self._identities.tokens:
                if hmac.compare_digest(known.sha256, hashed):
                    if known.expires_s is not None and self._now_s() >= known.expires_s:
                        raise _stranger(f"token {known.name}: has expired")
                    return Identity(f"token:{known.name}", known.role)
        raise _stranger("token: is not known here")

    def _by_user(self, uid: int, gid: int) -> Identity:
        name = f"uid:{uid}"
        for number, role in self._identities.users:
            if number == uid:
                return Identity(name, role)
        for number, role in self._identities.groups:
            if number == gid:
                return Identity(name, role)
        if uid in (0, self._own_uid):
            return Identity(name, Role.OPERATOR)
        if self._socket_role is Role.NONE:
            raise _stranger(f"{name}: is not known here")
        return Identity(name, self._socket_role)

    def _by_certificate(self, shown: Any) -> Identity:
        names = [*shown.get("x509_subject_alternative_name", ()), *shown.get("x509_common_name", ())]
        for name in (each.decode(errors="replace") for each in names):
            for known, role in self._identities.certificates:
                if known == name:
                    return Identity(f"cert:{name}", role)
        if names:
            raise _stranger(f"certificate {names[0].decode(errors='replace')}: is not known here")
        raise _stranger("caller: shows neither a token nor a certificate")


def _stranger(message: str) -> AccessError:
    error = AccessError(message, "give a valid token or certificate, or ask the node's operator for one")
    error.is_known = False
    return error


def _token(entry: dict[str, Any]) -> Token:
    expires = entry.get("expires")
    if expires is not None and (not isinstance(expires, dt.datetime) or expires.tzinfo is None):
        raise ValueError(f"expires {expires!r} isn't a time with its zone, such as 2027-01-01T00:00:00Z")
    _known(entry, {"name", "sha256", "role", "expires"})
    if not _SHA256.fullmatch(entry["sha256"]):
        raise ValueError("sha256 isn't a SHA-256 in lower-case hex")
    return Token(
        _name(entry["name"]), entry["sha256"], role_of(entry["role"]), None if expires is None else expires.timestamp()
    )


def _certificate(entry: dict[str, Any]) -> tuple[str, Role]:
    _known(entry, {"name", "role"})
    return _name(entry["name"]), role_of(entry["role"])


def _user(entry: dict[str, Any]) -> tuple[str, int, Role]:
    _known(entry, {"uid", "gid", "role"})
    kind = "uid" if "uid" in entry else "gid"
    if not isinstance(entry[kind], int) or isinstance(entry[kind], bool):
        raise TypeError(f"{kind} {entry[kind]!r} isn't a number")
    return kind, entry[kind], role_of(entry["role"])


def _known(entry: dict[str, Any], keys: set[str]) -> None:
    unknown = sorted(entry.keys() - keys)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"name {text!r} has other characters than letters, digits, '@', '_', '.', '-'")
    return text
