"""What is made once is made once, also when a signal handler asks in the middle."""

from __future__ import annotations

import types
import weakref

import pytest
from interruptions import interruptions

from lambda_ext import Flags, config, invocation
from lambda_ext.aws import tls, transport
from lambda_ext.flags import configuration, flags, session
from lambda_ext.lifecycle import clock, deadline, phases, process
from lambda_ext.metrics import recorder
from lambda_ext.telemetry import reports
from lambda_ext.testing import FakeFlags
from lambda_ext.values import derived, store

PHASES = [
    *(phases.INIT, phases.INVOKE, phases.RESPONSE, phases.TIMEOUT),
    *(phases.SNAPSHOT, phases.RESTORE, phases.SHUTDOWN),
]


class TestOneForAll:
    """A caller, and a signal handler that interrupts it anywhere, share one object."""

    @pytest.mark.parametrize("way", ["light", "boto3"])
    def test_transport_of_a_service(self, way):
        """Connections, credentials and a refusal that is remembered are shared."""
        config.configure(transport=way)

        assert_shared([transport], lambda: transport.transport("ssm"), transport.reset)

    def test_transport_of_a_session(self):
        """A session of boto3 has one client, as without this library."""
        boto3 = types.SimpleNamespace(region_name="eu-central-1")

        for modules in ([transport], [transport, weakref]):
            assert_shared(
                modules,
                lambda: transport.transport("ssm", session=boto3),
                transport.reset,
            )

    def test_context_of_a_store(self):
        """TLS sessions are resumed within one context only."""
        assert_shared([tls], lambda: tls.context(tls.AMAZON), tls.reset)

    def test_session_of_a_configuration(self):
        """Two sessions of one configuration would each be billed."""
        source = session.AppConfig()

        assert_shared(
            [session], lambda: source.session("a/b/c"), source._sessions.clear, places=3
        )


@pytest.mark.logs
def test_defaults_are_counted_exactly(caplog):
    """A signal handler that is given a default in the middle is counted, too."""
    with FakeFlags({}):
        features = Flags("a", "b", "c")

        def ask():
            features.enabled("missing", default=True)

        ask()  # imports are not what is interrupted
        for run in interruptions([flags], ask):
            flags.defaulted.clear()
            caplog.clear()
            with run:
                ask()

            assert {"missing": 1 + run.happened} == flags.defaulted
            assert 1 == len(caplog.records)


def test_start_joins_once(monkeypatch):
    """A signal handler that starts the library in the middle of that changes nothing."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "localhost:1")
    config.configure(disable="signals,extension")
    seen = []

    for run in interruptions([invocation], invocation.start):
        invocation.reset()
        seen.clear()
        phases.listen(phases.INIT, lambda: seen.append(1))
        with run:
            invocation.start()
        if run.sent:
            assert [1] == seen
        phases.reset()


@pytest.mark.parametrize(
    ("module", "join"),
    [
        (store, store.attach),
        (derived, derived._attach),
        (configuration, configuration._attach),
        (session, session.AppConfig),
        (transport, lambda: transport.transport("ssm")),
        (deadline, deadline.watch),
        (reports, reports.follow),
        (recorder, recorder._join),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_joining_that_was_interrupted_is_made_up_for(module, join):
    """The next call joins all phases, each once, whatever a signal handler stopped."""
    process.reset()
    join()
    expected = joined()
    interrupted = 0

    for run in interruptions([module, phases]):
        process.reset()
        assert expected != joined()
        with run:
            join()
        join()

        assert expected == joined()
        interrupted += run.raised
    assert interrupted > 3


def joined():
    """Return who is called when, by phase, and how deadlines are watched."""
    listeners = [sorted(map(str, phases.listeners(phase))) for phase in PHASES]
    return listeners, clock.alarm, clock.horizon, deadline._margin_s


def assert_shared(modules, make, forget, places=5):
    """Check that make() returns one object, with another caller at each place."""
    make()  # imports are not what is interrupted
    others = []
    number = 0
    for run in interruptions(modules, lambda: others.append(make())):
        forget()
        others.clear()
        with run:
            mine = make()
        number += 1
        assert all(other is mine for other in others), number

    assert number > places
