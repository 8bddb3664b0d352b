"""What a source answers, and what a user's own source returns; see `typing`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Answer:
    """
    What a `Source` answers to one request: a value, and what is known about it.

    Args:
        value: Text or bytes; for a path, a dictionary of texts.
        version: What tells this value from others of the same name; "" if the
            source has none.
        arn: The same for every name of one thing, whose names then share what
            is remembered and are invalidated together; "" if it has none.
        keep: Whether it may be remembered.  False hands it to those who wait
            for it now, and to no later reader.
        response: The whole response that the value came in, for callers that
            want more than the value; None if there is none.  It is kept as
            long as the value is, and never copied or changed.

    Raises:
        TypeError: an argument has the wrong type.
    """

    __slots__ = ("arn", "keep", "response", "value", "version")

    def __init__(
        self,
        value: Any,
        version: str = "",
        arn: str = "",
        *,
        keep: bool = True,
        response: Mapping[str, Any] | None = None,
    ) -> None:
        if not all(isinstance(text, str) for text in (version, arn)):
            msg = "version and arn of an Answer are text"
            raise TypeError(msg)
        if not isinstance(value, (str, bytes)) and not (
            isinstance(value, dict)
            and all(isinstance(text, str) for each in value.items() for text in each)
        ):
            msg = "the value of an Answer is text or bytes, or texts by name"
            raise TypeError(msg)
        self.value: Any = value
        self.version = version
        self.arn = arn
        self.keep = keep
        self.response = response

    def __repr__(self) -> str:
        return f"<Answer version={self.version!r}>"  # never the value

    def same(self, other: Answer) -> bool:
        """Say whether *other* is the same version of the same value."""
        return self.version == other.version and self.value == other.value
