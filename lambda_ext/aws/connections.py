"""
The connections to one endpoint: kept, checked before each use, and reopened.

Guarantees
    No step outlasts the instant that the caller gives, looking up the name
    included.  A kept connection that turns out to be dead, as after a freeze,
    is replaced silently, and the request is made, and signed, anew.  One that
    stays silent gets half of the time that is left, `retries.READ_S` at most;
    then it and all that are kept are closed, and a new one is tried.
    In the clear nothing is sent to another machine, even if a name server says
    that it is "localhost".  What is kept is only a connection whose last response
    was read exactly to its end, and used again only if nothing has come since,
    so that no answer is taken for another's.  Nothing is sent before the
    certificate is verified.

Threads
    A connection belongs to one call at a time.  The list of idle ones needs
    no lock: appending and popping are atomic.
"""

from __future__ import annotations

from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from . import http1, native, regions, retries, tls, waiting
from .native import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .regions import Endpoint

LOOK_S = 0.01  # for what has come already, at least in part
IDLE_S = 10.0  # kept for no longer: a dead one may cost a whole time-out to find out
KEPT = 10
ADDRESSES = 3  # of one name that are tried, of IPv6 and of IPv4 in turn
AF_UNSPEC, SOCK_STREAM, IPPROTO_TCP, TCP_NODELAY = 0, 1, 6, 1
AI_NUMERICHOST = 4
MSG_PEEK = 2


class Stale(Exception):
    """A kept connection was closed while it was idle; never leaves this module."""


class Connection:
    """One open connection; *tls* reads and writes, *sock* has the time-outs."""

    __slots__ = ("_received", "_sock", "_tls", "asked", "idle_at", "patient", "used")

    def __init__(self, sock: Any, tls: Any) -> None:
        self._sock = sock
        self._tls = tls
        self._received = b""  # of a response that was not complete in time
        self.asked = False  # a whole request is out, and not its whole response in
        self.patient = False  # waits for an answer rather than ask again
        self.idle_at = 0.0
        self.used = False

    def exchange(self, request: bytes, ends_at: float) -> http1.Response:
        """
        Send *request* and return its response, before *ends_at*.

        On a used connection the first byte must come within half of that time,
        unless it is *patient*: then `resume` may be called after a TimeoutError, if the
        connection is *asked* by then.
        """
        touched = False
        first_by = ends_at
        if self.used and not self.patient:
            first_by -= left(ends_at, retries.BUDGET_S) / 2

        def receive(count: int) -> bytes:
            nonlocal touched
            until = ends_at if touched else first_by
            data = self._receive(count, left(until, retries.READ_S))
            touched = touched or bool(data)
            return data

        try:
            self._send(request, first_by)
            if self.patient:
                return self.resume(ends_at)
            response = http1.read(receive)
        except TimeoutError:
            raise
        except (OSError, http1.NothingReceivedError) as exc:
            silent = self.used and not (touched or self._received)
            if silent and not by_signal_handler(exc):
                raise Stale from exc
            raise
        self.used = True
        return response

    def resume(self, ends_at: float) -> http1.Response:
        """
        Return the response of the request that was sent, before *ends_at*.

        What has come already is read, also after that: a freeze may have passed.
        """
        self.asked = True
        replay = [self._received]

        def receive(count: int) -> bytes:
            data = replay.pop() if replay else b""
            if not data:
                seconds = ends_at - clock.monotonic()
                if seconds <= 0 and self.is_quiet():
                    raise TimeoutError
                data = self._receive(count, max(seconds, LOOK_S))
                self._received += data
            return data

        response = http1.read(receive)
        self._received = b""
        self.asked = False
        self.used = True
        return response

    def is_quiet(self) -> bool:
        """Say whether nothing came since the last response: no end, no bytes."""
        if self._tls is not None and self._tls.pending():
            return False
        # Of the socket below TLS, also where that is the public module's.  (To
        # ask with `select` would cost 0.3 ms, to load it.)
        receive = modules().Socket.recv
        self._sock.settimeout(0.0)
        try:
            receive(self._sock, 1, MSG_PEEK)
        except OSError as exc:
            if by_signal_handler(exc):
                raise
            return isinstance(exc, BlockingIOError)
        return False

    def __del__(self) -> None:
        # One that an exception has dropped keeps no descriptor open.
        self._sock.close()

    def close(self) -> None:
        """Close without a word, so that a forked child may do it too."""
        self._sock.close()

    def _receive(self, count: int, seconds: float) -> bytes:
        self._sock.settimeout(seconds)
        data: bytes = (
            self._sock.recv(count) if self._tls is None else self._tls.read(count)
        )
        return data

    def _send(self, request: bytes, ends_at: float) -> None:
        write = self._sock.send if self._tls is None else self._tls.write
        at = 0
        while at < len(request):
            self._sock.settimeout(left(ends_at, retries.READ_S))
            at += write(request[at:])


