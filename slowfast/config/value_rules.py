"""Which values a single key may have: choices, ranges, lengths of lists."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from slowfast.config.nearest import nearest_name
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError

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
    "EVENT.PRECISION": ("slowfast.event_driven.engine", "PRECISIONS"),
    "EVENT2VEC.TPE": ("slowfast.models.event2vec", "TIME_ENCODINGS"),
}

AT_LEAST_1 = frozenset(
    "NUM_SHARDS LOG_PERIOD TRAIN.BATCH_SIZE TRAIN.EVAL_PERIOD TRAIN.CHECKPOINT_PERIOD TRAIN.ACCUMULATION_STEPS"
    " TEST.BATCH_SIZE TEST.NUM_ENSEMBLE_VIEWS DATA.NUM_FRAMES DATA.SAMPLING_RATE DATA.TARGET_FPS"
    " DATA.TRAIN_JITTER_SCALES DATA.TRAIN_CROP_SIZE DATA.TEST_CROP_SIZE DATA_LOADER.PREFETCH_FACTOR"
    " AUG.NUM_SAMPLE AUG.RE_COUNT SOLVER.MAX_EPOCH BN.NUM_BATCHES_PRECISE MODEL.NUM_CLASSES"
    " MORPH.LAYERS MORPH.SEGMENT_DIM MORPH.EMBED_DIMS MORPH.MLP_RATIOS"
    " CONVMLP.LAYERS CONVMLP.EMBED_DIMS CONVMLP.MLP_RATIOS CONVMLP.CONV_DIM"
    " EAT.PATCH_SIZE EAT.LAYERS EAT.CLASS_LAYERS EAT.EMBED_DIM EAT.HEADS EAT.MLP_RATIO EAT.LOCAL_KS"
    " EFFICIENTNET.LAYERS EFFICIENTNET.EMBED_DIMS EFFICIENTNET.HEAD_DIM"
    " REGNET.LAYERS REGNET.EMBED_DIMS REGNET.GROUP_WIDTH"
    " EVMLP.EMBED_DIMS EVMLP.PATCH_SIZES EVMLP.LAYERS EVMLP.MLP_RATIOS"
    " EVENT2VEC.GRID_SIZE EVENT2VEC.EMBED_DIM EVENT2VEC.HEADS EVENT2VEC.MLP_DIM EVENT2VEC.LAYERS EVENT2VEC.T_HEADS"
    " DVS.SENSOR_SIZE EVENT.STREAMS EVENT.CHUNK".split()
)
AT_LEAST_0 = frozenset(
    "NUM_GPUS SHARD_ID RNG_SEED TRAIN.CHECKPOINT_KEEP DATA.DECODING_THREADS DATA_LOADER.NUM_WORKERS"
    " DATA_LOADER.TIMEOUT AUG.COLOR_JITTER MIXUP.ALPHA MIXUP.CUTMIX_ALPHA SOLVER.COSINE_END_LR SOLVER.STEPS"
    " DATA_LOADER.DRAW_SAMPLES"
    " SOLVER.COOLDOWN_EPOCHS"
    " SOLVER.LRS SOLVER.WARMUP_EPOCHS SOLVER.WARMUP_START_LR SOLVER.WEIGHT_DECAY SOLVER.CLIP_GRAD_VAL"
    " DVS.NUM_EVENTS DVS.LONGEST DVS.TRANSLATE DVS.ROTATE DVS.SHEAR DVS.TIME_JITTER DVS.NOISE DVS.ERASE"
    " EVENT.THRESHOLD EVENT.KEYFRAME_EVERY EVENT.MAX_FRAMES EVENT.RECONNECT SOLVER.CLIP_GRAD_L2NORM BN.WEIGHT_DECAY"
    " CONVMLP.CONV_LAYERS".split()
)
ABOVE_0 = frozenset(
    "SOLVER.BASE_LR DATA.STD DATA.IN_VAL_CROP_RATIO DISTILL.TAU DVS.TIME_UNIT DVS.FRAME_GAIN DVS.SCALE".split()
)
FROM_0_TO_1 = frozenset(
    "DATA.IN_VAL_CROP_RATIO DATA.MAX_FAILED DATA.MEAN AUG.RE_PROB MIXUP.PROB MIXUP.SWITCH_PROB MODEL.EMA_DECAY"
    " DISTILL.ALPHA DVS.AUG_PROB EAT.LOCAL_RATIO".split()
)
FROM_0_BELOW_1 = frozenset(
    "MIXUP.LABEL_SMOOTH_VALUE SOLVER.MOMENTUM SOLVER.DAMPENING SOLVER.BETAS MORPH.DROP_DEPTH_RATE"
    " CONVMLP.DROP_DEPTH_RATE EAT.DROP_DEPTH_RATE EFFICIENTNET.DROP_DEPTH_RATE EFFICIENTNET.DROPOUT_RATE"
    " EVMLP.DROPOUT_RATES EVENT2VEC.MASK_RATIO DVS.DROP".split()
)
MAX_WORKERS = 1024  # of a process; datasets/media_dataset.py has a table of them
# Each rule: its keys, the test, and how it reads after "must be".
RANGES = (
    (AT_LEAST_1, lambda x: x >= 1, "at least 1"),
    (AT_LEAST_0, lambda x: x >= 0, "at least 0"),
    (ABOVE_0, lambda x: x > 0, "above 0"),
    (frozenset({"RNG_SEED"}), lambda x: x < 2**63, "below 2 to the power of 63"),
    (frozenset({"DATA_LOADER.NUM_WORKERS"}), lambda x: x <= MAX_WORKERS, f"at most {MAX_WORKERS}"),
    (FROM_0_TO_1, lambda x: 0 <= x <= 1, "from 0 to 1"),
    (FROM_0_BELOW_1, lambda x: 0 <= x < 1, "from 0 to below 1"),
)

LENGTHS = {
    "DATA.MEAN": 3,
    "DATA.STD": 3,
    "DATA.TRAIN_JITTER_SCALES": 2,
    "SOLVER.BETAS": 2,
    "EVENT2VEC.GRID_SIZE": 2,
    "DVS.SENSOR_SIZE": 2,
    "DVS.SCALE": 2,
}
# Keys whose {} stands for something, with two examples of it: both must give a name, and another one.
TEMPLATES: dict[str, tuple[str | int, str | int]] = {
    "DATA.LABEL_PATH_TEMPLATE": ("train", "validation"),
    "DATA.IMAGE_TEMPLATE": (1, 2),
}
NOT_EMPTY = frozenset({"OUTPUT_DIR", "DATA.PATH_LABEL_SEPARATOR"})


def check_values(cfg: ConfigNode) -> None:
    """Raise ConfigError for the first key whose value alone is wrong."""
    for key, value in cfg.keys_by_path():
        _check_choice(key, value)
        if key in LENGTHS and len(value) != LENGTHS[key]:
            raise ConfigError(f"{key} {value} has {len(value)} values; it must have {LENGTHS[key]}")
        if key in NOT_EMPTY and not value:
            raise ConfigError(f"{key} is empty; give it a value")
        _check_range(key, value)
        if key in TEMPLATES:
            _check_template(key, value)


def choices(key: str) -> tuple[str | int, ...]:
    """The values a key may have; () where it is not one of a few."""
    if key in REGISTRIES:
        module, attribute = REGISTRIES[key]
        return tuple(getattr(import_module(module), attribute))
    return CHOICES.get(key, ())


def _check_choice(key: str, value: Any) -> None:
    known = choices(key)
    if not known or value in known:
        return
    if isinstance(known[0], int):
        raise ConfigError(f"{key} {value}: must be {' or '.join(map(str, known))}")
    names = sorted(map(str, known))
    near = nearest_name(value, names)
    raise ConfigError(
        f"{key}: there is no {value!r}; the nearest is {near} (of {', '.join(name or 'empty' for name in names)})"
    )


def _check_range(key: str, value: Any) -> None:
    elements = value if isinstance(value, list) else [value]
    for keys, is_right, meaning in RANGES:
        if key in keys and not all(is_right(element) for element in elements):
            each = "each element " if isinstance(value, list) else ""
            raise ConfigError(f"{key} {value}: {each}must be {meaning}")


def _check_template(key: str, value: str) -> None:
    one, other = TEMPLATES[key]
    try:
        usable = value.format(one) != value.format(other)
    except (ValueError, IndexError, KeyError, AttributeError):
        usable = False
    if not usable:
        raise ConfigError(f"{key} {value!r} must hold one {{}} for such values as {one!r} and {other!r}")
