"""Style and structure as tests: what a reviewer would otherwise have to look for."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINE_MAX = 120
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800

# Functions and files that are one flat table each; a reader gains nothing from their being cut.
LONG_FUNCTIONS = {
    "crates/timecraft-engine/src/abi.rs:from",  # Linux's errors to WASI's, one a line
    "crates/timecraft-engine/src/host/tests/calls.rs:valid",  # arguments of each call, one a line
    "crates/timecraft-engine/src/shadow/mod.rs:succeeded",  # what each call changes, one a line
}
LONG_FILES: set[str] = set()
GENERATED = "timecraftd/api/v1/"  # `make protos`; `make lint-fast` holds that it is up to date
GENERATED_OR_FOREIGN = ("LICENSE", "Cargo.lock", "constraints.txt")
TEXT = {".py", ".pyi", ".rs", ".go", ".toml", ".md", ".wat", ".json", ".yml", ".yaml", ".sh", ".txt", ".mod", ""}


def tracked(*suffixes: str) -> list[Path]:
    """Files that git knows, or would if they were added: tests see the work before its commit."""
    shown = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / name for name in shown.split("\0") if name and not name.startswith(GENERATED)]
    return [path for path in paths if path.is_file() and path.suffix in (suffixes or TEXT)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python_functions(path: Path):
    """(name, lines of code) of each function. Its docstring doesn't count."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node, clean=False) else node.body[0]
            yield node.name, (node.end_lineno or 0) - first.lineno + 1 + (node.body[0].lineno - node.lineno)


def rust_functions(path: Path):
    """(name, lines) of each function, by the layout that rustfmt gives: a brace closes at its function's indent."""
    lines = path.read_text().splitlines()
    head = re.compile(r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)")
    for start, line in enumerate(lines):
        if (found := head.match(line)) and not line.rstrip().endswith((";", "}")):
            closing = found[1] + "}"
            end = next((at for at in range(start + 1, len(lines)) if lines[at] == closing), start)
            yield found[2], end - start + 1


def test_functions_are_short():
    """Seventy lines fit a screen; tables may be longer and say so above."""
    long = []
    for path in tracked(".py", ".rs"):
        functions = python_functions(path) if path.suffix == ".py" else rust_functions(path)
        long += [
            f"{name_of(path)}:{name} has {length} lines"
            for name, length in functions
            if length > FUNCTION_LINES_MAX and f"{name_of(path)}:{name}" not in LONG_FUNCTIONS
        ]
    assert not long, "\n".join(long)


def test_source_files_are_of_a_size_to_read():
    long = [
        f"{name_of(path)} has {count} lines"
        for path in tracked(".py", ".rs")
        if (count := len(path.read_text().splitlines())) > FILE_LINES_MAX and name_of(path) not in LONG_FILES
    ]
    assert not long, "\n".join(long)


def test_lines_are_short():
    """Code and prose; the widest allowed are tables of documents and data, whose rows can't be broken."""
    long = [
        f"{name_of(path)}:{number} has {len(line)} characters"
        for path in tracked(".py", ".pyi", ".rs", ".md")
        if path.name not in GENERATED_OR_FOREIGN
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_MAX and not line.startswith("|")
    ]
    assert not long, "\n".join(long)


def test_nothing_is_left_to_do_in_comments():
    """Work that is open is an issue, not a comment."""
    marker = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in tracked(".py", ".pyi", ".rs", ".go", ".toml", ".md", "")
        if path.name not in GENERATED_OR_FOREIGN
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if marker.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_path_of_one_machine_is_in_the_repository():
    """A path that exists on one developer's machine only. `/home/user` and the like in examples are fine."""
    machine = re.compile(
        "(?<![\\w.])/(" + "|".join(["wo" + "rk", "ro" + "ot", "home/[a-z]+/src", "tmp/tar" + "get"]) + ")/"
    )
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:200]}"
        for path in tracked()
        if path.name not in GENERATED_OR_FOREIGN
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if machine.search(line)
    ]
    assert not found, "\n".join(found)


def dependencies(crate: str) -> set[str]:
    manifest = tomllib.loads((ROOT / "crates" / crate / "Cargo.toml").read_text())
    return {
        name for key in ("dependencies", "dev-dependencies", "build-dependencies") for name in manifest.get(key, {})
    }


def test_the_log_knows_neither_engine_nor_python():
    """Invariant 3: timecraft-log builds and tests in seconds, alone."""
    unwanted = [name for name in dependencies("timecraft-log") if name.startswith(("wasmer", "pyo3", "timecraft-"))]
    assert not unwanted


def test_the_engine_does_not_know_python():
    """Invariant 3: whatever Python needs is in timecraft-py."""
    assert not [name for name in dependencies("timecraft-engine") if name.startswith(("pyo3", "timecraft-py"))]


@pytest.mark.parametrize("decorator", ["recorder", "replayer", "tracer", "chaos"])
def test_decorators_do_not_know_each_other(decorator):
    """Invariant 7: each knows the gate, and none names another one or the host. The record's types are shared."""
    engine = ROOT / "crates" / "timecraft-engine" / "src"
    others = {"Recorder", "Replayer", "Tracer", "Chaos", "Host"} - {decorator.capitalize()}
    for path in [engine / f"{decorator}.rs", *(engine / decorator).glob("*.rs")]:
        if path.exists() and path.name != "tests.rs":
            code = re.sub(r"//.*", "", path.read_text().split("#[cfg(test)]\nmod tests {", 1)[0])
            assert not re.findall(rf"\b(?:{'|'.join(others)})\b|crate::host\b", code), name_of(path)


