"""Console script `slowfast COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from slowfast import __version__
from slowfast.cli.command import CommandParser, exit_status
from slowfast.errors import UserError
from slowfast.utils.screen import show_table
from slowfast.utils.signals import ignore_signals, prepare_process
from slowfast.utils.text import did_you_mean, nearest_name, plain


@dataclass(frozen=True)
class Command:
    """Command of the console script.

    Args:
        summary: One line of help.
        module: Module in slowfast.cli, imported when the command is chosen.
        function: Function in the module that takes the arguments after the command and returns the exit status.
        saves_on_signals: Handle SIGTERM and SIGHUP from the start, also while libraries are imported.
    """

    summary: str
    module: str
    function: str = "main"
    saves_on_signals: bool = False

    def load(self) -> Callable[[Sequence[str]], int]:
        """Import the module and return the function."""
        function: Callable[[Sequence[str]], int] = getattr(import_module(f"slowfast.cli.{self.module}"), self.function)
        return function


COMMANDS = {
    "train": Command("Train a model", "train", "train", saves_on_signals=True),
    "test": Command("Test a trained model", "train", "test", saves_on_signals=True),
    "run": Command("Train, test or run event-driven inference, as the config says", "train", "run", True),
    "torchrun": Command("Start the processes of a run on several machines", "torchrun"),
    "submit": Command("Submit a training or a test as a Slurm job", "submit"),
    "predict": Command("Classify videos, cameras and streams, images and event recordings", "predict", "predict"),
    "features": Command("Extract features", "predict", "features"),
    "grad-cam": Command("Draw Grad-CAM heat maps", "predict", "grad_cam"),
    "demo": Command("Serve a web page for trying out a model", "demo"),
    "export": Command("Export a model to ONNX, .pt2, safetensors or Triton", "export", "export"),
    "run-exported": Command("Classify videos and images with an exported ONNX or .pt2 file", "export", "run_exported"),
    "calibrate": Command("Find the threshold of event-driven inference", "calibrate"),
    "index": Command("Write index files and a config for a folder of class folders", "index"),
    "prepare": Command("Re-encode videos for fast training", "prepare", "prepare"),
    "shards": Command("Pack samples into tar files, for network storage", "prepare", "shards"),
    "extract-frames": Command("Extract the frames of videos as JPEG files", "prepare", "extract_frames"),
    "convert-dvs": Command("Convert recordings of event cameras to .npz files", "dvs", "convert"),
    "cluster-dvs": Command("Cluster the events of recordings by k-means", "dvs", "cluster"),
    "video-to-dvs": Command("Simulate an event camera on videos", "dvs", "simulate"),
    "events": Command("Inspect recordings of event cameras", "events"),
    "draw-dvs": Command("Draw a recording of an event camera as a video or a plot", "dvs", "draw"),
    "model-info": Command("List models: parameters, GMACs, accuracy, weights", "model_info"),
    "report": Command("Build report.html of a run from the files in its OUTPUT_DIR", "report"),
    "env": Command("Show the versions and the hardware in use", "env"),
}
DESCRIPTION = "Train, evaluate and deploy MLP-based video models.\n\ncommands:\n" + "\n".join(
    f"  {name:<16}{command.summary}" for name, command in COMMANDS.items()
)
EPILOG = "slowfast COMMAND --help explains a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Command line arguments; by default those of this process.

    Returns:
        The exit status: 0 done, 1 failure, 2 user error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        return exit_status(lambda: _without_command(words))
    command = COMMANDS[words[0]]
    owns_process = arguments is None and command.saves_on_signals
    if owns_process:
        prepare_process()  # before the slow imports
    status = command.load()(words[1:])
    if owns_process:
        ignore_signals()
    return status


def _without_command(words: Sequence[str]) -> None:
    """Handle --help and --version; raise UserError for anything else."""
    parser = CommandParser("slowfast", DESCRIPTION, "%(prog)s COMMAND [options]", imports=False)
    parser.epilog = EPILOG
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse(words)
    if chosen.version:
        show_table(f"slowfast {__version__}")
    elif chosen.rest:
        near = did_you_mean(nearest_name(chosen.rest[0], COMMANDS))
        raise UserError(f"unknown command {plain(chosen.rest[0])}.{near} slowfast --help lists the commands")
    else:
        raise UserError("no command given. slowfast --help lists the commands")
