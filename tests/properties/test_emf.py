"""Any sequence of records makes valid documents, and nothing is lost or doubled."""

from __future__ import annotations

import io
import json
import os

import emf_rules
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lambda_ext import Metrics
from lambda_ext.lifecycle import phases
from lambda_ext.metrics import (
    buffer,
    emf,
    emf_batches,
    parcels,
    recorder,
    stdout,
    tally,
    validation,
)
from lambda_ext.testing import FakeClock

quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

PRINTABLE = "".join(chr(i) for i in range(32, 127))
few = st.sampled_from(["a", "b", "tenant", "service", 'q"\\%s{}'])
names = few | st.text(PRINTABLE, min_size=1, max_size=255).filter(
    lambda name: name.strip() and name not in validation.RESERVED
)
dimension_names = few | st.text(PRINTABLE, min_size=1, max_size=250).filter(
    lambda name: (
        name.strip() and not name.startswith(":") and name not in validation.RESERVED
    )
)
dimension_values = st.sampled_from(["x", "y"]) | st.text(
    PRINTABLE, min_size=1, max_size=1024
).filter(str.strip)
dimensions = st.dictionaries(
    dimension_names, dimension_values | st.integers(), max_size=29
)
# Whole numbers, so that sums are exact in any order.
values = st.integers(-(2**53), 2**53) | st.sampled_from([0, 2**300, -(2**300)])
units = st.sampled_from(sorted(validation.UNITS))
records = st.tuples(
    st.sampled_from(["count", "distribution", "gauge"]),
    names,
    values,
    st.sampled_from(["Count", "None"]) | units,
    st.just({}) | st.dictionaries(few, dimension_values, max_size=2) | dimensions,
)
anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=3)
    | st.lists(st.integers(), max_size=2)
)
hashable = anything.filter(lambda value: not isinstance(value, list))
flush = st.just("flush")
LIMIT = 7  # records, past which the recording thread flushes


@pytest.fixture(autouse=True)
def _bounds(monkeypatch):
    """Flush early and split all the time."""
    monkeypatch.setattr(buffer, "MAX_RECORDS", LIMIT)
    monkeypatch.setattr(parcels, "MAX_POINTS", 3)
    monkeypatch.setattr(recorder, "MEMO", 5)
    for module in (emf, emf_batches):
        monkeypatch.setattr(module, "MAX_TEMPLATES", 5)


