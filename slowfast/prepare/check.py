"""Check of the samples of a folder by opening and decoding each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError, open_video
from slowfast.datasets.decode.image import FIRST_NUMBER, FrameFolderReader, ImageReader
from slowfast.datasets.dvs.formats.base import MAX_EVENTS, MICROSECOND
from slowfast.datasets.dvs.recording import Recording, clean_events
from slowfast.datasets.index.folder import FRAMES, IMAGES, RECORDINGS, SAMPLES, VIDEOS, Collection
from slowfast.prepare.files import FileKind, Job
from slowfast.prepare.jobs import run_jobs
from slowfast.utils.files import make_output_folder
from slowfast.utils.paths import UnreadableTextError, read_text_bytes
from slowfast.utils.text_files import from_json, to_json, write_csv
from slowfast.utils.worker import still_working

UNREADABLE_FILE, DAMAGED_FILE = "unreadable.csv", "damaged.csv"  # files in the folder of the index
_LOG = ".checked.jsonl"  # record of readable samples, kept until the check is complete
_MAX_LOG_BYTES = 2**31
_FRAMES_PER_READ = 16
_MAX_SENSOR = (2**16, 2**16)  # side in pixels, because the sensor is unknown


@dataclass(frozen=True)
class _CheckJob(Job):
    """Sample to check; the source of a folder of frames is its first frame."""

    frames: int = 0


@dataclass(frozen=True)
class _Checked:
    """Readable sample: size (bytes) and modification time of its file or folder, and its damage."""

    name: str
    size: int
    changed: int
    damage: str | None


@dataclass(frozen=True)
class CheckResults:
    """Outcome of a check; keys are the names of the samples."""

    unreadable: dict[str, str]  # reason
    damaged: dict[str, str]  # what is missing, by name; the rest of the file is usable
    seconds: float


def check_samples(collection: Collection, folder: Path, out: Path, workers: int) -> CheckResults:
    """Open all samples in parallel and list those that cannot be read in unreadable.csv and damaged.csv.

    Of a video the first, middle and last frame are decoded, of a folder of frames all frames, images and event
    recordings completely. An interrupted check is resumed by the next one with the same `out`: samples that have been
    read and did not change are not read again.

    Args:
        collection: The samples.
        folder: Folder of the class folders.
        out: Folder of the index.
        workers: Number of worker processes.

    Raises:
        UserError: If `out` cannot be written.
    """
    make_output_folder(out, "--out")
    known = _read_log(out / _LOG)
    jobs = [_job(folder, out, sample.name, sample.frames, collection.template) for sample in collection.samples]
    work = partial(_check, collection.kind, collection.template)
    with (out / _LOG).open("a", encoding="utf-8") as log:

        def remember(checked: _Checked) -> None:
            known[checked.name] = checked
            log.write(to_json(asdict(checked)) + "\n")
            log.flush()

        results = run_jobs(
            work,
            jobs,
            out,
            workers,
            is_done=lambda job: _is_unchanged(folder / job.name, known.get(job.name)),
            on_output=remember,
            verb="checked",
            kind=FileKind(SAMPLES[collection.kind], frozenset()),
        )
    names = {sample.name for sample in collection.samples} - results.failed.keys()
    damaged = {name: damage for name in sorted(names) if (damage := known[name].damage)}
    for file, found in ((UNREADABLE_FILE, results.failed), (DAMAGED_FILE, damaged)):
        _write_list(out / file, found)
    return CheckResults(results.failed, damaged, results.seconds)


def finish_check(out: Path) -> None:
    """Delete the record used to resume an interrupted check."""
    (out / _LOG).unlink(missing_ok=True)


def _job(folder: Path, out: Path, name: str, frames: int, template: str) -> _CheckJob:
    source = folder / name / template.format(FIRST_NUMBER) if frames else folder / name
    return _CheckJob(source, out / name, name, name, frames)


def _write_list(file: Path, found: Mapping[str, str]) -> None:
    if found:
        write_csv(file, ("path", "reason"), sorted(found.items()))
    else:
        file.unlink(missing_ok=True)  # left by an earlier check


# ------------------------------------------------------------------ resuming
def _read_log(file: Path) -> dict[str, _Checked]:
    """Return the samples that an interrupted check has read, by name."""
    try:
        lines = read_text_bytes(file, _MAX_LOG_BYTES).decode().splitlines()
    except UnreadableTextError:
        return {}
    known = {}
    for line in lines:
        try:
            checked = _Checked(**from_json(line))
        except (ValueError, TypeError):  # incomplete last line of an interrupted check
            continue
        known[checked.name] = checked
    return known


def _is_unchanged(path: Path, checked: _Checked | None) -> bool:
    if checked is None:
        return False
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (checked.size, checked.changed)


# ------------------------------------------------------------------ in a worker process
def _check(kind: str, template: str, job: Job) -> _Checked:
    assert isinstance(job, _CheckJob)
    path = job.source.parent if job.frames else job.source
    status = path.stat()  # taken before reading, so that a file that changes meanwhile is read again
    checks: dict[str, Callable[[Path], str | None]] = {
        VIDEOS: _check_video,
        IMAGES: _check_image,
        RECORDINGS: _check_recording,
        FRAMES: partial(_check_frames, template, job.frames),
    }
    damage = checks[kind](path)
    return _Checked(job.name, status.st_size, status.st_mtime_ns, damage)


def _check_video(path: Path) -> str | None:
    with open_video(path) as video:
        last = video.num_frames - 1
        return video.read(sorted({0, last // 2, last})).missing


def _check_image(path: Path) -> str | None:
    ImageReader(path)
    return None


def _check_recording(path: Path) -> str | None:
    recording = Recording(path)
    # Longer recordings are never read at once, not even in training.
    rows: slice | np.ndarray = slice(None) if recording.n <= MAX_EVENTS else np.array([0, recording.n - 1])
    clean_events(recording.take(rows), _MAX_SENSOR, recording.time_unit(MICROSECOND))
    return "; ".join(recording.damage) or None


def _check_frames(template: str, count: int, folder: Path) -> str | None:
    damage, readable = "", False
    with FrameFolderReader(folder, template, count) as frames:
        for start in range(0, count, _FRAMES_PER_READ):
            still_working()
            # All frames must have the size of frame 0.
            chosen = sorted({0, *range(start, min(start + _FRAMES_PER_READ, count))})
            try:
                damage = damage or frames.read(chosen).missing or ""
                readable = True
            except DecodeError as error:
                damage = damage or str(error)
    if not readable:
        raise DecodeError(damage)
    return damage or None
