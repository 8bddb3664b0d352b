"""
`client`: a boto3-shaped client that reads without boto3.

The five reads go to AWS by the light transport, through the cache that `cached` and
`Secret` share, and return boto3's response.  What else is asked of the
client makes boto3's own, once, and goes on there: another operation, ``meta``,
a paginator, a waiter, a parameter of another name, type or length, a keyword
that the light transport cannot serve, a profile, a proxy, a default session of the
user's making, moto, a test's stand-in for botocore's method.  So every answer is
boto3's own.  What AWS refuses, and what keeps it from being reached, is raised
as botocore's exception, see `botocore_errors`; a failure that botocore words in its
own way (an answer that is no JSON) is left to boto3's client, which repeats the call.

Threads
    Any number may call.  ``_lock`` is held while boto3's client is made.
"""

from __future__ import annotations

import math
import os
import sys

from .. import config, disclosure
from ..aws import errors
from ..exceptions import ConfigurationError
from ..lifecycle import clock, process
from ..values import keys, settings, store, transforms
from ..values.cache import FRESH, LOADED, Decoded, Entry
from ..values.settings import DEFAULT
from . import operations, tallies
from .tallies import tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NoReturn, overload

    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ssm import SSMClient

    from ..exceptions import LambdaExtError
    from ..typing import Source
    from ..values.cache import View, Want
    from .mixin import State

MAX_VIEWS = 1_000  # of one client: forms of a call that are answered at once
KEYWORDS = {  # of `boto3.client`, in each version that this library allows
    "region_name", "api_version", "use_ssl", "verify", "endpoint_url",
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "config",
}  # fmt: skip
METHODS = {  # of boto3's client -> the operation
    "get_secret_value": keys.SECRET,
    "batch_get_secret_value": operations.BATCH,
    "get_parameter": keys.PARAMETER,
    "get_parameters": operations.MANY,
    "get_parameters_by_path": keys.PATH,
}


if TYPE_CHECKING:
    # As boto3-stubs has them.
    @overload
    def client(
        service_name: Literal["secretsmanager"],
        region_name: str | None = ...,
        api_version: str | None = ...,
        use_ssl: bool | None = ...,
        verify: bool | str | None = ...,
        endpoint_url: str | None = ...,
        aws_access_key_id: str | None = ...,
        aws_secret_access_key: str | None = ...,
        aws_session_token: str | None = ...,
        config: Any = ...,
        aws_account_id: str | None = ...,
    ) -> SecretsManagerClient: ...
    @overload
    def client(
        service_name: Literal["ssm"],
        region_name: str | None = ...,
        api_version: str | None = ...,
        use_ssl: bool | None = ...,
        verify: bool | str | None = ...,
        endpoint_url: str | None = ...,
        aws_access_key_id: str | None = ...,
        aws_secret_access_key: str | None = ...,
        aws_session_token: str | None = ...,
        config: Any = ...,
        aws_account_id: str | None = ...,
    ) -> SSMClient: ...


def client(service_name: str, *args: Any, **keywords: Any) -> Any:
    """
    Return a client as `boto3.client` does, whose reads need no boto3.

    GetSecretValue, BatchGetSecretValue, GetParameter, GetParameters and
    GetParametersByPath are answered from memory where that is fresh (the options
    ``max_age`` and ``max_stale``), else by a signed request of the library's own,
    for which the caller waits.  Anything else loads boto3, once, makes its client
    with the same arguments and goes on there.  Nothing is called by making the
    client, and nothing is loaded, unless a keyword is not one of all versions of
    boto3 from 1.34.

    Args:
        service_name: "secretsmanager" or "ssm".
        *args: What `boto3.client` takes after it: ``region_name`` and so on.
        **keywords: The same by name: ``region_name``, ``endpoint_url``, ``config``,
            ...  With any that the light transport cannot serve the client is boto3's
            from its first call.

    Raises:
        ConfigurationError: another service: use `boto3.client` for it.
        TypeError: boto3's, a keyword that it does not know either; boto3 is loaded
            to tell.

    Source: boto3, ``Session.client``,
    https://docs.aws.amazon.com/boto3/latest/reference/core/session.html
    """
    if service_name not in operations.SERVICES:
        msg = (
            f"lambda_ext.client({disclosure.quoted(service_name)}): only"
            f" {' and '.join(operations.SERVICES)} are served here; use"
            f" boto3.client({disclosure.quoted(service_name)})"
        )
        raise ConfigurationError(msg)
    made = LightClient(service_name, args, keywords)
    if not keywords.keys() <= KEYWORDS:
        # Of newer versions (aws_account_id), or a TypeError: here, not at the first read.
        made._made()
    return made


_STATE = frozenset(
    ("_args", "_index", "_keywords", "_lock", "_methods", "_real", "_region",
     "_service", "_source", "_state")
)  # fmt: skip


