"""`FakeFlags`: flags that a test sets."""

from __future__ import annotations

import pytest

import lambda_ext
from lambda_ext import Configuration, Flags, Secret
from lambda_ext.exceptions import ConfigurationError, SourceError, UnknownFlagError
from lambda_ext.testing import FakeFlags, FakeSource, no_aws


def test_answers_for_all_flags():
    """For every name of a configuration, the flags are the test's."""
    rules = {"_variants": [
        {"name": "seven", "enabled": True, "rule": "(eq $n 7)"},
        {"name": "rest", "enabled": False},
    ]}  # fmt: skip
    flags, others = Flags("a", "b", "c"), Flags("x", "y", "z")
    with FakeFlags({"on": True, "off": False, "n": {"enabled": True, "limit": 5},
                    "rules": rules}):  # fmt: skip
        assert [True, False] == [flags.enabled("on"), others.enabled("off")]
        assert 5 == flags.attribute("n", "limit")
        assert "seven" == flags.evaluate("rules", {"n": 7}).variant
        with pytest.raises(UnknownFlagError):
            flags.enabled("none")


def test_change_is_seen_by_the_next_read():
    """No read waits for a poll in a test."""
    flags = Flags("a", "b", "c")
    heard = []
    with FakeFlags({"on": False}) as fake:
        flags.on_change(lambda handle: heard.append(handle.version))
        seen = [flags.enabled("on")]
        fake.set("on", True)
        seen.append(flags.enabled("on"))
        fake.remove("on")
        seen.append(
            flags.enabled("on", default=None) if "on" in flags.names() else None
        )

    assert [False, True, None] == seen
    assert ["2", "3"] == heard


def test_doubles_nest():
    """Leaving one puts back the one before; secrets have their own double."""
    flags, secret = Flags("a", "b", "c"), Secret("db")
    with FakeSource({"db": "x"}), FakeFlags({"on": True}):
        with FakeFlags({"on": False}):
            assert not flags.enabled("on")
            assert "x" == secret.value
        assert flags.enabled("on")
        assert "x" == secret.value


def test_nothing_leaves_the_process():
    """Inside no_aws() a flag is asked from nowhere but a double."""
    flags = Flags("a", "b", "c")
    with no_aws():
        with pytest.raises(ConfigurationError, match="'a/b/c'"):
            flags.enabled("on")
        with pytest.raises(ConfigurationError, match="'a/b/c'"):  # no default hides it
            flags.enabled("on", default=False)
        with pytest.raises(ConfigurationError, match="'a/b/c'"):
            flags.attribute("on", "color", default="red")
        with FakeFlags({"on": True}):
            assert flags.enabled("on")


def test_double_of_one_handle():
    """As source= it answers for one handle only."""
    one = Flags("a", "b", "c", source=FakeFlags({"on": True}))
    with FakeFlags({"on": False}):
        assert one.enabled("on")
        assert not Flags("a", "b", "c").enabled("on")


def test_configurations():
    """A configuration is text as it is, and anything else as JSON."""
    with FakeFlags(configurations={"a/b/c": "5", "a/b/d": {"n": [1]}}) as fake:
        assert 5 == Configuration("a", "b", "c", transform=int).value
        assert {"n": [1]} == Configuration("a", "b", "d", transform="json").value
        fake.configure("a/b/c", "6")
        assert 6 == Configuration("a", "b", "c", transform=int).value


@pytest.mark.logs
def test_failure():
    """A test can see what its code does without flags."""
    flags = Flags("a", "b", "c")
    with FakeFlags({"on": True}) as fake:
        fake.fail(SourceError("no", transient=True))
        with pytest.raises(SourceError):
            flags.enabled("on")
        assert not flags.enabled("on", default=False)
        fake.recover()
        assert flags.enabled("on")
    assert 1 == lambda_ext.stats().flags.defaults["on"]


def test_repr_holds_no_value():
    """Only the number of flags is shown."""
    assert "<FakeFlags with 1 flag(s)>" == repr(FakeFlags({"on": {"k": "secret"}}))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["on"], r"FakeFlags takes a dictionary by name, .* not list"),
        ({"on": 5}, r"the flag 'on' is True, False or a dictionary .* not int"),
        ({"on": None}, "not NoneType"),
        ({5: True}, "the name of a flag is text, not int"),
    ],
)
def test_what_is_no_flag_is_refused(flags, said):
    """Where the test says so, not where the handler reads it."""
    with pytest.raises(TypeError, match=said):
        FakeFlags(flags)
    if isinstance(flags, dict):
        fake = FakeFlags()
        with pytest.raises(TypeError, match=said):
            fake.set(*next(iter(flags.items())))


def test_configurations_are_by_name():
    """A list of them is refused, as one of flags."""
    with pytest.raises(TypeError, match=r"configurations=.* takes a dictionary"):
        FakeFlags(configurations=["a/b/c"])


def test_default_by_position_is_named():
    """The second argument is the context; the message says how a default is given."""
    with (
        FakeFlags({"on": True}),
        pytest.raises(
            ConfigurationError, match=r"not bool; a default is given by name"
        ),
    ):
        Flags("a", "b", "c").enabled("on", False)
