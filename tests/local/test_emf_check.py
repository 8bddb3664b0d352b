"""The checker of metric lines against AWS's schema and the limits beyond it."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest
from emf_rules import SCHEMA
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lambda_ext.local import emf_check
from lambda_ext.local.emf_check import Series, Totals, check

NOW = 1_795_000_000.0

VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def document(**root):
    """Return a valid document, with the members *root* put on top."""
    return {
        "_aws": {
            "Timestamp": int(NOW * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "shop",
                    "Dimensions": [["service"]],
                    "Metrics": [{"Name": "orders", "Unit": "Count"}],
                }
            ],
        },
        "service": "checkout",
        "orders": 3,
        **root,
    }


def directive(doc):
    return doc["_aws"]["CloudWatchMetrics"][0]


def problems(doc, **kwargs):
    line = doc if isinstance(doc, str) else json.dumps(doc)
    return check(line, now=NOW, **kwargs).problems


class TestGoodLine:
    """What CloudWatch would take."""

    def test_document_gives_points(self):
        """A valid line has no problem and yields its series and values."""
        checked = check(json.dumps(document(orders=[1, 2.5])), now=NOW)

        assert () == checked.problems
        assert (
            (Series("shop", (("service", "checkout"),), "orders", "Count"), (1.0, 2.5)),
        ) == checked.points

    def test_two_dimension_sets_are_two_series(self):
        """Each dimension set is a metric of its own."""
        doc = document()
        directive(doc)["Dimensions"] = [["service"], []]

        assert [(("service", "checkout"),), ()] == [
            series.dimensions for series, _ in check(json.dumps(doc), now=NOW).points
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "plain text",
            '{"message": "about _aws"}',
            '"text"',
            "[1]",
            '{"level": "INFO"}',
            "NaN",
        ],
    )
    def test_plain_log_is_none_of_it(self, line):
        """What does not speak of metrics is no business of the checker."""
        assert check(line) is None

    def test_totals_add_up_lines(self):
        """Totals sum by series, and leave out lines that have a problem."""
        totals = Totals()
        for orders in ([1, 2], 5, "bad"):
            totals.add(check(json.dumps(document(orders=orders)), now=NOW))

        (total,) = totals.values()
        assert (3, 8.0, 1.0, 5.0) == (
            total.count,
            total.sum,
            total.minimum,
            total.maximum,
        )


def changed(path, value):
    """Return the valid document with the member at *path* replaced."""
    doc = document()
    *way, last = path
    target = doc
    for step in way:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return doc


D = ("_aws", "CloudWatchMetrics", 0)
M = (*D, "Metrics", 0)


class TestBadLine:
    """What CloudWatch would drop."""

    @pytest.mark.parametrize(
        ("path", "value", "word"),
        [
            (("_aws",), 1, "not an object"),
            (("_aws", "Timestamp"), ..., "Timestamp"),
            (("_aws", "Timestamp"), True, "Timestamp"),
            (("_aws", "Timestamp"), int(NOW), "milliseconds"),
            (("_aws", "Timestamp"), int(NOW + 8_000) * 1000, "two hours ahead"),
            (("_aws", "CloudWatchMetrics"), {}, "not an array"),
            (("_aws", "CloudWatchMetrics"), [], "empty document"),
            (("_aws", "CloudWatchMetrics"), [3], "not an object"),
            ((*D, "Namespace"), ..., "Namespace"),
            ((*D, "Namespace"), " ", "blank"),
            ((*D, "Namespace"), "n" * 256, "255"),
            ((*D, "Namespace"), "schön", "not allowed"),
            ((*D, "Namespace"), "AWS/Lambda", "AWS/"),
            ((*D, "Dimensions"), [], "at least one set"),
            ((*D, "Dimensions"), ["service"], "not an array"),
            ((*D, "Dimensions"), [["nowhere"]], "not in the document"),
            ((*D, "Dimensions"), [["service", "service"]], "twice"),
            ((*D, "Dimensions"), [["service"] * 31], "31 dimensions"),
            ((*D, "Dimensions"), [[":service"]], "':'"),
            ((*D, "Dimensions"), [[1]], "not a string"),
            ((*D, "Dimensions"), [["d" * 251]], "250"),
            (("service",), 3, "not a string"),
            (("service",), " ", "blank"),
            (("service",), "ü", "ASCII"),
            (("service",), "x" * 1_025, "1024"),
            ((*D, "Metrics"), {}, "not an array"),
            ((*D, "Metrics"), [], "empty document"),
            ((*D, "Metrics"), [1], "not an object"),
            ((*D, "Metrics"), [{"Name": "orders"}] * 2, "defined twice"),
            ((*D, "Metrics"), [{"Name": "orders"}] * 101, "101 metrics"),
            ((*M, "Name"), ..., "not a string"),
            ((*M, "Name"), "nowhere", "no value"),
            ((*M, "Name"), "n" * 256, "255"),
            ((*M, "Name"), "ö", "ASCII"),
            ((*M, "Unit"), "count", "unit"),
            ((*M, "Unit"), None, "unit"),
            ((*M, "StorageResolution"), 30, "1 or 60"),
            ((*M, "StorageResolution"), True, "1 or 60"),
            (("orders",), "3", "not a number"),
            (("orders",), True, "not a number"),
            (("orders",), {"Sum": 1}, "not a number"),
            (("orders",), [], "empty array"),
            (("orders",), [1] * 101, "101 values"),
            (("orders",), 1e109, "2^360"),
            (("padding",), "x" * 65_536, "split"),
        ],
    )
    def test_fault_is_named(self, path, value, word):
        """Each fault is found, and its message says what it is."""
        assert [] != [p for p in problems(changed(path, value)) if word in p]

    def test_faulty_metric_yields_no_points(self):
        """The points of a bad metric are not counted."""
        assert () == check(json.dumps(document(orders="3")), now=NOW).points

    def test_two_resolutions_are_refused(self):
        """A metric has one resolution in a document."""
        doc = document()
        other = json.loads(json.dumps(directive(doc)))
        other["Metrics"][0]["StorageResolution"] = 1
        doc["_aws"]["CloudWatchMetrics"].append(other)

        assert ("metric 'orders' has two resolutions in one document",) == problems(doc)

    @pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
    def test_no_number_is_no_json(self, word):
        """Python's spelling of NaN and infinity is refused by name."""
        line = json.dumps(document()).replace(": 3", ": " + word)

        assert (f"not one JSON document: {word.lstrip('-')} is not JSON",) == tuple(
            problem.replace("-Infinity", "Infinity") for problem in problems(line)
        )

    @pytest.mark.parametrize(
        "line",
        [
            '2026-01-01 {"_aws": {}}',
            '{"_aws": {}}{"_aws": {}}',
            '{"_aws": {"Timestamp": 1',
            '{"message": {"_aws": {}}}',
        ],
    )
    def test_spoilt_document_is_a_problem(self, line):
        """A line that has a metric somewhere, and not as its whole, is refused."""
        assert 1 == len(problems(line))

    def test_member_twice_is_a_problem(self):
        """Which of two equal members counts is not guessed."""
        line = json.dumps(document()).replace('"orders": 3', '"orders": 3, "orders": 4')

        assert ("'orders' stands twice in one object",) == problems(line)

    @pytest.mark.parametrize(
        ("level", "dropped"),
        [
            (None, True),
            ("INFO", True),
            ("nonsense", True),
            ("WARN", False),
            ("error", False),
        ],
    )
    def test_filter_drops_low_levels(self, level, dropped):
        """With JSON logs at WARN, Lambda drops a line without a higher level."""
        doc = document() if level is None else document(level=level)

        assert dropped == bool(problems(doc, log_level="WARN"))


