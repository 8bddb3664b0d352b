"""
The source of parameters: Systems Manager Parameter Store, up to 10 in a call.

GetParameters denies a call whole when one of its names is denied, and answers
under plain names whatever was asked for.  So two versions or labels of one
parameter never share a call, and where a batch is denied each name is asked
for by itself: if all of them may be read, the role lacks the batch action; if
some may not, those are kept out of batches.

Source: GetParameter, GetParameters and GetParametersByPath,
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
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

SERVICE = "ssm"
BATCH = 10  # Names: 1 to 10 items
DENIED = ("AccessDeniedException", "AccessDenied")
MAX_ALONE = 1000  # names that are known to spoil a batch


class ParameterStore:
    """Parameters of one account and region, read with one set of credentials."""

    __slots__ = ("__weakref__", "_alone", "_batching", "_way", "scope")

    name = "parameter_store"

    def __init__(self, *, client: Any = None, session: Any = None) -> None:
        self._way = transport(SERVICE, client=client, session=session)
        self._batching = True  # until the role turns out to lack the action
        self._alone: dict[str, None] = {}  # names that spoil a batch
        self.scope: Hashable = self._way.scope

    def __repr__(self) -> str:
        return "<ParameterStore>"  # the scope holds an access key id

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Divide *wanted* into calls: by 10, each name but once in a call."""
        calls: list[Sequence[Key]] = []
        waiting: dict[bool, list[Key]] = {}
        for key in wanted:
            if (
                self._batching
                and key.operation == keys.PARAMETER
                and key.name not in self._alone
            ):
                waiting.setdefault(key.decrypt, []).append(key)
            else:
                calls.append([key])
        for together in waiting.values():
            while together:
                taken: dict[str, str] = {}
                call: list[Key] = []
                later: list[Key] = []
                for key in together:
                    plain = _plain(key.name)
                    clash = taken.get(plain, key.selector) != key.selector
                    if clash or len(call) == BATCH:
                        later.append(key)
                    else:
                        taken[plain] = key.selector
                        call.append(key)
                calls.append(call)
                together[:] = later
        return calls

    def fetch(
        self, wanted: Sequence[Key], deadline_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask AWS for *wanted*, in one call where that is possible."""
        if wanted[0].operation == keys.PATH:
            return self._below(wanted[0], deadline_s)
        if len(wanted) == 1:
            return {wanted[0]: self._one(wanted[0], deadline_s)}
        ends_at = instant(deadline_s)
        parameters = {
            "Names": [key.name + key.selector for key in wanted],
            "WithDecryption": wanted[0].decrypt,
        }
        try:
            answer = self._way.call("GetParameters", parameters, deadline_s=deadline_s)
        except SourceError as exc:
            if not errors.is_about_content(exc):
                raise
            return self._apart(wanted, exc, ends_at)
        return self._matched(wanted, answer, ends_at)

    def _apart(
        self, wanted: Sequence[Key], refusal: SourceError, ends_at: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        """Ask one by one after a refused batch, and learn whom to blame."""
        found = each(wanted, lambda key: self._one(key, until(ends_at)))
        refused = [
            key.name
            for key, result in found.items()
            if isinstance(result, SourceError) and result.code == refusal.code
        ]
        if not refused:
            self._batching = self._batching and refusal.code not in DENIED
        elif len(refused) < len(wanted) and len(self._alone) < MAX_ALONE:
            self._alone.update(dict.fromkeys(refused))
        return found

    def _one(self, key: Key, deadline_s: float | None) -> Answer | LambdaExtError:
        parameters = {"Name": key.name + key.selector, "WithDecryption": key.decrypt}
        try:
            answer = self._way.call("GetParameter", parameters, deadline_s=deadline_s)
        except LambdaExtError as exc:
            return exc
        return _answer(answer.get("Parameter") or {}, key)

    def _matched(
        self, wanted: Sequence[Key], batch: Mapping[str, Any], ends_at: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        """Return what a batch answers, key by key, by name and by ARN."""
        found: dict[Key, Answer | LambdaExtError] = {}
        values = batch.get("Parameters") or ()
        invalid = set(batch.get("InvalidParameters") or ())
        unmatched = []
        for key in wanted:
            if key.name + key.selector in invalid:
                found[key] = self._not_found(key)
                continue
            value = next((value for value in values if _is_of(value, key)), None)
            if value is None:
                unmatched.append(key)
            else:
                found[key] = _answer(value, key)
        if unmatched:  # AWS answered under a name that we cannot tell
            found.update(each(unmatched, lambda key: self._one(key, until(ends_at))))
        return found

    def _not_found(self, key: Key) -> LambdaExtError:
        # InvalidParameters does not tell if the name or its version is missing.
        return errors.from_code(
            "ParameterNotFound",
            "",
            service=SERVICE,
            key=key.label,
            region=str(self._way.scope[1]),
        )

    def _below(
        self, key: Key, deadline_s: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        """Ask for all parameters below a path, page by page, and keep each."""
        parameters: dict[str, Any] = {
            "Path": key.name,
            "Recursive": key.recursive,
            "WithDecryption": key.decrypt,
            "MaxResults": BATCH,
        }
        ends_at = instant(deadline_s)
        found: dict[Key, Answer | LambdaExtError] = {}
        values: dict[str, str] = {}
        versions = []
        while True:
            try:
                page = self._way.call(keys.PATH, parameters, deadline_s=until(ends_at))
            except LambdaExtError as exc:
                return {key: exc}  # half of them would look like all of them
            for value in page.get("Parameters") or ():
                name = value.get("Name") or ""
                one = keys.parameter(key.scope, name, decrypt=key.decrypt)
                answer = _answer(value, one)
                if isinstance(answer, LambdaExtError):
                    return {key: answer}
                found[one] = answer
                values[name] = answer.value
                versions.append(f"{name}:{answer.version}")
            token = page.get("NextToken")  # a page may be empty, and not the last
            if not token:
                break
            parameters["NextToken"] = token
        found[key] = Answer(values, ",".join(versions))
        return found


def _plain(name: str) -> str:
    """Return what a name and an ARN of one parameter have in common."""
    if name.startswith("arn:"):
        name = name.split(":", 5)[-1].removeprefix("parameter")
    return name.lstrip("/")


def _is_of(value: Mapping[str, Any], key: Key) -> bool:
    if key.name not in (value.get("Name"), value.get("ARN")):
        return False
    selector = value.get("Selector")
    return not selector or keys.split("x" + selector)[1] == key.selector[1:]


def _answer(value: Mapping[str, Any], key: Key) -> Answer | LambdaExtError:
    raw = value.get("Value")
    if raw is None:
        return errors.unreadable("it has no value", service=SERVICE, key=key.label)
    return Answer(raw, str(value.get("Version") or ""), value.get("ARN") or "")
