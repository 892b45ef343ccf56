"""Leader election, rule by rule: fences, release, and work that ends by itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from kube_scripted import (
    Scripted,
    eventually,
    hang,
    missing,
    running,
)
from lease_world import LASTING, LeaseServer, World, held
from patience import stopwatch

from pyvatti.errors import Conflict


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    lease = LeaseServer()
    async with Scripted(**lease.steps()) as server:
        yield World(lease, server, tmp_path)


# Rule: every write is fenced by version and uid


async def test_lease_made_anew_by_another_is_not_overwritten(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.store(held("b", 60), uid="another")
        await eventually(lambda: not a.elector.is_leader)

        assert world.lease.spec["holderIdentity"] == "b"
        for body in world.writes("a")[1:]:
            assert {"resourceVersion", "uid"} <= set(body["metadata"])


async def test_deleted_lease_is_made_again_and_leadership_goes_on(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.lease = None
        await eventually(lambda: world.lease.lease)
        await asyncio.sleep(LASTING["renew_deadline"])

        assert a.elector.is_leader
        assert a.spans == []


async def test_lost_race_for_a_new_lease_is_no_leadership(world: World):
    async def raced(request: web.Request) -> web.StreamResponse:
        world.lease.faults.clear()
        step = missing("it")
        world.lease.store(held("b", 60))
        return await step(request)

    world.lease.faults["a"] = raced
    async with world.replica("a") as a:
        await eventually(lambda: world.writes("a"))
        await asyncio.sleep(0.3)

        assert not a.elector.is_leader
        assert world.lease.spec["holderIdentity"] == "b"


# Rule: release on stop


async def test_stopped_leader_hands_over_without_a_wait(world: World):
    async with world.replica("b", runs=False) as b:
        async with world.replica("a", **LASTING) as a:
            await eventually(lambda: a.elector.is_leader)
            a.unwinding = 0.2
        assert world.lease.spec["holderIdentity"] == ""
        assert world.lease.spec["leaseDurationSeconds"] == 1
        assert world.acting == set()

        async with stopwatch() as seconds, running(b.elector.run(b.lead)):
            await eventually(lambda: b.elector.is_leader)
            assert seconds() < 0.5


async def test_release_is_repeated_after_a_conflict(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.store(world.lease.spec, labels={"touched": "yes"})

    assert world.lease.spec["holderIdentity"] == ""


async def test_release_leaves_another_holder_alone(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.store(held("b", 60))

    assert world.lease.spec["holderIdentity"] == "b"


async def test_release_of_what_was_never_held_asks_nothing(world: World):
    async with world.replica("a", runs=False) as a:
        await a.elector.release()

    assert world.server.requests == []


async def test_release_does_not_hang_with_the_server(world: World):
    async with stopwatch() as seconds:
        async with world.replica("a") as a:
            await eventually(lambda: a.elector.is_leader)
            world.lease.faults["a"] = hang()
            began = seconds()

        assert seconds() - began < 1


async def test_release_while_the_work_runs_is_not_done(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        await a.elector.release()

        assert world.lease.spec["holderIdentity"] == "a"


# Rule: the work decides nothing about the election but its own end


async def test_work_that_fails_releases_the_lease_and_is_heard(world: World):
    async def fail() -> None:
        raise Conflict("broken work")

    async with world.replica("a", runs=False) as a:
        with pytest.raises(ExceptionGroup) as caught:
            await a.elector.run(fail)

    assert caught.group_contains(Conflict)
    assert world.lease.spec["holderIdentity"] == ""


async def test_work_that_times_out_by_itself_is_no_lost_lease(world: World):
    async def fail() -> None:
        raise TimeoutError

    async with world.replica("a", runs=False) as a:
        with pytest.raises(ExceptionGroup) as caught:
            await a.elector.run(fail)

    assert caught.group_contains(TimeoutError)


async def test_work_that_ends_gives_the_lease_to_others_first(world: World):
    async def brief() -> None:
        await asyncio.sleep(0)

    async with world.replica("a", runs=False) as a, running(a.elector.run(brief)):
        await eventually(lambda: world.lease.holders[:4] == ["a", "", "a", ""])
