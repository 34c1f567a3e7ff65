"""The sandbox in this process."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_agenty.sandbox.account import Account
from airflow_provider_agenty.sandbox.agent import load_agents
from airflow_provider_agenty.sandbox.answers import QUIRKS
from airflow_provider_agenty.sandbox.api import JobsApi
from airflow_provider_agenty.sandbox.commands import Commands, control_application
from airflow_provider_agenty.sandbox.controls import Controls
from airflow_provider_agenty.sandbox.downloads import Downloads, Links
from airflow_provider_agenty.sandbox.faults import Faults
from airflow_provider_agenty.sandbox.front import API_PREFIX, FrontDoor
from airflow_provider_agenty.sandbox.options import ApiOptions, DownloadOptions
from airflow_provider_agenty.sandbox.recorder import Recorder
from airflow_provider_agenty.sandbox.server import LOOPBACK, Port, ServerThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType


class Sandbox(Controls):
    """
    An Agenty of one's own, on loopback, served from a thread of this process.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    :param agents: folder of CSV files, or mapping from agent id to CSV bytes, rows, a
        :class:`~airflow_provider_agenty.sandbox.content.Content`, an
        :class:`~airflow_provider_agenty.sandbox.agent.Agent`, or a mapping from collection number to one of
        the first three; ``None``: the sample agents.
    :param seconds: how long a job takes, from start to end, where it need not wait for a slot; default 5.
    :param parallel_jobs: how many jobs run at once in the account; the others are ``queued``. ``None``: no limit.
    :param page_cap: most rows or jobs on one page, whatever ``limit`` asks for; default 1000.
    :param manual: new jobs stay ``submitted`` until :meth:`set_status`.
    :param key: the API key; ``None``: a new one, not like any other.
    :param forbidden_key: a key that may do nothing (403); ``None``: a new one.
    :param stop_status: HTTP status of an answered stop; Agenty documents 400.
    :param quirks: deviations of the answers: names from
        :data:`~airflow_provider_agenty.sandbox.answers.QUIRKS`.
    :param link_seconds: how long a download link can be used; default 300.
    :param port: port of the API; 0: a free one.
    :param download_port: port of the downloads; 0: a free one.
    :param certfile: certificate for TLS on the API port.
    :param keyfile: its key.
    :param clock: gives the time in seconds since the epoch, for jobs and links.
    :raises ValueError: the agents or an option cannot be used.
    """

    def __init__(
        self,
        agents: object = None,
        *,
        seconds: float = 5.0,
        parallel_jobs: int | None = None,
        page_cap: int = 1000,
        manual: bool = False,
        key: str | None = None,
        forbidden_key: str | None = None,
        stop_status: int = 400,
        quirks: Collection[str] = (),
        link_seconds: float = 300.0,
        port: int = 0,
        download_port: int = 0,
        certfile: str | None = None,
        keyfile: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if seconds < 0:
            raise ValueError("seconds must not be negative.")
        if parallel_jobs is not None and parallel_jobs < 1:
            raise ValueError("parallel_jobs must be at least 1, or None for no limit.")
        if page_cap < 1:
            raise ValueError("page_cap must be at least 1.")
        for number in (port, download_port):
            if not 0 <= number <= 65535:
                raise ValueError(f"{number} is not a port: 0 to 65535.")
        for file in (certfile, keyfile):
            if file is not None and not Path(file).is_file():
                raise ValueError(f"There is no file {file}.")
        if unknown := set(quirks) - QUIRKS.keys():
            raise ValueError(f"Unknown quirks: {', '.join(sorted(unknown))}. There are: {', '.join(QUIRKS)}.")
        self.key = key or secrets.token_hex(16)
        self.forbidden_key = forbidden_key or secrets.token_hex(16)
        self._certfile = certfile
        options = ApiOptions(self.key, self.forbidden_key, page_cap, stop_status, frozenset(quirks))
        self._account = Account(
            load_agents(agents), seconds=seconds, parallel_jobs=parallel_jobs, manual=manual, clock=clock
        )
        self._recorder = Recorder()
        faults = Faults()
        download_options = DownloadOptions(link_seconds=link_seconds)
        self._links = Links(self._account, download_options)
        self._commands = Commands(self._account, self._recorder, faults, self._links, download_options, self._about)
        around = {"options": options, "account": self._account, "recorder": self._recorder, "faults": faults}
        api = FrontDoor(
            "api",
            JobsApi(self._account, options, self._links).application(),
            control=control_application(self._commands, self.key),
            **around,  # type: ignore[arg-type]
        )
        downloads = FrontDoor(
            "downloads",
            Downloads(self._account, self._links, download_options),
            **around,  # type: ignore[arg-type]
        )
        self._ports = [Port("api", api, port, certfile, keyfile), Port("downloads", downloads, download_port)]
        self._server: ServerThread | None = None

    def start(self) -> Self:
        """
        Start serving, and return itself once it can be connected to.

        :raises OSError: a port is taken.
        :raises RuntimeError: it has been started before.
        """
        if self._server is not None:
            raise RuntimeError("A sandbox can be started only once; make a new one.")
        self._server = ServerThread(self._ports, self._recorder)
        scheme = "http" if self._certfile is None else "https"
        self.url = f"{scheme}://{LOOPBACK}:{self._server.numbers[0]}{API_PREFIX}"
        self.download_url = self._links.base_url = f"http://{LOOPBACK}:{self._server.numbers[1]}"
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop serving: open connections end at once."""
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it; over TLS it trusts the sandbox's certificate."""
        if self._certfile is None:
            return super().connection
        return {**super().connection, "extra": {"verify": self._certfile}}

    @property
    def agent_ids(self) -> list[str]:
        """The ids of its agents."""
        return sorted(self._account.agents)

    def _about(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "download_url": self.download_url,
            "key": self.key,
            "forbidden_key": self.forbidden_key,
            "connection": self.connection,
            "agents": self.agent_ids,
        }

    def _command(self, name: str, /, **arguments: Any) -> Any:
        return self._commands.run(name, arguments)
