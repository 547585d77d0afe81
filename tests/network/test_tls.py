"""TLS that the host does for a guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import pytest
import trustme

from tests.network.fakes import failed, in_loop, listener, serve, until
from timecraftd.config import NetworkConfig
from timecraftd.errors import NetworkError
from timecraftd.network.gateway import Gateway
from timecraftd.network.tls import CHUNK_BYTES_MAX


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def config(ca_file):
    return NetworkConfig(ca_file=ca_file, handshake_s_max=5)


def context_of(authority, *names, protocols=(), minimum=None, maximum=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    context.minimum_version = minimum or ssl.TLSVersion.TLSv1_2
    context.maximum_version = maximum or ssl.TLSVersion.TLSv1_3
    return context


class Server:
    """A TLS server on blocking sockets, in threads: half-close is not for asyncio's streams."""

    def __init__(self, context, serve):
        self._context, self._serve = context, serve

    async def __aenter__(self):
        self._server = socket.create_server(("127.0.0.1", 0))
        self._task = asyncio.get_running_loop().run_in_executor(None, self._run)
        return self._server.getsockname()[1]

    async def __aexit__(self, *_):
        await self._task
        self._server.close()

    def _run(self):
        raw, _ = self._server.accept()
        with raw, contextlib.suppress(ConnectionError, ssl.SSLError):
            raw.settimeout(10)
            with self._context.wrap_socket(raw, server_side=True) as tls:
                self._serve(tls)


def echo(tls):
    while data := tls.recv(65536):
        tls.sendall(data)
    tls.unwrap()


async def connect(port, number):
    """A connection of a guest's to the host."""
    answer = await port.answer(port.dial("10.86.0.1", number))
    assert not answer.errno
    return answer.connection


async def secure(port, number, name="localhost.example", protocols=()):
    """A connection that the host has been asked to secure; what came of it."""
    connection = await connect(port, number)
    return await port.answer(port.ask("secure", fd=connection.detach(), name=name, protocols=list(protocols)))


async def read_all(connection):
    loop, received = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(connection, 1 << 20):
        received += data
    return received


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@in_loop
async def test_clear_text_for_the_guest(authority, config, version):
    context = context_of(authority, "localhost.example", minimum=version, maximum=version)
    async with serve("host", config=config) as (port, attachment), Server(context, echo) as number:
        answer = await secure(port, number)
        assert (answer.errno, answer.protocol) == ("", "")
        with answer.connection as connection:
            loop = asyncio.get_running_loop()
            for size in (1, 1000, 100_000):
                await loop.sock_sendall(connection, b"x" * size)
                received = 0
                while received < size:
                    received += len(await loop.sock_recv(connection, 1 << 20))
                assert received == size
            connection.shutdown(socket.SHUT_WR)
            assert await read_all(connection) == b""
        assert failed(attachment) == []


@in_loop
async def test_half_close_ends_one_direction_only(authority, config):
    """The server answers once it has seen the guest's end."""

    def serve_after_end(tls):
        received = b""
        while data := tls.recv(65536):
            received += data
        tls.sendall(b"you sent %d" % len(received))

    context = context_of(authority, "localhost.example")
    async with serve("host", config=config) as (port, attachment), Server(context, serve_after_end) as number:
        with (await secure(port, number)).connection as connection:
            await asyncio.get_running_loop().sock_sendall(connection, b"x" * 300_000)
            connection.shutdown(socket.SHUT_WR)
            assert await read_all(connection) == b"you sent 300000"
        ((_, trouble),) = failed(attachment)
        assert "without saying so" in trouble, "Python's socket closes without goodbye"


@in_loop
async def test_data_under_way_survives_the_guests_half_close(authority, config):
    """OpenSSL fails to say goodbye if data is waiting to be read; and a goodbye must not lose it."""
    size = 40 * CHUNK_BYTES_MAX

    def send_much(tls):
        tls.sendall(b"y" * size)
        assert tls.recv(1) == b""
        tls.sendall(b"end")
        tls.unwrap()

    context = context_of(authority, "localhost.example")
    async with serve("host", config=config) as (port, attachment), Server(context, send_much) as number:
        with (await secure(port, number)).connection as connection:
            await asyncio.sleep(0.05)  # the relay has filled what is between
            connection.shutdown(socket.SHUT_WR)
            assert len(await read_all(connection)) == size + 3
        assert failed(attachment) == []


@in_loop
async def test_a_guest_that_does_not_read_holds_the_peer_back(authority, config):
    sent = []

    def send_for_ever(tls):
        tls.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sum(sent) < 1 << 30:
                sent.append(tls.send(b"z" * 65536))

    context = context_of(authority, "localhost.example")
    async with serve("host", config=config) as (port, _):
        server = Server(context, send_for_ever)
        number = await server.__aenter__()
        with (await secure(port, number)).connection:
            await server.__aexit__()
        assert sum(sent) < 32 << 20


@in_loop
async def test_a_guest_that_is_gone_ends_the_connection(authority, config):
    """Also after it had shut down its half."""
    for half_closed in (False, True):
        ended = []
        context = context_of(authority, "localhost.example")
        async with serve("host", config=config) as (port, attachment):
            async with Server(context, lambda tls, ended=ended: ended.append(tls.recv(99) or tls.recv(99))) as number:
                connection = (await secure(port, number)).connection
                if half_closed:
                    connection.shutdown(socket.SHUT_WR)
                connection.close()
            await until_no(attachment._relays)
        assert ended == [b""]


