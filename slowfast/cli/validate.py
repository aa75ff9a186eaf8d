"""Validation of a config: values, combinations of keys and the output folder. Runs first and does not import PyTorch.

Each check raises ConfigError with one line: which keys, what is wrong, what to do.
"""

from __future__ import annotations

import os
from pathlib import Path

from slowfast.config.defaults import check_values
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.paths import why_not_regular
from slowfast.utils.remote.address import as_address
from slowfast.utils.text import plain, quoted


def check_settings(cfg: ConfigNode, world_size: int = 1) -> None:
    """Check values, and combinations of keys that need no registered model, dataset or function.

    Args:
        cfg: Merged config.
        world_size: Number of processes that share a training batch.

    Raises:
        ConfigError: For the first error.
    """
    check_values(cfg)
    _check_run(cfg)
    _check_schedule(cfg)
    check_batch_size(cfg, world_size)
    _check_output_dir(Path(cfg.OUTPUT_DIR))


def check_batch_size(cfg: ConfigNode, world_size: int) -> None:
    """Raise ConfigError unless each process and accumulation step gets the same number of training videos."""
    size, parts = cfg.TRAIN.BATCH_SIZE, world_size * cfg.TRAIN.ACCUMULATION_STEPS
    if cfg.TRAIN.ENABLE and size % parts:
        nearest = max(1, round(size / parts)) * parts
        raise ConfigError(
            f"TRAIN.BATCH_SIZE ({size}) must be a multiple of {parts} ({world_size} processes x "
            f"TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS}), such as {nearest}"
        )


def check_pretrain(cfg: ConfigNode, resuming: bool) -> None:
    """Raise ConfigError if training would start from a MORPH.PRETRAIN_PATH that does not exist.

    Args:
        cfg: The run's config.
        resuming: Whether the run resumes from a checkpoint in OUTPUT_DIR and needs no other weights.
    """
    path = cfg.MORPH.PRETRAIN_PATH
    if not cfg.TRAIN.ENABLE or resuming or cfg.TRAIN.CHECKPOINT_FILE_PATH or not path:
        return
    if wrong := why_not_regular(path):
        advice = "Use another address" if as_address(path) else "Put the weights there"
        raise ConfigError(
            f"MORPH.PRETRAIN_PATH: {plain(path)} {wrong}. {advice}, "
            'or start from random weights with MORPH.PRETRAIN_PATH ""'
        )


def _check_schedule(cfg: ConfigNode) -> None:
    solver = cfg.SOLVER
    if solver.OPTIMIZING_METHOD == "sgd" and solver.NESTEROV and solver.MOMENTUM and solver.DAMPENING:
        raise ConfigError(
            f"SOLVER.NESTEROV does not support dampening. Set SOLVER.NESTEROV False or SOLVER.DAMPENING "
            f"({solver.DAMPENING:g}) to 0"
        )
    if cfg.TRAIN.ENABLE and solver.WARMUP_EPOCHS >= solver.MAX_EPOCH:
        raise ConfigError(
            f"SOLVER.WARMUP_EPOCHS ({solver.WARMUP_EPOCHS:g}) must be smaller than SOLVER.MAX_EPOCH "
            f"({solver.MAX_EPOCH})"
        )
    if cfg.TRAIN.ENABLE and solver.WARMUP_EPOCHS + solver.COOLDOWN_EPOCHS >= solver.MAX_EPOCH:
        raise ConfigError(
            f"SOLVER.COOLDOWN_EPOCHS ({solver.COOLDOWN_EPOCHS:g}) and SOLVER.WARMUP_EPOCHS ({solver.WARMUP_EPOCHS:g}) "
            f"must together be smaller than SOLVER.MAX_EPOCH ({solver.MAX_EPOCH})"
        )
    if solver.LR_POLICY != "steps_with_relative_lrs":
        return
    if not solver.STEPS or len(solver.STEPS) != len(solver.LRS):
        raise ConfigError(
            f"SOLVER.STEPS has {len(solver.STEPS)} values but SOLVER.LRS has {len(solver.LRS)}. Both need one per step "
            "and at least one"
        )
    if solver.STEPS[0] != 0 or sorted(set(solver.STEPS)) != solver.STEPS:
        raise ConfigError(f"SOLVER.STEPS ({quoted(solver.STEPS)}) must start at 0 and increase, such as [0,30,50]")


def _check_run(cfg: ConfigNode) -> None:
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE):
        raise ConfigError("TRAIN.ENABLE and TEST.ENABLE are both False: nothing to do. Set one of them True")
    if cfg.SHARD_ID >= cfg.NUM_SHARDS:
        raise ConfigError(f"SHARD_ID ({cfg.SHARD_ID}) must be smaller than NUM_SHARDS ({cfg.NUM_SHARDS})")
    node = os.environ.get("GROUP_RANK", "0")  # torchrun's number of this machine
    if cfg.SHARD_ID and str(cfg.SHARD_ID) != node:
        raise ConfigError(f"SHARD_ID ({cfg.SHARD_ID}): torchrun numbers this machine {plain(node)}. Remove SHARD_ID")


def _check_output_dir(folder: Path) -> None:
    if address := as_address(folder):
        raise ConfigError(f"OUTPUT_DIR {plain(address)} is an address. Choose a local folder")
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p))
    where = f"OUTPUT_DIR {plain(folder)}: {plain(existing)}"
    if not existing.is_dir():
        raise ConfigError(f"{where} is not a directory. Choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{where} is not writable. Choose another folder")
