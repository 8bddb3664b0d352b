"""
Takes out of log lines the values of secrets that this process has seen.

    protect(name, value)    add a value that must not leave the process, and its name
    refresh()               add the secrets that were loaded since the last call
    clean(entry)            return the entry without any of these values

Known are the secrets and SecureString parameters that were loaded, whole and,
where they are JSON, each of their members; the keys of log destinations; and
the function's own AWS credentials.  A value is found as it is, and as JSON (and
JSON within JSON, `NESTED` times), a URL, base64 or hexadecimal write it.

Not taken out: values of fewer than `SHORTEST` characters, words such as
"password" that say only that there is one, and members such as "username" and
"host" that are no secret.  A value that the program changes before it logs it
(half of it, a hash) is not found either: there is no guarantee that none leaves.

Threads
    Any number: what is known is replaced as a whole.
"""

from __future__ import annotations

import binascii
import json
import os
import sys
from json import dumps

from ..aws.signing import quote
from ..lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .entry import Entry

SHORTEST = 4  # characters; a shorter value is found by chance in many lines
ALONE = 8  # a shorter one counts only where no letter or digit touches it
LINE = 16  # the least that one line of several must have
NESTED = 4  # levels of JSON within JSON, each of which escapes once more
MOST = 5_000  # forms of values that are looked for; the oldest are forgotten
FEW = 150  # forms that are looked for one by one
CREDENTIALS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# Members of a secret that are no secret; some as AWS's database secrets have them.
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
PUBLIC = frozenset(
    (
        *("engine", "host", "hostname", "endpoint", "port", "scheme", "ssl", "region"),
        *("dbname", "database", "schema", "dbinstanceidentifier", "masterarn"),
        *("dbclusteridentifier", "user", "username", "login", "email", "name"),
        *("client_id", "clientid", "type", "version"),
    )
)
PLACEHOLDERS = frozenset(
    ("changeme", "dummy", "example", "fake", "local", "none", "null", "password",
     "placeholder", "sample", "secret", "test", "token", "true", "false", "value")
)  # fmt: skip

_lock = process.Lock()
_forms: dict[str, str] = {}  # what is looked for -> what stands instead of it
_starts: dict[str, list[str]] = {}  # the first characters of a form -> the forms
_screen: dict[str, list[str]] = {}  # the same of what to look for in JSON as a whole
_seen: dict[int, Any] = {}  # by id: the answers whose values are known
_credentials: tuple[str, ...] = ()


def protect(name: str, value: str | bytes) -> None:
    """Add *value* as the secret *name*, unless it is too short or a mere word."""
    global _forms, _starts, _screen
    instead = f"[secret {name}]"
    made: dict[str, str] = {}
    for part in _parts(value):
        for form in forms(part):
            made[form] = instead
    if not made:
        return
    with _lock:
        joined = {**_forms, **made}
        if len(joined) > MOST:
            joined = dict([*joined.items()][-MOST:])
        _screen = _by_start({*joined, *(dumps(form)[1:-1] for form in joined)})
        _starts = _by_start(joined)
        _forms = joined


def know(name: str, value: str) -> None:
    """Do as `protect`, unless *value* is known already."""
    refresh()
    if value.strip() not in _forms:
        protect(name, value)


def _by_start(found: Iterable[str]) -> dict[str, list[str]]:
    starts: dict[str, list[str]] = {}
    for form in found:
        starts.setdefault(form[:SHORTEST], []).append(form)
    return starts


def refresh() -> None:
    """Add the secrets that the cache holds now, and the credentials of now."""
    global _credentials
    given = tuple(os.environ.get(name, "") for name in CREDENTIALS)
    if given != _credentials:
        _credentials = given
        for name, value in zip(CREDENTIALS, given, strict=True):
            if value:
                protect(name, value)
    # What was never imported has loaded nothing.
    store = sys.modules.get(f"{__package__.partition('.')[0]}.values.store")
    if store is None:
        return
    for key, slot in store.cache.slots.copy().items():
        entry = slot.entry
        if entry is None or _seen.get(id(entry.answer)) is entry.answer:
            continue
        answer = entry.answer
        with _lock:
            if len(_seen) >= MOST:
                _seen.clear()
            _seen[id(answer)] = answer
        if _is_secret(key.operation, answer):
            protect(key.name, answer.value)


def _is_secret(operation: str, answer: Any) -> bool:
    """Say whether *answer* is a secret's, or a SecureString parameter's."""
    if not isinstance(answer.value, (str, bytes)):
        return False
    if operation == "GetSecretValue":
        return True
    parameter = (answer.response or {}).get("Parameter")
    return isinstance(parameter, dict) and parameter.get("Type") == "SecureString"


def clean(entry: Entry) -> Entry:
    """Return *entry*, or where it holds a secret a copy without it."""
    if not _forms:
        return entry
    text = entry.text()
    if not _found(text, _screen):
        message = entry.message
        if message in text or not _found(message, _screen):
            return entry
    body, message = cleaned(entry.body), cleaned(entry.message)
    if body is entry.body and message is entry.message:
        return entry
    made = entry.copy()
    made.body, made.message = body, message
    return made


