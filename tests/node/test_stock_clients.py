"""A client that knows nothing of us: grpcurl, which learns from the node what it offers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
BUILD_S = 600


@pytest.fixture(scope="module")
def grpcurl():
    """The tool, built once for all runs."""
    folder = Path(__file__).parent.parent / "guests" / "build" / "tools"
    tool = folder / GRPCURL.rpartition("/")[2]
    if not tool.exists():
        if shutil.which("go") is None:
            pytest.skip("grpcurl: this machine has no Go to build it with")
        env = os.environ | {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "install", GRPCURL], env=env, check=True, capture_output=True, timeout=BUILD_S)
        (folder / "grpcurl").rename(tool)
    return tool


def ask(grpcurl: Path, node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Its answer."""
    command = [str(grpcurl), "-plaintext", "-unix", *arguments[:-1], f"{node.home}/node.sock", arguments[-1]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.timeout(BUILD_S + 60)
def test_grpcurl_runs_a_process(grpcurl, node, hello):
    services = ask(grpcurl, node, "list").stdout.split()
    assert {f"timecraft.v1.{name}Service" for name in ("Process", "Module", "Record", "View", "Node")} < set(services)
    spec = {"spec": {"module": hello, "name": "curled"}}
    ran = ask(grpcurl, node, "-d", json.dumps(spec), "timecraft.v1.ProcessService/Run")
    assert json.loads(ran.stdout)["process"]["module_name"] == "hello.wat"
    ended = ask(grpcurl, node, "-d", '{"id": "curled"}', "timecraft.v1.ProcessService/Wait")
    assert json.loads(ended.stdout)["process"]["state"] == "PROCESS_STATE_EXITED"
    health = ask(grpcurl, node, "grpc.health.v1.Health/Check")
    assert json.loads(health.stdout) == {"status": "SERVING"}


@pytest.mark.timeout(BUILD_S + 60)
def test_grpcurl_is_told_what_is_wrong(grpcurl, node):
    wrong = ask(grpcurl, node, "-d", '{"id": "nobody"}', "timecraft.v1.ProcessService/Get")
    assert wrong.returncode != 0
    assert "NotFound" in wrong.stderr
    assert "TC0004" in wrong.stderr
