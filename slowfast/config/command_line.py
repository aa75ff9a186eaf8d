"""The command line of `tools/run_net.py`: arguments in, exit status out."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from slowfast.config.load import load_config
from slowfast.config.node import ConfigNode
from slowfast.config.validate import check_batch_size
from slowfast.errors import ConfigError, UserError
from slowfast.runtime.distributed import is_main_process, launch_on_gpus, usable_gpus, world_size

EXAMPLE = "python tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4"
DESCRIPTION = f"""\
Train (if TRAIN.ENABLE), then test (if TEST.ENABLE), as the config says.

  {EXAMPLE}
  torchrun --nproc_per_node=2 tools/run_net.py --cfg configs/K400/K400_MLP_S16x4.yaml NUM_GPUS 2

--cfg takes one file; all that follows it are overrides of its keys: KEY VALUE pairs.
Lists are written without spaces: MORPH.SEGMENT_DIM [14,28,28,49].
Every key is explained in slowfast/config/defaults.py.
"""
DONE, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; for example: {EXAMPLE}")


def parse(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The config file and the overrides; ConfigError for a line that cannot be understood."""
    parser = _Parser(
        prog="run_net.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --cfg FILE [KEY VALUE ...]",
        allow_abbrev=False,
    )
    parser.add_argument("--cfg", metavar="FILE", required=True, action="append", help="one YAML file")
    parser.add_argument("overrides", metavar="KEY VALUE", nargs=argparse.REMAINDER, help="overrides of its keys")
    args = parser.parse_args(list(arguments))
    files = args.cfg + [word for word in args.overrides[:1] if word.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise ConfigError(f"--cfg takes one file; {files[1]} is a second one (a file may name another as _BASE_)")
    return files[0], args.overrides


def load(arguments: Sequence[str]) -> ConfigNode:
    """The validated, frozen config of the command line, for as many processes as will run."""
    cfg_file, overrides = parse(arguments)
    cfg = load_config(cfg_file, overrides, world_size())
    if "RANK" not in os.environ:
        check_batch_size(cfg, max(1, usable_gpus(cfg.NUM_GPUS)))
    return cfg


def main(arguments: Sequence[str], run: Callable[[ConfigNode], None]) -> int:
    """Load the config and run; the exit status: 0 done, 2 the user's mistake (said on stderr), 1 anything else."""
    loaded = False
    if not is_main_process():
        logging.getLogger("slowfast.config").setLevel(logging.ERROR)  # rank 0 warns for all
    try:
        cfg = load(arguments)
        loaded = True
        launch_on_gpus(cfg.NUM_GPUS)
        run(cfg)
    except UserError as error:
        if loaded or is_main_process():  # a mistake in the config is the same in every process
            print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE
