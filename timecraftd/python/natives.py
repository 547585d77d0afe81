"""Finds what of a folder of Python packages can't work in a guest: native extensions that are imported for certain.

Many packages carry native modules that only make them faster, and do without where they are missing: there the import
stands in a `try`. So a package is refused only if importing it is bound to import a native module: by statements of
its own, or of modules that it is bound to import, outside of any function, class or condition, and of any `try` that
doesn't just raise another error.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

NATIVE_SUFFIXES = (".so", ".pyd", ".dylib")
MODULES_MAX = 50_000
"""Modules that are looked at; folders with more are taken as they are."""
SOURCE_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Native:
    """A package that can't be imported in a guest."""

    package: str
    """The top-level name."""
    file: str
    """The native module, relative to the folder."""


def find_natives(folder: str) -> list[Native]:
    """Top-level packages and modules of a folder that can't be imported without a native module, by name."""
    sources, natives = _modules(folder)
    if not natives:
        return []
    found = []
    memory: dict[str, str | None] = {}
    for name in sorted({module.partition(".")[0] for module in natives}):
        if name in sources:
            file = _needed(name, folder, sources, natives, memory)
        else:  # a package without an `__init__`, or a part that only others import
            file = natives.get(name) if name[0].isalpha() and not name.endswith("__mypyc") else None
        if file is not None:
            found.append(Native(name, file))
    return found


def native_files(folder: str) -> list[str]:
    """All native modules of a folder, relative to it."""
    return sorted(_modules(folder)[1].values())


def _modules(folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Python modules and native ones, by dotted name, as paths relative to the folder."""
    sources: dict[str, str] = {}
    natives: dict[str, str] = {}
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name != "__pycache__")
        relative = os.path.relpath(at, folder)
        package = "" if relative == "." else relative.replace(os.sep, ".") + "."
        for name in files:
            path = os.path.normpath(os.path.join(relative, name))
            if name.endswith(".py"):
                module = package + name.removesuffix(".py")
                sources[module.removesuffix(".__init__")] = path
            elif name.endswith(NATIVE_SUFFIXES):
                natives[package + name.partition(".")[0]] = path
        if len(sources) > MODULES_MAX:
            return sources, {}
    return sources, natives


def _needed(
    module: str,
    folder: str,
    sources: Mapping[str, str],
    natives: Mapping[str, str],
    memory: dict[str, str | None],
) -> str | None:
    """The native file that importing a module is bound to import, if any. `memory` keeps what is known, also of
    modules that are being looked at: imports go in circles."""
    pending = [module]
    while pending:
        current = pending.pop()
        if current in memory:
            if memory[current] is not None:
                return memory[current]
            continue
        memory[current] = None
        for imported in _imported(current, folder, sources):
            if imported in sources:
                pending.append(imported)
            elif imported in natives:
                memory[module] = natives[imported]
                return natives[imported]
    return None


def _imported(module: str, folder: str, sources: Mapping[str, str]) -> Iterator[str]:
    """Names that a module imports when it is run, in its own top level; what only may be one is left to the caller."""
    path = os.path.join(folder, sources[module])
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(SOURCE_BYTES_MAX))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    package = module if os.path.basename(path) == "__init__.py" else module.rpartition(".")[0]
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
