"""Handles: declared together, loaded together, read where they are needed."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import weakref
from types import SimpleNamespace

import pytest
from helpers import eventually, loads_under_way, run_threads

import lambda_ext
from lambda_ext import config
from lambda_ext.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    DecodeError,
    NotFoundError,
    SourceError,
    ThrottledError,
)
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock, FakeSource
from lambda_ext.typing import Answer
from lambda_ext.values import store
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Parameter, Secret

VALUE = "hunter2-sentinel"
CLIENT = SimpleNamespace(meta=None, get_secret_value=print)


class Broken:
    """A source of which one *part* is broken."""

    name = "vault"

    def __init__(self, part):
        self.part = part

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "part"):
            raise AttributeError(VALUE)
        return object.__getattribute__(self, name)

    @property
    def scope(self):
        return [] if self.part == "hash" else "vault"

    at_init = True

    def plan(self, wanted):
        return [wanted]

    def fetch(self, wanted, timeout_s):
        return {key: Answer(VALUE) for key in wanted}


VALUES = {"db": '{"user": "me"}', "key": VALUE, "/size": "20", "/name": "n"}


class TestDeclared:
    """What is declared is loaded together."""

    def test_in_init(self, source):
        """One phase, one batch, and the first reads find everything."""
        handles = [Secret("db"), Secret("key"), Parameter("/size"), Parameter("/name")]
        assert [] == source.calls

        phases.call(phases.INIT)
        assert [("db", "key", "/size", "/name")] == source.calls
        assert ['{"user": "me"}', VALUE, "20", "n"] == [each.value for each in handles]
        assert 1 == len(source.calls)

    def test_at_the_first_read_of_any(self, source):
        """Without INIT, the first value loads them all."""
        db, key = Secret("db"), Secret("key")
        assert VALUE == key.value
        assert '{"user": "me"}' == db.value

        assert [("key", "db")] == source.calls

    def test_later_declarations_wait_for_the_next_first_read(self, source):
        """What is declared after INIT loads when something of it is read."""
        first = Secret("db")
        phases.call(phases.INIT)
        second, third = Secret("key"), Parameter("/size")
        first.value
        assert 1 == len(source.calls)

        second.value
        third.value
        assert [("db",), ("key", "/size")] == source.calls

    def test_duplicates_cost_nothing(self, source):
        """Handles of one secret with different transforms are one request."""
        one, other = Secret("db"), Secret("db", transform="json")
        phases.call(phases.INIT)

        assert ('{"user": "me"}', {"user": "me"}) == (one.value, other.value)
        assert [("db",)] == source.calls

    def test_error_surfaces_at_first_use_with_the_key(self, source):
        """INIT does not fail; the code that uses what could not be loaded, does."""
        good, bad = Secret("db"), Secret("nope")
        phases.call(phases.INIT)
        assert '{"user": "me"}' == good.value

        with pytest.raises(NotFoundError, match="'nope'"):
            bad.value
        assert 1 == len(source.calls)

    def test_lasting_error_costs_one_call(self, source):
        """What INIT was denied, the first use raises without asking again."""
        denied = AccessDeniedError("no", code="AccessDeniedException")
        source.fail(denied, name="db")
        db = Secret("db")
        phases.call(phases.INIT)

        with pytest.raises(AccessDeniedError) as raised:
            db.value
        assert denied in (raised.value, raised.value.__cause__.__cause__)
        assert 1 == len(source.calls)

        source.recover()
        assert '{"user": "me"}' == db.value

    def test_passing_error_is_tried_again_at_first_use(self, source):
        """An outage during INIT is not held against the first invocation."""
        source.fail(ThrottledError("too many", transient=True), times=1)
        db = Secret("db")
        phases.call(phases.INIT)

        assert '{"user": "me"}' == db.value

    def test_error_of_long_ago_is_tried_again(self, source, time):
        """A provisioned environment may wait for minutes before its first call."""
        source.fail(AccessDeniedError("no"), times=1)
        db = Secret("db")
        phases.call(phases.INIT)
        time.advance(60)

        assert '{"user": "me"}' == db.value

    def test_long_wait_before_the_first_invocation_ages_the_value(self, source, time):
        """What INIT loaded is aged like any value."""
        db = Secret("db")
        phases.call(phases.INIT)
        time.step(300)
        source.rotate("db", "{}")

        assert "{}" == db.value

    def test_handle_that_asks_at_each_read_is_not_loaded_ahead(self, source):
        """What max_age=0 loads in INIT would be thrown away."""
        live = Secret("db", max_age=0)
        phases.call(phases.INIT)
        assert [] == source.calls

        live.value
        live.value
        assert 2 == len(source.calls)

    def test_no_region_in_init_is_kept_for_the_first_use(self, monkeypatch):
        """A handle that cannot even be bound does not break the import."""
        monkeypatch.setattr(
            store.settings,
            "make_source",
            lambda *a, **k: (_ for _ in ()).throw(ConfigurationError("no region")),
        )
        db = Secret("db")
        phases.call(phases.INIT)

        with pytest.raises(ConfigurationError, match="no region"):
            db.value

    @pytest.mark.parametrize("part", ["scope", "at_init", "plan", "fetch", "hash"])
    def test_broken_source_spoils_only_its_own_handle(self, source, part):
        """The others load together; its own read says whose fault it is."""
        broken, good = Secret("key", source=Broken(part)), Secret("db")

        assert '{"user": "me"}' == good.value
        assert [("db",)] == source.calls
        assert VALUE == Secret("key").value
        if part != "at_init":
            with pytest.raises(SourceError, match=r"source vault raised .* for 'key'"):
                broken.value

    @pytest.mark.parametrize("part", ["scope", "plan", "fetch"])
    def test_broken_source_does_not_spoil_a_restore(self, source, part):
        """After a restore the others are loaded as well."""
        broken, good = Secret("key", source=Broken(part)), Secret("db")
        phases.call(phases.RESTORE)
        assert [("db",)] == source.calls

        assert '{"user": "me"}' == good.value
        with pytest.raises(SourceError, match=r"source vault raised .* for 'key'"):
            broken.value

    def test_hundred_thousand_handles_leave_nothing(self, source):
        """A handle that is declared for one call is gone after it."""
        for _ in range(100_000):
            Secret("db")

        gc.collect()
        assert [] == store.live()
        assert [] == store.take_pending()
        assert {} == store._handles

    def test_copy_is_the_handle_itself(self, source):
        """A second one, unknown here, would keep its value across a snapshot."""
        db = Secret("key")
        assert VALUE == db.value

        assert db is copy.copy(db)
        assert [db] == copy.deepcopy([db])

    @pytest.mark.parametrize("read", [False, True])
    def test_is_not_pickled(self, source, read):
        """The error says what to do, and no value goes along."""
        db = Secret("key")
        if read:
            db.value
        with pytest.raises(TypeError, match=r"declare Secret\('key'\) where"):
            pickle.dumps(db)

    def test_handles_made_for_one_call_leave_nothing_behind(self, source):
        """A program that makes a handle per invocation does not fill the memory."""
        for _ in range(1000):
            assert VALUE == Secret("key").value
        gc.collect()

        assert [] == store.live() == store.take_pending()
        assert 1 == len(source.calls)

    def test_handle_that_is_gone_is_not_loaded(self, source):
        """Handles are held by the code that declared them, not by this library."""
        handle = Secret("db")
        ref = weakref.ref(handle)
        del handle
        gc.collect()
        phases.call(phases.INIT)

        assert ref() is None
        assert [] == source.calls


class TestValue:
    """What a read returns."""

    def test_json_belongs_to_the_caller(self, source):
        """A peer hands out the cached dictionary itself: one change, for all."""
        db = Secret("db", transform="json")
        db.value["user"] = "broken"

        assert {"user": "me"} == db.value

    def test_callable_is_called_once_per_version(self, source, time):
        """A refresh that brings the same version does not transform again."""
        made = []
        db = Secret("db", transform=lambda raw: made.append(raw) or object())
        first = db.value
        time.advance(300)
        assert first is db.value
        assert 2 == len(source.calls)
        assert 1 == len(made)

        source.rotate("db", "{}")
        time.advance(300)
        assert first is not db.value
        assert 2 == len(made)

    def test_callable_result_is_one_for_all_threads(self, source):
        """However many threads come first, they share one object."""
        db = Secret("db", transform=lambda raw: object())
        results = run_threads(20, lambda _: db.value)

        assert 1 == len({id(result) for result in results})

    def test_failing_transform_is_an_error_of_the_read(self, source):
        """The value was loaded; it does not suit."""
        bad = Secret("key", transform="json")

        with pytest.raises(DecodeError, match="'key' is not JSON"):
            bad.value
        assert VALUE == Secret("key").value

    def test_version_id_is_of_the_value(self, source, time):
        """The version changes with the value."""
        db = Secret("db")
        assert f"{1:032d}" == db.version_id

        source.rotate("db", "{}")
        time.advance(300)
        assert f"{2:032d}" == db.version_id

    def test_versions_and_stages(self, source):
        """A handle may ask for another version than the current one."""
        source.rotate("db", "{}")
        current = Secret("db")
        previous = Secret("db", version_stage="AWSPREVIOUS")
        first = Secret("db", version_id=f"{1:032d}")

        assert ["{}", '{"user": "me"}', '{"user": "me"}'] == [
            each.value for each in (current, previous, first)
        ]

    def test_invalidate_makes_the_next_read_ask(self, source):
        """A program that knows of a write need not wait for max_age."""
        db = Secret("db")
        db.value
        source.rotate("db", "{}")
        db.invalidate()

        assert "{}" == db.value

    def test_own_source_is_asked_instead(self, source):
        """A handle may have a source of its own, and shares no entry with others."""
        own = FakeSource({"db": "own"})

        assert "own" == Secret("db", source=own).value
        assert '{"user": "me"}' == Secret("db").value

    def test_error_of_init_keeps_no_variables_until_it_is_read(self, source):
        """Nor for ever, where it is not."""

        class Key(set):
            """What a weak reference can point to."""

        keys = []

        class Own(FakeSource):
            """One that is denied, and has a key in its hands."""

            def fetch(self, wanted, timeout_s):
                key = Key()
                keys.append(weakref.ref(key))
                raise AccessDeniedError("no", source="own")

        db = Secret("db", source=Own())
        phases.call(phases.INIT)
        gc.collect()

        assert [None] == [each() for each in keys]
        with pytest.raises(AccessDeniedError):
            db.value
        assert 1 == len(keys)

    def test_option_changes_reach_handles(self, source, time):
        """configure() after the first read counts from the next one on."""
        db = Secret("db")
        db.value
        config.configure(max_age=10)
        time.advance(10)
        db.value

        assert 2 == len(source.calls)

    def test_options_that_change_during_a_load_count_for_it(self, source, time):
        """What it brings is handed out as old as is allowed now."""
        db = Secret("db")
        readers = [lambda: db.value, lambda: get_secret("db")]
        source.hold()
        threads = [threading.Thread(target=each) for each in readers]
        threads[0].start()
        source.wait_for_calls(1)
        threads[1].start()
        eventually(lambda: store.loader.misses == 2)
        config.configure(max_age=10)
        source.release()
        for thread in threads:
            thread.join()

        for number, each in enumerate(readers, 2):
            time.advance(10)
            each()
            assert number == len(source.calls)

    def test_options_that_change_while_a_handle_is_bound_count(self, source):
        """It is bound anew by its next read."""

        class Own(FakeSource):
            """Where asking for the scope takes a while."""

            @property
            def scope(self):
                config.configure(decrypt=False)
                return ("own",)

            @scope.setter
            def scope(self, _):
                pass

        size = Parameter("/size", source=Own({"/size": "20"}))
        size.value
        assert not size._key_of().decrypt


class TestAget:
    """Reading in an event loop."""

    def test_hit_does_not_leave_the_loop(self, source, monkeypatch):
        """What lies in memory is handed out without a thread."""
        db = Secret("db", transform="json")
        db.value

        async def main():
            monkeypatch.setattr(
                asyncio, "to_thread", lambda *a: pytest.fail("a thread for a hit")
            )
            return await db.aget()

        assert {"user": "me"} == asyncio.run(main())

    def test_load_does_not_block_the_loop(self, source):
        """While one coroutine waits for AWS, others go on; all share one load."""
        db = Secret("db")
        source.hold()

        async def main():
            tasks = [asyncio.create_task(db.aget()) for _ in range(5)]
            await asyncio.to_thread(source.wait_for_calls, 1)
            await asyncio.sleep(0)  # the loop runs
            source.release()
            return await asyncio.gather(*tasks)

        assert ['{"user": "me"}'] * 5 == asyncio.run(main())
        assert 1 == len(source.calls)


class TestSnapshot:
    """SnapStart: what is in a snapshot is in every environment made from it."""

    @pytest.fixture(autouse=True)
    def _snap_start(self, monkeypatch):
        monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")

    def test_nothing_is_loaded_before_it(self, source):
        """INIT loads nothing that a snapshot would then hold."""
        db, key = Secret("db"), Secret("key")
        phases.call(phases.INIT)
        assert [] == source.calls

        db.value  # read at module scope all the same
        assert [("db",)] == source.calls
        assert VALUE == key.value

    def test_no_reference_to_a_value_is_left(self, source):
        """Before a snapshot is taken every value is let go."""

        class Value(str):
            """Text that can be watched."""

        source.rotate("raw", Value(VALUE))
        handles = [Secret("raw"), Secret("raw", transform=lambda raw: Value("made"))]
        refs = [weakref.ref(each.value) for each in handles]
        refs.append(weakref.ref(get_secret("raw", lambda raw: Value("made"))))
        refs.append(weakref.ref(get_secret("raw")))
        source.remove("raw")
        assert all(isinstance(ref(), Value) for ref in refs)

        phases.call(phases.SNAPSHOT)
        gc.collect()
        assert [None] * 4 == [ref() for ref in refs]
        assert 0 == store.snapshot().entries

    def test_restore_loads_what_is_declared(self, source):
        """After a restore everything is dead, and loaded in one batch again."""
        db, key = Secret("db"), Secret("key")
        db.value
        phases.call(phases.SNAPSHOT)
        source.rotate("db", "{}")
        phases.call(phases.RESTORE)
        assert [["db"], ["db", "key"]] == [sorted(call) for call in source.calls]

        assert ("{}", VALUE) == (db.value, key.value)
        assert 2 == len(source.calls)

    def test_hook_after_a_restore_reads_what_is_new_and_keeps_it(self, source):
        """What came into the snapshot late is dead by then; nothing is loaded twice."""
        db, key = Secret("db"), Secret("key")
        read = []
        lambda_ext.before_snapshot(lambda: get_secret("db"), priority=phases.LAST)
        lambda_ext.after_restore(lambda: read.extend([get_secret("db"), db.value]))
        phases.call(phases.SNAPSHOT)
        source.rotate("db", "{}")
        phases.call(phases.RESTORE)

        assert ["{}", "{}"] == read
        assert [["db"], ["db"], ["key"]] == [sorted(call) for call in source.calls]
        assert ("{}", "{}", VALUE) == (db.value, get_secret("db"), key.value)
        assert 3 == len(source.calls)

    def test_load_under_way_does_not_survive(self, source):
        """What was asked for before the snapshot is not kept after it."""
        fetch = source.fetch

        def snapped(wanted, timeout_s):
            answers = fetch(wanted, timeout_s)
            source.fetch = fetch
            phases.call(phases.SNAPSHOT)
            clock.restored()
            phases.call(phases.RESTORE)
            source.rotate("db", "{}")
            return answers

        source.fetch = snapped
        assert '{"user": "me"}' == get_secret("db")
        assert "{}" == get_secret("db")


class TestFork:
    """A forked worker starts clean."""

    def test_child_begins_with_nothing(self, source):
        """Locks, loads and values of the parent are not the child's."""
        db = Secret("db")
        db.value
        source.hold()
        loading = threading.Thread(target=lambda: get_secret("key"))
        loading.start()
        source.wait_for_calls(2)
        locks = [store.cache.lock, store._lock, store._taking]
        for lock in locks:
            lock.acquire()  # as if another thread of the parent held them
        try:
            child = os.fork()
            if child == 0:
                try:
                    clean = store.snapshot().entries == 0
                    clean &= not loads_under_way()
                    source.__init__({"db": "{}"})  # its lock was held, too
                    fresh = db.value == "{}" and len(source.calls) == 1
                    os._exit(0 if clean and fresh else 1)
                except BaseException:
                    os._exit(2)
            _, status = os.waitpid(child, 0)
        finally:
            for lock in locks:
                lock.release()

        source.release()
        loading.join()
        assert 0 == os.waitstatus_to_exitcode(status)
        assert 2 == store.snapshot().entries

    def test_child_loads_what_is_declared_together(self, source):
        """The first read in a worker is one batch again."""
        db, key = Secret("db"), Secret("key")
        db.value
        child = os.fork()
        if child == 0:
            try:
                values = (db.value, key.value) == ('{"user": "me"}', VALUE)
                os._exit(0 if values and len(source.calls) == 2 else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)

        assert 0 == os.waitstatus_to_exitcode(status)


