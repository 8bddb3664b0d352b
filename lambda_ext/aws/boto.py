"""
The way to AWS through boto3, which is loaded when first called.

It is the way for everything that the light client leaves out, for clients and
sessions of the user's own, and for whoever instruments botocore.

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

from ..exceptions import ConfigurationError, LambdaExtError, SourceError
from . import errors, retries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any


class Boto(retries.Retrying):
    """The transport of one service over a client of boto3."""

    __slots__ = ("_client", "_given", "_lock", "_scope", "_session")

    name = "boto3"

    def __init__(self, service: str, client: Any = None, session: Any = None) -> None:
        # A client of the user's own has been told how often to try.
        super().__init__(service, retries.ATTEMPTS if client is None else 1)
        self._client = client
        self._given = client is not None
        self._session = session
        self._lock = threading.Lock()
        self._scope: tuple[object, ...] | None = None

    def __repr__(self) -> str:
        return f"<transport {self.service} through boto3>"

    @property
    def scope(self) -> tuple[object, ...]:
        """What the answers depend on besides the request; makes the client."""
        if self._scope is None:
            self._scope = scope_of(self.service, self.client())
        return self._scope

    def client(self) -> Any:
        """Return the client, made at the first call."""
        client = self._client
        if client is None:
            with self._lock, translated(self.service):
                client = self._client
                if client is None:
                    client = self._client = _new_client(self.service, self._session)
        return client

    def attempt(
        self, operation: str, parameters: Mapping[str, Any], left_s: float
    ) -> dict[str, Any]:
        """Ask AWS once, within *left_s* seconds."""
        key = errors.key_of(parameters)

        def ask() -> dict[str, Any]:
            client = self.client()
            with translated(self.service, key):
                return _ask(client, operation, parameters)

        return _within(left_s, ask, service=self.service, key=key)

    def close(self) -> None:
        """Close the connections; the next call makes a new client."""
        if not self._given:
            client, self._client = self._client, None
            if client is not None:
                client.close()

    def forked(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""
        self._lock = threading.Lock()
        if not self._given:
            self._client = None


def scope_of(service: str, client: Any) -> tuple[object, ...]:
    """Return what the answers of *client* depend on besides the request."""
    signer = getattr(client, "_request_signer", None)
    credentials: Any = getattr(signer, "_credentials", None)
    # The static kind has no identity but the key; the others renew themselves.
    static = type(credentials).__name__ == "Credentials"
    identity = credentials.access_key if static else credentials
    meta = client.meta
    return (service, meta.region_name, meta.endpoint_url, identity)


@contextlib.contextmanager
def translated(service: str, key: str = "") -> Iterator[None]:
    """Turn what boto3 and botocore raise into the errors of this library."""
    try:
        yield
    except LambdaExtError:
        raise
    except Exception as exc:
        raise _translation(exc, service, key) from exc


def _new_client(service: str, session: Any) -> Any:
    # Avoids ~250 ms and 43 MB wherever the light client does.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=retries.CONNECT_S,
        read_timeout=retries.READ_S,
        retries={"mode": "standard", "total_max_attempts": 1},
        parameter_validation=False,  # AWS judges, as it does for the light client
    )
    maker = boto3 if session is None else session
    region = getattr(maker, "region_name", None) or os.environ.get("AWS_DEFAULT_REGION")
    if not region:  # which boto3 itself does not read; else the profile decides
        region = os.environ.get("AWS_REGION")
    try:
        return maker.client(service, config=config, region_name=region or None)
    except ValueError as exc:  # an endpoint that is no URL, for example
        msg = f"boto3 makes no client for {service}: {exc}"
        raise ConfigurationError(msg) from exc


def _ask(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    # The module is loaded by now, since there is a client.
    from botocore import xform_name

    method = getattr(client, xform_name(operation), None)
    if method is None:
        msg = f"this boto3 does not know {operation} yet: upgrade boto3"
        raise ConfigurationError(msg)
    answer: dict[str, Any] = method(**parameters)
    body: Any = answer.get("Configuration")
    if hasattr(body, "read"):  # a stream, which can be read only once
        answer = {**answer, "Configuration": body.read()}
    return answer


def _within(
    left_s: float, ask: Callable[[], dict[str, Any]], *, service: str, key: str
) -> dict[str, Any]:
    """Return what *ask* returns on a thread of its own, in *left_s* seconds."""
    # Avoids its cost for whoever never comes here.
    import contextvars

    answers: list[dict[str, Any]] = []
    failures: list[BaseException] = []
    context = contextvars.copy_context()  # traces follow the request

    def body() -> None:
        try:
            answers.append(context.run(ask))
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=body, name="lambda_ext-boto3", daemon=True)
    thread.start()
    thread.join(left_s)
    if answers:
        return answers[0]
    if failures:
        raise failures[0]
    raise errors.too_late(
        f"AWS did not answer within {left_s:.3g} s", service=service, key=key
    )


def _translation(exc: Exception, service: str, key: str) -> LambdaExtError:
    # The module is loaded by now, since it raised.
    from botocore import exceptions as botocore

    if isinstance(exc, botocore.ClientError):
        return _service_error(exc, service, key)
    if isinstance(exc, botocore.NoRegionError):
        return errors.no_region()
    if isinstance(exc, (botocore.NoCredentialsError, botocore.PartialCredentialsError)):
        return errors.no_credentials(str(exc))
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
    # botocore's parsers raise whatever Python does on a body that is no answer.
    return errors.unreadable(type(exc).__name__, service=service, key=key)


def _service_error(exc: Any, service: str, key: str) -> SourceError:
    error = exc.response.get("Error", {})
    metadata = exc.response.get("ResponseMetadata", {})
    translation = errors.from_code(
        str(error.get("Code", "")),
        str(error.get("Message", "")) + errors.problems(exc.response),
        service=service,
        key=key,
        status=metadata.get("HTTPStatusCode", 0),
    )
    headers = metadata.get("HTTPHeaders", {})
    translation.retry_after_s = retries.retry_after(headers.get("retry-after"))
    return translation
