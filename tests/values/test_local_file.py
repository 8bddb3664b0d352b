"""Values for development from a file on this machine."""

from __future__ import annotations

import os

import pytest

from lambda_ext.contracts import SourceContract
from lambda_ext.exceptions import ConfigurationError, NotFoundError, SourceError
from lambda_ext.values import keys
from lambda_ext.values.batches import get_parameters_by_path
from lambda_ext.values.handles import Parameter, Secret
from lambda_ext.values.sources.local_file import LocalFile

SENTINEL = "hunter2-sentinel"


class TestContract(SourceContract):
    """A file is a source like any other."""

    @pytest.fixture
    def source(self, tmp_path):
        """A file with the values of the contract."""
        path = tmp_path / "values.json"
        path.write_text('{"contract/a": "one", "contract/b": "two"}')
        return LocalFile(path)


def write(path, text):
    """Write *text*, and make sure that the file's time says so."""
    path.write_text(text)
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    return path


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "values.json"


def test_secrets_and_parameters_apart(path):
    """The two kinds may have the same names."""
    source = LocalFile(write(path, '{"secrets": {"x": "s"}, "parameters": {"x": "p"}}'))

    assert "s" == Secret("x", source=source).value
    assert "p" == Parameter("x", source=source).value


def test_documents_are_written_as_json(path):
    """A value that is no text is handed out as JSON."""
    source = LocalFile(write(path, '{"db": {"user": "me"}, "size": 20}'))

    assert {"user": "me"} == Secret("db", transform="json", source=source).value
    assert 20 == Parameter("size", transform=int, source=source).value


def test_environment_file(tmp_path):
    """Lines NAME=value, as shells and compose files have them."""
    path = write(
        tmp_path / "values.env",
        "# for development\n\nexport A=1\nB = two words \nC='quoted=yes'\nD=\"\"\nE=\n",
    )
    source = LocalFile(path)
    values = [Secret(name, source=source).value for name in "ABCDE"]

    assert ["1", "two words", "quoted=yes", "", ""] == values


def test_path(path, monkeypatch):
    """What lies below a path."""
    write(path, '{"/a/x": "1", "/a/b/y": "2", "/c": "3"}')
    monkeypatch.setenv("LAMBDA_EXT_SOURCE", f"file:{path}")

    assert {"/a/x": "1"} == get_parameters_by_path("/a")
    assert {"/a/x": "1", "/a/b/y": "2"} == get_parameters_by_path("/a", recursive=True)


def test_change_is_seen_at_the_next_load(path):
    """The file is read again when it has changed."""
    source = LocalFile(write(path, '{"x": "1"}'))
    handle = Secret("x", source=source, max_age=0)
    first = handle.version_id
    assert "1" == handle.value

    write(path, '{"x": "22"}')
    assert "22" == handle.value
    assert first != handle.version_id


def test_only_what_has_changed_is_a_new_version(path):
    """Another value that was edited, or a file that was touched, changes nothing."""
    text = '{"a": "1", "b": "1", "/p/a": "1", "/p/b": "1", "/q/a": "1"}'
    source = LocalFile(write(path, text))

    def versions():
        wanted = [keys.secret(source.scope, name) for name in ("a", "b")]
        wanted += [keys.path(source.scope, name) for name in ("/p", "/q")]
        found = source.fetch(wanted, None)
        return [found[key].version for key in wanted]

    first = versions()
    write(path, text)
    assert first == versions()

    write(path, text.replace('"b": "1"', '"b": "2"', 1))
    second = versions()
    assert [True, False, True, True] == [
        one == other for one, other in zip(first, second, strict=True)
    ]

    write(path, text.replace('"/p/b": "1"', '"/p/c": "1"'))
    third = versions()
    assert [True, False, False, True] == [
        one == other for one, other in zip(second, third, strict=True)
    ]


def test_listener_is_not_called_for_the_value_beside_it(path):
    """What is made of a value is not made anew because of another."""
    source = LocalFile(write(path, '{"a": "1", "b": "1"}'))
    handle, seen = Secret("a", source=source, max_age=0), []
    handle.on_change(lambda changed: seen.append(changed.value))
    assert "1" == handle.value

    write(path, '{"a": "1", "b": "2"}')
    assert "1" == handle.value
    assert [] == seen

    write(path, '{"a": "2", "b": "2"}')
    assert "2" == handle.value
    assert ["2"] == seen


def test_missing_name(path):
    """A name that is not in the file does not exist."""
    source = LocalFile(write(path, '{"x": "1"}'))

    with pytest.raises(NotFoundError, match=r"no 'y' among the secrets in .*json"):
        Secret("y", source=source).value


def test_missing_file_says_which(path):
    """A wrong path is named."""
    with pytest.raises(SourceError, match=r"values\.json cannot be read: No such file"):
        Secret("x", source=LocalFile(path)).value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("v.json", f'{{"x": "{SENTINEL}"', "line 1 column"),
        ("v.json", f'["{SENTINEL}"]', "not a JSON object"),
        ("v.json", "[" * 200_000, "nested too deeply"),
        ("v.json", f'{{"secrets": "{SENTINEL}"}}', "'secrets' is no object"),
        ("v.env", f"A=1\n{SENTINEL}\n", "line 2 is not of the form NAME=value"),
        ("v.env", f"={SENTINEL}", "line 1 is not"),
    ],
)
def test_malformed_file_is_refused_without_quoting_it(tmp_path, name, text, words):
    """The error says where, never what."""
    source = LocalFile(write(tmp_path / name, text))
    with pytest.raises(ConfigurationError, match=words) as raised:
        Secret("x", source=source).value

    error = raised.value
    while error is not None:
        assert SENTINEL not in repr(error)
        assert SENTINEL not in repr(vars(error))
        error = error.__cause__ or error.__context__


class TestInLambda:
    """A file in a package is no place for a secret."""

    @pytest.fixture(autouse=True)
    def _in_lambda(self, monkeypatch):
        monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")

    def test_is_refused(self, path):
        """By mistake it cannot be used there."""
        with pytest.raises(ConfigurationError, match="refused inside Lambda"):
            LocalFile(path)

    def test_is_allowed_when_asked_for(self, path, monkeypatch):
        """An emulator with a mounted file says so, in code or by its variable."""
        write(path, '{"x": "1"}')
        assert "1" == Secret("x", source=LocalFile(path, in_lambda=True)).value

        monkeypatch.setenv("LAMBDA_EXT_LOCAL_FILE_IN_LAMBDA", "1")
        assert "1" == Secret("x", source=LocalFile(path)).value


def test_repr_shows_no_value(path):
    """What holds values shows where they are from."""
    source = LocalFile(write(path, f'{{"x": "{SENTINEL}"}}'))
    Secret("x", source=source).value

    assert f"<LocalFile {path}>" == repr(source)
