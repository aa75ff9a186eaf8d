"""Commands that need a config: loading, validation and the main function of a run."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from slowfast.cli.command import CommandParser, exit_status
from slowfast.cli.validate import check_batch_size, validate
from slowfast.config.merge import merge_config
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError, UserError
from slowfast.utils.distributed import usable_gpus
from slowfast.utils.launch import is_main_process, world_size
from slowfast.utils.logging import get_logger, start_logging, stop_logging
from slowfast.utils.signals import Stopped, StopSignal, nothing_to_save
from slowfast.utils.text import plain


def load_config(cfg_file: str | Path, overrides: Sequence[Any] = (), world_size: int = 1) -> ConfigNode:
    """Return the frozen config of a run: defaults, then the file (and its `_BASE_`), the overrides, what these imply.

    Args:
        cfg_file: A YAML file.
        overrides: KEY VALUE pairs.
        world_size: Number of processes that share a training batch.

    Raises:
        ConfigError: For every mistake that can be known from the config.
    """
    cfg = merge_config(cfg_file, overrides)
    validate(cfg, world_size)
    cfg.freeze()
    return cfg


_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*(=.*)?", re.DOTALL)


def split_overrides(arguments: Sequence[str], flags: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Split a command line before the first word that looks like a config key.

    The name of an existing file is no key, nor is the word after an option, except after one of `flags`, the options
    that take no value.
    """
    words = list(arguments)
    for place, word in enumerate(words):
        option = words[place - 1] if place and words[place - 1].startswith("--") else ""
        is_value = bool(option) and option not in flags and "=" not in option
        if _KEY.fullmatch(word) and not is_value and not os.path.exists(word):
            return words[:place], words[place:]
    return words, []


def parse_tool_line(
    parser: CommandParser, arguments: Sequence[str], flags: Collection[str] = ()
) -> tuple[argparse.Namespace, ConfigNode]:
    """Parse a command line with a parser, to which --cfg is added.

    Returns:
        The options, and the frozen config for evaluating a model.

    Raises:
        UserError: For a command line that cannot be parsed and for everything wrong with the config.
    """
    parser.add_argument("--cfg", metavar="FILE", required=True, help="one YAML file")
    words, overrides = split_overrides(arguments, {"-h", "--help", *flags})
    chosen = parser.parse_intermixed_args(words)
    if world_size() > 1:
        raise UserError(f"{parser.prog} runs in one process. Start it with python, not with torchrun")
    return chosen, load_for_evaluation(chosen.cfg, overrides)


def load_for_evaluation(cfg_file: str | Path, overrides: Sequence[Any] = ()) -> ConfigNode:
    """Return the frozen config of a file, as `load_config`, for a trained model: training settings are not checked."""
    settings = ("TRAIN.ENABLE", False, "TEST.ENABLE", True, "EVENT.ENABLE", False, "MODEL.ACT_CHECKPOINT", False)
    return load_config(cfg_file, [*overrides, *settings])


EXAMPLE = "python tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4"
DESCRIPTION = f"""\
Train (if TRAIN.ENABLE), then test (if TEST.ENABLE), or run event-driven inference on videos (if EVENT.ENABLE).

  {EXAMPLE}
  torchrun --nproc_per_node=2 tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml NUM_GPUS 2
  python tools/run_net.py --cfg configs/ImageNet/EVMLP.yaml EVENT.ENABLE True DATA.PATH_PREFIX folder_of_videos

--cfg takes one file; all that follows it are overrides of its keys: KEY VALUE pairs.
Lists are written without spaces: MORPH.SEGMENT_DIM [14,28,28,49].
Every key is explained in slowfast/config/defaults.py.
"""


def parse(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the config file and the overrides of a command line; UserError for one that cannot be parsed."""
    parser = CommandParser("run_net.py", DESCRIPTION, "%(prog)s --cfg FILE [KEY VALUE ...]", EXAMPLE)
    parser.add_argument("--cfg", metavar="FILE", required=True, action="append", help="one YAML file")
    parser.add_argument("overrides", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of its keys")
    args = parser.parse_args(list(arguments))
    files = args.cfg + [word for word in args.overrides[:1] if word.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise ConfigError(f"--cfg: {plain(files[1])} is a second file. Name one file, which may name another as _BASE_")
    return files[0], args.overrides


def load(arguments: Sequence[str]) -> ConfigNode:
    """Load the validated, frozen config of the command line, for as many processes as will run."""
    cfg_file, overrides = parse(arguments)
    cfg = load_config(cfg_file, overrides, world_size())
    if not os.environ.get("RANK"):
        check_batch_size(cfg, max(1, usable_gpus(cfg.NUM_GPUS)))
    return cfg


def main(arguments: Sequence[str], run: Callable[[ConfigNode], None]) -> int:
    """Load the config and run.

    Returns:
        The exit status: 0 if done, also after a signal; 2 after a user error, reported on stderr; 1 after any other.
    """
    main_process, loaded = is_main_process(), []

    def load_first() -> None:
        start_logging(0 if main_process else 1)
        if not main_process:
            logging.getLogger("slowfast.config").setLevel(logging.ERROR)  # rank 0 warns for all
        loaded.append(load(arguments))

    def all_of_it() -> None:
        with StopSignal() as stop:
            try:
                with stop.at_once():
                    load_first()
            except Stopped:
                get_logger().warning(nothing_to_save(stop.name))
                return
        run(loaded[0])

    try:
        # A user error in the config is the same in every process.
        return exit_status(all_of_it, quiet=lambda: not main_process and not loaded, logged=True)
    finally:
        stop_logging()
