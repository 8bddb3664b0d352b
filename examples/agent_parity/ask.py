"""
Ask AppConfig's real agent what AWS does not document, beside our evaluator.

    python examples/agent_parity/ask.py write     # documents/, for the agent
    docker compose -f examples/agent_parity/compose.yaml up -d
    python examples/agent_parity/ask.py ask       # prints, and writes answers.json

The agent reads rules from a local folder as text in Amazon Ion, so that
neither an AWS account nor a deployment is needed.  Each question is a flag
with one rule; the agent is asked for it with a context, over HTTP, and our
evaluator gets the same rule and context.  Where the two differ, the table in
`lambda_ext.flags.rules` says which switch of `Dialect` to turn, and our tests,
which read answers.json when it is there, say the same.

Exit status 0 if all answers agree, 1 if not, 2 if no agent answers.
"""

import argparse
import http.client
import json
import os
import sys
import typing

from lambda_ext.exceptions import RuleError
from lambda_ext.flags.rules import evaluate

HERE = os.path.dirname(os.path.abspath(__file__))
APPLICATION, ENVIRONMENT, PROFILE = "parity", "local", "questions"
# The percent signs are literal: the agent takes the content type from the name.
FILE = (
    f"{APPLICATION}:{ENVIRONMENT}:{PROFILE}"
    ".application%ion%type=AWS.AppConfig.FeatureFlags"
)
ANSWERS = "answers.json"
IDS = [f"L{number:06d}" for number in range(300)]


class Question(typing.NamedTuple):
    """A flag with one rule, and the contexts that it is asked for with."""

    flag: str
    what: str
    rule: str
    contexts: tuple


def questions():
    """Return what is asked: a flag, what for, its rule, and contexts."""
    asked = []

    def ask(what, rule, *contexts):
        asked.append(Question(f"q{len(asked):02d}", what, rule, contexts))

    ids = [{"id": each} for each in IDS]
    for pct in (20, 50, 0.5):
        ask(
            "the hash of split",
            f'(split by::$id pct::{pct} seed::"rollout-2026")',
            *ids,
        )
    ask("the seed of a split without one", "(split by::$id pct::50)", *ids)
    ask("the seed of another flag", "(split by::$id pct::50)", *ids)
    pairs = [{"a": each, "b": each[-1]} for each in IDS[:100]]
    ask("several values of by", '(split by::[$a, $b] pct::50 seed::"s")', *pairs)
    ask("split of a missing value", '(split by::$id pct::100 seed::"s")', {})
    ask("split of a number", '(split by::$id pct::50 seed::"s")',
        *({"id": str(number)} for number in range(50)))  # fmt: skip
    ask("a missing key", '(eq $a "x")', {})
    ask("not of a missing key", '(not (eq $a "x"))', {})
    ask("ne of a missing key", '(ne $a "x")', {})
    ask("or after a missing key", "(or (gt $a 1) (eq 1 1))", {})
    ask("not of a text in an order of numbers", "(not (gt $a 5))", {"a": "abc"}, {})
    numbers = [{"a": a} for a in ("5", "5.0", "05", "+5", "5e0", "5a")]
    ask("text against an integer", "(eq $a 5)", *numbers)
    ask("an integer first", "(eq 5 $a)", *numbers)
    ask("text against a float", "(eq $a 5.0)", *numbers)
    ask("a number against text", '(eq $a "5")', *numbers)
    ask("text in an order of numbers", "(gt $a 4)", *numbers)
    ask("text in a list of numbers", "(in $a [4, 5])", *numbers)
    booleans = [{"a": a} for a in ("true", "True", "TRUE", "1", "yes", "t", "false")]
    ask("text against true", "(eq $a true)", *booleans)
    ask("a context value as an operand of and", "(and $a (eq 1 1))", *booleans)
    moments = [
        {"a": a} for a in ("2024-01", "2024-01-01", "2024-01-01T00:00:00Z", "2024", "x")
    ]
    ask("text against a timestamp", "(eq $a 2024-01T)", *moments)
    ask("text in an order of timestamps", "(gte $a 2024-01T)", *moments)
    letters = [{"a": a} for a in ("a", "b", "B", "c")]
    ask("two texts in an order", '(gt $a "b")', *letters)
    ask("letter case", '(eq $a "b")', *letters)
    ask("letter case of a prefix", '(begins_with $a "b")', *letters)
    subjects = [{"a": a} for a in ("abc", "b", "xb", "ABC", "a1", "a b")]
    for pattern in ("b", "^b$", "[[:digit:]]", r"\\d", "(?i)abc", "a.c", r"a\\sb"):
        ask("matches", f'(matches in::$a pattern::"{pattern}")', *subjects)
    ask("exists of an empty value", '(exists key::"a")', {"a": ""}, {"a": "x"}, {})
    ask("contains of nothing", '(contains $a "")', {"a": "x"}, {})
    ask("two values of one context", "(eq $a $b)", {"a": "1", "b": "1"},
        {"a": "1", "b": "1.0"}, {"a": "x"})  # fmt: skip
    return asked


