"""Builds the guest: CPython for WASI with sockets, and the zip file of its standard library.

Everything comes from Debian: compiler, wasi-libc, and the sources that `sources.toml` names. What is built depends
neither on where this happens nor on when.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Debian's packages of tools, each with a file that tells whether it is installed.
TOOLS = {
    "clang-16": "/usr/bin/clang-16",
    "dpkg-dev": "/usr/bin/dpkg-source",
    "gcc": "/usr/bin/gcc",
    "libclang-rt-16-dev-wasm32": "/usr/lib/llvm-16/lib/clang/16/lib/wasi/libclang_rt.builtins-wasm32.a",
    "lld-16": "/usr/bin/wasm-ld-16",
    "llvm-16": "/usr/bin/llvm-ar-16",
    "make": "/usr/bin/make",
    "patch": "/usr/bin/patch",
    "perl": "/usr/bin/perl",
    "pkg-config": "/usr/bin/pkg-config",
    "python3.11": "/usr/bin/python3.11",
    "tcl": "/usr/bin/tclsh",
    "wasi-libc": "/usr/lib/wasm32-wasi/libc.a",
}

# Python says when it was built, in `sys.version`: when its newest source was made.
EPOCH_S = 1778581647

# WebAssembly 2.0, which wasi-libc of Debian predates.
MACHINE = ["-mbulk-memory", "-mmutable-globals", "-mnontrapping-fptoint", "-msign-ext"]

# C functions that call one another deeply (the parser, pickle, repr) need a stack; it lies in linear memory.
STACK_BYTES = 8 << 20
MEMORY_BYTES = 40 << 20

OPENSSL_WITHOUT = """
    afalgeng asm async autoload-config camellia cast cmp cms ct dgram dso dtls dynamic-engine engine gost idea legacy
    loadereng md4 mdc2 module pic rc2 rc4 rfc3779 rmd160 sctp seed shared sm2 sm4 srp srtp ssl-trace static-engine tests
    threads ts ui-console uplink whirlpool
"""

# One process, which holds its locks and shared memory itself: see shim/sqlite.h.
SQLITE = """
    -DSQLITE_THREADSAFE=0 -DSQLITE_DEFAULT_UNIX_VFS="unix-excl" -DSQLITE_MAX_MMAP_SIZE=0 -DSQLITE_TEMP_STORE=2
    -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_ENABLE_COLUMN_METADATA -DSQLITE_ENABLE_FTS5 -DSQLITE_ENABLE_MATH_FUNCTIONS
    -DSQLITE_ENABLE_RTREE -D_WASI_EMULATED_MMAN -D_WASI_EMULATED_GETPID -DHAVE_USLEEP=1
"""
EXPAT = """
    -DXML_NS -DXML_DTD -DXML_CONTEXT_BYTES=1024 -DBYTEORDER=1234 -DHAVE_MEMMOVE -DXML_POOR_ENTROPY -DXML_STATIC -I.
    -D_WASI_EMULATED_GETPID
