"""Requirements for every registered network, at tiny settings. New networks are tested automatically."""

from __future__ import annotations

import copy

import pytest
import torch

from slowfast.errors import ConfigError
from slowfast.models.build import MODEL_REGISTRY, build_model
from tests.models.tiny_networks import (
    DEEP_DROP,
    FORMS,
    TINY,
    gradients,
    inputs,
    row,
    scramble,
    tiny,
    tiny_config,
)


def test_every_network_has_a_tiny_setting() -> None:
    assert sorted(TINY) == MODEL_REGISTRY.names()


def test_unknown_name_gives_the_nearest() -> None:
    cfg = tiny_config("MorphMLP")
    cfg.MODEL.MODEL_NAME = "morphmpl"
    with pytest.raises(ConfigError, match="morphmpl.*MorphMLP"):
        build_model(cfg)


@pytest.mark.parametrize("name", sorted(FORMS))
class TestEveryNetwork:
    @pytest.mark.parametrize("classes", [1, 5])
    def test_logits_in_training_and_evaluation(self, name: str, classes: int) -> None:
        model = tiny(name, MODEL__NUM_CLASSES=classes)
        assert model.train()(inputs(name, 2)).shape == (2, classes)
        logits = model.eval()(inputs(name, 2))
        assert logits.shape == (2, classes) and logits.isfinite().all()

    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        model = tiny(name).train()
        model(inputs(name, 2)).square().sum().backward()
        without = [key for key, p in model.named_parameters() if p.grad is None]
        assert not without
        found = gradients(scramble(model), inputs(name, 3))
        assert not [key for key, grad in found.items() if not grad.abs().sum() > 0]

    @pytest.mark.parametrize("amount", [True, 1])
    def test_checkpointing_changes_no_gradient(self, name: str, amount: bool | int) -> None:
        plain = scramble(tiny(name, **DEEP_DROP))
        saving = tiny(name, MODEL__ACT_CHECKPOINT=amount, **DEEP_DROP)
        saving.load_state_dict(plain.state_dict())
        want, found = gradients(plain, inputs(name, 3)), gradients(saving, inputs(name, 3))
        assert all(torch.equal(want[key], found[key]) for key in want)

    def test_a_clip_does_not_depend_on_its_batch(self, name: str) -> None:
        model = scramble(tiny(name)).eval()
        x = inputs(name, 3)
        torch.testing.assert_close(model(x)[1:2], model(row(x, 1)), rtol=1e-4, atol=1e-5)

    def test_state_dict_round_trip(self, name: str) -> None:
        model = scramble(tiny(name)).eval()
        again = tiny(name).eval()
        again.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(model(inputs(name, 1)), again(inputs(name, 1)))

    def test_same_seed_same_weights(self, name: str) -> None:
        first, second = tiny(name).state_dict(), tiny(name).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_bfloat16_autocast_is_close_and_trains(self, name: str) -> None:
        model = scramble(tiny(name)).eval()
        want = model(inputs(name, 2))
        with torch.autocast("cpu", torch.bfloat16):
            found = model(inputs(name, 2))
            loss = model.train()(inputs(name, 2)).square().sum()
        loss.backward()
        assert (found.float() - want).abs().max() < 0.05 * want.abs().max()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in sorted(FORMS) if not isinstance(inputs(name, 1), torch.Tensor)])
def test_exported_graph_of_events_gives_the_same(name: str) -> None:
    """The others are exported to files, see tests/inference/test_export.py."""
    model = scramble(tiny(name)).eval()
    graph = torch.export.export(model, (inputs(name, 2),), strict=False).module()
    torch.testing.assert_close(graph(inputs(name, 2)), model(inputs(name, 2)), rtol=1e-4, atol=1e-4)
