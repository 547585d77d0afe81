"""Configuration: frozen dataclasses, and the only reader of the environment and of the configuration file.

Values come, later ones winning, from the defaults here, the TOML file (`$TIMECRAFT_CONFIG`, else
`$XDG_CONFIG_HOME/timecraft/config.toml` if there is one), and variables `TIMECRAFT_<SECTION>_<KEY>`.
The end of a key's name says how its value is read: `_bytes` and `_bytes_max` are sizes (`64MiB`), `_s` and `_s_max`
durations (`1.5s`), other `_max` plain numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from timecraftd.errors import ConfigError, UsageError
from timecraftd.units import format_duration_exact, format_size_exact, parse_duration_ns, parse_size

Value = int | float | str | None
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Default bounds of a process; the flags of `run` override them. None: no bound."""

    memory_bytes_max: int = 4096 * MIB
    stack_bytes_max: int = 8 * MIB
    open_files_max: int = 1024
    sockets_max: int = 1024
    disk_bytes_max: int | None = None
    cpu_s_max: float | None = None
    wall_s_max: float | None = None
    log_bytes_per_s_max: int | None = None


@dataclass(frozen=True, slots=True)
class RecordConfig:
    """How runs are recorded."""

    compression: str = "lz4"
    output: str = "inline"
    on_full: str = "wait"
    """What happens when the log can't be written: the guest waits (`wait`), is stopped (`stop`), or, for want of room,
    runs on unrecorded (`continue`)."""
    wait_s_max: float | None = None
    """How long `wait` waits before it stops the guest; none: as long as it takes."""
    durability: str = "flush"
    """`flush`: a power cut loses at most what happened within `flush_s`; `sync`: besides, nothing that came before an
    output is ever lost, and each output waits for the disk."""
    flush_s: float = 0.1
    ring_bytes: int = 8 * MIB
    block_bytes_max: int = 64 << 10
    segment_bytes_max: int = 64 * MIB
    log_bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """Where logs go beyond the disk. Credentials are those of AWS's standard chain, never of this file."""

    url: str = ""
    """`s3://BUCKET/PREFIX`; empty: logs stay where they are."""
    endpoint_url: str = ""
    """Of a store that isn't Amazon's."""
    region: str = ""
    addressing: str = "auto"
    """Of buckets: in the `path` of a URL, or in the name of its host (`virtual`)."""
    seal_age_s: float = 30.0
    """A segment with records in it is sealed, and goes to the store, when it is so old."""
    uploads_max: int = 4
    """Requests that send something, at one time."""
    request_s_max: float = 60.0
    """A request that wasn't answered by then is made again."""
    local_bytes_max: int = 8192 * MIB
    """What isn't in the store yet, of all processes, before `when_full` holds."""
    when_full: str = "wait"
    """`wait`: guests wait until there is room again; `continue`: the disk is the bound."""
    cache_bytes_max: int = 1024 * MIB
    """What was read from the store and is kept."""
    keep_local_s: float | None = None
    """How long logs that are wholly in the store stay on the disk of a node, since their ends; none: for ever."""
    delete_grace_s: float = 3600.0
    """How long what is deleted there stays for those who read it."""


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """Which processes that ended a node removes, with their logs: those beyond any of these bounds. None: no bound."""

    every_s: float = 600.0
    """How often it is looked for them."""
    age_s_max: float | None = None
    """Since their ends."""
    succeeded_age_s_max: float | None = None
    """The same for those that exited with 0, if they are to go sooner."""
    processes_max: int | None = None
    """The newest so many stay."""
    log_bytes_max: int | None = None
    """The newest whose logs take so much on the disk stay."""
    crashed: str = "keep"
    """Whether those that could be resumed go too: `keep` or `remove`."""
    remote_age_s_max: float | None = None
    """Since their ends; of processes in the store (`remote.url`), whoever ran them."""
    remote_bytes_max: int | None = None
    """The newest whose logs take so much in the store stay."""


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The cache of machine code."""

    artifact_bytes_max: int = 1024 * MIB


@dataclass(frozen=True, slots=True)
class RestartConfig:
    """Waits between restarts of `run --restart`."""

    backoff_s_min: float = 0.1
    backoff_s_max: float = 60.0
    healthy_s: float = 10.0
    """A run this long starts the waits over."""


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """What `import` accepts."""

    archive_bytes_max: int = 1 << 40
    member_bytes_max: int = 16 << 30
    members_max: int = 100_000


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The gateway between guests and the network."""

    guests_ipv4: str = "10.86.0.0/16"
    """Ranges that guests' own addresses are taken from."""
    guests_ipv6: str = "fd74:696d:6563::/64"
    ca_file: str = ""
    """PEM file of the authorities that host TLS trusts; empty: the system's."""
    connect_s_max: float = 30.0
    lookup_s_max: float = 10.0
    handshake_s_max: float = 10.0
    names_s_max: float = 3600.0
    """How long a rule with a name admits an address that the name had."""
    names_max: int = 4096
    """Addresses of one guest that are remembered with their names."""
    dials_max: int = 8192
    """Connections that are being made at one time; one guest may make half of them."""
    lookups_max: int = 8
    """Names that are looked up at one time for one guest."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The node daemon. Lists are texts with commas."""

    name: str = ""
    """What the node calls itself; empty: the machine's host name."""
    socket: str = ""
    """Unix socket of the control plane; empty: node.sock in the state directory; `none`: no such socket."""
    socket_mode: str = "0660"
    socket_group: str = ""
    """Group that may connect; empty: the daemon's own."""
    listen: str = ""
    """HOST:PORT of the control plane over TLS; empty: none."""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    """Authorities of the certificates that clients must show (mTLS); empty: clients show tokens."""
    identities_file: str = ""
    """TOML file of tokens (hashed), certificates and users with their roles; empty: identities.toml in the state
    directory, if it is there."""
    socket_role: str = "operator"
    """Role of those who come through the Unix socket and aren't in the file."""
    metrics_listen: str = ""
    """HOST:PORT of /metrics; empty: none."""
    message_bytes_max: int = 4 * MIB
    """Of one gRPC message."""
    calls_max: int = 4096
    """gRPC calls at one time."""
    processes_max: int = 1024
    """Processes that run at one time."""
    queue_max: int = 1024
    """Processes that wait for room."""
    memory_bytes_max: int | None = None
    """Linear memory that running processes are promised together; none: 80 % of the machine's."""
    memory_bytes_reckoned: int = 64 * MIB
    """What a process is promised of its limit: guests rarely use it whole."""
    placement: str = "shared"
    """`shared`: workers host many guests; `isolated`: each guest has a worker to itself."""
    confine: str = "on"
    """Whether workers give up, by seccomp, the system calls that no guest's work needs."""
    worker_processes_max: int = 256
    """Guests of one shared worker."""
    restart: str = "no"
    """Restart policy of processes that ask for none: no, on-failure[:N], always, resume."""
    mounts_allowed: str = ""
    """Directories that may be mounted by those who aren't operators; empty: none."""
    on_stop: str = "checkpoint"
    """SIGTERM and running processes: `checkpoint` leaves them resumable, and they are resumed at the next start;
    `finish` waits for their ends; `stop` ends them; `leave` lets their workers run on for the next daemon."""
    stop_s_max: float = 60.0
    """After so long a stop is no longer gentle."""
    log_format: str = "plain"
    """`plain` or `json`."""
    uploads_bytes_max: int = 4096 * MIB
    """Modules that are being uploaded, together."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured."""

    home: str = ""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    restart: RestartConfig = field(default_factory=RestartConfig)
    imports: ImportConfig = field(default_factory=ImportConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    source: str = ""
    """The file that was read; empty if none was."""
    debug: bool = False
    """Show tracebacks of errors (TIMECRAFT_DEBUG)."""
    color: bool = True
    """False if NO_COLOR is set."""

    @property
    def node_name(self) -> str:
        """What this machine's node calls itself."""
        return self.node.name or os.uname().nodename


CHOICES = {
    "record.compression": ("lz4", "none"),
    "record.output": ("inline", "digest"),
    "record.on_full": ("wait", "stop", "continue"),
    "record.durability": ("flush", "sync"),
    "remote.addressing": ("auto", "path", "virtual"),
    "remote.when_full": ("wait", "continue"),
    "retention.crashed": ("keep", "remove"),
    "node.confine": ("on", "off"),
    "node.placement": ("shared", "isolated"),
    "node.on_stop": ("checkpoint", "finish", "stop", "leave"),
    "node.log_format": ("plain", "json"),
    "node.socket_role": ("viewer", "runner", "operator", "none"),
}
RANGES = {
    "limits.memory_bytes_max": (65536, 4096 * MIB),
    "limits.stack_bytes_max": (64 << 10, 1024 * MIB),
    "limits.open_files_max": (3, 1 << 20),
    "limits.sockets_max": (0, 1 << 20),
    "record.ring_bytes": (4 * MIB, 1024 * MIB),  # a record of up to 4 MiB must fit
    "record.block_bytes_max": (4 << 10, MIB),
    "record.segment_bytes_max": (MIB, 4096 * MIB),
    "remote.uploads_max": (1, 64),
    "remote.local_bytes_max": (64 * MIB, 1 << 50),
    "network.names_max": (1, 1 << 20),
    "network.dials_max": (2, 1 << 20),
    "network.lookups_max": (1, 256),
    "node.message_bytes_max": (2 * MIB, 64 * MIB),
    "node.calls_max": (16, 1 << 20),
    "node.processes_max": (1, 1 << 20),
    "node.queue_max": (0, 1 << 20),
    "node.worker_processes_max": (1, 1 << 16),
}
"""Smallest and largest value of the keys where it matters."""
ABOVE_ZERO = (
    "limits.cpu_s_max",
    "limits.wall_s_max",
    "limits.log_bytes_per_s_max",
    "record.log_bytes_max",
    "record.wait_s_max",
    "record.flush_s",
    "remote.seal_age_s",
    "remote.request_s_max",
    "retention.every_s",
    "network.connect_s_max",
    "network.lookup_s_max",
    "network.handshake_s_max",
    "network.names_s_max",
    "node.stop_s_max",
)
"""Bounds below which nothing at all could run."""
SECTIONS = ("limits", "record", "remote", "retention", "cache", "restart", "imports", "network", "node")


def load_config(environ: Mapping[str, str] | None = None) -> Config:
    """The effective configuration. Raises ConfigError."""
    env = os.environ if environ is None else environ
    path = env.get("TIMECRAFT_CONFIG") or _xdg(env, "XDG_CONFIG_HOME", ".config", "timecraft/config.toml")
    text = _read_text(path, required=bool(env.get("TIMECRAFT_CONFIG"))) if path else None
    config = Config(
        home=_xdg(env, "XDG_STATE_HOME", ".local/state", "timecraft"),
        source=path if text is not None else "",
        debug=env.get("TIMECRAFT_DEBUG", "") not in ("", "0"),
        color=not env.get("NO_COLOR"),
    )
    if text is not None:
        config = _apply_text(config, text, path)
    if env.get("TIMECRAFT_HOME"):
        config = replace(config, home=env["TIMECRAFT_HOME"])
    for variable in sorted(env):
        # Other variables of this prefix, such as the version that a package carries, are no settings.
        section, underscore, name = variable.removeprefix("TIMECRAFT_").lower().partition("_")
        if variable.startswith("TIMECRAFT_") and underscore and section in SECTIONS:
            config = _apply_key(config, section, name, env[variable], variable)
    return replace(config, home=_absolute(config.home))


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What the environment says of the node that the command line is for; empty is nothing."""

    contexts_file: str
    """Where contexts are kept (`timecraft context`)."""
    node: str
    """TIMECRAFT_NODE: an address."""
    context: str
    """TIMECRAFT_CONTEXT: name of a context."""
    token: str
    """TIMECRAFT_TOKEN; this and the others take the place of what a context has."""
    ca_file: str
    cert_file: str
    key_file: str


def load_client_config(environ: Mapping[str, str] | None = None) -> ClientConfig:
    """Where the command line finds its node."""
    env = os.environ if environ is None else environ
    return ClientConfig(
        _xdg(env, "XDG_CONFIG_HOME", ".config", "timecraft/contexts.toml"),
        *(
            env.get(f"TIMECRAFT_{name}", "")
            for name in ("NODE", "CONTEXT", "TOKEN", "CA_FILE", "CERT_FILE", "KEY_FILE")
        ),
    )


def host_variable(name: str) -> str | None:
    """A variable of the host's environment, for `run -e NAME`."""
    return os.environ.get(name)


def check_value(key: str, value: Value, where: str) -> None:
    """Holds a value against its choices and range. Raises ConfigError."""
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{where}: {value!r} isn't one of {', '.join(CHOICES[key])}", "correct the value")
    if key in RANGES and isinstance(value, int | float):
        low, high = RANGES[key]
        if not low <= value <= high:
            form = format_size_exact if "_bytes" in key else str
            raise ConfigError(f"{where}: {form(int(value))} isn't between {form(low)} and {form(high)}", "correct it")
    if key in ABOVE_ZERO and value == 0:
        raise ConfigError(f"{where}: isn't above zero", "correct it, or leave it out for no bound")
    if key == "record.ring_bytes" and isinstance(value, int) and value & value - 1:
        raise ConfigError(f"{where}: {format_size_exact(value)} isn't a power of two", "correct it")


def check_given(key: str, value: Value, where: str) -> None:
    """The same for what was given in place of the configured value. Raises UsageError."""
    try:
        check_value(key, value, where)
    except ConfigError as error:
        raise UsageError(
            error.message, f"use {' or '.join(CHOICES[key])}" if key in CHOICES else "correct it"
        ) from None


def to_table(config: Config) -> dict[str, object]:
    """The configuration as a plain table, values as they are written in the file."""
    table: dict[str, object] = {"home": config.home}
    for section in SECTIONS:
        part = getattr(config, section)
        table[section] = {item.name: _written(item.name, getattr(part, item.name)) for item in fields(part)}
    return table


def to_toml(config: Config) -> str:
    """The configuration as a TOML file that would make it. Keys without a value are comments."""
    import json

    lines = [f"# read from {config.source}" if config.source else "# defaults and environment; no file was read"]
    for key, value in to_table(config).items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]"]
            lines += [
                f"{name} = {json.dumps(item)}" if item is not None else f"# {name} =" for name, item in value.items()
            ]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _xdg(env: Mapping[str, str], variable: str, fallback: str, name: str) -> str:
    """A path in one of the XDG directories; empty if the user has no directory to put it below."""
    if os.path.isabs(env.get(variable, "")):
        return os.path.join(env[variable], name)
    home = env.get("HOME") or _user_directory()
    return os.path.join(home, fallback, name) if home else ""


