"""Flags and configurations as a user writes them: checked, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type

from lambda_ext import Configuration, Flags
from lambda_ext.flags import Evaluation, Exposure
from lambda_ext.flags.rules import Dialect, Rule, evaluate, parse
from lambda_ext.testing import FakeFlags

flags = Flags("orders", "prod", "features", poll_interval="5m", max_stale=None)
context: Mapping[str, object] = {"userId": "7"}

assert_type(flags.enabled("new-checkout", {"userId": "7"}), bool)
assert_type(flags.enabled("new-checkout", context, default=False), bool)
assert_type(flags.evaluate("new-checkout"), Evaluation)
assert_type(flags.evaluate("new-checkout").variant, str | None)
assert_type(flags.attribute("new-checkout", "color", default="red"), Any)
assert_type(flags.all(context), dict[str, Evaluation])
assert_type(flags.names(), tuple[str, ...])
assert_type(flags.version, str)
assert_type(flags.resolve(), Flags)
flags.enabled("new-checkout", "7")  # type: ignore[arg-type]
Flags("orders", "prod", 5)  # type: ignore[arg-type]
Flags("orders", "prod", "features", max_aeg=5)  # type: ignore[call-arg]


@flags.on_evaluation
def exposed(seen: Exposure) -> None:
    assert_type(seen.context, Mapping[str, Any] | None)
    assert_type(seen.variant, str | None)


assert_type(Configuration("a", "b", "c").value, str)
assert_type(Configuration("a", "b", "c", transform="json").value, Any)
assert_type(Configuration("a", "b", "c", transform="binary").value, bytes)
assert_type(Configuration("a", "b", "c", transform=int).value, int)
Configuration("a", "b", "c", transform="yaml")  # type: ignore[call-overload]
Configuration("a", "b")  # type: ignore[call-overload]

assert_type(parse("(eq $a 1)", dialect=Dialect(coerce=False)), Rule)
assert_type(evaluate("(eq $a 1)", {"a": 1}), bool)
with FakeFlags({"on": True}) as fake:
    fake.set("on", {"enabled": False})
