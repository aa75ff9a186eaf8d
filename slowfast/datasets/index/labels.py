"""Formats of the labels in index files, by task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.common import parse_number
from slowfast.errors import ConfigError

LABEL_SEPARATOR = ","  # separator between the classes of one sample


@dataclass(frozen=True)
class LabelFormat:
    """Format of the label at the end of a line of an index file.

    Attributes:
        parse: Function of the label's text and the number of classes (None: not checked) that returns the label: a
            class index, a tuple of them, or a float. It raises ValueError with the problem.
        expected: Description for error messages; ``{last}`` is replaced by the largest class index.
        several: True if a label may contain commas.
    """

    parse: Callable[[str, int | None], Any]
    expected: str
    several: bool = False


def parse_class(text: str, num_classes: int | None) -> int:
    """Return the class index of a label. Raises ValueError with the problem."""
    return parse_number(text, "label", num_classes)


def parse_classes(text: str, num_classes: int | None) -> tuple[int, ...]:
    """Return the class indices of a label such as ``3,17``, ascending. Raises ValueError with the problem."""
    labels = [parse_number(part, "label", num_classes) for part in text.split(LABEL_SEPARATOR)]
    if len(set(labels)) < len(labels):
        raise ValueError("a label is given twice")
    return tuple(sorted(labels))


ONE_CLASS = LabelFormat(parse_class, "a label from 0 to {last}")
CLASSES = LabelFormat(parse_classes, "labels from 0 to {last} joined by commas, such as 3,17", several=True)

# MODEL.TASK -> format, added when a task is registered; other tasks have one class per sample.
LABEL_FORMATS = {"multi_label": CLASSES}


def label_format(cfg: ConfigNode) -> LabelFormat:
    """Return the format of the labels of MODEL.TASK.

    Raises:
        ConfigError: If DATA.PATH_LABEL_SEPARATOR contains the comma that also separates the labels of a sample.
    """
    found = LABEL_FORMATS.get(cfg.MODEL.TASK, ONE_CLASS)
    if found.several and LABEL_SEPARATOR in cfg.DATA.PATH_LABEL_SEPARATOR:
        raise ConfigError(
            f"DATA.PATH_LABEL_SEPARATOR {cfg.DATA.PATH_LABEL_SEPARATOR!r}: with MODEL.TASK {cfg.MODEL.TASK} a comma "
            "separates the labels of a sample. Use another separator between path and labels, such as a space"
        )
    return found


def format_label(label: Any) -> str:
    """Return the text of a label as used in index files and predictions.csv."""
    return LABEL_SEPARATOR.join(map(str, label)) if isinstance(label, tuple) else str(label)


def classes_of(label: Any) -> tuple[int, ...]:
    """Return the classes of a label: one or several, or none for a label that is not a class index."""
    if isinstance(label, tuple):
        return label
    return (label,) if isinstance(label, int) else ()
