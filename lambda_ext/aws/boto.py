"""
The transport over boto3, which is loaded when it is first called.

It serves what the light client leaves out, clients and sessions of the user's
own, and programs that instrument botocore.

boto3's own client waits 60 s for an answer and retries by itself.  Here it
asks once, with short time-outs, and `retries` decides what comes next, as for
the light client.  A client of the user's own keeps its own habits.  Neither
can be told a deadline, and no look-up of a name can: so each attempt runs on a
thread of its own, with the caller's context, and is left there when time is up.

Threads
    ``_lock`` is held while the client is made, since making one is not
    thread-safe; clients are.  A forked child and a restored snapshot make
    their own, for connections and credentials do not survive either.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref

from .. import config as options
from ..disclosure import forget_variables, printable
from ..exceptions import ConfigurationError, LambdaExtError, SourceError
from ..lifecycle import process
from ..lifecycle.process import by_signal_handler
from . import errors, regions, retries, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")


_made: weakref.WeakSet[Any] = weakref.WeakSet()  # the clients of this library itself
_own = threading.local()  # .working: this thread asks, or makes a client, for us


class Boto(retries.Retrying):
    """The transport of one service over a client of boto3, for some *reason*."""

    __slots__ = (
        "_client",
        "_given",
        "_in_the_clear",
        "_lock",
        "_reason",
        "_scope",
        "_session",
    )

    name = "boto3"

    def __init__(
        self,
        service: str,
        client: Any = None,
        session: Any = None,
        *,
        reason: str = "",
        in_the_clear: bool = False,
    ) -> None:
        # A client of the user's own has been told how often to try.
        super().__init__(service, retries.ATTEMPTS if client is None else 1)
        self._client = client
        self._given = client is not None
        self._session = session
        self._reason = reason
        self._in_the_clear = in_the_clear  # the user has said so
        self._lock = process.Lock()
        self._scope: tuple[object, ...] | None = None

    def __repr__(self) -> str:
        return f"<transport {self.service} through boto3>"

    @property
    def scope(self) -> tuple[object, ...]:
        """What the answers depend on besides the request; makes the client."""
        if self._scope is None:
            self._scope = scope_of(self.service, self.client())
        return self._scope

    def client(self, key: str = "") -> Any:
        """
        Return the client, made at the first call, which asks for *key*.

        A signal handler that asks while it is made gets one at once, which stays.
        """
        client = self._client
        if client is None:
            with self._lock:
                client = self._client
                if client is None:
                    client = self._kept(translated(self._new, self.service, key))
        return client

    def _kept(self, made: Any) -> Any:
        """Return what a signal handler has made meanwhile, or else *made*."""
        # One step.
        client = self._client
        if client is None:
            self._client = client = made
        if client is not made:
            made.close()
        return client

    def _new(self) -> Any:
        client = _new_client(self.service, self._session, self._reason)
        if not self._in_the_clear:  # which a configuration file may say, too
            try:
                regions.refuse_in_the_clear(client.meta.endpoint_url)
            except ConfigurationError:
                client.close()
                raise
        return client

    def attempt(
        self, operation: str, parameters: Mapping[str, Any], left_s: float
    ) -> dict[str, Any]:
        """Ask AWS once, within *left_s* seconds."""
        key = errors.key_of(parameters)

        def ask() -> dict[str, Any]:
            client = self.client(key)
            if errors.isolated_by:
                isolate(client)
            return translated(
                lambda: _ask(client, operation, parameters),
                self.service,
                key,
                client.meta.region_name,
            )

        return _within(left_s, ask, service=self.service, key=key)

    def close(self) -> None:
        """Close the connections; the next call makes a new client."""
        if not self._given:
            client, self._client = self._client, None
            if client is not None:
                client.close()

    def forked(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""
        if not self._given:
            self._client = None


class _Inside:
    """The HTTP session of a client, which sends nothing while a test forbids it."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """Send *request*; what moto answers never gets here."""
        if errors.isolated_by:
            raise errors.isolated(str(getattr(request, "url", "")).partition("?")[0])
        return self._session.send(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def isolate(client: Any) -> None:
    """Have *client* send nothing while a double of `lambda_ext.testing` is entered."""
    endpoint = getattr(client, "_endpoint", None)
    session = getattr(endpoint, "http_session", None)
    if session is not None and not isinstance(session, _Inside):
        endpoint.http_session = _Inside(session)  # type: ignore[union-attr]


def scope_of(service: str, client: Any) -> tuple[object, ...]:
    """Return what the answers of *client* depend on besides the request."""
    signer = getattr(client, "_request_signer", None)
    credentials: Any = getattr(signer, "_credentials", None)
    # The static kind has no identity but the key; the others renew themselves.
    static = type(credentials).__name__ == "Credentials"
    identity = credentials.access_key if static else credentials
    if identity is None:  # of a stand-in: two of them may be of two accounts
        identity = client
    meta = client.meta
    return (service, meta.region_name, meta.endpoint_url, identity)


def translated(
    function: Callable[[], T], service: str, key: str = "", region: str = ""
) -> T:
    """Return what *function* does; what botocore raises becomes an error of ours."""
    try:
        return function()
    except errors.IsolatedError:
        cause = None
        error: LambdaExtError = errors.isolated(f"{service} {key!r}", service)
    except LambdaExtError:
        raise
    except Exception as exc:
        if by_signal_handler(exc):
            raise
        forget_variables(exc)
        error = translation(exc, service, key, region)
        cause = exc if _may_be_shown(exc) else None
    # Not in the clause above: as the context it would keep what is not shown.
    raise error from cause


def _may_be_shown(exc: Exception) -> bool:
    """
    Say whether *exc*, with all that it was raised from, quotes no answer.

    Of a body that is no JSON botocore makes a message, with the status as its
    code; what Python raises over one may hold it, as UnicodeDecodeError does;
    and what breaks a connection may be bytes, as in a bad status line.
    """
    # The module is loaded by now, since it raised.
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return _is_understood(exc)
    over_bytes = isinstance(
        exc, (botocore.ConnectionClosedError, botocore.ResponseStreamingError)
    )
    if over_bytes or type(exc) is botocore.HTTPClientError:
        return False
    return isinstance(exc, botocore.BotoCoreError)


def _is_understood(exc: Any) -> bool:
    """Say whether the body of the answer was JSON, and told what is wrong."""
    headers = exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if "x-amzn-errortype" in headers:  # then the code says nothing about the body
        return "json" in headers.get("content-type", "")
    return errors.is_from_body(str(exc.response.get("Error", {}).get("Code", "")))


def _maker() -> Any:
    """Return what makes clients without a session of the user's."""
    try:
        return _Maker(default_session().client)
    except RuntimeError:  # Python is ending, and what boto3 needs for S3 starts no pool
        from botocore.session import Session

        return _Maker(Session().create_client)


