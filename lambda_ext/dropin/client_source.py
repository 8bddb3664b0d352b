"""
A boto3 client as a source of the loader: asks by the client's own methods.

Guarantees
    A key is asked for as the caller that began the load wrote it, in the
    caller's context (of `contextvars`), and with nothing else in the call.
    Keys that were read in one batch are asked for in one batch, and only with
    each other: AWS refuses a whole GetParameters where it denies one name.
    What did not come through the client's ``_make_request`` is not kept, nor a
    response with something in it that is never to be kept, and
    an error from before it changes nothing that is remembered.
    Nothing is asked while the client must not be served from memory.

Threads
    Any number may `fetch`.  What `note` remembers is replaced by one C call.
"""

from __future__ import annotations

import contextvars
import threading
import weakref

from ..answer import Answer
from ..aws import boto
from ..exceptions import LambdaExtError, SourceError
from ..lifecycle import real_threads
from ..lifecycle.process import by_signal_handler
from ..values import keys
from ..values.sources import answers
from . import operations
from .tallies import tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from ..values.keys import Key
    from .operations import Read

    class Wrapped(Protocol):
        """What a source asks of the client that wraps it: a `mixin.State`."""

        service: str
        options: Any  # `mixin.Options`

        def may_serve(self) -> bool:
            """Say whether the client's answers come from the wire."""
            ...

        def plain_call(self, client: Any, operation: str, parameters: Any) -> Any:
            """Call *operation* by the client's own method."""
            ...


MAX_NOTED = 2_000  # keys; what is forgotten is asked for singly, in its plain form

wire = threading.local()  # .seen: the call of this thread has reached the wire


class Together:
    """A batch as it was read: keys that may share a call, and the response to that call."""

    __slots__ = ("is_read", "operation", "parameters", "response", "size")

    def __init__(self, read: Read, parameters: Mapping[str, Any]) -> None:
        self.operation = read.operation
        self.parameters = parameters
        self.size = len(read.keys)
        self.is_read = True  # by the caller that began it, who takes the response
        self.response: Any = None  # of the call for all of them


class PartError(SourceError):
    """A batch has no value for one of its keys; *part* is what it says instead."""

    def __init__(self, message: str, key: Key, part: Any) -> None:
        super().__init__(message, key=key.label, source=ClientSource.name)
        self.part = part
        self.keep = False


