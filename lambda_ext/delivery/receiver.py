"""
An HTTP address that takes what a sink or a log destination sends.

Address and headers may be a `Secret`, or anything else with ``value`` and
``invalidate()``: they are read when they are needed, and once more where the
receiver answers 401 or 403, since such keys are rotated.

Guarantees
    A key goes over verified TLS only, or to this machine, and into no message,
    log line or repr; neither does a URL, which may be a key itself.
    Where reading a key raises, or takes too long, no record is lost: the key is read
    again with the next attempt.
    429, 502, 503, 504 and broken connections are for another attempt, with the
    pause that the receiver asks for; 2xx is final; everything else is refused.
    A request whose answer is late is not sent a second time: the next attempt
    with the same body waits for that answer, until the time-out of one request
    has passed.

Source: OTLP/HTTP, "Failures",
https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import contextlib
import zlib

from ..aws import (
    connections,
    credentials,
    http1,
    regions,
    retries,
    signing,
    tls,
    waiting,
)
from ..disclosure import shown
from ..exceptions import ConfigurationError, LambdaExtError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from .queue import RefusedError, RetryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Handle(Protocol):
        """A value that is read when it is needed: a `Secret`, a `Parameter`."""

        @property
        def value(self) -> str:
            """Return the value."""
            ...

        def invalidate(self) -> None:
            """Forget it, so that the next `value` is new."""
            ...

    Text = str | Handle | Callable[[], str]


WORTH_GZIP = 1_000  # bytes
# Headers that hold nothing but a key.
KEYS = frozenset(("api-key", "authorization", "dd-api-key", "x-sf-token"))
LONGEST_S = 86_400  # that a request, or a pause, may take
TIMEOUT_S = 10.0  # of one request
PASSING = (429, 502, 503, 504)
DENIED = (401, 403)


def seconds(argument: str, given: Any, *, zero: bool = False) -> float:
    """
    Return *given* seconds: above 0, or with *zero* from 0 on; a day at most.

    Raises:
        ConfigurationError: it is no such number.
    """
    if (
        not isinstance(given, (int, float))
        or isinstance(given, bool)
        or not (given > 0 or (zero and given == 0))
        or given > LONGEST_S
    ):
        least = "from 0 on" if zero else "above 0"
        msg = (
            f"{argument}={shown(given)} must be a number of seconds {least},"
            f" {LONGEST_S:,} at most"
        )
        raise ConfigurationError(msg)
    return float(given)


class Receiver:
    """
    Takes POST requests at *url*.

    Args:
        name: What messages call the sink or destination.
        url: The whole URL, or what has one as its ``value``.
        headers: Names and values; a value may be read when it is needed, too.
        content_type: Of the bodies; "" is that among the headers.
        compressed: Whether bodies of a kilobyte and more are sent as gzip; never
            where they are signed.
        timeout: Seconds that one request may take.
        sign: The service whose SigV4 signature a request needs, "" for none.
        region: For the signature; "" is the function's.
        clear: Whether plain HTTP may go to another machine; never with headers.
        certificate: The path of a file with the certificates to trust; "" for
            those of the machine.
        client: The paths of the files with the certificate that this end shows,
            and with its key; ("", "") for none.
        passing: Statuses after which the same body is sent again, later.

    Raises:
        ConfigurationError: one of these cannot be used; the message quotes no
            URL and no header's value.
    """

    __slots__ = (
        "_asked", "_certificate", "_clear", "_client", "_compressed", "_connections",
        "_content_type",
        "_passing", "_region", "_sign", "_timeout", "_url", "given", "headers", "name",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        url: Text,
        *,
        headers: Mapping[str, Text] | None = None,
        content_type: str = "application/json",
        compressed: bool = True,
        timeout: float = TIMEOUT_S,
        sign: str = "",
        region: str = "",
        clear: bool = False,
        certificate: str = "",
        client: tuple[str, str] = ("", ""),
        passing: tuple[int, ...] = PASSING,
    ) -> None:
        self.name = name
        self.given = url
        check_text(f"the address of the sink {shown(name)}", url)
        self.headers = lowered(headers)
        for key, value in self.headers.items():
            check_header(key, value if isinstance(value, str) else "")
            check_text(f"the header {key!r} of the sink {name!r}", value)
            if key in KEYS and isinstance(value, str) and not _key_in(value):
                msg = f"the key in the header {key!r} of the sink {name!r} is empty"
                raise ConfigurationError(msg)
        self._content_type = content_type
        self._compressed = compressed
        self._timeout = timeout
        self._sign = sign
        self._region = region
        self._clear = clear
        self._certificate = certificate
        self._client = client
        self._passing = passing
        self._connections: connections.Connections | None = None
        # A body whose answer has not come yet, on which connection, until when
        # (house time) it is waited for.
        self._asked: tuple[bytes, connections.Connection, float] | None = None
        self._url = ""
        if isinstance(url, str):
            self._parsed(url)

    def __repr__(self) -> str:
        return f"<Receiver of {self.name!r}>"

    def post(self, body: bytes, ends_at: float) -> http1.Response:
        """
        Send *body* before the run time *ends_at*, and return the answer.

        Once, or twice if the key was refused and could be read anew.

        Raises:
            RetryError: it was not taken, and may be later.
            RefusedError: it was refused for good.
        """
        ends_at = min(ends_at, clock.monotonic() + self._timeout)
        response = self._posted(body, ends_at)
        if response.status in DENIED and self._renewed(ends_at):
            response = self._posted(body, ends_at)
        status = response.status
        if 200 <= status < 300:
            return response
        if status in self._passing:
            raise RetryError(f"HTTP {status}", pause_s(response.headers))
        raise RefusedError(f"HTTP {status}")

    def close(self) -> None:
        """Close the connections; the next request opens one."""
        self._forget_asked()
        if not isinstance(self.given, str):
            self._url = ""  # which may be a key: none stays in a snapshot
        if self._connections is not None:
            self._connections.close()

    def forked(self) -> None:
        """Leave the connections to the parent."""
        self._forget_asked()
        self._connections = None
        self._url = ""

    def __del__(self) -> None:
        waiting = getattr(self, "_asked", None)
        if waiting is not None:
            waiting[1].close()

    def _posted(self, body: bytes, ends_at: float) -> http1.Response:
        """Send *body* once; a transient failure is a RetryError without a chain."""
        reason = ""
        try:
            url = _read(self.given, ends_at)
            if url != self._url or self._connections is None:
                self._parsed(url)
            headers = {
                key: _read(value, ends_at) for key, value in self.headers.items()
            }
            for key, value in headers.items():
                check_header(key, value)
            return self._answer(body, headers, ends_at)
        except ConfigurationError as exc:
            reason = str(exc)
        except LambdaExtError as exc:  # of the keys to sign with
            reason = f"its key cannot be read: {type(exc).__name__}"
        except TimeoutError as exc:
            if by_signal_handler(exc):
                raise
            reason = "no answer in time"
            if self._asked is not None:  # it is waited for at once the next time
                raise RetryError(reason, 0.0) from None
        except http1.ProtocolError as exc:
            reason = str(exc)
        except (credentials.MissingError, credentials.UnavailableError):
            reason = "no credentials to sign with"
        except OSError as exc:
            if by_signal_handler(exc):
                raise
            reason = exc.strerror or type(exc).__name__
        raise RetryError(reason)

    def _answer(
        self, body: bytes, headers: dict[str, str], ends_at: float
    ) -> http1.Response:
        """
        Return the answer to *body*, which is sent unless it is on its way already.

        A TimeoutError leaves its connection open where the whole of it was sent.
        """
        assert self._connections is not None
        waiting, self._asked = self._asked, None
        now = clock.now()
        if waiting is not None:
            former, connection, until = waiting
            if former != body:  # which was dropped meanwhile
                connection.close()
            else:
                left_s = max(until - now, 0.0)
                try:
                    return self._connections.resume(
                        connection, min(ends_at, clock.monotonic() + left_s)
                    )
                except TimeoutError:
                    if clock.now() < until:
                        self._asked = waiting
                    else:
                        connection.close()
                    raise
        asked: list[connections.Connection] = []
        try:
            return self._connections.exchange(
                lambda: self._request(body, headers, ends_at), ends_at, asked
            )
        except TimeoutError:
            until = now + self._timeout
            if asked and clock.now() < until:
                self._asked = (body, asked[0], until)
            elif asked:
                asked[0].close()
            raise

    def _forget_asked(self) -> None:
        waiting, self._asked = self._asked, None
        if waiting is not None:
            waiting[1].close()

    def _request(self, body: bytes, headers: dict[str, str], ends_at: float) -> bytes:
        endpoint, query = endpoint_of(self._url, self.name)
        path = endpoint.path or "/"
        all_headers = {"host": endpoint.authority, **headers}
        if self._content_type:
            all_headers["content-type"] = self._content_type
        if self._sign:
            # Not compressed: CloudWatch's answer to gzip under a signature is open.
            all_headers.update(self._signed(path, query, all_headers, body, ends_at))
        elif self._compressed and len(body) >= WORTH_GZIP:
            body = gzipped(body)
            all_headers["content-encoding"] = "gzip"
        all_headers["content-length"] = str(len(body))
        all_headers["user-agent"] = "lambda-ext"
        target = f"{path}?{query}" if query else path
        lines = [f"POST {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in all_headers.items()]
        return "\r\n".join((*lines, "", "")).encode("latin-1") + body

    def _signed(
        self,
        path: str,
        query: str,
        headers: dict[str, str],
        body: bytes,
        ends_at: float,
    ) -> dict[str, str]:
        """Return the headers that sign the request, made when it is sent."""
        provider = credentials.provider()
        if provider is None:
            raise credentials.MissingError
        keys = provider.keys(ends_at)
        signed = {"x-amz-date": signing.timestamp(signing.skew_s)}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        signed["authorization"] = signing.authorization(
            "POST",
            path,
            query,
            {**headers, **signed},
            body,
            keys=keys,
            region=self._region or regions.region(self._sign),
            service=self._sign,
        )
        return signed

    def _renewed(self, ends_at: float) -> bool:
        """Make the next request read the key anew; False: no key can be read anew."""
        if self._sign:
            try:
                provider = credentials.provider()
                return provider is not None and provider.renewed(
                    provider.keys(ends_at), ends_at
                )
            except (credentials.MissingError, credentials.UnavailableError):
                pass
            raise RetryError("no credentials to sign with")
        handles = [
            value
            for value in (self.given, *self.headers.values())
            if not isinstance(value, str)
        ]
        for handle in handles:
            try:
                _forget(handle)
            except Exception as exc:  # of a handle of the user's
                if by_signal_handler(exc):
                    raise
                reason = f"its key cannot be read: {type(exc).__name__}"
                raise RetryError(reason) from None
        return bool(handles)

    def _parsed(self, url: str) -> None:
        """Make ready to send to *url*, or say what is wrong with it."""
        endpoint, _ = endpoint_of(url, self.name)
        plain = not (endpoint.tls or endpoint.local)
        if plain and (not self._clear or self.headers):
            msg = (
                f"the sink {self.name!r} would send in the clear to another machine:"
                " use https; only a collector that needs no key may do without"
            )
            raise ConfigurationError(msg)
        self._forget_asked()  # of another address
        former, self._connections = (
            self._connections,
            connections.Connections(
                endpoint,
                stores=_trusted(self._certificate, self._client),
                clear=self._clear,
            ),
        )
        self._url = url
        if former is not None:
            former.close()


class Derived:
    """What is made of another address or key, which is read when it is needed."""

    __slots__ = ("given",)

    def __init__(self, given: Text) -> None:
        self.given = given

    def invalidate(self) -> None:
        """Make the next read of it read the secret anew."""
        _forget(self.given)


class Prefixed(Derived):
    """A key with text before it: "Splunk KEY"."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str, given: Text) -> None:
        super().__init__(given)
        self._prefix = prefix

    def __repr__(self) -> str:
        return f"<{self._prefix.strip()} ...>"

    @property
    def value(self) -> str:
        """Return the whole header."""
        return self._prefix + text(self.given)


