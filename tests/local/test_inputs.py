"""Event and seed files: what is read, and what a person is told."""

from __future__ import annotations

import io
import json

import pytest

from lambda_ext.local import inputs
from lambda_ext.local.aws_server import Parameter
from lambda_ext.local.inputs import InputError, read_event, read_events, read_seed

SECRET = "hunter2-do-not-print"


@pytest.fixture
def file(tmp_path):
    """Return a function that writes text to a file and returns its path."""

    def write(text, name="input.json"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


class TestEvent:
    """Event files."""

    @pytest.mark.parametrize("text", ["{}", '"text"', "null", "[1, 2]", "\ufeff{}"])
    def test_any_json_is_an_event(self, file, text):
        """An event is any JSON value, with or without a byte order mark."""
        assert json.loads(text.lstrip("\ufeff")) == read_event(file(text))

    def test_dash_is_standard_input(self, monkeypatch):
        """The path "-" reads the standard input."""
        monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))

        assert {"a": 1} == read_event("-")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "empty"),
            ('{"a": 1,\n "b" 2}', "line 2, column 6: not valid JSON"),
            ('{"a": NaN}', "NaN is not a JSON number"),
            ('{"a": 1, "a": 2}', "'a' stands twice"),
            ("[" * 100_000, "nested too deeply"),
            (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ],
    )
    def test_malformed_event_names_the_place(self, file, text, says):
        """A file that is not JSON is refused with its name and the place."""
        path = file(text)

        with pytest.raises(InputError) as caught:
            read_event(path)

        assert str(caught.value).startswith(path)
        assert says in str(caught.value)
        assert caught.value.__context__ is None  # it would hold the text

    def test_empty_standard_input_is_called_so(self, monkeypatch):
        """Where there is no file, none is spoken of."""
        monkeypatch.setattr("sys.stdin", io.StringIO(""))

        with pytest.raises(InputError, match="-: the standard input is empty"):
            read_event("-")

    def test_missing_file_is_named(self, tmp_path):
        """A file that is not there is refused with its name and the reason."""
        path = str(tmp_path / "none.json")

        with pytest.raises(InputError) as caught:
            read_event(path)

        assert (
            f"{path}: the event file cannot be read: No such file or directory"
            == str(caught.value)
        )

    def test_too_large_event_is_refused(self, file, monkeypatch):
        """An event over Lambda's limit is refused before anything starts."""
        monkeypatch.setattr(inputs, "MAX_EVENT_BYTES", 10)

        with pytest.raises(InputError, match="12 bytes; Lambda takes at most 10"):
            read_event(file('"0123456789"'))


