"""The command line of `tools/predict.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.setup import parse_tool_line
from slowfast.config.node import ConfigNode
from slowfast.datasets.index.media import Wanted, find_media
from slowfast.engine.checkpoints import find_last
from slowfast.errors import UserError
from slowfast.inference.annotate import annotate_media
from slowfast.inference.output import LIST, TABLE, predictions_table, write_files
from slowfast.inference.predictor import Prediction, Predictor
from slowfast.utils.heartbeat import phase
from slowfast.utils.logging import get_logger, messages_on_screen
from slowfast.utils.progress import Progress
from slowfast.utils.screen import show, show_table
from slowfast.visualization.tables import files_table

EXAMPLE = "python tools/predict.py --cfg configs/K400/K400_MLP_S16x4.yaml clip.mp4 TEST.CHECKPOINT_FILE_PATH w.pyth"
DESCRIPTION = f"""\
The five best classes of any video, image, folder of extracted frames, event recording (.npz, .npy), or folder of
those, with the weights of TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR. No index is needed;
views, transforms and ensemble are those of a test.

  {EXAMPLE}

Writes {TABLE} and {LIST} to OUTPUT_DIR. What cannot be read is listed with the reason; the exit status is 0 when
something was read. Class names come from DATA.PATH_TO_DATA_DIR. What follows the files are KEY VALUE pairs.
"""
USAGE = "%(prog)s --cfg FILE [--annotate] FILE_OR_FOLDER [...] [KEY VALUE ...]"
ANNOTATE = "--annotate"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """The command line's values and the config. Raises UserError."""
    parser = CommandParser("predict.py", DESCRIPTION, USAGE, EXAMPLE)
    parser.add_argument("media", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help="what to look at")
    parser.add_argument(
        ANNOTATE,
        action="store_true",
        help="also write each video or event recording with its classes drawn on it, as .mp4",
    )
    return parse_tool_line(parser, arguments, {ANNOTATE})


def main(arguments: Sequence[str]) -> int:
    """Predict; the exit status: 0 something was read, 2 nothing was, or the user's mistake."""
    with messages_on_screen():
        return exit_status(lambda: _predict(*parse(arguments)))


def _predict(chosen: argparse.Namespace, cfg: ConfigNode) -> None:
    wanted = Wanted.from_config(cfg)
    if chosen.annotate and wanted.images:
        raise UserError(f"{ANNOTATE} is for videos and event recordings; {cfg.MODEL.MODEL_NAME} takes images here")
    with phase("building the network and loading its weights"):
        found, predictor = find_media(chosen.media, wanted), Predictor.from_config(cfg)
    progress = Progress("predict", len(found.records), "files", shown=True, every=cfg.LOG_PERIOD)
    try:
        predictions = predictor.predict_found(found, progress)
    finally:
        progress.close()
    output = Path(cfg.OUTPUT_DIR)
    files = write_files(predictions, _about(cfg), output)  # first, whatever happens to the screen
    for failure in found.refused:
        get_logger().warning(f"{failure.name} cannot be read: {failure.reason}")
    show_table(predictions_table(predictions))
    if chosen.annotate:
        with phase("annotating videos"):
            files["videos with their classes"] = annotate_media(cfg, predictions, output / "annotated")
    show(_summary(predictions, found.others))
    show_table(files_table(files))


def _about(cfg: ConfigNode) -> dict[str, object]:
    """What predictions.json says of how it was made."""
    test = cfg.TEST
    weights = test.CHECKPOINT_FILE_PATH or find_last(cfg.OUTPUT_DIR) or "random"
    views, crops = test.NUM_ENSEMBLE_VIEWS, test.NUM_SPATIAL_CROPS
    return {"model": cfg.MODEL.MODEL_NAME, "weights": str(weights), "views": views, "crops": crops}


def _summary(predictions: Sequence[Prediction], others: int) -> str:
    failed = sum(prediction.scores is None for prediction in predictions)
    parts = [f"{len(predictions) - failed} read"]
    if failed:
        parts.append(f"{failed} not, for the reasons above and in {TABLE}")
    if others:
        parts.append(f"{others} other files in the folders left out")
    return ", ".join(parts)
