"""Features as a file: .npz of plain arrays, or .parquet (an optional package)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import find_dataset, views_loader, views_of_records
from slowfast.datasets.index.labels import format_label
from slowfast.datasets.types import Failure, FailureLedger, Record
from slowfast.engine.evaluate import evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.test import network_to_test
from slowfast.errors import DataError, UserError
from slowfast.models.protocol import named_network
from slowfast.models.weights import head_names
from slowfast.utils.distributed import join
from slowfast.utils.files import written_whole
from slowfast.utils.output_folders import check_output_file
from slowfast.utils.progress import Progress
from slowfast.utils.screen import show, show_table
from slowfast.utils.text import escape
from slowfast.visualization.results import write_failed
from slowfast.visualization.tables import files_table

MEAN, ALL = "mean", "all"
VIEWS = (MEAN, ALL)


class HeadInput(nn.Module):
    """A network that gives what its head sees instead of logits: input -> (B, D).

    Of several heads one after another; of a network that goes over clips frame by frame the mean over a clip's frames.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        layers = dict(named_network(model).named_modules())
        self._heads = [layers[name] for name in head_names(model) if name in layers]

    def forward(self, x: Any) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        hooks = [head.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for head in self._heads]
        try:
            batch = len(self.model(x))
        finally:
            for hook in hooks:
                hook.remove()
        features = torch.cat(seen, 1)
        return features if len(features) == batch else features.unflatten(0, (batch, -1)).mean(1)


@dataclass(frozen=True)
class Features:
    """Rows of features, and what could not be read."""

    records: list[Record]  # of the media that were read, in the order of the index
    rows: torch.Tensor  # float32 (media, D), or (media, V, D)
    failures: list[Failure]


def extract_to_file(cfg: ConfigNode, split: str, views: str, out: Path) -> None:
    """Extract the features of a split and write them, with a list of failures beside them.

    Args:
        cfg: Config for evaluating the model.
        split: Split of the dataset.
        views: One of `VIEWS`.
        out: .npz or .parquet file.

    Raises:
        UserError: If the file cannot be written, or for whatever `extract_features` raises.
    """
    check_target(out)
    features = extract_features(cfg, split, views)
    write_features(features, cfg.TEST.NUM_SPATIAL_CROPS, out)
    failures_file, lost = out.with_name(f"{out.stem}_failed.csv"), sum(failure.lost for failure in features.failures)
    write_failed(features.failures, failures_file)
    shape = " x ".join(map(str, features.rows.shape))
    show(f"features {shape} of {len(features.records)} files, {lost} could not be read")
    show_table(files_table({"features": out} | ({"failures": failures_file} if features.failures else {})))


def extract_features(cfg: ConfigNode, split: str, views: str = MEAN) -> Features:
    """Features of every medium of a split's index, over the views of a test: their mean, or one row a view.

    Raises IndexFileError for a broken index, CheckpointError, and DataError where nothing can be read.
    """
    records = find_dataset(cfg, split).read_index(split)
    dataset = views_of_records(cfg, split, records, all_views=True)
    world = join(cfg.NUM_GPUS)
    model = HeadInput(network_to_test(cfg, world.device))
    forward = ClipForward.from_config(cfg, world.device, split)
    ledger = FailureLedger(len(dataset))
    progress = Progress("features", len(dataset), "files", shown=True, every=cfg.LOG_PERIOD)
    loader = views_loader(cfg, world, dataset)
    records, rows = [], []

    def process(record: Record, outputs: torch.Tensor | None) -> None:
        if outputs is not None:
            records.append(record)
            rows.append(outputs.double().mean(0).float() if views == MEAN else outputs)

    try:
        with loader:
            evaluate(model, loader, forward, process, cfg.TEST.BATCH_SIZE, ledger, progress)
    finally:
        progress.close()
    if not records:
        first = ledger.all[0]
        raise DataError(f"none of {len(dataset)} files can be read; the first: {first.name}: {first.reason}")
    return Features(records, torch.stack(rows).float(), ledger.all)


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
        "label": _labels(features.records).repeat(repeats),
        "feature": rows.reshape(-1, rows.shape[-1]),
    }
    if rows.ndim == 3:
        view, crop = np.divmod(np.tile(np.arange(repeats), len(rows)), crops)
        columns |= {"view": view, "crop": crop}
    return columns


def _labels(records: list[Record]) -> np.ndarray:
    """Return class indices int64 (N,), or floats; several classes of a sample are text, such as ``3,17``."""
    labels = [record.label for record in records]
    if any(isinstance(label, tuple) for label in labels):
        return np.array([format_label(label) for label in labels])
    return np.array(labels)


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
