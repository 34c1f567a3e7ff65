"""Apache Airflow provider for Agenty, the web-scraping platform."""

from __future__ import annotations

from typing import Any

__version__ = "1.0.0b1"


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow is told of this provider: its connection type, modules and links."""
    from airflow_provider_agenty.connection import connection_type_info

    def modules(kind: str) -> list[dict[str, Any]]:
        return [{"integration-name": "Agenty", "python-modules": [f"airflow_provider_agenty.{kind}.agenty"]}]

    agent_uris = [
        {
            "schemes": ["agenty"],
            "handler": "airflow_provider_agenty.assets.agenty.sanitize_uri",
            "factory": "airflow_provider_agenty.assets.agenty.create_asset",
            "to_openlineage_converter": "airflow_provider_agenty.assets.agenty.convert_asset_to_openlineage",
        }
    ]
    return {
        "package-name": "airflow-provider-agenty",
        "name": "Agenty",
        "description": "Starts, waits for and lands the jobs of `Agenty <https://agenty.com/>`__ web-scraping agents.",
        "integrations": [
            {"integration-name": "Agenty", "external-doc-url": "https://agenty.com/docs", "tags": ["service"]}
        ],
        "connection-types": [connection_type_info()],
        "hooks": modules("hooks"),
        "operators": modules("operators"),
        "sensors": modules("sensors"),
        "triggers": modules("triggers"),
        "asset-uris": agent_uris,
        "dataset-uris": agent_uris,  # what Airflow 2 reads
        "config": {
            "agenty": {
                "description": "Options of the Agenty provider.",
                "options": {
                    "start_memory": {
                        "description": (
                            "How a retry before Airflow 3.3 finds the job that an earlier try of its task started. "
                            "``auto``: by Agenty's list of jobs. ``variables``: an Airflow Variable for each task "
                            "instance, ``agenty_start_...``, remembers it until the task has ended. Airflow 3.3 and "
                            "later always use the task state store."
                        ),
                        "version_added": "1.0.0",
                        "type": "string",
                        "example": "variables",
                        "default": "auto",
                    }
                },
            }
        },
        "cli": ["airflow_provider_agenty.commands.airflow_commands"],  # Airflow 3.2 and later
        "extra-links": ["airflow_provider_agenty.links.agenty.AgentyAgentLink"],
    }
