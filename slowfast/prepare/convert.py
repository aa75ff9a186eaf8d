"""Videos of a folder to something else beside them, each whole or not at all, in processes; can be gone on with."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av

from slowfast.datasets.decode.suffixes import VIDEO_SUFFIXES
from slowfast.datasets.failures import failure_of, failure_reason, log_traceback
from slowfast.datasets.types import Failure
from slowfast.errors import DataError, UserError
from slowfast.prepare.collection import Job, check_folders, find_jobs
from slowfast.prepare.pool import run_in_processes
from slowfast.report.results import write_csv
from slowfast.runtime.progress import Progress
from slowfast.runtime.unfinished import remove_leftovers
from slowfast.runtime.worker_pool import Lost

FAILED_FILE = "failed.csv"  # in the target folder
# Something other than a folder is in the place of a target folder; DiskError covers full and read-only disks.
_FOLDER_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


@dataclass(frozen=True)
class Written:
    """What a video was to become is written."""

    damage: str | None  # what could not be read of the video
    note: str | None = None  # what to tell of it: once, with the count of all it is told of


def failed_to_read(job: Job, error: Exception, target: Path) -> Failure:
    """Return the failure of a file that could not be converted.

    Raises:
        UserError: If the error is not about the file: one of the user's, or the disk does not take `target`.
    """
    if isinstance(error, UserError):
        raise error
    if isinstance(error, OSError) and error.errno in _FOLDER_ERRORS and not isinstance(error, av.FFmpegError):
        raise UserError(f"{target} cannot be written: {failure_reason(error)}") from error
    return failure_of(0, job.name, error)


def note_failure(job: Job, result: Failure | Lost) -> str:
    """Return why a file failed; log the traceback of the first unexpected error, delete what a lost process left."""
    if isinstance(result, Lost):
        remove_leftovers(job.target.parent)
    if isinstance(result, Failure):
        log_traceback(result)
    return result.reason


@contextmanager
def progress_and_cleanup(progress: Progress, target: Path) -> Iterator[None]:
    """Close the progress at the end; after an error delete what the processes did not finish."""
    try:
        yield
    except BaseException:
        remove_leftovers(target, recursive=True)
        raise
    finally:
        progress.close()


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
    is_done: Callable[[Job], bool],
    convert: Callable[[Job], Written | Failure],
    word: str,
    workers: int,
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    kind: str = "videos",
) -> Converted:
    """Convert all videos (files with these suffixes) below `source` that are not done yet, to files below `target`.

    Args:
        is_done: Whether a video was converted before.
        convert: Writes the files of one video or returns its failure; it runs in a process of a pool.
        word: What is done, for the progress.

    Raises:
        UserError: For wrong folders, or if the disk does not take the files.
        DataError: If no video at all can be read.
    """
    started = time.monotonic()
    check_folders(source, target)
    jobs = find_jobs(source, target, suffixes)
    remove_leftovers(target, recursive=True)
    todo = [job for job in jobs if not is_done(job)]
    damaged: dict[str, str] = {}
    failed: dict[str, str] = {}
    notes: Counter[str] = Counter()
    progress = Progress(word, len(jobs), kind, True, max(len(jobs) // 20, 1), len(jobs) - len(todo))
    with progress_and_cleanup(progress, target), closing(run_in_processes(convert, todo, workers)) as results:
        for job, result in results:
            if not isinstance(result, Written):
                failed[job.name] = note_failure(job, result)
            elif result.damage is not None:
                damaged[job.name] = result.damage
            if isinstance(result, Written) and result.note is not None:
                notes[result.note] += 1
            progress.advance(f"failed {len(failed)}")
    if failed:
        write_csv(target / FAILED_FILE, ("path", "reason"), sorted(failed.items()))
    else:
        (target / FAILED_FILE).unlink(missing_ok=True)  # an older run's
    if len(failed) == len(jobs):
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of {len(jobs)} {kind} could be read, {name} for one: {reason}")
    there = len(jobs) - len(todo)
    return Converted(len(todo) - len(failed), there, damaged, failed, time.monotonic() - started, dict(notes))
