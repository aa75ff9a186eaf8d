"""Reference implementation of event-driven inference: one stream, frame and patch at a time, in plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from slowfast.models.evmlp import EvMLP, Stage


@dataclass
class SlowStream:
    """State of one stream: the reference frame, and the tokens by stage and position."""

    model: EvMLP
    threshold: float
    reference: str
    gate: str
    keyframe_every: int = 0
    seen: int = 0
    held: torch.Tensor = field(init=False)
    tokens: list[dict[tuple[int, int], torch.Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        self.held = torch.full((3, self.model.side, self.model.side), -1.0)
        self.tokens = [{} for _ in self.model.blks]
        everything = {(r, c) for r in range(self.grid(0)) for c in range(self.grid(0))}
        self.logits = self.compute(self.held, everything)[0]

    def grid(self, stage: int) -> int:
        """Return the number of patches of a stage per side."""
        return math.prod(self.model.patch_sizes[stage + 1 :])

    def __call__(self, frame: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """Return the logits (classes,) of a frame (3, side, side) and the number of patches computed per stage."""
        p, changed = self.model.patch_sizes[0], set()
        full = self.seen == 0 and self.reference == "hold"
        full = full or (self.keyframe_every > 0 and self.seen > 0 and self.seen % self.keyframe_every == 0)
        for r in range(self.grid(0)):
            for c in range(self.grid(0)):
                patch = slice(None), slice(r * p, (r + 1) * p), slice(c * p, (c + 1) * p)
                change = (frame[patch] - self.held[patch]).abs()
                change = change.max() if self.gate == "any" else change.mean()
                if full or not change <= self.threshold:
                    changed.add((r, c))
                    if self.reference == "hold":
                        self.held[patch] = frame[patch]
        if self.reference == "previous":
            self.held = frame.clone()
        self.seen += 1
        self.logits, active = self.compute(frame, changed)
        return self.logits, active

    @torch.no_grad()
    def compute(self, frame: torch.Tensor, changed: set[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
        """Recompute the changed patches (row, column) of the first stage and everything that depends on them."""
        if not changed:
            return self.logits, [0] * len(self.tokens)
        active = []
        for i, (stage, p) in enumerate(zip(self.model.blks, self.model.patch_sizes, strict=True)):
            assert isinstance(stage, Stage)
            if i:
                changed = {(r // p, c // p) for r, c in changed}
            for r, c in changed:
                if i == 0:
                    x = frame[:, r * p : (r + 1) * p, c * p : (c + 1) * p].permute(1, 2, 0).flatten()
                else:
                    below = self.tokens[i - 1]
                    x = torch.cat([below[r * p + y, c * p + x] for y in range(p) for x in range(p)])
                x = stage.embed(x[None])
                for block in stage.blocks:
                    x = block(x)
                self.tokens[i][r, c] = x[0]
            active.append(len(changed))
        return self.model.classify(self.tokens[-1][0, 0][None])[0], active
