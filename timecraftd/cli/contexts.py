"""Contexts: nodes by name, with what it takes to be let in. Kept in the user's configuration directory."""

# contexts.toml:
#   current = "prod"          (left out: the embedded runtime)
#   [context.prod]
#   node = "node1.example.org:7443"
#   ca_file = "/etc/ssl/timecraft-ca.pem"    cert_file = ...    key_file = ...    token = ...     (may be left out)

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace

from timecraftd.config import ClientConfig
from timecraftd.errors import ConfigError, NotFoundError, UsageError

EMBEDDED = "embedded"
"""In place of a context or a node: the runtime in this command."""
FILE_BYTES_MAX = 1 << 20
MASK = "***"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class NodeContext:
    """A node, and what is shown to it."""

    node: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token: str = ""

    def shown(self) -> dict[str, str]:
        """For people: the token is masked."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: MASK if name == "token" else value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file holds."""

    current: str
    """Name of the context in use; empty for the embedded runtime."""
    contexts: dict[str, NodeContext]

    def get(self, name: str) -> NodeContext:
        """A context by name. Raises NotFoundError."""
        if name not in self.contexts:
            raise NotFoundError(f"context {name!r}: there is no such context", "`timecraft context list` lists all")
        return self.contexts[name]


def chosen(client: ClientConfig, node: str | None, context: str | None) -> NodeContext | None:
    """The node to go to, None for the embedded runtime: flags first, then the environment, then the file.

    Raises UsageError, NotFoundError, ConfigError.
    """
    if node is not None and context is not None:
        raise UsageError("--node and --context: are two nodes", "leave out one of them")
    if node is None and context is None:
        node, context = client.node or None, client.context or None
        if node is not None:
            context = None
    if EMBEDDED in (node, context):
        return None
    contexts = load(client.contexts_file)
    if node is not None:
        # What a context has is shown to its own node alone.
        found = next((each for each in contexts.contexts.values() if each.node == node), NodeContext(node))
    else:
        name = context or contexts.current
        if not name:
            return None
        found = contexts.get(name)
    given = {name: getattr(client, name) for name in ("token", "ca_file", "cert_file", "key_file")}
    return replace(found, **{name: value for name, value in given.items() if value})


def load(path: str) -> Contexts:
    """Reads the file; one that isn't there is empty. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path}: others may read it, and it may hold tokens", f"chmod 600 {path}")
            data = file.read(FILE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return Contexts("", {})
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "make it readable for you alone") from None
    import tomllib  # most users have no contexts

    try:
        return _contexts(tomllib.loads(data.decode()))
    except (ValueError, TypeError) as error:  # TOML and Unicode errors are ValueErrors
        raise ConfigError(f"{path}: {error}", "correct it, or remove it") from None


def save(path: str, contexts: Contexts) -> None:
    """Writes the file, readable for the user alone. Raises ConfigError."""
    lines = [f"current = {_text(contexts.current)}"] if contexts.current else []
    for name, context in contexts.contexts.items():
        lines += ["", f"[context.{_text(name)}]"]
        values = {item.name: getattr(context, item.name) for item in fields(context)}
        lines += [f"{key} = {_text(value)}" for key, value in values.items() if value]
    from timecraftd.registry.home import write_atomically

    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        write_atomically(path, ("\n".join(lines).lstrip() + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "set XDG_CONFIG_HOME to a directory of yours") from None


def check_name(name: str) -> None:
    """Raises UsageError for what can't be the name of a context."""
    if not _NAME.fullmatch(name) or name == EMBEDDED:
        raise UsageError(f"context {name!r}: isn't a name", "use letters, digits, '_', '.', '-', at most 63")


def _text(value: str) -> str:
    """A basic string of TOML; those of JSON are written like it."""
    import json

    return json.dumps(value, ensure_ascii=False)


def _contexts(table: dict[str, object]) -> Contexts:
    current, found = table.pop("current", ""), table.pop("context", {})
    if table:
        raise ValueError(f"unknown key {min(table)!r}")
    if not isinstance(current, str) or not isinstance(found, dict):
        raise TypeError("`current` isn't a text, or `context` isn't a table")
    contexts = {}
    for name, values in found.items():
        known = {item.name for item in fields(NodeContext)}
        if not isinstance(values, dict) or not values.get("node"):
            raise ValueError(f"context {name!r} has no node")
        wrong = sorted(key for key, value in values.items() if key not in known or not isinstance(value, str))
        if wrong:
            raise ValueError(f"context {name!r} has a key {wrong[0]!r} that isn't one, or isn't a text")
        contexts[name] = NodeContext(**values)
    if current and current not in contexts:
        raise ValueError(f"current context {current!r} isn't in it")
    return Contexts(current, contexts)
