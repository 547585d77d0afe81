"""The text of policies: rules in a line of their own, and files of them.

    [allow|deny] [out|in] [tcp|udp] TARGET[:PORTS]

TARGET is an IP address or a CIDR (IPv6 with ports in brackets), a host's name, `*.example.com` (all names below it),
`*`, `host` (the host's own loopback), `guest:NAME` or `guest:*`; PORTS are like `443`, `80,443` or `8000-8999`.
A file is TOML with one key: `rules = ["allow example.com:443", ...]`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar, get_args

from timecraftd.errors import PolicyError
from timecraftd.model import is_name
from timecraftd.network.addresses import parse_network
from timecraftd.network.names import GUEST_SUFFIX, HOST_NAME, is_below, normalise_name
from timecraftd.network.policy import Direction, Policy, Rule, Target, Transport, Verdict

RULES_MAX = 1024
RULE_CHARACTERS_MAX = 1024
PORT_RANGES_MAX = 64
FILE_BYTES_MAX = 1 << 20

_VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
_TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
_RESERVED = {*_VERDICTS, *_DIRECTIONS, *_TRANSPORTS, "host", "guest", "all", "none"}
_WORDS = {
    "all": Rule("allow", "out", None, Target("any")),
    "none": Rule("deny", "out", None, Target("any")),
}
_PORT_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_TOML_TOKEN = re.compile(
    r"""#[^\n]*|\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'[^']*'|[\[\]{}=,]|[^\s#"'\[\]{}=,]+""",
    re.DOTALL,
)
_SYNTAX = "a rule reads `[allow|deny] [out|in] [tcp|udp] TARGET[:PORTS]`"
_FILE_SYNTAX = 'a file has one key: rules = ["allow example.com:443", ...]'

_Word = TypeVar("_Word", bound=str)


class _RuleError(ValueError):
    """A rule that can't be understood, and where in it."""

    def __init__(self, column: int, reason: str, next_step: str = _SYNTAX) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason
        self.next_step = next_step


def parse_policy(arguments: Sequence[str], read: Callable[[str], bytes] | None = None) -> Policy:
    """The policy of `--net` arguments in their order: rules, `all`, `none`, or paths of files (`*.toml`).

    Raises PolicyError, which says what is wrong where.
    """
    rules: list[Rule] = []
    for argument in arguments:
        if argument.endswith(".toml") and not argument.split()[1:]:
            rules += parse_file(argument, (read or _read)(argument))
            continue
        try:
            rules.append(parse_rule(argument, "--net"))
        except _RuleError as error:
            raise PolicyError(f"--net {argument!r}: {error.reason}", error.next_step) from None
    if len(rules) > RULES_MAX:
        raise PolicyError(f"--net: {len(rules)} rules are more than {RULES_MAX}", "put neighbouring ranges together")
    return Policy(tuple(rules))


def parse_file(path: str, data: bytes) -> list[Rule]:
    """Rules of a TOML file. Raises PolicyError with line and column."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise PolicyError(f"{path}:{line}:{column}: isn't UTF-8", "save it as UTF-8") from None
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse_toml(path, text, str(error))
    for key in table:
        if key != "rules":
            raise PolicyError(f"{path}:{_position(text, _key_offset(text, key))}: unknown key {key!r}", _FILE_SYNTAX)
    lines = table.get("rules", [])
    offsets = list(_rule_offsets(text))
    if not isinstance(lines, list) or len(offsets) != len(lines):
        where = _position(text, _key_offset(text, "rules"))
        raise PolicyError(f"{path}:{where}: `rules` isn't an array of texts", _FILE_SYNTAX)
    rules = []
    for line, offset in zip(lines, offsets, strict=True):
        if not isinstance(line, str):
            raise PolicyError(f"{path}:{_position(text, offset)}: {line!r} isn't a text", _FILE_SYNTAX)
        try:
            rules.append(parse_rule(line, f"{path}:{_position(text, offset).partition(':')[0]}"))
        except _RuleError as error:
            quotes = 3 if text.startswith(('"""', "'''"), offset) else 1
            where = _position(text, offset + quotes + error.column)
            raise PolicyError(f"{path}:{where}: {error.reason}", error.next_step) from None
    return rules