class _Maker:
    """Makes clients as `boto3.client` does; the region is decided elsewhere."""

    def __init__(self, client: Callable[..., Any]) -> None:
        self.client = client


def _new_client(service: str, session: Any, reason: str) -> Any:
    try:
        maker = _maker() if session is None else session
        from botocore import exceptions
        from botocore.config import Config
    except ModuleNotFoundError as exc:
        msg = (
            f"{service} needs boto3 ({reason}), and there is no module {exc.name!r}:"
            " put boto3 into the package of the function (pip install boto3)"
        )
        raise ConfigurationError(msg) from exc

    config = Config(
        connect_timeout=retries.CONNECT_S,
        read_timeout=retries.READ_S,
        retries={"mode": "standard", "total_max_attempts": 1},
        parameter_validation=False,  # AWS judges, as it does for the light client
    )
    region = getattr(maker, "region_name", None) or os.environ.get("AWS_DEFAULT_REGION")
    if service == "appconfigdata":
        region = options.get("appconfig_region") or region
    if not region:  # which boto3 itself does not read; else the profile decides
        region = os.environ.get("AWS_REGION")
    former = is_own()  # a signal handler may ask in the middle
    try:
        _own.working = True
        made = maker.client(service, config=config, region_name=region or None)
        with contextlib.suppress(TypeError):  # a stand-in of a test
            _made.add(made)
        return made
    except exceptions.InvalidRegionError as exc:
        variable, name = regions.named_region()
        reason = str(exc)
        if name == region:
            reason = f"{variable}={printable(name, 100)!r} is not the name of a region"
    except ValueError as exc:  # an endpoint that is no URL, for example
        reason = regions.without_password(str(exc))
    finally:
        _own.working = former
    # Outside of `except`: else the chain would hold a password in a URL.
    msg = f"boto3 makes no client for {service}: {printable(reason)}"
    raise ConfigurationError(msg)


