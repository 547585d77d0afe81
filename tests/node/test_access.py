"""Who may do what: tokens, certificates, users of the Unix socket, roles, what is logged of it, and what is hidden."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme

from tests.node.conftest import Node, wait_until
from timecraftd.api.access import hash_of, load_identities
from timecraftd.api.gate import READ, ROLES, role_needed
from timecraftd.api.identity import Role
from timecraftd.api.v1 import (
    module_pb2,
    node_pb2,
    process_pb2,
    record_pb2,
    tree_pb2,
    view_pb2,
)
from timecraftd.errors import ConfigError
from timecraftd.masking import TraceMask, mask_config

NOBODY = 65534
TOKENS = {"viewer": "v" * 43, "runner": "r" * 43, "operator": "o" * 43}


def who(node: Node, token: str | None = None, **metadata: str) -> node_pb2.WhoAmIResponse:
    """Who the node takes the caller for."""
    if token is not None:
        metadata["authorization"] = f"Bearer {token}"
    return node.node.WhoAmI(node_pb2.WhoAmIRequest(), metadata=tuple(metadata.items()), timeout=20)


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return caught.value.code()


def write_identities(node: Node, text: str) -> None:
    path = node.home / "identities.toml"
    node.home.mkdir(exist_ok=True)
    path.touch(0o600)
    path.write_text(text)


def token_entry(name: str, token: str, role: str, more: str = "") -> str:
    return f'[[token]]\nname = "{name}"\nsha256 = "{hash_of(token)}"\nrole = "{role}"\n{more}\n'


def reload(node: Node) -> None:
    """Tells the node to read its files again, and waits until it did."""
    before = len(node.told("reload"))
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(node.told("reload")) > before)


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that knows a token of each role."""
    node = Node(tmp_path_factory.mktemp("roles"))
    write_identities(node, "".join(token_entry(f"a-{role}", token, role) for role, token in TOKENS.items()))
    try:
        yield node.start()
    finally:
        node.close()


# ---- tokens


def test_a_token_has_its_name_and_role(roles):
    for role, token in TOKENS.items():
        found = who(roles, token)
        assert (found.identity, found.role) == (f"token:a-{role}", role)


@pytest.mark.parametrize("header", ["Bearer nobody-knows-this", "Bearer ", "Basic dTpw", "Bearer " + "x" * 600, ""])
def test_a_token_that_is_not_known_is_refused_even_where_the_socket_would_do(roles, header):
    with pytest.raises(grpc.RpcError) as caught:
        who(roles, authorization=header)
    assert code_of(caught) is grpc.StatusCode.UNAUTHENTICATED
    assert "nobody-knows-this" not in roles.log.read_text()


def test_an_expired_token_is_refused_by_name(make_node):
    node = make_node()
    good, late = "g" * 43, "l" * 43
    write_identities(
        node,
        token_entry("good", good, "viewer", "expires = 2999-01-01T00:00:00Z")
        + token_entry("late", late, "viewer", "expires = 2020-01-01T00:00:00Z"),
    )
    node.start()
    assert who(node, good).identity == "token:good"
    with pytest.raises(grpc.RpcError, match="token late: has expired") as caught:
        who(node, late)
    assert code_of(caught) is grpc.StatusCode.UNAUTHENTICATED


def test_tokens_are_made_by_command_rotated_by_reload_and_hashed_at_rest(make_node):
    node = make_node().start()

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "timecraftd", "--config", str(node.config), "token", *arguments]
        return subprocess.run(command, env=node.env, capture_output=True, text=True, timeout=60)

    token = make("ci", "--role", "viewer", "--expires", "90d").stdout.strip()
    path = node.home / "identities.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    (entry,) = load_identities(str(path), required=True).tokens
    assert entry.expires_s == pytest.approx(time.time() + 90 * 86400, abs=300)
    with pytest.raises(grpc.RpcError):
        who(node, token)  # not before the reload
    reload(node)
    assert who(node, token).role == "viewer"

    path.write_text(path.read_text().replace('"viewer"', '"vandal"'))
    reload(node)
    assert "role 'vandal' isn't one of" in node.told("reload failed")[-1]
    assert who(node, token).role == "viewer", "a broken file changes nothing"

    path.unlink()
    second = make("ci", "--role", "runner").stdout.strip()
    reload(node)
    assert who(node, second).role == "runner"
    with pytest.raises(grpc.RpcError):
        who(node, token)
    assert token not in node.log.read_text()
    assert "isn't a name" in make("a b", "--role", "viewer").stderr


