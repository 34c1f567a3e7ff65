"""
The bad answers, by kind.

A bad answer is made of the honest one to the same request. To add one, put a line into the table of its kind; a
function with :func:`kind` above it is a new table. The tests try each at one of the routes that it is meant for, in a
call that comes by there.
"""

from __future__ import annotations

import codecs
import functools
import gzip
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from tests.hostile import honest
from tests.hostile.honest import JOB, SECRETS
from tests.hostile.promise import FORGED
from tests.hostile.server import ROUTES, Reply, Request, dripped


@dataclass(frozen=True)
class Situation:
    """
    What a bad answer is made of.

    :param reply: The honest answer.
    :param port: Where this server is.
    :param elsewhere: The port of another server, to which no key may come.
    """

    request: Request
    reply: Reply
    port: int
    elsewhere: int

    @property
    def page(self) -> dict[str, Any]:
        """The body, for those who change it."""
        return json.loads(self.reply.encoded())


Make = Callable[[Situation], Reply]


@dataclass(frozen=True)
class BadAnswer:
    """
    One bad answer.

    :param name: What it is called in a failure.
    :param routes: Where it is given.
    :param make: Makes it.
    :param has_to_fail: Whether a call that returns a value all the same has broken its promise.
    :param is_slow: Whether the calls take their time, so that many of them are made at once.
    :param is_costly: Whether a kind of such answers is tried in one call each, in short runs.
    :param is_known: Whether it was seen to do harm once: then it comes first.
    :param calls: The calls that it is meant for; none: all.
    """

    name: str
    routes: tuple[str, ...]
    make: Make
    has_to_fail: bool = False
    is_slow: bool = False
    is_costly: bool = False
    is_known: bool = False
    calls: tuple[str, ...] = ()


ALL = tuple(name for name, _, _ in ROUTES)
API = tuple(name for name in ALL if name != "download")
WITH_JOBS = ("start", "stop", "job", "jobs")
WITH_JSON = tuple(name for name in API if name != "logs")
LISTS = ("jobs", "result")

KINDS: dict[str, list[BadAnswer]] = {}
"""The tables, by their names."""

Table = Callable[[], Iterator[BadAnswer]]


def kind(name: str, **traits: bool) -> Callable[[Table], Table]:
    """
    Add a table to the kinds.

    :param traits: What all bad answers in it have in common.
    """

    def add(table: Table) -> Table:
        KINDS[name] = [replace(bad, **traits) for bad in table()]
        return table

    return add


# How bad answers are made


def always(reply: Reply) -> Make:
    return lambda _at: reply


def with_headers(**headers: str | bytes) -> Make:
    return lambda at: at.reply.with_headers(**headers)


def with_job(**values: Any) -> Make:
    """Change the job, or the jobs, in an answer."""

    def make(at: Situation) -> Reply:
        body = at.page
        if at.request.route == "jobs":
            body["result"] = [each | values for each in body["result"]]
        return replace(at.reply, body=body | (values if at.request.route != "jobs" else {}))

    return make


def with_fields(**values: Any) -> Make:
    return lambda at: replace(at.reply, body=at.page | values)


def raw_job(text: str) -> Make:
    """Answer with a job in which some JSON stands as it is, where ``json.dumps`` would write it otherwise."""

    def make(at: Situation) -> Reply:
        body = at.page
        job = body["result"][0] if at.request.route == "jobs" else body
        written = json.dumps(job)[:-1] + f", {text}}}"
        if at.request.route == "jobs":
            written = f'{{"total": 1, "result": [{written}]}}'
        return replace(at.reply, body=written.encode())

    return make


def pieces(*parts: bytes | Iterator[bytes]) -> Reply:
    return Reply(raw=itertools.chain.from_iterable([part] if isinstance(part, bytes) else part for part in parts))


HEAD = b"HTTP/1.1 200 x\r\nContent-Type: application/json\r\n"


# A: secrets

NOT_SHOWN = {
    "the key": SECRETS.key,
    "the key, quoted": quote(SECRETS.key, safe=""),
    "the key, quoted otherwise": quote(SECRETS.key),
    "a link": f"could not write https://files.example/Job_7/a.csv?signature={quote(SECRETS.signature, safe='')}",
    "a link with more in its query": f"//files.example/a.csv?x&expires=1&signature={SECRETS.signature}.",
    "a text that is cut in the key": "x" * 193 + SECRETS.key + "y" * 790 + SECRETS.key + "z" * 2990 + SECRETS.key,
}


