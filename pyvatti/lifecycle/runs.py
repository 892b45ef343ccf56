"""Follows the Seqera runs of all live jobs: one list pass per interval, single runs when asked.

Keeps the last known row of each run; a failed pass changes nothing but the time of asking.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

import structlog

from pyvatti.errors import Denied, PyvattiError
from pyvatti.guard import Guard
from pyvatti.models import Run
from pyvatti.seqera import PAGE, Clean, Seqera

log = structlog.get_logger(__name__)

LEAST_PAUSE = 0.2  # seconds between two passes, however many ask
PASS_LIMIT = 60.0  # seconds a pass may take
FEW = 5  # runs asked for one by one; more are found sooner by a pass over the list

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
        clean: Clean,
        changed: Callable[[str], None],
    ) -> None:
        self._seqera = seqera
        self._interval = interval
        self._clock = clock
        self._wanted = wanted
        self._clean = clean
        self._changed = changed
        self._runs: dict[str, Run] = {}
        self._asked = asyncio.Event()
        self._asking: set[str] = set()
        self._pass_ended = asyncio.Condition()
        self._asked_at: datetime | None = None
        self._asked_alone: dict[str, datetime] = {}  # run name -> a look-up after the last pass
        self._guard = Guard("run follower")
        self.failing_since: datetime | None = None

    def run_of(self, name: str) -> Run | None:
        """Give the last known row of a run."""
        return self._runs.get(name)

    def asked_at(self, name: str) -> datetime | None:
        """Give when the last asking for this run began that has ended, answered or not."""
        return self._asked_alone.get(name, self._asked_at)

    async def ask(self, name: str) -> None:
        """Wait for an asking for this run that begins after this call; a failure is no error."""
        began = self._clock()
        self._asking.add(name)
        self._asked.set()
        async with self._pass_ended:
            await self._pass_ended.wait_for(
                lambda: (asked_at := self.asked_at(name)) is not None and asked_at >= began
            )

    async def follow(self) -> None:
        """Make passes until cancelled."""
        await self._check()
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._asked.wait()
            self._asked.clear()
            asking, self._asking = self._asking, set()
            if loop.time() >= due or not await self._look_up(asking):
                await self._pass()
                due = loop.time() + self._interval
            await asyncio.sleep(LEAST_PAUSE)

    async def _check(self) -> None:
        """Say at once, not at the first job, that token, workspace or address are wrong."""
        try:
            await self._seqera.check()
        except Exception as error:  # noqa: BLE001 - no answer of Seqera stops the jobs
            self._report_failure(error, self._clock())

    async def _look_up(self, asking: set[str]) -> bool:
        """Ask for single runs; tell whether that was better than a pass and found them all."""
        began, wanted = self._clock(), dict(self._wanted())
        if len(wanted) <= PAGE or len(asking) > FEW or not asking <= wanted.keys():
            return False
        found: dict[str, Run] = {}
        try:
            for name in asking:
                run = await self._seqera.find(name, wanted[name], self._clean)
                if run is None:
                    return False
                found[name] = run
        except Exception:  # noqa: BLE001 - the pass tells of it
            return False
        self._asked_alone |= dict.fromkeys(found, began)
        await self._take(found, wanted)
        return True

    async def _pass(self) -> None:
        began, wanted = self._clock(), dict(self._wanted())
        found: Mapping[str, Run] = {}
        try:
            if wanted:
                async with asyncio.timeout(PASS_LIMIT):
                    found = await self._seqera.runs(wanted, self._clean)
            self.failing_since = None
            self._guard.forget("pass")
        except Exception as error:  # noqa: BLE001 - no answer of Seqera stops the jobs
            self._report_failure(error, began)
        self._asked_at, self._asked_alone = began, {}
        await self._take(found, wanted)

    async def _take(self, found: Mapping[str, Run], wanted: Mapping[str, datetime]) -> None:
        known = self._runs
        self._runs = {name: run for name, run in (known | dict(found)).items() if name in wanted}
        async with self._pass_ended:
            self._pass_ended.notify_all()
        for name in wanted:
            before, after = known.get(name), self._runs.get(name)
            if after is not None and (before is None or before.status is not after.status):
                with self._guard.around(name):
                    self._changed(name)

    def _report_failure(self, error: Exception, began: datetime) -> None:
        self.failing_since = self.failing_since or began
        if not isinstance(error, PyvattiError | TimeoutError):
            self._guard.note("pass", error)
            return
        level = log.error if isinstance(error, Denied) else log.warning
        level("seqera pass failed", error=str(error) or type(error).__name__)
