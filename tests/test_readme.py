"""The README is true: its snippets run and its table is the code's."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

import lambda_ext
from lambda_ext import config
from lambda_ext.testing import MemorySink

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as _file:
    README = _file.read()

SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_first_snippet_is_ten_lines():
    """The first thing a reader sees fits into ten lines of code."""
    lines = [line for line in SNIPPETS[0].splitlines() if line.strip()]

    assert len(lines) <= 10


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet_compiles(number):
    """Each Python snippet is Python, and names only what lambda_ext has."""
    compile(SNIPPETS[number], "README.md", "exec")
    for module, names in re.findall(
        r"from (lambda_ext[.\w]*) import (.+)", SNIPPETS[number]
    ):
        for name in names.split("#")[0].split(","):
            imported = __import__(module, fromlist=[name.strip()])
            assert getattr(imported, name.strip())
    for name in re.findall(r"\blambda_ext\.(\w+)", SNIPPETS[number]):
        assert getattr(lambda_ext, name)


def test_example_and_its_test_run():
    """The first handler passes the test that the README gives for it."""
    names = {}
    test = next(text for text in SNIPPETS if "def test_" in text)

    exec(SNIPPETS[0], names)
    exec(test, names)

    names["test_order_is_counted"]()


def test_table_of_metrics_records_what_it_says():
    """Each call of the table and of the snippet after it is taken, in strict mode."""
    section = README.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    calls = re.findall(r"`((?:@|with )?metrics\.[^`]+)`", section)
    names = {"metrics": lambda_ext.metrics}
    with MemorySink() as sink:
        for call in calls:
            text = "\ndef query(): ...\nquery()" if call.startswith("@") else ""
            exec(call + text, names)
        exec(
            next(text for text in SNIPPETS if "checkout" in text and "shop" in text),
            names,
        )
        names["checkout"]({"shop": "a", "text": "tea"})

    assert 8 == len(calls)
    assert (1, 1) == (
        len(sink.points("orders", service="unknown_service", shop="a")),
        len(sink.points("orders", service="orders", shop="a")),
    )
    assert (512, 3) == (sink.values("bytes")[0], sink.total("bytes", service="orders"))
    assert [12.5] == sink.values("size")
    assert 2 == len(sink.values("db.query"))
    assert 7 == sink.total("queue", name="late")
    assert 1 == len(sink.values("checkout"))


@pytest.mark.process
def test_bytecode_is_valid_whatever_a_zip_says(tmp_path):
    """What the README's command compiles is not compiled again in Lambda."""
    options = re.search(r"python -m compileall (.*?) package/", README).group(1)
    package = tmp_path / "package"
    shutil.copytree(
        os.path.join(ROOT, "lambda_ext"),
        package / "lambda_ext",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    run = subprocess.run(
        [sys.executable, "-m", "compileall", *options.split(), str(package)],
        check=False,
    )
    assert 0 == run.returncode
    for path in package.rglob("*.py"):
        os.utime(path, (0, 0))  # as tools do for the same zip from the same source

    code = (
        "import sys\n"
        "compiled = []\n"
        "sys.addaudithook(lambda event, arguments:\n"
        "    compiled.append(arguments[1]) if event == 'compile' else None)\n"
        "import lambda_ext\n"
        "lambda_ext.handler, lambda_ext.get_secret\n"
        "print(lambda_ext.handler.__module__, [file for file in compiled if 'lambda_ext' in file])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,  # where `-c` looks first
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("lambda_ext.invocation []\n", "") == (done.stdout, done.stderr)


def test_map_names_files_that_are_there():
    """Each file that the README's table of questions names exists."""
    section = README.partition("\n## Where things are\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    missing = []
    for row in rows:
        folder = ""
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", row):
            whole = path if "/" in path else os.path.join(folder, path)
            folder = os.path.dirname(whole)
            if not os.path.exists(os.path.join(ROOT, whole)):
                missing.append(whole)

    assert len(rows) > 20
    assert [] == missing


@pytest.mark.parametrize("package", ["lifecycle", "values"])
def test_map_of_a_package_names_modules_that_are_there(package):
    """Each name of the left column in a package's docstring is a module of it."""
    found = importlib.import_module(f"lambda_ext.{package}")
    rows = re.findall(r"^    (\w.*?)  +\S", found.__doc__, re.M)
    names = [name for row in rows for name in row.split(", ")]
    there = {name.removesuffix(".py") for name in os.listdir(found.__path__[0])}

    assert len(names) > 10
    assert [] == [name for name in names if name.rstrip("/") not in there]


def test_glossary_is_short():
    """Terms of the library's own fit into ten lines."""
    section = README.partition("\nTerms that are this library's own:\n")[2]
    terms = section.partition("\n## ")[0].strip().splitlines()

    assert 5 < len(terms) <= 10
    assert [] == [line for line in terms if not line.startswith("- **")]


def test_commands_stand_in_the_first_screen():
    """The README shows both commands without scrolling."""
    screen = "\n".join(README.splitlines()[:30])

    assert "make demo" in screen
    assert "make test" in screen


def test_options_table_is_the_code():
    """The table of options has a row for each, with its variable and default."""
    for option in config.OPTIONS.values():
        row = f"| `{option.name}` | `{option.env}` | {shown(option.default)} | {option.meaning} |"
        assert row in README


def shown(default):
    """Return a default as the table prints it."""
    if isinstance(default, (frozenset, tuple)):
        return "none of them"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return "not set" if default is None else str(default)
