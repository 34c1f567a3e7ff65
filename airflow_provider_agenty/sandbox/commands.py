"""The commands behind :class:`Controls`, and their HTTP routes below ``/_sandbox``."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from airflow_provider_agenty.api.settings import is_loopback
from airflow_provider_agenty.sandbox import answers
from airflow_provider_agenty.sandbox.agent import Agent, Plan
from airflow_provider_agenty.sandbox.content import content_from
from airflow_provider_agenty.sandbox.faults import Fault, path_pattern
from airflow_provider_agenty.sandbox.front import CONTROL_PREFIX, KEY_HEADER, same_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from airflow_provider_agenty.sandbox.account import Account
    from airflow_provider_agenty.sandbox.downloads import Links
    from airflow_provider_agenty.sandbox.faults import Faults
    from airflow_provider_agenty.sandbox.job import Job
    from airflow_provider_agenty.sandbox.options import DownloadOptions
    from airflow_provider_agenty.sandbox.recorder import Recorder
    from airflow_provider_agenty.sandbox.wire import App


class Commands:
    """
    What can be done with the insides of a sandbox. Every public method is a command; all take JSON.

    :param about: what :meth:`info` tells: addresses and keys.
    """

    def __init__(
        self,
        account: Account,
        recorder: Recorder,
        faults: Faults,
        links: Links,
        options: DownloadOptions,
        about: Callable[[], dict[str, Any]],
    ) -> None:
        self._account = account
        self._recorder = recorder
        self._faults = faults
        self._links = links
        self._options = options
        self._about = about

    def run(self, name: str, arguments: dict[str, Any]) -> Any:
        """
        Run a command.

        :raises LookupError: there is no such command, job, agent or fault.
        :raises TypeError: an argument is missing or unknown.
        :raises ValueError: an argument's value cannot be used.
        """
        command = None if name.startswith("_") or name == "run" else getattr(type(self), name, None)
        if command is None:
            raise LookupError(f"There is no command {name}.")
        return command(self, **arguments)

    def info(self) -> dict[str, Any]:
        """Tell addresses and keys."""
        return self._about()

    def requests(self) -> list[dict[str, Any]]:
        """Tell what has come in."""
        return [request.to_dict() for request in self._recorder.requests]

    def count_requests(self, method: str, path: str) -> int:
        """Count requests to the API of a kind."""
        pattern = path_pattern(path)
        return sum(
            request.host == "api" and method in ("*", request.method) and pattern.fullmatch(request.path) is not None
            for request in self._recorder.requests
        )

    def connections(self) -> dict[str, int]:
        """Count TCP connections."""
        return self._recorder.connections

    def clear(self) -> None:
        """Forget what has come in, and switch all faults off."""
        self._faults.clear()
        self._recorder.clear()
        self._account.started_by_clients.clear()
        self._account.stop_requests.clear()

    def started_jobs(self) -> list[int]:
        """Tell which jobs clients have started."""
        return list(self._account.started_by_clients)

    def stopped_jobs(self) -> list[int]:
        """Tell which jobs clients have asked to stop."""
        return list(self._account.stop_requests)

    def jobs(self) -> list[dict[str, Any]]:
        """Show all jobs, oldest first."""
        now = self._account.now()
        return [answers.job_status(job, now) for job in reversed(self._account.jobs())]

    def job(self, job_id: int) -> dict[str, Any]:
        """Show a job."""
        return answers.job_status(self._find(job_id), self._account.now())

    def log(self, job_id: int) -> list[str]:
        """Show a job's log."""
        return self._find(job_id).log(self._account.now())

    def start_job(self, agent_id: str, is_scheduled: bool = False) -> int:
        """Start a job behind the client's back."""
        self._need_agent(agent_id)
        return self._account.start(agent_id, is_scheduled=is_scheduled).job_id

    def add_older_jobs(self, agent_id: str, count: int, status: str = "completed", apart: float = 60.0) -> list[int]:
        """Add finished jobs that are older than all others."""
        self._need_agent(agent_id)
        return [job.job_id for job in self._account.add_older(agent_id, count, status=status, apart=apart)]

    def set_status(self, job_id: int, status: str, **fields: Any) -> None:
        """Hold a job in a state."""
        answers.to_json(fields)  # What JSON can't say is refused here: each list of jobs would fail with it.
        self._account.put(self._find(job_id), status, fields)

    def script(self, statuses: list[Any], agent_id: str | None = None) -> None:
        """Give the next job a script."""
        steps = [{"status": each} if isinstance(each, str) else dict(each) for each in statuses]
        if not steps or not all(isinstance(step.get("status"), str) for step in steps):
            raise ValueError("A script is a list of states, or of objects with a status, and not empty.")
        answers.to_json(steps)
        self._account.script(agent_id, steps)

    def plan(self, agent_id: str | None = None, times: int | None = None, log: Any = (), **plan: Any) -> None:
        """Say how coming jobs go."""
        entries = [(level, message) for level, message in log]
        answers.to_json(plan)
        self._account.plan(agent_id, times, Plan(log=entries, **plan))

    def add_log(self, job_id: int, message: str, level: str = "INFO") -> None:
        """Write into a job's log."""
        self._account.add_log(self._find(job_id), message, level)

    def set_agent(self, agent_id: str, data: Any, collection: int = 1) -> None:
        """Add an agent or replace a collection."""
        content = content_from(data)
        agent = self._account.agents.get(agent_id) or Agent(agent_id, {})
        self._account.set_agent(agent.with_content(collection, content))

    def downloads(self, **options: Any) -> None:
        """Change how files are served."""
        self._options.set(**options)

    def expire_links(self) -> None:
        """Let all links expire."""
        self._links.expire_all()

    def fault(self, method: str, path: str, **fields: Any) -> int:
        """Switch a fault on."""
        return self._faults.add(Fault(method=method.upper(), path=path, **fields)).id

    def faults(self) -> list[dict[str, Any]]:
        """Tell how all faults stand."""
        return [fault.to_dict() for fault in self._faults.all()]

    def fault_state(self, fault_id: int) -> dict[str, Any]:
        """Tell how a fault stands."""
        return self._faults.get(fault_id).to_dict()

    def release(self, fault_id: int) -> None:
        """Let go of what a fault holds."""
        self._faults.get(fault_id).release()

    def remove_fault(self, fault_id: int) -> None:
        """Switch a fault off."""
        self._faults.remove(self._faults.get(fault_id))

    def _find(self, job_id: int) -> Job:
        job = self._account.job(job_id)
        if job is None:
            raise LookupError(f"The sandbox has no job {job_id}.")
        return job

    def _need_agent(self, agent_id: str) -> None:
        if agent_id not in self._account.agents:
            raise LookupError(f"The sandbox has no agent {agent_id}.")


