"""Which values a single key may have: choices, ranges, lengths of lists."""

from __future__ import annotations

import re
from importlib import import_module
from string import Formatter
from typing import Any

from slowfast.config.nearest import unknown_value
from slowfast.config.node import ConfigNode
from slowfast.config.ranges import RANGES
from slowfast.errors import ConfigError
from slowfast.utils.output import MAX_NAME_BYTES, MAX_PATH_BYTES
from slowfast.utils.quote import quoted

CHOICES: dict[str, tuple[str | int, ...]] = {
    "TRAIN.CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.CHECKPOINT_WEIGHTS": ("auto", "raw", "ema"),
    "DISTILL.TEACHER_CHECKPOINT_TYPE": ("pytorch", "paddle"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TEST.FRAME_ORDER": ("normal", "repeated", "shuffled"),
    "TEST.SINGLE_CROP": ("center", "left"),
    "BN.NORM_TYPE": ("batchnorm", "sync_batchnorm"),
    "MODEL.FRAMEWISE": ("", "logits", "features"),
    "EVENT2VEC.POLARITIES": (1, 2),
}
# Keys whose choices are the names in a registry: its module and attribute, imported when a config is checked.
REGISTRIES = {
    "TRAIN.DATASET": ("slowfast.datasets.build", "DATASETS"),
    "TRAIN.AMP_DTYPE": ("slowfast.engine.forward", "AMP_DTYPES"),
    "TEST.DATASET": ("slowfast.datasets.build", "DATASETS"),
    "TEST.ENSEMBLE_ON": ("slowfast.engine.ensemble", "ENSEMBLE_ON"),
    "DATA.SAMPLING": ("slowfast.datasets.order", "SAMPLING"),
    "DATA.IN_VAL_INTERPOLATION": ("slowfast.datasets.resize", "FILTERS"),
    "DATA.DECODING_BACKEND": ("slowfast.datasets.decode", "BACKENDS"),
    "DATA.ENSEMBLE_METHOD": ("slowfast.engine.ensemble", "JOIN"),
    "AUG.RE_MODE": ("slowfast.datasets.random_erasing", "MODES"),
    "SOLVER.OPTIMIZING_METHOD": ("slowfast.engine.optimizer", "OPTIMIZERS"),
    "DISTILL.TYPE": ("slowfast.engine.distillation", "LOSSES"),
    "SOLVER.LR_POLICY": ("slowfast.engine.schedule", "POLICIES"),
    "MODEL.MODEL_NAME": ("slowfast.models.build", "MODELS"),
    "MODEL.LOSS_FUNC": ("slowfast.engine.losses", "LOSSES"),
    "EAT.PIXEL_ORDER": ("slowfast.models.pixel_order", "PIXEL_ORDERS"),
    "EAT.SFC_MODE": ("slowfast.models.eat_blocks", "SFC_MODES"),
    "EAT.BLOCK_TYPE": ("slowfast.models.eat_blocks", "BLOCK_TYPES"),
    "EAT.LOCAL": ("slowfast.models.eat_blocks", "LOCAL_BRANCHES"),
    "EVMLP.INIT": ("slowfast.models.evmlp", "INITS"),
    "DVS.CLASS_ORDER": ("slowfast.datasets.dvs.index", "CLASS_ORDERS"),
    "DVS.FRAMES": ("slowfast.datasets.dvs.frames", "FRAME_KINDS"),
    "DVS.TIME_NORM": ("slowfast.datasets.dvs.normalize_time", "TIME_NORMS"),
    "EVENT.REFERENCE": ("slowfast.event_driven.gate", "REFERENCES"),
    "EVENT.GATE": ("slowfast.event_driven.gate", "GATES"),
    "EVENT.RESIZE": ("slowfast.event_driven.resize", "RESIZES"),
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
        return tuple(getattr(import_module(module), attribute))
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
