"""Keeps the gauges of `/metrics` true: states, what jobs wait for, ages, freshness, leadership."""

import asyncio
import time
from collections import Counter
from typing import NoReturn

from pyvatti.guard import Guard
from pyvatti.kube import JOBS, Elector
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.strangers import Strangers
from pyvatti.models import Job, State
from pyvatti.policy import Observed, Progress, admit, most_released, waiting_for
from pyvatti.telemetry import NEEDS_PERSON, SWEPT_KINDS, metrics

PERIOD = 5.0  # seconds


async def keep_gauges(doors: Doors, elector: Elector) -> NoReturn:
    """Set the gauges every few seconds until cancelled; one odd job costs its own count alone."""
    guard, strangers = Guard("gauges"), Strangers(doors.events)
    while True:
        metrics.leader.set(1 if elector.is_leader else 0)
        now = time.monotonic()
        metrics.fresh.set(1 if doors.cache.is_fresh(now) else 0)
        for kind, silence in doors.cache.silences(now).items():
            metrics.silence.labels(kind).set(silence)
        with guard.around("jobs"):
            _count_jobs(doors, guard)
        with guard.around("ages"):
            _measure_ages(doors, elector, guard)
        if elector.is_follower:
            _leave_to_others()
        else:
            with guard.around("foreign jobs"):
                _tell_foreign_jobs(doors, strangers)
        await asyncio.sleep(PERIOD)


def _count_jobs(doors: Doors, guard: Guard) -> None:
    jobs = doors.cache.jobs()
    states = Counter(job.state for job in jobs)
    for state in State:
        metrics.jobs.labels(state.value).set(states[state])
    admitted = admit(jobs, most_released(doors.settings))
    waits: Counter[str] = Counter()
    for job in jobs:
        with guard.around(job.names.base):
            seen = _observed(doors, job, has_slot=job.names.base in admitted)
            if waiting := waiting_for(seen):
                waits[waiting.on] += 1
    metrics.waiting.clear()
    for what, count in (dict.fromkeys(NEEDS_PERSON, 0) | waits).items():
        metrics.waiting.labels(what).set(count)
    metrics.outbox.set(sum(len(job.pending) for job in jobs))


def _observed(doors: Doors, job: Job, *, has_slot: bool) -> Observed:
    remains = doors.remains
    known = Progress(stuck=remains.stuck(job.uid), denial=remains.denial(job.uid))
    return Observed(job=job, pods=doors.cache.pods(job.uid), has_slot=has_slot, progress=known)


def _tell_foreign_jobs(doors: Doors, strangers: Strangers) -> None:
    """Say of each Job that is not ours (a copy, restored, forged) that nothing happens to it."""
    strangers.begin("job")
    for job in doors.cache.foreign():
        strangers.note("job", job.name, job.uid, job.why, JOBS)
    strangers.end("job")


def _leave_to_others() -> None:
    """Say nothing of what the acting replica sweeps."""
    for kind in SWEPT_KINDS:
        metrics.set_aside.labels(kind).set(0)
        metrics.sweep_failing.labels(kind).set(0)


def _measure_ages(doors: Doors, elector: Elector, guard: Guard) -> None:
    now, oldest_event = doors.clock(), 0.0
    for job in doors.cache.jobs():
        with guard.around(f"{job.names.base} (outbox)"):
            ages = [(now - notice.at).total_seconds() for notice in job.pending]
            oldest_event = max(oldest_event, *ages, 0.0)
    metrics.outbox_age.set(oldest_event)
    # what is proven deleted is known to the acting replica alone; while it is known, it speaks
    known = (doors.cache.oldest_deletion(), doors.remains.oldest())
    undeleted = [now - since for since in known if since is not None and not elector.is_follower]
    metrics.oldest_undeleted.set(max(undeleted).total_seconds() if undeleted else 0.0)
    metrics.data_remains.set(0 if elector.is_follower else doors.remains.count())
