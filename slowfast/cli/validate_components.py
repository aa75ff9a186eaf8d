"""Validation of what a config names: models, datasets, losses, the decoder, checkpoints. Imports their packages.

Each check raises ConfigError with one line: which keys, what is wrong, what to do.
"""

from __future__ import annotations

from pathlib import Path

import torch

from slowfast.cli.memory_rules import check_memory
from slowfast.cli.validate import check_settings
from slowfast.config.defaults import check_registered_names
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, TRAIN, find_dataset
from slowfast.datasets.decode import require_backend
from slowfast.engine.checkpoints import checkpoint_folder
from slowfast.engine.compiled import check_compile
from slowfast.engine.distillation import check_teacher, load_teacher_config
from slowfast.engine.freezing import find_frozen
from slowfast.engine.losses import class_weights
from slowfast.engine.memory_format import check_channels_last
from slowfast.engine.optim import check_no_decay
from slowfast.engine.tasks import check_task
from slowfast.engine.trackers import check_trackers
from slowfast.errors import ConfigError
from slowfast.event_driven import sources
from slowfast.models.build import build_model, find_network
from slowfast.models.protocol import check_input
from slowfast.utils.suggest import did_you_mean, nearest_file
from slowfast.utils.text import plain
from slowfast.utils.text_files import why_not_regular
from slowfast.visualization.scores import check_scores_path


def validate(cfg: ConfigNode, world_size: int = 1) -> None:
    """Check a merged config: its settings first, then the components it names; see the two functions for arguments."""
    check_settings(cfg, world_size)
    validate_components(cfg, world_size)


def validate_components(cfg: ConfigNode, world_size: int = 1) -> None:
    """Check registered names, files, and the rules of the model, datasets and tasks.

    Args:
        cfg: Config that has passed `slowfast.cli.validate.check_settings`.
        world_size: Number of processes that share a training batch.

    Raises:
        ConfigError: For the first error.
    """
    check_registered_names(cfg)
    if cfg.EVENT.ENABLE:
        sources.check(cfg, world_size)
    require_backend(cfg.DATA.DECODING_BACKEND)
    _check_loss(cfg)
    _check_transforms(cfg)
    _check_weights_exist(cfg)
    if cfg.TEST.ENABLE:
        check_scores_path(cfg)
    _check_model(cfg)
    check_trackers(cfg)
    check_compile(cfg)
    check_channels_last(cfg)
    check_memory(cfg, world_size)
    if cfg.TRAIN.ENABLE:
        _check_trained_parameters(cfg)
        check_distillation(cfg)


def _check_loss(cfg: ConfigNode) -> None:
    """Check the task, its loss function and the class weights."""
    if cfg.TRAIN.ENABLE:
        class_weights(cfg.MODEL.CLASS_WEIGHTS, [0], cfg.MODEL.NUM_CLASSES)  # its file is read
    check_task(cfg)


def _check_transforms(cfg: ConfigNode) -> None:
    """Check the settings of transforms, without reading a sample."""
    if cfg.TRAIN.ENABLE:
        find_dataset(cfg, TRAIN).check(training=True)
    if cfg.TEST.ENABLE:
        find_dataset(cfg, TEST).check(training=False)


def _check_weights_exist(cfg: ConfigNode) -> None:
    """Check that the checkpoints to start from and to test exist; this training may write the one to test later."""
    made_here = checkpoint_folder(Path(cfg.OUTPUT_DIR).absolute())
    for key, part in (("TRAIN.CHECKPOINT_FILE_PATH", cfg.TRAIN), ("TEST.CHECKPOINT_FILE_PATH", cfg.TEST)):
        path = part.CHECKPOINT_FILE_PATH
        wrong = why_not_regular(path) if part.ENABLE and path else ""
        if not wrong:
            continue
        if part is cfg.TEST and cfg.TRAIN.ENABLE and Path(path).absolute().is_relative_to(made_here):
            continue
        raise ConfigError(f"{key}: {plain(path)} {wrong}.{did_you_mean(nearest_file(path))}")


def _check_model(cfg: ConfigNode) -> None:
    """Check that the network takes what the datasets contain, and its own rules."""
    network = find_network(cfg)
    for part, split in ((cfg.TRAIN, TRAIN), (cfg.TEST, TEST)):
        if part.ENABLE:
            check_input(network, bool(cfg.MODEL.FRAMEWISE), part.DATASET, find_dataset(cfg, split).input_kind)
    network.check_config(cfg)


def _check_trained_parameters(cfg: ConfigNode) -> None:
    """Check the settings that name parameters or freeze most of them."""
    frozen = cfg.MODEL.FREEZE_BACKBONE or cfg.MODEL.FREEZE
    if frozen and cfg.BN.USE_PRECISE_STATS:
        key = "MODEL.FREEZE_BACKBONE" if cfg.MODEL.FREEZE_BACKBONE else "MODEL.FREEZE"
        raise ConfigError(f"{key} keeps the statistics that BN.USE_PRECISE_STATS recomputes. Turn one of them off")
    if cfg.SOLVER.NO_WD_PARAMS or frozen:
        with torch.device("meta"):  # names only
            model = build_model(cfg)
        check_no_decay(model, cfg.SOLVER.NO_WD_PARAMS)
        find_frozen(model, cfg.MODEL.FREEZE_BACKBONE, cfg.MODEL.FREEZE)


def check_distillation(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the teacher's config is valid and it takes the student's training clips."""
    if not cfg.DISTILL.ENABLE:
        return
    try:
        validate(load_teacher_config(cfg))
    except ConfigError as error:
        name = f"DISTILL.TEACHER_CFG {plain(cfg.DISTILL.TEACHER_CFG)}"
        raise error if str(error).startswith("DISTILL.") else ConfigError(f"{name}: {error}") from error
    check_teacher(cfg)
