"""What event-driven inference on videos leaves: a table on the screen, JSON, CSV files and a picture of each video."""

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
from slowfast.datasets.index.media import UNLABELLED, target_files
from slowfast.datasets.types import Failure, Record
from slowfast.engine.checkpoints import find_last
from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import Figures, FrameFigures, VideoActivity, figures
from slowfast.event_driven.network import PatchNetwork
from slowfast.utils.csv_files import row_writer, write_csv
from slowfast.utils.json_files import write_json
from slowfast.utils.logging import get_logger
from slowfast.visualization.heat_map import draw_activity
from slowfast.visualization.results import library_versions
from slowfast.visualization.tables import tail

FRAMES = "event_frames.csv"
DIGITS = 6  # significant ones in files
_FRAME_COMPARED = ("same_class", "logit_error_mean", "logit_error_max")


class FrameLog:
    """Writes the lines; what is there stays when the process is killed. An older file gives way to the first line.

    Columns: path of the video; number of the frame, those left out not counted; seconds, its time in the video, of
    cameras and streams since 1970 when it was computed; patches computed of each stage; multiply-adds; the best
    class's number; where compared, whether that is the whole network's, and the errors of the logits.
    Raises DataError where the disk does not take them.
    """

    def __init__(self, folder: Path, stages: int) -> None:
        self.path = folder / FRAMES
        self._heading = ("path", "frame", "seconds", *(f"active_{n}" for n in range(1, 1 + stages)))
        self._file: TextIO | None = None

    def write(self, name: str, first: int, seconds: list[float], rows: FrameFigures) -> None:
        """The lines of K frames of a video, from its frame number `first` on; seconds: K."""
        try:
            file = self._file or self._begin()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                figures = (*rows.active[k].tolist(), rows.macs[k], rows.answers[k], *_compared(rows, k))
                write((name, first + k, f"{time:.3f}", *figures))
            file.flush()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written ({system_reason(error)}); EVENT.FRAME_LOG False does without"
            ) from None

    def _begin(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # not emptied: another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        row_writer(self._file)((*self._heading, "macs", "class", *_FRAME_COMPARED))
        return self._file

    @property
    def written(self) -> dict[str, Path]:
        """What there is, and where."""
        return {"a line a frame": self.path} if self._file is not None else {}

    def close(self) -> None:
        """No more lines come."""
        if self._file is not None:
            self._file.close()


def _compared(rows: FrameFigures, k: int) -> tuple[object, ...]:
    of = rows.agreement
    if of is None:
        return ("",) * len(_FRAME_COMPARED)
    return int(of.same[k]), f"{of.mean[k]:.{DIGITS}g}", f"{of.largest[k]:.{DIGITS}g}"


RESULTS, VIDEOS, PICTURES = "event_results.json", "event_videos.csv", "activity"
SHOWN = 20  # videos in the table on the screen
NAME_ROOM = 16  # characters of a video's name in it


@dataclass(frozen=True)
class RunReport:
    """A pass over videos. videos, pictures (their first frames uint8 (P, P, 3)): of those read, by index."""

    cfg: ConfigNode
    network: PatchNetwork
    videos: dict[int, VideoActivity]
    pictures: dict[int, np.ndarray]
    names: Sequence[str]  # of the classes
    failures: list[Failure]
    elapsed: float  # seconds
    finished: bool  # not so: the run goes on

    def of(self, video: VideoActivity) -> Figures:
        """One video's figures."""
        return figures([video], self.network)

    @property
    def all(self) -> Figures:
        """All videos' together."""
        return figures(list(self.videos.values()), self.network, self.elapsed)


# ------------------------------------------------------------------ the screen
_HEADING = (
    ("", "", "active patches %", "saved", "frames/s", ""),
    ("video", "frames", "stages 1, 2, ..", "%", "net", "all"),
)
_COMPARED = (("whole", "times", "same", "error", ""), ("net", "faster", "top-1 %", "mean", "max"))


def report_table(report: RunReport) -> str:
    """A line a video, the first SHOWN, and one for all; some 100 columns wide with six stages."""
    compared = report.all.whole_fps is not None
    rows = [[*line, *(more if compared else ())] for line, more in zip(_HEADING, _COMPARED, strict=True)]
    shown = list(report.videos.values())[:SHOWN]
    rows += [_row(Path(video.name).name or video.name, report.of(video)) for video in shown]
    if len(report.videos) > 1:
        rows.append(_row(f"all {len(report.videos)}", report.all))
    align = ("left", *("right",) * (len(rows[0]) - 1))
    lines = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align).splitlines()
    lines.insert(len(_HEADING), "-" * max(map(len, lines)))
    more = len(report.videos) - SHOWN
    lines += [f"{more} more videos in {VIDEOS}"] if more > 0 else []
    lost = sum(failure.lost for failure in report.failures)
    lines += [f"{lost} could not be read: failed.csv"] if lost else []
    dropped = report.all.dropped
    lines += [f"{dropped} frames came faster than they were looked at and were left out"] if dropped else []
    lines.append("saved: multiply-adds; net: gate and network, frames decoded before; all: with decoding and all else")
    lines += ["error: |difference of logits| / largest |logit|"] if compared else []
    return "\n".join(lines)


