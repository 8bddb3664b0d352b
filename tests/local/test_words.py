"""What a run says, in words and rows."""

from __future__ import annotations

import json

import pytest

from lambda_ext.local.aws_server import AwsCall
from lambda_ext.local.emf_check import Series, Total
from lambda_ext.local.outcomes import InitReport, Invocation, Line
from lambda_ext.local.seeds import Parameter, Seed
from lambda_ext.local.words import (
    client,
    error_lines,
    init_trouble,
    log_lines,
    missing,
    numbered,
    percentile,
    series_rows,
    shortened,
)


def test_many_alike_series_are_one_row():
    """Series that differ in one dimension's value are counted together."""
    totals = {
        Series("shop", (("article", str(n)), ("channel", "web")), "orders"): Total(1, n)
        for n in range(10)
    }
    totals[Series("shop", (("channel", "shop"),), "orders")] = Total(1, 7.0)

    assert [
        ("shop", "orders", "None", "article=(10 values), channel=web", "10", "45"),
        ("shop", "orders", "None", "channel=shop", "1", "7"),
    ] == list(series_rows(totals))


@pytest.mark.parametrize(
    ("handler", "missing", "advice"),
    [
        ("app.handler", "app", "there is no 'app' in /functions; name the folder"),
        ("src/app.handler", "src", "there is no 'src/app' in /functions; name"),
        ("src.app.handler", "src.app", "there is no 'src.app' in /functions; name"),
        ("app.handler", "other", "app was found, but not what it imports"),
    ],
)
def test_missing_module_is_told_from_its_imports(handler, missing, advice):
    """A module that is not there is another matter than one it imports."""
    error = {
        "errorType": "Runtime.ImportModuleError",
        "errorMessage": f"Unable to import module: No module named '{missing}'",
    }
    init = InitReport(
        "error", "init", "on-demand", 0.1, None, json.dumps(error).encode()
    )
    *_, last = init_trouble(init, handler, "/functions", "python3")

    assert last.startswith("-> " + advice)


@pytest.mark.parametrize(
    ("status", "error_type", "first", "advice"),
    [
        (
            "timeout",
            None,
            "the process said nothing",
            "-> Lambda allows 10 seconds for INIT; do less at module level",
        ),
        (
            "failure",
            "Runtime.ExitError",
            "Runtime.ExitError",
            "-> the process ended during INIT; its output stands under LOGS",
        ),
        (
            "error",
            "Runtime.MalformedHandlerName",
            "Runtime.MalformedHandlerName",
            "-> write the handler as MODULE.HANDLER, for example app.handler",
        ),
    ],
)
def test_init_without_words_is_told_by_its_kind(status, error_type, first, advice):
    """Where the runtime said nothing, the kind of failure tells what to change."""
    init = InitReport(status, "init", "on-demand", 10.0, error_type)

    assert [first, advice] == list(
        init_trouble(init, "app.handler", "/functions", "python3")
    )


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Boto3/1.34.1 md/Botocore", "Boto3 1.34.1"),
        ("lambda-ext", "lambda_ext (light)"),
        ("lambda-ext/0.1.0", "lambda_ext (light)"),
        ("curl", "curl"),
        ("", "unknown"),
    ],
)
def test_client_is_named_after_its_agent(agent, name):
    """A client is called what it calls itself first."""
    assert name == client(agent)


def logged(*texts, told=()):
    """Return what is shown of lines."""
    return [
        text for _, text in log_lines([Line("stdout", t, 0.0) for t in texts], told)
    ]


class TestLogs:
    """What is shown of the lines that a function wrote."""

    def test_blank_lines_are_left_out(self):
        """Empty lines, and those of spaces, are not shown; indented ones are."""
        assert ["a", "  b"] == logged("", "a", "  ", "\t", "  b", "\r")

    def test_prefix_of_the_runtime_client_is_shortened(self):
        """Level, time and eight characters of the request id are left."""
        line = (
            "[INFO]\t2026-11-26T01:08:25.991Z\t"
            "8a80c2b6-a9c0-478d-8d7e-6aeb113108d8\torder 1\tand more"
        )

        assert ["[INFO] 01:08:25.991 8a80c2b6 order 1\tand more"] == logged(line)

    def test_prefix_in_init_has_no_request_id(self):
        """What a module logs while it is imported belongs to no invocation."""
        line = "[INFO]\t2026-11-26T01:08:25.991Z\t\timported"

        assert ["[INFO] 01:08:25.991 imported"] == logged(line)

    def test_traceback_stands_once(self):
        """A traceback that came before, in the log or in *told*, is one line."""
        first = [
            "Traceback (most recent call last):",
            '  File "app.py", line 1, in f',
            "    g()",
            "    ^^^",
            "ValueError: one",
        ]
        other = [first[0], '  File "app.py", line 2, in h', "ValueError: two"]

        assert [
            *first,
            "between",
            "(traceback as above)",
            "ValueError: again",
            *other,
        ] == logged(*first, "between", *first[:-1], "ValueError: again", *other)
        assert ["(traceback as above)", "ValueError: one"] == logged(
            *first, told=[[' File "app.py", line 1, in f', "g()"]]
        )

    def test_traceback_of_the_runtime_client_is_known(self):
        """One record of several lines, indented with hard spaces, is the same one."""
        record = (
            "[ERROR] ValueError: no\rTraceback (most recent call last):\r"
            '\xa0 File "app.py", line 1, in f\r\xa0 \xa0 g()'
        )
        told = ['  File "app.py", line 1, in f', "    g()"]

        assert ["[ERROR] ValueError: no", "(traceback as above)"] == logged(
            record, told=[told]
        )
        assert 4 == len(logged(record))

    def test_traceback_that_ends_with_the_log_is_shown(self):
        """The last lines are not held back."""
        lines = ["Traceback (most recent call last):", "  File x"]

        assert lines == logged(*lines)


@pytest.mark.parametrize(
    ("part", "expected"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100), (0.0, 1)]
)
def test_percentile_is_a_duration_that_was_seen(part, expected):
    """So many hundredths of the durations are not longer."""
    assert expected == percentile(range(1, 101), part)
    assert 7 == percentile([7], part)


def test_many_numbers_are_counted():
    """Up to ten invocations are named, of more the first."""
    assert "1, 5" == numbered([1, 5])
    assert "3 and 10 more" == numbered(range(3, 14))


def test_shortened_text_is_one_line():
    """Line breaks go, and what is too long ends in dots."""
    assert "a b" == shortened("a\n  b", 10)
    assert "abcdefg..." == shortened("abcdefghijk", 10)


@pytest.mark.parametrize(
    "message",
    [
        "2026-11-26T01:08:25.991Z 8a80c2b6-a9c0-478d-8d7e-6aeb113108d8 it was late",
        "RequestId: 8a80c2b6-a9c0-478d-8d7e-6aeb113108d8 Error: it was late",
        "it was late",
    ],
)
def test_error_is_without_what_differs_each_time(message):
    """The platform's time and request id are left out: equal errors are equal."""
    payload = json.dumps({"errorType": "T", "errorMessage": message}).encode()

    assert ["T: it was late"] == list(error_lines(Invocation("i", "error", payload, 1)))


def refused(service, names, code):
    """Return a call that was refused."""
    return AwsCall(service, "Get", names, 400, (code,), "", 0.0, 0.0)


class TestMissing:
    """What is said of secrets and parameters that are not there."""

    def test_form_of_a_seed_is_shown(self):
        """The names that were asked for stand in the form, those of ARNs too."""
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:prod/key-AbCdEf"
        calls = [
            refused("secretsmanager", ("db", "there"), "ResourceNotFoundException"),
            refused("secretsmanager", (arn,), "ResourceNotFoundException"),
            refused("ssm", ("/p",), "ParameterNotFound"),
        ]
        seed = Seed({"there": "x"}, {"/q": Parameter("y")})

        form = (
            '{"secrets": {"db": "...", "prod/key": "..."}, "parameters": {"/p": "..."}}'
        )

        assert [
            f"not there: give it with --seed FILE.json, whose form is {form}"
        ] == list(missing(calls, seed))

    def test_flags_have_a_form_of_their_own(self):
        """A profile of AppConfig that is not there is shown as one of flags."""
        call = refused("appconfig", ("a/b/c",), "ResourceNotFoundException")
        (line,) = missing([call], Seed())

        assert line.endswith(' {"flags": {"a/b/c": {"my-flag": {"enabled": true}}}}')

    @pytest.mark.parametrize(
        "call",
        [
            refused("secretsmanager", ("db",), "AccessDeniedException"),
            refused("dynamodb", ("db",), "ResourceNotFoundException"),
            refused("ssm", ("/q",), "ParameterNotFound"),
        ],
    )
    def test_other_errors_are_another_matter(self, call):
        """Another error, another service, or what the seed holds needs no seed."""
        assert [] == list(missing([call], Seed({}, {"/q": Parameter("y")})))
