"""What a person sees of the provider in Airflow's own pages."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from airflow_provider_agenty.connection import EXTRA_FIELDS, LABELS, PLACEHOLDERS
from tests.browser.conftest import IS_AIRFLOW_2
from tests.features import needs_task_state_store

AGENT, OTHER_AGENT = "45l0wewqzk", "lmqdjwd972"
LINK = "Agenty agent"
PAGE = f"https://cloud.agenty.com/agents/scraping/{AGENT}"
WRONG_KEY = "not-the-key-of-anybody"
TIMEOUTS = {"connect": 3, "read": 20}

only_airflow_3 = pytest.mark.skipif(IS_AIRFLOW_2, reason="That page is Airflow 3's.")


def field(form, name):
    """Return where the value of an extra field is typed."""
    return form.locator(f"[name={'extra__agenty__' if IS_AIRFLOW_2 else 'element_'}{name}]")


def fill(pages, sandbox, connection_id, key):
    form = pages.open_connection_form()
    form.locator("[name=connection_id], [name=conn_id]").fill(connection_id)
    form.locator("[name=host]").fill(sandbox.url)
    # Airflow 3.3.2 tests only connections that have a port.
    form.locator("[name=port]").fill(str(urlsplit(sandbox.url).port))
    form.locator("[name=password]").fill(key)
    pages.show_extra_fields(form)
    field(form, "timeout").fill(json.dumps(TIMEOUTS))
    field(form, "verify").fill("true")
    field(form, "max_attempts").fill("3")
    pages.page.keyboard.press("Tab")
    return form


def test_the_form_shows_all_fields_with_labels_and_help(pages):
    form = pages.open_connection_form()
    assert all(label in form.inner_text() for label in LABELS.values())
    assert form.locator("[name=host]").get_attribute("placeholder") == PLACEHOLDERS["host"]
    assert form.locator("[name=password]").get_attribute("type") == "password"

    pages.show_extra_fields(form)
    shown = " ".join(form.inner_text().split())
    for extra_field in EXTRA_FIELDS:
        assert extra_field.label in shown
        assert " ".join(extra_field.description.split()) in shown
        if IS_AIRFLOW_2:
            assert field(form, extra_field.name).get_attribute("placeholder") == extra_field.placeholder


def test_a_wrong_key_is_told_in_words_and_not_shown(pages, sandbox):
    form = fill(pages, sandbox, "wrong_key", WRONG_KEY)
    if IS_AIRFLOW_2:
        told = pages.test_form()
    else:
        pages.save_connection(form)
        told = pages.test_connection("wrong_key")

    assert "Agenty does not know the API key" in told
    assert WRONG_KEY not in pages.page.inner_text("body")


def test_a_connection_that_was_made_in_the_form_tests_well_and_starts_jobs(pages, airflow, sandbox):
    form = fill(pages, sandbox, "from_form", sandbox.key)
    if IS_AIRFLOW_2:
        told = pages.test_form()
        pages.save_connection(form)
    else:
        pages.save_connection(form)
        told = pages.test_connection("from_form")
    assert f"Agenty answered at {sandbox.url}" in told

    before = sandbox.starts
    assert airflow.wait_for_run(airflow.trigger("uses_form")) == "success"
    assert sandbox.starts == before + 1


@only_airflow_3
def test_what_the_form_leaves_empty_is_stored_as_nothing(pages, airflow, sandbox):
    pages.save_connection(fill(pages, sandbox, "stored", sandbox.key))

    stored = airflow.call("GET", "connections/stored")
    assert json.loads(stored["extra"]) == {
        "auth": None,
        "timeout": TIMEOUTS,
        "proxies": None,
        "verify": "true",
        "max_attempts": 3,
    }


def test_an_object_is_shown_as_json_when_the_connection_is_edited(pages, airflow, sandbox):
    if IS_AIRFLOW_2:
        airflow.add_connection("edited", {**sandbox.connection, "extra": json.dumps({"timeout": TIMEOUTS})})
    else:
        pages.save_connection(fill(pages, sandbox, "edited", sandbox.key))

    form = pages.open_edit_form("edited")
    pages.show_extra_fields(form)
    assert json.loads(field(form, "timeout").input_value()) == TIMEOUTS


def end_all_jobs(sandbox):
    for job in sandbox.jobs:
        sandbox.set_status(job["job_id"], "completed")


@pytest.fixture(scope="module")
def waited(pages, airflow, sandbox):
    """Give a run that has ended, and where the links of its tasks led while they were deferred."""
    run = airflow.trigger("waits")
    waiting = [("wait", -1), ("mapped", 0), ("mapped", 1)]
    for task_id, map_index in waiting:
        airflow.wait_for_task(run, task_id, {"deferred"}, map_index=map_index)
    try:
        links = {
            (task_id, map_index): pages.link(run, task_id, LINK, map_index=map_index)
            for task_id, map_index in [("start", -1), *waiting]
        }
    finally:
        end_all_jobs(sandbox)
    assert airflow.wait_for_run(run) == "success"
    return run, links


def test_the_link_leads_to_the_agent_while_tasks_are_deferred(waited):
    _, links = waited
    assert links == {
        ("start", -1): PAGE,
        ("wait", -1): PAGE,
        ("mapped", 0): PAGE,
        ("mapped", 1): f"https://cloud.agenty.com/agents/changedetection/{OTHER_AGENT}",
    }


@pytest.mark.parametrize("task_id", ["start", "wait", "land"])
def test_the_link_leads_to_the_agent_when_the_run_is_over(pages, waited, task_id):
    run, _ = waited
    assert pages.link(run, task_id, LINK) == PAGE


def test_the_xcoms_show_the_job_and_the_file(pages, airflow, waited):
    run, _ = waited
    job_id = airflow.xcom(run, "start")

    for task_id, texts in (
        ("wait", ("return_value", "pages_credit", "completed", str(job_id))),
        ("land", ("return_value", "sha256", "rows", f"{AGENT}-{job_id}")),
    ):
        xcoms = pages.xcoms(run, task_id)
        for text in texts:
            xcoms.get_by_text(text).first.wait_for()


@needs_task_state_store
def test_the_task_state_shows_how_far_a_job_is_while_a_worker_waits(pages, airflow, sandbox):
    figures = {"pages_total": 120, "pages_processed": 37, "pages_failed": 2, "pages_credit": 35}
    sandbox.script(["submitted", {"status": "running", **figures}])
    run = airflow.trigger("waits_in_worker")
    try:
        progress = pages.task_state(run, "start").get_by_role("row", name="agenty_progress")
        progress.get_by_text("is running: 37/120 pages (31 %), 2 failed, 35 credits").wait_for()
        assert airflow.task_instance(run, "start").state == "running"
    finally:
        end_all_jobs(sandbox)
    assert airflow.wait_for_run(run) == "success"

    state, job_id = pages.task_state(run, "start"), airflow.xcom(run, "start")
    state.get_by_role("row", name="agenty_progress").get_by_text(f"Job {job_id} is completed").wait_for()
    state.get_by_role("row", name="agenty_job").get_by_text(str(job_id)).first.wait_for()
    assert sandbox.key not in pages.page.inner_text("body")


@only_airflow_3
def test_a_task_can_be_read_without_the_key(pages, airflow, sandbox, waited):
    run, _ = waited
    job_id = airflow.xcom(run, "start")

    pages.open_task(run, "wait")
    pages.page.get_by_text(f"Job {job_id} is completed").first.wait_for()
    log = pages.page.inner_text("body")
    pages.open_task(run, "wait", "rendered_templates")
    pages.page.get_by_text("agenty_conn_id").wait_for()
    rendered = pages.page.inner_text("body")

    assert log.count(f"INFO - Job {job_id} is completed") == 1
    assert str(job_id) in rendered
    assert "object at 0x" not in rendered
    assert sandbox.key not in log + rendered
