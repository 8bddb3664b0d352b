"""
The Datadog sink: to Datadog's extension, or as lines for its Forwarder.

    extension there    DogStatsD, UDP to 127.0.0.1:8125    name:3|d|#shop:a
    otherwise          a line on stdout, for the Forwarder {"m":...,"v":...,"e":...,"t":[...]}

Which of the two is decided as datadog-lambda does: the extension is there where
``/opt/extensions/datadog-agent`` exists.  Where neither is there, Datadog's OTLP
intake takes metrics with an API key: `lambda_ext.metrics.otlp.datadog`.

What becomes of a metric
    Each kind becomes distribution points: a counter's sum, a gauge's last value
    and each value of a distribution is one point.  Dimensions become tags.
    Units and namespaces have no place in either form.  Characters that no name
    at Datadog has become "_".

Guarantees
    Nothing waits for the extension: datagrams leave by a socket that does not
    block.  A datagram has at most `MAX_DATAGRAM` bytes and one value a line.
    After `BURST` datagrams at once the rest waits for a `drain`, which pauses
    between bursts, so that the extension's socket does not overflow unseen.
    A datagram that no process receives is counted as dropped where the operating
    system reports it; UDP promises no more.
    A line on stdout is whole, see `stdout`.
    Metrics named ``aws.lambda.enhanced.*`` are Datadog's own; one of that name is
    dropped and counted.

Source: DogStatsD's datagram format,
https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/, and datadog-lambda
(metric.py, extension.py, dogstatsd.py), https://github.com/DataDog/datadog-lambda-python
"""

from __future__ import annotations

import errno
import os
import time
from json import dumps

from .. import config
from ..aws import native
from ..delivery.life import follow_life
from ..delivery.queue import Delivery, Item, RefusedError, RetryError
from ..exceptions import ConfigurationError
from ..lifecycle import clock
from ..lifecycle.process import by_signal_handler
from . import emf
from .losses import uncounted
from .stdout import MAX_BYTES, Line, Writer, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ..typing import Batch, Point
    from .losses import Loss

    # A point's name at Datadog, its tags, its values, and the records of each.
    Found = tuple[Point, str, list[str]]

EXTENSION = "/opt/extensions/datadog-agent"
PORT = 8125
MAX_DATAGRAM = 1_432  # bytes; what one packet of an Ethernet holds
LARGEST_DATAGRAM = 8_192  # bytes; the extension reads no more of one
BURST = 64  # datagrams at once; Linux's socket buffer holds about 90 of them
PAUSE_S = 0.001  # between two bursts
ACCEPT_S = 0.005  # for the datagrams of one batch
MAX_NAME = 200  # characters
MAX_TAGS = 100
OLDEST_S = 4 * 3_600.0  # the extension refuses what is older
SAME_S = 10  # the extension does not tell times apart that are closer
MEMO = 1_000
OFFERED = 8  # batches that are known when they come again
RESERVED = "aws.lambda.enhanced"

SOL_SOCKET = 1
SO_ERROR = 4

sleep = time.sleep  # replaced by tests


