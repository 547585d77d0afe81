"""`timecraft node`: look at nodes, or empty one."""

from __future__ import annotations

import argparse
from typing import Any

from timecraftd.cli.context import Context
from timecraftd.cli.contexts import NodeContext, load
from timecraftd.cli.parser import add_format, duration_ns
from timecraftd.cli.terminal import print_data, print_fields, print_table
from timecraftd.errors import TimecraftError
from timecraftd.units import format_size, format_span, rfc3339


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `node`."""
    parser.add_argument("action", metavar="ACTION", choices=("list", "info", "drain"), help="list, info or drain")
    parser.add_argument("--cancel", action="store_true", help="drain: take processes again")
    parser.add_argument(
        "--stop-after", metavar="TIME", type=duration_ns, help="drain: stop what still runs after so long"
    )
    add_format(parser)
    parser.description = (
        "list: the nodes of all contexts. info: what a node is, has and does. drain: it takes no more processes, and "
        "this waits for the end of those that it has."
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints, or waits."""
    if args.action == "list":
        return _list(args, context)
    node = context.node()
    if args.action == "drain":
        node.drain(cancel=args.cancel, stop_after_ns=args.stop_after)
        return 0
    about = node.about()
    about["started_at"], started_ns = rfc3339(int(str(about["started_at"]))), int(str(about["started_at"]))
    if args.output != "text":
        print_data(about, args.output)
        return 0
    capacity: Any = about["capacity"]
    workers: Any = about["workers"]
    print_fields(
        [
            ("name", about["name"]),
            ("address", about["address"]),
            ("you are", f"{about['identity']}, {about['role']}"),
            ("state", about["state"]),
            ("up", format_span(context.now_ns() - started_ns)),
            ("processes", f"{capacity['processes']} of {capacity['processes_max']}"),
            ("queued", f"{capacity['queued']} of {capacity['queue_max']}"),
            ("memory", f"{format_size(capacity['memory_bytes'])} of {format_size(capacity['memory_bytes_max'])}"),
            ("workers", [_worker(worker) for worker in workers]),
            ("build", about["build"]),
        ]
    )
    return 0


def _list(args: argparse.Namespace, context: Context) -> int:
    from timecraftd.cli.remote import NodeTarget

    contexts = load(context.client_config.contexts_file)
    nodes = dict(contexts.contexts)
    if context.node_flag:
        nodes = {"": NodeContext(context.node_flag)}
    found = []
    for name, node in nodes.items():
        item: dict[str, Any] = {"context": name or None, "address": node.node}
        try:
            target = NodeTarget(context, node)
            try:
                about: dict[str, Any] = target.about()
            finally:
                target.close()
            item |= {"name": about["name"], "state": about["state"], "version": about["build"]["version"]}
            item |= {"processes": about["capacity"]["processes"], "queued": about["capacity"]["queued"]}
        except TimecraftError as error:  # one that is down must not hide the others
            item |= {"state": "unreachable", "error": str(error)}
        found.append(item)
    if args.output != "text":
        print_data(found, args.output)
        return 0
    header = ("CONTEXT", "ADDRESS", "NAME", "STATE", "VERSION", "PROCESSES")
    keys = ("context", "address", "name", "state", "version", "processes")
    print_table(header, [["-" if item.get(key) is None else str(item[key]) for key in keys] for item in found])
    return 0


def _worker(worker: dict[str, Any]) -> str:
    isolated = ", isolated" if worker["isolated"] else ""
    memory = format_size(worker["memory_bytes"])
    return f"{worker['name']} (pid {worker['pid']}): {worker['processes']} processes, {memory}{isolated}"
