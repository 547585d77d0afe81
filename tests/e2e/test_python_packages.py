"""Packages from the registry, in Python guests: each does its work, recorded, and is replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.e2e import servers
from tests.e2e.cli import GUESTS, Cli
from tests.e2e.servers import PASSWORD

REQUIREMENTS = GUESTS / "python" / "requirements.txt"
ALONE = """
    import jinja2, sqlalchemy as sa, yaml
    from rich.console import Console
    from rich.table import Table

    print(jinja2.Template("{% for n in range(3) %}<{{ n }}>{% endfor %}").render())
    print(yaml.safe_load("a: [1, {b: 2}]"), yaml.safe_dump({"x": [1, 2]}).strip())
    table = Table("name", "value")
    table.add_row("one", "1")
    Console(width=40).print(table)
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sa.text("create table t (n integer)"))
        connection.execute(sa.text("insert into t values (:n)"), [{"n": n} for n in range(10)])
        print(connection.execute(sa.text("select sum(n) from t")).scalar_one())
"""
HTTP = """
    import asyncio, sys
    import httpx, requests

    url = sys.argv[1]
    with requests.Session() as session:
        print(session.get(url, params={"q": "ö"}).json(), session.post(url, json={"a": 1}).json())
    print(httpx.get(url).json())

    async def main():
        async with httpx.AsyncClient() as client:
            answers = await asyncio.gather(*(client.get(f"{url}{n}") for n in range(5)))
            print([answer.json()["path"] for answer in answers])

    asyncio.run(main())
"""
WEBSOCKETS = """
    import asyncio
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async def echo(connection):
        async for message in connection:
            await connection.send(message[::-1])

    async def main():
        async with serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}") as connection:
                await connection.send("hello")
                print(await connection.recv())

    asyncio.run(main())
"""
POSTGRES = """
    import sys
    import pg8000.native

    user, password, host, port = sys.argv[1:]
    with pg8000.native.Connection(user, host=host, port=int(port), password=password) as connection:
        connection.run("create table pets (name text, age integer)")
        for name, age in (("Ada", 3), ("Grete", 12)):
            connection.run("insert into pets values (:name, :age)", name=name, age=age)
        print(connection.run("select name, age from pets order by age desc"))
        try:
            connection.run("select * from nothing")
        except pg8000.exceptions.DatabaseError as error:
            print(error.args[0]["C"])
"""
REDIS = """
    import asyncio, sys
    import redis, redis.asyncio

    client = redis.Redis(sys.argv[1], int(sys.argv[2]))
    with client.pipeline() as pipeline:
        print(pipeline.set("a", 1).incr("a").lpush("l", "x", "y").lrange("l", 0, -1).execute())

    async def main():
        async with redis.asyncio.Redis(host=sys.argv[1], port=int(sys.argv[2])) as other:
            print(await other.get("a"))

    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One state directory for all, so that the packages are installed once."""
    cli = Cli(tmp_path_factory.mktemp("packages") / "home")
    cli("run", "-q", "--requirements", REQUIREMENTS, "-c", "")
    yield cli
    cli.close()


def start(cli: Cli, folder: Path, source: str, *args: object, grant: int | None = None) -> tuple[str, str]:
    """Runs a program with the packages; its process and what it said."""
    path = folder / "app.py"
    path.write_text(dedent(source))
    network = () if grant is None else ("--net", f"host:{grant}")
    process, done = cli.run(*network, "--requirements", REQUIREMENTS, path, *map(str, args))
    return process, done.out


def test_templates_yaml_tables_and_sql(cli: Cli, tmp_path: Path):
    """jinja2, pyyaml, rich, sqlalchemy on sqlite."""
    process, out = start(cli, tmp_path, ALONE)
    lines = out.splitlines()
    assert lines[0] == "<0><1><2>"
    assert lines[1] == "{'a': [1, {'b': 2}]} x:"
    assert "│ one  │ 1     │" in out
    assert lines[-1] == "45"
    assert cli.replay(process).out == out


def test_requests_and_httpx(cli: Cli, tmp_path: Path):
    """Clients of HTTP, waiting and not."""
    with servers.web() as port:
        process, out = start(cli, tmp_path, HTTP, f"http://host.internal:{port}/", grant=port)
    first, second, third = out.splitlines()
    assert first == "{'path': '/?q=%C3%B6', 'body': ''} {'path': '/', 'body': '{\"a\": 1}'}"
    assert (second, third) == ("{'path': '/', 'body': ''}", "['/0', '/1', '/2', '/3', '/4']")
    assert cli.replay(process).out == out


def test_websockets(cli: Cli, tmp_path: Path):
    """Server and client in one program."""
    process, out = start(cli, tmp_path, WEBSOCKETS)
    assert out == "olleh\n"
    assert cli.replay(process).out == out


def test_pg8000(cli: Cli, tmp_path: Path):
    """A real PostgreSQL, gone when the run is replayed."""
    server = servers.postgres()
    try:
        args = ("postgres", PASSWORD, "host.internal", server.port)
        process, out = start(cli, tmp_path, POSTGRES, *args, grant=server.port)
    finally:
        server.stop()
    assert out == "[['Grete', 12], ['Ada', 3]]\n42P01\n"
    assert cli.replay(process).out == out


def test_redis(cli: Cli, tmp_path: Path):
    """A real Redis, gone when the run is replayed."""
    server = servers.redis()
    try:
        process, out = start(cli, tmp_path, REDIS, "host.internal", server.port, grant=server.port)
    finally:
        server.stop()
    assert out == "[True, 2, 2, [b'y', b'x']]\nb'2'\n"
    assert cli.replay(process).out == out
