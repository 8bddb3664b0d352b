"""Routes: what goes where, once, and what is counted instead."""

from __future__ import annotations

import json

import pytest

import lambda_ext
from lambda_ext import telemetry
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import clock
from lambda_ext.telemetry import dispatch, records, redaction, routes, shipping

FAILED = pytest.mark.logs  # a failure is logged
TIME = "2026-01-01T00:00:{:06.3f}Z"


class Sink:
    """Keeps what it is given."""

    def __init__(self, name="sink"):
        self.name = name
        self.calls = []
        self.entries = []

    def accept_logs(self, entries):
        self.entries += entries
        self.calls.append([entry.message for entry in entries])

    @property
    def messages(self):
        return [message for call in self.calls for message in call]


def line(body, type="function", at=0.0):
    """Return one record."""
    return {"time": TIME.format(at), "type": type, "record": body}


def start(request_id, trace=None):
    """Return the record with which an invocation begins."""
    body = {"requestId": request_id}
    if trace:
        body["tracing"] = {"type": "X-Amzn-Trace-Id", "value": trace}
    return line(body, "platform.start")


def send(*elements, sequence_id=None):
    """Have the routes get *elements* as one batch, and hand everything over."""
    body = json.dumps(
        [each if isinstance(each, dict) else line(each) for each in elements]
    )
    dispatch.dispatch(records.parse(body, sequence_id))
    assert dispatch.drain(30)
    telemetry.flush(30)


@pytest.fixture(name="sink")
def _sink():
    return Sink()


class TestWays:
    """Which records reach which sink."""

    def test_records_go_where_they_are_wanted(self):
        """Errors go one way, everything of the function the other."""
        errors, everything = Sink("a"), Sink("b")
        telemetry.route(where="function", level=">=ERROR").to(errors)
        telemetry.route(where="function").to(everything)
        send(
            "hello", {"type": "function", "record": {"level": "ERROR", "message": "no"}}
        )

        assert (["no"], ["hello", "no"]) == (errors.messages, everything.messages)

    def test_one_selection_may_have_several_sinks(self, sink):
        """Route.to() makes another route of the same selection."""
        other = Sink("other")
        telemetry.route(where="function").to(sink).to(other)
        send("hello")

        assert ["hello"] == sink.messages == other.messages

    def test_our_own_lines_go_nowhere(self, sink):
        """A log line of this library's would make a new one when it is shipped."""
        telemetry.route().to(sink)
        ours = {"level": "WARN", "logger": "lambda_ext", "message": "x"}
        send(line(ours), "[WARNING]\tx\tr\tlambda_ext.sink_failed sink=x", "mine")

        assert ["mine"] == sink.messages

    def test_emf_is_no_log_line(self, sink):
        """A document of metrics is left out, unless it is asked for."""
        other = Sink("other")
        telemetry.route(where="function").to(sink)
        telemetry.route(where="function", emf=True).to(other)
        send('{"_aws": {"CloudWatchMetrics": [], "Timestamp": 1}}', "mine")

        assert (["mine"], 2) == (sink.messages, len(other.messages))

    def test_blank_line_is_none(self, sink):
        """A line that says nothing is not shipped."""
        telemetry.route().to(sink)
        send("", "\n", " x")

        assert [" x"] == sink.messages

    def test_batch_that_comes_twice_counts_once(self, sink):
        """The platform sends again what was not acknowledged: its id is known."""
        telemetry.route().to(sink)
        send("one", sequence_id="s1")
        send("one", sequence_id="s1")
        send("one", sequence_id="s2")

        assert ["one", "one"] == sink.messages

    def test_lines_belong_to_the_invocation_that_began_last(self):
        """A print names no invocation; the platform's records tell which it is."""
        seen = []
        telemetry.route(where="function").to(
            lambda entries: seen.extend(
                (e.message, e.request_id, e.trace) for e in entries
            )
        )
        trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8"
        named = {"requestId": "r-0", "message": "named"}
        send("init", start("r-1", trace), "a", line(named), start("r-2"), "b")

        assert [
            ("init", None, None),
            ("a", "r-1", trace),
            ("named", "r-0", None),
            ("b", "r-2", None),
        ] == seen

    @pytest.mark.parametrize("concurrent", ["", "4"])
    def test_traces_are_found_by_invocation(self, monkeypatch, concurrent):
        """A line that names its invocation has that one's trace, also a late one."""
        monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", concurrent)
        seen = []
        telemetry.route(where="function").to(
            lambda entries: seen.extend((e.message, e.trace) for e in entries)
        )
        named = {"requestId": "r-1", "message": "late"}
        send(start("r-1", "Root=1;1"), start("r-2", "Root=1;2"), line(named))
        for number in range(500):
            send(start(f"x-{number}", "Root=1;x"))
        send(line({**named, "message": "forgotten"}))

        assert [("late", "Root=1;1"), ("forgotten", None)] == seen

    def test_on_managed_instances_lines_belong_to_none(self, monkeypatch):
        """Where several invocations run at once, a line is not given to one of them."""
        monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "4")
        seen = []
        telemetry.route(where="function").to(
            lambda entries: seen.extend(e.request_id for e in entries)
        )
        send(start("r-1"), "a", line({"requestId": "r-2", "message": "b"}))

        assert [None, "r-2"] == seen

    def test_stopped_route_takes_no_more(self, sink):
        """stop() ends a route, and what waits is handed over."""
        route = telemetry.route().to(sink)
        send("one")
        route.stop()
        send("two")

        assert ["one"] == sink.messages


