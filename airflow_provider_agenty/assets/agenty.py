"""
The URIs of agents as assets, ``agenty://HOST/agents/AGENT_ID``, and what Airflow asks a provider for each scheme.

Airflow imports this with the first asset that any DAG file names, so it imports nothing heavy itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit

from airflow_provider_agenty.airflow_compat import asset_class

if TYPE_CHECKING:
    from openlineage.client.event_v2 import Dataset

SCHEME = "agenty"
_FOLDER = "/agents/"


def agent_uri(host: str, agent_id: str) -> str:
    """Return the URI of an agent; the API's host has its port where that is not the usual one."""
    return f"{SCHEME}://{host.lower()}{_FOLDER}{quote(agent_id, safe='')}"


def create_asset(*, host: str, agent_id: str, extra: dict[str, Any] | None = None) -> Any:
    """Return an agent as an asset: the factory of the scheme."""
    return asset_class()(uri=agent_uri(host, agent_id), extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Return the one form of a URI: the handler of the scheme.

    :param uri: The URI, without a login: Airflow has removed that.
    :raises ValueError: if it names no agent.
    """
    agent_id = uri.path.removeprefix(_FOLDER)
    if not uri.hostname or not agent_id or "/" in agent_id:
        raise ValueError(f"URI format {SCHEME}:// must name a host and an agent: {agent_uri('api.agenty.com', 'ID')}")
    return uri._replace(netloc=uri.netloc.rpartition("@")[2].lower())


def convert_asset_to_openlineage(asset: Any, lineage_context: Any) -> Dataset:  # noqa: ARG001 - what Airflow calls it with
    """Return an agent as OpenLineage names it; called by the OpenLineage provider only."""
    from openlineage.client.event_v2 import Dataset

    parts = urlsplit(asset.uri)
    return Dataset(namespace=f"{SCHEME}://{parts.netloc}", name=parts.path.lstrip("/"))
