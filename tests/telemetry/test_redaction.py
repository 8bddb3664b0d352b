"""No secret that this process knows leaves it in a log line."""

from __future__ import annotations

import base64
import decimal
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from log_entries import body_of, drained, entry
from wire import Wire, response

from lambda_ext import Parameter, Secret, get_parameter, get_secret, telemetry
from lambda_ext.lifecycle import phases
from lambda_ext.telemetry import dispatch, records, redaction
from lambda_ext.testing import FakeSource

VALUE = "hunter2/with+signs=&ümlaut"
DOCUMENT = json.dumps(
    {"username": "admin-name", "password": "pä55-word!", "port": 54321, "pin": 918273}
)


def cleaned(text):
    """Return *text* as a route ships it."""
    entry = telemetry.Entry(records.make({"type": "function", "record": text}))
    return redaction.clean(entry)


class Typed(FakeSource):
    """A source that says which parameters are secure: those named "/token"."""

    def fetch(self, wanted, timeout_s):
        found = super().fetch(wanted, timeout_s)
        for key, answer in found.items():
            kind = "SecureString" if key.name == "/token" else "String"
            if key.operation == "GetParameter":
                answer.response = {"Parameter": {"Type": kind}}
        return found


class TestForms:
    """A value is found as programs write it."""

    @pytest.mark.parametrize(
        "written",
        [
            VALUE,
            json.dumps(VALUE),
            json.dumps(VALUE, ensure_ascii=False),
            repr(VALUE),
            quote(VALUE, safe=""),
            VALUE.encode().hex(),
            *(
                base64.b64encode(b"x" * n + VALUE.encode() + b"y").decode()
                for n in range(6)
            ),
            base64.urlsafe_b64encode(VALUE.encode()).decode(),
        ],
    )
    def test_is_taken_out(self, written):
        """Nothing of the value is left, and its name stands instead."""
        redaction.protect("prod/db", VALUE)
        entry = cleaned(f"before {written} after")

        assert "hunter2" not in entry.message
        assert "[secret prod/db]" in entry.message == entry.body
        assert entry.message.startswith("before ")
        assert entry.message.endswith(" after")
        if "hunter2" not in written:
            assert written.strip("\"'") not in entry.message

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    @pytest.mark.parametrize("ascii", [True, False])
    @pytest.mark.parametrize("value", ['p"a\\ss-wörd 1', "tab\there-and-there", VALUE])
    @pytest.mark.parametrize("as_object", [True, False])
    def test_json_within_json_is_searched(self, value, depth, ascii, as_object):
        """An event of SQS holds SNS's, which holds JSON: each level escapes once more."""
        redaction.protect("db", value)
        text = value
        for _ in range(depth):
            text = json.dumps({"body": text, "n": 1}, ensure_ascii=ascii)
        made = telemetry.Entry(
            records.make(
                {
                    "type": "function",
                    "record": json.loads(text) if as_object else f"got {text}",
                }
            )
        )
        found = redaction.clean(made)

        for part in ("ss-w", "there-and", "with"):
            assert part not in json.dumps(found.as_dict(), ensure_ascii=False)
        assert "[secret db]" in json.dumps(found.as_dict())

    @pytest.mark.parametrize("value", ["a/b+c d=e&f ü-1234", VALUE])
    @pytest.mark.parametrize(
        "write", [quote, quote_plus, lambda value: urlencode({"v": value})]
    )
    def test_urls_are_searched(self, value, write):
        """With all that functions of Python's leave as it is, and with "+" for a blank."""
        redaction.protect("db", value)
        found = cleaned(f"GET /?p={write(value)}&x=1").message

        assert "[secret db]" in found
        assert "1234" not in found
        assert "hunter2" not in found

    def test_bytes_are_found(self):
        """A binary secret is found in base64 and in hexadecimal."""
        redaction.protect("blob", b"\x00\xffsecret-blob\x01")

        assert "[secret blob]" == cleaned(b"\x00\xffsecret-blob\x01".hex()).message

    def test_longest_goes_first(self):
        """A secret that contains another one goes as a whole."""
        redaction.protect("short", "abcdefgh")
        redaction.protect("long", "abcdefgh-ijkl")

        assert "x [secret long] y" == cleaned("x abcdefgh-ijkl y").message

    def test_objects_are_searched_everywhere(self):
        """Members, names, lists and numbers of a JSON line are cleaned."""
        redaction.protect("prod/db", DOCUMENT)
        body = {
            "a": [{"b": "pä55-word!"}], "pä55-word!": 1, "n": 918273, "ok": True,
            "message": "it is pä55-word!", "f": 1.5, "none": None,
        }  # fmt: skip
        entry = cleaned(body)

        shown = json.dumps(entry.body, ensure_ascii=False) + entry.message
        assert "pä55-word!" not in shown
        assert "918273" not in shown
        assert (True, 1.5, None) == (
            entry.body["ok"],
            entry.body["f"],
            entry.body["none"],
        )

    @pytest.mark.parametrize(
        "value", ['say "yes" \\ no', "two\nlines-of-it", "schlüssel-ß"]
    )
    def test_values_that_need_escapes_are_found_in_objects(self, value):
        """In a JSON line they may stand as they are, or as JSON or repr write them."""
        redaction.protect("odd", value)
        for written in (value, json.dumps(value), repr(value), quote(value)):
            entry = cleaned({"message": "m", "deep": [{"x": f"a {written} b"}]})

            assert "[secret odd]" in entry.body["deep"][0]["x"]

    def test_many_secrets_are_found_as_few(self):
        """With thousands of values the search is another one, the result the same."""
        for number in range(300):
            redaction.protect(f"s{number}", f"value-{number}-{number * 7919:x}")

        for number in (0, 150, 299):
            text = f"a value-{number}-{number * 7919:x} b"
            assert f"a [secret s{number}] b" == cleaned(text).message

    def test_number_of_forms_is_bounded(self, monkeypatch):
        """The values that were known first are forgotten first."""
        monkeypatch.setattr(redaction, "MOST", 50)
        for number in range(100):
            redaction.protect(f"s{number}", f"value-{number}-xyz")

        assert len(redaction._forms) <= 50
        assert "[secret s99]" == cleaned("value-99-xyz").message


