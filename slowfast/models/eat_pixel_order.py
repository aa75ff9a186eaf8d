"""Pixel orders of EAT: space-filling curves, the tokens along them, and positions of images of another size.

Notation: B images, N tokens of patch x patch pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import CheckpointError, ConfigError

SWEEP_IN_SWEEP = "sis"


def _sweep(side: int, patch: int) -> np.ndarray:
    """Order pixels row by row, each row from the left."""
    return np.arange(side * side)


def _scan(side: int, patch: int) -> np.ndarray:
    """Order pixels row by row, every second row from the right."""
    rows = np.arange(side * side).reshape(side, side)
    rows[1::2] = rows[1::2, ::-1].copy()
    return rows.reshape(-1)


def _sweep_in_sweep(side: int, patch: int) -> np.ndarray:
    """Order pixels patch by patch, row by row inside and across patches."""
    return rearrange(np.arange(side * side), "(y py x px) -> (y x py px)", py=patch, px=patch, x=side // patch)


def _zorder(side: int, patch: int) -> np.ndarray:
    """Order pixels by Morton's curve: the even bits of a position are its column, the odd bits its row."""
    position = np.arange(side * side)
    row, column = np.zeros_like(position), np.zeros_like(position)
    for bit in range(side.bit_length() - 1):
        column |= (position >> 2 * bit & 1) << bit
        row |= (position >> 2 * bit + 1 & 1) << bit
    return row * side + column


def _hilbert(side: int, patch: int) -> np.ndarray:
    """Order pixels by Hilbert's curve from the top left corner, in the direction of numpy-hilbert-curve, as published.

    The curve of twice the side consists of four copies: one mirrored along the diagonal, two as they are, and one
    mirrored along the other diagonal.
    """
    curve = np.zeros((1, 2), np.int64)  # row, column
    size = 1
    while size < side:
        mirrored = curve[:, ::-1]
        quarters = (mirrored, curve + [size, 0], curve + [size, size], [size - 1, 2 * size - 1] - mirrored)
        curve = np.concatenate(quarters)
        size *= 2
    return curve[:, 0] * side + curve[:, 1]


PIXEL_ORDERS: dict[str, Callable[[int, int], np.ndarray]] = {
    SWEEP_IN_SWEEP: _sweep_in_sweep,
    "sweep": _sweep,
    "scan": _scan,
    "zorder": _zorder,
    "hilbert": _hilbert,
}
POWERS_OF_TWO = frozenset({"zorder", "hilbert"})


def check_pixel_order(name: str, side: int, patch: int) -> None:
    """Raise ConfigError unless the order exists for images of this side, in pixels, cut into patch x patch tokens."""
    if side % patch:
        raise ConfigError(f"EAT.PATCH_SIZE {patch} does not divide the crop of {side} pixels")
    if name in POWERS_OF_TWO and side & (side - 1):
        raise ConfigError(
            f"EAT.PIXEL_ORDER {name} needs a crop whose side is a power of two, such as 256, not {side} pixels"
        )


