"""
What a hostile job means for a real Airflow: the triggerer, and the tasks of everybody else in it, live through it.

What a job says crosses Airflow's processes: as a trigger's event, an XCom, an asset event, a line of a log. Each of
these has limits of its own, and what is beyond them has ended the triggerer for all tasks of everybody.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.crash.conftest import Scenario

HALF_AN_EMOJI = "\ud83d"
HUGE = 10**30
CONTROLS = "Could not read \x1b[2J\x1b]0;owned\x07 it\r\nFORGED line"

BAD_FIGURES = {
    "type": {"odd": HALF_AN_EMOJI},
    "priority": HUGE,
    "account_id": -HUGE,
    "assigned_worker_id": HUGE,
    "pages_total": HUGE,
    "pages_processed": 10**400,
    "pages_succeeded": HUGE,
    "pages_credit": HUGE,
    "created_at": "9" * 5000,
    "run_duration": "9" * 4000 + ":00:00",
}


@pytest.fixture(scope="module")
def bystander(airflow: Any, sandbox: Any) -> Iterator[Scenario]:
    """Give a deferred task of somebody else, which waits through all of this."""
    sandbox.set_agent("bystander", [{"name": "A book"}])
    bystander = Scenario(airflow, sandbox, "bystander")
    bystander.begin("deferred")
    sandbox.set_status(bystander.has_started(), "running", pages_total=10, pages_processed=3)
    bystander.reaches("deferred")
    yield bystander
    bystander.complete(bystander.has_started())
    bystander.reaches("success")


@dataclass
class Agenty:
    """What Agenty says of one job, where it says something bad."""

    sandbox: Any
    triggerer: Any
    bystander: Scenario
    pid: int
    faults: list[Any] = field(default_factory=list)

    def tells(self, job_id: int, **changes: Any) -> None:
        """Let a job be told of in this way, by itself and in the list, where everything else is as it was."""
        bad = {**self.sandbox.job(job_id), **changes}
        # json.dumps writes half of an emoji as its escape, as many a server does.
        self._answers("/jobs", self._page(bad))
        self._answers(f"/jobs/{job_id}", bad)

    def misses(self, job_id: int, message: str) -> None:
        """Let a job be gone, with a message."""
        self._answers("/jobs", self._page(without=job_id))
        self._answers(f"/jobs/{job_id}", {"message": message}, status=404)

    def _page(self, *first: dict[str, Any], without: int | None = None) -> dict[str, Any]:
        known = {without, *(job["job_id"] for job in first)}
        jobs = [*first, *(job for job in reversed(self.sandbox.jobs) if job["job_id"] not in known)][:10]
        return {"total": len(jobs), "limit": 1000, "offset": 0, "returned": len(jobs), "result": jobs}

    def _answers(self, path: str, body: Any, **answer: Any) -> None:
        self.faults.append(self.sandbox.fault("GET", path, times=None, body=json.dumps(body).encode(), **answer))

    def hurts_nobody(self) -> None:
        """Check that the triggerer is the one that it was, and that the task of somebody else waits in it."""
        assert self.triggerer.is_running, self.triggerer.last_lines()
        assert self.triggerer.pid == self.pid
        assert self.bystander.state == "deferred"


@pytest.fixture
def agenty(bystander: Scenario) -> Iterator[Agenty]:
    triggerer = bystander.airflow.triggerer
    agenty = Agenty(bystander.sandbox, triggerer, bystander, triggerer.pid)
    yield agenty
    for fault in agenty.faults:
        fault.remove()
    if not triggerer.is_running:
        # Not to fail all tests after this one too.
        triggerer.kill()
        triggerer.start()


@pytest.fixture
def waits(airflow: Any, sandbox: Any) -> Iterator[Callable[..., tuple[Scenario, int]]]:
    """Give a function that lets a task wait for a job that runs, and returns both."""
    jobs: list[int] = []

    def wait(dag_id: str, state: str) -> tuple[Scenario, int]:
        sandbox.set_agent("hostile", [{"name": "A book"}])
        on = Scenario(airflow, sandbox, "hostile", task_id="wait")
        jobs.append(sandbox.start_job("hostile"))
        sandbox.set_status(jobs[-1], "running", pages_total=10, pages_processed=3)
        on.begin(dag_id, job_id=jobs[-1])
        on.reaches(state)
        if state == "running":
            on.is_asked_for(jobs[-1])
        return on, jobs[-1]

    yield wait
    for job_id in jobs:
        sandbox.set_status(job_id, "completed")


REASONS: dict[str, dict[str, Any]] = {
    "half an emoji": {"error": f"Could not read {HALF_AN_EMOJI}"},
    "integers beyond 64 bits, and an odd type": {"error": "Could not read", **BAD_FIGURES},
    "control characters and a forged line": {"error": CONTROLS},
    "20 MB": {"error": "Could not read " + "x" * 20_000_000},
}


def told_the_reason(on: Any) -> None:
    """Check that the task failed with the reason, and that it is text which a log can show."""
    assert "AgentyJobFailedError" in on.log
    assert "Could not read" in on.log
    assert not any(character in on.log for character in ("\x1b", "\x07", "\r", HALF_AN_EMOJI))
    assert not any(line.startswith("FORGED") for line in on.log.splitlines())
    assert len(on.log) < 200_000
    job = on.airflow.xcom(on.run, "wait", "job")
    job = json.loads(job) if isinstance(job, str) else job
    assert len(json.dumps(job)) < 20_000
    assert all(abs(value) < 2**63 for value in job.values() if isinstance(value, int))


@pytest.mark.parametrize("reason", REASONS)
def test_a_deferred_task_tells_the_reason_and_others_in_the_triggerer_go_on(agenty, waits, reason):
    on, job_id = waits("told_in_the_triggerer", "deferred")
    agenty.tells(job_id, status="aborted", **REASONS[reason])
    on.reaches("failed")

    agenty.hurts_nobody()
    told_the_reason(on)


@pytest.mark.parametrize("reason", ["half an emoji", "control characters and a forged line"])
def test_a_task_that_waits_in_a_worker_tells_the_reason(agenty, waits, reason):
    on, job_id = waits("told_in_a_worker", "running")
    agenty.tells(job_id, status="aborted", **REASONS[reason])
    on.reaches("failed")

    told_the_reason(on)


@pytest.mark.parametrize("dag_id", ["told_in_the_triggerer", "ended_in_the_triggerer"])
def test_a_completed_job_with_bad_figures_is_a_completed_job(agenty, waits, dag_id):
    on, job_id = waits(dag_id, "deferred")
    agenty.tells(job_id, status="completed", error=HALF_AN_EMOJI, **BAD_FIGURES)
    on.reaches("success")

    agenty.hurts_nobody()
    assert int(on.returned()) == job_id


def test_a_job_that_is_gone_with_a_bad_message_is_gone(agenty, waits):
    on, job_id = waits("told_in_the_triggerer", "deferred")
    agenty.misses(job_id, f"No such job {HALF_AN_EMOJI}\x1b[2J")
    on.reaches("failed")

    agenty.hurts_nobody()
    assert "AgentyNotFoundError" in on.log
    assert "No such job" in on.log
    assert "\x1b" not in on.log


def test_a_watcher_passes_on_a_job_with_bad_figures(agenty, airflow, sandbox, until):
    sandbox.set_agent("watched", [{"name": "A book"}])
    airflow.wait_for_dag("told_by_a_watcher")
    job_id = sandbox.start_job("watched", is_scheduled=True)
    sandbox.set_status(job_id, "running")
    until(lambda: _knows(airflow, job_id), "the watcher does not see its job")
    agenty.tells(job_id, status="completed", error=HALF_AN_EMOJI, **BAD_FIGURES)
    until(lambda: job_id in _fired(airflow) or not airflow.triggerer.is_running, "nothing fires")

    agenty.hurts_nobody()
    assert _fired(airflow) == [job_id]


def _knows(airflow: Any, job_id: int) -> bool:
    stored = _select(
        airflow, "select s.value from asset_state_store s join asset a on a.id = s.asset_id where a.name = ?"
    )
    return any(job_id in json.loads(value)["pending"] for (value,) in stored)


def _fired(airflow: Any) -> list[int]:
    events = _select(airflow, "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.name = ?")
    return [json.loads(extra)["payload"]["job_id"] for (extra,) in events]


def _select(airflow: Any, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{airflow.home}/airflow.db?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(query, ("jobs_of_watched",)).fetchall()
