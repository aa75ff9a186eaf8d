"""Index files with a reproducible split for a folder of class folders of videos, folders of frames or images.

videos              train.csv, val.csv, test.csv (kinetics)
folders of frames   frames_train_split.txt, frames_validation_split.txt, frames_test_split.txt (sth)
images              train_list.txt, val_list.txt, test_list.txt (imagenet)
all of them         categories.txt, the class names
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode.image import FIRST_NUMBER
from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.index.common import inner_folders, walk_files
from slowfast.datasets.index.imagenet import LISTS
from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE, format_line
from slowfast.datasets.index.something import SPLIT_NAMES
from slowfast.datasets.types import SPLITS
from slowfast.errors import UserError
from slowfast.utils.files import atomic_write_text
from slowfast.utils.logging import get_logger
from slowfast.utils.paths import make_output_folder
from slowfast.utils.text import plain, quoted

FRAME_LISTS = "frames_{}_split.txt"
VIDEOS, FRAMES, IMAGES = KINDS = ("videos", "frames", "images")

_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)")


@dataclass(frozen=True)
class IndexedSample:
    """Video, folder of frames or image in a folder of class folders.

    Attributes:
        name: Path relative to the folder, with forward slashes.
        label: Class.
        frames: Number of frames of a folder of frames; otherwise 0.
    """

    name: str
    label: int
    frames: int = 0


@dataclass(frozen=True)
class Collection:
    """Contents of a folder of class folders.

    Attributes:
        kind: What it contains, one of KINDS.
        classes: Names of the classes by label.
        samples: The samples.
        template: Names of the frames, such as {:05d}.jpg; "" unless the samples are folders of frames.
    """

    kind: str
    classes: list[str]
    samples: list[IndexedSample]
    template: str = ""


def scan(folder: Path, kind: str = "") -> Collection:
    """List all samples of a folder of class folders; classes and samples are sorted by name.

    Args:
        folder: The folder.
        kind: One of KINDS; "" for what the folder contains.

    Raises:
        UserError: If the kind is ambiguous, a class has no samples or frames are not numbered from 1 without gaps.
    """
    if not folder.is_dir():
        raise UserError(f"{plain(folder)} is not a folder of class folders")
    classes = inner_folders(folder)
    if not classes:
        raise UserError(f"{plain(folder)} contains no class folders. Put the files of a class in a folder of its name")
    kind = kind or _guess_kind(folder, classes)
    _report_skipped(folder, classes, kind)
    samples: list[IndexedSample] = []
    templates: dict[str, str] = {}  # template of the frames -> first folder with it
    for label, name in enumerate(classes):
        found = _frame_folders(folder, name, templates) if kind == FRAMES else _files(folder, name, kind)
        if not found:
            raise UserError(f"{plain(folder / name)} contains no {kind}. Remove the folder or fill it")
        samples += [IndexedSample(path, label, frames) for path, frames in found]
    if len(templates) > 1:
        (one, first), (other, second) = list(templates.items())[:2]
        raise UserError(
            f"{plain(folder)}: frames are named in two ways: {plain(one)} in {plain(first)}, {plain(other)} in "
            f"{plain(second)}. Rename some of them"
        )
    return Collection(kind, classes, samples, next(iter(templates), ""))


def _guess_kind(folder: Path, classes: Sequence[str]) -> str:
    """Return the kind of the class folders: videos at any depth, else images beside or in folders."""
    if any(walk_files(folder / name, VIDEO_SUFFIXES) for name in classes):
        kinds = {VIDEOS} | ({IMAGES} if any(walk_files(folder / name, IMAGE_SUFFIXES) for name in classes) else set())
    else:
        names = [path for name in classes for path in walk_files(folder / name, IMAGE_SUFFIXES)]
        kinds = {FRAMES if "/" in path else IMAGES for path in names}
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "no videos and no images"
        raise UserError(f"{plain(folder)} contains {found}. Choose what to index with --kind {'|'.join(KINDS)}")
    return kinds.pop()


def _report_skipped(folder: Path, classes: Sequence[str], kind: str) -> None:
    """Warn of files in the class folders that may be samples with an unknown suffix."""
    files = (f"{name}/{file}" for name in classes for file in walk_files(folder / name))
    note = skipped_note(folder, files, VIDEO_SUFFIXES if kind == VIDEOS else IMAGE_SUFFIXES)
    if note is not None:
        get_logger().warning(note)


def _files(folder: Path, class_name: str, kind: str) -> list[tuple[str, int]]:
    suffixes = VIDEO_SUFFIXES if kind == VIDEOS else IMAGE_SUFFIXES
    return [(f"{class_name}/{name}", 0) for name in walk_files(folder / class_name, suffixes)]


def _frame_folders(folder: Path, class_name: str, templates: dict[str, str]) -> list[tuple[str, int]]:
    """Return the folders of frames of a class with their numbers of frames, and add their templates to `templates`."""
    found = []
    for name in inner_folders(folder / class_name):
        path = f"{class_name}/{name}"
        frames = [file for file in walk_files(folder / path, IMAGE_SUFFIXES) if "/" not in file]
        template = frame_template(frames, folder / path)
        templates.setdefault(template, path)
        found.append((path, len(frames)))
    return found


def frame_template(names: Sequence[str], folder: Path) -> str:
    """Return the template of frames, such as {:05d}.jpg; UserError unless they are numbered from 1 without gaps."""
    match = _NUMBERED.fullmatch(min(names)) if names else None
    if match is None:
        raise UserError(f"{plain(folder)} contains no numbered frames such as 00001.jpg")
    prefix, digits, suffix = match.groups()
    prefix = prefix.replace("{", "{{").replace("}", "}}")
    template = f"{prefix}{{:0{len(digits)}d}}{suffix}"
    if {template.format(FIRST_NUMBER + at) for at in range(len(names))} != set(names):
        raise UserError(
            f"{plain(folder)}: its {len(names)} frames, the first of which is {plain(min(names))}, are not numbered "
            f"from {FIRST_NUMBER} to {len(names)} without a gap. Rename them"
        )
    return template


# ------------------------------------------------------------------ the split
def default_shares(samples: Sequence[IndexedSample]) -> tuple[float, float]:
    """Return the shares of validation and test: 0.1 and 0.2, or 0 if the smallest class has too few samples."""
    smallest = min(Counter(sample.label for sample in samples).values())
    return (0.1 if smallest > 2 else 0.0), (0.2 if smallest > 1 else 0.0)


def split(samples: Sequence[IndexedSample], val: float, test: float, seed: int) -> dict[str, list[IndexedSample]]:
    """Split samples class by class; at least one of each class is for training.

    The split of a sample depends only on its name, the seed and the other names of its class.

    Args:
        samples: The samples.
        val: Share of the validation samples; 0 uses the training samples, for datasets too small to be split.
        test: Share of the test samples; 0 uses the training samples.
        seed: Seed of the split.

    Returns:
        The samples of each split.
    """
    shares = {"val": val, "test": test}
    chosen: dict[str, str] = {}
    by_class: dict[int, list[str]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample.name)
    for names in by_class.values():
        remaining = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        for part, share in shares.items():
            count = min(max(round(share * len(names)), 1 if share else 0), len(remaining) - 1)
            chosen |= dict.fromkeys(remaining[:count], part)
            del remaining[:count]
        chosen |= dict.fromkeys(remaining, "train")
    source = {"train": "train"} | {part: part if share else "train" for part, share in shares.items()}
    return {part: [sample for sample in samples if chosen[sample.name] == source[part]] for part in SPLITS}


# ------------------------------------------------------------------ the files
def check_names(collection: Collection) -> None:
    """Raise UserError for the first name that cannot be written to an index."""
    for name in [*collection.classes, *(sample.name for sample in collection.samples)]:
        if not _can_be_listed(name):
            raise UserError(
                f"{quoted(name)} cannot be listed in an index: names must be UTF-8 text without line breaks, and "
                "neither begin nor end with a space. Rename it"
            )


def _can_be_listed(name: str) -> bool:
    return name == name.strip() and len(name.splitlines()) == 1 and not any("\ud800" <= c <= "\udfff" for c in name)


def write_index(
    collection: Collection, parts: dict[str, list[IndexedSample]], out: Path, separator: str, others: dict[str, str]
) -> list[Path]:
    """Write the index files and categories.txt; a split without samples has no file.

    Args:
        collection: The samples.
        parts: Samples of each split.
        out: Folder of the files.
        separator: Separator of path and label.
        others: Texts of further files, by name.

    Returns:
        The files that were written.

    Raises:
        UserError: If a file exists already or cannot be written.
    """

    def line(sample: IndexedSample) -> str:
        if collection.kind == FRAMES:
            return f"{sample.name} {sample.frames} {sample.label}\n"
        return format_line(sample.name, separator, sample.label)

    texts = {
        _file_name(collection.kind, part): "".join(map(line, samples)) for part, samples in parts.items() if samples
    }
    texts[CLASS_NAMES_FILE] = "".join(f"{name}\t{label}\n" for label, name in enumerate(collection.classes))
    texts |= others
    for name in texts:
        if os.path.lexists(out / name):
            raise UserError(f"{plain(out / name)} already exists. Remove it or choose another --out")
    make_output_folder(out, "--out")
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    return [out / name for name in texts]


def _file_name(kind: str, part: str) -> str:
    names = {VIDEOS: f"{part}.csv", FRAMES: FRAME_LISTS.format(SPLIT_NAMES[part]), IMAGES: LISTS.format(part)}
    return names[kind]
