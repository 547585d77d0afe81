"""`run --detach`: a host of its own for the guest, in the background."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NoReturn

from timecraftd import errors
from timecraftd.cli.context import Context
from timecraftd.cli.supervise import supervise
from timecraftd.engine.request import RunRequest
from timecraftd.supervisor.restarts import RestartPolicy

if TYPE_CHECKING:
    from timecraftd.model import ModuleFile
    from timecraftd.running import Running

HANDSHAKE_BYTES_MAX = 1 << 16


def detach(
    context: Context, module: tuple[bytes | ModuleFile, str], request: RunRequest, policy: RestartPolicy
) -> tuple[str, list[str]]:
    """Starts the guest in a new session; its id, and published ports. Errors until it runs are raised here."""
    context.close()
    context.forget_runtime()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    # The extension isn't loaded yet, so there are no threads that a fork would lose.
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _host(context, module, request, policy, write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        message = pipe.read(HANDSHAKE_BYTES_MAX)
    answer = json.loads(message) if message else {}
    if "id" in answer:
        return answer["id"], answer["published"]
    os.waitpid(pid, 0)
    kind = getattr(errors, answer.get("error", ""), errors.EngineError)
    raise kind(answer.get("message", "the host process ended before the guest ran"), answer.get("next_step", ""))


def _host(
    context: Context, module: tuple[bytes | ModuleFile, str], request: RunRequest, policy: RestartPolicy, pipe: int
) -> NoReturn:
    code = 125
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        told = False

        def started(running: Running) -> None:
            nonlocal told
            _keep_errors(os.path.join(context.runtime.registry.home.process_dir(running.process.id), "host.log"))
            if not told:
                _tell(pipe, {"id": running.process.id, "published": running.published})
                told = True

        from timecraftd.running import Streams

        code = supervise(context, module, request, Streams(), trace_fd=None, policy=policy, started=started)
        context.close()
    except errors.TimecraftError as error:
        _tell(pipe, {"error": type(error).__name__, "message": error.message, "next_step": error.next_step})
    except BaseException as error:  # noqa: BLE001 - this is the end of a process; the parent tells of it
        _tell(pipe, {"message": f"the host process failed: {type(error).__name__}: {error}"})
    finally:
        os._exit(code)


def _keep_errors(path: str) -> None:
    """Sends what the host itself writes to a file beside the log: there is no terminal any more."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _tell(pipe: int, answer: dict[str, object]) -> None:
    try:
        os.write(pipe, json.dumps(answer).encode())
        os.close(pipe)
    except OSError:
        pass  # told already, or nobody waits