def _user_directory() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _absolute(home: str) -> str:
    if not home:
        raise ConfigError("state directory: HOME isn't set", "set TIMECRAFT_HOME to a directory of yours")
    try:
        return os.path.abspath(os.path.expanduser(home))
    except FileNotFoundError:
        raise ConfigError(
            f"state directory {home}: the current directory is gone", "set TIMECRAFT_HOME to an absolute path"
        ) from None


def _read_text(path: str, *, required: bool) -> str | None:
    try:
        with open(path, "rb") as file:
            data = file.read(MIB)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if required or isinstance(error, PermissionError):
            raise ConfigError(f"{path}: {error.strerror}", "correct TIMECRAFT_CONFIG or the file") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "correct TIMECRAFT_CONFIG or the file") from None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}", "correct the file") from None


def _apply_text(config: Config, text: str, path: str) -> Config:
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", "correct the file") from None
    for key, value in table.items():
        if key == "home" and isinstance(value, str):
            config = replace(config, home=value)
        elif key in SECTIONS and isinstance(value, dict):
            for name, item in value.items():
                config = _apply_key(config, key, name, item, f"{path}{_line(text, key, name)}: {key}.{name}")
        else:
            where = f"{path}{_line(text, '', key)}"
            raise ConfigError(f"{where}: unknown key {key!r}", "`timecraft config` prints the keys that exist")
    return config


