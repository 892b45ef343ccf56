"""Records: what is kept of a finished job, as a ConfigMap. No request, no personal data, no secret.

A record is written before the Job is let go and deleted by the sweeper after its retention.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from pydantic import TypeAdapter

from pyvatti import foreign, labels
from pyvatti.errors import AlreadyExists, Conflict, NotOurs
from pyvatti.jobs import Unreadable, parse, read_time
from pyvatti.kube import CONFIGMAPS, KubeClient
from pyvatti.manifests import Renderer
from pyvatti.models import (
    IdNames,
    Installation,
    Job,
    Manifest,
    Record,
    Removal,
    State,
    lost_events,
)

KEY = "record.json"
_RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def build(
    renderer: Renderer,
    job: Job,
    whose: Installation,
    removals: tuple[Removal, ...],
    now: datetime,
) -> Manifest:
    """Make the record of a finished job."""
    record = Record(
        job_id=job.names.job_id,
        uid=job.uid,
        state=job.state,
        accepted_at=job.accepted_at,
        finished_at=job.transitions.get(job.state, now),
        removed_at=now,
        run_name=job.names.run_name,
        results_bucket=job.names.results_bucket if job.state is State.SUCCEEDED else None,
        request_hash=job.request_hash,
        transitions=job.transitions,
        verdict=job.verdict,
        outbox=job.outbox,
        removals=removals,
    )
    data = {KEY: dump(record)}
    manifest = renderer.record(job.names, whose, state=job.state, data=data)
    marks = manifest["metadata"].setdefault("annotations", {})
    # lists read metadata alone
    marks[labels.ACCEPTED_AT] = job.accepted_at.isoformat()
    marks[labels.LOST_EVENTS] = _lost(record)
    return manifest


def outbox_patch(record: Record) -> Manifest:
    """Write how the delivery of a record's events stands now."""
    marks = {labels.LOST_EVENTS: _lost(record)}
    return {"metadata": {"annotations": marks}, "data": {KEY: dump(record)}}


def _lost(record: Record) -> str:
    return ",".join(notice.event.value for notice in lost_events(record.outbox))


def read(raw: Manifest) -> Record | None:
    """Read a record, strictly; None where it does not parse."""
    try:
        return parse((raw.get("data") or {}).get(KEY, ""), _RECORD, foreign.without_secrets)
    except Unreadable:
        return None


def dump(record: Record) -> str:
    """Write a record as JSON."""
    return _RECORD.dump_json(record, exclude_none=True).decode()


async def store(client: KubeClient, record: Manifest) -> None:
    """Write a record, or bring the one that an earlier pass wrote up to date.

    Raises NotOurs if its name belongs to somebody else; Conflict, NamespaceTerminating.
    """
    metadata = record["metadata"]
    name = metadata["name"]
    try:
        await client.create(CONFIGMAPS, record)
    except AlreadyExists:
        found = await client.get(CONFIGMAPS, name)
        if found is None:
            raise Conflict(f"ConfigMap {name} exists and is missing at once") from None
        if labels.owner_uid(found) != labels.owner_uid(record):
            raise NotOurs(f"ConfigMap {name} is somebody else's: no record is written") from None
        version = found["metadata"]["resourceVersion"]
        marks = {key: metadata[key] for key in ("labels", "annotations")}
        patch = {"metadata": {**marks, "resourceVersion": version}, "data": record["data"]}
        await client.merge_patch(CONFIGMAPS, name, patch)


async def find(
    client: KubeClient, names: IdNames, whose: Installation | None = None
) -> Record | None:
    """Look up the record of a job; None only where there is definitely none.

    With an installation, only a record of that one: another in the namespace answers for its own
    jobs. A record nobody can read still says that the id is finished: its name and labels
    are enough.
    """
    raw = await client.get(CONFIGMAPS, names.record)
    if raw is None or (whose is not None and not labels.is_of(raw, whose)):
        return None
    return read(raw) or _from_labels(raw, names)


def _from_labels(raw: Manifest, names: IdNames) -> Record:
    metadata = raw["metadata"]
    created = read_time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)
    state = (metadata.get("labels") or {}).get(labels.STATE)
    return Record(
        job_id=names.job_id,
        uid=labels.owner_uid(raw),
        state=State.SUCCEEDED if state == State.SUCCEEDED else State.FAILED,
        accepted_at=created,
        finished_at=created,
        removed_at=created,
        run_name="",
    )


async def every(
    client: KubeClient,
    instance: str,
    *,
    extra: Mapping[str, str] | None = None,
    page: int = 500,
    patience: float | None = None,
) -> AsyncIterator[Manifest]:
    """Give all records' metadata, page by page; memory holds one page.

    Raises TimeoutError when a single page takes longer than `patience` seconds.
    """
    selector = labels.selector(instance, labels.RECORD)
    for key, value in (extra or {}).items():
        selector += f",{key}={value}"
    token = ""
    while True:
        async with asyncio.timeout(patience):
            listed = await client.list_page(
                CONFIGMAPS, selector=selector, limit=page, continue_=token, metadata_only=True
            )
        for raw in listed.items:
            yield raw
        token = listed.continue_
        if not token:
            return
