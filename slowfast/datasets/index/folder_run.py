"""The config file that `tools/index_folder.py` writes beside an index: a network's setting on one's own data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from slowfast.config.defaults import get_cfg
from slowfast.config.yaml_file import BASE_KEY
from slowfast.datasets.index.folder import FRAME_LISTS, FRAMES, IMAGES, VIDEOS, Collection
from slowfast.errors import UserError

RUN_FILE = "run.yaml"
_FINETUNE = Path(__file__).resolve().parents[3] / "configs" / "Finetune"
# The network that suits a kind of media, unless another is asked for.
BASES = {
    VIDEOS: _FINETUNE / "VIDEO_MORPHMLP_S16.yaml",
    FRAMES: _FINETUNE / "VIDEO_MORPHMLP_S16.yaml",
    IMAGES: _FINETUNE / "IMAGE_CONVMLP_S.yaml",
}
DATASETS = {VIDEOS: "kinetics", FRAMES: "sth", IMAGES: "imagenet"}


def run_yaml(collection: Collection, folder: Path, out: Path, separator: str, base: Path | None, train: int) -> str:
    """The text of the file: `base` on this data, in batches of no more than the `train` media. Raises ConfigError."""
    base = (base or BASES[collection.kind]).resolve()
    if base == (out / RUN_FILE).resolve():
        raise UserError(f"--cfg {base} is the file to be written")
    cfg = get_cfg()
    cfg.merge_from_file(base)
    dataset, data = DATASETS[collection.kind], {"PATH_TO_DATA_DIR": str(out.resolve())}
    data["PATH_PREFIX"] = str(folder.resolve())
    if collection.kind == FRAMES:
        data |= {"LABEL_PATH_TEMPLATE": FRAME_LISTS, "IMAGE_TEMPLATE": collection.template}
    else:
        data["PATH_LABEL_SEPARATOR"] = separator
    settings: dict[str, Any] = {
        BASE_KEY: os.path.relpath(base, out.resolve()),
        "TRAIN": {
            "DATASET": dataset,
            "BATCH_SIZE": min(cfg.TRAIN.BATCH_SIZE, train),
            "CHECKPOINT_EPOCH_RESET": True,  # a checkpoint is taken for its weights, not gone on with
        },
        "TEST": {"DATASET": dataset},
        "DATA": data,
        "MODEL": {"NUM_CLASSES": len(collection.classes)},
        "OUTPUT_DIR": str(out.resolve() / "run"),
    }
    return "# Written by tools/index_folder.py.\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
