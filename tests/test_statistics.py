"""`stats()`: typed, complete, and without a value in it."""

from __future__ import annotations

import dataclasses
import json

import pytest

import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import phases
from lambda_ext.testing import FakeSource


def test_everything_is_zero_at_first():
    """A process that did nothing has counted nothing."""
    found = lambda_ext.stats()

    assert 0 == found.lifecycle.invocations
    assert "none" == found.lifecycle.registration.state
    assert "off" == found.lifecycle.shutdown.path
    assert 0 == found.metrics.recorded
    assert {} == found.transport
    assert 0 == found.values.loads


def test_registration_says_why_there_is_none():
    """Outside Lambda nothing is registered, and the reason is in words."""
    lambda_ext.start()

    registration = lambda_ext.stats().lifecycle.registration

    assert "registered" != registration.state
    assert registration.reason


@pytest.mark.logs
def test_counters_follow_what_happens(capfd):
    """An invocation that reads and records is seen in every part."""

    @lambda_ext.handler
    def handler(event, context):
        metrics.count("orders")
        metrics.count("bad name", float("nan"))
        return lambda_ext.get_secret("db")

    with FakeSource({"db": "hunter2"}):
        handler({}, None)
        lambda_ext.get_secret("db")
    found = lambda_ext.stats()

    assert 1 == found.lifecycle.invocations
    assert 1 == found.lifecycle.phases[phases.RESPONSE].calls
    assert 1 == found.values.loads
    assert 1 == found.values.hits
    assert 1 <= found.metrics.recorded
    assert 1 == sum(found.metrics.dropped.values())
    assert "orders" in capfd.readouterr().out


def test_no_value_is_in_it():
    """The whole object can be printed and logged."""
    with FakeSource({"db": "hunter2"}):
        lambda_ext.get_secret("db")

        found = lambda_ext.stats()

    assert 1 == found.values.entries
    assert "hunter2" not in repr(found)
    assert "hunter2" not in json.dumps(dataclasses.asdict(found), default=repr)
