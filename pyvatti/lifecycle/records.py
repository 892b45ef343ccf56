"""Records: what is kept of a finished job, as a ConfigMap. No request, no personal data, no secret.

A record is written before the Job is let go and deleted by the sweeper after its retention. One
that cannot be read exists all the same: it is never written to, and its id stays finished.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from pyvatti import foreign, labels
from pyvatti.errors import AlreadyExists, Conflict, NotOurs
from pyvatti.jobs import JOB_NAME, bounds, names_for, read_time, why_record_not_ours
from pyvatti.kube import CONFIGMAPS, KubeClient
from pyvatti.manifests import Renderer
from pyvatti.models import IdNames, Installation, Job, Manifest, Record, State, lost_events
from pyvatti.policy import Progress, proof

KEY = "record.json"
VERSION = 1  # of the form; a higher one is left alone
TRIES = 5  # of a compare-and-swap
_RECORD: TypeAdapter[Record] = TypeAdapter(Record)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A record that exists. Where `unreadable` says why, `record` is what its labels say."""

    record: Record
    unreadable: str = ""
    resource_version: str = ""


def build(
    renderer: Renderer, job: Job, whose: Installation, done: Progress, now: datetime
) -> Manifest:
    """Make the record of a finished job."""
    record = Record(
        version=VERSION,
        job_id=job.names.job_id,
        uid=job.uid,
        namespace_uid=whose.namespace_uid,
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
        removals=done.removals,
        remaining=done.remaining,
    )
    patch = written(record, whose)
    manifest = renderer.record(job.names, whose, state=job.state, data=patch["data"])
    # lists read metadata alone
    marks = manifest["metadata"].setdefault("annotations", {})
    marks |= patch["metadata"]["annotations"] | {labels.ACCEPTED_AT: job.accepted_at.isoformat()}
    return manifest


def written(record: Record, whose: Installation) -> Manifest:
    """Give a record as a merge patch: its content and what lists show of it."""
    names = names_for(record.job_id, whose.namespace, record.uid)
    is_complete = proof.is_complete(record, names)
    marks = {
        labels.LOST_EVENTS: _lost(record),
        labels.REMAINS: "" if is_complete else "true",
    }
    return {"metadata": {"annotations": marks}, "data": {KEY: dump(record)}}


def outbox_patch(record: Record) -> Manifest:
    """Write how the delivery of a record's events stands now."""
    marks = {labels.LOST_EVENTS: _lost(record)}
    return {"metadata": {"annotations": marks}, "data": {KEY: dump(record)}}


def _lost(record: Record) -> str:
    return ",".join(notice.event.value for notice in lost_events(record.outbox))


def read(raw: Manifest, whose: Installation) -> Found | None:
    """Read a ConfigMap `{"metadata": {"name", "labels", ...}, "data": {"record.json"}}`.

    None where it is no record of this installation. What is ours by name and labels exists,
    whatever it holds.
    """
    if why_record_not_ours(raw, whose):
        return None
    version = raw["metadata"].get("resourceVersion", "")
    try:
        record = _parse((raw.get("data") or {}).get(KEY, ""))
        _require_agreement(record, raw, whose)
    except ValueError as error:
        return Found(record=_from_labels(raw), unreadable=str(error), resource_version=version)
    return Found(record=record, resource_version=version)


def _parse(text: str) -> Record:
    """Read the content of a record. Raises ValueError with a sentence, never with the content."""
    if (version := _version_of(text)) > VERSION:
        raise ValueError(f"it was written by a newer pyvatti (form {version})")
    try:
        record = _RECORD.validate_json(text, extra="forbid")
    except ValidationError as error:
        places = {".".join(map(str, item["loc"])) for item in error.errors(include_input=False)}
        raise ValueError(f"not understood: {', '.join(sorted(places)[:3])}"[:200]) from None
    bounds.check(record)
    cleaned: Record = bounds.with_clean_texts(record, foreign.without_secrets)
    return cleaned


def _version_of(text: str) -> int:
    """Give the form a record says it has; 0 where it says none."""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return 0
    version = said.get("version", 0) if isinstance(said, dict) else 0
    return version if isinstance(version, int) else 0


def _require_agreement(record: Record, raw: Manifest, whose: Installation) -> None:
    """Raise ValueError where the content speaks of another job than name and labels do."""
    marks = raw["metadata"]["labels"]
    agreed = {
        "job_id": record.job_id.lower() == marks.get(labels.JOB_ID)
        and record.job_id == record.job_id.upper(),
        "uid": record.uid == marks.get(labels.JOB_UID),
        "state": record.state == marks.get(labels.STATE) and record.state.is_terminal,
        "namespace_uid": record.version == 0 or record.namespace_uid == whose.namespace_uid,
        "version": record.version >= 0,
    }
    if odd := [name for name, agrees in agreed.items() if not agrees]:
        raise ValueError(f"its content and its labels do not agree: {', '.join(odd)}")