def _line(text: str, section: str, key: str) -> str:
    """`:N` for the line of a key in a section, which TOML's reader doesn't tell; empty if it is written unusually."""
    here = ""
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].strip()
        if words.startswith("["):
            here = words.strip("[] ")
            if not section and here.partition(".")[0] == key:
                return f":{number}"
        elif here == section and words.partition("=")[0].strip(" \"'") == key:
            return f":{number}"
    return ""


def _apply_key(config: Config, section: str, name: str, value: object, where: str) -> Config:
    part = getattr(config, section)
    if name not in {item.name for item in fields(part)}:
        raise ConfigError(f"{where}: no such key", "`timecraft config` prints the keys that exist")
    optional = getattr(type(part)(), name) is None
    parsed = _parse(name, value, where, optional=optional)
    check_value(f"{section}.{name}", parsed, where)
    return replace(config, **{section: replace(part, **{name: parsed})})


def _parse(name: str, value: object, where: str, *, optional: bool) -> Value:
    if value in ("", "none") and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError(f"{where}: {value!r} isn't a number or a text", "correct the value")
    try:
        if "_bytes" in name:
            return parse_size(str(value))
        if name.endswith(("_s", "_s_max", "_s_min")):
            return parse_duration_ns(str(value)) / 1e9
        return _whole_number(str(value)) if name.endswith("_max") else str(value)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}", "correct the value") from None


def _whole_number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} isn't a whole number")
    return int(text)


def _written(name: str, value: Value) -> Value:
    if value is None:
        return None
    if "_bytes" in name:
        return format_size_exact(int(value))
    if name.endswith(("_s", "_s_max", "_s_min")):
        return format_duration_exact(round(float(value) * 1e9))
    return value
