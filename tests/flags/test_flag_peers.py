"""What goes wrong with AppConfig in Powertools for Python and in middy, by name."""

from __future__ import annotations

import json

import pytest
from helpers import run_threads

import lambda_ext
from lambda_ext import Flags
from lambda_ext.exceptions import SourceError

ON = json.dumps({"on": {"enabled": True}})
OFF = json.dumps({"on": {"enabled": False}})


@pytest.fixture(autouse=True)
def _light(appconfig, background):
    """Over the light client, with the background in the test's hands."""
    lambda_ext.configure(transport="light")


def test_dead_token_is_replaced(appconfig, time, background):
    """Powertools and middy fail for ever once their token has expired."""
    appconfig.deploy("a/b/c", ON)
    flags = Flags("a", "b", "c", max_stale=None)
    flags.enabled("on")
    appconfig.deploy("a/b/c", OFF)
    time.freeze(25 * 3600)
    flags.enabled("on")
    background.run()

    assert not flags.enabled("on")


def test_first_application_and_environment_do_not_win(appconfig):
    """Powertools asks the first call's application and environment for all."""
    appconfig.deploy("shop/dev/c", ON)
    appconfig.deploy("shop/prod/c", OFF)
    appconfig.deploy("other/dev/c", OFF)

    assert [True, False, False] == [
        Flags(application, environment, "c").enabled("on")
        for application, environment in (
            ("shop", "dev"),
            ("shop", "prod"),
            ("other", "dev"),
        )
    ]


def test_empty_first_document_is_said_in_words(appconfig):
    """Powertools raises a KeyError in disguise."""
    appconfig.deploy("a/b/c", "")

    with pytest.raises(SourceError, match="'a/b/c' is empty"):
        Flags("a", "b", "c").enabled("on")


def test_one_bad_flag_breaks_no_other(appconfig):
    """Powertools validates the whole document for each flag."""
    appconfig.deploy("a/b/c", json.dumps({"on": {"enabled": True}, "bad": "x"}))
    flags = Flags("a", "b", "c")

    assert flags.enabled("on")
    assert "ERROR" == flags.evaluate("bad").reason


def test_native_document_is_understood(appconfig):
    """Powertools refuses AppConfig's own form of flags."""
    appconfig.deploy_flags("a/b/c", {"on": {"enabled": True, "color": "red"}})

    assert "red" == Flags("a", "b", "c").attribute("on", "color")


def test_token_is_never_sent_twice(appconfig, time, background):
    """Powertools reads, uses and writes its single-use token without a lock."""
    appconfig.deploy("a/b/c", ON)
    flags = Flags("a", "b", "c")
    for _ in range(3):
        results = run_threads(8, lambda _: flags.enabled("on"))
        assert [True] * 8 == results
        flags.invalidate()
        time.advance(60)

    assert {200, 201} == {status for _, _, status in appconfig.calls}


@pytest.mark.logs
def test_failure_serves_the_last_document_not_the_default(appconfig, time, background):
    """Powertools returns the caller's default although it had a good copy."""
    appconfig.deploy("a/b/c", ON)
    flags = Flags("a", "b", "c")
    flags.enabled("on")
    appconfig.fail(500, "InternalServerException", times=1000)
    time.advance(300)

    assert flags.enabled("on", default=False)
    background.run()
    assert flags.enabled("on", default=False)
    assert {} == lambda_ext.stats().flags.defaults


def test_interval_and_label_are_heeded(appconfig, time, background):
    """Powertools ignores VersionLabel and NextPollIntervalInSeconds."""
    appconfig.interval_s = 600
    appconfig.deploy("a/b/c", ON, label="v7")
    flags = Flags("a", "b", "c")
    for _ in range(9):
        flags.enabled("on")
        background.run()
        time.advance(60)

    assert "v7" == flags.version
    assert 1 == appconfig.operations().count("GetLatestConfiguration")
