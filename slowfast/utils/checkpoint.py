"""Public name of `load_test_checkpoint(cfg, model)`, kept for scripts that import it from here."""

from __future__ import annotations

from slowfast.engine.state import load_test_checkpoint

__all__ = ["load_test_checkpoint"]
