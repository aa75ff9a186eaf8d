"""The videos of a folder and the names of their prepared copies."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from slowfast.datasets.decode.suffixes import VIDEO_SUFFIXES, skipped_note
from slowfast.errors import UserError
from slowfast.runtime.logging import get_logger
from slowfast.runtime.unfinished import part_owner


@dataclass(frozen=True)
class Job:
    """One video to prepare; names are relative to the two folders, with forward slashes."""

    source: Path
    target: Path
    name: str
    target_name: str


def check_folders(source: Path, target: Path) -> None:
    """Raise UserError unless `source` is a folder and `target` may be one apart from it."""
    if not source.is_dir():
        raise UserError(f"{source} is not a folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file, not a folder; choose another one to write to")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(f"{target} and {source} lie in one another; choose a folder to write to outside of the source")


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


def remove_left_behind(target: Path) -> None:
    """Delete what processes of this machine that are no more left unfinished: .<name>.<owner>.part."""
    host = part_owner().rpartition("-")[0]
    pattern = re.compile(rf".*\.{re.escape(host)}-(\d+)\.part", re.DOTALL)
    for path in target.rglob(".*.part"):
        found = pattern.fullmatch(path.name)
        if found is not None and not _is_running(int(found[1])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
