"""What was counted, for `lambda_ext.stats()`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cache import Cache
    from .loader import Loader


class Snapshot:
    """
    The counters, as they were; each is defined by what counts.

    hits          reads by `get_*` answered from memory; handles are not counted
    misses        reads that waited for a load, by `get_*` and by handles
    loads         calls of a source for which a caller waited
    refreshes     calls of a source for which no caller waited
    stale_served  reads that got a value older than they asked for
    errors        failed calls, and failed parts of a batch, by class
    entries       values that are held now
    evictions     values that were let go for want of room
    """

    __slots__ = (
        "entries",
        "errors",
        "evictions",
        "hits",
        "loads",
        "misses",
        "refreshes",
        "stale_served",
    )

    def __init__(self, cache: Cache, loader: Loader) -> None:
        self.hits = cache.hits
        self.misses = loader.misses
        self.loads = loader.loads
        self.refreshes = loader.refreshes
        self.stale_served = loader.stale_served
        self.errors: dict[str, int] = dict(loader.errors)
        self.entries = len(cache)
        self.evictions = cache.evictions

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"Snapshot({fields})"
