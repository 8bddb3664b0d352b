"""
What every handle and every `get_*` of this process share.

One cache, one loader, one source for secrets and one for parameters, made
when first needed; which handles there are, and which of them are not loaded
yet; and the listeners that tie all that to the life of the execution environment:

    INIT       what is declared is loaded, in one batch (not before a snapshot)
    SNAPSHOT   no value and no reference to one is left
    RESTORE    everything is dead; after the user's hooks, what is declared is loaded
    fork       the child begins with nothing

The loader is made by the first read that memory does not answer: a program that
reads nothing, or not yet, does not load it.

A handle lives as long as the program holds it: one that is gone is neither
loaded nor remembered here.

Threads
    ``_lock`` guards the sources and the one loader.  No source is made or asked
    while it is held; it is re-entrant, since a finalizer may come in between.
    ``_taking`` makes one thread take all that is to be loaded; every other step
    with handles is one operation of a dictionary.
"""

from __future__ import annotations

import contextlib
import math
import sys
import weakref

from .. import config, disclosure
from ..exceptions import LambdaExtError
from ..lifecycle import clock, phases, process
from . import keys, settings
from .cache import FRESH, Cache, Decoded, Entry, View, Want, protected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ..typing import Source
    from .cache import Memo, Slot
    from .counters import Snapshot
    from .declared import Declared
    from .keys import Key
    from .loader import Loader
    from .transforms import Transform

INIT_S = 8.0  # of the 10 s that INIT may take, for a load of what is declared
PATIENCE_S = 2.0  # for which INIT waits at most for such a load
MOTO = "moto.core.models"  # a library that plays AWS in tests
MAX_DECODED = 32  # per entry: each inline lambda given as `transform` is one


DEAD = View()  # what a handle holds before its first read

secrets: dict[Any, View] = {}  # indexes: arguments of a call -> what hits find
parameters: dict[Any, View] = {}

_lock = process.Lock()
_taking = process.Lock()
_sources: dict[str, Source] = {}
_override: Source | None = None  # set by `use`
_overrides: dict[str, Source] = {}  # by operation, set by `use_for`; come first
_outside: Source | None = None  # set by `isolate`; stands for all outside this process
_attached = False
_mock: weakref.ref[Any] | None = None  # moto's, under which the last read was made
_handles: dict[weakref.ref[Declared], bool] = {}  # whether it is to be loaded


def _is_transient(exc: BaseException) -> bool:
    # Not at the top: a program that uses no AWS (tests, local files) needs none of it.
    from ..aws.errors import is_transient

    return is_transient(exc)


def _updated(taken: list[Slot]) -> None:
    """Tell the handles which entries are new, for their `on_change` listeners."""
    entries = {slot.key: slot.entry for slot in taken}
    for handle in live():
        if handle._want is None and not handle._listens():
            continue
        # A handle that cannot be bound has no value that could have changed.
        with contextlib.suppress(LambdaExtError):
            entry = entries.get((handle._want or handle._bind()).key)
            if entry is not None:
                handle._loaded(entry)


def _size() -> int:
    """Return how many values may be remembered."""
    size: int = config.get("cache_size")
    return size


def _pinned() -> set[Key]:
    """Return what is not to be evicted: the keys that live handles read."""
    return {want.key for want in _wants()}


def _wants() -> list[Want]:
    """Return what live handles want, as far as they have been read or loaded."""
    return [handle._want for handle in live() if handle._want is not None]


cache = Cache(_size, _pinned)
_loader: Loader | None = None  # until something is to be loaded


def _loading() -> Loader:
    """Return the one loader, made when first needed."""
    global _loader
    if _loader is None:
        # Its 68 KB are 0.6 ms.  Outside the lock, which no import may wait for.
        from .loader import Loader

        with _lock:
            if _loader is None:
                _loader = Loader(cache, _is_transient, _updated, _wants)
    return _loader