# What was given --------------------------------------------------------------


def pause_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for, as a number or as a date."""
    after = headers.get("retry-after", "").strip()
    until = signing.date(after)
    if until is None:
        return retries.retry_after(after)
    now = signing.date(headers.get("date", ""))  # by the receiver's own clock
    return max(until - (clock.wall() if now is None else now), 0.0)


def gzipped(body: bytes) -> bytes:
    """Return *body* as gzip; the module of that name costs 1.3 ms."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def text(given: Any) -> str:
    """Return *given*, or what it has as its value now."""
    value = given if isinstance(given, str) else None
    if value is None:
        value = given() if callable(given) else given.value
    if not isinstance(value, str):
        msg = "a key or an address of a sink is not text"
        raise ConfigurationError(msg)
    return value


def _read(given: Any, ends_at: float) -> str:
    """
    Return what *given* has as its value now; on a thread, since it may take long.

    Raises:
        RetryError: it cannot be read, or not before the run time *ends_at*.
    """
    if isinstance(given, str):
        return given

    def read() -> tuple[str, str]:
        try:
            return text(given), ""
        except ConfigurationError as exc:
            return "", str(exc)
        except BaseException as exc:  # SystemExit too, of a function of the user's
            if by_signal_handler(exc):
                raise
            return "", f"its key cannot be read: {type(exc).__name__}"

    left_s = ends_at - clock.monotonic()
    try:
        value, reason = waiting.within(left_s, read, "lambda_ext_key")
    except TimeoutError as exc:
        if by_signal_handler(exc):
            raise
        value, reason = "", "its key cannot be read in time"
    if reason:
        raise RetryError(reason)
    return value


