"""Tells the backend again what it never took of a finished job, because a person asked for it.

Live jobs need none of this: their courier goes on by itself.
"""

from dataclasses import replace

from pyvatti.backend import Answer
from pyvatti.errors import JobNotFound, Unavailable
from pyvatti.jobs import names_for
from pyvatti.kube import CONFIGMAPS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Delivery, Notice, Record
from pyvatti.telemetry import metrics

LOST = (Delivery.DEAD, Delivery.UNDELIVERED)


async def redeliver(doors: Doors, job_id: str) -> tuple[Notice, ...]:
    """Tell every event that ended undelivered, in order, and note it in the record.

    Gives the events as they stand now; of a live job unchanged. Raises JobNotFound; Unavailable
    with the backend's words if it refuses again.
    """
    doors.cache.require_synced()
    names = names_for(job_id, doors.settings.namespace)
    live = doors.cache.job(names.base)
    if live is not None and not live.withdrawn:
        return live.outbox
    record = await records.find(doors.kube, names)
    if record is None:
        raise JobNotFound(f"{names.job_id} is not known")
    for notice in record.outbox:
        if notice.delivery in LOST:
            record = await _tell(doors, names.record, record, notice)
    return record.outbox


async def _tell(doors: Doors, name: str, record: Record, notice: Notice) -> Record:
    reply = await doors.backend.tell(record.job_id, notice)
    if reply.answer is not Answer.DELIVERED:
        raise Unavailable(f"the backend did not take {notice.event}: {reply.text}")
    settled = replace(
        notice, delivery=Delivery.DELIVERED, settled_at=doors.clock(), answer=reply.text
    )
    outbox = tuple(settled if item.sequence == notice.sequence else item for item in record.outbox)
    record = replace(record, outbox=outbox)
    await doors.kube.merge_patch(CONFIGMAPS, name, {"data": {records.KEY: records.dump(record)}})
    metrics.notices.labels(notice.event.value, settled.delivery.value).inc()
    return record
