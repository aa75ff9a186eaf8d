"""Where the media named by an index lie; shared by all indices."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

# Media looked for before an index is said to point nowhere.
_LOOKED_FOR = 300


class MediaRoot:
    """The folder that media paths are relative to and may not leave: DATA.PATH_PREFIX.

    An empty prefix is the working directory, and then paths may lead anywhere. Paths are compared as text: symbolic
    links are not followed, so that a collection may be made of them.
    """

    def __init__(self, prefix: str) -> None:
        self._folder = os.path.abspath(prefix)
        self._confined = bool(prefix)
        if self._confined and not os.path.isdir(self._folder):
            raise IndexFileError(f"DATA.PATH_PREFIX {prefix} is not a folder; set it to the folder of the media")

    def locate(self, name: str) -> Path:
        """Where the medium of that name is; ValueError when it lies outside the prefix."""
        path = os.path.normpath(os.path.join(self._folder, name))
        inside = os.path.commonpath([path, self._folder]) == self._folder
        if self._confined and not inside:
            raise ValueError(f"the path leaves DATA.PATH_PREFIX {self._folder}")
        return Path(path)


def check_media_exist(records: Sequence[Record], index_file: Path) -> None:
    """Raise IndexFileError when not one of the first few hundred media is there.

    Single missing files are no mistake of the config: they fail when read, and are counted.
    """
    looked_for = list(itertools.islice(records, _LOOKED_FOR))
    if not any(os.path.exists(record.path) for record in looked_for):  # False for impossible names, too
        raise IndexFileError(
            f"{index_file}: none of the first {len(looked_for)} files exists, such as {looked_for[0].path}; "
            "check DATA.PATH_PREFIX"
        )
