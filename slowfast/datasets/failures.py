"""What could not be read: counted once a medium, reported with the first real reason."""

from __future__ import annotations

from collections.abc import Iterable

from slowfast.datasets.types import Failure
from slowfast.runtime.logging import get_logger

_SHOWN = 10


class FailureLedger:
    """The media of one pass over `total` videos that failed, wholly or in part."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._by_index: dict[int, Failure] = {}

    def add(self, failures: Iterable[Failure]) -> None:
        """Note failures; each medium is counted and logged once, a lost one replacing a damaged one."""
        for failure in failures:
            known = self._by_index.get(failure.index)
            if known is None or (failure.lost and not known.lost):
                self._by_index[failure.index] = failure
                what = "cannot be read" if failure.lost else "is damaged"
                get_logger().warning(f"{failure.name} {what}: {failure.reason}")

    @property
    def all(self) -> list[Failure]:
        """Every failure, in the order of the index file."""
        return [self._by_index[index] for index in sorted(self._by_index)]

    @property
    def lost(self) -> list[Failure]:
        """The media of which nothing could be used."""
        return [failure for failure in self.all if failure.lost]

    def complaint(self, allowed: float) -> str | None:
        """One line that says what is wrong when more than the allowed share was lost; None when all is well."""
        lost = self.lost
        if len(lost) <= allowed * self.total:
            return None
        listed = "; ".join(f"{failure.name}: {failure.reason}" for failure in lost[:_SHOWN])
        more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        return (
            f"{len(lost)} of {self.total} videos cannot be read, more than DATA.MAX_FAILED {allowed:g} allows: "
            f"{listed}{more}"
        )
