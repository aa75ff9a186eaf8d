"""All registered networks and their forms at tiny settings, their inputs and gradients."""

from __future__ import annotations

import torch
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.models.build import build_model, find_network
from slowfast.models.layers import global_batch
from slowfast.models.protocol import EVENTS, IMAGES

CLIP = (3, 8, 32, 32)  # C T H W
IMAGE = (3, 32, 32)
LENGTH = 40  # events
Inputs = torch.Tensor | dict[str, torch.Tensor]

# Per network: the settings that make it small for CLIP or IMAGE.
_MORPH = ["MORPH.LAYERS", [2, 1, 2, 1], "MORPH.EMBED_DIMS", [16, 24, 32, 40], "MORPH.SEGMENT_DIM", [4, 4, 4, 1]]
_CONVMLP = ["CONVMLP.LAYERS", [2, 1], "CONVMLP.EMBED_DIMS", [16, 24], "CONVMLP.MLP_RATIOS", [2, 2]]
_CONVMLP += ["CONVMLP.CONV_DIM", 8]
_EAT = ["EAT.PATCH_SIZE", 8, "EAT.LAYERS", 3, "EAT.EMBED_DIM", 16, "EAT.HEADS", 4]
_EVMLP = ["EVMLP.EMBED_DIMS", [16, 24, 32], "EVMLP.PATCH_SIZES", [4, 4, 2], "EVMLP.LAYERS", [2, 1, 2]]
_EVMLP += ["EVMLP.MLP_RATIOS", [4, 2, 2], "EVMLP.DROPOUT_RATES", [0.0, 0.5, 0.5]]
_EVENT2VEC = ["DVS.SENSOR_SIZE", [24, 32], "EVENT2VEC.GRID_SIZE", [6, 8], "EVENT2VEC.EMBED_DIM", 16]
_EVENT2VEC += ["EVENT2VEC.HEADS", 4, "EVENT2VEC.MLP_DIM", 24, "EVENT2VEC.LAYERS", 2]
_EVENT2VEC_V3 = ["DVS.SENSOR_SIZE", [24, 32], "EVENT2VEC.EMBED_DIM", 16, "EVENT2VEC.HEADS", 4]
_EVENT2VEC_V3 += ["EVENT2VEC.MLP_DIM", 24, "EVENT2VEC.LAYERS", 2]
_EFFICIENTNET = ["EFFICIENTNET.LAYERS", [1, 1, 2, 2, 1, 1], "EFFICIENTNET.EMBED_DIMS", [4, 8, 8, 8, 8, 12]]
_EFFICIENTNET += ["EFFICIENTNET.HEAD_DIM", 16, "EFFICIENTNET.DROPOUT_RATE", 0.5]
_REGNET = ["REGNET.LAYERS", [1, 2, 1], "REGNET.EMBED_DIMS", [8, 16, 24], "REGNET.GROUP_WIDTH", 4]
TINY: dict[str, list] = {
    "MorphMLP": _MORPH,
    "MorphMLP_32": _MORPH,
    "MorphMLPImage": _MORPH,
    "ConvMLP": _CONVMLP,
    "EAT": _EAT,
    "evMLP": _EVMLP,
    "Event2Vec": _EVENT2VEC,
    "Event2VecV2": _EVENT2VEC_V3,
    "Event2VecV3": _EVENT2VEC_V3,
    "EfficientNetV2": _EFFICIENTNET,
    "RegNetY": _REGNET,
}
# Variants of a network within the same class: the registered name and the settings.
FORMS: dict[str, tuple[str, list]] = {name: (name, settings) for name, settings in TINY.items()} | {
    "EAT distilled": ("EAT", [*_EAT, "EAT.DISTILLED", True]),
    "EAT scan attn": ("EAT", [*_EAT, "EAT.PIXEL_ORDER", "scan", "EAT.LOCAL", "attn"]),
    "EAT class token": ("EAT", [*_EAT, "EAT.CLS_TOKEN", True, "EAT.POS_EMB", False]),
    "EAT base second": (
        "EAT",
        [
            *_EAT,
            "EAT.BLOCK_TYPE",
            "base",
            "EAT.SFC_MODE",
            "second",
            "EAT.PIXEL_ORDER",
            "scan",
            "EAT.CLS_TOKEN_HEAD",
            False,
        ],
    ),
    "ConvMLP framewise": ("ConvMLP", [*_CONVMLP, "MODEL.FRAMEWISE", "logits"]),
    "EAT framewise": ("EAT", [*_EAT, "EAT.DISTILLED", True, "MODEL.FRAMEWISE", "features"]),
    "evMLP framewise": ("evMLP", [*_EVMLP, "MODEL.FRAMEWISE", "logits"]),
    "Event2Vec naive t2v": ("Event2Vec", [*_EVENT2VEC, "EVENT2VEC.EMBED", "naive", "EVENT2VEC.TPE", "t2v"]),
    "Event2VecV2 pooled": ("Event2VecV2", [*_EVENT2VEC_V3, "EVENT2VEC.POOL_EVERY", 1]),
    "Event2VecV3 pooled": ("Event2VecV3", [*_EVENT2VEC_V3, "EVENT2VEC.POOL_EVERY", 1]),
    "Event2Vec 2d slices": (
        "Event2Vec",
        [*_EVENT2VEC, "EVENT2VEC.EMBED", "neighbor2d-naive-1-2", "EVENT2VEC.T_HEADS", 3],
    ),
}
DEEP_DROP = {f"{section}__DROP_DEPTH_RATE": 0.5 for section in ("MORPH", "CONVMLP", "EAT", "EVENT2VEC")}


