"""Tasks: targets, loss, metrics and evaluation of what is trained."""

from slowfast.engine.tasks.base import TASK_REGISTRY, Evaluator, Task
from slowfast.engine.tasks.build import build_task, check_task, task_class

__all__ = ["TASK_REGISTRY", "Evaluator", "Task", "build_task", "check_task", "task_class"]
