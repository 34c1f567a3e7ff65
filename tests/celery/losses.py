"""
What is taken away from an Airflow at work, one after another, and what that costs.

Each loss has a run of its own, so that there is always something under way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.airflow_harness.airflow_api import Run, TaskInstance
from tests.airflow_harness.processes import Component
from tests.airflow_harness.services import Server
from tests.celery.account import IS_WHOLE, SIZE, Slot, slots_of
from tests.celery.stage import DAG_ID, UNDER_WAY, Stage, Task
from tests.sandbox_faults import SlowBody

LONG_SECONDS = 1800.0
"""How long a job takes that is to go on until it is told to complete."""

STREAMED_SECONDS = 60.0
"""How long a job takes whose log is copied by one triggerer, and then by the other one."""

WAITING = SIZE.pool - SIZE.agents["streamed"] - SIZE.agents["worker"]
"""How many jobs are waited for at once when a triggerer is killed."""


@dataclass
class Cost:
    """
    What a loss has cost.

    :param run_id: the run that was triggered for it.
    :param under_way: the tasks that were under way then, with their states and tries.
    :param away: for how many seconds it was away.
    :param seconds: from the loss until all tasks that were under way had succeeded.
    :param retries: how many further tries these took.
    :param ended: the components that ended by themselves meanwhile.
    """

    what: str
    run_id: str
    under_way: dict[Task, tuple[str, int]] = field(default_factory=dict)
    began: float = 0.0
    away: float = 0.0
    seconds: float = 0.0
    retries: int = 0
    ended: list[str] = field(default_factory=list)


@dataclass
class TriggererCost(Cost):
    """
    What the loss of a triggerer has cost.

    :param triggers: how many triggers it had.
    :param owners: who had those of them that were left when it came back.
    :param moved: how many seconds after it was killed they had an owner again that lives.
    :param killed: the id of its job in Airflow's database.
    :param asked_singly: how often the other triggerer asked for one of the jobs alone, in two rounds.
    """

    triggers: int = 0
    owners: set[int | None] = field(default_factory=set)
    moved: float = 0.0
    killed: int | None = None
    asked_singly: int = 0


@dataclass
class WorkerCost(Cost):
    """
    What the loss of a worker has cost.

    :param worker: which one it was.
    :param tasks: what ran in it.
    """

    worker: Component | None = None
    tasks: list[TaskInstance] = field(default_factory=list)


Course = Iterator[None]
"""
The course of a loss, in three parts.

