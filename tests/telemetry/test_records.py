"""What a record of the Telemetry API says, in every shape in which AWS sends it."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_ext.telemetry import records

TIME = "2022-08-02T12:01:23.521Z"


def made(type_, record, time=TIME):
    """Return the record that one delivered element is."""
    (found,) = records.Batch.of(
        json.dumps([{"time": time, "type": type_, "record": record}])
    )
    return found


def log(record, type_="function"):
    """Return a log record."""
    return made(type_, record)


SPAN = {"name": "responseLatency", "start": TIME, "durationMs": 23.02}
TRACING = {"spanId": "54565f", "type": "X-Amzn-Trace-Id", "value": "Root=1-5759e988"}
EXAMPLES = {
    "platform.initStart": (
        {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": "python:3.13.v50",
            "runtimeVersionArn": "arn:r",
            "functionName": "f",
            "functionVersion": "$LATEST",
            "functionArn": "arn:f",
            "instanceId": "i",
            "instanceMaxMemory": 134217728,
        },
        records.InitStart,
        {
            "initialization_type": "on-demand",
            "phase": "init",
            "runtime_version": "python:3.13.v50",
            "runtime_version_arn": "arn:r",
            "function_name": "f",
            "function_version": "$LATEST",
            "function_arn": "arn:f",
            "instance_id": "i",
            "instance_max_memory": 134217728,
        },
    ),
    "platform.initRuntimeDone": (
        {
            "initializationType": "on-demand",
            "phase": "init",
            "status": "error",
            "errorType": "Runtime.ExitError",
        },
        records.InitRuntimeDone,
        {
            "initialization_type": "on-demand",
            "phase": "init",
            "status": "error",
            "error_type": "Runtime.ExitError",
        },
    ),
    "platform.initReport": (
        {
            "initializationType": "snap-start",
            "phase": "init",
            "status": "success",
            "metrics": {"durationMs": 103.952},
        },
        records.InitReport,
        {
            "initialization_type": "snap-start",
            "phase": "init",
            "status": "success",
            "duration_ms": 103.952,
        },
    ),
    "platform.start": (
        {"requestId": "r", "version": "$LATEST", "tenantId": "t", "functionArn": "a"},
        records.Start,
        {
            "request_id": "r",
            "version": "$LATEST",
            "tenant_id": "t",
            "function_arn": "a",
        },
    ),
    "platform.runtimeDone": (
        {
            "requestId": "r",
            "status": "timeout",
            "metrics": {"durationMs": 140.0, "producedBytes": 16},
            "tenantId": "t",
        },
        records.RuntimeDone,
        {
            "request_id": "r",
            "status": "timeout",
            "duration_ms": 140.0,
            "produced_bytes": 16,
            "tenant_id": "t",
        },
    ),
    "platform.report": (
        {
            "requestId": "r",
            "status": "success",
            "metrics": {
                "durationMs": 693.92,
                "billedDurationMs": 694,
                "memorySizeMB": 128,
                "maxMemoryUsedMB": 84,
                "initDurationMs": 397.68,
                "restoreDurationMs": 1.5,
            },
        },
        records.Report,
        {
            "request_id": "r",
            "status": "success",
            "error_type": None,
            "duration_ms": 693.92,
            "billed_duration_ms": 694,
            "memory_size_mb": 128,
            "max_memory_used_mb": 84,
            "init_duration_ms": 397.68,
            "restore_duration_ms": 1.5,
        },
    ),
    "platform.end": ({"requestId": "r"}, records.End, {"request_id": "r"}),
    "platform.restoreStart": (
        {
            "functionName": "f",
            "functionVersion": "1",
            "runtimeVersion": "v",
            "runtimeVersionArn": "a",
            "instanceId": "i",
            "instanceMaxMemory": 1,
        },
        records.RestoreStart,
        {
            "function_name": "f",
            "function_version": "1",
            "runtime_version": "v",
            "runtime_version_arn": "a",
            "instance_id": "i",
            "instance_max_memory": 1,
        },
    ),
    "platform.restoreRuntimeDone": (
        {"status": "failure", "errorType": "x"},
        records.RestoreRuntimeDone,
        {"status": "failure", "error_type": "x"},
    ),
    "platform.restoreReport": (
        {"status": "success", "metrics": {"durationMs": 15.19}},
        records.RestoreReport,
        {"status": "success", "duration_ms": 15.19},
    ),
    "platform.extension": (
        {"name": "lambda_ext", "state": "Ready", "events": ["INVOKE", 7]},
        records.Extension,
        {"name": "lambda_ext", "state": "Ready", "events": ("INVOKE",)},
    ),
    "platform.telemetrySubscription": (
        {"name": "lambda_ext", "state": "Subscribed", "types": ["platform"]},
        records.TelemetrySubscription,
        {"name": "lambda_ext", "state": "Subscribed", "types": ("platform",)},
    ),
    "platform.logsDropped": (
        {"droppedBytes": 12345, "droppedRecords": 123, "reason": "slow"},
        records.LogsDropped,
        {"dropped_bytes": 12345, "dropped_records": 123, "reason": "slow"},
    ),
    "platform.fault": (
        "RequestId: d783 Process exited before completing request",
        records.Fault,
        {
            "request_id": "d783",
            "message": "RequestId: d783 Process exited before completing request",
        },
    ),
}


class TestPlatformRecords:
    """Each type of the schema has a class of its own, with AWS's members."""

    @pytest.mark.parametrize("type_", EXAMPLES)
    def test_each_type_has_its_accessors(self, type_):
        """What AWS sends is what the properties say."""
        record, kind, expected = EXAMPLES[type_]

        found = made(type_, record)

        assert (kind, type_, TIME, record, "platform") == (
            type(found),
            found.type,
            found.time,
            found.record,
            found.where,
        )
        assert expected == {name: getattr(found, name) for name in expected}

    @pytest.mark.parametrize("type_", EXAMPLES)
    @pytest.mark.parametrize(
        "record",
        [
            None,
            7,
            [],
            "text",
            {},
            {"metrics": 7, "spans": {}, "tracing": [], "requestId": 7, "events": 1},
            {"metrics": {"durationMs": "1"}, "spans": [7, {}], "tracing": {"value": 1}},
            {"metrics": {"durationMs": True}, "types": "all", "droppedBytes": None},
        ],
        ids=repr,
    )
    def test_missing_and_wrong_members_are_none(self, type_, record):
        """A filter needs no try: nothing raises, and wrong kinds are absent."""
        found = made(type_, record)
        names = [*EXAMPLES[type_][2], "level", "message", "fields", "is_ours", "is_emf"]
        values = {name: getattr(found, name) for name in names}

        assert record == found.record
        assert all(
            value is None or isinstance(value, (str, tuple, dict, bool))
            for value in values.values()
        )

    def test_spans_and_tracing_are_objects(self):
        """A report has what the platform measured, and the trace."""
        found = made("platform.report", {"spans": [SPAN], "tracing": TRACING})
        (span,) = found.spans

        assert ("responseLatency", TIME, 23.02) == (
            span.name,
            span.start,
            span.duration_ms,
        )
        assert found.timestamp == span.timestamp
        assert ("X-Amzn-Trace-Id", "Root=1-5759e988", "54565f") == (
            found.tracing.type,
            found.tracing.value,
            found.tracing.span_id,
        )

    def test_unknown_types_are_kept_as_they_are(self):
        """A type of next year's is a record, with what AWS sent."""
        for type_, kind in (
            ("platform.newThing", records.Platform),
            ("audit", records.Record),
        ):
            found = made(type_, {"requestId": "r", "x": [1]})

            assert (kind, type_, {"requestId": "r", "x": [1]}, "r") == (
                type(found),
                found.type,
                found.record,
                found.request_id,
            )

    def test_fault_of_the_platform_may_be_an_object(self):
        """RAPID sends the text under "fault"."""
        found = made("platform.fault", {"fault": "RequestId: r1 Error: x\n"})

        assert ("r1", "RequestId: r1 Error: x\n") == (found.request_id, found.message)