class TestDeepLines:
    """Lines that are nested deeply."""

    @pytest.mark.parametrize("levels", [60, 300, 900])
    def test_concern_no_other(self, sink, levels):
        """They pass through the redaction, and their neighbours do."""
        redaction.protect("db", "secret-value")
        telemetry.route().to(sink)
        deep = '{"a":' * levels + '"secret-value"' + "}" * levels
        body = '[{"type":"function","record":"x"},{"type":"function","record":%s}]'
        dispatch.dispatch(records.parse(body % deep))
        assert dispatch.drain(30)
        telemetry.flush(30)

        first, second = sink.messages
        assert "x" == first
        assert "secret-value" not in second


class TestSampling:
    """sample="""

    def test_invocation_is_taken_whole_or_not_at_all(self):
        """A share of the invocations is taken, each with all of its lines."""
        sink = Sink()
        route = telemetry.route(where="function", sample=0.25).to(sink)
        ids = [f"{number:08x}-aaaa-bbbb-cccc-1234567890ab" for number in range(200)]
        for request_id in ids:
            dispatch.dispatch(
                records.parse(
                    json.dumps([start(request_id), line(request_id), line(request_id)])
                )
            )
        assert dispatch.drain(30)
        telemetry.flush(30)

        counts = {request_id: sink.messages.count(request_id) for request_id in ids}
        assert {0, 2} == set(counts.values())
        assert 25 <= sum(count > 0 for count in counts.values()) <= 75
        assert 400 == len(sink.messages) + route.status().dropped["sampled"]

    def test_a_smaller_share_is_part_of_a_larger_one(self):
        """Two routes agree about which invocations they take."""
        ids = [f"request-{number}" for number in range(300)]
        small = {each for each in ids if routes.is_sampled(each, 0.1)}
        large = {each for each in ids if routes.is_sampled(each, 0.5)}

        assert small
        assert small < large < {*ids}

    def test_records_of_no_invocation_are_taken(self, sink):
        """What INIT logs belongs to no invocation, and is never left out."""
        telemetry.route(sample=0.0).to(sink)
        send("init")

        assert ["init"] == sink.messages


class TestDeduplication:
    """deduplicate="""

    def test_same_line_within_the_window_is_dropped(self, sink):
        """The time is the line's own; another level or message is another line."""
        route = telemetry.route(where="function", deduplicate=10).to(sink)
        send(line("x", at=0), line("x", at=9.9), line("y", at=9.9))
        send(line("x", at=10.1), line({"level": "ERROR", "message": "x"}, at=10.2))

        assert ["x", "y", "x", "x"] == sink.messages
        assert {"duplicate": 1} == route.status().dropped

    def test_memory_is_bounded(self, sink, monkeypatch):
        """The messages that were not seen for longest are forgotten first."""
        monkeypatch.setattr(routes, "WINDOW", 2)
        telemetry.route(deduplicate=10).to(sink)
        send("a", "b", "c", "a", "c")

        assert ["a", "b", "c", "a"] == sink.messages

    def test_memory_keeps_what_was_seen_last(self, sink, monkeypatch):
        """A message that comes again after its window is the newest."""
        monkeypatch.setattr(routes, "WINDOW", 2)
        telemetry.route(deduplicate=10).to(sink)
        send(line("a"), line("b"), line("a", at=11), line("c", at=11), line("a", at=12))

        assert ["a", "b", "a", "c"] == sink.messages


