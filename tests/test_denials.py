"""What an admission webhook or policy has against a job is shown and told, and in the end fails it.

A permission that is missing is no such denial: the job waits, as its operator is the cause.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import T0, at, job, seen, settings
from patience import PATIENCE
from stage import FAST, JOB, Stage, launch_body, service_on, stage

from pyvatti.models import ClusterEvent, State, Waiting
from pyvatti.policy import Progress, denial_stays, denied, waiting_for
from pyvatti.sandbox.faults import FaultRule
from pyvatti.settings import Settings

WORDS = 'admission webhook "owners.policy.test" denied the request: label owner is missing'
POLICY = "ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: no owner"
PERMISSION = 'secrets is forbidden: User "pyvatti" cannot create resource "secrets"'
DENIAL = Waiting(on="admission", message=WORDS, since=T0)
QUEUED = job(State.REQUESTED)


def refusal(code: int, message: str) -> dict[str, Any]:
    """Give the options of a fault rule that refuses as the API server does."""
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return {"status": code, "body": json.dumps(body)}


def event(reason: str, seconds: float) -> ClusterEvent:
    return ClusterEvent(reason=reason, note=WORDS, warning=True, at=at(seconds), about="Job")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(
            seen(QUEUED, has_slot=True, progress=Progress(denial=DENIAL)), DENIAL, id="queued"
        ),
        pytest.param(seen(QUEUED, progress=Progress(denial=DENIAL)), DENIAL, id="without a slot"),
        pytest.param(
            seen(job(State.DEPLOYED), progress=Progress(denial=DENIAL)), DENIAL, id="running"
        ),
        pytest.param(
            seen(QUEUED, has_slot=True, events=(event("Accepted", 1), event("PolicyDenied", 2))),
            Waiting(on="admission", message=WORDS, since=at(2)),
            id="told by another replica",
        ),
        pytest.param(
            seen(QUEUED, has_slot=True, events=(event("PolicyDenied", 1), event("BucketMade", 2))),
            Waiting(on="buckets", message="its buckets wait for their turn or are being made"),
            id="told by another replica and over",
        ),
    ],
)
def test_the_words_of_a_policy_are_what_a_job_waits_for(observed, expected):
    assert waiting_for(observed) == expected


def test_a_denial_stays_from_its_first_time_on_whatever_its_words():
    first = denied(None, "one", T0)
    second = denied(first, "two", at(300))
    grace = settings(denial_grace=600)

    assert second == Waiting(on="admission", message="two", since=T0)
    assert [denial_stays(second, at(age), grace) for age in (0, 599, 600)] == [False, False, True]


@asynccontextmanager
async def denying(
    method: str, path: str, code: int, words: str, **changes: str
) -> AsyncIterator[tuple[Stage, FaultRule]]:
    """Launch a job; from then on these calls are refused."""
    async with stage(BUCKET_INTERVAL="0.3", **changes) as on:
        await on.launch()
        rule = on.world.kube.faults.add(method, path, "status", **refusal(code, words))
        await on.until(lambda: rule.hits > 0, "the call is refused")
        yield on, rule


async def until_shown(on: Stage, words: str) -> None:
    """Wait until the first screen holds what the policy says."""
    shown: dict[str, Any] = {}

    async def look() -> bool:
        shown.update(await on.show())
        return (shown["waiting"] or {}).get("message") == words

    for _ in range(int(PATIENCE / 0.05)):
        if await look():
            assert shown["waiting"]["on"] == "admission"
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"never shown: {shown}")


async def test_a_denial_that_stays_fails_the_launch_with_its_words_and_leaves_nothing():
    async with denying("POST", "/secrets", 403, WORDS, DENIAL_GRACE="0.1") as (on, rule):
        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "MakeTransferSecretDenied"
        assert WORDS in shown["verdict"]["message"]
        assert (on.told(), on.leftovers()) == (["failed"], [])
        assert (rule.hits, on.events().count("PolicyDenied")) == (2, 1)


async def test_a_denial_of_the_job_that_is_lifted_lets_it_go_on():
    async with denying("PATCH", "/jobs/", 422, f"jobs is forbidden: {POLICY}") as (on, rule):
        await until_shown(on, POLICY)
        on.world.kube.faults.remove(rule)

        assert (await on.until_finished())["state"] == "Succeeded"


async def test_every_replica_shows_what_the_acting_one_was_told():
    async with denying("POST", "/secrets", 403, WORDS) as (on, rule):
        with tempfile.TemporaryDirectory() as folder:
            changes = on.world.environment(Path(folder)) | FAST
            values = {key.lower(): value for key, value in changes.items()}
            async with service_on(on.world, Settings.model_validate(values)) as other:
                await other.until_ready()
                await until_shown(other, WORDS)
        on.world.kube.faults.remove(rule)


async def test_a_missing_permission_waits_and_never_fails_the_launch():
    async with denying("POST", "/secrets", 403, PERMISSION, DENIAL_GRACE="0.1") as (on, rule):
        await on.until(lambda: rule.hits >= 2, "it is tried again and again")
        shown = await on.show()
        assert (shown["state"], shown["waiting"]["on"]) == ("Requested", "buckets")
        on.world.kube.faults.remove(rule)

        assert (await on.until_finished())["state"] == "Succeeded"
        assert "PolicyDenied" not in on.events()


async def test_a_launch_whose_job_is_denied_is_refused_with_the_words():
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs", "status", **refusal(403, WORDS))

        answer = await on.hasty.post("/launch", json=launch_body())

        assert (answer.status_code, WORDS in answer.json()["detail"]) == (503, True)
        assert (await on.hasty.get(f"/jobs/{JOB}")).status_code == 404
