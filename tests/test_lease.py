"""Leader election, rule by rule: what is written, when it expires, that two never act."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kube_scripted import (
    Scripted,
    Step,
    answer,
    client_for,
    eventually,
    failure,
    hang,
    reset,
    running,
)
from lease_world import (
    DEADLINE,
    DURATION,
    HTML,
    LASTING,
    MICROTIME,
    Clock,
    LeaseServer,
    World,
    elector,
    held,
)

from pyvatti.kube import lease as lease_module
from pyvatti.kube.lease import _microtime


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    lease = LeaseServer()
    async with Scripted(**lease.steps()) as server:
        yield World(lease, server, tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock by which electors judge the age of a record."""
    clock = Clock()
    monkeypatch.setattr(lease_module, "time", clock)
    return clock


# Rule: the three durations must fit


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"lease_duration": 0.6}, id="duration equals deadline"),
        pytest.param({"renew_deadline": 0.12}, id="deadline equals 1.2 x period"),
        pytest.param({"identity": ""}, id="no identity"),
    ],
)
async def test_impossible_durations_are_refused(world: World, wrong: dict[str, Any]):
    async with client_for(world.server.url, world.folder) as client:
        with pytest.raises(ValueError, match="must hold"):
            elector(client, **({"identity": "a"} | wrong))


# Rule: what a write says


async def test_one_replica_leads_without_ceremony_and_renews(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        await eventually(lambda: len(world.writes("a")) >= 4)
        assert a.elector.may_act
        assert a.elector.holder == "a"

        first, *renewals = [body["spec"] for body in world.writes("a")]
        assert first["holderIdentity"] == "a"
        assert first["leaseDurationSeconds"] == LASTING["lease_duration"]
        assert {spec["acquireTime"] for spec in renewals} == {first["acquireTime"]}
        assert {spec["leaseTransitions"] for spec in renewals} == {0}
        times = [spec["renewTime"] for spec in renewals]
        assert times == sorted(set(times))


def test_times_have_six_digits_and_a_zone():
    assert all(MICROTIME.fullmatch(_microtime()) for _ in range(100))


async def test_new_holder_counts_a_transition_and_keeps_foreign_labels(world: World):
    world.lease.store(held("") | {"acquireTime": None}, labels={"team": "x"})
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)

    assert world.writes("a")[0]["spec"]["leaseTransitions"] == 5
    assert world.lease.lease is not None
    assert world.lease.lease["metadata"]["labels"] == {"team": "x"}


# Rule: expiry is our time since the record changed here


