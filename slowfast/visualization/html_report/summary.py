"""Summary of the report: headline values and the facts about a training and a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.visualization.metrics_log import Row
from slowfast.visualization.results import LOSS, Metric

Pair = tuple[str, str]
TILES = 6  # headline values at most
# Keys of test_results.json and their names in the report.
_FACTS = {
    "model": "model",
    "checkpoint": "checkpoint",
    "checkpoint_choice": "choice of the checkpoint",
    "checkpoint_epoch": "epoch of the checkpoint",
    "checkpoint_sha256": "SHA-256 of the checkpoint",
    "dataset": "dataset",
    "data": "data",
    "device": "device",
    "date": "date",
    "config_digest": "digest of the config",
    "videos": "videos",
    "failed": "unreadable videos",
    "views": "views per video",
    "crops": "crops per view",
    "seconds": "duration (s)",
    "clips_per_second": "throughput (clips/s)",
    "peak_memory_mib": "peak memory (MiB)",
}


def test_tiles(results: Mapping[str, Any], metrics: Sequence[Metric]) -> list[Pair]:
    """Return the results of a test by name.

    Args:
        results: Content of test_results.json. Files of earlier versions lack the table of results.
        metrics: Metrics of the task, for these.
    """
    table = results.get("results")
    if isinstance(table, Mapping):
        return [_tile(str(name), str(value)) for name, value in table.items()]
    known = [(metric, results.get(metric.key)) for metric in metrics]
    return [(metric.title, metric.text(value)) for metric, value in known if isinstance(value, (int, float))]


def _tile(name: str, value: str) -> Pair:
    """Move a remark in parentheses from the value to the name."""
    number, separator, remark = value.partition(" (")
    return f"{name}{separator}{remark}", number


def test_facts(results: Mapping[str, Any]) -> list[Pair]:
    """Return what was tested, on what and when."""
    known = {key: results.get(key) for key in _FACTS}
    if known["failed"] == 0:
        known["failed"] = None
    facts = [(_FACTS[key], _text(value)) for key, value in known.items() if value is not None]
    return [*facts, *version_facts(results)]


def version_facts(results: Mapping[str, Any]) -> list[Pair]:
    """Return the versions of the libraries in a file of results."""
    versions = results.get("versions")
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, Mapping) else ""
    return [("versions", text)] if text else []


def training_tiles(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Pair]:
    """Return the last loss and the last validation by name, or the metrics of the last steps without any validation."""
    train, val = ([row for row in rows if row.get("split") == split] for split in ("train", "val"))
    tiles: list[Pair] = []
    if train:
        tiles += _metric_tiles("training", train[-1], () if val else metrics)
    if val:
        tiles += _metric_tiles("validation", val[-1], metrics)
    return tiles[:TILES]


def _metric_tiles(part: str, row: Row, metrics: Sequence[Metric]) -> list[Pair]:
    known = [(metric, _number(row, metric.key)) for metric in (LOSS, *metrics)]
    return [(f"{part} {metric.title}", metric.text(value)) for metric, value in known if value is not None]


def training_facts(rows: Sequence[Row], cfg: ConfigNode | None) -> list[Pair]:
    """Return progress and speed of a training."""
    train = [row for row in rows if row.get("split") == "train"]
    if not train:
        return []
    last, facts = train[-1], []
    epoch = _number(last, "epoch")
    if epoch is not None:
        end = "" if cfg is None else f" of {cfg.SOLVER.MAX_EPOCH}"
        facts.append(("epoch", f"{epoch:.2f}{end}"))
    facts.append(("steps", f"{last['step']}"))
    data, compute = (_number(last, key) for key in ("data_s", "compute_s"))
    if data is not None and compute is not None:
        facts.append(("time per step", f"{data + compute:.3f} s, {data:.3f} s of it waiting for data"))
    memory = _number(last, "memory_gib")
    return facts + ([("peak memory (GiB)", f"{memory:.2f}")] if memory is not None else [])


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