names = st.text(st.sampled_from("aB.-_ :é"), max_size=4) | st.sampled_from(
    ["orders", "service", "x" * 251, "x" * 1_025]
)
junk = st.sampled_from(
    [None, True, 1, 60, 1.0, 1.5, "", "Count", "count", [], {}, [[]]]
)
definitions = st.fixed_dictionaries(
    {},
    optional={
        "Name": names | junk,
        "Unit": st.sampled_from(["Count", "Bytes/Second", "bytes", ""]) | junk,
        "StorageResolution": junk,
    },
)
directives = st.fixed_dictionaries(
    {},
    optional={
        "Namespace": names | junk,
        "Dimensions": st.lists(st.lists(names | junk, max_size=3), max_size=3) | junk,
        "Metrics": st.lists(definitions | junk, max_size=3) | junk,
    },
)
documents = st.fixed_dictionaries(
    {
        "_aws": st.fixed_dictionaries(
            {},
            optional={
                "Timestamp": st.just(int(NOW * 1000)) | junk,
                "CloudWatchMetrics": st.lists(directives | junk, max_size=2) | junk,
            },
        )
        | junk
    },
    optional={"orders": junk, "service": st.just("a") | junk},
)


class TestAgainstTheSchema:
    """The checker beside AWS's schema."""

    @given(documents)
    @settings(max_examples=400, deadline=None)
    def test_what_the_schema_refuses_is_refused(self, doc):
        """What AWS's schema finds wrong, the checker finds wrong."""
        assume(not VALIDATOR.is_valid(doc))

        assert () != problems(doc)

    @given(
        st.dictionaries(
            st.text(st.sampled_from("abcXYZ._"), min_size=1, max_size=8),
            st.lists(
                st.floats(allow_nan=False, allow_infinity=False, width=32),
                min_size=1,
                max_size=100,
            ),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from(sorted(emf_check.UNITS)),
    )
    @settings(max_examples=100, deadline=None)
    def test_good_document_is_accepted_by_both(self, metrics, unit):
        """A document within every limit passes, and nothing of it is lost."""
        doc = {
            "_aws": {
                "Timestamp": int(NOW * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": "shop",
                        "Dimensions": [[]],
                        "Metrics": [{"Name": n, "Unit": unit} for n in metrics],
                    }
                ],
            },
            **metrics,
        }
        checked = check(json.dumps(doc), now=NOW)

        assert VALIDATOR.is_valid(doc)
        assert () == checked.problems
        assert {name: tuple(values) for name, values in metrics.items()} == {
            series.name: values for series, values in checked.points
        }

    def test_units_are_the_schemas(self):
        """The units are those of the schema's pattern, and no others."""
        definition = SCHEMA["properties"]["_aws"]["properties"]["CloudWatchMetrics"]
        unit = definition["items"]["properties"]["Metrics"]["items"]["properties"]
        pattern = unit["Unit"]["pattern"].replace("\\/", "/")

        assert set(pattern[2:-2].split("|")) == set(emf_check.UNITS)

    def test_sum_is_exact(self):
        """Many small numbers do not drift away in a total."""
        totals = Totals()
        for _ in range(1_000):
            totals.add(check(json.dumps(document(orders=0.1)), now=NOW))

        assert math.isclose(100.0, next(iter(totals.values())).sum, rel_tol=1e-12)
