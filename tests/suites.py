"""What every plug-in of a kind must do: inherit, and provide the fixture.

    class TestMySource(SourceContract):
        @pytest.fixture
        def source(self):
            return MySource(...)    # that answers "one" to the secret
                                    # "contract/a" and "two" to "contract/b"

The names in these suites are the contract of `lambda_ext.typing`.
"""

from __future__ import annotations

from helpers import run_threads

from lambda_ext.exceptions import NotFoundError, SourceError
from lambda_ext.testing import FakeClock
from lambda_ext.values import keys
from lambda_ext.values.cache import Answer
from lambda_ext.values.handles import Secret


class SourceContract:
    """What the loader relies on."""

    def wanted(self, source, *names):
        """Return requests for secrets, as the loader makes them."""
        return [keys.secret(source.scope, name) for name in names]

    def test_scope_is_hashable_and_stays(self, source):
        """It is a part of every key."""
        assert hash(source.scope) == hash(source.scope)
        assert source.scope == source.scope

    def test_name_is_a_word(self, source):
        """It stands in log lines."""
        assert source.name.isidentifier()

    def test_plan_divides_and_loses_nothing(self, source):
        """Each request is in exactly one call."""
        wanted = self.wanted(source, *(f"n{number}" for number in range(50)))
        calls = [list(call) for call in source.plan(wanted)]

        assert sorted(wanted) == sorted(key for call in calls for key in call)
        assert all(calls)
        assert [] == list(source.plan([]))

    def test_every_request_of_a_call_is_answered(self, source):
        """By an answer or by an error, never by silence."""
        wanted = self.wanted(source, "contract/a", "contract/nope", "contract/b")
        found = {}
        for call in source.plan(wanted):
            found.update(source.fetch(call, 10.0))

        assert {*wanted} <= {*found}
        assert ["one", "two"] == [found[wanted[0]].value, found[wanted[2]].value]
        assert isinstance(found[wanted[0]], Answer)

    def test_missing_value_is_not_found(self, source):
        """One missing value neither raises nor spoils the others."""
        wanted = self.wanted(source, "contract/nope")
        (error,) = source.fetch(wanted, 10.0).values()

        assert isinstance(error, NotFoundError)
        assert not error.transient
        assert "contract/nope" in str(error)
        assert (source.name, "contract/nope") == (error.source, error.key)

    def test_same_value_has_the_same_version(self, source):
        """Nothing is made anew as long as nothing has changed."""
        wanted = self.wanted(source, "contract/a")
        versions = {
            answer.version
            for _ in range(3)
            for answer in source.fetch(wanted, 10.0).values()
        }

        assert 1 == len(versions)

    def test_serves_any_number_of_threads(self, source):
        """The loader asks from several at once."""
        wanted = self.wanted(source, "contract/a", "contract/b")
        results = run_threads(8, lambda _: source.fetch(wanted, 10.0))

        assert {"one", "two"} == {
            answer.value for result in results for answer in result.values()
        }

    def test_repr_shows_no_value(self, source):
        """A source may hold values, and does not show them."""
        source.fetch(self.wanted(source, "contract/a", "contract/b"), 10.0)

        assert not {"one", "two"} & set(repr(source).replace("'", " ").split())

    def test_handles_read_through_it(self, source):
        """Caching, copying and freshness come from us."""
        with FakeClock() as time:
            a = Secret("contract/a", source=source)
            assert "one" == a.value
            time.advance(300)
            assert "one" == a.value

    def test_unreachable_source_would_be_transient(self, source):
        """Errors of a source are SourceErrors, which know whether they may pass."""
        (error,) = source.fetch(self.wanted(source, "contract/nope"), 10.0).values()

        assert isinstance(error, SourceError)
        assert isinstance(error.transient, bool)
