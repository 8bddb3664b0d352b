"""`Flags` and `Configuration` over the local AppConfig: what a user sees."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from types import MappingProxyType

import pytest
from helpers import run_threads

import lambda_ext
from lambda_ext import Configuration, Flags, Secret, inject
from lambda_ext.exceptions import (
    ConfigurationError,
    DecodeError,
    FlagError,
    InvalidDocumentError,
    SourceError,
    UnknownFlagError,
)
from lambda_ext.flags.rules import Dialect
from lambda_ext.lifecycle import phases
from lambda_ext.testing import FakeSource, simulate_restore
from lambda_ext.values import store

NAME = "orders/prod/features"
START, GET = "StartConfigurationSession", "GetLatestConfiguration"
VARIANTS = [
    {
        "name": "staff",
        "enabled": True,
        "rule": '(ends_with $email "@example.com")',
        "attributeValues": {"color": "blue", "steps": [1, 2]},
    },
    {"name": "some", "enabled": True, "rule": "(split pct::30 by::$user)"},
    {"name": "blocked", "enabled": False, "rule": '(eq $country "XX")'},
    {"name": "everybody", "enabled": False},
]
DOCUMENT = {
    "version": "1",
    "flags": {},
    "values": {
        "on": {"enabled": True, "limit": 5},
        "off": {"enabled": False},
        "checkout": {"_variants": VARIANTS},
        "bad": {"_variants": 5},
    },
}
STAFF = {"email": "x@example.com"}


@pytest.fixture(name="flags")
def _flags(appconfig, background):
    """The flags of a freeform profile that holds a flag document."""
    lambda_ext.configure(transport="light")
    appconfig.deploy(NAME, json.dumps(DOCUMENT), label="v1")
    return Flags(*NAME.split("/"))


def one_flag(enabled):
    """Return a document with one flag."""
    return json.dumps({"on": {"enabled": enabled}})


class TestEnabled:
    """Is a flag on?"""

    @pytest.mark.parametrize(
        ("name", "context", "expected"),
        [
            ("on", None, True),
            ("on", {"any": 1}, True),
            ("off", None, False),
            ("checkout", None, False),
            ("checkout", {}, False),
            ("checkout", STAFF, True),
            ("checkout", MappingProxyType(STAFF), True),
            ("checkout", {"country": "XX"}, False),
        ],
    )
    def test_flag(self, flags, name, context, expected):
        """First read and hit agree, with and without a default."""
        assert [expected] * 4 == [
            flags.enabled(name, context),
            flags.enabled(name, context),
            flags.enabled(name, context, default=not expected),
            flags.evaluate(name, context).enabled,
        ]

    def test_declaring_makes_no_call(self, flags, appconfig):
        """Nothing is loaded before it is asked for."""
        assert [] == appconfig.operations()

    def test_hits_make_no_call(self, flags, appconfig):
        """One session and one document serve any number of evaluations."""
        for _ in range(100):
            flags.enabled("on")
            flags.enabled("checkout", STAFF)
            flags.evaluate("off")

        assert [START, GET] == appconfig.operations()

    def test_unknown_flag_names_the_nearest(self, flags):
        """A misspelt flag is an error that shows the right spelling."""
        with pytest.raises(UnknownFlagError, match="did you mean 'checkout'"):
            flags.enabled("chekout", STAFF)
        with pytest.raises(UnknownFlagError):
            flags.evaluate("chekout")
        with pytest.raises(LookupError):
            flags.attribute("chekout", "color")

    @pytest.mark.logs
    def test_unknown_flag_with_a_default_is_the_default(self, flags, caplog):
        """It is counted each time and logged once a name."""
        found = [
            flags.enabled("chekout", default=True),
            flags.enabled("chekout", STAFF, default=False),
            flags.attribute("chekout", "color", default="grey"),
            flags.enabled("nothing", default=True),
        ]

        assert [True, False, "grey", True] == found
        assert {"chekout": 3, "nothing": 1} == lambda_ext.stats().flags.defaults
        logged = [r.getMessage() for r in caplog.records]
        assert 2 == len([text for text in logged if "lambda_ext.flag_default" in text])

    @pytest.mark.logs
    def test_names_that_are_counted_are_bounded(self, flags, monkeypatch):
        """Names from outside cannot fill the memory."""
        monkeypatch.setattr("lambda_ext.flags.flags.MAX_NAMES", 3)
        for number in range(10):
            flags.enabled(f"no-{number}", default=False)

        assert {"no-0": 1, "no-1": 1, "no-2": 1, "(other flags)": 7} == (
            lambda_ext.stats().flags.defaults
        )

    @pytest.mark.logs
    def test_name_from_outside_stays_on_its_line(self, flags, caplog):
        """A name with line breaks, or a very long one, spoils no log line."""
        for name in ("x\nlambda_ext.forged", "y" * 10_000_000):
            assert flags.enabled(name, default=True)
            with pytest.raises(UnknownFlagError) as caught:
                flags.enabled(name)
            assert len(str(caught.value)) < 300
            assert "\n" not in str(caught.value)

        lines = [record.getMessage() for record in caplog.records]
        assert 2 == len(lines)
        assert {"x\nlambda_ext.forged": 1, "(other flags)": 1} == (
            lambda_ext.stats().flags.defaults
        )
        assert all("\n" not in line and len(line) < 3000 for line in lines)

    @pytest.mark.logs
    def test_malformed_flag(self, flags):
        """It raises for itself alone, unless a default is given."""
        with pytest.raises(InvalidDocumentError, match="'bad' is malformed"):
            flags.enabled("bad")
        with pytest.raises(InvalidDocumentError):
            flags.attribute("bad", "x")

        assert flags.enabled("bad", default=True)
        assert "ERROR" == flags.evaluate("bad").reason
        assert flags.enabled("on")

    def test_each_error_is_the_caller_s_own(self, flags):
        """Two callers do not share one exception with one traceback."""
        caught = []
        for _ in range(2):
            with pytest.raises(InvalidDocumentError) as info:
                flags.enabled("bad")
            caught.append(info.value)

        assert caught[0] is not caught[1]

    @pytest.mark.parametrize("context", ["u1", 5, ["a"], {1}])
    def test_context_that_is_no_mapping_is_refused(self, flags, context):
        """A mistake of the program's is an error, first time and on a hit."""
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="mapping"):
                flags.enabled("checkout", context)

    def test_mapping_that_raises_is_an_error_of_this_evaluation(self, flags):
        """What a mapping of the user's raises is the reason ERROR, unquoted."""

        class Broken(dict):
            """A mapping that quotes."""

            def get(self, key, default=None):
                """Raise."""
                raise ValueError("secret")

        found = flags.evaluate("checkout", Broken())

        assert "ERROR" == found.reason
        assert "secret" not in repr(found.error)
        with pytest.raises(FlagError):
            flags.enabled("checkout", Broken())


