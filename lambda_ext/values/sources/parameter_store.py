"""
The source of parameters: Systems Manager Parameter Store, up to 10 in a call.

GetParameters denies a call whole when one of its names is denied, and answers
under plain names, also to ARNs and for parameters that another account shares.
So two requests that may mean one parameter never share a call, nor do two
versions or labels of it; what a batch leaves open is asked for singly.  Where a
batch is denied each name is asked for by itself: if all of them may be read,
the role lacks the batch action; if some may not, those are kept out of batches.

Source: GetParameter, GetParameters and GetParametersByPath,
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
"""

from __future__ import annotations

import contextlib

from ...answer import Answer
from ...aws import errors
from ...aws.transport import transport
from ...exceptions import ConfigurationError, LambdaExtError, SourceError
from .. import calls, keys
from . import answers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import Any

    from ..keys import Key

SERVICE = answers.PARAMETERS
BATCH = 10  # Names: 1 to 10 items
DENIED = ("AccessDeniedException", "AccessDenied")
MAX_ALONE = 1000  # names for which AWS refuses a whole batch
# Of a path: an account and region holds 100,000 advanced parameters, and pages
# may be short or empty.
MAX_PAGES = 100_000


class ParameterStore:
    """Parameters of one account and region, read with one set of credentials."""

    __slots__ = ("__weakref__", "_alone", "_batching", "_transport", "_trials", "scope")

    name = "parameter_store"

    def __init__(self, *, client: Any = None, session: Any = None) -> None:
        self._transport = transport(SERVICE, client=client, session=session)
        self._batching = True  # until the role turns out to lack the action
        self._alone: dict[str, None] = {}  # names for which AWS refuses a whole batch
        self._trials: dict[Key, _Trial] = {}  # of names in a refused batch
        self.scope: Hashable = self._transport.scope

    def __repr__(self) -> str:
        return "<ParameterStore>"  # the scope holds an access key id

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Divide *wanted* into calls: by 10, each name but once in a call."""
        if len(wanted) < 2:
            return [[key] for key in wanted]
        # One value alone needs none of it.
        from .. import aliases

        planned: list[Sequence[Key]] = []
        waiting: dict[bool, list[Key]] = {}
        for key in wanted:
            if (
                self._batching
                and key.operation == keys.PARAMETER
                and key.name not in self._alone
            ):
                waiting.setdefault(key.decrypt, []).append(key)
            else:
                planned.append([key])
        for together in waiting.values():
            planned.extend(aliases.packed(together, BATCH))
        return planned

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | LambdaExtError]:
        """Ask AWS for *wanted*, in one call where that is possible."""
        if wanted[0].rest is not None:
            return {wanted[0]: self._page(wanted[0], timeout_s)}
        if wanted[0].operation == keys.PATH:
            return self._below(wanted[0], timeout_s)
        if len(wanted) == 1:
            return {wanted[0]: self._one(wanted[0], timeout_s)}
        if len(self.plan(wanted)) > 1:
            return {}  # they are asked for one by one
        parameters = {
            "Names": [key.name + key.selector for key in wanted],
            "WithDecryption": wanted[0].decrypt,
        }
        try:
            answer = self._transport.call(
                "GetParameters", parameters, timeout_s=timeout_s
            )
        except LambdaExtError as exc:
            if errors.lacks_operation(exc):
                self._batching = False
            elif isinstance(exc, SourceError) and errors.is_about_content(exc):
                trial = _Trial(exc.code, wanted)
                self._trials.update(dict.fromkeys(wanted, trial))
            else:
                raise
            return {}
        return self._matched(wanted, answer)

    def _one(self, key: Key, timeout_s: float | None) -> Answer | LambdaExtError:
        parameters = {"Name": key.name + key.selector, "WithDecryption": key.decrypt}
        outcome: Answer | LambdaExtError
        try:
            answer = self._transport.call(
                "GetParameter", parameters, timeout_s=timeout_s
            )
            outcome = answers.parameter(answer.get("Parameter"), key, answer)
        except LambdaExtError as exc:
            outcome = exc
        trial = self._trials.pop(key, None)
        if trial is not None:
            self._learn(trial, key, outcome)
        return outcome

    def _learn(self, trial: _Trial, key: Key, outcome: Answer | LambdaExtError) -> None:
        """Note what *key* answered by itself; the last one tells why the batch failed."""
        if isinstance(outcome, SourceError) and outcome.code == trial.code:
            trial.refused.add(key.name)
        trial.waiting.discard(key)
        if trial.waiting:
            return
        if not trial.refused:
            self._batching = self._batching and trial.code not in DENIED
        elif len(trial.refused) < trial.count and len(self._alone) < MAX_ALONE:
            self._alone.update(dict.fromkeys(trial.refused))

    def _matched(
        self, wanted: Sequence[Key], batch: Mapping[str, Any]
    ) -> dict[Key, Answer | LambdaExtError]:
        """Return what a batch certainly answers, key by key, by name and by ARN."""
        asked = ", ".join(key.label for key in wanted)
        values = answers.entries(batch, "Parameters", SERVICE, asked)
        invalid = batch.get("InvalidParameters") or []
        if not isinstance(invalid, list):
            reason = "InvalidParameters is no array"
            raise errors.unreadable(reason, service=SERVICE, key=asked)
        found: dict[Key, Answer | LambdaExtError] = {
            key: self._not_found(key)
            for key in wanted
            if key.name + key.selector in invalid
        }
        matched = answers.matched(wanted, values, _forms, _fits)
        for key, value in matched.items():
            found.setdefault(key, answers.parameter(value, key, batch))
        return found

    def _not_found(self, key: Key) -> LambdaExtError:
        # InvalidParameters does not tell if the name or its version is missing.
        error = errors.from_code(
            "ParameterNotFound",
            "",
            service=SERVICE,
            key=key.label,
            region=str(self._transport.scope[1]),
        )
        error.wire = errors.WireFailure("part")
        return error

    def _page(self, key: Key, timeout_s: float | None) -> Answer | LambdaExtError:
        """Ask for one page below a path, as a drop-in client does."""
        rest: Any = key.rest
        most, token, filters = rest
        parameters: dict[str, Any] = {
            "Path": key.name,
            "Recursive": key.recursive,
            "WithDecryption": key.decrypt,
        }
        if most is not None:
            parameters["MaxResults"] = most
        if token is not None:
            parameters["NextToken"] = token
        if filters is not None:
            parameters["ParameterFilters"] = [
                {"Key": name, "Values": [*values]} | ({"Option": how} if how else {})
                for name, how, values in filters
            ]
        try:
            page = self._transport.call(keys.PATH, parameters, timeout_s=timeout_s)
            entries = answers.entries(page, "Parameters", SERVICE, key.label)
        except LambdaExtError as exc:
            return exc
        return Answer("", response=answers.page(page, entries))

    def _below(
        self, key: Key, timeout_s: float | None
    ) -> dict[Key, Answer | LambdaExtError]:
        """Ask for all parameters below a path, page by page, and keep each."""
        parameters: dict[str, Any] = {
            "Path": key.name,
            "Recursive": key.recursive,
            "WithDecryption": key.decrypt,
            "MaxResults": BATCH,
        }
        ends_at = calls.after(timeout_s)
        found: dict[Key, Answer | LambdaExtError] = {}
        values: dict[str, str] = {}
        versions = []
        tokens: set[str] = set()
        while True:
            try:
                page = self._transport.call(
                    keys.PATH, parameters, timeout_s=calls.remaining(ends_at)
                )
                entries = answers.entries(page, "Parameters", SERVICE, key.label)
                for entry in entries:
                    one = self._of_page(entry, key)
                    answer = answers.parameter(entry, one, page)
                    if not isinstance(answer, Answer):
                        return {key: answer}
                    found[one] = answer
                    values[one.name] = answer.value
                    versions.append(f"{one.name}:{answer.version}")
                token = page.get("NextToken")  # an empty page may not be the last
                if not token:
                    break
                if not isinstance(token, str):
                    raise _unreadable("its NextToken is not text", key)
                if token in tokens:
                    raise _unreadable("the same NextToken came twice", key)
                if len(tokens) == MAX_PAGES:
                    raise _unreadable(f"it has more than {MAX_PAGES} pages", key)
            except LambdaExtError as exc:
                return {key: exc}  # half of them would look like all of them
            tokens.add(token)
            parameters["NextToken"] = token
        found[key] = Answer(values, ",".join(versions))
        return found

    def _of_page(self, entry: Mapping[str, Any], key: Key) -> Key:
        """Return the request that *entry* of a page of *key* answers."""
        name = entry.get("Name") or ""
        below = key.name == "/" or name.startswith(key.name + "/")
        if below and ":" not in name:
            with contextlib.suppress(ConfigurationError):  # empty, or too long
                return keys.parameter(key.scope, name, decrypt=key.decrypt)
        raise _unreadable("a parameter in it does not lie below the path", key)


class _Trial:
    """A refused batch, whose names are being asked for one by one."""

    __slots__ = ("code", "count", "refused", "waiting")

    def __init__(self, code: str, wanted: Sequence[Key]) -> None:
        self.code = code
        self.count = len(wanted)
        self.waiting = {*wanted}
        self.refused: set[str] = set()


def _unreadable(reason: str, key: Key) -> SourceError:
    return errors.unreadable(reason, service=SERVICE, key=key.label)


def _forms(value: Mapping[str, Any]) -> Iterable[str]:
    """Return the names by which a parameter may have been asked for."""
    return value.get("ARN") or "", value.get("Name") or ""


def _fits(value: Mapping[str, Any], key: Key) -> bool:
    """Say whether *value* may be of the version or label that *key* asks for."""
    if key.version is not None and str(value.get("Version")) != key.version:
        return False
    selector = value.get("Selector")  # moto and old emulators have none
    if not isinstance(selector, str) or not selector:
        return True
    return keys.split("x" + selector)[1] == key.selector[1:]