class TestTransforms:
    """transform="""

    def test_may_change_replace_and_drop(self):
        """An entry, text, an object or None comes back."""
        seen = []

        def transform(entry):
            if entry.message == "text":
                return "new"
            if entry.message == "object":
                return {"message": "m", "extra": 1}
            if entry.message == "entry":
                entry.say("changed")
                return entry
            return None

        route = telemetry.route(where="function", transform=transform).to(
            lambda entries: seen.extend((e.message, e.body) for e in entries)
        )
        send("text", "object", "entry", "nothing")

        assert [
            ("new", "new"),
            ("m", {"message": "m", "extra": 1}),
            ("changed", "changed"),
        ] == seen
        assert {"transform": 1} == route.status().dropped

    def test_changes_no_other_route(self, sink):
        """Each route has entries of its own."""
        other = Sink("other")

        def transform(entry):
            entry.body["message"] = entry.message = "changed"
            return entry

        telemetry.route(transform=transform).to(other)
        telemetry.route().to(sink)
        send(line({"message": "original"}))

        assert (["original"], ["changed"]) == (sink.messages, other.messages)

    def test_changes_nothing_below_in_another_route(self, sink):
        """Nor in a copy of the entry, nor in the record itself: at any depth."""
        seen = []
        other = Sink("other")
        said = {"message": "m", "user": {"id": 1, "all": [{"a": 1}, 2]}}

        def transform(entry):
            before = entry.copy()
            del entry.body["user"]["id"]
            entry.body["user"]["all"][0]["a"] = "changed"
            entry.body["user"]["all"].append(3)
            seen.append(before.body)
            return entry

        telemetry.on_batch(lambda batch: seen.extend(each.fields for each in batch))
        telemetry.route(transform=transform).to(other)
        telemetry.route().to(sink)
        send(line(said))

        assert [said] * 3 == [*seen, sink.entries[0].body]
        assert {"all": [{"a": "changed"}, 2, 3]} == other.entries[0].body["user"]

    @FAILED
    @pytest.mark.parametrize("raised", [ValueError("SECRET"), SystemExit(3)])
    def test_one_that_raises_concerns_that_record(self, sink, caplog, raised):
        """The record is counted, the next one is routed, and nothing is quoted."""

        def transform(entry):
            if entry.message == "bad":
                raise raised
            return entry

        route = telemetry.route(transform=transform).to(sink)
        send("one", "bad", "two")

        assert ["one", "two"] == sink.messages
        assert {"failed": 1} == route.status().dropped
        assert type(raised).__name__ in route.status().error
        assert "route_failed" in caplog.text
        assert "SECRET" not in caplog.text

    @FAILED
    def test_predicate_that_raises_concerns_that_record(self, sink):
        """when= may fail for one record."""
        route = telemetry.route(when=lambda record: 1 / (record.message != "bad")).to(
            sink
        )
        send("one", "bad", "two")

        status = route.status()

        assert (["one", "two"], {"failed": 1}) == (sink.messages, status.dropped)
        assert (3, 2) == (status.taken, status.handed)


