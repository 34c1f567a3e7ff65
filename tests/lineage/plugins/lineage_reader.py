"""Somebody who reads hook lineage: without one, Airflow collects nothing."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

try:
    from airflow.sdk.lineage import HookLineageReader
except ImportError:
    from airflow.lineage.hook import HookLineageReader


class LineagePlugin(AirflowPlugin):
    name = "lineage_reader"
    hook_lineage_readers = [HookLineageReader]  # noqa: RUF012 - as Airflow declares it
