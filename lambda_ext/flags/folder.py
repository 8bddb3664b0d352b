"""
The source for development: flag documents and configurations in local files.

``configure(flags_source="file:PATH")``: a file is the document of what is
asked for; in a folder the files are named as for AppConfig's agent,
``application:environment:profile`` with or without ``.json``.  A file is read
again whenever it has changed, and every read of a flag looks.

Inside Lambda it is refused, as local files of secrets are.

Source: LOCAL_DEVELOPMENT_DIRECTORY in "Configuring AWS AppConfig Agent",
https://docs.aws.amazon.com/appconfig/latest/userguide/appconfig-agent-how-to-use-local-development.html
"""

from __future__ import annotations

import os

from .. import config
from ..answer import Answer
from ..exceptions import ConfigurationError, NotFoundError, SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ..values.keys import Key


class Folder:
    """
    The documents at *path*, a file or a folder.

    Raises:
        ConfigurationError: inside Lambda, unless ``local_file_in_lambda`` is set.
    """

    __slots__ = ("_path", "_read", "scope")

    name = "local_folder"
    polled = False  # each read looks, so that an edit is seen without a wait of 45 s

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        if config.in_lambda() and not config.get("local_file_in_lambda"):
            msg = (
                f"configurations from {self._path} are for development and refused"
                " inside Lambda: unset LAMBDA_EXT_FLAGS_SOURCE, or allow it with"
                " LAMBDA_EXT_LOCAL_FILE_IN_LAMBDA=1"
            )
            raise ConfigurationError(msg)
        self._read: dict[str, tuple[object, Answer]] = {}  # by file: as it was
        self.scope: Hashable = (self.name, self._path)

    def __repr__(self) -> str:
        return f"<Folder {self._path}>"

    def plan(self, wanted: Sequence[Key]) -> list[Sequence[Key]]:
        """Read all in one go."""
        return [wanted] if wanted else []

    def fetch(
        self, wanted: Sequence[Key], timeout_s: float | None
    ) -> Mapping[Key, Answer | SourceError]:
        """Return what the files say about *wanted*."""
        return {key: self._answer(key) for key in wanted}

    def _answer(self, key: Key) -> Answer | SourceError:
        stem = os.path.join(self._path, key.name.replace("/", ":"))
        places = (stem, stem + ".json") if os.path.isdir(self._path) else (self._path,)
        for place in places:
            try:
                status = os.stat(place)
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._read.get(place)
                if known is not None and known[0] == stamp:
                    return known[1]
                with open(place, "rb") as file:
                    body = file.read()
            except FileNotFoundError:
                continue
            except OSError as exc:
                msg = f"the configuration file {place} cannot be read: {exc.strerror}"
                return SourceError(msg, key=key.label, source=self.name)
            answer = Answer(_text(body), str(status.st_mtime_ns))
            self._read[place] = stamp, answer
            return answer
        msg = f"there is no file {' and no '.join(places)} for {key.label!r}"
        return NotFoundError(msg, key=key.label, source=self.name)


def _text(body: bytes) -> str | bytes:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
