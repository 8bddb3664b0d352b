"""The hooks of SnapStart are wired where there will be a snapshot, else not."""

from __future__ import annotations

import sys

import pytest

import lambda_ext
from lambda_ext.lifecycle import clock, phases, snapstart


class Hooks:
    """What `snapshot_restore_py` offers."""

    def __init__(self):
        self.before = []
        self.after = []
        self.register_before_snapshot = self.before.append
        self.register_after_restore = self.after.append


@pytest.fixture(name="hooks")
def _hooks(monkeypatch):
    hooks = Hooks()
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", hooks)
    return hooks


def test_hooks_are_wired_once_under_snapstart(hooks, monkeypatch):
    """However many functions are decorated."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    lambda_ext.before_snapshot(lambda: None)
    lambda_ext.after_restore(lambda: None)
    snapstart.install()

    assert (1, 1) == (len(hooks.before), len(hooks.after))


@pytest.mark.parametrize("kind", ["on-demand", "provisioned-concurrency", None])
def test_nothing_is_wired_elsewhere(hooks, monkeypatch, kind):
    """Nor is the package imported, which costs 3 ms."""
    if kind is not None:
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", kind)
    lambda_ext.before_snapshot(lambda: None)

    assert ([], []) == (hooks.before, hooks.after)


def test_runtime_client_without_snapstart_is_no_error(monkeypatch):
    """An older one has no such package."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    seen = []
    lambda_ext.before_snapshot(lambda: seen.append(1))
    phases.call(phases.SNAPSHOT)

    assert [1] == seen


def test_restore_begins_a_new_generation_before_the_hooks(hooks, monkeypatch):
    """What the hooks load is of the new generation."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")
    seen = []
    lambda_ext.before_snapshot(lambda: seen.append(clock.generation))
    lambda_ext.after_restore(lambda: seen.append(clock.generation))
    hooks.before[0]()
    hooks.after[0]()

    assert seen[1] == seen[0] + 1


@pytest.mark.logs
def test_hook_that_raises_does_not_end_init(hooks, monkeypatch, caplog):
    """It is logged and counted."""
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")

    @lambda_ext.before_snapshot
    def bad():
        raise ValueError

    hooks.before[0]()

    assert 1 == phases.failures[phases.SNAPSHOT]
    assert 1 == len(caplog.records)
