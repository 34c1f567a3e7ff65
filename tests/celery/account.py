"""The account: its agents, what their jobs give, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.repeated_csv import RepeatedCsv

SMALL_FILE, LARGE_FILE = 40_000, 20_000_000
"""Bytes of a file; a large one is uploaded in several parts."""


@dataclass(frozen=True)
class Size:
    """
    How much there is to do.

    :param agents: how many agents a run has, by how their jobs are waited for.
    :param pool: how many jobs go on at once, as if that was what the account's plan allows.
    """

    agents: Mapping[str, int]
    pool: int

    @property
    def jobs(self) -> int:
        """How many jobs a run starts."""
        return sum(self.agents.values())


WHOLE = Size({"deferred": 16, "streamed": 6, "worker": 3}, pool=20)
SMALL = Size({"deferred": 8, "streamed": 3, "worker": 2}, pool=12)

IS_WHOLE = os.environ.get("AGENTY_CELERY") == "whole"
SIZE = WHOLE if IS_WHOLE else SMALL


@dataclass(frozen=True)
class Slot:
    """
    One mapped task of a run: its agent, and where that one's file lands.

    :param run_id: the run.
    :param kind: how the job is waited for: the name of the task group.
    :param map_index: of the mapped task.
    """

    run_id: str
    kind: str
    map_index: int

    @property
    def agent_id(self) -> str:
        return f"{self.run_id}-{self.kind}-{self.map_index}"

    @property
    def key(self) -> str:
        return f"{self.run_id}/{self.kind}/{self.map_index}.csv"

    @property
    def is_large(self) -> bool:
        return (self.kind, self.map_index) == ("deferred", 0)

    @property
    def content(self) -> RepeatedCsv:
        size = LARGE_FILE if self.is_large else SMALL_FILE
        rows = [{"name": f"Book {row} of {self.agent_id}", "price": f"£{row}.{self.map_index}"} for row in range(10)]
        return RepeatedCsv(size, rows)

    @property
    def file(self) -> bytes:
        content = self.content
        return b"".join(content.chunks(0, content.size))


def slots_of(run_id: str) -> Iterator[Slot]:
    """Yield the mapped tasks of a run."""
    for kind, count in SIZE.agents.items():
        for number in range(count):
            yield Slot(run_id, kind, number)


def conf_of(run_id: str) -> dict[str, dict[str, list[str]]]:
    """Return the conf of a run."""
    agents: dict[str, list[str]] = {kind: [] for kind in SIZE.agents}
    for slot in slots_of(run_id):
        agents[slot.kind].append(slot.agent_id)
    return {"agents": agents}
