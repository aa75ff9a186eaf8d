"""Sections of the report: headline values and facts of trainings, tests and event-driven runs, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slowfast.config.defaults import get_cfg
from slowfast.config.keys import KEYS
from slowfast.config.node import ConfigNode
from slowfast.utils.text import redact
from slowfast.visualization.heat_map import ACTIVITY_FILE
from slowfast.visualization.html_report.run_files import CONFIG, TEST_CONFIG, RunFiles
from slowfast.visualization.metrics_log import Row
from slowfast.visualization.results import LOSS, Metric

Pair = tuple[str, str]
TILES = 6  # maximum number of headline values
TEXT, NUMBER, PERCENT = "text", "number", "percent"  # kinds of columns
FAILED_FILES = ("failed.csv", "failed_train.csv")
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
        metrics: Metrics of the task, for files of earlier versions.
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
    """Return the facts about a test: model, checkpoint, data, device and date."""
    known = {key: results.get(key) for key in _FACTS}
    if known["failed"] == 0:
        known["failed"] = None
    facts = [(_FACTS[key], _text(value)) for key, value in known.items() if value is not None]
    return [*facts, *version_facts(results)]


def version_facts(results: Mapping[str, Any]) -> list[Pair]:
    """Return the library versions recorded in a result file."""
    versions = results.get("versions")
    text = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, Mapping) else ""
    return [("versions", text)] if text else []


def training_tiles(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Pair]:
    """Return the last loss and the last validation, or the metrics of the last steps if there was no validation."""
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


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        title: Heading, with the unit.
        kind: TEXT, NUMBER, or PERCENT, which is drawn with a bar.
        digits: Decimal places of a number; None for all of them.
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
        """Return the content for the page."""
        return {"columns": [asdict(column) for column in self.columns], "rows": self.rows}


# Columns of per_class.json; other columns of a task are shown under their own names.
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
_HIDDEN = ("confused_with",)  # the name of the class is shown instead


def per_class_table(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the results of all classes in per_class.json; None if there are none."""
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
    """Return the samples that could not be read, or only partly; None if all were read."""
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


EVENT_RESULTS = "event_results.json"
MAX_DRAWN = 64  # videos whose activity is drawn


@dataclass(frozen=True)
class _EventValue:
    """Value of a video or of all videos in event_results.json."""

    name: str
    unit: str = ""
    digits: int = 0

    @property
    def column(self) -> Column:
        title = f"{self.name} ({self.unit})" if self.unit else self.name
        return Column(title, PERCENT if self.unit == "%" else NUMBER, self.digits)

    def text(self, value: Any) -> str:
        number = f"{value:.{self.digits}f}" if isinstance(value, (int, float)) else str(value)
        return f"{number} {self.unit}".rstrip()


_EVENT_VALUES = {
    "frames": _EventValue("frames"),
    "macs_saved": _EventValue("multiply-adds saved", "%", 1),
    "event_fps": _EventValue("event-driven", "frames/s", 1),
    "end_to_end_fps": _EventValue("with decoding", "frames/s", 1),
    "dropped": _EventValue("dropped frames"),
    "latency_p50_ms": _EventValue("latency p50", "ms", 1),
    "latency_p95_ms": _EventValue("latency p95", "ms", 1),
    "latency_p99_ms": _EventValue("latency p99", "ms", 1),
    "reconnects": _EventValue("reconnects"),
    "seconds_away": _EventValue("without connection", "s", 1),
    "compared": _EventValue("compared frames"),
    "whole_fps": _EventValue("dense", "frames/s", 1),
    "speed_up": _EventValue("speed-up", digits=2),
    "top1_agreement": _EventValue("same top-1 as dense", "%", 1),
    "logit_error_mean": _EventValue("mean logit error", digits=4),
    "logit_error_max": _EventValue("largest logit error", digits=4),
}
_EVENT_TILES = ("frames", "macs_saved", "event_fps", "speed_up", "top1_agreement")
_LIVE_TILES = ("latency_p50_ms", "latency_p99_ms", "dropped")


def read_event_results(files: RunFiles) -> Mapping[str, Any]:
    """Return the content of event_results.json; empty for any other run."""
    results: Mapping[str, Any] = files.json(EVENT_RESULTS, dict)
    return results


def event_summary(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the headline values and the facts about a run; None for any other run."""
    of_all = results.get("all")
    if not isinstance(of_all, Mapping):
        return None
    shown = (*_EVENT_TILES, *(_LIVE_TILES if "latency_p50_ms" in of_all else ()))
    tiles = [
        (_EVENT_VALUES[key].name, _EVENT_VALUES[key].text(of_all[key])) for key in shown if of_all.get(key) is not None
    ]
    names = {"model": "model", "weights": "weights", "device": "device", "threads": "threads"}
    facts = [(name, str(results[key])) for key, name in names.items() if key in results]
    settings = results.get("settings")
    if isinstance(settings, Mapping):
        facts.append(("settings", ", ".join(f"EVENT.{key} {value}" for key, value in settings.items())))
    warning = "" if results.get("trained", True) else "The weights are untrained (random): classes mean nothing."
    facts += version_facts(results)
    return {"title": "Event-driven inference", "tiles": tiles, "facts": facts, "warning": warning}


def event_videos_table(results: Mapping[str, Any]) -> Table | None:
    """Return the metrics of each video; None if there are none."""
    videos: Sequence[Any] = results.get("videos") or []
    videos = [video for video in videos if isinstance(video, Mapping)]
    if not videos:
        return None
    known = [key for key in _EVENT_VALUES if any(video.get(key) is not None for video in videos)]
    stages = max(len(video.get("active") or []) for video in videos)
    columns = [Column("video or camera"), Column("most frequent class"), *(_EVENT_VALUES[key].column for key in known)]
    columns += [Column(f"stage {n} computed (%)", PERCENT, 1) for n in range(1, 1 + stages)]
    return Table(columns, [_video_row(video, known, stages) for video in videos])


def _video_row(video: Mapping[str, Any], known: Sequence[str], stages: int) -> list[Any]:
    active = [*(video.get("active") or []), *[None] * stages][:stages]
    return [video.get("name"), video.get("class"), *(video.get(key) for key in known), *active]


def event_activity(files: RunFiles) -> dict[str, Any] | None:
    """Return where and when the patches of the first MAX_DRAWN videos were computed; None for any other run."""
    videos = files.json(ACTIVITY_FILE, list)
    return {"videos": videos[:MAX_DRAWN], "total": len(videos)} if videos else None
