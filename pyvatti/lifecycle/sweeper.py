"""Looks for leftovers: buckets without a live Job, expired records, and what `orphans` finds.

Deletes only what it owns by label and whose Job the API server itself says does not exist; a failed
look-up deletes nothing.
"""

import asyncio
import contextlib
import random
import time
from datetime import datetime, timedelta
from typing import NoReturn

import structlog

from pyvatti import labels
from pyvatti.errors import NotOurs, PyvattiError
from pyvatti.jobs import bucket_prefix, id_names, names_for, read_time
from pyvatti.kube import CONFIGMAPS
from pyvatti.lifecycle import records
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.orphans import Orphans, is_old
from pyvatti.models import Owner, Removal, State
from pyvatti.storage import BucketInfo
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)


class Sweeper:
    """Makes one sweep per interval."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._orphans = Orphans(doors)

    async def run(self) -> NoReturn:
        """Sweep until cancelled; a failed sweep is made again at the next interval."""
        interval = self._doors.settings.sweep_interval.total_seconds()
        await asyncio.sleep(interval * random.uniform(0.02, 0.1))  # noqa: S311 - spreads load
        while True:
            try:
                await self.sweep()
            except PyvattiError as error:
                log.warning("sweep failed", error=str(error))
            except Exception:  # the sweeper never stops the controller
                log.exception("sweep broke")
            await asyncio.sleep(interval)

    async def sweep(self) -> None:
        """Remove every leftover there is now."""
        await self._sweep_records()
        await self._orphans.sweep()
        prefix = bucket_prefix(self._doors.settings.namespace)
        for bucket in await self._doors.storage.list_buckets(prefix):
            if self._carries_our_labels(bucket) and await self._is_orphan(bucket):
                uid = bucket.labels[labels.BUCKET_JOB_UID]
                if (
                    removal := await self._remove_bucket(
                        bucket.name, bucket.labels[labels.BUCKET_JOB_ID], uid
                    )
                ) is not None:
                    metrics.swept.labels("bucket").inc()
                    log.warning(
                        "leftover bucket removed",
                        job=bucket.labels[labels.BUCKET_JOB_ID],
                        bucket=bucket.name,
                        objects=removal.objects,
                    )

    def _carries_our_labels(self, bucket: BucketInfo) -> bool:
        found = bucket.labels
        return (
            found.get(labels.BUCKET_MANAGED_BY) == labels.MANAGER
            and found.get(labels.BUCKET_INSTANCE) == self._doors.settings.instance
            and found.get(labels.BUCKET_NAMESPACE_UID) == self._doors.installation.namespace_uid
            and bool(found.get(labels.BUCKET_JOB_UID))
            and bool(found.get(labels.BUCKET_JOB_ID))
        )

    async def _is_orphan(self, bucket: BucketInfo) -> bool:
        """Tell whether no live Job, no Pod and no record of a success claims the bucket."""
        uid = bucket.labels[labels.BUCKET_JOB_UID]
        names = names_for(bucket.labels[labels.BUCKET_JOB_ID], self._doors.settings.namespace, uid)
        if bucket.name not in (names.work_bucket, names.results_bucket):
            return False
        if not is_old(bucket.created_at, self._doors.clock()) or self._doors.cache.pods(uid):
            return False
        if not await self._orphans.is_gone(names.base, uid):
            return False
        record = await records.find(self._doors.kube, names)
        claimed = (
            record is not None
            and record.uid == uid
            and record.state is State.SUCCEEDED
            and bucket.name == record.results_bucket
        )
        return not claimed

    async def _remove_bucket(self, name: str, job_id: str, uid: str) -> Removal | None:
        doors = self._doors
        owner = Owner(installation=doors.installation, job_id=job_id, job_uid=uid)
        with contextlib.suppress(NotOurs):
            await doors.storage.empty_bucket(name, owner=owner)  # before the turn: it takes time
        await self._await_turn(f"sweep {name}")
        try:
            return await doors.storage.delete_bucket(name, owner=owner)
        except NotOurs:
            return None

    async def _await_turn(self, key: str) -> None:
        limiter = self._doors.limiter
        try:
            while (delay := limiter.delay(key, time.monotonic())) > 0:  # noqa: ASYNC110 - a turn, no condition
                await asyncio.sleep(delay)
        finally:
            limiter.cancel(key)

    async def _sweep_records(self) -> None:
        settings, now = self._doors.settings, self._doors.clock()
        expired = [
            raw["metadata"]
            async for raw in records.every(self._doors.kube, settings.instance)
            if _is_expired(
                raw["metadata"].get("creationTimestamp"), now, settings.record_retention_seconds
            )
        ]
        for metadata in expired:
            await self._expire(metadata["labels"].get(labels.JOB_ID, ""), metadata["uid"])

    async def _expire(self, job_id: str, record_uid: str) -> None:
        """Delete an expired record, after what is left of the results bucket it speaks of."""
        if not job_id:
            return
        names = id_names(job_id, self._doors.settings.namespace)
        record = await records.find(self._doors.kube, names)
        if record is not None and record.results_bucket:
            removal = await self._remove_bucket(record.results_bucket, names.base, record.uid)
            if removal is not None and removal.objects is not None:  # else it had expired by itself
                metrics.swept.labels("results").inc()
                log.info("expired results removed", job=names.base, bucket=record.results_bucket)
        await self._doors.kube.delete(
            CONFIGMAPS, names.record, uid=record_uid, propagation="Background"
        )
        metrics.swept.labels("record").inc()
        log.info("expired record removed", job=names.base)


def _is_expired(created: str | None, now: datetime, retention: timedelta) -> bool:
    moment = read_time(created)
    return moment is not None and now >= moment + retention
