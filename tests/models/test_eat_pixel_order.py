"""Pixel orders of EAT against the published ones, and weights for images of another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_settings

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.engine.averaging import ModelEMA
from slowfast.engine.optim import build_optimizer
from slowfast.engine.state import RunState, load_start_weights
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models import build_model
from slowfast.models.eat import EAT
from slowfast.models.eat_pixel_order import PIXEL_ORDERS, pixel_order, resize_positions, token_grid
from slowfast.utils.checkpoint import load_test_checkpoint
from tests.random_weights import randomized


def places(name: str, side: int, patch: int = 1) -> np.ndarray:
    """Row and column of each pixel of the sequence, (side^2, 2)."""
    return np.stack(divmod(pixel_order(name, side, patch), side), 1)


@pytest.mark.parametrize("name", PIXEL_ORDERS)
@pytest.mark.parametrize("side", [4, 32])
def test_every_pixel_comes_once(name: str, side: int) -> None:
    order = pixel_order(name, side, 4)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(side * side))


def test_small_ones_by_hand() -> None:
    assert pixel_order("sweep", 3, 1).tolist() == list(range(9))
    assert pixel_order("scan", 3, 1).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    assert pixel_order("sis", 4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert pixel_order("zorder", 4, 1).tolist() == pixel_order("sis", 4, 2).tolist()
    # as numpy-hilbert-curve and the published code give it
    assert pixel_order("hilbert", 2, 1).tolist() == [0, 2, 3, 1]
    assert pixel_order("hilbert", 4, 1).tolist() == [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3]


@pytest.mark.parametrize("patch", [1, 3, 6])
def test_sweep_in_sweep_is_row_major_twice(patch: int) -> None:
    want = [
        (row * patch + i, column * patch + j)
        for row in range(12 // patch)
        for column in range(12 // patch)
        for i in range(patch)
        for j in range(patch)
    ]
    assert places("sis", 12, patch).tolist() == [list(place) for place in want]


@pytest.mark.parametrize("side", [2, 4, 8, 64])
@pytest.mark.parametrize("name", ["scan", "hilbert"])
def test_neighbours_in_the_sequence_are_neighbours_in_the_image(name: str, side: int) -> None:
    assert (np.abs(np.diff(places(name, side), axis=0)).sum(1) == 1).all()


@pytest.mark.parametrize("side", [2, 8, 32])
def test_zorder_takes_turns_between_the_bits_of_column_and_row(side: int) -> None:
    bits = side.bit_length() - 1
    for place, (row, column) in enumerate(places("zorder", side)):
        turns = "".join(r + c for r, c in zip(f"{row:0{bits}b}", f"{column:0{bits}b}", strict=True))
        assert int(turns, 2) == place


@pytest.mark.parametrize("side", [4, 16])
def test_hilbert_fills_each_quarter_before_the_next(side: int) -> None:
    quarters = places("hilbert", side).reshape(4, -1, 2) // (side // 2)
    assert (quarters == quarters[:, :1]).all()


def test_impossible_orders() -> None:
    with pytest.raises(ConfigError, match="power of two, such as 256, not 224"):
        pixel_order("zorder", 224, 16)
    with pytest.raises(ConfigError, match="PATCH_SIZE 16 does not divide the crop of 200"):
        pixel_order("sis", 200, 16)


PATCH = 4


def config(tmp_path: Path, side: int, *overrides: object) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(tmp_path, tmp_path / "out"))
    cfg.merge_from_list(["MODEL.MODEL_NAME", "EAT", "EAT.PATCH_SIZE", PATCH, "EAT.LAYERS", 1, "EAT.EMBED_DIM", 16])
    cfg.merge_from_list(["DATA.TRAIN_CROP_SIZE", side, "DATA.TEST_CROP_SIZE", side, *overrides])
    return cfg


def start(cfg: ConfigNode) -> torch.nn.Module:
    """The network as training starts it."""
    model = build_model(cfg)
    scaler = torch.amp.GradScaler(enabled=False)
    state = RunState(cfg, model, build_optimizer(cfg, model), scaler, ModelEMA(model, 0.9), 1)
    load_start_weights(cfg, model, state)
    return model


@pytest.mark.parametrize("order", ["sis", "zorder", "hilbert"])
def test_the_grid_is_where_the_pixels_are(order: str) -> None:
    side = 16
    grid = token_grid(pixel_order(order, side, PATCH), side, PATCH)
    assert grid is not None and sorted(grid) == list(range(16))
    pixels = np.arange(side * side).reshape(side, side)
    for token, place in enumerate(grid):
        square = pixels[place // 4 * PATCH :, place % 4 * PATCH :][:PATCH, :PATCH]
        of_token = pixel_order(order, side, PATCH)[token * PATCH**2 :][: PATCH**2]
        assert sorted(of_token) == sorted(square.reshape(-1))


@pytest.mark.parametrize("order", ["sis", "zorder", "hilbert"])
@pytest.mark.parametrize(("side", "new_side"), [(16, 32), (32, 16), (16, 16)])
def test_positions_are_resized_as_a_picture(order: str, side: int, new_side: int) -> None:
    """A picture of embeddings, given to the tokens in their order, resized and read back."""
    picture = torch.randn(1, 5, side // PATCH, side // PATCH)
    grids = [token_grid(pixel_order(order, size, PATCH), size, PATCH) for size in (side, new_side)]
    embedding = picture.flatten(2).mT[:, torch.from_numpy(grids[0])]
    found = resize_positions(embedding, order, PATCH, side, new_side)
    wanted = F.interpolate(picture, (new_side // PATCH,) * 2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(found, wanted.flatten(2).mT[:, torch.from_numpy(grids[1])])
    if side == new_side:
        torch.testing.assert_close(found, embedding)


@pytest.mark.parametrize("framewise", ["", "logits"])
@pytest.mark.parametrize("local", ["conv", "attn"])
def test_training_starts_from_weights_for_smaller_images(
    framewise: str, local: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = randomized(build_model(config(tmp_path, 16, "EAT.LOCAL", local)))
    path = tmp_path / "small.pth"
    torch.save(small.state_dict(), path)
    more = ["EAT.LOCAL", local, "MODEL.FRAMEWISE", framewise, "MODEL.NUM_CLASSES", 3]
    cfg = config(tmp_path, 24, *more, "TRAIN.CHECKPOINT_FILE_PATH", path)
    with caplog.at_level("INFO", "slowfast"):
        model = start(cfg)
    assert "resized the position embedding from images of 16 to 24 pixels" in caplog.text
    assert "The new one for 3" in caplog.text
    own, fresh, given = model.state_dict(), build_model(cfg).state_dict(), small.state_dict()
    resized = resize_positions(given["pos_embed"], "sis", PATCH, 16, 24)
    assert torch.equal(own["pos_embed"], resized) and own["pos_embed"].shape == (1, 36, 16)
    tables = {key for key in own if "index_flat" in key or key.endswith("mask")}
    assert len(tables) == (3 if local == "attn" else 2)
    assert all(torch.equal(own[key], fresh[key]) for key in tables)
    rest = own.keys() - tables - {"pos_embed", "head.weight", "head.bias"}
    assert all(torch.equal(own[key], given[key]) for key in rest)
    x = torch.randn(2, 3, 24, 24)
    assert model.eval()(x[:, :, None] if framewise else x).isfinite().all()


@pytest.mark.parametrize("order", ["sweep", "scan"])
def test_tokens_that_are_no_squares_are_refused(order: str, tmp_path: Path) -> None:
    assert token_grid(PIXEL_ORDERS[order](16, PATCH), 16, PATCH) is None
    path = tmp_path / "small.pth"
    torch.save(build_model(config(tmp_path, 16, "EAT.PIXEL_ORDER", order)).state_dict(), path)
    cfg = config(tmp_path, 32, "EAT.PIXEL_ORDER", order, "TRAIN.CHECKPOINT_FILE_PATH", path)
    with pytest.raises(CheckpointError, match=f"PIXEL_ORDER {order}: tokens are not squares .*TEST_CROP_SIZE to 16"):
        start(cfg)


def test_another_order_or_patch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(build_model(config(tmp_path, 16, "EAT.PIXEL_ORDER", "hilbert")).state_dict(), path)
    with pytest.raises(CheckpointError, match="16 x 16 pixels in another order than EAT.PIXEL_ORDER sis"):
        start(config(tmp_path, 32, "TRAIN.CHECKPOINT_FILE_PATH", path))
    torch.save(build_model(config(tmp_path, 16, "EAT.PATCH_SIZE", 8)).state_dict(), path)
    with pytest.raises(CheckpointError, match="does not fit this EAT: .* shapes differ"):
        start(config(tmp_path, 32, "TRAIN.CHECKPOINT_FILE_PATH", path))


def test_tested_weights_are_never_resized(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(build_model(config(tmp_path, 16)).state_dict(), path)
    cfg = config(tmp_path, 32, "TEST.CHECKPOINT_FILE_PATH", path)
    with pytest.raises(CheckpointError, match="does not fit this EAT: .* shapes differ"):
        load_test_checkpoint(cfg, build_model(cfg))


def test_the_same_size_is_left_alone(tmp_path: Path) -> None:
    model = EAT(image_size=16, patch_size=PATCH, layers=1, embed_dim=16, heads=4)
    state = model.state_dict()
    assert model.adapt_start_weights(state, tmp_path) is state
