"""Install a wheel for the whole machine, or into the root of a package: a virtual environment, commands and units.

Below PREFIX: lib/timecraft (the environment), bin/timecraft, bin/timecraftd, lib/systemd/system, lib/sysusers.d,
lib/tmpfiles.d. In /etc: timecraft/timecraftd.toml, unless it is there already. DESTDIR is put before all of these, and
nothing that is installed knows of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
WRITTEN_PREFIX = "/usr"
"""The prefix that units are written for."""
COMMANDS = {"timecraft": "timecraftd.cli", "timecraftd": "timecraftd.__main__"}
UNITS = {
    "systemd/timecraftd.service": "systemd/system/timecraftd.service",
    "systemd/timecraftd.socket": "systemd/system/timecraftd.socket",
    "systemd/sysusers.conf": "sysusers.d/timecraft.conf",
    "systemd/tmpfiles.conf": "tmpfiles.d/timecraft.conf",
}


def install(wheel: Path, destdir: Path, prefix: Path, *, pip_flags: list[str]) -> None:
    """All of it. `destdir` is / for this machine itself."""
    staged = destdir / prefix.relative_to("/")
    environment, final = staged / "lib" / "timecraft", prefix / "lib" / "timecraft"
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraint, *pip_flags, str(wheel)], check=True)
    _write_commands(environment, final)
    commands = staged / "bin"
    commands.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        link = commands / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..", "lib", "timecraft", "bin", name))
    for source, target in UNITS.items():
        text = (DEPLOY / source).read_text()
        _write(staged / "lib" / target, text.replace(f"{WRITTEN_PREFIX}/lib/timecraft", str(final)))
    config = destdir / "etc" / "timecraft" / "timecraftd.toml"
    if not config.exists():
        _write(config, (DEPLOY / "timecraftd.toml").read_text())


def _write_commands(environment: Path, final: Path) -> None:
    """Commands that begin with where the environment will be, in place of what pip wrote: that names the stage."""
    for file in (environment / "bin").iterdir():
        if file.is_dir():
            shutil.rmtree(file)  # the compiled form of somebody's script
        elif not file.is_symlink():
            file.unlink()
    for name, module in COMMANDS.items():
        text = f"#!{final}/bin/python -I\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
        _write(environment / "bin" / name, text, mode=0o755)
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("command")]
    (environment / "pyvenv.cfg").write_text("\n".join(kept) + "\n")
    stage = str(environment)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-f", "-s", stage, "-p", str(final), stage], check=True)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--destdir", type=Path, default=Path("/"))
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    parser.add_argument("--pip-flag", action="append", default=[], help="passed on to `pip install`")
    options = parser.parse_args()
    os.umask(0o022)
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"error: {sys.executable} can't make virtual environments: apt install python3-venv")
    if not options.prefix.is_absolute():
        sys.exit(f"error: PREFIX {options.prefix}: isn't absolute")
    install(options.wheel, options.destdir or Path("/"), options.prefix, pip_flags=options.pip_flag)
    print(f"installed below {options.destdir / options.prefix.relative_to('/')}; docs/node.md says how to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
