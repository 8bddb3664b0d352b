"""
`cached`: a boto3 client whose reads are answered from memory.

The client gets a class of its own, derived from the one that it has, with two
methods in front of botocore's:

    _make_api_call   a read: memory, else the loader, whose source is this client
                     a write: invalidate, call, invalidate
                     another: the client's own
    _make_request    notes that an answer really comes from the wire

Paginators, waiters, events, exceptions and metadata are the client's own and
go through these methods, too.  What other libraries put around botocore's
methods stays around them.

Guarantees
    Only what came over the wire, through the client's own ``_make_request``, is
    kept.  Stubber, placebo and other recorded answers reply before it, in
    ``before-call``.  While the client has handlers of that event which it
    lacked when it was wrapped, nothing is served, kept or dropped for it.
    What was read under one ``mock_aws()`` of moto is served under that one only.
    A client with event handlers of the user's that may change a request or an answer
    shares what it has read with clients that have the same handlers only.
    A response is the caller's own copy; errors are botocore's own objects, of
    each caller its own, and are not remembered.
    Credentials are not resolved on a hit: the scope is found once.

Threads
    What a hit reads is replaced, never changed.
"""

from __future__ import annotations

import functools
import json
import sys
import weakref
from fnmatch import fnmatchcase
from types import CellType, FunctionType, MethodType, ModuleType

from .. import disclosure
from ..aws import boto, errors
from ..exceptions import ConfigurationError
from ..lifecycle import clock, process
from ..values import keys, settings, store, transforms
from ..values.cache import FRESH, LOADED, STALE, Decoded, Entry
from ..values.settings import DEFAULT
from . import operations, tallies
from .client_source import ClientSource, PartError, wire
from .tallies import tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta
    from typing import Any, TypeVar

    from ..exceptions import LambdaExtError
    from ..values.cache import View, Want
    from ..values.keys import Key
    from .operations import Read

    T = TypeVar("T")
    Outcome = Entry | LambdaExtError
    Age = float | timedelta | None

MAX_VIEWS = 1_000  # of one client: forms of a call that are answered at once
MOTO = "moto.core.models"
# Events whose handlers may replace what is asked, or the answer.
_BEFORE_WIRE = ("provide-client-params", "before-parameter-build", "before-call")
# Events whose handlers may change what comes from the wire.
_AROUND_WIRE = (
    "request-created", "choose-signer", "before-sign", "before-send",
    "response-received", "after-call",
)  # fmt: skip

_CONSTANTS = (str, bytes, int, float, bool)
MAX_TOKEN_DEPTH = 4  # of functions in functions

_lock = process.Lock()
# By handler: what stands for it, without holding it, and with it what it belongs to.
_tokens: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()
_states: weakref.WeakKeyDictionary[type, State] = weakref.WeakKeyDictionary()


def cached(
    client: T,
    *,
    max_age: Age = DEFAULT,
    max_stale: Age = DEFAULT,
    only: Iterable[str] = (),
    never: Iterable[str] = (),
) -> T:
    """
    Return a client like *client* whose reads are answered from memory.

    It is used, and behaves, as *client* does, which itself is left alone.  Reads
    of secrets and parameters are kept for *max_age* seconds, shared with all
    clients of the same credentials, region and endpoint, and with `Secret`,
    `Parameter` and `get_*`; clients with handlers of the user's around a request
    share among themselves.  A read calls AWS, and waits, when there is nothing
    fresh in memory; a write through any such client drops what it changes.
    Responses equal boto3's; one that came from memory says so in
    ``ResponseMetadata["LambdaExtCached"]``.  Errors are botocore's.

    A client of another service, an asynchronous one, and what is no client of
    botocore's come back as they are; so does a client that is cached already.

    Args:
        client: A client of boto3 or botocore for secretsmanager or ssm.
        max_age: Seconds for which a response counts as fresh; 0 asks AWS on each
            call, None never again.  Not given: the option ``max_age``.
        max_stale: Seconds past *max_age* for which a response serves while AWS
            throttles, fails or cannot be reached; 0 is off, None without limit.
        only: Names, ARNs or globs (``prod/*``); nothing else is kept.
        never: The same, of what is never kept.

    Raises:
        ConfigurationError: an option cannot be used, or *client* is None, text, a
            class or a module.

    Source: GetSecretValue, BatchGetSecretValue, GetParameter, GetParameters,
    GetParametersByPath of AWS's API references.
    """
    options = Options(max_age, max_stale, only, never)
    known: object = client
    if known is None or isinstance(known, (str, type, ModuleType)):
        what = repr(known) if isinstance(known, str) else type(known).__name__
        msg = (
            f"cached() takes a client of boto3, not {what:.80}: write"
            " cached(boto3.client('ssm')), or lambda_ext.client('ssm')"
        )
        raise ConfigurationError(msg)
    if type(client) in _states or not is_wrappable(client):
        return client
    twin = object.__new__(type(client))
    twin.__dict__.update(client.__dict__)
    mix_in(twin, options)
    return twin


