"""Keeps the gauges of `/metrics` true: states, what jobs wait for, ages, freshness, leadership."""

import asyncio
import time
from collections import Counter
from typing import NoReturn

from pyvatti.kube import JOBS, Elector
from pyvatti.lifecycle.doors import Doors
from pyvatti.lifecycle.strangers import Strangers
from pyvatti.models import Job, State
from pyvatti.policy import Observed, Progress, admit, most_released, waiting_for
from pyvatti.telemetry import NEEDS_PERSON, SWEPT_KINDS, metrics

PERIOD = 5.0  # seconds


async def keep_gauges(doors: Doors, elector: Elector) -> NoReturn:
    """Set the gauges every few seconds until cancelled."""
    strangers = Strangers(doors.events)
    while True:
        metrics.leader.set(1 if elector.is_leader else 0)
        now = time.monotonic()
        metrics.fresh.set(1 if doors.cache.is_fresh(now) else 0)
        for kind, silence in doors.cache.silences(now).items():
            metrics.silence.labels(kind).set(silence)
        _count_jobs(doors)
        _measure_ages(doors, elector)
        if elector.is_follower:
            _leave_to_others()
        else:
            _tell_foreign_jobs(doors, strangers)
        await asyncio.sleep(PERIOD)


def _count_jobs(doors: Doors) -> None:
    jobs = doors.cache.jobs()
    states = Counter(job.state for job in jobs)
    for state in State:
        metrics.jobs.labels(state.value).set(states[state])
    admitted = admit(jobs, most_released(doors.settings))
    waits = Counter(
        waiting.on
        for job in jobs
        if (waiting := waiting_for(_observed(doors, job, has_slot=job.names.base in admitted)))
    )
    metrics.waiting.clear()
    for what, count in (dict.fromkeys(NEEDS_PERSON, 0) | waits).items():
        metrics.waiting.labels(what).set(count)
    metrics.outbox.set(sum(len(job.pending) for job in jobs))


def _observed(doors: Doors, job: Job, *, has_slot: bool) -> Observed:
    known = Progress(stuck=doors.remains.stuck(job.uid))
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


def _measure_ages(doors: Doors, elector: Elector) -> None:
    now = doors.clock()
    told = [notice.at for job in doors.cache.jobs() for notice in job.pending]
    metrics.outbox_age.set((now - min(told, default=now)).total_seconds())
    # what is proven deleted is known to the acting replica alone; while it is known, it speaks
    known = (doors.cache.oldest_deletion(), doors.remains.oldest())
    ages = [now - since for since in known if since is not None and not elector.is_follower]
    metrics.oldest_undeleted.set(max(ages).total_seconds() if ages else 0.0)
    metrics.data_remains.set(0 if elector.is_follower else doors.remains.count())
