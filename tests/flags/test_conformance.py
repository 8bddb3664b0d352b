"""
The scenarios of OpenFeature's specification, with our provider in the place of
the SDK's in-memory one: evaluation, hooks, context merging.

Source: specification/assets/gherkin of https://github.com/open-feature/spec
(evaluation.feature, hooks.feature, contextMerging.feature); the flags are those
of the same folder, written as a flag document.
"""

from __future__ import annotations

import json

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.hook import Hook
from openfeature.transaction_context import ContextVarsTransactionContextPropagator

from lambda_ext import Flags
from lambda_ext.openfeature import AppConfigProvider
from lambda_ext.testing import FakeFlags

TEMPLATE = {"showImages": True, "title": "Check out these pics!", "imagesPerPage": 100}
INTERNAL = (
    '(and (eq $fn "Sulisław") (eq $ln "Świętopełk") (eq $age 29) (eq $customer false))'
)
LEVELS = ("API", "Transaction", "Client", "Invocation", "Before Hooks")


def static(variant, **attributes):
    """Return a flag with one variant, which nothing chooses."""
    return {
        "_variants": [{"name": variant, "enabled": True, "attributeValues": attributes}]
    }


FLAGS = {
    "boolean-flag": static("on"),
    "string-flag": static("greeting", value="hi"),
    "integer-flag": static("ten", value=10),
    "float-flag": static("half", value=0.5),
    "object-flag": static("template", value=TEMPLATE),
    "wrong-flag": static("one", value="uno"),
    "context-aware": {
        "_variants": [
            {"name": "internal", "enabled": True, "rule": INTERNAL,
             "attributeValues": {"value": "INTERNAL"}},
            {"name": "external", "enabled": True,
             "attributeValues": {"value": "EXTERNAL"}},
        ]
    },
}  # fmt: skip


@pytest.fixture(name="client")
def _client():
    """A client over our provider; nothing is left over from other tests."""
    api.set_transaction_context_propagator(ContextVarsTransactionContextPropagator())
    api.set_transaction_context(EvaluationContext())
    api.set_evaluation_context(EvaluationContext())
    with FakeFlags(json.loads(json.dumps(FLAGS))):
        api.set_provider_and_wait(AppConfigProvider(Flags("a", "b", "c")))
        yield api.get_client()
        api.clear_providers()
    api.clear_hooks()
    api.set_evaluation_context(EvaluationContext())
    api.set_transaction_context(EvaluationContext())


@pytest.mark.parametrize(
    ("kind", "key", "default", "value", "variant"),
    [
        ("boolean", "boolean-flag", False, True, "on"),
        ("string", "string-flag", "bye", "hi", "greeting"),
        ("integer", "integer-flag", 1, 10, "ten"),
        ("float", "float-flag", 0.1, 0.5, "half"),
        ("object", "object-flag", None, TEMPLATE, "template"),
    ],
)
def test_resolves(client, kind, key, default, value, variant):
    """Scenarios "Resolves ... value" and "Resolves ... details"."""
    details = getattr(client, f"get_{kind}_details")(key, default)

    assert value == getattr(client, f"get_{kind}_value")(key, default)
    assert (value, variant, "STATIC") == (
        details.value,
        details.variant,
        details.reason,
    )


def test_resolves_based_on_context(client):
    """Scenario "Resolves based on context"."""
    context = EvaluationContext(
        None, {"fn": "Sulisław", "ln": "Świętopełk", "age": 29, "customer": False}
    )

    assert "INTERNAL" == client.get_string_value("context-aware", "EXTERNAL", context)
    assert "EXTERNAL" == client.get_string_value("context-aware", "EXTERNAL")


