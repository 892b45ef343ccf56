"""The outbox as receivers and operators see it: tries, pauses, what is lost or told again."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from api_calls import PATIENCE, replica
from builders import T0, job
from neighbour_settings import SIGNING_SECRET
from prometheus_client.parser import text_string_to_metric_families
from stage import JOB, Stage, stage
from standardwebhooks import Webhook

from pyvatti.lifecycle.attempts import Attempts
from pyvatti.lifecycle.courier import FIRST_BACKOFF, LONGEST_BACKOFF, back_off
from pyvatti.models import Delivery, Event, Notice, State, lost_events
from pyvatti.sandbox.kube.resources import EVENTS

OTHER = "INTP00000000514"


def notice(sequence: int = 1, event: Event = Event.FAILED, **changes: Any) -> Notice:
    return Notice(sequence=sequence, event=event, at=T0, **changes)


def reasons(on: Stage) -> list[str]:
    """Give the reasons of the Events about the job."""
    return [item["reason"] for item in on.world.kube.store.list(EVENTS, "intervene-dev")]


async def until_delivery(client: Any, **wanted: Any) -> dict[str, Any]:
    """Wait until the last event of the job is as wanted; a callable is asked, a value compared."""
    shown: dict[str, Any] = {}

    def fits() -> bool:
        return all(
            want(shown.get(key)) if callable(want) else shown.get(key) == want
            for key, want in wanted.items()
        )

    try:
        async with asyncio.timeout(PATIENCE):
            while not shown or not fits():
                await asyncio.sleep(0.02)
                view = (await client.get(f"/jobs/{JOB}")).json()
                shown = (view.get("deliveries") or [{}])[-1]
    except TimeoutError:
        raise AssertionError(f"never {wanted}: {shown}") from None
    return shown


# Pauses


def test_pauses_double_are_spread_and_never_exceed_five_minutes():
    for failures, longest in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 256.0), (10, 300.0), (10**6, 300)):
        pauses = [back_off(failures, FIRST_BACKOFF) for _ in range(300)]

        assert 0.6 * longest <= min(pauses) < 0.7 * longest
        assert 0.9 * longest < max(pauses) <= longest


def test_a_pause_the_backend_asks_for_is_kept_within_bounds():
    assert 30 <= back_off(1, FIRST_BACKOFF, asked=30.0) < 31
    assert back_off(1, FIRST_BACKOFF, asked=86_400.0) == LONGEST_BACKOFF
    assert back_off(20, FIRST_BACKOFF, asked=0.1) > 100


# What memory knows


def test_memory_counts_only_where_it_is_ahead_of_what_is_stored():
    attempts, stored = Attempts(), notice(attempts=4)
    for known, newest in (
        (replace(stored, attempts=7), True),
        (replace(stored, attempts=3), False),
        (notice(2, attempts=9), False),
    ):
        attempts.note("uid", known)
        assert (attempts.newest("uid", stored) is known) is newest
    attempts.note("uid", replace(stored, attempts=7))
    delivered = replace(stored, delivery=Delivery.DELIVERED)

    assert attempts.newest("uid", delivered) is delivered
    assert attempts.newest("other", stored) is stored


def test_whoever_stops_leading_keeps_what_was_taken_and_forgets_what_another_tells_now():
    attempts = Attempts()
    taken = notice(attempts=2, delivery=Delivery.DELIVERED)
    for uid, known in (("a", taken), ("b", notice(attempts=2)), ("gone", taken)):
        attempts.note(uid, known)

    attempts.stand_down({"a", "b"})

    stored = job(State.FAILED, outbox=(notice(),))
    assert [attempts.newest(uid, notice()) for uid in ("a", "b", "gone")] == [
        taken,
        *(notice(), notice()),
    ]
    assert attempts.outbox(replace(stored, uid="a")) == (taken,)


# What may be told again


@pytest.mark.parametrize(
    ("outbox", "sequences"),
    [
        pytest.param([("deployed", "dead")], [1], id="the job runs"),
        pytest.param([("deployed", "dead"), ("failed", "delivered")], [], id="never after its end"),
        pytest.param([("deployed", "undelivered"), ("succeeded", "dead")], [2], id="the end alone"),
        pytest.param([("deployed", "dropped"), ("failed", "undelivered")], [2], id="given up"),
        pytest.param([("deployed", "dead"), ("failed", "pending")], [], id="the end is on its way"),
    ],
)
def test_only_what_is_lost_and_still_true_is_told_again(outbox, sequences):
    notices = tuple(
        notice(number, Event(event), delivery=Delivery(delivery))
        for number, (event, delivery) in enumerate(outbox, 1)
    )

    assert [item.sequence for item in lost_events(notices)] == sequences


# Stories


async def test_a_healthy_delivery_says_that_one_try_was_enough():
    async with stage("transfer_fails") as on:
        await on.launch()

        told = (await on.until_finished())["deliveries"][-1]

        assert (told["attempts"], told["answer"], told["next_try_at"]) == (1, "200", None)
        assert told["tried_at"] == told["settled_at"]


async def test_tries_show_in_api_metrics_and_events_and_other_replicas_learn_of_them():
    async with stage("transfer_fails") as on:
        on.world.backend.down = True
        before = tries(await scraped(on))
        await on.launch()
        first = await until_delivery(on.client, attempts=lambda count: (count or 0) >= 1)
        assert first["delivery"] == "pending"
        assert first["answer"] == "503 no healthy upstream"
        assert first["tried_at"] < first["next_try_at"]
        async with replica(on.world) as follower:
            stored = await until_delivery(follower, attempts=4)
        live = await until_delivery(on.client, attempts=lambda count: (count or 0) >= 4)
        text = await scraped(on)
        await on.until(lambda: "NotificationDelayed" in reasons(on), "an Event says so")
        on.world.backend.down = False
        taken = (await on.until_finished())["deliveries"][-1]

    assert (stored["answer"], stored["next_try_at"]) == ("503 no healthy upstream", None)
    assert live["next_try_at"] is not None
    assert tries(text) - before >= 4
    assert sample(text, "pyvatti_outbox_depth") == 1
    assert sample(text, "pyvatti_outbox_oldest_seconds") > 1
    assert taken["delivery"] == "delivered"
    assert taken["attempts"] >= 5
    assert len(on.writes()) <= 13 + 1, on.writes()


async def scraped(on: Stage) -> str:
    return (await on.client.get("/metrics")).text


def sample(text: str, name: str, **labels: str) -> float:
    """Give one value of an exposition; a counter nobody has counted yet is 0."""
    samples = [item for family in text_string_to_metric_families(text) for item in family.samples]
    found = [item.value for item in samples if (item.name, item.labels) == (name, labels)]
    return found[0] if found else 0.0


def tries(text: str) -> float:
    return sample(text, "pyvatti_notice_attempts_total", event="failed", answer="retry")


async def test_an_event_of_a_live_job_is_told_again_on_request_and_the_record_knows():
    async with stage("transfer_fails") as on:
        on.world.storage.faults.add("DELETE", ".*", "status", status=503)
        on.world.backend.known = set()  # 404: the backend does not know the id
        await on.launch()
        await until_delivery(on.client, delivery="dead")
        await on.until(lambda: "NotificationFailed" in reasons(on), "an Event says so")
        on.world.backend.known = None

        answer = await on.client.post(f"/jobs/{JOB}/redeliver")

        assert answer.status_code == 200
        assert [item["delivery"] for item in answer.json()["deliveries"]] == ["pending"]
        await until_delivery(on.client, delivery="delivered", attempts=2)
        on.world.storage.faults.clear()
        shown = await on.until_finished()
        assert shown["deliveries"][-1]["delivery"] == "delivered"
        assert on.told() == ["failed"]


async def test_a_refused_redelivery_is_counted_in_the_record():
    async with stage("transfer_fails") as on:
        on.world.backend.known = set()
        await on.launch()
        await on.until_finished()
        on.world.backend.down = True

        refused = await on.client.post(f"/jobs/{JOB}/redeliver")

        assert refused.status_code == 503
        told = (await on.show())["deliveries"][-1]
        assert (told["delivery"], told["attempts"]) == ("dead", 2)
        assert told["answer"] == "503 no healthy upstream"


async def test_jobs_with_lost_events_are_found_live_and_finished_until_they_are_told():
    async with stage("transfer_fails", jobs={OTHER.lower(): "success"}) as on:
        on.world.backend.known = {OTHER}
        on.world.storage.faults.add("DELETE", f"{JOB.lower()}-work-", "status", status=503)
        for job_id in (JOB, OTHER):
            await on.launch(job_id)
        await until_delivery(on.client, delivery="dead")
        await on.until_finished(OTHER)
        live = await listed(on)
        on.world.storage.faults.clear()
        await on.until_finished()
        finished = await listed(on)
        on.world.backend.known = None

        await on.client.post(f"/jobs/{JOB}/redeliver")

        assert live == [(JOB, True, ["failed"])]
        assert finished == [(JOB, False, ["failed"])]
        assert await listed(on) == []
        assert {job["id"]: job["lost"] for job in await all_jobs(on)} == {JOB: [], OTHER: []}


async def listed(on: Stage) -> list[tuple[str, bool, list[str]]]:
    """Name the jobs with a lost event."""
    return [(job["id"], job["live"], job["lost"]) for job in await all_jobs(on, lost="true")]


async def all_jobs(on: Stage, **query: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = (await on.client.get("/jobs", params=query)).json()["jobs"]
    return jobs


async def test_a_deployed_that_was_lost_is_never_told_after_the_end():
    async with stage(speed=4.0) as on:
        on.world.backend.known = set()
        await on.launch()
        await on.until(lambda: bool(on.world.backend.received), "deployed is told")
        on.world.backend.known = None
        shown = await on.until_finished()
        assert [item["delivery"] for item in shown["deliveries"]] == ["dead", "delivered"]

        answer = await on.client.post(f"/jobs/{JOB}/redeliver")

        assert answer.status_code == 200
        assert on.told() == ["succeeded"]
        assert on.world.backend.states == {JOB: "COMPLETED"}


async def test_every_try_of_an_event_carries_its_one_id_and_a_signature_of_its_own():
    async with stage("transfer_fails", NOTIFY_SIGNING_SECRET=SIGNING_SECRET) as on:
        on.world.backend.faults.add("PATCH", ".", "after", count=1)  # its answer is lost
        await on.launch()
        await on.until_finished()
        calls = on.world.backend.received

    key = Webhook(SIGNING_SECRET)
    assert len(calls) >= 2
    for call in calls:
        assert key.verify(call.raw, dict(call.headers)) == json.loads(call.raw)
        assert call.headers["webhook-id"] == call.headers["x-hattivatti-event-id"]
    failed = {call.headers["webhook-id"] for call in calls if call.body["event"] == "failed"}
    assert len(failed) == 1
