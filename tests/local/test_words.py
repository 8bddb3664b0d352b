"""What a run says, in words and rows."""

from __future__ import annotations

import json

import pytest

from lambda_ext.local.emf_check import Series, Total
from lambda_ext.local.outcomes import InitReport
from lambda_ext.local.words import client, init_trouble, series_rows


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
