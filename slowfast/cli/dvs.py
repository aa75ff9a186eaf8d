"""Commands for recordings of event cameras: `slowfast convert-dvs`, `cluster-dvs`, `video-to-dvs` and `draw-dvs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast.cli.command import (
    RESUMABLE,
    CommandParser,
    add_engine,
    add_source_and_out,
    add_workers,
    exit_status,
    integer,
    number,
    show_conversion,
)
from slowfast.errors import DataError, UserError
from slowfast.utils.files import check_output_file
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.screen import show

# ------------------------------------------------------------------ slowfast convert-dvs
CONVERT_EXAMPLE = "slowfast convert-dvs asldvs_mat --out asldvs"
CONVERT_USAGE = """%(prog)s SOURCE --out FOLDER [--window-time US | --window-events N] [--window-step N]
           [--hot-pixels] [--background US] [--refractory US] [--crop X Y WIDTH HEIGHT] [--downsample N]
           [--time-unit SECONDS] [--workers N]"""
CONVERT_DESCRIPTION = f"""\
Convert all event recordings of a folder and its subfolders to .npz files with x, y, t (microseconds) and p: AEDAT 1 to
4, Prophesee .raw and .dat, HDF5 (Metavision, DSEC, MVSEC, M3ED, SHD), .mat (ASL-DVS, ST-MNIST), N-MNIST .bin, Event
Stream .es, .npy and .npz, .csv and .txt, and ROS bags; docs/EVENT_CAMERAS.md describes them. HDF5, .mat and compressed
.aedat4 files need the events extra, bags the ros extra. --import adds formats of your own.

  {CONVERT_EXAMPLE}
  slowfast convert-dvs DvsGesture --out dvsgesture
  slowfast convert-dvs my_recordings --out my_events --window-time 500000
  slowfast convert-dvs my_recordings --out my_events --hot-pixels --background 5000 --downsample 2

