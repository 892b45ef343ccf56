"""Looks for leftovers: buckets without a live Job, old records, and what `orphans` finds.

Deletes only what is ours by name, labels and content and whose Job the API server itself says does
not exist; a failed look-up deletes nothing. Each thing has its own guard: one that fails stops
nothing else.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

import structlog

from pyvatti import labels
from pyvatti.errors import NotOurs, PyvattiError, Undeletable
from pyvatti.guard import Guard
from pyvatti.jobs import (
    JOB_NAME,
    listing_prefix,
    names_for,
    read_time,
    why_record_not_ours,
)
from pyvatti.kube import CONFIGMAPS
from pyvatti.lifecycle import records, removing
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.guards import Guards, Item
from pyvatti.lifecycle.orphans import Orphans, is_old
from pyvatti.lifecycle.strangers import Strangers
from pyvatti.models import Manifest, Names, Owner, Record, Remainder, Removal
from pyvatti.policy import proof, retention
from pyvatti.storage import BucketInfo
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

Part = Callable[[], Awaitable[None]]


class Sweeper:
    """Makes one sweep per interval."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        first = doors.settings.sweep_interval.total_seconds()
        self._guards = Guards(doors.events, first)
        self._guard = Guard("sweeper")
        self._strangers = Strangers(doors.events)
        self._orphans = Orphans(doors, self._guards, self._strangers)

    async def run(self) -> NoReturn:
        """Look for edited Jobs at once, for nobody follows them; then sweep until cancelled."""
        await self._do(self._orphans.restore_jobs)
        interval = self._doors.settings.sweep_interval.total_seconds()
        await asyncio.sleep(interval * random.uniform(0.02, 0.1))  # noqa: S311 - spreads load
        while True:
            await self.sweep()
            await asyncio.sleep(interval)

    async def sweep(self) -> None:
        """Remove every leftover there is now; a part that fails is made again at the next one."""
        parts: tuple[Part, ...] = (
            self._orphans.restore_jobs,
            self._orphans.remove_pods,
            self._orphans.remove_secrets,
            self._sweep_buckets,
            self._sweep_records,  # last: they say what the others removed
        )
        for part in parts:
            await self._do(part)
        self._guards.settle()

    async def _do(self, part: Part) -> None:
        try:
            await part()
        except PyvattiError as error:
            log.warning("sweep failed", part=part.__name__, error=str(error))
        except Exception as error:  # noqa: BLE001 - the sweeper never stops the controller
            self._guard.note(part.__name__, error)

    async def _sweep_buckets(self) -> None:
        self._strangers.begin("bucket")
        prefix = listing_prefix(self._doors.settings.namespace)
        for bucket in await self._doors.storage.list_buckets(prefix):
            names = self._names_of(bucket)
            if names is None:
                continue
            if bucket.name not in (names.work_bucket, names.results_bucket):
                why = "its name is not the one its labels give"
                self._strangers.note("bucket", bucket.name, names.uid, why)
                continue
            item = Item("bucket", bucket.name, names.uid)
            await self._guards.run(item, partial(self._sweep_bucket, bucket, names))
        self._strangers.end("bucket")

    def _names_of(self, bucket: BucketInfo) -> Names | None:
        """Give the names of the job that a bucket's labels tell of; None if it is no job of ours.

        The buckets of other installations are in the same project.
        """
        base = bucket.labels.get(labels.BUCKET_JOB_ID, "")
        uid = bucket.labels.get(labels.BUCKET_JOB_UID, "")
        whose = self._doors.installation
        wanted = labels.of_bucket(whose, base, uid)
        if not JOB_NAME.fullmatch(base) or not uid or not wanted.items() <= bucket.labels.items():
            return None
        return names_for(base, whose.namespace, uid)

    async def _sweep_bucket(self, bucket: BucketInfo, names: Names) -> None:
        """Remove a bucket that no live Job and no Pod claims, unless it holds results to be kept.

        Raises NotOurs, Undeletable.
        """
        pods = self._doors.cache.pods(names.uid)
        if not is_old(bucket.created_at, self._doors.clock()) or any(pod.is_live for pod in pods):
            return
        if not await self._orphans.is_gone(names.base, names.uid):
            return
        is_results = bucket.name == names.results_bucket
        if is_results and not await self._is_over(bucket, names):
            return
        removal = await self._remove_bucket(bucket.name, names)
        metrics.swept.labels("results" if is_results else "bucket").inc()
        said = "results removed: their time is over" if is_results else "leftover bucket removed"
        tell = log.info if is_results else log.warning
        tell(said, job=names.base, bucket=bucket.name, objects=removal.objects)

    async def _is_over(self, bucket: BucketInfo, names: Names) -> bool:
        """Tell whether a results bucket may go: results outlive their record.

        A record that cannot be read may tell of a success that ended late: they stay.
        """
        doors = self._doors
        found = await records.look(doors.kube, names, doors.installation)
        if found is not None and found.unreadable:
            return False
        record = found.record if found is not None and found.record.uid == names.uid else None
        fate = retention.results_fate(bucket.created_at, record, doors.clock(), doors.settings)
        if fate is retention.Fate.REMOVE_IF_EMPTY:
            return not await doors.storage.has_object(bucket.name, "", "", owner=self._owner(names))
        return fate is retention.Fate.REMOVE

    async def _remove_bucket(self, name: str, names: Names) -> Removal:
        turn = partial(self._await_turn, f"sweep {name}")
        return await removing.remove_bucket(self._doors, name, self._owner(names), turn)

    def _owner(self, names: Names) -> Owner:
        whose = self._doors.installation
        return Owner(installation=whose, job_id=names.base, job_uid=names.uid)

    async def _await_turn(self, key: str) -> None:
        limiter = self._doors.limiter
        try:
            while (delay := limiter.delay(key, time.monotonic())) > 0:  # noqa: ASYNC110 - a turn, no condition
                await asyncio.sleep(delay)
        finally:
            limiter.cancel(key)

    async def _sweep_records(self) -> None:
        """Look again at what records say remains, and delete those that are old and complete."""
        settings, now = self._doors.settings, self._doors.clock()
        self._strangers.begin("record")
        due, told = [], set()
        async for raw in records.every(self._doors.kube, settings.instance):
            metadata = raw["metadata"]
            if why := why_record_not_ours(raw, self._doors.installation):
                self._strangers.note_object("record", raw, why, CONFIGMAPS)
                continue
            remains = bool((metadata.get("annotations") or {}).get(labels.REMAINS))
            made_at = read_time(metadata.get("creationTimestamp"))
            if remains or retention.is_expired(made_at, now, settings):
                due.append(raw)
                told.add(metadata["labels"][labels.JOB_UID])
        self._doors.remains.keep_finished(told)
        for raw in due:
            metadata = raw["metadata"]
            item = Item("record", metadata["name"], metadata["uid"], CONFIGMAPS)
            await self._guards.run(item, partial(self._tend_record, raw))
        self._strangers.end("record")

    async def _tend_record(self, raw: Manifest) -> None:
        doors, metadata = self._doors, raw["metadata"]
        base, uid = (metadata["labels"][key] for key in (labels.JOB_ID, labels.JOB_UID))
        names = names_for(base, doors.settings.namespace, uid)
        found = await records.look(doors.kube, names, doors.installation)
        if found is None or not await self._orphans.is_gone(base, uid):
            return
        if found.unreadable:
            self._strangers.note_object("record", raw, found.unreadable, CONFIGMAPS)
            return
        # the buckets of an older version do not say whose they are: nothing of it is removed
        is_its = found.record.uid == uid and not labels.is_of_before(raw, doors.settings.instance)
        if is_its and not proof.is_complete(found.record, names):
            await self._look_again(found.record, names)
        made_at = read_time(metadata.get("creationTimestamp"))
        if retention.is_expired(made_at, doors.clock(), doors.settings):
            await doors.kube.delete(
                CONFIGMAPS, names.record, uid=metadata["uid"], propagation="Background"
            )
            metrics.swept.labels("record").inc()
            log.info("expired record removed", job=base)

    async def _look_again(self, record: Record, names: Names) -> None:
        """Remove what an earlier clean-up had to leave, and note it in the record.

        Raises the last of the errors where something still remains.
        """
        doors = self._doors
        doors.remains.note_finished(names.uid, record.finished_at)
        removals, remaining = record.removals, []
        failure: PyvattiError | None = None
        for resource in proof.unproven_of(record, names):
            try:
                removals = proof.merged(removals, *await self._remove(resource, names))
            except (NotOurs, Undeletable) as error:
                remaining.append(Remainder(resource=resource, reason=str(error)))
                failure = error
            except PyvattiError as error:
                failure = error
        kept = tuple(item for item in record.remaining if not item.made)
        seen = replace(record, removals=removals, remaining=(*kept, *remaining))

        def change(newest: Record) -> Record:
            return replace(newest, removals=seen.removals, remaining=seen.remaining)

        await records.update(doors.kube, names, doors.installation, change)
        if failure is not None:
            raise failure
        doors.remains.drop_finished(names.uid)
        log.info("what remained of a finished job is gone", job=names.base)

    async def _remove(self, resource: str, names: Names) -> tuple[Removal, ...]:
        kind, _, name = resource.partition("/")
        if kind == "secret":
            return (await removing.clear_secret(self._doors, names, name),)
        if kind == "pods":
            return (await removing.clear_pods(self._doors, names),)
        bucket, _, folder = name.partition("/")
        removal = await self._remove_bucket(bucket, names)
        if folder:
            return removal, replace(removal, resource=resource, removed_at=None)
        return (removal,)
