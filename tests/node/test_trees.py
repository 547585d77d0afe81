"""Trees that come over the wire, and the Python programs that are run by them, on a node by TCP and TLS."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.node.conftest import Node
from tests.node.test_command_line import Command, free_port
from timecraftd.api.access import hash_of
from timecraftd.api.client import Credentials, NodeClient, parse_endpoint
from timecraftd.api.tree import UPLOADS
from timecraftd.api.v1 import process_pb2, tree_pb2
from timecraftd.errors import CapacityError, MountError, TimecraftError, UsageError
from timecraftd.registry.trees import survey

TOKEN = "a-token-for-tests"


@pytest.fixture
def far(make_node: Callable[..., Node], tmp_path: Path) -> Node:
    """A node that is reached by TLS alone, at `address`, and takes the token of a runner."""
    keys = tmp_path / "keys"
    keys.mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(keys / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(keys / "cert.pem")
    authority.cert_pem.write_to_path(keys / "ca.pem")
    (keys / "identities.toml").write_text(f'[[token]]\nname = "ci"\nsha256 = "{hash_of(TOKEN)}"\nrole = "runner"\n')
    (keys / "identities.toml").chmod(0o600)
    node = make_node(
        f'listen = "localhost:{free_port()}"\ntls_cert_file = "{keys}/cert.pem"\nuploads_bytes_max = "16MiB"\n'
        f'tls_key_file = "{keys}/key.pem"\nidentities_file = "{keys}/identities.toml"\n'
    ).start()
    node.address = node.told("listening")[-1].rpartition("=")[2]
    return node


@pytest.fixture
def command(far: Node, tmp_path: Path) -> Command:
    """The command of a user elsewhere."""
    return Command(
        tmp_path, TIMECRAFT_NODE=far.address, TIMECRAFT_TOKEN=TOKEN, TIMECRAFT_CA_FILE=str(tmp_path / "keys/ca.pem")
    )


@pytest.fixture
def client(far: Node, tmp_path: Path) -> Iterator[NodeClient]:
    """A client with that user's token."""
    client = NodeClient(parse_endpoint(far.address), Credentials(ca_file=str(tmp_path / "keys/ca.pem"), token=TOKEN))
    yield client
    client.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with what trees can hold."""
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "a").write_bytes(b"a" * 3_000_000)
    (source / "inner" / "empty").touch()
    (source / "inner" / "link").symlink_to("../a")
    return source


def pieces(manifest: bytes, files: dict[str, bytes]) -> Iterator[tree_pb2.UploadTreeRequest]:
    yield tree_pb2.UploadTreeRequest(digest=hashlib.sha256(manifest).hexdigest(), manifest=manifest)
    for name, data in files.items():
        yield tree_pb2.UploadTreeRequest(file=bytes.fromhex(name), data=data)


def test_a_program_brings_its_folder_and_its_packages(far: Node, command: Command, tmp_path: Path) -> None:
    """The node sees nothing of this machine's files; what is no part of the program doesn't go there."""
    folder = tmp_path / "program"
    (folder / "package").mkdir(parents=True)
    (folder / "app.py").write_text(
        "import os, sys, helper, package.part, bought\n"
        "print(helper.greeting, bought.name, package.part.name, sys.argv[1], sys.stdin.read(), os.getcwd())\n"
        "print(sorted(os.listdir(os.path.dirname(__file__))))\n"
        "try:\n    open(__file__, 'w')\nexcept OSError as error:\n    print(type(error).__name__)\n"
    )
    (folder / "helper.py").write_text("greeting = 'hello'\n")
    (folder / "package" / "part.py").write_text("name = 'part'\n")
    venv = folder / "venv"
    packages = venv / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (venv / "python").symlink_to("/usr/bin/python3")
    (packages / "bought.py").write_text("name = 'bought'\n")
    (folder / ".git").mkdir()
    (folder / "nowhere").symlink_to("/nowhere/at/all")
    run = ("run", "-q", "--name", "app", "--venv", venv, folder / "app.py", "you")
    done = command(*run, stdin=b"there")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("hello bought part you there ")
    assert second == "['app.py', 'helper.py', 'package']"
    assert third in ("OSError", "PermissionError")

    trees = len(list((far.home / "trees").glob("[0-9a-f]*")))
    assert command(*run, stdin=b"again").returncode == 0
    assert len(list((far.home / "trees").glob("[0-9a-f]*"))) == trees, "nothing comes twice"
    shutil.rmtree(folder)
    assert command("replay", "app").stdout.startswith("hello bought part you again ")
    mounts = json.loads(command("describe", "process", "app", "-o", "json").stdout)["mounts"]
    assert str(folder) in [mount["host"] for mount in mounts], "people see where it came from"


def test_only_what_is_missing_comes(far: Node, client: NodeClient, source: Path) -> None:
    """Files of other trees are taken from there."""
    manifest, files = survey(str(source))
    asked = tree_pb2.StatTreeRequest(digest=hashlib.sha256(manifest).hexdigest(), files=map(bytes.fromhex, files))
    assert list(client.call(client.trees.StatTree, asked).missing) == [0, 1]
    digest = client.upload_tree(manifest, files)
    assert client.call(client.trees.StatTree, asked).present
    assert (far.home / "trees" / digest / "inner" / "link").read_bytes() == b"a" * 3_000_000
    (source / "b").write_text("b")
    manifest, files = survey(str(source))
    asked = tree_pb2.StatTreeRequest(digest=hashlib.sha256(manifest).hexdigest(), files=map(bytes.fromhex, files))
    (at,) = client.call(client.trees.StatTree, asked).missing
    assert files[list(files)[at]] == str(source / "b")
    other = client.upload_tree(manifest, files)
    assert (far.home / "trees" / other / "a").read_bytes() == b"a" * 3_000_000
    assert list((far.home / UPLOADS).iterdir()) == []


def test_a_broken_upload_goes_on_with_what_came(far: Node, client: NodeClient, source: Path) -> None:
    manifest, files = survey(str(source))
    digest = hashlib.sha256(manifest).hexdigest()
    empty = hashlib.sha256().hexdigest()
    with pytest.raises(UsageError, match="hasn't come"):
        client.call(client.trees.UploadTree, pieces(manifest, {empty: b""}))
    asked = tree_pb2.StatTreeRequest(digest=digest, files=map(bytes.fromhex, files))
    missing = [list(files)[at] for at in client.call(client.trees.StatTree, asked).missing]
    assert missing == [name for name in files if name != empty]
    assert client.upload_tree(manifest, files) == digest


@pytest.mark.parametrize(
    ("manifest", "files", "says"),
    [
        (b"{}", {}, "isn't what this Timecraft writes"),
        (b'{"version":1,"directories":["../x"],"files":{},"links":{}}', {}, "isn't what this Timecraft writes"),
        (b'{"version":1,"directories":[],"files":{},"links":{"l":"/etc"}}', {}, "isn't what this Timecraft writes"),
        (b"", {"0" * 64: b"other bytes"}, "has other bytes"),
        (b"", {"00": b""}, "isn't a SHA-256"),
        (b"", {"0" * 64: b"x" * ((1 << 20) + 1)}, "are taken"),
    ],
)
def test_hostile_trees(client: NodeClient, manifest: bytes, files: dict[str, bytes], says: str) -> None:
    """Are refused, and nothing is left of them."""
    with pytest.raises(UsageError, match=says):
        client.call(client.trees.UploadTree, pieces(manifest, files))


def test_data_without_a_file_and_other_digests(client: NodeClient) -> None:
    with pytest.raises(UsageError, match="belongs to no file"):
        client.call(client.trees.UploadTree, iter([tree_pb2.UploadTreeRequest(digest="1" * 64, data=b"x")]))
    with pytest.raises(UsageError, match="doesn't match the digest"):
        client.call(client.trees.UploadTree, iter([tree_pb2.UploadTreeRequest(digest="1" * 64, manifest=b"x")]))
    for request in (tree_pb2.UploadTreeRequest(digest="../x"), tree_pb2.UploadTreeRequest()):
        with pytest.raises(UsageError, match="isn't one"):
            client.call(client.trees.UploadTree, iter([request]))


def test_uploads_are_bounded(far: Node, client: NodeClient) -> None:
    """By what the node takes of all together, of what others have left too, until that is given up."""
    data = b"x" * (1 << 20)
    name = hashlib.sha256(data).hexdigest()

    def half(digest: str) -> None:
        left = [tree_pb2.UploadTreeRequest(digest=digest)]
        for number in range(9):
            own = data[:-1] + bytes([number])
            left.append(tree_pb2.UploadTreeRequest(file=hashlib.sha256(own).digest(), data=own))
        client.call(client.trees.UploadTree, iter(left))

    with pytest.raises(UsageError):
        half("1" * 64)
    with pytest.raises(CapacityError, match="uploads_bytes_max"):
        half("2" * 64)
    for entry in (far.home / UPLOADS).iterdir():
        os.utime(entry, (1, 1))
    with pytest.raises(UsageError):
        half("3" * 64)
    assert [path.name[0] for path in (far.home / UPLOADS).iterdir()] == ["3"]
    assert not list((far.home / UPLOADS).rglob(f"{name}*.part"))


def test_a_mount_of_a_tree_needs_the_tree(client: NodeClient, guests: Path) -> None:
    """And is no mount of a directory of the node's, which runners may not have."""
    module = client.upload((guests / "hello.wat").read_bytes(), "hello.wat").digest
    for tree, error in (("2" * 64, TimecraftError), ("x", UsageError)):
        mount = process_pb2.Mount(host="/here", guest="/data", tree=tree)
        spec = process_pb2.ProcessSpec(module=module, mounts=[mount])
        with pytest.raises(error):
            client.call(client.processes.Run, process_pb2.RunRequest(spec=spec))


def test_what_a_tree_cannot_hold_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to("/etc")
    with pytest.raises(MountError, match="leads outside"):
        survey(str(folder))
    assert survey(str(folder), lambda _: False)[1] == {}
