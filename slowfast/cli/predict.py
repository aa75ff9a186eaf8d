"""Commands that apply a trained model: `slowfast predict`, `slowfast features` and `slowfast grad-cam`."""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import add_evaluation_engine, add_loader_workers, parse_with_config
from slowfast.config.node import ConfigNode
from slowfast.utils.files import check_output_folder
from slowfast.utils.logging import messages_on_screen
from slowfast.utils.text import quoted

# ------------------------------------------------------------------ slowfast predict
PREDICT_EXAMPLE = "slowfast predict --cfg K400/K400_MLP_S16x4 clip.mp4 --weights weights.pyth"
PREDICT_DESCRIPTION = f"""\
Classify videos, images, folders of extracted frames and event recordings, or folders of them. No index file is needed;
views, transforms and ensemble are the same as in testing. Clips of several files share a batch of TEST.BATCH_SIZE
clips.

  {PREDICT_EXAMPLE}

Long videos: --window classifies each window of a video as if it were cut out, and writes segments with start, end,
class and score. Each frame is decoded once. If the video continues where the last complete window ends, one more window
of full length ends with the video.

  slowfast predict --cfg K400/K400_MLP_S16x4 match.mp4 --window 4 --step 1 --merge --annotate --weights weights.pyth

Live video: a camera by its number, or the address of a stream (rtsp://, tcp://, ...). The latest window is classified
every --step, with its latency, until the stream ends or Ctrl-C. --live plays files as if they came from a camera.

  slowfast predict --cfg K400/K400_MLP_S16x4 0 --step 0.5 --weights weights.pyth

Writes predictions.json and predictions.csv, with the five best classes of each file; with windows, segments.json,
segments.csv and subtitles (.srt). Files that cannot be read are listed with the reason in failed.csv; the exit status
is 0 if at least one was read. Class names are read from DATA.PATH_TO_DATA_DIR. Config overrides, KEY VALUE pairs,
follow the files.
"""
PREDICT_USAGE = "%(prog)s --cfg FILE [--weights PATH] [options] FILE_FOLDER_OR_STREAM [...] [KEY VALUE ...]"
_LENGTH = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(s|sec|seconds?|clips?)?")
_LONGEST = 10**7  # length of a window in seconds or clips


@dataclass(frozen=True)
class ParsedLength:
    """Length on the command line: a number of seconds or of clips."""

    value: float
    clips: bool


def length(text: str) -> ParsedLength:
    """Convert the length of a window, such as 4, 4s or 2clips."""
    match = _LENGTH.fullmatch(text.strip().lower())
    value = float(match[1]) if match else 0.0
    if match is None or not 0 < value <= _LONGEST:
        raise ArgumentTypeError(
            f"{quoted(text)} is not a length above 0. Give seconds, such as 4, or clips, such as 2clips"
        )
    return ParsedLength(value, (match[2] or "").startswith("clip"))


