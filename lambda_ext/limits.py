"""
What CloudWatch takes of a metric: names, texts, numbers and counts, as data.

Nothing but constants: the encoder and the checker of the local run each apply
them with code of their own, so that one can find the other's mistakes.

Source: PutMetricData, MetricDatum and Dimension,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
and the embedded metric format specification,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

PRINTABLE = frozenset(map(chr, range(0x20, 0x7F)))  # of ASCII

# Longest in characters, what it must not begin with, its characters.  None may
# be empty or blank.  The schema's 1,024 for names is not the API's.
NAMESPACE = (
    255,
    ("AWS/", ":"),
    frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/#:-"),
)
METRIC_NAME = (255, (), PRINTABLE)
DIMENSION_NAME = (250, (":",), PRINTABLE)
DIMENSION_VALUE = (1024, (), PRINTABLE)

MAX_MAGNITUDE = 2.0**360  # of a value, either way
MAX_METRICS = 100  # definitions in a directive
MAX_VALUES = 100  # numbers in a target; more are ignored in silence
MAX_DIMENSIONS = 30  # in a set
MAX_AGE_S = 14 * 86_400  # of a timestamp
MAX_LEAD_S = 2 * 3_600  # of a timestamp ahead of now
RESOLUTIONS = (1, 60)  # seconds
UNITS = frozenset((
    "Seconds", "Microseconds", "Milliseconds",
    "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes",
    "Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count",
    "Bytes/Second", "Kilobytes/Second", "Megabytes/Second", "Gigabytes/Second",
    "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
    "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
))  # fmt: skip
