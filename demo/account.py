"""Whose Agenty the demonstration speaks to: a sandbox of its own, or the real one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

KEY_VARIABLE = "AGENTY_API_KEY"
AGENT_VARIABLE = "AGENTY_AGENT_ID"
URL_VARIABLE = "AGENTY_API_URL"

SAMPLE_AGENT = "45l0wewqzk"
SAMPLE_JOB_SECONDS = 12.0
"""Long enough for some lines of progress, short enough to watch."""


class AccountError(Exception):
    """The environment does not say clearly which account to use."""


@dataclass(frozen=True)
class Account:
    """
    An Agenty account and the agent to run in it.

    :param description: what to call it in messages.
    :param agent_id: the agent.
    :param connection: the Airflow connection as JSON. Contains the key.
    :param costs_credits: whether jobs are paid for.
    """

    description: str
    agent_id: str
    connection: str = field(repr=False)
    costs_credits: bool


@contextlib.contextmanager
def open_account(environment: Mapping[str, str]) -> Iterator[Account]:
    """
    Give the account that the environment names, or else that of a sandbox that runs as long as the block.

    :param environment: ``AGENTY_API_KEY`` with ``AGENTY_AGENT_ID`` for a real account. ``AGENTY_API_URL`` may name
        another address than Agenty's.
    :raises AccountError: when only one of key and agent is there.
    """
    key, agent_id = (environment.get(name, "").strip() for name in (KEY_VARIABLE, AGENT_VARIABLE))
    if bool(key) != bool(agent_id):
        given, missing = (KEY_VARIABLE, AGENT_VARIABLE) if key else (AGENT_VARIABLE, KEY_VARIABLE)
        raise AccountError(
            f"{given} is set but {missing} is not: set both to run one of your own agents, or neither to use the "
            "sandbox."
        )
    if key:
        yield _real_account(key, agent_id, environment.get(URL_VARIABLE, "").strip())
        return
    # The sandbox needs packages that the rest of the demonstration can do without.
    from airflow_provider_agenty.sandbox import Sandbox

    with Sandbox(seconds=SAMPLE_JOB_SECONDS) as sandbox:
        yield Account(
            description=f"an Agenty sandbox at {sandbox.url}",
            agent_id=SAMPLE_AGENT,
            connection=sandbox.connection_json,
            costs_credits=False,
        )


def _real_account(key: str, agent_id: str, url: str) -> Account:
    connection = {"conn_type": "agenty", "password": key, **({"host": url} if url else {})}
    return Account(
        description=f"your Agenty account{f' at {url}' if url else ''}",
        agent_id=agent_id,
        connection=json.dumps(connection),
        costs_credits=True,
    )
