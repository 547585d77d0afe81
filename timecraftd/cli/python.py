"""`timecraft run` of Python programs: from flags to what the interpreter gets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from timecraftd.cli.context import Context, tell
from timecraftd.cli.target import Target
from timecraftd.engine.request import RunRequest
from timecraftd.engine.spec import MountSpec
from timecraftd.errors import UsageError
from timecraftd.model import ModuleFile
from timecraftd.python import program as programs
from timecraftd.python.program import Mount, Program

ENVIRONMENT = {
    "PYTHONHOME": "/usr",  # spares a search for what isn't there
    "PYTHONDONTWRITEBYTECODE": "1",  # all that the interpreter imports from is read-only
}
"""Unless the user says otherwise."""
CERTIFICATES_FOLDER = "/etc/ssl/certs"
ELSEWHERE = MountSpec("", "/var/tmp")  # noqa: S108 (where `tempfile` looks next)
PRIVATE = (MountSpec("", "/", read_only=True), MountSpec("", "/tmp"))  # noqa: S108 (the guest's)
"""Unless something else is mounted there."""
NULL = MountSpec(os.devnull, os.devnull)
PRIVATE_BYTES_MAX = 1 << 30
"""How much a program may write if it may write to nothing but its own directories, and no `--disk` says otherwise."""


@dataclass(frozen=True, slots=True)
class PythonRun:
    """A program and the packages that it asked for."""

    program: Program
    venv: str | None
    requirements: str | None
    host_tls: bool
    """Whether the host does TLS for the program's clients."""

    def load(self, request: RunRequest, context: Context) -> tuple[tuple[bytes | ModuleFile, str], RunRequest]:
        """The interpreter, and the request with all that it needs. Raises PythonError."""
        package = programs.data_package()
        mounts = [Mount(os.path.dirname(package.stdlib()), package.LIBRARY_MOUNT, immutable=True)]
        mounts += self._packages(package.VERSION, context)
        environment = ENVIRONMENT | ({"TIMECRAFT_TLS": "host"} if self.host_tls else {})
        authorities = _authorities() if request.network.rules else None
        if authorities is not None:
            mounts.append(Mount(authorities, CERTIFICATES_FOLDER, immutable=True))
            environment["SSL_CERT_FILE"] = f"{CERTIFICATES_FOLDER}/{os.path.basename(authorities)}"
        names = {item.partition(b"=")[0] for item in request.env}
        path = [programs.PACKAGES_FOLDER] * bool(self.venv or self.requirements) + list(self.program.path)
        if path:
            environment["PYTHONPATH"] = ":".join(path)
        taken = {os.path.normpath(mount.guest) for mount in request.mounts}
        mounts += [mount for mount in self.program.mounts if mount.guest not in taken]
        given = [self._given(mount, context.target) for mount in mounts]
        private = [] if "/" in taken else [mount for mount in PRIVATE if mount.guest not in taken]
        if any(mount.guest == PRIVATE[1].guest for mount in self.program.mounts):
            private = [PRIVATE[0], ELSEWHERE]  # the program lies in /tmp itself
        if NULL.guest not in taken:
            private.append(NULL)
        here = _current_directory((*request.mounts, *given) if context.target.is_local else given)
        if here is not None:
            environment["PWD"] = here
        limits = request.limits
        if limits.disk_bytes is None and all(mount.read_only or mount.is_null for mount in request.mounts):
            limits = replace(limits, disk_bytes=PRIVATE_BYTES_MAX)
        request = replace(
            request,
            args=tuple(os.fsencode(arg) for arg in (programs.INTERPRETER, *self.program.args)),
            env=(*(f"{k}={v}".encode() for k, v in environment.items() if k.encode() not in names), *request.env),
            mounts=(*request.mounts, *given, *private),
            limits=limits,
            interruptible=True,
        )
        return (programs.interpreter(package), self.program.name), request

    def _given(self, mount: Mount, target: Target) -> MountSpec:
        spec = MountSpec(mount.host, mount.guest, read_only=True, tree="" if mount.immutable else None)
        return target.mounted(spec, _is_no_part if mount in self.program.mounts else None)

    def _packages(self, version: str, context: Context) -> list[Mount]:
        if self.venv is None and self.requirements is None:
            return []
        from timecraftd.python.packages import check_pure, install, site_packages  # slow to import

        cache = os.path.join(context.runtime.registry.home.path, "packages")
        if self.venv is not None:
            folder, flag = site_packages(self.venv), f"--venv {self.venv}"
        else:
            assert self.requirements is not None, "one of both was given"
            folder, flag = install(self.requirements, version, cache, tell), f"--requirements {self.requirements}"
        own = self.program.mounts[0].host if self.program.mounts else None
        check_pure(self.program.source, own, folder, flag, cache)
        return [Mount(folder, programs.PACKAGES_FOLDER, immutable=True)]


def python_program(args: argparse.Namespace, stdin: bytes | None) -> PythonRun | None:
    """The Python program that the flags name, None if standard input is no such thing.

    Raises UsageError, PythonError.
    """
    program = _program(args, stdin)
    if program is None:
        return None
    if args.venv and args.requirements:
        raise UsageError("run: --venv and --requirements exclude each other", "leave out one of them")
    return PythonRun(program, args.venv, args.requirements, args.tls == "host")


def _program(args: argparse.Namespace, stdin: bytes | None) -> Program | None:
    given = [("-m", args.python_module), ("-c", args.python_code)]
    for flag, words in given:
        if words is None:
            continue
        if args.module is not None:
            raise UsageError(f"run: {flag} and {args.module!r} are two programs", "leave out one of them")
        if not words:
            raise UsageError(f"run: {flag} names nothing to run", f"write it like {flag} {'NAME' * (flag == '-m')}")
        name, *rest = words
        return programs.module(name, rest) if flag == "-m" else programs.command(name, rest)
    if args.module is None:
        raise UsageError("run: names no module", "give a .wasm, .wat or .py file")
    if args.module != "-":
        return programs.script(args.module, args.args)
    if stdin is None:
        return programs.interactive(args.args)
    if programs.looks_like_source(stdin):
        return programs.command(stdin.decode(), args.args)
    return None


def _authorities() -> str | None:
    """The file of the certificate authorities that this host trusts."""
    import ssl

    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    return next((os.path.realpath(path) for path in candidates if path and os.path.isfile(path)), None)


def _is_no_part(folder: str) -> bool:
    """Whether a folder beside a program is no part of it: hidden, compiled, or a virtual environment."""
    name = os.path.basename(folder)
    return name.startswith(".") or name == "__pycache__" or os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def _current_directory(mounts: Sequence[MountSpec]) -> str | None:
    """The guest's name of the directory that the command is run in, None if it sees nothing of it."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return None
    above = [mount for mount in mounts if mount.host and os.path.commonpath([mount.host, here]) == mount.host]
    if not above:
        return None
    nearest = max(above, key=lambda mount: len(mount.host))
    return os.path.normpath(os.path.join(nearest.guest, os.path.relpath(here, nearest.host)))