def mix_in(client: Any, options: Options) -> None:
    """Make *client* itself, which must be wrappable, answer from memory."""
    store.attach()
    own: Any = type(client)
    state = State(client, options)

    def _make_api_call(
        self: Any, operation_name: str, api_params: dict[str, Any]
    ) -> Any:
        return state.call(self, operation_name, api_params)

    def _make_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        if errors.isolated_by:  # what Stubber answers never gets here
            _refuse_outside(self, *args, **kwargs)
        wire.seen = True
        return own._make_request(self, *args, **kwargs)

    twin = type(
        own.__name__,
        (own,),
        {
            "__doc__": own.__doc__,
            "__module__": own.__module__,
            "__qualname__": own.__qualname__,
            "_make_api_call": _make_api_call,
            "_make_request": _make_request,
        },
    )
    _states[twin] = state
    client.__class__ = twin


def _refuse_outside(client: Any, model: Any, request: Any, *_: object) -> None:
    """
    Raise what names the call that a test forbids, before credentials are looked for.

    moto, and what else answers ``before-send``, is asked; the session behind it
    sends nothing.
    """
    if _current_mock() is None and not _answers_before_send(client, model.name):
        try:
            asked = errors.key_of(json.loads(request["body"]))
        except (KeyError, TypeError, ValueError):
            asked = ""
        service = client.meta.service_model.service_name
        what = f"{service} {model.name} {asked and repr(asked)}".rstrip()
        raise errors.isolated(what, client=True)
    boto.isolate(client)


def _answers_before_send(client: Any, operation: str) -> bool:
    """Say whether a handler of the user's may answer instead of the wire."""
    emitter = getattr(client.meta.events, "_emitter", client.meta.events)
    prefix = client.meta.service_model.service_id.hyphenize()
    try:
        found = emitter._handlers.prefix_search(f"before-send.{prefix}.{operation}")
    except AttributeError:  # another botocore than those known
        return True
    return not all(map(_is_of_libraries, found))


def _is_of_libraries(handler: Any) -> bool:
    """Say whether *handler* is botocore's or moto's."""
    # moto's is there as long as moto is loaded, and answers only inside a mock.
    module = str(disclosure.attribute(handler, "__module__"))
    return module.startswith(("botocore.", "moto."))


