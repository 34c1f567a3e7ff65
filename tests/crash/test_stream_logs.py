"""A job's log in a task's, in a real Airflow whose triggerer dies."""

from __future__ import annotations


def test_a_killed_triggerer_repeats_no_line_that_it_had_noted(scenario, until):
    on = scenario
    on.begin("deferred_streaming")
    job_id = on.runs_its_job()
    for number in range(5):
        on.sandbox.add_log(job_id, f"Before {number}")
    on.reaches("deferred")
    until(lambda: _noted(on) == len(on.sandbox.log(job_id)), "the trigger notes nothing")
    on.airflow.triggerer.kill()
    for number in range(5):
        on.sandbox.add_log(job_id, f"After {number}")
    on.airflow.triggerer.start()
    on.is_asked_for(job_id)
    on.complete(job_id)
    on.reaches("success")

    log = on.log
    copied = {line: log.count(line) for line in (f"{when} {n}" for when in ("Before", "After") for n in range(5))}
    assert copied == dict.fromkeys(copied, 1), log
    assert log.count("completed successfully") == 1
    assert on.starts == 1


def _noted(on):
    stored = on.airflow.xcom(on.run, "start", "agenty_log")
    return stored and stored["offset"]
