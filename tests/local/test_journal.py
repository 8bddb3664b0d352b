"""The list of all that happens, in order."""

from __future__ import annotations

from helpers import run_threads

from lambda_ext.local.journal import LINE, SEEN, Event, Journal


def test_order_is_that_of_the_times():
    """Events of many threads stand in the order of their times, each once."""
    journal = Journal()

    def note(index):
        for number in range(200):
            journal.make(LINE, lambda at, number=number: (at, index, number))

    run_threads(8, note)
    times = [event.at for event in journal.events]

    assert sorted(times) == times
    assert times == [event.what[0] for event in journal.events]
    assert {(i, n) for i in range(8) for n in range(200)} == {
        event.what[1:] for event in journal.events
    }


def test_view_of_a_kind_grows_with_the_journal():
    """A list that was asked for early has what comes later, of its kind only."""
    journal = Journal()
    lines = journal.of(LINE)
    journal.note(LINE, "a")
    journal.note(SEEN, "b")
    journal.note(LINE, "c")

    assert ["a", "c"] == lines
    assert lines is journal.of(LINE)


def test_events_after_a_moment_are_found():
    """What came from a moment on, of some kinds or of all."""
    journal = Journal()
    journal.note(LINE, "a")
    later = journal.make(SEEN, lambda at: at)
    journal.note(LINE, "c")

    assert ["c"] == [event.what for event in journal.after(later, LINE)]
    assert [later, "c"] == [event.what for event in journal.after(later)]
    assert Event(later, SEEN, later) == journal.events[1]
