"""Which packages a guest can't import is told by how they import their native parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from timecraftd.errors import PythonError
from timecraftd.python.natives import Native, find_natives
from timecraftd.python.packages import check_pure, site_packages

EXTENSION = "_fast.cpython-311-x86_64-linux-gnu.so"
CASES = {
    "imported for certain": ("from . import _fast\n", True),
    "by its full name": ("import pkg._fast\n", True),
    "a name out of it": ("from ._fast import add\n", True),
    "with a stand-in": ("try:\n    from ._fast import add\nexcept ImportError:\n    add = sum\n", False),
    "with a better message": (
        "try:\n    from . import _fast\nexcept ImportError as e:\n    raise OSError(1) from e\n",
        True,
    ),
    "when asked for": ("def add():\n    from ._fast import add\n", False),
    "on some systems": ("import sys\nif sys.platform == 'win32':\n    from . import _fast\n", False),
    "unless it is being built": ("if __PKG_SETUP__:\n    pass\nelse:\n    from . import _fast\n", True),
    "never": ("", False),
    "not to be parsed": ("print 'Python 2'\n", False),
}


def package(folder: Path, name: str, **modules: str) -> Path:
    """A package of these modules and one native one."""
    (folder / name).mkdir(parents=True)
    for module, source in modules.items():
        (folder / name / f"{module}.py").write_text(source)
    (folder / name / EXTENSION).write_bytes(b"\x7fELF")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_by_how_it_is_imported(case: str, tmp_path: Path):
    """Only what an import is bound to need counts."""
    source, is_needed = CASES[case]
    package(tmp_path, "pkg", __init__=source)
    assert find_natives("import pkg", [str(tmp_path)]) == [Native("pkg", f"pkg/{EXTENSION}")] * is_needed
    assert find_natives("try:\n    import pkg\nexcept ImportError:\n    pass\n", [str(tmp_path)]) == []


def test_through_other_modules_and_around_circles(tmp_path: Path):
    """What the package imports for certain is followed, in whatever order, and only that."""
    package(
        tmp_path,
        "deep",
        __init__="from .a import b\nfrom . import core\n",
        a="from deep import core\nb = 1\n",
        core="import deep.a\nfrom ._fast import x\n",
    )
    package(
        tmp_path,
        "light",
        __init__="from . import core\n",
        core="try:\n    import light.fast\nexcept ImportError: ...\n",
    )
    (tmp_path / "light" / "fast.py").write_text("from . import _fast\n")
    assert [native.package for native in find_natives("import light, deep", [str(tmp_path)])] == ["deep"]


def test_a_module_that_is_a_file_and_one_of_the_program(tmp_path: Path):
    """Native modules at the top count too, and what the program's own modules import."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "ujson.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "helper.py").write_text("import ujson\n")
    folders = [str(tmp_path / "own"), str(tmp_path / "packages")]
    assert [native.package for native in find_natives("import helper", folders)] == ["ujson"]
    assert find_natives("import json", folders) == []


def test_a_folder_with_too_many_modules_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The search has a bound."""
    monkeypatch.setattr("timecraftd.python.natives.MODULES_MAX", 2)
    package(tmp_path, "pkg", __init__="from . import _fast\n", a="", b="")
    assert find_natives("import pkg", [str(tmp_path)]) == []


def test_the_error_names_packages_and_files(tmp_path: Path):
    """Whoever made the environment learns what can't be in it."""
    for number in range(7):
        package(tmp_path / "packages", f"pkg{number}", __init__="from . import _fast\n")
    source = "\n".join(f"import pkg{number}" for number in range(7))
    with pytest.raises(PythonError, match=r"pkg0 \(pkg0/_fast.*pkg4 \(.*\) and 2 more; use pure-Python packages"):
        check_pure(source, None, str(tmp_path / "packages"), "--venv x", str(tmp_path / "cache"))


def test_what_is_no_environment(tmp_path: Path):
    """A directory without the marks of a virtual environment is refused."""
    with pytest.raises(PythonError, match="isn't a virtual environment"):
        site_packages(str(tmp_path))
    (tmp_path / "pyvenv.cfg").touch()
    with pytest.raises(PythonError, match="has no folders of packages"):
        site_packages(str(tmp_path))
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    assert site_packages(str(tmp_path)) == str(packages)


def test_a_folder_is_looked_at_again_when_it_has_changed(tmp_path: Path):
    """What was found pure is known, until something is installed."""
    packages, cache = tmp_path / "packages", tmp_path / "cache"
    packages.mkdir()
    check_pure("import pkg", None, str(packages), "--venv x", str(cache))
    check_pure("import pkg", None, str(packages), "--venv x", str(cache))
    assert len(list(cache.iterdir())) == 1
    package(packages, "pkg", __init__="from . import _fast\n")
    with pytest.raises(PythonError):
        check_pure("import pkg", None, str(packages), "--venv x", str(cache))