def test_an_identities_file_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "identities.toml"
    path.touch(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        load_identities(str(path), required=True)


# ---- certificates


class Pki:
    """Authorities, and files of certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients, self.servers = trustme.CA(), trustme.CA()
        self.clients.cert_pem.write_to_path(str(directory / "clients.pem"))
        self.renew()

    def renew(self) -> None:
        """A new certificate of the node's."""
        issued = self.servers.issue_cert("localhost", "127.0.0.1")
        (self.directory / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        (self.directory / "key.pem").write_bytes(issued.private_key_pem.bytes())
        self.serial = issued

    def config(self, *, mutual: bool) -> str:
        lines = ['listen = "127.0.0.1:0"']
        lines += [f'tls_{name}_file = "{self.directory / name}.pem"' for name in ("cert", "key")]
        lines += [f'tls_client_ca_file = "{self.directory / "clients.pem"}"'] if mutual else []
        return "\n".join(lines) + "\n"

    def shown(self, issued: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        """Credentials of a client, with a certificate if one is given."""
        root = self.servers.cert_pem.bytes()
        if issued is None:
            return grpc.ssl_channel_credentials(root)
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        return grpc.ssl_channel_credentials(root, issued.private_key_pem.bytes(), chain)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def tls_address(node: Node) -> str:
    return node.told("listening")[-1].partition("address=")[2]


def test_certificates_are_known_by_dns_name_and_by_common_name(make_node, pki):
    node = make_node(pki.config(mutual=True))
    write_identities(
        node,
        '[[certificate]]\nname = "deploy.example.org"\nrole = "operator"\n'
        '[[certificate]]\nname = "Bob"\nrole = "viewer"\n' + token_entry("ci", TOKENS["runner"], "runner"),
    )
    node.start()
    by_dns = pki.clients.issue_cert("other.example.org", "deploy.example.org")
    node.connect(tls_address(node), pki.shown(by_dns))
    assert (who(node).identity, who(node).role) == ("cert:deploy.example.org", "operator")
    assert who(node, TOKENS["runner"]).identity == "token:ci", "a token says more than the certificate"
    node.connect(tls_address(node), pki.shown(pki.clients.issue_cert("x.example.org", common_name="Bob")))
    assert (who(node).identity, who(node).role) == ("cert:Bob", "viewer")
    node.connect(tls_address(node), pki.shown(pki.clients.issue_cert("stranger.example.org")))
    with pytest.raises(grpc.RpcError, match=r"certificate .*: is not known here") as caught:
        who(node)
    assert code_of(caught) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("issuer", ["none", "somebody else"])
def test_without_a_certificate_of_the_authority_there_is_no_connection(make_node, pki, issuer):
    node = make_node(pki.config(mutual=True)).start()
    issued = None if issuer == "none" else trustme.CA().issue_cert("deploy.example.org")
    node.connect(tls_address(node), pki.shown(issued))
    with pytest.raises(grpc.RpcError) as caught:
        who(node)
    assert code_of(caught) is grpc.StatusCode.UNAVAILABLE


def test_over_tls_without_client_certificates_a_token_is_needed(make_node, pki):
    node = make_node(pki.config(mutual=False))
    write_identities(node, token_entry("ci", TOKENS["runner"], "runner"))
    node.start()
    node.connect(tls_address(node), pki.shown())
    assert who(node, TOKENS["runner"]).identity == "token:ci"
    with pytest.raises(grpc.RpcError, match="shows neither a token nor a certificate") as caught:
        who(node)
    assert code_of(caught) is grpc.StatusCode.UNAUTHENTICATED


def served_certificate(node: Node) -> str:
    """The certificate that the node shows."""
    import ssl

    host, _, port = tls_address(node).rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=20)


def test_certificates_are_renewed_by_a_reload(make_node, pki):
    node = make_node(pki.config(mutual=False)).start()
    before = served_certificate(node)
    pki.renew()
    assert served_certificate(node) == before
    reload(node)
    assert served_certificate(node) != before
    renewed = served_certificate(node)
    (pki.directory / "key.pem").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    reload(node)
    assert "doesn't go with" in node.told("reload failed")[-1]
    assert served_certificate(node) == renewed


# ---- users of the Unix socket


@contextmanager
def as_user(path: Path, uid: int, relay: Path) -> Iterator[str]:
    """The address of a relay to a socket, whose connection another user has made."""
    ours, theirs = socket.socketpair()

    def connect() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            socket.send_fds(theirs, [b"x"], [connection.fileno()])

    subprocess.run(["/bin/true"], preexec_fn=connect, pass_fds=[theirs.fileno()], check=True, timeout=20)
    _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(relay))
    listener.listen(1)

    def carry(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve() -> None:
        client, _ = listener.accept()
        node = socket.socket(fileno=descriptor)
        back = threading.Thread(target=carry, args=(node, client))
        back.start()
        carry(client, node)
        back.join()
        client.close()
        node.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"unix:{relay}"
    finally:
        thread.join(20)
        for each in (listener, ours, theirs):
            each.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("config", "entries", "seen"),
    [
        ('socket_role = "viewer"\n', "", ("uid:65534", "viewer")),
        ('socket_role = "none"\n', "", None),
        ('socket_role = "none"\n', '[[user]]\nuid = 65534\nrole = "runner"\n', ("uid:65534", "runner")),
        ('socket_role = "none"\n', '[[user]]\ngid = 65534\nrole = "viewer"\n', ("uid:65534", "viewer")),
        ("", '[[user]]\nuid = 65534\nrole = "none"\n', None),
    ],
)
def test_the_kernel_tells_who_is_at_the_socket(make_node, tmp_path, config, entries, seen):
    path = Path("/tmp") / f"timecraft-{os.getpid()}-{time.monotonic_ns()}.sock"  # where everybody may go
    node = make_node(f'socket = "{path}"\nsocket_mode = "0666"\n{config}')
    write_identities(node, entries)
    node.start()
    node.connect(f"unix:{path}")
    assert (who(node).identity, who(node).role) == ("uid:0", "operator")
    with as_user(path, NOBODY, tmp_path / "relay") as address:
        node.connect(address)
        if seen is None:
            with pytest.raises(grpc.RpcError) as caught:
                node.processes.List(process_pb2.ListRequest(), timeout=20)
            assert code_of(caught) in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        else:
            assert (who(node).identity, who(node).role) == seen
        node.channel.close()


def test_the_sockets_mode_is_the_configured_one(make_node):
    node = make_node('socket_mode = "0600"\n').start()
    assert (node.home / "node.sock").stat().st_mode & 0o777 == 0o600


# ---- roles


def methods() -> list[str]:
    """Every method of every service of ours."""
    files = (process_pb2, module_pb2, node_pb2, record_pb2, view_pb2, tree_pb2)
    return [
        f"{service.name}/{method.name}"
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def test_each_method_has_a_role_that_somebody_decided():
    assert sorted(methods()) == sorted([*READ, *ROLES])
    assert not READ & ROLES.keys()
    assert role_needed("/timecraft.v1.NewService/New") is Role.OPERATOR
    assert role_needed("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") is Role.VIEWER


@pytest.mark.parametrize("name", methods())
def test_a_role_below_is_refused_before_anything_happens(roles, name):
    service, _, method = name.partition("/")
    needed = ROLES.get(name, Role.VIEWER)
    for role in (Role.VIEWER, Role.RUNNER):
        if role >= needed:
            continue
        call = roles.channel.stream_stream(
            f"/timecraft.v1.{service}/{method}", request_serializer=bytes, response_deserializer=bytes
        )
        token = TOKENS[role.name.lower()]
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), metadata=(("authorization", f"Bearer {token}"),), timeout=20))
        assert code_of(caught) is grpc.StatusCode.PERMISSION_DENIED, name
        assert f"it takes {needed.name.lower()}" in caught.value.details()