def check_order(pixel_order: str, sfc_mode: str, image_size: int, patch_size: int) -> None:
    """Raise ConfigError unless the order exists for the pixels or patches of an image, as ``sfc_mode`` says."""
    if sfc_mode == "first":
        check_pixel_order(pixel_order, image_size, patch_size)
        return
    if pixel_order == SWEEP_IN_SWEEP:
        raise ConfigError(
            f"EAT.PIXEL_ORDER: {pixel_order} orders the pixels inside patches, but EAT.SFC_MODE {sfc_mode} orders "
            "patches. Choose another order"
        )
    if image_size % patch_size:
        raise ConfigError(f"EAT.PATCH_SIZE {patch_size} does not divide the crop of {image_size} pixels")
    check_pixel_order(pixel_order, image_size // patch_size, 1)


def pixel_order(name: str, side: int, patch: int) -> np.ndarray:
    """Return the order of the pixels of a side x side image: int64 (side^2,).

    Raises:
        ConfigError: If `check_pixel_order` does.
    """
    check_pixel_order(name, side, patch)
    return PIXEL_ORDERS[name](side, patch)


def token_grid(order: np.ndarray, side: int, patch: int) -> np.ndarray | None:
    """Return the index of each token on the grid of patches, row by row: int64 (N,).

    Args:
        order: Order of the pixels; each patch x patch pixels in it are a token.
        side: Side of the image.
        patch: Side of a patch.

    Returns:
        The indices, or None if a token is not a square patch.
    """
    row, column = np.divmod(order.reshape(-1, patch * patch), side)
    index = row // patch * (side // patch) + column // patch
    return index[:, 0] if (index == index[:, :1]).all() else None


def resize_positions(embedding: torch.Tensor, order: str, patch: int, side: int, new_side: int) -> torch.Tensor:
    """Resize a position embedding, (1, N, C) -> (1, N', C), bicubically on the grid of patches, as DeiT does.

    Args:
        embedding: Embedding of the tokens of images of side x side pixels.
        order: Order of the pixels.
        patch: Side of a patch.
        side: Side of the images that the embedding is for.
        new_side: Side of the images that the result is for.

    Raises:
        CheckpointError: If the tokens of this order are not squares of pixels.
    """
    before, after = (token_grid(pixel_order(order, size, patch), size, patch) for size in (side, new_side))
    if before is None or after is None:
        raise CheckpointError(
            f"EAT.PIXEL_ORDER {order}: tokens are not squares of pixels, so weights for images of {side} x {side} "
            f"pixels cannot be resized to {new_side}. Set DATA.TRAIN_CROP_SIZE and DATA.TEST_CROP_SIZE to {side}"
        )
    grid = embedding[0, torch.from_numpy(before).argsort()].unflatten(0, (side // patch, -1))  # rows columns C
    grid = F.interpolate(
        rearrange(grid, "rows columns c -> 1 c rows columns"),
        (new_side // patch,) * 2,
        mode="bicubic",
        align_corners=False,
    )
    return grid.flatten(2).mT[:, torch.from_numpy(after)]  # 1 N' C


class PixelSequence(nn.Module):
    """Pixels of an image in one order, cut into tokens: (B, 3, side, side) -> (B, N, 3 patch^2).

    The order and its inverse are buffers because published checkpoints hold them.
    """

    def __init__(self, order: str, side: int, patch: int) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        self.is_patchwise = order == SWEEP_IN_SWEEP
        index = torch.from_numpy(pixel_order(order, side, patch))
        self.register_buffer("index_flat", index.view(1, -1, 1))
        self.register_buffer("index_flat_inv", index.argsort().view(1, -1, 1))

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token as in the image: (B, N) -> (B, H, W).

        H and W are in patches, or in pixels for orders whose tokens are not square patches.
        """
        n = self.side // self.patch
        if self.is_patchwise:
            return values.unflatten(1, (n, n))
        token = self.get_buffer("index_flat_inv").flatten() // self.patch**2  # token of each pixel
        return values[:, token].unflatten(1, (self.side, self.side))

    def new_embedding(self, dim: int) -> nn.Conv1d:
        """Return the layer that embeds the pixels of a token."""
        return nn.Conv1d(3, dim, self.patch**2, stride=self.patch**2)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Embed the tokens of images with a layer made by `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        assert isinstance(embedding, nn.Conv1d)
        return F.linear(self(x), embedding.weight.flatten(1), embedding.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_patchwise:  # equivalent and needs no lookup
            return rearrange(x, "b c (y py) (x px) -> b (y x) (c py px)", py=self.patch, px=self.patch)
        x = x.flatten(2)[:, :, self.get_buffer("index_flat").flatten()]  # B 3 (N p p)
        return rearrange(x, "b c (n p) -> b n (c p)", p=self.patch**2)


class PatchSequence(nn.Module):
    """Square patches, embedded and then put in one order."""

    def __init__(self, order: str, side: int, patch: int) -> None:
        super().__init__()
        self.n, self.patch = side // patch, patch
        index = torch.from_numpy(pixel_order(order, self.n, 1))
        self.register_buffer("index_flat", index.view(1, -1, 1))
        self.register_buffer("index_flat_inv", index.argsort().view(1, -1, 1))

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token as in the image: (B, N) -> (B, H, W)."""
        return values[:, self.get_buffer("index_flat_inv").flatten()].unflatten(1, (self.n, self.n))

    def new_embedding(self, dim: int) -> nn.Conv2d:
        """Return the layer that embeds the pixels of a token."""
        return nn.Conv2d(3, dim, self.patch, stride=self.patch)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Embed the tokens of images with a layer made by `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        return rearrange(embedding(x), "b c h w -> b (h w) c")[:, self.get_buffer("index_flat").flatten()]


# EAT.SFC_MODE -> elements ordered by EAT.PIXEL_ORDER: pixels or patches.
SFC_MODES: dict[str, type[PixelSequence] | type[PatchSequence]] = {"first": PixelSequence, "second": PatchSequence}
