"""Re-encoding of a folder of videos for fast training, with its index files; resumable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

from slowfast.datasets.index.entries import CLASSES, LABEL_SEPARATOR, ONE_CLASS, format_label
from slowfast.datasets.index.labeled_paths import CLASS_NAMES_FILE, format_line, parse_line
from slowfast.datasets.index.lines import read_lines
from slowfast.errors import IndexFileError, UserError
from slowfast.prepare.encode import PrepareSettings, prepare_video
from slowfast.prepare.files import FAILED_FILE, VIDEOS, Job, check_folders, find_jobs, write_failures
from slowfast.prepare.jobs import run_jobs
from slowfast.utils.files import atomic_write_text, disk_error
from slowfast.utils.ray_cluster import LOCAL
from slowfast.utils.text_files import from_json, to_json

MANIFEST = "prepared.jsonl"


@dataclass(frozen=True)
class Entry:
    """Record of a re-encoded video; paths are relative to the source and target folders."""

    source: str
    target: str
    source_size: int  # in bytes
    source_mtime_ns: int
    settings: str  # digest of the settings
    frames: int
    size: int  # size of the target in bytes
    damage: str | None


class Manifest:
    """List of the re-encoded videos of a target folder; several runs may append to it concurrently."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / MANIFEST
        self._entries = {entry.source: entry for entry in self._read()}

    def _read(self) -> list[Entry]:
        """Read the entries in the order of writing, skipping lines truncated by a kill."""
        entries = []
        text = self._file.read_text(encoding="utf-8", errors="replace") if self._file.exists() else ""
        for line in text.splitlines():
            try:
                entries.append(Entry(**from_json(line)))
            except (ValueError, TypeError):
                continue
        return entries

    def find(self, job: Job, settings: str) -> Entry | None:
        """Return the entry of a video if it has these settings and both files are unchanged; else None."""
        entry = self._entries.get(job.name)
        if entry is None or (entry.settings, entry.target) != (settings, job.target_name):
            return None
        try:
            source, target = job.source.stat(), job.target.stat()
        except OSError:
            return None
        found = (source.st_size, source.st_mtime_ns, target.st_size)
        return entry if found == (entry.source_size, entry.source_mtime_ns, entry.size) else None

    def add(self, entry: Entry) -> None:
        """Append an entry in a single write.

        Raises:
            DiskError: If the disk is full.
        """
        try:
            with self._file.open("ab+") as file:
                size = file.seek(0, 2)
                file.seek(max(size - 1, 0))
                start = b"\n" if size and file.read(1) != b"\n" else b""  # after a truncated line
                file.write(start + to_json(asdict(entry)).encode() + b"\n")
        except OSError as error:
            raise disk_error(error, self._file) or error from error


@dataclass(frozen=True)
class IndexLines:
    """Kinetics index: for each line the name of the video relative to the source folder, and its label."""

    file: Path
    lines: list[tuple[str, str]]  # path and text of the label


def read_index(file: Path, separator: str, source: Path, target: Path) -> IndexLines:
    """Read an index file whose paths are absolute or relative to `source`.

    Raises:
        IndexFileError: If the file is missing or invalid, or a path is outside of `source`.
        UserError: If the new index would overwrite the file.
    """
    if (target / file.name).resolve() == file.resolve():
        raise UserError(f"--index {file} would be overwritten by the new index. Give the index of the source folder")
    lines = []
    for number, line in read_lines(file, "check --index"):
        try:
            name, label = parse_line(line, separator, labels=ONE_CLASS if LABEL_SEPARATOR in separator else CLASSES)
        except ValueError as error:
            raise IndexFileError(
                f"{file} line {number}: {line!r}: {error}. Expected path{separator}label (--separator {separator!r})"
            ) from error
        inside = os.path.relpath(os.path.join(os.path.abspath(source), name), os.path.abspath(source))
        if inside.split(os.sep)[0] == os.pardir:
            raise IndexFileError(f"{file} line {number}: {line!r}: the path is outside of {source}")
        lines.append((Path(inside).as_posix(), format_label(label)))
    if not lines:
        raise IndexFileError(f"{file} is empty. Expected lines of the form path{separator}label")
    return IndexLines(file, lines)


