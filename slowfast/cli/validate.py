"""Checks of a config that need no data: values, combinations of keys, files to start from, memory.

Each check raises ConfigError with one line: which keys, what is wrong, what to do.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from slowfast.cli.memory_rules import check_memory
from slowfast.config import rules
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.suggest import did_you_mean, nearest_file
from slowfast.utils.text import plain, quoted
from slowfast.utils.text_files import why_not_regular


def validate(cfg: ConfigNode, world_size: int = 1) -> None:
    """Check a merged config for a run of `world_size` processes.

    Raises:
        ConfigError: For the first mistake.
    """
    rules.check_values(cfg)
    _check_event_driven(cfg, world_size)
    _check_run(cfg)
    _check_decoder(cfg)
    _check_schedule(cfg)
    _check_loss(cfg)
    _check_transforms(cfg)
    check_batch_size(cfg, world_size)
    _check_weights_exist(cfg)
    _check_output_dir(Path(cfg.OUTPUT_DIR))
    _check_scores_path(cfg)
    _check_model(cfg)
    check_memory(cfg, world_size)
    if cfg.TRAIN.ENABLE:
        _check_trained_parameters(cfg)
        check_distillation(cfg)


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
        raise ConfigError(
            f"MORPH.PRETRAIN_PATH: {plain(path)} {wrong}. Put the weights there, "
            'or start from random weights with MORPH.PRETRAIN_PATH ""'
        )


def _check_model(cfg: ConfigNode) -> None:
    """Check that the network takes what the datasets contain, and the rules of its `check_config`."""
    from slowfast.datasets.build import TEST, TRAIN, find_dataset
    from slowfast.models.build import find_network
    from slowfast.models.inputs import check_input

    network = find_network(cfg)
    for part, split in ((cfg.TRAIN, TRAIN), (cfg.TEST, TEST)):
        if part.ENABLE:
            check_input(network, bool(cfg.MODEL.FRAMEWISE), part.DATASET, find_dataset(cfg, split).input_kind)
    network.check_config(cfg)


def _check_event_driven(cfg: ConfigNode, world_size: int) -> None:
    from slowfast.event_driven.mode import check

    if cfg.EVENT.ENABLE:
        check(cfg, world_size)


def _check_trained_parameters(cfg: ConfigNode) -> None:
    """Check the settings that name parameters or freeze most of them."""
    from slowfast.engine.optim import check_no_decay
    from slowfast.models.build import build_model

    if cfg.MODEL.FREEZE_BACKBONE and cfg.BN.USE_PRECISE_STATS:
        raise ConfigError(
            "MODEL.FREEZE_BACKBONE keeps the statistics that BN.USE_PRECISE_STATS recomputes. Set one of them False"
        )
    if cfg.SOLVER.NO_WD_PARAMS:
        with torch.device("meta"):  # names only
            check_no_decay(build_model(cfg), cfg.SOLVER.NO_WD_PARAMS)


def check_distillation(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the teacher's config is valid and it takes the student's training clips."""
    from slowfast.engine.distillation import check_teacher, load_teacher_config

    if not cfg.DISTILL.ENABLE:
        return
    try:
        validate(load_teacher_config(cfg))
    except ConfigError as error:
        name = f"DISTILL.TEACHER_CFG {cfg.DISTILL.TEACHER_CFG}"
        raise error if str(error).startswith("DISTILL.") else ConfigError(f"{name}: {error}") from error
    check_teacher(cfg)


def _check_transforms(cfg: ConfigNode) -> None:
    """Check the settings of transforms, without reading a sample."""
    # Late, like all below: these packages import the config.
    from slowfast.datasets.build import TEST, TRAIN, find_dataset

    if cfg.TRAIN.ENABLE:
        find_dataset(cfg, TRAIN).check(training=True)
    if cfg.TEST.ENABLE:
        find_dataset(cfg, TEST).check(training=False)


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
            f"must be together smaller than SOLVER.MAX_EPOCH ({solver.MAX_EPOCH})"
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


def _check_loss(cfg: ConfigNode) -> None:
    from slowfast.engine.losses import SOFT_LOSSES, class_weights

    if cfg.TRAIN.ENABLE:
        class_weights(cfg.MODEL.CLASS_WEIGHTS, [0], cfg.MODEL.NUM_CLASSES)  # its file is read
    if cfg.MIXUP.ENABLE and cfg.MODEL.LOSS_FUNC not in SOFT_LOSSES:
        raise ConfigError(
            f"MIXUP.ENABLE mixes labels, which MODEL.LOSS_FUNC {cfg.MODEL.LOSS_FUNC} does not support. "
            f"Set MODEL.LOSS_FUNC {' or '.join(sorted(SOFT_LOSSES))}"
        )


def _check_run(cfg: ConfigNode) -> None:
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE):
        raise ConfigError("TRAIN.ENABLE and TEST.ENABLE are both False: nothing to do. Set one of them True")
    if cfg.SHARD_ID >= cfg.NUM_SHARDS:
        raise ConfigError(f"SHARD_ID ({cfg.SHARD_ID}) must be smaller than NUM_SHARDS ({cfg.NUM_SHARDS})")
    node = os.environ.get("GROUP_RANK", "0")  # torchrun's number of this machine
    if cfg.SHARD_ID and str(cfg.SHARD_ID) != node:
        raise ConfigError(f"SHARD_ID ({cfg.SHARD_ID}): torchrun numbers this machine {plain(node)}. Remove SHARD_ID")


def _check_decoder(cfg: ConfigNode) -> None:
    """Check that the decoder's package, which may be optional, is installed."""
    from slowfast.datasets.decode import require_backend

    require_backend(cfg.DATA.DECODING_BACKEND)


def _check_weights_exist(cfg: ConfigNode) -> None:
    """Check that the checkpoints to start from and to test exist; this training may write the one to test later."""
    from slowfast.engine.checkpoints import checkpoint_folder

    made_here = checkpoint_folder(Path(cfg.OUTPUT_DIR).absolute())
    for key, part in (("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN), ("TEST.CHECKPOINT_FILE_PATH", cfg.TEST)):
        path = Path(part.CHECKPOINT_FILE_PATH)
        wrong = why_not_regular(path)
        if not part.ENABLE or not part.CHECKPOINT_FILE_PATH or not wrong:
            continue
        if part is cfg.TEST and cfg.TRAIN.ENABLE and path.absolute().is_relative_to(made_here):
            continue
        raise ConfigError(f"{key}: {plain(path)} {wrong}.{did_you_mean(nearest_file(path))}")


def _check_scores_path(cfg: ConfigNode) -> None:
    from slowfast.visualization.results import check_scores_path

    if cfg.TEST.ENABLE:
        check_scores_path(cfg)


def _check_output_dir(folder: Path) -> None:
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p))
    where = f"OUTPUT_DIR {plain(folder)}: {plain(existing)}"
    if not existing.is_dir():
        raise ConfigError(f"{where} is not a directory. Choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{where} is not writable. Choose another folder")
