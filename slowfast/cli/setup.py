"""Loading of a validated config, and the options of all commands with one.

PyTorch is imported only after the command line is parsed and the config merged, so that typos are reported immediately.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from slowfast.cli.command import CommandParser, integer
from slowfast.cli.validate import check_settings
from slowfast.config.defaults import merge_config
from slowfast.config.node import ConfigNode
from slowfast.config.rules import MAX_WORKERS
from slowfast.errors import UserError
from slowfast.utils.imports import import_user_modules
from slowfast.utils.launch import world_size
from slowfast.utils.ray_cluster import ENGINES

_WEIGHTS = "TEST.CHECKPOINT_FILE_PATH"
_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*(=.*)?", re.DOTALL)


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
    add_weights(parser)
    words, overrides = split_overrides(arguments, parser.flags())
    chosen = parser.parse(words)
    if world_size() > 1:
        raise UserError(f"{parser.prog} runs in one process. Start it without torchrun")
    overrides = [*option_overrides(parser, chosen, overrides), *overrides]
    return chosen, load_for_evaluation(chosen.cfg, overrides, chosen.modules)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add --weights."""
    parser.add_argument(
        "--weights", metavar="PATH", help=f"checkpoint, alias of {_WEIGHTS} (default: the last one in OUTPUT_DIR)"
    )


def option_overrides(parser: CommandParser, chosen: argparse.Namespace, overrides: Sequence[str]) -> list[Any]:
    """Return the overrides that --weights, --workers and --engine stand for.

    Args:
        parser: Parser of the command, which may lack some of these options.
        chosen: The options.
        overrides: Overrides of the command line.

    Raises:
        UserError: If --weights and the overrides both name a checkpoint.
    """
    keys = {"weights": _WEIGHTS, "num_workers": "DATA_LOADER.NUM_WORKERS", "engine": "ENGINE"}
    given = {key: getattr(chosen, option, None) for option, key in keys.items()}
    if given[_WEIGHTS] is not None and any(word.partition("=")[0] == _WEIGHTS for word in overrides):
        parser.error(f"--weights and {_WEIGHTS} both name a checkpoint. Give one of them")
    return [word for key, value in given.items() if value is not None for word in (key, value)]


def add_loader_workers(parser: argparse.ArgumentParser) -> None:
    """Add --workers for a command that loads samples."""
    parser.add_argument(
        "--workers",
        dest="num_workers",
        type=integer(0, MAX_WORKERS),
        metavar="N",
        help="worker processes that load samples; 0 loads in the main process (default: DATA_LOADER.NUM_WORKERS)",
    )


def add_evaluation_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine for a command that evaluates samples."""
    engine = "local, or ray: the nodes of a Ray cluster (default: ENGINE of the config)"
    parser.add_argument("--engine", choices=ENGINES, help=engine)


def load_for_evaluation(cfg_file: str | Path, overrides: Sequence[Any] = (), modules: Sequence[str] = ()) -> ConfigNode:
    """Return the frozen config for evaluating a trained model, like `load_config` without checks of training keys."""
    settings = ["TRAIN.ENABLE", False, "TEST.ENABLE", True, "EVENT.ENABLE", False, "MODEL.ACT_CHECKPOINT", False]
    settings += ["TEST.COMPILE", False, "TRACKING.BACKENDS", []]
    return load_config(cfg_file, [*overrides, *settings], modules=modules)