class TestEvaluate:
    """What a flag is, and why."""

    @pytest.mark.parametrize(
        ("name", "context", "expected"),
        [
            ("on", None, (True, None, "STATIC", {"limit": 5})),
            ("off", {"a": 1}, (False, None, "DISABLED", {})),
            ("checkout", None, (False, "everybody", "DEFAULT", {})),
            ("checkout", {"user": 1}, (False, "everybody", "DEFAULT", {})),
            ("checkout", {"user": 0}, (True, "some", "SPLIT", {})),
            ("checkout", {"country": "XX"}, (False, "blocked", "TARGETING_MATCH", {})),
            (
                "checkout",
                STAFF,
                (True, "staff", "TARGETING_MATCH", {"color": "blue", "steps": [1, 2]}),
            ),
        ],
    )
    def test_reasons(self, flags, name, context, expected):
        """Reason, variant and attributes are those of the rule that was true."""
        flags = Flags(
            *NAME.split("/"), dialect=Dialect(bucket=lambda v, s: int(v) * 50)
        )
        found = flags.evaluate(name, context)

        assert expected == (
            found.enabled,
            found.variant,
            found.reason,
            found.attributes,
        )
        assert ("v1", name, None) == (found.version, found.flag, found.error)

    def test_attribute(self, flags):
        """An attribute of the variant, a default where there is none."""
        flags.attribute("checkout", "steps", STAFF).append(3)

        assert [1, 2] == flags.attribute("checkout", "steps", STAFF)
        assert "blue" == flags.attribute("checkout", "color", STAFF, default="x")
        assert flags.attribute("checkout", "color") is None
        assert "x" == flags.attribute("checkout", "color", default="x")
        assert "x" == flags.attribute("on", "none", default="x")

    def test_all_and_names(self, flags):
        """All flags at once, the malformed one with its reason."""
        assert ("on", "off", "checkout", "bad") == flags.names()
        assert {"on": "STATIC", "off": "DISABLED", "checkout": "TARGETING_MATCH",
                "bad": "ERROR"} == {
            name: found.reason for name, found in flags.all(STAFF).items()
        }  # fmt: skip

    def test_all_is_of_one_version(self, tmp_path, monkeypatch):
        """Though another one comes meanwhile, the flags are those of the document it began with."""
        file = tmp_path / "flags.json"
        file.write_text(json.dumps({"a": {"enabled": True}, "b": {"enabled": True}}))
        monkeypatch.setenv("LAMBDA_EXT_FLAGS_SOURCE", f"file:{file}")
        flags = Flags("x", "y", "z")
        flags.on_evaluation(lambda seen: file.write_text('{"a": {"enabled": false}}'))

        assert {"a": True, "b": True} == {
            name: found.enabled for name, found in flags.all({}).items()
        }
        assert {"a": False} == {
            name: found.enabled for name, found in flags.all({}).items()
        }

    def test_dialect_is_used(self, flags):
        """A switch for what AWS leaves open reaches the rules."""
        other = Flags(*NAME.split("/"), dialect=Dialect(bucket=lambda v, s: 0.0))

        assert "some" == other.evaluate("checkout", {"user": "x"}).variant
        with pytest.raises(ConfigurationError, match="Dialect"):
            Flags(*NAME.split("/"), dialect="go")

    @pytest.mark.logs
    def test_feature_flag_profile_gives_the_default_variant(
        self, appconfig, background, caplog
    ):
        """Without rules the default variant is the result, and one line says why."""
        appconfig.deploy_flags("a/b/c", DOCUMENT["values"] | {"bad": {"enabled": True}})
        flags = Flags("a", "b", "c")
        found = [flags.evaluate("checkout", STAFF), flags.evaluate("checkout", STAFF)]

        assert [(False, "everybody", "DEFAULT")] * 2 == [
            (each.enabled, each.variant, each.reason) for each in found
        ]
        (record,) = [each for each in caplog.records if each.name == "lambda_ext"]
        assert "lambda_ext.flags_without_rules" in record.getMessage()
        assert "freeform profile" in record.getMessage()

    def test_one_variant_is_no_reason_to_warn(self, appconfig, background):
        """A document with rules may have flags without any."""
        flag = {"_variants": [{"name": "all", "enabled": True}]}
        appconfig.deploy("a/b/c", json.dumps({"one": flag}))
        found = Flags("a", "b", "c").evaluate("one", STAFF)

        assert ("all", "STATIC") == (found.variant, found.reason)


