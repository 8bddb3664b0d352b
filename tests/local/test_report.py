"""The printed report, on a terminal and elsewhere."""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import re

import pytest
from rich.console import Console

from lambda_ext.local import report as report_module
from lambda_ext.local.aws_server import AwsCall
from lambda_ext.local.emf_check import Totals, check
from lambda_ext.local.journal import DELIVERED, Journal
from lambda_ext.local.outcomes import (
    Delivery,
    InitReport,
    Invocation,
    Line,
    Registration,
    Shutdown,
)
from lambda_ext.local.report import Report, progress
from lambda_ext.local.run import EmfLine, Plan, Result
from lambda_ext.local.verdict import Check, Verdict, judge


def emf(value, **dimensions):
    """Return a line of EMF."""
    return json.dumps(
        {
            "_aws": {
                "Timestamp": 1_795_000_000_000,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "shop",
                        "Dimensions": [list(dimensions)],
                        "Metrics": [{"Name": "orders", "Unit": "Count"}],
                    }
                ],
            },
            "orders": value,
            **dimensions,
        }
    )


def received(*lines):
    """Return the lines as a result has them: EMF lines and totals."""
    found, totals = [], Totals()
    for line in lines:
        checked = check(line, now=1_795_000_000.0)
        found.append(EmfLine(Line("stdout", line, 0.1), checked))
        totals.add(checked)
    return {"emf": tuple(found), "totals": totals}


ERROR = json.dumps(
    {
        "errorMessage": "no [bold]items[/bold]",
        "errorType": "ValueError",
        "stackTrace": ['  File "app.py", line 9, in handler\n    raise\n'],
    }
).encode()

RESULT = Result(
    plan=Plan("app.handler"),
    init=InitReport("success", "init", "on-demand", 0.1234),
    invocations=(
        Invocation("id-1", "success", b"null", 0.02),
        Invocation("id-2", "error", ERROR, 0.001),
    ),
    shutdown=Shutdown("spindown", 0.5, 0.5, 0, True, False, 0.003),
    resets=(Shutdown("timeout", 0.5, 0.5, 0, True, False, 0.1),),
    extensions=(Registration("lambda_ext", (), True, "Ready"),),
    calls=tuple(
        AwsCall("secretsmanager", "GetSecretValue", (name,), 200, errors, agent, 0, 0)
        for name, errors, agent in (
            ("db", (), "Boto3/1.34 md/x"),
            ("db", (), "Boto3/1.34 md/x"),
            ("none", ("ResourceNotFoundException",), "Boto3/1.34 md/x"),
        )
    ),
    lines=(Line("stdout", "first\rsecond", 0.1),),
    peak_memory_mb=20.0,
    answered_at=(0.12, 0.13),
    **received(emf(1, channel="web"), emf([2, 3], channel="web"), emf("x")),
)


def printed(do, *, terminal=False, width=120):
    """Return what do(report) prints."""
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=terminal,
        color_system="standard" if terminal else None,
        width=width,
        _environ={},
    )
    do(Report(console))
    return out.getvalue()