def parse_rule(text: str, origin: str = "") -> Rule:
    """One rule. Raises ValueError."""
    if len(text) > RULE_CHARACTERS_MAX:
        raise _RuleError(0, f"is longer than {RULE_CHARACTERS_MAX} characters")
    tokens = [(found.start(), found[0]) for found in re.finditer(r"\S+", text)]
    if len(tokens) == 1 and tokens[0][1].lower() in _WORDS:
        rule = _WORDS[tokens[0][1].lower()]
        return Rule(rule.verdict, rule.direction, rule.transport, rule.target, origin=origin)
    verdict = _keyword(tokens, _VERDICTS) or "allow"
    direction = _keyword(tokens, _DIRECTIONS) or "out"
    transport = _keyword(tokens, _TRANSPORTS)
    if not tokens:
        raise _RuleError(len(text), "names no target" if text.strip() else "is empty")
    (column, token), *rest = tokens
    if rest:
        hint = f"{token}:{rest[0][1]}" if _PORT_RANGE.fullmatch(rest[0][1]) else ""
        reason = f"{rest[0][1]!r} is too much after the target {token!r}"
        raise _RuleError(rest[0][0], reason, f"ports follow a colon: {hint}" if hint else _SYNTAX)
    target, ports = _parse_target(column, token)
    if direction == "in" and target.kind in ("name", "below"):
        raise _RuleError(column, "what comes in has an address but no name", "give an address, a CIDR or a guest")
    return Rule(verdict, direction, transport, target, ports, origin)


def format_rule(rule: Rule) -> str:
    """The shortest text that makes an equal rule, with its verdict."""
    words: list[str] = [rule.verdict]
    if rule.direction == "in":
        words.append("in")
    if rule.transport is not None:
        words.append(rule.transport)
    ports = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in rule.ports)
    words.append(_format_target(rule.target, with_ports=bool(ports)) + (f":{ports}" if ports else ""))
    return " ".join(words)


def _format_target(target: Target, *, with_ports: bool) -> str:
    match target.kind:
        case "any":
            return "*"
        case "network":
            assert target.network is not None, "what makes targets sees to it"
            single = target.network.prefixlen == target.network.max_prefixlen
            text = str(target.network.network_address) if single else str(target.network)
            return f"[{text}]" if with_ports and target.network.version == 6 else text
        case "below":
            return f"*.{target.name}"
        case "guest":
            return f"guest:{target.name or '*'}"
        case "host":
            return "host"
        case _:
            return f"{target.name}." if target.name in _RESERVED else target.name


def _keyword(tokens: list[tuple[int, str]], words: tuple[_Word, ...]) -> _Word | None:
    """Takes the first token if it is one of the words."""
    for word in words:
        if tokens and tokens[0][1].lower() == word:
            del tokens[0]
            return word
    return None


def _parse_target(column: int, token: str) -> tuple[Target, tuple[tuple[int, int], ...]]:
    """A target and its ports, of a token that begins at a column."""
    if "//" in token:
        raise _RuleError(column, f"{token!r} is a URL", "give a name and a port: example.com:443")
    text, ports = _split(column, token)
    ranges = () if ports is None else _parse_ports(column + len(token) - len(ports), ports)
    if text == "*":
        return Target("any"), ranges
    if text.lower().startswith("guest:"):
        return _guest(column, text[6:]), ranges
    if re.search(r"[:/\[]", text) or re.fullmatch(r"[0-9.]+", text):
        return _range(column, text.strip("[]")), ranges
    return _named(column, text), ranges


def _split(column: int, token: str) -> tuple[str, str | None]:
    """Target and ports; None if there is no colon that ports could follow."""
    if token.startswith("["):
        text, bracket, rest = token.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise _RuleError(column, f"{token!r} isn't [ADDRESS]:PORTS", "close the bracket right before the colon")
        return text + bracket, rest[1:] if rest else None
    if token.lower().startswith("guest:"):
        name, colon, ports = token[6:].partition(":")
        return token[:6] + name, ports if colon else None
    if token.count(":") > 1:
        return token, None
    text, colon, ports = token.partition(":")
    return text, ports if colon else None


