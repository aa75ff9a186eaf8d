"""Reports of event-driven inference on videos: JSON and CSV files, activity plots, and tables for the screen.

Notation: K frames, P pixels per side of the network's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import Failure
from slowfast.engine.run_report import report_run
from slowfast.event_driven.activity import Summary, VideoActivity, summarize
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.sources import Source, source_files
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import write_csv, write_json
from slowfast.visualization.heat_map import ACTIVITY_FILE, PatchActivity, draw_activity, write_activity
from slowfast.visualization.html_report.run_files import RunStatus
from slowfast.visualization.html_report.sections import EVENT_RESULTS
from slowfast.visualization.results import library_versions, tail, write_failed

VIDEOS_FILE = "event_videos.csv"
PLOTS_FOLDER = "activity"
DIGITS = 6  # significant digits in files
_RANDOM = "random"  # replaces the file of the weights
UNTRAINED = "untrained (random) weights"
MAX_SHOWN = 20  # videos in the table
NAME_WIDTH = 16  # characters of a video's name
_HEADING = (
    ("", "", "active patches %", "saved", "frames/s", ""),
    ("video", "frames", "stages 1, 2, ..", "%", "event", "all"),
)
_COMPARISON = (("", "speed-", "same", "logit error", ""), ("dense", "up", "top-1 %", "mean", "max"))
_LIVE = (
    ("", "", "", "latency ms", "", "", "", "away"),
    ("camera", "frames/s", "dropped", "p50", "p95", "p99", "reconnects", "s"),
)


@dataclass(frozen=True)
class RunReport:
    """Outcome of a run on videos.

    Args:
        cfg: Config of the run.
        network: The network.
        weights: File of its weights; None if they are random.
        sources: All videos, also those without a frame.
        videos: Activity of each video with at least one frame, by index, in the order of the sources.
        thumbnails: First frame of each of them, uint8 (P, P, 3), by index.
        names: Class names.
        failures: Videos that could not be read, or only partly.
        compare_every: Interval between batches compared with dense inference, with EVENT.COMPARE.
        elapsed: Duration of the run in seconds.
        finished: False for an interim report.
    """

    cfg: ConfigNode
    network: PatchNetwork
    weights: str | None
    sources: Sequence[Source]
    videos: dict[int, VideoActivity]
    thumbnails: dict[int, np.ndarray]
    names: Sequence[str]
    failures: list[Failure]
    compare_every: int
    elapsed: float
    finished: bool

    @property
    def all(self) -> Summary:
        """Summary over all videos."""
        return summarize(list(self.videos.values()), self.elapsed)

    @property
    def untrained(self) -> bool:
        """True if the weights are random."""
        return self.weights is None


# ---------------------------------------------------------------- files
def report_files(report: RunReport, output: Path) -> dict[str, Path]:
    """Write all files except the frame log.

    Returns:
        The path of each file or folder, by description.
    """
    files = report_metrics(report, output)
    if report.failures:
        files["unreadable videos"] = output / "failed.csv"
    return _plot(report, output / PLOTS_FOLDER) | files


def report_metrics(report: RunReport, output: Path) -> dict[str, Path]:
    """Write metrics, activity and report.html, which is also possible during a run.

    Returns:
        The path of each file, by description.
    """
    write_json(output / EVENT_RESULTS, _as_json(report))
    _write_videos(report, output / VIDEOS_FILE)
    write_failed(report.failures, output / "failed.csv")
    write_activity((_activity(report, index) for index in report.videos), output / ACTIVITY_FILE)
    files = {"all metrics": output / EVENT_RESULTS, "metrics per video": output / VIDEOS_FILE}
    state = RunStatus.FINISHED if report.finished else RunStatus.RUNNING
    return files | report_run(report.cfg, state)


def _as_json(report: RunReport) -> dict[str, Any]:
    cfg, device = report.cfg, report.network.device
    paths = {source.record.index: source.path for source in report.sources}
    return {
        "model": cfg.MODEL.MODEL_NAME,
        "weights": report.weights or _RANDOM,
        "trained": not report.untrained,
        "settings": dict(cfg.EVENT),
        "compare_every": report.compare_every if cfg.EVENT.COMPARE else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
        "finished": report.finished,
        "all": _rounded(report.all),
        "videos": [
            {"name": video.name, "path": paths[index], "class": report.names[video.most_frequent_class()]}
            | _rounded(summarize([video]))
            for index, video in report.videos.items()
        ],
        "failed": [
            {"name": f.name, "path": paths.get(f.index, f.name), "lost": f.lost, "reason": f.reason}
            for f in report.failures
        ],
    }


def _rounded(summary: Summary) -> dict[str, Any]:
    """Round to DIGITS significant digits; drop values that were not measured."""
    measured = {name: value for name, value in asdict(summary).items() if value is not None}
    return {
        name: [_round(v) for v in value] if isinstance(value, list) else _round(value)
        for name, value in measured.items()
    }


def _round(value: float) -> float | None:
    """Round to DIGITS significant digits; None for NaN and infinity, which JSON does not have."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _write_videos(report: RunReport, path: Path) -> None:
    stages = [f"active_{n}" for n in range(1, 1 + len(report.network.stages))]
    rest = ["macs_saved", "event_fps", "end_to_end_fps", "dropped", "latency_p50_ms", "latency_p95_ms"]
    rest += ["latency_p99_ms", "reconnects", "seconds_away", "compared", "whole_fps", "speed_up", "top1_agreement"]
    rest += ["logit_error_mean", "logit_error_max"]
    paths, rows = {source.record.index: source.path for source in report.sources}, []
    for index, video in report.videos.items():
        of = _rounded(summarize([video]))
        values = [of.get(name, "") for name in rest]
        class_name = report.names[video.most_frequent_class()]
        rows.append(
            (video.name, paths[index], of["frames"], *of["active"], *values, class_name, report.weights or _RANDOM)
        )
    write_csv(path, ("name", "path", "frames", *stages, *rest, "class", "weights"), rows)


