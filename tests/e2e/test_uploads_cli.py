"""`timecraft run` with a store for its log: what is there at the end, and what if the store isn't."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.cli import TIMEOUT_S, guest, wait_for
from tests.faults.test_damage import damage_second_block
from tests.node.test_supervision import TICKER
from tests.s3 import BUCKET, BUILD_S, ENVIRONMENT, serving
from timecraftd.recorder.manifest import decode_manifest

pytestmark = pytest.mark.timeout(BUILD_S + 120)


@pytest.fixture
def s3(tmp_path):
    """A server of the test's own, which it may stop."""
    with serving(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def run(cli, s3):
    """The command line with a store."""
    cli.environment |= ENVIRONMENT | {
        "TIMECRAFT_REMOTE_URL": f"s3://{BUCKET}/logs",
        "TIMECRAFT_REMOTE_ENDPOINT_URL": s3.endpoint,
        "TIMECRAFT_REMOTE_REGION": "us-east-1",
        "TIMECRAFT_REMOTE_ADDRESSING": "path",
        "TIMECRAFT_REMOTE_SEAL_AGE_S": "200ms",
    }
    cli("ps")  # makes the state directory
    return cli


def manifest(s3, process: str):
    """What the bucket says of a process; None if it says nothing yet."""
    path = s3.bucket / "logs" / "manifests" / f"{process}.json"
    return decode_manifest(path.read_bytes(), process) if path.exists() else None


def same(s3, cli, process: str) -> bool:
    """Whether the log in the bucket is the one on the disk."""
    stored = {path.name: path.read_bytes() for path in (s3.bucket / "logs" / "logs" / process).glob("*.tcl")}
    return stored == {path.name: path.read_bytes() for path in cli.segments(process)} != {}


def test_a_run_leaves_its_log_in_the_store(run, s3):
    process, done = run.run(guest("hello"))
    assert done.stderr == ""
    found = manifest(s3, process)
    assert (found.complete, found.process.exit_code) == (True, 0)
    assert same(s3, run, process)
    described = json.loads(run("describe", "process", process, "-o", "json").stdout)["store"]
    assert described == {"complete": True, "segments": 1, "next_seq": found.next_seq}
    doctor = run("doctor", code=None).out
    assert f"s3://{BUCKET}/logs, 0 B of 8.0 GiB still to be sent" in doctor


def test_without_a_store_a_run_ends_as_its_guest_did_and_its_log_goes_later(run, s3):
    s3.stop()
    process, done = run.run(guest("exit_code"), code=None)
    bare = run("run", guest("exit_code"), code=None, TIMECRAFT_REMOTE_URL="")
    assert done.code == bare.code
    assert f"timecraft log push {process}" in done.stderr
    assert "TC0030" in run("log", "push", process, code=125).stderr
    s3.start()
    assert "sent 1 segments" in run("log", "push", process).out
    assert manifest(s3, process).complete
    assert same(s3, run, process)
    assert "sent 1 segments" in run("log", "push", "--all").out, "of the run that had no store"
    assert "sent 0 segments" in run("log", "push", "--all").out


def test_a_long_run_goes_as_it_grows(run, s3, tmp_path: Path):
    (tmp_path / "ticker.wat").write_bytes(TICKER)
    host = run.start("run", tmp_path / "ticker.wat")
    process = run.only_process()
    wait_for(lambda: (found := manifest(s3, process)) and len(found.segments) > 1, "segments in the store")
    assert not manifest(s3, process).complete
    host.send_signal(signal.SIGTERM)
    assert host.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    assert manifest(s3, process).complete
    assert same(s3, run, process)


def test_a_second_signal_ends_the_wait_for_the_store(run, s3, tmp_path: Path):
    run.environment["TIMECRAFT_REMOTE_ENDPOINT_URL"] = "http://10.255.255.1:9"  # nobody answers, nor refuses
    (tmp_path / "ticker.wat").write_bytes(TICKER)
    host = run.start("run", tmp_path / "ticker.wat")
    process = run.only_process()
    wait_for(lambda: run.segments(process), "a log")
    host.send_signal(signal.SIGTERM)
    wait_for(lambda: run.process(process)["state"] == "killed", "its end")
    host.send_signal(signal.SIGTERM)
    assert host.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    assert host.stderr is not None
    assert b"a signal came" in host.stderr.read()


def stored(s3) -> set[str]:
    """What kinds of things are in the bucket, but for the flag of sweeps."""
    root = s3.bucket / "logs"
    return {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()} - {"sweep.json"}


def test_a_process_is_deleted_from_the_store_and_goes_after_the_grace_period(run, s3):
    process, done = run.run(guest("hello"))
    assert run("rm", "--remote", process[:13]).out == f"{process[:13]}\n"
    assert run("ps", "--remote", "-q").out == ""
    assert stored(s3) == {"deleted", "logs", "objects"}, "whoever reads it can go on"
    assert run("replay", process).stdout == done.stdout, "from the disk"
    assert "sent 0 segments" in run("log", "push", process).out
    assert json.loads(run("prune", "--remote", "-o", "json").stdout) == []
    gone = json.loads(run("prune", "--remote", "-o", "json", TIMECRAFT_REMOTE_DELETE_GRACE_S="0s").stdout)
    assert [each["kind"] for each in gone] == ["log", "config", "module", "runtime"]
    assert gone[0]["id"] == process
    assert all(each["bytes"] > 0 for each in gone)
    assert stored(s3) == set()
    assert "isn't in s3://" in run("rm", "--remote", process, code=127).stderr


def test_processes_of_the_store_are_pruned_whoever_ran_them(run, s3, tmp_path: Path):
    first, _ = run.run(guest("hello"))
    second, _ = run.run(guest("exit_code"), code=None)
    run.environment["TIMECRAFT_HOME"] = str(tmp_path / "elsewhere")
    planned = json.loads(run("prune", "--remote", "--keep", "1", "--now", "--dry-run", "-o", "json").stdout)
    assert [(each["kind"], each["id"]) for each in planned] == [("process", first)]
    gone = json.loads(run("prune", "--remote", "--keep", "1", "--now", "-o", "json").stdout)
    assert [(each["kind"], each["id"]) for each in gone][:2] == [("process", first), ("log", first)]
    assert run("ps", "--remote", "-q", "--no-trunc").out.split() == [second]
    assert "exit" in run("describe", "process", second).out
    run("rm", "--remote", "--now", second)
    assert not list((s3.bucket / "logs" / "logs").rglob("*.tcl"))
    assert "TC0004" in run("describe", "process", second, code=127).stderr, "its row is gone as well"


def test_a_log_that_is_in_the_store_goes_from_the_disk(run, s3):
    process, done = run.run(guest("hello"))
    s3.stop()
    assert "TC0030" in run("log", "evict", process, code=125).stderr
    assert run.segments(process)
    s3.start()
    before = run("trace", "syscall", process).stdout
    assert run("log", "evict", "--all").out.startswith("freed ")
    assert not run.segments(process)
    assert run("replay", process).stdout == done.stdout
    assert run("trace", "syscall", process).stdout == before
    assert run("log", "evict", process).out == "freed 0 B\n"
    assert "sent 0 segments" in run("log", "push", process).out


def test_what_is_not_in_the_store_stays_on_the_disk(run, s3):
    process, _ = run.run(guest("hello"))
    segment = s3.bucket / "logs" / "logs" / process / "000000.tcl"
    segment.write_bytes(segment.read_bytes()[:-1])
    assert "isn't wholly in s3://" in run("log", "evict", process, code=125).stderr
    assert run.segments(process)
    other = run("run", guest("hello"), TIMECRAFT_REMOTE_URL="").stderr
    assert run("log", "evict", "--all", code=None).code == 125
    assert len(list(run.home.glob("processes/*/log/*.tcl"))) == 2, other


def test_what_is_held_is_not_deleted_from_the_store_by_anybody(run, s3, tmp_path: Path):
    """Wherever it was held: here while it ran, here later, or on a machine that knows the bucket only."""
    at_start, _ = run.run("--label", "hold=from the start", guest("hello"))
    later, _ = run.run(guest("hello"))
    run("label", later, "hold", "case=7")
    assert manifest(s3, later).process.labels == (("case", "7"), ("hold", ""))
    elsewhere, _ = run.run(guest("hello"))
    home = run.environment["TIMECRAFT_HOME"]
    run.environment["TIMECRAFT_HOME"] = str(tmp_path / "elsewhere")
    run("label", elsewhere, "hold=there")
    for process in (at_start, later, elsewhere):
        assert "is held" in run("rm", "--remote", "-f", "--now", process, code=125).stderr
    assert json.loads(run("prune", "--remote", "--all", "--now", "-o", "json").stdout) == []
    assert json.loads(run("ps", "--remote", "--filter", "label=case", "-o", "json").out)[0]["id"] == later
    run.environment["TIMECRAFT_HOME"] = home
    assert run("label", elsewhere, "mine=1").out == "mine=1\n"
    assert manifest(s3, elsewhere).process.labels == (("hold", "there"), ("mine", "1"))
    s3.stop()
    assert "not in the store" in run("label", elsewhere, "late=1", code=125).stderr
    s3.start()
    assert "sent 0 segments" in run("log", "push", elsewhere).out
    assert manifest(s3, elsewhere).process.labels == (("hold", "there"), ("late", "1"), ("mine", "1"))
    run("label", elsewhere, "hold-")
    run("rm", "--remote", elsewhere)
    assert manifest(s3, elsewhere) is None


def test_what_is_in_the_store_is_verified(run, s3):
    process, _ = run.run("--timeout", "300ms", guest("spin_output"), code=137)
    other, _ = run.run(guest("hello"))
    sound = run("log", "verify", "--remote", process[:13], other).out
    assert sound.count("  ok  ") == 2
    assert sound.replace("verify --remote", "verify") == run("log", "verify", process, other).out
    logs, objects = s3.bucket / "logs" / "logs", s3.bucket / "logs" / "objects"
    (logs / other / "000000.tcl").unlink()
    first, behind = damage_second_block(logs / process / "000000.tcl")
    runtime = next(path for path in (objects / "runtime").rglob("*") if path.is_file())
    runtime.write_bytes(runtime.read_bytes().replace(b"a", b"b"))
    checks = json.loads(run("log", "verify", "--remote", "--all", "-o", "json", code=1).out)
    assert [check["id"] for check in checks] == [process, other]
    damaged, lost = checks
    assert [(gap["first_seq"], gap["next_seq"]) for gap in damaged["damage"]] == [(first, behind)]
    assert [(item["kind"], item["id"]) for item in damaged["objects"]] == [("runtime", runtime.name)]
    assert other in lost["error"], "no segment is left"
    assert run("log", "verify", "--all").out.count("  ok  ") == 2, "what is here is as it was"


def test_what_still_runs_is_not_deleted_from_the_store(run, s3, tmp_path: Path):
    (tmp_path / "ticker.wat").write_bytes(TICKER)
    host = run.start("run", tmp_path / "ticker.wat")
    process = run.only_process()
    wait_for(lambda: manifest(s3, process), "a manifest")
    assert "isn't wholly in the store" in run("rm", "--remote", process, code=125).stderr
    assert manifest(s3, process)
    assert "--now: is for --remote" in run("rm", "--now", process, code=125).stderr
    host.send_signal(signal.SIGTERM)
    assert host.wait(TIMEOUT_S) == 128 + signal.SIGTERM


def test_log_push_without_a_store_says_so(cli):
    assert "docs/remote.md" in cli("rm", "--remote", "0199f3a1-2c", code=125).stderr
    assert "docs/remote.md" in cli("log", "push", "--all", code=125).stderr
    assert "TC0002" in cli("log", "push", code=125).stderr
