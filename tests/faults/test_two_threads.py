"""What one thread does while another is anywhere within the same part of the API."""

from __future__ import annotations

import functools
import gc
import json
import threading

import pytest
from helpers import in_child, python, run_threads
from interleavings import interleavings
from telemetry_api import Platform
from wire import Wire, response

import lambda_ext
from lambda_ext import (
    Flags,
    Secret,
    configure,
    get_parameter,
    get_secret,
    metrics,
    telemetry,
)
from lambda_ext.delivery.queue import Delivery
from lambda_ext.lifecycle import clock, process
from lambda_ext.testing import FakeFlags, FakeSource, MemorySink


class Context:
    """What Lambda passes as the second argument."""

    aws_request_id = "8476a536"

    def get_remaining_time_in_millis(self):
        """Return the milliseconds left."""
        return 3000


@pytest.fixture
def files(tmp_path):
    """Two files of values, for ``source="file:..."``."""
    found = []
    for name in ("old", "new"):
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"secrets": {"db": name}, "parameters": {"/limit": name}})
        )
        found.append(f"file:{path}")
    return found


READS = {
    "secret": lambda: get_secret("db"),
    "parameter": lambda: get_parameter("/limit"),
    "path": lambda: lambda_ext.get_parameters_by_path("/")["/limit"],
    "secrets": lambda: lambda_ext.get_secrets(["db"])["db"],
    "parameters": lambda: lambda_ext.get_parameters(["/limit"])["/limit"],
}


class TestOptions:
    """What is configured while another thread reads holds for the reads after it."""

    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    def test_source(self, read, files):
        """No read that began earlier leaves its source, or its value, behind."""
        old, new = files
        for places in interleavings():
            configure(source=old)
            with places.of(lambda: configure(source=new)):
                assert read() in ("old", "new")
            assert "new" == read()

    def test_source_of_a_test(self):
        """A double that is entered meanwhile answers from then on."""
        for places in interleavings():
            with FakeSource({"db": "old"}), FakeSource({"db": "new"}) as inner:
                with FakeSource({"db": "old"}):
                    try:
                        with places.of(inner.__enter__):
                            assert get_secret("db") in ("old", "new")
                        assert "new" == get_secret("db")
                    finally:
                        inner.__exit__(None, None, None)

    def test_handle(self, files):
        """The same for what is declared."""
        old, new = files
        db = Secret("db")
        for places in interleavings():
            configure(source=old)
            with places.of(lambda: configure(source=new)):
                assert db.value in ("old", "new")
            assert "new" == db.value

    def test_decrypt(self):
        """An option that is a part of what is asked for is asked anew."""
        asked = []

        class Source(FakeSource):
            def fetch(self, wanted, timeout_s):
                asked.extend(key.decrypt for key in wanted)
                return super().fetch(wanted, timeout_s)

        with Source({"/limit": "1"}):
            for places in interleavings():
                configure(decrypt=True)
                with places.of(lambda: configure(decrypt=False)):
                    get_parameter("/limit")
                asked.clear()
                get_parameter("/limit")
                get_parameter("/limit", force_fetch=True)
                assert {False} == set(asked)


class TestChanges:
    """Two threads load new versions of one value at once."""

    def test_on_change(self):
        """Listeners are told of each version once, and of no version that was told."""
        for places in interleavings():
            with FakeSource({"db": "one"}) as source:
                db, told = Secret("db"), []
                db.on_change(lambda handle, told=told: told.append(handle.value))
                assert "one" == db.value

                def load(value, source=source):
                    source.rotate("db", value)
                    get_secret("db", force_fetch=True)

                with places.of(functools.partial(load, "three")):
                    load("two")
                assert len(told) in (1, 2)
                before = [*told]
                get_secret("db", force_fetch=True)
                assert before == told


