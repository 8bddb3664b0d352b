"""Habits that a reader relies on, held by a test."""

from __future__ import annotations

import ast
import os
import re
import subprocess

from handler_places import COVERED, ELSEWHERE, FILES, loops, swallowing
from handler_places import ROOT as PACKAGE
from helpers import ROOT

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "examples",
    "lambda_ext",
    "pyproject.toml",
    "setup.cfg",
    "tests",
}


def sources(folder, ending=".py"):
    """Yield (relative path, text) of every file below a folder."""
    for place, _, files in os.walk(os.path.join(ROOT, folder)):
        for file in files:
            if file.endswith(ending):
                path = os.path.join(place, file)
                with open(path, encoding="utf-8") as opened:
                    yield os.path.relpath(path, ROOT), opened.read()


def test_every_test_states_its_claim():
    """Each test function and class under tests/ has a docstring of a sentence."""
    silent = []
    for path, text in sources("tests"):
        if os.path.basename(path) == "api.py":
            continue
        for node in ast.walk(ast.parse(text)):
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (
                node.name.startswith(("test_", "Test"))
            )
            if named and not (ast.get_docstring(node) or "").strip():
                silent.append(f"{path}: {node.name}")

    assert [] == silent


def test_no_test_sleeps_to_be_right():
    """A test waits for events; only one helper polls, for other processes.

    Code of handlers that run elsewhere is text here, and may do what it likes;
    ten seconds and more stand for something that hangs until it is killed.
    """
    sleeping = []
    for path, text in sources("tests"):
        if os.path.basename(path) == "helpers.py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                seconds = getattr(node.args[0], "value", 0)
                number = isinstance(seconds, (int, float))
                if name == "sleep" and number and 0 < seconds < 10:
                    sleeping.append(f"{path}:{node.lineno}")

    assert [] == sleeping


def test_every_module_says_what_lives_here():
    """Each file of the package opens with a docstring."""
    silent = [
        path
        for path, text in sources("lambda_ext")
        if text.strip() and not ast.get_docstring(ast.parse(text))
    ]

    assert [] == silent


def test_every_public_definition_is_documented():
    """What has no leading underscore in a public module has a docstring."""
    silent = []
    for path, text in sources("lambda_ext"):
        if "__init__" in path or os.sep + "local" + os.sep in path:
            continue
        for node in ast.parse(text).body:
            if (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                silent.append(f"{path}: {node.name}")

    assert [] == silent


def test_nothing_is_left_for_later():
    """Open ends are finished or explained, not marked."""
    marks = re.compile(
        r"\b(TO" + "DO|FIX" + "ME|XX" + "X|raise NotImpl" + "ementedError)"
    )
    marked = [
        f"{path}: {found.group()}"
        for folder in ("lambda_ext", "tests", "benchmarks", "examples")
        for path, text in sources(folder)
        for found in [marks.search(text)]
        if found
    ]

    assert [] == marked


def test_top_level_holds_what_it_should():
    """The top level of the repository holds no other files."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}

    assert names <= TOP_LEVEL


def test_threads_and_locks_have_one_home():
    """Outside the local run none is the patched one of gevent or eventlet."""
    called = re.compile(
        r"\bthreading\.(Thread|Timer|Lock|RLock|Event|Condition|Semaphore|get_ident)\("
        r"|\b_thread\.(start_new_thread|allocate_lock|RLock|get_ident)\("
    )
    elsewhere = ("local/", "commands/", "contracts.py", "testing.py", "real_threads.py")
    found = [
        (path, call.group())
        for path, text in sources("lambda_ext")
        if not any(part in path for part in elsewhere)
        for call in called.finditer(text)
    ]

    assert [] == found


def test_loop_with_a_condition_stands_in_a_function_of_its_own():
    """Not in a `with`, `finally` or `except BaseException`: see `handler_places`."""
    found = {
        (str(path.relative_to(PACKAGE)), name)
        for path in FILES
        for name in loops(path.read_text("utf-8"))
    }

    assert set() == found - COVERED


def test_what_catches_all_asks_whose_exception_it_is():
    """Each `except Exception` asks `by_signal_handler`, or is known: `handler_places`."""
    assert ELSEWHERE.keys() == {place for path in FILES for place in swallowing(path)}
