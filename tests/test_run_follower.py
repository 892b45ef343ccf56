"""Who asks Seqera how often: one pass an interval, one call for a run somebody must know of now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from neighbour_settings import settings_for
from patience import PATIENCE

from pyvatti.lifecycle.runs import RunFollower
from pyvatti.models import RunStatus
from pyvatti.sandbox.seqera import SeqeraStandIn
from pyvatti.seqera import PAGE, Seqera

LAUNCHED = datetime.now(UTC) - timedelta(hours=1)
LIST = "/workflow?workspaceId=7&max=50&offset="
SEARCH = "search=runName"


@dataclass
class Following:
    follower: RunFollower
    stand_in: SeqeraStandIn
    changed: list[str] = field(default_factory=list)

    def calls(self, part: str = LIST) -> int:
        return sum(part in item.path for item in self.stand_in.requests)

    def searches(self) -> int:
        return self.calls(SEARCH)


@asynccontextmanager
async def following(count: int) -> AsyncIterator[Following]:
    """Follow so many running runs, with an interval that no test lives to see the end of."""
    names = {f"dev-intp{number}": LAUNCHED for number in range(count)}
    async with SeqeraStandIn(workspace=7) as stand_in:
        for number, name in enumerate(names):
            stand_in.put_run(name, submit=LAUNCHED + timedelta(seconds=number), id=name)
        seqera = Seqera(
            settings_for(tower_api_url=stand_in.url, tower_token=stand_in.token, tower_workspace=7)
        )
        changed: list[str] = []
        follower = RunFollower(
            seqera,
            interval=3600,
            clock=lambda: datetime.now(UTC),
            wanted=lambda: names,
            clean=lambda _name, text: text,
            changed=changed.append,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(follower.follow())
            yield Following(follower, stand_in, changed)
            task.cancel()
        await seqera.close()


def fail(it: Following, name: str) -> None:
    it.stand_in.runs.get(name).workflow["status"] = "FAILED"


async def test_one_run_among_many_is_looked_up_by_one_call():
    async with following(2 * PAGE) as it:
        fail(it, "dev-intp7")
        began = datetime.now(UTC)

        await it.follower.ask("dev-intp7")

        run, asked_at = it.follower.run_of("dev-intp7"), it.follower.asked_at("dev-intp7")
        assert run is not None
        assert run.status is RunStatus.FAILED
        assert asked_at is not None
        assert asked_at >= began
        assert it.changed == ["dev-intp7"]
        assert (it.calls(), it.searches()) == (1, 1)
        assert it.follower.asked_at("dev-intp8") is None


async def test_runs_of_one_page_are_asked_for_by_a_pass():
    async with following(PAGE) as it:
        await it.follower.ask("dev-intp7")

        assert it.searches() == 0
        assert it.follower.asked_at("dev-intp8") is not None


async def test_a_server_without_keywords_is_asked_for_the_list():
    async with following(2 * PAGE) as it:
        it.stand_in.faults.add("GET", SEARCH, "status", status=200, body='{"workflows": []}')
        fail(it, "dev-intp7")

        await it.follower.ask("dev-intp7")

        run = it.follower.run_of("dev-intp7")
        assert run is not None
        assert run.status is RunStatus.FAILED
        assert it.searches() == 1
        assert it.follower.asked_at("dev-intp8") is not None


@pytest.mark.parametrize("status", [401, 503])
async def test_a_failed_look_up_is_followed_by_a_pass(status):
    async with following(2 * PAGE) as it:
        it.stand_in.faults.add("GET", SEARCH, "status", status=status)

        await it.follower.ask("dev-intp7")

        assert it.searches() == 1
        assert it.calls() > it.searches()
        assert it.follower.run_of("dev-intp7") is not None


async def test_many_at_once_are_asked_for_by_a_pass():
    async with following(2 * PAGE) as it:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(it.follower.ask(f"dev-intp{number}"))

        assert it.searches() == 0
        assert it.follower.run_of("dev-intp9") is not None


async def test_a_later_pass_counts_for_a_run_looked_up_before():
    async with following(2 * PAGE) as it:
        await it.follower.ask("dev-intp7")
        alone = it.follower.asked_at("dev-intp7")
        it.stand_in.faults.add("GET", SEARCH, "status", status=503)
        await it.follower.ask("dev-intp8")
        together = it.follower.asked_at("dev-intp7")

        assert alone is not None
        assert together is not None
        assert together > alone


async def test_a_run_whose_name_only_begins_alike_is_not_found():
    async with following(2 * PAGE) as it:
        only = '{"workflows": [{"workflow": {"runName": "dev-intp77", "status": "FAILED",'
        only += ' "submit": "2999-01-01T00:00:00Z"}}]}'
        it.stand_in.faults.add("GET", SEARCH, "status", status=200, body=only)

        await it.follower.ask("dev-intp7")

        run = it.follower.run_of("dev-intp7")
        assert run is not None
        assert run.status is RunStatus.RUNNING


async def test_a_wrong_token_is_noticed_before_the_first_job():
    async with following(0) as it:
        async with asyncio.timeout(PATIENCE):
            while not it.stand_in.requests:
                await asyncio.sleep(0.01)

        assert it.calls("/workflow?workspaceId=7&max=1&") == 1
