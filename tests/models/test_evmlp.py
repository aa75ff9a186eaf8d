"""evMLP against a plain patch-by-patch implementation of its equations, and its checks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from slowfast.config.defaults import get_cfg
from slowfast.errors import ConfigError
from slowfast.models.evmlp import EvMLP, nested_patches
from slowfast.models.layers import global_batch
from slowfast.models.weights import load_weights
from tests.random_weights import randomized

SIDES = (3, 2, 4)


def small(**kwargs: object) -> EvMLP:
    torch.manual_seed(0)
    settings = {"embed_dims": (8, 12, 10), "patch_sizes": SIDES, "layers": (2, 1, 2), "mlp_ratios": (2, 3, 2)} | kwargs
    return EvMLP(**({"num_classes": 7, "dropout_rates": (0, 0, 0.5)} | settings))


def plain(model: EvMLP, image: torch.Tensor) -> torch.Tensor:
    """The logits of one image (3, side, side), each patch on its own: (classes,)."""
    w = model.state_dict()

    def linear(key: str, x: torch.Tensor) -> torch.Tensor:
        return w[f"{key}.weight"] @ x + w[f"{key}.bias"]

    def tokens_of(stage: int, patch: torch.Tensor) -> torch.Tensor:
        x = linear(f"blks.{stage}.1", patch)
        for i in range(len(model.blks[stage].blocks)):
            key = f"blks.{stage}.{i + 2}"
            y = x + linear(f"{key}.fn.3", F.gelu(linear(f"{key}.fn.0", x)))
            x = F.layer_norm(y, y.shape, w[f"{key}.norm.weight"], w[f"{key}.norm.bias"])
        return x

    grid = image.permute(1, 2, 0)  # rows, columns, channels
    for stage, p in enumerate(SIDES):
        n = len(grid) // p
        rows = [
            torch.stack([tokens_of(stage, grid[r * p : (r + 1) * p, c * p : (c + 1) * p].flatten()) for c in range(n)])
            for r in range(n)
        ]
        grid = torch.stack(rows)
    return linear("linear", grid[0, 0])


def test_equals_the_plain_equations() -> None:
    model = randomized(small())
    x = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(x), torch.stack([plain(model, image) for image in x]), rtol=1e-4, atol=1e-5)


def test_nested_patches_keep_families_together() -> None:
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    patches = nested_patches(torch.stack([rows, columns])[None], SIDES)[0]  # N (p p 2)
    assert patches.shape == (64, 18)
    first = patches.view(64, 9, 2)
    assert first[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and first[0, :, 1].tolist() == [0, 1, 2] * 3
    corners = first[:, 0] // 3  # place of each patch in the first stage's grid of 8 x 8
    assert corners[:8].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    families = corners.view(16, 4, 2) // 2  # the second stage's grid of 4 x 4, row by row
    assert torch.equal(
        families, torch.stack([torch.arange(16) // 4, torch.arange(16) % 4], 1)[:, None].expand(16, 4, 2)
    )


def test_a_stage_takes_any_selection_of_patches() -> None:
    model = randomized(small())
    patches = model.split(torch.randn(2, 3, 24, 24))
    stage = model.blks[0]
    chosen = torch.tensor([[0, 5], [1, 63]])
    with torch.no_grad():
        whole, alone = stage(patches), stage(patches[chosen[:, 0], chosen[:, 1]])
        by_hand = stage.embed(patches)
        for block in stage.blocks:
            by_hand = block(by_hand)
    torch.testing.assert_close(alone, whole[chosen[:, 0], chosen[:, 1]])
    assert torch.equal(by_hand, whole)


def test_dropout_does_not_depend_on_the_number_of_processes() -> None:
    model = randomized(small()).train()
    x = torch.randn(4, 3, 24, 24)

    def logits(rows: list[int]) -> torch.Tensor:
        torch.manual_seed(0)
        with global_batch(model, 4, rows):
            return model(x[rows])

    whole = logits([0, 1, 2, 3])
    torch.testing.assert_close(logits([1, 3]), whole[[1, 3]])
    assert (whole - randomized(small())(x)).abs().max() > 0.01


def test_its_head_is_replaced_for_another_class_count(caplog: pytest.LogCaptureFixture) -> None:
    source, target = randomized(small()), small(num_classes=5)
    with caplog.at_level(logging.WARNING, "slowfast"):
        load_weights(target, source.state_dict(), Path("w.pth"), allow_new_head=True)
    assert "7 classes" in caplog.text
    assert torch.equal(target.blks[2][1].weight, source.blks[2][1].weight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATA.TEST_CROP_SIZE", 256], "DATA.TEST_CROP_SIZE .256. must be 224"),
        (["DATA.TRAIN_CROP_SIZE", 192], "DATA.TRAIN_CROP_SIZE .192. must be 224"),
        (["EVMLP.LAYERS", [5]], "EVMLP.LAYERS has 1"),
    ],
)
def test_impossible_configs(overrides: list, message: str) -> None:
    cfg = get_cfg()
    EvMLP.check_config(cfg)
    cfg.merge_from_list(overrides)
    with pytest.raises(ConfigError, match=message):
        EvMLP.check_config(cfg)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="24 x 24 pixels, not 48 x 48"):
        small()(torch.randn(1, 3, 48, 48))