def control_application(commands: Commands, key: str) -> App:
    """
    Return what answers below ``/_sandbox``: ``GET`` or ``POST /_sandbox/<command>``, arguments as a JSON object.

    :param commands: the commands.
    :param key: the API key, without which nothing is told or done.
    """

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            if refusal := _refusal(request, key):
                status, message = refusal
                return _answer({"error": "PermissionError", "message": message}, status)
            arguments = _arguments_from(body)
            # In a thread: a job's rows may take a while to read, and requests must go on meanwhile.
            result = await asyncio.to_thread(commands.run, request.path_params.get("name", "info"), arguments)
        except (LookupError, TypeError, ValueError) as error:
            problem = {"error": type(error).__name__, "message": str(error.args[0] if error.args else error)}
            return _answer(problem, 404 if isinstance(error, LookupError) else 400)
        return _answer({"result": result})

    methods = ["GET", "POST"]
    return Starlette(
        routes=[
            Route(CONTROL_PREFIX, endpoint, methods=methods),
            Route(CONTROL_PREFIX + "/{name}", endpoint, methods=methods),
        ]
    )


def _refusal(request: Request, key: str) -> tuple[int, str] | None:
    # The key alone would do. The rest is what a page in a browser of this machine can't send: it reaches loopback too,
    # under a name of its own that leads there, or without being asked for permission first.
    if not is_loopback(urlsplit("//" + request.headers.get("host", "")).hostname):
        return 403, "Sandboxes are controlled from their own machine, under a name such as 127.0.0.1 or localhost."
    if not same_key(request.headers.get(KEY_HEADER, ""), key):
        return 401, "Controlling the sandbox needs its key, in the header X-Agenty-ApiKey."
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        return 415, "The arguments must be sent as JSON, with Content-Type: application/json."
    return None


def _answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(answers.to_json(body), status, media_type="application/json")


def _arguments_from(body: bytes) -> dict[str, Any]:
    arguments = decode_arguments(json.loads(body)) if body else {}
    if not isinstance(arguments, dict):
        raise TypeError("Arguments must be a JSON object.")
    return arguments


def encode_arguments(value: Any) -> Any:
    """Make JSON of arguments; bytes become ``{"base64": "…"}``."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: encode_arguments(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [encode_arguments(each) for each in value]
    return value


def decode_arguments(value: Any) -> Any:
    """Undo :func:`encode_arguments`."""
    if isinstance(value, dict):
        if value.keys() == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
        return {key: decode_arguments(each) for key, each in value.items()}
    if isinstance(value, list):
        return [decode_arguments(each) for each in value]
    return value
