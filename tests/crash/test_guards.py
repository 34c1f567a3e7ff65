"""The guards on a deferred wait, while the triggerer of a real Airflow is restarted."""

from __future__ import annotations

import time

import pytest

STALL_SECONDS = 20
"""What the DAG ``stall`` allows."""


@pytest.mark.parametrize("ends_after_the_stop", [False, True], ids=["restarted before", "killed after the stop"])
def test_a_budget_is_exceeded_while_the_triggerer_is_restarted(scenario, ends_after_the_stop):
    scenario.begin("budget")
    job_id = scenario.runs_its_job()
    scenario.reaches("deferred")
    if ends_after_the_stop:
        stopped = scenario.sandbox.fault("GET", f"/jobs/{job_id}/stop", hold="after")
        scenario.sandbox.set_status(job_id, "running", pages_credit=7)
        stopped.wait()
        scenario.airflow.triggerer.kill()
        stopped.release()
    else:
        scenario.airflow.triggerer.kill()
        scenario.sandbox.set_status(job_id, "running", pages_credit=7)
    scenario.airflow.triggerer.start()

    scenario.reaches("failed")
    scenario.stays()
    assert scenario.stops == 1
    assert scenario.job_ids == [job_id]
    assert scenario.airflow.task_instance(scenario.run, "start").try_number == 1
    assert f"Job {job_id} has cost 7 credits, more than max_credits=5 allows. It is stopped." in scenario.log


def test_a_stall_goes_on_across_a_restart_of_the_triggerer(scenario):
    scenario.begin("stall")
    job_id = scenario.has_started()
    scenario.sandbox.set_status(job_id, "running", pages_total=10)
    stalls_at = time.monotonic() + STALL_SECONDS
    scenario.is_asked_for(job_id)
    scenario.reaches("deferred")
    scenario.airflow.triggerer.kill()
    time.sleep(max(stalls_at - time.monotonic(), 0))
    scenario.airflow.triggerer.start()
    scenario.is_asked_for(job_id)
    seen_again = time.monotonic()

    scenario.reaches("failed")
    assert time.monotonic() - seen_again < STALL_SECONDS
    assert scenario.stops == 1
    assert f"longer than stall_timeout={STALL_SECONDS} allows" in scenario.log
