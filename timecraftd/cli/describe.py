"""`timecraft describe`: one process, module, config, runtime, tree or log in detail."""

from __future__ import annotations

import argparse
import json

from timecraftd.cli.context import Context
from timecraftd.cli.get import DIGITS, KINDS, singular
from timecraftd.cli.parser import add_format
from timecraftd.cli.terminal import print_data, print_fields
from timecraftd.cli.views import log_data, module_data, network_data, object_data, process_data, tree_data
from timecraftd.embedded import Runtime
from timecraftd.errors import TimecraftError
from timecraftd.model import ObjectInfo, ObjectKind, ProcessRecord
from timecraftd.units import format_duration, format_size, rfc3339


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `describe`."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, type=singular, help=", ".join(KINDS))
    parser.add_argument("id", metavar="ID", help="id, unique prefix or name")
    add_format(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Prints the details."""
    data = describe(context.runtime, args.kind, args.id)
    if args.output != "text":
        print_data(data, args.output)
    else:
        print_fields([(_label(name), _shown(name, value)) for name, value in data.items()])
    return 0


def describe(runtime: Runtime, kind: str, reference: str) -> dict[str, object]:
    """All that is known of one thing. Raises NotFoundError, AmbiguousIdError, LogError."""
    if kind == "log":
        return log_data(runtime, runtime.process(reference))
    if kind == "process":
        return _process(runtime, runtime.process(reference))
    object_kind = ObjectKind(kind)
    digest = runtime.registry.resolve_object(object_kind, reference)
    data = runtime.registry.objects.get(object_kind, digest)
    info = next(info for info in runtime.registry.objects.stored(object_kind) if info.digest == digest)
    if object_kind is ObjectKind.MODULE:
        return _module(runtime, info, data)
    return _tree(runtime, info) if object_kind is ObjectKind.TREE else object_data(runtime, info)


def _tree(runtime: Runtime, info: ObjectInfo) -> dict[str, object]:
    manifest = runtime.registry.trees.manifest(info.digest)
    path = runtime.registry.trees.path(info.digest)
    return tree_data(runtime, info) | {
        "directories": manifest["directories"],
        "links": [{"path": path, "target": target} for path, target in manifest["links"].items()],
        "contents": [
            {
                "path": path,
                "size_bytes": file["size"],
                "modified_at": rfc3339(file["mtime_ns"]),
                "sha256": file["sha256"],
            }
            for path, file in manifest["files"].items()
        ],
        "processes": [process.id for process in runtime.processes() if path in runtime.trees_of(process)],
    }


def _process(runtime: Runtime, process: ProcessRecord) -> dict[str, object]:
    data = process_data(runtime, process)
    try:
        config = json.loads(runtime.registry.objects.get(ObjectKind.CONFIG, process.config))
        data |= {name: config[name] for name in ("args", "env", "mounts", "function", "limits", "chaos")}
        data["network"] = network_data(runtime, process, config.get("network", {}))
    except TimecraftError as error:
        data["config_error"] = str(error)
    if process.recorded:
        try:
            log = log_data(runtime, process)
            log.pop("id")
            data["log"] = log
        except TimecraftError as error:
            data["log_error"] = str(error)
        try:
            runtime.check_replayable(process)
            data["replayable"] = True
        except TimecraftError as error:
            data |= {"replayable": False, "replay_error": str(error)}
    return data


def _module(runtime: Runtime, info: ObjectInfo, wasm: bytes) -> dict[str, object]:
    data = module_data(runtime, info)
    inspected = runtime.engine.inspect(wasm)
    data |= {
        "memory_min_bytes": inspected.memory_min_bytes,
        "memory_max_bytes": inspected.memory_max_bytes,
        "functions": inspected.functions,
        "imports": [{"module": module, "name": name, "type": kind} for module, name, kind in inspected.imports],
        "exports": [{"name": name, "type": kind} for name, kind in inspected.exports],
        "processes": [process.id for process in runtime.processes() if process.module == info.digest],
    }
    return data


def _label(name: str) -> str:
    """A field's name without its unit: the value shows that."""
    return name.removesuffix("_bytes").removesuffix("_ns").replace("_bytes_", " ").replace("_", " ")


def _shown(name: str, value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if "bytes" in name:
            return format_size(value)
        return format_duration(value) if name.endswith("_ns") else value
    if isinstance(value, dict):
        return {_label(key): _shown(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_line(item) for item in value]
    return value


def _line(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    if "host" in item and "guest" in item:
        mode = " (read-only)" if item["read_only"] else ""
        mode = f" (immutable, tree {item['tree'][:DIGITS]})" if item.get("tree") else mode
        return f"{item['host']} at {item['guest']}{mode}"
    return " ".join(str(value) for value in item.values() if value != "")
