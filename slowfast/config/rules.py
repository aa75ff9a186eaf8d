"""Rules of single values: choices, ranges and formats."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from string import Formatter
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.output_folders import MAX_NAME_BYTES, MAX_PATH_BYTES
from slowfast.utils.suggest import unknown_value
from slowfast.utils.text import quoted


@dataclass(frozen=True)
class Range:
    """An interval of numbers, `high` included; `above` excludes `low`, `below` excludes `high`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        from_low = value > self.low if self.above else value >= self.low
        return from_low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"from {self.low:,} to {self.high:,}"
        low = f"above {self.low:,}" if self.above else f"at least {self.low:,}"
        return f"{low} and {'below' if self.below else 'at most'} {self.high:,}"


MAX_SIDE = 16_384  # pixels
MAX_WORKERS = 1024  # per process; datasets/clip_dataset.py has a table of them

_GROUPS = (
    # ------------------------------------------------------------------ counts from 1
    (Range(1, 10**9), "LOG_PERIOD TRAIN.EVAL_PERIOD TRAIN.CHECKPOINT_PERIOD BN.NUM_BATCHES_PRECISE"),
    (Range(1, 10**6), "TRAIN.BATCH_SIZE TRAIN.ACCUMULATION_STEPS TEST.BATCH_SIZE SOLVER.MAX_EPOCH MODEL.NUM_CLASSES"),
    (Range(1, 10**6), "DATA.SAMPLING_RATE DATA.TARGET_FPS"),
    (Range(1, 100_000), "NUM_SHARDS"),
    (Range(1, 4096), "DATA.NUM_FRAMES"),
    (Range(1, 10_000), "TEST.NUM_ENSEMBLE_VIEWS EVENT.STREAMS EVENT.CHUNK EVENT2VEC.T_HEADS"),
    (Range(1, MAX_SIDE), "DATA.TRAIN_JITTER_SCALES DATA.TRAIN_CROP_SIZE DATA.TEST_CROP_SIZE EAT.PATCH_SIZE"),
    (Range(1, MAX_SIDE), "DVS.SENSOR_SIZE EVENT2VEC.GRID_SIZE EVMLP.PATCH_SIZES"),
    (Range(1, 1000), "AUG.NUM_SAMPLE AUG.REPEATED AUG.RE_COUNT DATA_LOADER.PREFETCH_FACTOR"),
    (Range(1, 1000), "MORPH.LAYERS CONVMLP.LAYERS EAT.LAYERS EAT.CLASS_LAYERS EVMLP.LAYERS EVENT2VEC.LAYERS"),
    (Range(1, 65_536), "MORPH.EMBED_DIMS MORPH.SEGMENT_DIM CONVMLP.EMBED_DIMS CONVMLP.CONV_DIM EVMLP.EMBED_DIMS"),
    (Range(1, 1000), "EFFICIENTNET.LAYERS REGNET.LAYERS"),
    (Range(1, 65_536), "EFFICIENTNET.EMBED_DIMS EFFICIENTNET.HEAD_DIM REGNET.EMBED_DIMS REGNET.GROUP_WIDTH"),
    (Range(1, 65_535), "EAT.LOCAL_KS"),
    (Range(1, 65_536), "EAT.EMBED_DIM EAT.HEADS EVENT2VEC.EMBED_DIM EVENT2VEC.HEADS EVENT2VEC.MLP_DIM"),
    (Range(1, 64), "MORPH.MLP_RATIOS CONVMLP.MLP_RATIOS EAT.MLP_RATIO EVMLP.MLP_RATIOS"),
    # ------------------------------------------------------------------ counts from 0
    (Range(0, 2**63 - 1), "RNG_SEED"),
    (Range(0, 10**15), "DVS.LONGEST"),
    (Range(0, 10**12), "EVENT.MAX_FRAMES"),
    (Range(0, 10**9), "TRAIN.CHECKPOINT_KEEP DVS.NUM_EVENTS EVENT.KEYFRAME_EVERY"),
    (Range(0, 100_000), "NUM_GPUS SHARD_ID"),
    (Range(0, MAX_SIDE), "DVS.TRANSLATE DVS.ERASE"),
    (Range(0, MAX_WORKERS), "DATA.DECODING_THREADS DATA_LOADER.NUM_WORKERS DATA_LOADER.DRAW_SAMPLES"),
    (Range(0, 1000), "CONVMLP.CONV_LAYERS MODEL.ACT_CHECKPOINT"),
    # ------------------------------------------------------------------ shares
    (Range(0, 1), "DATA.MAX_FAILED DATA.MEAN AUG.RE_PROB MIXUP.PROB MIXUP.SWITCH_PROB MODEL.EMA_DECAY"),
    (Range(0, 1), "DISTILL.ALPHA DVS.AUG_PROB EAT.LOCAL_RATIO"),
    (Range(0, 1, below=True), "MIXUP.LABEL_SMOOTH_VALUE SOLVER.MOMENTUM SOLVER.DAMPENING SOLVER.BETAS DVS.DROP"),
    (Range(0, 1, below=True), "MORPH.DROP_DEPTH_RATE CONVMLP.DROP_DEPTH_RATE EAT.DROP_DEPTH_RATE"),
    (Range(0, 1, below=True), "EFFICIENTNET.DROP_DEPTH_RATE EFFICIENTNET.DROPOUT_RATE"),
    (Range(0, 1, below=True), "EVMLP.DROPOUT_RATES EVENT2VEC.MASK_RATIO"),
    (Range(0.01, 1), "DATA.IN_VAL_CROP_RATIO"),
    # ------------------------------------------------------------------ other numbers
    (Range(0, 10**6, above=True), "SOLVER.BASE_LR"),
    (Range(0, 10**6), "SOLVER.COSINE_END_LR SOLVER.WARMUP_START_LR SOLVER.LRS SOLVER.STEPS SOLVER.WARMUP_EPOCHS"),
    (Range(0, 10**6), "SOLVER.COOLDOWN_EPOCHS"),
    (Range(0, 10**6), "SOLVER.WEIGHT_DECAY BN.WEIGHT_DECAY EVENT.THRESHOLD EVENT.RECONNECT DATA_LOADER.TIMEOUT"),
    (Range(0, 10**12), "SOLVER.CLIP_GRAD_VAL SOLVER.CLIP_GRAD_L2NORM"),
    (Range(0, 1000), "MIXUP.ALPHA MIXUP.CUTMIX_ALPHA AUG.COLOR_JITTER DVS.ROTATE DVS.SHEAR"),
    (Range(0, 100), "DVS.TIME_JITTER DVS.NOISE"),
    (Range(1e-6, 1000), "DATA.STD"),
    (Range(1e-3, 1e6), "DISTILL.TAU DVS.FRAME_GAIN"),
    (Range(1e-3, 1000), "DVS.SCALE DATA.TRAIN_JITTER_ASPECT_RELATIVE"),
    (Range(0, 1, above=True), "DATA.TRAIN_JITTER_SCALES_RELATIVE"),
    (Range(1e-12, 3600), "DVS.TIME_UNIT"),
)
RANGES: dict[str, Range] = {key: allowed for allowed, keys in _GROUPS for key in keys.split()}

