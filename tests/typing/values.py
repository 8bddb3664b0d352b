"""Values as a user writes them: checked by mypy, never executed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typing_extensions import assert_type

from lambda_ext import (
    Parameter,
    Secret,
    get_parameters,
    get_parameters_by_path,
    get_secret,
    get_secrets,
    refresh_on,
)
from lambda_ext.testing import FakeSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lambda_ext.typing import Request, Source


class Pool:
    def __init__(self, password: str) -> None: ...

    def close(self) -> None: ...


db = Secret("db", max_age=timedelta(minutes=1), max_stale=0)
assert_type(db, Secret[str])
assert_type(db.version_id, str)
assert_type(Secret("db", transform="json"), Secret[dict[str, Any]])
assert_type(Secret("db", field="port", transform=int).value, int)
Secret("db", transform="yaml")  # type: ignore[call-overload]
Secret("db", max_age="soon")  # type: ignore[call-overload]
Parameter("/x", version_id="1")  # type: ignore[call-overload]

assert_type(get_secret("db", "binary"), bytes)
assert_type(get_secret("db", field="user"), Any)
assert_type(get_secret("db", max_age=None, version_stage="AWSPREVIOUS"), str)
get_secret("db", "yaml")  # type: ignore[call-overload]
assert_type(get_secrets(["a", "b"]), dict[str, str])
assert_type(get_secrets({"a"}, "json"), dict[str, dict[str, Any]])
assert_type(get_secrets(("a",), field="user"), dict[str, Any])
assert_type(get_parameters(["/a"], "binary"), dict[str, bytes])
assert_type(get_parameters(["/a"], int, decrypt=False), dict[str, int])
assert_type(get_parameters_by_path("/a", True), dict[str, str])
assert_type(get_parameters_by_path("/a", transform=float), dict[str, float])

pool = db.derive(Pool, close=Pool.close, grace=None)
assert_type(pool.value, Pool)
with pool as connection:
    assert_type(connection, Pool)


@db.on_change
def changed(handle: object) -> None: ...


@refresh_on(ValueError, db, cooldown=10)
def query(table: str) -> int:
    return len(table)


@refresh_on((ValueError, KeyError), db)
async def query_later(table: str) -> int:
    return len(await db.aget())


assert_type(query("orders"), int)
query(3)  # type: ignore[arg-type]
refresh_on("ValueError", db)  # type: ignore[arg-type]


class Vault:
    name = "vault"
    scope = ("https://vault.example", "role")

    def plan(self, wanted: Sequence[Request]) -> list[list[Request]]:
        return [[request] for request in wanted]

    def fetch(
        self, wanted: Sequence[Request], timeout_s: float | None
    ) -> Mapping[Request, Any]:
        return {}


sources: list[Source] = [Vault(), FakeSource({"db": "x"})]
Secret("db", source=Vault())
Secret("db", source=3)  # type: ignore[call-overload]

# A handle is not its value.
db = Secret("db")
len(db)  # type: ignore[arg-type]
list(db)  # type: ignore[call-overload]
db[0]  # type: ignore[index]
assert "x" in db  # type: ignore[operator]
"Bearer " + db  # type: ignore[operator]
assert_type(str(db), str)

# The function decides the type, of a member too.
assert_type(Secret("db", field="port", transform=int).value, int)
assert_type(Secret("db", field="port", transform=lambda text: len(text)).value, int)
assert_type(Parameter("/db", field="port", transform=float).value, float)
assert_type(get_secret("db", field="port", transform=int), int)
assert_type(Secret("db", field="key", transform="binary").value, bytes)
assert_type(Secret("db", field="user", transform="json").value, Any)
assert_type(Secret("db", transform="json").derive(dict).value, dict[str, Any])