def tiny_config(name: str, **extra: object) -> ConfigNode:
    cfg = get_cfg()
    sizes = ["DATA.NUM_FRAMES", CLIP[1], "DATA.TRAIN_CROP_SIZE", CLIP[2], "DATA.TEST_CROP_SIZE", CLIP[2]]
    registered, settings = FORMS[name]
    cfg.merge_from_list(["MODEL.MODEL_NAME", registered, "MODEL.NUM_CLASSES", 5, *sizes, *settings])
    cfg.merge_from_list([part for key, value in extra.items() for part in (key.replace("__", "."), value)])
    return cfg


def tiny(name: str, **extra: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(tiny_config(name, **extra))


def scramble(model: nn.Module) -> nn.Module:
    """Random values everywhere, so that no module is hidden by zero initialization."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.5 / p[0].numel() ** 0.5 if p.dim() > 1 else 0.2))
            p.add_(1.0 if p.dim() == 1 else 0.0)
    return model


def inputs(name: str, n: int) -> Inputs:
    cfg = tiny_config(name)
    kind = find_network(cfg).input_kind
    rng = torch.Generator().manual_seed(2)
    if kind == EVENTS:
        height, width = cfg.DVS.SENSOR_SIZE
        limits = {"x": width, "y": height, "p": 2}
        events = {key: torch.randint(limit, (n, LENGTH), generator=rng) for key, limit in limits.items()}
        valid = torch.ones(n, LENGTH, dtype=torch.bool)
        valid[n - 1, LENGTH // 2 :] = False
        return {**events, "t": torch.rand(n, LENGTH, generator=rng).sort(1)[0], "valid": valid}
    images = kind == IMAGES and not cfg.MODEL.FRAMEWISE
    return torch.randn(n, *(IMAGE if images else CLIP), generator=rng)


def row(x: Inputs, at: int) -> Inputs:
    """One recording, image or clip of a batch."""
    return {key: value[at : at + 1] for key, value in x.items()} if isinstance(x, dict) else x[at : at + 1]


def gradients(model: nn.Module, x: Inputs) -> dict[str, torch.Tensor]:
    """Of a training pass with random draws of its own seed."""
    model.train().zero_grad()
    torch.manual_seed(3)
    n = len(x["x"]) if isinstance(x, dict) else len(x)
    with global_batch(model, 2 * n, range(1, 1 + n)):
        loss = model(x).square().sum()
    loss.backward()  # after the context, as a training step may
    return {name: p.grad.clone() for name, p in model.named_parameters()}
