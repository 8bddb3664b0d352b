"""What is made once is made once, also when a signal handler asks in the middle."""

from __future__ import annotations

import types
import weakref

import pytest
from interruptions import interruptions

from lambda_ext import Flags, config, invocation
from lambda_ext.aws import boto, tls, transport
from lambda_ext.dropin import light_client
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


class Client:
    """What boto3 makes, in its place."""

    meta = types.SimpleNamespace(endpoint_url="https://h", region_name="eu-central-1")

    def __init__(self, made):
        made.append(self)
        self.is_open = True

    def close(self):
        self.is_open = False


class TestOneClient:
    """A signal handler asks for boto3's client while that is made: one is kept."""

    @pytest.fixture(name="made")
    def _made(self, monkeypatch):
        """All clients that boto3 has made."""
        made = []
        own = types.SimpleNamespace(
            region_name="eu-central-1", client=lambda *_, **__: Client(made)
        )
        monkeypatch.setattr(boto, "default_session", lambda: own)
        monkeypatch.setattr(boto, "_maker", lambda: own)
        return made

    @pytest.mark.parametrize("kind", ["transport", "drop-in"])
    def test_the_first_one_is_kept(self, made, kind):
        """Both work with it; another one, made by who was interrupted, is closed."""
        twice = 0
        used, asked = [], []

        def ask():
            one = asked[-1]
            used.append(one.client() if kind == "transport" else one._made())

        for run in interruptions([boto, light_client], ask):
            made.clear()
            used.clear()
            new = boto.Boto if kind == "transport" else light_client.client
            asked.append(new("ssm"))
            with run:
                ask()
            ask()

            (client,) = {*used}
            assert [client] == [each for each in made if each.is_open]
            twice += len(made) > 1
        assert twice > 0

    def test_it_is_still_known_as_the_librarys_own(self, made):
        """What `patch()` leaves alone: also after a handler has made one meanwhile."""
        seen = []

        def make(*_, **__):
            seen.append(boto.is_own())
            if len(seen) == 1:
                boto.Boto("ssm", session=session_of(make)).client()
                seen.append(boto.is_own())
            return Client(made)

        boto.Boto("ssm", session=session_of(make)).client()

        assert [True, True, True] == seen
        assert not boto.is_own()


def session_of(make):
    """Return a stand-in for a session of boto3 that makes clients by *make*."""
    return types.SimpleNamespace(region_name="eu-central-1", client=make)


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
    """The next call joins all phases, each once, wherever a signal handler has raised."""
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
