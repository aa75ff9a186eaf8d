"""Video recognition with MLP-like networks: training, testing and event-driven inference."""

__version__ = "0.1.0"