class TestWhatStays:
    """What says little is left as it is."""

    @pytest.mark.parametrize("value", ["", "abc", "password", "changeme", "  true "])
    def test_short_values_and_placeholders(self, value):
        """A value that stands everywhere by chance is no secret."""
        redaction.protect("x", value)

        assert "the password is true abc" == cleaned("the password is true abc").message

    def test_short_value_counts_alone(self):
        """Up to seven characters count where no letter or digit touches them."""
        redaction.protect("pin", "4711")

        assert "14711 x [secret pin], 47110" == cleaned("14711 x 4711, 47110").message

    def test_public_members(self):
        """The user's name and the port of a database are no secrets."""
        redaction.protect("prod/db", DOCUMENT)

        assert "admin-name at 54321" == cleaned("admin-name at 54321").message

    def test_entry_without_secrets_is_the_same(self):
        """Nothing is copied where nothing is found."""
        redaction.protect("x", VALUE)
        entry = telemetry.Entry(
            records.make({"type": "function", "record": {"a": [1]}})
        )

        assert redaction.clean(entry) is entry


class TestKnown:
    """Which secrets are known without being told."""

    def test_loaded_secrets_and_secure_strings(self):
        """What the cache holds is known: secrets, and parameters that are secure."""
        with Typed({"prod/db": DOCUMENT, "/token": "secure-1", "/size": "plain-1"}):
            get_secret("prod/db")
            get_parameter("/token")
            get_parameter("/size")
            redaction.refresh()

        found = cleaned("pä55-word! secure-1 plain-1").message
        assert "[secret prod/db] [secret /token] plain-1" == found

    def test_rotated_value_stays_known(self):
        """A line may still hold the value from before a rotation."""
        with FakeSource({"db": "first-value"}) as source:
            secret = Secret("db", max_age=0)
            assert "first-value" == secret.value
            redaction.refresh()
            source.rotate("db", "second-value")
            assert "second-value" == secret.value
            redaction.refresh()

        assert "[secret db] [secret db]" == cleaned("first-value second-value").message

    def test_handles_of_parameters(self):
        """A SecureString that a handle reads is known."""
        with Typed({"/token": "secure-1"}):
            assert "secure-1" == Parameter("/token").value
            redaction.refresh()

        assert "[secret /token]" == cleaned("secure-1").message

    def test_credentials_of_the_function(self, monkeypatch):
        """The role's secret key and token are known."""
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key/with+slashes0123")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
        redaction.refresh()

        assert (
            "[secret AWS_SECRET_ACCESS_KEY] [secret AWS_SESSION_TOKEN]"
            == cleaned("key/with+slashes0123 a-session-token").message
        )

    def test_keys_of_destinations(self):
        """A key that was given as plain text is known, too."""
        telemetry.destinations.datadog("dd-key-0123456789")
        telemetry.destinations.splunk_hec("https://x.example", "hec-token-012345")

        found = cleaned("dd-key-0123456789 hec-token-012345").message
        assert "[secret datadog dd-api-key] [secret splunk_hec authorization]" == found

    def test_headers_that_are_no_keys(self):
        """The name of a tenant or of a log group may stand in a log line."""
        telemetry.destinations.http(
            "https://x.example", headers={"x-tenant": "acme-corp"}
        )
        telemetry.destinations.cloudwatch_logs("group-name", "stream-name")

        text = "acme-corp group-name stream-name"
        assert text == cleaned(text).message

    @pytest.mark.parametrize(
        ("make", "key"),
        [
            pytest.param(
                lambda d, url, key: d.http(f"{url}/v1?Api-Key={key}&x=1"),
                "query-key-0123456789",
                id="query",
            ),
            pytest.param(
                lambda d, url, key: d.sumo_logic(f"{url}/receiver/v1/otlp/{key}"),
                "sumo-key-0123456789",
                id="path",
            ),
            pytest.param(
                lambda d, url, key: d.http(url, headers={"x-honeycomb-team": key}),
                "team-key-0123456789",
                id="team",
            ),
            pytest.param(
                lambda d, url, key: d.http(
                    url, headers={"authorization": f"Bearer {key} "}
                ),
                "blank-key-0123456789",
                id="blank",
            ),
        ],
    )
    def test_keys_in_all_their_places(self, make, key):
        """A key is known as a part of an address, too, and with blanks after it."""
        make(telemetry.destinations, "https://x.example", key)

        assert key not in cleaned(f"with {key} in it").message

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(
                lambda d, url, key: d.http(
                    url, headers={"authorization": lambda: f"Bearer {key}"}
                ),
                id="header",
            ),
            pytest.param(
                lambda d, url, key: d.splunk_hec(url, lambda: key), id="token"
            ),
            pytest.param(
                lambda d, url, key: d.http(lambda: f"{url}/{key}"), id="address"
            ),
        ],
    )
    def test_keys_that_functions_return(self, make):
        """A key that is read when it is needed is known from then on."""
        key = "late-key-0123456789"
        with Wire(lambda request: response(200, b"{}")) as wire:
            made = make(telemetry.destinations, wire.url, key)
            made.accept_logs([entry("first")])
            drained(made)
            made.close()
            told = (made.sent, key in cleaned(f"{wire.url}/{key} in it").message)

        assert (1, False) == told

    def test_snapshot_holds_none_and_a_restore_knows_keys_again(self):
        """Values are not kept in a snapshot; a plain key is part of its destination."""
        telemetry.route().to(telemetry.destinations.datadog("dd-key-0123456789"))
        redaction.protect("db", "value-of-db")
        phases.call(phases.SNAPSHOT)
        kept = dict(redaction._forms)
        phases.call(phases.RESTORE)

        assert {} == kept
        assert "[secret datadog dd-api-key]" == cleaned("dd-key-0123456789").message

    def test_unused_store_is_not_loaded(self):
        """Without secrets nothing of the cache is imported."""
        from helpers import python

        program = (
            "import sys\nfrom lambda_ext import telemetry\n"
            "telemetry.route().to(print)\n"
            "from lambda_ext.telemetry import redaction\nredaction.refresh()\n"
            "assert 'lambda_ext.values.store' not in sys.modules"
        )
        assert (0, "") == (python(program).returncode, python(program).stderr)


