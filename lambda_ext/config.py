"""
Every option: its name, environment variables, default and range.

An option's value is the first of: the argument of a single call or handle,
`configure()`, its ``LAMBDA_EXT_*`` variable, a variable of another tool that
it honours (a *fallback*), its default.  The environment is read when an
option is first needed, never at import, and then remembered until `reset()`.

A bad argument or ``LAMBDA_EXT_*`` variable raises `ConfigurationError`.  A bad
fallback never does: it was set for another tool, so it is clamped, or
ignored, with one warning.
"""

from __future__ import annotations

import math
import os

from . import disclosure
from .exceptions import ConfigurationError
from .lifecycle import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from typing_extensions import Unpack

    from .options import Options


class Fallback:
    """
    Another tool's variable; a number is clamped to what is from 0 to *high*.

    *high* is in the variable's unit; *scale* converts that unit to this library's.
    """

    __slots__ = ("env", "high", "scale")

    def __init__(self, env: str, *, scale: float = 1.0, high: float = math.inf) -> None:
        self.env = env
        self.scale = scale
        self.high = high


class Option:
    """
    One row of the table: what it is called, read from and limited to.

    *kind* is the function of `parsers` that a value of it goes through.
    """

    __slots__ = ("default", "env", "fallbacks", "kind", "meaning", "name")

    def __init__(
        self,
        name: str,
        default: Any,
        kind: str,
        meaning: str,
        fallbacks: tuple[Fallback, ...] = (),
    ) -> None:
        self.name = name
        self.env = "LAMBDA_EXT_" + name.upper()
        self.default = default
        self.kind = kind
        self.meaning = meaning
        self.fallbacks = fallbacks


def parsed(kind: str, value: Any) -> Any:
    """Return *value*, text or of another type, as the parser *kind* of `parsers` reads it."""
    # Avoids 0.2 ms where nothing is set.
    from . import parsers

    return getattr(parsers, kind)(value)