class TestListeners:
    """Listeners for evaluations."""

    def test_each_evaluation_is_heard(self, flags):
        """With flag, variant, reason, version and context; hits, too."""
        heard = []

        @flags.on_evaluation
        def listener(seen):
            heard.append(
                (seen.flag, seen.variant, seen.reason, seen.version, seen.context)
            )

        flags.enabled("on")
        flags.enabled("checkout", STAFF)
        flags.attribute("checkout", "color", STAFF)
        flags.evaluate("off")

        assert [
            ("on", None, "STATIC", "v1", None),
            ("checkout", "staff", "TARGETING_MATCH", "v1", STAFF),
            ("checkout", "staff", "TARGETING_MATCH", "v1", STAFF),
            ("off", None, "DISABLED", "v1", None),
        ] == heard

    @pytest.mark.logs
    def test_default_is_heard_as_an_error(self, flags):
        """A default that was served is told with the reason ERROR."""
        heard = []
        flags.on_evaluation(heard.append)
        flags.enabled("none", default=True)

        assert [("none", True, "ERROR")] == [
            (found.flag, found.enabled, found.reason) for found in heard
        ]

    @pytest.mark.logs
    def test_listener_that_raises_changes_nothing(self, flags, caplog):
        """Its exception is logged; the next listener is called."""
        heard = []
        flags.on_evaluation(lambda found: 1 / 0)
        flags.on_evaluation(heard.append)

        assert flags.enabled("on")
        assert 1 == len(heard)
        assert "lambda_ext.on_evaluation_failed" in caplog.text

    def test_what_is_no_function_is_refused(self, flags):
        """A listener is a function."""
        with pytest.raises(ConfigurationError, match="takes a function"):
            flags.on_evaluation(5)

    def test_async_one_is_refused(self, flags):
        """It would be called and never awaited, and no exposure logged."""

        async def later(found):
            pass

        with pytest.raises(ConfigurationError, match="def instead of async def"):
            flags.on_evaluation(later)

    @pytest.mark.logs
    def test_coroutine_of_a_plain_one_is_told(self, flags, caplog):
        """As what it raises is."""

        async def later(found):
            pass

        flags.on_evaluation(lambda found: later(found))

        assert flags.enabled("on")
        assert "lambda_ext.on_evaluation_failed" in caplog.text


