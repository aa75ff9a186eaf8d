"""Index of event datasets, and the sensor size of recordings that do not state it.

A dataset is one folder of recordings, of any registered format, per class, or lists:

* With split folders ``train/``, ``test/`` and optionally ``val/`` (else ``test/`` validates) of class folders, as in
  DVS Gesture and DVS-Lip.
* With class folders only: the first 80 % of the files of each class, by name, are the training split, the rest the
  test split, as in ASL-DVS.
* With lists ``train_list.txt``, ``val_list.txt`` and ``test_list.txt`` of paths and labels, as `slowfast index` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import event_suffixes
from slowfast.datasets.dvs.formats.base import COMMON_SENSORS
from slowfast.datasets.dvs.formats.text import find_recordings
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.index.entries import SampleRoot, inner_folders, list_folder
from slowfast.datasets.index.labeled_paths import LISTS, read_class_names, read_labeled_paths
from slowfast.datasets.records import RecordTable, TableBuilder
from slowfast.errors import IndexFileError
from slowfast.utils.logging import get_logger

TRAIN_SHARE = 0.8
_SHOWN = 3  # maximum number of skipped files named in a warning
# Order of class folders that are numbers: 0, 1, 2, ..., 10, or as strings 0, 1, 10, 2, ...
NUMBER, NAME = CLASS_ORDERS = ("number", "name")
_RECORDINGS = 20  # maximum number of recordings to open
_EVENTS = 10_000  # events inspected per recording, evenly spaced
_INSIDE = 0.99  # minimum fraction of events inside the sensor; a few coordinates may be wrong


def read_event_index(data_dir: Path, split: str, num_classes: int, order: str = NUMBER) -> RecordTable:
    """List the recordings of a split, labeled by the position of their class folder.

    Class folders are ordered by categories.txt if it contains them all; else by number if all are numbers and `order`
    is ``number``; else by name.

    Args:
        data_dir: Folder of the dataset.
        split: ``train``, ``val`` or ``test``.
        num_classes: Number of classes.
        order: A name in CLASS_ORDERS.

    Raises:
        IndexFileError: If there are no recordings, a class folder is empty or missing in the training split, or there
            are more than `num_classes` classes.
    """
    root = Path(data_dir)
    labels = _labels(root, num_classes, order)
    if not (root / "train").is_dir():
        return _by_share(root, labels, training=split == "train")
    folder = next((name for name in _folders_of(split) if (root / name).is_dir()), None)
    if folder is None:
        raise IndexFileError(f"{root} contains train/ but no test/. Put the class folders of the test recordings there")
    unknown = [name for name in inner_folders(root / folder) if name not in labels]
    if unknown:
        raise IndexFileError(
            f"{root / folder / unknown[0]} has no counterpart in {root / 'train'}. Add it there or remove it"
        )
    files = {name: _recordings(root / folder / name) for name in inner_folders(root / folder)}
    return _records(root, [(f"{folder}/{name}/{file}", labels[name]) for name in files for file in files[name]])


def has_lists(data_dir: Path) -> bool:
    """Return whether a folder contains lists of recordings."""
    return (Path(data_dir) / LISTS.format("train")).is_file()


def read_event_lists(data_dir: Path, split: str, prefix: str, separator: str, num_classes: int) -> RecordTable:
    """Return the recordings of a list; if only one of validation and test has a list, it is used for both.

    Args:
        data_dir: Folder of the lists.
        split: ``train``, ``val`` or ``test``.
        prefix: Folder of the recordings (DATA.PATH_PREFIX); "" for that of the lists.
        separator: Separator of path and label.
        num_classes: Number of classes.

    Raises:
        IndexFileError: If there is no list, a line is broken, a label is out of range or a path leaves the folder.
    """
    lists = [data_dir / LISTS.format(name) for name in _folders_of(split)]
    file = next((file for file in lists if file.is_file()), lists[0])
    root = SampleRoot(prefix or str(data_dir))
    return read_labeled_paths(file, "Set DATA.PATH_TO_DATA_DIR to its folder", root, separator, num_classes)


def read_event_class_names(data_dir: Path, num_classes: int, order: str = NUMBER) -> list[str]:
    """Return the class names: those of the folders, or the label if there is no folder."""
    by_label = {label: name for name, label in _labels(Path(data_dir), num_classes, order).items()}
    return [by_label.get(label, str(label)) for label in range(num_classes)]


def _folders_of(split: str) -> tuple[str, ...]:
    """Return the folders that may contain a split, in order of preference."""
    return {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}[split]


def _labels(root: Path, num_classes: int, order: str) -> dict[str, int]:
    base = root / "train" if (root / "train").is_dir() else root
    if not base.is_dir():
        raise IndexFileError(f"{root} is not a folder. Set DATA.PATH_TO_DATA_DIR to the folder of the class folders")
    folders = inner_folders(base)
    if not folders:
        raise IndexFileError(f"{base} contains no class folders. Set DATA.PATH_TO_DATA_DIR to the folder that does")
    if len(folders) > num_classes:
        raise IndexFileError(
            f"{base} contains {len(folders)} class folders, but MODEL.NUM_CLASSES is {num_classes}. "
            f"Set it to {len(folders)}"
        )
    names = read_class_names(root, num_classes)
    if names is not None and set(folders) <= set(names):
        return {name: label for label, name in enumerate(names)}
    if order == NUMBER and all(name.isdecimal() for name in folders):
        folders.sort(key=int)
    return {name: label for label, name in enumerate(folders)}


def _recordings(folder: Path) -> list[str]:
    """Return the sorted names of the recordings in a class folder.

    Text files next to other recordings are assumed to be notes; they are skipped with a warning.
    """
    names, texts = find_recordings(name for name in list_folder(folder) if not name.startswith("."))
    if not names:
        raise IndexFileError(
            f"{folder} contains no recordings (files ending in {' '.join(sorted(event_suffixes()))}). Add some or "
            "remove the folder"
        )
    if texts:
        shown = ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")
        get_logger().warning(f"{folder}: skipped text files next to recordings of other formats: {shown}")
    return names


def _by_share(root: Path, labels: dict[str, int], training: bool) -> RecordTable:
    found: list[tuple[str, int]] = []
    for name in inner_folders(root):
        files = _recordings(root / name)
        first = int(len(files) * TRAIN_SHARE)
        found += [(f"{name}/{file}", labels[name]) for file in (files[:first] if training else files[first:])]
    return _records(root, found)


def _records(root: Path, found: Sequence[tuple[str, int]]) -> RecordTable:
    records = TableBuilder(root)
    records.extend([name for name, _ in found], [label for _, label in found])
    return records.build()


def guess_sensor(paths: Iterable[Path]) -> tuple[int, int] | None:
    """Return the smallest common sensor that contains the events of recordings.

    Args:
        paths: Recordings; the first readable ones are opened.

    Returns:
        Height and width in pixels; the extent of the events if no common sensor fits; None if no recording is
        readable.
    """
    sides: list[tuple[float, float]] = []  # height and width of each recording
    for path in paths:
        try:
            recording = Recording(path)
            chosen = np.unique(np.linspace(0, recording.n - 1, min(recording.n, _EVENTS)).astype(np.int64))
            events = recording.take(chosen)
            height, width = (float(np.quantile(events[axis], _INSIDE)) + 1 for axis in "yx")
            sides.append((height, width))
        except (DecodeError, OSError):
            continue
        if len(sides) == _RECORDINGS:
            break
    if not sides:
        return None
    rows, columns = (int(max(side)) for side in zip(*sides, strict=True))
    return next((sensor for sensor in COMMON_SENSORS if rows <= sensor[0] and columns <= sensor[1]), (rows, columns))
