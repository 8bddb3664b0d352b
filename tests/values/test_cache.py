"""What is remembered, how much of it, and which entry is evicted."""

from __future__ import annotations

import math

import pytest
from helpers import ring, run_threads

from lambda_ext import config
from lambda_ext.testing import FakeSource
from lambda_ext.typing import Answer
from lambda_ext.values import keys, store
from lambda_ext.values.cache import NEVER, Cache, Entry, View
from lambda_ext.values.getters import get_secret
from lambda_ext.values.handles import Secret


def key(name, scope="s"):
    return keys.secret(scope, name)


def put(cache, name, value="v", sequence=1, arn=""):
    answer = Answer(value, str(sequence), arn)
    return cache.put(key(name), None, Entry(answer, 0.0, sequence))


@pytest.mark.parametrize(
    "value", [None, 5, ["x"], bytearray(b"x"), {"/a": 5}, {5: "x"}, {"/a": b"x"}]
)
def test_answer_is_text_or_bytes(value):
    """A source of the user's own is told so when it answers, not its readers."""
    with pytest.raises(TypeError, match="text or bytes"):
        Answer(value)


class TestBound:
    """SIEVE: who was not read since the hand came by goes first."""

    def test_is_never_exceeded(self):
        """However many come, at most `size` stay."""
        cache = Cache(lambda: 10)
        for number in range(1000):
            put(cache, str(number))

        assert 10 == len(cache)
        assert 990 == cache.evictions

    def test_unread_goes_before_read(self):
        """An entry that was hit survives a scan of new ones."""
        cache = Cache(lambda: 3)
        for name in "abc":
            put(cache, name)
        cache.slots[key("a")].hits += 1
        for number in range(100):
            put(cache, str(number))
            cache.slots[key("a")].hits += 1

        assert key("a") in cache.slots

    def test_oldest_unread_goes_first(self):
        """Without any hit it is first in, first out."""
        cache = Cache(lambda: 3)
        for name in "abcd":
            put(cache, name)

        assert ["b", "c", "d"] == [slot.key.name for slot in ring(cache)]

    def test_hand_goes_on_from_where_it_was(self):
        """A spared entry is not asked again before the hand has been around."""
        cache = Cache(lambda: 3)
        for name in "abc":
            put(cache, name)
        cache.slots[key("a")].hits += 1
        put(cache, "d")  # spares a, takes b; the hand stands at c
        put(cache, "e")  # takes c

        assert ["a", "d", "e"] == [slot.key.name for slot in ring(cache)]

    def test_newest_may_be_the_one_to_go(self):
        """When all others were read, it goes, and the ring stays whole."""
        cache = Cache(lambda: 3)
        for name in "abc":
            put(cache, name)
        for name in "ab":
            cache.slots[key(name)].hits += 1
        put(cache, "d")  # spares a and b, takes c
        assert ["a", "b", "d"] == [slot.key.name for slot in ring(cache)]

        put(cache, "e")
        put(cache, "f")
        assert 3 == len(ring(cache)) == len(cache.slots)
        assert {*cache.slots} == {slot.key for slot in ring(cache)}

    def test_hit_counts_once_for_the_hand(self):
        """One hit long ago does not keep an entry for ever."""
        cache = Cache(lambda: 2)
        put(cache, "a")
        cache.slots[key("a")].hits += 1
        for name in "bcde":
            put(cache, name)

        assert key("a") not in cache.slots

    def test_one_place_is_enough(self):
        """The smallest cache holds the newest."""
        cache = Cache(lambda: 1)
        for name in "abc":
            put(cache, name)
        cache.slots[key("c")].hits += 1
        put(cache, "d")

        assert ["d"] == [slot.key.name for slot in ring(cache)]

    def test_zero_remembers_nothing(self):
        """With no room, an entry goes to its caller and nowhere else."""
        cache = Cache(lambda: 0)
        taken = put(cache, "a")

        assert 0 == len(cache.slots)
        assert 1 == len(taken)

    def test_replacing_needs_no_room(self):
        """A new entry for a known key evicts none."""
        cache = Cache(lambda: 2)
        put(cache, "a")
        put(cache, "b")
        put(cache, "a", sequence=2)

        assert 0 == cache.evictions
        assert 2 == cache.slots[key("a")].entry.sequence

    def test_what_a_handle_reads_stays(self):
        """A flood of names by get_secret does not evict what is declared."""
        config.configure(cache_size=5)
        values = {f"tenant-{number}": "x" for number in range(100)}
        with FakeSource({"db": "v", **values}) as source:
            db = Secret("db")
            db.value
            for name in values:
                get_secret(name)
            calls = len(source.calls)
            db.value

        assert calls == len(source.calls)

    def test_handle_that_is_gone_holds_nothing(self):
        """Handles made for one call do not fill the cache for ever."""
        config.configure(cache_size=5)
        with FakeSource({f"n{number}": "x" for number in range(50)}):
            for number in range(50):
                Secret(f"n{number}").value

            assert 5 == store.snapshot().entries

    def test_more_handles_than_room_all_stay(self):
        """What is declared is never evicted, even beyond the bound."""
        config.configure(cache_size=5)
        with FakeSource({f"n{number}": "x" for number in range(8)}) as source:
            handles = [Secret(f"n{number}") for number in range(8)]
            for _ in range(3):
                for handle in handles:
                    handle.value

        assert 8 == sum(len(call) for call in source.calls)

    def test_evicted_entry_takes_its_views_along(self):
        """What was let go is not served any more, and holds no memory."""
        config.configure(cache_size=2)
        with FakeSource({"a": "1", "b": "2", "c": "3"}) as source:
            get_secret("a")
            for name in "bcb":
                get_secret(name)
            assert {"b", "c"} == {arguments[0] for arguments in store.secrets}

            get_secret("a")
            assert ("a",) == source.calls[-1]


