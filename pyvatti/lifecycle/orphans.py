"""Finds Pods and Secrets of ours whose Job is gone, and Jobs nobody can see any more.

Used by the sweeper alone. Reads metadata, never the content of a Secret; what the API server does
not itself say to be gone counts as there.
"""

from datetime import datetime, timedelta

import structlog

from pyvatti import labels
from pyvatti.jobs import read_time
from pyvatti.kube import JOBS, PODS, SECRETS, Kind
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Manifest
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

LEAST_AGE = timedelta(hours=1)
"""How old a thing without a Job must be: whoever makes it may still be at work."""


class Orphans:
    """What carries our labels in the cluster and belongs to no live Job."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    async def sweep(self) -> None:
        """Restore Jobs that lost a label, then remove Pods (they may write) and Secrets."""
        await self._restore_jobs()
        for kind in (PODS, SECRETS):
            for component in (labels.DRIVER, labels.TRANSFER):
                await self._remove_orphans(kind, component)

    async def is_gone(self, base: str, uid: str) -> bool:
        """Tell whether the API server itself says that this very Job does not exist."""
        if self._doors.cache.job(base, uid) is not None:
            return False
        job = await self._doors.kube.get(JOBS, base)
        return job is None or job["metadata"]["uid"] != uid

    async def _remove_orphans(self, kind: Kind, component: str) -> None:
        selector = labels.selector(self._doors.settings.instance, component)
        for raw in await self._listed(kind, selector):
            metadata = raw["metadata"]
            base = (metadata.get("labels") or {}).get(labels.JOB_ID, "")
            uid, made = labels.owner_uid(raw), read_time(metadata.get("creationTimestamp"))
            if not base or not uid or not is_old(made, self._doors.clock()):
                continue
            if await self.is_gone(base, uid):
                await self._doors.kube.delete(kind, metadata["name"], uid=metadata["uid"])
                metrics.swept.labels(kind.kind.lower()).inc()
                log.warning("leftover removed", kind=kind.kind, name=metadata["name"], job=base)

    async def _restore_jobs(self) -> None:
        """Put labels back on Jobs of this installation that our selector does not find."""
        instance = self._doors.settings.instance
        identity = labels.identity(self._doors.installation, labels.DRIVER)
        for raw in await self._listed(JOBS, f"{labels.JOB_ID},{labels.INSTANCE}={instance}"):
            metadata = raw["metadata"]
            held = labels.FINALIZER in (metadata.get("finalizers") or ())
            if not held or identity.items() <= metadata["labels"].items():
                continue
            fence = {key: metadata[key] for key in ("uid", "resourceVersion")}
            patch = {"metadata": {**fence, "labels": identity}}
            await self._doors.kube.merge_patch(JOBS, metadata["name"], patch)
            metrics.swept.labels("job").inc()
            log.warning("lost job found", job=metadata["name"])

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


def is_old(created: datetime | None, now: datetime) -> bool:
    """Tell whether a thing was made so long ago that nobody is still at work on it."""
    return created is not None and now >= created + LEAST_AGE
