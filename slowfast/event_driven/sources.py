"""Video sources of event-driven inference: files, cameras and network streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.index.lines import read_lines
from slowfast.datasets.index.samples import UNLABELED, SampleKind, find_samples
from slowfast.datasets.types import Failure, Record
from slowfast.errors import DataError
from slowfast.event_driven.captures import CameraFrames, FileFrames, OpenVideo, StreamFrames
from slowfast.event_driven.checks import check_address, is_address, is_camera
from slowfast.utils.text import redact

LIST = ".txt"  # suffix of a list of sources
# Images among the videos are reported with this reason.
_VIDEOS_ONLY = SampleKind(False, "", "", "event-driven inference takes videos only")


@dataclass(frozen=True)
class Source:
    """Video that can be opened. A `live` one may never end."""

    record: Record
    open: Callable[[], OpenVideo]
    live: bool = False


@dataclass(frozen=True)
class Sources:
    """Result of a search for videos."""

    videos: list[Source]
    refused: list[Failure]  # files that are not videos
    others: int = 0  # number of skipped files without the suffix of a video

    @property
    def count(self) -> int:
        """Number of sources that should be read."""
        return len(self.videos) + len(self.refused)


def find_sources(place: str, threads: int) -> Sources:
    """Find the videos of DATA.PATH_PREFIX.

    Args:
        place: Folder (searched recursively), file, number of a camera, address of a stream, or a .txt file that lists
            such, one per line; files in a list are relative to its folder.
        threads: Number of decoder threads.

    Raises:
        DataError: If a list is invalid.
    """
    live = _live_source(0, place)
    if live is not None:
        return Sources([live], [])
    path = Path(place)
    return _read_list(path, threads) if path.suffix == LIST and path.is_file() else find_files([path], threads)


def _live_source(index: int, place: str) -> Source | None:
    """Return the source of a camera or stream. Its record, which reports show, hides the password of an address."""
    name = redact(place)
    record = Record(index, Path(name), name, UNLABELED)
    if is_camera(place):
        return Source(record, functools.partial(CameraFrames, int(place)), live=True)
    if is_address(place):
        check_address(place)
        return Source(record, functools.partial(StreamFrames, place), live=True)
    return None


def _read_list(path: Path, threads: int) -> Sources:
    sources: list[Source] = []
    for number, place in read_lines(path, "list one video, camera or stream per line"):
        if place.startswith("#"):
            continue
        source = _live_source(len(sources), place)
        if source is None:
            file = path.parent / place
            if not file.is_file():
                raise DataError(f"{path} line {number}: {place} is not a file, camera number or stream address")
            record = Record(len(sources), file, place, UNLABELED)
            source = Source(record, functools.partial(FileFrames, file, threads))
        sources.append(source)
    if not sources:
        raise DataError(f"{path}: the list contains no video, camera or stream")
    return Sources(sources, [])


def find_files(paths: Iterable[Path], threads: int) -> Sources:
    """Find the videos of files and folders, to be decoded by `threads` threads."""
    found = find_samples(paths, _VIDEOS_ONLY)
    videos = [Source(record, functools.partial(FileFrames, record.path, threads)) for record in found.records]
    return Sources(videos, found.refused, found.others)