LINE = {
    "timestamp": TIME,
    "level": "WARN",
    "requestId": "r-1",
    "message": "slow",
    "logger": "orders",
}


class TestLogs:
    """One meaning for objects, JSON lines and text lines."""

    @pytest.mark.parametrize("as_text", [False, True])
    @pytest.mark.parametrize("type_", ["function", "extension"])
    def test_json_lines(self, as_text, type_):
        """A JSON line says the same as an object and as text."""
        record = json.dumps(LINE) if as_text else LINE
        found = log(record, type_)

        assert (type_, "WARN", "r-1", "slow", record, LINE) == (
            found.where,
            found.level,
            found.request_id,
            found.message,
            found.record,
            found.fields,
        )

    def test_text_lines_of_the_runtime(self):
        """The runtime's own text format has a level and a request id."""
        found = log("[ERROR]\t2024-05-05T05:05:05.005Z\tr-2\tno\tgood\n")

        assert ("ERROR", "r-2", "no\tgood", {}) == (
            found.level,
            found.request_id,
            found.message,
            found.fields,
        )

    def test_text_line_of_init_has_no_request(self):
        """While INIT lasts the runtime writes an empty request id."""
        found = log("[INFO]\t2024-05-05T05:05:05.005Z\t\thello\n")

        assert ("INFO", None, "hello") == (found.level, found.request_id, found.message)

    def test_error_of_the_runtime(self):
        """What a handler raised is an ERROR with the text as it is."""
        found = log("[ERROR] ValueError: x\nTraceback (most recent call last):\n  ...")

        assert (
            "ERROR",
            None,
            "[ERROR] ValueError: x\nTraceback (most recent call last):\n  ...",
        ) == (
            found.level,
            found.request_id,
            found.message,
        )

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("plain\n", "plain"),
            ("", ""),
            ("{not json", "{not json"),
            ("[1, 2]", "[1, 2]"),
            ("[info] x", "[info] x"),
        ],
    )
    def test_other_text_is_its_own_message(self, line, message):
        """A print has neither level nor request."""
        found = log(line)

        assert (None, None, message, {}) == (
            found.level,
            found.request_id,
            found.message,
            found.fields,
        )

    @pytest.mark.parametrize(
        ("record", "level", "request_id", "message"),
        [
            (
                {"level": "error", "function_request_id": "r", "message": {"a": 1}},
                "ERROR",
                "r",
                '{"a":1}',
            ),
            ({"severity": "Info", "msg": "m", "AWSRequestId": "r"}, "INFO", "r", "m"),
            (
                {"levelname": "DEBUG", "x": 1},
                "DEBUG",
                None,
                '{"levelname":"DEBUG","x":1}',
            ),
            ({"level": 30, "message": None}, None, None, "null"),
        ],
    )
    def test_other_loggers_names(self, record, level, request_id, message):
        """Powertools' and other loggers' names for the same things."""
        found = log(record)

        assert (level, request_id, message) == (
            found.level,
            found.request_id,
            found.message,
        )


