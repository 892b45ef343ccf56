"""Writes to the Job object: compare-and-swap, one writer at a time, and Events about it.

What is written, and when, is decided elsewhere.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import structlog

from pyvatti import jobs, labels
from pyvatti.errors import Conflict
from pyvatti.kube import JOBS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.turns import NotYet
from pyvatti.models import Job, Manifest, Presence

log = structlog.get_logger(__name__)

PATCH_TRIES = 5
FOUND_PAUSE = 1.0  # seconds for which the watch may take to bring a found Job back


class JobWriter:
    """Writes to live Jobs, for actors and couriers alike."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._pens: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by uid

    def note(self, job: Job, reason: str, text: str, *, warning: bool = False) -> None:
        """Tell an Event about the job."""
        self._doors.events.note(job, reason, text, self._doors.clock(), warning=warning)

    async def patch(self, job: Job, build: Callable[[Job], Manifest | None]) -> None:
        """Compare-and-swap: build from the newest version; None means there is nothing to write."""
        async with self.pen(job):
            for _ in range(PATCH_TRIES):
                newest = self._doors.cache.job(job.names.base, job.uid)
                if newest is None or (patch := build(newest)) is None:
                    return
                if newest.presence is Presence.GONE:
                    self._doors.cache.patch_lost(job.uid, patch)
                    return
                if await self._try_patch(job, patch):
                    return
        raise Conflict(f"Job {job.names.base} changes faster than it can be written")

    async def _try_patch(self, job: Job, patch: Manifest) -> bool:
        """Write a patch; False where another version came first and is read now."""
        kube, cache = self._doors.kube, self._doors.cache
        try:
            cache.note_job(await kube.merge_patch(JOBS, job.names.base, patch))
        except Conflict:
            raw = await kube.get(JOBS, job.names.base)
            if raw is not None and raw["metadata"]["uid"] == job.uid:
                cache.note_job(raw)
                return False
        return True

    def pen(self, job: Job) -> asyncio.Lock:
        """Give the lock under which this Job is written: actor and courier never collide."""
        return self._pens.setdefault(job.uid, asyncio.Lock())

    async def find(self, job: Job) -> None:
        """Read a Job that left our sight, and its record, before believing that it is gone."""
        kube, cache, names = self._doors.kube, self._doors.cache, job.names
        raw = await kube.get(JOBS, names.base)
        if raw is not None and raw["metadata"]["uid"] == job.uid:
            identity = labels.identity(self._doors.installation, labels.DRIVER)
            patch = jobs.identity_patch(jobs.read_job(raw), identity)
            cache.note_job(await kube.merge_patch(JOBS, names.base, patch))
            self.note(job, "Repaired", "labels were edited and are put back")
            raise NotYet(FOUND_PAUSE)  # the watch brings it back
        record = await records.find(kube, names)
        if record is not None and record.uid == job.uid:
            cache.drop_lost(job.uid)  # another replica brought it to its end
            return
        log.error("job is gone before it was let go", state=job.state.value)
        dying_since = (job.deleting_since or self._doors.clock()).isoformat()
        held = {"deletionTimestamp": dying_since, "finalizers": [labels.FINALIZER]}
        cache.patch_lost(job.uid, {"metadata": held})
