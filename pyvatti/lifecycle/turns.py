"""Turns for bucket creates and deletes, as steps take them: come back later, never wait.

How fast turns follow one another is the limiter's (pyvatti.storage.limiter).
"""

import contextlib
import time
from collections.abc import Iterator

from pyvatti.errors import RateLimited
from pyvatti.lifecycle.doors import Doors
from pyvatti.models import Job
from pyvatti.policy import Progress

RATE_PAUSE = 5.0  # seconds without bucket calls after a 429 that names none


class NotYet(Exception):
    """The step waits for its turn: nothing went wrong. `done` is what it came to know, if any."""

    def __init__(self, seconds: float, done: Progress | None = None) -> None:
        super().__init__(f"in {seconds:.1f} s")
        self.seconds, self.done = seconds, done


def take_turn(doors: Doors, job: Job) -> None:
    """Use the job's turn for one bucket call. Raises NotYet before it has come."""
    delay = doors.limiter.delay(job.names.base, time.monotonic())
    if delay > 0:
        raise NotYet(delay)


@contextlib.contextmanager
def minding_the_rate(doors: Doors) -> Iterator[None]:
    """Make all bucket calls pause when Cloud Storage says that they are too many."""
    try:
        yield
    except RateLimited as error:
        doors.limiter.postpone(error.retry_after or RATE_PAUSE, time.monotonic())
        raise
