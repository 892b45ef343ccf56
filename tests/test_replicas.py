"""Two replicas as processes and one Lease: never do two act, and nothing is lost in a change."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chaos.cables import Health
from chaos.calls import Kill, Point, Side
from chaos.process import Zygote
from chaos.replicas import (
    leader_cut_off,
    leader_killed,
    leader_paused_at,
    play,
    rolling_restart,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with Zygote() as started:
        yield started


async def test_another_replica_takes_over_when_the_leader_is_killed(zygote):
    tally = await play(zygote, "killed", leader_killed)

    assert tally.violations + tally.leftovers == []
    assert (tally.kills, tally.jobs) == (1, 9)


PAUSES = [
    Kill(Point("kubernetes PATCH jobs", 1), Side.AFTER),
    Kill(Point("storage POST batch", 1), Side.BEFORE),
]


@pytest.mark.parametrize("pause", PAUSES, ids=str)
async def test_a_leader_paused_for_longer_than_its_lease_writes_nothing_when_it_wakes(
    zygote, pause
):
    tally = await play(zygote, "paused", leader_paused_at(pause))

    assert tally.violations + tally.leftovers + tally.missed == []


async def test_a_leader_that_loses_the_api_server_stops_before_another_acts(zygote):
    tally = await play(zygote, "cut off", leader_cut_off(Health.FROZEN))

    assert tally.violations + tally.leftovers == []


async def test_a_rolling_restart_under_load_keeps_every_launch_that_was_answered_201(zygote):
    tally = await play(zygote, "rolling", rolling_restart)

    assert tally.violations + tally.leftovers == []
