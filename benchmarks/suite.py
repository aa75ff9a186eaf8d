"""`benchmark.py all`: each part in a separate process, most important first, resumable."""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.networks import one_config_per_model
from benchmarks.results import MACHINE_FILE, ROOT, combine
from benchmarks.tables import page_tables
from benchmarks.videos import find_videos, make_fixed_camera_video
from slowfast.cli.command import CommandParser, exit_status, integer
from slowfast.cli.model_table import published_configs
from slowfast.errors import UserError
from slowfast.utils.files import check_output_folder
from slowfast.utils.screen import Heartbeat, show, show_table

EXAMPLE = "python tools/benchmark.py all --out results --videos kinetics/val/abseiling"
USAGE = "%(prog)s all --out DIR [--videos PATH ...] [--camera-videos PATH ...] [--parts PART ...] [--fresh]"
DESCRIPTION = f"""\
Measure everything on this machine. Each part runs in a separate process, most important first, and writes
DIR/PART.json when it is done; DIR/{MACHINE_FILE} holds the results of all parts. The same command resumes: parts that
have a file are kept unless --fresh is given. A part that fails does not end the others (exit status 1).

Without --videos and --camera-videos, clips are rendered: the command needs nothing but the checkout.

  {EXAMPLE}
"""
VIDEOS, CAMERA_VIDEOS = "videos", "camera videos"
CAMERAS = (4, 8, 16)  # numbers of cameras
_CROP, _INT8 = ("EVENT.RESIZE", "crop"), ("EVENT.PRECISION", "int8")
RENDERED = "rendered_fixed_camera.mp4"


@dataclass(frozen=True)
class Part:
    """Part of the suite.

    Attributes:
        name: Name of its result file.
        words: Command line of tools/benchmark.py.
        repeats: Number of runs.
        videos: The given videos that it reads: VIDEOS, CAMERA_VIDEOS or "" for none.
        overrides: KEY VALUE pairs.
    """

    name: str
    words: tuple[str, ...]
    repeats: int = 5
    videos: str = ""
    overrides: tuple[str, ...] = ()

    def command(self, file: Path, repeats: int | None, videos: Sequence[Path]) -> list[str]:
        """Return the command line that writes the results to a file."""
        given = ["--videos", *map(str, videos)] if videos else []
        options = ["--json", str(file), "--repeats", str(repeats or self.repeats), *given]
        return [sys.executable, str(ROOT / "tools" / "benchmark.py"), *self.words, *options, *self.overrides]


@functools.cache
def all_parts() -> list[Part]:
    """Return the parts, most important first."""
    networks = one_config_per_model(published_configs())
    return [
        Part("event_driven", ("event_driven",), 8, CAMERA_VIDEOS, _CROP),
        Part("load", ("load",), 5, VIDEOS),
        Part("test", ("test",), 5, VIDEOS),
        Part("load-1080p", ("load_1080p",), 5, VIDEOS),
        Part("network", ("network",), 5),
        *(
            Part(f"cameras-{n}", ("cameras",), 3, CAMERA_VIDEOS, (*_CROP, "EVENT.STREAMS", str(n), *_INT8))
            for n in CAMERAS
        ),
        Part("events", ("events",)),
        Part("event_readers", ("event_readers",)),
        Part("scale", ("scale",), 3, VIDEOS),
        *(Part(f"networks-{name}", ("networks", "--only", name), 3) for name in networks),
    ]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line after `all`; UserError for an invalid one."""
    parser = CommandParser("benchmark.py", DESCRIPTION, USAGE, EXAMPLE, imports=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--videos", type=Path, nargs="+", default=[], metavar="PATH", help="videos of load and test")
    parser.add_argument(
        "--camera-videos",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="videos of event_driven, whose first one the cameras send; best from fixed cameras",
    )
    parser.add_argument("--parts", nargs="+", default=[], metavar="PART", help="only these, such as load networks")
    parser.add_argument("--name", default="", help="name of the machine in tables (default: that of the CPU)")
    parser.add_argument("--repeats", type=integer(1, 10_000), metavar="N", help="number of runs of every part")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    return parser.parse(arguments)


def main(arguments: Sequence[str]) -> int:
    """Measure all parts and return the exit status: 0 done, 1 if a part failed, 2 after a user error."""
    return exit_status(lambda: _run(parse(arguments)), interrupted="Interrupted. Run the same command to resume")


def choose_parts(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the parts with a name or the first word of a name (`networks`); all of them without names.

    Raises:
        UserError: If a name is unknown.
    """
    known = {name for part in parts for name in (part.name, part.name.partition("-")[0])}
    for name in names:
        if name not in known:
            raise UserError(f"--parts {name}: no such part. Choices: {', '.join(dict.fromkeys(map(_kind, parts)))}")
    return [part for part in parts if not names or {part.name, _kind(part)} & set(names)]


def _kind(part: Part) -> str:
    return part.name.partition("-")[0]


def _run(chosen: argparse.Namespace) -> int:
    parts = all_parts()
    wanted = choose_parts(parts, chosen.parts)
    check_output_folder(chosen.out, "--out")
    chosen.out.mkdir(parents=True, exist_ok=True)
    videos = {
        "": [],
        VIDEOS: find_videos(chosen.videos) if chosen.videos else [],
        CAMERA_VIDEOS: find_videos(chosen.camera_videos) if chosen.camera_videos else [],
    }
    failed = []
    Heartbeat.end()  # each part has its own
    for part in wanted:
        if part.videos == CAMERA_VIDEOS and not videos[CAMERA_VIDEOS]:
            videos[CAMERA_VIDEOS] = [_rendered(chosen.out)]
        if not _measure(part, chosen, videos[part.videos]):
            failed.append(part.name)
        machine = combine(chosen.out, chosen.name, [one.name for one in parts])
    if machine is not None:
        show_table("\n" + "\n\n".join(page_tables([machine]).values()))
        show(f"Wrote {chosen.out / MACHINE_FILE}")
    if failed:
        show(f"failed: {', '.join(failed)}. The reasons are above; the same command measures them again", error=True)
    return int(bool(failed))


def _measure(part: Part, chosen: argparse.Namespace, videos: Sequence[Path]) -> bool:
    """Run a part that has no results yet; return whether it has results now."""
    file: Path = chosen.out / f"{part.name}.json"
    if file.exists() and not chosen.fresh:
        show(f"{part.name}: already measured, kept")
        return True
    show(f"{part.name} ...")
    start = time.monotonic()
    status = subprocess.run(part.command(file, chosen.repeats, videos)).returncode
    show(f"{part.name}: {'FAILED' if status else 'done'} after {time.monotonic() - start:.0f} s")
    return not status


def _rendered(folder: Path) -> Path:
    """Return a rendered video of a fixed camera, which is kept in the folder of the results."""
    path = folder / RENDERED
    return path if path.exists() else make_fixed_camera_video(path)
