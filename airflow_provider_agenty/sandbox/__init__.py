"""
An embedded Agenty: the Jobs API on loopback, for demos, tests, and users' own CI.

Run it with ``python -m airflow_provider_agenty.sandbox``, or within a test::

    with Sandbox(agents={"45l0wewqzk": [{"name": "A book", "price": "£51.77"}]}, seconds=0.2) as sandbox:
        ...
"""

from __future__ import annotations

try:
    from airflow_provider_agenty.sandbox.agent import Agent, Plan
    from airflow_provider_agenty.sandbox.content import Content
    from airflow_provider_agenty.sandbox.embedded import Sandbox
    from airflow_provider_agenty.sandbox.faults import Fault
    from airflow_provider_agenty.sandbox.front import RecordedRequest
except ImportError as error:
    if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn", "h11"):
        raise
    raise ImportError(
        f"The sandbox needs {error.name}: pip install 'airflow-provider-agenty[sandbox]'", name=error.name
    ) from error

__all__ = [
    "Agent",
    "Content",
    "Fault",
    "Plan",
    "RecordedRequest",
    "Sandbox",
]