class DatadogSink:
    """
    Hands metrics to Datadog's extension, or writes them for its Forwarder.

    ``DD_SERVICE`` takes the place of a dimension ``service`` that is only the
    function's name.  Lines for the Forwarder have ``DD_ENV``, ``DD_SERVICE``,
    ``DD_VERSION`` and ``DD_TAGS`` as tags, too; the extension adds these itself.
    ``DD_FLUSH_TO_LOG`` changes nothing: it says what happens without the
    extension, as datadog-lambda has it, and here that is always a line.

    Args:
        prefix: What stands before each name, and a dot: "shop" makes "shop.orders"
            of "orders".
        tags: Tags of all metrics, such as "team:checkout".
        flush_to_log: True writes lines although there is an extension, False
            sends to *port* although there is none; None looks for it.
        port: Where DogStatsD listens on this machine.
        stream: Where lines go; None is stdout.
        name: What statistics and log lines call it.

    Raises:
        ConfigurationError: *prefix* begins with "aws.lambda.enhanced", or cannot
            begin a name; *port* is none, *tags* are no texts, or *flush_to_log* is
            neither True, False nor None.
    """

    __slots__ = ("__weakref__", "_known", "_lost", "_namer", "_output", "name")

    def __init__(
        self,
        *,
        prefix: str = "",
        tags: Iterable[str] = (),
        flush_to_log: bool | None = None,
        port: int = PORT,
        stream: Any = None,
        name: str = "datadog",
    ) -> None:
        self.name = name
        to_log = flush_to_log
        if to_log is None:
            to_log = not os.path.exists(EXTENSION)
        elif type(to_log) is not bool:
            msg = f"flush_to_log={to_log!r:.80}: say True, False or None"  # type: ignore[unreachable]  # not every caller checks types
            raise ConfigurationError(msg)
        one = isinstance(tags, str) or not hasattr(tags, "__iter__")
        more: list[Any] = [tags] if one else [*tags]
        if not all(type(tag) is str for tag in more):
            msg = "tags= takes texts such as 'team:checkout'"
            raise ConfigurationError(msg)
        self._namer = _Namer(prefix, more, of_environment=to_log)
        if type(port) is not int or not 0 < port < 1 << 16:
            msg = f"port={port!r:.80} must be a number from 1 to 65535"
            raise ConfigurationError(msg)
        self._output: _Lines | _Datagrams = (
            _Lines(Writer(stream)) if to_log else _Datagrams(name, port)
        )
        self._lost: dict[str, int] = {}  # records by reason
        self._known: list[Batch] = []  # the last whose losses are counted
        follow_life(self)

    def __repr__(self) -> str:
        return f"<DatadogSink {self.name!r} to {self._output.where}>"

    @property
    def sent(self) -> int:
        """The number of records that were sent, or are in lines that are out."""
        return self._output.sent

    @property
    def dropped(self) -> dict[str, int]:
        """The number of records that will not be sent, by reason."""
        return {**self._output.dropped, **self._lost}

    @property
    def pending(self) -> int:
        """The number of records that wait to be sent, or for stdout."""
        return self._output.pending

    @property
    def error(self) -> str:
        """What went wrong with the last datagram; "" if it was sent."""
        return self._output.error

    @property
    def backlog(self) -> bool:
        """Whether there is something that could not be sent or written yet."""
        return bool(self._output.pending)

    def accept(self, batch: Batch, /) -> None:
        """Send *batch* or write it; what would have to wait is kept for `drain`."""
        found, losses = self._namer.found(batch)
        made = self._output.made(found, int(batch.at), losses)
        lost = dict(self._lost)
        for reason, _, number, _ in losses:
            lost[reason] = lost.get(reason, 0) + number
        known, dropped = self._known, uncounted
        if batch not in known:
            # One step.
            dropped += losses
            self._lost = lost
            known += (batch,)
            del known[:-OFFERED]
        self._output.accept(batch, made)

    def is_due(self) -> bool:
        """Say whether datagrams wait to be sent."""
        return self._output.is_due()

    def drain(self, ends_at: float) -> None:
        """Send what waits, before the run time *ends_at*; raises nothing."""
        self._output.drain(ends_at)

    def abandon(self, reason: str) -> None:
        """Count what stdout did not take as dropped: the process ends."""
        self._output.abandon(reason)

    def close(self) -> None:
        """Close the socket; the next datagram opens one."""
        self._output.close()

    def restored(self) -> None:
        """Open another socket after a restore from a snapshot."""
        self._output.close()

    def forked(self) -> None:
        """Leave the socket and what waits to the parent."""
        self._known = []
        self._lost = {}
        self._output.forked()


# What things are called ------------------------------------------------------


