"""Validation of what a config names (models, datasets, losses, the decoder, checkpoints) and of the memory it needs.

Imports the packages of what is named. Each check raises ConfigError with one line: which keys, what is wrong, what to
do. All estimates of memory are lower bounds: what is refused cannot run on this machine.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slowfast.cli.validate import check_settings
from slowfast.config.defaults import check_registered_names, get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, TRAIN, find_dataset
from slowfast.datasets.decode import require_backend
from slowfast.engine.checkpoints import checkpoint_folder
from slowfast.engine.distillation import check_teacher, load_teacher_config
from slowfast.engine.forward import check_channels_last, check_compile
from slowfast.engine.losses import class_weights
from slowfast.engine.parameters import check_no_decay, find_frozen
from slowfast.engine.tasks import check_task
from slowfast.engine.tasks.scores import check_scores_path
from slowfast.engine.trackers import check_trackers
from slowfast.errors import ConfigError
from slowfast.event_driven import sources
from slowfast.models.build import build_model, find_network
from slowfast.models.protocol import CLIPS, IMAGES, check_input, input_shape
from slowfast.utils.distributed import usable_gpus
from slowfast.utils.paths import nearest_file, why_not_regular
from slowfast.utils.text import did_you_mean, plain

GIB = 2**30
FLOAT_BYTES = 4
WORKER_BYTES = 32 * 2**20  # minimum private memory of an idle worker process
# Models below all of these limits fit on any machine and are not measured.
USUAL_SIZE, USUAL_CLASSES, USUAL_BLOCKS = 2048, 65_536, 200
SECTIONS = ("MORPH", "CONVMLP", "EAT", "EVMLP", "EVENT2VEC", "EFFICIENTNET", "REGNET")
# Approximate bytes per input pixel in the first stage of a model; used to decide whether to measure it.
BYTES_PER_PIXEL = 64
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def validate(cfg: ConfigNode, world_size: int = 1) -> None:
    """Check a merged config: first `check_settings`, then `check_components`, with the same arguments."""
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
    """Check that the checkpoints to start from and to test exist, unless this training writes the one to test."""
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
    """Check that the network accepts the samples of the datasets, and the network's own rules."""
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
    """Raise ConfigError unless the teacher's config is valid and it accepts the student's training clips."""
    if not cfg.DISTILL.ENABLE:
        return
    try:
        validate(load_teacher_config(cfg))
    except ConfigError as error:
        name = f"DISTILL.TEACHER_CFG {plain(cfg.DISTILL.TEACHER_CFG)}"
        raise error if str(error).startswith("DISTILL.") else ConfigError(f"{name}: {error}") from error
    check_teacher(cfg)


