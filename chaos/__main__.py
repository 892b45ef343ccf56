"""`python -m chaos`: everything, then a table; exit code 1 if a rule was broken or a thing left."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from chaos.installations import NAMESPACES, beside_each_other
from chaos.killing import Tally, explore
from chaos.process import Zygote
from chaos.replicas import SCENARIOS, leader_paused_in_calls, play
from chaos.soak import soak
from chaos.startup import start_up
from chaos.stories import STORIES
from chaos.tricks import TRICKS, tricked

SIDE_BY_SIDE = 6
"""Stories told at the same time: they mostly wait, and two cores are busy with these."""

SOAK_SECONDS = 120.0
LONGEST_SOAK = 600.0
PROGRESS_SECONDS = 30.0
COLUMNS = ("kills", "faults", "jobs", "repeated", "unanswered", "violations", "leftovers")

Part = Callable[[Tally], Awaitable[None]]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the soak")
    parser.add_argument("--soak", type=float, default=SOAK_SECONDS, help="seconds; 0: none")
    parser.add_argument("--most", type=int, help="kills of each story; all of them by default")
    parser.add_argument("--only", default="", help="parts of the table whose name contains this")
    parser.add_argument("--list", action="store_true", help="name the parts and end")
    sys.exit(asyncio.run(_run(parser.parse_args())))


async def _run(given: argparse.Namespace) -> int:
    began, lines = time.monotonic(), list[Tally]()
    async with Zygote() as zygote:
        beside, alone = _parts(zygote, given)
        if given.list or not (beside or alone):
            print("\n".join([*beside, *alone]) or f"no part is called {given.only!r}")
            return 0 if given.list else 2
        print(f"seed {given.seed}", flush=True)
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(_tell_progress(lines, began, len(beside) + len(alone)))
            await _do(beside, lines, SIDE_BY_SIDE)
            await _do(alone, lines, 1)
            teller.cancel()
    return _sum_up(lines, time.monotonic() - began)


def _parts(
    zygote: Zygote, given: argparse.Namespace
) -> tuple[Mapping[str, Part], Mapping[str, Part]]:
    """Give the parts asked for: those told side by side, and those that need the machine."""
    stories: dict[str, Part] = {
        story.name: partial(explore, zygote, story, given.most) for story in STORIES
    }
    stories |= {f"stranger: {trick.name}": partial(tricked, zygote, trick) for trick in TRICKS}
    stories |= {
        f"installations: {name}": partial(beside_each_other, zygote, namespace)
        for name, namespace in NAMESPACES.items()
    }
    alone: dict[str, Part] = {
        f"replicas: {name}": partial(play, zygote, scenario) for name, scenario in SCENARIOS.items()
    }
    alone["replicas: leader paused in a call"] = partial(leader_paused_in_calls, zygote)
    alone["start-up"] = partial(start_up, zygote)
    if given.soak:
        alone["soak"] = partial(soak, zygote, given.seed, min(given.soak, LONGEST_SOAK))
    return _chosen(stories, given.only), _chosen(alone, given.only)


def _chosen(parts: Mapping[str, Part], only: str) -> Mapping[str, Part]:
    return {name: part for name, part in parts.items() if only in name}


async def _do(parts: Mapping[str, Part], lines: list[Tally], side_by_side: int) -> None:
    left = iter(parts.items())

    async def work() -> None:
        for name, part in left:
            tally = Tally(name)
            lines.append(tally)
            await part(tally)
            tally.is_done = True
            print(f"done: {tally.name}", flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(side_by_side):
            group.create_task(work())


async def _tell_progress(lines: list[Tally], began: float, parts: int) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        done = sum(tally.is_done for tally in lines)
        jobs, wrong = sum(tally.jobs for tally in lines), sum(tally.wrong for tally in lines)
        now = ", ".join(tally.name for tally in lines if not tally.is_done)
        print(
            f"{time.monotonic() - began:5.0f} s: {done} of {parts} parts, {jobs} jobs, "
            f"{wrong} wrong; now {now}",
            flush=True,
        )


def _numbers(tally: Tally) -> tuple[int, ...]:
    return (
        tally.kills,
        tally.faults,
        tally.jobs,
        tally.repeats,
        tally.unanswered,
        len(tally.violations),
        len(tally.leftovers),
    )


def _sum_up(lines: list[Tally], seconds: float) -> int:
    """Print the table and everything that is wrong."""
    width = max(len(tally.name) for tally in lines)
    print(f"\n{'':{width}}" + "".join(f"  {name:>10}" for name in COLUMNS))
    total = [sum(column) for column in zip(*map(_numbers, lines), strict=True)]
    for name, numbers in [*((tally.name, _numbers(tally)) for tally in lines), ("total", total)]:
        print(f"{name:{width}}" + "".join(f"  {number:10}" for number in numbers))
    print("\nrepeated: told again with the same event id, because the teller died or the answer")
    print("was lost between the backend's 200 and the note of it on the Job")
    print("unanswered: ran although no launch of it was answered 201, because the answer was lost")
    print(f"{seconds:.0f} s")
    wrong = [text for tally in lines for text in (*tally.violations, *tally.leftovers)]
    missed = [text for tally in lines for text in tally.missed]
    if missed:
        print(f"{len(missed)} calls were not made again when the service was to die in them:")
    for text in missed:
        print(f"       {text}")
    for text in wrong:
        print(f"WRONG  {text}")
    print("as it must be" if not wrong else "NOT as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
