"""
Which requests may mean one value: names, ARNs and partial ARNs.

Where only AWS knows, they are taken to: two requests that may mean one value go
in two calls, and a write drops the value of every request that may read what was
written.

Pure.  Loaded by reads of several values, and by writes.
"""

from __future__ import annotations

from .keys import CONFIGURATION, PARAMETER, SECRET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .keys import Key


def packed(wanted: Iterable[Key], size: int) -> list[list[Key]]:
    """
    Divide *wanted* into runs of at most *size* whose answers are told apart.

    In one run no two requests may mean one value: a name and an ARN that may be
    its own go in two runs, and so do two requests for one name.
    """
    runs: list[list[Key]] = []
    # Those that take more, each with what is in it: plain name -> which accounts.
    unfilled: list[tuple[list[Key], dict[str, set[str]]]] = []
    for key in wanted:
        names, where = _reach(key)
        free = (
            pair
            for pair in unfilled
            if not any(_clash(where, pair[1].get(name)) for name in names)
        )
        run, taken = next(free, None) or ([], {})
        if not run:
            runs.append(run)
            unfilled.append((run, taken))
        run.append(key)
        for name in names:
            taken.setdefault(name, set()).add(where)
        if len(run) == size:
            unfilled = [pair for pair in unfilled if pair[0] is not run]
    return runs


def _clash(where: str, taken: set[str] | None) -> bool:
    if not taken:
        return False
    return not where or where in taken or "" in taken


def _reach(key: Key) -> tuple[set[str], str]:
    """Return what *key* may be called, and in which account, "" for any."""
    names = _plain(key.name)
    if key.operation == PARAMETER:  # "x" and "/x" have one ARN
        names = {name.lstrip("/") for name in names}
    if not key.name.startswith("arn:"):
        return names, ""
    return names, ":".join(key.name.split(":", 5)[:5])


def depends(key: Key, name: str, operation: str) -> bool:
    """
    Say whether the answer to *key* may change with what *operation* reads as *name*.

    As in `concerns`; a secret and a parameter of one name are two things.
    """
    secret = operation == SECRET
    reference = key.name.startswith("/aws/reference/")
    if secret != (key.operation == SECRET) and not reference:
        return False
    return concerns(key, name)


def concerns(key: Key, name: str) -> bool:
    """
    Say whether the answer to *key* may change when *name* was written to.

    *name* is a name or any form of an ARN, without a version.  When in doubt
    the answer is yes: a needless load does less harm than an old value.
    """
    if key.operation == CONFIGURATION:
        return key.name == name
    mine, theirs = _plain(key.name), _plain(name)
    if key.operation == SECRET:
        return bool(mine & theirs)
    if key.operation == PARAMETER:
        if key.name.startswith("/aws/reference/secretsmanager/"):
            return key.name.split("/", 4)[4] in theirs or bool(mine & theirs)
        # "x" and "/x" have one ARN.
        return bool({*map(_bare, mine)} & {*map(_bare, theirs)})
    if key.name == "/":  # "x" and "/x" are both below it
        return True
    return any(each.startswith(key.name + "/") for each in theirs)


def _bare(name: str) -> str:
    return name.removeprefix("/")


def _plain(name: str) -> set[str]:
    """Return every plain name that a name or an ARN may stand for."""
    if not name.startswith("arn:"):
        return {name}
    resource = name.split(":", 5)[-1]
    if resource.startswith("parameter/"):
        bare = resource[len("parameter/") :]
        return {bare, "/" + bare}
    if resource.startswith("secret:"):
        bare = resource[len("secret:") :]
        return {bare, bare[:-7]} if bare[-7:-6] == "-" else {bare}
    return {name}