def dump(record: Record) -> str:
    """Write a record as JSON."""
    return _RECORD.dump_json(record, exclude_none=True).decode()


async def store(client: KubeClient, record: Manifest, whose: Installation) -> None:
    """Write a record, or bring the one that an earlier pass wrote up to date.

    One that a newer pyvatti wrote of this very job stays as it is. Raises NotOurs if its name
    belongs to somebody else; Conflict, NamespaceTerminating.
    """
    metadata = record["metadata"]
    name, uid = metadata["name"], metadata["labels"][labels.JOB_UID]
    try:
        await client.create(CONFIGMAPS, record)
    except AlreadyExists:
        raw = await client.get(CONFIGMAPS, name)
        if raw is None:
            raise Conflict(f"ConfigMap {name} exists and is missing at once") from None
        found = read(raw, whose)
        if found is None or found.record.uid != uid:
            raise NotOurs(f"ConfigMap {name} is somebody else's: no record is written") from None
        if _version_of((raw.get("data") or {}).get(KEY, "")) > VERSION:
            log.warning("record of a newer pyvatti is left alone", record=name)
            return
        marks = {key: metadata[key] for key in ("labels", "annotations")}
        fence = {"resourceVersion": found.resource_version}
        await client.merge_patch(
            CONFIGMAPS, name, {"metadata": {**marks, **fence}, "data": record["data"]}
        )


async def look(client: KubeClient, names: IdNames, whose: Installation) -> Found | None:
    """Look up this installation's record of a job; None only where there is definitely none."""
    raw = await client.get(CONFIGMAPS, names.record)
    return None if raw is None else read(raw, whose)


async def find(
    client: KubeClient, names: IdNames, whose: Installation | None = None
) -> Record | None:
    """Look up the record of a job; None only where there is definitely none.

    With an installation, only a record of that one: another in the namespace answers for its own
    jobs. Without, whatever has the record's name: its id cannot be used again.
    """
    raw = await client.get(CONFIGMAPS, names.record)
    if raw is None:
        return None
    if whose is None:
        return _from_labels(raw)
    found = read(raw, whose)
    return None if found is None else found.record


async def update(
    client: KubeClient,
    names: IdNames,
    whose: Installation,
    change: Callable[[Record], Record | None],
) -> Record | None:
    """Compare-and-swap: change the newest version of a record; None leaves it as it is.

    Gives the record as it stands then, None where there is none. One that cannot be read is left
    alone. Raises Conflict if it changes faster than it can be written; NotFound.
    """
    for _ in range(TRIES):
        found = await look(client, names, whose)
        if found is None or found.unreadable:
            return None if found is None else found.record
        changed = change(found.record)
        if changed is None or changed == found.record:
            return found.record
        changed = replace(changed, version=found.record.version)
        patch = written(changed, whose)
        patch["metadata"]["resourceVersion"] = found.resource_version
        try:
            await client.merge_patch(CONFIGMAPS, names.record, patch)
        except Conflict:
            continue
        return changed
    raise Conflict(f"ConfigMap {names.record} changes faster than it can be written")


def _from_labels(raw: Manifest) -> Record:
    metadata = raw["metadata"]
    marks = metadata.get("labels") or {}
    created = read_time(metadata.get("creationTimestamp")) or datetime.fromtimestamp(0, UTC)
    named = metadata["name"].removesuffix("-record")
    return Record(
        job_id=(named if JOB_NAME.fullmatch(named) else "").upper(),
        uid=str(marks.get(labels.JOB_UID) or ""),
        state=State.SUCCEEDED if marks.get(labels.STATE) == State.SUCCEEDED else State.FAILED,
        accepted_at=read_time((metadata.get("annotations") or {}).get(labels.ACCEPTED_AT))
        or created,
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
    """Give all records' metadata, page by page, those of older versions last.

    Memory holds one page. Records say that they are of a service of this name: tell copies apart
    with why_record_not_ours.
    Raises TimeoutError when a single page takes longer than `patience` seconds.
    """
    for selector in (labels.selector, labels.selector_of_before):
        terms = [selector(instance, labels.RECORD)]
        terms += [f"{key}={value}" for key, value in (extra or {}).items()]
        token = None
        while token != "":
            async with asyncio.timeout(patience):
                listed = await client.list_page(
                    CONFIGMAPS,
                    selector=",".join(terms),
                    limit=page,
                    continue_=token or "",
                    metadata_only=True,
                )
            for raw in listed.items:
                yield raw
            token = listed.continue_