def told(name: str, text: str) -> Iterator[BadAnswer]:
    """Yield an answer for each place at which Agenty tells us something in words."""
    yield BadAnswer(f"{name} as error", WITH_JOBS, with_job(status="aborted", error=text), is_known=True)
    yield BadAnswer(f"{name} as error of a completed job", WITH_JOBS, with_job(error=text))
    yield BadAnswer(f"{name} as type", WITH_JOBS, with_job(type=text))
    yield BadAnswer(f"{name} as agent_id", WITH_JOBS, with_job(agent_id=text))
    yield BadAnswer(f"{name} as status", WITH_JOBS, with_job(status=text))
    yield BadAnswer(f"{name} as created_at", WITH_JOBS, with_job(created_at=text, queue_time=text))
    for field in ("message", "error_message", "error"):
        yield BadAnswer(f"{name} as {field} of a 422", API, always(Reply({field: text}, status=422)))
    for status in (401, 404, 503):
        yield BadAnswer(f"{name} as message of a {status}", API, always(Reply({"message": text}, status=status)))
    details = {"details": {"a": {"error_message": text}, "b": {"message": text}, "c": text}}
    yield BadAnswer(f"{name} in details", API, always(Reply(details, status=400)))
    yield BadAnswer(f"{name} in many details", API, always(Reply({"details": [text] * 50}, status=400)))
    body = text.encode("utf-8", "surrogatepass")
    yield BadAnswer(f"{name} as a 400", API, always(Reply(body, status=400)))
    yield BadAnswer(f"{name} as all there is", API, always(Reply(body)))
    yield BadAnswer(f"{name} in an object that is none of ours", WITH_JSON, always(Reply({text: text})))
    yield BadAnswer(f"{name} as a link", ("export",), with_fields(downloadlink=text))
    yield BadAnswer(f"{name} as an input", ("input",), with_fields(type=text, data=[text], id=text, field=text))
    yield BadAnswer(f"{name} as an answer to an input", ("set_input",), with_fields(status_code=text, message=text))
    yield BadAnswer(f"{name} as a row", ("result",), with_fields(result=[text], total=1))
    yield BadAnswer(f"{name} as a page", ("download",), always(Reply(b"<html>" + body, status=403)))
    yield BadAnswer(f"{name} as the file", ("download",), always(Reply(b"<!doctype html>" + body)))


@kind("an honest answer")
def _honest() -> Iterator[BadAnswer]:
    yield BadAnswer("nothing bad", ALL, lambda at: at.reply)


@kind("secrets")
def _secrets() -> Iterator[BadAnswer]:
    for name, text in NOT_SHOWN.items():
        yield from told(name, text)
        for header in ("Retry-After", "Content-Type", "Content-Encoding", "Location", "Content-Range", "ETag", "Date"):
            for status in (200, 302, 429):
                reply = Reply(b"no", status=status, headers=((header, text),))
                yield BadAnswer(f"{name} as {header} of a {status}", ALL, always(reply))
        logged = f"2022-01-10T07:46:08.145Z ERROR {text}\n".encode()
        yield BadAnswer(
            f"{name} in a log", ("logs",), lambda at, body=logged: Reply(b"" if at.request.number else body)
        )


@kind("redirects")
def _redirects() -> Iterator[BadAnswer]:
    places = (
        "////{other}/steal", "http:////{other}/steal", "//{other}/steal", "///{other}/steal", "/////{other}/steal",
        "\\\\{other}\\steal", "/\\{other}/steal", "/\\/{other}/steal", "http://{other}/steal", "http:{other}/steal",
        "http:/{other}/steal", "http:\\\\{other}/steal", "HTTP://{other}/", "http://{own}@{other}/steal",
        "http://{other}#@{own}/", "http://{other}?@{own}/", "http://{other}\\@{own}/", "//{own}@{other}/",
        "////{own}@{other}/", "/%2f/{other}/steal", "/..//{other}/", ".//{other}/steal", "?next=//{other}",
        "\t//{other}/steal", " ////{other}/steal", "/\t/{other}/steal", "////{other}", "////{other}/v2/jobs?apikey=",
        "https://{other}/steal", "ftp://{other}/", "file:///etc/passwd", "javascript:alert(1)", "http://[::1",
        "http://",
        "http://127.0.0.1:99999/", "http://127.0.0.1:/", "http://\x7f/", "", "/v2/jobs", "/v2/a" + "a" * 60_000,
        "http://" + "a" * 300 + "/", "http://a..b/", "http://xn--/", "/\xff", "\xff\xfe", "/\u20ac", "%", "/%zz", "*",
    )  # fmt: skip
    for place, status in zip(places, itertools.cycle((302, 307, 301, 308, 303)), strict=False):

        def make(at: Situation, place: str = place, status: int = status) -> Reply:
            other, own = f"127.0.0.1:{at.elsewhere}", f"127.0.0.1:{at.port}"
            target = place.replace("{other}", other).replace("{own}", own)
            return Reply(b"", status=status, headers=(("Location", target.encode("utf-8", "replace")),))

        def make_latin(at: Situation, make: Make = make) -> Reply:
            reply = make(at)
            location = bytes(reply.headers[0][1]).decode().encode("latin-1", "replace")
            return replace(reply, headers=(("Location", location),))

        yield BadAnswer(f"{status} to {place[:40]!a}", ALL, make, is_known=place.startswith("////{other}"))
        if not place.isascii():
            yield BadAnswer(f"{status} to {place[:40]!a} in Latin-1", ALL, make_latin, is_known=True)
    yield BadAnswer("300 with two places", API, lambda at: Reply(b"", 300, (("Location", "/a"), ("Location", "/b"))))