class TestPlain:
    """The report where the output is no terminal."""

    def test_whole_report(self):
        """Every section is there, in the order of a run, as plain text."""
        text = printed(lambda r: r.all(RESULT, judge(RESULT)))

        python = f"Python {platform.python_version()}"
        assert f"""\
lambda-ext run app.handler
  function local, {python}, 128 MB, time-out 3 s, freezes between invocations, AWS on loopback

INIT
  success  123.4 ms  extensions: lambda_ext (internal)

INVOKE
  #  request id  status   duration        returned
  1  id-1        success   20.0 ms  cold  null
  2  id-2        error      1.0 ms
  2: ValueError: no [bold]items[/bold]
    File "app.py", line 9, in handler
      raise
  cold start 143.4 ms with INIT, peak memory 20 MB

AWS
  service         operation       calls  names
  secretsmanager  GetSecretValue      3  db (2), none
  GetSecretValue: ResourceNotFoundException
  not there: give it with --seed FILE.json, whose form is {{"secrets": {{"none": "..."}}}}
  called by Boto3 1.34

METRICS
  3 lines of EMF checked: 2 valid, 1 not
  namespace  name    unit   dimensions   points  sum
  shop       orders  Count  channel=web       3    6
  dropped by CloudWatch: metric 'orders' has a value that is not a number

LOGS
  first
  second

SHUTDOWN
  timeout: SIGTERM, ended by itself after 100.0 ms of 500.0 ms allowed, exit status 0
  spindown: SIGTERM, ended by itself after 3.0 ms of 500.0 ms allowed, exit status 0

VERDICT
  note: 1 call to AWS failed
  bad: invocation 2 ended with error
  bad: 1 line of metrics CloudWatch would drop
""" == text  # fmt: skip

    def test_telemetry(self):
        """Who subscribed, what was delivered, and what was not taken."""
        journal = Journal()
        for status, records in ((200, 5), (500, 3), (None, 3), (200, 3)):
            made = Delivery("lambda_ext", records, 100, "s", status, 0.1)
            journal.note(DELIVERED, made)
        types = ("platform", "function")
        mine = Registration("lambda_ext", (), True, "Ready", telemetry=types)
        other = Registration("other", (), False, "Ready")
        result = dataclasses.replace(RESULT, journal=journal, extensions=(mine, other))

        assert """
TELEMETRY
  lambda_ext: 8 records in 2 deliveries
  lambda_ext did not take all: 500, no answer
""" == printed(lambda report: report.telemetry(result))
        assert (
            "extensions: lambda_ext (internal, telemetry: platform function),"
            " other (external)\n"
        ) in printed(lambda report: report.init(result))
        assert "" == printed(lambda report: report.telemetry(RESULT))

    def test_good_run_has_no_logs_unasked(self):
        """A good run shows what the function wrote only with logs=True."""
        good = Verdict(())

        assert "first" not in printed(lambda r: r.all(RESULT, good))
        assert "first" in printed(lambda r: r.all(RESULT, good, logs=True))

    def test_long_log_is_cut_unasked(self):
        """Of a long output the end is shown, and how much is left out."""
        lines = tuple(Line("stdout", f"line {n}", 0.1) for n in range(100))
        result = dataclasses.replace(RESULT, lines=lines)
        text = printed(lambda r: r.logs(result, everything=False))

        assert "(40 lines before these; --logs shows all)" in text
        assert "  line 39\n" not in text
        assert "  line 99\n" in text

    def test_runtimes_boilerplate_is_left_out(self):
        """The runtime client's advice about runtime versions is not repeated."""
        line = Line("stdout", "[WARNING] LAMBDA_WARNING: Unhandled exception. ...", 0.1)
        result = dataclasses.replace(RESULT, lines=(line,))

        assert "" == printed(lambda r: r.logs(result, everything=False))
        assert "LAMBDA_WARNING" in printed(lambda r: r.logs(result))

    def test_traceback_of_init_stands_once(self):
        """What INIT shows of the module's error is one line among what was logged."""
        frames = ['  File "app.py", line 3, in <module>\n    1 / 0\n']
        error = {"errorType": "E", "errorMessage": "m", "stackTrace": frames}
        failed = InitReport(
            "error", "init", "on-demand", 0.1, None, json.dumps(error).encode()
        )
        logged = (
            "[ERROR] E: m\rTraceback (most recent call last):\r"
            '\xa0\xa0File "app.py", line 3, in <module>\r\xa0\xa0\xa0\xa01 / 0'
        )
        lines = (Line("stdout", logged, 0.1),)
        result = dataclasses.replace(RESULT, init=failed, invocations=(), lines=lines)
        text = printed(lambda r: r.all(result, judge(result)))

        assert "LOGS\n  [ERROR] E: m\n  (traceback as above)\n" in text
        assert 1 == text.count("line 3, in <module>")

    def test_traceback_of_like_errors_stands_once(self):
        """Errors of one place show it once, each with its own words."""
        errors = [
            Invocation(f"id-{n}", "error", ERROR.replace(b"items", b"i%d" % n), 0.1)
            for n in range(3)
        ]
        result = dataclasses.replace(RESULT, invocations=tuple(errors))
        text = printed(lambda r: r.invocations(result))

        assert 1 == text.count('File "app.py", line 9')
        assert (
            "  2: ValueError: no [bold]i1[/bold]\n  (traceback as above)\n"
            "  3: ValueError: no [bold]i2[/bold]\n  (traceback as above)\n"
        ) in text

    def test_nothing_is_said_so(self):
        """No call and no metric are said in words."""
        result = dataclasses.replace(RESULT, calls=(), emf=(), totals=Totals())
        text = printed(lambda r: r.all(result, judge(result)))

        assert "AWS\n  no call was made\n" in text
        assert "METRICS\n  no metric was written\n" in text

    def test_lines_for_datadog_are_told(self):
        """They are metrics, too, and no EMF."""
        text = '{"m":"n","v":1,"e":1700000000,"t":["service:a"]}'
        lines = (Line("stdout", text, 0.1), Line("stderr", text, 0.1))
        result = dataclasses.replace(RESULT, lines=lines, emf=(), totals=Totals())
        told = printed(lambda r: r.metrics(result))

        assert "1 line of metrics for Datadog's Forwarder, not checked\n" in told
        assert "no metric was written as EMF\n" in told

    def test_metrics_of_a_failed_init_are_told(self):
        """What came out before the module raised, and nothing where nothing did."""
        failed = dataclasses.replace(RESULT.init, status="error")
        result = dataclasses.replace(RESULT, init=failed, invocations=())
        silent = dataclasses.replace(result, emf=(), totals=Totals())

        assert RESULT.emf
        assert "METRICS\n" in printed(lambda r: r.all(result, judge(result)))
        assert "METRICS\n" not in printed(lambda r: r.all(silent, judge(silent)))

    def test_real_aws_is_said_to_be_unrecorded(self):
        """With AWS itself the report says that it saw no calls."""
        result = dataclasses.replace(RESULT, plan=Plan("a.b", real_aws=True), calls=())

        assert "they are not recorded here" in printed(lambda r: r.calls(result))

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"killed": True}, "spindown: SIGTERM, killed after 3.0 ms of 500.0 ms"),
            (
                {
                    "signalled": False,
                    "exit_status": -9,
                    "budget_s": 0.0,
                    "share_s": 0.0,
                },
                "spindown: killed without SIGTERM, since no extension",
            ),
            (  # an extension is registered: nothing but the process itself did it
                {"reason": "failure", "signalled": False, "exit_status": -9},
                "failure: it had ended before, by signal 9 (",
            ),
            (
                {"signalled": False, "exit_status": 3},
                "spindown: it had ended before, exit status 3",
            ),
            (
                {"signalled": False, "exit_status": None},
                "there was no process left to end",
            ),
        ],
    )
    def test_end_is_told(self, changes, says):
        """How the process ended is told."""
        end = dataclasses.replace(RESULT.shutdown, **changes)

        assert says in printed(
            lambda r: r.end(dataclasses.replace(RESULT, shutdown=end))
        )

    def test_error_that_is_no_object_is_told_by_its_type(self):
        """A failure without a JSON object shows what the platform calls it."""
        invocation = Invocation("id", "failure", b"\xff", 0.1, "Runtime.ExitError")

        assert "1: Runtime.ExitError" in printed(
            lambda r: r.invocations(
                dataclasses.replace(RESULT, invocations=(invocation,))
            )
        )

    def test_errors_beyond_the_limit_are_counted(self, monkeypatch):
        """Of many different errors the first are shown."""
        monkeypatch.setattr(report_module, "MOST_ERRORS", 1)
        invocations = [Invocation("i", "error", b"", 0.1, kind) for kind in ("A", "B")]
        result = dataclasses.replace(RESULT, invocations=tuple(invocations))

        assert "1: A\n  and 1 other error\n" in printed(lambda r: r.invocations(result))

    def test_checks_and_cold_starts_are_tables(self):
        """Claims stand with evidence, cold starts with what is beyond the first."""
        checks = [Check("it holds", True, "3 of 3"), Check("it does not", False)]

        assert (
            "\nPROVEN\n"
            "       claim        evidence\n"
            "  yes  it holds     3 of 3\n"
            "  NO   it does not\n"
        ) == printed(lambda r: r.checks("PROVEN", checks))
        assert (
            "\nCOLD START\n"
            "         INIT + first invocation     beyond  peak memory  beyond\n"
            "  bare                   40.0 ms                   14 MB\n"
            "  light                  65.0 ms   +25.0 ms        20 MB   +6 MB\n"
            "  boto3                 250.0 ms  +210.0 ms\n"
        ) == printed(
            lambda r: r.cold_starts(
                [("bare", 0.04, 14.0), ("light", 0.065, 20.0), ("boto3", 0.25, None)]
            )
        )

    def test_more_series_than_fit_are_counted(self, monkeypatch):
        """Rows beyond the limit are left out, with their number."""
        monkeypatch.setattr(report_module, "MOST_SERIES", 1)
        lines = [emf(1, **{name: "x"}) for name in "abc"]
        result = dataclasses.replace(RESULT, **received(*lines))

        assert "and 2 more\n" in printed(lambda r: r.metrics(result))


