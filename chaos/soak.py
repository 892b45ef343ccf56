"""A random, seeded, bounded time of everything at once: users, operators, faults, deaths.

Same seed, same decisions; how they interleave with real processes is never quite the same.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from chaos.calls import WRITE, Kill, Point, Side
from chaos.ground import Ground
from chaos.killing import Tally, leaks, workplace
from chaos.process import Zygote
from chaos.rules import EITHER, Expected, judge, unrest
from chaos.stories import FAILED, SUCCEEDED, edit
from chaos.strangers import Strangers
from chaos.witness import SPOILT_SECONDS
from pyvatti import labels
from pyvatti.sandbox.driver_plans import PLANS, Plan, job_name
from pyvatti.sandbox.faults import FaultRule, Kind
from pyvatti.sandbox.kube.resources import JOBS, SECRETS
from pyvatti.sandbox.kube.store import ApiError

USERS = 6
LONGEST_FAULT = 1.5  # seconds
ENDS = {
    "success": SUCCEEDED,
    "task_failure": FAILED,
    "transfer_fails": FAILED,
    "driver_hangs": SUCCEEDED,
    "seqera_silent": SUCCEEDED,
    "driver_killed": FAILED,
}
FAULTS: tuple[Kind, ...] = (
    "status",
    "html",
    "hang",
    "reset",
    "reset_body",
    "truncate",
    "slow",
    "after",
)
SETTINGS = {
    "MAX_CONCURRENT_JOBS": "3",
    "SWEEP_INTERVAL": "3",
    "TIMEOUT_SECONDS": "30",
    "LEASE_DURATION": "2",
    "RENEW_DEADLINE": "1.5",
    "RETRY_PERIOD": "0.4",
}
ORPHANS = ("intp77777777771", "intp77777777772")
ORPHAN_UID = "7d1fd9c5-9f3e-4c50-9d8a-000000000000"


async def soak(zygote: Zygote, seed: int, seconds: float, tally: Tally) -> None:
    """Let everything happen for so many seconds, then come to rest and judge."""
    tally.name = f"soak, seed {seed}"
    chosen: dict[str, Plan] = {}

    def plan_of(pod: dict[str, Any]) -> Plan:
        return chosen.get(job_name(pod), PLANS["success"])

    with workplace(tally) as folder:
        async with Ground(zygote, folder, plans=plan_of, changes=SETTINGS) as ground:
            ground.witness.patience = SPOILT_SECONDS
            await Soak(ground, chosen, random.Random(seed), tally).run(seconds)  # noqa: S311
        tally.accuse(*ground.witness.violations, *leaks(ground.log, ground.witness.secrets))
        tally.kills = ground.kills


class Soak:
    """One soak on one ground."""

    def __init__(
        self, ground: Ground, chosen: dict[str, Plan], dice: random.Random, tally: Tally
    ) -> None:
        self._ground, self._chosen, self._dice, self._tally = ground, chosen, dice, tally
        self._until = 0.0

    async def run(self, seconds: float) -> None:
        """Let users, faults and deaths loose, then wait for rest."""
        self._plant_orphans()
        self._until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            users = [group.create_task(self._use()) for _ in range(USERS)]
            others = [group.create_task(work()) for work in (self._spoil, self._end, self._outages)]
            await asyncio.sleep(seconds)
            for task in others:
                task.cancel()
            self._calm()
            await asyncio.wait(users)
        await self._ground.up()
        ground, orphans = (
            self._ground,
            [self._orphan_bucket(base) for base in ORPHANS],
        )
        if not await ground.until(lambda: not set(orphans) & set(ground.world.storage.buckets)):
            self._tally.leftovers.append(f"the sweeper left {orphans}")

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self._until

    def _plant_orphans(self) -> None:
        """Plant buckets of ours, two hours old, whose jobs nobody knows."""
        storage = self._ground.world.storage
        for base in ORPHANS:
            name = self._orphan_bucket(base)
            marks = {
                labels.BUCKET_MANAGED_BY: labels.MANAGER,
                labels.BUCKET_INSTANCE: "pyvatti",
                labels.BUCKET_NAMESPACE_UID: self._ground.world.namespace_uid,
                labels.BUCKET_JOB_ID: base,
                labels.BUCKET_JOB_UID: ORPHAN_UID,
            }
            bucket = storage.add_bucket(name, labels=marks)
            bucket.created -= timedelta(hours=2)
            storage.put_object(name, "data/x.vcf", b"genome")

    def _orphan_bucket(self, base: str) -> str:
        return f"{self._ground.world.namespace}-{base}-work-{ORPHAN_UID[:8]}"

    # Users and operators

    async def _use(self) -> None:
        while not self._is_over:
            self._tally.jobs += 1
            job_id = f"INTP{self._tally.jobs:011}"
            name = self._dice.choice([*ENDS, "success", "success"])
            self._chosen[job_id.lower()] = PLANS[name]
            await self._one(job_id, ENDS[name])
            await asyncio.sleep(self._dice.random() * 0.3)

    async def _one(self, job_id: str, ends: frozenset[str]) -> None:
        ground, dice = self._ground, self._dice
        strangers = Strangers(ground.world, job_id.lower())
        accepted = await ground.launch(job_id, again=dice.random() < 0.9)
        if accepted and dice.random() < 0.4:
            await asyncio.sleep(dice.random() * 0.8)
            ends = EITHER
            await dice.choice([ground.cancel, self._delete_job, self._delete_secret, self._edit])(
                job_id
            )
        rests = await ground.until_rest(job_id, accepted=accepted, patience=150)
        ground.read_log()
        expected = Expected(job_id=job_id, accepted=accepted, ends=ends)
        finding = judge(ground.world, ground.witness, strangers, expected)
        if not rests:
            finding.violations.append(unrest(ground.world, job_id.lower()))
        self._tally.add(finding, self._tally.name)
        strangers.remove()

    async def _delete_job(self, job_id: str) -> None:
        how = self._dice.choice(["Foreground", "Background", "Orphan"])
        self._delete(JOBS, job_id.lower(), how)

    async def _delete_secret(self, job_id: str) -> None:
        base = job_id.lower() + self._dice.choice(["", "-transfer"])
        if base.endswith("-transfer") or self._ground.job(job_id).state != "Requested":
            self._delete(SECRETS, base, "Background")

    def _delete(self, kind: Any, name: str, propagation: str) -> None:
        world = self._ground.world
        with suppress(ApiError):
            world.kube.store.delete(kind, world.namespace, name, propagation=propagation)

    async def _edit(self, job_id: str) -> None:
        def change(metadata: dict[str, Any]) -> None:
            metadata["labels"][labels.STATE] = self._dice.choice(["Succeeded", "Failed", "x"])
            if "deletionTimestamp" not in metadata:  # else it is the escape hatch: all is let go
                metadata["finalizers"] = []

        edit(self._ground, job_id, change)

    # Faults and deaths

    async def _spoil(self) -> None:
        """Spoil calls of the service, one fault after the other."""
        calls, dice = self._ground.calls, self._dice
        while True:
            await asyncio.sleep(dice.random() * 0.4)
            name = dice.choice(["kubernetes", "kubernetes", "storage", "seqera", "backend"])
            rule = calls.faults[name].add(
                dice.choice(["*", "GET", "POST", "PATCH", "DELETE"]),
                "" if name != "kubernetes" else dice.choice(["", "/jobs", "/secrets", "/leases"]),
                dice.choice(FAULTS),
                count=dice.randint(1, 4),
                status=dice.choice([500, 503, 429]),
                headers={"Retry-After": "1"},
                seconds=dice.random() * LONGEST_FAULT,
            )
            await asyncio.sleep(dice.random() * LONGEST_FAULT)
            self._tally.faults += rule.hits
            _remove(calls.faults[name].rules, rule)

    async def _outages(self) -> None:
        """Let the backend be away now and then."""
        while True:
            await asyncio.sleep(2 + self._dice.random() * 5)
            self._ground.world.backend.down = True
            self._tally.faults += 1
            await asyncio.sleep(self._dice.random() * 3)
            self._ground.world.backend.down = False

    async def _end(self) -> None:
        """End, stop or pause the service again and again."""
        ways: list[Callable[[], Awaitable[None]]] = [
            self._kill_at_a_call,
            self._kill_at_a_call,
            self._ground.kill,
            self._stop,
            self._pause,
        ]
        while True:
            await self._ground.up()
            await asyncio.sleep(self._dice.random())
            self._ground.keep_lease = self._dice.random() < 0.3
            self._ground.environment["MAX_CONCURRENT_JOBS"] = str(self._dice.randint(1, 5))
            await self._dice.choice(ways)()

    async def _kill_at_a_call(self) -> None:
        kill = Kill(Point(WRITE, self._dice.randint(1, 12)), self._dice.choice(list(Side)))
        self._ground.calls.expect(kill, self._ground.kill)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self._ground.calls.is_armed:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        self._ground.calls.disarm()

    async def _stop(self) -> None:
        await self._ground.end(signal.SIGTERM)

    async def _pause(self) -> None:
        service = self._ground.service
        service.send(signal.SIGSTOP)
        self._ground.witness.acting_stopped()
        try:
            await asyncio.sleep(self._dice.random() * 3)
        finally:
            service.send(signal.SIGCONT)

    def _calm(self) -> None:
        """End all faults: recovery needs no hand."""
        for rules in self._ground.calls.faults.values():
            rules.clear()
        self._ground.calls.disarm()
        self._ground.world.backend.down = False


def _remove(rules: list[FaultRule], rule: FaultRule) -> None:
    with suppress(ValueError):
        rules.remove(rule)
