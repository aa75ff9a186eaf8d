"""The networks by their names in the config."""

from __future__ import annotations

from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.models.convmlp import ConvMLP
from slowfast.models.eat import EAT
from slowfast.models.event2vec import Event2Vec
from slowfast.models.evmlp import EvMLP
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.morphmlp import MorphMLP
from slowfast.models.morphmlp_image import MorphMLPImage
from slowfast.models.teachers.efficientnet_v2 import EfficientNetV2
from slowfast.models.teachers.regnet import RegNetY
from slowfast.utils.suggest import unknown_value

# MODEL.MODEL_NAME -> class with `from_config(cfg)`, and `check_config(cfg)` if a config can be impossible for it.
MODELS: dict[str, type[nn.Module]] = {
    "MorphMLP": MorphMLP,
    "MorphMLP_32": MorphMLP,  # the published name for 32 frames
    "MorphMLPImage": MorphMLPImage,
    "ConvMLP": ConvMLP,
    "EAT": EAT,
    "evMLP": EvMLP,
    "Event2Vec": Event2Vec,
    "EfficientNetV2": EfficientNetV2,
    "RegNetY": RegNetY,
}


def build_model(cfg: ConfigNode) -> nn.Module:
    """Build the model of the config with random weights, on the CPU. Raises ConfigError for an unknown name."""
    name = cfg.MODEL.MODEL_NAME
    if name not in MODELS:
        raise ConfigError(unknown_value("MODEL.MODEL_NAME", name, sorted(MODELS)))
    from_config = getattr(MODELS[name], "from_config")  # noqa: B009 - nn.Module declares no such attribute
    model: nn.Module = from_config(cfg)
    return FramewiseVideo(model, cfg.MODEL.FRAMEWISE) if cfg.MODEL.FRAMEWISE else model
