"""The videos of a folder and the names of their prepared copies."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode.suffixes import VIDEO_SUFFIXES, skipped_note
from slowfast.errors import UserError
from slowfast.runtime.logging import get_logger
from slowfast.utils.output import check_output_folder
from slowfast.utils.quote import plain as plain_text


@dataclass(frozen=True)
class Job:
    """One video to prepare; names are relative to the two folders, with forward slashes."""

    source: Path
    target: Path
    name: str
    target_name: str


def check_folders(source: Path, target: Path) -> None:
    """Raise UserError unless `source` is a folder and `target` may be one apart from it."""
    if not os.path.isdir(source):
        wrong = "is not a directory" if os.path.exists(source) else "does not exist"
        raise UserError(f"SOURCE {plain_text(source)} {wrong}. Give the folder of the files to read")
    check_output_folder(target, "TARGET")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(
            f"TARGET {plain_text(target)} and SOURCE {plain_text(source)} contain one another. Choose a target "
            "outside of the source"
        )


def find_jobs(source: Path, target: Path, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> list[Job]:
    """Find all files below `source` with one of the suffixes, sorted by name; links to folders are not followed.

    a/b.avi becomes a/b.mp4; where two would become the same file, each keeps its suffix: a/b.avi.mp4. Files that may be
    media of an unknown suffix are reported in a warning.

    Raises:
        UserError: If there are none.
    """
    files = [
        (Path(folder) / file).relative_to(source) for folder, _, files in os.walk(source) for file in sorted(files)
    ]
    names = sorted(file for file in files if file.suffix.lower() in suffixes)
    note = skipped_note(source, (file.as_posix() for file in files), suffixes)
    if not names:
        kind = "videos" if suffixes == VIDEO_SUFFIXES else "recordings"
        raise UserError(f"{source} holds no {kind} (files ending in {' '.join(sorted(suffixes))})")
    if note is not None:
        get_logger().warning(note)
    plain = Counter(str(name.with_suffix(".mp4")).lower() for name in names)
    jobs = []
    for name in names:
        alone = plain[str(name.with_suffix(".mp4")).lower()] == 1
        short = name.with_suffix(".mp4") if alone else name.with_name(f"{name.name}.mp4")
        jobs.append(Job(source / name, target / short, name.as_posix(), short.as_posix()))
    return jobs