OPTIONS = {
    option.name: option
    for option in (
        Option(
            "max_age",
            300.0,
            "seconds",
            "seconds for which a value counts as fresh; 0 asks AWS on every read,"
            " None never again",
            (Fallback("POWERTOOLS_PARAMETERS_MAX_AGE"),),
        ),
        Option(
            "max_stale",
            3600.0,
            "seconds",
            "seconds past max_age for which a value serves while AWS throttles,"
            " fails or cannot be reached; 0 is off, None without limit",
        ),
        Option(
            "cache",
            True,
            "switch",
            "whether anything is remembered at all",
            (Fallback("PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED"),),
        ),
        Option(
            "cache_size",
            1000,
            "count",
            "how many secrets and parameters are remembered; 0 remembers nothing",
            (Fallback("PARAMETERS_SECRETS_EXTENSION_CACHE_SIZE", high=1000.0),),
        ),
        Option(
            "load_timeout",
            None,
            "seconds",
            "seconds that a load of values may take; None or 0 leaves it to the"
            " way to AWS and to the invocation's own limit",
        ),
        Option(
            "decrypt",
            True,
            "switch",
            "whether parameters of type SecureString are decrypted",
            (Fallback("POWERTOOLS_PARAMETERS_SSM_DECRYPT"),),
        ),
        Option(
            "source",
            "aws",
            "source",
            "where values come from: 'aws', 'aws_extension' (AWS's layer on"
            " localhost), or 'file:PATH' (for development)",
        ),
        Option(
            "local_file_in_lambda",
            False,
            "switch",
            "whether source='file:PATH' is allowed inside Lambda",
        ),
        Option(
            "flags",
            None,
            "profile",
            "the configuration that Flags() without arguments reads:"
            " 'application/environment/profile', names or ids",
        ),
        Option(
            "flags_source",
            "aws",
            "flags_source",
            "where configurations and flags come from: 'aws' (AppConfig's data"
            " plane), 'agent' (AppConfig's own agent or extension on localhost), or"
            " 'file:PATH' (a document or a folder of them, for development)",
        ),
        Option(
            "flags_prefetch",
            (),
            "profiles",
            "configurations that INIT loads, too, separated by commas",
            (Fallback("AWS_APPCONFIG_EXTENSION_PREFETCH_LIST"),),
        ),
        Option(
            "poll_interval",
            45.0,
            "interval",
            "seconds from 1 to 86400 between two polls of a configuration, or '45s',"
            " '5m', '1h'; AppConfig may ask for more; None polls once",
            (Fallback("AWS_APPCONFIG_EXTENSION_POLL_INTERVAL_SECONDS"),),
        ),
        Option(
            "poll_timeout",
            3.0,
            "seconds",
            "seconds that a poll of a configuration may take; None or 0 leaves it to"
            " the way to AWS and to the invocation's own limit",
            (Fallback("AWS_APPCONFIG_EXTENSION_POLL_TIMEOUT_MILLIS", scale=0.001),),
        ),
        Option(
            "appconfig_region",
            None,
            "region",
            "the region of AppConfig, where it is not the function's own",
            (Fallback("AWS_APPCONFIG_EXTENSION_SERVICE_REGION"),),
        ),
        Option(
            "agent_port",
            2772,
            "port",
            "the port of AppConfig's agent or extension on localhost",
            (Fallback("AWS_APPCONFIG_EXTENSION_HTTP_PORT"),),
        ),
        Option(
            "namespace",
            None,
            "namespace",
            "the CloudWatch namespace of metrics; else the function's name",
            (Fallback("POWERTOOLS_METRICS_NAMESPACE"),),
        ),
        Option(
            "service",
            None,
            "label",
            "the value of the dimension 'service'; else the function's name",
            (Fallback("POWERTOOLS_SERVICE_NAME"),),
        ),
        Option(
            "flush_every",
            None,
            "flush_every",
            "records of metrics after which the recording thread flushes, or a time"
            " such as '5s' after which the oldest is written: what is written"
            " survives SIGKILL; 10,000 records when it is not set, on Managed"
            " Instances also '10s'",
        ),
        Option(
            "sinks",
            None,
            "sinks",
            "where metrics go: names such as 'emf,otlp', or a list of names, sinks,"
            " functions and routes; EMF on stdout when it is not set",
        ),
        Option(
            "properties",
            frozenset(),
            "properties",
            "what stands beside the metrics of each invocation, to search for: any of"
            " 'request_id', 'trace_id', 'span_id', 'cold_start', 'tenant_id' and"
            " 'availability_zone'",
        ),
        Option(
            "otel_flush",
            True,
            "switch",
            "whether the providers of OpenTelemetry's SDK are flushed, too, where the"
            " program has loaded it",
        ),
        Option(
            "runtime_metrics",
            frozenset(),
            "runtime",
            "whether what an invocation uses is recorded, by the names of Lambda"
            " Insights: true, or the names that are wanted; each is billed",
        ),
        Option(
            "cold_start_metric",
            False,
            "switch",
            "whether ColdStart is recorded, a billed metric; the property cold_start"
            " is free",
        ),
        Option(
            "self_metrics",
            False,
            "switch",
            "whether Errors, CacheHits, CacheMisses, CacheStale, LoadLatency and"
            " RefreshLatency are recorded, a billed metric each",
        ),
        Option(
            "skip_replays",
            True,
            "switch",
            "whether a record that a durable function makes again, while it replays,"
            " is left out",
        ),
        Option(
            "strict",
            False,
            "switch",
            "raise MetricError for a bad metric instead of counting it",
        ),
        Option(
            "timeout_margin",
            0.5,
            "seconds",
            "seconds before Lambda ends an invocation at which metrics are flushed"
            " and on_timeout hooks called; half of a shorter time-out; None or 0 is"
            " off",
        ),
        Option(
            "after_response",
            False,
            "switch",
            "whether to ask Lambda for INVOKE events where the runtime client does not"
            " tell when an answer was posted: defer() needs them there",
        ),
        Option(
            "disable",
            frozenset(),
            "parts",
            "what to leave alone: 'signals' (SIGTERM), 'extension' (registration)",
        ),
        Option(
            "transport",
            "auto",
            "transport",
            "the way to AWS: 'light' (without boto3), 'boto3', or 'auto', which is"
            " light unless the environment asks for what only boto3 can do",
        ),
    )
}
# Where the variable is not LAMBDA_EXT_ and the option's name in capitals.
OPTIONS["namespace"].env = "LAMBDA_EXT_METRICS_NAMESPACE"

# No lock: a signal handler and a forked child may configure, too.
_configured: dict[str, Any] = {}
_resolved: dict[Any, Any] = {}  # another one after each change, see `get`
_listeners: list[Callable[[], None]] = []