class TestMetrics:
    """Options and sinks that change while another thread records."""

    @pytest.mark.parametrize("record", ["count", "gauge", "distribution"])
    def test_namespace(self, record):
        """What is recorded after the change has the new one."""
        for places in interleavings():
            configure(namespace="Old")
            with MemorySink() as sink:
                with places.of(lambda: configure(namespace="New")):
                    getattr(metrics, record)("n", 1)
                metrics.flush()
                sink.clear()
                getattr(metrics, record)("n", 1)
            assert ["New"] == [batch.namespace for batch in sink.batches]

    @pytest.mark.parametrize("always", [False, True])
    def test_annotations(self, always):
        """Those of both threads are in the document."""
        for places in interleavings():
            process.reset()
            with MemorySink() as sink:
                with places.of(lambda: metrics.annotate({"a": 1}, always=always)):
                    metrics.annotate({"b": 2}, always=always)
                metrics.count("n")
            assert [{"a": 1, "b": 2}] == [batch.properties for batch in sink.batches]

    @pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
    def test_what_is_measured(self, on):
        """It is recorded once, or not at all, as the last option says."""
        for places in interleavings():
            process.reset()
            configure(cold_start_metric=not on)
            handler = lambda_ext.handler(lambda event, context: None)
            with places.of(lambda: configure(cold_start_metric=on)):
                configure(max_age=1)
            with MemorySink() as sink:
                handler({}, Context())
            assert [1.0] * on == sink.values("ColdStart")

    def test_other_option(self, capsys):
        """A first record goes where the options say, whichever of them changes."""
        for places in interleavings():
            process.reset()
            sink = MemorySink()
            configure(sinks=[sink])
            with places.of(lambda: configure(max_age=1)):
                metrics.count("n")
            metrics.flush()
            assert (1, "") == (sink.total("n"), capsys.readouterr().out)

    def test_numbers_of_a_sink(self):
        """A sink that counts another reason while it is asked is told of."""

        class Sink:
            def __init__(self):
                self.dropped = {Reason("first"): 1}

            def accept(self, batch):
                pass

        class Reason(str):
            def __str__(self):  # as another thread, at this moment
                sink.dropped.setdefault("second", 2)
                return "first"

        sink = Sink()
        configure(sinks=[sink])
        metrics.count("n")
        assert [2] == [each.dropped for each in metrics.flush().values()]
        assert [3] == [
            each.dropped for each in lambda_ext.stats().metrics.sinks.values()
        ]

    def test_sink_of_a_test(self, capsys):
        """A MemorySink that is entered meanwhile takes what is recorded after it."""
        for places in interleavings():
            configure(sinks=["emf"])
            sink = MemorySink()
            with places.of(sink.__enter__):
                metrics.count("first")
            metrics.count("second")
            sink.__exit__(None, None, None)
            assert 1 == sink.total("second")

    def test_end_of_a_sink_of_a_test(self):
        """What is recorded at its end is in this sink or in the outer one, at once."""
        with MemorySink() as outer:
            for places in interleavings(step=7):
                outer.clear()
                inner = MemorySink()
                inner.__enter__()
                with places.of(lambda: metrics.count("n")):
                    inner.__exit__(None, None, None)
                metrics.flush()
                assert 1 == inner.total("n") + outer.total("n")

    def test_end_of_the_only_sink_of_a_test(self):
        """It has what it is to have when the block ends: nothing comes later."""
        for places in interleavings(step=2):
            sink = MemorySink()
            sink.__enter__()
            with places.of(lambda: metrics.count("n")):
                sink.__exit__(None, None, None)
            taken = sink.total("n")
            metrics.flush()
            assert taken == sink.total("n")


class TestFlags:
    """Doubles that other threads read while this one enters and leaves them."""

    def test_inner_double(self):
        """A reader always finds one of them: none asks AWS in between."""
        flags = Flags("orders", "prod", "features")
        with FakeFlags({"new": True}):
            for places in interleavings():
                with places.of(lambda: flags.enabled("new")):
                    with FakeFlags({"new": True}):
                        pass


class TestDelivery:
    """A full queue whose oldest batch is sent while another comes in."""

    def test_full_queue(self):
        """Each record is counted once: as sent, if the receiver has it, or as dropped."""
        for places in interleavings():
            had = []

            def send(payload, ends_at, had=had):
                had.append(payload)
                return 0, ""

            queue = Delivery("test", send, max_items=1)
            queue.put("first", 1, 1)
            with places.of(functools.partial(queue.drain, clock.run_time() + 30)):
                queue.put("second", 1, 1)
            assert queue.drain(clock.run_time() + 30)
            assert (len(had), 2 - len(had)) == (queue.sent, sum(queue.dropped.values()))


