"""The Jobs API, version 2, and the parts beside it that a job needs: agents and inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_agenty.sandbox.account import Account
from airflow_provider_agenty.sandbox.agent import AGENT_ID, MAX_COLLECTIONS, Agent, Input
from airflow_provider_agenty.sandbox.content import text_bytes
from airflow_provider_agenty.sandbox.downloads import Downloads
from airflow_provider_agenty.sandbox.front import API_PREFIX, parse_json
from airflow_provider_agenty.sandbox.job import ACCOUNT_ID, Job

MAX_ROWS = 2500
MAX_JOBS = 1000
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
_FILE_NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")


def to_json(body: Any) -> bytes:
    """Return JSON in UTF-8; half of an emoji, which UTF-8 does not have, as the escape that it is."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class JobsApi:
    """The ASGI application of the API port."""

    def __init__(self, account: Account, downloads: Downloads, page_cap: int, stop_status: int) -> None:
        self._account = account
        self._downloads = downloads
        self._page_cap = page_cap
        self._stop_status = stop_status
        routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("POST", "/jobs/start", self._start),
            ("GET", "/jobs", self._list),
            ("GET", "/jobs/{job_id}", self._status),
            ("GET", "/jobs/{job_id}/stop", self._stop),
            ("GET", "/jobs/{job_id}/result", self._result),
            ("GET", "/jobs/{job_id}/logs", self._logs),
            ("GET", "/jobs/{job_id}/export", self._export),
            ("GET", "/agents", self._list_agents),
            ("GET", "/agents/{agent_id}", self._agent),
            ("GET", "/projects", self._list_projects),
            ("GET", "/projects/{project_id}", self._project),
            ("GET", "/inputs/{agent_id}", self._get_input),
            ("PUT", "/inputs/{agent_id}", self._set_input),
        ]
        self._app = Starlette(
            routes=[Route(API_PREFIX + path, endpoint, methods=[method]) for method, path, endpoint in routes],
            exception_handlers={HTTPException: _error},
        )
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, if it has the key."""
        request = scope["state"]["request"]
        app: ASGIApp = self._app
        if request.key_in not in ("header", "query"):
            app = _refusal(401, "API key is missing")
        elif not request.key_valid:
            app = _refusal(401, "Invalid API key")
        await app(scope, receive, send)

    async def _start(self, request: Request) -> Response:
        given = parse_json(request.state.body)
        if not isinstance(given, dict):
            raise HTTPException(400, "The body must be a JSON object")
        agent_id = given.get("agent_id")
        if not isinstance(agent_id, str) or not AGENT_ID.fullmatch(agent_id):
            raise HTTPException(400, "agent_id is required and must be an agent's id")
        self._find_agent(agent_id)
        job = self._account.start(agent_id)
        self._account.started_by_clients.append(job.job_id)
        return _json(job.shown_by_start())

    async def _stop(self, request: Request) -> Response:
        job = self._find_job(request)
        self._account.stop_requests.append(job.job_id)
        self._account.stop(job)
        return _json(job.shown_by_stop(self._account.now()), self._stop_status)

    async def _status(self, request: Request) -> Response:
        job = self._find_job(request)
        return _json(job.shown(self._account.show([job])))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        agent_id = query.get("agent_id")
        if agent_id is not None and not AGENT_ID.fullmatch(agent_id):
            raise HTTPException(400, "agent_id must be an agent's id")
        limit, offset = _paging(query, MAX_JOBS, MAX_JOBS)
        limit = min(limit, self._page_cap)
        jobs = self._sorted(self._account.jobs(agent_id), query)
        page = jobs[offset : offset + limit]
        now = self._account.show(page)
        return _page(len(jobs), limit, offset, [job.shown_in_list(now) for job in page])

    def _sorted(self, jobs: Sequence[Job], query: QueryParams) -> Sequence[Job]:
        order = query.get("order", "desc").lower()
        if order not in ("asc", "desc"):
            raise HTTPException(400, "order must be asc or desc")
        name = query.get("sort", "job_id")
        if name == "job_id":
            return jobs if order == "desc" else jobs[::-1]
        now = self._account.now()
        if jobs and name not in jobs[0].shown_in_list(now):
            raise HTTPException(400, f"Jobs cannot be sorted by {name}")

        def value(job: Job) -> tuple[bool, Any]:
            shown = job.shown_in_list(now).get(name)
            return shown is not None, shown or 0

        return sorted(jobs, key=value, reverse=order == "desc")

    async def _result(self, request: Request) -> Response:
        query = request.query_params
        job = self._find_job(request)
        limit, offset = _paging(query, 1000, MAX_ROWS)
        limit = min(limit, self._page_cap)
        collection, modified = _collection(query)
        content = self._account.result(job, collection, modified=modified)
        if content is None:
            raise HTTPException(404, f"Job {job.job_id} has no collection {collection}")
        return _page(content.row_count, limit, offset, content.rows(offset, offset + limit))

    async def _logs(self, request: Request) -> Response:
        job = self._find_job(request)
        limit, offset = _paging(request.query_params, MAX_ROWS, MAX_ROWS)
        lines = job.log(self._account.now())[offset : offset + limit]
        return PlainTextResponse(text_bytes(lines))

    async def _export(self, request: Request) -> Response:
        query = request.query_params
        job = self._find_job(request)
        kind = query.get("type", "result")
        if kind not in ("result", "logs"):
            raise HTTPException(400, "type must be result or logs")
        collection, modified = _collection(query)
        if kind == "result" and job.agent.content(collection, modified=modified) is None:
            raise HTTPException(404, f"Job {job.job_id} has no collection {collection}")
        filename = query.get("filename") or "export"
        if not _FILE_NAME.fullmatch(filename):
            raise HTTPException(400, "filename must be a plain file name")
        link = self._downloads.make_link(job.job_id, kind, collection, modified=modified, filename=filename)
        return _json({"downloadlink": link})

    async def _list_agents(self, request: Request) -> Response:
        return self._page_of(request, [_agent_object(agent) for agent in self._agents()])

    async def _agent(self, request: Request) -> Response:
        return _json(_agent_object(self._find_agent(request.path_params["agent_id"])))

    async def _list_projects(self, request: Request) -> Response:
        numbers = {agent.project_id for agent in self._agents() if agent.project_id is not None}
        return self._page_of(request, [_project_object(number) for number in sorted(numbers)])

    async def _project(self, request: Request) -> Response:
        text = request.path_params["project_id"]
        agents = [agent for agent in self._agents() if str(agent.project_id) == text]
        if not agents:
            raise HTTPException(404, f"Project {text} not found")
        shown = [_agent_object(agent) for agent in agents]
        rows = [{name: agent[name] for name in ("agent_id", "name", "description", "type")} for agent in shown]
        return _json({**_project_object(agents[0].project_id), "agents": rows})

    def _agents(self) -> list[Agent]:
        with self._account.lock:
            return list(self._account.agents.values())

    def _page_of(self, request: Request, items: list[Any]) -> Response:
        limit, offset = _paging(request.query_params, MAX_JOBS, MAX_JOBS)
        limit = min(limit, self._page_cap)
        return _page(len(items), limit, offset, items[offset : offset + limit])

    async def _get_input(self, request: Request) -> Response:
        given = asdict(self._find_agent(request.path_params["agent_id"]).input)
        return _json({name: value for name, value in given.items() if value is not None})

    async def _set_input(self, request: Request) -> Response:
        agent = self._find_agent(request.path_params["agent_id"])
        new = _input_from(parse_json(request.state.body))
        with self._account.lock:
            self._account.agents[agent.agent_id] = replace(agent, input=new)
        # The spelling is Agenty's.
        return _json({"status_code": 200, "message": "Input updated succesfully"})

    def _find_job(self, request: Request) -> Job:
        text = request.path_params["job_id"]
        if not _WHOLE_NUMBER.fullmatch(text):
            raise HTTPException(400, "job_id must be a number")
        job = self._account.job(int(text))
        if job is None:
            raise HTTPException(404, f"Job {text} not found")
        return job

    def _find_agent(self, agent_id: str) -> Agent:
        agent = self._account.agents.get(agent_id)
        if agent is None:
            raise HTTPException(404, f"Agent {agent_id} not found")
        return agent


def _page(total: int, limit: int, offset: int, result: list[Any]) -> Response:
    return _json({"total": total, "limit": limit, "offset": offset, "returned": len(result), "result": result})


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(body), status, media_type="application/json; charset=utf-8")


def _refusal(status: int, message: str) -> Response:
    body: dict[str, Any] = {"status_code": status, "message": message}
    if status == 400:
        body |= {"message": "Validation failed", "details": [{"error_message": message}]}
    return _json(body, status)


async def _error(_request: Request, error: Any) -> Response:
    return _refusal(error.status_code, error.detail)


def _agent_object(agent: Agent) -> dict[str, Any]:
    collections = [
        {"name": f"Collection {number}", "fields": [{"name": column} for column in content.columns]}
        for number, content in sorted(agent.collections.items())
    ]
    return {
        "agent_id": agent.agent_id,
        "account_id": ACCOUNT_ID,
        "project_id": agent.project_id,
        "name": agent.name or agent.agent_id,
        "description": None,
        "type": agent.type,
        "tags": list(agent.tags),
        "config": {"collections": collections},
        "is_public": 0,
        "scheduler": None,
    }


def _project_object(project_id: int | None) -> dict[str, Any]:
    return {"project_id": project_id, "name": f"Project {project_id}", "description": None}


def _input_from(given: Any) -> Input:
    if not isinstance(given, dict):
        raise HTTPException(400, "The body must be a JSON object")
    kind = given.get("type")
    if kind not in ("url", "manual", "list", "agent"):
        raise HTTPException(400, "type must be url, manual, list or agent")
    data = given.get("data") or []
    data = [data] if isinstance(data, str) else data
    if not isinstance(data, list) or not all(isinstance(each, str) and each.strip() for each in data):
        raise HTTPException(400, "data must be a list of URLs")
    if kind in ("url", "manual") and not data:
        raise HTTPException(400, f"data is required for an input of type {kind}")
    if kind in ("list", "agent") and not (isinstance(given.get("id"), str) and isinstance(given.get("field"), str)):
        raise HTTPException(400, f"id and field are required for an input of type {kind}")
    collection = given.get("collection")
    if collection is not None and (not isinstance(collection, int) or not 1 <= collection <= MAX_COLLECTIONS):
        raise HTTPException(400, "collection must be a number between 1 and 10")
    return Input(kind, tuple(data), given.get("id"), collection, given.get("field"))


def _number(query: QueryParams, name: str, default: int, *, least: int = 0, most: int = 10**18) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _WHOLE_NUMBER.fullmatch(text) or not least <= int(text) <= most:
        between = f" between {least} and {most}" if most < 10**18 else f" of at least {least}"
        raise HTTPException(400, f"{name} must be a number{between}")
    return int(text)


def _paging(query: QueryParams, default: int, most: int) -> tuple[int, int]:
    return _number(query, "limit", default, least=1, most=most), _number(query, "offset", 0)


def _collection(query: QueryParams) -> tuple[int, bool]:
    modified = query.get("modified", "1").lower()
    if modified not in ("0", "1", "true", "false"):
        raise HTTPException(400, "modified must be 0 or 1")
    return _number(query, "collection", 1, least=1, most=MAX_COLLECTIONS), modified in ("1", "true")