def test_bindings_hold_no_logic_and_so_no_tests():
    """`make test-rust` leaves timecraft-py out: it can't be linked without Python, and Python's tests cover it."""
    sources = (ROOT / "crates" / "timecraft-py").rglob("*.rs")
    assert not [name_of(path) for path in sources if "#[cfg(test)]" in path.read_text()]


def test_wasmer_is_pinned_exactly():
    """docs/rationale.md: we reach below wasmer's public surface."""
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["dependencies"]
    pins = {name: value if isinstance(value, str) else value.get("version", "") for name, value in workspace.items()}
    wasmer = {pin for name, pin in pins.items() if name.startswith("wasmer")}
    assert len(wasmer) == 1, wasmer
    assert wasmer.pop().startswith("=")


def test_declared_dependencies_are_those_imported():
    """What timecraftd imports from outside is declared, needed or (for Python guests) optional, and nothing else is."""
    standard = set(__import__("sys").stdlib_module_names)
    imported = set()
    for path in tracked(".py"):
        if path.relative_to(ROOT).parts[0] != "timecraftd":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["python"]
    names = {re.split(r"[<>=~! ]", line)[0].lower().replace("-", "_") for line in declared}
    foreign = {name for name in imported if name.split(".")[0] not in standard | {"timecraftd"}}
    assert {distribution_of(name) for name in foreign} == names


def distribution_of(module: str) -> str:
    """The distribution that a module comes with, if its name isn't the module's."""
    others = {
        "yaml": "pyyaml",
        "google.protobuf": "protobuf",
        "google.rpc": "googleapis_common_protos",
        "grpc_health": "grpcio_health_checking",
        "grpc_reflection": "grpcio_reflection",
        "grpc_status": "grpcio_status",
        "grpc": "grpcio",
    }
    found = (name for prefix, name in others.items() if module == prefix or module.startswith(f"{prefix}."))
    return next(found, module.split(".", maxsplit=1)[0])


def invariants() -> list[tuple[str, str]]:
    """(number, text) of each numbered invariant of ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.split("## Invariants", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^(\d+)\. (.+?)(?=^\d+\. |\Z)", section, re.MULTILINE | re.DOTALL)
    return [(number, " ".join(text.split())) for number, text in found]


@pytest.mark.parametrize(("number", "text"), invariants(), ids=lambda value: value if value.isdigit() else "")
def test_each_invariant_names_a_test_that_exists(number, text):
    """`Held by` is followed by `path::name`, `path` (a whole file) or a `make` target, in backquotes."""
    assert "Held by" in text, f"invariant {number} names no test"
    holders = re.findall(r"`([^`]+)`", text.split("Held by", 1)[1])
    assert holders, f"invariant {number} names no test"
    targets = make_targets()
    for holder in holders:
        if holder.startswith("make "):
            assert holder.split()[1] in targets, holder
            continue
        path, _, function = holder.partition("::")
        assert (ROOT / path).exists(), f"invariant {number}: no {path}"
        if function:
            assert re.search(rf"\b{re.escape(function)}\b", (ROOT / path).read_text()), (
                f"invariant {number}: no {holder}"
            )


def make_targets() -> dict[str, str]:
    found = re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return dict(found)


def test_each_make_target_is_documented():
    """In README or CONTRIBUTING, as `make NAME`; and what they name exists."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)", text))
    assert named == make_targets().keys()


def test_the_readme_begins_with_the_demo_and_the_tests():
    screen = (ROOT / "README.md").read_text().splitlines()[:40]
    assert any("make demo" in line for line in screen)
    assert any("make test" in line for line in screen)


def test_links_between_documents_lead_somewhere():
    broken = []
    for path in tracked(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{name_of(path)}: {target}")
    assert not broken, "\n".join(broken)


def error_classes() -> dict[str, str]:
    """code -> class name, of timecraftd/errors.py."""
    found = {}
    for node in ast.parse((ROOT / "timecraftd" / "errors.py").read_text()).body:
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
            codes = [
                item.value.value
                for item in node.body
                if isinstance(item, ast.Assign)
                and item.targets[0].id == "code"
                and isinstance(item.value, ast.Constant)
            ]
            assert len(codes) == 1, f"{node.name} needs a code of its own"
            assert codes[0] not in found, f"{node.name} and {found[codes[0]]} have one code"
            found[codes[0]] = node.name
    return found


def test_each_error_has_a_paragraph():
    """docs/errors.md has one section per code, headed `## CODE Name`, in order."""
    headings = re.findall(r"^## (TC\d+) (\w+)$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert headings == sorted(error_classes().items())


def test_each_host_call_is_described():
    """docs/wasi-coverage.md has a row per entry of the table in calls.rs, in the same order."""
    table = (ROOT / "crates" / "timecraft-engine" / "src" / "calls.rs").read_text()
    calls = re.findall(r'^    \d+ \w+ "(\w+)" \(', table, re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "wasi-coverage.md").read_text(), re.MULTILINE)
    assert calls == rows
    assert len(calls) >= 46


def test_scripts_are_python():
    """One language for scripts, and that one is linted and typed."""
    assert not [name_of(path) for path in tracked(".sh")]


def test_prebuilt_programs_are_of_the_sources_that_are_here():
    """Machines without a clang for WASI test the same C programs as those that have one."""
    spec = importlib.util.spec_from_file_location("build_guests", ROOT / "scripts" / "build_guests.py")
    builder = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = builder
    spec.loader.exec_module(builder)
    programs = builder.c_programs(builder.TESTS / "c", builder.TESTS / "build")
    current = {guest.output.stem: builder.source_digest(guest) for guest in programs}
    assert builder.prebuilt_digests() == current, "scripts/build_guests.py --keep-c"