CHOICES: dict[str, tuple[str | int, ...]] = {
    "TRAIN.CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.CHECKPOINT_WEIGHTS": ("auto", "raw", "ema"),
    "DISTILL.TEACHER_CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TEST.SINGLE_CROP": ("center", "left"),
    "BN.NORM_TYPE": ("batchnorm", "sync_batchnorm"),
    "MODEL.FRAMEWISE": ("", "logits", "features"),
    "EVENT2VEC.POLARITIES": (1, 2),
}
# Keys whose choices are the names in a registry: its module and attribute, imported when a config is checked.
REGISTRIES = {
    "TRAIN.DATASET": ("slowfast.datasets.build", "DATASET_REGISTRY"),
    "TRAIN.AMP_DTYPE": ("slowfast.engine.forward", "AMP_DTYPES"),
    "TEST.DATASET": ("slowfast.datasets.build", "DATASET_REGISTRY"),
    "TEST.FRAME_ORDER": ("slowfast.datasets.sampling", "FRAME_ORDERS"),
    "TEST.ENSEMBLE_ON": ("slowfast.engine.evaluate", "ENSEMBLE_ON"),
    "DATA.SAMPLING": ("slowfast.datasets.order", "SAMPLING"),
    "DATA.IN_VAL_INTERPOLATION": ("slowfast.datasets.resample", "FILTERS"),
    "DATA.DECODING_BACKEND": ("slowfast.datasets.decode", "BACKENDS"),
    "DATA.ENSEMBLE_METHOD": ("slowfast.engine.evaluate", "JOIN"),
    "AUG.RE_MODE": ("slowfast.datasets.random_erasing", "MODES"),
    "SOLVER.OPTIMIZING_METHOD": ("slowfast.engine.optim", "OPTIMIZERS"),
    "DISTILL.TYPE": ("slowfast.engine.distillation", "LOSSES"),
    "SOLVER.LR_POLICY": ("slowfast.engine.optim", "POLICIES"),
    "MODEL.MODEL_NAME": ("slowfast.models.build", "MODEL_REGISTRY"),
    "MODEL.LOSS_FUNC": ("slowfast.engine.losses", "LOSSES"),
    "EAT.PIXEL_ORDER": ("slowfast.models.eat_blocks", "PIXEL_ORDERS"),
    "EAT.SFC_MODE": ("slowfast.models.eat_blocks", "SFC_MODES"),
    "EAT.BLOCK_TYPE": ("slowfast.models.eat_blocks", "BLOCK_TYPES"),
    "EAT.LOCAL": ("slowfast.models.eat_blocks", "LOCAL_BRANCHES"),
    "EVMLP.INIT": ("slowfast.models.evmlp", "INITS"),
    "DVS.CLASS_ORDER": ("slowfast.datasets.dvs.index", "CLASS_ORDERS"),
    "DVS.FRAMES": ("slowfast.datasets.dvs.frames", "FRAME_KINDS"),
    "DVS.TIME_NORM": ("slowfast.datasets.dvs.sample", "TIME_NORMS"),
    "EVENT.REFERENCE": ("slowfast.event_driven.detector", "REFERENCES"),
    "EVENT.GATE": ("slowfast.event_driven.detector", "GATES"),
    "EVENT.RESIZE": ("slowfast.event_driven.sources", "RESIZES"),
    "EVENT.PRECISION": ("slowfast.event_driven.engine", "PRECISIONS"),
    "EVENT2VEC.TPE": ("slowfast.models.event2vec", "TIME_ENCODINGS"),
}

