"""TLS by the host, which `ssl` uses if the environment has TIMECRAFT_TLS=host: the program's side stays clear text.

The host takes over a connection when its socket is told the server's name, by an option of a level of the host's own;
it verifies the certificate by the authorities that it trusts. So it gets the connections of clients which verify their
servers and have no certificate of their own. All others are OpenSSL's, in the program, as ever.

`Context` is the base of `ssl.SSLContext`. What it returns stands for `_ssl._SSLSocket`: with a socket `SocketSession`,
with buffers in memory `BufferSession`, which has no socket. Who carries its bytes must be an asyncio transport, and
finds a request in them: see `Carrier`.
"""

import errno
import os
import select
import socket
import weakref
from _ssl import (
    SSL_ERROR_EOF,
    SSL_ERROR_SSL,
    SSL_ERROR_WANT_READ,
    SSL_ERROR_WANT_WRITE,
    SSLCertVerificationError,
    SSLEOFError,
    SSLError,
    SSLWantReadError,
    SSLWantWriteError,
    _SSLContext,
)

LEVEL = 0x74696D65
OPTION_NAME = 1
OPTION_PROTOCOLS = 2
PROTOCOL_BYTES_MAX = 256

REASONS = {
    errno.EPROTO: "the server speaks no TLS, or no version from 1.2 on",
    errno.EINVAL: "that can't be the name of a server",
    errno.ENOTSUP: "the host granted no network",
    errno.EAGAIN: "the host has too many requests at a time",
}

# A fatal alert of TLS, so that a peer which got a request by mistake ends the connection; and what tells them apart.
ALERT = b"\x15\x03\x03\x00\x02\x02\x50"
REQUEST_BYTES = len(ALERT) + 16
# What a session reads when its request was dealt with. It says nothing, since peers could send it too.
WAKE = b"\0"

# Sessions that wait for who carries their bytes, by their request.
_requests = weakref.WeakValueDictionary()


class Context(_SSLContext):
    _alpn = b""
    _has_certificate = False

    def load_cert_chain(self, *args, **kwargs):
        super().load_cert_chain(*args, **kwargs)
        self._has_certificate = True

    def _set_alpn_protocols(self, protocols):
        super()._set_alpn_protocols(protocols)
        names, at = [], 0
        while at < len(protocols):
            end = at + 1 + protocols[at]
            names.append(protocols[at + 1 : end])
            at = end
        self._alpn = b",".join(names)

    def _wrap_socket(self, sock, server_side, server_hostname=None, *, owner=None, session=None):
        if self._is_for_host(server_side, server_hostname):
            return SocketSession(self, server_hostname, sock)
        return super()._wrap_socket(sock, server_side, server_hostname, owner=owner, session=session)

    def _wrap_bio(self, incoming, outgoing, server_side, server_hostname=None, *, owner=None, session=None):
        if self._is_for_host(server_side, server_hostname):
            return BufferSession(self, server_hostname, incoming, outgoing)
        return super()._wrap_bio(incoming, outgoing, server_side, server_hostname, owner=owner, session=session)

    def _is_for_host(self, server_side, server_hostname):
        # Who checks names verifies certificates too: OpenSSL's rule.
        return not server_side and server_hostname and self.check_hostname and not self._has_certificate


class Session:
    """What sessions of both kinds have of `_ssl._SSLSocket`. What only the host knows is as if it weren't there."""

    server_side = False
    session = None
    session_reused = False

    def __init__(self, context, name):
        self.context = context
        self.server_hostname = name
        self._protocol = None  # once the handshake is over; empty for none
        self._failure = 0

    def ask(self, sock):
        """Has the host begin; what it refuses is told when it would have ended."""
        try:
            if self.context._alpn:
                sock.setsockopt(LEVEL, OPTION_PROTOCOLS, self.context._alpn)
            sock.setsockopt(LEVEL, OPTION_NAME, self.server_hostname.encode())
        except OSError as error:
            self._failure = error.errno

    def settle(self, sock):
        """Notes how the handshake has ended."""
        self._failure = self._failure or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not self._failure:
            name = sock.getsockopt(LEVEL, OPTION_PROTOCOLS, PROTOCOL_BYTES_MAX)
            self._protocol = name.rstrip(b"\0").decode("ascii")

    def check(self):
        """Raises what the handshake failed with."""
        if self._failure == errno.ECONNABORTED:
            reason = f"the host doesn't accept it for {self.server_hostname!r}"
            error = _ssl_error(SSLCertVerificationError, "CERTIFICATE_VERIFY_FAILED", reason)
            error.verify_code = 1  # X509_V_ERR_UNSPECIFIED
            error.verify_message = reason
            raise error
        if self._failure in REASONS:
            raise _ssl_error(SSLError, "TLS_BY_HOST", f"{self.server_hostname!r}: {REASONS[self._failure]}")
        if self._failure:
            raise OSError(self._failure, os.strerror(self._failure))

    def pending(self):
        return 0

    def selected_alpn_protocol(self):
        return self._protocol or None

    def getpeercert(self, binary_form=False):
        return None if binary_form else {}

    def get_channel_binding(self, cb_type="tls-unique"):
        return None

    def cipher(self):
        return None

    shared_ciphers = compression = version = cipher


