"""Keeps the gauges of `/metrics` true: states, what jobs wait for, ages, freshness, leadership."""

import asyncio
import time
from collections import Counter
from typing import NoReturn

from pyvatti.guard import Guard
from pyvatti.kube import Elector
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import State
from pyvatti.policy import Observed, admit, most_released, waiting_for
from pyvatti.telemetry import metrics

PERIOD = 5.0  # seconds


async def keep_gauges(doors: Doors, elector: Elector) -> NoReturn:
    """Set the gauges every few seconds until cancelled; one odd job costs its own count alone."""
    guard = Guard("gauges")
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
        await asyncio.sleep(PERIOD)


def _count_jobs(doors: Doors, guard: Guard) -> None:
    cache, jobs = doors.cache, doors.cache.jobs()
    states = Counter(job.state for job in jobs)
    for state in State:
        metrics.jobs.labels(state.value).set(states[state])
    admitted = admit(jobs, most_released(doors.settings))
    waits: Counter[str] = Counter()
    for job in jobs:
        with guard.around(job.names.base):
            seen = Observed(job=job, pods=cache.pods(job.uid), has_slot=job.names.base in admitted)
            if waiting := waiting_for(seen):
                waits[waiting.on] += 1
    metrics.waiting.clear()
    for what, count in waits.items():
        metrics.waiting.labels(what).set(count)
    metrics.outbox.set(sum(len(job.pending) for job in jobs))


def _measure_ages(doors: Doors, elector: Elector, guard: Guard) -> None:
    now, oldest_event = doors.clock(), 0.0
    for job in doors.cache.jobs():
        with guard.around(f"{job.names.base} (outbox)"):
            ages = [(now - notice.at).total_seconds() for notice in job.pending]
            oldest_event = max(oldest_event, *ages, 0.0)
    metrics.outbox_age.set(oldest_event)
    # what is proven deleted is known to the acting replica alone; while it is known, it speaks
    oldest = None if elector.is_follower else doors.cache.oldest_deletion()
    metrics.oldest_undeleted.set((now - oldest).total_seconds() if oldest is not None else 0.0)
