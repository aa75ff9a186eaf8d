"""Fixtures of the preparation tests."""

from __future__ import annotations

import pytest

from slowfast.prepare import jobs


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in this process, since starting workers takes seconds."""
    monkeypatch.setattr(jobs, "run_in_processes", lambda function, todo, _: ((job, function(job)) for job in todo))
