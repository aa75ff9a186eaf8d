"""Event2Vec for event streams (arXiv 2504.15371 v1), after its authors' published code.

Logits agree with the published code's for the embeddings naive and neighbor1d-naive2d on ASL-DVS settings, to 1e-6 of
the largest; the published accuracies were not measured here. State dicts have the published keys and shapes.

Shapes: B recordings, L events, S slices of T_HEADS, d channels, M masked events.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.checkpointing import run_blocks
from slowfast.models.event_embedding import EventEmbedding, Grid, build_embedding
from slowfast.models.inputs import EVENTS, Events, check_events
from slowfast.models.layers import draw_uniform

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


MASKED = "masked"  # (B, L) bool in a batch of pre-training: events whose places are to be predicted


class Time2Vec(nn.Module):
    """Times (B, L) to (B, L, d): one linear channel, the others sines (arXiv 1907.05321)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(1, width)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        values = self.fc(t[..., None])
        return torch.cat((values[..., :1], values[..., 1:].sin()), -1)


class AddTime(nn.Module):
    """Adds what `transform` makes of times (B, L) to tokens (B, L, d)."""

    def __init__(self, transform: nn.Module | None = None) -> None:
        """`transform`: None for the time itself, in every channel."""
        super().__init__()
        self.transform = transform

    def forward(self, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + (t[..., None] if self.transform is None else self.transform(t))


TIME_ENCODINGS = {
    "add": lambda width: AddTime(),
    "t2v": lambda width: AddTime(Time2Vec(width)),
}


class EventTransformer(nn.Module):
    """A Transformer encoder with a learned class token before the events, and a Linear on it."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int, num_classes: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, batch_first=True)  # post-norm, ReLU
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random weights, each layer its own: the encoder's are copies of one."""
        for layer in self.encoder.layers:
            for part in layer.modules():
                if isinstance(part, nn.MultiheadAttention):
                    part._reset_parameters()
                elif isinstance(part, nn.Linear):
                    part.reset_parameters()
            layer.self_attn._reset_parameters()  # its output Linear has another start than a Linear's own

    def encode(self, tokens: torch.Tensor, valid: torch.Tensor, act_checkpoint: bool | int) -> torch.Tensor:
        """(B, L, d) -> (B, 1 + L, d); nothing looks at events that are not valid."""
        tokens = torch.cat((self.class_token.expand(len(tokens), -1, -1), tokens), 1)
        hidden = F.pad(~valid, (1, 0))  # the class token is never hidden
        layers = [functools.partial(layer, src_key_padding_mask=hidden) for layer in self.encoder.layers]
        tokens = run_blocks(layers, tokens, act_checkpoint)
        norm = self.encoder.norm
        return tokens if norm is None else norm(tokens)


class Event2Vec(nn.Module):
    """Event2Vec: a dict of x, y (whole numbers), t (float), p (0, 1), each (B, L), and valid (B, L) bool -> logits.

    t: normalized time from a recording's first event. sensor_size, grid_size: (height, width); events are scaled from
    the one to the other. t_heads: mean tokens of as many consecutive slices of the L events. mask_ratio: the share of
    events masked in pre-training, 0 for classification. act_checkpoint: True, or the number of encoder layers whose
    activations are computed again in the backward pass. Raises ConfigError for impossible settings.
    """

    TAKES = EVENTS
    HEAD: ClassVar[tuple[str, ...]] = ("classifier.head",)

    def __init__(
        self,
        num_classes: int = 24,
        sensor_size: tuple[int, int] = (180, 240),
        grid_size: tuple[int, int] = (36, 48),
        polarities: int = 2,
        embed: str = "neighbor1d-naive2d-2-1",
        tpe: str = "add",
        width: int = 256,
        heads: int = 16,
        hidden: int = 512,
        layers: int = 2,
        t_heads: int = 1,
        mask_ratio: float = 0.0,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_settings(sensor_size, grid_size, width, heads, t_heads, mask_ratio)
        self.sensor_size, self.t_heads, self.mask_ratio = sensor_size, t_heads, mask_ratio
        self.act_checkpoint = act_checkpoint
        self.embed: EventEmbedding = build_embedding(embed, Grid(polarities, *grid_size), width)
        self.tpe = TIME_ENCODINGS[tpe](width)
        self.classifier = EventTransformer(width, heads, hidden, layers, num_classes)
        self.classifier.head.requires_grad_(mask_ratio == 0)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Event2Vec:
        """The network of MODEL and EVENT2VEC for the sensor of DVS."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            sensor_size=tuple(cfg.DVS.SENSOR_SIZE),
            grid_size=tuple(cfg.EVENT2VEC.GRID_SIZE),
            polarities=cfg.EVENT2VEC.POLARITIES,
            embed=cfg.EVENT2VEC.EMBED,
            tpe=cfg.EVENT2VEC.TPE,
            width=cfg.EVENT2VEC.EMBED_DIM,
            heads=cfg.EVENT2VEC.HEADS,
            hidden=cfg.EVENT2VEC.MLP_DIM,
            layers=cfg.EVENT2VEC.LAYERS,
            t_heads=cfg.EVENT2VEC.T_HEADS,
            mask_ratio=cfg.EVENT2VEC.MASK_RATIO,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError for impossible settings without building the network for good."""
        with torch.device("meta"):
            network = Event2Vec.from_config(cfg)
        plain = cfg.MODEL.LOSS_FUNC == "cross_entropy" and not cfg.MODEL.CLASS_WEIGHTS
        if network.pretraining and (cfg.TEST.ENABLE or not plain):
            raise ConfigError(
                f"EVENT2VEC.MASK_RATIO {cfg.EVENT2VEC.MASK_RATIO} is pre-training, which knows no classes: set "
                'TEST.ENABLE False MODEL.LOSS_FUNC cross_entropy MODEL.CLASS_WEIGHTS ""'
            )

    @property
    def pretraining(self) -> bool:
        """Whether this form learns the places of masked events."""
        return self.mask_ratio > 0

    def forward(self, events: Events) -> torch.Tensor:
        """Logits (B, num_classes); of events with MASKED, scores of the masked events' places (M, P h w)."""
        check_events(events)
        if MASKED in events:
            return self.embed.scores(self._encode(events)[:, 1:][events[MASKED]])
        return self.classify(self.features(events))

    def features(self, events: Events) -> torch.Tensor:
        """What the head sees, the class token: (B, d)."""
        return self._encode(events)[:, 0]

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, d) -> logits (B, num_classes)."""
        return self.classifier.head(features)

    def pretext(self, events: Events) -> tuple[Events, torch.Tensor]:
        """Mask a share of each recording's events, at least one: the events with MASKED, and the places (M,)."""
        valid = events["valid"]
        draws = draw_uniform(*valid.shape).to(valid.device).masked_fill(~valid, 2.0)  # B L
        lowest = F.one_hot(draws.argmin(1), draws.shape[1]).bool()
        masked = ((draws < self.mask_ratio) | lowest) & valid
        p, y, x = self._place(events)
        return {**events, MASKED: masked}, self.embed.grid.row(p, y, x)[masked]

    def _encode(self, events: Events) -> torch.Tensor:
        """(B, 1 + L / T_HEADS, d), the class token first."""
        t, valid = events["t"], events["valid"]
        p, y, x = self._place(events)
        tokens = self.embed(p, y, x, valid)
        if MASKED in events:
            tokens = tokens.masked_fill(events[MASKED][..., None], 0.0)
        if self.t_heads > 1:
            t, tokens, valid = self._mean_of_slices(t, tokens, valid)
        tokens = self.tpe(torch.where(valid, t, 0.0).to(tokens.dtype), tokens)
        return self.classifier.encode(tokens, valid, self.act_checkpoint)

    def _place(self, events: Events) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """p, y, x on the grid; a half goes to the even number, as published."""
        grid, (height, width) = self.embed.grid, self.sensor_size
        y = (events["y"] * (grid.height / height)).round().long().clamp(0, grid.height - 1)
        x = (events["x"] * (grid.width / width)).round().long().clamp(0, grid.width - 1)
        return events["p"].long().clamp(0, grid.polarities - 1), y, x

    def _mean_of_slices(
        self, t: torch.Tensor, tokens: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means over event j of each slice, of the valid ones: (B, L, ..) -> (B, L / S, ..)."""
        short = -valid.shape[1] % self.t_heads
        t, valid = F.pad(t, (0, short)), F.pad(valid, (0, short))
        tokens = F.pad(tokens, (0, 0, 0, short))
        kept = valid.unflatten(1, (self.t_heads, -1))  # B S L/S
        count = kept.sum(1).clamp(min=1)
        t = (t.unflatten(1, (self.t_heads, -1)) * kept).sum(1) / count
        tokens = (tokens.unflatten(1, (self.t_heads, -1)) * kept[..., None]).sum(1) / count[..., None]
        return t, tokens, kept.any(1)


def check_settings(
    sensor_size: tuple[int, int], grid_size: tuple[int, int], width: int, heads: int, t_heads: int, mask_ratio: float
) -> None:
    """Raise ConfigError for settings that do not go together."""
    if any(cells > pixels for cells, pixels in zip(grid_size, sensor_size, strict=True)):
        raise ConfigError(
            f"EVENT2VEC.GRID_SIZE {list(grid_size)} is finer than the sensor: make it at most DVS.SENSOR_SIZE "
            f"{list(sensor_size)} (height, width)"
        )
    if width % heads:
        raise ConfigError(f"EVENT2VEC.HEADS {heads} must divide EVENT2VEC.EMBED_DIM {width}")
    if mask_ratio > 0 and t_heads > 1:
        raise ConfigError(
            f"EVENT2VEC.MASK_RATIO {mask_ratio} masks single events, EVENT2VEC.T_HEADS {t_heads} averages several: "
            "set T_HEADS 1 for pre-training"
        )
