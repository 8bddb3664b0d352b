"""What is made of an answer, and what is never told of it."""

from __future__ import annotations

import json
import traceback

import pytest

from lambda_ext.exceptions import ConfigurationError, DecodeError, NotFoundError
from lambda_ext.testing import FakeSource
from lambda_ext.values import transforms
from lambda_ext.values.handles import Secret
from lambda_ext.values.transforms import decode

VALUE = "hunter2-sentinel"


def everything_said(error):
    """Return all text that an exception and its chain would ever show."""
    said = []
    while error is not None:
        said += [repr(error), str(error), repr(error.args), repr(vars(error))]
        said += [repr(getattr(error, name, "")) for name in ("doc", "object", "line")]
        said += traceback.format_exception_only(type(error), error)
        assert error.__context__ is None or error.__cause__ is not None
        error = error.__cause__ or error.__context__
    return "\n".join(said)


class TestDecode:
    """The four kinds of transform."""

    def test_none_hands_out_text(self):
        """Text stays as it is."""
        assert "x" == decode("x", None, None, "k").copied()

    def test_json_hands_out_what_json_does(self):
        """A document is parsed."""
        assert {"a": [1, None]} == decode(
            '{"a": [1, null]}', "json", None, "k"
        ).copied()

    def test_json_takes_binary(self):
        """A binary secret may hold JSON."""
        assert {"a": 1} == decode(b'{"a": 1}', "json", None, "k").copied()

    @pytest.mark.parametrize("raw", [b"\x00\xff", "AP8=", "AP8=\n", " A P8 ="])
    def test_binary_hands_out_bytes(self, raw):
        """Binary stays as it is, text is base64, with any white space."""
        assert b"\x00\xff" == decode(raw, "binary", None, "k").copied()

    def test_callable_gets_the_raw_value(self):
        """What a callable returns is handed out as it is."""
        result = object()
        seen = []
        decoded = decode("x", lambda raw: (seen.append(raw), result)[1], None, "k")

        assert result is decoded.copied()
        assert ["x"] == seen

    def test_field_is_one_member(self):
        """One member of a JSON object, of any type."""
        raw = '{"user": "me", "port": 5432, "tags": {"a": [1]}}'

        assert "me" == decode(raw, None, "user", "k").copied()
        assert 5432 == decode(raw, "json", "port", "k").copied()
        assert {"a": [1]} == decode(raw, None, "tags", "k").copied()
        assert "5432" == decode(raw, str, "port", "k").copied()

    def test_path_is_decoded_one_by_one(self):
        """What lies below a path is a dictionary of values."""
        decoded = decode({"/a/x": '{"n": 1}', "/a/y": "[]"}, "json", None, "/a")

        assert {"/a/x": {"n": 1}, "/a/y": []} == decoded.copied()


class TestCopies:
    """What is handed out belongs to the caller."""

    @pytest.mark.parametrize(
        "document",
        [
            {"a": 1},
            [1, 2],
            {"a": {"b": {"c": [1, {"d": 2}]}}},
            [[[]], {}],
            {"a": [{"b": 1}, {"b": 2}]},
        ],
    )
    def test_no_caller_can_corrupt_it(self, document):
        """A caller that changes its copy leaves the next one untouched."""
        decoded = decode(json.dumps(document), "json", None, "k")

        def wreck(part):
            if isinstance(part, dict):
                for each in part.values():
                    wreck(each)
                part["x"] = 1
            elif isinstance(part, list):
                for each in part:
                    wreck(each)
                part.append(1)

        wreck(decoded.copied())
        assert document == decoded.copied()
        assert type(document) is type(decoded.copied())

    def test_field_is_copied_too(self):
        """A member that is an object does not lead to the document."""
        decoded = decode('{"a": {"b": 1}}', None, "a", "k")
        decoded.copied()["b"] = 2

        assert {"b": 1} == decoded.copied()

    def test_deep_document_is_parsed_again(self):
        """Nesting that would exhaust the stack is copied through JSON."""
        depth = 400
        raw = "[" * depth + "]" * depth
        decoded = decode(raw, "json", None, "k")
        decoded.copied().append(1)

        assert json.loads(raw) == decoded.copied()

    @pytest.mark.parametrize(("depth", "parsed"), [(3, 0), (4, 1)])
    def test_depth_decides_how_it_is_copied(self, monkeypatch, depth, parsed):
        """Part by part up to a depth, by parsing beyond it."""
        monkeypatch.setattr(transforms, "MAX_DEPTH", 2)
        decoded = decode("[" * depth + "]" * depth, "json", None, "k")
        calls = []
        loads = json.loads
        monkeypatch.setattr(json, "loads", lambda text: calls.append(1) or loads(text))
        decoded.copied()

        assert parsed == len(calls)

    def test_deep_member_is_copied(self):
        """The same for one field of it."""
        depth = 200
        raw = '{"a": ' + "[" * depth + "]" * depth + "}"
        decoded = decode(raw, None, "a", "k")
        decoded.copied().append(1)

        assert json.loads(raw)["a"] == decoded.copied()

    def test_scalars_need_no_copy(self):
        """Text, numbers and bytes are handed out as they are."""
        assert decode("3", "json", None, "k").copy is None
        assert decode("x", None, None, "k").copy is None