def test_errors(client):
    """Scenarios "Flag not found" and "Type error"."""
    missing = client.get_string_details("missing-flag", "uh-oh")
    wrong = client.get_integer_details("wrong-flag", 13)

    assert ("uh-oh", "ERROR", ErrorCode.FLAG_NOT_FOUND) == (
        missing.value,
        missing.reason,
        missing.error_code,
    )
    assert (13, "ERROR", ErrorCode.TYPE_MISMATCH) == (
        wrong.value,
        wrong.reason,
        wrong.error_code,
    )


class Recorder(Hook):
    """Notes which hooks were called, and with which details."""

    def __init__(self):
        self.called = []

    def before(self, hook_context, hints):
        """Note it."""
        self.called.append(("before", None))

    def after(self, hook_context, details, hints):
        """Note the details."""
        self.called.append(("after", self._facts(details)))

    def error(self, hook_context, exception, hints):
        """Note the exception."""
        self.called.append(("error", type(exception).__name__))

    def finally_after(self, hook_context, details, hints):
        """Note the details."""
        self.called.append(("finally", self._facts(details)))

    @staticmethod
    def _facts(details):
        code = details.error_code
        return (details.flag_key, details.value, details.variant, str(details.reason),
                code and code.value)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "key", "default", "called"),
    [
        (
            "boolean", "boolean-flag", False,
            [("before", None),
             ("after", ("boolean-flag", True, "on", "STATIC", None)),
             ("finally", ("boolean-flag", True, "on", "STATIC", None))],
        ),
        (
            "string", "missing-flag", "uh-oh",
            [("before", None), ("error", "FlagNotFoundError"),
             ("finally", ("missing-flag", "uh-oh", None, "ERROR", "FLAG_NOT_FOUND"))],
        ),
        (
            "integer", "wrong-flag", 13,
            [("before", None), ("error", "TypeMismatchError"),
             ("finally", ("wrong-flag", 13, None, "ERROR", "TYPE_MISMATCH"))],
        ),
    ],
)  # fmt: skip
def test_hooks(client, kind, key, default, called):
    """Scenarios of "Evaluation details through hooks"."""
    recorder = Recorder()
    client.add_hooks([recorder])
    getattr(client, f"get_{kind}_details")(key, default)

    assert called == recorder.called


class Injector(Hook):
    """Adds a context before the evaluation."""

    def __init__(self, context):
        self.context = context

    def before(self, hook_context, hints):
        """Return the context."""
        return self.context


def evaluate_with(client, contexts):
    """Evaluate a flag with a context on each level; return what the rules saw."""
    empty = EvaluationContext()
    api.set_evaluation_context(contexts.get("API", empty))
    api.set_transaction_context(contexts.get("Transaction", empty))
    client.context = contexts.get("Client", empty)
    client.add_hooks([Injector(contexts.get("Before Hooks", empty))])
    seen = []
    client.provider._flags.on_evaluation(lambda found: seen.append(found.context))
    client.get_boolean_details("boolean-flag", False, contexts.get("Invocation", empty))
    return dict(seen[0])


@pytest.mark.parametrize("level", LEVELS)
def test_context_of_one_level(client, level):
    """Scenario "A context entry is added to a single level"."""
    context = EvaluationContext(attributes={"key": "value"})

    assert {"key": "value"} == evaluate_with(client, {level: context})


def test_context_of_each_level(client):
    """Scenario "A context entry is added to each level with different keys"."""
    contexts = {
        level: EvaluationContext(attributes={level: f"{level} value"})
        for level in LEVELS
    }

    assert {level: f"{level} value" for level in LEVELS} == evaluate_with(
        client, contexts
    )


@pytest.mark.parametrize("last", range(len(LEVELS)))
def test_later_levels_come_first(client, last):
    """Scenario "... overwrites values with the same key from preceding levels"."""
    contexts = {
        level: EvaluationContext(level, {"key": level}) for level in LEVELS[: last + 1]
    }

    assert {"key": LEVELS[last], "targetingKey": LEVELS[last]} == (
        evaluate_with(client, contexts)
    )
