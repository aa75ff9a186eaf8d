"""Something-Something index, V1 and V2: lists of extracted frames, or the official lists.

Lists of frames (`somesomev1_rgb_train_split.txt`) have a line `folder frames label` per video. The official lists are
JSON (V2, videos) or csv (V1, folders of frames).
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simplejson import JSONDecodeError

from slowfast.datasets.decode.image import FIRST_NUMBER
from slowfast.datasets.index.entries import SampleRoot, check_samples_exist, index_exists, list_folder, parse_number
from slowfast.datasets.index.lines import parse_numbers, read_lines, scan_lines
from slowfast.datasets.index.parse import Columns, Entry, split_frame_lines
from slowfast.datasets.records import RecordTable, TableBuilder
from slowfast.errors import IndexFileError
from slowfast.utils.remote.address import join_path
from slowfast.utils.text import plain, quoted
from slowfast.utils.text_files import from_json, iter_json_list

# Values of {} in DATA.LABEL_PATH_TEMPLATE, by split.
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
LABELS = "labels"  # value of {} in DATA.LABEL_PATH_TEMPLATE for the table of labels
OBJECTS, TABLE = ".json", ".csv"  # suffixes of V2's and V1's official lists
VIDEO_SUFFIXES = (".webm", ".mp4")  # official videos, re-encoded ones
MAX_FRAMES = 10**9  # frames per video
_ENTRIES = 1 << 16  # entries of a JSON list held in memory at a time
FORM = "folder frames label"  # line of a list of frames
_CSV_FORM = "id;label text"
_HINT = "check DATA.PATH_TO_DATA_DIR and DATA.LABEL_PATH_TEMPLATE"


def read_something_index(
    data_dir: str | Path, template: str, split: str, prefix: str, num_classes: int, image_template: str = "{:05d}.jpg"
) -> RecordTable:
    """Return the videos of a split in the order of its list.

    The labels of the official test sets were never published; without a test list with labels the validation list is
    tested.

    Args:
        data_dir: Path or address of the folder of the lists.
        template: DATA.LABEL_PATH_TEMPLATE; .json or .csv for the official lists of V2's videos or V1's folders of
            frames.
        split: ``train``, ``val`` or ``test``.
        prefix: Folder of the samples (DATA.PATH_PREFIX).
        num_classes: Number of classes.
        image_template: DATA.IMAGE_TEMPLATE, by which the frames of V1's folders are counted.

    Raises:
        IndexFileError: If the list is missing, empty or broken, a label is out of range or a path leaves the prefix.
    """
    file = _list_file(data_dir, template, split)
    root = SampleRoot(prefix)
    if not is_official(template):
        records = _frame_folders(file, root, num_classes)
    elif template.endswith(TABLE):
        records = _official_frame_folders(file, read_labels(data_dir, template, num_classes), root, image_template)
    else:
        records = _videos(file, read_labels(data_dir, template, num_classes), root)
    check_samples_exist(records, file)
    return records


def _list_file(data_dir: str | Path, template: str, split: str) -> str | Path:
    """Return the path or address of the list of a split."""
    test_list = join_path(data_dir, template.format(SPLIT_NAMES["test"]))
    if split == "test" and (is_official(template) or not index_exists(test_list)):
        split = "val"
    return join_path(data_dir, template.format(SPLIT_NAMES[split]))


def is_official(template: str) -> bool:
    """Return whether DATA.LABEL_PATH_TEMPLATE names official lists."""
    return template.endswith((OBJECTS, TABLE))


def read_labels(data_dir: str | Path, template: str, num_classes: int) -> dict[str, int]:
    """Return the label of each template, such as "Holding something", from the official table.

    The V1 table has no labels: they are positions in sorted order, as in the published lists of frames.

    Raises:
        IndexFileError: If the table is missing or broken, or a label is out of range or listed twice.
    """
    file = join_path(data_dir, template.format(LABELS))
    table = _sorted_texts(file) if template.endswith(TABLE) else _read_json(file)
    if not isinstance(table, dict):
        raise IndexFileError(f'{plain(file)}: expected one object of the form {{"Holding something": "0", ...}}')
    labels: dict[str, int] = {}
    for text, label in table.items():
        try:
            labels[text] = parse_number(label if isinstance(label, str) else repr(label), "label", num_classes)
        except ValueError as error:
            limit = f"MODEL.NUM_CLASSES is {num_classes}"
            raise IndexFileError(f"{plain(file)}: {quoted(text)}: {error}: {limit}") from None
    doubled = [label for label, count in Counter(labels.values()).items() if count > 1]
    if doubled:
        raise IndexFileError(f"{plain(file)}: label {doubled[0]} belongs to more than one text")
    return labels


def official_class_names(data_dir: str | Path, template: str, num_classes: int) -> list[str] | None:
    """Return the class names by label from the official table, or None if there is no table.

    A label without a name is named by its number.
    """
    if not index_exists(join_path(data_dir, template.format(LABELS))):
        return None
    names = {label: text for text, label in read_labels(data_dir, template, num_classes).items()}
    return [names.get(label, str(label)) for label in range(num_classes)]


# ------------------------------------------------------------------ V2: JSON, videos
def _videos(file: str | Path, labels: dict[str, int], root: SampleRoot) -> RecordTable:
    found = _video_names(Path(root.folder))
    try:
        records = _listed_videos(file, iter_json_list(scan_lines(file, _HINT).whole()), labels, root, found)
    except (ValueError, RecursionError, IndexFileError):  # the message may refer to another part of the file
        entries = _read_json(file)
        if not isinstance(entries, list) or not entries:
            raise IndexFileError(
                f'{plain(file)}: expected a list of objects of the form {{"id": "1", "template": "..."}}'
            ) from None
        records = _listed_videos(file, entries, labels, root, found)
    return records


def _listed_videos(
    file: str | Path, entries: Iterable[Any], labels: dict[str, int], root: SampleRoot, found: dict[str, str]
) -> RecordTable:
    """Return the videos of the entries of an official list; `found` has their file names by id."""
    common = Counter(Path(name).suffix for name in found.values()).most_common(1)
    suffix = common[0][0] if common else VIDEO_SUFFIXES[0]
    records = TableBuilder(root.folder)
    numbered = enumerate(entries, start=1)
    while some := list(itertools.islice(numbered, _ENTRIES)):
        names: list[str] = []
        numbers: list[int] = []
        for number, entry in some:
            try:
                stem, label = _parse_entry(entry, labels)
                names.append(found.get(stem, stem + suffix))
                root.locate(names[-1])
                numbers.append(label)
            except ValueError as error:
                raise IndexFileError(f"{plain(file)} entry {number}: {error}") from None
        records.extend(names, numbers)
    return records.build()


def _video_names(folder: Path) -> dict[str, str]:
    """Return the videos of a folder by name without suffix; listing it once is faster than one check per video."""
    names = [name for name in list_folder(folder) if name.lower().endswith(VIDEO_SUFFIXES)]
    return {Path(name).stem: name for name in names}


def _parse_entry(entry: Any, labels: dict[str, int]) -> tuple[str, int]:
    """Return id and label of an entry of an official list. Raises ValueError if it is invalid."""
    if not isinstance(entry, dict) or "id" not in entry or "template" not in entry:
        raise ValueError(f'{quoted(entry)[:120]}: expected an object with "id" and "template"')
    text = str(entry["template"]).replace("[", "").replace("]", "")  # "Holding [something]" -> "Holding something"
    if text not in labels:
        raise ValueError(f"template {quoted(entry['template'])} is not in the table of labels")
    name = str(entry["id"])
    if not name or "\0" in name:
        raise ValueError(f"id {quoted(name)} is not a file name")
    return name, labels[text]


def _read_json(file: str | Path) -> Any:
    text = "\n".join(line for _, line in read_lines(file, _HINT))
    try:
        return from_json(text)
    except JSONDecodeError as error:
        near = text[error.pos : error.pos + 20]
        raise IndexFileError(f"{plain(file)}: not valid JSON: {error.msg} near {quoted(near)}") from None
    except RecursionError:
        raise IndexFileError(f"{plain(file)}: not valid JSON: nested too deeply") from None
    except ValueError:  # an integer of more digits than Python converts
        raise IndexFileError(f"{plain(file)}: not valid JSON: a number is too long") from None


# ------------------------------------------------------------------ V1: csv, folders of frames
def _sorted_texts(file: str | Path) -> dict[str, int]:
    """Return the labels of V1's table, one text per line. Raises IndexFileError for duplicates."""
    texts = [text for _, text in read_lines(file, _HINT)]
    doubled = [text for text, count in Counter(texts).items() if count > 1]
    if doubled or not texts:
        raise IndexFileError(
            f"{plain(file)}: {f'{quoted(doubled[0])} is listed twice' if doubled else 'no class names'}"
        )
    return {text: label for label, text in enumerate(sorted(texts))}


