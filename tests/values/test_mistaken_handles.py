"""A handle is not its value, and says so where it is taken for it."""

from __future__ import annotations

import json
import logging

import pytest

from lambda_ext import Flags, Parameter, Secret
from lambda_ext.testing import FakeSource

THINGS = {
    "secret": lambda: Secret("token"),
    "parameter": lambda: Parameter("token"),
    "derived": lambda: Secret("token").derive(str),
}


@pytest.fixture(params=THINGS)
def thing(request):
    """A handle, or what is derived, whose value is in memory."""
    with FakeSource({"token": "hunter2"}):
        thing = THINGS[request.param]()
        assert "hunter2" == thing.value
        yield thing


@pytest.mark.parametrize(
    "use",
    [
        lambda it: f"Bearer {it}",
        lambda it: f"{it:>40}",
        lambda it: "Bearer {}".format(it),  # noqa: UP032  the other way to write it
        lambda it: len(it),
        lambda it: list(it),
        lambda it: [*it],
        lambda it: it[0],
        lambda it: it["password"],
        lambda it: it[:4],
        lambda it: "h" in it,
        lambda it: dict(it),
    ],
)
def test_use_as_a_value_names_value(thing, use):
    """TypeError, instead of a puzzling 401 later."""
    with pytest.raises(TypeError, match=r"\.value") as info:
        use(thing)
    assert "hunter2" not in str(info.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda it: "Bearer " + it,
        lambda it: json.dumps({"token": it}),
        lambda it: ",".join(["Bearer", it]),  # noqa: FLY002  what is tested
        lambda it: it + "x",
    ],
)
def test_python_refuses_the_rest_itself(thing, use):
    """With words of its own."""
    with pytest.raises(TypeError):
        use(thing)


@pytest.mark.parametrize(
    "use",
    [str, repr, lambda it: f"{it!s}", lambda it: f"{it!r}", lambda it: "%s" % it],  # noqa: UP031  tested
)
def test_as_text_it_is_its_repr(thing, use):
    """So that a log line or an error message can never fail."""
    assert repr(thing) in use(thing)
    assert "hunter2" not in use(thing)


def test_log_lines_do_not_fail(thing, caplog, monkeypatch):
    """As an argument, and as the message itself."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log = logging.getLogger("mine")
    log.error("no %s for %r", thing, thing)
    log.error(thing)
    assert [f"no {thing!r} for {thing!r}", repr(thing)] == caplog.messages


def test_equality_is_identity(thing):
    """It equals itself only, is true, and can be a key."""
    other = type(thing)("token") if hasattr(thing, "name") else object()

    assert thing == thing
    assert thing != other
    assert thing != thing.value
    assert bool(thing) is True
    assert 1 == {thing: 1}[thing]
    assert hash(thing) == hash(thing)


@pytest.mark.parametrize("name", ["get", "items", "keys", "values", "encode", "split"])
def test_method_of_its_value_names_value(thing, name):
    """AttributeError that names .value, and no method of a similar name."""
    with pytest.raises(AttributeError, match=r"has no '\w+': \.value may") as info:
        getattr(thing, name)

    assert info.value.obj is None
    assert not hasattr(thing, name)


def test_flags_name_their_methods():
    """Flags have no value of the user's: what is asked of them is a method."""
    flags = Flags("a", "b", "c")

    with pytest.raises(
        TypeError, match=r"Flags cannot be indexed: ask its enabled\(\)"
    ):
        flags["new-checkout"]
