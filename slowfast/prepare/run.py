"""Prepares a whole collection: what is not done yet, in parallel, then the list of failures and the indices."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.types import Failure
from slowfast.errors import DataError
from slowfast.prepare.collection import Job, check_folders, find_jobs
from slowfast.prepare.convert import FAILED_FILE, failed_to_read, note_failure, progress_and_cleanup
from slowfast.prepare.encode import prepare_video
from slowfast.prepare.index_files import read_index, write_index
from slowfast.prepare.manifest import Entry, Manifest
from slowfast.prepare.pool import run_in_processes
from slowfast.prepare.settings import PrepareSettings
from slowfast.report.results import write_csv
from slowfast.runtime.progress import Progress
from slowfast.runtime.unfinished import remove_leftovers


@dataclass(frozen=True)
class Summary:
    """What a run left behind."""

    prepared: list[Entry]  # all of the collection, those of earlier runs too
    already_done: int
    failed: dict[str, str]  # name -> reason
    source_size: int  # bytes, of the prepared ones
    seconds: float

    def table(self) -> str:
        """The summary for the screen."""
        size = sum(entry.size for entry in self.prepared)
        damaged = sum(entry.damage is not None for entry in self.prepared)
        rows = [
            ("prepared", f"{len(self.prepared)} ({self.already_done} of them before)"),
            ("of which damaged, whole as far as readable", damaged),
            (f"failed, listed in {FAILED_FILE}", len(self.failed)),
            ("frames", sum(entry.frames for entry in self.prepared)),
            ("size before", f"{self.source_size / 1e6:.1f} MB"),
            ("size after", f"{size / 1e6:.1f} MB ({size / max(self.source_size, 1):.2f} x)"),
            ("time", f"{self.seconds:.0f} s"),
        ]
        return tabulate(rows, headers=("videos", ""), tablefmt="simple", disable_numparse=True)


def prepare(
    source: Path,
    target: Path,
    settings: PrepareSettings,
    workers: int,
    index_files: Sequence[Path] = (),
    separator: str = " ",
) -> Summary:
    """Re-encode all videos below `source` into `target`, skipping what an earlier run finished with these settings.

    Writes `failed.csv` and the given indices, rewritten, to `target`. Raises UserError for wrong folders or indices
    and for a disk that does not take the files, DataError when no video at all can be read.
    """
    started = time.monotonic()
    check_folders(source, target)
    indices = [read_index(file, separator, source, target) for file in index_files]
    jobs = find_jobs(source, target)
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target, recursive=True)
    manifest = Manifest(target)
    digest = settings.digest()
    entries = {job.name: entry for job in jobs if (entry := manifest.done(job, digest)) is not None}
    already_done = len(entries)
    failed: dict[str, str] = {}
    todo = [job for job in jobs if job.name not in entries]
    progress = Progress("prepared", len(jobs), "videos", True, max(len(jobs) // 20, 1), already_done)
    work = partial(_prepare_one, settings)
    with progress_and_cleanup(progress, target), closing(run_in_processes(work, todo, workers)) as results:
        for job, result in results:
            if isinstance(result, Entry):
                manifest.add(result)
                entries[job.name] = result
            else:
                failed[job.name] = note_failure(job, result)
            progress.advance(f"failed {len(failed)}")
    for index in indices:
        for name in write_index(index, separator, target, {entry.source: entry.target for entry in entries.values()}):
            failed.setdefault(name, f"named in {index.file.name}, but not among the videos of {source}")
    write_csv(target / FAILED_FILE, ("path", "reason"), sorted(failed.items()))
    if not entries:
        name, reason = next(iter(failed.items()))
        raise DataError(f"none of {len(jobs)} videos could be prepared, {name} for one: {reason}; see {FAILED_FILE}")
    size = sum(entry.source_size for entry in entries.values())
    return Summary(list(entries.values()), already_done, failed, size, time.monotonic() - started)


def _prepare_one(settings: PrepareSettings, job: Job) -> Entry | Failure:
    """Prepare one video or return its failure. Runs in a process of the pool."""
    try:
        check_file(job.source)
        stat = job.source.stat()
        result = prepare_video(job.source, job.target, settings)
    except Exception as error:
        return failed_to_read(job, error, job.target)
    return Entry(
        job.name,
        job.target_name,
        stat.st_size,
        stat.st_mtime_ns,
        settings.digest(),
        result.frames,
        result.size,
        result.damage,
    )