class _Namer:
    """Names and tags at Datadog, of what is recorded here."""

    __slots__ = ("_own", "_prefix", "_service", "_tags", "_texts", "_without")

    def __init__(self, prefix: str, tags: list[str], *, of_environment: bool) -> None:
        self._prefix = _cleaned(f"{prefix}.") if prefix else ""
        if prefix and (not self._prefix[:1].isalpha() or _is_reserved(self._prefix)):
            msg = (
                f"prefix={prefix!r:.80} cannot begin the name of a metric at Datadog:"
                f" it begins with a letter, and not with {RESERVED!r}"
            )
            raise ConfigurationError(msg)
        environ = os.environ
        self._service = environ.get("DD_SERVICE", "")
        self._own = tags
        if of_environment:
            for key in ("env", "service", "version"):
                value = environ.get(f"DD_{key.upper()}", "")
                if value:
                    self._own = [*self._own, f"{key}:{value}"]
            given = environ.get("DD_TAGS", "").replace(",", " ").split()
            self._own = [*self._own, *given]
        self._tags: dict[Any, list[str]] = {}  # by dimensions
        self._texts: dict[str, str] = {}  # by name of a metric
        self._without: str | None = None  # a service that is only the function's name

    def found(self, batch: Batch) -> tuple[list[Found], list[Loss]]:
        """Return what there is to send of *batch*, and what cannot be."""
        without = _fallback() if self._service else None
        if without != self._without:
            self._tags.clear()
            self._without = without
        found: list[Found] = []
        losses: list[Loss] = []
        for point in batch.points:
            name = self._name(point.name)
            if not name:
                reason, message = _refusal(self._prefix + point.name)
                losses.append((reason, point.name, point.samples, message))
                continue
            tags = self._tags.get(point.dimensions)
            if tags is None:
                if len(self._tags) >= MEMO:
                    self._tags.clear()
                tags = self._tags[point.dimensions] = self._tagged(point.dimensions)
            found.append((point, name, tags))
        return found, losses

    def _name(self, name: str) -> str:
        """Return what *name* is at Datadog; "" where it cannot be there."""
        text = self._texts.get(name)
        if text is None:
            text = _cleaned(self._prefix + name)
            if len(text) > MAX_NAME or _is_reserved(text):
                text = ""
            if len(self._texts) >= MEMO:
                self._texts.clear()
            self._texts[name] = text
        return text

    def _tagged(self, dimensions: Iterable[tuple[str, str]]) -> list[str]:
        tags = {
            f"{name}:{value}": name
            for name, value in dimensions
            if not (name == "service" and value == self._without)
        }
        taken = {*tags.values()}
        for tag in self._own:
            if tag.partition(":")[0] not in taken:
                tags.setdefault(tag, "")
        return [*tags][:MAX_TAGS]


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAME = {code: "_" for code in range(128) if chr(code) not in f"{_LETTERS}0123456789_."}


def _cleaned(name: str) -> str:
    """Return *name*, in ASCII, with the characters of Datadog's names."""
    text = name.translate(_NAME)
    while text and text[0] not in _LETTERS:
        text = text[1:]
    return text


def _is_reserved(name: str) -> bool:
    return f"{name}.".lower().startswith(f"{RESERVED}.")


def _refusal(name: str) -> tuple[str, str]:
    """Return why *name* cannot be sent to Datadog."""
    text = _cleaned(name)
    if _is_reserved(text):
        message = f"names that begin with {RESERVED} are counted by Datadog itself"
        return "reserved_name", f"{message}: choose another one"
    if not text:
        return "name", "a name at Datadog needs a letter"
    return "name", f"a name at Datadog has at most {MAX_NAME} characters"


def _tag(tag: str) -> str:
    """Return *tag* as it may stand in a datagram, as Datadog's client has it."""
    if tag.isascii() and tag.replace("_", "").replace(":", "").isalnum():
        return tag
    return "".join([c if c.isalnum() or c in "_-:/." else "_" for c in tag])


