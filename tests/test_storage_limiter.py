"""Turns for bucket creates and deletes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

import pytest
from patience import PATIENCE
from storage_builders import OWNER, open_door

from pyvatti.errors import Unavailable
from pyvatti.sandbox.storage import StorageStandIn
from pyvatti.storage import BucketLimiter


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param([("a", 100.0, 0.0)], id="first comer goes at once"),
        pytest.param([("a", 0.0, 0.0), ("b", 0.0, 2.0)], id="second waits for the interval"),
        pytest.param([("a", 0.0, 0.0), ("b", 0.0, 2.0), ("c", 0.0, 4.0)], id="third waits for two"),
        pytest.param([("a", 0.0, 0.0), ("b", 0.5, 1.5)], id="time that passed counts"),
        pytest.param([("a", 0.0, 0.0), ("b", 9.0, 0.0)], id="idle time is no credit and no debt"),
        pytest.param(
            [("a", 0.0, 0.0), ("b", 9.0, 0.0), ("c", 9.0, 2.0)], id="no burst after idle time"
        ),
        pytest.param(
            [("a", 0.0, 0.0), ("b", 0.0, 2.0), ("b", 1.0, 1.0), ("b", 2.0, 0.0)],
            id="asking again keeps the place",
        ),
        pytest.param(
            [("a", 0.0, 0.0), ("b", 0.0, 2.0), ("c", 1.0, 3.0), ("c", 2.0, 2.0), ("b", 2.0, 0.0)],
            id="who is early stays behind",
        ),
        pytest.param([("a", 0.0, 0.0), ("a", 0.0, 2.0)], id="a used turn is used"),
        pytest.param(
            [("a", 0.0, 0.0), ("b", 0.0, 2.0), ("c", 0.0, 4.0), ("b", 3.0, 0.0), ("c", 4.0, 1.0)],
            id="a late one moves those behind",
        ),
        pytest.param(
            [("a", 0.0, 0.0), ("b", 0.0, 2.0), ("c", 0.0, 4.0), ("c", 32.0, 2.0), ("c", 33.0, 0.0)],
            id="who stays away for 30 s loses the turn",
        ),
    ],
)
def test_turns_come_in_order_one_per_interval(asked: list[tuple[str, float, float]]):
    limiter = BucketLimiter(2.0)

    answers = [(key, now, limiter.delay(key, now)) for key, now, _ in asked]

    assert answers == asked


def test_cancelled_key_frees_its_place():
    limiter = BucketLimiter(2.0)
    limiter.delay("a", 0.0)
    limiter.delay("b", 0.0)
    behind = limiter.delay("c", 0.0)

    limiter.cancel("b")
    limiter.cancel("unknown")

    assert (behind, limiter.delay("c", 0.0), limiter.waiting) == (4.0, 2.0, 1)


def test_refusal_of_the_server_holds_everybody_back():
    limiter = BucketLimiter(2.0)

    limiter.postpone(10.0, 0.0)

    assert (limiter.delay("a", 0.0), limiter.delay("b", 0.0)) == (10.0, 12.0)
    assert limiter.delay("a", 10.0) == 0.0


class Turns:
    """Makes calls in turn, again after a refusal, as the service does."""

    def __init__(self, interval: float) -> None:
        self.limiter = BucketLimiter(interval)
        self.taken: list[float] = []

    async def make(self, key: str, call: Callable[[], Awaitable[object]]) -> None:
        while not await self._tried(key, call):
            pass

    async def _tried(self, key: str, call: Callable[[], Awaitable[object]]) -> bool:
        now = time.monotonic()
        wait = self.limiter.delay(key, now)
        if wait:
            await asyncio.sleep(wait)
            return False
        self.taken.append(now)
        try:
            await call()
        except Unavailable:
            self.limiter.postpone(0.2, time.monotonic())
            return False
        return True


async def test_many_jobs_pass_a_service_that_limits_the_rate():
    service = StorageStandIn(rate_limit=True, bucket_seconds=0.05)
    async with service, open_door(service.url) as door:
        turns = Turns(0.06)

        async def live(name: str) -> None:
            create = partial(door.create_bucket, owner=OWNER, purpose="work")
            await turns.make(name, partial(create, name))
            service.put_object(name, "data/genome", b"acgt")
            await door.empty_bucket(name, owner=OWNER)
            await turns.make(name, partial(door.delete_bucket, name, owner=OWNER))

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(live(f"intervene-dev-{number}-work"))

        gaps = [later - earlier for earlier, later in pairwise(turns.taken)]
        calls = service.counters["buckets.insert"] + service.counters["buckets.delete"]
        assert min(gaps) >= 0.059
        assert calls == len(turns.taken)
        assert service.leftovers() == []


async def test_without_turns_the_service_refuses():
    service = StorageStandIn(rate_limit=True)
    async with service, open_door(service.url) as door:
        for name in ("first-bucket", "second-bucket"):
            await door.create_bucket(name, owner=OWNER, purpose="work")

        with pytest.raises(Unavailable, match="429"):
            await door.create_bucket("third-bucket", owner=OWNER, purpose="work")

        assert list(service.buckets) == ["first-bucket", "second-bucket"]