# B: what is told crosses Airflow's processes

ODD_TEXTS = {
    "half an emoji": "Could not read: \ud83d",
    "the other half": "\ude00 is what it says",
    "an escape sequence": "\x1b[2J\x1b]0;owned\x07 gone",
    "control characters": "a\x00b\x08c\x7fd\x85e\x9bf",
    "a forged line": f"no\r\n{FORGED}",
    "a forged line, without CR": f"no\n{FORGED}",
    "8 MB": "x" * 8_000_000,
    "5,000 characters": "€" * 5_000,
}


@kind("text")
def _text() -> Iterator[BadAnswer]:
    for name, text in ODD_TEXTS.items():
        for bad in told(name, text):
            heavy = name == "8 MB"
            # A few MB through each of the calls takes its time.
            if not heavy or bad.name.endswith(("as error", "as status", "of a 422", "as a 400", "as an input")):
                yield bad
    rows = [{"title": text, text[:20]: 1} for name, text in ODD_TEXTS.items() if name != "8 MB"]
    yield BadAnswer("odd rows", ("result",), with_fields(result=rows, total=len(rows)))
    line = b"2022-01-10T07:46:08.145Z ERROR a\x1b[2J\xed\xa0\xbd\x00\x9b\xc2\x9b\xff\n"
    yield BadAnswer("an odd log", ("logs",), lambda at: Reply(b"" if at.request.number else line))


NUMBERS = {
    "2**53": 2**53,
    "2**63": 2**63,
    "2**64": 2**64,
    "-2**70": -(2**70),
    "400 digits": 10**400,
    "400 digits as text": "9" * 400,
    "5,000 digits as text": "9" * 5_000,
    "1e308": 1e308,
    "a number of other digits": "٣" * 30,
    "a fraction": 0.5,
    "NaN": float("nan"),
    "Infinity": float("inf"),
}
WHOLE_NUMBERS = (
    "account_id", "priority", "pages_total", "pages_processed", "pages_succeeded", "pages_successed", "pages_failed",
    "pages_credit", "assigned_worker_id", "running_worker_id",
)  # fmt: skip


@kind("numbers")
def _numbers() -> Iterator[BadAnswer]:
    for name, number in NUMBERS.items():
        values = dict.fromkeys(WHOLE_NUMBERS, number)
        yield BadAnswer(f"{name} in all of a job", WITH_JOBS, with_job(**values), is_known=True)
        yield BadAnswer(f"{name} as job_id", WITH_JOBS, with_job(job_id=number))
        yield BadAnswer(f"{name} as total", LISTS, with_fields(total=number))
        yield BadAnswer(f"{name} as offset", LISTS, with_fields(offset=number, returned=number, limit=number))
        yield BadAnswer(f"{name} as collection", ("input",), with_fields(collection=number, id=number))
        yield BadAnswer(f"{name} as status_code", ("set_input",), with_fields(status_code=number))
        for field in ("pages_total", "pages_processed", "pages_failed", "is_scheduled", "queue_time", "created_at"):
            yield BadAnswer(f"{name} as {field}", WITH_JOBS, with_job(**{field: number}))
    yield BadAnswer("5,000 digits", WITH_JOBS, raw_job('"pages_total": ' + "9" * 5_000))
    yield BadAnswer("1e400", WITH_JOBS, raw_job('"pages_total": 1e400'))
    yield BadAnswer("more pages than there are", WITH_JOBS, with_job(pages_total=1, pages_processed=4))
    yield BadAnswer("fewer pages than none", WITH_JOBS, with_job(pages_total=-1, pages_processed=-4, pages_failed=-9))
    for field in ("created_at", "completed_at", "queue_time", "run_duration"):
        for text in ("9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+23:59", "2022-01-10T11:32:18+99:99",
                     "9" * 40 + ".00:00:01", "999999999.99:99:99", "1:00:00." + "9" * 40, "x" * 100_000):  # fmt: skip
            yield BadAnswer(f"{field} {text[:30]}", WITH_JOBS, with_job(**{field: text}))


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a text": b'"completed"',
    "true": b"true",
    "a list": b"[]",
    "an object": b"{}",
    "a list of objects": b'[{"job_id": 3689994, "status": "completed"}]',
    "NaN": b'{"job_id": NaN, "status": "completed", "total": NaN, "result": []}',
    "Infinity": b'{"job_id": Infinity, "status": "completed", "total": -Infinity, "result": []}',
    "deep": nested(200_000).encode(),
    "deep objects": (nested(200_000, '{"data":', "}").replace('{"data":}', "{}")).encode(),
    "deep behind a job": b'{"job_id": 3689994, "status": "completed", "error": %s}' % nested(200_000).encode(),
    "a bit deep": b'{"job_id": 3689994, "status": "aborted", "error": %s}' % nested(900).encode(),
    "opened only": b"[" * 1_000_000,
    "twice the same key": b'{"job_id": 1, "status": "running", "job_id": 3689994, "status": {}, "total": 1}',
    "data in data": b'{"data": {"data": {"job_id": 3689994, "status": "completed"}}}',
    "HTML": b"<!doctype html><html><body>Log in</body></html>",
    "a BOM": codecs.BOM_UTF8 + b'{"job_id": 3689994, "status": "completed"}',
    "UTF-16": '{"job_id": 3689994, "status": "completed", "error": "€"}'.encode("utf-16"),
    "UTF-16 without BOM": '{"job_id": 3689994, "status": "completed"}'.encode("utf-16-be"),
    "half of UTF-16": codecs.BOM_UTF16_LE + b'{"a',
    "UTF-32": '{"job_id": 3689994}'.encode("utf-32"),
    "Latin-1": b'{"job_id": 3689994, "status": "completed", "error": "\xa3"}',
    "bytes that are none": bytes(range(256)) * 4,
    "zeros": b"\x00" * 5_000,
    "two values": b'{"job_id": 3689994, "status": "completed"} {"job_id": 8}',
    "cut": b'{"job_id": 3689994, "status": "comple',
    "a comment": b'{"job_id": 3689994, /* no */ "status": "completed"}',
    "quoted": json.dumps(json.dumps({"job_id": JOB, "status": "completed"})).encode(),
}


