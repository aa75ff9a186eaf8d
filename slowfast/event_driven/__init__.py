"""Event-driven inference with evMLP: compute only the patches that changed between frames."""

from slowfast.event_driven.engine import EventDrivenInference, FrameResult, Results

__all__ = ["EventDrivenInference", "FrameResult", "Results"]
