"""Servers made with packages from the registry, published and asked from outside; clients; TLS by the host."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import trustme

from tests.e2e import servers
from tests.e2e.cli import GUESTS, TIMEOUT_S, Cli

REQUIREMENTS = GUESTS / "python" / "requirements-web.txt"
AIOHTTP = """
    import asyncio
    from aiohttp import ClientSession, web

    async def hello(request):
        return web.json_response({"path": request.path, "q": request.query.get("q"), "body": await request.text()})

    async def talk(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data[::-1])
        return socket

    async def main():
        over = asyncio.Event()

        async def stop(request):
            over.set()
            return web.Response(text="bye")

        app = web.Application()
        app.add_routes([web.get("/talk", talk), web.get("/stop", stop), web.route("*", "/{name}", hello)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 8000).start()
        async with ClientSession("http://127.0.0.1:8000") as session:
            answers = await asyncio.gather(*(session.post("/self", params={"q": n}, data="ö" * n) for n in range(5)))
            print(await answers[4].json())
            async with session.ws_connect("/talk") as socket:
                await socket.send_str("hello")
                print((await socket.receive()).data)
        print("ready", flush=True)
        await over.wait()
        await runner.cleanup()

    asyncio.run(main())
"""
FLASK = """
    from wsgiref.simple_server import make_server
    from flask import Flask, jsonify, request

    app = Flask(__name__)

    @app.route("/stop")
    def stop():
        return "bye"

    @app.route("/<name>", methods=["GET", "POST"])
    def hello(name):
        return jsonify(path=f"/{name}", q=request.args.get("q"), body=request.get_data(as_text=True))

    with make_server("0.0.0.0", 8000, app) as server:
        print("ready", flush=True)
        for _ in range(3):
            server.handle_request()
"""
STARLETTE = """
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    async def hello(request):
        body = (await request.body()).decode()
        return JSONResponse({"path": request.url.path, "q": request.query_params.get("q"), "body": body})

    def source(request):  # done by anyio's threads, as is what reads the file
        return FileResponse(__file__)

    async def stop(request):
        server.should_exit = True
        return PlainTextResponse("bye")

    routes = [Route("/stop", stop), Route("/source", source), Route("/{name}", hello, methods=["GET", "POST"])]
    app = Starlette(routes=routes)
    config = uvicorn.Config(app, host="0.0.0.0", port=8000, loop="asyncio", http="h11", log_level="warning")
    server = uvicorn.Server(config)
    print("ready", flush=True)
    server.run()
"""
URLLIB3 = """
    import sys
    import urllib3

    url = sys.argv[1]
    with urllib3.PoolManager(retries=urllib3.Retry(2, backoff_factor=0.01)) as pool:
        print(pool.request("GET", url, fields={"q": "ö"}).json(), pool.request("POST", url, json={"a": 1}).json())
        try:
            pool.request("GET", "http://host.internal:1/")
        except urllib3.exceptions.MaxRetryError as error:
            print(type(error.reason).__name__)
"""
CLIENTS = """
    import asyncio, http.client, ssl, sys, urllib.request
    import aiohttp, httpx, requests

    HOST, PORT, OTHER, PLAIN = "host.internal", *map(int, sys.argv[1:])
    URL = f"https://{HOST}:{PORT}"

    def refused(error):
        error = getattr(error, "certificate_error", error)  # aiohttp's
        while error is not None and not isinstance(error, ssl.SSLError):
            reason = getattr(error, "reason", None) or error.__cause__ or error.__context__
            error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
        print(type(error).__name__, error)

    def attempt(call, *args):
        try:
            call(*args)
        except Exception as error:
            refused(error)

    client = http.client.HTTPSConnection(HOST, PORT)
    client.request("POST", "/http.client", "sent")
    print(client.getresponse().read(), client.sock.selected_alpn_protocol())
    client.close()
    print(urllib.request.urlopen(f"{URL}/urllib").read(), requests.get(f"{URL}/requests").json())
    for port in (OTHER, PLAIN):
        attempt(urllib.request.urlopen, f"https://{HOST}:{port}/")
    attempt(requests.get, f"https://{HOST}:{OTHER}/")
    without = ssl._create_unverified_context()
    print(urllib.request.urlopen(f"https://{HOST}:{OTHER}/unverified", context=without).read())

    async def streams(number, later):
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        now = None if later else context
        reader, writer = await asyncio.open_connection(HOST, PORT, ssl=now)
        if later:
            await writer.start_tls(context, server_hostname=HOST)
        writer.write(b"GET /%d HTTP/1.1\\r\\nHost: h\\r\\nConnection: close\\r\\n\\r\\n" % number)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.splitlines()[-1], writer.get_extra_info("ssl_object").selected_alpn_protocol()

    async def main():
        print(await asyncio.gather(*(streams(number, number == 2) for number in range(3))))
        async with httpx.AsyncClient() as client, aiohttp.ClientSession() as session:
            async with asyncio.timeout(30):
                answers = await asyncio.gather(*(client.get(f"{URL}/httpx{number}") for number in range(3)))
                print([answer.json()["path"] for answer in answers])
                async with session.get(f"{URL}/aiohttp") as answer:
                    print(await answer.json())
            for call in (client.get, session.get, lambda _: asyncio.open_connection(HOST, OTHER, ssl=True)):
                try:
                    await call(f"https://{HOST}:{OTHER}/")
                except Exception as error:
                    refused(error)

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One state directory for all, so that the packages are installed once."""
    cli = Cli(tmp_path_factory.mktemp("web") / "home")
    cli("run", "-q", "--requirements", REQUIREMENTS, "-c", "")
    yield cli
    cli.close()


def program(folder: Path, source: str) -> Path:
    """A Python file."""
    path = folder / "app.py"
    path.write_text(dedent(source))
    return path


def ask(port: str, path: str, body: bytes | None = None) -> Any:
    """One exchange with a published port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, TIMEOUT_S) as answer:
        data = answer.read()
        return json.loads(data) if answer.headers.get_content_type() == "application/json" else data.decode()


