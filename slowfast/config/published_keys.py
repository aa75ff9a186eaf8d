"""Keys of published PySlowFast and MorphMLP configs that are not declared here: ignored with a warning, or translated.

Published files load unchanged. As overrides, these keys are errors, because a user who sets one expects an effect.

The names are those of the published ``slowfast/config/defaults.py`` of both projects. Declared keys are never looked up
here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from slowfast.config.key import coerce
from slowfast.config.parse import OVERRIDES, Setting
from slowfast.errors import ConfigError

# Sections of other networks, detection, demos and pre-training tasks.
IGNORED_SECTIONS = frozenset(
    "AVA BENCHMARK CONTRASTIVE DEMO DETECTION MASK MULTIGRID MVIT NONLOCAL RESNET SLOWFAST VIS_MASK X3D"
    " TENSORBOARD.CONFUSION_MATRIX TENSORBOARD.HISTOGRAM TENSORBOARD.MODEL_VIS TENSORBOARD.WRONG_PRED_VIS".split()
)

_IGNORED_BY_SECTION = {
    "": "DIST_BACKEND LOG_MODEL_INFO TASK",
    "TRAIN": "CHECKPOINT_CLEAR_NAME_PATTERN CHECKPOINT_INFLATE CHECKPOINT_IN_INIT KILL_LOSS_EXPLOSION_FACTOR",
    "TEST": "NUM_TEMPORAL_CLIPS",
    "AUG": "GEN_MASK_LOADER MASK_FRAMES MASK_RATIO MASK_TUBE MASK_WINDOW_SIZE MAX_MASK_PATCHES_PER_BLOCK RE_SPLIT",
    "BN": "GLOBAL_SYNC NUM_SPLITS NUM_SYNC_DEVICES",
    "DATA": "COLOR_RND_GRAYSCALE DUMMY_LOAD IN22k_VAL_IN1K IN22K_TRAINVAL INPUT_CHANNEL_NUM"
    " INV_UNIFORM_SAMPLE LOADER_CHUNK_OVERALL_SIZE LOADER_CHUNK_SIZE"
    " MULTI_LABEL PATH_TO_PRELOAD_IMDB SKIP_ROWS SSL_BLUR_SIGMA_MAX SSL_BLUR_SIGMA_MIN SSL_COLOR_BRI_CON_SAT"
    " SSL_COLOR_HUE SSL_COLOR_JITTER SSL_MOCOV2_AUG TIME_DIFF_PROB TRAIN_CROP_NUM_SPATIAL"
    " TRAIN_CROP_NUM_TEMPORAL TRAIN_JITTER_FPS TRAIN_JITTER_MOTION_SHIFT TRAIN_PCA_EIGVAL TRAIN_PCA_EIGVEC",
    "DATA_LOADER": "ENABLE_MULTI_THREAD_DECODE",
    "MODEL": "ARCH DETACH_FINAL_FC DROPCONNECT_RATE DROPOUT_RATE FC_INIT_STD FP16_ALLREDUCE FROZEN_BN HEAD_ACT"
    " MULTI_PATHWAY_ARCH SINGLE_PATHWAY_ARCH",
    "MORPH": "ATTENTION_DROPOUT_RATE PATCH_SIZE QKV_SCALE T_STRIDE TRANSITIONS",
    "SOLVER": "GAMMA LARS_ON STEP_SIZE WARMUP_FACTOR",
    "TENSORBOARD": "CATEGORIES_PATH CLASS_NAMES_PATH PREDICTIONS_PATH",
}
IGNORED_KEYS = frozenset(
    f"{section}.{name}".lstrip(".") for section, names in _IGNORED_BY_SECTION.items() for name in names.split()
)

# What `translate` does, for docs/CONFIG.md.
TRANSLATED = {
    "`MODEL.USE_CHECKPOINT`, `MODEL.CHECKPOINT_NUM`": "`MODEL.ACT_CHECKPOINT`",
    "`SOLVER.CLIP_GRADIENT`": "`SOLVER.CLIP_GRAD_L2NORM`",
    "`SOLVER.CLIP_GRAD_VAL: null`, `SOLVER.CLIP_GRAD_L2NORM: null`": "0",
    "`DATA.DECODING_BACKEND: torchvision` or `decord`": "`pyav`",
    "a published file with `TRAIN.DATASET: sth`": "`DATA.REVERSE_INPUT_CHANNEL: True`, unless the file sets it",
    "a published file with `MODEL.MODEL_NAME: MorphMLP` or `MorphMLP_32`": (
        "`SOLVER.CLIP_GRAD_L2NORM: 20`, unless the file sets a limit"
    ),
}

CHECKPOINT_SWITCH, CHECKPOINT_COUNT = "MODEL.USE_CHECKPOINT", "MODEL.CHECKPOINT_NUM"
# Datasets whose published loader feeds BGR frames; the key is not in published files.
BGR_DATASETS, BGR_KEY = ("sth",), "DATA.REVERSE_INPUT_CHANNEL"
CLIP_KEYS = frozenset({"SOLVER.CLIP_GRAD_VAL", "SOLVER.CLIP_GRAD_L2NORM"})
# Networks whose published code clips gradients by default, and the norm; the key is not in published files.
CLIPPED_NETWORKS, CLIP_NORM = ("MorphMLP", "MorphMLP_32"), 20.0
OTHER_DECODERS = ("torchvision", "decord")


@dataclass
class Translated:
    """Translated settings, and how they differ from the published ones."""

    settings: list[Setting] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def warning(self) -> str:
        """Return a line for the log; "" if nothing differs."""
        parts = list(self.notes)
        if self.ignored:
            parts.insert(0, "ignored published keys without effect here: " + ", ".join(self.ignored))
        return "; ".join(parts)


def is_ignored(key: str) -> bool:
    """Return True if a published key or its section has no effect here."""
    parts = key.split(".")
    sections = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return key in IGNORED_KEYS or any(section in IGNORED_SECTIONS for section in sections)


def translate(settings: list[Setting], is_declared: Callable[[str], bool]) -> Translated:
    """Drop published keys without effect and rename those that have another name here; keep unknown keys.

    Args:
        settings: Settings of a file and its `_BASE_` chain, or overrides.
        is_declared: Returns True for the dotted name of a key or section of this project.

    Raises:
        ConfigError: If a published value has no counterpart, or an override has no effect.
    """
    out = Translated()
    checkpointing: dict[str, Setting] = {}
    for setting in settings:
        if is_declared(setting.key):
            out.settings.append(_translate_value(setting, out.notes))
        elif setting.key in (CHECKPOINT_SWITCH, CHECKPOINT_COUNT):
            checkpointing[setting.key] = setting
        elif setting.key == "SOLVER.CLIP_GRADIENT":
            out.settings.append(replace(setting, key="SOLVER.CLIP_GRAD_L2NORM"))
            out.notes.append("SOLVER.CLIP_GRADIENT is read as SOLVER.CLIP_GRAD_L2NORM")
        elif is_ignored(setting.key):
            if setting.where == OVERRIDES:
                raise ConfigError(
                    f"{OVERRIDES}: {setting.key}, a key of published SlowFast configs, has no effect here. Remove it"
                )
            if setting.key not in out.ignored:
                out.ignored.append(setting.key)
        else:
            out.settings.append(setting)
    if out.ignored or out.notes:  # a published file
        _set_channel_order(out)
        _set_clipping(out)
    if checkpointing:
        _translate_checkpointing(checkpointing, out)
    return out


def _translate_value(setting: Setting, notes: list[str]) -> Setting:
    if setting.key == "DATA.DECODING_BACKEND" and setting.raw in OTHER_DECODERS:
        notes.append(f"DATA.DECODING_BACKEND {setting.raw} is read as pyav, the default")
        return replace(setting, raw="pyav")
    if setting.key in CLIP_KEYS and setting.raw in (None, "None", "null"):
        return replace(setting, raw=0.0)  # None for no clipping in published files
    return setting


def _set_channel_order(out: Translated) -> None:
    """Feed BGR frames for datasets whose published loader does not convert them to RGB."""
    keys = {setting.key for setting in out.settings}
    for setting in list(out.settings):
        if setting.key == "TRAIN.DATASET" and setting.raw in BGR_DATASETS and BGR_KEY not in keys:
            out.settings.append(Setting(BGR_KEY, True, setting.where))
            out.notes.append(
                f"frames of {setting.raw} are fed as BGR ({BGR_KEY} True), as in the published code. Set it to False "
                "for networks trained on RGB"
            )


def _set_clipping(out: Translated) -> None:
    """Clip gradients for networks whose published code clips by default."""
    keys = {setting.key for setting in out.settings}
    for setting in list(out.settings):
        if setting.key == "MODEL.MODEL_NAME" and setting.raw in CLIPPED_NETWORKS and not keys & CLIP_KEYS:
            out.settings.append(Setting("SOLVER.CLIP_GRAD_L2NORM", CLIP_NORM, setting.where))
            out.notes.append(
                f"gradients are clipped (SOLVER.CLIP_GRAD_L2NORM {CLIP_NORM:g}), the default of the published code"
            )


def _translate_checkpointing(found: dict[str, Setting], out: Translated) -> None:
    """Translate MODEL.USE_CHECKPOINT (default True) and MODEL.CHECKPOINT_NUM to MODEL.ACT_CHECKPOINT."""
    value: Any = True
    if CHECKPOINT_COUNT in found:
        value = _blocks_per_stage(found[CHECKPOINT_COUNT])
    if CHECKPOINT_SWITCH in found and not coerce(found[CHECKPOINT_SWITCH], True):
        value = False
    out.settings.append(Setting("MODEL.ACT_CHECKPOINT", value, next(iter(found.values())).where))
    out.notes.append(f"{' and '.join(sorted(found, reverse=True))} read as MODEL.ACT_CHECKPOINT {value}")


def _blocks_per_stage(setting: Setting) -> int:
    is_list = isinstance(setting.raw, (list, tuple)) or (
        isinstance(setting.raw, str) and setting.raw.startswith(("[", "("))
    )
    counts = coerce(setting, [0]) if is_list else [coerce(setting, 0)]
    if len(set(counts)) != 1:
        raise setting.error("different numbers per stage are not supported. Set MODEL.ACT_CHECKPOINT to one number")
    return int(counts[0])
