"""
The triggerer of the benchmark of waiting: Airflow's own supervisor and trigger runner, without a database.

``benchmarks/waiters.py`` starts it, once for each contestant. It says ``ready``, reads a line of JSON that says which
triggers to run, and writes as JSON what was measured in the process that ran them.

The supervisor is Airflow's, but for what it would read from the database: the triggers to run, and whom their events
wake. The runner is Airflow's, in a forked process as always; a coroutine beside the triggers measures how long the
event loop does not come round.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import structlog
from airflow.executors import workloads
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunner, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from airflow.triggers.base import BaseTrigger, TriggerEvent

HEARTBEAT_SECONDS = 0.01
REPORT = Path(os.environ["WAITERS_REPORT"])


class EmptyTrigger(BaseTrigger):
    """Sleeps until its job has ended, and asks nobody: what it costs is Airflow's own."""

    def __init__(self, ends_at: float) -> None:
        super().__init__()
        self.ends_at = ends_at

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "waiters_triggerer.EmptyTrigger", {"ends_at": self.ends_at}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.sleep(max(0.0, self.ends_at - time.time()))
        yield TriggerEvent({"status": "success"})


class MinimalTrigger(BaseTrigger):
    """Waits by the smallest poller that triggers can share: what it costs beyond the empty one is asking itself."""

    _ends: ClassVar[dict[int, asyncio.Future[str]]] = {}
    _poller: ClassVar[asyncio.Task[None] | None] = None

    def __init__(self, job_id: int, poll_interval: float) -> None:
        super().__init__()
        self.job_id = job_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        arguments = {"job_id": self.job_id, "poll_interval": self.poll_interval}
        return "waiters_triggerer.MinimalTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        end = self._ends[self.job_id] = asyncio.get_running_loop().create_future()
        if self._poller is None:
            type(self)._poller = asyncio.create_task(self._poll(self.poll_interval))
        yield TriggerEvent({"status": await end})

    @classmethod
    async def _poll(cls, interval: float) -> None:
        # Imported here, because the imports of all others count too.
        requests = await asyncio.to_thread(importlib.import_module, "requests")
        connection = json.loads(os.environ["AIRFLOW_CONN_AGENTY_DEFAULT"])
        with requests.Session() as session:
            session.trust_env, session.verify = False, connection["extra"]["verify"]
            session.headers["X-Agenty-ApiKey"] = connection["password"]
            await asyncio.sleep(0.5)
            while cls._ends:
                began = time.monotonic()
                for job in await asyncio.to_thread(cls._read_list, session, connection["host"]):
                    if job["status"] == "completed" and job["job_id"] in cls._ends:
                        cls._ends.pop(job["job_id"]).set_result("success")
                # As ours: never without a pause.
                await asyncio.sleep(max(interval - (time.monotonic() - began), interval / 2))

    @staticmethod
    def _read_list(session: Any, host: str) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = []
        total = 1
        while len(jobs) < total:
            page = session.get(f"{host}/jobs", params={"limit": 1000, "offset": len(jobs)}, timeout=60).json()
            jobs += page["result"]
            total = page["total"]
        return jobs


class NotedEvents(deque[Any]):
    """The runner's queue of events, which notes when each came in, and what was used until the last one."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.noted: dict[int, float] = {}
        self.usage: resource.struct_rusage | None = None
        self._expected = expected

    def append(self, entry: Any) -> None:
        self.noted[entry.trigger_id] = time.time()
        if len(self.noted) == self._expected:
            self.usage = resource.getrusage(resource.RUSAGE_SELF)
        super().append(entry)


class MeasuredRunner(TriggerRunner):
    """Airflow's trigger runner, measured until so many events have come."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.events: NotedEvents = NotedEvents(expected)
        self._stall = self._stall_cpu = 0.0

    async def arun(self) -> None:
        beat = asyncio.create_task(self._beat())
        try:
            await super().arun()
        finally:
            beat.cancel()

    async def _beat(self) -> None:
        while self.events.usage is None:
            began, began_cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._stall = max(self._stall, time.perf_counter() - began - HEARTBEAT_SECONDS)
            self._stall_cpu = max(self._stall_cpu, time.process_time() - began_cpu)

    def to_dict(self) -> dict[str, Any]:
        usage = self.events.usage or resource.getrusage(resource.RUSAGE_SELF)
        return {
            "events": self.events.noted,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss": usage.ru_maxrss / 1024,
            "stall": self._stall,
            "stall_cpu": self._stall_cpu,
        }


@attrs.define(kw_only=True)
class Supervisor(TriggerRunnerSupervisor):
    """Airflow's supervisor of the runner, with a list of triggers in place of the database."""

    expected: ClassVar[int]

    give_up_at: float = float("inf")
    payloads: list[Any] = attrs.field(factory=list, init=False)

    @classmethod
    def run_in_process(cls) -> None:
        runner = MeasuredRunner(cls.expected)
        runner.run()
        REPORT.write_text(json.dumps(runner.to_dict()))

    def add(self, workload: workloads.RunTrigger) -> None:
        path = f"dag_id=waiters/run_id=run/task_id=wait/map_index={workload.ti.map_index}/attempt=1.log.trigger.1.log"
        self.logger_cache[workload.id] = TriggerLoggingFactory(log_path=path, ti=workload.ti)
        self.creating_triggers.append(workload)

    def should_stop(self) -> bool:
        return len(self.payloads) >= self.expected or time.time() >= self.give_up_at

    def load_triggers(self) -> None:
        """Nothing is added while it runs."""

    def on_trigger_event(self, trigger_id: int, event: TriggerEvent) -> None:  # noqa: ARG002
        self.payloads.append(event.payload)

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:  # noqa: ARG002
        self.payloads.append({"status": "the trigger broke", "message": "".join(exc or ())})

    def clean_unused(self) -> None:
        """There is no table to clean."""

    def heartbeat(self) -> None:
        """There is no table to write it to."""

    def metric_tags(self) -> dict[str, str]:
        return {"hostname": "benchmark"}


def workload_for(number: int, classpath: str, arguments: dict[str, Any]) -> workloads.RunTrigger:
    ti = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        task_id="wait",
        dag_id="waiters",
        run_id="run",
        try_number=1,
        map_index=number,
        pool_slots=1,
        queue="default",
        priority_weight=1,
    )
    return workloads.RunTrigger(
        id=number, ti=ti, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(arguments)
    )


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    task = json.loads(sys.stdin.readline())
    triggers = task["triggers"]
    Supervisor.expected = len(triggers)
    supervisor = Supervisor.start(
        capacity=len(triggers), logger=structlog.get_logger(), give_up_at=time.time() + task["patience"]
    )
    for number, (classpath, arguments) in enumerate(triggers):
        supervisor.add(workload_for(number + 1, classpath, arguments))
    supervisor.run()
    supervisor.kill(escalation_delay=20, force=True)
    wrong = [str(payload)[:500] for payload in supervisor.payloads if payload.get("status") != "success"]
    REPORT.write_text(json.dumps({**json.loads(REPORT.read_text()), "wrong": wrong[:3]}))


if __name__ == "__main__":
    main()
