"""Event-driven scheduling: a trigger for asset watchers that fires for each job that completes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_agenty import parameters
from airflow_provider_agenty.airflow_compat import event_trigger_base, shared_stream_producer_base
from airflow_provider_agenty.api.models import Job
from airflow_provider_agenty.connection import DEFAULT_CONNECTION
from airflow_provider_agenty.watching.job_feed import JobFeed
from airflow_provider_agenty.watching.listing import Listing
from airflow_provider_agenty.watching.seen_jobs import SeenJobs
from airflow_provider_agenty.watching.watermark import Watermark

if TYPE_CHECKING:
    from airflow.triggers.base import BaseEventTrigger
    from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer
else:
    BaseEventTrigger = event_trigger_base()
    SharedStreamProducer = shared_stream_producer_base()

SETTLE_SECONDS = 10.0
"""
How long Airflow's scheduler may take to make a run of an event.

Seen on 3.3.2: an event that comes between another one and the run made of that is in no run until there is a further
event of the asset. So the last of several events keeps this distance from the one before it: its run has them all.
"""


@dataclass(eq=False)
class Delivery:
    """
    A listing on its way to the watchers that share it.

    :param listing: The listing.
    :param number: Which one it is of its stream, counted from 1.
    :param seen: What each watcher has seen with it, as far as it has passed on what completed.
    :param passed_on: The jobs that each watcher has passed on.
    """

    listing: Listing
    number: int
    seen: dict[Watermark, dict[str, Any]] = field(default_factory=dict)
    passed_on: dict[Watermark, set[int]] = field(default_factory=dict)

    def note(self, watermark: Watermark, seen: SeenJobs, passed_on: Job | None = None) -> None:
        """
        Take in what a watcher has come to.

        :param watermark: Where the watcher keeps what it has seen.
        :param seen: What it has seen.
        :param passed_on: A job that it has passed on.
        """
        self.seen[watermark] = seen.to_dict()
        if passed_on is not None:
            self.passed_on.setdefault(watermark, set()).add(passed_on.job_id)


class AgentyJobEventTrigger(BaseEventTrigger):
    """
    Fires for each job of an agent that completes, whoever started it: for ``AssetWatcher``, on Airflow 3 and later.

    It looks at the list of jobs (``GET /jobs``).

    A job fires once. Jobs that are stopped or aborted do not fire, nor do those that had completed before the watcher
    first looked. On Airflow 3.3 and later, what was seen is kept in the asset's state store; before that a restart of
    the triggerer loses what completes meanwhile. On Airflow 2 the class can be imported, and there is no use for it.

    The payload of an event is the completed job, as :meth:`Job.to_dict` gives it, and ``agenty_conn_id``. Errors never
    end the watch: they are logged, and the list of jobs is looked at again. After a wrong key, or what else only a
    person can change, that is five minutes later at the earliest.

    :param agent_id: The agent. Default: all agents of the account.
    :param agenty_conn_id: The Airflow connection. Default ``agenty_default``.
    :param poll_interval: Seconds between two looks at the list of jobs, or a ``timedelta``. All watchers with the same
        connection and interval share them. Default 60.
    :raises AgentyInputError: naming the parameter that can't be used.
    """

    def __init__(
        self,
        agent_id: str | None = None,
        agenty_conn_id: str = DEFAULT_CONNECTION,
        poll_interval: float | timedelta = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.agent_id = parameters.optional(parameters.agent_id, agent_id)
        self.agenty_conn_id = parameters.agenty_conn_id(agenty_conn_id)
        self.poll_interval = parameters.seconds("poll_interval", poll_interval)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the trigger's class and arguments, from which Airflow makes it anew."""
        return "airflow_provider_agenty.triggers.agenty.AgentyJobEventTrigger", {
            "agent_id": self.agent_id,
            "agenty_conn_id": self.agenty_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each job that completes, without end; used before Airflow 3.3, which has no shared streams."""
        deliveries = _deliveries(self.agenty_conn_id, self.poll_interval)
        async with aclosing(deliveries), aclosing(self._events(deliveries)) as events:
            async for event in events:
                yield event

    # Airflow 3.3 and later

    def shared_stream_key(self) -> Hashable | None:
        """Return what those triggers have in common that share one poll: connection and interval."""
        return "agenty-jobs", self.agenty_conn_id, self.poll_interval

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """
        Return what polls for all triggers of a shared stream, and hears when their events are stored.

        :param kwargs: The arguments of one of them.
        """
        return JobListProducer(kwargs["agenty_conn_id"], kwargs["poll_interval"])

    def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """
        Fire for each job that completes, without end.

        :param shared_stream: The listings of the producer.
        """
        return self._events(shared_stream)

    async def _events(self, deliveries: AsyncIterator[Delivery]) -> AsyncGenerator[TriggerEvent, None]:
        # Airflow sets the store from 3.3 on.
        watermark = Watermark(getattr(self, "asset_state_store", None), self._state_key, self.agent_id)
        seen = await watermark.load()
        feed = JobFeed.shared(self.agenty_conn_id, self.poll_interval)
        feed.join(seen)
        fired_at = -math.inf
        try:
            async for delivery in deliveries:
                completed = seen.take_in(delivery.listing)
                delivery.note(watermark, seen)
                for job in completed:
                    if job is completed[-1]:
                        await asyncio.sleep(max(fired_at + SETTLE_SECONDS - time.monotonic(), 0))
                    fired_at = time.monotonic()
                    yield TriggerEvent({**job.to_dict(), "agenty_conn_id": self.agenty_conn_id})
                    # Whoever stops taking events may have lost the last one: only the next request proves it taken.
                    seen.has_passed_on(job)
                    delivery.note(watermark, seen, job)
        finally:
            feed.leave(seen)

    @property
    def _state_key(self) -> str:
        """An asset may have several watchers, so the key says which one it is."""
        return f"agenty_jobs/{self.agenty_conn_id}/{self.agent_id or '*'}"


class JobListProducer(SharedStreamProducer):
    """
    Polls for all triggers of a shared stream, and stores what they have seen once Airflow has stored their events.

    :param agenty_conn_id: The connection.
    :param poll_interval: Seconds between two polls.
    """

    def __init__(self, agenty_conn_id: str, poll_interval: float) -> None:
        self._agenty_conn_id = agenty_conn_id
        self._poll_interval = poll_interval
        self._delivered = 0

    async def open_stream(self) -> AsyncIterator[tuple[Delivery, Delivery]]:
        """Yield each listing, for the triggers and for :meth:`advance`."""
        async with aclosing(_deliveries(self._agenty_conn_id, self._poll_interval)) as deliveries:
            async for delivery in deliveries:
                self._delivered = delivery.number
                yield delivery, delivery

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """
        Store what the triggers have seen.

        :param batch: Listings that the triggers have done with, in their order.
        """
        latest: dict[Watermark, Delivery] = {}
        for item in batch:
            delivery = item.broker_payload
            if item.outcome.is_clean:
                latest |= dict.fromkeys(delivery.seen, delivery)
                continue
            # For one of the triggers Airflow did not store an event, or not for sure. It does not say for which one.
            for watermark, job_ids in delivery.passed_on.items():
                watermark.doubt(job_ids, until=self._delivered)
        await asyncio.gather(*(mark.save(by.seen[mark], number=by.number) for mark, by in latest.items()))


async def _deliveries(agenty_conn_id: str, poll_interval: float) -> AsyncGenerator[Delivery, None]:
    async with aclosing(JobFeed.shared(agenty_conn_id, poll_interval).listings()) as listings:
        number = 0
        async for listing in listings:
            number += 1
            yield Delivery(listing, number)


__all__ = ["AgentyJobEventTrigger"]
