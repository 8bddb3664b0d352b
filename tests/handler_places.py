"""
Where the source says that an exception of a signal handler is lost, or a lock kept.

CPython 3.13 leaves the jump back of a loop that directly follows a condition out of
the table by which it finds handlers: a `with lock:` around such a loop is left without
its exit.  So the loop stands in a function of its own, which is called in the `with`.

What catches all that code of the user's raises asks `by_signal_handler` whose it is.
"""

from __future__ import annotations

import ast
import pathlib
import re

import lambda_ext

ROOT = pathlib.Path(lambda_ext.__file__).parent
# Not of what runs on its own, where Ctrl-C is the end.
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not {"local", "commands"} & {*path.relative_to(ROOT).parts}
]
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def must_be_left(block):
    """Say whether *block* does something at its end that may not be left out."""
    if isinstance(block, (ast.With, ast.AsyncWith)):
        return True
    if not isinstance(block, ast.Try):
        return False
    names = [getattr(each.type, "id", "") for each in block.handlers]
    return bool(block.finalbody) or "BaseException" in names


def blocks_by_function(tree):
    """Yield the name and line of each function, and what `must_be_left` in it."""
    waiting = [tree]
    while waiting:
        function = waiting.pop()
        blocks = []
        inside = [*ast.iter_child_nodes(function)]
        while inside:
            node = inside.pop()
            if isinstance(node, SCOPES):
                waiting.append(node)
                continue
            if must_be_left(node):
                blocks.append(node)
            inside += ast.iter_child_nodes(node)
        if blocks and isinstance(function, SCOPES[:2]):
            first = min([function, *function.decorator_list], key=lambda n: n.lineno)
            yield function.name, first.lineno, blocks


def span(*nodes):
    """Return where *nodes* begin and end."""
    first, last = nodes[0], nodes[-1]
    return (first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset)


def inside(node):
    """Yield *node* and what is in it, but not in a function in it."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += [n for n in ast.iter_child_nodes(found) if not isinstance(n, SCOPES)]


def may_jump_after_a_condition(node):
    """Say whether *node* is a loop that may jump back directly after a condition."""
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)):
        return any(part.ifs for part in node.generators)
    if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant):
        return True
    conditions = ast.If, ast.Assert, ast.While, ast.Match
    return isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and any(
        isinstance(each, conditions) for part in node.body for each in inside(part)
    )


def loops(source):
    """Return the functions that have such a loop where it must not stand."""
    return {
        name
        for name, _, blocks in blocks_by_function(ast.parse(source))
        for block in blocks
        for part in block.body
        for node in inside(part)
        if may_jump_after_a_condition(node)
    }


# Whose jumps come after something else than the condition: see the tables of 3.13.
COVERED = {
    ("injection.py", "fill"),
    ("injection.py", "afill"),
    ("lifecycle/phases.py", "call"),
}

# Where what a signal handler raises cannot be, or is passed on in another way.
ELSEWHERE = {
    "aws/waiting.py body": "on a thread of its own, which tells its caller",
    "callables.py relay": "thrown in again",
    "injection.py call": "thrown in again",
    "lifecycle/extension.py _join": "raised again, after the hint",
    "lifecycle/extension.py _tell": "on a thread of its own",
    "lifecycle/extension.py _wait": "on a thread of its own",
    "lifecycle/otel.py body": "on a thread of its own",
    "lifecycle/real_threads.py <module>": "at import",
    "lifecycle/shutdown.py _at_exit": "raised again, after the listeners",
    "telemetry/dispatch.py _consume": "on a thread of its own",
    "telemetry/predicates.py _may_explode": "checks an argument",
    "telemetry/reports.py consume": "raised again, after the other reports",
    "telemetry/routes.py __call__": "on a thread of its own",
    "values/calls.py body": "on a thread of its own",
    "values/calls.py _run": "on a thread of its own",
    "values/rotation.py call": "thrown in again",
    "lifecycle/process.py _forked": "after a fork, where CPython ignores it",
    "aws/transport.py _forked": "after a fork, where CPython ignores it",
}


def swallowing(path):
    """Yield the functions of *path* that catch all, and neither ask nor raise it."""
    tree = ast.parse(path.read_text("utf-8"))
    waiting = [("<module>", tree)]
    while waiting:
        function, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            waiting.append((child.name if named else function, child))
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            last = node.body[-1]
            passed = isinstance(last, ast.Raise) and last.exc is None
            if passed or "by_signal_handler" in ast.unparse(node):
                continue
        elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
            caught = " ".join(map(ast.unparse, node.args))
        else:
            continue
        if re.search(r"\b(Base)?Exception\b", caught):
            yield f"{path.relative_to(ROOT)} {function}"