class TestPolls:
    """When AppConfig is asked, and who waits."""

    def test_init_loads_flags_beside_secrets(self, flags, appconfig):
        """What is declared is loaded in INIT: no invocation waits."""
        secrets = FakeSource({"db": "x"})
        secret = Secret("db", source=secrets)
        configuration = Configuration(*NAME.split("/"))
        phases.call(phases.INIT)

        assert [("db",)] == secrets.calls
        assert [START, GET] == appconfig.operations()
        assert flags.enabled("on")
        assert (json.dumps(DOCUMENT), "x") == (configuration.value, secret.value)
        assert [START, GET] == appconfig.operations()

    def test_prefetch_list_is_loaded_in_init(self, flags, appconfig, monkeypatch):
        """Names of AppConfig's extension's variable are loaded, besides what is declared."""
        appconfig.deploy("App/Env/Config", "x")
        monkeypatch.setenv(
            "AWS_APPCONFIG_EXTENSION_PREFETCH_LIST",
            "App:Env:Config,/applications/orders/environments/prod/configurations/features",
        )
        phases.call(phases.INIT)

        assert {"App/Env/Config", NAME} == {name for _, name, _ in appconfig.calls}
        assert 4 == len(appconfig.calls)
        assert "x" == Configuration("App", "Env", "Config").value
        assert 4 == len(appconfig.calls)

    @pytest.mark.logs
    @pytest.mark.parametrize("early", [True, False])
    def test_prefetch_list_takes_no_protection_away(
        self, appconfig, time, background, monkeypatch, early
    ):
        """A broken version replaces no good one, though the list names the flags, too."""
        monkeypatch.setenv("LAMBDA_EXT_FLAGS", NAME)
        monkeypatch.setenv(
            "AWS_APPCONFIG_EXTENSION_PREFETCH_LIST", "orders:prod:features"
        )
        appconfig.deploy(NAME, one_flag(True), label="v1")
        appconfig.deploy("a/b/c", "x")
        declared = Flags() if early else Configuration("a", "b", "c")
        phases.call(phases.INIT)
        calls = len(appconfig.calls)
        flags = declared if early else Flags()
        assert flags.enabled("on")
        assert calls == len(appconfig.calls)
        appconfig.deploy(NAME, "{", label="v2")
        time.advance(60)
        flags.enabled("on")
        background.run()
        found = flags.evaluate("on")

        assert (True, "v1") == (found.enabled, found.version)

    def test_change_comes_in_the_background(self, flags, appconfig, time, background):
        """A read that finds the document due has it polled, and does not wait."""
        assert flags.enabled("on")
        appconfig.deploy(NAME, one_flag(False))
        time.advance(44)
        assert flags.enabled("on")
        assert not background.run()
        time.advance(20)

        assert flags.enabled("on")  # still the old one
        assert [START, GET] == appconfig.operations()
        assert background.run()
        assert [START, GET, GET] == appconfig.operations()
        assert not flags.enabled("on")

    def test_no_reader_waits_after_a_freeze(self, flags, appconfig, time, background):
        """The first read after an idle half hour has the old document at once."""
        assert flags.enabled("on")
        appconfig.deploy(NAME, one_flag(False), label="v2")
        time.freeze(1800)
        found = flags.evaluate("on")

        assert (True, "STALE", "v1") == (found.enabled, found.reason, found.version)
        assert [START, GET] == appconfig.operations()
        assert background.run()
        found = flags.evaluate("on")
        assert (False, "DISABLED", "v2") == (found.enabled, found.reason, found.version)

    def test_token_expires_in_a_freeze(self, flags, appconfig, time, background):
        """After a day without an invocation one new session is begun."""
        lambda_ext.configure(max_stale=None)
        flags.enabled("on")
        time.freeze(25 * 3600)

        assert flags.evaluate("on").enabled
        background.run()
        assert [START, GET, GET, START, GET] == appconfig.operations()
        assert "STATIC" == flags.evaluate("on").reason

    def test_fifty_threads_ask_once(self, flags, appconfig):
        """The first evaluation in fifty threads is one session and one call."""
        results = run_threads(
            50,
            lambda n: (flags.enabled("checkout", STAFF), flags.evaluate("on").reason),
        )

        assert [(True, "STATIC")] * 50 == results
        assert [START, GET] == appconfig.operations()

    @pytest.mark.logs
    def test_document_survives_failures_up_to_max_stale(
        self, flags, appconfig, time, background
    ):
        """Throttled, denied or gone: the last good one serves, then an error."""
        flags.enabled("on")
        appconfig.fail(429, "ThrottlingException", times=10_000)
        seen = []
        for _ in range(40):
            time.advance(60)
            seen.append(flags.evaluate("on").reason)
            background.run()
        appconfig._faults.clear()
        appconfig.fail(403, "AccessDeniedException", times=10_000)
        time.advance(1800)

        assert {"STALE"} == {*seen[1:]}
        with pytest.raises(SourceError):
            flags.enabled("on")
        assert flags.enabled("on", default=True)
        appconfig._faults.clear()
        time.advance(120)
        assert "STATIC" == flags.evaluate("on").reason

    @pytest.mark.logs
    @pytest.mark.parametrize(
        ("status", "code"),
        [(403, "AccessDeniedException"), (404, "ResourceNotFoundException")],
    )
    def test_no_error_kills_a_good_document(
        self, flags, appconfig, time, background, status, code
    ):
        """Also what does not pass by itself leaves the flags as they were."""
        flags.enabled("on")
        appconfig.fail(status, code, times=10_000)
        time.advance(100)
        flags.enabled("on")
        background.run()

        assert "STALE" == flags.evaluate("on").reason

    @pytest.mark.logs
    @pytest.mark.parametrize("broken", ["{", "[]", "", '{"version": "2"}', b"\xff\xff"])
    def test_broken_document_is_deployed_and_rolled_back(
        self, flags, appconfig, time, background, broken
    ):
        """The last good document serves meanwhile, as stale once it is old."""
        assert flags.enabled("on")
        appconfig.deploy(NAME, broken, label="v2")
        for _ in range(3):
            time.advance(64)
            assert flags.enabled("on")
            background.run()
        found = flags.evaluate("on")
        assert (True, "v1") == (found.enabled, found.version)
        appconfig.deploy(NAME, json.dumps(DOCUMENT), label="v1")
        time.advance(120)
        flags.enabled("on")
        background.run()

        assert ("STATIC", "v1") == (
            flags.evaluate("on").reason,
            flags.evaluate("on").version,
        )

    def test_first_document_that_is_broken_is_an_error(self, appconfig, background):
        """Without a good one there is nothing to serve, and the error says why."""
        appconfig.deploy("a/b/c", "{")
        flags = Flags("a", "b", "c")

        with pytest.raises(InvalidDocumentError, match=r"'a/b/c' .* not JSON"):
            flags.enabled("on")

    def test_interval_of_its_own(self, flags, appconfig, time, background):
        """poll_interval of a handle comes before the option's."""
        slow = Flags(*NAME.split("/"), poll_interval="10m")
        never = Flags(*NAME.split("/"), poll_interval=None)
        slow.enabled("on")
        never.enabled("on")
        time.advance(599)
        slow.enabled("on")
        never.enabled("on")
        assert not background.run()
        time.advance(300)
        never.enabled("on")
        assert not background.run()
        slow.enabled("on")
        assert background.run()

    @pytest.mark.parametrize("bad", [0, 0.5, 86_401, "5x", "m", "nonem", True])
    def test_bad_interval_is_refused(self, bad):
        """An interval is from 1 second to a day."""
        with pytest.raises(ConfigurationError, match=r"poll_interval of 'a/b/c'"):
            Flags("a", "b", "c", poll_interval=bad)

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [("30", 30.0), ("45s", 45.0), ("5m", 300.0), ("1h", 3600.0)],
    )
    def test_interval_of_the_extension(self, monkeypatch, raw, expected):
        """The variable of AppConfig's extension is understood, units included."""
        monkeypatch.setenv("AWS_APPCONFIG_EXTENSION_POLL_INTERVAL_SECONDS", raw)

        assert expected == lambda_ext.config.get("poll_interval")

    def test_restore_forgets_everything(self, flags, appconfig):
        """After a snapshot the flags are loaded anew, in a session of their own."""
        flags.enabled("on")
        simulate_restore()

        assert [START, GET, START, GET] == appconfig.operations()
        assert flags.enabled("on")
        assert 4 == len(appconfig.operations())

    def test_invalidate(self, flags, appconfig, time):
        """invalidate() has the next read wait for a poll, if it is time for one."""
        flags.enabled("on")
        appconfig.deploy(NAME, one_flag(False))
        time.advance(45)
        flags.invalidate()

        assert not flags.enabled("on")


