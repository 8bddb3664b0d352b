"""The error tree is what its docstring says."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from lambda_ext import exceptions


def documented():
    """Return name -> builtin parents, as the module docstring draws them."""
    lines = re.findall(r"^ +(\w+Error)(?: \((\w+)\))?", exceptions.__doc__, re.M)
    return dict(lines)


def test_docstring_shows_the_whole_tree():
    """Every error is in the drawing, with the builtin that it also is."""
    drawn = documented()

    assert set(exceptions.__all__) == set(drawn)
    for name, parent in drawn.items():
        bases = {base.__name__ for base in getattr(exceptions, name).__mro__}
        assert "LambdaExtError" in bases
        assert not parent or parent in bases


@pytest.mark.parametrize("copier", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_source_error_keeps_its_facts(copier):
    """A copied error still says what was asked, where, and what AWS answered."""
    error = exceptions.ThrottledError(
        "slow down", key="db", source="secrets_manager", code="T", transient=True
    )

    again = copier(error)

    assert type(again) is exceptions.ThrottledError
    assert vars(error) == vars(again)
    assert "slow down" == str(again)


@pytest.mark.parametrize("name", sorted(exceptions.__all__))
def test_each_error_is_at_home_in_the_public_module(name):
    """In each module that makes it: a traceback and a pickle name `exceptions`."""
    kind = getattr(exceptions, name)

    assert "lambda_ext.exceptions" == kind.__module__
    assert kind is pickle.loads(pickle.dumps(kind))
    assert name in dir(exceptions)


def test_an_error_that_there_is_not():
    """A misspelt name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'FlagErrors'"):
        exceptions.FlagErrors
