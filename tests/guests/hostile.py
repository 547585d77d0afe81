#!/usr/bin/env python3
"""Write the systematic hostile guests, hostile_*.wat and what they must print, hostile_*.out, from one table of all
calls.

The files are committed; run this after changing the table. Each call is made with arguments that are valid but for
one. Each line of output is "call argument=value: errno", in an .out file with every errno that is right, joined by |.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGES = 2
END = PAGES * 65536
OUT, BUF, IOVS, PATH, OTHER, SUBS = 70000, 72000, 76000, 78000, 78016, 79000
DIR, FILE = 3, 4

SUCCESS, BADF, FAULT, INVAL, NOSYS, NOTSOCK, NOTSUP = 0, 8, 21, 28, 52, 57, 58


@dataclass(frozen=True)
class Arg:
    """One parameter: its name, wasm type, a valid value, and what it is."""

    name: str
    valid: int
    type: str = "i32"
    kind: str = "value"  # value, fd, out (pointer to `size` bytes), buf or iovs (followed by its length)
    size: int = 0
    align: int = 1


def fd(name: str = "fd", valid: int = FILE) -> Arg:
    return Arg(name, valid, kind="fd")


def num(name: str, valid: int = 0) -> Arg:
    return Arg(name, valid)


def wide(name: str, valid: int = 0) -> Arg:
    return Arg(name, valid, "i64")


def out(name: str, size: int = 4, valid: int = OUT) -> Arg:
    return Arg(name, valid, kind="out", size=size, align=min(size, 8))


def buf(name: str, valid: int, length: int) -> tuple[Arg, Arg]:
    return Arg(name, valid, kind="buf"), Arg(f"{name}_len", length, kind="len")


def iovs() -> tuple[Arg, Arg]:
    return Arg("iovs", IOVS, kind="iovs", size=8, align=4), Arg("iovs_len", 1, kind="count")


def path(name: str = "path", valid: int = PATH) -> tuple[Arg, Arg]:
    return buf(name, valid, 4)


@dataclass(frozen=True)
class Call:
    name: str
    args: tuple[Arg, ...]
    also: tuple[int, ...] = field(default=())  # errnos right beside fault, where the fd is of the wrong kind


def call(name: str, *args: Arg, also: tuple[int, ...] = ()) -> Call:
    return Call(name, args, also)


STAT = 64
CALLS = [
    call("args_get", out("argv", 4), out("buf", 1, BUF)),
    call("args_sizes_get", out("argc"), out("size", 4, OUT + 8)),
    call("environ_get", out("environ", 4), out("buf", 1, BUF)),
    call("environ_sizes_get", out("count"), out("size", 4, OUT + 8)),
    call("clock_res_get", num("id", 1), out("resolution", 8)),
    call("clock_time_get", num("id", 1), wide("precision", 1), out("time", 8)),
    call("fd_advise", fd(), wide("offset"), wide("len", 1), num("advice")),
    call("fd_allocate", fd(), wide("offset"), wide("len", 1)),
    call("fd_close", fd()),
    call("fd_datasync", fd()),
    call("fd_fdstat_get", fd(), out("stat", 24)),
    call("fd_fdstat_set_flags", fd(), num("flags")),
    call("fd_fdstat_set_rights", fd(), wide("base"), wide("inheriting")),
    call("fd_filestat_get", fd(), out("stat", STAT)),
    call("fd_filestat_set_size", fd(), wide("size", 5)),
    call("fd_filestat_set_times", fd(), wide("atim"), wide("mtim"), num("flags", 1)),
    call("fd_pread", fd(), *iovs(), wide("offset"), out("nread")),
    call("fd_prestat_get", fd(valid=DIR), out("stat", 8)),
    call("fd_prestat_dir_name", fd(valid=DIR), *buf("path", BUF, 5)),
    call("fd_pwrite", fd(), *iovs(), wide("offset"), out("nwritten")),
    call("fd_read", fd(), *iovs(), out("nread")),
    call("fd_readdir", fd(valid=DIR), *buf("buf", BUF, 512), wide("cookie"), out("used")),
    call("fd_renumber", fd("from"), fd("to")),
    call("fd_seek", fd(), wide("offset", 3), num("whence"), out("position", 8)),
    call("fd_sync", fd()),
    call("fd_tell", fd(), out("position", 8)),
    call("fd_write", fd(), *iovs(), out("nwritten")),
    call("path_create_directory", fd(valid=DIR), *path(valid=OTHER)),
    call("path_filestat_get", fd(valid=DIR), num("lookup"), *path(), out("stat", STAT)),
    call("path_filestat_set_times", fd(valid=DIR), num("lookup"), *path(), wide("atim"), wide("mtim"), num("flags", 1)),
    call("path_link", fd("old_fd", DIR), num("lookup"), *path("old"), fd("new_fd", DIR), *path("new", OTHER)),
    call(
        "path_open",
        fd(valid=DIR),
        num("lookup"),
        *path(valid=OTHER),
        num("oflags", 1),
        wide("base", 2),
        wide("inheriting"),
        num("fdflags"),
        out("opened"),
    ),
    call("path_readlink", fd(valid=DIR), *path(), *buf("buf", BUF, 64), out("used"), also=(INVAL,)),
    call("path_remove_directory", fd(valid=DIR), *path(valid=OTHER)),
    call("path_rename", fd("old_fd", DIR), *path("old"), fd("new_fd", DIR), *path("new", OTHER)),
    call("path_symlink", *path("old"), fd(valid=DIR), *path("new", OTHER)),
    call("path_unlink_file", fd(valid=DIR), *path(valid=OTHER)),
    call(
        "poll_oneoff",
        Arg("in", SUBS, kind="iovs", size=48, align=8),
        Arg("out", BUF, kind="out", size=32, align=8),
        Arg("n", 1, kind="count"),
        out("nevents"),
    ),
    call("proc_exit", num("code")),
    call("proc_raise", num("signal")),
    call("sched_yield"),
    call("random_get", *buf("buf", BUF, 16)),
    call("sock_accept", fd(), num("flags"), out("opened"), also=(NOTSOCK, NOTSUP)),
    call("sock_recv", fd(), *iovs(), num("flags"), out("nread"), out("oflags", 2, OUT + 8), also=(NOTSOCK, NOTSUP)),
    call("sock_send", fd(), *iovs(), num("flags"), out("nwritten"), also=(NOTSOCK, NOTSUP)),
    call("sock_shutdown", fd(), num("how", 3), also=(NOTSOCK, NOTSUP)),
]
BY_NAME = {call.name: call for call in CALLS}
assert len(BY_NAME) == 46


class Guest:
    """A module under construction: its lines of output, and what each must say."""

    def __init__(self, name: str, about: str) -> None:
        self.name, self.about = name, about
        self.text = b""
        self.body: list[str] = []
        self.expected: list[str] = []

    def attempt(self, name: str, label: str, right: tuple[int, ...], **changes: int) -> None:
        """Make one call with some arguments changed, and print its errno."""
        args = BY_NAME[name].args
        values = [changes.pop(arg.name, arg.valid) for arg in args]
        assert not changes, changes
        operands = " ".join(f"({arg.type}.const {value})" for arg, value in zip(args, values, strict=True))
        line = f"{name} {label}: "
        self.say(line, f"(call ${name} {operands})" if operands else f"(call ${name})", right)

    def say(self, line: str, value: str, right: tuple[int, ...]) -> None:
        at = 1024 + len(self.text)
        self.text += line.encode()
        assert 1024 + len(self.text) < 65536
        self.body.append(f"(call $say (i32.const {at}) (i32.const {len(line)}) {value})")
        self.expected.append(line + "|".join(f"{errno:02}" for errno in right))

    def reset(self) -> None:
        """Restore the arguments in memory that an earlier call may have overwritten."""
        self.body.append("(call $reset)")

    def write(self) -> None:
        imports = "\n".join(
            f'  (import "wasi_snapshot_preview1" "{call.name}" (func ${call.name}'
            + (f" (param {' '.join(arg.type for arg in call.args)})" if call.args else "")
            + ("" if call.name == "proc_exit" else " (result i32)")
            + "))"
            for call in CALLS
        )
        body = "\n".join(f"    {line}" for line in self.body)
        self.text.decode("ascii")
        (HERE / f"{self.name}.wat").write_text(f""";; expect: exit=0 stdout_file="{self.name}.out"
