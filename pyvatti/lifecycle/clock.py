"""The service's time: the wall clock without its leaps.

Nothing about jobs; the Lease and all pauses go by the monotonic clock alone.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SLEW = 0.05  # seconds taken over per second


def utc_now() -> datetime:
    """Read the wall clock, in UTC."""
    return datetime.now(UTC)


class SteadyClock:
    """UTC that never goes backwards and never leaps, so that a leap ends no job before its time.

    Between two readings it advances as the monotonic clock does; what the wall clock differs by is
    taken over slowly, at most 3 minutes in an hour, so that a clock that was set right is followed.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._now, self._read_at = wall(), monotonic()

    def __call__(self) -> datetime:
        """Give the time, in UTC."""
        read_at, wall = self._monotonic(), self._wall()
        passed = timedelta(seconds=read_at - self._read_at)
        expected, most = self._now + passed, passed * SLEW
        self._now = expected + min(max(wall - expected, -most), most)
        self._read_at = read_at
        return self._now
