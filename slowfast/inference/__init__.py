"""Inference with trained models: predictions for files and live video, features, Grad-CAM, export, event streams."""

from slowfast.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
