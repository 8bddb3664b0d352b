"""One valid line on stdout, for every kind of stdout."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys

import emf_rules
import pytest
from helpers import forget_threads, python

from lambda_ext import configure, metrics
from lambda_ext.metrics import emf, emf_batches, losses, stdout, tally
from lambda_ext.metrics.buffer import COUNT, DISTRIBUTION, Series
from lambda_ext.metrics.parcels import Batch, Point
from lambda_ext.testing import FakeClock

SERVICE = (("service", "shop"),)
AT = 1_700_000_000.1239


@pytest.fixture(autouse=True)
def _clean():
    tally.reset()
    stdout.reset()
    yield
    tally.reset()
    stdout.reset()


def point(name, *values, unit="Count", dimensions=SERVICE, samples=None):
    """Return a counter of one value, or a distribution of several."""
    kind = COUNT if len(values) == 1 else DISTRIBUTION
    count = len(values) if samples is None else samples
    return Point(Series("ns", kind, name, unit, dimensions), list(values), count)


def batch(*points, namespace="ns", at=AT):
    """Return a batch of these points."""
    return Batch(namespace, at, list(points))


def lines_of(sink, *points):
    """Return the lines of these points, each with the records in it."""
    return [
        (line.data, sum(records for _, records in line.names))
        for line in emf_batches.lines(sink, batch(*points), losses.uncounted)
    ]


def encoded(*points):
    """Return the checked documents of these points, and their lines."""
    lines = [line.decode() for line, _ in lines_of(emf.EmfSink(), *points)]
    return [emf_rules.document(line.rstrip("\n")) for line in lines], lines


class Unbuffered:
    """What Lambda's runtime client puts in the place of sys.stdout."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self.stream.write(text)
        self.stream.flush()


@contextlib.contextmanager
def piped(monkeypatch, *, blocking=True):
    """Make stdout a pipe; yield what reads all that it holds."""
    forget_threads(monkeypatch)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, blocking)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", 0) as source:
        monkeypatch.setattr(sys, "stdout", Unbuffered(stream))

        def read():
            chunks = []
            while chunk := source.read(65_536):
                chunks.append(chunk)
            return b"".join(chunks).decode()

        yield read, writer
        monkeypatch.undo()


