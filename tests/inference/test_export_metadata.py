"""Metadata of exported files."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from conftest import ROOT

from slowfast.cli.setup import load_for_evaluation
from slowfast.config.node import ConfigNode
from slowfast.inference.export_metadata import (
    CONFIG_KEYS,
    export_metadata,
    graph_metadata,
    read_metadata,
)
from slowfast.models.protocol import EVENTS, MODEL_REGISTRY

EMPTY = str(ROOT / "tests" / "empty.yaml")
SHAPE = (3, 4, 32, 32)


def restored(cfg: ConfigNode, *overrides: object) -> ConfigNode:
    """Return the config restored from the metadata of a model without weights."""
    model: Any = SimpleNamespace(loaded=None)
    entries = export_metadata(cfg, model) | graph_metadata(SHAPE)
    return read_metadata(entries, "net.onnx", overrides).cfg


def test_metadata_gives_the_preprocessing_of_shipped_configs_back() -> None:
    kinds = set()
    for name in ("K400/K400_MLP_S16x4", "SSV2/SSV2_MLP_B16", "ImageNet/EAT_TI", "DVS/ASLDVS_EVENT2VEC"):
        cfg = load_for_evaluation(name)
        values, found = dict(cfg.keys_by_path()), dict(restored(cfg).keys_by_path())
        assert {key: values[key] for key in CONFIG_KEYS} == {key: found[key] for key in CONFIG_KEYS}
        entries = export_metadata(cfg, SimpleNamespace(loaded=None))  # type: ignore[arg-type]
        if MODEL_REGISTRY.get(cfg.MODEL.MODEL_NAME).input_kind != EVENTS:
            kinds.add(json.loads(entries["sampling"])["kind"])
            spatial = json.loads(entries["spatial"])
            assert spatial["crop_size"] == cfg.DATA.TEST_CROP_SIZE <= spatial["short_side"]
    assert kinds == {"span", "segments", "image"}


def test_class_names_of_a_checkpoint_and_scores_of_labels() -> None:
    names = ["a", "\u00e9", 'c"d']
    model: Any = SimpleNamespace(loaded=SimpleNamespace(class_names=names))
    settings = ["MODEL.NUM_CLASSES", "3", "MODEL.TASK", "multi_label", "MODEL.LOSS_FUNC", "bce_logit"]
    entries = export_metadata(load_for_evaluation(EMPTY, settings), model) | graph_metadata(SHAPE, "int8", 2)
    assert json.loads(entries["scores"])["activation"] == "sigmoid"
    found = read_metadata(entries, "net.onnx")
    assert (list(found.class_names), found.shape, found.batch, found.precision) == (names, SHAPE, 2, "int8")
    del entries["class_names"]
    assert read_metadata(entries, "net.onnx").class_names == ("0", "1", "2")
