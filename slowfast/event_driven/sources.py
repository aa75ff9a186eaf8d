"""Video sources of event-driven inference: files, cameras, network streams, and text files that list them."""

from __future__ import annotations

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.config.defaults import on_videos
from slowfast.config.node import ConfigNode
from slowfast.datasets.index.lines import read_lines
from slowfast.datasets.index.samples import UNLABELED, SampleKind, distinct_files, find_samples
from slowfast.datasets.types import Failure, Record
from slowfast.errors import ConfigError, DataError
from slowfast.event_driven.network import check_network
from slowfast.event_driven.video_frames import CameraFrames, FileFrames, OpenVideo, StreamFrames
from slowfast.utils.paths import nearest_file
from slowfast.utils.ray_cluster import RAY
from slowfast.utils.text import did_you_mean, is_redacted, plain, redact

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
LIST = ".txt"  # suffix of a list of sources
# Images among the videos are reported with this reason.
_VIDEOS_ONLY = SampleKind(False, "", "", "event-driven inference takes videos only")
MAX_NAME = 64  # characters; file names of 4 bytes per character fit every file system, with a suffix
_COMMENT = re.compile(r"\s#.*")
_NOT_IN_NAMES = '/\\:*?"<>|'  # characters that some systems refuse in file names
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)  # not a file name on Windows


def is_camera(place: str) -> bool:
    """Return whether DATA.PATH_PREFIX is the number of a camera, not an existing file or folder."""
    return place.isdecimal() and not os.path.exists(place)


def is_address(place: str) -> bool:
    """Return whether DATA.PATH_PREFIX is the address of a stream, such as rtsp://host/path."""
    return _ADDRESS.fullmatch(place) is not None


def check_address(address: str) -> None:
    """Raise ConfigError for an address from a saved config, which hides the password."""
    if is_redacted(address):
        raise ConfigError(
            f"DATA.PATH_PREFIX: the password or token of {address} was hidden when the config was saved. Give the full "
            "address again"
        )


@dataclass(frozen=True)
class Source:
    """Video source.

    Attributes:
        record: The video, with the name that all reports show: that of a list of sources, otherwise its path.
        open: Function that opens it.
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
            such, one per line (:func:`read_list`); files in a list are relative to its folder.
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
    """Return the source of a camera or stream. Its record, for reports, hides the password of an address."""
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
    """Return an output file for each source, by index: named after it, and numbered if that is not unique."""
    files = distinct_files((source.stem for source in sources), folder, suffix)
    return {source.record.index: file for source, file in zip(sources, files, strict=True)}


@dataclass(frozen=True)
class ListedSource:
    """Line of a list.

    Attributes:
        number: Number of the line, from 1.
        name: Name of the source; "" if the line has none.
        place: File, number of a camera, or address of a stream.
    """

    number: int
    name: str
    place: str


def read_list(path: Path) -> list[ListedSource]:
    """Read a list of sources.

    Raises:
        DataError: If the file is not text, a line names no source, or a name is invalid or used twice.
    """
    listed: list[ListedSource] = []
    taken: dict[str, int] = {}  # line of each name
    for number, line in read_lines(path, "list one video, camera or stream per line"):
        if line.startswith("#"):
            continue
        where = f"{path} line {number}"
        name, place = _split(path.parent, line)
        if not _is_place(path.parent, place):
            raise DataError(f"{where}: {plain(place)} is not a file, camera number or stream address")
        if name is not None:
            _check_name(where, name)
            first = taken.setdefault(_normalized(name), number)
            if first != number:
                raise DataError(
                    f"{where}: the name {plain(name)} is that of line {first}. Give each source its own name"
                )
        listed.append(ListedSource(number, name or "", place))
    if not listed:
        raise DataError(f"{path}: the list contains no video, camera or stream")
    return listed


def _split(folder: Path, line: str) -> tuple[str | None, str]:
    """Return the name (None if there is none) and the place of a line."""
    if _is_place(folder, line):  # a file name may contain "=" and "#"
        return None, line
    line = _COMMENT.sub("", line)
    name, equals, place = line.partition("=")
    if not equals or _is_place(folder, line):
        return None, line
    return name.strip(), place.strip()


def _is_place(folder: Path, text: str) -> bool:
    return is_camera(text) or is_address(text) or os.path.isfile(folder / text)  # also False for invalid names


def _check_name(where: str, name: str) -> None:
    """Raise DataError for a name that cannot be used in file names, tables and images."""
    if not name:
        raise DataError(f"{where}: the name before '=' is empty. Write name = address, or the address alone")
    wrong = [character for character in name if character in _NOT_IN_NAMES or not character.isprintable()]
    if wrong:
        raise DataError(f"{where}: the name {plain(name)} contains {wrong[0]!r}. Files are named after it: remove it")
    if len(name) > MAX_NAME:
        raise DataError(f"{where}: the name has {len(name)} characters. Shorten it to at most {MAX_NAME}")
    if name.startswith(".") or name.endswith(".") or _DEVICE.fullmatch(name):
        raise DataError(f"{where}: {plain(name)} is not a valid file name on all systems. Choose another name")


def _normalized(name: str) -> str:
    """Return the normalized form of a name, for comparison on file systems that ignore case."""
    return unicodedata.normalize("NFC", name.casefold())


def check(cfg: ConfigNode, world_size: int = 1) -> None:
    """Raise ConfigError if event-driven inference is not possible with these settings."""
    check_network(cfg)
    if not on_videos(cfg):
        return
    if world_size > 1:
        raise ConfigError(
            "EVENT.ENABLE: event-driven inference on videos runs in one process. Start it without torchrun"
        )
    place = cfg.DATA.PATH_PREFIX
    if not place:
        raise ConfigError(
            "EVENT.ENABLE: DATA.PATH_PREFIX is empty. Set it to a folder of videos, a file, the number of a camera, "
            "the address of a stream, or a .txt file that lists them"
        )
    if is_address(place):
        check_address(place)
    if not (is_camera(place) or is_address(place) or os.path.exists(place)):
        near = nearest_file(Path(place))
        raise ConfigError(f"DATA.PATH_PREFIX: {plain(place)} does not exist.{did_you_mean(near)}".removesuffix("."))