class TestSafety:
    """No value in any repr, log, error or counter."""

    def test_no_repr_shows_a_value(self, source):
        """When printed, logged or shown by a debugger."""
        key = Secret("key", transform="json")
        with pytest.raises(DecodeError):
            key.value
        plain = Secret("key")
        plain.value
        get_secret("key")
        slot = next(iter(store.cache.slots.values()))
        shown = [
            plain, key, slot, slot.entry, slot.entry.answer, slot.views, slot.key,
            store.cache, store.loader, store.snapshot(), source, plain._view,
            slot.entry.decoded, store.secrets, store.decoded(slot.entry, slot.key, None, None), plain._view,
        ]  # fmt: skip

        assert VALUE not in repr(shown)
        assert "<Secret 'key' version='0" in repr(plain)

    def test_no_log_record_holds_a_value(self, source, time, caplog):
        """Loads, refreshes and failures are logged without what they are about."""
        caplog.set_level("DEBUG")
        Secret("nope")
        key = Secret("key")
        key.value
        time.advance(271)
        key.value
        store.loader.refresh_due()

        assert VALUE not in caplog.text


class TestArguments:
    """Bad arguments are refused where they are written."""

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Secret(""), "the name of a secret is empty"),
            (lambda: Secret(None), "must be text, not NoneType"),
            (lambda: Secret("x", max_age=-1), "max_age of 'x' cannot be used"),
            (lambda: Secret("x", max_age="soon"), "max_age of 'x'.*seconds"),
            (lambda: Secret("x", max_age=True), "max_age of 'x'"),
            (lambda: Secret("x", max_age=float("nan")), "max_age of 'x'"),
            (lambda: Secret("x", max_stale=-1), "max_stale of 'x'"),
            (lambda: Secret("x", transform="yaml"), "transform='yaml' of 'x'"),
            (lambda: Secret("x", field=3), "field of 'x'"),
            (lambda: Secret("x", version_id="1"), "version_id of the secret 'x'"),
            (lambda: Parameter("x:"), "divides nothing"),
            (lambda: Parameter("x", decrypt="maybe"), "decrypt of 'x'.*true or false"),
            (lambda: Secret("x", source=5), "source=int of 'x' lacks name, scope"),
            (lambda: Secret("x", source=dict), "source=type of 'x' lacks.*plan, fetch"),
            (lambda: Secret("x", client=5), "client=int of 'x'.*'secretsmanager'"),
            (lambda: Parameter("x", client=5), r"client=int of 'x'.*client\('ssm'\)"),
            (lambda: Secret("x", session=5), "session=int of 'x'.*boto3.Session"),
            (lambda: Secret("x", session=5, client=5), "of 'x' exclude each other"),
            (
                lambda: Secret("x", source=FakeSource(), client=CLIENT),
                "source= of 'x' excludes",
            ),
            (lambda: Secret("x").on_change(3), "on_change of 'x' takes a function"),
            (lambda: Secret("x").derive(3), "derived from 'x'"),
        ],
    )
    def test_are_refused_when_declared(self, make, words):
        """A specific error names the key and what to change."""
        with pytest.raises(ConfigurationError, match=words):
            make()

    def test_unknown_option_is_a_type_error(self):
        """Python itself names the keyword that does not exist."""
        with pytest.raises(TypeError, match="max_agee"):
            Secret("x", max_agee=3)

    def test_decrypt_of_a_parameter_follows_the_option(self, monkeypatch):
        """Read when the handle is bound, not while it is declared."""
        declared = Parameter("/x")
        monkeypatch.setenv("POWERTOOLS_PARAMETERS_SSM_DECRYPT", "false")
        with FakeSource():
            assert not declared._key_of().decrypt
            assert Parameter("/x", decrypt=True)._key_of().decrypt


def test_source_goes_with_its_handle():
    """What is remembered is no reason to keep a source; a refresh leaves it out."""
    with FakeClock() as clock:
        source = FakeSource({"a": "1"})
        handle = Secret("a", source=source)
        value, held = handle.value, weakref.ref(source)
        del source, handle
        gc.collect()
        clock.advance(280)
        store.loader.refresh_due()

        assert ("1", None) == (value, held())