What has to be there before the run begins; waiting for the moment, and taking something away; bringing it back.
"""


@dataclass(frozen=True)
class Loss:
    """Something to take away, how, for how many seconds, and what notes the cost."""

    what: str
    course: Callable[[Stage, Cost], Course]
    seconds: float
    cost: type[Cost] = Cost


def nothing(stage: Stage, cost: Cost) -> Course:
    yield
    _wait_until_busy(stage, cost)
    yield


def a_triggerer(stage: Stage, cost: TriggererCost) -> Course:
    """Kill the triggerer with most of the waits; the other one has to take them."""
    held = [slot for slot in slots_of(cost.run_id) if slot.kind == "deferred"][:WAITING]
    for slot in slots_of(cost.run_id):
        if slot.kind != "worker":
            seconds = LONG_SECONDS if slot in held else STREAMED_SECONDS
            stage.sandbox.plan(agent_id=slot.agent_id, seconds=seconds)
    yield

    stage.until(lambda: _are_deferred(stage, held) or None, f"{WAITING} tasks are deferred at once")
    triggers = stage.triggers()
    ((cost.killed, _),) = Counter(owner for owner, task in triggers.values() if task and owner).most_common(1)
    taken = {number for number, (owner, _) in triggers.items() if owner == cost.killed}
    cost.triggers = len(taken)
    assert cost.killed is not None
    triggerer = stage.triggerer_of(cost.killed)
    _note_what_is_under_way(stage, cost)
    triggerer.kill()
    watcher = "with" if any(triggers[number][1] is None for number in taken) else "without"
    stage.tell(f"killed {triggerer.name}: {len(taken)} of {len(triggers)} triggers, {watcher} the watcher's")
    cost.owners = stage.until(lambda: _new_owners(stage, cost, taken), "the triggers move to the other triggerer")
    cost.moved = time.monotonic() - cost.began
    stage.tell(f"they had moved after {cost.moved:.0f} s")
    yield

    cost.asked_singly = _asked_singly(stage, held)
    triggerer.start()
    for slot in held:
        stage.sandbox.set_status(stage.job_id_of(slot), "completed", pages_processed=12)


def a_scheduler(stage: Stage, cost: Cost) -> Course:
    yield
    _wait_until_busy(stage, cost)
    scheduler = stage.airflow.schedulers[0]
    scheduler.kill()
    yield
    scheduler.start()


def a_worker(stage: Stage, cost: WorkerCost) -> Course:
    """
    Kill a worker at the worst moment.

    Agenty has accepted a start that the worker does not know of yet, and a file is on its way.
    """
    held = middle_of(cost.run_id)
    accepted = stage.sandbox.fault("POST", "/jobs/start", agent_id=held.agent_id, hold="after")
    yield

    stage.until(lambda: accepted.holding or None, "Agenty accepts the start that is held")
    # A file takes most of a minute then, however slow this machine is.
    slow = [
        stage.sandbox.add_fault(
            SlowBody("GET", "/**", host="downloads", agent_id=slot.agent_id, bytes_per_second=1_000)
        )
        for slot in slots_of(cost.run_id)
        if not slot.is_large
    ]
    what = "a worker runs the start that is held and lands a file at the same time"
    cost.worker, cost.tasks = stage.until(lambda: _worker_that_starts_and_lands(stage, held), what)
    _note_what_is_under_way(stage, cost)
    cost.worker.kill()
    for fault in [accepted, *slow]:
        fault.remove()
    stage.tell(f"killed {cost.worker.name}, in which ran {', '.join(task.label for task in cost.tasks)}")
    yield
    cost.worker.start()


def stopped(server_of: Callable[[Stage], Server]) -> Callable[[Stage, Cost], Course]:
    """Return the course of a server that is stopped and started."""

    def course(stage: Stage, cost: Cost) -> Course:
        yield
        _wait_until_busy(stage, cost)
        server_of(stage).stop()
        yield
        server_of(stage).start()

    return course


def the_api_server(stage: Stage, cost: Cost) -> Course:
    yield
    _wait_until_busy(stage, cost)
    stage.airflow.api_server.stop()
    yield
    stage.airflow.api_server.start()
    stage.until(stage.airflow.execution_api_answers, "the API server answers")


# Redis keeps nothing: what was queued in it is gone.
LOSSES = {
    "nothing": Loss("nothing", nothing, 0),
    "triggerer": Loss("one of two triggerers, killed", a_triggerer, 5, TriggererCost),
    "scheduler": Loss("one of two schedulers, killed", a_scheduler, 30),
    "worker": Loss("one of two workers, killed", a_worker, 30, WorkerCost),
    "redis": Loss("Redis, with all that it held", stopped(lambda stage: stage.broker), 10),
    "postgresql": Loss("PostgreSQL, restarted", stopped(lambda stage: stage.database.server), 10),
    "api-server": Loss("the API server, restarted", the_api_server, 10),
    "nothing-more": Loss("nothing more", nothing, 0),
}

RUNS = [*LOSSES] if IS_WHOLE else ["triggerer", "worker", "redis"]
"""The runs, each of which has the id of what is taken away from it."""


def lose(stage: Stage, run_id: str) -> Cost:
    """Trigger a run, take something away from it, bring that back, and wait until all goes on."""
    loss = LOSSES[run_id]
    cost = loss.cost(loss.what, run_id)
    course = loss.course(stage, cost)
    next(course)
    stage.trigger(run_id)
    already_ended = len(stage.ended)
    next(course)
    stage.tell(f"{loss.what}, while {_summary(cost)}")
    stage.pause(loss.seconds)
    next(course, None)
    cost.away = time.monotonic() - cost.began
    stage.until(lambda: _has_gone_on(stage, cost) or None, f"all goes on after the loss of {loss.what}")
    cost.seconds = time.monotonic() - cost.began
    cost.ended = stage.ended[already_ended:]
    stage.tell(f"all went on after {cost.seconds:.0f} s, with {cost.retries} retries")
    return cost


def middle_of(run_id: str) -> Slot:
    """Return the mapped task whose start the worker runs that is killed."""
    return Slot(run_id, "deferred", SIZE.agents["deferred"] // 2)


def _wait_until_busy(stage: Stage, cost: Cost) -> None:
    """Wait until tasks of the run are deferred and others are queued or running, and note all that is under way."""

    def is_busy() -> bool:
        states = {state for (run_id, _, _), (state, _) in stage.states().items() if run_id == cost.run_id}
        return "deferred" in states and bool(states & {"queued", "running"})

    stage.until(lambda: is_busy() or None, "some tasks of the run are deferred, others run")
    _note_what_is_under_way(stage, cost)


def _note_what_is_under_way(stage: Stage, cost: Cost) -> None:
    cost.under_way = {task: each for task, each in stage.states().items() if each[0] in UNDER_WAY}
    cost.began = time.monotonic()


def _summary(cost: Cost) -> str:
    counted = Counter(state for state, _ in cost.under_way.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))


def _has_gone_on(stage: Stage, cost: Cost) -> bool:
    states = stage.states()
    now = {task: states.get(task, ("", 0)) for task in cost.under_way}
    failed = [task for task, (state, _) in now.items() if state in ("failed", "upstream_failed")]
    assert not failed, f"after the loss of {cost.what} there failed {failed}"
    cost.retries = sum(number - cost.under_way[task][1] for task, (_, number) in now.items())
    return all(state == "success" for state, _ in now.values())


def _are_deferred(stage: Stage, slots: list[Slot]) -> bool:
    states = stage.states()
    tasks = [(slot.run_id, f"{slot.kind}.start", slot.map_index) for slot in slots]
    return all(states.get(task, ("", 0))[0] == "deferred" for task in tasks)


def _new_owners(stage: Stage, cost: TriggererCost, taken: set[int]) -> set[int | None] | None:
    owners = {owner for number, (owner, _) in stage.triggers().items() if number in taken}
    return None if cost.killed in owners or None in owners else owners


def _asked_singly(stage: Stage, held: list[Slot]) -> int:
    """Return how often one of the jobs is asked for alone in the second and the third round of the poller."""
    paths = {f"/jobs/{stage.job_id_of(slot)}" for slot in held}
    marks: list[int] = []
    while len(marks) < 3:
        seen = len(stage.sandbox.requests)
        stage.until(lambda seen=seen: _list_is_read(stage, seen) or None, "the other triggerer reads the list of jobs")
        marks.append(len(stage.sandbox.requests))
    return sum(request.path in paths for request in stage.sandbox.requests[marks[0] : marks[2]])


def _list_is_read(stage: Stage, seen: int) -> bool:
    return any(request.path == "/jobs" for request in stage.sandbox.requests[seen:])


def _worker_that_starts_and_lands(stage: Stage, held: Slot) -> tuple[Component, list[TaskInstance]] | None:
    for worker in stage.airflow.workers:
        tasks = stage.airflow.tasks_in(worker, Run(DAG_ID, held.run_id))
        starts = any((task.task_id, task.map_index) == (f"{held.kind}.start", held.map_index) for task in tasks)
        if starts and any(task.task_id.endswith(".land") for task in tasks):
            return worker, tasks
    return None
