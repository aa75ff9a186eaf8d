"""Commands that train and test: `slowfast train`, `slowfast test`, `slowfast run` and tools/run_net.py.

PyTorch is imported only after the command line is parsed and the config merged, so that typos are reported immediately.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slowfast.cli.command import CommandParser, exit_status, integer
from slowfast.cli.setup import (
    add_cfg,
    add_evaluation_engine,
    add_loader_workers,
    add_weights,
    load_config,
    option_overrides,
)
from slowfast.cli.validate import check_batch_size
from slowfast.config.node import ConfigNode
from slowfast.config.rules import MAX_WORKERS
from slowfast.errors import ConfigError, UserError
from slowfast.utils.launch import is_first_of_node, is_main_process, started_by_launcher, world_size
from slowfast.utils.logging import get_logger, start_logging, stop_logging
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.utils.text import plain

Run = Callable[..., None]


@dataclass(frozen=True)
class RunCommand:
    """Command that trains or tests.

    Args:
        prog: Name of the command.
        purpose: First paragraph of its help.
        examples: Valid command lines; the first one is shown after an error.
        overrides: Config overrides implied by the command, applied before those of the command line.
        tests_only: Whether it never trains, so that --weights is unambiguous.
    """

    prog: str
    purpose: str
    examples: Sequence[str]
    overrides: Sequence[Any] = ()
    tests_only: bool = False

    def parser(self) -> CommandParser:
        """Return the command line parser."""
        description = "\n".join([self.purpose, "", *(f"  {line}" for line in self.examples), "", _ABOUT_OVERRIDES])
        usage = "%(prog)s --cfg FILE [--out FOLDER] [--workers N] [--processes N] [--engine ENGINE] [--import MODULE] "
        usage += "[KEY VALUE ...]"
        if self.tests_only:
            usage = usage.replace("[--out", "[--weights PATH] [--out")
        parser = CommandParser(self.prog, description, usage, self.examples[0])
        add_cfg(parser, action="append")
        if self.tests_only:
            add_weights(parser)
        parser.add_argument("--out", metavar="FOLDER", help="output folder (default: OUTPUT_DIR)")
        add_loader_workers(parser)
        add_evaluation_engine(parser)
        processes = "processes on this machine, which share each batch (default: one per GPU)"
        parser.add_argument("--processes", type=integer(1, MAX_WORKERS), default=0, metavar="N", help=processes)
        parser.add_argument("overrides", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="config overrides")
        return parser


_ABOUT_OVERRIDES = """\
--cfg takes one file or the name of one shipped config; all that follows the options are overrides of its keys: KEY
VALUE pairs. Lists are written without spaces: MORPH.SEGMENT_DIM [14,28,28,49].
All keys are described in docs/CONFIG.md.
"""
RUN_NET = RunCommand(
    "run_net.py",
    "Train (if TRAIN.ENABLE), then test (if TEST.ENABLE), or run event-driven inference on videos (if EVENT.ENABLE).",
    (
        "python tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4",
        "torchrun --nproc_per_node=2 tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml NUM_GPUS 2",
        "python tools/run_net.py --cfg configs/ImageNet/EVMLP.yaml EVENT.ENABLE True DATA.PATH_PREFIX folder_of_videos",
    ),
)
TRAIN = RunCommand(
    "slowfast train",
    "Train a model, then test it if TEST.ENABLE. A run that was stopped is resumed from its last checkpoint.",
    (
        "slowfast train --cfg K400/K400_MLP_S16x4 --out output/k400 DATA.PATH_TO_DATA_DIR kinetics",
        "torchrun --nproc_per_node=2 -m slowfast train --cfg my_config.yaml NUM_GPUS 2",
        "slowfast train --cfg my_config.yaml --import my_network.py",
    ),
    ("TRAIN.ENABLE", True),
)
TEST = RunCommand(
    "slowfast test",
    "Test a trained model on the test split: TEST.CHECKPOINT_FILE_PATH, else the checkpoint of the output folder.",
    (
        "slowfast test --cfg K400/K400_MLP_S16x4 --weights weights.pyth DATA.PATH_TO_DATA_DIR kinetics",
        "slowfast test --cfg output/k400/config.yaml TEST.NUM_ENSEMBLE_VIEWS 4",
    ),
    ("TRAIN.ENABLE", False, "TEST.ENABLE", True),
    tests_only=True,
)
RUN = RunCommand(
    "slowfast run",
    RUN_NET.purpose,
    (
        "slowfast run --cfg K400/K400_MLP_S16x4 TEST.NUM_ENSEMBLE_VIEWS 4",
        "slowfast run --cfg ImageNet/EVMLP EVENT.ENABLE True DATA.PATH_PREFIX folder_of_videos",
    ),
)


@dataclass(frozen=True)
class RunLine:
    """Parsed command line of a run.

    Attributes:
        cfg: Config file.
        overrides: Config overrides.
        modules: User modules.
        processes: Number of processes to start; 0 for one per GPU.
    """

    cfg: str
    overrides: list[Any]
    modules: list[str]
    processes: int = 0


def parse(arguments: Sequence[str], command: RunCommand = RUN_NET) -> RunLine:
    """Parse the command line of a run. Raises UserError if it is invalid."""
    parser = command.parser()
    chosen = parser.parse(arguments)
    files = chosen.cfg + [word for word in chosen.overrides[:1] if word.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise ConfigError(f"--cfg: {plain(files[1])} is a second file. Name one file, which may name another as _BASE_")
    overrides = [*command.overrides, *option_overrides(parser, chosen, chosen.overrides)]
    if chosen.out is not None:
        overrides += ["OUTPUT_DIR", chosen.out]
    if chosen.processes and os.environ.get("RANK") and not started_by_launcher():
        raise UserError("--processes starts processes, but torchrun has started some. Remove one of them")
    return RunLine(files[0], [*overrides, *chosen.overrides], chosen.modules, chosen.processes)


def load(line: RunLine) -> ConfigNode:
    """Load and validate the config of a command line for the number of processes that will run."""
    cfg = load_config(line.cfg, line.overrides, world_size(), line.modules)
    if not os.environ.get("RANK"):
        from slowfast.utils.distributed import usable_gpus

        check_batch_size(cfg, max(1, line.processes or usable_gpus(cfg.NUM_GPUS)))
    return cfg


def _import_run() -> Run:
    from slowfast.cli.run import run

    return run


def main(arguments: Sequence[str], run: Run | None = None, command: RunCommand = RUN_NET) -> int:
    """Load the config and run.

    Args:
        arguments: Words of the command line.
        run: Function to call with the config; by default `slowfast.cli.run.run`, imported when the config is loaded.
        command: Command to run.

    Returns:
        The exit status: 0 if done, also after a signal; 2 after a user error, reported on stderr; 1 after any other.
    """
    main_process, loaded = is_main_process(), list[tuple[ConfigNode, Run]]()

    def load_first() -> None:
        start_logging(0 if main_process else 1)
        if not main_process:
            logging.getLogger("slowfast.config").setLevel(logging.ERROR)  # rank 0 warns for all
        line = parse(arguments, command)
        cfg, do = load(line), run or _import_run()
        loaded.append((cfg, functools.partial(do, processes=line.processes) if line.processes else do))

    def load_and_run() -> None:
        with StopSignal() as stop:
            try:
                with stop.at_once():
                    load_first()
            except Stopped:
                get_logger().warning(nothing_to_save(stop.name))
                return
        cfg, do = loaded[0]
        do(cfg)

    try:
        # A user error in the config occurs in all processes of a node.
        return exit_status(load_and_run, quiet=lambda: not is_first_of_node() and not loaded, logged=True)
    finally:
        stop_logging()


def train(arguments: Sequence[str]) -> int:
    """Train and return the exit status."""
    return main(arguments, command=TRAIN)


def test(arguments: Sequence[str]) -> int:
    """Test and return the exit status."""
    return main(arguments, command=TEST)


def run(arguments: Sequence[str]) -> int:
    """Do what the config enables and return the exit status."""
    return main(arguments, command=RUN)