def _parse_ports(column: int, text: str) -> tuple[tuple[int, int], ...]:
    """Sorted ranges without overlap; empty for `*`."""
    if text == "*":
        return ()
    ranges = []
    for part in text.split(","):
        found = _PORT_RANGE.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last <= 65535:
            reason = f"{part!r} isn't a port from 1 to 65535, nor a range of them"
            raise _RuleError(column, reason, "write ports like 443, 80,443 or 8000-8999")
        ranges.append((first, last))
        column += len(part) + 1
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    if len(merged) > PORT_RANGES_MAX:
        raise _RuleError(column, f"has more than {PORT_RANGES_MAX} ranges of ports", "use several rules")
    return tuple(merged)


def _range(column: int, text: str) -> Target:
    try:
        return Target("network", network=parse_network(text))
    except ValueError as error:
        next_step = "write addresses like 10.0.0.0/8, 192.0.2.1:443 or [2001:db8::1]:443"
        if "has host bits set" in str(error):
            address, _, bits = text.partition("/")
            next_step = f"write {parse_network(f'{address}/{bits}', strict=False)}, or {address} alone"
            raise _RuleError(column, f"{text!r} has bits set beyond its prefix", next_step) from None
        reason = str(error) if "zone" in str(error) else f"{text!r} isn't an IP address or a CIDR"
        raise _RuleError(column, reason, next_step) from None


def _named(column: int, text: str) -> Target:
    wildcard = text.startswith("*.")
    if "*" in text[wildcard:]:
        reason = f"{text!r} has a star within; one stands for whole labels at the beginning only"
        raise _RuleError(column, reason, "write *.example.com")
    if text.lower() == "host":
        return Target("host")
    try:
        name = normalise_name(text[2:] if wildcard else text)
    except ValueError as error:
        raise _RuleError(column, f"{text!r} {error}", "correct the name, or give an address") from None
    if name == "localhost" or is_below(name, "localhost"):
        raise _RuleError(column, f"{text!r} is the guest itself", "for the host's loopback write `host`")
    if wildcard:
        return Target("guest") if name == GUEST_SUFFIX else Target("below", name)
    if is_below(name, GUEST_SUFFIX):
        return _guest(column, name.removesuffix(f".{GUEST_SUFFIX}"))
    return Target("host") if name == HOST_NAME else Target("name", name)


def _guest(column: int, name: str) -> Target:
    if name != "*" and not is_name(name):
        raise _RuleError(column, f"{name!r} can't be a guest's name", "write guest:NAME or guest:*")
    return Target("guest", "" if name == "*" else name.lower())


# ---- where things are in a TOML file; tomllib has accepted its syntax already


def _rule_offsets(text: str) -> Iterator[int]:
    """Where each item of the array `rules` begins."""
    depth, previous, key, is_first = 0, "", "", False
    for token in _TOML_TOKEN.finditer(text):
        if token[0].startswith("#"):
            continue
        if token[0] == "=" and depth == 0:
            key = previous.strip("\"'")
        elif key == "rules" and depth == 1 and is_first and token[0] not in ",]":
            yield token.start()
        is_first = token[0] in "[,"
        depth += (token[0] in "[{") - (token[0] in "]}")
        previous = token[0]


def _key_offset(text: str, key: str) -> int:
    for token in _TOML_TOKEN.finditer(text):
        if token[0].strip("\"'").split(".")[0].strip("\"'") == key:
            return token.start()
    return 0


def _position(text: str, offset: int) -> str:
    """`line:column`, counted from 1."""
    return f"{text.count(chr(10), 0, offset) + 1}:{offset - text.rfind(chr(10), 0, offset)}"


def _refuse_toml(path: str, text: str, message: str) -> NoReturn:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    where = f"{found[1]}:{found[2]}" if found else _position(text, len(text))
    reason = message.rpartition(" (at ")[0] or message
    raise PolicyError(f"{path}:{where}: {reason}", "correct the TOML there") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}", "correct --net or the file") from None
    if len(data) > FILE_BYTES_MAX:
        raise PolicyError(f"{path}: is longer than {FILE_BYTES_MAX} bytes", "put neighbouring ranges together")
    return data
