"""The hook without its calls: a connection of Airflow's, its form, its settings and its session."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import AirflowNotFoundException, BaseHook, mask_secret
from airflow_provider_agenty.api.deadline import time_limit
from airflow_provider_agenty.api.pages import read_job_page
from airflow_provider_agenty.api.request import Transport
from airflow_provider_agenty.connection import (
    CONNECTION_TYPE,
    DEFAULT_CONNECTION,
    HOOK_NAME,
    Settings,
)
from airflow_provider_agenty.exceptions import AgentyError, AgentyInputError

if TYPE_CHECKING:
    import requests


TEST_SECONDS = 60.0


class ConnectedHook(BaseHook):
    """A hook that reaches Agenty as its connection says."""

    conn_name_attr: ClassVar[str] = "agenty_conn_id"
    default_conn_name: ClassVar[str] = DEFAULT_CONNECTION
    conn_type: ClassVar[str] = CONNECTION_TYPE
    hook_name: ClassVar[str] = HOOK_NAME

    def __init__(self, agenty_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.agenty_conn_id = parameters.agenty_conn_id(agenty_conn_id)
        self._retries = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied and pickled, used or not, without the key: a copy reads the connection anew."""
        return type(self), (self.agenty_conn_id,), {"_retries": self._retries}

    # The connection

    @cached_property
    def settings(self) -> Settings:
        """
        The settings of the connection, checked.

        :raises AgentyInputError: if there is no such connection, or one of its fields can't be used.
        """
        name = parameters.shown(self.agenty_conn_id)  # It may be the API key, given by mistake.
        try:
            connection = self.get_connection(self.agenty_conn_id)
        except AirflowNotFoundException:
            connection = None
        if connection is None:
            variable = self.agenty_conn_id.upper() if self.agenty_conn_id in name else "…"
            raise AgentyInputError(
                # Airflow also says so of one that it can't parse.
                f"There is no connection {name} that Airflow can read. Create one of type Agenty "
                f"under Admin, Connections, or set AIRFLOW_CONN_{variable} in the environment of all of "
                "Airflow's processes, to a URI or to JSON whose extra is a JSON object, without quotes or an encoding "
                "around it."
            )
        key = (connection.password or "").strip()
        if key:
            mask_secret(key)
            mask_secret(quote(key, safe=""))  # as it stands in a URL, which urllib3 logs
        try:
            # Airflow takes an extra that is no JSON for an empty one.
            extra = json.loads(connection.extra or "{}") and connection.extra_dejson
        except Exception:
            extra = None
        if not isinstance(extra, dict):
            raise AgentyInputError(f"The extra of connection {name} is not a JSON object.")
        settings = Settings.from_fields(
            host=connection.host, port=connection.port, schema=connection.schema, password=key, extra=extra
        )
        return settings if self._retries else dataclasses.replace(settings, max_attempts=1)

    @property
    def base_url(self) -> str:
        """The address of the API, without a trailing slash."""
        return self.settings.base_url

    @cached_property
    def _transport(self) -> Transport:
        return Transport(self.settings)

    def get_conn(self) -> requests.Session:
        """
        Return an authenticated session, for calls that this hook has no method for.

        A URL may be a path below the base URL: ``hook.get_conn().get("/agents")``. Timeouts, proxies and TLS are
        those of the connection. Nothing is retried, and no redirect is followed. The errors are those of requests:
        with ``auth`` set to ``query`` their text holds the key, so do not log them.
        """
        return self._transport.session

    def without_retries(self) -> Self:
        """Return a copy that never retries, for callers with their own loop or deadline."""
        hook = type(self)(self.agenty_conn_id)
        hook._retries = False
        hook.settings = dataclasses.replace(self.settings, max_attempts=1)
        return hook

    def close(self) -> None:
        """Close the connections to Agenty. The hook can still be used: it opens new ones."""
        if "_transport" in self.__dict__:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def test_connection(self) -> tuple[bool, str]:
        """
        Say whether Agenty can be reached with this connection (``GET /jobs?limit=1``).

        It asks once, costs no credit, and takes a minute at most.

        :return: Whether it worked, and a sentence that says what is wrong if not.
        """
        try:
            with self.without_retries() as hook, time_limit(TEST_SECONDS):
                page = read_job_page(hook._transport, agent_id=None, limit=1, skips_odd_rows=True)
        except AgentyError as error:
            return False, str(error)
        jobs = "1 job" if page.total == 1 else f"{page.total} jobs"
        return True, f"Agenty answered at {self.base_url}: the account has {jobs}."
