"""Videos of a folder to something else beside them, each whole or not at all, in processes; can be gone on with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slowfast.datasets.decode.suffixes import VIDEO_SUFFIXES
from slowfast.errors import DataError
from slowfast.prepare.collection import Job, check_folders, find_jobs, remove_left_behind
from slowfast.prepare.pool import run_in_processes
from slowfast.runtime.progress import Progress


@dataclass(frozen=True)
class Written:
    """What a video was to become is written."""

    damage: str | None  # what could not be read of the video
    note: str | None = None  # what to tell of it: once, with the count of all it is told of


@dataclass(frozen=True)
class Converted:
    """What a run left behind: names of videos below the source folder."""

    done: int
    already_there: int
    damaged: dict[str, str]  # whole as far as readable -> what was lost
    failed: dict[str, str]  # -> reason
    seconds: float
    notes: dict[str, int] = field(default_factory=dict)  # what is told of how many


def convert_videos(
    source: Path,
    target: Path,
    part: str,
    is_done: Callable[[Job], bool],
    convert: Callable[[Job], Written | str],
    word: str,
    workers: int,
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    kind: str = "videos",
) -> Converted:
    """Convert all videos (files with these suffixes) below `source` that are not done yet, to files below `target`.

    convert: writes one there, or says why it cannot be read; it runs in a process of a pool. part: in the names of what
    it has not finished. word: what is done, for the progress. Raises UserError for wrong folders and for a disk that
    does not take the files, DataError when no video at all can be read.
    """
    started = time.monotonic()
    check_folders(source, target)
    jobs = find_jobs(source, target, suffixes)
    remove_left_behind(target, part)
    todo = [job for job in jobs if not is_done(job)]
    damaged: dict[str, str] = {}
    failed: dict[str, str] = {}
    notes: Counter[str] = Counter()
    progress = Progress(word, len(jobs), kind, True, max(len(jobs) // 20, 1), len(jobs) - len(todo))
    for job, result in run_in_processes(convert, todo, workers):
        if isinstance(result, Written) and result.damage is not None:
            damaged[job.name] = result.damage
        elif not isinstance(result, Written):
            failed[job.name] = str(result)
        if isinstance(result, Written) and result.note is not None:
            notes[result.note] += 1
        progress.advance(f"failed {len(failed)}")
    progress.close()
    if len(failed) == len(jobs):
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of {len(jobs)} {kind} could be read, {name} for one: {reason}")
    there = len(jobs) - len(todo)
    return Converted(len(todo) - len(failed), there, damaged, failed, time.monotonic() - started, dict(notes))