class TestGroups:
    """Keys that AWS answered with one ARN."""

    def test_share_what_comes(self):
        """An entry for one is an entry for all."""
        cache = Cache()
        put(cache, "name", "old", 1, "arn:x")
        put(cache, "arn:x", "new", 2, "arn:x")

        assert "new" == cache.slots[key("name")].entry.answer.value

    def test_do_not_take_what_is_older(self):
        """An entry never goes back."""
        cache = Cache()
        put(cache, "name", "new", 2, "arn:x")
        put(cache, "arn:x", "old", 1, "arn:x")

        assert "new" == cache.slots[key("name")].entry.answer.value

    def test_die_together(self):
        """A denial for one is a denial for all."""
        cache = Cache()
        put(cache, "name", "v", 1, "arn:x")
        put(cache, "arn:x", "v", 2, "arn:x")
        put(cache, "other", "v", 3, "arn:y")
        cache.kill(key("arn:x"))

        assert [None, None] == [
            cache.slots[key(name)].entry for name in ("name", "arn:x")
        ]
        assert cache.slots[key("other")].entry is not None

    def test_follow_a_name_to_its_new_arn(self):
        """A secret deleted and made again has another ARN."""
        cache = Cache()
        put(cache, "name", "old", 1, "arn:x")
        put(cache, "arn:x", "old", 2, "arn:x")
        put(cache, "name", "new", 3, "arn:y")

        assert "old" == cache.slots[key("arn:x")].entry.answer.value
        put(cache, "arn:x", "older", 4, "arn:x")
        assert "new" == cache.slots[key("name")].entry.answer.value

    def test_forget_members_that_were_evicted(self):
        """A group is no place where slots live on."""
        cache = Cache(lambda: 2)
        put(cache, "name", "v", 1, "arn:x")
        put(cache, "arn:x", "v", 2, "arn:x")
        put(cache, "a")
        put(cache, "b")

        assert {key("a"), key("b")} == {
            member for group in cache._groups.values() for member in group
        }


