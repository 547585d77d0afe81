"""Go programs that serve and ask as programs do everywhere: run by command line, recorded, and replayed."""

from collections.abc import Iterator
from itertools import islice

import pytest

from tests.e2e import servers
from tests.e2e.cli import BUILT, Cli, kill9
from tests.e2e.servers import PASSWORD, Server

NUMBERS = 3000


@pytest.fixture
def postgres() -> Iterator[Server]:
    """A PostgreSQL of the test's own."""
    server = servers.postgres()
    yield server
    server.stop()


@pytest.fixture
def redis() -> Iterator[Server]:
    """A Redis of the test's own."""
    server = servers.redis()
    yield server
    server.stop()


def test_http(cli: Cli):
    """HTTP/1.1 and cleartext HTTP/2, server and client in one process, with no grant."""
    process, done = cli.run(BUILT / "net" / "http.wasm")
    assert done.out.endswith("ok HTTP/2.0 canceled\nfailed: 0\n")
    again = cli.replay(process)
    assert (again.stdout, again.stderr) == (done.stdout, done.stderr)


def ask(cli: Cli, name: str, server: Server, address: str) -> None:
    """Has a program work with a server that alone it may reach; replays it when the server is gone."""
    grant = f"allow host.internal:{server.port}"
    process, done = cli.run("--net", grant, BUILT / "net" / f"{name}.wasm", address)
    assert done.out.endswith("ok cut connection\nfailed: 0\n"), done.shown
    server.stop()
    again = cli.replay(process)
    assert (again.stdout, again.stderr) == (done.stdout, done.stderr)


def url_of(postgres: Server) -> str:
    return f"postgres://postgres:{PASSWORD}@host.internal:{postgres.port}/postgres"


def test_postgres(cli: Cli, postgres: Server):
    """pgx and PostgreSQL: types, transactions, prepared statements, COPY, LISTEN, errors, a pool."""
    ask(cli, "postgres", postgres, url_of(postgres))


def test_redis(cli: Cli, redis: Server):
    """go-redis and Redis: values, pipelines, transactions, scripts, publish and subscribe, blocking calls."""
    ask(cli, "redis", redis, f"host.internal:{redis.port}")


def test_resumed_in_the_midst_of_queries(cli: Cli, postgres: Server):
    """A resumed program finds its connection reset, makes another, and loses and doubles nothing."""
    grant = f"allow host.internal:{postgres.port}"
    program = [BUILT / "net" / "postgres.wasm", "-count", str(NUMBERS), url_of(postgres)]
    host = cli.start("run", "--net", grant, *program)
    process = host.stderr.readline().decode().strip()
    assert list(islice(host.stdout, 20))[-1] == b"counted 20\n"
    kill9(host)
    done = cli("resume", process)
    assert "Connection reset by peer" in done.stderr, done.shown
    postgres.stop()
    counted = "".join(f"counted {number}\n" for number in range(1, NUMBERS + 1))
    end = f"connections: 2 rows: {NUMBERS}\n"
    assert cli("logs", process).out == cli.replay(process).out == f"{counted}{end}"