LENGTHS = {
    "DATA.MEAN": 3,
    "DATA.STD": 3,
    "DATA.TRAIN_JITTER_SCALES": 2,
    "SOLVER.BETAS": 2,
    "EVENT2VEC.GRID_SIZE": 2,
    "DVS.SENSOR_SIZE": 2,
    "DVS.SCALE": 2,
}
# Longest list of the other keys that hold numbers, such as one value per stage or per step of the schedule.
MAX_LENGTH = 100
MAX_BLOCKS = 1000  # of a network, over all stages
# Keys with a {} to fill in: two examples of what is filled in, and the format specifications that may be used.
TEMPLATES: dict[str, tuple[str | int, str | int, re.Pattern[str]]] = {
    "DATA.LABEL_PATH_TEMPLATE": ("train", "validation", re.compile(r"s?")),
    "DATA.IMAGE_TEMPLATE": (1, 2, re.compile(r"0?[1-9]?[0-9]?d?")),
}
NOT_EMPTY = frozenset({"OUTPUT_DIR", "DATA.PATH_LABEL_SEPARATOR"})
PATHS = frozenset(
    "OUTPUT_DIR TRAIN.CHECKPOINT_FILE_PATH TEST.CHECKPOINT_FILE_PATH DATA.PATH_TO_DATA_DIR DATA.PATH_PREFIX"
    " DATA.LABEL_PATH_TEMPLATE DATA.IMAGE_TEMPLATE MODEL.CLASS_WEIGHTS MORPH.PRETRAIN_PATH DISTILL.TEACHER_CFG"
    " DISTILL.TEACHER_CHECKPOINT TENSORBOARD.LOG_DIR TEST.SAVE_RESULTS_PATH".split()
)


