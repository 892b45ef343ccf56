"""Kubernetes Events about a job: valid on a real API server, bounded, and their loss is seen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from builders import JOB_ID, T0, UID, job
from hypothesis import given
from hypothesis import strategies as st
from patience import PATIENCE

from pyvatti.errors import AlreadyExists, NamespaceTerminating, Rejected, Unavailable
from pyvatti.kube import CONFIGMAPS, JOBS
from pyvatti.lifecycle.events import BURST, QUEUE_LIMIT, EventRecorder, Subject
from pyvatti.sandbox.kube import events, syntax
from pyvatti.sandbox.kube.resources import EVENTS
from pyvatti.sandbox.kube.store import Store
from pyvatti.telemetry import metrics

SUBJECT = Subject(JOBS, JOB_ID.lower(), UID)
IDENTITY = "hattivatti-7d9f8b6c5d-x2x4q-0a1b2c3d"


class Door:
    """An API server that answers creates as it is told to."""

    namespace = "intervene-dev"

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.taken: list[dict[str, Any]] = []
        self.asked = 0

    async def create(self, _kind: Any, body: dict[str, Any]) -> None:
        self.asked += 1
        if self.answers:
            raise self.answers.pop(0)
        self.taken.append(body)


@asynccontextmanager
async def posting(door: Door) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(door, IDENTITY)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        yield recorder
        task.cancel()


async def until(door: Door, asked: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while door.asked < asked:
            await asyncio.sleep(0.001)


def refusals(why: str) -> float:
    return metrics.events_refused.labels(why)._value.get()


@given(note=st.text(st.characters(codec=None)) | st.text(min_size=2000), warning=st.booleans())
def test_every_event_is_what_a_real_api_server_takes(note: str, *, warning: bool):
    recorder = EventRecorder(Door(), IDENTITY * 9)
    made = recorder._event(SUBJECT, "Failed", note, T0, warning=warning)

    core = events.to_core(made)
    events.check_modern(core)
    Store("intervene-dev").create(EVENTS, "intervene-dev", core)

    assert made["metadata"]["name"].startswith(f"{JOB_ID.lower()}.")
    assert not syntax.check_subdomain("", made["metadata"]["name"])


def test_two_events_never_share_a_name():
    recorder = EventRecorder(Door(), IDENTITY)

    made = [recorder._event(SUBJECT, "Failed", "", T0, warning=False) for _ in range(100)]

    assert len({item["metadata"]["name"] for item in made}) == 100


@pytest.mark.parametrize("name", ["a" * 253, f"{'a' * 199}-{'b' * 53}", f"{'a' * 199}.{'b' * 53}"])
async def test_an_event_about_an_object_with_a_long_name_is_valid(name: str):
    door = Door()

    async with posting(door) as recorder:
        recorder.warn(Subject(CONFIGMAPS, name, "uid"), "NotOurs", "it is kept", T0)
        await until(door, 1)

    (made,) = door.taken
    events.check_modern(events.to_core(made))
    assert made["regarding"]["name"] == name


async def test_what_is_refused_is_counted_and_said_once_and_the_next_one_arrives():
    before = {why: refusals(why) for why in ("Rejected", "Unavailable", "ValueError")}
    refused = [Rejected("422 Invalid: no"), Rejected("422 Invalid: no"), Unavailable("503")]
    door = Door(*refused, ValueError("odd"), AlreadyExists("it arrived before"))

    with structlog.testing.capture_logs() as lines:
        async with posting(door) as recorder:
            for _ in range(6):
                recorder.note(job(), "Failed", "it failed", T0)
            await until(door, 6)

    loud = [(line["reason"], line["kind"]) for line in lines if line["log_level"] == "warning"]
    assert loud == [("Failed", "Rejected"), ("Failed", "Unavailable"), ("Failed", "ValueError")]
    grown = {why: refusals(why) - count for why, count in before.items()}
    assert grown == {"Rejected": 2, "Unavailable": 1, "ValueError": 1}
    assert len(door.taken) == 1


async def test_a_queue_that_is_full_drops_and_never_waits():
    before = refusals("QueueFull")
    door = Door()
    recorder = EventRecorder(door, IDENTITY)

    with structlog.testing.capture_logs() as lines:
        for _ in range(QUEUE_LIMIT + 20):
            recorder.note(job(), "Accepted", "", T0)

    assert refusals("QueueFull") - before == 20
    assert [line["kind"] for line in lines if line["log_level"] == "warning"] == ["QueueFull"]
    assert recorder._queue.qsize() == QUEUE_LIMIT


@pytest.mark.parametrize("error", [NamespaceTerminating("it goes"), RuntimeError("odd")])
async def test_an_event_that_cannot_be_told_ends_nothing(error: Exception):
    door = Door(*[error] * (BURST // 2))

    async with posting(door) as recorder:
        for _ in range(BURST // 2 + 1):
            recorder.note(job(), "Failed", "it failed", T0, warning=True)
        await until(door, BURST // 2 + 1)

    assert [item["type"] for item in door.taken] == ["Warning"]