def _close_all(idle: list[Connection]) -> None:
    while idle:
        try:  # one by one: the thread that takes a connection out owns it
            idle.pop().close()
        except IndexError:
            break


class Connections:
    """The connections to one endpoint."""

    __slots__ = ("_clear", "_endpoint", "_idle", "_stores")

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        stores: Callable[[str], tuple[str, ...]] = tls.stores,
        clear: bool = False,
    ) -> None:
        """
        Connect to *endpoint* when there is something to send.

        *stores* says whom to trust (see `tls.stores`); *clear* allows plain
        HTTP to another machine.
        """
        self._clear = clear
        self._stores = stores
        self._endpoint = endpoint
        self._idle: list[Connection] = []

    def exchange(
        self,
        request: Callable[[], bytes],
        ends_at: float,
        asked: list[Connection] | None = None,
    ) -> http1.Response:
        """
        Send what *request* returns and return the response, before *ends_at*.

        *request* is called when there is a connection to send on; it is
        called again when that connection turns out to be dead.  An OSError from
        before there was one says so: ``is_opening`` is true.

        With a list *asked*, for what must not be sent twice: a connection whose
        response has not come in time is in it after a TimeoutError, for `resume`.
        """
        connection = self._kept()
        if connection is not None:
            try:
                return self._exchange(connection, request, ends_at, asked)
            except Stale:
                self.close()  # its neighbours are likely to be as dead
            except TimeoutError as exc:
                if asked or by_signal_handler(exc):
                    raise
                self.close()
        try:
            connection = self._opened(ends_at)
        except OSError as exc:
            exc.is_opening = True  # type: ignore[attr-defined]
            raise
        return self._exchange(connection, request, ends_at, asked)

    def resume(self, connection: Connection, ends_at: float) -> http1.Response:
        """Return the response that *connection* waits for; TimeoutError leaves it open."""
        idle = self._idle
        try:
            response = connection.resume(ends_at)
        except TimeoutError:
            raise
        except BaseException:
            connection.close()
            raise
        self._put_back(connection, response, idle)
        return response

    def close(self) -> None:
        """Close what is idle; what is in use is closed by its user."""
        idle, self._idle = self._idle, []
        _close_all(idle)

    def __del__(self, close_all: Any = _close_all) -> None:
        # At the end of the interpreter the module's names may be gone.
        close_all(self._idle)

    def _exchange(
        self,
        connection: Connection,
        request: Callable[[], bytes],
        ends_at: float,
        asked: list[Connection] | None = None,
    ) -> http1.Response:
        idle = self._idle  # replaced by close(): then this one goes as well
        try:
            if asked is not None:
                connection.patient = True
            response = connection.exchange(request(), ends_at)
        except BaseException as exc:
            if asked is None or not (
                connection.asked and isinstance(exc, TimeoutError)
            ):
                connection.close()
            else:
                asked.append(connection)
            raise
        self._put_back(connection, response, idle)
        return response

    def _put_back(
        self, connection: Connection, response: http1.Response, idle: list[Connection]
    ) -> None:
        """Keep *connection* for the next request, if *idle* is still where they are."""
        if response.reusable and idle is self._idle and len(idle) < KEPT:
            connection.idle_at = clock.now()
            idle.append(connection)
            if idle is not self._idle:  # close() was faster, and saw it or not
                _close_all(idle)
        else:
            connection.close()

    def _kept(self) -> Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            try:
                if clock.now() - connection.idle_at < IDLE_S and connection.is_quiet():
                    return connection
            except BaseException:  # a signal handler's
                connection.close()
                raise
            connection.close()
        return None

    def _opened(self, ends_at: float) -> Connection:
        host, port = self._endpoint.host, self._endpoint.port
        if not self._endpoint.tls:
            addresses = _resolved(host, port, ends_at)
            if not (self._clear or regions.is_address(host)):
                # "localhost", which a name server may have sent elsewhere.
                addresses = [
                    entry for entry in addresses if regions.is_loopback(entry[1][0])
                ]
                if not addresses:
                    raise ConnectionRefusedError(0, "it is not this machine")
            return Connection(_connected(addresses, ends_at), None)
        *first, last = stores = self._stores(host)
        addresses = _resolved(host, port, ends_at, lambda: tls.context(stores[0]))
        for store in first:
            try:
                return self._secured(addresses, store, ends_at)
            except OSError as exc:
                if not modules().is_refusal(exc):
                    raise
        return self._secured(addresses, last, ends_at)

    def _secured(
        self, addresses: list[tuple[int, Any]], store: str, ends_at: float
    ) -> Connection:
        host = self._endpoint.host
        context = tls.context(store)
        sock = _connected(addresses, ends_at)
        try:
            # A final dot is the name server's affair: no certificate has it.
            sock, secure = modules().secure(context, sock, host.removesuffix("."))
            _greet(sock, secure)
            modules().sha256  # noqa: B018  loaded while the other end makes its keys
            sock.settimeout(left(ends_at, retries.READ_S))
            secure.do_handshake()
        except BaseException:
            sock.close()
            raise
        tls.verified(host, store)
        return Connection(sock, secure)


