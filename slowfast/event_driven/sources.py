"""The videos of event-driven inference: files, cameras and streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.index.common import read_lines
from slowfast.datasets.index.media import UNLABELLED, Wanted, find_media
from slowfast.datasets.types import Failure, Record
from slowfast.errors import DataError
from slowfast.event_driven.captures import CameraFrames, FileFrames, OpenVideo, StreamFrames
from slowfast.event_driven.checks import check_address, is_address, is_camera
from slowfast.utils.text import redact

# Images among the videos are listed with this reason.
_VIDEOS_ONLY = Wanted(False, "", "", "event-driven inference is for videos")
LIST = ".txt"


@dataclass(frozen=True)
class Source:
    """A video to look at. `live`: it need not ever end."""

    record: Record
    open: Callable[[], OpenVideo]
    live: bool = False


@dataclass(frozen=True)
class Sources:
    """What was found; `refused` are no videos, `others` the number of files left out that have no video's name."""

    videos: list[Source]
    refused: list[Failure]
    others: int = 0

    @property
    def count(self) -> int:
        """All that should have been read."""
        return len(self.videos) + len(self.refused)


def find_sources(place: str, threads: int) -> Sources:
    """The videos of a folder and the folders in it, a file, the number of a camera, the address of a stream, or a list.

    A list is a .txt file of such places, one a line; files are looked for from its folder on. Raises DataError.
    """
    live = _live(0, place)
    if live is not None:
        return Sources([live], [])
    path = Path(place)
    return _listed(path, threads) if path.suffix == LIST and path.is_file() else find_files([path], threads)


def _live(index: int, place: str) -> Source | None:
    """Make a camera or a stream of a place. Its record, which reports show, has no password; only `open` has it."""
    name = redact(place)
    record = Record(index, Path(name), name, UNLABELLED)
    if is_camera(place):
        return Source(record, functools.partial(CameraFrames, int(place)), live=True)
    if is_address(place):
        check_address(place)
        return Source(record, functools.partial(StreamFrames, place), live=True)
    return None


def _listed(path: Path, threads: int) -> Sources:
    sources: list[Source] = []
    for number, place in read_lines(path, "name the places of the videos in it, one a line"):
        if place.startswith("#"):
            continue
        source = _live(len(sources), place)
        if source is None:
            file = path.parent / place
            if not file.is_file():
                raise DataError(f"{path} line {number}: {place} is no file, camera's number or stream's address")
            record = Record(len(sources), file, place, UNLABELLED)
            source = Source(record, functools.partial(FileFrames, file, threads))
        sources.append(source)
    if not sources:
        raise DataError(f"{path}: the list names no video, camera or stream")
    return Sources(sources, [])


def find_files(paths: Iterable[Path], threads: int) -> Sources:
    """The videos of files and folders; `threads` are the decoder's."""
    found = find_media(paths, _VIDEOS_ONLY)
    videos = [Source(record, functools.partial(FileFrames, record.path, threads)) for record in found.records]
    return Sources(videos, found.refused, found.others)
