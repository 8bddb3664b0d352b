"""The public API as a user writes it: checked by mypy, never executed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from typing_extensions import assert_type

import lambda_ext
from lambda_ext import (
    Metrics,
    Parameter,
    Secret,
    get_parameter,
    get_secret,
    metrics,
    telemetry,
)
from lambda_ext.telemetry.records import Report, Span
from lambda_ext.testing import FakeClock, FakeSource, MemorySink, no_aws

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ssm import SSMClient

P = ParamSpec("P")
R = TypeVar("R")
Event = dict[str, Any]


@lambda_ext.handler
def handler(event: Event, context: object) -> dict[str, int]:
    metrics.count("orders")
    metrics.count("orders", 2, unit="Count", dimensions={"shop": "a"}, region="eu")
    return {"statusCode": 200}


@lambda_ext.handler
async def async_handler(event: Event, context: object) -> str:
    return "done"


class Service:
    @lambda_ext.handler
    def handle(self, event: Event, context: object) -> None: ...


assert_type(handler({}, None), dict[str, int])
assert_type(async_handler({}, None), str)
assert_type(Service().handle({}, None), None)
handler("no event", None)  # type: ignore[arg-type]
Service().handle("no event", None)  # type: ignore[arg-type]
assert_type(handler.undecorated({}, None), dict[str, int])
handler.undecorated("no event", None)  # type: ignore[arg-type]
lambda_handler: Callable[[Event, object], dict[str, int]] = handler


async def undecorated() -> None:
    assert_type(await async_handler.undecorated({}, None), str)


@lambda_ext.on_shutdown
def close() -> None: ...


@lambda_ext.on_shutdown(priority=90)
def close_late() -> None: ...


def wants(x: str) -> None: ...


lambda_ext.on_init(wants)  # type: ignore[type-var]
lambda_ext.on_invoke(wants)  # type: ignore[type-var]
lambda_ext.on_response(wants)  # type: ignore[type-var]
lambda_ext.on_timeout(wants)  # type: ignore[type-var]
lambda_ext.on_shutdown(wants)  # type: ignore[type-var]
lambda_ext.on_shutdown(priority=90)(wants)  # type: ignore[type-var]
lambda_ext.on_shutdown(priority="x")  # type: ignore[call-overload]
lambda_ext.before_snapshot(wants)  # type: ignore[type-var]
lambda_ext.after_restore(wants)  # type: ignore[type-var]


@lambda_ext.on_init
def opened() -> int:
    return 1


@lambda_ext.on_invoke
def begun(invocation: lambda_ext.Invocation) -> None: ...


lambda_ext.on_invoke(close)


@lambda_ext.on_response
def done() -> None: ...


@lambda_ext.on_response(priority=60)
def done_late(outcome: lambda_ext.Outcome) -> None:
    assert_type(outcome.error, type[BaseException] | None)


@lambda_ext.after_response
def answered() -> None: ...


@lambda_ext.after_response(priority=60)
async def answered_late(outcome: lambda_ext.Outcome) -> None:
    assert_type(outcome.remaining, float | None)


def send(order: int, *, copy: bool = False) -> str:
    return f"{order}{copy}"


assert_type(lambda_ext.defer(send, 5, copy=True), bool)
lambda_ext.defer(answered_late, lambda_ext.Outcome())
lambda_ext.defer(send)  # type: ignore[call-arg]
lambda_ext.defer(send, "5")  # type: ignore[arg-type]
lambda_ext.after_response(wants)  # type: ignore[type-var]
lambda_ext.after_response(priority="x")  # type: ignore[call-overload]


@lambda_ext.on_timeout
async def hurry(remaining: float) -> None: ...


@lambda_ext.on_shutdown
def last(budget: float) -> None: ...


@lambda_ext.before_snapshot
def before_snapshot() -> None: ...


@lambda_ext.after_restore
def after_restore() -> None: ...


assert_type(opened(), int)
lambda_ext.on_init(1)  # type: ignore[call-overload]
assert_type(close(), None)
lambda_ext.start()
lambda_ext.configure(max_age=60, disable=("signals", "extension"), strict=True)
lambda_ext.configure(max_age=timedelta(minutes=2), max_stale=None)
lambda_ext.configure(runtime_metrics=True, cold_start_metric=True, self_metrics=True)
lambda_ext.configure(runtime_metrics=["duration"], properties="request_id,trace_id")
lambda_ext.configure(otel_flush=False, skip_replays=False, properties=("tenant_id",))
lambda_ext.configure(max_aeg=60)  # type: ignore[call-arg]
lambda_ext.secrte  # type: ignore[attr-defined]

assert_type(Secret("db").value, str)
assert_type(Secret("db", transform="json").value, dict[str, Any])
assert_type(Secret("db", transform="binary").value, bytes)
assert_type(Secret("db", transform=int).value, int)
assert_type(get_secret("db"), str)
assert_type(get_secret("db", transform=len), int)
assert_type(metrics.flush(), dict[str, metrics.Status])
metrics.count("orders", unit="Milisecond")  # type: ignore[arg-type]
metrics.count("orders", tenant=None)  # type: ignore[arg-type]
with metrics.timer("db.query", table="orders"):
    metrics.distribution("size", 1.5, unit="Kilobytes")


class Collector:
    def accept(self, batch: lambda_ext.typing.Batch, /) -> None:
        assert_type([point.name for point in batch.points], list[str])


own = Metrics("shop", service="cart", dimensions={"stage": "prod"}, sink=Collector())
assert_type(own.gauge("depth", 3), None)
with MemorySink() as sink:
    assert_type(sink.total("orders", shop="a"), float)
assert_type(Secret("db", field="user").value, Any)
assert_type(Parameter("/limit", transform=int).value, int)
assert_type(Parameter("/limit").value, str)
assert_type(get_parameter("/limit", transform=float), float)
assert_type(get_parameter("/limit", "json"), dict[str, Any])
assert_type(lambda_ext.stats().lifecycle.registration.state, str)
Secret("db", max_aeg=5)  # type: ignore[call-overload]


async def read() -> None:
    assert_type(await Secret("db", transform="binary").aget(), bytes)


# What is injected need not be given, which no type can say of a keyword: a call
# may have any arguments, and its result and the function itself are checked.
@lambda_ext.inject(db=Secret("db", transform="json"), limit=Parameter("/l"))
def query(event: Event, *, db: dict[str, Any], limit: str) -> int:
    return len(db)


assert_type(query({}), int)
assert_type(query({}, limit="3"), int)
assert_type(query.undecorated({}, db={}, limit="3"), int)
query.undecorated({}, db={}, limit=3)  # type: ignore[arg-type]
query.undecorated({})  # type: ignore[call-arg]


@lambda_ext.inject(Secret("db", transform="json"), user="username", pw="password")
async def connect(*, user: str, pw: str) -> bytes:
    return b""


@lambda_ext.handler
@lambda_ext.inject(db=Secret("db"))
def injected(event: Event, context: object, *, db: str) -> str:
    return db


@lambda_ext.handler
@lambda_ext.inject(db=Secret("db"))
async def injected_async(event: Event, context: object, *, db: str) -> str:
    return db


def of_the_user(function: Callable[P, R]) -> Callable[P, R]:
    return function


class Injected:
    @lambda_ext.inject(db=Secret("db"))
    def method(self, event: Event, *, db: str) -> str:
        return db

    @of_the_user
    @lambda_ext.inject(db=Secret("db"))
    def below(self, event: Event, *, db: str) -> str:
        return db

    @lambda_ext.inject(db=Secret("db"))
    @of_the_user
    def above(self, event: Event, *, db: str) -> str:
        return db


async def connected() -> None:
    assert_type(await connect(), bytes)


assert_type(injected({}, None), str)
assert_type(injected_async({}, None), str)
assert_type(Injected().method({}), str)
assert_type(Injected().below({}), str)
assert_type(Injected().above({}), str)
takes_event: Callable[[Event], int] = query
lambda_ext.inject(db=3)  # type: ignore[arg-type]
lambda_ext.inject("db", user="username")  # type: ignore[arg-type]

with FakeSource({"db": "x"}) as source, FakeClock() as clock, no_aws():
    assert_type(source.rotate("db", "y"), str)
    assert_type(clock.wall(), float)
assert_type(sink.total("orders", shard=0), float)
assert_type(lambda_ext.stats().as_dict(), dict[str, Any])


@telemetry.on_batch
def ship(batch: telemetry.Batch) -> None:
    for record in batch:
        assert_type(record.timestamp, float)
        assert_type(record.level, str | None)
        assert_type(record.is_ours, bool)
        if isinstance(record, Report):
            assert_type(record.billed_duration_ms, float | None)


@telemetry.on_report
def bill(report: Report, outcome: lambda_ext.Outcome | None) -> None:
    assert_type(report.spans, tuple[Span, ...])


assert_type(telemetry.subscribe(platform=True, max_items=1_000), telemetry.Status)


def ship_entries(entries: list[telemetry.Entry]) -> None:
    assert_type(entries[0].message, str)
    assert_type(entries[0].request_id, str | None)


def redacted(entry: telemetry.Entry) -> telemetry.Entry | str | None:
    return entry if entry.level else None


assert_type(
    telemetry.route(
        where=("function", "extension"),
        level=">=WARN",
        fields={"tenant": "a", "user.id": lambda value: value > 7},
        when=lambda record: record.request_id is not None,
        sample=0.5,
        deduplicate=10,
        transform=redacted,
    )
    .to(ship_entries, max_age=0, drop="newest")
    .to(telemetry.destinations.splunk_hec("https://x.example", Secret("token"))),
    telemetry.Route,
)
telemetry.route(where="platform").to(telemetry.destinations.metrics())
telemetry.route().to(telemetry.destinations.http("https://x.example"), drop="random")  # type: ignore[arg-type]
telemetry.route().to(3)  # type: ignore[arg-type]
assert_type(telemetry.flush(1.0), bool)
telemetry.subscribe(True)  # type: ignore[call-arg]
telemetry.on_report(3)  # type: ignore[type-var]
assert_type(lambda_ext.stats().telemetry.batches, int)


def drop_in(bare: SSMClient) -> None:
    """A client has the type that boto3-stubs gives to boto3's."""
    assert_type(lambda_ext.client("ssm"), "SSMClient")
    assert_type(lambda_ext.client("ssm", "eu-west-1"), "SSMClient")
    secrets: SecretsManagerClient = lambda_ext.client("secretsmanager", endpoint_url="")
    assert_type(secrets, "SecretsManagerClient")
    assert_type(lambda_ext.cached(bare, max_age=5, only=["prod/*"]), "SSMClient")
    with lambda_ext.patch(max_stale=timedelta(hours=1)):
        lambda_ext.unpatch()
    lambda_ext.client("s3")  # type: ignore[call-overload]
    lambda_ext.client("ssm", nonsense=1)  # type: ignore[call-overload]
    lambda_ext.client("ssm").get_parameter()  # type: ignore[call-arg]
