"""PURE: which queued jobs may start. The only question across jobs."""

import heapq
from collections.abc import Iterable

from pyvatti.models import Job, State


def holds_slot(job: Job) -> bool:
    """Tell whether a job is released and not finished."""
    if job.state.is_terminal:
        return False
    return job.state is not State.REQUESTED or not job.suspended


def admit(jobs: Iterable[Job], limit: int, resting: frozenset[str] = frozenset()) -> frozenset[str]:
    """Name the queued jobs that have a slot: the oldest first, while fewer than `limit` hold one.

    `resting` are jobs whose preparation failed and waits for its next try: they come last, so that
    one job that cannot be prepared does not keep the others from starting. Jobs on their way out
    need no slot.
    """
    queued, held = [], 0
    for job in jobs:
        if holds_slot(job):
            held += 1
        elif job.state is State.REQUESTED and job.deleting_since is None:
            queued.append(job)
    free = max(limit - held, 0)
    if free < len(queued):
        queued = heapq.nsmallest(
            free,
            queued,
            key=lambda job: (job.names.base in resting, job.accepted_at, job.names.base),
        )
    return frozenset(job.names.base for job in queued)
