"""The service among misbehaving neighbours: faults that strike at a moment, and what must hold.

One cell is one fault of one neighbour. Whatever it is: the API answers or refuses in time, the
job and one launched meanwhile come to their right end by themselves, are told once and leave
nothing behind, in the world or in memory.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from neighbour_lines import NamesLoop
from neighbour_stage import BYSTANDER, CALM, HASTY, RUNS, Neighbourhood, neighbourhood
from patience import is_busy
from stage import JOB, launch_body

from pyvatti.lifecycle.doors import Limits
from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.faults import FaultRules

AT_ONCE = 4  # cells side by side, on a machine that has time for them
DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"


@dataclass(frozen=True, slots=True)
class Harm:
    """A fault that is on: `hits` counts what it spoilt, `end` ends it."""

    hits: Callable[[], int]
    end: Callable[[], Awaitable[None]]


Fault = Callable[[Neighbourhood], Harm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fault, the moments of the job at which it strikes, and how long (seconds, hits)."""

    fault: Fault
    moments: tuple[str, ...] = ("running",)
    lasts: float = 0.3
    hits: int = 1
    plan: Plan = RUNS
    state: str = "Succeeded"
    hosts: dict[str, str] = field(default_factory=dict)
    limits: Limits = CALM
    changes: dict[str, str] = field(default_factory=dict)
    repeats: bool = False


def rules_of(on: Neighbourhood, neighbour: str) -> FaultRules:
    """Give the fault rules of a neighbour."""
    rules: FaultRules = getattr(on.world, {"kubernetes": "kube"}.get(neighbour, neighbour)).faults
    return rules


def answers(
    neighbour: str, kind: Any, *, method: str = "*", path: str = ".*", **options: Any
) -> Fault:
    """Make the fault by which a neighbour spoils its answers; options as of `FaultRules.add`."""

    def begin(on: Neighbourhood) -> Harm:
        rules = rules_of(on, neighbour)
        rule = rules.add(method, path, kind, **options)

        async def end() -> None:
            rules.remove(rule)

        return Harm(lambda: rule.hits, end)

    return begin


def line_is(neighbour: str, how: Literal["refuse", "silence", "slow"], *pause: float) -> Fault:
    """Make the fault of a line."""

    def begin(on: Neighbourhood) -> Harm:
        line = on.lines[neighbour]
        getattr(line, how)(*pause)
        return Harm(lambda: line.harmed, line.mend)

    return begin


def name_is_unknown(neighbour: str, host: str) -> Fault:
    """Make the fault of a name service that does not know a neighbour's host; its line is cut."""

    def begin(on: Neighbourhood) -> Harm:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NamesLoop)
        before = loop.failed
        loop.unknown.add(host)
        on.lines[neighbour].cut()

        async def end() -> None:
            loop.unknown.discard(host)

        return Harm(lambda: loop.failed - before, end)

    return begin


def at_once(change: Callable[[Neighbourhood], object]) -> Fault:
    """Make a fault of one change that stays."""

    def begin(on: Neighbourhood) -> Harm:
        change(on)
        return Harm(lambda: 1, _nothing)

    return begin


async def _nothing() -> None:
    """End what ends by itself."""


def common(neighbour: str, *, method: str = "*", path: str = ".*", **cell: Any) -> dict[str, Cell]:
    """Give the cells that every neighbour has: what its answers may be, whatever they are about."""

    def spoilt(kind: Any, **options: Any) -> Cell:
        fault = answers(neighbour, kind, method=method, path=path, **options)
        return Cell(fault=fault, **cell)

    def status(code: int, reason: str, **headers: str) -> Cell:
        body = {"kind": "Status", "code": code, "reason": reason, "message": "injected"}
        return spoilt("status", status=code, body=json.dumps(body), headers=headers)

    return {
        "refused connection": Cell(fault=line_is(neighbour, "refuse"), **(cell | {"hits": 0})),
        "hang": Cell(fault=line_is(neighbour, "silence"), limits=HASTY, **cell),
        "reset in mid-body": spoilt("reset_body"),
        "truncated JSON": spoilt("truncate"),
        "HTML 502": spoilt("html"),
        "401 for a while": status(401, "Unauthorized"),
        "403 for a while": status(403, "Forbidden"),
        "409": status(409, "Conflict"),
        "410": status(410, "Expired"),
        "429 with Retry-After": status(429, "TooManyRequests", **{"Retry-After": "1"}),
        "429 without Retry-After": status(429, "TooManyRequests"),
        "500": status(500, "InternalError"),
        "an object that does not parse": spoilt("status", status=200, body='{"kind": [null]}'),
    }