ODD_LINKS = (
    "http://", "http://[", "http://h\xe9:x/", "//a/b", "file:///etc/passwd", "https://\ud83d.example/a", "https://a b/",
    "https://a/\x00\r\nX: y", "https://" + "a" * 70_000, "http://127.0.0.1:0/",
)  # fmt: skip


def several_new_jobs(at: Situation) -> Reply:
    return honest.page([honest.job(JOB + number, status="running") for number in range(9)], at.request)


def link_elsewhere(at: Situation) -> Reply:
    return Reply({"downloadlink": f"http://127.0.0.1:{at.elsewhere}/a"})


@kind("bodies")
def _bodies() -> Iterator[BadAnswer]:
    for name, body in BODIES.items():
        for status in (200, 400, 500):
            is_known = name.startswith("deep")
            yield BadAnswer(f"{name} with {status}", ALL, always(Reply(body, status=status)), is_known=is_known)
    yield BadAnswer("a deep row", ("result",), always(Reply(b'{"total":1,"result":[{"a":%s}]}' % nested(900).encode())))
    yield BadAnswer("rows of all kinds", ("result",), with_fields(result=[None, 1, [], "x", {}], total=5))
    yield BadAnswer("jobs of all kinds", ("jobs",), with_fields(result=[None, 1, [], "x", {}, {"job_id": 3}], total=6))
    yield BadAnswer("an object for a list", LISTS, with_fields(result={"0": {}}))
    yield BadAnswer("another job", ("job", "stop"), with_job(job_id=JOB + 7))
    yield BadAnswer("a job id as text", WITH_JOBS, with_job(job_id=str(JOB)))
    yield BadAnswer("a job id of none", WITH_JOBS, with_job(job_id=-1))
    yield BadAnswer("several new jobs", ("jobs",), several_new_jobs)
    yield BadAnswer("no jobs", ("jobs",), with_fields(result=[], total=0))
    yield BadAnswer("an agent id that leads away", WITH_JOBS, with_job(agent_id="../../dags/evil"))
    yield BadAnswer("an agent id as a path", WITH_JOBS, with_job(agent_id="/tmp/evil"))
    yield BadAnswer("an agent id of 300", WITH_JOBS, with_job(agent_id="a" * 300))
    yield BadAnswer("a link elsewhere", ("export",), link_elsewhere)
    for link in ODD_LINKS:
        yield BadAnswer(f"the link {link[:30]!a}", ("export",), always(Reply({"downloadlink": link})))


ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**53, 2**61 - 1, 2**64, 10**400, float("nan"), float("inf"), [], [[]], {}, {"data": {}},
    "", " ", "12", "٣", "1_000", "../../x", "RUNNING", "Completed ", "aborted", "9999-12-31T23:59:59Z",
    "\ud83d", ["\udfff"], {"\ud83d": 1}, "\x1b[2J", f"x\n{FORGED}", "y" * 5_000, "x" * 70_000,
    SECRETS.key, NOT_SHOWN["a link"],
)  # fmt: skip


