"""Tells the backend one job's events, in order, each until the first 200. Decides no state.

Runs beside the job's passes: neither a failing delivery nor a failing clean-up delays the other.
"""

import asyncio
import contextlib
import random
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog

from pyvatti import fence, foreign
from pyvatti.backend import Answer, Reply
from pyvatti.errors import Conflict, Deposed, PyvattiError
from pyvatti.guard import Guard
from pyvatti.jobs import outbox_patch
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.writing import JobWriter, Wrote
from pyvatti.models import Delivery, Job, Manifest, Notice
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

FIRST_BACKOFF = 1.0  # seconds
LONGEST_BACKOFF = 300.0  # seconds
BROKEN_BACKOFF = 60.0  # seconds, after an error nobody expected
LAST_WORDS = 1.0  # seconds for which a courier that is stopped waits for an answer that is due
FIRST_NOTED = 4  # tries, after about 10 s: a restart of the backend is no news

_ENDS = {Answer.DELIVERED: Delivery.DELIVERED, Answer.DEAD: Delivery.DEAD}


def back_off(failures: int, first: float, asked: float | None = None) -> float:
    """Give the seconds until the next try: twice as many each time, spread, at most 5 minutes.

    `asked` is what a Retry-After asked for.
    """
    pause = min(first * 2.0 ** min(failures - 1, 12), LONGEST_BACKOFF)
    return max(pause * random.uniform(0.6, 1.0), min(asked or 0.0, LONGEST_BACKOFF))  # noqa: S311 - jitter


def _is_due(job: Job) -> bool:
    """Tell whether there is something to tell: of a launch that is being taken back, nothing."""
    return bool(job.pending) and not job.withdrawn


class Courier:
    """Empties the outbox of one Job (name and uid)."""

    def __init__(self, doors: Doors, writer: JobWriter, job: Job) -> None:
        self.base, self.uid = job.names.base, job.uid
        self._doors, self._writer = doors, writer
        self._changed = asyncio.Event()
        self._failures = 0
        self.guard = Guard("courier")

    def poke(self) -> None:
        """Look at the outbox: the job changed."""
        self._changed.set()

    async def deliver(self) -> None:
        """Deliver until the Job is gone."""
        about = foreign.about(partial(self._doors.cache.personal.of, self.uid))
        with structlog.contextvars.bound_contextvars(job=self.base), about:
            while (job := self._doors.cache.job(self.base, self.uid)) is not None:
                pause = await self._guarded(job) if _is_due(job) else None
                if pause != 0:
                    await self._rest(pause)
            self._doors.attempts.forget(self.uid)

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
        return job.pending[0].sequence if _is_due(job) else None

    async def _guarded(self, job: Job) -> float:
        try:
            return await self._deliver_next(job)
        except PyvattiError as error:
            log.warning("delivery not written back", error=str(error))
            return self._back_off(FIRST_BACKOFF, None)
        except Exception as error:  # noqa: BLE001 - one bad job never stops the others
            self.guard.note(self.base, error)
            return self._back_off(BROKEN_BACKOFF, None)

    async def _deliver_next(self, job: Job) -> float:
        """Tell the oldest pending event; give the seconds to wait before the next one."""
        try:
            return await asyncio.shield(self._deliver(job))
        except asyncio.CancelledError:
            await self._hear_out()
            raise

    async def _deliver(self, job: Job) -> float:
        """Tell and write back; once begun it goes on to its end, though the courier be stopped.

        So what the backend took is known here and not told again, by this process at least.
        """
        attempts = self._doors.attempts
        async with attempts.turn(self.uid):
            job = self._doors.cache.job(self.base, self.uid) or job
            if not _is_due(job):  # whoever had the turn before told it
                return 0.0
            notice = attempts.newest(self.uid, job.pending[0])
            if notice.delivery is Delivery.PENDING:
                reply = await self._doors.backend.tell(job.names.job_id, self.uid, notice)
                metrics.attempts.labels(notice.event.value, reply.answer.value).inc()
                notice, pause = self._judge(notice, reply)
                attempts.note(self.uid, notice)
                if notice.delivery is Delivery.PENDING:
                    await self._note_failure(job, notice, pause)
                    return pause
            await self._write_back(job, notice)
            self._failures = 0
            self.guard.forget(self.base)
            return 0.0

    async def _hear_out(self) -> None:
        """Leave a delivery under way a little time to end, while the Lease is still ours."""
        with contextlib.suppress(Deposed, TimeoutError):
            fence.require()
            async with asyncio.timeout(LAST_WORDS), self._doors.attempts.turn(self.uid):
                pass

    def _judge(self, notice: Notice, reply: Reply) -> tuple[Notice, float]:
        """Give the event as it stands after a try, and the seconds until the next one."""
        now = self._doors.clock()
        tried = replace(
            notice,
            attempts=notice.attempts + 1,
            answer=reply.text,
            tried_at=now,
            next_try_at=None,
        )
        delivery = _ENDS.get(reply.answer)
        if delivery is None and now >= notice.at + self._doors.settings.notify_give_up_seconds:
            delivery = Delivery.UNDELIVERED
        if delivery is not None:
            return replace(tried, delivery=delivery, settled_at=now), 0.0
        slow = reply.answer is Answer.RETRY_SLOWLY
        first = self._doors.limits.denied_pause if slow else FIRST_BACKOFF
        pause = self._back_off(first, reply.retry_after)
        return replace(tried, next_try_at=now + timedelta(seconds=pause)), pause

    def _back_off(self, first: float, asked: float | None) -> float:
        self._failures += 1
        return back_off(self._failures, first, asked)

    async def _note_failure(self, job: Job, notice: Notice, pause: float) -> None:
        """Say that an event was not taken; at the 4th, 8th, 16th ... try also to the cluster.

        So a healthy job costs no write more, and one whose backend is away for a week costs ten.
        """
        tries, name = notice.attempts, notice.event.value
        log.warning(
            "event not delivered",
            event_name=name,
            attempts=tries,
            answer=notice.answer,
            again_in=round(pause, 1),
        )
        if tries < FIRST_NOTED or tries & (tries - 1):
            return
        text = f"the backend did not take {name} in {tries} tries: {notice.answer}"
        self._writer.note(job, "NotificationDelayed", text, warning=True)
        try:
            await self._store(job, replace(notice, next_try_at=None))
        except PyvattiError as error:  # memory has it; the next noted try is written again
            log.debug("attempts not written down", error=str(error))

    async def _write_back(self, job: Job, settled: Notice) -> None:
        if await self._store(job, settled) is Wrote.GONE:  # or so one answer says: it is kept
            raise Conflict("the Job is not there to note it")
        self._doors.attempts.forget(self.uid)
        metrics.notices.labels(settled.event.value, settled.delivery.value).inc()
        if settled.delivery is Delivery.DELIVERED:
            log.info("event delivered", event_name=settled.event.value, attempts=settled.attempts)
            self._writer.note(job, "Notified", f"the backend took {settled.event.value}")
            return
        log.error(
            "event lost to the backend",
            event_name=settled.event.value,
            delivery=settled.delivery.value,
            attempts=settled.attempts,
            answer=settled.answer,
        )
        text = f"{settled.event.value} is {settled.delivery.value}: {settled.answer}"
        self._writer.note(job, "NotificationFailed", text, warning=True)

    async def _store(self, job: Job, told: Notice) -> Wrote:
        """Write down how the telling of a pending event stands."""

        def build(newest: Job) -> Manifest | None:
            pending = any(notice.sequence == told.sequence for notice in newest.pending)
            return outbox_patch(newest, told) if pending else None

        return await self._writer.patch(job, build)
