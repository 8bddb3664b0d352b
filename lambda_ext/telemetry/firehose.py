"""
Amazon Data Firehose: PutRecordBatch, of which a part may fail.

HTTP 200 does not mean that all were taken: where ``FailedPutCount`` is above 0,
the entries with an ``ErrorCode`` are sent again, in their order, and no other.

Source: PutRecordBatch, https://docs.aws.amazon.com/firehose/latest/APIReference/
API_PutRecordBatch.html (500 records, 1,000 KiB each, 4 MiB in all)
"""

from __future__ import annotations

from ..aws import transport
from ..delivery.queue import RefusedError, RetryError
from ..disclosure import quoted
from ..exceptions import ConfigurationError, SourceError
from ..lifecycle import clock
from .entry import as_json
from .queued import Queued

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .entry import Entry

MAX_RECORDS = 500
MAX_RECORD = 1_000 * 1024  # bytes of one, before base64
MAX_BYTES = 3_900_000  # of all; the queue holds 4 MB
NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Firehose(Queued):
    """Puts records into a stream; see `destinations.firehose`."""

    __slots__ = ("_stream",)

    def __init__(self, stream: str) -> None:
        given: Any = stream
        if not isinstance(given, str) or not 0 < len(given) <= 64 or set(given) - NAME:
            msg = (
                f"firehose({quoted(stream)}): the name of a stream has 1 to 64 letters,"
                " digits and '_.-', and is no ARN"
            )
            raise ConfigurationError(msg)
        super().__init__("firehose")
        self._stream = stream

    def accept_logs(self, entries: list[Entry], /) -> None:
        """Queue *entries*; they leave with a later `drain`."""
        run: list[bytes] = []
        size = 0
        for entry in entries:
            data = as_json(entry.as_dict()).encode() + b"\n"
            if len(data) > MAX_RECORD:
                self._delivery.drop(1, "too_large")
                continue
            if len(run) >= MAX_RECORDS or size + len(data) > MAX_BYTES:
                self._delivery.put(run, len(run), size)
                run, size = [], 0
            run.append(data)
            size += len(data)
        if run:
            self._delivery.put(run, len(run), size)

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        """Put the records of *payload*, and leave those in it that failed."""
        reason = ""
        try:
            answer = transport.transport("firehose").call(
                "PutRecordBatch",
                {
                    "DeliveryStreamName": self._stream,
                    "Records": [{"Data": data} for data in payload],
                },
                timeout_s=max(ends_at - clock.monotonic(), 0.0),
            )
        except SourceError as exc:
            reason = exc.code or type(exc).__name__
            if not exc.transient:
                raise RefusedError(reason) from None
        except ConfigurationError as exc:  # no region, or no credentials yet
            reason = str(exc)
        if reason:
            raise RetryError(reason)
        return self._settled(payload, answer)

    def _settled(self, payload: list[bytes], answer: dict[str, Any]) -> tuple[int, str]:
        count = answer.get("FailedPutCount")
        if not count or not isinstance(count, int):
            return 0, ""
        outcomes = answer.get("RequestResponses")
        if not isinstance(outcomes, list) or len(outcomes) != len(payload):
            # Which ones is not said, and sending all would double the others.
            return count, "failed, without saying which"
        failed = []
        code = ""
        for data, outcome in zip(payload, outcomes, strict=True):
            found = outcome.get("ErrorCode") if isinstance(outcome, dict) else None
            if found:
                failed.append(data)
                code = str(found)
        if not failed:
            return count, "failed, without saying which"
        taken = len(payload) - len(failed)
        size = sum(map(len, payload)) - sum(map(len, failed))
        payload[:] = failed
        raise RetryError(f"{len(failed)} failed: {code:.80}", taken=taken, size=size)
