"""Tasks: training targets, losses, metrics and evaluation."""

from slowfast.engine.tasks.base import TASK_REGISTRY, Evaluator, Task
from slowfast.engine.tasks.build import build_task, check_task, task_class

__all__ = ["TASK_REGISTRY", "Evaluator", "Task", "build_task", "check_task", "task_class"]
