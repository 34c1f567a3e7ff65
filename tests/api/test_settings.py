from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_agenty.connection import Settings
from airflow_provider_agenty.exceptions import AgentyInputError
from airflow_provider_agenty.hooks.agenty import AgentyHook

KEY = "0123456789abcdef"


def read(**fields: Any) -> Settings:
    return Settings.from_fields(**{"password": KEY, **fields})


def read_from_airflow(monkeypatch: pytest.MonkeyPatch, connection: str) -> Settings:
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", connection)
    return AgentyHook().settings


def refusal(**fields: Any) -> str:
    with pytest.raises(AgentyInputError) as refused:
        read(**fields)
    assert KEY not in str(refused.value)
    return str(refused.value)


# Base URL


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://api.agenty.com/v2"),
        ({"host": ""}, "https://api.agenty.com/v2"),
        ({"host": "  "}, "https://api.agenty.com/v2"),
        ({"host": "api.agenty.com"}, "https://api.agenty.com/v2"),
        ({"host": "API.Agenty.com"}, "https://api.agenty.com/v2"),
        ({"host": "https://api.agenty.com"}, "https://api.agenty.com/v2"),
        ({"host": "HTTPS://api.agenty.com"}, "https://api.agenty.com/v2"),
        ({"host": "https://api.agenty.com/"}, "https://api.agenty.com/v2"),
        ({"host": "https://api.agenty.com/v2/"}, "https://api.agenty.com/v2"),
        ({"host": "https://api.agenty.com/v2//"}, "https://api.agenty.com/v2"),
        ({"host": "api.agenty.com/v3"}, "https://api.agenty.com/v3"),
        ({"host": "https://gateway.example/agenty/v2"}, "https://gateway.example/agenty/v2"),
        ({"host": "https://gateway.example:8443"}, "https://gateway.example:8443/v2"),
        ({"host": "gateway.example:8443/v2"}, "https://gateway.example:8443/v2"),
        ({"host": "https://gateway.example:443/v2"}, "https://gateway.example/v2"),
        ({"host": "gateway.example", "port": 8443}, "https://gateway.example:8443/v2"),
        ({"host": "gateway.example", "port": "8443"}, "https://gateway.example:8443/v2"),
        ({"host": "gateway.example", "port": 443}, "https://gateway.example/v2"),
        ({"host": "gateway.example:8443", "port": 9}, "https://gateway.example:8443/v2"),
        ({"port": 443}, "https://api.agenty.com/v2"),
        ({"port": 8443}, "https://api.agenty.com:8443/v2"),
        ({"host": "gateway.example", "schema": "https"}, "https://gateway.example/v2"),
        ({"host": "gateway.example", "schema": "HTTPS"}, "https://gateway.example/v2"),
        ({"host": "gateway.example", "schema": "v3"}, "https://gateway.example/v3"),
        ({"host": "gateway.example", "schema": "/agenty/v2/"}, "https://gateway.example/agenty/v2"),
        ({"host": "gateway.example/v2", "schema": "v3"}, "https://gateway.example/v2"),
        ({"schema": "v3"}, "https://api.agenty.com/v3"),
        ({"host": "http://localhost:8000"}, "http://localhost:8000/v2"),
        ({"host": "localhost", "port": 8000, "schema": "http"}, "http://localhost:8000/v2"),
        ({"host": "agenty.localhost:8000", "schema": "http"}, "http://agenty.localhost:8000/v2"),
        ({"host": "http://127.0.0.1"}, "http://127.0.0.1/v2"),
        ({"host": "http://127.8.9.10:80"}, "http://127.8.9.10/v2"),
        ({"host": "https://localhost", "schema": "http"}, "https://localhost/v2"),
        ({"host": "::1", "schema": "http"}, "http://[::1]/v2"),
        ({"host": "[::1]:8000", "schema": "http"}, "http://[::1]:8000/v2"),
        ({"host": "::1", "port": 8000, "schema": "http"}, "http://[::1]:8000/v2"),
        ({"host": "https://[2001:db8::7]:8443/v2"}, "https://[2001:db8::7]:8443/v2"),
    ],
)
def test_the_base_url_is_read_from_host_port_and_schema(fields: dict[str, Any], expected: str) -> None:
    assert read(**fields).base_url == expected


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (f"agenty://:{KEY}@api.agenty.com:443/v2", "https://api.agenty.com/v2"),
        (f"agenty://:{KEY}@api.agenty.com", "https://api.agenty.com/v2"),
        (f"agenty://:{KEY}@api.agenty.com/", "https://api.agenty.com/v2"),
        (f"agenty://:{KEY}@", "https://api.agenty.com/v2"),
        (f"agenty://:{KEY}@gateway.example:8443/agenty%2Fv2", "https://gateway.example:8443/agenty/v2"),
        (f"agenty://:{KEY}@https%3A%2F%2Fgateway.example%3A8443%2Fv2", "https://gateway.example:8443/v2"),
        (f"agenty://https://:{KEY}@gateway.example:8443/v2", "https://gateway.example:8443/v2"),
        (f"agenty://:{KEY}@127.0.0.1:8000/http", "http://127.0.0.1:8000/v2"),
        (f"agenty://:{KEY}@%5B%3A%3A1%5D:8000/http", "http://[::1]:8000/v2"),
        (json.dumps({"conn_type": "agenty", "password": KEY}), "https://api.agenty.com/v2"),
        (
            json.dumps({"conn_type": "agenty", "password": KEY, "host": "http://127.0.0.1", "port": 8000}),
            "http://127.0.0.1:8000/v2",
        ),
        (
            json.dumps({"conn_type": "agenty", "password": KEY, "host": "h.example", "schema": "v2", "port": "444"}),
            "https://h.example:444/v2",
        ),
    ],
)
def test_the_base_url_is_read_from_what_airflow_makes_of_a_uri_or_of_json(
    monkeypatch: pytest.MonkeyPatch, connection: str, expected: str
) -> None:
    settings = read_from_airflow(monkeypatch, connection)

    assert settings.base_url == expected
    assert settings.key == KEY