class TestErrors:
    """What goes wrong is said, the value is not."""

    @pytest.mark.parametrize(
        ("raw", "transform", "field", "words"),
        [
            (f"{{{VALUE}", "json", None, "'k' is not JSON: .*line 1 column 2"),
            (f'{{"a": "{VALUE}', "json", None, "'k' is not JSON"),
            (b"\xff" + VALUE.encode(), "json", None, "not UTF-8"),
            ("[" * 100_000 + VALUE, "json", None, "'k' is not JSON"),
            (VALUE.encode(), None, None, "binary, not text.*transform='binary'"),
            (VALUE + "!", "binary", None, "base64"),
            (VALUE + "é", "binary", None, "base64"),
            ("QQ", "binary", None, "base64"),
            (VALUE, None, "user", "'k' is not JSON"),
            (f'["{VALUE}"]', None, "user", "no field 'user'.*not an object"),
            (f'{{"a": "{VALUE}"}}', None, "user", "no field 'user'.*spelling"),
            (f'{{"a": "{VALUE}"}}', "binary", "a", "base64"),
            (VALUE, int, None, "'k' cannot be transformed: int raised ValueError"),
            (VALUE, lambda raw: {}[raw], None, "raised KeyError"),
            (VALUE, json.loads, None, "loads raised JSONDecodeError"),
        ],
    )
    def test_name_the_key_and_never_the_value(self, raw, transform, field, words):
        """Message, arguments, attributes and chain are free of the value."""
        with pytest.raises(DecodeError, match=words) as raised:
            decode(raw, transform, field, "k")

        assert "k" == raised.value.key
        assert VALUE not in everything_said(raised.value)

    def test_of_a_callable_keeps_the_place(self):
        """The chain leads to the line that raised, under the class's name."""

        def parse(raw):
            raise LookupError(raw)

        with pytest.raises(DecodeError) as raised:
            decode(VALUE, parse, None, "k")

        cause = raised.value.__cause__
        assert "LookupError" in str(cause)
        assert "parse" in "".join(traceback.format_tb(cause.__traceback__))

    def test_of_another_value_passes_through(self):
        """A transform that needs another value, and cannot have it, says so."""
        error = NotFoundError("no other", key="other")

        def needs_another(raw):
            raise error

        with pytest.raises(NotFoundError) as raised:
            decode("x", needs_another, None, "k")

        assert error is raised.value

    def test_interrupt_passes_through(self):
        """Only an Exception is a failure of the transform."""

        def interrupted(raw):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            decode("x", interrupted, None, "k")

    @pytest.mark.parametrize(
        ("transform", "field", "words"),
        [
            ("yaml", None, "transform='yaml' of 'k' is unknown"),
            (3, None, "transform=int of 'k' is unknown"),
            ([], None, "transform=list of 'k' is unknown"),
            (None, "", "field of 'k'"),
            (None, 3, "field of 'k'"),
        ],
    )
    def test_unknown_transform_is_refused(self, transform, field, words):
        """A transform that does not exist is refused before anything is asked."""
        with pytest.raises(ConfigurationError, match=words):
            transforms.check(transform, field, "k")

    def test_no_repr_shows_the_value(self):
        """What holds a value does not show it."""
        assert VALUE not in repr(decode(VALUE, None, None, "k"))


class TestRecursion:
    """A transform that asks for its own key."""

    def test_of_the_raw_value_is_served(self):
        """The raw value lies in memory by then: no thread waits for itself."""
        with FakeSource({"db": "x"}) as source:
            plain = Secret("db")
            db = Secret("db", transform=lambda raw: raw + plain.value)

            assert "xx" == db.value
            assert [("db",)] == source.calls

    def test_of_its_own_result_is_refused(self):
        """There is no answer, and it does not end in a RecursionError."""
        with FakeSource({"db": "x"}):
            db = Secret("db", transform=lambda raw: db.value)

            with pytest.raises(DecodeError, match="'db' asks for what it is making"):
                db.value


@pytest.mark.parametrize("raw", ['\ufeff{"a": 1}', '\ufeff{"a": 1}'.encode()])
def test_byte_order_mark_is_passed_over(raw):
    """JSON that an editor of Windows has saved is read, as text and as bytes."""
    assert {"a": 1} == decode(raw, "json", None, "key").value
    assert 1 == decode(raw, None, "a", "key").value
