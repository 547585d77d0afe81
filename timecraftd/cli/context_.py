"""`timecraft context`: choose the node that commands are for."""

from __future__ import annotations

import argparse
from dataclasses import replace

from timecraftd.cli.context import Context
from timecraftd.cli.contexts import EMBEDDED, Contexts, NodeContext, check_name, load, save
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data, print_table
from timecraftd.errors import UsageError

FILES = ("ca_file", "cert_file", "key_file")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `context`."""
    parser.add_argument("action", metavar="ACTION", choices=("list", "use", "set", "rm"), help="list, use, set or rm")
    parser.add_argument("name", metavar="NAME", nargs="?", help=f"of the context; use {EMBEDDED}: no node")
    group = parser.add_argument_group("set", "what isn't given stays; an empty text takes it away")
    group.add_argument("--node", metavar="ADDRESS", help="HOST:PORT (TLS), or the path of a socket")
    group.add_argument("--ca", dest="ca_file", metavar="FILE", help="authorities of the node's certificate (PEM)")
    group.add_argument("--cert", dest="cert_file", metavar="FILE", help="certificate to show (PEM)")
    group.add_argument("--key", dest="key_file", metavar="FILE", help="its key (PEM)")
    group.add_argument("--token", metavar="TOKEN", help="bearer token to show; - reads it from standard input")
    add_format(parser)
    parser.description = (
        "Contexts are nodes by name. They are kept in timecraft/contexts.toml in the XDG configuration directory, "
        "which only you can read; tokens are never shown."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Shows or changes the file."""
    path = context.client_config.contexts_file
    if not path:
        raise UsageError("context: there is no place to keep them", "set XDG_CONFIG_HOME to a directory of yours")
    contexts = load(path)
    if args.action == "list":
        return _list(args, contexts)
    if args.name is None:
        raise UsageError(f"context {args.action}: names no context", "see `timecraft context --help`")
    change = {"use": _use, "set": _set, "rm": _remove}[args.action]
    save(path, change(args, contexts))
    return 0


def _list(args: argparse.Namespace, contexts: Contexts) -> int:
    items: dict[str, dict[str, str]] = {EMBEDDED: {}} | {name: each.shown() for name, each in contexts.contexts.items()}
    current = contexts.current or EMBEDDED
    if args.output != "text":
        print_data([{"name": name, "current": name == current, **item} for name, item in items.items()], args.output)
        return 0
    rows = []
    for name, item in items.items():
        shown = [word for word, key in (("certificate", "cert_file"), ("token", "token")) if key in item]
        rows.append(("*" if name == current else "", name, item.get("node", "-"), ", ".join(shown) or "-"))
    print_table(("", "NAME", "NODE", "SHOWS"), rows)
    return 0


def _use(args: argparse.Namespace, contexts: Contexts) -> Contexts:
    if args.name == EMBEDDED:
        return replace(contexts, current="")
    contexts.get(args.name)
    return replace(contexts, current=args.name)


def _set(args: argparse.Namespace, contexts: Contexts) -> Contexts:
    import os

    from timecraftd.api.client import parse_endpoint

    check_name(args.name)
    node = contexts.contexts.get(args.name, NodeContext())
    if args.node is not None:
        node = replace(node, node=parse_endpoint(args.node).address)
    if not node.node:
        raise UsageError(f"context {args.name}: has no node", "give --node ADDRESS")
    for key in FILES:
        value = getattr(args, key)
        if value is not None:
            node = replace(node, **{key: os.path.abspath(value) if value else ""})
    if args.token is not None:
        node = replace(node, token=_token(args.token))
    if bool(node.cert_file) != bool(node.key_file):
        raise UsageError(f"context {args.name}: a certificate and its key go together", "give --cert and --key")
    return replace(contexts, contexts=contexts.contexts | {args.name: node})


def _token(text: str) -> str:
    import sys

    token = sys.stdin.readline(4096).strip() if text == "-" else text
    if not token.isascii() or not token.isprintable():
        raise UsageError("--token: has characters that no token has", "give it as it was given to you")
    return token


def _remove(args: argparse.Namespace, contexts: Contexts) -> Contexts:
    contexts.get(args.name)
    rest = {name: each for name, each in contexts.contexts.items() if name != args.name}
    return Contexts("" if contexts.current == args.name else contexts.current, rest)
