"""Tells the backend again what it never took, because a person asked for it.

Of a live job the events become pending again and the acting replica's courier tells them; of a
finished one they are told here and noted in the record. Events that are pending need none of this.
"""

from dataclasses import replace

import structlog

from pyvatti.backend import Answer
from pyvatti.errors import Conflict, JobNotFound, NotFound, Unavailable
from pyvatti.jobs import id_names, outbox_patch, read_job, why_not_ours
from pyvatti.kube import CONFIGMAPS, JOBS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Delivery, IdNames, Job, Notice, Record, lost_events
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

TRIES = 5


async def redeliver(doors: Doors, job_id: str) -> tuple[Notice, ...]:
    """Tell every event that ended undelivered, in order; give the events as they stand now.

    Raises JobNotFound; Unavailable with the backend's words if it refuses again.
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
    return None if job.withdrawn else job


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
    record = await records.find(doors.kube, names, doors.installation)
    if record is None:
        raise JobNotFound(f"{names.job_id} is not known")
    for notice in lost_events(record.outbox):
        record = await _tell(doors, names.record, record, notice)
    return record.outbox


async def _tell(doors: Doors, name: str, record: Record, notice: Notice) -> Record:
    reply = await doors.backend.tell(record.job_id, record.uid, notice)
    metrics.attempts.labels(notice.event.value, reply.answer.value).inc()
    now = doors.clock()
    told = replace(notice, attempts=notice.attempts + 1, tried_at=now, answer=reply.text)
    if reply.answer is Answer.DELIVERED:
        told = replace(told, delivery=Delivery.DELIVERED, settled_at=now)
    outbox = tuple(told if item.sequence == told.sequence else item for item in record.outbox)
    record = replace(record, outbox=outbox)
    await doors.kube.merge_patch(CONFIGMAPS, name, records.outbox_patch(record))
    if reply.answer is not Answer.DELIVERED:
        raise Unavailable(f"the backend did not take {notice.event}: {reply.text}")
    metrics.notices.labels(notice.event.value, told.delivery.value).inc()
    log.info("event delivered again", job=record.job_id.lower(), event_name=notice.event.value)
    return record