@pytest.mark.parametrize(
    "host",
    [
        "ftp://api.agenty.com",
        "agenty://api.agenty.com",
        "https://",
        "https:///v2",
        "not a host",
        "https://api agenty.com",
        "https://api.agenty.com/v2?x=1",
        "https://api.agenty.com/v2#part",
        "https://user:0123456789abcdef@api.agenty.com",
        "https://api.agenty.com:port",
        "https://api.agenty.com:0",
        "https://api.agenty.com:70000",
        "https://[::1",
        "https://[nonsense]/",
        "1:2:3",
        "https://evil.example\\@api.agenty.com",
        "https://-api-.agenty.com-",
        "https://api..agenty.com",
        "https://*.agenty.com",
        "https://" + 64 * "a" + ".com",
        "https://api.agenty.com/v2\nX: y",
    ],
)
def test_a_host_that_is_no_url_is_refused(host: str) -> None:
    assert "host" in refusal(host=host)


@pytest.mark.parametrize(
    "host", ["api.agenty.com", "10.0.0.1", "localhost.example", "127.0.0.1.example", "[2001:db8::7]"]
)
def test_plain_http_is_refused_but_for_this_machine(host: str) -> None:
    assert "plain http" in refusal(host=f"http://{host}")
    assert "plain http" in refusal(host=host, schema="http")


@pytest.mark.parametrize("port", ["https", 0, -1, 65536, "1.5", True, "8 0"])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    assert "port" in refusal(host="api.agenty.com", port=port)


@pytest.mark.parametrize("schema", ["v2?x=1", "v2#part", "my path", "v2\nX: y", "..", "v2/../../x", "a\\b"])
def test_a_schema_that_is_no_path_is_refused(schema: str) -> None:
    assert "schema" in refusal(host="api.agenty.com", schema=schema)


# The key


@pytest.mark.parametrize("key", [f" {KEY} ", f"{KEY}\n", f"\t{KEY}\r\n"])
def test_whitespace_around_the_key_is_removed(key: str) -> None:
    assert read(password=key).key == KEY


@pytest.mark.parametrize("key", [None, "", "   ", "\n"])
def test_a_missing_key_is_refused(key: str | None) -> None:
    assert "no API key" in refusal(password=key)