def parse_predict(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast predict", PREDICT_DESCRIPTION, PREDICT_USAGE, PREDICT_EXAMPLE)
    parser.add_argument(
        "paths", nargs="+", metavar="FILE_FOLDER_OR_STREAM", help="videos, images, folders, camera or stream"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the results (default: OUTPUT_DIR)")
    parser.add_argument(
        "--annotate",
        action="store_true",
        help="also write each video or recording as .mp4 with its classes drawn on it",
    )
    windows = parser.add_argument_group("windows of long videos and live video")
    windows.add_argument(
        "--window",
        type=length,
        metavar="LENGTH",
        help="length of a window in seconds, such as 4, or clips, such as 2clips (default: 1clip, for live video and "
        "with --step or --merge)",
    )
    windows.add_argument(
        "--step",
        type=length,
        metavar="LENGTH",
        help="distance between the starts of two windows (default: the length of a window)",
    )
    windows.add_argument(
        "--merge",
        action="store_true",
        help="merge neighboring windows of the same class into a segment with their mean scores",
    )
    windows.add_argument("--live", action="store_true", help="play files in real time, as if from a camera")
    add_loader_workers(parser)
    add_evaluation_engine(parser)
    return parse_with_config(parser, arguments)


def predict(arguments: Sequence[str]) -> int:
    """Classify and return the exit status: 0 if a file was read, 2 after a user error or if none was."""
    with messages_on_screen():
        return exit_status(lambda: _predict(*parse_predict(arguments)))


def _predict(chosen: argparse.Namespace, cfg: ConfigNode) -> int:
    output = chosen.out or Path(cfg.OUTPUT_DIR)
    check_output_folder(output, "OUTPUT_DIR" if chosen.out is None else "--out")
    from slowfast.inference.live_sources import find_live
    from slowfast.inference.windows import ONE_CLIP, Length, WindowOptions

    window, step = (None if one is None else Length(one.value, one.clips) for one in (chosen.window, chosen.step))
    options = WindowOptions(window or ONE_CLIP, step, chosen.merge)
    live = find_live(chosen.paths, cfg.DATA.DECODING_THREADS, play=chosen.live)
    if live is not None:
        from slowfast.inference.live import live_to_files

        return live_to_files(cfg, live, output, options, annotate=chosen.annotate)
    paths = [Path(path) for path in chosen.paths]
    if window is not None or step is not None or chosen.merge:
        from slowfast.inference.segment_output import segments_to_files

        return segments_to_files(cfg, paths, output, options, annotate=chosen.annotate)
    from slowfast.inference.output import predict_to_files

    predict_to_files(cfg, paths, output, annotate=chosen.annotate)
    return 0


# ------------------------------------------------------------------ slowfast features
FEATURES_EXAMPLE = "slowfast features --cfg K400/K400_MLP_S16x4 --split train --out features.npz"
FEATURES_DESCRIPTION = f"""\
Extract the features that a trained model feeds to its head, for all samples of a split: one row per sample, the mean
over its TEST.NUM_ENSEMBLE_VIEWS x TEST.NUM_SPATIAL_CROPS views, or one row per view. Weights as in testing.

  {FEATURES_EXAMPLE}

Arrays of the .npz file (columns of the .parquet file): path, label and feature; with --views all also view and crop.
Samples that cannot be read have no row and are listed in a .csv file beside it. Config overrides, KEY VALUE pairs,
follow the options.
"""
FEATURES_USAGE = "%(prog)s --cfg FILE [--split test|val|train] [--out FILE] [--views mean|all] [KEY VALUE ...]"
SPLITS = ("test", "val", "train")
VIEWS = ("mean", "all")


def parse_features(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast features", FEATURES_DESCRIPTION, FEATURES_USAGE, FEATURES_EXAMPLE)
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="split of the dataset (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=".npz or .parquet file (default: OUTPUT_DIR/features_SPLIT.npz)"
    )
    parser.add_argument(
        "--views", choices=VIEWS, default=VIEWS[0], help="one row per sample, or per view (default %(default)s)"
    )
    add_loader_workers(parser)
    add_evaluation_engine(parser)
    return parse_with_config(parser, arguments)


def features(arguments: Sequence[str]) -> int:
    """Extract and return the exit status: 0 done, failures listed; 2 after a user error or if nothing was read."""
    with messages_on_screen():
        return exit_status(lambda: _extract(*parse_features(arguments)))


def _extract(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.features import extract_to_file

    out = chosen.out or Path(cfg.OUTPUT_DIR) / f"features_{chosen.split}.npz"
    extract_to_file(cfg, chosen.split, chosen.views, out)


# ------------------------------------------------------------------ slowfast grad-cam
GRAD_CAM_EXAMPLE = "slowfast grad-cam --cfg K400/K400_MLP_S16x4 clip.mp4 TEST.CHECKPOINT_FILE_PATH weights.pyth"
GRAD_CAM_DESCRIPTION = f"""\
Draw Grad-CAM heat maps (arXiv 1610.02391), one PNG per video, image or folder of frames: the frames of its center clip
with the heat map of the predicted class over them. Weights as in testing.

  {GRAD_CAM_EXAMPLE}
  slowfast grad-cam --cfg ImageNet/EAT_TI --list-layers

Config overrides, KEY VALUE pairs, follow the files.
"""
GRAD_CAM_USAGE = (
    "%(prog)s --cfg FILE [--layer NAME] [--class NAME] [--list-layers] FILE_OR_FOLDER [...] [KEY VALUE ...]"
)


def parse_grad_cam(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line and load the config. Raises UserError."""
    parser = CommandParser("slowfast grad-cam", GRAD_CAM_DESCRIPTION, GRAD_CAM_USAGE, GRAD_CAM_EXAMPLE)
    parser.add_argument("paths", type=Path, nargs="*", metavar="FILE_OR_FOLDER", help="videos, images or folders")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the PNGs (default: OUTPUT_DIR/grad_cam)")
    parser.add_argument(
        "--layer", default="", metavar="NAME", help="layer (default: the last one with a sufficient resolution)"
    )
    parser.add_argument(
        "--class", dest="class_name", default="", metavar="NAME", help="class name or number (default: the prediction)"
    )
    parser.add_argument("--list-layers", action="store_true", help="print the names of all layers and exit")
    add_loader_workers(parser)
    chosen, cfg = parse_with_config(parser, arguments)
    if not chosen.paths and not chosen.list_layers:
        parser.error("the following arguments are required: FILE_OR_FOLDER")
    return chosen, cfg


def grad_cam(arguments: Sequence[str]) -> int:
    """Draw and return the exit status: 0 done; 2 after a user error or if nothing could be read."""
    with messages_on_screen():
        return exit_status(lambda: _draw(*parse_grad_cam(arguments)))


def _draw(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    from slowfast.inference.heat_maps import HeatMaps

    maps = HeatMaps.from_config(cfg, chosen.layer)
    if chosen.list_layers:
        maps.show_layers()
    else:
        maps.draw_files(chosen.paths, chosen.class_name, chosen.out or Path(cfg.OUTPUT_DIR) / "grad_cam")