def _greet(sock: Any, secure: Any) -> None:
    """Begin a handshake, and wait for nothing."""
    sock.settimeout(0.0)
    try:
        secure.do_handshake()
    except modules().Unready:
        pass


def left(ends_at: float, most_s: float) -> float:
    """Return the seconds until *ends_at*, *most_s* at most, or time out."""
    seconds = ends_at - clock.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return min(seconds, most_s)


def _resolved(
    host: str, port: int, ends_at: float, meanwhile: Callable[[], object] | None = None
) -> list[tuple[int, Any]]:
    """
    Return (family, address) of each address of *host*; *meanwhile* do that.

    At the first connection that is to load TLS, which takes as long as a name server.
    """
    getaddrinfo = native.resolver()
    # As bytes, so that the codec for international names is not loaded (2 ms).
    name = host.encode("ascii")
    if regions.is_address(host):
        # Numeric, so that no name server is asked, which might take its time.
        found = getaddrinfo(name, port, AF_UNSPEC, SOCK_STREAM, 0, AI_NUMERICHOST)
        return [(entry[0], entry[4]) for entry in found]
    # The resolver takes no time-out, and its own may be 30 s.
    found = waiting.within(
        left(ends_at, retries.READ_S),
        lambda: getaddrinfo(name, port, AF_UNSPEC, SOCK_STREAM),
        "lambda_ext_resolver",
        meanwhile,
        is_quiet=True,
    )
    return [(entry[0], entry[4]) for entry in found]


def _alternating(addresses: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """
    Return *addresses* so that their families take turns, the first one first.

    Source: RFC 8305, section 4, https://www.rfc-editor.org/rfc/rfc8305#section-4
    """
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    others = [entry for entry in addresses if entry[0] != addresses[0][0]]
    turns = min(len(first), len(others))
    paired = [entry for pair in zip(first, others, strict=False) for entry in pair]
    return paired + first[turns:] + others[turns:]


def _connected(addresses: list[tuple[int, Any]], ends_at: float) -> Any:
    """Return a socket connected to the first address that answers."""
    failure: OSError | None = None
    tried = _alternating(addresses)[:ADDRESSES]
    for index, (family, address) in enumerate(tried):
        sock = None
        try:
            # It has no socket for IPv6 where the kernel knows none.
            sock = modules().Socket(family, SOCK_STREAM)
            # One that is silent leaves time for those that follow.
            share_s = left(ends_at, retries.BUDGET_S) / (len(tried) - index)
            sock.settimeout(min(share_s, retries.CONNECT_S))
            sock.connect(address)
            # A request of two segments would else wait 40 ms for the first's ACK.
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError as exc:
            if sock is not None:
                sock.close()
            if by_signal_handler(exc):
                raise
            failure = exc
        else:
            return sock
    raise failure or TimeoutError
