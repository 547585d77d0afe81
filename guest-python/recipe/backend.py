"""Builds the wheel (PEP 517): unpacks what is kept compressed in `artifacts/`, so that it is read in place later."""

import base64
import hashlib
import lzma
import os
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = "timecraft_python_guest"
# Where the wheel has what.
UNPACKED = {f"{PACKAGE}/python.wasm": "python.wasm.xz", f"{PACKAGE}/lib/python311.zip": "python311.zip.xz"}
WHEEL = "Wheel-Version: 1.0\nGenerator: timecraft-python-guest\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
WHEN = (1980, 1, 1, 0, 0, 0)

Settings = Mapping[str, Any] | None


def read(*names: str) -> bytes:
    with open(os.path.join(FOLDER, *names), "rb") as file:
        return file.read()


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml").decode())["project"]
    return table


def metadata(table: dict[str, Any]) -> str:
    fields = {
        "Metadata-Version": "2.4",
        "Name": table["name"],
        "Version": table["version"],
        "Summary": table["description"],
        "License-Expression": table["license"],
        "Requires-Python": table["requires-python"],
        "Description-Content-Type": "text/markdown",
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    lines += [f"License-File: licences/{name}" for name in sorted(os.listdir(os.path.join(FOLDER, "licences")))]
    return "\n".join([*lines, "", read("README.md").decode()])


def files(info: str) -> Iterator[tuple[str, bytes]]:
    """The wheel's files but for its record: name, content."""
    for name in ("__init__.py", "pin.txt", "py.typed"):
        yield f"{PACKAGE}/{name}", read(PACKAGE, name)
    for name, archive in UNPACKED.items():
        yield name, lzma.decompress(read("artifacts", archive))
    for name in sorted(os.listdir(os.path.join(FOLDER, "licences"))):
        yield f"{info}/licenses/licences/{name}", read("licences", name)
    yield f"{info}/METADATA", metadata(project()).encode()
    yield f"{info}/WHEEL", WHEEL.encode()


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Writes the wheel into a folder; returns its name there."""
    del config_settings, metadata_directory
    stem = f"{PACKAGE}-{project()['version']}"
    info = f"{stem}.dist-info"
    record = []
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files(info):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(content)}\n")
            wheel.writestr(entry(path), content)
        wheel.writestr(entry(f"{info}/RECORD"), "".join([*record, f"{info}/RECORD,,\n"]))
    return name


def entry(path: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, WHEN)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
