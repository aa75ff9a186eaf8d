"""Reports of event-driven inference on videos: summary table, JSON and CSV files, activity plots.

Notation: K frames, P pixels per side of the network's input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from tabulate import tabulate

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.samples import UNLABELED, target_files
from slowfast.datasets.types import Failure, Record
from slowfast.engine.checkpoints import find_last
from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import FrameActivity, Summary, VideoActivity, summarize
from slowfast.event_driven.network import PatchNetwork
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import row_writer, write_csv, write_json
from slowfast.visualization.heat_map import draw_activity
from slowfast.visualization.results import library_versions, tail

RESULTS_FILE, VIDEOS_FILE, FRAMES_FILE = "event_results.json", "event_videos.csv", "event_frames.csv"
PLOTS_FOLDER = "activity"
DIGITS = 6  # significant digits in files
MAX_SHOWN = 20  # videos in the table on the screen
NAME_WIDTH = 16  # characters of a video's name in it
_FRAME_COMPARISON = ("same_class", "logit_error_mean", "logit_error_max")
_HEADING = (
    ("", "", "active patches %", "saved", "frames/s", ""),
    ("video", "frames", "stages 1, 2, ..", "%", "event", "all"),
)
_COMPARISON = (("", "speed-", "same", "logit error", ""), ("dense", "up", "top-1 %", "mean", "max"))


@dataclass(frozen=True)
class RunReport:
    """Outcome of a run on videos.

    Args:
        cfg: Config of the run.
        network: The network.
        videos: Activity of each video with at least one frame, by index.
        thumbnails: First frame of each of them, uint8 (P, P, 3), by index.
        names: Class names.
        failures: Videos that could not be read, or not completely.
        elapsed: Duration of the run in seconds.
        finished: False for an interim report.
    """

    cfg: ConfigNode
    network: PatchNetwork
    videos: dict[int, VideoActivity]
    thumbnails: dict[int, np.ndarray]
    names: Sequence[str]
    failures: list[Failure]
    elapsed: float
    finished: bool

    @property
    def all(self) -> Summary:
        """Summary of all videos taken together."""
        return summarize(list(self.videos.values()), self.elapsed)


# ---------------------------------------------------------------- table on the screen
def report_table(report: RunReport) -> str:
    """Return a table with one line per video, MAX_SHOWN at most, and one for all; about 100 columns wide."""
    total = report.all
    compared = total.whole_fps is not None
    rows = [[*line, *(more if compared else ())] for line, more in zip(_HEADING, _COMPARISON, strict=True)]
    shown = list(report.videos.values())[:MAX_SHOWN]
    rows += [_row(Path(video.name).name or video.name, summarize([video])) for video in shown]
    if len(report.videos) > 1:
        rows.append(_row(f"all {len(report.videos)}", total))
    align = ("left", *("right",) * (len(rows[0]) - 1))
    lines = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align).splitlines()
    lines.insert(len(_HEADING), "-" * max(map(len, lines)))
    return "\n".join([*lines, *_notes(report, total)])


def _row(name: str, of: Summary) -> list[str]:
    active = " ".join(f"{share:.0f}" for share in of.active)
    row = [tail(name, NAME_WIDTH), str(of.frames), active, f"{of.macs_saved:.1f}"]
    row += [f"{of.event_fps:.0f}", f"{of.end_to_end_fps:.0f}"]
    if of.whole_fps is not None:
        row += [f"{of.whole_fps:.0f}", f"{of.speed_up:.2f}", f"{of.top1_agreement:.1f}"]
        row += [f"{of.logit_error_mean:.3f}", f"{of.logit_error_max:.3f}"]
    return row


def _notes(report: RunReport, total: Summary) -> list[str]:
    more = len(report.videos) - MAX_SHOWN
    notes = [f"{more} more videos in {VIDEOS_FILE}"] if more > 0 else []
    lost = sum(failure.lost for failure in report.failures)
    notes += [f"{lost} could not be read: failed.csv"] if lost else []
    notes += [f"{total.dropped} frames dropped: they arrived faster than they were processed"] if total.dropped else []
    notes.append("saved: multiply-adds; event: change detection and network, without decoding; all: with decoding")
    if total.whole_fps is not None:
        notes.append("dense: the full network on every frame; logit error: |difference| / largest |logit|")
    return notes


# ---------------------------------------------------------------- files
def report_files(report: RunReport, output: Path) -> dict[str, Path]:
    """Write all files but the frame log.

    Returns:
        The path of each file or folder, by description.
    """
    files = report_metrics(report, output)
    if report.failures:
        files["unreadable videos"] = output / "failed.csv"
    return files | _plot(report, output / PLOTS_FOLDER)


def report_metrics(report: RunReport, output: Path) -> dict[str, Path]:
    """Write the metrics, which is also possible during a run.

    Returns:
        The path of each file, by description.
    """
    write_json(output / RESULTS_FILE, _as_json(report))
    _write_videos(report, output / VIDEOS_FILE)
    return {"all metrics": output / RESULTS_FILE, "metrics per video": output / VIDEOS_FILE}


def _as_json(report: RunReport) -> dict[str, Any]:
    cfg = report.cfg
    weights = cfg.TEST.CHECKPOINT_FILE_PATH or find_last(cfg.OUTPUT_DIR) or "random"
    device = report.network.device
    return {
        "model": cfg.MODEL.MODEL_NAME,
        "weights": str(weights),
        "settings": dict(cfg.EVENT),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
        "finished": report.finished,
        "all": _rounded(report.all),
        "videos": [
            {"path": video.name, "class": report.names[video.most_frequent_class()]} | _rounded(summarize([video]))
            for video in report.videos.values()
        ],
        "failed": [{"path": f.name, "lost": f.lost, "reason": f.reason} for f in report.failures],
    }


def _rounded(summary: Summary) -> dict[str, Any]:
    """Round to DIGITS significant digits; drop what was not measured."""
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
    rest = ["macs_saved", "event_fps", "end_to_end_fps", "dropped", "whole_fps", "speed_up", "top1_agreement"]
    rest += ["logit_error_mean", "logit_error_max"]
    rows = []
    for video in report.videos.values():
        of = _rounded(summarize([video]))
        values = (of.get(name, "") for name in rest)
        rows.append((video.name, of["frames"], *of["active"], *values, report.names[video.most_frequent_class()]))
    write_csv(path, ("path", "frames", *stages, *rest, "class"), rows)


def _plot(report: RunReport, folder: Path) -> dict[str, Path]:
    records = [Record(index, Path(video.name), video.name, UNLABELED) for index, video in report.videos.items()]
    try:
        for record, file in zip(records, target_files(records, folder, ".png"), strict=True):
            video = report.videos[record.index]
            assert video.times_active is not None and video.over_time is not None
            times = report.network.as_map(video.times_active[:, None].to(report.network.device), 0)[:, :, 0]
            starts, active = video.over_time.means()
            shares = 100 * active / report.network.counts  # B stages
            note = f"{video.frames} frames, {video.savings.macs_saved:.1f} % of the multiply-adds saved"
            heat = times.cpu().numpy() / video.frames
            draw_activity(report.thumbnails[record.index], heat, starts, shares, record.path.name, note, file)
    except Exception as error:  # a failed plot must not cost the results of a run
        get_logger().warning(f"Could not plot the activity: {error}")
        return {}
    return {"activity over time and space": folder}


class FrameLog:
    """CSV file with one line per frame, flushed after every write; it replaces that of an earlier run.

    Columns: path of the video; frame number, without dropped frames; time in the video in seconds, for live sources the
    Unix time at which the frame was computed; patches computed per stage; multiply-adds; index of the top-1 class; and,
    with a comparison, whether it equals that of dense inference, and the mean and maximum logit error.
    """

    def __init__(self, folder: Path, stages: int) -> None:
        self.path = folder / FRAMES_FILE
        self._heading = ("path", "frame", "seconds", *(f"active_{n}" for n in range(1, 1 + stages)))
        self._file: TextIO | None = None

    def write(self, name: str, first: int, seconds: list[float], frames: FrameActivity) -> None:
        """Write the lines of K frames.

        Args:
            name: Name of the video.
            first: Number of the first frame.
            seconds: Time of each frame.
            frames: Activity of the frames.

        Raises:
            DataError: If the file cannot be written.
        """
        try:
            file = self._file or self._create()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                values = (*frames.active[k].tolist(), frames.macs[k], frames.predictions[k], *_comparison(frames, k))
                write((name, first + k, f"{time:.3f}", *values))
            file.flush()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written: {system_reason(error)}. Set EVENT.FRAME_LOG to False to do without it"
            ) from None

    def _create(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # not truncated: another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        row_writer(self._file)((*self._heading, "macs", "class", *_FRAME_COMPARISON))
        return self._file

    @property
    def written(self) -> dict[str, Path]:
        """Path of the file if there is one, by description."""
        return {"metrics per frame": self.path} if self._file is not None else {}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _comparison(frames: FrameActivity, k: int) -> tuple[object, ...]:
    of = frames.agreement
    if of is None:
        return ("",) * len(_FRAME_COMPARISON)
    return int(of.same[k]), f"{of.mean[k]:.{DIGITS}g}", f"{of.largest[k]:.{DIGITS}g}"
