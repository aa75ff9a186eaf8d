"""Trackers: TensorBoard, Weights & Biases, MLflow, and user-defined ones."""

from slowfast.engine.trackers.backends import MLflow, TensorBoard, Wandb
from slowfast.engine.trackers.base import TRACKER_REGISTRY, NamedImage, RunInfo, Tracker
from slowfast.engine.trackers.session import Trackers, check_trackers

__all__ = ["TRACKER_REGISTRY", "NamedImage", "RunInfo", "Tracker", "Trackers", "check_trackers"]

# Importing a class registers it.
BUILT_IN = (MLflow, TensorBoard, Wandb)
