"""The end of an environment: who gets which signal, and how much time."""

from __future__ import annotations

import json
import signal

import pytest
from emulated import EXTENSIONS, children, emulate, process, states, texts
from helpers import eventually

from lambda_ext.local.emulator import Budgets

pytestmark = process

PATIENT = Budgets(internal_s=30.0, external_s=30.0, external_share_s=30.0)
NONE, INTERNAL, EXTERNAL = {}, {"EXTENSION": "[]"}, {"EVENTS": '["SHUTDOWN"]'}


class TestBudget:
    """The Shutdown phase follows from who is registered."""

    @pytest.mark.parametrize(
        ("env", "init_type", "expected"),
        [
            (NONE, "on-demand", (0.0, 0.0)),
            (INTERNAL, "on-demand", (0.5, 0.5)),
            (EXTERNAL, "on-demand", (2.0, 0.3)),
            ({**INTERNAL, **EXTERNAL}, "on-demand", (2.0, 0.5)),
            (INTERNAL, "lambda-managed-instances", (2.0, 0.6)),
            (NONE, "lambda-managed-instances", (0.0, 0.0)),
        ],
        ids=["none", "internal", "external", "both", "instances", "instances, none"],
    )
    def test_is_chosen_by_registration(self, env, init_type, expected):
        """0, 500 or 2,000 ms, of which the runtime has 0, 500, 300 or 600."""
        folder = EXTENSIONS if "EVENTS" in env else None
        one = 1 if init_type == "lambda-managed-instances" else None
        with emulate(
            env=env, init_type=init_type, extensions_dir=folder, max_concurrency=one
        ) as emulator:
            emulator.init()
            end = emulator.shutdown()

            assert (end.budget_s, end.share_s) == expected
            assert end.signalled is (expected != (0.0, 0.0))

    def test_share_can_be_a_fraction(self):
        """With share=0.3 the runtime gets 30 % of the phase."""
        budgets = Budgets(share=0.3)
        total = budgets.shutdown(internal=True, external=True, instances=False)

        assert total == (2.0, pytest.approx(0.6))
        with emulate(env=INTERNAL, budgets=budgets) as emulator:
            emulator.init()

            assert emulator.shutdown().share_s == pytest.approx(0.15)


class TestRuntime:
    """The runtime's part of the end."""

    def test_without_extensions_is_killed_at_once(self):
        """No extension registered: SIGKILL, and no handler of SIGTERM runs."""
        with emulate(env={"ON_TERM": "exit"}) as emulator:
            emulator.invoke({})
            end = emulator.shutdown()

            assert (False, True) == (end.signalled, end.killed)
            assert end.exit_status == -signal.SIGKILL
            assert not any("SIGTERM" in text for text in texts(emulator))

    def test_gets_sigterm_while_idle(self):
        """A frozen runtime is thawed and told, and ends by itself."""
        env = {**INTERNAL, "ON_TERM": "exit"}
        with emulate(env=env, budgets=PATIENT) as emulator:
            emulator.invoke({})
            emulator.wait_frozen()
            end = emulator.shutdown("failure")

            assert ("failure", 0) == (end.reason, end.exit_status)
            assert (True, False) == (end.signalled, end.killed)
            assert texts(emulator)[-1].startswith("SIGTERM")

    def test_may_get_sigterm_before_the_thaw(self):
        """With term_before_thaw the signal is pending when the process goes on."""
        env = {**INTERNAL, "ON_TERM": "exit"}
        with emulate(env=env, budgets=PATIENT, term_before_thaw=True) as emulator:
            emulator.init()
            end = emulator.shutdown()

            assert (0, True, False) == (end.exit_status, end.signalled, end.killed)

    def test_is_not_frozen_once_the_end_has_begun(self):
        """No freeze follows the thaw that precedes SIGTERM."""
        with emulate() as emulator:
            emulator.init()
            emulator.thaw()
            emulator._environment.end()
            emulator.freeze()

            assert not emulator.frozen
            assert "T" not in states(emulator.pid)

    def test_without_a_handler_of_sigterm_just_dies(self):
        """SIGTERM keeps its default action in awslambdaric."""
        with emulate(env=INTERNAL, budgets=PATIENT) as emulator:
            emulator.init()
            end = emulator.shutdown()

            assert (end.exit_status, end.killed) == (-signal.SIGTERM, False)

    def test_that_lingers_is_killed(self):
        """A runtime that does not end within its share gets SIGKILL."""
        env = {**INTERNAL, "ON_TERM": "linger"}
        with emulate(env=env, budgets=Budgets(internal_s=0.5)) as emulator:
            emulator.init()
            end = emulator.shutdown()

            assert (end.exit_status, end.killed) == (-signal.SIGKILL, True)

    def test_that_lingers_costs_external_extensions_only_its_share(self):
        """After the runtime was killed, the extensions still have their time."""
        env = {**INTERNAL, **EXTERNAL, "ON_TERM": "linger"}
        budgets = Budgets(internal_s=0.5, external_s=30.0)
        with emulate(env=env, budgets=budgets, extensions_dir=EXTENSIONS) as emulator:
            emulator.init()
            end = emulator.shutdown()

            assert end.killed
            (outer,) = end.extensions
            assert (True, False, 0) == (outer.notified, outer.killed, outer.exit_status)

    def test_children_share_its_signals(self):
        """SIGTERM goes to the whole group, so that a subprocess ends as well."""
        env = {**INTERNAL, "ON_TERM": "exit"}
        with emulate(env=env, budgets=PATIENT) as emulator:
            emulator.invoke({"do": "child"})
            emulator.wait_for_line("child")
            (child,) = children(emulator.pid)
            end = emulator.shutdown()

            assert (0, False) == (end.exit_status, end.killed)
            assert eventually(lambda: ended(child))

    def test_children_are_killed_with_it(self):
        """What is left of the group when the share is over is killed."""
        with emulate() as emulator:
            emulator.invoke({"do": "child"})
            emulator.wait_for_line("child")
            (child,) = children(emulator.pid)
            emulator.shutdown()

            assert eventually(lambda: ended(child))

    def test_child_that_left_the_group_holds_nothing_up(self):
        """A daemon that keeps the pipes open keeps no shutdown() waiting, and ends."""
        with emulate() as emulator:
            emulator.invoke({"do": "child", "options": {"start_new_session": True}})
            emulator.wait_for_line("child")
            (child,) = children(emulator.pid)
            end = emulator.shutdown()

            assert end.exit_status == -signal.SIGKILL
            assert ended(child)


