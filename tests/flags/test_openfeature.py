"""The OpenFeature provider: values, reasons, errors, events, tracking."""

from __future__ import annotations

import asyncio
import json

import pytest
from helpers import python, run_threads
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode, GeneralError, ProviderFatalError
from openfeature.provider import ProviderStatus
from openfeature.track import TrackingEventDetails

import lambda_ext
from lambda_ext import Flags
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.local.server import Answer, Server
from lambda_ext.openfeature import AppConfigProvider
from lambda_ext.testing import simulate_restore

NAME = "orders/prod/features"
DOCUMENT = {
    "on": {"enabled": True, "value": "hi", "n": 5, "x": 0.5, "whole": 7.0,
           "yes": True, "list": [1], "map": {"a": 1}},
    "off": {"enabled": False, "value": "hidden"},
    "bad": 5,
    "checkout": {
        "_variants": [
            {"name": "staff", "enabled": True, "rule": '(eq $userId "7")',
             "attributeValues": {"value": "blue"}},
            {"name": "rest", "enabled": False},
        ]
    },
}  # fmt: skip


@pytest.fixture(name="flags")
def _flags(appconfig, background):
    """The flags of a freeform profile."""
    lambda_ext.configure(transport="light")
    appconfig.deploy(NAME, json.dumps(DOCUMENT), label="v1")
    return Flags(*NAME.split("/"))


@pytest.fixture(name="client")
def _client(flags):
    """A client over the provider, which is ready."""
    api.set_provider_and_wait(AppConfigProvider(flags, targeting_key="userId"))
    yield api.get_client()
    api.clear_providers()


CASES = [
    # (method, key, default, value, reason, error)
    ("boolean", "on", False, True, "STATIC", None),
    ("boolean", "off", True, False, "DISABLED", None),
    ("boolean", "on.yes", False, True, "STATIC", None),
    ("string", "on", "x", "hi", "STATIC", None),
    ("string", "on.value", "x", "hi", "STATIC", None),
    ("integer", "on.n", 0, 5, "STATIC", None),
    ("integer", "on.whole", 0, 7, "STATIC", None),
    ("float", "on.x", 0.0, 0.5, "STATIC", None),
    ("float", "on.n", 0.0, 5.0, "STATIC", None),
    ("object", "on.list", {}, [1], "STATIC", None),
    ("object", "on.map", {}, {"a": 1}, "STATIC", None),
    ("string", "off", "x", "x", "DISABLED", None),
    ("string", "checkout", "x", "x", "DEFAULT", None),
    ("boolean", "onn", True, True, "ERROR", ErrorCode.FLAG_NOT_FOUND),
    ("string", "onn.value", "x", "x", "ERROR", ErrorCode.FLAG_NOT_FOUND),
    ("string", "on.none", "x", "x", "ERROR", ErrorCode.FLAG_NOT_FOUND),
    ("string", "on.n", "x", "x", "ERROR", ErrorCode.TYPE_MISMATCH),
    ("boolean", "on.n", True, True, "ERROR", ErrorCode.TYPE_MISMATCH),
    ("integer", "on.yes", 1, 1, "ERROR", ErrorCode.TYPE_MISMATCH),
    ("integer", "on.x", 1, 1, "ERROR", ErrorCode.TYPE_MISMATCH),
    ("float", "on.yes", 1.0, 1.0, "ERROR", ErrorCode.TYPE_MISMATCH),
    ("object", "on.value", {}, {}, "ERROR", ErrorCode.TYPE_MISMATCH),
    ("boolean", "bad", True, True, "ERROR", ErrorCode.PARSE_ERROR),
]


@pytest.mark.parametrize(
    ("method", "key", "default", "value", "reason", "error"), CASES
)
def test_value(client, method, key, default, value, reason, error):
    """Each type comes from where it should, with reason, error and version."""
    details = getattr(client, f"get_{method}_details")(key, default)
    again = asyncio.run(getattr(client, f"get_{method}_details_async")(key, default))

    assert (value, reason, error) == (details.value, details.reason, details.error_code)
    assert details == again
    assert type(value) is type(details.value)
    if error is None:
        assert "v1" == details.flag_metadata["version"]


