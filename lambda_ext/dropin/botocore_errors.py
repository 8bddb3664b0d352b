"""
botocore's exceptions for what failed without botocore, and ``client.exceptions``.

boto3 makes a class for each error that a service model names, per session.  Here
there is one of each name for the process, made when it is first asked for,
without a service model: `botocore.exceptions` is all that is loaded.  From then
on botocore's factory, once it is loaded, uses these classes for every session; those that
boto3's default session has made already are taken over.  So one ``except``
clause finds the error whether boto3's client or the light one has raised it,
and whenever the class was looked up.

Loaded by the first error, or the first look at ``client.exceptions``.

Threads
    ``_lock`` guards the classes.
"""

from __future__ import annotations

import importlib
import os
import sys

from ..aws import errors
from ..lifecycle import process
from . import operations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..aws.errors import WireFailure

FACTORY = "botocore.errorfactory"
# By service: the members, beside Error, of the errors that reads may raise, as all
# versions of botocore have them.  Source: the service models of botocore.
_MESSAGE: tuple[str, ...] = ("Message",)
_SECRETS = """
    DecryptionFailure EncryptionFailure InternalServiceError InvalidNextTokenException
    InvalidParameterException InvalidRequestException LimitExceededException
    MalformedPolicyDocumentException PreconditionNotMetException PublicPolicyException
    ResourceExistsException ResourceNotFoundException
"""
MODELLED: dict[str, dict[str, tuple[str, ...]]] = {
    "secretsmanager": dict.fromkeys(_SECRETS.split(), _MESSAGE),
    "ssm": {
        "InternalServerError": _MESSAGE,
        "InvalidFilterKey": (),
        "InvalidFilterOption": ("message",),
        "InvalidFilterValue": _MESSAGE,
        "InvalidKeyId": ("message",),
        "InvalidNextToken": _MESSAGE,
        "ParameterNotFound": ("message",),
        "ParameterVersionNotFound": ("message",),
    },
}

_lock = process.Lock()
# By service and name; never forgotten, since clients and callers hold them.
_classes: dict[str, dict[str, type[Exception]]] = {
    service: {} for service in operations.SERVICES
}
_models: dict[str, dict[str, tuple[str, ...]] | None] = {}
_complete: set[str] = set()  # services whose model botocore has loaded
_followed = False  # botocore's factory uses them


def exception(
    failure: WireFailure, service: str, operation: str
) -> BaseException | None:
    """
    Return botocore's exception for *failure*, a new one for each caller.

    None where boto3 has to be asked what it makes of it.
    """
    # 4 to 8 ms, which only an error costs.
    from botocore import exceptions as botocore

    reason = failure.reason
    url = failure.url + "/" * (failure.url.count("/") == 2)
    made: BaseException | None = None
    if failure.kind == "answer":
        return _refusal(failure, service, operation)
    if failure.kind == "no credentials":
        made = botocore.NoCredentialsError()
    elif failure.kind == "credentials":
        made = botocore.CredentialRetrievalError(
            provider="container-role", error_msg=reason
        )
    elif failure.kind == "unconnected":
        made = botocore.EndpointConnectionError(endpoint_url=url, error=reason)
    elif failure.kind == "connect time-out":
        made = botocore.ConnectTimeoutError(endpoint_url=url, error=reason)
    elif failure.kind == "read time-out":
        made = botocore.ReadTimeoutError(endpoint_url=url, error=reason)
    elif failure.kind == "certificate":
        made = botocore.SSLError(endpoint_url=url, error=Exception(reason))
    elif failure.kind == "closed":
        made = botocore.ConnectionClosedError(endpoint_url=url, error=reason)
    return made


def _refusal(
    failure: WireFailure, service: str, operation: str
) -> BaseException | None:
    metadata: dict[str, Any] = {}
    code, message = failure.code, failure.message
    request_id = failure.headers.get("x-amzn-requestid")
    if not code:  # an answer of no service
        # botocore has loaded it.
        import http.client

        code = str(failure.status)
        message = http.client.responses.get(failure.status, "")
    elif request_id is not None:
        metadata["RequestId"] = request_id
    metadata["HTTPStatusCode"] = failure.status
    metadata["HTTPHeaders"] = dict(failure.headers)
    if failure.exhausted:
        metadata["MaxAttemptsReached"] = True
    metadata["RetryAttempts"] = failure.retries
    response: dict[str, Any] = {
        "Error": {"Message": message, "Code": code},
        "ResponseMetadata": metadata,
    }
    members: tuple[str, ...] | None = ()
    if errors.is_from_body(code):
        members = _members(service, code)
    if members is None:
        return None
    for name in members:
        if failure.members.get(name) is not None:
            response[name] = failure.members[name]
    cls: Any = class_of(service, code)
    if cls is None:
        from botocore import exceptions

        cls = exceptions.ClientError
    made: BaseException = cls(response, operation)
    return made


