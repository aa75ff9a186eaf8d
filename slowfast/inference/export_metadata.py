"""Metadata of exported files: preprocessing and class names.

One schema for .onnx, .pt2 and .safetensors files: text by name, JSON where a value is not text. docs/DEPLOYMENT.md
describes every entry.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slowfast import __version__
from slowfast.config.defaults import check_values, get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset, has_data
from slowfast.datasets.dvs.frames import EveryFrame
from slowfast.datasets.index.samples import SampleKind
from slowfast.datasets.resample import FILTERS, resize_plain
from slowfast.datasets.sampling import SegmentSampling, SingleImage, SpanSampling
from slowfast.datasets.transforms import ViewTransform
from slowfast.engine.evaluate import Ensemble, softmax
from slowfast.engine.state import CLASS_NAMES
from slowfast.engine.tasks import task_class
from slowfast.errors import ConfigError, UserError
from slowfast.models.protocol import CLIPS, EVENTS, Network
from slowfast.utils.text import plain, quoted
from slowfast.utils.text_files import from_json, to_json

SCHEMA, VERSION = "slowfast-export", 1
SCHEMA_KEY, CONFIG, INPUT, PRECISION = "schema", "config", "input", "precision"
INPUT_NAME, OUTPUT_NAME = "input", "logits"
ANY_BATCH = "any"
FLOAT32 = "float32"
CUSTOM = "custom"  # value for user-defined datasets and tasks

# Keys that affect predictions in addition to the network; run-exported restores them.
CONFIG_KEYS = (
    *("DATA.IMAGE_TEMPLATE", "DATA.NUM_FRAMES", "DATA.SAMPLING_RATE", "DATA.TARGET_FPS", "DATA.USE_OFFSET_SAMPLING"),
    *("DATA.TRAIN_JITTER_SCALES", "DATA.TEST_CROP_SIZE", "DATA.IN_VAL_CROP_RATIO", "DATA.IN_VAL_INTERPOLATION"),
    *("DATA.MEAN", "DATA.STD", "DATA.REVERSE_INPUT_CHANNEL", "DATA.DECODING_BACKEND", "DATA.ENSEMBLE_METHOD"),
    *("TEST.DATASET", "TEST.NUM_ENSEMBLE_VIEWS", "TEST.NUM_SPATIAL_CROPS", "TEST.SINGLE_CROP", "TEST.ENSEMBLE_ON"),
    *("TEST.FRAME_ORDER", "TEST.BATCH_SIZE"),
    *("DVS.SENSOR_SIZE", "DVS.TIME_UNIT", "DVS.FRAMES", "DVS.FRAME_GAIN", "DVS.FRAME_DECAY"),
    *("MODEL.MODEL_NAME", "MODEL.NUM_CLASSES", "MODEL.TASK", "MODEL.FRAMEWISE", "RNG_SEED"),
)
# Keys that users may override.
CHANGEABLE = (
    *("TEST.NUM_ENSEMBLE_VIEWS", "TEST.NUM_SPATIAL_CROPS", "TEST.SINGLE_CROP", "TEST.ENSEMBLE_ON", "TEST.FRAME_ORDER"),
    *("TEST.BATCH_SIZE", "DATA.ENSEMBLE_METHOD", "DATA.DECODING_BACKEND", "DATA_LOADER.NUM_WORKERS"),
)
_ACTIVATIONS = {softmax: "softmax", torch.Tensor.sigmoid: "sigmoid"}
_KINDS = {SpanSampling: "span", SegmentSampling: "segments", SingleImage: "image", EveryFrame: "every frame"}


# ------------------------------------------------------------------ writing
def export_metadata(cfg: ConfigNode, model: Network) -> dict[str, str]:
    """Return the metadata of a model for any kind of file.

    Class names are those of the dataset, else those of the checkpoint; without either there are none.

    Args:
        cfg: Config for evaluating the model.
        model: Model with its weights.
    """
    metadata = {
        SCHEMA_KEY: f"{SCHEMA}/{VERSION}",
        "slowfast": __version__,
        "model": cfg.MODEL.MODEL_NAME,
        "config_digest": cfg.digest(),
        **_described(cfg),
        CONFIG: to_json({key: value for key, value in cfg.keys_by_path() if key in CONFIG_KEYS}),
    }
    names = find_dataset(cfg, TEST).read_class_names() if has_data(cfg) else None
    if names is None and model.loaded is not None and model.loaded.class_names is not None:
        names = list(model.loaded.class_names)
    return metadata if names is None else metadata | {CLASS_NAMES: to_json(names)}


def class_names_note(metadata: Mapping[str, str]) -> str:
    """Describe the class names for the screen."""
    if CLASS_NAMES in metadata:
        return "with class names"
    return "without class names (neither DATA.PATH_TO_DATA_DIR nor the weights)"


def graph_metadata(shape: Sequence[int], precision: str = FLOAT32, batch: int | None = None) -> dict[str, str]:
    """Return the metadata that only files with a graph have.

    Args:
        shape: Shape of an input without the batch dimension.
        precision: Data type of the weights.
        batch: Batch size; None if it is dynamic.
    """
    layout = "NCTHW" if len(shape) == 4 else "NCHW"
    content = {"name": INPUT_NAME, "layout": layout, "shape": list(shape), "batch": batch or ANY_BATCH}
    return {INPUT: to_json(content), PRECISION: precision}


def _described(cfg: ConfigNode) -> dict[str, str]:
    """Return the documented entries that only depend on the config."""
    dataset = find_dataset(cfg, TEST)
    entries = {
        "task": cfg.MODEL.TASK,
        "num_classes": str(cfg.MODEL.NUM_CLASSES),
        "sample": SampleKind.from_config(cfg).kind,
        "mean": to_json(list(cfg.DATA.MEAN)),
        "std": to_json(list(cfg.DATA.STD)),
        "channel_order": "BGR" if cfg.DATA.REVERSE_INPUT_CHANNEL else "RGB",
    }
    if isinstance(dataset, FrameDataset) and dataset.input_kind != EVENTS:
        entries |= {"sampling": to_json(_sampling(cfg, dataset)), "spatial": to_json(_spatial(cfg, dataset))}
    try:
        return entries | {"scores": to_json(_scores(cfg))}
    except ConfigError:  # a task without class scores
        return entries


def _sampling(cfg: ConfigNode, dataset: FrameDataset) -> dict[str, Any]:
    kind = _KINDS.get(type(dataset.temporal_sampling()), CUSTOM)
    entries: dict[str, Any] = {"kind": kind, "views": cfg.TEST.NUM_ENSEMBLE_VIEWS}
    if dataset.input_kind == CLIPS:
        entries["frames"] = cfg.DATA.NUM_FRAMES
    if kind == "span":
        entries |= {"rate": cfg.DATA.SAMPLING_RATE, "input_fps": cfg.DATA.TARGET_FPS}
        entries["offset_sampling"] = cfg.DATA.USE_OFFSET_SAMPLING
    return entries


def _spatial(cfg: ConfigNode, dataset: FrameDataset) -> dict[str, Any]:
    crops = cfg.TEST.NUM_SPATIAL_CROPS
    transform = dataset.view_transform(crops)
    return {
        "short_side": transform.short_side,
        "decoded_short_side": None if dataset.reads_images else dataset.decoded_side(transform),
        "crop_size": transform.crop_size,
        "crops": crops,
        "single_crop": transform.single,
        "center_rounding": "up" if transform.center is math.ceil else "half to even",
        **_scaling(transform),
    }


def _scaling(transform: ViewTransform) -> dict[str, Any]:
    if transform.resize is resize_plain:
        return {"interpolation": "bilinear", "antialias": False}
    chosen = transform.resize.args[0] if isinstance(transform.resize, functools.partial) else None
    names = [name for name, value in FILTERS.items() if value is chosen]
    return {"interpolation": names[0] if names else CUSTOM, "antialias": True}


def _scores(cfg: ConfigNode) -> dict[str, str]:
    ensemble = task_class(cfg).ensemble(cfg)
    if not isinstance(ensemble, Ensemble):
        return {"activation": CUSTOM}
    activation = _ACTIVATIONS.get(ensemble.activation, CUSTOM)
    return {"activation": activation, "ensemble": cfg.DATA.ENSEMBLE_METHOD, "ensemble_on": cfg.TEST.ENSEMBLE_ON}


# ------------------------------------------------------------------ reading
@dataclass(frozen=True)
class Metadata:
    """Metadata of a file with a graph, complete and consistent.

    Attributes:
        cfg: Frozen config of the evaluation, with defaults for all keys except CONFIG_KEYS.
        shape: Shape of an input without the batch dimension.
        batch: Batch size; None if it is dynamic.
        class_names: Names of all classes; their labels if the file has no names.
        precision: Data type of the weights.
    """

    cfg: ConfigNode
    shape: tuple[int, ...]
    batch: int | None
    class_names: tuple[str, ...]
    precision: str


def read_metadata(entries: Mapping[str, str], where: str, overrides: Sequence[Any] = ()) -> Metadata:
    """Return the metadata of an exported file.

    Args:
        entries: Text by name, as in the file.
        where: The file, for messages.
        overrides: KEY VALUE pairs, of CONFIG_KEYS and data loading, that replace those of the file.

    Raises:
        UserError: If the metadata is missing, damaged, inconsistent or of a later version of the schema.
    """
    _check_schema(entries, where)
    content = {name: _parsed(entries, name, kind, where) for name, kind in ((CONFIG, dict), (INPUT, dict))}
    cfg = _restored(content[CONFIG], where)
    for name, value in _described(cfg).items():
        if entries.get(name) != value:
            found = "is missing" if name not in entries else f"is {quoted(entries[name])}"
            raise UserError(f"{where}: {name} of the metadata {found}, but its config gives {quoted(value)}. {_AGAIN}")
    shape, batch = content[INPUT].get("shape"), content[INPUT].get("batch")
    if not (_is_shape(shape) and (batch == ANY_BATCH or _is_shape([batch]))):
        raise UserError(f"{where}: input of the metadata has no valid shape and batch. {_AGAIN}")
    names = [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]
    if CLASS_NAMES in entries:
        names = _parsed(entries, CLASS_NAMES, list, where)
        if len(names) != cfg.MODEL.NUM_CLASSES or not all(isinstance(name, str) for name in names):
            raise UserError(
                f"{where}: {CLASS_NAMES} of the metadata has {len(names)} names, but the model has "
                f"{cfg.MODEL.NUM_CLASSES} classes. {_AGAIN}"
            )
    _override(cfg, overrides)
    cfg.freeze()
    number = None if batch == ANY_BATCH else batch
    return Metadata(cfg, tuple(shape), number, tuple(names), entries.get(PRECISION, FLOAT32))


_AGAIN = "Export the model again"


def _check_schema(entries: Mapping[str, str], where: str) -> None:
    schema, _, version = entries.get(SCHEMA_KEY, "").partition("/")
    if schema != SCHEMA or not (version.isascii() and version.isdecimal()):
        raise UserError(
            f"{where}: it has no metadata of slowfast export, so its preprocessing is unknown. Export the model with "
            "slowfast export"
        )
    if int(version[:9]) > VERSION:
        raise UserError(
            f"{where}: its metadata has version {plain(version)} of the schema, this is version {VERSION}. "
            "Update slowfast"
        )


def _parsed(entries: Mapping[str, str], name: str, kind: type, where: str) -> Any:
    try:
        value = from_json(entries.get(name, ""))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UserError(f"{where}: {name} of the metadata is missing or damaged. {_AGAIN}")
    return value


def _restored(values: Mapping[str, Any], where: str) -> ConfigNode:
    """Return the config tree with the values of an untrusted file."""
    foreign = sorted(set(values) - set(CONFIG_KEYS))
    if foreign:  # for example a path
        raise UserError(f"{where}: config of the metadata sets {plain(foreign[0])}, which it may not. {_AGAIN}")
    cfg = get_cfg()
    try:
        cfg.merge_from_list([part for item in values.items() for part in item])
        check_values(cfg)
        find_dataset(cfg, TEST).check(training=False)
    except ConfigError as error:
        raise UserError(f"{where}: config of the metadata: {error}") from error
    return cfg


def _override(cfg: ConfigNode, overrides: Sequence[Any]) -> None:
    before = dict(cfg.keys_by_path())
    cfg.merge_from_list(overrides)
    fixed = [key for key, value in cfg.keys_by_path() if value != before[key] and key not in CHANGEABLE]
    if fixed:
        raise ConfigError(
            f"{fixed[0]} is fixed by an exported file or has no effect. Keys that can be set: {', '.join(CHANGEABLE)}"
        )
    check_values(cfg)
    find_dataset(cfg, TEST).check(training=False)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int and 0 < one < 2**31 for one in value)