def _trusted(
    certificate: str, client: tuple[str, str]
) -> Callable[[str], tuple[str, ...]]:
    """Return what says whom to trust: the machine's whole store, or a file."""

    def stores(host: str) -> tuple[str, ...]:
        store = certificate or tls.SYSTEM
        return (tls.with_client(store, *client) if any(client) else store,)

    return stores


def _forget(handle: Any) -> None:
    """Invalidate *handle*, if it can be invalidated."""
    forget = getattr(handle, "invalidate", None)
    if forget is not None:
        forget()


def check_text(what: str, given: Any) -> None:
    """Refuse, unquoted and unread, what is neither text nor has any to be read."""
    while isinstance(given, Derived):
        given = given.given
    kind = type(given)
    if (
        isinstance(given, str)
        or callable(given)
        or hasattr(kind, "value")  # of the class: to ask the object is to read it
        or hasattr(kind, "__getattr__")
        or "value" in getattr(given, "__dict__", ())
    ):
        return
    msg = (
        f"{what} is text, a Secret or a function that returns text, and not"
        f" {'None' if given is None else kind.__name__}"
    )
    raise ConfigurationError(msg)


def lowered(headers: Any) -> dict[str, Any]:
    """Return *headers* with names in lower case."""
    if headers is None:
        return {}
    try:
        return {name.lower(): value for name, value in headers.items()}
    except Exception as exc:  # of an object of the user's, which may raise any
        if by_signal_handler(exc):
            raise
    msg = "headers= takes names and values, such as {'x-api-key': Secret('key')}"
    raise ConfigurationError(msg)


