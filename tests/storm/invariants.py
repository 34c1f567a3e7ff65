"""The promises that a storm must not break. A check is a name and a function that yields violations."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import requests

from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.sandbox import Sandbox
from tests.airflow_harness.airflow_api import TaskInstance
from tests.secret_patterns import SIGNATURE, pattern_of
from tests.storm.airflow_runs import AirflowRuns
from tests.storm.kinds import FAILED, SUCCESS
from tests.storm.lake import Lake, digest_of
from tests.storm.storm import OLD, Story

AN_HOUR = 3600.0
_ERROR_OF_OURS = re.compile(r"Agenty\w*Error")
_OLD_DIGEST = hashlib.sha256(OLD).hexdigest()


@dataclass
class Aftermath:
    """
    A storm that is over, for the checks.

    :param ended_by_themselves: the schedulers and triggerers that did, with the end of what they wrote.
    :param airflow: an `AirflowInstance`, or an `Airflow2`.
    """

    stories: list[Story]
    ended_by_themselves: list[str]
    sandbox: Sandbox
    airflow: Any
    lake: Lake
    airflows_failures: list[str] = field(default_factory=list)
    """The tasks that Airflow has failed by itself: no error of ours is in the log of their last try."""
    leftovers: list[str] = field(default_factory=list)
    """The temporary files of killed tries, before the clean-up."""

    def __post_init__(self) -> None:
        self.runs = AirflowRuns(self.airflow)
        self.csv_of = cache(self._csv_of)

    def started(self, agent_id: str) -> list[int]:
        """Return the jobs of an agent that Airflow has started, one for each start that Agenty acted on."""
        return [job_id for job_id in self.sandbox.started_jobs if self.sandbox.job(job_id)["agent_id"] == agent_id]

    def needless_stops(self, job_id: int) -> int:
        """Count the stops of a job after Agenty had told, by its answer to one or to a poll, that it took one."""
        needless, is_taken, is_told = 0, False, False
        for request in self.sandbox.requests:
            if request.path == f"/jobs/{job_id}/stop":
                needless += is_told
                # Agenty answers a stop that it took with 400, too.
                is_told |= request.status in (200, 400)
                is_taken |= is_told or request.status is None
            elif request.path == f"/jobs/{job_id}" and request.status == 200:
                is_told |= is_taken
        # A stop without an answer need not have arrived. No more were needless than Agenty took beside the first.
        return min(needless, max(self.sandbox.stopped_jobs.count(job_id) - 1, 0))

    def completed(self, story: Story) -> list[int]:
        """Return the jobs of a run's agents that have completed, oldest first."""
        agents = story.planned.agent_ids
        jobs = [job for job in self.sandbox.jobs if job["agent_id"] in agents and job["status"] == "completed"]
        return sorted(job["job_id"] for job in jobs)

    def _csv_of(self, job_id: int) -> bytes:
        """Return the CSV of a job as the sandbox gives it."""
        with requests.Session() as session:
            session.trust_env = False
            headers = {"X-Agenty-ApiKey": self.sandbox.key}
            answer = session.get(f"{self.sandbox.url}/jobs/{job_id}/export?type=result", headers=headers, timeout=30)
            return session.get(answer.json()["downloadlink"], timeout=30).content


Check = Callable[[Aftermath], Iterator[str]]


