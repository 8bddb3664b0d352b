"""Every answer of the Runtime and Extensions APIs, and that AWS's own are the same.

`probe` runs as the runtime and asks; `api_answers` says what it must be told.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile

import pytest
from api_answers import EXPECTED, GAPS, INVOKE
from emulated import FUNCTION, LOCAL, Emulator, emulate, process
from helpers import eventually
from rie import Rie

pytestmark = process

PROBE = os.path.join(LOCAL, "probe.py")
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"

# scenario -> how many invocations, options of our emulator, options of theirs
SCENARIOS = {
    "classic": (3, {}, {}),
    "odd_mode": (1, {}, {}),
    "streaming": (1, {}, {}),
    "init_error": (1, {}, {}),
    "snap_start": (1, {"init_type": "snap-start"}, {"init_caching": True}),
    "restore_init_error": (1, {"init_type": "snap-start"}, {"init_caching": True}),
    "instances": (
        2,
        {"init_type": "lambda-managed-instances", "max_concurrency": 1},
        {"instances": 1},
    ),
    "telemetry": (
        1,
        {"init_type": "lambda-managed-instances", "max_concurrency": 1},
        {"instances": 1},
    ),
}

TELEMETRY = ("telemetry",)  # scenarios for which AWS's emulator has a Telemetry API


def ask_ours(scenario, folder):
    """Return what our emulator answers."""
    count, options, _ = SCENARIOS[scenario]
    path = os.path.join(folder, "answers.json")
    with Emulator(
        task_root=folder,
        command=[sys.executable, PROBE, scenario, path],
        function_name="test_function",
        timeout_s=60,
        **{"telemetry": scenario in TELEMETRY, **options},
    ) as emulator:
        for number in range(count):
            if "max_concurrency" in options:
                emulator.init()
                emulator.wait_idle()
            emulator.invoke({"n": number})
        return answers(path)


def ask_theirs(scenario, folder):
    """Return what AWS's own emulator answers."""
    count, _, options = SCENARIOS[scenario]
    path = os.path.join(folder, "answers.json")
    command = [sys.executable, PROBE, scenario, path]
    with Rie(task_root=folder, command=command, timeout_s=60, **options) as rie:

        def invoke(number):
            _, body = rie.invoke({"n": number}, headers={"X-Amzn-Trace-Id": TRACE})
            return b"Runtime.Unavailable" not in body  # no worker has come to /next

        for number in range(count):
            eventually(lambda: invoke(number))  # noqa: B023  called at once
        return answers(path)


def answers(path):
    """Return the answers that the probe noted, without what is never the same."""
    eventually(lambda: os.path.exists(path))
    with open(path) as file:
        text = file.read()
    for pattern, word in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
        (r'"?\b1[0-9]{12}\b"?', '"<ms>"'),
        (r'(?<=[":])[0-9]{12}(?=[":])', "<account>"),
        (r'Root=[^"]*', "<trace>"),
        (r"file:///[^#]*/", ""),  # where it keeps its schema
    ):
        text = re.sub(pattern, word, text)
    noted = json.loads(text)
    assert "failed" not in noted, "the probe failed"
    return noted


@pytest.fixture(scope="module")
def ours():
    """Our answers to a scenario, asked once."""
    known = {}

    def ask(scenario):
        if scenario not in known:
            with tempfile.TemporaryDirectory() as folder:
                known[scenario] = ask_ours(scenario, folder)
        return known[scenario]

    return ask


@pytest.mark.parametrize(
    ("scenario", "question"),
    [(scenario, question) for scenario in EXPECTED for question in EXPECTED[scenario]],
)
def test_answer_is_as_in_the_table(ours, scenario, question):
    """Status, error type and message of each question are the ones we know."""
    status, *expected = EXPECTED[scenario][question]
    answer = ours(scenario)[question]

    assert answer["status"] == status
    if len(expected) == 1:
        assert answer["body"] == expected[0]
    else:
        error_type, message = expected
        assert answer["body"]["errorType"] == error_type
        assert message in (None, answer["body"]["errorMessage"])
        assert {"errorType", "errorMessage"} == answer["body"].keys()
        text = error_type == "ValidationError"  # of a subscription to telemetry
        kind = "text/plain; charset=utf-8" if text else "application/json"
        assert {"content-type": kind} == answer["headers"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_questions_are_all_in_the_table(ours, scenario):
    """The probe asks what the table says, in its order, and nothing else."""
    assert list(ours(scenario)) == list(EXPECTED[scenario])


def test_repeated_next_is_the_same_invocation(ours):
    """Asking again while Running hands out the same request once more."""
    assert ours("classic")["next again"]["same"] is True


def test_headers_of_an_invocation(ours):
    """/next names request, deadline, function and trace, and only instances more."""
    base = {
        "content-type": "application/json",
        "lambda-runtime-aws-request-id": "<id>",
        "lambda-runtime-deadline-ms": "<ms>",
        "lambda-runtime-invoked-function-arn": INVOKE["invokedFunctionArn"],
        "lambda-runtime-trace-id": "<trace>",
    }

    assert ours("classic")["next"]["headers"] == base
    assert ours("instances")["next"]["headers"] == {
        **base,
        "lambda-runtime-invocation-id": "<id>",
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_are_those_of_awss_own_emulator(ours, scenario, tmp_path):
    """Field by field the same, except where a gap of theirs is known."""
    mine, theirs = flat(ours(scenario)), flat(ask_theirs(scenario, str(tmp_path)))
    differing = {
        key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)
    }
    known = {key for key in differing if gap(scenario, *key) is not None}

    assert {} == {key: (mine.get(key), theirs.get(key)) for key in differing - known}
    for place, question, field in GAPS:
        if re.fullmatch(place, scenario):
            assert any(
                re.fullmatch(question, asked) and where.startswith(field)
                for asked, where in known
            ), f"{question} {field} is no gap any more"


def gap(scenario, question, field):
    """Return why that field may differ, None if it may not."""
    for (place, asked, where), why in GAPS.items():
        if (
            re.fullmatch(place, scenario)
            and re.fullmatch(asked, question)
            and (field + ".").startswith(where + ".")
        ):
            return why
    return None


def flat(noted):
    """Return {(question, field): value} with dots in the names of fields."""
    found = {}

    def visit(question, field, value):
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                visit(question, f"{field}.{name}" if field else name, inner)
        else:
            found[question, field] = value

    for question, answer in noted.items():
        visit(question, "", answer)
    return found


def test_callers_are_told_the_same():
    """The caller of a function that fails gets the payload that AWS would give."""
    events = [
        {"do": "raise"},
        {"do": "exit", "status": 3},
        {"do": "exit", "status": 0},
        {"do": "kill", "signal": 9},
        {"n": 1},
    ]
    with emulate(function_name="test_function") as emulator:
        mine = [emulator.invoke(event).payload for event in events]
    with Rie(task_root=FUNCTION) as rie:
        theirs = [rie.invoke(event)[1] for event in events]
    changing = re.compile(
        rb'[0-9a-f]{8}-[0-9a-f-]{27}|(?<="(?:pid|now)": )[0-9.]+'
        rb'|(?<="left": )[0-9]+|(?<=:)[0-9]{12}(?=:)'
    )

    for one, other in zip(mine, theirs, strict=True):
        assert changing.sub(b"*", one) == changing.sub(b"*", other)
