"""Content-addressed objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from timecraftd.errors import NotFoundError, ObjectDamagedError
from timecraftd.model import Digest, ObjectKind
from timecraftd.registry.objects import ObjectStore, digest_of


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return ObjectStore(str(tmp_path / "objects"))


def test_what_is_put_can_be_got(store):
    """Under the digest of its bytes, per kind."""
    digest = store.put(ObjectKind.MODULE, b"wasm")
    assert digest == digest_of(b"wasm")
    assert store.get(ObjectKind.MODULE, digest) == b"wasm"
    assert [info.size_bytes for info in store.stored(ObjectKind.MODULE)] == [4]
    with pytest.raises(NotFoundError, match="is not in the store; bring it back with `timecraft import config FILE`"):
        store.get(ObjectKind.CONFIG, digest)
    store.delete(ObjectKind.MODULE, digest)
    store.delete(ObjectKind.MODULE, digest)
    assert not list(store.stored(ObjectKind.MODULE))


def test_damage_is_seen_and_mended(store):
    """Reading verifies; putting the same bytes again replaces a damaged copy."""
    digest = store.put(ObjectKind.MODULE, b"wasm")
    path = Path(store.path(ObjectKind.MODULE, digest))
    path.write_bytes(b"wasn")
    with pytest.raises(ObjectDamagedError, match="don't match the digest"):
        store.get(ObjectKind.MODULE, digest)
    store.put(ObjectKind.MODULE, b"wasm")
    assert store.get(ObjectKind.MODULE, digest) == b"wasm"


def test_a_digest_is_never_a_path(store):
    """Nothing outside the store can be named."""
    with pytest.raises(NotFoundError):
        store.get(ObjectKind.MODULE, Digest("../../etc/passwd"))