def every_run_ends(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        if not story.has_ended:
            tasks = ", ".join(f"{label} {task.state}" for label, task in story.tasks.items())
            yield f"{story.name} has not ended: {tasks}"


def nothing_ends_by_itself(after: Aftermath) -> Iterator[str]:
    for told in after.ended_by_themselves:
        if "database is locked" not in told:
            yield told


def no_job_is_started_twice(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        kind = story.planned.kind
        for agent_id in story.planned.agent_ids:
            started = after.started(agent_id)
            as_expected = len(started) == kind.starts or (len(started) < kind.starts and story.state != SUCCESS)
            if not as_expected:
                yield f"{story.name} started {len(started)} jobs of {agent_id}, {kind.starts} expected: {started}"


def no_job_is_stopped_unasked(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        kind = story.planned.kind
        as_planned = all(_state(story, label) == state for label, state in kind.ends.items())
        started = [job_id for agent_id in story.planned.agent_ids for job_id in after.started(agent_id)]
        stopped = {job_id for job_id in after.sandbox.stopped_jobs if job_id in started}
        if len(stopped) > kind.stops or (as_planned and len(stopped) < kind.stops):
            yield f"{story.name} stopped {len(stopped)} jobs of its own, {kind.stops} expected: {sorted(stopped)}"
        for job_id in stopped:
            if needless := after.needless_stops(job_id):
                yield f"{story.name} stopped its job {job_id} {needless} times again, though Agenty had told that it is"
        is_stopped = story.others_job in after.sandbox.stopped_jobs
        if is_stopped and not kind.stops_others_job:
            yield f"{story.name} stopped job {story.others_job} of somebody else"
        if not is_stopped and kind.stops_others_job and as_planned:
            yield f"{story.name} did not stop job {story.others_job}"


def no_job_goes_on_alone(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        for agent_id in story.planned.agent_ids:
            for job_id in after.started(agent_id):
                job = after.sandbox.job(job_id)
                if job["completed_at"] is None and job["stopped_at"] is None and story.has_ended:
                    yield f"{story.name} has ended, and its job {job_id} goes on: it is {job['status']}"


def a_task_ends_as_its_job_does(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        for label, expected in story.planned.kind.ends.items():
            if (state := _state(story, label)) == expected:
                yield from _is_no_good_end(after, story, label)
            elif state == FAILED and not _ERROR_OF_OURS.search(_last_log(after, story, label)):
                after.airflows_failures.append(f"{story.name}, {label}")
                break
            elif story.has_ended:
                yield f"{story.name}, {label} is {state}, {expected} expected"
                break


def _is_no_good_end(after: Aftermath, story: Story, label: str) -> Iterator[str]:
    state, kind = _state(story, label), story.planned.kind
    if state == FAILED and kind.fails_with[label] not in _last_log(after, story, label):
        yield f"{story.name}, {label} has failed without {kind.fails_with[label]}"
    if state == SUCCESS and label.startswith(("start", "wait")):
        job_id = after.runs.returned_job(story.run, story.tasks[label])
        job = after.sandbox.job(job_id) if job_id else {}
        if job.get("agent_id") not in story.planned.agent_ids:
            yield f"{story.name}, {label} returned {job_id}, which is no job of its agents"
        elif job["status"] != "completed" and (label == "wait" or "wait" not in kind.ends):
            yield f"{story.name}, {label} is success, and job {job_id} is {job['status']}"


def a_landed_file_is_whole(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        if _state(story, "land") == SUCCESS:
            whole = {hashlib.sha256(after.csv_of(job_id)).hexdigest() for job_id in after.completed(story)[-1:]}
            if not story.path.exists() or digest_of(story.path) not in whole:
                yield f"{story.name} has landed, and {story.path.name} is not what the job's CSV is"


def nothing_partial_is_ever_visible(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        good = {_OLD_DIGEST} if story.planned.replaces else set()
        if story.planned.kind.ends.get("land") == SUCCESS:
            good |= {hashlib.sha256(after.csv_of(job_id)).hexdigest() for job_id in after.completed(story)}
        for digest, at in after.lake.seen.get(story.path.name, {}).items():
            if digest not in good:
                yield f"{story.name} showed something else than a whole file at {at:.1f} s: {story.path.name}"
        if (at := after.lake.vanished.get(story.path.name)) is not None:
            yield f"{story.path.name} of {story.name} was there, and was gone at {at:.1f} s"


def a_streamed_log_is_whole(after: Aftermath) -> Iterator[str]:
    for story in after.stories:
        label = story.planned.kind.streamed
        if label is None or _state(story, label) != SUCCESS:
            continue
        files = after.runs.log_files(story.run, story.tasks[label])
        logs = {path.name: path.read_text(errors="replace") for path in files}
        # A task hands its lines to its worker. One that is killed has not written the last of them.
        if any(_ends_in_the_copy(log) for name, log in logs.items() if ".trigger." not in name):
            continue
        copied = "\n".join(logs.values())
        lines = [line.split(" ", 2)[2] for line in after.sandbox.log(after.completed(story)[-1])]
        if missing := [line for line in lines if json.dumps(line)[1:-1] not in copied and line not in copied]:
            yield f"{story.name}, {label} has not copied {len(missing)} of {len(lines)} lines, such as {missing[0]!r}"


def _ends_in_the_copy(log: str) -> bool:
    return "[Agenty]" in log.rstrip().rsplit("\n", 1)[-1]


def no_secret_is_written(after: Aftermath) -> Iterator[str]:
    key = after.sandbox.key
    secret = re.compile(b"|".join([pattern_of(key), re.escape(key[-32:].encode()), SIGNATURE]))
    for path in after.airflow.home.rglob("*"):
        if path.is_file() and (found := secret.findall(path.read_bytes())):
            yield f"{path.relative_to(after.airflow.home)} holds a secret, {len(found)} times"


def no_temporary_file_is_left(after: Aftermath) -> Iterator[str]:
    after.leftovers = after.lake.temporary_files()
    for name in after.leftovers:
        path = after.lake.folder / name
        is_now = path.stat()
        # A landing leaves alone what was written to in the last ten minutes.
        os.utime(path, (is_now.st_atime - AN_HOUR, is_now.st_mtime - AN_HOUR))
    completed = [job["job_id"] for job in after.sandbox.jobs if job["status"] == "completed"]
    if completed:
        AgentyHook().download_export(completed[-1], str(after.lake.folder / "after_the_storm.csv"))
        for name in after.lake.temporary_files():
            yield f"{name} is left behind"


def _state(story: Story, label: str) -> str | None:
    task: TaskInstance | None = story.tasks.get(label)
    return task.state if task else None


def _last_log(after: Aftermath, story: Story, label: str) -> str:
    return after.runs.last_log(story.run, story.tasks[label])


CHECKS: tuple[tuple[str, Check], ...] = (
    ("every run ends", every_run_ends),
    ("no scheduler or triggerer ends by itself", nothing_ends_by_itself),
    ("no job is started twice", no_job_is_started_twice),
    ("no job is stopped that nobody asked to stop", no_job_is_stopped_unasked),
    ("no job goes on that nobody waits for", no_job_goes_on_alone),
    ("a task ends as its job does", a_task_ends_as_its_job_does),
    ("a file that has landed is whole", a_landed_file_is_whole),
    ("nothing partial is ever visible", nothing_partial_is_ever_visible),
    ("a streamed log is whole", a_streamed_log_is_whole),
    ("no secret is written", no_secret_is_written),
    ("no temporary file is left behind", no_temporary_file_is_left),
)
