"""The end of the namespace: wakes the work, gives it the whole grace, and says what is left.

What is done about each job is the policy's; whether this replica may act is the Lease's.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NoReturn

import structlog

from pyvatti import labels
from pyvatti.errors import PyvattiError
from pyvatti.jobs import listing_prefix
from pyvatti.kube import Elector
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.supervision import Supervisor
from pyvatti.models import Job, State

log = structlog.get_logger(__name__)

LOOKS = 3  # at the namespace, when told to stop
LOOK_SECONDS, LOOK_PAUSE = 1.0, 0.2  # for each, and between two
LIST_SECONDS = 10.0  # for naming the buckets that stay
GLANCE = 1.0  # seconds between two glances at what nobody announces
NAMED = 50  # buckets in one line of the log


class Departure:
    """What this process does about the end of its namespace; `wake` calls for a pass over all."""

    def __init__(
        self, doors: Doors, elector: Elector, supervisor: Supervisor, wake: Callable[[], None]
    ) -> None:
        self._doors, self._elector, self._wake = doors, elector, wake
        self._supervisor = supervisor

    async def run(self) -> NoReturn:
        """Wake all work once the namespace is being deleted; end the process when all is done.

        A pod that missed its SIGTERM would hold the namespace for its whole grace.
        """
        await self._doors.home.wait_going()
        self._wake()
        await self._finish(lambda: True)
        self._supervisor.end()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets this event")

    async def see_through(self) -> None:
        """Told to stop: return at once, or, where the namespace goes, when nothing is left to do.

        That takes at most `STOP_GRACE`. What is left then is said, with what finishes it.
        """
        if not await self._is_going():
            return
        grace = self._doors.settings.stop_grace.total_seconds()
        jobs = len(self._doors.cache.jobs())
        log.warning("stopping with the namespace: cleaning up first", jobs=jobs, seconds=grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._finish(self._has_hope)
        await self._say_what_is_left()

    async def _is_going(self) -> bool:
        """Look a few times; no answer is no proof, and a normal stop is over in seconds."""
        for number in range(LOOKS):
            if number:
                await asyncio.sleep(LOOK_PAUSE)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    return await self._doors.home.look()
            except (PyvattiError, TimeoutError) as error:
                log.info("own namespace not read", error=str(error) or "timeout")
        return False

    async def _finish(self, has_hope: Callable[[], bool]) -> None:
        """Wait until no job is left, or there is no hope for those that are."""
        cache, changed = self._doors.cache, asyncio.Event()

        def note(_base: str) -> None:
            changed.set()

        cache.listen(note)
        try:
            while (cache.jobs() or not cache.is_synced) and has_hope():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GLANCE):
                        await changed.wait()
                changed.clear()
        finally:
            cache.ignore(note)

    def _has_hope(self) -> bool:
        return not self._elector.is_shut_out and not self._supervisor.failure

    async def _say_what_is_left(self) -> None:
        standing, jobs = await self._standing_buckets(), self._doors.cache.jobs()
        for job in jobs:
            buckets = self._buckets_of(job, standing)
            log.error(
                "left undone: the namespace goes before this job was cleaned up",
                job=job.names.base,
                state=job.state.value,
                untold=[notice.event.value for notice in job.pending],
                buckets=buckets,
                finish_with=[*_removal(buckets), self._release(job)],
            )
        doomed = {name for job in jobs for name in self._buckets_of(job, standing)}
        results = [name for name in standing or () if name not in doomed]
        for first in range(0, len(results), NAMED):
            named = results[first : first + NAMED]
            log.warning(
                "results stay in the cloud: no pyvatti removes them",
                buckets=named,
                remove_with=_removal(named)[0],
            )
        if not jobs:
            log.info("nothing is left to do in this namespace")

    def _buckets_of(self, job: Job, standing: list[str] | None) -> list[str]:
        """Name the buckets of an unfinished job that must not stand, and do or (None) may."""
        names = job.names
        doomed = [names.work_bucket]
        if job.state is not State.SUCCEEDED:
            doomed.append(names.results_bucket)
        if standing is not None:
            return [name for name in doomed if name in standing]
        removals = self._doors.cache.removals(job.uid)
        gone = {removal.resource for removal in removals if removal.proven_absent_at}
        return [name for name in doomed if f"bucket/{name}" not in gone]

    async def _standing_buckets(self) -> list[str] | None:
        """Name the buckets of this installation; None where Cloud Storage does not tell in time."""
        doors = self._doors
        try:
            whose = labels.of_bucket(doors.installation, "", "")
            mine = {key: value for key, value in whose.items() if value}
            async with asyncio.timeout(LIST_SECONDS):
                found = await doors.storage.list_buckets(listing_prefix(doors.settings.namespace))
        except (PyvattiError, TimeoutError) as error:
            log.warning("buckets not listed", error=str(error) or "timeout")
            return None
        return sorted(info.name for info in found if mine.items() <= info.labels.items())

    def _release(self, job: Job) -> str:
        return f"pyvatti jobs release {job.names.job_id} --namespace {self._doors.kube.namespace}"


def _removal(buckets: list[str]) -> list[str]:
    """Give the command that removes buckets; none for none."""
    urls = " ".join(f"gs://{name}" for name in buckets)
    return [f"gcloud storage rm -r {urls}"] if urls else []
