"""A framewise evMLP on the clips of a test, event-driven inside each clip.

B clips, T frames, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.event_driven.activity import whole_macs
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.inputs import CLIPS
from slowfast.models.protocol import Network
from slowfast.utils.distributed import World
from slowfast.visualization.results import Results


@dataclass
class Savings:
    """How much of the whole network's work was done. It is of `frames` frames; counts are summed over them."""

    counts: list[int]  # patches of each stage in a frame
    whole_macs: int  # multiply-adds of a whole frame
    frames: int = 0
    macs: int = 0
    active: list[int] = field(default_factory=list)  # patches computed of each stage

    def add(self, active: torch.Tensor, macs: torch.Tensor) -> None:
        """Of more frames: patches computed (..., stages) and multiply-adds (...)."""
        of_stages = active.flatten(0, -2).sum(0).tolist()
        self.active = [a + b for a, b in zip(self.active or [0] * len(of_stages), of_stages, strict=True)]
        self.macs += int(macs.sum())
        self.frames += macs.numel()

    @property
    def macs_saved(self) -> float:
        """%, of the whole network's multiply-adds; 0 of no frames."""
        return 100 * (1 - self.macs / (self.frames * self.whole_macs)) if self.frames else 0.0

    @property
    def active_shares(self) -> list[float]:
        """%, patches computed of each stage."""
        pairs = zip(self.active, self.counts, strict=False)
        return [100 * active / (self.frames * count) for active, count in pairs]


def joined(parts: Iterable[Savings]) -> Savings:
    """The savings of several processes together."""
    first, *others = parts
    total = Savings(first.counts, first.whole_macs, first.frames, first.macs, list(first.active))
    for part in others:
        total.frames, total.macs = total.frames + part.frames, total.macs + part.macs
        if part.active:
            total.active = [a + b for a, b in zip(total.active or [0] * len(part.active), part.active, strict=True)]
    return total


class EventDrivenClips(Network):
    """In the place of a framewise network: float (B, 3, T, H, W) -> logits (B, C), the mean over a clip's frames.

    Each clip is a stream of its own that starts with its first frame. `savings` grows with each call.
    """

    input_kind = CLIPS

    def __init__(self, engine: EventDrivenInference) -> None:
        super().__init__()
        self.engine = engine
        self.savings = Savings(engine.network.counts, whole_macs(engine.network))

    @classmethod
    def from_framewise(cls, cfg: ConfigNode, model: nn.Module) -> EventDrivenClips:
        """Build from the EVENT settings, with the weights of a framewise network.

        Raises:
            ConfigError: For another network than evMLP, frame by frame.
        """
        if not isinstance(model, FramewiseVideo):
            raise ConfigError("EVENT.ENABLE: MODEL.FRAMEWISE is empty. Set it to logits")
        return cls(EventDrivenInference.from_config(cfg, model.image))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.permute(2, 0, 1, 3, 4)  # T B 3 H W
        self.engine.reset()
        with torch.autocast(x.device.type, enabled=False):  # EVENT.PRECISION says which numbers to use
            results = self.engine.run(frames.float(), range(len(x)))
        self.savings.add(results.active, results.macs)
        return results.logits.mean(0)


class EventDrivenTest:
    """Test whose clips are computed event-driven; reports the work that was saved."""

    def __init__(self, cfg: ConfigNode) -> None:
        self._cfg = cfg
        self._model: EventDrivenClips | None = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return event-driven inference with the weights of a framewise evMLP."""
        self._model = EventDrivenClips.from_framewise(self._cfg, model)
        return self._model

    def results(self, world: World) -> Results:
        """Return the share of multiply-adds saved and of patches computed, over all processes, in percent."""
        if self._model is None:
            return Results()
        savings = joined(world.gather([self._model.savings]))
        active = " ".join(f"{share:.1f}" for share in savings.active_shares)
        return Results(
            {"macs_saved": savings.macs_saved, "active_patches": savings.active_shares},
            [("multiply-adds saved", f"{savings.macs_saved:.1f} %"), ("patches computed", f"{active} % of each stage")],
        )
