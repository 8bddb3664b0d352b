"""
`patch` and `unpatch`: the cache for code whose clients you do not make.

`patch` wraps `botocore.session.Session.create_client`, through which boto3 and
everything else that makes a client goes, so that each new client of the two
services comes out as `cached` would return it: the same object, with its class
derived from the one that botocore made.  The library's own clients stay bare.

Importing this module costs some 60 ms (wrapt); it neither imports boto3 nor
needs it: where botocore is not loaded yet, it is wrapped when it is.

Threads
    ``_lock`` guards the switch.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys

import wrapt

from .. import disclosure
from ..aws import boto
from ..exceptions import ConfigurationError
from ..lifecycle import process
from ..values.settings import DEFAULT
from . import mixin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any

    from .mixin import Age

SESSION = "botocore.session"

_lock = process.Lock()
_options: mixin.Options | None = None  # None: new clients stay as they are
_wrapped = False  # the factory is, and stays so: it does nothing without options


class Patch:
    """What `patch` returns: leaving it as a context manager unpatches."""

    __slots__ = ("_former",)

    def __init__(self, former: mixin.Options | None) -> None:
        self._former = former

    def __repr__(self) -> str:
        return f"<Patch {'active' if _options is not None else 'ended'}>"

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _switch(self._former)


def patch(
    *,
    max_age: Age = DEFAULT,
    max_stale: Age = DEFAULT,
    only: Iterable[str] = (),
    never: Iterable[str] = (),
) -> Patch:
    """
    Have every client that is made from now on answer its reads from memory.

    Of secretsmanager and ssm, by boto3, by botocore or by a library that uses
    them.  Clients that exist already stay as they are; a log line says how many.
    Neither boto3 nor AWS is loaded or called by this.  A second call changes the
    options for clients made after it.  As a context manager it goes back, when it
    is left, to what was in force before.

    Args and errors are those of `cached`.
    """
    options = mixin.Options(max_age, max_stale, only, never)
    former = _switch(options)
    if former is None:
        bare = _bare_clients()
        if bare:
            disclosure.log(
                logging.WARNING,
                "clients_not_patched",
                "clients made before patch() do not read from memory: call patch() first",
                count=bare,
            )
    return Patch(former)


def unpatch() -> None:
    """
    Leave clients that are made from now on as they are; more calls do nothing.

    Clients that were made meanwhile go on answering from memory.
    """
    _switch(None)


def _switch(options: mixin.Options | None) -> mixin.Options | None:
    """Put *options* in force, and return what was before."""
    global _options, _wrapped
    with _lock:
        former, _options = _options, options
        first = options is not None and not _wrapped
        _wrapped = _wrapped or first
    if first:
        if SESSION in sys.modules:
            _wrap(sys.modules[SESSION])
        else:
            wrapt.register_post_import_hook(_wrap, SESSION)
    return former


def _wrap(_: object) -> None:
    # Waits where another thread is in the middle of this import.
    module = importlib.import_module(SESSION)
    wrapt.wrap_function_wrapper(module, "Session.create_client", _created)


def _created(
    create: Callable[..., Any],
    session: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Make a client; with options in force it answers from memory."""
    client = create(*args, **kwargs)
    options = _options
    if options is not None and not boto.is_own() and mixin.is_wrappable(client):
        try:
            mixin.mix_in(client, options)
        except ConfigurationError:  # botocore's error comes with the first call
            return client
    return client


def _bare_clients() -> int:
    """Return how many clients of the two services exist and are not cached."""
    # None also while another thread is importing it.
    base = getattr(sys.modules.get("botocore.client"), "BaseClient", None)
    if base is None:
        return 0
    # botocore makes a class for each client, and gc knows its instances.
    classes = {
        cls: True
        for cls in base.__subclasses__()
        if cls.__name__ in ("SecretsManager", "SSM")
    }
    if not classes:
        return 0
    return sum(
        type(each) in classes
        and mixin.is_wrappable(each)
        and not boto.is_of_the_library(each)
        for each in gc.get_referrers(*classes)
    )


@process.at_reset
def _reset() -> None:
    _switch(None)
