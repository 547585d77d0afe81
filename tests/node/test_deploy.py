"""What operators get: units, configuration, alerts. Tried with the real systemd-analyze, promtool and Prometheus."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.servers import free_port
from tests.node.conftest import Node, wait_until
from tests.node.debian import program
from timecraftd import daemon
from timecraftd.api.v1 import process_pb2
from timecraftd.config import Config, NodeConfig, load_config, to_table
from timecraftd.telemetry import GAUGES, TOTALS, Metrics, Sample

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCS = ROOT / "docs"
UNITS = DEPLOY / "systemd"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
EXPOSURE_MAX = 2.0
SYSTEMD = ("systemd", "libsystemd-shared", "libapparmor1", "libip4tc2", "libkmod2", "libseccomp2", "libssl3")
"""The package, and what it needs that not every machine has."""


def systemd(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command, env = program(name, *SYSTEMD)
    return subprocess.run(
        [*command, *map(str, arguments)], env=os.environ | env, capture_output=True, text=True, timeout=60
    )


# ---- systemd


def test_the_service_is_hardened():
    done = systemd("systemd-analyze", "security", "--offline=true", "--no-pager", UNITS / "timecraftd.service")
    found = re.search(r"Overall exposure level for timecraftd.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX, done.stdout
    # Which system calls this kernel has is asked of tracefs, which isn't everywhere.
    complaints = [line for line in done.stderr.splitlines() if "system call list" not in line]
    assert not complaints, "a directive that this systemd doesn't know protects from nothing"


def test_the_units_are_valid(tmp_path):
    for unit in ("timecraftd.service", "timecraftd.socket"):
        text = (UNITS / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/lib/timecraft/bin/timecraftd", "/bin/true"))
    done = systemd(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "timecraftd.service",
        tmp_path / "timecraftd.socket",
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "timecraftd" in line]
    assert not complaints, done.stderr


def test_the_service_allows_the_system_calls_that_a_node_makes(make_node, guests, tmp_path):
    """What a node and its workers call, by strace, beside what the unit's filter lets through, by systemd."""
    command, env = program("strace", "strace", "libunwind8", "libdw1", "libelf1")
    node = make_node('metrics_listen = "127.0.0.1:0"\nsocket_group = "root"\n', env)
    trace = tmp_path / "calls"
    node.start(*command, "-f", "-qq", "-o", str(trace))
    module = node.upload(guests / "hello.wat")
    assert node.attach(module)[0]["stdout"]
    node.wait(node.run(module, network=process_pb2.Network(rules=["allow example.com"])).id)
    node.run(node.upload(guests / "sleep_forever.wat"))
    os.kill(int((node.home / "node.lock").read_text()), signal.SIGTERM)
    assert node.process.wait(60) == 0
    made = {found[1] for line in trace.read_text().splitlines() if (found := re.match(r"\d+ +(\w+)\(", line))}
    assert {"seccomp", "openat", "setsid"} <= made, "workers are traced too"
    assert sorted(made - allowed_calls()) == []