class TestViews:
    """What hits find."""

    def publish(self, cache, index, arguments="arguments", until=math.inf):
        slot = cache.slots[key("a")]
        view = View("v", None, slot, slot.entry)
        with cache.lock:
            cache.publish(view, until, index, arguments)
        return view

    def test_are_worthless_once_the_entry_is_replaced(self):
        """A hit never finds what was replaced."""
        cache, index = Cache(), {}
        put(cache, "a", "v")
        view = self.publish(cache, index)
        assert math.inf == view.until

        put(cache, "a", "w", 2)
        assert NEVER == view.until
        assert {} == index

    def test_of_a_replaced_entry_are_not_published(self):
        """A slow reader does not bring back what was replaced meanwhile."""
        cache, index = Cache(), {}
        put(cache, "a", "v")
        slot = cache.slots[key("a")]
        late = View("v", None, slot, slot.entry)
        put(cache, "a", "w", 2)
        with cache.lock:
            cache.publish(late, math.inf, index, "arguments")

        assert {} == index
        assert NEVER == late.until

    def test_are_bounded_per_slot(self):
        """Inline lambdas as transforms do not pile up."""
        with FakeSource({"a": "1"}) as source:
            for number in range(500):
                assert number == get_secret("a", lambda raw, n=number: n)

            assert len(store.secrets) <= 32
            (slot,) = store.cache.slots.values()
            assert len(slot.views) <= 32
            assert len(slot.entry.decoded) <= 32
            assert 1 == len(source.calls)

    def test_unhashable_transform_is_served_all_the_same(self):
        """It is applied at each call, since nothing can remember it."""

        class Upper(list):
            def __call__(self, raw):
                return raw.upper()

        with FakeSource({"a": "x"}) as source:
            assert ["X", "X"] == [get_secret("a", Upper()) for _ in range(2)]
            assert {} == store.secrets
            assert 1 == len(source.calls)

    def test_are_forgotten_at_once(self):
        """New options make every read look again, in handles as in functions."""
        with FakeSource({"a": "1"}) as source:
            handle = Secret("a")
            assert ("1", "1") == (handle.value, get_secret("a"))
            view = handle._view
            store.cache.expire_views()
            assert {} == store.secrets
            assert NEVER == view.until
            assert ("1", "1") == (handle.value, get_secret("a"))
            assert NEVER < handle._view.until

            assert 1 == len(source.calls)

    def test_do_not_pile_up_over_many_changes_of_options(self):
        """Each change publishes new ones, and forgets the former."""
        with FakeSource({"a": "1"}):
            handle = Secret("a")
            for _ in range(500):
                handle.value, get_secret("a"), get_secret("a", max_age=60)
                store.cache.expire_views()
            (slot,) = store.cache.slots.values()

            assert len(slot.views) <= 3

    def test_of_handles_do_not_pile_up(self):
        """A handle that reads often enough to be refreshed holds one view."""
        with FakeSource({"a": "1"}):
            handle = Secret("a")
            for _ in range(500):
                handle.value
                handle.invalidate()

            assert [[]] == [slot.views for slot in store.cache.slots.values()]

    def test_memory_is_given_back(self):
        """Clearing leaves nothing behind but the counters."""
        with FakeSource({"a": "1"}):
            get_secret("a")
            get_secret("a")
            store.loader.clear()

        assert 0 == len(store.cache.slots) == len(store.cache._groups)
        assert {} == store.secrets
        assert 1 == store.snapshot().hits


class TestCounters:
    """What is counted, and what is not."""

    def test_hits_and_misses_of_functions(self):
        """Each read by get_* is a hit or a miss."""
        with FakeSource({"a": "1"}):
            for _ in range(10):
                get_secret("a")
            get_secret("a", "json")

            counted = store.snapshot()
        assert (10, 1, 1, 0) == (
            counted.hits, counted.misses, counted.loads, counted.refreshes
        )  # fmt: skip

    def test_hits_of_handles_are_not_counted(self):
        """The cheapest path counts nothing."""
        with FakeSource({"a": "1"}):
            a = Secret("a")
            for _ in range(10):
                a.value
            counted = store.snapshot()

        assert (0, 1) == (counted.hits, counted.misses)

    def test_hits_are_exact_under_threads(self):
        """Nothing is lost when eight threads hit one entry."""
        with FakeSource({"a": "1"}):
            get_secret("a")
            run_threads(8, lambda _: [get_secret("a") for _ in range(5000)])

            assert 40_000 == store.snapshot().hits

    def test_hits_survive_eviction(self):
        """The count is of reads, not of what is still there."""
        config.configure(cache_size=1)
        with FakeSource({"a": "1", "b": "2"}):
            get_secret("a")
            get_secret("a")
            get_secret("b")

            assert 1 == store.snapshot().hits

    def test_snapshot_shows_names_and_numbers(self):
        """It can be logged as it is."""
        assert (
            "Snapshot(entries=0, errors={}, evictions=0, hits=0, loads=0, misses=0,"
            " refreshes=0, stale_served=0)"
        ) == repr(store.snapshot())


@pytest.mark.parametrize("option", [{"cache": False}, {"cache_size": 0}])
def test_switched_off_asks_always_and_keeps_nothing(option):
    """Without a cache every read is a call, by function and by handle."""
    config.configure(**option)
    with FakeSource({"a": "1"}) as source:
        a = Secret("a")
        for _ in range(2):
            assert ("1", "1") == (get_secret("a"), a.value)

        assert 4 == len(source.calls)
        assert {} == store.secrets
