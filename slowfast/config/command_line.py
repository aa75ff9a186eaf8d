"""The command line of `tools/run_net.py`: arguments in, exit status out."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence

from slowfast.config.load import load_config
from slowfast.config.node import ConfigNode
from slowfast.config.validate import check_batch_size
from slowfast.errors import ConfigError
from slowfast.runtime.command import CommandParser, exit_status
from slowfast.runtime.distributed import is_main_process, usable_gpus, world_size
from slowfast.runtime.first import nothing_to_save
from slowfast.runtime.logging import get_logger, start_logging, stop_logging
from slowfast.runtime.stop_signal import Stopped, StopSignal

EXAMPLE = "python tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4"
DESCRIPTION = f"""\
Train (if TRAIN.ENABLE), then test (if TEST.ENABLE), as the config says; or look at videos (if EVENT.ENABLE).

  {EXAMPLE}
  torchrun --nproc_per_node=2 tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml NUM_GPUS 2
  python tools/run_net.py --cfg configs/ImageNet/EVMLP.yaml EVENT.ENABLE True DATA.PATH_PREFIX folder_of_videos

--cfg takes one file; all that follows it are overrides of its keys: KEY VALUE pairs.
Lists are written without spaces: MORPH.SEGMENT_DIM [14,28,28,49].
Every key is explained in slowfast/config/defaults.py.
"""


def parse(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The config file and the overrides; UserError for a line that cannot be understood."""
    parser = CommandParser("run_net.py", DESCRIPTION, "%(prog)s --cfg FILE [KEY VALUE ...]", EXAMPLE)
    parser.add_argument("--cfg", metavar="FILE", required=True, action="append", help="one YAML file")
    parser.add_argument("overrides", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of its keys")
    args = parser.parse_args(list(arguments))
    files = args.cfg + [word for word in args.overrides[:1] if word.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise ConfigError(f"--cfg takes one file; {files[1]} is a second one (a file may name another as _BASE_)")
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
