"""Options: per handle, by configure(), by our variables, by those of others."""

from __future__ import annotations

import pytest

from lambda_ext import config
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.testing import FakeClock, FakeSource
from lambda_ext.values import keys, settings, store
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.settings import DEFAULT


def max_age(operation=keys.SECRET):
    return settings.max_age_of(operation, DEFAULT, "x")


class TestOrder:
    """Which of several says it."""

    def test_default_is_five_minutes(self):
        """As in Powertools and in AWS's layer."""
        assert 300.0 == max_age()
        assert 3600.0 == settings.max_stale_of(DEFAULT, "x")

    def test_argument_comes_first(self, monkeypatch):
        """Then configure(), our variable, AWS's, Powertools'."""
        monkeypatch.setenv("POWERTOOLS_PARAMETERS_MAX_AGE", "5")
        assert 5.0 == max_age()

        config.reset()
        monkeypatch.setenv("SECRETS_MANAGER_TTL", "60")
        monkeypatch.setenv("SSM_PARAMETER_STORE_TTL", "70")
        assert (60.0, 70.0) == (max_age(), max_age(keys.PARAMETER))
        assert 70.0 == max_age(keys.PATH)

        config.reset()
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", "80")
        assert 80.0 == max_age()

        config.configure(max_age=90)
        assert 90.0 == max_age()
        assert 10.0 == settings.max_age_of(keys.SECRET, 10, "x")
        assert settings.max_age_of(keys.SECRET, None, "x") is None

    def test_handles_follow_their_services(self, monkeypatch):
        """The layer's two variables mean secrets and parameters."""
        monkeypatch.setenv("SECRETS_MANAGER_TTL", "60")
        monkeypatch.setenv("SSM_PARAMETER_STORE_TTL", "70")
        with FakeSource():
            assert 60.0 == Secret("x")._bind().max_age
            assert 70.0 == Parameter("/x")._bind().max_age
            assert 5.0 == Parameter("/x", max_age=5)._bind().max_age


class TestRange:
    """Ours are refused, those of others are clamped."""

    @pytest.mark.parametrize("value", ["-1", "soon", "nan", "inf"])
    def test_bad_variable_of_ours_names_itself_and_the_range(self, monkeypatch, value):
        """It was set for this library, so the error is raised."""
        monkeypatch.setenv("LAMBDA_EXT_MAX_AGE", value)
        with (
            FakeSource({"x": "1"}),
            pytest.raises(ConfigurationError, match=r"LAMBDA_EXT_MAX_AGE.*seconds"),
        ):
            get_secret("x")

    @pytest.mark.logs
    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("SECRETS_MANAGER_TTL", "9999", 300.0),
            ("SECRETS_MANAGER_TTL", "-5", 0.0),
            ("SECRETS_MANAGER_TTL", "soon", 300.0),
            ("POWERTOOLS_PARAMETERS_MAX_AGE", "-5", 0.0),
        ],
    )
    def test_bad_variable_of_others_is_clamped_with_one_warning(
        self, monkeypatch, caplog, name, value, expected
    ):
        """It was set for another tool, which may accept it."""
        monkeypatch.setenv(name, value)

        assert [expected] * 3 == [max_age() for _ in range(3)]
        config.configure(service="x")
        assert expected == max_age()
        assert 1 == caplog.text.count(name)

    @pytest.mark.parametrize("value", ["-1", "0.5", "many", True, 10**9])
    def test_cache_size_is_a_whole_number(self, value):
        """Half an entry is none."""
        with pytest.raises(
            ConfigurationError, match=r"cache_size.*whole number from 0"
        ):
            config.configure(cache_size=value)

    @pytest.mark.parametrize("value", ["ftp", "file:", 3, None])
    def test_source_is_one_of_three(self, value):
        """A misspelt source is not silently AWS."""
        with pytest.raises(ConfigurationError, match="'aws', 'aws_extension' or"):
            config.configure(source=value)