def endpoint_of(url: str, name: str) -> tuple[regions.Endpoint, str]:
    """Return the endpoint at *url* and its query; the error for a bad URL quotes none."""
    address, _, query = url.partition("?")
    endpoint = None
    with contextlib.suppress(ConfigurationError):  # quotes the URL, maybe a key
        endpoint = regions.parse(address)
    plain = query.isascii() and query.isprintable() and not {" ", "#"} & {*query}
    if endpoint is None or not (plain or not query):
        msg = (
            f"the endpoint of the sink {name!r} is no URL such as"
            " https://example.com/path"
        )
        raise ConfigurationError(msg)
    return endpoint, query


def check_header(name: str, value: str) -> None:
    """Refuse what cannot be a header, without quoting its value."""
    token = name.encode("utf-8", "replace")
    if not token or token.translate(None, http1.TOKEN):
        begin = len(token) - len(token.lstrip(http1.TOKEN))  # the rest may be a key
        msg = f"{name[:begin][:80]!r} cannot be the name of a header"
        if token[begin:]:
            msg += (
                f": there is {token[begin : begin + 1].decode('latin-1')!r} behind it"
            )
        raise ConfigurationError(msg)
    latin = value.encode("latin-1", "replace")
    if latin.decode("latin-1") != value or len(
        latin.translate(None, http1.CONTROL)
    ) != len(latin):
        msg = f"the value of the header {name!r} has characters that none may have"
        raise ConfigurationError(msg)


def _key_in(value: str) -> str:
    """Return the key in the header *value*, which may name its scheme first."""
    return value.removeprefix("Splunk ").strip()


def label(argument: str, value: str) -> str:
    """Return *value*, which becomes part of a host name."""
    known: object = value  # not every caller checks types
    plain = value.replace("-", "").replace(".", "") if isinstance(known, str) else ""
    if (
        not (plain.isascii() and plain.isalnum())
        or value[0] in "-."
        or value[-1] in "-."
    ):
        msg = f"{argument}={shown(value)} cannot be part of a host name"
        raise ConfigurationError(msg)
    return value
