"""The account: its agents, its jobs, and the limited number of jobs that run at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from airflow_provider_agenty.sandbox.agent import Agent, Input, Plan, rows_for_urls
from airflow_provider_agenty.sandbox.content import Content
from airflow_provider_agenty.sandbox.job import Job

FIRST_JOB_ID = 3_690_001
# Agenty numbers the jobs of all its customers in one row, so those of one account are never next to each other.
JOB_ID_STEP = 3

# Plans or scripts for coming jobs: for which agent (None: any), whether for one job only, and the plan itself. A job
# takes the first that fits.
Ordered = TypeVar("Ordered")
Orders: TypeAlias = list[tuple[str | None, bool, Ordered]]


class Account:
    """Agents and jobs of one account. Its methods are safe to use from any thread; its parameters are the sandbox's."""

    def __init__(
        self,
        agents: dict[str, Agent],
        seconds: float,
        parallel_jobs: int | None,
        clock: Callable[[], float],
        *,
        manual: bool,
    ) -> None:
        self.agents = agents
        self.lock = threading.RLock()
        self.started_by_clients: list[int] = []
        self.stop_requests: list[int] = []
        self.plans: Orders[Plan] = []
        self.scripts: Orders[list[dict[str, Any]]] = []
        self._seconds = seconds
        self._parallel_jobs = parallel_jobs
        self._manual = manual
        self._clock = clock
        self._jobs: dict[int, Job] = {}
        self._newer: list[Job] = []
        self._older: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._in_slots: list[Job] = []

    def now(self) -> float:
        """Return the time, after giving all slots that were free until then."""
        with self.lock:
            now = self._clock()
            while self._waiting:
                job = self._waiting[0]
                at = self._slot_free_at(job.ready_at)
                if at > now:
                    break
                job.take_slot(at)
                self._waiting.popleft()
                if self._parallel_jobs is not None:
                    self._in_slots.append(job)
            return now

    def _slot_free_at(self, ready_at: float) -> float:
        if self._parallel_jobs is None:
            return ready_at
        self._in_slots = [job for job in self._in_slots if job.ends_at > ready_at]
        if len(self._in_slots) < self._parallel_jobs:
            return ready_at
        return sorted(job.ends_at for job in self._in_slots)[-self._parallel_jobs]

    def start(self, agent_id: str, *, is_scheduled: bool = False) -> Job:
        """Start a job of an agent, which the account must have."""
        with self.lock:
            now = self.now()
            agent = self.agents[agent_id]
            plan = _take(self.plans, agent_id) or agent.plan
            script = _take(self.scripts, agent_id) or []
            job = Job(
                job_id=FIRST_JOB_ID + JOB_ID_STEP * len(self._newer),
                agent=agent,
                plan=plan,
                created_at=now,
                seconds=self._seconds if plan.seconds is None else plan.seconds,
                urls=self._urls(agent.input),
                is_scheduled=is_scheduled,
                manual=self._manual or bool(script),
                script=script,
            )
            if not job.manual:
                self._waiting.append(job)
            self._jobs[job.job_id] = job
            self._newer.append(job)
            return job

    def add_older(self, agent_id: str, count: int, *, status: str = "completed", apart: float = 60.0) -> list[Job]:
        """Add finished jobs that are older than all others, ``apart`` seconds apart."""
        with self.lock:
            oldest = self._older[-1:] or self._newer[:1]
            before = oldest[0].created_at if oldest else self.now()
            added = []
            for number in range(1, count + 1):
                at = before - number * apart
                job = Job(
                    job_id=FIRST_JOB_ID - JOB_ID_STEP * (len(self._older) + 1),
                    agent=self.agents[agent_id],
                    plan=self.agents[agent_id].plan,
                    created_at=at,
                    seconds=1.0,
                    priority=0,
                    history=[(at, "submitted"), (at, "started"), (at, "running"), (at + 1, status)],
                )
                self._jobs[job.job_id] = job
                self._older.append(job)
                added.append(job)
            return added

    def job(self, job_id: int) -> Job | None:
        """Return a job, or ``None`` where the account has none of that id."""
        return self._jobs.get(job_id)

    def jobs(self, agent_id: str | None = None) -> Sequence[Job]:
        """Return all jobs, or those of one agent, newest first."""
        with self.lock:
            jobs = [*reversed(self._newer), *self._older]
        return jobs if agent_id is None else [job for job in jobs if job.agent.agent_id == agent_id]

    def stop(self, job: Job) -> None:
        """Ask a job to stop."""
        with self.lock:
            job.stop(self.now())
            if job in self._waiting:
                self._waiting.remove(job)

    def put(self, job: Job, status: str, fields: dict[str, Any]) -> None:
        """Hold a job in a state from now on; its slot, if it has one, becomes free."""
        with self.lock:
            now = self.now()
            for place in (self._waiting, self._in_slots):
                if job in place:
                    place.remove(job)
            job.script.clear()
            job.put(status, now, fields)

    def show(self, jobs: Iterable[Job]) -> float:
        """Let scripted jobs take their next step, as a client is about to see them; return the time."""
        with self.lock:
            now = self.now()
            for job in jobs:
                job.follow_script(now)
            return now

    def _urls(self, given: Input) -> tuple[str, ...]:
        if given.type in ("manual", "url"):
            return given.data
        source = self.agents.get(given.id or "") if given.type == "agent" else None
        content = source.content(given.collection or 1, modified=True) if source else None
        if content is None:
            return ()
        return tuple(row.get(given.field or "", "") for row in content.rows(0, content.row_count))

    def result(self, job: Job, collection: int, *, modified: bool) -> Content | None:
        """Return what there is of a job's result, or ``None`` where it has no such collection."""
        with self.lock:
            now = self.now()
            # Post-processing ends with the job. Until then there is only the default result.
            modified = modified and job.status(now) != "completing"
            content = job.agent.content(collection, modified=modified)
            if content is None:
                return None
            if job.urls:
                content = rows_for_urls(content, job.urls)
            return content.part(job.progress(now))


def _take(orders: Orders[Ordered], agent_id: str) -> Ordered | None:
    for index, (wanted, once, ordered) in enumerate(orders):
        if wanted in (None, agent_id):
            if once:
                del orders[index]
            return ordered
    return None
