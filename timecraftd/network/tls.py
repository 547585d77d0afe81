"""TLS on a guest's behalf: the guest reads and writes clear text, the peer sees TLS.

Bytes pass through here, so they are copied; but no more than a chunk waits in each direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections import deque
from collections.abc import Sequence

from timecraftd.errors import NetworkError
from timecraftd.network.names import normalise_name
from timecraftd.network.port import os_error, wasi_errno

CHUNK_BYTES_MAX = 64 << 10
CONTEXTS_MAX = 16
PROTOCOLS_MAX = 16


class TlsError(Exception):
    """A handshake that failed: the guest's errno, and the reason for people."""

    def __init__(self, errno: str, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno
        self.reason = reason


class Contexts:
    """What sessions share: whom they trust and what they offer."""

    def __init__(self, ca_file: str = "") -> None:
        """`ca_file`: PEM file of the authorities to trust; empty: the system's."""
        self._ca_file = ca_file
        self._made: dict[tuple[str, ...], ssl.SSLContext] = {}

    def check(self) -> None:
        """Whether the file can be used. Raises NetworkError."""
        if self._ca_file:
            try:
                self._made[()] = _context(self._ca_file, ())
            except OSError as error:  # an SSLError is one
                reason = "it isn't a PEM file of certificates" if isinstance(error, ssl.SSLError) else os_error(error)
                next_step = "give a file with -----BEGIN CERTIFICATE-----, or leave it out for the system's authorities"
                raise NetworkError(f"authorities {self._ca_file}: {reason}", next_step) from None

    async def get(self, protocols: Sequence[str]) -> ssl.SSLContext:
        """A context that offers protocols (ALPN). Raises TlsError."""
        key = tuple(protocols)
        context = self._made.get(key)
        if context is None:
            if len(key) > PROTOCOLS_MAX or any(not each.isascii() or not 1 <= len(each) <= 255 for each in key):
                raise TlsError("EINVAL", "the protocols to offer aren't up to 16 of 1 to 255 characters")
            try:
                # It reads some hundred certificates: too long for the loop.
                context = await asyncio.to_thread(_context, self._ca_file, key)
            except OSError as error:
                raise TlsError("EIO", f"the authorities can't be read: {os_error(error)}") from None
            if len(self._made) >= CONTEXTS_MAX:
                del self._made[next(iter(self._made))]
            self._made[key] = context
        return context


class Session:
    """TLS over a connected socket, which it owns."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """`name`, a host's or an IP address, is what the peer's certificate must bear. Raises TlsError."""
        self._raw = raw
        self._raw.setblocking(False)
        self._name = name
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._sending = asyncio.Lock()
        self._early: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name(name))
        except ValueError as error:
            raise TlsError("EINVAL", f"{name!a} can't be the name of a server: {error}") from None

    @property
    def protocol(self) -> str:
        """What both sides agreed on (ALPN); empty for none."""
        return self._tls.selected_alpn_protocol() or ""

    def close(self) -> None:
        """Closes the socket. Idempotent."""
        self._raw.close()

    async def handshake(self, timeout_s: float) -> None:
        """Agrees with the peer and checks its certificate. Raises TlsError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._handshake_step():
                    pass
        except TimeoutError:
            raise TlsError("ETIMEDOUT", f"no handshake within {timeout_s:g} s; is that port one of TLS?") from None
        except ssl.SSLCertVerificationError as error:
            self._alert()
            raise TlsError("ECONNABORTED", self._why_unverified(error)) from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise TlsError("ECONNRESET", "the peer closed the connection during the handshake") from None
        except ssl.SSLError as error:
            self._alert()
            raise TlsError("EPROTO", f"{_reason(error)}; is that port one of TLS?") from None
        except OSError as error:
            raise TlsError(
                wasi_errno(error.errno), f"the connection broke during the handshake: {os_error(error)}"
            ) from None

    async def relay(self, plain: socket.socket) -> str:
        """Carries bytes between the guest's clear text and the peer until both have ended, or either is gone.

        Returns what went wrong, empty for nothing. Both sockets are the caller's to close.
        """
        up = self._loop.create_task(self._up(plain))
        down = self._loop.create_task(self._down(plain))
        gone = None
        try:
            done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up in done and not up.exception() and not down.done():
                # The guest may only have shut down its half, and later go away without a word to read.
                gone = self._loop.create_task(_hung_up(plain))
                await asyncio.wait({down, gone}, return_when=asyncio.FIRST_COMPLETED)
            elif down in done and not down.exception():
                await asyncio.wait({up})
            return _trouble(down) or _trouble(up)
        finally:
            tasks = [task for task in (up, down, gone) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handshake_step(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            await self._flush()
            await self._receive()
            return False
        await self._flush()
        return True

    async def _up(self, plain: socket.socket) -> None:
        """The guest to the peer."""
        while data := await self._loop.sock_recv(plain, CHUNK_BYTES_MAX):
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view) :]
            await self._flush()
        # OpenSSL looks for the peer's goodbye after its own, and fails if it finds data: so data is taken before.
        self._read_early()
        with contextlib.suppress(ssl.SSLError):  # the peer hasn't said goodbye, and need not
            self._tls.unwrap()
        await self._flush()
        self._raw.shutdown(socket.SHUT_WR)

    async def _down(self, plain: socket.socket) -> None:
        """The peer to the guest."""
        while data := await self._read():
            try:
                await self._loop.sock_sendall(plain, data)
            except OSError:
                return  # the guest has gone; what it sent before still goes out
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_WR)

    async def _read(self) -> bytes:
        """Clear text from the peer; empty once it has said goodbye."""
        while True:
            if self._early:
                return self._early.popleft()
            try:
                return self._tls.read(CHUNK_BYTES_MAX)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                # Keys may want to be changed. If the other direction is sending, it takes these bytes along.
                if self._outgoing.pending and not self._sending.locked():
                    await self._flush()
                await self._receive()

    def _read_early(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # nothing more, or what the next read tells too
            while data := self._tls.read(CHUNK_BYTES_MAX):
                self._early.append(data)

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._raw, CHUNK_BYTES_MAX)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        async with self._sending:
            while self._outgoing.pending:
                await self._loop.sock_sendall(self._raw, self._outgoing.read())

    def _alert(self) -> None:
        """Tells the peer why, if there is room."""
        with contextlib.suppress(OSError):
            self._raw.send(self._outgoing.read())

    def _why_unverified(self, error: ssl.SSLCertVerificationError) -> str:
        if "mismatch" in error.verify_message:
            return f"the certificate isn't for {self._name}: {error.verify_message}; ask for the name that it bears"
        advice = "if an authority of your own issued it, give that one's certificate (network.ca_file)"
        return f"the certificate of {self._name} doesn't verify: {error.verify_message}; {advice}"


def server_name(name: str) -> str:
    """What a certificate is compared with: an IP address, or a name in ASCII. Raises ValueError."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name)
    except (OSError, ValueError):
        return normalise_name(name)
    return name


def _context(ca_file: str, protocols: Sequence[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or None)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _trouble(task: asyncio.Task[None]) -> str:
    """What went wrong in a direction; a peer that is gone is nothing to tell."""
    error = task.exception() if task.done() and not task.cancelled() else None
    if isinstance(error, ssl.SSLEOFError):
        return "the peer closed the connection without saying so within TLS: what it sent may be cut short"
    if isinstance(error, ssl.SSLError):
        return _reason(error)
    if error is not None and not isinstance(error, OSError):
        raise error
    return ""


async def _hung_up(plain: socket.socket) -> None:
    """Waits until the other end of a socket pair is closed, not just shut down."""
    loop = asyncio.get_running_loop()
    with select.epoll() as poll:
        poll.register(plain, 0)  # hang-ups are told unasked
        hung_up = asyncio.Event()
        loop.add_reader(poll.fileno(), hung_up.set)
        try:
            await hung_up.wait()
        finally:
            loop.remove_reader(poll.fileno())