def ended(pid):
    """Return whether a process is gone, or a zombie that its parent ignores."""
    try:
        return states(pid) <= {"Z", "X"}
    except FileNotFoundError:
        return True


class TestExtensions:
    """The external extensions' part of the end."""

    def test_subscriber_is_told_reason_and_deadline(self):
        """SHUTDOWN carries the reason and when the phase is over."""
        with emulate(
            env=EXTERNAL, budgets=PATIENT, extensions_dir=EXTENSIONS
        ) as emulator:
            answer = emulator.invoke({})
            end = emulator.shutdown("spindown")
            got = [t for t in texts(emulator, "outer") if t.startswith("got")]
            (event,) = (json.loads(text.partition(" ")[2]) for text in got)

            assert {"eventType", "deadlineMs", "shutdownReason"} == event.keys()
            assert "spindown" == event["shutdownReason"]
            left = event["deadlineMs"] / 1000 - answer.value["now"]
            assert 0 < left < 60
            (outer,) = end.extensions
            assert ("outer", True) == (outer.name, outer.notified)
            assert (0, False) == (outer.exit_status, outer.killed)

    def test_runtime_ends_before_extensions_are_told(self):
        """First the runtime is gone, then the extensions get SHUTDOWN."""
        env = {**INTERNAL, **EXTERNAL, "ON_TERM": "exit"}
        with emulate(env=env, budgets=PATIENT, extensions_dir=EXTENSIONS) as emulator:
            emulator.init()
            emulator.shutdown()
            words = [text.split()[0] for text in texts(emulator)]

            assert words.index("SIGTERM") < words.index("got")

    @pytest.mark.parametrize("events", ["[]", '["INVOKE"]'])
    def test_without_a_subscription_is_killed_at_once(self, events):
        """An extension that did not ask for SHUTDOWN gets no event and no time."""
        with emulate(
            env={"EVENTS": events}, budgets=PATIENT, extensions_dir=EXTENSIONS
        ) as emulator:
            emulator.init()
            (outer,) = emulator.shutdown().extensions

            assert (False, True) == (outer.notified, outer.killed)
            assert outer.exit_status == -signal.SIGKILL

    def test_that_lingers_is_killed_at_the_end(self):
        """A subscriber that does not end is killed when the phase is over."""
        with emulate(
            env={**EXTERNAL, "LINGER": "1"},
            budgets=Budgets(external_s=1.0),
            extensions_dir=EXTENSIONS,
        ) as emulator:
            emulator.init()
            (outer,) = emulator.shutdown().extensions

            assert (True, True) == (outer.notified, outer.killed)
            assert outer.exit_status == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("event", "reason"),
        [({"do": "exit", "status": 1}, "failure"), ({"do": "sleep"}, "timeout")],
    )
    def test_reset_names_its_reason(self, event, reason):
        """A crash shuts extensions down as failure, a time-out as timeout."""
        with emulate(
            env=EXTERNAL, budgets=PATIENT, extensions_dir=EXTENSIONS, timeout_s=1
        ) as emulator:
            emulator.invoke(event)
            emulator.wait_frozen()

            assert f'"shutdownReason": "{reason}"' in texts(emulator, "outer")[-1]
