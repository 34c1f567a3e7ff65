"""The Airflow from which something is taken away, and what there is to see of it while its API server may be gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg2

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import AirflowApiError, Run
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.airflow_harness.processes import Component
from tests.airflow_harness.services import Server
from tests.celery.account import Slot, conf_of
from tests.celery.lake import Lake

DAG_ID = "many_jobs"
SLOTS = 6
"""Of both workers together."""

PATIENCE_SECONDS = 900.0
"""The longest that one step may take: a minute or two on idle cores, many on crowded ones."""

UNDER_WAY = frozenset({"queued", "running", "deferred", "restarting", "up_for_retry"})
_T = TypeVar("_T")

Task = tuple[str, str, int]
"""A task instance: its run, its task and its map index."""


class Database:
    """
    Airflow's database, asked behind Airflow's back: that costs the API server nothing, and works while it is gone.

    :param server: the PostgreSQL.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def rows(self, query: str, *values: Any) -> list[Any]:
        connection = psycopg2.connect(self.server.url.replace("+psycopg2", ""), connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())
        finally:
            connection.close()


@dataclass
class Stage:
    """
    A whole Airflow with two of what there can be two of, the account, and the bucket.

    :param ended: the names of components that ended by themselves and were started again, as systemd or Kubernetes
        would have done.
    """

    airflow: AirflowInstance
    sandbox: Sandbox
    lake: Lake
    database: Database
    broker: Server
    slots: list[Slot]
    tell: Callable[[str], None]
    ended: list[str] = field(default_factory=list)

    def trigger(self, run_id: str) -> Run:
        return self.airflow.trigger(DAG_ID, conf_of(run_id), run_id)

    def states(self) -> dict[Task, tuple[str, int]]:
        """Return the state and the number of the try of each task instance that has a state."""
        query = "select run_id, task_id, map_index, state, try_number from task_instance where dag_id = %s"
        rows = self.database.rows(f"{query} and state is not null", DAG_ID)
        return {(run_id, task_id, map_index): (state, number) for run_id, task_id, map_index, state, number in rows}

    def run_states(self) -> dict[str, str]:
        return dict(self.database.rows("select run_id, state from dag_run where dag_id = %s", DAG_ID))

    def triggers(self) -> dict[int, tuple[int | None, Task | None]]:
        """Return each trigger's triggerer, by the id of its job, and its task; the watcher's trigger has no task."""
        rows = self.database.rows(
            "select t.id, t.triggerer_id, ti.run_id, ti.task_id, ti.map_index "
            "from trigger t left join task_instance ti on ti.trigger_id = t.id"
        )
        return {number: (owner, task if (task := tuple(rest))[0] else None) for number, owner, *rest in rows}  # type: ignore[misc]

    def triggerer_of(self, job_id: int) -> Component:
        """Return the triggerer that has this job in Airflow's database: its triggers' logs are named after it."""
        for triggerer in self.airflow.triggerers:
            if any(self.logs_of(triggerer).rglob(f"*.trigger.{job_id}.log")):
                return triggerer
        raise LookupError(f"no triggerer has logs of job {job_id}")

    def logs_of(self, component: Component) -> Path:
        """Return where a component that is on a machine of its own keeps the logs of tasks."""
        return self.airflow.home / "machines" / component.name / "logs"

    def job_id_of(self, slot: Slot) -> int | None:
        """Return the job that was started for a mapped task."""
        return next((job["job_id"] for job in self.sandbox.jobs if job["agent_id"] == slot.agent_id), None)

    def until(self, look: Callable[[], _T | None], what: str) -> _T:
        """
        Look until there is something to see, and return it. What ends by itself meanwhile is started again.

        :param what: what is waited for, to say so when it does not come.
        """
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.start_what_has_ended()
            seen = self.seen(look)
            if seen is not None:
                return seen
            assert time.monotonic() < ends, f"{what}: not after {PATIENCE_SECONDS:.0f} s. {self.summary()}"
            time.sleep(1)

    def seen(self, look: Callable[[], _T | None]) -> _T | None:
        """Look once; while the database or the API server is gone there is nothing to see."""
        try:
            return look()
        except (psycopg2.Error, AirflowApiError):
            return None

    def pause(self, seconds: float) -> None:
        """Let some time pass."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.start_what_has_ended()
            time.sleep(0.5)

    def start_what_has_ended(self) -> None:
        for component in self.airflow.components:
            if component.has_ended_by_itself:
                self.tell(f"{component.name} has ended by itself: {component.last_lines(1)[:200]}")
                self.ended.append(component.name)
                component.start()

    def summary(self) -> str:
        """Return how many task instances are in each state."""
        counted = Counter(f"{task.rpartition('.')[2]} {state}" for (_, task, _), (state, _) in self.states().items())
        return ", ".join(f"{count} {what}" for what, count in sorted(counted.items()))

    def workers_answer(self) -> bool:
        """Return whether as many workers as there are to be answer over the broker."""
        from celery import Celery

        # A connection of its own: those of Celery's pool may be from before a restart of the broker.
        with Celery(broker=self.broker.url) as celery, celery.connection_for_write() as connection:
            return len(celery.control.ping(timeout=2, connection=connection) or []) == len(self.airflow.workers)

    def watcher_remembers(self) -> bool:
        """Return whether the watcher has stored up to which job it has seen them: what ends from now on fires."""
        return bool(self.database.rows("select 1 from asset_state_store"))

    def events(self) -> Counter[int]:
        """Return how often the watcher has fired for each job."""
        rows = self.database.rows(
            "select e.extra from asset_event e join asset a on a.id = e.asset_id where a.name = 'completed_jobs'"
        )
        return Counter(extra["payload"]["job_id"] for (extra,) in rows)

    def alive(self) -> Counter[str]:
        """Return how many schedulers, triggerers and DAG processors have told the database of late that they live."""
        rows = self.database.rows(
            "select job_type from job where state = 'running' and latest_heartbeat > now() - interval '20 seconds'"
        )
        return Counter(kind for (kind,) in rows)

    def dump(self) -> dict[str, str]:
        """Return all that is in the database, by table."""
        tables = self.database.rows("select tablename from pg_tables where schemaname = 'public'")
        return {table: repr(self.database.rows(f'select t::text from "{table}" t')) for (table,) in tables}
