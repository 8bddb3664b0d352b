"""
The source of secrets: AWS Secrets Manager, up to 20 in one call.

BatchGetSecretValue answers for current versions only, and for each secret by
itself: what is denied or missing stands in its ``Errors``.  Everything else,
and everybody whose role lacks the batch action, is asked for one by one.

Source: GetSecretValue and BatchGetSecretValue,
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
"""

from __future__ import annotations

from ..aws import errors
from ..aws.transport import transport
from ..exceptions import LambdaExtError, SourceError
from . import keys
from .cache import Answer
from .fanout import each, instant, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from typing import Any

    from .keys import Key

SERVICE = "secretsmanager"
BATCH = 20  # SecretIdList: 1 to 20 items


class SecretsManager:
    """Secrets of one account and region, read with one set of credentials."""

    __slots__ = ("__weakref__", "_batching", "_way", "scope")

    name = "secrets_manager"

    def __init__(self, *, client: Any = None, session: Any = None) -> None:
        self._way = transport(SERVICE, client=client, session=session)
        self._batching = True  # until the role turns out to lack the action
        self.scope: Hashable = self._way.scope

    def __repr__(self) -> str:
        return "<SecretsManager>"  # the scope holds an access key id

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Divide *wanted* into calls: by 20, versions one by one."""
        together = [key for key in wanted if self._batching and _is_current(key)]
        if len(together) < 2:
            return [[key] for key in wanted]
        alone = [[key] for key in wanted if not _is_current(key)]
        return [*keys.chunks(together, BATCH), *alone]

    def fetch(
        self, wanted: Sequence[Key], deadline_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask AWS for *wanted*, in one call where that is possible."""
        if len(wanted) == 1:
            return {wanted[0]: self._one(wanted[0], deadline_s)}
        ends_at = instant(deadline_s)
        try:
            answer = self._way.call(
                "BatchGetSecretValue",
                {"SecretIdList": [key.name for key in wanted]},
                deadline_s=deadline_s,
            )
        except SourceError as exc:
            if not errors.is_about_content(exc):
                raise
            if exc.code in DENIED:  # those of single secrets stand in `Errors`
                self._batching = False
            return each(wanted, lambda key: self._one(key, until(ends_at)))
        return self._matched(wanted, answer, ends_at)

    def _one(self, key: Key, deadline_s: float | None) -> Answer | LambdaExtError:
        parameters = {"SecretId": key.name}
        if key.version is not None:
            parameters["VersionId"] = key.version
        if key.stage is not None and key.stage != keys.CURRENT:
            parameters["VersionStage"] = key.stage
        try:
            answer = self._way.call("GetSecretValue", parameters, deadline_s=deadline_s)
        except LambdaExtError as exc:
            return exc
        return _answer(answer, key.name)

    def _matched(
        self, wanted: Sequence[Key], batch: Mapping[str, Any], ends_at: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        """Return what a batch answers, key by key, by name and by any ARN."""
        values = batch.get("SecretValues") or ()
        refused = {
            error.get("SecretId"): errors.from_code(
                error.get("ErrorCode") or "",
                error.get("Message") or "",
                service=SERVICE,
                key=error.get("SecretId") or "",
                region=str(self._way.scope[1]),
            )
            for error in batch.get("Errors") or ()
        }
        found: dict[Key, Answer | LambdaExtError] = {}
        unmatched = []
        for key in wanted:
            value = next((value for value in values if _is_of(value, key.name)), None)
            if value is not None:
                found[key] = _answer(value, key.name)
            elif key.name in refused:
                found[key] = refused[key.name]
            else:
                unmatched.append(key)
        if unmatched:  # AWS answered under a name that we cannot tell
            found.update(each(unmatched, lambda key: self._one(key, until(ends_at))))
        return found


# Of the action itself; KMS and credentials have codes of their own.
DENIED = ("AccessDeniedException", "AccessDenied")


def _is_current(key: Key) -> bool:
    return key.version is None and key.stage == keys.CURRENT


def _is_of(value: Mapping[str, Any], name: str) -> bool:
    arn = value.get("ARN") or ""
    return name == value.get("Name") or (
        name.startswith("arn:") and keys.is_arn_of(arn, name)
    )


def _answer(value: Mapping[str, Any], name: str) -> Answer | LambdaExtError:
    raw = value.get("SecretString")
    if raw is None:
        raw = value.get("SecretBinary")
    if raw is None:
        return errors.unreadable("it has no value", service=SERVICE, key=name)
    return Answer(raw, value.get("VersionId") or "", value.get("ARN") or "")
