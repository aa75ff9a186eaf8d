"""A folder of class folders of one's own, of videos, folders of frames, or images, to index files with a fixed split.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode.frames import FIRST
from slowfast.datasets.decode.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.index.imagenet import LISTS
from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE
from slowfast.datasets.index.something import SPLIT_NAMES
from slowfast.errors import UserError
from slowfast.runtime.logging import get_logger

FRAME_LISTS = "frames_{}_split.txt"
SPLITS = ("train", "val", "test")
VIDEOS, FRAMES, IMAGES = KINDS = ("videos", "frames", "images")

_NUMBERED = re.compile(r"(.*?)(\d+)(\.\w+)")


@dataclass(frozen=True)
class Medium:
    """A video, folder of frames or image: its path from the folder with forward slashes, its class, its frames."""

    name: str
    label: int
    frames: int = 0


@dataclass(frozen=True)
class Collection:
    """What a folder of class folders holds. `template` names the frames of all videos, for frames only."""

    kind: str
    classes: list[str]
    media: list[Medium]
    template: str = ""


def scan(folder: Path, kind: str = "") -> Collection:
    """All media of a folder of class folders; classes and media are sorted by name.

    kind: videos, frames or images; empty: what the folder holds. Raises UserError where that is not clear, where a
    class has no media, and for folders of frames that are not numbered from 1 without a gap.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of class folders")
    classes = _inner_folders(folder)
    if not classes:
        raise UserError(f"{folder} holds no class folders; a class's media go in a folder with its name")
    kind = kind or _guess_kind(folder, classes)
    _report_skipped(folder, classes, kind)
    media: list[Medium] = []
    templates: dict[str, str] = {}  # how frames are named -> the first folder where they are
    for label, name in enumerate(classes):
        found = _frame_folders(folder, name, templates) if kind == FRAMES else _files(folder, name, kind)
        if not found:
            raise UserError(f"{folder / name} holds no {kind}; remove the folder or fill it")
        media += [Medium(path, label, frames) for path, frames in found]
    if len(templates) > 1:
        (one, first), (other, second) = list(templates.items())[:2]
        raise UserError(f"frames are named in two ways: {one} in {first}, {other} in {second}; rename some of them")
    return Collection(kind, classes, media, next(iter(templates), ""))


def _inner_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _guess_kind(folder: Path, classes: Sequence[str]) -> str:
    """What the class folders hold: videos at any depth, else images beside or in folders."""
    if any(_names_with(folder / name, VIDEO_SUFFIXES) for name in classes):
        kinds = {VIDEOS} | ({IMAGES} if any(_names_with(folder / name, IMAGE_SUFFIXES) for name in classes) else set())
    else:
        names = [path for name in classes for path in _names_with(folder / name, IMAGE_SUFFIXES)]
        kinds = {FRAMES if "/" in path else IMAGES for path in names}
    if len(kinds) != 1:
        found = " and ".join(sorted(kinds)) or "no media"
        raise UserError(f"{folder} holds {found}; say which to index with --kind {'|'.join(KINDS)}")
    return kinds.pop()


