"""Event2Vec for event streams (arXiv 2504.15371 v1), after its authors' published code.

Logits agree with the published code for the embeddings naive and neighbor1d-naive2d on ASL-DVS settings, to 1e-6 of the
largest; the published accuracies were not measured here. State dicts have the published keys and shapes.

Notation: B recordings, L events, S slices of T_HEADS, C channels, M masked events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.event_embedding import EventEmbedding, Grid, build_embedding
from slowfast.models.event_transformer import EventTransformer
from slowfast.models.layers import RandomLayer
from slowfast.models.protocol import EVENTS, MASKED, MODEL_REGISTRY, Events, Network, check_events

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class Time2Vec(nn.Module):
    """Time2Vec (arXiv 1907.05321), one linear channel and sines: times (B, L) -> (B, L, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(1, dim)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        values = self.fc(t[..., None])
        return torch.cat((values[..., :1], values[..., 1:].sin()), -1)


class AddTime(nn.Module):
    """Add encoded times (B, L) to tokens (B, L, C).

    Args:
        transform: Encoding of the times; None adds the time itself to every channel.
    """

    def __init__(self, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + (t[..., None] if self.transform is None else self.transform(t))


# EVENT2VEC.TPE -> layer for a number of channels.
TIME_ENCODINGS = {
    "add": lambda dim: AddTime(),
    "t2v": lambda dim: AddTime(Time2Vec(dim)),
}


@MODEL_REGISTRY.register()
class Event2Vec(RandomLayer, Network):
    """Event2Vec for event streams.

    Maps a dict of tensors ``x``, ``y`` (int), ``t`` (float, normalized time from the first event), ``p`` (0 or 1) and
    ``valid`` (bool), each of shape (B, L), to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        sensor_size: Height and width of the sensor in pixels.
        grid_size: Height and width of the grid that events are scaled to.
        polarities: Number of polarities that the embedding distinguishes, 1 or 2.
        embed: Name of the embedding, see :func:`~slowfast.models.event_embedding.build_embedding`.
        tpe: Encoding of the times, a name in ``TIME_ENCODINGS``.
        embed_dim: Channels of a token.
        heads: Attention heads.
        mlp_dim: Hidden channels of the MLPs.
        layers: Number of encoder layers.
        t_heads: Average the tokens of this many consecutive slices of the events.
        mask_ratio: Fraction of the events masked in pre-training; 0 for classification.
        act_checkpoint: True, or the number of encoder layers whose activations are recomputed in the backward pass.

    Raises:
        ConfigError: For invalid settings.
    """

    input_kind = EVENTS

    def __init__(
        self,
        num_classes: int = 24,
        sensor_size: tuple[int, int] = (180, 240),
        grid_size: tuple[int, int] = (36, 48),
        polarities: int = 2,
        embed: str = "neighbor1d-naive2d-2-1",
        tpe: str = "add",
        embed_dim: int = 256,
        heads: int = 16,
        mlp_dim: int = 512,
        layers: int = 2,
        t_heads: int = 1,
        mask_ratio: float = 0.0,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_settings(sensor_size, grid_size, embed_dim, heads, t_heads, mask_ratio)
        self.sensor_size, self.t_heads, self.mask_ratio = sensor_size, t_heads, mask_ratio
        self.act_checkpoint = act_checkpoint
        self.pretraining = mask_ratio > 0
        self.embed: EventEmbedding = build_embedding(embed, Grid(polarities, *grid_size), embed_dim)
        self.tpe = TIME_ENCODINGS[tpe](embed_dim)
        self.classifier = EventTransformer(embed_dim, heads, mlp_dim, layers, num_classes)
        self.classifier.head.requires_grad_(mask_ratio == 0)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Event2Vec:
        """Build the network described by MODEL and EVENT2VEC for the sensor of DVS."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            sensor_size=tuple(cfg.DVS.SENSOR_SIZE),
            grid_size=tuple(cfg.EVENT2VEC.GRID_SIZE),
            polarities=cfg.EVENT2VEC.POLARITIES,
            embed=cfg.EVENT2VEC.EMBED,
            tpe=cfg.EVENT2VEC.TPE,
            embed_dim=cfg.EVENT2VEC.EMBED_DIM,
            heads=cfg.EVENT2VEC.HEADS,
            mlp_dim=cfg.EVENT2VEC.MLP_DIM,
            layers=cfg.EVENT2VEC.LAYERS,
            t_heads=cfg.EVENT2VEC.T_HEADS,
            mask_ratio=cfg.EVENT2VEC.MASK_RATIO,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError for invalid settings; the network is built without memory for its weights."""
        with torch.device("meta"):
            network = Event2Vec.from_config(cfg)
        plain = cfg.MODEL.LOSS_FUNC == "cross_entropy" and not cfg.MODEL.CLASS_WEIGHTS
        if network.pretraining and (cfg.TEST.ENABLE or not plain):
            raise ConfigError(
                f"EVENT2VEC.MASK_RATIO ({cfg.EVENT2VEC.MASK_RATIO}) selects pre-training, which has no classes. Set "
                'TEST.ENABLE False MODEL.LOSS_FUNC cross_entropy MODEL.CLASS_WEIGHTS ""'
            )

    def head_names(self) -> tuple[str, ...]:
        return ("classifier.head",)

    def forward(self, events: Events) -> torch.Tensor:
        """Return logits (B, num_classes), or for events with MASKED the scores of their positions, (M, P h w)."""
        check_events(events)
        if MASKED in events:
            encoded = self.classifier.encode(*self._tokens(events), self.act_checkpoint)
            return self.embed.scores(encoded[:, 1:][events[MASKED]])
        return self.classify(self.features(events))

    def features(self, events: Events) -> torch.Tensor:
        """Return the input of the head, the class token: (B, C)."""
        return self.classifier.class_features(*self._tokens(events), self.act_checkpoint)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.classifier.head(features)

    def pretext(self, events: Events) -> tuple[Events, torch.Tensor]:
        """Mask a fraction of the events of each recording, at least one.

        Returns:
            The events with MASKED, and the positions of the masked ones as numbers of grid cells, int64 (M,).
        """
        valid = events["valid"]
        draws = self.sampler.uniform(*valid.shape).to(valid.device).masked_fill(~valid, 2.0)  # B L
        lowest = F.one_hot(draws.argmin(1), draws.shape[1]).bool()
        masked = ((draws < self.mask_ratio) | lowest) & valid
        p, y, x = self._positions(events)
        return {**events, MASKED: masked}, self.embed.grid.index(p, y, x)[masked]

    def _tokens(self, events: Events) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens, (B, L / T_HEADS, C), and their validity, (B, L / T_HEADS)."""
        t, valid = events["t"], events["valid"]
        p, y, x = self._positions(events)
        tokens = self.embed(p, y, x, valid)
        if MASKED in events:
            tokens = tokens.masked_fill(events[MASKED][..., None], 0.0)
        if self.t_heads > 1:
            t, tokens, valid = self._mean_of_slices(t, tokens, valid)
        return self.tpe(torch.where(valid, t, 0.0).to(tokens.dtype), tokens), valid

    def _positions(self, events: Events) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return p, y and x on the grid; halves are rounded to even, as published."""
        grid, (height, width) = self.embed.grid, self.sensor_size
        y = (events["y"] * (grid.height / height)).round().long().clamp(0, grid.height - 1)
        x = (events["x"] * (grid.width / width)).round().long().clamp(0, grid.width - 1)
        return events["p"].long().clamp(0, grid.polarities - 1), y, x

    def _mean_of_slices(
        self, t: torch.Tensor, tokens: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Average the j-th valid events of all slices: (B, L, ...) -> (B, L / S, ...)."""
        missing = -valid.shape[1] % self.t_heads
        t, valid = F.pad(t, (0, missing)), F.pad(valid, (0, missing))
        tokens = F.pad(tokens, (0, 0, 0, missing))
        slices = self.t_heads
        kept = rearrange(valid, "b (s l) -> b s l", s=slices)
        count = kept.sum(1).clamp(min=1)
        t = (rearrange(t, "b (s l) -> b s l", s=slices) * kept).sum(1) / count
        tokens = rearrange(tokens, "b (s l) c -> b s l c", s=slices)
        return t, (tokens * kept[..., None]).sum(1) / count[..., None], kept.any(1)


def check_settings(
    sensor_size: tuple[int, int],
    grid_size: tuple[int, int],
    embed_dim: int,
    heads: int,
    t_heads: int,
    mask_ratio: float,
) -> None:
    """Raise ConfigError for settings that contradict each other."""
    if any(cells > pixels for cells, pixels in zip(grid_size, sensor_size, strict=True)):
        raise ConfigError(
            f"EVENT2VEC.GRID_SIZE ({list(grid_size)}) must not be finer than DVS.SENSOR_SIZE ({list(sensor_size)}); "
            "both are height, width"
        )
    if embed_dim % heads:
        raise ConfigError(f"EVENT2VEC.HEADS ({heads}) must divide EVENT2VEC.EMBED_DIM ({embed_dim})")
    if mask_ratio > 0 and t_heads > 1:
        raise ConfigError(
            f"EVENT2VEC.MASK_RATIO ({mask_ratio}) masks single events, but EVENT2VEC.T_HEADS ({t_heads}) averages "
            "several. Set T_HEADS 1 for pre-training"
        )


def event2vec_asldvs(num_classes: int = 24, **settings: Any) -> Event2Vec:
    """Build Event2Vec for ASL-DVS; `settings` are additional arguments of :class:`Event2Vec`."""
    return Event2Vec(num_classes, **settings)


def event2vec_dvsgesture(num_classes: int = 11, **settings: Any) -> Event2Vec:
    """Build Event2Vec for DVS Gesture; `settings` are additional arguments of :class:`Event2Vec`."""
    return Event2Vec(num_classes, **{"sensor_size": (128, 128), "grid_size": (64, 64), **settings})


def event2vec_dvslip(num_classes: int = 100, **settings: Any) -> Event2Vec:
    """Build Event2Vec for DVS-Lip; `settings` are additional arguments of :class:`Event2Vec`."""
    grid: dict[str, Any] = {"sensor_size": (128, 128), "grid_size": (64, 64)}
    return Event2Vec(num_classes, **{**grid, "embed_dim": 192, "heads": 6, "mlp_dim": 384, "layers": 4, **settings})