def machine_memory() -> int:
    """Return the memory in bytes that this process may use, given the limits of its control group and resources."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        limits += [int(text)] if text.isdecimal() else []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min(limits + ([soft] if soft != resource.RLIM_INFINITY else []))


def check_memory(cfg: ConfigNode, world_size: int = 1) -> None:
    """Raise ConfigError for settings that need more memory than this machine has.

    Args:
        cfg: Config whose values are within their ranges.
        world_size: Number of processes that share a training batch.
    """
    memory = machine_memory()
    workers = cfg.DATA_LOADER.NUM_WORKERS
    _refuse(workers * WORKER_BYTES, memory, f"DATA_LOADER.NUM_WORKERS ({workers})")
    _check_frames(cfg, memory)
    batches = _clips_per_batch(cfg, world_size)
    clip = cfg.DATA.NUM_FRAMES if _has_frames(cfg) else 1
    for what, (clips, side) in batches.items():
        _refuse(clips * clip * 3 * side**2, memory, f"one batch of {what}")
    if _is_unusual(cfg):
        with torch.device("meta"):  # computes shapes only
            model = build_model(cfg)
        weights = sum(parameter.numel() for parameter in model.parameters()) * FLOAT_BYTES
        _refuse(weights, memory, f"the weights of {cfg.MODEL.MODEL_NAME}")
    if not cfg.NUM_GPUS:  # a config for GPUs may be loaded on a smaller machine
        for what, (clips, side) in batches.items():
            if clips * clip * side**2 * BYTES_PER_PIXEL > memory // 4:
                _refuse(_largest_activation(cfg, clips, side), memory, f"one layer's output for a batch of {what}")


def _refuse(need: int, memory: int, what: str) -> None:
    if need > memory:
        raise ConfigError(
            f"{what} needs at least {need / GIB:,.1f} GiB of memory, but this machine has {memory / GIB:,.1f} GiB. "
            "Lower these settings"
        )


def _check_frames(cfg: ConfigNode, memory: int) -> None:
    """Check the frames of one clip after resizing."""
    for name, part, split in (("TRAIN", cfg.TRAIN, TRAIN), ("TEST", cfg.TEST, TEST)):
        crops = cfg.TEST.NUM_SPATIAL_CROPS if split == TEST else 1
        dataset = find_dataset(cfg, split)
        if not part.ENABLE or not isinstance(dataset, FrameDataset):
            continue
        side = dataset.view_transform(crops).short_side
        frames = 1 if dataset.input_kind == IMAGES else cfg.DATA.NUM_FRAMES
        size = f"{frames} frame{'s' * (frames > 1)} with a short side of {side} pixels"
        _refuse(frames * side**2 * 3, memory, f"{name}.DATASET {part.DATASET}: {size}")
        if dataset.reads_recordings:
            height, width = cfg.DVS.SENSOR_SIZE
            _refuse(frames * height * width * 3, memory, f"DVS.SENSOR_SIZE: {frames} frames of {height} x {width}")


def _clips_per_batch(cfg: ConfigNode, world_size: int) -> dict[str, tuple[int, int]]:
    """Return clips per batch of one process and their side, by description; empty for event samples."""
    batches: dict[str, tuple[int, int]] = {}
    data, frames = cfg.DATA, f"{cfg.DATA.NUM_FRAMES} frames of " if _has_frames(cfg) else ""
    if cfg.EVENT.ENABLE and not cfg.MODEL.FRAMEWISE:
        count = cfg.EVENT.STREAMS * cfg.EVENT.CHUNK
        streams = f"EVENT.STREAMS ({cfg.EVENT.STREAMS}) x EVENT.CHUNK ({cfg.EVENT.CHUNK}) frames"
        return {f"{streams} of {data.TEST_CROP_SIZE} x {data.TEST_CROP_SIZE}": (count, data.TEST_CROP_SIZE)}
    if cfg.TRAIN.ENABLE and isinstance(find_dataset(cfg, TRAIN), FrameDataset):
        processes = max(world_size, usable_gpus(cfg.NUM_GPUS), 1)
        share = max(1, cfg.TRAIN.BATCH_SIZE // (processes * cfg.TRAIN.ACCUMULATION_STEPS)) * cfg.AUG.NUM_SAMPLE
        side = data.TRAIN_CROP_SIZE
        batches[f"{share} training clips (TRAIN.BATCH_SIZE), {frames}{side} x {side}"] = (share, side)
    if cfg.TEST.ENABLE and isinstance(find_dataset(cfg, TEST), FrameDataset):
        share = max(1, cfg.TEST.BATCH_SIZE // max(world_size, usable_gpus(cfg.NUM_GPUS), 1))
        side = data.TEST_CROP_SIZE
        batches[f"{share} test clips (TEST.BATCH_SIZE), {frames}{side} x {side}"] = (share, side)
    return batches


def _has_frames(cfg: ConfigNode) -> bool:
    """Return whether samples are clips of DATA.NUM_FRAMES frames."""
    used = [split for split, part in ((TRAIN, cfg.TRAIN), (TEST, cfg.TEST)) if part.ENABLE]
    on_videos = cfg.EVENT.ENABLE and not cfg.MODEL.FRAMEWISE
    return not on_videos and any(find_dataset(cfg, split).input_kind == CLIPS for split in used)


def _is_unusual(cfg: ConfigNode) -> bool:
    """Return whether the model could be too large for a machine."""
    numbers: list[float] = []
    blocks = 0.0
    defaults = get_cfg()
    for section in SECTIONS:
        for key, value in cfg[section].items():
            elements = value if isinstance(value, list) else [value]
            elements = [x for x in elements if isinstance(x, (int, float))]
            numbers += elements if value != defaults[section][key] else []
            blocks += sum(elements) if key.endswith("LAYERS") else 0
    size = max([*numbers, cfg.DATA.NUM_FRAMES])
    return size > USUAL_SIZE or blocks > USUAL_BLOCKS or cfg.MODEL.NUM_CLASSES > USUAL_CLASSES


def _largest_activation(cfg: ConfigNode, clips: int, side: int) -> int:
    """Return the bytes of the largest output of a module of the model for a batch of clips."""
    largest = 0

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel() * clips)

    with torch.device("meta"), torch.no_grad():
        model = build_model(cfg).eval()
        for module in model.modules():
            module.register_forward_hook(note)
        model(torch.empty(1, *input_shape(model, cfg.DATA.NUM_FRAMES, side)))
    return largest * FLOAT_BYTES
