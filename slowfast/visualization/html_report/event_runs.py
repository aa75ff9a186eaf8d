"""Event-driven runs on videos in the report: metrics and activity of each camera or file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slowfast.visualization.heat_map import ACTIVITY_FILE
from slowfast.visualization.html_report.run_files import RunFiles
from slowfast.visualization.html_report.sections import NUMBER, PERCENT, Column, Table, version_facts

RESULTS_FILE = "event_results.json"
MAX_DRAWN = 64  # videos whose activity is drawn


@dataclass(frozen=True)
class _Value:
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


_VALUES = {
    "frames": _Value("frames"),
    "macs_saved": _Value("multiply-adds saved", "%", 1),
    "event_fps": _Value("event-driven", "frames/s", 1),
    "end_to_end_fps": _Value("with decoding", "frames/s", 1),
    "dropped": _Value("dropped frames"),
    "latency_p50_ms": _Value("latency p50", "ms", 1),
    "latency_p95_ms": _Value("latency p95", "ms", 1),
    "latency_p99_ms": _Value("latency p99", "ms", 1),
    "reconnects": _Value("reconnects"),
    "seconds_away": _Value("without connection", "s", 1),
    "compared": _Value("compared frames"),
    "whole_fps": _Value("dense", "frames/s", 1),
    "speed_up": _Value("speed-up", digits=2),
    "top1_agreement": _Value("same top-1 as dense", "%", 1),
    "logit_error_mean": _Value("mean logit error", digits=4),
    "logit_error_max": _Value("largest logit error", digits=4),
}
_TILES = ("frames", "macs_saved", "event_fps", "speed_up", "top1_agreement")
_LIVE_TILES = ("latency_p50_ms", "latency_p99_ms", "dropped")


def read_results(files: RunFiles) -> Mapping[str, Any]:
    """Return the content of event_results.json; empty for any other run."""
    results: Mapping[str, Any] = files.json(RESULTS_FILE, dict)
    return results


def summary(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the headline values and the facts about a run; None for any other run."""
    of_all = results.get("all")
    if not isinstance(of_all, Mapping):
        return None
    shown = (*_TILES, *(_LIVE_TILES if "latency_p50_ms" in of_all else ()))
    tiles = [(_VALUES[key].name, _VALUES[key].text(of_all[key])) for key in shown if of_all.get(key) is not None]
    names = {"model": "model", "weights": "weights", "device": "device", "threads": "threads"}
    facts = [(name, str(results[key])) for key, name in names.items() if key in results]
    settings = results.get("settings")
    if isinstance(settings, Mapping):
        facts.append(("settings", ", ".join(f"EVENT.{key} {value}" for key, value in settings.items())))
    warning = "" if results.get("trained", True) else "The weights are untrained (random): classes mean nothing."
    facts += version_facts(results)
    return {"title": "Event-driven inference", "tiles": tiles, "facts": facts, "warning": warning}


def videos_table(results: Mapping[str, Any]) -> Table | None:
    """Return the metrics of each video; None if there are none."""
    videos: Sequence[Any] = results.get("videos") or []
    videos = [video for video in videos if isinstance(video, Mapping)]
    if not videos:
        return None
    known = [key for key in _VALUES if any(video.get(key) is not None for video in videos)]
    stages = max(len(video.get("active") or []) for video in videos)
    columns = [Column("video or camera"), Column("most frequent class"), *(_VALUES[key].column for key in known)]
    columns += [Column(f"stage {n} computed (%)", PERCENT, 1) for n in range(1, 1 + stages)]
    return Table(columns, [_video_row(video, known, stages) for video in videos])


def _video_row(video: Mapping[str, Any], known: Sequence[str], stages: int) -> list[Any]:
    active = [*(video.get("active") or []), *[None] * stages][:stages]
    return [video.get("name"), video.get("class"), *(video.get(key) for key in known), *active]


def activity(files: RunFiles) -> dict[str, Any] | None:
    """Return where and when the patches of the first MAX_DRAWN videos were computed; None for any other run."""
    videos = files.json(ACTIVITY_FILE, list)
    return {"videos": videos[:MAX_DRAWN], "total": len(videos)} if videos else None
