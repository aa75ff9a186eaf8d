"""Resumable parallel jobs over the files of a folder."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import av

from slowfast.datasets.decode.reader import VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.types import Failure, failure_of, failure_reason, log_traceback
from slowfast.errors import DataError, UserError
from slowfast.utils.csv_files import write_csv
from slowfast.utils.files import remove_leftovers
from slowfast.utils.logging import get_logger
from slowfast.utils.output_folders import check_output_folder
from slowfast.utils.progress import Progress
from slowfast.utils.text import plain as plain_text
from slowfast.utils.worker import IDLE, working_on
from slowfast.utils.worker_pool import Lost, WorkerPool

Input = TypeVar("Input")
Output = TypeVar("Output")

STALL_LIMIT = 300.0  # seconds in which a file must get on; every frame and every part of a recording counts


def run_in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int, stall_limit: float | None = None
) -> Generator[tuple[Input, Output | Lost]]:
    """Yield each input with its result, in the order they are done.

    A process that dies or gets no further costs its input only; one that was killed, as when the memory is full, lets
    its input be tried once more. An exception of `function` is raised here and ends all.

    Args:
        function: Picklable function; it calls :func:`still_working` whenever it has got on.
        inputs: Picklable inputs.
        workers: Number of processes, started with "spawn": forking with other threads about is not safe.
        stall_limit: Seconds without progress after which a process is killed (default STALL_LIMIT).
    """
    limit = STALL_LIMIT if stall_limit is None else stall_limit
    left = enumerate(inputs)
    given: dict[int, Input] = {}
    killed: set[int] = set()
    with WorkerPool[Input, Output](partial(_work, function), workers, timeout=limit, timeout_reason=_stalled) as pool:
        while True:
            for number, item in islice(left, max(workers - len(given), 0)):
                given[number] = item
                pool.submit(number, item)
            if not given:
                return
            event = pool.wait()
            if isinstance(event, Lost) and event.killed and event.number not in killed:
                killed.add(event.number)
                pool.submit(event.number, given[event.number], first=True)
                continue
            yield given.pop(event.number), event if isinstance(event, Lost) else event.result


def _work(function: Callable[[Input], Output], item: Input) -> Output:
    working_on(0)
    try:
        return function(item)
    finally:
        working_on(IDLE)


def _stalled(seconds: float) -> str:
    return f"reading got no further for {seconds:g} s"


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