class TestQueue:
    """The bounds of what waits."""

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [("oldest", ["3", "4", "5"]), ("newest", ["0", "1", "2"])],
    )
    def test_policy_says_what_goes(self, policy, expected):
        """No more than *limit* records wait; what has no room is counted."""
        sink = Sink()
        route = telemetry.route().to(sink, limit=3, drop=policy, max_age=1e9)
        route(records.parse(json.dumps([line(str(number)) for number in range(6)])))
        telemetry.flush(30)

        assert expected == sink.messages
        assert {"queue_full": 3} == route.status().dropped

    def test_bytes_are_bounded(self):
        """A few long lines fill the queue as many short ones do."""
        sink = Sink()
        route = telemetry.route().to(sink, limit_bytes=2_500, max_age=1e9)
        route(records.parse(json.dumps([line(str(n) * 1_000) for n in range(5)])))

        assert 2 == route.waiting
        telemetry.flush(30)
        assert ["3" * 1_000, "4" * 1_000] == sink.messages

    def test_one_line_that_is_too_large_passes_alone(self):
        """A line above the bound is not dropped where nothing else waits."""
        sink = Sink()
        telemetry.route().to(sink, limit_bytes=100)
        send("x" * 1_000)

        assert [1_000] == [len(message) for message in sink.messages]

    def test_calls_are_divided(self):
        """A call of the sink has at most so many records and bytes."""
        sink = Sink()
        route = telemetry.route().to(sink, max_records=2, max_age=1e9)
        long = telemetry.route().to(Sink("long"), max_bytes=2_300, max_age=1e9)
        batch = records.parse(json.dumps([line(str(n) * 1_000) for n in range(5)]))
        route(batch)
        long(batch)
        telemetry.flush(30)

        assert [2, 2, 1] == [len(call) for call in sink.calls]
        assert [2, 2, 1] == [len(call) for call in long.outlet.sink.calls]

    def test_everything_is_counted(self, sink):
        """Handed over, dropped and waiting make up what was taken."""
        route = telemetry.route(deduplicate=60).to(sink, limit=5, max_age=1e9)
        numbers = [str(n % 8) for n in range(40)]
        route(records.parse(json.dumps([line(number) for number in numbers])))
        status = route.status()

        assert 40 == status.taken
        assert 5 == status.waiting + status.handed
        assert {"duplicate": 32, "queue_full": 3} == status.dropped
        telemetry.flush(30)
        assert (0, 5) == (route.status().waiting, route.status().handed)


class TestLittleRoom:
    """A limit below the size of a call."""

    def test_is_due_before_it_drops(self):
        """A queue that is full is handed over, also below max_records."""
        sink = Sink()
        route = telemetry.route().to(sink, limit=3, max_age=1e9)
        route(records.parse(json.dumps([line(str(number)) for number in range(3)])))
        route.outlet.wait(clock.run_time() + 30)

        assert (["0", "1", "2"], {}) == (sink.messages, route.status().dropped)


class TestDue:
    """When a route wants its sink to be called."""

    def test_age_count_or_bytes(self, time):
        """Little is handed over after max_age seconds, much at once."""
        sink = Sink()
        route = telemetry.route().to(sink, max_records=3, max_bytes=10_000, max_age=5)
        route(records.parse(json.dumps([line("a")])))
        young = route.is_due()
        time.advance(5)
        old = route.is_due()
        route.take()
        route._put(telemetry.Entry(records.make(line("x" * 20_000))))
        large = route.is_due()

        assert (False, True, True) == (young, old, large)

    def test_freeze_counts_as_age(self, time):
        """What waits while the environment is frozen gets older."""
        route = telemetry.route().to(Sink(), max_age=5)
        route(records.parse(json.dumps([line("a")])))
        time.freeze(60)

        assert route.is_due()


class TestRefusals:
    """What cannot be meant is an error that says what to change."""

    @pytest.mark.parametrize(
        ("sink", "says"),
        [
            (3, "telemetry.destinations"),
            ("stdout", "telemetry.destinations"),
            (None, "telemetry.destinations"),
            (Sink, "telemetry.destinations"),
        ],
    )
    def test_what_is_no_sink(self, sink, says):
        """Neither a destination nor a function is refused."""
        with pytest.raises(ConfigurationError, match=says):
            telemetry.route().to(sink)

    def test_sink_of_metrics(self):
        """A sink of metrics is named as one, with what to use instead."""
        from lambda_ext.metrics.emf import EmfSink

        with pytest.raises(ConfigurationError, match="sink of metrics"):
            telemetry.route().to(EmfSink())

    def test_async_sink(self):
        """A sink is called, not awaited."""

        async def sink(entries):
            pass

        with pytest.raises(ConfigurationError, match="instead of async def"):
            telemetry.route().to(sink)

    @FAILED
    def test_coroutine_of_a_plain_sink_is_a_failure(self, caplog):
        """Nothing counts as handed over."""

        async def later(entries):
            pass

        class Sink:
            name = "mine"

            def accept_logs(self, entries):
                return later(entries)

        telemetry.route().to(Sink())
        send("a", "b")
        ((found,)) = [*lambda_ext.stats().telemetry.routes.values()]

        assert 0 == found.handed
        assert "ConfigurationError" in caplog.text

    @FAILED
    def test_coroutine_of_a_transform_is_no_text(self, sink):
        """It would be shipped as what Python prints of it."""

        async def later(entry):
            return entry

        telemetry.route(transform=lambda entry: later(entry)).to(sink)
        send("a")

        assert [] == sink.messages

    @pytest.mark.parametrize(
        "options",
        [
            {"max_records": 0}, {"max_bytes": 1.5}, {"limit": True}, {"limit_bytes": -1},
            {"max_age": -1}, {"max_age": "5"}, {"max_age": float("nan")}, {"drop": "random"}, {"name": 3},
        ],
    )  # fmt: skip
    def test_numbers_out_of_range(self, options):
        """The argument is named."""
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            telemetry.route().to(Sink(), **options)

    @pytest.mark.parametrize(
        "options",
        [
            {"sample": 1.5}, {"sample": "half"}, {"sample": True}, {"sample": float("nan")},
            {"deduplicate": -1}, {"deduplicate": float("nan")}, {"transform": "upper"}, {"emf": "yes"}, {"emf": 0},
        ],
    )  # fmt: skip
    def test_selections_that_cannot_be(self, options):
        """The argument is named."""
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            telemetry.route(**options)

    def test_nothing_is_registered_by_a_refusal(self):
        """A route that is refused takes no record."""
        with pytest.raises(ConfigurationError):
            telemetry.route().to(Sink(), limit=0)

        assert ([], {}) == (dispatch.consumers, routes.statuses())


