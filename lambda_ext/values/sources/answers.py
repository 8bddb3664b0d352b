"""
What an answer of AWS must be before a value of it is handed out.

A proxy, a gateway, an emulator or a client under test may answer with JSON
that AWS never sends.  A member of the wrong type is a transient error, so that a
remembered value serves meanwhile.

Guarantees
    What is handed out is text or bytes.
    An entry of a batch is given to a request only if it cannot be the answer
    to another one of the same call.  What is left over is asked for singly.
    An ARN is passed on only where it belongs to the name that was asked for,
    since names with one ARN share what is remembered.

Pure.
"""

from __future__ import annotations

from ...answer import Answer
from ...aws import errors
from .. import keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from ...exceptions import SourceError
    from ..keys import Key

    Entry = Mapping[str, Any]

SECRETS = "secretsmanager"
PARAMETERS = "ssm"


# What boto3 hands on of a value; its model drops the rest.
SECRET_MEMBERS = (
    "ARN", "Name", "VersionId", "SecretBinary", "SecretString", "VersionStages",
    "CreatedDate",
)  # fmt: skip
PARAMETER_MEMBERS = (
    "Name", "Type", "Value", "Version", "Selector", "SourceResult",
    "LastModifiedDate", "ARN", "DataType",
)  # fmt: skip
METADATA = "ResponseMetadata"


def _members(document: Entry, members: Iterable[str]) -> dict[str, Any]:
    return {name: document[name] for name in members if name in document}


def secret(
    document: Entry, key: Key, batch: Entry | None = None
) -> Answer | SourceError:
    """
    Return what GetSecretValue answered to *key*, or what is wrong with it.

    Of a *batch*, *document* is the entry.
    """
    text, blob = document.get("SecretString"), document.get("SecretBinary")
    raw: str | bytes
    if isinstance(text, str):
        raw = text
    elif text is None and isinstance(blob, (bytes, bytearray)):
        raw = bytes(blob)
    elif text is None and blob is None:
        return _unreadable("it has no value", SECRETS, key)
    else:
        return _unreadable("its value is neither text nor bytes", SECRETS, key)
    version, arn = document.get("VersionId") or "", document.get("ARN") or ""
    if not (isinstance(version, str) and isinstance(arn, str)):
        return _unreadable("its version or its ARN is not text", SECRETS, key)
    response = _members(document, SECRET_MEMBERS)
    response[METADATA] = (document if batch is None else batch).get(METADATA)
    arn = arn if keys.is_arn_of(arn, key.name) else ""
    return Answer(raw, version, arn, response=response)


def parameter(
    document: object, key: Key, whole: Entry | None = None
) -> Answer | SourceError:
    """
    Return what was answered to *key*, the member Parameter of GetParameter.

    *whole* is the response in which it, or the batch's entry, stands.
    """
    if not isinstance(document, dict):
        return _unreadable("it is not a JSON object", PARAMETERS, key)
    raw = document.get("Value")
    if raw is None:
        return _unreadable("it has no value", PARAMETERS, key)
    if not isinstance(raw, str):
        return _unreadable("its value is not text", PARAMETERS, key)
    version, arn = document.get("Version") or "", document.get("ARN") or ""
    if isinstance(version, bool) or not isinstance(version, (int, str)):
        return _unreadable("its version is not a number", PARAMETERS, key)
    if not isinstance(arn, str):
        return _unreadable("its ARN is not text", PARAMETERS, key)
    if not keys.is_arn_of_parameter(arn, key.name, document.get("Name")):
        arn = ""
    response = {
        "Parameter": _members(document, PARAMETER_MEMBERS),
        METADATA: (whole or {}).get(METADATA),
    }
    return Answer(raw, str(version), arn, response=response)


def page(document: Entry, values: Iterable[Entry]) -> dict[str, Any]:
    """Return the response of GetParametersByPath, with what boto3 hands on of it."""
    response: dict[str, Any] = {
        "Parameters": [_members(value, PARAMETER_MEMBERS) for value in values]
    }
    if document.get("NextToken"):
        response["NextToken"] = document["NextToken"]
    response[METADATA] = document.get(METADATA)
    return response


def entries(document: object, member: str, service: str, label: str) -> list[Entry]:
    """
    Return the objects in the array *member* of a batch or a page; [] without it.

    Raises:
        SourceError: it is no array of objects with texts for names; transient.
    """
    found = document.get(member) if isinstance(document, dict) else 0
    if found is None:
        return []
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        names = [each.get(name) for each in found for name in ("ARN", "Name")]
        if all(name is None or isinstance(name, str) for name in names):
            return found
    reason = f"{member} is no array of objects with names"
    raise errors.unreadable(reason, service=service, key=label)


def matched(
    wanted: Sequence[Key],
    values: Iterable[Entry],
    forms: Callable[[Entry], Iterable[str]],
    fits: Callable[[Entry, Key], bool] = lambda value, key: True,
) -> dict[Key, Entry]:
    """
    Return the one of *values* that answers each of *wanted*, where that is certain.

    *forms* returns the names under which a value may have been asked for, and
    *fits* says whether it is of the version that was.  Certain is an exact ARN
    that was asked for once, else a value that no other request may have
    brought, and that is the only one for its request.
    """
    askers: dict[str, list[Key]] = {}
    for key in wanted:
        askers.setdefault(key.name, []).append(key)
    exact: dict[Key, Entry] = {}
    offers: dict[Key, list[Entry | None]] = {}
    for value in values:
        claims = [
            key
            for form in {*forms(value)}
            for key in askers.get(form, ())
            if fits(value, key)
        ]
        for key in claims:
            if key.name == value.get("ARN") and len(askers[key.name]) == 1:
                exact.setdefault(key, value)
            offers.setdefault(key, []).append(value if len(claims) == 1 else None)
    certain = {
        key: value
        for key, (value, *more) in offers.items()
        if value is not None and not more
    }
    return {**certain, **exact}


def _unreadable(reason: str, service: str, key: Key) -> SourceError:
    return errors.unreadable(reason, service=service, key=key.label)
