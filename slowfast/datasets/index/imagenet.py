"""ImageNet index: folders train/ and val/ of one folder per class, or lists of paths and labels.

train_list.txt, val_list.txt     lines such as `train/n01440764/x.JPEG 0`
train/, val/                     n01440764/x.JPEG, ...; labels are the indices of the class folders in sorted order
test_list.txt, test/             optional test images; without them the validation images are tested
categories.txt                   optional: the class names, a `name<tab>label` or a name per line. If these are the
                                 names of the class folders, they define the labels, so that a subset can be tested
"""

from __future__ import annotations

import functools
from pathlib import Path

from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, skipped_note, unrecognized
from slowfast.datasets.index.common import SampleRoot, has_suffix, index_exists, inner_folders, walk_files
from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE, read_class_names, read_labelled_paths
from slowfast.datasets.index.labels import ONE_CLASS, LabelFormat
from slowfast.datasets.records import RecordTable, TableBuilder
from slowfast.errors import IndexFileError
from slowfast.utils.logging import get_logger
from slowfast.utils.remote.address import as_address, join_path
from slowfast.utils.text import plain

LISTS = "{}_list.txt"


def read_imagenet_index(
    data_dir: str | Path, split: str, prefix: str, separator: str, num_classes: int, labels: LabelFormat = ONE_CLASS
) -> RecordTable:
    """Return the images of a split from a list, or from class folders if there is no list.

    Args:
        data_dir: Path or address of the folder of the lists, or path of that of train and val.
        split: ``train``, ``val`` or ``test``.
        prefix: Folder that paths of a list are relative to (DATA.PATH_PREFIX), or a second folder to search for train
            and val; "" for `data_dir`.
        separator: Separator of path and label in a list.
        num_classes: Number of classes.

    Raises:
        IndexFileError: If there is neither, a line is broken, a class folder is empty or a label is out of range.
    """
    root = image_root(data_dir, prefix)
    for name in (split, "val") if split == "test" else (split,):
        file = join_path(data_dir, LISTS.format(name))
        if index_exists(file):
            if as_address(data_dir) and not prefix:
                raise IndexFileError(f"{plain(file)}: DATA.PATH_PREFIX is empty. Set it to the folder of the images")
            return read_labelled_paths(file, "", SampleRoot(prefix or str(data_dir)), separator, num_classes, labels)
        if _class_folders(root / name):
            return _read_folders(root, name, _folder_labels(data_dir, root, num_classes))
    raise IndexFileError(
        f"{plain(data_dir)} has neither {LISTS.format(split)} nor a folder {split} of class folders. Set "
        "DATA.PATH_TO_DATA_DIR to the folder of train and val"
    )


def read_image_class_names(data_dir: str | Path, prefix: str, num_classes: int) -> list[str] | None:
    """Return the names of the classes by label from categories.txt, or else the names of the class folders.

    Returns:
        The names; the label itself for a label without a folder. None if there is neither file nor folder.

    Raises:
        IndexFileError: If categories.txt is broken.
    """
    names = read_class_names(data_dir, num_classes)
    if names is not None or as_address(data_dir) or any(Path(data_dir).glob(LISTS.format("*"))):
        return names
    labels = _folder_labels(data_dir, image_root(data_dir, prefix), num_classes)
    by_label = {label: folder for folder, label in labels.items()}
    return [by_label.get(label, str(label)) for label in range(num_classes)]


def image_root(data_dir: str | Path, prefix: str) -> Path:
    """Return the folder that contains train/ and val/."""
    candidates = [Path(data_dir), Path(prefix)] if prefix else [Path(data_dir)]
    return next((root for root in candidates if _class_folders(root / "val")), candidates[0])


def _class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder; empty if it does not exist."""
    return inner_folders(folder) if folder.is_dir() else []


def _folder_labels(data_dir: str | Path, root: Path, num_classes: int) -> dict[str, int]:
    """Return the label of each class folder of train/ (or val/ if there is no train/); the same for all splits."""
    base = root / "train" if _class_folders(root / "train") else root / "val"
    folders = _class_folders(base)
    names = read_class_names(data_dir, num_classes) or []
    known = set(folders) & set(names)
    if known:
        unknown = sorted(set(folders) - known)
        if unknown:
            raise IndexFileError(
                f"{plain(base / unknown[0])}: {CLASS_NAMES_FILE} names other class folders but not this one"
            )
        return {name: label for label, name in enumerate(names)}
    if len(folders) > num_classes:
        raise IndexFileError(
            f"{plain(base)} has {len(folders)} class folders, but MODEL.NUM_CLASSES is {num_classes}. Set it to "
            f"{len(folders)}"
        )
    if len(folders) < num_classes:
        _warn_of_few(base, len(folders), num_classes)
    return {name: label for label, name in enumerate(folders)}


@functools.cache  # warn once for all splits
def _warn_of_few(base: Path, folders: int, num_classes: int) -> None:
    get_logger().warning(
        f"{plain(base)} has {folders} class folders for MODEL.NUM_CLASSES {num_classes}: their labels are 0 to "
        f"{folders - 1} in sorted order. If they are some of {num_classes} classes, list the names of all folders in "
        f"{CLASS_NAMES_FILE} in DATA.PATH_TO_DATA_DIR"
    )


def _read_folders(root: Path, split: str, labels: dict[str, int]) -> RecordTable:
    records = TableBuilder(root)
    skipped: list[str] = []
    for folder in _class_folders(root / split):
        if folder not in labels:
            raise IndexFileError(f"{plain(root / split / folder)}: no such class folder in {plain(root / 'train')}")
        files = walk_files(root / split / folder)
        names = [f"{split}/{folder}/{name}" for name in files if has_suffix(name, IMAGE_SUFFIXES)]
        skipped += [f"{folder}/{name}" for name in unrecognized(files, IMAGE_SUFFIXES)]
        records.extend(names, labels[folder])
        if not names:
            raise IndexFileError(
                f"{plain(root / split / folder)} contains no images (files ending in "
                f"{' '.join(sorted(IMAGE_SUFFIXES))}). Remove the folder or fill it"
            )
    note = skipped_note(root / split, skipped, IMAGE_SUFFIXES)
    if note is not None:
        get_logger().warning(note)
    return records.build()
