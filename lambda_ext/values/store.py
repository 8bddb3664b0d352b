"""
What every handle and every `get_*` of this process share.

One cache, one loader, one source for secrets and one for parameters, made
when first needed; and the listeners that tie them to the life of the
execution environment:

    INIT       what is declared is loaded, in one batch (not before a snapshot)
    SNAPSHOT   no value and no reference to one is left
    RESTORE    everything is dead; what is declared is loaded
    fork       the child begins with nothing

Threads
    ``_lock`` guards the sources.  It is never held while one is made or asked,
    and re-entrant, since a finalizer may come in between.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys

from .. import config, disclosure
from ..disclosure import raises_without_variables
from ..exceptions import LambdaExtError
from ..lifecycle import clock, phases, process
from . import keys, register, settings, threads
from .cache import Cache, Entry, Slot, View, protected
from .counters import Snapshot
from .loader import FRESH, Loader
from .transforms import Decoded, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping, Sequence
    from typing import Any

    from ..typing import Source
    from .freshness import Want
    from .keys import Key
    from .transforms import Transform

INIT_S = 8.0  # of the 10 s that INIT may take, for a load of what is declared
PATIENCE_S = 2.0  # for which INIT waits for such a load
MAX_DECODED = 32  # per entry: each inline lambda given as `transform` is one


DEAD = View()  # what a handle holds before its first read

secrets: dict[Any, View] = {}  # the fronts: arguments of a call -> what it gets
parameters: dict[Any, View] = {}

_lock = process.Lock()
_sources: dict[str, Source] = {}
_override: Source | None = None  # set by `use`
_overrides: dict[str, Source] = {}  # by operation, set by `use_for`; come first
_outside: Source | None = None  # set by `isolate`
_attached = False


def _is_transient(exc: BaseException) -> bool:
    # Not at the top: whoever uses no AWS (tests, local files) needs none of it.
    from ..aws.errors import is_transient

    return is_transient(exc)


def _updated(taken: list[Slot]) -> None:
    """Tell the handles what was loaded."""
    entries = {slot.key: slot.entry for slot in taken}
    for handle in register.live():
        if handle._want is None and not handle._listeners:
            continue
        # A handle that cannot be bound has no value that could have changed.
        with contextlib.suppress(LambdaExtError):
            entry = entries.get(handle._key_of())
            if entry is not None:
                handle._loaded(entry)


def _size() -> int:
    """Return how many values may be remembered."""
    size: int = config.get("cache_size")
    return size


def _pinned() -> set[Key]:
    """Return what is not to be evicted: the keys that live handles read."""
    return {want.key for want in _declared()}


def _declared() -> list[Want]:
    """Return what live handles want, as far as they have been read or loaded."""
    wants = [handle._want for handle in register.live()]
    return [want for want in wants if want is not None]


cache = Cache(_size, _pinned)
loader = Loader(cache, _is_transient, _updated, _declared)


# Sources ---------------------------------------------------------------------


def source_of(operation: str) -> Source:
    """Return the source that *operation* asks, made when first needed."""
    override = _overrides.get(operation) or _override
    if override is not None:
        return override
    kind = keys.PARAMETER if operation == keys.PATH else operation
    source = _sources.get(kind)
    if source is None:
        attach()
        option = "flags_source" if kind == keys.CONFIGURATION else "source"
        chosen: str = config.get(option)
        # moto answers in this process, and for boto3 only.
        inside = chosen.startswith("file:") or (
            chosen == "aws" and "moto" in sys.modules
        )
        if _outside is not None and not inside:
            return _outside
        source = settings.make_source(kind, chosen)
        with _lock:
            source = _sources.setdefault(kind, source)
    return source


def use(source: Source | None) -> Source | None:
    """
    Ask *source* for everything from now on; None: what the option says.

    Return what was asked before.
    """
    global _override
    attach()
    former, _override = _override, source
    _snapshot()
    return former


def isolate(source: Source | None) -> Source | None:
    """Ask *source* instead of what leaves this process; return the former one."""
    global _outside
    attach()
    former, _outside = _outside, source
    _configured()
    return former


def use_for(operation: str, source: Source | None) -> Source | None:
    """
    Ask *source* for *operation* from now on, whatever is asked for the rest.

    Return what was asked before.
    """
    attach()
    former = _overrides.pop(operation, None)
    if source is not None:
        _overrides[operation] = source
    _snapshot()
    return former


def source_through(operation: str, client: Any, session: Any) -> Source:
    """Return a source through a client or a session of boto3."""
    attach()
    return settings.make_source(operation, "aws", client=client, session=session)


# Reading ---------------------------------------------------------------------


@raises_without_variables
def read(
    want: Want,
    transform: Transform,
    field: str | None,
    front: dict[Any, View],
    seat: Any,
    *,
    force: bool = False,
) -> Any:
    """
    Return the value that `get_*` wants, and let later hits find it in *front*.

    A *seat* of None means that they shall not.
    """
    ((entry, how),) = loader.get(
        (want,),
        newer_than=math.inf if force else 0,
        ends_at=ends_at(want.key.operation),
    )
    if not isinstance(entry, Entry):
        raise entry
    if how == FRESH:
        _count_hit(want.key)
    decoded = _decoded(entry, transform, field, want.key.label)
    if seat is not None:
        show(want, entry, decoded, front, seat)
    if protected:
        note(want.key, entry)
    return decoded.give()


@raises_without_variables
def read_many(
    wants: Sequence[Want],
    transform: Transform,
    field: str | None,
    *,
    force: bool = False,
) -> list[Any]:
    """Return the values of *wants* in order, or raise the first error."""
    if not wants:
        return []
    values = []
    found = loader.get(
        wants,
        newer_than=math.inf if force else 0,
        ends_at=ends_at(wants[0].key.operation),
    )
    for want, (entry, how) in zip(wants, found, strict=True):
        if not isinstance(entry, Entry):
            raise entry
        if how == FRESH:
            _count_hit(want.key)
        if protected:
            note(want.key, entry)
        values.append(_decoded(entry, transform, field, want.key.label).give())
    return values


def show(
    want: Want,
    entry: Entry,
    decoded: Decoded,
    front: dict[Any, View] | None = None,
    seat: Any = None,
) -> View:
    """
    Return a view of *entry*, which hits may use for as long as it is good.

    That is not at all if it is stale, or was replaced meanwhile.
    """
    view = View(decoded.value, decoded.copy, None, entry)
    if protected:
        # Imports contextvars, which only users of `refresh_on` need.
        from . import given

        group = group_of(want.key)
        view.copy = given.noting(view, group, entry, decoded.copy)
    now = clock.now()

    def publish() -> None:
        slot = cache.slots.get(want.key)
        if slot is not None:
            view.slot = slot
            until = loader.good_until(slot, entry, want, now)
            if until > now:
                cache.show(view, until, front, seat)

    cache.change(publish)
    return view


def renew(want: Want, order: int) -> None:
    """Load what *want* asks for, unless it is newer than load *order*."""
    ends = ends_at(want.key.operation)
    ((outcome, _),) = loader.get((want,), newer_than=order, ends_at=ends)
    if not isinstance(outcome, Entry):
        raise outcome


def ends_at(operation: str) -> float | None:
    """Return the run time until which a caller waits for a load that begins now."""
    return threads.ends_at(settings.timeout_of(operation))


def current(key: Key) -> Entry | None:
    """Return what is remembered for *key*, however old; asks nothing."""
    slot = cache.slots.get(key)
    return None if slot is None else slot.entry


def group_of(key: Key) -> Key:
    """Return the key that stands for all names of what *key* asks for."""
    slot = cache.slots.get(key)
    return key if slot is None else slot.group


def note(key: Key, entry: Entry) -> None:
    """Note that *entry* is given to a protected call, where one is running."""
    from . import given

    given.note(group_of(key), entry)


def _count_hit(key: Key) -> None:
    slot = cache.slots.get(key)
    if slot is not None:
        slot.hits += 1


def _decoded(
    entry: Entry, transform: Transform, field: str | None, label: str
) -> Decoded:
    try:
        with cache.lock:
            decoded = entry.decoded.get((transform, field))
    except TypeError:  # a callable that cannot be hashed
        return decode(entry.answer.value, transform, field, label)
    if decoded is None:
        decoded = decode(entry.answer.value, transform, field, label)
        with cache.lock:
            if len(entry.decoded) == MAX_DECODED and type(entry.decoded) is dict:
                entry.decoded = _bounded(entry.decoded)
            # One for everybody, whoever was first.
            decoded = entry.decoded.setdefault((transform, field), decoded)
    return decoded


def _bounded(memo: dict[Any, Decoded]) -> MutableMapping[Any, Decoded]:
    """Return *memo* as one that lets go of what was not used for longest."""
    # 2.7 ms, which only a value with that many transforms costs.
    from cachetools import LRUCache

    bounded: LRUCache[Any, Decoded] = LRUCache(MAX_DECODED)
    bounded.update(memo)
    return bounded


# What is declared ------------------------------------------------------------


def declare(handle: Any) -> None:
    """Have *handle* loaded with all others, in INIT or at the first read."""
    attach()
    register.add(handle)


def take_pending() -> list[Any]:
    """Return the handles to be loaded now: none before a snapshot."""
    return [] if before_snapshot() else register.take_pending()


def wants_of(handles: Iterable[Any]) -> list[Want]:
    """
    Return what *handles* want, of those that may be loaded before they are read.

    Not of those that ask AWS at each read, or cannot be asked yet: the first
    read of each raises what is wrong with it.
    """
    wants = []
    for handle in handles:
        try:
            want = handle._bind()
            if want.max_age != 0 and getattr(want.source, "at_init", True):
                wants.append(want)
        except Exception as exc:
            disclosure.inform(
                "not_loaded", key=handle._key.label, error=type(exc).__name__
            )
    return wants


def load_early(handles: Iterable[Any]) -> None:
    """Load *handles* in as few calls as possible; waits `PATIENCE_S` at most."""
    late = loader.load_early(wants_of(handles), INIT_S, PATIENCE_S)
    for key in late:
        disclosure.inform("not_loaded", key=key.label, error="late")


def invalidate(name: str, operation: str, scope: Any = None) -> int:
    """
    Drop every value that a write to *name* may have changed; say how many.

    By name and by every form of the ARN; in *scope* only, if that is given.
    """
    secret = operation == keys.SECRET

    def concerned(key: Key) -> bool:
        if scope is not None and key.scope != scope:
            return False
        reference = key.name.startswith("/aws/reference/")
        if secret != (key.operation == keys.SECRET) and not reference:
            return False
        return keys.concerns(key, name)

    return loader.invalidate(concerned)


# Life ------------------------------------------------------------------------


def attach() -> None:
    """Tie this to the life of the environment; more calls change nothing."""
    global _attached
    with _lock:
        first, _attached = not _attached, True
    if not first:
        return
    phases.listen(phases.INIT, _init)
    phases.listen(phases.SNAPSHOT, _snapshot, priority=phases.NETWORK)
    phases.listen(phases.RESTORE, _restore, priority=phases.NETWORK)
    config.watch(_configured)
    _configured()


def _init() -> None:
    load_early(take_pending())


def before_snapshot() -> bool:
    """Say whether what is loaded now would end up in a snapshot."""
    return (
        os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
        and not (phases.calls[phases.RESTORE])
    )


def _snapshot() -> None:
    for handle in register.live():
        handle._drop()
    loader.clear()


def _restore() -> None:
    _snapshot()
    take_pending()
    load_early(register.live())


@process.at_fork
def _forked() -> None:
    register.forked()
    loader.forked()
    for handle in register.live():
        handle._drop()


def _configured() -> None:
    """Take over options; what hits were promised may no longer hold."""
    with _lock:
        _sources.clear()
    for handle in register.live():
        handle._forget()
    cache.forget_views()


def snapshot() -> Snapshot:
    """Return the counters; calls nobody and waits for nobody."""
    return Snapshot(cache, loader)


@process.at_reset
def reset() -> None:
    """Forget everything, as if this were just imported."""
    global cache, loader, _attached, _override, _outside
    loader.close()
    loader.clear()
    for handle in register.live():
        handle._drop()
    with _lock:
        _sources.clear()
        _attached = False
    register.reset()
    _override = _outside = None
    _overrides.clear()
    cache = Cache(_size, _pinned)
    loader = Loader(cache, _is_transient, _updated, _declared)