class TestGarbage:
    """The collector runs, and finalizers with it, at any place."""

    @pytest.mark.parametrize("count", range(100, 1000, 100))
    def test_declared(self, count):
        """A handle that is collected while others are looked through harms nothing."""
        with FakeSource({"db": "one", "first": "1"}):
            get_secret("first")  # what the first read makes is there
            held = [Secret("db") for _ in range(1000)]
            threshold = gc.get_threshold()
            gc.collect()
            cycle = [Secret("db")]
            cycle.append(cycle)
            del cycle
            try:
                gc.set_threshold(count)
                assert "one" == held[0].value
            finally:
                gc.set_threshold(*threshold)


class TestFirstInvocation:
    """Two threads are in their first invocations at once."""

    def test_nothing_fails(self):
        """What is done once in a process is done by one of them."""
        for places in interleavings():
            process.reset()
            metrics.count("before")
            handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
            with MemorySink() as sink:
                with places.of(functools.partial(handler, {}, Context())):
                    handler({}, Context())
            found = lambda_ext.stats().lifecycle
            assert 0 == sum(each.failures for each in found.phases.values())
            assert 2 == found.invocations
            assert 2 == sink.total("n")


class TestRegistration:
    """One thread starts the library while another subscribes to telemetry."""

    def test_once(self, monkeypatch):
        """Lambda is asked once to register this extension, and both follow."""
        monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signals")
        with Platform() as platform:
            monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", platform.address)
            for places in interleavings(step=3):
                process.reset()
                platform.calls.clear()
                with places.of(lambda: telemetry.subscribe(function=True)):
                    lambda_ext.start()
                asked = [path for path in platform.calls if path.endswith("/register")]
                assert 1 == len(asked)
                found = lambda_ext.stats()
                assert "registered" == found.lifecycle.registration.state
                assert "subscribed" == found.telemetry.state
            process.reset()


class TestHandlers:
    """Handlers in several threads of a program of the user's."""

    def test_after_response(self):
        """Each invocation has its hooks, and what it has deferred, done once."""
        told, done = [], []
        lambda_ext.after_response(lambda outcome: told.append(outcome.request_id))

        def invoke(name):
            context = Context()
            context.aws_request_id = name
            handler = lambda_ext.handler(
                lambda event, context: lambda_ext.defer(done.append, name)
            )
            assert handler({}, context)

        for places in interleavings(step=3):
            told.clear()
            done.clear()
            with places.of(lambda: invoke("other")):
                invoke("this")
            assert ["other", "this"] == sorted(told)
            assert ["other", "this"] == sorted(done)

    def test_many_at_once(self):
        """Work under way in other threads is not work that was left behind."""
        told, within = [], threading.Barrier(6)

        @lambda_ext.after_response
        def after(outcome):
            within.wait(30)
            told.append(outcome.request_id)

        handler = lambda_ext.handler(lambda event, context: None)
        run_threads(6, lambda index: handler({}, Context()))
        assert 6 == len(told)


