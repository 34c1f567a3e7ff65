"""How far a trigger has copied a job's log, kept where the next triggerer finds it."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from asgiref.sync import sync_to_async

from airflow_provider_agenty.airflow_compat import read_xcom, write_xcom
from airflow_provider_agenty.waiting.task_state import offset_in

log = logging.getLogger(__name__)

LOG_XCOM = "agenty_log"

KEEP_SECONDS = 30.0
"""How often it is stored at most: a triggerer stores for all its triggers one after another."""


class LogOffset:
    """
    How many lines of a job's log a trigger has copied, in an XCom of its task.

    A trigger can't reach the task state store (seen on Airflow 3.3.2). XComs it can, and they live as long as the try:
    they outlive a triggerer. What goes wrong costs lines that come twice, never the wait.

    :param task_instance: The task instance that waits; ``None`` (in ``dag.test``): nothing is kept.
    :param job_id: The job: what was stored for another one does not count.
    """

    def __init__(self, task_instance: Any, job_id: int) -> None:
        self._task_instance = task_instance
        # Nobody clears the XComs of a try that no worker ran.
        self._of = {"job_id": job_id, "try_number": getattr(task_instance, "try_number", None)}
        self._kept: int | None = None
        self._kept_at = -math.inf

    async def read(self) -> int:
        """Return how many lines an earlier trigger of this try copied."""
        if self._task_instance is None:
            return 0
        try:
            stored = await sync_to_async(read_xcom)(self._task_instance, LOG_XCOM)
        except Exception as error:
            log.warning("How far the job's log was copied can't be read: %s", error)
            return 0
        return offset_in(stored, self._of)

    async def keep(self, offset: int) -> None:
        """
        Store how many lines are copied, unless that was done a moment ago.

        :param offset: The lines.
        """
        now = time.monotonic()
        if self._task_instance is None or offset == self._kept or now < self._kept_at + KEEP_SECONDS:
            return
        self._kept_at = now
        try:
            await sync_to_async(write_xcom)(self._task_instance, LOG_XCOM, {**self._of, "offset": offset})
        except Exception as error:
            log.warning("How far the job's log was copied could not be stored: %s", error)
        else:
            self._kept = offset
