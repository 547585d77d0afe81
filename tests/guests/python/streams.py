"""asyncio on the guest's own loopback: servers, clients, datagrams, executors, timeouts, signals."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable

CLIENTS = 50
ECHOES = 20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ask(host: str, port: int, client: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for number in range(ECHOES):
        line = b"client %d, line %d\n" % (client, number)
        writer.write(line)
        assert await reader.readline() == line
    writer.close()
    await writer.wait_closed()


async def serve(host: str | None) -> None:
    server = await asyncio.start_server(echo, host, 0)
    async with server:
        for listener in server.sockets:
            at, port = listener.getsockname()[:2]
            at = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at, at)
            await asyncio.gather(*(ask(at, port, client) for client in range(CLIENTS)))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address) -> None:
        self.transport.sendto(data, address)


class Ask(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _address) -> None:
        self.answer.set_result(data)


async def datagrams(host: str) -> None:
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, (host, 0))
    client, protocol = await loop.create_datagram_endpoint(Ask, remote_addr=server.get_extra_info("sockname")[:2])
    client.sendto(b"ping")
    assert await asyncio.wait_for(protocol.answer, 10) == b"ping"
    client.close()
    server.close()


async def fail() -> None:
    raise ValueError


async def message(work: Awaitable[object]) -> str:
    """What the exception says that it raises."""
    (error,) = await asyncio.gather(work, return_exceptions=True)
    assert isinstance(error, Exception), error
    return str(error)


async def other_work() -> None:
    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(sum, [1, 2]) == 3
    assert await loop.run_in_executor(None, str, 4) == "4"
    # What a job waits for waits for the job.
    job = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result())
    assert (await message(job)).startswith("deadlock")
    found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert [item[4][0] for item in found] == ["127.0.0.1", "::1"]
    try:
        await asyncio.wait_for(asyncio.sleep(100), 0.01)
    except TimeoutError:
        print("timed out")
    task = asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    print((await asyncio.gather(task, return_exceptions=True))[0].__class__.__name__)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    try:
        async with asyncio.TaskGroup() as group:
            waits = group.create_task(asyncio.sleep(100))
            group.create_task(fail())
    except* ValueError:
        assert waits.cancelled()
    assert "Connection refused" in await message(asyncio.open_connection("127.0.0.1", 9))
    for process in (asyncio.create_subprocess_exec("ls", stdout=-1), asyncio.create_subprocess_shell("ls")):
        assert "wasi does not support processes." in await message(process)
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(told.wait(), 10)
    loop.call_soon_threadsafe(print, "called")
    await asyncio.sleep(0.001)


async def main() -> None:
    for host in ("127.0.0.1", "::1", "localhost", None):
        await serve(host)
    await datagrams("127.0.0.1")
    await datagrams("::1")
    await other_work()


asyncio.run(main())
print(time.perf_counter())  # the same in a replay
print("ok")
