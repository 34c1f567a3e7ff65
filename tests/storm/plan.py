"""
The plan of a storm, which follows from a seed.

One ``random.Random(seed)`` decides, before the storm begins, which runs there are, in which order and with which
results. It decides on each kill and each fault, and when they come.

A seed can't reproduce how Airflow's processes take turns. Other tasks may run when a kill comes, another request may
meet a fault, and a slower scheduler leaves less room for runs. So a seed that failed may pass the next time. Run it a
few times more, or read the list of events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from airflow_provider_agenty.sandbox import Fault
from tests.storm.faults import TROUBLES
from tests.storm.kills import KILLS, Kill
from tests.storm.kinds import KINDS, Kind

RUNS_A_MINUTE = 30
"""More than Airflow gets to on two cores."""


@dataclass(frozen=True)
class PlannedRun:
    """
    :param rows: of its agents' results.
    :param seconds: that a job of its agents takes.
    :param compressed: whether its file is.
    :param replaces: whether there is a file at its path.
    """

    number: int
    kind: Kind
    rows: tuple[dict[str, str], ...]
    rows_before: tuple[dict[str, str], ...]
    seconds: float
    compressed: bool
    replaces: bool

    @property
    def agent_ids(self) -> list[str]:
        """Its agents, which no other run has: what is started of them is this run's."""
        return [f"storm{self.number}{letter}" for letter in "abc"[: self.kind.agents]]


@dataclass(frozen=True)
class PlannedKill:
    """
    :param at: seconds after the storm has begun.
    :param choice: which task it is, from 0 to 1.
    :param away: seconds until what was killed comes back.
    """

    at: float
    kill: Kill
    choice: float
    away: float


@dataclass(frozen=True)
class PlannedFault:
    """
    :param at: seconds after the storm has begun.
    :param fault: ``None``: all links expire.
    """

    at: float
    name: str
    fault: Fault | None


@dataclass(frozen=True)
class Plan:
    runs: tuple[PlannedRun, ...]
    kills: tuple[PlannedKill, ...]
    faults: tuple[PlannedFault, ...]


def plan_of(seed: int, seconds: float) -> Plan:
    """Return the plan of a storm that takes so many seconds."""
    chance = Random(seed)
    return Plan(
        tuple(_runs(chance, int(seconds / 60 * RUNS_A_MINUTE) + 1)),
        tuple(_kills(chance, seconds)),
        tuple(_faults(chance, seconds)),
    )


def _runs(chance: Random, count: int) -> Iterator[PlannedRun]:
    deck: list[Kind] = []
    for number in range(count):
        # Each kind has its turn before one comes again.
        deck = deck or chance.sample(KINDS, len(KINDS))
        kind = deck.pop()
        rows = chance.randint(3, 2500)
        yield PlannedRun(
            number,
            kind,
            tuple(_rows(chance, rows, kind.filled)),
            tuple(_rows(chance, rows * kind.rows_before, 1.0)),
            seconds=chance.uniform(2, 10),
            compressed=chance.random() < 0.3,
            replaces=chance.random() < 0.5,
        )


def _rows(chance: Random, count: int, filled: float) -> Iterator[dict[str, str]]:
    for number in range(count):
        price = f"{chance.uniform(1, 99):.2f}" if number < count * filled else ""
        yield {"name": f"Book {number}", "price": price, "about": chance.randbytes(chance.randint(10, 60)).hex()}


def _kills(chance: Random, seconds: float) -> Iterator[PlannedKill]:
    at = 0.0
    while (at := at + chance.uniform(2, 7)) < seconds:
        (kill,) = chance.choices(KILLS, [each.weight for each in KILLS])
        yield PlannedKill(at, kill, chance.random(), away=chance.uniform(0, 6))


def _faults(chance: Random, seconds: float) -> Iterator[PlannedFault]:
    at = 0.0
    while (at := at + chance.uniform(0.5, 4)) < seconds:
        (trouble,) = chance.choices(TROUBLES, [each.weight for each in TROUBLES])
        yield PlannedFault(at, trouble.name, trouble.make(chance))
