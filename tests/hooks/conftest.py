"""The fixtures of the hook's tests."""

from __future__ import annotations

from tests.over_the_wire import (  # noqa: F401 - fixtures
    Certificate,
    certificate,
    closed_port,
    connect,
    finished_job,
    hook,
    hook_log,
    plain_environment,
    quick_starts,
    sandbox,
    slept,
)