;; mount: data:/data
;; {self.about}
;; Generated by hostile.py.
(module
{imports}
  (memory (export "memory") {PAGES} {PAGES})
  (data (i32.const 1024) "{self.text.decode()}")
  (func $print (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  ;; Prints a text and a number of two decimal digits.
  (func $say (param $at i32) (param $n i32) (param $value i32)
    (call $print (local.get $at) (local.get $n))
    (i32.store8 (i32.const 16)
      (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $value) (i32.const 10)) (i32.const 10))))
    (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10))))
    (i32.store8 (i32.const 18) (i32.const 10))
    (call $print (i32.const 16) (i32.const 3)))
  ;; Valid arguments: one iovec of 5 bytes, the names "file" and "othr", one clock subscription of 1 ns.
  (func $reset
    (memory.fill (i32.const {OUT}) (i32.const 0) (i32.const {SUBS + 48 - OUT}))
    (i32.store (i32.const {IOVS}) (i32.const {BUF}))
    (i32.store (i32.const {IOVS + 4}) (i32.const 5))
    (i32.store (i32.const {PATH}) (i32.const 0x656c6966))
    (i32.store (i32.const {OTHER}) (i32.const 0x7268746f))
    (i32.store (i32.const {SUBS + 16}) (i32.const 1))
    (i64.store (i32.const {SUBS + 24}) (i64.const 1)))
  (func (export "_start")
    (call $reset)
    ;; Descriptor 4: the file, of 5 bytes, at offset 0.
    (drop (call $path_open (i32.const {DIR}) (i32.const 0) (i32.const {PATH}) (i32.const 4) (i32.const 9)
      (i64.const 0x8e001ff) (i64.const 0) (i32.const 0) (i32.const {OUT})))
    (drop (call $fd_pwrite (i32.const {FILE}) (i32.const {IOVS}) (i32.const 1) (i64.const 0) (i32.const {OUT})))
{body}))
""")
        (HERE / f"{self.name}.out").write_text("".join(f"{line}\n" for line in self.expected))


def check_untouched(guest: Guest) -> None:
    """What failed calls must have left: the file's offset and size, and no new name."""
    guest.reset()
    guest.attempt("fd_tell", "after all", (SUCCESS,))
    guest.say("offset: ", f"(i32.load (i32.const {OUT}))", (0,))
    guest.attempt("fd_filestat_get", "after all", (SUCCESS,))
    guest.say("size: ", f"(i32.load (i32.const {OUT + 32}))", (5,))
    guest.attempt("path_filestat_get", "othr after all", (44,), path=OTHER)
    guest.attempt("path_filestat_get", "file after all", (SUCCESS,))
    guest.attempt("sock_shutdown", "5 after all", (BADF,), fd=5)