def _official_frame_folders(
    file: str | Path, labels: dict[str, int], root: SampleRoot, image_template: str
) -> RecordTable:
    lines = read_lines(file, _HINT)
    if not lines:
        raise IndexFileError(f"{plain(file)} is empty. Expected lines of the form {_CSV_FORM}")
    records = TableBuilder(root.folder)
    for number, line in lines:
        name, found, text = line.partition(";")
        try:
            if not found or not name:
                raise ValueError("no number or no text")
            if text not in labels:
                raise ValueError(f"{quoted(text)} is not in the table of labels")
            records.extend([name], labels[text], [count_frames(root.locate(name), image_template)])
        except ValueError as error:
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}: {error}. Expected {_CSV_FORM}"
            ) from None
    return records.build()


def count_frames(folder: Path, image_template: str) -> int:
    """Count the images numbered from 1 without gaps in a folder; 1 if there are none, so that reading fails."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        return 1
    frames = 0
    while image_template.format(FIRST_NUMBER + frames) in names:
        frames += 1
    return max(frames, 1)


# ------------------------------------------------------------------ lists of frames
def _frame_folders(file: str | Path, root: SampleRoot, num_classes: int) -> RecordTable:
    lines = scan_lines(file, _HINT)
    if not len(lines):
        raise IndexFileError(f"{plain(file)} is empty. Expected lines of the form {FORM}")

    def parse(line: str, number: int) -> Entry:
        try:
            name, frames, label = parse_frames_line(line, num_classes)
            root.locate(name)
        except ValueError as error:
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}: {error}. Expected {FORM} with at least 1 frame "
                f"and a label from 0 to {num_classes - 1} (MODEL.NUM_CLASSES {num_classes})"
            ) from None
        return Entry(name, label, frames)

    columns = Columns(lines)
    for block in lines.blocks():
        names, counts, texts, valid = split_frame_lines(block)
        frames, counted = parse_numbers(block.codes, *counts)
        labels, parsed = parse_numbers(block.codes, *texts)
        valid &= counted & (frames > 0) & parsed & (labels < num_classes)
        valid &= root.surely_holds(block.codes, *names)
        columns.add(block, names, labels, valid, parse, frames)
    return columns.table(root.folder)


def parse_frames_line(line: str, num_classes: int) -> tuple[str, int, int]:
    """Return folder, number of frames and label of a line. Raises ValueError if it is invalid."""
    parts = line.rsplit(maxsplit=2)
    if len(parts) < 3:
        raise ValueError(f"{len(parts)} fields")
    name, frames, label = parts
    count = parse_number(frames, "number of frames", MAX_FRAMES)
    if not count:
        raise ValueError("number of frames 0 is out of range")
    return name, count, parse_number(label, "label", num_classes)
