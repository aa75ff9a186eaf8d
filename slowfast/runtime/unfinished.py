"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(place: Path, mark: str = "", suffix: str = "") -> Iterator[Path]:
    """Where to write what is to appear at `place`: moved there when the block ends well, deleted when it fails.

    Its folder is made. mark: what a folder's name ends with until then, as a file's does with its suffix; suffix: what
    the name must end in, for writers that look at it. A folder that another process has finished meanwhile is kept.
    Raises OSError where the disk does not take it.
    """
    part = place.with_name(f".{place.name}{mark}.{part_owner()}.part{suffix}")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        try:
            os.replace(part, place)
        except OSError:
            if not (part.is_dir() and place.is_dir()):
                raise
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one, also when the machine goes down."""
    # surrogateescape: file names need not be valid text
    with written_whole(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def part_owner() -> str:
    """Machine and process, in the names of unfinished files."""
    return f"{socket.gethostname()}-{os.getpid()}"
