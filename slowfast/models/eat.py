"""EAT for images (arXiv 2105.15089), after its authors' published code (TencentYoutuResearch/BaseArchitecture-EAT).

Logits agree with the published code for Ti, to 1e-6 of the largest, and so does the local branch ``attn``; the
published accuracies were not measured here. State dicts have the published keys and shapes. The authors' code for the
distilled form is not public: its second query and head are named as in DeiT. The deformable local branch ``dcn``, which
the published code cannot run, is not provided.

Notation: B images, N tokens of patch x patch pixels, C channels, Q learned queries (1, or 2 when distilled).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.errors import CheckpointError, ConfigError
from slowfast.models.eat_blocks import BLOCK_TYPES, EPS, BlockSettings, ClassBlock, LocalBlock, check_blocks
from slowfast.models.eat_pixel_order import SFC_MODES, SWEEP_IN_SWEEP, check_order, pixel_order, resize_positions
from slowfast.models.layers import init_truncated_normal, run_blocks
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, Network, StateDict, check_image
from slowfast.utils.logging import get_logger

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


STD = 0.02


@MODEL_REGISTRY.register()
class EAT(Network):
    """EAT for images.

    Maps a float tensor of shape (B, 3, image_size, image_size) to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        image_size: Side of the images in pixels.
        patch_size: Square root of a token's number of pixels.
        layers: Number of blocks on the tokens.
        class_layers: Number of blocks in which learned queries attend to the tokens.
        embed_dim: Channels of a token.
        heads: Attention heads; the blocks of type ``base_local`` have half as many.
        mlp_ratio: Hidden width of the MLPs as a multiple of ``embed_dim``.
        pixel_order: Order of the pixels or patches, a name in ``PIXEL_ORDERS``.
        sfc_mode: Elements ordered by ``pixel_order``: ``first`` for pixels, ``second`` for embedded patches.
        block_type: ``base_local`` for blocks with a local branch, ``base`` for plain attention.
        local: Local branch, a name in ``LOCAL_BRANCHES``.
        local_ratio: Fraction of the channels processed by the local branch.
        local_ks: Number of neighboring tokens that the local branch sees; odd.
        pos_emb: Add a learned position embedding to the tokens.
        cls_token: Classify by a class token that passes through all blocks with the others.
        cls_token_head: Without ``cls_token``: classify by the class blocks; False averages the tokens instead.
        distilled: Add a second query and head for the teacher's labels. The logits are the mean over both heads, as
            of DeiT (arXiv 2012.12877) in evaluation, here in training as well; ``forward_heads`` returns both.
        drop_depth_rate: Stochastic depth of the last block; rises linearly from 0.
        act_checkpoint: True, or the number of blocks, counted from the first, whose activations are recomputed in the
            backward pass. Never the class blocks, whose activations are small.

    Raises:
        ConfigError: For invalid settings and, when called, for images of another size.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        patch_size: int = 16,
        layers: int = 12,
        class_layers: int = 2,
        embed_dim: int = 192,
        heads: int = 4,
        mlp_ratio: float = 4,
        pixel_order: str = SWEEP_IN_SWEEP,
        sfc_mode: str = "first",
        block_type: str = "base_local",
        local: str = "conv",
        local_ratio: float = 0.5,
        local_ks: int = 3,
        pos_emb: bool = True,
        cls_token: bool = False,
        cls_token_head: bool = True,
        distilled: bool = False,
        drop_depth_rate: float = 0.1,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        tokens = (image_size // patch_size) ** 2
        settings = BlockSettings(embed_dim, heads, mlp_ratio, tokens, local, local_ratio, local_ks)
        check_order(pixel_order, sfc_mode, image_size, patch_size)
        check_blocks(block_type, settings)
        check_class_token(cls_token, cls_token_head, distilled, block_type, local)
        self.image_size, self.patch_size, self.act_checkpoint = image_size, patch_size, act_checkpoint
        self.pixel_order, self.sfc_mode, self.has_class_token = pixel_order, sfc_mode, cls_token
        has_query = cls_token or cls_token_head
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if has_query else None
        self.dist_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if distilled else None
        self.pos_embed = nn.Parameter(torch.empty(1, tokens + cls_token, embed_dim)) if pos_emb else None
        self.loc_encoder = SFC_MODES[sfc_mode](pixel_order, image_size, patch_size)
        self.patch_embed = self.loc_encoder.new_embedding(embed_dim)
        rates = [drop_depth_rate * i / max(layers - 1, 1) for i in range(layers)]
        self.blocks = nn.ModuleList(BLOCK_TYPES[block_type](settings, rate) for rate in rates)
        class_blocks = class_layers if cls_token_head and not cls_token else 0
        self.blocks_cls = nn.ModuleList(ClassBlock(embed_dim, heads, mlp_ratio) for _ in range(class_blocks))
        self.norm = nn.LayerNorm(embed_dim, EPS)
        self.head = nn.Linear(embed_dim, num_classes)
        self.head_dist = nn.Linear(embed_dim, num_classes) if distilled else None
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EAT:
        """Build the network described by MODEL and EAT for crops of DATA.TEST_CROP_SIZE."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            image_size=cfg.DATA.TEST_CROP_SIZE,
            patch_size=cfg.EAT.PATCH_SIZE,
            layers=cfg.EAT.LAYERS,
            class_layers=cfg.EAT.CLASS_LAYERS,
            embed_dim=cfg.EAT.EMBED_DIM,
            heads=cfg.EAT.HEADS,
            mlp_ratio=cfg.EAT.MLP_RATIO,
            pixel_order=cfg.EAT.PIXEL_ORDER,
            sfc_mode=cfg.EAT.SFC_MODE,
            block_type=cfg.EAT.BLOCK_TYPE,
            local=cfg.EAT.LOCAL,
            local_ratio=cfg.EAT.LOCAL_RATIO,
            local_ks=cfg.EAT.LOCAL_KS,
            pos_emb=cfg.EAT.POS_EMB,
            cls_token=cfg.EAT.CLS_TOKEN,
            cls_token_head=cfg.EAT.CLS_TOKEN_HEAD,
            distilled=cfg.EAT.DISTILLED,
            drop_depth_rate=cfg.EAT.DROP_DEPTH_RATE,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for settings that are invalid for the run's crops."""
        data, eat = cfg.DATA, cfg.EAT
        if cfg.TRAIN.ENABLE and data.TRAIN_CROP_SIZE != data.TEST_CROP_SIZE:
            raise ConfigError(
                f"DATA.TRAIN_CROP_SIZE {data.TRAIN_CROP_SIZE} and TEST_CROP_SIZE {data.TEST_CROP_SIZE} differ, but EAT "
                "learns one embedding per position. Make them equal"
            )
        check_order(eat.PIXEL_ORDER, eat.SFC_MODE, data.TEST_CROP_SIZE, eat.PATCH_SIZE)
        settings = BlockSettings(eat.EMBED_DIM, eat.HEADS, eat.MLP_RATIO, 1, eat.LOCAL, eat.LOCAL_RATIO, eat.LOCAL_KS)
        check_blocks(eat.BLOCK_TYPE, settings)
        check_class_token(eat.CLS_TOKEN, eat.CLS_TOKEN_HEAD, eat.DISTILLED, eat.BLOCK_TYPE, eat.LOCAL)

    def reset_parameters(self) -> None:
        """Initialize tokens, positions and Linear weights from a truncated normal distribution.

        The convolutions keep PyTorch's default initialization, as in the published code.
        """
        init_truncated_normal(self, STD, layers=(nn.Linear,))
        for parameter in (self.cls_token, self.dist_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=STD)

    def adapt_start_weights(self, state: StateDict, path: str | Path) -> StateDict:
        """Adapt weights for images of another size: resize the position embedding and keep this network's tables.

        Raises:
            CheckpointError: If the file orders its pixels differently or tokens in this order are not squares.
        """
        theirs, own = state.get("pos_embed"), self.pos_embed
        if theirs is None or own is None or theirs.dim() != 3 or theirs.shape[1] == own.shape[1]:
            return state
        class_token, positions = theirs[:, : self.has_class_token], theirs[:, self.has_class_token :]
        tokens = math.isqrt(positions.shape[1])
        # Side of the ordered grid: pixels of an image, or patches.
        patch = self.patch_size if self.sfc_mode == "first" else 1
        side, order, table = tokens * patch, self.pixel_order, state.get("loc_encoder.index_flat")
        if table is None or table.numel() != side**2:
            return state  # other keys or another patch size: load_weights reports them
        if not torch.equal(table.flatten().cpu(), torch.from_numpy(pixel_order(order, side, patch))):
            raise CheckpointError(
                f"{path} has images of {tokens * self.patch_size} x {tokens * self.patch_size} pixels in another order "
                f"than EAT.PIXEL_ORDER {order}. Set it as these weights were trained"
            )
        new_side = self.image_size // self.patch_size * patch
        resized = torch.cat((class_token, resize_positions(positions, order, patch, side, new_side)), 1)
        get_logger().info(
            f"{path}: resized the position embedding from images of {tokens * self.patch_size} to {self.image_size} "
            "pixels"
        )
        return state | dict(self.named_buffers()) | {"pos_embed": resized}

    def head_names(self) -> tuple[str, ...]:
        return ("head", "head_dist")

    def no_weight_decay(self) -> tuple[str, ...]:
        return ("cls_token", "dist_token", "pos_embed")

    def forward_heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits of each head, (B, num_classes): of the classes and, if distilled, of the teacher."""
        return self.classify_heads(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the heads: (B, 3, H, W) -> (B, Q C), queries one after another."""
        check_image(x)
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ConfigError(
                f"DATA.TEST_CROP_SIZE: the network is for images of {self.image_size} x {self.image_size} pixels, not "
                f"{x.shape[2]} x {x.shape[3]}"
            )
        tokens = self.loc_encoder.embed(x, self.patch_embed)  # B N C
        if self.has_class_token and self.cls_token is not None:
            tokens = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), tokens), 1)  # B 1+N C
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        tokens = self.norm(run_blocks(self.blocks, tokens, self.act_checkpoint))
        if self.has_class_token:
            return tokens[:, 0]
        learned = (self.cls_token, self.dist_token)
        if self.cls_token is None:
            return tokens.mean(1)
        queries = torch.cat([token for token in learned if token is not None], 1).expand(x.shape[0], -1, -1)  # B Q C
        for block in self.blocks_cls:
            queries = block(queries, tokens)
        return queries.flatten(1)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token as in the image: (B, N) -> (B, H, W); a class token's value is dropped."""
        return self.loc_encoder.on_grid(values[:, self.has_class_token :])

    def classify_heads(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits of each head, (B, num_classes), of features (B, Q C)."""
        heads = [head for head in (self.head, self.head_dist) if head is not None]
        return tuple(head(part) for head, part in zip(heads, features.chunk(len(heads), 1), strict=True))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean of the heads' logits, (B, num_classes), of features (B, Q C)."""
        return torch.stack(self.classify_heads(features)).mean(0)


def check_class_token(cls_token: bool, head: bool, distilled: bool, block_type: str, local: str) -> None:
    """Raise ConfigError if a class token or its absence contradicts other settings."""
    if distilled and (cls_token or not head):
        raise ConfigError("EAT.DISTILLED needs the class blocks: EAT.CLS_TOKEN False and EAT.CLS_TOKEN_HEAD True")
    if cls_token and BLOCK_TYPES[block_type] is LocalBlock and local == "attn":
        raise ConfigError(
            "EAT.CLS_TOKEN: a class token has no neighbors, so EAT.LOCAL attn does not work with it. Use conv"
        )


# Variants of EAT: channels and attention heads.
_SIZES = {"ti": (192, 4), "s": (384, 6), "m": (576, 8), "b": (768, 12)}


def _eat(size: str, num_classes: int, settings: dict[str, Any]) -> EAT:
    embed_dim, heads = _SIZES[size]
    return EAT(num_classes, **{"embed_dim": embed_dim, "heads": heads, **settings})


def eat_ti(num_classes: int = 1000, **settings: Any) -> EAT:
    """Build EAT-Ti; `settings` are additional arguments of :class:`EAT`."""
    return _eat("ti", num_classes, settings)


def eat_s(num_classes: int = 1000, **settings: Any) -> EAT:
    """Build EAT-S; `settings` are additional arguments of :class:`EAT`."""
    return _eat("s", num_classes, settings)


def eat_m(num_classes: int = 1000, **settings: Any) -> EAT:
    """Build EAT-M; `settings` are additional arguments of :class:`EAT`."""
    return _eat("m", num_classes, settings)


def eat_b(num_classes: int = 1000, **settings: Any) -> EAT:
    """Build EAT-B; `settings` are additional arguments of :class:`EAT`."""
    return _eat("b", num_classes, settings)
