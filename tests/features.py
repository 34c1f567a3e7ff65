"""The features that the installed Airflow may lack. Tests of a missing one are skipped."""

from __future__ import annotations

from importlib import import_module

import pytest


def has(module: str, name: str | None = None) -> bool:
    """Whether this Airflow has a module, or a name in it."""
    try:
        found = import_module(module)
    except ImportError:
        return False
    return name is None or hasattr(found, name)


IS_AIRFLOW_3 = has("airflow.sdk")
IS_AIRFLOW_3_0 = import_module("airflow").__version__.startswith("3.0.")

needs_airflow_3 = pytest.mark.skipif(not IS_AIRFLOW_3, reason="needs Airflow 3's API server and task SDK")
needs_asset_watchers = pytest.mark.skipif(
    not has("airflow.sdk", "AssetWatcher"), reason="needs Airflow 3.0's asset watchers"
)
needs_task_state_store = pytest.mark.skipif(
    not has("airflow.sdk", "ResumableJobMixin"), reason="needs Airflow 3.3's task state store"
)
needs_shared_streams = pytest.mark.skipif(
    not has("airflow.triggers.shared_stream"), reason="needs Airflow 3.3's shared streams and asset state store"
)
