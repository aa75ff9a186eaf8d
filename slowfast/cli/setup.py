"""Commands with a config: command line, loading and validation of the config, and the main function of a run.

PyTorch is imported only after the command line is parsed and the config merged, so that typos are reported immediately.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast.cli.command import CommandParser, exit_status, integer
from slowfast.cli.validate import check_batch_size, check_settings
from slowfast.config.defaults import merge_config
from slowfast.config.node import ConfigNode
from slowfast.config.rules import MAX_WORKERS
from slowfast.errors import ConfigError, UserError
from slowfast.utils.imports import import_user_modules
from slowfast.utils.launch import is_first_of_node, is_main_process, started_by_launcher, world_size
from slowfast.utils.logging import get_logger, start_logging, stop_logging
from slowfast.utils.ray_cluster import ENGINES
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.utils.text import plain

Run = Callable[..., None]


def load_config(
    cfg_file: str | Path, overrides: Sequence[Any] = (), world_size: int = 1, modules: Sequence[str] = ()
) -> ConfigNode:
    """Return the frozen config of a run: defaults, file (after its `_BASE_`), overrides and the settings they imply.

    Args:
        cfg_file: A YAML file, or the name of a shipped config.
        overrides: KEY VALUE pairs.
        world_size: Number of processes that share a training batch.
        modules: Modules that register models and datasets or add config sections; they are imported first.

    Raises:
        ConfigError: For any error in the config.
        UserError: If a module cannot be imported.
    """
    import_user_modules(modules)
    cfg = merge_config(cfg_file, overrides)
    check_settings(cfg, world_size)
    from slowfast.cli.validate_components import validate_components

    validate_components(cfg, world_size)
    cfg.freeze()
    return cfg


_WEIGHTS = "TEST.CHECKPOINT_FILE_PATH"
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*(=.*)?", re.DOTALL)


def split_overrides(arguments: Sequence[str], flags: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Split a command line into options and files, and config overrides.

    Overrides start at the first word that looks like a config key and is neither the name of an existing file nor the
    value of an option.

    Args:
        arguments: Words of the command line.
        flags: Options that take no value.
    """
    words = list(arguments)
    for place, word in enumerate(words):
        option = words[place - 1] if place and words[place - 1].startswith("--") else ""
        is_value = bool(option) and option not in flags and "=" not in option
        if _KEY.fullmatch(word) and not is_value and not os.path.exists(word):
            return words[:place], words[place:]
    return words, []


def add_cfg(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add --cfg.

    Args:
        parser: Parser of the command.
        options: Additional arguments of `add_argument`.
    """
    text = "YAML file, or name of a shipped config such as K400/K400_MLP_S16x4"
    parser.add_argument("--cfg", metavar="FILE", required=True, help=text, **options)


def parse_with_config(parser: CommandParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse the command line of a command that applies a trained model.

    Args:
        parser: Parser with the options of the command; --cfg and --weights are added.
        arguments: Words of the command line; config overrides follow the options and files.

    Returns:
        The options, and the frozen config for evaluating a model.

    Raises:
        UserError: For an invalid command line or config.
    """
    add_cfg(parser)
    _add_weights(parser)
    words, overrides = split_overrides(arguments, parser.flags())
    chosen = parser.parse(words)
    if world_size() > 1:
        raise UserError(f"{parser.prog} runs in one process. Start it without torchrun")
    overrides = [*_weights_override(parser, chosen.weights, overrides), *overrides]
    if getattr(chosen, "num_workers", None) is not None:
        overrides = ["DATA_LOADER.NUM_WORKERS", str(chosen.num_workers), *overrides]
    if getattr(chosen, "engine", None) is not None:
        overrides = ["ENGINE", chosen.engine, *overrides]
    return chosen, load_for_evaluation(chosen.cfg, overrides, chosen.modules)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="PATH", help=f"checkpoint, alias of {_WEIGHTS} (default: the last one in OUTPUT_DIR)"
    )


def _weights_override(parser: CommandParser, weights: str | None, overrides: Sequence[str]) -> list[str]:
    """Return --weights as an override; end with an error if the overrides name a checkpoint, too."""
    if weights is None:
        return []
    if any(word.partition("=")[0] == _WEIGHTS for word in overrides):
        parser.error(f"--weights and {_WEIGHTS} both name a checkpoint. Give one of them")
    return [_WEIGHTS, weights]


def add_loader_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers for a command that loads samples."""
    parser.add_argument(
        "--workers",
        dest="num_workers",
        type=integer(0, MAX_WORKERS),
        metavar="N",
        help="worker processes that load samples; 0 loads in the main process (default: DATA_LOADER.NUM_WORKERS)",
    )
    engine = "local, or ray: the nodes of a Ray cluster (default: ENGINE of the config)"
    parser.add_argument("--engine", choices=ENGINES, help=engine)


def load_for_evaluation(cfg_file: str | Path, overrides: Sequence[Any] = (), modules: Sequence[str] = ()) -> ConfigNode:
    """Return the frozen config for evaluating a trained model, like `load_config` without checks of training keys."""
    settings = ["TRAIN.ENABLE", False, "TEST.ENABLE", True, "EVENT.ENABLE", False, "MODEL.ACT_CHECKPOINT", False]
    settings += ["TEST.COMPILE", False, "TRACKING.BACKENDS", []]
    return load_config(cfg_file, [*overrides, *settings], modules=modules)


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
            _add_weights(parser)
        parser.add_argument("--out", metavar="FOLDER", help="output folder (default: OUTPUT_DIR)")
        add_loader_workers(parser)
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
    overrides = list(command.overrides)
    if command.tests_only:
        overrides += _weights_override(parser, chosen.weights, chosen.overrides)
    if chosen.out is not None:
        overrides += ["OUTPUT_DIR", chosen.out]
    if chosen.num_workers is not None:
        overrides += ["DATA_LOADER.NUM_WORKERS", chosen.num_workers]
    if chosen.engine is not None:
        overrides += ["ENGINE", chosen.engine]
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
