"""MLP-based video models: training, evaluation, deployment and event-driven inference."""

__version__ = "0.1.0"
