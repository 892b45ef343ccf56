"""Tells one story again and again, and kills the service at another call each time.

Which calls there are is found by counting them; a run that shows new ones adds them.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chaos.calls import WRITE, Kill, Point, Side
from chaos.ground import Ground
from chaos.process import Zygote
from chaos.rules import Expected, Finding, judge, judge_report, unrest
from chaos.stories import Story
from chaos.strangers import Strangers

RELENTLESS = (6, 7, 9)
"""Deaths at each n-th write of every start. Fewer writes are used up by a repeated launch and by
repeating what is done already (two buckets, one Secret)."""

FEW = 3
"""Of each call that is made for no job, so many die: they go on for ever."""

EVIDENCE = Path("build") / "chaos"


@dataclass(slots=True)
class Tally:
    """One line of the table."""

    name: str
    kills: int = 0
    faults: int = 0
    jobs: int = 0
    repeats: int = 0
    unanswered: int = 0
    missed: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    is_done: bool = False

    @property
    def wrong(self) -> int:
        """How much is not as it must be."""
        return len(self.violations) + len(self.leftovers)

    def accuse(self, *sentences: str) -> None:
        """Add violations, and say them at once."""
        self.violations += sentences
        _say(sentences)

    def add(self, finding: Finding, where: str) -> None:
        """Count what was found about one job."""
        self.accuse(*(f"{where}: {text}" for text in finding.violations))
        left = [f"{where}: {text}" for text in finding.leftovers]
        self.leftovers += left
        _say(left)
        self.repeats += finding.repeats
        self.unanswered += finding.unanswered


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"WRONG  {sentence}", flush=True)


async def explore(zygote: Zygote, story: Story, most: int | None, tally: Tally) -> None:
    """Kill at every call of a story, `most` of them at most; tally what is found."""
    with workplace(tally) as folder:
        ground = Ground(
            zygote,
            folder,
            plans=story.plans,
            changes=story.settings,
            keep_lease=story.is_gentle,
        )
        async with ground:
            await Explorer(ground, story, tally).explore(most)
        tally.accuse(*ground.witness.violations, *leaks(ground.log, ground.witness.secrets))


class Explorer:
    """Goes through the kills of one story on one ground."""

    def __init__(self, ground: Ground, story: Story, tally: Tally) -> None:
        self._ground, self._story, self._tally = ground, story, tally
        self._before = dict(ground.environment)
        if story.is_between_jobs:
            ground.calls.counted = lambda call: call.is_background
        self._seen: list[Point] = []

    async def explore(self, most: int | None) -> None:
        """Run without a kill, then once for each kill, then die again and all the time."""
        await self._each(self.run, most)
        if most is not None:
            return
        for first in self._story.twice:
            await self._each(partial(self.run_twice, first), None)
        if self._story.is_between_jobs:
            return
        for number in RELENTLESS:
            for side in Side:
                await self.run_relentlessly(Kill(Point(WRITE, number), side))

    async def run(self, kill: Kill | None = None) -> bool:
        """Tell the story with one more job; tell whether the kill happened."""
        await self._reset()
        return await self._tell(str(kill or "no kill"), partial(self._arm, kill))

    async def run_twice(self, first: Kill, second: Kill | None = None) -> bool:
        """Tell the story with one more job; the next service dies at the second kill."""
        ground = self._ground

        async def end() -> None:
            ground.on_start = again
            await self._end()

        def again() -> None:
            ground.on_start = lambda: None
            self._arm(second)

        await self._reset()
        begin = partial(ground.calls.expect, first, end)
        return await self._tell(f"{first}, then {second or 'no kill'}", begin)

    async def run_relentlessly(self, kill: Kill) -> None:
        """Tell the story with one more job while every service dies at that call."""

        def begin() -> None:
            self._ground.on_start = partial(self._arm, kill)
            self._arm(kill)

        await self._reset()
        await self._tell(f"always {kill}", begin)

    async def _each(self, run: Callable[[Kill | None], Awaitable[bool]], most: int | None) -> None:
        """Run without a kill, then once for every kill that a run shows to be possible."""
        await run(None)
        found = [*self._kills()]
        known, again = set(found), set[Kill]()
        done = 0
        while found and (most is None or done < most):
            kill = found.pop(0)
            if await run(kill):
                done += 1
            elif kill not in again:
                again.add(kill)
                found.append(kill)
            else:
                self._tally.missed.append(f"{self._story.name}: {kill}")
            new = [other for other in self._kills() if other not in known]
            known.update(new)
            found += new

    def _kills(self) -> Iterator[Kill]:
        """Give the kills that the last run shows to be possible."""
        for point in self._seen:
            if self._story.is_between_jobs and point.number > FEW:
                continue  # they are made for ever
            yield Kill(point, Side.BEFORE)
            if point.changes_something:
                yield Kill(point, Side.AFTER)

    def _arm(self, kill: Kill | None) -> None:
        calls = self._ground.calls
        calls.expect(kill, self._end, is_cut_off=not self._story.is_gentle)

    async def _end(self) -> None:
        self._tally.kills += 1
        self._ground.environment |= self._story.later
        if self._story.is_gentle:
            self._ground.ask_to_end()
        else:
            await self._ground.kill()

    async def _reset(self) -> None:
        """Go back to the first settings."""
        ground = self._ground
        await ground.up()
        if ground.environment != self._before:
            ground.environment = dict(self._before)
            await ground.kill()
            await ground.up()

    async def _tell(self, how: str, begin: Callable[[], None]) -> bool:
        """Tell the story once; tell whether every kill that was asked for happened."""
        ground, story, tally = self._ground, self._story, self._tally
        tally.jobs += 1
        job_id = f"INTP{tally.jobs:011}"
        strangers = Strangers(ground.world, job_id.lower())
        await story.prepare(ground, job_id)
        begin()
        accepted = await story.act(ground, job_id)
        rests = await ground.until_rest(job_id, accepted=accepted)
        ground.on_start = lambda: None
        happened = not ground.calls.is_armed
        self._seen = ground.calls.disarm()
        expected = Expected(job_id=job_id, accepted=accepted, ends=story.ends)
        finding = judge(ground.world, ground.witness, strangers, expected)
        if finding.violations:  # it may have been deposed: its log says so
            ground.read_log()
            finding = judge(ground.world, ground.witness, strangers, expected)
        if not rests:
            finding.violations.append(unrest(ground.world, job_id.lower()))
        else:
            report = await ground.report(job_id)
            seen = ground.job(job_id)
            finding.violations += judge_report(ground.world, seen, job_id.lower(), report)
            if report and not report["complete"]:
                finding.violations.append(
                    f"{job_id}: the deletion report is not complete: {report}"
                )
        tally.add(finding, f"{story.name}, {how}")
        strangers.remove()
        await story.clear(ground, job_id)
        return happened


@contextmanager
def workplace(tally: Tally) -> Iterator[Path]:
    """Give a folder for what services write; it is kept in `EVIDENCE` if something was wrong."""
    before = tally.wrong
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        finally:
            if tally.wrong > before or sys.exc_info()[0]:
                name = re.sub(r"\W+", "-", tally.name)
                shutil.copytree(folder, EVIDENCE / name, dirs_exist_ok=True)


def leaks(log: Path, secrets: Iterable[bytes]) -> list[str]:
    """Say which log holds a credential."""
    text = log.read_bytes()
    return [f"{log.name} holds a credential" for value in secrets if value in text][:1]
