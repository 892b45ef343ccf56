"""A start with many live jobs and many records: ready soon, and nothing done or told twice."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

from chaos.calls import Answer, Call
from chaos.ground import Ground
from chaos.killing import Tally, leaks, workplace
from chaos.process import Zygote
from chaos.rules import REFUSED
from pyvatti import labels
from pyvatti.sandbox.driver_plans import Plan, everyone
from pyvatti.sandbox.kube.resources import CONFIGMAPS

READY_SECONDS = 10.0
QUIET_SECONDS = 3.0
RUNNING = 10
POSTS_AT_A_TIME = 8
FOREVER = Plan(run_seconds=1e6)


async def start_up(
    zygote: Zygote,
    tally: Tally,
    *,
    live: int = 1000,
    records: int = 5000,
    quiet: float = QUIET_SECONDS,
    slack: float = 0.0,
) -> None:
    """Kill a service with so many live jobs, start another from nothing, and look what it does.

    `quiet`: seconds in which nothing may be done. `slack`: seconds more until it is ready.
    """
    tally.name, tally.jobs = f"start-up, {live} jobs, {records} records", live
    changes = {"MAX_CONCURRENT_JOBS": str(RUNNING)}
    with workplace(tally) as folder:
        plans = everyone(FOREVER)
        ground = Ground(zygote, folder, plans=plans, changes=changes, slack=slack)
        async with AsyncExitStack() as stack, ground:
            _add_records(ground, records)
            ground.world.backend.down = True
            await _fill(ground, live)
            await _restart(ground, stack, tally, quiet, READY_SECONDS + slack)
        tally.accuse(*ground.witness.violations, *leaks(ground.log, ground.witness.secrets))
        tally.kills = ground.kills


async def _fill(ground: Ground, live: int) -> None:
    """Launch so many jobs and wait until each has got as far as it can."""
    ids = [f"INTP{number:011}" for number in range(1, live + 1)]
    left = iter(ids)

    async def post() -> None:
        for job_id in left:
            await ground.launch(job_id)

    async with asyncio.TaskGroup() as group:
        for _ in range(POSTS_AT_A_TIME):
            group.create_task(post())
    running = ids[: min(RUNNING, live)]
    await ground.until(lambda: all(_tried(ground, job_id) for job_id in running), patience=120)
    await ground.until(lambda: all(_is_marked(ground, job_id) for job_id in ids), patience=120)


def _tried(ground: Ground, job_id: str) -> bool:
    seen = ground.job(job_id)
    return bool(seen.told) and seen.transfer_gone_at is not None


def _is_marked(ground: Ground, job_id: str) -> bool:
    return bool(ground.job(job_id).is_marked)


async def _restart(
    ground: Ground, stack: AsyncExitStack, tally: Tally, quiet: float, most: float
) -> None:
    """Start a service with a new interpreter, as a pod does; it is ready in `most` seconds."""
    began = time.monotonic()
    ground.use(await stack.enter_async_context(Zygote()))
    await ground.kill()
    await asyncio.sleep(0.1)  # what the dead one had sent is dealt with
    wrote: list[str] = []

    def note(call: Call, answer: Answer) -> None:
        if not call.is_background and call.method != "GET" and answer.status < REFUSED:
            wrote.append(call.what)

    ground.calls.answered.append(note)
    await ground.up()
    seconds = time.monotonic() - began
    tally.name += f": ready in {seconds:.1f} s"
    if seconds > most:
        tally.accuse(f"start-up took {seconds:.1f} s")
    received = ground.world.backend.received
    tried = len(received)
    await ground.until(lambda: len(received) >= tried + RUNNING)
    await asyncio.sleep(quiet)
    tally.accuse(*(f"start-up: {what} was done again" for what in sorted(set(wrote))))
    ground.world.backend.down = False
    await ground.until(lambda: _delivered(ground) >= RUNNING, patience=120)
    await asyncio.sleep(quiet)
    if (delivered := _delivered(ground)) != RUNNING:
        tally.accuse(f"start-up: {delivered} notices taken, {RUNNING} expected")


def _delivered(ground: Ground) -> int:
    return sum(item.answer == 200 for item in ground.world.backend.received)


def _add_records(ground: Ground, count: int) -> None:
    """Write records of jobs that ended long ago."""
    store, namespace = ground.world.kube.store, ground.world.namespace
    for number in range(count):
        base = f"intp8{number:010}"
        marks = {
            labels.NAME: labels.APPLICATION,
            labels.INSTANCE: "pyvatti",
            labels.NAMESPACE_UID: ground.world.namespace_uid,
            labels.COMPONENT: labels.RECORD,
            labels.PART_OF: labels.PROJECT,
            labels.MANAGED_BY: labels.MANAGER,
            labels.JOB_ID: base,
            labels.STATE: "Succeeded",
        }
        said = {
            "job_id": base.upper(),
            "uid": f"00000000-0000-0000-0000-{number:012}",
            "state": "Succeeded",
            "accepted_at": "2026-01-01T00:00:00Z",
            "finished_at": "2026-01-01T01:00:00Z",
            "removed_at": "2026-01-01T01:00:00Z",
            "run_name": f"{namespace}-{base}",
        }
        body = {
            "metadata": {"name": f"{base}-record", "labels": marks},
            "data": {"record.json": json.dumps(said)},
        }
        store.create(CONFIGMAPS, namespace, body)