def mutate(value: Any, chance: random.Random) -> Any:
    """Return a value of JSON in which some things are missing, swapped or odd."""
    if chance.random() < 0.08:
        return chance.choice(ODD_VALUES)
    if isinstance(value, dict):
        kept = {name: mutate(each, chance) for name, each in value.items() if chance.random() > 0.05}
        if chance.random() < 0.05:
            return {"data": kept}
        return kept | ({chance.choice(sorted(value)): chance.choice(ODD_VALUES)} if kept and value else {})
    if isinstance(value, list):
        return [mutate(each, chance) for each in value for _ in range(chance.choice((0, 1, 1, 1, 2)))]
    return value


def mutated(at: Situation, chance: random.Random) -> Reply:
    """Return the honest answer with odd things in it, at random."""
    status = chance.choice((at.reply.status,) * 6 + (201, 400, 404, 429, 500))
    try:
        body = mutate(at.page, chance)
    except ValueError:
        body = at.reply.body[: chance.randrange(len(at.reply.encoded()) + 1)]
    return replace(at.reply, body=body, status=status)


@kind("shapes")
def _shapes() -> Iterator[BadAnswer]:
    for number in range(40):

        def make(at: Situation, number: int = number) -> Reply:
            return mutated(at, random.Random(f"{number} {at.request.route} {at.request.number}"))

        yield BadAnswer(f"mutation {number}", WITH_JSON, make)


ODD_STATUSES = (421, 425, 428, 429, 431, 451, 499, *range(500, 506), 507, 511, 599, 600, 999)


ODD_LINES = (
    b"", b"HTTP/1.1", b"HTTP/1.1 099 x", b"HTTP/1.1 -1 x", b"HTTP/1.1 abc x", b"HTTP/1.1 20000 x", b"HTTP/9.9 200 x",
    b"HTTP/0.9 200", b"HTTP/1.1 200 " + b"x" * 70_000, b"HTTP/1.1 200 \xff\x1b[2J", b"HTTP/1.1 \xd9\xa3\xd9\xa3 x",
    b"ICY 200 OK", b"\x16\x03\x01\x02\x00", b"x" * 100_000,
)  # fmt: skip


@kind("statuses")
def _statuses() -> Iterator[BadAnswer]:
    for status in (101, 102, 199, *range(201, 207), 226, 299, 300, 304, 305, 306, *range(399, 419), *ODD_STATUSES):
        yield BadAnswer(f"{status}, empty", ALL, always(Reply(b"", status=status)))
        yield BadAnswer(f"{status}, as ever", ALL, lambda at, status=status: replace(at.reply, status=status))
    for line in ODD_LINES:
        yield BadAnswer(f"the line {line[:20]!r}", ALL, always(pieces(line + b"\r\nContent-Length: 2\r\n\r\n{}")))


ODD_MOMENTS = (
    "Wed, 21 Oct 2015 07:28:00 +999999999999999999",
    "Wed, 21 Oct 2015 07:28:00 -9999",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "Wed, 21 Oct 2015 07:28:00 \u0663",
    "Wed, 21 Oct " + "9" * 5_000 + " 07:28:00 GMT",
    "Wed, 99 Oct 2015 99:99:99 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "9" * 5_000, "-5", "1e400", "NaN", "٣", "1_0", "0x10", "", "x" * 60_000, "\xff\xfe", "\x1b[2J",
)  # fmt: skip

ODD_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Encoding": (
        "br", "zstd", "gzip", "deflate", "x-gzip", "aws-chunked", "identity;", ",", "\x00", "gzip, gzip, gzip",
        "gzip" * 100, "gzip," * 5_000,
    ),
    "Content-Type": (
        "text/html", "text/html; \x1b[2J", "application/json; charset=utf-7", "x/" + "y" * 60_000, ";",
        "multipart/mixed; boundary=" + "-" * 5_000,
    ),
    "Content-Range": (
        "bytes 5-1/0", "bytes 0-" + "9" * 5_000 + "/*", "x", "bytes -1--1/-1", "bytes 0-1/" + "9" * 400,
    ),
    "Transfer-Encoding": ("chunked", "chunked, chunked", "gzip, chunked", "x", "\x0bchunked"),
    "Content-Disposition": ('attachment; filename="../../../etc/passwd"', "x" * 60_000),
    "ETag": ("", "W/", '"\xff"', "x" * 60_000, "\x1b[2J"),
    "Set-Cookie": ("a=b; Domain=.127.0.0.1", "x" * 60_000, "a=" + "b" * 60_000, "\x00=\x00; expires=" + "9" * 250),
    "Link": ("<x>; rel=" + '"' * 5_000, "<" * 50_000),
    "WWW-Authenticate": ("Basic", 'Digest realm="' + "\\" * 50_000),
    "Connection": ("upgrade", "close, keep-alive", "x" * 60_000),
}  # fmt: skip


