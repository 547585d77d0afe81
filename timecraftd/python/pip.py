"""pip, deciding for the guest's Python: `python -m timecraftd.python.pip PYTHON_VERSION ARGUMENT...`

By itself pip evaluates conditions (`; python_version < "3.12"`) for the Python that runs it, and with
`--python-version` it takes no source distributions, since what is native in them would be built for that Python too.
Here natives don't matter (timecraftd.python.natives finds them), and packages that have pure Python only as source are
wanted. pip offers no way to say so, hence its insides.
"""

from __future__ import annotations

import functools
import sys

from pip._internal.cli import cmdoptions
from pip._internal.cli.main import main
from pip._internal.commands.install import InstallCommand
from pip._vendor.packaging import markers


def guest_environment(version: str) -> dict[str, str]:
    """What conditions are about, as CPython in the guest has it."""
    return {
        "implementation_name": "cpython",
        "implementation_version": version,
        "os_name": "posix",
        "platform_machine": "wasm32",
        "platform_python_implementation": "CPython",
        "platform_release": "0.0.0",
        "platform_system": "wasi",
        "platform_version": "0.0.0",
        "python_full_version": version,
        "python_version": ".".join(version.split(".")[:2]),
        "sys_platform": "wasi",
    }


def _run(version: str, arguments: list[str]) -> int:
    markers.default_environment = lambda: guest_environment(version)
    info = tuple(map(int, version.split(".")))
    # Its command `download` does so.
    resolver = functools.partial(InstallCommand.make_resolver, py_version_info=info)
    InstallCommand.make_resolver = staticmethod(resolver)
    cmdoptions.check_dist_restriction = lambda *_args, **_options: None
    code: int = main([*arguments, "--disable-pip-version-check", "--python-version", version])
    return code


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1], sys.argv[2:]))
