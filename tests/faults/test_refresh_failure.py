"""A refresh that fails in the background: the value stays, or it is dead."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
    ThrottledError,
)
from lambda_ext.values import calls, store
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Secret

PASSING = [
    ThrottledError("too many", code="ThrottlingException", transient=True),
    SourceError("broken", code="InternalServiceError", transient=True),
    SourceTimeoutError("no answer", transient=True),
    SourceError("garbage", transient=True),
]
LASTING = [
    AccessDeniedError("no", code="AccessDeniedException"),
    AccessDeniedError("no", code="DecryptionFailure"),
    NotFoundError("gone", code="ResourceNotFoundException"),
    SourceError("marked for deletion", code="InvalidRequestException"),
]

pytestmark = pytest.mark.logs


@pytest.fixture
def source(source, time, monkeypatch):
    """A source whose value has just become due, and a worker that we drive."""
    monkeypatch.setattr(calls, "random", lambda: 1.0)
    monkeypatch.setattr(store.loader, "worker", SimpleNamespace(wake=list, close=list))
    assert "one" == get_secret("db")
    time.advance(271)
    assert "one" == get_secret("db")
    return source


@pytest.mark.parametrize("error", PASSING, ids=lambda error: str(error))
class TestPassing:
    """Failures that may pass."""

    def test_value_is_kept_and_the_next_try_waits(self, source, time, error):
        """Readers notice nothing, and AWS is left alone for a moment."""
        source.fail(error)
        store.loader.refresh_due()
        for _ in range(10):
            assert "one" == get_secret("db")
            store.loader.refresh_due()
        assert 2 == len(source.calls)

        source.recover()
        source.rotate("db", "two")
        time.advance(1)
        assert "one" == get_secret("db")
        store.loader.refresh_due()
        assert "two" == get_secret("db")

    def test_pause_grows_up_to_a_minute(self, source, time, error):
        """1, 2, 4, ... 60 seconds, and again 1 after a success."""
        db = Secret("db", max_age=10_000)
        db.value
        source.fail(error)
        pauses = []
        for _ in range(9):
            store.loader.refresh_due()
            (slot,) = store.cache.slots.values()
            pauses.append(slot.retry_at - (slot.entry.born_at + 271 + sum(pauses)))
            time.advance(pauses[-1])
            assert "one" == db.value
            assert "one" == get_secret("db", max_age=10_000)
            slot.wanted = True
        assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == [round(each) for each in pauses]

        source.recover()
        store.loader.refresh_due()
        assert 0 == slot.failures

    def test_each_step_is_logged_once(self, source, time, error, caplog):
        """One line per try, with the key and the class, never the value."""
        source.fail(error)
        store.loader.refresh_due()
        for _ in range(100):
            get_secret("db")

        (record,) = caplog.records
        assert "WARNING" == record.levelname
        assert (
            f"lambda_ext.refresh_failed key=db source=fake error={type(error).__name__}"
            f" code={error.code}" == record.getMessage()
        )
        assert {type(error).__name__: 1} == store.snapshot().errors

    def test_expired_value_serves_while_it_lasts(self, source, time, error):
        """Refresh and load fail alike; max_stale is the end of it."""
        source.fail(error)
        store.loader.refresh_due()
        time.advance(300 - 271)
        assert "one" == get_secret("db")
        assert 1 == store.snapshot().stale_served

        time.advance(3600)
        with pytest.raises(type(error)):
            get_secret("db")


@pytest.mark.parametrize("error", LASTING, ids=lambda error: str(error))
class TestLasting:
    """Failures that stay."""

    def test_value_is_dead_at_once(self, source, error):
        """No read returns what its owner has taken away, fresh or not."""
        db = Secret("db", transform=str.upper)
        assert "ONE" == db.value
        source.fail(error)
        store.loader.refresh_due()
        assert 0 == store.snapshot().entries

        for read in (lambda: get_secret("db"), lambda: db.value):
            with pytest.raises(type(error)):
                read()

    def test_it_comes_back_when_it_is_given_back(self, source, time, error):
        """Nothing but "not found" is remembered, and that for seconds."""
        source.fail(error, times=1)
        store.loader.refresh_due()
        time.advance(5)

        assert "one" == get_secret("db")


def test_batch_that_fails_in_part(source, time, caplog):
    """What is denied in a batch does not drag the others along."""
    for name in ("a", "b"):
        source.rotate(name, name)
        get_secret(name)
    time.advance(271)
    for name in ("a", "b"):
        get_secret(name)
    source.fail(LASTING[0], name="a")
    source.rotate("b", "new")
    store.loader.refresh_due()

    assert "new" == get_secret("b")
    with pytest.raises(AccessDeniedError) as raised:
        get_secret("a")
    assert "a" == raised.value.key
    (message,) = caplog.messages
    assert (
        "lambda_ext.entry_killed key=a source=fake error=AccessDeniedError"
        " code=AccessDeniedException"
    ) == message


def test_source_that_breaks_its_contract_is_contained(source, time):
    """What a source must not raise is an error of its key, without its words."""

    def broken(wanted, timeout_s):
        raise KeyError("hunter2-sentinel")

    source.fetch = broken
    with pytest.raises(SourceError, match="source fake raised KeyError") as raised:
        get_secret("other")

    error = raised.value
    while error is not None:
        assert "hunter2" not in repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("plan", [lambda wanted: [], lambda wanted: 1 / 0])
def test_source_that_cannot_plan_is_contained(source, plan):
    """A request that no call takes care of is an error, not a hang."""
    source.plan = plan
    with pytest.raises(SourceError, match=r"fake (gave no answer|raised Zero)"):
        get_secret("other")


@pytest.mark.parametrize("answers", [lambda key: {}, lambda key: {key: "hunter2"}])
def test_source_that_forgets_a_key_is_contained(source, answers):
    """No answer, or one that is none, is an error and not a hang."""
    source.fetch = lambda wanted, timeout_s: answers(wanted[0])
    with pytest.raises(SourceError, match="gave no answer for 'other'"):
        get_secret("other")
