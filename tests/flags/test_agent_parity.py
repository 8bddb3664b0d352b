"""`examples/agent_parity`: the script, and what the real agent once answered."""

from __future__ import annotations

import importlib.util
import json
import os
import re

import pytest
from helpers import ROOT

from lambda_ext.flags.rules import evaluate, parse
from lambda_ext.local.server import Answer, Server

FOLDER = os.path.join(ROOT, "examples", "agent_parity")
ANSWERS = os.path.join(FOLDER, "answers.json")


@pytest.fixture(name="script", scope="module")
def _script():
    """The script as a module."""
    path = os.path.join(FOLDER, "ask.py")
    spec = importlib.util.spec_from_file_location("agent_parity_ask", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeAgent:
    """An agent that evaluates with our evaluator, but for what it is told."""

    def __init__(self, script):
        self.rules = {question.flag: question.rule for question in script.questions()}
        self.contrary = ""

    def answer(self, request):
        """Answer as the agent does."""
        if request.path == "/ping":
            return Answer(200, b"2.0.1\n")
        flag = request.path.partition("?flag=")[2]
        context = dict(
            value.split("=", 1)
            for name, value in request.headers.items()
            if name.lower() == "context"
        )
        enabled = evaluate(self.rules[flag], context, flag=flag) != (
            flag == self.contrary
        )
        return Answer(200, json.dumps({"_variant": "x", "enabled": enabled}).encode())


@pytest.fixture(name="agent")
def _agent(script):
    """The agent and its port."""
    agent = FakeAgent(script)
    server = Server(agent.answer)
    agent.port = int(server.address.rpartition(":")[2])
    yield agent
    server.close()


def test_document_is_what_the_agent_reads(script, tmp_path):
    """Each question is a flag of Ion text: a rule that we parse, and two results."""
    path = script.write(tmp_path)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    flags = re.findall(
        r"'(q\d\d)'::\[\n  \[ (.*),\n    '''(.*)''' \],\n  '''(.*)'''\n\]", text
    )

    assert path.endswith(
        "documents/parity:local:questions.application%ion%type=AWS.AppConfig.FeatureFlags"
    )
    assert [question.flag for question in script.questions()] == [
        row[0] for row in flags
    ]
    for _, rule, yes, no in flags:
        assert parse(rule)
        assert [True, False] == [json.loads(yes)["enabled"], json.loads(no)["enabled"]]


def test_answers_are_compared_and_written(script, agent, tmp_path, capsys):
    """Where all agree the status is 0, and each answer stands in the file."""
    assert 0 == script.ask(agent.port, tmp_path)
    with open(tmp_path / "answers.json", encoding="utf-8") as file:
        written = json.load(file)

    asked = sum(len(question.contexts) for question in script.questions())
    assert ("2.0.1", asked) == (written["agent"], len(written["answers"]))
    assert f"{asked} of {asked} answers agree" in capsys.readouterr().out


def test_difference_is_shown(script, agent, tmp_path, capsys):
    """What the agent sees otherwise is printed with its context."""
    agent.contrary = next(
        question.flag
        for question in script.questions()
        if question.what == "letter case"
    )

    assert 1 == script.ask(agent.port, tmp_path)
    assert (
        'with {"a": "b"} the agent says False, we say True' in capsys.readouterr().out
    )


def test_no_agent_there(script, agent, tmp_path, capsys):
    """Without an agent the script says what to start."""
    assert 2 == script.ask(1, tmp_path)
    assert "compose.yaml" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists(ANSWERS), reason="the real agent was not asked")
def test_real_agent_agrees():
    """What AppConfig's agent answered, our evaluator says, too."""
    with open(ANSWERS, encoding="utf-8") as file:
        written = json.load(file)
    differing = [
        (each["what"], each["rule"], each["context"], each["agent"])
        for each in written["answers"]
        if each["agent"] in (True, False)
        and each["agent"] != evaluate(each["rule"], each["context"], flag=each["flag"])
    ]

    assert [] == differing
