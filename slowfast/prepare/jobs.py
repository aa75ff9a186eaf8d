"""Parallel, resumable jobs over the files of a folder."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

import av

from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.types import Failure, failure_of, failure_reason, log_traceback
from slowfast.errors import DataError, UserError
from slowfast.prepare.files import (
    FAILED_FILE,
    VIDEOS,
    ConvertedFile,
    FileKind,
    Job,
    check_folders,
    find_jobs,
    write_failures,
)
from slowfast.utils.files import remove_leftovers
from slowfast.utils.ray_cluster import LOCAL, RAY, RayCluster
from slowfast.utils.screen import Progress
from slowfast.utils.worker import IDLE, working_on
from slowfast.utils.worker_pool import LostTask, WorkerPool

Input = TypeVar("Input")
Output = TypeVar("Output")

_SMALLEST_GROUP, _GROUP = 4, 16  # inputs per group on a Ray cluster, because starting its worker process takes seconds
STALL_LIMIT = 300.0  # seconds without progress after which a worker is killed
# A file exists where a target folder is needed. DiskError covers full and read-only disks.
_FOLDER_ERRORS = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


def run_in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int, stall_limit: float | None = None
) -> Generator[tuple[Input, Output | LostTask]]:
    """Yield each input with its result, in order of completion.

    A worker that dies or stalls loses only its input. If it was killed, as the kernel does when memory runs out, its
    input is retried once. An exception of `function` is raised here and stops all workers.

    Args:
        function: Picklable function; it calls :func:`still_working` whenever it has made progress.
        inputs: Picklable inputs.
        workers: Number of processes, started with "spawn": forking is unsafe while other threads run.
        stall_limit: Seconds without progress until a worker is killed (default STALL_LIMIT).
    """
    limit = STALL_LIMIT if stall_limit is None else stall_limit
    remaining = enumerate(inputs)
    submitted: dict[int, Input] = {}
    retried: set[int] = set()
    with WorkerPool[Input, Output](partial(_work, function), workers, timeout=limit, timeout_reason=_stalled) as pool:
        while True:
            for number, item in islice(remaining, max(workers - len(submitted), 0)):
                submitted[number] = item
                pool.submit(number, item)
            if not submitted:
                return
            event = pool.wait()
            if isinstance(event, LostTask) and event.killed and event.number not in retried:
                retried.add(event.number)
                pool.submit(event.number, submitted[event.number], first=True)
                continue
            yield submitted.pop(event.number), event if isinstance(event, LostTask) else event.result


def run_on_ray(
    function: Callable[[Input], Output], inputs: Sequence[Input]
) -> Generator[tuple[Input, Output | LostTask]]:
    """Yield each input with its result, like `run_in_processes`, from the nodes of a Ray cluster.

    Inputs are processed in groups, each in a worker process of a node. The group of a node that is lost is processed
    again on another one.
    """
    with RayCluster.connect() as cluster:
        size = min(max(len(inputs) // (4 * cluster.slots(1, 0)), _SMALLEST_GROUP), _GROUP)
        groups = [inputs[start : start + size] for start in range(0, len(inputs), size)]
        for _, results in cluster.map(partial(_run_group, function), groups):
            yield from results


def _run_group(function: Callable[[Input], Output], inputs: Sequence[Input]) -> list[tuple[Input, Output | LostTask]]:
    return list(run_in_processes(function, inputs, workers=1))


def _work(function: Callable[[Input], Output], item: Input) -> Output:
    working_on(0)
    try:
        return function(item)
    finally:
        working_on(IDLE)


def _stalled(seconds: float) -> str:
    return f"reading made no progress for {seconds:g} s"


@dataclass(frozen=True)
class JobResults(Generic[Output]):
    """Outcome of a run; keys are the names of the jobs."""

    outputs: dict[str, Output]  # one per job finished in this run
    skipped: int  # number of jobs finished by an earlier run
    failed: dict[str, str]  # reason of each failure
    seconds: float

    def require_one(self, kind: FileKind, target: Path) -> None:
        """Raise DataError if every job failed."""
        if self.outputs or self.skipped:
            return
        name, reason = next(iter(self.failed.items()))
        raise DataError(
            f"none of {len(self.failed)} {kind.name} could be read. First failure: {name}: {reason}. "
            f"Full list: {target / FAILED_FILE}"
        )


def run_jobs(
    process: Callable[[Job], Output],
    jobs: Sequence[Job],
    target: Path,
    workers: int,
    *,
    is_done: Callable[[Job], bool],
    on_output: Callable[[Output], None] | None = None,
    verb: str = "converted",
    kind: FileKind = VIDEOS,
    engine: str = LOCAL,
) -> JobResults[Output]:
    """Process the jobs that no earlier run has finished in parallel, with progress.

    A file that cannot be read is a failure and does not stop the run. Partial output of an interrupted run, or of a
    worker that died, is removed from `target`.

    Args:
        process: Picklable function that writes the results of one job. It runs in a worker process and calls
            :func:`still_working` whenever it has made progress.
        jobs: All jobs, finished ones included.
        target: Folder of the results; created if necessary.
        workers: Number of worker processes.
        is_done: Returns whether a job was finished before.
        on_output: Called in this process with each output as soon as it is available.
        verb: Past participle for the progress display.
        kind: Kind of the files.
        engine: LOCAL for worker processes of this machine; RAY for the nodes of a cluster, which see the same files.

    Raises:
        UserError: If the results cannot be written, or there is no such cluster.
    """
    started = time.monotonic()
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target, recursive=True)
    todo = [job for job in jobs if not is_done(job)]
    results = JobResults[Output]({}, len(jobs) - len(todo), {}, 0.0)
    progress = Progress(verb, len(jobs), kind.name, True, max(len(jobs) // 20, 1), results.skipped)
    work = partial(_process_or_fail, process)
    run = run_on_ray(work, todo) if engine == RAY and todo else run_in_processes(work, todo, workers)
    with _cleanup(progress, target), closing(run) as finished:
        for job, output in finished:
            if isinstance(output, Failure | LostTask):
                results.failed[job.name] = _failure_reason(job, output)
            else:
                results.outputs[job.name] = output
                if on_output is not None:
                    on_output(output)
            progress.advance(f"failed {len(results.failed)}")
    return replace(results, seconds=time.monotonic() - started)


def _process_or_fail(process: Callable[[Job], Output], job: Job) -> Output | Failure:
    """Process one job in a worker or return its failure.

    Raises:
        UserError: If the error is unrelated to the source file: a user error, or the target is not writable.
    """
    try:
        check_file(job.source)
        return process(job)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FOLDER_ERRORS and not isinstance(error, av.FFmpegError):
            raise UserError(f"{job.target.parent} cannot be written: {failure_reason(error)}") from error
        return failure_of(0, job.name, error)


def _failure_reason(job: Job, result: Failure | LostTask) -> str:
    """Return the reason why a job failed; log the first unexpected traceback, clean up after a lost worker."""
    if isinstance(result, LostTask):
        remove_leftovers(job.target.parent)
    else:
        log_traceback(result)
    return result.reason


@contextmanager
def _cleanup(progress: Progress, target: Path) -> Iterator[None]:
    """Close the progress bar; after an error remove partial output of the workers."""
    try:
        yield
    except BaseException:
        remove_leftovers(target, recursive=True)
        raise
    finally:
        progress.close()


@dataclass(frozen=True)
class Conversion:
    """Summary of :func:`convert_files`; keys are file names relative to the source folder."""

    done: int
    skipped: int  # converted by an earlier run
    damaged: dict[str, str]  # description of the damage; the rest was converted
    failed: dict[str, str]  # reason
    seconds: float
    notes: dict[str, int]  # number of files with each note
    counts: dict[str, int]  # sums of the counts of the files


def convert_files(
    process: Callable[[Job], ConvertedFile],
    source: Path,
    target: Path,
    workers: int,
    *,
    is_done: Callable[[Job], bool],
    target_suffix: str,
    verb: str = "converted",
    kind: FileKind = VIDEOS,
    engine: str = LOCAL,
) -> Conversion:
    """Convert all files of a kind below `source` that have not been converted; list failures in failed.csv.

    Args:
        process: Function that writes the results of one file; see :func:`run_jobs`.
        source: Folder of the files.
        target: Folder of the results, outside of `source`.
        workers: Number of worker processes.
        is_done: Returns whether a file was converted before.
        target_suffix: Suffix of the results; empty for folders.
        verb: Past participle for the progress display.
        kind: Kind of the files.
        engine: LOCAL or RAY.

    Raises:
        UserError: If a folder is unsuitable or the results cannot be written.
        DataError: If no file can be read.
    """
    check_folders(source, target)
    jobs = find_jobs(source, target, kind, target_suffix)
    results = run_jobs(process, jobs, target, workers, is_done=is_done, verb=verb, kind=kind, engine=engine)
    if results.failed:
        write_failures(target, results.failed)
    else:
        (target / FAILED_FILE).unlink(missing_ok=True)  # left by an earlier run
    results.require_one(kind, target)
    outputs = results.outputs
    damaged = {name: output.damage for name, output in outputs.items() if output.damage is not None}
    notes = Counter(note for output in outputs.values() for note in output.notes)
    counts = Counter[str]()
    for output in outputs.values():
        counts.update(output.counts)
    return Conversion(
        len(outputs), results.skipped, damaged, results.failed, results.seconds, dict(notes), dict(counts)
    )
