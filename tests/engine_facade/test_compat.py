"""Which runtimes replay whose logs; what a run is asked to be."""

from __future__ import annotations

import pytest

from tests.testing import BUILD_INFO
from timecraftd.engine.compat import incompatibility, nans_of
from timecraftd.engine.request import RunRequest, decode_config, encode_config
from timecraftd.engine.spec import LimitSpec, MountSpec
from timecraftd.errors import ReplayRefusedError


@pytest.mark.parametrize("key", ["version", "profile", "cpu_features", "log_format", "target"])
def test_what_does_not_decide(key):
    """With canonical NaNs, neither CPU nor Timecraft's own version changes results."""
    assert incompatibility(BUILD_INFO, BUILD_INFO | {key: "other"}) is None


@pytest.mark.parametrize("key", ["engine", "engine_version", "compiler", "flags"])
def test_what_decides(key):
    """Told with both sides; missing is different."""
    reason = incompatibility(BUILD_INFO, BUILD_INFO | {key: "other"})
    assert reason is not None
    assert BUILD_INFO[key] in reason
    assert "other" in reason
    assert incompatibility({k: v for k, v in BUILD_INFO.items() if k != key}, BUILD_INFO) is not None


def test_without_canonical_nans_the_processor_decides():
    """Payloads of NaNs differ between processors."""
    info = BUILD_INFO | {"flags": "nan=native,opt=speed"}
    assert (nans_of(info), nans_of(BUILD_INFO)) == ("native", "canonical")
    assert incompatibility(info, info) is None
    assert "aarch64" in incompatibility(info, info | {"target": "aarch64-unknown-linux-gnu"})
    assert "fma" in incompatibility(info, info | {"cpu_features": "fma"})


def test_configs_keep_every_byte():
    """Arguments and variables needn't be UTF-8."""
    request = RunRequest(
        args=(b"a", b"\xff\xfe", "ü".encode()),
        env=(b"K=\x80",),
        mounts=(MountSpec("/a", "/b", read_only=True),),
        function="f",
        limits=LimitSpec(memory_bytes=65536, cpu_ns=5),
        chaos_ratio=0.5,
        chaos_seed=7,
        log_bytes_max=9,
    )
    assert decode_config(encode_config(request)) == request
    assert encode_config(request) == encode_config(decode_config(encode_config(request)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"version": 1}', b'{"version": 99}'])
def test_configs_of_others_are_refused(data):
    """Never guessed."""
    with pytest.raises(ReplayRefusedError, match="config"):
        decode_config(data)
