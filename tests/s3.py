"""A real S3 server for tests: versitygw, on a directory, on a free port of the loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.servers import Server, answers, free_port

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BUILD_S = 900
BUCKET = "timecraft"
DOMAIN = "s3.test"
"""In which buckets are hosts, for those who resolve its names to the loopback."""
ACCESS, SECRET = "timecraft-test", "timecraft-test-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def versitygw() -> Path:
    """The program, built once for all runs."""
    folder = Path(__file__).parent / "guests" / "build" / "tools"
    tool = folder / VERSITYGW.rpartition("/")[2]
    if not tool.exists():
        assert shutil.which("go"), "versitygw: this machine has no Go to build it with"
        env = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "install", VERSITYGW], env=env, check=True, capture_output=True, timeout=BUILD_S)
        (folder / "versitygw").rename(tool)
    return tool


class S3:
    """A server with one bucket."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._server: Server | None = None
        for name in ("data", "metadata"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.bucket.mkdir(exist_ok=True)

    @property
    def bucket(self) -> Path:
        """What is in the bucket, as files."""
        return self.folder / "data" / BUCKET

    @property
    def endpoint(self) -> str:
        """For `remote.endpoint_url`."""
        return f"http://127.0.0.1:{self.port}"

    def config(self, prefix: str = "logs/test") -> str:
        """The section of a configuration file."""
        return (
            f'[remote]\nurl = "s3://{BUCKET}/{prefix}"\nendpoint_url = "{self.endpoint}"\n'
            'region = "us-east-1"\naddressing = "path"\n'
        )

    def start(self) -> S3:
        """Serves."""
        command: list[str | Path] = [
            versitygw(), "--access", ACCESS, "--secret", SECRET, "--port", f"127.0.0.1:{self.port}", "--quiet",
            "--keep-alive", "--virtual-domain", DOMAIN,
            "posix", "--sidecar", self.folder / "metadata", self.folder / "data",
        ]  # fmt: skip
        env = os.environ | {"HOME": str(self.folder)}
        self._server = Server(self.folder / "run", self.port, command, lambda: answers(self.port), env=env)
        return self

    def stop(self) -> None:
        """Ends it; what it has stays."""
        if self._server is not None:
            self._server.stop()
            self._server = None


@contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """A server, from its start to its stop."""
    server = S3(folder).start()
    try:
        yield server
    finally:
        server.stop()
