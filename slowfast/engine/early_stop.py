"""Early stopping: training ends once validations no longer improve."""

from __future__ import annotations

from dataclasses import dataclass

from slowfast.config.node import ConfigNode
from slowfast.engine.state import Position
from slowfast.visualization.results import Metric


@dataclass(frozen=True)
class EarlyStop:
    """Early stopping rule. It only depends on the saved position, so a resumed run makes the same decision.

    Attributes:
        patience: TRAIN.EARLY_STOP, epochs without a better validation; 0 disables early stopping.
        eval_period: TRAIN.EVAL_PERIOD, epochs between validations.
        max_epoch: SOLVER.MAX_EPOCH, for the message.
    """

    patience: int
    eval_period: int
    max_epoch: int

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EarlyStop:
        """Build from TRAIN and SOLVER."""
        return cls(cfg.TRAIN.EARLY_STOP, cfg.TRAIN.EVAL_PERIOD, cfg.SOLVER.MAX_EPOCH)

    def is_due(self, at: Position) -> bool:
        """Return whether training ends here: just after a validation, with the best one at least `patience` epochs ago.

        Until a validation yields a number, epochs are counted from the start.
        """
        validated = at.epoch % self.eval_period == 0 and at.step == 0
        return self.patience > 0 and validated and at.epoch - at.best_epoch >= self.patience

    def message(self, at: Position, best: Metric) -> str:
        """Return why training ends, and the best validation so far of the metric that selects checkpoints."""
        reached = "none" if at.best_metric is None else f"{best.text(at.best_metric)} at epoch {at.best_epoch}"
        return (
            f"Training ends early, at epoch {at.epoch} of {self.max_epoch}: no better validation {best.title} for "
            f"{self.patience} epochs (TRAIN.EARLY_STOP). Best: {reached}"
        )
