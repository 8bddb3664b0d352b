"""
Which operations of boto3 are answered from memory, and which ones change what is there.

    read     GetSecretValue, GetParameter: one key
             BatchGetSecretValue by ids, GetParameters: a key for each name
             GetParametersByPath: a key for each page
    write    what changes a secret, a version stage, a parameter or a label:
             the names whose answers may be different from now on
    other    passed through

A read that is not exactly of a form known here (another parameter, another type,
a length that AWS refuses, two equal names, AWSPENDING, filters of secrets) passes
through as well: boto3 and AWS say what is wrong with it, if anything is.

Pure.

Source: the service models of AWS Secrets Manager and AWS Systems Manager,
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Operations.html
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

from ..exceptions import ConfigurationError
from ..values import keys
from ..values.cache import Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from typing import Any

    from ..values.keys import Key

NoneType = type(None)
SERVICES = ("secretsmanager", "ssm")
PENDING = "AWSPENDING"  # read by rotation functions only, which must see each change
METADATA = "ResponseMetadata"
FROM_CACHE = "LambdaExtCached"  # in ResponseMetadata: True where AWS was not asked

BATCH = "BatchGetSecretValue"
MANY = "GetParameters"


class Read:
    """What a read asks for: one key, or a list of them that make one response."""

    __slots__ = ("keys", "operation", "single")

    def __init__(self, operation: str, wanted: Sequence[Key], *, single: bool) -> None:
        self.operation = operation
        self.keys = wanted
        self.single = single

    def __repr__(self) -> str:
        return f"<Read {self.operation} of {len(self.keys)}>"


class ClientWant(Want):
    """What a boto3-shaped client wants: no error is remembered for it."""

    __slots__ = ()

    keeps_errors = False

    def remembers(self, age: float) -> bool:
        """Say that it is asked for again, also where a handle has it."""
        return False


def read(scope: Hashable, operation: str, parameters: Mapping[str, Any]) -> Read | None:
    """Return what *operation* with *parameters* reads; None where it passes through."""
    parse = _READS.get(operation)
    if parse is None:
        return None
    try:
        return parse(scope, parameters)
    except (_Unknown, ConfigurationError):
        return None


def is_read(operation: str) -> bool:
    """Say whether *operation* may be answered from memory."""
    return operation in _READS


def written(operation: str, parameters: Mapping[str, Any]) -> list[str] | None:
    """
    Return the names that *operation* writes to; None where it is no write.

    Names, ARNs and partial ARNs, as they were given; an empty list where they
    cannot be told, which AWS will refuse.
    """
    member = _WRITES.get(operation)
    if member is None:
        return None
    given = parameters.get(member)
    names = given if isinstance(given, (list, tuple)) else [given]
    return [name for name in names if isinstance(name, str)]


def response_names(response: Mapping[str, Any]) -> list[str]:
    """Return the name and the ARN under which the response of a write knows it."""
    return [
        response[member]
        for member in ("ARN", "Name")
        if isinstance(response.get(member), str)
    ]


def reads_of(service: str) -> tuple[str, ...]:
    """Return the operations of *service* that may be answered from memory."""
    if service == "secretsmanager":
        return (keys.SECRET, BATCH)
    return (keys.PARAMETER, MANY, keys.PATH)


def parameters_of(key: Key) -> dict[str, Any]:
    """Return how *key* is asked for by a single read."""
    if key.operation == keys.SECRET:
        found: dict[str, Any] = {"SecretId": key.name}
        if key.version is not None:
            found["VersionId"] = key.version
        if key.stage is not None:
            found["VersionStage"] = key.stage
        return found
    if key.operation == keys.PARAMETER:
        return {"Name": key.name + key.selector, "WithDecryption": key.decrypt}
    found = {
        "Path": key.name,
        "Recursive": key.recursive,
        "WithDecryption": key.decrypt,
    }
    rest: Any = key.rest  # see `_page`
    most, token, filters = rest
    if most is not None:
        found["MaxResults"] = most
    if token is not None:
        found["NextToken"] = token
    if filters is not None:
        found["ParameterFilters"] = [
            {"Key": name, "Values": [*values], **({"Option": option} if option else {})}
            for name, option, values in filters
        ]
    return found


def is_botocores(method: Any, module: str = "botocore.client") -> bool:
    """
    Say whether *method* is what the *module* of botocore's has defined.

    Also with instrumentation around it, which says what it wraps; a test's stand-in
    is not, though it may look like it.
    """
    while (inner := getattr(method, "__wrapped__", None)) is not None:
        method = inner
    return getattr(method, "__globals__", {}).get("__name__") == module


# Batches ---------------------------------------------------------------------


def names_of(operation: str) -> str:
    """Return the parameter of a batch that lists what it reads."""
    return "SecretIdList" if operation == BATCH else "Names"


def values_of(operation: str, response: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the values in a batch's *response*; [] where there is no list of them."""
    found = response.get("SecretValues" if operation == BATCH else "Parameters")
    if not isinstance(found, list):
        return []
    return [value for value in found if isinstance(value, dict)]


