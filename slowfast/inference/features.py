"""Features of a trained model: the inputs of its head for all samples of a split, as .npz or .parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import eval_loader, find_dataset, views_of_records
from slowfast.datasets.index.entries import format_label
from slowfast.datasets.types import Failure, FailureLedger, Record
from slowfast.engine.cluster_evaluation import evaluate_on_cluster, on_cluster
from slowfast.engine.evaluate import evaluate
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import network_to_test
from slowfast.errors import DataError
from slowfast.models.protocol import Network, named_network
from slowfast.models.weights import head_names
from slowfast.utils.distributed import init_distributed
from slowfast.utils.files import atomic_path, check_output_file
from slowfast.utils.imports import import_extra
from slowfast.utils.screen import Progress, show, show_table
from slowfast.utils.text import escape
from slowfast.visualization.results import files_table, write_failed

MEAN, ALL = "mean", "all"
VIEWS = (MEAN, ALL)


class FeatureExtractor(nn.Module):
    """Wrapper of a model that returns the input of its head, (B, D), instead of logits.

    Inputs of several heads are concatenated. A model applied frame by frame returns the mean over the frames of a clip.

    Args:
        model: Model whose head's inputs to return.
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
    """Features of a split.

    Attributes:
        records: Samples that were read, in the order of the index.
        rows: Features, float32 of shape (samples, D), or (samples, V, D) for V views.
        failures: Samples that could not be read.
    """

    records: list[Record]
    rows: torch.Tensor
    failures: list[Failure]


def extract_to_file(cfg: ConfigNode, split: str, views: str, out: Path) -> None:
    """Extract the features of a split and write them, together with a list of failures.

    Args:
        cfg: Config for evaluating the model.
        split: Split of the dataset.
        views: One of `VIEWS`.
        out: .npz or .parquet file.

    Raises:
        UserError: If the file cannot be written, and as :func:`extract_features`.
    """
    check_features_file(out)
    features = extract_features(cfg, split, views)
    write_features(features, cfg.TEST.NUM_SPATIAL_CROPS, out)
    failures_file, lost = out.with_name(f"{out.stem}_failed.csv"), sum(failure.lost for failure in features.failures)
    write_failed(features.failures, failures_file)
    shape = " x ".join(map(str, features.rows.shape))
    show(f"features {shape} of {len(features.records)} files, {lost} could not be read")
    show_table(files_table({"features": out} | ({"failures": failures_file} if features.failures else {})))


def extract_features(cfg: ConfigNode, split: str, views: str = MEAN) -> Features:
    """Extract the features of all samples of a split over the views of testing.

    Args:
        cfg: Config for evaluating the model.
        split: Split of the dataset.
        views: "mean" for the mean over views, "all" for one row per view.

    Raises:
        IndexFileError: For a missing or broken index file.
        CheckpointError: If the weights cannot be loaded.
        DataError: If no sample can be read.
    """
    records = find_dataset(cfg, split).read_index(split)
    dataset = views_of_records(cfg, split, records, all_views=True)
    world = init_distributed(cfg.NUM_GPUS)
    network = network_to_test(cfg, world.device)
    ledger = FailureLedger(len(dataset))
    progress = Progress("features", len(dataset), "files", shown=True, every=cfg.LOG_PERIOD)
    found: list[Record] = []
    rows = []

    def process(record: Record, outputs: torch.Tensor | None) -> None:
        if outputs is not None:
            found.append(record)
            rows.append(outputs.double().mean(0).float() if views == MEAN else outputs)

    try:
        if on_cluster(cfg, world):
            evaluate_on_cluster(cfg, split, records, network.loaded, process, ledger, progress, _extractor)
        else:
            forward = ClipForward.from_config(cfg, world.device, split)
            with eval_loader(cfg, world, dataset) as loader:
                evaluate(FeatureExtractor(network), loader, forward, process, cfg.TEST.BATCH_SIZE, ledger, progress)
    finally:
        progress.close()
    if not found:
        first = ledger.all[0]
        raise DataError(f"none of {len(dataset)} samples can be read. The first one: {first.name}: {first.reason}")
    return Features(found, torch.stack(rows).float(), ledger.all)


def _extractor(cfg: ConfigNode, network: Network) -> FeatureExtractor:
    return FeatureExtractor(network)


NPZ, PARQUET = ".npz", ".parquet"


def check_features_file(path: Path) -> None:
    """Raise UserError unless features can be written to a file."""
    check_output_file(path, "--out", (NPZ, PARQUET))
    if path.suffix == PARQUET:
        _pyarrow()


def write_features(features: Features, crops: int, path: Path) -> None:
    """Write features to a file, which appears complete or not at all.

    Arrays (columns of a .parquet file): path (text), label (int64), feature (float32, D values); for one row per view
    also view and crop (int64), the index of its clip and of its spatial crop.

    Args:
        features: Features to write.
        crops: Spatial crops per clip.
        path: .npz or .parquet file.
    """
    columns = feature_columns(features, crops)
    write: dict[str, Callable[[Path, dict[str, np.ndarray]], None]] = {NPZ: _write_npz, PARQUET: _write_parquet}
    with atomic_path(path) as part:
        write[path.suffix](part, columns)


def feature_columns(features: Features, crops: int) -> dict[str, np.ndarray]:
    """Return the columns written by `write_features`, by name."""
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
    """Escape bytes of a name that are not UTF-8, as Parquet text must be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return escape(name)
    return name


def _pyarrow() -> tuple[Any, Any]:
    modules = ("pyarrow", "pyarrow.parquet")
    arrow, parquet = (import_extra(module, "parquet", f"--out: {PARQUET}", f"use {NPZ}") for module in modules)
    return arrow, parquet
