"""Event-driven inference: evMLP computes only what changed between frames."""

from slowfast.event_driven.engine import EventDrivenInference, FrameResult, Results

__all__ = ["EventDrivenInference", "FrameResult", "Results"]