if TYPE_CHECKING:
    loader: Loader
else:

    def __getattr__(name: str) -> Loader:
        if name == "loader":
            return _loading()
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg, name=name)


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
        changes = Want.changes
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
            if Want.changes == changes:  # else it is for this read alone
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


def forget() -> None:
    """Drop every value: by the clock that is installed now no age is known."""
    _snapshot()


def _follow_mock(moto: Any) -> None:
    """Drop every value when the ``mock_aws()`` of moto that is active now ends."""
    global _mock
    patcher = getattr(moto.responses_mock, "_patcher", None)  # one for each mock
    if patcher is None or (_mock is not None and _mock() is patcher):
        return
    _mock = weakref.ref(patcher)
    stop = patcher.stop

    # Not when it is collected: that may be in the midst of another test.
    def stop_and_forget() -> Any:
        try:
            return stop()
        finally:
            forget()

    patcher.stop = stop_and_forget


def use_for(operation: str, source: Source | None) -> Source | None:
    """
    Ask *source* for *operation* from now on, and no other source for it.

    Return what was asked before.
    """
    attach()
    former = _overrides.get(operation)
    if source is None:
        _overrides.pop(operation, None)
    else:  # in one step: other threads find one of the two
        _overrides[operation] = source
    _snapshot()
    return former


def source_through(operation: str, client: Any, session: Any) -> Source:
    """Return a source through a client or a session of boto3."""
    attach()
    return settings.make_source(operation, "aws", client=client, session=session)


# Reading ---------------------------------------------------------------------


def read(
    wants: Sequence[Want],
    transform: Transform,
    field: str | None,
    *,
    force: bool = False,
    index: dict[Any, View] | None = None,
    arguments: Any = None,
    handle: Declared | None = None,
) -> list[View]:
    """
    Return the values of *wants*, all of one operation, or raise the first error.

    Later hits find them in *index* by the *arguments* of the call, or in the
    *handle* that wants its one value; else nowhere.
    """
    if not wants:
        return []
    moto = sys.modules.get(MOTO)
    if moto is not None:
        _follow_mock(moto)
    loader = _loading()
    along: Sequence[Want] = ()
    if handle is not None and not loader.holds(wants[0]):
        along = wants_of(take_pending())
    found = loader.get(
        wants,
        along=along,
        newer_than=math.inf if force else 0,
        ends_at=ends_at(wants[0].key.operation),
    )
    views = []
    for want, (entry, how) in zip(wants, found, strict=True):
        if not isinstance(entry, Entry):
            raise entry
        if how == FRESH and handle is None:
            _count_hit(want.key)
        made = decoded(entry, want.key, transform, field)
        if handle is not None or arguments is not None:
            views.append(publish(want, entry, made, index, arguments))
        else:
            views.append(_view(want, entry, made))
    return views


def publish(
    want: Want,
    entry: Entry,
    made: Decoded,
    index: dict[Any, View] | None = None,
    arguments: Any = None,
) -> View:
    """
    Return a view of *entry*, which hits may use until its `View.until`.

    They find it in *index* by *arguments*, or else where the caller keeps it.
    No hit may use it if the entry is stale or was replaced meanwhile, or if
    options have changed since *want* was made.
    """
    view = _view(want, entry, made)
    now = clock.now()

    def change() -> None:
        slot = cache.slots.get(want.key)
        if slot is not None and not want.is_outdated():
            view.slot = slot
            until = _loading().good_until(slot, entry, want, now)
            if until > now:
                cache.publish(view, until, index, arguments)

    cache.change(change)
    return view


def _view(want: Want, entry: Entry, made: Decoded) -> View:
    view = View(made.value, made.copy, None, entry)
    if protected:
        _note(view, want.key)
    return view


def _note(view: View, key: Key) -> None:
    """Have `View.copy` note that the running calls of `refresh_on` were given *view*."""
    # Imports contextvars, which only users of `refresh_on` need.
    from . import given

    entry, group = view.entry, group_of(key)
    assert entry is not None
    view.copy = given.noting(view, group, entry, view.copy)


