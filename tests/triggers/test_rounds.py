"""How long a shared poll pauses between two rounds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from airflow_provider_agenty.exceptions import AgentyUnavailableError
from airflow_provider_agenty.waiting import shared_poll
from airflow_provider_agenty.waiting.shared_poller import JobPoller


@pytest.fixture
def pauses(monkeypatch):
    """Let time pass at once; the pauses are in the list."""
    clock = [1000.0]
    taken = []

    async def sleep(seconds):
        taken.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(shared_poll, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(shared_poll, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return taken


@pytest.mark.parametrize(
    ("spent", "least", "most"),
    [(0.0, 9, 10), (4.0, 5, 6), (20.0, 4.5, 5.0)],
    ids=["at once", "in the interval", "longer than it"],
)
def test_rounds_are_at_most_an_interval_apart_and_there_is_always_a_pause(pauses, spent, least, most):
    for _ in range(50):
        asyncio.run(JobPoller("agenty_default", 10.0)._sleep(spent))

    assert all(least <= pause <= most for pause in pauses)
    assert len(set(pauses)) > 40, "not jittered"


def test_the_pause_that_agenty_asks_for_is_kept(pauses):
    poller = JobPoller("agenty_default", 10.0)
    poller._pause_if_asked_to(AgentyUnavailableError("429", retry_after=60.0))
    asyncio.run(poller._sleep(0.0))

    assert sum(pauses) == pytest.approx(60.0)