class ClientSource:
    """Reads of one client; *scope* as of the client that wraps it."""

    __slots__ = (
        "__weakref__", "_client", "_contexts", "_noted", "_options", "_state", "scope",
    )  # fmt: skip

    name = "client"
    repeats = False  # after a freeze: the client decides how often to try

    def __init__(self, client: Any, state: Wrapped, scope: tuple[object, ...]) -> None:
        # Not held: what the library knows of a client is kept as long as it lives.
        self._client = weakref.ref(client)
        self._state = state
        self._options = state.options
        self.scope = scope
        self._noted: dict[Key, Together | dict[str, Any]] = {}
        self._contexts: dict[Key, tuple[int, contextvars.Context]] = {}

    def __repr__(self) -> str:
        return "<ClientSource>"  # the scope holds an access key id

    def within(self, scope: tuple[object, ...]) -> ClientSource:
        """Return the same client as a source of another scope."""
        other = object.__new__(ClientSource)
        other._client, other._state = self._client, self._state
        other._options, other.scope = self._options, scope
        other._noted, other._contexts = {}, {}
        return other

    def note(self, read: Read, parameters: dict[str, Any]) -> Together | None:
        """Remember how the keys of *read* are to be asked for; return its batch."""
        if len(self._noted) > MAX_NOTED:
            self._noted = {}
            self._contexts = {}
        asker = real_threads.get_ident(), contextvars.copy_context()
        together = None if read.single else Together(read, dict(parameters))
        for key in read.keys:
            self._noted[key] = together or dict(parameters)
            self._contexts[key] = asker
        return together

    def read(self, read: Read, together: Together | None) -> Any:
        """
        Note that *read* is over; return the response of its batch, if it is whole.

        Nothing of the caller's is held any longer: no context, no response.
        """
        for key in read.keys:
            self._contexts.pop(key, None)
        if together is None:
            return None
        together.is_read = False
        response, together.response = together.response, None
        return response

    def plan(self, wanted: Sequence[Key]) -> list[list[Key]]:
        """Divide *wanted* into calls: one by one, or as they were read together."""
        calls: list[list[Key]] = []
        batches: dict[int, list[Key]] = {}
        for key in wanted:
            how = self._noted.get(key)
            if isinstance(how, Together):
                if id(how) not in batches:
                    batches[id(how)] = []
                    calls.append(batches[id(how)])
                batches[id(how)].append(key)
            else:
                calls.append([key])
        return calls

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask for *wanted* in one call of the client, which has its own limits."""
        first = wanted[0]
        how = self._noted.get(first)
        if isinstance(how, Together):
            operation, parameters = how.operation, dict(how.parameters)
            member = operations.names_of(operation)
            parameters[member] = [key.name + key.selector for key in wanted]
        elif how is None:
            operation, parameters = first.operation, operations.parameters_of(first)
        else:
            operation, parameters = first.operation, dict(how)
        thread, context = self._contexts.pop(first, (0, None))
        if context is None or thread == real_threads.get_ident():
            response, seen = self._asked(operation, parameters, wanted)
        else:
            response, seen = context.run(self._asked, operation, parameters, wanted)
        keep = seen and self._options.allows_all_of(response)
        if keep:
            next(tally(operation).stored)
        if isinstance(how, Together):
            if how.is_read and len(wanted) == how.size:
                how.response = response
            return _divided(operation, response, wanted, keep=keep)
        return {first: _answer(operation, response, first, keep=keep)}

    def _asked(
        self, operation: str, parameters: dict[str, Any], wanted: Sequence[Key]
    ) -> tuple[dict[str, Any], bool]:
        """Return the client's response, and whether it came from the wire."""
        label = ", ".join(key.label for key in wanted)
        client = self._client()
        if client is None or not self._state.may_serve():
            msg = f"{label}: the client is gone, or its answers do not come from AWS"
            error = SourceError(msg, key=label, source=self.name, transient=True)
            error.keep = False
            raise error
        former = getattr(wire, "seen", False)
        wire.seen = False
        failure: SourceError | None = None
        try:
            response = self._state.plain_call(client, operation, parameters)
            return response, wire.seen
        except LambdaExtError:
            raise
        except Exception as exc:
            if by_signal_handler(exc):
                raise
            failure = self._failure(exc, label, keep=wire.seen)
        finally:
            wire.seen = former
        raise failure  # not above: the error of botocore would be its context

    def _failure(self, exc: Exception, label: str, *, keep: bool) -> SourceError:
        """Return what *exc* means to the loader; it goes to the caller as it is."""
        error = boto.translation(exc, self._state.service, label)
        if not isinstance(error, SourceError):
            error = SourceError(str(error), key=label, source=self.name)
        error.original = exc
        error.keep = keep
        return error


def _answer(
    operation: str, response: Any, key: Key, *, keep: bool
) -> Answer | LambdaExtError:
    """Return *response*, the client's to a read of one key, as an answer."""
    answer: Answer | SourceError
    kept = operations.copy_of(response)
    if operation == keys.PATH:
        answer = Answer("", "", response=kept, keep=keep)
    elif operation == keys.SECRET:
        answer = answers.secret(kept, key)
    else:
        answer = answers.parameter(kept.get("Parameter"), key)
    if not isinstance(answer, Answer):  # no answer of AWS's: for this caller only
        answer = Answer("", "", keep=False)
    else:
        answer.keep = keep
    answer.response = kept
    return answer


def _divided(
    operation: str, response: Any, wanted: Sequence[Key], *, keep: bool
) -> dict[Key, Answer | LambdaExtError]:
    """Return, for each key, what *response* of a batch answers to it."""
    whole = operations.copy_of(response)
    found: dict[Key, Answer | LambdaExtError] = {}
    # Those with a Selector first: a value without one may be of the same version.
    values = operations.values_of(operation, whole)
    values.sort(key=lambda value: not value.get("Selector"))
    matched = answers.matched(wanted, values, operations.forms, operations.fits)
    for key, value in matched.items():
        part = operations.single(operation, value, whole)
        found[key] = _answer(key.operation, part, key, keep=keep)
    refusals = operations.refusals(operation, whole)
    for key in wanted:
        if key not in found:
            msg = f"{key.label!r} is not among the values of the batch"
            found[key] = PartError(msg, key, refusals.get(key.name + key.selector))
    return found
