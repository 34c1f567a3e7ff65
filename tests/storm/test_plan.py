"""The plan that follows from a seed."""

from __future__ import annotations

from typing import Any

from tests.storm.faults import TROUBLES
from tests.storm.kills import KILLS
from tests.storm.kinds import KINDS
from tests.storm.plan import Plan, plan_of


def in_full(plan: Plan) -> tuple[Any, ...]:
    faults = [(each.at, each.name, each.fault and repr(each.fault)) for each in plan.faults]
    return plan.runs, plan.kills, faults


def test_a_seed_gives_the_same_storm_each_time():
    assert in_full(plan_of(7, 60)) == in_full(plan_of(7, 60))
    assert in_full(plan_of(7, 60)) != in_full(plan_of(8, 60))


def test_an_hour_has_all_that_can_go_wrong():
    plan = plan_of(7, 3600)
    assert {each.kill for each in plan.kills} == set(KILLS)
    assert {each.name for each in plan.faults} == {each.name for each in TROUBLES}


def test_each_kind_of_run_has_its_turn():
    first = plan_of(7, 180).runs[: len(KINDS)]
    assert {run.kind.dag_id for run in first} == {kind.dag_id for kind in KINDS}
