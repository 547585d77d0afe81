"""An asyncio service of HTTP whose host dies under load: it is resumed, serves on, forgets nothing; and is replayed."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path
from random import Random
from textwrap import dedent

import pytest

from tests.e2e import servers
from tests.e2e.cli import TIMEOUT_S, Cli, kill9, wait_for

SERVICE = """
    import asyncio

    async def main():
        count = {"served": 0, "open": 0, "reset": 0}
        over = asyncio.Event()

        async def serve(reader, writer):
            count["open"] += 1
            try:
                while True:
                    try:
                        head = await reader.readuntil(b"\\r\\n\\r\\n")
                    except asyncio.IncompleteReadError:
                        break
                    count["served"] += 1
                    body = "{served} {open} {reset}".format(**count).encode()
                    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
                    await writer.drain()
                    if head.startswith(b"GET /stop "):
                        over.set()
            except ConnectionResetError:
                count["reset"] += 1
            finally:
                count["open"] -= 1
                writer.close()

        async with await asyncio.start_server(serve, "0.0.0.0", 8000):
            await over.wait()
        print(count["served"], "served")

    asyncio.run(main())
"""


class Client(threading.Thread):
    """Asks without pause on one connection, and on another one when that dies."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.numbers: list[int] = []
        """How many requests the service had served, by its own count, at each answer."""
        self.connections = 0
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException):
                self._over.wait(0.01)  # the service is away
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        self.connections += 1
        while not self._over.is_set():
            self.numbers.append(counts(connection)[0])

    def stop(self) -> None:
        """Stops after the next answer."""
        self._over.set()
        self.join(TIMEOUT_S)


def counts(connection: http.client.HTTPConnection, path: str = "/") -> tuple[int, int, int]:
    """What the service has counted: requests served, connections open, connections that were reset."""
    connection.request("GET", path)
    served, is_open, reset = map(int, connection.getresponse().read().split())
    return served, is_open, reset


def serve_and_die(cli: Cli, path: Path, random: Random, clients: int, deaths: int, answers: int) -> None:
    """Kills the host `deaths` times, each after about so many answers."""
    port = servers.free_port()
    path.write_text(dedent(SERVICE))
    host = cli.start("run", "-p", f"127.0.0.1:{port}:8000", path)
    process = host.stderr.readline().decode().strip()
    threads = [Client(port) for _ in range(clients)]
    for thread in threads:
        thread.start()
    seen = 0
    for _ in range(deaths):
        enough = seen + random.randrange(answers // 2, answers * 3 // 2)
        wait_for(lambda enough=enough: sum(len(thread.numbers) for thread in threads) > enough, "answers")
        kill9(host)
        before = max(max(thread.numbers) for thread in threads)
        seen = sum(len(thread.numbers) for thread in threads)
        host = cli.start("resume", process)
        wait_for(lambda before=before: max(max(thread.numbers) for thread in threads) > before, "more answers")
    for thread in threads:
        thread.stop()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    served, is_open, reset = counts(connection, "/stop")
    connection.close()
    stdout, stderr = host.communicate(timeout=TIMEOUT_S)
    assert (host.returncode, stdout) == (0, f"{served} served\n".encode()), stderr
    assert b"Exception" not in stderr, stderr
    numbers = [number for thread in threads for number in thread.numbers]
    # Nothing that was answered was forgotten, whatever was killed: the count never went back.
    assert len(set(numbers)) == len(numbers)
    assert all(thread.numbers == sorted(thread.numbers) for thread in threads)
    assert len(numbers) < served <= len(numbers) + 1 + clients * deaths
    # Each of the connections that died with a host was seen to.
    assert is_open == 1
    assert 0 < reset <= clients * deaths
    assert all(thread.connections > deaths for thread in threads)
    assert "the same to the end" in cli("replay", "--verify", process).out


def test_a_service_goes_on_after_its_host_died(cli: Cli, scratch: Path, random: Random):
    """Twice within some hundred requests."""
    serve_and_die(cli, scratch / "service.py", random, clients=8, deaths=2, answers=400)


@pytest.mark.soak
def test_a_service_goes_on_whenever_its_host_dies(cli: Cli, scratch: Path, random: Random):
    """Many times, with more clients."""
    serve_and_die(cli, scratch / "service.py", random, clients=64, deaths=20, answers=4000)
