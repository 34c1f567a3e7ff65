"""
200 jobs over two workers that share no folder, one of which is killed in the middle: each job is started once, each
file lands whole.

The worker is killed at the worst moment: Agenty has accepted a start that the worker does not know of yet, and a file
is on its way.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import Run, TaskInstance
from tests.airflow_harness.airflow_instance import AirflowInstance
from tests.airflow_harness.processes import Component
from tests.celery.conftest import AGENTS, JOBS, POOL, SLOTS, Lake, Story, cpu_seconds
from tests.sandbox_faults import SlowBody

MIDDLE = JOBS // 2
WAITING = 24
"""How many jobs go on until all of them are waited for at once: more than the workers have slots."""

RUN_SECONDS = 1800.0
"""For all jobs: some minutes on two idle cores, half an hour on crowded ones."""


@pytest.fixture(scope="module")
def story(airflow: AirflowInstance, sandbox: Sandbox, lake: Lake, tell: Callable[[str], None]) -> Story:
    accepted = sandbox.fault("POST", "/jobs/start", agent_id=f"agent{MIDDLE}", hold="after")
    for number in range(WAITING):
        sandbox.plan(agent_id=f"agent{number}", seconds=RUN_SECONDS)
    began = time.monotonic()
    run = airflow.trigger("many_jobs", {"agent_ids": list(AGENTS)})

    _wait_until_deferred(airflow, run, WAITING)
    waiting = sum(job["completed_at"] is None for job in sandbox.jobs)
    tell(f"{waiting} jobs are waited for by two workers with {SLOTS} slots")
    for job in sandbox.jobs:
        if job["agent_id"] in set(list(AGENTS)[:WAITING]):
            sandbox.set_status(job["job_id"], "completed", pages_processed=12)

    accepted.wait(timeout=RUN_SECONDS)
    tell(f"{sandbox.starts} jobs started, {len(lake.keys())} files landed")

    # Those that are landed next; a file takes most of a minute then, however slow this machine is.
    slow = [
        sandbox.add_fault(SlowBody("GET", "/**", host="downloads", agent_id=f"agent{number}", bytes_per_second=1_000))
        for number in range(MIDDLE // 2, MIDDLE)
    ]
    worker, lost = _worker_that_starts_and_lands(airflow, run)
    story = Story(run, "running", waiting, worker, lost, len(lake.keys()), sandbox.starts)
    worker.kill()
    for fault in [accepted, *slow]:
        fault.remove()
    tell(f"Killed {worker.name}, in which ran {', '.join(task.label for task in lost)}")

    story.state = airflow.wait_for_run(run, timeout=RUN_SECONDS)
    story.seconds = time.monotonic() - began
    tell(f"{sandbox.starts} jobs started, {len(lake.keys())} files landed: {story.state} after {story.seconds:.0f} s")
    for component in (airflow.api_server, airflow.scheduler, airflow.triggerer, _survivor(airflow, story)):
        tell(f"{component.name}: {cpu_seconds(component):.0f} s of CPU time")
    tell(f"{_survivor(airflow, story).name} ran {_processes_started(_survivor(airflow, story))} processes of tasks")
    return story


def _survivor(airflow: AirflowInstance, story: Story) -> Component:
    (survivor,) = (worker for worker in airflow.workers if worker is not story.killed)
    return survivor


def _processes_started(worker: Component) -> int:
    return worker.log_path.read_text(errors="replace").count("Executing workload in Celery")


def _wait_until_deferred(airflow: AirflowInstance, run: Run, count: int) -> None:
    """Wait until the first tasks that start a job are deferred, all of them at once."""
    ends = time.monotonic() + RUN_SECONDS
    while (deferred := sum(_waits(task, count) for task in airflow.task_instances(run))) < count:
        assert time.monotonic() < ends, f"only {deferred} of the first {count} tasks are deferred"
        airflow.check()
        time.sleep(1)


def _waits(task: TaskInstance, count: int) -> bool:
    return task.task_id == "one_agent.start" and 0 <= task.map_index < count and task.state == "deferred"


def _worker_that_starts_and_lands(airflow: AirflowInstance, run: Run) -> tuple[Component, list[TaskInstance]]:
    """Wait until the worker with the start that is held also lands a file, and return it with its tasks."""
    ends = time.monotonic() + RUN_SECONDS
    while time.monotonic() < ends:
        for worker in airflow.workers:
            tasks = airflow.tasks_in(worker, run)
            if _has(tasks, "one_agent.start", MIDDLE) and any(task.task_id == "one_agent.land" for task in tasks):
                return worker, tasks
        airflow.check()
        time.sleep(0.2)
    raise AssertionError("no worker runs the start that is held and lands a file at the same time")


def _has(tasks: list[TaskInstance], task_id: str, map_index: int) -> bool:
    return any((task.task_id, task.map_index) == (task_id, map_index) for task in tasks)


def test_the_run_succeeds(story, airflow):
    states = Counter((task.task_id, task.state) for task in airflow.task_instances(story.run))

    assert story.state == "success"
    assert states == {
        ("list_agents", "success"): 1,
        ("one_agent.start", "success"): JOBS,
        ("one_agent.land", "success"): JOBS,
    }


def test_a_worker_died_in_the_middle_and_its_tasks_were_done_again(story, airflow):
    assert 0 < story.landed_before < JOBS
    assert 0 < story.started_before < JOBS
    assert story.killed.processes() == []
    again = {
        (lost.task_id, lost.map_index)
        for lost in story.lost
        if airflow.task_instance(story.run, lost.task_id, map_index=lost.map_index).try_number > lost.try_number
    }
    # Others may have ended just before the worker did.
    assert ("one_agent.start", MIDDLE) in again
    assert "one_agent.land" in {task_id for task_id, _ in again}


def test_each_job_was_started_once(story, sandbox):
    posts = [request for request in sandbox.requests if (request.method, request.path) == ("POST", "/jobs/start")]

    assert len(posts) == sandbox.starts == JOBS
    assert sorted(job["agent_id"] for job in sandbox.jobs) == sorted(AGENTS)
    assert sandbox.stops == 0


def test_waiting_took_no_slot_of_a_worker_and_the_pool_bounded_the_jobs(story, sandbox):
    changes = [(job["created_at"], 1) for job in sandbox.jobs] + [(job["completed_at"], -1) for job in sandbox.jobs]
    # To the second: of what happened in the same one, ends come first.
    at_once = list(itertools.accumulate(change for _, change in sorted(changes)))

    assert SLOTS < WAITING <= story.waiting <= POOL
    assert max(at_once) <= POOL


def test_each_file_is_that_of_its_job(story, airflow, sandbox, lake):
    agents = {job["job_id"]: job["agent_id"] for job in sandbox.jobs}

    assert sorted(lake.keys()) == sorted(lake.expected)
    assert [key for key, content in lake.expected.items() if lake.read(key) != content] == []
    for number in (0, MIDDLE, *(task.map_index for task in story.lost), JOBS - 1):
        job_id = airflow.xcom(story.run, "one_agent.start", map_index=number)
        landed = airflow.xcom(story.run, "one_agent.land", map_index=number)
        assert agents[job_id] == f"agent{number}"
        assert (landed["job_id"], landed["path"]) == (job_id, f"s3://lake/books/{number}.csv")


def test_nobody_ever_saw_a_file_that_was_not_whole(story, lake):
    assert lake.wrong == []
    # Looked while files appeared, not only before and after.
    assert len(set(lake.looks)) > JOBS // 4


def test_the_workers_shared_no_folder_and_both_worked(story, airflow, servers):
    password = urlsplit(servers[0]).password.encode()
    logs = {worker.name: _task_logs(airflow.home / "machines" / worker.name) for worker in airflow.workers}
    first, second = logs.values()

    assert len(first) > JOBS // 4
    assert len(second) > JOBS // 4
    assert _task_logs(airflow.home) == set()
    # Nor did they know the database.
    assert password in (airflow.home / "airflow.cfg").read_bytes()
    for worker in airflow.workers:
        written = [path for path in (airflow.home / "machines" / worker.name).rglob("*") if path.is_file()]
        assert [path for path in written if password in path.read_bytes()] == []


def test_what_is_left_of_a_worker_that_lives_is_no_file_of_a_job(story, airflow):
    temporary = airflow.home / "machines" / _survivor(airflow, story).name / "tmp"

    assert list(temporary.rglob("*.agenty-part")) == []


def test_neither_key_nor_link_is_in_any_log(story, airflow, sandbox):
    leaks = []
    for path in airflow.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            leaks += [path] * (sandbox.key.encode() in content)
            leaks += [path] * bool(re.search(rb"signature=[\w.-]{20,}", content))
    assert leaks == []


def _task_logs(home: Path) -> set[Path]:
    return {path.relative_to(home) for path in home.glob("logs/**/attempt=*.log")}
