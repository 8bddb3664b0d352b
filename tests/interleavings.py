"""
Two threads in the same code: one is stopped at each place, the other runs there.

    for places in interleavings():
        lambda_ext.configure(...)          # what both begin with
        with places.of(other):             # called in another thread, once
            lambda_ext.get_secret("db")
        assert ...                         # what holds, wherever it was

CPython changes threads where functions are called and return (and at jumps), so these
are the places.  Where the other thread waits for a lock that this one holds, this one
goes on after a moment, as it would by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LIBRARY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                       "lambda_ext")  # fmt: skip
WAIT_S = 0.005  # for the other thread, which may need a lock that this one holds


class Places:
    """The places of one operation, one of which is to be tried."""

    def __init__(self, at):
        self.at = at
        self.seen = 0
        self.raised = []

    @contextlib.contextmanager
    def of(self, other):
        """Have another thread call other() at one place of the block."""
        thread = threading.Thread(target=self._run, args=(other,))

        def look(frame, event, argument):
            if frame.f_code.co_filename.startswith(LIBRARY):
                self.seen += 1
                if self.seen > self.at and thread.ident is None:
                    sys.setprofile(None)
                    thread.start()
                    thread.join(WAIT_S)

        former = sys.getprofile()
        sys.setprofile(look)
        try:
            yield
        finally:
            sys.setprofile(former)
            if thread.ident is None:  # past the last place
                thread.start()
            thread.join(60)
        assert not thread.is_alive(), "the other thread hangs"
        if self.raised:
            raise self.raised[0]

    def _run(self, other):
        try:
            other()
        except BaseException as exc:
            self.raised.append(exc)


def interleavings(first=0, step=1):
    """
    Yield the places of an operation that is begun again for each, until the last.

    Fails where the operation has none in the library.
    """
    at = first
    while True:
        places = Places(at)
        yield places
        if places.seen <= at:
            assert at > first, "no place of the library was reached"
            break
        at += step
