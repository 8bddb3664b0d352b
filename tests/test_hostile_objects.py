"""Objects of the user's whose attributes raise: refused or used, as others are."""

import signal

import pytest

import lambda_ext
from lambda_ext import Secret, metrics, telemetry
from lambda_ext.exceptions import ConfigurationError, MetricError
from lambda_ext.metrics import otlp, outlets
from lambda_ext.testing import FakeSource, MemorySink


class Context:
    """Lambda's own."""

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return 30_000


class Hostile:
    """Raises for each attribute that it does not have."""

    error = KeyError

    def __getattr__(self, name):
        raise self.error(name)

    def __repr__(self):
        raise self.error("repr")


class Locked(Hostile):
    """The same with an error that is no LookupError."""

    error = RuntimeError


class Sinking:
    """A sink of metrics."""

    def __init__(self):
        self.__dict__["got"] = []

    def accept(self, batch):
        """Keep what is recorded."""
        self.got.extend(point.name for point in batch.points)


class Calling:
    """A function of anything."""

    def __init__(self):
        self.__dict__["got"] = []

    def __call__(self, *given):
        """Keep what it is called with."""
        self.got.append(given)
        return "answer"


class Logging:
    """A sink of logs."""

    def __init__(self):
        self.__dict__["got"] = []

    def accept_logs(self, entries):
        """Keep what is logged."""
        self.got.extend(entries)


def made(kind, hostile):
    """Return an object of *kind* that is *hostile*, too."""
    return type(kind.__name__, (kind, hostile), {})()


@pytest.fixture(name="hostile", params=[Hostile, Locked])
def _hostile(request):
    return request.param


class TestSinks:
    """Of metrics."""

    @pytest.mark.parametrize(
        "use",
        [
            lambda given: lambda_ext.configure(sinks=[given]),
            lambda given: lambda_ext.Metrics(sink=given),
            outlets.route,
            outlets.checked,
        ],
    )
    def test_without_accept_is_refused(self, use, hostile):
        """With a message that says what a sink is."""
        with pytest.raises(ConfigurationError, match=r"is no sink.*accept\(batch\)"):
            use(hostile())

    def test_with_accept_is_used(self, hostile):
        """All else that the library asks it for."""
        configured, own = made(Sinking, hostile), made(Sinking, hostile)
        lambda_ext.configure(sinks=[configured])
        metrics.count("a")
        metrics.flush()
        of_its_own = lambda_ext.Metrics(sink=own)
        of_its_own.count("b")
        of_its_own.flush()
        stats = lambda_ext.stats().metrics

        assert (["a"], ["b"]) == (configured.got, own.got)
        assert {"Sinking", "Sinking-2"} == stats.sinks.keys()

    def test_function_is_used(self, hostile):
        """A callable object without a name, too."""
        sink = made(Calling, hostile)
        lambda_ext.configure(sinks=[outlets.route(sink, include="a")])
        metrics.count("a")
        metrics.count("b")
        metrics.flush()

        assert ["a"] == [p.name for (batch,) in sink.got for p in batch.points]


class TestLogSinks:
    """What a telemetry route hands records to."""

    def test_is_refused(self, hostile):
        """With a message that says what a sink of logs is."""
        with pytest.raises(
            ConfigurationError, match=r"is no sink of logs.*accept_logs"
        ):
            telemetry.route(where="function").to(hostile())

    @pytest.mark.parametrize("kind", [Logging, Calling])
    def test_is_taken(self, kind, hostile):
        """An object with accept_logs, and a function, once for two routes."""
        sink = made(kind, hostile)
        first = telemetry.route(where="function").to(sink)
        second = telemetry.route(where="platform").to(sink)

        assert first.outlet is second.outlet

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("fields", "is no mapping"),
            ("matches", "is no regular expression"),
            ("when", "is no function"),
            ("transform", "is no function"),
        ],
    )
    def test_options_are_refused(self, option, message, hostile):
        """With what each of them takes."""
        with pytest.raises(ConfigurationError, match=message):
            telemetry.route(**{option: hostile()})


