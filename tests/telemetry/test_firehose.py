"""Amazon Data Firehose: signed batches, of which a part may fail."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from log_entries import drained, entry
from wire import Wire, refusing, reset

from lambda_ext import telemetry
from lambda_ext.aws import light, signing
from lambda_ext.delivery import queue
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.telemetry import destinations, firehose

FAILED = pytest.mark.logs  # a failure is logged once a reason


class Stream:
    """A stream that takes what *failing* does not name, as AWS answers."""

    def __init__(self):
        self.lines = []
        self.calls = []
        self.failing = set()

    def answer(self, request):
        records = request.parameters["Records"]
        data = [base64.b64decode(each["Data"]) for each in records]
        self.calls.append(data)
        outcomes = []
        for each in data:
            message = json.loads(each)["message"]
            if message in self.failing:
                self.failing.discard(message)
                outcomes.append(
                    {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "x"}
                )
            else:
                self.lines.append(message)
                outcomes.append({"RecordId": "id"})
        failed = sum("ErrorCode" in each for each in outcomes)
        return {"FailedPutCount": failed, "RequestResponses": outcomes}


@pytest.fixture(name="stream")
def _stream():
    return Stream()


@pytest.fixture(name="server", autouse=True)
def _server(stream, monkeypatch):
    monkeypatch.setattr(queue, "jitter", lambda _: 0.0)
    with Wire(stream.answer) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL_FIREHOSE", wire.url)
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")  # moto may be loaded
        yield wire
    light.reset()
    signing.reset()


def test_records_are_lines_in_signed_batches(server):
    """PutRecordBatch with base64, signed for Firehose, by the light client."""
    made = destinations.firehose("logs")
    made.accept_logs([entry("a"), entry({"message": "b"})])
    server.answer = lambda request: {
        "FailedPutCount": 0,
        "RequestResponses": [{"RecordId": "1"}, {"RecordId": "2"}],
    }
    assert (2, {}, 0) == drained(made)
    (request,) = server.requests
    first, second = [base64.b64decode(r["Data"]) for r in request.parameters["Records"]]
    assert "Firehose_20150804.PutRecordBatch" == request.headers["x-amz-target"]
    assert "/eu-central-1/firehose/aws4_request" in request.headers["authorization"]
    assert "logs" == request.parameters["DeliveryStreamName"]
    assert first.endswith(b'"message":"a"}\n')
    assert second.endswith(b'{"message":"b"}}\n')
    assert "lambda-ext" == request.headers["user-agent"]


@FAILED
def test_only_what_failed_is_sent_again(stream):
    """HTTP 200 with failures: those go again, in order, and every line counts once."""
    stream.failing = {"b", "d"}
    made = destinations.firehose("logs")
    made.accept_logs([entry(message) for message in "abcde"])

    assert (5, {}, 0) == drained(made)
    assert ["a", "c", "e", "b", "d"] == stream.lines
    assert [5, 2] == [len(call) for call in stream.calls]


@FAILED
def test_failures_that_last_keep_what_failed(stream, server):
    """What is taken counts as sent at once, the rest waits."""
    made = destinations.firehose("logs")
    made.accept_logs([entry(message) for message in "abc"])
    answers = []

    def stubborn(request):
        stream.failing.add("b")
        answers.append(stream.answer(request))
        return answers[-1]

    server.answer = stubborn
    assert (2, {}, 1) == drained(made)
    assert queue.ATTEMPTS == len(answers)
    assert ["a", "c"] == stream.lines


@FAILED
def test_answer_that_does_not_say_which_doubles_nothing(server):
    """Failures without an outcome per record are counted as lost."""
    server.answer = lambda request: {"FailedPutCount": 1, "RequestResponses": []}
    made = destinations.firehose("logs")
    made.accept_logs([entry("a"), entry("b")])

    assert (1, {"refused": 1}, 0) == drained(made)
    assert 1 == len(server.requests)


def test_batches_are_bounded(stream, monkeypatch):
    """At most 500 records and 4 MiB a call; a record above 1,000 KiB is counted."""
    made = destinations.firehose("logs")
    made.accept_logs([entry(str(number)) for number in range(1_200)])
    made.accept_logs([entry("x" * 900_000) for _ in range(4)])
    assert (1_204, {}, 0) == drained(made)
    made.accept_logs([entry("x" * 1_100_000), entry("a")])

    assert (1_205, {"too_large": 1}, 0) == drained(made)
    assert [500, 500, 200, 4, 1] == [len(call) for call in stream.calls]
    assert firehose.MAX_BYTES >= max(sum(map(len, call)) for call in stream.calls)


@FAILED
@pytest.mark.parametrize(
    "fault", [refusing("ServiceUnavailableException", status=503), reset]
)
def test_what_passes_is_tried_again(stream, server, fault):
    """Throttling and broken connections keep the batch."""
    server.faults += [fault]
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])

    assert (1, {}, 0) == drained(made)
    assert ["a"] == stream.lines


@FAILED
@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_what_does_not_pass_is_dropped(server, code):
    """A stream that is not there, or not the role's, is counted by AWS's code."""
    server.fault = refusing(code, "no")
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])

    assert (0, {code: 1}, 0) == drained(made)


@FAILED
def test_expired_credentials_are_renewed(stream, server, monkeypatch):
    """Keys that AWS refuses are read anew, and the batch is sent again at once."""

    def renew(peer, data):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
        refusing("ExpiredTokenException", "old")(peer, data)

    server.faults += [renew]
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])

    assert (1, {}, 0) == drained(made)
    assert "Credential=renewed/" in server.requests[-1].headers["authorization"]


@FAILED
def test_without_credentials_everything_waits(server, monkeypatch):
    """A process that cannot sign keeps what it has."""
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])

    assert (0, {}, 1) == drained(made)
    assert [] == server.requests


def test_boto3_does_the_same(stream, server, monkeypatch):
    """Where the light client is not chosen, boto3 puts the same bytes."""
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "boto3")
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])

    assert ((1, {}, 0), ["a"]) == (drained(made), stream.lines)


def test_what_boto3_logs_of_it_is_left_out(stream, monkeypatch, caplog):
    """At DEBUG it logs whole bodies, which would be shipped, and logged, again."""
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "boto3")
    made = destinations.firehose("logs")
    made.accept_logs([entry("a")])
    drained(made)  # botocore has made its loggers
    route = telemetry.route().to(made, max_age=1e9)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    element = {"time": "", "type": "function", "record": "b"}
    route(telemetry.Batch.of(json.dumps([element])))

    assert telemetry.flush(30)
    assert ["a", "b"] == stream.lines
    assert [] == [each for each in caplog.records if "boto" in each.name]


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, None, "arn:aws:firehose:x"])
def test_what_is_no_name_is_refused(name):
    """The name of a stream, and no ARN."""
    with pytest.raises(ConfigurationError, match="stream"):
        destinations.firehose(name)