def cleaned(value: Any) -> Any:
    """
    Return *value* without secrets: text, or what JSON can hold.

    What JSON has no word for is its text where that holds one.
    """
    if isinstance(value, str):
        return _without(value)
    if isinstance(value, dict):
        changed = {_without(str(key)): cleaned(part) for key, part in value.items()}
        return changed if _differs(changed, value) else value
    if isinstance(value, (list, tuple)):
        parts = [cleaned(part) for part in value]
        same = all(map(_is, parts, value))
        return value if same else parts
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = str(value)
        found = _without(text) if len(text) >= SHORTEST else text
        return value if found == text else found
    if value is None or isinstance(value, bool):
        return value
    try:
        text = str(value)  # as which it is shipped
    except Exception as exc:  # of the user's own __str__
        if process.by_signal_handler(exc):
            raise
        return value
    found = _without(text)
    return value if found == text else found


def _is(one: object, other: object) -> bool:
    return one is other


def _differs(changed: dict[str, Any], given: dict[Any, Any]) -> bool:
    return not (
        changed.keys() == given.keys()
        and all(changed[key] is part for key, part in given.items())
    )


def _without(text: str) -> str:
    found = _found(text, _starts)
    # The longest first, so that all of a value is taken away.
    for form in sorted(found, key=len, reverse=True) if found else ():
        instead = _forms.get(form, "[secret]")
        if len(form) >= ALONE:
            text = text.replace(form, instead)
        else:
            text = _replaced_alone(text, form, instead)
    return text


def _found(text: str, starts: dict[str, list[str]]) -> list[str]:
    """Return the forms that stand in *text*, of those that begin with *starts*."""
    if len(_forms) <= FEW:
        return [form for forms in starts.values() for form in forms if form in text]
    # Of many, only those are looked for whose first characters are there.
    near = {text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1)}
    return [
        form
        for start in near.intersection(starts)
        for form in starts[start]
        if form in text
    ]


def _replaced_alone(text: str, form: str, instead: str) -> str:
    """Replace *form* where no letter or digit touches it."""
    parts: list[str] = []
    start = 0
    at = text.find(form)
    while at >= 0:
        end = at + len(form)
        touched = text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()
        parts += (text[start:at], form if touched else instead)
        start = end
        at = text.find(form, end)
    return "".join((*parts, text[start:])) if parts else text


def _parts(value: str | bytes) -> Iterator[str | bytes]:
    """Yield what is secret of *value*: all of it, its members, its long lines."""
    if isinstance(value, bytes):
        if len(value) >= ALONE:
            yield value
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return
    parsed: Any = None
    if value[:1] in ("{", "["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = None
    if isinstance(parsed, (dict, list)):
        yield value
        yield from _leaves(parsed)
        return
    if _tells(value):
        yield value
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= LINE and _tells(line))


def _leaves(value: Any) -> Iterator[str]:
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for name, member in members:
        if isinstance(member, (dict, list)):
            yield from _leaves(member)
        elif str(name).lower() in PUBLIC:
            continue
        elif isinstance(member, str):
            if _tells(member):
                yield member
        elif type(member) in (int, float) and len(str(member)) >= SHORTEST:
            yield str(member)


def _tells(value: str) -> bool:
    """Say whether *value* is long enough, and more than a word for a secret."""
    plain = value.strip()
    return len(plain) >= SHORTEST and plain.lower() not in PLACEHOLDERS


def forms(value: str | bytes) -> set[str]:
    """Return the ways in which programs write *value*."""
    found: set[str] = set()
    if isinstance(value, bytes):
        raw = value
        found.add(repr(value)[2:-1])
    else:
        raw = value.encode("utf-8", "surrogatepass")
        plain = value.strip()
        found.update((plain, repr(plain)[1:-1]))
        written = {plain}
        for _ in range(NESTED):
            written = {
                dumps(text, ensure_ascii=ascii)[1:-1]
                for text in written
                for ascii in (True, False)
            }
            found |= written
        if len(plain) >= ALONE:
            for safe in (b"-_.~", b"-_.~/"):
                escaped = quote(plain, safe)
                found.update((escaped, escaped.replace("%20", "+")))
    if len(raw) >= ALONE:
        found.add(raw.hex())
        # Within something longer it may begin at each of three places of base64.
        for before in range(3):
            encoded = binascii.b2a_base64(b"\0" * before + raw, newline=False)
            text = encoded.decode().rstrip("=")
            # The characters that share bits with their neighbours are left out.
            text = text[(0, 2, 3)[before] : len(text) - ((len(raw) + before) % 3 > 0)]
            if len(text) >= ALONE:
                found.update((text, text.replace("+", "-").replace("/", "_")))
    return {form for form in found if len(form) >= SHORTEST}


@process.at_reset
def reset() -> None:
    """Forget all secrets: none may be in a snapshot, and tests begin with none."""
    global _forms, _starts, _screen, _credentials
    with _lock:
        _forms = {}
        _starts = _screen = {}
        _seen.clear()
        _credentials = ()
