"""Inference with trained models: predictions, features, Grad-CAM, export and event streams."""

from slowfast.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
