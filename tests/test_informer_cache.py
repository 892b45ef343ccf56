"""Rows 11 to 15 of the informer's checklist: deletions, listeners, freshness, own writes."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from informer_following import A1, A2, A3, B1, LIMITS, QUIET, following, lists
from kube_scripted import (
    answer,
    bookmark,
    event,
    eventually,
    failure,
    hang,
    job,
    listing,
    running,
    scripted,
    status,
    stream,
)
from structlog.testing import capture_logs

from pyvatti.kube import JOBS, Informer, WatchLimits
from pyvatti.models import Manifest
from pyvatti.telemetry import metrics

# Row 11


async def test_row_11_object_that_left_the_selector_is_told_with_its_last_form(tmp_path: Path):
    left = job("a", 7, status={"active": 1})
    chunks = [event("DELETED", left), event("ADDED", job("a", 9))]
    steps = {"GET": [answer(A3)], "WATCH": [stream(chunks[0], 0.1, chunks[1], then="hang")]}
    async with following(tmp_path, LIST=[lists(A1, version=1)], **steps) as it:
        await eventually(lambda: it.told == ["+a@1", "-a@7"])
        assert it.changes[1] == (left, None)
        assert it.informer.get("a") is None
        # Whoever acts on an absence reads first: here the object still exists.
        assert await it.client.get(JOBS, "a") == A3

        await eventually(lambda: it.told[2:] == ["+a@9"])


# Row 12


async def test_row_12_failing_listener_is_logged_and_the_stream_goes_on(tmp_path: Path):
    seen = []

    def listen(_: Manifest | None, new: Manifest | None) -> None:
        seen.append(new)
        raise ValueError("broken listener")

    steps = {
        "LIST": [lists(A1, version=1)],
        "WATCH": [stream(event("MODIFIED", A2), event("MODIFIED", A3), then="hang")],
    }
    before = metrics.unexpected.labels("informer of jobs", "ValueError")._value.get()
    with capture_logs() as logs:
        async with scripted(tmp_path, **steps) as (server, client):
            informer = Informer(client, JOBS, selector="", on_change=listen, limits=LIMITS)
            async with running(informer.run()):
                await eventually(lambda: len(seen) == 3)

    assert seen == [A1, A2, A3]
    assert len(server.seen("WATCH")) == 1
    said = [entry for entry in logs if entry["event"] == "unexpected error"]
    assert [(entry["name"], entry["kind"]) for entry in said] == [("a", "ValueError")]
    assert "broken listener" not in str(logs)
    assert metrics.unexpected.labels("informer of jobs", "ValueError")._value.get() == before + 3


async def test_row_12_cancelling_hangs_up_at_once(tmp_path: Path):
    steps = {"LIST": [lists(A1, version=1)], "WATCH": [stream(bookmark(2), then="hang")]}
    async with scripted(tmp_path, **steps) as (server, client):
        informer = Informer(client, JOBS, selector="", on_change=lambda *_: None)
        async with running(informer.run()):
            await eventually(lambda: server.open == 1 and informer.synced)

        await eventually(lambda: server.open == 0)


async def test_row_12_trim_that_fails_keeps_the_object_whole(tmp_path: Path):
    steps = {"LIST": [lists(A1, version=1)], "WATCH": [QUIET]}
    async with following(tmp_path, trim=lambda obj: obj["nothing"], **steps) as it:
        await eventually(lambda: it.informer.synced)

        assert it.informer.items() == [A1]


# Row 13


async def test_row_13_nothing_is_synced_before_the_whole_list_is_in(tmp_path: Path):
    steps = {
        "LIST": [answer(listing(A1, version=5, continue_="n")), hang()],
        "WATCH": [QUIET],
    }
    async with following(tmp_path, **steps) as it:
        await eventually(lambda: len(it.server.seen("LIST")) == 2)

        assert not it.informer.synced
        assert not it.informer.is_fresh(time.monotonic())
        assert it.informer.items() == []


async def test_row_13_fresh_is_synced_and_lately_spoken_to(tmp_path: Path):
    steps = {"LIST": [lists(version=5)], "WATCH": [stream(0.1, bookmark(6), then="hang")]}
    async with following(tmp_path, **steps) as it:
        await it.informer.wait_synced()
        listed = it.informer.last_heard
        await eventually(lambda: it.informer.last_heard > listed)
        heard = it.informer.last_heard

        assert it.informer.is_fresh(heard + LIMITS.fresh - 0.01)
        assert not it.informer.is_fresh(heard + LIMITS.fresh + 0.01)


def test_row_13_documented_limits_are_the_defaults():
    limits = WatchLimits()

    assert (limits.idle, limits.stream, limits.page) == (75, (200, 290), 500)
    assert (limits.backoff, limits.backoff_cap, limits.backoff_calm) == (0.8, 30, 120)
    assert (limits.fresh, limits.resync, limits.short) == (150, 600, 1)


# Row 14


async def test_row_14_own_write_is_visible_at_once_and_never_undone(tmp_path: Path):
    gate = asyncio.Event()

    async def watch(request: Any) -> Any:
        await gate.wait()
        late = [event("MODIFIED", job("a", version)) for version in (2, 3, 4, 5)]
        return await stream(*late, then="hang")(request)

    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=[watch]) as it:
        await it.informer.wait_synced()
        it.informer.note_write(job("a", 4))
        assert it.version("a") == "4"
        gate.set()
        await eventually(lambda: it.version("a") == "5")

        assert it.told == ["+a@1", "~a@4", "~a@5"]


async def test_row_14_answer_that_comes_after_its_event_changes_nothing(tmp_path: Path):
    watches = [stream(event("MODIFIED", A2), event("MODIFIED", A3), then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: it.version("a") == "3")
        it.informer.note_write(A2)
        it.informer.note_write(A3)

        assert it.version("a") == "3"
        assert it.told == ["+a@1", "~a@2", "~a@3"]


async def test_row_14_created_object_is_known_before_the_watch_tells(tmp_path: Path):
    watches = [stream(0.1, event("ADDED", A1), event("MODIFIED", A2), then="hang")]
    async with following(tmp_path, LIST=[lists(version=1)], WATCH=watches) as it:
        await it.informer.wait_synced()
        it.informer.note_write(A1)
        assert it.names == ["a"]
        await eventually(lambda: it.version("a") == "2")

        assert it.told == ["+a@1", "~a@2"]


async def test_row_14_write_answered_after_the_deletion_does_not_bring_it_back(tmp_path: Path):
    watches = [stream(event("DELETED", job("a", 7)), then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await eventually(lambda: it.told == ["+a@1", "-a@7"])
        it.informer.note_write(job("a", 6))

        assert it.names == []


async def test_row_14_write_that_let_the_object_go_waits_for_the_watch(tmp_path: Path):
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=[QUIET]) as it:
        await it.informer.wait_synced()
        dying = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        it.informer.note_write(job("a", 6, metadata=dying))
        it.informer.note_write(status(200, ""))

        assert it.version("a") == "1"


async def test_row_14_deletion_ends_the_wait_for_an_own_write(tmp_path: Path):
    chunks = [0.1, event("DELETED", job("a", 9)), event("ADDED", job("a", 11, "u2"))]
    watches = [stream(*chunks, then="hang")]
    async with following(tmp_path, LIST=[lists(A1, version=1)], WATCH=watches) as it:
        await it.informer.wait_synced()
        it.informer.note_write(A2)
        await eventually(lambda: it.version("a") == "11")

        assert it.told == ["+a@1", "~a@2", "-a@9", "+a@11"]


async def test_row_14_list_begun_before_a_write_does_not_undo_it(tmp_path: Path):
    gate = asyncio.Event()

    async def late(request: Any) -> Any:
        await gate.wait()
        return await lists(A1, version=8)(request)

    second = stream(0.1, event("MODIFIED", A2), event("MODIFIED", A3), then="hang")
    steps = {"LIST": [lists(A1, version=1), late], "WATCH": [failure(410, "Expired"), second]}
    async with following(tmp_path, **steps) as it:
        await eventually(lambda: len(it.server.seen("LIST")) == 2)
        it.informer.note_write(A2)
        it.informer.note_write(B1)
        gate.set()
        await eventually(lambda: it.version("a") == "3")

        assert it.told == ["+a@1", "~a@2", "+b@1", "~a@3"]
        assert it.names == ["a", "b"]


async def test_row_14_list_begun_after_a_write_is_the_truth(tmp_path: Path):
    gate = asyncio.Event()

    async def expire(request: Any) -> Any:
        await gate.wait()
        return await failure(410, "Expired")(request)

    steps = {
        "LIST": [lists(A1, version=1), lists(job("a", 9), version=9)],
        "WATCH": [expire, QUIET],
    }
    async with following(tmp_path, **steps) as it:
        await it.informer.wait_synced()
        it.informer.note_write(A2)
        it.informer.note_write(B1)
        gate.set()
        await eventually(lambda: it.version("a") == "9")

        assert it.names == ["a"]


async def test_row_14_event_that_never_comes_is_replaced_by_a_list(tmp_path: Path):
    beats = [part for beat in range(10_000) for part in (0.05, bookmark(10 + beat))]
    steps = {
        "LIST": [lists(A1, version=1), lists(job("a", 9), version=9)],
        "WATCH": [stream(*beats), QUIET],
    }
    async with following(tmp_path, limits=replace(LIMITS, patience=0.2), **steps) as it:
        await it.informer.wait_synced()
        it.informer.note_write(A2)
        await eventually(lambda: it.version("a") == "9")


# Row 15


async def test_row_15_resync_tells_every_object_again(tmp_path: Path):
    limits = WatchLimits(resync=0.1)
    async with following(
        tmp_path, limits=limits, LIST=[lists(A1, B1, version=1)], WATCH=[QUIET]
    ) as it:
        await eventually(lambda: len(it.told) >= 6)

        assert it.changes[2:4] == [(A1, A1), (B1, B1)]


async def test_row_15_versions_are_opaque(tmp_path: Path):
    chunks = [event("MODIFIED", job("a", "zz")), event("MODIFIED", job("a", "0-x"))]
    watches = [stream(*chunks, 0.1), QUIET]
    async with following(tmp_path, LIST=[lists(job("a", "99"), version="q")], WATCH=watches) as it:
        await eventually(lambda: len(it.watched_from()) == 2)

        assert it.watched_from() == ["q", "0-x"]
        assert it.version("a") == "0-x"


async def test_trim_drops_fields_before_they_are_kept(tmp_path: Path):
    def trim(obj: Manifest) -> Manifest:
        return {key: value for key, value in obj.items() if key != "spec"}

    steps = {
        "LIST": [lists(A1 | {"spec": 1}, version=1)],
        "WATCH": [stream(event("ADDED", B1 | {"spec": 2}), then="hang")],
    }
    async with following(tmp_path, trim=trim, **steps) as it:
        await eventually(lambda: it.names == ["a", "b"])
        it.informer.note_write(A2 | {"spec": 3})

        assert it.informer.items() == [A2, B1]
