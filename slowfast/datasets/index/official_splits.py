"""Official split files of UCF101 and HMDB51: three splits of training and test videos each.

UCF101    classInd.txt (`1 ApplyEyeMakeup`), trainlist01.txt (`ApplyEyeMakeup/v_..._c01.avi 1`), testlist01.txt
HMDB51    brush_hair_test_split1.txt, one per class and split (`April_..._0.avi 1`; 1 training, 2 test, 0 unused)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from slowfast.datasets.decode.reader import VIDEO_SUFFIXES
from slowfast.datasets.index.common import SampleRoot, check_samples_exist, list_folder, parse_number
from slowfast.datasets.index.lines import read_lines
from slowfast.datasets.records import RecordTable, TableBuilder
from slowfast.datasets.types import TRAIN
from slowfast.errors import IndexFileError
from slowfast.utils.remote.address import as_address, join_path
from slowfast.utils.text import plain, quoted

UCF101_CLASSES = "classInd.txt"
HMDB51_LIST = "{}_test_split{}.txt"
_HINT = "set DATA.PATH_TO_DATA_DIR to the folder of the official split files"
_COPY = ".mp4"  # suffix of the copies written by `slowfast prepare`


# ------------------------------------------------------------------ UCF101
def read_ucf101_classes(data_dir: str | Path, num_classes: int) -> list[str]:
    """Return the class names of classInd.txt by label; labels in the files start at 1.

    Raises:
        IndexFileError: If the file is missing or broken, or has another number of classes.
    """
    file = join_path(data_dir, UCF101_CLASSES)
    names: list[str] = []
    for number, line in read_lines(file, _HINT):
        first, _, name = line.partition(" ")
        if first != str(len(names) + 1) or not name.strip():
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}. Expected {len(names) + 1} and the name of the class"
            )
        names.append(name.strip())
    _check_classes(file, len(names), num_classes)
    return names


def read_ucf101_split(data_dir: str | Path, split: str, number: int, prefix: str, num_classes: int) -> RecordTable:
    """Return the videos of an official list of UCF101; validation videos are the test videos.

    Args:
        data_dir: Path or address of the folder of the lists.
        split: ``train``, ``val`` or ``test``.
        number: Number of the official split, 1 to 3.
        prefix: Folder of the class folders (DATA.PATH_PREFIX).
        num_classes: Number of classes.

    Raises:
        IndexFileError: If a list is missing or broken, or none of the videos exists.
    """
    labels = {name: label for label, name in enumerate(read_ucf101_classes(data_dir, num_classes))}
    file = join_path(data_dir, f"{'trainlist' if split == TRAIN else 'testlist'}{number:02d}.txt")
    found: list[tuple[str, int]] = []
    for line_number, line in read_lines(file, _HINT):
        try:
            found.append(_ucf101_video(line, labels))
        except ValueError as error:
            raise IndexFileError(
                f"{plain(file)} line {line_number}: {quoted(line)}: {error}. Expected CLASS/VIDEO.avi, in a training "
                "list followed by the number of the class"
            ) from None
    return _table(found, file, prefix)


def _ucf101_video(line: str, labels: dict[str, int]) -> tuple[str, int]:
    """Return name and label of a line. Raises ValueError if it is invalid."""
    name, _, text = line.partition(" ")
    class_name, found, _ = name.partition("/")
    if not found:
        raise ValueError("no class folder")
    if class_name not in labels:
        raise ValueError(f"the class {plain(class_name)} is not in {UCF101_CLASSES}")
    label = labels[class_name]
    if text.strip() and parse_number(text.strip(), "class") != label + 1:
        raise ValueError(f"class {text.strip()} is another one, {plain(class_name)} has number {label + 1}")
    return name, label


# ------------------------------------------------------------------ HMDB51
def read_hmdb51_classes(data_dir: str | Path, number: int, num_classes: int) -> list[str]:
    """Return the class names that the split files are named after, in alphabetical order.

    Raises:
        IndexFileError: If there are none, or another number of classes.
    """
    if address := as_address(data_dir):
        raise IndexFileError(f"{plain(address)}: a folder at an address cannot be listed. Download the split files")
    end = HMDB51_LIST.format("", number)
    folder = Path(data_dir)
    names = sorted(name.removesuffix(end) for name in list_folder(folder) if name.endswith(end) and name != end)
    if not names:
        raise IndexFileError(f"{plain(folder)} contains no {HMDB51_LIST.format('CLASS', number)}. S{_HINT[1:]}")
    _check_classes(folder, len(names), num_classes)
    return names


def read_hmdb51_split(data_dir: str | Path, split: str, number: int, prefix: str, num_classes: int) -> RecordTable:
    """Return the training or test videos of an official split of HMDB51; see `read_ucf101_split`."""
    wanted, found = ("1" if split == TRAIN else "2"), list[tuple[str, int]]()
    for label, class_name in enumerate(read_hmdb51_classes(data_dir, number, num_classes)):
        file = Path(data_dir) / HMDB51_LIST.format(class_name, number)
        found += [(f"{class_name}/{name}", label) for name, flag in _flagged(file) if flag == wanted]
    return _table(found, Path(data_dir), prefix)


def _flagged(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the file name and the flag of each line."""
    for number, line in read_lines(file, _HINT):
        name, _, flag = line.rpartition(" ")
        if flag not in ("0", "1", "2") or not name.strip():
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}. Expected VIDEO.avi and 1 (training), 2 (test) or 0 "
                "(neither)"
            )
        yield name.strip(), flag


# ------------------------------------------------------------------ both
def _check_classes(where: str | Path, count: int, num_classes: int) -> None:
    if count != num_classes:
        raise IndexFileError(f"{plain(where)} has {count} classes, but MODEL.NUM_CLASSES is {num_classes}")


def _table(found: Sequence[tuple[str, int]], file: str | Path, prefix: str) -> RecordTable:
    """Return the records of videos. Raises IndexFileError if there are none or none of them exists."""
    if not found:
        raise IndexFileError(f"{plain(file)} lists no videos of this split")
    root = SampleRoot(prefix)
    names = [name for name, _ in found]
    for name in names:
        try:
            root.locate(name)
        except ValueError as error:
            raise IndexFileError(f"{plain(file)}: {quoted(name)}: {error}") from None
    if not os.path.exists(root.locate(names[0])):
        copies = [_copy_of(name) for name in names]
        names = copies if os.path.exists(root.locate(copies[0])) else names
    table = TableBuilder(root.folder)
    table.extend(names, [label for _, label in found])
    records = table.build()
    check_samples_exist(records, file)
    return records


def _copy_of(name: str) -> str:
    """Return the name of the copy of a video written by `slowfast prepare`."""
    stem, suffix = os.path.splitext(name)
    return stem + _COPY if suffix.lower() in VIDEO_SUFFIXES else name
