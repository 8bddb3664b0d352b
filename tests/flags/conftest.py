"""AppConfig's data plane on loopback, by the clock of the test."""

from __future__ import annotations

import pytest

from lambda_ext.local.appconfig import AppConfigPlayer
from lambda_ext.local.server import Server
from lambda_ext.values import store


@pytest.fixture(name="appconfig")
def _appconfig(time, monkeypatch):
    """The local AppConfig, behind a real socket, with the test's clock."""
    player = AppConfigPlayer(clock=time.wall)
    server = Server(player.answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL_APPCONFIGDATA", f"http://{server.address}")
    monkeypatch.setattr("lambda_ext.aws.retries.sleep", time.advance)
    yield player
    server.close()


class Background:
    """The worker, which runs when the test says so."""

    def __init__(self):
        self.woken = 0

    def wake(self):
        """Note that a read found something due."""
        self.woken += 1

    def run(self):
        """Refresh what is due, if a read asked for it; return whether it did."""
        woken, self.woken = self.woken, 0
        if woken:
            store.loader.refresh_due()
        return bool(woken)

    def close(self):
        """Do what the loader's reset asks for."""

    forked = close


@pytest.fixture(name="background")
def _background(monkeypatch):
    """The background refresh, in the hands of the test."""
    background = Background()
    monkeypatch.setattr(store.loader, "worker", background)
    return background