class TestFunctions:
    """Callable objects in the place of functions."""

    @pytest.mark.parametrize(
        "hook",
        [
            "on_init",
            "on_invoke",
            "on_response",
            "after_response",
            "on_timeout",
            "on_shutdown",
            "before_snapshot",
            "after_restore",
            "defer",
        ],
    )
    def test_hook_is_taken_or_refused(self, hook, hostile):
        """An object that can be called, and one that cannot."""
        decorate = getattr(lambda_ext, hook)
        decorate(made(Calling, hostile))
        with pytest.raises(ConfigurationError, match="a function, not"):
            decorate(hostile())

    def test_hook_is_called(self, hostile):
        """With its argument; what it raises is logged with the name of its class."""
        hook = made(Calling, hostile)
        lambda_ext.on_invoke(hook)
        lambda_ext.handler(lambda event, context: None)({}, Context())

        assert ["Invocation"] == [type(given).__name__ for (given,) in hook.got]

    def test_handler_is_called(self, hostile):
        """And timed, injected into and refreshed."""
        handler = lambda_ext.handler(made(Calling, hostile))
        timed = metrics.timer("t")(made(Calling, hostile))
        source = FakeSource({"a": "1"})
        secret = Secret("a", source=source)
        refreshed = lambda_ext.refresh_on(ValueError, secret)(made(Calling, hostile))

        assert ["answer"] * 3 == [handler({}, Context()), timed(), refreshed()]

    def test_transform_is_applied(self, hostile):
        """Any object that can be called."""
        source = FakeSource({"a": "1"})

        assert (
            "answer"
            == Secret("a", source=source, transform=made(Calling, hostile)).value
        )

    @pytest.mark.logs
    def test_signal_handler_is_told_from_what_fails(self, hostile):
        """Its exception arrives, and another's does not."""

        class Raising(hostile):
            __repr__ = object.__repr__  # the standard library asks for it

            def __call__(self, number, frame):
                raise TimeoutError

        class Sink:
            def __init__(self, do):
                self.accept = lambda batch: do()

        def fails():
            raise ZeroDivisionError

        former = signal.signal(signal.SIGUSR1, Raising())
        try:
            with lambda_ext.Metrics(sink=Sink(fails)) as failing:
                failing.count("n")
            struck = lambda_ext.Metrics(
                sink=Sink(lambda: signal.raise_signal(signal.SIGUSR1))
            )
            struck.count("n")
            with pytest.raises(TimeoutError):
                struck.flush()
        finally:
            signal.signal(signal.SIGUSR1, former)

    def test_no_function_is_refused(self, hostile):
        """By all that take one."""
        secret = Secret("a", source=FakeSource({"a": "1"}))
        for use in (
            lambda given: Secret("a", transform=given),
            lambda_ext.handler,
            lambda given: lambda_ext.inject(a=given),
            lambda given: lambda_ext.inject(given, a="a"),
            lambda given: lambda_ext.refresh_on(ValueError, given),
            lambda given: lambda_ext.refresh_on(ValueError, secret)(given),
            lambda given: metrics.timer("t")(given),
            secret.on_change,
        ):
            with pytest.raises(ConfigurationError):
                use(hostile())


class TestSources:
    """Where values come from, and what boto3 made."""

    @pytest.mark.parametrize("option", ["client", "session"])
    def test_is_refused(self, option, hostile):
        """A client or a session that is none."""
        with pytest.raises(ConfigurationError, match=f"{option}=.* of 'a'"):
            Secret("a", **{option: hostile()})

    def test_with_all_parts_is_read(self, hostile):
        """What is optional is as without it."""

        class Source(hostile):
            def __init__(self):
                self.__dict__["inner"] = FakeSource({"a": "1"})

            name = "vault"
            scope = ("vault",)

            def plan(self, wanted):
                return self.inner.plan(wanted)

            def fetch(self, wanted, timeout_s):
                return self.inner.fetch(wanted, timeout_s)

        secret = Secret("a", source=Source())
        lambda_ext.start()

        assert "1" == secret.value

    def test_injected_is_resolved(self, hostile):
        """Anything that has resolve()."""

        class Value(hostile):
            def resolve(self):
                return "resolved"

        assert "resolved" == lambda_ext.inject(a=Value())(lambda a: a)()


class TestOptions:
    """What `configure` is given."""

    @pytest.mark.parametrize("name", ["max_age", "sinks", "properties", "flush_every"])
    def test_is_refused(self, name, hostile):
        """By the name of the option."""

        class Given(hostile):
            def __float__(self):
                raise self.error("float")

            def __iter__(self):
                raise self.error("iter")

        with pytest.raises(ConfigurationError, match=rf"configure\({name}="):
            lambda_ext.configure(**{name: Given()})


class TestMappingsAndTexts:
    """What is looked into, or becomes part of an address."""

    @pytest.mark.parametrize(
        "use",
        [
            lambda given: metrics.scope(dimensions=given),
            lambda given: lambda_ext.Metrics(given),
            lambda given: lambda_ext.Metrics(dimensions=given),
            lambda given: metrics.annotate(given),
            lambda given: lambda_ext.get_parameters(given),
            lambda given: lambda_ext.get_secrets(given),
            lambda given: telemetry.destinations.collector(given),
            lambda given: telemetry.destinations.collector(headers=given),
            lambda given: telemetry.destinations.otlp(headers=given),
            lambda given: telemetry.destinations.otlp(protocol=given),
            lambda given: telemetry.destinations.cloudwatch_logs(
                log_group="a", log_stream="b", region=given
            ),
            lambda given: otlp.OtlpSink(headers=given),
            lambda given: otlp.collector(given),
            lambda given: otlp.cloudwatch(given),
        ],
    )
    def test_is_refused(self, use, hostile):
        """With what is expected instead."""
        lambda_ext.configure(strict=True)
        with pytest.raises((ConfigurationError, MetricError)):
            use(hostile())

    def test_transform_of_a_configuration_may_be_any_function(self, hostile):
        """It has no name, either."""
        transform = made(Calling, hostile)
        configuration = lambda_ext.Configuration("a", "e", "p", transform=transform)

        assert "a/e/p" in repr(configuration)


class TestContexts:
    """What a test, or another framework, passes as the context."""

    @pytest.mark.logs
    def test_changes_nothing(self, hostile, caplog):
        """For hooks, for work after the response, and for metrics."""
        seen = []

        class Given(hostile):
            def get_remaining_time_in_millis(self):
                return 1_000

        lambda_ext.configure(properties="request_id,tenant_id")
        lambda_ext.on_invoke(lambda invocation: seen.append(invocation.request_id))
        lambda_ext.after_response(lambda outcome: seen.append(outcome.request_id))

        @lambda_ext.handler
        def handler(event, context):
            metrics.count("n")
            lambda_ext.defer(seen.append, "deferred")
            return "answer"

        with MemorySink() as sink:
            assert "answer" == handler({}, Given())

        assert [None, None, "deferred"] == seen
        assert ["n"] == [p.name for b in sink.batches for p in b.points]
        assert "" == caplog.text
