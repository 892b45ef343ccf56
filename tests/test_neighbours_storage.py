"""Cloud Storage misbehaving: every cell of its part of docs/reliability.md."""

import json
from datetime import timedelta
from typing import Any

import pytest
from neighbour_lines import run
from neighbour_stage import BYSTANDER, Neighbourhood, is_ready, service_in, town
from neighbours import (
    Cell,
    Fault,
    Harm,
    answers,
    at_once,
    common,
    documented,
    line_is,
    names_of,
    others_go_on,
    outlive_all,
    tell,
)
from stage import JOB

STORAGE = "storage"
OURS = r"^/storage/v1/b(/[^/?]+)?(/o)?\?|^/batch/"  # not what the driver asks
OBJECTS = r"^/storage/v1/b/[^/?]+/o\?"
FIRST = "INTP00000000512"
GONE = json.dumps({"error": {"code": 410, "message": "Gone", "errors": [{"reason": "gone"}]}})
WORK = f"intervene-dev-{JOB.lower()}-work-"
LASTING: dict[str, Any] = {"moments": ("accepting", "cleaning"), "lasts": 0.2}


def is_written_to(on: Neighbourhood) -> None:
    """Let somebody write into the bucket just before each of its next deletions."""
    on.world.storage.write_before_delete(on.world.work_bucket(JOB.lower()), 3)


def lists_no_objects(on: Neighbourhood) -> Harm:
    """Let the list of objects be one from before they were written."""
    rule = on.world.storage.faults.add("GET", OBJECTS, "status", status=200, body="{}")

    async def end() -> None:
        on.world.storage.faults.remove(rule)

    return Harm(lambda: rule.hits, end)


def fails_in_part(on: Neighbourhood) -> None:
    """Let parts of batches fail, some of them only in their answer."""
    on.world.storage.fail_parts(503, count=4)
    on.world.storage.fail_parts(429, count=4, after=True)


def its_clock_is(offset: timedelta) -> Fault:
    return at_once(lambda on: on.world.storage.advance(offset))


def refuses(status: int) -> Cell:
    """Refuse every call in Cloud Storage's own form."""
    return Cell(fault=answers(STORAGE, "status", path=OURS, status=status), **LASTING)


CELLS = common(STORAGE, path=OURS, **LASTING) | {
    "401 for a while": refuses(401),
    "403 for a while": refuses(403),
    "409": refuses(409),
    "410": Cell(
        fault=answers(STORAGE, "status", method="DELETE", path=OURS, status=410, body=GONE),
        moments=("cleaning",),
        hits=2,
    ),
    "very slow answers": Cell(fault=answers(STORAGE, "slow", path=OURS, seconds=0.3), **LASTING),
    "an answer that is lost": Cell(fault=answers(STORAGE, "after", path=OURS), **LASTING),
    "objects written while it is emptied": Cell(
        fault=at_once(is_written_to), moments=("cleaning",)
    ),
    "a stale list": Cell(fault=lists_no_objects, moments=("cleaning",), hits=2),
    "parts of a batch fail": Cell(fault=at_once(fails_in_part), moments=("cleaning",)),
    "its clock 1 h ahead": Cell(fault=its_clock_is(timedelta(hours=1)), moments=("before",)),
    "its clock 1 h behind": Cell(fault=its_clock_is(timedelta(hours=-1)), moments=("before",)),
    "away for 10 minutes": Cell(
        fault=line_is(STORAGE, "refuse"), moments=("cleaning",), lasts=4.0, hits=0
    ),
}


@pytest.fixture(scope="module")
def outcomes(request):
    return run(outlive_all(request, CELLS))


@pytest.mark.parametrize("name", CELLS)
def test_a_job_outlives_cloud_storage(outcomes, name):
    tell(outcomes, name)


def test_a_410_for_a_new_bucket_fails_the_job_once_and_leaves_nothing():
    run(_is_gone_for_ever())


async def _is_gone_for_ever() -> None:
    async with town() as there, service_in(there, hosts={}) as on:
        await is_ready(on)
        on.world.storage.faults.add("POST", r"/b\?", "status", status=410, body=GONE, count=1)
        await on.launch()
        await on.ends_well(JOB, state="Failed")


def test_an_organisations_policy_fails_the_job_once_in_googles_words():
    run(_is_against_the_policy())


async def _is_against_the_policy() -> None:
    async with town() as there, service_in(there, hosts={}) as on:
        await is_ready(on)
        on.world.storage.force_policy({"location": "US"})
        await on.launch()
        await on.ends_well(JOB, state="Failed")
        said = "Request violates constraint 'constraints/gcp.resourceLocations'"
        assert f"412 conditionNotMet: {said}" in str(await on.show())
        assert on.told() == ["failed"]


def test_jobs_wait_for_cloud_storage_without_dns_and_a_later_start_finishes_them():
    run(_has_no_name())


async def _has_no_name() -> None:
    """Names are looked up in threads: this failure lasts as long as the process does."""
    async with town() as there:
        async with service_in(there, hosts={STORAGE: "storage.invalid"}) as on:
            await is_ready(on)
            await on.launch()
            answered = await on.probe()
            assert answered[0].status == 201
            waiting = (await on.show())["waiting"]
            assert waiting["on"] == "buckets"
        async with service_in(there, hosts={}) as on:
            await on.ends_well(JOB, BYSTANDER)


def test_other_jobs_go_on_while_calls_about_one_bucket_hang():
    run(others_go_on(answers(STORAGE, "hang", path=f"^/storage/.*{WORK}"), "cleaning"))


def test_a_job_that_is_cancelled_in_the_queue_for_a_bucket_delays_nobody():
    run(_gives_up_its_turn())


async def _gives_up_its_turn() -> None:
    async with town() as there, service_in(there, hosts={}, BUCKET_INTERVAL="0.5") as on:
        await is_ready(on)
        await on.launch(FIRST)
        await on.launch(JOB)
        await on.until(lambda: on.service.doors.limiter.waiting > 1, "both wait for their turns")
        await on.client.delete(f"/jobs/{JOB}")
        await on.launch(BYSTANDER)

        await on.until_finished(BYSTANDER)

        await on.ends_well(FIRST, BYSTANDER)
        assert on.told() == ["failed"]


def test_every_cell_of_the_document_is_tested():
    assert documented("Cloud Storage") == names_of(globals())
