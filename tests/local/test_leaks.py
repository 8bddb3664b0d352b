"""Where a value of the seed is found, and where it is not."""

from __future__ import annotations

import base64
import json
import random

import pytest

from lambda_ext.local.leaks import Leak, Leaks
from lambda_ext.local.seeds import Parameter, Seed

KEY = "AKIA7Q+w/9xZ"  # what a URL and base64 write otherwise
LINES = "first line of a key\r\nsecond line of a key\nshort"


def found(value, text, **options):
    """Return what is found of one secret in *text*."""
    leaks = Leaks(Seed({"db": value}), **options)
    return [leak.what for leak in leaks.find(text, "a place")]


class TestForms:
    """How a value may have been written."""

    @pytest.mark.parametrize(
        "value", [KEY, 'quo"te\\back', "Grüße, Łódź!", "tab\tx\u2028y"]
    )
    @pytest.mark.parametrize(
        "write",
        [
            str,
            repr,
            ascii,
            json.dumps,
            lambda value: json.dumps(value, ensure_ascii=False),
            lambda value: json.dumps({"body": json.dumps({"v": value})}),
            lambda value: f"user={value};",
            lambda value: value.encode().hex(),
            lambda value: value.encode().hex().upper(),
        ],
    )
    def test_writing_of_a_value_is_found(self, write, value):
        """A value is found as text, as JSON or Python escape it, and in hex."""
        assert ["secret 'db'"] == found(value, f"before {write(value)} after")

    @pytest.mark.parametrize("before", range(4))
    @pytest.mark.parametrize("after", range(4))
    @pytest.mark.parametrize(
        "encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]
    )
    def test_base64_is_found_wherever_it_begins(self, encode, before, after):
        """Something before and after in the encoded text hides nothing."""
        raw = b"u" * before + KEY.encode() + b"p" * after

        assert ["secret 'db'"] == found(KEY, encode(raw).decode())

    def test_url_is_found(self):
        """A value in a query or a user part of a URL is found."""
        assert ["secret 'db'"] == found(KEY, "https://x/?k=AKIA7Q%2Bw%2F9xZ&a=b")
        assert ["secret 'db'"] == found("with space+", "?q=with+space%2B")

    @pytest.mark.parametrize("line", LINES.splitlines()[:2])
    def test_one_line_of_several_is_found(self, line):
        """A key of many lines is found by one of them, a short one aside."""
        assert ["secret 'db'"] == found(LINES, f"  {line}  ")
        assert [] == found(LINES, "short")

    def test_half_of_a_key_is_found_and_half_of_words_is_not(self):
        """What begins or ends like a key is one; words are not."""
        token = "tok-12345678-abcdefgh9"

        assert ["secret 'db'"] == found(token, token[:11] + "...")
        assert ["secret 'db'"] == found(token, "..." + token[-11:])
        assert [] == found("correct-horse-battery", "correct-ho")

    def test_bytes_are_found(self):
        """A binary secret is found as text, as Python shows it, and in base64."""
        value = b"\x00\x01binary\xff\xfe12"

        for text in (repr(value), value.hex(), base64.b64encode(value).decode()):
            assert ["secret 'db'"] == found(value, text)
        assert ["secret 'db'"] == found(b"plain bytes", "plain bytes")

    def test_short_value_stands_alone(self):
        """Up to seven characters count where no letter or digit touches them."""
        assert ["secret 'db'"] == found("48x3", "pin=48x3.")
        assert [] == found("48x3", "148x35")
        assert [] == found("abc", "abc")

    def test_random_text_holds_nothing(self):
        """No form of a value is found in ten thousand lines of other text."""
        random.seed(1)
        letters = 'abcdefghijklmnopqrstuvwxyz0123456789 -/+=:{}"'
        leaks = Leaks(Seed({"db": json.dumps({"password": KEY, "pin": 90210})}))
        lines = ("".join(random.choices(letters, k=80)) for _ in range(10_000))

        assert [] == [leak for line in lines for leak in leaks.find(line, "a line")]


class TestWhatIsSecret:
    """Which values of a seed count."""

    def test_members_are_told_by_their_path(self):
        """Text inside a JSON secret counts, with its path; public names do not."""
        secret = {
            "username": "orders_rw",
            "host": "db.example.com",
            "password": "pass-one-1",
            "nested": {"keys": ["key-two-22", {"user": "nobody-x"}]},
            "port": 54321,
            "retries": 30_000,
            "pin": 90210,
            "on": True,
            "none": None,
        }
        leaks = Leaks(Seed({"db": json.dumps(secret)}))

        assert [
            Leak("member 'password' of secret 'db'", "db", "here"),
            Leak("member 'nested.keys[0]' of secret 'db'", "db", "here"),
            Leak("member 'pin' of secret 'db'", "db", "here"),
        ] == list(leaks.find(json.dumps(secret), "here"))

    def test_only_encrypted_parameters_count(self):
        """SecureString is secret, String and StringList are not."""
        seed = Seed(
            {},
            {
                "/s": Parameter("secret value 1", "SecureString"),
                "/p": Parameter("plain value 2"),
                "/l": Parameter("list value 3,4", "StringList"),
            },
        )
        text = "secret value 1, plain value 2, list value 3,4"

        assert ["/s"] == [leak.name for leak in Leaks(seed).find(text, "here")]

    @pytest.mark.parametrize("value", ["password", "Changeme", " test ", "TOKEN"])
    def test_placeholder_counts_not(self, value):
        """A word that only says what it stands for tells nothing."""
        assert [] == found(value, f"the {value} is")

    def test_value_of_the_event_counts_not(self):
        """What the caller sent may come back."""
        assert [] == found(KEY, KEY, events=[{"deep": [KEY]}])
        assert ["secret 'db'"] == found(KEY, KEY, events=[{"deep": ["other"]}])

    def test_allowed_name_counts_not(self):
        """A name that is allowed is not looked for, and still not shown."""
        leaks = Leaks(Seed({"db": KEY, "other": "other-value"}), allowed=["db"])

        assert ["other"] == [
            leak.name for leak in leaks.find(f"{KEY} other-value", "here")
        ]


class TestRedacted:
    """Text without values of the seed."""

    def test_names_stand_in_place_of_values(self):
        """Each value is replaced as a whole, with what it is."""
        seed = Seed(
            {"db": json.dumps({"password": "tok-12345678-abcdefgh9"})},
            {"/p": Parameter("much-more-secret", "SecureString")},
        )
        text = "a tok-12345678-abcdefgh9 b much-more-secret c"

        assert ("a [member 'password' of secret 'db'] b [parameter '/p'] c") == Leaks(
            seed
        ).redacted(text)

    def test_text_without_values_is_itself(self):
        """Other text stays as it is, backslashes included."""
        assert r"a \1 \g<0> b" == Leaks(Seed({r"\1": KEY})).redacted(r"a \1 \g<0> b")
        assert r"[secret '\\1']" == Leaks(Seed({r"\1": KEY})).redacted(KEY)