@pytest.mark.parametrize(
    "key", ["secret one", "secret\none", "secret\r\nHost: evil", "sécrète", "secret\x00", "secret\u2028x", "secret\x7f"]
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    said = refusal(password=key)

    assert "password" in said
    assert key not in said
    assert "secret" not in said.replace("Copy", "")


def test_the_key_is_not_in_the_representation_of_the_settings() -> None:
    assert KEY not in repr(read(extra={"proxies": f"http://user:{KEY}@proxy.example:3128"}))


# Extra


def test_what_the_extra_does_not_say_is_as_documented() -> None:
    settings = read()

    assert settings.authentication == "header"
    assert (settings.connect_timeout, settings.read_timeout) == (10.0, 60.0)
    assert settings.proxies == {}
    assert settings.verify is True
    assert settings.max_attempts == 5


@pytest.mark.parametrize("name", ["auth", "timeout", "proxies", "verify", "max_attempts"])
@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_field_of_the_form_is_as_if_it_were_not_there(name: str, empty: str | None) -> None:
    assert read(extra={name: empty}) == read()


@pytest.mark.parametrize(("value", "expected"), [("header", "header"), ("query", "query"), (" Query ", "query")])
def test_auth_says_where_the_key_goes(value: str, expected: str) -> None:
    assert read(extra={"auth": value}).authentication == expected


@pytest.mark.parametrize("value", ["basic", "cookie", 1, {"a": 1}])
def test_an_unknown_auth_is_refused(value: Any) -> None:
    assert "auth" in refusal(extra={"auth": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"connect": 3, "read": 7}, (3.0, 7.0)),
        ({"connect": "3", "read": "7.5"}, (3.0, 7.5)),
        ({"read": 7}, (10.0, 7.0)),
        ({"connect": 3}, (3.0, 60.0)),
        ({}, (10.0, 60.0)),
        (20, (20.0, 20.0)),
        ("20", (20.0, 20.0)),
        ("0.5", (0.5, 0.5)),
        ('{"connect": 3, "read": 7}', (3.0, 7.0)),
    ],
)
def test_timeout_is_a_number_or_two_and_may_be_text(value: Any, expected: tuple[float, float]) -> None:
    settings = read(extra={"timeout": value})

    assert (settings.connect_timeout, settings.read_timeout) == expected


@pytest.mark.parametrize(
    "value",
    [0, -1, "soon", True, [1, 2], {"connect": 0}, {"read": None}, {"total": 5}, {"read": "x"}, "nan", "inf", 1e9, "{"],
)
def test_a_timeout_that_is_none_is_refused(value: Any) -> None:
    assert "timeout" in refusal(extra={"timeout": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"https": "http://proxy.example:3128"}, {"https": "http://proxy.example:3128"}),
        ('{"https": "http://proxy.example:3128"}', {"https": "http://proxy.example:3128"}),
        (
            "http://proxy.example:3128",
            {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"},
        ),
        ({}, {}),
        ("null", {}),
    ],
)
def test_proxies_are_one_url_or_one_by_scheme_and_may_be_text(value: Any, expected: dict[str, str]) -> None:
    assert read(extra={"proxies": value}).proxies == expected


@pytest.mark.parametrize(
    "value",
    [
        "proxy.example",
        3128,
        ["http://proxy.example"],
        {"https": 3128},
        {"https": "proxy.example:3128"},
        {"https": "ftp://proxy.example"},
        {"https": "http://"},
        {"https": "http://proxy.example:port"},
        {"https": "http://[::1"},
        f"user:{KEY}@proxy.example",
    ],
)
def test_proxies_that_are_none_are_refused_and_their_passwords_are_not_shown(value: Any) -> None:
    assert "proxies" in refusal(extra={"proxies": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("False", False), ("0", False), ("1", True), ("no", False)],
)
def test_verify_is_a_boolean_that_may_be_text(value: Any, expected: bool) -> None:
    assert read(extra={"verify": value}).verify is expected


def test_verify_is_the_path_of_a_ca_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()

    assert read(extra={"verify": str(bundle)}).verify == str(bundle)


@pytest.mark.parametrize("value", ["/nowhere/ca.pem", "perhaps", 7])
def test_verify_that_is_no_boolean_and_no_file_is_refused(value: Any) -> None:
    assert "verify" in refusal(extra={"verify": value})


@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("3", 3), (3.0, 3), (" 2 ", 2)])
def test_max_attempts_is_a_whole_number_that_may_be_text(value: Any, expected: int) -> None:
    assert read(extra={"max_attempts": value}).max_attempts == expected


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True, [1], "inf"])
def test_max_attempts_that_is_none_is_refused(value: Any) -> None:
    assert "max_attempts" in refusal(extra={"max_attempts": value})


def test_the_text_of_a_uri_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_from_airflow(
        monkeypatch,
        f"agenty://:{KEY}@api.agenty.com:443/v2?auth=query&timeout=7&verify=false&max_attempts=2"
        "&proxies=http%3A%2F%2Fproxy.example%3A3128",
    )

    assert settings.authentication == "query"
    assert settings.read_timeout == 7.0
    assert settings.verify is False
    assert settings.max_attempts == 2
    assert settings.proxies["https"] == "http://proxy.example:3128"