def check_values(cfg: ConfigNode) -> None:
    """Raise ConfigError for the first key whose value alone is wrong."""
    for key, value in cfg.keys_by_path():
        _check_choice(key, value)
        if key in LENGTHS and len(value) != LENGTHS[key]:
            raise ConfigError(f"{key} has {len(value)} values. It must have {LENGTHS[key]}")
        if key in NOT_EMPTY and not value:
            raise ConfigError(f"{key} is empty. Give it a value")
        if key in RANGES:
            _check_range(key, value)
        if key in TEMPLATES:
            _check_template(key, value)
        if key in PATHS:
            _check_path(key, value)
    if any(character in cfg.DATA.PATH_LABEL_SEPARATOR for character in "\r\n"):
        raise ConfigError("DATA.PATH_LABEL_SEPARATOR must not contain line breaks")


def choices(key: str) -> tuple[str | int, ...]:
    """Return the values a key may have, () where it is not one of a few."""
    if key in REGISTRIES:
        module, attribute = REGISTRIES[key]
        registry = getattr(import_module(module), attribute)
        # A fvcore Registry yields pairs of name and object.
        return tuple(entry[0] if isinstance(entry, tuple) else entry for entry in registry)
    return CHOICES.get(key, ())


def _check_choice(key: str, value: Any) -> None:
    known = choices(key)
    if not known or value in known:
        return
    if isinstance(known[0], int):
        raise ConfigError(f"{key} ({quoted(value)}) must be {' or '.join(map(str, known))}")
    raise ConfigError(unknown_value(key, value, sorted(map(str, known))))


def _check_range(key: str, value: Any) -> None:
    allowed = RANGES[key]
    if not isinstance(value, list):
        if value not in allowed:
            raise ConfigError(f"{key} ({quoted(value)}) must be {allowed}")
        return
    if len(value) > MAX_LENGTH:
        raise ConfigError(f"{key} has {len(value)} values. It may have at most {MAX_LENGTH}")
    if key.endswith(".LAYERS") and sum(value) > MAX_BLOCKS:
        raise ConfigError(f"{key} ({quoted(value)}) has more than {MAX_BLOCKS} blocks in total")
    if any(element not in allowed for element in value):
        raise ConfigError(f"{key} ({quoted(value)}): each value must be {allowed}")


def _check_template(key: str, value: str) -> None:
    """Check that a template has one field, without attributes or conversions, of a plain and short format."""
    one, other, spec = TEMPLATES[key]
    try:
        fields = [part[1:] for part in Formatter().parse(value) if part[1] is not None]
        plain_fields = all(
            name in ("", "0") and conversion is None and spec.fullmatch(form or "") for name, form, conversion in fields
        )
        usable = plain_fields and value.format(one) != value.format(other)
    except (ValueError, IndexError):
        usable = False
    if not usable:
        example = "{:05d}.jpg" if key == "DATA.IMAGE_TEMPLATE" else "somesomev2_rgb_{}_split.txt"
        raise ConfigError(f"{key} ({quoted(value)}) must contain one plain {{}} field, such as {example}")


def _check_path(key: str, value: str) -> None:
    if "://" in value:  # the address of a stream
        return
    if len(value.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
        raise ConfigError(f"{key} ({quoted(value)}) is longer than {MAX_PATH_BYTES} bytes. Choose a shorter path")
    if any(len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for name in value.split("/")):
        raise ConfigError(f"{key} ({quoted(value)}): a file name is longer than {MAX_NAME_BYTES} bytes. Shorten it")
