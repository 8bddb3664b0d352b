"""Log lines and tracebacks show what they should, and no more."""

from __future__ import annotations

import logging
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_ext import disclosure


@given(st.text(st.characters(exclude_categories=()), max_size=2000), st.integers(0, 99))
def test_printable_text_is_one_bounded_line(text, longest):
    """For every input the output is printable and about as long as allowed."""
    shown = disclosure.printable(text, longest)

    assert shown.isprintable()
    assert len(shown) <= 10 * longest + 30
    assert 1 == len(f"{shown}.".splitlines())


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_text_that_is_printable_stays(text):
    """An ordinary name is shown as it is."""
    assert text == disclosure.printable(text)


@pytest.mark.logs
def test_log_line_has_event_fields_and_text(caplog):
    """The template is the same for all records of an event, so that tools group it."""
    disclosure.warn("event", "done\n", key="a\nb", number=3)
    disclosure.inform("unseen")

    (record,) = caplog.records
    assert "lambda_ext.event key=a\\nb number=3 done\\n" == record.getMessage()
    assert "lambda_ext.event key=%s number=%s %s" == record.msg
    assert (logging.WARNING, __file__) == (record.levelno, record.pathname)


@pytest.mark.logs
def test_logging_raises_nothing(monkeypatch):
    """A filter of the user's that fails does not end what is being logged."""

    def fail(record):
        raise ValueError

    logger = logging.getLogger("lambda_ext")
    monkeypatch.setattr(logger, "filters", [fail])

    disclosure.warn("event")
    disclosure.log(logging.ERROR, "event", key=1)


@pytest.mark.logs
def test_long_traceback_is_cut_in_the_middle(caplog):
    """Its first 50 lines stay, where it began, and its last, what it is."""
    found = ValueError("first")
    for number in range(100):
        new = ValueError(f"n{number}")
        new.__cause__ = found
        found = new
    try:
        raise found
    except ValueError:
        disclosure.failure("event")

    (line,) = caplog.messages
    _, *shown = line.split("\n")
    assert ("ValueError: first", "  ...") == (shown[0], shown[50])
    assert (101, "ValueError: n99") == (len(shown), shown[-1])


@pytest.mark.logs
def test_failure_is_told_where_its_traceback_cannot_be_had(monkeypatch, caplog):
    """What formats it may not be loadable: the log line has the kind and the words."""
    monkeypatch.setitem(sys.modules, "lambda_ext.tracebacks", None)
    try:
        raise ValueError("why\nnot")
    except ValueError:
        disclosure.failure("event", waiting=3)

    (line,) = caplog.messages
    first, second = line.split("\n")
    assert "lambda_ext.event waiting=3" == first
    assert second.startswith("ValueError at test_disclosure.py:")
    assert second.endswith("why\\nnot")


def test_place_is_that_of_the_innermost_frame():
    """Where something was raised is told without what was said."""

    def raises():
        raise ValueError("hunter2")

    with pytest.raises(ValueError, match="hunter2") as caught:
        raises()

    assert disclosure.place(caught.value).startswith("test_disclosure.py:")
    assert disclosure.place(caught.value).endswith(" in raises")
    assert "an unknown place" == disclosure.place(ValueError())


def test_variables_of_causes_and_contexts_are_forgotten():
    """All that an exception of the library was raised from or during is emptied."""
    library = {"__name__": "lambda_ext.fake"}
    exec(  # as a module of the library would do it
        "def first():\n"
        "    secret = 'hunter2'\n"
        "    raise ValueError\n"
        "def second(chained):\n"
        "    try:\n"
        "        first()\n"
        "    except ValueError as exc:\n"
        "        cause = exc\n"
        "        if not chained:\n"
        "            raise KeyError\n"
        "    raise KeyError from cause\n"
        "def third(chained, function):\n"
        "    try:\n"
        "        second(chained)\n"
        "    except KeyError as exc:\n"
        "        function(exc)\n"
        "        raise\n",
        library,
    )
    for chained in (False, True):
        with pytest.raises(KeyError) as caught:
            library["third"](chained, disclosure.forget_variables)
        found = caught.value.__cause__ or caught.value.__context__
        *_, (frame, _) = traceback.walk_tb(found.__traceback__)

        assert ("first", {}) == (frame.f_code.co_name, frame.f_locals)