@pytest.mark.logs
@pytest.mark.process
class TestClients:
    """Clients of boto3, and what stands for them, in several threads."""

    @pytest.mark.parametrize("kind", ["client", "cached"])
    def test_options(self, kind, monkeypatch):
        """What is configured while a response is read holds for the reads after it."""
        answer = {
            "Name": "db", "SecretString": "one", "VersionId": "0" * 32,
            "ARN": "arn:aws:secretsmanager:eu-central-1:1:secret:db-AAAAAA",
        }  # fmt: skip
        body = json.dumps(answer).encode()
        with Wire(lambda request: response(200, body)) as wire:
            monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
            if kind == "client":
                client = lambda_ext.client("secretsmanager")
            else:
                import boto3

                client = lambda_ext.cached(boto3.client("secretsmanager"))
            client.get_secret_value(SecretId="db")
            for places in interleavings(step=3):
                configure(max_age=300)
                with places.of(lambda: configure(max_age=0)):
                    client.get_secret_value(SecretId="db")
                before = len(wire.requests)
                client.get_secret_value(SecretId="db")
                assert before + 1 == len(wire.requests)

    def test_patch(self):
        """One that is half made is none yet: patch() looks at all that exist."""
        import boto3

        client = boto3.client("ssm")
        half = object.__new__(type(client))
        with lambda_ext.patch():
            assert lambda_ext.cached(half) is half

    def test_cached(self):
        """The same while the twin of a client is made."""
        import boto3

        client = boto3.client("ssm")
        for places in interleavings(step=5):
            with places.of(lambda: lambda_ext.patch().__exit__(None, None, None)):
                assert lambda_ext.cached(client) is not client


class TestForks:
    """A child of a process in which a thread was within a double."""

    def test_source(self):
        """It answers the child, though the thread held its lock."""
        with FakeSource({"db": "one"}) as source:
            assert in_child(lambda: get_secret("db") == "one", source._changed)


BOTO3 = """
import importlib.abc, sys, threading
import lambda_ext

raised, threads = [], []
light = lambda_ext.client("ssm")

def other():
    try:
        with lambda_ext.patch():
            pass
        lambda_ext.cached(object())
        isinstance(light, dict)
    except BaseException as exc:
        raised.append(repr(exc))

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("botocore.") and name.count(".") == 1:
            thread = threading.Thread(target=other)
            threads.append(thread)
            thread.start()
            thread.join(0.02)  # it may have to wait for the import

sys.meta_path.insert(0, Finder())
first = threading.Thread(target=other)
BEFORE
import boto3
for thread in threads:
    thread.join(30)
sys.meta_path.pop(0) if type(sys.meta_path[0]) is Finder else None
lambda_ext.patch()
client = boto3.client("ssm")
print(len(threads) > 5, sorted(set(raised)), "_make_api_call" in vars(type(client)))
"""

# Another thread calls OTHER while this one is just loading MODULE, which ASK asks for.
LOADING = """
import importlib.abc, importlib.machinery, sys, threading
import lambda_ext

sys.modules.pop("MODULE", None)
raised = []

def tried(function):
    try:
        function()
    except BaseException as exc:
        raised.append(repr(exc))

thread = threading.Thread(target=tried, args=(lambda: OTHER,))

class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        thread.start()
        thread.join(0.5)  # it has to wait for the import
        super().exec_module(module)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "MODULE":
            found = importlib.machinery.PathFinder.find_spec(name, path)
            found.loader = Loader(name, found.origin)
            return found

sys.meta_path.insert(0, Finder())
tried(lambda: ASK)
thread.join(30)
print(raised)
"""


def loading(module, ask, other):
    """Return the program of two threads that load *module*."""
    program = LOADING.replace("MODULE", module)
    return program.replace("ASK", ask).replace("OTHER", other)


@pytest.mark.process
class TestImports:
    """A thread imports what another one needs."""

    @pytest.mark.parametrize(
        "before", ["", "lambda_ext.patch()"], ids=["late", "early"]
    )
    def test_boto3(self, before):
        """Clients are patched, and told apart, while another thread imports boto3."""
        done = python(BOTO3.replace("BEFORE", before))
        assert ("True [] True", 0) == (done.stdout.strip(), done.returncode), (
            done.stderr
        )

    def test_metrics(self):
        """A name and the package that it is from may be asked for at the same time."""
        done = python(
            loading(
                "lambda_ext.metrics",
                "lambda_ext.metrics.count",
                "lambda_ext.Metrics('Shop')",
            )
        )
        assert ("[]", 0) == (done.stdout.strip(), done.returncode), done.stderr

    def test_typing(self):
        """The first stats() waits for a module that another thread imports."""
        done = python(
            loading("typing", "__import__('typing')", "lambda_ext.stats().as_dict()")
        )
        assert ("[]", 0) == (done.stdout.strip(), done.returncode), done.stderr