@kind("headers")
def _headers() -> Iterator[BadAnswer]:
    for text in ODD_MOMENTS:
        value = text.encode("utf-8")
        for status in (429, 503):
            reply = Reply(b"{}", status=status, headers=(("Retry-After", value),))
            is_known = text == ODD_MOMENTS[0]
            yield BadAnswer(f"{status}, Retry-After: {text[:50]!a}", ALL, always(reply), is_known=is_known)
        dated = with_headers(Date=value, Last_Modified=value, Expires=value, Age=value, Retry_After=value)
        yield BadAnswer(f"dates: {text[:50]!a}", ALL, dated)
    for header, values in ODD_HEADERS.items():
        for text in values:
            value = text.encode("utf-8")
            yield BadAnswer(f"{header}: {text[:30]!a}", ALL, with_headers(**{header.replace("-", "_"): value}))
    for name, lines in {
        "200 headers": b"".join(b"X-%d: y\r\n" % number for number in range(200)),
        "no colon": b"nothing at all\r\n",
        "folded": b"X: a\r\n b\r\n\tc\r\n",
        "a line of 100,000": b"X: " + b"y" * 100_000 + b"\r\n",
        "a name of bytes": b"\xff\x00\x1b: y\r\n",
        "only LF": b"X: a\nContent-Length: 7\n",
        "a CR inside": b"X: a\rContent-Length: 7\r\n",
    }.items():
        yield BadAnswer(name, ALL, always(pieces(HEAD + lines + b"Content-Length: 2\r\n\r\n{}")))


ODD_LENGTHS = (
    "0", "1", "5", "99999", "-1", "9" * 5_000, "9" * 18, "1e3", "0x10", "٣", " ", "2, 2", "2, 3", "+2", "1_0",
)  # fmt: skip

ODD_CHUNKS = (
    b"", b"\r\n\r\n", b"zz\r\n", b"9" * 70_000, b"5\r\n{}\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"2;x\r\n{}0\r\n\r\n",
    b"f" * 5_000 + b"\r\n{}", b"7fffffffffffffff\r\n{}", b"2\r\n{}\r\n0\r\nX: y",
    b"2\r\n{}\r\n" + b"1\r\n \r\n" * 50_000 + b"0\r\n\r\n",
)  # fmt: skip


def packed(change: Callable[[bytes], bytes]) -> Make:
    """Say that the body is compressed, and send what is made of it."""

    def make(at: Situation) -> Reply:
        return replace(at.reply, body=change(at.reply.encoded()), headers=(("Content-Encoding", "gzip"),))

    return make


@kind("lengths")
def _lengths() -> Iterator[BadAnswer]:
    for length in ODD_LENGTHS:
        yield BadAnswer(
            f"Content-Length: {length[:20]!a}", ALL, lambda at, length=length: replace(at.reply, length=length)
        )
    two = (("Content-Length", "1"), ("Content-Length", "5"))
    yield BadAnswer("two lengths", ALL, lambda at: replace(at.reply, headers=(*at.reply.headers, *two)))
    yield BadAnswer("no length", ALL, lambda at: pieces(HEAD + b"\r\n" + at.reply.encoded()))
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunks in ODD_CHUNKS:
        yield BadAnswer(f"the chunks {chunks[:20]!r}", ALL, always(pieces(chunked + chunks)))
    yield BadAnswer(
        "more behind the answer", ALL, lambda at: pieces(*at.reply.pieces(), HEAD + b"Content-Length: 9\r\n\r\n{}")
    )
    yield BadAnswer("nothing, and the end", ALL, always(pieces(b"")))
    yield BadAnswer("a reset at once", ALL, always(Reply(raw=(), reset=True)))
    yield BadAnswer("a reset in the headers", ALL, always(Reply(raw=[HEAD], reset=True)))
    yield BadAnswer("a reset in the body", ALL, always(Reply(raw=[HEAD + b"Content-Length: 99\r\n\r\n{"], reset=True)))
    yield BadAnswer("cut in the headers", ALL, always(pieces(HEAD)))
    yield BadAnswer("gzip that is none", ALL, packed(bytes))
    yield BadAnswer("gzip cut", ALL, packed(lambda body: gzip.compress(body)[:-9]))
    yield BadAnswer("gzip with more behind", ALL, packed(lambda body: gzip.compress(body) + b"x"))
    yield BadAnswer("gzip in gzip", ALL, packed(lambda body: gzip.compress(gzip.compress(body))))


# C: bounds


@functools.cache
def bomb(
    megabytes: int, *, wbits: int = 31, begin: bytes = b'{"job_id": 3689994, "status": "completed", "x": "'
) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    piece = b"a" * 1_000_000
    return packer.compress(begin) + b"".join(packer.compress(piece) for _ in range(megabytes)) + packer.flush()