@pytest.mark.parametrize("at", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"])
async def test_clock_of_the_holder_means_nothing(world: World, clock: Clock, at: str):
    world.lease.store(held("other", 1, at))
    async with world.replica("a") as a:
        await world.looks("a")
        clock.now += 0.99
        await world.looks("a")
        assert not a.elector.is_leader

        clock.now += 0.02
        await eventually(lambda: a.elector.is_leader)


async def test_life_of_a_record_is_its_own_word(world: World, clock: Clock):
    world.lease.store(held("other", 2))
    async with world.replica("a") as a:
        await world.looks("a")
        clock.now += 1.99
        await world.looks("a")
        assert not a.elector.is_leader

        clock.now += 0.02
        await eventually(lambda: a.elector.is_leader)


async def test_every_change_of_the_record_starts_its_life_anew(world: World, clock: Clock):
    world.lease.store(held("other"))
    async with world.replica("a") as a:
        for number in range(5):
            world.lease.store(held("other", 1, f"2026-01-01T00:00:0{number}.000000Z"))
            await world.looks("a")
            clock.now += 0.9
            await world.looks("a")
            assert not a.elector.is_leader

        clock.now += 0.2
        await eventually(lambda: a.elector.is_leader)


async def test_change_of_labels_does_not_prolong_a_dead_holder(world: World, clock: Clock):
    world.lease.store(held("other"))
    async with world.replica("a") as a:
        for number in range(3):
            await world.looks("a")
            assert not a.elector.is_leader
            clock.now += 0.4
            world.lease.store(held("other"), labels={"n": str(number)})

        await eventually(lambda: a.elector.is_leader)


async def test_successor_is_there_when_the_lease_runs_out(world: World):
    world.lease.store(held("other", 1))
    async with client_for(world.server.url, world.folder, user={"token": "a"}) as client:
        slow = elector(client, "a", retry_period=5, renew_deadline=7, lease_duration=10)
        began = time.monotonic()
        async with running(slow.run(asyncio.Event().wait)):
            await eventually(lambda: slow.is_leader)

    assert 1 <= time.monotonic() - began < 4


# Rule: two never act


async def test_of_three_one_leads(world: World):
    async with (
        world.replica("a", **LASTING) as a,
        world.replica("b", **LASTING) as b,
        world.replica("c", **LASTING) as c,
    ):
        await eventually(lambda: world.acting)
        await asyncio.sleep(LASTING["lease_duration"] + 0.5)

        assert sum(one.elector.is_leader for one in (a, b, c)) == 1
        assert sum(one.clashes for one in (a, b, c)) == 0
        assert len(set(world.lease.holders)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(reset(), id="reset"),
        pytest.param(HTML, id="HTML 502"),
        pytest.param(hang(), id="hang"),
        pytest.param(failure(409, "Conflict"), id="409 for ever"),
        pytest.param(answer({"kind": "Lease", "spec": []}), id="a Lease without metadata"),
    ],
)
async def test_leader_that_is_cut_off_stops_before_another_begins(world: World, fault: Step):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        async with world.replica("b") as b:
            await asyncio.sleep(0.2)
            world.lease.faults["a"] = fault
            cut_at = time.monotonic()
            await eventually(lambda: b.elector.is_leader)
            took = time.monotonic() - cut_at

            assert (a.clashes, b.clashes) == (0, 0)
            assert not a.elector.is_leader
            assert a.spans[0][1] - cut_at <= 10 * DEADLINE
            assert took < 10 * DURATION
            world.lease.faults.clear()
            await asyncio.sleep(0.5)
            await eventually(lambda: len(world.acting) == 1)
            assert (a.clashes, b.clashes) == (0, 0)


async def test_work_that_unwinds_slowly_has_ended_before_the_loss_is_told(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        a.unwinding = 1.0
        world.lease.faults["a"] = hang()
        await eventually(lambda: not a.elector.may_act)
        assert a.elector.is_leader
        assert world.acting == {"a"}
        await eventually(lambda: not a.elector.is_leader)

        assert world.acting == set()


async def test_renewal_during_a_slow_unwinding_neither_saves_nor_breaks_anything(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        a.unwinding = 2.0
        world.lease.faults["a"] = hang()
        await eventually(lambda: not a.elector.may_act)
        world.lease.faults.clear()
        renewed = len(world.lease.holders)
        await eventually(lambda: len(world.lease.holders) > renewed)
        assert world.acting == {"a"}

        await eventually(lambda: a.spans and world.acting)
        await eventually(lambda: a.elector.may_act)


async def test_work_begins_again_when_the_lease_is_regained(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.faults["a"] = reset()
        await eventually(lambda: not a.elector.is_leader)
        world.lease.faults.clear()
        await eventually(lambda: a.elector.is_leader)
        await eventually(lambda: world.acting == {"a"})

        assert a.spans


async def test_short_trouble_does_not_end_leadership(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        for fault in (reset(), HTML, failure(409, "Conflict"), hang()):
            world.lease.faults["a"] = fault
            await asyncio.sleep(0.25)
            world.lease.faults.clear()
            renewed = len(world.lease.holders)
            await eventually(lambda before=renewed: len(world.lease.holders) > before)

        assert a.spans == []
        assert a.elector.is_leader


async def test_renewal_whose_answer_is_lost_still_counts_once_read(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.after["a"] = reset()
        await asyncio.sleep(0.25)
        world.lease.after.clear()
        await asyncio.sleep(LASTING["renew_deadline"])

        assert a.spans == []


async def test_process_that_was_stopped_may_not_act_when_it_continues(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        time.sleep(DEADLINE + 0.1)  # noqa: ASYNC251 - the whole process stands still
        assert not a.elector.may_act
        await eventually(lambda: a.spans)


async def test_leader_that_finds_another_holder_stops_at_once(world: World):
    async with world.replica("a", renew_deadline=20, lease_duration=30) as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.store(held("b", 60))
        began = time.monotonic()
        await eventually(lambda: not a.elector.is_leader)

        assert time.monotonic() - began < 10
        assert world.lease.spec["holderIdentity"] == "b"
