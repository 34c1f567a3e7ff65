"""Tasks that land files, with outlets of all kinds; the last one writes down what Airflow has collected."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

try:
    from airflow.sdk import DAG, Asset, AssetAlias, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.datasets import Dataset as Asset
    from airflow.datasets import DatasetAlias as AssetAlias
    from airflow.decorators import task

from airflow_provider_agenty.airflow_compat import asset_types
from airflow_provider_agenty.hooks.agenty import AgentyHook
from airflow_provider_agenty.operators.agenty import AgentyExportOperator, AgentyResultOperator

FOLDER = os.environ.get("AGENTY_LINEAGE_FOLDER", "")
JOB, EMPTY_JOB = os.environ.get("AGENTY_LINEAGE_JOBS", "1,2").split(",")
OUTLETS: list[Any] = [Asset("s3://lake/books.csv"), AssetAlias("of_this_run")]
if len(asset_types()) > 1:  # Airflow 3
    OUTLETS += [Asset(name="by_name"), Asset.ref(name="known_by_name"), Asset.ref(uri="file:///known_by_uri")]


@task
def calls_the_hook() -> dict[str, Any]:
    with AgentyHook() as hook:
        return hook.download_export(int(JOB), f"{FOLDER}/by hook #1.csv.gz").to_dict()


@task(trigger_rule="all_done")
def tell() -> None:
    try:
        from airflow.sdk.lineage import HookLineageReader
    except ImportError:
        from airflow.lineage.hook import HookLineageReader

    collected = HookLineageReader().retrieve_hook_lineage()

    def told(infos: Any) -> list[Any]:
        assets = [getattr(info, "asset", None) or info.dataset for info in infos]
        return [[asset.uri, asset.extra or {}] for asset in assets]

    lineage = {"inputs": told(collected.inputs), "outputs": told(collected.outputs)}
    Path(FOLDER, "lineage.json").write_text(json.dumps(lineage))


with DAG("lineage", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    landings = [
        AgentyExportOperator(task_id="export", job_id=JOB, path=f"{FOLDER}/export.csv", outlets=OUTLETS),
        AgentyResultOperator(
            task_id="result", job_id=JOB, path=f"{FOLDER}/result.jsonl", outlets=[Asset("file:///of_result")]
        ),
        AgentyExportOperator(
            task_id="skipped",
            job_id=EMPTY_JOB,
            path=f"{FOLDER}/skipped.csv",
            on_empty="skip",
            outlets=[Asset("file:///of_skipped")],
        ),
        AgentyExportOperator.partial(
            task_id="mapped", job_id=JOB, path=FOLDER + "/{{ dag.dag_id }}/", outlets=[Asset("file:///of_mapped")]
        ).expand(collection=[1, 2, 3]),
        AgentyResultOperator.partial(
            task_id="mapped_rows", job_id=JOB, format="csv", path=FOLDER + "/rows of {{ ti.map_index }}.csv"
        ).expand(collection=[1, 2, 3]),
        calls_the_hook(),
    ]
    landings >> tell()

if len(asset_types()) > 1:
    # References stand for assets that another DAG declares.
    with DAG("declares", schedule=[Asset(name="known_by_name"), Asset(uri="file:///known_by_uri", name="known")]):

        @task
        def nothing() -> None: ...

        nothing()
