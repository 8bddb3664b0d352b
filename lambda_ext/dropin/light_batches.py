"""
Reads of many keys by `client`: what `cached` does, over the light transport.

A batch is asked for by the operation and with the names that the caller has
written, since a role may allow one operation and not the other, and AWS refuses
a whole GetParameters where it denies one name.

Loaded by the first batch.
"""

from __future__ import annotations

from ..aws import errors
from ..aws.transport import transport
from ..exceptions import LambdaExtError
from ..values import keys, settings
from ..values.sources import answers
from . import botocore_errors, operations
from .client_source import ClientSource, wire
from .mixin import Options, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..typing import Source

_LISTS = {  # of a batch's response: the members that boto3 hands on of each entry
    "SecretValues": answers.SECRET_MEMBERS,
    "Errors": ("SecretId", "ErrorCode", "Message"),
    "Parameters": answers.PARAMETER_MEMBERS,
}


class LightState(State):
    """What a light client needs to answer batches from memory."""

    __slots__ = ("_light",)

    def __init__(self, light: Any, source: Source) -> None:
        self.options = Options()
        self.service, *_ = source.scope  # type: ignore[misc]
        self._base_scope = source.scope  # type: ignore[assignment]
        self._mock = None
        self._around = ()
        self._index = {}
        self._light = transport(self.service)
        self._source = ClientSource(light, self, self.scope)

    def may_serve(self) -> bool:
        """Say that answers come from the wire: no other library stands before it."""
        return True

    def plain_call(self, client: Any, operation: str, parameters: Any) -> Any:
        """Call *operation* by the light transport."""
        kind = keys.SECRET if self.service == answers.SECRETS else keys.PARAMETER
        exception: BaseException
        try:
            answer = self._light.call(
                operation, parameters, timeout_s=settings.timeout_of(kind)
            )
        except errors.IsolatedError:
            exception = errors.isolated(
                client._named(operation, parameters), client=True
            )
        except LambdaExtError as exc:
            known = None
            if exc.wire is not None:
                known = botocore_errors.exception(exc.wire, self.service, operation)
            exception = known or exc
        else:
            wire.seen = True
            return operations.shaped(_modelled(answer))
        raise exception  # not above: ours would be its context

    def _pass(self, client: Any, operation: str, parameters: Any) -> Any:
        """Ask AWS for the caller alone; None: boto3's client is to be asked."""
        try:
            return self.plain_call(client, operation, parameters)
        except errors.IsolatedError:
            raise
        except LambdaExtError:
            return None


def _modelled(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what boto3 hands on of *answer*."""
    found: dict[str, Any] = {}
    for name, part in answer.items():
        if name in _LISTS:
            found[name] = [
                {member: each[member] for member in _LISTS[name] if member in each}
                for each in part
            ]
        elif name in ("InvalidParameters", "NextToken", operations.METADATA):
            found[name] = part
    return found
