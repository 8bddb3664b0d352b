"""
The source of secrets: AWS Secrets Manager, up to 20 in one call.

BatchGetSecretValue answers for current versions only, and for each secret by
itself: what is denied or missing stands in its ``Errors``.  Versions and stages
are asked for one by one, and so is what a batch leaves open.  So is everything
where the role, the client or the server lacks the batch action.

Source: GetSecretValue and BatchGetSecretValue,
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
"""

from __future__ import annotations

from ...aws import errors
from ...aws.transport import transport
from ...exceptions import LambdaExtError, SourceError
from . import answers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import Any

    from ...answer import Answer
    from ..keys import Key

SERVICE = answers.SECRETS
BATCH = 20  # SecretIdList: 1 to 20 items


class SecretsManager:
    """Secrets of one account and region, read with one set of credentials."""

    __slots__ = ("__weakref__", "_batching", "_transport", "scope")

    name = "secrets_manager"

    def __init__(self, *, client: Any = None, session: Any = None) -> None:
        self._transport = transport(SERVICE, client=client, session=session)
        self._batching = True  # until the role turns out to lack the action
        self.scope: Hashable = self._transport.scope

    def __repr__(self) -> str:
        return "<SecretsManager>"  # the scope holds an access key id

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Divide *wanted* into calls: by 20, versions and stages one by one."""
        if len(wanted) < 2 or not self._batching:
            return [[key] for key in wanted]
        # One value alone needs none of it.
        from .. import aliases

        together = [key for key in wanted if _is_current(key)]
        alone = [[key] for key in wanted if not _is_current(key)]
        return [*aliases.packed(together, BATCH), *alone]

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask AWS for *wanted*, in one call where that is possible."""
        if len(wanted) == 1:
            return {wanted[0]: self._one(wanted[0], timeout_s)}
        if len(self.plan(wanted)) > 1:
            return {}  # they are asked for one by one
        try:
            answer = self._transport.call(
                "BatchGetSecretValue",
                {"SecretIdList": [key.name for key in wanted]},
                timeout_s=timeout_s,
            )
        except LambdaExtError as exc:
            if errors.lacks_operation(exc):
                self._batching = False
            elif not (isinstance(exc, SourceError) and errors.is_about_content(exc)):
                raise
            elif exc.code in DENIED:  # those of single secrets stand in `Errors`
                self._batching = False
            return {}
        return self._matched(wanted, answer)

    def _one(self, key: Key, timeout_s: float | None) -> Answer | LambdaExtError:
        parameters = {"SecretId": key.name}
        if key.version is not None:
            parameters["VersionId"] = key.version
        if key.stage is not None:
            parameters["VersionStage"] = key.stage
        try:
            answer = self._transport.call(
                "GetSecretValue", parameters, timeout_s=timeout_s
            )
        except LambdaExtError as exc:
            return exc
        return answers.secret(answer, key)

    def _matched(
        self, wanted: Sequence[Key], batch: Mapping[str, Any]
    ) -> dict[Key, Answer | LambdaExtError]:
        """Return what a batch certainly answers, key by key, by name and by any ARN."""
        asked = ", ".join(key.name for key in wanted)
        values = answers.entries(batch, "SecretValues", SERVICE, asked)
        refused = answers.entries(batch, "Errors", SERVICE, asked)
        reasons = {error.get("SecretId"): error for error in refused}
        found: dict[Key, Answer | LambdaExtError] = {
            key: self._refusal(reasons[key.name], key)
            for key in wanted
            if key.name in reasons
        }
        matched = answers.matched(wanted, values, _forms)
        for key, value in matched.items():
            found.setdefault(key, answers.secret(value, key, batch))
        return found

    def _refusal(self, error: Mapping[str, Any], key: Key) -> SourceError:
        code, text = error.get("ErrorCode"), error.get("Message") or ""
        if not (isinstance(code, str) and code and isinstance(text, str)):
            reason = "an error in it has no code"
            return errors.unreadable(reason, service=SERVICE, key=key.name)
        region = str(self._transport.scope[1])
        refusal = errors.from_code(
            code, text, service=SERVICE, key=key.name, region=region
        )
        refusal.wire = errors.WireFailure("part")
        return refusal


# Of the action itself; KMS and credentials have codes of their own.
DENIED = ("AccessDeniedException", "AccessDenied")


def _is_current(key: Key) -> bool:
    return key.version is None and key.stage is None


def _forms(value: Mapping[str, Any]) -> Iterable[str]:
    """Return the names by which a secret may have been asked for."""
    arn = value.get("ARN") or ""
    partial = arn[:-7] if arn[-7:-6] == "-" else arn
    return arn, partial, value.get("Name") or ""