@pytest.mark.parametrize("name", ["AIOHTTP", "FLASK", "STARLETTE"])
def test_servers(name: str, cli: Cli, tmp_path: Path):
    """aiohttp (without its natives) by itself, Flask by wsgiref, Starlette by uvicorn with h11."""
    path = program(tmp_path, globals()[name])
    host = cli.start("run", "--requirements", REQUIREMENTS, "-p", "127.0.0.1:0:8000", path)
    process = host.stderr.readline().decode().strip()
    port = host.stderr.readline().decode().split(":")[1]
    assert ask(port, "/one?q=1") == {"path": "/one", "q": "1", "body": ""}
    assert ask(port, "/two", "ö".encode()) == {"path": "/two", "q": None, "body": "ö"}
    if name == "STARLETTE":
        assert ask(port, "/source") == path.read_text()
    assert ask(port, "/stop") == "bye"
    out, err = host.communicate(timeout=TIMEOUT_S)
    assert host.returncode == 0, err.decode()
    if name == "AIOHTTP":
        assert out.decode().startswith("{'path': '/self', 'q': '4', 'body': 'öööö'}\nolleh\n")
    assert out.decode().endswith("ready\n")
    assert cli.replay(process).stdout == out
    assert "GET /one?q=1 => 200 OK" in cli("trace", "request", process).out


def test_urllib3(cli: Cli, tmp_path: Path):
    """A pool of connections, and retries."""
    with servers.web() as port:
        args = ("--net", f"host:{port}", "--requirements", REQUIREMENTS, program(tmp_path, URLLIB3))
        process, done = cli.run(*args, f"http://host.internal:{port}/")
    assert done.out == (
        "{'path': '/?q=%C3%B6', 'body': ''} {'path': '/', 'body': '{\"a\":1}'}\nNewConnectionError\n"
    ), done.shown
    assert cli.replay(process).out == done.out


def test_tls_by_the_host(cli: Cli, tmp_path: Path):
    """With `--tls host` clients of all kinds verify by the host, and the log has clear text."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours, other = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
    authority.issue_cert("host.internal").configure_cert(ours)
    authority.issue_cert("elsewhere.example").configure_cert(other)
    ours.set_alpn_protocols(["http/1.1"])
    with servers.web(ours) as port, servers.web(other) as wrong, servers.web() as plain:
        args = ("--tls", "host", "--tls-ca", tmp_path / "ca.pem", "--net", "host", "--requirements", REQUIREMENTS)
        process, done = cli.run(*args, program(tmp_path, CLIENTS), str(port), str(wrong), str(plain))
    unverified = "SSLCertVerificationError [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
    unverified += "the host doesn't accept it for 'host.internal'"
    assert done.out.splitlines() == [
        """b'{"path": "/http.client", "body": "sent"}' http/1.1""",
        """b'{"path": "/urllib", "body": ""}' {'path': '/requests', 'body': ''}""",
        unverified,
        "SSLError [SSL: TLS_BY_HOST] tls by host: 'host.internal': the server speaks no TLS, or no version from 1.2 on",
        unverified,
        """b'{"path": "/unverified", "body": ""}'""",
        repr([(b'{"path": "/%d", "body": ""}' % number, "http/1.1") for number in range(3)]),
        "['/httpx0', '/httpx1', '/httpx2']",
        "{'path': '/aiohttp', 'body': ''}",
        unverified,
        unverified,
        unverified,
    ], done.shown
    assert cli.replay(process).out == done.out
    shown = cli("trace", "request", "-v", process).out
    for path in ("http.client", "urllib", "requests", "httpx1", "aiohttp", "1", "2"):
        assert f"/{path} HTTP/1.1" in shown
    assert "/unverified" not in shown
    assert '{"path": "/http.client", "body": "sent"}' in shown


def test_tls_by_the_host_is_for_python_programs(cli: Cli):
    """Others ask for it themselves; and without a network there is nobody to do it."""
    done = cli("run", "--tls", "host", GUESTS / "args_env.wat", code=125)
    assert "--tls are for Python programs" in done.stderr
    source = """
        import socket, ssl
        listener = socket.create_server(("127.0.0.1", 0))
        connection = socket.create_connection(listener.getsockname())
        try:
            ssl.create_default_context().wrap_socket(connection, server_hostname="localhost")
        except ssl.SSLError as error:
            print(error)
    """
    done = cli("run", "--tls", "host", "-c", dedent(source))
    assert "'localhost': the host granted no network" in done.out