class TestOurOwn:
    """No feedback: what this library logs, and what is no log."""

    @pytest.mark.parametrize(
        "record",
        [
            "lambda_ext.otlp_failed sink=x",
            "lambda_ext.sink_failed\n",
            "[WARNING]\t2024-05-05T05:05:05.005Z\tr\tlambda_ext.sink_failed sink=x n=1\n",
            "WARNING:lambda_ext:lambda_ext.sink_failed text without a field",
            "2024-05-05 lambda_ext WARNING | lambda_ext.sink_failed sink=x",
            {"logger": "lambda_ext", "level": "WARNING", "message": "anything"},
            '{"logger":"lambda_ext","message":"anything"}',
            {"name": "lambda_ext", "message": "at 12:00 lambda_ext.sink_failed"},
            {"message": "lambda_ext.sink_failed sink=x"},
            {"msg": "lambda_ext.sink_failed"},
        ],
        ids=repr,
    )
    def test_our_lines_are_ours(self, record):
        """In text and JSON, by the runtime's formatter and by others."""
        assert log(record).is_ours

    @pytest.mark.parametrize(
        "record",
        [
            "calls lambda_ext.get_secret for a value",
            "lambda_ext is fast",
            "lambda_extra.failed x=1",
            {"logger": "orders", "message": "lambda_ext is fast"},
            {"logger": "lambda_extra", "message": "x"},
            {"name": "lambda_ext", "version": "1.0", "message": "installed"},
            {"message": {"lambda_ext": 1}},
            "",
            None,
        ],
        ids=repr,
    )
    def test_the_users_lines_are_not(self, record):
        """A line that speaks of the library is the user's."""
        assert not log(record).is_ours

    def test_emf_is_told_from_a_log(self):
        """Documents of the embedded metric format, as object and as text."""
        document = {"_aws": {"CloudWatchMetrics": []}, "n": 1}

        assert [True, True, False, False, False] == [
            log(each).is_emf
            for each in (
                document,
                json.dumps(document),
                {"_aws": 1},
                'a "_aws" b',
                {"message": "_aws"},
            )
        ]