def _row(name: str, of: Figures) -> list[str]:
    active = " ".join(f"{share:.0f}" for share in of.active)
    row = [tail(name, NAME_ROOM), str(of.frames), active, f"{of.macs_saved:.1f}"]
    row += [f"{of.event_fps:.0f}", f"{of.end_to_end_fps:.0f}"]
    if of.whole_fps is not None:
        row += [f"{of.whole_fps:.0f}", f"{of.speed_up:.2f}", f"{of.top1_agreement:.1f}"]
        row += [f"{of.logit_error_mean:.3f}", f"{of.logit_error_max:.3f}"]
    return row


# ------------------------------------------------------------------ files
def report_files(report: RunReport, output: Path) -> dict[str, Path]:
    """Write all of them but the lines of frames; what each is and where."""
    files = report_figures(report, output)
    if report.failures:
        files["what could not be read"] = output / "failed.csv"
    return files | _draw(report, output / PICTURES)


def report_figures(report: RunReport, output: Path) -> dict[str, Path]:
    """Write the figures, also those of a run that goes on; what each file is and where."""
    write_json(output / RESULTS, _as_json(report))
    _write_videos(report, output / VIDEOS)
    return {"all figures": output / RESULTS, "a line a video": output / VIDEOS}


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
            {"path": video.name, "class": report.names[video.common_answer()]} | _rounded(report.of(video))
            for video in report.videos.values()
        ],
        "failed": [{"path": f.name, "lost": f.lost, "reason": f.reason} for f in report.failures],
    }


def _rounded(of: Figures) -> dict[str, Any]:
    """To DIGITS significant digits; what was not measured left out."""
    given = {name: value for name, value in asdict(of).items() if value is not None}
    return {
        name: [_digits(v) for v in value] if isinstance(value, list) else _digits(value)
        for name, value in given.items()
    }


def _digits(value: float) -> float | None:
    """None for what is no number: JSON has no NaN."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _write_videos(report: RunReport, path: Path) -> None:
    stages = [f"active_{n}" for n in range(1, 1 + len(report.network.stages))]
    rest = ["macs_saved", "event_fps", "end_to_end_fps", "dropped", "whole_fps", "speed_up", "top1_agreement"]
    rest += ["logit_error_mean", "logit_error_max"]
    rows = []
    for video in report.videos.values():
        of = _rounded(report.of(video))
        figures_of = (of.get(name, "") for name in rest)
        rows.append((video.name, of["frames"], *of["active"], *figures_of, report.names[video.common_answer()]))
    write_csv(path, ("path", "frames", *stages, *rest, "class"), rows)


def _draw(report: RunReport, folder: Path) -> dict[str, Path]:
    records = [Record(index, Path(video.name), video.name, UNLABELLED) for index, video in report.videos.items()]
    try:
        for record, picture in zip(records, target_files(records, folder, ".png"), strict=True):
            video = report.videos[record.index]
            assert video.times_active is not None and video.active is not None
            times = report.network.as_map(video.times_active[:, None].to(report.network.device), 0)[:, :, 0]
            starts, active = video.active.means()
            shares = 100 * active / report.network.counts  # B stages
            of = report.of(video)
            note = f"{of.frames} frames, {of.macs_saved:.1f} % of the multiply-adds saved"
            heat = times.cpu().numpy() / of.frames
            draw_activity(report.pictures[record.index], heat, starts, shares, record.path.name, note, picture)
    except Exception as error:  # figures must not cost a run its results
        get_logger().warning(f"The activity is not drawn: {error}")
        return {}
    return {"activity over time and place": folder}