def test_runners_end_what_is_theirs_and_nothing_else(roles, guests):
    theirs = (("authorization", f"Bearer {TOKENS['runner']}"),)
    module = roles.upload(guests / "sleep_forever.wat")
    own = roles.processes.Run(
        process_pb2.RunRequest(spec=process_pb2.ProcessSpec(module=module)), metadata=theirs
    ).process
    assert own.owner == "token:a-runner"
    other = roles.run(module)
    with pytest.raises(grpc.RpcError, match="belongs to") as caught:
        roles.processes.Signal(process_pb2.SignalRequest(id=other.id, signal=9), metadata=theirs)
    assert code_of(caught) is grpc.StatusCode.PERMISSION_DENIED
    roles.processes.Signal(process_pb2.SignalRequest(id=own.id, signal=9), metadata=theirs)
    roles.wait(own.id)
    roles.processes.Signal(process_pb2.SignalRequest(id=other.id, signal=9))
    roles.wait(other.id)


def test_runners_label_what_is_theirs_and_operators_hold_it(roles, guests):
    theirs = (("authorization", f"Bearer {TOKENS['runner']}"),)
    module = roles.upload(guests / "hello.wat")
    spec = process_pb2.ProcessSpec(module=module, labels={"team": "blue"})
    own = roles.processes.Run(process_pb2.RunRequest(spec=spec), metadata=theirs).process
    other = roles.run(module)
    roles.wait(own.id)
    ask = process_pb2.LabelRequest
    told = roles.processes.Label(ask(id=own.id, labels={"a": "b"}, removed=["team"]), metadata=theirs).process
    assert dict(told.labels) == {"a": "b"}
    held = process_pb2.RunRequest(spec=process_pb2.ProcessSpec(module=module, labels={"hold": ""}))
    for refused in (
        lambda: roles.processes.Label(ask(id=own.id, labels={"hold": ""}), metadata=theirs),
        lambda: roles.processes.Label(ask(id=other.id, labels={"a": ""}), metadata=theirs),
        lambda: roles.processes.Run(held, metadata=theirs),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            refused()
        assert code_of(caught) is grpc.StatusCode.PERMISSION_DENIED
    roles.processes.Label(ask(id=own.id, labels={"hold": "case"}))
    with pytest.raises(grpc.RpcError, match="is held: case"):
        roles.processes.Remove(process_pb2.RemoveRequest(id=own.id), metadata=theirs)
    with pytest.raises(grpc.RpcError, match="isn't a key"):
        roles.processes.Label(ask(id=own.id, labels={"no key": ""}))
    roles.processes.Label(ask(id=own.id, removed=["hold"]))
    roles.processes.Remove(process_pb2.RemoveRequest(id=own.id), metadata=theirs)


def test_only_the_health_of_a_node_is_everybodys(make_node):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    node = make_node()
    write_identities(node, f'[[user]]\nuid = {os.getuid()}\nrole = "none"\n')
    node.start()
    health = health_pb2_grpc.HealthStub(node.channel)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        who(node)
    assert code_of(caught) is grpc.StatusCode.PERMISSION_DENIED


# ---- what is logged


def test_calls_that_change_something_are_logged_with_who_made_them(roles, hello_of_roles):
    run = process_pb2.RunRequest(spec=process_pb2.ProcessSpec(module=hello_of_roles))
    metadata = (("authorization", f"Bearer {TOKENS['runner']}"), ("x-request-id", "audit-1"))
    process, call = roles.processes.Run.with_call(run, metadata=metadata)
    assert ("x-request-id", "audit-1") in call.trailing_metadata()
    line = "call method=ProcessService/Run by=token:a-runner request=audit-1"
    assert line in roles.told("call")
    roles.wait(process.process.id)
    started = [line for line in roles.told("process started") if process.process.id in line]
    assert "request=audit-1" in started[0], "the process is found by the request, and the other way round"
    metadata = (("authorization", f"Bearer {TOKENS['viewer']}"), ("x-request-id", "audit-2"))
    with pytest.raises(grpc.RpcError) as caught:
        roles.processes.Run(run, metadata=metadata)
    assert ("x-request-id", "audit-2") in caught.value.trailing_metadata()
    (refused,) = [line for line in roles.told("call failed") if "request=audit-2" in line]
    assert "by=token:a-viewer" in refused
    assert "code=PERMISSION_DENIED" in refused


@pytest.fixture
def hello_of_roles(roles, guests) -> str:
    return roles.upload(guests / "hello.wat")


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, 'quo"te'])
def test_a_request_id_that_is_not_sane_is_replaced(roles, given):
    _, call = roles.node.WhoAmI.with_call(node_pb2.WhoAmIRequest(), metadata=(("x-request-id", given),))
    (made,) = [value for key, value in call.trailing_metadata() if key == "x-request-id"]
    assert len(made) == 16
    assert int(made, 16) >= 0


