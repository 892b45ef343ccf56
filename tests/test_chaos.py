"""The service as a process that is killed, stopped and started again; `make chaos` does it all."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from patience import PATIENCE

from chaos.calls import WRITE, Answer, Call, Kill, Point, Side
from chaos.ground import GRACE_SECONDS, Ground
from chaos.killing import Explorer, Tally
from chaos.process import Zygote
from chaos.rules import CREDENTIAL_SECONDS, Expected, judge
from chaos.startup import start_up
from chaos.stories import LONG_RUN, STORIES, Story
from pyvatti.sandbox.driver_plans import PLANS, everyone
from pyvatti.sandbox.kube.resources import LEASES, PODS

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB = "INTP00000000513"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with Zygote() as started:
        yield started


def ground_on(zygote: Zygote, folder: Path, **more: Any) -> Ground:
    """Give a ground on a machine that is busy with other tests."""
    return Ground(zygote, folder, slack=PATIENCE, **more)


def _story(name: str) -> Story:
    return next(story for story in STORIES if story.name == name)


async def test_fault_02_a_job_answered_201_is_known_after_an_immediate_kill(zygote, tmp_path):
    story = _story("success")
    async with ground_on(zygote, tmp_path, plans=story.plans) as ground:
        assert await ground.launch(JOB)
        await ground.kill()
        await ground.up()

        answer = await ground.client.get(f"/jobs/{JOB}")

        assert answer.status_code == 200
        assert await ground.until_rest(JOB, accepted=True)
        expected = Expected(job_id=JOB, accepted=True, ends=story.ends)
        finding = judge(ground.world, ground.witness, None, expected)
        assert finding.violations + finding.leftovers == []


async def test_fault_16_a_restart_follows_all_jobs_again_and_sends_and_deletes_nothing(
    zygote, tmp_path
):
    ids = [f"INTP{number:011}" for number in range(1, 4)]
    async with ground_on(zygote, tmp_path, plans=everyone(LONG_RUN)) as ground:
        for job_id in ids:
            await ground.launch(job_id)
        assert await ground.until(lambda: all(_is_quiet(ground, job_id) for job_id in ids))
        wrote: list[str] = []

        def note(call: Call, answer: Answer) -> None:
            if not call.is_background and call.method != "GET" and answer.status != 404:
                wrote.append(call.what)

        await ground.kill()
        await asyncio.sleep(0.1)  # what the dead one had sent is dealt with
        ground.calls.answered.append(note)
        await ground.up()
        polls = len(ground.world.seqera.requests)
        assert await ground.until(lambda: len(ground.world.seqera.requests) > polls + 5)
        assert wrote == []
        assert [_told(ground, job_id) for job_id in ids] == [["deployed"]] * 3

        for pod in ground.world.objects("Pod"):
            ground.world.kube.store.delete(
                PODS, ground.world.namespace, pod, propagation="Background", grace_seconds=0
            )

        for job_id in ids:
            assert await ground.until_rest(job_id, accepted=True)
            assert _told(ground, job_id) == ["deployed", "failed"]


def _told(ground: Ground, job_id: str) -> list[str]:
    return ground.world.backend.delivered(job_id)


def _is_quiet(ground: Ground, job_id: str) -> bool:
    """Tell whether a running job's notices and credentials, the staged ones too, are dealt with."""
    seen, work = ground.job(job_id), f"{ground.world.work_bucket(job_id.lower())}/work/transfer/"
    staged = any(work in name for name in ground.world.storage.leftovers())
    return 1 in seen.noted and seen.transfer_gone_at is not None and not staged


async def test_fault_17_sigterm_ends_in_time_and_leaves_jobs_buckets_and_lease_alone(
    zygote, tmp_path
):
    async with ground_on(zygote, tmp_path, plans=everyone(LONG_RUN), keep_lease=True) as ground:
        await ground.launch(JOB)
        assert await ground.until(lambda: _is_quiet(ground, JOB))
        before = _everything(ground)
        began = time.monotonic()

        code = await ground.end(signal.SIGTERM)

        assert time.monotonic() - began < GRACE_SECONDS
        assert code in (0, -signal.SIGTERM)
        assert _everything(ground) == before
        lease = ground.world.kube.store.get(LEASES, ground.world.namespace, "pyvatti")
        assert lease["spec"].get("holderIdentity", "") == ""
        await ground.up()
        await ground.cancel(JOB)
        assert await ground.until_rest(JOB, accepted=True)
        assert _told(ground, JOB) == ["deployed", "failed"]


def _everything(ground: Ground) -> list[str]:
    kinds = ("Job", "Secret", "Pod", "ConfigMap")
    names = [f"{kind} {name}" for kind in kinds for name in ground.world.objects(kind)]
    return sorted(names + list(ground.world.storage.buckets))


