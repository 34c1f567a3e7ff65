"""
A storm of random faults: Airflow's processes are killed, and Agenty fails, at random moments, for some minutes.

    make test-storm SEED=7 MINUTES=20

`plan.py` says what follows from the seed, and what can't be reproduced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.storm.conftest import MINUTES, SEED
from tests.storm.invariants import CHECKS, Aftermath
from tests.storm.lake import Lake
from tests.storm.plan import plan_of
from tests.storm.storm import Storm

DRAIN_SECONDS = 600.0
"""The longest that all runs may take to end after the storm."""


@pytest.mark.storm
@pytest.mark.timeout(MINUTES * 60 + DRAIN_SECONDS + 600)
def test_the_promises_hold_in_a_storm(
    airflow: Any, sandbox: Sandbox, tmp_path: Any, tell: Callable[[str], None]
) -> None:
    tell(f"Seed {SEED}, {MINUTES:g} minutes. The logs are in {airflow.home}")
    storm = Storm(plan_of(SEED, MINUTES * 60), airflow, sandbox, tmp_path, tell)
    with Lake(tmp_path) as lake:
        storm.rage(MINUTES * 60)
        storm.abate(DRAIN_SECONDS)
    after = Aftermath(storm.stories, storm.ended_by_themselves, sandbox, airflow, lake)
    violations = [f"{name}: {each}" for name, check in CHECKS for each in check(after)]
    tell("\n".join(figures(storm, after)))

    if violations:
        events = "\n".join(storm.events)
        found = "\n".join(violations)
        pytest.fail(
            f"Seed {SEED}, {MINUTES:g} minutes: {len(violations)} violations.\n{found}\n\nWhat happened:\n{events}\n\n"
            f"Try it again: make test-storm SEED={SEED} MINUTES={MINUTES:g}",
            pytrace=False,
        )


def figures(storm: Storm, after: Aftermath) -> list[str]:
    """Say in lines how much has happened."""
    tries = sum(task.try_number for story in storm.stories for task in story.tasks.values())
    ends = Counter(story.state for story in storm.stories)
    return [
        f"Runs: {len(storm.stories)} ({_counts(ends)}); tasks: {sum(len(story.tasks) for story in storm.stories)}, "
        f"tries: {tries}, failed by Airflow itself: {len(after.airflows_failures)}",
        f"Jobs started: {after.sandbox.starts}; stops: {after.sandbox.stops}; requests: {len(after.sandbox.requests)}",
        f"Kills: {storm.kills.total()} ({_counts(storm.kills)})",
        f"Schedulers and triggerers that ended by themselves: {len(after.ended_by_themselves)}",
        f"Faults that struck: {storm.faults.total()} ({_counts(storm.faults)})",
        f"Files seen: {len(after.lake.seen)}; temporary files before the clean-up: {len(after.leftovers)}",
    ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in counter.most_common() if count)
