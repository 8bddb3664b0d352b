"""
The private C modules that make the cold path short, and their stand-ins.

What each saves, beyond the Lambda runtime client (CPython 3.11, one machine):

    _socket         instead of socket    2 ms: selectors, enums of constants
    _ssl            instead of ssl       4.6 ms: the same, and hundreds of enums
    _sha256, _sha2  instead of hashlib   2 ms and 0.3 MB: bindings of OpenSSL's

They are what the public modules are made of.  Where one of them is missing,
or a context for TLS does not check what the public one checks, the public
module is used instead; also while `socket.socket` is replaced (by pytest-socket,
say), since the replacement is meant for all connections of a test.  Where gevent or
eventlet has replaced it the private modules stay in use: the library's threads are
real ones there, too.  The same tests run with both kinds on every Python.  `use`
chooses by hand.
"""

from __future__ import annotations

import sys

from ..lifecycle import process, real_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AF_INET, SOCK_DGRAM = 2, 2
CERT_REQUIRED = 2
PROTOCOL_TLS_CLIENT = 16
TLS_1_2 = 0x0303


class Modules:
    """The sockets, the TLS and the hash that are in use."""

    __slots__ = (
        "Socket",
        "Unready",
        "_sha256",
        "_ssl",
        "getaddrinfo",
        "kind",
        "untaken",
    )

    def __init__(self, kind: str, socket: Any, ssl: Any) -> None:
        self.kind = kind
        self.getaddrinfo = socket.getaddrinfo
        # There is nothing to read yet, or no room to write.
        self.Unready = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._sha256: Any = None  # not loaded
        self._ssl = ssl
        self.untaken: dict[str, Any] = {}  # the context that `private` has made
        self.Socket = socket.socket
        if kind == "private":  # `_ssl` holds a weak reference to its socket
            self.Socket = type("Socket", (socket.socket,), {"__slots__": "__weakref__"})

    @property
    def sha256(self) -> Any:
        """The hash, loaded when it is first asked for."""
        if self._sha256 is None:
            self._sha256 = _sha256() if self.kind == "private" else _public_sha256()
        return self._sha256

    def context(self) -> Any:
        """Return a context for TLS that trusts no certificate yet, and checks all."""
        made = self.untaken.pop("context", None)  # one thread has it
        if made is not None:
            return made
        if self.kind == "public":
            context = self._ssl.SSLContext(PROTOCOL_TLS_CLIENT)
        else:
            context = self._ssl._SSLContext(PROTOCOL_TLS_CLIENT)
        context.minimum_version = TLS_1_2
        if not (context.check_hostname and context.verify_mode == CERT_REQUIRED):
            msg = "this TLS does not check certificates by default"
            raise ImportError(msg)
        return context

    def secure(self, context: Any, sock: Any, host: str) -> tuple[Any, Any]:
        """Return (whose time-outs count, who reads and writes) over *sock*."""
        if self.kind == "public":
            tls = context.wrap_socket(
                sock,
                server_hostname=host,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
            return tls, tls
        return sock, context._wrap_socket(sock, False, host)

    def is_refusal(self, exc: OSError) -> bool:
        """Say whether *exc* means that a certificate was not accepted."""
        return isinstance(exc, self._ssl.SSLCertVerificationError)


def private() -> Modules:
    """Return the private modules; raises what it will if they are not as known."""
    import _socket
    import _ssl

    modules = Modules("private", _socket, _ssl)
    context = modules.context()
    sock = modules.Socket()
    try:
        modules.secure(context, sock, "localhost")  # as it will be used
    finally:
        sock.close()
    modules.untaken["context"] = context
    return modules


def public() -> Modules:
    """Return the public modules, which every Python has."""
    import socket
    import ssl

    return Modules("public", socket, ssl)


def _sha256() -> Any:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256  # type: ignore[import-not-found]  # unknown to mypy
        else:
            from _sha256 import sha256  # type: ignore[import-not-found]  # likewise
    except ImportError as exc:  # another Python
        if process.by_signal_handler(exc):
            raise
        return _public_sha256()
    return sha256


def _public_sha256() -> Any:
    from hashlib import sha256

    return sha256


_modules: Modules | None = None


def modules() -> Modules:
    """Return the modules in use, chosen at the first call."""
    global _modules
    if _are_sockets_forbidden():
        return public()
    if _modules is None:
        try:
            _modules = private()
        except Exception as exc:  # another Python may have changed anything
            if process.by_signal_handler(exc):
                raise
            _modules = public()
    return _modules


def _are_sockets_forbidden() -> bool:
    """Say whether `socket.socket` was replaced, and not for greenlets."""
    module = sys.modules.get("socket")
    if module is None or module.socket.__module__ == "socket":
        return False
    # gevent can be told to leave threads alone; its sockets belong to one of them.
    package = module.socket.__module__.partition(".")[0]
    return package not in ("gevent", "eventlet") and not real_threads.patched()


def resolver() -> Any:
    """Return the function `getaddrinfo` in use, without loading TLS for it."""
    if _modules is None or _are_sockets_forbidden():
        return _sockets().getaddrinfo
    return _modules.getaddrinfo


def datagrams() -> Any:
    """Return a new socket for datagrams over IPv4, without loading TLS for it."""
    return _sockets().socket(AF_INET, SOCK_DGRAM)


def _sockets() -> Any:
    if not _are_sockets_forbidden():
        try:
            import _socket
        except ImportError as exc:  # another Python has no such module
            if process.by_signal_handler(exc):
                raise
        else:
            return _socket
    import socket

    return socket


def use(chosen: Modules | None) -> None:
    """Use these modules from now on; None chooses again."""
    global _modules
    _modules = chosen


@process.at_reset
def reset() -> None:
    """Choose again at the next call, as if this were just imported."""
    use(None)


def hmac(sha256: Any, key: bytes, message: bytes) -> bytes:
    """Return the HMAC (RFC 2104) of *message*: two hashes, not the module `hmac`."""
    if len(key) > 64:
        key = sha256(key).digest()
    key = key.ljust(64, b"\0")
    inner = sha256(key.translate(_INNER) + message).digest()
    return sha256(key.translate(_OUTER) + inner).digest()  # type: ignore[no-any-return]


_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