async def until_no(things):
    await until(lambda: not things)


@in_loop
async def test_what_an_ended_guest_has_sent_still_goes_out(authority, config):
    received = []

    def take_slowly(tls):
        while data := tls.recv(65536):
            received.append(data)

    context = context_of(authority, "localhost.example")
    async with serve("host", config=config) as (port, _), Server(context, take_slowly) as number:
        connection = (await secure(port, number)).connection
        connection.settimeout(5)
        await asyncio.to_thread(connection.sendall, b"w" * 3_000_000)
        connection.close()
        port.end()
    assert sum(map(len, received)) == 3_000_000


@in_loop
async def test_protocols_are_agreed_upon(authority, config):
    context = context_of(authority, "localhost.example", protocols=["h2", "http/1.1"])
    async with serve("host", config=config) as (port, _):
        for offered, agreed in [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], ""), (["x"], "")]:
            async with Server(context, lambda _: None) as number:
                answer = await secure(port, number, protocols=offered)
                assert answer.protocol == agreed
                answer.connection.close()
        for wrong in ([""], ["x" * 256], ["ä"], ["x"] * 17):
            with listener() as (_, number):
                assert (await secure(port, number, protocols=wrong)).errno == "EINVAL"


@pytest.mark.parametrize(
    ("issued", "asked", "expected"),
    [
        ("a.example", "a.example", ""),
        ("a.example", "A.EXAMPLE.", ""),
        ("*.a.example", "b.a.example", ""),
        ("127.0.0.1", "127.0.0.1", ""),
        ("::1", "::1", ""),
        ("xn--bcher-kva.example", "bücher.example", ""),
        ("a.example", "b.example", "isn't for b.example"),
        ("*.a.example", "a.example", "isn't for a.example"),
        ("*.a.example", "c.b.a.example", "isn't for c.b.a.example"),
        ("127.0.0.1", "127.0.0.2", "isn't for 127.0.0.2"),
        ("a.example", "127.0.0.1", "isn't for 127.0.0.1"),
    ],
)
@in_loop
async def test_the_certificate_must_bear_the_name(authority, config, issued, asked, expected):
    async with serve("host", config=config) as (port, attachment):
        async with Server(context_of(authority, issued), echo) as number:
            answer = await secure(port, number, asked)
            assert answer.errno == ("ECONNABORTED" if expected else "")
            if answer.connection:
                answer.connection.close()
        if expected:
            assert expected in failed(attachment)[0][1]


@in_loop
async def test_authorities_that_are_not_trusted(authority):
    """Without the file there are the system's, which don't know ours."""
    async with serve("host", config=NetworkConfig()) as (port, attachment):
        async with Server(context_of(authority, "localhost.example"), echo) as number:
            assert (await secure(port, number)).errno == "ECONNABORTED"
        ((name, reason),) = failed(attachment)
        assert name == "localhost.example"
        assert "doesn't verify" in reason
        assert "network.ca_file" in reason


def answer_with(data):
    async def answer(reader, writer):
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        writer.close()

    return answer


@pytest.mark.parametrize(("data", "expected"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "EPROTO"), (b"", "ECONNRESET")])
@in_loop
async def test_peers_that_speak_no_tls(config, data, expected):
    async with serve("host", config=config) as (port, attachment):
        server = await asyncio.start_server(answer_with(data), "127.0.0.1", 0)
        async with server:
            number = server.sockets[0].getsockname()[1]
            assert (await secure(port, number)).errno == expected
        assert failed(attachment)


@in_loop
async def test_old_protocols_are_refused(authority, config):
    context = context_of(authority, "localhost.example")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with contextlib.suppress(ValueError), pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serve("host", config=config) as (port, _), Server(context, echo) as number:
        assert (await secure(port, number)).errno == "EPROTO"


@in_loop
async def test_handshakes_that_take_too_long(ca_file):
    config = NetworkConfig(ca_file=ca_file, handshake_s_max=0.1)
    with listener() as (_, number):
        async with serve("host", config=config) as (port, attachment):
            assert (await secure(port, number)).errno == "ETIMEDOUT"
            assert "no handshake within 0.1 s" in failed(attachment)[0][1]


@in_loop
async def test_names_that_cannot_be_a_servers(config):
    with listener() as (_, number):
        async with serve("host", config=config) as (port, _):
            for name in ("", "a..b", "2130706433", "a/b"):
                assert (await secure(port, number, name)).errno == "EINVAL"


@in_loop
async def test_handshakes_of_guests_that_lose_interest_are_given_up(config):
    with listener() as (_, number):
        async with serve("host", config=config) as (port, attachment):
            first, second = [await connect(port, number) for _ in range(2)]
            request = port.ask("secure", fd=first.detach(), name="a.example")
            port.close(request)
            port.ask("secure", fd=second.detach(), name="a.example")
            await asyncio.sleep(0.01)
            port.end()
            await until_no(attachment._requests)


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("x", "isn't a PEM file")])
def test_files_of_authorities_that_cannot_be_used(tmp_path, content, reason):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NetworkError, match=f"ca.pem: .*{reason}"):
        Gateway(NetworkConfig(ca_file=os.fspath(path)))
