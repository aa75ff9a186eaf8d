"""Makes a folder of demo data: all of it or nothing, in parallel, and only when it is not there yet."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from demo_data import events, imagenet, kinetics, kinetics_colors, kinetics_shapes, something
from demo_data.settings import DemoSettings
from slowfast.errors import UserError
from slowfast.utils.files import remove_leftovers, written_whole
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.machine import usable_cores

MANIFEST = "demo_data.json"
MAKER = "slowfast make_demo_data"


@dataclass(frozen=True)
class DemoFormat:
    """How one layout is written; the functions are module-level, so that worker processes can be given them."""

    list_samples: Callable[[DemoSettings], list[tuple[str, int]]]  # -> (split, number) of each
    write_sample: Callable[[Path, DemoSettings, str, int], None]  # one sample under the folder
    write_index: Callable[[Path, DemoSettings], None]  # class names and lists
    usual: DemoSettings = DemoSettings()


# A new layout is a file beside kinetics.py and an entry here.
FORMATS: dict[str, DemoFormat] = {
    "kinetics": DemoFormat(kinetics.list_samples, kinetics.write_sample, kinetics.write_index),
    "kinetics_colours": DemoFormat(
        kinetics.list_samples,
        kinetics_colors.write_sample,
        kinetics_colors.write_index,
        DemoSettings(format="kinetics_colours", train=1600, test=240, size=64, frames=24),
    ),
    "kinetics_shapes": DemoFormat(
        kinetics.list_samples,
        kinetics_shapes.write_sample,
        kinetics_shapes.write_index,
        DemoSettings(format="kinetics_shapes", train=8, val=8, test=64, size=64),
    ),
    "something": DemoFormat(
        kinetics.list_samples,
        something.write_sample,
        something.write_index,
        DemoSettings(format="something", train=1600, test=160, size=64, frames=16),
    ),
    "events": DemoFormat(
        kinetics.list_samples,
        events.write_sample,
        events.write_index,
        DemoSettings(format="events", train=1280, test=160, size=48, frames=24),
    ),
    "imagenet": DemoFormat(
        kinetics.list_samples,
        imagenet.write_sample,
        imagenet.write_index,
        DemoSettings(format="imagenet", train=4000, val=400, test=400, size=64),
    ),
}


@dataclass(frozen=True)
class BuildResult:
    """What a call of `build` left behind."""

    made: bool  # False: the folder already held just this
    samples: int
    size: int  # bytes of all files
    seconds: float


def build(out: Path, settings: DemoSettings, workers: int | None = None) -> BuildResult:
    """Make sure that `out` holds the demo data of these settings; workers: processes (default: one a core).

    A folder that this function made is replaced when its settings differ or files are missing or changed. Any other
    folder that is not empty, and one that holds files of others, is left alone with a UserError.
    """
    started = time.monotonic()
    if settings.format not in FORMATS:
        raise UserError(f"--format {settings.format}: no such format; there are {', '.join(sorted(FORMATS))}")
    samples = len(FORMATS[settings.format].list_samples(settings))
    manifest = _read_manifest(out)
    made = manifest is None or manifest.get("digest") != settings.digest() or not _is_whole(out, manifest)
    if made:
        _refuse_files_of_others(out, manifest)
        remove_leftovers(out.parent, out.name)
        with written_whole(out, replace_folder=True) as folder:
            folder.mkdir()
            _write_all(folder, settings, workers)
            _write_manifest(folder, settings)
        manifest = _read_manifest(out) or {}
    size = sum(manifest["files"].values()) if manifest else 0
    return BuildResult(made, samples, size, time.monotonic() - started)


def _write_all(folder: Path, settings: DemoSettings, workers: int | None) -> None:
    layout = FORMATS[settings.format]
    todo = layout.list_samples(settings)
    splits, numbers = [split for split, _ in todo], [number for _, number in todo]
    write = partial(layout.write_sample, folder, settings)
    workers = min(workers or usable_cores(), len(todo))
    if workers == 1:
        for split, number in tqdm(todo, desc="demo data", disable=None):
            write(split, number)
    else:
        context = multiprocessing.get_context("spawn")  # forking with other threads about is not safe
        with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for _ in tqdm(
                pool.map(write, splits, numbers, chunksize=8), total=len(todo), desc="demo data", disable=None
            ):
                pass  # a failed sample raises here
    layout.write_index(folder, settings)


def _write_manifest(folder: Path, settings: DemoSettings) -> None:
    """Note the settings and every file's size (bytes), by which the folder is known again."""
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}
    manifest = {"made_by": MAKER, "digest": settings.digest(), "settings": asdict(settings), "files": files}
    (folder / MANIFEST).write_text(to_json(manifest, indent=1) + "\n")


def _read_manifest(out: Path) -> dict | None:
    """What this tool noted in the folder; None when there is no such note."""
    try:
        manifest = from_json((out / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(manifest, dict) and manifest.get("made_by") == MAKER and isinstance(manifest.get("files"), dict)
    return manifest if known else None


def _is_whole(out: Path, manifest: dict) -> bool:
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in _files(out)}
    return all(sizes.get(name) == size for name, size in manifest["files"].items())


def _refuse_files_of_others(out: Path, manifest: dict | None) -> None:
    """Raise UserError where replacing `out` would lose something that this tool did not write."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, not a folder; choose another --out")
    ours = {MANIFEST, *manifest["files"]} if manifest else set()
    for path in _files(out):
        if path.relative_to(out).as_posix() not in ours:
            raise UserError(f"{path} was not made by this tool and would be lost; move it or choose another --out")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())
