"""Views to a video: one score a class out of the logits of all its views."""

from __future__ import annotations

from collections.abc import Callable

import torch

from slowfast.errors import ConfigError

JOIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda views: views.mean(0),  # the sum's order, on the scale of one view
    "max": lambda views: views.amax(0),
}
ENSEMBLE_ON = ("logits", "probabilities")


class Ensemble:
    """Joins the logits of a video's views, as DATA.ENSEMBLE_METHOD and TEST.ENSEMBLE_ON say."""

    def __init__(self, method: str = "sum", on: str = "logits") -> None:
        if method not in JOIN:
            raise ConfigError(f"DATA.ENSEMBLE_METHOD {method!r} is none of {', '.join(JOIN)}")
        if on not in ENSEMBLE_ON:
            raise ConfigError(f"TEST.ENSEMBLE_ON {on!r} is none of {', '.join(ENSEMBLE_ON)}")
        self.join, self.on_logits = JOIN[method], on == "logits"

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (views, K) to the video's probabilities (K,), in float64.

        On logits: the softmax of the joined logits. On probabilities: the joined softmax, which for "max"
        does not sum to 1.
        """
        logits = logits.double()
        if self.on_logits:
            return self.join(logits).softmax(0)
        return self.join(logits.softmax(1))
