"""The kinds of runs: how their jobs go, and what has to come of them whatever happens to Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from airflow_provider_agenty.sandbox import Sandbox

SUCCESS, FAILED, SKIPPED, UPSTREAM_FAILED = "success", "failed", "skipped", "upstream_failed"
LANDED = {"start": SUCCESS, "land": SUCCESS}
WAITED_AND_LANDED = {"start": SUCCESS, "wait": SUCCESS, "land": SUCCESS}

NONE, RUNNING, COMPLETED = "none", "running", "completed"
"""The job that somebody else has started before the run begins."""


@dataclass(frozen=True)
class Kind:
    """
    :param dag_id: its DAG.
    :param ends: how each task ends.
    :param first_job: gives the agent's first job its way; default: it completes.
    :param others_job: what somebody else has started of the agent.
    :param starts: how many jobs are started of each of its agents.
    :param stops: how many of these are stopped by a guard.
    :param stops_others_job: whether it is to stop the job of somebody else.
    :param filled: the share of rows that have a price.
    :param rows_before: how many times more rows the job before had; 0: there was none.
    :param streamed: the task that copies the job's log.
    """

    dag_id: str
    ends: Mapping[str, str]
    first_job: Callable[[Sandbox, str], None] = lambda sandbox, agent_id: None
    agents: int = 1
    others_job: str = NONE
    starts: int = 1
    stops: int = 0
    stops_others_job: bool = False
    filled: float = 1.0
    rows_before: int = 0
    streamed: str | None = None
    fails_with: Mapping[str, str] = field(default_factory=dict)


def _spends(sandbox: Sandbox, agent_id: str) -> None:
    """Spend a credit more each time that it is seen, and never end."""
    figures = ({"pages_total": 100, "pages_processed": n, "pages_credit": n} for n in range(12))
    sandbox.script([{"status": "running", **each} for each in figures], agent_id=agent_id)


def _stands_still(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.script([{"status": "running", "pages_total": 10, "pages_processed": 3}], agent_id=agent_id)


def _stays_queued(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.script(["queued"], agent_id=agent_id)


def _is_aborted(sandbox: Sandbox, agent_id: str) -> None:
    sandbox.plan(agent_id=agent_id, times=1, outcome="aborted", seconds=4)


_OVER_BUDGET = {"start": FAILED, "land": UPSTREAM_FAILED}

KINDS = (
    Kind("deferred", LANDED, streamed="start"),
    Kind("in_worker", LANDED, streamed="start"),
    Kind("with_urls", LANDED),
    Kind("apart_poked", WAITED_AND_LANDED),
    Kind("apart_rescheduled", WAITED_AND_LANDED),
    Kind("apart_deferred", WAITED_AND_LANDED, streamed="wait"),
    Kind("without_worker", WAITED_AND_LANDED),
    Kind("mapped", {"start[0]": SUCCESS, "start[1]": SUCCESS, "start[2]": SUCCESS}, agents=3),
    Kind("over_budget", _OVER_BUDGET, _spends, stops=1, fails_with={"start": "AgentyBudgetError"}),
    Kind("over_budget_in_worker", _OVER_BUDGET, _spends, stops=1, fails_with={"start": "AgentyBudgetError"}),
    Kind(
        "over_budget_apart",
        {"start": SUCCESS, "wait": FAILED, "land": UPSTREAM_FAILED},
        _spends,
        stops=1,
        fails_with={"wait": "AgentyBudgetError"},
    ),
    # Its retry starts another job.
    Kind("stalls", LANDED, _stands_still, starts=2, stops=1),
    Kind("stalls_in_worker", LANDED, _stands_still, starts=2, stops=1),
    Kind("queued_for_too_long", LANDED, _stays_queued, starts=2, stops=1),
    Kind("is_aborted", LANDED, _is_aborted, starts=2),
    Kind(
        "is_not_filled",
        {"start": SUCCESS, "land": FAILED},
        filled=0.5,
        fails_with={"land": "AgentyQualityError"},
    ),
    Kind(
        "has_too_few_rows",
        {"start": SUCCESS, "land": FAILED},
        rows_before=3,
        fails_with={"land": "AgentyQualityError"},
    ),
    Kind("joins", LANDED, others_job=RUNNING, starts=0),
    Kind("skips", {"start": SKIPPED, "land": SKIPPED}, others_job=RUNNING, starts=0),
    Kind(
        "refuses",
        _OVER_BUDGET,
        others_job=RUNNING,
        starts=0,
        fails_with={"start": "AgentyAlreadyRunningError"},
    ),
    Kind("stops_first", LANDED, others_job=RUNNING, stops_others_job=True),
    Kind("reuses", LANDED, others_job=COMPLETED, starts=0),
)
