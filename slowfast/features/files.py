"""Features as a file: .npz of plain arrays, or .parquet (an optional package)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.errors import UserError
from slowfast.features.extract import Features
from slowfast.runtime.text import escape
from slowfast.runtime.unfinished import written_whole
from slowfast.utils.output import check_output_file

NPZ, PARQUET = ".npz", ".parquet"


def check_target(path: Path) -> None:
    """Raise UserError, before anything is computed, where the features could not be written to that file."""
    check_output_file(path, "--out", (NPZ, PARQUET))
    if path.suffix == PARQUET:
        _pyarrow()


def write_features(features: Features, crops: int, path: Path) -> None:
    """Write one row a medium, or one a view with its temporal and spatial number; whole or not at all.

    `crops`: spatial views a temporal one. Arrays or columns: path (text), label (int64), feature (float32, D a row);
    and for rows of views view and crop (int64).
    """
    columns = columns_of(features, crops)
    write: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {NPZ: _write_npz, PARQUET: _write_parquet}
    with written_whole(path) as part:
        write[path.suffix](part, columns)


def columns_of(features: Features, crops: int) -> dict[str, np.ndarray]:
    """The table of `write_features`: name of a column -> its values, a row each."""
    rows = features.rows.numpy()
    repeats = rows.shape[1] if rows.ndim == 3 else 1
    columns = {
        "path": np.array([record.name for record in features.records]).repeat(repeats),
        "label": np.array([record.label for record in features.records], np.int64).repeat(repeats),
        "feature": rows.reshape(-1, rows.shape[-1]),
    }
    if rows.ndim == 3:
        view, crop = np.divmod(np.tile(np.arange(repeats), len(rows)), crops)
        columns |= {"view": view, "crop": crop}
    return columns


def _write_npz(path: Path, columns: dict[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = columns
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _write_parquet(path: Path, columns: dict[str, np.ndarray]) -> None:
    arrow, parquet = _pyarrow()
    width = columns["feature"].shape[1]
    columns = columns | {"path": np.array([_as_utf8(name) for name in columns["path"].tolist()])}
    table = {name: arrow.array(values) for name, values in columns.items() if name != "feature"}
    table["feature"] = arrow.FixedSizeListArray.from_arrays(arrow.array(columns["feature"].reshape(-1)), width)
    parquet.write_table(arrow.table(table), path)


def _as_utf8(name: str) -> str:
    """Escape bytes of a name that are not UTF-8: a table of text cannot hold them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return escape(name)
    return name


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f'{PARQUET} needs pyarrow, which cannot be imported ({error}): pip install "slowfast[parquet]", '
            f"or take {NPZ}"
        ) from error