def test_targeting(client):
    """Rules see the targeting key and the attributes; the variant is told."""
    context = EvaluationContext("7", {"tier": "gold"})
    found = client.get_boolean_details("checkout", False, context)

    assert (True, "staff", "TARGETING_MATCH") == (
        found.value,
        found.variant,
        found.reason,
    )
    assert "blue" == client.get_string_value("checkout", "x", context)
    assert "rest" == client.get_boolean_details("checkout", True).variant
    assert client.get_boolean_value(
        "checkout", False, EvaluationContext(attributes={"userId": "7"})
    )


def test_objects_are_copies(client):
    """What a caller changes, no other caller sees."""
    client.get_object_value("on.list", []).append(2)

    assert [1] == client.get_object_value("on.list", [])


def test_provider_of_the_environment(flags, monkeypatch):
    """Without an argument LAMBDA_EXT_FLAGS says which flags."""
    monkeypatch.setenv("LAMBDA_EXT_FLAGS", NAME)
    lambda_ext.config.reset()
    api.set_provider_and_wait(AppConfigProvider())

    assert api.get_client().get_boolean_value("on", False)
    assert "AWS AppConfig (lambda_ext)" == api.get_provider_metadata().name
    api.clear_providers()


def test_what_is_no_flags_is_refused():
    """The provider takes a Flags."""
    with pytest.raises(ConfigurationError, match="takes a Flags"):
        AppConfigProvider("orders/prod/features")


class TestEvents:
    """What the provider tells the SDK."""

    @pytest.fixture(name="heard")
    def _heard(self):
        """Events in the order in which they were emitted."""
        return []

    @pytest.fixture(name="provider")
    def _provider(self, flags, heard):
        """A provider that was attached and initialised as the SDK does it."""
        provider = AppConfigProvider(flags)
        provider.attach(
            lambda _, event, details: heard.append((event.name, details.flags_changed))
        )
        provider.initialize(EvaluationContext())
        return provider

    def test_ready(self, client):
        """Once the first document is there the provider is ready."""
        assert ProviderStatus.READY == client.get_provider_status()

    def test_error_without_a_document(self, flags, appconfig):
        """Where nothing is deployed, setting the provider fails in words."""
        provider = AppConfigProvider(Flags("a", "b", "c"))
        with pytest.raises(GeneralError) as caught:
            api.set_provider_and_wait(provider)
        client = api.get_client()

        assert "a/b/c" in caught.value.error_message
        assert ProviderStatus.ERROR == client.get_provider_status()
        found = provider.resolve_boolean_details("on", True)
        assert (True, ErrorCode.PROVIDER_NOT_READY) == (found.value, found.error_code)
        appconfig.deploy("a/b/c", json.dumps(DOCUMENT))
        simulate_restore()
        api.clear_providers()
        api.set_provider_and_wait(provider)
        assert client.get_boolean_value("on", False)
        api.clear_providers()

    def test_wrong_options_are_fatal(self):
        """What no poll will repair is fatal."""
        with pytest.raises(ProviderFatalError) as caught:
            api.set_provider_and_wait(AppConfigProvider())
        api.clear_providers()

        assert "LAMBDA_EXT_FLAGS" in caught.value.error_message

    def test_configuration_changed(self, provider, heard, appconfig, time, background):
        """A new version is told with the names of the flags that changed."""
        changed = {**DOCUMENT, "on": {"enabled": False}, "new": {"enabled": True}}
        del changed["off"]
        appconfig.deploy(NAME, json.dumps(changed))
        time.advance(64)
        provider.resolve_boolean_details("on", False)
        background.run()

        assert [("PROVIDER_CONFIGURATION_CHANGED", ["on", "off", "new"])] == heard
        assert not provider.resolve_boolean_details("on", True).value

    def test_stale_and_ready_again(self, provider, heard, time, background):
        """An old document is told once, and a fresh one again."""
        time.freeze(600)
        found = [provider.resolve_boolean_details("on", False) for _ in range(3)]
        assert {(True, "STALE")} == {(each.value, each.reason) for each in found}
        assert [("PROVIDER_STALE", None)] == heard
        background.run()
        provider.resolve_boolean_details("on", False)

        assert [("PROVIDER_STALE", None), ("PROVIDER_READY", None)] == heard

    @pytest.mark.logs
    def test_recovery_is_told(self, heard, appconfig, time, background):
        """Where AppConfig failed at first, the first evaluation that succeeds says ready."""
        lambda_ext.configure(transport="light")
        provider = AppConfigProvider(Flags(*NAME.split("/")))
        provider.attach(
            lambda _, event, details: heard.append((event.name, details.flags_changed))
        )
        with pytest.raises(GeneralError):
            provider.initialize(EvaluationContext())
        provider.resolve_boolean_details("on", False)
        assert [] == heard
        appconfig.deploy(NAME, '{"on": {"enabled": true}}')
        time.advance(60)
        for _ in range(2):
            assert provider.resolve_boolean_details("on", False).value
        assert [("PROVIDER_READY", None)] == heard
        appconfig.deploy(NAME, '{"on": {"enabled": false}}')
        time.advance(64)
        provider.resolve_boolean_details("on", False)
        background.run()

        assert [("PROVIDER_CONFIGURATION_CHANGED", ["on"])] == heard[1:]

    def test_stale_is_told_again_after_a_new_start(self, provider, heard, time):
        """A provider that is set anew says anew that its document is old."""
        time.freeze(600)
        provider.resolve_boolean_details("on", False)
        provider.shutdown()
        provider.initialize(EvaluationContext())
        provider.resolve_boolean_details("on", False)

        assert [("PROVIDER_STALE", None)] * 2 == heard

    def test_nothing_after_shutdown(self, provider, heard, appconfig, time, background):
        """A provider that was replaced emits nothing, attached or not."""
        provider.shutdown()
        appconfig.deploy(NAME, '{"on": {"enabled": false}}')
        time.freeze(600)
        provider.resolve_boolean_details("on", False)
        background.run()
        provider.detach()

        assert not provider.resolve_boolean_details("on", True).value
        assert [] == heard