def _names_with(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Files with one of the suffixes in a folder and the folders in it, sorted; paths from there, forward slashes."""
    names = []
    for inner, _, files in os.walk(folder):
        place = Path(inner).relative_to(folder)
        chosen = (file for file in files if Path(file).suffix.lower() in suffixes and not file.startswith("."))
        names += [(place / file).as_posix() for file in chosen]
    return sorted(names)


def _report_skipped(folder: Path, classes: Sequence[str], kind: str) -> None:
    """Warn of files in the class folders that may be media of an unknown suffix."""
    every = [
        (Path(inner) / file).relative_to(folder).as_posix()
        for name in classes
        for inner, _, files in os.walk(folder / name)
        for file in files
    ]
    note = skipped_note(folder, every, VIDEO_SUFFIXES if kind == VIDEOS else IMAGE_SUFFIXES)
    if note is not None:
        get_logger().warning(note)


def _files(folder: Path, class_name: str, kind: str) -> list[tuple[str, int]]:
    suffixes = VIDEO_SUFFIXES if kind == VIDEOS else IMAGE_SUFFIXES
    return [(f"{class_name}/{name}", 0) for name in _names_with(folder / class_name, suffixes)]


def _frame_folders(folder: Path, class_name: str, templates: dict[str, str]) -> list[tuple[str, int]]:
    """The folders of frames of a class and how many frames each has; what names them is noted with its first place."""
    found = []
    for name in _inner_folders(folder / class_name):
        path = f"{class_name}/{name}"
        frames = [file for file in _names_with(folder / path, IMAGE_SUFFIXES) if "/" not in file]
        template = frame_template(frames, folder / path)
        templates.setdefault(template, path)
        found.append((path, len(frames)))
    return found


def frame_template(names: Sequence[str], folder: Path) -> str:
    """How the frames of a folder are named, such as {:05d}.jpg; UserError unless they count from 1 without a gap."""
    match = _NUMBERED.fullmatch(min(names)) if names else None
    if match is None:
        raise UserError(f"{folder} holds no numbered frames such as 00001.jpg")
    prefix, digits, suffix = match.groups()
    prefix = prefix.replace("{", "{{").replace("}", "}}")
    template = f"{prefix}{{:0{len(digits)}d}}{suffix}"
    if {template.format(FIRST + at) for at in range(len(names))} != set(names):
        raise UserError(
            f"{folder}: its {len(names)} frames are not numbered from {FIRST} to {len(names)} without a gap; the first "
            f"is {min(names)}"
        )
    return template


# ------------------------------------------------------------------ the split
def usual_shares(media: Sequence[Medium]) -> tuple[float, float]:
    """Shares for validation and test: 0.1 and 0.2; 0 for what the smallest class is too small to give a medium to."""
    smallest = min(Counter(medium.label for medium in media).values())
    return (0.1 if smallest > 2 else 0.0), (0.2 if smallest > 1 else 0.0)


def split(media: Sequence[Medium], val: float, test: float, seed: int) -> dict[str, list[Medium]]:
    """The media of each split, in their order; each class gives its share of them, and one at least to training.

    A share of 0 means the training media again, for collections too small to be split. A medium's split depends on its
    name, the seed and the class's other names alone, not on the machine or the order.
    """
    shares = {"val": val, "test": test}
    chosen: dict[str, str] = {}
    by_class: dict[int, list[str]] = {}
    for medium in media:
        by_class.setdefault(medium.label, []).append(medium.name)
    for names in by_class.values():
        waiting = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
        for part, share in shares.items():
            count = min(max(round(share * len(names)), 1 if share else 0), len(waiting) - 1)
            chosen |= dict.fromkeys(waiting[:count], part)
            del waiting[:count]
        chosen |= dict.fromkeys(waiting, "train")
    source = {"train": "train"} | {part: part if share else "train" for part, share in shares.items()}
    return {part: [medium for medium in media if chosen[medium.name] == source[part]] for part in SPLITS}


# ------------------------------------------------------------------ the files
def check_names(collection: Collection) -> None:
    """Raise UserError for the first name that an index cannot hold."""
    for name in [*collection.classes, *(medium.name for medium in collection.media)]:
        if not _can_be_listed(name):
            raise UserError(
                f"{name!r} cannot stand in an index: names must be UTF-8 text without line breaks, and neither begin "
                "nor end with a space; rename it"
            )


def _can_be_listed(name: str) -> bool:
    return name == name.strip() and len(name.splitlines()) == 1 and not any("\ud800" <= c <= "\udfff" for c in name)


def write_index(
    collection: Collection, parts: dict[str, list[Medium]], out: Path, separator: str, others: dict[str, str]
) -> list[Path]:
    """Write the index files, categories.txt and the texts of others to `out`; a split without media gets no file.

    Gives what was written. Raises UserError, before anything is written, where a file is there already.
    """
    lines: dict[str, Callable[[Medium], str]] = {
        VIDEOS: lambda medium: f"{medium.name}{separator}{medium.label}\n",
        FRAMES: lambda medium: f"{medium.name} {medium.frames} {medium.label}\n",
        IMAGES: lambda medium: f"{medium.name}{separator}{medium.label}\n",
    }
    line = lines[collection.kind]
    texts = {_file_name(collection.kind, part): "".join(map(line, media)) for part, media in parts.items() if media}
    texts[CLASS_NAMES_FILE] = "".join(f"{name}\t{label}\n" for label, name in enumerate(collection.classes))
    texts |= others
    for name in texts:
        if (out / name).exists():
            raise UserError(f"{out / name} is there already; remove it or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def _file_name(kind: str, part: str) -> str:
    names = {VIDEOS: f"{part}.csv", FRAMES: FRAME_LISTS.format(SPLIT_NAMES[part]), IMAGES: LISTS.format(part)}
    return names[kind]