def forms(value: Mapping[str, Any]) -> list[str]:
    """Return the names by which a value of a batch may have been asked for."""
    arn = value.get("ARN") or ""
    name = value.get("Name") or ""
    if not (isinstance(arn, str) and isinstance(name, str)):
        return []
    return [arn, name, arn[:-7] if arn[-7:-6] == "-" else arn]


def fits(value: Mapping[str, Any], key: Key) -> bool:
    """
    Say whether a *value* of a batch may be of the version that *key* asks for.

    AWS has a Selector in what was asked for by one; moto has none, but in a version
    there is just one value.
    """
    selector = value.get("Selector")
    if selector is not None:
        return bool(selector == key.selector)
    if key.stage is not None:  # a label, which the current value need not have
        return False
    return not key.version or str(value.get("Version")) == key.version


def single(
    operation: str, value: Mapping[str, Any], response: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a read of *value* alone responds, as it stands in a batch's."""
    metadata = response.get(METADATA)
    if operation == BATCH:
        return {**value, METADATA: metadata}
    return {"Parameter": value, METADATA: metadata}


def refusals(operation: str, response: Mapping[str, Any]) -> dict[str, Any]:
    """Return, by the name that was asked for, what a batch says it has no value of."""
    if operation == MANY:
        names = response.get("InvalidParameters")
        return {name: name for name in names} if isinstance(names, list) else {}
    errors = response.get("Errors")
    return {
        error.get("SecretId", ""): error
        for error in (errors if isinstance(errors, list) else ())
        if isinstance(error, dict)
    }


def composed(
    operation: str,
    singles: Sequence[Mapping[str, Any]],
    refused: Sequence[Any],
    metadata: Any,
) -> dict[str, Any]:
    """
    Return a batch's response made of those of single reads, in AWS's order.

    Parameters stand in the order of their names, secrets in that of the request.
    """
    if operation == BATCH:
        values = [
            {name: part for name, part in each.items() if name != METADATA}
            for each in singles
        ]
        return {"SecretValues": values, "Errors": [*refused], METADATA: metadata}
    parameters = [each["Parameter"] for each in singles]
    parameters.sort(key=lambda each: (each.get("Name"), each.get("Selector") or ""))
    return {
        "Parameters": parameters,
        "InvalidParameters": sorted(refused),
        METADATA: metadata,
    }


# Responses -------------------------------------------------------------------


def copy_of(response: Any) -> Any:
    """Return a copy of a response that shares nothing that can be changed."""
    kind = type(response)
    if kind is dict:
        return {name: copy_of(part) for name, part in response.items()}
    if kind is list:
        return [copy_of(part) for part in response]
    if kind in (str, bytes, int, float, bool, NoneType):
        return response
    # Avoids 0.2 ms of a first read by `client`, whose response has none of these.
    import copy

    return copy.copy(response)  # a date, headers; and what a handler may have put in


DATES = ("CreatedDate", "LastModifiedDate")


def shaped(response: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a copy of *response* as botocore would have it, not as the wire does.

    Without nulls, which emulators write, and with dates.
    """
    copied: dict[str, Any] = copy_of(dict(response))
    lists = [
        copied.get(name) or () for name in ("Parameters", "SecretValues", "Errors")
    ]
    parts = [part for each in lists for part in each]
    for part in (copied, copied.get("Parameter"), *parts):
        if not isinstance(part, dict):
            continue
        if None in part.values():
            for name in [name for name, value in part.items() if value is None]:
                del part[name]
        for name in DATES:
            moment = part.get(name)
            if isinstance(moment, (int, float, str)):
                # Responses that come from boto3 have dates.
                from . import dates

                part[name] = dates.read(moment)
    return copied


def marked(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *response* that says that it came from memory."""
    copied: dict[str, Any] = copy_of(response)
    copied[METADATA] = {**(copied.get(METADATA) or {}), FROM_CACHE: True}
    return copied


class _Unknown(Exception):
    """A form that passes through."""


def _text(value: Any, least: int, most: int) -> str:
    # Exactly str: a subclass may have an __eq__ of its own, and botocore sends it.
    if type(value) is not str or not least <= len(value) <= most:
        raise _Unknown
    return value


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if type(value) is not bool:
        raise _Unknown
    return value


def _only(parameters: Mapping[str, Any], *known: str) -> None:
    for name in parameters:
        if name not in known:
            raise _Unknown


def _names(value: Any, most: int) -> list[str]:
    if type(value) is not list or not 0 < len(value) <= most:
        raise _Unknown
    names = [_text(name, 1, keys.MAX_NAME) for name in value]
    if len(set(names)) < len(names):
        raise _Unknown  # how AWS answers these is its own affair
    return names


def _secret(scope: Hashable, parameters: Mapping[str, Any]) -> Read:
    _only(parameters, "SecretId", "VersionId", "VersionStage")
    name = _text(parameters.get("SecretId"), 1, keys.MAX_NAME)
    version = stage = None
    if "VersionId" in parameters:
        version = _text(parameters["VersionId"], 32, 64)
    if "VersionStage" in parameters:
        stage = _text(parameters["VersionStage"], 1, 256)
        if stage == PENDING:
            raise _Unknown
    key = keys.secret(scope, name, version, stage)
    return Read(keys.SECRET, [key], single=True)


def _secrets(scope: Hashable, parameters: Mapping[str, Any]) -> Read:
    _only(parameters, "SecretIdList")
    names = _names(parameters.get("SecretIdList"), 20)
    return Read(BATCH, [keys.secret(scope, name) for name in names], single=False)


def _one_parameter(scope: Hashable, name: str, *, decrypt: bool) -> Key:
    key = keys.parameter(scope, name, decrypt=decrypt)
    if key.name + key.selector != name:
        raise _Unknown  # "x:01", which AWS answers as it was asked
    return key


def _parameter(scope: Hashable, parameters: Mapping[str, Any]) -> Read:
    _only(parameters, "Name", "WithDecryption")
    name = _text(parameters.get("Name"), 1, keys.MAX_NAME)
    decrypt = _flag(parameters, "WithDecryption")
    key = _one_parameter(scope, name, decrypt=decrypt)
    return Read(keys.PARAMETER, [key], single=True)


def _parameters(scope: Hashable, parameters: Mapping[str, Any]) -> Read:
    _only(parameters, "Names", "WithDecryption")
    names = _names(parameters.get("Names"), 10)
    decrypt = _flag(parameters, "WithDecryption")
    wanted = [_one_parameter(scope, name, decrypt=decrypt) for name in names]
    return Read(MANY, wanted, single=False)


def _page(scope: Hashable, parameters: Mapping[str, Any]) -> Read:
    known = ("Path", "Recursive", "WithDecryption", "MaxResults", "NextToken")
    _only(parameters, *known, "ParameterFilters")
    path = _text(parameters.get("Path"), 1, keys.MAX_NAME)
    recursive = _flag(parameters, "Recursive")
    decrypt = _flag(parameters, "WithDecryption")
    if None in parameters.values():
        raise _Unknown  # which botocore refuses
    most = parameters.get("MaxResults", 1)
    if type(most) is not int or not 1 <= most <= 10:
        raise _Unknown
    _text(parameters.get("NextToken", ""), 0, 4096)
    rest = (
        parameters.get("MaxResults"),
        parameters.get("NextToken"),
        _filters(parameters.get("ParameterFilters")),
    )
    key = keys.path(scope, path, recursive=recursive, decrypt=decrypt)
    if key.name != path:
        raise _Unknown  # a slash at the end, which AWS judges
    return Read(keys.PATH, [key.with_rest(rest)], single=True)


def _filters(value: Any) -> Hashable:
    """Return the filters of parameters as something that can be compared."""
    if value is None:
        return None
    if type(value) is not list:
        raise _Unknown
    frozen = []
    for each in value:
        if type(each) is not dict:
            raise _Unknown
        _only(each, "Key", "Option", "Values")
        values = each.get("Values", [])
        if type(values) is not list or ("Values" in each and not values):
            raise _Unknown
        texts = [_text(part, 1, 1024) for part in (*values, each.get("Key"))]
        option = each.get("Option")
        if "Option" in each:
            _text(option, 1, 10)
        frozen.append((texts[-1], option, tuple(texts[:-1])))
    return tuple(frozen)


_READS: dict[str, Callable[[Hashable, Mapping[str, Any]], Read]] = {
    keys.SECRET: _secret,
    BATCH: _secrets,
    keys.PARAMETER: _parameter,
    MANY: _parameters,
    keys.PATH: _page,
}

_WRITES = {  # operation -> the parameter that names what is written to
    "CancelRotateSecret": "SecretId",
    "CreateSecret": "Name",
    "DeleteSecret": "SecretId",
    "PutSecretValue": "SecretId",
    "RemoveRegionsFromReplication": "SecretId",
    "ReplicateSecretToRegions": "SecretId",
    "RestoreSecret": "SecretId",
    "RotateSecret": "SecretId",
    "StopReplicationToReplica": "SecretId",
    "UpdateSecret": "SecretId",
    "UpdateSecretVersionStage": "SecretId",
    "DeleteParameter": "Name",
    "DeleteParameters": "Names",
    "LabelParameterVersion": "Name",
    "PutParameter": "Name",
    "UnlabelParameterVersion": "Name",
}
