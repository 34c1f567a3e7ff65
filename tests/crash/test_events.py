"""
Event-driven scheduling in a real Airflow: each job that completes fires once, whatever becomes of the triggerer.

Figures are Airflow's own: the events of an asset and the state store are read where Airflow keeps them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_harness.airflow_api import Run

RESULT = b"name,price\r\nA book,\xc2\xa351.77\r\n"


@dataclass
class Watched:
    """An agent whose jobs are watched, and the asset that changes when one completes."""

    airflow: Any
    sandbox: Any
    until: Any
    agent_id: str
    asset: str
    job_ids: list[int] = field(default_factory=list)

    def start(self) -> int:
        self.job_ids.append(self.sandbox.start_job(self.agent_id, is_scheduled=True))
        self.sandbox.set_status(self.job_ids[-1], "running")
        return self.job_ids[-1]

    def complete(self, job_id: int) -> None:
        self.sandbox.set_status(job_id, "completed", pages_credit=7)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """What the events of the asset say, in their order."""
        rows = self._select(
            "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.name = ? order by e.id"
        )
        return [json.loads(extra)["payload"] for (extra,) in rows]

    @property
    def fired(self) -> list[int]:
        return [payload["job_id"] for payload in self.payloads]

    @property
    def remembered(self) -> dict[str, Any]:
        """What the asset's state store has."""
        rows = self._select(
            "select s.value from asset_state_store s join asset a on a.id = s.asset_id where a.name = ?"
        )
        return json.loads(rows[0][0]) if rows else {"newest": None, "pending": []}

    def _select(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.airflow.home}/airflow.db?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query, (self.asset,)).fetchall()

    def is_watched(self, looks: int = 3) -> None:
        """Wait until the jobs were looked at some times more: what is new is taken in then."""
        before = self._looks
        self.until(lambda: self._looks >= before + looks, "nobody looks at the jobs")

    @property
    def _looks(self) -> int:
        return len([request for request in self.sandbox.requests if request.path == "/jobs"])

    def remembers(self, job_id: int, *, pending: bool) -> None:
        self.until(
            lambda: (self.remembered["newest"] or 0) >= job_id and (job_id in self.remembered["pending"]) == pending,
            f"job {job_id} is not stored as {'pending' if pending else 'over'}",
        )

    def fires(self, *job_ids: int) -> None:
        self.until(lambda: set(job_ids) <= set(self.fired), f"jobs {job_ids} do not fire: {self.fired}")

    def runs(self, dag_id: str) -> list[Run]:
        answer = self.airflow.call("GET", f"dags/{dag_id}/dagRuns", params={"limit": 1000})
        return [Run(dag_id, run["dag_run_id"]) for run in answer["dag_runs"]]

    def payloads_of_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """What the tasks of the DAG's runs were given, once all of them have ended."""
        runs = self.runs(dag_id)
        for run in runs:
            assert self.airflow.wait_for_run(run) == "success"
        return [payload for run in runs for payload in self.airflow.xcom(run, "payloads")]


@pytest.fixture
def watched(request, airflow, sandbox, until) -> Iterator[Watched]:
    agent_id = request.param
    sandbox.set_agent(agent_id, RESULT)
    name = "agenty_completed_events3" if agent_id == "events3" else f"jobs_of_{agent_id}"
    watched = Watched(airflow, sandbox, until, agent_id, name)
    yield watched
    for job_id in watched.job_ids:
        watched.complete(job_id)


@pytest.mark.parametrize("watched", ["events1"], indirect=True)
def test_each_job_that_completes_starts_a_run_that_gets_it_and_no_restart_loses_or_repeats_one(watched):
    dag_id = "on_completion_of_events1"
    watched.airflow.wait_for_dag(dag_id)
    watched.until(lambda: watched.remembered["newest"] is not None, "the watcher stores nothing")

    # While it runs.
    first, outlasting = watched.start(), watched.start()
    watched.remembers(outlasting, pending=True)
    watched.complete(first)
    watched.fires(first)
    watched.remembers(first, pending=False)

    # The triggerer is killed, and a job starts and completes before the next one is there.
    watched.airflow.triggerer.kill()
    while_killed = watched.start()
    watched.complete(while_killed)
    watched.airflow.triggerer.start()
    watched.fires(while_killed)
    watched.remembers(while_killed, pending=False)

    # It is stopped as on a deployment, and a job that it knew completes meanwhile.
    watched.airflow.triggerer.stop()
    watched.complete(outlasting)
    while_stopped = watched.start()
    watched.complete(while_stopped)
    watched.airflow.triggerer.start()
    watched.fires(outlasting, while_stopped)
    watched.remembers(outlasting, pending=False)
    watched.is_watched()

    expected = sorted([first, outlasting, while_killed, while_stopped])
    assert sorted(watched.fired) == expected
    watched.until(lambda: len(watched.payloads_of_runs(dag_id)) >= len(expected), "a run did not get its jobs")
    payloads = watched.payloads_of_runs(dag_id)
    assert sorted(payload["job_id"] for payload in payloads) == expected
    assert {(each["agent_id"], each["status"], each["is_scheduled"], each["pages_credit"]) for each in payloads} == {
        ("events1", "completed", True, 7)
    }


@pytest.mark.parametrize("watched", ["events2"], indirect=True)
def test_a_triggerer_that_is_killed_as_soon_as_jobs_complete_loses_none(watched):
    """Where in between it dies is up to chance: an event may come twice, but none is missing."""
    watched.airflow.wait_for_dag("on_completion_of_events2")
    watched.until(lambda: watched.remembered["newest"] is not None, "the watcher stores nothing")
    job_ids = [watched.start() for _ in range(8)]
    watched.remembers(job_ids[-1], pending=True)

    for number, job_id in enumerate(job_ids):
        watched.complete(job_id)
        if number == 4:
            watched.until(lambda: job_ids[0] in watched.fired, "nothing fires")
            watched.airflow.triggerer.kill()
    watched.airflow.triggerer.start()
    watched.fires(*job_ids)
    watched.remembers(job_ids[-1], pending=False)
    watched.is_watched()

    assert set(watched.fired) == set(job_ids)
    assert watched.fired.count(job_ids[-1]) == 1
    assert max(watched.fired.count(job_id) for job_id in job_ids) <= 2


@pytest.mark.parametrize("watched", ["events3"], indirect=True)
def test_the_example_lands_the_job_that_completed(watched):
    dag_id = "agenty_on_completion"
    watched.airflow.wait_for_dag(dag_id)
    before = watched.start()
    watched.complete(before)
    watched.airflow.call("PATCH", f"dags/{dag_id}", json={"is_paused": False})
    watched.until(lambda: (watched.remembered["newest"] or 0) >= before, "the watcher stores nothing")

    job_ids = [watched.start() for _ in range(3)]
    for job_id in job_ids:
        watched.complete(job_id)
    watched.fires(*job_ids)
    landed = Path(watched.airflow.home, "landed")
    expected = {f"events3-{job_id}-1.csv" for job_id in job_ids}
    watched.until(lambda: landed.exists() and {path.name for path in landed.iterdir()} >= expected, "nothing lands")

    assert {path.name: path.read_bytes() for path in landed.iterdir()} == dict.fromkeys(expected, RESULT)
    for run in watched.runs(dag_id):
        assert watched.airflow.wait_for_run(run) == "success"