class TestLine:
    """How a line looks."""

    def test_document_is_the_expected_one(self):
        """One document holds all metrics of equal dimensions, in one line."""
        documents, lines = encoded(
            point("orders", 3),
            point("latency", 12.5, 14, unit="Milliseconds"),
            point("plain", 1, unit="None"),
        )
        expected = {
            "_aws": {
                "Timestamp": 1_700_000_000_123,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "ns",
                        "Dimensions": [["service"]],
                        "Metrics": [
                            {"Name": "orders", "Unit": "Count"},
                            {"Name": "latency", "Unit": "Milliseconds"},
                            {"Name": "plain"},
                        ],
                    }
                ],
            },
            "service": "shop",
            "orders": 3,
            "latency": [12.5, 14],
            "plain": 1,
        }

        assert documents == [expected]
        assert lines == [json.dumps(expected, separators=(",", ":")) + "\n"]

    @pytest.mark.parametrize(
        "name", ['say "hi"', "back\\slash", "100%s", "größe日", "{}"]
    )
    def test_any_name_is_escaped(self, name):
        """Quotes, backslashes, per cent signs and Unicode survive."""
        dimensions = (("service", 'a"b\\c%d{}'), ('"quoted"', "x"))
        documents, _ = encoded(point(name, 1, dimensions=dimensions))

        assert 1 == documents[0][name]
        assert 'a"b\\c%d{}' == documents[0]["service"]
        assert "x" == documents[0]['"quoted"']

    def test_no_dimension_is_an_empty_set(self):
        """A metric without any dimension has the set that is empty."""
        documents, _ = encoded(point("n", 1, dimensions=()))

        assert [[]] == documents[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"]

    @pytest.mark.parametrize(
        "value", [0, -0.0, 1e-300, 1e300 / 1e200, 2**360, -(2**360), 0.1 + 0.2]
    )
    def test_value_keeps_every_digit(self, value):
        """A number reads back as the same number."""
        documents, _ = encoded(point("n", value))

        assert documents[0]["n"] == value

    def test_dimension_sets_come_in_lines_of_their_own(self):
        """Points with different dimensions never share a document."""
        other = (*SERVICE, ("tenant", "a"))
        documents, _ = encoded(point("n", 1), point("n", 2, dimensions=other))

        assert [1, 2] == [document["n"] for document in documents]

    def test_two_units_of_one_name_come_in_two_lines(self):
        """One key of a document has one unit, so the other unit goes elsewhere."""
        documents, _ = encoded(
            point("n", 1), point("m", 5), point("n", 2.0, unit="Seconds")
        )
        units = [
            document["_aws"]["CloudWatchMetrics"][0]["Metrics"]
            for document in documents
        ]

        assert [
            [{"Name": "n", "Unit": "Count"}, {"Name": "m", "Unit": "Count"}],
            [{"Name": "n", "Unit": "Seconds"}],
        ] == units

    def test_line_knows_how_many_records_are_in_it(self):
        """A sum stands for its records, an array for its values, in any line."""
        sink = emf.EmfSink()
        sums = [point("n", 9, samples=3), point("n", 5, unit="Bytes", samples=2)]

        assert [3, 2] == [samples for _, samples in lines_of(sink, *sums)]
        assert [3] == [samples for _, samples in lines_of(sink, sums[0])]
        assert [5] == [
            samples for _, samples in lines_of(sink, sums[0], point("d", 1, 2))
        ]

    def test_no_point_is_no_line(self):
        """An empty batch is not written."""
        assert ([], []) == encoded()

    def test_long_parts_are_not_kept(self):
        """They are not worth their memory; short ones are."""
        kept = []
        for length in (10, 1_000):
            sink = emf.EmfSink(io.StringIO())
            long = tuple((f"d{number}", "x" * length) for number in range(5))
            for name in ("n", "m", "n"):
                sink.accept(batch(point(name, 1, dimensions=long)))
            kept.append(len(sink._templates))

        assert [2, 0] == kept

    def test_few_batches_are_remembered(self):
        """As many as may come again, not all."""
        sink = emf.EmfSink(io.StringIO())
        batches = [batch(point("n", 1)) for _ in range(20)]
        for each in batches:
            sink.accept(each)

        assert batches[-8:] == sink._offered

    def test_memory_of_prepared_parts_is_bounded(self, monkeypatch):
        """Names and dimensions beyond the bound are forgotten, not piled up."""
        for module in (emf, emf_batches):
            monkeypatch.setattr(module, "MAX_TEMPLATES", 5)
        stream = io.StringIO()
        sink = emf.EmfSink(stream)
        kept = []
        for i in range(20):
            sink.accept(batch(point(f"n{i}", 1, dimensions=(("d", str(i)),))))
            kept.append(len(sink._templates))

        assert 5 == max(kept)
        assert 20 == len(emf_rules.documents(stream.getvalue()))


class TestLimits:
    """Where one document ends and the next begins."""

    def test_a_hundred_metrics_fill_a_document(self):
        """The 101st metric begins another document."""
        points = [point(f"{i}", i, unit="None") for i in range(250)]
        documents, _ = encoded(*points)
        sizes = [
            len(document["_aws"]["CloudWatchMetrics"][0]["Metrics"])
            for document in documents
        ]

        assert [100, 100, 50] == sizes
        assert [documents[i // 100][f"{i}"] for i in range(250)] == list(range(250))

    def test_a_hundred_values_fill_a_metric(self):
        """The 101st value of a distribution goes to another document."""
        documents, _ = encoded(point("n", *range(250)), point("m", 1))

        assert [document["n"] for document in documents] == [
            list(range(100)),
            list(range(100, 200)),
            list(range(200, 250)),
        ]
        assert [True, False, False] == ["m" in document for document in documents]

    def test_rest_of_one_value_is_a_number(self):
        """The 101st value alone is written as a number, and counts as one."""
        sink = emf.EmfSink()
        lines = lines_of(sink, point("n", *range(101)))

        assert [100, 1] == [samples for _, samples in lines]
        assert 100 == json.loads(lines[1][0])["n"]

    @pytest.mark.parametrize(
        ("more", "limit"),
        [((), 4_096), ((("d", "x" * 1_800),), 4_096), ((("d", "x" * 5_000),), 60_000)],
        ids=["short", "less than half", "long"],
    )
    def test_lines_are_filled(self, more, limit):
        """With the newline that may come before, and room for two commas; no further."""
        longest = []
        for length in range(1, 120):
            points = [
                point("n" * length, *[10**59] * 100, dimensions=more),
                point("m", *[10**59] * 100, dimensions=more),
                *[point(f"m{i}", *[10**99] * 100, dimensions=more) for i in range(6)],
            ]
            lines = [data for data, _ in lines_of(emf.EmfSink(), *points)]
            longest.append(max(map(len, lines)))

        assert limit - 3 == max(longest)

    def test_lines_are_filled_with_numbers(self):
        """As far as with lists."""
        longest = []
        for length in range(1, 120):
            numbers = [point(f"m{i}", 10**59) for i in range(60)]
            lines = lines_of(emf.EmfSink(), point("n", 10**length), *numbers)
            longest.append(max([len(data) for data, _ in lines]))

        assert 4_093 == max(longest)

    def test_metric_that_is_longer_alone_is_not_dropped(self):
        """What cannot be divided comes out as one line."""
        ((line, records),) = lines_of(emf.EmfSink(), point("日" * 400, 7))

        assert 1 == records
        assert 7 == json.loads(line)["日" * 400]
        assert len(line) > 4_800

    def test_document_that_a_pipe_takes_at_once_is_not_divided(self):
        """With the newline that may come before: 4,095 bytes, and not one more."""
        alone = set()
        for length in range(1, 200):
            where = (("d", "x" * length),)
            values = [10**59] * 63
            lines = [
                data
                for data, _ in lines_of(
                    emf.EmfSink(), point("n", *values, dimensions=where)
                )
            ]
            assert max(map(len, lines)) < 4_096
            if len(lines) == 1:
                alone.add(len(lines[0]))

        assert 4_095 == max(alone)

    def test_line_is_no_longer_than_a_pipe_takes_at_once(self):
        """Documents that can be divided are: up to 4,096 bytes with a newline."""
        points = [point(f"metric_number_{i}", i / 7, unit="Bytes") for i in range(300)]
        _, lines = encoded(
            *points, point("d", *[1 / 3] * 1_000), point("big", *[2**360] * 300)
        )

        assert max(map(len, lines)) < 4_096
        assert sum(map(len, lines)) / len(lines) > 2_000

    def test_lines_stay_below_sixty_thousand_bytes(self):
        """Long names and values make more documents, not longer ones."""
        dimensions = tuple((f"d{i}" + "x" * 200, "v" * 1000) for i in range(30))
        documents, lines = encoded(
            *[
                point(f"n{i}" + "日" * 250, i, dimensions=dimensions)
                for i in range(100)
            ],
            point("many", *[2**360] * 300, dimensions=dimensions),
        )
        values = {
            name[: name.find("日")]: document[name]
            for document in documents
            for name in document
            if "日" in name
        }

        assert values == {f"n{i}": i for i in range(100)}
        assert 300 == sum(len(d["many"]) for d in documents if "many" in d)
        assert max(map(len, lines)) < 60_000
        assert len(lines) < 40

    @pytest.mark.logs
    def test_dimensions_that_fill_a_line_are_dropped_and_counted(self):
        """What no line can hold is counted by reason, and the rest comes out."""
        huge = tuple((f"d{i:02}" + '"' * 240, '"' * 1024) for i in range(30))
        documents, _ = encoded(point("n", 7, dimensions=huge, samples=3), point("n", 1))

        assert [1] == [document["n"] for document in documents]
        assert {"too_large": {"n": 3}} == tally.dropped_by_name()

    @pytest.mark.logs
    def test_what_fits_nowhere_is_dropped_once_and_never_sent(self):
        """Of the records that a sink has accepted it is none; also if it comes again."""
        huge = tuple((f"d{i:02}" + '"' * 240, '"' * 1024) for i in range(30))
        sink = emf.EmfSink(io.StringIO())
        given = batch(point("n", 7, dimensions=huge, samples=3), point("n", 1))
        for _ in range(2):
            sink.accept(given)

        assert (1, 0, 0) == (sink.sent, sink.pending, sink.dropped)
        assert {"too_large": 3} == tally.dropped()

    @pytest.mark.logs
    def test_rest_of_a_distribution_that_fits_nowhere_is_counted(self, monkeypatch):
        """Of a distribution only the values that were not written are dropped."""
        _, (shortest,) = encoded(point("n", 1))
        monkeypatch.setattr(emf_batches, "MAX_BYTES", len(shortest) + 50)
        monkeypatch.setattr(emf_batches, "PIPE_BUF", len(shortest) + 50)
        lines = lines_of(emf.EmfSink(), point("n", *[1] * 10, *[2**360] * 5))

        assert [10] == [samples for _, samples in lines]
        assert {"too_large": 5} == tally.dropped()


class TestLevel:
    """The log level of the function does not filter metrics away."""

    @pytest.mark.parametrize("level", ["WARN", "ERROR", "FATAL", "warn"])
    def test_level_above_info_is_named(self, monkeypatch, level):
        """Above INFO each document carries that level and a valid timestamp."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", "JSON")
        monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", level)
        documents, _ = encoded(point("n", 1))

        assert documents[0]["level"] == level.upper()
        assert "2023-11-14T22:13:20.123Z" == documents[0]["timestamp"]

    @pytest.mark.parametrize(
        ("format", "level"),
        [
            ("JSON", "INFO"),
            ("JSON", "DEBUG"),
            ("JSON", ""),
            ("JSON", '"evil'),
            ("Text", "ERROR"),
            ("", "ERROR"),
        ],
    )
    def test_other_levels_are_not_named(self, monkeypatch, format, level):
        """Where nothing would be filtered nothing is added."""
        monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", format)
        monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", level)
        documents, _ = encoded(point("n", 1))

        assert {"_aws", "service", "n"} == set(documents[0])


class TestStdout:
    """Where the line goes."""

    def test_each_line_is_in_one_write(self, monkeypatch):
        """No line is divided, and lines that follow each other share a write."""
        calls = []
        real = os.write
        points = [point(f"metric_number_{i}", i, unit="Bytes") for i in range(250)]
        with piped(monkeypatch) as (read, _):
            monkeypatch.setattr(
                os, "write", lambda fd, data: calls.append(data) or real(fd, data)
            )
            emf.EmfSink().accept(batch(*points))
            text = read()

        documents = emf_rules.documents(text)
        assert all(call.endswith(b"}\n") for call in calls)
        assert max(map(len, calls)) <= 4_096
        assert 2 < len(calls) <= len(documents)
        assert b"".join(calls).decode() == text
        assert 250 == sum(len(document) - 2 for document in documents)

    def test_line_comes_after_what_was_printed(self, monkeypatch):
        """What sys.stdout still buffers goes first."""
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as stream, os.fdopen(reader) as source:
            monkeypatch.setattr(sys, "stdout", stream)
            print("before")
            emf.EmfSink().accept(batch(point("n", 1)))
            print("after", flush=True)
            lines = [source.readline() for _ in range(4)]

        assert ("before\n", "\n", "after\n") == (lines[0], lines[1], lines[3])
        assert 1 == emf_rules.document(lines[2].rstrip("\n"))["n"]

    def test_capsys_sees_it(self, capsys):
        """A stdout in memory is written to."""
        emf.EmfSink().accept(batch(point("n", 1)))

        assert 1 == emf_rules.total(capsys.readouterr().out, "n")

    def test_capfd_sees_it(self, capfd):
        """A stdout that is redirected by descriptor is written to."""
        emf.EmfSink().accept(batch(point("n", 1)))

        assert 1 == emf_rules.total(capfd.readouterr().out, "n")

    def test_redirected_stdout_sees_it(self):
        """contextlib.redirect_stdout works as for print."""
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            emf.EmfSink().accept(batch(point("n", 1)))

        assert 1 == emf_rules.total(stream.getvalue(), "n")

    def test_stream_without_flush_is_enough(self):
        """A stream of the user's needs a write method only."""

        class Stream:
            def __init__(self):
                self.text = ""

            def write(self, text):
                self.text += text

        stream = Stream()
        emf.EmfSink(stream).accept(batch(point("n", 1)))

        assert 1 == emf_rules.total(stream.text, "n")
        assert {} == tally.dropped()

    def test_what_was_written_is_counted(self):
        """Documents are counted as they leave."""
        sink = emf.EmfSink(io.StringIO())
        sink.accept(batch(*[point(f"{i}", i, unit="None") for i in range(150)]))

        assert 2 == stdout.documents()


@pytest.mark.logs
class TestBrokenStdout:
    """A stdout that takes nothing does not disturb the handler."""

    def test_none_is_counted(self, monkeypatch):
        """Without any stdout the records count as dropped."""
        monkeypatch.setattr(sys, "stdout", None)
        emf.EmfSink().accept(batch(point("n", 5, samples=3)))

        assert {"stdout": {"n": 3}} == tally.dropped_by_name()

    def test_closed_is_counted(self, monkeypatch):
        """A closed stdout drops and counts."""
        stream = io.StringIO()
        stream.close()
        monkeypatch.setattr(sys, "stdout", stream)
        sink = emf.EmfSink()
        sink.accept(batch(point("n", 1)))

        assert {"stdout": 1} == tally.dropped()
        assert not sink.backlog

    def test_pipe_without_reader_is_counted(self, monkeypatch):
        """EPIPE drops and counts, line by line."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            sink = emf.EmfSink()
            sink.accept(batch(*[point(f"n{i}", i) for i in range(150)]))

        assert {"stdout": 150} == tally.dropped()
        assert not sink.backlog

    def test_full_disk_is_counted(self, monkeypatch):
        """ENOSPC drops and counts."""
        with open("/dev/full", "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            emf.EmfSink().accept(batch(point("n", 1)))

        assert {"stdout": 1} == tally.dropped()


class TestSlowStdout:
    """A stdout that takes a part, or nothing for the moment."""

    def test_write_in_parts_makes_whole_lines(self, monkeypatch):
        """When write(2) takes seven bytes at a time the lines are still whole."""
        real = os.write
        with piped(monkeypatch) as (read, _):
            monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
            points = [point(f"{i}", i, unit="None") for i in range(120)]
            emf.EmfSink().accept(batch(*points))
            text = read()

        assert 2 == len(emf_rules.documents(text))

    def test_next_flush_writes_the_line_though_nothing_is_new(self, monkeypatch):
        """What a full pipe did not take needs no further record to come out."""
        monkeypatch.setattr(stdout, "STALL_S", 0.001)
        with piped(monkeypatch, blocking=False) as (read, writer):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"." * 4096)
            metrics.count("n", 5)
            metrics.flush()
            before = read().strip(".")
            metrics.flush()
            text = read()

        assert ("", 5) == (before, emf_rules.total(text, "n"))

    def test_full_pipe_keeps_the_line_for_the_next_flush(self, monkeypatch):
        """EAGAIN loses nothing: the line comes out once there is room."""
        monkeypatch.setattr(stdout, "STALL_S", 0.001)
        sink = emf.EmfSink()
        with piped(monkeypatch, blocking=False) as (read, writer):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"." * 4096)
            sink.accept(batch(point("n", 1)))
            before = (sink.backlog, read().strip("."))
            sink.accept(batch(point("m", 2)))
            text = read()

        assert (True, "") == before
        assert not sink.backlog
        assert [
            {"n"},
            {"m"},
        ] == [set(d) & {"n", "m"} for d in emf_rules.documents(text)]
        assert {} == tally.dropped()

    def test_half_a_line_is_ended_and_written_again(self, monkeypatch):
        """After a line that was cut the whole line follows on a line of its own."""
        monkeypatch.setattr(stdout, "STALL_S", 0.001)
        real = os.write
        answers = [20, BlockingIOError()]

        def write(descriptor, data):
            answer = answers.pop(0) if answers else len(data)
            if isinstance(answer, BlockingIOError):
                monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)
                raise answer
            return real(descriptor, data[:answer])

        sink = emf.EmfSink()
        with piped(monkeypatch) as (read, _):
            monkeypatch.setattr(os, "write", write)
            sink.accept(batch(point("n", 1)))
            first = read()
            sink.accept(batch())
            text = read()

        assert '\n{"_aws":{"Timestamp' == first
        assert text.startswith("\n{")
        assert 1 == emf_rules.total(text[1:], "n")

    @pytest.mark.logs
    def test_what_is_kept_is_bounded(self, monkeypatch):
        """A stdout that never takes anything costs a bounded amount of memory."""
        monkeypatch.setattr(stdout, "STALL_S", 0.0)
        monkeypatch.setattr(stdout, "MAX_KEPT", 5_000)
        monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)

        def write(*_):
            raise BlockingIOError

        sink = emf.EmfSink()
        with piped(monkeypatch):
            monkeypatch.setattr(os, "write", write)
            for _ in range(100):
                sink.accept(batch(point("n", 1)))
        kept = sink.writer.lines

        assert 1_000 < sum(len(line.data) for line in kept) <= 5_000
        assert 100 == len(kept) + tally.dropped()["stdout"]

    def test_stall_after_a_recovery_is_waited_for_again(self, monkeypatch):
        """Once everything came out, the next stall is a first one."""
        waits = []
        moods = [BlockingIOError, None, BlockingIOError, None]

        def write(_, data):
            mood = moods.pop(0)
            if mood:
                raise mood
            return len(data)

        def writable(sink, _):
            waits.append(sink._stalled)
            return False

        sink = emf.EmfSink()
        with piped(monkeypatch):
            monkeypatch.setattr(os, "write", write)
            monkeypatch.setattr(stdout.Writer, "_writable", writable)
            for name in "abcd":
                sink.accept(batch(point(name, 1)) if name in "ac" else batch())

        assert [False, False] == waits
        assert not sink.backlog

    def test_stall_is_waited_for_once(self, monkeypatch):
        """While stdout stays stuck, later flushes do not wait for it."""
        waits = []
        with piped(monkeypatch, blocking=False) as (_, writer):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, b"." * 4096)
            import select

            class Poll:
                def register(self, *_):
                    pass

                def poll(self, ms):
                    waits.append(ms > 0)
                    return []

            monkeypatch.setattr(select, "poll", Poll)
            sink = emf.EmfSink()
            for _ in range(3):
                sink.accept(batch(point("n", 1)))

        assert [True, False, False] == waits


class TestThreads:
    """Several flushes at once."""

    def test_write_that_is_interrupted_by_a_write_does_not_deadlock(self):
        """A signal handler that flushes in the middle of a write gets its line out."""
        texts = []

        class Stream:
            def write(self, text):
                texts.append(text)
                if len(texts) == 1:
                    sink.accept(batch(point("inner", 2)))

        sink = emf.EmfSink(Stream())
        sink.accept(batch(point("outer", 1)))

        assert [
            {"outer"},
            {"inner"},
        ] == [set(json.loads(text)) & {"inner", "outer"} for text in texts]

    def test_handler_that_raises_in_a_write_loses_nothing(self, monkeypatch):
        """What KeyboardInterrupt interrupts is written by the next flush."""
        real = os.write
        moods = [KeyboardInterrupt]

        def write(descriptor, data):
            if moods:
                raise moods.pop()
            return real(descriptor, data)

        sink = emf.EmfSink()
        with piped(monkeypatch) as (read, _):
            monkeypatch.setattr(os, "write", write)
            with pytest.raises(KeyboardInterrupt):
                sink.accept(batch(point("n", 1)))
            sink.accept(batch(point("m", 2)))
            text = read()

        documents = emf_rules.documents(text)
        assert [{"n"}, {"m"}] == [set(d) & {"n", "m"} for d in documents]

    def test_forked_child_leaves_the_lines_to_its_parent(self, monkeypatch):
        """In another process the sink starts empty."""

        def write(*_):
            raise BlockingIOError

        monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)
        sink = emf.EmfSink()
        with piped(monkeypatch):
            monkeypatch.setattr(os, "write", write)
            sink.accept(batch(point("parent", 1)))
            assert sink.backlog
            stdout.forked()
            sink.accept(batch(point("child", 1)))

        assert [True] == [b"child" in line.data for line in sink.writer.lines]


class TestLoading:
    """What encodes batches is loaded by the first flush that makes one."""

    def test_batch_waits_while_no_file_can_be_opened(self):
        """Also where a batch for another sink came before: none is dropped."""
        run = python(
            """
import resource, sys
import lambda_ext
from lambda_ext import Metrics, metrics

class Other:
    def accept(self, batch):
        pass

metrics.count("first")
metrics.flush()
Metrics("other", sink=Other()).count("other")
metrics.flush()
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
[metrics.distribution("many", 1) for _ in range(150)]
metrics.flush()
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
metrics.flush()
print(lambda_ext.stats().metrics.dropped, file=sys.stderr)
"""
        )

        assert (150, "{}\n") == (emf_rules.total(run.stdout, "many"), run.stderr)

    def test_last_flush_that_cannot_load_it_tells_how_many_records_are_lost(self):
        """Though the log line cannot have the traceback: no file can be opened."""
        run = python(
            """
import resource
from lambda_ext import metrics

metrics.count("first")
metrics.flush()
[metrics.distribution("many", 1) for _ in range(150)]
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
"""
        )

        assert (0, 1) == (run.returncode, emf_rules.total(run.stdout, "first"))
        assert "lambda_ext.flush_failed waiting=150" in run.stderr
        assert "Too many open files" in run.stderr

    @pytest.mark.parametrize("module", ["emf_batches", "parcels"])
    @pytest.mark.parametrize("when", ["metrics.flush()", "recorder._load_rest()"])
    @pytest.mark.parametrize("ends", ["", "raise TimeoutError"])
    def test_signal_handler_in_the_middle_of_it_loses_nothing(self, module, when, ends):
        """It records and flushes what takes a batch, and may raise."""
        run = python(
            f"""
import os, signal, sys
import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import phases
from lambda_ext.metrics import recorder

def handle(*_):
    [metrics.distribution("handler", 1) for _ in range(150)]
    metrics.flush()
    {ends}

def hook(event, args):
    if waits and event == "exec" and args[0].co_filename.endswith("{module}.py"):
        print(waits.pop(), file=sys.stderr)
        os.kill(os.getpid(), signal.SIGUSR1)

waits = ["loads"]
metrics.count("first")
metrics.flush()
signal.signal(signal.SIGUSR1, handle)
sys.addaudithook(hook)
[metrics.distribution("many", 1) for _ in range(150)]
phases.calls[phases.INVOKE] = 1
try:
    {when}
except TimeoutError:
    print("raised", file=sys.stderr)
metrics.flush()
print(lambda_ext.stats().metrics.dropped, file=sys.stderr)
"""
        )

        *before, dropped = run.stderr.splitlines()
        assert "loads" == before[0]
        assert bool(ends) == ("raised" in before)
        assert [150] * 2 == [
            emf_rules.total(run.stdout, n) for n in ("many", "handler")
        ]
        assert "{}" == dropped


class StandardLogSink:
    """As the runtime client's: it logs on stdout, and ends no line."""

    def log(self, message, frame_type=None):
        """Write *message* as it is."""
        sys.stdout.write(message)


class SinkHandler(logging.Handler):
    """As the runtime client's."""

    def __init__(self, log_sink):
        super().__init__()
        self.log_sink = log_sink
        self.setFormatter(logging.Formatter("%(message)s\n"))

    def emit(self, record):
        """Hand the text over."""
        self.log_sink.log(self.format(record))


@pytest.fixture(name="logs_to")
def _logs_to():
    """Return a function that has the root logger log to a sink."""
    handlers = []

    def install(sink):
        handler = SinkHandler(sink)
        handlers.append(handler)
        logging.getLogger().addHandler(handler)

    yield install
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


class TestLinesThatTheRuntimeClientLeavesOpen:
    """The log of AWS's runtime client, where it shares our stdout."""

    def log(self, *, traceback):
        """Log one record, with a traceback or without one."""
        logging.getLogger("user").error("said", exc_info=traceback and ValueError("no"))

    def flush(self, read):
        """Flush one metric; return what was written since the last time."""
        emf.EmfSink().accept(batch(point("n", 1)))
        return read()

    def test_document_begins_a_line_of_its_own(self, monkeypatch, logs_to):
        """After a traceback, and only then, there is a newline in front."""
        with piped(monkeypatch) as (read, _):
            logs_to(StandardLogSink())
            first = self.flush(read)
            found = []
            for traceback in (False, True, False):
                self.log(traceback=traceback)
                found.append(self.flush(read))
            found.append(self.flush(read))

        assert first.startswith("\n{")  # nothing is known of what was before
        assert found[0].startswith("said\n{")
        assert "\nValueError: no\n{" in found[1]
        assert found[2].startswith("said\n{")
        assert found[3].startswith("{")

    def test_other_sinks_are_left_alone(self, monkeypatch, logs_to):
        """As with Lambda's own log, which is no part of stdout."""

        class FramedTelemetryLogSink(StandardLogSink):
            """As in Lambda's managed runtimes."""

        sink = FramedTelemetryLogSink()
        with piped(monkeypatch) as (read, _):
            logs_to(sink)
            self.flush(read)

        assert {} == vars(sink)


class Subclass(emf.EmfSink):
    """A sink that gets batches: a buffer makes no lines for it."""


def test_subclass_may_use_any_public_name(capfd):
    """What a program adds changes no line, and nothing of ours is in its way."""

    class Mine(emf.EmfSink):
        start = stamp = frame = definition = members = lines = level = None

        def __init__(self):
            super().__init__()
            self.template = self.shape = self.plan = None

    configure(sinks=[Mine()])
    metrics.annotate({"order": "7"})
    metrics.count("n")
    metrics.flush()

    (document,) = map(json.loads, filter(None, capfd.readouterr().out.split("\n")))
    assert (1, "7") == (document["n"], document["order"])


def test_accept_is_replaced_in_a_subclass_only():
    """The usual flush does not call it: one that an object has would see nothing."""
    with pytest.raises(AttributeError):
        emf.EmfSink().accept = print


RECORDS = {
    "one": [("count", "n", 1, {})],
    "sum": [("count", "n", 1, {}), ("count", "n", 2.5, {})],
    "ones": [("count", "n", 1, {})] * 50,
    "ones of two": [("count", "n", 1, {}), ("count", "m", 1, {"a": "x"})] * 25,
    "ones of one": [("count", "n", 1, {"a": "x"})] * 3,
    "ones around": [("count", "n", 1, {}), ("count", "n", 5, {}), ("count", "n", 1, {})],
    "three": [("count", "n", 1, {}), ("gauge", "g", 7, {}), ("gauge", "g", 8, {}),
              ("distribution", "d", 0.5, {}), ("distribution", "d", 1e-7, {})],
    "dimensions": [("count", "n%s", 1, {"a": "x%d"}), ("count", "n%s", 2, {"a": "y"}),
                   ("count", "m", 3, {"a": "x%d"}), ("count", "m", 4, {})],
    "many": [("distribution", "d", number, {}) for number in range(250)],
    "long": [("count", "n", 1, {f"d{i}": "x" * 500}) for i in range(10)],
    "names": [("count", f"metric.{i}", i, {}) for i in range(130)],
    "units": [("count", "n", 1, {}), ("gauge", "n", 2, {})],
    "large": [("count", "n", 2.0**360, {}), ("count", "m", 1, {})],
}  # fmt: skip


@pytest.mark.logs
@pytest.mark.parametrize("level", ["", "WARN"])
@pytest.mark.parametrize("properties", [{}, {"order": "7", "n": 1}])
@pytest.mark.parametrize("records", RECORDS.values(), ids=RECORDS)
def test_lines_are_those_of_batches(records, properties, level, monkeypatch):
    """What a buffer has a sink encode at once is what it would get in a batch."""
    texts = []
    for sink in (emf.EmfSink(), Subclass()):
        with piped(monkeypatch) as (read, _), FakeClock():
            if level:
                monkeypatch.setenv("AWS_LAMBDA_LOG_FORMAT", "JSON")
                monkeypatch.setenv("AWS_LAMBDA_LOG_LEVEL", level)
            configure(sinks=[sink])
            text = ""
            for _ in range(3):  # the first time the encoder knows nothing
                metrics.annotate(properties)
                for kind, name, value, dimensions in records:
                    getattr(metrics, kind)(name, value, dimensions=dimensions)
                metrics.flush()
                text += read()
            texts.append([line for line in text.split("\n") if line])

    assert texts[0] == texts[1]
    assert len(texts[0]) >= 3
