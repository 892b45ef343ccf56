"""Keeps the gauges of `/metrics` true: states, what jobs wait for, ages, freshness, leadership."""

import asyncio
import time
from collections import Counter
from typing import NoReturn

from pyvatti.kube import Elector
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import State
from pyvatti.policy import Observed, admit, most_released, waiting_for
from pyvatti.telemetry import metrics

PERIOD = 5.0  # seconds


async def keep_gauges(doors: Doors, elector: Elector) -> NoReturn:
    """Set the gauges every few seconds until cancelled."""
    while True:
        metrics.leader.set(1 if elector.is_leader else 0)
        metrics.fresh.set(1 if doors.cache.is_fresh(time.monotonic()) else 0)
        _count_jobs(doors)
        await asyncio.sleep(PERIOD)


def _count_jobs(doors: Doors) -> None:
    cache, jobs = doors.cache, doors.cache.jobs()
    states = Counter(job.state for job in jobs)
    for state in State:
        metrics.jobs.labels(state.value).set(states[state])
    admitted = admit(jobs, most_released(doors.settings))
    waits = Counter(
        waiting.on
        for job in jobs
        if (
            waiting := waiting_for(
                Observed(job=job, pods=cache.pods(job.uid), has_slot=job.names.base in admitted)
            )
        )
    )
    metrics.waiting.clear()
    for what, count in waits.items():
        metrics.waiting.labels(what).set(count)
    metrics.outbox.set(sum(len(job.pending) for job in jobs))
    oldest = cache.oldest_deletion()
    age = (doors.clock() - oldest).total_seconds() if oldest is not None else 0.0
    metrics.oldest_undeleted.set(age)