class Odd:
    """An object whose text is a secret, or cannot be had."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        if self.text is None:
            raise ValueError
        return self.text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(ValueError("it was secret-value-1"), id="exception"),
        pytest.param(b"secret-value-1", id="bytes"),
        pytest.param({"secret-value-1"}, id="set"),
        pytest.param(decimal.Decimal("918273645"), id="decimal"),
        pytest.param({"deep": [Odd("secret-value-1")]}, id="nested"),
        pytest.param([Odd(None), "secret-value-1"], id="no text"),
    ],
)
def test_objects_that_become_text_are_cleaned(value):
    """What JSON has no word for is shipped as its text, without secrets."""
    redaction.protect("db", "secret-value-1")
    redaction.protect("pin", "918273645")
    with Wire(lambda request: response(200, b"{}")) as wire:
        destination = telemetry.destinations.http(wire.url)
        telemetry.route(transform=lambda entry: {"value": value}).to(destination)
        dispatch.dispatch(records.parse('[{"type": "function", "record": "x"}]'))
        assert dispatch.drain(30)
        telemetry.flush(30)
        destination.close()
        (request,) = wire.requests

    shipped = body_of(request).decode()
    assert [] == [each for each in ("secret-value-1", "918273645") if each in shipped]
    assert "[secret " in shipped


def test_routes_redact_what_transforms_return():
    """What a transform puts in is cleaned like the line itself."""
    seen = []
    redaction.protect("db", "secret-value-1")
    telemetry.route(transform=lambda entry: "now secret-value-1").to(
        lambda entries: seen.extend(entry.message for entry in entries)
    )
    dispatch.dispatch(records.parse('[{"type": "function", "record": "x"}]'))
    assert dispatch.drain(30)
    telemetry.flush(30)

    assert ["now [secret db]"] == seen
