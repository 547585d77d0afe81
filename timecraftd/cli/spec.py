"""From what `run` was given to what a node is asked for."""

from __future__ import annotations

from timecraftd.api import convert
from timecraftd.api.v1 import process_pb2
from timecraftd.cli.target import Run
from timecraftd.errors import UsageError


def process_spec(asked: Run, module: str, *, is_local: bool) -> process_pb2.ProcessSpec:
    """The spec for a module that the node has, by digest. What wasn't given is left to the node. Raises UsageError."""
    request, flags, network = asked.request, asked.flags, asked.request.network
    secrets = {text.partition("=")[0] for text in flags.secret}
    for mount in request.mounts if not is_local else ():
        if mount.host and not mount.tree and not mount.host.startswith("/"):
            raise UsageError(f"--dir {mount.host}: isn't an absolute path on the node", "give one that is")
    spec = process_pb2.ProcessSpec(
        module=module,
        module_name=asked.module[1],
        name=request.name,
        labels=dict(request.labels),
        args=request.args,
        env=[_variable(item, secrets) for item in request.env],
        mounts=[
            process_pb2.Mount(
                host=mount.host,
                guest=mount.guest,
                read_only=mount.read_only,
                immutable=mount.tree is not None,
                tree=mount.tree or "",
            )
            for mount in request.mounts
        ],
        function=request.function or "",
        nans=request.nans,
        sockets=request.sockets,
        limits=process_pb2.Limits(
            memory_bytes=flags.memory,
            stack_bytes=flags.stack,
            open_files=flags.max_open_files,
            sockets=flags.max_sockets,
            disk_bytes=request.limits.disk_bytes,
            cpu=None if flags.cpu is None else convert.duration(flags.cpu),
            wall=None if flags.timeout is None else convert.duration(flags.timeout),
            log_bytes_per_s=flags.log_rate,
        ),
        network=process_pb2.Network(
            rules=[text for text, _ in network.rules],
            publish=network.publish,
            listen=network.listen,
            dial=network.dial,
            ca_file=network.ca_file,
        ),
        recording=process_pb2.Recording(
            off=flags.no_record,
            compression=flags.record_compression or "",
            output=flags.record_output or "",
            on_full=flags.on_log_full or "",
            durability=flags.record_durability or "",
            block_bytes_max=flags.record_batch_size or 0,
            log_bytes_max=flags.log_max or 0,
        ),
        chaos_ratio=request.chaos_ratio,
        chaos_seed=request.chaos_seed,
        interruptible=request.interruptible,
        isolated=flags.isolated,
    )
    if flags.restart is not None:
        spec.restart.CopyFrom(convert.restart_message(asked.policy))
    return spec


def _variable(item: bytes, secrets: set[str]) -> process_pb2.EnvVar:
    raw, _, value = item.partition(b"=")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise UsageError(f"--env {raw!r}: isn't a name in UTF-8", "a node takes no others") from None
    return process_pb2.EnvVar(name=name, value=value, secret=name in secrets)
