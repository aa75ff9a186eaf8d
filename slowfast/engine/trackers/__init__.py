"""Trackers: TensorBoard, Weights & Biases, MLflow, and user-defined ones."""

from slowfast.engine.trackers.base import TRACKER_REGISTRY, NamedImage, RunInfo, Tracker
from slowfast.engine.trackers.mlflow_run import MLflow
from slowfast.engine.trackers.session import Trackers, check_trackers
from slowfast.engine.trackers.tensorboard import TensorBoard
from slowfast.engine.trackers.wandb_run import Wandb

__all__ = ["TRACKER_REGISTRY", "NamedImage", "RunInfo", "Tracker", "Trackers", "check_trackers"]

# Importing a class registers it.
BUILT_IN = (MLflow, TensorBoard, Wandb)