An .aedat file of DVS Gesture is cut by its _labels.csv into class folders of train/ and test/, which follow
trials_to_train.txt and trials_to_test.txt. Filters are applied before recordings are cut, in the order in which they
are listed below, and the events that each one removed are counted. An incomplete window at the end of a recording is
dropped. A truncated file is converted up to its last valid event and listed. The source is not changed. Run an
interrupted command again to continue: complete recordings are kept. Write other settings to another folder. Files that
are not read are named with the reason.
"""


def parse_convert(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast convert-dvs", CONVERT_DESCRIPTION, CONVERT_USAGE, CONVERT_EXAMPLE)
    add_source_and_out(parser, "folder of recordings", "output folder, outside of SOURCE")
    window = parser.add_mutually_exclusive_group()
    time, events = "cut into windows of this many microseconds", "cut into windows of N events"
    window.add_argument("--window-time", type=number(1, 1e15), default=0.0, metavar="US", help=time)
    window.add_argument("--window-events", type=integer(1, 10**12), default=0, metavar="N", help=events)
    step = "from one window to the next, in microseconds or events (default: the size of a window)"
    parser.add_argument("--window-step", type=number(1, 1e15), default=0.0, metavar="N", help=step)
    _add_filters(parser)
    unit = "unit of the times in seconds, for formats that do not state it (default: by the values)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=0.0, metavar="SECONDS", help=unit)
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def _add_filters(parser: CommandParser) -> None:
    """Add the options of FilterSettings, in the order in which the filters are applied."""
    microseconds = integer(1, 10**9)
    hot = "remove the events of hot pixels, as slowfast events info counts them"
    parser.add_argument("--hot-pixels", action="store_true", help=hot)
    background = "remove events without another one in the 8 neighboring pixels in the N microseconds before"
    parser.add_argument("--background", type=microseconds, default=0, metavar="US", help=background)
    refractory = "remove events of a pixel less than N microseconds after its last one that was kept"
    parser.add_argument("--refractory", type=microseconds, default=0, metavar="US", help=refractory)
    pixels, box = integer(0, 2**16), ("X", "Y", "WIDTH", "HEIGHT")
    crop = "keep the pixels of a box, given by its upper left corner and its size"
    parser.add_argument("--crop", type=pixels, nargs=4, default=None, metavar=box, help=crop)
    downsample = "divide coordinates by N, rounding down; all events are kept"
    parser.add_argument("--downsample", type=integer(1, 2**10), default=1, metavar="N", help=downsample)


def convert(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _convert(parse_convert(arguments)), interrupted=RESUMABLE)


def _convert(chosen: argparse.Namespace) -> None:
    from slowfast.datasets.dvs.filters import Box
    from slowfast.prepare.convert_dvs import EVENTS, CutSettings, convert_recordings
    from slowfast.prepare.filter_events import FILTERS, FilterSettings
    from slowfast.utils.cpu import usable_cores

    box = None if chosen.crop is None else Box(*chosen.crop)
    filters = FilterSettings(chosen.hot_pixels, chosen.background, chosen.refractory, box, chosen.downsample)
    settings = CutSettings(chosen.window_time, chosen.window_events, chosen.time_unit, chosen.window_step, filters)
    result = convert_recordings(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    for note, count in sorted(result.notes.items()):
        show(f"{note}: in {count} of {result.done} recordings")
    events = result.counts.get(EVENTS, 0)
    for name, count in result.counts.items():
        if name in FILTERS or (count and name != EVENTS):
            show(f"removed by {name}: {count} of {events} events ({100 * count / events:.1f} %)")
    show_conversion(result, "recordings converted", chosen.out)


# ------------------------------------------------------------------ slowfast cluster-dvs
CLUSTER_EXAMPLE = "slowfast cluster-dvs dvslip --out dvslip_clusters --sensor 128 128"
CLUSTER_USAGE = "%(prog)s SOURCE --out FOLDER --sensor HEIGHT WIDTH [--clusters N] [--time-unit SECONDS] [--workers N]"
CLUSTER_DESCRIPTION = f"""\
Replace the events of all recordings of a folder and its subfolders by the centers of k-means clusters in x, y and time,
computed separately for each polarity, with the number of events per cluster, as Event2Vec v3 does for DVS-Lip. All
formats that `slowfast convert-dvs` reads are supported. Recordings with no more events than clusters are kept as they
are. Train on the output with DVS.CLUSTERS True. Needs the events extra.

  {CLUSTER_EXAMPLE}

The source is not changed. Run an interrupted command again to continue: complete recordings are kept.
"""


def parse_cluster(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast cluster-dvs", CLUSTER_DESCRIPTION, CLUSTER_USAGE, CLUSTER_EXAMPLE)
    add_source_and_out(parser, "folder of recordings", "output folder, outside of SOURCE")
    side = integer(2, 2**14)
    sensor, count, unit = "size of the sensor in pixels", "clusters per recording", "duration of a timestamp tick"
    parser.add_argument("--sensor", type=side, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help=sensor)
    parser.add_argument(
        "--clusters", type=integer(2, 10**6), default=1024, metavar="N", help=f"{count} (default: 1024)"
    )
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, metavar="SECONDS", help=f"{unit} (1e-6)")
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def cluster(arguments: Sequence[str]) -> int:
    """Cluster and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _cluster(parse_cluster(arguments)), interrupted=RESUMABLE)