class SocketSession(Session):
    """On a socket, an `ssl.SSLSocket`, whose own methods would lead here again."""

    def __init__(self, context, name, sock):
        super().__init__(context, name)
        self._sock = weakref.ref(sock)
        self._asked = False

    def do_handshake(self):
        if self._protocol is not None:
            return
        sock = self._sock()
        if not self._asked:
            self._asked = True
            self.ask(sock)
        if not self._failure:
            timeout_s = sock.gettimeout()
            ready = select.poll()
            ready.register(sock, select.POLLOUT)
            if not ready.poll(None if timeout_s is None else timeout_s * 1000):
                if timeout_s:
                    raise TimeoutError("The handshake operation timed out")
                raise SSLWantWriteError(SSL_ERROR_WANT_WRITE, "The operation did not complete (write)")
            self.settle(sock)
        self.check()

    def read(self, length, buffer=None):
        self.do_handshake()
        try:
            if buffer is None:
                return socket.socket.recv(self._sock(), length)
            return socket.socket.recv_into(self._sock(), buffer, length)
        except BlockingIOError:
            raise SSLWantReadError(SSL_ERROR_WANT_READ, "The operation did not complete (read)") from None

    def write(self, data):
        self.do_handshake()
        try:
            return socket.socket.send(self._sock(), data)
        except BlockingIOError:
            raise SSLWantWriteError(SSL_ERROR_WANT_WRITE, "The operation did not complete (write)") from None

    def shutdown(self):
        # The host says goodbye within TLS. Clear text doesn't follow: the rest of the connection is the host's.
        sock = self._sock()
        socket.socket.shutdown(sock, socket.SHUT_WR)
        return sock


class BufferSession(Session):
    """On two `ssl.MemoryBIO`."""

    def __init__(self, context, name, incoming, outgoing):
        super().__init__(context, name)
        self._incoming = incoming
        self._outgoing = outgoing
        self._request = None
        self._awake = False

    def do_handshake(self):
        if self._awake:
            return
        if self._request is None:
            self._request = ALERT + os.urandom(16)
            _requests[self._request] = self
            self._outgoing.write(self._request)
        self.check()

    def check(self):
        if self._protocol is not None or self._failure:
            super().check()
            self._awake = self._incoming.read(len(WAKE)) == WAKE
        elif self._incoming.pending:
            reason = "the host secures sockets, and transports of asyncio; not what lies on other streams"
            raise _ssl_error(SSLError, "TLS_BY_HOST", reason)
        elif self._incoming.eof:
            raise SSLEOFError(SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        else:
            raise SSLWantReadError(SSL_ERROR_WANT_READ, "The operation did not complete (read)")

    def pending(self):
        return self._incoming.pending

    def read(self, length, buffer=None):
        self.do_handshake()
        if not self._incoming.pending and not self._incoming.eof:
            raise SSLWantReadError(SSL_ERROR_WANT_READ, "The operation did not complete (read)")
        if buffer is None:
            return self._incoming.read(length)
        data = self._incoming.read(min(length, len(buffer)) if length > 0 else len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        self.do_handshake()
        return self._outgoing.write(data)

    def shutdown(self):
        """The host says goodbye when the connection is closed."""


class Carrier:
    """What asyncio's transports have in addition: a request of a session is for them, and not for the peer."""

    _session = None

    def write(self, data):
        session = _requests.pop(bytes(data), None) if len(data) == REQUEST_BYTES else None
        if session is None:
            super().write(data)
        elif not self._conn_lost:
            self._session = session
            self._loop._remove_reader(self._sock_fd)
            if not self._buffer:
                self._begin()

    def _begin(self):
        self._session.ask(self._sock)
        # Ready when the handshake has ended.
        self._loop._add_writer(self._sock_fd, self._write_ready)

    def _write_ready(self):
        if self._session is None:
            super()._write_ready()
        elif self._buffer:
            super()._write_ready()
            if self._session is not None and not self._buffer and not self._conn_lost:
                self._begin()
        elif not self._conn_lost:
            self._finish()

    def _finish(self):
        session, self._session = self._session, None
        self._loop._remove_writer(self._sock_fd)
        session.settle(self._sock)
        if not self._paused:
            self._add_reader(self._sock_fd, self._read_ready)
        from asyncio import protocols

        if isinstance(self._protocol, protocols.BufferedProtocol):
            protocols._feed_data_to_buffered_proto(self._protocol, WAKE)
        else:
            self._protocol.data_received(WAKE)

    def _add_reader(self, fd, callback, *args):
        # What the socket has to say until then is about the handshake.
        if self._session is None:
            super()._add_reader(fd, callback, *args)

    def _call_connection_lost(self, exc):
        if self._session is not None:
            self._session = None
            self._loop._remove_writer(self._sock_fd)
        super()._call_connection_lost(exc)


def _ssl_error(kind, reason, text):
    """An error with what `_ssl` always adds."""
    name = reason.lower().replace("_", " ")
    error = kind(SSL_ERROR_SSL, f"[SSL: {reason}] {name}: {text}")
    error.library = "SSL"
    error.reason = reason
    return error
