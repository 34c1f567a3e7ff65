"""A triggerer that lives and was taken for dead: another one has its triggers, and the jobs go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from airflow.triggers.base import BaseTrigger

pytestmark = pytest.mark.skipif(not hasattr(BaseTrigger, "on_kill"), reason="needs Airflow 3.3's on_kill of triggers")


def test_a_trigger_that_moves_to_another_triggerer_stops_no_job(scenario, until):
    on = scenario
    on.begin("deferred")
    job_id = on.runs_its_job()
    on.reaches("deferred")
    on.is_asked_for(job_id)
    _give_the_trigger_to_another_triggerer(on)
    problem = "the first triggerer does not give the trigger up"
    until(lambda: on.stops or "in another triggerer" in on.log, problem)

    assert on.stops == 0
    # The other one was never there. What it had comes back once Airflow takes it for dead.
    on.is_asked_for(job_id)
    on.complete(job_id)
    on.reaches("success")
    assert (on.starts, on.stops) == (1, 0)


def _give_the_trigger_to_another_triggerer(on):
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    job = "insert into job (job_type, state, start_date, latest_heartbeat) values ('TriggererJob', 'running', ?, ?)"
    move = "update trigger set triggerer_id = ? where id = (select trigger_id from task_instance where run_id = ?)"
    with closing(sqlite3.connect(on.airflow.home / "airflow.db", timeout=30)) as database, database:
        other = database.execute(job, (now, now)).lastrowid
        assert database.execute(f"{move} and triggerer_id is not null", (other, on.run.run_id)).rowcount == 1