def in_lambda() -> bool:
    """Say whether this process runs in Lambda, or in an emulator of it."""
    return bool(os.environ.get("AWS_LAMBDA_RUNTIME_API"))


def in_snapstart() -> bool:
    """Say whether this process begins before a snapshot, or was restored from one."""
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"


def why_not(part: str) -> str:
    """Return why *part* has not been started, in words."""
    if part in get("disable"):
        return "disabled"
    return "not started yet" if in_lambda() else "outside Lambda"


def configure(**options: Unpack[Options]) -> None:
    """
    Set process-wide options; what is not named keeps its value.

    Args:
        max_age: Seconds, or a timedelta, for which a value counts as fresh
            (default 300).  0 asks AWS on every read, None never asks again.
        max_stale: Seconds past *max_age* for which a value serves while AWS
            throttles, fails or cannot be reached (default 3,600); 0 is off,
            None without limit.
        cache: False remembers nothing: every read asks AWS.
        cache_size: How many values are remembered (default 1,000); 0 remembers
            nothing.
        flush_every: Records of metrics (an int) after which the recording
            thread flushes, or the age of the oldest one (a timedelta, or text
            such as "500ms", "5s" or "1m", from 0.1 seconds) at which they are
            flushed early, by the thread that records next or by the one that
            watches deadlines.  What is written survives SIGKILL and running out
            of memory: no more than that is lost.  None (the default): 10,000
            records, and 10 seconds on Managed Instances.
        load_timeout: Seconds that a load may take; None or 0 (the default)
            leaves it to the way to AWS and to the invocation's own limit.
        decrypt: Whether parameters of type SecureString are decrypted
            (default True).
        source: Where values come from: "aws", "aws_extension" (AWS's layer on
            localhost) or "file:PATH" (for development).
        local_file_in_lambda: Allow "file:PATH" inside Lambda.
        flags: The configuration that `Flags()` reads:
            "application/environment/profile".
        flags_source: Where configurations come from: "aws", "agent"
            (AppConfig's own, on localhost) or "file:PATH" (for development).
        flags_prefetch: Configurations that INIT loads, too.
        poll_interval: Seconds, from 1 to 86,400, between two polls of a
            configuration (default 45), also "5m" or "1h"; None polls once.
        poll_timeout: Seconds that a poll may take (default 3); None or 0
            leaves it to the way to AWS and to the invocation's own limit.
        appconfig_region: The region of AppConfig, if it is not the function's.
        agent_port: The port of AppConfig's agent (default 2772).
        namespace: CloudWatch namespace of the default metrics; None (the default)
            is the function's name.
        service: Value of the dimension ``service``; None (the default) is the
            function's name.
        sinks: Where metrics go that have no sink of their own: a list of "emf",
            "otlp", "datadog", sinks, functions of a batch, and
            `lambda_ext.metrics.route` for some metrics only; None (the default)
            is EMF on stdout.
        properties: What stands beside the metrics of each invocation, any of
            "request_id", "trace_id", "span_id", "cold_start", "tenant_id" and
            "availability_zone"; for the last INIT asks Lambda's metadata
            endpoint, and waits up to 0.3 seconds.
        otel_flush: Whether the providers of OpenTelemetry's SDK are flushed,
            too, where the program has loaded it (default True); has an effect
            until the first invocation.
        runtime_metrics: Whether to record what each invocation uses, by the
            names of Lambda Insights (`lambda_ext.metrics.runtime` has them):
            True, or the names that are wanted.  Each is a billed metric.
        cold_start_metric: Whether to record ColdStart, a billed metric.
        self_metrics: Whether to record Errors, CacheHits (of `get_*`, not of
            handles), CacheMisses, CacheStale, LoadLatency and RefreshLatency,
            a billed metric each.
        skip_replays: Whether a record that a durable function makes again,
            while it replays, is left out (default True).
        strict: Raise `MetricError` for a bad metric instead of counting it.
        timeout_margin: Seconds before Lambda ends an invocation at which
            metrics are flushed, `on_timeout` hooks called and the metric
            ``TimeoutImminent`` is recorded (default 0.5; half of the time that
            an invocation has, if that is shorter); None or 0 is off.
        after_response: Whether to ask Lambda for INVOKE events where the runtime
            client does not tell when an answer was posted (default False);
            `defer` needs them there.  Has an effect before the registration.
        disable: Parts to leave alone, any of "signals" and "extension"; has
            an effect until the first `start()` or decorated handler.
        transport: The way to AWS: "light" (signed HTTP without boto3),
            "boto3" (also where botocore is instrumented) or "auto": light,
            unless profiles, proxies and the like ask for boto3.  Has an
            effect on what is first used after it.

    Raises:
        ConfigurationError: an unknown option or a value out of its range;
            nothing has been set then.
    """
    parsed = {}
    for name, value in options.items():
        option = OPTIONS.get(name)
        if option is None:
            raise ConfigurationError(_unknown(name))
        parsed[name] = _parse(option, value, f"configure({name}=...)")
    _configured.update(parsed)
    _changed()