class TestSeed:
    """Seed files."""

    def test_forms_are_read(self, file):
        """Text, JSON, binary and both forms of parameters become a seed."""
        seed = read_seed(
            file(
                json.dumps(
                    {
                        "secrets": {
                            "text": "t",
                            "json": {"user": "ü"},
                            "bin": {"binary": "AAE="},
                        },
                        "parameters": {
                            "/plain": "20",
                            "/typed": {"value": "v", "type": "SecureString"},
                        },
                    }
                )
            )
        )

        assert {"text": "t", "json": '{"user": "ü"}', "bin": b"\x00\x01"} == dict(
            seed.secrets
        )
        assert {
            "/plain": Parameter("20", "String"),
            "/typed": Parameter("v", "SecureString"),
        } == dict(seed.parameters)

    def test_flags_and_configurations_are_read(self, file):
        """Flag documents stay as they are, configurations become text."""
        flags = {"a/b/c": {"on": {"enabled": True}}}
        configurations = {"a/b/d": {"n": 1}, "a/b/e": "text"}
        seed = read_seed(
            file(json.dumps({"flags": flags, "configurations": configurations}))
        )

        assert flags == seed.flags
        assert {"a/b/d": '{"n": 1}', "a/b/e": "text"} == seed.configurations
        assert "configurations=['a/b/d', 'a/b/e'] flags=['a/b/c']" in repr(seed)

    @pytest.mark.parametrize(
        ("seed", "says"),
        [
            ([], "an array; write"),
            ({"secret": {}}, "'secret' is not known here; did you mean 'secrets'?"),
            ({"zzz": {}}, "'zzz' is not known here; use secrets, parameters, flags"),
            ({"flags": {"a/b": {}}}, "'a/b': write 'application/environment/profile'"),
            ({"configurations": {"a//c": 1}}, "'a//c': write 'application/"),
            ({"flags": {"a/b/c": []}}, "'a/b/c' is an array; write an object of flags"),
            ({"flags": {"a/b/c": {"on": True}}}, "'on' is a boolean; a flag is {"),
            ({"secrets": SECRET}, "'secrets' is a string; write an object"),
            ({"secrets": {"db": 7}}, "'db' is a number; write a string"),
            ({"secrets": {"db": [SECRET]}}, "'db' is an array; write a string"),
            ({"secrets": {"db": None}}, "'db' is null; write a string"),
            ({"secrets": {"db": True}}, "'db' is a boolean; write a string"),
            ({"secrets": {"db": ""}}, "'db' holds an empty secret"),
            ({"secrets": {" ": SECRET}}, "a name is not blank"),
            ({"secrets": {"my db": SECRET}}, "a secret's name has up to 512 of"),
            ({"parameters": {"aws/p": SECRET}}, "neither aws nor ssm in front"),
            ({"parameters": {"/SSM/p": SECRET}}, "neither aws nor ssm in front"),
            ({"parameters": {"/p:1": SECRET}}, "a parameter's name has A-Z a-z 0-9"),
            ({"secrets": {"db": {"binary": "*" + SECRET}}}, "not base64"),
            ({"secrets": {"db": {"binary": ""}}}, "empty secret"),
            ({"parameters": {"/p": 20}}, "the value is a number; a parameter is"),
            ({"parameters": {"/p": ""}}, "'/p' holds an empty parameter"),
            ({"secrets": {"db": SECRET * 5000}}, "65,536 bytes at most"),
            ({"secrets": {"db": {"a": "ü" * 32_765}}}, "65,536 bytes at most"),
            ({"secrets": {"db": {"binary": "AAAA" * 21_846}}}, "65,536 bytes at most"),
            ({"parameters": {"/p": "ü" * 4_097}}, "8,192 bytes at most"),
            ({"parameters": {"/p": {"type": "String"}}}, "'/p' has no \"value\""),
            (
                {"parameters": {"/p": {"value": SECRET, "typ": "String"}}},
                "'/p' has the member 'typ'",
            ),
            (
                {"parameters": {"/p": {"value": SECRET, "type": "Secure"}}},
                "the type is one of String, StringList, SecureString",
            ),
        ],
    )
    def test_malformed_seed_names_key_and_cure(self, file, seed, says):
        """A mistake is told by file, line and key, and never by value."""
        path = file(json.dumps(seed, indent=1))

        with pytest.raises(InputError) as caught:
            read_seed(path)

        assert str(caught.value).startswith(path)
        assert says in str(caught.value)
        assert SECRET not in str(caught.value)
        assert caught.value.__context__ is None

    def test_line_of_a_unique_key_is_told(self, file):
        """The line is told where the key stands once in the file."""
        path = file('{"secrets": {\n "a": "x",\n "db": 7}}')

        with pytest.raises(InputError, match="line 3: the key 'db'"):
            read_seed(path)

    def test_line_of_an_ambiguous_key_is_not_guessed(self, file):
        """Where a key stands more than once, no line is told."""
        path = file('{"secrets": {"a": {"db": 1},\n "db": 7}}')

        with pytest.raises(InputError) as caught:
            read_seed(path)

        assert f"{path}: the key 'db' is a number" in str(caught.value)

    def test_broken_json_does_not_quote_the_file(self, file):
        """Neither the message nor its cause holds the text of the file."""
        with pytest.raises(InputError) as caught:
            read_seed(file(f'{{"secrets": {{"db": "{SECRET}}}}}'))

        assert SECRET not in repr(caught.value)
        assert caught.value.__context__ is None

    def test_repr_shows_names_only(self, file):
        """A seed can be printed without giving a value away."""
        seed = read_seed(
            file(json.dumps({"secrets": {"db": SECRET}, "parameters": {"/p": SECRET}}))
        )

        assert "<Seed secrets=['db'] parameters=['/p']>" == repr(seed)
        assert SECRET not in repr(seed.parameters["/p"])


class TestManyEvents:
    """A file with one event in each line."""

    @pytest.mark.parametrize("name", ["e.jsonl", "E.JSONL", "e.ndjson"])
    def test_each_line_is_an_event(self, tmp_path, name):
        """Lines are events, blank ones are none, and separators of text are text."""
        path = tmp_path / name
        path.write_text('{"a": 1}\n\n[]\r\n"x\u2028y"\nnull', encoding="utf-8")

        assert [{"a": 1}, [], "x\u2028y", None] == read_events(str(path))

    def test_other_file_holds_one(self, tmp_path):
        """The name tells: in other files lines mean nothing."""
        path = tmp_path / "e.json"
        path.write_text('{"a":\n1}')

        assert [{"a": 1}] == read_events(str(path))

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("{", ", line 3, column 2: not valid JSON"),
            ('{"a": 1, "a": 2}', ", line 3: the key 'a' stands twice"),
            ("NaN", ", line 3: not valid JSON (NaN is not a JSON number)"),
        ],
    )
    def test_bad_line_is_named(self, tmp_path, line, says):
        """A mistake is told with its line."""
        path = tmp_path / "e.jsonl"
        path.write_text("{}\n\n" + line)

        with pytest.raises(InputError) as caught:
            read_events(str(path))

        assert str(caught.value).startswith(f"{path}{says}")

    def test_too_large_a_line_is_named(self, tmp_path):
        """Lambda's limit is that of each event."""
        path = tmp_path / "e.jsonl"
        path.write_text("{}\n" + '"' + "x" * 7_000_000 + '"')

        with pytest.raises(InputError, match=r"e\.jsonl, line 2: 7,000,002 bytes"):
            read_events(str(path))

    def test_one_event_is_not_several(self, tmp_path):
        """Where one event is wanted, several are refused."""
        path = tmp_path / "e.jsonl"
        path.write_text("{}\n{}")

        with pytest.raises(InputError, match="2 events; one is wanted here"):
            read_event(str(path))