class TestTime:
    """Seconds since the epoch, without importing datetime."""

    @given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))
    @settings(deadline=None, max_examples=200)
    def test_every_time_is_what_datetime_says(self, moment):
        """The days of leap years and centuries are counted right."""
        from datetime import timezone

        expected = moment.replace(tzinfo=timezone.utc).timestamp()
        text = moment.isoformat(timespec="microseconds")

        assert [pytest.approx(expected)] * 2 == [
            records.seconds(text + "Z"),
            records.seconds(text + "+00:00"),
        ]

    def test_offsets_and_nanoseconds(self):
        """Other forms of RFC 3339 mean what they say."""
        base = records.seconds("2024-02-29T00:00:00Z")

        assert [base, base, base + 0.5] == [
            records.seconds("2024-02-29T02:00:00+02:00"),
            records.seconds("2024-02-28T22:30:00-0130"),
            records.seconds("2024-02-29T00:00:00.500000000Z"),
        ]

    @pytest.mark.parametrize(
        "time", ["", "x", "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z"]
    )
    def test_what_is_no_time_is_when_it_arrived(self, time):
        """A record always has a timestamp."""
        element = [{"time": time, "type": "function", "record": "x"}]
        (found,) = records.Batch.of(json.dumps(element), received_at=12.5)

        assert (None, 12.5, time) == (
            records.seconds(time),
            found.timestamp,
            found.time,
        )

    def test_a_time_that_is_no_text(self):
        """A number under "time" is not passed on as text."""
        (found,) = records.Batch.of(
            '[{"time": 7, "type": "function"}]', received_at=1.0
        )

        assert ("", 1.0, None) == (found.time, found.timestamp, found.record)