def test_the_objects_in_a_json_connection_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"timeout": {"connect": 2, "read": 3}, "proxies": {"https": "http://proxy.example:1"}, "verify": False}
    settings = read_from_airflow(monkeypatch, json.dumps({"conn_type": "agenty", "password": KEY, "extra": extra}))

    assert (settings.connect_timeout, settings.read_timeout) == (2.0, 3.0)
    assert settings.proxies == {"https": "http://proxy.example:1"}
    assert settings.verify is False


# Names of Airflow 2

LEGACY = {
    "auth": ("query", "authentication", "query"),
    "timeout": (7, "read_timeout", 7.0),
    "proxies": ({"https": "http://proxy.example:1"}, "proxies", {"https": "http://proxy.example:1"}),
    "verify": ("false", "verify", False),
    "max_attempts": (2, "max_attempts", 2),
}


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize("plain", ["missing", "empty", "null"])
def test_a_field_under_its_long_name_counts_where_the_plain_name_is_not_set(
    monkeypatch: pytest.MonkeyPatch, name: str, plain: str
) -> None:
    value, attribute, expected = LEGACY[name]
    extra = {f"extra__agenty__{name}": value, **{"missing": {}, "empty": {name: ""}, "null": {name: None}}[plain]}
    settings = read_from_airflow(monkeypatch, json.dumps({"conn_type": "agenty", "password": KEY, "extra": extra}))

    assert getattr(settings, attribute) == expected


def test_the_plain_name_wins_over_the_long_one() -> None:
    assert read(extra={"verify": False, "extra__agenty__verify": "true"}).verify is False


def test_a_field_under_its_long_name_is_checked_too() -> None:
    assert "timeout" in refusal(extra={"extra__agenty__timeout": "soon"})


# What is not repeated

SECRET = "f93cbe395912e826f7550f207a5cad7d"
SECRET_JSON = json.dumps({"conn_type": "agenty", "password": SECRET, "host": "https://api.agenty.com/v2"})
SECRET_URI = f"agenty://:{SECRET}@api.agenty.com/v2?timeout=30"


# Airflow puts these whole into one field.
MISREAD = [
    f"'{SECRET_JSON}'",
    f'"{SECRET_JSON}"',
    f"`{SECRET_JSON}`",
    f"\u201c{SECRET_JSON}\u201d",
    f" '{SECRET_JSON}'\n",
    json.dumps(SECRET_JSON),
    json.dumps(json.dumps(SECRET_JSON)),
    json.dumps([json.loads(SECRET_JSON)]),
    quote(SECRET_JSON, safe=""),
    f"'{SECRET_URI}'",
    f'"{SECRET_URI}"',
    json.dumps(json.dumps(SECRET_URI)),
    quote(SECRET_URI, safe=""),
    f"\ufeff{SECRET_JSON}",
    f"\ufeff{SECRET_URI}",
    f"\u200b{SECRET_JSON}",
    *(
        f"{name}={mark}{value}{mark}"
        for name in ("AIRFLOW_CONN_AGENTY_DEFAULT", "export AIRFLOW_CONN_AGENTY_DEFAULT", "AGENTY")
        for value in (SECRET_JSON, SECRET_URI)
        for mark in ("", "'", '"')
    ),
    f"AIRFLOW_CONN_AGENTY_DEFAULT={SECRET}",
    f"conn_type: agenty\npassword: {SECRET}\n",
    f"conn_type=agenty;password={SECRET}",
]
NONE = [
    SECRET,
    f":{SECRET}",
    f"agenty:/:{SECRET}@api.agenty.com/v2",
    f"agenty://{SECRET}@",
    f"agenty://{SECRET}",
    f"agenty://:x@h:{SECRET}/",
    f"agenty://https://x:{SECRET}@https://api.agenty.com/v2",
    f"agenty://:ab/{SECRET}@api.agenty.com/v2",
    f"agenty://:ab?{SECRET}@api.agenty.com/v2",
    SECRET_JSON.replace('"', '\\"'),
    repr(json.loads(SECRET_JSON)),
    SECRET_JSON[:-5],
    json.dumps({"agenty_default": json.loads(SECRET_JSON)}),
    json.dumps({"conn_type": "agenty", "password": "x", "port": SECRET}),
    json.dumps({"conn_type": "agenty", "password": "x", "apikey": SECRET}),
    json.dumps({"conn_type": "agenty", "password": "x", "extra": SECRET}),
    json.dumps({"conn_type": "agenty", "password": "x", "extra": [SECRET]}),
    json.dumps({"conn_type": "agenty", "password": SECRET_JSON}),
    json.dumps({"conn_type": "agenty", "password": SECRET_URI}),
    json.dumps({"conn_type": "agenty", "password": f'"{SECRET}"'}),
    json.dumps({"conn_type": "agenty", "extra": SECRET_JSON}),
]