class TestOthers:
    """What AWS's layer and Powertools call it."""

    @pytest.mark.parametrize(
        ("name", "value", "entries"),
        [
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED", "FALSE", 0),
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED", "TRUE", 3),
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_SIZE", "0", 0),
            ("PARAMETERS_SECRETS_EXTENSION_CACHE_SIZE", "2", 2),
            ("LAMBDA_EXT_CACHE", "off", 0),
            ("LAMBDA_EXT_CACHE_SIZE", "1", 1),
        ],
    )
    def test_cache_switch_and_size(self, monkeypatch, name, value, entries):
        """The layer's switch and size hold for us."""
        monkeypatch.setenv(name, value)
        with FakeSource({"a": "1", "b": "2", "c": "3"}):
            for each in "abc":
                get_secret(each)

            assert entries == len(store.secrets)

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "false", False),
            ("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "true", True),
            ("LAMBDA_EXT_DECRYPT", "0", False),
            ("UNSET", "", True),
        ],
    )
    def test_decrypt(self, monkeypatch, name, value, expected):
        """True by default; Powertools' default is False."""
        monkeypatch.setenv(name, value)
        seen = []
        with FakeSource({"/a": "1"}) as source:
            plan = source.plan
            source.plan = lambda wanted: (seen.extend(wanted), plan(wanted))[1]
            get_parameter("/a")

            assert [expected] == [key.decrypt for key in seen]
            assert "1" == get_parameter("/a", decrypt=not expected)
            assert 2 == len(seen)

    @pytest.mark.parametrize(
        ("name", "operation", "value", "expected"),
        [
            ("SECRETS_MANAGER_TIMEOUT_MILLIS", keys.SECRET, "1500", 1.5),
            ("SECRETS_MANAGER_TIMEOUT_MILLIS", keys.SECRET, "0", None),
            ("SSM_PARAMETER_STORE_TIMEOUT_MILLIS", keys.PATH, "250", 0.25),
            ("LAMBDA_EXT_LOAD_TIMEOUT", keys.SECRET, "2", 2.0),
            ("UNSET", keys.SECRET, "", None),
        ],
    )
    def test_time_out(self, monkeypatch, name, operation, value, expected):
        """Milliseconds there, seconds here; 0 is no limit in both."""
        monkeypatch.setenv(name, value)

        assert expected == settings.timeout_of(operation)

    def test_time_out_reaches_the_source(self, monkeypatch):
        """A source is told how long it may take."""
        monkeypatch.setenv("SECRETS_MANAGER_TIMEOUT_MILLIS", "1500")
        told = []
        with FakeClock(), FakeSource({"a": "1"}) as source:
            fetch = source.fetch
            source.fetch = lambda keys, left: (told.append(left), fetch(keys, left))[1]
            get_secret("a")

        assert [pytest.approx(1.5)] == told


class TestSource:
    """Which source is asked."""

    def test_option_chooses_a_file(self, tmp_path):
        """Values for development come from a file."""
        path = tmp_path / "values.json"
        path.write_text('{"a": "1"}')
        config.configure(source=f"file:{path}")

        assert "1" == get_secret("a")
        assert "<LocalFile" in repr(store.source_of(keys.SECRET))

    def test_option_chooses_the_layer(self):
        """AWS's layer is used only when it is asked for."""
        config.configure(source="aws_extension")

        assert "<AwsExtension localhost:2773>" == repr(store.source_of(keys.SECRET))

    def test_change_of_the_option_counts_at_once(self, tmp_path):
        """configure() after a first read chooses for the next."""
        paths = [tmp_path / "one.json", tmp_path / "two.json"]
        handle = Secret("a")
        for number, path in enumerate(paths):
            path.write_text(f'{{"a": "{number}"}}')
            config.configure(source=f"file:{path}")
            assert (str(number), str(number)) == (get_secret("a"), handle.value)
