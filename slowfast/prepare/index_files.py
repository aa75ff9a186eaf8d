"""Index files of the source, rewritten for the prepared copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.index.kinetics import CLASS_NAMES_FILE, parse_line
from slowfast.datasets.index.text import read_lines
from slowfast.errors import IndexFileError, UserError
from slowfast.runtime.unfinished import write_whole


@dataclass(frozen=True)
class IndexLines:
    """A Kinetics index: the file, and for each line the video's name below the source folder and its label."""

    file: Path
    lines: list[tuple[str, int]]


def read_index(file: Path, separator: str, source: Path, target: Path) -> IndexLines:
    """Read an index whose paths are relative to `source` or absolute.

    Raises IndexFileError for a missing or broken file and for paths outside `source`, UserError when writing the new
    one would replace it.
    """
    if (target / file.name).resolve() == file.resolve():
        raise UserError(f"--index {file} is where the new index goes; give the source's index")
    lines = []
    for number, line in read_lines(file, "check --index"):
        try:
            name, label = parse_line(line, separator)
        except ValueError as error:
            raise IndexFileError(
                f"{file} line {number}: {line!r}: {error}; expected path{separator}label (--separator {separator!r})"
            ) from error
        inside = os.path.relpath(os.path.join(os.path.abspath(source), name), os.path.abspath(source))
        if inside.split(os.sep)[0] == os.pardir:
            raise IndexFileError(f"{file} line {number}: {line!r}: the path lies outside of {source}")
        lines.append((Path(inside).as_posix(), label))
    if not lines:
        raise IndexFileError(f"{file} is empty; expected lines of the form path{separator}label")
    return IndexLines(file, lines)


def write_index(index: IndexLines, separator: str, target: Path, prepared: Mapping[str, str]) -> list[str]:
    """Write the index of the prepared copies to `target`, and the class names beside it.

    `prepared`: name below the source folder -> name below `target`. Returns the names left out for want of a copy.
    """
    kept = [f"{prepared[name]}{separator}{label}\n" for name, label in index.lines if name in prepared]
    write_whole(target / index.file.name, "".join(kept))
    class_names = index.file.parent / CLASS_NAMES_FILE
    if class_names.exists():
        shutil.copyfile(class_names, target / CLASS_NAMES_FILE)
    return [name for name, _ in index.lines if name not in prepared]