class LightClient:
    """A client of one service; not made directly."""

    # The dictionary holds what a user sets, as stand-ins of tests for a method.
    __slots__ = ("__dict__", "__weakref__", *_STATE)

    def __init__(
        self, service: str, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        self._service = service
        self._args = args
        self._keywords = keywords
        self._lock = process.Lock()
        self._region = os.environ.get("AWS_DEFAULT_REGION")  # as boto3's, from now on
        self._real: Any = None
        self._source: Source | None = None
        self._index: dict[Any, View] = {}  # what a hit reads
        self._methods: dict[str, Any] = {}
        self._state: State | None = None

    def __repr__(self) -> str:
        return f"<lambda_ext.client({self._service!r})>"

    @property  # type: ignore[misc]  # for isinstance, as mocks do it
    def __class__(self) -> type:
        """What isinstance takes this for: botocore's client, once that is loaded."""
        module = sys.modules.get("botocore.client")  # or a part of it: it is imported
        return getattr(module, "BaseClient", LightClient)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask; no call of the user's does
            msg = f"{LightClient.__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        method = self._methods.get(name)
        if method is not None:
            return method
        if name == "exceptions" and self._real is None:
            # Only errors need it.
            from . import botocore_errors

            return botocore_errors.Exceptions(self._service, self._made)
        operation = METHODS.get(name, "")
        if operation not in operations.reads_of(self._service):
            return getattr(self._made(), name)

        def read(*args: Any, **parameters: Any) -> Any:
            try:
                arguments = (
                    operation,
                    *parameters.items(),
                    *map(type, parameters.values()),
                )
                view = self._index.get(arguments)
            except TypeError:  # a list
                view = None
            if view is not None and clock.monotonic() + clock.lead < view.until:
                assert view.copy is not None
                if self._real is None and not (args or _is_replaced()):
                    next(tally(operation).hits)
                    return view.copy()
            return self._read(name, operation, args, parameters)

        read.__name__ = name
        self._methods[name] = read
        return read

    def __setattr__(self, name: str, value: Any) -> None:
        """Set *name* here if reads need it, else where boto3's client looks for it."""
        if name in _STATE or name in METHODS:
            object.__setattr__(self, name, value)
        else:
            setattr(self._made(), name, value)

    def __delattr__(self, name: str) -> None:
        if name in METHODS:
            object.__delattr__(self, name)
        else:
            delattr(self._made(), name)

    def close(self) -> None:
        """Close the connections of boto3's client, if there is one."""
        if self._real is not None:
            self._real.close()

    def __dir__(self) -> list[str]:
        return dir(self._made())

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled, as boto3's clients do."""
        msg = f"cannot pickle a client of {self._service!r}: make one where it is used"
        raise TypeError(msg)

    # Reads -------------------------------------------------------------------

    def _read(
        self, name: str, operation: str, args: tuple[Any, ...], parameters: Any
    ) -> Any:
        if self._real is None and not (args or _is_replaced()):
            response = self._from_memory(operation, parameters)
            if response is not None:
                return response
            if errors.isolated_by and self._real is None:
                return self._isolated(name, operation, parameters)
        return getattr(self._made(), name)(*args, **parameters)

    def _isolated(self, name: str, operation: str, parameters: Any) -> Any:
        """Ask boto3's client in a test where no call may leave the process."""
        try:
            made = self._made()
        except Exception as exc:  # no region, say: which the test does not need
            if process.by_signal_handler(exc):
                raise
            failed = exc
        else:
            return getattr(made, name)(**parameters)
        raise errors.isolated(
            self._named(operation, parameters), client=True
        ) from failed

    def _from_memory(self, operation: str, parameters: Any) -> Any:
        """Return the response to a read, loaded if need be; None: ask boto3's client."""
        source = self._source or self._light_source()
        if source is None:
            return None
        read = operations.read(source.scope, operation, parameters)
        if read is None:
            return None
        if not read.single:
            return self._batches(source).call(self, operation, parameters)
        (key,) = read.keys
        changes = operations.ClientWant.changes
        want = operations.ClientWant(
            source,
            key,
            settings.max_age_of(key.operation, DEFAULT, key.label),
            settings.max_stale_of(DEFAULT, key.label),
            changes_before=changes,
        )
        ends_at = store.ends_at(key.operation)
        ((outcome, how),) = store.loader.get([want], ends_at=ends_at)
        if not isinstance(outcome, Entry) and _is_part(outcome):
            # Of a batch in which it was refreshed, say: botocore's error is another.
            ((outcome, how),) = store.loader.get(
                [want], newer_than=math.inf, ends_at=ends_at
            )
        if isinstance(outcome, errors.IsolatedError):  # boto3 may not ask either
            raise errors.isolated(self._named(operation, parameters), client=True)
        if not isinstance(outcome, Entry):
            self._raise(outcome, operation)
            return None
        if outcome.answer.response is None:
            return None
        response = operations.shaped(outcome.answer.response)
        if how == LOADED:
            next(tally(operation).misses)
            if outcome.answer.keep:
                tallies.stored_once(operation, outcome.sequence)
            return response
        next(tally(operation).hits)
        response = operations.marked(response)
        if how == FRESH:
            self._publish(want, outcome, operations.copy_of(response), parameters)
        return response

    def _named(self, operation: str, parameters: Any) -> str:
        return f"{self._service} {operation} {errors.key_of(parameters)!r}"

    def _batches(self, source: Source) -> State:
        """Return what answers reads of many keys."""
        if self._state is None:
            # Only batches need it.
            from .light_batches import LightState

            self._state = LightState(self, source)
        return self._state

    def _raise(self, error: LambdaExtError, operation: str) -> None:
        """Raise what botocore does in the place of *error*, if that is known."""
        if error.wire is None:
            return
        # Only errors need it.
        from . import botocore_errors

        exception = botocore_errors.exception(error.wire, self._service, operation)
        if exception is not None:
            next(tally(operation).misses)
            raise exception

    def _publish(
        self, want: Want, entry: Entry, response: Any, parameters: Any
    ) -> None:
        """Let equal calls find *response* without looking for its key."""
        try:
            operation = want.key.operation
            arguments = (
                operation,
                *parameters.items(),
                *map(type, parameters.values()),
            )
            hash(arguments)
        except TypeError:  # filters
            return
        if len(self._index) >= MAX_VIEWS:
            self._index = {}
        decoded = Decoded(response, transforms.copier(response))
        store.publish(want, entry, decoded, self._index, arguments)

    def _light_source(self) -> Source | None:
        """Return the light source, None where only boto3 can serve this client."""
        region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
        given = {
            **self._keywords,
            **dict(zip(("region_name",), self._args, strict=False)),
        }
        for name, value in given.items():
            if value is not None and (name, value) != ("region_name", region):
                return None
        if len(self._args) > 1 or self._is_elsewhere() or not _is_session_plain():
            return None
        # Avoids 3 ms until a value is read.
        from ..aws.transport import transport

        try:
            found = transport(self._service)
        except ConfigurationError:
            if config.get("transport") == "light":
                raise
            return None  # boto3 says what is wrong, or asks it all the same
        if found.name != "light" or not found.is_current():  # type: ignore[attr-defined]
            return None
        kind = keys.SECRET if self._service == "secretsmanager" else keys.PARAMETER
        store.attach()
        self._source = settings.make_source(kind, "aws")
        return self._source

    def _is_elsewhere(self) -> bool:
        """Say whether the region has changed since the client was made."""
        region = os.environ.get("AWS_DEFAULT_REGION")
        return self._region is not None and self._region != region

    def _made(self) -> Any:
        """Return boto3's own client, cached, made when it is first needed."""
        if self._real is None:
            with self._lock:
                if self._real is None:
                    # Avoids ~250 ms and 40 MB as long as only reads are asked for.
                    from ..aws.boto import default_session
                    from .mixin import cached

                    keywords = self._keywords
                    if (
                        not self._args
                        and keywords.get("region_name") is None
                        and self._is_elsewhere()
                        and _is_session_plain()
                    ):
                        keywords = {**keywords, "region_name": self._region}
                    made = default_session().client(
                        self._service, *self._args, **keywords
                    )
                    self._keep(cached(made))
        return self._real

    def _keep(self, made: Any) -> None:
        """Use *made*, unless a signal handler has made one meanwhile, which is in use."""
        # One step: unlike `__setattr__` the slot's own setter is C code.
        if self._real is None:
            _set_real(self, made)
        if self._real is not made:
            made.close()


_set_real: Any = LightClient.__dict__["_real"].__set__


_MODULES = (
    "botocore.client", "botocore.client", "botocore.endpoint", "botocore.httpsession",
)  # fmt: skip
_genuine: tuple[Any, ...] = ()  # methods that were found to be botocore's


def _is_replaced() -> bool:
    """Say whether a test has put something in the place of botocore's calls."""
    botocore = sys.modules.get("botocore.client")
    if botocore is None:
        return False
    moto = sys.modules.get("moto.core.models")
    if moto is not None and getattr(moto.botocore_stubber, "enabled", False):
        return True
    global _genuine
    try:
        client = botocore.BaseClient
        endpoint = sys.modules["botocore.endpoint"].Endpoint
        session = sys.modules["botocore.httpsession"].URLLib3Session
    except (AttributeError, KeyError):  # another thread is importing it
        return False
    methods = (
        client._make_api_call, client._make_request, endpoint.make_request,
        session.send,
    )  # fmt: skip
    if methods == _genuine:
        return False
    if not all(map(operations.is_botocores, methods, _MODULES)):
        return True
    _genuine = methods
    return False


def _is_session_plain() -> bool:
    """Say whether boto3's default session takes everything from the environment."""
    session = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None)
    if session is None:
        return True
    core = getattr(session, "_session", None)
    given = getattr(core, "_session_instance_vars", True)
    credentials = getattr(core, "_credentials", None)
    return not given and getattr(credentials, "method", "env") == "env"


def _is_part(error: LambdaExtError) -> bool:
    """Say whether *error* is what a batch said of one of its names."""
    return error.wire is not None and error.wire.kind == "part"