def test_reading_is_not_logged(roles):
    before = roles.log.read_text()
    assert who(roles, TOKENS["viewer"]).role == "viewer"
    roles.processes.List(process_pb2.ListRequest())
    assert roles.log.read_text() == before


def test_json_lines_have_what_plain_ones_have(make_node, guests):
    node = make_node('log_format = "json"\n')
    node.told = lambda event: [
        line
        for line in (node.log.read_text() if node.log.exists() else "").splitlines()
        if f'"event": "{event}"' in line
    ]
    node.start()
    process = node.run(node.upload(guests / "hello.wat"))
    node.wait(process.id)
    wait_until(lambda: node.told("process ended"))
    ended = json.loads(node.told("process ended")[0])
    assert ended["process"] == process.id
    assert ended["level"] == "info"
    assert {"time", "event", "state", "exit_code"} <= ended.keys()
    assert json.loads(node.told("process started")[0])["request"]


# ---- what is hidden

SECRET = "correct horse battery"


def test_secrets_of_a_config_are_masked_and_other_variables_are_not():
    config = {"env": ["A=1", "TOKEN=x=y", "TOKEN2=z"], "secrets": ["TOKEN"], "args": []}
    assert mask_config(config)["env"] == ["A=1", "TOKEN=***", "TOKEN2=z"]
    assert mask_config({"env": ["TOKEN=x"]}) == {"env": ["TOKEN=x"]}


