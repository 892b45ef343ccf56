"""What this process knows of deliveries that is not written to the Jobs (yet). No calls.

Only the oldest pending event of a Job is being told, so one event a Job is remembered, and one
telling a Job goes on at a time, whoever began it.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from pyvatti.models import Delivery, Job, Notice


class Attempts:
    """The event each Job is telling (by Job uid): how often it was tried and what was answered.

    An event that was settled is kept here until it is written back, also beyond a leadership, so
    that none is told twice because the API server was away.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Notice] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by uid
        self._tellings: set[asyncio.Task[object] | None] = set()  # the loop keeps none alive

    @asynccontextmanager
    async def turn(self, uid: str) -> AsyncIterator[None]:
        """Wait until nobody tells an event of this Job; until the end nobody else does.

        A telling cannot be called back when its teller is stopped: whoever comes next waits for
        its answer.
        """
        lock, telling = self._turns.setdefault(uid, asyncio.Lock()), asyncio.current_task()
        async with lock:
            self._tellings.add(telling)
            try:
                yield
            finally:
                self._tellings.discard(telling)

    def note(self, uid: str, notice: Notice) -> None:
        """Remember how the telling of an event stands."""
        self._newest[uid] = notice

    def newest(self, uid: str, stored: Notice) -> Notice:
        """Give what is known of a stored event: the memory where it is ahead of the Job."""
        known = self._newest.get(uid)
        if known is None or known.sequence != stored.sequence:
            return stored
        is_ahead = stored.delivery is Delivery.PENDING and known.attempts >= stored.attempts
        return known if is_ahead else stored

    def outbox(self, job: Job) -> tuple[Notice, ...]:
        """Give the outbox of a Job as it is known now."""
        return tuple(self.newest(job.uid, notice) for notice in job.outbox)

    def forget(self, uid: str) -> None:
        """Forget a Job: its event is written back, or the Job is gone."""
        self._newest.pop(uid, None)

    def stand_down(self, live: Collection[str]) -> None:
        """Keep only what was settled for a live Job: another replica is telling the rest now."""
        self._newest = {
            uid: notice
            for uid, notice in self._newest.items()
            if uid in live and notice.delivery is not Delivery.PENDING
        }
