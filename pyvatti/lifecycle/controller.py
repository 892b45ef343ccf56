"""The acting replica's work: an actor a live job, couriers, admission, Seqera, sweeping.

Runs while this replica holds the Lease; cancelled, it leaves jobs exactly as they are.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NoReturn

import structlog

from pyvatti import fence, foreign
from pyvatti.guard import Guard
from pyvatti.lifecycle.acting import Hands
from pyvatti.lifecycle.actor import JobActor
from pyvatti.lifecycle.courier import Courier
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.runs import RunFollower
from pyvatti.lifecycle.supervision import Supervisor, persevere
from pyvatti.lifecycle.sweeper import Sweeper
from pyvatti.lifecycle.writing import JobWriter
from pyvatti.models import Job, State
from pyvatti.policy import Slots, most_released
from pyvatti.policy.limits import released_at

log = structlog.get_logger(__name__)

BEAT = 5.0  # seconds between two signs of life of the acting loop


class Controller:
    """Brings every live job to its end.

    `may_act` is False from the moment this replica's Lease has run out, before its tasks are
    cancelled (a paused process wakes up late): no call of theirs is sent after it.
    """

    def __init__(self, doors: Doors, supervisor: Supervisor, may_act: Callable[[], bool]) -> None:
        self._doors, self._supervisor = doors, supervisor
        self._runs = RunFollower(
            doors.seqera,
            interval=doors.settings.poll_interval.total_seconds(),
            clock=doors.clock,
            wanted=self._wanted_runs,
            clean=self._clean_text,
            changed=self._run_changed,
        )
        self._writer = JobWriter(doors)
        self._hands = Hands(doors, self._writer, self._runs, self._admitted_now)
        self._may_act = may_act
        self._actors: dict[str, JobActor] = {}
        self._couriers: dict[str, Courier] = {}
        self._slots = Slots()
        self._admitted: AbstractSet[str] | None = None  # None: to be computed again
        self._run_bases: dict[str, str] = {}
        self.beat = time.monotonic()
        self._guard = Guard("dispatcher")
        self._news = asyncio.Event()
        self._bases: set[str] = set()

    async def lead(self) -> NoReturn:
        """Act on all jobs until cancelled; waits for the caches: nothing is decided blindly."""
        await self._wait_synced()
        self._doors.cache.listen(self._job_changed)
        self._doors.cache.keep_lost(self._is_unfinished)
        self._forget_others()
        try:
            with fence.fenced(self._may_act):
                await self._work()
        finally:
            self._doors.cache.ignore(self._job_changed)
            self._doors.cache.keep_lost(None)
            self._actors.clear()
            self._couriers.clear()
            self._slots = Slots()
            self._forget_others()
        raise AssertionError("the dispatcher only ends by cancellation")

    async def _wait_synced(self) -> None:
        """Wait for the caches and show signs of life: a deaf API server is no fault of ours."""
        while not self._doors.cache.is_synced:
            self.beat = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._doors.cache.wait_synced()

    def _forget_others(self) -> None:
        """Drop what is known of jobs that another replica brought to their end."""
        uids = {job.uid for job in self._doors.cache.jobs()}
        self._doors.attempts.stand_down(uids)
        self._doors.storage.keep_counts(uids)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            watch = self._supervisor.watch
            group.create_task(watch("run follower", self._runs.follow()))
            with foreign.about(lambda: None):  # what it meets is of jobs that nobody knows
                group.create_task(watch("sweeper", Sweeper(self._doors).run()))
            self.wake_all()
            await watch("dispatcher", self._dispatch(group))

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Hand every change to its job's actor; wake the queued jobs that got a slot."""
        before: AbstractSet[str] = frozenset()
        while True:
            self.beat = time.monotonic()
            self._news.clear()
            changed, self._bases = self._bases, set()
            admitted = self._admitted_now()
            fresh = frozenset() if admitted is before else admitted - before
            for base in changed | fresh:
                self._wake_guarded(base, group)
            before = admitted
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._news.wait()

    def _wake_guarded(self, base: str, group: asyncio.TaskGroup) -> None:
        try:
            self._wake(base, group)
        except Exception as error:  # noqa: BLE001 - one bad job never stops the others
            self._guard.note(base, error)
            self._bases.add(base)  # again at the next beat

    def _wake(self, base: str, group: asyncio.TaskGroup) -> None:
        job, actor = self._doors.cache.job(base), self._actors.get(base)
        if job is None:
            self._dismiss(base)
        elif actor is None or actor.uid != job.uid:
            self._dismiss(base)
            actor = JobActor(self._doors, self._hands, self._runs, job, self._readmit)
            courier = Courier(self._doors, self._writer, job)
            self._actors[base], self._couriers[base] = actor, courier
            live = persevere(actor.guard, base, actor.live)
            deliver = persevere(courier.guard, base, courier.deliver)
            group.create_task(live, name=f"actor {base}")
            group.create_task(deliver, name=f"courier {base}")
        else:
            actor.poke()
            self._couriers[base].poke()

    def _dismiss(self, base: str) -> None:
        """Let actor and courier see that their Job is gone: both end by themselves."""
        if (actor := self._actors.pop(base, None)) is not None:
            actor.poke()
        if (courier := self._couriers.pop(base, None)) is not None:
            courier.poke()

    def wake_all(self) -> None:
        """Make a pass over every job soon: something about all of them changed."""
        for job in self._doors.cache.jobs():
            with self._guard.around(job.names.base):
                self._job_changed(job.names.base)

    def _job_changed(self, base: str) -> None:
        self._bases.add(base)
        self._slots.note(base, self._doors.cache.job(base))
        self._readmit()

    def _readmit(self) -> None:
        """Compute anew who has a slot, at the next question."""
        self._admitted = None
        self._news.set()

    def _is_resting(self, base: str) -> bool:
        actor = self._actors.get(base)
        return actor is not None and actor.resting

    def _is_unfinished(self, job: Job) -> bool:
        """Tell whether a Job that goes now goes before we let go of it."""
        actor = self._actors.get(job.names.base)
        return (
            actor is not None and actor.uid == job.uid and not actor.leaving and not job.withdrawn
        )

    def _admitted_now(self) -> AbstractSet[str]:
        if self._admitted is None:
            limit = most_released(self._doors.settings)
            self._admitted = self._slots.admitted(limit, self._is_resting)
        return self._admitted

    def _wanted_runs(self) -> Mapping[str, datetime]:
        """Name the runs that may exist: of jobs that were released and have no final state."""
        jobs = [
            job
            for job in self._doors.cache.jobs()
            if not job.state.is_terminal and job.state is not State.REQUESTED
        ]
        self._run_bases = {job.names.run_name: job.names.base for job in jobs}
        return {job.names.run_name: released_at(job) for job in jobs}

    def _clean_text(self, run_name: str, text: str) -> str:
        """Take out of a foreign text what the job of a run must not tell."""
        job = self._doors.cache.job(self._run_bases.get(run_name, ""))
        known = self._doors.cache.personal.of(job.uid) if job else None
        return foreign.clean_for(known, text, is_cut=True)

    def _run_changed(self, run_name: str) -> None:
        if (base := self._run_bases.get(run_name)) is not None:
            self._job_changed(base)
