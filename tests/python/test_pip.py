"""Packages are chosen for the guest's Python, whatever Python runs pip."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from timecraftd.errors import PythonError
from timecraftd.python.packages import install

VERSION = "3.11.2"
# What builds it is in the archive too, so that nothing is fetched.
BACKEND = """
    import os, zipfile

    def build_wheel(folder, config_settings=None, metadata_directory=None):
        name = "source_only-1.0-py3-none-any.whl"
        info = "source_only-1.0.dist-info"
        with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
            wheel.writestr("source_only.py", "")
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: source-only\\nVersion: 1.0\\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
            wheel.writestr(f"{info}/RECORD", "")
        return name
"""


def wheel(folder: Path, name: str, *headers: str, tag: str = "py3-none-any") -> None:
    """A wheel of one empty module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *headers, ""])
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")


def source_distribution(folder: Path) -> None:
    """`source_only`, of which there is no wheel."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {"pyproject.toml": project, "PKG-INFO": "Metadata-Version: 2.1\nName: source-only\nVersion: 1.0\n"}
    lines = [line.removeprefix("    ") for line in BACKEND.splitlines()]
    files["backend.py"] = "\n".join(lines)
    with tarfile.open(folder / "source_only-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"source_only-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))


def test_conditions_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Conditions hold for the guest; what is only there as source is built; once for each content and version."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "old", "Requires-Python: >=3.11.3")
    wheel(
        index, "wanted", 'Requires-Dist: needed; python_full_version < "3.11.3"', 'Requires-Dist: no; os_name == "nt"'
    )
    wheel(index, "needed", tag="cp311-none-any")
    source_distribution(index)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"""
        --no-index
        --find-links {index}
        source_only
        wanted; sys_platform == "wasi" and platform_machine == "wasm32" and implementation_name == "cpython"
        missing; sys_platform == "linux"
    """)
    for name in ("PIP_REQUIRE_VIRTUALENV", "PIP_NO_BINARY", "PIP_ONLY_BINARY"):
        monkeypatch.delenv(name, raising=False)
    said: list[str] = []
    folder = Path(install(str(requirements), VERSION, str(tmp_path / "cache"), said.append))
    assert {path.stem for path in folder.glob("*.py")} == {"source_only", "wanted", "needed"}
    assert install(str(requirements), VERSION, str(tmp_path / "cache"), said.append) == str(folder)
    assert said == [f"installing the packages of {requirements}"]
    requirements.write_text(f"--no-index\n--find-links {index}\nold\n")
    with pytest.raises(PythonError, match="requires a different Python"):
        install(str(requirements), VERSION, str(tmp_path / "cache"), said.append)