KILLS = [
    Kill(Point("kubernetes POST jobs", 1), Side.AFTER),
    Kill(Point("kubernetes POST secrets", 1), Side.BEFORE),
    Kill(Point("kubernetes POST secrets", 1), Side.AFTER),
    Kill(Point("storage POST bucket", 2), Side.AFTER),
    Kill(Point("kubernetes PATCH jobs", 1), Side.AFTER),
    Kill(Point("backend PATCH status", 1), Side.AFTER),
    Kill(Point("storage DELETE bucket", 1), Side.AFTER),
    Kill(Point("kubernetes POST configmaps", 1), Side.AFTER),
]


async def test_a_kill_in_the_middle_of_a_call_breaks_no_rule(zygote, tmp_path):
    story, tally = _story("success"), Tally("success")
    async with ground_on(zygote, tmp_path, plans=story.plans) as ground:
        explorer = Explorer(ground, story, tally)
        for kill in KILLS:
            assert await explorer.run(kill), f"no such call: {kill}"

        assert tally.violations + tally.leftovers + ground.witness.violations == []


async def test_an_unanswered_launch_that_is_not_repeated_leaves_nothing_and_tells_nothing(
    zygote, tmp_path
):
    story, tally = _story("success, launched once"), Tally("once")
    async with ground_on(zygote, tmp_path, plans=story.plans) as ground:
        explorer = Explorer(ground, story, tally)
        assert await explorer.run(Kill(Point("kubernetes POST jobs", 1), Side.AFTER))

        assert tally.violations + tally.leftovers + ground.witness.violations == []
        assert (tally.unanswered, ground.world.backend.received) == (0, [])


async def test_a_service_that_dies_again_and_again_still_brings_a_job_to_its_end(zygote, tmp_path):
    story, tally = _story("task failure"), Tally("relentless")
    async with ground_on(zygote, tmp_path, plans=story.plans) as ground:
        await Explorer(ground, story, tally).run_relentlessly(Kill(Point(WRITE, 6), Side.AFTER))

        assert ground.kills > 1
        assert tally.violations + tally.leftovers + ground.witness.violations == []


async def test_a_start_with_many_jobs_and_records_is_quick_and_does_nothing_twice(zygote):
    tally = Tally("start-up")
    await start_up(zygote, tally, live=30, records=500, quiet=1.0, slack=PATIENCE)

    assert tally.violations + tally.leftovers == []


async def test_faults_meant_for_the_service_spare_the_simulated_drivers(zygote, tmp_path):
    plans = everyone(PLANS["driver_hangs"])  # it ends only if Seqera hears of its success
    async with ground_on(zygote, tmp_path, plans=plans) as ground:
        rule = ground.calls.faults["seqera"].add("PUT", "/trace", "status", status=400)
        await ground.launch(JOB)

        assert await ground.until_rest(JOB, accepted=True)
        assert rule.hits == 0
        assert ground.job(JOB).ends[ground.job(JOB).uids[0]] == ["Succeeded"]


async def test_a_notice_that_outlives_its_teller_is_late_and_told_again_by_the_next(
    zygote, tmp_path
):
    story = _story("success")
    async with ground_on(zygote, tmp_path, plans=story.plans) as ground:
        slow = ground.calls.faults["backend"].add("PATCH", "", "slow", count=1, seconds=1.0)
        await ground.launch(JOB)
        assert await ground.until(lambda: slow.hits == 1)
        await ground.kill()

        assert await ground.until_rest(JOB, accepted=True)
        assert await ground.until(lambda: any(told.is_late for told in ground.job(JOB).told))
        expected = Expected(job_id=JOB, accepted=True, ends=story.ends)
        assert judge(ground.world, ground.witness, None, expected).violations == []


async def test_credentials_that_outlive_the_transfer_while_a_service_acts_are_a_violation(
    zygote, tmp_path
):
    async with ground_on(zygote, tmp_path, plans=everyone(LONG_RUN)) as ground:
        ground.witness.patience = 0.5 - CREDENTIAL_SECONDS
        faults = ground.calls.faults["kubernetes"]
        faults.add("DELETE", "/secrets/.*-transfer", "status", status=500)
        await ground.launch(JOB)
        assert await ground.until(lambda: ground.job(JOB).main_started_at is not None)
        began = time.monotonic()
        assert await ground.until(lambda: ground.witness.acted(began, time.monotonic()) > 1)
        faults.clear()
        await ground.cancel(JOB)

        assert await ground.until_rest(JOB, accepted=True)
        finding = judge(ground.world, ground.witness, None, Expected(job_id=JOB, accepted=True))
        assert [text for text in finding.violations if "credentials outlived" in text]
