"""The storm: it does what a plan says, keeps a list of what it did, and waits until all runs have ended."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_agenty.sandbox import Fault, Sandbox
from tests.airflow_harness.airflow_api import Run, TaskInstance
from tests.storm.airflow_runs import AirflowRuns
from tests.storm.kills import bring_back
from tests.storm.kinds import COMPLETED, NONE
from tests.storm.plan import Plan, PlannedFault, PlannedKill, PlannedRun

MOST_RUNS_AT_ONCE = 8
SHARE_IN_WHICH_RUNS_BEGIN = 0.75
"""Of the storm's time. A run that begins at the end would meet no fault."""

SECONDS_BETWEEN_LOOKS = 3.0
TASK_ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}
OLD = b"name,price\r\nThe file that was there,1.00\r\n"


@dataclass
class Story:
    """
    A run, and what is known of it.

    :param path: where it lands.
    :param others_job: the job that somebody else has started of its agent.
    """

    planned: PlannedRun
    run: Run
    path: Path
    others_job: int | None
    state: str = "running"
    tasks: dict[str, TaskInstance] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.run.run_id} ({self.run.dag_id})"

    @property
    def has_ended(self) -> bool:
        return self.state in ("success", "failed")


class Storm:
    """
    :param plan: what it does.
    :param airflow: an `AirflowInstance`, or an `Airflow2`.
    :param lake: the folder in which runs land.
    :param tell: shows a line.
    """

    def __init__(self, plan: Plan, airflow: Any, sandbox: Sandbox, lake: Path, tell: Callable[[str], None]) -> None:
        self.stories: list[Story] = []
        self.events: list[str] = []
        self.kills: Counter[str] = Counter()
        self.ended_by_themselves: list[str] = []
        self._plan = plan
        self._airflow = airflow
        self._runs = AirflowRuns(airflow)
        self._sandbox = sandbox
        self._lake = lake
        self._tell = tell
        self._faults: list[tuple[str, Fault]] = []
        self._others: Counter[str] = Counter()
        self._comes_back: dict[str, float] = {}
        self._labels: dict[str, str] = {}

    @property
    def faults(self) -> Counter[str]:
        """How often each fault has struck."""
        counted = self._others.copy()
        for name, fault in self._faults:
            counted[name] += fault.hits
        return counted

    def rage(self, seconds: float) -> None:
        """Do what the plan says, for so many seconds."""
        self._began = time.monotonic()
        runs, kills, faults = (list(reversed(each)) for each in (self._plan.runs, self._plan.kills, self._plan.faults))
        looked = 0.0
        while (now := self._now()) < seconds:
            while faults and faults[-1].at <= now:
                self._switch_on(faults.pop())
            if kills and kills[-1].at <= now:
                self._strike(kills.pop())
            self._bring_back(now)
            self._bring_back_what_has_ended()
            # A scheduler that was asked to go may hold the database until it is ended.
            may_begin = not self._comes_back and now < seconds * SHARE_IN_WHICH_RUNS_BEGIN
            if runs and may_begin and self._has_room():
                self._begin(runs.pop())
            if now - looked > SECONDS_BETWEEN_LOOKS:
                self._look()
                looked = self._now()
            time.sleep(0.05)

    def abate(self, seconds: float) -> None:
        """Switch off all faults, bring everything back, and wait until all runs have ended, so long at most."""
        for _, fault in self._faults:
            fault.remove()
        self._bring_back(float("inf"))
        self._note("The storm is over")
        ends = self._now() + seconds
        while not all(story.has_ended for story in self.stories) and self._now() < ends:
            self._bring_back_what_has_ended()
            self._look()
            time.sleep(1)
        # Nobody is to wait for these any more.
        for story in self.stories:
            if story.others_job is not None and self._sandbox.job(story.others_job)["status"] == "running":
                self._sandbox.set_status(story.others_job, "completed")
        self._note(f"{sum(story.has_ended for story in self.stories)} of {len(self.stories)} runs have ended")

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _note(self, what: str) -> None:
        line = f"{self._now():7.1f} s  {what}"
        self.events.append(line)
        self._tell(line)

    # Runs

    def _has_room(self) -> bool:
        return sum(not story.has_ended for story in self.stories) < MOST_RUNS_AT_ONCE

    def _begin(self, planned: PlannedRun) -> None:
        kind, run = planned.kind, Run(planned.kind.dag_id, f"storm{planned.number}")
        path = self._lake / f"{run.run_id}.csv{'.gz' if planned.compressed else ''}"
        if planned.replaces:
            written = path.with_name(f".{path.name}.new")
            written.write_bytes(gzip.compress(OLD) if planned.compressed else OLD)
            written.replace(path)
        others_job = None
        for agent_id in planned.agent_ids:
            self._make_agent(agent_id, planned)
            if kind.others_job != NONE:
                others_job = self._sandbox.start_job(agent_id)
                self._sandbox.set_status(others_job, kind.others_job)
        self.stories.append(Story(planned, run, path, others_job))
        self._note(f"{run.run_id} begins: {run.dag_id}, {len(planned.rows)} rows, job takes {planned.seconds:.1f} s")
        self._runs.begin(run, {"agent_ids": planned.agent_ids, "path": str(path)})

    def _make_agent(self, agent_id: str, planned: PlannedRun) -> None:
        if planned.rows_before:
            self._sandbox.set_agent(agent_id, planned.rows_before)
            self._sandbox.add_older_jobs(agent_id, 1)
        self._sandbox.set_agent(agent_id, planned.rows)
        self._sandbox.plan(agent_id=agent_id, pages=10, seconds=planned.seconds)
        planned.kind.first_job(self._sandbox, agent_id)

    def _look(self) -> None:
        for story in self.stories:
            if story.has_ended:
                continue
            story.tasks = self._runs.tasks(story.run)
            self._labels |= {task.id: f"{story.name}, {label}" for label, task in story.tasks.items() if task.id}
            if story.tasks and all(task.state in TASK_ENDED for task in story.tasks.values()):
                story.state = self._runs.state(story.run)
                if story.has_ended:
                    # Once more: the run may have ended since.
                    story.tasks = self._runs.tasks(story.run)
                    told = ", ".join(f"{label} {task.state}" for label, task in sorted(story.tasks.items()))
                    self._note(f"{story.name} ends: {told}")
            if story.planned.kind.dag_id == "joins":
                self._complete_joined(story)

    def _complete_joined(self, story: Story) -> None:
        """Let the job of somebody else complete once the run waits for it."""
        assert story.others_job is not None
        start = story.tasks.get("start")
        held = start is not None and start.state == "deferred"
        if held and self._sandbox.job(story.others_job)["status"] != COMPLETED:
            self._sandbox.set_status(story.others_job, COMPLETED, pages_processed=10)

    # Kills and faults

    def _switch_on(self, planned: PlannedFault) -> None:
        if any(name == planned.name and fault.seen < (fault.times or 0) for name, fault in self._faults):
            # Several of them could delay one start for longer than the promise covers.
            return
        self._note(f"Fault: {planned.name}")
        if planned.fault is None:
            self._sandbox.expire_links()
            self._others[planned.name] += 1
        else:
            self._faults.append((planned.name, self._sandbox.add_fault(planned.fault)))

    def _strike(self, planned: PlannedKill) -> None:
        kill = planned.kill
        if kill.component in self._comes_back:
            return
        struck = kill.strike(self._airflow, planned.choice)
        if struck is None:
            return
        self.kills[kill.name] += 1
        self._note(f"Kill: {kill.name}: {self._labels.get(struck, struck)}")
        if kill.component is not None:
            self._comes_back[kill.component] = self._now() + planned.away

    def _bring_back(self, now: float) -> None:
        for name, at in list(self._comes_back.items()):
            if at <= now:
                del self._comes_back[name]
                bring_back(getattr(self._airflow, name))
                self._note(f"The {name} is back")

    def _bring_back_what_has_ended(self) -> None:
        for name in ("scheduler", "triggerer"):
            component = getattr(self._airflow, name)
            if not component.is_running and name not in self._comes_back:
                self.ended_by_themselves.append(f"The {name} has ended by itself:\n{component.last_lines(15)}")
                self._note(self.ended_by_themselves[-1])
                bring_back(component)
