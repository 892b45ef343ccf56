"""Tells the backend again what it never took, because a person asked for it.

Of a live job the events become pending again and the acting replica's courier tells them; of a
finished one they are told here and noted in the record. Events that are pending need none of this.

However many ask at once, each event is told by one: the write that makes it pending, or claims the
record, fits only the version that was read. A claim whose holder died ends by itself.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from pyvatti import labels
from pyvatti.backend import Answer, Reply
from pyvatti.errors import Conflict, JobNotFound, NotFound, Unavailable
from pyvatti.jobs import id_names, outbox_patch, read_job, read_time, why_not_ours
from pyvatti.kube import CONFIGMAPS, JOBS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Delivery, IdNames, Job, Manifest, Notice, Record, lost_events
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

TRIES = 5
CLAIM_LASTS = timedelta(seconds=90)
"""Longer than a request may tell for (60 s): whoever claimed a record before is not telling now."""

_TELLING: set[asyncio.Task[Record]] = set()  # the event loop itself keeps no task alive


async def redeliver(doors: Doors, job_id: str) -> tuple[Notice, ...]:
    """Tell every event that ended undelivered, in order; give the events as they stand now.

    Raises JobNotFound; Unavailable with the backend's words if it refuses again, or while another
    request tells them.
    """
    names = id_names(job_id, doors.settings.namespace)
    for _ in range(TRIES):
        try:
            live = await _live(doors, names)
            if live is not None:
                return await _make_pending(doors, live)
        except (Conflict, NotFound):  # the acting replica was first: look again
            continue
        return await _tell_finished(doors, names)
    raise Unavailable("the job changes faster than it can be written", retry_after=1)


async def _live(doors: Doors, names: IdNames) -> Job | None:
    raw = await doors.kube.get(JOBS, names.base)
    if raw is None or why_not_ours(raw, doors.installation):
        return None
    job = read_job(raw)
    is_let_go = job.deleting_since is not None and labels.FINALIZER not in job.finalizers
    return None if job.withdrawn or is_let_go else job


async def _make_pending(doors: Doors, job: Job) -> tuple[Notice, ...]:
    again = [
        replace(notice, delivery=Delivery.PENDING, settled_at=None)
        for notice in lost_events(job.outbox)
    ]
    if not again:
        return doors.attempts.outbox(job)
    raw = await doors.kube.merge_patch(JOBS, job.names.base, outbox_patch(job, *again))
    return doors.cache.note_job(raw).outbox


async def _tell_finished(doors: Doors, names: IdNames) -> tuple[Notice, ...]:
    claim = secrets.token_hex(8)
    record = await _claim(doors, names, claim)
    lost = lost_events(record.outbox)
    for notice in lost:
        work = _tell(doors, record, notice, claim, is_last=notice is lost[-1])
        telling = asyncio.create_task(work)  # noqa: TID251 - it must outlive its caller
        _TELLING.add(telling)
        telling.add_done_callback(_TELLING.discard)
        record = await asyncio.shield(telling)
    return record.outbox


async def _tell(
    doors: Doors, record: Record, notice: Notice, claim: str, *, is_last: bool
) -> Record:
    """Tell one event and note it; once begun it goes on to its end, though the caller has gone.

    So what the backend took is in the record and not told again. Raises Unavailable.
    """
    reply = await doors.backend.tell(record.job_id, record.uid, notice)
    metrics.attempts.labels(notice.event.value, reply.answer.value).inc()
    is_taken = reply.answer is Answer.DELIVERED
    names = id_names(record.job_id, doors.settings.namespace)
    over = claim if is_last or not is_taken else ""
    record = await _note(doors, names, notice.sequence, reply, over)
    if not is_taken:
        raise Unavailable(f"the backend did not take {notice.event}: {reply.text}")
    metrics.notices.labels(notice.event.value, Delivery.DELIVERED.value).inc()
    log.info("event delivered again", job=names.base, event_name=notice.event.value)
    return record


async def _claim(doors: Doors, names: IdNames, claim: str) -> Record:
    """Make sure that nobody else tells this record's lost events; one without any needs no claim.

    Raises JobNotFound, and Unavailable while another request holds a claim.
    """

    def build(raw: Manifest, record: Record) -> Manifest | None:
        if not lost_events(record.outbox):
            return None
        now = doors.clock()
        since = _claimed_at(raw)
        if since is not None and abs(now - since) < CLAIM_LASTS:
            raise Unavailable("its events are just being delivered again", retry_after=2)
        return _marked(f"{now.isoformat()} {claim}")

    return await _write(doors, names, build)


async def _note(doors: Doors, names: IdNames, sequence: int, reply: Reply, over: str) -> Record:
    """Note in the record's newest version what became of an event; `over` is a claim to end."""
    now = doors.clock()

    def told(notice: Notice) -> Notice:
        if notice.sequence != sequence:
            return notice
        tried = replace(notice, attempts=notice.attempts + 1, tried_at=now, answer=reply.text)
        if reply.answer is not Answer.DELIVERED:
            return tried
        return replace(tried, delivery=Delivery.DELIVERED, settled_at=now)

    def build(raw: Manifest, record: Record) -> Manifest:
        patch = records.outbox_patch(replace(record, outbox=tuple(map(told, record.outbox))))
        if over and _claim_of(raw).endswith(over):
            patch["metadata"]["annotations"][labels.REDELIVERY] = None
        return patch

    return await _write(doors, names, build)


async def _write(
    doors: Doors, names: IdNames, build: Callable[[Manifest, Record], Manifest | None]
) -> Record:
    """Compare-and-swap: patch the newest version of a record, unless `build` gives None.

    Gives the record as it stands then. Raises JobNotFound; Unavailable if it cannot be read, or
    changes faster than it can be written.
    """
    for _ in range(TRIES):
        raw = await doors.kube.get(CONFIGMAPS, names.record)
        record = None if raw is None else _read(doors, raw)
        if raw is None or record is None:
            raise JobNotFound(f"{names.job_id} is not known")
        if (patch := build(raw, record)) is None:
            return record
        patch["metadata"]["resourceVersion"] = raw["metadata"]["resourceVersion"]
        try:
            raw = await doors.kube.merge_patch(CONFIGMAPS, names.record, patch)
        except (Conflict, NotFound):
            continue
        return _read(doors, raw) or record
    raise Unavailable("the record changes faster than it can be written", retry_after=1)


def _read(doors: Doors, raw: Manifest) -> Record | None:
    """Read a record of this installation. Raises Unavailable for one nobody here can read."""
    found = records.read(raw, doors.installation)
    if found is None:
        return None
    if found.unreadable:
        raise Unavailable(f"the record of this job cannot be read: {found.unreadable}")
    return found.record


def _marked(claim: str) -> Manifest:
    return {"metadata": {"annotations": {labels.REDELIVERY: claim}}}


def _claim_of(raw: Manifest) -> str:
    return str((raw["metadata"].get("annotations") or {}).get(labels.REDELIVERY) or "")


def _claimed_at(raw: Manifest) -> datetime | None:
    """Give since when somebody tells; None without a claim, or with one that is none."""
    return read_time(_claim_of(raw).partition(" ")[0])
