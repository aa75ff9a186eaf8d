"""Building of a demo dataset: in parallel, completely or not at all, and only if it does not exist yet."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from demo_data.formats import FORMATS, Sample
from demo_data.settings import DemoSettings
from slowfast.errors import UserError
from slowfast.utils.cpu import usable_cores
from slowfast.utils.files import atomic_path, remove_leftovers
from slowfast.utils.text_files import from_json, to_json

MANIFEST = "demo_data.json"
MAKER = "slowfast make_demo_data"


@dataclass(frozen=True)
class BuildResult:
    """Result of `build`.

    Attributes:
        built: False if the dataset existed.
        samples: Number of samples.
        size: Size of all files in bytes.
        seconds: Duration.
    """

    built: bool
    samples: int
    size: int
    seconds: float


def build(out: Path, settings: DemoSettings, workers: int | None = None) -> BuildResult:
    """Build a demo dataset unless it exists.

    A dataset built before is replaced if its settings differ or files are missing or changed.

    Args:
        out: Output folder.
        settings: Settings of the dataset.
        workers: Number of worker processes; None for one per core.

    Raises:
        UserError: If the folder contains files that were not built by this function.
    """
    start = time.monotonic()
    if settings.format not in FORMATS:
        raise UserError(f"--format {settings.format}: unknown format. Choices: {', '.join(sorted(FORMATS))}")
    samples = len(FORMATS[settings.format].samples(settings))
    manifest = _read_manifest(out)
    missing = manifest is None or manifest.get("digest") != settings.digest() or not _is_complete(out, manifest)
    if missing:
        _refuse_other_files(out, manifest)
        remove_leftovers(out.parent, out.name)
        with atomic_path(out, replace_folder=True) as folder:
            folder.mkdir()
            _write_all(folder, settings, workers)
            _write_manifest(folder, settings)
        manifest = _read_manifest(out) or {}
    size = sum(manifest["files"].values()) if manifest else 0
    return BuildResult(missing, samples, size, time.monotonic() - start)


def _write_all(folder: Path, settings: DemoSettings, workers: int | None) -> None:
    samples = FORMATS[settings.format].samples(settings)
    write = partial(_write_sample, folder, settings)
    workers = min(workers or usable_cores(), len(samples))
    if workers == 1:
        for sample in tqdm(samples, desc="demo data", disable=None):
            write(sample)
    else:
        context = multiprocessing.get_context("spawn")  # forking a process with threads is not safe
        with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for _ in tqdm(pool.map(write, samples, chunksize=8), total=len(samples), desc="demo data", disable=None):
                pass  # the error of a failed sample is raised here
    FORMATS[settings.format].write_index(folder, settings)


def _write_sample(folder: Path, settings: DemoSettings, sample: Sample) -> None:
    FORMATS[settings.format].write_sample(folder, settings, sample)  # formats are not pickled


def _write_manifest(folder: Path, settings: DemoSettings) -> None:
    """Write the settings and the size of each file in bytes, by which `build` recognizes the dataset."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    manifest = {"made_by": MAKER, "digest": settings.digest(), "settings": asdict(settings), "files": files}
    (folder / MANIFEST).write_text(to_json(manifest, indent=1) + "\n")


def _read_manifest(out: Path) -> dict | None:
    """Read the manifest of a folder; None if there is none."""
    try:
        manifest = from_json((out / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(manifest, dict) and manifest.get("made_by") == MAKER and isinstance(manifest.get("files"), dict)
    return manifest if known else None


def _is_complete(out: Path, manifest: dict) -> bool:
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in _files(out)}
    return all(sizes.get(name) == size for name, size in manifest["files"].items())


def _refuse_other_files(out: Path, manifest: dict | None) -> None:
    """Raise UserError if replacing the folder would delete files that this tool did not write."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file, not a folder. Choose another one")
    ours = {MANIFEST, *manifest["files"]} if manifest else set()
    for path in _files(out):
        if path.relative_to(out).as_posix() not in ours:
            raise UserError(
                f"--out {out}: {path} was not written by this tool and would be deleted. Move it, or choose another"
            )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())