"""


class BuildError(Exception):
    """What stops the build, in words."""


class Builder:
    """Builds in `root`, from sources that are kept in `cache`."""

    def __init__(self, root: str, cache: str, jobs: int) -> None:
        self.root = root
        self.cache = cache
        self.jobs = jobs
        self.sysroot = os.path.join(root, "sysroot")
        self.libraries = os.path.join(self.sysroot, "lib", "wasm32-wasi")
        self.headers = os.path.join(self.sysroot, "include", "wasm32-wasi")
        self.environment = {
            "PATH": os.path.join(root, "bin") + ":/usr/bin:/bin",
            "LC_ALL": "C",
            "TZ": "UTC",
            "SOURCE_DATE_EPOCH": str(EPOCH_S),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            # Nothing of the machine's own libraries.
            "PKG_CONFIG_LIBDIR": os.path.join(self.libraries, "pkgconfig"),
            "PKG_CONFIG_PATH": "",
        }
        with open(os.path.join(FOLDER, "sources.toml"), "rb") as file:
            self.sources = tomllib.load(file)

    # ---- running

    def run(self, *command: str, cwd: str, more: Mapping[str, str] | None = None) -> None:
        """Runs a command whose output goes to the log, the end of which is shown if it fails."""
        log = os.path.join(self.root, "log.txt")
        with open(log, "ab") as file:
            file.write(f"\n$ {shlex.join(command)}\n".encode())
            file.flush()
            environment = {**self.environment, **(more or {})}
            done = subprocess.run(command, cwd=cwd, env=environment, stdout=file, stderr=file, check=False)
        if done.returncode != 0:
            with open(log, encoding="utf-8", errors="replace") as file:
                tail = "".join(file.readlines()[-40:])
            raise BuildError(f"{tail}\n{shlex.join(command)[:200]} failed; all output is in {log}")

    def compile(self, name: str, files: Iterable[str], flags: str, cwd: str) -> None:
        """Compiles C files into a static library of the sysroot."""
        objects = []
        for file in files:
            objects.append(os.path.join(cwd, os.path.basename(file)[:-2] + ".o"))
            self.run("wasi-cc", *shlex.split(flags), "-c", file, "-o", objects[-1], cwd=cwd)
        self.run("wasi-ar", "rcs", os.path.join(self.libraries, f"lib{name}.a"), *objects, cwd=cwd)

    # ---- what is needed

    def check_tools(self) -> None:
        missing = [package for package, path in TOOLS.items() if not os.path.exists(path)]
        if missing:
            raise BuildError(f"packages of Debian 12 are missing: apt-get install {' '.join(missing)}")

    def fetch(self) -> None:
        """Fetches what the cache lacks; `BuildError` says what can't be had."""
        os.makedirs(self.cache, exist_ok=True)
        for package, source in self.sources.items():
            paths = {os.path.join(self.cache, file["name"]): file["sha256"] for file in source["files"]}
            if not all(os.path.exists(path) for path in paths):
                # It fails if any file of the package can't be had, also one that is not used: what counts is below.
                command = ["apt-get", "source", "--download-only", f"{package}={source['version']}"]
                subprocess.run(command, cwd=self.cache, capture_output=True, check=False)
            for path, sha256 in paths.items():
                if not os.path.exists(path):
                    raise BuildError(
                        f"{os.path.basename(path)} is not to be had: apt-get needs deb-src lines of Debian 12, and "
                        f"Debian drops what a newer version replaced (then change sources.toml)"
                    )
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        raise BuildError(f"{path} has another digest than in sources.toml: delete it, try again")

    def unpack(self, package: str) -> str:
        """A folder with a package's source, patched."""
        folder = os.path.join(self.root, package)
        os.makedirs(folder)
        source = self.sources[package]
        for file in source["files"]:
            strip = "0" if ".debian." in file["name"] else "1"
            archive = os.path.join(self.cache, file["name"])
            self.run("tar", "xf", archive, f"--strip-components={strip}", "--no-same-owner", cwd=folder)
        if "series" in source:
            for patch in patches(folder, source["series"]):
                self.run("patch", "-p1", "--forward", "-i", f"debian/patches/{patch}", cwd=folder)
        return folder

    # ---- the parts, in order

    def tools(self) -> None:
        """The compiler under names that hold no path, so that what it makes tells none."""
        folder = os.path.join(self.root, "bin")
        os.makedirs(folder)
        flags = [
            "--target=wasm32-wasi",
            f"--sysroot={self.sysroot}",
            "-isystem",
            os.path.join(FOLDER, "shim", "include"),
            f"-ffile-prefix-map={self.root}=/build",
            f"-ffile-prefix-map={FOLDER}=/guest-python",
            "-Wno-unused-command-line-argument",
            *MACHINE,
        ]
        scripts = {
            "wasi-cc": f'exec clang-16 {shlex.join(flags)} "$@"',
            # CPython's configure asks for one by name, and no C++ is compiled.
            "wasi-c++": f'exec clang++-16 {shlex.join(flags)} "$@"',
            "wasi-ar": 'exec llvm-ar-16 "$@"',
            "wasi-ranlib": 'exec llvm-ranlib-16 "$@"',
        }
        for name, line in scripts.items():
            path = os.path.join(folder, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\n{line}\n")
            os.chmod(path, 0o755)

    def libc(self) -> None:
        """A copy of wasi-libc with the shim in it."""
        shutil.copytree("/usr/include/wasm32-wasi", self.headers)
        shutil.copytree("/usr/lib/wasm32-wasi", self.libraries)
        shim = os.path.join(FOLDER, "shim")
        objects = os.path.join(self.root, "shim")
        os.makedirs(objects)
        flags = ["-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
        names = ("names", "process", "sockets", "times")
        for name in names:
            self.run("wasi-cc", *flags, "-c", os.path.join(shim, name + ".c"), "-o", name + ".o", cwd=objects)
        archive = os.path.join(self.libraries, "libc.a")
        replaced = "accept.o clock_nanosleep.o futimens.o getsockopt.o recv.o select.o send.o utimensat.o"
        self.run("wasi-ar", "d", archive, *replaced.split(), cwd=objects)
        self.run("wasi-ar", "qs", archive, *(name + ".o" for name in names), cwd=objects)

    def compressors(self) -> None:
        """zlib, bzip2 and liblzma."""
        folder = self.unpack("zlib")
        names = (
            "adler32 compress crc32 deflate gzclose gzlib gzread gzwrite infback inffast inflate inftrees trees uncompr"
        )
        names += " zutil"
        self.compile(
            "z", (name + ".c" for name in names.split()), "-O3 -DHAVE_UNISTD_H -D_LARGEFILE64_SOURCE=0", folder
        )
        self.publish(folder, "zlib.h", "zconf.h")
        folder = self.unpack("bzip2")
        names = "blocksort huffman crctable randtable compress decompress bzlib"
        self.compile("bz2", (name + ".c" for name in names.split()), "-O3", folder)
        self.publish(folder, "bzlib.h")
        folder = self.unpack("xz-utils")
        self.configure(
            folder, "--disable-assembler", "--disable-doc", "--disable-lzma-links", "--disable-lzmadec",
            "--disable-lzmainfo", "--disable-nls", "--disable-scripts", "--disable-shared", "--disable-threads",
            "--disable-xz", "--disable-xzdec", "--disable-sandbox",
            # For a function of the program xz, which is not built.
            "CFLAGS=-O2 -D_WASI_EMULATED_SIGNAL -Wno-implicit-function-declaration -include __typedef_sigset_t.h",
        )  # fmt: skip
        self.make(os.path.join(folder, "src", "liblzma"))
        shutil.copy(os.path.join(folder, "src", "liblzma", ".libs", "liblzma.a"), self.libraries)
        api = os.path.join(folder, "src", "liblzma", "api")
        self.publish(api, "lzma.h")
        shutil.copytree(os.path.join(api, "lzma"), os.path.join(self.headers, "lzma"))

    def expat(self) -> None:
        folder = os.path.join(self.unpack("expat"), "expat", "lib")
        with open(os.path.join(folder, "expat_config.h"), "w", encoding="utf-8"):
            pass  # EXPAT says it all
        self.compile("expat", ("xmlparse.c", "xmlrole.c", "xmltok.c"), "-O3 " + EXPAT, folder)
        self.publish(folder, "expat.h", "expat_external.h")

    def sqlite(self) -> None:
        folder = self.unpack("sqlite3")
        # The amalgamation is made by programs that run here.
        native = {"CC": "gcc"}
        self.run("sh", "configure", "--disable-readline", "--disable-tcl", cwd=folder, more=native)
        self.run("make", "sqlite3.c", f"-j{self.jobs}", cwd=folder, more=native)
        header = os.path.join(FOLDER, "shim", "sqlite.h")
        self.compile("sqlite3", ["sqlite3.c"], f"-O2 -include {shlex.quote(header)} " + quoted(SQLITE), folder)
        self.publish(folder, "sqlite3.h")

    def openssl(self) -> None:
        folder = self.unpack("openssl")
        header = os.path.join(FOLDER, "shim", "openssl.h")
        shutil.copy(header, os.path.join(folder, "include", "timecraft.h"))
        without = ["no-" + name for name in OPENSSL_WITHOUT.split()]
        # Paths that the guest sees: where certificates may be mounted.
        self.run(
            "perl", "Configure", "linux-generic32", "--prefix=/usr", "--openssldir=/etc/ssl",
            "--with-rand-seed=getrandom",
            *without, "CC=wasi-cc", "AR=wasi-ar", "RANLIB=wasi-ranlib",
            "CFLAGS=-O2 -include timecraft.h -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID",
            "CPPFLAGS=-DNO_SYSLOG -DOPENSSL_NO_SECURE_MEMORY", cwd=folder,
        )  # fmt: skip
        self.run("make", "build_generated", "libcrypto.a", "libssl.a", f"-j{self.jobs}", cwd=folder)
        for name in ("libcrypto.a", "libssl.a"):
            shutil.copy(os.path.join(folder, name), self.libraries)
        shutil.copytree(os.path.join(folder, "include", "openssl"), os.path.join(self.headers, "openssl"))
        os.makedirs(os.path.join(self.libraries, "pkgconfig"))
        with open(os.path.join(self.libraries, "pkgconfig", "openssl.pc"), "w", encoding="utf-8") as file:
            file.write("Name: openssl\nDescription: OpenSSL\nVersion: 3.0\nLibs: -lssl -lcrypto\nCflags:\n")

    def python(self) -> None:
        folder = self.unpack("python3.11")
        ours = os.path.join(FOLDER, "patches")
        for name in sorted(os.listdir(ours)):
            self.run("patch", "-p1", "--forward", "-i", os.path.join(ours, name), cwd=folder)
        shutil.copytree(os.path.join(FOLDER, "overlay"), os.path.join(folder, "Lib"), dirs_exist_ok=True)
        self.configure(
            folder, "--prefix=/usr", "--with-build-python=/usr/bin/python3.11", "--disable-test-modules",
            "--enable-ipv6", "--with-system-expat", "--with-pymalloc", "--without-ensurepip",
            # The last two: Python insists on an OpenSSL with threads, whose headers would ask for pthread.h.
            "CFLAGS=-Wno-int-conversion -DPy_DEFAULT_RECURSION_LIMIT=1000 -DOPENSSL_THREADS -DCRYPTO_TDEBUG",
            more={"CONFIG_SITE": "Tools/wasm/config.site-wasm32-wasi"},
        )  # fmt: skip
        # Not for configure, which looks into objects. Linked as one program, json and re are a tenth faster.
        optimising = "-DNDEBUG -fwrapv -O3 -Wall -flto"
        # Behind what configure has chosen, the last of which counts.
        linking = f"-flto -Wl,--lto-O3 -Wl,-z,stack-size={STACK_BYTES} -Wl,--initial-memory={MEMORY_BYTES}"
        settings = (f"OPT={optimising}", f"LINKFORSHARED={linking}")
        self.run("make", "python.wasm", "pybuilddir.txt", f"-j{self.jobs}", *settings, cwd=folder)

    def results(self) -> None:
        """`python.wasm` with the names of its functions, which profiles and backtraces show, and two archives."""
        folder = os.path.join(self.root, "python3.11")
        to = os.path.join(self.root, "results")
        os.makedirs(to)
        wasm = os.path.join(to, "python.wasm")
        self.run("llvm-strip-16", "--strip-debug", "-o", wasm, "python.wasm", cwd=folder)
        for script, archive in (("stdlib.py", "python311.zip"), ("suite.py", "python311-tests.tar")):
            packer = os.path.join(FOLDER, "recipe", script)
            path = os.path.join(to, archive)
            self.run("python3.11", "-I", "-S", "-W", "ignore", packer, folder, path, str(EPOCH_S), cwd=to)
        self.licences(os.path.join(to, "licences"))

    def licences(self, to: str) -> None:
        """The licences of all that is in the results."""
        os.makedirs(to)
        sources = {
            "python.txt": "python3.11/LICENSE",
            "python-incorporated.txt": "python3.11/Doc/license.rst",
            "openssl.txt": "openssl/LICENSE.txt",
            "expat.txt": "expat/COPYING",
            "sqlite.txt": "sqlite3/LICENSE.md",
            "zlib.txt": "zlib/README",
            "bzip2.txt": "bzip2/LICENSE",
            "xz.txt": "xz-utils/COPYING",
            "wasi-libc.txt": "/usr/share/doc/wasi-libc/copyright",
            "compiler-rt.txt": "/usr/share/doc/libclang-rt-16-dev-wasm32/copyright",
        }
        for name, path in sources.items():
            shutil.copyfile(os.path.join(self.root, path), os.path.join(to, name))

    # ---- shared by the parts

    def publish(self, folder: str, *headers: str) -> None:
        for header in headers:
            shutil.copy(os.path.join(folder, header), self.headers)

    def configure(self, folder: str, *arguments: str, more: Mapping[str, str] | None = None) -> None:
        """Runs an autoconf script."""
        tools = ("CC=wasi-cc", "CXX=wasi-c++", "AR=wasi-ar", "RANLIB=wasi-ranlib")
        machines = ("--host=wasm32-wasi", "--build=x86_64-pc-linux-gnu")
        self.run("sh", "configure", *machines, *tools, *arguments, cwd=folder, more=more)

    def make(self, folder: str) -> None:
        self.run("make", f"-j{self.jobs}", cwd=folder)

    def build(self) -> None:
        self.check_tools()
        self.fetch()
        shutil.rmtree(self.root, ignore_errors=True)
        os.makedirs(self.root)
        parts = (
            self.tools,
            self.libc,
            self.compressors,
            self.expat,
            self.sqlite,
            self.openssl,
            self.python,
            self.results,
        )
        for part in parts:
            print(f"building {part.__name__}", flush=True)
            part()


def patches(folder: str, first: str) -> list[str]:
    """The patches of Debian's package in their order, from `first` on."""
    with open(os.path.join(folder, "debian", "patches", "series"), encoding="utf-8") as file:
        names = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return names[names.index(first) :]


def quoted(flags: str) -> str:
    """Flags whose values are C strings, as a shell would have to be told."""
    return " ".join(shlex.quote(flag) for flag in flags.split())
