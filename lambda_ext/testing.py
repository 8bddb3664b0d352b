"""
Doubles for the tests of those who use this library, and for its own.

    with FakeClock() as clock:
        assert db.value == "old"
        clock.freeze(3600)              # an hour without CPU time
        assert db.value == "new"
"""

from __future__ import annotations

from .lifecycle import clock as _clock

__all__ = ("FakeClock",)


class FakeClock:
    """
    A clock that stands still until it is told otherwise; all in seconds.

    It begins at *wall* seconds since the epoch.  `install()` makes it the
    clock of the library, `uninstall()` goes back to the one before; as a
    context manager it does both.  It keeps what the machine's clocks promise:
    run time never goes back.
    """

    def __init__(
        self, wall: float = 1_700_000_000.0, monotonic: float = 1_000.0
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Return run time."""
        return self._monotonic

    def wall(self) -> float:
        """Return wall time."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by while the process runs."""
        self._check(seconds)
        self._monotonic += seconds
        self._wall += seconds

    def freeze(self, seconds: float) -> None:
        """Let *seconds* go by while the environment is frozen: wall time only."""
        self._check(seconds)
        self._wall += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back when *seconds* is negative."""
        self._wall += seconds

    @staticmethod
    def _check(seconds: float) -> None:
        if not seconds >= 0:
            msg = f"time goes forward: {seconds!r}; step() sets the wall clock back"
            raise ValueError(msg)

    def install(self) -> FakeClock:
        """Make this the library's clock."""
        _clock.install(self)
        return self

    def uninstall(self) -> None:
        """Go back to the machine's clocks."""
        _clock.install(None)

    def __enter__(self) -> FakeClock:
        return self.install()

    def __exit__(self, *exc_info: object) -> None:
        self.uninstall()
