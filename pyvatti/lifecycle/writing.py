"""Writes to the Job object: compare-and-swap, one writer at a time, and Events about it.

What is written, and when, is decided elsewhere.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from weakref import WeakValueDictionary

import structlog

from pyvatti import jobs, labels
from pyvatti.errors import Conflict, NotFound
from pyvatti.kube import JOBS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.turns import NotYet
from pyvatti.models import Job, Manifest, Presence

log = structlog.get_logger(__name__)

PATCH_TRIES = 5
FOUND_PAUSE = 1.0  # seconds for which the watch may take to bring a found Job back


class Wrote(StrEnum):
    """What became of a write."""

    WRITTEN = "written"
    NOTHING = "nothing"  # the newest version says it already, or takes no such write
    GONE = "gone"  # the Job is not there: what was to be written is written nowhere


class JobWriter:
    """Writes to live Jobs, for actors and couriers alike."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._pens: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by uid

    def note(self, job: Job, reason: str, text: str, *, warning: bool = False) -> None:
        """Tell an Event about the job."""
        self._doors.events.note(job, reason, text, self._doors.clock(), warning=warning)

    async def patch(self, job: Job, build: Callable[[Job], Manifest | None]) -> Wrote:
        """Compare-and-swap: build from the newest version; None means there is nothing to write.

        A Job that is being withdrawn takes no write but those of its withdrawal.
        """
        async with self.pen(job):
            newest = self._doors.cache.job(job.names.base, job.uid)
            for _ in range(PATCH_TRIES):
                if newest is None:
                    return Wrote.GONE
                if newest.withdrawn or (patch := build(newest)) is None:
                    return Wrote.NOTHING
                if newest.presence is Presence.GONE:
                    self._doors.cache.patch_lost(job.uid, patch)
                    return Wrote.WRITTEN
                try:
                    raw = await self._doors.kube.merge_patch(JOBS, job.names.base, patch)
                except Conflict:
                    newest = await self._read(job)
                except NotFound:
                    return Wrote.GONE
                else:
                    self._doors.cache.note_job(raw)
                    return Wrote.WRITTEN
        raise Conflict(f"Job {job.names.base} changes faster than it can be written")

    async def _read(self, job: Job) -> Job | None:
        """Read the version that came first; None where this very Job is gone."""
        raw = await self._doors.kube.get(JOBS, job.names.base)
        if raw is None or raw["metadata"]["uid"] != job.uid:
            return None
        return self._doors.cache.note_job(raw)

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
        record = await records.find(kube, names, self._doors.installation)
        if record is not None and record.uid == job.uid:
            cache.drop_lost(job.uid)  # another replica brought it to its end
            return
        log.error("job is gone before it was let go", state=job.state.value)
        dying_since = (job.deleting_since or self._doors.clock()).isoformat()
        held = {"deletionTimestamp": dying_since, "finalizers": [labels.FINALIZER]}
        cache.patch_lost(job.uid, {"metadata": held})
