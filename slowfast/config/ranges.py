"""The range of every numeric key.

Upper bounds are far above any use: they refuse what no machine can hold before anything starts. Combinations of values
are limited by memory_rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass


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
MAX_WORKERS = 1024  # per process; datasets/media_dataset.py has a table of them

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