def _token(handler: Any, depth: int = 0) -> object:
    """
    Return what stands for *handler*, and holds nothing that belongs to a client.

    It is equal for handlers that do the same: methods of one object, and functions
    and partial functions of one code over equal constants and the same objects.
    """
    kind = type(handler)
    if handler is None or kind in _CONSTANTS:
        return kind, handler
    parts: tuple[Any, ...] = ()
    if depth < MAX_TOKEN_DEPTH:
        if kind is MethodType:
            parts = (handler.__func__, handler.__self__)
        elif kind is functools.partial:
            parts = (handler.func, *handler.args, *_flat(handler.keywords))
        elif kind is FunctionType:
            parts = (
                handler.__module__,
                *(handler.__defaults__ or ()),
                *_flat(handler.__kwdefaults__ or {}),
                *(_content(cell) for cell in handler.__closure__ or ()),
            )
    if parts:
        code = getattr(handler, "__code__", None)
        return (kind, code, *(_token(part, depth + 1) for part in parts))
    token = object()
    try:
        with _lock:
            return _tokens.setdefault(handler, token)
    except TypeError:  # one without hash or weak reference: equal to no other
        return token


def _flat(keywords: dict[str, Any]) -> list[Any]:
    return [part for pair in sorted(keywords.items()) for part in pair]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return cell


def is_wrappable(client: Any) -> bool:
    """Say whether *client* is botocore's, synchronous, and of a service known here."""
    # None also while another thread is importing it.
    base = getattr(sys.modules.get("botocore.client"), "BaseClient", None)
    # Not isinstance: `client()`, proxies and mocks say that they are what they are not.
    if base is None or not issubclass(type(client), base):
        return False
    if "meta" not in vars(client):  # another thread is just making it
        return False
    if any(each.__module__.startswith("aiobotocore") for each in type(client).__mro__):
        return False
    return client.meta.service_model.service_name in operations.SERVICES


class Options:
    """What `cached` and `patch` take, checked."""

    __slots__ = ("max_age", "max_stale", "never", "only")

    def __init__(
        self,
        max_age: Age = DEFAULT,
        max_stale: Age = DEFAULT,
        only: Iterable[str] = (),
        never: Iterable[str] = (),
    ) -> None:
        for option, given in (("max_age", max_age), ("max_stale", max_stale)):
            if given is not DEFAULT:
                settings.seconds(option, given, "cached()")
        self.max_age = max_age
        self.max_stale = max_stale
        self.only = _patterns("only", only)
        self.never = _patterns("never", never)
        both = set(self.only) & set(self.never)
        if both:
            msg = f"only= and never= both name {min(both)!r}: leave it out of one"
            raise ConfigurationError(msg)

    def allows(self, key: Key) -> bool:
        """Say whether *key* may be kept, by the name that was asked for."""
        names = _forms(key.name)
        if self.never and _matches(names, self.never):
            return False
        return not self.only or _matches(names, self.only)

    def allows_all_of(self, response: Any) -> bool:
        """Say whether nothing in *response* is what is never to be kept."""
        if not self.never or not isinstance(response, dict):
            return True
        lists = (response.get("SecretValues"), response.get("Parameters"))
        parts = [response, response.get("Parameter")]
        parts += [part for each in lists for part in each or ()]
        return not any(
            isinstance(part.get(member), str)
            and _matches(_forms(part[member]), self.never)
            for part in parts
            if isinstance(part, dict)
            for member in ("ARN", "Name")
        )


def _forms(name: str) -> set[str]:
    """Return *name* in each form of a pattern: an ARN with or without its end, a plain name."""
    names = {name, name.removeprefix("/aws/reference/secretsmanager/")}
    if name.startswith("arn:"):
        resource = name.split(":", 5)[-1]
        plain = resource.partition(":")[2] or resource.removeprefix("parameter")
        names.add(plain)
        if plain[-7:-6] == "-":
            names |= {plain[:-7], name[:-7]}
    return names