@pytest.mark.parametrize(
    ("connection", "told"),
    [
        *((connection, r"are there quotes or an encoding around it.*--env-file") for connection in MISREAD),
        *((connection, "connection") for connection in NONE),
    ],
)
def test_a_connection_that_can_not_be_used_is_told_without_what_is_in_it(
    monkeypatch: pytest.MonkeyPatch, connection: str, told: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", connection)
    worked, said = AgentyHook().test_connection()

    assert not worked
    assert re.search(told, said)
    assert SECRET not in said


TEXTS = [SECRET_JSON, SECRET_URI, f"'{SECRET}'"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("host", "schema") for value in TEXTS),
        *(
            (field, value)
            for field in ("port", "auth", "timeout", "proxies", "verify", "max_attempts")
            for value in (*TEXTS, SECRET, {"a": SECRET}, [SECRET], 10**400)
        ),
    ],
)
def test_no_refusal_repeats_the_value_of_a_field(field: str, value: Any) -> None:
    said = refusal(**({field: value} if field in ("host", "port", "schema") else {"extra": {field: value}}))

    assert SECRET not in said
    assert field in said or "connection's extra" in said


def test_plain_http_to_a_host_that_is_a_secret_does_not_repeat_it() -> None:
    assert SECRET not in refusal(host=f"http://{SECRET}")


@pytest.mark.parametrize("mark", ["'", '"'])
def test_quotes_are_spoken_of_where_airflow_can_not_read_what_is_in_them(
    monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    # Airflow takes what has several addresses in it for no URI at all.
    proxies = {"http": f"http://user:{SECRET}@proxy.example:1", "https": "http://proxy.example:1"}
    connection = json.dumps({**json.loads(SECRET_JSON), "extra": {"proxies": proxies}})
    monkeypatch.setenv("AIRFLOW_CONN_AGENTY_DEFAULT", f"{mark}{connection}{mark}")
    worked, said = AgentyHook().test_connection()

    assert not worked
    assert "without quotes or an encoding around it" in said
    assert SECRET not in said


@pytest.mark.parametrize("value", ["[" * 100_000, "/" + "x" * 5_000, "a\0b"])
@pytest.mark.parametrize("field", ["auth", "timeout", "proxies", "verify", "max_attempts"])
def test_a_field_that_is_deep_or_long_is_refused_like_any_other(field: str, value: str) -> None:
    assert field in refusal(extra={field: value})


def test_a_good_key_is_not_blamed_for_a_field_that_is_wrong() -> None:
    assert "timeout" in refusal(password="a2V5==", extra={"timeout": "soon"})


# What the hook makes of it


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"host": "not a host"}, "host"),
        ({"host": "http://api.agenty.com"}, "host"),
        ({"host": "api.agenty.com", "schema": "a b"}, "schema"),
        ({"extra": {"auth": "basic"}}, "auth"),
        ({"extra": {"timeout": "soon"}}, "timeout"),
        ({"extra": {"proxies": 5}}, "proxies"),
        ({"extra": {"verify": "/nowhere"}}, "verify"),
        ({"extra": {"max_attempts": 0}}, "max_attempts"),
        ({"password": ""}, "password"),
        ({"password": "two words"}, "password"),
        ({"extra": "[1, 2]"}, "extra"),
        ({"extra": "{nonsense"}, "extra"),
    ],
)
def test_each_bad_field_is_an_input_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], named: str
) -> None:
    connection = json.dumps({"conn_type": "agenty", "password": KEY, **fields})

    with pytest.raises(AgentyInputError, match=named) as refused:
        read_from_airflow(monkeypatch, connection)

    assert KEY not in str(refused.value)


def test_an_unknown_connection_is_named_with_what_to_do() -> None:
    with pytest.raises(AgentyInputError, match=r"'agenty_elsewhere'.*AIRFLOW_CONN_AGENTY_ELSEWHERE"):
        AgentyHook("agenty_elsewhere").get_job(7)


def test_making_a_hook_reads_no_connection() -> None:
    assert AgentyHook("agenty_elsewhere").agenty_conn_id == "agenty_elsewhere"


@pytest.mark.parametrize("conn_id", [SECRET_URI, SECRET_JSON, f"'{SECRET}'", SECRET * 10])
def test_a_connection_id_that_is_no_name_is_not_repeated(conn_id: str) -> None:
    with pytest.raises(AgentyInputError, match="is not the id of an Airflow connection") as refused:
        AgentyHook(conn_id).get_job(7)

    assert SECRET not in str(refused.value)
