"""What an honest Agenty answers: bad answers are made of these, and the rest of a call gets them as they are."""

from __future__ import annotations

import json
from typing import Any

from tests.hostile.server import Reply, Request, Secrets

JOB = 3_689_994
AGENT = "45l0wewqzk"
SECRETS = Secrets(key='h0st/le+key="5f\\0"&c9%', signature="s1gn/ature+of=a&file", place="p4th-of-a-link")
ROWS = 3
CSV = b"title,price\r\n" + b"".join(b"Book %d,\xc2\xa35%d.77\r\n" % (n, n) for n in range(ROWS))


def job(job_id: int = JOB, **values: Any) -> dict[str, Any]:
    """Return a job with all documented fields."""
    return {
        "job_id": job_id,
        "account_id": 12,
        "agent_id": AGENT,
        "type": "scraping",
        "status": "completed",
        "priority": 1,
        "pages_total": 120,
        "pages_processed": 120,
        "pages_succeeded": 118,
        "pages_failed": 2,
        "pages_credit": 118,
        "created_at": "2022-01-10T11:32:18.2362494Z",
        "started_at": "2022-01-10T11:32:19Z",
        "completed_at": "2022-01-10T11:33:19Z",
        "stopped_at": None,
        "is_scheduled": False,
        "queue_time": "00:00:01",
        "run_duration": "00:01:00",
        "error": None,
        "ping_at": "2022-01-10T11:33:19Z",
        "assigned_worker_id": 2,
        "running_worker_id": 2,
    } | values


def agent() -> dict[str, Any]:
    """Return an agent, with what the documentation says of one."""
    return {
        "agent_id": AGENT,
        "account_id": 12,
        "project_id": 5,
        "name": "Books",
        "type": "scraping",
        "tags": ["daily", "prices"],
        "config": {"collections": [{"name": "Books", "fields": [{"name": "title"}, {"name": "# Stores"}]}]},
        "is_public": 0,
    }


def page(rows: list[Any], request: Request, total: int | None = None) -> Reply:
    """Return a page in the envelope that all lists have."""
    offset, limit = request.whole("offset", 0), request.whole("limit", 1000)
    shown = rows[offset : offset + limit]
    return Reply(
        {
            "total": len(rows) if total is None else total,
            "limit": limit,
            "offset": offset,
            "returned": len(shown),
            "result": shown,
        }
    )


def log_line(number: int) -> str:
    return f"2022-01-10T07:46:{number % 60:02}.145Z INFO Page {number}\n"


def export_path(name: str = "output1.csv") -> str:
    from urllib.parse import quote

    return f"/files/{SECRETS.place}/{name}?signature={quote(SECRETS.signature, safe='')}"


def answer(request: Request, port: int, **said: Any) -> Reply:
    """
    Return what Agenty would answer.

    :param port: Where the link of an export leads.
    :param said: What is said of the job, when it is asked for.
    """
    match request.route:
        case "start":
            return Reply(job(JOB + 1, status="submitted"))
        case "job":
            return Reply(job(int(request.path.rsplit("/", 1)[1]), **said))
        case "stop":
            return Reply(job(int(request.path.split("/")[2]), status="stopping"), status=400)
        case "jobs":
            if request.number:
                return page([job(JOB), job(JOB - 1)], request)
            # While they are watched, one completes, and one leaves the list and has to be asked for by itself.
            gone = job(JOB - 2, status="running", is_scheduled=True)
            return page([job(JOB, status="running"), job(JOB - 1), gone], request)
        case "result":
            return page([{"title": f"Book {n}", "price": f"£5{n}.77"} for n in range(ROWS)], request)
        case "logs":
            first, last = request.whole("offset", 0), min(request.whole("offset", 0) + 2500, 5)
            body = "".join(log_line(number) for number in range(first, last)).encode()
            return Reply(body, headers=(("Content-Type", "text/plain"),))
        case "export":
            return Reply({"downloadlink": f"http://127.0.0.1:{port}{export_path()}"})
        case "input":
            return Reply({"type": "manual", "data": ["https://example.com/"], "id": None, "collection": None})
        case "set_input":
            return Reply({"status_code": 200, "message": "Input updated succesfully"})
        case "agents":
            return page([agent(), agent() | {"agent_id": "lmqdjwd972", "name": "Quotes"}], request)
        case "agent":
            return Reply(agent())
        case "project":
            row = {name: agent()[name] for name in ("agent_id", "name", "type")}
            return Reply({"project_id": 5, "name": "Shops", "agents": [row]})
        case "download":
            return Reply(CSV, headers=(("Content-Type", "text/csv"), ("ETag", '"1"')))
    return Reply({"message": "Not found"}, status=404)


def connection(port: int, **extra: Any) -> str:
    """Return the Airflow connection that leads to a hostile server."""
    patience = {"timeout": {"connect": 1, "read": 0.5}, "max_attempts": 2}
    return json.dumps(
        {
            "conn_type": "agenty",
            "host": f"http://127.0.0.1:{port}/v2",
            "password": SECRETS.key,
            "extra": patience | extra,
        }
    )
