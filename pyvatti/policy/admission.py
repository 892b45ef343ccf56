"""PURE: which queued jobs may start. The only question across jobs."""

import heapq
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime

from pyvatti.models import Job, State
from pyvatti.settings import Settings

UNLIMITED = 10**9


def holds_slot(job: Job) -> bool:
    """Tell whether a job is released and not finished."""
    if job.state.is_terminal:
        return False
    return job.state is not State.REQUESTED or not job.suspended


class Slots:
    """Who holds a slot and who waits for one, told job by job: a change costs no look at others."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._queued: dict[str, datetime] = {}
        self._everybody = self._queued.keys()

    def note(self, base: str, job: Job | None) -> None:
        """Take the newest form of a job; None for one that is gone."""
        self._held.discard(base)
        self._queued.pop(base, None)
        if job is None:
            return
        if holds_slot(job):
            self._held.add(base)
        elif job.state is State.REQUESTED and job.deleting_since is None:
            self._queued[base] = job.accepted_at

    def admitted(
        self, limit: int, is_resting: Callable[[str], bool] = lambda _base: False
    ) -> AbstractSet[str]:
        """Name the queued jobs that have a slot; see `admit`.

        Where all of them have one it is always the same view, which changes with them.
        """
        queued, free = self._queued, max(limit - len(self._held), 0)
        if free >= len(queued):
            return self._everybody
        return frozenset(
            heapq.nsmallest(free, queued, key=lambda base: (is_resting(base), queued[base], base))
        )


def most_released(settings: Settings) -> int:
    """Give how many jobs may be released at a time; with Kueue, that is Kueue's to decide."""
    return UNLIMITED if settings.kueue_queue else settings.max_concurrent_jobs


def admit(jobs: Iterable[Job], limit: int, resting: frozenset[str] = frozenset()) -> frozenset[str]:
    """Name the queued jobs that have a slot: the oldest first, while fewer than `limit` hold one.

    `resting` are jobs whose preparation failed and waits for its next try: they come last, so that
    one job that cannot be prepared does not keep the others from starting. Jobs on their way out
    need no slot.
    """
    slots = Slots()
    for job in jobs:
        slots.note(job.names.base, job)
    return frozenset(slots.admitted(limit, resting.__contains__))