class TestNames:
    """What statistics call a route."""

    def test_are_unique(self):
        """Two routes to sinks of one name differ."""
        telemetry.route().to(Sink("x"))
        telemetry.route().to(Sink("x"))
        telemetry.route().to(Sink("y"), name="x")

        assert ["x", "x-2", "x-3"] == [*routes.statuses()]

    def test_function_that_is_given_twice_is_one_sink(self):
        """Two routes to one function call it by one thread at a time."""

        def sink(entries):
            pass

        telemetry.route().to(sink)
        telemetry.route().to(sink)

        assert 1 == len(shipping.outlets())

    def test_statistics_have_each_route(self):
        """stats() has numbers by route, and both as consumers."""
        first, second = Sink("x"), Sink("x")
        telemetry.route().to(first)
        telemetry.route(matches="none").to(second, name="errors")
        send("one")
        found = lambda_ext.stats().telemetry

        assert (1, 1, 0, {}) == (
            found.routes["x"].taken,
            found.routes["x"].handed,
            found.routes["x"].waiting,
            found.routes["x"].dropped,
        )
        assert 0 == found.routes["errors"].taken
        assert {"route x", "route errors"} == {*found.consumers}
        assert json.dumps(lambda_ext.stats().as_dict())

    def test_repr_shows_no_line(self):
        """An entry, a route and a status show numbers and names only."""
        sink = Sink()
        route = telemetry.route().to(sink)
        route(records.parse(json.dumps([line("SECRET")])))
        (entry,) = route.take()

        assert "SECRET" not in f"{entry!r} {route!r} {route.status()!r}"


def test_child_ships_nothing_of_its_parents():
    """What waits in a forked child is the parent's to hand over."""
    from helpers import in_child

    sink = Sink()
    route = telemetry.route().to(sink)
    route(records.parse(json.dumps([line("one")])))

    assert in_child(
        lambda: 0 == route.waiting and telemetry.flush(5) and not sink.calls
    )
    telemetry.flush(30)
    assert ["one"] == sink.messages


def test_child_counts_from_zero():
    """What the parent took, handed over and dropped is no number of its child's."""
    from helpers import in_child

    route = telemetry.route(deduplicate=60).to(print_nothing)
    send("one", "two", "two")
    route(records.parse(json.dumps([line("three")])))
    before = route.status()

    def child():
        status = route.status()
        assert (0, 0, {}, 0) == (
            status.taken, status.handed, status.dropped, status.waiting,
        )  # fmt: skip
        assert (0, {}, 0) == (status.sent, status.lost, status.pending)
        send("four")
        status = route.status()
        return (1, 1, 1) == (status.taken, status.handed, status.sent)

    assert (4, 2, {"duplicate": 1}) == (before.taken, before.handed, before.dropped)
    assert in_child(child)


def print_nothing(entries):
    """Take *entries*."""
