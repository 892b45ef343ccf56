"""Leader election where the namespace goes: the last holder goes on, and nobody follows it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kube_scripted import Scripted, Step, eventually, failure, hang, missing, reset
from lease_world import DEADLINE, HTML, LASTING, TERMINATING, LeaseServer, World, held

from pyvatti.errors import NamespaceTerminating

FORBIDDEN = failure(403, "Forbidden", "leases is forbidden")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    lease = LeaseServer()
    async with Scripted(**lease.steps()) as server:
        yield World(lease, server, tmp_path)


async def until_asked(world: World, who: str, times: int = 2) -> None:
    """Wait until a replica made so many further requests."""

    def asked() -> int:
        return sum(request.token == who for request in world.server.requests)

    before = asked()
    await eventually(lambda: asked() >= before + times)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(TERMINATING, id="still refused"),
        pytest.param(FORBIDDEN, id="403: the Role is gone too"),
        pytest.param(reset(), id="reset"),
        pytest.param(hang(), id="hang"),
        pytest.param(HTML, id="HTML 502"),
    ],
)
async def test_holder_goes_on_when_its_lease_went_with_the_namespace(world: World, after: Step):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.go()
        await eventually(lambda: a.elector._is_last)
        world.lease.faults["a"] = after

        await asyncio.sleep(LASTING["lease_duration"] + 0.1)  # longer than any Lease would live

        assert a.elector.may_act
        assert a.spans == []
        asked = len(world.server.requests)
    assert len(world.server.requests) == asked  # nothing is renewed or given back


async def test_last_holder_that_slept_may_act_when_it_wakes_for_nobody_followed(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.go()
        await eventually(lambda: a.elector._is_last)
        time.sleep(LASTING["renew_deadline"] + 0.1)  # noqa: ASYNC251 - the whole process stands still

        assert a.elector.may_act


async def test_of_two_replicas_only_the_holder_acts(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        async with world.replica("b") as b:
            await until_asked(world, "b", 1)
            world.lease.go()
            await eventually(lambda: a.elector._is_last)
            await asyncio.sleep(LASTING["lease_duration"] + 0.1)
            await eventually(lambda: b.elector.is_shut_out)

            assert (a.elector.may_act, b.elector.may_act) == (True, False)
            assert world.acting == {"a"}
            assert (a.elector.is_shut_out, b.elector.is_shut_out) == (False, True)


async def test_replica_that_never_held_it_does_not_make_the_lease_even_if_it_could(world: World):
    """An API server whose cache is old takes creations for a moment longer."""
    world.lease.go()
    world.lease.stale = True
    async with world.replica("b") as b:
        await until_asked(world, "b", 4)

        assert not b.elector.is_leader
        assert world.writes("b") == []


@pytest.mark.parametrize(
    "unclear",
    [pytest.param(FORBIDDEN, id="403"), pytest.param(missing("demo"), id="404")],
)
async def test_replica_that_cannot_read_its_namespace_is_refused_and_does_not_act(
    world: World, unclear: Step
):
    world.lease.go()
    world.lease.namespace = unclear
    async with world.replica("b") as b:
        await eventually(lambda: b.elector.is_shut_out)

        assert not b.elector.may_act
        assert world.acting == set()


async def test_former_holder_that_lost_it_before_does_not_act(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.faults["a"] = hang()
        await eventually(lambda: not a.elector.is_leader)
        world.lease.go()  # another may have held it meanwhile
        world.lease.faults.clear()
        await eventually(lambda: a.elector.is_shut_out)

        assert not a.elector.may_act
        assert world.acting == set()


async def test_refusal_that_comes_after_the_deadline_makes_nobody_the_last_holder(world: World):
    async with world.replica("a", runs=False) as a:
        world.lease.go()
        a.elector._leading = True
        a.elector._renewed_at = time.monotonic() - DEADLINE

        with pytest.raises(NamespaceTerminating):
            await a.elector._create_again()

        assert not a.elector.may_act


@pytest.mark.parametrize("no", [FORBIDDEN, failure(422, "Invalid")], ids=["403", "422"])
async def test_no_other_refusal_keeps_a_holder_without_lease(world: World, no: Step):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.lease = None
        world.server.steps["POST"] = [no]
        await eventually(lambda: not a.elector.is_leader)

        assert not a.elector.may_act
        assert not a.elector._is_last


async def test_holder_that_finds_another_one_in_a_going_namespace_stops(world: World):
    async with world.replica("a") as a:
        await eventually(lambda: a.elector.is_leader)
        world.lease.go()
        world.lease.store(held("b", 60))
        await eventually(lambda: not a.elector.is_leader)

        assert not a.elector.may_act


async def test_lease_that_still_stands_in_a_going_namespace_is_held_as_ever(world: World):
    async with world.replica("a", **LASTING) as a:
        await eventually(lambda: a.elector.is_leader)
        kept = world.lease.lease
        world.lease.go()
        world.lease.lease = kept
        await asyncio.sleep(LASTING["lease_duration"])
        assert a.elector.is_leader
        async with world.replica("b") as b:
            world.lease.faults["a"] = hang()
            await eventually(lambda: b.elector.is_leader)

            assert (a.clashes, b.clashes) == (0, 0)
