"""
Every place where a signal handler may raise lies inside its `with` and `try`.

CPython 3.11 and later find the handler of an exception in a table, by the offset
of the instruction.  3.13 leaves a jump backwards that directly follows a condition
out of it: a `with lock:` around such a loop is left without its exit.  So the loop
stands in a function of its own, which is called in the `with`.
"""

from __future__ import annotations

import ast
import dis
import sys
import types

import pytest
from handler_places import FILES, ROOT, blocks_by_function, loops, span


def codes(code):
    """Yield *code* and what is nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def is_in(instruction, area):
    """Say whether *instruction* was compiled from *area*."""
    at = instruction.positions
    if at is None or at.lineno is None or at.col_offset is None:
        return False
    begin, end = (at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)
    return area[0] <= begin and end <= area[1]


def handlers_of(block, instructions, entries):
    """Return the offsets at which the table has handlers of *block* begin."""
    found = set()
    is_with = not isinstance(block, ast.Try)
    areas = [span(each) for each in ([] if is_with else block.handlers)]
    if is_with:
        areas += [span(item.context_expr) for item in block.items]
    elif block.finalbody:
        areas.append(span(*block.finalbody))
    for target in {entry.target for entry in entries}:
        rest = [each for each in instructions if each.offset >= target][:8]
        if is_with != any(each.opname == "WITH_EXCEPT_START" for each in rest[:2]):
            continue
        named = [
            each
            for each in rest
            if each.opname != "PUSH_EXC_INFO" and each.positions.lineno is not None
        ]
        if named and (
            any(is_in(named[0], area) for area in areas)
            # 3.11 and 3.12: of the whole statement
            or (is_with and is_in(named[0], span(block)) and starts(named[0], block))
        ):
            found.add(target)
    return found


def starts(instruction, node):
    """Say whether both begin at the same place."""
    at = instruction.positions
    return (at.lineno, at.col_offset) == (node.lineno, node.col_offset)


def raises_at(instruction, area, by_offset):
    """Return the offset for which the table is read; None if no handler runs."""
    name = instruction.opname
    if "JUMP_BACKWARD" in name and "NO_INTERRUPT" not in name:
        target = by_offset[instruction.argval]
        if not is_in(target, area):  # a `continue` that leaves the block
            return None
        # Before 3.13 the jump comes first, and then the check.
        return instruction.offset if sys.version_info >= (3, 13) else target.offset - 2
    if "CALL" in name and name != "PRECALL" and "INTRINSIC" not in name:
        return instruction.offset
    return None


def reached(entries, offset):
    """Yield the handlers that an exception at *offset* comes to, inside out."""
    seen = set()
    while offset is not None and offset not in seen:
        seen.add(offset)
        offset = next((e.target for e in entries if e.start <= offset < e.end), None)
        if offset is not None:
            yield offset


def uncovered(source, path="<source>"):
    """Return the lines with a place that is outside the block it stands in."""
    found = []
    all_codes = list(codes(compile(source, path, "exec")))
    for name, line, blocks in blocks_by_function(ast.parse(source)):
        (code,) = (
            each
            for each in all_codes
            if (each.co_name, each.co_firstlineno) == (name, line)
        )
        instructions = list(dis.get_instructions(code))
        by_offset = {each.offset: each for each in instructions}
        entries = dis._parse_exception_table(code)
        for block in blocks:
            area = span(*block.body)
            handlers = handlers_of(block, instructions, entries)
            assert handlers, f"{path}:{block.lineno} has no handler in the table"
            for each in instructions:
                offset = raises_at(each, area, by_offset) if is_in(each, area) else None
                if offset is not None and handlers.isdisjoint(reached(entries, offset)):
                    found.append((block.lineno, each.positions.lineno))
    return found


LOOP = """
def f(lock, rows):
    with lock:
        while rows():
            rows.pop()

def g(rows):
    try:
        h = [row for row in rows if row]
    finally:
        rows.close()
"""
CALL = """
def f(lock, rows):
    with lock:
        loop(rows)
        for row in rows:
            row.close()
    for row in rows:
        try:
            if row:
                continue
        finally:
            row.close()
"""


def test_loops_are_found():
    """A condition may end a comprehension, a `while`, or a round of a `for`."""
    assert {"f", "g"} == loops(LOOP)
    assert set() == loops(CALL)


@pytest.mark.skipif(
    sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)),
    reason="3.10 keeps a stack of blocks instead; how 3.14 compiles was not looked at",
)
class TestExceptionTables:
    """As the Python that runs this compiles the package."""

    def test_package(self):
        """No `with`, `finally` or `except BaseException` is left without its end."""
        found = {
            f"{path.relative_to(ROOT)}: {lines}"
            for path in FILES
            if (lines := uncovered(path.read_text("utf-8"), str(path)))
        }

        assert set() == found

    def test_places_are_found(self):
        """On 3.13 a condition before a jump; on none a call or a plain loop."""
        expected = [(3, 4), (8, 9)] if sys.version_info[:2] == (3, 13) else []

        assert expected == sorted(uncovered(LOOP))
        assert [] == uncovered(CALL)
