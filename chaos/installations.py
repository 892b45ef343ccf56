"""Two installations in one Google project: nothing of the one is ever touched by the other.

The second lives in another cluster: in a namespace whose name is a prefix of the first one's, or in
one of the very same name. Both sweep all the time, and every bucket is old enough to be swept.
"""

import asyncio
from datetime import timedelta

from chaos.calls import Kill, Point, Side
from chaos.ground import Ground
from chaos.killing import Tally, leaks, workplace
from chaos.process import Zygote
from chaos.rules import Expected, judge, judge_report, unrest
from chaos.stories import FAILED, SUCCEEDED
from pyvatti.sandbox.driver_plans import Plan, everyone

NAMESPACES = {"a prefix of ours": "intervene", "the same name": "intervene-dev"}
JOBS_EACH = 3
LONG_AGO = timedelta(hours=3)
SWEEPS = {"SWEEP_INTERVAL": "0.3"}
KILL = Kill(Point("any write", 9), Side.AFTER)


async def beside_each_other(zygote: Zygote, namespace: str, tally: Tally) -> None:
    """Run jobs in both at once, kill each once, launch one id in both; judge every job."""
    with workplace(tally) as folder:
        plans = everyone(Plan(run_seconds=30))
        for name in ("first", "second"):
            (folder / name).mkdir()
        async with (
            Ground(zygote, folder / "first", plans=plans, changes=SWEEPS) as first,
            Ground(
                zygote,
                folder / "second",
                plans=plans,
                changes=SWEEPS,
                namespace=namespace,
                beside=first.world,
            ) as second,
            asyncio.TaskGroup() as group,
        ):
            ageing = group.create_task(_age_buckets(first))
            users = [group.create_task(_use(at, tally, n)) for n, at in enumerate((first, second))]
            await asyncio.wait(users)
            await _share_an_id(first, second, tally)
            ageing.cancel()
            for ground in (first, second):
                tally.accuse(*ground.witness.violations)
                tally.accuse(*leaks(ground.log, ground.witness.secrets))


async def _age_buckets(ground: Ground) -> None:
    """Make every bucket look hours old, so that no sweeper spares it as a young one."""
    while True:
        for bucket in ground.world.storage.buckets.values():
            bucket.created = min(bucket.created, ground.world.storage.now() - LONG_AGO)
        await asyncio.sleep(0.02)


async def _use(ground: Ground, tally: Tally, number: int) -> None:
    async def end() -> None:
        tally.kills += 1
        await ground.kill()

    ground.calls.expect(KILL, end)
    ids = [f"INTP{number + 1}{at:010}" for at in range(JOBS_EACH)]
    for job_id in ids:
        tally.jobs += 1
        await ground.launch(job_id)
    for job_id in ids:
        await _judge(ground, tally, job_id, SUCCEEDED)


async def _share_an_id(first: Ground, second: Ground, tally: Tally) -> None:
    """Launch one id in both: with one namespace name both want the same results bucket."""
    job_id = "INTP70000000001"
    tally.jobs += 2
    await first.launch(job_id)
    await first.until(lambda: bool(first.world.work_bucket(job_id.lower())))
    await second.launch(job_id)
    await _judge(first, tally, job_id, SUCCEEDED)
    is_taken = second.world.namespace == first.world.namespace
    await _judge(second, tally, job_id, FAILED if is_taken else SUCCEEDED, is_taken=is_taken)


async def _judge(
    ground: Ground, tally: Tally, job_id: str, ends: frozenset[str], *, is_taken: bool = False
) -> None:
    rests = await ground.until_rest(job_id, accepted=True)
    await ground.up()
    expected = Expected(job_id=job_id, accepted=True, ends=ends)
    finding = judge(ground.world, ground.witness, None, expected)
    report = await ground.report(job_id)
    seen = ground.job(job_id)
    if is_taken:
        finding.leftovers = []  # the results are the other's
    else:
        finding.violations += judge_report(ground.world, seen, job_id.lower(), report)
    if not rests:
        finding.violations.append(unrest(ground.world, job_id.lower()))
    tally.add(finding, tally.name)