def reload(want: Want, sequence: int) -> None:
    """Make sure that the value of *want* is newer than load *sequence*, or raise."""
    ends = ends_at(want.key.operation)
    ((outcome, _),) = _loading().get((want,), newer_than=sequence, ends_at=ends)
    if not isinstance(outcome, Entry):
        raise outcome


def ends_at(operation: str) -> float | None:
    """Return the run time until which a caller waits for a load that begins now."""
    from . import calls  # with the loader

    return calls.ends_at(settings.timeout_of(operation))


def current(key: Key) -> Entry | None:
    """Return what is remembered for *key*, however old; asks nothing."""
    slot = cache.slots.get(key)
    return None if slot is None else slot.entry


def group_of(key: Key) -> Key:
    """Return the key that stands for all names of what *key* asks for."""
    slot = cache.slots.get(key)
    return key if slot is None else slot.group


def note(key: Key, entry: Entry) -> None:
    """Note that *entry* is given to a call of `refresh_on`, if one is running."""
    from . import given

    given.note(group_of(key), entry)


def _count_hit(key: Key) -> None:
    slot = cache.slots.get(key)
    if slot is not None:
        slot.hits += 1


def decoded(entry: Entry, key: Key, transform: Transform, field: str | None) -> Decoded:
    """Return what *transform* and *field* make of *entry*; once per version."""
    try:
        with cache.lock:
            known = entry.decoded.get((transform, field))
    except TypeError:  # a callable that cannot be hashed
        return _decode(entry.answer.value, transform, field, key.label)
    if known is not None:
        return known
    made = _decode(entry.answer.value, transform, field, key.label)
    with cache.lock:
        if len(entry.decoded) == MAX_DECODED and type(entry.decoded) is dict:
            entry.decoded = _bounded(entry.decoded)
            slot = cache.slots.get(key)
            if slot is not None and slot.entry is entry:
                slot.memo = (entry.answer, entry.decoded)
        # One for all readers: that of the first.
        return entry.decoded.setdefault((transform, field), made)


def _decode(raw: Any, transform: Transform, field: str | None, key: str) -> Decoded:
    if transform is None and field is None and type(raw) is str:
        return Decoded(raw)
    # Text as it is needs none of it.
    from .transforms import decode

    return decode(raw, transform, field, key)


def forget_decoded(key: Key) -> None:
    """Forget what transforms made of *key*: they are called again for the same version."""

    def forget() -> bool:
        slot = cache.slots.get(key)
        if slot is not None:
            slot.expire_views()
            slot.memo = None
            if slot.entry is not None:
                slot.entry.decoded = {}
                slot.memo = (slot.entry.answer, slot.entry.decoded)
        return True

    if cache.change(forget) is None:
        cache.change_later(forget)


def _bounded(memo: Memo) -> Memo:
    """Return *memo* as one that drops what was not used for longest."""
    # 2.7 ms, which only a value with that many transforms costs.
    from cachetools import LRUCache

    bounded: LRUCache[Any, Decoded] = LRUCache(MAX_DECODED)
    bounded.update(memo)
    return bounded


# What is declared ------------------------------------------------------------


def declare(handle: Declared) -> None:
    """Have *handle* loaded with all others, in INIT or at the first read."""
    attach()
    # The callback is C code, which no signal handler can interrupt.
    _handles[weakref.ref(handle, _handles.pop)] = True


def live() -> list[Declared]:
    """Return the handles that the program still holds."""
    return [handle for ref in [*_handles] if (handle := ref()) is not None]


def take_pending() -> list[Declared]:
    """Return the handles to be loaded now, in order, once: none before a snapshot."""
    if before_snapshot():
        return []
    with _taking:
        return _taken()


