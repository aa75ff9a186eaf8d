"""Tables of event-driven inference on videos for the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tabulate import tabulate

from slowfast.event_driven.activity import Summary, VideoActivity, summarize
from slowfast.event_driven.report import UNTRAINED, VIDEOS_FILE, RunReport
from slowfast.visualization.results import tail

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
