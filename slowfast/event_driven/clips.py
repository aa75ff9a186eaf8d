"""Event-driven inference on the clips of a test dataset, with the interface of a framewise network.

Notation: B clips, T frames, C classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.cluster_evaluation import Counters
from slowfast.errors import ConfigError
from slowfast.event_driven.activity import Savings
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.protocol import CLIPS, Network
from slowfast.utils.distributed import World
from slowfast.visualization.results import Results


class EventDrivenClips(Network):
    """Drop-in replacement for a framewise evMLP that computes only the patches that change within a clip.

    Maps float (B, 3, T, H, W) to logits (B, C), averaged over the frames. Each clip is a separate stream. ``savings``
    accumulates over the calls.
    """

    input_kind = CLIPS

    def __init__(self, engine: EventDrivenInference) -> None:
        super().__init__()
        self.engine = engine
        self.savings = Savings.of(engine.network)

    @classmethod
    def from_framewise(cls, cfg: ConfigNode, model: nn.Module) -> EventDrivenClips:
        """Build from the EVENT settings, with the weights of a framewise network.

        Raises:
            ConfigError: If the network is not a framewise evMLP.
        """
        if not isinstance(model, FramewiseVideo):
            raise ConfigError("EVENT.ENABLE: MODEL.FRAMEWISE is empty. Set it to logits")
        return cls(EventDrivenInference.from_config(cfg, model.image))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.permute(2, 0, 1, 3, 4)  # T B 3 H W
        self.engine.reset()
        with torch.autocast(x.device.type, enabled=False):  # EVENT.PRECISION determines the precision
            results = self.engine.run(frames.float(), range(len(x)))
        self.savings.add(results.active, results.macs)
        return results.logits.mean(0)

    def take_counters(self) -> Counters:
        """Return the frames, multiply-adds and patches of `savings` and reset it."""
        found, self.savings = self.savings, Savings.of(self.engine.network)
        return {"frames": [found.frames], "macs": [found.macs], "active": found.active}


class EventDrivenTest:
    """Event-driven test mode: wraps the network and reports the saved computation."""

    def __init__(self, cfg: ConfigNode) -> None:
        self._cfg = cfg
        self._model: EventDrivenClips | None = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return event-driven inference with the weights of a framewise evMLP."""
        self._model = EventDrivenClips.from_framewise(self._cfg, model)
        return self._model

    @staticmethod
    def build(cfg: ConfigNode, model: Network) -> EventDrivenClips:
        """Build the module of a process on a cluster."""
        return EventDrivenClips.from_framewise(cfg, model)

    def add(self, counters: Counters) -> None:
        """Add the savings of a process on a cluster."""
        assert self._model is not None
        known = self._model.savings
        part = replace(known, frames=counters["frames"][0], macs=counters["macs"][0], active=counters["active"])
        self._model.savings = Savings.total([known, part])

    def results(self, world: World) -> Results:
        """Return the percentage of multiply-adds saved and of patches computed per stage, over all processes."""
        if self._model is None:
            return Results()
        savings = Savings.total(world.gather([self._model.savings]))
        active = " ".join(f"{share:.1f}" for share in savings.active_shares)
        return Results(
            {"macs_saved": savings.macs_saved, "active_patches": savings.active_shares},
            [("multiply-adds saved", f"{savings.macs_saved:.1f} %"), ("patches computed", f"{active} % per stage")],
        )
