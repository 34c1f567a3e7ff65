"""
A pytest plugin with the fixture ``agenty_sandbox``.

Switch it on in the top-level ``conftest.py``::

    pytest_plugins = ["airflow_provider_agenty.sandbox.pytest"]
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_agenty.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "agenty_sandbox(agents, **options): options of the Sandbox that the fixture agenty_sandbox gives"
    )


@pytest.fixture
def agenty_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """
    Give a running :class:`Sandbox` that the connection ``agenty_default`` leads to.

    Jobs take a tenth of a second, agents are the samples. Change that with
    ``@pytest.mark.agenty_sandbox(agents=…, seconds=…)``, any argument of :class:`Sandbox`; or with an indirect
    parameter: a dict of such arguments, or a folder of agents. A relative folder counts from the test's file. It serves
    one test; docs/testing.md says how several share one.
    """
    with Sandbox(**_options(request)) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", sandbox.connection_json)
        yield sandbox


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    options: dict[str, Any] = {"seconds": 0.1}
    for marker in reversed(list(request.node.iter_markers("agenty_sandbox"))):
        options |= inspect.signature(Sandbox).bind_partial(*marker.args, **marker.kwargs).arguments
    parameter = getattr(request, "param", None)
    if isinstance(parameter, dict):
        options |= parameter
    elif parameter is not None:
        options["agents"] = parameter
    if isinstance(options.get("agents"), str | Path):
        options["agents"] = request.path.parent / options["agents"]
    return options
