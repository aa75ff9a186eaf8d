"""Files of the jobs of a preparation command, and their folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.datasets.decode.reader import VIDEO_SUFFIXES, skipped_note
from slowfast.errors import UserError
from slowfast.utils.files import check_output_folder
from slowfast.utils.logging import get_logger
from slowfast.utils.text import plain
from slowfast.utils.text_files import write_csv

FAILED_FILE = "failed.csv"  # file in the target folder


@dataclass(frozen=True)
class FileKind:
    """Kind of source files.

    Attributes:
        name: Name for messages, in the plural.
        suffixes: File suffixes in lower case.
        accompanies: Whether a file with such a suffix only accompanies others.
    """

    name: str
    suffixes: frozenset[str]
    accompanies: Callable[[Path], bool] = lambda name: False


VIDEOS = FileKind("videos", VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Job:
    """One file to process; names are relative to the source and target folders, with forward slashes."""

    source: Path
    target: Path
    name: str
    target_name: str


def find_jobs(source: Path, target: Path, kind: FileKind = VIDEOS, target_suffix: str = ".mp4") -> list[Job]:
    """Find all files of a kind below `source`, sorted by name; links to folders are not followed.

    ``a/b.avi`` becomes ``a/b.mp4``. If two files would get the same target, each keeps its suffix:
    ``a/b.avi.mp4``. Files with an unknown suffix that may be media are reported in a warning.

    Args:
        source: Folder to search.
        target: Folder of the results; it need not exist.
        kind: Kind of the files.
        target_suffix: Suffix of the results; empty for folders.

    Raises:
        UserError: If there are none.
    """
    files = [
        (Path(folder) / file).relative_to(source) for folder, _, files in os.walk(source) for file in sorted(files)
    ]
    files = [file for file in files if not kind.accompanies(file)]
    names = sorted(file for file in files if file.suffix.lower() in kind.suffixes)
    note = skipped_note(source, (file.as_posix() for file in files), kind.suffixes)
    if not names:
        raise UserError(f"{source} contains no {kind.name} (files ending in {' '.join(sorted(kind.suffixes))})")
    if note is not None:
        get_logger().warning(note)
    stems = Counter(str(name.with_suffix("")).lower() for name in names)
    jobs = []
    for name in names:
        unique = stems[str(name.with_suffix("")).lower()] == 1
        result = name.with_suffix(target_suffix) if unique else name.with_name(f"{name.name}{target_suffix}")
        jobs.append(Job(source / name, target / result, name.as_posix(), result.as_posix()))
    return jobs


def check_source(source: Path) -> None:
    """Raise UserError unless `source` is a folder."""
    if not os.path.isdir(source):
        wrong = "is not a directory" if os.path.exists(source) else "does not exist"
        raise UserError(f"SOURCE {plain(source)} {wrong}. Give the folder of the files to read")


def check_folders(source: Path, target: Path) -> None:
    """Raise UserError unless `source` is a folder and `target` is or can become one outside of it."""
    check_source(source)
    check_output_folder(target, "TARGET")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(
            f"TARGET {plain(target)} and SOURCE {plain(source)} contain one another. Choose a target outside of the "
            "source"
        )


@dataclass(frozen=True)
class ConvertedFile:
    """Output of a conversion.

    Attributes:
        damage: Description of what could not be read from the source, if anything.
        notes: Notes to report once for all files.
        counts: Numbers by name, to report as sums over all files.
    """

    damage: str | None
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def target_exists(job: Job) -> bool:
    """Return whether a file was converted before, for targets that appear once they are complete."""
    return job.target.exists()


def write_failures(target: Path, failed: Mapping[str, str]) -> None:
    """Write failed.csv: the path and the reason of each failure."""
    write_csv(target / FAILED_FILE, ("path", "reason"), sorted(failed.items()))
