"""Registry and construction of networks by the names used in configs.

Networks register with ``@MODEL_REGISTRY.register()``; those of the package do so when this module is imported.
"""

from __future__ import annotations

from slowfast.config.node import ConfigNode
from slowfast.models.convmlp import ConvMLP
from slowfast.models.eat import EAT
from slowfast.models.efficientnet_v2 import EfficientNetV2
from slowfast.models.event2vec import Event2Vec
from slowfast.models.event2vec_v2 import Event2VecV2
from slowfast.models.event2vec_v3 import Event2VecV3
from slowfast.models.evmlp import EvMLP
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.morphmlp import MorphMLP, MorphMLPImage
from slowfast.models.protocol import MODEL_REGISTRY, Network
from slowfast.models.regnet import RegNetY

__all__ = ["MODEL_REGISTRY", "build_model", "find_network"]

# Importing a class registers it.
BUILT_IN = (ConvMLP, EAT, Event2Vec, Event2VecV2, Event2VecV3, EvMLP, MorphMLP, MorphMLPImage, EfficientNetV2, RegNetY)


def find_network(cfg: ConfigNode) -> type[Network]:
    """Return the class of MODEL.MODEL_NAME.

    Raises:
        ConfigError: If no network has that name; the message suggests the closest name.
    """
    return MODEL_REGISTRY.find(cfg.MODEL.MODEL_NAME, "MODEL.MODEL_NAME")


def build_model(cfg: ConfigNode) -> Network:
    """Build the network of a config with random weights, on the CPU.

    Raises:
        ConfigError: If no network has that name or its settings are invalid.
    """
    network = find_network(cfg).from_config(cfg)
    return FramewiseVideo(network, cfg.MODEL.FRAMEWISE) if cfg.MODEL.FRAMEWISE else network
