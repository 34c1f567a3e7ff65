"""All that can ask Agenty for something, by name: each public method of the hook, the triggers, the operators."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStartJobOperator,
    AgentyStopJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor
from airflow_provider_agenty.triggers.agenty import AgentyJobEventTrigger, AgentyJobTrigger
from tests.hostile.honest import AGENT, JOB

ITEMS = 30_000
"""How many items are taken of what may have no end, which is the caller's own affair."""

KEPT = 100
"""How many of them are looked at. Each may have a megabyte, and what is kept here counts as memory of the call."""

WAIT = 0.2
"""For how many seconds calls wait that have a deadline."""

WATCH = 0.25
"""For how many seconds a watcher, which has no end, is watched."""

TASKS = (AgentyStartJobOperator, AgentyStopJobOperator, AgentyExportOperator, AgentyResultOperator, AgentyJobSensor)


@dataclass
class Stage:
    """
    What a call is made with.

    :param hook: A new one.
    :param folder: Where files may be landed.
    :param make_context: Makes the context of a task.
    :param stored: What the call gave to Airflow to store, beside what it returned.
    """

    hook: AgentyHook
    folder: Path
    make_context: Callable[..., dict[str, Any]]
    stored: list[Any] = field(default_factory=list)

    def execute(self, task: Any, method: str = "execute", **arguments: Any) -> Any:
        """Run a method of a task, and keep the XComs that it pushes."""
        context = self.make_context(task)
        try:
            value = getattr(task, method)(context, **arguments)
            # What a sensor's poke returns is taken apart by Airflow.
            return getattr(value, "xcom_value", value)
        finally:
            self.stored.append(context["ti"].pushed)


@dataclass(frozen=True)
class Call:
    """
    One way to ask.

    :param routes: What is asked for, on the way.
    :param run: Makes the call.
    :param has_text: Whether all text in the value is ours to bound. Not so the rows of a result, the
        lines of a log, nor the URLs of an input.
    :param job: What is said of the job, where the call is to come by all of its routes.
    :param watches: Whether it asks again and again until it is told to end.
    """

    routes: tuple[str, ...]
    run: Callable[[Stage], Any]
    has_text: bool = True
    job: dict[str, Any] = field(default_factory=dict)
    watches: bool = False


def taken(items: Iterable[Any]) -> list[Any]:
    return [item for number, item in enumerate(islice(items, ITEMS)) if number < KEPT]


def look_once_with(hook: AgentyHook) -> Any:
    with hook:
        return hook.get_job(JOB)


HOOK_CALLS: dict[str, Call] = {
    "start_job": Call(("jobs", "start"), lambda at: at.hook.start_job(AGENT)),
    "start_job, with urls": Call(
        ("jobs", "set_input", "start"), lambda at: at.hook.start_job(AGENT, urls=["https://example.com/1"])
    ),
    "newest_job_id": Call(("jobs",), lambda at: at.hook.newest_job_id(AGENT)),
    "find_started_job": Call(("jobs",), lambda at: at.hook.find_started_job(AGENT, newer_than=JOB - 1)),
    "recent_jobs": Call(("jobs",), lambda at: at.hook.recent_jobs(AGENT, since=datetime(2022, 1, 1, tzinfo=UTC))),
    "get_job": Call(("job",), lambda at: at.hook.get_job(JOB)),
    "stop_job": Call(("stop",), lambda at: at.hook.stop_job(JOB)),
    "get_input": Call(("input",), lambda at: at.hook.get_input(AGENT), has_text=False),
    "set_input": Call(("set_input",), lambda at: at.hook.set_input(AGENT, ["https://example.com/1"])),
    "get_agent": Call(("agent",), lambda at: at.hook.get_agent(AGENT)),
    "find_agent": Call(("agents",), lambda at: at.hook.find_agent("Books")),
    "list_agents": Call(("agents",), lambda at: taken(at.hook.list_agents(type="scraping"))),
    "list_agents, of a project": Call(
        ("project", "agent"), lambda at: taken(at.hook.list_agents(project_id=5, tag="daily"))
    ),
    "list_jobs": Call(("jobs",), lambda at: taken(at.hook.list_jobs())),
    "list_jobs, since": Call(
        ("jobs",), lambda at: taken(at.hook.list_jobs(AGENT, since=datetime(2022, 1, 1, tzinfo=UTC)))
    ),
    "list_jobs, of an agent": Call(("jobs",), lambda at: taken(at.hook.list_jobs(AGENT))),
    "list_job_page": Call(("jobs",), lambda at: list(at.hook.list_job_page(limit=1000).jobs.values())),
    "iter_result": Call(("result",), lambda at: taken(at.hook.iter_result(JOB)), has_text=False),
    "count_result": Call(("result",), lambda at: at.hook.count_result(JOB)),
    "iter_logs": Call(("logs",), lambda at: taken(at.hook.iter_logs(JOB)), has_text=False),
    "last_log_entries": Call(("logs",), lambda at: at.hook.last_log_entries(JOB)),
    "wait_for_job": Call(
        ("job",), lambda at: at.hook.wait_for_job(JOB, poll_interval=0.05, timeout=WAIT, max_failed_ratio=0.9)
    ),
    "wait_for_job, of one that fails": Call(
        ("job", "logs"),
        lambda at: at.hook.wait_for_job(JOB, poll_interval=0.05, timeout=WAIT),
        job={"status": "aborted", "error": "Out of credits"},
    ),
    "get_export_link": Call(("export",), lambda at: bool(at.hook.get_export_link(JOB))),
    "download_export": Call(
        ("job", "result", "export", "download"), lambda at: at.hook.download_export(JOB, f"{at.folder}/")
    ),
    "download_export, of logs": Call(
        ("job", "export", "download"),
        lambda at: at.hook.download_export(JOB, f"{at.folder}/", file_type="logs"),
    ),
    "download_result": Call(("job", "result"), lambda at: at.hook.download_result(JOB, f"{at.folder}/")),
    "download_result, as CSV": Call(
        ("job", "result"), lambda at: at.hook.download_result(JOB, f"{at.folder}/", format="csv")
    ),
    "download_result, as Parquet": Call(
        ("job", "result"), lambda at: at.hook.download_result(JOB, f"{at.folder}/", format="parquet")
    ),
    "download_export, guarded": Call(
        ("job", "result", "export", "download", "jobs"),
        lambda at: at.hook.download_export(JOB, f"{at.folder}/", required_fields={"price": 0}, max_row_drop=0.5),
    ),
    "download_result, guarded": Call(
        ("job", "result", "jobs"),
        lambda at: at.hook.download_result(JOB, f"{at.folder}/", required_fields={"price": 0}, max_row_drop=0.5),
    ),
    "test_connection": Call(("jobs",), lambda at: list(at.hook.test_connection())),
    "without_retries": Call(("job",), lambda at: look_once_with(at.hook.without_retries())),
}

