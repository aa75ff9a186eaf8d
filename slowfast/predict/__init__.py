"""A trained network on any video, image or folder, without an index."""

from slowfast.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