def without_end(piece: bytes, megabytes: int = 2_000) -> Iterator[bytes]:
    return itertools.repeat(piece * (65_536 // len(piece)), megabytes * 16)


def long_times(at: Situation) -> Reply:
    """Each page has jobs with times of a megabyte, none twice: whoever remembers them has 340 MB after a while."""
    first = at.request.whole("offset", 0)
    rows = [
        {"job_id": 10**6 - first - n, "status": "running", "created_at": f"{first + n:09}" * 110_000} for n in range(20)
    ]
    return Reply({"total": 340, "result": rows})


@kind("bombs", is_costly=True)
def _bombs() -> Iterator[BadAnswer]:
    gzipped, deflated = (("Content-Encoding", "gzip"),), (("Content-Encoding", "deflate"),)
    yield BadAnswer("250 MB of JSON in gzip", API, lambda _: Reply(bomb(250), headers=gzipped))
    yield BadAnswer("250 MB in deflate", ("job",), lambda _: Reply(bomb(250, wbits=15), headers=deflated))
    yield BadAnswer(
        "250 MB in gzip, as a 500", ("job", "start"), lambda _: Reply(bomb(250), status=500, headers=gzipped)
    )
    yield BadAnswer(
        "250 MB in gzip, as a 400", ("stop", "jobs"), lambda _: Reply(bomb(250), status=400, headers=gzipped)
    )
    twice = (("Content-Encoding", "gzip, gzip"),)
    yield BadAnswer("250 MB in gzip in gzip", ("job",), lambda _: Reply(gzip.compress(bomb(250)), headers=twice))
    members = gzip.compress(b" " * 1_000_000) * 250
    yield BadAnswer("250 members of 1 MB", ("job",), always(Reply(members, headers=gzipped)))
    for name, piece in {"spaces": b" ", "letters": b"a", "lines": b"2022-01-10T07:46:08.145Z INFO a\n\n"}.items():
        yield BadAnswer(f"{name} without end", API, lambda _, piece=piece: pieces(HEAD + b"\r\n", without_end(piece)))
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    yield BadAnswer(
        "chunks without end",
        ("job", "start", "logs"),
        lambda _: pieces(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", itertools.repeat(chunk, 32_000)),
    )
    yield BadAnswer("headers without end", ("job", "start"), lambda _: pieces(HEAD, without_end(b"X-Header: yes\r\n")))
    yield BadAnswer("a header without end", ("job", "start"), lambda _: pieces(HEAD + b"X: ", without_end(b"y")))
    yield BadAnswer(
        "100 for ever", ("job", "start", "download"), lambda _: pieces(without_end(b"HTTP/1.1 100 Continue\r\n\r\n"))
    )
    yield BadAnswer(
        "an error page without end", ("download",), lambda _: pieces(b"HTTP/1.1 403 x\r\n\r\n", without_end(b"a"))
    )
    csv = packed(lambda _: bomb(250, begin=b"title\r\n1\r\n2\r\n"))
    yield BadAnswer("a file of 250 MB for 3 rows", ("download",), csv, has_to_fail=True, calls=("download_export",))
    yield BadAnswer("long times", ("jobs",), long_times, calls=("list_jobs",))


def drip(at: Situation, where: str) -> Reply:
    body = at.reply.encoded()
    length = b"Content-Length: 1000000\r\n\r\n"
    match where:
        case "in the status line":
            return Reply(raw=dripped(b"HTTP/1.1 200 " + b"x" * 60_000))
        case "in the headers":
            return Reply(raw=dripped(HEAD + b"X-Header: y", at_once=len(HEAD)))
        case "in chunks":
            sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
            return Reply(raw=itertools.chain([sent], (b"1\r\n" + byte + b"\r\n" for byte in dripped(b" "))))
        case "of 100s":
            return Reply(raw=(b"HTTP/1.1 100 Continue\r\n\r\n" for _ in dripped(b" ")))
        case "of spaces before the body":
            return Reply(raw=dripped(HEAD + length + b" ", at_once=len(HEAD + length)))
    sent = HEAD + length + body
    return Reply(raw=dripped(sent, at_once=len(HEAD + length)))


DRIPS = ("in the status line", "in the headers", "in the body", "in chunks", "of 100s", "of spaces before the body")


@kind("drips", is_slow=True)
def _drips() -> Iterator[BadAnswer]:
    for number, where in enumerate(DRIPS):
        # A file may take as long as it takes, if only it comes; its headers may not.
        routes = API if number > 1 else ALL
        yield BadAnswer(f"a drip {where}", routes, lambda at, where=where: drip(at, where))
    yield BadAnswer("silence", ALL, lambda _: Reply(raw=itertools.islice(dripped(b"", seconds=60), 1)))


def whole_page(at: Situation, total: int, first: int) -> Reply:
    limit = at.request.whole("limit", 1000)
    if at.request.route == "result":
        rows: list[dict[str, Any]] = [{"title": f"Book {first + n}"} for n in range(limit)]
    else:
        rows = [{"job_id": 2**40 - first - n, "status": "running"} for n in range(limit)]
    return Reply({"total": total, "limit": limit, "offset": first, "returned": limit, "result": rows})


def paged(total: int, *, by: int = 0) -> Make:
    """Answer with full pages of a list whose length changes with each request."""

    def make(at: Situation) -> Reply:
        return whole_page(at, max(total + by * at.request.number, 0), at.request.whole("offset", 0))

    return make


LISTED = ("list_jobs", "list_jobs, of an agent", "list_job_page", "newest_job_id", "start_job")
"""The calls that look at the list of jobs, where looking on for ever is the caller's affair or never happens."""


def same_log(at: Situation) -> Reply:
    return Reply("".join(honest.log_line(number) for number in range(at.request.whole("limit", 2500))).encode())


def more_than_asked(at: Situation) -> Reply:
    limit = 10 * at.request.whole("limit", 1000)
    return Reply(whole_page(replace(at, request=replace(at.request, query={"limit": str(limit)})), limit, 0).body)


@kind("endless", is_costly=True)
def _endless() -> Iterator[BadAnswer]:
    # The same page for ever. A list is at its end then; a result has as many rows as it says, and ends by that.
    yield BadAnswer("the same jobs for ever", ("jobs",), lambda at: whole_page(at, 10**12, 0))
    yield BadAnswer("the same log for ever", ("logs",), same_log)
    yield BadAnswer("the same line for ever", ("logs",), lambda _: Reply(b"2022-01-10T07:46:08.145Z INFO a\n"))
    yield BadAnswer("the same empty line for ever", ("logs",), lambda _: Reply(b"\n"))
    # Ever new ones.
    yield BadAnswer("a list that grows", ("jobs",), paged(10**6, by=1), calls=LISTED)
    yield BadAnswer("a result that grows", ("result",), paged(5_000, by=100))
    yield BadAnswer("a result that shrinks", ("result",), paged(9_000, by=-1_000))
    yield BadAnswer("a result of 10**15 rows", ("result",), paged(10**15), calls=("iter_result", "count_result"))
    yield BadAnswer("empty pages for ever", LISTS, lambda _: Reply({"total": 10**12, "result": []}))
    yield BadAnswer("more than was asked for", LISTS, more_than_asked)


@kind("quadratic", is_costly=True)
def _quadratic() -> Iterator[BadAnswer]:
    entry = b"2022-01-10T07:46:08.145Z INFO a\n" + (b"x" * 200 + b"\n") * 40_000

    def long_entry(at: Situation) -> Reply:
        first = at.request.whole("offset", 0)
        lines = entry.split(b"\n")[first : first + at.request.whole("limit", 2500)]
        return Reply(b"".join(line + b"\n" for line in lines if line))

    yield BadAnswer("an entry of 40,000 lines", ("logs",), long_entry)
    yield BadAnswer(
        "an entry of 40,000 lines at once", ("logs",), lambda at: Reply(b"" if at.request.number else entry)
    )
    alike = [{"job_id": n * (2**61 - 1), "status": "running"} for n in range(1, 30_000)]
    yield BadAnswer("ids that are multiples of 2**61-1", ("jobs",), lambda _: Reply({"total": 29_999, "result": alike}))

    def own_keys(at: Situation) -> Reply:
        rows = [{f"key {n}": "x"} for n in range(20_000)]
        return honest.page(rows, at.request)

    yield BadAnswer("rows with a key each", ("result",), own_keys)
    empty = gzip.compress(b"")
    yield BadAnswer("100,000 gzip members of 20 bytes", ("job", "jobs", "start"), packed(lambda _: empty * 100_000))
    members = gzip.compress(b"title\r\n1\r\n2\r\n3\r\n") + empty * 1_500_000
    yield BadAnswer(
        "gzip members of 20 bytes", ("download",), packed(lambda _: members), calls=("download_export, of logs",)
    )
    digits = b'{"job_id": 3689994, "status": "completed", "pages_total": %s}' % (b"9" * 4_000_000)
    yield BadAnswer("4,000,000 digits", ("job",), always(Reply(digits)))
    queries = "?a=b" * 20_000
    yield BadAnswer("a text of queries", WITH_JOBS, with_job(status="aborted", error=queries))
    yield BadAnswer(
        "a text of beginnings", API, always(Reply({"message": "?" * 300_000 + "http://a" * 30_000}, status=422))
    )
    yield BadAnswer("a duration of digits", WITH_JOBS, with_job(queue_time="1" * 300_000, created_at="2" * 300_000))


def quick() -> list[BadAnswer]:
    """Return those of which the random cases are mixed."""
    names = ("secrets", "text", "redirects", "numbers", "bodies", "shapes", "statuses", "headers", "lengths")
    return [bad for name in names for bad in KINDS[name] if "8 MB" not in bad.name]
