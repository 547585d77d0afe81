"""What a guest has not got is told in words, and deep recursion is an exception, not the end."""

import ast
import asyncio
import json
import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor


def error(kind, call, *args, **kwargs) -> str:
    """The message of the exception that a call raises."""
    try:
        call(*args, **kwargs)
    except kind as raised:
        return str(raised)
    raise AssertionError(call)


def fall(n: int = 0) -> int:
    return fall(n + 1)


def nested(depth: int) -> list:
    value = []
    for _ in range(depth):
        value = [value]
    return value


assert error(OSError, subprocess.run, ["ls"]) == "[Errno 58] wasi does not support processes."
assert error(RuntimeError, threading.Thread(target=print).start).endswith("wasi does not support threads")
lock = threading.Lock()
with lock:
    assert error(RuntimeError, lock.acquire).startswith("deadlock: wasi")
    start = time.monotonic()
    assert not lock.acquire(timeout=0.05)
    assert time.monotonic() - start >= 0.05
assert not threading.Event().wait(0.01)
assert error(RuntimeError, queue.Queue().get).startswith("deadlock")
error(queue.Empty, queue.Queue().get, timeout=0.01)

ready = []
with ThreadPoolExecutor(initializer=ready.append, initargs=("once",)) as pool:
    future = pool.submit(lambda: pool.submit(sum, [1, 2]).result())
    assert (future.done(), future.result(), ready) == (True, 3, ["once"])
    assert isinstance(pool.submit(lambda: 1 / 0).exception(), ZeroDivisionError)
    assert list(pool.map(str, range(3))) == ["0", "1", "2"]
assert "after shutdown" in error(RuntimeError, pool.submit, print)
logging.disable()
with ThreadPoolExecutor(initializer=fall) as broken:
    error(RuntimeError, broken.submit(print).result)

assert not hasattr(socket, "AF_UNIX")
error(socket.gaierror, socket.getaddrinfo, "no.such.name", 80)
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append("SIGUSR1"))
signal.raise_signal(signal.SIGUSR1)
assert heard == ["SIGUSR1"]
error(KeyboardInterrupt, signal.raise_signal, signal.SIGINT)

for attempt in (
    fall,
    lambda: repr(nested(100_000)),
    lambda: pickle.dumps(nested(100_000)),
    lambda: json.dumps(nested(100_000)),
    lambda: json.loads("[" * 100_000),
    lambda: ast.literal_eval("-" * 10_000 + "1"),
    lambda: asyncio.run(asyncio.sleep(fall())),
):
    error((RecursionError, MemoryError), attempt)
sys.setrecursionlimit(20_000)
error(RecursionError, fall)
assert error(KeyError, os.environ.__getitem__, "PATH") == "'PATH'"
print("ok")