def _fallback() -> str | None:
    """Return the service that a metric has where nothing else was said."""
    try:
        if config.get("service"):
            return None
    except ConfigurationError:  # ignored, and said, where metrics are recorded
        pass
    return os.environ.get("AWS_LAMBDA_FUNCTION_NAME") or "unknown_service"


def _values(point: Point) -> Iterator[tuple[str, int]]:
    """Yield each value as text, with the number of records in it."""
    values = point.values
    count = point.samples if len(values) == 1 else 1
    for value in values:
        yield repr(value), count


# On stdout -------------------------------------------------------------------


class _Lines:
    """Lines for the Forwarder."""

    __slots__ = ("_level", "_offered", "_writer")

    where = "the log"
    error = ""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._level: str | None = None  # not yet known
        self._offered: list[Batch] = []

    @property
    def sent(self) -> int:
        return self._writer.sent

    @property
    def pending(self) -> int:
        return self._writer.pending

    @property
    def dropped(self) -> dict[str, int]:
        lost = self._writer.lost
        return {"stdout": lost} if lost else {}

    def made(self, found: list[Found], at: int, losses: list[Loss]) -> list[Line]:
        """Return the lines of *found*; add to *losses* what no line can hold."""
        if self._level is None:
            self._level = emf.level()
        extra = ""
        if self._level:  # other members are none of the Forwarder's business
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))
            extra = f',"level":"{self._level}","timestamp":"{stamp}"'
        lines: list[Line] = []
        for point, name, tags in found:
            texts = dumps(tags, separators=(",", ":"))
            head, tail = f'{{"m":"{name}","v":', f',"e":{at},"t":{texts}{extra}}}\n'
            for value, count in _values(point):
                data = f"{head}{value}{tail}".encode("ascii")
                if len(data) > MAX_BYTES:
                    message = f"its tags fill a line of {MAX_BYTES} bytes"
                    losses.append(("too_large", point.name, count, message))
                else:
                    lines.append(line_of(data, [(point.name, count)]))
        return lines

    def accept(self, batch: Batch, made: list[Any]) -> None:
        """Write the lines *made*, unless *batch* is known already."""
        offered, writer = self._offered, self._writer
        records = sum([count for line in made for _, count in line.names])
        if batch not in offered:
            waiting = writer.lines
            # One step.
            waiting += made
            writer.accepted += records
            offered += (batch,)
            del offered[:-OFFERED]
        writer.write()

    def is_due(self) -> bool:
        return False

    def drain(self, ends_at: float) -> None:
        """Do nothing: what stdout did not take comes with the next flush."""

    def abandon(self, reason: str) -> None:
        self._writer.abandon(reason)

    def close(self) -> None:
        """Do nothing: stdout is the process's."""

    def forked(self) -> None:
        self._offered = []


# To the extension ------------------------------------------------------------