def test_agent_that_fails_later_is_a_general_error():
    """The provider is ready, and the agent does not answer for one evaluation."""
    replies = [Answer(200, b'{"on": {"_variant": "a", "enabled": true}}')]
    server = Server(lambda _: replies.pop() if replies else Answer(500, b""))
    lambda_ext.configure(
        flags_source="agent", agent_port=int(server.address.rpartition(":")[2])
    )
    api.set_provider_and_wait(AppConfigProvider(Flags("a", "b", "c")))
    found = api.get_client().get_boolean_details("on", False, EvaluationContext("7"))
    api.clear_providers()
    server.close()

    assert (False, ErrorCode.GENERAL) == (found.value, found.error_code)


def test_track(flags):
    """track() hands everything to the function that was given."""
    tracked = []
    provider = AppConfigProvider(flags, on_track=lambda *args: tracked.append(args))
    api.set_provider_and_wait(provider)
    client = api.get_client()
    client.track("bought", EvaluationContext("7"), TrackingEventDetails(9.5, {"a": 1}))
    api.clear_providers()
    AppConfigProvider(flags).track("nothing")

    ((name, context, details),) = tracked
    assert ("bought", "7", 9.5) == (name, context.targeting_key, details.value)


def test_threads(client):
    """Any number of threads evaluates, each with its own context."""

    def body(number):
        context = EvaluationContext(str(number))
        return [client.get_boolean_value("checkout", False, context) for _ in range(50)]

    results = run_threads(10, body)

    assert [[number == 7] * 50 for number in range(10)] == results


def test_agent_s_errors(flags, client, monkeypatch):
    """What the agent cannot be sent is an invalid context."""
    from lambda_ext.exceptions import FlagError
    from lambda_ext.flags.document import Evaluation

    broken = Evaluation("checkout", enabled=False, reason="ERROR", version="v1",
                        error=FlagError("no", flag="checkout"))  # fmt: skip
    monkeypatch.setattr(Flags, "evaluate", lambda *args: broken)

    found = client.get_boolean_details("checkout", True)
    assert (True, ErrorCode.INVALID_CONTEXT) == (found.value, found.error_code)


def test_costs_nothing_unless_used():
    """Flags do not load the SDK."""
    done = python(
        "import sys, lambda_ext; lambda_ext.Flags('a', 'b', 'c');"
        "print([m for m in sys.modules if m.split('.')[0] == 'openfeature'])"
    )

    assert "[]" == done.stdout.strip(), done.stderr


def test_missing_sdk_is_said_in_words():
    """Without the extra the error says what to install."""
    done = python(
        "import sys; sys.modules['openfeature'] = None\nimport lambda_ext.openfeature"
    )

    assert "pip install 'lambda-ext[openfeature]'" in done.stderr
