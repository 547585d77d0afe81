"""`timecraft get`: list processes, modules, configs, runtimes, trees or logs."""

from __future__ import annotations

import argparse
import json

from timecraftd.cli.context import Context
from timecraftd.cli.parser import add_format
from timecraftd.cli.ps import print_processes, shorten
from timecraftd.cli.terminal import print_data, print_table
from timecraftd.cli.views import log_data, module_data, object_data, tree_data
from timecraftd.embedded import Runtime
from timecraftd.errors import LogError
from timecraftd.model import ObjectInfo, ObjectKind, ProcessId, ProcessRecord
from timecraftd.units import format_ago, format_size

KINDS = ("process", "module", "config", "runtime", "tree", "log")
DIGITS = 12
"""So much of a digest is shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `get`."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, type=singular, help=", ".join(KINDS))
    parser.add_argument("ids", metavar="ID", nargs="*", help="only these: id, unique prefix or name")
    parser.add_argument("-q", "--quiet", action="store_true", help="only ids")
    parser.add_argument("--no-trunc", action="store_true", help="whole ids and names")
    add_format(parser)


def singular(kind: str) -> str:
    """`modules` is `module`."""
    return {"processes": "process"}.get(kind, kind[:-1] if kind.endswith("s") and kind[:-1] in KINDS else kind)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the table."""
    runtime = context.runtime
    if args.kind in ("process", "log"):
        found = [runtime.process(reference) for reference in args.ids] if args.ids else runtime.processes()
        if args.kind == "process":
            print_processes(context, found, form=args.output, quiet=args.quiet, whole=args.no_trunc)
            return 0
        logs = [_log(runtime, process) for process in found if process.recorded]
        if args.output != "text":
            print_data(logs, args.output)
            return 0

        def shown_id(item: dict[str, object]) -> str:
            identity = ProcessId(str(item["id"]))
            return identity if args.no_trunc else runtime.registry.catalogue.short_id(identity)

        if args.quiet:
            print_ids([shown_id(item) for item in logs])
        else:
            header = ("ID", "RECORDS", "SEGMENTS", "STORED", "RAW", "END")
            print_table(header, [(shown_id(item), *_log_row(item)) for item in logs])
        return 0
    kind = ObjectKind(args.kind)
    infos = list(runtime.registry.objects.stored(kind))
    if args.ids:
        wanted = {runtime.registry.resolve_object(kind, reference) for reference in args.ids}
        infos = [info for info in infos if info.digest in wanted]
    infos.sort(key=lambda info: info.modified_ns, reverse=True)
    _print_objects(args, runtime, kind, infos)
    return 0


def _log(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    try:
        return log_data(runtime, process)
    except LogError as error:  # one damaged log must not hide the others
        return {"id": process.id, "error": str(error)}


def _print_objects(args: argparse.Namespace, runtime: Runtime, kind: ObjectKind, infos: list[ObjectInfo]) -> None:
    now_ns = runtime.now_ns()
    if args.output == "text" and not args.quiet:
        rows = []
        for info in infos:
            age = format_ago(now_ns - info.modified_ns)
            shown = info.digest if args.no_trunc else info.digest[:DIGITS]
            rows.append((shown, _summary(args, runtime, info), format_size(runtime.registry.object_bytes(info)), age))
        title = {"module": "NAME", "config": "COMMAND", "runtime": "ENGINE", "tree": "FILES"}[kind]
        print_table(("ID", title, "SIZE", "CREATED"), rows)
        return
    if args.quiet and args.output == "text":
        print_ids([info.digest if args.no_trunc else info.digest[:DIGITS] for info in infos])
        return
    show = {ObjectKind.MODULE: module_data, ObjectKind.TREE: tree_data}.get(kind, object_data)
    print_data([show(runtime, info) for info in infos], args.output)


def print_ids(ids: list[str]) -> None:
    """An id a line."""
    for identity in ids:
        print(identity)


def _summary(args: argparse.Namespace, runtime: Runtime, info: ObjectInfo) -> str:
    if info.kind is ObjectKind.MODULE:
        record = runtime.registry.module_record(info.digest)
        return record.name if record else "-"
    if info.kind is ObjectKind.TREE:
        return str(len(runtime.registry.trees.manifest(info.digest)["files"]))
    value = json.loads(runtime.registry.objects.get(info.kind, info.digest))
    if info.kind is ObjectKind.CONFIG:
        command = " ".join(value["args"])
        return command if args.no_trunc else shorten(command, 48)
    return f"{value.get('engine')} {value.get('engine_version')} (timecraft {value.get('version')})"


def _log_row(item: dict[str, object]) -> tuple[str, ...]:
    if "error" in item:
        return ("-", "-", "-", "-", str(item["error"]))
    end = item["end"]
    return (
        str(item["records"]),
        str(item["segments"]),
        format_size(int(str(item["bytes_stored"]))),
        format_size(int(str(item["bytes_raw"]))),
        str(end["kind"]) if isinstance(end, dict) else "none",
    )