def ion(asked):
    """Return the flag document as the agent's local folder takes it."""
    yes = json.dumps({"_variant": "yes", "enabled": True})
    no = json.dumps({"_variant": "no", "enabled": False})
    return "\n".join(
        f"'{question.flag}'::[\n  [ {question.rule},\n    '''{yes}''' ],\n  '''{no}'''\n]"
        for question in asked
    )


def write(folder):
    """Write the document that the agent is to read; return its path."""
    path = os.path.join(folder, "documents", FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(ion(questions()) + "\n")
    return path


def ours(question, context):
    """Return what our evaluator says: true, false, or why it refuses the rule."""
    try:
        return evaluate(question.rule, context, flag=question.flag)
    except RuleError as exc:
        return exc.reason


class Agent:
    """The agent on a port of this machine."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("localhost", port, timeout=10)

    def close(self):
        """Close the connection."""
        self._connection.close()

    def version(self):
        """Return the agent's version; old ones do not tell."""
        status, body = self._get("/ping", {})
        return body.strip() if status == 200 else ""

    def asks(self, flag, context):
        """Return whether *flag* is enabled, or the status of a refusal."""
        path = (
            f"/applications/{APPLICATION}/environments/{ENVIRONMENT}"
            f"/configurations/{PROFILE}?flag={flag}"
        )
        status, body = self._get(path, context)
        return json.loads(body)["enabled"] if status == 200 else f"HTTP {status}"

    def _get(self, path, context):
        self._connection.putrequest("GET", path)
        for key, value in context.items():
            self._connection.putheader("Context", f"{key}={value}")
        self._connection.endheaders()
        response = self._connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")


def ask(port, folder):
    """Ask everything, print what differs, write the answers; return the status."""
    agent = Agent(port)
    answers = []
    try:
        version = agent.version()
        for question in questions():
            differ = []
            for context in question.contexts:
                theirs, mine = (
                    agent.asks(question.flag, context),
                    ours(question, context),
                )
                answers.append(
                    {
                        "flag": question.flag,
                        "what": question.what,
                        "rule": question.rule,
                        "context": context,
                        "agent": theirs,
                        "ours": mine,
                    }
                )
                if theirs != mine:
                    differ.append((context, theirs, mine))
            count = len(question.contexts)
            print(
                f"{count - len(differ):4} of {count:3} agree  {question.what}: {question.rule}"
            )
            for context, theirs, mine in differ[:3]:
                print(
                    f"       with {json.dumps(context)} the agent says {theirs}, we say {mine}"
                )
    except (OSError, http.client.HTTPException) as exc:
        print(
            f"no agent answers on localhost:{port} ({type(exc).__name__}): see compose.yaml"
        )
        return 2
    finally:
        agent.close()
    path = os.path.join(folder, ANSWERS)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"agent": version, "answers": answers}, file, indent=1)
    differing = sum(each["agent"] != each["ours"] for each in answers)
    print(
        f"\n{len(answers) - differing} of {len(answers)} answers agree; written to {path}"
    )
    return int(bool(differing))


def main():
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("command", choices=("write", "ask"))
    parser.add_argument("--port", type=int, default=2772)
    parser.add_argument(
        "--folder", default=HERE, help="where documents/ and answers.json are"
    )
    options = parser.parse_args()
    if options.command == "write":
        print(f"written: {write(options.folder)}")
        return 0
    return ask(options.port, options.folder)


if __name__ == "__main__":
    sys.exit(main())