WIDE = dataclasses.replace(
    RESULT,
    invocations=(
        Invocation("4b1c5a52-8d43-4f10", "success", json.dumps(
            {"order": 1, "items": ["a"] * 50}).encode(), 0.02),
        Invocation("9ff1c1d0-17f0-4a5c", "error", ERROR, 12.345),
    ),
    calls=tuple(
        AwsCall(service, operation, names, 200, (), "Boto3/1.34", 0, 0)
        for service, operation, names in (
            ("secretsmanager", "BatchGetSecretValue",
             tuple(f"prod/orders/database-{n}" for n in range(20))),
            ("ssm", "GetParametersByPath", ("/prod/orders/settings",)),
        )
    ),
    lines=(),
    **received(
        emf(1, channel="web", country="Germany", tenant="acme-corporation", tier="gold"),
        emf(1, channel="web"),
    ),
)  # fmt: skip
CHECKS = [
    Check(
        "a claim of some length about what came out exactly once " * 2, True, "3 of 3"
    )
]


class TestTerminal:
    """The report on a terminal."""

    @pytest.mark.parametrize("width", [60, 80, 120, 200])
    def test_no_word_is_broken(self, width):
        """At every width each line fits, and every word stands whole."""
        text = printed(
            lambda r: (
                r.all(WIDE, judge(WIDE)),
                r.checks("PROVEN", CHECKS),
                r.cold_starts([("lambda_ext (light)", 0.04, 14.0), ("b", 1.0, 20.0)]),
            ),
            terminal=True,
            width=width,
        )
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        words = plain.split()

        assert width >= max(map(len, plain.splitlines()))
        assert {
            *("secretsmanager", "BatchGetSecretValue", "ssm", "GetParametersByPath"),
            *(f"prod/orders/database-{n}," for n in range(19)),
            *("/prod/orders/settings", "tenant=acme-corporation,", "channel=web,"),
            *("4b1c5a52", "9ff1c1d0", "success", "error", "12345.0", "exactly"),
        } <= {*words, *(word + "," for word in words)}

    def test_answer_fills_the_line_and_no_more(self):
        """A row ends at the edge of the terminal, with what the answer begins with."""
        rows = {
            width: next(
                line
                for line in re.sub(
                    r"\x1b\[[0-9;]*m",
                    "",
                    printed(lambda r: r.invocations(WIDE), terminal=True, width=width),
                ).splitlines()
                if "4b1c5a52" in line
            ).rstrip()
            for width in (80, 120)
        }

        assert all(row.endswith("...") for row in rows.values())
        assert {80: 80, 120: 120} == {w: len(row) for w, row in rows.items()}

    def test_colour_and_rules(self):
        """A terminal gets colour, and text is never read as markup."""
        text = printed(lambda r: r.all(RESULT, judge(RESULT)), terminal=True)

        assert "\x1b[" in text
        assert "no [bold]items[/bold]" in text
        assert "─" in text

    @pytest.mark.parametrize("plain", ["argument", "NO_COLOR"])
    def test_plain_wins_on_a_terminal(self, monkeypatch, plain):
        """--plain and NO_COLOR each turn colour off on a terminal."""

        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setattr("sys.stdout", Terminal())
        monkeypatch.delenv("NO_COLOR", raising=False)
        fancy, _ = report_module.consoles()
        if plain == "NO_COLOR":
            monkeypatch.setenv("NO_COLOR", "1")
        quiet, _ = report_module.consoles(plain=plain == "argument")

        assert (True, False) == (fancy.is_terminal, quiet.is_terminal)

    def test_progress_is_a_line_a_step(self):
        """Where there is no terminal, each step is a line."""
        out = io.StringIO()
        with progress(Console(file=out, force_terminal=False)) as step:
            step("INIT")
            step("[1] of 2")

        assert "... INIT\n... [1] of 2\n" == out.getvalue()

    def test_progress_of_many_is_a_line_every_three_seconds(self):
        """Steps that are alike are told now and then, others at once."""
        out = io.StringIO()
        clock = [0.0]
        with progress(
            Console(file=out, force_terminal=False), now=lambda: clock[0]
        ) as step:
            for number in range(1, 31):
                step(f"invocation {number} of 30")
                clock[0] += 0.25
            step("SIGTERM")

        assert [
            "... invocation 1 of 30",
            "... invocation 13 of 30",
            "... invocation 25 of 30",
            "... SIGTERM",
        ] == out.getvalue().splitlines()

    def test_progress_is_a_spinner_on_a_terminal(self):
        """On a terminal the step stands next to a spinner, markup shown as it is."""
        out = io.StringIO()
        with progress(Console(file=out, force_terminal=True, _environ={})) as step:
            step("[bold]one")

        assert "\x1b[?25h" in out.getvalue()