def _activity(report: RunReport, index: int) -> PatchActivity:
    """Return where and when the patches of a video were computed."""
    video = report.videos[index]
    assert video.times_active is not None and video.over_time is not None
    times = report.network.as_map(video.times_active[:, None].to(report.network.device), 0)[:, :, 0]
    starts, seconds, active = video.over_time.means()
    return PatchActivity(
        name=Path(video.name).name or video.name,
        image=report.thumbnails[index],
        heat=times.cpu().numpy() / video.frames,
        starts=starts,
        seconds=seconds,
        shares=100 * active / report.network.counts,
        frames=video.frames,
    )


def _plot(report: RunReport, folder: Path) -> dict[str, Path]:
    files = source_files(report.sources, folder, ".png")
    try:
        for index, video in report.videos.items():
            note = f"{video.frames} frames, {video.savings.macs_saved:.1f} % of the multiply-adds saved"
            note += f"; {UNTRAINED}" if report.untrained else ""
            draw_activity(_activity(report, index), note, files[index])
    except Exception as error:  # a failed plot must not lose the results of a run
        get_logger().warning(f"Could not plot the activity: {error}")
        return {}
    return {"activity over time and space": folder}


# ---------------------------------------------------------------- tables
def report_table(report: RunReport) -> str:
    """Return tables with one line per video, at most MAX_SHOWN, and one for all videos; about 100 columns wide."""
    total = report.all
    compared = total.compared is not None
    rows = [[*line, *(more if compared else ())] for line, more in zip(_HEADING, _COMPARISON, strict=True)]
    rows += _rows(report.videos.values(), total, _row)
    lines = _table(rows)
    live = [video for video in report.videos.values() if video.live]
    if live:
        lines += ["", *_table([*map(list, _LIVE), *_rows(live, summarize(live, report.elapsed), _live_row)])]
    return "\n".join([*lines, *_notes(report, total)])


def _rows(videos: Iterable[VideoActivity], total: Summary, row: Callable[[str, Summary], list[str]]) -> list[list[str]]:
    """Return the rows of the first videos, and a row for all if there are several."""
    videos = list(videos)
    rows = [row(Path(video.name).name or video.name, summarize([video])) for video in videos[:MAX_SHOWN]]
    return [*rows, row(f"all {len(videos)}", total)] if len(videos) > 1 else rows


def _table(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table whose first rows are the heading."""
    align = ("left", *("right",) * (len(rows[0]) - 1))
    # Fill the rows of videos that were not compared.
    rows = [[*row, *["-"] * (len(rows[0]) - len(row))] for row in rows]
    lines = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align).splitlines()
    return [*lines[: len(_HEADING)], "-" * max(map(len, lines)), *lines[len(_HEADING) :]]


def _row(name: str, of: Summary) -> list[str]:
    active = " ".join(f"{share:.0f}" for share in of.active)
    row = [tail(name, NAME_WIDTH), str(of.frames), active, f"{of.macs_saved:.1f}"]
    row += [f"{of.event_fps:.0f}", f"{of.end_to_end_fps:.0f}"]
    if of.compared is not None:
        row += [f"{of.whole_fps:.0f}", f"{of.speed_up:.2f}", f"{of.top1_agreement:.1f}"]
        row += [f"{of.logit_error_mean:.3f}", f"{of.logit_error_max:.3f}"]
    return row


def _live_row(name: str, of: Summary) -> list[str]:
    row = [tail(name, NAME_WIDTH), f"{of.end_to_end_fps:.1f}", str(of.dropped)]
    row += [f"{value:.0f}" for value in (of.latency_p50_ms, of.latency_p95_ms, of.latency_p99_ms)]
    return [*row, str(of.reconnects), f"{of.seconds_away:.1f}"]


def _notes(report: RunReport, total: Summary) -> list[str]:
    notes = [UNTRAINED.capitalize()] if report.untrained else []
    more = len(report.videos) - MAX_SHOWN
    notes += [f"{more} more videos in {VIDEOS_FILE}"] if more > 0 else []
    lost = sum(failure.lost for failure in report.failures)
    notes += [f"{lost} could not be read: failed.csv"] if lost else []
    notes += [f"{total.dropped} frames dropped: they arrived faster than they were processed"] if total.dropped else []
    notes.append("saved: multiply-adds; event: change detection and network, without decoding; all: with decoding")
    if total.latency_p50_ms is not None:
        notes.append("latency: from the arrival of a frame's data to its logits; away: time without connection")
    return [*notes, *_comparison_notes(report, total)]


def _comparison_notes(report: RunReport, total: Summary) -> list[str]:
    """Describe the comparison with dense inference and the number of compared frames."""
    if not report.cfg.EVENT.COMPARE:
        return []
    every = f"every {report.compare_every} batches (EVENT.COMPARE_EVERY)"
    if total.compared is None:
        return [f"no frame was compared with dense inference: the run ended before one was due, {every}"]
    notes = ["dense: the full network; speed-up: on the same frames; logit error: |difference| / largest |logit|"]
    if total.compared < total.frames:
        notes.append(f"compared with dense inference: {total.compared} of {total.frames} frames, {every}")
    return notes
