"""
What every source must do: a suite for pytest that its tests inherit.

    from lambda_ext.contracts import SourceContract

    class TestVault(SourceContract):
        @pytest.fixture
        def source(self):
            return Vault(...)   # that answers "one" to the secret "contract/a",
                                # and "two" to the secret "contract/b"

What is tested is `lambda_ext.typing.Source`, as the library relies on it.
"""

from __future__ import annotations

import threading

from .answer import Answer
from .exceptions import NotFoundError
from .testing import FakeClock
from .values import keys
from .values.handles import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .typing import Source
    from .values.keys import Key

__all__ = ("SourceContract",)

_PATIENCE_S = 10.0


class SourceContract:
    """What the library relies on; inherit it, and provide ``source``."""

    def test_scope_is_hashable_and_stays(self, source: Source) -> None:
        """It is a part of every key."""
        first, second = source.scope, source.scope

        assert first == second
        assert hash(first) == hash(second)

    def test_name_is_a_word(self, source: Source) -> None:
        """It stands in log lines."""
        assert source.name.isidentifier()

    def test_plan_divides_and_loses_nothing(self, source: Source) -> None:
        """Each request is in exactly one call, and no call is empty."""
        wanted = _wanted(source, *(f"n{number}" for number in range(50)))
        calls = [list(call) for call in source.plan(wanted)]

        assert sorted(wanted) == sorted(key for call in calls for key in call)
        assert all(calls)
        assert list(source.plan([])) == []

    def test_every_request_of_a_call_is_answered(self, source: Source) -> None:
        """By an answer or by an error, never by silence."""
        wanted = _wanted(source, "contract/a", "contract/nope", "contract/b")
        found = _asked(source, wanted)

        assert {*wanted} <= {*found}
        assert [found[wanted[0]].value, found[wanted[2]].value] == ["one", "two"]
        assert isinstance(found[wanted[0]], Answer)

    def test_missing_value_is_not_found(self, source: Source) -> None:
        """The error is an answer for this key alone, and is not transient."""
        (error,) = source.fetch(_wanted(source, "contract/nope"), _PATIENCE_S).values()

        assert isinstance(error, NotFoundError)
        assert not error.transient
        assert "contract/nope" in str(error)
        assert (error.source, error.key) == (source.name, "contract/nope")

    def test_same_value_has_the_same_version(self, source: Source) -> None:
        """Nothing is made anew as long as nothing has changed."""
        versions = {
            answer.version
            for _ in range(3)
            for answer in source.fetch(
                _wanted(source, "contract/a"), _PATIENCE_S
            ).values()
        }

        assert len(versions) == 1

    def test_serves_any_number_of_threads(self, source: Source) -> None:
        """The library asks from several at once."""
        wanted = _wanted(source, "contract/a", "contract/b")
        together = threading.Barrier(8)
        results: list[Mapping[Any, Any]] = []

        def ask() -> None:
            together.wait(_PATIENCE_S)
            results.append(_asked(source, wanted))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(results) == 8
        assert {answer.value for result in results for answer in result.values()} == {
            "one",
            "two",
        }

    def test_repr_shows_no_value(self, source: Source) -> None:
        """A source may hold values, and does not show them."""
        _asked(source, _wanted(source, "contract/a", "contract/b"))

        assert not {"one", "two"} & set(repr(source).replace("'", " ").split())

    def test_handles_read_through_it(self, source: Source) -> None:
        """A handle asks it once, and again when the value has expired."""
        counted = _Counting(source)
        with FakeClock() as clock:
            handle = Secret("contract/a", source=counted, max_age=300)

            assert (handle.value, handle.value) == ("one", "one")
            assert counted.fetches == 1

            clock.advance(300)
            assert (handle.value, handle.value) == ("one", "one")
            assert counted.fetches == 2


class _Counting:
    """A source in front of another, which counts the calls of `fetch`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name
        self.scope = source.scope
        self.plan = source.plan
        self.fetches = 0

    def fetch(
        self, wanted: Sequence[Any], timeout_s: float | None, /
    ) -> Mapping[Any, Any]:
        self.fetches += 1
        return self.source.fetch(wanted, timeout_s)


def _asked(source: Source, wanted: list[Key]) -> dict[Key, Any]:
    """Return what *source* answers, asked as the library asks."""
    found: dict[Key, Any] = {}
    for call in source.plan(wanted):
        found.update(source.fetch(call, _PATIENCE_S))
    for key in wanted:  # what was left out of a call for several
        if key not in found:
            found.update(source.fetch([key], _PATIENCE_S))
    return found


def _wanted(source: Source, *names: str) -> list[Key]:
    """Return requests for secrets, as the library makes them."""
    return [keys.secret(source.scope, name) for name in names]
