"""Command lines of tools that apply a trained model: `--cfg FILE`, files and options, then KEY VALUE pairs."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from slowfast.config.load import load_config
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.runtime.command import CommandParser
from slowfast.runtime.distributed import world_size

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
