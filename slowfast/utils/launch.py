"""Place of this process among those that torchrun started, read from the environment without importing PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from slowfast.errors import UserError


@dataclass(frozen=True)
class LaunchedAs:
    """Place of this process among those that a launcher started, from the environment."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> LaunchedAs:
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them.

        Raises:
            UserError: If they are no numbers or contradict each other.
        """
        size = environment_number("WORLD_SIZE", 1, least=1)
        if size > 1 and not os.environ.get("RANK"):
            raise UserError(f"WORLD_SIZE is {size} but RANK is not set. Unset WORLD_SIZE, or start with torchrun")
        rank = environment_number("RANK", 0)
        if rank >= size:
            given = "WORLD_SIZE is not set" if not os.environ.get("WORLD_SIZE") else f"WORLD_SIZE is {size}"
            raise UserError(f"RANK is {rank} but {given}. Unset RANK, or start with torchrun")
        local_size = environment_number("LOCAL_WORLD_SIZE", 1, least=1)
        local_rank = environment_number("LOCAL_RANK", 0)
        if os.environ.get("LOCAL_WORLD_SIZE") and local_rank >= local_size:
            raise UserError(
                f"LOCAL_RANK is {local_rank} but LOCAL_WORLD_SIZE is {local_size}. Unset both, or start with torchrun"
            )
        return cls(rank, size, local_rank, local_size)


def environment_number(name: str, default: int, least: int = 0) -> int:
    """Read a number from an environment variable.

    Args:
        name: Name of the variable.
        default: Value if it is unset or empty.
        least: Smallest value.

    Raises:
        UserError: If it is not a whole number of at least `least`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < least:
        raise UserError(f"{name} is {text!r}; it must be a number from {least}. Unset it, or start with torchrun")
    return int(text)


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without it. Raises UserError as `LaunchedAs` does."""
    return LaunchedAs.from_environment().size


def is_main_process() -> bool:
    """Check whether this is the first process of the run, before `join`; True if the environment makes no sense."""
    try:
        return LaunchedAs.from_environment().rank == 0
    except UserError:
        return True