def allowed_calls() -> set[str]:
    """Of the service's SystemCallFilter."""
    groups: dict[str, list[str]] = {}
    for line in systemd("systemd-analyze", "syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            members = groups.setdefault(line.split()[0], [])
        elif groups and line.strip() and not line.strip().startswith("#"):
            members.append(line.strip())

    def calls(name: str) -> set[str]:
        return set().union(*map(calls, groups[name])) if name.startswith("@") else {name}

    allowed: set[str] = set()
    for text in re.findall(r"(?m)^SystemCallFilter=(.*)$", (UNITS / "timecraftd.service").read_text()):
        named = set().union(*map(calls, text.removeprefix("~").split()))
        allowed = allowed - named if text.startswith("~") else allowed | named
    return allowed


def test_workers_outlive_the_daemon_where_systemd_would_end_them():
    service = (UNITS / "timecraftd.service").read_text()
    for needed in ("KillMode=process", "OOMPolicy=continue", "RemoveIPC=no", "Type=notify", "WatchdogSec=30"):
        assert f"\n{needed}\n" in service


def test_user_and_directories_are_made_in_a_clean_root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr" / "lib" / "sysusers.d").mkdir(parents=True)
    done = systemd("systemd-sysusers", f"--root={tmp_path}", UNITS / "sysusers.conf")
    assert done.returncode == 0, done.stderr
    assert re.search(r"(?m)^timecraft:.*:/var/lib/timecraft:", (tmp_path / "etc" / "passwd").read_text())
    done = systemd("systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "tmpfiles.conf")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "lib" / "timecraft").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "run" / "timecraft").is_dir()


def test_the_default_configuration_is_one(monkeypatch):
    config = load_config({"TIMECRAFT_CONFIG": str(DEPLOY / "timecraftd.toml"), "HOME": "/nonexistent"})
    assert config.home == "/var/lib/timecraft"
    monkeypatch.setattr(daemon, "group_id", lambda _: None)  # sysusers makes it
    daemon.check(config)
    unit = (UNITS / "timecraftd.socket").read_text()
    assert f"ListenStream={config.node.socket}\n" in unit
    commented = re.findall(r"(?m)^# (\w+) = ", (DEPLOY / "timecraftd.toml").read_text())
    assert set(commented) <= set(NodeConfig.__slots__)
    assert config.node != Config().node


# ---- Prometheus


def rules() -> list[dict[str, Any]]:
    return yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]


def measured(rule: dict[str, Any]) -> str:
    """The expression of a rule without the bound that it is compared with."""
    found = re.fullmatch(r"(.*\S)\s+[<>] [0-9.e]+", rule["expr"].strip(), re.DOTALL)
    assert found, f"{rule['alert']}: isn't EXPRESSION > BOUND"
    return found[1]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, int]]:
    """A node, and the port of a Prometheus that scrapes it."""
    directory = tmp_path_factory.mktemp("prometheus")
    node = Node(directory, 'metrics_listen = "127.0.0.1:0"\n')
    command, env = program("prometheus", "prometheus")
    port = free_port()
    try:
        node.start()
        target = node.told("metrics")[-1].partition("address=")[2]
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "timecraft", "static_configs": [{"targets": [target]}]}],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        server = subprocess.Popen(
            [
                *command, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
            ],
            env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield node, port
        finally:
            server.kill()
            server.wait()
    finally:
        node.close()


def asked(port: int, path: str, **query: str) -> Any:
    """What Prometheus answers; None while it isn't there yet."""
    try:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def value(port: int, expression: str) -> float | None:
    data = asked(port, "query", query=expression)
    return float(data["result"][0]["value"][1]) if data and data["result"] else None


def test_promtool_likes_the_rules():
    command, env = program("promtool", "prometheus")
    done = subprocess.run(
        [*command, "check", "rules", "--lint=all", "--lint-fatal", ALERTS],
        env=os.environ | env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_each_rule_says_how_bad_it_is_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        names = re.findall(r"timecraft_\w+", rule["expr"])
        assert names or rule["alert"] == "TimecraftDown"


@pytest.mark.timeout(180)
def test_a_real_prometheus_scrapes_a_node_and_each_rule_measures_something(prometheus, guests):
    node, port = prometheus
    wait_until(lambda: value(port, 'up{job="timecraft"}') == 1, 60)
    module = node.upload(guests / "hello.wat")
    for _ in range(3):
        node.get(node.wait(node.run(module).id).id)
    wait_until(lambda: value(port, 'timecraft_process_ends_total{state="exited"}') == 3)
    for rule in rules():
        wait_until(lambda rule=rule: value(port, measured(rule)) is not None, 30)
    for name in GAUGES:
        assert value(port, f"timecraft_{name}") is not None, name
    for name, _, _ in TOTALS.values():
        assert value(port, f"timecraft_{name}_total") is not None, name
    (group,) = asked(port, "rules")["groups"]
    wait_until(lambda: all(rule["health"] == "ok" for rule in asked(port, "rules")["groups"][0]["rules"]))
    assert len(group["rules"]) == len(rules())
    firing = [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]
    assert firing in ([], ["TimecraftDiskFills"]), "a healthy node alarms nobody"


def test_rules_fire_for_the_node_that_is_in_trouble(tmp_path):
    """By promtool's own tests of rules, which need no waiting."""
    expected = {
        "TimecraftDown": "n1",
        "TimecraftHangs": "n2",
        "TimecraftWorkersLost": "n3",
        "TimecraftQueueFills": "n4",
    }
    cases = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": 'up{job="timecraft", instance="n1"}', "values": "0x10"},
                    {"series": 'timecraft_sample_age_seconds{instance="n2"}', "values": "60+60x10"},
                    {"series": 'timecraft_workers_lost_total{instance="n3"}', "values": "0 0 1 1 1 1 1 1"},
                    {"series": 'timecraft_queue_length{instance="n4"}', "values": "95x20"},
                    {"series": 'timecraft_queue_max{instance="n4"}', "values": "100x20"},
                    {"series": 'timecraft_state_free_bytes{instance="n5"}', "values": "9e9x20"},
                ],
                "promql_expr_test": [
                    {
                        "expr": 'sum by (alertname, instance) (ALERTS{alertstate="firing"})',
                        "eval_time": "8m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{alert}", instance="{instance}"}}', "value": 1}
                            for alert, instance in expected.items()
                        ],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "cases.yml"
    path.write_text(yaml.safe_dump(cases))
    command, env = program("promtool", "prometheus")
    done = subprocess.run(
        [*command, "test", "rules", path], env=os.environ | env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- documentation


@pytest.mark.parametrize("section", ["node", "remote"])
def test_each_key_is_documented_with_its_default(section):
    rows = re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \| (?:`(.*)` )?\| \S", (DOCS / f"{section}.md").read_text())
    documented = {key: default for keys, default in rows for key in re.findall(r"\w+", keys)}
    keys = to_table(Config())[section]
    assert isinstance(keys, dict)
    assert documented == {key: str("" if value is None else value) for key, value in keys.items()}


def test_each_metric_is_documented():
    text = (DOCS / "node.md").read_text()
    names = [metric.name for metric in Metrics({}, lambda: Sample(0.0)).registry.collect()]
    missing = [name for name in names if name not in text and not name.startswith("process_")]
    assert not missing
