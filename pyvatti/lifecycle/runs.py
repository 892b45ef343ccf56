"""Follows the Seqera runs of all live jobs: one list pass per interval, or at once when asked.

Keeps the last known row of each run; a failed pass changes nothing but the time of asking.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from pyvatti.errors import Denied, PyvattiError
from pyvatti.models import Run
from pyvatti.seqera import Seqera
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

LEAST_PAUSE = 0.2  # seconds between two passes, however many ask
PASS_LIMIT = 60.0  # seconds a pass may take

Wanted = Callable[[], Mapping[str, datetime]]


class RunFollower:
    """The only asker of Seqera. `wanted` gives run name -> time of release (UTC)."""

    def __init__(
        self,
        seqera: Seqera,
        *,
        interval: float,
        clock: Callable[[], datetime],
        wanted: Wanted,
        changed: Callable[[str], None],
    ) -> None:
        self._seqera = seqera
        self._interval = interval
        self._clock = clock
        self._wanted = wanted
        self._changed = changed
        self._runs: dict[str, Run] = {}
        self._asked = asyncio.Event()
        self._pass_ended = asyncio.Condition()
        self.asked_at: datetime | None = None
        self.failing_since: datetime | None = None

    def run_of(self, name: str) -> Run | None:
        """Give the last known row of a run."""
        return self._runs.get(name)

    async def ask(self) -> None:
        """Wait for the end of a pass that begins after this call; its failure is no error here."""
        began = self._clock()
        self._asked.set()
        async with self._pass_ended:
            await self._pass_ended.wait_for(
                lambda: self.asked_at is not None and self.asked_at >= began
            )

    async def follow(self) -> None:
        """Make passes until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            await self._pass()
            await asyncio.sleep(LEAST_PAUSE)

    async def _pass(self) -> None:
        began, wanted = self._clock(), dict(self._wanted())
        found: Mapping[str, Run] = {}
        try:
            if wanted:
                async with asyncio.timeout(PASS_LIMIT):
                    found = await self._seqera.runs(wanted)
            self.failing_since = None
        except (PyvattiError, TimeoutError) as error:
            self._report_failure(error, began)
        async with self._pass_ended:
            self.asked_at = began
            self._pass_ended.notify_all()
        known = self._runs
        self._runs = {name: run for name, run in (known | dict(found)).items() if name in wanted}
        for name in wanted:
            before, after = known.get(name), self._runs.get(name)
            if after is not None and (before is None or before.status is not after.status):
                self._changed(name)

    def _report_failure(self, error: Exception, began: datetime) -> None:
        self.failing_since = self.failing_since or began
        metrics.neighbour_errors.labels("seqera", type(error).__name__).inc()
        level = log.error if isinstance(error, Denied) else log.warning
        level("seqera pass failed", error=str(error) or type(error).__name__)