def get(name: str, *fallbacks: Fallback) -> Any:
    """
    Return the value of the option *name*.

    *fallbacks* are further variables of other tools that mean this option to
    the caller only; they come before those in the table.
    """
    memo = (name, *fallbacks)
    try:
        return _resolved[memo]
    except KeyError:
        resolved = _resolved  # what changes meanwhile does not become stale in it
        value = resolved[memo] = _resolve(OPTIONS[name], fallbacks)
        return value


@process.at_reset
def reset() -> None:
    """Forget what was configured and read from the environment."""
    global _looked
    _configured.clear()
    _warned.clear()
    _looked = False
    _changed()


def is_configured(*names: str) -> bool:
    """Say whether `configure` has set one of these options; asks no variable."""
    return any(name in _configured for name in names)


def watch(listener: Callable[[], None]) -> None:
    """Have *listener* called after each `configure()` and `reset()`."""
    if listener not in _listeners:
        _listeners.append(listener)


_warned: set[str] = set()
_looked = False  # whether misspelt LAMBDA_EXT_* variables were looked for


def _changed() -> None:
    global _resolved
    _resolved = {}
    followed = None
    # Again if another thread has changed an option meanwhile: a listener may have read
    # the former option, and stored what follows from it after that change.
    while followed is not _resolved:
        followed = _resolved
        for listener in _listeners:
            listener()


def _resolve(option: Option, fallbacks: tuple[Fallback, ...]) -> Any:
    global _looked
    if not _looked:
        _looked = True
        _look_for_misspelt()
    if option.name in _configured:
        return _configured[option.name]
    raw = os.environ.get(option.env)
    if raw is not None and raw.strip():
        return _parse(option, raw, f"the environment variable {option.env}")
    for fallback in (*fallbacks, *option.fallbacks):
        raw = os.environ.get(fallback.env)
        if raw is None or not raw.strip():
            continue
        try:
            is_number = option.kind in ("seconds", "count")
            return parsed(option.kind, _clamped(fallback, raw) if is_number else raw)
        except ValueError:
            _warn(fallback.env, "is not usable and is ignored")
    return option.default


def _clamped(fallback: Fallback, raw: str) -> float | str:
    """Return *raw* in our unit and the fallback's range; text as it is."""
    try:
        number = float(raw)
    except ValueError:
        return raw
    if 0.0 <= number <= fallback.high:
        return number * fallback.scale
    _warn(fallback.env, f"is out of range (0 to {fallback.high:g})")
    return min(max(number, 0.0), fallback.high) * fallback.scale


def _parse(option: Option, value: Any, origin: str) -> Any:
    try:
        return parsed(option.kind, value)
    except Exception as exc:  # of an object of the user's, which may raise any
        if process.by_signal_handler(exc):
            raise
        reason = exc if isinstance(exc, ConfigurationError) else "wrong type"
        msg = f"{origin} cannot be used: {reason}; it means: {option.meaning}"
        raise ConfigurationError(msg) from exc


def _warn(env: str, what: str) -> None:
    if env not in _warned:
        _warned.add(env)
        disclosure.warn("environment", what, variable=env)


def _look_for_misspelt() -> None:
    """Warn of each variable that looks like ours and is none."""
    known = {option.env for option in OPTIONS.values()}
    for env in os.environ:
        if env.startswith("LAMBDA_EXT_") and env not in known:
            near = _nearest(env, known)
            _warn(env, f"is unknown; did you mean {near}?" if near else "is unknown")


def _nearest(name: str, known: Iterable[str]) -> str:
    # 5 ms that only a misspelling costs.
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


def _unknown(name: str) -> str:
    near = _nearest(name, OPTIONS)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(OPTIONS)}"
    return f"configure() has no option {name!r}; {hint}"
