"""What a line of EMF has to keep: AWS's schema, and the rules it leaves out.

Schema: embedded metric format specification, section "JSON schema",
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import itertools
import json
import math

import jsonschema

_SCALES = "Bytes|Kilobytes|Megabytes|Gigabytes|Terabytes|Bits|Kilobits|Megabits|Gigabits|Terabits"
UNIT_PATTERN = (
    f"^(Seconds|Microseconds|Milliseconds|{_SCALES}|Percent|Count|"
    + "|".join(f"{scale}\\/Second" for scale in _SCALES.split("|"))
    + "|Count\\/Second|None)$"
)
SCHEMA = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer"},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": {
                                "type": "string",
                                "minLength": 1,
                                "maxLength": 1024,
                            },
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 0,
                                    "maxItems": 30,
                                    "items": {
                                        "type": "string",
                                        "minLength": 1,
                                        "maxLength": 250,
                                    },
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": {
                                            "type": "string",
                                            "minLength": 1,
                                            "maxLength": 1024,
                                        },
                                        "Unit": {
                                            "type": "string",
                                            "pattern": UNIT_PATTERN,
                                        },
                                        "StorageResolution": {"type": "integer"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}
_validator = jsonschema.Draft7Validator(SCHEMA)


def _object(pairs):
    """Build an object of JSON, which may not say a thing twice."""
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), keys
    return dict(pairs)


def _constant(text):
    raise AssertionError(f"{text} is not JSON")


def document(line):
    """Return the document of one line, having checked every rule."""
    assert len(line.encode()) + 1 < 60_000
    parsed = json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
    _validator.validate(parsed)
    assert isinstance(parsed["_aws"]["Timestamp"], int)
    (directive,) = parsed["_aws"]["CloudWatchMetrics"]
    assert not directive["Namespace"].startswith("AWS/")
    assert 1 <= len(directive["Metrics"]) <= 100
    for dimension_set in directive["Dimensions"]:
        assert len(dimension_set) == len(set(dimension_set))
        for name in dimension_set:
            assert name.isascii()
            assert name.strip()
            assert not name.startswith(":")
            value = parsed[name]
            assert isinstance(value, str)
            assert 1 <= len(value) <= 1024
            assert value.isascii()
            assert value.strip()
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert len(names) == len(set(names))
    targets = {"_aws", *names, *(n for s in directive["Dimensions"] for n in s)}
    assert set(parsed) - targets <= {"level", "timestamp"}
    for name in names:
        assert len(name) <= 255
        values = parsed[name]
        if isinstance(values, list):
            assert 1 <= len(values) <= 100
        else:
            values = [values]
        for value in values:
            assert type(value) in (int, float)
            assert math.isfinite(value)
            assert abs(value) <= 2.0**360
    return parsed


def documents(text):
    """Return the documents of what was written.

    Every line must be one, or the empty line that comes before a document
    where the line before it may be open.
    """
    assert text == "" or text.endswith("\n")
    lines = text.splitlines()
    assert all(pair != ("", "") for pair in itertools.pairwise([*lines, ""]))
    return [document(line) for line in lines if line]


def values(text):
    """Return {(namespace, dimensions, name, unit): [value, ...]} of all lines."""
    found = {}
    for parsed in documents(text):
        (directive,) = parsed["_aws"]["CloudWatchMetrics"]
        (names,) = directive["Dimensions"]
        dimensions = frozenset((name, parsed[name]) for name in names)
        for metric in directive["Metrics"]:
            target = parsed[metric["Name"]]
            key = (
                directive["Namespace"],
                dimensions,
                metric["Name"],
                metric.get("Unit", "None"),
            )
            found.setdefault(key, []).extend(
                target if isinstance(target, list) else [target]
            )
    return found


def total(text, name):
    """Return the sum of all values of the metric *name*."""
    return sum(sum(v) for key, v in values(text).items() if key[2] == name)