class Lines(io.StringIO):
    """A stdout that remembers each write."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text):
        self.writes.append(text)
        return super().write(text)


def run(steps):
    """Record and flush; return what was written and what was dropped."""
    recorder.reset()
    tally.reset()
    phases.reset()
    stream = Lines()
    mine = Metrics("ns", service="shop", sink=emf.EmfSink(stream))
    for step in steps:
        if step == "flush":
            mine.flush()
        else:
            kind, name, value, unit, dims = step
            getattr(mine, kind)(name, value, unit=unit, dimensions=dims)
    mine.flush()
    text = stream.getvalue()
    assert all(write.count("\n") == 1 and write[-1] == "\n" for write in stream.writes)
    assert recorder.snapshot()["recorded"] == sum(step != "flush" for step in steps)
    assert recorder.snapshot()["documents"] == len(stream.writes)
    return text, recorder.snapshot()["dropped"]


def key(step):
    """Return what makes two records the same series."""
    _, name, _, unit, dims = step
    merged = {"service": "shop", **{n: str(v) for n, v in dims.items()}}
    return "ns", frozenset(merged.items()), name, unit


@pytest.mark.logs
@quick
@given(st.lists(records | flush, max_size=60))
def test_every_record_comes_out_once(steps):
    """Sums are exact, values complete, gauges the last, for all records."""
    refused = [s for s in steps if s != "flush" and s[1] in dict(key(s)[1])]
    text, dropped = run(steps)
    written = emf_rules.values(text)
    expected = {}
    window = {}
    waiting = 0
    for step in [*steps, "flush"]:
        if step != "flush" and step not in refused:
            window.setdefault((step[0], key(step)), []).append(step[2])
            waiting += 1
        if step == "flush" or waiting > LIMIT:
            for (kind, series), found in window.items():
                out = {"count": [sum(found)], "gauge": found[-1:]}.get(kind, found)
                expected.setdefault(series, []).extend(out)
            window = {}
            waiting = 0
    too_large = dropped.pop("too_large", 0)

    assert dropped == ({"name_clash": len(refused)} if refused else {})
    if too_large:
        assert set(written) < set(expected)
        expected = {series: expected[series] for series in written}
    assert {k: sorted(v) for k, v in written.items()} == {
        k: sorted(v) for k, v in expected.items()
    }


@pytest.mark.logs
@quick
@given(
    st.lists(
        flush
        | st.tuples(
            st.sampled_from(["count", "distribution", "gauge"]),
            names | anything,
            values | anything,
            units | anything,
            dimensions | anything | st.dictionaries(hashable, anything, max_size=2),
        ),
        max_size=20,
    )
)
def test_nothing_that_is_recorded_makes_an_invalid_line(steps):
    """For all arguments each line is valid, and the rest is counted."""
    steps = [s if s == "flush" or s[4] is not None else (*s[:4], {}) for s in steps]
    text, dropped = run(steps)
    documents = emf_rules.documents(text)

    assert len(documents) <= sum(s != "flush" for s in steps) - sum(
        dropped.get(reason, 0) for reason in ("name", "unit")
    )


@quick
@given(
    st.lists(
        st.tuples(names, st.lists(values | st.floats(-1e100, 1e100), min_size=1)),
        max_size=150,
        unique_by=lambda pair: pair[0],
    ),
    dimensions,
    st.sampled_from(["", "WARN"]),
    st.floats(0, 4e9),
)
@example([("n", [1])], {}, "WARN", 0.9996)
def test_line_is_what_json_dumps_writes(points, dims, level, at):
    """Encoding by hand differs in nothing from json.dumps."""
    sink = emf.EmfSink()
    sink._level = level
    pairs = tuple((name, str(value)) for name, value in dims.items())
    points = [(name, found) for name, found in points if name not in dims]
    series = [
        parcels.Point(
            buffer.Series("ns", "distribution", name, "Percent", pairs),
            found,
            len(found),
        )
        for name, found in points
    ]
    lost = []
    lines = emf_batches.lines(sink, parcels.Batch("ns", at, series), lost)
    out = sum(number for each in lines for _, number in each.names)
    assert sum(len(found) for _, found in points) == out + sum(each[2] for each in lost)
    for each in lines:
        line, samples = each.data, sum(number for _, number in each.names)
        document = emf_rules.document(line.decode().rstrip("\n"))
        written = [document[m["Name"]] for m in _metrics(document)]

        assert line.decode() == json.dumps(document, separators=(",", ":")) + "\n"
        assert samples == sum(
            len(found) if isinstance(found, list) else 1 for found in written
        )
        assert document["_aws"]["Timestamp"] == int(at * 1000)
        assert document.get("level", "") == level
        assert ("timestamp" in document) == bool(level)


def _metrics(document):
    return document["_aws"]["CloudWatchMetrics"][0]["Metrics"]


@quick
@given(
    st.lists(records, min_size=1, max_size=12),
    st.lists(st.integers(0, 40), min_size=1, max_size=200),
)
def test_pipe_that_takes_parts_gets_whole_lines(steps, sizes):
    """However write(2) divides the lines, what arrives is the same."""
    took = []
    answers = iter(sizes)

    def write(_, data):
        size = next(answers, len(data))
        if size == 0:
            raise BlockingIOError
        took.append(bytes(data[:size]))
        return len(took[-1])

    class Stream:
        def fileno(self):
            return 1

    stream = Stream()
    sink = emf.EmfSink(stream)
    former = os.write, stdout.Writer._writable
    recorder.reset()
    tally.reset()
    mine = Metrics("ns", sink=sink)
    good = [step for step in steps if step[1] not in {*step[4], "service"}]
    try:
        os.write = write
        stdout.Writer._writable = lambda *_: False
        with FakeClock():
            for kind, name, value, unit, dims in good:
                getattr(mine, kind)(name, value, unit=unit, dimensions=dims)
                mine.flush()
            for _ in range(len(sizes) + 1):
                mine.flush()
    finally:
        os.write, stdout.Writer._writable = former
    lines = b"".join(took).decode().splitlines()
    whole = [line for line in lines if _is_json(line)]

    assert len(whole) == len(good)
    assert [sum(map(sum, emf_rules.values(f"{w}\n").values())) for w in whole] == [
        step[2] for step in good
    ]
    assert all(
        any(w.startswith(torn) for w in whole) for torn in set(lines) - set(whole)
    )
    assert {} == recorder.snapshot()["dropped"]


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("lines", [1, 3])
def test_line_of_which_only_the_end_is_missing_is_not_written_again(lines, monkeypatch):
    """Both would be valid, and count."""
    took, stalls = [], iter([False, True])

    def write(_, data):
        if next(stalls, None):
            raise BlockingIOError
        took.append(bytes(data[:-1] if len(took) == 0 else data))
        return len(took[-1])

    class Stream:
        def fileno(self):
            return 1

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(stdout.Writer, "_writable", lambda *_: False)
    mine = Metrics("ns", sink=emf.EmfSink(Stream()))
    before = stdout.documents()
    for number in range(lines):
        mine.count(f"n{number}")
        mine.flush()
    mine.flush()
    text = b"".join(took).decode()

    written = [emf_rules.document(line) for line in text.splitlines() if line]
    assert [f"n{number}" for number in range(lines)] == [
        metric["Name"] for each in written for metric in _metrics(each)
    ]
    assert text.endswith("\n")
    assert lines == stdout.documents() - before
    assert 0 == recorder.snapshot()["sinks"]["emf"].pending