def pointers() -> Guest:
    guest = Guest(
        "hostile_pointers",
        "Every call with each pointer bad in turn. A bad pointer is fault (21), found before any effect.",
    )
    for call in CALLS:
        for i, arg in enumerate(call.args):
            right = (FAULT, *call.also)
            if arg.kind in ("out", "iovs"):
                bad = {0xFFFFFFFF, END, END - arg.size + 1, 0x1_0000_0000 - arg.size, 0x80000000}
                for value in sorted(bad):
                    if arg.name in ("environ", "buf") and call.name == "environ_get":
                        continue  # an empty environment writes nothing
                    guest.attempt(call.name, f"{arg.name}={value:x}", right, **{arg.name: value})
            elif arg.kind == "buf":
                length = call.args[i + 1]
                for value, size in [
                    (0xFFFFFFFF, length.valid),
                    (END, length.valid),
                    (END - 1, 2),
                    (0x1_0000_0000 - length.valid, length.valid),
                    (arg.valid, 0xFFFFFFFF),
                    (arg.valid, 0x80000000),
                    (arg.valid, END - arg.valid + 1),
                    (0xFFFFFFF0, 0x20),
                ]:
                    # A length that is too long may be refused as such.
                    also = (37, INVAL) if size > 65536 and arg.name != "buf" else ()
                    if call.name == "random_get" and size > 65536:
                        also = (INVAL,)
                    if call.name == "fd_prestat_dir_name":
                        also = (37, INVAL) if size != length.valid else ()
                    guest.attempt(
                        call.name,
                        f"{arg.name}={value:x} len={size:x}",
                        (*right, *also),
                        **{arg.name: value, length.name: size},
                    )
    check_untouched(guest)
    return guest