class TestBatches:
    """A malformed record concerns no other."""

    def test_malformed_elements_are_counted(self):
        """The others arrive, in order."""
        batch = records.Batch.of(
            '[1, null, {"type": 5}, {"type": "function", "record": "a"}, [], "x",'
            ' {}, {"type": "extension", "record": "b"}]',
            "sequence",
            received_at=3.0,
        )

        assert (["a", "b"], "sequence", 6, 3.0, 2) == (
            [record.record for record in batch],
            batch.sequence_id,
            batch.malformed,
            batch.received_at,
            len(batch),
        )

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"\xff\xfe\x00", b"7", b'"text"', b"null", b"[" * 100_000]
    )
    def test_a_body_that_is_no_batch(self, body):
        """It is an empty batch and a malformed element."""
        batch = records.Batch.of(body)

        assert ([], 1) == (batch.records, batch.malformed)

    @pytest.mark.parametrize(
        "broken",
        [
            b"\xff\xfe",
            b'"quotes" in "it"',
            b"line\x00",
            b'","record":' + b"[" * 50_000,
        ],
        ids=["utf-8", "quotes", "control", "deep"],
    )
    def test_an_element_that_is_no_json_concerns_no_other(self, broken):
        """What stands before it and behind it arrives."""
        good = b'{"time":"t","type":"function","record":"%s"}'
        body = b",".join((good % b"a", good % broken, good % b"b", good % b"c"))
        batch = records.Batch.of(b"[" + body + b"]")
        texts = [record.record for record in batch]

        assert ["a", "b", "c"] == [texts[0], *texts[-2:]]
        assert 4 == len(texts) + batch.malformed

    def test_a_body_that_is_cut_is_what_came_of_it(self):
        """The elements that are whole arrive."""
        good = '{"time":"t","type":"function","record":"%s"}'
        batch = records.Batch.of("[" + good % "a" + "," + good[:20])

        assert (["a"], 1) == ([record.record for record in batch], batch.malformed)

    def test_one_record_alone_is_a_batch(self):
        """An object in place of the array is taken as its one element."""
        batch = records.Batch.of('{"type": "function", "record": "a"}')

        assert (["a"], 0) == ([record.record for record in batch], batch.malformed)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        ["type", "time", "record", "metrics", "spans", "message"]
                    ),
                    inner,
                )
            ),
        )
    )
    @settings(deadline=None, max_examples=200)
    def test_nothing_that_is_json_raises(self, value):
        """Any JSON is records or malformed, and every property can be asked."""
        batch = records.Batch.of(
            json.dumps([value, {"type": "function", "record": value}])
        )
        for record in batch:
            for name in dir(record):
                if not name.startswith("_"):
                    getattr(record, name)

        assert 2 == len(batch) + batch.malformed


class TestMemory:
    """A batch that waits costs its size on the wire."""

    BODY = b'[{"time":"t","type":"function","record":"a"}, 7]'

    def test_records_live_as_long_as_a_consumer_has_them(self):
        """Two that have them share them; afterwards they are parsed anew."""
        batch = records.Batch.of(self.BODY)
        first = batch.records
        second = batch.records

        assert first is second
        gone = weakref.ref(first)
        del first, second
        gc.collect()
        assert gone() is None
        assert ["a"] == [record.record for record in batch]

    def test_malformed_elements_are_counted_once(self):
        """However often the batch is parsed."""
        batch = records.Batch.of(self.BODY)
        before = records.counted["malformed"]
        for _ in range(3):
            assert (1, 1) == (len(batch), batch.malformed)

        assert before + 1 == records.counted["malformed"]

    def test_a_batch_of_a_test_keeps_its_records(self):
        """What a test makes by hand is what its consumer gets."""
        made = [log("x")]
        batch = records.Batch(made, "id")

        assert (True, 0, False) == (
            batch.records is made,
            batch.malformed,
            batch.contains(b"x"),
        )


class TestReadOnly:
    """Consumers share records."""

    def test_no_attribute_can_be_set_or_deleted(self):
        """One consumer cannot change what the next one sees."""
        found = log("x")

        for name in ("type", "record", "new", "_fields"):
            with pytest.raises(AttributeError, match="read-only"):
                setattr(found, name, 1)
            with pytest.raises(AttributeError, match="read-only"):
                delattr(found, name)

    def test_it_can_be_copied_and_pickled(self):
        """Another process may have it."""
        found = log({"level": "INFO"})

        for other in (
            copy.copy(found),
            copy.deepcopy(found),
            pickle.loads(pickle.dumps(found)),
        ):
            assert (type(found), found.record, found.time) == (
                type(other),
                other.record,
                other.time,
            )

    def test_repr_shows_no_content(self):
        """What was logged may be secret; a repr is logged by accident."""
        found = log("password=hunter2")

        assert f"<Log function {TIME}>" == repr(found)
        assert "<Batch of 1 records, None>" == repr(records.Batch([found]))
