"""The store, against a real server, and with a network that fails."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.faultproxy import FaultProxy
from tests.s3 import BUCKET, BUILD_S, DOMAIN, ENVIRONMENT, serving
from timecraftd.config import RemoteConfig
from timecraftd.errors import ConfigError, NotFoundError, RemoteError
from timecraftd.recorder.remote import Capabilities, ConflictError, FilePart, Retries, TransientError, parse_url
from timecraftd.recorder.s3 import S3Store, checksum

pytestmark = pytest.mark.timeout(BUILD_S + 60)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A server for all tests of this file; each has a prefix of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with serving(tmp_path_factory.mktemp("s3")) as server:
            yield server


@pytest.fixture
def config(s3, tmp_path):
    """Of a store below a prefix of the test's own."""
    return RemoteConfig(
        url=f"s3://{BUCKET}/{tmp_path.name}/logs", endpoint_url=s3.endpoint, region="us-east-1", addressing="path"
    )


@pytest.fixture
def hosts(monkeypatch):
    """Names that were resolved; those of buckets that are hosts lead to the loopback."""
    resolve, names = socket.getaddrinfo, []

    def lookup(host, *args, **options):
        names.append(host)
        return resolve("127.0.0.1" if str(host).endswith(f".{DOMAIN}") else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return names


async def at_once(_seconds):
    """Doesn't wait."""


def ask(config, work, **options):
    """What `work` makes of a store."""

    async def run():
        store = S3Store(config, **{"retries": Retries(sleep=at_once), **options})
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def test_what_is_put_is_there(config):
    async def work(store):
        tag = await store.put("a/b", b"hello")
        assert await store.get_tagged("a/b") == (b"hello", tag)
        assert await store.get("a/b", offset=1, length=3) == b"ell"
        assert await store.get("a/b", offset=4, length=30) == b"o"
        assert await store.get("a/b", offset=5, length=1) == b""
        found = await store.head("a/b")
        assert (found.size, found.crc32c) == (5, f"{checksum(b'hello'):08x}")
        assert found.modified_ns > 0
        assert await store.head("a/c") is None
        with pytest.raises(NotFoundError):
            await store.get("a/c")
        await store.delete(["a/b", "a/c"])
        assert await store.head("a/b") is None

    ask(config, work)


def test_buckets_that_are_hosts(config, s3, hosts):
    virtual = replace(config, addressing="virtual", endpoint_url=f"http://{DOMAIN}:{s3.port}")
    test_what_is_put_is_there(virtual)
    test_listings_are_in_order(virtual)
    assert set(hosts) == {f"{BUCKET}.{DOMAIN}"}


def test_listings_are_in_order(config):
    async def work(store):
        for name in ("m/2.json", "m/1.json", "m/1/pages/0", "n"):
            await store.put(name, b"x")
        assert [info.key async for info in store.list("m/")] == ["m/1.json", "m/1/pages/0", "m/2.json"]
        assert [info.key async for info in store.list("m/", delimiter="/")] == ["m/1.json", "m/1/", "m/2.json"]
        assert [info.key async for info in store.list("m/", start_after="m/1/pages/0")] == ["m/2.json"]

    ask(config, work)


def test_conditions_hold(config):
    async def work(store):
        assert await store.probe() == Capabilities(conditional=True, checksums=True)
        tag = await store.put("k", b"1", if_none_match=True)
        with pytest.raises(ConflictError):
            await store.put("k", b"2", if_none_match=True)
        newer = await store.put("k", b"3", if_match=tag)
        with pytest.raises(ConflictError):
            await store.put("k", b"4", if_match=tag)
        assert await store.get_tagged("k") == (b"3", newer)

    ask(config, work)


@pytest.mark.parametrize("length", [(16 << 20) + 1, 16 << 20])
def test_big_files_go_in_parts(config, s3, tmp_path, length):
    """And come whole, or not at all."""
    path = tmp_path / "big"
    path.write_bytes(Random(length).randbytes(length))

    async def work(store):
        with FilePart(str(path), 0, length) as part:
            await store.put("big", part, if_none_match=True)
            with pytest.raises(ConflictError):
                await store.put("big", part, if_none_match=True)
        found = await store.head("big")
        assert (found.size, found.crc32c) == (length, f"{checksum(path.read_bytes()):08x}")
        assert await store.get("big") == path.read_bytes()

    ask(config, work)
    left = [name for name in s3.bucket.rglob("*") if name.is_file() and "multipart" in str(name)]
    assert not left, "parts of the second upload weren't given up"


def test_a_store_without_conditions_is_known(config, monkeypatch):
    """What it ignores is looked at before each write."""

    async def work(store):
        plain = store._send

        async def send(operation, key, body, options, **rest):
            ignored = {"IfNoneMatch", "IfMatch", "ChecksumCRC32C"}
            return await plain(operation, key, body, {k: v for k, v in options.items() if k not in ignored}, **rest)

        monkeypatch.setattr(store, "_send", send)
        assert await store.probe() == Capabilities(conditional=False, checksums=False)
        await store.put("k", b"1", if_none_match=True)
        with pytest.raises(ConflictError):
            await store.put("k", b"2", if_none_match=True)
        with pytest.raises(ConflictError):
            await store.put("k", b"2", if_match='"0"')
        assert await store.get("k") == b"1"

    ask(config, work)


@pytest.mark.parametrize(
    ("changes", "environment", "says"),
    [
        ({"url": "s3://nowhere"}, {}, "no such bucket"),
        ({}, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ({}, {"AWS_ACCESS_KEY_ID": "nobody"}, "access key"),
        ({}, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials"),
    ],
)
def test_what_is_wrong_is_told(config, monkeypatch, changes, environment, says):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RemoteError, match=says) as raised:
        ask(replace(config, **changes), lambda store: store.put("k", b"1"))
    assert not isinstance(raised.value, TransientError)


@pytest.mark.parametrize("fault", ["refuse", "reset", "error", "cut", "corrupt", "hang"])
def test_faults_on_the_way_are_tried_again(config, s3, fault):
    """The first connections fail, in one way each."""

    async def work(store, proxy):
        await store.probe()
        proxy.hang_up()
        proxy.fault, proxy.faults_left = fault, 2
        await store.put("k", b"x" * 100_000)
        assert proxy.faults_left == 0 or fault == "corrupt"
        assert store.retries.count > 0
        proxy.hang_up()
        proxy.faults_left = 2
        assert await store.get("k") == b"x" * 100_000
        assert proxy.faults_left == 0 or fault == "corrupt"

    async def run():
        async with FaultProxy(s3.port) as proxy:
            slow = 0.3 if fault == "hang" else 5.0
            changed = replace(config, endpoint_url=f"http://127.0.0.1:{proxy.port}", request_s_max=slow)
            store = S3Store(changed, retries=Retries(sleep=at_once))
            try:
                await work(store, proxy)
            finally:
                await store.close()

    asyncio.run(run())


@pytest.mark.parametrize(("fault", "says"), [("denied", "AccessDenied"), ("skewed", "set the machine's clock")])
def test_refusals_are_not_tried_again_at_once(config, s3, fault, says):
    """They are told, with what to do; who uploads tries again later."""

    async def run():
        async with FaultProxy(s3.port) as proxy:
            proxy.fault = fault
            store = S3Store(replace(config, endpoint_url=f"http://127.0.0.1:{proxy.port}"))
            try:
                with pytest.raises(RemoteError, match=says) as raised:
                    await store.get("k")
                assert not isinstance(raised.value, TransientError)
                assert store.retries.count == 0
            finally:
                await store.close()

    asyncio.run(run())


def test_a_slow_store_is_waited_for(config, s3):
    """What still moves isn't given up."""

    async def run():
        async with FaultProxy(s3.port) as proxy:
            proxy.fault = "slow"
            slow = replace(config, endpoint_url=f"http://127.0.0.1:{proxy.port}", request_s_max=2.0)
            store = S3Store(slow)
            try:
                await store.put("k", b"x" * 300_000)
                assert await store.get("k") == b"x" * 300_000
                assert store.retries.count == 0
            finally:
                await store.close()

    asyncio.run(run())


def test_an_outage_is_an_error_in_the_end(config):
    gone = replace(config, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(TransientError, match=r"docs/remote\.md"):
        ask(gone, lambda store: store.get("k"))


@pytest.mark.parametrize("url", ["", "http://x/y", "s3://", "s3:///x", "s3://b?x=1"])
def test_urls_that_lead_nowhere_are_refused(url):
    with pytest.raises(ConfigError):
        parse_url(url)


def test_prefixes_end_with_a_slash():
    assert parse_url("s3://b") == ("b", "")
    assert parse_url("s3://b/") == ("b", "")
    assert parse_url("s3://b/p/q/") == ("b", "p/q/")


def test_a_part_of_a_file_is_read_within_its_bounds(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"0123456789")
    with FilePart(str(tmp_path / "f"), 2, 5) as part:
        assert (part.read(3), part.read(), part.read(1)) == (b"234", b"56", b"")
        assert part.seek(1) == 1
        assert part.read(2) == b"34"
    with FilePart(str(tmp_path / "f"), 8, 5) as part, pytest.raises(OSError, match="shorter"):
        part.read(2), part.read(1)
