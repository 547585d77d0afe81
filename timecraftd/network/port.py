"""What the gateway needs of a guest's end of it. The extension has the real one; whoever makes both joins them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Literal, Protocol

Endpoint = tuple[str, int]
"""(IP address as text, port)"""


class NetworkEvent(Protocol):
    """Something that a guest asks of the network, or has stopped asking; see `_native.pyi`."""

    @property
    def kind(self) -> Literal["dial", "listen", "resolve", "secure", "closed", "room", "ended"]: ...
    @property
    def id(self) -> int: ...
    @property
    def transport(self) -> Literal["tcp", "udp"]: ...
    @property
    def address(self) -> Endpoint | None: ...
    @property
    def source(self) -> Endpoint | None: ...
    @property
    def backlog(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def ipv4(self) -> bool: ...
    @property
    def ipv6(self) -> bool: ...
    @property
    def protocols(self) -> list[str]: ...
    @property
    def fd(self) -> int: ...


class NetworkPort(Protocol):
    """A queue of events, and the answers; see `_native.pyi`. Answers own the descriptors that they are given."""

    def fileno(self) -> int: ...
    def take(self) -> Sequence[NetworkEvent]: ...
    def refuse(self, request: int, errno: str, /) -> bool: ...
    def connected(self, request: int, fd: int, local: Endpoint, peer: Endpoint, protocol: str = "", /) -> bool: ...
    def listening(self, request: int, /) -> bool: ...
    def deliver(self, listener: int, fd: int, local: Endpoint, peer: Endpoint, /) -> bool: ...
    def bound(self, request: int, fd: int | None, /) -> bool: ...
    def addresses(self, request: int, addresses: Sequence[str], /) -> bool: ...


def wasi_errno(number: int | None) -> str:
    """WASI's name for an error of Linux. What a guest could not make sense of becomes the nearest that it can."""
    name = errno.errorcode.get(number or 0, "")
    return _NEAREST.get(name, name if name in _SAME else "EIO")


def os_error(error: OSError) -> str:
    """An error for people."""
    return os.strerror(error.errno) if error.errno else str(error)


_NEAREST = {
    "EPERM": "EACCES",  # a firewall's answer
    "EMFILE": "ENFILE",  # this process's descriptors, not the guest's
    "EHOSTDOWN": "EHOSTUNREACH",
    "ENONET": "ENETUNREACH",
    "EOPNOTSUPP": "ENOTSUP",
    "EPFNOSUPPORT": "EAFNOSUPPORT",
    "ESOCKTNOSUPPORT": "EPROTONOSUPPORT",
    "ESHUTDOWN": "EPIPE",
    "ETIME": "ETIMEDOUT",
}
_SHARED = """
    EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBADMSG EBUSY ECANCELED ECONNABORTED
    ECONNREFUSED ECONNRESET EDESTADDRREQ EEXIST EFAULT EHOSTUNREACH EILSEQ EINPROGRESS EINTR EINVAL EIO EISCONN
    EISDIR ELOOP EMSGSIZE ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS ENODEV ENOENT ENOMEM ENOPROTOOPT
    ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTSOCK ENOTSUP ENXIO EOVERFLOW EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE ERANGE
    EROFS ESTALE ETIMEDOUT
"""
_SAME = frozenset(_SHARED.split())
"""Errors of sockets, paths and resources that mean the same to WASI."""
