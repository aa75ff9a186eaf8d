"""The ImageNet index: folders train/ and val/ of one folder a class, or lists of paths and labels.

train_list.txt, val_list.txt     `train/n01440764/x.JPEG 0` a line
train/, val/                     n01440764/x.JPEG, ...; labels are the places of the class folders in sorted order
test_list.txt, test/             tested where they are there; else the validation images are
categories.txt                   optional: the class names, `name<tab>label` or a name a line. Where they are the names
                                 of the class folders they decide the labels, so that some of the classes can be tested
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from slowfast.datasets.decode.suffixes import IMAGE_SUFFIXES, skipped_note
from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE, read_class_names, read_labelled_paths
from slowfast.datasets.index.paths import MediaRoot
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError
from slowfast.runtime.logging import get_logger

LISTS = "{}_list.txt"


def read_imagenet_index(data_dir: Path, split: str, prefix: str, separator: str, num_classes: int) -> list[Record]:
    """The images of a split ("train", "val", "test") with their labels; a list is preferred to folders.

    Paths of a list lie under `prefix` (DATA.PATH_PREFIX), or under `data_dir` without one. The folders are looked for
    in `data_dir`, then in `prefix`. Raises IndexFileError when there is neither, for a broken line, a class folder
    without images, and a label outside [0, num_classes).
    """
    root = image_root(data_dir, prefix)
    for name in (split, "val") if split == "test" else (split,):
        file = Path(data_dir) / LISTS.format(name)
        if file.exists():
            return read_labelled_paths(file, "", MediaRoot(prefix or str(data_dir)), separator, num_classes)
        if _class_folders(root / name):
            return _read_folders(root, name, _folder_labels(data_dir, root, num_classes))
    raise IndexFileError(
        f"{data_dir} has neither {LISTS.format(split)} nor a folder {split} of class folders; set "
        "DATA.PATH_TO_DATA_DIR to the folder of train and val"
    )


def read_image_class_names(data_dir: Path, prefix: str, num_classes: int) -> list[str] | None:
    """Names of the classes by label: categories.txt, else the class folders' names; None with neither.

    A label without a folder is named by its number. Raises IndexFileError for a broken categories.txt.
    """
    names = read_class_names(data_dir, num_classes)
    if names is not None or any(Path(data_dir).glob(LISTS.format("*"))):
        return names
    labels = _folder_labels(data_dir, image_root(data_dir, prefix), num_classes)
    by_label = {label: folder for folder, label in labels.items()}
    return [by_label.get(label, str(label)) for label in range(num_classes)]


def image_root(data_dir: Path, prefix: str) -> Path:
    """The folder that holds train/ and val/."""
    candidates = [Path(data_dir), Path(prefix)] if prefix else [Path(data_dir)]
    return next((root for root in candidates if _class_folders(root / "val")), candidates[0])


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted; none where it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _folder_labels(data_dir: Path, root: Path, num_classes: int) -> dict[str, int]:
    """Label of each class folder, the same for all splits: those of train/ decide, or of val/ without it."""
    base = root / "train" if _class_folders(root / "train") else root / "val"
    folders = _class_folders(base)
    names = read_class_names(data_dir, num_classes) or []
    known = set(folders) & set(names)
    if known:
        unknown = sorted(set(folders) - known)
        if unknown:
            raise IndexFileError(f"{base / unknown[0]}: {CLASS_NAMES_FILE} names other class folders but not this one")
        return {name: label for label, name in enumerate(names)}
    if len(folders) > num_classes:
        raise IndexFileError(
            f"{base} has {len(folders)} class folders, MODEL.NUM_CLASSES is {num_classes}; set it to {len(folders)}"
        )
    if len(folders) < num_classes:
        _warn_of_few(base, len(folders), num_classes)
    return {name: label for label, name in enumerate(folders)}


@functools.cache  # once for all splits
def _warn_of_few(base: Path, folders: int, num_classes: int) -> None:
    get_logger().warning(
        f"{base} has {folders} class folders for MODEL.NUM_CLASSES {num_classes}: they are labelled 0 to "
        f"{folders - 1} in sorted order; if they are some of {num_classes} classes, list the folders' names of all in "
        f"{CLASS_NAMES_FILE} in DATA.PATH_TO_DATA_DIR"
    )


def _read_folders(root: Path, split: str, labels: dict[str, int]) -> list[Record]:
    records: list[Record] = []
    for folder in _class_folders(root / split):
        if folder not in labels:
            raise IndexFileError(f"{root / split / folder}: there is no such class folder in {root / 'train'}")
        names = [f"{split}/{folder}/{name}" for name in image_names(root / split / folder)]
        records += [Record(len(records) + at, root / name, name, labels[folder]) for at, name in enumerate(names)]
        if not names:
            raise IndexFileError(
                f"{root / split / folder} holds no images (files ending in {' '.join(sorted(IMAGE_SUFFIXES))}); "
                "remove the folder or fill it"
            )
    return records


def image_names(folder: Path) -> list[str]:
    """Return the images in a folder and the folders in it, sorted, as paths from there with forward slashes.

    Files that may be images of an unknown suffix are reported in a warning.
    """
    names: list[str] = []
    others: list[str] = []
    for inner, _, files in os.walk(folder):
        place = Path(inner).relative_to(folder).as_posix()
        start = "" if place == "." else f"{place}/"
        for file in files:
            if not file.startswith("."):
                is_image = os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES
                (names if is_image else others).append(start + file)
    note = skipped_note(folder, others, IMAGE_SUFFIXES) if others else None
    if note is not None:
        get_logger().warning(note)
    return sorted(names)
