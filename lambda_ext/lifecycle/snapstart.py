"""
SnapStart: what happens before a snapshot is taken, and after it is restored.

    import of the handler ─▶ SNAPSHOT ─▶ [ snapshot ... restore ] ─▶ RESTORE

One snapshot serves many execution environments, months later perhaps: what was
drawn, signed, connected or fetched before it is shared by all, and stale.

Lambda's runtime client calls the hooks of `snapshot_restore_py`, which comes
with it; elsewhere, and for every other way of initialisation, nothing here
does anything.  That package calls *before* hooks in reverse order of
registration, hence ours late, and *after* hooks in order, hence ours early.
Raising in one ends INIT or the restore; in ours, it is logged and counted.

Source: "Implement code before or after Lambda function snapshots",
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

from .. import config
from . import clock, phases, process

_installed = False


def install() -> None:
    """Hook into the snapshot, where there will be one; once per process."""
    global _installed
    if _installed or not config.in_snapstart():
        return
    _installed = True
    _hook()


def _hook() -> None:
    import contextlib

    with contextlib.suppress(ImportError):  # a runtime client without SnapStart
        import snapshot_restore_py  # 3 ms, and only under SnapStart

        snapshot_restore_py.register_before_snapshot(_before)
        snapshot_restore_py.register_after_restore(_after)


def _before() -> None:
    phases.call(phases.SNAPSHOT)


def _after() -> None:
    clock.restored()
    phases.call(phases.RESTORE)


@process.at_reset
def reset() -> None:
    """Forget that anything was hooked, as if this were just imported."""
    global _installed
    _installed = False