async def others_go_on(fault: Fault, moment: str) -> None:
    """Let a fault strike one job for long; another one is launched and finished meanwhile."""
    seen = asyncio.Event()
    plan = replace(RUNS, held_by=seen) if moment == "running" else RUNS
    async with neighbourhood(plan, limits=HASTY) as on:
        on.at("running", seen.set)
        harms: list[Harm] = []
        reached = on.at(moment, lambda: harms.append(fault(on)))
        await on.launch()
        await on.happens(reached, f"the job is {moment}")
        await on.until(lambda: harms[0].hits() > 0, "the fault is met")
        await on.launch(BYSTANDER)
        assert (await on.until_finished(BYSTANDER))["state"] == "Succeeded"
        assert on.told(BYSTANDER)[-1] == "succeeded"
        assert (await on.show())["live"]

        await harms[0].end()

        await on.ends_well(JOB, BYSTANDER)


Outcomes: TypeAlias = dict[str, Exception]
"""What went wrong, by cell."""


async def outlive(cell: Cell) -> None:
    """Let one fault strike a running service, end it, and see everything come right by itself."""
    # Else a busy machine lets the run end before anybody has seen it
    seen = asyncio.Event()
    plan = replace(cell.plan, held_by=seen) if "running" in cell.moments else cell.plan
    async with neighbourhood(plan, hosts=cell.hosts, limits=cell.limits, **cell.changes) as on:
        on.at("running", seen.set)
        strikes = [_Strike(on, cell, moment) for moment in cell.moments]
        # What strikes later finds a job that was accepted, also where the first answer was late
        strikes_launch = cell.moments[0] in ("before", "accepting")
        caller = on.hasty if strikes_launch else on.client
        first = await caller.post("/launch", json=launch_body())
        assert first.status_code in (201, 503), first.text
        is_launched = False
        for strike in strikes:
            is_launched |= await strike.lasts()
            if first.status_code != 201:
                await on.launch_patiently()
        if not is_launched:
            await on.launch_patiently(BYSTANDER)
        await on.ends_well(JOB, BYSTANDER, state=cell.state, repeats=cell.repeats)


async def outlive_all(request: pytest.FixtureRequest, cells: Mapping[str, Cell]) -> Outcomes:
    """Run the selected cells, some at a time: most of their time is waiting."""
    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
    }
    outcomes: Outcomes = {}
    gate, entering, inside = asyncio.Semaphore(AT_ONCE), asyncio.Lock(), set[str]()

    async def run(name: str) -> None:
        async with gate:
            async with entering:
                while inside and await is_busy():
                    pass
                inside.add(name)
            try:
                await outlive(cells[name])
            except Exception as error:  # noqa: BLE001 - told by the test of this cell
                outcomes[name] = error
            finally:
                inside.discard(name)

    async with asyncio.TaskGroup() as group:
        for name in cells:
            if name in chosen:
                group.create_task(run(name))
    return outcomes


def tell(outcomes: Outcomes, name: str) -> None:
    """Raise what went wrong in a cell."""
    if name in outcomes:
        raise outcomes[name]


class _Strike:
    """A fault waiting for its moment."""

    def __init__(self, on: Neighbourhood, cell: Cell, moment: str) -> None:
        self._on, self._cell, self._moment = on, cell, moment
        self._harm: Harm | None = None
        if moment == "before":
            self._strike()
            self._reached = asyncio.Event()
            self._reached.set()
        else:
            self._reached = on.at(moment, self._strike)

    def _strike(self) -> None:
        self._harm = self._cell.fault(self._on)

    async def lasts(self) -> bool:
        """Wait for the moment, look at the API while the fault lasts, end it.

        Tell whether the bystander was accepted.
        """
        on, cell = self._on, self._cell
        await on.happens(self._reached, f"the job is {self._moment}")
        harm = self._harm
        assert harm is not None
        try:
            answers = await on.probe()
            await on.until(lambda: harm.hits() >= cell.hits, "the fault is met")
            await asyncio.sleep(cell.lasts)
        finally:
            await harm.end()
        return answers[0].status == 201


def documented(neighbour: str) -> set[str]:
    """Name the tests in the table of one neighbour in docs/reliability.md."""
    section = DOCUMENT.read_text().partition(f"\n## {neighbour}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(test_[a-z0-9_]+(?:\[[^`\]]+\])?)` *\|\n", section))


def names_of(module: dict[str, Any]) -> set[str]:
    """Name the tests of a module, those of its cells by cell, but for the one that asks this."""
    names = {name for name in module if name.startswith("test_")}
    by_cell = next(name for name in names if name.startswith("test_a_job_outlives"))
    single = names - {by_cell, "test_every_cell_of_the_document_is_tested"}
    return single | {f"{by_cell}[{cell}]" for cell in module["CELLS"]}
