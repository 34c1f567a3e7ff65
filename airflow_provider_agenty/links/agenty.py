"""The button that leads from a task to its agent in Agenty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_agenty.airflow_compat import BaseOperatorLink, read_xcom

if TYPE_CHECKING:
    from airflow_provider_agenty.airflow_compat import BaseOperator
    from airflow_provider_agenty.api.models import Job

WEB_URL = "https://cloud.agenty.com"
DEFAULT_TYPE = "scraping"


class AgentyAgentLink(BaseOperatorLink):
    """Leads to the agent's page in Agenty."""

    name = "Agenty agent"

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the address: on Airflow 3 the API server shows what is there."""
        return "_link_AgentyAgentLink"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address of the agent's page; empty as long as the job, and so its agent, is not known."""
        return read_xcom(ti_key, self.xcom_key) or ""

    @classmethod
    def xcoms(cls, job: Job) -> dict[str, str]:
        """Return what has to be in XCom for the button to work, from a job of the agent."""
        return {cls().xcom_key: agent_url(job)} if job.agent_id else {}


def agent_url(job: Job) -> str:
    """Return the address of the page of a job's agent."""
    kind, agent_id = (quote(part, safe="") for part in (job.type or DEFAULT_TYPE, job.agent_id or ""))
    return f"{WEB_URL}/agents/{kind}/{agent_id}"
