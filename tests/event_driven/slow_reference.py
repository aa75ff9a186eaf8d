"""Event-driven inference as its rules read: one stream, one frame, one patch at a time, in plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from slowfast.models.evmlp import EvMLP, Stage


@dataclass
class SlowStream:
    """Remembers a frame and, by stage and place, the tokens of a stream."""

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
        """Patches of a stage along a side."""
        return math.prod(self.model.patch_sizes[stage + 1 :])

    def __call__(self, frame: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The logits of a frame (3, side, side), (classes,), and how many patches of each stage were computed."""
        p, changed = self.model.patch_sizes[0], set()
        whole = self.seen == 0 and self.reference == "hold"
        whole = whole or (self.keyframe_every > 0 and self.seen > 0 and self.seen % self.keyframe_every == 0)
        for r in range(self.grid(0)):
            for c in range(self.grid(0)):
                place = slice(None), slice(r * p, (r + 1) * p), slice(c * p, (c + 1) * p)
                change = (frame[place] - self.held[place]).abs()
                change = change.max() if self.gate == "any" else change.mean()
                if whole or not change <= self.threshold:
                    changed.add((r, c))
                    if self.reference == "hold":
                        self.held[place] = frame[place]
        if self.reference == "previous":
            self.held = frame.clone()
        self.seen += 1
        self.logits, active = self.compute(frame, changed)
        return self.logits, active

    @torch.no_grad()
    def compute(self, frame: torch.Tensor, changed: set[tuple[int, int]]) -> tuple[torch.Tensor, list[int]]:
        """Renew the changed patches (row, column) of the first stage and all that is made of them."""
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
