"""TokenMix of event recordings (Event2Vec, arXiv 2504.15371 v3).

Notation: N recordings of a batch, L events, K classes. Recording i is mixed with recording N - 1 - i, as in MixUp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from slowfast.models.protocol import MIXED


@dataclass(frozen=True)
class TokenMix:
    """Mixing of the tokens of two recordings and of their labels, with probability `probability` for a batch."""

    probability: float

    def __call__(
        self, events: dict[str, torch.Tensor], soft: torch.Tensor, rng: np.random.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Draw the tokens to replace, at the same positions in all recordings, and mix the labels.

        Args:
            events: Events, (N, L) each.
            soft: Soft labels (N, K).
            rng: Generator of the draw.

        Returns:
            The events, with MIXED if the batch is mixed, and the soft labels.
        """
        if rng.random() >= self.probability:
            return events, soft
        valid = events["valid"]
        length = valid.shape[1]
        replaced = int((1.0 - rng.uniform()) * length)  # the remaining fraction has the distribution Beta(1, 1)
        places = np.zeros(length, bool)
        places[rng.permutation(length)[:replaced]] = True
        mixed = torch.from_numpy(places).to(valid.device).expand_as(valid)
        return {**events, MIXED: mixed}, soft.lerp(soft.flip(0), replaced / length)
