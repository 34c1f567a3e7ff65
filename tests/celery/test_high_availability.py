"""
Jobs over an Airflow with two of what there can be two of, from which one thing after another is taken away.

Each job is started once, each file lands whole, each job fires, and each line of a log that is streamed arrives.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.airflow_harness.airflow_api import Run
from tests.airflow_harness.processes import Component
from tests.celery.account import SIZE, Slot
from tests.celery.losses import RUNS, WAITING, Cost, TriggererCost, WorkerCost, lose, middle_of
from tests.celery.stage import DAG_ID, SLOTS, Stage
from tests.secret_patterns import SIGNATURE, pattern_of


@dataclass
class Story:
    """What was taken away, what that cost, and how the runs ended."""

    costs: list[Cost]
    states: dict[str, str]
    events: Counter[int]
    lines: dict[Slot, Counter[str]]
    """How often each line of a streamed log is in the logs of its task."""

    elsewhere: dict[Slot, Counter[str]]
    """
    The lines that are in a triggerer's own output alone.

    Airflow 3.3.2 closes the log of a trigger when that ends. What the trigger wrote just before may go there then; a
    triggerer that hangs for a while makes that likely.
    """

    alive: Counter[str]
    workers_answer: bool
    tries: Counter[str]
    """How many tries each task had beyond its first one, all of its instances together."""

    @property
    def triggerer(self) -> TriggererCost:
        return next(cost for cost in self.costs if isinstance(cost, TriggererCost))

    @property
    def worker(self) -> WorkerCost:
        return next(cost for cost in self.costs if isinstance(cost, WorkerCost))


@pytest.fixture(scope="module")
def story(stage: Stage, slots: list[Slot]) -> Story:
    began = time.monotonic()
    costs = [lose(stage, run_id) for run_id in RUNS]
    states = stage.until(lambda: _states_once_ended(stage), "all runs end")
    stage.tell(f"{stage.sandbox.starts} jobs started, {len(stage.lake.landed())} files landed: {states}")
    jobs = {job["job_id"] for job in stage.sandbox.jobs}
    stage.until(lambda: jobs <= stage.events().keys() or None, "the watcher has fired for each job")
    alive = stage.until(lambda: _all_alive(stage), "two schedulers and two triggerers are alive")
    answer = stage.until(lambda: stage.workers_answer() or None, "both workers answer")
    tries: Counter[str] = Counter()
    for (_, task_id, _), (_, number) in stage.states().items():
        tries[task_id] += number - 1
    lines = {slot: _lines_of(stage, slot) for slot in slots if slot.kind != "deferred"}
    elsewhere = _lines_elsewhere(stage, lines)
    story = Story(costs, states, stage.events(), lines, elsewhere, alive, answer, tries)
    _tell_costs(stage, story, time.monotonic() - began)
    return story


def _states_once_ended(stage: Stage) -> dict[str, str] | None:
    states = stage.run_states()
    return states if states.keys() == set(RUNS) and set(states.values()) <= {"success", "failed"} else None


def _all_alive(stage: Stage) -> Counter[str] | None:
    alive = stage.alive()
    return alive if alive["SchedulerJob"] == alive["TriggererJob"] == 2 else None


def _lines_of(stage: Stage, slot: Slot) -> Counter[str]:
    """Return how often each line is in the logs of a task that starts a job, on all machines, of all its tries."""
    folder = f"dag_id={DAG_ID}/run_id={slot.run_id}/task_id={slot.kind}.start/map_index={slot.map_index}"
    lines: Counter[str] = Counter()
    for component in (*stage.airflow.triggerers, *stage.airflow.workers):
        for path in (stage.logs_of(component) / folder).glob("attempt=*.log*"):
            lines.update(_events_of(path))
    return lines


def _lines_elsewhere(stage: Stage, lines: dict[Slot, Counter[str]]) -> dict[Slot, Counter[str]]:
    outputs = "".join(triggerer.log_path.read_text(errors="replace") for triggerer in stage.airflow.triggerers)
    missing = {slot: _expected_lines(stage, slot) - found for slot, found in lines.items()}
    elsewhere = {slot: Counter({line for line in each if line in outputs}) for slot, each in missing.items()}
    return {slot: found for slot, found in elsewhere.items() if found}


def _events_of(path: Path) -> Iterator[str]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            yield str(json.loads(line).get("event"))
        except ValueError:
            # A process that is killed may leave half a line.
            continue


def _expected_lines(stage: Stage, slot: Slot) -> Counter[str]:
    lines = (re.fullmatch(r"(\S+) [A-Z]+ (.*)", line) for line in stage.sandbox.log(_job_id(stage, slot)))
    return Counter(f"[Agenty] {line[1]} {line[2]}" for line in lines if line)


def _job_id(stage: Stage, slot: Slot) -> int:
    job_id = stage.job_id_of(slot)
    assert job_id is not None, slot
    return job_id


def _repeated_lines(stage: Stage, story: Story) -> dict[Slot, int]:
    """Return how many lines too many there are, of each log that has some."""
    surplus = {slot: (lines - _expected_lines(stage, slot)) for slot, lines in story.lines.items()}
    counted = {
        slot: sum(count for line, count in lines.items() if line.startswith("[Agenty]"))
        for slot, lines in surplus.items()
    }
    return {slot: count for slot, count in counted.items() if count}


def _repeated_events(stage: Stage, story: Story, slots: list[Slot]) -> dict[Slot, int]:
    """Return how many events too many there are, of each job that has some."""
    counted = {slot: story.events[_job_id(stage, slot)] - 1 for slot in slots}
    return {slot: count for slot, count in counted.items() if count > 0}


def _was_under_way(cost: Cost, slot: Slot) -> bool:
    return (slot.run_id, f"{slot.kind}.start", slot.map_index) in cost.under_way


def _tell_costs(stage: Stage, story: Story, seconds: float) -> None:
    lines, events = _repeated_lines(stage, story), _repeated_events(stage, story, stage.slots)
    elsewhere = {slot: found.total() for slot, found in story.elsewhere.items()}
    stage.tell(
        "taken away | away, s | under way | went on, s | retries | lines again, elsewhere | events again | ended"
    )
    for cost in story.costs:
        again = [
            sum(count for slot, count in counted.items() if _was_under_way(cost, slot))
            for counted in (lines, elsewhere, events)
        ]
        figures = (f"{cost.away:.0f}", len(cost.under_way), f"{cost.seconds:.0f}", cost.retries, *again)
        stage.tell(" | ".join([cost.what, *map(str, figures), ", ".join(cost.ended) or "none"]))
    stage.tell(f"All in {seconds:.0f} s; tries beyond the first: {dict(story.tries)}")
    stage.tell(
        f"Lines again: {sum(lines.values())}, elsewhere: {sum(elsewhere.values())}; "
        f"events again: {sum(events.values())}; ended: {stage.ended}"
    )


def test_all_runs_succeed(story, stage):
    states = Counter((task_id, state) for (_, task_id, _), (state, _) in stage.states().items())

    assert story.states == dict.fromkeys(RUNS, "success")
    assert states == {
        (task_id, "success"): count
        for kind, agents in SIZE.agents.items()
        for task_id, count in (
            (f"agents_{kind}", len(RUNS)),
            (f"{kind}.start", agents * len(RUNS)),
            (f"{kind}.land", agents * len(RUNS)),
        )
    }


def test_each_loss_hit_tasks_under_way(story):
    for cost in story.costs:
        states = {state for state, _ in cost.under_way.values()}
        if not isinstance(cost, WorkerCost):
            assert "deferred" in states, cost
        if not isinstance(cost, TriggererCost):
            assert states & {"queued", "running"}, cost


def test_the_triggers_of_a_killed_triggerer_moved_to_the_other_one_whose_poller_took_them_in(story):
    cost = story.triggerer

    assert cost.triggers >= WAITING // 2
    assert len(cost.owners) == 1
    assert cost.owners.isdisjoint({cost.killed, None})
    # In two rounds; one request for each job would be as many in each of them.
    assert cost.asked_singly < WAITING


def test_the_tasks_of_a_killed_worker_were_done_again(story, stage):
    states = stage.states()
    again = {
        (lost.task_id, lost.map_index)
        for lost in story.worker.tasks
        if states[story.worker.run_id, lost.task_id, lost.map_index][1] > lost.try_number
    }
    held = middle_of(story.worker.run_id)
    # Others may have ended just before the worker did.
    assert (f"{held.kind}.start", held.map_index) in again
    assert any(task_id.endswith(".land") for task_id, _ in again)


def test_what_was_taken_away_is_back(story, stage):
    assert story.alive["SchedulerJob"] == story.alive["TriggererJob"] == 2
    assert story.workers_answer
    assert all(component.is_running for component in stage.airflow.components)


def test_each_job_was_started_once_and_none_was_stopped(story, stage, slots):
    posts = [request for request in stage.sandbox.requests if (request.method, request.path) == ("POST", "/jobs/start")]

    assert len(posts) == stage.sandbox.starts == len(slots) == len(RUNS) * SIZE.jobs
    assert sorted(job["agent_id"] for job in stage.sandbox.jobs) == sorted(slot.agent_id for slot in slots)
    assert {job["status"] for job in stage.sandbox.jobs} == {"completed"}
    assert stage.sandbox.stops == 0


def test_waiting_took_no_slot_of_a_worker(story):
    waiting = [task for task, (state, _) in story.triggerer.under_way.items() if state == "deferred"]

    assert SLOTS < WAITING <= len(waiting) <= SIZE.pool


def test_the_pool_bounded_the_jobs(story, stage):
    jobs = stage.sandbox.jobs
    changes = [(job["created_at"], 1) for job in jobs] + [(job["completed_at"], -1) for job in jobs]
    # To the second: of what happened in the same one, ends come first.
    at_once = itertools.accumulate(change for _, change in sorted(changes))

    # A start that waits for its retry has left the pool, while its job goes on.
    assert max(at_once) <= SIZE.pool + sum(story.tries[f"{kind}.start"] for kind in SIZE.agents)


def test_each_file_is_that_of_its_job(story, stage, slots):
    lake, middle = stage.lake, middle_of(story.worker.run_id)

    assert sorted(lake.landed()) == sorted(lake.expected)
    assert [key for key, content in lake.expected.items() if lake.read(key) != content] == []
    for slot in (slots[0], middle, slots[-1]):
        run = Run(DAG_ID, slot.run_id)
        job_id = stage.airflow.xcom(run, f"{slot.kind}.start", map_index=slot.map_index)
        landed = stage.airflow.xcom(run, f"{slot.kind}.land", map_index=slot.map_index)
        assert job_id == _job_id(stage, slot)
        assert (landed["job_id"], landed["path"]) == (job_id, f"s3://lake/{slot.key}")


def test_nobody_ever_saw_a_file_that_was_not_whole(story, stage, slots):
    assert stage.lake.wrong == []
    # Looked while files appeared, not only before and after.
    assert len(set(stage.lake.looks)) > len(slots) // 4


def test_the_watcher_fired_for_each_job_and_again_only_where_something_was_taken_away(story, stage, slots):
    assert story.events.keys() == {_job_id(stage, slot) for slot in slots}
    for slot in _repeated_events(stage, story, slots):
        assert any(_was_under_way(cost, slot) for cost in story.costs), slot


def test_each_line_of_a_streamed_log_is_there_and_again_only_where_something_was_taken_away(story, stage):
    found = {slot: lines + story.elsewhere.get(slot, Counter()) for slot, lines in story.lines.items()}
    missing = {slot: _expected_lines(stage, slot) - lines for slot, lines in found.items()}

    assert {slot: lines for slot, lines in missing.items() if lines} == {}
    for slot, count in _repeated_lines(stage, story).items():
        losses = sum(_was_under_way(cost, slot) for cost in story.costs)
        assert 0 < count <= losses * sum(_expected_lines(stage, slot).values()), slot


def test_the_workers_shared_no_folder_and_both_worked(story, stage, slots):
    password = urlsplit(stage.database.server.url).password.encode()
    home = stage.airflow.home
    first, second = (_task_logs(stage.logs_of(worker)) for worker in stage.airflow.workers)

    assert len(first) > len(slots) // 2
    assert len(second) > len(slots) // 2
    assert _task_logs(home / "logs") == set()
    # Nor did they know the database.
    assert password in (home / "airflow.cfg").read_bytes()
    for worker in stage.airflow.workers:
        written = [path for path in (home / "machines" / worker.name).rglob("*") if path.is_file()]
        assert [path for path in written if password in path.read_bytes()] == []


def test_what_is_left_of_a_worker_that_lived_is_no_file_of_a_job(story, stage):
    temporary = stage.airflow.home / "machines" / _survivor(story, stage).name / "tmp"

    assert list(temporary.rglob("*.agenty-part")) == []


def test_neither_key_nor_link_is_anywhere(story, stage):
    """In what Airflow has written, in its database, and in the object store."""
    written = {str(path): path.read_bytes() for path in stage.airflow.home.rglob("*") if path.is_file()}
    tables = {table: content.encode() for table, content in stage.dump().items()}
    objects = {key: key.encode() + stage.lake.metadata(key).encode() for key in stage.lake.landed()}
    key = stage.sandbox.key
    needles = rb"|".join([pattern_of(key), key.encode().hex().encode(), SIGNATURE])

    for table in ("xcom", "rendered_task_instance_fields", "task_state_store", "asset_event", "asset_state_store"):
        assert len(tables[table]) > 100, table
    places = written | tables | objects
    assert [place for place, content in places.items() if re.search(needles, content)] == []


def _survivor(story: Story, stage: Stage) -> Component:
    (survivor,) = (worker for worker in stage.airflow.workers if worker is not story.worker.worker)
    return survivor


def _task_logs(logs: Path) -> set[Path]:
    return {path.relative_to(logs) for path in logs.glob("**/attempt=*.log")}