def _taken() -> list[Declared]:
    pending = []
    for ref, is_pending in _handles.copy().items():
        handle = ref() if is_pending else None
        if handle is not None:
            pending.append(handle)
            _handles[ref] = False
    return pending


def wants_of(handles: Iterable[Declared]) -> list[Want]:
    """
    Return what *handles* want, of those that may be loaded before they are read.

    Not of those that ask AWS at each read, or cannot be asked yet: the first
    read of each raises what is wrong with it.
    """
    wants = []
    for handle in handles:
        try:
            want = handle._want or handle._bind()
            if want.max_age != 0 and disclosure.attribute(want.source, "at_init", True):
                wants.append(want)
        except Exception as exc:
            if process.by_signal_handler(exc):
                raise
            disclosure.inform(
                "not_loaded", key=handle._key.label, error=type(exc).__name__
            )
    return wants


def load_early(handles: Iterable[Declared]) -> None:
    """Load *handles* in as few calls as possible; waits `PATIENCE_S` at most."""
    wants = wants_of(handles)
    late = _loading().load_early(wants, INIT_S, PATIENCE_S) if wants else ()
    for key in late:
        disclosure.inform("not_loaded", key=key.label, error="late")


def invalidate(name: str, operation: str, scope: Any = None) -> int:
    """
    Drop every value that a write to *name* may have changed; say how many.

    By name and by every form of the ARN; in *scope* only, if that is given.
    """
    from . import aliases  # only those that write need it

    def concerned(key: Key) -> bool:
        if scope is not None and key.scope != scope:
            return False
        return aliases.depends(key, name, operation)

    return 0 if _loader is None else _loader.invalidate(concerned)


# Life ------------------------------------------------------------------------


def attach() -> None:
    """Register the functions of this module in their phases, once."""
    global _attached
    if not _attached:
        phases.listen_once(phases.INIT, _init)
        phases.listen_once(phases.SNAPSHOT, _snapshot, priority=phases.NETWORK)
        # Before the user's hooks, which may load what they need, and it is kept.
        phases.listen_once(phases.RESTORE, _snapshot, priority=phases.ESSENTIAL)
        phases.listen_once(phases.RESTORE, _restore, priority=phases.NETWORK)
        config.watch(_configured)
        _configured()
        _attached = True  # last: a signal handler may have raised before


def _init() -> None:
    load_early(take_pending())


def before_snapshot() -> bool:
    """Say whether what is loaded now would end up in a snapshot."""
    return config.in_snapstart() and not phases.calls[phases.RESTORE]


def _snapshot() -> None:
    Want.changes += 1  # first: a read that began earlier publishes nothing
    for handle in live():
        handle._drop()
    if _loader is not None:  # else nothing was loaded
        _loader.clear()


def _restore() -> None:
    take_pending()
    load_early(live())


@process.at_fork
def _forked() -> None:
    """Begin with nothing in a forked child."""
    for ref in [*_handles]:
        _handles[ref] = True
    if _loader is None:
        cache.forked()
    else:
        _loader.forked()
    for handle in live():
        handle._drop()


def _configured() -> None:
    """Follow options that have changed: sources are chosen anew, and no view is valid."""
    Want.changes += 1  # first, as above
    with _lock:
        _sources.clear()
    for handle in live():
        handle._forget()
    cache.expire_views()


def snapshot() -> Snapshot:
    """Return the counters; calls nothing and waits for nothing."""
    # Only `stats` needs it.
    from .counters import Snapshot

    return Snapshot(cache, _loading())


@process.at_reset
def reset() -> None:
    """Forget everything, as if this were just imported."""
    global cache, _loader, _attached, _override, _outside
    if _loader is not None:
        _loader.close()
        _loader.clear()
    for handle in live():
        handle._drop()
    with _lock:
        _sources.clear()
    _attached = False
    _handles.clear()
    _override = _outside = None
    _overrides.clear()
    cache = Cache(_size, _pinned)
    _loader = None
