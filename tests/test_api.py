"""The facade: one table, complete, lazy, and never shadowed by a module."""

from __future__ import annotations

import ast
import os
import pickle

import pytest
from helpers import ROOT, python

import lambda_ext


def type_checking_names():
    """Return what the type checker sees: name -> module, from the source."""
    with open(os.path.join(ROOT, "lambda_ext", "__init__.py"), encoding="utf-8") as f:
        tree = ast.parse(f.read())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, "re-exports are spelt `x as x`"
            seen[alias.name] = "." + (node.module or "")
    return seen


def test_table_equals_what_the_type_checker_sees():
    """The lazy table, the TYPE_CHECKING block and __all__ name the same things."""
    table = dict(lambda_ext._HOME)
    table.update(dict.fromkeys(lambda_ext._MODULES, "."))

    assert type_checking_names() == table
    assert sorted(table) == sorted(lambda_ext.__all__)


def test_every_name_can_be_had():
    """Each public name resolves, and is listed by dir()."""
    for name in lambda_ext.__all__:
        assert getattr(lambda_ext, name) is not None
        assert name in dir(lambda_ext)


def test_misspelt_name_is_an_attribute_error():
    """A name that is not public says so, with the module's name."""
    with pytest.raises(AttributeError, match="'lambda_ext' has no attribute 'secrte'"):
        lambda_ext.secrte


@pytest.mark.parametrize(
    ("module", "name", "nearest"),
    [
        ("lambda_ext", "get_secrt", "get_secret"),
        ("lambda_ext.metrics", "anotate", "annotate"),
        ("lambda_ext.exceptions", "FlagEror", "FlagError"),
        ("lambda_ext.telemetry", "suscribe", "subscribe"),
        ("lambda_ext.telemetry", "rout", "route"),
        ("lambda_ext.flags", "Exposre", "Exposure"),
    ],
)
def test_misspelt_name_gets_a_suggestion(module, name, nearest):
    """Python's own, in the traceback, though names are looked up when first used."""
    run = python(f"import importlib; importlib.import_module('{module}').{name}")

    assert f"Did you mean: '{nearest}'?" in run.stderr.splitlines()[-1]


def test_no_name_is_replaced_by_a_module():
    """Importing every submodule first changes no public name."""
    run = python(
        """
import importlib, pkgutil, types
import lambda_ext
for found in pkgutil.walk_packages(lambda_ext.__path__, "lambda_ext."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
for name in lambda_ext._HOME:
    value = getattr(lambda_ext, name)
    assert not isinstance(value, types.ModuleType), name
    home = importlib.import_module(lambda_ext._HOME[name], "lambda_ext")
    assert value is getattr(home, name), name
for name in lambda_ext._MODULES:
    assert isinstance(getattr(lambda_ext, name), types.ModuleType), name
"""
    )

    assert (0, "") == (run.returncode, run.stderr)


def test_public_functions_are_documented():
    """Each public function and class says what it does."""
    for name in lambda_ext._HOME:
        assert getattr(lambda_ext, name).__doc__, name


def test_errors_survive_pickling():
    """An error that crosses a process keeps its type and message."""
    error = lambda_ext.exceptions.DecodeError("bad", key="k")

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), copy.key) == (type(error), "bad", "k")
