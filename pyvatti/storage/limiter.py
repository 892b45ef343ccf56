"""Turns for bucket creates and deletes: Cloud Storage allows about one per 2 s and project.

Pure: no clock, no waiting; the caller brings monotonic seconds and comes back when told.
"""

import math

from pyvatti.rest import LONGEST_PAUSE

PATIENCE = 30.0  # seconds a turn is kept for a key that does not come back


class BucketLimiter:
    """First come, first served: one turn per `interval` seconds (cloud.google.com/storage/quotas).

    A key asks once per bucket call it wants to make. A key that stays away from its turn for
    `patience` seconds loses it, so that a forgotten one never blocks the others.
    """

    def __init__(self, interval: float, *, patience: float = PATIENCE) -> None:
        self._interval = interval
        self._patience = patience
        self._free = -math.inf  # when the next turn begins
        self._expected: dict[str, float] = {}  # waiting keys in order, and when each is due back

    @property
    def waiting(self) -> int:
        """How many keys wait for their turn."""
        return len(self._expected)

    def delay(self, key: str, now: float) -> float:
        """Give the seconds until the key's turn; 0 means go now, and the turn is used."""
        self._drop_absent(key, now)
        self._expected.setdefault(key, now)
        position = list(self._expected).index(key)
        wait = max(0.0, self._free - now) + position * self._interval
        if wait == 0:
            del self._expected[key]
            self._free = now + self._interval
        else:
            self._expected[key] = now + wait
        return wait

    def cancel(self, key: str) -> None:
        """Give up the key's place in the queue, if it has one."""
        self._expected.pop(key, None)

    def postpone(self, seconds: float, now: float) -> None:
        """Let nobody go for so many seconds, at most LONGEST_PAUSE: the server said 429."""
        self._free = max(self._free, now + min(LONGEST_PAUSE, seconds))

    def _drop_absent(self, asking: str, now: float) -> None:
        while self._expected:
            key, due = next(iter(self._expected.items()))
            if key == asking or now <= due + self._patience:
                return
            del self._expected[key]