def test_traces_are_masked_whole_lines_at_a_time():
    mask = TraceMask(["A.B"])
    text = b'1 environ_get(["A.B=q\\"uo\\\\te", "AxB=1"]) = 0\n2 fd_write(1, ["A.B=1"])\n3 environ_get(["A.B=la"...'
    shown = b"".join(mask.feed(text[at : at + 7]) for at in range(0, len(text), 7)) + mask.rest()
    assert shown == b'1 environ_get(["A.B=***", "AxB=1"]) = 0\n2 fd_write(1, ["A.B=1"])\n3 environ_get(["A.B=***"...'
    assert TraceMask([]).feed(b"environ_get") == b"environ_get"


def test_values_named_secret_are_shown_nowhere(roles, guests):
    env = [
        process_pb2.EnvVar(name="TOKEN", value=SECRET.encode(), secret=True),
        process_pb2.EnvVar(name="OPEN", value=b"to all"),
    ]
    quiet = b"""(module
      (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (drop (call $get (i32.const 0) (i32.const 64)))))"""
    module = roles.upload(quiet)
    spec = process_pb2.ProcessSpec(module=module, env=env)
    process = roles.processes.Run(process_pb2.RunRequest(spec=spec)).process
    roles.wait(process.id)
    told = [
        roles.get(process.id),
        *roles.views.Trace(view_pb2.TraceRequest(id=process.id, layer=view_pb2.TraceRequest.LAYER_SYSCALL)),
        *roles.views.Trace(
            view_pb2.TraceRequest(id=process.id, layer=view_pb2.TraceRequest.LAYER_SYSCALL, form="yaml", verbose=True)
        ),
        *roles.records.ReadRecords(record_pb2.ReadRecordsRequest(id=process.id, string_bytes_max=4096)),
        *roles.views.Replay(view_pb2.ReplayRequest(id=process.id, trace=True)),
        roles.views.Describe(view_pb2.DescribeRequest(kind=view_pb2.OBJECT_KIND_PROCESS, id=process.id)),
        roles.views.Describe(view_pb2.DescribeRequest(kind=view_pb2.OBJECT_KIND_CONFIG, id=process.config)),
        *roles.views.Export(view_pb2.ExportRequest(kind=view_pb2.OBJECT_KIND_LOG, id=process.id)),
        roles.views.ListObjects(view_pb2.ListObjectsRequest(kind=view_pb2.OBJECT_KIND_CONFIG)),
    ]
    text = "".join(map(str, told))
    assert SECRET not in text
    assert text.count("TOKEN=***") == 8, "each of them shows that there is one"
    assert "OPEN=to all" in text
    assert SECRET not in roles.log.read_text()
