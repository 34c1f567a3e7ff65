"""A template is left alone when the DAG file is read, whatever it looks like, and checked when it is rendered."""

from __future__ import annotations

from datetime import datetime

import pytest

from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.operators.agenty import (
    AgentyExportOperator,
    AgentyResultOperator,
    AgentyStartJobOperator,
    AgentyStopJobOperator,
)
from airflow_provider_agenty.sensors.agenty import AgentyJobSensor

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
try:
    from airflow.sdk import literal
except ImportError:  # Airflow 3.0 has none, and 2 has it elsewhere
    literal = str

AGENT = "45l0wewqzk"
KINDS = {
    AgentyStartJobOperator: {"agent_id": AGENT},
    AgentyStopJobOperator: {"job_id": 7},
    AgentyExportOperator: {"job_id": 7, "path": "/data/books.csv"},
    AgentyResultOperator: {"job_id": 7, "path": "/data/books.jsonl"},
    AgentyJobSensor: {"job_id": 7},
}
FIELDS = [pytest.param(kind, field, id=f"{kind.__name__}-{field}") for kind in KINDS for field in kind.template_fields]


def dag(**parameters):
    return DAG("dag", schedule=None, start_date=datetime(2026, 1, 1), **parameters)


@pytest.fixture
def finished_job(agenty_sandbox):
    return agenty_sandbox.add_older_jobs(AGENT, 1)[0]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_templates_and_outputs_of_tasks_are_left_as_they_are(kind, field):
    with dag():
        start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
        for number, value in enumerate(
            ["{{ a / b }}", " {% if x %} {{ a }} {% endif %}", start.output, start.output["job_id"], literal("{{ x }}")]
        ):
            agent = {"agent_id": None} if field == "agent_name" else {}
            task = kind(**KINDS[kind] | agent | {"task_id": f"task_{number}", field: value})
            assert getattr(task, field) is value


def test_urls_may_hold_templates_and_outputs():
    with dag():
        start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
        for number, urls in enumerate((["https://a.example/", "{{ b }}"], [start.output], iter(["{{ c }}"]))):
            AgentyStartJobOperator(task_id=f"task_{number}", agent_id=AGENT, urls=urls)


@pytest.mark.parametrize(
    ("environment", "template"),
    [
        ({"variable_start_string": "[[", "variable_end_string": "]]"}, "[[ ti.xcom_pull(task_ids='start') ]]"),
        ({"block_start_string": "<%", "block_end_string": "%>"}, "<% if x %>7<% endif %>"),
        ({"line_statement_prefix": "#!"}, "#! if x\n7\n#! endif"),
    ],
)
def test_a_dag_may_have_other_signs_for_templates(environment, template):
    with dag(jinja_environment_kwargs=environment):
        AgentyJobSensor(task_id="task", job_id=template)

    with pytest.raises(AgentyInputError, match="job_id"):
        AgentyJobSensor(task_id="task", job_id=template)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(("kind", "name"), [(AgentyExportOperator, "books.csv"), (AgentyResultOperator, "books.jsonl")])
def test_a_path_object_may_hold_a_template(finished_job, make_context, tmp_path, kind, name, native):
    with dag(render_template_as_native_obj=native):
        task = kind(task_id="land", job_id=finished_job, path=tmp_path / "{{ name }}" / name)
    task.render_template_fields({**make_context(task), "name": "today"})

    assert task.execute(make_context(task))["path"] == str(tmp_path / "today" / name)
    assert (tmp_path / "today" / name).exists()


def test_a_path_may_be_an_object_storage_path(finished_job, make_context, tmp_path):
    try:
        from airflow.sdk import ObjectStoragePath
    except ImportError:
        from airflow.io.path import ObjectStoragePath
    path = ObjectStoragePath(f"file://{tmp_path}/books.csv")
    task = AgentyExportOperator(task_id="land", job_id=finished_job, path=path)

    assert task.execute(make_context(task))["rows"] == 60
    assert (tmp_path / "books.csv").exists()


@pytest.mark.parametrize("native", [True, False])
def test_text_that_native_rendering_makes_a_number_of_is_text_again(
    agenty_sandbox, finished_job, make_context, tmp_path, native
):
    with dag(render_template_as_native_obj=native):
        task = AgentyExportOperator(
            task_id="land",
            job_id="{{ job }}",
            path="{{ folder }}/books.csv",
            filename="{{ ds_nodash }}",
            collection="{{ 1 }}",
        )
    task.render_template_fields(
        {**make_context(task), "ds_nodash": "20260101", "job": finished_job, "folder": tmp_path}
    )
    task.execute(make_context(task))

    [asked] = [each for each in agenty_sandbox.requests if each.path.endswith("/export")]
    assert asked.query["filename"] == "20260101"


@pytest.mark.agenty_sandbox(agents={"1234567890": b"name\r\nx\r\n"})
@pytest.mark.parametrize("agent", ["1234567890", 1234567890, " 1234567890\n"])
def test_an_agent_id_of_digits_is_started_and_stored_as_text(agenty_sandbox, make_context, state_store, agent):
    with dag(render_template_as_native_obj=True):
        task = AgentyStartJobOperator(task_id="start", agent_id="{{ agent }}")
    task.render_template_fields({**make_context(task), "agent": agent})
    job_id = task.execute(make_context(task, store=state_store))

    assert [job_id] == agenty_sandbox.started_jobs
    assert all(value["agent_id"] == "1234567890" for value in state_store.values.values())


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("field", ["filename", "storage_conn_id", "path"])
def test_a_template_that_comes_to_nothing_is_not_a_default(
    agenty_sandbox, finished_job, make_context, monkeypatch, tmp_path, field, native
):
    monkeypatch.chdir(tmp_path)
    with dag(render_template_as_native_obj=native):
        task = AgentyExportOperator(
            **{"task_id": "land", "job_id": finished_job, "path": "books.csv", field: "{{ nothing }}"}
        )
    task.render_template_fields({**make_context(task), "nothing": None})

    with pytest.raises(AgentyInputError, match=f"^{field} .*None"):
        task.execute(make_context(task))
    assert agenty_sandbox.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_subclass_may_have_more_templates(agenty_sandbox, finished_job, make_context, tmp_path):
    class Export(AgentyExportOperator):
        template_fields = (*AgentyExportOperator.template_fields, "spool_folder", "urls", "note")

        def __init__(self, *, note, **parameters):
            super().__init__(**parameters)
            self.note = self.urls = note

    with dag():
        task = Export(
            task_id="land",
            job_id=finished_job,
            path=tmp_path / "books.csv",
            spool_folder="{{ x }}",
            note="{{ x }}",
        )
    task.render_template_fields({**make_context(task), "x": str(tmp_path)})

    assert task.execute(make_context(task))["rows"] == 60
    assert task.note == str(tmp_path)


@pytest.mark.agenty_sandbox(manual=True)
def test_a_wait_without_a_worker_has_nothing_but_templates(agenty_sandbox):
    with dag():
        start = AgentyStartJobOperator(task_id="start", agent_id=AGENT)
        task = AgentyJobSensor(
            task_id="wait",
            job_id=start.output,
            agenty_conn_id=start.output["connection"],
            deferrable=True,
            start_from_trigger=True,
        )

    if task.start_from_trigger:
        arguments = task.start_trigger_args.trigger_kwargs
        assert all(isinstance(value, str | int | float | None) for value in arguments.values())
