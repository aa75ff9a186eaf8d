"""Video sources of event-driven inference: files, cameras and network streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import UNLABELED, SampleKind, distinct_files, find_samples
from slowfast.datasets.types import Failure, Record
from slowfast.errors import ConfigError, DataError
from slowfast.event_driven.captures import CameraFrames, FileFrames, OpenVideo, StreamFrames
from slowfast.event_driven.checks import check_address, is_address, is_camera
from slowfast.event_driven.source_list import read_list
from slowfast.utils.ray_cluster import RAY
from slowfast.utils.text import redact

LIST = ".txt"  # suffix of a list of sources
# Images among the videos are reported with this reason.
_VIDEOS_ONLY = SampleKind(False, "", "", "event-driven inference takes videos only")


@dataclass(frozen=True)
class Source:
    """Video that can be opened.

    Attributes:
        record: The video, with the name that all reports show: that of a list of sources, otherwise its path.
        open: Opens it.
        live: True for cameras and streams, which may never end.
        named_path: Path of a source that has a name, without its password; "" for one without.
    """

    record: Record
    open: Callable[[], OpenVideo]
    live: bool = False
    named_path: str = ""

    @property
    def path(self) -> str:
        """File, number of a camera, or address without its password."""
        return self.named_path or self.record.name

    @property
    def stem(self) -> str:
        """Name of output files, without their suffix; other sources may have the same."""
        return self.record.name if self.named_path else self.record.path.stem


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
            such, one per line (source_list.py); files in a list are relative to its folder.
        threads: Number of decoder threads.

    Raises:
        DataError: If a list is invalid.
    """
    if is_camera(place) or is_address(place):
        return Sources([_live_source(0, "", place)], [])
    path = Path(place)
    return _read_list(path, threads) if path.suffix == LIST and path.is_file() else find_files([path], threads)


def check_sources(cfg: ConfigNode, sources: Sources) -> None:
    """Check that there are videos, and that the run can read all of them.

    Raises:
        ConfigError: If some live sources would never be read because others never end, or if nodes would read them.
        DataError: If there are no videos.
    """
    place, count = cfg.DATA.PATH_PREFIX, len(sources.videos)
    live = any(source.live for source in sources.videos)
    if live and cfg.ENGINE == RAY:
        raise ConfigError(f"ENGINE ray: {redact(place)} names a camera or stream. Set ENGINE local")
    if live and count > cfg.EVENT.STREAMS:
        raise ConfigError(
            f"EVENT.STREAMS ({cfg.EVENT.STREAMS}) is too small for the {count} sources of {place}: cameras and streams "
            f"never end. Set EVENT.STREAMS to {count}"
        )
    if not sources.count:
        raise DataError(f"DATA.PATH_PREFIX {place} contains no videos")


def _live_source(index: int, name: str, place: str) -> Source:
    """Return the source of a camera or stream. Its record, which reports show, hides the password of an address."""
    path = redact(place)
    record = Record(index, Path(path), name or path, UNLABELED)
    if is_camera(place):
        opened: Callable[[], OpenVideo] = functools.partial(CameraFrames, int(place))
    else:
        check_address(place)
        opened = functools.partial(StreamFrames, place)
    return Source(record, opened, live=True, named_path=path if name else "")


def _read_list(path: Path, threads: int) -> Sources:
    sources: list[Source] = []
    for index, (name, place) in enumerate((one.name, one.place) for one in read_list(path)):
        if is_camera(place) or is_address(place):
            sources.append(_live_source(index, name, place))
        else:
            file = path.parent / place
            record = Record(index, file, name or place, UNLABELED)
            opened = functools.partial(FileFrames, file, threads)
            sources.append(Source(record, opened, named_path=place if name else ""))
    return Sources(sources, [])


def find_files(paths: Iterable[Path], threads: int) -> Sources:
    """Find the videos of files and folders, to be decoded by `threads` threads."""
    found = find_samples(paths, _VIDEOS_ONLY)
    videos = [Source(record, functools.partial(FileFrames, record.path, threads)) for record in found.records]
    return Sources(videos, found.refused, found.others)


def source_files(sources: Sequence[Source], folder: Path, suffix: str) -> dict[int, Path]:
    """Return a file in a folder for each source, by index: of its name, numbered if that is not unique."""
    files = distinct_files((source.stem for source in sources), folder, suffix)
    return {source.record.index: file for source, file in zip(sources, files, strict=True)}
