"""Index files of the samples of a folder.

videos              train.csv, val.csv, test.csv (kinetics)
folders of frames   frames_train_split.txt, frames_validation_split.txt, frames_test_split.txt (sth)
images              train_list.txt, val_list.txt, test_list.txt (imagenet)
event recordings    the same (dvsfolder, dvsframes)
all of them         categories.txt, the class names
"""

from __future__ import annotations

import os
from collections.abc import Collection as Container
from collections.abc import Mapping, Sequence
from pathlib import Path

from slowfast.datasets.index.folder import FRAMES, VIDEOS, Collection, IndexedSample
from slowfast.datasets.index.imagenet import LISTS
from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE, format_line
from slowfast.datasets.index.something import SPLIT_NAMES
from slowfast.datasets.types import SPLITS
from slowfast.errors import UserError
from slowfast.utils.files import atomic_write_text
from slowfast.utils.paths import make_output_folder
from slowfast.utils.text import plain

FRAME_LISTS = "frames_{}_split.txt"


def index_names(kind: str) -> list[str]:
    """Return the file names of an index, by kind of samples."""
    return [*(_file_name(kind, part) for part in SPLITS), CLASS_NAMES_FILE]


def refuse_existing(out: Path, names: Container[str]) -> None:
    """Raise UserError if one of the files to write exists."""
    for name in names:
        if os.path.lexists(out / name):
            raise UserError(f"{plain(out / name)} already exists. Remove it or choose another --out")


def write_index(
    collection: Collection,
    parts: Mapping[str, Sequence[IndexedSample]],
    out: Path,
    separator: str,
    others: Mapping[str, str],
) -> list[Path]:
    """Write the index files and categories.txt; a split without samples has no file.

    Args:
        collection: The samples.
        parts: Samples of each split.
        out: Folder of the files.
        separator: Separator of path and label.
        others: Content of additional files, by name.

    Returns:
        The files that were written.

    Raises:
        UserError: If a file already exists or cannot be written.
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
    refuse_existing(out, texts)
    make_output_folder(out, "--out")
    for name, text in texts.items():
        atomic_write_text(out / name, text)
    return [out / name for name in texts]


def _file_name(kind: str, part: str) -> str:
    if kind == VIDEOS:
        return f"{part}.csv"
    return FRAME_LISTS.format(SPLIT_NAMES[part]) if kind == FRAMES else LISTS.format(part)
