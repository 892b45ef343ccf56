"""Tells the backend one job's events, in order, each until the first 200. Decides no state.

Runs beside the job's passes: neither a failing delivery nor a failing clean-up delays the other.
"""

import asyncio
import contextlib
import random
from dataclasses import replace

import structlog

from pyvatti.backend import Answer, Reply
from pyvatti.errors import PyvattiError
from pyvatti.jobs import settle_patch
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Delivery, Job, Manifest, Notice
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

FIRST_BACKOFF = 1.0  # seconds
LONGEST_BACKOFF = 300.0  # seconds
BROKEN_BACKOFF = 60.0  # seconds, after an error nobody expected

_ENDS = {Answer.DELIVERED: Delivery.DELIVERED, Answer.DEAD: Delivery.DEAD}


class Courier:
    """Empties the outbox of one Job (name and uid).

    `taken` holds by Job uid the event that was settled and is not yet written back; it outlives
    a leadership, so that no event is told twice because the API server was away.
    """

    def __init__(self, doors: Doors, hands: Hands, job: Job, taken: dict[str, Notice]) -> None:
        self.base, self.uid = job.names.base, job.uid
        self._doors, self._hands = doors, hands
        self._changed = asyncio.Event()
        self._failures = 0
        self._taken = taken

    def poke(self) -> None:
        """Look at the outbox: the job changed."""
        self._changed.set()

    async def deliver(self) -> None:
        """Deliver until the Job is gone."""
        with structlog.contextvars.bound_contextvars(job=self.base):
            while (job := self._doors.cache.job(self.base, self.uid)) is not None:
                pause = await self._guarded(job) if job.pending else None
                if pause != 0:
                    await self._rest(pause)
            self._taken.pop(self.uid, None)

    async def _rest(self, pause: float | None) -> None:
        """Wait for a change of the outbox, or, while a delivery is put off, for its next try."""
        before = self._next_sequence()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                while self._next_sequence() == before:
                    await self._changed.wait()
                    self._changed.clear()

    def _next_sequence(self) -> int | None:
        """Give the number of the oldest pending event; -1 once the Job is gone."""
        job = self._doors.cache.job(self.base, self.uid)
        if job is None:
            return -1
        return job.pending[0].sequence if job.pending else None

    async def _guarded(self, job: Job) -> float:
        try:
            return await self._deliver_next(job)
        except PyvattiError as error:
            log.warning("delivery not written back", error=str(error))
            return self._back_off(FIRST_BACKOFF, None)
        except Exception:  # one bad job never stops the others
            log.exception("delivery broke")
            return self._back_off(BROKEN_BACKOFF, None)

    async def _deliver_next(self, job: Job) -> float:
        """Tell the oldest pending event; give the seconds to wait before the next one."""
        notice, settled = job.pending[0], self._taken.get(self.uid)
        if settled is None or settled.sequence != notice.sequence:
            self._hands.require_lease()
            reply = await self._doors.backend.tell(job.names.job_id, notice)
            settled, pause = self._judge(notice, reply)
            if settled is None:
                metrics.neighbour_errors.labels("backend", reply.answer.value).inc()
                log.warning("event not delivered", event_name=notice.event, answer=reply.text)
                return pause
            self._taken[self.uid] = settled
        await self._write_back(job, settled)
        self._failures = 0
        return 0.0

    def _judge(self, notice: Notice, reply: Reply) -> tuple[Notice | None, float]:
        now = self._doors.clock()
        delivery = _ENDS.get(reply.answer)
        if delivery is None and now >= notice.at + self._doors.settings.notify_give_up_seconds:
            delivery = Delivery.UNDELIVERED
        if delivery is not None:
            return replace(notice, delivery=delivery, settled_at=now, answer=reply.text), 0.0
        slow = reply.answer is Answer.RETRY_SLOWLY
        first = self._doors.limits.denied_pause if slow else FIRST_BACKOFF
        return None, self._back_off(first, reply.retry_after)

    def _back_off(self, first: float, asked: float | None) -> float:
        self._failures += 1
        pause = min(first * 2.0 ** min(self._failures - 1, 12), LONGEST_BACKOFF)
        return max(pause * random.uniform(0.7, 1.3), min(asked or 0.0, LONGEST_BACKOFF))  # noqa: S311 - jitter

    async def _write_back(self, job: Job, settled: Notice) -> None:
        def build(newest: Job) -> Manifest | None:
            pending = any(notice.sequence == settled.sequence for notice in newest.pending)
            return settle_patch(newest, settled) if pending else None

        await self._hands.settle(job, build)
        self._taken.pop(self.uid, None)
        metrics.notices.labels(settled.event.value, settled.delivery.value).inc()
        if settled.delivery is Delivery.DELIVERED:
            log.info("event delivered", event_name=settled.event.value)
            self._hands.note(job, "Notified", f"the backend took {settled.event.value}")
            return
        log.error("event lost to the backend", event_name=settled.event, answer=settled.answer)
        text = f"{settled.event.value} is {settled.delivery.value}: {settled.answer}"
        self._hands.note(job, "NotificationFailed", text, warning=True)
