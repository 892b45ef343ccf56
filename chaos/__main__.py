"""`python -m chaos`: everything, then a table; exit code 1 if a rule was broken or a thing left."""

import argparse
import asyncio
import sys
import time

from chaos.killing import Tally, explore
from chaos.process import Zygote
from chaos.replicas import replicas
from chaos.soak import soak
from chaos.startup import start_up
from chaos.stories import STORIES

SIDE_BY_SIDE = 3
"""Stories told at the same time: two cores are busy, and nobody waits for long."""

SOAK_SECONDS = 120.0
LONGEST_SOAK = 600.0
COLUMNS = ("kills", "faults", "jobs", "repeated", "unanswered", "violations", "leftovers")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the soak")
    parser.add_argument("--soak", type=float, default=SOAK_SECONDS, help="seconds; 0: none")
    parser.add_argument("--most", type=int, help="kills of each story; all of them by default")
    parser.add_argument("--only", default="", help="parts of the table whose name contains this")
    given = parser.parse_args()
    sys.exit(asyncio.run(_run(given)))


async def _run(given: argparse.Namespace) -> int:
    began, lines = time.monotonic(), list[Tally]()
    print(f"seed {given.seed}", flush=True)
    async with Zygote() as zygote:
        await _tell_stories(zygote, given, lines)
        if given.only in "replicas":
            for tally in await replicas(zygote):
                _note(lines, tally)
        if given.only in "start-up":
            _note(lines, await start_up(zygote))
        if given.only in "soak" and given.soak:
            _note(lines, await soak(zygote, given.seed, min(given.soak, LONGEST_SOAK)))
    return _sum_up(lines, time.monotonic() - began)


async def _tell_stories(zygote: Zygote, given: argparse.Namespace, lines: list[Tally]) -> None:
    left = iter([story for story in STORIES if given.only in story.name])

    async def tell() -> None:
        for story in left:
            _note(lines, await explore(zygote, story, most=given.most))

    async with asyncio.TaskGroup() as group:
        for _ in range(SIDE_BY_SIDE):
            group.create_task(tell())


def _note(lines: list[Tally], tally: Tally) -> None:
    lines.append(tally)
    print(f"done: {tally.name}", flush=True)


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
    missed = sum(len(tally.missed) for tally in lines)
    if missed:
        print(f"{missed} calls were not made again when the service was to die in them")
    for text in wrong:
        print(f"WRONG  {text}")
    print("as it must be" if not wrong else "NOT as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