class _Datagrams:
    """DogStatsD to a port of this machine."""

    __slots__ = (
        "__weakref__", "_delivery", "_last", "_paused_at", "_port", "_sock",
        "_unpaused",
    )  # fmt: skip

    where = "the extension"

    def __init__(self, name: str, port: int) -> None:
        self._port = port
        self._delivery = Delivery(name, self._send)
        self._sock: Any = None
        self._last = 0  # records in the last datagram, which may still be refused
        self._unpaused = 0  # datagrams since the last pause
        self._paused_at = 0.0  # run time

    @property
    def sent(self) -> int:
        return self._delivery.sent

    @property
    def pending(self) -> int:
        return self._delivery.pending

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self._delivery.dropped)

    @property
    def error(self) -> str:
        return self._delivery.error

    def made(self, found: list[Found], at: int, losses: list[Loss]) -> list[Item]:
        """Return the datagrams of *found*; add to *losses* what cannot be sent."""
        age_s = int(clock.wall()) - at
        # No older version of the extension takes a time with a distribution, so
        # it is there only where it says something.
        stamp = f"|T{at}" if abs(age_s) >= SAME_S else ""
        items: list[Item] = []
        lines: list[str] = []
        size = records = 0
        for point, name, tags in found:
            if age_s > OLDEST_S:
                message = "it is older than 4 hours, which Datadog refuses"
                losses.append(("timestamp", point.name, point.samples, message))
                continue
            tail = f"|d|#{','.join(map(_tag, tags))}" if tags else "|d"
            tail += stamp
            # Tags of the user's may be of any alphabet; all else is ASCII.
            around = len(name) + 1 + len(tail.encode("utf-8", "replace"))
            for value, count in _values(point):
                length = around + len(value)
                if length > LARGEST_DATAGRAM:
                    message = f"its tags fill a datagram of {LARGEST_DATAGRAM} bytes"
                    losses.append(("too_large", point.name, count, message))
                    continue
                if lines and size + 1 + length > MAX_DATAGRAM:
                    items.append(_datagram(lines, records))
                    lines, size, records = [], 0, 0
                size += length + bool(lines)
                lines.append(f"{name}:{value}{tail}")
                records += count
        if lines:
            items.append(_datagram(lines, records))
        return items

    def accept(self, batch: Batch, made: list[Any]) -> None:
        """Queue the datagrams *made*, and send them if they are few."""
        delivery = self._delivery
        delivery.offer(batch, made)
        now = clock.monotonic()
        if now - self._paused_at >= PAUSE_S:
            self._unpaused = 0
            self._paused_at = now
        room = delivery.items + sum([item.size // MAX_DATAGRAM for item in made])
        if room <= BURST - self._unpaused:
            delivery.drain(now + ACCEPT_S, join=False)

    def is_due(self) -> bool:
        return bool(self._delivery.items)

    def drain(self, ends_at: float) -> None:
        self._delivery.drain(ends_at)

    def abandon(self, reason: str) -> None:
        """Do nothing: what waits has had its last `drain`, and stays pending."""

    def close(self) -> None:
        """Close the socket; the next datagram opens one."""
        self._last = 0
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def __del__(self) -> None:
        self.close()

    def forked(self) -> None:
        self.close()  # this process's descriptor; the parent has its own
        self._delivery.forked()

    def _send(self, payload: Any, ends_at: float) -> tuple[int, str]:
        data, records = payload
        room = 1 + len(data) // MAX_DATAGRAM  # in the receiver's buffer
        if self._unpaused + room > BURST:
            sleep(PAUSE_S)
            self._unpaused = 0
            self._paused_at = clock.monotonic()
        self._unpaused += room
        try:
            sock = self._sock
            if sock is None:
                sock = self._sock = _connected(self._port)
            try:
                sock.send(data)
            except ConnectionRefusedError as exc:  # of the datagram before this one
                before, self._last = self._last, 0
                self._delivery.withdraw(before, _reason(exc))
                sock.send(data)
            refused = sock.getsockopt(SOL_SOCKET, SO_ERROR)
        except (BlockingIOError, InterruptedError):
            raise RetryError("its socket is full", PAUSE_S) from None
        except OSError as exc:
            if by_signal_handler(exc):
                raise
            if exc.errno == errno.ENOBUFS:
                raise RetryError("its socket is full", PAUSE_S) from None
            self.close()
            raise RefusedError(_reason(exc)) from None
        if refused:
            raise RefusedError(os.strerror(refused))
        self._last = records
        return 0, ""


def _reason(exc: OSError) -> str:
    return exc.strerror or type(exc).__name__


def _connected(port: int) -> Any:
    sock = native.datagrams()
    try:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _datagram(lines: list[str], records: int) -> Item:
    data = "\n".join(lines).encode("utf-8", "replace")
    return Item((data, records), records, len(data))