def class_of(service: str, name: str) -> type[Exception] | None:
    """Return the class of errors that are called *name*, None if there is no such."""
    # 4 to 8 ms, which only an error costs.
    from botocore.exceptions import ClientError

    with _lock:
        _follow()
        known = _classes[service]
        found = known.get(name)
        if found is None and service not in _complete and _is_modelled(service, name):
            found = type(name, (ClientError,), {"__module__": FACTORY})
            known[name] = found
        return found


def _is_modelled(service: str, name: str) -> bool:
    return name in MODELLED[service] or name in (_model(service) or ())


def _members(service: str, code: str) -> tuple[str, ...] | None:
    """Return the members of the error *code*; None where only boto3 knows them."""
    found = MODELLED[service].get(code)
    if found is not None:
        return found
    model = _model(service)
    return None if model is None else model.get(code, ())


def _model(service: str) -> Mapping[str, tuple[str, ...]] | None:
    """
    Return the members of each error in botocore's model; None if it is not found.

    The file alone: 23 ms for ssm, of 250 that boto3 would cost.
    """
    found = _models.get(service)
    if found is not None or service in _models:
        return found
    # Only for errors that no table here knows.
    import gzip
    import json

    import botocore

    folder = os.path.join(os.path.dirname(botocore.__file__), "data", service)
    model = None
    try:
        for ending, opened in ((".json.gz", gzip.open), (".json", open)):
            path = os.path.join(folder, max(os.listdir(folder)), "service-2" + ending)
            if model is None and os.path.exists(path):
                with opened(path, "rb") as file:
                    shapes = json.load(file)["shapes"]
                model = {
                    name: tuple(shape.get("members", ()))
                    for name, shape in shapes.items()
                    if shape.get("exception")
                }
    except (OSError, ValueError, KeyError):  # a botocore that was put together anew
        model = None
    _models[service] = model
    return model


class Exceptions:
    """What ``client.exceptions`` is until boto3's client is made."""

    __slots__ = ("_made", "_service")

    def __init__(self, service: str, made: Callable[[], Any]) -> None:
        self._service = service
        self._made = made  # boto3's client

    def from_code(self, error_code: str) -> type[Exception]:
        """Return the class for *error_code*, ClientError for one without a class."""
        found = class_of(self._service, error_code)
        return self.ClientError if found is None else found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            msg = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(msg)
        if name == "ClientError":
            # 4 to 8 ms, which only an error costs.
            from botocore.exceptions import ClientError

            return ClientError
        found = class_of(self._service, name)
        return getattr(self._made().exceptions, name) if found is None else found

    def __dir__(self) -> list[str]:
        return dir(self._made().exceptions)


# One set of classes -----------------------------------------------------------


def _follow() -> None:
    """Make botocore's factory use these classes, now or when it is loaded."""
    if _followed:
        return
    if FACTORY in sys.modules:
        # Another thread may be in the middle of it: this waits for that one.
        module = importlib.import_module(FACTORY)
        _take_over()
        _replace(module)
    elif not any(type(finder) is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _take_over() -> None:
    """Adopt the classes that boto3's default session has made already."""
    session = getattr(sys.modules.get("boto3"), "DEFAULT_SESSION", None)
    components = getattr(
        getattr(session, "_session", None), "_internal_components", None
    )
    if components is None:  # no session, or another botocore than those known
        return
    factory = components.get_component("exceptions_factory")
    made = getattr(factory, "_client_exceptions_cache", {})
    for service in operations.SERVICES:
        if service in made:
            _unite(service, made[service])


def _replace(module: Any) -> None:
    """Make the factory of *module* reuse the classes that are here already."""
    global _followed
    make = getattr(module.ClientExceptionsFactory, "_create_client_exceptions", None)
    if _followed or make is None:  # by another botocore than those known
        return
    _followed = True

    def _create_client_exceptions(self: Any, service_model: Any) -> Any:
        made = make(self, service_model)
        if service_model.service_name in _classes:
            with _lock:
                _unite(service_model.service_name, made)
        return made

    module.ClientExceptionsFactory._create_client_exceptions = _create_client_exceptions


def _unite(service: str, made: Any) -> None:
    """Put the classes that are here into *made*, botocore's, and the others here."""
    known = _classes[service]
    codes = made._code_to_exception
    for code, cls in codes.copy().items():
        name = cls.__name__
        codes[code] = known.setdefault(name, cls)
        setattr(type(made), name, known[name])
    _complete.add(service)


class _Finder:
    """Notices that botocore's factory of exceptions is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return how to import the factory, None for every other module."""
        if name != FACTORY:
            return None
        sys.meta_path[:] = [each for each in sys.meta_path if each is not self]
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Executes the factory's module as *loader* does, and completes it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """Return what the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Execute *module*, and replace its factory's method."""
        self._loader.exec_module(module)
        module.__loader__ = module.__spec__.loader = self._loader
        _replace(module)
