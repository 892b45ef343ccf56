"""Two replicas as processes on one Lease; who wrote what is read from the stand-ins' own log.

A small part of `make chaos`, which tells every scenario.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from patience import PATIENCE

from chaos import replicas
from chaos.cables import Health
from chaos.calls import Kill, Point, Side
from chaos.killing import Tally
from chaos.process import Zygote

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with Zygote() as started:
        yield started


def _broken(tally: Tally) -> list[str]:
    return tally.violations + tally.leftovers + tally.missed


async def test_a_killed_leader_is_succeeded_in_time_and_every_launch_is_kept(zygote):
    tally = Tally("killed")
    await replicas.play(zygote, replicas.leader_killed, tally, slack=PATIENCE)

    assert _broken(tally) == []
    assert (tally.kills, tally.jobs) == (1, 9)


@pytest.mark.parametrize(
    "pause",
    [
        Kill(Point("storage POST bucket", 1), Side.AFTER),
        Kill(Point("kubernetes PATCH jobs", 1), Side.AFTER),
        Kill(Point("backend PATCH status", 1), Side.AFTER),
    ],
    ids=str,
)
async def test_a_leader_that_slept_longer_than_its_lease_sends_nothing_when_it_wakes(zygote, pause):
    tally = Tally("paused")
    await replicas.play(zygote, replicas.leader_paused_at(pause), tally, slack=PATIENCE)

    assert _broken(tally) == []
    assert tally.faults == 1


async def test_a_leader_cut_off_from_the_api_server_stops_before_another_acts(zygote):
    tally = Tally("cut off")
    await replicas.play(zygote, replicas.leader_cut_off(Health.FROZEN), tally, slack=PATIENCE)

    assert _broken(tally) == []


async def test_a_replica_that_is_replaced_hands_over_and_no_launch_is_lost(zygote):
    tally = Tally("replaced")
    await replicas.play(zygote, replicas.rolling_restart(1), tally, slack=PATIENCE)

    assert _broken(tally) == []
    assert tally.kills == 1