class TestHandle:
    """What `Flags` and `Configuration` have in common with other handles."""

    def test_transforms(self, appconfig, background):
        """Text, JSON as a copy, bytes, or what a function makes of it."""
        appconfig.deploy("a/b/c", '{"n": [1]}', label="v7")
        one = Configuration("a", "b", "c", transform="json")
        one.value["n"].append(2)

        assert {"n": [1]} == one.value
        assert '{"n": [1]}' == Configuration("a", "b", "c").value
        assert 10 == Configuration("a", "b", "c", transform=len).value
        assert "v7" == one.version
        assert "<Configuration 'a/b/c' version='v7'>" == repr(one)

    def test_on_change_and_derive(self, appconfig, background, time):
        """A new version is told, and what was derived is made again."""
        appconfig.deploy("a/b/c", "1")
        one = Configuration("a", "b", "c", transform=int)
        doubled = one.derive(lambda value: value * 2)
        heard = []
        one.on_change(lambda handle: heard.append(handle.value))
        with doubled as value:
            assert 2 == value
        appconfig.deploy("a/b/c", "5")
        time.advance(64)
        one.value
        background.run()

        assert [5] == heard
        with doubled as value:
            assert 10 == value

    @pytest.mark.parametrize("transform", [asyncio.sleep, "yaml", 5])
    def test_unusable_transform_is_refused(self, transform):
        """One that must be awaited would be called and never awaited."""
        with pytest.raises(ConfigurationError, match="transform="):
            Configuration("a", "b", "c", transform=transform)

    @pytest.mark.logs
    def test_transform_that_raises_keeps_the_last_value(
        self, appconfig, background, time
    ):
        """A version that the transform cannot read does not replace a good one."""
        appconfig.deploy("a/b/c", "1")
        one = Configuration("a", "b", "c", transform=int)
        assert 1 == one.value
        appconfig.deploy("a/b/c", "secret text")
        time.advance(64)
        assert 1 == one.value
        background.run()
        assert 1 == one.value
        assert 1 == lambda_ext.stats().flags.broken

    def test_transform_is_called_once_per_version(self, appconfig, background, time):
        """Judging a new version and reading it are one call; nothing is kept after."""
        called = []

        def transform(text):
            called.append(text)
            return text

        one = Configuration("a", "b", "c", transform=transform)
        for text in ("1", "2"):
            appconfig.deploy("a/b/c", text)
            one.value
            time.advance(64)
            one.value
            background.run()
            one.value

        assert ["1", "2"] == called

    def test_no_document_stays_in_a_snapshot(self, flags):
        """Before a snapshot the flags let go of the document and its rules."""
        flags.enabled("on")
        phases.call(phases.SNAPSHOT)

        assert flags._transform._last is None
        assert {} == store.cache.slots

    def test_first_value_that_cannot_be_read_raises(self, appconfig, background):
        """The error names the configuration and quotes nothing."""
        appconfig.deploy("a/b/c", "secret text")

        with pytest.raises(DecodeError, match="'a/b/c'") as caught:
            Configuration("a", "b", "c", transform=int).value
        assert "secret" not in str(caught.value)

    def test_inject_resolves_both(self, flags, appconfig):
        """A function gets the flags, and a configuration's value."""
        appconfig.deploy("a/b/c", "5")

        @inject(flags=flags, limit=Configuration("a", "b", "c", transform=int))
        def handler(event, *, flags, limit):
            return flags.enabled("on"), limit

        @inject(flags=flags, limit=Configuration("a", "b", "c", transform=int))
        async def awaited(event, *, flags, limit):
            return flags.enabled("on"), limit

        assert (True, 5) == handler({})
        assert (True, 5) == asyncio.run(awaited({}))

    def test_names_are_checked(self):
        """Three names or none, each of 1 to 128 characters without a slash."""
        for bad in (("a",), ("a", "b"), ("a", "b", None)):
            with pytest.raises(ConfigurationError, match="all three, or none"):
                Flags(*bad)
        for bad in (
            ("", "b", "c"),
            ("a", "b/c", "d"),
            ("a", "b", "x" * 129),
            (1, 2, 3),
        ):
            with pytest.raises(ConfigurationError):
                Flags(*bad)

    def test_names_from_the_environment(self, flags, appconfig, monkeypatch):
        """Flags() reads what LAMBDA_EXT_FLAGS names, when it is first needed."""
        anywhere = Flags()
        with pytest.raises(ConfigurationError, match="LAMBDA_EXT_FLAGS"):
            anywhere.enabled("on")
        monkeypatch.setenv("LAMBDA_EXT_FLAGS", NAME)
        lambda_ext.config.reset()
        lambda_ext.configure(transport="light")

        assert anywhere.enabled("on")
        assert NAME in repr(anywhere)

    @pytest.mark.parametrize("bad", ["a", "a/b", "a/b/", "a/b/c/d", "//"])
    def test_bad_names_in_the_environment_are_refused(self, monkeypatch, bad):
        """The error says which variable and what it takes."""
        monkeypatch.setenv("LAMBDA_EXT_FLAGS", bad)

        with pytest.raises(ConfigurationError, match="LAMBDA_EXT_FLAGS"):
            Flags().enabled("x")

    def test_is_not_pickled_and_copied_as_itself(self, flags):
        """No document leaves the process unseen."""
        assert flags is copy.deepcopy(flags)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(flags)

    def test_source_of_one_s_own(self):
        """A double for everything answers for configurations, too."""
        with FakeSource({"a/b/c": one_flag(True), "db": "x"}):
            assert Flags("a", "b", "c").enabled("on")
            assert "x" == Secret("db").value

    def test_stats(self, flags, appconfig, time, background):
        """Polls and sessions are counted."""
        flags.enabled("on")
        time.advance(64)
        flags.enabled("on")
        background.run()
        found = lambda_ext.stats().flags

        assert (2, 1, 1, 0, 0, 0, {}) == (
            found.polls,
            found.sessions,
            found.unchanged,
            found.too_early,
            found.renewed,
            found.broken,
            found.defaults,
        )