def _patterns(option: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        msg = f"{option}= takes a list of names or globs: write {option}=[{given!r}]"
        raise ConfigurationError(msg)
    try:
        patterns = tuple(given)
    except TypeError:
        patterns = (None,)  # type: ignore[assignment]
    if not all(type(pattern) is str and pattern != "" for pattern in patterns):
        msg = f"{option}= takes a list of names, ARNs or globs, each a text"
        raise ConfigurationError(msg)
    return patterns


def _matches(names: set[str], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


class State:
    """What one wrapped client needs to answer from memory."""

    __slots__ = (
        "__weakref__", "_around", "_base_scope", "_emitter", "_events", "_index",
        "_is_bare", "_known", "_lookups", "_method", "_mock", "_source", "bare", "options",
        "service",
    )  # fmt: skip

    def __init__(self, client: Any, options: Options) -> None:
        self.options = options
        self.bare: Any = type(client)
        botocore = sys.modules["botocore.client"]
        self._method = None  # no answer comes from memory if it was replaced before
        if operations.is_botocores(botocore.BaseClient._make_api_call):
            self._method = _method_of(self.bare)
        self.service = client.meta.service_model.service_name
        self._base_scope = boto.scope_of(self.service, client)
        self._mock: object = _current_mock()
        self._index: dict[Any, View] = {}
        events = client.meta.events
        self._emitter = getattr(events, "_emitter", events)
        prefix = client.meta.service_model.service_id.hyphenize()
        self._events = [
            f"{event}.{prefix}.{operation}"
            for event in (*_BEFORE_WIRE, *_AROUND_WIRE)
            for operation in operations.reads_of(self.service)
        ]
        self._around = self._handlers_around()
        self._source = ClientSource(client, self, self.scope)
        self._known = self._handlers()  # when it was wrapped
        self._is_bare = self._known is None
        self._lookups = getattr(self._emitter, "_lookup_cache", None)

    @property
    def scope(self) -> tuple[object, ...]:
        """What the answers of this client depend on besides the request."""
        mock = () if self._mock is None else (self._mock,)
        return (*self._base_scope, *mock, *self._around)

    def call(self, client: Any, operation: str, parameters: Any) -> Any:
        """Answer *operation*, from memory or by the client's own method."""
        if operations.is_read(operation) and self.may_serve():
            try:
                arguments = (
                    operation,
                    *parameters.items(),
                    *map(type, parameters.values()),
                )
                view = self._index.get(arguments)
            except (TypeError, AttributeError):  # a list, or no dictionary at all
                view = None
            if view is not None and clock.monotonic() + clock.lead < view.until:
                assert view.copy is not None
                next(tally(operation).hits)
                return view.copy()
            return self._read(client, operation, parameters)
        names = operations.written(operation, parameters)
        if names and self.may_serve():
            return self._write(client, operation, parameters, names)
        if names:
            return self._write_unserved(client, operation, parameters, names)
        next(tally(operation).passed)
        return self.plain_call(client, operation, parameters)

    def plain_call(self, client: Any, operation: str, parameters: Any) -> Any:
        """Call *operation* by the client's own method."""
        return self.bare._make_api_call(client, operation, parameters)

    # Whether memory may be used ----------------------------------------------

    def may_serve(self) -> bool:
        """Say whether the client's answers come from the wire, as they used to."""
        if MOTO in sys.modules or self._mock is not None:
            mock = _current_mock()
            if mock is not self._mock:
                self._mock = mock
                self._begin_anew()
        # botocore replaces this dictionary whenever handlers come or go.
        lookups = getattr(self._emitter, "_lookup_cache", None)
        if lookups is not self._lookups:
            self._lookups = lookups
            handlers = self._handlers()
            self._is_bare = handlers is None or not handlers <= self._known
            around = self._handlers_around()
            if around != self._around:
                self._around = around
                self._begin_anew()
        if self.bare._make_api_call is not self._method:
            method = _method_of(self.bare)
            if not (_wraps(method, self._method) or _wraps(self._method, method)):
                return False  # a test's stand-in for botocore's method
        return not (self._is_bare or boto.is_own())

    def _begin_anew(self) -> None:
        """Answer nothing that was read before, as a client of another scope."""
        self._index = {}
        self._source = self._source.within(self.scope)

    def _handlers_around(self) -> tuple[object, ...]:
        """Return what stands for the user's handlers on the way to AWS and back."""
        found: dict[object, None] = {}
        try:
            for event in self._events:
                if not event.startswith(_BEFORE_WIRE[:2]):  # with which none is served
                    for handler in self._emitter._handlers.prefix_search(event):
                        if not _is_of_libraries(handler):
                            found[_token(handler)] = None
        except AttributeError:  # another botocore than those known; see `_handlers`
            return ()
        return (*found,)

    def _handlers(self) -> Any:
        """
        Return the handlers that may answer before the wire; None if unknown.

        None also where one of the user's may change what is asked: then equal
        calls of two clients may mean different things.
        """
        found = set()
        try:
            for event in self._events:
                if not event.startswith(_BEFORE_WIRE):
                    continue
                for handler in self._emitter._handlers.prefix_search(event):
                    own = disclosure.words(handler, "__module__").startswith(
                        "botocore."
                    )
                    if not own and not event.startswith("before-call"):
                        return None
                    found.add((event.partition(".")[0], _token(handler)))
        except AttributeError:  # another botocore than those known
            return None
        return found

    # Reads -------------------------------------------------------------------

    def _read(self, client: Any, operation: str, parameters: Any) -> Any:
        read = None
        if type(parameters) is dict:
            read = operations.read(self.scope, operation, parameters)
        if read is None or not all(map(self.options.allows, read.keys)):
            return self._pass(client, operation, parameters)
        source = self._source
        together = source.note(read, parameters)
        wants = [self._want(source, key) for key in read.keys]
        try:
            found = store.loader.get(wants)
        finally:
            whole = source.read(read, together)
        if any(how != LOADED and self._is_never(outcome) for outcome, how in found):
            return self._pass(client, operation, parameters)  # kept for other clients
        if together is None:
            return self._single(client, wants[0], found[0], parameters)
        if whole is not None and _all(found, LOADED):
            next(tally(operation).misses)
            return whole
        return self._batch(client, read, found, parameters)

    def _single(
        self, client: Any, want: Want, found: tuple[Outcome, str], parameters: Any
    ) -> Any:
        operation = want.key.operation
        outcome, how = found
        if not isinstance(outcome, Entry):
            if getattr(outcome, "original", None) is None:  # of a handle's load
                return self._pass(client, operation, parameters)
            next(tally(operation).misses)
            raise own_error(outcome)
        response = outcome.answer.response
        if response is None:  # kept by a source that knows values only
            return self._pass(client, operation, parameters)
        if how == LOADED:
            next(tally(operation).misses)
            return operations.shaped(response)
        next(tally(operation).hits)
        marked = operations.marked(operations.shaped(response))
        copy = transforms.copier(marked)
        assert copy is not None
        if how == FRESH:
            self._publish(want, outcome, marked, copy, parameters)
        return copy()

    def _batch(
        self,
        client: Any,
        read: Read,
        found: Sequence[tuple[Outcome, str]],
        parameters: Any,
    ) -> Any:
        """Return the response that AWS would make of what was *found*."""
        singles = []
        refused = []
        newest: Entry | None = None
        for outcome, _ in found:
            if isinstance(outcome, Entry):
                if outcome.answer.response is None:
                    return self._pass(client, read.operation, parameters)
                singles.append(operations.shaped(outcome.answer.response))
                if newest is None or newest.sequence < outcome.sequence:
                    newest = outcome
            elif isinstance(outcome, PartError):
                if outcome.part is None:
                    return self._pass(client, read.operation, parameters)
                refused.append(operations.copy_of(outcome.part))
            elif getattr(outcome, "original", None) is None:  # of a handle's load
                return self._pass(client, read.operation, parameters)
            else:
                next(tally(read.operation).misses)
                raise own_error(outcome)
        if newest is None:  # all refused, in a call of another thread
            return self._pass(client, read.operation, parameters)
        response = newest.answer.response
        metadata = operations.copy_of((response or {}).get(operations.METADATA) or {})
        if _all(found, FRESH, STALE):
            metadata[operations.FROM_CACHE] = True
            next(tally(read.operation).hits)
        else:
            next(tally(read.operation).misses)
        return operations.composed(read.operation, singles, refused, metadata)

    def _pass(self, client: Any, operation: str, parameters: Any) -> Any:
        next(tally(operation).passed)
        return self.plain_call(client, operation, parameters)

    def _is_never(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Entry) and not self.options.allows_all_of(
            outcome.answer.response
        )

    def _want(self, source: ClientSource, key: Key) -> Want:
        options, changes = self.options, operations.ClientWant.changes
        return operations.ClientWant(
            source,
            key,
            settings.max_age_of(key.operation, options.max_age, key.label),
            settings.max_stale_of(options.max_stale, key.label),
            changes_before=changes,
        )

    def _publish(
        self, want: Want, entry: Entry, response: Any, copy: Any, parameters: Any
    ) -> None:
        """Let equal calls find *response* without looking for its key."""
        operation = want.key.operation
        try:
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
        decoded = Decoded(response, copy)
        store.publish(want, entry, decoded, self._index, arguments)

    # Writes ------------------------------------------------------------------

    def _write(
        self, client: Any, operation: str, parameters: Any, names: list[str]
    ) -> Any:
        """Drop what the write may change, before it and after it."""
        self._invalidate(operation, names)
        try:
            response = self.plain_call(client, operation, parameters)
        except BaseException:
            self._invalidate(operation, names)
            raise
        self._invalidate(operation, [*names, *operations.response_names(response)])
        return response

    def _write_unserved(
        self, client: Any, operation: str, parameters: Any, names: list[str]
    ) -> Any:
        """Drop what the write may have changed, if it has reached the wire."""
        next(tally(operation).passed)
        former, wire.seen = getattr(wire, "seen", False), False
        changed = [*names]
        try:
            response = self.plain_call(client, operation, parameters)
            if isinstance(response, dict):  # a test's stand-in may return anything
                changed += operations.response_names(response)
            return response
        finally:
            seen, wire.seen = wire.seen, former
            if seen:
                self._invalidate(operation, changed)

    def _invalidate(self, operation: str, names: Iterable[str]) -> None:
        kind = keys.SECRET if self.service == "secretsmanager" else keys.PARAMETER
        for name in names:
            tallies.invalidated(operation, store.invalidate(name, kind))


def _method_of(bare: Any) -> Any:
    """Return the method that makes the calls of *bare*, as its class has it."""
    # Of what wrapt has wrapped each look-up would give another object.
    name = "_make_api_call"
    return next(vars(cls)[name] for cls in bare.__mro__ if name in vars(cls))


def _wraps(method: Any, former: Any) -> bool:
    """Say whether *method* is *former*, or wraps it, as instrumentation does."""
    for _ in range(20):
        if method is None:
            return False
        if method is former:
            return True
        method = getattr(method, "__wrapped__", None)
    return False


def _all(found: Iterable[tuple[Outcome, str]], *how: str) -> bool:
    return all(each in how for _, each in found)


def own_error(error: Exception) -> BaseException:
    """Return botocore's exception for this caller: the object itself, or a copy."""
    original = getattr(error, "original", None)
    if original is None:
        return error
    own: BaseException
    if error.__cause__ is None:  # not a waiter's copy of the error
        own = original
    else:
        own = type(original).__new__(type(original), *original.args)
        own.args = original.args
        own.__dict__.update(original.__dict__)
        response = getattr(original, "response", None)
        if response is not None:
            own.response = operations.copy_of(response)  # type: ignore[attr-defined]
    return own


def _current_mock() -> object:
    """Return a token of the ``mock_aws()`` that is active now; None where none is."""
    models = sys.modules.get(MOTO)
    if models is None or not getattr(models.botocore_stubber, "enabled", False):
        return None
    # A new one for each outermost mock_aws().
    return getattr(models.responses_mock, "_patcher", None) or models.botocore_stubber
