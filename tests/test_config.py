"""Options: where a value comes from, and what is said when it is bad."""

from __future__ import annotations

import datetime
import math

import pytest

import lambda_ext
from lambda_ext import config
from lambda_ext.config import Fallback
from lambda_ext.exceptions import ConfigurationError


class TestGet:
    """The order of precedence."""

    def test_default_without_anything(self):
        """An option that is not set has its default."""
        assert 300.0 == config.get("max_age")

    def test_environment_beats_default(self, monkeypatch):
        """The variable of this library is read when first needed."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "60")

        assert 60.0 == config.get("max_age")

    def test_configure_beats_environment(self, monkeypatch):
        """Code beats the environment."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "60")
        lambda_ext.configure(max_age=datetime.timedelta(minutes=2))

        assert 120.0 == config.get("max_age")

    def test_own_variable_beats_fallback(self, monkeypatch):
        """Another tool's variable counts only where ours is not set."""
        monkeypatch.setenv("POWERTOOLS_PARAMETERS_MAX_AGE", "5")
        assert 5.0 == config.get("max_age")
        config.reset()
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "60")

        assert 60.0 == config.get("max_age")

    def test_fallback_of_the_caller_comes_first(self, monkeypatch):
        """A variable that means this option to one caller is its own."""
        monkeypatch.setenv("POWERTOOLS_PARAMETERS_MAX_AGE", "5")
        monkeypatch.setenv("SOME_TTL_MILLIS", "7000")

        assert 7.0 == config.get("max_age", Fallback("SOME_TTL_MILLIS", scale=0.001))
        assert 5.0 == config.get("max_age")

    def test_value_is_remembered_until_reset(self, monkeypatch):
        """The environment is read once."""
        assert 300.0 == config.get("max_age")
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "60")
        assert 300.0 == config.get("max_age")
        config.reset()

        assert 60.0 == config.get("max_age")

    def test_none_means_without_limit(self, monkeypatch):
        """The word "none" and None mean for ever."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "None")

        assert config.get("max_age") is None

    @pytest.mark.parametrize("raw", ["", "   "])
    def test_empty_variable_is_not_set(self, monkeypatch, raw):
        """A variable that is set to nothing counts as not set."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", raw)

        assert 300.0 == config.get("max_age")

    @pytest.mark.logs
    @pytest.mark.parametrize(
        ("raw", "expected"), [("-5", 0.0), ("900", 300.0), ("five", 300.0)]
    )
    def test_bad_fallback_never_raises(self, monkeypatch, caplog, raw, expected):
        """It was set for another tool: clamped or ignored, with one warning."""
        monkeypatch.setenv("OTHER_TTL", raw)

        for _ in range(3):
            config._resolved.clear()
            assert expected == config.get("max_age", Fallback("OTHER_TTL", high=300))

        assert 1 == len(caplog.records)
        assert "OTHER_TTL" in caplog.text

    @pytest.mark.parametrize(
        ("variable", "raw", "option", "expected"),
        [
            ("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "1", "decrypt", True),
            ("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "0", "decrypt", False),
            ("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "N", "decrypt", False),
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED", "1", "cache", True),
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED", "f", "cache", False),
            ("POWERTOOLS_SERVICE_NAME", "007", "service", "007"),
            ("POWERTOOLS_METRICS_NAMESPACE", "2024", "namespace", "2024"),
        ],
    )
    def test_digits_are_a_number_only_where_one_is_meant(
        self, monkeypatch, variable, raw, option, expected
    ):
        """A switch that says "1" is on, and a name of digits stays a name."""
        monkeypatch.setenv(variable, raw)

        assert expected == config.get(option)

    def test_change_during_a_look_up_is_not_lost(self, monkeypatch):
        """What is looked up while another thread configures is not remembered."""
        resolve = config._resolve

        def interrupted(*args):
            value = resolve(*args)
            monkeypatch.setattr(config, "_resolve", resolve)
            lambda_ext.configure(max_age=9)
            return value

        monkeypatch.setattr(config, "_resolve", interrupted)

        assert 300.0 == config.get("max_age")
        assert 9.0 == config.get("max_age")


class TestMisspelt:
    """Variables that look like ours."""

    @pytest.mark.logs
    def test_misspelt_variable_is_told_once(self, monkeypatch, caplog):
        """What would be ignored in silence is named, with the right spelling."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AEG", "5")

        config.get("max_age")
        config.get("strict")

        (record,) = caplog.records
        assert "LAMBDA_EXT_MAX_AEG" in record.getMessage()
        assert "did you mean LAMBDA_EXT_MAX_AGE?" in record.getMessage()

    def test_every_known_variable_is_known(self, monkeypatch):
        """No option of ours is taken for a misspelling."""
        for option in config.OPTIONS.values():
            monkeypatch.setenv(option.env, "")

        config.get("max_age")

        assert config._warned == set()


class TestConfigure:
    """What configure() refuses, and how."""

    @pytest.mark.parametrize(
        "bad",
        [-1, math.nan, math.inf, 10**400, "soon", True, [1], b"5", bytearray(b"5")],
    )
    def test_bad_seconds_are_refused(self, bad):
        """The error names the option, its range and its meaning."""
        with pytest.raises(ConfigurationError, match=r"configure\(max_age=.*seconds"):
            lambda_ext.configure(max_age=bad)

    def test_unknown_option_names_the_nearest(self):
        """A misspelling is answered with the right spelling."""
        with pytest.raises(ConfigurationError, match="did you mean 'max_age'"):
            lambda_ext.configure(maxage=5)

    def test_option_like_nothing_lists_all(self):
        """A name that resembles none is answered with all of them."""
        with pytest.raises(ConfigurationError, match="known: max_age, "):
            lambda_ext.configure(zzz=5)

    def test_nothing_is_set_when_one_is_bad(self):
        """Either all options of a call are taken or none."""
        with pytest.raises(ConfigurationError):
            lambda_ext.configure(max_age=5, strict="perhaps")

        assert 300.0 == config.get("max_age")

    def test_bad_variable_is_named(self, monkeypatch):
        """A bad LAMBDA_EXT_ variable is an error where it is first needed."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "-1")

        with pytest.raises(ConfigurationError, match=r"LAMBDA_EXT_MAX_AGE.*from 0"):
            config.get("max_age")

    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("1", True), ("TRUE", True), ("on", True), ("y", True), ("no", False),
            ("off", False), (1, True), (0, False), (True, True), (False, False),
        ],
    )  # fmt: skip
    def test_switches_understand_the_usual_words(self, word, expected):
        """A bool can be said in the usual ways."""
        lambda_ext.configure(strict=word)

        assert expected is config.get("strict")

    @pytest.mark.parametrize(
        ("option", "bad", "expected"),
        [
            ("strict", "", "true or false"),
            ("strict", 2, "true or false"),
            ("strict", None, "true or false"),
            ("cache", [], "true or false"),
            ("cache_size", b"3", "whole number from 0"),
            ("cache_size", True, "whole number from 0"),
            ("cache_size", 1.5, "whole number from 0"),
            ("cache_size", -1, "whole number from 0"),
            ("disable", "signal", "'extension' or 'signals'"),
            ("disable", 5, "'extension' or 'signals'"),
            ("disable", None, "'extension' or 'signals'"),
            ("disable", ["signals", 5], "'extension' or 'signals'"),
            ("namespace", "AWS/mine", "nor AWS/ in front"),
            ("namespace", 5, "text that is not blank"),
            ("service", " ", "text that is not blank"),
            ("source", [], "'file:PATH'"),
            ("source", "file:", "'file:PATH'"),
            ("transport", "boto", "'boto3'"),
        ],
    )
    def test_bad_value_is_refused_with_what_was_expected(self, option, bad, expected):
        """Each option says its name, what it takes and what it means."""
        before = config.get(option)

        with pytest.raises(ConfigurationError) as caught:
            lambda_ext.configure(**{option: bad})

        assert str(caught.value).startswith(f"configure({option}=...) cannot be used: ")
        assert expected in str(caught.value)
        assert str(caught.value).endswith(config.OPTIONS[option].meaning)
        assert before == config.get(option)

    def test_listeners_hear_of_changes(self):
        """A module that remembers an option is told when it may have changed."""
        heard = []
        config.watch(lambda: heard.append(config.get("max_age")))

        lambda_ext.configure(max_age=9)
        config._listeners.pop()

        assert [9.0] == heard


def test_every_option_can_be_configured_and_is_documented():
    """The table, the types and the docstring of configure() name the same."""
    import ast
    import inspect

    from lambda_ext import options as typed_options

    tree = ast.parse(inspect.getsource(typed_options))
    options = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == "Options"
    )
    typed = {node.target.id for node in options.body if isinstance(node, ast.AnnAssign)}

    documentation = inspect.cleandoc(config.configure.__doc__)

    assert set(config.OPTIONS) == typed
    for name, option in config.OPTIONS.items():
        assert f"\n    {name}: " in documentation, name
        assert option.env.startswith("LAMBDA_EXT_")
        assert option.meaning


@pytest.mark.parametrize("option", config.OPTIONS.values(), ids=config.OPTIONS)
def test_kind_of_an_option_is_a_parser(option):
    """The table names parsers that exist, which take the option's default."""
    assert option.default == config.parsed(option.kind, option.default)