def write_index(index: IndexLines, separator: str, target: Path, prepared: Mapping[str, str]) -> list[str]:
    """Write the index of the re-encoded videos to `target`, and copy the class names.

    Args:
        index: Index of the source videos.
        separator: Separator of path and label.
        target: Folder of the re-encoded videos.
        prepared: Name of each re-encoded video relative to `target`, by the name of its source.

    Returns:
        The names in the index without a re-encoded video.
    """
    kept = [format_line(prepared[name], separator, label) for name, label in index.lines if name in prepared]
    atomic_write_text(target / index.file.name, "".join(kept))
    copy_class_names(index, target)
    return [name for name, _ in index.lines if name not in prepared]


def copy_class_names(index: IndexLines, target: Path) -> None:
    """Copy the class names beside an index, if any, to a folder."""
    class_names = index.file.parent / CLASS_NAMES_FILE
    if class_names.exists():
        shutil.copyfile(class_names, target / CLASS_NAMES_FILE)


@dataclass(frozen=True)
class Summary:
    """Summary of a run."""

    prepared: list[Entry]  # including those of earlier runs
    skipped: int
    failed: dict[str, str]  # reason by name
    source_size: int  # size of the originals of the re-encoded videos in bytes
    seconds: float

    def table(self) -> str:
        """Return the summary as a table."""
        size = sum(entry.size for entry in self.prepared)
        damaged = sum(entry.damage is not None for entry in self.prepared)
        rows = [
            ("prepared", f"{len(self.prepared)} ({self.skipped} in earlier runs)"),
            ("damaged, readable part prepared", damaged),
            (f"failed, listed in {FAILED_FILE}", len(self.failed)),
            ("frames", sum(entry.frames for entry in self.prepared)),
            ("size before", f"{self.source_size / 1e6:.1f} MB"),
            ("size after", f"{size / 1e6:.1f} MB ({size / max(self.source_size, 1):.2f} x)"),
            ("time", f"{self.seconds:.0f} s"),
        ]
        return tabulate(rows, headers=("videos", ""), tablefmt="simple", disable_numparse=True)


def prepare_folder(
    source: Path,
    target: Path,
    settings: PrepareSettings,
    workers: int,
    index_files: Sequence[Path] = (),
    separator: str = " ",
    engine: str = LOCAL,
) -> Summary:
    """Re-encode all videos below `source` into `target`, skipping those that an earlier run finished.

    A video is skipped if it was re-encoded with these settings and neither the source nor its copy has changed since.
    Rewrites the index files for `target` and lists failures in failed.csv.

    Args:
        source: Folder of videos.
        target: Folder of the re-encoded videos, outside of `source`.
        settings: Settings of the encoder.
        workers: Number of worker processes.
        index_files: Kinetics index files whose paths are absolute or relative to `source`.
        separator: Separator of path and label in the index files.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder or an index file is unsuitable or the videos cannot be written.
        DataError: If no video can be read.
    """
    check_folders(source, target)
    indices = [read_index(file, separator, source, target) for file in index_files]
    jobs = find_jobs(source, target)
    manifest, digest = Manifest(target), settings.digest()
    entries = {job.name: entry for job in jobs if (entry := manifest.find(job, digest)) is not None}
    results = run_jobs(
        partial(_prepare_one, settings),
        jobs,
        target,
        workers,
        is_done=lambda job: job.name in entries,
        on_output=manifest.add,
        verb="prepared",
        engine=engine,
    )
    entries |= results.outputs
    failed = dict(results.failed)
    for index in indices:
        for name in write_index(index, separator, target, {entry.source: entry.target for entry in entries.values()}):
            failed.setdefault(name, f"listed in {index.file.name}, but not found in {source}")
    write_failures(target, failed)
    results.require_one(VIDEOS, target)
    size = sum(entry.source_size for entry in entries.values())
    return Summary(list(entries.values()), results.skipped, failed, size, results.seconds)


def _prepare_one(settings: PrepareSettings, job: Job) -> Entry:
    stat = job.source.stat()
    video = prepare_video(job.source, job.target, settings)
    stamp = (stat.st_size, stat.st_mtime_ns, settings.digest())
    return Entry(job.name, job.target_name, *stamp, video.frames, video.size, video.damage)
