"""The options of flags, and the variables of AppConfig's extension."""

from __future__ import annotations

import datetime

import pytest

import lambda_ext
from lambda_ext import config
from lambda_ext.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("variable", "raw", "option", "expected"),
    [
        ("POLL_INTERVAL_SECONDS", "90", "poll_interval", 90.0),
        ("POLL_TIMEOUT_MILLIS", "1500", "poll_timeout", 1.5),
        ("SERVICE_REGION", "eu-west-1", "appconfig_region", "eu-west-1"),
        ("HTTP_PORT", "3000", "agent_port", 3000),
        ("PREFETCH_LIST", "A:E:P", "flags_prefetch", ("A/E/P",)),
    ],
)
def test_variable_of_the_extension(monkeypatch, variable, raw, option, expected):
    """Each means what it means to AppConfig's extension; ours comes first."""
    monkeypatch.setenv(f"AWS_APPCONFIG_EXTENSION_{variable}", raw)
    assert expected == config.get(option)
    config.reset()
    ours = {"appconfig_region": "us-east-1", "flags_prefetch": "x/y/z"}.get(option, "7")
    monkeypatch.setenv(config.OPTIONS[option].env, ours)

    assert expected != config.get(option)


@pytest.mark.logs
@pytest.mark.parametrize(
    ("variable", "raw", "option"),
    [
        ("POLL_INTERVAL_SECONDS", "soon", "poll_interval"),
        ("POLL_INTERVAL_SECONDS", "0", "poll_interval"),
        ("POLL_TIMEOUT_MILLIS", "never", "poll_timeout"),
        ("SERVICE_REGION", "evil.example/", "appconfig_region"),
        ("HTTP_PORT", "0", "agent_port"),
        ("HTTP_PORT", "x", "agent_port"),
        ("PREFETCH_LIST", "just-one", "flags_prefetch"),
    ],
)
def test_bad_variable_of_the_extension_is_ignored(
    monkeypatch, caplog, variable, raw, option
):
    """It was set for AppConfig's extension: one warning, and the default."""
    monkeypatch.setenv(f"AWS_APPCONFIG_EXTENSION_{variable}", raw)

    assert config.OPTIONS[option].default == config.get(option)
    assert variable in caplog.text


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("poll_interval", datetime.timedelta(minutes=2), 120.0),
        ("poll_interval", "1h", 3600.0),
        ("poll_interval", None, None),
        ("poll_timeout", 0, 0.0),
        ("flags", "a/b/c", "a/b/c"),
        ("flags_source", "agent", "agent"),
        ("flags_prefetch", ["a/b/c", "x:y:z"], ("a/b/c", "x/y/z")),
        ("flags_prefetch", "", ()),
        ("agent_port", "2772", 2772),
    ],
)
def test_option_is_taken(option, given, expected):
    """Each option takes what it says, also from code."""
    lambda_ext.configure(**{option: given})

    assert expected == config.get(option)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("poll_interval", 0),
        ("poll_interval", "5 minutes"),
        ("poll_timeout", -1),
        ("flags", "a/b"),
        ("flags", 5),
        ("flags_source", "extension"),
        ("flags_source", "file:"),
        ("flags_prefetch", "a/b"),
        ("flags_prefetch", [5]),
        ("flags_prefetch", 5),
        ("agent_port", 0),
        ("agent_port", 65_536),
        ("appconfig_region", "Frankfurt"),
    ],
)
def test_option_is_refused(option, given):
    """What cannot be used is refused, with what the option means."""
    with pytest.raises(ConfigurationError) as caught:
        lambda_ext.configure(**{option: given})

    assert config.OPTIONS[option].meaning in str(caught.value)
