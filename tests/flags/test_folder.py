"""Flag documents and configurations in local files, for development."""

from __future__ import annotations

import os

import pytest

import lambda_ext
from lambda_ext import Configuration, Flags
from lambda_ext.exceptions import ConfigurationError, NotFoundError, SourceError
from lambda_ext.flags.folder import Folder


def write(path, text, at):
    """Write a file as of another instant."""
    path.write_text(text)
    os.utime(path, ns=(at, at))


def test_one_file_answers_for_everything(tmp_path):
    """A file is the document of every configuration."""
    file = tmp_path / "flags.json"
    file.write_text('{"on": {"enabled": true}}')
    lambda_ext.configure(flags_source=f"file:{file}")

    assert Flags("a", "b", "c").enabled("on")
    assert Flags("x", "y", "z").enabled("on")


@pytest.mark.parametrize("ending", ["", ".json"])
def test_folder_is_the_agent_s(tmp_path, ending):
    """In a folder files are named as for AppConfig's agent."""
    (tmp_path / f"a:b:c{ending}").write_text("one")
    (tmp_path / "a:b:d").write_text("two")
    source = Folder(tmp_path)

    assert "one" == Configuration("a", "b", "c", source=source).value
    assert "two" == Configuration("a", "b", "d", source=source).value


def test_edit_is_seen_by_the_next_read(tmp_path):
    """No read waits for a poll in development; variants and rules are there."""
    file = tmp_path / "flags.json"
    write(file, '{"on": {"enabled": false}}', 1)
    flags = Flags("a", "b", "c", source=Folder(file))
    seen = [flags.enabled("on")]
    write(file, '{"on": {"_variants": [{"name": "x", "enabled": true,'
          ' "rule": "(eq $u 1)"}, {"name": "y", "enabled": false}]}}', 2)  # fmt: skip
    seen.append(flags.enabled("on", {"u": 1}))
    found = flags.evaluate("on", {"u": 2})

    assert [False, True] == seen
    assert ("y", "DEFAULT") == (found.variant, found.reason)


def test_file_is_read_once_per_change(tmp_path, monkeypatch):
    """A read without a change costs a look at the file, not its contents."""
    file = tmp_path / "flags.json"
    write(file, '{"on": {"enabled": true}}', 1)
    flags = Flags("a", "b", "c", source=Folder(file))
    flags.enabled("on")
    opened = []
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: opened.append(args))
    for _ in range(5):
        flags.enabled("on")

    assert [] == opened


def test_missing_and_unreadable_files(tmp_path):
    """The error names the places, and a folder in a file's place."""
    with pytest.raises(NotFoundError, match=r"a:b:c\.json"):
        Configuration("a", "b", "c", source=Folder(tmp_path)).value
    (tmp_path / "a:b:c").mkdir()
    with pytest.raises(SourceError, match="cannot be read"):
        Configuration("a", "b", "c", source=Folder(tmp_path)).value


def test_bytes(tmp_path):
    """What is not UTF-8 is bytes."""
    (tmp_path / "x").write_bytes(b"\xff")

    source = Folder(tmp_path / "x")
    assert (
        b"\xff" == Configuration("a", "b", "c", transform="binary", source=source).value
    )


def test_refused_inside_lambda(tmp_path, monkeypatch):
    """A file in a package is for development, unless it is asked for."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="refused inside Lambda"):
        Folder(tmp_path)
    lambda_ext.configure(local_file_in_lambda=True)

    assert f"<Folder {tmp_path}>" == repr(Folder(tmp_path))
