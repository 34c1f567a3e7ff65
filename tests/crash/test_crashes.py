"""
Where a task can crash, and what comes of it: how many jobs are started, how many stops are sent, how the task ends.

docs/when-things-go-wrong.md has the table below in short. Each of its lines is done to a real Airflow. A line that
starts one job for one task run is the promise; where a user clears a task, a second job is what was asked for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from airflow_provider_agenty.airflow_compat import HAS_TASK_STATE_STORE
from tests.features import IS_AIRFLOW_3_0
from tests.sandbox_faults import SlowBody


def before_the_post(on, until):
    asked = on.sandbox.fault("GET", "/jobs", agent_id=on.agent_id, hold="before")
    on.begin("sync")
    asked.wait()
    on.kill_task()
    asked.release()
    on.complete(on.runs_its_job())


def its_worker_before_the_post(on, until):
    asked = on.sandbox.fault("GET", "/jobs", agent_id=on.agent_id, hold="before")
    on.begin("sync")
    asked.wait()
    os.kill(psutil.Process(on.task_process()).ppid(), signal.SIGKILL)
    asked.release()
    on.complete(on.runs_its_job())


def input_on_its_way(on, until):
    sent = on.sandbox.fault("PUT", "/inputs/*", agent_id=on.agent_id, hold="before", drop="before")
    on.begin("with_urls")
    sent.wait()
    on.kill_task()
    assert not on.stored("agenty_start")
    sent.release()
    job_id = on.runs_its_job()
    on.complete(job_id)
    (row,) = on.agenty("GET", f"/jobs/{job_id}/result")["result"]
    assert row["url"] == f"https://example.com/{on.run.run_id}"


def input_of_another_run(on, until):
    accepted = on.sandbox.fault("POST", "/jobs/start", agent_id=on.agent_id, hold="after")
    on.begin("with_urls")
    accepted.wait()
    job_id = on.has_started()
    on.kill_task()
    of_another_run = {"type": "manual", "data": ["https://example.com/of-another-run"]}
    on.agenty("PUT", f"/inputs/{on.agent_id}", json=of_another_run)
    accepted.release()
    on.sandbox.set_status(job_id, "running")
    on.is_asked_for(job_id)
    on.complete(job_id)
    assert on.agenty("GET", f"/inputs/{on.agent_id}") == of_another_run


def in_flight_and_never_accepted(on, until):
    sent = on.sandbox.fault("POST", "/jobs/start", agent_id=on.agent_id, hold="before", drop="before")
    on.begin("sync")
    sent.wait()
    on.kill_task()
    sent.release()
    on.complete(on.runs_its_job())


def accepted_but_not_answered(dag_id):
    def act(on, until):
        accepted = on.sandbox.fault("POST", "/jobs/start", agent_id=on.agent_id, hold="after")
        on.begin(dag_id)
        accepted.wait()
        job_id = on.has_started()
        on.kill_task()
        accepted.release()
        if dag_id != "start_only":
            on.sandbox.set_status(job_id, "running")
            on.is_asked_for(job_id)
        on.complete(job_id)

    return act


def answered_but_not_stored(on, until):
    accepted = on.sandbox.fault("POST", "/jobs/start", agent_id=on.agent_id, hold="after")
    on.begin("sync")
    accepted.wait()
    task = on.task_process()
    api_server = on.airflow.api_server.processes()
    for pid in api_server:
        os.kill(pid, signal.SIGSTOP)
    try:
        accepted.release()
        time.sleep(1.5)
        assert not on.stored("agenty_job"), "the task was not held before it could store its job"
        on.kill(task)
    finally:
        for pid in api_server:
            os.kill(pid, signal.SIGCONT)
    on.complete(on.runs_its_job())


def waiting_in_a_worker(on, until):
    on.begin("sync")
    job_id = on.runs_its_job()
    on.kill_task()
    on.is_asked_for(job_id)
    on.complete(job_id)


def completed_before_the_retry(on, until):
    on.begin("sync")
    job_id = on.runs_its_job()
    on.kill_task()
    on.complete(job_id)


def one_of_several_mapped_tasks(on, until):
    other = f"{on.agent_id}b"
    on.sandbox.set_agent(other, [{"name": "A book"}])
    on.begin("mapped", agent_ids=[on.agent_id, other])
    on.map_index = 0
    job_id = on.runs_its_job()
    on.kill_task()
    on.is_asked_for(job_id)
    on.complete(job_id)
    for job in on.sandbox.jobs:
        if job["agent_id"] == other:
            on.complete(job["job_id"])
    on.airflow.wait_for_task(on.run, "start", {"success"}, map_index=1, timeout=120)
    assert sum(job["agent_id"] == other for job in on.sandbox.jobs) == 1


def stored_but_not_deferred(on, until):
    on.begin("deferred")
    pid = on.task_process()
    until(lambda: on.stored("agenty_job"), "the job is not stored")
    on.kill(pid)
    on.complete(on.runs_its_job())


def deferred_and_the_triggerer(ends):
    def act(on, until):
        on.begin("deferred")
        job_id = on.runs_its_job()
        on.reaches("deferred")
        getattr(on.airflow.triggerer, ends)()
        on.airflow.triggerer.start()
        on.is_asked_for(job_id)
        on.complete(job_id)

    return act


def worker_shut_down(on, until):
    on.begin("sync")
    job_id = on.runs_its_job()
    os.kill(on.airflow.worker_pids_of_task(on.run, "start")[0], signal.SIGTERM)
    on.stays()
    on.is_asked_for(job_id)
    on.complete(job_id)


def heartbeat_lost(on, until):
    on.begin("sync")
    job_id = on.runs_its_job()
    worker = on.airflow.worker_pids_of_task(on.run, "start")[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        until(lambda: on.is_retried, "the heartbeat is not missed")
    finally:
        os.kill(worker, signal.SIGCONT)
    on.stays()
    on.is_asked_for(job_id)
    on.complete(job_id)


def cleared_while(dag_id, waiting_state):
    def act(on, until):
        on.begin(dag_id)
        job_id = on.runs_its_job()
        on.reaches(waiting_state)
        on.is_asked_for(job_id)  # A trigger that the triggerer has not taken up is told nothing.
        on.airflow.clear(on.run, "start")
        until(lambda: on.stops == 1, "the cleared task's job is not stopped")
        assert on.sandbox.stopped_jobs[-1] == job_id
        on.complete(on.runs_its_job(2))

    return act


def cleared_while_the_triggerer_hangs(on, until):
    on.begin("deferred")
    job_id = on.runs_its_job()
    on.reaches("deferred")
    on.is_asked_for(job_id)
    with on.triggerer_hangs():
        on.airflow.clear(on.run, "start")
        next_job_id = on.has_started(2)
        on.reaches("deferred")
    until(lambda: on.stops == 1, "the cleared task's job is not stopped")
    assert on.sandbox.stopped_jobs[-1] == job_id
    on.complete(next_job_id)


def cleared_after_success(on, until):
    on.begin("sync")
    on.complete(on.runs_its_job())
    assert on.airflow.wait_for_run(on.run) == "success"  # cleared before that, it may never be scheduled again
    on.airflow.clear(on.run, "start")
    on.complete(on.runs_its_job(2))


def marked_while(dag_id, waiting_state, state):
    def act(on, until):
        on.begin(dag_id)
        job_id = on.runs_its_job()
        on.reaches(waiting_state)
        on.is_asked_for(job_id)
        on.airflow.set_task_state(on.run, "start", state)
        until(lambda: on.stops == 1, "the job is not stopped")
        on.stays()

    return act


def timed_out(dag_id):
    def act(on, until):
        on.begin(dag_id)
        job_id = on.has_started()
        on.sandbox.set_status(job_id, "running")
        until(lambda: on.stops == 1, "the job is not stopped")

    return act


def timed_out_and_retried(on, until):
    timed_out("deferred_timeout_and_retry")(on, until)
    on.complete(on.has_started(2))


def timed_out_without_a_stop(on, until):
    on.begin("deferred_timeout_that_stops_nothing")
    job_id = on.has_started()
    on.sandbox.set_status(job_id, "running")
    until(lambda: on.is_retried, "the task does not time out")
    on.complete(job_id)


def out_of_sight(on, until):
    on.begin("deferred")
    job_id = on.runs_its_job()
    on.reaches("deferred")
    hidden = on.sandbox.fault("GET", f"/jobs/{job_id}", status=503, times=None)
    on.sandbox.wait_for_request("GET", f"/jobs/{job_id}", count=3)
    hidden.remove()
    on.complete(job_id)


@dataclass(frozen=True)
class Point:
    """A line of the table."""

    what: str
    act: Callable[..., None]
    starts: int
    stops: int
    ends: str
    needs_killed_trigger: bool = False
    """Whether Airflow has to tell a trigger that a user ended its task, as 3.3 and later do."""


POINTS = [
    Point("killed before the start is sent", before_the_post, 1, 0, "success"),
    Point("its worker killed before that, and the task lives on", its_worker_before_the_post, 1, 0, "success"),
    Point("killed while the start is on its way, and it never arrives", in_flight_and_never_accepted, 1, 0, "success"),
    Point("killed after Agenty accepted, before the answer", accepted_but_not_answered("sync"), 1, 0, "success"),
    Point("the same, deferrable", accepted_but_not_answered("deferred"), 1, 0, "success"),
    Point("the same, without waiting", accepted_but_not_answered("start_only"), 1, 0, "success"),
    Point("killed after the answer, before the job is stored", answered_but_not_stored, 1, 0, "success"),
    Point("killed while its `urls` are being set", input_on_its_way, 1, 0, "success"),
    Point("the answer lost, and the input set by another run meanwhile", input_of_another_run, 1, 0, "success"),
    Point("killed while it waits in a worker", waiting_in_a_worker, 1, 0, "success"),
    Point("the same, and the job completes before the retry", completed_before_the_retry, 1, 0, "success"),
    Point("one of several mapped tasks killed while it waits", one_of_several_mapped_tasks, 1, 0, "success"),
    Point("killed after the job is stored, before it defers", stored_but_not_deferred, 1, 0, "success"),
    Point("deferred, and the triggerer is killed", deferred_and_the_triggerer("kill"), 1, 0, "success"),
    Point("deferred, and the triggerer is restarted", deferred_and_the_triggerer("stop"), 1, 0, "success"),
    Point("the worker is shut down while it waits", worker_shut_down, 1, 0, "success"),
    Point("the worker's heartbeat is lost while it waits", heartbeat_lost, 1, 0, "success"),
    Point("Agenty answers with errors for a while", out_of_sight, 1, 0, "success"),
    Point("cleared while it waits in a worker", cleared_while("sync", "running"), 2, 1, "success"),
    Point("cleared while deferred", cleared_while("deferred", "deferred"), 2, 1, "success", needs_killed_trigger=True),
    Point(
        "cleared while the triggerer hangs, until the next try waits",
        cleared_while_the_triggerer_hangs,
        2,
        1,
        "success",
        needs_killed_trigger=True,
    ),
    Point("cleared after success", cleared_after_success, 2, 0, "success"),
    Point("marked failed while it waits in a worker", marked_while("sync", "running", "failed"), 1, 1, "failed"),
    Point(
        "marked failed while deferred",
        marked_while("deferred", "deferred", "failed"),
        1,
        1,
        "failed",
        needs_killed_trigger=True,
    ),
    Point("marked success while it waits in a worker", marked_while("sync", "running", "success"), 1, 1, "success"),
    Point(
        "marked success while deferred",
        marked_while("deferred", "deferred", "success"),
        1,
        1,
        "success",
        needs_killed_trigger=True,
    ),
    Point("execution_timeout while it waits in a worker", timed_out("sync_execution_timeout"), 1, 1, "failed"),
    Point("execution_timeout while deferred", timed_out("deferred_execution_timeout"), 1, 1, "failed"),
    Point("the operator's own timeout", timed_out("deferred_timeout"), 1, 1, "failed"),
    Point("a timeout, and a retry whose job completes", timed_out_and_retried, 2, 1, "success"),
    Point("a timeout that stops nothing, and a retry", timed_out_without_a_stop, 1, 0, "success"),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.what)
def test_a_job_is_never_paid_for_twice(point, scenario, until):
    if point.needs_killed_trigger and not HAS_TASK_STATE_STORE:
        pytest.skip("before 3.3 Airflow does not tell a trigger that a user ended its task")
    if IS_AIRFLOW_3_0 and point.what == "cleared while it waits in a worker":
        pytest.skip("Airflow 3.0 leaves a task restarting that is cleared while it runs")
    point.act(scenario, until)
    scenario.reaches(point.ends)

    assert (scenario.starts, scenario.stops, scenario.state) == (point.starts, point.stops, point.ends)
    if point.ends == "success" and point.stops == 0:
        assert scenario.returned() == scenario.job_ids[-1]
        if not HAS_TASK_STATE_STORE:
            until(lambda: not scenario.stored("agenty_start"), "what was remembered of the start is left over")
        assert scenario.link() == f"https://cloud.agenty.com/agents/scraping/{scenario.agent_id}"


@pytest.mark.skipif(HAS_TASK_STATE_STORE, reason="3.3 and later remember a start without Variables")
@pytest.mark.parametrize("behaviour", ["raise", "1"])
def test_a_bad_secrets_backend_loses_no_start(behaviour, secrets_backend, scenario, until):
    with secrets_backend.behaves(behaviour):
        waiting_in_a_worker(scenario, until)
        scenario.reaches("success")
        until(lambda: not scenario.stored("agenty_start"), "what was remembered of the start is left over")

    assert (scenario.starts, scenario.stops) == (1, 0)
    assert "can't be used" not in scenario.log


# What is at the destination.

OLD = b"the file that was there\n"


@pytest.fixture
def destination(tmp_path) -> Any:
    path = tmp_path / "books.csv"
    path.write_bytes(OLD)
    return path


def only_hidden_files_beside(destination):
    """A killed try can't tidy up; a later landing removes what it left, once it is old enough to be nobody's."""
    others = [path.name for path in destination.parent.iterdir() if path != destination]
    return all(name.startswith(".") and name.endswith(".agenty-part") for name in others)


def completed_job(scenario, *, rows):
    """Return a completed job whose result the task is to land, and that result."""
    content = b"name\r\n" + (b"x" * 98 + b"\r\n") * rows
    scenario.task_id = "land"
    scenario.sandbox.set_agent(scenario.agent_id, content)
    job_id = scenario.sandbox.start_job(scenario.agent_id)
    scenario.complete(job_id)
    return job_id, content


def test_killed_while_the_export_downloads(scenario, destination, until):
    job_id, content = completed_job(scenario, rows=160_000)
    slow = SlowBody("GET", f"/Job_{job_id}/**", host="downloads", bytes_per_second=4_000_000)
    scenario.sandbox.add_fault(slow)
    scenario.begin("export", job_id=job_id, path=str(destination))
    slow.wait()
    until(lambda: len(list(destination.parent.iterdir())) > 1, "no temporary file")
    scenario.kill_task()
    assert destination.read_bytes() == OLD
    scenario.reaches("success")

    assert destination.read_bytes() == content
    assert only_hidden_files_beside(destination)


def test_killed_while_the_export_publishes(scenario, destination, until):
    job_id, content = completed_job(scenario, rows=2_000_000)
    scenario.begin("export", job_id=job_id, path=str(destination))
    pid = scenario.task_process()

    def whole_file_is_there_under_another_name() -> bool:
        return any(
            entry.name != destination.name and entry.stat().st_size == len(content)
            for entry in os.scandir(destination.parent)
        )

    until(whole_file_is_there_under_another_name, "the temporary file is never whole")
    scenario.kill(pid)
    assert destination.read_bytes() in {OLD, content}
    scenario.reaches("success")

    assert destination.read_bytes() == content
    assert only_hidden_files_beside(destination)
