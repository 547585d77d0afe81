"""Finds native extensions that a program imports for certain: those can't be loaded in a guest.

Many packages carry native modules that only make them faster, and do without where they are missing: there the import
stands in a `try`. So a native module counts only if running the program is bound to import it: by statements of the
program, or of modules that it is bound to import, outside of any function, class or condition, and of any `try` that
doesn't just raise another error.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

NATIVE_SUFFIXES = (".so", ".pyd", ".dylib")
MODULES_MAX = 50_000
"""Modules that are looked at; folders with more are taken as they are."""
SOURCE_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Native:
    """A native module that a program is bound to import."""

    package: str
    """The top-level name."""
    file: str
    """The native module, relative to the folder."""


def find_natives(source: str, folders: Sequence[str]) -> list[Native]:
    """The first native module that each top-level import of a program leads to, by package; `folders` are what it
    imports from, earlier ones first."""
    sources: dict[str, str] = {}
    natives: dict[str, str] = {}
    for folder in reversed(folders):
        found, native = _modules(folder)
        sources |= found
        natives |= native
    if not natives:
        return []
    needed: dict[str, Native] = {}
    seen: set[str] = set()
    for first in _imports(source, ""):
        file = _reached(first, sources, natives, seen)
        if file is not None:
            package = file.partition(os.sep)[0].partition(".")[0]
            needed.setdefault(package, Native(package, file))
    return sorted(needed.values(), key=lambda native: native.package)


def _modules(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """By dotted name: paths of Python modules, and of native ones relative to the folder."""
    sources: dict[str, str] = {}
    natives: dict[str, str] = {}
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name != "__pycache__")
        relative = os.path.relpath(at, folder)
        package = "" if relative == "." else relative.replace(os.sep, ".") + "."
        for name in files:
            if name.endswith(".py"):
                module = package + name.removesuffix(".py")
                sources[module.removesuffix(".__init__")] = os.path.join(at, name)
            elif name.endswith(NATIVE_SUFFIXES):
                natives[package + name.partition(".")[0]] = os.path.normpath(os.path.join(relative, name))
        if len(sources) > MODULES_MAX:
            return sources, {}
    return sources, natives


def _reached(first: str, sources: Mapping[str, str], natives: Mapping[str, str], seen: set[str]) -> str | None:
    """The native file that importing a module is bound to import, if any. What was `seen` led to none."""
    pending = [first]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        if current not in sources:
            if current in natives:
                return natives[current]
            continue
        seen.add(current)
        path = sources[current]
        package = current if os.path.basename(path) == "__init__.py" else current.rpartition(".")[0]
        try:
            with open(path, "rb") as file:
                source = file.read(SOURCE_BYTES_MAX)
        except OSError:
            continue
        pending += _imports(source, package)
    return None


def _imports(source: str | bytes, package: str) -> Iterator[str]:
    """Names that a module imports when it is run, at its top level; some may be of what is no module."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for statement in _bound(tree.body):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from _parents(alias.name)
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parts = package.split(".")
                parts = parts[: len(parts) - statement.level + 1]
                base = ".".join([*parts, base] if base else parts)
            yield from _parents(base)
            yield from (f"{base}.{alias.name}" for alias in statement.names)


def _bound(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that are run for certain, or the import fails."""
    for statement in statements:
        if isinstance(statement, ast.Try):
            if all(isinstance(handler.body[-1], ast.Raise) for handler in statement.handlers):
                yield from _bound(statement.body)
        elif isinstance(statement, ast.With):
            yield from _bound(statement.body)
        elif isinstance(statement, ast.If) and _is_for_installers(statement.test):
            yield from _bound(statement.orelse)
        else:
            yield statement


def _is_for_installers(test: ast.expr) -> bool:
    """Whether a condition is a name like `__NUMPY_SETUP__`, true only while the package is being built."""
    return isinstance(test, ast.Name) and test.id.startswith("__") and test.id.endswith("_SETUP__")


def _parents(name: str) -> Iterator[str]:
    """`a`, `a.b`, `a.b.c`: importing a module imports its packages."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
