"""Properties that lead from a metric to its invocation."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from emulated import emulate, process, texts
from helpers import ROOT, in_child

import lambda_ext
from lambda_ext import configure, metrics
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases
from lambda_ext.metrics import correlation
from lambda_ext.testing import MemorySink

TRACE = (
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    ";Lineage=a:1"
)
ROOT_ID = "1-5759e988-bd862e3fe1be46a994272793"
ALL = "request_id,trace_id,span_id,cold_start,tenant_id,availability_zone"


class Context:
    """Lambda's context."""

    aws_request_id = "r-1"
    tenant_id = "acme"

    @staticmethod
    def get_remaining_time_in_millis():
        return 60_000


def invoked(context=None, body=None, times=1):
    """Return the properties of each batch of some invocations that record."""
    handler = lambda_ext.handler(body or (lambda event, context: metrics.count("n")))
    with MemorySink() as sink:
        for _ in range(times):
            handler({}, context)
    return [dict(batch.properties) for batch in sink.batches]


class Endpoint:
    """A server for one request: keeps it, and answers."""

    def __init__(self, answer, before):
        self.requests = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listening.getsockname())
        self.thread = threading.Thread(target=self._serve, args=(answer, before))
        self.thread.start()

    def _serve(self, answer, before):
        peer, _ = self.listening.accept()
        with peer:
            data = b""
            while b"\r\n\r\n" not in data:
                chunk = peer.recv(4096)
                if not chunk:
                    return
                data += chunk
            self.requests.append(data)
            before()
            peer.sendall(answer)

    def close(self):
        with socket.socket() as waking:  # it may be waiting for a request
            waking.connect_ex(self.listening.getsockname())
        self.thread.join()
        self.listening.close()


