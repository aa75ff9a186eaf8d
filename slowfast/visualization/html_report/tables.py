"""Tables of the report: sortable columns and rows of plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slowfast.config.defaults import get_cfg
from slowfast.config.keys import KEYS
from slowfast.utils.text import redact
from slowfast.visualization.html_report.run_files import CONFIG, TEST_CONFIG, RunFiles

TEXT, NUMBER, PERCENT = "text", "number", "percent"
FAILED_FILES = ("failed.csv", "failed_train.csv")


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        title: Heading, with the unit.
        kind: TEXT, NUMBER, or PERCENT, which is drawn with a bar.
        digits: Decimal places of a number; None for as many as it has.
        code: Show text in a monospaced font.
    """

    title: str
    kind: str = TEXT
    digits: int | None = None
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Table with values by column; None is shown as a dash."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return it for the page."""
        return {"columns": [asdict(column) for column in self.columns], "rows": self.rows}


# Columns of per_class.json; a task may have others, which are shown with their own names.
_PER_CLASS = {
    "class": Column("class", NUMBER),
    "class_name": Column("name"),
    "videos": Column("videos", NUMBER),
    "correct": Column("correct", NUMBER),
    "accuracy": Column("accuracy (%)", PERCENT, 1),
    "confused_with_name": Column("most confused with"),
    "confused_videos": Column("as often (videos)", NUMBER),
    "positives": Column("positives (videos)", NUMBER),
    "ap": Column("average precision (%)", PERCENT, 1),
}
_HIDDEN = ("confused_with",)  # the name of that class is shown


def per_class_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the results of all classes in per_class.json; None without any."""
    rows = [row for row in rows if isinstance(row, Mapping)]
    if not rows:
        return None
    keys = [key for key in rows[0] if key not in _HIDDEN]
    columns = [_PER_CLASS.get(key) or _column(key, (row.get(key) for row in rows)) for key in keys]
    return Table(columns, [[row.get(key) for key in keys] for row in rows])


def _column(title: str, values: Iterable[Any]) -> Column:
    numbers = all(value is None or isinstance(value, (int, float)) for value in values)
    return Column(title, NUMBER if numbers else TEXT)


def failures_table(files: RunFiles) -> Table | None:
    """Return the samples that could not be read, or only in part; None if all were read."""
    rows = [
        (row.get("path", ""), "not read" if row.get("lost") == "yes" else "read in part", row.get("reason", ""), name)
        for name in FAILED_FILES
        for row in files.csv(name)
    ]
    columns = (Column("path", code=True), Column("result"), Column("reason"), Column("listed in", code=True))
    return Table(columns, rows) if rows else None


def config_table(files: RunFiles) -> Table | None:
    """Return the keys whose values are not the defaults; None without a config.

    A test or event-driven run in the folder of a training has a separate config: a column shows where it differs.
    """
    cfg, of_test = files.config(CONFIG), files.config(TEST_CONFIG)
    if cfg is None:
        return None
    defaults, values = (dict(one.keys_by_path()) for one in (get_cfg(), cfg))
    tested = values if of_test is None else dict(of_test.keys_by_path())
    rows = []
    for key, value in values.items():
        default, of_test_value = defaults.get(key), tested.get(key)
        if value == default and of_test_value == value:
            continue
        row = [key, _value(value), _value(default), KEYS[key].doc]
        if of_test is not None:
            row.insert(2, _value(of_test_value) if of_test_value != value else "")
        rows.append(row)
    titles = ["key", "value", *([f"in {TEST_CONFIG}"] if of_test is not None else []), "default", "meaning"]
    return Table([Column(title, code=title != "meaning") for title in titles], rows)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return redact(str(value)) if value != "" else '""'