def fds() -> Guest:
    guest = Guest("hostile_fds", "Every call with descriptors that are not open: badf (8).")
    # Last, because renumbering to a free number works in some runtimes and takes the file away.
    for call in sorted(CALLS, key=lambda call: call.name == "fd_renumber"):
        for arg in call.args:
            if arg.kind == "fd":
                for value in (99, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                    guest.attempt(call.name, f"{arg.name}={value:x}", (BADF,), **{arg.name: value})
    check_untouched(guest)
    return guest


def values() -> Guest:
    guest = Guest(
        "hostile_values",
        "Flags, clocks, offsets and whences that do not exist: inval (28), or an errno of the same meaning.",
    )
    bad = (INVAL,)
    for value in (4, 99, 0xFFFFFFFF):
        guest.attempt("clock_res_get", f"id={value:x}", (*bad, 58), id=value)
        guest.attempt("clock_time_get", f"id={value:x}", (*bad, 58), id=value)
    for value in (3, 255, 0xFFFFFFFF):
        guest.attempt("fd_seek", f"whence={value:x}", bad, whence=value)
    guest.attempt("fd_seek", "offset=-1", bad, offset=-1)
    guest.attempt("fd_seek", "offset=min", bad, offset=-(2**63))
    for value in (6, 255, 0xFFFFFFFF):
        guest.attempt("fd_advise", f"advice={value:x}", bad, advice=value)
    guest.attempt("fd_advise", "offset=-1", bad, offset=-1)
    guest.attempt("fd_advise", "len=-1", bad, len=-1)
    guest.attempt("fd_allocate", "offset=-1", (INVAL, 22, NOTSUP), offset=-1)
    guest.attempt("fd_allocate", "len=-1", (INVAL, 22, NOTSUP), len=-1)
    guest.attempt("fd_allocate", "len=0", (INVAL, NOTSUP), len=0)
    guest.attempt("fd_filestat_set_size", "size=-1", (INVAL, 22), size=-1)
    guest.attempt("fd_filestat_set_times", "flags=3", bad, flags=3)  # both the given time and now
    guest.attempt("fd_filestat_set_times", "flags=c", bad, flags=12)
    guest.attempt("fd_filestat_set_times", "flags=10", bad, flags=16)
    guest.attempt("path_filestat_set_times", "flags=3", bad, flags=3)
    guest.attempt("fd_fdstat_set_flags", "flags=20", bad, flags=0x20)
    guest.attempt("fd_fdstat_set_flags", "flags=ffff", (INVAL, NOTSUP), flags=0xFFFF)
    guest.attempt("fd_pread", "offset=-1", bad, offset=-1)
    guest.attempt("fd_pwrite", "offset=-1", (INVAL, 22), offset=-1)
    guest.attempt("path_open", "oflags=10", bad, oflags=0x10)
    guest.attempt("path_open", "oflags=ffff", bad, oflags=0xFFFF)
    guest.attempt("path_open", "creat and directory", bad, oflags=3)
    guest.attempt("path_open", "fdflags=20", bad, fdflags=0x20)
    guest.attempt("path_filestat_get", "lookup=2", bad, lookup=2)
    guest.attempt("sock_shutdown", "how=0", (INVAL, NOTSOCK), how=0)
    guest.attempt("sock_shutdown", "how=4", (INVAL, NOTSOCK), how=4)
    guest.attempt("poll_oneoff", "n=0", bad, n=0)
    guest.reset()
    guest.body.append(f"(i32.store8 (i32.const {SUBS + 8}) (i32.const 3))")
    guest.attempt("poll_oneoff", "tag=3", bad)
    guest.reset()
    guest.attempt("random_get", "len=0", (SUCCESS,), buf_len=0)
    guest.attempt("fd_readdir", "cookie=-1", (SUCCESS, INVAL, 44), cookie=-1)
    guest.attempt("fd_readdir", "len=0", (SUCCESS, INVAL), buf_len=0)
    guest.attempt("path_readlink", "of a file", bad)
    check_untouched(guest)
    return guest


def vectors() -> Guest:
    guest = Guest(
        "hostile_iovs", "Reads and writes with bad arrays of iovecs: fault (21) or inval (28), before any byte moves."
    )

    def iovec(i: int, pointer: int, length: int) -> None:
        guest.body.append(f"(i32.store (i32.const {IOVS + 8 * i}) (i32.const {pointer}))")
        guest.body.append(f"(i32.store (i32.const {IOVS + 8 * i + 4}) (i32.const {length}))")

    for name in ("fd_read", "fd_pread", "fd_write", "fd_pwrite"):
        for n in (0xFFFFFFFF, 0x80000000, 0x20000000, 0x20000001, 0x1FFFFFFF, (END - IOVS) // 8 + 1):
            guest.attempt(name, f"iovs_len={n:x}", (FAULT, INVAL), iovs_len=n)
        guest.attempt(name, "the last iovec half outside", (FAULT,), iovs=END - 4)
        for pointer, length in (
            (0xFFFFFFFF, 1),
            (END, 1),
            (END - 1, 2),
            (BUF, 0xFFFFFFFF),
            (BUF, END - BUF + 1),
            (0xFFFFFFF0, 0x20),
            (0x80000000, 0x80000000),
        ):
            iovec(0, pointer, length)
            guest.attempt(name, f"one of {length:x} at {pointer:x}", (FAULT,))
            iovec(1, pointer, length)
            iovec(0, BUF, 2)
            guest.attempt(name, f"the second of {length:x} at {pointer:x}", (FAULT,), iovs_len=2)
        guest.reset()
        guest.attempt(name, "none", (SUCCESS, INVAL), iovs_len=0)
        iovec(0, BUF, 0)
        guest.attempt(name, "an empty one", (SUCCESS,))
        iovec(0, END, 0)
        guest.attempt(name, "an empty one at the end", (SUCCESS,))
        iovec(0, 0xFFFFFFFF, 0)
        guest.attempt(name, "an empty one outside", (SUCCESS, FAULT))
        guest.reset()
        # 2000 empty iovecs: more than the kernel's IOV_MAX, yet valid here.
        guest.body.append("(memory.fill (i32.const 100000) (i32.const 0) (i32.const 16000))")
        guest.attempt(name, "2000 empty ones", (SUCCESS, INVAL), iovs=100000, iovs_len=2000)
    check_untouched(guest)
    return guest


def edges() -> Guest:
    guest = Guest(
        "hostile_misaligned", "Every call with its pointers misaligned by one: works, or inval (28). Never a trap."
    )
    for call in CALLS:
        if call.name == "path_open":
            continue
        for arg in call.args:
            if arg.align > 1:
                # Shift the data along, so that what is read there is valid.
                guest.reset()
                if arg.kind == "iovs":
                    guest.body.append(
                        f"(memory.copy (i32.const {arg.valid + 1}) (i32.const {arg.valid}) (i32.const {arg.size}))"
                    )
                right = (SUCCESS, INVAL, *call.also)
                guest.attempt(
                    call.name, f"{arg.name}={arg.valid + 1:x}", tuple(dict.fromkeys(right)), **{arg.name: arg.valid + 1}
                )
    return guest


def main() -> None:
    for guest in (pointers(), fds(), values(), vectors(), edges()):
        guest.write()


if __name__ == "__main__":
    main()