@pytest.fixture(name="in_lambda")
def _in_lambda(monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
    monkeypatch.setenv("LAMBDA_EXT_DISABLE", "signals,extension")


@pytest.fixture(name="endpoint")
def _endpoint(monkeypatch, in_lambda):
    """Return a function that sets up Lambda's metadata endpoint."""
    made = []

    def start(answer, before=lambda: None):
        endpoint = Endpoint(answer, before)
        made.append(endpoint)
        monkeypatch.setenv("AWS_LAMBDA_METADATA_API", endpoint.address)
        monkeypatch.setenv("AWS_LAMBDA_METADATA_TOKEN", "s3cr3t-token")
        return endpoint.requests

    yield start
    for endpoint in made:
        endpoint.close()


def answer(body, status="200 OK"):
    """Return an HTTP answer with a body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class TestProperties:
    """What stands beside the metrics of an invocation."""

    def test_off_by_default(self, monkeypatch):
        """Without the option a document has nothing besides its metrics."""
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)

        assert [{}] == invoked(Context)

    def test_all_that_is_known(self, monkeypatch):
        """Each is there by its name, and the cold start is true once."""
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        configure(properties=ALL)

        first, second = invoked(Context, times=2)

        assert {
            "cold_start": True,
            "request_id": "r-1",
            "span_id": "53995c3f42cd8ad8",
            "tenant_id": "acme",
            "trace_id": ROOT_ID,
        } == first
        assert {**first, "cold_start": False} == second

    def test_only_those_that_are_wanted(self, monkeypatch):
        """LAMBDA_EXT_PROPERTIES names them."""
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        monkeypatch.setenv("LAMBDA_EXT_PROPERTIES", " trace_id , Request_ID ")

        assert [{"request_id": "r-1", "trace_id": ROOT_ID}] == invoked(Context)

    @pytest.mark.parametrize("given", ["request", ["request_id", 5], True, 7])
    def test_unknown_name_is_refused(self, given):
        """What is no name of a property raises, and names those that are."""
        with pytest.raises(ConfigurationError, match="properties"):
            configure(properties=given)

    @pytest.mark.parametrize(
        "variable", ["", ";;;", "Root", "Root=", "=", "garbage", "Root=;Parent="]
    )
    def test_what_is_not_known_is_left_out(self, monkeypatch, variable):
        """So is what a test double says, or a tracing header of another kind."""
        from unittest.mock import Mock

        monkeypatch.setenv("_X_AMZN_TRACE_ID", variable)
        configure(properties="trace_id,span_id,request_id,tenant_id")

        assert [{}, {}] == [*invoked(None), *invoked(Mock())]

    def test_they_are_forgotten_after_the_invocation(self):
        """What is recorded between two invocations belongs to neither."""
        configure(properties="request_id")
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        with MemorySink() as sink:
            handler({}, Context)
            metrics.count("later")
            metrics.flush()

        assert [{"request_id": "r-1"}, {}] == [dict(b.properties) for b in sink.batches]

    def test_the_users_own_come_first(self):
        """annotate() replaces one of the same name, and adds to the others."""
        configure(properties="request_id,tenant_id")

        def body(event, context):
            metrics.annotate({"request_id": "mine", "order": 5})
            metrics.count("n")

        expected = {"order": 5, "request_id": "mine", "tenant_id": "acme"}
        assert [expected] == invoked(Context, body)

    def test_early_flush_has_them(self):
        """They are there from the beginning of the invocation."""
        configure(properties="request_id")
        found = []

        def body(event, context):
            metrics.count("n")
            metrics.flush()
            found.extend(dict(batch.properties) for batch in sink.batches)

        handler = lambda_ext.handler(body)
        with MemorySink() as sink:
            handler({}, Context)

        assert [{"request_id": "r-1"}] == found

    def test_forked_child(self):
        """A child is inside no invocation, so that it has no properties of one."""
        configure(properties="request_id")

        def body(event, context):
            metrics.annotate({"order": 5})
            metrics.annotate({"process": 7}, always=True)
            found.append(in_child(lambda: annotated() == {"process": 7, "own": 1}))

        def annotated():
            metrics.annotate({"own": 1})
            with MemorySink() as sink:
                metrics.count("n")
            return dict(sink.batches[0].properties)

        found = []
        lambda_ext.handler(body)({}, Context)

        assert [True] == found

    def test_members_of_a_document(self, capfd):
        """In EMF they are members of the root, and no dimensions."""
        configure(properties="request_id,cold_start")
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))
        handler({}, Context)

        document = json.loads(capfd.readouterr().out)
        assert ("r-1", True) == (document["request_id"], document["cold_start"])
        assert [["service"]] == document["_aws"]["CloudWatchMetrics"][0]["Dimensions"]

    def test_off_again(self):
        """An option that is taken back ends it."""
        configure(properties="request_id")
        assert [{"request_id": "r-1"}] == invoked(Context)
        configure(properties=())

        assert [{}] == invoked(Context)

    def test_nothing_is_loaded_without_the_option(self):
        """A handler that does not ask for it does not load it."""
        from helpers import python

        done = python(
            "import sys, lambda_ext\n"
            "lambda_ext.handler(print)\n"
            "print([n for n in sys.modules if 'correlation' in n or 'otel' in n])"
        )

        assert ("[]\n", "") == (done.stdout, done.stderr)


class TestOpenTelemetry:
    """The active span, where OpenTelemetry is loaded."""

    @pytest.fixture(autouse=True)
    def _loaded(self, monkeypatch):
        from otel_modules import MODULES, load

        load(monkeypatch)
        self.trace = MODULES["opentelemetry.trace"]

    def provider(self):
        from opentelemetry.sdk.trace import TracerProvider

        return TracerProvider(shutdown_on_exit=False)

    def test_active_span_comes_before_the_variable(self, monkeypatch):
        """Its ids are written as X-Ray does."""
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        configure(properties="trace_id,span_id")
        handler = lambda_ext.handler(lambda event, context: metrics.count("n"))

        with MemorySink() as sink:
            with self.provider().get_tracer("t").start_as_current_span("s") as span:
                handler({}, None)

        context = span.get_span_context()
        digits = f"{context.trace_id:032x}"
        assert {
            "span_id": f"{context.span_id:016x}",
            "trace_id": f"1-{digits[:8]}-{digits[8:]}",
        } == dict(sink.batches[0].properties)

    def test_no_active_span(self, monkeypatch):
        """Then the variable says it."""
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        configure(properties="trace_id")

        assert [{"trace_id": ROOT_ID}] == invoked()

    def test_broken_api(self, monkeypatch):
        """One that raises changes nothing."""

        def fail():
            raise RuntimeError("no")

        monkeypatch.setattr(self.trace, "get_current_span", fail)
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        configure(properties="trace_id")

        assert [{"trace_id": ROOT_ID}] == invoked()


class TestZone:
    """The availability zone, of Lambda's metadata endpoint."""

    def test_is_asked_once(self, endpoint):
        """INIT asks with the token; each invocation has the answer."""
        requests = endpoint(answer({"AvailabilityZoneID": "use1-az1"}))
        configure(properties="availability_zone")

        found = invoked(times=2)

        assert [{"availability_zone": "use1-az1"}] * 2 == found
        (request,) = requests
        head = request.decode().split("\r\n")
        assert "GET /2026-01-15/metadata/execution-environment HTTP/1.1" == head[0]
        assert "Authorization: Bearer s3cr3t-token" in head

    @pytest.mark.logs
    @pytest.mark.parametrize(
        "given",
        [
            answer({"AvailabilityZoneID": "use1-az1"}, "403 Forbidden"),
            answer({"AvailabilityZoneID": 5}),
            answer({"AvailabilityZoneID": ""}),
            answer({"AvailabilityZoneID": "x" * 300}),
            answer({}),
            answer([]),
            answer(b"\xff\xfe"),
            answer(b"{"),
            b"SSH-2.0\r\n\r\n",
            b"",
        ],
        ids=range(10),
    )
    def test_bad_answer(self, endpoint, caplog, given):
        """It is left out, with one line that holds no token."""
        endpoint(given)
        configure(properties="availability_zone")

        found = invoked(times=2)

        assert [{}, {}] == found
        (record,) = caplog.records
        assert "lambda_ext.availability_zone_unknown" in record.getMessage()
        assert "s3cr3t" not in record.getMessage()

    @pytest.mark.logs
    def test_no_answer_in_time(self, endpoint, caplog, monkeypatch):
        """INIT waits for the time that it has for that, and no longer."""
        monkeypatch.setattr(correlation, "METADATA_S", 0.01)
        done = threading.Event()
        endpoint(b"", lambda: done.wait(60))
        configure(properties="availability_zone")

        found = invoked()
        done.set()

        assert [{}] == found
        (record,) = caplog.records
        assert "TimeoutError" in record.getMessage()

    @pytest.mark.logs
    def test_no_endpoint(self, in_lambda, caplog):
        """An older environment has none."""
        configure(properties="availability_zone")

        assert [{}] == invoked()
        (record,) = caplog.records
        assert "AWS_LAMBDA_METADATA_API is not set" in record.getMessage()

    def test_outside_lambda(self):
        """There is no zone, and no word about it."""
        configure(properties="availability_zone")

        assert [{}] == invoked()

    def test_restore_asks_anew(self, endpoint, monkeypatch):
        """A snapshot is restored in any zone: INIT does not ask, the restore does."""
        requests = endpoint(answer({"AvailabilityZoneID": "use1-az2"}))
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
        configure(properties="availability_zone")
        lambda_ext.start()
        assert [] == requests

        phases.call(phases.RESTORE)

        assert [{"availability_zone": "use1-az2"}] == invoked()

    @process
    def test_in_the_emulator(self, tmp_path):
        """The local environment has an endpoint, too."""
        (tmp_path / "app.py").write_text(
            "import lambda_ext\n"
            "from lambda_ext import metrics\n"
            "@lambda_ext.handler\n"
            "def handler(event, context):\n"
            "    metrics.count('n')\n"
        )
        env = {"PYTHONPATH": ROOT, "LAMBDA_EXT_PROPERTIES": ALL}
        with emulate(task_root=str(tmp_path), env=env) as emulator:
            emulator.invoke({})
            lines = [text for text in texts(emulator) if text.startswith("{")]

        documents = [text for text in lines if "_aws" in text]
        (document,) = map(json.loads, documents)
        assert ("use1-az1", True) == (
            document["availability_zone"], document["cold_start"],
        )  # fmt: skip
        assert {"request_id", "trace_id"} <= set(document)
