"""What happens to replicas: the leader dies, is paused, cut off, slow; all are replaced under load.

Each scenario gives a tally; that one replica acts at a time is proven by the ledger.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial

from chaos.cables import Health
from chaos.calls import Kill, Point, Side
from chaos.fleet import TAKE_OVER_SECONDS, Fleet, Replica
from chaos.ground import GRACE_SECONDS, LOOK, PATIENCE
from chaos.killing import Tally, leaks, workplace
from chaos.ledger import LEASE_SECONDS
from chaos.process import Zygote
from chaos.rules import EITHER, Expected, is_at_rest, judge, unrest
from chaos.stories import FAILED, SUCCEEDED
from pyvatti.sandbox.driver_plans import PLANS, everyone

RANDOM_PAUSES = 6
SLOW_SECONDS = 2.0  # longer than an accept may take, shorter than a job
AGES = (0, 0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
"""Seconds from the launch to its cancel: from the queue to the clean-up after its end."""
PAUSES = (
    Kill(Point("storage POST bucket", 1), Side.AFTER),
    Kill(Point("storage POST bucket", 2), Side.BEFORE),
    Kill(Point("kubernetes POST secrets", 2), Side.AFTER),
    Kill(Point("kubernetes PATCH jobs", 1), Side.BEFORE),
    Kill(Point("kubernetes PATCH jobs", 1), Side.AFTER),
    Kill(Point("backend PATCH status", 1), Side.BEFORE),
    Kill(Point("backend PATCH status", 1), Side.AFTER),
    Kill(Point("kubernetes DELETE jobs", 1), Side.AFTER),
    Kill(Point("storage GET bucket", 1), Side.AFTER),
    Kill(Point("storage POST batch", 1), Side.BEFORE),
    Kill(Point("storage POST batch", 1), Side.AFTER),
    Kill(Point("storage DELETE bucket", 1), Side.AFTER),
    Kill(Point("kubernetes POST configmaps", 1), Side.AFTER),
)
"""Where the leader is paused for longer than its Lease: in calls of every neighbour."""

Scenario = Callable[[Fleet, "Load"], Awaitable[None]]


class Load:
    """Users that post to any living replica, and what they were answered."""

    def __init__(self, fleet: Fleet, tally: Tally, where: str) -> None:
        self.fleet, self.tally, self.where = fleet, tally, where
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.ends: dict[str, frozenset[str]] = {}  # of the jobs that were cancelled

    async def post(self, replica: Replica | None = None) -> str:
        """Launch one more job by a replica, or by any until it is accepted."""
        self.tally.jobs += 1
        job_id = f"INTP{self.tally.jobs:011}"
        deadline = time.monotonic() + PATIENCE
        number = self.tally.jobs
        while time.monotonic() < deadline:
            replicas = [replica] if replica else list(self.fleet.replicas.values())
            status = await self.fleet.post(replicas[number % len(replicas)], job_id)
            if status == 201:
                self.accepted.append(job_id)
                return job_id
            if status not in (0, 503):
                self.tally.accuse(f"{job_id}: POST /launch answered {status}")
            number += 1
            await asyncio.sleep(0.05)
        self.tally.accuse(f"{job_id}: no launch is answered 201")
        return job_id

    async def post_once(self, replica: Replica) -> None:
        """Launch one more job by a replica that may not be able to take it."""
        self.tally.jobs += 1
        job_id = f"INTP{self.tally.jobs:011}"
        status = await self.fleet.post(replica, job_id)
        (self.accepted if status == 201 else self.refused).append(job_id)
        if status not in (0, 201, 503):
            self.tally.accuse(f"{job_id}: POST /launch answered {status}")

    async def cancel(self, replica: Replica, job_id: str, ends: frozenset[str]) -> None:
        """Cancel a job by a replica, again until it is answered; say how it may end then."""
        self.ends[job_id] = ends
        deadline = time.monotonic() + PATIENCE
        while (status := await self.fleet.cancel(replica, job_id)) in (0, 503):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        if status not in (202, 409):
            self.tally.accuse(f"{job_id}: DELETE answered {status}")

    async def finish(self) -> None:
        """Wait until every job is at rest, and judge."""
        fleet, world = self.fleet, self.fleet.world
        for job_id in [*self.accepted, *self.refused]:
            accepted = job_id in self.accepted
            at_rest = partial(is_at_rest, world, job_id.lower(), accepted=accepted)
            rests = await until(at_rest)
            ends = self.ends.get(job_id, SUCCEEDED)
            expected = Expected(job_id=job_id, accepted=accepted, ends=ends)
            finding = judge(world, fleet.witness, None, expected)
            if not rests:
                finding.violations.append(unrest(world, job_id.lower()))
            self.tally.add(finding, self.where)


async def until(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Wait for a condition; False if it does not come true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK)
    return True


async def play(
    zygote: Zygote, scenario: Scenario, tally: Tally, where: str = "", *, slack: float = 0.0
) -> None:
    """Play one scenario with two replicas; tally what is found, named by `where` or the line."""
    with workplace(tally) as folder:
        plans = everyone(PLANS["success"])
        async with Fleet(zygote, folder, plans=plans, slack=slack) as fleet:
            await fleet.start("a")
            await until(lambda: fleet.leader is not None)
            await fleet.start("b")
            load = Load(fleet, tally, where or tally.name)
            await scenario(fleet, load)
            await load.finish()
            tally.accuse(*fleet.witness.violations, *leaks(fleet.log, fleet.witness.secrets))
            tally.accuse(*(f"{load.where}: {act}" for act in fleet.ledger.misdeeds()))
            tally.kills += fleet.kills


async def _take_over(fleet: Fleet, load: Load, old: Replica, began: float | None = None) -> None:
    """Wait until another replica holds the Lease; it must not take too long."""
    began = began or time.monotonic()
    if not await until(lambda: fleet.leader not in (None, old)):
        load.tally.accuse(f"{load.where}: nobody took over")
    elif (seconds := time.monotonic() - began) > TAKE_OVER_SECONDS + fleet.slack:
        load.tally.accuse(f"{load.where}: take-over took {seconds:.1f} s")


async def _leader(fleet: Fleet) -> Replica:
    """Wait for a replica that leads, and give it: a busy machine may have none for a moment."""
    await until(lambda: fleet.leader is not None)
    leader = fleet.leader
    if leader is None:
        raise RuntimeError("no replica leads")
    return leader


async def leader_killed(fleet: Fleet, load: Load) -> None:
    """Kill the leader at work, while users post to the other."""
    for _ in range(6):
        await load.post()
    old = await _leader(fleet)
    await fleet.kill(old)
    for _ in range(3):
        await load.post()
    await _take_over(fleet, load, old)


def leader_paused_at(pause: Kill) -> Scenario:
    """Pause the leader in the middle of a call for longer than its Lease, then let it go on."""

    async def scenario(fleet: Fleet, load: Load) -> None:
        old = await _leader(fleet)

        async def stop() -> None:
            old.service.send(signal.SIGSTOP)
            load.tally.faults += 1

        fleet.calls.expect(pause, stop, is_cut_off=False)
        for _ in range(3):
            await load.post(fleet.others(old)[0])
        if not await until(lambda: not fleet.calls.is_armed):
            load.tally.missed.append(f"{load.where}: {pause}")
            return
        await _take_over(fleet, load, old)
        acts = fleet.ledger.acts
        done = len(acts)
        await until(lambda: len(acts) > done, patience=1.0)  # the new one is at work
        old.service.send(signal.SIGCONT)
        await asyncio.sleep(1)  # what it still had in hand would show now

    return scenario


async def leader_paused_at_random(fleet: Fleet, load: Load) -> None:
    """Pause whoever leads, busy, at any moment, again and again."""
    dice = random.Random(len(PAUSES))  # noqa: S311
    for _ in range(RANDOM_PAUSES):
        old = await _leader(fleet)
        for _ in range(3):
            await load.post(fleet.others(old)[0])
        await asyncio.sleep(dice.random() * 0.5)
        old.service.send(signal.SIGSTOP)
        load.tally.faults += 1
        await _take_over(fleet, load, old)
        await asyncio.sleep(dice.random() * 0.2)
        old.service.send(signal.SIGCONT)
        await asyncio.sleep(0.5)


def leader_cut_off(health: Health) -> Scenario:
    """Take the API server away from the leader alone, for longer than its Lease."""

    async def scenario(fleet: Fleet, load: Load) -> None:
        old = await _leader(fleet)
        for _ in range(4):
            await load.post()
        old.cables["kubernetes"].set(health)
        load.tally.faults += 1
        for _ in range(3):
            await load.post(fleet.others(old)[0])
            await load.post_once(old)
        await _take_over(fleet, load, old)
        await asyncio.sleep(0.5)
        old.cables["kubernetes"].set(Health.WHOLE)
        await load.post()

    return scenario


async def leader_slow(fleet: Fleet, load: Load) -> None:
    """Delay all the leader says to the API server, so that it may or may not keep its Lease."""
    cable = (await _leader(fleet)).cables["kubernetes"]
    for delay in (0.1, 0.3, 0.6, 0.0):
        cable.delay = delay
        load.tally.faults += bool(delay)
        for _ in range(2):
            await load.post()
        await asyncio.sleep(LEASE_SECONDS)


async def follower_slow(fleet: Fleet, load: Load) -> None:
    """Accept by a replica so slow that the leader takes its launches for abandoned ones."""
    follower = fleet.others(await _leader(fleet))[0]
    cable = follower.cables["kubernetes"]
    for delay in (0.1, 0.2, 0.25, 0.29):
        cable.delay = delay
        load.tally.faults += 1
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(load.post(follower))
            await asyncio.sleep(SLOW_SECONDS)
            cable.delay = 0.0  # else no launch is ever quick enough


async def follower_cancels(fleet: Fleet, load: Load) -> None:
    """Cancel by a replica that does not act, at many ages of a job, at last as the leader dies."""
    leader = await _leader(fleet)
    follower = fleet.others(leader)[0]
    for age in AGES:
        job_id = await load.post(leader)
        await asyncio.sleep(age)
        await load.cancel(follower, job_id, EITHER if age else FAILED)
    job_id = await load.post(leader)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.cancel(follower, job_id, FAILED))
        group.create_task(fleet.kill(leader))
    await _take_over(fleet, load, leader)


def rolling_restart(times: int) -> Scenario:
    """Replace so many replicas, each by a new one first, while users post to whoever lives."""

    async def scenario(fleet: Fleet, load: Load) -> None:
        done = asyncio.Event()

        async def post_all() -> None:
            while not done.is_set():
                await load.post()
                await asyncio.sleep(0.2)

        async with asyncio.TaskGroup() as group:
            group.create_task(post_all())
            for number in range(times):
                await _replace(fleet, load, f"r{number}")
            done.set()

    return scenario


async def _replace(fleet: Fleet, load: Load, name: str) -> None:
    """Start a replica, then end the oldest one by SIGTERM."""
    old = next(iter(fleet.replicas.values()))
    await fleet.start(name)
    led = fleet.leader is old
    del fleet.replicas[old.name]
    began = time.monotonic()
    old.service.send(signal.SIGTERM)
    await asyncio.wait([old.service.ended], timeout=GRACE_SECONDS)
    load.tally.kills += 1
    if old.service.alive:
        load.tally.accuse(f"{old.name} did not end within {GRACE_SECONDS} s")
    elif led:
        await _take_over(fleet, load, old, began)


SCENARIOS: dict[str, Scenario] = {
    "leader killed": leader_killed,
    "leader's API server silent": leader_cut_off(Health.FROZEN),
    "leader's API server refuses": leader_cut_off(Health.CUT),
    "leader paused at random": leader_paused_at_random,
    "leader slow": leader_slow,
    "follower slow": follower_slow,
    "follower cancels": follower_cancels,
    "rolling restart under load": rolling_restart(4),
}


async def leader_paused_in_calls(zygote: Zygote, tally: Tally) -> None:
    """Pause the leader once in each of these calls; one line of the table."""
    for pause in PAUSES:
        await play(zygote, leader_paused_at(pause), tally, f"leader paused {pause}")