def default_session() -> Any:
    """
    Return boto3's default session, as `boto3.client` uses it.

    Not through that function itself, which a program may have replaced by
    `lambda_ext.client`.
    """
    # Avoids ~250 ms and 43 MB wherever the light client does.
    import boto3

    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    return boto3.DEFAULT_SESSION


def is_of_the_library(client: Any) -> bool:
    """Say whether *client* is one that this library has made for itself."""
    return client in _made


def is_own() -> bool:
    """Say whether this thread asks, or makes a client, for this library itself."""
    return getattr(_own, "working", False)


def _ask(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    # The module is loaded by now, since there is a client.
    from botocore import xform_name

    method = getattr(client, xform_name(operation), None)
    if method is None:
        msg = f"this boto3 does not know {operation} yet: upgrade boto3"
        raise errors.UnknownOperationError(msg)
    try:
        _own.working = True
        answer: Any = method(**parameters)
    finally:
        _own.working = False
    if not isinstance(answer, dict):  # of a stand-in, which may know other operations
        kind = type(answer).__name__
        msg = f"client= answers {operation} with {kind}, not with a dictionary"
        raise errors.UnknownOperationError(msg)
    body: Any = answer.get("Configuration")
    if hasattr(body, "read"):  # a stream, which can be read only once
        return {**answer, "Configuration": body.read()}
    return answer


def _within(
    left_s: float, ask: Callable[[], dict[str, Any]], *, service: str, key: str
) -> dict[str, Any]:
    """Return what *ask* returns on a thread of its own, in *left_s* seconds."""
    # Only needed here: calls of the light client have no thread.
    import contextvars

    context = contextvars.copy_context()  # traces follow the request
    try:
        return waiting.within(left_s, lambda: context.run(ask), "lambda_ext_boto3")
    except LambdaExtError:  # a SourceTimeoutError is a TimeoutError
        raise
    except TimeoutError as exc:
        if by_signal_handler(exc):
            raise
        reason = str(exc) or f"AWS did not answer within {left_s:.3g} s"
    raise errors.too_late(reason, service=service, key=key)


def translation(
    exc: Exception, service: str, key: str, region: str = ""
) -> LambdaExtError:
    """Return the error of this library that *exc*, of botocore or Python, means."""
    # The module is loaded by now, since it raised.
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return _service_error(exc, service, key, region)
    if isinstance(exc, botocore.NoRegionError):
        return errors.no_region(service, key)
    if isinstance(exc, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return errors.no_credentials(service, key, str(exc))
    if isinstance(exc, botocore.ParamValidationError):
        return errors.from_code(
            "ValidationException", str(exc), service=service, key=key
        )
    if isinstance(exc, (botocore.ConnectTimeoutError, botocore.ReadTimeoutError)):
        return errors.too_late("AWS did not answer in time", service=service, key=key)
    if isinstance(exc, botocore.ConnectionError):
        # Up to the query, which may hold a token of AppConfig's.
        reason = str(exc).partition("?")[0]
        return errors.unreachable(reason, service=service, key=key)
    if isinstance(
        exc,
        (
            botocore.CredentialRetrievalError,
            botocore.HTTPClientError,
            botocore.MetadataRetrievalError,
        ),
    ):
        return errors.unreachable(type(exc).__name__, service=service, key=key)
    if isinstance(exc, botocore.BotoCoreError):
        return ConfigurationError(f"boto3 cannot be used for {service}: {exc}")
    # botocore's parsers raise any of Python's exceptions on a body that is no answer.
    return errors.unreadable(type(exc).__name__, service=service, key=key)


def _service_error(exc: Any, service: str, key: str, region: str) -> SourceError:
    error = exc.response.get("Error", {})
    metadata = exc.response.get("ResponseMetadata", {})
    text = str(error.get("Message", "")) + errors.problems(exc.response)
    translation = errors.from_code(
        str(error.get("Code", "")),
        text if _is_understood(exc) else "",
        service=service,
        key=key,
        status=metadata.get("HTTPStatusCode", 0),
        region=region,
    )
    headers = metadata.get("HTTPHeaders", {})
    translation.retry_after_s = retries.retry_after(headers.get("retry-after"))
    return translation
