"""Every error that Timecraft raises, on one page. docs/errors.md has a paragraph for each code.

A message reads `<thing>: <reason>`; `next_step` says what to do about it. Rust raises some of these too
(`crates/timecraft-py/src/error.rs`), with the message alone.
"""


class TimecraftError(Exception):
    """Root of all errors that Timecraft raises on purpose."""

    code = "TC0001"
    exit_code = 125

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        if not self.next_step:
            return self.message
        return f"{self.message}{chr(10) if chr(10) in self.message else '; '}{self.next_step}"


class UsageError(TimecraftError):
    """A command line or an argument that makes no sense."""

    code = "TC0002"


class ConfigError(TimecraftError):
    """A configuration file or an environment variable with a wrong key or value."""

    code = "TC0003"


class NotFoundError(TimecraftError):
    """A process, module, object or file that doesn't exist."""

    code = "TC0004"
    exit_code = 127


class AmbiguousIdError(TimecraftError):
    """A shortened id or a name that fits several things."""

    code = "TC0005"


class StateError(TimecraftError):
    """A state directory that can't be used: not a directory, not writable, full, or damaged."""

    code = "TC0006"


class StateVersionError(StateError):
    """A state directory or catalogue written by a newer Timecraft."""

    code = "TC0007"


class StateBusyError(StateError):
    """Something in the state directory is held by another process."""

    code = "TC0008"


class StateFullError(StateError):
    """A state directory without room."""

    code = "TC0029"


class ObjectDamagedError(StateError):
    """A stored object, or a tree's file, whose bytes no longer match the digest."""

    code = "TC0009"


class ArchiveError(TimecraftError):
    """An exported file that is damaged, hostile, too big, or not an export at all."""

    code = "TC0010"


class UnsupportedError(TimecraftError):
    """Something that this version doesn't do."""

    code = "TC0011"


class ProcessStateError(TimecraftError):
    """A process in the wrong state for what was asked, such as removing one that runs."""

    code = "TC0012"


class ModuleError(TimecraftError):
    """A module that can't run: not wasm, truncated, a component, unknown imports, no entry function."""

    code = "TC0013"
    exit_code = 126


class EngineError(TimecraftError):
    """The engine couldn't compile, load or start a module, for a reason that isn't the module's."""

    code = "TC0014"


class MountError(TimecraftError):
    """A directory to mount that doesn't exist, isn't a directory, can't be opened, or holds what a tree can't."""

    code = "TC0015"


class LogError(TimecraftError):
    """A log that can't be read or written."""

    code = "TC0016"


class LogVersionError(LogError):
    """A log in a format that this version doesn't know."""

    code = "TC0017"


class LogDamagedError(LogError):
    """A log with bytes missing or changed; the message says how far it is good."""

    code = "TC0018"


class ReplayRefusedError(TimecraftError):
    """A log that this runtime can't replay or resume exactly, so it doesn't try."""

    code = "TC0019"


class ReplayDivergedError(TimecraftError):
    """A replay in which the guest did something else than the log says."""

    code = "TC0020"


class NativeMissingError(TimecraftError):
    """The Rust extension isn't built or doesn't fit this Python."""

    code = "TC0021"


class PolicyError(TimecraftError):
    """A network policy that can't be understood."""

    code = "TC0022"


class NetworkError(TimecraftError):
    """A network that can't be made as asked: a port in use, an address that isn't the host's, no room for a guest."""

    code = "TC0023"


class PythonError(TimecraftError):
    """A Python program or its packages can't be run in a guest."""

    code = "TC0024"


class NodeError(TimecraftError):
    """A node that can't be reached, doesn't know who asks, doesn't let them, or didn't answer in time."""

    code = "TC0025"


class WorkerLostError(TimecraftError):
    """A worker process that ended while it was needed."""

    code = "TC0026"


class CapacityError(TimecraftError):
    """A node without room: its bounds are reached and its queue is full, or it is draining."""

    code = "TC0027"


class AccessError(TimecraftError):
    """Somebody who isn't known, or whose role doesn't allow what was asked."""

    code = "TC0028"
    is_known = True
    """Whether it is known who asks."""


class RemoteError(TimecraftError):
    """A store of logs beyond the disk that can't be reached, refuses, or doesn't hold what it should."""

    code = "TC0030"