ASKS_NOTHING = {"close", "get_connection_form_widgets", "get_ui_field_behaviour"}

HANDS_OUT_A_SESSION = {"get_conn"}
"""What its user does with the session is the user's affair, but the key stays with Agenty: a test of its own."""


async def first_event(trigger: AgentyJobTrigger) -> Any:
    async with aclosing(trigger.run()) as events:
        async for event in events:
            return event
    raise AssertionError("the trigger sent no event")


def payload_of(event: Any) -> Any:
    """Return what Airflow stores of an event: its payload, or the XComs of a task that ends with it."""
    return getattr(event, "xcoms", None) or event.payload


def defer(stage: Stage, **arguments: Any) -> Any:
    """Wait in a triggerer, and resume in a worker."""
    stage.hook.close()
    trigger = AgentyJobTrigger(JOB, poll_interval=0.05, deadline=time.time() + WAIT, **arguments)
    event = asyncio.run(first_event(trigger))
    stage.stored.append(payload_of(event))
    if not isinstance(event.payload, dict) or "status" not in event.payload:
        return None
    sensor = AgentyJobSensor(task_id="wait", job_id=JOB, deferrable=True)
    # It crosses processes: what can't is found by what is stored.
    payload = json.loads(json.dumps(event.payload))
    return stage.execute(sensor, "execute_complete", event=payload)


async def watch(stage: Stage, trigger: AgentyJobEventTrigger) -> None:
    """Take events for a while: a watch has no end of its own."""
    async with aclosing(trigger.run()) as events:
        try:
            async with asyncio.timeout(WATCH):
                async for event in events:
                    stage.stored.append(event.payload)
        except TimeoutError:
            pass


def run_task(make: Callable[..., Any], method: str = "execute", **parameters: Any) -> Callable[[Stage], Any]:
    def run(stage: Stage) -> Any:
        paths = {"path": f"{stage.folder}/"} if "path" in getattr(make, "template_fields", ()) else {}
        return stage.execute(make(task_id="task", **paths, **parameters), method)

    return run


WAITING = {"poll_interval": 0.05, "timeout": WAIT, "wait_for_completion": True}

TASK_CALLS: dict[str, Call] = {
    "AgentyJobTrigger": Call(("job",), defer),
    "AgentyJobTrigger, with the log": Call(("job", "logs"), partial(defer, stream_logs=True)),
    "AgentyJobTrigger, to the end": Call(("job",), partial(defer, end_from_trigger=True)),
    "AgentyJobEventTrigger": Call(
        ("jobs", "job"),
        lambda at: asyncio.run(watch(at, AgentyJobEventTrigger(AGENT, poll_interval=0.05))),
        watches=True,
    ),
    "AgentyJobEventTrigger, of jobs that fail": Call(
        ("jobs", "job"),
        lambda at: asyncio.run(
            watch(at, AgentyJobEventTrigger(AGENT, poll_interval=0.05, statuses=("aborted", "stopped")))
        ),
        watches=True,
    ),
    "AgentyJobSensor.poke": Call(("job", "logs"), run_task(AgentyJobSensor, "poke", job_id=JOB, stream_logs=True)),
    "AgentyStartJobOperator": Call(
        ("jobs", "start", "job", "logs"), run_task(AgentyStartJobOperator, agent_id=AGENT, stream_logs=True, **WAITING)
    ),
    "AgentyStartJobOperator, by name": Call(
        ("agents", "jobs", "start"), run_task(AgentyStartJobOperator, agent_name="Books")
    ),
    "AgentyStartJobOperator, of a job that fails": Call(
        ("job", "logs"),
        run_task(AgentyStartJobOperator, agent_id=AGENT, **WAITING),
        job={"status": "failed", "error": "Out of credits"},
    ),
    "AgentyStopJobOperator": Call(("stop",), run_task(AgentyStopJobOperator, job_id=JOB)),
    "AgentyExportOperator": Call(("job", "result", "export", "download"), run_task(AgentyExportOperator, job_id=JOB)),
    "AgentyResultOperator": Call(("job", "result"), run_task(AgentyResultOperator, job_id=JOB)),
}

CALLS = HOOK_CALLS | TASK_CALLS


def public_methods() -> set[str]:
    """Return the methods that the hook adds to Airflow's."""
    own = [kind for kind in AgentyHook.__mro__ if kind.__module__.startswith("airflow_provider_agenty")]
    return {
        name
        for kind in own
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, classmethod | staticmethod))
    }


LOGGING = (AgentyHook, AgentyJobTrigger, AgentyJobEventTrigger, *TASKS)
"""What has a log of its own."""