def _cluster(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.cluster_dvs import cluster_recordings
    from slowfast.utils.cpu import usable_cores

    sensor = (chosen.sensor[0], chosen.sensor[1])
    workers = chosen.workers or usable_cores()
    result = cluster_recordings(
        chosen.source, chosen.out, sensor, chosen.clusters, chosen.time_unit, workers, chosen.engine
    )
    for note, count in sorted(result.notes.items()):
        show(f"{note}: in {count} of {result.done} recordings")
    show_conversion(result, "recordings clustered", chosen.out)


# ------------------------------------------------------------------ slowfast video-to-dvs
SIMULATE_EXAMPLE = "slowfast video-to-dvs my_videos --out my_events --height 128 --width 128"
SIMULATE_USAGE = "%(prog)s SOURCE --out FOLDER [--height H] [--width W] [options]"
SIMULATE_DESCRIPTION = f"""\
Simulate an event camera on all videos of a folder and its subfolders: a/b.mp4 becomes a/b.npz with x, y, t
(microseconds) and p. A pixel fires an event when its log intensity has changed by a threshold. The source is not
changed.

  {SIMULATE_EXAMPLE}
  slowfast train --cfg Demo/EVENTS_EVENT2VEC DATA.PATH_TO_DATA_DIR my_events DVS.SENSOR_SIZE [128,128] ...

where my_videos holds one folder per class, or train/ and test/ with one folder per class. Run an interrupted command
again to continue: complete files are kept. Write other settings to another folder.
"""
# Option: default, range, help.
SIMULATOR_OPTIONS: dict[str, tuple[int | float, tuple[float, float], str]] = {
    "height": (128, (16, 4320), "sensor height in pixels"),
    "width": (128, (16, 7680), "sensor width in pixels"),
    "threshold_on": (0.2, (0.01, 5), "increase of log intensity that fires an ON event"),
    "threshold_off": (0.2, (0.01, 5), "decrease of log intensity that fires an OFF event"),
    "refractory": (0.0, (0, 1e6), "refractory period of a pixel in microseconds, for noise, too"),
    "noise": (0.0, (0, 1000), "noise events per pixel and second, whatever the intensity"),
    "threshold_sigma": (
        0.0,
        (0, 5),
        "standard deviation of the thresholds over the pixels; 0.05 in v2e's noisy setting",
    ),
    "leak": (0.0, (0, 1000), "ON events per pixel and second by leakage; 0.1 in v2e's noisy setting"),
    "shot": (
        0.0,
        (0, 1000),
        "shot noise per pixel and second in the dark, falling to a quarter at full intensity; 5 in v2e",
    ),
    "hot_pixels": (0.0, (0, 1), "fraction of hot pixels, from 0 to 1"),
    "hot_rate": (100.0, (0, 10_000), "ON events of a hot pixel per second"),
    "cutoff": (
        0.0,
        (0, 1e6),
        "cutoff frequency of the pixels in Hz, lower in the dark; 30 in v2e's noisy setting, 0 for none",
    ),
    "leak_jitter": (0.0, (0, 1), "relative standard deviation of the leakage from frame to frame; 0.1 in v2e"),
    "interpolate": (4, (1, 64), "steps between two frames, interpolated by optical flow; 1 for none"),
    "seed": (0, (0, 2**63 - 1), "seed of the noise and of the pixels"),
}


def parse_simulate(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast video-to-dvs", SIMULATE_DESCRIPTION, SIMULATE_USAGE, SIMULATE_EXAMPLE)
    add_source_and_out(parser, "folder of videos", "output folder, outside of SOURCE")
    for name, (default, (low, high), text) in SIMULATOR_OPTIONS.items():
        kind = integer(int(low), int(high)) if isinstance(default, int) else number(low, high)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, metavar="N", help=f"{text} (default %(default)s)")
    add_workers(parser)
    add_engine(parser)
    return parser.parse_and_import(arguments)


def simulate(arguments: Sequence[str]) -> int:
    """Convert and return the exit status: 0 done, failures listed; 2 after a user error."""
    with messages_on_screen():
        return exit_status(lambda: _simulate(parse_simulate(arguments)), interrupted=RESUMABLE)


def _simulate(chosen: argparse.Namespace) -> None:
    from slowfast.prepare.video_to_dvs import EventSettings, videos_to_events
    from slowfast.utils.cpu import usable_cores

    settings = EventSettings(**{name: getattr(chosen, name) for name in SIMULATOR_OPTIONS})
    result = videos_to_events(chosen.source, chosen.out, settings, chosen.workers or usable_cores(), chosen.engine)
    show_conversion(result, "videos converted", chosen.out)


# ------------------------------------------------------------------ slowfast draw-dvs
DRAW_EXAMPLE = "slowfast draw-dvs recording.npz --out events.mp4 --slower 4"
DRAW_USAGE = "%(prog)s RECORDING --out FILE [--height H] [--width W] [--fps N] [--slower FACTOR] [--time-unit SECONDS]"
DRAW_DESCRIPTION = f"""\
Draw an event recording, of any format that `slowfast convert-dvs` reads, as a video of accumulated events, or as points
in x, y and time.

  {DRAW_EXAMPLE}
  slowfast draw-dvs recording.npz --out points.png

ON events are red, OFF events are blue.
"""
MAX_SIDE = 10_000  # largest sensor side in pixels


def parse_draw(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Raises UserError if it is invalid."""
    parser = CommandParser("slowfast draw-dvs", DRAW_DESCRIPTION, DRAW_USAGE, DRAW_EXAMPLE)
    add_source_and_out(parser, "event recording", ".gif, .mp4 or .png file (needs the plots extra)", name="recording")
    for name in ("height", "width"):
        text = f"sensor {name} in pixels (default: from the file, or the largest coordinate)"
        parser.add_argument(f"--{name}", type=integer(1, MAX_SIDE), metavar=name[0].upper(), help=text)
    parser.add_argument(
        "--fps", type=integer(1, 1000), default=20, metavar="N", help="frame rate of a video (default %(default)s)"
    )
    parser.add_argument(
        "--slower", type=number(1e-6, 1e9), default=1.0, metavar="FACTOR", help="slow-down factor (default %(default)s)"
    )
    unit = "unit of t in seconds, for formats that do not state it (default %(default)s)"
    parser.add_argument("--time-unit", type=number(1e-12, 3600), default=1e-6, metavar="SECONDS", help=unit)
    stream = "stream of a recording with several, by its name (slowfast events info lists them)"
    parser.add_argument("--stream", default="", metavar="NAME", help=stream)
    return parser.parse_and_import(arguments)


def draw(arguments: Sequence[str]) -> int:
    """Draw and return the exit status: 0 done, 2 after a user error."""
    return exit_status(lambda: _draw(parse_draw(arguments)))


def _draw(chosen: argparse.Namespace) -> None:
    check_output_file(chosen.out, "--out", (".gif", ".mp4", ".png"))
    from slowfast.datasets.decode import DecodeError
    from slowfast.datasets.dvs.recording import Recording, clean_events
    from slowfast.visualization.event_plots import draw_events

    try:
        recording = Recording(chosen.recording, chosen.stream)
        raw = recording.take(slice(None))
        stated = recording.sensor or (0, 0)
        height = chosen.height or stated[0] or _extent(float(raw["y"].max(initial=0)), "height")
        width = chosen.width or stated[1] or _extent(float(raw["x"].max(initial=0)), "width")
        events, repairs = clean_events(raw, (height, width), recording.time_unit(chosen.time_unit))
    except DecodeError as error:
        raise DataError(f"{chosen.recording}: {error}") from error
    if remarks := [*recording.notes, *recording.damage, *repairs]:
        show(f"{chosen.recording}: {', '.join(remarks)}")
    draw_events(events, (height, width), chosen.out, chosen.fps, chosen.slower)
    show(f"{len(events)} events of {1e-6 * (events.t[-1] - events.t[0]):.3f} s drawn to {chosen.out}")


def _extent(largest: float, option: str) -> int:
    """Return the sensor side that holds the largest coordinate; UserError if no sensor has it."""
    if not largest < MAX_SIDE:  # nor NaN
        raise UserError(f"RECORDING: the coordinate {largest:g} is outside any known sensor. Give --{option}")
    return int(largest) + 1
