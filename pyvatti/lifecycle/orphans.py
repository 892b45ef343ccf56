"""Finds Pods and Secrets of ours whose Job is gone, and Jobs nobody can see any more.

Used by the sweeper alone. Reads metadata, never the content of a Secret; what the API server does
not itself say to be gone counts as there, and what is not ours in all respects is left alone.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import structlog

from pyvatti import labels
from pyvatti.jobs import (
    names_for,
    read_time,
    why_left_pod_not_ours,
    why_left_secret_not_ours,
    why_not_ours,
    why_secret_not_of,
)
from pyvatti.kube import JOBS, PODS, SECRETS, Kind
from pyvatti.lifecycle.cache import Foreign
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.guards import Guards, Item
from pyvatti.lifecycle.strangers import Strangers
from pyvatti.models import Installation, Manifest
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

LEAST_AGE = timedelta(hours=1)
"""How old a thing without a Job must be: whoever makes it may still be at work."""

OF_BEFORE = "made by an older version: it must be finished before the upgrade"

Why = Callable[[Manifest, Installation], str]


class Orphans:
    """What carries our labels in the cluster and belongs to no live Job."""

    def __init__(self, doors: Doors, guards: Guards, strangers: Strangers) -> None:
        self._doors, self._guards, self._strangers = doors, guards, strangers

    async def restore_jobs(self) -> None:
        """Put labels back on Jobs of ours whose labels do not say so any more."""
        ours = labels.selector(self._doors.settings.instance, labels.DRIVER)
        listed = [*await self._listed(JOBS, labels.JOB_ID), *await self._listed(JOBS, ours)]
        before = []
        for raw in {raw["metadata"]["uid"]: raw for raw in listed}.values():
            if _is_of_before(raw, self._doors.installation):
                metadata = raw["metadata"]
                before.append(Foreign(name=metadata["name"], uid=metadata["uid"], why=OF_BEFORE))
            elif _may_be_edited(raw, self._doors.installation):
                metadata = raw["metadata"]
                item = Item("job", metadata["name"], metadata["uid"], JOBS)
                await self._guards.run(item, partial(self._restore, raw))

        self._doors.cache.note_of_before(before)

    async def _restore(self, raw: Manifest) -> None:
        metadata, whose = raw["metadata"], self._doors.installation
        named = f"metadata.name={metadata['name']}"
        page = await self._doors.kube.list_page(SECRETS, field_selector=named, metadata_only=True)
        if not _is_ours_by(raw, next(iter(page.items), None), whose):
            return
        marks = {**labels.identity(whose, labels.DRIVER), labels.JOB_ID: metadata["name"]}
        fence = {key: metadata[key] for key in ("uid", "resourceVersion")}
        patch = {"metadata": {**fence, "labels": marks}}
        await self._doors.kube.merge_patch(JOBS, metadata["name"], patch)
        metrics.swept.labels("job").inc()
        log.warning("lost job found", job=metadata["name"])

    async def remove_pods(self) -> None:
        """Remove Pods whose Job is gone: they may write."""
        await self._remove_all(PODS, (labels.DRIVER,), why_left_pod_not_ours)

    async def remove_secrets(self) -> None:
        """Remove Secrets whose Job is gone."""
        await self._remove_all(SECRETS, (labels.DRIVER, labels.TRANSFER), why_left_secret_not_ours)

    async def is_gone(self, base: str, uid: str) -> bool:
        """Tell whether the API server itself says that this very Job does not exist."""
        if self._doors.cache.job(base, uid) is not None:
            return False
        job = await self._doors.kube.get(JOBS, base)
        return job is None or job["metadata"]["uid"] != uid

    async def _remove_all(self, kind: Kind, components: tuple[str, ...], why_not: Why) -> None:
        said = kind.kind.lower()
        self._strangers.begin(said)
        for component in components:
            selector = labels.selector(self._doors.settings.instance, component)
            for raw in await self._listed(kind, selector):
                metadata = raw["metadata"]
                if why := why_not(raw, self._doors.installation):
                    self._strangers.note_object(said, raw, why, kind)
                    continue
                item = Item(said, metadata["name"], metadata["uid"], kind)
                await self._guards.run(item, partial(self._remove, kind, raw))
        self._strangers.end(said)

    async def _remove(self, kind: Kind, raw: Manifest) -> None:
        metadata = raw["metadata"]
        base, uid = metadata["labels"][labels.JOB_ID], labels.owner_uid(raw)
        if not is_old(read_time(metadata.get("creationTimestamp")), self._doors.clock()):
            return
        if await self.is_gone(base, uid):
            await self._doors.kube.delete(kind, metadata["name"], uid=metadata["uid"])
            metrics.swept.labels(kind.kind.lower()).inc()
            log.warning("leftover removed", kind=kind.kind, name=metadata["name"], job=base)

    async def _listed(self, kind: Kind, selector: str) -> list[Manifest]:
        found: list[Manifest] = []
        token = ""
        while True:
            page = await self._doors.kube.list_page(
                kind, selector=selector, continue_=token, metadata_only=True
            )
            found += page.items
            token = page.continue_
            if not token:
                return found


def _is_of_before(raw: Manifest, whose: Installation) -> bool:
    """Tell whether an older version made a Job and has not let it go."""
    held = labels.FINALIZER in (raw["metadata"].get("finalizers") or ())
    is_driver = (raw["metadata"].get("labels") or {}).get(labels.COMPONENT) == labels.DRIVER
    return held and is_driver and labels.is_of_before(raw, whose.instance)


def _may_be_edited(raw: Manifest, whose: Installation) -> bool:
    """Tell whether a Job holds our finalizer and does not say whose it is in all its labels."""
    metadata = raw["metadata"]
    found = metadata.get("labels") or {}
    marks = {**labels.identity(whose, labels.DRIVER), labels.JOB_ID: metadata["name"]}
    is_intact = marks.items() <= found.items()
    return labels.FINALIZER in (metadata.get("finalizers") or ()) and not is_intact


def _is_ours_by(raw: Manifest, secret: Manifest | None, whose: Installation) -> bool:
    """Tell whether a Job whose labels were edited is ours: they, or its own Secret's, still say so.

    A copy or a restored Job names another Namespace and has another uid: it is not adopted.
    """
    metadata = raw["metadata"]
    found = metadata.get("labels") or {}
    marks = {**labels.identity(whose, labels.DRIVER), labels.JOB_ID: metadata["name"]}
    mended = {**raw, "metadata": {**metadata, "labels": found | marks}}
    if why_not_ours(mended, whose):
        return False
    names = names_for(metadata["name"], whose.namespace, metadata["uid"])
    is_secret_its = (
        secret is not None
        and bool(secret["metadata"].get("ownerReferences"))
        and labels.is_of(secret, whose)
        and not why_secret_not_of(secret, names, whose)
    )
    is_of_here = all(
        found.get(key) == marks[key] for key in (labels.NAMESPACE_UID, labels.INSTANCE)
    )
    is_no_copy = found.get(labels.JOB_ID, metadata["name"]) == metadata["name"]
    return is_secret_its or (is_of_here and is_no_copy)


def is_old(created: datetime | None, now: datetime) -> bool:
    """Tell whether a thing was made so long ago that nobody is still at work on it."""
    return created is not None and now >= created + LEAST_AGE
