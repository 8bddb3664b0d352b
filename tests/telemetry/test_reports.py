"""platform.report beside the invocation that it is about."""

from __future__ import annotations

import pytest

import lambda_ext
from lambda_ext import telemetry
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.telemetry import dispatch, records, reports


class Context:
    """Lambda's context object."""

    def __init__(self, request_id):
        self.aws_request_id = request_id

    def get_remaining_time_in_millis(self):
        return 3000


def report(request_id, type_="platform.report"):
    """Return a batch with a report in it."""
    element = {"type": type_, "record": {"requestId": request_id}}
    return records.Batch([records.make(element)])


def test_a_report_finds_the_invocation_that_it_is_about():
    """It comes during a later one, of which it says nothing."""
    seen = []

    @telemetry.on_report
    def collect(record, outcome):
        seen.append(
            (record.request_id, outcome and (outcome.request_id, outcome.error))
        )

    @lambda_ext.handler
    def handle(event, context):
        if event:
            raise ValueError("no")
        dispatch.dispatch(report("one"))
        assert dispatch.drain(30)

    with pytest.raises(ValueError, match="no"):
        handle({"fail": 1}, Context("one"))
    handle({}, Context("two"))
    dispatch.dispatch(report("two"))
    dispatch.dispatch(report("of another environment"))
    dispatch.dispatch(report("two", "platform.start"))

    assert dispatch.drain(30)
    assert [
        ("one", ("one", ValueError)),
        ("two", ("two", None)),
        ("of another environment", None),
    ] == seen


def test_outcomes_are_bounded(monkeypatch):
    """The oldest is forgotten; an invocation without an id is not kept."""
    monkeypatch.setattr(reports, "MAX_OUTCOMES", 2)
    reports.follow()
    reports.follow()
    handle = lambda_ext.handler(lambda event, context: None)
    for name in ("a", "b", None, "c"):
        handle({}, Context(name))

    assert [None, "b", "c", None] == [
        found and found.request_id
        for found in map(reports.outcome_of, ("a", "b", "c", None))
    ]


def test_nothing_is_kept_unasked():
    """An invocation leaves nothing behind where no function wants reports."""
    lambda_ext.handler(lambda event, context: None)({}, Context("a"))

    assert reports.outcome_of("a") is None


@pytest.mark.logs
def test_one_that_raises_has_the_next_report_and_delays_no_other():
    """It is named in the statistics."""
    seen = []

    @telemetry.on_report
    def fail(record, outcome):
        seen.append(record.request_id)
        raise SystemExit

    @telemetry.on_report
    def collect(record, outcome):
        seen.append(record.request_id)

    both = records.Batch([report("a").records[0], report("b").records[0]])
    dispatch.dispatch(both)

    assert dispatch.drain(30)
    assert ["a", "a", "b", "b"] == sorted(seen)
    assert [1, 0] == [status.failures for status in dispatch.status()]
    assert "fail" in dispatch.status()[0].name


@pytest.mark.logs
@pytest.mark.parametrize("name", ["on_report", "on_batch"])
def test_coroutine_of_a_plain_consumer_is_a_failure(name):
    """It was called, and has done nothing."""

    async def later(*_):
        pass

    getattr(telemetry, name)(lambda *given: later(*given))
    dispatch.dispatch(report("a"))

    assert dispatch.drain(30)
    assert [1] == [status.failures for status in dispatch.status()]


def test_what_cannot_be_called_is_refused():
    """At the decorator, not with the first report."""

    async def later(*_):
        pass

    for decorate in (telemetry.on_report, telemetry.on_batch):
        with pytest.raises(ConfigurationError, match="decorates a function, not int"):
            decorate(3)
        with pytest.raises(ConfigurationError, match="write def instead of async def"):
            decorate(later)

    assert [] == telemetry.consumers
