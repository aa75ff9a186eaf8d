"""Base class of networks: defaults, and rejected registrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.models import MODEL_REGISTRY, Network, build_model
from slowfast.models.protocol import CLIPS, named_network
from slowfast.models.weights import head_names


class Pooled(Network):
    """The minimum that a user's network must define."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def features(self, x: Any) -> torch.Tensor:
        return x.mean((2, 3, 4))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)


def test_defaults() -> None:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 5
    Pooled.check_config(cfg)
    model = Pooled.from_config(cfg)
    x = torch.randn(2, 3, 4, 8, 8)
    assert model(x).shape == (2, 5) and torch.equal(model.forward_heads(x)[0], model(x))
    assert (model.input_kind, model.pretraining, model.takes_pretrain_path) == (CLIPS, False, False)
    assert head_names(model) == ("head",) and model.no_weight_decay() == () and model.blocks_by_stage() is None
    state = model.state_dict()
    assert model.adapt_start_weights(state, Path("w.pth")) is state and named_network(model) is model


@pytest.mark.parametrize("hook", ["dense_features", "pretext", "on_grid"])
def test_a_hook_that_is_missing_is_named(hook: str) -> None:
    with pytest.raises(NotImplementedError, match=f"Pooled .*{hook}"):
        getattr(Pooled(5), hook)(torch.zeros(1))


def test_weights_of_pretrain_path_are_refused_by_default() -> None:
    with pytest.raises(ConfigError, match="MORPH.PRETRAIN_PATH is set, but Pooled has no use for it"):
        Pooled(5).adapt_pretrained({})


def test_plain_modules_are_not_registered() -> None:
    with pytest.raises(ConfigError, match="torch.nn.modules.linear.Linear must derive from .*protocol.Network"):
        MODEL_REGISTRY.register(nn.Linear)
    assert "Linear" not in MODEL_REGISTRY


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="'EAT' of .*Pooled is already taken by slowfast.models.eat.EAT. Choose an"):
        MODEL_REGISTRY.register(name="EAT")(Pooled)
    assert MODEL_REGISTRY.get("EAT") is not Pooled


def test_a_registered_network_is_built_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODEL_REGISTRY, "_obj_map", dict(MODEL_REGISTRY))
    assert MODEL_REGISTRY.register()(Pooled) is Pooled and MODEL_REGISTRY.register(Pooled, name="Other") is Pooled
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MODEL_NAME", "Other", "MODEL.NUM_CLASSES", 5])
    assert isinstance(build_model(cfg), Pooled)
    cfg.MODEL.MODEL_NAME = "Poled"
    with pytest.raises(ConfigError, match="MODEL.MODEL_NAME: unknown value 'Poled'. Did you mean 'Pooled'"):
        build_model(cfg)


@pytest.mark.parametrize("name", MODEL_REGISTRY.names())
def test_every_head_is_a_layer(name: str) -> None:
    with torch.device("meta"):
        cfg = get_cfg()
        cfg.MODEL.MODEL_NAME = name
        model = build_model(cfg)
    heads = [layer for key, layer in model.named_modules() if key in model.head_names()]
    assert heads and all(isinstance(layer, nn.Linear) for layer in heads)
